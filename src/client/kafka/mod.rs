//! Settings that the `kafka` input and output share: how to reach the brokers, and the way down to librdkafka.
mod ask;
mod quiet;
mod remind;
mod tail;
mod watch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use rdkafka::{ClientConfig, error::KafkaError};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Secret;
use crate::diagnostic::{Fault, PathSegment};

pub use ask::{Brokers, Use, ask};
pub use quiet::{Quiet, find_topic};
pub use remind::Memory;
pub use tail::{Tailed, tail};
pub use watch::{Watch, log};

/// One text, with commas between its parts, or a list.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    /// The parts, without blanks around them. Empty parts are kept: they are faults.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let (one, many): (_, &[String]) = match self {
            Self::One(text) => (Some(text.split(',').map(str::trim)), &[]),
            Self::Many(list) => (None, list),
        };
        one.into_iter().flatten().chain(many.iter().map(|s| s.trim()))
    }
}

/// How to reach a Kafka cluster.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Connection {
    /// Brokers to ask first, as `host:port`: a list, or one text with commas. The rest of the cluster is learned from them.
    brokers: OneOrMany,
    /// Encrypts the connection. `tls: {}` trusts the certificate authorities of the system.
    #[serde(default)]
    tls: Option<Tls>,
    /// Signs in with a user name and a password.
    #[serde(default)]
    sasl: Option<Sasl>,
    /// Name by which the brokers' logs and quotas know this client.
    #[serde(default = "client_id")]
    client_id: String,
    /// More properties for librdkafka, by its own names, for example `fetch.wait.max.ms: 50`. Properties that delivery
    /// depends on, or that have a field of their own here, are refused.
    #[serde(default)]
    options: BTreeMap<String, OptionValue>,
}

fn client_id() -> String {
    "streamer".into()
}

/// Certificates, as PEM files. Relative paths start at the pipeline file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificate authority that signed the brokers' certificates. Default: those of the system.
    #[serde(default)]
    ca: Option<PathBuf>,
    /// This client's certificate. Needs `key`.
    #[serde(default)]
    cert: Option<PathBuf>,
    /// The private key of `cert`.
    #[serde(default)]
    key: Option<PathBuf>,
}

/// User name and password.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How the password is proved to the broker.
    mechanism: Mechanism,
    /// The user name.
    username: String,
    /// The password.
    password: Secret,
}

/// How a password is proved to the broker.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// Sent as it is: only sensible together with `tls`.
    Plain,
    /// Salted challenge with SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// Salted challenge with SHA-512.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// A value of a librdkafka property.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OptionValue {
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

impl OptionValue {
    fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(value) => value.clone(),
        }
    }
}

/// A property that may not be set under `options`, and why.
pub type Refused = (&'static str, &'static str);

const REFUSED: &[Refused] = &[
    ("bootstrap.servers", "write it as `brokers`"),
    ("metadata.broker.list", "write it as `brokers`"),
    ("client.id", "write it as `client_id`"),
    ("security.protocol", "it follows from `tls` and `sasl`"),
    ("ssl.ca.location", "write it as `tls.ca`"),
    ("ssl.certificate.location", "write it as `tls.cert`"),
    ("ssl.key.location", "write it as `tls.key`"),
    ("sasl.mechanism", "write it as `sasl.mechanism`"),
    ("sasl.mechanisms", "write it as `sasl.mechanism`"),
    ("sasl.username", "write it as `sasl.username`"),
    ("sasl.password", "write it as `sasl.password`"),
    ("log.queue", "streamer relies on it for its logs"),
    ("statistics.interval.ms", "streamer relies on it for lag and health"),
];

impl Connection {
    /// The brokers as librdkafka wants them, and as messages name them.
    pub fn brokers(&self) -> String {
        self.brokers.iter().collect::<Vec<_>>().join(",")
    }

