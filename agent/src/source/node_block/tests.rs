//! One node's raw blocks: every one that is wanted ends, whole as the node sent it or given up with a reason, whatever comes in between.
use hark_protocol::node::{BootReason, Capabilities, Quantity};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

const FIRST_ID: u32 = 70;

fn wish(cause_id: &str) -> Wish {
    Wish { channel: 0, point: "de-h".into(), cause_id: cause_id.into(), by_name: true }
}

fn hello(snapshot: bool) -> Hello {
    let channel = |channel, rate_hz| Channel { channel, quantity: Quantity::Acceleration, rate_hz, range: 16.0 };
    Hello {
        firmware: "hark-node 0.9.0".try_into().unwrap(),
        boot_reason: BootReason::PowerOn,
        capabilities: Capabilities { snapshot, ..Capabilities::default() },
        channels: [channel(0, 1_000.0), channel(1, 0.0)].into_iter().collect(),
    }
}

/// Chunk `index` of a block of `len` samples, each with its own number.
fn chunk(id: u32, index: u16, len: usize) -> SnapshotChunk {
    let samples = (0..len).map(|n| n as i16).skip(usize::from(index) * CHUNK_SAMPLES).take(CHUNK_SAMPLES).collect();
    SnapshotChunk { id, channel: 0, chunk: index, chunks: len.div_ceil(CHUNK_SAMPLES) as u16, fs_hz: 1_000.0, scale: 0.5, samples }
}

fn questions(blocks: &mut NodeBlocks, now_ms: u64, seq: &mut u32) -> Vec<(u32, Command)> {
    blocks.question(now_ms, seq).into_iter().collect()
}

/// Asked for, as far as its first chunk.
fn asked(samples_max: usize) -> NodeBlocks {
    let mut blocks = NodeBlocks::new(samples_max, FIRST_ID);
    blocks.hello(&hello(true));
    assert!(blocks.want(wish("a/1")) && blocks.tend(0).is_none());
    assert_eq!(blocks.question(0, &mut 0), Some((1, Command::Snapshot { id: FIRST_ID, channel: 0 })));
    blocks
}

#[track_caller]
fn check_reason(ended: Option<Ended>, reason: Reason) {
    assert_eq!(ended.map(|ended| ended.map_err(|failed| failed.reason)), Some(Err(reason)));
}

#[test]
fn a_node_is_asked_what_it_can_then_for_the_block_and_again_under_the_same_number() {
    let (mut blocks, mut seq) = (NodeBlocks::new(SAMPLES_MAX, FIRST_ID), 4);
    assert!(blocks.want(wish("a/1")) && blocks.tend(1_000).is_none());
    assert_eq!(questions(&mut blocks, 1_000, &mut seq), [(5, Command::SendHello)]);
    assert_eq!(questions(&mut blocks, 1_000 + ASK_AGAIN_MS - 1, &mut seq), []);
    assert_eq!(questions(&mut blocks, 1_000 + ASK_AGAIN_MS, &mut seq), [(5, Command::SendHello)]);
    blocks.hello(&hello(true));
    assert!(blocks.tend(4_000).is_none());
    for at_ms in [4_000, 4_000 + ASK_AGAIN_MS] {
        assert_eq!(questions(&mut blocks, at_ms, &mut seq), [(6, Command::Snapshot { id: FIRST_ID, channel: 0 })]);
    }
    assert!(blocks.asked(6) && !blocks.asked(5));
    assert!(blocks.answered(true, 7_000).is_none());
    assert_eq!(questions(&mut blocks, 20_000, &mut seq), [], "it has answered");
}

#[test]
fn a_block_is_its_samples_in_order_with_the_time_of_the_last() {
    let mut blocks = asked(SAMPLES_MAX);
    blocks.speed_hz = Some(24.5);
    assert_eq!(blocks.chunk(5_000, &chunk(FIRST_ID, 0, 300), 0), Received::Part);
    assert_eq!(blocks.chunk(5_000, &chunk(FIRST_ID, 0, 300), 1), Received::Part, "doubled");
    assert_eq!(blocks.chunk(5_000, &chunk(FIRST_ID, 1, 300), 1), Received::Part);
    let Received::Ended(Ok(whole)) = blocks.chunk(5_000, &chunk(FIRST_ID, 2, 300), 2) else { panic!("{blocks:?}") };
    assert_eq!((whole.wish, whole.end_us, whole.fs_hz, whole.unit, whole.scale), (wish("a/1"), 5_000 + 299_000, 1_000.0, "[g]", 0.5));
    assert_eq!((whole.counts, whole.speed_hz), ((0..300).collect(), Some(24.5)));
    assert_eq!(blocks.chunk(5_000, &chunk(FIRST_ID, 2, 300), 3), Received::Unasked { first: false });
}

