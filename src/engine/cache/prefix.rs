//! Which pages hold which beginnings of sequences: a tree of whole pages, found by their tokens; and which of them somebody is
//! computing right now.
//!
//! Invariants: a node is the tokens of one page behind those of its parents under one key, compared token by token and never by a
//! hash alone; it has the pages that hold these keys and values, and lives while it has one, a child, or somebody who computes it.
//! Whoever holds a page of a node held one of its parent when it was entered.

use std::collections::HashMap;
use std::sync::Arc;

use crate::alloc::{asking, reserve};
use crate::backend::PAGE_TOKENS;

/// A page's tokens.
pub(super) type Tokens = [u32; PAGE_TOKENS];

/// What tells apart beginnings of the same tokens that are not to be taken for one another: sessions that are long have other keys,
/// and those of another salt must not know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::engine) struct PrefixKey {
    pub(in crate::engine) is_long: bool,
    pub(in crate::engine) salt: Arc<Vec<u8>>,
}

/// Who computes the page of a node: the number of a call, and which of its pages it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) lead: u64,
    pub(super) at: usize,
}

/// The parent of what has none.
const NONE: u32 = u32::MAX;

struct Node {
    parent: u32,
    tokens: Tokens,
    pages: Vec<u32>,
    n_children: u32,
    pending: Option<Pending>,
    /// The key, where it is what stands before the first page.
    root: Option<PrefixKey>,
}

/// The tree.
#[derive(Default)]
pub(super) struct PrefixIndex {
    /// `None`: free to be used again.
    nodes: Vec<Option<Node>>,
    unused: Vec<u32>,
    roots: HashMap<PrefixKey, u32>,
    children: HashMap<(u32, Tokens), u32>,
    node_of: HashMap<u32, u32>,
}

impl PrefixIndex {
    fn node(&self, node: u32) -> Option<&Node> {
        self.nodes.get(node as usize)?.as_ref()
    }

    fn node_mut(&mut self, node: u32) -> Option<&mut Node> {
        self.nodes.get_mut(node as usize)?.as_mut()
    }

    /// The node behind these pages; `None`: they are not in the tree.
    pub(super) fn behind(&self, key: &PrefixKey, pages: &[u32]) -> Option<u32> {
        match pages.last() {
            Some(page) => self.node_of.get(page).copied(),
            None => self.roots.get(key).copied(),
        }
    }

    /// [`Self::behind`], where what stands before the first page is made if need be; `None`, too, where there is no memory for it.
    pub(super) fn behind_or_root(&mut self, key: &PrefixKey, pages: &[u32]) -> Option<u32> {
        let behind = self.behind(key, pages);
        if behind.is_some() || !pages.is_empty() {
            return behind;
        }
        if !self.has_room(1) || asking(|| self.roots.try_reserve(1)).is_err() {
            return None;
        }
        let root = self.add(Node {
            parent: NONE,
            tokens: [0; PAGE_TOKENS],
            pages: Vec::new(),
            n_children: 0,
            pending: None,
            root: Some(key.clone()),
        });
        self.roots.insert(key.clone(), root);
        Some(root)
    }

    /// The node of a page.
    pub(super) fn node_of(&self, page: u32) -> Option<u32> {
        self.node_of.get(&page).copied()
    }

    /// Whether the page is the only one of its node.
    pub(super) fn is_only(&self, page: u32) -> bool {
        self.node_of(page).and_then(|node| self.node(node)).is_some_and(|node| node.pages.len() == 1)
    }

    /// The pages of a node.
    pub(super) fn pages(&self, node: u32) -> &[u32] {
        self.node(node).map_or(&[], |node| &node.pages)
    }

    /// A page of these tokens behind a node.
    pub(super) fn known(&self, parent: u32, tokens: &Tokens) -> Option<u32> {
        self.children.get(&(parent, *tokens)).and_then(|node| self.pages(*node).first().copied())
    }

