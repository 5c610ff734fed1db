//! The command line: arguments, the commands, their output and their failures.
//!
//! Each command has one file, with its arguments and its work. `main.rs` needs only [`parse`] and
//! [`run`].

mod append;
mod atomic_file;
mod backup;
mod base64;
mod batch;
mod bench;
mod change;
mod changes;
mod check;
mod compact;
mod completions;
mod connection;
mod count;
mod del;
mod export;
mod failure;
mod flush;
mod get;
mod import;
mod incr;
mod json;
mod key;
mod lines;
mod man;
mod mistake;
mod output;
mod ping;
mod progress;
mod range;
mod restore;
mod serve;
mod set;
mod stats;
mod stop;
mod touch;
mod unique_names;
mod wait;
mod watch;

use std::ffi::OsString;
use std::future::Future;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::process;
pub use failure::Failure;
use output::Output;

const ABOUT: &str = "A key-value store and change feed over ZeroMQ and HTTP";
const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    it failed; one line on stderr says why
  2    the command line is wrong
  3    the key was not found (get, del, touch, incr, decr)
  4    the condition did not hold (--if)
  5    the time ran out (--timeout-ms); whether a write took place is not known
  130  interrupted (Ctrl-C); one line on stderr says what was done

Keys are any bytes: one that cannot be typed is \\xNN, a backslash is \\\\. After -- nothing is
taken for an option.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "vatn", version, about = ABOUT, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// Print JSON, for programs
    #[arg(long, global = true, display_order = 900)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Get(get::Get),
    Set(set::Set),
    Del(del::Del),
    /// Add to a number
    #[command(after_help = "Examples:\n  vatn incr visits --initial 1\n  vatn incr balance -3")]
    Incr(incr::Step),
    /// Subtract from a number
    #[command(after_help = "Example:\n  vatn decr stock 2")]
    Decr(incr::Step),
    Append(append::Append),
    Touch(touch::Touch),
    Range(range::Range),
    Count(count::Count),
    Batch(batch::Batch),
    Flush(flush::Flush),
    Wait(wait::Wait),
    Stats(stats::Stats),
    Ping(ping::Ping),
    Changes(changes::Changes),
    Watch(watch::Watch),
    Import(import::Import),
    Export(export::Export),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Check(check::Check),
    Compact(compact::Compact),
    Bench(Box<bench::Bench>),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    /// The message after Ctrl-C, for a command that does not handle signals itself.
    fn said_when_interrupted(&self) -> Option<&'static str> {
        match self {
            Self::Get(_)
            | Self::Range(_)
            | Self::Count(_)
            | Self::Wait(_)
            | Self::Stats(_)
            | Self::Ping(_)
            | Self::Completions(_)
            | Self::Man(_) => Some("interrupted; nothing was changed"),
            Self::Set(_)
            | Self::Incr(_)
            | Self::Decr(_)
            | Self::Append(_)
            | Self::Touch(_)
            | Self::Batch(_)
            | Self::Flush(_) => Some("interrupted; whether it took place is not known"),
            Self::Compact(_) => Some("interrupted; the store is whole, and as large as it is"),
            Self::Serve(_)
            | Self::Del(_)
            | Self::Changes(_)
            | Self::Watch(_)
            | Self::Import(_)
            | Self::Export(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Check(_)
            | Self::Bench(_) => None,
        }
    }
}

/// The stack of the program's main thread, whatever `ulimit -s` sets.
const STACK_BYTES: usize = 8 << 20;

/// Does `work` on a thread with its own stack: the stack of the process's first thread is as large
/// as its limit allows, and one of 128 KiB overflows while the arguments are parsed.
pub fn with_enough_stack(
    work: impl FnOnce() -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().name("vatn-main".to_owned()).stack_size(STACK_BYTES);
    let running = thread.spawn(work).map_err(|error| {
        Failure::failed(format!("cannot start a thread (ulimit -u, ulimit -v): {error}"))
    })?;
    running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Parses the command line. Help and the version are printed here, and end the process.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Failure> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    Cli::try_parse_from(&arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => Failure::usage(mistake::explain(&error, mistake::command_of(&arguments))),
    })
}

