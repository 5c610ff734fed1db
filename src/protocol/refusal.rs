//! Error replies: a code for programs, a sentence for people, details for both.

use super::{Seq, writer};
use std::fmt;

/// Why a command was refused. The names are part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Not MessagePack, not the envelope, trailing or missing bytes, nested too deep.
    BadRequest,
    /// No such method.
    UnknownMethod,
    /// A wrong type, count or range of an argument, or an unknown option.
    BadArgument,
    /// A key that is too long or reserved.
    BadKey,
    /// Over one of the broker's limits.
    TooLarge,
    /// A condition (`if`) did not hold; nothing changed.
    Conflict,
    /// The key does not exist, and the command needs it.
    NotFound,
    /// The value is not an integer.
    NotANumber,
    /// The value is neither text nor bytes.
    WrongType,
    /// The result does not fit a MessagePack integer.
    Overflow,
    /// The write queue had no room in time; nothing changed.
    WriteQueueFull,
    /// The disk failed; writes are refused until a restart.
    Storage,
    /// The broker is stopping.
    Stopping,
    /// The requested history is no longer held.
    Compacted,
    /// The store has not reached that seq: the position is of another history.
    OtherHistory,
}

impl Code {
    /// Every code, in the order of `proto/commands.json`.
    pub const ALL: [Self; 15] = [
        Self::BadRequest,
        Self::UnknownMethod,
        Self::BadArgument,
        Self::BadKey,
        Self::TooLarge,
        Self::Conflict,
        Self::NotFound,
        Self::NotANumber,
        Self::WrongType,
        Self::Overflow,
        Self::WriteQueueFull,
        Self::Storage,
        Self::Stopping,
        Self::Compacted,
        Self::OtherHistory,
    ];

    /// The code's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::UnknownMethod => "UNKNOWN_METHOD",
            Self::BadArgument => "BAD_ARGUMENT",
            Self::BadKey => "BAD_KEY",
            Self::TooLarge => "TOO_LARGE",
            Self::Conflict => "CONFLICT",
            Self::NotFound => "NOT_FOUND",
            Self::NotANumber => "NOT_A_NUMBER",
            Self::WrongType => "WRONG_TYPE",
            Self::Overflow => "OVERFLOW",
            Self::WriteQueueFull => "WRITE_QUEUE_FULL",
            Self::Storage => "STORAGE",
            Self::Stopping => "STOPPING",
            Self::Compacted => "COMPACTED",
            Self::OtherHistory => "OTHER_HISTORY",
        }
    }
}

/// A name from a peer, readable, cut where it is longer than any name.
pub(crate) fn shown(name: &[u8], chars_max: usize) -> String {
    // Reads only as many bytes as can be shown: bytes that are no text take three times their room.
    let longest = chars_max * char::MAX_LEN_UTF8;
    let name = String::from_utf8_lossy(name.get(..longest).unwrap_or(name));
    name.chars().take(chars_max).collect()
}

/// A value in the details of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// A count, a limit or a sequence number.
    Number(u64),
    /// A name.
    Text(String),
    /// Known to be absent.
    Nil,
}

/// An error reply. Boxed inside, so that a `Result` that carries it stays small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(Box<Parts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    code: Code,
    message: String,
    details: Vec<(&'static str, Detail)>,
}

impl Refusal {
    /// A refusal without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Parts { code, message: message.into(), details: Vec::new() }))
    }

    /// `CONFLICT`, with the seq the key has now (`None`: the key is absent).
    pub fn conflict(seq: Option<Seq>) -> Self {
        let message = match seq {
            Some(seq) => format!("the condition does not hold: the key exists with seq {seq}"),
            None => "the condition does not hold: the key does not exist".to_owned(),
        };
        Self::new(Code::Conflict, message).with("seq", seq.map_or(Detail::Nil, Detail::Number))
    }

    /// `OTHER_HISTORY`, for a position above `last`, the last seq of the store.
    pub fn other_history(last: Seq) -> Self {
        let message = format!(
            "this store has come to seq {last}: the position asked for is of another history. Take \
             the state anew, then follow from a position of this store"
        );
        Self::new(Code::OtherHistory, message).with("seq", Detail::Number(last))
    }

    /// How many characters of a peer's name are shown.
    pub(crate) const NAME_CHARS: usize = 64;

    /// `BAD_ARGUMENT`, naming the argument.
    pub fn argument(argument: &str, what: impl fmt::Display) -> Self {
        Self::new(Code::BadArgument, format!("{argument}: {what}"))
            .with("argument", Detail::Text(argument.to_owned()))
    }

    /// `TOO_LARGE`, naming the limit and its value.
    pub fn too_large(limit: &str, max: usize) -> Self {
        Self::new(Code::TooLarge, format!("over the limit {limit} of {max}"))
            .with("limit", Detail::Text(limit.to_owned()))
            .with("max", Detail::Number(max as u64))
    }

    /// Whether it is `TOO_LARGE` for that limit.
    pub fn is_over(&self, limit: &str) -> bool {
        let names = |detail: &Detail| matches!(detail, Detail::Text(named) if named == limit);
        self.code() == Code::TooLarge && self.details().iter().any(|(_, detail)| names(detail))
    }

    /// The same refusal with one more detail.
    #[must_use]
    pub fn with(mut self, name: &'static str, detail: Detail) -> Self {
        self.0.details.push((name, detail));
        self
    }

    /// The same refusal, of the command at `index` of a batch.
    #[must_use]
    pub fn in_batch(mut self, index: usize, method: &str) -> Self {
        self.0.message = format!("command {index} ({method}): {}", self.0.message);
        self.with("index", Detail::Number(index as u64))
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The details, in the order in which they were added.
    pub fn details(&self) -> &[(&'static str, Detail)] {
        &self.0.details
    }

    /// Appends `[CODE, message, {details}]`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::array_len(out, 3);
        writer::str(out, self.0.code.name());
        writer::str(out, &self.0.message);
        writer::map_len(out, self.0.details.len());
        for (name, detail) in &self.0.details {
            writer::str(out, name);
            match detail {
                Detail::Number(number) => writer::uint(out, *number),
                Detail::Text(text) => writer::str(out, text),
                Detail::Nil => writer::nil(out),
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.name(), self.0.message)
    }
}

impl std::error::Error for Refusal {}
