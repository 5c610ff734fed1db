//! The process itself: its signals, the limits that the system sets it, who may read its files.

pub mod descriptors;
pub mod limits;
pub mod signals;

use rustix::fs::Mode;

/// Has all files that this process makes be readable by their owner alone, whatever the umask of
/// who started it: 0600, and 0700 for directories.
pub fn make_files_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}
