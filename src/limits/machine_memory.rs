//! How much memory the process may use: the least of the machine's, its control group's and its own
//! limit; and the default shares of it for the limits.
//!
//! All shares together fit, with the memory that no limit counts. Writes that wait for the tables
//! are in memory up to four times: as a growing record, as a record on its way to the log, and as
//! rows not yet written to the tables.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

static USABLE: LazyLock<Option<usize>> =
    LazyLock::new(|| usable(&|path| fs::read_to_string(path).ok()));

/// The directory of the control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The default of `--max-data-bytes`: three eighths of the memory that the process may use. `None`
/// where that is not known.
pub fn default_data_bytes() -> Option<usize> {
    USABLE.map(|bytes| bytes / 8 * 3)
}

/// The memory that the process may use, divided by `parts`, and at most `most`.
pub fn share(parts: usize, most: usize) -> usize {
    USABLE.map_or(most, |bytes| (bytes / parts).min(most))
}

/// The memory that the process may use; `read` gives the text of a file.
fn usable(read: &dyn Fn(&Path) -> Option<String>) -> Option<usize> {
    let physical = read(Path::new("/proc/meminfo")).as_deref().and_then(total);
    let process = read(Path::new("/proc/self/limits")).as_deref().and_then(address_space);
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let groups = groups.lines().filter_map(|line| group_limit(line, read));
    groups.chain(physical).chain(process).min()
}

/// `MemTotal:  8022580 kB`.
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<usize>().ok()?.checked_mul(1024)
}

/// `Max address space   3072000000   unlimited   bytes`.
fn address_space(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The limit of a group that the process is in, or of a parent group: `0::/path` (version 2), or
/// `4:memory:/path` (version 1).
fn group_limit(line: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<usize> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (root, name) = match controllers {
        "" => (CGROUPS.to_owned(), "memory.max"),
        named if named.split(',').any(|one| one == "memory") => {
            (format!("{CGROUPS}/memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let folder = Path::new(path.trim_start_matches('/'));
    let limit = |folder: &Path| {
        let text = read(&Path::new(&root).join(folder).join(name))?;
        // The value is `max` where there is no limit.
        text.trim().parse().ok()
    };
    folder.ancestors().filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The usable memory on a system with these files.
    fn found(files: &[(&str, &str)]) -> Option<usize> {
        let files: BTreeMap<&str, &str> = files.iter().copied().collect();
        usable(&|path| files.get(path.to_str()?).map(|text| (*text).to_owned()))
    }

    const MEMINFO: (&str, &str) = ("/proc/meminfo", "MemTotal:        8000 kB\nMemFree: 1 kB\n");
    const LIMITS: &str = "/proc/self/limits";
    const GROUPS: &str = "/proc/self/cgroup";

    #[test]
    fn the_least_of_all_memory_limits_is_used() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[MEMINFO]), Some(8_192_000));
        let unlimited =
            "Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(found(&[MEMINFO, (LIMITS, unlimited)]), Some(8_192_000));
        let limited = "Max address space         3072000              unlimited            bytes\n";
        assert_eq!(found(&[MEMINFO, (LIMITS, limited)]), Some(3_072_000));
        let two = [
            MEMINFO,
            (GROUPS, "0::/system.slice/vatn.service\n"),
            ("/sys/fs/cgroup/system.slice/vatn.service/memory.max", "max\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "1000000\n"),
        ];
        assert_eq!(found(&two), Some(1_000_000));
        let one = [
            MEMINFO,
            (GROUPS, "5:cpu,cpuacct:/a\n4:memory:/a\n"),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2000000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/a/memory.limit_in_bytes", "1\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(found(&one), Some(2_000_000));
        // In a container the named group may be invisible, and its files are at the root.
        let root = [MEMINFO, (GROUPS, "0::/\n"), ("/sys/fs/cgroup/memory.max", "3000000\n")];
        assert_eq!(found(&root), Some(3_000_000));
    }

    #[test]
    fn this_machine_has_usable_memory() {
        assert!(default_data_bytes().is_none_or(|bytes| bytes > 1 << 20));
        assert!(share(16, 512 << 20) <= 512 << 20 && share(usize::MAX, 1) <= 1);
    }
}
