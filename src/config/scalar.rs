//! Single values, typed as YAML's core schema does.
use serde_yaml::Value;

use super::environment::Origin;

/// A single value and how it was written.
#[derive(Clone, Debug, Default)]
pub struct Scalar {
    /// The text: quotes taken off, lines folded, variables put in.
    pub text: String,
    /// Written without quotes and not as a block, so `1883` is a number and `true` a truth value.
    pub plain: bool,
    /// Tagged `!!str`, or variables were put in and the field wants text: never a number.
    pub always_text: bool,
    /// Line and column of the text's first character in the file, both from 1, columns in characters.
    pub origin: (usize, usize),
    /// True when every line of the text is a line of the file, indented by `origin.1 - 1`.
    pub exact: bool,
    /// A variable could not be put in, so the text is not what it should be. Reported once, there.
    pub unread: bool,
    /// Variables were put in, or stand there.
    pub has_variables: bool,
    /// Values put in that must not be shown.
    pub secrets: Vec<String>,
    /// Where what was put in came from.
    pub origins: Vec<Origin>,
}

/// A value as YAML types it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Typed<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(&'a str),
}

impl Scalar {
    /// The value, by YAML's core schema. Numbers with leading zeros (`007`) stay text: they are names more often.
    pub fn typed(&self) -> Typed<'_> {
        if !self.plain || self.always_text {
            return Typed::Text(&self.text);
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Typed::Null,
            "true" | "True" | "TRUE" => Typed::Bool(true),
            "false" | "False" | "FALSE" => Typed::Bool(false),
            ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Typed::Float(f64::INFINITY),
            "-.inf" | "-.Inf" | "-.INF" => Typed::Float(f64::NEG_INFINITY),
            ".nan" | ".NaN" | ".NAN" => Typed::Float(f64::NAN),
            text => number(text).unwrap_or(Typed::Text(text)),
        }
    }

    /// The value for the component.
    pub(super) fn to_value(&self) -> Value {
        match self.typed() {
            Typed::Null => Value::Null,
            Typed::Bool(value) => Value::Bool(value),
            Typed::Integer(value) => match (i64::try_from(value), u64::try_from(value)) {
                (Ok(value), _) => Value::from(value),
                (_, Ok(value)) => Value::from(value),
                #[expect(clippy::cast_precision_loss, reason = "beyond 64 bits YAML readers agree on a float")]
                _ => Value::from(value as f64),
            },
            Typed::Float(value) => Value::from(value),
            Typed::Text(text) => Value::from(text),
        }
    }
}

fn number(text: &str) -> Option<Typed<'static>> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return u64::from_str_radix(digits, radix).ok().map(|n| Typed::Integer(n.into()));
        }
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
    if whole > 1 && digits.starts_with('0') {
        return None;
    }
    if !digits.is_empty() && whole == digits.len() {
        return text.parse().ok().map(Typed::Integer);
    }
    let float = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+'));
    if float { text.parse().ok().map(Typed::Float) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Typed<'_>) {
        let scalar = Scalar { text: text.into(), plain: true, ..Scalar::default() };
        assert_eq!(scalar.typed(), expected, "{text}");
    }

    #[test]
    fn plain_values_are_typed_as_yaml_does() {
        check("", Typed::Null);
        check("~", Typed::Null);
        check("true", Typed::Bool(true));
        check("yes", Typed::Text("yes"));
        check("1883", Typed::Integer(1883));
        check("-5", Typed::Integer(-5));
        check("0x1F", Typed::Integer(31));
        check("0o17", Typed::Integer(15));
        check("18446744073709551615", Typed::Integer(18_446_744_073_709_551_615));
        check("007", Typed::Text("007"));
        check("1.5", Typed::Float(1.5));
        check("1e3", Typed::Float(1000.0));
        check(".5", Typed::Float(0.5));
        check("-.inf", Typed::Float(f64::NEG_INFINITY));
        check("1.2.3", Typed::Text("1.2.3"));
        check("127.0.0.1", Typed::Text("127.0.0.1"));
        check("1-2", Typed::Text("1-2"));
        check("e", Typed::Text("e"));
        check(".", Typed::Text("."));
        check("nan", Typed::Text("nan"));
        check("localhost:9092", Typed::Text("localhost:9092"));
    }

    #[test]
    fn quoted_values_are_text() {
        let scalar = Scalar { text: "1883".into(), ..Scalar::default() };
        assert_eq!(scalar.typed(), Typed::Text("1883"));
    }
}
