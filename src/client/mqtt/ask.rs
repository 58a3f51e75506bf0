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

/// What a broker is asked for.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    pub filters: Vec<Wanted>,
    /// How long it is to keep a session, in seconds; 0: not at all.
    pub session_expiry_s: u32,
}

/// A filter to subscribe to, and where its faults belong.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// As it is sent.
    pub filter: String,
    pub qos: u8,
    pub field: String,
}

impl Wanted {
    fn is_shared(&self) -> bool {
        self.filter.starts_with("$share/")
    }

    /// What the filter needs and the broker does not offer.
    fn unavailable(&self, url: &str, granted: &Granted) -> Option<Fault> {
        let what = match self {
            _ if self.is_shared() && !granted.shared_available => "shared subscriptions",
            _ if self.filter.contains(['+', '#']) && !granted.wildcards_available => "wildcards",
            _ => return None,
        };
        let title = format!("the broker at {url} offers no {what}, and refuses `{}`", self.filter);
        Some(Fault::new("broker-limit", &self.field, title).label("not offered by the broker"))
    }
}

/// Connects, asks and leaves. `check` says what the broker's limits do not allow.
pub async fn ask(
    mut dial: Dial,
    limit: Duration,
    questions: Questions,
    check: impl FnOnce(&Granted) -> Vec<Fault>,
) -> Vec<Fault> {
    dial.timeout = limit;
    dial.client_id = passing_id();
    let answer = async {
        let link = dial.open(&HELLO, &mut None).await?;
        let (version, granted) = (link.version, link.granted.clone());
        let mut faults = check(&granted);
        let filters = &questions.filters;
        faults.extend(filters.iter().filter_map(|wanted| wanted.unavailable(&dial.url, &granted)));
        // Who asks for a shared subscription gets messages of the others.
        let asked = filters.iter().filter(|wanted| !wanted.is_shared() && wanted.unavailable("", &granted).is_none());
        faults.extend(subscribe(&dial, link, &asked.collect::<Vec<_>>()).await?);
        if version == Version::V5 && questions.session_expiry_s > 0 {
            faults.extend(kept_shorter(&dial, questions.session_expiry_s).await?);
        }
        Ok(faults)
    };
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.unwrap_or_else(|error| vec![fault(&dial, &error)]),
        Err(_) => vec![fault(&dial, &LinkError::Timeout { url: dial.url.clone(), timeout: limit })],
    }
}

/// A name that nobody has. MQTT 3.1.1 brokers need not take more than 23 characters.
fn passing_id() -> String {
    format!("lint-{:016x}", rand::random::<u64>())
}

/// Whether a session is kept as long as it is wanted. It is one without any subscription, forgotten when this leaves.
async fn kept_shorter(dial: &Dial, wanted_s: u32) -> Result<Option<Fault>, LinkError> {
    let dial = Dial { client_id: passing_id(), ..dial.clone() };
    let hello = Hello { clean_start: false, session_expiry_s: wanted_s, ..HELLO };
    let Link { mut writer, granted, .. } = dial.open(&hello, &mut Some(Version::V5)).await?;
    let mut out = Outbox::default();
    packet::put_forget(&mut out.bytes);
    let _ = out.send(&mut writer).await;
    Ok(granted.session_expiry_s.filter(|kept_s| *kept_s < wanted_s).map(|kept_s| {
        let title = format!("the broker at {} keeps sessions for {kept_s} s, not {wanted_s} s", dial.url);
        Fault::new("broker-limit", "session_expiry_s", title)
            .label("longer than the broker keeps it")
            .help(format!(
                "after a longer absence messages are lost; raise the limit in the broker, or write `session_expiry_s: {kept_s}`"
            ))
            .into_warning()
    }))
}

/// Which filters the broker refuses, or grants only in part. What it sends meanwhile is not acknowledged.
async fn subscribe(dial: &Dial, link: Link, filters: &[&Wanted]) -> Result<Vec<Fault>, LinkError> {
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

fn put_subscribe(out: &mut Outbox, version: Version, filters: &[&Wanted]) -> Result<(), String> {
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
        let questions = Questions { filters: vec![wanted("a", 0), wanted("b", 1)], session_expiry_s: 0 };
        let found = ask(dial, Duration::from_secs(60), questions, limits).await;
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

    /// What is found when a broker answers each CONNECT with the next of these, and grants all subscriptions.
    async fn welcomes(filters: &[&str], session_expiry_s: u32, connacks: Vec<Vec<u8>>) -> (Vec<String>, Vec<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = tokio::spawn(async move {
            let mut farewells = Vec::new();
            for connack in connacks {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut heard = [0; 1024];
                let _ = stream.read(&mut heard).await.unwrap();
                stream.write_all(&connack).await.unwrap();
                let mut last = Vec::new();
                while let Ok(count @ 1..) = stream.read(&mut heard).await {
                    last = heard[..count].to_vec();
                    if last[0] == 0x82 {
                        stream.write_all(&[0x90, 4, 0, 1, 0, 1]).await.unwrap();
                    }
                }
                farewells.push(last);
            }
            farewells
        });
        let yaml = format!("{{url: 'mqtt://127.0.0.1:{port}', client_id: c, protocol: '5'}}");
        let connection: Connection = serde_yaml::from_str(&yaml).unwrap();
        let wanted = filters.iter().map(|filter| Wanted { filter: (*filter).into(), qos: 1, field: "topics".into() });
        let questions = Questions { filters: wanted.collect(), session_expiry_s };
        let dial = connection.dial(Path::new(".")).unwrap();
        let found = ask(dial, Duration::from_secs(60), questions, |_| Vec::new()).await;
        let found = found.iter().map(|fault| format!("{} {fault}", fault.code).replace(&format!(":{port}"), ""));
        (found.collect(), broker.await.unwrap())
    }

    #[tokio::test]
    async fn what_a_broker_does_not_offer_is_not_asked_for() {
        // No wildcards, no shared subscriptions.
        let connack = vec![0x20, 7, 0, 0, 4, 0x28, 0, 0x2a, 0];
        let (found, _) = welcomes(&["a/+", "b", "$share/g/c"], 0, vec![connack]).await;
        assert_eq!(
            found,
            [
                "broker-limit `topics`: the broker at mqtt://127.0.0.1 offers no wildcards, and refuses `a/+`",
                "broker-limit `topics`: the broker at mqtt://127.0.0.1 offers no shared subscriptions, and refuses `$share/g/c`",
            ]
        );
        let (found, _) = welcomes(&["b", "$share/g/c/#"], 0, vec![vec![0x20, 3, 0, 0, 0]]).await;
        assert_eq!(found, <[&str; 0]>::default());
    }

    #[tokio::test]
    async fn a_session_that_is_kept_shorter_is_found_and_forgotten() {
        // Session Expiry Interval 60.
        let shorter = vec![0x20, 8, 0, 0, 5, 0x11, 0, 0, 0, 60];
        let (found, farewells) = welcomes(&["b"], 3600, vec![vec![0x20, 3, 0, 0, 0], shorter.clone()]).await;
        assert_eq!(
            found,
            ["broker-limit `session_expiry_s`: the broker at mqtt://127.0.0.1 keeps sessions for 60 s, not 3600 s"]
        );
        assert_eq!(farewells[1], [0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
        let (found, _) = welcomes(&[], 60, vec![vec![0x20, 3, 0, 0, 0], shorter]).await;
        assert_eq!(found, <[&str; 0]>::default(), "as long as it is wanted");
    }
}
