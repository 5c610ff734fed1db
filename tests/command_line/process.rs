//! The broker as a process: its signals, the permissions of its files, the addresses it accepts,
//! and the system limits that it can run with.

use crate::support::broker::{Broker, broker};
use crate::support::shell::vatn;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const FREE: &str = "tcp://127.0.0.1:0";

/// Runs `vatn serve -p 0` on `folder` with more `arguments`, after `prelude` in a shell.
fn serve(prelude: &str, folder: &Path, arguments: &[&str]) -> Child {
    let script = format!("{prelude} exec \"$0\" serve -p 0 --json \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_vatn"), "-b"]).arg(folder).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The command endpoint that the broker prints once it serves.
fn router(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let printed: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
    printed["routers"][0].as_str().unwrap_or_default().to_owned()
}

fn kill(pid: u32, signal: &str) {
    let sent = Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The exit status. A broker that keeps running fails the test instead of hanging it.
fn end(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("it did not end");
}

/// The exit code and the message of a broker that refuses to start.
fn refusal(mut child: Child) -> (Option<i32>, String) {
    let status = end(&mut child);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said)
}

mod a_signal {
    use super::*;

    #[test]
    fn without_a_meaning_is_ignored() {
        let broker = broker();
        for signal in ["USR1", "USR2", "ALRM", "PIPE", "IO", "PROF", "VTALRM", "XFSZ", "RTMIN"] {
            kill(broker.pid(), signal);
        }
        assert_eq!(broker.vatn(&["set", "k", "1"]).text(), "1\n");
        assert!(broker.stop().success());
    }

    #[test]
    fn of_a_hangup_stops_in_order_where_the_terminal_was_closed() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let (terminal, mut child) = on_a_terminal(&store);
        let router = router(&mut child);
        let set = ["set", "k", "1", "--durability", "queued", "--connect", &router];
        assert_eq!(vatn(&set).text(), "1\n");
        drop(terminal);
        assert_eq!(end(&mut child).code(), Some(0));
        let broker = Broker::open(folder.path(), &[]);
        assert_eq!(broker.vatn(&["get", "k"]).text(), "1\n");
    }

    #[test]
    fn of_a_hangup_reloads_where_there_is_no_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("setsid");
        child.args([env!("CARGO_BIN_EXE_vatn"), "serve", "-p", "0", "--json", "-b"]);
        child.arg(folder.path().join("store")).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = child.stderr(Stdio::null()).spawn().unwrap();
        let router = router(&mut child);
        kill(child.id(), "HUP");
        assert_eq!(vatn(&["set", "k", "1", "--connect", &router]).text(), "1\n");
        kill(child.id(), "TERM");
        assert!(end(&mut child).success());
    }

    #[test]
    fn of_a_hangup_is_ignored_under_nohup() {
        let folder = tempfile::tempdir().unwrap();
        let (terminal, mut child) = with_terminal(&folder.path().join("store"), "trap '' HUP;");
        let router = router(&mut child);
        drop(terminal);
        kill(child.id(), "HUP");
        assert_eq!(vatn(&["set", "k", "1", "--connect", &router]).text(), "1\n");
        kill(child.id(), "TERM");
        assert!(end(&mut child).success());
    }

    /// A broker whose controlling terminal is closed when the returned descriptor is dropped.
    fn on_a_terminal(store: &Path) -> (OwnedFd, Child) {
        with_terminal(store, "")
    }

    fn with_terminal(store: &Path, prelude: &str) -> (OwnedFd, Child) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let side = File::options().read(true).write(true).open(name).unwrap();
        let script = format!("{prelude} exec \"$0\" serve -p 0 --json -b \"$1\"");
        let mut command = Command::new("setsid");
        command.args(["--ctty", "sh", "-c", &script, env!("CARGO_BIN_EXE_vatn")]).arg(store);
        command.stdin(side.try_clone().unwrap()).stdout(Stdio::piped()).stderr(side);
        (terminal, command.spawn().unwrap())
    }

    #[test]
    fn that_stops_the_broker_keeps_queued_writes() {
        for signal in ["TERM", "INT", "QUIT", "XCPU", "PWR"] {
            let folder = tempfile::tempdir().unwrap();
            let mut child = serve("", &folder.path().join("store"), &[]);
            let router = router(&mut child);
            let set = ["set", "k", "1", "--durability", "queued", "--connect", &router];
            assert_eq!(vatn(&set).text(), "1\n");
            kill(child.id(), signal);
            assert_eq!(end(&mut child).code(), Some(0), "{signal}");
            let broker = Broker::open(folder.path(), &[]);
            assert_eq!(broker.vatn(&["get", "k"]).text(), "1\n", "{signal}");
        }
    }
}

