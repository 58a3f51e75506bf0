//! Time. A moment is a number of Unix milliseconds, unless a function says otherwise.
use jiff::{RoundMode, Timestamp, Unit, ZonedDateTimeRound, civil::DateTime, fmt::strtime, tz::TimeZone};

use super::{Arguments, Function, Group, numbers, text_of};
use crate::script::{clock, value::Value};

pub(super) const ALL: &[Function] = &[
    Function {
        name: "now",
        group: Group::Time,
        signature: "now()",
        summary: "Unix seconds. The same however often one message asks.",
        example: "now()",
        gives: "",
        arguments: 0..=0,
        pure: false,
        run: |_, _| Ok(Value::Int(clock::now_ms().div_euclid(1000))),
    },
    Function {
        name: "now_ms",
        group: Group::Time,
        signature: "now_ms()",
        summary: "Unix milliseconds. The same however often one message asks.",
        example: "now_ms()",
        gives: "",
        arguments: 0..=0,
        pure: false,
        run: |_, _| Ok(Value::Int(clock::now_ms())),
    },
    Function {
        name: "parse_ts",
        group: Group::Time,
        signature: "parse_ts(x, format?, zone?)",
        summary: "The moment that `x` says, in Unix milliseconds. Without a format: a text as in RFC 3339, without an offset \
                  in UTC; or a number, of seconds, milliseconds, microseconds or nanoseconds, told by its size (seconds up to \
                  the year 5138). A format is one of strptime, like `%d.%m.%Y %H:%M`, or the unit of a number: `s`, `ms`, \
                  `us`, `ns`. `zone` is where a text without an offset is from, like `Europe/Berlin`. What cannot be read \
                  is an error.",
        example: "[parse_ts(\"2024-05-01T10:00:00.5Z\"), parse_ts(1714557600), parse_ts(\"01.05.2024 12:00\", \"%d.%m.%Y %H:%M\", \"Europe/Berlin\")]",
        gives: "[1714557600500, 1714557600000, 1714557600000]",
        arguments: 1..=3,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "parse_ts", values };
            let format = arguments.text_or(1, "")?;
            let zone = zone(arguments, 2)?;
            let value = match (values[0], format) {
                (Value::Text(text), "" | "s" | "ms" | "us" | "ns") => match numbers::number(values[0]) {
                    Some(number) => number,
                    None if format.is_empty() => return moment(text, &zone).map(millis),
                    None => return arguments.refuse(0, "a number, or a text that spells one,"),
                },
                (Value::Text(text), format) => return formatted(text, format, &zone).map(millis),
                (value, _) => value,
            };
            let Some(number) = numbers::as_float(value) else { return arguments.refuse(0, "a text or a number") };
            let per_second = match (format, number.abs()) {
                ("s", _) => 1.0,
                ("ms", _) => 1e3,
                ("us", _) => 1e6,
                ("ns", _) => 1e9,
                ("", size) if size < 1e11 => 1.0,
                ("", size) if size < 1e14 => 1e3,
                ("", size) if size < 1e17 => 1e6,
                ("", _) => 1e9,
                _ => return arguments.refuse(0, "a text where there is a format"),
            };
            // A whole number stays exact.
            let ms = match value {
                Value::Int(number) if per_second >= 1e3 => (number as i128) * 1000 / (per_second as i128),
                Value::Int(number) => (number as i128) * 1000,
                _ => (number * 1000.0 / per_second).round() as i128,
            };
            let ms = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
            ms.map(millis).ok_or_else(|| format!("`parse_ts` takes moments of the years -9999 to 9999, not {number}"))
        },
    },
    Function {
        name: "format_ts",
        group: Group::Time,
        signature: "format_ts(ms, format?, zone?)",
        summary: "A moment as text. Without a format as in RFC 3339 with milliseconds; a format is one of strftime. `zone`: \
                  `UTC` unless given.",
        example: "[format_ts(1714557600500), format_ts(1714557600500, \"%Y-%m-%d %H:%M\", \"Europe/Berlin\")]",
        gives: "[\"2024-05-01T10:00:00.500Z\", \"2024-05-01 12:00\"]",
        arguments: 1..=3,
        pure: true,
        run: |values, bump| {
            let arguments = Arguments { name: "format_ts", values };
            let at = timestamp(arguments)?;
            let (format, zone_given) = (arguments.text_or(1, "")?, values.len() > 2);
            if format.is_empty() && !zone_given {
                return text_of("format_ts", &format!("{at:.3}"), bump);
            }
            let format = if format.is_empty() { "%Y-%m-%dT%H:%M:%S.%3f%:z" } else { format };
            if format.len() > FORMAT_BYTES_MAX {
                return Err(format!("`format_ts` takes a format of at most {FORMAT_BYTES_MAX} bytes"));
            }
            let zoned = at.to_zoned_datetime(zone(arguments, 2)?);
            let text = strtime::format(format, &zoned)
                .map_err(|error| format!("`format_ts` cannot write with the format `{format}`: {error}"))?;
            text_of("format_ts", &text, bump)
        },
    },
    Function {
        name: "start_of",
        group: Group::Time,
        signature: "start_of(ms, unit, zone?)",
        summary: "The start of the `second`, `minute`, `hour`, `day`, `month` or `year` that a moment is in.",
        example: "format_ts(start_of(1714557645500, \"hour\"))",
        gives: "\"2024-05-01T10:00:00.000Z\"",
        arguments: 2..=3,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "start_of", values };
            let zoned = timestamp(arguments)?.to_zoned_datetime(zone(arguments, 2)?);
            let unit = arguments.text(1)?;
            let truncate = |unit| zoned.round(ZonedDateTimeRound::new().smallest(unit).mode(RoundMode::Floor));
            let start = match unit {
                "second" => truncate(Unit::Second),
                "minute" => truncate(Unit::Minute),
                "hour" => truncate(Unit::Hour),
                "day" => zoned.start_of_day(),
                "month" => zoned.first_of_month().and_then(|first| first.start_of_day()),
                "year" => zoned.first_of_year().and_then(|first| first.start_of_day()),
                other => {
                    return Err(format!(
                        "`start_of` takes `second`, `minute`, `hour`, `day`, `month` or `year`, not `{other}`"
                    ));
                }
            };
            start.map(|start| millis(start.timestamp())).map_err(|error| format!("`start_of` cannot go there: {error}"))
        },
    },
];

