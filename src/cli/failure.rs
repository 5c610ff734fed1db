//! How a command fails: one line, and an exit code.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use crate::client::ClientError;

/// Why a command did not do what it was asked for, and the exit code that says so.
#[derive(Debug)]
pub struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    /// It could not be done.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 1 }
    }

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 2 }
    }

    /// A key is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 3 }
    }

    /// The time that was given ran out.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 5 }
    }

    /// Somebody interrupted it.
    pub(crate) fn interrupted(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 130 }
    }

    /// It was done, and something was lost.
    pub(crate) fn with_loss(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 3 }
    }

    /// Nobody reads the output any more (`vatn range | head`): that is no failure.
    pub(crate) fn unheard() -> Self {
        Failure { message: String::new(), status: 0 }
    }

    /// Whether it is only that nobody reads the output any more.
    pub(crate) fn is_unheard(&self) -> bool {
        self.status == 0
    }

    /// Whether its text begins with this flag.
    pub(crate) fn is_about(&self, flag: &str) -> bool {
        self.message.strip_prefix(flag).is_some_and(|rest| rest.starts_with([' ', ':']))
    }

    /// The same with more text.
    pub(crate) fn adding(mut self, text: &str) -> Self {
        self.message.push_str(text);
        self
    }

    /// This failure after its details were `printed`: also where nobody read them.
    pub(crate) fn after(self, printed: Result<(), Failure>) -> Self {
        match printed {
            Err(failure) if !failure.is_unheard() => failure,
            _ => self,
        }
    }

    /// The same, with the place in a file that caused it.
    pub(crate) fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Says on stderr, in one line, what is wrong.
    pub fn print(&self) {
        if !self.message.is_empty() {
            // The exit code tells too, where stderr takes nothing.
            let _ = writeln!(std::io::stderr(), "vatn: error: {self}");
        }
    }

    /// Says what is wrong, and ends the process.
    pub(crate) fn exit(&self) -> ! {
        self.print();
        std::process::exit(self.status.into())
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let status = match (&error, error.code()) {
            (ClientError::BadEndpoint(_), _) => 2,
            (_, Some("NOT_FOUND")) => 3,
            (_, Some("CONFLICT")) => 4,
            (ClientError::Timeout { .. }, _) => 5,
            _ => 1,
        };
        let cure = match error.code() {
            Some("WRITE_QUEUE_FULL") => {
                "; try again later, or serve with a larger --write-queue-items"
            }
            // Its text says what helps, and that is no restart.
            Some("STORAGE") if error.to_string().contains("the disk is full") => "",
            Some("STORAGE") => "; reads go on, writes need the disk put right and a restart",
            Some("COMPACTED") => {
                " with `vatn export`, whose last line says where to follow from; \
                 a larger --retain-bytes keeps more history"
            }
            Some("OTHER_HISTORY") => {
                ": was it restored or replaced? Take the state with `vatn export`, whose last line \
                 says where to follow from"
            }
            Some("UNKNOWN_METHOD") => "; is the broker older than this client?",
            _ => "",
        };
        // What is an option on the wire is a flag here.
        let text = error.to_string().replace("give `initial`", "give --initial");
        Failure { message: format!("{text}{cure}"), status }
    }
}