    /// The brokers in one way of writing: sorted, each with its port.
    pub fn server(&self) -> String {
        let with_port = |broker: &str| match broker.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => broker.to_owned(),
            _ => format!("{broker}:9092"),
        };
        let mut brokers: Vec<String> = self.brokers.iter().map(with_port).collect();
        brokers.sort();
        format!("kafka://{}", brokers.join(","))
    }

    /// Every fault of these settings. `refused` names the properties that the caller adds to those nobody may set.
    pub fn check(&self, folder: &Path, refused: &[Refused]) -> Vec<Fault> {
        let mut faults = Vec::new();
        for broker in self.brokers.iter() {
            if let Some(wrong) = broker_fault(broker) {
                faults.push(
                    Fault::new("bad-address", "brokers", format!("`{broker}` is not an address of a Kafka broker"))
                        .label(wrong)
                        .help("write `host:port`, for example `localhost:9092`"),
                );
            }
        }
        if let Some(tls) = &self.tls {
            faults.extend(tls.check(folder));
        }
        faults.extend(self.options.iter().filter_map(|(name, value)| option_fault(name, value, refused)));
        faults
    }

    /// librdkafka's settings for this connection, `options` last but for what the caller sets after.
    pub fn client_config(&self, folder: &Path) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers())
            .set("client.id", &self.client_id)
            .set("statistics.interval.ms", "5000")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "3000")
            .set("log.connection.close", "false");
        if self.brokers.iter().all(is_local) {
            // `localhost` is ::1 first on many machines, where no broker listens: one refused connection each time.
            config.set("broker.address.family", "v4");
        }
        let security = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", security);
        if let Some(tls) = &self.tls {
            for (name, path) in
                [("ssl.ca.location", &tls.ca), ("ssl.certificate.location", &tls.cert), ("ssl.key.location", &tls.key)]
            {
                if let Some(path) = path {
                    config.set(name, folder.join(path).to_string_lossy());
                }
            }
        }
        if let Some(sasl) = &self.sasl {
            let mechanism = match sasl.mechanism {
                Mechanism::Plain => "PLAIN",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            config.set("sasl.mechanism", mechanism).set("sasl.username", &sasl.username);
            config.set("sasl.password", sasl.password.expose());
        }
        for (name, value) in &self.options {
            config.set(name, value.text());
        }
        config
    }
}

impl Tls {
    fn check(&self, folder: &Path) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (field, path) in [("tls.ca", &self.ca), ("tls.cert", &self.cert), ("tls.key", &self.key)] {
            if let Some(path) = path
                && !folder.join(path).is_file()
            {
                faults.push(
                    Fault::new("file-not-found", field, format!("there is no file `{}`", path.display()))
                        .label("no such file")
                        .help("relative paths start at the folder of the pipeline file"),
                );
            }
        }
        for (there, missing, gone) in
            [("tls.cert", "key", self.key.is_none()), ("tls.key", "cert", self.cert.is_none())]
        {
            let given = if missing == "key" { self.cert.is_some() } else { self.key.is_some() };
            if given && gone {
                faults.push(
                    Fault::new("missing-field", there, format!("`{there}` needs `tls.{missing}` beside it"))
                        .label(format!("no `{missing}` beside it"))
                        .help("a client certificate and its private key go together"),
                );
            }
        }
        faults
    }
}

/// What is wrong with an address, if anything is.
fn broker_fault(broker: &str) -> Option<&'static str> {
    if broker.is_empty() {
        return Some("an empty address");
    }
    if broker.contains("://") {
        return Some("an address has no scheme; `tls` and `sasl` say how to connect");
    }
    if broker.contains(char::is_whitespace) {
        return Some("an address has no blanks; commas separate addresses");
    }
    let port = match broker.rsplit_once(':') {
        Some(("", _)) => return Some("the host is missing"),
        Some((host, _)) if host.starts_with('[') && !host.ends_with(']') => return None,
        Some((_, port)) => port,
        None => return None,
    };
    (port.parse::<u16>().ok().filter(|&p| p > 0).is_none()).then_some("a port is a number from 1 to 65535")
}

fn is_local(broker: &str) -> bool {
    let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
    host == "localhost" || host == "127.0.0.1"
}

