//! Commands on a store.

mod charged;
mod expiry;
mod take_back;
