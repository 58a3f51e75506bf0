//! Which dead letters are meant.
use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use super::{envelope::Envelope, mark::Id};

/// What a letter must be to be chosen. What is not set fits every letter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// One of these.
    pub ids: Vec<Id>,
    /// The code, or a part of the reason.
    pub reason: Option<String>,
    /// The stage, or what it starts with: `steps`, `outputs.table`.
    pub step: Option<String>,
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// The key of the message.
    pub key: Option<String>,
    /// The topic it was received on.
    pub topic: Option<String>,
}

impl Filter {
    /// True when the letter is chosen.
    pub fn chooses(&self, id: Id, letter: &Envelope) -> bool {
        let is = |wanted: &Option<String>, fits: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(fits);
        let time = time_of(letter);
        (self.ids.is_empty() || self.ids.iter().any(|wanted| wanted.names(id)))
            && is(&self.reason, &|reason| letter.code == reason || letter.reason.contains(reason))
            && is(&self.step, &|step| letter.stage.strip_prefix(step).is_some_and(is_whole))
            && is(&self.topic, &|topic| letter.source.topic.as_deref() == Some(topic))
            && is(&self.key, &|key| letter.source.key().is_some_and(|found| found == key.as_bytes()))
            && self.since.is_none_or(|since| time.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| time.is_some_and(|time| time < until))
    }
}

/// `steps` is a whole name in `steps[0]`, `outputs.t` is none in `outputs.table`.
fn is_whole(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['.', '['])
}

/// When the letter was written.
pub(super) fn time_of(letter: &Envelope) -> Option<Timestamp> {
    letter.time.parse().ok()
}

/// A moment as people write it: `2026-01-31T08:00:00Z`, `2026-01-31` (its beginning in UTC), or `90m`: so long ago.
///
/// # Errors
/// What can be written.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(Ok(day)) = text.parse::<civil::Date>().map(|date| TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0))) {
        return Ok(day);
    }
    let seconds = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)].iter().find_map(|(unit, seconds)| {
        text.strip_suffix(unit)?.parse::<u32>().ok().map(|number| i64::from(number) * seconds)
    });
    let ago = seconds.and_then(|seconds| Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).ok());
    ago.ok_or_else(|| {
        format!("`{text}` is no time; write for example 2026-01-31T08:00:00Z, 2026-01-31, or 90m for 90 minutes ago")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Envelope {
        Envelope::read(
            br#"{"version":1,"pipeline":"p","stage":"outputs.table","code":"column-range","reason":"column `a`: too big","time":"2026-01-31T08:00:00Z","source":{"input":"kafka","topic":"t","key":"k"},"payload":"x"}"#,
        )
        .unwrap()
    }

    #[test]
    fn letters_are_chosen_by_what_they_say() {
        let id = Id { partition: Some(0), offset: 5, digest: 0 };
        let text = |text: &str| Some(text.to_owned());
        let time = |text: &str| Some(moment(text).unwrap());
        let check = |filter: Filter, chosen: bool| assert_eq!(filter.chooses(id, &letter()), chosen, "{filter:?}");
        check(Filter::default(), true);
        check(Filter { ids: vec!["0:5".parse().unwrap()], ..Filter::default() }, true);
        check(Filter { ids: vec!["0:6".parse().unwrap()], ..Filter::default() }, false);
        for (reason, chosen) in [("column-range", true), ("too big", true), ("column-type", false)] {
            check(Filter { reason: text(reason), ..Filter::default() }, chosen);
        }
        for (step, chosen) in [("outputs", true), ("outputs.table", true), ("outputs.t", false), ("steps", false)] {
            check(Filter { step: text(step), ..Filter::default() }, chosen);
        }
        check(Filter { key: text("k"), topic: text("t"), ..Filter::default() }, true);
        check(Filter { key: text("other"), ..Filter::default() }, false);
        check(Filter { since: time("2026-01-31"), until: time("2026-02-01"), ..Filter::default() }, true);
        check(Filter { until: time("2026-01-31T08:00:00Z"), ..Filter::default() }, false);
        check(
            Filter { since: time("90m"), ..Filter::default() },
            letter().time.parse::<Timestamp>().unwrap() > Timestamp::now(),
        );
    }

    #[test]
    fn what_is_no_time_says_what_can_be_written() {
        for wrong in ["", "yesterday", "1y", "-5m", "2026-13-01"] {
            assert!(moment(wrong).unwrap_err().contains("write for example"), "{wrong}");
        }
    }
}
