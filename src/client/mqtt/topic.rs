//! Topics and topic filters (MQTT 5, 4.7), and names for their levels.

/// Longest topic or filter, in bytes: the protocol has two bytes for it.
const TEXT_BYTES_MAX: usize = 65_535;

/// A topic filter as the user wrote it: `devices/{device}/telemetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What is sent to the broker: `devices/+/telemetry`.
    pub wire: String,
    /// Names of levels of the topic, counted from 0.
    pub captures: Vec<(String, usize)>,
    levels: Vec<Level>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Text(String),
    One,
    Rest,
}

impl Filter {
    /// Reads a filter. A level `{name}` stands for `+` and gives what it matches a name.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a topic filter cannot be empty".to_owned());
        }
        if text.contains('\0') {
            return Err("a topic filter cannot contain the character U+0000".to_owned());
        }
        // A shared subscription: the two first levels are not part of the topic.
        let (prefix, topic) = match text.strip_prefix("$share/") {
            Some(rest) => match rest.split_once('/') {
                Some((group, topic)) if !group.is_empty() && !topic.is_empty() && !group.contains(['+', '#', '{']) => {
                    (format!("$share/{group}/"), topic)
                }
                _ => return Err(format!("`{text}` lacks its group or its filter: `$share/GROUP/FILTER`")),
            },
            None => (String::new(), text),
        };
        let mut filter = Self { wire: prefix, captures: Vec::new(), levels: Vec::new() };
        let last = topic.split('/').count() - 1;
        for (index, level) in topic.split('/').enumerate() {
            if index > 0 {
                filter.wire.push('/');
            }
            let parsed = match level {
                "+" => Level::One,
                "#" if index == last => Level::Rest,
                "#" => return Err("`#` stands for all further levels, so it must be the last one".to_owned()),
                _ if level.starts_with('{') && level.ends_with('}') => {
                    let name = &level[1..level.len() - 1];
                    if !is_name(name) {
                        return Err(format!(
                            "`{name}` is no name: use letters, digits and `_`, not starting with a digit"
                        ));
                    }
                    if filter.captures.iter().any(|(other, _)| other == name) {
                        return Err(format!("two levels are named `{name}`"));
                    }
                    filter.captures.push((name.to_owned(), index));
                    Level::One
                }
                _ if level.contains(['+', '#']) => {
                    return Err(format!("a wildcard must be a whole level, not a part of `{level}`"));
                }
                _ if level.contains(['{', '}']) => {
                    return Err(format!("a name must be a whole level, not a part of `{level}`"));
                }
                _ => Level::Text(level.to_owned()),
            };
            filter.wire.push_str(match &parsed {
                Level::Text(text) => text,
                Level::One => "+",
                Level::Rest => "#",
            });
            filter.levels.push(parsed);
        }
        if filter.wire.len() > TEXT_BYTES_MAX {
            return Err(format!("a topic filter has at most {TEXT_BYTES_MAX} bytes"));
        }
        Ok(filter)
    }

    /// True when some topic comes through both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let dollar = |filter: &Self| matches!(filter.levels.first(), Some(Level::Text(text)) if text.starts_with('$'));
        let wild = |filter: &Self| !matches!(filter.levels.first(), Some(Level::Text(_)));
        // Wildcards leave out what the broker says of itself.
        if dollar(self) && wild(other) || dollar(other) && wild(self) {
            return false;
        }
        let (mut one, mut two) = (self.levels.iter(), other.levels.iter());
        loop {
            match (one.next(), two.next()) {
                (None, None) | (Some(Level::Rest), _) | (_, Some(Level::Rest)) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(Level::Text(a)), Some(Level::Text(b))) if a != b => return false,
                _ => {}
            }
        }
    }

    /// True for a subscription that several clients share.
    pub fn is_shared(&self) -> bool {
        self.wire.starts_with("$share/")
    }

    /// True when messages of `topic` come through this filter.
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Text(_))) {
            return false;
        }
        let mut topic = topic.split('/');
        for level in &self.levels {
            match (level, topic.next()) {
                // `a/#` matches `a` too.
                (Level::Rest, _) => return true,
                (Level::One, Some(_)) => {}
                (Level::Text(text), Some(have)) if text == have => {}
                _ => return false,
            }
        }
        topic.next().is_none()
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Checks a topic to publish to.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_topic(topic: &[u8]) -> Result<&str, &'static str> {
    let text = simdutf8::basic::from_utf8(topic).map_err(|_| "is not UTF-8")?;
    if text.is_empty() {
        return Err("is empty");
    }
    if topic.len() > TEXT_BYTES_MAX {
        return Err("is longer than 65535 bytes");
    }
    match memchr::memchr3(b'+', b'#', 0, topic) {
        None => Ok(text),
        Some(at) if topic[at] == 0 => Err("contains the character U+0000"),
        Some(_) => Err("contains a wildcard, `+` or `#`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_levels_are_sent_as_wildcards() {
        for (text, wire, captures) in [
            ("devices/{device}/telemetry", "devices/+/telemetry", vec![("device", 1)]),
            ("{site}/{dev}/#", "+/+/#", vec![("site", 0), ("dev", 1)]),
            ("$share/g/devices/{device}", "$share/g/devices/+", vec![("device", 1)]),
            ("/a//{x}", "/a//+", vec![("x", 3)]),
            ("#", "#", vec![]),
            ("$SYS/broker/#", "$SYS/broker/#", vec![]),
        ] {
            let filter = Filter::parse(text).unwrap();
            assert_eq!(filter.wire, wire);
            assert_eq!(filter.captures, captures.into_iter().map(|(n, l)| (n.to_owned(), l)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn bad_filters_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", "a topic filter cannot be empty"),
            ("a/#/b", "`#` stands for all further levels, so it must be the last one"),
            ("a/b+", "a wildcard must be a whole level, not a part of `b+`"),
            ("a/x{b}", "a name must be a whole level, not a part of `x{b}`"),
            ("a/{b", "a name must be a whole level, not a part of `{b`"),
            ("{a}/{a}", "two levels are named `a`"),
            ("a/{}", "`` is no name: use letters, digits and `_`, not starting with a digit"),
            ("$share/x", "`$share/x` lacks its group or its filter: `$share/GROUP/FILTER`"),
        ] {
            assert_eq!(Filter::parse(text).unwrap_err(), reason);
        }
        assert!(Filter::parse(&"x".repeat(65_536)).is_err());
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("+", "/finance", false),
            ("/+", "/finance", true),
            ("#", "$SYS/monitor", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("a/B", "a/b", false),
            ("devices/{d}/t", "devices/°C/t", true),
            ("$share/g/a/+", "a/b", true),
        ] {
            assert_eq!(Filter::parse(filter).unwrap().matches(topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn topics_to_publish_to_are_checked() {
        assert_eq!(check_topic("a/°C".as_bytes()), Ok("a/°C"));
        for (topic, reason) in [
            (&b""[..], "is empty"),
            (b"a/+", "contains a wildcard, `+` or `#`"),
            (b"a/#", "contains a wildcard, `+` or `#`"),
            (b"a\0", "contains the character U+0000"),
            (b"\xff", "is not UTF-8"),
            (&[b'x'; 65_536], "is longer than 65535 bytes"),
        ] {
            assert_eq!(check_topic(topic), Err(reason));
        }
    }
}
