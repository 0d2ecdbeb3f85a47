//! What holds for one value at once: a conjunction of schemas, taken apart where one of several may hold.

use std::collections::HashSet;
use std::rc::Rc;

use super::decimal::Decimal;
use super::json::{Document, Id, Kind};
use super::number::Bound;

/// Types, as bits. An integer and a number that is none are kept apart.
pub(super) const NULL: u8 = 1;
pub(super) const BOOL: u8 = 2;
pub(super) const INTEGER: u8 = 4;
pub(super) const FRACTION: u8 = 8;
pub(super) const NUMBER: u8 = INTEGER | FRACTION;
pub(super) const STRING: u8 = 16;
pub(super) const ARRAY: u8 = 32;
pub(super) const OBJECT: u8 = 64;
pub(super) const ALL: u8 = 127;

/// Something that a value is held to: a schema, or that it equals a value; or, with `false`, that it is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Literal {
    Schema(Id, bool),
    Value(Id, bool),
}

impl Literal {
    pub(super) fn negated(self) -> Literal {
        match self {
            Literal::Schema(id, positive) => Literal::Schema(id, !positive),
            Literal::Value(id, positive) => Literal::Value(id, !positive),
        }
    }
}

/// All of these hold.
pub(super) type Conjunction = Vec<Literal>;

/// A scalar's value, for comparing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(Decimal),
    Text(&'a str),
}

impl<'a> Scalar<'a> {
    /// `None`: an array, an object, or a number that cannot be compared.
    pub(super) fn of(document: &'a Document, id: Id) -> Option<Scalar<'a>> {
        Some(match document.kind(id) {
            Kind::Null => Scalar::Null,
            Kind::Bool(value) => Scalar::Bool(*value),
            Kind::Number(text) => Scalar::Number(Decimal::of(text)?),
            Kind::String(text) => Scalar::Text(text),
            _ => return None,
        })
    }
}

/// The type of a value, as a bit.
pub(super) fn type_of(document: &Document, id: Id) -> u8 {
    match document.kind(id) {
        Kind::Null => NULL,
        Kind::Bool(_) => BOOL,
        Kind::Number(text) if Decimal::of(text).is_some_and(|d| !d.is_integer()) => FRACTION,
        Kind::Number(_) => INTEGER,
        Kind::String(_) => STRING,
        Kind::Array(_) => ARRAY,
        Kind::Object(_) => OBJECT,
    }
}

/// What members or items are told by: a schema's keywords, or a value that all has to equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Schema(Id),
    Value(Id),
}

/// A conjunction in which nothing is left to choose, of keywords as they are met.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) types: u8,
    /// The type is "integer": a number is written as digits even where the schema writes `1.0`.
    pub(super) as_integer: bool,
    /// One of these scalars, where there is a list.
    pub(super) only: Option<Vec<Id>>,
    /// None of these values.
    pub(super) not: Vec<Id>,
    pub(super) low: Option<Bound>,
    pub(super) high: Option<Bound>,
    /// Values of `multipleOf`, and whether they divide.
    pub(super) multiples: Vec<(Id, bool)>,
    pub(super) min_length: u64,
    pub(super) max_length: Option<u64>,
    /// Values of `pattern` and `format`, and whether they match.
    pub(super) texts: Vec<(Id, bool)>,
    pub(super) arrays: Vec<Group>,
    pub(super) min_items: u64,
    pub(super) max_items: Option<u64>,
    /// What else holds for the item in a place.
    pub(super) items: Vec<(usize, Literal)>,
    pub(super) objects: Vec<Group>,
    pub(super) required: Names,
    pub(super) forbidden: Names,
    /// What else holds for the member of a name.
    pub(super) members: Vec<(Rc<str>, Literal)>,
    pub(super) names: Conjunction,
    pub(super) min_members: u64,
    pub(super) max_members: Option<u64>,
    /// Keywords that are not supported for some types: these, the schema, the keyword.
    pub(super) refused: Vec<(u8, Id, &'static str)>,
    pub(super) seen: HashSet<Literal>,
}

/// Names in the order of the text, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    list: Vec<Rc<str>>,
    set: HashSet<Rc<str>>,
}

