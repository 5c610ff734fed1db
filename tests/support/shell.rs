//! A user at a shell: runs `vatn` against a broker and reads its output.

use super::broker::Broker;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;
use tempfile::TempDir;

/// The longest time for which a command may be followed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The result of a command.
#[derive(Debug)]
pub struct Done {
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Done {
    /// Its output, if it succeeded.
    pub fn text(&self) -> String {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "{self:?}");
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// Its output as JSON, if it succeeded.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// Its output as JSON lines, if it succeeded.
    pub fn json_lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The one line that gives the reason of its failure.
    pub fn error(&self, status: i32) -> &str {
        assert_eq!(self.status, status, "{self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "{self:?}");
        line.strip_prefix("vatn: error: ").unwrap_or_else(|| panic!("{self:?}"))
    }
}

/// `vatn` with an empty environment.
fn command<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vatn"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VATN_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(mut child: Child, input: &[u8]) -> Done {
    if let Some(mut stdin) = child.stdin.take() {
        // A command need not read all of its input.
        match stdin.write_all(input) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written.unwrap(),
        }
    }
    let output = child.wait_with_output().unwrap();
    Done {
        status: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Writes a file into a folder that lives as long as the test.
pub fn file(folder: &TempDir, name: &str, content: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs `vatn`.
pub fn vatn<A: AsRef<OsStr>>(arguments: &[A]) -> Done {
    finish(command(arguments).spawn().unwrap(), b"")
}

impl Broker {
    /// Runs `vatn` against this broker.
    pub fn vatn<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Done {
        finish(self.command(arguments).spawn().unwrap(), b"")
    }

    /// The same with standard input.
    pub fn vatn_reading<A: AsRef<OsStr>>(&self, input: &[u8], arguments: &[A]) -> Done {
        finish(self.command(arguments).stdin(Stdio::piped()).spawn().unwrap(), input)
    }

    /// Runs `vatn` beside the test.
    pub fn follow<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Follower {
        Follower::new(self.command(arguments))
    }

    /// The same with no endpoint except those in the arguments.
    pub fn follow_at<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Follower {
        Follower::new(command(arguments))
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = command(arguments);
        command.env("VATN_CONNECT", &self.router).env("VATN_SUBSCRIBE", &self.publisher);
        command
    }
}

/// A command that prints until it is stopped.
pub struct Follower {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    /// Ends its watchdog.
    _watched: Sender<()>,
}

impl Follower {
    fn new(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let stdout = Some(BufReader::new(child.stdout.take().unwrap()));
        let (watched, end) = channel();
        let pid = child.id().to_string();
        std::thread::spawn(move || {
            // A test that waits in vain is to fail, not to hang.
            if end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
            }
        });
        Follower { child, stdout, _watched: watched }
    }

    /// The next line of JSON in its output.
    pub fn json(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("it printed {line:?}"))
    }

    /// Pipes its output into another command against `broker`; both end when the returned values
    /// are dropped.
    pub fn into<A: AsRef<OsStr>>(mut self, broker: &Broker, arguments: &[A]) -> (Self, Self) {
        let output = self.stdout.take().unwrap().into_inner();
        let mut command = broker.command(arguments);
        command.stdin(Stdio::from(output));
        (self, Self::new(command))
    }

    /// All remaining lines of JSON in its output.
    pub fn rest(mut self) -> Vec<Value> {
        let lines = self.stdout.take().unwrap().lines();
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }

    /// Reads one line and then closes the pipe, as `head -1` does.
    pub fn head(mut self) -> ExitStatus {
        let mut line = String::new();
        self.stdout.take().unwrap().read_line(&mut line).unwrap();
        self.child.wait().unwrap()
    }

    /// Presses Ctrl-C, and waits for its end.
    pub fn interrupt(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.child.wait().unwrap()
    }

    /// Waits for its end.
    pub fn end(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
