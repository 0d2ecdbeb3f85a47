//! Passes under a cache that has no room for every part of every page; and what has gone computed again.
//!
//! Invariant: what such passes need is reserved before the first of them, and none of them fails for want of memory.

use std::sync::Arc;

use super::pages::{Course, PageList, Pages, internal};
use super::parts::{Wanted, WantedOf, wanted_behind};
use super::pool::{PagePool, State};
use crate::alloc::reserve;
use crate::backend::{LoadedModel, PAGE_TOKENS};
use crate::error::Result;
use crate::model::MAX_CLASSES;

impl Course {
    /// How long passes may be: as long as the backend has them, or else as short as need be for want of memory.
    pub(super) fn lengths(pool: &PagePool) -> [usize; 2] {
        let usual = pool.loaded.prefill_chunk();
        [usual, usual.min(PAGE_TOKENS)]
    }

    /// What is wanted of a class when the next pass reads from this page on.
    fn wanted(self, pool: &PagePool, class: usize, wanted: Wanted, first_read: usize) -> Wanted {
        let Some(window) = pool.classes.window(class) else { return wanted };
        // As many as a pass can read and write, wherever it begins.
        let n = (window.max(2) + self.most).div_ceil(PAGE_TOKENS) + 1;
        let until = first_read.max(self.first) + n;
        Wanted {
            gap: if first_read > self.kept { (self.kept, first_read) } else { wanted.gap },
            until: if until < self.end { until } else { usize::MAX },
            ..wanted
        }
    }

    /// What is wanted before the first pass, of all classes.
    pub(super) fn begun(self, pool: &PagePool, wanted: &WantedOf) -> WantedOf {
        std::array::from_fn(|class| self.wanted(pool, class, wanted[class], 0))
    }
}

impl State {
    /// Makes a part be there that is not: in addition, or else in place of that of one of these pages.
    fn bring(
        &mut self,
        loaded: &dyn LoadedModel,
        (page, class): (u32, usize),
        behind: &mut impl Iterator<Item = u32>,
    ) -> Result<()> {
        if !self.adds(loaded, class) {
            let gone = behind.find(|page| self.parts.lose(*page, class).is_some());
            loaded.drop_part(gone.ok_or_else(|| internal("a reserved part has gone"))?, class);
        }
        self.parts.attach(page, class);
        Ok(())
    }

    /// Counts a part more; whether there is memory for it.
    fn adds(&mut self, loaded: &dyn LoadedModel, class: usize) -> bool {
        if self.budget.take(0, self.parts.bytes(class), 0).is_err() {
            return false;
        }
        let mut n = self.parts.n_there();
        n[class] += 1;
        let done = loaded.reserve_parts(&n).is_ok();
        if !done {
            self.budget.give(0, self.parts.bytes(class));
            self.parts.settle(loaded);
        }
        done
    }

    /// A list that computes again becomes a holder of the pages that are not replaced, with the parts
    /// that it wants; the bytes of those that were not there, which are still to be counted.
    fn hold_again(&mut self, pages: &[u32], replaced: &[usize], list: &mut PageList) -> u64 {
        let mut bytes = 0;
        for (index, &page) in pages.iter().enumerate().filter(|(index, _)| replaced.binary_search(index).is_err()) {
            self.holders[page as usize] += 1;
            for class in 0..list.pool.classes.n() {
                if list.wanted[class].has(index) && !self.parts.is_there(page, class) {
                    self.parts.attach(page, class);
                    list.unfinished.push((page, class));
                    bytes += self.parts.bytes(class);
                }
            }
            self.parts.want(page, index, &list.wanted);
        }
        bytes
    }

    /// The opposite of [`Self::hold_again`], where its bytes could not be counted.
    fn let_go_again(&mut self, pages: &[u32], replaced: &[usize], list: &mut PageList) {
        for (index, &page) in pages.iter().enumerate().filter(|(index, _)| replaced.binary_search(index).is_err()) {
            self.holders[page as usize] -= 1;
            self.parts.unwant(page, index, &list.wanted);
        }
        for (page, class) in list.unfinished.drain(..) {
            let _ = self.parts.lose(page, class);
        }
    }
}

