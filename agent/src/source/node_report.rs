//! What nodes report, as events of the log. Pure.
use hark_protocol::{
    node::NodeEvent,
    topics::{Event, EventKind, Name, Origin, TsSource},
};

use super::node_block::{GivenUp, Wish};
use crate::{
    clock::Now,
    config::Node,
    record::{Body, Entry, Stamp},
};

/// A report of a node as it is stored and counted.
pub(super) struct Report {
    kind: EventKind,
    pub(super) what: &'static str,
    count: Option<u64>,
    text: String,
    detail_json: Option<String>,
}

impl Report {
    pub(super) fn entry(self, node: &Node, source: &Name, now: &Now, origin: Origin) -> Entry {
        let event = Event {
            source: Some(source.clone()),
            what: Some(self.what.into()),
            count: self.count,
            text: Some(self.text.into()),
            detail_json: self.detail_json.map(Into::into),
            ..Event::new(self.kind)
        };
        let stamp = Stamp { asset: Some(node.asset.clone()), ts: now.ts, ts_source: TsSource::Gateway, clock: now.state, origin };
        Entry { stamp, cause: None, body: Body::Event(event.into()) }
    }
}

pub(super) fn dropped(frames: u32) -> Report {
    let text = format!("{frames} frames were dropped by the node before they could be stored");
    Report { kind: EventKind::SourceLoss, what: "node_ring", count: Some(frames.into()), text, detail_json: None }
}

/// The numbers went on elsewhere: frames were acknowledged that this log does not hold.
pub(super) fn numbers_vanished(frames: u32) -> Report {
    let text = format!(
        "{frames} frames are missing that the node neither has nor dropped: acknowledged by another agent, or before the buffer was put back to an older state"
    );
    Report { kind: EventKind::SourceLoss, what: "node_numbers", count: Some(frames.into()), text, detail_json: None }
}

/// The count is the node's since its own start: what of it an earlier start of the agent reported is not known.
pub(super) fn dropped_earlier(frames: u32) -> Report {
    let text =
        format!("the node dropped {frames} frames between its start and this first contact; an earlier contact may have reported some of them");
    Report { kind: EventKind::SourceLoss, what: "node_ring_earlier", count: Some(frames.into()), text, detail_json: None }
}

/// Somebody, or an alarm, waits for a block that does not come.
pub(super) fn given_up(node: u32, failed: &GivenUp) -> Report {
    let GivenUp { wish: Wish { point, cause_id, .. }, reason, firmware } = failed;
    let of = firmware.as_ref().map_or(String::new(), |firmware| format!(" ({firmware})"));
    let text = format!("no raw block of `{point}` for {cause_id} from node {node}{of}: {}", reason.text());
    let detail = serde_json::json!({ "point": &**point, "reason": reason.name(), "cause_id": &**cause_id });
    Report { kind: EventKind::Source, what: "raw_block_given_up", count: None, text, detail_json: Some(detail.to_string()) }
}

/// The rest of a block that an earlier start of the agent asked for.
pub(super) fn unasked(node: u32) -> Report {
    let text = format!("the agent was started anew while node {node} sent a raw block: what had come of it is gone; ask again");
    Report {
        kind: EventKind::Source,
        what: "raw_block_given_up",
        count: None,
        text,
        detail_json: Some("{\"reason\":\"agent_restarted\"}".to_owned()),
    }
}

/// For inference, which reads inputs alone: from here on, or no longer, the sensors behind the channels of `node` test themselves.
pub(super) fn check_function(id: u32, node: &Node, is_testing: bool) -> Report {
    let (what, text) = match is_testing {
        true => (CHECK_FUNCTION, format!("node {id} tests its sensors: what they say is no measurement")),
        false => (CHECK_FUNCTION_OVER, format!("node {id} has ended testing its sensors, or was started anew")),
    };
    let detail = serde_json::json!({ "channels": node.channels });
    Report { kind: EventKind::Source, what, count: None, text, detail_json: Some(detail.to_string()) }
}

/// Whether a record of the inputs lane says that sensors begin, or end, to test themselves; with the names of their channels.
pub fn self_test_of(event: &Event) -> Option<(bool, Vec<String>)> {
    let is_testing = match event.what.as_deref()? {
        CHECK_FUNCTION => true,
        CHECK_FUNCTION_OVER => false,
        _ => return None,
    };
    let detail: serde_json::Value = serde_json::from_str(event.detail_json.as_deref()?).ok()?;
    Some((is_testing, serde_json::from_value(detail.get("channels")?.clone()).ok()?))
}

const CHECK_FUNCTION: &str = "check_function";
const CHECK_FUNCTION_OVER: &str = "check_function_over";

pub(super) fn report(event: NodeEvent) -> Report {
    let source = |what, text: String| Report { kind: EventKind::Source, what, count: None, text, detail_json: None };
    match event {
        NodeEvent::Overrun { channel, samples } => Report {
            kind: EventKind::SourceLoss,
            what: "overrun",
            count: Some(samples.into()),
            text: format!("the node lost {samples} samples of channel {channel}: its sample ring was full"),
            detail_json: None,
        },
        NodeEvent::Clipped { channel, samples } => Report {
            count: Some(samples.into()),
            ..source("clipped", format!("{samples} samples of channel {channel} stood at the end of the sensor's range"))
        },
        NodeEvent::Stuck { channel } => source("stuck", format!("channel {channel} had the same value throughout a block")),
        NodeEvent::ClockStepped { by_us } => source("clock_stepped", format!("the node's clock jumped by {by_us} us")),
        NodeEvent::SelfTestStarted => source("self_test_started", "the node tests its sensors".to_owned()),
        NodeEvent::SelfTestEnded { passed } => {
            let result = if passed { "as they should" } else { "not as they should" };
            source(if passed { "self_test_passed" } else { "self_test_failed" }, format!("the node's sensors answered {result}"))
        }
        NodeEvent::CommandDone { seq } => source("command_done", format!("the node carried out command {seq}")),
        NodeEvent::CommandRefused { seq } => source("command_refused", format!("the node did not carry out command {seq}")),
    }
}
