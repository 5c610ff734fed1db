//! The commands, one a file: how each is decoded, checked, measured and run.
//!
//! A command implements `Method` (its name, arguments, keys and cost), and one of `ReadMethod`,
//! `WriteMethod` and `BrokerMethod` (its execution). To add one, write its file and name it twice
//! here: as a module, and in the list of `registry::commands!`.

mod access;
mod admission;
mod append;
mod apply;
mod batch;
mod changes;
mod compact;
mod cost;
mod count;
mod deferred;
mod delete;
mod delete_multi;
mod delete_range;
mod flush;
mod get;
mod get_multi;
mod hello;
mod incr;
mod method;
pub mod options;
mod outcome;
mod ping;
mod prefixed_key;
mod range;
mod registry;
mod request;
mod set;
mod set_multi;
mod stats;
#[cfg(test)]
mod tests;
mod touch;
mod wait;

pub use access::{Access, Keys, Right, Visited};
pub use admission::{Admission, Check};
pub use append::Blob;
pub use apply::{Answer, Answered, Applied, Ran, Task};
pub use cost::CommandCost;
pub use deferred::{ChangesQuery, Deferred, LevelWait};
pub use incr::Step;
pub use method::{Broker, Effects};
pub use outcome::Outcome;
pub use request::Request;

use crate::protocol::params::Params;
use crate::protocol::{ChangeBuffer, Level, Refusal, Reply};
use crate::state::read_set::ReadSet;
use crate::state::write::Write;
use crate::state::{Context, Store};
use method::{BrokerMethod, Method, ReadMethod, WriteMethod};

registry::commands! {
    read get::Get<'a>,
    write set::Set<'a>,
    read get_multi::GetMulti<'a>,
    write set_multi::SetMulti<'a>,
    write delete::Delete<'a>,
    write delete_multi::DeleteMulti<'a>,
    write delete_range::DeleteRange<'a>,
    write append::Append<'a>,
    write incr::Incr<'a>,
    write incr::Decr<'a>,
    write touch::Touch<'a>,
    read range::Range<'a>,
    read count::Count<'a>,
    batch batch::Batch<'a>,
    broker hello::Hello,
    broker ping::Ping<'a>,
    broker flush::Flush,
    broker wait::Wait,
    broker changes::Changes<'a>,
    broker compact::Compact,
    broker stats::Stats,
}
