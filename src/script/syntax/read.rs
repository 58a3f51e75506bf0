//! Makes our tree of Rhai's.
use std::{collections::HashMap, rc::Rc};

use rhai::{
    AST, ASTFlags, ASTNode, Engine, Expr as RhaiExpr, FnCallExpr, FnPtr, Position, RangeCase, Scope, Stmt as RhaiStmt,
    StmtBlock, SwitchCasesCollection, Token,
};

use super::{
    At, Block, Case, Expr, ExprKind, Fits, Function, Functions, Key, Link, LinkKind, Operator, Stmt, StmtKind, Tree,
};

impl Tree {
    /// The tree of a script compiled by `engine`, with the functions of `modules`, each by its name.
    pub fn of<'a>(
        engine: &Engine,
        source: &str,
        ast: &'a AST,
        modules: impl IntoIterator<Item = (&'a str, &'a AST)>,
    ) -> Self {
        let mut functions = Functions::new();
        for (name, ast) in std::iter::once(("", ast)).chain(modules) {
            functions.extend(Reader::new(engine, "", name, ast).functions());
        }
        let reader = Reader::new(engine, source, "", ast);
        Self { body: reader.block(ast.statements()), functions }
    }
}

/// Reads one script or module.
struct Reader<'a> {
    engine: &'a Engine,
    source: &'a str,
    module: &'a str,
    ast: &'a AST,
}

fn at(position: Position) -> At {
    (position.line().unwrap_or(0), position.position().unwrap_or(0))
}

impl<'a> Reader<'a> {
    fn new(engine: &'a Engine, source: &'a str, module: &'a str, ast: &'a AST) -> Self {
        Self { engine, source, module, ast }
    }

    fn functions(&self) -> Functions {
        let named = self.ast.iter_functions().filter(|f| !f.name.starts_with("anon$") && f.this_type.is_none());
        let named = named.map(|f| (f.name.to_owned(), f.params.len()));
        named
            .collect::<Vec<_>>()
            .into_iter()
            .filter_map(|(name, count)| {
                let function = self.function(&name, count)?;
                Some(((self.module.to_owned(), name, count), Rc::new(function)))
            })
            .collect()
    }

    /// The function of that name, be it one that a closure was made into.
    fn function(&self, name: &str, count: usize) -> Option<Function> {
        let definition = self.ast.shared_lib().get_script_fn(name, count)?;
        let parameters = definition.params.iter().map(ToString::to_string).collect();
        // The type of a function's body has no public name, so it is reached by a walk through a tree of only this one.
        // (`clone_functions_only_filtered` does not filter: rhai 1.27 takes all functions where it has none yet.)
        let mut alone = self.ast.clone();
        alone.clear_statements().retain_functions(|_, _, n, k| n == name && k == count);
        let mut body = Vec::new();
        alone.walk(&mut |path| {
            if let [ASTNode::Stmt(statement)] = path {
                body.push(self.stmt(statement));
            }
            true
        });
        Some(Function { parameters, body })
    }

    fn block(&self, statements: &[RhaiStmt]) -> Block {
        statements.iter().map(|statement| self.stmt(statement)).collect()
    }

    fn body(&self, block: &StmtBlock) -> Block {
        self.block(block.statements())
    }

    fn stmt(&self, statement: &RhaiStmt) -> Stmt {
        let kind = match statement {
            RhaiStmt::Noop(_) => StmtKind::Nothing,
            RhaiStmt::Var(variable, ..) => StmtKind::Let(variable.0.name.to_string(), self.expr(&variable.1)),
            RhaiStmt::Assignment(assignment) => {
                let (operation, sides) = &**assignment;
                let (target, value) = (self.expr(&sides.lhs), self.expr(&sides.rhs));
                match operation.get_op_assignment_info() {
                    None => StmtKind::Assign(target, None, value),
                    Some((_, _, _, _, token, _)) => match operator(token, 2) {
                        Some(operator) => StmtKind::Assign(target, Some(operator), value),
                        None => StmtKind::Other("an operator"),
                    },
                }
            }
            RhaiStmt::Expr(expression) => StmtKind::Expr(self.expr(expression)),
            RhaiStmt::FnCall(call, position) => StmtKind::Expr(self.call(call, *position)),
            RhaiStmt::If(flow, _) => {
                StmtKind::If(self.expr(&flow.expr), self.body(&flow.body), self.body(&flow.branch))
            }
            RhaiStmt::Switch(switch, _) => match self.cases(&switch.1) {
                Some(cases) => StmtKind::Switch(self.expr(&switch.0), cases),
                None => StmtKind::Other("a `switch` over lists or maps"),
            },
            RhaiStmt::For(x, _) => match &**x {
                (variable, None, flow) => {
                    StmtKind::For(variable.name.to_string(), self.expr(&flow.expr), self.body(&flow.body))
                }
                _ => StmtKind::Other("`for` with a counter"),
            },
            RhaiStmt::Return(value, flags, _) if !flags.contains(ASTFlags::BREAK) => {
                StmtKind::Return(value.as_ref().map(|value| self.expr(value)))
            }
            RhaiStmt::Return(..) => StmtKind::Throw,
            RhaiStmt::BreakLoop(None, flags, _) if flags.contains(ASTFlags::BREAK) => StmtKind::Break,
            RhaiStmt::BreakLoop(None, ..) => StmtKind::Continue,
            RhaiStmt::BreakLoop(Some(_), ..) => StmtKind::Other("`break` with a value"),
            RhaiStmt::Block(block) => StmtKind::Block(self.body(block)),
            RhaiStmt::While(..) => StmtKind::Other("`while` and `loop`"),
            RhaiStmt::Do(..) => StmtKind::Other("`do`"),
            RhaiStmt::TryCatch(..) => StmtKind::Other("`try`"),
            RhaiStmt::Share(_) => StmtKind::Nothing,
            _ => StmtKind::Other("this statement"),
        };
        Stmt { kind, at: at(statement.position()) }
    }

