//! A request to stop, shared by threads.
use tokio::sync::watch;

/// Asks to stop, at the latest when it is dropped.
#[derive(Debug)]
pub struct StopHandle(watch::Sender<bool>);

/// Hears the request.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A handle and its listener.
    pub fn new() -> (StopHandle, Self) {
        let (sender, receiver) = watch::channel(false);
        (StopHandle(sender), Self(receiver))
    }

    /// Whether it was asked.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns once it is asked. May be cancelled.
    pub async fn asked(&mut self) {
        // An error means that the handle is gone, which asks too.
        let _either_way = self.0.wait_for(|asked| *asked).await;
    }
}

impl StopHandle {
    /// Asks.
    pub fn ask(&self) {
        self.0.send_replace(true);
    }
}
