//! Documents: links and paths lead somewhere, and promises have the README's numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{assert_none, root, sources};

/// Folders that are not the repository's own text.
const FOREIGN: [&str; 7] =
    ["target", "node_modules", ".git", ".venv", "__pycache__", "corpus", "artifacts"];

/// A path in backquotes that begins so is one from the root of the repository.
const FOLDERS: [&str; 10] = [
    "src/",
    "tests/",
    "docs/",
    "benches/",
    "examples/",
    "proto/",
    "clients/",
    "fuzz/",
    ".ci/",
    ".github/",
];

/// In a path, these stand for something else.
const PLACEHOLDERS: [&str; 5] = ["*", "<", "…", "NNN", "NAME"];

/// Every document, by its path in the repository.
pub(super) fn documents() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !FOREIGN.contains(&name) {
                folders.push(path);
            } else if name.ends_with(".md") {
                let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.insert(relative, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// The text without its code blocks, line for line.
pub(super) fn without_blocks(document: &str) -> String {
    let mut is_block = false;
    let kept = document.lines().map(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_block ^= is_fence;
        if is_block || is_fence { "" } else { line }
    });
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// What stands in single backquotes, and the text without it.
fn code_and_prose(text: &str) -> (Vec<&str>, String) {
    let (mut code, mut prose) = (Vec::new(), String::new());
    for (place, part) in text.split('`').enumerate() {
        if place % 2 == 0 {
            prose.push_str(part);
        } else {
            code.push(part);
        }
    }
    (code, prose)
}

/// The targets of the links in a document.
fn links(prose: &str) -> impl Iterator<Item = &str> {
    prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// How a link names a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn anchors(document: &str) -> BTreeSet<String> {
    let text = without_blocks(document);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// Why a link of the document `from` leads nowhere.
fn broken(from: &str, target: &str, all: &BTreeMap<String, String>) -> Option<&'static str> {
    if ["https://", "http://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() {
        root().join(from)
    } else {
        root().join(from).parent().unwrap().join(file)
    };
    let Ok(path) = path.canonicalize() else { return Some("there is no such file") };
    if heading.is_empty() {
        return None;
    }
    let path = path.strip_prefix(root().canonicalize().unwrap()).unwrap().to_str().unwrap();
    let has = all.get(path).is_some_and(|document| anchors(document).contains(heading));
    (!has).then_some("there is no such heading")
}

#[test]
fn links_in_documents_lead_somewhere() {
    let (all, mut faults) = (documents(), Vec::new());
    for (path, document) in &all {
        let (_, prose) = code_and_prose(&without_blocks(document));
        for target in links(&prose) {
            if let Some(why) = broken(path, target, &all) {
                faults.push(format!("{path} links to {target}: {why}"));
            }
        }
    }
    assert_none(&faults, "a link leads somewhere");
}

/// The paths among what stands in backquotes: without arguments, line numbers and placeholders.
fn paths<'t>(code: &[&'t str]) -> Vec<&'t str> {
    let first = |code: &&'t str| code.split([' ', '\n', ':']).next().unwrap_or_default();
    let is_path = |path: &&str| {
        let is_ours = FOLDERS.iter().any(|folder| path.starts_with(folder));
        let is_file = |c: char| c.is_alphanumeric() || "_./-".contains(c);
        (is_ours || path.ends_with(".rs") && path.chars().all(is_file) && path.len() > 3)
            && !PLACEHOLDERS.iter().any(|mark| path.contains(mark))
            && !path.split('/').any(|folder| FOREIGN.contains(&folder))
    };
    code.iter().map(first).filter(is_path).collect()
}

/// Whether there is such a file: from the root, from `src` or `tests`, from beside the text that
/// names it, or anywhere where only its own name is given.
fn exists(path: &str, named_by: &str, files: &BTreeSet<String>) -> bool {
    let beside = Path::new(named_by).parent().unwrap();
    let from = [PathBuf::new(), "src".into(), "tests".into(), beside.to_owned()];
    from.iter().any(|folder| root().join(folder).join(path).exists())
        || !path.contains('/') && files.contains(path)
}

#[test]
fn paths_in_documents_and_comments_exist() {
    let code = sources(&["src", "tests", "benches", "examples", "fuzz"]);
    let names: BTreeSet<String> =
        code.keys().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
    let comments = |source: &String| -> String {
        let lines = source.lines().filter_map(|line| line.trim_start().strip_prefix("//"));
        lines.map(|line| line.trim_start_matches(['/', '!'])).collect::<Vec<_>>().join("\n")
    };
    let texts = documents().into_iter().map(|(path, text)| (path, without_blocks(&text)));
    let texts = texts.chain(code.iter().map(|(path, text)| (path.clone(), comments(text))));
    let mut faults = Vec::new();
    for (named_by, text) in texts {
        // A paragraph at a time, so that a lone backquote does no harm to the others.
        for paragraph in text.split("\n\n") {
            for path in paths(&code_and_prose(paragraph).0) {
                if !exists(path, &named_by, &names) {
                    faults.push(format!("{named_by} names {path}, which does not exist"));
                }
            }
        }
    }
    assert_none(&faults, "a path in backquotes exists");
}

/// The numbers after "promise" or "promises".
fn cited(text: &str) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    for rest in text.split("romise").skip(1) {
        let rest = rest.strip_prefix('s').unwrap_or(rest).replace(" and ", ", ");
        let words = rest.strip_prefix(' ').unwrap_or_default().split(", ");
        numbers.extend(words.map_while(|word| {
            let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
            word[..digits].parse::<u32>().ok()
        }));
    }
    numbers
}

/// Each promise of the README with the tests that it links to.
fn promises() -> BTreeMap<u32, BTreeSet<String>> {
    let readme = documents().remove("README.md").unwrap();
    let (_, section) = readme.split_once("## What is guaranteed").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let items = section.split("\n").collect::<Vec<_>>();
    let mut promises: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    let mut number = 0;
    for line in items {
        let begins = line.split_once(". ").and_then(|(number, _)| number.parse().ok());
        number = begins.unwrap_or(number);
        if number > 0 {
            promises.entry(number).or_default().extend(links(line).map(str::to_owned));
        }
    }
    promises
}

#[test]
fn promises_are_cited_by_the_numbers_of_the_readme() {
    let promises = promises();
    assert!(promises.keys().copied().eq(1..=promises.len() as u32), "{:?}", promises.keys());
    let mut faults = Vec::new();
    let code = sources(&["src", "tests", "benches", "examples", "fuzz"]);
    for (path, text) in documents().into_iter().chain(code) {
        if path.starts_with("tests/tidy") {
            continue;
        }
        let joined = text.replace("\n//!", "").replace("\n///", "").replace("\n//", "");
        let cited = cited(&joined.split_whitespace().collect::<Vec<_>>().join(" "));
        for number in cited.iter().filter(|number| !promises.contains_key(number)) {
            faults.push(format!("{path} cites promise {number}, which the README does not make"));
        }
        if !path.starts_with("tests/") {
            continue;
        }
        for (number, tests) in &promises {
            match (tests.contains(&path), cited.contains(number)) {
                (true, false) => faults.push(format!(
                    "the README says that {path} holds promise {number}; its header does not"
                )),
                (false, true) => faults.push(format!(
                    "{path} cites promise {number}; the README does not name it there"
                )),
                _ => {}
            }
        }
    }
    assert_none(&faults, "promises have the README's numbers, and their tests say so");
}
