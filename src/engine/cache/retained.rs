//! Pages that nobody holds and that stay to be found by their tokens: which are to go first.
//!
//! Invariants: their bytes never exceed what they may be; they go in the order in which their last holders let go of them. A list
//! lets go of its last page first, and whoever holds a page holds those in front of it: so none goes before what hangs on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::alloc::reserve;
use crate::error::Result;

/// No page.
const NONE: u32 = u32::MAX;

/// A page's neighbours, if it is one of them.
#[derive(Clone, Copy)]
struct Link {
    is_in: bool,
    older: u32,
    newer: u32,
}

/// The retained pages of a model.
pub(super) struct Retained {
    most_bytes: u64,
    bytes: u64,
    /// Changes under the pool's lock alone; anybody may read it.
    n: Arc<AtomicU64>,
    links: Vec<Link>,
    oldest: u32,
    newest: u32,
}

impl Retained {
    /// None yet, of so many bytes at most.
    pub(super) fn new(most_bytes: u64) -> Retained {
        Retained { most_bytes, bytes: 0, n: Arc::default(), links: Vec::new(), oldest: NONE, newest: NONE }
    }

    /// The pages, for whoever reads them while they change.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.n)
    }

    /// Room for `n` pages more.
    pub(super) fn reserve(&mut self, n: usize) -> Result<()> {
        reserve(&mut self.links, n)
    }

    /// One page more exists; there is room for it.
    pub(super) fn push(&mut self) {
        self.links.push(Link { is_in: false, older: NONE, newer: NONE });
    }

    /// Whether a page of so many bytes may be retained at all.
    pub(super) fn may_have(&self, bytes: u64) -> bool {
        bytes <= self.most_bytes && self.most_bytes > 0
    }

    /// Whether one of so many bytes may be retained beside the others.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        bytes <= self.most_bytes - self.bytes
    }

    /// Pages.
    pub(super) fn n(&self) -> u64 {
        self.n.load(Ordering::Relaxed)
    }

    /// Bytes of them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn link(&mut self, page: u32) -> Option<&mut Link> {
        self.links.get_mut(page as usize)
    }

    /// Whether a page is one of them.
    pub(super) fn has(&self, page: u32) -> bool {
        self.links.get(page as usize).is_some_and(|link| link.is_in)
    }

    /// The page that goes first.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// A page, of so many bytes, becomes the newest.
    pub(super) fn add(&mut self, page: u32, bytes: u64) {
        let older = self.newest;
        let Some(link) = self.link(page) else { return };
        *link = Link { is_in: true, older, newer: NONE };
        match self.link(older) {
            Some(link) => link.newer = page,
            None => self.oldest = page,
        }
        self.newest = page;
        self.n.fetch_add(1, Ordering::Relaxed);
        self.bytes += bytes;
    }

    /// A page, of so many bytes now, is one of them no more.
    pub(super) fn remove(&mut self, page: u32, bytes: u64) {
        let Some(link) = self.link(page).filter(|link| link.is_in) else { return };
        let Link { older, newer, .. } = *link;
        link.is_in = false;
        match self.link(older) {
            Some(link) => link.newer = newer,
            None => self.oldest = newer,
        }
        match self.link(newer) {
            Some(link) => link.older = older,
            None => self.newest = older,
        }
        self.n.fetch_sub(1, Ordering::Relaxed);
        self.bytes -= bytes;
    }

    /// A page, if it is one of them, has lost so many of its bytes.
    pub(super) fn lose(&mut self, page: u32, bytes: u64) {
        if self.has(page) {
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_go_in_the_order_in_which_they_came() {
        let mut retained = Retained::new(100);
        assert!(retained.may_have(100) && !retained.may_have(101) && !Retained::new(0).may_have(0));
        (0..5).for_each(|_| retained.push());
        for page in [3, 1, 4, 0] {
            retained.add(page, 20);
        }
        assert!(retained.has(4) && !retained.has(2) && retained.has_room(20) && !retained.has_room(21));
        retained.remove(1, 20);
        retained.remove(1, 20);
        retained.lose(4, 5);
        retained.lose(2, 5);
        retained.add(1, 20);
        assert_eq!((retained.n(), retained.bytes()), (4, 75));
        let mut order = Vec::new();
        while let Some(page) = retained.oldest() {
            retained.remove(page, if page == 4 { 15 } else { 20 });
            order.push(page);
        }
        assert_eq!((order, retained.n(), retained.bytes()), (vec![3, 4, 0, 1], 0, 0));
        retained.add(2, 1);
        assert_eq!((retained.oldest(), retained.newest), (Some(2), 2));
    }
}
