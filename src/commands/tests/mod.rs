//! Commands on a store.

mod charged;
mod expiry;
mod rollback;
