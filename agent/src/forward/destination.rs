//! What forward needs of Kafka. The real one is in [`super::kafka`]; the tests have one in memory that dies, lies and fences at every step.
use super::{
    cursor::{Cursors, KafkaCursor, Lineage, PerLane},
    delivery::Failed,
    message::Message,
};
use crate::{buffer::Incarnation, stop::Stop};

/// A Kafka that can be connected to.
pub trait Destination {
    /// One connection.
    type Session: Session;

    /// Connects. With transactions this ends every older connection under the same gateway id and what it left open, then asks how far Kafka has each
    /// lane; without them there is no such answer. A `stop` ends it soon.
    ///
    /// # Errors
    /// [`Failed`].
    fn connect(&mut self, stop: &Stop) -> Result<(Self::Session, Option<Cursors>), Failed>;

    /// Tries once to send latest values without a session, while none can be had. Nobody relies on it.
    fn send_aside(&mut self, messages: &[Message], stop: &Stop);
}

/// A connection. After any failure it is dropped.
pub trait Session {
    /// Sends `messages` and moves Kafka's cursors, both or neither; returns when Kafka has them. Calls `meanwhile` once they are on their way, if they get
    /// that far: for what need not wait for the answer.
    ///
    /// # Errors
    /// [`Failed`]. Kafka may have them all the same, if only its answer was lost: the next connection tells.
    fn send(&mut self, messages: &[Message], progress: Option<&Progress>, stop: &Stop, meanwhile: &mut dyn FnMut()) -> Result<(), Failed>;

    /// The id of the cluster that it leads to, where that tells.
    fn cluster(&self) -> Option<String>;

    /// Connections lost, and requests not answered, since it was opened.
    fn disturbances(&self) -> u64;
}

/// The cursors that a transaction carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Of all lanes.
    pub lanes: PerLane<KafkaCursor>,
    /// Who delivers, once per connection.
    pub lineage: Option<(Incarnation, Lineage)>,
}
