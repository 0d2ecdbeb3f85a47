//! Why a template is no template, or a rendering ends.

/// What went wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// What Jinja or Python raises, in its words.
    Raised(String),
    /// It takes too much.
    Costly(String),
    /// Something that Jinja has, and that is not done here.
    Unsupported(String),
}

/// What may go wrong.
pub(crate) type Done<T> = Result<T, Fault>;

/// Raises an error with Jinja's or Python's words.
pub(super) fn raise<T>(words: impl Into<String>) -> Done<T> {
    Err(Fault::Raised(words.into()))
}

/// Refuses what is not done here.
pub(super) fn unsupported<T>(what: impl Into<String>) -> Done<T> {
    Err(Fault::Unsupported(what.into()))
}
