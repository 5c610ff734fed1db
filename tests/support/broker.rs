//! A real broker process on a directory of its own, ended by its own pid.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running `vatn serve`.
pub struct Broker {
    child: Child,
    /// `tcp://host:port` of the command edge, the first of its endpoints.
    pub router: String,
    /// `tcp://host:port` of the change edge.
    pub publisher: String,
    /// `http://host:port`.
    pub http: String,
    folder: Option<TempDir>,
    log: PathBuf,
}

impl Broker {
    /// On an empty store, with further arguments.
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Self::open(folder.path(), arguments);
        broker.folder = Some(folder);
        broker
    }

    /// On an empty store, with this much address space, in KiB.
    pub fn start_within(address_space_kib: u64, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        let limited = format!("ulimit -v {address_space_kib} && exec \"$0\" \"$@\"");
        shell.args(["-c", &limited, env!("CARGO_BIN_EXE_vatn")]);
        let mut broker = Self::run(shell, folder.path(), arguments);
        broker.folder = Some(folder);
        broker
    }

    /// On the store in `folder`, which outlives the broker.
    pub fn open(folder: &Path, arguments: &[&str]) -> Self {
        Self::open_with(folder, arguments, &[])
    }

    /// The same, with further variables in its environment.
    pub fn open_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vatn"));
        command.envs(environment.iter().copied());
        Self::run(command, folder, arguments)
    }

    fn run(mut command: Command, folder: &Path, arguments: &[&str]) -> Self {
        let log = folder.join("broker.log");
        let mut child = command
            .args(["serve", "--port", "0", "--router", "tcp://127.0.0.1:0"])
            .args(["--publisher", "tcp://127.0.0.1:0", "--database"])
            .arg(folder.join("store"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ready = Vec::new();
        for line in &mut lines {
            ready.push(line.unwrap());
            if ready.last().unwrap().starts_with("ready ") {
                break;
            }
        }
        // Its further output must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let endpoint = |kind: &str| {
            let said = ready.iter().find_map(|line| line.strip_prefix(kind));
            let failed = || panic!("no '{kind}' in {ready:?}: {}", read(&log));
            said.unwrap_or_else(failed).to_owned()
        };
        let (router, publisher, http) = (
            endpoint("listening router "),
            endpoint("listening publisher "),
            endpoint("listening http "),
        );
        Self { child, router, publisher, http, folder: None, log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it ever had resident, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The most memory it ever had reserved, used or not, in bytes.
    pub fn peak_reserved(&self) -> u64 {
        self.status("VmPeak:")
    }

    /// Processor time it has used, in hundredths of a second.
    pub fn ticks(&self) -> u64 {
        let stat = read(Path::new(&format!("/proc/{}/stat", self.pid())));
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    fn status(&self, name: &str) -> u64 {
        let status = read(Path::new(&format!("/proc/{}/status", self.pid())));
        let peak = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The path of its log.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The text of its log.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it with SIGTERM, as systemd does, and waits until it has ended.
    pub fn stop(mut self) -> ExitStatus {
        self.terminate();
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the broker did not stop: {}", self.log());
    }

    /// Sends it SIGTERM.
    pub fn terminate(&self) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the broker's log:\n{}", self.log());
        }
    }
}

/// A broker on an empty store whose writes are stored when they are answered.
pub fn broker() -> Broker {
    Broker::start(&["--durability", "stored"])
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