    fn exprs(&self, expressions: &[RhaiExpr]) -> Vec<Expr> {
        expressions.iter().map(|expression| self.expr(expression)).collect()
    }

    fn expr(&self, expression: &RhaiExpr) -> Expr {
        let kind = match expression {
            RhaiExpr::Unit(_) => ExprKind::Unit,
            RhaiExpr::BoolConstant(value, _) => ExprKind::Bool(*value),
            RhaiExpr::IntegerConstant(value, _) => ExprKind::Int(*value),
            RhaiExpr::FloatConstant(value, _) => ExprKind::Float(**value),
            RhaiExpr::StringConstant(value, _) => ExprKind::Text(value.to_string()),
            RhaiExpr::CharConstant(..) => ExprKind::Other("a character in single quotes"),
            RhaiExpr::InterpolatedString(parts, _) => ExprKind::Interpolated(self.exprs(parts)),
            RhaiExpr::Array(items, _) => ExprKind::List(self.exprs(items)),
            RhaiExpr::Map(map, _) => {
                let key = |name: &rhai::Ident| Key { name: name.name.to_string(), at: at(name.pos) };
                ExprKind::Map(map.0.iter().map(|(name, value)| (key(name), self.expr(value))).collect())
            }
            RhaiExpr::DynamicConstant(value, position) => match value.read_lock::<FnPtr>() {
                Some(function) if !function.is_curried() => return self.closure(function.fn_name(), &[], *position),
                Some(_) => ExprKind::Other("a function pointer"),
                None => constant(value),
            },
            RhaiExpr::Variable(variable, ..) if variable.2.is_empty() => ExprKind::Variable(variable.1.to_string()),
            RhaiExpr::Variable(..) => ExprKind::Other("a constant of a module"),
            RhaiExpr::ThisPtr(_) => ExprKind::Other("`this`"),
            RhaiExpr::Stmt(block) => match block.statements() {
                // How Rhai writes a closure that uses variables from around it.
                [RhaiStmt::Share(_), RhaiStmt::Expr(inner)] => return self.expr(inner),
                [RhaiStmt::Share(_), RhaiStmt::FnCall(call, position)] => return self.call(call, *position),
                statements => ExprKind::Block(self.block(statements)),
            },
            RhaiExpr::FnCall(call, position) => return self.call(call, *position),
            RhaiExpr::Dot(..) | RhaiExpr::Index(..) => self.chain(expression),
            RhaiExpr::And(parts, _) => ExprKind::And(self.exprs(parts)),
            RhaiExpr::Or(parts, _) => ExprKind::Or(self.exprs(parts)),
            RhaiExpr::Coalesce(parts, _) => ExprKind::Coalesce(self.exprs(parts)),
            _ => ExprKind::Other("this expression"),
        };
        Expr { kind, at: at(expression.start_position()) }
    }

    fn call(&self, call: &FnCallExpr, position: Position) -> Expr {
        let place = at(position);
        let made = |kind| Expr { kind, at: place };
        if let Some(token) = &call.op_token {
            return made(match operator(token, call.args.len()) {
                Some(operator) => ExprKind::Operator(operator, self.exprs(&call.args)),
                None => ExprKind::Other("an operator"),
            });
        }
        if call.name == "curry"
            && let Some(RhaiExpr::DynamicConstant(value, _)) = call.args.first()
            && let Some(function) = value.read_lock::<FnPtr>()
        {
            return self.closure(function.fn_name(), &call.args[1..], position);
        }
        if call.capture_parent_scope {
            return made(ExprKind::Other("a call with `!`"));
        }
        let name = call.name.to_string();
        let module = match call.namespace.path.as_slice() {
            [] => String::new(),
            [module] => module.name.to_string(),
            _ => return made(ExprKind::Other("a module inside a module")),
        };
        made(ExprKind::Call { module, name, arguments: self.exprs(&call.args) })
    }

