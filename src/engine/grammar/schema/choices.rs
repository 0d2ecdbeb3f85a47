//! `oneOf` and the keywords by which one member asks for others: of which ways one holds.

use std::collections::HashSet;
use std::rc::Rc;

use super::branch::{ALL, Branch, Conjunction, Literal, OBJECT, Scalar};
use super::expand::{NOTHING, Outcome, Step};
use super::json::{Id, Kind};
use super::rules::Compiler;

impl<'a> Compiler<'a> {
    pub(super) fn dependencies(
        &mut self,
        at: Id,
        i: usize,
        positive: bool,
        branch: &Branch,
    ) -> Result<Outcome, String> {
        let Some((keyword, value)) = self.document.members(at).get(i) else { return Ok(NOTHING) };
        let members = self.map(at, keyword, *value)?;
        let mut ways = Vec::new();
        let mut certain = Vec::new();
        for (name, then) in members {
            let name: Rc<str> = name.as_ref().into();
            let required = match self.document.kind(*then) {
                Kind::Array(_) => Some(self.names(at, keyword, *then)?),
                _ if &**keyword == "dependentRequired" => {
                    return self.wrong(at, keyword, *then, "a list is expected");
                }
                _ => None,
            };
            if !positive {
                let first = [Step::Types(OBJECT), Step::Required(name)];
                match required {
                    Some(names) => ways.extend(
                        names.into_iter().map(|name| first.iter().cloned().chain([Step::Forbidden(name)]).collect()),
                    ),
                    None => ways.push(first.into_iter().chain([Step::Is(Literal::Schema(*then, false))]).collect()),
                }
                continue;
            }
            if branch.types & OBJECT == 0 || branch.forbidden.has(&name) {
                continue;
            }
            // One is decided, then all of them are looked at again.
            let again = Step::Keyword(at, i, true);
            if branch.types != OBJECT {
                ways.push(vec![Step::Types(ALL & !OBJECT)]);
            }
            if branch.required.has(&name) {
                match required {
                    Some(names) => certain.extend(names.into_iter().map(Step::Required)),
                    None if branch.types == OBJECT => certain.push(Step::Is(Literal::Schema(*then, true))),
                    None => {
                        ways.push(vec![Step::Types(OBJECT), again]);
                        return Ok(Outcome::Choose(ways));
                    }
                }
                ways.clear();
                continue;
            }
            let with = |step: Step| vec![Step::Types(OBJECT), step, again.clone()];
            ways.push(with(Step::Required(Rc::clone(&name))));
            ways.push(with(Step::Forbidden(name)));
            return Ok(Outcome::Choose(ways));
        }
        Ok(if positive { Outcome::Then(certain) } else { Outcome::Choose(ways) })
    }

    /// Whether each of these schemas requires a member whose values are listed, and no other's: then one holds at most.
    pub(super) fn discriminated(&mut self, schemas: &[Id], objects_only: bool) -> Result<bool, String> {
        let mut nodes = Vec::with_capacity(schemas.len());
        for id in schemas {
            match self.simplified(Literal::Schema(*id, true))? {
                Some(Literal::Schema(id, true)) => nodes.push(id),
                _ => return Ok(false),
            }
        }
        let document = self.document;
        let listed = |id: Id, key: &str| match document.get(id, key).map(|id| document.kind(id)) {
            Some(Kind::Array(values)) => values.as_slice(),
            _ => &[],
        };
        let is_object = |id: &Id| document.get(*id, "type").and_then(|id| document.text(id)) == Some("object");
        let Some(first) = nodes.first() else { return Ok(false) };
        if !objects_only && !nodes.iter().all(is_object) {
            return Ok(false);
        }
        for name in listed(*first, "required").iter().filter_map(|id| document.text(*id)) {
            self.pay(nodes.len() as u64)?;
            let mut seen = HashSet::new();
            let values = |id: &Id| {
                let required = listed(*id, "required").iter().any(|id| document.text(*id) == Some(name));
                let member = document.get(document.get(*id, "properties")?, name).filter(|_| required)?;
                match document.get(member, "const") {
                    Some(value) => Some(vec![value]),
                    None => Some(listed(member, "enum").to_vec()).filter(|values| !values.is_empty()),
                }
            };
            let apart = nodes.iter().all(|id| {
                let values = values(id).unwrap_or_default();
                // A value may be listed twice in one of them.
                let own: HashSet<Scalar> = values.iter().filter_map(|id| Scalar::of(document, *id)).collect();
                let all = values.iter().all(|id| Scalar::of(document, *id).is_some());
                all && !own.is_empty() && own.into_iter().all(|value| seen.insert(value))
            });
            if apart {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The ways in which exactly one of the schemas holds, or none or several.
    pub(super) fn one_of(&mut self, schemas: &[Id], positive: bool) -> Result<Vec<Vec<Step>>, String> {
        let is = |id: Id, positive: bool| Step::Is(Literal::Schema(id, positive));
        let mut ways = Vec::new();
        if !positive {
            ways.push(schemas.iter().map(|id| is(*id, false)).collect());
        }
        for (i, a) in schemas.iter().enumerate() {
            let mut way = vec![is(*a, true)];
            for (j, b) in schemas.iter().enumerate() {
                // What cannot hold with it need not be excluded.
                if i == j || self.excludes(*a, *b)? {
                    continue;
                }
                match positive {
                    true => way.push(is(*b, false)),
                    false if i < j => ways.push(vec![is(*a, true), is(*b, true)]),
                    false => {}
                }
            }
            if positive {
                ways.push(way);
            }
        }
        Ok(ways)
    }

    /// Whether no value can be valid under both.
    fn excludes(&mut self, a: Id, b: Id) -> Result<bool, String> {
        let key = (a.min(b), a.max(b));
        if let Some(known) = self.excluded.get(&key) {
            return Ok(*known);
        }
        self.excluded.insert(key, false);
        let both: Conjunction = vec![Literal::Schema(key.0, true), Literal::Schema(key.1, true)];
        let found = self.is_empty(&both, 3)?;
        self.excluded.insert(key, found);
        Ok(found)
    }
}
