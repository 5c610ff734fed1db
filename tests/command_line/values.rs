//! Typed arguments: values that are JSON or text, keys of any bytes, times and sizes with units,
//! and hints that work when they are typed.

use crate::support::broker::{Broker, broker};
use crate::support::shell::{file, vatn};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

mod a_value {
    use super::*;

    #[test]
    fn is_json_where_it_parses_and_text_otherwise() {
        let broker = broker();
        for (flags, given, stored) in [
            (&[][..], "hello", json!("hello")),
            (&[], "", json!("")),
            (&[], "007", json!("007")),
            (&[], "-3", json!(-3)),
            (&[], "--", json!("--")),
            (&[], "7", json!(7)),
            (&[], "\"7\"", json!("7")),
            (&[], "null", json!(null)),
            (&[], "[1, 2]", json!([1, 2])),
            (&[], "it's Ærø\n", json!("it's Ærø\n")),
            (&["--string"], "7", json!("7")),
            (&["--string"], "{\"a\":1}", json!("{\"a\":1}")),
            (&["--json-value"], "{\"a\":1}", json!({"a": 1})),
            (&["--raw"], "7", json!({"base64": "Nw=="})),
        ] {
            let done = broker.vatn(&[&["set"], flags, &["k"], &["--"], &[given]].concat());
            done.text();
            assert_eq!(broker.vatn(&["get", "k", "--json"]).json()["value"], stored, "{given}");
        }
    }

