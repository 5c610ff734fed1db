//! Entries in pages: no allocation and no allocator header for each entry, and overwriting in
//! place.
//!
//! A page holds slots of one size; an emptied page can serve another size. A slot holds one entry:
//!
//! ```text
//! seq u64 | value_len u32 | key_len u16 | flags u8 | [expires_at_ms u64] | key | value
//! ```
//!
//! A large value has its own allocation, which readers share: it leaves the lock without a copy.
//! Its slot holds its number. A handle names a slot in four bytes, so the indexes stay small.

use crate::clock::Millis;
use crate::limits::KEY_BYTES_MAX;
use crate::protocol::{Level, Seq, Shared};

/// Bytes in a page.
const PAGE_BYTES: usize = 1 << 20;
/// How many emptied pages keep their memory for reuse; the memory of others is freed.
const SPARE_PAGES: usize = 8;
/// Slots begin at multiples of this, and a handle counts in it.
const UNIT: usize = 8;
/// The least size of a slot, in units.
pub const SLOT_UNITS_MIN: usize = HEAD.div_ceil(UNIT);
const UNITS_PER_PAGE: usize = PAGE_BYTES / UNIT;
/// The most bytes that header, key and value together take in a slot.
const SLOT_BYTES_MAX: usize = 64 << 10;
/// A longer value has its own allocation, and is shared instead of copied.
pub const INLINE_BYTES_MAX: usize = 4 << 10;
/// About how many bytes an allocation takes besides the value: two counters and the allocator's
/// overhead.
const LARGE_OVERHEAD: usize = 48;
const HEAD: usize = 8 + 4 + 2 + 1;
const CACHE_LINE: usize = 64;
/// The slot's content for a large value: its number.
const LARGE_REFERENCE: usize = 4;

const LEVEL_BITS: u8 = 0b0000_0011;
const PERSISTED: u8 = 0b0000_0100;
const EXPIRES: u8 = 0b0000_1000;
const LARGE: u8 = 0b0001_0000;

/// Names a slot.
pub type Handle = u32;

/// The number of pages that handles can address.
const PAGES_MAX: usize = (1 << Handle::BITS) / UNITS_PER_PAGE;
/// Pages reserved for operations that are no new writes: expiry, rollback and replay. One page more
/// for each class, since even the smallest class begins a page.
const PAGES_LEFT: usize = 1 << 10;
/// The number of pages that new writes may fill.
pub const PAGES_BYTES_MAX: usize = (PAGES_MAX - PAGES_LEFT) * PAGE_BYTES;

/// The facts about an entry besides its key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The seq of the write that made it.
    pub seq: Seq,
    /// When it expires; 0 never.
    pub expires_at: Millis,
    /// The durability that its writer requested.
    pub level: Level,
    /// Whether this value, or an older one of the key, is in the log or the tables.
    pub persisted: bool,
}

/// An entry as stored in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot<'a> {
    /// The facts about the entry.
    pub head: Head,
    /// Its key.
    pub key: &'a [u8],
    /// The bytes of one MessagePack value.
    pub value: &'a [u8],
    /// The allocation of the value, where it has its own.
    pub shared: Option<&'a Shared>,
}

#[derive(Debug, Default)]
struct Page {
    bytes: Box<[u8]>,
    /// The size of its slots; 0 for a free page.
    slot_bytes: usize,
    live: usize,
    /// Slots before this have been used.
    used: usize,
    /// Slots that were used and are free again.
    free: Vec<u16>,
    /// Whether the page is in its class's list of pages with room.
    is_listed: bool,
}

impl Page {
    fn has_room(&self) -> bool {
        !self.free.is_empty() || (self.used + 1) * self.slot_bytes <= PAGE_BYTES
    }
}

/// The pages, and the values with their own allocations.
#[derive(Debug, Default)]
pub struct Arena {
    pages: Vec<Page>,
    free_pages: Vec<usize>,
    /// For each slot size, pages that have room; the list may be stale.
    with_room: Vec<Vec<usize>>,
    large: Vec<Shared>,
    large_bytes: usize,
    /// Bytes of slots that hold an entry.
    slot_bytes: usize,
    free_large: Vec<u32>,
    /// Buffers of emptied pages, kept for reuse.
    spare: Vec<Box<[u8]>>,
    dropped: Vec<Shared>,
}

