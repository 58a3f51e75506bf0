//! What became of numbered messages, worked out from what lies at the far end.
use std::collections::{BTreeMap, BTreeSet};

/// What became of the messages of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that had to arrive, or to become dead letters.
    pub sent: u64,
    /// Of these, those that did neither.
    pub lost: u64,
    /// Arrivals beyond the first of each.
    pub duplicated: u64,
    /// First arrivals after a later message of the same device. A table has no order to tell this by.
    pub out_of_order: Option<u64>,
    /// Messages that became dead letters, each counted once.
    pub dead_lettered: u64,
}

impl Tally {
    /// Counts what arrived, as device and number in order of arrival, of messages `expected` of which `refused` had to
    /// become dead letters and `dead` did.
    pub fn of_arrivals(
        expected: impl Iterator<Item = u32>,
        refused: &BTreeSet<u32>,
        dead: &BTreeSet<u32>,
        arrivals: impl Iterator<Item = (String, u32)>,
    ) -> Self {
        let (mut seen, mut last) = (BTreeMap::<(String, u32), u64>::new(), BTreeMap::<String, u32>::new());
        let mut out_of_order = 0;
        for (device, seq) in arrivals {
            let times = seen.entry((device.clone(), seq)).or_default();
            *times += 1;
            if *times > 1 {
                continue;
            }
            let last = last.entry(device).or_insert(seq);
            out_of_order += u64::from(seq < *last);
            *last = seq.max(*last);
        }
        let arrived: BTreeSet<u32> = seen.keys().map(|(_, seq)| *seq).collect();
        let expected: BTreeSet<u32> = expected.collect();
        let is_there = |seq: &u32| if refused.contains(seq) { dead.contains(seq) } else { arrived.contains(seq) };
        Self {
            sent: expected.len() as u64,
            lost: expected.iter().filter(|seq| !is_there(seq)).count() as u64,
            duplicated: seen.values().map(|times| times - 1).sum(),
            out_of_order: Some(out_of_order),
            dead_lettered: dead.len() as u64,
        }
    }

    /// Compares how often each number is in a table with how often it should be there.
    pub fn of_counts(wanted: &BTreeMap<u32, u64>, found: &BTreeMap<u32, u64>) -> Self {
        let times = |counts: &BTreeMap<u32, u64>, seq: &u32| counts.get(seq).copied().unwrap_or(0);
        Self {
            sent: wanted.values().sum(),
            lost: wanted.iter().map(|(seq, count)| count.saturating_sub(times(found, seq))).sum(),
            duplicated: found.iter().map(|(seq, count)| count.saturating_sub(times(wanted, seq))).sum(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(seqs: &[u32]) -> Tally {
        let none = BTreeSet::new();
        Tally::of_arrivals(0..6, &none, &none, seqs.iter().map(|seq| (format!("phone-{}", seq % 2), *seq)))
    }

    fn expect(lost: u64, duplicated: u64, out_of_order: u64) -> Tally {
        Tally { sent: 6, lost, duplicated, out_of_order: Some(out_of_order), dead_lettered: 0 }
    }

    #[test]
    fn a_clean_run_counts_nothing() {
        assert_eq!(arrivals(&[0, 1, 2, 3, 4, 5]), expect(0, 0, 0));
        // Devices overtake each other as they like.
        assert_eq!(arrivals(&[1, 3, 5, 0, 2, 4]), expect(0, 0, 0));
    }

    #[test]
    fn a_missing_message_is_lost_and_one_at_the_end_too() {
        assert_eq!(arrivals(&[0, 1, 3, 4]), expect(2, 0, 0));
        assert_eq!(arrivals(&[]), expect(6, 0, 0));
    }

    #[test]
    fn a_repeated_message_is_a_duplicate_and_not_out_of_order() {
        assert_eq!(arrivals(&[0, 1, 2, 3, 0, 2, 4, 5, 5]), expect(0, 3, 0));
    }

    #[test]
    fn a_message_behind_a_later_one_of_its_device_is_out_of_order() {
        assert_eq!(arrivals(&[0, 4, 2, 1, 3, 5]), expect(0, 0, 1));
        assert_eq!(arrivals(&[4, 2, 0, 5, 3, 1]), expect(0, 0, 4));
    }

    #[test]
    fn a_refused_message_without_its_dead_letter_is_lost() {
        let (refused, dead) = (BTreeSet::from([2, 5]), BTreeSet::from([2]));
        let there = [0, 1, 3, 4].map(|seq| ("phone".to_owned(), seq));
        let tally = Tally::of_arrivals(0..6, &refused, &dead, there.into_iter());
        assert_eq!(tally, Tally { dead_lettered: 1, ..expect(1, 0, 0) });
    }

    #[test]
    fn rows_are_compared_with_what_the_topic_holds() {
        let topic = BTreeMap::from([(0, 1), (1, 2), (2, 1)]);
        assert_eq!(Tally::of_counts(&topic, &topic), Tally { sent: 4, ..Tally::default() });
        let table = BTreeMap::from([(0, 3), (1, 1), (9, 1)]);
        assert_eq!(Tally::of_counts(&topic, &table), Tally { sent: 4, lost: 2, duplicated: 3, ..Tally::default() });
    }
}
