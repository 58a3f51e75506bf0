//! What of the payloads of a pipeline a table will never take, told before there is a message: samples of what they may
//! be are given to the encoder, one field at a time. What fits is decided there and nowhere else.
use std::{collections::HashSet, sync::Arc};

use super::{
    encode::Surplus,
    rows::{Encoder, Layout, Rules},
    table::{Abilities, Table, TableName},
};
use crate::{
    client::clickhouse::Type,
    diagnostic::{Fault, nearest},
    output::Rejection,
    shape::{Field, Fields, Kind, Place, Shape},
};

/// A table whose columns are known.
pub struct Review<'a> {
    table: Arc<Table>,
    rules: Rules,
    name: &'a TableName,
    /// The server has told the columns: what is certain is an error. A file that says what they will be may be older
    /// than the table.
    is_told: bool,
    faults: Vec<Fault>,
    /// Columns that were most likely meant by a field of another name.
    meant: HashSet<String>,
}

/// One level on the way into a payload.
#[derive(Clone)]
enum Level {
    Key(String),
    Item,
}

impl<'a> Review<'a> {
    pub fn of(table: Arc<Table>, rules: Rules, name: &'a TableName, is_told: bool) -> Self {
        Self { table, rules, name, is_told, faults: Vec::new(), meant: HashSet::new() }
    }

    /// What is to be said of such payloads.
    pub fn payload(mut self, payload: &Shape) -> Vec<Fault> {
        let Some(kinds) = payload.kinds().filter(|_| self.table.writable().next().is_some()) else { return Vec::new() };
        let maps = kinds.iter().filter_map(|kind| match kind {
            Kind::Map(fields) => Some(fields),
            _ => None,
        });
        for fields in maps.clone() {
            let nothing_else = kinds.len() == 1;
            self.fields(&mut Vec::new(), fields, nothing_else);
            if nothing_else && !fields.open {
                self.unfilled(fields);
            }
        }
        if maps.count() == 0 && !kinds.is_empty() && kinds.iter().all(|kind| self.refusal(&[], kind).is_some()) {
            let title = format!("the payload is {}, and a row of `{}` is made of a map", either(kinds), self.name);
            let fault =
                Fault::new("unfit-value", "", title).label("not a map").help("end with `#{ column: value, … }`");
            self.push(fault, &Place::of_key(&[]), true);
        }
        self.faults
    }

    fn push(&mut self, fault: Fault, place: &Place, certain: bool) {
        let fault = Fault { path: place.path.clone(), at: place.at, of_payload: true, ..fault };
        self.faults.push(if certain && self.is_told { fault } else { fault.into_warning() });
    }

    fn fields(&mut self, path: &mut Vec<Level>, fields: &Fields, certain: bool) {
        for field in &fields.known {
            path.push(Level::Key(field.name.clone()));
            if self.has_place(path, field, fields, certain && field.certain) {
                self.value(path, &field.shape, &field.place, certain && field.certain);
            }
            path.pop();
        }
    }

    /// Whether the table has a place for a field; says so when not.
    fn has_place(&mut self, path: &[Level], field: &Field, beside: &Fields, certain: bool) -> bool {
        let is_refused = self.row(&json(path, "null")).is_some_and(|refused| refused.code == "unknown-field");
        let is_dropped =
            self.rules.surplus == Surplus::Drop && path.len() == 1 && self.table.target(&field.name).is_none();
        if !is_refused && !is_dropped {
            return true;
        }
        // One letter is as near to any other.
        let is_word = |name: &str| name.chars().count() > 2;
        let free = |name: &&String| is_word(name) && !beside.known.iter().any(|other| other.name == **name);
        let columns = self.places(path);
        let near = nearest(&field.name, columns.iter().filter(free).map(String::as_str));
        let near = near.filter(|_| is_word(&field.name)).map(str::to_owned);
        if is_dropped && near.is_none() {
            return false;
        }
        let title = match path {
            [_] => format!("table `{}` has no column `{}`", self.name, field.name),
            _ => format!("table `{}` has no place for `{}`", self.name, shown(path)),
        };
        let fault = Fault::new("unknown-column", "", title);
        let fault = match &near {
            Some(near) => fault.label(format!("did you mean `{near}`?")).replace(field.name.as_str(), near.as_str()),
            None => fault.label("no such column"),
        };
        let fault = match (is_dropped, columns.is_empty()) {
            (true, _) => fault.help("the field is left out of every row, since `unknown_fields` is `drop`"),
            (false, true) => fault.help("every message with it is refused; leave it out"),
            (false, false) => {
                let list = columns.iter().take(COLUMNS_SHOWN_MAX).map(|name| format!("`{name}`")).collect::<Vec<_>>();
                let more = if columns.len() > COLUMNS_SHOWN_MAX { ", …" } else { "" };
                fault.help(format!("every message with it is refused; columns: {}{more}", list.join(", ")))
            }
        };
        self.meant.extend(near);
        self.push(fault, &field.place, certain && is_refused);
        false
    }

