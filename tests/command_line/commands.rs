//! The command line, as a person or a script uses it: the real program against a real broker.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;

use crate::support::broker::{Broker, broker};
use crate::support::shell::{file, vatn};
use serde_json::{Value, json};

const COMMANDS: [&str; 24] = [
    "serve",
    "get",
    "set",
    "del",
    "incr",
    "decr",
    "range",
    "count",
    "batch",
    "compact",
    "flush",
    "append",
    "touch",
    "wait",
    "stats",
    "ping",
    "changes",
    "watch",
    "import",
    "export",
    "bench",
    "completions",
    "man",
    "help",
];

mod help {
    use super::*;

    #[test]
    fn lists_every_command() {
        let help = vatn(&["--help"]).text();
        for command in COMMANDS {
            assert!(help.contains(&format!("\n  {command} ")), "{command} is not in\n{help}");
        }
        assert!(help.contains("Exit codes:"));
    }

    #[test]
    fn describes_every_command() {
        for command in COMMANDS.iter().filter(|command| **command != "help") {
            let help = vatn(&[*command, "--help"]).text();
            assert!(help.contains(&format!("Usage: vatn {command}")), "{help}");
        }
    }

    #[test]
    fn names_every_flag_of_serve_with_its_variable() {
        let help = vatn(&["serve", "--help"]).text();
        for (flag, variable) in [
            ("-b, --database", "VATN_DATABASE"),
            ("-H, --host", "VATN_HOST"),
            ("-p, --port", "VATN_PORT"),
            ("-d, --debug", "VATN_DEBUG"),
            ("--router", "VATN_ROUTER"),
            ("--publisher", "VATN_PUBLISHER"),
            ("--durability", "VATN_DURABILITY"),
            ("--write-queue-items", "VATN_WRITE_QUEUE_ITEMS"),
            ("--write-queue-bytes", "VATN_WRITE_QUEUE_BYTES"),
            ("--write-queue-wait-ms", "VATN_WRITE_QUEUE_WAIT_MS"),
            ("--checkpoint-threads", "VATN_CHECKPOINT_THREADS"),
            ("--max-connections", "VATN_MAX_CONNECTIONS"),
            ("--slow-request-ms", "VATN_SLOW_REQUEST_MS"),
        ] {
            assert!(help.contains(flag) && help.contains(variable), "{flag} {variable}\n{help}");
        }
    }

    #[test]
    fn is_shown_without_a_command() {
        let done = vatn::<&str>(&[]);
        assert_eq!(done.status, 2);
        assert!(done.stderr.contains("Usage: vatn"), "{done:?}");
    }
}

mod a_mistake {
    use super::*;

    #[test]
    fn in_a_command_is_answered_with_a_suggestion() {
        let done = vatn(&["wacth"]);
        assert!(done.error(2).contains("'watch'"), "{done:?}");
    }

    #[test]
    fn in_a_flag_is_answered_with_a_suggestion() {
        let done = vatn(&["get", "--conect", "tcp://127.0.0.1:1", "key"]);
        assert!(done.error(2).contains("'--connect'"), "{done:?}");
    }

    #[test]
    fn in_a_level_lists_the_levels() {
        let done = vatn(&["set", "key", "1", "--durability", "fast"]);
        let error = done.error(2);
        for level in ["--durability", "memory", "queued", "stored", "synced"] {
            assert!(error.contains(level), "{error}");
        }
    }

    #[test]
    fn in_an_endpoint_names_the_flag_and_the_form() {
        for (command, flag) in [("ping", "--connect"), ("watch", "--subscribe")] {
            let done = vatn(&[command, flag, "localhost:7533"]);
            let error = done.error(2);
            assert!(error.starts_with(flag) && error.contains("tcp://HOST:PORT"), "{error}");
        }
    }
}

mod an_unreachable_broker {
    use super::*;

