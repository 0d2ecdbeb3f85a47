//! Merging neighbours, the best pair first: what both kinds of vocabulary do with a word.
//!
//! A word of n symbols takes O(n log n) time and at most 25 bytes a symbol, however it is made up: what is out of date
//! in the queue is cleared away when the queue is full, and an entry is current exactly if its key is that of its
//! symbol's pair now.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::alloc::reserve;
use crate::error::{Error, Result};

/// No symbol, no pair.
pub(super) const NONE: u32 = u32::MAX;

/// Which neighbours merge, and in which order.
pub(super) trait Rules {
    /// The number of what the two become, or [`NONE`]. `behind` is the value of the symbol behind them, `None` at the end.
    fn pair(&mut self, left: u32, right: u32, behind: Option<u32>) -> u32;
    /// Its place in the order: the lowest first, of equals the leftmost.
    fn key(&self, pair: u32) -> u32;
    /// Called when a pair is merged, with the same values; what the merged symbol's value is.
    fn merged(&mut self, pair: u32, left: u32, right: u32, behind: Option<u32>) -> Result<u32>;
}

/// A word in the making.
pub(super) struct Symbols {
    /// What the rules make of a symbol.
    values: Vec<u32>,
    next: Vec<u32>,
    prev: Vec<u32>,
    /// The pair of a symbol and its right neighbour.
    pairs: Vec<u32>,
    /// `key << 32 | symbol`.
    queue: BinaryHeap<Reverse<u64>>,
}

/// Fails on a text that has more symbols, at most one a byte, than their numbers reach.
pub(super) fn check_len(bytes: usize) -> Result<()> {
    match u32::try_from(bytes) {
        Ok(n) if n < NONE => Ok(()),
        _ => {
            let found = format!("a word of {bytes} bytes");
            Err(Error::Argument { name: "text", found, expected: "below 4 GiB".into() })
        }
    }
}

impl Symbols {
    /// A word of these values. Fails with `OutOfMemory`.
    ///
    /// There are fewer than [`NONE`], and at most `n`.
    pub fn new(n: usize, values: impl Iterator<Item = u32>) -> Result<Symbols> {
        let mut lists = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for list in &mut lists {
            list.try_reserve_exact(n).map_err(|_| out_of_memory(n))?;
        }
        let [mut all, mut next, mut prev, mut pairs] = lists;
        all.extend(values.take(n));
        let n = all.len() as u32;
        next.extend((1..n).chain((n > 0).then_some(NONE)));
        prev.extend((n > 0).then_some(NONE).into_iter().chain(0..n.saturating_sub(1)));
        pairs.resize(n as usize, NONE);
        let mut queue = Vec::new();
        // An eighth more than there are pairs: the queue is full only after that many merges.
        let room = n as usize + n as usize / 8 + 8;
        queue.try_reserve_exact(room).map_err(|_| out_of_memory(room))?;
        Ok(Symbols { values: all, next, prev, pairs, queue: BinaryHeap::from(queue) })
    }

    /// Merges what there is to merge.
    pub fn merge(&mut self, rules: &mut impl Rules) -> Result<()> {
        let mut first = std::mem::take(&mut self.queue).into_vec();
        for i in 0..self.values.len() as u32 {
            if let Some(entry) = self.renew(i, rules) {
                first.push(Reverse(entry));
            }
        }
        self.queue = BinaryHeap::from(first);
        while let Some(Reverse(entry)) = self.queue.pop() {
            let i = entry as u32;
            if !self.is_current(entry, rules) {
                continue;
            }
            let right = self.next[i as usize];
            let behind = self.next[right as usize];
            let [left_value, right_value] = [i, right].map(|s| self.values[s as usize]);
            let pair = self.pairs[i as usize];
            self.values[i as usize] = rules.merged(pair, left_value, right_value, self.value(behind))?;
            self.next[i as usize] = behind;
            self.pairs[right as usize] = NONE;
            if behind != NONE {
                self.prev[behind as usize] = i;
            }
            let before = self.prev[i as usize];
            for i in [before, i] {
                if let Some(entry) = (i != NONE).then(|| self.renew(i, rules)).flatten() {
                    self.push(entry, rules);
                }
            }
        }
        Ok(())
    }

    fn value(&self, i: u32) -> Option<u32> {
        self.values.get(i as usize).copied()
    }

