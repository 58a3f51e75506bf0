//! Exact numbers out of their decimal text: integers and decimals up to 256 bits, with no way through a float.

/// Why a number does not become what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// Digits would be lost after the point.
    Fraction,
    /// Out of range.
    Range,
}

/// A decimal number as text, taken apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number<'a> {
    pub negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i32,
    /// It has neither point nor exponent.
    pub is_whole: bool,
}

/// No decimal text of a 256-bit number is longer, leading zeros aside.
const DIGITS_MAX: i64 = 78;

impl<'a> Number<'a> {
    /// Reads `-12.50e3`. `None` when `text` is no number; infinity and NaN are none.
    pub fn parse(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let negative = bytes.first() == Some(&b'-');
        let (whole, rest) = digits(&bytes[usize::from(negative)..]);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => {
                let (fraction, rest) = digits(rest);
                if fraction.is_empty() {
                    return None;
                }
                (fraction, rest)
            }
            _ => (&rest[..0], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => {
                let text = std::str::from_utf8(rest).ok()?;
                if digits(text.trim_start_matches(['+', '-']).as_bytes()).0.is_empty() {
                    return None;
                }
                // Far out of any range, but a number all the same.
                match text.parse::<i32>() {
                    Ok(exponent) => exponent.clamp(-1_000_000, 1_000_000),
                    Err(error) => match error.kind() {
                        std::num::IntErrorKind::PosOverflow => 1_000_000,
                        std::num::IntErrorKind::NegOverflow => -1_000_000,
                        _ => return None,
                    },
                }
            }
            _ => return None,
        };
        if whole.is_empty() {
            return None;
        }
        Some(Self { negative, whole, fraction, exponent, is_whole: rest.is_empty() && fraction.is_empty() })
    }

    /// The number without its sign, times 10 to the power `scale`, cut at the point; and whether that cut anything off.
    fn magnitude(&self, scale: u8) -> Result<(U256, bool), NumberError> {
        let zeros = self.whole.iter().take_while(|&&d| d == b'0').count();
        let whole = &self.whole[zeros..];
        let all = || whole.iter().chain(self.fraction);
        if all().all(|&d| d == b'0') {
            return Ok((U256::default(), false));
        }
        // Digits that stand before the point once it has moved.
        let kept = whole.len() as i64 + i64::from(self.exponent) + i64::from(scale);
        let available = (whole.len() + self.fraction.len()) as i64;
        if kept <= 0 {
            return Ok((U256::default(), true));
        }
        let leading = all().take_while(|&&d| d == b'0').count() as i64;
        if kept - leading > DIGITS_MAX {
            return Err(NumberError::Range);
        }
        let mut magnitude = U256::default();
        for &digit in all().take(kept as usize) {
            magnitude.push_digit(digit - b'0').ok_or(NumberError::Range)?;
        }
        for _ in available..kept {
            magnitude.push_digit(0).ok_or(NumberError::Range)?;
        }
        let cut = kept < available && all().skip(kept as usize).any(|&d| d != b'0');
        Ok((magnitude, cut))
    }

    /// The number times 10 to the power `scale`, rounded down, for points in time.
    pub fn floor(&self, scale: u8) -> Result<i128, NumberError> {
        let (U256([low, high, 0, 0]), cut) = self.magnitude(scale)? else { return Err(NumberError::Range) };
        let magnitude = i128::try_from(u128::from(high) << 64 | u128::from(low)).map_err(|_| NumberError::Range)?;
        Ok(if self.negative { -magnitude - i128::from(cut) } else { magnitude })
    }
}

fn digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len()))
}

/// Appends an integer of `bytes` bytes, signed or not, little end first. A fraction of nothing but zeros is no fraction.
pub fn integer(text: &str, bytes: usize, signed: bool, out: &mut Vec<u8>) -> Option<Result<(), NumberError>> {
    // Nearly all integers are this simple.
    if bytes <= 8 && text.len() <= 18 && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let value = text.bytes().fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
        let bits = bytes * 8 - usize::from(signed);
        if bits < 64 && value >> bits != 0 {
            return Some(Err(NumberError::Range));
        }
        out.extend_from_slice(&value.to_le_bytes()[..bytes]);
        return Some(Ok(()));
    }
    let number = Number::parse(text)?;
    Some(number.magnitude(0).and_then(|(magnitude, cut)| {
        if cut {
            return Err(NumberError::Fraction);
        }
        let fits = if !signed {
            magnitude.bits() <= bytes * 8 && (!number.negative || magnitude.bits() == 0)
        } else if number.negative {
            magnitude.is_at_most_power_of_two(bytes * 8 - 1)
        } else {
            magnitude.bits() < bytes * 8
        };
        if !fits {
            return Err(NumberError::Range);
        }
        magnitude.write(number.negative, bytes, out);
        Ok(())
    }))
}