mod files {
    use super::*;

    /// The permissions that other users have on `path`, and on everything in it.
    fn open_to_others(path: &Path) -> Vec<String> {
        let metadata = std::fs::symlink_metadata(path).unwrap();
        let is_open = metadata.permissions().mode() & 0o077 != 0;
        let mut open = if is_open { vec![path.display().to_string()] } else { Vec::new() };
        if metadata.is_dir() {
            for inside in std::fs::read_dir(path).unwrap() {
                open.extend(open_to_others(&inside.unwrap().path()));
            }
        }
        open
    }

    fn open_inside(folder: &Path) -> Vec<String> {
        let all = open_to_others(folder);
        all.into_iter().filter(|path| Path::new(path) != folder).collect()
    }

    #[test]
    fn are_readable_by_their_owner_only_whatever_the_umask() {
        for umask in ["umask 000;", "umask 077;", "umask 0777;"] {
            let folder = tempfile::tempdir().unwrap();
            let (store, socket) = (folder.path().join("a/store"), folder.path().join("socket"));
            let endpoint = format!("ipc://{}", socket.display());
            let more = ["--router", &endpoint, "--retain-bytes", "1", "--segment-bytes", "1"];
            let mut child = serve(umask, &store, &more);
            let router = router(&mut child);
            assert_eq!(router, endpoint, "{umask}");
            vatn(&["set", "k", "1", "--connect", &router]).text();
            vatn(&["flush", "--connect", &router]).text();
            let backup = folder.path().join("backup");
            let export = folder.path().join("export");
            for (command, file) in [("backup", &backup), ("export", &export)] {
                let script = format!("{umask} exec \"$@\"");
                let program = env!("CARGO_BIN_EXE_vatn");
                let done = Command::new("sh")
                    .args(["-c", &script, "sh", program, command])
                    .arg(file)
                    .args(["--connect", &router])
                    .stdout(Stdio::null())
                    .status();
                assert!(done.unwrap().success());
            }
            assert_eq!(open_inside(folder.path()), Vec::<String>::new(), "{umask}");
            kill(child.id(), "TERM");
            assert!(end(&mut child).success());
            assert_eq!(open_inside(folder.path()), Vec::<String>::new(), "{umask}");
            let restored = folder.path().join("restored");
            let (backup, restored) = (backup.to_str().unwrap(), restored.to_str().unwrap());
            vatn(&["restore", backup, "-b", restored]).text();
            assert_eq!(open_inside(folder.path()), Vec::<String>::new(), "{umask}");
        }
    }

    #[test]
    fn of_a_store_readable_by_others_are_made_private() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Broker::open(folder.path(), &[]).stop().success());
        let store = folder.path().join("store");
        let opened = Command::new("chmod").args(["-R", "a+rwX"]).arg(&store).status().unwrap();
        assert!(opened.success() && !open_to_others(&store).is_empty());
        let broker = Broker::open(folder.path(), &[]);
        assert_eq!(open_to_others(&store), Vec::<String>::new());
        assert!(broker.log().contains("took from others"), "{}", broker.log());
    }
}

mod an_address {
    use super::*;

