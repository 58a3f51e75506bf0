//! The table as functions of Rhai.
use std::cell::RefCell;

use bumpalo::Bump;
use rhai::{Array, Dynamic, EvalAltResult, FuncRegistration, ImmutableString, Map, Module, Position};

use super::{Function, functions};
use crate::script::{engine::BigNumber, value::Value};

type Answer = Result<Dynamic, Box<EvalAltResult>>;

thread_local! {
    static ARENA: RefCell<Bump> = RefCell::default();
}

/// Registers every function, for each number of arguments it takes.
pub(in crate::script) fn register(module: &mut Module) {
    for function in functions() {
        for count in function.arguments.clone() {
            // Volatile: the optimiser must not work them out once for all messages.
            let new = || FuncRegistration::new(function.name).with_volatility(!function.pure);
            match count {
                0 => new().set_into_module(module, move || call(function, &[])),
                1 => new().set_into_module(module, move |a: Dynamic| call(function, &[a])),
                2 => new().set_into_module(module, move |a: Dynamic, b: Dynamic| call(function, &[a, b])),
                3 => {
                    new().set_into_module(module, move |a: Dynamic, b: Dynamic, c: Dynamic| call(function, &[a, b, c]))
                }
                4 => new().set_into_module(module, move |a: Dynamic, b: Dynamic, c: Dynamic, d: Dynamic| {
                    call(function, &[a, b, c, d])
                }),
                _ => new()
                    .set_into_module(module, move |a: Dynamic, b: Dynamic, c: Dynamic, d: Dynamic, e: Dynamic| {
                        call(function, &[a, b, c, d, e])
                    }),
            };
        }
    }
    // Rhai's own `to_json` knows maps only, and is found first unless the very type is given here.
    if let Some(to_json) = super::find("to_json", 1) {
        FuncRegistration::new("to_json").set_into_module(module, move |map: Map| call(to_json, &[map.into()]));
    }
}

fn call(function: &Function, arguments: &[Dynamic]) -> Answer {
    ARENA.with_borrow_mut(|bump| {
        bump.reset();
        let values = bump.alloc_slice_fill_iter(arguments.iter().map(|argument| to_value(argument, bump)));
        let value = (function.run)(values, bump);
        value.map(from_value).map_err(|reason| Box::new(EvalAltResult::ErrorRuntime(reason.into(), Position::NONE)))
    })
}

fn to_value<'a>(value: &Dynamic, bump: &'a Bump) -> Value<'a> {
    if let Some(text) = value.read_lock::<ImmutableString>() {
        Value::Text(bump.alloc_str(&text))
    } else if let Ok(value) = value.as_int() {
        Value::Int(value)
    } else if let Ok(value) = value.as_float() {
        Value::Float(value)
    } else if value.is_unit() {
        Value::Unit
    } else if let Ok(value) = value.as_bool() {
        Value::Bool(value)
    } else if let Ok(items) = value.as_array_ref() {
        Value::List(bump.alloc_slice_fill_iter(items.iter().map(|item| to_value(item, bump))))
    } else if let Ok(members) = value.as_map_ref() {
        let members = members.iter().map(|(key, value)| (&*bump.alloc_str(key), to_value(value, bump)));
        Value::Map(bump.alloc_slice_fill_iter(members))
    } else if let Ok(value) = value.as_char() {
        Value::Text(bump.alloc_str(value.encode_utf8(&mut [0; 4])))
    } else if let Some(number) = value.read_lock::<BigNumber>() {
        Value::Big(bump.alloc_str(&number.0))
    } else {
        Value::Other(value.type_name())
    }
}

fn from_value(value: Value<'_>) -> Dynamic {
    match value {
        Value::Unit | Value::Other(_) => Dynamic::UNIT,
        Value::Bool(value) => value.into(),
        Value::Int(value) => value.into(),
        Value::Float(value) => Dynamic::from_float(value),
        Value::Big(text) => Dynamic::from(BigNumber(text.into())),
        Value::Text(text) => ImmutableString::from(text).into(),
        Value::List(items) => Dynamic::from_array(items.iter().map(|item| from_value(*item)).collect::<Array>()),
        Value::Map(members) => {
            Dynamic::from_map(members.iter().map(|(key, value)| ((*key).into(), from_value(*value))).collect::<Map>())
        }
    }
}
