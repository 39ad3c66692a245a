//! The agent's pulse: its answers to `/metrics` over time, and what follows from them. Pure; time comes with each call.
use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use hark_protocol::topics::LaneName;

use crate::metrics::Metrics;

/// Without an answer for so long, the agent is said to be silent. Kafka is said to be away when records waited so long and none was taken:
/// the agent's client hopes for half a minute before it gives a connection up.
const PATIENCE: Duration = Duration::from_secs(3);
/// Answers of `/metrics` that the rate is taken over: commits come in steps.
const RECENT: usize = 12;
/// Nothing new for so long says that nothing is under way: longer than the agent's longest wait for a commit.
const SETTLED_AFTER: Duration = Duration::from_millis(700);

/// One answer of `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// Readings durably appended.
    pub readings: u64,
    /// Records durably appended, by lane.
    pub appended: [u64; LaneName::ALL.len()],
    /// Records that Kafka has not acknowledged, by lane.
    pub waiting: [u64; LaneName::ALL.len()],
    /// Records that it has.
    pub delivered: u64,
    /// The agent has a connection to Kafka, and has not given it up.
    pub connected: bool,
    /// Resident memory of the agent, bytes.
    pub resident_bytes: u64,
}

impl Scrape {
    /// Reads a page.
    pub fn of(page: &Metrics) -> Self {
        let by_lane = |name: &str| LaneName::ALL.map(|lane| page.get(&format!("{name}{{lane=\"{lane}\"}}")));
        Self {
            readings: page.sum("hark_source_readings_accepted_total"),
            appended: by_lane("hark_buffer_appended_total"),
            waiting: by_lane("hark_buffer_records"),
            delivered: page.get("hark_forward_delivered_total"),
            connected: page.get("hark_forward_connected") == 1,
            resident_bytes: page.get("hark_process_resident_memory_bytes"),
        }
    }

    /// Nothing waits for Kafka.
    fn is_empty(&self) -> bool {
        self.waiting.iter().all(|waiting| *waiting == 0)
    }
}

/// The way from the agent to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No answer of the agent has spoken of a connection.
    NotReached,
    /// Records are taken.
    Connected,
    /// None was taken for so long.
    Away(Duration),
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReached => f.write_str("not reached yet"),
            Self::Connected => f.write_str("connected"),
            Self::Away(time) => write!(f, "away for {} s", time.as_secs()),
        }
    }
}

/// What the answers say.
#[derive(Clone, Debug)]
pub struct Pulse {
    begin: Instant,
    last: Option<(Instant, Scrape)>,
    /// When the last answers came, and the readings accepted by then.
    recent: VecDeque<(Instant, u64)>,
    /// The first answer with the present count of records.
    appended_at: Instant,
    /// The last answer by which Kafka was just reached, had taken something, or had nothing left to take.
    good_at: Option<Instant>,
}

impl Pulse {
    /// No answer yet of an agent that started at `begin`.
    pub fn new(begin: Instant) -> Self {
        Self { begin, last: None, recent: VecDeque::with_capacity(RECENT), appended_at: begin, good_at: None }
    }

