//! The parts of pages that lie behind windows: who wants them, which are there, which go first.
//!
//! Invariants: a part that some list wants is there; one that nobody wants is spare and stays until memory is short. Spare
//! parts go in the order in which they became so, but for those in front of every sixteenth window, which go later: a session
//! that is truncated to before all others has them to begin again from; and those that sessions which are gone have ended with, which
//! go last, behind the pages that are kept of such: without them nobody could begin behind these.

use std::collections::VecDeque;

use crate::alloc::{reserve, reserve_by};
use crate::backend::{LoadedModel, PAGE_TOKENS};
use crate::error::Result;
use crate::model::{CacheClasses, MAX_CLASSES};

/// Which of its pages' parts a list wants of a class, by the pages' indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Those from here on,
    pub(super) from: usize,
    /// but for these,
    pub(super) gap: (usize, usize),
    /// and none from here on.
    pub(super) until: usize,
}

impl Wanted {
    /// None.
    pub(super) const NOTHING: Wanted = Wanted { from: 0, gap: (0, 0), until: 0 };

    pub(super) fn has(&self, index: usize) -> bool {
        (self.from..self.until).contains(&index) && !(self.gap.0..self.gap.1).contains(&index)
    }

    /// What the next token of a sequence of so many reads of a class, and all that follows.
    pub(super) fn behind(classes: &CacheClasses, class: usize, n_tokens: usize) -> Wanted {
        Wanted { from: classes.first(class, n_tokens) / PAGE_TOKENS, gap: (0, 0), until: usize::MAX }
    }
}

/// [`Wanted`] of each class.
pub(super) type WantedOf = [Wanted; MAX_CLASSES];

/// [`Wanted::behind`] of each class.
pub(super) fn wanted_behind(classes: &CacheClasses, n_tokens: usize) -> WantedOf {
    std::array::from_fn(|class| Wanted::behind(classes, class, n_tokens))
}

/// Whether a session of `n_tokens` still reads a class's part of the page at this index.
pub(in crate::engine) fn is_read(classes: &CacheClasses, class: usize, index: usize, n_tokens: usize) -> bool {
    Wanted::behind(classes, class, n_tokens).has(index)
}

/// The queue of parts that go last.
const LAST: usize = 2;

/// Parts of one class.
struct Parts {
    bytes: u64,
    /// Pages of a window, and one.
    window_pages: usize,
    /// How many there are.
    n_there: usize,
    wants: Vec<u32>,
    there: Vec<bool>,
    /// Pages that became spare, each once; which of them still are is seen when they are looked at.
    queues: [VecDeque<u32>; 3],
    queued: Vec<bool>,
    /// Which of them go last.
    ends: Vec<bool>,
    n_spare: u64,
}

/// Parts of all classes.
pub(super) struct PageParts {
    pub(super) classes: CacheClasses,
    of_class: Vec<Parts>,
}

impl PageParts {
    /// `page_bytes` are those of all parts of a page.
    pub(super) fn new(classes: CacheClasses, page_bytes: u64) -> PageParts {
        let part = |class: usize| Parts {
            bytes: classes.share(class, page_bytes),
            window_pages: classes.window(class).map_or(0, |w| w.div_ceil(PAGE_TOKENS) + 1),
            n_there: 0,
            wants: Vec::new(),
            there: Vec::new(),
            queues: Default::default(),
            queued: Vec::new(),
            ends: Vec::new(),
            n_spare: 0,
        };
        PageParts { of_class: (0..classes.n()).map(part).collect(), classes }
    }

    fn windowed(&mut self) -> impl Iterator<Item = (usize, &mut Parts)> {
        self.of_class.iter_mut().enumerate().filter(|(_, parts)| parts.window_pages > 0)
    }

