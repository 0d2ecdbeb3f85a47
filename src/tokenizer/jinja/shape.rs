//! How a template's expressions may look where they stand.

use super::ast::{Expr, Link, Target};
use super::fault::{Done, raise};

/// How a list with commas and without brackets is read.
#[derive(Clone, Copy, Default)]
pub(super) struct Tuple {
    /// Names and constants only.
    pub simple: bool,
    /// No inline `if`.
    pub without_if: bool,
    /// It stands in brackets, and may be empty.
    pub in_brackets: bool,
    /// An attribute may be meant.
    pub with_attributes: bool,
}

/// Whether an expression is a call.
pub(super) fn is_call(expr: &Expr) -> bool {
    matches!(expr, Expr::Chain(_, links) if matches!(links.last(), Some(Link::Call(_))))
}

/// An expression as what is assigned to.
pub(super) fn to_target(expr: Expr) -> Done<Target> {
    let kind = match expr {
        Expr::Name(symbol) => return Ok(Target::Name(symbol)),
        Expr::Tuple(items) => return items.into_iter().map(to_target).collect::<Done<_>>().map(Target::Tuple),
        Expr::Chain(base, links) => match (*base, links.into_iter().next()) {
            (Expr::Name(symbol), Some(Link::Attribute(name))) => return Ok(Target::Attribute(symbol, name)),
            _ => "getattr",
        },
        Expr::List(_) => "list",
        Expr::Map(_) => "dict",
        _ => "const",
    };
    raise(format!("can't assign to '{kind}'"))
}

/// Whether a name is that of a constant.
pub(super) fn is_constant(name: &str) -> bool {
    matches!(name, "true" | "false" | "True" | "False" | "none" | "None")
}
