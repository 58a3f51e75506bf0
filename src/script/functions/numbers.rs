//! Numbers, and values that stand in for what is missing or does not fit.
use super::{Arguments, Function, Group, encoding, finite};
use crate::{
    codec::json::{Kind, Reader},
    script::value::Value,
};

pub(super) const ALL: &[Function] = &[
    Function {
        name: "num",
        group: Group::Numbers,
        signature: "num(x, default)",
        summary: "The number that `x` is or spells out; `default` where there is none.",
        example: "[num(\"12.5\", 0), num(\"n/a\", 0), num((), -1)]",
        gives: "[12.5, 0, -1]",
        arguments: 2..=2,
        pure: true,
        run: |values, _| Ok(number(values[0]).unwrap_or(values[1])),
    },
    Function {
        name: "numeric",
        group: Group::Numbers,
        signature: "numeric(x)",
        summary: "The number that `x` spells out; anything else as it is.",
        example: "[numeric(\"12.5\"), numeric(7), numeric(\"n/a\"), numeric(())]",
        gives: "[12.5, 7, \"n/a\", null]",
        arguments: 1..=1,
        pure: true,
        run: |values, _| Ok(number(values[0]).unwrap_or(values[0])),
    },
    Function {
        name: "int",
        group: Group::Numbers,
        signature: "int(x, default)",
        summary: "The whole number that `x` is or spells out, `84.0` included; `default` where there is none.",
        example: "[int(\"84\", 0), int(84.0, 0), int(84.5, 0)]",
        gives: "[84, 84, 0]",
        arguments: 2..=2,
        pure: true,
        run: |values, _| {
            Ok(match number(values[0]) {
                // Both bounds are exact floats; the upper one is just past the largest integer.
                Some(Value::Float(f))
                    if f.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&f) =>
                {
                    Value::Int(f as i64)
                }
                Some(Value::Float(_)) | None => values[1],
                Some(number) => number,
            })
        },
    },
    Function {
        name: "float",
        group: Group::Numbers,
        signature: "float(x, default)",
        summary: "The number that `x` is or spells out, as a float; `default` where there is none.",
        example: "[float(84, 0.0), float(\"1.5\", 0.0), float(\"n/a\", 0.0)]",
        gives: "[84.0, 1.5, 0.0]",
        arguments: 2..=2,
        pure: true,
        run: |values, _| Ok(number(values[0]).and_then(as_float).map_or(values[1], Value::Float)),
    },
    Function {
        name: "str",
        group: Group::Numbers,
        signature: "str(x, default)",
        summary: "A text as it is, anything else as JSON; `default` for `()`.",
        example: "[str(\"a\", \"\"), str(1.5, \"\"), str([1, true], \"\"), str((), \"none\")]",
        gives: "[\"a\", \"1.5\", \"[1,true]\", \"none\"]",
        arguments: 2..=2,
        pure: true,
        run: |values, bump| match values[0] {
            Value::Unit => Ok(values[1]),
            Value::Text(_) => Ok(values[0]),
            value => encoding::to_json("str", value, bump),
        },
    },
    Function {
        name: "clamp",
        group: Group::Numbers,
        signature: "clamp(x, low, high)",
        summary: "`x`, but not below `low` and not above `high`.",
        example: "[clamp(120, 0, 100), clamp(-2.5, -1.0, 1.0), clamp(5, 0, 100)]",
        gives: "[100, -1.0, 5]",
        arguments: 3..=3,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "clamp", values };
            let (x, low, high) = (arguments.float(0)?, arguments.float(1)?, arguments.float(2)?);
            if low.is_nan() || high.is_nan() || low > high {
                return Err(format!(
                    "`clamp` takes a lower bound that is not above the upper one, not {low} and {high}"
                ));
            }
            Ok(if x < low {
                values[1]
            } else if x > high {
                values[2]
            } else {
                values[0]
            })
        },
    },
    Function {
        name: "round",
        group: Group::Numbers,
        signature: "round(x, digits)",
        summary: "`x` with so many digits after the point, 0 to 15. Halves go away from zero.",
        example: "[round(3.14159, 2), round(2.5, 0), round(7, 2)]",
        gives: "[3.14, 3.0, 7.0]",
        arguments: 2..=2,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "round", values };
            let x = arguments.float(0)?;
            let scale = 10_f64.powi(arguments.count(1, 0..=15)? as i32);
            let scaled = x * scale;
            // Past 2^53 a float has no digits to round.
            finite("round", if scaled.abs() < 9e15 { scaled.round() / scale } else { x })
        },
    },
    Function {
        name: "scale",
        group: Group::Numbers,
        signature: "scale(x, from_low, from_high, to_low, to_high)",
        summary: "Where `x` lies between the first two bounds, between the last two: a sensor's raw value in its unit.",
        example: "scale(12.0, 4, 20, 0, 100)",
        gives: "50.0",
        arguments: 5..=5,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "scale", values };
            let (x, a, b) = (arguments.float(0)?, arguments.float(1)?, arguments.float(2)?);
            let (c, d) = (arguments.float(3)?, arguments.float(4)?);
            if a == b {
                return Err("`scale` takes two different bounds to scale from".to_owned());
            }
            finite("scale", c + (x - a) * (d - c) / (b - a))
        },
    },
];

/// The number that a value is, or that it spells out.
pub(in crate::script) fn number(value: Value<'_>) -> Option<Value<'_>> {
    match value {
        Value::Int(_) | Value::Float(_) | Value::Big(_) => Some(value),
        Value::Text(text) => {
            let mut reader = Reader::new(text);
            match (reader.value(), reader.end()) {
                (Ok(Kind::Number(number)), Ok(())) => Some(of_text(number.text, number.integer)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The value of a JSON number.
pub(super) fn of_text(text: &str, integer: bool) -> Value<'_> {
    if integer && text != "-0" {
        return text.parse().map_or(Value::Big(text), Value::Int);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Value::Float(value),
        _ => Value::Big(text),
    }
}

/// A number as a float.
pub(super) fn as_float(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Float(value) => Some(value),
        Value::Int(value) => Some(value as f64),
        Value::Big(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
        _ => None,
    }
}
