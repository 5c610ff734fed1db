//! Standard output, as text or as JSON.

use std::io::{BufWriter, ErrorKind, IsTerminal, Stdout, Write};

use serde_json::Value as Json;

use super::Failure;

/// Standard output, whose reader may close it at any time.
#[derive(Debug)]
pub(super) struct Output {
    /// Whether the output is JSON.
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

    /// Flushes the output.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(written)
    }
}

fn written(error: std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::output_closed(),
        _ => Failure::failed(format!("cannot write to standard output: {error}")),
    }
}
