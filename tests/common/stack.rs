//! Where the services are: one stack that somebody else has brought up, or one of our own that may be broken.
use std::{
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::{clickhouse::ClickHouse, kafka, mqtt, root};

/// Addresses of the three services.
#[derive(Clone, Debug)]
pub struct Stack {
    /// `host:port`
    pub mqtt: String,
    /// `host:port`, several of them with commas between
    pub kafka: String,
    pub clickhouse: ClickHouse,
}

impl Stack {
    /// The stack that the environment names. Asks each service, once.
    ///
    /// # Panics
    /// One does not answer: a test that needs it has failed, not passed.
    #[track_caller]
    pub fn running() -> Self {
        static STACK: OnceLock<Result<Stack, String>> = OnceLock::new();
        let found = STACK.get_or_init(|| {
            let stack = Self::named(|name| std::env::var(name).ok());
            stack.answers().map(|()| stack)
        });
        found.clone().unwrap_or_else(|absent| panic!("{absent}: run `make test`, or `make up` and eval its env"))
    }

    /// The stack at the addresses in variables that `variable` looks up.
    fn named(variable: impl Fn(&str) -> Option<String>) -> Self {
        let or = |name: &str, default: &str| variable(name).unwrap_or_else(|| default.to_owned());
        Self {
            mqtt: format!("{}:{}", or("MQTT_BROKER", "127.0.0.1"), or("MQTT_PORT", "1883")),
            kafka: or("KAFKA_BOOTSTRAP", "127.0.0.1:9092"),
            clickhouse: ClickHouse {
                url: or("CLICKHOUSE_URL", "http://127.0.0.1:8123"),
                user: or("CLICKHOUSE_USER", "default"),
                password: or("CLICKHOUSE_PASSWORD", ""),
            },
        }
    }

    fn answers(&self) -> Result<(), String> {
        let absent = |name: &str, place: &str| format!("{name} does not answer on {place}");
        mqtt::answers(&self.mqtt).map_err(|_| absent("mosquitto", &self.mqtt))?;
        kafka::answers(&self.kafka).map_err(|_| absent("kafka", &self.kafka))?;
        self.clickhouse.query("SELECT 1").map(drop).map_err(|_| absent("clickhouse", &self.clickhouse.url))
    }
}

/// A stack of our own, and the right to break it: its services are killed, paused and started again by one test at a
/// time. The tests of a process share it; the last of them takes it down, also when it fails.
pub struct OwnStack {
    pub stack: Stack,
    name: String,
    /// Of the stack that tests share; none for one that a test has alone.
    turn: Option<MutexGuard<'static, ()>>,
}

/// The stack and how many tests hold it or wait for it.
static SHARED: Mutex<Option<(Stack, usize)>> = Mutex::new(None);
/// Whose turn it is to break it.
static TURN: Mutex<()> = Mutex::new(());

impl OwnStack {
    /// Waits for its turn, and answers with all services working. A test that failed before does no harm.
    pub fn take() -> Self {
        let name = format!("faults-{}", std::process::id());
        let stack = {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            let (stack, holders) = shared.get_or_insert_with(|| (Self::up(&name, &[]), 0));
            *holders += 1;
            stack.clone()
        };
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let own = Self { stack, name, turn: Some(turn) };
        own.mend();
        own
    }

    /// A stack of three Kafka brokers that keep three copies of everything, for this test alone.
    pub fn of_three_brokers() -> Self {
        let name = format!("cluster-{}", std::process::id());
        let stack = Self::up(&name, &["--engine", "native", "--brokers", "3"]);
        Self { stack, name, turn: None }
    }

    fn up(name: &str, more: &[&str]) -> Stack {
        let half_way = Down(name);
        run(&[&["up", "--name", name, "--ports", "free"], more].concat());
        let variables = run(&["env", "--name", name]);
        let value = |wanted: &str| {
            let line = variables.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(wanted));
            line.and_then(|rest| rest.strip_prefix('=')).map(|value| value.trim_matches('\'').to_owned())
        };
        let stack = Stack::named(value);
        std::mem::forget(half_way);
        stack
    }

    /// Does `verb` (`start`, `stop`, `restart`, `kill`, `pause` or `resume`) on one service and waits until it is done.
    pub fn act(&self, verb: &str, service: &str) {
        run(&[verb, service, "--name", &self.name]);
    }

    /// The log of one service.
    pub fn log(&self, service: &str) -> String {
        run(&["logs", service, "--name", &self.name, "--lines", "1000000"])
    }

    /// Brings back what a failed test has left broken.
    fn mend(&self) {
        let status = call(&["status", "--name", &self.name]).1;
        for line in status.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some(service), Some("paused")) => self.act("resume", service),
                (Some(service), Some("stopped")) => self.act("start", service),
                _ => {}
            }
        }
    }
}

impl Drop for OwnStack {
    fn drop(&mut self) {
        if self.turn.is_none() {
            drop(Down(&self.name));
            return;
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, holders)) = shared.as_mut() else { return };
        *holders -= 1;
        if *holders == 0 {
            *shared = None;
            drop(Down(&self.name));
        }
    }
}

/// Takes a stack down when dropped, also when bringing it up has failed half-way.
struct Down<'a>(&'a str);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        call(&["down", "--name", self.0]);
    }
}

/// Runs the script that manages stacks; panics with its words when it fails.
#[track_caller]
fn run(arguments: &[&str]) -> String {
    let (success, text) = call(arguments);
    assert!(success, "services/stack.py {}: {text}", arguments.join(" "));
    text
}

fn call(arguments: &[&str]) -> (bool, String) {
    let script: PathBuf = root().join("services/stack.py");
    let done = Command::new("python3").arg(script).args(arguments).output().expect("python3 can be started");
    let text = if done.status.success() { done.stdout } else { [done.stdout, done.stderr].concat() };
    (done.status.success(), String::from_utf8_lossy(&text).into_owned())
}
