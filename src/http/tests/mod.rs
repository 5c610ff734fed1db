//! The edge under hostile peers and at its end, over real sockets, with a store whose every step
//! the test controls.

use crate::commands::Command;
use crate::engine::{Awaited, ChangesQuery, Counters};
use crate::http::head::REQUEST_LINE_BYTES;
use crate::http::refuse::Refused;
use crate::http::server::{bind, serve};
use crate::http::store::Counted;
use crate::http::{App, Guard, Health, Store};
use crate::limits::Limits;
use crate::net::io_threads::IoThreads;
use crate::net::{Caller, MemoryQuota};
use crate::protocol::reply::Shown;
use crate::protocol::{Refusal, Reply, Seq, writer};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

mod crowd;
mod large;
mod slots;

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A store with the commands that the edge uses. Commands wait while `turn` has no permit.
struct MapStore {
    map: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    turn: Semaphore,
    /// How many commands have arrived, waiting or not.
    come: watch::Sender<usize>,
    /// How many waits for changes have begun. There are no changes, and each permit ends one wait
    /// without any: of those for the prefix `first`, and of the others.
    waits: watch::Sender<usize>,
    beats: [Semaphore; 2],
    page_items: usize,
    counters: Counters,
    quota: OnceLock<Arc<MemoryQuota>>,
    id: Arc<str>,
    health: Mutex<Health>,
}

impl MapStore {
    fn new(page_items: usize) -> Self {
        Self {
            map: Mutex::default(),
            turn: Semaphore::new(Semaphore::MAX_PERMITS),
            come: watch::Sender::default(),
            waits: watch::Sender::default(),
            beats: [Semaphore::new(0), Semaphore::new(0)],
            page_items,
            counters: Counters::default(),
            quota: OnceLock::new(),
            id: Arc::from("0123456789abcdef0123456789abcdef"),
            health: Mutex::new(Health::Ok),
        }
    }

    fn apply(&self, command: Command<'_>) -> Vec<u8> {
        let mut map = self.map.lock().unwrap();
        let mut out = Vec::new();
        match command {
            Command::GetMulti(get) => {
                let found =
                    get.keys.iter().filter_map(|key| Some((*key, map.get(*key)?[..].into())));
                Reply::Pairs(found.collect()).encode(&mut out);
            }
            Command::SetMulti(set) => {
                map.extend(set.pairs.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
                Reply::Uint(1).encode(&mut out);
            }
            Command::DeleteMulti(delete) => {
                let hits = delete.keys.iter().filter(|key| map.remove(&key[..]).is_some()).count();
                Reply::Uint(hits as u64).encode(&mut out);
            }
            Command::Range(range) => {
                let start = match range.after {
                    Some(after) => Bound::Excluded(after),
                    None => Bound::Included(range.from.unwrap_or_default()),
                };
                let limit = range.limit.unwrap_or(usize::MAX).min(self.page_items);
                let ours = map
                    .range::<[u8], _>((start, Bound::Unbounded))
                    .filter(|(key, _)| key.starts_with(range.prefix))
                    .filter(|(key, _)| range.to.is_none_or(|to| key.as_slice() < to));
                let mut items: Vec<_> = ours
                    .map(|(key, value)| (&key[..], Shown::Value(value[..].into())))
                    .take(limit + 1)
                    .collect();
                let more = items.len() > limit;
                items.truncate(limit);
                let next = items.last().map(|(key, _)| *key).filter(|_| more);
                Reply::Page { items, next }.encode(&mut out);
            }
            Command::Batch(batch) => {
                drop(map);
                writer::array_len(&mut out, batch.commands.len());
                batch.commands.into_iter().for_each(|one| out.extend(self.apply(one)));
            }
            other => panic!("the edge has no use for {}", other.method()),
        }
        out
    }
}

impl Counted for MapStore {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn quota(&self) -> &Arc<MemoryQuota> {
        self.quota.get_or_init(|| MemoryQuota::new(&Limits::default()))
    }

    fn id(&self) -> &Arc<str> {
        &self.id
    }
}

impl Store for MapStore {
    async fn run(
        &self,
        _: &Arc<Caller>,
        command: Command<'_>,
        hold: impl FnOnce(usize) -> Result<(), Refused> + Send,
    ) -> Result<Bytes, Refused> {
        self.come.send_modify(|come| *come += 1);
        let _turn = self.turn.acquire().await.expect("never closed");
        let result = self.apply(command);
        hold(result.len())?;
        Ok(Bytes::from(result))
    }