    /// Room for `n` pages more.
    pub(super) fn reserve(&mut self, n: usize) -> Result<()> {
        for (_, parts) in self.windowed() {
            let all = parts.wants.len() + n;
            reserve(&mut parts.wants, n)?;
            reserve(&mut parts.there, n)?;
            reserve(&mut parts.queued, n)?;
            reserve(&mut parts.ends, n)?;
            for queue in &mut parts.queues {
                let missing = all.saturating_sub(queue.len());
                reserve_by::<u32>(missing, || queue.try_reserve(missing))?;
            }
        }
        Ok(())
    }

    /// One page more, free; there is room for it.
    pub(super) fn push(&mut self) {
        for (_, parts) in self.windowed() {
            parts.wants.push(0);
            parts.there.push(false);
            parts.queued.push(false);
            parts.ends.push(false);
        }
    }

    /// Bytes that [`Self::take`] makes be there.
    pub(super) fn taken(&self, index: usize, wanted: &WantedOf) -> u64 {
        let of_class = |(class, parts): (usize, &Parts)| {
            if parts.window_pages == 0 || wanted[class].has(index) { parts.bytes } else { 0 }
        };
        self.of_class.iter().enumerate().map(of_class).sum()
    }

    /// A free page is taken for this index of a list, with the parts that the list wants.
    pub(super) fn take(&mut self, page: u32, index: usize, wanted: &WantedOf) {
        for (class, parts) in self.of_class.iter_mut().enumerate() {
            let has = parts.window_pages == 0 || wanted[class].has(index);
            parts.n_there += usize::from(has);
            if parts.window_pages > 0 {
                parts.there[page as usize] = has;
                parts.wants[page as usize] = has.into();
                parts.ends[page as usize] = false;
            }
        }
    }

    /// How many parts of each class there are.
    pub(super) fn n_there(&self) -> [usize; MAX_CLASSES] {
        let mut n = [0; MAX_CLASSES];
        n.iter_mut().zip(&self.of_class).for_each(|(n, parts)| *n = parts.n_there);
        n
    }

    /// Tells the device how many there are, which gives memory beyond that back.
    pub(super) fn settle(&self, loaded: &dyn LoadedModel) {
        loaded.settle_parts(&self.n_there());
    }

    /// How many there are once pages have been taken for these indices of a list, with the parts that the list wants.
    pub(super) fn n_with(
        &self,
        indices: impl Iterator<Item = usize> + Clone,
        wanted: &WantedOf,
    ) -> [usize; MAX_CLASSES] {
        let mut n = self.n_there();
        for ((n, parts), wanted) in n.iter_mut().zip(&self.of_class).zip(wanted) {
            *n += indices.clone().filter(|index| parts.window_pages == 0 || wanted.has(*index)).count();
        }
        n
    }

    /// A page that nobody wants or holds becomes free; the bytes of its parts that were there.
    pub(super) fn free(&mut self, page: u32) -> u64 {
        let mut bytes = 0;
        for parts in &mut self.of_class {
            if parts.window_pages == 0 {
                parts.n_there -= 1;
                bytes += parts.bytes;
            } else if std::mem::take(&mut parts.there[page as usize]) {
                parts.ends[page as usize] = false;
                parts.n_there -= 1;
                parts.n_spare -= 1;
                bytes += parts.bytes;
            }
        }
        bytes
    }

    /// One more list wants the page at this index, where `wanted` says so.
    pub(super) fn want(&mut self, page: u32, index: usize, wanted: &WantedOf) {
        for (_, parts) in self.windowed().filter(|(class, _)| wanted[*class].has(index)) {
            let wants = &mut parts.wants[page as usize];
            if *wants == 0 && parts.there[page as usize] {
                parts.n_spare -= 1;
            }
            *wants += 1;
        }
    }

    /// The opposite of [`Self::want`].
    pub(super) fn unwant(&mut self, page: u32, index: usize, wanted: &WantedOf) {
        for (_, parts) in self.windowed().filter(|(class, _)| wanted[*class].has(index)) {
            let at = page as usize;
            parts.wants[at] -= 1;
            if parts.wants[at] == 0 && parts.there[at] {
                parts.n_spare += 1;
                if !std::mem::replace(&mut parts.queued[at], true) {
                    // In front of a position that is a multiple of sixteen windows.
                    let kept = index % (16 * parts.window_pages) >= 15 * parts.window_pages;
                    parts.queues[if parts.ends[at] { LAST } else { usize::from(kept) }].push_back(page);
                }
            }
        }
    }