#[test]
fn what_a_node_cannot_is_told_at_once() {
    for (can, channel, by_name, expected) in [
        (false, 0, true, Some(Reason::NoRawBlocks)),
        (false, 0, false, Some(Reason::NoRawBlocks)),
        (true, 1, true, Some(Reason::NoWaveform)),
        (true, 7, true, Some(Reason::NoWaveform)),
        (true, 1, false, None), // an alarm asks for whatever there is
    ] {
        let mut blocks = NodeBlocks::new(SAMPLES_MAX, FIRST_ID);
        blocks.hello(&hello(can));
        blocks.want(Wish { channel, by_name, ..wish("a/1") });
        let ended = blocks.tend(0);
        assert_eq!(ended.as_ref().map(|ended| ended.as_ref().unwrap_err().reason), expected, "{can} {channel} {by_name}");
        assert!(blocks.question(0, &mut 0).is_none(), "over");
        assert!(ended.is_none_or(|ended| ended.unwrap_err().firmware.as_deref() == Some("hark-node 0.9.0")));
    }
}

#[test]
fn a_node_that_does_not_answer_is_given_up_by_whether_it_is_heard() {
    for (heard, reason) in [(false, Reason::Silent), (true, Reason::NoAnswer)] {
        for knows_hello in [false, true] {
            let mut blocks = NodeBlocks::new(SAMPLES_MAX, FIRST_ID);
            blocks.heard(900);
            if knows_hello {
                blocks.hello(&hello(true));
            }
            blocks.want(wish("a/1"));
            assert!(blocks.tend(1_000).is_none());
            if heard {
                blocks.heard(1_500);
            }
            assert!(blocks.tend(1_000 + ANSWER_MS - 1).is_none());
            check_reason(blocks.tend(1_000 + ANSWER_MS), reason);
        }
    }
}

#[test]
fn refusal_stall_and_restart_have_their_names() {
    check_reason(asked(SAMPLES_MAX).answered(false, 5), Reason::Refused);

    let mut stalled = asked(SAMPLES_MAX);
    stalled.chunk(0, &chunk(FIRST_ID, 0, 300), 1_000);
    assert!(stalled.tend(1_000 + STALLED_MS - 1).is_none());
    check_reason(stalled.tend(1_000 + STALLED_MS), Reason::Stalled);
    assert_eq!(stalled.chunk(0, &chunk(FIRST_ID, 1, 300), 40_000), Received::Unasked { first: false }, "its end was told");

    let mut slow = asked(SAMPLES_MAX);
    for index in 0..400 {
        let now_ms = 20_000 * u64::from(index);
        assert!(now_ms >= WHOLE_MS || slow.tend(now_ms).is_none() && slow.chunk(0, &chunk(FIRST_ID, index, SAMPLES_MAX), now_ms) == Received::Part);
    }
    check_reason(slow.tend(WHOLE_MS), Reason::Stalled);

    let mut granted = asked(SAMPLES_MAX);
    granted.answered(true, 100);
    check_reason(granted.began(200), Reason::Restarted);
    let mut only_asked = asked(SAMPLES_MAX);
    assert!(only_asked.began(200).is_none() && only_asked.tend(200).is_none());
    assert_eq!(only_asked.question(200, &mut 1), Some((2, Command::SendHello)), "the new start does not know of it");
}

#[test]
fn a_block_beyond_the_limit_takes_no_memory() {
    for (len, samples_max, taken) in [(288_usize, 288, true), (289, 288, false), (300, 288, false), (60_000, 288, false), (1, 0, false)] {
        let mut blocks = asked(samples_max);
        let mut last = Received::Part;
        for index in 0..2_u16.min(len.div_ceil(CHUNK_SAMPLES) as u16) {
            last = blocks.chunk(0, &chunk(FIRST_ID, index, len), 1);
            if last != Received::Part {
                break;
            }
        }
        match last {
            Received::Ended(Ok(whole)) => assert!(taken && whole.counts.len() == len, "{len}"),
            Received::Ended(Err(failed)) => assert!(!taken && failed.reason == Reason::TooLarge, "{len}: {failed:?}"),
            other => panic!("{len}: {other:?}"),
        }
    }
}

#[test]
fn one_block_at_a_time_and_a_bounded_number_waits() {
    let mut blocks = asked(SAMPLES_MAX);
    assert!((0..WAITING_MAX).all(|n| blocks.want(wish(&format!("b/{n}")))));
    assert!(!blocks.want(wish("b/9")));
    assert!(blocks.question(1, &mut 9).is_none());
    assert!(matches!(blocks.chunk(0, &chunk(FIRST_ID, 0, 9), 1), Received::Ended(Ok(_))));
    assert!(blocks.tend(2).is_none());
    assert_eq!(blocks.question(2, &mut 9), Some((10, Command::Snapshot { id: FIRST_ID + 1, channel: 0 })));
}

