//! What a script's value looks like, told from its tree: the fields of the map it ends with, and what kinds of values
//! these have.
//!
//! The script is gone through once, with shapes in place of values, both ways at every condition. What is not known here
//! is `Any`; where something stands whose effects are not known, so is the whole result. `tests` run scripts and hold
//! the real values against what was inferred.
use std::{collections::HashSet, rc::Rc};

use super::{
    functions,
    plan::{changed_in, is_builtin},
    syntax::{
        Block, Case, Expr, ExprKind, Fits, Function, Link, LinkKind, Node, Operator, Stmt, StmtKind, Tree, changes,
        walk,
    },
};
use crate::shape::{Field, Fields, Kind, Place, Shape};

/// Where `meta` is among the variables.
const META: usize = 3;
/// Functions are looked into so deep.
const CALLS_MAX: usize = 8;
/// Most expressions that are looked at, those of functions again for every call.
const EXPRESSIONS_MAX: usize = 50_000;

/// Methods of Rhai's that leave alone what they are called on, besides those that plans know.
const LOOKING: [&str; 9] = ["all", "chars", "filter", "find", "map", "reduce", "some", "sum_of", "type_of"];

/// What the script makes of payloads like `payload`.
pub(super) fn infer(tree: &Tree, payload: &Shape) -> Shape {
    let mut captured = HashSet::new();
    let mut note = |node: Node<'_>| {
        if let Node::Expr(Expr { kind: ExprKind::Closure { captures, .. }, .. }) = node {
            captured.extend(captures.iter().cloned());
        }
    };
    walk(&tree.body, &mut note);
    tree.functions.values().for_each(|function| walk(&function.body, &mut note));
    let known = [
        // Its fields stand in another step; where they are passed on is a place in this one.
        ("payload", payload.clone().at(&|_| Place::default())),
        ("text", Shape::one(Kind::Text)),
        ("is_json", Shape::one(Kind::Bool)),
        ("meta", Shape::Any),
    ];
    let mut infer = Infer {
        tree,
        captured,
        scope: known.map(|(name, shape)| (name.to_owned(), shape)).into(),
        is_over: false,
        results: Shape::NEVER,
        calls: Vec::new(),
        module: String::new(),
        looked_at: 0,
    };
    match infer.block(&tree.body) {
        Ok(value) => infer.results.or(value),
        Err(Unknown) => Shape::Any,
    }
}

/// Something in the script may have effects that are not known.
struct Unknown;

type Known = Result<Shape, Unknown>;

struct Infer<'t> {
    tree: &'t Tree,
    /// Variables that closures have: who changes them when is not followed.
    captured: HashSet<String>,
    scope: Vec<(String, Shape)>,
    /// The code at hand is never reached.
    is_over: bool,
    /// What `return` gives.
    results: Shape,
    /// The functions whose bodies are being looked into.
    calls: Vec<*const Function>,
    /// The module of the function at hand.
    module: String,
    looked_at: usize,
}

impl<'t> Infer<'t> {
    fn block(&mut self, block: &'t Block) -> Known {
        let outer = self.scope.len();
        let mut value = Shape::null();
        for statement in block {
            if self.is_over {
                break;
            }
            value = self.statement(statement)?;
        }
        self.scope.truncate(outer);
        Ok(if self.is_over { Shape::NEVER } else { value })
    }

