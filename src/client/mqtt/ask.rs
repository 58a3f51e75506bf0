//! What `lint --connect` asks an MQTT broker. It comes under a name of its own and is forgotten when it leaves, so that
//! nothing happens to the session that a pipeline has there.
use std::{io, time::Duration};

use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::v5::{self, RetainForwardRule},
};
use tokio::io::AsyncReadExt as _;

use super::{
    Dial, Granted, Hello, Link, LinkError, Outbox,
    packet::{self, Framed, Version, kind},
    reason,
};
use crate::{client::probe, diagnostic::Fault};

/// Nothing is kept, and whatever is sent to us fits.
const HELLO: Hello = Hello {
    clean_start: true,
    session_expiry_s: 0,
    receive_maximum: u16::MAX,
    packet_bytes_max: packet::REMAINING_MAX as u32,
};
const SUBSCRIBE_ID: u16 = 1;

/// A filter to subscribe to, and where its faults belong.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// As it is sent.
    pub filter: String,
    pub qos: u8,
    pub field: String,
}

/// Connects, asks for `filters` and leaves. `check` says what the broker's limits do not allow.
pub async fn ask(
    mut dial: Dial,
    limit: Duration,
    filters: Vec<Wanted>,
    check: impl FnOnce(&Granted) -> Vec<Fault>,
) -> Vec<Fault> {
    // MQTT 3.1.1 brokers need not take more than 23 characters.
    dial.client_id = format!("lint-{:016x}", rand::random::<u64>());
    dial.timeout = limit;
    let answer = async {
        let link = dial.open(&HELLO, &mut None).await?;
        let mut faults = check(&link.granted);
        faults.extend(subscribe(&dial, link, &filters).await?);
        Ok(faults)
    };
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.unwrap_or_else(|error| vec![fault(&dial, &error)]),
        Err(_) => vec![fault(&dial, &LinkError::Timeout { url: dial.url.clone(), timeout: limit })],
    }
}

/// Which filters the broker refuses, or grants only in part. What it sends meanwhile is not acknowledged.
async fn subscribe(dial: &Dial, link: Link, filters: &[Wanted]) -> Result<Vec<Fault>, LinkError> {
    let Link { mut reader, mut writer, mut buffer, version, .. } = link;
    let broken = |source: io::Error| dial.broken(source);
    let mut out = Outbox::default();
    let mut reasons = Vec::new();
    if !filters.is_empty() {
        put_subscribe(&mut out, version, filters).map_err(|text| dial.unfit(text))?;
        out.send(&mut writer).await.map_err(broken)?;
        loop {
            match packet::frame(&buffer, 0, packet::REMAINING_MAX).map_err(|error| dial.malformed(error))? {
                Framed::Whole(frame) => {
                    let bytes = buffer.split_to(frame.body.end);
                    let body = &bytes[frame.body.clone()];
                    match frame.kind() {
                        kind::SUBACK => {
                            let found = packet::suback_reasons(body, version);
                            reasons.extend_from_slice(found.map_err(|error| dial.malformed(error))?);
                            break;
                        }
                        kind::DISCONNECT => return Err(dial.disconnected(body)),
                        _ => {}
                    }
                }
                Framed::Partial(_) => {
                    if reader.read_buf(&mut buffer).await.map_err(broken)? == 0 {
                        return Err(dial.closed());
                    }
                }
            }
        }
    }
    packet::put_disconnect(&mut out.bytes, version, 0);
    // All questions are answered; a broker that is gone by now is no fault.
    let _ = out.send(&mut writer).await;
    let answered = filters.iter().zip(reasons);
    Ok(answered.filter_map(|(wanted, code)| refused(dial, wanted, code)).collect())
}

fn put_subscribe(out: &mut Outbox, version: Version, filters: &[Wanted]) -> Result<(), String> {
    let written = match version {
        Version::V5 => {
            let filters = filters.iter().map(|wanted| v5::Filter {
                retain_forward_rule: RetainForwardRule::Never,
                ..v5::Filter::new(&wanted.filter, rumqttc::v5::mqttbytes::qos(wanted.qos).expect("checked by build"))
            });
            let mut subscribe = v5::Subscribe::new_many(filters, None);
            subscribe.pkid = SUBSCRIBE_ID;
            subscribe.write(&mut out.bytes).map_err(|error| error.to_string())
        }
        Version::V4 => {
            let filters = filters.iter().map(|wanted| {
                v4::SubscribeFilter::new(wanted.filter.clone(), rumqttc::qos(wanted.qos).expect("checked by build"))
            });
            let mut subscribe = v4::Subscribe::new_many(filters);
            subscribe.pkid = SUBSCRIBE_ID;
            subscribe.write(&mut out.bytes).map_err(|error| error.to_string())
        }
    };
    written.map(drop).map_err(|text| format!("cannot be subscribed to: {text}"))
}

