//! Completions and manual pages, generated from the command line's declaration.

use std::fs;
use std::path::Path;

use clap::CommandFactory;

use crate::args::{Cli, Completions, Man};
use crate::commands::print_bytes;
use crate::error::{Failure, Outcome};

/// `coffer completions`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn completions(args: &Completions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "coffer", &mut script);
    print_bytes(&script)
}

/// `coffer man`.
///
/// # Errors
/// The folder can't be written.
pub(crate) fn man(args: &Man) -> Outcome {
    fs::create_dir_all(&args.dir).map_err(Failure::io(format!("make {}", args.dir.display())))?;
    let mut command = Cli::command();
    command.build();
    pages(&command, "coffer", &args.dir)
}

/// Writes the page of a command and those of the commands below it.
fn pages(command: &clap::Command, name: &str, dir: &Path) -> Outcome {
    // Pages are found by name, and clap's own name of a subcommand is only its last word.
    let named = command.clone().name(name.to_owned()).display_name(name.to_owned());
    let path = dir.join(format!("{name}.1"));
    let mut page = Vec::new();
    let doing = || format!("write {}", path.display());
    clap_mangen::Man::new(named).render(&mut page).map_err(Failure::io(doing()))?;
    fs::write(&path, page).map_err(Failure::io(doing()))?;
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        pages(below, &format!("{name}-{}", below.get_name()), dir)?;
    }
    Ok(())
}
