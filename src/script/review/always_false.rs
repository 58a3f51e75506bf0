//! Rule `always-false`: see its text in `diagnostic/rules`. Only what is certain: the types of what streamer itself gives,
//! and two comparisons of the same value that exclude each other.
use super::{
    super::syntax::{Expr, ExprKind, Operator},
    Known, path, warning,
};
use crate::diagnostic::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Text,
    /// An integer or a float.
    Number,
    Bool,
    List,
    Map,
}

pub(super) fn check(expression: &Expr, known: &Known<'_>) -> Option<Fault> {
    match &expression.kind {
        ExprKind::Operator(Operator::Equal, sides) if matches!(known, Known::Message) => {
            let [left, right] = sides.as_slice() else { return None };
            [(left, right), (right, left)].into_iter().find_map(|(known, literal)| equal(expression, known, literal))
        }
        ExprKind::And(parts) => together(parts),
        _ => None,
    }
}

/// `meta.qos == "1"`, `meta.topic == "a/+"`.
fn equal(whole: &Expr, known: &Expr, literal: &Expr) -> Option<Fault> {
    let name = path(known)?;
    let of = given(&name)?;
    let is = literal_type(literal)?;
    if of != is {
        let title = format!("`{name}` is {}, and never equal to {}", word(of, &name), literal_word(literal));
        let fault = warning("always-false", whole.at, title)?.label("always false");
        return Some(match (of, literal_word(literal)) {
            (Type::Number, "text") => fault.help("compare it with a number, without quotes"),
            (Type::Bool, "text") => fault.help(format!("`{name}` is a condition by itself")),
            _ => fault,
        });
    }
    let ExprKind::Text(text) = &literal.kind else { return None };
    let is_wildcard = text.split('/').any(|level| level == "+" || level == "#");
    if name == "meta.topic" && is_wildcard {
        let title = format!("a topic never has a wildcard, so it is never `{text}`");
        let fault = warning("always-false", whole.at, title)?.label("always false");
        return Some(fault.help("look at `meta.levels`, or at a part: `meta.topic.starts_with(\"devices/\")`"));
    }
    None
}

/// What streamer gives to every script, and its type.
fn given(name: &str) -> Option<Type> {
    Some(match name {
        "text" | "meta.topic" | "meta.key" => Type::Text,
        "is_json" | "meta.retain" => Type::Bool,
        "meta.qos"
        | "meta.partition"
        | "meta.offset"
        | "meta.part"
        | "meta.timestamp_ms"
        | "meta.received_at"
        | "meta.received_at_ms" => Type::Number,
        "meta.levels" => Type::List,
        "meta.headers" => Type::Map,
        _ => return None,
    })
}

fn literal_type(literal: &Expr) -> Option<Type> {
    Some(match literal.kind {
        ExprKind::Text(_) => Type::Text,
        ExprKind::Int(_) | ExprKind::Float(_) => Type::Number,
        ExprKind::Bool(_) => Type::Bool,
        _ => return None,
    })
}

fn literal_word(literal: &Expr) -> &'static str {
    match literal.kind {
        ExprKind::Text(_) => "text",
        ExprKind::Int(_) => "an integer",
        ExprKind::Float(_) => "a float",
        _ => "true or false",
    }
}

fn word(of: Type, name: &str) -> &'static str {
    match of {
        Type::Text => "text",
        Type::Number if name == "meta.qos" => "an integer",
        Type::Number => "a number",
        Type::Bool => "true or false",
        Type::List => "a list",
        Type::Map => "a map",
    }
}

/// `x > 5 && x < 3`, `x == 1 && x == 2`.
fn together(parts: &[Expr]) -> Option<Fault> {
    let bounds: Vec<Bound<'_>> = parts.iter().filter_map(Bound::of).collect();
    bounds.iter().enumerate().find_map(|(index, second)| {
        let first = bounds[..index].iter().find(|first| first.name == second.name && first.excludes(second))?;
        let title = format!("`{}` cannot be {} and {}", second.name, first.words(), second.words());
        Some(warning("always-false", second.at, title)?.label("never together").help("one of the two is not meant so"))
    })
}

/// One comparison of a value with a literal.
struct Bound<'a> {
    name: String,
    operator: Operator,
    literal: &'a ExprKind,
    at: (usize, usize),
}

impl<'a> Bound<'a> {
    fn of(expression: &'a Expr) -> Option<Self> {
        let ExprKind::Operator(operator, sides) = &expression.kind else { return None };
        let [value, literal] = sides.as_slice() else { return None };
        let compares = matches!(
            operator,
            Operator::Equal | Operator::Less | Operator::LessEqual | Operator::Greater | Operator::GreaterEqual
        );
        literal_type(literal).filter(|_| compares)?;
        Some(Self { name: path(value)?, operator: *operator, literal: &literal.kind, at: expression.at })
    }

    fn number(&self) -> Option<f64> {
        match self.literal {
            #[expect(clippy::cast_precision_loss, reason = "only compared with another literal of a script")]
            ExprKind::Int(value) => Some(*value as f64),
            ExprKind::Float(value) => Some(*value),
            _ => None,
        }
    }

    fn excludes(&self, other: &Self) -> bool {
        use Operator::{Equal, Greater, GreaterEqual, Less, LessEqual};
        if let (Some(a), Some(b)) = (self.number(), other.number()) {
            return match (self.operator, other.operator) {
                (Equal, Equal) => a != b,
                (Equal, Less) | (Greater | GreaterEqual, Less) => a >= b,
                (Equal, LessEqual) | (GreaterEqual, LessEqual) => a > b,
                (Greater, LessEqual) => a >= b,
                (Equal, Greater) | (Less | LessEqual, Greater) => a <= b,
                (Equal, GreaterEqual) | (LessEqual, GreaterEqual) => a < b,
                (Less, GreaterEqual) => a <= b,
                (Less | LessEqual | Greater | GreaterEqual, Equal) => other.excludes(self),
                _ => false,
            };
        }
        match (self.literal, other.literal) {
            (ExprKind::Text(a), ExprKind::Text(b)) => (self.operator, other.operator) == (Equal, Equal) && a != b,
            (ExprKind::Bool(a), ExprKind::Bool(b)) => (self.operator, other.operator) == (Equal, Equal) && a != b,
            _ => false,
        }
    }

    fn words(&self) -> String {
        let value = match self.literal {
            ExprKind::Text(text) => format!("`{text}`"),
            ExprKind::Bool(value) => value.to_string(),
            _ => self.number().unwrap_or_default().to_string(),
        };
        match self.operator {
            Operator::Less => format!("less than {value}"),
            Operator::LessEqual => format!("at most {value}"),
            Operator::Greater => format!("more than {value}"),
            Operator::GreaterEqual => format!("at least {value}"),
            _ => value,
        }
    }
}
