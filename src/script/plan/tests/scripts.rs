//! Scripts for the comparison of plans and interpreter, made from bytes.
//!
//! Most of what they do fits what they do it to, so that most messages come to the script's end; now and then anything
//! is put anywhere, since what does not fit must come out the same, too.
use crate::script::plan::builtins::BUILTINS;

/// The same bytes make the same script, and fewer bytes a simpler one.
struct Maker<'b> {
    bytes: std::slice::Iter<'b, u8>,
}

const INTS: &[&str] = &["0", "1", "2", "-3", "7", "100", "9223372036854775807"];
const FLOATS: &[&str] = &["0.0", "1.5", "-2.25", "0.1", "1e10", "84.0"];
const TEXTS: &[&str] = &["\"\"", "\"x\"", "\"A/b/C\"", "\"°C\"", "\"q\\\"\\\\\\n\"", "\"12\"", "\"4.5\"", "\"c\""];
/// Places that every message has, if only as `()`.
const SURE: &[&str] = &[
    "payload?.a",
    "payload?.t",
    "payload?.u",
    "payload?.n",
    "payload?.l",
    "payload?.b",
    "payload?.o",
    "payload",
    "text",
    "is_json",
    "meta.topic",
    "meta.key",
    "meta.qos",
    "meta.headers.trace",
    "meta.none",
    "x",
    "y",
    "m",
    "list",
    "m.c",
    "m.e",
    "w",
    "(w?.c)",
];

/// Places that some messages do not have.
const PLACES: &[&str] = &[
    "payload.a",
    "payload?.a",
    "payload.b.c",
    "payload?.b?.c",
    "payload.b?.d",
    "payload.t",
    "payload.u",
    "payload.l",
    "payload?.l",
    "payload.l[0]",
    "payload.l?[1]",
    "payload.b",
    "payload.n",
    "payload.z[1][0]",
    "payload.o.x",
    "payload[\"t\"]",
    "payload",
    "text",
    "is_json",
    "meta.topic",
    "meta.key",
    "meta.levels[1]",
    "meta.qos",
    "meta.headers.trace",
    "meta.none",
    "x",
    "y",
    "m",
    "list",
];

/// The script that `bytes` make.
pub(super) fn script(bytes: &[u8]) -> String {
    Maker { bytes: bytes.iter() }.script()
}

