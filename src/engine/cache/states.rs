//! The states of sequences, whose layers with a state keep one each: how many hold each of them, and which stand behind pages as
//! checkpoints.
//!
//! Invariant: a state is held, a checkpoint, idle or free; a checkpoint may be held besides.

use crate::alloc::reserve;
use crate::error::Result;

/// No page, or no state.
pub(super) const NONE: u32 = u32::MAX;

/// What is known of a state.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) holders: u32,
    /// The page that it is the checkpoint of.
    pub(super) page: u32,
    /// The pages up to it, as a checkpoint, and those of the sequence that had it last.
    pub(super) at: u32,
    pub(super) end: u32,
    /// When that was.
    pub(super) used: u64,
}

impl Known {
    /// How little a checkpoint is worth: the distance to the end of its sequence, less for one at a larger power of two.
    pub(super) fn uselessness(at: u32, end: u32) -> u64 {
        (u64::from(end.saturating_sub(at)) << 32) >> at.trailing_zeros().min(32)
    }
}

/// All states of a model, by number, and the checkpoints by page.
pub(super) struct States {
    /// Bytes of one; 0: the model has none.
    pub(super) bytes: u64,
    /// The most checkpoints.
    pub(super) most: usize,
    pub(super) all: Vec<Known>,
    /// Numbers without memory.
    pub(super) free: Vec<u32>,
    /// Those with memory that nobody needs: the next that are taken.
    pub(super) idle: Vec<u32>,
    pub(super) of_page: Vec<u32>,
    pub(super) n_held: usize,
    pub(super) n_checkpoints: usize,
    /// Checkpoints that nobody holds.
    pub(super) n_unheld: usize,
    pub(super) clock: u64,
}

impl States {
    /// None yet, of so many bytes each; checkpoints of so many bytes in all.
    pub(super) fn new(bytes: u64, checkpoint_bytes: u64) -> States {
        let most = usize::try_from(checkpoint_bytes / bytes.max(1)).unwrap_or(usize::MAX).min(NONE as usize);
        States {
            bytes,
            most,
            all: Vec::new(),
            free: Vec::new(),
            idle: Vec::new(),
            of_page: Vec::new(),
            n_held: 0,
            n_checkpoints: 0,
            n_unheld: 0,
            clock: 0,
        }
    }

    /// Whether the model has states.
    pub(super) fn are_there(&self) -> bool {
        self.bytes > 0
    }

    /// The most bytes of checkpoints.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.bytes.saturating_mul(self.most as u64)
    }

    /// The most checkpoints.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// States that sessions and calls hold.
    pub(super) fn n_held(&self) -> usize {
        self.n_held
    }

    /// Checkpoints.
    pub(super) fn n_checkpoints(&self) -> usize {
        self.n_checkpoints
    }

    /// Bytes that are given back when memory is short.
    pub(super) fn spare_bytes(&self) -> u64 {
        (self.idle.len() + self.n_unheld) as u64 * self.bytes
    }

    pub(super) fn in_use(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// Room for `n` pages more.
    pub(super) fn reserve_pages(&mut self, n: usize) -> Result<()> {
        reserve(&mut self.of_page, n)
    }

    /// One page more, without a checkpoint; there is room for it.
    pub(super) fn push_page(&mut self) {
        self.of_page.push(NONE);
    }

    /// The checkpoint of a page.
    pub(super) fn checkpoint(&self, page: u32) -> Option<u32> {
        self.of_page.get(page as usize).copied().filter(|state| *state != NONE)
    }

    /// Bytes of a page's checkpoint, if it has one.
    pub(super) fn bytes_of(&self, page: u32) -> u64 {
        self.checkpoint(page).map_or(0, |_| self.bytes)
    }

    pub(super) fn known(&mut self, state: u32) -> Option<&mut Known> {
        self.all.get_mut(state as usize)
    }

    /// One more holder of a state that somebody holds, or that is a checkpoint.
    pub(super) fn hold(&mut self, state: u32) {
        let Some(known) = self.known(state) else { return };
        known.holders += 1;
        if known.holders == 1 {
            (self.n_held, self.n_unheld) = (self.n_held + 1, self.n_unheld - 1);
        }
    }

    /// The page of the checkpoint that is worth least, if it is not worth more than one of this uselessness; `unheld`: of those alone
    /// that nobody holds.
    pub(super) fn least_useful(&self, than: u64, unheld: bool) -> Option<u32> {
        let checkpoints = self.all.iter().filter(|known| known.page != NONE && !(unheld && known.holders > 0));
        let least = checkpoints.max_by_key(|k| (Known::uselessness(k.at, k.end), std::cmp::Reverse(k.used)))?;
        (Known::uselessness(least.at, least.end) >= than).then_some(least.page)
    }
}
