//! From a conjunction to its branches: each keyword's meaning, and that of its opposite.
//!
//! What something is not held to is the negation of one of its keywords. Where a keyword's opposite cannot be told by a
//! grammar, a branch notes it and is refused only where a value of that type is left in it.

use std::collections::HashSet;
use std::rc::Rc;

use super::branch::{ALL, ARRAY, BOOL, Branch, Count, Group, INTEGER, Literal, NULL, NUMBER, OBJECT, STRING};
use super::decimal::{Decimal, MAX_DIGITS};
use super::json::{Id, Kind, shortened};
use super::number::Bound;
use super::pattern;
use super::reference;
use super::rules::{Compiler, Dialect};

/// One thing to add to a branch.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Is(Literal),
    /// A schema's keyword, by its place among the members, or its opposite.
    Keyword(Id, usize, bool),
    Types(u8),
    Required(Rc<str>),
    Forbidden(Rc<str>),
    Member(Rc<str>, Literal),
    Item(usize, Literal),
    Count(Count, Option<u64>),
    Low(Bound),
    High(Bound),
    Refuse(u8, Id, &'static str),
    Never,
}

/// What a step comes to.
pub(super) enum Outcome {
    Then(Vec<Step>),
    /// One list of these.
    Choose(Vec<Vec<Step>>),
}

pub(super) const NOTHING: Outcome = Outcome::Then(Vec::new());

/// Keywords that may leave a choice.
const CHOOSING: [&str; 7] = ["anyOf", "oneOf", "if", "dependentRequired", "dependentSchemas", "dependencies", "enum"];

