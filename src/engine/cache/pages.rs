//! The pages of one session's tokens.
//!
//! Invariants: a page with several holders is never written, a list that wants to write one takes a copy first; the parts
//! that a list wants are there, and those are at least what its tokens' next one reads.

use std::sync::Arc;

use super::parts::{Wanted, WantedOf, wanted_behind};
use super::pool::{PagePool, Writes};
use super::prefix::PrefixKey;
use crate::alloc::reserve;
use crate::backend::PAGE_TOKENS;
use crate::error::{Error, Result};
use crate::model::MAX_CLASSES;

pub(super) fn internal(message: &str) -> Error {
    Error::Internal { message: message.to_owned() }
}

/// One holder of each of its pages.
pub(super) struct PageList {
    pub(super) pool: Arc<PagePool>,
    pub(super) pages: Vec<u32>,
    /// Which parts of them may not go.
    pub(super) wanted: WantedOf,
    /// Passes are to come, for which only some pages have their parts.
    pub(super) course: Option<Course>,
    /// Parts that are being computed again: page and class. They are worth nothing before that has succeeded.
    pub(super) unfinished: Vec<(u32, usize)>,
    /// Who may find them, and whose they may be; `None`: nobody.
    pub(super) key: Option<PrefixKey>,
}

/// Pages that are filled one behind the other with the parts of a window and a pass, which move along: what falls behind is
/// what the next pages get.
#[derive(Clone, Copy)]
pub(super) struct Course {
    /// Pages before this are wanted as they were, whatever comes.
    pub(super) kept: usize,
    /// Those that are filled: from here,
    pub(super) first: usize,
    /// to here.
    pub(super) end: usize,
    /// The most tokens of a pass.
    pub(super) most: usize,
    /// They are filled once more.
    pub(super) again: bool,
}

impl PageList {
    pub(super) fn new(pool: &Arc<PagePool>, key: Option<PrefixKey>) -> PageList {
        PageList {
            pool: Arc::clone(pool),
            pages: Vec::new(),
            wanted: wanted_behind(&pool.classes, 0),
            course: None,
            unfinished: Vec::new(),
            key,
        }
    }

    /// Lets go of all pages but the first `n`, and of all plans for more.
    fn keep(&mut self, n: usize) {
        if n < self.pages.len() {
            self.pool.give(&self.pages[n..], n, &self.wanted);
            self.pages.truncate(n);
        }
        if self.wanted.iter().all(|wanted| wanted.gap.0 >= n || wanted.gap.0 >= wanted.gap.1) {
            self.wanted.iter_mut().for_each(|wanted| *wanted = Wanted { gap: (0, 0), until: usize::MAX, ..*wanted });
            self.course = None;
        }
    }

    /// Adds `missing` pages from index `first` on, and one for a copy of the page `copied`; as [`PagePool::take`] does.
    fn take(&mut self, first: usize, missing: usize, copied: Option<usize>) -> Result<()> {
        let indices = (first..first + missing).chain(copied);
        match self.pool.take(indices.clone(), &self.wanted, &mut self.pages) {
            Ok(()) => Ok(()),
            Err(error) => self.begin_course(first, first + missing, indices).unwrap_or(Err(error)),
        }
    }

    /// Adds pages `first .. end`, and a copy if `indices` has one, whose parts come as passes need them. Fails and changes nothing;
    /// `None`: they need all of them.
    fn begin_course(
        &mut self,
        first: usize,
        end: usize,
        indices: impl Iterator<Item = usize> + Clone,
    ) -> Option<Result<()>> {
        let gaps = self.wanted.iter().map(|wanted| wanted.gap).filter(|gap| gap.1 > 0);
        let kept = gaps.map(|gap| gap.0).min().unwrap_or(first);
        let mut outcome = None;
        for most in Course::lengths(&self.pool) {
            let course = Course { kept, first, end, most, again: false };
            let wanted = course.begun(&self.pool, &self.wanted);
            if wanted != self.wanted {
                let taken = self.pool.take(indices.clone(), &wanted, &mut self.pages);
                let done = taken.is_ok();
                outcome = Some(taken);
                if done {
                    (self.wanted, self.course) = (wanted, Some(course));
                    break;
                }
            }
        }
        outcome
    }