    fn statement(&mut self, statement: &'t Stmt) -> Known {
        match &statement.kind {
            StmtKind::Let(name, value) => {
                let value = self.expr(value)?;
                self.scope.push((name.clone(), value));
            }
            StmtKind::Assign(target, operator, value) => self.assign(target, *operator, value)?,
            StmtKind::Expr(value) => return self.expr(value),
            StmtKind::If(condition, then, other) => {
                self.expr(condition)?;
                return self.branches([then, other].map(|block| move |this: &mut Self| this.block(block)));
            }
            StmtKind::Switch(value, cases) => return self.switch(value, cases),
            StmtKind::For(name, list, body) => {
                self.expr(list)?;
                self.forget(body);
                self.scope.push((name.clone(), Shape::Any));
                self.block(body)?;
                self.scope.pop();
                // It may not have run at all.
                self.is_over = false;
                self.forget(body);
            }
            StmtKind::Return(value) => {
                let value = value.as_ref().map_or(Ok(Shape::null()), |value| self.expr(value))?;
                if !self.is_over {
                    self.results = std::mem::replace(&mut self.results, Shape::NEVER).or(value);
                }
                self.is_over = true;
            }
            StmtKind::Throw | StmtKind::Break | StmtKind::Continue => self.is_over = true,
            StmtKind::Block(block) => return self.block(block),
            StmtKind::Nothing => return Ok(Shape::Any),
            StmtKind::Other(_) => return Err(Unknown),
        }
        Ok(Shape::null())
    }

    /// One of these is what happens.
    fn branches(&mut self, ways: impl IntoIterator<Item = impl FnOnce(&mut Self) -> Known>) -> Known {
        let before = self.scope.clone();
        let mut after: Option<Vec<(String, Shape)>> = None;
        let mut value = Shape::NEVER;
        for way in ways {
            self.scope.clone_from(&before);
            self.is_over = false;
            value = value.or(way(self)?);
            if self.is_over {
                continue;
            }
            let scope = std::mem::take(&mut self.scope);
            after = Some(match after {
                None => scope,
                Some(others) => {
                    let both = |((name, one), (_, other)): ((String, Shape), (String, Shape))| (name, one.or(other));
                    others.into_iter().zip(scope).map(both).collect()
                }
            });
        }
        self.is_over = after.is_none();
        self.scope = after.unwrap_or(before);
        Ok(value)
    }

