//! Which pages hold which beginnings of sequences: a tree of whole pages, found by their tokens.
//!
//! Invariants: a node is the tokens of one page behind those of its parents, compared token by token and never by a
//! hash alone; it has the pages in use that hold these keys and values, and lives while it has one or a child. Whoever
//! holds a page of a node holds one of its parent too, so a node with a child has a page.

use std::collections::HashMap;

use crate::alloc::{asking, reserve};
use crate::backend::PAGE_TOKENS;

/// A page's tokens.
type Tokens = [u32; PAGE_TOKENS];

/// What stands before the first page, of sessions that are not long and of those that are.
const ROOTS: [u32; 2] = [u32::MAX, u32::MAX - 1];

struct Node {
    parent: u32,
    tokens: Tokens,
    pages: Vec<u32>,
    n_children: u32,
}

/// The tree.
#[derive(Default)]
pub(super) struct PrefixIndex {
    /// `None`: free to be used again.
    nodes: Vec<Option<Node>>,
    unused: Vec<u32>,
    children: HashMap<(u32, Tokens), u32>,
    node_of: HashMap<u32, u32>,
}

impl PrefixIndex {
    /// The node behind these pages; `None`: they are not in the tree.
    fn behind(&self, is_long: bool, pages: &[u32]) -> Option<u32> {
        pages.last().map_or(Some(ROOTS[usize::from(is_long)]), |page| self.node_of.get(page).copied())
    }

    /// Enters the pages of `pages` whose tokens are complete: `tokens[i * 64 ..]` are those of page i.
    pub(super) fn enter(&mut self, is_long: bool, pages: &[u32], tokens: &[u32]) {
        let whole = tokens.as_chunks::<PAGE_TOKENS>().0;
        let n = whole.len().min(pages.len());
        // From the end, since most often only the last is new.
        let known = (0..n).rev().find(|i| self.node_of.contains_key(&pages[*i])).map_or(0, |i| i + 1);
        let Some(mut parent) = self.behind(is_long, &pages[..known]) else { return };
        for (page, tokens) in pages[known..n].iter().zip(&whole[known..n]) {
            // Where there is no memory for more, the rest cannot be found: nothing depends on it.
            let known = self.children.get(&(parent, *tokens)).copied();
            if !self.has_room(known) {
                return;
            }
            let node = match known {
                Some(node) => node,
                None => {
                    let mut pages = Vec::new();
                    if reserve(&mut pages, 1).is_err() {
                        return;
                    }
                    self.make(parent, tokens, pages)
                }
            };
            let Some(Some(of_node)) = self.nodes.get_mut(node as usize) else { return };
            of_node.pages.push(*page);
            self.node_of.insert(*page, node);
            parent = node;
        }
    }

    /// Whether one more page can be entered, behind `node` if that is known, and taken out again, without more memory.
    fn has_room(&mut self, node: Option<u32>) -> bool {
        let unused = (self.nodes.len() + 1).saturating_sub(self.unused.len());
        let tables = asking(|| self.children.try_reserve(1).is_ok() && self.node_of.try_reserve(1).is_ok());
        let lists = tables && reserve(&mut self.nodes, 1).is_ok() && reserve(&mut self.unused, unused).is_ok();
        let known = node.and_then(|node| self.nodes.get_mut(node as usize)?.as_mut());
        lists && known.is_none_or(|node| reserve(&mut node.pages, 1).is_ok())
    }

    /// `pages` is empty and has room for one.
    fn make(&mut self, parent: u32, tokens: &Tokens, pages: Vec<u32>) -> u32 {
        let made = Node { parent, tokens: *tokens, pages, n_children: 0 };
        let node = match self.unused.pop() {
            Some(node) => {
                self.nodes[node as usize] = Some(made);
                node
            }
            None => {
                self.nodes.push(Some(made));
                self.nodes.len() as u32 - 1
            }
        };
        self.children.insert((parent, *tokens), node);
        if let Some(Some(parent)) = self.nodes.get_mut(parent as usize) {
            parent.n_children += 1;
        }
        node
    }

    /// Takes a page out that is free, or about to be written.
    pub(super) fn forget(&mut self, page: u32) {
        let Some(mut at) = self.node_of.remove(&page) else { return };
        if let Some(Some(node)) = self.nodes.get_mut(at as usize) {
            node.pages.retain(|p| *p != page);
        }
        while let Some(slot) = self.nodes.get_mut(at as usize)
            && let Some(node) = slot.take_if(|node| node.pages.is_empty() && node.n_children == 0)
        {
            self.unused.push(at);
            self.children.remove(&(node.parent, node.tokens));
            at = node.parent;
            if let Some(Some(parent)) = self.nodes.get_mut(at as usize) {
                parent.n_children -= 1;
            }
        }
    }

    /// Pages in use that hold what comes behind `pages` where `tokens` follow, of as many whole pages as there are; of several
    /// one for which `is_better` holds, if there is one.
    pub(super) fn find(
        &self,
        is_long: bool,
        pages: &[u32],
        tokens: &[u32],
        is_better: &dyn Fn(u32) -> bool,
    ) -> Vec<u32> {
        let mut found = Vec::new();
        let Some(mut parent) = self.behind(is_long, pages) else { return found };
        for tokens in tokens.as_chunks::<PAGE_TOKENS>().0 {
            let Some(node) = self.children.get(&(parent, *tokens)) else { break };
            let Some(Some(Node { pages, .. })) = self.nodes.get(*node as usize) else { break };
            let Some(page) = pages.iter().min_by_key(|page| (!is_better(**page), **page)) else { break };
            found.push(*page);
            parent = *node;
        }
        found
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

    fn find(index: &PrefixIndex, is_long: bool, pages: &[u32], tokens: &[u32]) -> Vec<u32> {
        index.find(is_long, pages, tokens, &|_| true)
    }

    #[test]
    fn what_was_entered_is_found_until_it_is_forgotten() {
        let mut index = PrefixIndex::default();
        index.enter(false, &[10, 11, 12], &tokens(&[1, 2, 3]));
        // The same beginning by another session, and then another end.
        index.enter(false, &[20, 21], &tokens(&[1, 2]));
        index.enter(false, &[20, 21, 22], &tokens(&[1, 2, 4]));
        assert_eq!(find(&index, false, &[], &tokens(&[1, 2, 3, 9])), [10, 11, 12]);
        assert_eq!(find(&index, false, &[], &tokens(&[1, 2, 4])), [10, 11, 22]);
        assert_eq!(find(&index, false, &[20], &tokens(&[2, 4])), [11, 22]);
        assert_eq!(find(&index, false, &[], &tokens(&[2])), [] as [u32; 0]);
        assert_eq!(find(&index, true, &[], &tokens(&[1, 2])), [] as [u32; 0], "other keys");
        assert_eq!(find(&index, false, &[99], &tokens(&[1])), [] as [u32; 0], "a page that is not in the tree");
        let almost = [&tokens(&[1])[..63], &[7]].concat();
        assert_eq!(find(&index, false, &[], &almost), [] as [u32; 0]);
        // The first session goes, from its end.
        for page in [12, 11, 10] {
            index.forget(page);
        }
        assert_eq!(find(&index, false, &[], &tokens(&[1, 2, 3])), [20, 21]);
        for page in [20, 21, 22] {
            index.forget(page);
        }
        assert_eq!((index.len(), index.children.len()), (0, 0));
        assert_eq!(index.unused.len(), index.nodes.len(), "nothing is left of it");
        index.enter(false, &[5], &tokens(&[8])[..64]);
        assert_eq!(find(&index, false, &[], &tokens(&[8, 8])), [5]);
    }
}