    /// The parts of the page at this index that `wanted` names go last from now on, for as long as they are there.
    pub(super) fn keep(&mut self, page: u32, index: usize, wanted: &WantedOf) {
        for (_, parts) in self.windowed().filter(|(class, _)| wanted[*class].has(index)) {
            parts.ends[page as usize] = parts.there[page as usize];
        }
    }

    /// Bytes of a page's parts that do not go while the page stays.
    pub(super) fn fixed_bytes(&self) -> u64 {
        self.of_class.iter().filter(|parts| parts.window_pages == 0).map(|parts| parts.bytes).sum()
    }

    /// Bytes of a page's parts that are there.
    pub(super) fn bytes_of(&self, page: u32) -> u64 {
        let is_there = |(class, _): &(usize, &Parts)| self.is_there(page, *class);
        self.of_class.iter().enumerate().filter(is_there).map(|(_, parts)| parts.bytes).sum()
    }

    /// Whether a part is there.
    pub(super) fn is_there(&self, page: u32, class: usize) -> bool {
        self.of_class.get(class).is_some_and(|p| p.window_pages == 0 || p.there[page as usize])
    }

    /// Whether what is wanted of the page at this index is there.
    pub(super) fn has_wanted(&self, page: u32, index: usize, wanted: &WantedOf) -> bool {
        (0..self.of_class.len()).all(|class| !wanted[class].has(index) || self.is_there(page, class))
    }

    /// Whether all parts are there.
    pub(super) fn is_whole(&self, page: u32) -> bool {
        (0..self.of_class.len()).all(|class| self.is_there(page, class))
    }

    /// Makes a part be there that was not; its bytes. It is still to be wanted, before anything else happens.
    pub(super) fn attach(&mut self, page: u32, class: usize) -> u64 {
        let parts = &mut self.of_class[class];
        if std::mem::replace(&mut parts.there[page as usize], true) {
            return 0;
        }
        parts.n_there += 1;
        parts.n_spare += u64::from(parts.wants[page as usize] == 0);
        parts.bytes
    }

    /// Bytes of a class's part.
    pub(super) fn bytes(&self, class: usize) -> u64 {
        self.of_class.get(class).map_or(0, |parts| parts.bytes)
    }

    /// Bytes of all spare parts.
    pub(super) fn spare_bytes(&self) -> u64 {
        self.of_class.iter().map(|parts| parts.n_spare * parts.bytes).sum()
    }

    /// Takes a spare part away: page, class, bytes. `last`: one of those that go last. `None`: there is none.
    pub(super) fn drop_spare(&mut self, last: bool) -> Option<(u32, usize, u64)> {
        for queue in if last { LAST..LAST + 1 } else { 0..LAST } {
            for (class, parts) in self.windowed() {
                while let Some(page) = parts.queues[queue].pop_front() {
                    // It may have become one of the last since it was put there.
                    if queue != LAST && parts.ends[page as usize] {
                        parts.queues[LAST].push_back(page);
                        continue;
                    }
                    parts.queued[page as usize] = false;
                    if let Some(bytes) = parts.lose(page) {
                        return Some((page, class, bytes));
                    }
                }
            }
        }
        None
    }

    /// Takes this part away if it is spare; its bytes.
    pub(super) fn lose(&mut self, page: u32, class: usize) -> Option<u64> {
        self.of_class.get_mut(class)?.lose(page)
    }
}

impl Parts {
    fn lose(&mut self, page: u32) -> Option<u64> {
        let at = page as usize;
        if self.wants[at] > 0 || !self.there[at] {
            return None;
        }
        (self.there[at], self.ends[at]) = (false, false);
        self.n_there -= 1;
        self.n_spare -= 1;
        Some(self.bytes)
    }
}
