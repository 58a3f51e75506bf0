//! Writes the value of a script as JSON, straight from what it is made of.
use super::{
    builtins::Builtin,
    run::{Run, Running, Stop},
    tree::{Block, E},
    value::V,
};
use crate::{
    codec::json,
    message::{Slot, SlotKind},
};

/// Writes one payload, and where the members of its map are.
pub(super) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    index: &'o mut [Slot],
    indexed: bool,
    depth: usize,
}

/// What became of an expression that may be copied from the payload.
enum Copied {
    Written(SlotKind),
    /// It is `()`, and nothing is written.
    Nothing,
    /// It has to be worked out.
    NotOne,
}

impl<'o> Writer<'o> {
    /// Appends to `out`; `index` has a slot for the whole, and one for each of the plan's members.
    pub fn new(out: &'o mut Vec<u8>, index: &'o mut [Slot]) -> Self {
        index.fill(Slot::default());
        let start = out.len();
        Self { out, start, index, indexed: false, depth: 0 }
    }

    /// Takes back what is written.
    pub fn restart(&mut self) {
        self.out.truncate(self.start);
        self.index.fill(Slot::default());
        self.indexed = false;
        self.depth = 0;
    }

    /// True when the index says where the members are.
    pub fn indexed(&self) -> bool {
        self.indexed
    }

