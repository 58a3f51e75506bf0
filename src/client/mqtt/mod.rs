//! What the `mqtt` input and the `mqtt` output share: settings, the way to an open connection, packets, topics.
mod ask;
mod backoff;
mod link;
pub mod packet;
mod pulse;
pub mod reason;
pub mod topic;

use std::{num::NonZeroU16, path::Path, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

pub use ask::{Questions, Wanted, ask};
pub use backoff::Backoff;
pub use link::{Dial, Granted, Hello, Link, LinkError, Outbox};
pub use pulse::{Beat, Pulse};

use super::{Secret, tls::Tls};
use crate::diagnostic::Fault;

/// How to reach an MQTT broker. The same fields for the input and the output.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Connection {
    /// Where the broker listens: `mqtt://host:port`, or `mqtts://host:port` with TLS. Ports default to 1883 and 8883.
    pub url: String,
    /// The name the broker knows this client by. Two clients with the same name throw each other out, so each input and
    /// output needs its own; and it must stay the same from start to start, because the broker keeps the session under
    /// it. An output may leave it out: the broker then picks one.
    #[serde(default)]
    pub client_id: String,
    /// User name, for brokers that ask for one.
    pub username: Option<String>,
    /// Password of `username`. Never shown.
    pub password: Option<Secret>,
    /// Certificates, for `mqtts://`. Without it, the authorities of the operating system are trusted.
    pub tls: Option<Tls>,
    /// Longest silence on the connection, in seconds. A ping is sent well before; a broker that stays silent for 1.5 times
    /// as long is taken for dead and connected to again. A broker may ask for less, which is then done.
    #[serde(default = "keep_alive_s")]
    pub keep_alive_s: NonZeroU16,
    /// Longest time to connect and be welcomed, in milliseconds. Then it is tried again.
    #[serde(default = "connect_timeout_ms")]
    #[schemars(range(min = 1))]
    pub connect_timeout_ms: u64,
    /// Version of MQTT to speak.
    #[serde(default)]
    pub protocol: Protocol,
}

fn keep_alive_s() -> NonZeroU16 {
    NonZeroU16::new(30).expect("30 is not zero")
}

fn connect_timeout_ms() -> u64 {
    10_000
}

/// Version of MQTT to speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
pub enum Protocol {
    /// MQTT 5, and 3.1.1 with brokers that refuse it.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// MQTT 5 only.
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1 only. It has no receive maximum: brokers then keep few messages in flight (Mosquitto: 20).
    #[serde(rename = "3.1.1")]
    V4,
}

impl Connection {
    /// Checks the values and makes them ready to dial. Paths start at `folder`.
    ///
    /// # Errors
    /// Every fault found.
    pub fn dial(&self, folder: &Path) -> Result<Dial, Vec<Fault>> {
        let mut faults = Vec::new();
        let server = self.server().map_err(|fault| faults.push(fault)).ok();
        if let Some(tls) = &self.tls {
            faults.extend(tls.check("tls"));
            if server.as_ref().is_some_and(|s| !s.secure) {
                faults.push(
                    Fault::new("contradiction", "tls", "`tls` is set, but `url` is not `mqtts://`")
                        .label("not used by this connection")
                        .help("write `mqtts://` in `url`, or remove `tls`"),
                );
            }
        }
        if self.password.is_some() && self.username.is_none() {
            faults.push(
                Fault::new("missing-field", "password", "`password` without `username`")
                    .label("needs `username` beside it")
                    .help("MQTT 3.1.1 brokers refuse a password that comes without a user name"),
            );
        }
        for (field, text) in [("client_id", Some(&self.client_id)), ("username", self.username.as_ref())] {
            if text.is_some_and(|t| t.len() > usize::from(u16::MAX) || t.contains('\0')) {
                faults.push(
                    Fault::new("invalid-value", field, format!("`{field}` is longer than 65535 bytes or holds U+0000"))
                        .label("cannot be sent"),
                );
            }
        }
        if self.connect_timeout_ms == 0 {
            faults.push(
                Fault::new("invalid-value", "connect_timeout_ms", "`connect_timeout_ms` is 0").label("at least 1"),
            );
        }
        match server {
            Some(server) if faults.is_empty() => Ok(Dial {
                url: server.to_string(),
                server,
                folder: folder.to_owned(),
                client_id: self.client_id.clone(),
                username: self.username.clone(),
                password: self.password.clone(),
                tls: self.tls.clone().unwrap_or_default(),
                keep_alive: self.keep_alive_s,
                timeout: Duration::from_millis(self.connect_timeout_ms),
                protocol: self.protocol,
            }),
            _ => Err(faults),
        }
    }