/// The index and the slot size of the class for `bytes`: steps of 8 up to 1 KiB, then steps of an
/// eighth of the next lower power of two.
fn class(bytes: usize) -> (usize, usize) {
    if bytes <= 1024 {
        let class = bytes.div_ceil(UNIT);
        return (class, class * UNIT);
    }
    let power = (bytes - 1).ilog2() as usize;
    let step = 1 << (power - 3);
    let steps = bytes.div_ceil(step);
    (1024 / UNIT + (power - 10) * 8 + steps - 8, steps * step)
}

impl Arena {
    /// Puts an entry into a slot. A large value that is already `shared` is not copied.
    pub fn insert(
        &mut self,
        head: &Head,
        key: &[u8],
        value: &[u8],
        shared: Option<&Shared>,
    ) -> Handle {
        if value.len() <= INLINE_BYTES_MAX {
            let handle = self.allocate(slot_bytes(head, key, value.len()));
            self.write(handle, head, key, value, None);
            return handle;
        }
        let number = self.keep_large(shared.map_or_else(|| value.into(), Shared::clone));
        self.insert_large(head, key, number, value.len())
    }

    fn insert_large(&mut self, head: &Head, key: &[u8], number: u32, len: usize) -> Handle {
        let handle = self.allocate(slot_bytes(head, key, LARGE_REFERENCE));
        self.write(handle, head, key, &number.to_le_bytes(), Some(len));
        handle
    }

    /// Replaces the head of an entry, and keeps its value. Where the new head has another length,
    /// the entry moves to another slot, which is returned; the caller then [vacates](Self::vacate)
    /// the old one.
    pub fn set_head(&mut self, handle: Handle, head: &Head) -> Option<Handle> {
        let (slot, layout) = self.slot(handle)?;
        let is_large = layout.flags & LARGE != 0;
        let flags = flags(head, is_large);
        if layout.flags & EXPIRES != flags & EXPIRES {
            let key: Box<[u8]> = layout.key(slot)?.into();
            if let Some(number) = self.large_number(handle) {
                return Some(self.insert_large(head, &key, number, layout.value_len));
            }
            let value = slot.get(layout.value_at..layout.value_at + layout.value_len)?.to_vec();
            return Some(self.insert(head, &key, &value, None));
        }
        let page = self.pages.get_mut(page_of(handle))?;
        let slot = page.bytes.get_mut(offset_of(handle)..)?;
        write_head(slot, head, layout.value_len, layout.key_len, flags);
        None
    }

    /// Replaces the head and value of an entry in its slot, if they fit the slot's class.
    pub fn replace(&mut self, handle: Handle, head: &Head, value: &[u8]) -> bool {
        let Some(page) = self.pages.get_mut(page_of(handle)) else { return false };
        let slot_size = page.slot_bytes;
        let Some(slot) = page.bytes.get_mut(offset_of(handle)..offset_of(handle) + slot_size)
        else {
            return false;
        };
        let Some(old) = Layout::read(slot) else { return false };
        let new_flags = flags(head, false);
        let keeps_shape = old.flags & (LARGE | EXPIRES) == new_flags & EXPIRES;
        let bytes = old.value_at + value.len();
        if !keeps_shape || value.len() > INLINE_BYTES_MAX || class(bytes).1 != slot_size {
            return false;
        }
        write_head(slot, head, value.len(), old.key_len, new_flags);
        if let Some(place) = slot.get_mut(old.value_at..bytes) {
            place.copy_from_slice(value);
        }
        true
    }

    /// Frees the slot of an entry, and its value.
    pub fn remove(&mut self, handle: Handle) {
        if let Some(number) = self.large_number(handle) {
            if let Some(large) = self.large.get_mut(number as usize) {
                self.large_bytes -= large.len() + LARGE_OVERHEAD;
                self.dropped.push(std::mem::take(large));
            }
            self.free_large.push(number);
        }
        self.vacate(handle);
    }

    /// Takes the large values removed from the map, to be freed outside the lock: returning pages
    /// to the system takes as long as a copy.
    pub fn take_dropped(&mut self) -> Vec<Shared> {
        std::mem::take(&mut self.dropped)
    }

    /// Frees the slot of an entry, and not its value.
    pub fn vacate(&mut self, handle: Handle) {
        let number = page_of(handle);
        let Some(page) = self.pages.get_mut(number) else { return };
        self.slot_bytes -= page.slot_bytes;
        page.live -= 1;
        if page.live == 0 {
            // If the entry is in a list of pages with room, it is found stale there.
            let emptied = std::mem::take(page);
            if self.spare.len() < SPARE_PAGES {
                self.spare.push(emptied.bytes);
            }
            self.free_pages.push(number);
            return;
        }
        page.free.push((offset_of(handle) / page.slot_bytes) as u16);
        if !page.is_listed {
            page.is_listed = true;
            let class = class(page.slot_bytes).0;
            if let Some(listed) = self.with_room.get_mut(class) {
                listed.push(number);
            }
        }
    }