    /// A port that was free a moment ago.
    fn silent_endpoint() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("tcp://{}", listener.local_addr().unwrap())
    }

    #[test]
    fn is_reported_with_the_endpoint_and_the_cure() {
        let endpoint = silent_endpoint();
        for command in ["ping", "stats", "flush", "count", "range", "export", "bench"] {
            let done = vatn(&[command, "--connect", &endpoint]);
            let expected = format!("nothing listens on {endpoint}: is `vatn serve` running?");
            assert_eq!(done.error(1), expected, "{command}");
        }
        let done = vatn(&["watch", "--subscribe", &endpoint]);
        assert!(done.error(1).contains(&endpoint), "{done:?}");
    }

    #[test]
    fn is_reported_for_a_socket_file_too() {
        let done = vatn(&["ping", "--connect", "ipc:///nonexistent/vatn.sock"]);
        let expected = "nothing listens on ipc:///nonexistent/vatn.sock: is `vatn serve` running?";
        assert_eq!(done.error(1), expected);
    }

    #[test]
    fn is_distinguished_from_a_port_that_never_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let done = vatn(&["ping", "--connect", &endpoint, "--timeout-ms", "200"]);
        assert!(done.error(1).contains("no ZeroMQ handshake"), "{done:?}");
        let done = vatn(&["bench", "--connect", &endpoint, "--timeout-ms", "200"]);
        assert!(done.error(1).contains("no ZeroMQ handshake"), "{done:?}");
    }

    #[test]
    fn is_distinguished_from_another_port_of_the_broker() {
        let broker = broker();
        let done = broker.vatn(&["ping", "--connect", &broker.publisher]);
        assert!(done.error(1).contains("commands go to a --router endpoint"), "{done:?}");
        let done = broker.vatn(&["watch", "--subscribe", &broker.router]);
        assert!(done.error(1).contains("changes come from a --publisher endpoint"), "{done:?}");
        let http = broker.http.replace("http://", "tcp://");
        let done = broker.vatn(&["ping", "--connect", &http, "--timeout-ms", "2000"]);
        assert!(done.error(1).contains("is this the HTTP port?"), "{done:?}");
    }
}

mod serving {
    use super::*;

    #[test]
    fn prints_its_endpoints_as_json() {
        let broker = broker();
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().to_str().unwrap();
        let free = "tcp://127.0.0.1:0";
        let arguments = ["--json", "serve", "-p", "0", "-b", store, "--router", free];
        let mut other = broker.follow(&[&arguments[..], &["--publisher", free]].concat());
        let printed = other.json();
        assert_eq!((&printed["items"], &printed["database"]), (&json!(0), &json!(store)));
        assert!(printed["http"].as_str().unwrap().starts_with("http://127.0.0.1:"));
        assert!(printed["publishers"][0].as_str().unwrap().starts_with("tcp://127.0.0.1:"));
        let router = printed["routers"][0].as_str().unwrap();
        assert_eq!(broker.vatn(&["count", "--connect", router]).text(), "0\n");
        assert_eq!(other.interrupt().code(), Some(0));
    }

    #[test]
    fn one_directory_twice_is_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::open(folder.path(), &[]);
        let store = folder.path().join("store");
        let store = store.to_str().unwrap();
        let done = vatn(&["serve", "-p", "0", "--router", "tcp://127.0.0.1:0", "-b", store]);
        assert!(done.error(1).contains(store), "{done:?}");
        drop(broker);
    }

    #[test]
    fn on_a_port_in_use_is_refused_in_one_line_that_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().to_str().unwrap();
        let free = "tcp://127.0.0.1:0";
        let endpoint = format!("tcp://127.0.0.1:{port}");
        for arguments in [
            ["-p", &port.to_string(), "--router", free, "--publisher", free],
            ["-p", "0", "--router", &endpoint, "--publisher", free],
            ["-p", "0", "--router", free, "--publisher", &endpoint],
        ] {
            let done = vatn(&[&["serve", "-b", store][..], &arguments].concat());
            assert!(done.error(1).contains(&port.to_string()), "{done:?}");
        }
    }

    #[test]
    fn with_an_impossible_limit_is_refused_by_its_flag() {
        let done = vatn(&["serve", "--write-queue-items", "0"]);
        assert_eq!(done.error(2), "--write-queue-items 0: must be at least 1");
        let done = vatn(&["serve", "--write-queue-items", "8000001"]);
        assert_eq!(done.error(2), "--write-queue-items 8000001: must be at most 8000000");
        let done = vatn(&["serve", "--write-queue-bytes", "5000000000"]);
        assert_eq!(done.error(2), "--write-queue-bytes 5000000000: must be at most 2147483648");
        let done = vatn(&["serve", "--max-frames", "0"]);
        assert!(done.error(2).starts_with("--max-frames 0"), "{done:?}");
    }
}

