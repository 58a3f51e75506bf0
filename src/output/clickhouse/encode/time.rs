//! Dates and times: Unix numbers, `2024-05-01 10:00:00`, ISO 8601 with or without an offset.
//!
//! A time that is finer than its column's tick falls into that tick. A text without an offset is in the column's time
//! zone, else the server's; only UTC is taken then, for guessing a zone's rules shifts data by hours unseen.
use super::number::{Number, NumberError};

/// Why a value is no point in time for a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeError {
    /// Neither a number nor a date in a known form.
    Form,
    /// Outside what the column can hold.
    Range,
    /// A text without an offset, for a column whose time zone is not UTC.
    NoOffset,
}

impl From<NumberError> for TimeError {
    fn from(_: NumberError) -> Self {
        Self::Range
    }
}

const DAY_SECONDS: i64 = 86_400;
/// The server takes a whole number past this for ticks, below for seconds: year 2284, the same rule as its own texts.
const TICKS_FROM: i128 = 9_908_870_400;
/// 1900-01-01 and 2299-12-31, the ends of `Date32` and `DateTime64`, in days since 1970.
const DATE32: std::ops::RangeInclusive<i64> = -25_567..=120_529;
/// 999:59:59, the end of `Time`.
const TIME_SECONDS_MAX: i64 = 999 * 3_600 + 59 * 60 + 59;

/// Days since 1970 for a `Date`. A number below 65,536 counts days, else seconds, as with the server's `toDate`.
pub fn date(text: &str) -> Result<u16, TimeError> {
    let days = match Number::parse(text) {
        Some(number) => {
            let value = number.floor(0)?;
            if value < 65_536 { value } else { value.div_euclid(DAY_SECONDS.into()) }
        }
        None => Stamp::parse(text).ok_or(TimeError::Form)?.days.into(),
    };
    u16::try_from(days).map_err(|_| TimeError::Range)
}

/// Days since 1970 for a `Date32`. A number in its range counts days, else seconds.
pub fn date32(text: &str) -> Result<i32, TimeError> {
    let days = match Number::parse(text) {
        Some(number) => {
            let value = i64::try_from(number.floor(0)?).map_err(|_| TimeError::Range)?;
            if DATE32.contains(&value) { value } else { value.div_euclid(DAY_SECONDS) }
        }
        None => Stamp::parse(text).ok_or(TimeError::Form)?.days,
    };
    if DATE32.contains(&days) { Ok(days as i32) } else { Err(TimeError::Range) }
}

/// Seconds since 1970 for a `DateTime`.
pub fn date_time(text: &str, zone: Option<&str>) -> Result<u32, TimeError> {
    let seconds = match Number::parse(text) {
        Some(number) => number.floor(0)?,
        None => Stamp::parse(text).ok_or(TimeError::Form)?.seconds(zone)?.into(),
    };
    u32::try_from(seconds).map_err(|_| TimeError::Range)
}

/// Ticks of 10⁻ⁿ seconds since 1970 for a `DateTime64`. A number with a point counts seconds; a whole one counts seconds
/// up to the year 2283 and ticks from there on.
pub fn date_time64(text: &str, digits: u8, zone: Option<&str>) -> Result<i64, TimeError> {
    let tick = 10_i128.pow(digits.into());
    let ticks = match Number::parse(text) {
        Some(number) if number.is_whole => {
            let value = number.floor(0)?;
            if value.abs() < TICKS_FROM { value * tick } else { value }
        }
        Some(number) => number.floor(digits)?,
        None => {
            let stamp = Stamp::parse(text).ok_or(TimeError::Form)?;
            i128::from(stamp.seconds(zone)?) * tick + i128::from(stamp.nanos) * tick / 1_000_000_000
        }
    };
    let days = ticks.div_euclid(tick).div_euclid(DAY_SECONDS.into());
    if !DATE32.contains(&i64::try_from(days).unwrap_or(i64::MAX)) {
        return Err(TimeError::Range);
    }
    i64::try_from(ticks).map_err(|_| TimeError::Range)
}

