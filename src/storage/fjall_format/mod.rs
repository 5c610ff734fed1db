//! fjall's private file formats, as far as vatn reads them: only this module knows their bytes.
//!
//! fjall opens a damaged database without an error, and changes what it opens. So a check, a repair
//! and each start read the files first. That needs three things which fjall does not offer: to open
//! a database read-only, to verify every checksum, and to read the rows of a damaged table block by
//! block. With them upstream, this module can be removed.
//!
//! The formats are those of the versions below. A test fails when Cargo.lock has other versions:
//! then read their changes, run `cargo test --test store_files`, and write the new numbers here.

pub(super) mod batches;
pub(super) mod journal;
pub mod rows;
pub mod sorted;
pub(super) mod tree;

/// The crates that write these files, with the versions that were studied.
#[cfg(test)]
const VERSIONS: [(&str, &str); 2] = [("fjall", "3.1.13"), ("lsm-tree", "3.1.10")];

/// A file that every fjall database has.
pub(super) const MARKER: &str = "version";
pub(super) const MARK: &[u8] = b"FJL\x03";
pub(super) const LOCK: &str = "lock";
pub(super) const TREES: &str = "keyspaces";
/// fjall's own list of the trees.
pub(super) const LIST_OF_TREES: &str = "0";

/// The damage known before rows are read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Damage {
    /// A file with data is damaged, so lists of files are not trusted.
    pub is_any: bool,
    /// A journal is damaged.
    pub is_in_journals: bool,
    /// The note of an orderly close exists: the tables have all rows of the journals.
    pub was_closed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fjall_has_the_versions_whose_formats_were_studied() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
        let lock = std::fs::read_to_string(path).unwrap();
        for (name, version) in VERSIONS {
            let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(lock.contains(&entry), "{name} is not {version}: see the head of this file");
        }
    }
}
