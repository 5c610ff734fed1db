//! The broker, as commands ask it.

use super::{Core, Engine};
use crate::commands::{Broker, Hello};

/// An engine, and its core, which is held.
pub(super) struct Asked<'e> {
    pub(super) engine: &'e Engine,
    pub(super) core: &'e Core,
}

impl Broker for Asked<'_> {
    fn hello(&self, hello: &Hello) -> Vec<u8> {
        self.engine.hello(self.core, hello)
    }

    fn stats(&self) -> Vec<u8> {
        self.engine.stats(self.core)
    }

    fn compact(&self) -> u64 {
        self.engine.compact()
    }
}
