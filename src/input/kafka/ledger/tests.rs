//! Two members of a group, a broker and a table in one deterministic world: thousands of schedules, each from its seed,
//! over the real `Ledger` and `Plan`. A step is one thing that can happen: a read, a cut, a commit whose answer is lost,
//! an insert that arrives late, a crash, a member that sleeps past its session. After each schedule the world heals, the
//! rest is written, and every message must be in the table once. Taking one rule away must break that. (A
//! rule about somebody who moves positions by hand is tested by itself: nobody here does.)
use std::collections::{HashMap, HashSet, VecDeque};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

const PARTITIONS: usize = 2;
const STEPS: usize = 250;
const SCHEDULES: u64 = 3_000;

/// A rule taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// Rule 1: ranges are handed out before Kafka has confirmed their record.
    HandsOutUnrecorded,
    /// Rule 2: the next owner cuts anew.
    ForgetsCuts,
    /// Rule 3: a record is committed though its partition was taken away.
    CommitsWhatIsGone,
    /// Rule 5: the position moves before the range is written.
    MovesEarly,
    /// Rule 6: a range is divided though an attempt to write it is still on its way.
    DividesTooEarly,
    /// The name of a range differs from owner to owner.
    NamesByOwner,
}

/// An insert on its way, or one that has arrived and whose answer is.
struct Flight {
    name: String,
    rows: Vec<i64>,
    partition: usize,
    sender: u64,
    token: u64,
}

#[derive(Default)]
struct Table {
    names: HashSet<String>,
    rows: Vec<HashMap<i64, u32>>,
}

impl Table {
    fn insert(&mut self, flight: &Flight) {
        if self.names.insert(flight.name.clone()) {
            flight.rows.iter().for_each(|row| *self.rows[flight.partition].entry(*row).or_default() += 1);
        }
    }
}

/// A batch that the pipeline has.
#[derive(Clone)]
struct Out {
    token: u64,
    name: String,
    partition: usize,
    rows: Vec<i64>,
}

#[derive(Default)]
struct Reading {
    next: Option<i64>,
    ends: VecDeque<i64>,
}

struct Member {
    /// Unlike that of any process before.
    process: u64,
    /// As the broker knows it; another one after each time it was thrown out.
    id: u64,
    ledger: Ledger,
    reading: HashMap<usize, Reading>,
    closed: VecDeque<(usize, i64)>,
    out: Vec<Out>,
    /// Records between being made and being committed.
    pending: Option<Vec<Entry>>,
    asleep: bool,
}

struct World {
    random: StdRng,
    broken: Broken,
    log: Vec<Vec<i64>>,
    records: Vec<Option<Record>>,
    owner: Vec<Option<u64>>,
    /// Ids of the members that the broker counts.
    known: HashSet<u64>,
    members: Vec<Member>,
    flights: Vec<Flight>,
    table: Table,
    numbers: u64,
}

fn place(partition: usize) -> Place {
    ("t".to_owned(), partition as i32)
}

impl World {
    fn new(seed: u64, broken: Broken) -> Self {
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            broken,
            log: vec![Vec::new(); PARTITIONS],
            records: vec![None; PARTITIONS],
            owner: vec![None; PARTITIONS],
            known: HashSet::new(),
            members: Vec::new(),
            flights: Vec::new(),
            table: Table { names: HashSet::new(), rows: vec![HashMap::new(); PARTITIONS] },
            numbers: 0,
        };
        world.join();
        world.join();
        world
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn join(&mut self) {
        let (process, id) = (self.number(), self.number());
        self.known.insert(id);
        self.members.push(Member {
            process,
            id,
            ledger: Ledger::default(),
            reading: HashMap::new(),
            closed: VecDeque::new(),
            out: Vec::new(),
            pending: None,
            asleep: false,
        });
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_ratio(1, one_in)
    }

    fn pick(&mut self, len: usize) -> usize {
        self.random.random_range(0..len)
    }

    fn step(&mut self) {
        let m = self.pick(self.members.len());
        match self.random.random_range(0..100) {
            0..15 => self.produce(),
            15..20 => self.rebalance(),
            20..22 => self.crash(m),
            22..25 => self.members[m].asleep = true,
            25..30 => {
                self.members[m].asleep = false;
                self.notice(m);
            }
            30..40 => self.arrive(),
            _ if self.members[m].asleep => {}
            40..55 => self.close_a_range(m),
            55..70 => self.propose(m),
            70..80 => self.commit(m, true),
            80..88 => self.hand_out(m),
            88..97 => self.write(m),
            _ => self.divide(m),
        }
    }

