//! The limits that the system sets the process (`ulimit`), compared with the needs of a broker. A
//! limit that is too low is reported at the start, and not discovered later by a signal or an
//! abort.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that a broker without connections needs: the store's open files, and the reserved
/// ones.
pub const OPEN_FILES_MIN: u64 = 128;
/// The largest file of a store, without the excess of a very large write: fjall's journal and a
/// margin.
pub const FILE_BYTES_MIN: u64 = 160 << 20;
/// Address space of an empty broker: stacks, and the allocator's reservation for each thread.
pub const ADDRESS_BYTES_MIN: u64 = 1 << 30;

/// Raises the limit of open files as far as the system allows; returns the limit.
pub fn raise_open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: maximum, maximum };
    // Where it cannot be raised, the current limit stays.
    let _ = if current == maximum { Ok(()) } else { setrlimit(Resource::Nofile, wanted) };
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Why a broker cannot run within the limits, as a sentence that names the limit and the cure.
pub fn fault() -> Option<String> {
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if open_files < OPEN_FILES_MIN {
        return Some(format!(
            "the limit of open files is {open_files}, and a broker needs {OPEN_FILES_MIN} at \
             least: raise it (ulimit -n, or LimitNOFILE= of systemd)"
        ));
    }
    let least = |resource, least: u64, what: &str, flag: &str| {
        let current = getrlimit(resource).current?;
        (current < least).then(|| {
            format!(
                "the limit of {what} is {current} bytes, and a broker needs {least} at least: \
                 raise it ({flag})"
            )
        })
    };
    least(Resource::Fsize, FILE_BYTES_MIN, "a file's size", "ulimit -f")
        .or_else(|| least(Resource::As, ADDRESS_BYTES_MIN, "address space", "ulimit -v"))
        .or_else(|| least(Resource::Data, ADDRESS_BYTES_MIN / 4, "data", "ulimit -d"))
}

/// How many connections `open_files` allow one edge, besides the files of the store.
pub fn connections(open_files: u64) -> usize {
    usize::try_from(open_files.saturating_sub(OPEN_FILES_MIN / 2)).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_connections_leaves_descriptors_for_the_store() {
        assert_eq!(connections(1024), 960);
        assert_eq!(connections(OPEN_FILES_MIN), 64);
        assert_eq!(connections(0), 1);
    }
}
