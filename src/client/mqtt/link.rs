//! From settings to an open connection: dial, TLS, CONNECT, CONNACK.
use std::{io, num::NonZeroU16, path::PathBuf, time::Duration};

use bytes::{Buf, BytesMut};
use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::v5::{self, ConnAckProperties},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    Protocol, Server,
    packet::{self, Framed, Malformed, Version, kind},
    reason,
};
use crate::client::{
    Secret,
    tls::{Tls, TlsError, server_name},
};

/// Longest packet that is accepted before the connection is agreed on.
const CONNACK_BYTES_MAX: usize = 1 << 20;

/// Everything needed to dial, checked.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The address, for people.
    pub url: String,
    pub(super) server: Server,
    pub(super) folder: PathBuf,
    pub client_id: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) tls: Tls,
    pub(super) keep_alive: NonZeroU16,
    pub(super) timeout: Duration,
    pub protocol: Protocol,
}

/// What a client asks for in CONNECT.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    /// Forget what the broker has kept for us.
    pub clean_start: bool,
    /// How long the broker keeps the session while we are away; 0: not at all.
    pub session_expiry_s: u32,
    /// Most messages sent to us and not yet acknowledged.
    pub receive_maximum: u16,
    /// Longest packet sent to us.
    pub packet_bytes_max: u32,
}

/// What the broker agreed to in CONNACK.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The broker has kept a session for us.
    pub session_present: bool,
    pub keep_alive: Duration,
    /// Most messages we may have in flight to the broker. `None`: 3.1.1 sets no limit.
    pub receive_maximum: Option<u16>,
    /// Longest packet the broker takes.
    pub packet_bytes_max: Option<u32>,
    pub qos_max: u8,
    pub retain_available: bool,
    /// How long the broker really keeps the session, when it is not as long as asked for.
    pub session_expiry_s: Option<u32>,
}

/// An open connection.
pub struct Link {
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// What came behind the CONNACK.
    pub buffer: BytesMut,
    pub version: Version,
    pub granted: Granted,
}

