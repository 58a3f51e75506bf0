//! Whether output has colours, the same for every command.
use std::{
    io::{self, IsTerminal},
    sync::OnceLock,
};

/// When there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum When {
    /// On a terminal, unless the environment has `NO_COLOR`
    Auto,
    Always,
    Never,
}

/// Option of every command.
#[derive(Debug, clap::Args)]
pub(super) struct Colours {
    /// When output has colours
    #[arg(long, global = true, help_heading = super::EVERY, value_enum, default_value = "auto", value_name = "WHEN")]
    color: When,
}

/// What was chosen for this process.
static CHOSEN: OnceLock<When> = OnceLock::new();

impl Colours {
    /// Makes it so for the whole process.
    pub(super) fn choose(&self) {
        let _ = CHOSEN.set(self.color);
    }
}

/// True when standard output has colours.
pub(super) fn stdout() -> bool {
    on(&io::stdout())
}

/// True when standard error has colours.
pub(super) fn stderr() -> bool {
    on(&io::stderr())
}

fn on(stream: &impl IsTerminal) -> bool {
    match CHOSEN.get().copied().unwrap_or(When::Auto) {
        When::Always => true,
        When::Never => false,
        When::Auto => stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}
