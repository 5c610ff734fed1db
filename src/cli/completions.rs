//! `vatn completions`: prints completion scripts for shells, from the tree of arguments.

use clap::Args;
use clap_complete::Shell;

use super::Failure;
use super::output::Output;

const NOTE: &str = "\
Examples:
  vatn completions bash > ~/.local/share/bash-completion/completions/vatn
  vatn completions zsh  > ~/.zfunc/_vatn        with fpath+=~/.zfunc before compinit in ~/.zshrc
  vatn completions fish > ~/.config/fish/completions/vatn.fish";

/// Print a script that completes commands in a shell
#[derive(Debug, Args)]
#[command(after_help = NOTE)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, tree: &mut clap::Command, out: &mut Output) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, tree, "vatn", &mut script);
        out.bytes(&script)
    }
}
