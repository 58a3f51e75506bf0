//! Streamer as users run it: a process.
use std::{
    fs::{File, OpenOptions},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use super::{Case, at_least, eventually, http, note};

/// Lines of the log that a failed test shows.
const LOG_LINES: usize = 120;

pub struct Streamer {
    command: Command,
    child: Option<Child>,
    /// `host:port` of its HTTP server.
    http: String,
    log: PathBuf,
}

impl Streamer {
    /// Starts `streamer run` on `files`.
    pub fn start(case: &Case, files: &[PathBuf]) -> Self {
        Self::start_under(&[], case, files)
    }

    /// The same, by a program that becomes streamer in the end, with its arguments.
    pub fn start_under(wrapper: &[&str], case: &Case, files: &[PathBuf]) -> Self {
        let mut streamer = Self::idle(wrapper, case, files);
        streamer.start_again();
        streamer
    }

    /// Starts another instance beside the first, as on another machine: with a state and an archive of its own.
    pub fn start_beside(case: &Case, files: &[PathBuf]) -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let folder = case.folder().join(format!("beside{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut streamer = Self::idle(&[], case, files);
        streamer.command.env("STATE_DIR", folder.join("state")).env("ARCHIVE_DIR", folder.join("archive"));
        streamer.start_again();
        streamer
    }

    fn idle(wrapper: &[&str], case: &Case, files: &[PathBuf]) -> Self {
        let http = format!("127.0.0.1:{}", free_port());
        let log = case.folder().join("streamer.log");
        let mut command = command(wrapper, case);
        command.arg("run").args(files).env("STREAMER_HTTP", &http).env("STATE_DIR", case.state());
        Self { command, child: None, http, log }
    }

    /// Starts it once more, with the same settings and state, after it has ended.
    pub fn start_again(&mut self) {
        assert!(!self.is_running(), "streamer runs already");
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("the log can be written");
        let errors = log.try_clone().expect("a file handle can be copied");
        self.command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.child = Some(self.command.spawn().expect("streamer can be started"));
    }

    /// Polls `fact` until it holds, as long as streamer runs.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, mut fact: impl FnMut() -> Result<T, String>) -> T {
        let pid = self.pid();
        eventually(what, || {
            // A child that has ended is a zombie until it is waited for.
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let ended =
                state.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z') || rest.is_empty());
            assert!(!ended, "streamer has ended while a test waited: {what}");
            fact()
        })
    }

    /// Waits until it says that every component works.
    #[track_caller]
    pub fn wait_ready(&self) {
        self.eventually("streamer is ready", || match self.get("/health/ready")? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("{status} {body}")),
        });
    }

    /// Waits until `/health/ready` gives a reason that contains `word`.
    #[track_caller]
    pub fn wait_unready(&self, word: &str) {
        self.eventually("streamer says what does not work", || match self.get("/health/ready")? {
            (503, body) if body.contains(word) => Ok(()),
            (status, body) => Err(format!("{status} {body} does not name `{word}`")),
        });
    }

    /// Waits until `component`, `pipeline/kind/label`, has a reason why it does not work, and answers it.
    #[track_caller]
    pub fn wait_fault(&self, component: &str) -> String {
        self.eventually(&format!("streamer says that {component} does not work"), || {
            let (_, body) = self.get("/health/ready")?;
            let faults: serde_json::Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
            let mut faults = faults["faults"].as_array().into_iter().flatten();
            let fault = faults.find(|fault| fault["component"] == component);
            let reason =
                fault.and_then(|fault| fault["reason"].as_str()).filter(|reason| !reason.starts_with("starting"));
            reason.map(str::to_owned).ok_or_else(|| body.clone())
        })
    }

    /// Waits until `/health/ready` has a note on `component` that contains `text`, and answers it.
    #[track_caller]
    pub fn wait_note(&self, component: &str, text: &str) -> String {
        self.eventually(&format!("streamer has a note on {component}: {text}"), || {
            let (_, body) = self.get("/health/ready")?;
            let health: serde_json::Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
            let mut notes = health["notes"].as_array().into_iter().flatten();
            let note = notes.find(|note| note["pipeline"] == component && note.to_string().contains(text));
            note.map(|note| note["note"].as_str().expect("a text").to_owned()).ok_or(body)
        })
    }

    /// Waits until every output of this process has confirmed `count` messages.
    #[track_caller]
    pub fn wait_deliveries(&self, count: u32) {
        self.eventually("every output delivers", || {
            let (_, text) = self.get("/metrics")?;
            let lines = text.lines().filter(|line| line.starts_with("streamer_delivered_messages_total{"));
            let outputs = lines.filter(|line| line.contains("kind=\"output\""));
            let counts = outputs.map(|line| line.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0));
            at_least(counts.min().unwrap_or(0), count)
        });
    }

    /// Asks its HTTP server.
    pub fn get(&self, path: &str) -> Result<(u16, String), String> {
        http::get(&self.http, path)
    }

    /// kill -9.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("streamer runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// SIGTERM, and its exit code.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        signal("TERM", self.pid());
        self.wait()
    }

    /// Sends it a signal: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        signal(name, self.pid());
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("streamer runs");
        let log = self.log.clone();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("streamer ends", || {
                child.try_wait().expect("a child can be waited for").ok_or_else(|| "it still runs".to_owned())
            })
        }));
        ended.unwrap_or_else(|panic| {
            let _ = child.kill();
            note(tail(&log));
            std::panic::resume_unwind(panic)
        })
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("a child can be waited for").is_none())
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("streamer runs").id()
    }

    /// Memory in use, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("streamer runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// The sum of a metric over the components that all of `labels` fit, such as `kind="input"`; 0 when there is none.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64, String> {
        let (_, text) = self.get("/metrics")?;
        let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
        let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// What it has logged since it was first started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The log's lines of one level, `WARN` or `ERROR`.
    pub fn log_lines(&self, level: &str) -> Vec<String> {
        let level = format!(" {level} ");
        self.log().lines().filter(|line| line.contains(&level)).map(str::to_owned).collect()
    }
}