    /// Enters a page that is complete, behind a node; its own node. `None`: there is no memory for more, so that it and what follows
    /// cannot be found; nothing depends on it.
    pub(super) fn enter(&mut self, parent: u32, tokens: &Tokens, page: u32) -> Option<u32> {
        if asking(|| self.node_of.try_reserve(1)).is_err() {
            self.prune(parent);
            return None;
        }
        let node = self.child(parent, tokens)?;
        let pages = &mut self.node_mut(node)?.pages;
        if reserve(pages, 1).is_err() {
            self.prune(node);
            return None;
        }
        pages.push(page);
        self.node_of.insert(page, node);
        Some(node)
    }

    /// The node of these tokens behind another, which is made if need be; `None`: there is no memory for it.
    fn child(&mut self, parent: u32, tokens: &Tokens) -> Option<u32> {
        if let Some(node) = self.children.get(&(parent, *tokens)) {
            return Some(*node);
        }
        if !self.has_room(1) || asking(|| self.children.try_reserve(1)).is_err() {
            self.prune(parent);
            return None;
        }
        self.node_mut(parent)?.n_children += 1;
        let made = Node { parent, tokens: *tokens, pages: Vec::new(), n_children: 0, pending: None, root: None };
        let node = self.add(made);
        self.children.insert((parent, *tokens), node);
        Some(node)
    }

    /// Whether so many nodes more can be made, and given up again, without more memory.
    fn has_room(&mut self, n: usize) -> bool {
        let unused = (self.nodes.len() + n).saturating_sub(self.unused.len());
        reserve(&mut self.nodes, n).is_ok() && reserve(&mut self.unused, unused).is_ok()
    }

    /// There is room.
    fn add(&mut self, node: Node) -> u32 {
        match self.unused.pop() {
            Some(at) => {
                self.nodes[at as usize] = Some(node);
                at
            }
            None => {
                self.nodes.push(Some(node));
                self.nodes.len() as u32 - 1
            }
        }
    }

    /// Takes a page out that is free, or about to be written.
    pub(super) fn forget(&mut self, page: u32) {
        let Some(at) = self.node_of.remove(&page) else { return };
        if let Some(node) = self.node_mut(at) {
            node.pages.retain(|p| *p != page);
        }
        self.prune(at);
    }

    /// Takes out a node that nothing is known of, and what it was the last child of.
    fn prune(&mut self, mut at: u32) {
        let is_idle = |node: &mut Node| node.pages.is_empty() && node.n_children == 0 && node.pending.is_none();
        while let Some(slot) = self.nodes.get_mut(at as usize)
            && let Some(node) = slot.take_if(is_idle)
        {
            self.unused.push(at);
            match &node.root {
                Some(key) => drop(self.roots.remove(key)),
                None => drop(self.children.remove(&(node.parent, node.tokens))),
            }
            at = node.parent;
            if let Some(parent) = self.node_mut(at) {
                parent.n_children -= 1;
            }
        }
    }

    /// Pages that hold what comes behind `pages` where `tokens` follow, of as many whole pages as there are; of several one for which
    /// `is_better` holds, if there is one. Fewer where there is no memory for the list.
    pub(super) fn find(
        &self,
        key: &PrefixKey,
        pages: &[u32],
        tokens: &[u32],
        is_better: &dyn Fn(u32) -> bool,
    ) -> Vec<u32> {
        let mut found = Vec::new();
        let Some(mut parent) = self.behind(key, pages) else { return found };
        for tokens in tokens.as_chunks::<PAGE_TOKENS>().0 {
            let Some(node) = self.children.get(&(parent, *tokens)) else { break };
            let page = self.pages(*node).iter().min_by_key(|page| (!is_better(**page), **page));
            let Some(page) = page.filter(|_| reserve(&mut found, 1).is_ok()) else { break };
            found.push(*page);
            parent = *node;
        }
        found
    }