    fn server(&self) -> Result<Server, Fault> {
        let fault = |title: String| {
            Fault::new("invalid-url", "url", title)
                .label("not the address of a broker")
                .help("write `mqtt://host:1883`, or `mqtts://host:8883` for TLS")
        };
        // The text is not repeated where it could hold a password.
        if !self.url.contains("://") {
            return Err(fault("`url` does not begin with `mqtt://`".to_owned()));
        }
        let url = Url::parse(&self.url).map_err(|error| fault(format!("`url` is no URL: {error}")))?;
        let secure = match url.scheme() {
            "mqtt" | "tcp" => false,
            "mqtts" | "ssl" => true,
            other => return Err(fault(format!("`{other}://` is no way to an MQTT broker that is known here"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fault("`url` holds a user name or password".to_owned())
                .help("write them as `username` and `password`, which are never shown"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(fault(format!("`{}` has more than a host and a port", self.url)));
        }
        match url.host_str() {
            Some(host) if !host.is_empty() => Ok(Server {
                secure,
                host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port: url.port().unwrap_or(if secure { 8883 } else { 1883 }),
            }),
            _ => Err(fault(format!("`{}` names no host", self.url))),
        }
    }
}

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    secure: bool,
    host: String,
    port: u16,
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.secure { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial(yaml: &str) -> Result<String, Vec<String>> {
        let connection: Connection = serde_yaml::from_str(yaml).unwrap();
        connection
            .dial(Path::new("."))
            .map(|d| d.url.clone())
            .map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn addresses_get_their_default_port() {
        for (url, expected) in [
            ("mqtt://localhost", "mqtt://localhost:1883"),
            ("mqtts://b.example/", "mqtts://b.example:8883"),
            ("mqtt://[::1]:99", "mqtt://[::1]:99"),
            ("tcp://10.0.0.1:1", "mqtt://10.0.0.1:1"),
        ] {
            assert_eq!(dial(&format!("url: {url}")).unwrap(), expected);
        }
    }

    #[test]
    fn every_fault_is_named_at_its_field() {
        for (yaml, faults) in [
            ("url: localhost", vec!["`url`: `url` does not begin with `mqtt://`"]),
            ("url: 'localhost:1883'", vec!["`url`: `url` does not begin with `mqtt://`"]),
            ("url: 'mqtt://x:y'", vec!["`url`: `url` is no URL: invalid port number"]),
            ("url: 'http://x'", vec!["`url`: `http://` is no way to an MQTT broker that is known here"]),
            ("url: mqtt://me:secret@x", vec!["`url`: `url` holds a user name or password"]),
            ("url: mqtt://x/topic", vec!["`url`: `mqtt://x/topic` has more than a host and a port"]),
            (
                "{url: mqtt://x, tls: {cert: a}, password: p}",
                vec![
                    "`tls.cert`: `cert` without `key`",
                    "`tls`: `tls` is set, but `url` is not `mqtts://`",
                    "`password`: `password` without `username`",
                ],
            ),
        ] {
            assert_eq!(dial(yaml).unwrap_err(), faults, "{yaml}");
        }
    }
}
