//! Answers connections that get no slot.

use super::edge::STORE_ID;
use super::refuse::Refused;
use axum::http::header::HeaderValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How many are answered at a time; further ones are closed without an answer.
const ANSWERS_MAX: usize = 64;
/// How long a peer may take to receive the answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many request bytes are read meanwhile: unread ones would reset the connection before the
/// answer.
const READ_BYTES_MAX: u64 = 64 * 1024;

/// Answers connections that get no slot with 503.
#[derive(Debug)]
pub struct TurnedAway {
    answer: Arc<str>,
    free: Arc<Semaphore>,
}

impl TurnedAway {
    /// For a broker whose store has this id.
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
        Self { answer: Arc::from(answer), free: Arc::new(Semaphore::new(ANSWERS_MAX)) }
    }

    /// Answers any request with 503, and closes.
    pub fn refuse(&self, mut socket: TcpStream) {
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
