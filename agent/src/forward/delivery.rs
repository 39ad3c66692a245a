//! What to do after what happened. Pure: time comes with the call.
//!
//! There is one way to recover from anything: drop the client, wait, connect, ask Kafka how far it has each lane, go on from there. What differs is
//! how long to wait, what the person is told, and whether the next batch is smaller.
use std::{collections::VecDeque, time::Duration};

use crate::{backoff::Backoff, status::Link};

/// Why a connection or a transaction failed, by what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No broker answers.
    Unreachable,
    /// Not this time.
    Again,
    /// Another producer began under the same transactional id, or the broker gave up a transaction that took too long.
    Fenced,
    /// Reached, but a person must do something; the text says what.
    Blocked(String),
    /// Kafka refuses records for what they are. By index in the batch: one of these at least.
    Refused(Vec<usize>),
}

/// A failure with its story.
#[derive(Debug, PartialEq, Eq)]
pub struct Failed {
    /// What follows.
    pub failure: Failure,
    /// What was tried and what the client said, for the log.
    pub text: String,
    /// At least once only: so many records from the first one on were taken all the same.
    pub taken: usize,
}

impl Failed {
    /// Nothing was taken.
    pub fn new(failure: Failure, text: impl Into<String>) -> Self {
        Self { failure, text: text.into(), taken: 0 }
    }
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// State of the way to Kafka until then.
    pub link: Link,
    /// Before the next try.
    pub wait: Duration,
    /// Tell that two gateways run under one id.
    pub duplicate: bool,
}

/// After so long without a broker it is asked seldom.
const LONG_ABSENCE: Duration = Duration::from_secs(300);
/// How seldom, at least; twice as long at most.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// About so long, see [`about`].
const BLOCKED_WAIT: Duration = Duration::from_secs(300);
/// A broker that gave up one transaction fences once. Only a rival does it again and again.
const FENCED_WITHIN: Duration = Duration::from_secs(60);
const FENCED_TIMES: usize = 3;
/// The same duplicate is told again after so long.
const TELL_AGAIN: Duration = Duration::from_secs(3_600);

/// How long to wait, and what to call it.
#[derive(Debug)]
pub struct Recovery {
    backoff: Backoff,
    duplicate_wait: Duration,
    unreachable_since: Option<Duration>,
    fenced: VecDeque<Duration>,
    told_at: Option<Duration>,
}

impl Recovery {
    /// Waits about `duplicate_wait` where two gateways run under one id.
    pub fn new(duplicate_wait: Duration) -> Self {
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        Self { backoff, duplicate_wait, unreachable_since: None, fenced: VecDeque::new(), told_at: None }
    }

    /// A broker answered.
    pub fn connected(&mut self) {
        self.unreachable_since = None;
    }

    /// Kafka took something: the next failure is a new one.
    pub fn delivered(&mut self) {
        self.backoff.reset();
    }

    /// How long to wait before the connection that is to replace a suspicious one: ever longer, unless Kafka takes something in between.
    pub fn suspicious(&mut self) -> Duration {
        self.backoff.next_wait()
    }

    /// What follows from `failure` at `now`.
    pub fn failed(&mut self, failure: &Failure, now: Duration) -> Next {
        let next = |link, wait| Next { link, wait, duplicate: false };
        match failure {
            Failure::Unreachable => {
                let since = *self.unreachable_since.get_or_insert(now);
                let wait = self.backoff.next_wait();
                let seldom = now.saturating_sub(since) >= LONG_ABSENCE;
                next(Link::Reconnecting, if seldom { PROBE_EVERY.mul_f64(1.0 + fastrand::f64()) } else { wait })
            }
            // The next batch is another one: nothing to wait for.
            Failure::Refused(candidates) if !candidates.is_empty() => next(Link::Connected, Duration::ZERO),
            Failure::Again | Failure::Refused(_) => next(Link::Reconnecting, self.backoff.next_wait()),
            Failure::Blocked(_) => next(Link::Blocked, about(BLOCKED_WAIT)),
            Failure::Fenced => self.fenced(now),
        }
    }

