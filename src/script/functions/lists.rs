//! Lists and maps.
use std::cmp::Ordering;

use bumpalo::{Bump, collections::Vec as BumpVec};

use super::{Arguments, Function, Group, finite, kind, numbers::as_float};
use crate::script::value::Value;

pub(super) const ALL: &[Function] = &[
    Function {
        name: "sum_of",
        group: Group::Lists,
        signature: "sum_of(list)",
        summary: "The sum of a list of numbers, as a float; `()` for an empty list.",
        example: "sum_of([1, 2.5])",
        gives: "3.5",
        arguments: 1..=1,
        pure: true,
        run: |values, _| fold("sum_of", values, |a, b| a + b),
    },
    Function {
        name: "min_of",
        group: Group::Lists,
        signature: "min_of(list)",
        summary: "The smallest of a list of numbers, as a float; `()` for an empty list.",
        example: "min_of([3, 1.5, 2])",
        gives: "1.5",
        arguments: 1..=1,
        pure: true,
        run: |values, _| fold("min_of", values, f64::min),
    },
    Function {
        name: "max_of",
        group: Group::Lists,
        signature: "max_of(list)",
        summary: "The largest of a list of numbers, as a float; `()` for an empty list.",
        example: "max_of([3, 1.5, 2])",
        gives: "3.0",
        arguments: 1..=1,
        pure: true,
        run: |values, _| fold("max_of", values, f64::max),
    },
    Function {
        name: "mean_of",
        group: Group::Lists,
        signature: "mean_of(list)",
        summary: "The mean of a list of numbers; `()` for an empty list.",
        example: "mean_of([1, 2, 6])",
        gives: "3.0",
        arguments: 1..=1,
        pure: true,
        run: |values, _| {
            let count = Arguments { name: "mean_of", values }.list(0)?.len() as f64;
            match fold("mean_of", values, |a, b| a + b)? {
                Value::Float(sum) => finite("mean_of", sum / count),
                other => Ok(other),
            }
        },
    },
    Function {
        name: "median_of",
        group: Group::Lists,
        signature: "median_of(list)",
        summary: "The middle of a list of numbers, of an even count the mean of the two middle ones; `()` for an empty list.",
        example: "[median_of([5, 1, 3]), median_of([4, 1, 3, 2])]",
        gives: "[3.0, 2.5]",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let numbers = floats("median_of", values, bump)?;
            numbers.sort_by(f64::total_cmp);
            let middle = numbers.len() / 2;
            match numbers.len() {
                0 => Ok(Value::Unit),
                count if count % 2 == 1 => finite("median_of", numbers[middle]),
                _ => finite("median_of", f64::midpoint(numbers[middle - 1], numbers[middle])),
            }
        },
    },
    Function {
        name: "stddev_of",
        group: Group::Lists,
        signature: "stddev_of(list)",
        summary: "The standard deviation of a list of numbers, taken as the whole population; `()` for an empty list.",
        example: "stddev_of([2, 4, 4, 4, 5, 5, 7, 9])",
        gives: "2.0",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let numbers = floats("stddev_of", values, bump)?;
            if numbers.is_empty() {
                return Ok(Value::Unit);
            }
            let count = numbers.len() as f64;
            let mean = numbers.iter().sum::<f64>() / count;
            let squares: f64 = numbers.iter().map(|number| (number - mean) * (number - mean)).sum();
            finite("stddev_of", (squares / count).sqrt())
        },
    },
    Function {
        name: "first",
        group: Group::Lists,
        signature: "first(list)",
        summary: "The first item; `()` for an empty list.",
        example: "[first([7, 8]), first([])]",
        gives: "[7, null]",
        arguments: 1..=1,
        pure: true,
        run: |values, _| Ok(Arguments { name: "first", values }.list(0)?.first().copied().unwrap_or(Value::Unit)),
    },
    Function {
        name: "last",
        group: Group::Lists,
        signature: "last(list)",
        summary: "The last item; `()` for an empty list.",
        example: "last([7, 8])",
        gives: "8",
        arguments: 1..=1,
        pure: true,
        run: |values, _| Ok(Arguments { name: "last", values }.list(0)?.last().copied().unwrap_or(Value::Unit)),
    },
    Function {
        name: "sorted",
        group: Group::Lists,
        signature: "sorted(list)",
        summary: "The items in order: `()`, false, true, numbers, texts, then lists and maps as they came.",
        example: "sorted([3, \"b\", 1.5, \"a\", ()])",
        gives: "[null, 1.5, 3, \"a\", \"b\"]",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let items = bump.alloc_slice_copy(Arguments { name: "sorted", values }.list(0)?);
            items.sort_by(order);
            Ok(Value::List(items))
        },
    },
    Function {
        name: "reversed",
        group: Group::Lists,
        signature: "reversed(list)",
        summary: "The items from last to first.",
        example: "reversed([1, 2, 3])",
        gives: "[3, 2, 1]",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let items = bump.alloc_slice_copy(Arguments { name: "reversed", values }.list(0)?);
            items.reverse();
            Ok(Value::List(items))
        },
    },
    Function {
        name: "unique",
        group: Group::Lists,
        signature: "unique(list)",
        summary: "The items without those that came before. Only texts, numbers, bools and `()` are compared; `1` and `1.0` \
                  are the same.",
        example: "unique([1, \"a\", 1.0, \"a\", 2])",
        gives: "[1, \"a\", 2]",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let items = Arguments { name: "unique", values }.list(0)?;
            // Sorted, equal ones stand side by side, the earlier first.
            let mut places: BumpVec<'_, usize> = BumpVec::with_capacity_in(items.len(), bump);
            places.extend(0..items.len());
            places.sort_by(|a, b| order(&items[*a], &items[*b]));
            let mut keep: BumpVec<'_, usize> = BumpVec::with_capacity_in(items.len(), bump);
            for (at, place) in places.iter().enumerate() {
                let same = at > 0 && is_simple(items[*place]) && order(&items[places[at - 1]], &items[*place]).is_eq();
                if !same {
                    keep.push(*place);
                }
            }
            keep.sort_unstable();
            Ok(Value::List(bump.alloc_slice_fill_iter(keep.iter().map(|place| items[*place]))))
        },
    },
    Function {
        name: "flattened",
        group: Group::Lists,
        signature: "flattened(list)",
        summary: "The items, and in place of each list in it that one's items.",
        example: "flattened([1, [2, [3]], []])",
        gives: "[1, 2, [3]]",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let mut out = BumpVec::new_in(bump);
            for item in (Arguments { name: "flattened", values }).list(0)? {
                match item {
                    Value::List(items) => out.extend_from_slice_copy(items),
                    item => out.push(*item),
                }
            }
            Ok(Value::List(out.into_bump_slice()))
        },
    },
    Function {
        name: "compact",
        group: Group::Lists,
        signature: "compact(list_or_map)",
        summary: "The list or map without what is `()`.",
        example: "[compact([1, (), 2]), compact(#{ a: 1, b: () })]",
        gives: "[[1, 2], {\"a\": 1}]",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| match values[0] {
            Value::List(items) => {
                let mut out = BumpVec::with_capacity_in(items.len(), bump);
                out.extend(items.iter().copied().filter(|item| *item != Value::Unit));
                Ok(Value::List(out.into_bump_slice()))
            }
            Value::Map(members) => Ok(members_where(members, bump, |_, value| value != Value::Unit)),
            other => Err(format!("`compact` takes a list or a map, not {}", kind(other))),
        },
    },
    Function {
        name: "merged",
        group: Group::Lists,
        signature: "merged(map, other)",
        summary: "The members of both maps; of a name that both have, `other` counts.",
        example: "merged(#{ a: 1, b: 2 }, #{ b: 3, c: 4 })",
        gives: "{\"a\": 1, \"b\": 3, \"c\": 4}",
        arguments: 2..=2,
        pure: true,
        run: |values, bump| {
            let arguments = Arguments { name: "merged", values };
            let (mut old, mut new) = (arguments.map(0)?, arguments.map(1)?);
            let mut out = BumpVec::with_capacity_in(old.len() + new.len(), bump);
            // Both are sorted.
            while let (Some(a), Some(b)) = (old.first(), new.first()) {
                let order = a.0.cmp(b.0);
                out.push(if order.is_lt() { *a } else { *b });
                old = if order.is_le() { &old[1..] } else { old };
                new = if order.is_ge() { &new[1..] } else { new };
            }
            out.extend_from_slice_copy(old);
            out.extend_from_slice_copy(new);
            Ok(Value::Map(out.into_bump_slice()))
        },
    },
    Function {
        name: "pick",
        group: Group::Lists,
        signature: "pick(map, names)",
        summary: "The members with these names, those that are there.",
        example: "pick(#{ a: 1, b: 2, c: 3 }, [\"a\", \"c\", \"x\"])",
        gives: "{\"a\": 1, \"c\": 3}",
        arguments: 2..=2,
        pure: true,
        run: |values, bump| {
            let arguments = Arguments { name: "pick", values };
            let names = names(arguments, bump)?;
            Ok(members_where(arguments.map(0)?, bump, |name, _| names.binary_search(&name).is_ok()))
        },
    },
    Function {
        name: "without",
        group: Group::Lists,
        signature: "without(map, names)",
        summary: "The members without those with these names.",
        example: "without(#{ a: 1, password: 2 }, [\"password\"])",
        gives: "{\"a\": 1}",
        arguments: 2..=2,
        pure: true,
        run: |values, bump| {
            let arguments = Arguments { name: "without", values };
            let names = names(arguments, bump)?;
            Ok(members_where(arguments.map(0)?, bump, |name, _| names.binary_search(&name).is_err()))
        },
    },
    Function {
        name: "value_at",
        group: Group::Lists,
        signature: "value_at(x, path, default)",
        summary: "What is at a path of names and places with points between, like `a.b.0`; `default` where nothing is, or `()`.",
        example: "[value_at(#{ a: [ #{ b: 5 } ] }, \"a.0.b\", 0), value_at(#{}, \"a.b\", 0)]",
        gives: "[5, 0]",
        arguments: 3..=3,
        pure: true,
        run: |values, _| {
            let path = Arguments { name: "value_at", values }.text(1)?;
            let found = path.split('.').try_fold(values[0], |value, step| match value {
                Value::Map(members) => {
                    members.binary_search_by(|(name, _)| (*name).cmp(step)).ok().map(|at| members[at].1)
                }
                Value::List(items) => items.get(step.parse::<usize>().ok()?).copied(),
                _ => None,
            });
            Ok(found.filter(|value| *value != Value::Unit).unwrap_or(values[2]))
        },
    },
];