#[test]
fn the_rest_of_a_block_that_an_earlier_start_asked_for_is_told_once() {
    let mut blocks = NodeBlocks::new(SAMPLES_MAX, FIRST_ID);
    for (id, first) in [(5, true), (5, false), (5, false), (6, true)] {
        assert_eq!(blocks.chunk(0, &chunk(id, 1, 300), 0), Received::Unasked { first });
    }
}

/// Anything that may come from a line, a person or the clock.
#[derive(Clone, Debug)]
enum Step {
    Want(bool),
    Hello(bool),
    Began,
    Answer(bool),
    /// Of the block that is asked for.
    Honest(u16),
    /// Of the same id, wrong in something.
    Wild(Box<SnapshotChunk>),
    Wait(u64),
}

fn wild() -> impl Strategy<Value = SnapshotChunk> {
    let number = || select(vec![0.0_f32, -1.0, 1e-30, 1_000.0, f32::NAN, f32::INFINITY]);
    let index = || select(vec![0_u16, 1, 2, 3, u16::MAX]);
    let len = select(vec![0_usize, 1, CHUNK_SAMPLES - 1, CHUNK_SAMPLES]);
    (select(vec![0_u8, 1]), index(), index(), number(), number(), len).prop_map(|(channel, chunk, chunks, fs_hz, scale, len)| {
        let samples = std::iter::repeat_n(7, len).collect();
        SnapshotChunk { id: 0, channel, chunk, chunks, fs_hz, scale, samples }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<bool>().prop_map(Step::Want),
        2 => any::<bool>().prop_map(Step::Hello),
        1 => Just(Step::Began),
        2 => any::<bool>().prop_map(Step::Answer),
        9 => (0..5_u16).prop_map(Step::Honest),
        3 => wild().prop_map(|wild| Step::Wild(Box::new(wild))),
        2 => (0..15_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The assembler against a list: in order and once it is whole and exact, with a hole it is given up, and nothing else comes of it.
    #[test]
    fn chunks_in_any_order_make_the_block_or_none(len in 1_usize..900, order in vec(0..7_u16, 0..40)) {
        let mut blocks = asked(SAMPLES_MAX);
        let chunks = len.div_ceil(CHUNK_SAMPLES) as u16;
        let mut next = 0;
        for index in order.into_iter().map(|index| index % chunks) {
            let received = blocks.chunk(0, &chunk(FIRST_ID, index, len), 1);
            if index > next {
                prop_assert!(matches!(received, Received::Ended(Err(GivenUp { reason: Reason::Broken, .. }))), "{:?}", received);
                return Ok(());
            }
            next += u16::from(index == next);
            if next == chunks {
                let Received::Ended(Ok(whole)) = received else { panic!("{received:?}") };
                prop_assert_eq!(whole.counts, (0..len).map(|n| n as i16).collect::<Vec<_>>());
                return Ok(());
            }
            prop_assert_eq!(received, Received::Part);
        }
    }

    #[test]
    fn every_wish_ends_once_and_within_the_limits(steps in vec(step(), 0..120), samples_max in select(vec![0_usize, 100, 288, 700])) {
        let (mut blocks, mut seq, mut now_ms) = (NodeBlocks::new(samples_max, FIRST_ID), 0, 0);
        let (mut wanted, mut ended, mut number) = (0, Vec::new(), 0);
        for step in steps {
            let id = blocks.next_id.wrapping_sub(1);
            let received = |received: Received| if let Received::Ended(ended) = received { Some(ended) } else { None };
            let outcome = match step {
                Step::Want(by_name) => {
                    wanted += usize::from(blocks.want(Wish { by_name, ..wish("a/1") }));
                    None
                }
                Step::Hello(can) => {
                    blocks.hello(&hello(can));
                    None
                }
                Step::Began => blocks.began(now_ms),
                Step::Answer(done) if blocks.asked(number) => blocks.answered(done, now_ms),
                Step::Answer(_) => None,
                Step::Honest(index) => received(blocks.chunk(5, &chunk(id, index, 650), now_ms)),
                Step::Wild(wild) => received(blocks.chunk(5, &SnapshotChunk { id, ..*wild }, now_ms)),
                Step::Wait(ms) => {
                    now_ms += ms;
                    None
                }
            };
            ended.extend(outcome);
            ended.extend(blocks.tend(now_ms));
            number = blocks.question(now_ms, &mut seq).map_or(number, |(number, _)| number);
        }
        for _ in 0..=WAITING_MAX + 1 {
            now_ms += WHOLE_MS;
            ended.extend(blocks.tend(now_ms));
            // The next one is asked for before its time passes.
            ended.extend(blocks.tend(now_ms));
        }
        prop_assert!(blocks.current.is_none() && blocks.waiting.is_empty(), "{:?}", blocks);
        prop_assert_eq!(ended.len(), wanted);
        for whole in ended.into_iter().flatten() {
            prop_assert!(!whole.counts.is_empty() && whole.counts.len() <= samples_max);
            prop_assert!(whole.fs_hz.is_finite() && whole.scale.is_finite());
        }
    }
}