    async fn await_changes(&self, _: &Arc<Caller>, query: &ChangesQuery) -> Awaited {
        if query.wait_ms > 0 {
            self.waits.send_modify(|waits| *waits += 1);
            let beats = &self.beats[usize::from(query.prefix != b"first")];
            beats.acquire().await.expect("never closed").forget();
        }
        Awaited::Nothing { next: query.after }
    }

    async fn changes(self: Arc<Self>, _: ChangesQuery) -> Result<Bytes, Refusal> {
        panic!("there is nothing in its history")
    }

    fn last_seq(&self) -> Seq {
        0
    }

    fn seq(&self) -> Seq {
        0
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }
}

/// A running edge.
struct Edge {
    address: SocketAddr,
    app: App,
    store: Arc<MapStore>,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
}

impl Edge {
    async fn start(limits: Limits) -> Self {
        Self::over(MapStore::new(10), limits).await
    }

    async fn over(store: MapStore, limits: Limits) -> Self {
        // Longer than any test waits: a connection that is not closed at the stop is found out.
        Self::with_grace(store, limits, 2 * PATIENCE).await
    }

    async fn with_grace(store: MapStore, limits: Limits, grace: Duration) -> Self {
        store.quota.get_or_init(|| MemoryQuota::new(&limits));
        let store = Arc::new(store);
        let listener = bind("127.0.0.1", 0).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = watch::channel(false);
        let app = App::new(Arc::clone(&store), Guard::default(), &limits);
        let served_app = app.clone();
        let io_threads = IoThreads::start(None, Duration::ZERO).expect("threads");
        let served = tokio::spawn(async move {
            serve(listener, served_app, &limits, &io_threads, stopped, grace).await;
        });
        Self { address, app, store, stop, served }
    }

    async fn connect(&self) -> Peer {
        Peer(TcpStream::connect(self.address).await.expect("the edge listens"))
    }

    /// Waits until this many commands have reached the store.
    async fn come(&self, count: usize) {
        reach(&self.store.come, count).await;
    }

    /// Waits until this many waits for changes have begun.
    async fn wait_for_changes(&self, count: usize) {
        reach(&self.store.waits, count).await;
    }

    /// A peer with a small kernel buffer for unread bytes.
    async fn connect_narrowly(&self) -> Peer {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 * 1024).expect("a small buffer");
        Peer(socket.connect(self.address).await.expect("the edge listens"))
    }

    /// The answer to `GET target` over a connection of its own.
    async fn get(&self, target: &str) -> String {
        let mut peer = self.connect().await;
        peer.send(&format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ))
        .await;
        peer.rest().await
    }

    /// The answer that begins with `status`, repeating the request until it comes.
    async fn get_in_the_end(&self, target: &str, status: &str) -> String {
        let began = Instant::now();
        loop {
            let answer = self.get(target).await;
            if answer.starts_with(status) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "{target}: {answer}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn reach(counter: &watch::Sender<usize>, count: usize) {
    let mut counted = counter.subscribe();
    let reached = timeout(PATIENCE, counted.wait_for(|counted| *counted >= count)).await;
    reached.expect("in time").expect("held");
}

struct Peer(TcpStream);

impl Peer {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("sent");
    }

    /// Everything received until the edge closes; a reset counts as an end.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut bytes))
            .await
            .expect("the edge closes in time");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything received until `end`.
    async fn until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            let byte = timeout(PATIENCE, self.0.read_u8()).await.expect("in time").expect("more");
            bytes.push(byte);
        }
        String::from_utf8(bytes).expect("UTF-8")
    }
}

/// Short limits, so that a hostile peer is cut in a moment.
fn short() -> Limits {
    Limits { handshake_ms: 150, write_timeout_ms: 150, http_idle_ms: 300, ..Limits::default() }
}

const GET: &str = "GET /get?key=a HTTP/1.1\r\nHost: localhost\r\n\r\n";
const ANSWER: &str = "{\"a\":\"1\"}";