/// What is wanted of one class alone.
fn of_class(class: usize, wanted: Wanted) -> WantedOf {
    let mut of_class = [Wanted::NOTHING; MAX_CLASSES];
    of_class[class] = wanted;
    of_class
}

impl Pages {
    /// The most tokens of a pass.
    pub(in crate::engine) fn pass_tokens(&self) -> usize {
        self.list.course.map_or(self.list.pool.loaded.prefill_chunk(), |course| course.most)
    }

    /// The next pass begins at this position: its parts come, what it does not read any more goes for them.
    pub(in crate::engine) fn advance(&mut self, start: usize) -> Result<()> {
        let Some(course) = self.list.course else { return Ok(()) };
        let list = self.own(self.list.pages.len(), 0)?;
        let pool = Arc::clone(&list.pool);
        let mut state = pool.lock();
        for class in 0..pool.classes.n() {
            let old = list.wanted[class];
            let new = course.wanted(&pool, class, old, pool.classes.first(class, start) / PAGE_TOKENS);
            let (pages, end) = (&list.pages, course.end.min(list.pages.len()));
            let behind = old.gap.1.max(course.kept)..new.gap.1.min(end);
            for index in behind.clone() {
                state.parts.unwant(pages[index], index, &of_class(class, old));
            }
            // As far as it has come, wherever it ends: the list gives back what it wants once.
            list.wanted[class].gap = new.gap;
            let mut behind = behind.filter(|index| *index >= course.first).map(|index| pages[index]);
            for index in old.until.min(end)..new.until.min(end) {
                if !state.parts.is_there(pages[index], class) {
                    state.bring(&*pool.loaded, (pages[index], class), &mut behind)?;
                    if course.again {
                        list.unfinished.push((pages[index], class));
                    }
                }
                state.parts.want(pages[index], index, &of_class(class, new));
                list.wanted[class].until = index + 1;
            }
            list.wanted[class] = new;
        }
        Ok(())
    }

    /// Pages for the first `n_tokens` of these, of which those from a position on, which comes with them, are to be computed
    /// again: the nearest in front of which every class has its window. Pages that nobody else holds are written once more,
    /// with what they hold already, others are replaced. These stay as they are; where the new ones are given up, so does
    /// what they hold. Fails and changes nothing but what is spare.
    pub(in crate::engine) fn again(&mut self, n_tokens: usize) -> Result<(Pages, usize)> {
        // No fork's: [`Self::cut`] has been before.
        let old = &*self.own(self.list.pages.len(), 0)?;
        let pool = &old.pool;
        let end = n_tokens.div_ceil(PAGE_TOKENS);
        let mut list = PageList::new(pool, old.key.clone());
        let (mut replaced, mut fresh) = (Vec::new(), Vec::new());
        reserve(&mut list.pages, end)?;
        reserve(&mut list.unfinished, end * pool.classes.n())?;
        reserve(&mut replaced, end)?;
        reserve(&mut fresh, end)?;
        let mut attempt = |state: &mut State, most| {
            let first = state.n_whole(0, &old.pages[..n_tokens / PAGE_TOKENS]);
            let course = Course { kept: 0, first, end, most, again: true };
            list.wanted = course.begun(pool, &wanted_behind(&pool.classes, first * PAGE_TOKENS));
            list.course = Some(course);
            replaced.clear();
            replaced.extend((first..end).filter(|index| state.holders[old.pages[*index] as usize] > 1));
            let pages = &old.pages[..end];
            // Wanted before memory is asked for, so that it is not what is given back for it.
            let more = state.hold_again(pages, &replaced, &mut list);
            let taken = state.take(&*pool.loaded, replaced.iter().copied(), &list.wanted, more, &mut fresh);
            if taken.is_err() {
                state.let_go_again(pages, &replaced, &mut list);
                state.parts.settle(&*pool.loaded);
                return taken.map(|()| first);
            }
            // Nobody is to find what is not finished.
            for (index, &page) in old.pages.iter().enumerate().skip(first) {
                if replaced.binary_search(&index).is_err() && (index < end || state.holders[page as usize] == 1) {
                    state.index.forget(page);
                }
            }
            Ok(first)
        };
        let [usual, least] = Course::lengths(pool);
        let first = match pool.with_room(|state| attempt(state, usual)) {
            Err(_) if least < usual => pool.with_room(|state| attempt(state, least))?,
            first => first?,
        };
        let mut fresh = fresh.into_iter().zip(&replaced).peekable();
        for (index, page) in old.pages[..end].iter().enumerate() {
            let new = fresh.next_if(|(_, replaced)| **replaced == index);
            if let Some((new, _)) = new {
                pool.copied(*page, new);
            }
            list.pages.push(new.map_or(*page, |(new, _)| new));
        }
        Ok((Pages { list: Arc::new(list) }, first * PAGE_TOKENS))
    }