    /// The entry in a slot.
    pub fn get(&self, handle: Handle) -> Slot<'_> {
        self.find(handle).unwrap_or(Slot { head: EMPTY, key: &[], value: &[], shared: None })
    }

    /// Reads a byte of each of a slot's first cache lines, to load them into the processor's
    /// caches.
    pub fn touch(&self, handle: Handle) -> u8 {
        let Some(page) = self.pages.get(page_of(handle)) else { return 0 };
        let byte = |at: usize| page.bytes.get(offset_of(handle) + at).copied().unwrap_or_default();
        let last = page.slot_bytes.saturating_sub(1).min(2 * CACHE_LINE);
        byte(0).wrapping_add(byte(CACHE_LINE)).wrapping_add(byte(last))
    }

    /// The key in a slot.
    #[inline]
    pub fn key(&self, handle: Handle) -> &[u8] {
        let key = self.slot(handle).and_then(|(slot, layout)| layout.key(slot));
        key.unwrap_or_default()
    }

    /// The bytes of pages and large values.
    pub fn bytes(&self) -> usize {
        let pages = self.pages.len() - self.free_pages.len();
        pages * PAGE_BYTES + self.large_bytes
    }

    /// The bytes of entries, without the free slots of pages.
    pub fn held_bytes(&self) -> usize {
        self.slot_bytes + self.large_bytes
    }

    /// Whether entries of `bytes` bytes fit, whatever their sizes.
    pub fn has_room(&self, bytes: usize) -> bool {
        let pages = self.pages.len() - self.free_pages.len();
        // A slot is up to an eighth larger than its content, and the end of a page may be unused.
        pages + PAGES_LEFT + bytes.div_ceil(PAGE_BYTES) * 2 <= PAGES_MAX
    }

    #[inline]
    fn slot(&self, handle: Handle) -> Option<(&[u8], Layout)> {
        let page = self.pages.get(page_of(handle))?;
        let slot = page.bytes.get(offset_of(handle)..)?;
        Some((slot, Layout::read(slot)?))
    }

    fn find(&self, handle: Handle) -> Option<Slot<'_>> {
        let (slot, layout) = self.slot(handle)?;
        let key = layout.key(slot)?;
        let (value, shared) = if layout.flags & LARGE == 0 {
            (slot.get(layout.value_at..layout.value_at + layout.value_len)?, None)
        } else {
            let shared = self.large.get(self.large_number(handle)? as usize)?;
            (&**shared, Some(shared))
        };
        Some(Slot { head: layout.head(slot), key, value, shared })
    }

    fn large_number(&self, handle: Handle) -> Option<u32> {
        let (slot, layout) = self.slot(handle)?;
        let is_large = layout.flags & LARGE != 0;
        let number = slot.get(layout.value_at..)?.first_chunk::<LARGE_REFERENCE>()?;
        is_large.then(|| u32::from_le_bytes(*number))
    }

    fn keep_large(&mut self, value: Shared) -> u32 {
        let number = self.free_large.pop().unwrap_or_else(|| {
            self.large.push(Shared::default());
            (self.large.len() - 1) as u32
        });
        self.large_bytes += value.len() + LARGE_OVERHEAD;
        if let Some(place) = self.large.get_mut(number as usize) {
            *place = value;
        }
        number
    }

    fn write(
        &mut self,
        handle: Handle,
        head: &Head,
        key: &[u8],
        held: &[u8],
        large: Option<usize>,
    ) {
        let Some(page) = self.pages.get_mut(page_of(handle)) else { return };
        let Some(slot) = page.bytes.get_mut(offset_of(handle)..) else { return };
        let flags = flags(head, large.is_some());
        write_head(slot, head, large.unwrap_or(held.len()), key.len(), flags);
        let key_at = HEAD + expiry_bytes(flags);
        let value_at = key_at + key.len();
        if let Some(place) = slot.get_mut(key_at..value_at) {
            place.copy_from_slice(key);
        }
        if let Some(place) = slot.get_mut(value_at..value_at + held.len()) {
            place.copy_from_slice(held);
        }
    }

    /// Allocates a slot of at least `bytes` bytes.
    fn allocate(&mut self, bytes: usize) -> Handle {
        let (class, slot_bytes) = class(bytes);
        if self.with_room.len() <= class {
            self.with_room.resize_with(class + 1, Vec::new);
        }
        let number = self.page_with_room(class, slot_bytes);
        let Some(page) = self.pages.get_mut(number) else { return 0 };
        let slot = page.free.pop().map_or_else(
            || {
                page.used += 1;
                page.used - 1
            },
            usize::from,
        );
        page.live += 1;
        self.slot_bytes += slot_bytes;
        (number * UNITS_PER_PAGE + slot * slot_bytes / UNIT) as Handle
    }

    fn page_with_room(&mut self, class: usize, slot_bytes: usize) -> usize {
        let listed = self.with_room.get_mut(class);
        if let Some(listed) = listed {
            while let Some(number) = listed.last().copied() {
                let page = self.pages.get_mut(number).filter(|page| page.slot_bytes == slot_bytes);
                match page {
                    Some(page) if page.has_room() => return number,
                    Some(page) => page.is_listed = false,
                    None => {}
                }
                listed.pop();
            }
        }
        let number = self.free_pages.pop().unwrap_or_else(|| {
            // Its handles would repeat those of the first page.
            assert!(self.pages.len() < PAGES_MAX, "the map has no further page");
            self.pages.push(Page::default());
            self.pages.len() - 1
        });
        let spare = self.spare.pop();
        let bytes = spare.unwrap_or_else(|| vec![0; PAGE_BYTES].into_boxed_slice());
        if let Some(page) = self.pages.get_mut(number) {
            *page = Page { bytes, slot_bytes, is_listed: true, ..Page::default() };
        }
        if let Some(listed) = self.with_room.get_mut(class) {
            listed.push(number);
        }
        number
    }
}