mod values {
    use super::*;

    #[test]
    fn are_written_and_read_as_json() {
        let broker = broker();
        let value = r#"{"name":"Ada","years":[1815,1852],"half":0.5,"none":null}"#;
        assert_eq!(broker.vatn(&["set", "person", value]).text(), "1\n");
        let shown = broker.vatn(&["get", "person"]).text();
        assert!(shown.contains("\n  \"name\": \"Ada\",\n"), "{shown}");
        let described = broker.vatn(&["--json", "get", "person"]).json();
        let value: Value = serde_json::from_str(value).unwrap();
        assert_eq!(described, json!({"key": "person", "found": true, "value": value}));
    }

    #[test]
    fn are_bytes_with_raw() {
        let broker = broker();
        let bytes = b"\x00\xff no text\n";
        let set = broker.vatn_reading(bytes, &["set", "blob", "-", "--raw", "--json"]);
        assert_eq!(set.json(), json!({"seq": 1}));
        assert_eq!(broker.vatn(&["get", "blob", "--raw"]).stdout, bytes);
        let value = broker.vatn(&["get", "blob", "--json"]).json()["value"].take();
        assert_eq!(value, json!({"base64": "AP8gbm8gdGV4dAo="}));
        broker.vatn(&["set", "blob", "plain", "--raw"]).text();
        assert_eq!(broker.vatn(&["get", "blob", "--raw"]).text(), "plain");
        broker.vatn(&["set", "number", "7"]).text();
        let done = broker.vatn(&["get", "number", "--raw"]);
        assert!(done.error(1).contains("--raw"), "{done:?}");
    }

    #[test]
    fn distinguish_nil_from_absence() {
        let broker = broker();
        broker.vatn(&["set", "nothing", "null"]).text();
        assert_eq!(broker.vatn(&["get", "nothing"]).text(), "null\n");
        assert_eq!(broker.vatn(&["get", "missing"]).error(3), "no key 'missing'");
        let done = broker.vatn(&["get", "missing", "--json"]);
        let printed: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!((done.status, printed), (3, json!({"key": "missing", "found": false})));
    }

    #[test]
    fn are_shown_with_their_metadata() {
        let broker = broker();
        broker.vatn(&["set", "a", "1"]).text();
        broker.vatn(&["set", "b", "2", "--durability", "synced", "--ttl-ms", "600000"]).text();
        let meta = broker.vatn(&["get", "b", "--meta", "--json"]).json();
        assert_eq!((&meta["seq"], &meta["durability"]), (&json!(2), &json!("synced")));
        assert!((1..=600_000).contains(&meta["ttl_ms"].as_u64().unwrap()), "{meta}");
        let shown = broker.vatn(&["get", "a", "--meta"]).text();
        assert!(shown.contains("seq         1\n") && shown.contains("stored"), "{shown}");
    }

    #[test]
    fn are_written_only_if_a_condition_holds() {
        let broker = broker();
        let set =
            |value: &str, condition: &str| broker.vatn(&["set", "lock", value, "--if", condition]);
        assert!(set("1", "present").error(4).starts_with("CONFLICT"));
        assert_eq!(set("1", "absent").text(), "1\n");
        assert!(set("2", "absent").error(4).starts_with("CONFLICT"));
        assert_eq!(set("2", "1").text(), "2\n");
        assert!(set("3", "1").error(4).contains("seq 2"));
        assert!(set("3", "sometimes").error(2).contains("--if"));
    }

