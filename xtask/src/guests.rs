//! `cargo xtask guests`: the test guests as files, for trying things by hand.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask guests target/guests")]
pub(crate) struct Arguments {
    /// Where they go; made if it is not there
    dir: PathBuf,
}

/// Writes every guest and says what it does.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    fs::create_dir_all(&arguments.dir)
        .with_context(|| format!("{} can't be made", arguments.dir.display()))?;
    for guest in roost_guests::all() {
        let path = arguments.dir.join(guest.name);
        fs::write(&path, guest.bytes)
            .with_context(|| format!("{} can't be written", path.display()))?;
        println!("{}: {}", path.display(), guest.about);
    }
    Ok(())
}