impl Maker<'_> {
    fn choose(&mut self, among: usize) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0)) % among
    }

    fn pick<'s>(&mut self, from: &[&'s str]) -> &'s str {
        from[self.choose(from.len())]
    }

    fn script(&mut self) -> String {
        let mut out = "let x = (); let y = 1; let m = #{ c: 1.5 }; let list = [2]; ".to_owned();
        // Never assigned to, so a plan may take it for what it stands for.
        out += &format!("let w = {}; ", self.pick(&["payload", "payload?.b", "payload?.o ?? #{}"]));
        out += &format!("x = {}; y = {}; list = [{}]; ", self.any(2), self.number(2), self.any(1));
        out += &format!("m = #{{ c: {}, d: {} }}; ", self.any(1), self.any(1));
        for _ in 0..self.choose(4) {
            out += &self.statement(2);
        }
        match self.choose(3) {
            0 => out + self.any(3).as_str(),
            1 => out + format!("#{{ a: {}, b: {}, x: x, list: list, m: m }}", self.any(3), self.any(2)).as_str(),
            _ => {
                out + format!("if {} {{ {} }} else {{ #{{ z: {}, y: y }} }}", self.truth(2), self.any(2), self.any(2))
                    .as_str()
            }
        }
    }

    fn statement(&mut self, depth: usize) -> String {
        match self.choose(14) {
            0 => format!("x = {}; ", self.any(depth)),
            1 => format!("y += {}; ", self.number(depth)),
            2 => format!("let y = {}; ", self.number(depth)),
            3 => format!("list.push({}); ", self.any(depth)),
            4 => format!("m.{} = {}; ", self.pick(&["c", "d", "e"]), self.any(depth)),
            5 => format!("m[{}] = {}; ", self.text(1), self.any(depth)),
            6 => format!("list[0] = {}; ", self.any(depth)),
            7 if depth > 0 => format!("if {} {{ {} }} ", self.truth(1), self.statement(depth - 1)),
            8 if depth > 0 => format!("for v in {} {{ {} x = v; }} ", self.list(1), self.statement(depth - 1)),
            9 if depth > 0 => {
                format!("for i in 0..{} {{ {} y += i; }} ", self.choose(4), self.statement(depth - 1))
            }
            10 => format!("if {} {{ return {}; }} ", self.truth(1), self.any(depth)),
            11 => format!("payload = #{{ a: {}, b: payload }}; payload.fresh = {}; ", self.any(1), self.any(1)),
            12 if self.choose(8) == 1 => self.careless_statement(depth),
            _ => format!("x = [x, {}]; ", self.any(depth)),
        }
    }

    /// A statement that fails for most messages.
    fn careless_statement(&mut self, depth: usize) -> String {
        match self.choose(3) {
            0 => format!("x += {}; ", self.any(depth)),
            1 => format!("list[{}] = {}; ", self.pick(&["1", "-1"]), self.any(depth)),
            _ => format!("payload.{} = {}; ", self.pick(&["a", "fresh", "b.c"]), self.any(1)),
        }
    }

    fn place(&mut self) -> String {
        let careless = self.choose(50) == 1;
        self.pick(if careless { PLACES } else { SURE }).to_owned()
    }

    fn any(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.place();
        }
        match self.choose(15) {
            0 | 1 => self.place(),
            2 => self.number(depth),
            3 => self.text(depth),
            4 => self.truth(depth),
            5 => self.list(depth),
            6 => format!("#{{ k: {}, \"a b\": {} }}", self.any(depth - 1), self.any(depth - 1)),
            7 => format!("({} ?? {})", self.any(depth - 1), self.any(depth - 1)),
            8 => format!(
                "(if {} {{ {} }} else {{ {} }})",
                self.truth(depth - 1),
                self.any(depth - 1),
                self.any(depth - 1)
            ),
            9 => format!(
                "(switch {} {{ {} => {}, {} => {}, 1..9 => {}, _ => {} }})",
                self.any(depth - 1),
                self.pick(INTS),
                self.any(depth - 1),
                self.pick(TEXTS),
                self.any(0),
                self.any(0),
                self.any(depth - 1)
            ),
            10 => "()".to_owned(),
            11 => format!("m.{}", self.pick(&["c", "d", "e", "keys()", "len()", "values()"])),
            12 => format!("{}?.to_string()", self.number(depth - 1)),
            13 => format!("{}[0]", self.pick(&["list", "[x, y]", "meta.levels"])),
            _ if self.choose(8) == 1 => self.careless(depth),
            _ => self.place(),
        }
    }

    /// A value of any kind where only some kinds are right.
    fn careless(&mut self, depth: usize) -> String {
        match self.choose(6) {
            0 => {
                let (name, count, _) = BUILTINS[self.choose(BUILTINS.len())];
                let arguments: Vec<_> = (0..count).map(|_| self.any(depth - 1)).collect();
                format!("{name}({})", arguments.join(", "))
            }
            1 => format!("{}?.{}", self.pick(PLACES), self.pick(&["c", "d", "x", "len()", "to_string()"])),
            2 => format!("{}[{}]", self.list(depth - 1), self.pick(INTS)),
            3 => format!(
                "({} {} {})",
                self.any(depth - 1),
                self.pick(&["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||"]),
                self.any(depth - 1)
            ),
            4 => format!("{}.contains({})", self.any(depth - 1), self.any(depth - 1)),
            _ => format!(
                "{}.{}()",
                self.any(depth - 1),
                self.pick(&["len", "abs", "to_int", "to_float", "round", "floor", "to_upper", "values"])
            ),
        }
    }

    fn number(&mut self, depth: usize) -> String {
        match self.choose(if depth == 0 { 3 } else { 11 }) {
            0 => self.pick(INTS).to_owned(),
            1 => self.pick(FLOATS).to_owned(),
            2 => format!("num({}, {})", self.place(), self.pick(FLOATS)),
            3..=5 => format!("({} {} {})", self.number(depth - 1), self.pick(&["+", "-", "*"]), self.number(depth - 1)),
            6 => format!("({} {} {})", self.number(depth - 1), self.pick(&["/", "%"]), self.pick(&["2", "0.5", "7"])),
            7 => format!("{}({}, {})", self.pick(&["min", "max"]), self.number(depth - 1), self.number(depth - 1)),
            8 => format!("{}.{}()", self.number(depth - 1), self.pick(&["abs", "to_float", "sign"])),
            9 => format!("{}.{}()", self.pick(FLOATS), self.pick(&["to_int", "round", "floor", "ceiling"])),
            _ => format!("{}.len()", self.text(depth - 1)),
        }
    }

    fn text(&mut self, depth: usize) -> String {
        match self.choose(if depth == 0 { 2 } else { 8 }) {
            0 => self.pick(TEXTS).to_owned(),
            1 => format!("str({}, {})", self.place(), self.pick(TEXTS)),
            2 => format!("({} + {})", self.text(depth - 1), self.any(depth - 1)),
            3 => format!("`<${{{}}}|${{{}}}>`", self.any(depth - 1), self.any(depth - 1)),
            4 => format!("{}.{}()", self.text(depth - 1), self.pick(&["to_upper", "to_lower", "to_string"])),
            5 => format!("{}.split({})[0]", self.text(depth - 1), self.pick(&TEXTS[1..])),
            6 => format!("(meta?.topic ?? {})", self.text(depth - 1)),
            _ => format!("{}.sub_string({}, {})", self.text(depth - 1), self.pick(INTS), self.pick(INTS)),
        }
    }

    fn truth(&mut self, depth: usize) -> String {
        match self.choose(if depth == 0 { 2 } else { 10 }) {
            0 => "true".to_owned(),
            1 => "is_json".to_owned(),
            2 => format!("({} == {})", self.place(), self.pick(&["()", "1", "\"x\"", "2.5", "true"])),
            3..=4 => format!(
                "({} {} {})",
                self.number(depth - 1),
                self.pick(&["==", "!=", "<", "<=", ">", ">="]),
                self.number(depth - 1)
            ),
            5 => format!("({} {} {})", self.text(depth - 1), self.pick(&["==", "<", ">="]), self.text(depth - 1)),
            6 => format!("!{}", self.truth(depth - 1)),
            7 => format!("({} {} {})", self.truth(depth - 1), self.pick(&["&&", "||"]), self.truth(depth - 1)),
            8 => format!("{}.{}({})", self.text(depth - 1), self.pick(&["contains", "starts_with"]), self.text(0)),
            _ => format!(
                "{}.{}(|v| v {} ())",
                self.list(depth - 1),
                self.pick(&["all", "some"]),
                self.pick(&["==", "!="])
            ),
        }
    }

    fn list(&mut self, depth: usize) -> String {
        match self.choose(if depth == 0 { 3 } else { 7 }) {
            0 => "list".to_owned(),
            1 => "(if is_json { meta.levels } else { [y, 2.5, \"x\", ()] })".to_owned(),
            2 => "(payload?.l ?? [])".to_owned(),
            3 => format!("[{}, {}]", self.any(depth - 1), self.any(depth - 1)),
            4 => {
                let made = ["v", "num(v, 0) + 1", "`${v}`", "#{ v: v, x: x }", "list.len()", "num(v, y) * 2.0"];
                format!("{}.map(|v| {})", self.list(depth - 1), self.pick(&made))
            }
            5 => {
                let kept = ["num(v, 0) > 1", "v == x", "true", "v != ()", "list.len() > 1"];
                format!("{}.filter(|v| {})", self.list(depth - 1), self.pick(&kept))
            }
            _ => format!("{}.split(\"/\")", self.text(depth - 1)),
        }
    }
}
