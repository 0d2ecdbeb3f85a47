//! Checks of a description's numbers.

use crate::error::{Error, Result};

/// Fails with `Model` where `ok` does not hold.
pub(super) fn check(ok: bool, name: &str, found: &dyn ToString, expected: &dyn Fn() -> String) -> Result<()> {
    match ok {
        true => Ok(()),
        false => Err(Error::Model { name: name.into(), found: found.to_string(), expected: expected() }),
    }
}

/// A size of at least 1.
pub(super) fn in_range(name: &str, size: usize, limit: usize) -> Result<()> {
    check((1..=limit).contains(&size), name, &size, &|| format!("1 to {limit}"))
}

/// A number that divides or multiplies.
pub(super) fn positive(name: &str, value: f32) -> Result<()> {
    check(value.is_finite() && value > 0.0, name, &value, &|| "positive and finite".into())
}
