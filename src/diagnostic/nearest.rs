//! "Did you mean …?"

/// The candidate that `word` was most likely meant to be, if any is near enough to be worth a guess.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            // Swapped and missing letters first; a shared beginning (`topic` for `topics_filter`) second.
            let edits = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
            let likeness = strsim::jaro_winkler(&lower, &candidate.to_lowercase());
            (edits, likeness, candidate)
        })
        .filter(|(edits, likeness, candidate)| *edits * 3 <= candidate.chars().count().max(3) || *likeness > 0.87)
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, _, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_recognised_and_strangers_are_not() {
        let names = ["keep_alive_s", "qos", "topics", "url", "mqtt", "kafka"];
        for (word, expected) in [
            ("topic", Some("topics")),
            ("tpoics", Some("topics")),
            ("mqqt", Some("mqtt")),
            ("MQTT", Some("mqtt")),
            ("keepalive_s", Some("keep_alive_s")),
            ("qo", Some("qos")),
            ("password", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
    }
}