    fn fenced(&mut self, now: Duration) -> Next {
        self.fenced.retain(|at| now.saturating_sub(*at) < FENCED_WITHIN);
        self.fenced.push_back(now);
        if self.fenced.len() < FENCED_TIMES {
            return Next { link: Link::Reconnecting, wait: self.backoff.next_wait(), duplicate: false };
        }
        self.fenced.clear();
        let duplicate = self.told_at.is_none_or(|at| now.saturating_sub(at) >= TELL_AGAIN);
        if duplicate {
            self.told_at = Some(now);
        }
        Next { link: Link::DuplicateGateway, wait: about(self.duplicate_wait), duplicate }
    }
}

/// A wait a fifth shorter or longer, so that neither a fleet nor two rivals return in step.
fn about(wait: Duration) -> Duration {
    wait.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// The search for the record that Kafka refuses: smaller and smaller batches.
///
/// A refused batch need not hold a bad record: a topic may take no batches of this size. Then the smaller size stays.
#[derive(Debug)]
pub struct Search {
    limit: usize,
    /// Records up to the last one that may be the bad one.
    suspects: usize,
}

impl Default for Search {
    fn default() -> Self {
        Self { limit: usize::MAX, suspects: 0 }
    }
}

impl Search {
    /// Most records of the next batch.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Kafka refused one of these records of a batch, in order. The index of the bad one if it is known; it is to be passed then.
    pub fn refused(&mut self, candidates: &[usize]) -> Option<usize> {
        let (&first, &last) = (candidates.first()?, candidates.last()?);
        if first == last {
            *self = Self::default();
            return Some(first);
        }
        // Ends in the middle of the candidates, so the next batch is smaller and has half of them.
        self.limit = candidates[candidates.len() / 2];
        self.suspects = last + 1;
        None
    }

    /// Kafka took a batch of `records`. True if the search ended without a bad record.
    pub fn delivered(&mut self, records: usize) -> bool {
        let searching = self.suspects > 0;
        self.suspects = self.suspects.saturating_sub(records);
        searching && self.suspects == 0
    }
}

/// How many bytes go into a transaction: as many as pass in a time after which nobody waits for long, be it for a commit or for an alarm.
#[derive(Debug)]
pub struct BatchBytes {
    max: usize,
    now: usize,
}

const SMALLEST_BATCH: usize = 64 << 10;
const SLOW_TRANSACTION: Duration = Duration::from_secs(2);

impl BatchBytes {
    /// At most `max`.
    pub fn new(max: usize) -> Self {
        Self { max, now: max }
    }

    /// Bytes of the next batch.
    pub fn get(&self) -> usize {
        self.now
    }

    /// A transaction with `bytes` took so long.
    pub fn took(&mut self, bytes: usize, took: Duration) {
        // A small batch says nothing of large ones.
        if bytes <= self.now / 2 {
            return;
        }
        if took > SLOW_TRANSACTION {
            self.failed();
        } else if took < SLOW_TRANSACTION / 4 {
            self.now = self.now.saturating_mul(2).min(self.max);
        }
    }

    /// A transaction failed, perhaps because it took too long.
    pub fn failed(&mut self) {
        self.now = (self.now / 2).max(SMALLEST_BATCH).min(self.max);
    }
}

/// When the next batch of the slow lanes may begin.
#[derive(Debug)]
pub struct Pace {
    every: Duration,
    bytes_per_s: u64,
    next_at: Duration,
}

impl Pace {
    /// A batch that takes all there is comes at most once in `every`; a backlog goes at `bytes_per_s`.
    pub fn new(every: Duration, bytes_per_s: u64) -> Self {
        Self { every, bytes_per_s: bytes_per_s.max(1), next_at: Duration::ZERO }
    }

    /// A batch that began at `began` is under way; `more` waits behind it.
    pub fn sent(&mut self, began: Duration, bytes: usize, more: bool) {
        self.next_at = began + if more { Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64) } else { self.every };
    }

    /// How long to wait yet.
    pub fn wait(&self, now: Duration) -> Duration {
        self.next_at.saturating_sub(now)
    }
}

/// Whether something of a transaction may still be under way after its end.
///
/// Librdkafka sends a request again when a connection breaks, and does not yet tell the broker to which transaction it belongs (KIP-890): one that was
/// only late could fall into the next transaction. A new connection begins a new epoch, and what is late is refused. So: connect anew after a
/// transaction that was strangely slow, or when a broker was lost or did not answer.
#[derive(Debug, Default)]
pub struct Suspicion {
    /// Times of transactions of about the same size, by size.
    times: [VecDeque<Duration>; 4],
    disturbances: Option<u64>,
}

