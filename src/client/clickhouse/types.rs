//! ClickHouse data types, as `system.columns` writes them.
//!
//! Source: <https://clickhouse.com/docs/sql-reference/data-types>

/// A data type. What streamer cannot write is kept as `Other`, so that a table with such a column can still be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `UInt8` to `UInt256`: bytes.
    UInt(u8),
    /// `Int8` to `Int256`: bytes.
    Int(u8),
    Float32,
    Float64,
    /// The upper half of a `Float32`.
    BFloat16,
    Bool,
    String,
    /// Exactly so many bytes, padded with zeros.
    FixedString(usize),
    /// Days since 1970, 16 bits.
    Date,
    /// Days since 1970, 32 bits.
    Date32,
    /// Seconds since 1970; the time zone, where the type names one, only matters to text.
    DateTime(Option<String>),
    /// Ticks of 10⁻ⁿ seconds since 1970.
    DateTime64(u8, Option<String>),
    /// Seconds, not bound to a day.
    Time,
    /// Ticks of 10⁻ⁿ seconds, not bound to a day.
    Time64(u8),
    /// Digits in all, and after the point.
    Decimal(u8, u8),
    Uuid,
    Ipv4,
    Ipv6,
    /// Bytes, and the names with their numbers.
    Enum(u8, Vec<(String, i16)>),
    Nullable(Box<Type>),
    LowCardinality(Box<Type>),
    Array(Box<Type>),
    /// Elements, named or not.
    Tuple(Vec<(Option<String>, Type)>),
    Map(Box<Type>, Box<Type>),
    Json,
    /// Anything else, as written.
    Other(String),
}

/// A text that is no data type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read `{text}` as a ClickHouse type: {what} at character {at}")]
pub struct TypeError {
    text: String,
    what: &'static str,
    at: usize,
}

/// Types nest no deeper; the server's own limit is far above any real table.
const DEPTH_MAX: usize = 32;

impl Type {
    /// Reads a type as `system.columns`, `DESCRIBE` or a result header names it.
    ///
    /// # Errors
    /// The text is malformed. A well-formed type that is merely unknown is `Type::Other`.
    pub fn parse(text: &str) -> Result<Self, TypeError> {
        let mut parser = Parser { text, at: 0 };
        let parsed = parser.ty(0).and_then(|ty| if parser.peek().is_none() { Ok(ty) } else { Err("unexpected text") });
        parsed.map_err(|what| TypeError { text: text.to_owned(), what, at: text[..parser.at].chars().count() + 1 })
    }

    /// The part of this type that streamer cannot write, as written.
    pub fn unsupported(&self) -> Option<&str> {
        match self {
            Self::Other(text) => Some(text),
            Self::Nullable(inner) | Self::LowCardinality(inner) | Self::Array(inner) => inner.unsupported(),
            Self::Tuple(elements) => elements.iter().find_map(|(_, ty)| ty.unsupported()),
            Self::Map(key, value) => key.unsupported().or_else(|| value.unsupported()),
            _ => None,
        }
    }

    /// True when the type is or holds `JSON`, which needs a server that reads it from text.
    pub fn has_json(&self) -> bool {
        match self {
            Self::Json => true,
            Self::Nullable(inner) | Self::LowCardinality(inner) | Self::Array(inner) => inner.has_json(),
            Self::Tuple(elements) => elements.iter().any(|(_, ty)| ty.has_json()),
            Self::Map(key, value) => key.has_json() || value.has_json(),
            _ => false,
        }
    }

    /// Puts the server's time zone where the type leaves it open.
    pub fn set_time_zone(&mut self, server: &str) {
        match self {
            Self::DateTime(zone @ None) | Self::DateTime64(_, zone @ None) => *zone = Some(server.to_owned()),
            Self::Nullable(inner) | Self::LowCardinality(inner) | Self::Array(inner) => inner.set_time_zone(server),
            Self::Tuple(elements) => elements.iter_mut().for_each(|(_, ty)| ty.set_time_zone(server)),
            Self::Map(key, value) => {
                key.set_time_zone(server);
                value.set_time_zone(server);
            }
            _ => {}
        }
    }