    /// Appends the value of an expression and answers what it is.
    pub fn value<'m>(&mut self, run: &mut Run<'m>, expression: &'m E) -> Running<'m, SlotKind> {
        match expression {
            E::Map(members, result) => {
                let numbers = result.map(|number| run.results(number));
                self.enter()?;
                if members.is_empty() {
                    self.out.push(b'{');
                }
                for (at, member) in members.iter().enumerate() {
                    self.out.extend_from_slice(&member.prefix);
                    let from = self.out.len();
                    let kind = self.value(run, &member.value)?;
                    if let Some(numbers) = numbers {
                        self.index[numbers[at] + 1] = self.slot(kind, from)?;
                    }
                }
                self.out.push(b'}');
                self.depth -= 1;
                if numbers.is_some() {
                    self.index[0] = self.slot(SlotKind::Object, self.start)?;
                    self.indexed = true;
                }
                Ok(SlotKind::Object)
            }
            E::List(items) => {
                self.enter()?;
                self.out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        self.out.push(b',');
                    }
                    self.value(run, item)?;
                }
                self.out.push(b']');
                self.depth -= 1;
                Ok(SlotKind::Array)
            }
            E::If(parts) => {
                let (condition, then, otherwise) = &**parts;
                let branch = if run.condition(condition)? { then } else { otherwise };
                self.block(run, branch)
            }
            E::Switch(parts) => match run.case(&parts.0, &parts.1)? {
                Some(value) => self.value(run, value),
                None => self.plain(run, V::Unit),
            },
            E::Block(block) => self.block(run, block),
            E::Coalesce(choices) => {
                let (last, others) = choices.split_last().ok_or(Stop::Deopt)?;
                for choice in others {
                    match self.copy(run, choice)? {
                        Copied::Written(kind) => return Ok(kind),
                        Copied::Nothing => continue,
                        Copied::NotOne => {}
                    }
                    match run.value(choice)? {
                        V::Unit => {}
                        value => return self.plain(run, value),
                    }
                }
                self.value(run, last)
            }
            expression => match self.copy(run, expression)? {
                Copied::Written(kind) => Ok(kind),
                Copied::Nothing => self.plain(run, V::Unit),
                Copied::NotOne => {
                    let value = run.value(expression)?;
                    self.plain(run, value)
                }
            },
        }
    }

    /// Appends what is only passed on as it stands in the payload, in one piece: a place, or the number at a place.
    fn copy<'m>(&mut self, run: &Run<'m>, expression: &'m E) -> Running<'m, Copied> {
        let (path, numeric) = match expression {
            E::Path(path) => (path, false),
            E::Builtin(Builtin::Numeric, arguments) => match arguments.as_slice() {
                [E::Path(path)] => (path, true),
                _ => return Ok(Copied::NotOne),
            },
            _ => return Ok(Copied::NotOne),
        };
        let slot = run.slot_of(path)?;
        let Some(json) = run.payload.json else { return Ok(Copied::Nothing) };
        match slot.kind {
            SlotKind::Missing | SlotKind::Null => return Ok(Copied::Nothing),
            // A text may spell a number.
            SlotKind::Text | SlotKind::Escaped if numeric => return Ok(Copied::NotOne),
            // As `plain` does.
            SlotKind::Int if slot.of(json) == "-0" => return Ok(Copied::NotOne),
            SlotKind::Object | SlotKind::Array if self.depth + run.payload.depth > json::DEPTH_MAX => {
                return Err(Stop::Deopt);
            }
            _ => {}
        }
        self.out.extend_from_slice(slot.json(json).as_bytes());
        Ok(Copied::Written(slot.kind))
    }

    /// Appends the value of a block.
    pub fn block<'m>(&mut self, run: &mut Run<'m>, block: &'m Block) -> Running<'m, SlotKind> {
        run.steps(block)?;
        match &block.value {
            Some(value) => self.value(run, value),
            None => self.plain(run, V::Unit),
        }
    }

    fn enter<'m>(&mut self) -> Running<'m, ()> {
        if self.depth == json::DEPTH_MAX {
            return Err(Stop::Deopt);
        }
        self.depth += 1;
        Ok(())
    }

    /// The slot of a value written from `from` on.
    fn slot<'m>(&self, kind: SlotKind, from: usize) -> Running<'m, Slot> {
        let quote = usize::from(matches!(kind, SlotKind::Text | SlotKind::Escaped));
        let place = |at: usize| u32::try_from(at - self.start).map_err(|_| Stop::Deopt);
        Ok(Slot { kind, start: place(from + quote)?, end: place(self.out.len() - quote)? })
    }

    fn plain<'m>(&mut self, run: &Run<'m>, value: V<'m>) -> Running<'m, SlotKind> {
        Ok(match value {
            V::Clean(text) => {
                self.quoted(text);
                SlotKind::Text
            }
            V::Escaped(raw) => {
                self.quoted(raw);
                SlotKind::Escaped
            }
            V::Text(text) => {
                if json::string(text, self.out) {
                    SlotKind::Escaped
                } else {
                    SlotKind::Text
                }
            }
            // As a number of the interpreter: minus zero is a float.
            V::IntText("-0") => {
                self.out.extend_from_slice(b"-0.0");
                SlotKind::Float
            }
            V::IntText(text) => {
                self.out.extend_from_slice(text.as_bytes());
                SlotKind::Int
            }
            V::FloatText(text) => {
                self.out.extend_from_slice(text.as_bytes());
                SlotKind::Float
            }
            V::Big(text) => {
                self.out.extend_from_slice(text.as_bytes());
                if text.contains(['.', 'e', 'E']) { SlotKind::Float } else { SlotKind::Int }
            }
            V::Int(value) => {
                json::integer(value, self.out);
                SlotKind::Int
            }
            V::Float(value) => {
                json::float(value, self.out).map_err(|_| Stop::Deopt)?;
                SlotKind::Float
            }
            V::Bool(true) => {
                self.out.extend_from_slice(b"true");
                SlotKind::True
            }
            V::Bool(false) => {
                self.out.extend_from_slice(b"false");
                SlotKind::False
            }
            V::Unit => {
                self.out.extend_from_slice(b"null");
                SlotKind::Null
            }
            V::Json(text) => {
                // No part of the payload is nested deeper than the whole.
                if self.depth + run.payload.depth > json::DEPTH_MAX {
                    return Err(Stop::Deopt);
                }
                self.out.extend_from_slice(text.as_bytes());
                if text.starts_with('{') { SlotKind::Object } else { SlotKind::Array }
            }
            V::List(items) => {
                self.enter()?;
                self.out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        self.out.push(b',');
                    }
                    self.plain(run, *item)?;
                }
                self.out.push(b']');
                self.depth -= 1;
                SlotKind::Array
            }
            V::Map(members) => {
                self.enter()?;
                self.out.push(b'{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        self.out.push(b',');
                    }
                    json::string(name, self.out);
                    self.out.push(b':');
                    self.plain(run, *value)?;
                }
                self.out.push(b'}');
                self.depth -= 1;
                SlotKind::Object
            }
        })
    }

    fn quoted(&mut self, text: &str) {
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }
}