    /// Finds the symbol's pair anew; its entry in the queue.
    fn renew(&mut self, i: u32, rules: &mut impl Rules) -> Option<u64> {
        let right = self.next[i as usize];
        let pair = match self.value(right) {
            Some(value) => rules.pair(self.values[i as usize], value, self.value(self.next[right as usize])),
            None => NONE,
        };
        self.pairs[i as usize] = pair;
        (pair != NONE).then(|| u64::from(rules.key(pair)) << 32 | u64::from(i))
    }

    fn is_current(&self, entry: u64, rules: &impl Rules) -> bool {
        let pair = self.pairs[entry as u32 as usize];
        pair != NONE && rules.key(pair) == (entry >> 32) as u32
    }

    /// Queues an entry. A full queue is first rid of what is out of date and of what stands in it twice, which leaves at
    /// most one entry a symbol.
    fn push(&mut self, entry: u64, rules: &impl Rules) {
        if self.queue.len() == self.queue.capacity() {
            let mut queue = std::mem::take(&mut self.queue).into_vec();
            queue.retain(|e| self.is_current(e.0, rules));
            queue.sort_unstable();
            queue.dedup();
            self.queue = BinaryHeap::from(queue);
        }
        self.queue.push(Reverse(entry));
    }

    /// The values of the symbols that are left, in order; their number first. The rest is given back before.
    pub fn into_values(self) -> (usize, impl Iterator<Item = u32>) {
        let Symbols { values, next, .. } = self;
        let follow = move |i: &u32| next.get(*i as usize).copied().filter(|&i| i != NONE);
        let mut count = 0;
        let mut i = (!values.is_empty()).then_some(0);
        while let Some(at) = i {
            count += 1;
            i = follow(&at);
        }
        let first = (!values.is_empty()).then_some(0);
        (count, std::iter::successors(first, follow).map(move |i| values[i as usize]))
    }
}

fn out_of_memory(n: usize) -> Error {
    Error::OutOfMemory { place: "host".to_owned(), requested: n as u64 * 8, free: 0 }
}

/// Appends, or fails where there is no memory.
pub(super) fn extend(out: &mut Vec<u32>, n: usize, values: impl Iterator<Item = u32>) -> Result<()> {
    reserve(out, n)?;
    out.extend(values.take(n));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neighbours x and y become x + y where that is in the list; the order is its place there.
    struct Sums(Vec<u32>);

    impl Rules for Sums {
        fn pair(&mut self, left: u32, right: u32, _: Option<u32>) -> u32 {
            self.0.iter().position(|s| *s == left + right).map_or(NONE, |i| i as u32)
        }
        fn key(&self, pair: u32) -> u32 {
            pair / 2
        }
        fn merged(&mut self, pair: u32, left: u32, right: u32, _: Option<u32>) -> Result<u32> {
            assert_eq!(self.0[pair as usize], left + right);
            Ok(left + right)
        }
    }

    /// The same by looking through all pairs for each merge.
    fn slowly(rules: &mut Sums, mut word: Vec<u32>) -> Vec<u32> {
        loop {
            let pairs = (1..word.len()).filter_map(|i| {
                let pair = rules.pair(word[i - 1], word[i], None);
                (pair != NONE).then(|| (rules.key(pair), i))
            });
            let Some((_, i)) = pairs.min() else { return word };
            word[i - 1] += word.remove(i);
        }
    }

    #[test]
    fn merges_as_looking_through_all_pairs_does() {
        let mut seed = 1_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((seed >> 33) % below) as u32
        };
        for n in (0..40).chain([200, 500]) {
            for _ in 0..20 {
                let mut rules = Sums((0..12).map(|_| 2 + random(14)).collect());
                let word: Vec<u32> = (0..n).map(|_| 1 + random(4)).collect();
                let mut symbols = Symbols::new(word.len(), word.iter().copied()).unwrap();
                let room = symbols.queue.capacity();
                symbols.merge(&mut rules).unwrap();
                assert_eq!(symbols.queue.capacity(), room, "the queue never grows");
                let (count, values) = symbols.into_values();
                let values: Vec<u32> = values.collect();
                assert_eq!((count, values.clone()), (values.len(), slowly(&mut rules, word)));
            }
        }
    }
}
