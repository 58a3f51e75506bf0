//! Text, and regular expressions.
use std::{cell::RefCell, collections::HashMap};

use bumpalo::{collections::String as BumpString, collections::Vec as BumpVec};
use regex::{Regex, RegexBuilder};

use super::{Arguments, Function, Group, TEXT_BYTES_MAX, text_of};
use crate::script::value::Value;

pub(super) const ALL: &[Function] = &[
    Function {
        name: "trimmed",
        group: Group::Text,
        signature: "trimmed(text)",
        summary: "The text without white space at both ends.",
        example: "trimmed(\"  a b \")",
        gives: "\"a b\"",
        arguments: 1..=1,
        pure: true,
        run: |values, _| Ok(Value::Text(Arguments { name: "trimmed", values }.text(0)?.trim())),
    },
    Function {
        name: "replaced",
        group: Group::Text,
        signature: "replaced(text, from, to)",
        summary: "The text with `to` in place of every `from`.",
        example: "replaced(\"12,5\", \",\", \".\")",
        gives: "\"12.5\"",
        arguments: 3..=3,
        pure: true,
        run: |values, bump| {
            let arguments = Arguments { name: "replaced", values };
            let (text, from, to) = (arguments.text(0)?, arguments.text(1)?, arguments.text(2)?);
            if from.is_empty() {
                return Err("`replaced` takes a text to look for as argument 2, not an empty one".to_owned());
            }
            let found = text.matches(from).count();
            let size = text.len() - found * from.len() + found.saturating_mul(to.len());
            if size > TEXT_BYTES_MAX {
                return Err(format!("`replaced` would make a text of more than {TEXT_BYTES_MAX} bytes"));
            }
            let mut out = BumpString::with_capacity_in(size, bump);
            for (at, part) in text.split(from).enumerate() {
                if at > 0 {
                    out.push_str(to);
                }
                out.push_str(part);
            }
            Ok(Value::Text(out.into_bump_str()))
        },
    },
    Function {
        name: "before",
        group: Group::Text,
        signature: "before(text, separator)",
        summary: "What stands before the first `separator`; the whole text where there is none.",
        example: "before(\"phone-7/battery\", \"/\")",
        gives: "\"phone-7\"",
        arguments: 2..=2,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "before", values };
            let text = arguments.text(0)?;
            Ok(Value::Text(text.split_once(arguments.text(1)?).map_or(text, |(before, _)| before)))
        },
    },
    Function {
        name: "after",
        group: Group::Text,
        signature: "after(text, separator)",
        summary: "What stands after the first `separator`; an empty text where there is none.",
        example: "after(\"phone-7/battery\", \"/\")",
        gives: "\"battery\"",
        arguments: 2..=2,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "after", values };
            Ok(Value::Text(arguments.text(0)?.split_once(arguments.text(1)?).map_or("", |(_, after)| after)))
        },
    },
    Function {
        name: "padded",
        group: Group::Text,
        signature: "padded(text, length, fill)",
        summary: "The text, filled up at its start with `fill`, one character, to `length` characters.",
        example: "[padded(\"7\", 3, \"0\"), padded(\"1234\", 3, \"0\")]",
        gives: "[\"007\", \"1234\"]",
        arguments: 3..=3,
        pure: true,
        run: |values, bump| {
            let arguments = Arguments { name: "padded", values };
            let text = arguments.text(0)?;
            let length = arguments.count(1, 0..=65_536)?;
            let mut fill = arguments.text(2)?.chars();
            let (Some(fill), None) = (fill.next(), fill.next()) else {
                return Err("`padded` takes one character as argument 3".to_owned());
            };
            let mut out = BumpString::new_in(bump);
            out.extend(std::iter::repeat_n(fill, length.saturating_sub(text.chars().count())));
            out.push_str(text);
            Ok(Value::Text(out.into_bump_str()))
        },
    },
    Function {
        name: "truncated",
        group: Group::Text,
        signature: "truncated(text, length)",
        summary: "The first `length` characters.",
        example: "truncated(\"°Celsius\", 2)",
        gives: "\"°C\"",
        arguments: 2..=2,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "truncated", values };
            let text = arguments.text(0)?;
            let length = arguments.count(1, 0..=i64::MAX)?;
            let end = text.char_indices().nth(length).map_or(text.len(), |(at, _)| at);
            Ok(Value::Text(&text[..end]))
        },
    },
    Function {
        name: "lines",
        group: Group::Text,
        signature: "lines(text)",
        summary: "The list of its lines, without their ends.",
        example: "lines(\"a\\nb\\r\\nc\")",
        gives: "[\"a\", \"b\", \"c\"]",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let mut out = BumpVec::new_in(bump);
            out.extend(Arguments { name: "lines", values }.text(0)?.lines().map(Value::Text));
            Ok(Value::List(out.into_bump_slice()))
        },
    },
    Function {
        name: "joined",
        group: Group::Text,
        signature: "joined(list, separator)",
        summary: "The items of a list as one text; numbers and bools as JSON, `()` as nothing.",
        example: "joined([\"a\", 1, true], \"-\")",
        gives: "\"a-1-true\"",
        arguments: 2..=2,
        pure: true,
        run: |values, bump| {
            let arguments = Arguments { name: "joined", values };
            let separator = arguments.text(1)?;
            let mut out = BumpString::new_in(bump);
            for (at, item) in arguments.list(0)?.iter().enumerate() {
                if at > 0 {
                    out.push_str(separator);
                }
                match item {
                    Value::Unit => {}
                    Value::Text(text) => out.push_str(text),
                    Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Big(_) => {
                        let Value::Text(text) = super::encoding::to_json("joined", *item, bump)? else { continue };
                        out.push_str(text);
                    }
                    other => {
                        return Err(format!(
                            "`joined` takes texts and numbers in its list, not {}",
                            super::kind(*other)
                        ));
                    }
                }
                if out.len() > TEXT_BYTES_MAX {
                    return Err(format!("`joined` would make a text of more than {TEXT_BYTES_MAX} bytes"));
                }
            }
            Ok(Value::Text(out.into_bump_str()))
        },
    },
    Function {
        name: "matches",
        group: Group::Patterns,
        signature: "matches(text, pattern)",
        summary: "Whether the pattern is found in the text. `^` and `$` stand for its ends.",
        example: "[matches(\"phone-007\", `^phone-\\d+$`), matches(\"tablet\", \"phone\")]",
        gives: "[true, false]",
        arguments: 2..=2,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "matches", values };
            let text = arguments.text(0)?;
            pattern(arguments, |regex| Ok(Value::Bool(regex.is_match(text))))
        },
    },
    Function {
        name: "find_match",
        group: Group::Patterns,
        signature: "find_match(text, pattern)",
        summary: "The first part of the text that fits the pattern; `()` where none does.",
        example: "find_match(\"temp: 21.5 °C\", `[0-9.]+`)",
        gives: "\"21.5\"",
        arguments: 2..=2,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "find_match", values };
            let text = arguments.text(0)?;
            pattern(arguments, |regex| Ok(regex.find(text).map_or(Value::Unit, |found| Value::Text(found.as_str()))))
        },
    },
    Function {
        name: "find_all",
        group: Group::Patterns,
        signature: "find_all(text, pattern)",
        summary: "The list of all parts of the text that fit the pattern.",
        example: "find_all(\"a=1, b=22\", `\\d+`)",
        gives: "[\"1\", \"22\"]",
        arguments: 2..=2,
        pure: true,
        run: |values, bump| {
            let arguments = Arguments { name: "find_all", values };
            let text = arguments.text(0)?;
            pattern(arguments, |regex| {
                let mut out = BumpVec::new_in(bump);
                out.extend(regex.find_iter(text).map(|found| Value::Text(found.as_str())));
                Ok(Value::List(out.into_bump_slice()))
            })
        },
    },
    Function {
        name: "captures",
        group: Group::Patterns,
        signature: "captures(text, pattern)",
        summary: "What the pattern's named groups `(?<name>…)` hold, as a map, or its numbered groups, as a list that \
                  starts with the whole; `()` where the pattern is not found.",
        example: "captures(\"phone-007\", `^(?<kind>[a-z]+)-(?<n>\\d+)$`)",
        gives: "{\"kind\": \"phone\", \"n\": \"007\"}",
        arguments: 2..=2,
        pure: true,
        run: |values, bump| {
            let arguments = Arguments { name: "captures", values };
            let text = arguments.text(0)?;
            pattern(arguments, |regex| {
                let Some(captures) = regex.captures(text) else { return Ok(Value::Unit) };
                let value = |found: Option<regex::Match<'_>>| {
                    // The match borrows the text for as long as the text lives.
                    found.map_or(Value::Unit, |found| Value::Text(&text[found.range()]))
                };
                let mut named: BumpVec<'_, (&str, Value<'_>)> = BumpVec::new_in(bump);
                for name in regex.capture_names().flatten() {
                    named.push((bump.alloc_str(name), value(captures.name(name))));
                }
                if !named.is_empty() {
                    named.sort_by(|a, b| a.0.cmp(b.0));
                    return Ok(Value::Map(named.into_bump_slice()));
                }
                let mut out = BumpVec::new_in(bump);
                out.extend(captures.iter().map(value));
                Ok(Value::List(out.into_bump_slice()))
            })
        },
    },
    Function {
        name: "replace_matches",
        group: Group::Patterns,
        signature: "replace_matches(text, pattern, with)",
        summary: "The text with `with` in place of every part that fits the pattern; `$1` and `$name` in it stand for groups.",
        example: "replace_matches(\"2024-05-01\", `(\\d+)-(\\d+)-(\\d+)`, \"$3.$2.$1\")",
        gives: "\"01.05.2024\"",
        arguments: 3..=3,
        pure: true,
        run: |values, bump| {
            let arguments = Arguments { name: "replace_matches", values };
            let (text, with) = (arguments.text(0)?, arguments.text(2)?);
            // Every byte may be a match, and every `$` a group as long as the text: look before it is made.
            if (text.len() + 1).saturating_mul(with.len()) > TEXT_BYTES_MAX || with.matches('$').count() > 64 {
                return Err("`replace_matches` takes shorter texts".to_owned());
            }
            pattern(arguments, |regex| text_of("replace_matches", &regex.replace_all(text, with), bump))
        },
    },
];

/// Most patterns that a thread keeps compiled.
const PATTERNS_MAX: usize = 256;
/// Largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

thread_local! {
    static PATTERNS: RefCell<HashMap<String, Regex>> = RefCell::default();
}

/// Hands over the pattern that is the second argument. Each is compiled once.
fn pattern<'a>(
    arguments: Arguments<'_, 'a>,
    work: impl FnOnce(&Regex) -> Result<Value<'a>, String>,
) -> Result<Value<'a>, String> {
    let source = arguments.text(1)?;
    PATTERNS.with_borrow_mut(|patterns| {
        if let Some(regex) = patterns.get(source) {
            return work(regex);
        }
        let regex = RegexBuilder::new(source).size_limit(PATTERN_BYTES_MAX).build().map_err(|error| {
            // The crate draws a picture of several lines; the last one says what is wrong.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
            format!("`{}` cannot read the pattern `{source}`: {reason}", arguments.name)
        })?;
        if patterns.len() >= PATTERNS_MAX {
            patterns.clear();
        }
        work(patterns.entry(source.to_owned()).or_insert(regex))
    })
}