    /// What may stand in the last place of a path, as far as that is told by columns.
    fn places(&self, path: &[Level]) -> Vec<String> {
        let all = || (0..self.table.targets()).map(|target| self.table.name(target).to_owned());
        match path {
            [_] => {
                let is_member = |name: &String| {
                    self.table.nested.iter().any(|nested| name.starts_with(&format!("{}.", nested.name)))
                };
                all().filter(|name| !is_member(name)).collect()
            }
            [Level::Key(of), .., Level::Key(_)] => {
                let nested = self.table.nested.iter().find(|nested| nested.name == *of);
                nested.map_or(Vec::new(), |nested| nested.members.iter().map(|(name, _)| name.clone()).collect())
            }
            _ => Vec::new(),
        }
    }

    /// Looks at what a field, or an item of a list, may be.
    fn value(&mut self, path: &mut Vec<Level>, shape: &Shape, place: &Place, certain: bool) {
        let Some(kinds) = shape.kinds() else { return };
        let refused: Vec<_> = kinds.iter().map(|kind| self.refusal(path, kind)).collect();
        let may = refused.iter().any(Option::is_none);
        for (kind, refused) in kinds.iter().zip(&refused) {
            let Some(reason) = refused else {
                match kind {
                    Kind::Map(fields) => self.fields(path, fields, certain && kinds.len() == 1),
                    // A tuple takes lists of its own length only, which is not known.
                    Kind::List(items) if self.row(&json(path, "[]")).is_none() => {
                        path.push(Level::Item);
                        self.value(path, items, place, false);
                        path.pop();
                    }
                    _ => {}
                }
                continue;
            };
            // Of several kinds, those that stand in the script itself were meant to be written.
            if may && !matches!(kind, Kind::Exactly(_)) {
                continue;
            }
            let (column, why) = reason.split_once("): `").map_or((reason.as_str(), ""), |(column, why)| (column, why));
            let column = if why.is_empty() { column.to_owned() } else { format!("{column})") };
            let what = if may { kind.to_string() } else { either(kinds) };
            let title =
                format!("`{}` {} {what}, which {column} never takes", shown(path), if may { "may be" } else { "is" });
            let label = match kind {
                Kind::Exactly(_) if !why.is_empty() => format!("`{why}"),
                _ => "every message with it is refused".to_owned(),
            };
            self.push(Fault::new("unfit-value", "", title).label(label), place, certain && !may);
            if !may {
                return;
            }
        }
    }

    /// Columns that no field fills, and that have nothing of their own to say then.
    fn unfilled(&mut self, fields: &Fields) {
        let given: HashSet<usize> = fields.known.iter().filter_map(|field| self.table.target(&field.name)).collect();
        let columns = &self.table.columns;
        let mut missing: Vec<&str> = Vec::new();
        for at in self.table.writable().filter(|at| !given.contains(at)) {
            let column = &columns[at];
            if column.has_default || is_nullable(&column.ty) {
                continue;
            }
            let name = match column.nested {
                Some(nested) if given.contains(&(columns.len() + nested)) => continue,
                // Beside a member that is given, the others are filled up to its length.
                Some(nested) if self.table.nested[nested].members.iter().any(|(_, at)| given.contains(at)) => continue,
                Some(nested) => &self.table.nested[nested].name,
                None => &column.name,
            };
            if !missing.contains(&name.as_str()) && !self.meant.contains(name) {
                missing.push(name);
            }
        }
        if missing.is_empty() {
            return;
        }
        let list: Vec<_> = missing.iter().take(COLUMNS_SHOWN_MAX).map(|name| format!("`{name}`")).collect();
        let more = if missing.len() > COLUMNS_SHOWN_MAX { ", …" } else { "" };
        let word = if missing.len() == 1 { "column" } else { "columns" };
        let title = format!("nothing fills {word} {}{more} of table `{}`", list.join(", "), self.name);
        let fault = Fault::new("unfilled-column", "", title)
            .label(format!("without {}", list[0]))
            .help("every row gets zero or an empty text there; give it, or let the table have a DEFAULT for it")
            .into_warning();
        self.push(fault, &fields.place, false);
    }

