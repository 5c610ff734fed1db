//! The rows of fjall's trees, read from the files without opening the database: nothing is changed.
//!
//! A tree consists of its table files and its rows in the journals. Of each key the version with
//! the greatest number counts. A damaged database is read as far as possible. A damaged block loses
//! only its own rows. A file whose list is missing is identified by its checksum in another list,
//! or by its directory.

use super::batches::{self, Journaled};
use super::sorted::{Gap, Item, TableFile, highest_seqno};
use super::tree::{self, Listed};
use super::{Damage, TREES, journal};
use crate::storage::file_fault::names;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// A version of a row, with its number; `None` as value for a deleted row.
type Version = (u64, Option<Vec<u8>>);

/// Receives a row with its key; returns whether to continue.
pub type EachRow<'e> = dyn FnMut(FoundRow<'_>) -> bool + 'e;

/// A row that was read.
#[derive(Debug, Clone, Copy)]
pub struct FoundRow<'r> {
    /// Its key.
    pub key: &'r [u8],
    /// Its value.
    pub value: &'r [u8],
    /// Whether a newer version may be in an unreadable part.
    pub may_be_old: bool,
}

/// The rows of one tree.
#[derive(Debug, Default)]
pub struct Tree {
    tables: Vec<Table>,
    /// Rows that are only in the journals.
    newer: BTreeMap<Vec<u8>, Version>,
    /// Journal rows that a table file should have too.
    older: BTreeMap<Vec<u8>, Version>,
    /// Whether a file of the tree is missing, with an unknown set of rows.
    lacks_table: bool,
}

#[derive(Debug)]
struct Table {
    path: PathBuf,
    /// The offset added to the number of each item.
    seqno: u64,
}

/// A table file being read.
struct Source {
    file: TableFile,
    seqno: u64,
    next: Option<Item>,
}

impl Source {
    fn advance(&mut self) -> io::Result<()> {
        self.next = self.file.next()?;
        Ok(())
    }
}

impl Tree {
    /// Passes the rows from `from` on to `each`, in key order, until `each` returns false. Returns
    /// the gaps in which rows may be missing.
    pub fn scan(&self, from: &[u8], each: &mut EachRow<'_>) -> io::Result<Vec<Gap>> {
        let mut sources = Vec::new();
        for table in &self.tables {
            let mut source =
                Source { file: TableFile::open(&table.path)?, seqno: table.seqno, next: None };
            source.advance()?;
            sources.push(source);
        }
        let mut newer = self.newer.iter().peekable();
        let mut older = self.older.iter().peekable();
        loop {
            let keys = sources.iter().filter_map(|source| source.next.as_ref().map(|i| &i.key));
            let keys = keys.chain(newer.peek().map(|row| row.0)).chain(older.peek().map(|r| r.0));
            let Some(key) = keys.min().cloned() else { break };
            let newest = newer.next_if(|row| *row.0 == key).map(|row| row.1.clone());
            let old = older.next_if(|row| *row.0 == key).map(|row| row.1.clone());
            let (mut best, mut has_gap) = (None, self.lacks_table);
            for source in &mut sources {
                while source.next.as_ref().is_some_and(|item| item.key == key) {
                    let item =
                        source.next.take().map(|item| (source.seqno + item.seqno, item.value));
                    best = later(best, item);
                    source.advance()?;
                }
                has_gap |= source.file.gaps.iter().any(|gap| gap.covers(&key));
            }
            let may_be_old = has_gap && newest.is_none();
            let best = later(later(best, newest), old.filter(|_| may_be_old));
            if let Some((_, Some(value))) = best.filter(|_| key.as_slice() >= from)
                && !each(FoundRow { key: &key, value: &value, may_be_old })
            {
                break;
            }
        }
        let mut gaps: Vec<Gap> = sources.into_iter().flat_map(|source| source.file.gaps).collect();
        gaps.extend(self.lacks_table.then(Gap::default));
        Ok(gaps)
    }

    fn journaled(&mut self, row: Journaled, persisted: Option<u64>) {
        let rows = match persisted.is_some_and(|persisted| row.seqno <= persisted) {
            true => &mut self.older,
            false => &mut self.newer,
        };
        let newest = later(rows.remove(&row.key), Some((row.seqno, row.value)));
        rows.extend(newest.map(|newest| (row.key, newest)));
    }

    /// The key of its first row.
    fn first_key(&self) -> io::Result<Option<Vec<u8>>> {
        let mut first = None;
        self.scan(&[], &mut |row| {
            first = Some(row.key.to_vec());
            false
        })?;
        Ok(first)
    }
}

fn later(one: Option<Version>, other: Option<Version>) -> Option<Version> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.0 > one.0 { other } else { one }),
        (one, other) => one.or(other),
    }
}

/// All trees of a database.
#[derive(Debug, Default)]
pub struct Trees {
    trees: BTreeMap<u64, Tree>,
    names: BTreeMap<u64, String>,
}

