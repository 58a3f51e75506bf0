//! From a script's tree to a plan, or to the reason why there is none.
mod chain;

use std::{
    collections::{BTreeSet, HashSet},
    rc::Rc,
};

use super::{
    builtins,
    changed::changed,
    tree::{Block, Case, Change, Closure, E, Each, How, Key, Link, LinkKind, Member, Path, Place, Plan, S},
};
use crate::{
    codec::json,
    script::{
        functions,
        syntax::{self, At, Expr, ExprKind, Function, Functions, Operator, Stmt, StmtKind, Tree, changes},
    },
};

/// Why a script is not compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Line and column in the script, both from 1; 0 where it is not known.
    pub at: (usize, usize),
    /// What the compiler does not know: ``the function `x` ``.
    pub what: String,
}

type Compiled<T> = Result<T, Refusal>;

fn refuse<T>(at: At, what: impl Into<String>) -> Compiled<T> {
    Err(Refusal { at, what: what.into() })
}

/// Most nodes of a plan: inlined functions could make it grow without end.
const NODES_MAX: usize = 10_000;

/// Compiles a script. `params` is what it knows by that name.
pub(in crate::script) fn compile(tree: &Tree, params: Option<&serde_json::Value>) -> Compiled<Plan> {
    let changed = changed(tree);
    let mut compiler = Compiler {
        functions: &tree.functions,
        params,
        changed,
        places: vec![Place { parent: 0, segment: None }],
        scope: Vec::new(),
        locals: 0,
        inlined: Vec::new(),
        inner: 0,
        module: String::new(),
        nodes: 0,
        reads_json: false,
        results: Vec::new(),
    };
    let mut first = None;
    if compiler.changed.contains("payload") {
        compiler.reads_json = true;
        let local = compiler.bind("payload");
        first = Some(S::Set(local, E::Payload));
    }
    let mut body = compiler.block(&tree.body, true)?;
    if let Some(first) = first {
        body.steps.insert(0, first);
    }
    let members: BTreeSet<&str> = compiler.results.iter().flatten().map(String::as_str).collect();
    let members: Vec<Box<str>> = members.into_iter().map(Into::into).collect();
    let number = |name: &String| members.iter().position(|member| **member == **name).expect("a member of all");
    let results = compiler.results.iter().map(|names| names.iter().map(number).collect()).collect();
    let Compiler { locals, places, reads_json, .. } = compiler;
    Ok(Plan { body, locals, places, members, results, reads_json })
}

/// What a name stands for.
#[derive(Clone)]
enum Bound {
    Local(usize),
    /// A variable that never changes and is a place in the payload. `or_empty` when `?? #{}` follows it.
    Way {
        path: Path,
        or_empty: bool,
    },
}

struct Compiler<'t> {
    functions: &'t Functions,
    params: Option<&'t serde_json::Value>,
    /// Names that are assigned to, or changed by a method, anywhere.
    changed: HashSet<String>,
    places: Vec<Place>,
    scope: Vec<(String, Bound)>,
    locals: usize,
    /// The functions whose bodies are being put in place of their calls.
    inlined: Vec<*const Function>,
    /// How many functions and closures the code at hand stands in: a `return` ends only the innermost.
    inner: usize,
    /// The module of the function at hand.
    module: String,
    nodes: usize,
    reads_json: bool,
    /// The maps that the script may end with: the names of their members, sorted.
    results: Vec<Vec<String>>,
}