    fn produce(&mut self) {
        let partition = self.pick(PARTITIONS);
        for _ in 0..self.random.random_range(1..6) {
            // Markers of transactions and compacted messages leave holes.
            let hole = i64::from(self.chance(5));
            let next = self.log[partition].last().map_or(0, |last| last + 1) + hole;
            self.log[partition].push(next);
        }
    }

    /// A partition moves to another member, or to the first one.
    fn rebalance(&mut self) {
        let partition = self.pick(PARTITIONS);
        let to = self.pick(self.members.len());
        if self.members[to].asleep || !self.known.contains(&self.members[to].id) {
            return;
        }
        if let Some(owner) = self.owner[partition]
            && let Some(from) = self.members.iter().position(|m| m.id == owner)
        {
            if self.members[from].asleep {
                // Its session ends: it is thrown out and does not know.
                self.known.remove(&owner);
                self.owner.iter_mut().filter(|o| **o == Some(owner)).for_each(|o| *o = None);
            } else {
                self.revoke(from, partition);
            }
        }
        self.assign(to, partition);
    }

    fn assign(&mut self, to: usize, partition: usize) {
        self.owner[partition] = Some(self.members[to].id);
        let epoch = self.number();
        let mut record = self.records[partition].clone();
        if let (Broken::ForgetsCuts, Some(record)) = (self.broken, &mut record) {
            let plan = Plan::read(record).expect("plans write all records here");
            record.text = Plan::new(plan.epoch, record.offset).record().text;
        }
        let member = &mut self.members[to];
        member.ledger.assign(&place(partition), record, epoch);
        let Start { next, ends } = member.ledger.start(&place(partition)).expect("it was just assigned");
        member.reading.insert(partition, Reading { next, ends: ends.into() });
        member.closed.retain(|(p, _)| *p != partition);
    }

    fn revoke(&mut self, from: usize, partition: usize) {
        self.owner[partition] = None;
        let member = &mut self.members[from];
        member.ledger.revoke(&place(partition));
        member.reading.remove(&partition);
        member.closed.retain(|(p, _)| *p != partition);
    }

    /// A member that was thrown out gets to know it, and joins again.
    fn notice(&mut self, m: usize) {
        if self.known.contains(&self.members[m].id) {
            return;
        }
        let held: Vec<usize> = self.members[m].reading.keys().copied().collect();
        for partition in held {
            let owner = self.owner[partition];
            self.revoke(m, partition);
            self.owner[partition] = owner;
        }
        let id = self.number();
        self.members[m].id = id;
        self.known.insert(id);
    }

    fn crash(&mut self, m: usize) {
        let id = self.members[m].id;
        self.members.remove(m);
        self.known.remove(&id);
        self.owner.iter_mut().filter(|o| **o == Some(id)).for_each(|o| *o = None);
        self.join();
    }

    /// Reads up to where a range ends: as recorded, else wherever batches happen to be full or due.
    fn close_a_range(&mut self, m: usize) {
        let partition = self.pick(PARTITIONS);
        let epoch = self.number();
        let Some(first) = self.log[partition].first().copied() else { return };
        let Some(mut reading) = self.members[m].reading.remove(&partition) else { return };
        let member = &mut self.members[m];
        let next = *reading.next.get_or_insert_with(|| {
            member.ledger.begin(&place(partition), first, epoch);
            first
        });
        let end = reading.ends.pop_front().or_else(|| {
            let new: Vec<i64> = self.log[partition].iter().copied().filter(|&offset| offset >= next).collect();
            (!new.is_empty()).then(|| new[self.random.random_range(0..new.len())] + 1)
        });
        let member = &mut self.members[m];
        if let Some(end) = end {
            reading.next = Some(end);
            member.closed.push_back((partition, end));
        }
        member.reading.insert(partition, reading);
    }

    fn propose(&mut self, m: usize) {
        self.ask_back(m);
        let member = &mut self.members[m];
        if member.pending.is_some() {
            return;
        }
        let cuts: Vec<_> = member.closed.iter().map(|(p, end)| (place(*p), *end)).collect();
        let entries = member.ledger.propose(&cuts);
        if self.broken == Broken::HandsOutUnrecorded {
            member.ledger.confirm(entries.clone());
        }
        member.pending = (!entries.is_empty()).then_some(entries);
    }