impl Names {
    pub(super) fn add(&mut self, name: Rc<str>) {
        if self.set.insert(Rc::clone(&name)) {
            self.list.push(name);
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.set.contains(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<str>> {
        self.list.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
}

/// The smaller one, where there is one already.
fn least(a: Option<u64>, b: u64) -> Option<u64> {
    Some(a.map_or(b, |a| a.min(b)))
}

impl Branch {
    pub(super) fn new() -> Branch {
        Branch {
            types: ALL,
            as_integer: false,
            only: None,
            not: Vec::new(),
            low: None,
            high: None,
            multiples: Vec::new(),
            min_length: 0,
            max_length: None,
            texts: Vec::new(),
            arrays: Vec::new(),
            min_items: 0,
            max_items: None,
            items: Vec::new(),
            objects: Vec::new(),
            required: Names::default(),
            forbidden: Names::default(),
            members: Vec::new(),
            names: Vec::new(),
            min_members: 0,
            max_members: None,
            refused: Vec::new(),
            seen: HashSet::new(),
        }
    }

    pub(super) fn at_least(&mut self, bound: Bound) {
        let tighter = |old: &Bound| bound.at > old.at || bound.at == old.at && bound.strict;
        if self.low.as_ref().is_none_or(tighter) {
            self.low = Some(bound);
        }
    }

    pub(super) fn at_most(&mut self, bound: Bound) {
        let tighter = |old: &Bound| bound.at < old.at || bound.at == old.at && bound.strict;
        if self.high.as_ref().is_none_or(tighter) {
            self.high = Some(bound);
        }
    }

    /// Holds a count to a limit from below or above; `None`: below 0.
    pub(super) fn count(&mut self, what: Count, limit: Option<u64>) {
        let Some(limit) = limit else {
            self.types = 0;
            return;
        };
        match what {
            Count::MinLength => self.min_length = self.min_length.max(limit),
            Count::MaxLength => self.max_length = least(self.max_length, limit),
            Count::MinItems => self.min_items = self.min_items.max(limit),
            Count::MaxItems => self.max_items = least(self.max_items, limit),
            Count::MinMembers => self.min_members = self.min_members.max(limit),
            Count::MaxMembers => self.max_members = least(self.max_members, limit),
        }
    }

    /// Holds it to one of these scalars.
    pub(super) fn one_of(&mut self, document: &Document, values: &[Id]) {
        let kept = match &self.only {
            None => values.to_vec(),
            Some(old) => {
                let set: HashSet<Scalar> = values.iter().filter_map(|v| Scalar::of(document, *v)).collect();
                old.iter().copied().filter(|v| Scalar::of(document, *v).is_some_and(|v| set.contains(&v))).collect()
            }
        };
        self.types &= kept.iter().fold(0, |types, v| types | type_of(document, *v));
        self.only = Some(kept);
    }

    /// Takes off the types for which nothing is left.
    pub(super) fn settle(&mut self) {
        let crossed = |low: u64, high: Option<u64>| high.is_some_and(|high| low > high);
        if let (Some(low), Some(high)) = (&self.low, &self.high)
            && (low.at > high.at || low.at == high.at && (low.strict || high.strict))
        {
            self.types &= !NUMBER;
        }
        if crossed(self.min_length, self.max_length) {
            self.types &= !STRING;
        }
        if crossed(self.min_items, self.max_items) {
            self.types &= !ARRAY;
        }
        let least = self.min_members.max(self.required.len() as u64);
        if crossed(least, self.max_members) || self.required.iter().any(|name| self.forbidden.has(name)) {
            self.types &= !OBJECT;
        }
    }

    /// How much it is to copy.
    pub(super) fn weight(&self) -> u64 {
        let lists = self.required.len() + self.forbidden.len() + self.members.len() + self.seen.len() + self.not.len();
        (20 + lists + self.only.as_ref().map_or(0, Vec::len)) as u64
    }
}

/// What is counted, and from which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    MinLength,
    MaxLength,
    MinItems,
    MaxItems,
    MinMembers,
    MaxMembers,
}

impl Count {
    /// That of a keyword.
    pub(super) fn of(keyword: &str) -> Option<Count> {
        Some(match keyword {
            "minLength" => Count::MinLength,
            "maxLength" => Count::MaxLength,
            "minItems" => Count::MinItems,
            "maxItems" => Count::MaxItems,
            "minProperties" => Count::MinMembers,
            "maxProperties" => Count::MaxMembers,
            _ => return None,
        })
    }

    pub(super) fn types(self) -> u8 {
        match self {
            Count::MinLength | Count::MaxLength => STRING,
            Count::MinItems | Count::MaxItems => ARRAY,
            Count::MinMembers | Count::MaxMembers => OBJECT,
        }
    }

    /// Where it does not hold, this does.
    pub(super) fn negated(self, limit: u64) -> (Count, Option<u64>) {
        match self {
            Count::MinLength => (Count::MaxLength, limit.checked_sub(1)),
            Count::MinItems => (Count::MaxItems, limit.checked_sub(1)),
            Count::MinMembers => (Count::MaxMembers, limit.checked_sub(1)),
            Count::MaxLength => (Count::MinLength, limit.checked_add(1)),
            Count::MaxItems => (Count::MinItems, limit.checked_add(1)),
            Count::MaxMembers => (Count::MinMembers, limit.checked_add(1)),
        }
    }
}
