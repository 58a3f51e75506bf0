//! The publisher: one task that owns the socket, keeps a bounded number of messages in flight and tells each write what
//! became of its messages. It connects again by itself; writes that come meanwhile are told to try again.
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Plan;
use crate::{
    client::mqtt::{
        Backoff, Beat, Granted, Link, LinkError, Outbox, Pulse,
        packet::{self, Framed, Outgoing, Version, kind, put_ack, put_disconnect, put_ping, put_user_property},
        reason,
    },
    message::{MessageRef, Span},
    output::{OutputContext, Parcel, Pending, Rejection, Retry, WriteError},
};

/// Enough to keep the socket busy.
const OUT_BYTES: usize = 256 << 10;
/// Answers are a few bytes each.
const PACKET_BYTES_MAX: usize = 1 << 20;
/// Code of messages whose headers cannot be user properties.
pub const UNFIT_HEADER: &str = "invalid-header";
/// Writes taken from the channel and not yet answered.
const JOBS_MAX: usize = 16;

/// One write.
pub struct Job {
    pub parcel: Parcel,
    /// Topics of the messages, one after the other, and where each lies; `None` for a message that is rejected already.
    pub topic_bytes: Vec<u8>,
    pub topics: Vec<Option<Span>>,
    pub rejected: Vec<Rejection>,
    pub answer: oneshot::Sender<Result<(), WriteError>>,
}

/// A write under way.
struct Open {
    job: Job,
    /// The next message to send.
    next: usize,
    /// By message: not confirmed.
    unconfirmed: Vec<bool>,
    /// Messages sent and not answered, or not sent yet.
    left: usize,
    /// Why some have to be sent again.
    again: Option<String>,
}

impl Open {
    fn new(job: Job) -> Self {
        let unconfirmed: Vec<bool> = job.topics.iter().map(Option::is_some).collect();
        let left = unconfirmed.iter().filter(|&&open| open).count();
        Self { job, next: 0, unconfirmed, left, again: None }
    }

    fn reject(&mut self, index: u32, code: &str, reason: String) {
        self.unconfirmed[index as usize] = false;
        self.left -= 1;
        self.job.rejected.push(Rejection { index, code: code.to_owned(), reason });
    }

    /// Answers the write. What is still unconfirmed has to be sent again.
    fn finish(mut self, reason: &str) {
        let again: Vec<u32> = (0..self.unconfirmed.len() as u32).filter(|&i| self.unconfirmed[i as usize]).collect();
        let retry = (!again.is_empty())
            .then(|| Retry { reason: self.again.unwrap_or_else(|| reason.to_owned()), messages: Pending::Only(again) });
        self.job.rejected.sort_by_key(|r| r.index);
        // The pipeline may have dropped the write; then nobody wants to know.
        let _ = self.job.answer.send(WriteError { rejected: self.job.rejected, retry, divide: None }.into_result());
    }
}

pub struct Publisher {
    plan: Arc<Plan>,
    context: OutputContext,
    jobs: mpsc::Receiver<Job>,
    stop: CancellationToken,
    version: Option<Version>,
    first: Option<oneshot::Sender<Result<(), LinkError>>>,
}

impl Publisher {
    pub(super) fn new(
        plan: Arc<Plan>,
        context: OutputContext,
        jobs: mpsc::Receiver<Job>,
        stop: CancellationToken,
        first: oneshot::Sender<Result<(), LinkError>>,
    ) -> Self {
        Self { plan, context, jobs, stop, version: None, first: Some(first) }
    }

