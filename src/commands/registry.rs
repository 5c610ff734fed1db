//! The list of all commands: the enum, and every dispatch on it, is made from this list.

use crate::protocol::Refusal;
use crate::protocol::refusal::{self, Code};

/// Makes the enum `Command` of the commands listed: one line each, with its kind (it `read`s or
/// `write`s the map, queries the `broker`, or is the `batch`), its module and its type.
macro_rules! commands {
    ($($kind:ident $module:ident::$Type:ident $(<$a:lifetime>)?,)*) => {
        $(pub use $module::$Type;)*

        /// One decoded command. Keys and values borrow from the request's bytes.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Command<'a> {
            $(#[doc = concat!("See [`", stringify!($Type), "`].")] $Type($Type $(<$a>)?),)*
        }

        /// Every method, by its name on the wire.
        pub const METHODS: &[&str] = &[$(<$Type as Method<'_>>::NAME),*];

        /// The limits of single commands, by their names.
        pub fn limits() -> impl Iterator<Item = (&'static str, usize)> {
            [$(<$Type as Method<'_>>::LIMITS),*].into_iter().flatten().copied()
        }

        impl<'a> Command<'a> {
            /// Decodes the params of `method`.
            pub fn decode(method: &[u8], params: &mut Params<'_, 'a>) -> Result<Self, Refusal> {
                let in_batch = params.in_batch();
                $(if method == <$Type as Method<'a>>::NAME.as_bytes()
                    && (<$Type as Method<'a>>::IN_BATCH || !in_batch)
                {
                    return <$Type as Method<'a>>::decode(params).map(Self::$Type);
                })*
                Err(registry::unknown(method, METHODS))
            }

            /// The method's name on the wire.
            pub fn method(&self) -> &'static str {
                match self {
                    $(Self::$Type(_) => <$Type as Method<'a>>::NAME,)*
                }
            }

            /// The command's possible effects.
            #[inline]
            pub fn effects(&self) -> Effects {
                match self {
                    $(Self::$Type(it) => Method::effects(it),)*
                }
            }

            /// Visits all accesses of the command.
            #[inline]
            pub fn access<'s>(
                &'s self,
                visit: &mut impl FnMut(Access<'s>) -> Visited,
            ) -> Visited {
                match self {
                    $(Self::$Type(it) => Method::access(it, visit),)*
                }
            }

            /// The command's cost, as far as that is known without the state.
            #[inline]
            pub fn cost(&self) -> CommandCost {
                match self {
                    $(Self::$Type(it) => Method::cost(it),)*
                }
            }

            /// The command's cost on this state, as far as it is known before it runs.
            pub fn cost_on(&self, store: &Store, hash: Option<u64>) -> CommandCost {
                match self {
                    $(Self::$Type(it) => Method::cost_on(it, store, hash),)*
                }
            }

            /// Whether it is a command to the broker, and not to the map.
            #[inline]
            pub fn is_for_broker(&self) -> bool {
                match self {
                    $(Self::$Type(_) => registry::is_for_broker!($kind),)*
                }
            }

            /// Shows the values that the command would put into the map.
            pub fn values<'s>(&'s self, visit: &mut dyn FnMut(&'s [u8])) {
                match self {
                    $(Self::$Type(it) => Method::values(it, visit),)*
                }
            }

            /// The durability that the command requests; `None` for the broker's default.
            pub fn durability(&self) -> Option<Level> {
                match self {
                    $(Self::$Type(it) => Method::durability(it),)*
                }
            }

            /// Runs the command as a write of its own. `finish` is given its outcome.
            pub fn apply<'s, T>(
                &self,
                store: &'s mut Store,
                hash: Option<u64>,
                context: &Context,
                changes: &mut ChangeBuffer,
                finish: impl FnOnce(Result<Outcome<'s>, Refusal>) -> T,
            ) -> Ran<T> {
                match self {
                    $(Self::$Type(it) => {
                        registry::apply!($kind it store hash context changes finish)
                    })*
                }
            }

            /// Runs the command as a read. `finish` is given its outcome.
            #[inline]
            pub fn query<'s, T>(
                &self,
                store: &'s Store,
                hash: Option<u64>,
                context: &Context,
                finish: impl FnOnce(Result<Outcome<'s>, Refusal>) -> T,
            ) -> Ran<T> {
                match self {
                    $(Self::$Type(it) => registry::query!($kind it store hash context finish),)*
                }
            }

            /// Runs the command as one of several reads.
            pub(super) fn read<'s>(
                &self,
                store: &'s Store,
                context: &Context,
                seen: &mut ReadSet,
            ) -> Result<Reply<'s>, Refusal> {
                match self {
                    $(Self::$Type(it) => registry::read!($kind it store context seen),)*
                }
            }

            /// Runs the command within a write, after others.
            pub(super) fn run_within<'s>(
                &self,
                store: &'s mut Store,
                write: &mut Write<'_>,
            ) -> Result<Outcome<'s>, Refusal> {
                match self {
                    $(Self::$Type(it) => registry::run_within!($kind it store write),)*
                }
            }

            /// The level of the command's write, where the client wants `requested`.
            pub(super) fn level(
                &self,
                requested: Level,
                store: &Store,
                hash: Option<u64>,
            ) -> Level {
                match self {
                    $(Self::$Type(it) => registry::level!($kind it requested store hash),)*
                }
            }

            /// Runs a broker command; `None` for a command of the map.
            #[inline]
            pub fn ask<'s>(&'s self, broker: &dyn Broker) -> Option<Result<Outcome<'s>, Refusal>> {
                match self {
                    $(Self::$Type(it) => registry::ask!($kind it broker),)*
                }
            }
        }
    };
}

