//! The failure of a command: one line, and an exit code.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use crate::client::ClientError;

/// Why a command failed, with the exit code.
#[derive(Debug)]
pub struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    /// The operation failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 1 }
    }

    /// The command line is invalid.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 2 }
    }

    /// A key does not exist.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 3 }
    }

    /// The timeout expired.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 5 }
    }

    /// A signal interrupted the command.
    pub(crate) fn interrupted(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 130 }
    }

    /// The command succeeded, with a loss of data.
    pub(crate) fn with_loss(message: impl Into<String>) -> Self {
        Failure { message: message.into(), status: 3 }
    }

    /// The reader of the output has closed it (`vatn range | head`): that is no failure.
    pub(crate) fn output_closed() -> Self {
        Failure { message: String::new(), status: 0 }
    }

    /// Whether the only cause is that the reader of the output has closed it.
    pub(crate) fn is_output_closed(&self) -> bool {
        self.status == 0
    }

    /// Whether its text begins with this flag.
    pub(crate) fn is_about(&self, flag: &str) -> bool {
        self.message.strip_prefix(flag).is_some_and(|rest| rest.starts_with([' ', ':']))
    }

    /// The same failure with more text.
    pub(crate) fn adding(mut self, text: &str) -> Self {
        self.message.push_str(text);
        self
    }

    /// The same failure after its details were `printed`, even if their reader had closed the
    /// output.
    pub(crate) fn after(self, printed: Result<(), Failure>) -> Self {
        match printed {
            Err(failure) if !failure.is_output_closed() => failure,
            _ => self,
        }
    }

    /// The same failure, with the place in a file that caused it.
    pub(crate) fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Prints the failure on stderr, in one line.
    pub fn print(&self) {
        if !self.message.is_empty() {
            // The exit code reports it too, where stderr cannot be written.
            let _ = writeln!(std::io::stderr(), "vatn: error: {self}");
        }
    }

    /// Prints the failure, and ends the process.
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
            // Its text names the cure, which is no restart.
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
        // An option on the wire is a flag here.
        let text = error.to_string().replace("give `initial`", "give --initial");
        Failure { message: format!("{text}{cure}"), status }
    }
}