impl Compiler<'_> {
    fn bind(&mut self, name: &str) -> usize {
        let local = self.locals;
        self.locals += 1;
        self.scope.push((name.to_owned(), Bound::Local(local)));
        local
    }

    fn bound(&self, name: &str) -> Option<&Bound> {
        self.scope.iter().rev().find(|(n, _)| n == name).map(|(_, bound)| bound)
    }

    /// `result` is true where the block's value is the script's.
    fn block(&mut self, statements: &[Stmt], result: bool) -> Compiled<Block> {
        let outer = self.scope.len();
        let mut steps = Vec::new();
        let mut value = None;
        let last = statements.len().wrapping_sub(1);
        for (index, statement) in statements.iter().enumerate() {
            if index == last {
                value = self.last(statement, result, &mut steps)?;
            } else {
                self.step(statement, &mut steps)?;
            }
        }
        self.scope.truncate(outer);
        Ok(Block { steps, value })
    }

    /// The last statement of a block: its value is the block's.
    fn last(&mut self, statement: &Stmt, result: bool, steps: &mut Vec<S>) -> Compiled<Option<E>> {
        Ok(Some(match &statement.kind {
            StmtKind::Expr(expression) if !self.is_change(expression) => self.value(expression, result)?,
            StmtKind::If(condition, then, otherwise) => {
                let condition = self.expr(condition)?;
                E::If(Box::new((condition, self.block(then, result)?, self.block(otherwise, result)?)))
            }
            StmtKind::Switch(value, cases) => self.switch(value, cases, result)?,
            StmtKind::Block(block) => E::Block(Box::new(self.block(block, result)?)),
            _ => {
                self.step(statement, steps)?;
                return Ok(None);
            }
        }))
    }

    /// An expression; `result` when its value is the script's.
    fn value(&mut self, expression: &Expr, result: bool) -> Compiled<E> {
        if !result {
            return self.expr(expression);
        }
        Ok(match &expression.kind {
            ExprKind::Block(block) => E::Block(Box::new(self.block(block, true)?)),
            ExprKind::Map(members) => self.map(members, true)?,
            _ => self.expr(expression)?,
        })
    }

    fn switch(&mut self, value: &Expr, cases: &[syntax::Case], result: bool) -> Compiled<E> {
        let value = self.expr(value)?;
        let mut compiled = Vec::with_capacity(cases.len());
        for case in cases {
            let condition = case.condition.as_ref().map(|condition| self.expr(condition)).transpose()?;
            compiled.push(Case { fits: case.fits.clone(), condition, value: self.value(&case.value, result)? });
        }
        Ok(E::Switch(Box::new((value, compiled))))
    }

    fn step(&mut self, statement: &Stmt, steps: &mut Vec<S>) -> Compiled<()> {
        self.count(statement.at)?;
        let step = match &statement.kind {
            StmtKind::Nothing => return Ok(()),
            StmtKind::Let(name, value) => {
                if let Some((path, or_empty)) = self.way_of(name, value) {
                    // Looked at all the same: a missing parent is an error here, not where the name is used.
                    steps.push(S::Expr(E::Path(path.clone())));
                    self.scope.push((name.clone(), Bound::Way { path, or_empty }));
                    return Ok(());
                }
                let value = self.expr(value)?;
                S::Set(self.bind(name), value)
            }
            StmtKind::Assign(target, operator, value) => self.assign(target, *operator, value)?,
            StmtKind::Expr(expression) if self.is_change(expression) => self.change(expression)?,
            StmtKind::Expr(expression) => S::Expr(self.expr(expression)?),
            StmtKind::If(condition, then, otherwise) => {
                S::If(self.expr(condition)?, self.block(then, false)?, self.block(otherwise, false)?)
            }
            StmtKind::Switch(value, cases) => S::Expr(self.switch(value, cases, false)?),
            StmtKind::For(name, list, body) => self.for_each(name, list, body)?,
            StmtKind::Block(block) => S::Expr(E::Block(Box::new(self.block(block, false)?))),
            StmtKind::Return(value) => {
                let result = self.inner == 0;
                let value = value.as_ref().map_or(Ok(E::Unit), |value| self.value(value, result))?;
                if result { S::Return(value) } else { S::Leave(value) }
            }
            StmtKind::Throw => S::Expr(E::Throw),
            StmtKind::Break => S::Break,
            StmtKind::Continue => S::Continue,
            StmtKind::Other(what) => return refuse(statement.at, *what),
        };
        steps.push(step);
        Ok(())
    }

    fn for_each(&mut self, name: &str, list: &Expr, body: &[Stmt]) -> Compiled<S> {
        let range = match &list.kind {
            ExprKind::Operator(operator @ (Operator::Range | Operator::RangeTo), ends) => {
                Some((self.expr(&ends[0])?, self.expr(&ends[1])?, *operator == Operator::RangeTo))
            }
            _ => None,
        };
        let list = if range.is_none() { Some(self.expr(list)?) } else { None };
        let outer = self.scope.len();
        let variable = self.bind(name);
        let body = self.block(body, false)?;
        self.scope.truncate(outer);
        Ok(match (range, list) {
            (Some((from, to, included)), _) => S::ForRange { variable, from, to, included, body },
            (None, list) => S::For(variable, list.unwrap_or(E::Unit), body),
        })
    }

    fn assign(&mut self, target: &Expr, operator: Option<Operator>, value: &Expr) -> Compiled<S> {
        let value = self.expr(value)?;
        let (local, keys) = self.target(target)?;
        Ok(match (keys.is_empty(), operator) {
            (true, None) => S::Set(local, value),
            (true, Some(operator)) => S::Set(local, E::Binary(operator, Box::new((E::Local(local), value)))),
            (false, operator) => S::Update { local, keys, change: Change::Set(operator, value) },
        })
    }

    /// The variable, and the way in it, that something is done to.
    fn target(&mut self, target: &Expr) -> Compiled<(usize, Vec<Key>)> {
        let (base, links) = match &target.kind {
            ExprKind::Chain(base, links) => (&**base, links.as_slice()),
            _ => (target, &[][..]),
        };
        let local = self.changed_local(base)?;
        let keys = self.keys(links)?;
        Ok((local, keys))
    }

    fn keys(&mut self, links: &[syntax::Link]) -> Compiled<Vec<Key>> {
        let key = |link: &syntax::Link| {
            Ok(match &link.kind {
                _ if link.optional => return refuse(link.at, "a change behind `?`"),
                syntax::LinkKind::Field(name) => Key::Field(name.as_str().into()),
                syntax::LinkKind::Index(Expr { kind: ExprKind::Text(name), .. }) => Key::Field(name.as_str().into()),
                syntax::LinkKind::Index(index) => Key::Index(self.expr(index)?),
                syntax::LinkKind::Method(name, _) => return refuse(link.at, format!("a change behind `{name}()`")),
            })
        };
        links.iter().map(key).collect()
    }

    /// The local variable that is changed.
    fn changed_local(&self, base: &Expr) -> Compiled<usize> {
        match &base.kind {
            ExprKind::Variable(name) => match self.bound(name) {
                Some(Bound::Local(local)) => Ok(*local),
                _ => refuse(base.at, format!("a change of `{name}`")),
            },
            _ => refuse(base.at, "a change of something unnamed"),
        }
    }

    /// True for a call like `list.push(x)`, which is there for what it does to `list`.
    fn is_change(&self, expression: &Expr) -> bool {
        let ExprKind::Chain(_, links) = &expression.kind else { return false };
        matches!(links.last(), Some(syntax::Link { kind: syntax::LinkKind::Method(name, arguments), .. })
            if matches!((name.as_str(), arguments.len()), ("push", 1) | ("trim", 0)))
    }

    fn change(&mut self, expression: &Expr) -> Compiled<S> {
        let ExprKind::Chain(base, links) = &expression.kind else { return refuse(expression.at, "this change") };
        let Some((syntax::Link { kind: syntax::LinkKind::Method(name, arguments), .. }, links)) = links.split_last()
        else {
            return refuse(expression.at, "this change");
        };
        let change = match (name.as_str(), arguments.as_slice()) {
            ("push", [item]) => Change::Push(self.expr(item)?),
            _ => Change::Trim,
        };
        let local = self.changed_local(base)?;
        let keys = self.keys(links)?;
        Ok(S::Update { local, keys, change })
    }

    fn count(&mut self, at: At) -> Compiled<()> {
        self.nodes += 1;
        if self.nodes > NODES_MAX { refuse(at, "a script of this size") } else { Ok(()) }
    }

    fn exprs(&mut self, expressions: &[Expr]) -> Compiled<Vec<E>> {
        expressions.iter().map(|expression| self.expr(expression)).collect()
    }

    fn expr(&mut self, expression: &Expr) -> Compiled<E> {
        self.count(expression.at)?;
        Ok(match &expression.kind {
            ExprKind::Unit => E::Unit,
            ExprKind::Bool(value) => E::Bool(*value),
            ExprKind::Int(value) => E::Int(*value),
            ExprKind::Float(value) => E::Float(*value),
            ExprKind::Text(text) => match is_clean(text) {
                true => E::Clean(text.as_str().into()),
                false => E::Text(text.as_str().into()),
            },
            ExprKind::List(items) => E::List(self.exprs(items)?),
            ExprKind::Map(members) => self.map(members, false)?,
            ExprKind::Interpolated(parts) => E::Shown(self.exprs(parts)?),
            ExprKind::Variable(name) => self.variable(name, expression.at)?,
            ExprKind::Chain(base, links) => self.chain(base, links)?,
            ExprKind::Call { module, name, arguments } => self.call(module, name, arguments, expression.at)?,
            ExprKind::Operator(Operator::Not, operands) => E::Not(Box::new(self.expr(&operands[0])?)),
            ExprKind::Operator(Operator::Minus, operands) => E::Minus(Box::new(self.expr(&operands[0])?)),
            ExprKind::Operator(Operator::Range | Operator::RangeTo, _) => {
                return refuse(expression.at, "a range outside `for`");
            }
            ExprKind::Operator(operator, operands) => {
                E::Binary(*operator, Box::new((self.expr(&operands[0])?, self.expr(&operands[1])?)))
            }
            ExprKind::And(parts) => E::And(self.exprs(parts)?),
            ExprKind::Or(parts) => E::Or(self.exprs(parts)?),
            ExprKind::Coalesce(parts) => E::Coalesce(self.exprs(parts)?),
            ExprKind::Block(block) => E::Block(Box::new(self.block(block, false)?)),
            ExprKind::Closure { .. } => return refuse(expression.at, "a closure that is kept"),
            ExprKind::Other(what) => return refuse(expression.at, *what),
        })
    }

    /// `result` when it is the script's value.
    fn map(&mut self, members: &[(String, Expr)], result: bool) -> Compiled<E> {
        let mut compiled = Vec::with_capacity(members.len());
        for (name, value) in members {
            compiled.push((name.clone(), self.expr(value)?));
        }
        // As Rhai's maps are.
        compiled.sort_by(|a, b| a.0.cmp(&b.0));
        let result = result.then(|| {
            self.results.push(compiled.iter().map(|(name, _)| name.clone()).collect());
            self.results.len() - 1
        });
        let members = compiled.into_iter().enumerate().map(|(index, (name, value))| member(index, &name, value));
        Ok(E::Map(members.collect(), result))
    }

    fn variable(&mut self, name: &str, at: At) -> Compiled<E> {
        match self.bound(name).cloned() {
            Some(Bound::Local(local)) => return Ok(E::Local(local)),
            Some(Bound::Way { path, or_empty: false }) => return Ok(E::Path(path)),
            Some(Bound::Way { path, or_empty: true }) => {
                return Ok(E::Coalesce(vec![E::Path(path), E::Map(Vec::new(), None)]));
            }
            None => {}
        }
        Ok(match name {
            _ if !self.inlined.is_empty() => return refuse(at, format!("the variable `{name}`")),
            "payload" => {
                self.reads_json = true;
                E::Payload
            }
            "text" => E::PayloadText,
            "is_json" => {
                self.reads_json = true;
                E::IsJson
            }
            "meta" => return refuse(at, "`meta` as a whole"),
            "params" => match self.params {
                Some(params) => constant(params),
                None => return refuse(at, "the variable `params`"),
            },
            _ => return refuse(at, format!("the variable `{name}`")),
        })
    }

    fn link(&mut self, link: &syntax::Link) -> Compiled<Link> {
        let kind = match &link.kind {
            syntax::LinkKind::Field(name) => LinkKind::Field(name.as_str().into()),
            syntax::LinkKind::Index(Expr { kind: ExprKind::Text(name), .. }) => LinkKind::Field(name.as_str().into()),
            syntax::LinkKind::Index(index) => LinkKind::Index(self.expr(index)?),
            syntax::LinkKind::Method(name, arguments) => {
                if let (Some(how), [Expr { kind: ExprKind::Closure { captures, function }, .. }]) =
                    (how(name), arguments.as_slice())
                {
                    LinkKind::Each(how, self.closure(captures, function, link.at)?)
                } else if let Some(builtin) = builtins::find(name, arguments.len() + 1) {
                    LinkKind::Builtin(builtin, self.exprs(arguments)?)
                } else if self.functions.keys().any(|(_, n, _)| n == name) {
                    // `this` would be what it is called on.
                    return refuse(link.at, format!("the function `{name}` as a method"));
                } else if let Some(function) = functions::find(name, arguments.len() + 1) {
                    LinkKind::Function(function, self.exprs(arguments)?)
                } else {
                    return refuse(link.at, format!("the method `{name}`"));
                }
            }
        };
        Ok(Link { kind, optional: link.optional })
    }

    fn closure(&mut self, captures: &[String], function: &Function, at: At) -> Compiled<Closure> {
        let parameters = &function.parameters[captures.len()..];
        let (item, index) = match parameters {
            [item] => (item, None),
            [item, index] => (item, Some(index)),
            _ => return refuse(at, "a closure without, or with more than two, parameters"),
        };
        let outer = self.scope.len();
        // What is captured is shared with the variables around: the closure's names mean the same ones.
        let item = self.bind(item);
        let index = index.map(|index| self.bind(index));
        self.inner += 1;
        let body = self.block(&function.body, false);
        self.inner -= 1;
        self.scope.truncate(outer);
        Ok(Closure { item, index, body: body? })
    }

    fn call(&mut self, module: &str, name: &str, arguments: &[Expr], at: At) -> Compiled<E> {
        let own = match module {
            "" => self.module.clone(),
            module => module.to_owned(),
        };
        if let Some(function) = self.functions.get(&(own.clone(), name.to_owned(), arguments.len())).cloned() {
            return self.inline(&function, own, arguments, at);
        }
        if !module.is_empty() {
            return refuse(at, format!("the function `{module}::{name}`"));
        }
        if (name, arguments.len()) == ("drop", 0) {
            return Ok(E::Drop);
        }
        if changes(name) {
            return refuse(at, format!("the function `{name}`, which changes its argument"));
        }
        if let ([list, Expr { kind: ExprKind::Closure { captures, function }, .. }], Some(how)) = (arguments, how(name))
        {
            let list = self.expr(list)?;
            let closure = self.closure(captures, function, at)?;
            return Ok(E::Each(Box::new(Each { how, list, closure })));
        }
        if let Some(builtin) = builtins::find(name, arguments.len()) {
            return Ok(E::Builtin(builtin, self.exprs(arguments)?));
        }
        match functions::find(name, arguments.len()) {
            Some(function) => Ok(E::Function(function, self.exprs(arguments)?)),
            None => refuse(at, format!("the function `{name}`")),
        }
    }

    /// A function's body in place of its call.
    fn inline(&mut self, function: &Rc<Function>, module: String, arguments: &[Expr], at: At) -> Compiled<E> {
        if self.inlined.contains(&Rc::as_ptr(function)) {
            return refuse(at, "a function that calls itself");
        }
        let values = self.exprs(arguments)?;
        // The body sees its parameters and nothing around it.
        let scope = std::mem::take(&mut self.scope);
        let module = std::mem::replace(&mut self.module, module);
        self.inlined.push(Rc::as_ptr(function));
        self.inner += 1;
        let locals: Vec<usize> = function.parameters.iter().map(|name| self.bind(name)).collect();
        let body = self.block(&function.body, false);
        self.inlined.pop();
        self.inner -= 1;
        self.module = module;
        self.scope = scope;
        Ok(E::Inline(locals.into_iter().zip(values).collect(), Box::new(body?)))
    }
}