    /// What [`Self::again`] has begun is finished: these are the session's pages, of `n_tokens`.
    pub(in crate::engine) fn finish(&mut self, n_tokens: usize) -> Result<()> {
        self.own(self.list.pages.len(), 0)?.unfinished.clear();
        self.settle(n_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Charge;
    use super::super::pools::Pools;
    use super::*;
    use crate::backend::cpu::{CpuDevice, CpuOptions};
    use crate::backend::{Budget, Device, LoadOptions};
    use crate::common::run::NoControl;
    use crate::common::tiny::Tiny;
    use crate::error::Error;
    use crate::gguf::{Gguf, TensorType};
    use crate::model::bind;

    #[test]
    fn a_course_that_fails_halfway_gives_back_what_it_has_once() {
        let file = Tiny::new("gemma3", TensorType::Q8_0).bytes();
        let gguf = Gguf::from_bytes(&file).unwrap();
        let (config, weights) = bind(&gguf).unwrap();
        let cpu = CpuDevice::new(CpuOptions { n_threads: 1, isa: None }).unwrap();
        let loaded = cpu.load(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap();
        let (classes, page) = (loaded.cache_classes().unwrap(), loaded.plan().kv_bytes_per_token * PAGE_TOKENS as u64);
        let windowed = (0..classes.n()).find(|class| classes.window(*class).is_some()).unwrap();
        // Eight pages, of which three can have their parts of the class with a window.
        let budget = Budget::new(Some(8 * page - 5 * classes.share(windowed, page)));
        let charge = Charge::new(&budget, 0).unwrap();
        let pool = PagePool::new(loaded, charge, None, (0, 0), &Arc::new(Pools::default())).unwrap();
        let mut pages = Pages::new(&pool, None);
        pages.prepare(0, 8 * PAGE_TOKENS).unwrap();
        pages.advance(PAGE_TOKENS).unwrap();
        // A pass that is longer than the course was made for.
        let list = pages.own(8, 0).unwrap();
        list.course.as_mut().unwrap().most *= 3;
        assert!(matches!(pages.advance(2 * PAGE_TOKENS), Err(Error::Internal { .. })));
        let is_there = |index: usize| pool.lock().parts.is_there(pages.as_slice()[index], windowed);
        assert_eq!([0, 1, 2, 3, 4].map(is_there), [false, true, true, true, false]);
        // While somebody holds the lock, such as for memory that a host is long in giving, the counts are read.
        let held = pool.lock();
        let ((tell, told), of) = (std::sync::mpsc::channel(), Arc::clone(&pool));
        std::thread::spawn(move || tell.send(of.counts()));
        let counts = told.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
        assert_eq!((counts.n_pages_used, counts.n_pages_retained), (8, 0));
        drop(held);
        drop(pages);
        let facts = pool.facts();
        assert_eq!((facts.n_pages_used, facts.used_bytes, facts.spare_bytes), (0, 0, 0));
        assert_eq!(budget.promised(), 0);
    }
}
