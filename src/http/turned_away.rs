//! The answer to a connection for which there is no place.

use super::edge::STORE_ID;
use super::refuse::Refused;
use axum::http::header::HeaderValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How many are told at a time; further ones are closed without a word.
const TOLD_MAX: usize = 64;
/// How long one may take to hear it.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is read of its request meanwhile: unread, it would reset the connection before the answer.
const READ_BYTES_MAX: u64 = 64 * 1024;

/// Tells connections that there is no place for them.
#[derive(Debug)]
pub struct TurnedAway {
    answer: Arc<str>,
    free: Arc<Semaphore>,
}

impl TurnedAway {
    /// By a broker whose store has this id.
    pub fn new(store_id: &HeaderValue) -> Self {
        let body = Refused::busy(
            "BUSY",
            "as many connections are open as --max-connections allows, and none is idle; try again",
        )
        .body();
        let body = String::from_utf8_lossy(&body);
        let store_id = store_id.to_str().unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
             cache-control: no-store\r\nretry-after: 1\r\nconnection: close\r\n\
             {STORE_ID}: {store_id}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { answer: Arc::from(answer), free: Arc::new(Semaphore::new(TOLD_MAX)) }
    }

    /// Answers 503 whatever is asked, and closes.
    pub fn tell(&self, mut socket: TcpStream) {
        let Ok(place) = Arc::clone(&self.free).try_acquire_owned() else { return };
        let answer = Arc::clone(&self.answer);
        tokio::spawn(timeout(PATIENCE, async move {
            let _place = place;
            if socket.write_all(answer.as_bytes()).await.is_ok() && socket.shutdown().await.is_ok()
            {
                let mut rest = socket.take(READ_BYTES_MAX);
                let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
            }
        }));
    }
}
