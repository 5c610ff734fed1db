//! Promise 5 for short requests with large effects: they are refused before they take the memory or
//! the time, and other clients are served.

use crate::support::broker::Broker;
use crate::support::commands::request;
use crate::support::honest::Honest;
use crate::support::peer::{Peer, Response, message};
use crate::support::requests::option;
use rmpv::Value;
use vatn::protocol::writer;

const MIB: u64 = 1 << 20;

/// A broker's allowed growth for messages of this size and their replies.
const GROWTH_MAX: u64 = 200 * MIB;

/// A broker, an honest client at work on it, and how much memory it had before the trial.
struct Trial {
    broker: Broker,
    honest: Honest,
    memory_before: u64,
}

impl Trial {
    fn begin() -> Self {
        let broker = Broker::start(&["--durability", "queued"]);
        let honest = Honest::start(&broker.router);
        let memory_before = broker.peak_memory();
        Self { broker, honest, memory_before }
    }

    fn peer(&self) -> Peer {
        Peer::connect(&self.broker.router, "DEALER")
    }

    fn end(self, growth: u64) {
        let account = self.honest.finish();
        let grown = self.broker.peak_memory().saturating_sub(self.memory_before);
        println!("{account:?}, grown by {} MiB", grown / MIB);
        assert!(grown <= growth, "grown by {} MiB", grown / MIB);
        assert!(self.broker.stop().success());
    }
}

fn touch(key: &str) -> Value {
    Value::Array(vec!["touch".into(), Value::Array(vec![key.into(), 3_600_000.into()])])
}

fn refused(code: &str) -> Result<Value, String> {
    Err(code.to_owned())
}

#[test]
fn a_prefix_is_not_joined_with_many_keys_before_there_is_room() {
    let trial = Trial::begin();
    let mut peer = trial.peer();
    let prefix = "p".repeat(32_000);
    let pairs: Vec<Value> = vec![Value::Array(vec!["".into(), Value::Nil]); 16_000];
    let keys: Vec<Value> = (0..16_000).map(|key| Value::from(format!("{key}"))).collect();
    let set = request(1, "set_multi", vec![pairs.into(), option("key_prefix", &*prefix)]).0;
    let delete = request(2, "delete_multi", vec![keys.into(), option("key_prefix", &*prefix)]).0;
    peer.send(&message(&[&set, &delete])).unwrap();
    let answers = peer.receive().unwrap();
    assert_eq!(answers.len(), 2);
    for answer in answers {
        let response = Response::decode(&answer);
        assert_eq!(response.result, refused("TOO_LARGE"));
    }
    // A prefix within the bounds is joined, and applied.
    let pairs = vec![Value::Array(vec!["a".into(), 1.into()])];
    let short = option("key_prefix", "pre:");
    peer.call(3, "set_multi", vec![pairs.into(), short.clone()]).result.unwrap();
    assert_eq!(peer.call(4, "get", vec!["pre:a".into()]).result, Ok(1.into()));
    let keys = Value::Array(vec!["a".into()]);
    assert_eq!(peer.call(5, "delete_multi", vec![keys, short]).result, Ok(1.into()));
    trial.end(GROWTH_MAX);
}

fn queue_bytes(peer: &mut Peer) -> u64 {
    let stats = peer.call(9, "stats", vec![]).result.unwrap();
    let member = |map: &Value, name: &str| {
        let members = map.as_map().unwrap().iter();
        members.clone().find(|(key, _)| key.as_str() == Some(name)).unwrap().1.clone()
    };
    member(&member(&stats, "write_queue"), "bytes").as_u64().unwrap()
}

