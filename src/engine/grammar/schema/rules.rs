//! From conjunctions to rules: one rule for each that a value is held to somewhere, made when it is first met.
//!
//! Invariants: a conjunction has one rule, so that schemas that refer to themselves come to an end; rules are made from a
//! list of those that are due and never inside of each other; every step of the work is paid for.

use std::collections::HashMap;
use std::rc::Rc;

use super::branch::{ARRAY, BOOL, Branch, Conjunction, Literal, NULL, OBJECT};
use super::json::{Document, Id, Kind};
use super::pattern::NamePattern;
use super::reference::References;
use super::rx::Rx;

/// The most steps in which a schema is taken apart; each takes well under a microsecond.
const MAX_WORK: u64 = 1_000_000;
/// The most rules, and symbols in them.
const MAX_SYMBOLS: usize = 400_000;
/// The most bytes of all tokens' expressions.
const MAX_TOKEN_BYTES: usize = 2 << 20;

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Symbol {
    Token(u32),
    Rule(u32),
    /// A rule so many times, or at least so many.
    Repeat(u32, u64, Option<u64>),
    /// A number that is a multiple, as a schema of its own.
    Multiple(Rc<str>),
}

/// Alternatives, each of symbols behind each other.
pub(super) type Rule = Vec<Vec<Symbol>>;

/// The drafts of the standard, as far as they differ in what is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// In these nothing beside `$ref` counts.
    UpTo7,
    /// In these `dependencies` is no keyword.
    Since2019,
    /// The text does not say: what any of them has counts.
    Unknown,
}

/// A schema at work.
pub(super) struct Compiler<'a> {
    pub(super) document: &'a Document,
    pub(super) references: References<'a>,
    pub(super) dialect: Dialect,
    work: u64,
    /// Pairs of schemas of which only one can hold.
    pub(super) excluded: HashMap<(Id, Id), bool>,
    /// Schemas that lead to themselves by no way that does not end: those that are being looked at, and that are done.
    looked_at: HashMap<Id, bool>,
    pub(super) rules: Vec<Rule>,
    symbols: usize,
    known: HashMap<Conjunction, u32>,
    alike: HashMap<Rule, u32>,
    due: Vec<(Conjunction, u32)>,
    pub(super) tokens: Vec<Rx>,
    token_ids: HashMap<Rx, u32>,
    token_bytes: usize,
    /// Expressions of `pattern` and `format` values, and of patterns for names.
    pub(super) texts: HashMap<Id, Rx>,
    pub(super) name_patterns: HashMap<&'a str, NamePattern>,
    /// Members of `properties` and of values by name.
    pub(super) maps: HashMap<Id, Rc<HashMap<&'a str, Id>>>,
    pub(super) level: u32,
}