    fn commit(&mut self, m: usize, faults: bool) {
        let Some(mut entries) = self.members[m].pending.take() else { return };
        let was_thrown_out = !self.known.contains(&self.members[m].id);
        if self.broken != Broken::CommitsWhatIsGone {
            self.members[m].ledger.still_ours(&mut entries);
        }
        let (is_lost, is_silent) = (faults && self.chance(6), faults && self.chance(6));
        if was_thrown_out || is_lost {
            self.members[m].ledger.doubt(entries);
            return;
        }
        // The broker looks at the member, not at its partitions.
        for entry in &entries {
            self.records[entry.place.1 as usize] = Some(entry.record());
        }
        if is_silent {
            self.members[m].ledger.doubt(entries);
        } else {
            self.members[m].ledger.confirm(entries);
        }
    }

    /// After a failed commit: what does Kafka have?
    fn ask_back(&mut self, m: usize) {
        if !self.known.contains(&self.members[m].id) {
            return;
        }
        for place in self.members[m].ledger.doubted() {
            let found = self.records[place.1 as usize].clone();
            if self.members[m].ledger.read_back(&place, found).is_err() {
                // Starts over.
                let partition = place.1 as usize;
                self.revoke(m, partition);
                self.assign(m, partition);
            }
        }
    }

    fn hand_out(&mut self, m: usize) {
        let log = &self.log;
        let member = &mut self.members[m];
        while let Some(&(partition, end)) = member.closed.front() {
            let first = member.ledger.held(&place(partition)).and_then(|h| h.plan.as_ref()).and_then(|p| p.first(end));
            let Some((token, recorded)) = member.ledger.hand_out(&place(partition), end) else { break };
            member.closed.pop_front();
            let first = first.expect("a recorded range has a start");
            let rows = log[partition].iter().copied().filter(|offset| (first..end).contains(offset)).collect();
            let mut name = recorded.name;
            if self.broken == Broken::NamesByOwner {
                name += &format!("/{}", member.process);
            }
            member.out.push(Out { token, name, partition, rows });
            if self.broken == Broken::MovesEarly {
                member.ledger.settle(token, Outcome::Delivered);
            }
        }
    }

    /// The output sends a batch, perhaps not for the first time.
    fn write(&mut self, m: usize) {
        if self.members[m].out.is_empty() {
            return;
        }
        let which = self.pick(self.members[m].out.len());
        let Out { token, name, partition, rows } = self.members[m].out[which].clone();
        self.flights.push(Flight { name, rows, partition, sender: self.members[m].process, token });
    }

    /// An insert arrives, however late and whoever lives, and is answered or not.
    fn arrive(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let which = self.pick(self.flights.len());
        if self.chance(4) {
            self.flights.remove(which);
            return;
        }
        self.table.insert(&self.flights[which]);
        let flight = self.flights.remove(which);
        if !self.chance(4)
            && let Some(member) = self.members.iter_mut().find(|m| m.process == flight.sender)
            && let Some(at) = member.out.iter().position(|out| out.token == flight.token)
        {
            member.out.remove(at);
            member.ledger.settle(flight.token, Outcome::Delivered);
        }
    }

    /// The server refuses a batch as a whole, and the output wants it in pieces. It may ask for that only when no
    /// attempt to write it is left anywhere.
    fn divide(&mut self, m: usize) {
        if self.members[m].out.is_empty() || !self.known.contains(&self.members[m].id) {
            return;
        }
        let which = self.pick(self.members[m].out.len());
        let name = &self.members[m].out[which].name;
        let elsewhere = self.members.iter().flat_map(|member| &member.out).filter(|out| out.name == *name).count() > 1;
        let on_its_way = self.flights.iter().any(|flight| flight.name == *name) || self.table.names.contains(name);
        if elsewhere || (on_its_way && self.broken != Broken::DividesTooEarly) {
            return;
        }
        let out = self.members[m].out.remove(which);
        let entry = self.members[m].ledger.settle(out.token, Outcome::Divide);
        if let Some(entry) = entry {
            self.members[m].pending = Some(vec![entry]);
            self.commit(m, true);
        }
        // The input starts over: what it had is read again.
        let held: Vec<usize> = self.members[m].reading.keys().copied().collect();
        for partition in held {
            self.revoke(m, partition);
            self.assign(m, partition);
        }
    }

