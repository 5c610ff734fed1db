//! File descriptors: connections may not take the last ones. Without descriptors the store could
//! not open its files, and a store that cannot write stops all writes for good.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

/// Descriptors reserved for the store, or a quarter of all where that is fewer.
const RESERVE: u64 = 64;

/// Fails when no further connection may be accepted.
pub fn check_spare() -> io::Result<()> {
    // The system gives the lowest free number.
    let next = File::open("/dev/null")?.as_raw_fd();
    // Read each time: the limit may be changed from outside. Where it cannot be read, none are
    // reserved.
    let limit = fs::read_to_string("/proc/self/limits").ok().and_then(|limits| soft_limit(&limits));
    match limit.zip(u64::try_from(next).ok()) {
        Some((limit, next)) if next + RESERVE.min(limit / 4) >= limit => {
            let text = "the last file descriptors are kept for the store; raise `ulimit -n`";
            Err(io::Error::other(text))
        }
        _ => Ok(()),
    }
}

fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_parsed_from_proc_limits() {
        let limits = "Limit            Soft Limit   Hard Limit   Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits), Some(1024));
        let none = "Max open files            unlimited            unlimited            files\n";
        assert_eq!(soft_limit(none), None);
        assert!(check_spare().is_ok());
    }
}
