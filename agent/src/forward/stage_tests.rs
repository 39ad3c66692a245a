//! The stage against the Kafka of `fake`: what a failure of one thing does to the others.
use std::sync::Arc;

use hark_protocol::topics::{Baseline, GapReason, LaneName, Name};

use super::{
    Ended,
    batch::Group,
    crash_tests::{Life, append_some, check, temporary},
    delivery::BatchBytes,
    destination::Destination,
    fake::FakeKafka,
    reports::GRACE,
    stored_mark,
};
use crate::{buffer::Position, stop::Stop};

#[test]
fn a_disk_that_takes_no_mark_does_not_stop_delivery() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let mut before = Life::new(&a, &kafka);
    for _ in 0..3 {
        append_some(&mut before);
        before.finish();
    }
    let mut life = Life::new(&b, &kafka);
    append_some(&mut life);
    // As a full disk: what is written aside before it replaces the older generation finds no place.
    let in_the_way = [b.join("forward.aside"), b.join("cursors/kafka.aside")];
    in_the_way.iter().for_each(|path| std::fs::create_dir(path).unwrap());
    let delivered = kafka.broker().committed.len();
    life.connect([]);
    life.gateway().forward.store();
    assert!(kafka.broker().committed.len() > delivered, "delivered without a mark");
    assert_eq!((stored_mark(&b).unwrap(), life.gateway().forward.seen.position()), (None, None));
    in_the_way.iter().for_each(|path| std::fs::remove_dir(path).unwrap());
    let forward = &mut life.gateway().forward;
    forward.store_if_due();
    assert_eq!(forward.seen.position(), None, "not at once");
    forward.store_again_at = forward.clock.monotonic();
    forward.store_if_due();
    assert_eq!((forward.seen.position(), forward.mark.lanes()), (Some(Position { ordinal: 3, seq: 0 }), Some(forward.lanes.at())));
    life.finish();
    check(&kafka, &[&before, &life]);
}

/// Baselines of some 3 kB each.
fn baselines(count: usize) -> Vec<(Name, Arc<Baseline>)> {
    let one = |n: usize| {
        let json = serde_json::json!({
            "baseline_id": format!("b{n}"), "model": "m", "model_version": "1", "model_hash": "h", "config_hash": "h", "verdict": "accepted",
            "rows": 9, "rows_held_back": 1, "input_from": "i/1", "input_to": "i/9", "limit": 1.0, "score_median": 0.5,
            "points_json": "[]", "weights_json": "7".repeat(3_000), "range_json": "{}",
        });
        ("pump-1".into(), Arc::new(serde_json::from_value(json).unwrap()))
    };
    (0..count).map(one).collect()
}

#[test]
fn latest_values_too_many_for_the_link_pass_in_parts_and_hold_up_no_lane() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    append_some(&mut life);
    kafka.broker().most_bytes = Some(100_000);
    let gateway = life.gateway();
    gateway.status.set_baselines(baselines(100));
    (gateway.forward.config.batch_records, gateway.forward.batch_bytes) = (1_000, BatchBytes::new(1 << 20));
    gateway.deliver_all();
    // What goes is tried a little larger now and then, which fails here.
    let all_sent = (0..50).any(|_| {
        let (mut session, _) = kafka.clone().connect(&Stop::default()).unwrap();
        matches!(gateway.forward.send_latest(&mut session, &gateway.stop), Ok(false))
    });
    assert!(all_sent);
    let mut keys: Vec<String> =
        kafka.broker().committed.iter().filter(|message| message.topic.contains("baselines")).map(|message| message.key.to_string()).collect();
    let sent = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!((keys.len(), sent), (100, 100), "each, and what was delivered not again");
    life.finish();
    check(&kafka, &[&life]);
}

#[test]
fn after_a_suspicious_transaction_latest_values_wait_for_a_new_epoch_too() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    let (mut session, _) = kafka.clone().connect(&Stop::default()).unwrap();
    let (gateway, steps) = (life.gateway(), kafka.broker().steps);
    gateway.forward.suspicious = true;
    assert!(matches!(gateway.forward.send_latest(&mut session, &gateway.stop), Err(Ended::Suspicious)));
    assert_eq!(kafka.broker().steps, steps, "nothing was begun");
    gateway.forward.suspicious = false;
    assert!(!gateway.forward.send_latest(&mut session, &gateway.stop).unwrap());
    assert!(kafka.broker().steps > steps);
    life.end();
}

#[test]
fn a_connect_with_disturbances_is_no_reason_for_another() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    append_some(&mut life);
    kafka.broker().disturbances = 1;
    assert!(life.gateway().connect_once(), "delivered in the first connection");
    life.end();
    check(&kafka, &[&life]);
}

#[test]
fn the_grace_of_a_stop_goes_over_all_connections() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    append_some(&mut life);
    let gateway = life.gateway();
    gateway.append(LaneName::Inputs, 100);
    let over = Stop::requested_before(GRACE);
    assert!(matches!(gateway.forward.connection(&over), Ended::Stopped));
    // One turn of a batch each, and no further one for a grace of its own.
    assert!(gateway.status.conservation().buffered > 50, "{:?}", gateway.status.conservation());
    life.end();
}

