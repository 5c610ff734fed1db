//! The `vatn` program: read the command line, do it, and say in one line why not.

use std::process::ExitCode;

use vatn::cli;

fn main() -> ExitCode {
    match cli::with_enough_stack(|| cli::parse(std::env::args_os()).and_then(cli::run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}
