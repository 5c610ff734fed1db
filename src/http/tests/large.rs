//! Large answers: rendered in short turns, held no longer than they are read.

use super::*;
use crate::http::json::{SLICE_BYTES, STEP_BYTES_MAX};
use futures_util::future::join_all;

/// The part of `target` that a slow reader receives, in a longer time than a peer that does not
/// read is allowed.
async fn read_slowly(store: MapStore, target: &str) -> Vec<u8> {
    let limit = Duration::from_secs(2);
    let edge = Edge::over(store, Limits { write_timeout_ms: 2_000, ..Limits::default() }).await;
    let mut slow = edge.connect_narrowly().await;
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    slow.send(&head).await;
    // The two systems pass on that there is room by the hundred thousand bytes, so a piece is more.
    let (began, mut received) = (Instant::now(), Vec::new());
    loop {
        let before = received.len();
        let mut piece = (&mut slow.0).take(1 << 20);
        let read = timeout(PATIENCE, piece.read_to_end(&mut received));
        read.await.expect("in time").expect("not cut");
        if received.len() == before {
            break;
        }
        sleep(limit / 6).await;
    }
    assert!(began.elapsed() > limit, "{target}: {} bytes", received.len());
    received
}

#[tokio::test]
async fn a_reader_that_is_slow_but_reads_gets_it_all() {
    let (chunks, whole) = tokio::join!(
        read_slowly(large_store(8, 1), "/getrange"),
        read_slowly(large_store(1, 8), "/get?key=a"),
    );
    assert!(chunks.len() > 8 << 20, "{} bytes", chunks.len());
    assert!(chunks.ends_with(b"0\r\n\r\n"));
    // Here only progress that is recorded during the answer keeps the connection.
    assert!(whole.len() > 8 << 20, "{} bytes", whole.len());
    assert!(whole.ends_with(b"}"));
}

#[tokio::test]
async fn a_peer_that_does_not_read_a_large_answer_is_cut_when_its_memory_is_needed() {
    let limits = Limits { max_outgoing_bytes: 4 << 20, range_bytes: 1 << 20, ..Limits::default() };
    let edge = Edge::over(large_store(16, 1), limits).await;
    let keys: String = ('a'..='z').map(|key| format!("key={key}&")).collect();
    let mut stalled = Vec::new();
    for _ in 0..3 {
        let mut peer = edge.connect_narrowly().await;
        peer.send(&GET.replace("key=a", &keys)).await;
        // The peers before it hold all memory, and do not read.
        assert_eq!(peer.until("\r\n").await, "HTTP/1.1 200 OK\r\n");
        assert!(edge.get("/get?key=zz").await.starts_with("HTTP/1.1 404"), "small ones pass");
        stalled.push(peer);
    }
    for mut peer in stalled.into_iter().take(2) {
        let rest = peer.rest().await;
        assert!(rest.len() < 16 << 20, "{} bytes", rest.len());
    }
    assert_eq!(edge.store.counters.refused_connections.get(), 2);
}

/// A store of long values of several shapes.
fn shapes() -> MapStore {
    let store = MapStore::new(3);
    let list = |marker: u8, len: u32| [[marker].as_slice(), &len.to_be_bytes()].concat();
    let nils = [list(0xDD, 1 << 16), vec![0xC0; 1 << 16]].concat();
    let text = [list(0xDB, 1 << 15), vec![1; 1 << 15]].concat();
    let bytes = [list(0xC6, 1 << 16), vec![0xAA; 1 << 16]].concat();
    let by_nils = [vec![0x81], nils.clone(), vec![1]].concat();
    let within = [vec![0x81], by_nils.clone(), vec![1]].concat();
    let deep =
        [list(0xDD, 1 << 10), [vec![0x91; 62], vec![0xC0]].concat().repeat(1 << 10)].concat();
    let values = [nils, text, bytes, by_nils, within, deep];
    let keys = ["nils", "text", "bytes", "by_nils", "within", "deep"];
    let pairs = keys.into_iter().zip(values).map(|(key, value)| (key.as_bytes().to_vec(), value));
    store.map.lock().unwrap().extend(pairs);
    store
}

#[tokio::test]
async fn large_answers_of_every_shape_are_rendered_in_short_turns() {
    let edge = Edge::over(shapes(), Limits::default()).await;
    let keys = ["nils", "text", "bytes", "by_nils", "within", "deep"];
    let one = keys.map(|key| format!("/get?key={key}"));
    let all = format!("/get?key={}", keys.join("&key="));
    let targets = [one.as_slice(), &[all, "/getrange".to_owned()]].concat();
    let ask = |target: &String| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut peers = Vec::new();
    for _ in 0..3 {
        let mut peer = edge.connect().await;
        peer.send(&targets.iter().map(ask).collect::<String>()).await;
        peers.push(peer);
    }
    let read = peers.iter_mut().map(|peer| async {
        let mut lens = Vec::new();
        for _ in 0..targets.len() - 1 {
            let head = peer.until("\r\n\r\n").await;
            let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; len.expect("a length").parse().expect("a number")];
            peer.0.read_exact(&mut body).await.expect("all of it");
            let object: serde_json::Map<String, _> = serde_json::from_slice(&body).expect("JSON");
            lens.push((object.len(), body.len()));
        }
        assert!(lens.iter().take(6).all(|(count, _)| *count == 1), "{lens:?}");
        assert_eq!(lens.get(6).map(|(count, _)| *count), Some(6));
        assert!(peer.until("\r\n0\r\n\r\n").await.contains("x-accel-buffering: no"));
    });
    join_all(read).await;
    let (longest, taken) = edge.app.turns().seen();
    assert!(longest < SLICE_BYTES + STEP_BYTES_MAX, "a turn of {longest} bytes");
    assert!(taken > 100, "{taken} turns");
}

#[tokio::test]
async fn nothing_is_rendered_for_head_and_no_more_than_the_limit_for_get() {
    let limits = Limits { http_answer_bytes: 100_000, ..Limits::default() };
    let edge = Edge::over(shapes(), limits).await;
    let mut peer = edge.connect().await;
    for target in
        ["/get?key=nils&key=text", "/get?key=zz&key=nils", "/getrange", "/getrange?from=t"]
    {
        peer.send(&format!("HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let head = peer.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200") && !head.contains("content-length"), "{head}");
    }
    assert_eq!(edge.app.turns().seen(), (0, 0));
    assert!(edge.get("/get?key=nils").await.starts_with("HTTP/1.1 413"));
    let (_, taken) = edge.app.turns().seen();
    assert!((2..5).contains(&taken), "{taken} turns until it was known to be too long");
    assert!(edge.get("/get?key=nils").await.contains("--http-answer-bytes"));
    let streamed = edge.get("/getrange?prefix=nils").await;
    assert!(streamed.contains("transfer-encoding: chunked") && streamed.ends_with("0\r\n\r\n"));
}