/// Appends a decimal of `precision` digits, `scale` of them after the point. More digits after the point are refused,
/// unless they are zeros: nothing is rounded behind the user's back.
pub fn decimal(
    text: &str,
    (precision, scale): (u8, u8),
    bytes: usize,
    out: &mut Vec<u8>,
) -> Option<Result<(), NumberError>> {
    let number = Number::parse(text)?;
    Some(number.magnitude(scale).and_then(|(magnitude, cut)| {
        if cut {
            return Err(NumberError::Fraction);
        }
        if magnitude >= U256::power_of_ten(precision) {
            return Err(NumberError::Range);
        }
        magnitude.write(number.negative, bytes, out);
        Ok(())
    }))
}

/// 256 bits, lowest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct U256([u64; 4]);

impl U256 {
    fn power_of_ten(digits: u8) -> Self {
        let mut power = Self([1, 0, 0, 0]);
        for _ in 0..digits {
            power.push_digit(0).expect("10^76 is below 2^256, and no precision is above 76");
        }
        power
    }

    /// Times ten, plus `digit`. `None` past 256 bits.
    fn push_digit(&mut self, digit: u8) -> Option<()> {
        let mut carry = u128::from(digit);
        for limb in &mut self.0 {
            let product = u128::from(*limb) * 10 + carry;
            *limb = product as u64;
            carry = product >> 64;
            // The upper limbs are zero until something is carried into them.
        }
        (carry == 0).then_some(())
    }

    /// How many bits it takes.
    fn bits(&self) -> usize {
        let top = self.0.iter().rposition(|&limb| limb != 0);
        top.map_or(0, |i| i * 64 + 64 - self.0[i].leading_zeros() as usize)
    }

    fn is_at_most_power_of_two(&self, power: usize) -> bool {
        self.bits() <= power
            || (self.bits() == power + 1 && self.0.iter().map(|limb| limb.count_ones()).sum::<u32>() == 1)
    }

    /// The lowest `bytes` bytes, in two's complement when `negative`.
    fn write(mut self, negative: bool, bytes: usize, out: &mut Vec<u8>) {
        if negative {
            let mut carry = true;
            for limb in &mut self.0 {
                (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
            }
        }
        let start = out.len();
        out.extend(self.0.iter().flat_map(|limb| limb.to_le_bytes()));
        out.truncate(start + bytes);
    }
}

impl PartialOrd for U256 {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}

#[cfg(test)]
mod tests {
    use super::{NumberError::*, *};

    fn int(text: &str, bytes: usize, signed: bool) -> Option<Result<Vec<u8>, NumberError>> {
        let mut out = Vec::new();
        integer(text, bytes, signed, &mut out).map(|done| done.map(|()| out))
    }

    /// Decimal text of ±2^power + add, for the limits.
    fn power(power: u32, add: i8) -> String {
        let mut digits = vec![1_u8];
        for _ in 0..power {
            let mut carry = 0;
            for digit in &mut digits {
                (*digit, carry) = ((*digit * 2 + carry) % 10, (*digit * 2 + carry) / 10);
            }
            if carry > 0 {
                digits.push(carry);
            }
        }
        digits[0] = digits[0].checked_add_signed(add).expect("no power of two ends in 0");
        digits.iter().rev().map(|d| char::from(b'0' + d)).collect()
    }

    #[test]
    fn every_width_holds_its_limits_and_nothing_past_them() {
        for bytes in [1_usize, 2, 4, 8, 16, 32] {
            let bits = bytes as u32 * 8;
            assert_eq!(int(&power(bits, -1), bytes, false), Some(Ok(vec![0xff; bytes])), "u{bits} max");
            assert_eq!(int(&power(bits, 0), bytes, false), Some(Err(Range)), "u{bits} max + 1");
            assert_eq!(int("-1", bytes, false), Some(Err(Range)));
            assert_eq!(int("0", bytes, false), Some(Ok(vec![0; bytes])));
            assert_eq!(int("-0", bytes, false), Some(Ok(vec![0; bytes])));
            let mut max = vec![0xff; bytes];
            max[bytes - 1] = 0x7f;
            let mut min = vec![0; bytes];
            min[bytes - 1] = 0x80;
            assert_eq!(int(&power(bits - 1, -1), bytes, true), Some(Ok(max)), "i{bits} max");
            assert_eq!(int(&power(bits - 1, 0), bytes, true), Some(Err(Range)), "i{bits} max + 1");
            assert_eq!(int(&format!("-{}", power(bits - 1, 0)), bytes, true), Some(Ok(min)), "i{bits} min");
            assert_eq!(int(&format!("-{}", power(bits - 1, 1)), bytes, true), Some(Err(Range)), "i{bits} min - 1");
            assert_eq!(int("-1", bytes, true), Some(Ok(vec![0xff; bytes])));
        }
    }

