//! Arrays of a branch, as rules.

use super::branch::{Branch, Conjunction, Group, Literal};
use super::json::{Document, Id, Kind};
use super::rules::{Compiler, Rule, Symbol};
use crate::schema::MAX_COUNT;

/// The items of a schema: those told by their place, and the rest.
fn items_of(document: &Document, at: Id) -> (&[Id], Option<Id>) {
    let items = document.get(at, "items");
    match items.map(|id| document.kind(id)) {
        Some(Kind::Array(values)) => (values, document.get(at, "additionalItems")),
        _ => match document.get(at, "prefixItems").map(|id| document.kind(id)) {
            Some(Kind::Array(values)) => (values, items),
            _ => (&[], items),
        },
    }
}

impl Compiler<'_> {
    /// How many items are told by their place.
    pub(super) fn n_prefix(&self, branch: &Branch) -> Result<usize, String> {
        let mut n = branch.items.iter().map(|(at, _)| at + 1).max().unwrap_or(0);
        for group in &branch.arrays {
            n = n.max(match group {
                Group::Schema(at) => {
                    if let Some(id) = self.document.get(*at, "prefixItems")
                        && !matches!(self.document.kind(id), Kind::Array(_))
                    {
                        let (path, shown) = (self.document.path(*at), self.document.shown(id));
                        return Err(format!("{path}: \"prefixItems\" is {shown} where a list is expected"));
                    }
                    items_of(self.document, *at).0.len()
                }
                Group::Value(id) => {
                    if let Kind::Array(values) = self.document.kind(*id) {
                        values.len()
                    } else {
                        0
                    }
                }
            });
        }
        Ok(n)
    }

    /// What holds for the item in a place.
    pub(super) fn item(&mut self, branch: &Branch, i: usize) -> Result<Conjunction, String> {
        self.pay(1 + branch.arrays.len() as u64)?;
        let mut all = Conjunction::new();
        for group in &branch.arrays {
            match group {
                Group::Schema(at) => {
                    let (prefix, rest) = items_of(self.document, *at);
                    all.extend(prefix.get(i).copied().or(rest).map(|id| Literal::Schema(id, true)));
                }
                Group::Value(id) => {
                    if let Kind::Array(values) = self.document.kind(*id) {
                        all.extend(values.get(i).map(|id| Literal::Value(*id, true)));
                    }
                }
            }
        }
        all.extend(branch.items.iter().filter(|(at, _)| *at == i).map(|(_, literal)| *literal));
        Ok(all)
    }

    pub(super) fn too_many<T>(&self, branch: &Branch, keyword: &str, n: u64) -> Result<T, String> {
        let owner = |group: &Group| match group {
            Group::Schema(at) | Group::Value(at) => *at,
        };
        let at = branch.arrays.first().or(branch.objects.first()).map_or(0, owner);
        Err(format!("{}: \"{keyword}\" is {n}; at most {MAX_COUNT}", self.document.path(at)))
    }

    pub(super) fn array(&mut self, branch: &Branch) -> Result<Rule, String> {
        if branch.min_items > MAX_COUNT {
            return self.too_many(branch, "minItems", branch.min_items);
        }
        let min = branch.min_items;
        let max = branch.max_items.filter(|max| *max <= MAX_COUNT);
        let (open, close, comma) = (self.literal("[")?, self.literal("]")?, self.literal(",")?);
        let mut rule = Rule::new();
        if min == 0 {
            rule.push(vec![open.clone(), close.clone()]);
        }
        if max == Some(0) {
            return Ok(rule);
        }
        let n = self.n_prefix(branch)?.min(max.map_or(usize::MAX, |max| max as usize));
        // From the end: the items behind those that are told by their place.
        let mut next: Option<u32> = None;
        let left = |count: u64| count.saturating_sub(n as u64);
        if max.is_none_or(|max| max > n as u64) {
            let conjunction = self.item(branch, n)?;
            let item = self.value_rule(conjunction)?;
            let (least, most) = (left(min).max(1) - 1, max.map(|max| left(max) - 1));
            let mut symbols = vec![Symbol::Rule(item)];
            if most != Some(0) {
                let more = self.rule_of(vec![vec![comma.clone(), Symbol::Rule(item)]])?;
                symbols.push(Symbol::Repeat(more, least, most));
            }
            next = Some(self.rule_of(vec![symbols])?);
        }
        for i in (0..n).rev() {
            let conjunction = self.item(branch, i)?;
            let item = Symbol::Rule(self.value_rule(conjunction)?);
            let mut alternatives = Rule::new();
            if let Some(next) = next {
                alternatives.push(vec![item.clone(), comma.clone(), Symbol::Rule(next)]);
            }
            if min <= i as u64 + 1 {
                alternatives.push(vec![item]);
            }
            next = Some(self.rule_of(alternatives)?);
        }
        rule.extend(next.map(|next| vec![open, Symbol::Rule(next), close]));
        Ok(rule)
    }
}
