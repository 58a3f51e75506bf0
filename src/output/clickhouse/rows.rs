//! Messages to rows: each payload is one JSON object, its fields are the columns.
//!
//! The object is scanned once, here or by the step that has made it, and its values stay slices of the payload until they
//! are bytes of a column; nothing is allocated per row. A field that is missing takes the column's DEFAULT: a column that no row of the batch has is left
//! out of the insert; one that only some rows have needs a format that can say so row by row.
use std::{borrow::Cow, fmt, sync::Arc};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    block::{Block, BlockWriter},
    encode::{
        Misfit, Surplus, encode,
        json::{Elements, Members, Value},
        put_bytes, put_len, put_zero,
    },
    table::{Abilities, Table, Target},
};
use crate::{
    client::clickhouse::{Type, shorten},
    message::{self, Document, NodeId, SlotKind},
    output::Rejection,
};

/// How strict to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What happens to fields that the table has no column for.
    pub surplus: Surplus,
    /// A scalar for a member of a `Nested` becomes an array of one.
    pub wrap_scalars: bool,
}

/// Which columns an insert lists, and whether each value is preceded by a byte that says "take the DEFAULT".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub columns: Vec<usize>,
    pub flags: bool,
}

impl Layout {
    /// Every column that can be written.
    pub fn all(table: &Table) -> Self {
        Self { columns: table.writable().collect(), flags: false }
    }

    /// Names and types, for the formats that start with them.
    pub fn header(&self, table: &Table) -> Vec<u8> {
        let mut out = Vec::new();
        put_len(self.columns.len(), &mut out);
        let columns = || self.columns.iter().map(|&c| &table.columns[c]);
        columns().for_each(|column| put_bytes(column.name.as_bytes(), &mut out));
        columns().for_each(|column| put_bytes(column.type_text.as_bytes(), &mut out));
        out
    }
}

/// What came of a batch.
#[derive(Debug)]
pub struct Encoded {
    /// The rows, and how they are laid out. More than one block only when rows are far larger than their messages.
    pub blocks: Vec<Block>,
    pub layout: Layout,
    /// Messages that do not fit the table.
    pub rejected: Vec<Rejection>,
    /// The layout that this batch needs, when it is not the one it was encoded with: encode it again.
    pub better: Option<Layout>,
}

impl Encoded {
    /// True when a message was refused because of what the columns are, so that columns read anew could take it.
    pub fn blames_the_table(&self) -> bool {
        self.rejected.iter().any(|r| !matches!(r.code.as_str(), "not-json" | "not-an-object"))
    }
}

/// A body is closed at this size, for the case of few bytes of JSON and many columns.
const BODY_BYTES_MAX: usize = 256 << 20;

/// Where a value lies in the payload. Empty: the field is missing.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    start: usize,
    len: usize,
}

impl Slot {
    /// `value` is a slice of `text`.
    fn new(text: &str, value: &str) -> Self {
        Self { start: value.as_ptr() as usize - text.as_ptr() as usize, len: value.len() }
    }

    fn of(self, text: &str) -> &str {
        &text[self.start..][..self.len]
    }

    fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// Turns messages of one batch into rows.
pub struct Encoder {
    table: Arc<Table>,
    rules: Rules,
    layout: Layout,
    writer: BlockWriter,
    blocks: Vec<Block>,
    /// A block that has grown to this is finished.
    block_bytes_max: usize,
    rejected: Vec<Rejection>,
    /// For each column, in how many rows it was there and in how many it was missing: yes or no.
    seen: Vec<(bool, bool)>,
    scratch: Scratch,
}

/// Reused from row to row.
struct Scratch {
    /// One for each target of the table.
    slots: Vec<Slot>,
    /// The target of the nth field of the last object: senders keep the order of their fields.
    order: Vec<Target>,
    /// The layout of the documents at hand, and the target of each of its members.
    members: Option<(Arc<message::Layout>, Vec<Option<Target>>)>,
    /// Values of members of a `Nested`, by column: how many, and their bytes.
    nested: Vec<(Option<usize>, Vec<u8>)>,
}

impl Encoder {
    /// An encoder for about `messages` messages of `bytes` bytes together.
    pub fn new(table: Arc<Table>, layout: Layout, rules: Rules, messages: usize, bytes: usize) -> Self {
        let columns = table.columns.len();
        Self {
            rules,
            layout,
            writer: BlockWriter::with_capacity(messages, bytes.min(BODY_BYTES_MAX)),
            blocks: Vec::new(),
            block_bytes_max: BODY_BYTES_MAX,
            rejected: Vec::new(),
            seen: vec![(false, false); columns],
            scratch: Scratch {
                slots: vec![Slot::default(); table.targets()],
                order: Vec::new(),
                members: None,
                nested: vec![(None, Vec::new()); columns],
            },
            table,
        }
    }