    /// What may not happen at all; then the value is `otherwise`.
    fn perhaps(&mut self, way: impl FnOnce(&mut Self) -> Known, otherwise: Shape) -> Known {
        type Way<'w, 't> = Box<dyn FnOnce(&mut Infer<'t>) -> Known + 'w>;
        let ways: [Way<'_, 't>; 2] = [Box::new(way), Box::new(|_| Ok(otherwise))];
        self.branches(ways)
    }

    fn switch(&mut self, value: &'t Expr, cases: &'t [Case]) -> Known {
        self.expr(value)?;
        // They come in no order of their own.
        let mut cases: Vec<&'t Case> = cases.iter().collect();
        cases.sort_by_key(|case| case.value.at);
        for condition in cases.iter().filter_map(|case| case.condition.as_ref()) {
            self.perhaps(|this| this.expr(condition), Shape::null())?;
        }
        let covers_all = cases.iter().any(|case| case.fits == Fits::Any && case.condition.is_none());
        let ways = cases.iter().map(|case| Some(&case.value)).chain((!covers_all).then_some(None));
        self.branches(ways.map(|way| move |this: &mut Self| way.map_or(Ok(Shape::null()), |value| this.expr(value))))
    }

    /// Nothing is known any more of the variables that `block` changes.
    fn forget(&mut self, block: &'t Block) {
        let mut names = changed_in(block);
        walk(block, &mut |node| {
            if let Node::Expr(expression) = node {
                names.extend(self.touched(expression).map(str::to_owned));
            }
        });
        for (name, shape) in &mut self.scope {
            if names.contains(name) {
                *shape = Shape::Any;
            }
        }
    }

    fn variable(&mut self, name: &str) -> Option<&mut Shape> {
        self.scope.iter_mut().rev().find(|(known, _)| known == name).map(|(_, shape)| shape)
    }

    fn assign(&mut self, target: &'t Expr, operator: Option<Operator>, value: &'t Expr) -> Result<(), Unknown> {
        let value = self.expr(value)?;
        let (start, links) = match &target.kind {
            ExprKind::Chain(start, links) => (&**start, links.as_slice()),
            _ => (target, &[][..]),
        };
        for link in links {
            if let LinkKind::Index(index) = &link.kind {
                self.expr(index)?;
            }
        }
        let ExprKind::Variable(name) = &start.kind else { return Err(Unknown) };
        let Some(variable) = self.variable(name) else { return Err(Unknown) };
        let before = std::mem::replace(variable, Shape::Any);
        *variable = match (links, operator) {
            ([], None) => value,
            ([], Some(operator)) => binary(operator, &before, &value),
            (links, None) => with(before, links, value),
            (links, Some(_)) => with(before, links, Shape::Any),
        };
        Ok(())
    }

    fn exprs(&mut self, expressions: &'t [Expr]) -> Result<Vec<Shape>, Unknown> {
        expressions.iter().map(|expression| self.expr(expression)).collect()
    }

    fn expr(&mut self, expression: &'t Expr) -> Known {
        self.looked_at += 1;
        if self.looked_at > EXPRESSIONS_MAX {
            return Err(Unknown);
        }
        Ok(match &expression.kind {
            ExprKind::Unit => Shape::null(),
            ExprKind::Bool(value) => Shape::exactly(value.to_string()),
            ExprKind::Int(value) => Shape::exactly(value.to_string()),
            ExprKind::Float(value) if value.is_finite() => Shape::exactly(format!("{value:?}")),
            ExprKind::Float(_) => Shape::Any,
            ExprKind::Text(text) => Shape::exactly(serde_json::to_string(text).map_err(|_| Unknown)?),
            ExprKind::List(items) => {
                let items = self.exprs(items)?.into_iter().fold(Shape::NEVER, Shape::or);
                Shape::one(Kind::List(Box::new(items)))
            }
            ExprKind::Map(members) => {
                let mut known = Vec::new();
                for (key, value) in members {
                    let shape = self.expr(value)?;
                    known.push(Field { name: key.name.clone(), shape, certain: true, place: place(key.at) });
                }
                Shape::one(Kind::Map(Fields { known, open: false, place: place(expression.at) }))
            }
            ExprKind::Interpolated(parts) => {
                self.exprs(parts)?;
                Shape::one(Kind::Text)
            }
            ExprKind::Variable(name) if self.captured.contains(name) => Shape::Any,
            ExprKind::Variable(name) => {
                let here = place(expression.at);
                let placed = |place: Place| if place.at.is_none() { here.clone() } else { place };
                self.variable(name).map_or(Shape::Any, |shape| shape.clone().at(&placed))
            }
            ExprKind::Chain(start, links) => return self.chain(start, links),
            ExprKind::Call { module, name, arguments } => return self.call(module, name, arguments),
            ExprKind::Operator(operator, sides) => match self.exprs(sides)?.as_slice() {
                [one] => unary(*operator, one),
                [one, other] => binary(*operator, one, other),
                _ => Shape::Any,
            },
            ExprKind::And(parts) | ExprKind::Or(parts) => {
                self.one_after_another(parts)?;
                Shape::one(Kind::Bool)
            }
            ExprKind::Coalesce(parts) => return self.coalesce(parts),
            ExprKind::Block(block) => return self.block(block),
            // Its body is not run here.
            ExprKind::Closure { .. } | ExprKind::Other("a character in single quotes") => Shape::Any,
            ExprKind::Other(_) => return Err(Unknown),
        })
    }

    /// Parts of which each may be the last that is looked at.
    fn one_after_another(&mut self, parts: &'t [Expr]) -> Result<(), Unknown> {
        let Some((first, rest)) = parts.split_first() else { return Ok(()) };
        self.expr(first)?;
        if !rest.is_empty() && !self.is_over {
            self.perhaps(|this| this.one_after_another(rest).map(|()| Shape::null()), Shape::null())?;
        }
        Ok(())
    }

    fn coalesce(&mut self, parts: &'t [Expr]) -> Known {
        let Some((first, rest)) = parts.split_first() else { return Ok(Shape::null()) };
        let value = self.expr(first)?;
        if rest.is_empty() || self.is_over {
            return Ok(value);
        }
        match value.kinds() {
            Some(kinds) if !kinds.iter().any(Kind::is_null) => Ok(value),
            Some([_]) => self.coalesce(rest),
            _ => self.perhaps(|this| this.coalesce(rest), value.unless_null()),
        }
    }

    fn chain(&mut self, start: &'t Expr, links: &'t [Link]) -> Known {
        if let (ExprKind::Variable(name), [Link { kind: LinkKind::Field(field), .. }]) = (&start.kind, links)
            && name == "meta"
            && self.calls.is_empty()
            && !self.captured.contains(name)
            && self.scope.iter().rposition(|(known, _)| known == name) == Some(META)
            && let Some(kind) = of_meta(field)
        {
            return Ok(Shape::one(kind));
        }
        let value = self.expr(start)?;
        let may_end_early = links.iter().any(|link| link.optional);
        let rest = |this: &mut Self| {
            let mut value = value;
            let mut is_cut = false;
            for link in links {
                is_cut |= link.optional && value.kinds().is_none_or(|kinds| kinds.iter().any(Kind::is_null));
                value = this.link(value, link)?;
            }
            Ok(if is_cut { value.or(Shape::null()) } else { value })
        };
        let value = if may_end_early { self.perhaps(rest, Shape::NEVER)? } else { rest(self)? };
        if let Some(variable) = self.touched_by(start, links).and_then(|name| self.variable(name)) {
            *variable = Shape::Any;
        }
        Ok(value)
    }

    fn link(&mut self, value: Shape, link: &'t Link) -> Known {
        Ok(match &link.kind {
            LinkKind::Field(name) => value.get(name),
            LinkKind::Index(Expr { kind: ExprKind::Text(name), .. }) => value.get(name),
            LinkKind::Index(index) => {
                self.expr(index)?;
                Shape::Any
            }
            LinkKind::Method(name, arguments) => {
                let mut all = vec![value];
                all.extend(self.exprs(arguments)?);
                if self.is_own(name) { Shape::Any } else { given(name, &all) }
            }
        })
    }

    fn call(&mut self, module: &str, name: &str, arguments: &'t [Expr]) -> Known {
        let values = self.exprs(arguments)?;
        let module = if module.is_empty() { self.module.clone() } else { module.to_owned() };
        let key = (module, name.to_owned(), arguments.len());
        if let Some(function) = self.tree.functions.get(&key) {
            return Ok(self.look_into(&key.0, function, values));
        }
        if name == "drop" && arguments.is_empty() {
            self.is_over = true;
            return Ok(Shape::NEVER);
        }
        if let Some(Expr { kind: ExprKind::Variable(first), .. }) = arguments.first()
            && !self.is_looking(name)
            && let Some(variable) = self.variable(first)
        {
            *variable = Shape::Any;
        }
        Ok(if key.0.is_empty() || key.0 == self.module { given(name, &values) } else { Shape::Any })
    }

    /// True for a function or method that leaves alone what it is given.
    fn is_looking(&self, name: &str) -> bool {
        let is_known =
            is_builtin(name) || functions::functions().any(|function| function.name == name) || LOOKING.contains(&name);
        is_known && !changes(name) && !self.is_own(name)
    }

    fn is_own(&self, name: &str) -> bool {
        self.tree.functions.keys().any(|(_, known, _)| known == name)
    }

    /// The variable that a chain may change by its methods.
    fn touched_by<'e>(&self, start: &'e Expr, links: &[Link]) -> Option<&'e str> {
        let ExprKind::Variable(name) = &start.kind else { return None };
        let changes = |link: &Link| matches!(&link.kind, LinkKind::Method(method, _) if !self.is_looking(method));
        links.iter().any(changes).then_some(name)
    }

    /// The variable that an expression may change, besides those it assigns to.
    fn touched<'e>(&self, expression: &'e Expr) -> Option<&'e str> {
        match &expression.kind {
            ExprKind::Chain(start, links) => self.touched_by(start, links),
            ExprKind::Call { name, arguments, .. } if !self.is_looking(name) => match arguments.first() {
                Some(Expr { kind: ExprKind::Variable(first), .. }) => Some(first),
                _ => None,
            },
            _ => None,
        }
    }

    /// What a function of the script gives.
    fn look_into(&mut self, module: &str, function: &'t Rc<Function>, arguments: Vec<Shape>) -> Shape {
        if self.calls.len() >= CALLS_MAX || self.calls.contains(&Rc::as_ptr(function)) || self.is_over {
            return Shape::Any;
        }
        let scope = function.parameters.iter().cloned().zip(arguments).collect();
        let scope = std::mem::replace(&mut self.scope, scope);
        let results = std::mem::replace(&mut self.results, Shape::NEVER);
        let module = std::mem::replace(&mut self.module, module.to_owned());
        self.calls.push(Rc::as_ptr(function));
        let value = self.block(&function.body);
        self.calls.pop();
        self.module = module;
        self.scope = scope;
        let given = std::mem::replace(&mut self.results, results);
        self.is_over = false;
        value.map_or(Shape::Any, |value| given.or(value))
    }
}

