//! Streams of the command line: watched changes, exported and imported items.

use crate::support::broker::{Broker, broker};
use crate::support::shell::file;
use serde_json::{Value, json};

mod watching {
    use super::*;

    #[test]
    fn shows_every_change_under_a_prefix() {
        let broker = broker();
        broker.vatn(&["set", "u:0", "0"]).text();
        let mut watch = broker.follow(&["watch", "u:", "--json", "--count", "4"]);
        assert_eq!(watch.json(), json!({"watching": "u:", "seq": 1}));
        broker.vatn(&["set", "u:1", "{\"x\":1}"]).text();
        broker.vatn(&["set", "other", "1"]).text();
        broker.vatn(&["del", "u:0"]).text();
        broker.vatn_reading(
            b"[\"set\",[\"u:2\",2]]\n[\"set\",[\"u:3\",{\"base64\":\"/w==\"}]]\n",
            &["batch"],
        );
        let changes: Vec<Value> = (0..4).map(|_| watch.json()).collect();
        assert_eq!(
            changes[0],
            json!({
                "seq": 2, "op": "set", "key": "u:1", "index": 0, "count": 1, "prev": 1,
                "ttl_ms": null, "level": "stored", "value": {"x": 1},
            })
        );
        let fields = ["seq", "op", "key", "index", "prev"];
        let short = changes.iter().map(|change| fields.map(|name| change[name].clone()));
        let short: Vec<_> = short.collect();
        assert_eq!(short[1], [json!(4), json!("delete"), json!("u:0"), json!(0), json!(2)]);
        assert_eq!(short[2], [json!(5), json!("set"), json!("u:2"), json!(0), json!(4)]);
        assert_eq!(short[3], [json!(5), json!("set"), json!("u:3"), json!(1), json!(5)]);
        assert_eq!(changes[3]["value"], json!({"base64": "/w=="}));
        assert!(watch.end().success());
    }

    #[test]
    fn ends_with_success_on_control_c() {
        let broker = broker();
        let mut watch = broker.follow(&["watch", "--json"]);
        watch.json();
        assert_eq!(watch.interrupt().code(), Some(0));
    }

    #[test]
    fn continues_when_the_broker_restarts_and_reports_what_it_cannot_request() {
        let folder = tempfile::tempdir().unwrap();
        let publisher = format!("ipc://{}/p.sock", folder.path().display());
        let arguments = ["--publisher", &publisher, "--durability", "stored"];
        let broker = Broker::open(folder.path(), &arguments);
        // No endpoint is given at which it could request the missed changes.
        let mut watch = broker.follow_at(&["watch", "--json", "--subscribe", &publisher]);
        watch.json();
        broker.vatn(&["set", "before", "1"]).text();
        assert_eq!(watch.json()["key"], "before");
        broker.kill();
        let broker = Broker::open(folder.path(), &arguments);
        // After a crash the seqs continue higher up, and those in between are not known here.
        let gap = watch.json();
        assert_eq!(gap["gap"]["after"], 1);
        broker.vatn(&["set", "after", "1"]).text();
        let change = watch.json();
        assert_eq!((&change["key"], &change["prev"]), (&json!("after"), &gap["gap"]["through"]));
    }
}

mod import_and_export {
    use super::*;

    /// One of each value that JSON cannot represent, and some that it can.
    const LINES: &str = r#"{"key":"","value":null}
{"key":"big","value":[18446744073709551615,-9223372036854775808,0.1,-0.0]}
{"key":"bin","value":{"base64":"AP8="}}
{"key":"ext","value":{"ext":[-1,"AAECAw=="]}}
{"key":"f32","value":{"msgpack":"yj/AAAA="}}
{"key":"looks","value":{"msgpack":"gaZiYXNlNjSiWmc="}}
{"key":"nan","value":{"msgpack":"y3/4AAAAAAAA"}}
{"key":"number","value":{"msgpack":"gbwkc2VyZGVfanNvbjo6cHJpdmF0ZTo6TnVtYmVyoTU="}}
{"key":"number, not one","value":{"msgpack":"kYG8JHNlcmRlX2pzb246OnByaXZhdGU6Ok51bWJlcqF4"}}
{"key":"text","value":"Ærøskøbing \u0000 🎉"}
{"key":"wide","value":{"msgpack":"zQAB"}}
{"key":{"base64":"/g=="},"value":{"map":{"a":[true,false]}}}
"#;

