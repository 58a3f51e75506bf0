//! An MQTT 3.1.1 publisher, as small as it gets: what it calls published, the broker has acknowledged.
//!
//! Not a client library on purpose: it must know of each message whether its PUBACK came, across broken connections,
//! and publish what a library would refuse.
use std::{
    io::{Error, ErrorKind, Read as _, Result, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use super::eventually;

/// Messages published before their PUBACKs are awaited. PUBACKs are 4 bytes, so they all fit into a socket's buffer.
const WINDOW: usize = 100;
/// The same at QoS 2. Mosquitto answers what comes beyond its `max_inflight_messages`, and drops it.
const WINDOW_QOS_2: usize = 20;

pub struct Publisher {
    /// Quality of service. At 0 a message counts as acknowledged when the broker has read it.
    pub qos: u8,
    /// Whether the broker keeps the last message of each topic for later subscribers.
    pub retain: bool,
    address: String,
    client_id: String,
    socket: Option<TcpStream>,
}

impl Publisher {
    pub fn new(address: &str, client_id: &str) -> Self {
        Self { qos: 1, retain: false, address: address.to_owned(), client_id: client_id.to_owned(), socket: None }
    }

    /// Publishes in order and returns when the broker has acknowledged every message. A broker that is away is waited
    /// for, and gets again what it did not acknowledge.
    #[track_caller]
    pub fn publish(&mut self, messages: &[(String, Vec<u8>)]) {
        for window in messages.chunks(if self.qos == 2 { WINDOW_QOS_2 } else { WINDOW }) {
            let mut acknowledged = vec![false; window.len()];
            eventually("the MQTT broker takes messages", || {
                self.try_publish(window, &mut acknowledged).map_err(|error| {
                    self.socket = None;
                    error.to_string()
                })
            });
        }
    }

    fn try_publish(&mut self, messages: &[(String, Vec<u8>)], acknowledged: &mut [bool]) -> Result<()> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect(&self.address, &self.client_id, true)?,
        };
        let open: Vec<usize> = (0..messages.len()).filter(|i| !acknowledged[*i]).collect();
        for i in &open {
            let (topic, payload) = &messages[*i];
            let id = (*i as u16 + 1).to_be_bytes();
            let body = [&text(topic)[..], if self.qos > 0 { &id } else { &[] }, payload].concat();
            socket.write_all(&packet(0x30 | self.qos << 1 | u8::from(self.retain), &body))?;
        }
        if self.qos == 0 {
            // Nothing is acknowledged, but packets are read in order: who answers this has read what came before.
            socket.write_all(&[0xc0, 0])?;
            let mut answer = [0; 2];
            socket.read_exact(&mut answer)?;
            acknowledged.fill(true);
        } else {
            let mut left = open.len();
            while left > 0 {
                let mut answer = [0; 4];
                socket.read_exact(&mut answer)?;
                match answer {
                    // PUBREC, which asks for a PUBREL
                    [0x50, 2, high, low] if self.qos == 2 => socket.write_all(&[0x62, 2, high, low])?,
                    // PUBACK or PUBCOMP
                    [0x40 | 0x70, 2, high, low] => {
                        acknowledged[usize::from(u16::from_be_bytes([high, low])) - 1] = true;
                        left -= 1;
                    }
                    other => return Err(Error::new(ErrorKind::InvalidData, format!("no PUBACK but {other:x?}"))),
                }
            }
        }
        self.socket = Some(socket);
        Ok(())
    }
}

/// Ok when a broker answers.
pub fn answers(address: &str) -> Result<()> {
    connect(address, "", true).map(drop)
}

/// Makes the broker forget the session of `client_id` and what it keeps for it.
pub fn forget(address: &str, client_id: &str) -> Result<()> {
    connect(address, client_id, true)?.write_all(&[0xe0, 0])
}

/// Connects as `client_id` to its session, as another client would by mistake. The broker cuts off the one before.
pub fn take_over(address: &str, client_id: &str) -> Result<TcpStream> {
    connect(address, client_id, false)
}

fn connect(address: &str, client_id: &str, clean: bool) -> Result<TcpStream> {
    let target = address.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
    let mut socket = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.set_write_timeout(Some(Duration::from_secs(20)))?;
    let flags = u8::from(clean) << 1;
    // Protocol level 4; a keep-alive of 0 turns it off.
    let body = [&text("MQTT")[..], &[4, flags, 0, 0], &text(client_id)].concat();
    socket.write_all(&packet(0x10, &body))?;
    let mut connack = [0; 4];
    socket.read_exact(&mut connack)?;
    match connack {
        [0x20, 2, _, 0] => Ok(socket),
        refused => Err(Error::new(ErrorKind::ConnectionRefused, format!("refused: {refused:x?}"))),
    }
}

/// A packet with its remaining length, 7 bits a byte.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let more = length > 127;
        packet.push((length % 128) as u8 | u8::from(more) << 7);
        length /= 128;
        if !more {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// A text with its length before it.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}
