//! Objects of a branch, as rules.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::branch::{Branch, Conjunction, Group, Literal, STRING};
use super::json::{Id, Kind, quoted};
use super::pattern::NamePattern;
use super::rules::{Compiler, Rule, Symbol};
use super::rx::Rx;
use crate::schema::MAX_COUNT;

/// The most patterns for the names of an object's members, and the most ways in which names match some of them.
const MAX_NAME_PATTERNS: usize = 64;
/// The most listed members of an object, where one that may be left out counts twice; of one whose members are counted,
/// the most times the count.
const MAX_MEMBERS: usize = 8_000;
const MAX_COUNTED: u64 = 20_000;

/// Names that match some patterns and not others, and what holds for their members.
struct Cell<'a> {
    /// Patterns, and what a name that matches them or does not is.
    name: Vec<(&'a str, Rx)>,
    matched: HashSet<String>,
}

fn expressions(name: &[(&str, Rx)]) -> Vec<Rx> {
    name.iter().map(|(_, rx)| rx.clone()).collect()
}

fn any_name() -> String {
    if let Rx::Pattern(text) = Rx::any_string() { text } else { String::new() }
}

impl<'a> Compiler<'a> {
    fn map_of(&mut self, id: Id) -> Rc<HashMap<&'a str, Id>> {
        let document = self.document;
        let make = || Rc::new(document.members(id).iter().map(|(name, id)| (&**name, *id)).collect());
        Rc::clone(self.maps.entry(id).or_insert_with(make))
    }

    fn name_pattern(&mut self, at: Id, pattern: &'a str) -> Result<&mut NamePattern, String> {
        if !self.name_patterns.contains_key(pattern) {
            self.pay(500 + pattern.len() as u64)?;
            let known = NamePattern::new(pattern)
                .map_err(|e| format!("{}: \"patternProperties\": {e}", self.document.path(at)))?;
            self.name_patterns.insert(pattern, known);
        }
        self.name_patterns.get_mut(pattern).ok_or_else(String::new)
    }

    fn name_matches(&mut self, at: Id, pattern: &'a str, name: &str) -> Result<bool, String> {
        self.pay(2 + name.len() as u64 / 8)?;
        let document = self.document;
        let known = self.name_pattern(at, pattern)?;
        let matcher = match &mut known.matcher {
            Some(matcher) => matcher,
            None => {
                let made = known.rx.matcher();
                let made = made.map_err(|e| format!("{}: \"patternProperties\": {e}", document.path(at)))?;
                known.matcher.insert(made)
            }
        };
        Ok(matcher.is_match(&quoted(name)))
    }

    fn patterns_of(&self, at: Id) -> &'a [(Box<str>, Id)] {
        self.document.get(at, "patternProperties").map_or(&[], |id| self.document.members(id))
    }

    /// What holds for the member of a name; `None`: there can be none.
    pub(super) fn member(&mut self, branch: &Branch, name: &str) -> Result<Option<Conjunction>, String> {
        self.pay(1 + branch.objects.len() as u64)?;
        if branch.forbidden.has(name) {
            return Ok(None);
        }
        let mut all = Conjunction::new();
        for group in &branch.objects {
            match group {
                Group::Schema(at) => {
                    let n = all.len();
                    if let Some(properties) = self.document.get(*at, "properties") {
                        all.extend(self.map_of(properties).get(name).map(|id| Literal::Schema(*id, true)));
                    }
                    for (pattern, schema) in self.patterns_of(*at) {
                        if self.name_matches(*at, pattern, name)? {
                            all.push(Literal::Schema(*schema, true));
                        }
                    }
                    if all.len() == n {
                        let rest = self.document.get(*at, "additionalProperties");
                        all.extend(rest.map(|id| Literal::Schema(id, true)));
                    }
                }
                Group::Value(id) => match self.map_of(*id).get(name) {
                    Some(id) => all.push(Literal::Value(*id, true)),
                    None => return Ok(None),
                },
            }
        }
        all.extend(branch.members.iter().filter(|(n, _)| **n == *name).map(|(_, literal)| *literal));
        let never = |literal: &Literal| match literal {
            Literal::Schema(id, positive) => matches!(self.document.kind(*id), Kind::Bool(b) if b != positive),
            Literal::Value(..) => false,
        };
        Ok(if all.iter().any(never) { None } else { Some(all) })
    }

    /// The names that `propertyNames` allows, as strings; `None`: any.
    fn names_allowed(&mut self, branch: &Branch) -> Result<Option<Rx>, String> {
        if branch.names.is_empty() {
            return Ok(None);
        }
        for literal in &branch.names {
            if let Literal::Schema(id, _) = literal {
                self.comes_to_an_end(*id)?;
            }
        }
        let mut parts = Vec::new();
        for mut names in self.branches(&branch.names)? {
            names.types &= STRING;
            self.check_refused(&names)?;
            parts.extend(self.strings(&names)?);
        }
        Ok(Some(Rx::any(parts)))
    }

    /// Names in the order in which they are written.
    fn listed_names(&self, branch: &Branch) -> Vec<Rc<str>> {
        let mut seen = HashSet::new();
        let mut all: Vec<Rc<str>> = Vec::new();
        let mut add = |name: &str| {
            if !branch.forbidden.has(name) && seen.insert(name.to_owned()) {
                all.push(name.into());
            }
        };
        for group in &branch.objects {
            let members = match group {
                Group::Schema(at) => {
                    self.document.get(*at, "properties").map_or(&[][..], |id| self.document.members(id))
                }
                Group::Value(id) => self.document.members(*id),
            };
            members.iter().for_each(|(name, _)| add(name));
        }
        branch.required.iter().for_each(|name| add(name));
        branch.members.iter().for_each(|(name, _)| add(name));
        all
    }

    /// The members of names that are not listed: alternatives of a name, a colon and a value.
    fn others(&mut self, branch: &Branch, listed: &[Rc<str>], allowed: Option<&Rx>) -> Result<Rule, String> {
        if branch.objects.iter().any(|group| matches!(group, Group::Value(_))) {
            return Ok(Rule::new());
        }
        let owners: Vec<Id> =
            branch.objects.iter().filter_map(|g| if let Group::Schema(at) = g { Some(*at) } else { None }).collect();
        let mut cells = vec![Cell { name: Vec::new(), matched: HashSet::new() }];
        let mut patterns = HashSet::new();
        for &at in &owners {
            for (pattern, _) in self.patterns_of(at) {
                if !patterns.insert(&**pattern) {
                    continue;
                }
                if patterns.len() > MAX_NAME_PATTERNS {
                    let path = self.document.path(at);
                    return Err(format!("{path}: \"patternProperties\": more than {MAX_NAME_PATTERNS} patterns"));
                }
                cells = self.split(at, pattern, cells)?;
            }
        }
        let exclude: Vec<Rx> =
            listed.iter().chain(branch.forbidden.iter()).map(|name| Rx::Literal(quoted(name))).collect();
        let colon = self.literal(":")?;
        let mut rule = Rule::new();
        for cell in cells {
            let mut conjunction = Conjunction::new();
            for &at in &owners {
                let n = conjunction.len();
                for (pattern, schema) in self.patterns_of(at) {
                    if cell.matched.contains(&**pattern) {
                        conjunction.push(Literal::Schema(*schema, true));
                    }
                }
                if conjunction.len() == n {
                    let rest = self.document.get(at, "additionalProperties");
                    conjunction.extend(rest.map(|id| Literal::Schema(id, true)));
                }
            }
            let is_false = |l: &Literal| matches!(l, Literal::Schema(id, _) if matches!(self.document.kind(*id), Kind::Bool(false)));
            if conjunction.iter().any(is_false) {
                continue;
            }
            let mut name = expressions(&cell.name);
            name.extend(allowed.cloned());
            if name.iter().all(|rx| matches!(rx, Rx::Not(_))) {
                name.push(Rx::any_string());
            }
            if !exclude.is_empty() {
                name.push(Rx::any(exclude.clone()).not());
            }
            self.pay(exclude.len() as u64)?;
            let path = self.document.path(owners.first().map_or(0, |at| *at));
            // Of all names some are left, however many are listed.
            let certain = cell.matched.is_empty() && patterns.is_empty() && allowed.is_none();
            if certain || !self.no_name(name.clone(), &path)? {
                let name = Symbol::Token(self.token(Rx::all(name))?);
                rule.push(vec![name, colon.clone(), Symbol::Rule(self.value_rule(conjunction)?)]);
            }
        }
        Ok(rule)
    }

    /// Each cell in two: the names that match a pattern, and the others.
    fn split(&mut self, at: Id, pattern: &'a str, cells: Vec<Cell<'a>>) -> Result<Vec<Cell<'a>>, String> {
        let path = self.document.path(at);
        let rx = self.name_pattern(at, pattern)?.rx.clone();
        let mut split = Vec::new();
        for cell in cells {
            let matters = |(other, _): &&(&'a str, Rx)| !self.begin_apart(pattern, other);
            let mut with: Vec<(&'a str, Rx)> = cell.name.iter().filter(matters).cloned().collect();
            with.push((pattern, rx.clone()));
            // Where nothing in it matches, nothing need be excluded from it.
            let apart = cell.matched.iter().any(|other| self.begin_apart(pattern, other));
            if !apart && !self.no_name(expressions(&with), &path)? {
                let mut matched = cell.matched.clone();
                matched.insert(pattern.to_owned());
                split.push(Cell { name: with, matched });
                let mut without = cell.name;
                without.push((pattern, rx.clone().not()));
                split.push(Cell { name: without, matched: cell.matched });
            } else {
                split.push(cell);
            }
            if split.len() > MAX_NAME_PATTERNS + 1 {
                return Err(format!(
                    "{path}: \"patternProperties\": names match in more than {MAX_NAME_PATTERNS} ways"
                ));
            }
        }
        Ok(split)
    }

    /// Whether two patterns begin with different letters, so that no name matches both.
    fn begin_apart(&self, a: &str, b: &str) -> bool {
        let begin = |pattern: &str| self.name_patterns.get(pattern).and_then(|known| known.begin.as_deref());
        match (begin(a), begin(b)) {
            (Some(a), Some(b)) => !a.starts_with(b) && !b.starts_with(a),
            _ => false,
        }
    }

    /// Whether no name matches all of these.
    fn no_name(&mut self, mut parts: Vec<Rx>, path: &str) -> Result<bool, String> {
        if parts.iter().all(|rx| matches!(rx, Rx::Not(_))) {
            parts.push(Rx::any_string());
        }
        let rx = Rx::all(parts);
        if let Rx::Pattern(text) = &rx
            && *text == any_name()
        {
            return Ok(false);
        }
        self.pay(3_000 + rx.size() as u64)?;
        rx.is_empty().map_err(|e| format!("{path}: \"patternProperties\": {e}"))
    }

    pub(super) fn object(&mut self, branch: &Branch) -> Result<Rule, String> {
        if branch.min_members > MAX_COUNT {
            return self.too_many(branch, "minProperties", branch.min_members);
        }
        let allowed = self.names_allowed(branch)?;
        let mut matcher = match &allowed {
            Some(rx) => Some(rx.matcher().map_err(|e| format!("#: \"propertyNames\": {e}"))?),
            None => None,
        };
        let listed = self.listed_names(branch);
        let mut members: Vec<(Symbol, Symbol, bool)> = Vec::new();
        for name in &listed {
            let text = quoted(name);
            let is_allowed = matcher.as_mut().is_none_or(|m| m.is_match(&text));
            let required = branch.required.has(name);
            match if is_allowed { self.member(branch, name)? } else { None } {
                Some(conjunction) => {
                    let value = Symbol::Rule(self.value_rule(conjunction)?);
                    members.push((self.literal(&text)?, value, required));
                }
                None if required => return Ok(Rule::new()),
                None => {}
            }
        }
        let max = branch.max_members.filter(|max| *max <= MAX_COUNT);
        let others = self.others(branch, &listed, allowed.as_ref())?;
        let n_optional = members.iter().filter(|(_, _, required)| !required).count();
        self.check_counts(branch, members.len(), n_optional, max)?;
        let first = self.chain(&members, others, branch.min_members, max)?;
        let (open, close) = (self.literal("{")?, self.literal("}")?);
        Ok(vec![vec![open, Symbol::Rule(first), close]])
    }

    fn check_counts(&self, branch: &Branch, n: usize, n_optional: usize, max: Option<u64>) -> Result<(), String> {
        let at = match branch.objects.first() {
            Some(Group::Schema(at) | Group::Value(at)) => *at,
            None => 0,
        };
        // Each that may be left out is looked at with all behind it.
        let weighed = n + n_optional;
        if weighed > MAX_MEMBERS {
            let path = self.document.path(at);
            return Err(format!(
                "{path}: \"properties\" and those among them that may be left out: {weighed}; at most {MAX_MEMBERS}"
            ));
        }
        let counts = max.map_or(branch.min_members, |max| max + 1).min(n as u64);
        if counts * n as u64 > MAX_COUNTED {
            let path = self.document.path(at);
            return Err(format!(
                "{path}: {n} \"properties\" of which {counts} are counted: {}; at most {MAX_COUNTED}",
                counts * n as u64
            ));
        }
        Ok(())
    }

    /// The members in their order, then others: the rule of what stands between the braces.
    ///
    /// A state is a place in the order and how many members stand before it, as far as that matters.
    fn chain(
        &mut self,
        members: &[(Symbol, Symbol, bool)],
        others: Rule,
        min: u64,
        max: Option<u64>,
    ) -> Result<u32, String> {
        let (comma, colon) = (self.literal(",")?, self.literal(":")?);
        // A count beyond which it does not matter, and at least whether there is one.
        let cap = max.map_or(min, |max| max + 1).max(1).min(members.len() as u64 + 1);
        let other = self.rule_of(others)?;
        let more = self.rule_of(vec![vec![comma.clone(), Symbol::Rule(other)]])?;
        let mut ends = Vec::new();
        for count in 0..=cap {
            let (least, most) = (min.saturating_sub(count), max.map(|max| max.saturating_sub(count)));
            let mut rule = Rule::new();
            if max.is_none_or(|max| count <= max) {
                if least == 0 {
                    rule.push(Vec::new());
                }
                if most != Some(0) {
                    let (first, least, most) = match count {
                        0 => (other, least.max(1) - 1, most.map(|most| most - 1)),
                        _ => (more, least.max(1) - 1, most.map(|most| most - 1)),
                    };
                    let mut symbols = vec![Symbol::Rule(first)];
                    if most != Some(0) {
                        symbols.push(Symbol::Repeat(more, least, most));
                    }
                    rule.push(symbols);
                }
            }
            ends.push(self.rule_of(rule)?);
        }
        let mut next = ends;
        for (i, (name, value, required)) in members.iter().enumerate().rev() {
            let mut here = Vec::new();
            for count in 0..=cap.min(i as u64) {
                let mut with = if count > 0 { vec![comma.clone()] } else { Vec::new() };
                let after = next[(count + 1).min(cap) as usize];
                with.extend([name.clone(), colon.clone(), value.clone(), Symbol::Rule(after)]);
                let mut rule = vec![with];
                if !required {
                    rule.push(vec![Symbol::Rule(next[count as usize])]);
                }
                here.push(self.rule_of(rule)?);
            }
            next = here;
        }
        Ok(next[0])
    }
}
