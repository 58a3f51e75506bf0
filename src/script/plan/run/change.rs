//! What a statement changes inside of a list or map.
use bumpalo::collections::Vec as BumpVec;

use super::{ITEM, Run, Running, Stop};
use crate::script::{
    plan::{
        tree::Key,
        value::{V, binary},
    },
    syntax::Operator,
};

/// A change of a value, its operand worked out.
pub(super) enum Changed<'m> {
    Set(Option<Operator>, V<'m>),
    Push(V<'m>),
    Trim,
}

impl<'m> Run<'m> {
    /// `value` after a change behind `keys`. Lists and maps are values: nothing else sees the change.
    pub(super) fn changed(&mut self, value: V<'m>, keys: &'m [Key], change: &Changed<'m>) -> Running<'m, V<'m>> {
        let Some((key, rest)) = keys.split_first() else {
            return Ok(match (change, value.opened(self.bump)) {
                (Changed::Set(None, new), _) => *new,
                (Changed::Set(Some(operator), new), old) => binary(*operator, old, *new, self.bump)?,
                (Changed::Push(item), V::List(items)) => {
                    self.spend(std::mem::size_of_val(items) + ITEM)?;
                    let mut out = BumpVec::with_capacity_in(items.len() + 1, self.bump);
                    out.extend_from_slice_copy(items);
                    out.push(*item);
                    V::List(out.into_bump_slice())
                }
                (Changed::Trim, V::Text(text)) => V::Text(text.trim()),
                _ => return Err(Stop::Deopt),
            });
        };
        let key = match key {
            Key::Field(name) => V::Text(name),
            Key::Index(index) => self.plain(index)?,
        };
        match (value.opened(self.bump), key) {
            (V::Map(members), V::Text(name)) => {
                self.spend(std::mem::size_of_val(members))?;
                let place = members.binary_search_by(|(member, _)| (*member).cmp(name));
                let old = place.map_or(V::Unit, |at| members[at].1);
                let new = self.changed(old, rest, change)?;
                let mut out = BumpVec::with_capacity_in(members.len() + 1, self.bump);
                out.extend_from_slice_copy(members);
                match place {
                    Ok(at) => out[at].1 = new,
                    Err(at) => out.insert(at, (name, new)),
                }
                Ok(V::Map(out.into_bump_slice()))
            }
            (V::List(items), V::Int(index)) => {
                self.spend(std::mem::size_of_val(items))?;
                let at = usize::try_from(index).ok().filter(|at| *at < items.len()).ok_or(Stop::Deopt)?;
                let new = self.changed(items[at], rest, change)?;
                let out = self.bump.alloc_slice_copy(items);
                out[at] = new;
                Ok(V::List(out))
            }
            _ => Err(Stop::Deopt),
        }
    }
}