/// Combines a list of numbers as floats; `()` for an empty list.
fn fold<'a>(name: &'static str, values: &[Value<'a>], combine: impl Fn(f64, f64) -> f64) -> Result<Value<'a>, String> {
    let mut result: Option<f64> = None;
    for (index, item) in (Arguments { name, values }).list(0)?.iter().enumerate() {
        let value = as_float(*item).ok_or_else(|| format!("item {index} of the list is not a number"))?;
        result = Some(result.map_or(value, |so_far| combine(so_far, value)));
    }
    result.map_or(Ok(Value::Unit), |value| finite(name, value))
}

fn floats<'a>(name: &'static str, values: &[Value<'a>], bump: &'a Bump) -> Result<&'a mut [f64], String> {
    let items = Arguments { name, values }.list(0)?;
    let mut out = BumpVec::with_capacity_in(items.len(), bump);
    for (index, item) in items.iter().enumerate() {
        out.push(as_float(*item).ok_or_else(|| format!("item {index} of the list is not a number"))?);
    }
    Ok(out.into_bump_slice_mut())
}

/// The second argument: a list of names, sorted.
fn names<'a>(arguments: Arguments<'_, 'a>, bump: &'a Bump) -> Result<&'a [&'a str], String> {
    let mut out: BumpVec<'_, &str> = BumpVec::new_in(bump);
    for item in arguments.list(1)? {
        match item {
            Value::Text(name) => out.push(name),
            other => return Err(format!("`{}` takes a list of names, not of {}", arguments.name, kind(*other))),
        }
    }
    out.sort_unstable();
    Ok(out.into_bump_slice())
}

