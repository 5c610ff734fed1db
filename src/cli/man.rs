//! `vatn man`: prints pages of the manual, from the tree of arguments.

use clap::Args;
use clap_mangen::Man as Page;

use super::Failure;
use super::output::Output;

const NOTE: &str = "\
Example:
  vatn man set | man -l -

vatn man | man -l - shows the page; vatn man COMMAND has a command's own.";

/// Print a man page
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Man {
    /// The command; without it, the page of vatn itself
    command: Option<String>,
}

impl Man {
    pub(super) fn run(self, mut tree: clap::Command, out: &mut Output) -> Result<(), Failure> {
        tree.build();
        let page = match &self.command {
            None => tree,
            Some(name) => tree
                .find_subcommand(name)
                .ok_or_else(|| Failure::usage(format!("there is no command '{name}'")))?
                .clone(),
        };
        let mut roff = Vec::new();
        Page::new(page)
            .render(&mut roff)
            .map_err(|error| Failure::failed(format!("cannot write the page: {error}")))?;
        out.bytes(&roff)
    }
}
