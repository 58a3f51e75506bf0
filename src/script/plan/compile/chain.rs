//! Chains: a variable, and what is taken of it. Those into the payload become ways that are looked up in its scan.
use super::{Bound, Compiled, Compiler, constant, refuse};
use crate::script::{
    MetaField,
    path::Segment,
    plan::tree::{E, Link, LinkKind, Path, Place},
    syntax::{self, At, Expr, ExprKind},
};

impl Compiler<'_> {
    /// The way into the payload that `let name = value` gives a name to, when the name never changes.
    pub(super) fn way_of(&mut self, name: &str, value: &Expr) -> Option<(Path, bool)> {
        if self.changed.contains(name) {
            return None;
        }
        let (value, or_empty) = match &value.kind {
            ExprKind::Coalesce(choices) => match choices.as_slice() {
                [value, Expr { kind: ExprKind::Map(members), .. }] if members.is_empty() => (value, true),
                _ => return None,
            },
            _ => (value, false),
        };
        let path = match &value.kind {
            ExprKind::Variable(name) => self.way(name, &[])?,
            ExprKind::Chain(base, links) => match &base.kind {
                ExprKind::Variable(name) => self.way(name, links)?,
                _ => return None,
            },
            _ => return None,
        };
        let (path, used) = path;
        let whole = match &value.kind {
            ExprKind::Chain(_, links) => used == links.len(),
            _ => true,
        };
        (whole && !path.optional.is_empty()).then_some((path, or_empty))
    }

    /// The longest way into the payload that starts with variable `name` and goes along `links`; and how many of them.
    fn way(&mut self, name: &str, links: &[syntax::Link]) -> Option<(Path, usize)> {
        let (mut path, mut optional) = match self.bound(name) {
            Some(Bound::Way { path, or_empty }) => (path.clone(), *or_empty),
            Some(Bound::Local(_)) => return None,
            None if name == "payload" && self.inlined.is_empty() => {
                (Path { places: vec![0], optional: Vec::new() }, false)
            }
            None => return None,
        };
        // What a `?` has skipped is `()` by now, and a plain step into that is an error: not one way any more.
        if path.optional.contains(&true) && !optional && links.first().is_some_and(|link| !link.optional) {
            return Some((path, 0));
        }
        let mut used = 0;
        for link in links {
            let segment = match &link.kind {
                syntax::LinkKind::Field(name) => Segment::Key(name.clone()),
                syntax::LinkKind::Index(Expr { kind: ExprKind::Text(name), .. }) => Segment::Key(name.clone()),
                syntax::LinkKind::Index(Expr { kind: ExprKind::Int(index), .. }) => match usize::try_from(*index) {
                    Ok(index) => Segment::Index(index),
                    Err(_) => break,
                },
                _ => break,
            };
            let parent = *path.places.last().expect("a way starts at the payload");
            let place = Place { parent, segment: Some(segment) };
            let number = self.places.iter().position(|known| *known == place).unwrap_or_else(|| {
                self.places.push(place);
                self.places.len() - 1
            });
            path.places.push(number);
            path.optional.push(link.optional || optional);
            optional = false;
            used += 1;
        }
        // `?? #{}` counts only for a way that goes on.
        if optional {
            return None;
        }
        self.reads_json = true;
        Some((path, used))
    }

    pub(super) fn chain(&mut self, base: &Expr, links: &[syntax::Link]) -> Compiled<E> {
        let (mut value, rest) = match &base.kind {
            ExprKind::Variable(name) if name == "meta" && self.bound("meta").is_none() && self.inlined.is_empty() => {
                self.meta(base.at, links)?
            }
            ExprKind::Variable(name) if name == "params" && self.bound(name).is_none() && self.inner == 0 => {
                self.param(links)
            }
            ExprKind::Variable(name) => match self.way(name, links) {
                Some((path, 0)) if path.optional.is_empty() => (E::Payload, links),
                Some((path, used)) => (E::Path(path), &links[used..]),
                None => (self.expr(base)?, links),
            },
            _ => (self.expr(base)?, links),
        };
        let mut compiled = Vec::new();
        if let E::Path(path) = &value
            && !rest.is_empty()
            && path.optional.contains(&true)
        {
            // A `?` that finds nothing skips the whole rest of the chain, a field that is missing does not.
            compiled.push(Link { kind: LinkKind::Present, optional: false });
        }
        let mut index = 0;
        while let Some(link) = rest.get(index) {
            // `split(x)[n]` needs no list.
            if let (syntax::LinkKind::Method(name, arguments), Some(next), true) =
                (&link.kind, rest.get(index + 1), compiled.is_empty() && !link.optional)
                && let ("split", [Expr { kind: ExprKind::Text(separator), .. }]) = (name.as_str(), arguments.as_slice())
                && let (syntax::LinkKind::Index(Expr { kind: ExprKind::Int(n), .. }), false) =
                    (&next.kind, next.optional)
                && let (Ok(n), false) = (usize::try_from(*n), separator.is_empty())
            {
                value = E::Part(Box::new(value), separator.as_str().into(), n);
                index += 2;
                continue;
            }
            compiled.push(self.link(link)?);
            index += 1;
        }
        Ok(if compiled.is_empty() { value } else { E::Chain(Box::new(value), compiled) })
    }

    /// A part of `params`, and the links that are left.
    fn param<'l>(&self, links: &'l [syntax::Link]) -> (E, &'l [syntax::Link]) {
        let mut value = self.params.unwrap_or(&serde_json::Value::Null);
        let mut rest = links;
        while let Some((link, behind)) = rest.split_first() {
            let name = match &link.kind {
                syntax::LinkKind::Field(name) => name,
                syntax::LinkKind::Index(Expr { kind: ExprKind::Text(name), .. }) => name,
                _ => break,
            };
            match value.get(name) {
                Some(part) if value.is_object() => value = part,
                // A missing member is `()`; what follows tells whether that is an error.
                None if value.is_object() => return (E::Unit, behind),
                _ => break,
            }
            rest = behind;
        }
        (constant(value), rest)
    }

    /// A field of `meta`, and the links that are left.
    fn meta<'l>(&mut self, at: At, links: &'l [syntax::Link]) -> Compiled<(E, &'l [syntax::Link])> {
        let name = |link: &'l syntax::Link| match &link.kind {
            syntax::LinkKind::Field(name) => Some(name.as_str()),
            syntax::LinkKind::Index(Expr { kind: ExprKind::Text(name), .. }) => Some(name.as_str()),
            _ => None,
        };
        let Some((first, rest)) = links.split_first().and_then(|(first, rest)| Some((name(first)?, rest))) else {
            return refuse(at, "`meta` as a whole");
        };
        match first {
            "levels" => {
                let level = rest.first().and_then(|link| match &link.kind {
                    syntax::LinkKind::Index(Expr { kind: ExprKind::Int(n), .. }) if !link.optional => {
                        usize::try_from(*n).ok()
                    }
                    _ => None,
                });
                Ok(match level {
                    Some(level) => (E::Meta(MetaField::Level(level)), &rest[1..]),
                    None => (E::Levels, rest),
                })
            }
            "headers" => match rest.first().and_then(name) {
                Some(header) => Ok((E::Meta(MetaField::Header(header.to_owned())), &rest[1..])),
                None => refuse(at, "`meta.headers` as a whole"),
            },
            field => Ok((E::Meta(MetaField::named(field)), rest)),
        }
    }
}
