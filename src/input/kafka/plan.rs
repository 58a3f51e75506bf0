//! Where the batches of one partition end, as it is recorded with the group's position in Kafka.
//!
//! Everything below `offset` is settled. Behind it lie ranges that were recorded before anyone wrote them; each ends
//! where the next one starts. Whoever reads the partition next must hand out exactly these ranges first. The epoch
//! tells this chain of ranges from another one over the same offsets: a new one begins where no record is found.
use std::collections::VecDeque;

/// Most characters of a record: brokers refuse more than 4,095 (`offset.metadata.max.bytes`).
const RECORD_MAX: usize = 4_000;
/// Most ranges that are recorded and not settled.
const CUTS_MAX: usize = 256;
/// What a record starts with: who wrote it, and the version of its form.
const MARK: &str = "streamer/1";

/// The recorded ranges of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub epoch: u64,
    /// Everything below is settled.
    pub offset: i64,
    cuts: VecDeque<Cut>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    /// One past the last offset of the range.
    end: i64,
    settled: bool,
}

/// The group's position and the text beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    pub text: String,
}

impl Plan {
    /// Nothing recorded, nothing read below `offset`.
    pub fn new(epoch: u64, offset: i64) -> Self {
        Self { epoch, offset, cuts: VecDeque::new() }
    }

    /// The plan of a record; `None` for one that no plan wrote.
    pub fn read(record: &Record) -> Option<Self> {
        let mut parts = record.text.split(';');
        if parts.next() != Some(MARK) {
            return None;
        }
        let epoch = u64::from_str_radix(parts.next()?.strip_prefix("e=")?, 36).ok()?;
        let lengths = parts.next()?.strip_prefix("c=")?;
        let mut plan = Self::new(epoch, record.offset);
        let mut end = record.offset;
        for length in lengths.split(',').filter(|length| !length.is_empty()) {
            end = i64::from_str_radix(length, 36).ok().filter(|&n| n > 0).and_then(|n| end.checked_add(n))?;
            plan.cuts.push_back(Cut { end, settled: false });
        }
        parts.next().is_none().then_some(plan)
    }

    /// What to commit.
    pub fn record(&self) -> Record {
        let mut text = format!("{MARK};e={};c=", base36(self.epoch));
        let mut last = self.offset;
        for (index, cut) in self.cuts.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(&base36((cut.end - last) as u64));
            last = cut.end;
        }
        Record { offset: self.offset, text }
    }

    /// One past the last recorded offset.
    pub fn end(&self) -> i64 {
        self.cuts.back().map_or(self.offset, |cut| cut.end)
    }

    /// Ends of the recorded ranges, in order.
    pub fn ends(&self) -> impl Iterator<Item = i64> {
        self.cuts.iter().map(|cut| cut.end)
    }

    /// Ends of the ranges that are settled, behind one that is not.
    pub fn settled(&self) -> impl Iterator<Item = i64> {
        self.cuts.iter().filter(|cut| cut.settled).map(|cut| cut.end)
    }

    /// True when another range fits into the record.
    pub fn has_room(&self) -> bool {
        self.cuts.len() < CUTS_MAX && self.record().text.len() + 14 < RECORD_MAX
    }

    /// Records one more range, up to `end`.
    pub fn cut(&mut self, end: i64) {
        debug_assert!(end > self.end(), "ranges rise");
        self.cuts.push_back(Cut { end, settled: false });
    }

    /// Where the recorded range that ends at `end` starts.
    pub fn first(&self, end: i64) -> Option<i64> {
        let at = self.cuts.iter().position(|cut| cut.end == end)?;
        Some(if at == 0 { self.offset } else { self.cuts[at - 1].end })
    }

    /// The range that ends at `end` is settled. True when the position moved.
    pub fn settle(&mut self, end: i64) -> bool {
        let Some(cut) = self.cuts.iter_mut().find(|cut| cut.end == end) else { return false };
        cut.settled = true;
        let before = self.offset;
        while let Some(Cut { end, settled: true }) = self.cuts.front().copied() {
            self.cuts.pop_front();
            self.offset = end;
        }
        self.offset != before
    }

    /// Divides the range that ends at `end` into up to `pieces`, as many as the record has room for. False when it
    /// cannot be divided. Only for a range that nobody has written and nobody will.
    pub fn divide(&mut self, end: i64, pieces: i64) -> bool {
        let Some(first) = self.first(end) else { return false };
        let at = self.cuts.iter().position(|cut| cut.end == end).expect("it was found above");
        let room = (CUTS_MAX - self.cuts.len().min(CUTS_MAX)).min((RECORD_MAX - self.record().text.len()) / 14) as i64;
        let pieces = pieces.min(room + 1).min(end - first);
        for piece in (1..pieces).rev() {
            self.cuts.insert(at, Cut { end: first + (end - first) * piece / pieces, settled: false });
        }
        pieces > 1
    }
}