    /// Bytes of a decimal with `precision` digits.
    pub fn decimal_bytes(precision: u8) -> usize {
        match precision {
            0..=9 => 4,
            10..=18 => 8,
            19..=38 => 16,
            _ => 32,
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

type Parsed<T> = Result<T, &'static str>;

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next character that is not white space; stays before it.
    fn peek(&mut self) -> Option<char> {
        self.at += self.rest().len() - self.rest().trim_start().len();
        self.rest().chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char, what: &'static str) -> Parsed<()> {
        if self.take(wanted) { Ok(()) } else { Err(what) }
    }

    fn word(&mut self) -> &'a str {
        self.peek();
        let rest = self.rest();
        let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// A text in quotes of the given kind; a backslash or a doubled quote escapes.
    fn quoted(&mut self, quote: char) -> Parsed<String> {
        self.expect(quote, "expected a quoted text")?;
        let mut out = String::new();
        let mut chars = self.rest().char_indices().peekable();
        while let Some((i, c)) = chars.next() {
            if c == quote {
                if chars.next_if(|&(_, c)| c == quote).is_some() {
                    out.push(c);
                    continue;
                }
                self.at += i + c.len_utf8();
                return Ok(out);
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, 't')) => out.push('\t'),
                Some((_, 'r')) => out.push('\r'),
                Some((_, 'b')) => out.push('\u{8}'),
                Some((_, 'f')) => out.push('\u{c}'),
                Some((_, '0')) => out.push('\0'),
                Some((_, other)) => out.push(other),
                None => break,
            }
        }
        Err("unclosed quote")
    }

    fn number<T: std::str::FromStr>(&mut self) -> Parsed<T> {
        self.peek();
        let rest = self.rest();
        let len = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
        let number = rest[..len].parse().map_err(|_| "expected a number")?;
        self.at += len;
        Ok(number)
    }