fn place(at: (usize, usize)) -> Place {
    Place { path: Vec::new(), at: (at.0 > 0 && at.1 > 0).then_some(at) }
}

/// `shape` after `x.a.b = value`.
fn with(shape: Shape, links: &[Link], value: Shape) -> Shape {
    let Some((link, rest)) = links.split_first() else { return value };
    let name = match &link.kind {
        _ if link.optional => return Shape::Any,
        LinkKind::Field(name) | LinkKind::Index(Expr { kind: ExprKind::Text(name), .. }) => name,
        _ => return Shape::Any,
    };
    let mut fields = match shape.kinds() {
        // It has taken a field, so it is a map.
        None => Fields { open: true, ..Fields::default() },
        Some([Kind::Map(fields)]) => fields.clone(),
        Some(_) => return Shape::Any,
    };
    let shape = with(shape.get(name), rest, value);
    fields.set(Field { name: name.clone(), shape, certain: true, place: place(link.at) });
    Shape::one(Kind::Map(fields))
}

/// What `meta` has for every message.
fn of_meta(field: &str) -> Option<Kind> {
    Some(match field {
        "received_at" | "received_at_ms" | "qos" => Kind::Int,
        "retain" => Kind::Bool,
        _ => return None,
    })
}

/// What matters of a kind to operators.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Int,
    Float,
    Text,
    Other,
}

