//! Holes in the history: ranges of seqs whose records were lost with damaged files. A repair notes
//! them, so that a reader of the history learns where records are missing.

use super::tables::meta;
use crate::protocol::Seq;
use crate::storage::{Row, Space, Storage, StorageError};

/// A range of lost seqs, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The first missing seq.
    pub first: Seq,
    /// The last missing seq.
    pub last: Seq,
}

impl Hole {
    /// The row that notes the hole.
    pub fn row(&self) -> Row<'static> {
        let key = [meta::HOLE.as_bytes(), &self.first.to_be_bytes()].concat();
        Row { space: Space::Meta, key, value: Some(self.last.to_le_bytes().to_vec().into()) }
    }

    /// Reads all noted holes, in order.
    pub fn read_all(disk: &dyn Storage) -> Result<Vec<Self>, StorageError> {
        let (prefix, mut found) = (meta::HOLE.as_bytes(), Vec::new());
        disk.scan(Space::Meta, prefix, &mut |key, value| {
            let first = key.strip_prefix(prefix).and_then(|first| first.try_into().ok());
            let (Some(first), Ok(last)) = (first.map(Seq::from_be_bytes), value.try_into()) else {
                return key.starts_with(prefix);
            };
            found.push(Self { first, last: Seq::from_le_bytes(last) });
            true
        })?;
        Ok(found)
    }
}

/// The next hole after `after`, with or without records before the hole.
pub fn next(holes: &[Hole], after: Seq) -> Option<Hole> {
    holes.iter().find(|hole| hole.last > after).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Durability, MemoryStorage};

    #[test]
    fn holes_are_read_back_in_order() {
        let disk = MemoryStorage::default();
        let holes = [Hole { first: 300, last: 400 }, Hole { first: 5, last: 9 }];
        disk.commit(holes.iter().map(Hole::row).collect(), Durability::Fsynced).unwrap();
        let read = Hole::read_all(&disk).unwrap();
        assert_eq!(read, [holes[1], holes[0]]);
        assert_eq!((next(&read, 4), next(&read, 8)), (Some(holes[1]), Some(holes[1])));
        assert_eq!((next(&read, 9), next(&read, 400)), (Some(holes[0]), None));
    }
}
