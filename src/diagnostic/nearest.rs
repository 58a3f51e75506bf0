//! "Did you mean …?"

/// The candidate that `word` was most likely meant to be, if any is near enough to be worth a guess. Another number is
/// another thing: `sha-1` is no misspelt `sha-512`.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let number = digits(word);
    candidates
        .into_iter()
        .filter(|candidate| digits(candidate) == number)
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
        let mechanisms = ["plain", "scram-sha-256", "scram-sha-512"];
        for (word, expected) in [
            ("SCRAM-SHA-1", None),
            ("SCRAM_SHA_256", Some("scram-sha-256")),
            ("scram-sha512", Some("scram-sha-512")),
            ("scram", None),
        ] {
            assert_eq!(nearest(word, mechanisms), expected, "{word}");
        }
    }
}
