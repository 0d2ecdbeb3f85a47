//! What every reader of JSON schemas goes by: the largest count, and how an error shows what it refuses.

use std::fmt;

/// The most that a count of characters, items or members may be.
pub(crate) const MAX_COUNT: u64 = 2_000_000_000;

/// A value as an error shows it: in one line, cut where it is long.
pub(crate) enum Shown<'v> {
    /// `null`, `true`, `false`, or a number's digits.
    Plain(&'v str),
    String(&'v str),
    /// So many values.
    Array(usize),
    /// So many members.
    Object(usize),
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(&shortened(text)),
            Self::String(text) => write!(f, "{}", serde_json::Value::from(shortened(text))),
            Self::Array(0) => f.write_str("[]"),
            Self::Object(0) => f.write_str("{}"),
            Self::Array(n) => write!(f, "an array of {n} values"),
            Self::Object(n) => write!(f, "an object of {n} members"),
        }
    }
}

/// At most some 80 characters of it.
pub(crate) fn shortened(text: &str) -> String {
    if text.chars().nth(80).is_none() { text.to_owned() } else { text.chars().take(60).collect::<String>() + "..." }
}