    /// The same, all rows in one block however large it gets.
    pub fn in_one_block(self) -> Self {
        Self { block_bytes_max: usize::MAX, ..self }
    }

    /// Adds a message, or rejects it. `document` is the scan of its payload, when a step has made one.
    pub fn message(&mut self, index: u32, payload: &[u8], document: Option<Document<'_>>) {
        if let Err(Refusal { code, reason }) = self.row(index, payload, document) {
            self.rejected.push(Rejection { index, code: code.to_owned(), reason });
        }
        if self.writer.bytes() >= self.block_bytes_max {
            self.blocks.push(std::mem::take(&mut self.writer).finish());
        }
    }

    /// What came of it. `abilities` decides whether rows may differ in which columns they have.
    pub fn finish(mut self, abilities: &Abilities) -> Encoded {
        let last = self.writer.finish();
        if !last.is_empty() {
            self.blocks.push(last);
        }
        let by_row = |c: usize| self.table.columns[c].has_default && self.seen[c] == (true, true);
        let never = |c: usize| self.table.columns[c].has_default && !self.seen[c].0;
        let mut wanted = Layout { columns: self.table.writable().filter(|&c| !never(c)).collect(), flags: false };
        if wanted.columns.is_empty() {
            // An insert must list a column; `{}` is a row of nothing but DEFAULTs.
            wanted = Layout { flags: true, ..Layout::all(&self.table) };
        }
        wanted.flags |= wanted.columns.iter().any(|&c| by_row(c));
        wanted.flags &= abilities.format(true).is_some();
        // Flags for columns that would not need them cost a byte each and do no harm where types are still checked.
        let covers = self.layout.flags && abilities.format(true).is_some_and(|(_, is_typed)| is_typed);
        let is_enough = self.blocks.is_empty()
            || wanted == self.layout
            || (covers && wanted.columns.iter().all(|c| self.layout.columns.contains(c)));
        Encoded {
            blocks: self.blocks,
            rejected: self.rejected,
            better: (!is_enough).then_some(wanted),
            layout: self.layout,
        }
    }

    fn row(&mut self, index: u32, payload: &[u8], document: Option<Document<'_>>) -> Result<(), Refusal> {
        let text = simdutf8::basic::from_utf8(payload)
            .map_err(|_| Refusal::new("not-json", "the payload is not UTF-8".to_owned()))?;
        self.scratch.slots.fill(Slot::default());
        match document.filter(Document::is_complete) {
            Some(document) => take_members(&self.table, self.rules, document, text, &mut self.scratch)?,
            None => read_object(&self.table, self.rules, text, &mut self.scratch)?,
        }
        for nested in 0..self.table.nested.len() {
            self.gather_nested(nested, text)?;
        }
        let Self { table, layout, writer, rules, seen, scratch, .. } = self;
        // Refused rows count too, so that encoding again with the better layout sees the same.
        for (at, seen) in seen.iter_mut().enumerate() {
            let is_there = !scratch.slots[at].is_empty() || scratch.nested[at].0.is_some();
            seen.0 |= is_there;
            seen.1 |= !is_there;
        }
        writer.row(index, |out| {
            for &at in &layout.columns {
                let column = &table.columns[at];
                let (count, elements) = &scratch.nested[at];
                let slot = scratch.slots[at];
                let is_missing = slot.is_empty() && (column.nested.is_none() || count.is_none());
                if layout.flags {
                    out.push(is_missing.into());
                    if is_missing {
                        continue;
                    }
                }
                match count {
                    Some(count) if column.nested.is_some() => {
                        put_len(*count, out);
                        out.extend_from_slice(elements);
                    }
                    _ if is_missing => out.extend_from_slice(&column.zero),
                    _ => encode(&column.ty, slot.of(text), rules.surplus, out)
                        .map_err(|misfit| Refusal::misfit(&column.name, &column.type_text, misfit))?,
                }
            }
            Ok(())
        })
    }

