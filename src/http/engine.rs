//! The engine as the HTTP edge's store.

use super::refuse::Refused;
use super::store::{Counted, Health, Store};
use crate::commands::{Command, Request};
use crate::engine::spans::{CallTimes, Timed};
use crate::engine::{
    Allowance, Awaited, ChangesQuery, Counters, End, Engine, PendingReply, Replies,
};
use crate::net::turns::{SHARE_MAX, Turns};
use crate::net::{Caller, MemoryQuota};
use crate::protocol::{Refusal, Seq};
use bytes::Bytes;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The id of a request that is answered by its connection.
const NO_ID: u64 = 0;

impl Counted for Engine {
    fn counters(&self) -> &Counters {
        Self::counters(self)
    }

    fn quota(&self) -> &Arc<MemoryQuota> {
        Self::quota(self)
    }

    fn id(&self) -> &Arc<str> {
        self.id_text()
    }
}

impl Store for Engine {
    async fn run(
        &self,
        caller: &Arc<Caller>,
        command: Command<'_>,
        hold: impl FnOnce(usize) -> Result<(), Refused> + Send,
    ) -> Result<Bytes, Refused> {
        run(self, caller, command, hold).await
    }

    async fn await_changes(&self, caller: &Arc<Caller>, query: &ChangesQuery) -> Awaited {
        Self::await_changes(self, caller, query).await
    }

    async fn changes(self: Arc<Self>, query: ChangesQuery) -> Result<Bytes, Refusal> {
        self.changes_now(query).await
    }

    fn last_seq(&self) -> Seq {
        self.feed().last_seq()
    }

    fn seq(&self) -> Seq {
        Self::seq(self)
    }

    fn is_stopping(&self) -> bool {
        self.watermarks().progress().is_stopping
    }

    fn health(&self) -> Health {
        let progress = self.watermarks().progress();
        match progress.failure {
            Some(reason) => Health::Failed(reason.to_string()),
            None if progress.is_stopping => Health::Stopping,
            None => Health::Ok,
        }
    }
}

/// Executes one command on the engine; returns its encoded result once it may be seen. Waits for a
/// full write queue and for the command's durability. `hold` is called with the number of bytes
/// that wait; when it refuses to hold them, the result is dropped.
pub async fn run<E: From<Refusal>>(
    engine: &Engine,
    caller: &Arc<Caller>,
    command: Command<'_>,
    hold: impl FnOnce(usize) -> Result<(), E>,
) -> Result<Bytes, E> {
    let requests = [Request { id: Some(NO_ID), notification: false, command: Ok(command) }];
    let mut replies = Replies::default();
    let mut room = engine.room();
    let since = engine.since_boot();
    let mut now = since;
    let deadline = Instant::now() + Duration::from_millis(engine.config().write_queue.wait_ms);
    let mut turns = Turns::default();
    let mut allowance = Allowance::light(SHARE_MAX).waiting_for_room();
    loop {
        let may_wait_for_room = allowance.may_wait_for_room;
        replies.times = CallTimes::begin(since, now);
        match engine.call(caller, &requests, &mut allowance, &mut replies).end {
            // A single request may cost anything, once its turn has come.
            End::Done | End::Full | End::NeedsMemory { .. } => break,
            End::NeedsHeavyTurn => {
                turns.wait_for_heavy().await;
                allowance = Allowance { may_wait_for_room, ..Allowance::default() };
            }
            End::OutOfTurn => {
                turns.give_way().await;
                allowance = Allowance { may_wait_for_room, ..Allowance::light(SHARE_MAX) };
            }
            End::WriteQueueFull => {
                let has_changed = timeout_at(deadline, room.changed()).await;
                allowance.may_wait_for_room = matches!(has_changed, Ok(Ok(())));
            }
        }
        now = engine.since_boot();
    }
    hold(replies.encoded.len())?;
    let barrier = replies.list.first().and_then(PendingReply::barrier).unwrap_or_default();
    poll_fn({
        let mut waiter = engine.waiter();
        move |cx| waiter.poll_released(cx, barrier)
    })
    .await;
    let (timed, released) = (Timed::new(&replies.times, &requests), engine.since_boot());
    engine.note_sent(caller, &timed, barrier, released, released, 0);
    Ok(replies.into_result(engine)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Set;
    use crate::engine::spans::Stage;
    use crate::engine::spans::tests::SlowDisk;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_write_whose_sync_takes_long_is_noted_with_that_stage() {
        let disk = Arc::<SlowDisk>::default();
        let (engine, log) = disk.engine();
        disk.sync_ms.store(180, Ordering::Release);
        let committer = std::thread::spawn({
            let engine = Arc::clone(&engine);
            move || engine.commit(log)
        });
        let set = Command::Set(Set {
            key: b"k"[..].into(),
            value: b"\x01",
            expiry: None,
            condition: None,
            durability: None,
            return_value: false,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let hold = |_| Ok::<_, Refusal>(());
        runtime.block_on(run(&engine, &Caller::local(), set, hold)).unwrap();
        engine.stop();
        committer.join().unwrap();
        let slow = engine.slow_requests().recent();
        let [one] = slow.as_slice() else { panic!("{slow:?}") };
        assert_eq!((one.method, one.spans.longest()), ("set", Stage::Fsync));
        assert_eq!(one.spans.micros(Stage::Fsync), 180_000);
    }
}