/// Executes the command.
pub fn run(cli: Cli) -> Result<(), Failure> {
    prepare(&cli)?;
    if let Some(said) = cli.command.said_when_interrupted() {
        stop::exit_on_interrupt(move || said.to_owned())?;
    }
    let mut output = Output::new(cli.json);
    let out = &mut output;
    match cli.command {
        Command::Serve(command) => command.run(out)?,
        Command::Get(command) => wait_for(command.run(out))?,
        Command::Set(command) => wait_for(command.run(out))?,
        Command::Del(command) => wait_for(command.run(out))?,
        Command::Incr(command) => wait_for(command.run(incr::Direction::Up, out))?,
        Command::Decr(command) => wait_for(command.run(incr::Direction::Down, out))?,
        Command::Append(command) => wait_for(command.run(out))?,
        Command::Touch(command) => wait_for(command.run(out))?,
        Command::Wait(command) => wait_for(command.run(out))?,
        Command::Range(command) => wait_for(command.run(out))?,
        Command::Count(command) => wait_for(command.run(out))?,
        Command::Batch(command) => wait_for(command.run(out))?,
        Command::Flush(command) => wait_for(command.run(out))?,
        Command::Stats(command) => wait_for(command.run(out))?,
        Command::Ping(command) => wait_for(command.run(out))?,
        Command::Changes(command) => wait_for(command.run(out))?,
        Command::Watch(command) => wait_for(command.run(out))?,
        Command::Import(command) => wait_for(command.run(out))?,
        Command::Export(command) => wait_for(command.run(out))?,
        Command::Backup(command) => wait_for(command.run(out))?,
        Command::Restore(command) => command.run(out)?,
        Command::Check(command) => command.run(out)?,
        Command::Compact(command) => wait_for(command.run(out))?,
        Command::Bench(command) => command.run(out)?,
        Command::Completions(command) => command.run(&mut Cli::command(), out)?,
        Command::Man(command) => command.run(Cli::command(), out)?,
    }
    output.flush()
}

/// The setup common to all commands, whatever the inherited limits.
fn prepare(cli: &Cli) -> Result<(), Failure> {
    process::make_files_private();
    process::limits::raise_open_files();
    if matches!(cli.command, Command::Serve(_))
        && let Some(fault) = process::limits::fault()
    {
        return Err(Failure::failed(fault));
    }
    wait_for(async {
        let survives = process::signals::survive_file_limit();
        survives.map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))
    })
}

/// Runs a client command on one thread.
fn wait_for(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?.block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_arguments_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_for_bytes_or_a_time_accepts_units() {
        let tree = Cli::command();
        let serve = tree.find_subcommand("serve").unwrap();
        let mut flags = 0;
        for flag in serve.get_arguments() {
            let names = flag.get_value_names().unwrap_or_default();
            let value = match names.first().map(|name| name.as_str()) {
                Some("BYTES") => "1GiB",
                Some("MS" | "US") => "10s",
                _ => continue,
            };
            flags += 1;
            let flag = format!("--{}", flag.get_long().unwrap());
            let parsed = Cli::try_parse_from(["vatn", "serve", &flag, value]);
            assert!(parsed.is_ok(), "{flag} {value}: {parsed:?}");
        }
        assert!(flags > 10);
    }

    #[test]
    fn an_invalid_value_leads_to_the_help_of_its_command() {
        for (arguments, command) in [
            (&["vatn", "set", "k", "v", "--ttl", "10x"][..], "set"),
            (&["vatn", "--json", "set", "k", "v", "--if", "x"], "set"),
            (&["vatn", "wait", "x"], "wait"),
            (&["vatn", "del", "--prefix"], "del"),
            (&["vatn", "get"], "get"),
        ] {
            let line = parse(arguments.iter().map(OsString::from)).unwrap_err().to_string();
            assert!(line.ends_with(&format!("; try 'vatn {command} --help'")), "{line}");
            assert!(!line.contains("digit found"), "{line}");
        }
        let line = parse(["vatn", "--jsn", "get"].map(OsString::from)).unwrap_err().to_string();
        assert!(line.contains("'--json'"), "{line}");
    }

    #[test]
    fn a_command_in_capitals_leads_to_its_name() {
        let line = parse(["vatn", "GET", "k"].map(OsString::from)).unwrap_err().to_string();
        assert!(line.contains("'GET': did you mean 'get'?"), "{line}");
    }

    #[test]
    fn a_mistyped_command_is_one_line_with_a_suggestion() {
        let arguments = ["vatn", "wacth"].map(OsString::from);
        let line = parse(arguments).unwrap_err().to_string();
        assert!(line.contains("'wacth'") && line.contains("'watch'"), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
}
