//! Output held to a grammar: what its text may cost, what it compiles to, and what it allows next.

mod constraint;
mod cost;
mod lark;
mod schema_cost;

pub use constraint::Grammar;
pub(in crate::engine) use constraint::{Constraint, Grammars, nothing_left};
pub use cost::MAX_GRAMMAR_BYTES;
