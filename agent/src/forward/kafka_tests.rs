//! The client's errors told apart, against the client's own mock cluster.
use std::path::Path;

use rdkafka::{
    error::RDKafkaErrorCode as Code,
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey as Api, RDKafkaRespErr as Answer},
};

use super::*;
use crate::buffer::Incarnation;

#[track_caller]
fn check(code: Code, expected: fn(&Failure) -> bool) {
    let failure = classify(&KafkaError::MessageProduction(code));
    assert!(expected(&failure), "{code:?}: {failure:?}");
}

#[test]
fn only_a_fault_of_the_record_itself_is_final() {
    for code in [Code::MessageSizeTooLarge, Code::InvalidRecord, Code::InvalidMessage] {
        check(code, |failure| matches!(failure, Failure::Refused(_)));
    }
    for code in [Code::TopicAuthorizationFailed, Code::InvalidTimestamp, Code::PolicyViolation, Code::InvalidTransactionTimeout] {
        check(code, |failure| matches!(failure, Failure::Blocked(_)));
    }
    for code in [Code::MessageTimedOut, Code::QueueFull, Code::PurgeQueue, Code::NotEnoughReplicas, Code::UnknownTopicOrPartition] {
        check(code, |failure| *failure == Failure::Again);
    }
    for code in [Code::Fenced, Code::ProducerFenced, Code::InvalidProducerEpoch] {
        check(code, |failure| *failure == Failure::Fenced);
    }
}

type Mock = MockCluster<'static, DefaultProducerContext>;

/// The client's own stand-in: it takes transactions without keeping their promises, but it answers with any error asked for.
fn mock() -> (Mock, Kafka) {
    let mock = MockCluster::new(1).unwrap();
    let mut config = config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")).unwrap().kafka.unwrap();
    config.brokers = mock.bootstrap_servers();
    for topic in TOPICS {
        mock.create_topic(&topic.full_name(&config.topic_prefix), 1, 1).unwrap();
    }
    (mock, Kafka::new(config, "gw".into()))
}

fn messages(sizes: &[usize]) -> Vec<Message> {
    let message = |size: &usize| Message { topic: "hark.readings.v1".into(), value: vec![b'7'; *size], ..Message::example() };
    sizes.iter().map(message).collect()
}

/// What becomes of messages when the first request of this kind is answered so.
fn send(requests: Option<(Api, Answer)>, sizes: &[usize]) -> Result<(), Failed> {
    send_with(None, requests, sizes)
}

fn send_with(progress: Option<&Progress>, requests: Option<(Api, Answer)>, sizes: &[usize]) -> Result<(), Failed> {
    let (mock, mut kafka) = mock();
    let stop = Stop::default();
    let (mut connection, cursors) = kafka.connect(&stop).unwrap();
    assert_eq!(cursors, Some(Cursors::default()));
    if let Some((api, answer)) = requests {
        mock.request_errors(api, &[answer; 1]);
    }
    connection.send(&messages(sizes), progress, &stop, &mut || {})
}

#[test]
fn a_transaction_goes_through() {
    assert_eq!(send(None, &[10; 300]), Ok(()));
    assert_eq!(send(None, &[]), Ok(()));
    // Handled inside the client.
    assert_eq!(send(Some((Api::EndTxn, Answer::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE)), &[10; 3]), Ok(()));
}

#[test]
fn a_record_too_large_for_the_client_is_known_at_once() {
    let failed = send(None, &[10, 2_000_000, 10]).unwrap_err();
    assert_eq!(failed.failure, Failure::Refused(vec![1]), "{failed:?}");
}

#[test]
fn a_batch_that_the_broker_refuses_has_all_its_records_for_candidates() {
    let failed = send(Some((Api::Produce, Answer::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)), &[10; 3]).unwrap_err();
    assert_eq!(failed.failure, Failure::Refused(vec![0, 1, 2]), "{failed:?}");
}

#[test]
fn fencing_and_missing_rights_are_told_apart() {
    let fenced = send(Some((Api::EndTxn, Answer::RD_KAFKA_RESP_ERR_PRODUCER_FENCED)), &[10; 3]).unwrap_err();
    assert_eq!(fenced.failure, Failure::Fenced, "{fenced:?}");
    let blocked = send(Some((Api::Produce, Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)), &[10; 3]).unwrap_err();
    assert!(matches!(&blocked.failure, Failure::Blocked(advice) if advice.contains("topics")), "{blocked:?}");
}

#[test]
fn a_rival_that_began_between_two_transactions_is_no_mere_failure() {
    let cursor = KafkaCursor { incarnation: Incarnation { ordinal: 1, id: Default::default() }, seq: 7, others: Vec::new() };
    let progress = Progress { lanes: LaneName::ALL.map(|_| cursor.clone()), lineage: None };
    for progress in [None, Some(&progress)] {
        // The client then throws its records away and reports only that.
        let fenced = send_with(progress, Some((Api::AddPartitionsToTxn, Answer::RD_KAFKA_RESP_ERR_PRODUCER_FENCED)), &[10; 3]).unwrap_err();
        assert_eq!(fenced.failure, Failure::Fenced, "{fenced:?}");
    }
}

#[test]
fn without_a_broker_it_is_unreachable_and_without_topics_blocked() {
    let (mock, mut kafka) = mock();
    kafka.config.topic_prefix = "other.".to_owned();
    let failed = kafka.connect(&Stop::default()).err().unwrap();
    assert!(matches!(failed.failure, Failure::Blocked(_)) && failed.text.contains("other.readings.v1"), "{failed:?}");
    drop(mock);
    let failed = kafka.connect(&Stop::default()).err().unwrap();
    assert_eq!(failed.failure, Failure::Unreachable, "{failed:?}");
}

#[test]
fn once_the_grace_of_a_stop_is_over_a_broker_that_hangs_is_waited_for_no_longer() {
    const HANGS: Duration = Duration::from_secs(60);
    let coordinator_away = [Answer::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE; 500];
    let cursor = KafkaCursor { incarnation: Incarnation { ordinal: 1, id: Default::default() }, seq: 7, others: Vec::new() };
    let progress = Progress { lanes: LaneName::ALL.map(|_| cursor.clone()), lineage: None };
    for commit_alone in [false, true] {
        let (mock, mut kafka) = mock();
        let (mut connection, _) = kafka.connect(&Stop::default()).unwrap();
        if commit_alone {
            mock.request_errors(Api::EndTxn, &coordinator_away);
        } else {
            mock.broker_round_trip_time(1, HANGS).unwrap();
        }
        let (records, progress) = if commit_alone { (&[][..], Some(&progress)) } else { (&[10; 3][..], None) };
        let began = std::time::Instant::now();
        let failed = connection.send(&messages(records), progress, &Stop::requested_before(GRACE), &mut || {}).unwrap_err();
        drop(connection);
        assert_eq!(failed.failure, Failure::Again, "{failed:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}: {failed:?}", began.elapsed());
    }
}
