//! The names that a rendering has given values, by the blocks that they hold in.

use super::ast::Symbol;
use super::fault::Done;
use super::meter::Meter;
use super::value::Value;

/// The scope of the template itself.
pub(super) const ROOT: usize = 0;

/// Names of a block.
#[derive(Debug)]
struct Scope {
    parent: usize,
    values: Vec<(Symbol, Value)>,
    /// A macro may still look into it.
    captured: bool,
}

/// All of them, the inner behind the outer ones.
#[derive(Debug)]
pub(super) struct Scopes {
    scopes: Vec<Scope>,
}

impl Scopes {
    pub fn new() -> Scopes {
        Scopes { scopes: vec![Scope { parent: ROOT, values: Vec::new(), captured: true }] }
    }

    /// Begins one in another.
    pub fn open(&mut self, parent: usize, meter: &Meter) -> Done<usize> {
        meter.charge(64)?;
        self.scopes.push(Scope { parent, values: Vec::new(), captured: false });
        Ok(self.scopes.len() - 1)
    }

    /// Ends one, which stays while a macro may look into it.
    pub fn close(&mut self, scope: usize, meter: &Meter) -> Done<()> {
        while self.scopes.len() > scope && self.scopes.last().is_some_and(|scope| !scope.captured) {
            self.scopes.pop();
        }
        if self.scopes.len() > scope { meter.make(128) } else { Ok(()) }
    }

    /// Keeps a scope and those around it.
    pub fn capture(&mut self, scope: usize) {
        let mut at = scope;
        while let Some(scope) = self.scopes.get_mut(at).filter(|scope| !scope.captured) {
            scope.captured = true;
            at = scope.parent;
        }
    }

    pub fn get(&self, scope: usize, symbol: Symbol) -> Option<&Value> {
        let mut at = scope;
        loop {
            let scope = self.scopes.get(at)?;
            if let Some((_, value)) = scope.values.iter().find(|(s, _)| *s == symbol) {
                return Some(value);
            }
            if at == ROOT {
                return None;
            }
            at = scope.parent;
        }
    }

    pub fn set(&mut self, scope: usize, symbol: Symbol, value: Value, meter: &Meter) -> Done<()> {
        let Some(scope) = self.scopes.get_mut(scope) else { return Ok(()) };
        match scope.values.iter_mut().find(|(s, _)| *s == symbol) {
            Some(entry) => entry.1 = value,
            None => {
                meter.make(64)?;
                scope.values.push((symbol, value));
            }
        }
        Ok(())
    }

    /// Forgets what a scope has.
    pub fn clear(&mut self, scope: usize) {
        if let Some(scope) = self.scopes.get_mut(scope) {
            scope.values.clear();
        }
    }
}