fn option_fault(name: &str, value: &OptionValue, refused: &[Refused]) -> Option<Fault> {
    // Dots are part of the property's name, so the path is built by hand.
    let fault = |code, title: String| {
        let mut fault = Fault::new(code, "", title);
        fault.path = vec![PathSegment::Key("options".into()), PathSegment::Key(name.into())];
        fault
    };
    if let Some((_, why)) = REFUSED.iter().chain(refused).find(|(refused, _)| *refused == name) {
        return Some(
            fault("refused-option", format!("`{name}` cannot be set under `options`: {why}"))
                .label("streamer sets this itself")
                .help("remove it"),
        );
    }
    let mut config = ClientConfig::new();
    config.set(name, value.text());
    match config.create_native_config() {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(_, reason, ..)) => Some(
            fault("bad-option", format!("librdkafka refuses the option `{name}`: {}", lower_first(&reason)))
                .label("this property")
                .help("the properties are listed in librdkafka's CONFIGURATION.md"),
        ),
        Err(error) => Some(fault("bad-option", format!("librdkafka refuses the option `{name}`: {error}"))),
    }
}

/// librdkafka's texts start with a capital; ours do not.
pub fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if chars.clone().next().is_none_or(|c| !c.is_uppercase()) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(yaml: &str) -> Connection {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn faults(yaml: &str) -> Vec<String> {
        connection(yaml)
            .check(Path::new("."), &[("acks", "streamer needs all")])
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn brokers_are_a_text_or_a_list() {
        for yaml in ["brokers: 'a:1, b:2'", "brokers: [a:1, b:2]"] {
            assert_eq!(connection(yaml).brokers(), "a:1,b:2");
            assert_eq!(faults(yaml), <[String; 0]>::default());
        }
    }

    #[test]
    fn every_fault_is_found() {
        let all = faults(
            "{brokers: 'kafka://a:1,b:x,', tls: {ca: no.pem, cert: no.crt}, \
             options: {acks: 1, security.protocol: ssl, no.such.thing: 2, fetch.wait.max.ms: fast, fetch.min.bytes: 5}}",
        );
        let expected = [
            "`brokers`: `kafka://a:1` is not",
            "`brokers`: `b:x` is not",
            "`brokers`: `` is not",
            "`tls.ca`: there is no file `no.pem`",
            "`tls.cert`: there is no file `no.crt`",
            "`tls.cert`: `tls.cert` needs `tls.key`",
            "`options.acks`: `acks` cannot be set under `options`: streamer needs all",
            "`options.fetch.wait.max.ms`: librdkafka refuses",
            "`options.no.such.thing`: librdkafka refuses",
            "`options.security.protocol`: `security.protocol` cannot be set",
        ];
        assert_eq!(all.len(), expected.len(), "{all:#?}");
        for (fault, expected) in all.iter().zip(expected) {
            assert!(fault.starts_with(expected), "{fault}\n{expected}");
        }
    }

    #[test]
    fn security_follows_from_tls_and_sasl() {
        let sasl = "sasl: {mechanism: scram-sha-512, username: u, password: p}";
        for (yaml, expected) in [
            ("brokers: a:1".to_owned(), "plaintext"),
            ("{brokers: a:1, tls: {}}".to_owned(), "ssl"),
            (format!("{{brokers: a:1, {sasl}}}"), "sasl_plaintext"),
            (format!("{{brokers: a:1, tls: {{}}, {sasl}}}"), "sasl_ssl"),
        ] {
            let config = connection(&yaml).client_config(Path::new("."));
            assert_eq!(config.get("security.protocol"), Some(expected), "{yaml}");
            assert!(config.create_native_config().is_ok(), "{yaml}");
        }
    }

    #[test]
    fn local_brokers_are_reached_by_ipv4() {
        let family =
            |yaml| connection(yaml).client_config(Path::new(".")).get("broker.address.family").map(str::to_owned);
        assert_eq!(family("brokers: 'localhost:1,127.0.0.1:2'").as_deref(), Some("v4"));
        assert_eq!(family("brokers: 'localhost:1,kafka:2'"), None);
    }
}
