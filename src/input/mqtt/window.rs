//! The window: messages of quality of service 1 and 2 that were received and not yet acknowledged.
//!
//! Every message that is handed out gets a number; numbers never repeat. The pipeline settles ranges of numbers in any
//! order. A slot is a message received *on this connection*: acknowledgements leave in the order of the slots (MQTT 5,
//! 4.6) and only when all numbers up to the slot's own are settled, so an acknowledgement never crosses over to another
//! connection.
//!
//! After a reconnect with the session kept, the broker sends again what was not acknowledged, with the same packet
//! identifiers and marked as duplicate. An identifier that we never acknowledged cannot have been used for another
//! message, so such a message, when its bytes are the same too, is one that the pipeline still has: it gets a slot with
//! the old number and is not handed out twice. (The bytes matter for a broker that came back with an older state.)
use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;

use crate::{
    ack::{OffsetTracker, Outcome},
    client::mqtt::packet::{kind, put_ack},
};

/// As many as there are packet identifiers. Mosquitto 2.0.11 sends more to a session that it restored after a restart, and
/// uses identifiers twice; nothing more is read then until some are acknowledged.
const SLOTS_MAX: usize = 65_535;

/// The number of a slot that waits for nothing.
const SETTLED: u64 = 0;

/// One message as the window knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Packet identifier.
    pub id: u16,
    /// Quality of service, 1 or 2.
    pub qos: u8,
    /// Marked as sent before.
    pub dup: bool,
    /// Hash of topic and payload.
    pub hash: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    number: u64,
    hash: u64,
    id: u16,
    qos: u8,
}

#[derive(Debug)]
pub struct Window {
    tracker: OffsetTracker,
    /// The next number.
    next: u64,
    /// Every number below is settled.
    below: u64,
    /// Received on this connection and not acknowledged, in order of receipt.
    slots: VecDeque<Slot>,
    /// Received on an earlier connection of the session and never acknowledged: number and hash by packet identifier.
    carried: HashMap<u16, (u64, u64)>,
    /// Quality of service 2: acknowledged with PUBREC and not yet released with PUBREL: hash by packet identifier.
    unreleased: HashMap<u16, u64>,
    /// A batch came back undelivered.
    failed: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            tracker: OffsetTracker::default(),
            next: SETTLED + 1,
            below: SETTLED + 1,
            slots: VecDeque::new(),
            carried: HashMap::new(),
            unreleased: HashMap::new(),
            failed: false,
        }
    }
}

impl Window {
    /// A new connection. Nothing received before is acknowledged on it, unless the broker sends it again.
    pub fn connected(&mut self, session_present: bool) {
        if session_present && !self.failed {
            let open = self.slots.drain(..).filter(|slot| slot.number != SETTLED);
            self.carried.extend(open.map(|slot| (slot.id, (slot.number, slot.hash))));
        } else {
            // Either the identifiers mean nothing any more, or what failed must be handed out again. What the pipeline
            // still holds is settled for nobody.
            self.slots.clear();
            self.carried.clear();
            self.tracker = OffsetTracker::default();
            self.failed = false;
        }
        if !session_present {
            self.unreleased.clear();
        }
    }

    /// The number that the next message to be handed out will get.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes a message in. True: hand it out. False: the pipeline has it or had it.
    pub fn receive(&mut self, arrival: Arrival) -> bool {
        let Arrival { id, qos, dup, hash } = arrival;
        let mut number = self.next;
        if qos == 2 && self.unreleased.get(&id).is_some_and(|&known| known == hash && dup) {
            number = SETTLED;
        }
        if !self.carried.is_empty()
            && let Some((carried, known)) = self.carried.remove(&id)
            && known == hash
            && dup
        {
            number = carried;
        }
        self.slots.push_back(Slot { number, hash, id, qos });
        let new = number == self.next;
        self.next += u64::from(new);
        new
    }

    /// Takes a message in that nobody wants: it is acknowledged when its turn comes.
    pub fn skip(&mut self, arrival: Arrival) {
        let Arrival { id, qos, hash, .. } = arrival;
        self.slots.push_back(Slot { number: SETTLED, hash, id, qos });
    }

