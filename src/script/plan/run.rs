//! Running a plan for one message.
mod change;

use std::cell::RefCell;

use bumpalo::{Bump, collections::Vec as BumpVec};

use change::Changed;

use super::{
    emit::Writer,
    tree::{Block, Case, Change, Closure, E, How, Link, LinkKind, Path, Plan, S},
    value::{V, binary},
};
use crate::{
    message::{MessageRef, NodeId, Slot, SlotKind},
    script::{functions::Function, syntax::Fits},
};

/// The message is left to the interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::script) struct Deopt;

/// Why a plan stops before its end.
pub(super) enum Stop<'m> {
    Deopt,
    /// `drop()`.
    Drop,
    /// `return`: the script's value is this one.
    Return(&'m E),
    /// The value of the innermost function or closure.
    Leave(V<'m>),
    Break,
    Continue,
}

impl From<Deopt> for Stop<'_> {
    fn from(_: Deopt) -> Self {
        Self::Deopt
    }
}

pub(super) type Running<'m, T> = Result<T, Stop<'m>>;

/// A payload that was scanned.
#[derive(Clone, Copy)]
pub(in crate::script) struct Payload<'m> {
    /// Its text, when it is JSON.
    pub json: Option<&'m str>,
    /// One for each node of the layout it was scanned with; all missing when it is not JSON.
    pub slots: &'m [Slot],
    /// How deep it is nested.
    pub depth: usize,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::script) enum Outcome {
    /// Its new payload is written. `indexed` when it is one of the maps whose members the plan knows.
    Written {
        indexed: bool,
    },
    Dropped,
}

/// Largest arena that is kept for the next message, in bytes.
const ARENA_BYTES_KEPT: usize = 4 << 20;
/// What one message may spend: about one unit for each byte it makes, and 64 for each item it looks at. More than that
/// is left to the interpreter, which has limits of its own.
const BUDGET: usize = 8 << 20;
const ITEM: usize = 64;

thread_local! {
    /// What plans make on this thread for the message at hand. A plan runs on one thread from start to end.
    static ARENA: RefCell<Bump> = RefCell::default();
}

fn with_arena<T>(work: impl FnOnce(&Bump) -> T) -> T {
    ARENA.with_borrow_mut(|arena| {
        if arena.allocated_bytes() > ARENA_BYTES_KEPT {
            *arena = Bump::new();
        } else {
            arena.reset();
        }
        work(arena)
    })
}

impl Plan {
    /// Appends the new payload of `message` to `out`, and puts into `index`, which has one slot for the payload and one
    /// for each of the plan's members, where they are, counted from the payload's start. `nodes` are the places of the plan in the layout.
    ///
    /// # Errors
    /// The message is left to the interpreter; `out` is as it was.
    pub fn map(
        &self,
        message: MessageRef<'_>,
        payload: Payload<'_>,
        nodes: &[NodeId],
        out: &mut Vec<u8>,
        index: &mut [Slot],
    ) -> Result<Outcome, Deopt> {
        let start = out.len();
        with_arena(|bump| {
            let mut run = Run::new(self, message, payload, nodes, bump);
            let mut writer = Writer::new(out, index);
            let mut done = writer.block(&mut run, &self.body).map(|_| ());
            if let Err(Stop::Return(value)) = done {
                writer.restart();
                done = writer.value(&mut run, value).map(|_| ());
            }
            match done {
                Ok(()) => Ok(Outcome::Written { indexed: writer.indexed() }),
                Err(stop) => {
                    out.truncate(start);
                    if matches!(stop, Stop::Drop) { Ok(Outcome::Dropped) } else { Err(Deopt) }
                }
            }
        })
    }

    /// What a condition answers; `drop()` is a no.
    ///
    /// # Errors
    /// The message is left to the interpreter.
    pub fn test(&self, message: MessageRef<'_>, payload: Payload<'_>, nodes: &[NodeId]) -> Result<bool, Deopt> {
        with_arena(|bump| {
            let mut run = Run::new(self, message, payload, nodes, bump);
            let mut answer = run.block(&self.body);
            if let Err(Stop::Return(value)) = answer {
                answer = run.value(value);
            }
            match answer {
                Ok(V::Bool(answer)) => Ok(answer),
                Err(Stop::Drop) => Ok(false),
                _ => Err(Deopt),
            }
        })
    }
}