/// Longest format, in bytes.
const FORMAT_BYTES_MAX: usize = 1024;

fn millis<'a>(at: Timestamp) -> Value<'a> {
    Value::Int(at.as_millisecond())
}

/// The first argument, a moment.
fn timestamp(arguments: Arguments<'_, '_>) -> Result<Timestamp, String> {
    let ms = arguments.int(0)?;
    Timestamp::from_millisecond(ms).map_err(|_| {
        format!("`{}` takes moments of the years -9999 to 9999, in milliseconds, not {ms}", arguments.name)
    })
}

fn zone(arguments: Arguments<'_, '_>, at: usize) -> Result<TimeZone, String> {
    match arguments.text_or(at, "UTC")? {
        "UTC" => Ok(TimeZone::UTC),
        name => TimeZone::get(name)
            .map_err(|_| format!("`{}` knows no time zone `{name}`; write one like `Europe/Berlin`", arguments.name)),
    }
}

/// A text as in RFC 3339, or without an offset.
fn moment(text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    let text = text.trim();
    let here = |at: DateTime| zone.to_timestamp(at);
    text.parse::<Timestamp>().or_else(|_| text.parse::<DateTime>().and_then(here)).map_err(|_| {
        let shown: String = text.chars().take(60).collect();
        format!("`parse_ts` cannot read `{shown}`; write a moment like `2024-05-01T10:00:00Z`, or give a format")
    })
}

fn formatted(text: &str, format: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    let shown: String = text.chars().take(60).collect();
    let fail = |error: jiff::Error| format!("`parse_ts` cannot read `{shown}` with the format `{format}`: {error}");
    let parts = strtime::parse(format, text).map_err(fail)?;
    if parts.offset().is_some() || parts.iana_time_zone().is_some() {
        return parts.to_timestamp().map_err(fail);
    }
    // A date without a time is its midnight; `%s` has neither.
    match parts.to_timestamp() {
        Ok(at) => Ok(at),
        Err(_) => {
            let at = parts.to_datetime().or_else(|_| parts.to_date().map(|date| date.at(0, 0, 0, 0))).map_err(fail)?;
            zone.to_timestamp(at).map_err(fail)
        }
    }
}