    /// Runs until it is stopped. When the first attempt fails it ends at once: trying again is then up to the pipeline.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut reason = "not connected yet".to_owned();
        let plan = self.plan.clone();
        loop {
            let mut version = self.version;
            let opened = self.meanwhile(&reason, plan.dial.open(&super::HELLO, &mut version)).await;
            self.version = version;
            let Some(opened) = opened else { return };
            let began = Instant::now();
            let lost = match opened {
                Ok(link) => {
                    self.context.metrics.reconnects.inc_by(u64::from(self.first.is_none()));
                    match self.serve(link).await {
                        Ok(()) => return,
                        Err(lost) => lost,
                    }
                }
                Err(lost) => lost,
            };
            if let Some(first) = self.first.take() {
                // Nobody waits any more when `connect` was cancelled; then there is no one to tell.
                let _ = first.send(Err(lost));
                return;
            }
            backoff.lost_after(began.elapsed(), &lost);
            if lost.is_takeover() {
                error!(url = plan.dial.url, "another client took our name: every `client_id` must be used once");
            }
            reason = lost.to_string();
            self.context.health.fault(reason.clone());
            if self.meanwhile(&reason, tokio::time::sleep(backoff.wait())).await.is_none() {
                return;
            }
        }
    }

    /// Waits for `work`; writes that come meanwhile are told to try again. `None` when stopped.
    async fn meanwhile<T>(&mut self, reason: &str, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                job = self.jobs.recv() => Open::new(job?).finish(reason),
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// Works on one connection. `Ok` when it was stopped.
    async fn serve(&mut self, link: Link) -> Result<(), LinkError> {
        self.check(&link)?;
        info!(url = self.plan.dial.url, protocol = link.version.name(), "connected");
        self.context.health.ok();
        if let Some(first) = self.first.take() {
            // `connect` was cancelled meanwhile: whoever did that stops this task too.
            let _ = first.send(Ok(()));
        }
        let plan = self.plan.clone();
        let mut flight = Flight::new(&plan, link.version, &link.granted);
        let result = self.exchange(link, &mut flight).await;
        let reason = match &result {
            Ok(()) => "the output is closing".to_owned(),
            Err(lost) => lost.to_string(),
        };
        for (_, open) in flight.open.drain(..) {
            open.finish(&reason);
        }
        result
    }

    async fn exchange(&mut self, link: Link, flight: &mut Flight<'_>) -> Result<(), LinkError> {
        let Link { mut reader, mut writer, mut buffer, version, granted } = link;
        let dial = &self.plan.dial;
        let mut out = Outbox::default();
        let mut pulse = Pulse::new(granted.keep_alive, Instant::now());
        let mut look = tokio::time::interval(pulse.period());
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            flight.fill(&mut out.bytes);
            buffer.reserve(4096);
            tokio::select! {
                () = self.stop.cancelled() => {
                    goodbye(&mut out, &mut writer, version).await;
                    return Ok(());
                }
                job = self.jobs.recv(), if flight.open.len() < JOBS_MAX => {
                    let Some(job) = job else { return Ok(()) };
                    flight.take(job);
                }
                read = reader.read_buf(&mut buffer) => {
                    if read.map_err(|source| dial.broken(source))? == 0 {
                        return Err(dial.closed());
                    }
                    pulse.heard = true;
                    flight.hear(&mut buffer, &mut out.bytes)?;
                }
                sent = out.send(&mut writer), if !out.is_idle() => {
                    sent.map_err(|source| dial.broken(source))?;
                    pulse.sent = true;
                    flight.sent();
                }
                _ = look.tick() => match pulse.beat(Instant::now(), true) {
                    Beat::Rest => {}
                    Beat::Ping => put_ping(&mut out.bytes),
                    Beat::Dead(silent) => return Err(dial.silent(silent)),
                },
            }
        }
    }

    /// Does the broker offer what the settings ask for?
    fn check(&self, link: &Link) -> Result<(), LinkError> {
        let granted = &link.granted;
        if self.plan.user_properties && link.version == Version::V4 {
            return Err(self
                .plan
                .dial
                .unfit("speaks MQTT 3.1.1, without user properties: set `user_properties: false`"));
        }
        if granted.qos_max < self.plan.qos {
            return Err(self
                .plan
                .dial
                .unfit(format!("takes messages with qos {} at most: set `qos` so", granted.qos_max)));
        }
        if self.plan.retain && !granted.retain_available {
            return Err(self.plan.dial.unfit("keeps no retained messages: set `retain: false`"));
        }
        Ok(())
    }
}