/// One message on its way through a plan.
pub(super) struct Run<'m> {
    plan: &'m Plan,
    message: MessageRef<'m>,
    pub(super) payload: Payload<'m>,
    nodes: &'m [NodeId],
    pub(super) bump: &'m Bump,
    locals: &'m mut [V<'m>],
    budget: usize,
}

impl<'m> Run<'m> {
    fn new(plan: &'m Plan, message: MessageRef<'m>, payload: Payload<'m>, nodes: &'m [NodeId], bump: &'m Bump) -> Self {
        let locals = bump.alloc_slice_fill_copy(plan.locals, V::Unit);
        Self { plan, message, payload, nodes, bump, locals, budget: BUDGET }
    }

    pub fn results(&self, number: usize) -> &'m [usize] {
        &self.plan.results[number]
    }

    fn spend(&mut self, cost: usize) -> Running<'m, ()> {
        self.budget = self.budget.checked_sub(cost).ok_or(Stop::Deopt)?;
        Ok(())
    }

    /// The value of a block.
    pub fn block(&mut self, block: &'m Block) -> Running<'m, V<'m>> {
        self.steps(block)?;
        block.value.as_ref().map_or(Ok(V::Unit), |value| self.value(value))
    }

    /// All of a block but its value.
    pub fn steps(&mut self, block: &'m Block) -> Running<'m, ()> {
        block.steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &'m S) -> Running<'m, ()> {
        match step {
            S::Set(local, value) => {
                let value = self.value(value)?;
                self.locals[*local] = value;
            }
            S::Update { local, keys, change } => {
                let change = match change {
                    Change::Set(operator, value) => Changed::Set(*operator, self.value(value)?),
                    Change::Push(item) => Changed::Push(self.value(item)?),
                    Change::Trim => Changed::Trim,
                };
                let value = self.locals[*local];
                self.locals[*local] = self.changed(value, keys, &change)?;
            }
            S::Expr(value) => {
                self.value(value)?;
            }
            S::If(condition, then, otherwise) => {
                let branch = if self.condition(condition)? { then } else { otherwise };
                self.block(branch)?;
            }
            S::For(variable, list, body) => {
                let items = self.items(list)?;
                for item in items {
                    self.locals[*variable] = *item;
                    if self.turn(body)? {
                        break;
                    }
                }
            }
            S::ForRange { variable, from, to, included, body } => {
                let (V::Int(from), V::Int(to)) = (self.plain(from)?, self.plain(to)?) else { return Err(Stop::Deopt) };
                let mut at = from;
                while at < to || (*included && at == to) {
                    self.locals[*variable] = V::Int(at);
                    if self.turn(body)? {
                        break;
                    }
                    let Some(next) = at.checked_add(1) else { break };
                    at = next;
                }
            }
            S::Return(value) => return Err(Stop::Return(value)),
            S::Leave(value) => {
                let value = self.value(value)?;
                return Err(Stop::Leave(value));
            }
            S::Break => return Err(Stop::Break),
            S::Continue => return Err(Stop::Continue),
        }
        Ok(())
    }

    /// One turn of a loop. Answers true when it was the last one.
    fn turn(&mut self, body: &'m Block) -> Running<'m, bool> {
        self.spend(ITEM)?;
        match self.block(body) {
            Ok(_) | Err(Stop::Continue) => Ok(false),
            Err(Stop::Break) => Ok(true),
            Err(stop) => Err(stop),
        }
    }

    /// A value with its number read and its escapes decoded.
    fn plain(&mut self, value: &'m E) -> Running<'m, V<'m>> {
        Ok(self.value(value)?.plain(self.bump))
    }

    pub fn condition(&mut self, value: &'m E) -> Running<'m, bool> {
        match self.value(value)? {
            V::Bool(value) => Ok(value),
            _ => Err(Stop::Deopt),
        }
    }

    fn items(&mut self, list: &'m E) -> Running<'m, &'m [V<'m>]> {
        match self.value(list)?.opened(self.bump) {
            V::List(items) => Ok(items),
            _ => Err(Stop::Deopt),
        }
    }

    /// The value of an expression.
    pub fn value(&mut self, expression: &'m E) -> Running<'m, V<'m>> {
        Ok(match expression {
            E::Unit => V::Unit,
            E::Bool(value) => V::Bool(*value),
            E::Int(value) => V::Int(*value),
            E::Float(value) => V::Float(*value),
            E::Text(text) => V::Text(text),
            E::Clean(text) => V::Clean(text),
            E::Path(path) => self.path(path)?,
            E::Payload => self.slot(0),
            E::Meta(field) => self.meta(field)?,
            E::Levels => match self.message.topic() {
                "" => V::List(&[]),
                topic => {
                    let mut levels = BumpVec::new_in(self.bump);
                    levels.extend(topic.split('/').map(V::Text));
                    V::List(levels.into_bump_slice())
                }
            },
            E::PayloadText => match simdutf8::basic::from_utf8(self.message.payload()) {
                Ok(text) => V::Text(text),
                Err(_) => return Err(Stop::Deopt),
            },
            E::IsJson => V::Bool(self.payload.json.is_some()),
            E::Local(local) => self.locals[*local],
            E::List(items) => {
                let mut out = BumpVec::with_capacity_in(items.len(), self.bump);
                for item in items {
                    out.push(self.value(item)?);
                }
                V::List(out.into_bump_slice())
            }
            E::Map(members, _) => {
                let mut out = BumpVec::with_capacity_in(members.len(), self.bump);
                for member in members {
                    out.push((&*member.name, self.value(&member.value)?));
                }
                V::Map(out.into_bump_slice())
            }
            E::Shown(parts) => {
                let mut text = bumpalo::collections::String::new_in(self.bump);
                for part in parts {
                    self.value(part)?.show(&mut text, self.bump)?;
                }
                self.spend(text.len())?;
                V::Text(text.into_bump_str())
            }
            E::Binary(operator, operands) => {
                let a = self.value(&operands.0)?;
                let b = self.value(&operands.1)?;
                let value = binary(*operator, a, b, self.bump)?;
                if let V::Text(text) = value {
                    self.spend(text.len())?;
                }
                value
            }
            E::Not(value) => V::Bool(!self.condition(value)?),
            E::Minus(value) => match self.plain(value)? {
                V::Int(value) => V::Int(value.checked_neg().ok_or(Stop::Deopt)?),
                V::Float(value) => V::Float(-value),
                _ => return Err(Stop::Deopt),
            },
            E::And(parts) => V::Bool(self.all(parts, true)?),
            E::Or(parts) => V::Bool(!self.all(parts, false)?),
            E::Coalesce(choices) => {
                for choice in choices {
                    match self.value(choice)? {
                        V::Unit => {}
                        value => return Ok(value),
                    }
                }
                V::Unit
            }
            E::If(parts) => {
                let (condition, then, otherwise) = &**parts;
                let branch = if self.condition(condition)? { then } else { otherwise };
                self.block(branch)?
            }
            E::Switch(parts) => match self.case(&parts.0, &parts.1)? {
                Some(value) => self.value(value)?,
                None => V::Unit,
            },
            E::Block(block) => self.block(block)?,
            E::Chain(base, links) => {
                let base = self.value(base)?;
                self.chain(base, links)?
            }
            E::Part(text, separator, n) => match self.plain(text)? {
                V::Text(text) => V::Text(part(text, separator, *n).ok_or(Stop::Deopt)?),
                _ => return Err(Stop::Deopt),
            },
            E::Builtin(builtin, arguments) if arguments.len() == 1 => {
                let argument = self.value(&arguments[0])?;
                builtin.call(&[argument], self.bump)?
            }
            E::Builtin(builtin, arguments) => {
                let arguments = self.values(None, arguments)?;
                builtin.call(arguments, self.bump)?
            }
            E::Function(function, arguments) => {
                let arguments = self.values(None, arguments)?;
                self.function(function, arguments)?
            }
            E::Each(each) => {
                let items = self.items(&each.list)?;
                self.each(each.how, items, &each.closure)?
            }
            E::Inline(parameters, body) => {
                for (local, value) in parameters {
                    let value = self.value(value)?;
                    self.locals[*local] = value;
                }
                leave(self.block(body))?
            }
            E::Drop => return Err(Stop::Drop),
            E::Throw => return Err(Stop::Deopt),
        })
    }

    /// True when every part is `wanted`.
    fn all(&mut self, parts: &'m [E], wanted: bool) -> Running<'m, bool> {
        for part in parts {
            if self.condition(part)? != wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The value of the case that fits.
    pub fn case(&mut self, value: &'m E, cases: &'m [Case]) -> Running<'m, Option<&'m E>> {
        let value = self.plain(value)?;
        if matches!(value, V::Big(_) | V::Json(_) | V::List(_) | V::Map(_)) {
            return Err(Stop::Deopt);
        }
        for case in cases {
            let fits = match (&case.fits, value) {
                (Fits::Any, _) | (Fits::Unit, V::Unit) => true,
                (Fits::Bool(a), V::Bool(b)) => *a == b,
                (Fits::Int(a), V::Int(b)) => *a == b,
                (Fits::Float(a), V::Float(b)) => a.to_bits() == b.to_bits(),
                (Fits::Text(a), V::Text(b)) => a == b,
                (Fits::Range(from, to), V::Int(b)) => (*from..*to).contains(&b),
                (Fits::RangeTo(from, to), V::Int(b)) => (*from..=*to).contains(&b),
                // Rhai looks for floats in ranges of integers, too.
                (Fits::Range(..) | Fits::RangeTo(..), V::Float(_)) => return Err(Stop::Deopt),
                _ => false,
            };
            if fits && case.condition.as_ref().map_or(Ok(true), |condition| self.condition(condition))? {
                return Ok(Some(&case.value));
            }
        }
        Ok(None)
    }

    fn slot(&self, place: usize) -> V<'m> {
        self.payload.json.map_or(V::Unit, |json| V::of_slot(json, self.payload.slots[self.nodes[place].index()]))
    }

    /// Where the value of a way lies; missing when there is none.
    #[inline]
    pub fn slot_of(&self, path: &Path) -> Running<'m, Slot> {
        // A payload that is not JSON has no slots: all is missing.
        let slot = |place: usize| {
            let node = self.nodes[path.places[place]].index();
            self.payload.slots.get(node).copied().unwrap_or_default()
        };
        let kind = |place: usize| slot(place).kind;
        let leaf = slot(path.places.len() - 1);
        if leaf.kind != SlotKind::Missing {
            return Ok(leaf);
        }
        for (step, optional) in path.optional.iter().enumerate() {
            let named =
                matches!(self.plan.places[path.places[step + 1]].segment, Some(crate::script::path::Segment::Key(_)));
            match kind(step) {
                SlotKind::Object if named => {}
                SlotKind::Array if !named && kind(step + 1) != SlotKind::Missing => {}
                SlotKind::Missing | SlotKind::Null if *optional => return Ok(leaf),
                _ => return Err(Stop::Deopt),
            }
        }
        Ok(leaf)
    }

    fn path(&self, path: &Path) -> Running<'m, V<'m>> {
        let slot = self.slot_of(path)?;
        Ok(self.payload.json.map_or(V::Unit, |json| V::of_slot(json, slot)))
    }

    fn meta(&self, field: &crate::script::MetaField) -> Running<'m, V<'m>> {
        use crate::script::meta::MetaValue;
        Ok(match field.value(self.message) {
            Some(MetaValue::Text(text)) => V::Text(text),
            Some(MetaValue::Int(value)) => V::Int(value),
            Some(MetaValue::Bool(value)) => V::Bool(value),
            Some(MetaValue::Bytes(_)) => V::Unit,
            // A level past the end is an error; anything else that is missing is `()`.
            None if matches!(field, crate::script::MetaField::Level(_)) => return Err(Stop::Deopt),
            None => V::Unit,
        })
    }

    /// The values of arguments, after that of `first`.
    fn values(&mut self, first: Option<V<'m>>, arguments: &'m [E]) -> Running<'m, &'m [V<'m>]> {
        let mut values = BumpVec::with_capacity_in(arguments.len() + 1, self.bump);
        values.extend(first);
        for argument in arguments {
            values.push(self.value(argument)?);
        }
        Ok(values.into_bump_slice())
    }

    fn function(&mut self, function: &'static Function, arguments: &'m [V<'m>]) -> Running<'m, V<'m>> {
        let bump = self.bump;
        let arguments = bump.alloc_slice_fill_iter(arguments.iter().map(|argument| argument.to_value(bump)));
        let before = bump.allocated_bytes();
        let value = (function.run)(arguments, bump).map_err(|_| Stop::Deopt)?;
        self.spend(bump.allocated_bytes() - before)?;
        Ok(V::of_value(value, bump)?)
    }

    fn chain(&mut self, base: V<'m>, links: &'m [Link]) -> Running<'m, V<'m>> {
        let mut value = base;
        for (at, link) in links.iter().enumerate() {
            if matches!(value, V::Unit) && link.optional {
                // Rhai has worked out every argument of a chain before its first link: one may fail, or drop.
                for skipped in &links[at..] {
                    match &skipped.kind {
                        LinkKind::Index(index) => drop(self.plain(index)?),
                        LinkKind::Builtin(_, arguments) | LinkKind::Function(_, arguments) => {
                            self.values(None, arguments)?;
                        }
                        LinkKind::Present | LinkKind::Field(_) | LinkKind::Each(..) => {}
                    }
                }
                return Ok(V::Unit);
            }
            value = match &link.kind {
                LinkKind::Present if matches!(value, V::Unit) => return Err(Stop::Deopt),
                LinkKind::Present => value,
                LinkKind::Field(name) => value.member(name)?,
                LinkKind::Index(index) => {
                    let index = self.plain(index)?;
                    match (value, index) {
                        (V::Json(_) | V::Map(_), V::Text(name)) => value.member(name)?,
                        _ => self.item(value, index)?,
                    }
                }
                LinkKind::Builtin(builtin, arguments) => {
                    let arguments = self.values(Some(value), arguments)?;
                    builtin.call(arguments, self.bump)?
                }
                LinkKind::Function(function, arguments) => {
                    let arguments = self.values(Some(value), arguments)?;
                    self.function(function, arguments)?
                }
                LinkKind::Each(how, closure) => match value.opened(self.bump) {
                    V::List(items) => self.each(*how, items, closure)?,
                    _ => return Err(Stop::Deopt),
                },
            };
        }
        Ok(value)
    }

    /// An item of a list.
    fn item(&self, list: V<'m>, index: V<'m>) -> Running<'m, V<'m>> {
        let (V::List(items), V::Int(index)) = (list.opened(self.bump), index) else { return Err(Stop::Deopt) };
        let at = usize::try_from(index).map_err(|_| Stop::Deopt)?;
        items.get(at).copied().ok_or(Stop::Deopt)
    }

    fn each(&mut self, how: How, items: &'m [V<'m>], closure: &'m Closure) -> Running<'m, V<'m>> {
        let mut out = BumpVec::new_in(self.bump);
        for (index, item) in items.iter().enumerate() {
            self.spend(ITEM)?;
            self.locals[closure.item] = *item;
            if let Some(local) = closure.index {
                self.locals[local] = V::Int(index as i64);
            }
            let value = leave(self.block(&closure.body))?;
            if how == How::Map {
                out.push(value);
                continue;
            }
            let V::Bool(yes) = value else { return Err(Stop::Deopt) };
            match how {
                How::Filter if yes => out.push(*item),
                How::All if !yes => return Ok(V::Bool(false)),
                How::Some if yes => return Ok(V::Bool(true)),
                How::Find if yes => return Ok(*item),
                _ => {}
            }
        }
        Ok(match how {
            How::Map | How::Filter => V::List(out.into_bump_slice()),
            How::All => V::Bool(true),
            How::Some => V::Bool(false),
            How::Find => V::Unit,
        })
    }
}

/// The value of a function's body, however it ends.
fn leave<'m>(body: Running<'m, V<'m>>) -> Running<'m, V<'m>> {
    match body {
        Err(Stop::Leave(value)) => Ok(value),
        // A loop around the call is not the function's.
        Err(Stop::Break | Stop::Continue) => Err(Stop::Deopt),
        other => other,
    }
}

/// The nth part of a text.
fn part<'m>(text: &'m str, separator: &str, n: usize) -> Option<&'m str> {
    match separator.as_bytes() {
        [byte] if byte.is_ascii() => text.split(char::from(*byte)).nth(n),
        _ => text.split(separator).nth(n),
    }
}