    /// True when nothing more should be read before something is acknowledged.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= SLOTS_MAX
    }

    /// The messages numbered from `first` on are one batch. Answers its token; `None` when there are no such messages.
    pub fn batch(&mut self, first: u64) -> Option<u64> {
        (self.next > first).then(|| {
            self.tracker.track(first as i64, self.next as i64);
            first
        })
    }

    /// Hears what became of the batch `token`.
    pub fn settle(&mut self, token: u64, outcome: Outcome) {
        match outcome {
            Outcome::Delivered => {
                if let Some(below) = self.tracker.settle(token as i64) {
                    self.below = below as u64;
                }
            }
            // Nothing is recorded here that could come again divided.
            Outcome::Undelivered | Outcome::Divide => self.failed = true,
        }
    }

    /// Appends every acknowledgement that may be sent now.
    pub fn put_acks(&mut self, out: &mut BytesMut) {
        while let Some(slot) = self.slots.front().filter(|slot| slot.number < self.below) {
            if slot.qos == 2 {
                self.unreleased.insert(slot.id, slot.hash);
                put_ack(out, kind::PUBREC, slot.id);
            } else {
                put_ack(out, kind::PUBACK, slot.id);
            }
            self.slots.pop_front();
        }
    }

    /// Answers a PUBREL, for identifiers we know nothing of too: the broker would ask for ever.
    pub fn release(&mut self, id: u16, out: &mut BytesMut) {
        self.unreleased.remove(&id);
        put_ack(out, kind::PUBCOMP, id);
    }

    /// True when everything received on this connection is acknowledged.
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBACK: u8 = 0x40;
    const PUBREC: u8 = 0x50;
    const PUBCOMP: u8 = 0x70;

    fn arrival(id: u16, qos: u8) -> Arrival {
        Arrival { id, qos, dup: false, hash: u64::from(id) * 1000 }
    }

    fn again(id: u16, qos: u8) -> Arrival {
        Arrival { dup: true, ..arrival(id, qos) }
    }

    /// Hands out a batch of QoS 1 messages with these identifiers.
    fn batch(window: &mut Window, ids: &[u16]) -> u64 {
        let first = window.next();
        for &id in ids {
            assert!(window.receive(arrival(id, 1)), "{id} is new");
        }
        window.batch(first).expect("there are new messages")
    }

    fn acks(window: &mut Window) -> Vec<(u8, u16)> {
        let mut out = BytesMut::new();
        window.put_acks(&mut out);
        out.chunks(4).map(|a| (a[0], u16::from_be_bytes([a[2], a[3]]))).collect()
    }

    fn ids(window: &mut Window) -> Vec<u16> {
        acks(window).into_iter().map(|(_, id)| id).collect()
    }

    #[test]
    fn acks_leave_in_receive_order_whatever_settles_first() {
        let mut w = Window::default();
        let (a, b, c) = (batch(&mut w, &[9, 3]), batch(&mut w, &[5]), batch(&mut w, &[1]));
        w.settle(b, Outcome::Delivered);
        assert!(ids(&mut w).is_empty());
        w.settle(a, Outcome::Delivered);
        assert_eq!(acks(&mut w), [(PUBACK, 9), (PUBACK, 3), (PUBACK, 5)]);
        w.settle(c, Outcome::Delivered);
        assert_eq!(ids(&mut w), [1]);
        assert!(w.is_idle());
    }

    #[test]
    fn nothing_is_acked_past_an_undelivered_batch() {
        let mut w = Window::default();
        let (a, b) = (batch(&mut w, &[1]), batch(&mut w, &[2]));
        w.settle(a, Outcome::Undelivered);
        w.settle(b, Outcome::Delivered);
        assert!(ids(&mut w).is_empty());
    }

    #[test]
    fn an_undelivered_message_is_handed_out_again_after_a_reconnect() {
        let mut w = Window::default();
        let a = batch(&mut w, &[1]);
        w.settle(a, Outcome::Undelivered);
        w.connected(true);
        let first = w.next();
        assert!(w.receive(again(1, 1)));
        let again = w.batch(first).unwrap();
        w.settle(again, Outcome::Delivered);
        assert_eq!(ids(&mut w), [1]);
    }

    #[test]
    fn an_ack_of_an_older_connection_is_not_sent_on_the_new_one() {
        let mut w = Window::default();
        let a = batch(&mut w, &[1, 2]);
        w.connected(true);
        w.settle(a, Outcome::Delivered);
        assert!(ids(&mut w).is_empty());
    }

    #[test]
    fn a_message_still_in_the_window_is_not_handed_out_twice_and_acked_on_the_new_connection() {
        let mut w = Window::default();
        let (a, b) = (batch(&mut w, &[1, 2]), batch(&mut w, &[3]));
        w.connected(true);
        for id in [1, 2, 3] {
            assert!(!w.receive(again(id, 1)), "{id}");
        }
        let c = batch(&mut w, &[4]);
        assert!(ids(&mut w).is_empty());
        w.settle(c, Outcome::Delivered);
        w.settle(b, Outcome::Delivered);
        w.settle(a, Outcome::Delivered);
        assert_eq!(ids(&mut w), [1, 2, 3, 4]);
    }

    #[test]
    fn a_message_settled_between_the_connections_is_acked_when_it_comes_again() {
        let mut w = Window::default();
        let a = batch(&mut w, &[1]);
        w.connected(true);
        w.settle(a, Outcome::Delivered);
        assert!(!w.receive(again(1, 1)));
        assert_eq!(ids(&mut w), [1]);
    }

    #[test]
    fn a_message_is_carried_over_two_reconnects() {
        let mut w = Window::default();
        batch(&mut w, &[1, 2]);
        w.connected(true);
        assert!(!w.receive(again(1, 1)));
        w.connected(true);
        assert!(!w.receive(again(1, 1)));
        assert!(!w.receive(again(2, 1)));
    }

    #[test]
    fn acks_follow_the_order_of_the_new_connection() {
        let mut w = Window::default();
        let a = batch(&mut w, &[1, 2]);
        w.connected(true);
        // 7 was acknowledged before, but that got lost; it comes again, first of all.
        let first = w.next();
        assert!(w.receive(again(7, 1)));
        let b = w.batch(first).unwrap();
        assert!(!w.receive(again(1, 1)));
        w.settle(a, Outcome::Delivered);
        assert!(ids(&mut w).is_empty());
        w.settle(b, Outcome::Delivered);
        assert_eq!(ids(&mut w), [7, 1]);
    }

    #[test]
    fn another_message_under_an_old_identifier_is_handed_out() {
        let mut w = Window::default();
        batch(&mut w, &[1, 2, 3]);
        w.connected(true);
        assert!(w.receive(Arrival { hash: 5, ..again(1, 1) }), "other bytes");
        assert!(w.receive(arrival(2, 1)), "not marked as duplicate");
        w.connected(false);
        assert!(w.receive(again(3, 1)), "the session was lost");
    }

    #[test]
    fn a_lost_session_does_not_hold_up_later_acks() {
        let mut w = Window::default();
        let old = batch(&mut w, &[1]);
        w.connected(false);
        let new = batch(&mut w, &[1]);
        w.settle(new, Outcome::Delivered);
        assert_eq!(ids(&mut w), [1]);
        w.settle(old, Outcome::Delivered);
        assert!(ids(&mut w).is_empty());
    }

    #[test]
    fn a_duplicate_after_pubrec_is_not_handed_out() {
        let mut w = Window::default();
        let first = w.next();
        assert!(w.receive(arrival(1, 2)));
        let a = w.batch(first).unwrap();
        w.settle(a, Outcome::Delivered);
        assert_eq!(acks(&mut w), [(PUBREC, 1)]);
        w.connected(true);
        assert!(!w.receive(again(1, 2)));
        assert_eq!(acks(&mut w), [(PUBREC, 1)]);
        let mut out = BytesMut::new();
        w.release(1, &mut out);
        w.release(99, &mut out);
        assert_eq!(&out[..], [PUBCOMP, 2, 0, 1, PUBCOMP, 2, 0, 99]);
        assert!(w.receive(arrival(1, 2)), "the identifier is free again");
    }

    #[test]
    fn a_skipped_message_is_acked_in_its_turn() {
        let mut w = Window::default();
        let a = batch(&mut w, &[1]);
        w.skip(arrival(2, 1));
        assert!(ids(&mut w).is_empty());
        w.settle(a, Outcome::Delivered);
        assert_eq!(ids(&mut w), [1, 2]);
    }

    #[test]
    fn a_broker_that_uses_identifiers_twice_gets_all_acks_and_fills_the_window() {
        let mut w = Window::default();
        let first = w.next();
        for id in (1..=u16::MAX).chain([1, 2]) {
            assert!(w.receive(arrival(id, 1)));
        }
        assert!(w.is_full());
        let a = w.batch(first).unwrap();
        w.settle(a, Outcome::Delivered);
        assert_eq!(ids(&mut w)[65_533..], [65_534, 65_535, 1, 2]);
        assert!(!w.is_full());
    }
}