fn refused(dial: &Dial, Wanted { filter, qos, field }: &Wanted, code: u8) -> Option<Fault> {
    let url = &dial.url;
    if code >= 0x80 {
        let title = format!("the broker at {url} refuses to subscribe to `{filter}`: {}", reason::words(code));
        let fault = Fault::new("refused-subscription", field, title).label("not granted");
        return Some(fault.help("allow this user or client id to read the topics in the broker"));
    }
    (code < *qos).then(|| {
        let title = format!("the broker at {url} grants `{filter}` only with qos {code}, not {qos}");
        Fault::new("refused-subscription", field, title)
            .label("granted in part")
            .help(format!("write `qos: {code}`, or allow {qos} in the broker"))
    })
}

/// Where an error belongs.
fn fault(dial: &Dial, error: &LinkError) -> Fault {
    let what = format!("the MQTT broker at {}", dial.url);
    match error {
        LinkError::Unreachable { source, .. } => probe::unreachable("url", &what, &source.to_string()),
        LinkError::Timeout { .. } => probe::unreachable("url", &what, "no answer in time"),
        LinkError::HungUp { .. } => probe::unreachable("url", &what, "it closes the connection without an answer"),
        LinkError::Tls { source, .. } => probe::unreachable("tls", &what, &source.to_string()),
        LinkError::Refused { code: 0x86 | 0x87, words, .. } => {
            let field = if dial.password.is_some() { "password" } else { "username" };
            probe::refused_sign_in(field, &what, words).help(
                "check `username` and `password`; some brokers answer so to a client id that they do not know, too",
            )
        }
        other => probe::not_checked("url", &what, &other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;
    use crate::client::mqtt::Connection;

    /// What is found when a broker answers a CONNECT and a SUBSCRIBE with these bytes.
    async fn answers(yaml: &str, connack: &'static [u8], suback: &'static [u8]) -> Vec<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = [0; 1024];
            for answer in [connack, suback] {
                let _ = stream.read(&mut heard).await.unwrap();
                stream.write_all(answer).await.unwrap();
            }
            let _ = stream.read(&mut heard).await;
        });
        let connection: Connection =
            serde_yaml::from_str(&format!("{{url: 'mqtt://127.0.0.1:{port}', client_id: c, protocol: '5'{yaml}}}"))
                .unwrap();
        let dial = connection.dial(Path::new(".")).unwrap();
        let wanted = |filter: &str, at| Wanted { filter: filter.into(), qos: 1, field: format!("topics.{at}") };
        let limits = |granted: &Granted| {
            (granted.qos_max < 2).then(|| Fault::new("broker-limit", "qos", "too much")).into_iter().collect()
        };
        let found = ask(dial, Duration::from_secs(60), vec![wanted("a", 0), wanted("b", 1)], limits).await;
        broker.abort();
        found.iter().map(|fault| format!("{} {fault}", fault.code).replace(&format!(":{port}"), "")).collect()
    }

    #[tokio::test]
    async fn what_a_broker_answers_is_found_where_it_belongs() {
        let welcome = &[0x20, 3, 0, 0, 0];
        let none: [&str; 0] = [];
        assert_eq!(answers("", welcome, &[0x90, 5, 0, 1, 0, 1, 2]).await, none);
        assert_eq!(
            answers("", welcome, &[0x90, 5, 0, 1, 0, 0, 0x87]).await,
            [
                "refused-subscription `topics.0`: the broker at mqtt://127.0.0.1 grants `a` only with qos 0, not 1",
                "refused-subscription `topics.1`: the broker at mqtt://127.0.0.1 refuses to subscribe to `b`: not authorized; give this user or client id the right in the broker",
            ]
        );
        // Maximum QoS 1.
        let found = answers("", &[0x20, 5, 0, 0, 2, 0x24, 1], &[0x90, 5, 0, 1, 0, 1, 1]).await;
        assert_eq!(found, ["broker-limit `qos`: too much"]);
        let found = answers(", username: u, password: p", &[0x20, 3, 0, 0x86, 0], &[]).await;
        assert!(found[0].starts_with("refused-sign-in `password`: the MQTT broker at mqtt://127.0.0.1 "), "{found:?}");
        let found = answers("", &[0x20, 3, 0, 0x85, 0], &[]).await;
        assert!(found[0].starts_with("not-checked `url`: "), "{found:?}");
    }
}
