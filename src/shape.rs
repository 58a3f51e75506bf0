//! What payloads look like, as far as it can be told without a message: their fields, and what kinds of values these
//! have. Steps say what they make, outputs what of it they can never write.
//!
//! A shape never claims too much: whatever is not certain is `Any`, and a payload that really comes along is always
//! among what its shape admits. So a finding that rests on a shape is never a false alarm.
use crate::diagnostic::PathSegment;

/// What one value may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Nothing is known of it.
    Any,
    /// One of these. None at all: there is never such a value.
    OneOf(Vec<Kind>),
}

/// What a value may be, as JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// This JSON, null among them: something that stands in the settings or in the script itself.
    Exactly(String),
    Bool,
    /// A number without point and exponent.
    Int,
    /// A number with a point or an exponent.
    Float,
    /// Any number.
    Number,
    Text,
    /// A text in the form of this one, which is given as JSON.
    Like(&'static str),
    List(Box<Shape>),
    Map(Fields),
}

/// The fields of a map.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields {
    pub known: Vec<Field>,
    /// There may be others.
    pub open: bool,
    /// Where the map is made.
    pub place: Place,
}

/// One field of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub name: String,
    pub shape: Shape,
    /// It is there in every such map.
    pub certain: bool,
    /// Where it is given.
    pub place: Place,
}

/// A place in the settings of the step that makes the payload: a setting, and a line and column of the script in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub path: Vec<PathSegment>,
    pub at: Option<(usize, usize)>,
}

impl Place {
    /// Where the key of a setting stands.
    pub fn of_key(path: &[&str]) -> Self {
        // Of what is not there, diagnostics show the key that it would stand under.
        let path = path.iter().chain(&[""]).map(|key| PathSegment::Key((*key).to_owned()));
        Self { path: path.collect(), at: None }
    }
}

/// A shape of more kinds is `Any`.
const KINDS_MAX: usize = 24;

impl Shape {
    /// There is never such a value.
    pub const NEVER: Self = Self::OneOf(Vec::new());

    /// Always of this kind.
    pub fn one(kind: Kind) -> Self {
        Self::OneOf(vec![kind])
    }

    /// Always this JSON.
    pub fn exactly(json: impl Into<String>) -> Self {
        Self::one(Kind::Exactly(json.into()))
    }

    /// Always null.
    pub fn null() -> Self {
        Self::exactly("null")
    }

    /// The kinds, when all are known.
    pub fn kinds(&self) -> Option<&[Kind]> {
        match self {
            Self::Any => None,
            Self::OneOf(kinds) => Some(kinds),
        }
    }

    /// The fields, when it is always a map.
    pub fn fields(&self) -> Option<&Fields> {
        match self.kinds()? {
            [Kind::Map(fields)] => Some(fields),
            _ => None,
        }
    }

    /// The one or the other.
    pub fn or(self, other: Self) -> Self {
        let (Self::OneOf(mut kinds), Self::OneOf(others)) = (self, other) else { return Self::Any };
        for other in others {
            kinds = add(kinds, other);
        }
        if kinds.len() > KINDS_MAX { Self::Any } else { Self::OneOf(kinds) }
    }

    /// The same without null.
    pub fn unless_null(self) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::OneOf(kinds) => Self::OneOf(kinds.into_iter().filter(|kind| !kind.is_null()).collect()),
        }
    }

    /// What the field `name` of it is.
    pub fn get(&self, name: &str) -> Self {
        let Some(fields) = self.clone().unless_null().fields().cloned() else { return Self::Any };
        match fields.known.into_iter().find(|field| field.name == name) {
            Some(field) if field.certain => field.shape,
            None if !fields.open => Self::null(),
            _ => Self::Any,
        }
    }

    /// What is known of it where only some of such payloads go on: what only some of them have may be what the others
    /// had.
    pub fn narrowed(self) -> Self {
        let Self::OneOf(mut kinds) = self else { return Self::Any };
        match (kinds.pop(), kinds.is_empty()) {
            (Some(Kind::Map(Fields { known, open, place })), true) => {
                let open = open || known.iter().any(|field| !field.certain);
                let known = known.into_iter().filter(|field| field.certain);
                let known = known.map(|field| Field { shape: field.shape.narrowed(), ..field }).collect();
                Self::one(Kind::Map(Fields { known, open, place }))
            }
            (Some(kind), true) => Self::one(kind),
            _ => Self::Any,
        }
    }

    /// The same, every place changed.
    pub fn at(self, change: &dyn Fn(Place) -> Place) -> Self {
        let Self::OneOf(kinds) = self else { return Self::Any };
        let kind = |kind| match kind {
            Kind::List(item) => Kind::List(Box::new(item.at(change))),
            Kind::Map(Fields { known, open, place }) => {
                let field = |field: Field| Field { shape: field.shape.at(change), place: change(field.place), ..field };
                Kind::Map(Fields { known: known.into_iter().map(field).collect(), open, place: change(place) })
            }
            kind => kind,
        };
        Self::OneOf(kinds.into_iter().map(kind).collect())
    }
}