impl Drop for Streamer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            note(tail(&self.log));
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    let short: Vec<String> = last.iter().map(|line| line.chars().take(1000).collect()).collect();
    format!("--- the last of streamer's log\n{}\n---", short.join("\n"))
}

/// The binary, with the environment of a case and nothing else that could steer it.
fn command(wrapper: &[&str], case: &Case) -> Command {
    let words = [wrapper, &[env!("CARGO_BIN_EXE_streamer")]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    for name in ["STREAMER_LOG", "STREAMER_HTTP", "STREAMER_HTTP_TOKEN", "STATE_DIR"] {
        command.env_remove(name);
    }
    command.envs(&case.environment);
    command
}

/// Runs `streamer` with `arguments` to its end.
pub fn output(case: &Case, arguments: &[&str]) -> Output {
    command(&[], case).args(arguments).stdin(Stdio::null()).output().expect("streamer can be started")
}

fn signal(name: &str, pid: u32) {
    let done = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("kill can be started");
    assert!(done.success(), "kill -s {name} {pid}: {done}");
}

/// A port for a server of this test, below the range that the kernel takes outgoing connections from. Nobody listens on
/// it, and no test of any process gets it as long as this one runs: it is locked, also while its server is down.
pub fn free_port() -> u16 {
    static LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16;
    let folder = std::env::temp_dir().join("streamer-test-ports");
    std::fs::create_dir_all(&folder).expect("the folder for temporary files works");
    eventually("a port is free", || {
        let port = 10_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 8_000;
        let lock = File::create(folder.join(port.to_string())).map_err(|error| error.to_string())?;
        lock.try_lock().map_err(|error| format!("port {port} belongs to another test: {error}"))?;
        TcpListener::bind(("127.0.0.1", port)).map_err(|error| format!("port {port}: {error}"))?;
        LOCKS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
        Ok(port)
    })
}

/// The length of an outage, or of anything else that is part of a test and not a wait for a fact.
pub fn outage(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}