async fn goodbye(out: &mut Outbox, writer: &mut (impl AsyncWrite + Unpin), version: Version) {
    put_disconnect(&mut out.bytes, version, 0);
    let farewell = async {
        out.send(writer).await?;
        writer.shutdown().await
    };
    // Only a courtesy: everything of ours is confirmed or will be sent again.
    let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
}

/// The messages of one connection that are on their way.
struct Flight<'a> {
    plan: &'a Plan,
    version: Version,
    packet_bytes_max: usize,
    in_flight_max: usize,
    /// Writes under way, in order, with rising numbers.
    open: VecDeque<(u64, Open)>,
    next_number: u64,
    next_id: u16,
    /// By packet identifier: the write and the message.
    ids: HashMap<u16, (u64, u32)>,
    /// Quality of service 0: appended to the outbox and not yet taken by the socket.
    unsent: Vec<(u64, u32)>,
    /// User properties of the message at hand.
    properties: Vec<u8>,
}

impl<'a> Flight<'a> {
    fn new(plan: &'a Plan, version: Version, granted: &Granted) -> Self {
        let allowed = granted.receive_maximum.map_or(usize::MAX, usize::from);
        Self {
            plan,
            version,
            packet_bytes_max: granted.packet_bytes_max.map_or(usize::MAX, |max| max as usize),
            in_flight_max: plan.in_flight_max.min(allowed),
            open: VecDeque::new(),
            next_number: 0,
            next_id: 1,
            ids: HashMap::new(),
            unsent: Vec::new(),
            properties: Vec::new(),
        }
    }

    fn take(&mut self, job: Job) {
        let open = Open::new(job);
        if open.left == 0 {
            open.finish("");
        } else {
            self.open.push_back((self.next_number, open));
            self.next_number += 1;
        }
    }

    /// Appends as many messages as may be in flight and the outbox takes.
    fn fill(&mut self, out: &mut BytesMut) {
        let mut at = self.first_unsent();
        while at < self.open.len() && out.len() < OUT_BYTES && self.ids.len() < self.in_flight_max {
            let (number, open) = &mut self.open[at];
            let number = *number;
            let index = open.next;
            if index == open.job.topics.len() {
                at += 1;
                continue;
            }
            open.next += 1;
            let Some(topic) = open.job.topics[index] else { continue };
            self.properties.clear();
            if self.plan.user_properties
                && let Err(reason) = put_headers(&mut self.properties, open.job.parcel.get(index))
            {
                open.reject(index as u32, UNFIT_HEADER, reason);
                at = self.finish_if_done(number);
                continue;
            }
            let id = if self.plan.qos > 0 { free_id(&mut self.next_id, &self.ids) } else { 0 };
            let topic = simdutf8::basic::from_utf8(topic.of(&open.job.topic_bytes)).unwrap_or_default();
            let payload = open.job.parcel.get(index).payload();
            let Plan { qos, retain, .. } = *self.plan;
            let message = Outgoing { topic, payload, id, qos, retain, user_properties: &self.properties };
            let max = self.packet_bytes_max;
            match message.packet_bytes(self.version) {
                Some(bytes) if bytes <= max => {
                    message.put(out, self.version);
                    if self.plan.qos > 0 {
                        self.ids.insert(id, (number, index as u32));
                    } else {
                        self.unsent.push((number, index as u32));
                    }
                }
                bytes => {
                    let max = max.min(packet::REMAINING_MAX);
                    let bytes = bytes.map_or_else(|| "too many".to_owned(), |b| b.to_string());
                    let reason = format!("the packet would have {bytes} bytes, the broker takes {max}");
                    open.reject(index as u32, "message-too-large", reason);
                    at = self.finish_if_done(number);
                }
            }
        }
    }

