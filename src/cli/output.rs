//! Standard output, for people or for programs.

use std::io::{BufWriter, ErrorKind, IsTerminal, Stdout, Write};

use serde_json::Value as Json;

use super::Failure;

/// Standard output, which a reader may close at any time.
#[derive(Debug)]
pub(super) struct Output {
    /// Whether the output is for programs.
    pub(super) json: bool,
    /// Whether it is a terminal.
    pub(super) is_terminal: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let stdout = std::io::stdout();
        Output { json, is_terminal: stdout.is_terminal(), out: BufWriter::new(stdout) }
    }

    /// Prints a line of text.
    pub(super) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.bytes(text.as_ref().as_bytes())?;
        self.bytes(b"\n")
    }

    /// Prints JSON on one line.
    pub(super) fn json(&mut self, json: &Json) -> Result<(), Failure> {
        self.line(json.to_string())
    }

    /// Prints bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(written)
    }

    /// Hands on what was printed so far.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(written)
    }
}

fn written(error: std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::unheard(),
        _ => Failure::failed(format!("cannot write to standard output: {error}")),
    }
}
