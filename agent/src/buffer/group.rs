//! The appends of the next commit, and what the commit loop does besides: naming gaps, giving up what there is no room for, waiting for a disk.
use std::time::Duration;

use hark_protocol::topics::{GapReason, LaneName, TsSource};
use tokio::{runtime::Runtime, sync::mpsc};
use tracing::{error, info, warn};

use super::{
    BufferCounters, BufferError, Gap, Log, Position, Writer,
    commit::{AppendError, Committed, Done, Received, Request, Settings},
    frame::Decoder,
    gaps,
    header::Key,
    lane::Place,
    quarantine,
    recovery::{HighWater, Owed},
    rewrite,
    space::{Ballast, Space, Victim},
};
use crate::{
    backoff::Backoff,
    causes,
    record::{Body, Entry, Stamp},
};

/// The high water is stored so often: so much of a tail that a failing disk loses may go unnoticed.
const HIGH_WATER_EVERY: Duration = Duration::from_secs(60);
/// So long an eviction waits for the checkpoint that makes it harmless to inference.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(2);
/// After a stop was asked for, a disk that takes nothing is waited for so long.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// Between two tries meanwhile.
const STOPPING_WAIT: Duration = Duration::from_millis(100);
/// Without a look at the space so much is stored at most.
const LOOK_AFTER_BYTES: u64 = 256 * 1024;
/// Payload takes so many times its size on disk at most, as measured with sled.
const HEADROOM: u64 = 3;

pub(super) struct Group {
    writer: Writer,
    log: Log,
    settings: Settings,
    timer: Runtime,
    space: Space,
    ballast: Ballast,
    high_water: HighWater,
    waiting: Vec<(Done, Result<Committed, AppendError>)>,
    /// Losses that are a fact and have no name yet: there was no room for it.
    owed: Vec<Owed>,
    due: bool,
    /// When the first of those that wait came, as time since boot.
    first_at: Option<Duration>,
    idle_at: Duration,
    looked_at: Duration,
    high_water_at: Duration,
    checkpoint_wanted_at: Option<Duration>,
    /// It was said that the quota is too small.
    quota_told: bool,
}

impl Group {
    pub(super) fn new(writer: Writer, log: Log, settings: Settings, timer: Runtime) -> Result<Self, BufferError> {
        let now = settings.clock.monotonic();
        let space = Space {
            quota_bytes: settings.quota_bytes,
            max_age: settings.max_age,
            headroom_bytes: HEADROOM * (log.shared.settings.largest_partition_bytes() + LOOK_AFTER_BYTES + settings.policy.max_bytes as u64),
        };
        Ok(Self {
            ballast: Ballast::new(log.dir(), settings.quota_bytes),
            high_water: HighWater::open(log.dir())?,
            owed: log.shared.take_owed(),
            idle_at: now + settings.policy.idle_after,
            looked_at: now,
            high_water_at: now + HIGH_WATER_EVERY,
            checkpoint_wanted_at: None,
            quota_told: false,
            writer,
            log,
            settings,
            timer,
            space,
            waiting: Vec::new(),
            due: false,
            first_at: None,
        })
    }

    /// What is to be done before anything is appended.
    pub(super) fn start(&mut self) -> Result<(), BufferError> {
        self.ballast.fill();
        // So that its ordinal is not given again should the register of incarnations be lost.
        self.store_high_water();
        self.name_owed()
    }

    /// The last commit.
    pub(super) fn end(&mut self) -> Result<(), BufferError> {
        self.commit()?;
        self.store_high_water();
        Ok(())
    }

    /// Waits for a request.
    pub(super) fn receive(&self, requests: &mut mpsc::Receiver<Request>, patience: Duration) -> Received {
        match self.timer.block_on(async { tokio::time::timeout(patience, requests.recv()).await }) {
            Ok(Some(request)) => Received::Request(request),
            Ok(None) => Received::End,
            Err(_) => Received::Nothing,
        }
    }

    pub(super) fn first_at(&self) -> Option<Duration> {
        self.first_at
    }