impl<'a> Compiler<'a> {
    /// The rules of a document's schema, the first of which is a value's.
    pub(super) fn compile(document: &'a Document) -> Result<Compiler<'a>, String> {
        let draft = document.get(0, "$schema").and_then(|v| document.text(v)).unwrap_or("");
        let dialect = match ["draft-03", "draft-04", "draft-06", "draft-07"].iter().any(|old| draft.contains(old)) {
            true => Dialect::UpTo7,
            false if draft.contains("json-schema.org/draft/20") => Dialect::Since2019,
            false => Dialect::Unknown,
        };
        let mut compiler = Compiler {
            document,
            references: References::new(document),
            dialect,
            work: 0,
            excluded: HashMap::new(),
            looked_at: HashMap::new(),
            rules: Vec::new(),
            symbols: 0,
            known: HashMap::new(),
            alike: HashMap::new(),
            due: Vec::new(),
            tokens: Vec::new(),
            token_ids: HashMap::new(),
            token_bytes: 0,
            texts: HashMap::new(),
            name_patterns: HashMap::new(),
            maps: HashMap::new(),
            level: 0,
        };
        compiler.value_rule(vec![Literal::Schema(0, true)])?;
        while let Some((conjunction, rule)) = compiler.due.pop() {
            let alternatives = compiler.alternatives(&conjunction)?;
            compiler.set(rule, alternatives)?;
        }
        Ok(compiler)
    }

    pub(super) fn pay(&mut self, steps: u64) -> Result<(), String> {
        self.work = self.work.saturating_add(steps);
        match self.work <= MAX_WORK {
            true => Ok(()),
            false => Err(format!("#: taking the schema apart: more than {MAX_WORK} steps")),
        }
    }

    fn add_rule(&mut self) -> u32 {
        self.rules.push(Vec::new());
        (self.rules.len() - 1) as u32
    }

    /// The rule of these alternatives, which is the same for all that have them.
    pub(super) fn rule_of(&mut self, alternatives: Rule) -> Result<u32, String> {
        if let Some(rule) = self.alike.get(&alternatives) {
            return Ok(*rule);
        }
        let rule = self.add_rule();
        self.alike.insert(alternatives.clone(), rule);
        self.set(rule, alternatives)?;
        Ok(rule)
    }

    fn set(&mut self, rule: u32, alternatives: Rule) -> Result<(), String> {
        self.symbols += 1 + alternatives.iter().map(|symbols| 1 + symbols.len()).sum::<usize>();
        if self.symbols > MAX_SYMBOLS {
            let n = self.symbols;
            return Err(format!("#: symbols of the schema's grammar: {n} and more; at most {MAX_SYMBOLS}"));
        }
        self.rules[rule as usize] = alternatives;
        Ok(())
    }

    pub(super) fn token(&mut self, rx: Rx) -> Result<u32, String> {
        if let Some(id) = self.token_ids.get(&rx) {
            return Ok(*id);
        }
        self.token_bytes += rx.size();
        if self.token_bytes > MAX_TOKEN_BYTES {
            let n = self.token_bytes;
            return Err(format!(
                "#: bytes of the expressions for the schema's texts and numbers: {n} and more; at most {MAX_TOKEN_BYTES}"
            ));
        }
        let id = self.tokens.len() as u32;
        self.tokens.push(rx.clone());
        self.token_ids.insert(rx, id);
        Ok(id)
    }

    pub(super) fn literal(&mut self, text: &str) -> Result<Symbol, String> {
        self.token(Rx::Literal(text.to_owned())).map(Symbol::Token)
    }

    /// The rule of a value that is held to a conjunction.
    pub(super) fn value_rule(&mut self, conjunction: Conjunction) -> Result<u32, String> {
        let mut plain: Conjunction = Vec::with_capacity(conjunction.len());
        for literal in conjunction {
            self.pay(1)?;
            if let Literal::Schema(id, _) = literal {
                self.comes_to_an_end(id)?;
            }
            if let Some(literal) = self.simplified(literal)?
                && !plain.contains(&literal)
            {
                plain.push(literal);
            }
        }
        if let Some(rule) = self.known.get(&plain) {
            return Ok(*rule);
        }
        let rule = self.add_rule();
        self.known.insert(plain.clone(), rule);
        self.due.push((plain, rule));
        Ok(rule)
    }

    /// A schema that says nothing is none, one that only refers is what it refers to.
    pub(super) fn simplified(&mut self, mut literal: Literal) -> Result<Option<Literal>, String> {
        while let Literal::Schema(id, true) = literal {
            self.pay(1)?;
            let members = match self.document.kind(id) {
                Kind::Bool(true) => return Ok(None),
                Kind::Object(members) => members,
                _ => break,
            };
            let mut held = members.iter().filter(|(name, _)| !ANNOTATIONS.contains(&&**name));
            match (held.next(), held.next()) {
                (None, _) => return Ok(None),
                (Some((name, value)), None) if &**name == "$ref" => {
                    literal = Literal::Schema(self.references.resolve(*value)?, true);
                }
                _ => break,
            }
        }
        Ok(Some(literal))
    }

    /// Refuses a schema that stands for itself: what it holds a value to would never be told.
    pub(super) fn comes_to_an_end(&mut self, id: Id) -> Result<(), String> {
        let mut open = vec![(id, false)];
        while let Some((id, left)) = open.pop() {
            if left {
                self.looked_at.insert(id, true);
                continue;
            }
            match self.looked_at.get(&id) {
                Some(true) => continue,
                Some(false) => {
                    let path = self.document.path(id);
                    return Err(format!(
                        "{path}: the schema stands for itself by \"$ref\", so that nothing tells its values"
                    ));
                }
                None => {}
            }
            self.pay(1)?;
            self.looked_at.insert(id, false);
            open.push((id, true));
            for (name, value) in self.document.members(id) {
                match &**name {
                    "$ref" | "$dynamicRef" | "$recursiveRef" => {
                        open.push((self.references.resolve(*value)?, false));
                    }
                    "allOf" | "anyOf" | "oneOf" => {
                        if let Kind::Array(values) = self.document.kind(*value) {
                            open.extend(values.iter().map(|v| (*v, false)));
                        }
                    }
                    "not" | "if" | "then" | "else" => open.push((*value, false)),
                    "dependentSchemas" | "dependencies" => {
                        open.extend(self.document.members(*value).iter().map(|(_, v)| (*v, false)));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn alternatives(&mut self, conjunction: &[Literal]) -> Result<Rule, String> {
        let mut scalars = Vec::new();
        let mut rule: Rule = Vec::new();
        for branch in self.branches(conjunction)? {
            self.check_refused(&branch)?;
            scalars.extend(self.constants(&branch)?);
            let (numbers, multiple) = self.numbers(&branch)?;
            scalars.extend(numbers);
            rule.extend(multiple.map(|schema| vec![Symbol::Multiple(schema)]));
            scalars.extend(self.strings(&branch)?);
            if branch.types & ARRAY != 0 {
                rule.extend(self.array(&branch)?);
            }
            if branch.types & OBJECT != 0 {
                rule.extend(self.object(&branch)?);
            }
        }
        if !scalars.is_empty() {
            let mut once: Vec<Rx> = Vec::new();
            let mut seen = std::collections::HashSet::new();
            for rx in scalars {
                // One list of literals is like any other.
                let parts = if let Rx::Any(parts) = rx { parts } else { vec![rx] };
                once.extend(parts.into_iter().filter(|rx| seen.insert(rx.clone())));
            }
            let token = self.token(Rx::any(once))?;
            rule.insert(0, vec![Symbol::Token(token)]);
        }
        let mut once: Rule = Vec::with_capacity(rule.len());
        let mut seen = std::collections::HashSet::new();
        once.extend(rule.into_iter().filter(|symbols| seen.insert(symbols.clone())));
        Ok(once)
    }

    /// `null` and the truth values that are left.
    pub(super) fn constants(&mut self, branch: &Branch) -> Result<Vec<Rx>, String> {
        let is = |id: &Id, text: &str| match self.document.kind(*id) {
            Kind::Null => text == "null",
            Kind::Bool(true) => text == "true",
            Kind::Bool(false) => text == "false",
            _ => false,
        };
        let mut found = Vec::new();
        for (text, kind) in [("null", NULL), ("true", BOOL), ("false", BOOL)] {
            let listed = branch.only.as_ref().is_none_or(|only| only.iter().any(|id| is(id, text)));
            if branch.types & kind != 0 && listed && !branch.not.iter().any(|id| is(id, text)) {
                found.push(Rx::Literal(text.to_owned()));
            }
        }
        Ok(found)
    }

    pub(super) fn check_refused(&self, branch: &Branch) -> Result<(), String> {
        for (types, at, keyword) in &branch.refused {
            // Of one item none is like another.
            let unique = *keyword == "uniqueItems" && branch.max_items.is_some_and(|n| n <= 1);
            if branch.types & types != 0 && !unique {
                return Err(format!("{}: \"{keyword}\" is not supported", self.document.path(*at)));
            }
        }
        for id in &branch.not {
            let (kind, name) = match self.document.kind(*id) {
                Kind::Array(_) => (ARRAY, "an array"),
                Kind::Object(_) => (OBJECT, "an object"),
                _ => continue,
            };
            if branch.types & kind != 0 {
                return Err(format!("{}: \"not\" of {name} is not supported", self.document.path(*id)));
            }
        }
        Ok(())
    }
}

/// Keywords that hold nothing to anything by themselves.
const ANNOTATIONS: [&str; 17] = [
    "$schema",
    "$id",
    "id",
    "$anchor",
    "$dynamicAnchor",
    "$recursiveAnchor",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "readOnly",
    "writeOnly",
    "deprecated",
    "$vocabulary",
];
