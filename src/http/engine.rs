//! The engine as the HTTP edge's store.

use super::store::{Counted, Health, Store};
use crate::engine::{Counters, Engine};
use crate::wire::{Command, Refusal};
use bytes::Bytes;

impl Counted for Engine {
    fn counters(&self) -> &Counters {
        Self::counters(self)
    }
}

impl Store for Engine {
    async fn run(&self, command: Command<'_>) -> Result<Bytes, Refusal> {
        Self::run(self, command).await
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