    /// Why no value of this kind fits there; none when one does.
    fn refusal(&self, path: &[Level], kind: &Kind) -> Option<String> {
        let samples = self.samples(path, kind);
        let mut refusals = samples.iter().map(|sample| self.row(&json(path, sample)));
        let first = refusals.next()??;
        refusals.all(|refused| refused.is_some()).then_some(first.reason)
    }

    /// Values of a kind, in JSON: for every type that takes any value of that kind, one that it takes.
    fn samples(&self, path: &[Level], kind: &Kind) -> Vec<String> {
        let column = match path.first() {
            Some(Level::Key(name)) => self.table.target(name),
            _ => None,
        };
        let nested = |target: usize| self.table.nested.get(target.wrapping_sub(self.table.columns.len()));
        let mut types = Vec::new();
        if let Some(target) = column {
            types.extend(self.table.columns.get(target).map(|column| &column.ty));
            types.extend(nested(target).iter().flat_map(|n| &n.members).map(|(_, at)| &self.table.columns[*at].ty));
        }
        samples(kind, &types)
    }

    /// What the encoder says of a payload.
    fn row(&self, payload: &str) -> Option<Rejection> {
        let layout = Layout::all(&self.table);
        let mut encoder = Encoder::new(self.table.clone(), layout, self.rules, 1, payload.len());
        encoder.message(0, payload.as_bytes(), None);
        encoder.finish(&Abilities::default()).rejected.pop()
    }
}

/// Names of columns in one text.
const COLUMNS_SHOWN_MAX: usize = 20;

fn is_nullable(ty: &Type) -> bool {
    match ty {
        Type::Nullable(_) => true,
        Type::LowCardinality(inner) => is_nullable(inner),
        _ => false,
    }
}

/// `value` where `path` leads to.
fn json(path: &[Level], value: &str) -> String {
    path.iter().rev().fold(value.to_owned(), |value, level| match level {
        Level::Key(name) => format!("{{{}:{value}}}", serde_json::Value::from(name.as_str())),
        Level::Item => format!("[{value}]"),
    })
}

/// A path as it is written: `accel.x`, `list[]`.
fn shown(path: &[Level]) -> String {
    path.iter().enumerate().fold(String::new(), |text, (at, level)| match level {
        Level::Key(name) if at == 0 => name.clone(),
        Level::Key(name) => format!("{text}.{name}"),
        Level::Item => format!("{text}[]"),
    })
}

fn either(kinds: &[Kind]) -> String {
    kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

fn samples(kind: &Kind, types: &[&Type]) -> Vec<String> {
    const INTS: [&str; 2] = ["0", "1"];
    const FLOATS: [&str; 3] = ["0.0", "1.0", "0.5"];
    const TEXTS: [&str; 6] = ["", "0", "1", "0.0.0.0", "::", "00000000-0000-0000-0000-000000000000"];
    let own = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let mut names = Vec::new();
    let mut tuple = None;
    types.iter().for_each(|ty| look(ty, &mut names, &mut tuple));
    let numbers = || names.iter().map(|(_, number)| number.to_string());
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match kind {
        Kind::Exactly(json) => vec![json.clone()],
        Kind::Like(json) => own(&[json]),
        Kind::Bool => own(&["true", "false"]),
        Kind::Int => own(&INTS).into_iter().chain(numbers()).collect(),
        Kind::Float => own(&FLOATS),
        Kind::Number => own(&INTS).into_iter().chain(own(&FLOATS)).chain(numbers()).collect(),
        Kind::Text => TEXTS.iter().map(|text| quoted(text)).chain(names.iter().map(|(name, _)| quoted(name))).collect(),
        // How many items there are is not known, and a tuple wants so many.
        Kind::List(_) if tuple.is_some() => Vec::new(),
        Kind::List(_) => own(&["[]"]),
        Kind::Map(_) => own(&["{}"]),
    }
}

/// The names of all enums in a type, and whether it holds tuples.
fn look<'t>(ty: &'t Type, names: &mut Vec<(&'t str, i16)>, tuple: &mut Option<()>) {
    match ty {
        Type::Enum(_, all) => names.extend(all.iter().map(|(name, number)| (name.as_str(), *number))),
        Type::Nullable(inner) | Type::LowCardinality(inner) | Type::Array(inner) => look(inner, names, tuple),
        Type::Tuple(elements) => {
            *tuple = Some(());
            elements.iter().for_each(|(_, ty)| look(ty, names, tuple));
        }
        Type::Map(key, value) => {
            look(key, names, tuple);
            look(value, names, tuple);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
