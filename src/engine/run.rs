//! One command at a time, for edges that wait for each: HTTP.

use super::Engine;
use super::answers::Answers;
use crate::budget::WorkBudget;
use crate::commands::{Command, Request};
use crate::net::turns::{SHARE_MAX, Turns};
use crate::protocol::reader::Reader;
use crate::protocol::refusal::Code;
use crate::protocol::reply_buffer::Piece;
use crate::protocol::{Refusal, ReplyBuffer};
use bytes::Bytes;
use std::future::poll_fn;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The id of a request that has no peer.
const NO_ID: u64 = 0;

impl Engine {
    /// Executes one command; returns its encoded result when it may be shown. A full queue and the
    /// command's durability are waited for.
    pub async fn run(&self, command: Command<'_>) -> Result<Bytes, Refusal> {
        self.run_within(command, |_| Ok(())).await
    }

    /// The same; `hold` is told how many bytes wait with it. When it refuses to hold them, the
    /// result is given up.
    pub async fn run_within<E: From<Refusal>>(
        &self,
        command: Command<'_>,
        hold: impl FnOnce(usize) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        let request = Request { id: Some(NO_ID), notification: false, command: Ok(command) };
        let requests = [request];
        let mut answers = Answers::default();
        let mut room = self.room();
        let deadline = Instant::now() + Duration::from_millis(self.config.write_queue.wait_ms);
        let mut refuse_full = false;
        let mut turns = Turns::default();
        (answers.is_heavy, answers.budget) = (false, WorkBudget::of(SHARE_MAX));
        while self.execute(&requests, refuse_full, &mut answers) == 0 {
            if answers.needs_heavy {
                turns.wait_for_heavy().await;
                answers = Answers::default();
                continue;
            }
            if answers.is_out_of_turn {
                turns.give_way().await;
                answers.is_out_of_turn = false;
                answers.budget = WorkBudget::of(SHARE_MAX);
                continue;
            }
            answers.is_blocked = false;
            refuse_full = !matches!(timeout_at(deadline, room.changed()).await, Ok(Ok(())));
        }
        hold(answers.replies.len())?;
        if answers.to_append > 0 {
            tokio::task::yield_now().await;
            self.append(answers.to_append);
        }
        let Some(answer) = answers.list.first() else {
            return Err(internal("no answer").into());
        };
        let mut waiter = self.waiter();
        poll_fn(|cx| waiter.poll_released(cx, answer.barrier)).await;
        let release = self.barrier_status(answer.barrier);
        let mut response = Vec::new();
        let is_made = self.complete(answer, release, &mut response);
        Ok(open(if is_made { ReplyBuffer::after(response) } else { answers.replies })?)
    }
}

/// Takes the result, or the refusal, out of a response that this process encoded.
fn open(response: ReplyBuffer) -> Result<Bytes, Refusal> {
    let copied = response.pieces(0..response.len()).find_map(|piece| match piece {
        Piece::Bytes(bytes) => Some(bytes),
        Piece::Shared(_) => None,
    });
    let copied = copied.unwrap_or_default();
    let mut reader = Reader::new(copied);
    let parsed = (|| {
        reader.array_len().ok()?;
        reader.uint().ok()?;
        reader.uint().ok()?;
        reader.nil().ok()
    })();
    match parsed {
        Some(true) => {
            let start = copied.len() - reader.rest().len();
            Ok(response.into_bytes_from(start))
        }
        Some(false) => {
            Err(refusal(&mut reader).unwrap_or_else(|| internal("a refusal is unreadable")))
        }
        None => Err(internal("a response is unreadable")),
    }
}

fn refusal(reader: &mut Reader<'_>) -> Option<Refusal> {
    reader.array_len().ok()?;
    let code = reader.bytes().ok()?;
    let code = Code::ALL.into_iter().find(|known| known.name().as_bytes() == code)?;
    let message = String::from_utf8_lossy(reader.bytes().ok()?).into_owned();
    Some(Refusal::new(code, message))
}

fn internal(what: &str) -> Refusal {
    Refusal::new(Code::Storage, format!("internal error: {what}"))
}