/// A setting as an expression.
fn constant(value: &serde_json::Value) -> E {
    use serde_json::Value as Json;
    match value {
        Json::Null => E::Unit,
        Json::Bool(value) => E::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => E::Int(value),
            (None, Some(value)) => E::Float(value),
            (None, None) => E::Throw,
        },
        Json::String(text) if is_clean(text) => E::Clean(text.as_str().into()),
        Json::String(text) => E::Text(text.as_str().into()),
        Json::Array(items) => E::List(items.iter().map(constant).collect()),
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| name.as_str());
            E::Map(
                members
                    .into_iter()
                    .enumerate()
                    .map(|(index, (name, value))| member(index, name, constant(value)))
                    .collect(),
                None,
            )
        }
    }
}

/// The nth member of a map.
fn member(index: usize, name: &str, value: E) -> Member {
    let mut prefix = vec![if index == 0 { b'{' } else { b',' }];
    json::string(name, &mut prefix);
    prefix.push(b':');
    Member { name: name.into(), prefix: prefix.into(), value }
}

/// What a function over a list and a closure does.
fn how(name: &str) -> Option<How> {
    Some(match name {
        "map" => How::Map,
        "filter" => How::Filter,
        "all" => How::All,
        "some" => How::Some,
        "find" => How::Find,
        _ => return None,
    })
}

/// True when JSON writes the text as it is.
fn is_clean(text: &str) -> bool {
    text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
}
