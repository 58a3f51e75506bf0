//! `streamer run`: checks the files, then runs their pipelines until they end or are told to stop.
use std::{io::IsTerminal as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args as _, FromArgMatches as _};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Command, FAULTS, eprint, files};
use crate::{
    diagnostic::{self, Diagnostic, Format, Severity},
    http::Server,
    lint::lint,
    metrics::{HealthBoard, Metrics},
    pipeline::{Environment, Pipeline},
};

pub(super) const COMMAND: Command = Command {
    name: "run",
    about: "Runs pipelines until they end, or SIGTERM or Ctrl-C arrives",
    arguments: Run::augment_args,
    run: |matches| Run::from_arg_matches(matches)?.run(),
};

const SIGNALS: &str = "\
Every file is checked first. A first signal stops reading, delivers what was read and exits; a second one exits at once.
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
        let (registry, documents) = self.named.read()?;
        let found = lint(&documents, &registry);
        // Notes are for whoever writes pipelines: `streamer lint` shows them.
        let found: Vec<_> = found.into_iter().filter(|fault| fault.severity != Severity::Note).collect();
        show(&found);
        if found.iter().any(Diagnostic::is_error) {
            eprint("nothing was started\n");
            return Ok(ExitCode::from(FAULTS));
        }
        let mut pipelines = Vec::new();
        for config in documents.iter().filter_map(|document| document.pipeline(&registry)) {
            match Pipeline::build(&config, &registry) {
                Ok(pipeline) => pipelines.push(pipeline),
                Err(faults) => {
                    show(&faults);
                    return Ok(ExitCode::from(FAULTS));
                }
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let code = runtime.block_on(self.serve(pipelines, http));
        // A script or a library call that still runs must not hold up the exit.
        runtime.shutdown_background();
        code
    }

    async fn serve(&self, pipelines: Vec<Pipeline>, http: Option<SocketAddr>) -> anyhow::Result<ExitCode> {
        let (metrics, health) = (Metrics::new(), HealthBoard::default());
        let environment =
            Environment { metrics: metrics.clone(), health: health.clone(), state: self.state_dir.clone() };
        let (stop, stop_http) = (CancellationToken::new(), CancellationToken::new());
        if let Some(address) = http {
            let server = Server::bind(address, self.http_token.clone(), metrics, health).await?;
            info!(address = server.address().map(tracing::field::display), "serving /metrics and /health");
            tokio::spawn(server.run(stop_http.clone()));
        }
        let mut terminate = signal(SignalKind::terminate())?;
        let mut running = JoinSet::new();
        for pipeline in pipelines {
            let (environment, stop) = (environment.clone(), stop.clone());
            running.spawn(async move { pipeline.run(&environment, stop).await });
        }
        let mut failed = false;
        loop {
            tokio::select! {
                ended = running.join_next() => match ended {
                    None => break,
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => {
                        failed = true;
                        error!(%error, "a pipeline has failed; the others go on");
                    }
                    Some(Err(error)) => {
                        failed = true;
                        error!(%error, "a pipeline has ended unexpectedly; the others go on");
                    }
                },
                _ = terminate.recv() => if second_signal(&stop) { return Ok(ExitCode::from(FAULTS)) },
                _ = tokio::signal::ctrl_c() => if second_signal(&stop) { return Ok(ExitCode::from(FAULTS)) },
            }
        }
        stop_http.cancel();
        Ok(if failed { ExitCode::from(FAULTS) } else { ExitCode::SUCCESS })
    }
}

/// Starts the stop. Answers true when it was under way already.
fn second_signal(stop: &CancellationToken) -> bool {
    if stop.is_cancelled() {
        warn!("second signal: leaving at once; what was not acknowledged comes again");
        return true;
    }
    info!("stopping: no more is read, what was read is delivered; a second signal leaves at once");
    stop.cancel();
    false
}

fn show(found: &[Diagnostic]) {
    eprint(&diagnostic::render(found, Format::Full, std::io::stderr().is_terminal()));
}
