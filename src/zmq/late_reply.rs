//! One reply of a connection that is late, until it is written.
//!
//! Most replies are written at once, and nothing is noted of them. One that is released late, or
//! that the socket does not take, is followed until the socket has it; those that are late
//! meanwhile are counted with it.

use super::send_buffer::SendBuffer;
use crate::clock::Nanos;
use crate::commands::Request;
use crate::engine::Engine;
use crate::engine::spans::{CallTimes, Timed};
use crate::net::Caller;
use crate::protocol::DurabilityBarrier;

/// The call that replies are of.
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    /// Its steps.
    pub times: &'c CallTimes,
    /// The requests that they answer.
    pub requests: &'c [Request<'c>],
}

impl Call<'_> {
    /// What is remembered of it.
    pub fn timed(&self) -> Timed {
        Timed::new(self.times, self.requests)
    }
}

/// The reply that is followed, if one is.
#[derive(Debug, Default)]
pub struct LateReply {
    followed: Option<Followed>,
    /// Replies of the last call wait for the socket.
    has_news: bool,
}

#[derive(Debug)]
struct Followed {
    timed: Timed,
    barrier: DurabilityBarrier,
    released: Nanos,
    /// It is written when so many bytes are, once that is known.
    end: Option<u64>,
    /// So many others were slow.
    others: usize,
}

impl LateReply {
    /// A slow reply was released; its frames are about to wait for the socket.
    pub fn follow(&mut self, timed: &Timed, barrier: DurabilityBarrier, released: Nanos) {
        match &mut self.followed {
            Some(followed) => followed.others += 1,
            none => {
                let timed = *timed;
                *none = Some(Followed { timed, barrier, released, end: None, others: 0 });
            }
        }
    }

    /// Replies of the call that is being answered are on their way at once.
    #[inline]
    pub fn pushed(&mut self) {
        self.has_news = true;
    }

    /// The frames of all that was released wait for the socket.
    #[inline]
    pub fn queued(&mut self, send_buffer: &SendBuffer) {
        if let Some(followed) = &mut self.followed {
            followed.end.get_or_insert_with(|| send_buffer.written_in_the_end());
        }
    }

    /// The socket has taken what it takes now; `last` is the last call of the connection.
    #[inline]
    pub fn wrote(
        &mut self,
        engine: &Engine,
        caller: &Caller,
        send_buffer: &SendBuffer,
        last: &Timed,
    ) {
        let has_news = std::mem::take(&mut self.has_news);
        match &self.followed {
            Some(Followed { end: Some(end), .. }) if send_buffer.written() >= *end => {
                self.end(engine, caller);
            }
            // The socket is full.
            None if has_news && send_buffer.unwritten() > 0 => {
                self.follow(last, DurabilityBarrier::OPEN, last.times.executed());
                self.queued(send_buffer);
            }
            _ => {}
        }
    }

    /// It is written, or never will be.
    #[cold]
    pub fn end(&mut self, engine: &Engine, caller: &Caller) {
        if let Some(Followed { timed, barrier, released, others, .. }) = self.followed.take() {
            engine.note_sent(caller, &timed, barrier, released, engine.since_boot(), others);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::spans::Stage;
    use crate::engine::spans::tests::SlowDisk;
    use std::sync::Arc;

    #[test]
    fn a_reply_that_the_socket_does_not_take_is_followed_until_it_does() {
        let disk = Arc::<SlowDisk>::default();
        let (engine, _log) = disk.engine();
        let (mut late, mut send_buffer) = (LateReply::default(), SendBuffer::default());
        let (caller, last) = (Caller::local(), Timed::default());
        let slow = || engine.slow_requests().recent();
        for pass in [99, 100] {
            send_buffer.out(true, 0).extend_from_slice(&[0; 10]);
            late.pushed();
            send_buffer.consume(4);
            let last = Timed { times: CallTimes::done_at(engine.since_boot()), ..last };
            late.wrote(&engine, &caller, &send_buffer, &last);
            disk.hands.pass(pass);
            // What comes behind it is not waited for.
            send_buffer.out(true, 0).extend_from_slice(&[0; 10]);
            send_buffer.consume(5);
            late.wrote(&engine, &caller, &send_buffer, &last);
            assert!(slow().is_empty());
            send_buffer.consume(1);
            late.wrote(&engine, &caller, &send_buffer, &last);
            send_buffer.consume(10);
        }
        assert_eq!(slow().len(), 1);
        assert_eq!(slow()[0].spans.micros(Stage::Send), 100_000);
        late.wrote(&engine, &caller, &send_buffer, &last);
        late.end(&engine, &caller);
        assert_eq!(slow().len(), 1, "it is told once");
    }
}
