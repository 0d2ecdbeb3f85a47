//! A session held to a grammar of its own.

use kigo::engine::{Constraint, Grammar, Session};
use kigo::error::Result;

/// Compiles it and sets it.
pub fn hold(session: &Session, grammar: Grammar<'_>) -> Result<()> {
    session.set_constraint(Some(&Constraint::compile(session.model(), grammar)?))
}
