//! fjall's private files, as far as vatn reads them itself: the only room that knows their bytes.
//!
//! fjall opens a damaged database as if nothing were wrong, and changes what it opens. So a check,
//! a repair and each start read the files first. That needs three things that fjall does not
//! offer: to open a database read-only, to verify every checksum, and to read the rows of a
//! damaged table block by block. With them upstream, this room can go.
//!
//! The formats are those of the versions below. A test fails when Cargo.lock has others: read their
//! changes, run `cargo test --test store_files`, and write the new numbers here.

pub(super) mod batches;
pub(super) mod journal;
pub mod rows;
pub mod sorted;
pub(super) mod tree;

/// The crates whose files these are, with the versions that were read.
#[cfg(test)]
const VERSIONS: [(&str, &str); 2] = [("fjall", "3.1.13"), ("lsm-tree", "3.1.10")];

/// The file that every store of fjall's has.
pub(super) const MARKER: &str = "version";
pub(super) const MARK: &[u8] = b"FJL\x03";
pub(super) const LOCK: &str = "lock";
pub(super) const TREES: &str = "keyspaces";
/// fjall's own list of the trees.
pub(super) const LIST_OF_TREES: &str = "0";

/// What is known of damage before rows are read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Damage {
    /// A file with data is damaged, so lists of files are not believed.
    pub is_any: bool,
    /// A journal is damaged.
    pub is_in_journals: bool,
    /// An orderly end left its note: the tables have what the journals had.
    pub was_closed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_of_fjall_are_those_whose_files_were_read() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
        let lock = std::fs::read_to_string(path).unwrap();
        for (name, version) in VERSIONS {
            let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(lock.contains(&entry), "{name} is not {version}: see the head of this file");
        }
    }
}
