//! The two signals that request a process to end.

use std::future::Future;

use super::Failure;
use crate::process::signals::Interrupt;

/// Does `work`. If it `has_remains`, a signal ends it in order, so that they are removed; otherwise
/// a signal ends it at once, as a process that waits for its reader must.
pub(super) async fn unless_stopped<T>(
    has_remains: bool,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    if !has_remains {
        exit_on_interrupt(|| "interrupted; what was printed is not all of it".to_owned())?;
        return work.await;
    }
    unless_interrupted(work).await
}

/// Does `work` that writes nothing, unless a signal ends it.
pub(super) async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut stop = Stop::new()?;
    tokio::select! {
        done = work => done,
        () = stop.requested() => Err(Failure::interrupted("interrupted; nothing was written")),
    }
}

/// Ends the process on Ctrl-C with the message `said`, where the work cannot be interrupted itself.
pub(super) fn exit_on_interrupt(said: impl Fn() -> String + Send + 'static) -> Result<(), Failure> {
    let cannot = |error| Failure::failed(format!("cannot listen for signals: {error}"));
    let (sender, listens) = std::sync::mpsc::sync_channel(1);
    let watch = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let stop = runtime.map_err(cannot).and_then(|runtime| {
            let stop = runtime.block_on(async { Stop::new() });
            stop.map(|stop| (runtime, stop))
        });
        let (runtime, mut stop) = match stop {
            Ok(stop) => stop,
            Err(failure) => return drop(sender.send(Err(failure))),
        };
        let _ = sender.send(Ok(()));
        runtime.block_on(stop.requested());
        Failure::interrupted(said()).exit();
    };
    std::thread::Builder::new().name("vatn-stop".to_owned()).spawn(watch).map_err(cannot)?;
    // A thread that ends without a result has panicked.
    listens.recv().unwrap_or_else(|_| Err(Failure::failed("cannot listen for signals")))
}

/// Ctrl-C, and the signal that systemd sends.
pub(super) struct Stop(Interrupt);

impl Stop {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = Interrupt::new();
        listen
            .map(Self)
            .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))
    }

    /// Returns when one of the signals has arrived.
    pub(super) async fn requested(&mut self) {
        self.0.received().await;
    }
}
