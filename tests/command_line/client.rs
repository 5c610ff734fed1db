//! The Rust client against a real broker: its ZeroMQ implementation is not the broker's own.

use std::time::{Duration, Instant};

use crate::support::broker::{Broker, broker};
use rmpv::Value;
use vatn::client::{
    Client, ClientError, ClientOptions, Condition, Event, Level, Op, Range, RawValue, Request,
    Step, Subscriber, WriteOptions,
};

async fn connect(broker: &Broker) -> Client {
    Client::connect(&broker.router, &ClientOptions::default()).await.unwrap()
}

fn any() -> WriteOptions {
    WriteOptions::default()
}

fn get(key: &str) -> Request {
    Request::new("get").key(key.as_bytes())
}

#[tokio::test]
async fn a_thousand_requests_in_one_message_are_answered_in_their_order() {
    let broker = broker();
    let mut client = connect(&broker).await;
    let requests: Vec<_> =
        (0..1000).map(|n| Request::new("ping").argument(&RawValue::from(n))).collect();
    let outcomes = client.call_many(&requests).await.unwrap();
    let expected: Vec<_> = (0..1000).map(|n| Ok(RawValue::from(n))).collect();
    assert_eq!(outcomes, expected);
    assert!(client.call_many(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn messages_in_flight_can_be_received_in_any_order() {
    let broker = broker();
    let mut client = connect(&broker).await;
    client.set(b"a", &RawValue::from(1), &any()).await.unwrap();
    client.set(b"b", &RawValue::from(2), &any()).await.unwrap();
    let first = client.send(&[get("a")]).await.unwrap();
    let second = client.send(&[get("b"), get("a")]).await.unwrap();
    let second = client.receive(second).await.unwrap();
    assert_eq!(second, [Ok(RawValue::from(2)), Ok(RawValue::from(1))]);
    assert_eq!(client.receive(first).await.unwrap(), [Ok(RawValue::from(1))]);
}

#[tokio::test]
async fn a_refusal_affects_neither_its_neighbours_nor_the_connection() {
    let broker = broker();
    let mut client = connect(&broker).await;
    let wrong = Request::new("paint").key(b"a");
    let outcomes = client.call_many(&[get("a"), wrong, get("a")]).await.unwrap();
    assert_eq!(outcomes[0], outcomes[2]);
    assert_eq!(outcomes[1].as_ref().unwrap_err().code, "UNKNOWN_METHOD");
    let absent = WriteOptions { condition: Some(Condition::Present), ..any() };
    let error = client.set(b"a", &RawValue::from(1), &absent).await.unwrap_err();
    assert_eq!(error.code(), Some("CONFLICT"));
    let ClientError::Refused(refusal) = error else { panic!() };
    assert_eq!(refusal.details, [("seq".to_owned(), Value::Nil)]);
}

#[tokio::test]
async fn a_notification_is_executed_and_never_answered() {
    let broker = broker();
    let mut client = connect(&broker).await;
    let write = Request::new("set").key(b"a").argument(&RawValue::from(7));
    client.notify(&write).await.unwrap();
    assert_eq!(client.get(b"a").await.unwrap(), Some(RawValue::from(7)));
}

#[tokio::test]
async fn a_late_reply_is_not_taken_for_another() {
    let broker = broker();
    let options =
        ClientOptions { reply_timeout: Some(Duration::from_millis(50)), ..Default::default() };
    let mut client = Client::connect(&broker.router, &options).await.unwrap();
    // No writes come, so this is answered with false, and only after its timeout.
    let wait = Request::new("wait")
        .argument(&RawValue::from(1))
        .argument(&RawValue::from("synced"))
        .option("timeout_ms", 150);
    let error = client.call(&wait).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    // Before the late reply has come, and after it.
    let start = Instant::now();
    for number in 0.. {
        let payload = RawValue::from(number);
        assert_eq!(client.ping(&payload).await.unwrap(), payload);
        if start.elapsed() > Duration::from_millis(300) {
            break;
        }
    }
}

#[tokio::test]
async fn a_dropped_wait_leaves_the_timeout_unchanged() {
    let broker = broker();
    let patience = Duration::from_millis(50);
    let options = ClientOptions { reply_timeout: Some(patience), ..Default::default() };
    let mut client = Client::connect(&broker.router, &options).await.unwrap();
    // No writes come, so neither of the two is answered.
    tokio::select! {
        biased;
        waited = client.wait(1, Level::Synced, None) => panic!("{waited:?}"),
        () = std::future::ready(()) => {}
    }
    let wait =
        Request::new("wait").argument(&RawValue::from(1)).argument(&RawValue::from("synced"));
    let ended = tokio::time::timeout(Duration::from_secs(60), client.call(&wait)).await;
    let error = ended.expect("it waits until its timeout").unwrap_err();
    assert!(matches!(error, ClientError::Timeout { after, .. } if after == patience), "{error}");
}

#[tokio::test]
async fn a_wait_ends_when_the_broker_is_killed() {
    let broker = broker();
    let options = ClientOptions { reply_timeout: None, ..ClientOptions::default() };
    let mut client = Client::connect(&broker.router, &options).await.unwrap();
    let wait =
        Request::new("wait").argument(&RawValue::from(1)).argument(&RawValue::from("synced"));
    let ticket = client.send(&[wait]).await.unwrap();
    broker.kill();
    let error = client.receive(ticket).await.unwrap_err();
    assert!(matches!(error, ClientError::Closed { .. }), "{error}");
    let error = client.ping(&RawValue::from(1)).await.unwrap_err();
    assert!(matches!(error, ClientError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn values_keep_their_bytes() {
    let broker = broker();
    let mut client = connect(&broker).await;
    let big = Value::Binary(vec![7; 10_000_000]);
    let nested = (0..60).fold(Value::Nil, |inner, _| Value::Array(vec![inner]));
    let mut values: Vec<RawValue> =
        [big, nested, Value::Ext(5, vec![1, 2]), Value::F32(1.5), Value::Map(vec![])]
            .iter()
            .map(RawValue::from)
            .collect();
    // Integers, strings and arrays that are not in their shortest form.
    for wide in [&[0xcd, 0, 1][..], &[0xda, 0, 1, b'x'], &[0xdd, 0, 0, 0, 0]] {
        values.push(RawValue::new(wide.to_vec()).unwrap());
    }
    for value in &values {
        client.set(b"key", value, &any()).await.unwrap();
        assert!(client.get(b"key").await.unwrap().as_ref() == Some(value));
        assert!(client.entry(b"key").await.unwrap().unwrap().value == *value);
        let page = client.range(&Range::default()).await.unwrap();
        assert!(page.items[0].1 == *value);
    }
}

#[tokio::test]
async fn every_basic_command_has_its_method() {
    let broker = broker();
    let mut client = connect(&broker).await;
    let one = RawValue::from(1);
    let pairs = [(&b"a"[..], one.clone()), (b"b", RawValue::from("x")), (b"\xfe", one.clone())];
    assert_eq!(client.set_multi(&pairs, &any()).await.unwrap(), 1);
    let found = client.get_multi(&[&b"\xfe"[..], b"none", b"a"]).await.unwrap();
    let found: Vec<_> = found.iter().map(|(key, value)| (&key[..], value)).collect();
    assert_eq!(found, [(&b"\xfe"[..], &one), (b"a", &one)]);
    let prefixed = WriteOptions { key_prefix: Some(b"p:".to_vec()), ..any() };
    let synced = WriteOptions::durability(Level::Synced);
    client.set(b"k", &one, &prefixed).await.unwrap();
    assert_eq!(client.entry(b"p:k").await.unwrap().unwrap().durability, Level::Stored);
    assert_eq!(client.count(b"p:").await.unwrap(), 1);
    assert_eq!(client.count(b"").await.unwrap(), 4);
    assert_eq!(client.take(b"p:k", &any()).await.unwrap(), Some(one));
    assert!(!client.delete(b"p:k", &synced).await.unwrap());
    assert_eq!(client.delete_multi(&[&b"b"[..], b"none"], &any()).await.unwrap(), 1);
    let under = Range { prefix: Some(b"p:".to_vec()), limit: Some(1), ..Range::default() };
    client.set_multi(&[(&b"1"[..], 1.into()), (b"2", 2.into())], &prefixed).await.unwrap();
    let page = client.delete_range(&under, &synced).await.unwrap();
    assert_eq!((page.count, page.next.as_deref()), (1, Some(&b"p:1"[..])));
    let rest = Range { after: page.next.map(|next| next.to_vec()), ..under };
    let page = client.delete_range(&rest, &synced).await.unwrap();
    assert_eq!((page.count, page.next), (1, None));
    let initial = Step { initial: Some(i128::from(i64::MIN)), ..Step::default() };
    assert_eq!(client.decr(b"n", &initial, &synced).await.unwrap(), i128::from(i64::MIN));
    let step = Step { delta: Some(u64::MAX), ..Step::default() };
    assert_eq!(client.incr(b"n", &step, &any()).await.unwrap(), i128::from(i64::MAX));
    let keys = client.range_keys(&Range { limit: Some(2), ..Range::default() }).await.unwrap();
    assert_eq!((keys.items, keys.next), (vec!["a".into(), "n".into()], Some("n".into())));
    let results = client.batch(&[get("a"), Request::new("count")], None).await.unwrap();
    assert_eq!(results, [RawValue::from(1), RawValue::from(3)]);
    assert!(client.flush().await.unwrap().ends_with(":: 3 items in storage memory"));
    assert!(client.stats().await.unwrap().is_map());
    assert!(client.hello().await.unwrap().is_map());
}

#[tokio::test]
async fn changes_under_a_prefix_of_any_bytes_are_followed() {
    let broker = broker();
    let mut client = connect(&broker).await;
    let mut changes =
        Subscriber::connect(&broker.publisher, b"\xfe\xff", &ClientOptions::default())
            .await
            .unwrap();
    assert_eq!(changes.next().await.unwrap(), Event::Beat { seq: 0 });
    client.set(b"\xfe", &RawValue::from(1), &any()).await.unwrap();
    client.set(b"\xfe\xff\x00", &RawValue::from(2), &any()).await.unwrap();
    client.delete(b"\xfe\xff\x00", &any()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match changes.next().await.unwrap() {
            Event::Change(change) => seen.push(change),
            Event::Beat { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((seen[0].op, seen[0].seq, &seen[0].value), (Op::Set, 2, &Some(RawValue::from(2))));
    assert_eq!((seen[1].op, seen[1].prev, &seen[1].value), (Op::Delete, 2, &None));
}
