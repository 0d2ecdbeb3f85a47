//! Each keyword's meaning, and that of its opposite.
//!
//! Where a keyword's opposite cannot be told by a grammar, a branch notes it and is refused only where a value of that type is
//! left in it.

use std::rc::Rc;

use super::branch::{ALL, ARRAY, Branch, Count, Group, Literal, NUMBER, OBJECT, STRING};
use super::expand::{NOTHING, Outcome, Step};
use super::json::{Id, Kind};
use super::number::Bound;
use super::pattern;
use super::rules::{Compiler, Dialect};

/// A keyword in a schema.
#[derive(Clone, Copy)]
struct Keyword<'a> {
    /// The schema.
    at: Id,
    name: &'a str,
    value: Id,
    /// Whether it holds, or its opposite.
    positive: bool,
}

fn is(id: Id) -> Step {
    Step::Is(Literal::Schema(id, true))
}

fn is_not(id: Id) -> Step {
    Step::Is(Literal::Schema(id, false))
}

fn each(ids: &[Id], step: fn(Id) -> Step) -> Vec<Step> {
    ids.iter().map(|id| step(*id)).collect()
}

/// One of these.
fn ways(steps: Vec<Step>) -> Outcome {
    Outcome::Choose(steps.into_iter().map(|step| vec![step]).collect())
}

/// What everything is valid with, or its opposite.
fn annotation(positive: bool) -> Outcome {
    Outcome::Then(if positive { vec![] } else { vec![Step::Never] })
}