/// A number in digits and lower-case letters.
pub fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().map(|&digit| char::from(digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(offset: i64, ends: &[i64]) -> Plan {
        let mut plan = Plan::new(77, offset);
        ends.iter().for_each(|&end| plan.cut(end));
        plan
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        for plan in [plan(0, &[]), plan(5, &[6]), plan(1 << 40, &[(1 << 40) + 50_000, (1 << 41)])] {
            assert_eq!(Plan::read(&plan.record()), Some(plan));
        }
        assert_eq!(plan(100, &[136, 137]).record().text, "streamer/1;e=25;c=10,1");
    }

    #[test]
    fn a_record_of_somebody_else_is_none() {
        for text in [
            "",
            "streamer/2;e=1;c=",
            "streamer/1;e=1",
            "streamer/1;e=!;c=",
            "streamer/1;e=1;c=0",
            "streamer/1;e=1;c=-5",
            "streamer/1;e=1;c=1;x",
            "streamer/1;e=1;c=1y2p0ij32e8e7",
        ] {
            assert_eq!(Plan::read(&Record { offset: 3, text: text.into() }), None, "{text}");
        }
    }

    #[test]
    fn the_position_moves_below_the_first_open_range() {
        let mut plan = plan(10, &[20, 30, 40]);
        assert!(!plan.settle(30));
        assert_eq!(plan.record().offset, 10);
        assert!(plan.settle(20));
        assert_eq!((plan.offset, plan.ends().collect::<Vec<_>>()), (30, vec![40]));
        assert_eq!(plan.first(40), Some(30));
        assert!(!plan.settle(99) && plan.settle(40));
        assert_eq!((plan.offset, plan.end()), (40, 40));
    }

    #[test]
    fn a_range_is_divided_within_its_ends() {
        let mut p = plan(10, &[20, 120, 130]);
        assert!(p.divide(120, 4));
        assert_eq!(p.ends().collect::<Vec<_>>(), [20, 45, 70, 95, 120, 130]);
        let mut p = plan(10, &[12]);
        assert!(p.divide(12, 16));
        assert_eq!(p.ends().collect::<Vec<_>>(), [11, 12]);
        assert!(!p.divide(11, 16), "one offset is left whole");
        assert!(!p.divide(99, 2));
    }

    #[test]
    fn a_full_record_fits_what_brokers_take() {
        let mut p = Plan::new(u64::MAX, i64::MAX >> 8);
        while p.has_room() {
            p.cut(p.end() + (1 << 40));
        }
        assert!(p.record().text.len() <= RECORD_MAX && p.ends().count() > 100, "{}", p.ends().count());
        let last = p.end();
        p.divide(last, 16);
        assert!(p.record().text.len() <= RECORD_MAX && p.ends().count() <= CUTS_MAX);
        assert_eq!(Plan::read(&p.record()), Some(p));
    }
}
