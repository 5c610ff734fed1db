//! A broker process whose file system calls are recorded one by one, with `file_steps.c` preloaded:
//! it is killed before one of them, or one of its syncs fails.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// One step, and the path that it changes, relative to the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `mkdir`, `create`, `write`, `truncate`, `rename`, `unlink`, `sync`, or `fail`.
    pub what: String,
    pub path: PathBuf,
}

/// The preloaded library, and the path of its record.
pub struct Steps(TempDir);

/// `vatn serve` on `store` in the directory.
pub struct Stepped {
    child: Child,
    /// The command endpoint, if the broker started to serve.
    pub router: Option<String>,
}

impl Steps {
    /// `None` without a C compiler, with a message.
    pub fn prepare() -> Option<Self> {
        let steps = Self(tempfile::tempdir().unwrap());
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/file_steps.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        match compiler.arg(steps.library()).args([source, "-ldl"]).output() {
            Ok(done) => {
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                Some(steps)
            }
            Err(error) => {
                println!("skipped: no `cc`: {error}");
                None
            }
        }
    }

    fn library(&self) -> PathBuf {
        self.0.path().join("file_steps.so")
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    /// Its standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.0.path().join("said")).unwrap()
    }

    /// Makes the sync with this number, from now on, fail, and all later ones.
    pub fn fail_syncs_from(&self, number: usize) {
        std::fs::write(self.0.path().join("fail"), number.to_string()).unwrap();
    }

    /// The steps since the last start.
    pub fn done(&self) -> Vec<Step> {
        let log = std::fs::read_to_string(self.log()).unwrap();
        let step = |line: &str| {
            let (what, path) = line.split_once(' ').unwrap();
            Step { what: what.to_owned(), path: path.into() }
        };
        log.lines().map(step).collect()
    }

    /// `vatn` with its steps below `folder` recorded from now on. It is killed before the one with
    /// the number `kill_before`.
    fn command(&self, folder: &Path, kill_before: Option<usize>) -> Command {
        std::fs::write(self.log(), "").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vatn"));
        command
            .env("LD_PRELOAD", self.library())
            .env("STEPS_BELOW", folder)
            .env("STEPS_LOG", self.log())
            .env("STEPS_FAIL", self.0.path().join("fail"))
            .envs(kill_before.map(|number| ("STEPS_KILL", number.to_string())))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, folder: &Path, arguments: &[&str], kill_before: Option<usize>) -> Output {
        self.command(folder, kill_before).args(arguments).output().unwrap()
    }

    /// Starts a broker on `folder`, and waits until it serves or ends.
    pub fn start(&self, folder: &Path, kill_before: Option<usize>) -> Stepped {
        let _ = std::fs::remove_file(self.0.path().join("fail"));
        let mut command = self.command(folder, kill_before);
        command
            .args(["serve", "--port", "0", "--database"])
            .arg(folder.join("store"))
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(self.0.path().join("said")).unwrap());
        let mut child = command.spawn().unwrap();
        let mut router = None;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            router = line.strip_prefix("listening router ").map(str::to_owned).or(router);
            if line.starts_with("ready ") {
                return Stepped { child, router };
            }
        }
        Stepped { child, router: None }
    }
}

impl Stepped {
    /// Asks it to stop, and waits until it has ended.
    pub fn stop(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the broker did not stop");
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