    #[test]
    fn are_under_keys_of_any_bytes() {
        let broker = broker();
        let key = OsStr::from_bytes(b"k\xfe");
        broker.vatn(&[OsStr::new("set"), key, OsStr::new("1")]).text();
        let got = broker.vatn(&[OsStr::new("--json"), OsStr::new("get"), key]).json();
        assert_eq!(got["key"], json!({"base64": "a/4="}));
        let longest = "k".repeat(32_769);
        assert!(broker.vatn(&["set", &longest, "1"]).error(1).starts_with("BAD_KEY"));
    }
}

mod keys {
    use super::*;

    #[test]
    fn are_deleted_one_or_several_at_a_time() {
        let broker = broker();
        for key in ["a", "b", "c"] {
            broker.vatn(&["set", key, "1"]).text();
        }
        assert_eq!(broker.vatn(&["del", "a"]).text(), "1 deleted\n");
        assert_eq!(broker.vatn(&["del", "a", "b", "c", "--json"]).json(), json!({"deleted": 2}));
        assert_eq!(broker.vatn(&["del", "a", "b"]).error(3), "no key 'a', 'b'");
        assert_eq!(broker.vatn(&["count"]).text(), "0\n");
    }

    #[test]
    fn are_counted_and_listed_in_order() {
        let broker = broker();
        for key in ["b:2", "a:1", "b:1", "b:3", "c"] {
            broker.vatn(&["set", key, "\"v\""]).text();
        }
        assert_eq!(broker.vatn(&["count", "b:"]).text(), "3\n");
        assert_eq!(broker.vatn(&["count", "--json"]).json(), json!({"count": 5}));
        let range = |arguments: &[&str]| {
            let arguments = [&["range", "--json", "--keys-only"], arguments].concat();
            let lines = broker.vatn(&arguments).json_lines();
            lines.iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(range(&[]), ["a:1", "b:1", "b:2", "b:3", "c"]);
        assert_eq!(range(&["b:"]), ["b:1", "b:2", "b:3"]);
        assert_eq!(range(&["--reverse", "--limit", "2"]), ["c", "b:3"]);
        assert_eq!(range(&["--after", "b:1", "--to", "c"]), ["b:2", "b:3"]);
        assert_eq!(range(&["--from", "b:3"]), ["b:3", "c"]);
        let shown = broker.vatn(&["range", "b:", "--limit", "1"]);
        assert_eq!(String::from_utf8(shown.stdout).unwrap(), "b:1\t\"v\"\n");
        assert!(shown.stderr.contains("--after 'b:1'"), "{}", shown.stderr);
    }

    #[test]
    fn are_all_listed_however_many_there_are() {
        let broker = Broker::start(&["--durability", "stored", "--range-items", "7"]);
        let lines: String =
            (0..100).map(|n| format!("{{\"key\":\"k{n:02}\",\"value\":{n}}}\n")).collect();
        broker.vatn_reading(lines.as_bytes(), &["import", "-", "--json"]).json();
        let all = broker.vatn(&["range", "--all", "--json"]).json_lines();
        let expected: Vec<_> =
            (0..100).map(|n| json!({"key": format!("k{n:02}"), "value": n})).collect();
        assert_eq!(all, expected);
        assert_eq!(broker.vatn(&["range", "--limit", "50", "--json"]).json_lines().len(), 50);
        let exported = broker.vatn(&["export"]).json_lines();
        assert_eq!((&exported[..100], &exported[100]["lines"]), (&expected[..], &json!(100)));
    }

    #[test]
    fn are_listed_without_an_error_when_the_output_is_closed() {
        let broker = broker();
        let line = |n| format!("{{\"key\":\"{n}\",\"value\":\"{}\"}}\n", "x".repeat(1000));
        let lines: String = (0..1000).map(line).collect();
        broker.vatn_reading(lines.as_bytes(), &["import", "-", "--json"]).json();
        assert_eq!(broker.follow(&["range", "--all"]).head().code(), Some(0));
        assert_eq!(broker.follow(&["export"]).head().code(), Some(0));
    }
}

mod numbers {
    use super::*;

