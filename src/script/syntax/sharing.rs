//! Closures that use the variable their own chain starts with: `payload.l.map(|x| x + payload.a)`.
//!
//! A closure shares the variables it uses with the script around it, and Rhai locks a shared variable for as long as a
//! chain that starts with it is worked out. So the closure finds its variable locked: Rhai waits in vain, 50 ms each time,
//! and gives up with an error. Nothing but reading goes on there, so such a chain is started with a copy instead: the
//! interpreter gets `(payload.l ?? payload.l).map(|x| x + payload.a)`, whose value is the same. Where the chain changes
//! what it starts with (`list.retain(|x| x > list[0])`), a copy would swallow the change, and the script is refused.
use std::collections::BTreeSet;

use rhai::{AST, ASTFlags, ASTNode, Expr, Position, Stmt};

use super::{At, changes};
use crate::diagnostic::Fault;

/// What the interpreter runs in place of a script.
#[derive(Default)]
pub(in crate::script) struct Untangled {
    /// None when it is the script itself.
    pub text: Option<String>,
    copies: Vec<Copied>,
}

/// A start of a chain that is written as `(start ?? start)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Copied {
    at: At,
    /// `payload.l`: a variable, and the plain fields behind it.
    start: String,
}

impl Untangled {
    /// Looks for such closures in a script.
    ///
    /// # Errors
    /// Those that use what their chain is changing.
    pub fn of(source: &str, ast: &AST) -> Result<Self, Vec<Fault>> {
        let closures = Closures::of(ast);
        let (mut copies, mut faults) = (BTreeSet::new(), Vec::new());
        if !closures.captured.is_empty() {
            ast.walk(&mut |path| {
                let Some(chain) = Chain::at_end_of(path) else { return true };
                match chain.judge(&closures) {
                    Verdict::Fine => {}
                    Verdict::Copy => copies.extend(chain.copied(source)),
                    // A loop may show the same node more than once.
                    Verdict::Refuse(fault) if faults.iter().any(|known: &Fault| known.at == fault.at) => {}
                    Verdict::Refuse(fault) => faults.push(fault),
                }
                true
            });
        }
        if faults.is_empty() { Ok(Self::new(source, copies.into_iter().collect())) } else { Err(faults) }
    }

    fn new(source: &str, copies: Vec<Copied>) -> Self {
        if copies.is_empty() {
            return Self::default();
        }
        let mut text = String::with_capacity(source.len() + 64 * copies.len());
        for (line, content) in (1..).zip(source.split_inclusive('\n')) {
            let mut rest = content;
            let mut done = 0;
            for copy in copies.iter().filter(|copy| copy.at.0 == line) {
                let (before, after) = rest.split_at(byte(rest, copy.at.1 - 1 - done));
                text.push_str(before);
                text.push_str(&format!("({0} ?? {0})", copy.start));
                rest = &after[copy.start.len()..];
                done = copy.at.1 - 1 + copy.start.chars().count();
            }
            text.push_str(rest);
        }
        Self { text: Some(text), copies }
    }

    /// The place in the script of one in `text`.
    pub fn original(&self, (line, column): At) -> At {
        let mut longer = 0;
        for copy in self.copies.iter().filter(|copy| copy.at.0 == line) {
            let (start, len) = (copy.at.1 + longer, copy.start.chars().count());
            if column < start {
                break;
            }
            let inside = column - start;
            if inside < 2 * len + 6 {
                // `(start ?? start)`: the first and the second one are the same to the writer.
                return (line, copy.at.1 + (inside.saturating_sub(1) % (len + 4)).min(len - 1));
            }
            longer += len + 6;
        }
        (line, column - longer)
    }
}

/// Where the character with this number, from 0, starts.
fn byte(text: &str, character: usize) -> usize {
    text.char_indices().nth(character).map_or(text.len(), |(at, _)| at)
}

/// What follows `word` at the start of `text`.
fn after<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    text.strip_prefix(word).filter(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// What the closures of a script use.
struct Closures {
    /// All variables that any of them shares.
    captured: BTreeSet<String>,
    /// True when one of them is kept or handed on: any variable may hold a closure then.
    kept: bool,
    /// The script's own functions: as methods they may change what they are called on, and keep a closure.
    functions: BTreeSet<String>,
}

impl Closures {
    fn of(ast: &AST) -> Self {
        let functions = ast.iter_functions().map(|function| function.name.to_owned()).collect();
        let mut all = Self { captured: BTreeSet::new(), kept: false, functions };
        ast.walk(&mut |path| {
            if let Some(ASTNode::Stmt(Stmt::Share(variables))) = path.last() {
                all.captured.extend(variables.iter().map(|(variable, _)| variable.name.to_string()));
                // Around it stand the block that is the closure, and the call that it is an argument of.
                let call = path.len().checked_sub(3).map(|at| &path[at]);
                all.kept |= !match call {
                    Some(ASTNode::Expr(Expr::MethodCall(call, _) | Expr::FnCall(call, _))) => {
                        call.namespace.path.is_empty() && !all.functions.contains(call.name.as_str())
                    }
                    _ => false,
                };
            }
            true
        });
        all
    }
}

/// A chain that starts with a variable.
struct Chain<'a> {
    variable: &'a str,
    at: Position,
    links: Vec<&'a Expr>,
    /// How many of the first links are fields behind a plain dot.
    fields: usize,
    /// True when something is assigned to its end.
    is_target: bool,
}

