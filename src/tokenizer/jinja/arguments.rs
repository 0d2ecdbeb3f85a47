//! The arguments of a call, bound to names as Python does.

use std::sync::Arc;

use super::fault::{Done, raise};
use super::value::Value;

/// What a call is given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments {
    pub positional: Vec<Value>,
    pub named: Vec<(Arc<str>, Value)>,
}

impl Arguments {
    /// Positional ones.
    pub fn of(positional: Vec<Value>) -> Arguments {
        Arguments { positional, named: Vec::new() }
    }

    /// Takes a named one out.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.named.iter().position(|(n, _)| &**n == name)?;
        Some(self.named.remove(at).1)
    }

    /// Those of a function of Python's own, all of which may be left out; `function` is its name in errors, with brackets.
    pub fn bind<const N: usize>(self, function: &str, names: [&str; N]) -> Done<[Option<Value>; N]> {
        let mut bound = [const { None }; N];
        let given = self.positional.len();
        if given > N {
            let (most, plural) = (N + 1, if given == 0 { "was" } else { "were" });
            return raise(format!(
                "{function} takes from 1 to {most} positional arguments but {} {plural} given",
                given + 1
            ));
        }
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            match names.iter().position(|n| *n == &*name).and_then(|at| bound.get_mut(at)) {
                Some(slot @ None) => *slot = Some(value),
                Some(_) => return raise(format!("{function} got multiple values for argument '{name}'")),
                None => return raise(format!("{function} got an unexpected keyword argument '{name}'")),
            }
        }
        Ok(bound)
    }

    /// Those of a method of Python's strings, lists and maps: at least and at most so many, without names.
    pub fn plain(self, method: &str, least: usize, most: usize) -> Done<Vec<Value>> {
        let given = self.positional.len();
        if !self.named.is_empty() {
            return raise(format!("{method}() takes no keyword arguments"));
        }
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        if given < least && least == most {
            return raise(format!("{method} expected {least} argument{}, got {given}", plural(least)));
        }
        if given < least {
            return raise(format!("{method} expected at least {least} argument{}, got {given}", plural(least)));
        }
        if given > most {
            return raise(format!("{method} expected at most {most} argument{}, got {given}", plural(most)));
        }
        Ok(self.positional)
    }

    /// None at all.
    pub fn none(self, method: &str) -> Done<()> {
        if !self.named.is_empty() {
            return raise(format!("{method}() takes no keyword arguments"));
        }
        match self.positional.len() {
            0 => Ok(()),
            n => raise(format!("{method}() takes no arguments ({n} given)")),
        }
    }
}
