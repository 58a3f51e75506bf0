//! The session: one task that owns the socket, makes the connection again when it breaks, and never waits for the
//! pipeline. What it reads goes into the queue; what the pipeline settles comes back and is acknowledged.
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BytesMut};
use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::v5::{self, RetainForwardRule},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Plan, Retained,
    doctor::Doctor,
    outage::STRETCH,
    queue::{Queue, Settled},
    receive::Receiver,
};
use crate::{
    client::mqtt::{
        Backoff, Beat, Hello, Link, LinkError, Outbox, Pulse, packet::Malformed, packet::Version,
        packet::put_disconnect, packet::put_ping,
    },
    input::InputContext,
};

/// Largest piece asked of the socket at once, unless a single packet is longer.
const READ_BYTES: usize = 256 << 10;
/// Least space left for a read.
const READ_BYTES_MIN: usize = 16 << 10;
/// A read that brings less may have come too early; see `Plan::linger`.
const SMALL_READ_BYTES: usize = 16 << 10;
/// A broker that takes no acknowledgements gets no more of our attention.
const OUT_BYTES_MAX: usize = 1 << 20;
/// Time to tell a broker why we leave.
const GOODBYE: Duration = Duration::from_secs(1);

pub struct Session {
    plan: Arc<Plan>,
    context: InputContext,
    queue: Arc<Queue>,
    settled: Arc<Settled>,
    stop: CancellationToken,
    receiver: Receiver,
    doctor: Doctor,
    /// The version the broker is known to speak.
    version: Option<Version>,
    /// Subscribed once in this process.
    subscribed: bool,
    /// Tells `connect` how the first attempt went.
    first: Option<oneshot::Sender<Result<(), LinkError>>>,
}

impl Session {
    pub(super) fn new(
        plan: Arc<Plan>,
        context: InputContext,
        (queue, settled): (Arc<Queue>, Arc<Settled>),
        stop: CancellationToken,
        first: oneshot::Sender<Result<(), LinkError>>,
    ) -> Self {
        let receiver = Receiver::new(plan.clone(), queue.clone(), context.metrics.clone());
        let (url, client_id) = (plan.dial.url.clone(), plan.dial.client_id.clone());
        let doctor = Doctor::new(context.health.clone(), url, client_id, plan.survive);
        Self {
            plan,
            context,
            queue,
            settled,
            stop,
            receiver,
            doctor,
            version: None,
            subscribed: false,
            first: Some(first),
        }
    }

    /// Runs until it is stopped. When the first attempt fails it ends at once: trying again is then up to the pipeline.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        let stop = self.stop.clone();
        loop {
            // Clean once: what comes after the first connection must be remembered.
            let clean_start = self.plan.hello.clean_start && self.version.is_none();
            let hello = Hello { clean_start, ..self.plan.hello };
            let opened = tokio::select! {
                opened = self.plan.dial.open(&hello, &mut self.version) => opened,
                () = stop.cancelled() => return,
            };
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
                self.doctor.taken_over();
            } else if lost.is_silent_end() {
                self.doctor.ended_after(began.elapsed());
            } else {
                self.doctor.ended_otherwise();
            }
            let wait = backoff.wait();
            debug!(error = %lost, retry_in_ms = wait.as_millis() as u64, "connection lost");
            self.context.health.fault(lost.to_string());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Works on one connection. `Ok` when it was stopped.
    async fn serve(&mut self, link: Link) -> Result<(), LinkError> {
        let Link { mut reader, mut writer, mut buffer, version, granted } = link;
        let mut out = Outbox::default();
        self.welcome(version, granted.session_present, granted.session_expiry_s);
        self.receiver.connected(version, granted.session_present);
        if !granted.session_present || !self.subscribed {
            self.put_subscribe(&mut out.bytes, version)?;
        } else {
            self.works();
        }

        let mut pulse = Pulse::new(granted.keep_alive, Instant::now());
        let mut look = tokio::time::interval(pulse.period().min(STRETCH));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pause = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(pause);
        let mut pausing = false;
        let (stop, queue, settled) = (self.stop.clone(), self.queue.clone(), self.settled.clone());

        // The first packets may have come together with the CONNACK.
        let mut need = self.take_in(&mut buffer, &mut out, &mut writer, version).await?;
        loop {
            let room = queue.has_room() && !self.receiver.window.is_full();
            if !room {
                // `connect` must not wait for a SUBACK that stands behind messages nobody takes before it returns.
                self.report_first();
            }
            let reading = room && out.bytes.len() < OUT_BYTES_MAX;
            if reading && !pausing {
                make_room(&mut buffer, need);
            }
            tokio::select! {
                () = stop.cancelled() => {
                    self.leave(&mut out, &mut writer, version).await;
                    return Ok(());
                }
                read = reader.read_buf(&mut buffer), if reading && !pausing => {
                    let count = read.map_err(|source| self.plan.dial.broken(source))?;
                    if count == 0 {
                        return Err(self.plan.dial.closed());
                    }
                    pulse.heard = true;
                    need = self.take_in(&mut buffer, &mut out, &mut writer, version).await?;
                    if count < SMALL_READ_BYTES && need <= buffer.len() + SMALL_READ_BYTES && !self.plan.linger.is_zero() {
                        pause.as_mut().reset(Instant::now() + self.plan.linger);
                        pausing = true;
                    }
                }
                sent = out.send(&mut writer), if !out.is_idle() => {
                    sent.map_err(|source| self.plan.dial.broken(source))?;
                    pulse.sent = true;
                    // 3.1.1 brokers keep few messages in flight: once all are acknowledged, the next are on their way.
                    if version == Version::V4 && self.receiver.window.is_idle() {
                        pausing = false;
                    }
                }
                () = settled.changed() => self.acknowledge(&mut out),
                () = &mut pause, if pausing => pausing = false,
                () = queue.drained(), if !room => {}
                _ = look.tick() => {
                    match pulse.beat(Instant::now(), room) {
                        Beat::Rest => {}
                        Beat::Ping => put_ping(&mut out.bytes),
                        Beat::Dead(silent) => return Err(self.plan.dial.silent(silent)),
                    }
                    self.doctor.measure(self.receiver.keepable);
                }
            }
        }
    }