    fn closure(&self, name: &str, captures: &[RhaiExpr], position: Position) -> Expr {
        let captures: Option<Vec<String>> = captures
            .iter()
            .map(|capture| match capture {
                RhaiExpr::Variable(variable, ..) => Some(variable.1.to_string()),
                _ => None,
            })
            .collect();
        // A closure may take one, two or three values; the number of its parameters tells which function it is.
        let kind = captures
            .and_then(|captures| {
                let function = (captures.len()..captures.len() + 5).find_map(|count| self.function(name, count))?;
                Some(ExprKind::Closure { captures, function: Rc::new(function) })
            })
            .unwrap_or(ExprKind::Other("a function pointer"));
        Expr { kind, at: at(position) }
    }

    /// Rhai nests `a.b[c].d` to the right: `Dot(a, Index(b, Dot(c, d)))`.
    fn chain(&self, expression: &RhaiExpr) -> ExprKind {
        let mut links = Vec::new();
        let mut start = None;
        let (mut current, mut optional, mut index) = (expression, false, false);
        let mut put = |expression: &RhaiExpr, optional: bool, index: bool| {
            if start.is_none() {
                start = Some(self.expr(expression));
                return true;
            }
            let kind = match expression {
                _ if index => LinkKind::Index(self.expr(expression)),
                RhaiExpr::Property(property, _) => LinkKind::Field(property.2.to_string()),
                RhaiExpr::MethodCall(call, _) => LinkKind::Method(call.name.to_string(), self.exprs(&call.args)),
                _ => return false,
            };
            links.push(Link { kind, optional, at: at(expression.start_position()) });
            true
        };
        let known = loop {
            let (sides, flags, is_index) = match current {
                RhaiExpr::Dot(sides, flags, _) => (sides, *flags, false),
                RhaiExpr::Index(sides, flags, _) => (sides, *flags, true),
                last => break put(last, optional, index),
            };
            if !put(&sides.lhs, optional, index) {
                break false;
            }
            (optional, index, current) = (flags.contains(ASTFlags::NEGATED), is_index, &sides.rhs);
            if is_index && flags.contains(ASTFlags::BREAK) {
                break put(current, optional, true);
            }
        };
        match start {
            Some(start) if known => ExprKind::Chain(Box::new(start), links),
            _ => ExprKind::Other("this chain"),
        }
    }

    /// The cases of a `switch`, in the order they are tried. `None` when one of them is no number, text, bool or `()`.
    fn cases(&self, switch: &SwitchCasesCollection) -> Option<Vec<Case>> {
        let case = |fits: Fits, index: usize| {
            let sides = &switch.expressions[index];
            let condition = match &sides.lhs {
                RhaiExpr::BoolConstant(true, _) | RhaiExpr::Unit(_) => None,
                condition => Some(self.expr(condition)),
            };
            Case { fits, condition, value: self.expr(&sides.rhs) }
        };
        let literals = if switch.cases.is_empty() { HashMap::new() } else { self.literals() };
        let mut cases = Vec::new();
        for (hash, blocks) in &switch.cases {
            let Some(fits) = literals.get(hash) else {
                // A range stands here, too, as a value of its own; no value of a message is one.
                if blocks.blocks.iter().all(|block| switch.ranges.iter().any(|range| range.index() == *block)) {
                    continue;
                }
                return None;
            };
            cases.extend(blocks.blocks.iter().map(|&index| case(fits.clone(), index)));
        }
        for range in &switch.ranges {
            let (fits, index) = match range {
                RangeCase::ExclusiveInt(range, index) => (Fits::Range(range.start, range.end), *index),
                RangeCase::InclusiveInt(range, index) => (Fits::RangeTo(*range.start(), *range.end()), *index),
            };
            cases.push(case(fits, index));
        }
        cases.extend(switch.def_case.map(|index| case(Fits::Any, index)));
        Some(cases)
    }