    /// The last page of those behind `pages` where `tokens` follow that somebody is computing for whom `is_waited_for` says so: the
    /// first of them in the way decides whose.
    pub(super) fn find_pending(
        &self,
        key: &PrefixKey,
        pages: &[u32],
        tokens: &[u32],
        is_waited_for: &dyn Fn(u64) -> bool,
    ) -> Option<Pending> {
        let mut parent = self.behind(key, pages)?;
        let mut last: Option<Pending> = None;
        for tokens in tokens.as_chunks::<PAGE_TOKENS>().0 {
            let Some(at) = self.children.get(&(parent, *tokens)) else { break };
            let Some(node) = self.node(*at) else { break };
            match node.pending {
                Some(pending) if node.pages.is_empty() => {
                    if !last.map_or_else(|| is_waited_for(pending.lead), |last| last.lead == pending.lead) {
                        break;
                    }
                    last = Some(pending);
                }
                _ if node.pages.is_empty() => break,
                _ => {}
            }
            parent = *at;
        }
        last
    }

    /// Enters that these pages behind a node are being computed, as far as nobody else computes or has them; their nodes go to
    /// `nodes`, which has room. How many are this call's.
    pub(super) fn enter_pending(
        &mut self,
        lead: u64,
        mut parent: u32,
        tokens: &[Tokens],
        nodes: &mut Vec<u32>,
    ) -> usize {
        let mut n = 0;
        for (at, tokens) in tokens.iter().enumerate() {
            let Some(child) = self.child(parent, tokens) else { break };
            let Some(node) = self.node_mut(child) else { break };
            if node.pages.is_empty() && node.pending.is_none() {
                node.pending = Some(Pending { lead, at });
                n += 1;
            }
            nodes.push(child);
            parent = child;
        }
        n
    }

    /// The opposite of [`Self::enter_pending`].
    pub(super) fn leave_pending(&mut self, lead: u64, nodes: &[u32]) {
        for &at in nodes.iter().rev() {
            if let Some(node) = self.node_mut(at)
                && node.pending.is_some_and(|pending| pending.lead == lead)
            {
                node.pending = None;
                self.prune(at);
            }
        }
    }