    /// Skips one argument of a type that is kept as it is written: up to a comma or the closing bracket.
    fn skip_argument(&mut self) -> Parsed<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek().ok_or("unclosed bracket")? {
                ',' | ')' if depth == 0 => return Ok(()),
                quote @ ('\'' | '`' | '"') => drop(self.quoted(quote)?),
                c => {
                    depth += usize::from(c == '(');
                    depth -= usize::from(c == ')');
                    self.at += c.len_utf8();
                }
            }
        }
    }

    fn one(&mut self, depth: usize) -> Parsed<Box<Type>> {
        self.expect('(', "expected `(`")?;
        let inner = self.ty(depth + 1)?;
        self.expect(')', "expected `)`")?;
        Ok(Box::new(inner))
    }

    fn elements(&mut self, depth: usize) -> Parsed<Vec<(Option<String>, Type)>> {
        self.expect('(', "expected `(`")?;
        let mut elements = Vec::new();
        while !self.take(')') {
            if !elements.is_empty() {
                self.expect(',', "expected `,` or `)`")?;
            }
            let start = self.at;
            let name = match self.peek() {
                Some(quote @ ('`' | '"')) => Some(self.quoted(quote)?),
                _ => {
                    let word = self.word();
                    // A word followed by another word is a name; alone or with arguments it is the type itself.
                    if matches!(self.peek(), None | Some(',' | ')' | '(')) {
                        self.at = start;
                        None
                    } else {
                        Some(word.to_owned())
                    }
                }
            };
            elements.push((name, self.ty(depth + 1)?));
        }
        Ok(elements)
    }

    fn names(&mut self) -> Parsed<Vec<(String, i16)>> {
        self.expect('(', "expected `(`")?;
        let mut names = Vec::new();
        while !self.take(')') {
            if !names.is_empty() {
                self.expect(',', "expected `,` or `)`")?;
            }
            let name = self.quoted('\'')?;
            self.expect('=', "expected `=`")?;
            names.push((name, self.number()?));
        }
        if names.is_empty() { Err("an enum without names") } else { Ok(names) }
    }

    /// `(P)`, `(P, S)`, `('zone')`: what small types carry in brackets.
    fn digits(&mut self, max: u8) -> Parsed<u8> {
        let digits = self.number()?;
        if digits <= max { Ok(digits) } else { Err("a number out of range") }
    }

    fn zone_and_close(&mut self, first: bool) -> Parsed<Option<String>> {
        let zone = if first || self.take(',') { Some(self.quoted('\'')?) } else { None };
        self.expect(')', "expected `)`")?;
        Ok(zone)
    }

    fn ty(&mut self, depth: usize) -> Parsed<Type> {
        if depth > DEPTH_MAX {
            return Err("nested too deep");
        }
        self.peek();
        let start = self.at;
        let name = self.word();
        let point = || Type::Tuple(vec![(None, Type::Float64), (None, Type::Float64)]);
        let array = |inner| Type::Array(Box::new(inner));
        Ok(match name {
            "" => return Err("expected a type"),
            "UInt8" => Type::UInt(1),
            "UInt16" => Type::UInt(2),
            "UInt32" => Type::UInt(4),
            "UInt64" => Type::UInt(8),
            "UInt128" => Type::UInt(16),
            "UInt256" => Type::UInt(32),
            "Int8" => Type::Int(1),
            "Int16" => Type::Int(2),
            "Int32" => Type::Int(4),
            "Int64" => Type::Int(8),
            "Int128" => Type::Int(16),
            "Int256" => Type::Int(32),
            "Float32" => Type::Float32,
            "Float64" => Type::Float64,
            "BFloat16" => Type::BFloat16,
            "Bool" => Type::Bool,
            "String" => Type::String,
            "FixedString" => {
                self.expect('(', "expected `(`")?;
                let bytes = self.number()?;
                self.expect(')', "expected `)`")?;
                Type::FixedString(bytes)
            }
            "Date" => Type::Date,
            "Date32" => Type::Date32,
            "DateTime" | "DateTime32" if self.take('(') => Type::DateTime(self.zone_and_close(true)?),
            "DateTime" | "DateTime32" => Type::DateTime(None),
            "DateTime64" if self.take('(') => {
                let digits = self.digits(9)?;
                Type::DateTime64(digits, self.zone_and_close(false)?)
            }
            "DateTime64" => Type::DateTime64(3, None),
            "Time" => Type::Time,
            "Time64" => {
                self.expect('(', "expected `(`")?;
                let digits = self.digits(9)?;
                self.expect(')', "expected `)`")?;
                Type::Time64(digits)
            }
            "Decimal" => {
                self.expect('(', "expected `(`")?;
                let precision = self.digits(76)?;
                let scale = if self.take(',') { self.digits(precision)? } else { 0 };
                self.expect(')', "expected `)`")?;
                Type::Decimal(precision, scale)
            }
            "UUID" => Type::Uuid,
            "IPv4" => Type::Ipv4,
            "IPv6" => Type::Ipv6,
            "Enum8" => Type::Enum(1, self.names()?),
            "Enum16" => Type::Enum(2, self.names()?),
            "Nullable" => Type::Nullable(self.one(depth)?),
            "LowCardinality" => Type::LowCardinality(self.one(depth)?),
            "Array" => Type::Array(self.one(depth)?),
            "Tuple" => Type::Tuple(self.elements(depth)?),
            // Not flattened into one array a member, it is one array of tuples.
            "Nested" => array(Type::Tuple(self.elements(depth)?)),
            "Map" => {
                self.expect('(', "expected `(`")?;
                let key = self.ty(depth + 1)?;
                self.expect(',', "expected `,`")?;
                let value = self.ty(depth + 1)?;
                self.expect(')', "expected `)`")?;
                Type::Map(Box::new(key), Box::new(value))
            }
            "SimpleAggregateFunction" => {
                self.expect('(', "expected `(`")?;
                self.skip_argument()?;
                self.expect(',', "expected `,`")?;
                let inner = self.ty(depth + 1)?;
                self.expect(')', "expected `)`")?;
                inner
            }
            "Point" => point(),
            "Ring" | "LineString" => array(point()),
            "Polygon" | "MultiLineString" => array(array(point())),
            "MultiPolygon" => array(array(array(point()))),
            "JSON" => {
                self.skip_arguments()?;
                Type::Json
            }
            _ => {
                self.skip_arguments()?;
                Type::Other(self.text[start..self.at].to_owned())
            }
        })
    }

    fn skip_arguments(&mut self) -> Parsed<()> {
        let before = self.at;
        if !self.take('(') {
            self.at = before;
            return Ok(());
        }
        loop {
            self.skip_argument()?;
            if self.take(')') {
                return Ok(());
            }
            self.expect(',', "expected `,` or `)`")?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Type::*, *};

    fn boxed(ty: Type) -> Box<Type> {
        Box::new(ty)
    }

    #[test]
    fn types_are_read_as_the_server_writes_them() {
        let point = Tuple(vec![(None, Float64), (None, Float64)]);
        let table = [
            ("UInt8", UInt(1)),
            ("Int256", Int(32)),
            ("FixedString(16)", FixedString(16)),
            ("DateTime", DateTime(None)),
            ("DateTime('Europe/Berlin')", DateTime(Some("Europe/Berlin".into()))),
            ("DateTime64(3)", DateTime64(3, None)),
            ("DateTime64(9, 'UTC')", DateTime64(9, Some("UTC".into()))),
            ("Time64(6)", Time64(6)),
            ("Decimal(20, 5)", Decimal(20, 5)),
            (r"Enum8('b\'x' = -2, 'a' = 1)", Enum(1, vec![("b'x".into(), -2), ("a".into(), 1)])),
            ("Enum16('(,)' = 300)", Enum(2, vec![("(,)".into(), 300)])),
            ("LowCardinality(Nullable(String))", LowCardinality(boxed(Nullable(boxed(String))))),
            ("Tuple(UInt8, String)", Tuple(vec![(None, UInt(1)), (None, String)])),
            (
                "Tuple(a UInt8, `b c` Array(String))",
                Tuple(vec![(Some("a".into()), UInt(1)), (Some("b c".into()), Array(boxed(String)))]),
            ),
            ("Tuple()", Tuple(vec![])),
            ("Map(String, Array(Nullable(UInt8)))", Map(boxed(String), boxed(Array(boxed(Nullable(boxed(UInt(1)))))))),
            ("Nested(x UInt8)", Array(boxed(Tuple(vec![(Some("x".into()), UInt(1))])))),
            ("SimpleAggregateFunction(sum, UInt64)", UInt(8)),
            ("SimpleAggregateFunction(groupArrayArray(10), Array(UInt8))", Array(boxed(UInt(1)))),
            ("Point", point.clone()),
            ("Polygon", Array(boxed(Array(boxed(point))))),
            ("JSON(max_dynamic_paths=10, `a.b` UInt8)", Json),
            (
                "AggregateFunction(quantiles(0.5, 0.9), UInt64)",
                Other("AggregateFunction(quantiles(0.5, 0.9), UInt64)".into()),
            ),
            ("Variant(String, UInt8)", Other("Variant(String, UInt8)".into())),
            ("IntervalDay", Other("IntervalDay".into())),
        ];
        for (text, expected) in table {
            assert_eq!(Type::parse(text).as_ref(), Ok(&expected), "{text}");
        }
    }

    #[test]
    fn malformed_types_are_refused_with_their_place() {
        for text in [
            "",
            "Array",
            "Array(",
            "Array(UInt8",
            "Array()",
            "UInt8)",
            "Map(String)",
            "Enum8()",
            "Enum8('a)",
            "FixedString(x)",
            "DateTime64(10)",
            "Tuple(a UInt8",
            "Other((",
        ] {
            assert!(Type::parse(text).is_err(), "{text}");
        }
        let deep = format!("{}UInt8{}", "Array(".repeat(40), ")".repeat(40));
        assert!(Type::parse(&deep).is_err());
        let error = Type::parse("Array(UInt8").unwrap_err();
        assert_eq!(error.to_string(), "cannot read `Array(UInt8` as a ClickHouse type: expected `)` at character 12");
    }

    #[test]
    fn what_cannot_be_written_is_found_inside() {
        let ty = Type::parse("Array(Tuple(a UInt8, b Variant(UInt8)))").unwrap();
        assert_eq!(ty.unsupported(), Some("Variant(UInt8)"));
        assert!(Type::parse("Array(Tuple(a JSON))").unwrap().has_json());
    }

    #[test]
    fn an_open_time_zone_is_the_servers() {
        let mut ty = Type::parse("Array(Nullable(DateTime))").unwrap();
        ty.set_time_zone("UTC");
        assert_eq!(ty, Type::parse("Array(Nullable(DateTime('UTC')))").unwrap());
    }
}
