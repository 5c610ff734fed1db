//! Signals: what each means to a broker, and which ones interrupt a command.
//!
//! | signal | a broker |
//! |---|---|
//! | TERM, INT, QUIT, PWR, XCPU | stops in order |
//! | HUP | stops in order if it was started on a terminal, else reloads; not under `nohup` |
//! | USR1, USR2, ALRM, PIPE, IO, PROF, VTALRM, STKFLT, real-time | ignores it |
//! | XFSZ | a write past `ulimit -f` is an error, in every command |
//!
//! Once the process listens for a signal, the system no longer ends it by that signal, whether or
//! not the signal is read.

use rustix::process::Signal as Kind;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The request that a signal makes of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Stop in order.
    Stop(&'static str),
    /// Reload what can change at run time.
    Reload,
    /// Nothing.
    Ignored(&'static str),
}

const STOPS: [(&str, Kind); 5] = [
    ("SIGTERM", Kind::TERM),
    ("SIGINT", Kind::INT),
    ("SIGQUIT", Kind::QUIT),
    ("SIGPWR", Kind::POWER),
    ("SIGXCPU", Kind::XCPU),
];
const IGNORED: [(&str, Kind); 8] = [
    ("SIGUSR1", Kind::USR1),
    ("SIGUSR2", Kind::USR2),
    ("SIGALRM", Kind::ALARM),
    ("SIGPIPE", Kind::PIPE),
    ("SIGIO", Kind::IO),
    ("SIGPROF", Kind::PROF),
    ("SIGVTALRM", Kind::VTALARM),
    ("SIGSTKFLT", Kind::STKFLT),
];
/// The signals that a C library leaves to programs on Linux; the first ones are its own.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The signals of a broker.
#[derive(Debug)]
pub struct Signals(Vec<(Notice, Signal)>);

impl Signals {
    /// Starts to listen.
    pub fn of_broker() -> io::Result<Self> {
        let mut all: Vec<(Notice, i32)> = Vec::new();
        all.extend(STOPS.map(|(name, kind)| (Notice::Stop(name), kind.as_raw())));
        all.extend(IGNORED.map(|(name, kind)| (Notice::Ignored(name), kind.as_raw())));
        all.extend(REAL_TIME.map(|number| (Notice::Ignored("a real-time signal"), number)));
        if !is_ignored(Kind::HUP) {
            let hangup = if has_terminal() { Notice::Stop("SIGHUP") } else { Notice::Reload };
            all.push((hangup, Kind::HUP.as_raw()));
        }
        let listen = |(notice, number)| Ok((notice, signal(SignalKind::from_raw(number))?));
        all.into_iter().map(listen).collect::<io::Result<_>>().map(Self)
    }

    /// The next signal's request.
    pub async fn next(&mut self) -> Notice {
        poll_fn(|context| {
            for (notice, signal) in &mut self.0 {
                if signal.poll_recv(context) == Poll::Ready(Some(())) {
                    return Poll::Ready(*notice);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The signals that interrupt a command: Ctrl-C, and the one that systemd sends.
#[derive(Debug)]
pub struct Interrupt {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Interrupt {
    /// Starts to listen. A signal that the parent process set to be ignored, as a shell does with
    /// Ctrl-C for jobs in the background, stays ignored.
    pub fn new() -> io::Result<Self> {
        let listen = |kind: Kind| match is_ignored(kind) {
            true => Ok(None),
            false => signal(SignalKind::from_raw(kind.as_raw())).map(Some),
        };
        Ok(Self { interrupt: listen(Kind::INT)?, terminate: listen(Kind::TERM)? })
    }

    /// Returns when one of the signals has arrived.
    pub async fn received(&mut self) {
        poll_fn(|context| {
            for signal in [&mut self.interrupt, &mut self.terminate].into_iter().flatten() {
                if signal.poll_recv(context) == Poll::Ready(Some(())) {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
    }
}

/// Makes a write past the file size limit an ordinary error instead of the end of the process.
pub fn survive_file_limit() -> io::Result<()> {
    signal(SignalKind::from_raw(Kind::XFSZ.as_raw())).map(drop)
}

/// Whether the process has a terminal, which hangs up when it is closed.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether the parent process set this signal to be ignored, as `nohup` does.
fn is_ignored(kind: Kind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_mask(&status) >> (kind.as_raw() - 1) & 1 == 1
}

fn ignored_mask(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_parsed_from_proc_status() {
        let status = "Name:\tvatn\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert_eq!(ignored_mask(status), 0x1001);
        assert_eq!(ignored_mask(""), 0);
    }

    #[test]
    fn no_signal_is_registered_twice() {
        let mut numbers: Vec<i32> =
            STOPS.iter().chain(&IGNORED).map(|(_, kind)| kind.as_raw()).collect();
        numbers.extend(REAL_TIME);
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }
}
