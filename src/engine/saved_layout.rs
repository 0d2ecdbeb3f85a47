//! Where the parts of a saved session stand, and its checksum, made while its pages are copied: `save.rs` has the table.

use super::hash::Hasher;
use super::saved_pages::SavedPages;
use crate::error::{Error, Result};

/// Bytes in front of the tokens.
pub(super) const HEAD: usize = 192;
/// Where the checksum's range begins.
pub(super) const CHECKED: usize = 32;

/// How much there is of what.
#[derive(Clone, Copy)]
pub(super) struct Counts {
    pub(super) tokens: usize,
    pub(super) biases: usize,
    pub(super) logits: usize,
    pub(super) text: usize,
}

/// Where each part of a blob begins, and where the last ends.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    pub(super) biases: usize,
    pub(super) logits: usize,
    pub(super) text: usize,
    pub(super) marks: usize,
    pub(super) state: usize,
    pub(super) pages: usize,
    pub(super) end: usize,
}

impl Parts {
    /// `None`: such numbers make no blob.
    pub(super) fn of(n: Counts, saved: &SavedPages<'_>) -> Option<Parts> {
        let after =
            |at: usize, n: usize, size: usize| n.checked_mul(size)?.checked_next_multiple_of(64)?.checked_add(at);
        let biases = after(HEAD, n.tokens, 4)?;
        let logits = after(biases, n.biases, 8)?;
        let text = after(logits, n.logits, 4)?;
        let marks = after(text, n.text, 1)?;
        let state = after(marks, saved.n_marks(), 8)?;
        let pages = after(state, saved.state_bytes(), 1)?;
        Some(Parts { biases, logits, text, marks, state, pages, end: saved.end(pages)? })
    }
}

pub(super) fn number(blob: &[u8], at: usize) -> u64 {
    blob[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A refusal with what was found and what would have been right.
pub(super) fn refuse<T>(found: String, expected: String) -> Result<T> {
    Err(Error::Argument { name: "blob", found, expected })
}

/// A blob's checksum in the making.
pub(super) struct Hashed<'a> {
    hasher: Hasher,
    blob: &'a [u8],
    saved: SavedPages<'a>,
    /// So many of its bytes,
    done: usize,
    /// and of its pages.
    n_pages: usize,
}

impl<'a> Hashed<'a> {
    /// The checksum of all but the pages.
    pub(super) fn new(blob: &'a [u8], parts: Parts, saved: SavedPages<'a>) -> Hashed<'a> {
        let mut hasher = Hasher::new(0);
        hasher.feed(&blob[CHECKED..HEAD]);
        let ends = [HEAD, parts.biases, parts.logits, parts.text, parts.marks, parts.state, parts.pages];
        ends.windows(2).for_each(|ends| hasher.feed(&blob[ends[0]..ends[1]]));
        Hashed { hasher, blob, saved, done: parts.pages, n_pages: 0 }
    }

    /// Takes the next page.
    pub(super) fn page(&mut self) -> &'a [u8] {
        // The blob's size has been found to be that of its pages.
        let bytes = self.saved.bytes(self.n_pages).unwrap_or(0);
        let page = self.blob[self.done..].get(..bytes).unwrap_or_default();
        self.hasher.feed(page);
        (self.done, self.n_pages) = (self.done + page.len(), self.n_pages + 1);
        page
    }

    /// Takes what is left and compares.
    pub(super) fn check(mut self) -> Result<()> {
        while self.n_pages < self.saved.n() {
            self.page();
        }
        let (found, made) = (number(self.blob, 24), self.hasher.finish());
        if found == made {
            return Ok(());
        }
        refuse(format!("damaged: its checksum is {found:016x}"), format!("that of its bytes, {made:016x}"))
    }
}
