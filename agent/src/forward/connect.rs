//! After a connect: where each lane goes on, and what a person is told of other disks and other agents.
use hark_protocol::topics::{Event, EventKind, GapReason, LaneName};
use tracing::{error, info, warn};

use super::{
    Ended, Forward,
    cursor::{Cursors, Found, KafkaCursor},
    destination::Destination,
    mark::Address,
    message::gateway_stamp,
    of,
};
use crate::{
    buffer::{Gap, Position},
    record::{Body, Entry},
};

impl<D: Destination> Forward<D> {
    /// Goes on behind what Kafka has, as far as it tells. The error: the log has ended.
    pub(super) fn reconcile(&mut self, cursors: Option<&Cursors>, address: Address) -> Result<(), Ended> {
        let moved_from = self.mark.address().filter(|before| !before.is(&address)).cloned();
        if let Some(before) = &moved_from {
            self.name_elsewhere(cursors.unwrap_or(&Cursors::default()), before)?;
        }
        self.mark.deliver_to(address);
        if moved_from.is_some() {
            // Before anything is sent, so that it is named once.
            self.store();
        }
        let Some(cursors) = cursors else { return Ok(()) };
        self.highest_ordinal = self.highest_ordinal.max(cursors.highest_ordinal());
        self.store_if_due();
        if cursors.lanes.iter().all(Option::is_none) && self.mark.lanes().is_some() && moved_from.is_none() {
            self.status.forward(|numbers| numbers.cursor_expired += 1);
            warn!("Kafka has no cursors of this gateway; going on from the mark on this disk");
        }
        let mut reached = self.lanes.at();
        for lane in LaneName::ALL {
            let (place, _) = self.lanes.disk().place(lane, cursors);
            let at = &mut reached[lane as usize];
            // What Kafka has acknowledged stays delivered, whatever it has forgotten: to send it again would double what is still there.
            if let Some(behind) = place.filter(|place| place < at && moved_from.is_none()) {
                self.status.forward(|numbers| numbers.cursor_behind += 1);
                error!(
                    lane = lane.as_str(), from = %behind, to = %*at,
                    "Kafka's cursor is behind what Kafka had acknowledged: the records between may be lost there, `hark audit` tells"
                );
            }
            *at = place.map_or(*at, |place| place.max(*at));
            let others = cursors.lanes[lane as usize].as_ref().map(|cursor| self.lanes.disk().others(lane, cursor));
            self.others[lane as usize] = others.unwrap_or_default();
        }
        self.advance(reached, None, 0);
        let (_, found) = self.lanes.disk().place(LaneName::Events, cursors);
        match &cursors.lanes[LaneName::Events as usize] {
            Some(cursor) if matches!(found, Found::Copy | Found::Foreign) => self.take_over(cursor, found),
            _ => Ok(()),
        }
    }

    /// What was delivered to another address and is not under this one is named here, so that nobody misses it. It is not lost and does not count as such;
    /// where a crash comes before the mark is stored it is named again, which the audit takes for what it is.
    fn name_elsewhere(&self, cursors: &Cursors, before: &Address) -> Result<(), Ended> {
        let disk = self.lanes.disk();
        let mut events = Vec::new();
        for lane in LaneName::ALL {
            let has = disk.place(lane, cursors).0.unwrap_or_default();
            events.extend(disk.between(lane, has, of(&self.lanes.at(), lane)).map(|(incarnation, seqs)| Event {
                text: Some(format!("records {} to {} of lane {lane} were delivered as {before}", seqs.start(), seqs.end()).into()),
                gap_lane: Some(lane),
                gap_inc: Some(incarnation.id.to_string().into()),
                gap_from_seq: Some(*seqs.start()),
                gap_to_seq: Some(*seqs.end()),
                gap_reason: Some(GapReason::DeliveredElsewhere),
                ..Event::new(EventKind::Gap)
            }));
        }
        info!(%before, ranges = events.len(), "records were delivered elsewhere before; events name them");
        self.append_events(events)
    }

    /// Another disk delivered under this gateway id before. Told once per such disk.
    fn take_over(&mut self, cursor: &KafkaCursor, found: Found) -> Result<(), Ended> {
        let theirs = cursor.incarnation;
        if self.mark.has_taken_over(theirs.id) {
            return Ok(());
        }
        self.status.forward(|numbers| numbers.take_over += 1);
        info!(incarnation = %theirs.id, ordinal = theirs.ordinal, copy = found == Found::Copy, "another disk delivered under this gateway id; taking over");
        let how = if found == Found::Copy { "a copy of this disk" } else { "another disk" };
        let event = Event {
            what: Some("taken_over".into()),
            text: Some(format!("took over from incarnation {} of {how}", theirs.id).into()),
            predecessor: Some(theirs.id.to_string().into()),
            ..Event::new(EventKind::IncarnationOpened)
        };
        self.append_events(vec![event])?;
        self.mark.take_over(theirs.id);
        Ok(())
    }

    /// Two agents shut each other out.
    pub(super) fn tell_duplicate(&mut self) {
        let text = format!("another agent runs under gateway id `{}`: the two shut each other out of Kafka", self.gateway.id);
        let event = Event { text: Some(text.into()), ..Event::new(EventKind::DuplicateGateway) };
        // A log that has ended says so itself.
        let _ended = self.append_events(vec![event]);
    }

    fn append_events(&self, events: Vec<Event>) -> Result<(), Ended> {
        let at = self.clock.now();
        let stamp = gateway_stamp(at.ts, at.state, self.gateway.origin);
        let entries = events.into_iter().map(|event| Entry { stamp: stamp.clone(), cause: None, body: Body::Event(event.into()) }).collect();
        self.appender.blocking_append_durably(LaneName::Events, entries, true).map(drop).map_err(|_| Ended::Stopped)
    }

    /// Kafka's cursor of `lane` for `position`.
    pub(super) fn cursor(&self, lane: LaneName, position: Position) -> KafkaCursor {
        let (incarnation, seq) = self.lanes.disk().incarnation(position);
        KafkaCursor { incarnation, seq, others: self.others[lane as usize].clone() }
    }

    /// Kafka has the lanes up to `reached`: `delivered` records of them, by count if it is known, in `bytes` of JSON. The rest was named in gaps.
    pub(super) fn advance(&mut self, reached: super::PerLane<Position>, delivered: Option<u64>, bytes: usize) {
        if reached == self.lanes.at() {
            return;
        }
        let distance = self.lanes.distance(reached);
        let delivered = delivered.unwrap_or_else(|| distance.saturating_sub(self.named_up_to(reached)));
        self.lanes.reached(reached);
        LaneName::ALL.into_iter().for_each(|lane| self.hold.delivered(lane, reached[lane as usize]));
        self.mark.moved(reached, bytes, self.clock.monotonic());
        self.status.moved(reached, delivered, distance.saturating_sub(delivered));
    }

    /// Records between the present places and `reached` that are named in gaps.
    fn named_up_to(&self, reached: super::PerLane<Position>) -> u64 {
        let at = self.lanes.at();
        // One whose event is still to be sent was delivered: no cursor passes a gap before its event.
        let is_passed = |gap: &Gap| gap.to <= of(&reached, gap.lane) && gap.to > of(&at, gap.lane) && gap.event <= of(&reached, LaneName::Events);
        let passed = self.log.gaps().into_iter().filter(is_passed);
        passed.map(|gap| self.lanes.disk().distance(gap.lane, of(&at, gap.lane).max(Position { seq: gap.from.seq - 1, ..gap.from }), gap.to)).sum()
    }
}