/// Why there is no connection, or no longer: what was tried, on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("cannot reach the broker at {url}: {source}")]
    Unreachable { url: String, source: io::Error },
    #[error("cannot set up TLS for {url}: {source}")]
    Tls { url: String, source: TlsError },
    #[error("the broker at {url} did not answer within {} ms", timeout.as_millis())]
    Timeout { url: String, timeout: Duration },
    #[error("the broker at {url} refuses to speak MQTT {}: set another `protocol`", version.name())]
    Version { url: String, version: Version },
    /// Brokers that know no MQTT 5 often do so without a word; so does one that is about to stop.
    #[error("the broker at {url} hung up on a CONNECT of MQTT {} without an answer", version.name())]
    HungUp { url: String, version: Version },
    #[error("the broker at {url} refused the connection: {words} (code {code:#04x}){}", said(text))]
    Refused { url: String, code: u8, words: &'static str, text: Option<String> },
    #[error("the broker at {url} ended the connection: {words} (code {code:#04x})")]
    Disconnected { url: String, code: u8, words: &'static str },
    #[error("the broker at {url} closed the connection; it also does so when another client uses the same `client_id`")]
    Closed { url: String },
    #[error("the connection to {url} broke: {source}")]
    Broken { url: String, source: io::Error },
    #[error("the broker at {url} has been silent for {} s", silent.as_secs())]
    Silent { url: String, silent: Duration },
    #[error("the broker at {url} broke the protocol: {source}")]
    Malformed { url: String, source: Malformed },
    #[error("the broker at {url} {text}")]
    Unfit { url: String, text: String },
}

fn said(text: &Option<String>) -> String {
    text.as_ref().map(|t| format!("; it says: {t}")).unwrap_or_default()
}

impl LinkError {
    /// Another client has taken the session over.
    pub fn is_takeover(&self) -> bool {
        matches!(self, Self::Disconnected { code: 0x8e, .. })
    }

    /// Another client may have taken the session over: not every broker says so.
    pub fn may_be_takeover(&self) -> bool {
        self.is_takeover() || matches!(self, Self::Closed { .. })
    }

    /// The broker ended the connection and did not say why. When something of ours was unread there, its system resets
    /// the connection instead of closing it.
    pub fn is_silent_end(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match self {
            Self::Closed { .. } => true,
            Self::Broken { source, .. } => matches!(source.kind(), ConnectionReset | BrokenPipe | UnexpectedEof),
            _ => false,
        }
    }
}

impl Dial {
    /// Connects and is welcomed. With `protocol: auto`, `known` remembers which version the broker speaks.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses; worth another try, some day.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn open(&self, hello: &Hello, known: &mut Option<Version>) -> Result<Link, LinkError> {
        let link = match (self.protocol, *known) {
            (Protocol::V5, _) | (Protocol::Auto, Some(Version::V5)) => self.attempt(Version::V5, hello).await?,
            (Protocol::V4, _) | (Protocol::Auto, Some(Version::V4)) => self.attempt(Version::V4, hello).await?,
            (Protocol::Auto, None) => match self.attempt(Version::V5, hello).await {
                Err(LinkError::Version { .. } | LinkError::HungUp { .. }) => self.attempt(Version::V4, hello).await?,
                result => result?,
            },
        };
        *known = Some(link.version);
        Ok(link)
    }

    async fn attempt(&self, version: Version, hello: &Hello) -> Result<Link, LinkError> {
        let timeout = || LinkError::Timeout { url: self.url.clone(), timeout: self.timeout };
        let attempt = async {
            if hello.clean_start && hello.session_expiry_s > 0 {
                // To start clean and be remembered from then on takes two connections: in 3.1.1 a clean session is also
                // forgotten at its end, and with MQTT 5 some brokers (Mosquitto 2.0.11) lose a session that was started
                // clean when they restart.
                let mut link = self.greet(version, &Hello { session_expiry_s: 0, ..*hello }).await?;
                let mut goodbye = Outbox::default();
                packet::put_disconnect(&mut goodbye.bytes, version, 0);
                goodbye.send(&mut link.writer).await.map_err(|source| self.broken(source))?;
                // The broker closes the connection once it has forgotten the session.
                while link.reader.read_buf(&mut link.buffer).await.is_ok_and(|count| count > 0) {
                    link.buffer.clear();
                }
                return self.greet(version, &Hello { clean_start: false, ..*hello }).await;
            }
            self.greet(version, hello).await
        };
        tokio::time::timeout(self.timeout, attempt).await.map_err(|_| timeout())?
    }

    async fn greet(&self, version: Version, hello: &Hello) -> Result<Link, LinkError> {
        let (mut reader, mut writer) = self.transport().await?;
        let mut out = Outbox::default();
        self.put_connect(&mut out.bytes, version, hello)?;
        let mut buffer = BytesMut::new();
        let answer = async {
            out.send(&mut writer).await?;
            loop {
                match packet::frame(&buffer, 0, CONNACK_BYTES_MAX) {
                    Ok(Framed::Whole(frame)) => return Ok(Ok(frame)),
                    Ok(Framed::Partial(_)) => {}
                    Err(malformed) => return Ok(Err(malformed)),
                }
                if reader.read_buf(&mut buffer).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
            }
        };
        let frame = match answer.await {
            Ok(frame) => frame.map_err(|source| self.malformed(source))?,
            Err(error) if hung_up(&error) => return Err(LinkError::HungUp { url: self.url.clone(), version }),
            Err(source) => return Err(self.broken(source)),
        };
        let mut bytes = buffer.split_to(frame.body.end);
        if frame.kind() != kind::CONNACK || frame.body.len() < 2 {
            return Err(self.malformed(packet::protocol_error("its first packet was no CONNACK")));
        }
        let (flags, code) = (bytes[frame.body.start], bytes[frame.body.start + 1]);
        // A broker that knows only 3.1.1 answers in its own way, without properties.
        let old = version == Version::V4 || frame.body.len() == 2;
        let code = if old { reason::from_v4(code) } else { code };
        let properties = (!old).then(|| match v5::Packet::read(&mut bytes, None) {
            Ok(v5::Packet::ConnAck(ack)) => Ok(ack.properties),
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        });
        match code {
            0 => {
                let properties = properties.transpose().map_err(|error| {
                    self.malformed(packet::malformed(format!("a CONNACK that cannot be read: {error}")))
                })?;
                let granted = self.granted(flags & 1 == 1, version, properties.flatten());
                Ok(Link { reader, writer, buffer, version, granted })
            }
            0x84 => Err(LinkError::Version { url: self.url.clone(), version }),
            code => {
                let text = properties.and_then(Result::ok).flatten().and_then(|p| p.reason_string);
                Err(LinkError::Refused { url: self.url.clone(), code, words: reason::words(code), text })
            }
        }
    }

    fn granted(&self, session_present: bool, version: Version, properties: Option<ConnAckProperties>) -> Granted {
        let asked = Duration::from_secs(self.keep_alive.get().into());
        let p = properties.as_ref();
        Granted {
            session_present,
            keep_alive: p.and_then(|p| p.server_keep_alive).map_or(asked, |s| Duration::from_secs(s.into())),
            receive_maximum: (version == Version::V5).then(|| p.and_then(|p| p.receive_max).unwrap_or(u16::MAX).max(1)),
            packet_bytes_max: p.and_then(|p| p.max_packet_size),
            qos_max: p.and_then(|p| p.max_qos).unwrap_or(2),
            retain_available: p.and_then(|p| p.retain_available) != Some(0),
            session_expiry_s: p.and_then(|p| p.session_expiry_interval),
        }
    }

    fn put_connect(&self, out: &mut BytesMut, version: Version, hello: &Hello) -> Result<(), LinkError> {
        let login = self.username.as_ref().map(|username| {
            let password = self.password.as_ref().map_or("", Secret::expose);
            (username.clone(), password.to_owned())
        });
        let written = match version {
            Version::V5 => {
                let mut properties = v5::ConnectProperties::new();
                properties.session_expiry_interval = Some(hello.session_expiry_s);
                properties.receive_maximum = Some(hello.receive_maximum);
                properties.max_packet_size = Some(hello.packet_bytes_max);
                let connect = v5::Connect {
                    keep_alive: self.keep_alive.get(),
                    client_id: self.client_id.clone(),
                    clean_start: hello.clean_start,
                    properties: Some(properties),
                };
                let login = login.map(|(username, password)| v5::Login { username, password });
                connect.write(&None, &login, out).map_err(|error| error.to_string())
            }
            Version::V4 => {
                let mut connect = v4::Connect::new(self.client_id.clone());
                connect.keep_alive = self.keep_alive.get();
                connect.clean_session = hello.clean_start || hello.session_expiry_s == 0;
                connect.login = login.map(|(username, password)| v4::Login { username, password });
                connect.write(out).map_err(|error| error.to_string())
            }
        };
        written.map(drop).map_err(|text| LinkError::Unfit {
            url: self.url.clone(),
            text: format!("cannot be greeted: a CONNECT cannot be written: {text}"),
        })
    }

    async fn transport(
        &self,
    ) -> Result<(Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>), LinkError> {
        let unreachable = |source| LinkError::Unreachable { url: self.url.clone(), source };
        let stream = TcpStream::connect((self.server.host.as_str(), self.server.port)).await.map_err(unreachable)?;
        // Acknowledgements are small and already gathered into one write.
        stream.set_nodelay(true).map_err(unreachable)?;
        if !self.server.secure {
            let (reader, writer) = stream.into_split();
            return Ok((Box::new(reader), Box::new(writer)));
        }
        let config =
            self.tls.client_config(&self.folder).map_err(|source| LinkError::Tls { url: self.url.clone(), source })?;
        let name = server_name(&self.server.host).map_err(unreachable)?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(unreachable)?;
        let (reader, writer) = tokio::io::split(stream);
        Ok((Box::new(reader), Box::new(writer)))
    }

    /// The broker closed the connection without a word.
    pub fn closed(&self) -> LinkError {
        LinkError::Closed { url: self.url.clone() }
    }

    /// The connection broke.
    pub fn broken(&self, source: io::Error) -> LinkError {
        LinkError::Broken { url: self.url.clone(), source }
    }

    /// The broker broke the protocol.
    pub fn malformed(&self, source: Malformed) -> LinkError {
        LinkError::Malformed { url: self.url.clone(), source }
    }

    /// The broker said DISCONNECT; `body` is the packet's.
    pub fn disconnected(&self, body: &[u8]) -> LinkError {
        let code = body.first().copied().unwrap_or(0);
        let words = if code == 0 { "it gave no reason" } else { reason::words(code) };
        LinkError::Disconnected { url: self.url.clone(), code, words }
    }

    /// The broker does not offer what the settings ask for. `text` continues "the broker at … ".
    pub fn unfit(&self, text: impl Into<String>) -> LinkError {
        LinkError::Unfit { url: self.url.clone(), text: text.into() }
    }

    /// The broker went silent.
    pub fn silent(&self, silent: Duration) -> LinkError {
        LinkError::Silent { url: self.url.clone(), silent }
    }
}

fn hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe | ConnectionAborted)
}

/// Bytes on their way out. Packets are appended at any time and leave together.
#[derive(Debug, Default)]
pub struct Outbox {
    pub bytes: BytesMut,
    unflushed: bool,
}

impl Outbox {
    /// True when nothing waits to be sent.
    pub fn is_idle(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }

    /// Hands all that waits to the socket.
    ///
    /// # Errors
    /// The connection broke.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; what the socket has taken is no longer in `bytes`.
    pub async fn send(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        while self.bytes.has_remaining() {
            let taken = writer.write_buf(&mut self.bytes).await?;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.unflushed = true;
        }
        if self.unflushed {
            writer.flush().await?;
            self.unflushed = false;
        }
        Ok(())
    }
}