    #[test]
    fn a_whole_number_may_be_written_with_point_or_exponent() {
        let table = [
            ("84", Some(Ok(84))),
            ("84.0", Some(Ok(84))),
            ("84.000", Some(Ok(84))),
            ("8.4e1", Some(Ok(84))),
            ("840E-1", Some(Ok(84))),
            ("007", Some(Ok(7))),
            ("0.0e99999999999", Some(Ok(0))),
            ("84.5", Some(Err(Fraction))),
            ("845e-1", Some(Err(Fraction))),
            ("0.001", Some(Err(Fraction))),
            ("1e-99999999999", Some(Err(Fraction))),
            ("1e3", Some(Err(Range))),
            ("1e999999999999", Some(Err(Range))),
            ("300", Some(Err(Range))),
            ("", None),
            ("-", None),
            ("+1", None),
            ("1.", None),
            (".5", None),
            ("1e", None),
            ("1e+-2", None),
            ("0x10", None),
            ("nan", None),
            ("inf", None),
            (" 1", None),
            ("1_000", None),
        ];
        for (text, expected) in table {
            let found = int(text, 1, false).map(|r| r.map(|bytes| bytes[0]));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn eighteen_digits_and_more_are_exact() {
        let table = ["123456789012345678", "1234567890123456789", "18446744073709551615"];
        for text in table {
            assert_eq!(int(text, 8, false), Some(Ok(text.parse::<u64>().unwrap().to_le_bytes().to_vec())));
        }
        let wide = "170141183460469231731687303715884105727";
        assert_eq!(int(wide, 16, true), Some(Ok(wide.parse::<i128>().unwrap().to_le_bytes().to_vec())));
        assert_eq!(int(&format!("{}{wide}", "0".repeat(200)), 16, true).unwrap().unwrap().len(), 16);
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        let table = [
            ("1.10", (9, 2), Ok(110)),
            ("1.1", (9, 2), Ok(110)),
            ("-1.10", (9, 2), Ok(-110)),
            ("1.100", (9, 2), Ok(110)),
            ("11e-1", (9, 2), Ok(110)),
            ("1.105", (9, 2), Err(Fraction)),
            ("0.001", (9, 2), Err(Fraction)),
            ("9999999.99", (9, 2), Ok(999_999_999)),
            ("10000000", (9, 2), Err(Range)),
            ("-9999999.99", (9, 2), Ok(-999_999_999)),
            ("1e7", (9, 2), Err(Range)),
            ("5", (1, 0), Ok(5)),
            ("10", (1, 0), Err(Range)),
        ];
        for (text, kind, expected) in table {
            let mut out = Vec::new();
            let done = decimal(text, kind, 4, &mut out).unwrap();
            let found = done.map(|()| i32::from_le_bytes(out.try_into().unwrap()));
            assert_eq!(found, expected, "{text}");
        }
        let nines = "9".repeat(76);
        assert_eq!(decimal(&nines, (76, 0), 32, &mut Vec::new()), Some(Ok(())));
        assert_eq!(decimal(&format!("{nines}0"), (76, 0), 32, &mut Vec::new()), Some(Err(Range)));
        assert_eq!(decimal("x", (9, 2), 4, &mut Vec::new()), None);
    }

    #[test]
    fn times_are_rounded_down() {
        let table =
            [("1.9", 0, 1), ("-1.1", 0, -2), ("-2.0", 0, -2), ("1.23456", 3, 1234), ("-0.0001", 3, -1), ("0.5", 0, 0)];
        for (text, scale, expected) in table {
            assert_eq!(Number::parse(text).unwrap().floor(scale), Ok(expected), "{text}");
        }
        assert_eq!(Number::parse(&"9".repeat(60)).unwrap().floor(0), Err(Range));
    }
}
