//! The pages of one session's tokens.
//!
//! Invariants: a page with several holders is never written, a list that wants to write one takes a copy first; the parts
//! that a list wants are there, and those are at least what its tokens' next one reads.

use std::sync::Arc;

use super::parts::WantedOf;
use super::pool::PagePool;
use crate::alloc::reserve;
use crate::backend::PAGE_TOKENS;
use crate::error::{Error, Result};
use crate::model::{CacheClasses, MAX_CLASSES};

fn internal(message: &str) -> Error {
    Error::Internal { message: message.to_owned() }
}

/// One holder of each of its pages.
struct PageList {
    pool: Arc<PagePool>,
    pages: Vec<u32>,
    /// Which parts of them may not go.
    wanted: WantedOf,
    /// Parts that are being computed again: page and class. They are worth nothing before that has succeeded.
    unfinished: Vec<(u32, usize)>,
    /// They came from outside, as did what follows from them: nobody else is given them.
    foreign: bool,
    /// They are of a long session, whose keys are others than those of another with the same tokens.
    is_long: bool,
}

impl PageList {
    fn keep(&mut self, n: usize) {
        if n < self.pages.len() {
            self.pool.give(&self.pages[n..], n, &self.wanted);
            self.pages.truncate(n);
        }
        for wanted in self.wanted.iter_mut().filter(|wanted| wanted.gap.1 > n) {
            wanted.gap = (0, 0);
        }
    }

    /// What is wanted from now on. Where some of it is not there nothing changes, and the answer is no.
    fn want(&mut self, wanted: WantedOf) -> bool {
        if wanted == self.wanted {
            return true;
        }
        let all = self.wanted.iter().chain(&wanted);
        let first = all.clone().map(|w| w.from).min().unwrap_or(0);
        let last = all.map(|w| w.from.max(w.gap.1)).max().unwrap_or(0).min(self.pages.len());
        let mut state = self.pool.lock();
        let pages = self.pages.iter().enumerate().take(last).skip(first);
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
        // Nobody wants them but this list, whose other holder, if there is one, is its session's list as it was.
        let mut state = self.pool.lock();
        for (index, page) in self.pages.iter().enumerate() {
            state.parts.unwant(*page, index, &self.wanted);
        }
        for (page, class) in unfinished {
            state.lose(&*self.pool.loaded, page, class);
        }
        drop(state);
        let nothing = [super::parts::Wanted { from: usize::MAX, gap: (0, 0) }; MAX_CLASSES];
        self.pool.give(&self.pages, 0, &nothing);
    }
}

/// What a session of `n_tokens` wants.
fn wanted_behind(classes: &CacheClasses, n_tokens: usize) -> WantedOf {
    let mut wanted = WantedOf::default();
    for (class, wanted) in wanted.iter_mut().enumerate() {
        wanted.from = classes.first(class, n_tokens) / PAGE_TOKENS;
    }
    wanted
}

/// The pages that hold one session's tokens, in order. Forks share one list until one of them changes it.
pub(in crate::engine) struct Pages {
    list: Arc<PageList>,
}