    #[test]
    fn are_incremented_and_decremented() {
        let broker = broker();
        assert!(broker.vatn(&["incr", "n"]).error(3).starts_with("NOT_FOUND"));
        assert_eq!(broker.vatn(&["incr", "n", "--initial", "-5"]).text(), "-5\n");
        assert_eq!(broker.vatn(&["incr", "n"]).text(), "-4\n");
        assert_eq!(broker.vatn(&["incr", "n", "10", "--json"]).json(), json!({"value": 6}));
        assert_eq!(broker.vatn(&["decr", "n", "7"]).text(), "-1\n");
        broker.vatn(&["set", "n", "18446744073709551615"]).text();
        assert!(broker.vatn(&["incr", "n"]).error(1).starts_with("OVERFLOW"));
        broker.vatn(&["set", "n", "\"seven\""]).text();
        assert!(broker.vatn(&["incr", "n"]).error(1).starts_with("NOT_A_NUMBER"));
    }
}

mod append {
    use super::*;

    #[test]
    fn appends_text_and_bytes_to_a_value() {
        let broker = broker();
        assert_eq!(broker.vatn(&["append", "log", "ebb, "]).text(), "5\n");
        assert_eq!(broker.vatn(&["append", "log", "flood", "--json"]).json(), json!({"bytes": 10}));
        assert_eq!(broker.vatn(&["get", "log"]).text(), "ebb, flood\n");
        assert_eq!(broker.vatn(&["append", "log", "!", "--raw", "--ttl", "1h"]).text(), "11\n");
        assert!(
            broker.vatn(&["append", "log", "x", "--if", "absent"]).error(4).contains("CONFLICT")
        );
        broker.vatn(&["set", "over", "1", "--expires-at-ms", "1"]).text();
        assert!(broker.vatn(&["get", "over"]).error(3).contains("over"));
        broker.vatn(&["set", "n", "7"]).text();
        assert!(broker.vatn(&["append", "n", "x"]).error(1).starts_with("WRONG_TYPE"));
    }
}

mod a_batch {
    use super::*;

    #[test]
    fn is_executed_as_one_write() {
        let broker = broker();
        let lines =
            b"[\"set\", [\"a\", 1]]\n\n[\"incr\", [\"a\", {\"delta\": 4}]]\n[\"get\", [\"a\"]]\n";
        let done = broker.vatn_reading(lines, &["batch", "--json"]);
        assert_eq!(done.json(), json!([1, 5, 5]));
        assert_eq!(broker.vatn(&["get", "a", "--meta", "--json"]).json()["seq"], 1);
    }

    #[test]
    fn that_fails_leaves_nothing_and_names_its_line() {
        let broker = broker();
        let folder = tempfile::tempdir().unwrap();
        let lines = "[\"set\", [\"a\", 1]]\n\n[\"incr\", [\"missing\"]]\n";
        let path = file(&folder, "batch.jsonl", lines);
        let done = broker.vatn(&["batch", &path]);
        assert!(done.error(3).starts_with(&format!("{path}:3: NOT_FOUND")), "{done:?}");
        assert_eq!(broker.vatn(&["count"]).text(), "0\n");
        let path = file(&folder, "wrong.jsonl", "[\"set\"]\n");
        let done = broker.vatn(&["batch", &path]);
        assert!(done.error(1).starts_with(&format!("{path}:1: a line is")), "{done:?}");
    }
}

mod the_broker {
    use super::*;

    #[test]
    fn answers_a_ping_with_its_identity() {
        let broker = broker();
        let shown = broker.vatn(&["ping"]).text();
        assert!(shown.starts_with("vatn ") && shown.contains(&broker.router), "{shown}");
        let described = broker.vatn(&["ping", "--json"]).json();
        assert_eq!(described["hello"]["protocol"], 1);
        assert!(described["round_trip_us"].is_u64());
    }

