//! `touch`.

use super::write::Write;
use super::{Context, Store};
use crate::wire::command::{Command, Touch};
use crate::wire::{Level, Reply};

impl Store {
    pub(super) fn touch(&mut self, touch: &Touch<'_>, write: &mut Write<'_>) -> Reply<'static> {
        let key = self.hashed(&touch.key, write.hash);
        let Some(entry) = self.current(key, write) else {
            write.gate.join(self.removals);
            return Reply::Bool(false);
        };
        let old = entry.head;
        write.gate.require(old.level, old.seq);
        let expires_at = write.deadline(touch.ttl_ms);
        self.retime(key, old, expires_at, write);
        Reply::Bool(true)
    }

    /// The level of a write. A touch carries no value, so it neither persists one nor takes that
    /// back: on a value of level `memory` it is of that level, and on others of `queued` at least.
    pub(super) fn level(
        &self,
        command: &Command<'_>,
        hash: Option<u64>,
        context: &Context,
    ) -> Level {
        let asked = command.durability().unwrap_or(context.durability);
        let is_persisted = |touch: &Touch<'_>, hash| {
            self.map.get(self.hashed(&touch.key, hash)).map(|entry| entry.head.persisted)
        };
        match command {
            Command::Touch(touch) => match is_persisted(touch, hash) {
                Some(true) => asked.max(Level::Queued),
                Some(false) => Level::Memory,
                None => asked,
            },
            Command::Batch(batch) if asked == Level::Memory => {
                let touches = |command: &Command<'_>| match command {
                    Command::Touch(touch) => is_persisted(touch, None) == Some(true),
                    _ => false,
                };
                if batch.commands.iter().any(touches) { Level::Queued } else { asked }
            }
            _ => asked,
        }
    }
}
