//! A file's chat templates: the one without a name, and those with names.

use std::sync::Arc;

use once_cell::sync::OnceCell;

use super::owned;
use super::vocab::{CHAT_TEMPLATE, Vocab};
use crate::error::Result;

/// What the template without a name is called where it has to be named.
const DEFAULT: &str = "default";
/// What the template for conversations with tools is called.
const WITH_TOOLS: &str = "tool_use";

/// A template of a file, and what it is compiled to.
pub(super) struct Source<C> {
    /// Its key, and what it is called; the first has no name.
    pub(super) key: Arc<str>,
    pub(super) name: Option<String>,
    pub(super) text: String,
    /// That, once it has been used.
    pub(super) compiled: OnceCell<Arc<C>>,
}

impl<C> Source<C> {
    /// Those of a vocabulary.
    pub(super) fn all(vocab: &Vocab<'_>) -> Result<Vec<Source<C>>> {
        let first = vocab.chat_template.map(|text| (None, text));
        let all = first.into_iter().chain(vocab.chat_templates.iter().map(|(name, text)| (Some(*name), *text)));
        let source = |(name, text): (Option<&str>, &str)| {
            let key = name.map_or_else(|| CHAT_TEMPLATE.to_owned(), |name| format!("{CHAT_TEMPLATE}.{name}"));
            let (name, text) = (name.map(owned).transpose()?, owned(text)?);
            Ok(Source { key: key.into(), name, text, compiled: OnceCell::new() })
        };
        all.map(source).collect()
    }

    /// The one with this name; none, or "default" where none has that name: the one without.
    pub(super) fn find<'s>(all: &'s [Source<C>], name: Option<&str>) -> Option<&'s Source<C>> {
        let find = |name: Option<&str>| all.iter().find(|source| source.name.as_deref() == name);
        find(name).or_else(|| name.filter(|name| *name == DEFAULT).and(find(None)))
    }

    /// The name of the one for conversations with tools, if there is one.
    pub(super) fn with_tools(all: &[Source<C>]) -> Option<&'static str> {
        Source::find(all, Some(WITH_TOOLS)).map(|_| WITH_TOOLS)
    }
}
