//! The broker, as commands ask it.

use super::{Core, Engine};
use crate::commands::Broker;

/// An engine, and its core, which is held.
pub(super) struct BrokerView<'e> {
    pub(super) engine: &'e Engine,
    pub(super) core: &'e Core,
}

impl Broker for BrokerView<'_> {
    fn hello(&self, client: Option<&str>) -> Vec<u8> {
        self.engine.hello(self.core, client)
    }

    fn stats(&self) -> Vec<u8> {
        self.engine.stats(self.core)
    }

    fn compact(&self) -> u64 {
        self.engine.compact()
    }
}
