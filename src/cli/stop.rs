//! The two signals that ask a process to end.

use std::future::Future;

use super::Failure;
use crate::process::signals::Interrupt;

/// Does `work`. Where it `has_remains`, a signal ends it in order, so that they go; else at once,
/// as one that waits for a reader must.
pub(super) async fn unless_asked<T>(
    has_remains: bool,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    if !has_remains {
        return work.await;
    }
    let mut stop = Stop::new()?;
    tokio::select! {
        done = work => done,
        () = stop.asked() => Err(Failure::failed("interrupted; nothing was written")),
    }
}

/// Ctrl-C, and what systemd sends.
pub(super) struct Stop(Interrupt);

impl Stop {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = Interrupt::new();
        listen
            .map(Self)
            .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))
    }

    /// Returns when one of them has come.
    pub(super) async fn asked(&mut self) {
        self.0.asked().await;
    }
}