    #[test]
    fn keep_every_byte_of_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "in.jsonl", LINES);
        let one = broker();
        let imported = one.vatn(&["import", &path, "--json"]).json();
        assert_eq!(imported["items"], 12);
        assert!(imported["items_per_second"].is_f64());
        let mark = |seq| format!("{{\"vatn\":\"export\",\"seq\":{seq},\"lines\":12}}\n");
        let expected = format!("{LINES}{}", mark(1));
        assert_eq!(one.vatn(&["export"]).text(), expected);
        let exported = folder.path().join("out.jsonl");
        let exported = exported.to_str().unwrap();
        let summary = one.vatn(&["export", exported]).text();
        assert!(summary.starts_with("12 items, "), "{summary}");
        assert_eq!(std::fs::read_to_string(exported).unwrap(), expected);
        let two = broker();
        two.vatn(&["set", "first", "1"]).text();
        two.vatn(&["del", "first"]).text();
        let summary = two.vatn(&["import", exported, "--durability", "synced"]).text();
        assert!(summary.ends_with("complete up to seq 1 of the source\n"), "{summary}");
        assert_eq!(two.vatn(&["export"]).text(), format!("{LINES}{}", mark(3)));
    }

    #[test]
    fn carry_many_items_and_those_of_a_prefix() {
        let broker = broker();
        let line = |n| format!("{{\"key\":\"{}:{n:05}\",\"value\":{{\"n\":{n}}}}}\n", n % 2);
        let lines: String = (0..20_000).map(line).collect();
        let done = broker.vatn_reading(lines.as_bytes(), &["import", "-", "--json"]);
        assert_eq!(done.json()["items"], 20_000);
        assert_eq!(broker.vatn(&["count"]).text(), "20000\n");
        let odd = broker.vatn(&["export", "--prefix", "1:"]).text();
        let mut sorted: Vec<&str> = lines.lines().filter(|line| line.contains("\"1:")).collect();
        sorted.sort_unstable();
        let mut odd: Vec<&str> = odd.lines().collect();
        assert!(odd.pop().unwrap().contains("\"lines\":10000"));
        assert_eq!(odd, sorted);
    }

    #[test]
    fn name_the_invalid_line() {
        let broker = broker();
        let folder = tempfile::tempdir().unwrap();
        let good = "{\"key\":\"a\",\"value\":1}\n";
        for (name, bad, reason) in [
            ("half", "{\"key\":\"a\"", "not JSON"),
            ("key", "{\"key\":1,\"value\":1}", "a key is a string"),
            ("member", "{\"key\":\"a\",\"valeu\":1}", "unknown member \"valeu\""),
            ("twice", "{\"key\":\"a\",\"value\":1,\"key\":\"b\"}", "the name \"key\" twice"),
            ("base64", "{\"key\":\"a\",\"value\":{\"base64\":\"?\"}}", "not base64"),
        ] {
            let path = file(&folder, name, &format!("{good}\n{bad}\n{good}"));
            let done = broker.vatn(&["import", &path]);
            let error = done.error(1);
            assert!(error.starts_with(&format!("{path}:3: ")) && error.contains(reason), "{error}");
        }
        let reserved = "{\"key\":{\"base64\":\"/2E=\"},\"value\":1}\n";
        let path = file(&folder, "reserved", &format!("{good}{reserved}"));
        let done = broker.vatn(&["import", &path]);
        let expected = format!("{path}:1 to {path}:2: BAD_KEY");
        assert!(done.error(1).starts_with(&expected), "{done:?}");
    }

    #[test]
    fn count_the_items_that_have_expired() {
        let broker = broker();
        broker.vatn(&["set", "old", "0"]).text();
        broker.vatn(&["set", "gone", "0"]).text();
        let item = |key: &str, ttl_ms: u64| {
            format!("{{\"key\":\"{key}\",\"value\":1,\"ttl_ms\":{ttl_ms}}}\n")
        };
        let lines =
            [item("a", u64::MAX), item("old", 0), item("new", 0), item("b", 600_000)].concat();
        let mark = "{\"vatn\":\"export\",\"seq\":7,\"lines\":4}\n";
        let change = "{\"op\":\"set\",\"key\":\"gone\",\"value\":1,\"ttl_ms\":0}\n";
        let input = format!("{lines}{mark}{change}");
        let done = broker.vatn_reading(input.as_bytes(), &["import", "-", "--json"]).json();
        assert_eq!((&done["items"], &done["skipped"]), (&3.into(), &2.into()), "{done}");
        assert_eq!(broker.vatn(&["range", "--keys-only"]).text(), "a\nb\nold\n");
        let said = broker.vatn_reading(lines.as_bytes(), &["import", "-"]).text();
        assert!(said.starts_with("2 items, ") && said.contains("; 2 skipped: no time"), "{said}");
        let meta = broker.vatn(&["get", "a", "--meta", "--json"]).json();
        assert!(meta["ttl_ms"].as_u64().is_none_or(|left| left > 1 << 40), "{meta}");
    }

    #[test]
    fn report_missing_lines() {
        let (folder, broker) = (tempfile::tempdir().unwrap(), broker());
        let item = |key: &str| format!("{{\"key\":\"{key}\",\"value\":1}}\n");
        let mark = |lines| format!("{{\"vatn\":\"export\",\"seq\":7,\"lines\":{lines}}}\n");
        let (two, three) = ([item("a"), item("b")].concat(), [item("c"), mark(1)].concat());
        let whole = file(&folder, "whole", &format!("{two}{}\n{three}", mark(2)));
        broker.vatn(&["import", &whole]).text();
        let path = file(&folder, "holed", &format!("{}{}{three}", item("d"), mark(2)));
        let done = broker.vatn(&["import", &path]);
        let expected = format!("{path}:2: 2 lines should come before it, and 1 did");
        assert!(done.error(1).starts_with(&expected), "{done:?}");
        assert_eq!(broker.vatn(&["count"]).text(), "4\n", "the lines so far are written");
    }

    #[test]
    fn leave_no_partial_file() {
        let broker = broker();
        let done = broker.vatn(&["export", "/nonexistent/out.jsonl"]);
        assert!(done.error(1).contains("/nonexistent/out.jsonl"), "{done:?}");
        let done = broker.vatn(&["import", "/nonexistent/in.jsonl"]);
        assert!(done.error(1).contains("/nonexistent/in.jsonl"), "{done:?}");
    }
}
