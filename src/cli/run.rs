//! `streamer run`: checks the files, then runs their pipelines until they end or are told to stop.
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args as _, FromArgMatches as _};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Command, FAULTS, colour, eprint, files};
use crate::{
    diagnostic::{self, Diagnostic, Format},
    http::Server,
    metrics::{HealthBoard, Metrics},
    pipeline::{Environment, Memory},
    serve::{End, NotStarted, Serve},
};

pub(super) const COMMAND: Command = Command {
    name: "run",
    about: "Runs pipelines until they end, or SIGTERM or Ctrl-C arrives",
    arguments: Run::augment_args,
    run: |matches| Run::from_arg_matches(matches)?.run(),
};

const SIGNALS: &str = "\
Every file is checked first. Files are followed as they change, with their scripts and plugins: a pipeline that has
changed is checked, then the one that runs delivers what it has read, stops, and the new one starts; one with faults is
refused, and what runs goes on. A first signal stops reading, delivers what was read and exits; a second one exits at once.
What was not acknowledged is never lost: it comes again at the next start.";

#[derive(Debug, clap::Args)]
#[command(after_help = SIGNALS)]
struct Run {
    #[command(flatten)]
    named: files::Named,
    /// Where to serve /metrics and /health: an address with a port, or `off`
    #[arg(long, env = "STREAMER_HTTP", default_value = "127.0.0.1:8686", value_name = "ADDRESS")]
    http: String,
    /// Token that requests must carry; required to serve on an address that others can reach
    #[arg(long, env = "STREAMER_HTTP_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    http_token: Option<String>,
    /// Folder for what must survive a restart, such as payloads too large for the dead-letter topic
    #[arg(long, env = "STATE_DIR", default_value = "state", value_name = "FOLDER")]
    state_dir: PathBuf,
    /// Most payload bytes that all pipelines together hold between input and acknowledgement; each may hold an equal share
    #[arg(
        long,
        env = "STREAMER_MEMORY_BYTES_MAX",
        default_value_t = 512 << 20,
        value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1 << 20..)
    )]
    memory_bytes_max: u64,
    /// Does not follow the files as they change; SIGHUP reads them anew all the same
    #[arg(long)]
    no_watch: bool,
    /// `off` does the same as --no-watch
    #[arg(long, env = "STREAMER_WATCH", default_value = "on", hide = true)]
    watch: String,
}

impl Run {
    fn run(self) -> anyhow::Result<ExitCode> {
        let http = match self.http.as_str() {
            "off" => None,
            address => Some(address.parse::<SocketAddr>().map_err(|_| {
                anyhow::anyhow!(
                    "`{address}` is not an address with a port; write for example --http 127.0.0.1:8686, or --http off"
                )
            })?),
        };
        let watch = match self.watch.as_str() {
            "on" => !self.no_watch,
            "off" => false,
            other => anyhow::bail!("`{other}` is not `on` or `off`, as STREAMER_WATCH must be"),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let code = runtime.block_on(self.serve(http, watch));
        // A script or a library call that still runs must not hold up the exit.
        runtime.shutdown_background();
        code
    }

    async fn serve(self, http: Option<SocketAddr>, watch: bool) -> anyhow::Result<ExitCode> {
        let (metrics, health) = (Metrics::new(), HealthBoard::default());
        let environment = Environment {
            metrics: metrics.clone(),
            health: health.clone(),
            state: self.state_dir.clone(),
            memory: Memory::new(usize::try_from(self.memory_bytes_max).unwrap_or(usize::MAX)),
        };
        let named = self.named.clone();
        let serve = match Serve::prepare(Box::new(move || named.read()), environment) {
            Ok((serve, warnings)) => {
                show(&warnings);
                serve
            }
            Err(NotStarted::Unread(error)) => return Err(error),
            Err(NotStarted::Faults(faults)) => {
                show(&faults);
                eprint("nothing was started\n");
                return Ok(ExitCode::from(FAULTS));
            }
        };
        let stop_http = CancellationToken::new();
        if let Some(address) = http {
            let server = Server::bind(address, self.http_token, metrics, health).await?;
            info!(address = server.address().map(tracing::field::display), "serving /metrics and /health");
            tokio::spawn(server.run(stop_http.clone()));
        }
        let end = serve.run(watch).await?;
        stop_http.cancel();
        Ok(if end == End::Done { ExitCode::SUCCESS } else { ExitCode::from(FAULTS) })
    }
}

fn show(found: &[Diagnostic]) {
    eprint(&diagnostic::render(found, Format::Full, colour::stderr()));
}