    /// No more faults: everybody wakes, what is on its way arrives, the last messages are written.
    fn heal(&mut self) {
        for m in 0..self.members.len() {
            self.members[m].asleep = false;
            self.notice(m);
        }
        for partition in 0..PARTITIONS {
            if let Some(from) = self.members.iter().position(|m| Some(m.id) == self.owner[partition]) {
                self.revoke(from, partition);
            }
        }
        let flights = std::mem::take(&mut self.flights);
        flights.iter().for_each(|flight| self.table.insert(flight));
        for partition in 0..PARTITIONS {
            self.assign(0, partition);
        }
        self.members.iter_mut().for_each(|member| member.pending = None);
        for _ in 0..2_000 {
            self.close_a_range(0);
            self.propose(0);
            self.commit(0, false);
            self.hand_out(0);
            let outs = std::mem::take(&mut self.members[0].out);
            for Out { token, name, partition, rows } in outs {
                self.table.insert(&Flight { name, rows, partition, sender: 0, token });
                self.members[0].ledger.settle(token, Outcome::Delivered);
            }
            let is_done = (0..PARTITIONS).all(|p| {
                let end = self.log[p].last().map_or(0, |last| last + 1);
                end == 0 || self.records[p].as_ref().is_some_and(|record| record.offset == end)
            });
            if is_done {
                return;
            }
        }
        panic!("nothing moves any more: {:?}", self.records);
    }

    /// Messages that are missing, and rows too many.
    fn count(&self) -> (u32, u32) {
        let (mut lost, mut doubled) = (0, 0);
        for (log, rows) in self.log.iter().zip(&self.table.rows) {
            for offset in log {
                match rows.get(offset).copied().unwrap_or_default() {
                    0 => lost += 1,
                    times => doubled += times - 1,
                }
            }
        }
        (lost, doubled)
    }
}

fn run(seed: u64, broken: Broken) -> (u32, u32) {
    let mut world = World::new(seed, broken);
    (0..STEPS).for_each(|_| world.step());
    world.heal();
    world.count()
}

#[test]
fn every_message_is_written_once_in_every_schedule() {
    for seed in 0..SCHEDULES {
        assert_eq!(run(seed, Broken::Nothing), (0, 0), "seed {seed}: (lost, doubled)");
    }
}

#[test]
fn each_rule_is_needed() {
    use Broken::*;
    for broken in [HandsOutUnrecorded, ForgetsCuts, CommitsWhatIsGone, MovesEarly, DividesTooEarly, NamesByOwner] {
        let seen = (0..SCHEDULES).map(|seed| run_to_its_end(seed, broken)).find(|seen| *seen != (0, 0));
        assert!(seen.is_some(), "{broken:?} does no harm in {SCHEDULES} schedules: the simulation does not see it");
    }
}

/// A world with a broken rule may also come to a halt, or trip over an assertion: that is seen, too.
fn run_to_its_end(seed: u64, broken: Broken) -> (u32, u32) {
    std::panic::catch_unwind(|| run(seed, broken)).unwrap_or((u32::MAX, 0))
}

#[test]
fn a_position_that_somebody_else_has_moved_is_noticed() {
    let mut ledger = Ledger::default();
    let before = Plan::new(1, 10).record();
    ledger.assign(&place(0), Some(before.clone()), 2);
    let entries = ledger.propose(&[(place(0), 20)]);
    assert_eq!(entries.len(), 1);
    let tried = entries[0].record();
    ledger.doubt(entries.clone());
    assert_eq!(ledger.doubted(), [place(0)]);
    assert!(ledger.propose(&[(place(0), 20)]).is_empty() && ledger.hand_out(&place(0), 20).is_none());

    ledger.read_back(&place(0), Some(before)).expect("nothing has happened");
    assert!(!ledger.is_recorded(&place(0), 20) && ledger.doubted().is_empty());
    ledger.doubt(entries.clone());
    ledger.read_back(&place(0), Some(tried)).expect("it had arrived");
    assert!(ledger.is_recorded(&place(0), 20));
    ledger.doubt(entries);
    let found = Some(Record { offset: 3, text: String::new() });
    assert_eq!(ledger.read_back(&place(0), found.clone()), Err(Foreign { place: place(0), found }));
}