#[test]
fn a_cursor_behind_what_was_acknowledged_is_told_and_nothing_is_sent_again() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    append_some(&mut life);
    life.gateway().deliver_all();
    let sent = kafka.broker().committed.len();
    assert_eq!(life.gateway().status.forward_numbers().cursor_behind, 0);
    let back = |(seq, text): (u64, String)| (seq - 3, text);
    let behind = kafka.broker().cursors[LaneName::Inputs as usize].take().map(back);
    kafka.broker().cursors[LaneName::Inputs as usize] = behind;
    life.gateway().deliver_all();
    assert_eq!((kafka.broker().committed.len(), life.gateway().status.forward_numbers().cursor_behind), (sent, 1));
    life.end();
}

#[test]
fn a_batch_that_was_read_ahead_is_what_is_sent_next() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    let gateway = life.gateway();
    gateway.append(LaneName::Inputs, 21);
    let (mut session, _) = kafka.clone().connect(&Stop::default()).unwrap();
    gateway.forward.send_group(Group::Bulk, &mut session, &gateway.stop).unwrap();
    // Nothing else can tell it from one that is read in its turn.
    gateway.forward.lanes.ahead.as_mut().expect("more waits").batch.messages[0].value = b"ahead".to_vec();
    gateway.forward.send_group(Group::Bulk, &mut session, &gateway.stop).unwrap();
    assert_eq!(kafka.broker().committed[7].value, b"ahead");
    assert!(gateway.forward.lanes.ahead.is_some(), "of the last seven");
    gateway.forward.send_group(Group::Bulk, &mut session, &gateway.stop).unwrap();
    assert!(gateway.forward.lanes.ahead.is_none());
    life.end();
}

#[test]
fn what_was_given_up_after_it_was_read_ahead_is_not_sent() {
    let (dir, kafka) = (temporary(), FakeKafka::default());
    let mut life = Life::new(dir.path(), &kafka);
    let gateway = life.gateway();
    let ordinal = gateway.log.incarnation().ordinal;
    // Three batches.
    gateway.append(LaneName::Inputs, 21);
    let (appender, at) = (gateway.appender.clone(), move |seq| Position { ordinal, seq });
    let give_up = move || appender.blocking_name_gap(LaneName::Inputs, at(9), at(14), GapReason::Quota).unwrap();
    // While the first is under way; the second was read.
    let (mut session, _) = kafka.clone().connect(&Stop::default()).unwrap();
    kafka.broker().before_commit = Some(Box::new(give_up));
    gateway.forward.send_group(Group::Bulk, &mut session, &gateway.stop).unwrap();
    assert_eq!(gateway.forward.lanes.at()[LaneName::Inputs as usize], at(7));
    while gateway.forward.turn(&mut session, &gateway.stop).unwrap().moved {}
    life.finish();
    check(&kafka, &[&life]);
}

#[test]
fn what_was_delivered_to_another_kafka_is_named_once_and_counts_as_delivered() {
    let dir = temporary();
    let kafkas = ["one", "two"].map(|id| {
        let kafka = FakeKafka::default();
        kafka.broker().cluster = Some(id.to_owned());
        kafka
    });
    let [one, two] = &kafkas;
    // To one, to two, and back to one, which has its cursors still.
    for (kafka, other) in [(one, two), (two, one), (one, two)] {
        let sent = (kafka.broker().committed.len(), other.broker().committed.len());
        let mut life = Life::new(dir.path(), kafka);
        for _ in 0..2 {
            append_some(&mut life);
            life.connect([]);
            life.gateway().forward.store();
            let numbers = life.gateway().status.forward_numbers();
            assert_eq!((numbers.cursor_behind, numbers.cursor_expired), (0, 0));
            assert!(LaneName::ALL.iter().all(|lane| life.gateway().log.counters().lost(*lane) == 0), "nothing is lost");
            life.end();
        }
        assert!(kafka.broker().committed.len() > sent.0 && other.broker().committed.len() == sent.1);
    }
    let elsewhere = |kafka: &FakeKafka| {
        let broker = kafka.broker();
        let texts = broker.committed.iter().map(|message| String::from_utf8_lossy(&message.value).into_owned());
        texts.filter(|text| text.contains("delivered_elsewhere")).count()
    };
    // Two starts before, then two again, each of four lanes.
    assert_eq!([elsewhere(one), elsewhere(two)], [8, 8]);
}

#[test]
fn a_kafka_that_was_moved_to_has_each_record_or_its_name() {
    let (dir, one, two) = (temporary(), FakeKafka::default(), FakeKafka::default());
    (one.broker().cluster, two.broker().cluster) = (Some("one".to_owned()), Some("two".to_owned()));
    let mut before = Life::new(dir.path(), &one);
    append_some(&mut before);
    before.connect([]);
    before.gateway().forward.store();
    append_some(&mut before);
    before.end();
    let mut after = Life::new(dir.path(), &two);
    append_some(&mut after);
    after.finish();
    check(&two, &[&before, &after]);
}