impl Kind {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Exactly(json) if json == "null")
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(json) => write!(f, "`{json}`"),
            Self::Bool => f.write_str("true or false"),
            Self::Int => f.write_str("a whole number"),
            Self::Float => f.write_str("a number with a fraction"),
            Self::Number => f.write_str("a number"),
            Self::Text => f.write_str("a text"),
            Self::Like(json) => write!(f, "a text like `{json}`"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
        }
    }
}

impl Fields {
    /// Sets a field, which is then there for certain.
    pub fn set(&mut self, field: Field) {
        self.known.retain(|known| known.name != field.name);
        self.known.push(field);
    }

    fn or(self, other: Self) -> Self {
        let mut known: Vec<Field> = Vec::new();
        for field in &self.known {
            known.push(match other.known.iter().find(|same| same.name == field.name) {
                Some(same) => Field {
                    shape: field.shape.clone().or(same.shape.clone()),
                    certain: field.certain && same.certain,
                    ..field.clone()
                },
                // Where the other map is open, it may be there as something else.
                None => Field {
                    shape: if other.open { Shape::Any } else { field.shape.clone() },
                    certain: false,
                    ..field.clone()
                },
            });
        }
        for field in other.known {
            if !known.iter().any(|same| same.name == field.name) {
                let shape = if self.open { Shape::Any } else { field.shape };
                known.push(Field { shape, certain: false, ..field });
            }
        }
        Self { known, open: self.open || other.open, place: self.place }
    }
}

fn add(mut kinds: Vec<Kind>, other: Kind) -> Vec<Kind> {
    match other {
        Kind::Map(other) => match kinds.iter().position(|kind| matches!(kind, Kind::Map(_))) {
            Some(at) => {
                let Kind::Map(fields) = kinds.remove(at) else { unreachable!("it was looked for") };
                kinds.insert(at, Kind::Map(fields.or(other)));
            }
            None => kinds.push(Kind::Map(other)),
        },
        Kind::List(other) => match kinds.iter().position(|kind| matches!(kind, Kind::List(_))) {
            Some(at) => {
                let Kind::List(items) = kinds.remove(at) else { unreachable!("it was looked for") };
                kinds.insert(at, Kind::List(Box::new(items.or(*other))));
            }
            None => kinds.push(Kind::List(other)),
        },
        other if kinds.contains(&other) => {}
        other => kinds.push(other),
    }
    kinds
}

/// Whether a shape admits a value: what tests hold against what really comes along.
#[cfg(test)]
pub(crate) fn admits(shape: &Shape, value: &serde_json::Value) -> bool {
    use serde_json::Value;
    let Some(kinds) = shape.kinds() else { return true };
    kinds.iter().any(|kind| match (kind, value) {
        (Kind::Exactly(json), value) => serde_json::from_str::<Value>(json).unwrap() == *value,
        (Kind::Bool, Value::Bool(_)) | (Kind::Text | Kind::Like(_), Value::String(_)) => true,
        (Kind::Int, Value::Number(number)) => !number.is_f64(),
        (Kind::Float, Value::Number(number)) => number.is_f64(),
        (Kind::Number, Value::Number(_)) => true,
        (Kind::List(items), Value::Array(values)) => values.iter().all(|value| admits(items, value)),
        (Kind::Map(fields), Value::Object(members)) => {
            let known = |name: &String| fields.known.iter().any(|field| field.name == *name);
            fields.known.iter().all(|field| match members.get(&field.name) {
                Some(value) => admits(&field.shape, value),
                None => !field.certain,
            }) && (fields.open || members.keys().all(known))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, shape: Shape) -> Field {
        Field { name: name.into(), shape, certain: true, place: Place::default() }
    }

    fn map(known: Vec<Field>) -> Shape {
        Shape::one(Kind::Map(Fields { known, ..Fields::default() }))
    }

    #[test]
    fn what_one_of_two_maps_has_is_not_certain() {
        let one = map(vec![field("a", Shape::one(Kind::Int)), field("b", Shape::null())]);
        let two = map(vec![field("a", Shape::one(Kind::Text))]);
        let both = one.or(two);
        assert_eq!(both.get("a"), Shape::OneOf(vec![Kind::Int, Kind::Text]));
        assert_eq!((both.get("b"), both.get("c")), (Shape::Any, Shape::null()));
        let fields = both.narrowed().fields().cloned().unwrap();
        assert_eq!(fields.known, [field("a", Shape::Any)]);
        assert!(fields.open);
    }

    #[test]
    fn what_may_be_anything_is_any() {
        assert_eq!(Shape::Any.or(Shape::null()), Shape::Any);
        assert_eq!(Shape::NEVER.or(Shape::null()), Shape::null());
        assert_eq!(Shape::null().or(Shape::one(Kind::Int)).unless_null(), Shape::one(Kind::Int));
        let many = (0..100).fold(Shape::NEVER, |all, n| all.or(Shape::exactly(n.to_string())));
        assert_eq!(many, Shape::Any);
    }
}