    /// Ends a write all of whose messages are answered. Answers which write has messages to send next.
    fn finish_if_done(&mut self, number: u64) -> usize {
        if let Ok(at) = self.open.binary_search_by_key(&number, |(number, _)| *number)
            && self.open[at].1.left == 0
        {
            self.finish(number);
        }
        self.first_unsent()
    }

    /// The first write that has messages to send.
    fn first_unsent(&self) -> usize {
        self.open.partition_point(|(_, open)| open.next == open.job.topics.len())
    }

    /// The outbox is empty: all that was appended is with the socket.
    fn sent(&mut self) {
        for (number, index) in std::mem::take(&mut self.unsent) {
            self.answer(number, index, 0);
        }
    }

    /// Reads the broker's answers.
    fn hear(&mut self, buffer: &mut BytesMut, out: &mut BytesMut) -> Result<(), LinkError> {
        let dial = &self.plan.dial;
        let malformed = |error| dial.malformed(error);
        while let Framed::Whole(frame) = packet::frame(buffer, 0, PACKET_BYTES_MAX).map_err(malformed)? {
            let body = &buffer[frame.body.clone()];
            match frame.kind() {
                kind::PINGRESP => {}
                kind::DISCONNECT => return Err(dial.disconnected(body)),
                kind::PUBREC => {
                    let (id, code) = packet::id_and_reason(body).map_err(malformed)?;
                    if code < 0x80 {
                        // Also for identifiers we know nothing of: the broker would wait for ever.
                        put_ack(out, kind::PUBREL, id);
                    } else {
                        self.answer_id(id, code);
                    }
                }
                kind::PUBACK | kind::PUBCOMP => {
                    let (id, code) = packet::id_and_reason(body).map_err(malformed)?;
                    // "Packet identifier not found" ends a PUBREL as well as success does.
                    self.answer_id(id, if frame.kind() == kind::PUBCOMP { 0 } else { code });
                }
                other => {
                    let text = format!("a packet of type {other} that nobody asked for");
                    return Err(malformed(packet::protocol_error(text)));
                }
            }
            buffer.advance(frame.body.end);
        }
        Ok(())
    }

    fn answer_id(&mut self, id: u16, code: u8) {
        if let Some((number, index)) = self.ids.remove(&id) {
            self.answer(number, index, code);
        }
    }

    fn answer(&mut self, number: u64, index: u32, code: u8) {
        let Ok(at) = self.open.binary_search_by_key(&number, |(number, _)| *number) else { return };
        let open = &mut self.open[at].1;
        match code {
            0..0x80 => {
                open.unconfirmed[index as usize] = false;
                open.left -= 1;
            }
            0x90 | 0x95 | 0x99 => {
                open.reject(index, &format!("mqtt-{code:#04x}"), format!("the broker says: {}", reason::words(code)));
            }
            code => {
                open.left -= 1;
                let url = &self.plan.dial.url;
                let words = reason::words(code);
                open.again.get_or_insert_with(|| {
                    format!("the broker at {url} refused a message: {words} (code {code:#04x})")
                });
            }
        }
        if open.left == 0 {
            self.finish(number);
        }
    }

    fn finish(&mut self, number: u64) {
        if let Ok(at) = self.open.binary_search_by_key(&number, |(number, _)| *number)
            && let Some((_, open)) = self.open.remove(at)
        {
            open.finish("");
        }
    }
}

/// Writes the headers of a message as user properties. `Err` when one cannot be.
pub fn put_headers(out: &mut Vec<u8>, message: MessageRef<'_>) -> Result<(), String> {
    for (name, value) in message.headers() {
        put_user_property(out, name, value).map_err(|why| {
            let name: String = name.chars().take(200).collect();
            format!("its header `{name}` {why}, so it cannot be a user property")
        })?;
    }
    Ok(())
}

/// The next packet identifier that is not in use. There is one: fewer are in flight than there are.
fn free_id(next: &mut u16, used: &HashMap<u16, (u64, u32)>) -> u16 {
    loop {
        let id = *next;
        *next = next.checked_add(1).unwrap_or(1);
        if !used.contains_key(&id) {
            return id;
        }
    }
}