    /// What is wanted from now on. Where some of it is not there nothing changes, and the answer is no.
    fn want(&mut self, wanted: WantedOf) -> bool {
        if wanted == self.wanted {
            return true;
        }
        let changed = self.wanted.iter().zip(&wanted).filter(|(old, new)| old != new);
        let first = changed.map(|(old, new)| old.from.min(new.from)).min().unwrap_or(0);
        let mut state = self.pool.lock();
        let pages = self.pages.iter().enumerate().skip(first);
        if !pages.clone().all(|(index, page)| state.parts.has_wanted(*page, index, &wanted)) {
            return false;
        }
        for (index, page) in pages {
            state.parts.want(*page, index, &wanted);
            state.parts.unwant(*page, index, &self.wanted);
        }
        drop(state);
        self.wanted = wanted;
        true
    }
}

impl Drop for PageList {
    fn drop(&mut self) {
        let unfinished = std::mem::take(&mut self.unfinished);
        if unfinished.is_empty() {
            return self.pool.give(&self.pages, 0, &self.wanted);
        }
        // Nobody wants them but this list: the other holder of their pages is its session's list as it was.
        let mut state = self.pool.lock();
        for (index, page) in self.pages.iter().enumerate() {
            state.parts.unwant(*page, index, &self.wanted);
        }
        for (page, class) in unfinished {
            state.lose(&*self.pool.loaded, page, class);
        }
        drop(state);
        self.pool.give(&self.pages, 0, &[Wanted::NOTHING; MAX_CLASSES]);
    }
}

/// The pages that hold one session's tokens, in order. Forks share one list until one of them changes it.
pub(in crate::engine) struct Pages {
    pub(super) list: Arc<PageList>,
}

impl Pages {
    /// Without `key` they are nobody else's, and nobody finds them.
    pub(in crate::engine) fn new(pool: &Arc<PagePool>, key: Option<PrefixKey>) -> Pages {
        Pages { list: Arc::new(PageList::new(pool, key)) }
    }

    /// The same pages, in constant time; whoever writes first takes copies.
    pub(in crate::engine) fn fork(&self) -> Pages {
        Pages { list: Arc::clone(&self.list) }
    }

    /// Their numbers.
    pub(in crate::engine) fn as_slice(&self) -> &[u32] {
        &self.list.pages
    }

    /// How many become free when these are given back.
    pub(in crate::engine) fn n_own(&self) -> usize {
        if Arc::strong_count(&self.list) > 1 { 0 } else { self.list.pool.n_own(&self.list.pages) }
    }

    /// A list of its own, with the first `keep` pages and room for `n_new` more. Fails and changes nothing.
    pub(super) fn own(&mut self, keep: usize, n_new: usize) -> Result<&mut PageList> {
        if Arc::get_mut(&mut self.list).is_none() {
            let old = &self.list;
            let keep = keep.min(old.pages.len());
            let mut pages = Vec::new();
            reserve(&mut pages, keep + n_new)?;
            pages.extend_from_slice(&old.pages[..keep]);
            old.pool.hold(&pages, &old.wanted);
            let mut list = PageList::new(&old.pool, old.key.clone());
            (list.pages, list.wanted) = (pages, old.wanted);
            self.list = Arc::new(list);
        }
        let list = Arc::get_mut(&mut self.list).ok_or_else(|| internal("a new list of pages is shared"))?;
        reserve(&mut list.pages, n_new)?;
        Ok(list)
    }

    /// Makes positions `n_held .. n_total` writable for this session alone: takes the missing pages, and a copy of the
    /// page that `n_held` stands in if others hold it too, or may want to find it and there is memory. Fails and changes nothing that
    /// shows. Where not all parts can be had, as many are as passes need that follow on one another: see [`Self::advance`].
    pub(in crate::engine) fn prepare(&mut self, n_held: usize, n_total: usize) -> Result<()> {
        let (begun, all) = (n_held / PAGE_TOKENS, n_total.div_ceil(PAGE_TOKENS));
        let missing = all.saturating_sub(self.list.pages.len());
        let list = self.own(self.list.pages.len(), missing + 1)?;
        let pool = Arc::clone(&list.pool);
        let n = list.pages.len();
        let inside = if n_held.is_multiple_of(PAGE_TOKENS) { None } else { list.pages.get(begun).copied() };
        let writes = inside.map_or(Writes::Own, |page| pool.writes(page, true));
        let mut copied = writes != Writes::Own;
        let mut taken = list.take(n, missing, copied.then_some(begun));
        if taken.is_err()
            && writes == Writes::Found
            && inside.is_some_and(|page| pool.writes(page, false) == Writes::Own)
        {
            copied = false;
            taken = list.take(n, missing, None);
        }
        taken?;
        if copied {
            let copy = list.pages.pop().ok_or_else(|| internal("no page was taken"))?;
            if let Err(error) = pool.loaded.copy_page(list.pages[begun], copy) {
                pool.give(&[copy], begun, &list.wanted);
                list.keep(n);
                return Err(error);
            }
            let old = std::mem::replace(&mut list.pages[begun], copy);
            pool.copied(old, copy);
            pool.give(&[old], begun, &list.wanted);
        }
        Ok(())
    }

