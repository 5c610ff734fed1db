//! Explains an invalid command line in one line: the mistake, the nearest valid name, and where to
//! read on.

use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue};

use super::Cli;

/// Names that similar programs use for vatn's commands.
const KNOWN_ELSEWHERE: [(&str, &str); 25] = [
    ("bgsave", "vatn backup"),
    ("dbsize", "vatn count"),
    ("delete", "vatn del"),
    ("exists", "vatn get, whose exit code is 3 when there is no such key"),
    ("expire", "vatn touch KEY --ttl 10s"),
    ("flushall", "vatn del --all"),
    ("flushdb", "vatn del --all"),
    ("getset", "vatn set KEY VALUE --return-value"),
    ("info", "vatn stats"),
    ("keys", "vatn range PREFIX --all --keys-only"),
    ("list", "vatn range"),
    ("ls", "vatn range"),
    ("mget", "vatn get KEY KEY"),
    ("monitor", "vatn watch"),
    ("mset", "vatn batch"),
    ("persist", "vatn touch KEY --forever"),
    ("put", "vatn set"),
    ("rm", "vatn del"),
    ("save", "vatn backup"),
    ("scan", "vatn range"),
    ("setex", "vatn set KEY VALUE --ttl 10s"),
    ("setnx", "vatn set KEY VALUE --if absent"),
    ("start", "vatn serve"),
    ("subscribe", "vatn watch"),
    ("ttl", "vatn get KEY --meta"),
];

/// clap explains in a paragraph; here an error is one line. `command` is the given command.
pub(super) fn explain(error: &clap::Error, command: Option<&str>) -> String {
    if let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) {
        return no_command(name, error.get(ContextKind::SuggestedSubcommand));
    }
    let rendered = error.render().to_string();
    let sentences: Vec<&str> = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    let text = sentences.join(" ").replace(" tip: ", "; ").replace(" [possible", "; [possible");
    let text = text.replace("invalid digit found in string", "it is not a whole number");
    let command = command.map_or(String::new(), |command| format!(" {command}"));
    format!("{}; try 'vatn{command} --help'", text.trim_start_matches("error: "))
}

/// The command that the arguments name, even if the rest of them is invalid.
pub(super) fn command_of(arguments: &[OsString]) -> Option<&str> {
    let mut words = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    words.find(|word| !word.starts_with('-')).filter(|word| is_ours(word))
}

fn is_ours(name: &str) -> bool {
    Cli::command().find_subcommand(name).is_some()
}

fn no_command(name: &str, suggested: Option<&ContextValue>) -> String {
    let lower = name.to_ascii_lowercase();
    if let Some((_, ours)) = KNOWN_ELSEWHERE.iter().find(|(theirs, _)| *theirs == lower) {
        return format!("there is no command '{name}': use {ours}");
    }
    // The nearest suggestion comes last.
    let nearest = match suggested {
        _ if is_ours(&lower) => Some(&lower),
        Some(ContextValue::String(nearest)) => Some(nearest),
        Some(ContextValue::Strings(names)) => names.last(),
        _ => None,
    };
    match nearest {
        Some(nearest) => {
            format!("there is no command '{name}': did you mean '{nearest}'? Try 'vatn --help'")
        }
        None => format!("there is no command '{name}'; try 'vatn --help'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_another_program_leads_to_our_command() {
        let tree = Cli::command();
        for (theirs, ours) in KNOWN_ELSEWHERE {
            assert!(tree.find_subcommand(theirs).is_none(), "{theirs}");
            let name = ours.trim_start_matches("vatn ").split([' ', ',']).next().unwrap();
            assert!(tree.find_subcommand(name).is_some(), "{ours}");
        }
    }
}