#[tokio::test]
async fn health_is_reported_with_its_reason() {
    let edge = Edge::start(Limits::default()).await;
    let expected = [
        (Health::Ok, "200 OK", r#"{"status":"ok"}"#),
        (Health::Stopping, "503 Service Unavailable", r#"{"status":"stopping"}"#),
        (
            Health::Failed("a \"disk\"".to_owned()),
            "503 Service Unavailable",
            r#"{"status":"failed","reason":"a \"disk\""}"#,
        ),
    ];
    for (health, status, body) in expected {
        *edge.store.health.lock().unwrap() = health;
        let answer = edge.get("/healthz").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
    }
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_at_any_pace() {
    let edge = Edge::start(short()).await;
    let mut peer = edge.connect().await;
    let dripped = async {
        for byte in GET.bytes().cycle().filter(|byte| *byte != b'\n') {
            if peer.0.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, dripped).await.expect("cut");
    assert!(edge.get("/get").await.starts_with("HTTP/1.1 204"));
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_one_with_requests_lives() {
    let edge = Edge::start(Limits { http_idle_ms: 1_200, ..short() }).await;
    edge.get("/put?a=1").await;
    let (mut silent, mut quiet) = (edge.connect().await, edge.connect().await);
    for _ in 0..5 {
        sleep(Duration::from_millis(300)).await;
        quiet.send(GET).await;
        quiet.until(ANSWER).await;
    }
    assert_eq!(silent.rest().await, "");
    assert_eq!(quiet.rest().await, "");
    assert_eq!(edge.store.counters.http_requests.get(), 6);
}

#[tokio::test]
async fn long_lines_and_long_heads_are_refused_before_they_end() {
    let edge = Edge::start(Limits::default()).await;
    for (start, status) in [("GET /", "414 "), ("GET / HTTP/1.1\r\nA: ", "431 ")] {
        let mut peer = edge.connect().await;
        peer.send(start).await;
        let part = "x".repeat(10_000);
        // The edge answers and closes at some point; bytes sent after that may fail.
        for _ in 0..200 {
            if peer.0.write_all(part.as_bytes()).await.is_err() {
                break;
            }
        }
        let answer = peer.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn a_body_is_ignored_when_small_and_refused_when_large_or_late() {
    let edge = Edge::start(short()).await;
    let bodies = [
        ("Content-Length: 3", "abc", "204 "),
        ("Transfer-Encoding: chunked", "1\r\na\r\n0\r\n\r\n", "204 "),
        ("Expect: 100-continue\r\nContent-Length: 3", "abc", "100 "),
        ("Content-Length: 3", "a", "413 "),
        ("Content-Length: 100000000000", "abc", "413 "),
        ("Content-Length: 70000", &"x".repeat(70_000), "413 "),
    ];
    for (header, body, status) in bodies {
        let mut peer = edge.connect().await;
        peer.send(&format!("GET /get HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n{body}")).await;
        let answer = peer.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{header}: {answer}");
        assert!(answer.contains("connection: close"), "{header}: {answer}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_peer_that_goes_on_sending() {
    let edge = Edge::start(Limits::default()).await;
    let heads = [
        "GET /get HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n".to_owned(),
        format!("GET /{}", "x".repeat(REQUEST_LINE_BYTES)),
    ];
    for head in heads {
        let mut peer = edge.connect().await;
        peer.send(&head).await;
        for _ in 0..60 {
            peer.send(&"x".repeat(15_000)).await;
            sleep(Duration::from_millis(2)).await;
        }
        peer.0.shutdown().await.expect("our side is still open");
        let mut answer = Vec::new();
        timeout(PATIENCE, peer.0.read_to_end(&mut answer))
            .await
            .expect("in time")
            .expect("no reset");
        assert!(answer.starts_with(b"HTTP/1.1 41"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let edge = Edge::start(Limits::default()).await;
    let mut peer = edge.connect().await;
    let requests: String = (0..500)
        .map(|number| {
            format!(
                "GET /put?k={number} HTTP/1.1\r\nHost: localhost\r\n\r\n\
                 GET /get?key=k HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
        })
        .collect();
    peer.send(&requests).await;
    for number in 0..500 {
        peer.until(&format!("{{\"k\":\"{number}\"}}")).await;
    }
    // One head that is refused does not lose the answers before it.
    peer.send(&format!("{GET}{GET}\x01")).await;
    let answers = peer.rest().await;
    let statuses: Vec<_> =
        answers.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")).collect();
    assert_eq!(statuses, ["404 Not Found", "404 Not Found", "400 Bad Request"]);
}

#[tokio::test]
async fn a_peer_that_has_closed_its_side_is_answered() {
    let edge = Edge::start(Limits::default()).await;
    edge.get("/put?a=1").await;
    let mut peer = edge.connect().await;
    peer.send(GET).await;
    peer.0.shutdown().await.expect("half closed");
    assert!(peer.rest().await.ends_with(ANSWER));
}

#[tokio::test]
async fn a_range_of_many_pages_is_streamed_whole_and_in_order() {
    let edge = Edge::start(Limits::default()).await;
    let keys: Vec<String> = (0..95).map(|number| format!("k{number:03}")).collect();
    for part in keys.chunks(20) {
        let pairs: Vec<String> = part.iter().map(|key| format!("{key}=v")).collect();
        edge.get(&format!("/put?{}", pairs.join("&"))).await;
    }
    let read = |answer: String| {
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let body =
            if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.into() };
        let object: serde_json::Map<String, _> = serde_json::from_str(&body).expect("JSON");
        object.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(read(edge.get("/getrange").await), keys);
    assert_eq!(read(edge.get("/getrange?from=k050").await), keys[50..]);
    assert_eq!(read(edge.get("/getrange?from=k050&to=k080").await), keys[50..80]);
    assert_eq!(read(edge.get("/getrange?prefix=k06&from=k063").await), keys[63..70]);
    assert_eq!(read(edge.get("/getrange?limit=25").await), keys[..25]);
    assert_eq!(read(edge.get("/getrange?limit=20&from=k010").await), keys[10..30]);
    let page = edge.get("/getrange?limit=10").await;
    assert!(page.contains("content-length: ") && !page.contains("chunked"), "{page}");

    // HEAD runs one page, returns the headers it can, and the connection stays open.
    let mut peer = edge.connect().await;
    peer.send(&format!("{}{GET}", GET.replace("GET /get?key=a", "HEAD /getrange"))).await;
    let answers = peer.until("content-length: 0\r\n").await;
    assert!(answers.starts_with("HTTP/1.1 200") && answers.contains("HTTP/1.1 404"), "{answers}");
}

/// The text of a chunked body.
fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let (chunk, after) = rest.split_at(usize::from_str_radix(size, 16).expect("a size"));
        text.push_str(chunk);
        body = after.strip_prefix("\r\n").expect("the end of a chunk");
    }
    text
}

/// A store of this many values of this many MiB, in pages of two.
fn large_store(values: u8, value_mib: u8) -> MapStore {
    let store = MapStore::new(2);
    let mib = usize::from(value_mib);
    let value = [&[0xC6, 0, value_mib << 4, 0, 0], vec![0; mib << 20].as_slice()].concat();
    store.map.lock().unwrap().extend((0..values).map(|key| (vec![b'a' + key], value.clone())));
    store
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight_and_closes_the_rest() {
    let edge = Edge::start(Limits { handshake_ms: 60_000, ..Limits::default() }).await;
    edge.get("/put?a=1").await;
    let (mut idle, mut begun, mut busy) =
        (edge.connect().await, edge.connect().await, edge.connect().await);
    idle.send(GET).await;
    idle.until(ANSWER).await;
    begun.send("GET /get").await;
    let turns = edge.store.turn.forget_permits(Semaphore::MAX_PERMITS);
    busy.send(GET).await;
    edge.come(3).await;
    edge.stop.send(true).expect("the edge runs");
    assert_eq!(idle.rest().await, "");
    assert_eq!(begun.rest().await, "");
    assert!(TcpStream::connect(edge.address).await.is_err(), "nothing listens any more");
    assert!(!edge.served.is_finished());
    edge.store.turn.add_permits(turns);
    let answer = busy.rest().await;
    assert!(answer.ends_with(ANSWER) && answer.contains("connection: close"), "{answer}");
    drop(busy);
    // The other connections were closed without a wait for their peers.
    timeout(PATIENCE, edge.served).await.expect("the edge ends").expect("well");
}

#[tokio::test]
async fn an_answer_that_the_system_has_still_to_send_survives_the_stop() {
    let store = MapStore::new(10);
    let value = [&[0xDA, 0xC0, 0], vec![b'v'; 0xC000].as_slice()].concat();
    store.map.lock().unwrap().insert(b"a".to_vec(), value);
    let edge = Edge::over(store, Limits::default()).await;
    let mut peers = Vec::new();
    for _ in 0..20 {
        let mut peer = edge.connect_narrowly().await;
        peer.send(GET).await;
        // The system has taken the rest with the head, and the peer's has no room for it.
        peer.until("\r\n\r\n").await;
        peers.push(peer);
    }
    edge.stop.send(true).expect("the edge runs");
    while TcpStream::connect(edge.address).await.is_ok() {}
    for peer in &mut peers {
        // Sent to a closed socket, this would cause a reset.
        peer.send(&format!("{GET}{GET}")).await;
    }
    for mut peer in peers {
        let rest = peer.rest().await;
        assert!(rest.len() > 0xC000, "{} bytes", rest.len());
    }
    timeout(PATIENCE, edge.served).await.expect("the edge ends").expect("well");
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let (store, grace) = (MapStore::new(10), Duration::from_millis(200));
    let edge = Edge::with_grace(store, Limits::default(), grace).await;
    edge.store.turn.forget_permits(Semaphore::MAX_PERMITS);
    let mut stuck = edge.connect().await;
    stuck.send(GET).await;
    edge.come(1).await;
    edge.stop.send(true).expect("the edge runs");
    assert_eq!(stuck.rest().await, "");
    timeout(PATIENCE, edge.served).await.expect("the edge ends").expect("well");
}