    /// An answer came at `at`.
    pub fn take(&mut self, scrape: Scrape, at: Instant) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((at, scrape.readings));
        let before = self.last.as_ref().map(|(_, before)| before);
        if before.is_none_or(|before| before.appended != scrape.appended) {
            self.appended_at = at;
        }
        let news = before.is_none_or(|before| !before.connected || before.delivered < scrape.delivered);
        if scrape.connected && (news || scrape.is_empty()) {
            self.good_at = Some(at);
        }
        self.last = Some((at, scrape));
    }

    /// The last answer.
    pub fn last(&self) -> Option<&Scrape> {
        self.last.as_ref().map(|(_, scrape)| scrape)
    }

    /// Readings accepted per second over the last answers.
    pub fn readings_per_s(&self) -> f64 {
        match (self.recent.front(), self.recent.back()) {
            (Some((first_at, first)), Some((last_at, last))) if last_at > first_at => {
                last.saturating_sub(*first) as f64 / (*last_at - *first_at).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    /// For how long there was no answer, where that is worth telling.
    pub fn silent(&self, now: Instant) -> Option<Duration> {
        let since = self.last.as_ref().map_or(self.begin, |(at, _)| *at);
        Some(now.saturating_duration_since(since)).filter(|time| *time >= PATIENCE)
    }

    /// The way to Kafka, as the last answer tells it.
    pub fn link(&self, now: Instant) -> Link {
        let (Some((at, scrape)), Some(good_at)) = (&self.last, self.good_at) else { return Link::NotReached };
        if scrape.connected && *at - good_at < PATIENCE {
            return Link::Connected;
        }
        Link::Away(now.saturating_duration_since(good_at))
    }

    /// Nothing more is appended, and nothing waits for Kafka.
    pub fn settled(&self) -> bool {
        self.last.as_ref().is_some_and(|(at, scrape)| scrape.is_empty() && *at - self.appended_at >= SETTLED_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers half a second apart: records appended, records delivered, whether connected.
    fn pulse(answers: &[(u64, u64, bool)]) -> (Pulse, Instant) {
        let begin = Instant::now();
        let (mut pulse, mut at) = (Pulse::new(begin), begin);
        for (appended, delivered, connected) in answers {
            at += Duration::from_millis(500);
            let scrape = Scrape {
                readings: *appended,
                appended: [*appended, 0, 0, 0],
                waiting: [appended - delivered, 0, 0, 0],
                delivered: *delivered,
                connected: *connected,
                ..Scrape::default()
            };
            pulse.take(scrape, at);
        }
        (pulse, at)
    }

    #[track_caller]
    fn check_link(answers: &[(u64, u64, bool)], expected: Link) {
        let (pulse, at) = pulse(answers);
        assert_eq!(pulse.link(at), expected);
    }

    #[test]
    fn kafka_is_away_when_nothing_is_taken_whatever_the_client_hopes() {
        check_link(&[], Link::NotReached);
        check_link(&[(10, 0, false), (20, 0, false)], Link::NotReached);
        check_link(&[(10, 0, false), (20, 0, true)], Link::Connected);
        let taking = [(10, 0, true), (20, 10, true), (30, 20, true)];
        check_link(&taking, Link::Connected);
        let hoping = |answers: u64| [taking.to_vec(), (1..=answers).map(|n| (30 + 10 * n, 20, true)).collect()].concat();
        check_link(&hoping(5), Link::Connected);
        check_link(&hoping(6), Link::Away(PATIENCE));
        check_link(&[&hoping(6)[..], &[(110, 20, false)]].concat(), Link::Away(Duration::from_millis(3_500)));
        check_link(&[&hoping(6)[..], &[(110, 110, true)]].concat(), Link::Connected);
        check_link(&[(10, 10, true), (10, 10, false)], Link::Away(Duration::from_millis(500)));
        // Nothing to send is no outage.
        check_link(&[(10, 10, true); 40], Link::Connected);
    }

    #[test]
    fn an_agent_without_an_answer_for_three_seconds_is_silent() {
        let (pulse, at) = pulse(&[(10, 10, true)]);
        assert_eq!(pulse.silent(at + Duration::from_millis(2_900)), None);
        assert_eq!(pulse.silent(at + Duration::from_secs(4)), Some(Duration::from_secs(4)));
        let never = Pulse::new(at);
        assert_eq!((never.silent(at), never.silent(at + PATIENCE)), (None, Some(PATIENCE)));
    }

    #[test]
    fn it_is_settled_when_nothing_is_new_and_nothing_waits() {
        let settled = |answers: &[(u64, u64, bool)]| pulse(answers).0.settled();
        assert!(!settled(&[]));
        assert!(!settled(&[(10, 10, true), (20, 20, true)]), "the last answer had something new");
        assert!(!settled(&[(20, 10, true), (20, 10, true), (20, 10, true)]), "ten wait");
        assert!(settled(&[(20, 10, true), (20, 20, true), (20, 20, true)]));
    }

    #[test]
    fn the_rate_is_that_of_the_last_answers() {
        assert_eq!(pulse(&[(10, 10, true)]).0.readings_per_s(), 0.0);
        let steady: Vec<_> = (0..30).map(|n| (100 * n, 0, true)).collect();
        assert_eq!(pulse(&steady).0.readings_per_s(), 200.0);
    }
}