impl Pages {
    pub(in crate::engine) fn new(pool: &Arc<PagePool>, is_long: bool) -> Pages {
        let (pool, wanted) = (Arc::clone(pool), WantedOf::default());
        let list = PageList { pool, pages: Vec::new(), wanted, unfinished: Vec::new(), foreign: false, is_long };
        Pages { list: Arc::new(list) }
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
    fn own(&mut self, keep: usize, n_new: usize) -> Result<&mut PageList> {
        if Arc::get_mut(&mut self.list).is_none() {
            let old = &self.list;
            let keep = keep.min(old.pages.len());
            let mut pages = Vec::new();
            reserve(&mut pages, keep + n_new)?;
            pages.extend_from_slice(&old.pages[..keep]);
            old.pool.hold(&pages, &old.wanted);
            let (pool, foreign, is_long) = (Arc::clone(&old.pool), old.foreign, old.is_long);
            let wanted = old.wanted;
            self.list = Arc::new(PageList { pool, pages, wanted, unfinished: Vec::new(), foreign, is_long });
        }
        let list = Arc::get_mut(&mut self.list).ok_or_else(|| internal("a new list of pages is shared"))?;
        reserve(&mut list.pages, n_new)?;
        Ok(list)
    }

    /// Makes positions `n_held .. n_total` writable for this session alone: takes the missing pages, and a copy of the
    /// page that `n_held` stands in if others hold it too. Fails and changes nothing that shows.
    pub(in crate::engine) fn prepare(&mut self, n_held: usize, n_total: usize) -> Result<()> {
        let (begun, all) = (n_held / PAGE_TOKENS, n_total.div_ceil(PAGE_TOKENS));
        let missing = all.saturating_sub(self.list.pages.len());
        let list = self.own(self.list.pages.len(), missing + 1)?;
        let pool = Arc::clone(&list.pool);
        list.foreign &= n_held > 0;
        let copied = !n_held.is_multiple_of(PAGE_TOKENS) && pool.is_shared(list.pages[begun]);
        let n = list.pages.len();
        pool.take(missing + usize::from(copied), &mut list.pages)?;
        if copied {
            let copy = list.pages.pop().ok_or_else(|| internal("no page was taken"))?;
            if let Err(error) = pool.loaded.copy_page(list.pages[begun], copy) {
                pool.give(&[copy], begun, &list.wanted);
                list.keep(n);
                return Err(error);
            }
            let old = std::mem::replace(&mut list.pages[begun], copy);
            pool.give(&[old], begun, &list.wanted);
        }
        Ok(())
    }

    /// Adds pages of others that hold the next of `tokens`, whole pages of them and not all of `tokens`: how many tokens
    /// that are. Behind the last of them every layer has its window. The session holds whole pages.
    pub(in crate::engine) fn adopt(&mut self, tokens: &[u32]) -> Result<usize> {
        let most = tokens.len().saturating_sub(1) / PAGE_TOKENS;
        if most == 0 || self.list.foreign && !self.list.pages.is_empty() {
            return Ok(0);
        }
        let list = self.own(self.list.pages.len(), most)?;
        let n_held = list.pages.len();
        let mut state = list.pool.lock();
        let whole = |page| state.parts.is_whole(page);
        let mut found = state.index.find(list.is_long, &list.pages, &tokens[..most * PAGE_TOKENS], &whole);
        let n = state.n_whole(n_held, &found);
        found.truncate(n);
        let behind = wanted_behind(&state.parts.classes, (n_held + n) * PAGE_TOKENS);
        for (wanted, behind) in list.wanted.iter_mut().zip(behind) {
            wanted.gap = if behind.from > n_held { (n_held, behind.from) } else { (0, 0) };
        }
        for (i, page) in found.iter().enumerate() {
            state.holders[*page as usize] += 1;
            state.parts.want(*page, n_held + i, &list.wanted);
        }
        drop(state);
        list.pages.extend_from_slice(&found);
        Ok(found.len() * PAGE_TOKENS)
    }

    /// Lets others find the pages by their tokens, which are all that the session holds.
    pub(in crate::engine) fn publish(&self, tokens: &[u32]) {
        if !self.list.foreign {
            self.list.pool.lock().index.enter(self.list.is_long, &self.list.pages, tokens);
        }
    }

    /// The pages are going to be filled from outside.
    pub(in crate::engine) fn mark_foreign(&mut self) -> Result<()> {
        self.own(self.list.pages.len(), 0)?.foreign = true;
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
        let wanted = wanted_behind(&self.list.pool.lock().parts.classes, n_tokens);
        if wanted != self.list.wanted && !self.own(self.list.pages.len(), 0)?.want(wanted) {
            return Err(internal("a part that a session needs has gone"));
        }
        Ok(())
    }

    /// The session holds fewer tokens from now on. Where what the next one reads is not there nothing changes, and the answer
    /// is no: see [`Self::again`]. Fails, and changes nothing, only while forks share the list.
    pub(in crate::engine) fn cut(&mut self, n_tokens: usize) -> Result<bool> {
        let wanted = wanted_behind(&self.list.pool.lock().parts.classes, n_tokens);
        let keep = n_tokens.div_ceil(PAGE_TOKENS);
        if wanted == self.list.wanted && keep == self.list.pages.len() {
            return Ok(true);
        }
        let list = self.own(self.list.pages.len(), 0)?;
        let there = list.want(wanted);
        if there {
            list.keep(keep);
        }
        Ok(there)
    }

    /// The least number of tokens from which on to all that it holds each can be kept as they are.
    pub(in crate::engine) fn free_from(&self, n_tokens: usize) -> usize {
        let state = self.list.pool.lock();
        let (classes, pages) = (&state.parts.classes, &self.list.pages);
        let of_class = |class: usize| {
            let kept = pages.iter().rev().take_while(|page| state.parts.is_there(**page, class)).count();
            match classes.window(class) {
                Some(window) if kept < pages.len() => (pages.len() - kept) * PAGE_TOKENS + window.max(2) - 1,
                _ => 0,
            }
        };
        (0..classes.n()).map(of_class).max().unwrap_or(0).min(n_tokens)
    }

    /// Whether what the token behind the first `n_tokens` reads is there.
    pub(in crate::engine) fn is_free_at(&self, n_tokens: usize) -> bool {
        let state = self.list.pool.lock();
        let (end, pages) = (n_tokens.div_ceil(PAGE_TOKENS), &self.list.pages);
        (0..state.parts.classes.n()).all(|class| {
            let first = state.parts.classes.first(class, n_tokens) / PAGE_TOKENS;
            pages.iter().take(end).skip(first).all(|page| state.parts.is_there(*page, class))
        })
    }

    /// The most of the first `n_tokens`, in whole pages, behind which the next token has all that it reads.
    fn nearest_kept(&self, n_tokens: usize) -> usize {
        self.list.pool.lock().n_whole(0, &self.list.pages[..n_tokens / PAGE_TOKENS]) * PAGE_TOKENS
    }

    /// Pages for the first `n_tokens` of these that are computed again from a position on, which comes with them: those
    /// that nobody else holds are written once more, with what they hold already. These stay as they are; where the new ones
    /// are given up, so does what they hold. Fails and changes nothing.
    pub(in crate::engine) fn again(&self, n_tokens: usize) -> Result<(Pages, usize)> {
        let old = &*self.list;
        let from = self.nearest_kept(n_tokens);
        let (first, end) = (from / PAGE_TOKENS, n_tokens.div_ceil(PAGE_TOKENS));
        let pool = &old.pool;
        let mut new = Pages::new(pool, old.is_long);
        let list = new.own(0, end)?;
        list.foreign = old.foreign;
        list.wanted = wanted_behind(&pool.lock().parts.classes, from);
        reserve(&mut list.unfinished, MAX_CLASSES * (end - first))?;
        list.pages.extend_from_slice(&old.pages[..first]);
        pool.hold(&list.pages, &list.wanted);
        let alone = Arc::strong_count(&self.list) == 1;
        for index in first..end {
            let page = old.pages[index];
            let mut state = pool.lock();
            let state = &mut *state;
            if !alone || state.holders[page as usize] > 1 {
                list.pages.push(page);
                continue;
            }
            state.charge(&*pool.loaded, 0, state.parts.missing(page))?;
            for class in 0..state.parts.classes.n() {
                if !state.parts.is_there(page, class) {
                    state.parts.attach(page, class);
                    list.unfinished.push((page, class));
                }
            }
            // Nobody is to find what is not finished.
            state.index.forget(page);
            state.holders[page as usize] += 1;
            state.parts.want(page, index, &list.wanted);
            list.pages.push(page);
        }
        Ok((new, from))
    }

    /// What [`Self::again`] has begun is finished: these are the session's pages, of `n_tokens`.
    pub(in crate::engine) fn finish(&mut self, n_tokens: usize) -> Result<()> {
        self.own(self.list.pages.len(), 0)?.unfinished.clear();
        self.settle(n_tokens)
    }

    /// Whether the page of a position has a class's part.
    pub(in crate::engine) fn has(&self, position: usize, class: usize) -> bool {
        let page = self.list.pages.get(position / PAGE_TOKENS);
        page.is_some_and(|page| self.list.pool.lock().parts.is_there(*page, class))
    }
}