impl<'a> Compiler<'a> {
    /// A keyword of a schema by its place among the members, or its opposite.
    pub(super) fn keyword(
        &mut self,
        at: Id,
        place: usize,
        positive: bool,
        branch: &mut Branch,
    ) -> Result<Outcome, String> {
        let Some((name, value)) = self.document.members(at).get(place) else { return Ok(NOTHING) };
        let (name, value): (&'a str, Id) = (name, *value);
        if let Some(count) = Count::of(name) {
            let limit = self.count(at, name, value)?;
            if positive {
                return Ok(Outcome::Then(vec![Step::Count(count, Some(limit))]));
            }
            let (count, limit) = count.negated(limit);
            return Ok(Outcome::Then(vec![Step::Types(count.types()), Step::Count(count, limit)]));
        }
        let keyword = Keyword { at, name, value, positive };
        match name {
            "$ref" | "$dynamicRef" | "$recursiveRef" => {
                let target = self.references.resolve(value)?;
                Ok(Outcome::Then(vec![Step::Is(Literal::Schema(target, positive))]))
            }
            "allOf" | "anyOf" | "oneOf" | "not" | "if" => self.of_schemas(keyword, branch),
            // The drafts from 2019 on have two others in its place.
            "dependencies" if self.dialect == Dialect::Since2019 => Ok(annotation(positive)),
            "dependentRequired" | "dependentSchemas" | "dependencies" => self.dependencies(at, place, positive, branch),
            "type" | "const" | "enum" => self.of_values(keyword, branch),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => self.bound(at, name, value, positive),
            "multipleOf" | "pattern" | "format" => self.of_scalars(keyword, branch),
            "required" | "properties" | "patternProperties" | "additionalProperties" | "propertyNames" => {
                self.of_objects(keyword, branch)
            }
            "prefixItems" | "items" | "additionalItems" | "uniqueItems" | "contains" => self.of_arrays(keyword, branch),
            "x-guidance" => {
                let path = self.document.path(at);
                Err(format!("{path}: \"x-guidance\" is not supported; output without white space has a flag"))
            }
            _ => Ok(self.other(at, name, value, positive)),
        }
    }

    fn of_schemas(&mut self, keyword: Keyword<'_>, branch: &Branch) -> Result<Outcome, String> {
        let Keyword { at, name, value, positive } = keyword;
        Ok(match (name, positive) {
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
            // "if".
            _ => {
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
        })
    }

    fn of_values(&mut self, keyword: Keyword<'_>, branch: &mut Branch) -> Result<Outcome, String> {
        let Keyword { at, name, value, positive } = keyword;
        match name {
            "type" => {
                let (types, as_integer) = self.types(at, value)?;
                branch.as_integer |= positive && as_integer;
                Ok(Outcome::Then(vec![Step::Types(if positive { types } else { ALL & !types })]))
            }
            "const" => {
                self.comparable(at, name, value)?;
                Ok(Outcome::Then(vec![Step::Is(Literal::Value(value, positive))]))
            }
            // "enum".
            _ => {
                let values = self.list(at, name, value)?.to_vec();
                values.iter().try_for_each(|v| self.comparable(at, name, *v))?;
                let is_scalar = |v: &Id| !matches!(self.document.kind(*v), Kind::Array(_) | Kind::Object(_));
                let (scalars, others): (Vec<Id>, Vec<Id>) = values.into_iter().partition(is_scalar);
                if positive && others.is_empty() {
                    branch.one_of(self.document, &scalars);
                    return Ok(NOTHING);
                }
                let all = scalars.into_iter().chain(others).map(|v| Step::Is(Literal::Value(v, positive))).collect();
                Ok(if positive { ways(all) } else { Outcome::Then(all) })
            }
        }
    }

    fn of_scalars(&mut self, keyword: Keyword<'_>, branch: &mut Branch) -> Result<Outcome, String> {
        let Keyword { at, name, value, positive } = keyword;
        if name == "multipleOf" {
            let number = self.number(at, name, value)?;
            if number.is_zero() || number.negative {
                return self.wrong(at, name, value, "a number above 0 is expected");
            }
            branch.multiples.push((value, positive));
            return Ok(Outcome::Then(vec![Step::Types(if positive { ALL } else { NUMBER })]));
        }
        let Some(text) = self.document.text(value) else {
            return self.wrong(at, name, value, "a text is expected");
        };
        if name == "format" && pattern::format(text).is_none() {
            // Others are annotations, with which everything is valid.
            return Ok(annotation(positive));
        }
        branch.texts.push((value, positive));
        Ok(Outcome::Then(vec![Step::Types(if positive { ALL } else { STRING })]))
    }

    fn of_objects(&mut self, keyword: Keyword<'_>, branch: &mut Branch) -> Result<Outcome, String> {
        let Keyword { at, name, value, positive } = keyword;
        Ok(match (name, positive) {
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
            ("propertyNames", true) => {
                branch.names.push(Literal::Schema(value, true));
                NOTHING
            }
            _ => self.other(at, name, value, positive),
        })
    }

    fn of_arrays(&mut self, keyword: Keyword<'_>, branch: &mut Branch) -> Result<Outcome, String> {
        let Keyword { at, name, value, positive } = keyword;
        Ok(match (name, positive) {
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
            ("uniqueItems", _) if matches!(self.document.kind(value), Kind::Bool(false)) => annotation(positive),
            ("contains", _) if self.contains_nothing(at)? => annotation(positive),
            _ => self.other(at, name, value, positive),
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
            _ => annotation(positive),
        }
    }

    /// Whether the `contains` of a schema asks for nothing.
    fn contains_nothing(&self, at: Id) -> Result<bool, String> {
        let least = self.document.get(at, "minContains").map(|v| self.count(at, "minContains", v)).transpose()?;
        Ok(least == Some(0) && self.document.get(at, "maxContains").is_none())
    }

    fn bound(&mut self, at: Id, name: &str, value: Id, positive: bool) -> Result<Outcome, String> {
        let lower = matches!(name, "minimum" | "exclusiveMinimum");
        let exclusive = name.starts_with("exclusive");
        if exclusive && let Kind::Bool(_) = self.document.kind(value) {
            // Draft 4: it belongs to the other one.
            return Ok(annotation(positive));
        }
        let other = self.document.get(at, if lower { "exclusiveMinimum" } else { "exclusiveMaximum" });
        let strict = exclusive || other.is_some_and(|id| matches!(self.document.kind(id), Kind::Bool(true)));
        let bound = Bound { at: self.number(at, name, value)?, strict: strict == positive };
        let step = if lower == positive { Step::Low(bound) } else { Step::High(bound) };
        Ok(Outcome::Then(vec![Step::Types(if positive { ALL } else { NUMBER }), step]))
    }
}