    /// Rhai keeps only the hash of a case's value. Each literal of the script is compiled as a case of its own, which
    /// tells its hash.
    fn literals(&self) -> HashMap<u64, Fits> {
        let (tokens, control) = self.engine.lex([&self.source]);
        let mut found = vec![("()".to_owned(), Fits::Unit)];
        // Open brackets inside each `${…}`: after the last one the text goes on, which only the reader of tokens knows.
        let mut inside: Vec<usize> = Vec::new();
        for (token, _) in tokens {
            match token {
                Token::EOF => break,
                Token::InterpolatedString(_) => inside.push(0),
                Token::LeftBrace | Token::MapStart => inside.iter_mut().for_each(|open| *open += 1),
                Token::RightBrace => {
                    inside.iter_mut().for_each(|open| *open -= 1);
                    if inside.pop_if(|open| *open == 0).is_some() {
                        control.borrow_mut().is_within_text = true;
                    }
                }
                Token::True => found.push(("true".to_owned(), Fits::Bool(true))),
                Token::False => found.push(("false".to_owned(), Fits::Bool(false))),
                Token::IntegerConstant(value) => {
                    let negative = value.checked_neg().unwrap_or(value);
                    found.extend([value, negative].map(|value| (format!("{value}"), Fits::Int(value))));
                }
                Token::FloatConstant(value) => {
                    let value = *value.0;
                    found.extend([value, -value].map(|value| (format!("{value:?}"), Fits::Float(value))));
                }
                Token::StringConstant(text) => found.push((quoted(&text), Fits::Text(text.to_string()))),
                _ => {}
            }
        }
        let mut scope = Scope::new();
        scope.push("x", ());
        let hash = |literal: &str| {
            let ast = self.engine.compile_with_scope(&scope, format!("switch x {{ {literal} => 1 }}")).ok()?;
            match ast.statements() {
                [RhaiStmt::Switch(switch, _)] => switch.1.cases.keys().next().copied(),
                [RhaiStmt::Expr(expression)] => match &**expression {
                    RhaiExpr::Stmt(block) => match block.statements() {
                        [RhaiStmt::Switch(switch, _)] => switch.1.cases.keys().next().copied(),
                        _ => None,
                    },
                    _ => None,
                },
                _ => None,
            }
        };
        found.into_iter().filter_map(|(literal, fits)| Some((hash(&literal)?, fits))).collect()
    }
}

/// A text as a script writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => out.push(char),
        }
    }
    out.push('"');
    out
}

/// A value that Rhai has worked out when it compiled the script.
fn constant(value: &rhai::Dynamic) -> ExprKind {
    let inner = |value: &rhai::Dynamic| Expr { kind: constant(value), at: (0, 0) };
    let whole = |value: i64| Expr { kind: ExprKind::Int(value), at: (0, 0) };
    if value.is_unit() {
        ExprKind::Unit
    } else if let Ok(value) = value.as_bool() {
        ExprKind::Bool(value)
    } else if let Ok(value) = value.as_int() {
        ExprKind::Int(value)
    } else if let Ok(value) = value.as_float() {
        ExprKind::Float(value)
    } else if let Some(text) = value.read_lock::<rhai::ImmutableString>() {
        ExprKind::Text(text.to_string())
    } else if let Some(range) = value.read_lock::<std::ops::Range<i64>>() {
        ExprKind::Operator(Operator::Range, [range.start, range.end].map(whole).into())
    } else if let Some(range) = value.read_lock::<std::ops::RangeInclusive<i64>>() {
        ExprKind::Operator(Operator::RangeTo, [*range.start(), *range.end()].map(whole).into())
    } else if let Ok(items) = value.as_array_ref() {
        ExprKind::List(items.iter().map(inner).collect())
    } else if let Ok(members) = value.as_map_ref() {
        let key = |name: &str| Key { name: name.to_owned(), at: (0, 0) };
        ExprKind::Map(members.iter().map(|(name, value)| (key(name), inner(value))).collect())
    } else {
        ExprKind::Other("a constant of this type")
    }
}

fn operator(token: &Token, operands: usize) -> Option<Operator> {
    Some(match (token, operands) {
        (Token::Plus, 2) => Operator::Add,
        (Token::Minus, 2) => Operator::Subtract,
        (Token::Multiply, 2) => Operator::Multiply,
        (Token::Divide, 2) => Operator::Divide,
        (Token::Modulo, 2) => Operator::Modulo,
        (Token::LessThan, 2) => Operator::Less,
        (Token::LessThanEqualsTo, 2) => Operator::LessEqual,
        (Token::GreaterThan, 2) => Operator::Greater,
        (Token::GreaterThanEqualsTo, 2) => Operator::GreaterEqual,
        (Token::EqualsTo, 2) => Operator::Equal,
        (Token::NotEqualsTo, 2) => Operator::NotEqual,
        (Token::ExclusiveRange, 2) => Operator::Range,
        (Token::InclusiveRange, 2) => Operator::RangeTo,
        (Token::Bang, 1) => Operator::Not,
        (Token::Minus | Token::UnaryMinus, 1) => Operator::Minus,
        _ => return None,
    })
}
