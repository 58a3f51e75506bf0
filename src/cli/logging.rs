//! Logs: where they go and how they look, the same for every command.
use tracing_subscriber::EnvFilter;

use super::EVERY;

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// How logs are written to standard error
    #[arg(long, global = true, help_heading = EVERY, value_enum, env = "STREAMER_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
    /// Least level that is logged: error, warn, info, debug or trace; or for parts of the program: `info,rumqttc=debug`
    #[arg(long, global = true, help_heading = EVERY, env = "STREAMER_LOG", default_value = "info", value_name = "LEVEL")]
    log_level: String,
}

impl Options {
    /// Starts logging to standard error.
    pub(super) fn start(&self) -> anyhow::Result<()> {
        // It tells of each try; what a try was for tells of the trouble.
        let filter = EnvFilter::try_new(format!("object_store=warn,{}", self.log_level))
            .map_err(|_| anyhow::anyhow!("`{}` is not a log level; write for example `debug`", self.log_level))?;
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let started = match self.log_format {
            LogFormat::Text => builder.with_target(false).with_ansi(super::colour::stderr()).try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
        started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
    }
}