    #[test]
    fn that_other_machines_can_reach_is_refused_without_insecure() {
        let folder = tempfile::tempdir().unwrap();
        for (flag, value) in [
            ("-H", "0.0.0.0"),
            ("-H", "::"),
            ("--router", "tcp://*:0"),
            ("--router", "tcp://[::]:0"),
            ("--publisher", "tcp://0.0.0.0:0"),
            ("--publisher", "tcp://[::ffff:0.0.0.0]:0"),
        ] {
            let (status, said) = refusal(serve("", folder.path(), &[flag, value]));
            let named = said.contains(flag) && said.contains(value) && said.contains("--insecure");
            assert!(named && status == Some(2), "{said}");
        }
        let variable = "VATN_PUBLISHER=tcp://127.0.0.1:0,tcp://0.0.0.0:0";
        let (status, said) = refusal(serve(variable, folder.path(), &[]));
        assert!(said.contains("tcp://0.0.0.0:0") && status == Some(2), "{said}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
    }

    #[test]
    fn that_other_machines_can_reach_is_warned_of_with_insecure() {
        let broker = Broker::start(&["--publisher", "tcp://0.0.0.0:0", "--insecure"]);
        let warnings = broker.vatn(&["stats", "--json"]).json()["warnings"].take();
        let warning = warnings[0].as_str().unwrap();
        assert!(warning.contains("tcp://0.0.0.0:0") && warning.contains("no passwords"));
        assert!(broker.log().contains("no passwords"), "{}", broker.log());
        assert_eq!(
            super::broker().vatn(&["stats", "--json"]).json()["warnings"],
            serde_json::json!([])
        );
    }

    #[test]
    fn derived_from_the_http_port_is_named_when_it_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        // Two neighbouring ports, the second of which is in use.
        let (taken, port) = loop {
            let taken = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = taken.local_addr().unwrap().port() - 1;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                break (taken, port);
            }
        };
        let store = folder.path().to_str().unwrap();
        let done = vatn(&["serve", "-b", store, "-p", &port.to_string()]);
        let error = done.error(1);
        let expected = format!("--router tcp://127.0.0.1:{}: ", port + 1);
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.contains(&format!("follows from -p {port}")), "{error}");
        drop(taken);
        let done = vatn(&["serve", "-b", store, "-p", "65534", "--router", FREE]);
        assert!(done.error(2).contains("no port 2 above it for --publisher"), "{done:?}");
    }
}

mod a_limit_of_the_system {
    use super::*;

    #[test]
    fn that_is_too_small_is_named_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        for (limit, name) in [
            ("ulimit -f 1000;", "ulimit -f"),
            ("ulimit -n 79;", "ulimit -n"),
            ("ulimit -n 8;", "ulimit -n"),
            ("ulimit -v 300000;", "ulimit -v"),
        ] {
            let (status, said) = refusal(serve(limit, folder.path(), &[]));
            assert!(said.starts_with("vatn: error: the limit of "), "{limit} {said}");
            assert!(said.contains(name) && said.lines().count() == 1, "{limit} {said}");
            assert_eq!(status, Some(1));
        }
    }

    #[test]
    fn on_the_stack_of_the_first_thread_has_no_effect() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = serve("ulimit -s 64;", folder.path(), &[]);
        let router = router(&mut child);
        assert!(vatn(&["ping", "--connect", &router]).text().contains("vatn"));
        kill(child.id(), "TERM");
        assert!(end(&mut child).success());
    }

    #[test]
    fn on_open_files_is_raised_to_its_maximum_and_limits_the_connections() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = serve("ulimit -n 300; ulimit -S -n 100;", folder.path(), &[]);
        let router = router(&mut child);
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(line.split_whitespace().nth(3), Some("300"), "{line}");
        let stats = vatn(&["stats", "--json", "--connect", &router]).json();
        assert!(stats["warnings"][0].as_str().unwrap().starts_with("--max-connections 4096: "));
        kill(child.id(), "TERM");
        assert!(end(&mut child).success());
    }

    #[test]
    fn on_the_size_of_files_causes_an_error_and_no_signal() {
        let (broker, folder) = (broker(), tempfile::tempdir().unwrap());
        let long = "x".repeat(100_000);
        for key in ["a", "b", "c"] {
            broker.vatn(&["set", key, &format!("\"{long}\"")]).text();
        }
        let file = folder.path().join("export");
        let script = "ulimit -f 100; exec \"$@\"";
        let mut export = Command::new("sh");
        export.args(["-c", script, "sh", env!("CARGO_BIN_EXE_vatn"), "export"]).arg(&file);
        export.args(["--connect", &broker.router]);
        let output = export.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("File too large"), "{said} {:?}", output.status);
        assert_eq!(ExitStatus::code(&output.status), Some(1));
    }
}
