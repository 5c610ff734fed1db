//! The process itself: its signals, its system limits, and the permissions of its files.

pub mod descriptors;
pub mod limits;
pub mod signals;

use rustix::fs::Mode;

/// Makes all files of this process readable by their owner alone, whatever umask it inherited:
/// 0600, and 0700 for directories.
pub fn make_files_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}
