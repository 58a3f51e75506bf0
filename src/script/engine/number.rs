//! Numbers that 64 bits cannot hold: they are carried as text, so that they leave as they came.
use rhai::{Dynamic, EvalAltResult, FuncRegistration, ImmutableString, Module, Position};

/// The text of a JSON number that is neither an `i64` nor near any `f64`. A script can pass it on, compare it for
/// equality and turn it into a string; calculating with it is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::script) struct BigNumber(pub ImmutableString);

fn refuse(number: &BigNumber) -> Result<Dynamic, Box<EvalAltResult>> {
    let text = format!("scripts calculate with 64 bits, and `{}` needs more; it can only be passed on", number.0);
    Err(Box::new(EvalAltResult::ErrorArithmetic(text, Position::NONE)))
}

pub(super) fn register(module: &mut Module) {
    for operator in ["+", "-", "*", "/", "%", "**", "<", "<=", ">", ">="] {
        let on_both = |a: BigNumber, _: BigNumber| refuse(&a);
        FuncRegistration::new(operator).set_into_module(module, on_both);
        macro_rules! with_each {
            ($($other:ty),*) => {$(
                FuncRegistration::new(operator).set_into_module(module, |a: BigNumber, _: $other| refuse(&a));
                FuncRegistration::new(operator).set_into_module(module, |_: $other, a: BigNumber| refuse(&a));
            )*};
        }
        with_each!(i64, f64);
    }
    FuncRegistration::new("-").set_into_module(module, |a: BigNumber| refuse(&a));
    FuncRegistration::new("==").set_into_module(module, |a: BigNumber, b: BigNumber| a == b);
    FuncRegistration::new("!=").set_into_module(module, |a: BigNumber, b: BigNumber| a != b);
    for name in ["to_string", "to_debug", "print", "debug"] {
        FuncRegistration::new(name).set_into_module(module, |a: BigNumber| a.0);
    }
}
