//! Connections above the limit.

use super::*;

#[tokio::test]
async fn a_reader_that_stops_reading_is_cut_and_its_slot_is_free_again() {
    let edge = Edge::over(large_store(16, 1), Limits { max_connections: 1, ..short() }).await;
    let mut stalled = edge.connect_narrowly().await;
    stalled.send("GET /getrange HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    stalled.until("\r\n\r\n").await;
    edge.get_in_the_end("/get?key=zz", "HTTP/1.1 404").await;
    let rest = stalled.rest().await;
    assert!(rest.len() < 16 << 20 && !rest.ends_with("0\r\n\r\n"), "{} bytes", rest.len());
}

#[tokio::test]
async fn a_new_connection_takes_the_slot_of_the_longest_idle_one() {
    let edge = Edge::start(Limits { max_connections: 2, ..Limits::default() }).await;
    let (mut first, mut second) = (edge.connect().await, edge.connect().await);
    for peer in [&mut first, &mut second] {
        peer.send(GET).await;
        peer.until("content-length: 0\r\n").await;
        peer.until("\r\n\r\n").await;
    }
    // By then the task of the first connection has long seen that its answer is written.
    for _ in 0..8 {
        second.send(GET).await;
        second.until("content-length: 0\r\n").await;
        second.until("\r\n\r\n").await;
    }
    let mut third = edge.connect().await;
    assert_eq!(first.rest().await, "", "closed without a word, as an idle one is");
    for peer in [&mut second, &mut third] {
        peer.send(GET).await;
        peer.until("content-length: 0\r\n").await;
    }
}

#[tokio::test]
async fn where_all_slots_are_busy_a_new_connection_gets_503() {
    let edge = Edge::start(Limits { max_connections: 2, ..Limits::default() }).await;
    let turns = edge.store.turn.forget_permits(Semaphore::MAX_PERMITS);
    let (mut first, mut second) = (edge.connect().await, edge.connect().await);
    for peer in [&mut first, &mut second] {
        peer.send(GET).await;
    }
    edge.come(2).await;
    let answer = edge.get("/get").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains("connection: close") && answer.contains("vatn-store-id: "), "{answer}");
    assert!(answer.contains("{\"error\":\"BUSY\",") && answer.ends_with('}'), "{answer}");
    edge.store.turn.add_permits(turns);
    for peer in [&mut first, &mut second] {
        peer.until("content-length: 0\r\n").await;
    }
    edge.get_in_the_end("/get", "HTTP/1.1 204").await;
}

#[tokio::test]
async fn connections_that_come_and_go_do_not_keep_an_honest_client_out() {
    let edge = Edge::start(Limits { max_connections: 64, ..Limits::default() }).await;
    edge.get("/put?a=1").await;
    for round in 0..2_000 {
        let mut churning = edge.connect().await;
        if round % 2 == 0 {
            // It may be closed by then: there are newer ones.
            let _ = churning.0.write_all(b"GET /get?ke").await;
        }
        drop(churning);
        if round % 100 == 0 {
            assert!(edge.get_in_the_end("/get?key=a", "HTTP/1.1 200").await.ends_with(ANSWER));
        }
    }
}

/// Comments without a change do not make a follower more recently active.
#[tokio::test]
async fn a_new_connection_takes_the_slot_of_the_follower_without_changes_longest() {
    let edge = Edge::start(Limits { max_connections: 3, ..Limits::default() }).await;
    let mut followers = Vec::new();
    for (count, prefix) in ["first", "second", "third"].iter().enumerate() {
        let mut peer = edge.connect().await;
        peer.send(&format!(
            "GET /changes?prefix={prefix} HTTP/1.1\r\nHost: localhost\r\n\
             Accept: text/event-stream\r\n\r\n"
        ))
        .await;
        peer.until(": nothing up to 0").await;
        edge.wait_for_changes(count + 1).await;
        followers.push(peer);
    }
    edge.store.beats[0].add_permits(1);
    followers[0].until(": nothing up to 0").await;
    edge.wait_for_changes(4).await;
    assert!(edge.get("/put?a=1").await.starts_with("HTTP/1.1 201"));
    followers[0].rest().await;
    edge.store.beats[1].add_permits(2);
    for peer in &mut followers[1..] {
        peer.until(": nothing up to 0").await;
    }
}