    /// Takes pages for `n_tokens` that are going to be filled from outside, with the parts that [`is_read`](super::is_read) names. The session
    /// holds none. Fails and changes nothing.
    pub(in crate::engine) fn fill(&mut self, n_tokens: usize) -> Result<()> {
        let n = n_tokens.div_ceil(PAGE_TOKENS);
        let list = self.own(0, n)?;
        let wanted = wanted_behind(&list.pool.classes, n_tokens);
        let pool = Arc::clone(&list.pool);
        pool.take(0..n, &wanted, &mut list.pages)?;
        list.wanted = wanted;
        Ok(())
    }

    /// Gives back what the first `n_tokens` do not need. Fails, and changes nothing, only while forks share the list.
    pub(in crate::engine) fn shrink(&mut self, n_tokens: usize) -> Result<()> {
        let keep = n_tokens.div_ceil(PAGE_TOKENS);
        if keep < self.list.pages.len() {
            self.own(keep, 0)?.keep(keep);
        }
        Ok(())
    }

    /// The session holds `n_tokens` from now on, of those that its pages are for: what lies behind its windows may go.
    pub(in crate::engine) fn settle(&mut self, n_tokens: usize) -> Result<()> {
        let wanted = wanted_behind(&self.list.pool.classes, n_tokens);
        if wanted == self.list.wanted && self.list.course.is_none() {
            return Ok(());
        }
        let list = self.own(self.list.pages.len(), 0)?;
        list.course = None;
        if list.want(wanted) { Ok(()) } else { Err(internal("a part that a session needs has gone")) }
    }

    /// The session holds fewer tokens from now on. Where what the next one reads is not there nothing changes, and the answer
    /// is no: see [`Self::again`]. Fails, and changes nothing, only while forks share the list.
    pub(in crate::engine) fn cut(&mut self, n_tokens: usize) -> Result<bool> {
        let wanted = wanted_behind(&self.list.pool.classes, n_tokens);
        let keep = n_tokens.div_ceil(PAGE_TOKENS);
        if wanted == self.list.wanted && keep == self.list.pages.len() {
            return Ok(true);
        }
        let list = self.own(self.list.pages.len(), 0)?;
        // What is behind the end goes, and need not be there.
        let until = |wanted: Wanted| Wanted { until: keep, ..wanted };
        if !list.want(wanted.map(until)) {
            return Ok(false);
        }
        list.keep(keep);
        Ok(true)
    }

    /// The least number of tokens from which on to all that it holds each can be kept as they are.
    pub(in crate::engine) fn free_from(&self, n_tokens: usize) -> usize {
        let state = self.list.pool.lock();
        if state.states.are_there() {
            // There are states behind some of the pages besides.
            return n_tokens;
        }
        let (classes, pages) = (&self.list.pool.classes, &self.list.pages);
        let of_class = |class: usize| {
            let kept = pages.iter().rev().take_while(|page| state.parts.is_there(**page, class)).count();
            match classes.window(class) {
                Some(window) if kept < pages.len() => (pages.len() - kept) * PAGE_TOKENS + window.max(2) - 1,
                _ => 0,
            }
        };
        (0..classes.n()).map(of_class).max().unwrap_or(0).min(n_tokens)
    }

    /// Whether the page of a position has a class's part.
    pub(in crate::engine) fn has(&self, position: usize, layer: usize) -> bool {
        let (pool, page) = (&self.list.pool, self.list.pages.get(position / PAGE_TOKENS));
        page.is_some_and(|page| pool.lock().parts.is_there(*page, pool.classes.of(layer)))
    }
}
