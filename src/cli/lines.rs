//! JSON Lines, each identified by its file and number.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;

use serde_json::Value as Json;
use tokio::sync::mpsc;

use super::Failure;
use super::json::{self, Unpackable};

/// How many lines may be read ahead.
const AHEAD: usize = 1000;
/// How many of them are passed on at a time.
const CHUNK: usize = 100;

/// The non-empty lines of a JSON Lines file, each identified by its number.
pub(super) struct Lines {
    name: String,
    number: u64,
    bytes: u64,
    size: Option<u64>,
    reader: BufReader<Box<dyn Read + Send>>,
}

/// A line that was read.
pub(super) struct Parsed {
    /// Its place.
    pub(super) place: Place,
    /// Its content.
    pub(super) json: Json,
    /// How many bytes of the file had been read, including this line.
    pub(super) position: u64,
}

/// A place in a file.
#[derive(Debug, Clone)]
pub(super) struct Place {
    name: String,
    number: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.number)
    }
}

impl Place {
    /// A failure that names this place.
    pub(super) fn failure(&self, reason: impl fmt::Display) -> Failure {
        Failure::failed(format!("{self}: {reason}"))
    }
}

impl Lines {
    /// Opens a file; `-` is standard input.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let (name, size, reader): (_, _, Box<dyn Read + Send>) = if path.as_os_str() == "-" {
            if std::io::stdin().is_terminal() {
                eprintln!("vatn: waiting for lines on standard input; end them with Ctrl-D");
            }
            ("standard input".to_owned(), None, Box::new(std::io::stdin()))
        } else {
            let name = path.display().to_string();
            let file = File::open(path)
                .map_err(|error| Failure::failed(format!("cannot open {name}: {error}")))?;
            let size = file.metadata().ok().filter(|file| file.is_file()).map(|file| file.len());
            (name, size, Box::new(file))
        };
        let reader = BufReader::with_capacity(1 << 18, reader);
        Ok(Lines { name, number: 0, bytes: 0, size, reader })
    }

    /// The size of the file, when that is known.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Reads on its own thread, so that the consumer need not wait for lines. They come in chunks:
    /// the available lines, up to a limit.
    pub(super) fn stream(mut self) -> mpsc::Receiver<Vec<Result<Parsed, Failure>>> {
        let (sender, receiver) = mpsc::channel(AHEAD / CHUNK);
        std::thread::spawn(move || {
            let mut chunk = Vec::new();
            loop {
                let read = self.next().transpose();
                let is_over = !matches!(read, Some(Ok(_)));
                chunk.extend(read.map(|line| {
                    line.map(|(place, json)| Parsed { place, json, position: self.bytes })
                }));
                let may_wait = self.reader.buffer().is_empty() || chunk.len() == CHUNK;
                let mut is_heard = true;
                if is_over || may_wait {
                    is_heard = sender.blocking_send(std::mem::take(&mut chunk)).is_ok();
                }
                if is_over || !is_heard {
                    return;
                }
            }
        });
        receiver
    }

    /// The next line's JSON and place; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(Place, Json)>, Failure> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = self.reader.read_until(b'\n', &mut line);
            self.number += 1;
            let place = Place { name: self.name.clone(), number: self.number };
            let length = read.map_err(|error| place.failure(error))?;
            self.bytes += length as u64;
            if length == 0 {
                return Ok(None);
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            return match json::parse(&line) {
                Ok(json) => Ok(Some((place, json))),
                Err(Unpackable::Syntax(reason)) => {
                    Err(place.failure(format!("not JSON: {reason}")))
                }
                Err(Unpackable::Content(reason)) => Err(place.failure(reason)),
            };
        }
    }
}
