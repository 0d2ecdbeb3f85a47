//! What keywords are given: read as what each expects, or refused with the path.

use std::rc::Rc;

use super::branch::{ARRAY, BOOL, INTEGER, NULL, NUMBER, OBJECT, STRING};
use super::decimal::{Decimal, MAX_DIGITS};
use super::json::{Id, Kind};
use super::rules::Compiler;
use crate::schema::shortened;

impl<'a> Compiler<'a> {
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

    pub(super) fn number(&self, at: Id, keyword: &str, value: Id) -> Result<Decimal, String> {
        let Kind::Number(text) = self.document.kind(value) else {
            return self.wrong(at, keyword, value, "a number is expected");
        };
        Decimal::of(text).ok_or_else(|| {
            let path = self.document.path(at);
            format!("{path}: \"{keyword}\": {} has more than {MAX_DIGITS} digits without an exponent", shortened(text))
        })
    }

    pub(super) fn count(&self, at: Id, keyword: &str, value: Id) -> Result<u64, String> {
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

    pub(super) fn types(&self, at: Id, value: Id) -> Result<(u8, bool), String> {
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
    pub(super) fn comparable(&self, at: Id, keyword: &str, value: Id) -> Result<(), String> {
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
}