    #[test]
    fn that_cannot_be_stored_as_intended_is_refused() {
        let broker = broker();
        for (flags, given, reason) in [
            (&["--json-value"][..], "hello", "VALUE is not JSON"),
            (&[], "18446744073709551616", "outside"),
            (&[], "1e999", "too large for a float"),
            (&[], &"[".repeat(200), "nested too deep"),
            (&[], r#"[{"a":1,"b":{},"a":2}]"#, "the name \"a\" twice"),
            (&["--raw", "--string"], "x", "cannot be used with"),
        ] {
            let done = broker.vatn(&[&["set"], flags, &["k"], &["--"], &[given]].concat());
            assert!(done.error(2).contains(reason), "{done:?}");
        }
        let done = broker.vatn(&[OsStr::new("set"), OsStr::new("k"), OsStr::from_bytes(b"\xff")]);
        assert!(done.error(2).contains("--raw"), "{done:?}");
        // Text that looks like JSON and is invalid is stored as a string, with a notice.
        let done = broker.vatn(&["set", "k", "{a}"]);
        assert!(done.status == 0 && done.stderr.contains("stored as a string"), "{done:?}");
        assert_eq!(broker.vatn(&["count"]).text(), "1\n");
    }

    #[test]
    fn that_was_replaced_is_printed_on_request() {
        let broker = broker();
        let set = |value, json| {
            let flags = ["set", "k", value, "--return-value"];
            broker.vatn(&[&flags[..], json].concat())
        };
        assert_eq!(set("open", &[]).text(), "(nil)\n");
        assert_eq!(set("[1]", &[]).text(), "open\n");
        assert_eq!(set("null", &["--json"]).json(), json!({"replaced": [1]}));
        assert!(vatn(&["getset", "k", "1"]).error(2).contains("vatn set KEY VALUE --return-value"));
    }

    #[test]
    fn that_is_a_string_is_printed_unchanged() {
        let broker = broker();
        broker.vatn(&["set", "k", "say \"hello\"\n\u{1b}[1m"]).text();
        assert_eq!(broker.vatn(&["get", "k"]).text(), "say \"hello\"\n\u{1b}[1m\n");
        broker.vatn_reading(b"\x00a\\\xff", &["set", "b", "-", "--raw"]).text();
        assert_eq!(broker.vatn(&["get", "b"]).text(), "\\x00a\\\\\\xFF\n");
        assert_eq!(broker.vatn(&["get", "b", "--raw"]).stdout, b"\x00a\\\xff");
    }

    #[test]
    fn on_a_terminal_is_printed_without_control_codes() {
        let broker = broker();
        broker.vatn_reading(b"\x00\x1b[2J", &["set", "b", "-", "--raw"]).text();
        broker.vatn(&["set", "s", "\u{1b}]0;x\u{7}\u{9b}2J\u{202e}"]).text();
        broker.vatn(&["set", "m", "[\"\u{9b}2J\"]"]).text();
        let long = vec![7; 100_000];
        broker.vatn_reading(&long, &["set", "long", "-", "--raw"]).text();
        let commands: [&[&str]; 6] = [
            &["get", "b"],
            &["get", "b", "--raw"],
            &["get", "s"],
            &["get", "m"],
            &["get", "b", "s", "m"],
            &["range", "--all"],
        ];
        for command in commands {
            let shown = on_a_terminal(&broker, command);
            let is_odd = |c: char| c.is_control() && c != '\r' && c != '\n' && c != '\t';
            assert!(!shown.is_empty() && !shown.contains(is_odd), "{command:?} {shown:?}");
        }
        let shown = on_a_terminal(&broker, &["get", "long"]);
        assert!(shown.len() < 10_000 && shown.contains("of 100000 bytes"), "{shown:?}");
    }

    #[test]
    fn that_is_too_large_names_the_limit_at_once() {
        let broker = Broker::start(&["--max-message-bytes", "64KiB"]);
        let huge = vec![b'x'; 1 << 20];
        // A wait for a reply would never end.
        for arguments in [
            &["set", "k", "-", "--raw", "--timeout-ms", "0"][..],
            &["set", "k", &"y".repeat(65_600), "--timeout-ms", "0"],
        ] {
            let done = broker.vatn_reading(&huge, arguments);
            let error = done.error(1);
            assert!(error.contains("65536") && error.contains("--max-message-bytes"), "{error}");
        }
        let line = |n: u32| format!("{{\"key\":\"{n}\",\"value\":\"{}\"}}\n", "z".repeat(1000));
        let lines: String = (0..500).map(line).collect();
        broker.vatn_reading(lines.as_bytes(), &["import", "-"]).text();
        assert_eq!(broker.vatn(&["count"]).text(), "500\n");
    }

    /// The output of a command on a terminal, and on the terminal alone.
    fn on_a_terminal(broker: &Broker, arguments: &[&str]) -> String {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let side = File::options().read(true).write(true).open(name).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_vatn"))
            .args(arguments)
            .env("VATN_CONNECT", &broker.router)
            .stdin(Stdio::null())
            .stdout(side.try_clone().unwrap())
            .stderr(side)
            .spawn()
            .unwrap();
        let (mut shown, mut terminal) = (Vec::new(), File::from(terminal));
        // Reading ends with EIO when the other side is closed.
        let _ = terminal.read_to_end(&mut shown);
        assert!(child.wait().unwrap().success());
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn from_a_terminal_is_awaited_with_a_notice() {
        let broker = broker();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let mut terminal = File::from(terminal);
        for (command, typed) in [
            (&["set", "k", "-"][..], "typed\n"),
            (&["batch"], "[\"set\", [\"b\", 1]]\n"),
            (&["import", "-"], "{\"key\":\"c\",\"value\":1}\n"),
        ] {
            let side = File::options().read(true).write(true).open(&name).unwrap();
            let child = Command::new(env!("CARGO_BIN_EXE_vatn"))
                .args(command)
                .env("VATN_CONNECT", &broker.router)
                .stdin(side)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            terminal.write_all(format!("{typed}\u{4}").as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success() && said.contains("Ctrl-D"), "{command:?} {said}");
        }
        assert_eq!(broker.vatn(&["get", "k"]).text(), "typed\n\n");
        assert_eq!(broker.vatn(&["count"]).text(), "3\n");
    }
}

mod a_key {
    use super::*;

    /// Keys that are ordinary in a database, and some that are special in a shell.
    const ODD: [&[u8]; 12] = [
        b"",
        b"plain",
        b"-k",
        b"--json",
        b"it's",
        b"a b",
        b"a\\b",
        b"\\x41",
        b"tab\tnewline\n",
        b"k\xfe\x00",
        "Ærø".as_bytes(),
        "\u{202e}".as_bytes(),
    ];

    fn with_odd_keys(arguments: &[&str]) -> Broker {
        let broker = Broker::start(arguments);
        for key in ODD {
            // Without a NUL, which no argument can have, the bytes may be given unescaped.
            let text = key_text(key);
            broker.vatn(&["set", "--", &text, "1"]).text();
        }
        broker
    }

    /// A key as `range` prints it.
    fn key_text(key: &[u8]) -> String {
        let mut text = String::new();
        for byte in key {
            match byte {
                b'\\' => text.push_str("\\\\"),
                b' '..=b'~' => text.push(char::from(*byte)),
                _ => text.push_str(&format!("\\x{byte:02x}")),
            }
        }
        text
    }

    #[test]
    fn as_printed_is_accepted_by_every_command() {
        let broker = with_odd_keys(&["--durability", "stored"]);
        let shown = broker.vatn(&["range", "--keys-only"]).text();
        let shown: Vec<&str> = shown.lines().collect();
        assert_eq!(shown.len(), ODD.len(), "{shown:?}");
        for key in shown {
            assert_eq!(broker.vatn(&["get", "--", key]).text(), "1\n", "{key:?}");
            assert_eq!(broker.vatn(&["incr", "--", key]).text(), "2\n");
            assert_eq!(broker.vatn(&["touch", "--ttl", "1h", "--", key]).text(), "1 touched\n");
            assert!(broker.vatn(&["count", "--", key]).text().trim().parse::<u32>().unwrap() > 0);
            let from = format!("--from={key}");
            let first = broker.vatn(&["range", "--keys-only", "--limit", "1", &from]).stdout;
            assert_eq!(String::from_utf8(first).unwrap(), format!("{key}\n"));
            assert_eq!(broker.vatn(&["del", "--", key]).text(), "1 deleted\n", "{key:?}");
        }
        assert_eq!(broker.vatn(&["count"]).text(), "0\n");
        assert!(broker.vatn(&["get", "\\x4"]).error(2).contains("two hexadecimal digits"));
    }

    #[test]
    fn continues_the_listing_in_the_printed_command() {
        for flags in [&[][..], &["--keys-only", "--reverse"], &["--from", "-", "--to", "z"]] {
            let broker = with_odd_keys(&[]);
            let whole = broker.vatn(&[&["range", "--all"], flags].concat()).text();
            let mut command = format!("vatn range --limit 1 {}", flags.join(" "));
            let (mut paged, mut pages) = (String::new(), 0);
            loop {
                pages += 1;
                assert!(pages <= ODD.len(), "{command} repeats pages: {paged}");
                let vatn = format!("vatn() {{ '{}' \"$@\"; }}; ", env!("CARGO_BIN_EXE_vatn"));
                let shell = Command::new("sh")
                    .args(["-c", &format!("{vatn}{command}")])
                    .env("VATN_CONNECT", &broker.router)
                    .output()
                    .unwrap();
                assert!(shell.status.success(), "{command}: {shell:?}");
                paged.push_str(&String::from_utf8(shell.stdout).unwrap());
                let said = String::from_utf8(shell.stderr).unwrap();
                let Some(hint) = said.strip_prefix("there is more: ") else { break };
                command = hint.trim_end().strip_suffix(", or --all").unwrap().to_owned();
            }
            assert_eq!(paged, whole, "{flags:?}");
        }
    }

    #[test]
    fn is_deleted_by_prefix_or_on_a_condition() {
        let broker = Broker::start(&["--range-items", "3", "--durability", "stored"]);
        let lines: String =
            (0..20).map(|n| format!("{{\"key\":\"a{n}\",\"value\":{n}}}\n")).collect();
        broker.vatn_reading(lines.as_bytes(), &["import", "-"]).text();
        broker.vatn(&["set", "b", "1"]).text();
        assert_eq!(broker.vatn(&["del", "--prefix", "a"]).text(), "20 deleted\n");
        assert_eq!(broker.vatn(&["del", "--prefix", "a"]).error(3), "no key begins with 'a'");
        assert_eq!(broker.vatn(&["del", "--prefix", "", "--json"]).status, 2);
        assert_eq!(broker.vatn(&["del"]).status, 2);
        assert!(broker.vatn(&["del", "b", "--if", "1"]).error(4).starts_with("CONFLICT"));
        let seq = broker.vatn(&["get", "b", "--meta", "--json"]).json()["seq"].to_string();
        assert_eq!(broker.vatn(&["del", "b", "--if", &seq]).text(), "1 deleted\n");
        broker.vatn(&["set", "c", "1"]).text();
        assert_eq!(broker.vatn(&["del", "--all", "--json"]).json(), json!({"deleted": 1}));
    }

    #[test]
    fn is_read_together_with_others() {
        let broker = broker();
        broker.vatn(&["set", "a", "hello"]).text();
        broker.vatn(&["set", "b", "7"]).text();
        assert_eq!(broker.vatn(&["get", "b", "a"]).text(), "b\t7\na\t\"hello\"\n");
        let done = broker.vatn(&["get", "a", "none", "b"]);
        assert_eq!(done.error(3), "no key 'none'");
        assert_eq!(done.stdout, b"a\t\"hello\"\nnone\t(nil)\nb\t7\n");
        let lines = broker.vatn(&["get", "a", "b", "--json"]).json_lines();
        assert_eq!(lines[1], json!({"key": "b", "found": true, "value": 7}));
        assert!(broker.vatn(&["get", "a", "b", "--raw"]).error(2).contains("one key"));
    }
}

mod time {
    use super::*;

    #[test]
    fn is_given_with_its_unit() {
        let broker = broker();
        let left = |key: &str| {
            let meta = broker.vatn(&["get", key, "--meta", "--json"]).json();
            meta["ttl_ms"].as_u64()
        };
        broker.vatn(&["set", "k", "v", "--ttl", "10m"]).text();
        assert!(left("k").is_some_and(|ms| (590_000..=600_000).contains(&ms)));
        broker.vatn(&["incr", "n", "--initial", "1", "--ttl-ms", "1h"]).text();
        assert!(left("n").is_some_and(|ms| ms > 3_500_000));
        assert_eq!(broker.vatn(&["touch", "k", "1h30m"]).text(), "1 touched\n");
        assert!(left("k").is_some_and(|ms| (5_300_000..=5_400_000).contains(&ms)));
        assert_eq!(
            broker.vatn(&["touch", "k", "--forever", "--json"]).json(),
            json!({"touched": true})
        );
        assert_eq!(left("k"), None);
        assert_eq!(broker.vatn(&["touch", "none", "--ttl", "1s"]).error(3), "no key 'none'");
        for arguments in [
            &["set", "k", "v", "--ttl", "10"][..],
            &["set", "k", "v", "--ttl", "soon"],
            &["touch", "k"],
            &["touch", "k", "1s", "--forever"],
        ] {
            assert_eq!(broker.vatn(arguments).status, 2, "{arguments:?}");
        }
    }

    #[test]
    fn that_runs_out_has_its_own_exit_code() {
        let broker = broker();
        broker.vatn(&["set", "k", "v"]).text();
        assert_eq!(broker.vatn(&["wait"]).text(), "seq 1 is synced\n");
        assert_eq!(broker.vatn(&["wait", "1", "stored"]).text(), "seq 1 is stored\n");
        let done = broker.vatn(&["wait", "99", "--timeout-ms", "20ms", "--json"]);
        assert!(done.error(5).contains("seq 99 is not synced yet"), "{done:?}");
        let printed: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(printed["reached"], json!(false));
    }

    #[test]
    fn steps_of_numbers_may_be_negative() {
        let broker = broker();
        broker.vatn(&["set", "n", "10"]).text();
        assert_eq!(broker.vatn(&["incr", "n", "-3"]).text(), "7\n");
        assert_eq!(broker.vatn(&["decr", "n", "-3"]).text(), "10\n");
        assert_eq!(broker.vatn(&["incr", "n", "-3", "--json"]).json(), json!({"value": 7}));
        assert!(broker.vatn(&["incr", "n", "x"]).error(2).contains("not an integer"));
    }
}

mod control_c {
    use super::*;
    use std::process::Child;

    fn begin(broker: &Broker, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vatn"));
        command.args(arguments).env("VATN_CONNECT", &broker.router);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn interrupt(child: Child) -> (Option<i32>, String, String) {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    const INT: u64 = 1 << 1;
    const TERM: u64 = 1 << 14;

    /// The signals that a process catches; `None` when it has ended.
    fn caught_by(child: &Child) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
        let status = status.unwrap_or_default();
        if status.contains("State:\tZ") {
            return None;
        }
        if !status.starts_with("Name:\tvatn\n") {
            // The shell catches some for itself.
            return Some(0);
        }
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
    }

    /// A command that waits for a broker which never replies.
    fn waiting(endpoint: &str, prelude: &str, arguments: &[&str]) -> Child {
        let script = format!("{prelude} exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_vatn")]).args(arguments);
        command.env("VATN_CONNECT", endpoint).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn is_answered_in_one_line_by_every_command() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", silent.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name).to_str().unwrap().to_owned();
        let (pipe, new) = (path("pipe"), path("new"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let lines = file(&folder, "lines", "[\"get\", [\"k\"]]\n");
        let commands: [&[&str]; 24] = [
            &["get", "k"],
            &["set", "k", "v"],
            &["del", "k"],
            &["del", "--prefix", "k"],
            &["incr", "k"],
            &["decr", "k"],
            &["append", "k", "v"],
            &["touch", "k", "--forever"],
            &["range"],
            &["count"],
            &["batch", &lines],
            &["flush"],
            &["wait"],
            &["stats"],
            &["ping"],
            &["compact"],
            &["changes", "--from", "0"],
            &["watch", "--subscribe", &endpoint],
            &["import", &lines],
            &["export"],
            &["export", &new],
            &["backup", &new],
            &["bench"],
            &["restore", &pipe, "-b", &new],
        ];
        for arguments in commands {
            let child = waiting(&endpoint, "", arguments);
            while caught_by(&child).is_some_and(|mask| mask & INT == 0) {}
            let (status, printed, said) = interrupt(child);
            assert_eq!((status, printed.as_str()), (Some(130), ""), "{arguments:?}: {said}");
            assert!(said.starts_with("vatn: error: interrupted"), "{arguments:?}: {said}");
            assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        }
        assert!(!folder.path().join("new").exists());
    }

    #[test]
    fn stays_ignored_where_the_parent_process_ignores_it() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", silent.local_addr().unwrap());
        for arguments in [["get", "k"], ["import", "-"]] {
            let mut child = waiting(&endpoint, "trap '' INT;", &arguments);
            while caught_by(&child).is_some_and(|mask| mask & TERM == 0) {}
            assert_eq!(caught_by(&child).map(|mask| mask & INT), Some(0), "{arguments:?}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn makes_import_report_its_progress() {
        let broker = broker();
        let mut child = begin(&broker, &["import", "-"]);
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"{\"key\":\"a\",\"value\":1}\n{\"key\":\"b\",\"value\":1}\n").unwrap();
        while broker.vatn(&["count"]).text() != "2\n" {}
        let (status, _, said) = interrupt(child);
        drop(input);
        assert_eq!(status, Some(130), "{said}");
        assert!(said.contains("2 items") && said.contains("up to standard input:2"), "{said}");
    }

    #[test]
    fn makes_bench_print_its_measurements_and_clean_up() {
        let broker = broker();
        broker.vatn(&["set", "bench:mine", "1"]).text();
        let child = begin(&broker, &["bench", "-t", "1h", "-k", "50", "-c", "2"]);
        let commands = || broker.vatn(&["stats", "--json"]).json()["commands"].as_u64().unwrap();
        while commands() < 1000 {}
        let (status, printed, said) = interrupt(child);
        assert_eq!(status, Some(130), "{said}");
        assert!(printed.contains("requests/s") && said.contains("interrupted after"), "{said}");
        assert_eq!(broker.vatn(&["count"]).text(), "1\n");
    }

    #[test]
    fn makes_check_report_that_nothing_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::open(folder.path(), &[]);
        let value = "x".repeat(100_000);
        let lines: String =
            (0..300).map(|n| format!("{{\"key\":\"{n}\",\"value\":\"{value}\"}}\n")).collect();
        let path = file(&folder, "lines", &lines);
        broker.vatn(&["import", &path]).text();
        assert!(broker.vatn(&["flush"]).status == 0);
        drop(broker);
        let store = folder.path().join("store");
        let store = store.to_str().unwrap();
        // The check may be done before the signal comes.
        for _ in 0..50 {
            let child = Command::new(env!("CARGO_BIN_EXE_vatn"))
                .args(["check", store])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            while caught_by(&child).is_some_and(|mask| mask & INT == 0) {}
            let (status, _, said) = interrupt(child);
            if status == Some(130) {
                assert!(said.contains("interrupted after") && said.contains("nothing was changed"));
                return;
            }
        }
        panic!("it was never interrupted");
    }
}

#[test]
fn help_begins_with_a_description_and_has_an_example() {
    let all = vatn(&["--help"]).text();
    let commands = all.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let commands: Vec<&str> = commands
        .map_while(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .collect();
    assert!(commands.len() > 20, "{commands:?}");
    for line in commands {
        let name = line.split(' ').next().unwrap();
        if name == "help" {
            continue;
        }
        let help = vatn(&[name, "--help"]).text();
        assert!(help.contains("Example"), "{name} has no example:\n{help}");
        assert!(help.contains(&format!("vatn {name}")), "{name}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
    let help = vatn(&["completions", "--help"]).text();
    assert!(help.contains("zsh") && help.contains("fish"), "{help}");
}
