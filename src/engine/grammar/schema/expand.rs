//! From a conjunction to its branches, step by step.
//!
//! What something is not held to is the negation of one of its keywords.

use std::collections::HashSet;
use std::rc::Rc;

use super::branch::{ARRAY, Branch, Count, Group, Literal, OBJECT};
use super::json::{Id, Kind};
use super::number::Bound;
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
}
