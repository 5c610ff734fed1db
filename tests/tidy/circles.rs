//! Files of one room import each other in one direction only.

use super::{assert_none, sources};
use std::collections::{BTreeMap, BTreeSet};

/// The quota, its accounts and their reservations are one mechanism in four files.
const ONE_MECHANISM: [&str; 4] =
    ["net/account", "net/memory_quota", "net/quota_line", "net/reservation"];

type Module = Vec<String>;

fn module(path: &str) -> Module {
    let inside = path.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
    inside.split('/').filter(|part| *part != "mod").map(str::to_owned).collect()
}

/// The lines of code, without tests at the end of the file.
fn code(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let source = source.split("#[cfg(test)]\npub(super) mod tests {").next().unwrap_or_default();
    let source = source.split("#[cfg(test)]\npub mod tests {").next().unwrap_or_default();
    let lines = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join(" ")
}

/// Every path in `code` that begins with `start`, with the braces of a `use` taken apart.
fn paths(code: &str, start: &str) -> Vec<Vec<String>> {
    let is_path = |c: char| c.is_alphanumeric() || "_:".contains(c);
    let mut found = Vec::new();
    for (at, _) in code.match_indices(start) {
        if code[..at].ends_with(is_path) {
            continue;
        }
        let rest = &code[at + start.len()..];
        let end = rest.find(|c| !is_path(c)).unwrap_or(rest.len());
        let (head, tail) = (rest[..end].trim_end_matches(':'), &rest[end..]);
        let items = match tail.strip_prefix('{').and_then(|tail| tail.split_once('}')) {
            Some((items, _)) => items.split(',').map(str::trim).collect(),
            None => vec![""],
        };
        for item in items {
            let path = head.split("::").chain(item.split("::"));
            found.push(path.filter(|part| !part.is_empty()).map(str::to_owned).collect());
        }
    }
    found
}

/// The longest module that begins `base` and continues as `path` does.
fn resolve(modules: &BTreeSet<Module>, base: &[String], path: &[String]) -> Module {
    let mut found = base.to_vec();
    for part in path {
        found.push(part.clone());
        if !modules.contains(&found) {
            found.pop();
            break;
        }
    }
    found
}

fn imports(modules: &BTreeSet<Module>, of: &Module, source: &str) -> BTreeSet<Module> {
    let code = code(source);
    let parent = &of[..of.len() - 1];
    let from_root = paths(&code, "crate::").into_iter().map(|path| resolve(modules, &[], &path));
    let from_above =
        paths(&code, "super::").into_iter().map(|path| resolve(modules, parent, &path));
    let is_other = |found: &Module| found != of && !of.starts_with(found) && found[..1] == of[..1];
    from_root.chain(from_above).filter(|found| !found.is_empty() && is_other(found)).collect()
}

/// Whether `to` is reached from `at`.
fn reaches(
    graph: &BTreeMap<Module, BTreeSet<Module>>,
    at: &Module,
    to: &Module,
    seen: &mut BTreeSet<Module>,
) -> bool {
    graph.get(at).is_some_and(|next| {
        next.contains(to)
            || next.iter().any(|next| seen.insert(next.clone()) && reaches(graph, next, to, seen))
    })
}

#[test]
fn no_files_of_a_room_import_each_other_in_a_circle() {
    let sources = sources(&["src"]);
    let sources = sources.iter().filter(|(path, _)| !path.contains("tests"));
    let sources: BTreeMap<Module, &String> =
        sources.map(|(path, source)| (module(path), source)).collect();
    let modules: BTreeSet<Module> = sources.keys().cloned().collect();
    let graph: BTreeMap<Module, BTreeSet<Module>> =
        sources.iter().map(|(of, source)| (of.clone(), imports(&modules, of, source))).collect();
    assert!(graph.values().map(BTreeSet::len).sum::<usize>() > 300, "imports are found");
    let is_in_circle = |of: &&Module| reaches(&graph, of, of, &mut BTreeSet::new());
    let circles = graph.keys().filter(is_in_circle).map(|of| of.join("/"));
    let faults: Vec<String> = circles.filter(|of| !ONE_MECHANISM.contains(&of.as_str())).collect();
    assert_none(&faults, "files that import each other in a circle");
}