const EMPTY: Head = Head { seq: 0, expires_at: 0, level: Level::Memory, persisted: false };

fn page_of(handle: Handle) -> usize {
    handle as usize / UNITS_PER_PAGE
}

fn offset_of(handle: Handle) -> usize {
    handle as usize % UNITS_PER_PAGE * UNIT
}

fn expiry_bytes(flags: u8) -> usize {
    if flags & EXPIRES == 0 { 0 } else { 8 }
}

fn slot_bytes(head: &Head, key: &[u8], held: usize) -> usize {
    HEAD + expiry_bytes(flags(head, false)) + key.len() + held
}

fn flags(head: &Head, is_large: bool) -> u8 {
    let persisted = if head.persisted { PERSISTED } else { 0 };
    let expires = if head.expires_at == 0 { 0 } else { EXPIRES };
    head.level as u8 | persisted | expires | if is_large { LARGE } else { 0 }
}

fn write_head(slot: &mut [u8], head: &Head, value_len: usize, key_len: usize, flags: u8) {
    let mut bytes = [0; HEAD + 8];
    bytes[..8].copy_from_slice(&head.seq.to_le_bytes());
    bytes[8..12].copy_from_slice(&(value_len as u32).to_le_bytes());
    bytes[12..14].copy_from_slice(&(key_len as u16).to_le_bytes());
    bytes[14] = flags;
    bytes[HEAD..].copy_from_slice(&head.expires_at.to_le_bytes());
    let len = HEAD + expiry_bytes(flags);
    if let (Some(place), Some(bytes)) = (slot.get_mut(..len), bytes.get(..len)) {
        place.copy_from_slice(bytes);
    }
}

/// The layout of a slot.
#[derive(Debug, Clone, Copy)]
struct Layout {
    seq: Seq,
    value_len: usize,
    key_len: usize,
    flags: u8,
    key_at: usize,
    value_at: usize,
}

impl Layout {
    #[inline]
    fn read(slot: &[u8]) -> Option<Self> {
        let head = slot.first_chunk::<HEAD>()?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, v0, v1, v2, v3, k0, k1, flags] = *head;
        let key_len = usize::from(u16::from_le_bytes([k0, k1]));
        let key_at = HEAD + expiry_bytes(flags);
        Some(Self {
            seq: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            value_len: u32::from_le_bytes([v0, v1, v2, v3]) as usize,
            key_len,
            flags,
            key_at,
            value_at: key_at + key_len,
        })
    }

    #[inline]
    fn key<'s>(&self, slot: &'s [u8]) -> Option<&'s [u8]> {
        slot.get(self.key_at..self.value_at)
    }

    fn head(&self, slot: &[u8]) -> Head {
        let expires_at = match self.flags & EXPIRES {
            0 => 0,
            _ => {
                slot.get(HEAD..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_le_bytes(*b))
            }
        };
        let level = Level::from_byte(self.flags & LEVEL_BITS).unwrap_or_default();
        Head { seq: self.seq, expires_at, level, persisted: self.flags & PERSISTED != 0 }
    }
}