    /// Pages in the tree.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.node_of.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(pages: &[u32]) -> Vec<u32> {
        pages.iter().flat_map(|p| (0..PAGE_TOKENS as u32).map(move |i| p * 1000 + i)).collect()
    }

    fn key(is_long: bool, salt: &str) -> PrefixKey {
        PrefixKey { is_long, salt: Arc::new(salt.into()) }
    }

    fn enter(index: &mut PrefixIndex, key: &PrefixKey, pages: &[u32], texts: &[u32]) {
        let tokens = tokens(texts);
        let known = (0..pages.len()).rev().find(|i| index.node_of(pages[*i]).is_some()).map_or(0, |i| i + 1);
        let mut parent = index.behind_or_root(key, &pages[..known]).unwrap();
        for (page, tokens) in pages.iter().zip(tokens.as_chunks().0).skip(known) {
            parent = index.enter(parent, tokens, *page).unwrap();
        }
    }

    fn find(index: &PrefixIndex, key: &PrefixKey, pages: &[u32], tokens: &[u32]) -> Vec<u32> {
        index.find(key, pages, tokens, &|_| true)
    }

    fn is_empty(index: &PrefixIndex) -> bool {
        let n = index.len() + index.children.len() + index.roots.len();
        n == 0 && index.unused.len() == index.nodes.len()
    }

    #[test]
    fn what_was_entered_is_found_until_it_is_forgotten() {
        let (mut index, plain) = (PrefixIndex::default(), key(false, ""));
        enter(&mut index, &plain, &[10, 11, 12], &[1, 2, 3]);
        // The same beginning by another session, and then another end.
        enter(&mut index, &plain, &[20, 21], &[1, 2]);
        enter(&mut index, &plain, &[20, 21, 22], &[1, 2, 4]);
        assert_eq!(find(&index, &plain, &[], &tokens(&[1, 2, 3, 9])), [10, 11, 12]);
        assert_eq!(find(&index, &plain, &[], &tokens(&[1, 2, 4])), [10, 11, 22]);
        assert_eq!(find(&index, &plain, &[20], &tokens(&[2, 4])), [11, 22]);
        assert_eq!(find(&index, &plain, &[], &tokens(&[2])), [] as [u32; 0]);
        assert_eq!(find(&index, &key(true, ""), &[], &tokens(&[1, 2])), [] as [u32; 0], "other keys");
        assert_eq!(find(&index, &key(false, "a"), &[], &tokens(&[1, 2])), [] as [u32; 0], "another salt");
        assert_eq!(find(&index, &plain, &[99], &tokens(&[1])), [] as [u32; 0], "a page that is not in the tree");
        let almost = [&tokens(&[1])[..63], &[7]].concat();
        assert_eq!(find(&index, &plain, &[], &almost), [] as [u32; 0]);
        assert!(index.is_only(12) && index.is_only(22) && !index.is_only(11) && !index.is_only(99));
        // The first session goes, from its end.
        for page in [12, 11, 10] {
            index.forget(page);
        }
        assert_eq!(find(&index, &plain, &[], &tokens(&[1, 2, 3])), [20, 21]);
        for page in [20, 21, 22] {
            index.forget(page);
        }
        assert!(is_empty(&index), "nothing is left of it");
        enter(&mut index, &plain, &[5], &[8]);
        assert_eq!(find(&index, &plain, &[], &tokens(&[8, 8])), [5]);
    }

    #[test]
    fn what_somebody_computes_is_found_until_it_is_there() {
        let (mut index, plain) = (PrefixIndex::default(), key(false, ""));
        enter(&mut index, &plain, &[10], &[1]);
        let text = tokens(&[2, 3, 4]);
        let (mut first, mut second) = (Vec::with_capacity(9), Vec::with_capacity(9));
        assert_eq!(index.enter_pending(7, index.behind(&plain, &[10]).unwrap(), text.as_chunks().0, &mut first), 3);
        let pending = |index: &PrefixIndex, texts: &[u32], of: &dyn Fn(u64) -> bool| {
            index.find_pending(&plain, &[], &tokens(texts), of).map(|p| (p.lead, p.at))
        };
        assert_eq!(pending(&index, &[1, 2, 3, 9], &|_| true), Some((7, 1)));
        assert_eq!(pending(&index, &[1, 2, 3, 4, 5], &|_| true), Some((7, 2)));
        assert_eq!(pending(&index, &[1, 2, 3], &|lead| lead != 7), None);
        assert_eq!(pending(&index, &[1, 9], &|_| true), None);
        // Another call computes what goes on from there in another way, and is waited for in its turn.
        let text = tokens(&[2, 3, 5]);
        assert_eq!(index.enter_pending(8, index.behind(&plain, &[10]).unwrap(), text.as_chunks().0, &mut second), 1);
        assert_eq!(pending(&index, &[1, 2, 3, 5], &|_| true), Some((7, 1)));
        enter(&mut index, &plain, &[10, 11, 12], &[1, 2, 3]);
        assert_eq!(pending(&index, &[1, 2, 3, 5], &|_| true), Some((8, 2)));
        index.leave_pending(7, &first);
        assert_eq!(pending(&index, &[1, 2, 3, 4], &|_| true), None);
        index.leave_pending(8, &second);
        assert_eq!(find(&index, &plain, &[], &tokens(&[1, 2, 3, 5])), [10, 11, 12]);
        for page in [10, 11, 12] {
            index.forget(page);
        }
        assert!(is_empty(&index), "nothing is left of it");
    }
}