fn members_where<'a>(
    members: &'a [(&'a str, Value<'a>)],
    bump: &'a Bump,
    keep: impl Fn(&str, Value<'a>) -> bool,
) -> Value<'a> {
    let mut out = BumpVec::with_capacity_in(members.len(), bump);
    out.extend(members.iter().copied().filter(|(name, value)| keep(name, *value)));
    Value::Map(out.into_bump_slice())
}

fn is_simple(value: Value<'_>) -> bool {
    !matches!(value, Value::List(_) | Value::Map(_) | Value::Other(_))
}

/// The order of `sorted`.
fn order(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    let rank = |value: &Value<'_>| match value {
        Value::Unit => 0,
        Value::Bool(_) => 1,
        Value::Int(_) | Value::Float(_) | Value::Big(_) => 2,
        Value::Text(_) => 3,
        Value::List(_) | Value::Map(_) | Value::Other(_) => 4,
    };
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (a, b) if rank(a) == 2 && rank(b) == 2 => {
            let float = |value: &Value<'_>| match value {
                Value::Big(text) => text.parse().unwrap_or(f64::NAN),
                value => as_float(*value).unwrap_or(f64::NAN),
            };
            float(a).total_cmp(&float(b))
        }
        (a, b) => rank(a).cmp(&rank(b)),
    }
}
