//! The engine as the HTTP edge's store.

use super::refuse::Refused;
use super::store::{Counted, Health, Store};
use crate::commands::Command;
use crate::engine::{Awaited, ChangesQuery, Counters, Engine};
use crate::net::MemoryQuota;
use crate::protocol::{Refusal, Seq};
use bytes::Bytes;
use std::sync::Arc;

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
        command: Command<'_>,
        hold: impl FnOnce(usize) -> Result<(), Refused> + Send,
    ) -> Result<Bytes, Refused> {
        self.run_within(command, hold).await
    }

    async fn await_changes(&self, query: &ChangesQuery) -> Awaited {
        Self::await_changes(self, query).await
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
