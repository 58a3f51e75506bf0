//! The functions that scripts have besides Rhai's own.
use std::collections::{BTreeMap, BTreeSet};

use rhai::{Array, Dynamic, Engine, EvalAltResult, FuncRegistration, ImmutableString, Map, Module, Position};

use super::{BigNumber, Stop, now_ms, stop};
use crate::{codec::json, script::document};

type Answer = Result<Dynamic, Box<EvalAltResult>>;

pub(super) fn register(module: &mut Module) {
    // Volatile: the optimiser must not work them out once for all messages.
    let volatile = |name| FuncRegistration::new(name).with_volatility(true);
    volatile("drop").set_into_module(module, || -> Answer { Err(stop(Stop::Drop)) });
    volatile("now").set_into_module(module, || now_ms().div_euclid(1000));
    volatile("now_ms").set_into_module(module, now_ms);

    FuncRegistration::new("num").set_into_module(module, |x: Dynamic, default: Dynamic| number(&x).unwrap_or(default));
    FuncRegistration::new("numeric").set_into_module(module, |x: Dynamic| number(&x).unwrap_or(x));
    FuncRegistration::new("int").set_into_module(module, |x: Dynamic, default: Dynamic| int(&x).unwrap_or(default));
    FuncRegistration::new("float").set_into_module(module, |x: Dynamic, default: Dynamic| {
        number(&x).and_then(|n| float(&n)).map_or(default, Dynamic::from_float)
    });
    FuncRegistration::new("str").set_into_module(module, |x: Dynamic, default: Dynamic| -> Answer {
        if x.is_unit() { Ok(default) } else { text(&x).map(Into::into) }
    });

    // Rhai's own `to_json` knows maps only, and is found first unless the very type is given here.
    FuncRegistration::new("to_json").set_into_module(module, |x: Dynamic| to_json(&x));
    FuncRegistration::new("to_json").set_into_module(module, |x: Map| to_json(&x.into()));
    FuncRegistration::new("parse_json").set_into_module(module, |text: &str| -> Answer {
        document::parse(text).map_err(|error| runtime(format!("not JSON: {error}")))
    });

    FuncRegistration::new("sum_of").set_into_module(module, |list: Array| fold(&list, |a, b| a + b));
    FuncRegistration::new("min_of").set_into_module(module, |list: Array| fold(&list, f64::min));
    FuncRegistration::new("max_of").set_into_module(module, |list: Array| fold(&list, f64::max));
    FuncRegistration::new("mean_of").set_into_module(module, |list: Array| -> Answer {
        let count = list.len() as f64;
        Ok(fold(&list, |a, b| a + b)?.as_float().map_or(Dynamic::UNIT, |sum| Dynamic::from_float(sum / count)))
    });
}

fn runtime(text: String) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(text.into(), Position::NONE))
}

/// The number that `x` is, or that it spells out.
fn number(x: &Dynamic) -> Option<Dynamic> {
    if x.is_int() || x.is_float() || x.is::<BigNumber>() {
        return Some(x.flatten_clone());
    }
    let text = x.read_lock::<ImmutableString>()?;
    let mut reader = json::Reader::new(&text);
    match (reader.value(), reader.end()) {
        (Ok(json::Kind::Number(number)), Ok(())) => Some(document::number(number)),
        _ => None,
    }
}

/// The integer that `x` is or spells out; `84.0` is 84.
fn int(x: &Dynamic) -> Option<Dynamic> {
    let number = number(x)?;
    match number.as_float() {
        // Both bounds are exact floats; the upper one is just past the largest integer.
        Ok(f) if f.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&f) => {
            Some((f as i64).into())
        }
        Ok(_) => None,
        Err(_) => Some(number),
    }
}

fn float(number: &Dynamic) -> Option<f64> {
    match (number.as_float(), number.as_int(), number.read_lock::<BigNumber>()) {
        (Ok(f), ..) => Some(f),
        (_, Ok(i), _) => Some(i as f64),
        (_, _, Some(big)) => big.0.parse().ok().filter(|f: &f64| f.is_finite()),
        _ => None,
    }
}

/// A string as it is, anything else as JSON.
fn text(x: &Dynamic) -> Result<ImmutableString, Box<EvalAltResult>> {
    match x.read_lock::<ImmutableString>() {
        Some(text) => Ok(text.clone()),
        None => to_json(x),
    }
}

fn to_json(x: &Dynamic) -> Result<ImmutableString, Box<EvalAltResult>> {
    let mut out = Vec::new();
    document::write(x, None, &mut out).map_err(|error| runtime(error.reason()))?;
    Ok(String::from_utf8(out).expect("the JSON writer writes UTF-8").into())
}

/// Combines a list of numbers as floats; `()` for an empty list.
fn fold(list: &[Dynamic], combine: impl Fn(f64, f64) -> f64) -> Answer {
    let mut result = None;
    for (index, item) in list.iter().enumerate() {
        let Some(value) = float(item) else {
            return Err(runtime(format!("item {index} of the list is not a number")));
        };
        result = Some(result.map_or(value, |so_far| combine(so_far, value)));
    }
    Ok(result.map_or(Dynamic::UNIT, Dynamic::from_float))
}

/// Every function of `engine` by name, with the numbers of arguments it takes.
pub fn arities(engine: &Engine) -> BTreeMap<String, BTreeSet<usize>> {
    let mut known: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for signature in engine.gen_fn_signatures(true) {
        let Some((name, rest)) = signature.split_once('(') else { continue };
        let arguments = &rest[..rest.rfind(')').unwrap_or(rest.len())];
        let mut depth = 0;
        let mut count = usize::from(!arguments.trim().is_empty());
        for char in arguments.chars() {
            match char {
                '<' | '(' | '[' => depth += 1,
                '>' | ')' | ']' => depth -= 1,
                ',' if depth == 0 => count += 1,
                _ => {}
            }
        }
        known.entry(name.trim().to_owned()).or_default().insert(count);
    }
    known
}