#[test]
fn touches_of_a_large_value_do_not_copy_it() {
    let trial = Trial::begin();
    let mut peer = trial.peer();
    let value = Value::Binary(vec![7; 10 << 20]);
    peer.call(1, "set", vec!["k".into(), value.clone()]).result.unwrap();
    let touches: Vec<Value> = vec![touch("k"); 200];
    let mut broken = touches.clone();
    broken.push(Value::Array(vec!["incr".into(), Value::Array(vec!["k".into()])]));
    let batch = peer.call(2, "batch", vec![broken.into()]);
    assert_eq!(batch.result, refused("NOT_A_NUMBER"));
    // No copy of it is left.
    let meta = peer.call(3, "get", vec!["k".into(), option("meta", true)]).result.unwrap();
    assert_eq!((&meta[0], &meta[2]), (&value, &Value::Nil));
    for id in 10..20 {
        let touched = peer.call(id, "batch", vec![touches.clone().into()]).result;
        assert_eq!(touched, Ok(Value::Array(vec![true.into(); 200])));
        peer.call(id, "touch", vec!["k".into(), 1_000_000.into()]).result.unwrap();
    }
    // The log holds unsaved writes: the value once, if it still waits.
    let queued = queue_bytes(&mut peer);
    assert!(queued < 11 << 20, "a touch carries no value: {queued}");
    let history = peer.call(5, "changes", vec![1.into()]).result.unwrap();
    let carried = history[0]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one[0] == "k".into() && !one[2].is_nil());
    assert_eq!(carried.count(), 0, "nor does the history");
    let few = Value::Array(vec![touch("k"), touch("k"), touch("none")]);
    let touched = Value::Array(vec![true.into(), true.into(), false.into()]);
    assert_eq!(peer.call(4, "batch", vec![few]).result, Ok(touched));
    trial.end(GROWTH_MAX);
}

#[test]
fn large_values_of_refused_or_unsent_replies_are_not_copied() {
    let trial = Trial::begin();
    let mut peer = trial.peer();
    let value = Value::Binary(vec![7; 15 << 20]);
    peer.call(1, "set", vec!["big".into(), value]).result.unwrap();
    let before = trial.broker.peak_memory();
    let get = Value::Array(vec!["get".into(), Value::Array(vec!["big".into()])]);
    let twice = request(2, "batch", vec![Value::Array(vec![get.clone(), get.clone()])]).0;
    let written = Value::Array(vec![touch("big"), get.clone(), get]);
    let written = request(3, "batch", vec![written]).0;
    peer.send(&message(&[&twice, &written]).repeat(100)).unwrap();
    for _ in 0..100 {
        let answers = peer.receive().unwrap();
        let results = answers.iter().map(|answer| Response::decode(answer).result);
        assert!(results.eq([refused("TOO_LARGE"), refused("TOO_LARGE")]));
    }
    let notified = |method: &str, params: Value| {
        let mut frame = vec![0x93, 0x02];
        writer::str(&mut frame, method);
        rmpv::encode::write_value(&mut frame, &params).unwrap();
        frame
    };
    let get = notified("get", Value::Array(vec!["big".into()]));
    let range = notified("range", Value::Array(vec![]));
    peer.send(&message(&vec![&get[..]; 5_000])).unwrap();
    peer.send(&message(&vec![&range[..]; 5_000])).unwrap();
    assert_eq!(peer.call(4, "ping", vec![7.into()]).result, Ok(7.into()));
    let meta = peer.call(5, "get", vec!["big".into(), option("meta", true)]).result.unwrap();
    assert_eq!(meta[2], Value::Nil, "the refused request touched nothing");
    // Only the last reply is held, twice on its way.
    let grown = trial.broker.peak_memory() - before;
    assert!(grown < 80 * MIB, "grown by {} MiB", grown / MIB);
    trial.end(GROWTH_MAX);
}

#[test]
fn data_beyond_its_share_of_the_memory_is_refused() {
    let broker = Broker::start_within(1_200_000, &["--durability", "memory"]);
    let mut peer = Peer::connect(&broker.router, "DEALER");
    let value = Value::Binary(vec![7; 15 << 20]);
    let mut set = |id: u64| peer.call(id, "set", vec![format!("k{id}").into(), value.clone()]);
    let first = (0..100).find(|id| set(*id).result.is_err()).expect("there is a limit");
    assert!((27..=29).contains(&first), "460 MB hold {first}");
    for id in 100..120 {
        assert_eq!(set(id).result, refused("TOO_LARGE"));
    }
    assert_eq!(peer.call(1, "delete", vec!["k3".into()]).result, Ok(true.into()));
    assert!(peer.call(2, "set", vec!["k3".into(), value].clone()).result.is_ok());
    assert!(broker.stop().success());
}

