//! The pages of a saved session: of each the parts that the session still reads, one behind the other; and the state behind them.

use super::cache::{HeldState, is_read};
use super::hash::Hasher;
use super::model::Inner;
use crate::backend::{PAGE_TOKENS, PageImage};
use crate::error::{Error, Result};

/// How a session of so many tokens has its pages written down.
#[derive(Clone, Copy)]
pub(super) struct SavedPages<'a> {
    model: &'a Inner,
    pub(super) image: PageImage,
    n_tokens: usize,
}

impl<'a> SavedPages<'a> {
    /// Fails with `Unsupported` where the device has no way to write pages down.
    pub(super) fn new(model: &'a Inner, n_tokens: usize) -> Result<SavedPages<'a>> {
        let name = "saving sessions on this device".to_owned();
        let image = model.loaded.page_image().ok_or(Error::Unsupported { what: "device operation", name })?;
        Ok(SavedPages { model, image, n_tokens })
    }

    /// What tells layouts of pages apart that are not to be taken for one another.
    pub(super) fn layout_hash(&self) -> u64 {
        let PageImage { layout, bytes, .. } = &self.image;
        let mut hasher = Hasher::new(3);
        hasher.feed(format!("{layout} {bytes} {PAGE_TOKENS}").as_bytes());
        let classes = &self.model.pool.classes;
        let windows: Vec<_> = (0..classes.n()).map(|class| classes.window(class).unwrap_or(0)).collect();
        // What no window reads is not written down.
        if windows.iter().any(|window| *window > 0) {
            hasher.feed(format!(" windows {windows:?}").as_bytes());
        }
        let of_state = self.model.loaded.plan().state_bytes;
        if of_state > 0 {
            hasher.feed(format!(" state {of_state}").as_bytes());
        }
        hasher.finish()
    }

    /// Pages.
    pub(super) fn n(&self) -> usize {
        self.n_tokens.div_ceil(PAGE_TOKENS)
    }

    /// Pages of which it is written down which positions steps have computed.
    pub(super) fn n_marks(&self) -> usize {
        if self.model.pool.marks { self.n() } else { 0 }
    }

    /// Bytes of the state behind the tokens.
    pub(super) fn state_bytes(&self) -> usize {
        if self.n_tokens == 0 { 0 } else { usize::try_from(self.model.loaded.plan().state_bytes).unwrap_or(usize::MAX) }
    }

    /// Writes the state down; `out` has [`Self::state_bytes`] or a few more.
    pub(super) fn read_state(&self, state: Option<&HeldState>, out: &mut [u8]) -> Result<()> {
        match (state, self.state_bytes()) {
            (_, 0) => Ok(()),
            (Some(state), n) => self.model.loaded.read_state(state.number(), &mut out[..n]),
            (None, _) => Err(Error::Internal { message: "a session without its state".to_owned() }),
        }
    }

    /// What [`Self::read_state`] has written, as a state of its own.
    pub(super) fn write_state(&self, from: &[u8]) -> Result<Option<HeldState>> {
        let n = self.state_bytes();
        if n == 0 {
            return Ok(None);
        }
        let state = self.model.pool.take_state()?;
        self.model.loaded.write_state(state.number(), &from[..n])?;
        Ok(Some(state))
    }

    /// The classes of the page at this index whose parts are written down, with their bytes. One class has the whole page.
    fn parts(&self, index: usize) -> impl Iterator<Item = (usize, usize)> {
        let (classes, n_tokens) = (&self.model.pool.classes, self.n_tokens);
        let bytes = if classes.n() > 1 { self.image.parts } else { [self.image.bytes; _] };
        (0..classes.n()).filter(move |class| is_read(classes, *class, index, n_tokens)).map(move |c| (c, bytes[c]))
    }

    /// Bytes of the page at this index; `None`: more than there are addresses for.
    pub(super) fn bytes(&self, index: usize) -> Option<usize> {
        let sum = self.parts(index).try_fold(0_usize, |sum, (_, bytes)| sum.checked_add(bytes));
        sum?.checked_next_multiple_of(64)
    }

    /// Where the last of them ends, if the first begins at `at`.
    pub(super) fn end(&self, at: usize) -> Option<usize> {
        (0..self.n()).try_fold(at, |at, index| at.checked_add(self.bytes(index)?))
    }

    /// Writes the page at this index down; `out` has [`Self::bytes`].
    pub(super) fn read(&self, index: usize, page: u32, out: &mut [u8]) -> Result<()> {
        let (loaded, rows) = (&self.model.loaded, (self.n_tokens - index * PAGE_TOKENS).min(PAGE_TOKENS));
        let mut rest = out;
        for (class, bytes) in self.parts(index) {
            let (part, behind) = rest.split_at_mut(bytes);
            loaded.read_part(page, class, rows, part)?;
            rest = behind;
        }
        rest.fill(0);
        Ok(())
    }

    /// Makes a page that nobody else uses hold what [`Self::read`] has written.
    pub(super) fn write(&self, index: usize, page: u32, from: &[u8]) -> Result<()> {
        let mut rest = from;
        for (class, bytes) in self.parts(index) {
            let (part, behind) = rest.split_at(bytes);
            self.model.loaded.write_part(page, class, part)?;
            rest = behind;
        }
        Ok(())
    }
}
