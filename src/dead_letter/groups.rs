//! Dead letters of one kind, as one: a thousand letters for one reason are one thing to repair.
use jiff::Timestamp;

use super::{envelope::Envelope, mark::Id};

/// Letters that failed in the same stage for the same kind of reason.
#[derive(Clone, Debug)]
pub struct Group {
    pub stage: String,
    pub code: String,
    pub place: Option<String>,
    /// The reason without the values of single messages.
    pub kind: String,
    /// Start of the stretch of time, where they are grouped by time, too.
    pub from: Option<Timestamp>,
    pub open: u64,
    pub redriven: u64,
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
    /// The latest of them.
    pub example: Id,
    pub reason: String,
}

/// What tells groups apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    stage: String,
    code: String,
    kind: String,
    from: Option<Timestamp>,
}

impl Kind {
    pub(super) fn of(letter: &Envelope, from: Option<Timestamp>) -> Self {
        let kind = kind_of(&letter.reason);
        Self { stage: letter.stage.clone(), code: letter.code.clone(), kind, from }
    }

    /// A group without a letter yet.
    pub(super) fn group(&self, id: Id) -> Group {
        let Self { stage, code, kind, from } = self.clone();
        let (place, first, last, reason) = (None, None, None, String::new());
        Group { stage, code, place, kind, from, open: 0, redriven: 0, first, last, example: id, reason }
    }
}

impl Group {
    /// Takes account of a letter; whether it is open is counted later.
    pub(super) fn add(&mut self, id: Id, letter: &Envelope, time: Option<Timestamp>) {
        self.first = self.first.into_iter().chain(time).min();
        if self.reason.is_empty() || time >= self.last {
            (self.example, self.reason, self.place) = (id, letter.reason.clone(), letter.place.clone());
        }
        self.last = self.last.into_iter().chain(time).max();
    }
}

/// A reason without what differs by message: numbers, and quoted words but the first, which names a column or a field.
fn kind_of(reason: &str) -> String {
    let mut kind = String::with_capacity(reason.len());
    for (index, part) in reason.chars().take(500).collect::<String>().split('`').enumerate() {
        if index > 0 {
            kind.push('`');
        }
        match index {
            1 => kind.push_str(part),
            quoted if quoted % 2 == 1 => kind.push('…'),
            _ => {
                let mut before = ' ';
                for c in part.chars() {
                    // `UInt8` keeps its digit.
                    let is_number = c.is_ascii_digit() && !before.is_alphabetic();
                    if !is_number {
                        kind.push(c);
                    } else if !kind.ends_with('#') {
                        kind.push('#');
                    }
                    if !(c.is_ascii_digit() && before.is_alphabetic()) {
                        before = c;
                    }
                }
            }
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_a_kind_are_one() {
        for (reason, kind) in [
            (
                "column `battery` (UInt8): `300` is out of range, 0 to 255",
                "column `battery` (UInt8): `…` is out of range, # to #",
            ),
            ("line 17: expected 12.50, found °C", "line #: expected #.#, found °C"),
            ("", ""),
        ] {
            assert_eq!(kind_of(reason), kind);
        }
    }
}
