//! The rules of the source tree: which room imports which, which crate is named where, and how long
//! files, functions and lines may be. No note of unfinished work stays. What documents say of the
//! tree is true.

mod circles;
mod documents;
mod sentences;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// The floor each room stands on; a room imports only from lower floors, and from itself.
const FLOORS: [(&str, u32); 19] = [
    ("budget", 0),
    ("limits", 0),
    ("process", 0),
    ("protocol", 1),
    ("net", 1),
    ("clock", 2),
    ("config", 2),
    ("storage", 3),
    ("state", 3),
    ("commands", 4),
    ("wal", 4),
    ("checkpointer", 5),
    ("engine", 5),
    ("zmq", 6),
    ("http", 6),
    ("client", 6),
    ("server", 7),
    ("cli", 8),
    ("main", 9),
];

/// Crates that one room alone may name.
const KEPT_INSIDE: [(&str, &str); 6] = [
    ("omq_proto", "src/zmq/zmtp.rs"),
    ("zeromq", "src/client/"),
    ("axum", "src/http/"),
    ("hyper", "src/http/"),
    ("fjall", "src/storage/fjall"),
    ("indicatif", "src/cli/"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every Rust file of `folders`, by its path in the repository.
fn sources(folders: &[&str]) -> BTreeMap<String, String> {
    let root = root();
    let files = folders.iter().map(|folder| root.join(folder)).filter(|folder| folder.exists());
    files
        .flat_map(|folder| rust_files(&folder))
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn floor(room: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// The room that a file of `src` is in.
fn room(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap();
    inside.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The rooms that a source names, in `use` and in paths.
fn named_rooms<'s>(source: &'s str, root_name: &str) -> Vec<&'s str> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let mut rooms = Vec::new();
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let mut rest = line;
        while let Some(place) = rest.find(root_name) {
            rest = &rest[place + root_name.len()..];
            rooms.push(&rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())]);
        }
    }
    rooms
}

fn assert_none(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

#[test]
fn a_room_imports_only_from_below() {
    let mut faults = Vec::new();
    for (path, source) in sources(&["src"]) {
        let here = room(&path);
        let Some(floor_here) = floor(here) else {
            assert!(here == "lib", "{path} is in a room that tests/tidy does not know");
            continue;
        };
        let root_name = if here == "main" { "vatn::" } else { "crate::" };
        for named in named_rooms(&source, root_name) {
            let is_below = floor(named).is_none_or(|floor| floor < floor_here || named == here);
            if !is_below {
                faults.push(format!("{path} imports {named}"));
            }
        }
    }
    assert_none(&faults, "a room imports only from lower floors");
}

/// A program that only talks to a broker builds no broker.
#[test]
fn the_client_alone_needs_neither_fjall_nor_axum_nor_clap() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none"])
        .args(["--no-default-features", "--features", "client"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains(&"zeromq"), "{tree}");
    let server = ["fjall", "axum", "hyper", "clap", "omq-proto", "tracing-subscriber"];
    let faults: Vec<String> = server.iter().map(ToString::to_string).collect();
    let faults: Vec<_> = faults.into_iter().filter(|name| crates.contains(&&**name)).collect();
    assert_none(&faults, "crates of the broker in the client alone");
}

#[test]
fn a_crate_is_named_in_its_room_alone() {
    let mut faults = Vec::new();
    for (path, source) in sources(&["src"]) {
        for (name, home) in KEPT_INSIDE {
            let is_named = source.lines().any(|line| {
                let code = line.trim_start();
                !code.starts_with("//")
                    && [format!("{name}::"), format!("use {name};")].iter().any(|form| {
                        code.find(form.as_str()).is_some_and(|place| {
                            let before = code[..place].chars().next_back();
                            !before.is_some_and(|c| c.is_alphanumeric() || "_:".contains(c))
                        })
                    })
            });
            if is_named && !path.starts_with(home) {
                faults.push(format!("{path} names {name}, whose home is {home}"));
            }
        }
    }
    assert_none(&faults, "a crate is named in its room alone");
}

#[test]
fn files_are_small_rooms() {
    let mut faults = Vec::new();
    let mut lengths = Vec::new();
    for (path, source) in sources(&["src", "tests", "benches", "examples"]) {
        let lines = source.lines().count();
        if path.starts_with("src") {
            lengths.push(lines);
        }
        if lines > FILE_LINES_MAX {
            faults.push(format!("{path} has {lines} lines"));
        }
    }
    lengths.sort_unstable();
    println!("{} files in src, median {} lines", lengths.len(), lengths[lengths.len() / 2]);
    assert_none(&faults, "no file has more than 600 lines");
}

#[test]
fn functions_fit_a_screen() {
    let mut faults = Vec::new();
    for (path, source) in sources(&["src", "tests", "benches", "examples"]) {
        let lines: Vec<&str> = source.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let is_function = ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "async fn "]
                .iter()
                .chain(&["pub async fn ", "pub(super) async fn ", "const fn ", "pub const fn "])
                .any(|form| code.starts_with(form));
            if !is_function || line.trim_end().ends_with(';') {
                continue;
            }
            // rustfmt puts a function's last brace where its first word stands.
            let indent = line.len() - code.len();
            let close = format!("{}}}", " ".repeat(indent));
            let end = lines[start..].iter().position(|line| *line == close).unwrap_or(0);
            if end + 1 > FUNCTION_LINES_MAX {
                faults.push(format!("{path}:{} has {} lines", start + 1, end + 1));
            }
        }
    }
    assert_none(&faults, "no function has more than 70 lines");
}

#[test]
fn lines_fit_a_hundred_columns_and_nothing_is_left_behind() {
    let mut faults = Vec::new();
    let leftovers = ["FIX", "XX", "TODO"]
        .map(|word| format!("{word}{}", if word == "FIX" { "ME" } else { "" }));
    for (path, source) in sources(&["src", "tests", "benches", "examples"]) {
        for (number, line) in source.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                faults.push(format!("{path}:{} has {} columns", number + 1, line.chars().count()));
            }
            let is_leftover = leftovers.iter().any(|word| line.contains(&format!("{word}:")));
            if is_leftover && !path.starts_with("tests/tidy") {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(&faults, "lines fit, and nothing is left for later");
}

#[test]
fn every_module_says_what_it_is() {
    let without: Vec<String> = sources(&["src", "tests"])
        .into_iter()
        .filter(|(_, source)| !source.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert_none(&without, "every file begins with a //! sentence");
}