/// Ticks of 10⁻ⁿ seconds for a `Time` (`digits` 0) or `Time64`: a number of seconds, or `[-]hours:mm[:ss[.fraction]]`.
pub fn time_of_day(text: &str, digits: u8) -> Result<i64, TimeError> {
    let tick = 10_i128.pow(digits.into());
    let ticks = match Number::parse(text) {
        Some(number) => number.floor(digits)?,
        None => {
            let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
            let mut scan = Scan(rest.as_bytes());
            let hours_len = scan.0.iter().take_while(|b| b.is_ascii_digit()).count();
            let hours = (1..=3).contains(&hours_len).then(|| scan.digits(hours_len)).flatten();
            let (minutes, seconds, nanos) = scan.minutes_and_on().ok_or(TimeError::Form)?;
            let seconds = hours.ok_or(TimeError::Form)? * 3_600 + minutes * 60 + seconds;
            if !scan.0.is_empty() {
                return Err(TimeError::Form);
            }
            let ticks = i128::from(seconds) * tick + i128::from(nanos) * tick / 1_000_000_000;
            if negative { -ticks } else { ticks }
        }
    };
    let end = i128::from(TIME_SECONDS_MAX + 1) * tick;
    if ticks.abs() < end { i64::try_from(ticks).map_err(|_| TimeError::Range) } else { Err(TimeError::Range) }
}

/// A date, a time and an offset as written.
#[derive(Debug, PartialEq)]
struct Stamp {
    /// Since 1970, in the writer's own calendar.
    days: i64,
    second_of_day: i64,
    nanos: i64,
    offset_seconds: Option<i64>,
}

impl Stamp {
    /// `YYYY-MM-DD`, then optionally `T` or a space and `hh:mm[:ss[.fraction]]`, then optionally `Z` or `±hh[[:]mm]`.
    fn parse(text: &str) -> Option<Self> {
        let mut scan = Scan(text.as_bytes());
        let year = scan.digits(4)?;
        scan.byte(b"-")?;
        let month = scan.digits(2)?;
        scan.byte(b"-")?;
        let day = scan.digits(2)?;
        if !(1..=12).contains(&month) || !(1..=days_of_month(year, month)).contains(&day) {
            return None;
        }
        let mut stamp =
            Self { days: days_since_1970(year, month, day), second_of_day: 0, nanos: 0, offset_seconds: None };
        if scan.0.is_empty() {
            return Some(stamp);
        }
        scan.byte(b"Tt ")?;
        let hour = scan.digits(2).filter(|&h| h < 24)?;
        let (minute, second, nanos) = scan.minutes_and_on()?;
        stamp.second_of_day = hour * 3_600 + minute * 60 + second;
        stamp.nanos = nanos;
        if scan.byte(b"Zz").is_some() {
            stamp.offset_seconds = Some(0);
        } else if let Some(sign) = scan.byte(b"+-") {
            let hours = scan.digits(2).filter(|&h| h < 24)?;
            let minutes = if scan.0.is_empty() {
                0
            } else {
                let _ = scan.byte(b":");
                scan.digits(2).filter(|&m| m < 60)?
            };
            let seconds = hours * 3_600 + minutes * 60;
            stamp.offset_seconds = Some(if sign == b'-' { -seconds } else { seconds });
        }
        scan.0.is_empty().then_some(stamp)
    }

    /// Since 1970 in UTC.
    fn seconds(&self, zone: Option<&str>) -> Result<i64, TimeError> {
        let offset = match self.offset_seconds {
            Some(offset) => offset,
            None if zone.is_none_or(is_utc) => 0,
            None => return Err(TimeError::NoOffset),
        };
        Ok(self.days * DAY_SECONDS + self.second_of_day - offset)
    }
}

fn is_utc(zone: &str) -> bool {
    matches!(
        zone.strip_prefix("Etc/").unwrap_or(zone),
        "UTC" | "UCT" | "GMT" | "GMT0" | "Universal" | "Zulu" | "Greenwich"
    )
}

struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits.iter().try_fold(0, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
    }

    fn byte(&mut self, any_of: &[u8]) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        any_of.contains(&first).then(|| {
            self.0 = rest;
            first
        })
    }

    /// `:mm[:ss[.fraction]]` as minutes, seconds, nanoseconds.
    fn minutes_and_on(&mut self) -> Option<(i64, i64, i64)> {
        self.byte(b":")?;
        let minutes = self.digits(2).filter(|&m| m < 60)?;
        let (mut seconds, mut nanos) = (0, 0);
        if self.byte(b":").is_some() {
            seconds = self.digits(2).filter(|&s| s < 60)?;
            if self.byte(b".,").is_some() {
                let len = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
                if len == 0 {
                    return None;
                }
                let kept = len.min(9);
                nanos = self.digits(kept)? * 10_i64.pow(9 - kept as u32);
                self.0 = &self.0[len - kept..];
            }
        }
        Some((minutes, seconds, nanos))
    }
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the Gregorian calendar, counted in years that start in March, so that the leap day is the last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::{TimeError::*, *};

    #[test]
    fn dates() {
        let table = [
            ("1970-01-01", Ok(0)),
            ("2149-06-06", Ok(65_535)),
            ("2149-06-07", Err(Range)),
            ("1969-12-31", Err(Range)),
            ("2024-02-29", Ok(19_782)),
            ("2023-02-29", Err(Form)),
            ("2024-05-01T23:30:00-05:00", Ok(19_844)),
            ("19844", Ok(19_844)),
            ("1714564800", Ok(19_844)),
            ("2024-5-1", Err(Form)),
            ("01.05.2024", Err(Form)),
            ("-1", Err(Range)),
        ];
        for (text, expected) in table {
            assert_eq!(date(text), expected, "{text}");
        }
        let table = [
            ("1900-01-01", Ok(-25_567)),
            ("1899-12-31", Err(Range)),
            ("2299-12-31", Ok(120_529)),
            ("2300-01-01", Err(Range)),
            ("-25567", Ok(-25_567)),
            ("1714564800", Ok(19_844)),
        ];
        for (text, expected) in table {
            assert_eq!(date32(text), expected, "{text}");
        }
    }

    #[test]
    fn date_times() {
        let table = [
            ("0", Ok(0)),
            ("4294967295", Ok(u32::MAX)),
            ("4294967296", Err(Range)),
            ("-1", Err(Range)),
            ("1714557600.9", Ok(1_714_557_600)),
            ("1714557600000", Err(Range)),
            ("2024-05-01 10:00:00", Ok(1_714_557_600)),
            ("2024-05-01T10:00:00.999Z", Ok(1_714_557_600)),
            ("2024-05-01T12:00:00+02:00", Ok(1_714_557_600)),
            ("2024-05-01T12:00:00+0200", Ok(1_714_557_600)),
            ("2024-05-01T05:30-04:30", Ok(1_714_557_600)),
            ("2024-05-01T12:00+02", Ok(1_714_557_600)),
            ("2024-05-01", Ok(1_714_521_600)),
            ("2024-05-01T24:00:00", Err(Form)),
            ("2024-05-01T10:00:60", Err(Form)),
            ("2024-05-01T10", Err(Form)),
            ("2024-05-01 10:00:00 ", Err(Form)),
            ("now", Err(Form)),
            ("", Err(Form)),
        ];
        for (text, expected) in table {
            assert_eq!(date_time(text, Some("Etc/UTC")), expected, "{text}");
        }
        assert_eq!(date_time("2024-05-01 10:00:00", Some("Europe/Berlin")), Err(NoOffset));
        assert_eq!(date_time("2024-05-01 10:00:00Z", Some("Europe/Berlin")), Ok(1_714_557_600));
        assert_eq!(date_time("1714557600", Some("Europe/Berlin")), Ok(1_714_557_600));
    }

    #[test]
    fn date_times_with_ticks() {
        let table = [
            ("1714557600", 3, Ok(1_714_557_600_000)),
            ("1714557600123", 3, Ok(1_714_557_600_123)),
            ("1714557600.1239", 3, Ok(1_714_557_600_123)),
            ("2024-05-01T10:00:00.123456789Z", 9, Ok(1_714_557_600_123_456_789)),
            ("2024-05-01T10:00:00.1234567891234Z", 6, Ok(1_714_557_600_123_456)),
            ("1969-12-31T23:59:59.5Z", 3, Ok(-500)),
            ("-0.5", 3, Ok(-500)),
            ("1900-01-01T00:00:00Z", 3, Ok(-2_208_988_800_000)),
            ("1899-12-31T23:59:59Z", 3, Err(Range)),
            ("2299-12-31T23:59:59.999Z", 3, Ok(10_413_791_999_999)),
            ("2300-01-01T00:00:00Z", 3, Err(Range)),
            ("2262-04-12T00:00:00Z", 9, Err(Range)),
            ("99999999999999999999", 3, Err(Range)),
        ];
        for (text, digits, expected) in table {
            assert_eq!(date_time64(text, digits, None), expected, "{text}");
        }
    }

    #[test]
    fn times_of_day() {
        let table = [
            ("10:30:00", 0, Ok(37_800)),
            ("-999:59:59", 0, Ok(-3_599_999)),
            ("999:59:59.999", 3, Ok(3_599_999_999)),
            ("3600000", 0, Err(Range)),
            ("12.5", 3, Ok(12_500)),
            ("10:60", 0, Err(Form)),
            ("1000:00:00", 0, Err(Form)),
        ];
        for (text, digits, expected) in table {
            assert_eq!(time_of_day(text, digits), expected, "{text}");
        }
    }
}