    /// Turns what a row has for the members of a `Nested` into arrays of equal length, whatever shape it came in.
    fn gather_nested(&mut self, index: usize, text: &str) -> Result<(), Refusal> {
        let Self { table, scratch: Scratch { slots, nested: arrays, .. }, rules, .. } = self;
        let nested = &table.nested[index];
        for &(_, column) in &nested.members {
            arrays[column].0 = None;
            arrays[column].1.clear();
        }
        let whole = table.columns.len() + index;
        if !slots[whole].is_empty() {
            if let Some((member, _)) = nested.members.iter().find(|(_, column)| !slots[*column].is_empty()) {
                let reason = format!("`{0}` is given twice, as `{0}` and as `{0}.{member}`", nested.name);
                return Err(Refusal::new("column-type", reason));
            }
            let value = slots[whole].of(text);
            match Value::of(value) {
                Value::Object(members) => spread_object(table, index, members, text, slots, *rules)?,
                Value::Array(elements) => spread_objects(table, index, elements, arrays, *rules)?,
                _ => {
                    let what = Misfit::kind(value, "an object, or an array of objects");
                    return Err(Refusal::misfit(&nested.name, "Nested", what));
                }
            }
        }
        let mut first: Option<(&str, usize)> = None;
        for (_, at) in &nested.members {
            let column = &table.columns[*at];
            let (count, bytes) = &mut arrays[*at];
            if !slots[*at].is_empty() {
                let value = slots[*at].of(text);
                *count = Some(
                    array_of(&column.ty, value, *rules, bytes)
                        .map_err(|misfit| Refusal::misfit(&column.name, &column.type_text, misfit))?,
                );
            }
            match (first, *count) {
                (None, Some(count)) => first = Some((&column.name, count)),
                (Some((name, expected)), Some(count)) if count != expected => {
                    let reason = format!(
                        "column `{}` has {count} elements and `{name}` has {expected}; those of one Nested must be equal",
                        column.name
                    );
                    return Err(Refusal::new("column-type", reason));
                }
                _ => {}
            }
        }
        // What is missing next to members that are there is filled up to their length, as the server does.
        if let Some((_, expected)) = first {
            for (_, at) in &nested.members {
                let column = &table.columns[*at];
                let (count, bytes) = &mut arrays[*at];
                if let (None, Some(inner), false) = (*count, element_type(&column.ty), column.has_default) {
                    (0..expected).for_each(|_| put_zero(inner, bytes));
                    *count = Some(expected);
                }
            }
        }
        Ok(())
    }
}

/// Why a message is no row.
struct Refusal {
    code: &'static str,
    reason: String,
}

impl Refusal {
    fn new(code: &'static str, reason: String) -> Self {
        Self { code, reason }
    }

    fn misfit(column: &str, type_text: &str, misfit: Misfit) -> Self {
        Self::new(misfit.code, format!("column `{column}` ({}): {}", shorten(type_text, 80), misfit.what))
    }

    fn unknown(field: &str) -> Self {
        let field = shorten(field, 80);
        Self::new("unknown-field", format!("the table has no column for the field `{field}`"))
    }
}

fn element_type(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Array(inner) => Some(inner),
        _ => None,
    }
}

/// Appends the elements of an array, or one scalar, without a count; answers how many.
fn array_of(ty: &Type, text: &str, rules: Rules, out: &mut Vec<u8>) -> Result<usize, Misfit> {
    let inner = element_type(ty).expect("members of a Nested are arrays");
    match Value::of(text) {
        Value::Array(elements) => {
            let mut count = 0;
            for element in elements {
                encode(inner, element, rules.surplus, out)?;
                count += 1;
            }
            Ok(count)
        }
        _ if rules.wrap_scalars => encode(inner, text, rules.surplus, out).map(|()| 1),
        _ => Err(Misfit::kind(text, "an array, and `nested_scalar_wrap` is off")),
    }
}

/// `accel: {x: …, y: …}`: the members are where flat fields `accel.x`, `accel.y` would be.
fn spread_object(
    table: &Table,
    index: usize,
    members: Members<'_>,
    text: &str,
    slots: &mut [Slot],
    rules: Rules,
) -> Result<(), Refusal> {
    let nested = &table.nested[index];
    for (name, value) in members {
        let name = name.decode().unwrap_or(Cow::Borrowed("\u{fffd}"));
        match nested.members.iter().find(|(member, _)| *member == name) {
            Some(&(_, column)) => slots[column] = Slot::new(text, value),
            None if rules.surplus == Surplus::Reject => {
                return Err(Refusal::unknown(&format!("{}.{name}", nested.name)));
            }
            None => {}
        }
    }
    Ok(())
}