    pub(super) fn hurry(&mut self) {
        self.due = true;
    }

    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.writer.pending_bytes()
    }

    /// Whether more fits into this commit.
    pub(super) fn has_room(&self) -> bool {
        self.writer.pending_bytes() < self.settings.policy.max_bytes && self.waiting.len() < self.settings.policy.max_appends
    }

    pub(super) fn take(&mut self, request: Request) -> Result<(), BufferError> {
        let append = match request {
            Request::Append(append) => append,
            Request::NameGap { lane, from, to, reason, done } => {
                self.name_gap(lane, from, to, reason)?;
                // Who asked may have given up; the gap is named all the same.
                let _ = done.send(());
                return Ok(());
            }
            Request::Quarantine { lane, from, done } => {
                let _ = done.send(self.quarantine_at_last(lane, from));
                return Ok(());
            }
        };
        self.due |= append.urgent;
        self.first_at = self.first_at.or_else(|| Some(self.settings.clock.monotonic()));
        let ordinal = self.log.incarnation().ordinal;
        let outcome = match self.writer.append_all(append.lane, &append.entries, &append.marks) {
            Ok(seqs) => {
                Ok(Committed { lane: append.lane, first: Position { ordinal, seq: *seqs.start() }, last: Position { ordinal, seq: *seqs.end() } })
            }
            Err(error @ (BufferError::EntryTooLarge { .. } | BufferError::Encode(_))) => {
                BufferCounters::add(&self.log.counters().refused, 1);
                Err(AppendError::Refused(error))
            }
            Err(error) => return Err(error),
        };
        self.waiting.extend(append.done.map(|done| (done, outcome)));
        Ok(())
    }

    /// Commits what waits and tells who waits for it. Does not return before the disk has taken it.
    pub(super) fn commit(&mut self) -> Result<(), BufferError> {
        self.writer.tell_time(self.settings.clock.now().ts.as_millis());
        if let Err(error) = self.writer.commit() {
            self.commit_at_last(error)?;
        }
        self.high_water.note(self.log.incarnation().ordinal, LaneName::ALL.map(|lane| self.log.committed(lane).seq));
        self.due = false;
        self.first_at = None;
        self.waiting.drain(..).for_each(|(done, outcome)| done(outcome));
        if !self.owed.is_empty() {
            self.name_owed()?;
        }
        Ok(())
    }

    /// The disk did not take a commit: makes room where that helps, and waits.
    fn commit_at_last(&mut self, first_error: BufferError) -> Result<(), BufferError> {
        let counters = self.log.counters();
        counters.stalled.store(true, std::sync::atomic::Ordering::Relaxed);
        error!(error = %causes::chain(&first_error), "the disk does not take what is appended: make room, or repair it; senders are held back until then");
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let (began, mut stopping_at, mut error) = (self.settings.clock.monotonic(), None, first_error);
        loop {
            let made_room = error.is_full() && self.make_room();
            let now = self.settings.clock.monotonic();
            if self.settings.stop.is_cancelled() && now >= *stopping_at.get_or_insert(now + STOP_WAIT) {
                return Err(BufferError::Stopped);
            }
            if !made_room {
                self.wait_for_disk(backoff.next_wait());
            }
            match self.writer.commit() {
                Ok(()) => break,
                Err(next) => error = next,
            }
        }
        counters.stalled.store(false, std::sync::atomic::Ordering::Relaxed);
        info!(after_s = (self.settings.clock.monotonic() - began).as_secs_f64(), "the disk takes what is appended again");
        Ok(())
    }

    /// A stop ends this wait early; from then on the waits are short.
    fn wait_for_disk(&self, wait: Duration) {
        let stop = self.settings.stop.clone();
        let _ = self.timer.block_on(async {
            if stop.is_cancelled() {
                tokio::time::timeout(wait.min(STOPPING_WAIT), std::future::pending()).await
            } else {
                tokio::time::timeout(wait, stop.cancelled()).await
            }
        });
    }

    /// Frees space on a full disk: what nobody needs, then the ballast, then the oldest partition of the lowest lane, which is named once there is room
    /// for a name. False if nothing could be freed.
    fn make_room(&mut self) -> bool {
        let reclaimed: u64 = LaneName::ALL.into_iter().map(|lane| self.writer.reclaim(lane, self.settings.hold.behind(lane)).unwrap_or(0)).sum();
        if reclaimed > 0 || self.ballast.drop() {
            return true;
        }
        if quarantine::remove_oldest(&self.log.dir().join(quarantine::FOLDER)).unwrap_or(false) {
            return true;
        }
        let Victim::Partition(lane, key) = self.space.victim(&self.log.shared) else { return false };
        let ranges = self.log.shared.ranges(lane, key);
        match self.writer.remove(lane, key) {
            Err(problem) => {
                warn!(lane = lane.as_str(), error = %causes::chain(&problem), "a partition cannot be given up");
                false
            }
            Ok(bytes) => {
                BufferCounters::add(&self.log.counters().evicted_bytes, bytes);
                self.owed.extend(ranges.into_iter().map(|(from, to)| Owed { lane, from, to, reason: GapReason::DiskFull }));
                true
            }
        }
    }

    fn name_owed(&mut self) -> Result<(), BufferError> {
        for Owed { lane, from, to, reason } in std::mem::take(&mut self.owed) {
            self.name_gap(lane, from, to, reason)?;
        }
        Ok(())
    }

    /// Says durably that `from` to `to` are lost, as far as Kafka does not have them and no other gap names them.
    fn name_gap(&mut self, lane: LaneName, from: Position, to: Position, reason: GapReason) -> Result<(), BufferError> {
        let shared = self.log.shared.clone();
        let unnamed = gaps::unnamed(&shared.gaps(), lane, from.ordinal, from.seq..to.seq + 1);
        let has = self.settings.hold.in_kafka(lane);
        for seqs in unnamed {
            let at = |seq| Position { seq, ..from };
            let lost_from = if has.ordinal > from.ordinal {
                seqs.end
            } else if has.ordinal == from.ordinal {
                seqs.start.max(has.seq + 1)
            } else {
                seqs.start
            };
            let lost_from = lost_from.min(seqs.end);
            if lost_from > seqs.start {
                shared.gaps().add(Gap { lane, from: at(seqs.start), to: at(lost_from - 1), reason, event: Position::default() });
            }
            if lost_from == seqs.end {
                continue;
            }
            let gap = Gap { lane, from: at(lost_from), to: at(seqs.end - 1), reason, event: Position::default() };
            let inc = self.append_gap(gap)?;
            shared.counters.add_lost(lane, gap.records());
            error!(
                lane = lane.as_str(),
                inc,
                from = lost_from,
                to = gap.to.seq,
                reason = gaps::reason_text(reason),
                "records are lost and named in a gap"
            );
            // An event that is lost may itself have named a gap, which must not be passed for the sake of an event that nobody can read.
            let named = shared.gaps().named();
            let is_lost = |named: &Gap| lane == LaneName::Events && (gap.from..=gap.to).contains(&named.event);
            named.into_iter().filter(is_lost).try_for_each(|gap| self.append_gap(gap).map(drop))?;
        }
        self.commit()
    }

    /// [`Self::quarantine`] on a disk that may be full. What cannot be done now is asked for again.
    fn quarantine_at_last(&mut self, lane: LaneName, from: Position) -> Result<(), BufferError> {
        loop {
            match self.quarantine(lane, from) {
                Err(error) if error.is_full() && self.make_room() => {}
                result => return result,
            }
        }
    }

    /// Appends the event that names `gap`; gives the id of the incarnation.
    fn append_gap(&mut self, gap: Gap) -> Result<String, BufferError> {
        let Gap { lane, from, to, reason, .. } = gap;
        let inc = self.log.incarnation_id(from.ordinal).unwrap_or_default().to_string();
        let text = format!("records {} to {} of lane {lane} are lost: {}", from.seq, to.seq, gaps::reason_text(reason));
        let now = self.settings.clock.now();
        let stamp = Stamp { asset: None, ts: now.ts, ts_source: TsSource::Gateway, clock: now.state, origin: self.settings.origin };
        let event = gaps::event(lane, &inc, from.seq, to.seq, reason, &text);
        let entry = Entry { stamp, cause: None, body: Body::Event(event.into()) };
        self.writer.append_gap(&entry, |event| Gap { event, ..gap })?;
        Ok(inc)
    }

    /// Puts the partition that holds `from` aside, saves what can be read of it, and names the rest.
    fn quarantine(&mut self, lane: LaneName, from: Position) -> Result<(), BufferError> {
        let shared = self.log.shared.clone();
        // Two readers may meet the same damage: the second one finds what the first one had saved.
        let before = Position { seq: from.seq.saturating_sub(1), ..from };
        if !matches!(self.log.reader(lane)?.read(before, 1, usize::MAX), Err(BufferError::Damaged { .. })) {
            return Ok(());
        }
        let key = match shared.lane(lane).place(from) {
            Ok(Place::In(key, _)) => Some(key),
            Ok(Place::Missing) => None,
            Err(BufferError::Damaged { partition, .. }) => Key::of(&partition).map(|(key, _)| key),
            Err(error) => return Err(error),
        };
        let Some(key) = key else { return Ok(()) };
        // What waits for its commit shall not go there.
        self.writer.leave(lane, key);
        let ranges = shared.ranges(lane, key);
        let mut decoder = Decoder::new().map_err(|error| BufferError::io("decompress", self.log.dir(), error))?;
        let kept = (self.settings.hold.behind(lane), ranges.last().map(|(_, last)| *last).unwrap_or_default());
        let found = quarantine::save(shared.lane(lane), key, kept, &self.log.dir().join(quarantine::FOLDER), &mut decoder)?;
        BufferCounters::add(&shared.counters.quarantined, 1);
        for (from, to) in rewrite::lost(&ranges, &found) {
            self.name_gap(lane, from, to, GapReason::Damaged)?;
        }
        Ok(())
    }

    /// Whether so much was stored that the space must be looked at.
    pub(super) fn must_look(&self) -> bool {
        self.writer.stored_bytes >= LOOK_AFTER_BYTES
    }

    /// What is due now and then: reclaim, space, age, idle databases, the high water.
    pub(super) fn keep_house(&mut self) -> Result<(), BufferError> {
        let now = self.settings.clock.monotonic();
        for lane in LaneName::ALL {
            self.reclaim(lane);
        }
        if self.must_look() || now >= self.looked_at + 10 * self.settings.policy.housekeeping_every {
            self.writer.stored_bytes = 0;
            self.looked_at = now;
            self.writer.bury();
            if let Err(problem) = self.keep_within_space() {
                warn!(error = %causes::chain(&problem), "the space that the buffer takes cannot be looked after");
            }
            self.ballast.fill();
        }
        if now >= self.idle_at {
            self.log.close_idle();
            self.idle_at = now + self.settings.policy.idle_after;
        }
        if now >= self.high_water_at {
            self.store_high_water();
            self.high_water_at = now + HIGH_WATER_EVERY;
        }
        Ok(())
    }

    pub(super) fn reclaim(&mut self, lane: LaneName) {
        if let Err(problem) = self.writer.reclaim(lane, self.settings.hold.behind(lane)) {
            warn!(lane = lane.as_str(), error = %causes::chain(&problem), "what is no longer needed cannot be removed");
        }
    }

    fn store_high_water(&mut self) {
        let last_seq = LaneName::ALL.map(|lane| self.log.committed(lane).seq);
        if let Err(problem) = self.high_water.store(self.log.incarnation().ordinal, last_seq) {
            warn!(error = %causes::chain(&problem), "the high water of the buffer cannot be stored");
        }
    }

    /// Gives up the oldest of the lowest lane while the directory is over its quota, or while it is older than allowed.
    fn keep_within_space(&mut self) -> Result<(), BufferError> {
        let now_ms = self.settings.clock.now().ts.as_millis();
        while self.space.is_over(self.log.disk_bytes()?) {
            if quarantine::remove_oldest(&self.log.dir().join(quarantine::FOLDER))? {
                continue;
            }
            let (lane, key) = match self.space.victim(&self.log.shared) {
                Victim::Partition(lane, key) => (lane, key),
                Victim::InUse => {
                    self.look_again();
                    break;
                }
                Victim::Nothing => {
                    self.tell_quota_too_small();
                    break;
                }
            };
            if self.waits_for_checkpoint(lane, key) {
                return Ok(());
            }
            self.evict(lane, key, GapReason::Quota)?;
        }
        while let Some((lane, key)) = self.space.aged(&self.log.shared, now_ms) {
            if self.waits_for_checkpoint(lane, key) {
                return Ok(());
            }
            self.evict(lane, key, GapReason::Age)?;
        }
        Ok(())
    }

    /// Inference would have to begin anew after a crash without what it has not stored in a checkpoint: it is asked for one, and waited for a while.
    fn waits_for_checkpoint(&mut self, lane: LaneName, key: Key) -> bool {
        let end = self.log.shared.ranges(lane, key).last().map_or(Position::default(), |(_, last)| *last);
        if lane != LaneName::Inputs || end <= self.settings.hold.checkpoint() {
            self.checkpoint_wanted_at = None;
            return false;
        }
        let now = self.settings.clock.monotonic();
        let wanted_at = *self.checkpoint_wanted_at.get_or_insert_with(|| {
            self.settings.hold.want_checkpoint();
            now
        });
        let waits = now < wanted_at + CHECKPOINT_WAIT && !self.log.disk_bytes().is_ok_and(|bytes| self.space.is_nearly_full(bytes));
        if waits {
            self.look_again();
        } else {
            self.checkpoint_wanted_at = None;
        }
        waits
    }

    /// The space is looked at again after the next commit.
    fn look_again(&mut self) {
        self.writer.stored_bytes = LOOK_AFTER_BYTES;
    }

    /// Once: only a person can help.
    fn tell_quota_too_small(&mut self) {
        if !std::mem::replace(&mut self.quota_told, true) {
            error!(quota_bytes = self.settings.quota_bytes, "the buffer is over its quota and has nothing left to give up: raise buffer.quota");
        }
    }

    /// Names what goes, then lets it go.
    pub(super) fn evict(&mut self, lane: LaneName, key: Key, reason: GapReason) -> Result<(), BufferError> {
        for (from, to) in self.log.shared.ranges(lane, key) {
            self.name_gap(lane, from, to, reason)?;
        }
        let bytes = self.writer.remove(lane, key)?;
        BufferCounters::add(&self.log.counters().evicted_bytes, bytes);
        Ok(())
    }
}
