//! Every command is consistent between the list in `proto/commands.json`, the decoder, the vectors,
//! the pages of `PROTOCOL.md`, and a method in each client.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use vatn::commands::{METHODS, Request};
use vatn::protocol::{Code, Reader, Refusal, writer};

/// The codes that the decoder alone can refuse with; all others need a store.
const DECODED: [&str; 4] = ["BAD_REQUEST", "UNKNOWN_METHOD", "BAD_ARGUMENT", "BAD_KEY"];

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn commands() -> Vec<Value> {
    let listed: Value = serde_json::from_str(&text("proto/commands.json")).unwrap();
    listed["commands"].as_array().unwrap().clone()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

/// One step of a vector file, its frames as bytes.
pub(super) struct Step {
    place: String,
    pub(super) request: Vec<Vec<u8>>,
    reply: Vec<Value>,
}

fn octets(notation: &str) -> Vec<u8> {
    let word = |word: &str| {
        let (digits, times) = word.split_once('*').unwrap_or((word, "1"));
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        bytes.repeat(times.parse().unwrap())
    };
    notation.split_whitespace().flat_map(word).collect()
}

fn vector_files(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(vector_files(path));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub(super) fn vectors() -> Vec<Step> {
    let mut steps = Vec::new();
    for file in vector_files(Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/vectors")) {
        let listed: Vec<Value> =
            serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        for step in listed {
            let frames = step["request"].as_array().unwrap();
            steps.push(Step {
                place: format!("{}: {}", file.display(), step["about"]),
                request: frames.iter().map(|frame| octets(frame.as_str().unwrap())).collect(),
                reply: step["reply"].as_array().unwrap().clone(),
            });
        }
    }
    assert!(steps.len() > 500, "{} vectors", steps.len());
    steps
}

/// The requests of a step with the reply of each; without delimiters, and without notifications and
/// their effects.
fn exchanges(step: &Step) -> Vec<(&[u8], &Value)> {
    let delimited = step.request.first().is_some_and(Vec::is_empty);
    let frames = step.request.iter().skip(usize::from(delimited));
    let answered = frames.filter(|frame| !Request::decode(frame).notification);
    let replies = step.reply.iter().skip(usize::from(delimited));
    answered.map(Vec::as_slice).zip(replies).collect()
}

/// The method that a frame names, as far as it can be read.
fn method(frame: &[u8]) -> Option<String> {
    let mut reader = Reader::new(frame);
    reader.array_len().ok()?;
    reader.uint().ok()?;
    reader.uint().ok()?;
    reader.bytes().ok().map(|name| String::from_utf8_lossy(name).into_owned())
}

fn detail_map(refusal: &Refusal) -> Value {
    let mut out = Vec::new();
    refusal.encode(&mut out);
    let error = rmpv::decode::read_value(&mut out.as_slice()).unwrap();
    serde_json::to_value(&error.as_array().unwrap()[2]).unwrap()
}

/// A request of `method` with the arguments of its vectors left out and `options` given.
fn bare(method: &str, arguments: usize, option: &str) -> Vec<u8> {
    let mut frame = vec![0x94, 0x00, 0x01];
    writer::str(&mut frame, method);
    writer::array_len(&mut frame, arguments + 1);
    for place in 0..arguments {
        match (method, place) {
            ("get_multi" | "set_multi" | "delete_multi" | "batch", _) => {
                writer::array_len(&mut frame, 0);
            }
            ("wait" | "changes", 0) | ("touch", 1) => writer::uint(&mut frame, 1),
            ("wait", 1) => writer::str(&mut frame, "synced"),
            _ => writer::str(&mut frame, "k"),
        }
    }
    // One bound of a range to delete must be given.
    let bound =
        ["prefix", "to"].into_iter().find(|bound| method == "delete_range" && *bound != option);
    writer::map_len(&mut frame, 1 + usize::from(bound.is_some()));
    writer::str(&mut frame, option);
    writer::nil(&mut frame);
    if let Some(bound) = bound {
        writer::str(&mut frame, bound);
        writer::str(&mut frame, "k");
    }
    frame
}

#[test]
fn commands_json_lists_the_commands_of_the_code() {
    let listed: Value = serde_json::from_str(&text("proto/commands.json")).unwrap();
    let (mut listed_names, mut methods) = (names(&listed["commands"]), METHODS.to_vec());
    listed_names.sort_unstable();
    methods.sort_unstable();
    assert_eq!(listed_names, methods);
    let codes: Vec<_> = listed["errors"].as_array().unwrap().iter().map(|e| &e["code"]).collect();
    assert_eq!(codes, Code::ALL.map(Code::name));
    for command in commands() {
        for error in command["errors"].as_array().unwrap() {
            assert!(codes.contains(&error), "{}: {error}", command["name"]);
        }
    }
}

#[test]
fn the_code_accepts_exactly_the_listed_options() {
    for command in commands() {
        let name = command["name"].as_str().unwrap();
        let arguments = command["arguments"].as_array().unwrap().len();
        if name == "ping" {
            continue; // A map in the place of options is its payload.
        }
        for option in names(&command["options"]) {
            let frame = bare(name, arguments, option);
            let decoded = Request::decode(&frame).command;
            assert!(decoded.is_ok(), "{name} does not take {option}: {decoded:?}");
        }
        let frame = bare(name, arguments, "colour");
        let refusal = Request::decode(&frame).command.unwrap_err();
        let message = refusal.message().to_owned();
        let (_, taken) = message.rsplit_once("the options are: ").unwrap();
        let taken: BTreeSet<_> = taken.split(", ").filter(|taken| *taken != "none").collect();
        let listed: BTreeSet<_> = names(&command["options"]).into_iter().collect();
        assert_eq!(taken, listed, "{name}");
    }
}

#[test]
fn the_code_decodes_the_vectors_as_they_say() {
    for step in vectors() {
        for (frame, reply) in exchanges(&step) {
            let request = Request::decode(frame);
            let code = reply["error"].as_str().filter(|code| DECODED.contains(code));
            match (request.command, code) {
                (Err(refusal), Some(code)) => {
                    assert_eq!(refusal.code().name(), code, "{}", step.place);
                    assert_eq!(reply["id"], Value::from(request.id), "{}", step.place);
                    assert_eq!(reply["details"], detail_map(&refusal), "{}", step.place);
                }
                (Ok(_), None) => {}
                (Err(refusal), None) => panic!("{}: {refusal}", step.place),
                (Ok(_), Some(code)) => panic!("{}: no {code}", step.place),
            }
        }
    }
}

#[test]
fn every_command_has_an_accepted_and_a_refused_vector() {
    let mut accepted = BTreeSet::new();
    let mut refused = BTreeMap::<String, BTreeSet<String>>::new();
    let steps = vectors();
    for step in &steps {
        for (frame, reply) in exchanges(step) {
            let Some(method) = method(frame) else { continue };
            match reply["error"].as_str() {
                Some(code) => {
                    refused.entry(method).or_default().insert(code.to_owned());
                }
                None => {
                    accepted.insert(method);
                }
            }
        }
    }
    // These need a failing disk, a full queue, a stop or a trimmed log: other tests cover them.
    let elsewhere = ["WRITE_QUEUE_FULL", "STORAGE", "STOPPING", "TOO_LARGE", "COMPACTED"];
    for command in commands() {
        let name = command["name"].as_str().unwrap();
        assert!(accepted.contains(name), "{name} has no accepted vector");
        let codes = refused.get(name).unwrap_or_else(|| panic!("{name} has no refused vector"));
        for error in command["errors"].as_array().unwrap() {
            let error = error.as_str().unwrap();
            let held = codes.contains(error) || elsewhere.contains(&error);
            assert!(held, "{name} has no vector with {error}");
        }
    }
}

#[test]
fn writes_and_batch_members_are_those_listed() {
    let accepted: BTreeMap<_, _> = vectors()
        .iter()
        .flat_map(|step| {
            let good = exchanges(step).into_iter().filter(|(_, reply)| reply["error"].is_null());
            good.map(|(frame, _)| frame.to_vec()).collect::<Vec<_>>()
        })
        .filter(|frame| {
            let command = Request::decode(frame).command;
            // An empty batch, and one that only reads, need no room.
            command.is_ok_and(|it| it.method() != "batch" || it.effects().writes)
        })
        .filter_map(|frame| Some((method(&frame)?, frame)))
        .collect();
    for command in commands() {
        let name = command["name"].as_str().unwrap();
        let decoded = Request::decode(&accepted[name]);
        let writes = decoded.command.unwrap().effects().writes;
        assert_eq!(command["writes"], writes, "{name}: writes");
        // [0, 1, "batch", [[[name, []]]]]
        let mut frame = b"\x94\x00\x01\xa5batch\x91\x91\x92".to_vec();
        writer::str(&mut frame, name);
        frame.push(0x90);
        let refused = Request::decode(&frame).command.err().map(|refusal| detail_map(&refusal));
        let argument = refused.as_ref().map(|details| &details["argument"]);
        let in_batch = argument != Some(&Value::from("method"));
        assert_eq!(command["in_batch"], in_batch, "{name}: in_batch");
    }
}

/// The text under each third-level heading of the protocol's chapter on commands.
fn pages(protocol: &str) -> BTreeMap<&str, &str> {
    let chapter =
        protocol.split("\n## ").find(|chapter| chapter.starts_with("Commands\n")).unwrap();
    let pages = chapter.split("\n### `").skip(1);
    pages.map(|page| page.split_once("`\n").unwrap()).collect()
}

#[test]
fn every_command_has_its_page() {
    let protocol = text("proto/PROTOCOL.md");
    let pages = pages(&protocol);
    assert_eq!(pages.len(), METHODS.len(), "{:?}", pages.keys());
    for command in commands() {
        let name = command["name"].as_str().unwrap();
        let page = pages.get(name).unwrap_or_else(|| panic!("{name} has no page"));
        assert!(page.contains("```hex\n"), "{name} has no worked example");
        for given in [&command["arguments"], &command["options"]] {
            // `decr` refers to `incr`.
            let page = if name == "decr" { pages["incr"] } else { page };
            for given in names(given) {
                assert!(page.contains(&format!("`{given}`")), "{name}: {given} is not on its page");
            }
        }
    }
    for code in Code::ALL {
        let row = format!("\n| `{}` |", code.name());
        assert!(protocol.contains(&row), "{} is not in the table of errors", code.name());
    }
}

#[test]
fn the_examples_in_the_protocol_are_vectors() {
    let mut frames = BTreeSet::new();
    for step in vectors() {
        frames.extend(step.reply.iter().filter_map(|reply| reply.as_str()).map(octets));
        frames.extend(step.request);
    }
    let protocol = text("proto/PROTOCOL.md");
    let blocks = protocol.split("```hex\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut examples = 0;
    for line in blocks.flat_map(str::lines).filter(|line| !line.starts_with(';')) {
        assert!(frames.contains(&octets(line)), "no vector has {line}");
        examples += 1;
    }
    assert!(examples >= 2 * METHODS.len() - 4, "{examples} examples");
}

#[test]
fn every_command_has_a_method_in_each_client() {
    let python = text("clients/python/src/vatn/commands.py");
    let node = text("clients/node/src/commands.js");
    let rust: String = ["broker", "history", "numbers", "ranges", "values"]
        .map(|file| text(&format!("src/client/{file}.rs")))
        .concat();
    for command in commands() {
        let name = command["name"].as_str().unwrap();
        let python = python.split("\n    def ").find(|it| it.starts_with(&format!("{name}(")));
        let python = python.unwrap_or_else(|| panic!("the Python client has no {name}"));
        let signature = python.split("-> Any:").next().unwrap();
        for option in names(&command["options"]) {
            let held = [format!(" {option}: "), format!(" {option}_: ")];
            assert!(
                held.iter().any(|it| signature.contains(it)),
                "Python: {name} without {option}"
            );
        }
        assert!(node.contains(&format!("\n  {name}(")), "the Node client has no {name}");
        let rust_name = format!("pub async fn {name}");
        assert!(rust.contains(&rust_name), "the Rust client has no {name}");
    }
}