impl Trees {
    /// Finds the trees of the database at `path`. A damaged database is searched for everything
    /// readable.
    pub fn find(path: &Path, damage: Damage) -> io::Result<Self> {
        let is_damaged = damage.is_any;
        let mut found = Self::default();
        let folder = path.join(TREES);
        let ids = names(&folder)?.into_iter().filter_map(|name| name.parse().ok());
        let ids: Vec<u64> = ids.filter(|id: &u64| folder.join(id.to_string()).is_dir()).collect();
        let tables = match is_damaged {
            true => salvaged(path, &ids)?,
            false => listed(path, &ids)?,
        };
        found.trees.extend(tables);
        let mut persisted = BTreeMap::new();
        for (id, tree) in &found.trees {
            let mut highest = None;
            for table in &tree.tables {
                highest = highest.max(highest_seqno(&table.path)?.map(|seqno| seqno + table.seqno));
            }
            persisted.insert(*id, highest);
        }
        for name in journal::list(path)? {
            batches::read(&path.join(name), is_damaged, &mut |row| {
                let persisted = persisted.get(&row.tree).copied().flatten();
                found.trees.entry(row.tree).or_default().journaled(row, persisted);
            })?;
        }
        let is_settled =
            damage.was_closed && found.trees.values().all(|tree| tree.newer.is_empty());
        if damage.is_in_journals && !is_settled {
            found.trees.values_mut().for_each(|tree| tree.lacks_table = true);
        }
        found.read_names()?;
        Ok(found)
    }

    /// The list of the trees is itself a tree.
    fn read_names(&mut self) -> io::Result<()> {
        let Some(list) = self.trees.get(&0) else { return Ok(()) };
        let mut names = BTreeMap::new();
        list.scan(&[], &mut |row| {
            let id = row.key.strip_prefix(b"n").and_then(|id| id.try_into().ok());
            if let (Some(id), Ok(name)) = (id, std::str::from_utf8(row.value)) {
                names.insert(u64::from_be_bytes(id), name.to_owned());
            }
            true
        })?;
        self.names = names;
        Ok(())
    }

    /// Takes the tree with this name; where no list names the trees, an unnamed one whose first key
    /// satisfies `begins`.
    pub fn take(&mut self, name: &str, begins: &dyn Fn(&[u8]) -> bool) -> io::Result<Option<Tree>> {
        let mut named = self.names.iter().filter(|(_, found)| *found == name).map(|(id, _)| *id);
        if let Some(id) = named.next_back() {
            return Ok(self.trees.remove(&id));
        }
        let mut fitting = None;
        for (id, tree) in self.trees.iter().filter(|(id, _)| **id > 0) {
            let is_free = !self.names.contains_key(id);
            if is_free && fitting.is_none() && tree.first_key()?.is_some_and(|key| begins(&key)) {
                fitting = Some(*id);
            }
        }
        Ok(fitting.and_then(|id| self.trees.remove(&id)))
    }
}

/// The trees that fjall's list of them names.
pub(in crate::storage) fn named_trees(path: &Path) -> io::Result<Vec<u64>> {
    let mut list = Trees { trees: listed(path, &[0])?, ..Trees::default() };
    // A missing file is reported elsewhere.
    match list.read_names() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map(|()| list.names.into_keys().collect()),
    }
}

fn tables_of(id: u64) -> PathBuf {
    Path::new(TREES).join(id.to_string()).join(tree::TABLES)
}

/// The table files named by the lists.
fn listed(path: &Path, ids: &[u64]) -> io::Result<BTreeMap<u64, Tree>> {
    let mut trees = BTreeMap::new();
    for id in ids {
        let name = Path::new(TREES).join(id.to_string());
        let listed = tree::list(path, &name)?.ok().flatten().unwrap_or_default().into_iter();
        let folder = path.join(tables_of(*id));
        let table = |listed: Listed| Table {
            path: folder.join(listed.id.to_string()),
            seqno: listed.seqno,
        };
        trees.insert(*id, Tree { tables: listed.map(table).collect(), ..Tree::default() });
    }
    Ok(trees)
}

/// All table files found, whatever the lists say.
fn salvaged(path: &Path, ids: &[u64]) -> io::Result<BTreeMap<u64, Tree>> {
    let mut trees = BTreeMap::<u64, Tree>::new();
    let (mut known, mut missing, mut whole) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for id in ids {
        trees.entry(*id).or_default();
        let name = Path::new(TREES).join(id.to_string());
        let list = tree::list(path, &name)?;
        whole.insert(*id, list.is_ok());
        let lists = match list {
            Ok(list) => list.unwrap_or_default(),
            Err(_) => tree::any_lists(&path.join(&name))?,
        };
        for listed in lists {
            known.insert(listed.checksum, (*id, listed));
            missing.push((*id, listed));
        }
    }
    for id in ids {
        let folder = path.join(tables_of(*id));
        let mut highest = 0;
        let mut files: Vec<u64> =
            names(&folder)?.into_iter().filter_map(|name| name.parse().ok()).collect();
        files.sort_unstable();
        for file in files {
            let at = folder.join(file.to_string());
            let by_sum = known.get(&tree::hash(&at, &mut |_| {})?).copied();
            let by_name = missing.iter().find(|(tree, l)| tree == id && l.id == file).copied();
            let is_listed = by_sum.or(by_name);
            let own = highest_seqno(&at)?.unwrap_or(0);
            // A file in no list is a leftover, unless the list is damaged. A file whose items have
            // no numbers of their own is newer than the listed ones.
            let seqno = match is_listed {
                Some((_, listed)) => listed.seqno,
                None if whole.get(id) == Some(&true) => continue,
                None if own == 0 => highest,
                None => 0,
            };
            highest = highest.max(seqno + own);
            let (tree, found) = is_listed.map_or((*id, file), |(tree, listed)| (tree, listed.id));
            missing.retain(|(tree_id, listed)| (*tree_id, listed.id) != (tree, found));
            trees.entry(tree).or_default().tables.push(Table { path: at, seqno });
        }
    }
    for (id, _) in missing {
        trees.entry(id).or_default().lacks_table |= whole.get(&id) == Some(&true);
    }
    Ok(trees)
}
