//! Where the edges listen: the system's choices, refusals, and files left behind.

use crate::support::broker::Broker;
use crate::support::edges::until;
use crate::support::honest::Honest;
use crate::support::peer::{Peer, greeting, ready};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::runtime::Runtime;
use vatn::limits::Limits;
use vatn::zmq::EdgeError;
use vatn::zmq::edge::Edge;

fn bind(endpoint: &str) -> Result<Edge, EdgeError> {
    let endpoints = [endpoint.to_owned()];
    let limits = Limits::default();
    let bound = Edge::bind("--router", &endpoints, &limits, || {});
    // The runtime must outlive the edges bound in it.
    Box::leak(Box::new(Runtime::new().unwrap())).block_on(bound)
}

fn refusal(endpoint: &str) -> String {
    let error = bind(endpoint).expect_err(endpoint).to_string();
    assert!(error.starts_with("--router") && error.contains(endpoint), "{error}");
    error
}

#[test]
fn port_0_and_names_become_the_address_in_use() {
    for (requested, given) in [
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:"),
        ("tcp://localhost:0", "tcp://"),
        ("tcp://[::1]:0", "tcp://[::1]:"),
        ("tcp://*:0", "tcp://0.0.0.0:"),
    ] {
        let real = bind(requested).unwrap().endpoints().remove(0);
        assert!(real.starts_with(given) && !real.ends_with(":0"), "{requested} became {real}");
    }
}

#[test]
fn an_endpoint_that_cannot_be_bound_reports_cause_and_cure() {
    let folder = tempfile::tempdir().unwrap();
    let taken = bind("tcp://127.0.0.1:0").unwrap();
    assert!(refusal(&taken.endpoints()[0]).contains("something listens there already"));
    assert!(refusal("tcp://192.0.2.1:7533").contains("no such address on this machine"));
    assert!(refusal("tcp://no-such-host.invalid:7533").contains("the host is not known"));
    assert!(refusal("udp://127.0.0.1:7533").contains("write tcp://HOST:PORT"));
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let endpoint = format!("ipc://{}", file.display());
    assert!(refusal(&endpoint).contains("there is a file that is no socket"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    refusal(&format!("ipc://{}/no/such/folder", folder.path().display()));
}

#[test]
fn a_dead_sockets_file_is_replaced_and_a_live_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vatn.sock");
    let endpoint = format!("ipc://{}", path.display());
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a killed broker leaves its file");
    let ours = bind(&endpoint).unwrap();
    assert!(refusal(&endpoint).contains("something listens there already"));
    UnixStream::connect(&path).expect("the refused one left it alone");
    drop(ours);
    assert!(!path.exists(), "it is removed at the end");
    let ours = bind(&endpoint).unwrap();
    std::fs::remove_file(&path).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    drop(ours);
    UnixStream::connect(&path).expect("a file that is not ours stays");
    drop(theirs);
}

#[test]
fn a_broker_listens_on_several_endpoints_and_leaves_none_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("commands.sock");
    let endpoint = format!("ipc://{}", path.display());
    let broker = Broker::start(&["--router", &endpoint]);
    let over_tcp = Honest::start(&broker.router);
    let over_ipc = Honest::start(&endpoint);
    std::thread::sleep(Duration::from_millis(100));
    over_tcp.finish();
    over_ipc.finish();
    assert!(broker.stop().success());
    assert!(!path.exists());
}

/// How many file descriptors a broker has open.
fn open_files(broker: &Broker) -> usize {
    let folder = Path::new("/proc").join(broker.pid().to_string()).join("fd");
    std::fs::read_dir(folder).unwrap().count()
}

fn limit_files(broker: &Broker, limit: usize) {
    let (limit, pid) = (format!("--nofile={limit}"), broker.pid().to_string());
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

#[test]
fn a_waiting_connection_is_accepted_while_others_leave_one_by_one() {
    let broker = Broker::start(&["--handshake-ms", "60000"]);
    let mut others: Vec<Peer> = (0..100).map(|_| Peer::silent(&broker.router)).collect();
    for other in &mut others {
        assert!(other.is_greeted_within(Duration::from_secs(10)));
    }
    limit_files(&broker, open_files(&broker) + 10);
    // The broker waits to accept this one already.
    let _first = Peer::silent(&broker.router);
    let mut waiting = Peer::silent(&broker.router);
    until("a warning is logged", || broker.log().contains("cannot accept"));
    assert!(!waiting.is_greeted_within(Duration::from_millis(1_500)));
    // Each that leaves makes room; and none of them may restart the accept pause.
    while !waiting.is_greeted_within(Duration::from_millis(50)) {
        others.pop().expect("accepted before the last of the others is gone");
    }
    assert!(!others.is_empty());
}

#[test]
fn a_lack_of_file_descriptors_neither_spins_nor_ends_the_loop() {
    let broker = Broker::start(&[]);
    let honest = Honest::start(&broker.router);
    limit_files(&broker, open_files(&broker) + 12);
    let mut waiting: Vec<Peer> = (0..40).map(|_| Peer::silent(&broker.router)).collect();
    until("a warning is logged", || broker.log().contains("cannot accept"));
    let before = broker.ticks();
    std::thread::sleep(Duration::from_secs(1));
    let used = broker.ticks() - before;
    assert!(used < 50, "{used} ticks of 100 while it could not accept");
    assert_eq!(broker.log().matches("cannot accept").count(), 1, "{}", broker.log());
    let mut last = waiting.pop().unwrap();
    drop(waiting);
    last.send(&[greeting(1).as_slice(), &ready("DEALER", None)].concat()).unwrap();
    let mut theirs = [0; 64];
    last.receive_exact(&mut theirs).unwrap();
    honest.finish();
}