    /// Hands over the packets in `buffer`. Answers how many bytes the packet takes that is not all there yet.
    async fn take_in(
        &mut self,
        buffer: &mut BytesMut,
        out: &mut Outbox,
        writer: &mut (impl tokio::io::AsyncWrite + Unpin),
        version: Version,
    ) -> Result<usize, LinkError> {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let taken = self.receiver.take_in(buffer, &mut out.bytes, now_ms);
        if self.receiver.confirmed() {
            self.works();
        }
        if let Some(count) = self.receiver.dropped() {
            self.doctor.dropped(count);
        }
        match taken {
            Ok(need) => Ok(need),
            Err(lost) => {
                if let LinkError::Malformed { source: Malformed { reason, .. }, .. } = &lost {
                    put_disconnect(&mut out.bytes, version, *reason);
                    // Only a courtesy: the connection is given up either way.
                    let _ = tokio::time::timeout(GOODBYE, out.send(writer)).await;
                }
                Err(lost)
            }
        }
    }

    fn acknowledge(&mut self, out: &mut Outbox) {
        for (token, outcome) in self.settled.take() {
            self.receiver.window.settle(token, outcome);
        }
        self.receiver.window.put_acks(&mut out.bytes);
    }

    /// The last acknowledgements, and goodbye. The broker keeps the session.
    async fn leave(&mut self, out: &mut Outbox, writer: &mut (impl tokio::io::AsyncWrite + Unpin), version: Version) {
        self.acknowledge(out);
        put_disconnect(&mut out.bytes, version, 0);
        let sent = match out.send(writer).await {
            Ok(()) => writer.shutdown().await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            warn!(url = self.plan.dial.url, %error, "the last acknowledgements may not have arrived; their messages will come again");
        }
    }

    /// Subscribed: messages come.
    fn works(&mut self) {
        self.subscribed = true;
        self.context.health.ok();
        self.report_first();
    }

    fn report_first(&mut self) {
        if let Some(first) = self.first.take() {
            // `connect` was cancelled meanwhile: whoever did that stops the session too.
            let _ = first.send(Ok(()));
        }
    }

    fn welcome(&mut self, version: Version, session_present: bool, session_expiry_s: Option<u32>) {
        let url = &self.plan.dial.url;
        let asked = self.plan.hello.session_expiry_s;
        info!(url, protocol = version.name(), session_present, "connected");
        if self.subscribed && !session_present && asked > 0 {
            self.doctor.session_lost();
        }
        self.doctor.connected(session_present);
        if let Some(shared) = self.plan.topics.iter().find(|topic| topic.filter.is_shared()) {
            self.doctor.shares(&shared.filter.wire);
        }
        if let Some(granted) = session_expiry_s.filter(|&granted| granted < asked) {
            self.doctor.kept_shorter(granted, asked);
        }
    }

    fn put_subscribe(&self, out: &mut BytesMut, version: Version) -> Result<(), LinkError> {
        let rule = match self.plan.retained {
            // Not again at every start: only when the subscription is new.
            Retained::Include => RetainForwardRule::OnNewSubscribe,
            Retained::Skip => RetainForwardRule::Never,
            Retained::Only => RetainForwardRule::OnEverySubscribe,
        };
        let watched = self.plan.watch_dropped.then_some((super::receive::DROPPED_TOPIC, 0));
        let filters = self.plan.topics.iter().map(|t| (t.filter.wire.as_str(), t.qos)).chain(watched);
        let written = match version {
            Version::V5 => {
                let filters = filters.map(|(filter, qos)| v5::Filter {
                    retain_forward_rule: rule.clone(),
                    ..v5::Filter::new(filter, rumqttc::v5::mqttbytes::qos(qos).expect("checked by build"))
                });
                let mut subscribe = v5::Subscribe::new_many(filters, None);
                subscribe.pkid = super::receive::SUBSCRIBE_ID;
                subscribe.write(out).map_err(|error| error.to_string())
            }
            Version::V4 => {
                let filters = filters.map(|(filter, qos)| {
                    v4::SubscribeFilter::new(filter.to_owned(), rumqttc::qos(qos).expect("checked by build"))
                });
                let mut subscribe = v4::Subscribe::new_many(filters);
                subscribe.pkid = super::receive::SUBSCRIBE_ID;
                subscribe.write(out).map_err(|error| error.to_string())
            }
        };
        written.map(drop).map_err(|text| self.plan.dial.unfit(format!("cannot be subscribed to: {text}")))
    }
}

/// Makes space for the next read: the rest of a packet of `need` bytes that is there in part, or just more. Batches
/// share one allocation until it is used up, so that many small reads do not cost one each.
fn make_room(buffer: &mut BytesMut, need: usize) {
    let want = need.saturating_sub(buffer.len()).max(READ_BYTES_MIN);
    if buffer.capacity() - buffer.len() >= want || buffer.try_reclaim(want) {
        return;
    }
    let mut fresh = BytesMut::with_capacity((buffer.len() + want).max(READ_BYTES));
    fresh.extend_from_slice(buffer.chunk());
    *buffer = fresh;
}
