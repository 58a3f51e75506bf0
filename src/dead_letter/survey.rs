//! One reading of a store: what lies there, in groups, and which letters are open.
use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;

use super::{
    envelope::Envelope,
    found::{Found, StoreError},
    groups::{Group, Kind},
    mark::Id,
    select::{Filter, time_of},
    store::Store,
};

/// Most groups; letters past them are counted with the last one.
const GROUPS_MAX: usize = 10_000;
/// Things that are no letters, remembered by their reasons.
const FOREIGN_MAX: usize = 5;

/// What lies in a store.
#[derive(Debug, Default)]
pub struct Survey {
    /// The chosen letters of the pipeline.
    pub letters: Vec<Entry>,
    /// Their groups: the largest number of open letters first.
    pub groups: Vec<Group>,
    /// Letters of other pipelines.
    pub others: BTreeMap<String, u64>,
    /// What is no letter: how much, and why for the first.
    pub foreign: u64,
    pub foreign_reasons: Vec<(Id, String)>,
}

/// One chosen letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: Id,
    pub redrives: u32,
    pub is_redriven: bool,
    group: u32,
}

impl Survey {
    /// The stage in which a letter failed.
    pub fn stage(&self, entry: &Entry) -> &str {
        &self.groups[entry.group as usize].stage
    }

    /// The letters that were not redriven yet.
    pub fn open(&self) -> impl Iterator<Item = &Entry> {
        self.letters.iter().filter(|entry| !entry.is_redriven)
    }
}

/// Reads `store` once: the letters of `pipeline` that `filter` chooses. `stretch` groups by time, too, in seconds. `seen` is
/// told of every thing read.
///
/// # Errors
/// The store cannot be read.
pub fn survey(
    store: &Store,
    pipeline: &str,
    filter: &Filter,
    stretch: Option<i64>,
    seen: &mut dyn FnMut(),
) -> Result<Survey, StoreError> {
    let mut survey = Survey::default();
    let mut marked = HashSet::new();
    let mut numbers: HashMap<Kind, u32> = HashMap::new();
    for found in store.open()? {
        seen();
        match found? {
            Found::Mark(ids) => marked.extend(ids),
            Found::Foreign(id, why) => {
                survey.foreign += 1;
                if survey.foreign_reasons.len() < FOREIGN_MAX {
                    survey.foreign_reasons.push((id, why));
                }
            }
            Found::Letter(letter) if letter.envelope.pipeline != pipeline => {
                *survey.others.entry(letter.envelope.pipeline).or_default() += 1;
            }
            Found::Letter(letter) if filter.chooses(letter.id, &letter.envelope) => {
                survey.add(letter.id, &letter.envelope, stretch, &mut numbers);
            }
            Found::Letter(_) => {}
        }
    }
    for entry in &mut survey.letters {
        entry.is_redriven = marked.contains(&entry.id);
        let group = &mut survey.groups[entry.group as usize];
        *(if entry.is_redriven { &mut group.redriven } else { &mut group.open }) += 1;
    }
    // In a topic the partitions come as they come.
    survey.letters.sort_by_key(|entry| entry.id);
    survey.sort_groups();
    Ok(survey)
}

impl Survey {
    /// By time, then the largest number of open letters first.
    fn sort_groups(&mut self) {
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        order.sort_by_key(|&index| {
            let group = &self.groups[index];
            (group.from, std::cmp::Reverse((group.open, group.redriven)))
        });
        let mut numbers = vec![0; order.len()];
        for (number, &index) in order.iter().enumerate() {
            numbers[index] = number as u32;
        }
        self.groups = order.iter().map(|&index| self.groups[index].clone()).collect();
        self.letters.iter_mut().for_each(|entry| entry.group = numbers[entry.group as usize]);
    }

    fn add(&mut self, id: Id, letter: &Envelope, stretch: Option<i64>, numbers: &mut HashMap<Kind, u32>) {
        let time = time_of(letter);
        let from = stretch
            .zip(time)
            .and_then(|(stretch, time)| Timestamp::from_second(time.as_second().div_euclid(stretch) * stretch).ok());
        let kind = Kind::of(letter, from);
        let group = match numbers.get(&kind) {
            Some(number) => *number,
            None if self.groups.len() < GROUPS_MAX => {
                self.groups.push(kind.group(id));
                numbers.insert(kind, self.groups.len() as u32 - 1);
                self.groups.len() as u32 - 1
            }
            None => GROUPS_MAX as u32 - 1,
        };
        self.groups[group as usize].add(id, letter, time);
        self.letters.push(Entry { id, redrives: letter.redrives, is_redriven: false, group });
    }
}