impl<'a> Compiler<'a> {
    /// The ways in which all of a conjunction can hold, each with a type at least that is left.
    pub(super) fn branches(&mut self, conjunction: &[Literal]) -> Result<Vec<Branch>, String> {
        let first = conjunction.iter().rev().map(|literal| Step::Is(*literal)).collect();
        let mut open: Vec<(Branch, Vec<Step>, Vec<Step>)> = vec![(Branch::new(), first, Vec::new())];
        let mut done = Vec::new();
        'branches: while let Some((mut branch, mut steps, mut choices)) = open.pop() {
            loop {
                if branch.types == 0 {
                    continue 'branches;
                }
                let (step, choosing) = match steps.pop() {
                    Some(step) if self.chooses(&step) => {
                        choices.push(step);
                        continue;
                    }
                    Some(step) => (step, false),
                    None if choices.is_empty() => break,
                    // The first that was met.
                    None => (choices.remove(0), true),
                };
                self.pay(1)?;
                match self.apply(step, &mut branch)? {
                    Outcome::Then(more) => steps.extend(more.into_iter().rev()),
                    Outcome::Choose(mut ways) if choosing && ways.len() == 1 => {
                        steps.extend(ways.pop().unwrap_or_default().into_iter().rev());
                    }
                    Outcome::Choose(ways) => {
                        for way in ways.into_iter().rev() {
                            self.pay(branch.weight() + choices.len() as u64)?;
                            let mut steps = steps.clone();
                            steps.extend(way.into_iter().rev());
                            open.push((branch.clone(), steps, choices.clone()));
                        }
                        continue 'branches;
                    }
                }
            }
            branch.settle();
            if branch.types != 0 {
                done.push(branch);
            }
        }
        Ok(done)
    }

    /// Choices come last: by then most of what they could be is settled.
    fn chooses(&self, step: &Step) -> bool {
        match step {
            Step::Keyword(_, _, false) | Step::Is(Literal::Schema(_, false)) => true,
            Step::Keyword(at, i, true) => {
                self.document.members(*at).get(*i).is_some_and(|(name, _)| CHOOSING.contains(&&**name))
            }
            _ => false,
        }
    }

    fn apply(&mut self, step: Step, branch: &mut Branch) -> Result<Outcome, String> {
        match step {
            Step::Is(literal) => {
                if branch.seen.contains(&literal.negated()) {
                    branch.types = 0;
                } else if branch.seen.insert(literal) {
                    return match literal {
                        Literal::Schema(id, positive) => self.schema(id, positive),
                        Literal::Value(id, positive) => Ok(self.value(id, positive, branch)),
                    };
                }
            }
            Step::Keyword(at, i, positive) => return self.keyword(at, i, positive, branch),
            Step::Types(types) => branch.types &= types,
            Step::Required(name) => branch.required.add(name),
            Step::Forbidden(name) => branch.forbidden.add(name),
            Step::Member(name, literal) => branch.members.push((name, literal)),
            Step::Item(at, literal) => branch.items.push((at, literal)),
            Step::Count(count, limit) => branch.count(count, limit),
            Step::Low(bound) => branch.at_least(bound),
            Step::High(bound) => branch.at_most(bound),
            Step::Refuse(types, at, keyword) => branch.refused.push((types, at, keyword)),
            Step::Never => branch.types = 0,
        }
        Ok(NOTHING)
    }

    fn schema(&mut self, id: Id, positive: bool) -> Result<Outcome, String> {
        let members = match self.document.kind(id) {
            Kind::Bool(value) if *value == positive => return Ok(NOTHING),
            Kind::Bool(_) => return Ok(Outcome::Then(vec![Step::Never])),
            Kind::Object(members) => members,
            _ => {
                let (path, shown) = (self.document.path(id), self.document.shown(id));
                return Err(format!("{path}: a schema is an object, true or false, not {shown}"));
            }
        };
        let reference = members.iter().position(|(name, _)| &**name == "$ref");
        let steps: Vec<Step> = match reference {
            // In the drafts up to 7 nothing beside it counts.
            Some(i) if self.dialect == Dialect::UpTo7 => vec![Step::Keyword(id, i, positive)],
            _ => (0..members.len()).map(|i| Step::Keyword(id, i, positive)).collect(),
        };
        if positive {
            return Ok(Outcome::Then(steps));
        }
        let mut ways: Vec<Vec<Step>> = steps.into_iter().map(|step| vec![step]).collect();
        self.join_members(id, &mut ways)?;
        Ok(Outcome::Choose(ways))
    }

    /// That a required member is missing, or is there and not valid, is one way: it is not valid where it is there.
    fn join_members(&self, id: Id, ways: &mut Vec<Vec<Step>>) -> Result<(), String> {
        let (Some(required), Some(properties)) =
            (self.document.get(id, "required"), self.document.get(id, "properties"))
        else {
            return Ok(());
        };
        let names = self.names(id, "required", required)?;
        let members = self.map(id, "properties", properties)?;
        let named: HashSet<&str> = names.iter().map(|name| &**name).collect();
        ways.retain(|way| {
            let place = if let [Step::Keyword(at, i, false)] = way.as_slice() { Some((*at, *i)) } else { None };
            let name = place.and_then(|(at, i)| self.document.members(at).get(i)).map(|(name, _)| &**name);
            !matches!(name, Some("required" | "properties"))
        });
        for name in names.iter().filter(|name| self.document.get(properties, name).is_none()) {
            ways.push(vec![Step::Types(OBJECT), Step::Forbidden(Rc::clone(name))]);
        }
        for (name, schema) in members {
            let (name, literal): (Rc<str>, _) = (name.as_ref().into(), Literal::Schema(*schema, false));
            let mut way = vec![Step::Types(OBJECT), Step::Member(Rc::clone(&name), literal)];
            if !named.contains(&*name) {
                way.push(Step::Required(name));
            }
            ways.push(way);
        }
        Ok(())
    }

    fn value(&mut self, id: Id, positive: bool, branch: &mut Branch) -> Outcome {
        if !positive {
            branch.not.push(id);
            return NOTHING;
        }
        match self.document.kind(id) {
            Kind::Array(values) => {
                branch.types &= ARRAY;
                branch.arrays.push(Group::Value(id));
                let n = Some(values.len() as u64);
                branch.count(Count::MinItems, n);
                branch.count(Count::MaxItems, n);
            }
            Kind::Object(members) => {
                branch.types &= OBJECT;
                branch.objects.push(Group::Value(id));
                members.iter().for_each(|(name, _)| branch.required.add(name.as_ref().into()));
            }
            _ => branch.one_of(self.document, &[id]),
        }
        NOTHING
    }

    pub(super) fn wrong<T>(&self, at: Id, keyword: &str, value: Id, expected: &str) -> Result<T, String> {
        Err(format!("{}: \"{keyword}\" is {} where {expected}", self.document.path(at), self.document.shown(value)))
    }

    pub(super) fn list(&self, at: Id, keyword: &str, value: Id) -> Result<&'a [Id], String> {
        match self.document.kind(value) {
            Kind::Array(values) => Ok(values),
            _ => self.wrong(at, keyword, value, "a list is expected"),
        }
    }

    pub(super) fn names(&self, at: Id, keyword: &str, value: Id) -> Result<Vec<Rc<str>>, String> {
        let name = |id: &Id| match self.document.text(*id) {
            Some(text) => Ok(text.into()),
            None => self.wrong(at, keyword, *id, "a name is expected"),
        };
        self.list(at, keyword, value)?.iter().map(name).collect()
    }

    fn number(&self, at: Id, keyword: &str, value: Id) -> Result<Decimal, String> {
        let Kind::Number(text) = self.document.kind(value) else {
            return self.wrong(at, keyword, value, "a number is expected");
        };
        Decimal::of(text).ok_or_else(|| {
            let path = self.document.path(at);
            format!("{path}: \"{keyword}\": {} has more than {MAX_DIGITS} digits without an exponent", shortened(text))
        })
    }

    fn count(&self, at: Id, keyword: &str, value: Id) -> Result<u64, String> {
        let count = self.number(at, keyword, value)?;
        match count.is_integer() && !count.negative {
            true => Ok(count.scaled(0).and_then(|n| u64::try_from(n).ok()).unwrap_or(u64::MAX)),
            false => self.wrong(at, keyword, value, "a count is expected"),
        }
    }

    pub(super) fn map(&self, at: Id, keyword: &str, value: Id) -> Result<&'a [(Box<str>, Id)], String> {
        match self.document.kind(value) {
            Kind::Object(members) => Ok(members),
            _ => self.wrong(at, keyword, value, "an object is expected"),
        }
    }

    fn keyword(&mut self, at: Id, i: usize, positive: bool, branch: &mut Branch) -> Result<Outcome, String> {
        let Some((name, value)) = self.document.members(at).get(i) else { return Ok(NOTHING) };
        let (name, value): (&str, Id) = (name, *value);
        let is = |id: Id| Step::Is(Literal::Schema(id, true));
        let is_not = |id: Id| Step::Is(Literal::Schema(id, false));
        let each = |ids: &[Id], step: fn(Id) -> Step| ids.iter().map(|id| step(*id)).collect::<Vec<_>>();
        let ways = |steps: Vec<Step>| Outcome::Choose(steps.into_iter().map(|step| vec![step]).collect());
        let one = |step: Step| Ok(Outcome::Then(vec![step]));
        if let Some(count) = Count::of(name) {
            let limit = self.count(at, name, value)?;
            if positive {
                return one(Step::Count(count, Some(limit)));
            }
            let (count, limit) = count.negated(limit);
            return Ok(Outcome::Then(vec![Step::Types(count.types()), Step::Count(count, limit)]));
        }
        Ok(match (name, positive) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", _) => {
                let target = reference::resolve(self.document, value)?;
                Outcome::Then(vec![Step::Is(Literal::Schema(target, positive))])
            }
            ("type", _) => {
                let (types, as_integer) = self.types(at, value)?;
                branch.as_integer |= positive && as_integer;
                Outcome::Then(vec![Step::Types(if positive { types } else { ALL & !types })])
            }
            ("const", _) => {
                self.comparable(at, name, value)?;
                Outcome::Then(vec![Step::Is(Literal::Value(value, positive))])
            }
            ("enum", _) => {
                let values = self.list(at, name, value)?.to_vec();
                values.iter().try_for_each(|v| self.comparable(at, name, *v))?;
                let is_scalar = |v: &Id| !matches!(self.document.kind(*v), Kind::Array(_) | Kind::Object(_));
                let (scalars, others): (Vec<Id>, Vec<Id>) = values.into_iter().partition(is_scalar);
                if !positive {
                    let all = scalars.into_iter().chain(others);
                    return Ok(Outcome::Then(all.map(|v| Step::Is(Literal::Value(v, false))).collect()));
                }
                if others.is_empty() {
                    branch.one_of(self.document, &scalars);
                    return Ok(NOTHING);
                }
                let scalars = scalars.into_iter().chain(others);
                ways(scalars.map(|v| Step::Is(Literal::Value(v, true))).collect())
            }
            ("allOf", true) => Outcome::Then(each(self.list(at, name, value)?, is)),
            ("allOf", false) => ways(each(self.list(at, name, value)?, is_not)),
            ("anyOf", true) => ways(each(self.list(at, name, value)?, is)),
            ("anyOf", false) => Outcome::Then(each(self.list(at, name, value)?, is_not)),
            ("oneOf", _) => {
                let schemas = self.list(at, name, value)?.to_vec();
                if positive && self.discriminated(&schemas, branch.types == OBJECT)? {
                    return Ok(ways(each(&schemas, is)));
                }
                Outcome::Choose(self.one_of(&schemas, positive)?)
            }
            ("not", true) => Outcome::Then(vec![is_not(value)]),
            ("not", false) => Outcome::Then(vec![is(value)]),
            ("if", _) => {
                let way = |key: &str, condition: Step| match self.document.get(at, key) {
                    Some(schema) => Some(vec![condition, Step::Is(Literal::Schema(schema, positive))]),
                    None if positive => Some(vec![condition]),
                    None => None,
                };
                let both = [way("then", is(value)), way("else", is_not(value))];
                match positive && self.document.get(at, "then").or(self.document.get(at, "else")).is_none() {
                    true => NOTHING,
                    false => Outcome::Choose(both.into_iter().flatten().collect()),
                }
            }
            // The drafts from 2019 on have two others in its place.
            ("dependencies", _) if self.dialect == Dialect::Since2019 => {
                Outcome::Then(if positive { vec![] } else { vec![Step::Never] })
            }
            ("dependentRequired" | "dependentSchemas" | "dependencies", _) => {
                return self.dependencies(at, i, positive, branch);
            }
            ("minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum", _) => {
                return self.bound(at, name, value, positive);
            }
            ("multipleOf", _) => {
                let number = self.number(at, name, value)?;
                if number.is_zero() || number.negative {
                    return self.wrong(at, name, value, "a number above 0 is expected");
                }
                branch.multiples.push((value, positive));
                Outcome::Then(vec![Step::Types(if positive { ALL } else { NUMBER })])
            }
            ("pattern" | "format", _) => {
                let Some(text) = self.document.text(value) else {
                    return self.wrong(at, name, value, "a text is expected");
                };
                if name == "format" && pattern::format(text).is_none() {
                    // Others are annotations, with which everything is valid.
                    return Ok(Outcome::Then(if positive { vec![] } else { vec![Step::Never] }));
                }
                branch.texts.push((value, positive));
                Outcome::Then(vec![Step::Types(if positive { ALL } else { STRING })])
            }
            ("required", true) => Outcome::Then(self.names(at, name, value)?.into_iter().map(Step::Required).collect()),
            ("required", false) => {
                let names = self.names(at, name, value)?.into_iter();
                Outcome::Choose(names.map(|name| vec![Step::Types(OBJECT), Step::Forbidden(name)]).collect())
            }
            ("properties" | "patternProperties" | "additionalProperties", true) => {
                if name != "additionalProperties" {
                    self.map(at, name, value)?;
                }
                if !branch.objects.contains(&Group::Schema(at)) {
                    branch.objects.push(Group::Schema(at));
                }
                NOTHING
            }
            ("properties", false) => {
                let members = self.map(at, name, value)?.iter();
                let way = |name: &str, schema: Id| {
                    let (name, literal): (Rc<str>, _) = (name.into(), Literal::Schema(schema, false));
                    vec![Step::Types(OBJECT), Step::Required(Rc::clone(&name)), Step::Member(name, literal)]
                };
                Outcome::Choose(members.map(|(name, schema)| way(name, *schema)).collect())
            }
            ("prefixItems" | "items" | "additionalItems", true) => {
                if !branch.arrays.contains(&Group::Schema(at)) {
                    branch.arrays.push(Group::Schema(at));
                }
                NOTHING
            }
            ("prefixItems", false) => {
                let schemas = self.list(at, name, value)?;
                let way = |(i, schema): (usize, &Id)| {
                    let least = Step::Count(Count::MinItems, Some(i as u64 + 1));
                    vec![Step::Types(ARRAY), least, Step::Item(i, Literal::Schema(*schema, false))]
                };
                Outcome::Choose(schemas.iter().enumerate().map(way).collect())
            }
            ("items", false) if matches!(self.document.kind(value), Kind::Bool(false)) => {
                let n =
                    self.document.get(at, "prefixItems").map_or(Ok(0), |v| self.list(at, name, v).map(<[Id]>::len))?;
                Outcome::Then(vec![Step::Types(ARRAY), Step::Count(Count::MinItems, Some(n as u64 + 1))])
            }
            ("propertyNames", true) => {
                branch.names.push(Literal::Schema(value, true));
                NOTHING
            }
            ("uniqueItems", _) if matches!(self.document.kind(value), Kind::Bool(false)) => {
                Outcome::Then(if positive { vec![] } else { vec![Step::Never] })
            }
            ("contains", _) if self.contains_nothing(at)? => {
                Outcome::Then(if positive { vec![] } else { vec![Step::Never] })
            }
            ("x-guidance", _) => {
                let path = self.document.path(at);
                return Err(format!("{path}: \"x-guidance\" is not supported; output without white space has a flag"));
            }
            _ => return Ok(self.other(at, name, value, positive)),
        })
    }

    /// Keywords that are refused where they matter, and names that are none.
    fn other(&self, at: Id, name: &str, value: Id, positive: bool) -> Outcome {
        const REFUSED: [(&str, u8); 9] = [
            ("uniqueItems", ARRAY),
            ("contains", ARRAY),
            ("unevaluatedItems", ARRAY),
            ("unevaluatedProperties", OBJECT),
            // Only their opposites come here.
            ("items", ARRAY),
            ("additionalItems", ARRAY),
            ("additionalProperties", OBJECT),
            ("patternProperties", OBJECT),
            ("propertyNames", OBJECT),
        ];
        let everything = match self.document.kind(value) {
            Kind::Bool(value) => *value && name != "uniqueItems",
            Kind::Object(members) => members.is_empty(),
            _ => false,
        };
        match REFUSED.iter().find(|(refused, _)| *refused == name) {
            Some((keyword, types)) if !everything => {
                let mut steps = vec![Step::Refuse(*types, at, keyword)];
                if !positive {
                    steps.push(Step::Types(*types));
                }
                if !positive && name == "uniqueItems" {
                    // Of one item none is like another.
                    steps.push(Step::Count(Count::MinItems, Some(2)));
                }
                Outcome::Then(steps)
            }
            Some(_) if name == "contains" => Outcome::Then(vec![Step::Refuse(ARRAY, at, "contains")]),
            // An annotation; everything is valid with it.
            _ => Outcome::Then(if positive { vec![] } else { vec![Step::Never] }),
        }
    }

    /// Whether the `contains` of a schema asks for nothing.
    fn contains_nothing(&self, at: Id) -> Result<bool, String> {
        let least = self.document.get(at, "minContains").map(|v| self.count(at, "minContains", v)).transpose()?;
        Ok(least == Some(0) && self.document.get(at, "maxContains").is_none())
    }

    fn types(&self, at: Id, value: Id) -> Result<(u8, bool), String> {
        let names = match self.document.kind(value) {
            Kind::Array(values) => values.as_slice(),
            _ => &[value],
        };
        let (mut types, mut whole, mut any) = (0, false, false);
        for id in names {
            types |= match self.document.text(*id) {
                Some("null") => NULL,
                Some("boolean") => BOOL,
                Some("integer") => {
                    whole = true;
                    INTEGER
                }
                Some("number") => {
                    any = true;
                    NUMBER
                }
                Some("string") => STRING,
                Some("array") => ARRAY,
                Some("object") => OBJECT,
                _ => return self.wrong(at, "type", *id, "the name of a type is expected"),
            };
        }
        Ok((types, whole && !any))
    }

    /// A value that stands for itself has numbers only that can be told from others.
    fn comparable(&self, at: Id, keyword: &str, value: Id) -> Result<(), String> {
        let mut open = vec![value];
        while let Some(id) = open.pop() {
            match self.document.kind(id) {
                Kind::Number(_) => drop(self.number(at, keyword, id)?),
                Kind::Array(values) => open.extend(values),
                Kind::Object(members) => open.extend(members.iter().map(|(_, v)| *v)),
                _ => {}
            }
        }
        Ok(())
    }

    fn bound(&mut self, at: Id, name: &str, value: Id, positive: bool) -> Result<Outcome, String> {
        let lower = matches!(name, "minimum" | "exclusiveMinimum");
        let exclusive = name.starts_with("exclusive");
        if exclusive && let Kind::Bool(_) = self.document.kind(value) {
            // Draft 4: it belongs to the other one.
            return Ok(Outcome::Then(if positive { vec![] } else { vec![Step::Never] }));
        }
        let other = self.document.get(at, if lower { "exclusiveMinimum" } else { "exclusiveMaximum" });
        let strict = exclusive || other.is_some_and(|id| matches!(self.document.kind(id), Kind::Bool(true)));
        let bound = Bound { at: self.number(at, name, value)?, strict: strict == positive };
        let step = if lower == positive { Step::Low(bound) } else { Step::High(bound) };
        Ok(Outcome::Then(vec![Step::Types(if positive { ALL } else { NUMBER }), step]))
    }
}