    #[test]
    fn prints_its_statistics_after_the_status_line() {
        let broker = broker();
        broker.vatn(&["set", "a", "1"]).text();
        let status = " bytes :: 0 items in queue :: 1 items in storage memory";
        let flushed = broker.vatn(&["flush"]).text();
        assert!(flushed.trim_end().ends_with(status), "{flushed}");
        let shown = broker.vatn(&["stats"]).text();
        assert!(shown.lines().next().unwrap().ends_with(status), "{shown}");
        assert!(shown.contains("\nseq.applied "), "{shown}");
        let described = broker.vatn(&["stats", "--json"]).json();
        assert_eq!(described["seq"]["checkpointed"], 1);
        assert!(described["status"].as_str().unwrap().ends_with(status));
        let flushed = broker.vatn(&["flush", "--json"]).json();
        assert!(flushed["status"].as_str().unwrap().ends_with(status));
    }

    #[test]
    fn is_reached_over_a_socket_file() {
        let folder = tempfile::tempdir().unwrap();
        let router = format!("ipc://{}/r.sock", folder.path().display());
        let broker = Broker::start(&["--router", &router]);
        assert_eq!(broker.vatn(&["set", "a", "1", "--connect", &router]).text(), "1\n");
        assert_eq!(broker.vatn(&["get", "a"]).text(), "1\n");
    }
}

mod a_benchmark {
    use super::*;

    #[test]
    fn counts_its_requests() {
        let broker = broker();
        let arguments = ["bench", "-c", "3", "-P", "4", "-k", "50", "-s", "10", "-n", "1000"];
        let more = ["--per-message", "7", "-m", "get,set,incr", "--json", "--durability", "memory"];
        let more = [&more[..], &["--threads", "2", "--keep"]].concat();
        let report = broker.vatn(&[&arguments[..], &more].concat()).json();
        assert_eq!(report["all"]["requests"], 1000);
        assert_eq!((&report["errors"], &report["absent"]), (&json!({}), &json!(0)));
        let each: u64 = ["get", "set", "incr"]
            .map(|name| report["operations"][name]["requests"].as_u64().unwrap())
            .iter()
            .sum();
        assert_eq!(each, 1000);
        for figure in ["requests_per_second", "p50_us", "p99_us", "p99_9_us", "max_us"] {
            assert!(report["all"][figure].is_f64(), "{figure} in {report}");
        }
        assert_eq!(broker.vatn(&["count", "bench:v:"]).text(), "50\n");
    }

    #[test]
    fn deletes_the_keys_that_it_made_and_no_others() {
        let broker = broker();
        broker.vatn(&["set", "bench:v:mine", "1"]).text();
        let bench = ["bench", "-c", "2", "-k", "20", "-n", "100", "-m", "get,set,incr"];
        let count = || broker.vatn(&["count"]).text();
        assert!(broker.vatn(&bench).text().contains("requests/s"));
        assert_eq!(count(), "1\n");
        broker.vatn(&[&bench[..], &["--keep"]].concat()).text();
        assert_ne!(count(), "1\n");
        broker.vatn(&[&bench[..], &["--no-load", "--clean"]].concat()).text();
        assert_eq!(count(), "1\n");
    }

    #[test]
    fn fails_when_requests_were_refused() {
        let broker = broker();
        broker.vatn(&["set", "bench:n:0000000000", "true"]).text();
        let done = broker.vatn(&["bench", "-c", "1", "-k", "1", "-m", "incr", "-n", "30"]);
        assert_eq!(done.error(1), "requests were refused: 30 NOT_A_NUMBER");
        let done = broker.vatn(&["bench", "-m", "rename"]);
        assert!(done.error(2).contains("'rename' is none of get, set, incr"), "{done:?}");
    }
}

mod documents {
    use super::*;

    #[test]
    fn complete_commands_in_every_shell() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = vatn(&["completions", shell]).text();
            assert!(script.contains("vatn") && script.contains("durability"), "{shell}");
        }
    }

    #[test]
    fn are_pages_of_a_manual() {
        let page = vatn(&["man"]).text();
        assert!(page.contains(".TH vatn 1") && page.contains("Exit codes:"), "{page}");
        let page = vatn(&["man", "serve"]).text();
        assert!(page.contains("VATN_DATABASE"), "{page}");
        let done = vatn(&["man", "sevre"]);
        assert_eq!(done.error(2), "there is no command 'sevre'");
    }
}