fn sort(kind: &Kind) -> Sort {
    match kind {
        Kind::Int => Sort::Int,
        Kind::Float => Sort::Float,
        Kind::Text | Kind::Like(_) => Sort::Text,
        Kind::Exactly(json) => match json.as_bytes()[0] {
            b'"' => Sort::Text,
            b'-' | b'0'..=b'9' if json.contains(['.', 'e', 'E']) => Sort::Float,
            b'-' | b'0'..=b'9' => Sort::Int,
            _ => Sort::Other,
        },
        _ => Sort::Other,
    }
}

fn unary(operator: Operator, value: &Shape) -> Shape {
    match (operator, value.kinds()) {
        (Operator::Not, _) => Shape::one(Kind::Bool),
        (Operator::Minus, Some([Kind::Exactly(json)]))
            if matches!(sort(&Kind::Exactly(json.clone())), Sort::Int | Sort::Float) =>
        {
            match json.strip_prefix('-') {
                Some(positive) => Shape::exactly(positive),
                None if json == "0" => Shape::exactly("0"),
                None => Shape::exactly(format!("-{json}")),
            }
        }
        (Operator::Minus, Some([kind])) if matches!(sort(kind), Sort::Int | Sort::Float) => number(&[kind]),
        _ => Shape::Any,
    }
}

/// What arithmetic makes of such numbers.
fn number(kinds: &[&Kind]) -> Shape {
    Shape::one(if kinds.iter().all(|kind| sort(kind) == Sort::Int) { Kind::Int } else { Kind::Float })
}