/// `accel: [{x: …, y: …}, …]`: rows become columns.
fn spread_objects(
    table: &Table,
    index: usize,
    elements: Elements<'_>,
    arrays: &mut [(Option<usize>, Vec<u8>)],
    rules: Rules,
) -> Result<(), Refusal> {
    let nested = &table.nested[index];
    let mut count = 0;
    for element in elements {
        let Value::Object(members) = Value::of(element) else {
            let misfit = Misfit::kind(element, "an object, as an element of an array must be");
            return Err(Refusal::misfit(&nested.name, "Nested", misfit));
        };
        for (name, value) in members {
            let name = name.decode().unwrap_or(Cow::Borrowed("\u{fffd}"));
            let Some(&(_, at)) = nested.members.iter().find(|(member, _)| *member == name) else {
                if rules.surplus == Surplus::Reject {
                    return Err(Refusal::unknown(&format!("{}.{name}", nested.name)));
                }
                continue;
            };
            let column = &table.columns[at];
            let (done, bytes) = &mut arrays[at];
            if *done == Some(count + 1) {
                let reason = format!("`{}` is given twice in one element", column.name);
                return Err(Refusal::new("column-type", reason));
            }
            let inner = element_type(&column.ty).expect("members of a Nested are arrays");
            encode(inner, value, rules.surplus, bytes)
                .map_err(|misfit| Refusal::misfit(&column.name, &column.type_text, misfit))?;
            *done = Some(count + 1);
        }
        count += 1;
        for &(_, at) in &nested.members {
            let (done, bytes) = &mut arrays[at];
            if *done != Some(count) {
                put_zero(element_type(&table.columns[at].ty).expect("members of a Nested are arrays"), bytes);
                *done = Some(count);
            }
        }
    }
    for &(_, at) in &nested.members {
        arrays[at].0 = Some(count);
    }
    Ok(())
}

/// Notes where in `text` the value of each column lies, from what the step that made it has noted.
fn take_members(
    table: &Table,
    rules: Rules,
    document: Document<'_>,
    text: &str,
    scratch: &mut Scratch,
) -> Result<(), Refusal> {
    let Scratch { slots, members, .. } = scratch;
    let keys = &document.layout.node(NodeId::ROOT).keys;
    let targets = match members {
        Some((layout, targets)) if Arc::ptr_eq(layout, document.layout) => targets,
        members => {
            let targets = keys.iter().map(|key| table.target(&key.name)).collect();
            &mut members.insert((document.layout.clone(), targets)).1
        }
    };
    for (key, target) in keys.iter().zip(targets) {
        let slot = document.slots[key.node.index()];
        match target {
            _ if slot.kind == SlotKind::Missing => {}
            Some(target) => slots[*target] = Slot::new(text, slot.json(text)),
            None if rules.surplus == Surplus::Reject => return Err(Refusal::unknown(&key.name)),
            None => {}
        }
    }
    Ok(())
}

/// Notes where in `text` the value of each column lies. Of a name given twice the last counts.
fn read_object(table: &Table, rules: Rules, text: &str, scratch: &mut Scratch) -> Result<(), Refusal> {
    let mut unknown = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let visitor = ObjectVisitor { table, text, scratch, unknown: &mut unknown };
    let read = deserializer.deserialize_map(visitor).and_then(|()| deserializer.end());
    if let Err(error) = read {
        let is_object = text.trim_start().starts_with('{');
        return Err(if error.is_data() && !is_object {
            Refusal::new("not-an-object", format!("the payload is no JSON object: `{}`", shorten(text, 80)))
        } else {
            Refusal::new("not-json", format!("the payload is not JSON: {error}"))
        });
    }
    match unknown {
        Some(field) if rules.surplus == Surplus::Reject => Err(Refusal::unknown(&field)),
        _ => Ok(()),
    }
}

struct ObjectVisitor<'a, 'text> {
    table: &'a Table,
    text: &'text str,
    scratch: &'a mut Scratch,
    /// The first field that the table has no column for.
    unknown: &'a mut Option<String>,
}

impl<'text> Visitor<'text> for ObjectVisitor<'_, 'text> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'text>>(self, mut map: A) -> Result<(), A::Error> {
        let mut position = 0;
        let Scratch { slots, order, .. } = self.scratch;
        while let Some(target) = map.next_key_seed(FieldName {
            table: self.table,
            guess: order.get(position).copied(),
            unknown: self.unknown,
        })? {
            let Some(target) = target else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value: &'text RawValue = map.next_value()?;
            slots[target] = Slot::new(self.text, value.get());
            match order.get_mut(position) {
                Some(known) => *known = target,
                None => order.push(target),
            }
            position += 1;
        }
        Ok(())
    }
}

/// Finds the column of a field without keeping its name.
struct FieldName<'a> {
    table: &'a Table,
    guess: Option<Target>,
    unknown: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Option<Target>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Option<Target>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        if let Some(guess) = self.guess.filter(|&guess| self.table.name(guess) == name) {
            return Ok(Some(guess));
        }
        let target = self.table.target(name);
        if target.is_none() && self.unknown.is_none() {
            *self.unknown = Some(name.to_owned());
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests;