const TIMES: usize = 15;
const ENOUGH_TIMES: usize = 5;
const TOLERATED: Duration = Duration::from_millis(250);

impl Suspicion {
    /// A transaction of `bytes` took so long. True if that is strange.
    pub fn took(&mut self, bytes: usize, took: Duration) -> bool {
        let class = match bytes {
            0..0x4000 => 0,
            0x4000..0x4_0000 => 1,
            0x4_0000..0x20_0000 => 2,
            _ => 3,
        };
        let times = &mut self.times[class];
        let mut sorted: Vec<Duration> = times.iter().copied().collect();
        sorted.sort_unstable();
        let strange = sorted.len() >= ENOUGH_TIMES && took > sorted[sorted.len() / 2] * 3 + TOLERATED;
        times.push_back(took);
        times.drain(..times.len().saturating_sub(TIMES));
        strange
    }

    /// The client has counted so many lost connections and unanswered requests since it began. True if they rose since the last call.
    pub fn disturbed(&mut self, disturbances: u64) -> bool {
        self.disturbances.replace(disturbances).is_some_and(|before| before < disturbances)
    }

    /// A new client, which counted so many while it connected: nothing was sent yet.
    pub fn new_client(&mut self, disturbances: u64) {
        self.disturbances = Some(disturbances);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[track_caller]
    fn check_wait(next: Next, link: Link, from_s: u64, to_s: u64) {
        assert_eq!(next.link, link);
        assert!((SECOND * from_s as u32..=SECOND * to_s as u32).contains(&next.wait), "{next:?}");
    }

    #[test]
    fn a_broker_that_is_long_away_is_asked_seldom() {
        let mut recovery = Recovery::new(SECOND);
        let mut now = SECOND;
        check_wait(recovery.failed(&Failure::Unreachable, now), Link::Reconnecting, 0, 1);
        // Twice as long each time, of which the half is drawn: 0.4 s, 0.8 s …
        for doubled in 1..20 {
            now += SECOND * 10;
            let next = recovery.failed(&Failure::Unreachable, now);
            let step = Duration::from_millis(200 << doubled).min(SECOND * 30);
            assert!((step / 2..=step).contains(&next.wait), "{next:?} of {step:?}");
        }
        now += LONG_ABSENCE;
        check_wait(recovery.failed(&Failure::Unreachable, now), Link::Reconnecting, 30, 60);
        recovery.connected();
        recovery.delivered();
        check_wait(recovery.failed(&Failure::Unreachable, now), Link::Reconnecting, 0, 1);
    }

    #[test]
    fn a_connection_alone_does_not_hurry_the_next_one() {
        let mut recovery = Recovery::new(SECOND);
        for _ in 0..10 {
            recovery.connected();
            recovery.failed(&Failure::Again, SECOND);
        }
        check_wait(recovery.failed(&Failure::Again, SECOND), Link::Reconnecting, 15, 30);
    }

    #[test]
    fn what_a_person_must_settle_is_asked_for_every_five_minutes() {
        let blocked = || Recovery::new(SECOND).failed(&Failure::Blocked("grant it".into()), SECOND);
        (0..20).for_each(|_| check_wait(blocked(), Link::Blocked, 240, 360));
        assert_ne!(blocked().wait, blocked().wait, "a fleet does not return in step");
    }

    #[test]
    fn only_repeated_fencing_is_a_clone() {
        let mut recovery = Recovery::new(SECOND * 600);
        let fenced = |recovery: &mut Recovery, at_s: u32| recovery.failed(&Failure::Fenced, SECOND * at_s);
        assert_eq!(fenced(&mut recovery, 10).link, Link::Reconnecting);
        assert_eq!(fenced(&mut recovery, 20).link, Link::Reconnecting);
        // The first one is too long ago.
        assert_eq!(fenced(&mut recovery, 71).link, Link::Reconnecting);
        let told = fenced(&mut recovery, 72);
        check_wait(told, Link::DuplicateGateway, 480, 720);
        assert!(told.duplicate && told.wait != SECOND * 600, "{told:?}");
        for at_s in [700, 701] {
            assert_eq!(fenced(&mut recovery, at_s).link, Link::Reconnecting);
        }
        let again = fenced(&mut recovery, 702);
        check_wait(again, Link::DuplicateGateway, 480, 720);
        assert!(!again.duplicate && again.wait != told.wait, "two rivals do not return in step");
        for at_s in [4_000, 4_001] {
            fenced(&mut recovery, at_s);
        }
        assert!(fenced(&mut recovery, 4_002).duplicate, "told again after an hour");
    }

    /// Sends `total` records, of which `bad` are refused, over a broker that takes `per_batch` of them together and refuses at most `fits` at once.
    fn search(total: usize, bad: &[usize], per_batch: usize, fits: usize) -> (Vec<usize>, usize) {
        let (mut search, mut at, mut passed, mut refusals) = (Search::default(), 0, Vec::new(), 0);
        while at < total {
            let end = total.min(at.saturating_add(search.limit()));
            let refused = (at..end).step_by(per_batch).map(|first| first..end.min(first + per_batch));
            let refused: Vec<usize> = refused.filter(|set| set.len() > fits || bad.iter().any(|bad| set.contains(bad))).flatten().collect();
            if refused.is_empty() {
                search.delivered(end - at);
                at = end;
                continue;
            }
            refusals += 1;
            let candidates: Vec<usize> = refused.iter().map(|index| index - at).collect();
            if let Some(index) = search.refused(&candidates) {
                // The records before it go first; the refused one is passed when it comes to the front.
                passed.push(at + index);
                at += index + 1;
            }
        }
        (passed, refusals)
    }

    #[test]
    fn a_refused_record_is_found_by_halving() {
        for bad in [0, 1, 499, 8_000, 15_999] {
            let (passed, refusals) = search(16_000, &[bad], 500, 500);
            assert!(passed == [bad] && refusals <= 16, "{passed:?} after {refusals}");
        }
        assert_eq!(search(100, &[3, 4, 99], 100, 100).0, [3, 4, 99]);
        assert_eq!(search(1, &[0], 1, 1), (vec![0], 1));
    }

    #[test]
    fn a_topic_that_takes_no_large_batches_gets_small_ones_and_loses_nothing() {
        let (passed, refusals) = search(16_000, &[], 500, 100);
        assert!(passed.is_empty() && refusals < 20, "{passed:?} after {refusals}");
    }

    #[test]
    fn batches_shrink_on_a_slow_link_and_grow_back() {
        let mut bytes = BatchBytes::new(6 << 20);
        bytes.took(6 << 20, SECOND * 3);
        assert_eq!(bytes.get(), 3 << 20);
        bytes.took(1_000, SECOND * 3);
        assert_eq!(bytes.get(), 3 << 20, "a small batch says nothing of large ones");
        (0..20).for_each(|_| bytes.failed());
        assert_eq!(bytes.get(), SMALLEST_BATCH);
        bytes.took(1_000, SECOND / 5);
        assert_eq!(bytes.get(), SMALLEST_BATCH, "nor that they would go");
        (0..20).for_each(|_| bytes.took(bytes.get(), SECOND / 5));
        assert_eq!(bytes.get(), 6 << 20);
    }

    #[test]
    fn a_backlog_goes_at_its_rate_and_the_rest_at_its_interval() {
        let mut pace = Pace::new(SECOND / 5, 1_000_000);
        pace.sent(SECOND, 500_000, true);
        assert_eq!(pace.wait(SECOND), SECOND / 2);
        pace.sent(SECOND, 500_000, false);
        assert_eq!((pace.wait(SECOND), pace.wait(SECOND * 2)), (SECOND / 5, Duration::ZERO));
    }

    #[test]
    fn strange_times_and_unanswered_requests_raise_suspicion() {
        let ms = Duration::from_millis;
        let mut suspicion = Suspicion::default();
        suspicion.new_client(0);
        assert!((0..6).all(|_| !suspicion.took(1_000, ms(10))));
        assert!(!suspicion.took(1_000, ms(279)) && suspicion.took(1_000, ms(281)));
        assert!(!suspicion.took(5 << 20, ms(900)), "of another size");
        assert!(!suspicion.disturbed(0) && suspicion.disturbed(2) && !suspicion.disturbed(2));
        suspicion.new_client(0);
        assert!(suspicion.disturbed(1));
        suspicion.new_client(3);
        assert!(!suspicion.disturbed(3) && suspicion.disturbed(4), "what came while it connected says nothing");
    }
}
