//! A stop answers every waiting request with the state of its write, and leaves none without a
//! reply.

use crate::support::broker::Broker;
use crate::support::commands::request;
use crate::support::peer::{Peer, Response, message};
use rmpv::Value;

/// A seq that is never written here.
const FAR: u64 = 1 << 60;

fn wait(id: u64, seq: u64, options: Vec<Value>) -> Vec<u8> {
    request(id, "wait", [vec![seq.into(), "synced".into()], options].concat()).0
}

#[test]
fn a_wait_for_a_seq_that_is_never_written_gets_stopping_at_the_stop() {
    let broker = Broker::start(&["--durability", "stored"]);
    let mut alone = Peer::connect(&broker.router, "DEALER");
    let mut among = Peer::connect(&broker.router, "DEALER");
    let hour = Value::Map(vec![("timeout_ms".into(), 3_600_000.into())]);
    alone.send(&message(&[&wait(1, FAR, vec![])])).unwrap();
    alone.send(&message(&[&wait(2, FAR, vec![hour])])).unwrap();
    let ping = request(3, "ping", vec![]).0;
    among.send(&message(&[&wait(4, FAR, vec![]), &ping])).unwrap();
    // A reply to a later request shows that the wait was executed.
    assert_eq!(alone.call(5, "ping", vec![]).id, Some(5));
    let written = among.call(6, "set", vec!["k".into(), 1.into()]);
    assert_eq!(written.id, Some(6));
    broker.terminate();
    let stopping = |id| Response { id: Some(id), result: Err("STOPPING".to_owned()) };
    let mut responses = [alone.response(), alone.response()];
    responses.sort_by_key(|response| response.id);
    assert_eq!(responses, [stopping(1), stopping(2)]);
    let responses: Vec<_> =
        among.receive().unwrap().iter().map(|it| Response::decode(it)).collect();
    assert_eq!(responses, [stopping(4), Response { id: Some(3), result: Ok(Value::Nil) }]);
    drop((alone, among));
    assert!(broker.stop().success());
}
