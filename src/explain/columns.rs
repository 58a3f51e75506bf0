//! Which columns the rows of a table get from payloads.
use serde::Serialize;

use crate::{
    config::{Document, Role, Slot},
    registry::Registry,
    shape::{Fields, Kind, Shape},
};

/// A column of a table that an output writes to.
#[derive(Debug, Serialize)]
pub struct Column {
    /// The label of the output.
    pub part: String,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub filled: Filled,
    /// `DEFAULT` and the like; empty when the type says what a row without a value gets.
    pub default_kind: String,
}

/// Whether payloads have a value for a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Filled {
    Always,
    Sometimes,
    Never,
    /// What payloads look like is not known beforehand.
    Unknown,
}

/// The columns of all outputs whose files tell them.
pub(super) fn columns(document: &Document, registry: &Registry, slots: &[Slot<'_>]) -> Vec<Column> {
    let steps = slots.iter().filter(|slot| slot.role == Role::Step);
    let steps: Vec<_> = steps.map(|slot| document.component(slot, registry)).collect();
    let (payload, _) = registry.made_by(steps.iter().map(Option::as_ref));
    let outputs = slots.iter().filter(|slot| slot.role == Role::Output);
    let of = |slot: &Slot<'_>| {
        let columns = document
            .component(slot, registry)
            .and_then(|output| Some(registry.find(slot.role.kind(), &output.name)?.columns(&output.section)));
        let part = slot.label.to_string();
        let column = |column: crate::output::Column| Column {
            part: part.clone(),
            filled: filled(&payload, &column.name),
            name: column.name,
            kind: column.kind,
            default_kind: column.default_kind,
        };
        columns.into_iter().flatten().map(column).collect::<Vec<_>>()
    };
    outputs.flat_map(of).collect()
}

/// Whether payloads have a field of that name; `a.b` may also stand in `a`, or in the items of a list there. Those that
/// are no map become no row.
fn filled(payload: &Shape, name: &str) -> Filled {
    let Some(kinds) = payload.kinds() else { return Filled::Unknown };
    let maps = kinds.iter().filter_map(|kind| match kind {
        Kind::Map(fields) => Some(fields),
        _ => None,
    });
    either(maps.map(|fields| in_map(fields, name)))
}

fn in_map(fields: &Fields, name: &str) -> Filled {
    let field = |name: &str| fields.known.iter().find(|field| field.name == name);
    if let Some(field) = field(name) {
        return if field.certain { Filled::Always } else { Filled::Sometimes };
    }
    let outer = name.split_once('.').and_then(|(outer, inner)| Some((field(outer)?, inner)));
    match outer {
        Some((outer, inner)) => match within(&outer.shape, inner) {
            Filled::Always if !outer.certain => Filled::Sometimes,
            filled => filled,
        },
        None if fields.open => Filled::Unknown,
        None => Filled::Never,
    }
}

fn within(shape: &Shape, name: &str) -> Filled {
    let Some(kinds) = shape.kinds() else { return Filled::Unknown };
    either(kinds.iter().map(|kind| match kind {
        Kind::Map(fields) => in_map(fields, name),
        Kind::List(items) => within(items, name),
        Kind::Exactly(_) => Filled::Unknown,
        _ => Filled::Never,
    }))
}

/// What holds when one of these does.
fn either(all: impl Iterator<Item = Filled>) -> Filled {
    let mut all = all.collect::<Vec<_>>();
    all.dedup();
    match all.as_slice() {
        [one] => *one,
        [] => Filled::Unknown,
        several if several.contains(&Filled::Unknown) => Filled::Unknown,
        _ => Filled::Sometimes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Field;

    fn map(known: &[(&str, bool)], open: bool) -> Kind {
        let field = |(name, certain): &(&str, bool)| Field {
            name: (*name).to_owned(),
            shape: Shape::Any,
            certain: *certain,
            place: Default::default(),
        };
        Kind::Map(Fields { known: known.iter().map(field).collect(), open, place: Default::default() })
    }

    #[test]
    fn a_column_is_filled_as_often_as_all_kinds_of_payloads_say() {
        let one = |kinds: Vec<Kind>| ["a", "b", "c"].map(|name| filled(&Shape::OneOf(kinds.clone()), name));
        use Filled::{Always, Never, Sometimes, Unknown};
        assert_eq!(one(vec![map(&[("a", true), ("b", false)], false)]), [Always, Sometimes, Never]);
        assert_eq!(one(vec![map(&[("a", true)], true)]), [Always, Unknown, Unknown]);
        assert_eq!(
            one(vec![map(&[("a", true), ("b", true)], false), map(&[("a", true)], false)]),
            [Always, Sometimes, Never]
        );
        assert_eq!(one(vec![map(&[("a", true)], false), map(&[], true)]), [Unknown; 3]);
        assert_eq!(one(vec![map(&[("a", true)], false), Kind::Bool]), [Always, Never, Never]);
        assert_eq!(one(vec![Kind::Bool]), [Unknown; 3]);
        assert_eq!(filled(&Shape::Any, "a"), Unknown);
        let outer = |inner: Kind, certain| {
            let mut fields = Fields::default();
            fields.known.push(Field {
                name: "accel".into(),
                shape: Shape::OneOf(vec![inner]),
                certain,
                place: Default::default(),
            });
            Shape::OneOf(vec![Kind::Map(fields)])
        };
        let inner = || map(&[("x", true), ("y.z", false)], false);
        let many = Kind::List(Box::new(Shape::OneOf(vec![inner()])));
        for shape in [outer(inner(), true), outer(many, true)] {
            assert_eq!(
                ["accel.x", "accel.y.z", "accel.q"].map(|name| filled(&shape, name)),
                [Always, Sometimes, Never]
            );
        }
        assert_eq!(filled(&outer(inner(), false), "accel.x"), Sometimes);
    }
}