macro_rules! apply {
    (write $it:ident $store:ident $hash:ident $context:ident $changes:ident $finish:ident) => {
        apply::write($it, $store, $hash, $context, $changes, $finish)
    };
    (batch $it:ident $store:ident $hash:ident $context:ident $changes:ident $finish:ident) => {
        match $it.effects().writes {
            true => apply::write($it, $store, $hash, $context, $changes, $finish),
            false => apply::read($it, $store, $hash, $context, $finish),
        }
    };
    ($kind:ident $it:ident $store:ident $hash:ident $context:ident $changes:ident $end:ident) => {
        registry::query!($kind $it $store $hash $context $end)
    };
}

macro_rules! query {
    (read $it:ident $store:ident $hash:ident $context:ident $finish:ident) => {
        apply::read($it, $store, $hash, $context, $finish)
    };
    (batch $it:ident $store:ident $hash:ident $context:ident $finish:ident) => {
        apply::read($it, $store, $hash, $context, $finish)
    };
    ($kind:ident $it:ident $store:ident $hash:ident $context:ident $finish:ident) => {
        apply::misplaced(registry::misplaced($it), $finish)
    };
}

macro_rules! read {
    (read $it:ident $store:ident $context:ident $seen:ident) => {
        ReadMethod::run($it, $store, $context, $seen)
    };
    ($kind:ident $it:ident $store:ident $context:ident $seen:ident) => {
        Err(registry::misplaced($it))
    };
}

macro_rules! run_within {
    (read $it:ident $store:ident $write:ident) => {{
        let mut seen = ReadSet::default();
        let reply = ReadMethod::run($it, $store, $write.context, &mut seen);
        $write.saw(&seen);
        $write.looks += seen.cost.entries;
        reply.map(Outcome::Reply)
    }};
    (write $it:ident $store:ident $write:ident) => {
        WriteMethod::run($it, $store, $write)
    };
    ($kind:ident $it:ident $store:ident $write:ident) => {
        Err(registry::misplaced($it))
    };
}

macro_rules! level {
    (write $it:ident $requested:ident $store:ident $hash:ident) => {
        WriteMethod::level($it, $requested, $store, $hash)
    };
    ($kind:ident $it:ident $requested:ident $store:ident $hash:ident) => {{
        let _ = $it;
        $requested
    }};
}

macro_rules! is_for_broker {
    (broker) => {
        true
    };
    ($kind:ident) => {
        false
    };
}

macro_rules! ask {
    (broker $it:ident $broker:ident) => {
        Some(BrokerMethod::run($it, $broker))
    };
    ($kind:ident $it:ident $broker:ident) => {{
        let _ = $it;
        None
    }};
}

pub(super) use {apply, ask, commands, is_for_broker, level, query, read, run_within};

/// The refusal of a command where it cannot run; no client can send one there.
#[cold]
pub(super) fn misplaced<'a, M: super::Method<'a>>(_: &M) -> Refusal {
    Refusal::new(Code::BadArgument, format!("'{}' cannot run here", M::NAME))
}

/// The refusal of a method that is unknown, or not allowed in a batch.
#[cold]
pub(super) fn unknown(method: &[u8], known: &[&str]) -> Refusal {
    let shown = refusal::shown(method, Refusal::NAME_CHARS);
    if known.iter().any(|known| known.as_bytes() == method) {
        return Refusal::argument("method", format!("'{shown}' cannot be part of a batch"));
    }
    let message = format!("there is no method '{shown}'; the methods are: {}", known.join(", "));
    Refusal::new(Code::UnknownMethod, message)
}