enum Verdict {
    Fine,
    /// It is to start with a copy.
    Copy,
    Refuse(Fault),
}

impl<'a> Chain<'a> {
    /// The chain whose first node is the last of `path`.
    fn at_end_of(path: &'a [ASTNode<'a>]) -> Option<Self> {
        let Some(ASTNode::Expr(first)) = path.last() else { return None };
        let parent = path.len().checked_sub(2).map(|at| &path[at]);
        let (Expr::Dot(sides, ..) | Expr::Index(sides, ..)) = first else { return None };
        let Expr::Variable(variable, ..) = &sides.lhs else { return None };
        let is_target = match parent {
            // `a[b][c]`: what looks like a chain from `b` goes on from `a`.
            Some(ASTNode::Expr(Expr::Dot(outer, flags, _) | Expr::Index(outer, flags, _)))
                if std::ptr::eq(&raw const outer.rhs, *first) && !flags.contains(ASTFlags::BREAK) =>
            {
                return None;
            }
            Some(ASTNode::Stmt(Stmt::Assignment(assignment))) => std::ptr::eq(&raw const assignment.1.lhs, *first),
            _ => false,
        };
        let mut chain =
            Self { variable: &variable.1, at: sides.lhs.position(), links: Vec::new(), fields: 0, is_target };
        let mut node = *first;
        loop {
            let (sides, flags, is_index) = match node {
                Expr::Dot(sides, flags, _) => (sides, *flags, false),
                Expr::Index(sides, flags, _) => (sides, *flags, true),
                _ => return Some(chain),
            };
            let ends = is_index && flags.contains(ASTFlags::BREAK);
            let link = match &sides.rhs {
                Expr::Dot(next, ..) | Expr::Index(next, ..) if !ends => &next.lhs,
                last => last,
            };
            if chain.fields == chain.links.len()
                && !is_index
                && !flags.contains(ASTFlags::NEGATED)
                && matches!(link, Expr::Property(..))
            {
                chain.fields += 1;
            }
            chain.links.push(link);
            if ends || std::ptr::eq(link, &raw const sides.rhs) {
                return Some(chain);
            }
            node = &sides.rhs;
        }
    }

    fn judge(&self, closures: &Closures) -> Verdict {
        if !closures.captured.contains(self.variable) {
            return Verdict::Fine;
        }
        let mut changing = None;
        let mut verdict = Verdict::Fine;
        for link in &self.links {
            let Expr::MethodCall(call, _) = link else { continue };
            if changes(&call.name) || closures.functions.contains(call.name.as_str()) {
                changing.get_or_insert(call.name.as_str());
            }
            let used = call.args.iter().find_map(|argument| self.used_by(argument));
            match (used, changing) {
                (Some(at), Some(method)) => return Verdict::Refuse(self.refuse(method, at)),
                (Some(_), None) => verdict = Verdict::Copy,
                (None, None) if closures.kept && !call.args.iter().all(Expr::is_constant) => verdict = Verdict::Copy,
                (None, _) => {}
            }
        }
        match (verdict, self.is_target) {
            (Verdict::Copy, true) => Verdict::Fine,
            (verdict, _) => verdict,
        }
    }

    /// Where the closure `argument` uses the variable; none when it does not, or is no closure.
    fn used_by(&self, argument: &Expr) -> Option<Position> {
        let Expr::Stmt(block) = argument else { return None };
        let [Stmt::Share(variables), ..] = block.statements() else { return None };
        variables.iter().find(|(variable, _)| variable.name == self.variable).map(|(variable, _)| variable.pos)
    }

    fn refuse(&self, method: &str, at: Position) -> Fault {
        let name = self.variable;
        Fault::new("closure-in-the-way", "", format!("a closure uses `{name}` while `{method}` changes it"))
            .label(format!("`{method}` has `{name}` in its hands here"))
            .help(format!("take what the closure needs first, `let before = {name};`, and use `before` in the closure"))
            .at(at.line().unwrap_or(1), at.position().unwrap_or(1))
    }

    /// Its start in the script: the variable, with as many of its fields as stand behind it without a space.
    fn copied(&self, source: &str) -> Option<Copied> {
        let (line, column) = (self.at.line()?, self.at.position()?);
        let text = source.lines().nth(line - 1)?;
        let text = &text[byte(text, column - 1)..];
        let mut rest = after(text, self.variable)?;
        for field in &self.links[..self.fields] {
            let Expr::Property(property, _) = field else { break };
            match rest.strip_prefix('.').and_then(|text| after(text, &property.2)) {
                Some(text) => rest = text,
                None => break,
            }
        }
        Some(Copied { at: (line, column), start: text[..text.len() - rest.len()].to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::program::compile_for_tests;

    fn untangled(script: &str) -> Result<Untangled, Vec<Fault>> {
        Untangled::of(script, &compile_for_tests(script))
    }

    #[test]
    fn a_chain_that_its_closure_looks_at_starts_with_a_copy() {
        for (script, expected) in [
            ("payload.l.map(|x| payload.a)", "(payload.l ?? payload.l).map(|x| payload.a)"),
            (
                "let c = \"°C\";\n  payload?.l.map(|x| payload.a)",
                "let c = \"°C\";\n  (payload ?? payload)?.l.map(|x| payload.a)",
            ),
            ("payload.a .l.map(|x| payload.a)", "(payload.a ?? payload.a) .l.map(|x| payload.a)"),
            ("payload[\"l\"].map(|x| payload.a)", "(payload ?? payload)[\"l\"].map(|x| payload.a)"),
            (
                "[payload.l.map(|x| payload.a), payload.w.all(|x| payload.w.some(|y| x == y))]",
                "[(payload.l ?? payload.l).map(|x| payload.a), (payload.w ?? payload.w).all(|x| payload.w.some(|y| x == y))]",
            ),
            ("let p = payload; let f = |x| p.a; p.l.map(f)", "let p = payload; let f = |x| p.a; (p.l ?? p.l).map(f)"),
            ("`n: ${payload.l.map(|x| payload.a)}`", "`n: ${(payload.l ?? payload.l).map(|x| payload.a)}`"),
            ("fn f(p) { p.l.map(|x| p.a) } f(payload)", "fn f(p) { (p.l ?? p.l).map(|x| p.a) } f(payload)"),
        ] {
            assert_eq!(untangled(script).unwrap().text.as_deref(), Some(expected), "{script}");
        }
        for script in [
            "payload.l.map(|x| x)",
            "let a = payload.a; payload.l.map(|x| a)",
            "payload.l.map(|payload| payload.a)",
            "let out = []; for x in payload.l { out.push(x); } out.len() + [1].map(|x| out.len())[0]",
            "let n = 0; payload.l.map(|x| { n += 1; n })",
        ] {
            assert_eq!(untangled(script).unwrap().text, None, "{script}");
        }
    }

    #[test]
    fn places_are_those_of_the_script() {
        let script = "let a = 1;\n[payload.l.map(|x| payload.a), payload?.w.map(|x| payload.b)]";
        let untangled = untangled(script).unwrap();
        let text = untangled.text.clone().unwrap();
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (written, run) = (lines(script), lines(&text));
        assert_eq!(run[1], "[(payload.l ?? payload.l).map(|x| payload.a), (payload ?? payload)?.w.map(|x| payload.b)]");
        for (at, letter) in run[1].char_indices().filter(|(_, letter)| letter.is_alphabetic() || *letter == '|') {
            let (line, column) = untangled.original((2, at + 1));
            assert_eq!((line, written[1].chars().nth(column - 1)), (2, Some(letter)), "{at}");
        }
        assert_eq!(untangled.original((1, 5)), (1, 5));
    }

    #[test]
    fn a_closure_in_the_way_of_a_change_is_refused() {
        for (script, at, title) in [
            ("let l = payload.l; l.retain(|x| x > l[0]); l", (1, 37), "a closure uses `l` while `retain` changes it"),
            (
                "payload.l.sort(|a, b| payload.w[a] - payload.w[b]);\npayload",
                (1, 23),
                "a closure uses `payload` while `sort` changes it",
            ),
            (
                "fn each(f) { this.l.map(f) } payload.each(|x| payload.a)",
                (1, 47),
                "a closure uses `payload` while `each` changes it",
            ),
        ] {
            let faults = untangled(script).err().unwrap_or_else(|| panic!("accepted: {script}"));
            assert_eq!((faults[0].at, faults[0].title.as_str()), (Some(at), title), "{script}");
        }
    }
}