/// The frame of a request whose only argument is a list of `len` elements, all these bytes.
fn list_request(method: &str, element: &[u8], len: usize) -> Vec<u8> {
    let mut frame = vec![0x94, 0x00, 0x07];
    writer::str(&mut frame, method);
    writer::array_len(&mut frame, 1);
    writer::array_len(&mut frame, len);
    frame.extend_from_slice(&element.repeat(len));
    frame
}

#[test]
fn a_request_with_too_many_keys_or_commands_is_refused() {
    const MOST: usize = 16_384;
    let trial = Trial::begin();
    let mut peer = trial.peer();
    let mut call = |frame: &[u8]| {
        peer.send(&message(&[frame])).unwrap();
        peer.response().result
    };
    let count = b"\x92\xa5count\x90";
    assert_eq!(call(&list_request("batch", count, MOST + 1)), refused("TOO_LARGE"));
    assert_eq!(call(&list_request("get_multi", b"\xa0", MOST + 1)), refused("TOO_LARGE"));
    assert_eq!(call(&list_request("delete_multi", b"\xa0", MOST + 1)), refused("TOO_LARGE"));
    let pair = b"\x92\xa1k\xc0";
    assert_eq!(call(&list_request("set_multi", pair, MOST + 1)), refused("TOO_LARGE"));
    // A batch's commands share the bound, and count themselves.
    let half =
        [b"\x92".as_slice(), &list_request("get_multi", b"\xa0", MOST / 2 - 1)[3..]].concat();
    assert_eq!(call(&list_request("batch", &half, 3)), refused("TOO_LARGE"));
    assert!(call(&list_request("batch", &half, 2)).is_ok());
    assert_eq!(call(&list_request("get_multi", b"\xa0", MOST)), Ok(Value::Array(Vec::new())));
    // Refused requests wrote nothing, and those within the bound are applied.
    assert_eq!(call(&list_request("get_multi", b"\xa1k", 1)), Ok(Value::Array(Vec::new())));
    assert!(call(&list_request("set_multi", pair, MOST)).is_ok());
    trial.end(2 * GROWTH_MAX);
}

#[test]
fn the_items_of_a_batch_of_ranges_are_bounded_as_of_one_request() {
    let trial = Trial::begin();
    let mut peer = trial.peer();
    let pair = |key: u32| Value::Array(vec![key.to_string().into(), 1.into()]);
    let pairs: Vec<Value> = (0..10_000).map(pair).collect();
    peer.call(1, "set_multi", vec![pairs.into()]).result.unwrap();
    let range = |options| Value::Array(vec!["range".into(), Value::Array(vec![options])]);
    let set = Value::Array(vec!["set".into(), Value::Array(vec!["new".into(), 1.into()])]);
    let all = range(option("keys_only", true));
    let commands: Vec<Value> = std::iter::once(set).chain(vec![all.clone(); 2]).collect();
    assert_eq!(peer.call(2, "batch", vec![commands.into()]).result, refused("TOO_LARGE"));
    assert_eq!(peer.call(3, "get", vec!["new".into()]).result, Ok(Value::Nil));
    assert!(peer.call(4, "batch", vec![vec![all].into()]).result.is_ok());
    trial.end(2 * GROWTH_MAX);
}

#[test]
fn a_refusal_shows_only_the_start_of_a_long_name() {
    let trial = Trial::begin();
    let mut peer = trial.peer();
    let mut name = Vec::new();
    writer::bin(&mut name, &vec![0xFF; 12 << 20]);
    let ends = [
        [b"\xa5batch\x91\x91\x92".as_slice(), &name, b"\x90"].concat(),
        [&name, b"\x90".as_slice()].concat(),
        [b"\xa3get\x92\xa1k\x81".as_slice(), &name, b"\xc3"].concat(),
    ];
    for end in ends {
        peer.send(&message(&[&[b"\x94\x00\x01", end.as_slice()].concat()])).unwrap();
        let answer = peer.receive().unwrap().concat();
        assert!(answer.len() < 1_000, "{} bytes of refusal", answer.len());
    }
    trial.end(GROWTH_MAX);
}
