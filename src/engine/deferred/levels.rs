//! Replies that wait for a level: `wait`, and `flush`.

use super::Awaited;
use crate::engine::{BarrierStatus, Engine, replies};
use crate::protocol::{DurabilityBarrier, Refusal, writer};
use bytes::Bytes;
use tokio::time::Instant;

/// `wait`: `true` when its barrier opens, `false` when the time is up first.
#[derive(Debug)]
pub(in crate::engine) struct AwaitedLevel {
    pub(in crate::engine) barrier: DurabilityBarrier,
    /// When the time is up.
    pub(in crate::engine) until: Option<Instant>,
}

impl Awaited for AwaitedLevel {
    fn is_due(&self, engine: &Engine, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
            || engine.is_in_vain(self.barrier)
            || engine.barrier_status(self.barrier) != BarrierStatus::Waiting
    }

    fn barrier(&self) -> Option<DurabilityBarrier> {
        Some(self.barrier)
    }

    fn until(&self) -> Option<Instant> {
        self.until
    }

    fn result(&self, engine: &Engine) -> Result<Bytes, Refusal> {
        let release = engine.barrier_status(self.barrier);
        match release {
            BarrierStatus::Failed => return Err(engine.storage_refusal()),
            BarrierStatus::Waiting if engine.is_in_vain(self.barrier) => {
                return Err(replies::stopping());
            }
            BarrierStatus::Waiting | BarrierStatus::Ready => {}
        }
        let mut out = Vec::with_capacity(1);
        writer::bool(&mut out, release == BarrierStatus::Ready);
        Ok(Bytes::from(out))
    }
}

/// `flush`: the status line, when everything is in the tables.
#[derive(Debug)]
pub(in crate::engine) struct AwaitedFlush {
    pub(in crate::engine) barrier: DurabilityBarrier,
}

impl Awaited for AwaitedFlush {
    fn is_due(&self, engine: &Engine, _: Instant) -> bool {
        engine.barrier_status(self.barrier) != BarrierStatus::Waiting
    }

    fn barrier(&self) -> Option<DurabilityBarrier> {
        Some(self.barrier)
    }

    fn may_overtake(&self) -> bool {
        false
    }

    fn result(&self, engine: &Engine) -> Result<Bytes, Refusal> {
        if engine.barrier_status(self.barrier) == BarrierStatus::Failed {
            return Err(engine.storage_refusal());
        }
        let mut line = Vec::new();
        writer::str(&mut line, &engine.status_line());
        Ok(Bytes::from(line))
    }
}
