//! The `vatn` program: reads the command line, runs the command, and reports failure in one line.

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
