//! The documents are true: the transcript of the README, and the tables of flags, figures and error
//! codes in `docs/operations.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::support::broker::{Broker, broker};
use crate::support::http::Connection;
use crate::support::shell::vatn;
use serde_json::Value;

fn text(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The section of a document under a heading.
fn section(path: &str, heading: &str) -> String {
    let document = text(path);
    let (_, section) = document.split_once(&format!("\n## {heading}\n")).unwrap();
    section.split("\n## ").next().unwrap().to_owned()
}

/// The rows of the tables in a section, without their heads.
fn rows(section: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = section.lines().collect();
    let is_body = |at: &usize| {
        let is_head = lines.get(at + 1).is_some_and(|line| line.starts_with("|---"));
        lines[*at].starts_with("| ") && !is_head
    };
    let cells = |at: usize| {
        let cells = lines[at].trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    (0..lines.len()).filter(is_body).map(cells).collect()
}

/// The words in backquotes in a cell.
fn names(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The words of a command line, with single quotes.
fn words(line: &str) -> Vec<String> {
    let quoted = line.split('\'').enumerate().map(|(place, part)| {
        if place % 2 == 1 { part.replace(' ', "\0") } else { part.to_owned() }
    });
    let whole: String = quoted.collect();
    whole.split_whitespace().map(|word| word.replace('\0', " ")).collect()
}

/// The output of a line of the transcript.
fn run(broker: &Broker, line: &str) -> String {
    let words = words(line);
    let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    match (words[0].as_str(), arguments.as_slice()) {
        ("curl", [url]) => {
            let path = url.strip_prefix("http://127.0.0.1:7532").unwrap();
            format!("{}\n", Connection::open(&broker.http).ask(&format!("GET {path}")).text())
        }
        ("vatn", ["watch", prefix]) => watch(broker, prefix),
        ("vatn", arguments) => {
            let done = broker.vatn(arguments);
            String::from_utf8(done.stdout).unwrap() + &done.stderr
        }
        _ => panic!("the transcript runs {line:?}"),
    }
}

/// A watch that sees the one write made in another terminal.
fn watch(broker: &Broker, prefix: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vatn"))
        .args(["watch", prefix, "--count", "1"])
        .env("VATN_CONNECT", &broker.router)
        .env("VATN_SUBSCRIBE", &broker.publisher)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = String::new();
    // The watch prints this when its subscription has taken effect.
    let mut notes = BufReader::new(child.stderr.take().unwrap());
    notes.read_line(&mut printed).unwrap();
    broker.vatn(&["set", "boat:2", "Ruth"]).text();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    child.wait().unwrap();
    printed.replace(&broker.publisher, "tcp://127.0.0.1:7534")
}

#[test]
fn the_transcript_of_the_readme_is_true() {
    let section = section("README.md", "The first five minutes");
    let (_, transcript) = section.split_once("```console\n").unwrap();
    let (transcript, _) = transcript.split_once("```").unwrap();
    let (broker, mut commands) = (broker(), 0);
    for step in transcript.split("$ ").skip(1) {
        let (line, shown) = step.split_once('\n').unwrap();
        assert_eq!(run(&broker, line), shown, "$ {line}");
        commands += 1;
    }
    assert!(commands > 5, "{commands} commands");
}

/// A number as the table writes it: with separators, or with a unit of bytes.
fn plain(cell: &str) -> String {
    let units = [(" KiB", 10), (" MiB", 20), (" GiB", 30)];
    let unit = units.iter().find_map(|(unit, shift)| Some((cell.strip_suffix(unit)?, shift)));
    match unit {
        Some((number, shift)) => (number.parse::<u64>().unwrap() << shift).to_string(),
        None if cell.chars().all(|c| c.is_ascii_digit() || c == ',') => cell.replace(',', ""),
        None => cell.to_owned(),
    }
}

/// The flags of `serve` with their defaults, from its help.
fn flags() -> BTreeMap<String, Option<String>> {
    let help = vatn(&["serve", "--help"]).text();
    let mut flags = BTreeMap::new();
    // A flag begins its line; its description has more space before it.
    let joined = help.replace("\n                ", " ");
    for line in joined.lines() {
        let line = line.trim_start();
        let short = line.split_once(", --").filter(|(short, _)| short.len() == 2);
        let line = short.map_or(line.to_owned(), |(_, rest)| format!("--{rest}"));
        if !line.starts_with("--") || line.starts_with("--help") {
            continue;
        }
        let name = line.split(' ').next().unwrap().to_owned();
        let default = line.split_once("[default: ").map(|(_, rest)| {
            let words: Vec<&str> = rest.split(']').next().unwrap().split_whitespace().collect();
            words.join(" ")
        });
        flags.insert(name, default);
    }
    flags
}

#[test]
fn every_flag_is_documented_with_its_default() {
    let flags = flags();
    assert!(flags.len() > 30, "{flags:?}");
    let rows = rows(&section("docs/operations.md", "Flags"));
    let documented: BTreeMap<String, String> =
        rows.iter().map(|row| (names(&row[0]).next().unwrap(), plain(&row[1]))).collect();
    assert!(flags.keys().eq(documented.keys()), "{:?}\n{:?}", flags.keys(), documented.keys());
    for (flag, default) in flags {
        // A long default is described in words.
        let default = default.map_or("".to_owned(), |default| match default.split_once(" that ") {
            Some((beginning, _)) => beginning.to_owned(),
            None => default,
        });
        assert_eq!(documented[&flag], default, "{flag}");
    }
}

/// The names of the figures: those inside a map are prefixed with the map's name.
fn figures(prefix: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let dot = if prefix.is_empty() { "" } else { "." };
                figures(&format!("{prefix}{dot}{name}"), value, found);
            }
        }
        _ => drop(found.insert(prefix.to_owned())),
    }
}

#[test]
fn every_figure_is_documented() {
    let mut shown = BTreeSet::new();
    figures("", &broker().vatn(&["stats", "--json"]).json(), &mut shown);
    let rows = rows(&section("docs/operations.md", "Figures"));
    let documented: BTreeSet<String> = rows.iter().flat_map(|row| names(&row[0])).collect();
    assert_eq!(documented, shown);
}

#[test]
fn every_error_code_is_documented() {
    let commands: Value = serde_json::from_str(&text("proto/commands.json")).unwrap();
    let errors = commands["errors"].as_array().unwrap().iter();
    let codes: BTreeSet<String> =
        errors.map(|error| error["code"].as_str().unwrap().to_owned()).collect();
    let rows = rows(&section("docs/operations.md", "Error codes"));
    let documented: BTreeSet<String> = rows.iter().flat_map(|row| names(&row[0])).collect();
    assert_eq!(documented, codes);
}