const _: () = assert!(PAGE_BYTES / UNIT <= 1 << 17 && PAGE_BYTES / (2 * UNIT) <= 1 << 16);
const _: () = assert!(SLOT_BYTES_MAX <= PAGE_BYTES);
const _: () = assert!(HEAD + 8 + KEY_BYTES_MAX + INLINE_BYTES_MAX <= SLOT_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: Seq, expires_at: Millis) -> Head {
        Head { seq, expires_at, level: Level::Stored, persisted: true }
    }

    #[test]
    fn every_size_belongs_to_exactly_one_class_that_fits_it() {
        let mut last = (0, 0);
        for bytes in 1..=SLOT_BYTES_MAX {
            let (number, size) = class(bytes);
            assert!(size >= bytes && size <= bytes + bytes / 8 + UNIT, "{bytes}: {size}");
            assert_eq!(size % UNIT, 0);
            assert_eq!(class(size), (number, size));
            assert!(number == last.0 && size == last.1 || number == last.0 + 1 && size > last.1);
            last = (number, size);
        }
    }

    #[test]
    fn entries_of_all_sizes_are_read_back_and_removed_completely() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut arena = Arena::default();
        let mut held = Vec::new();
        for seq in 1..=3_000 {
            let key = vec![seq as u8; random.usize(0..300)];
            let most = 1 << random.usize(1..19);
            let value = vec![!(seq as u8); random.usize(0..most)];
            let head = head(seq, if random.bool() { seq * 10 } else { 0 });
            held.push((arena.insert(&head, &key, &value, None), head, key, value));
            if random.u8(..3) == 0 {
                let (handle, ..) = held.swap_remove(random.usize(..held.len()));
                arena.remove(handle);
            }
            if let Some((handle, head, key, value)) = held.last_mut()
                && random.bool()
            {
                value.iter_mut().for_each(|byte| *byte ^= 0x55);
                head.seq += 100_000;
                let is_large = value.len() > INLINE_BYTES_MAX;
                assert!(is_large || arena.replace(*handle, head, value), "{}", key.len());
                if is_large {
                    arena.remove(*handle);
                    *handle = arena.insert(head, key, value, None);
                }
                head.expires_at = if random.bool() { 7 } else { 0 };
                if let Some(moved) = arena.set_head(*handle, head) {
                    arena.vacate(std::mem::replace(handle, moved));
                }
            }
        }
        for (handle, head, key, value) in &held {
            let slot = arena.get(*handle);
            assert_eq!((slot.head, slot.key, slot.value), (*head, &key[..], &value[..]));
            assert_eq!(slot.shared.is_some(), value.len() > INLINE_BYTES_MAX);
        }
        assert!(arena.held_bytes() > 0 && arena.held_bytes() <= arena.bytes());
        for (handle, ..) in held {
            arena.remove(handle);
        }
        assert_eq!((arena.bytes(), arena.held_bytes()), (0, 0));
    }

    /// An arena of `count` pages, without their bytes.
    fn of_pages(count: usize) -> Arena {
        let pages = (0..count).map(|_| Page { live: 1, ..Page::default() }).collect();
        Arena { pages, ..Arena::default() }
    }

    #[test]
    fn the_arena_is_full_before_the_handles_run_out() {
        assert!(of_pages(PAGES_MAX - PAGES_LEFT - 2).has_room(PAGE_BYTES));
        assert!(!of_pages(PAGES_MAX - PAGES_LEFT - 2).has_room(PAGE_BYTES + 1));
        assert!(!of_pages(0).has_room(usize::MAX));
        let mut last = of_pages(PAGES_MAX - 1);
        let handle = last.insert(&head(1, 0), b"key", b"value", None);
        assert_eq!(page_of(handle), PAGES_MAX - 1);
        assert_eq!(last.get(handle).value, b"value");
    }

    #[test]
    #[should_panic = "no further page"]
    fn no_two_pages_share_a_handle() {
        of_pages(PAGES_MAX).insert(&head(1, 0), b"key", b"value", None);
    }
}