fn binary(operator: Operator, one: &Shape, other: &Shape) -> Shape {
    use Operator::{
        Add, Divide, Equal, Greater, GreaterEqual, Less, LessEqual, Minus, Modulo, Multiply, Not, NotEqual, Range,
        RangeTo, Subtract,
    };
    match operator {
        Less | LessEqual | Greater | GreaterEqual | Equal | NotEqual => return Shape::one(Kind::Bool),
        Range | RangeTo | Not | Minus => return Shape::Any,
        Add | Subtract | Multiply | Divide | Modulo => {}
    }
    let (Some(ones), Some(others)) = (one.kinds(), other.kinds()) else { return Shape::Any };
    if let (Add, [Kind::Map(one)], [Kind::Map(other)]) = (operator, ones, others) {
        return added(one.clone(), other);
    }
    let mut all = Shape::NEVER;
    for one in ones {
        for other in others {
            all = all.or(match (operator, sort(one), sort(other)) {
                (_, Sort::Int | Sort::Float, Sort::Int | Sort::Float) => number(&[one, other]),
                (Add, Sort::Text, Sort::Text | Sort::Int | Sort::Float) => Shape::one(Kind::Text),
                _ => return Shape::Any,
            });
        }
    }
    all
}

/// `#{ … } + #{ … }`: the fields of the second take the place of those of the first.
fn added(mut one: Fields, other: &Fields) -> Shape {
    if other.open {
        one.known.iter_mut().for_each(|field| field.shape = Shape::Any);
    }
    one.open |= other.open;
    for field in &other.known {
        match one.known.iter_mut().find(|known| known.name == field.name) {
            Some(known) if !field.certain => known.shape = known.shape.clone().or(field.shape.clone()),
            Some(known) => *known = field.clone(),
            None => {
                let shape = if one.open && !field.certain { Shape::Any } else { field.shape.clone() };
                one.known.push(Field { shape, ..field.clone() });
            }
        }
    }
    Shape::one(Kind::Map(one))
}

/// What a function gives, of Rhai's or ours, when it does not fail.
fn given(name: &str, arguments: &[Shape]) -> Shape {
    const TIME: Kind = Kind::Like("\"2024-05-01T10:00:00.500Z\"");
    const UUID: Kind = Kind::Like("\"0b5c6c1e-6c1f-4f0e-9d43-3f1a2b4c5d6e\"");
    let or_default = |kind: Kind| Shape::one(kind).or(arguments[1].clone());
    let one = Shape::one;
    match (name, arguments.len()) {
        ("now" | "now_ms", 0) | ("parse_ts", 1..=3) | ("start_of", 2..=3) | ("shard", 2) => one(Kind::Int),
        ("len" | "to_int" | "parse_int", 1) => one(Kind::Int),
        ("distance_m", 4) | ("to_float" | "parse_float", 1) | ("round", 2) | ("scale", 5) => one(Kind::Float),
        ("format_ts", 1) => one(TIME),
        ("uuid" | "uuid_v7", 0) | ("uuid_of", 1) => one(UUID),
        ("format_ts", 2..=3) | ("to_json" | "to_string" | "to_hex" | "to_base64" | "to_base64url", 1) => {
            one(Kind::Text)
        }
        ("url_encode" | "sha256" | "trimmed" | "type_of", 1) | ("geohash", 2..=3) | ("replaced", 3) => one(Kind::Text),
        ("padded" | "replace_matches", 3) | ("truncated" | "joined", 2) => one(Kind::Text),
        ("starts_with" | "ends_with" | "contains" | "matches", 2) | ("is_empty", 1) => one(Kind::Bool),
        ("num" | "int", 2) => or_default(Kind::Number),
        ("float", 2) => or_default(Kind::Float),
        ("str", 2) => or_default(Kind::Text),
        ("numeric", 1) => match arguments[0].kinds() {
            Some([kind]) if sort(kind) == Sort::Text => Shape::OneOf(vec![Kind::Number, Kind::Text]),
            Some([kind]) if matches!(sort(kind), Sort::Int | Sort::Float) => arguments[0].clone(),
            _ => Shape::Any,
        },
        _ => Shape::Any,
    }
}

#[cfg(test)]
mod tests;
