//! The commands, one family a file: what a client may ask, decoded and checked.

pub mod batch;
pub mod changes;
pub mod delete;
pub mod delete_range;
pub mod get;
pub mod incr;
pub mod range;
pub mod server;
pub mod set;
pub mod touch;

pub use batch::Batch;
pub use changes::{Changes, Wait};
pub use delete::{Delete, DeleteMulti};
pub use delete_range::DeleteRange;
pub use get::{Get, GetMulti};
pub use incr::Incr;
pub use range::{Count, Range};
pub use server::{Hello, Ping};
pub use set::{Set, SetMulti};
pub use touch::Touch;

use super::level::Level;
use super::params::Params;
use super::refusal::{self, Code, Refusal};
use crate::budget::Cost;

/// Every method, as `proto/commands.json` lists them.
pub const METHODS: [&str; 20] = [
    "hello",
    "ping",
    "get",
    "get_multi",
    "set",
    "set_multi",
    "delete",
    "delete_multi",
    "delete_range",
    "incr",
    "decr",
    "touch",
    "range",
    "count",
    "batch",
    "flush",
    "wait",
    "changes",
    "compact",
    "stats",
];

/// One decoded command. Keys and values borrow from the request's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// Who the client is; answered with who the broker is.
    Hello(Hello),
    /// Answered with its payload.
    Ping(Ping<'a>),
    /// Reads one key.
    Get(Get<'a>),
    /// Reads several keys.
    GetMulti(GetMulti<'a>),
    /// Writes one key.
    Set(Set<'a>),
    /// Writes several keys, all or none.
    SetMulti(SetMulti<'a>),
    /// Deletes one key.
    Delete(Delete<'a>),
    /// Deletes several keys, all or none.
    DeleteMulti(DeleteMulti<'a>),
    /// Deletes the keys of a range, a page at a time.
    DeleteRange(DeleteRange<'a>),
    /// `incr` and `decr`.
    Incr(Incr<'a>),
    /// Sets or removes a key's time to live.
    Touch(Touch<'a>),
    /// Reads keys in order.
    Range(Range<'a>),
    /// Counts keys.
    Count(Count<'a>),
    /// Several commands, all or none.
    Batch(Batch<'a>),
    /// Waits until all that was written is in the tables and fsynced.
    Flush,
    /// Waits until a seq has reached a level.
    Wait(Wait),
    /// Reads the history.
    Changes(Changes<'a>),
    /// Asks for the tables to be compacted.
    Compact,
    /// How the broker is doing.
    Stats,
}

/// How much room in the write queue a command may need: an upper bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// Changes.
    pub items: usize,
    /// Bytes of keys and values, with what a log entry adds to them.
    pub bytes: usize,
}

/// What a log entry takes besides its key and value, in bytes; an upper bound.
pub const ENTRY_OVERHEAD: usize = 48;

/// What a change may take besides, where a write is measured against what it may hold: a request
/// that fits into one message is never refused for what the log adds to it.
const CHANGE_ALLOWANCE: usize = 2 * ENTRY_OVERHEAD;

/// What an answer about the broker itself costs, in place of entries.
const STATUS_COST: Cost = Cost::new(16, 2 << 10);

impl Weight {
    /// The weight of one change.
    pub fn of(key: &[u8], value: &[u8]) -> Self {
        Self { items: 1, bytes: key.len() + value.len() + ENTRY_OVERHEAD }
    }

    /// The weight with `prefix` before each key.
    #[must_use]
    fn with_prefix(self, prefix: &[u8]) -> Self {
        Self { bytes: self.bytes + self.items * prefix.len(), ..self }
    }

    /// Whether keys and values take more than `bytes_max`.
    pub fn is_over(self, bytes_max: usize) -> bool {
        self.bytes > bytes_max.saturating_add(self.items.saturating_mul(CHANGE_ALLOWANCE))
    }

    /// The weight of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { items: self.items + other.items, bytes: self.bytes + other.bytes }
    }
}

impl<'a> Command<'a> {
    /// Decodes the params of `method`, all of them: each `decode` sees to it that none is left,
    /// most by reading the options.
    pub fn decode(method: &[u8], params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
        match method {
            b"get" => Get::decode(params).map(Self::Get),
            b"set" => Set::decode(params).map(Self::Set),
            b"get_multi" => GetMulti::decode(params).map(Self::GetMulti),
            b"set_multi" => SetMulti::decode(params).map(Self::SetMulti),
            b"delete" => Delete::decode(params).map(Self::Delete),
            b"delete_multi" => DeleteMulti::decode(params).map(Self::DeleteMulti),
            b"delete_range" => DeleteRange::decode(params).map(Self::DeleteRange),
            b"incr" => Incr::decode(params, false).map(Self::Incr),
            b"decr" => Incr::decode(params, true).map(Self::Incr),
            b"touch" => Touch::decode(params).map(Self::Touch),
            b"range" => Range::decode(params).map(Self::Range),
            b"count" => Count::decode(params).map(Self::Count),
            _ if params.in_batch() => Err(not_in_batch(method)),
            b"batch" => Batch::decode(params).map(Self::Batch),
            b"hello" => Hello::decode(params).map(Self::Hello),
            b"ping" => Ping::decode(params).map(Self::Ping),
            b"flush" => params.options(&[], |_, _| Ok(())).map(|()| Self::Flush),
            b"compact" => params.options(&[], |_, _| Ok(())).map(|()| Self::Compact),
            b"stats" => params.options(&[], |_, _| Ok(())).map(|()| Self::Stats),
            b"wait" => Wait::decode(params).map(Self::Wait),
            b"changes" => Changes::decode(params).map(Self::Changes),
            _ => Err(unknown(method)),
        }
    }

    /// The method's name on the wire.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Ping(_) => "ping",
            Self::Get(_) => "get",
            Self::GetMulti(_) => "get_multi",
            Self::Set(_) => "set",
            Self::SetMulti(_) => "set_multi",
            Self::Delete(_) => "delete",
            Self::DeleteMulti(_) => "delete_multi",
            Self::DeleteRange(_) => "delete_range",
            Self::Incr(incr) if incr.down => "decr",
            Self::Incr(_) => "incr",
            Self::Touch(_) => "touch",
            Self::Range(_) => "range",
            Self::Count(_) => "count",
            Self::Batch(_) => "batch",
            Self::Flush => "flush",
            Self::Wait(_) => "wait",
            Self::Changes(_) => "changes",
            Self::Compact => "compact",
            Self::Stats => "stats",
        }
    }

    /// Whether the command may change the map.
    pub fn may_write(&self) -> bool {
        match self {
            Self::Batch(batch) => batch.commands.iter().any(Self::may_write),
            Self::Set(_)
            | Self::SetMulti(_)
            | Self::Delete(_)
            | Self::DeleteMulti(_)
            | Self::DeleteRange(_)
            | Self::Incr(_)
            | Self::Touch(_) => true,
            Self::Hello(_)
            | Self::Ping(_)
            | Self::Get(_)
            | Self::GetMulti(_)
            | Self::Range(_)
            | Self::Count(_)
            | Self::Flush
            | Self::Wait(_)
            | Self::Changes(_)
            | Self::Compact
            | Self::Stats => false,
        }
    }

    /// Whether the command may add something to the map.
    pub fn may_add(&self) -> bool {
        match self {
            Self::Delete(_) | Self::DeleteMulti(_) | Self::DeleteRange(_) => false,
            Self::Batch(batch) => batch.commands.iter().any(Self::may_add),
            _ => self.may_write(),
        }
    }

    /// The room that the command may need in the write queue; `None` for one that writes nothing.
    pub fn weight(&self) -> Option<Weight> {
        match self {
            Self::Set(set) => Some(Weight::of(&set.key, set.value)),
            Self::SetMulti(set) => Some(set.weight()),
            Self::Delete(delete) => Some(Weight::of(&delete.key, &[])),
            Self::DeleteMulti(delete) => Some(delete.weight()),
            Self::DeleteRange(delete) => Some(delete.weight()),
            Self::Incr(incr) => Some(Weight::of(&incr.key, &[0; 9])),
            Self::Touch(touch) => Some(touch.weight()),
            Self::Batch(batch) => batch.weight(),
            _ => None,
        }
    }

    /// Whether a notification of the command would do nothing at all.
    pub fn only_answers(&self) -> bool {
        !self.may_write() && !matches!(self, Self::Flush)
    }

    /// Whether it passes over entries in their order, those that have expired unseen included.
    pub fn walks(&self) -> bool {
        match self {
            Self::Range(_) | Self::Count(_) => true,
            Self::Batch(batch) => batch.commands.iter().any(Self::walks),
            _ => false,
        }
    }

    /// What the command costs, as far as it is known before it runs: its keys and pairs, and copies
    /// of what it brings.
    pub fn cost(&self) -> Cost {
        match self {
            Self::Set(set) => Cost::new(1, 2 * (set.key.len() + set.value.len())),
            Self::GetMulti(get) => Cost::new(get.keys.len(), 0),
            Self::SetMulti(set) => Cost::new(set.pairs.len(), 2 * set.weight().bytes),
            Self::DeleteMulti(delete) => Cost::new(delete.keys.len(), delete.weight().bytes),
            Self::DeleteRange(delete) => Cost::new(delete.limit.unwrap_or(usize::MAX), 0),
            Self::Batch(batch) => {
                let own = Cost::new(1 + batch.commands.len(), 0);
                batch.commands.iter().map(Self::cost).fold(own, Cost::plus)
            }
            Self::Ping(ping) => Cost::new(1, ping.payload.map_or(0, <[u8]>::len)),
            Self::Hello(_) | Self::Stats => STATUS_COST,
            _ => Cost::new(1, 0),
        }
    }

    /// The key of a command that names one.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Get(get) => Some(&get.key),
            Self::Set(set) => Some(&set.key),
            Self::Delete(delete) => Some(&delete.key),
            Self::Incr(incr) => Some(&incr.key),
            Self::Touch(touch) => Some(&touch.key),
            _ => None,
        }
    }

    /// The durability the command asks for; `None` where it leaves that to the broker.
    pub fn durability(&self) -> Option<Level> {
        match self {
            Self::Set(set) => set.durability,
            Self::SetMulti(set) => set.durability,
            Self::Delete(delete) => delete.durability,
            Self::DeleteMulti(delete) => delete.durability,
            Self::DeleteRange(delete) => delete.durability,
            Self::Incr(incr) => incr.durability,
            Self::Touch(touch) => touch.durability,
            Self::Batch(batch) => batch.durability,
            _ => None,
        }
    }
}

fn shown(method: &[u8]) -> String {
    refusal::shown(method, Refusal::NAME_CHARS)
}

fn unknown(method: &[u8]) -> Refusal {
    let message =
        format!("there is no method '{}'; the methods are: {}", shown(method), METHODS.join(", "));
    Refusal::new(Code::UnknownMethod, message)
}

fn not_in_batch(method: &[u8]) -> Refusal {
    if METHODS.iter().any(|known| known.as_bytes() == method) {
        return Refusal::argument(
            "method",
            format!("'{}' cannot be part of a batch", shown(method)),
        );
    }
    unknown(method)
}
