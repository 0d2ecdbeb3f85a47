//! Merging neighbours, the best pair first: what both kinds of vocabulary do with a word.
//!
//! A long word is merged in windows, so that all that is looked at stays in the processor's caches. That the outcome is
//! that of the whole word at once holds for any rules, and is checked at each joint:
//!
//! If all neighbours t, u of a sequence are what merging the symbols of t and u alone comes to, the sequence is what
//! merging all symbols comes to. For, take the first merge that crosses a boundary of the sequence, that of t and u: until
//! then the symbols of t and u were merged as if they were alone, since whichever pair is the best of all is the best of
//! its part too, and alone they are not merged across. The other way round, neighbours in the outcome of a window are what
//! they are alone. So each window begins with the last token of the one before, and where that comes out as it went in,
//! all neighbours have been seen together. Where it does not, the word is merged at once.
//!
//! That takes O(n log n) time and at most 25 bytes a symbol, however the word is made up: what is out of date in the
//! queue is cleared away when the queue is full, and an entry is current exactly if its key is that of its symbol's pair
//! now.

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
    /// Appends what a symbol stands for that is left when all is merged; called in order.
    fn write(&mut self, value: u32, behind: Option<u32>, out: &mut Vec<u32>) -> Result<()>;
    /// What was written does not count: it comes again from the beginning.
    fn restart(&mut self) {}
}

/// Symbols of a window, and of those how many come again with the next, since what follows may change them.
const WINDOW: usize = 1024;
const AGAIN: usize = WINDOW / 8;

/// Appends what a word of at most `n` symbols with these values comes to.
pub(super) fn encode<R: Rules>(
    n: usize,
    values: impl Iterator<Item = u32> + Clone,
    rules: &mut R,
    out: &mut Vec<u32>,
) -> Result<()> {
    if n > WINDOW {
        let mark = out.len();
        if by_windows(values.clone(), rules, out)? {
            return Ok(());
        }
        out.truncate(mark);
        rules.restart();
    }
    let mut symbols = Symbols::new(n, values)?;
    symbols.merge(rules, None)?;
    symbols.each(None, &mut |_, _, value, behind| rules.write(value, behind, out))
}

/// The same window by window; false where a joint does not hold.
fn by_windows<R: Rules>(mut values: impl Iterator<Item = u32>, rules: &mut R, out: &mut Vec<u32>) -> Result<bool> {
    let mut size = WINDOW;
    let mut window = Vec::new();
    // Symbols at the window's beginning that are the last token written.
    let mut joint = 0;
    loop {
        // One more than is merged: what is behind it.
        let missing = (size + 1).saturating_sub(window.len());
        reserve(&mut window, missing)?;
        while window.len() <= size
            && let Some(value) = values.next()
        {
            window.push(value);
        }
        let n = window.len().min(size);
        let behind = window.get(size).copied();
        let mut symbols = Symbols::new(n, window.iter().copied())?;
        symbols.merge(rules, behind)?;
        let safe = if behind.is_some() { n - AGAIN } else { n };
        let (mut holds, mut last) = (joint == 0, None);
        symbols.each(behind, &mut |from, to, value, behind| {
            if from < joint {
                holds |= to == joint;
            } else if holds && to <= safe {
                rules.write(value, behind, out)?;
                last = Some((from, to));
            }
            Ok(())
        })?;
        if !holds {
            return Ok(false);
        }
        match last {
            _ if behind.is_none() => return Ok(true),
            Some((from, to)) => {
                window.drain(..from);
                joint = to - from;
            }
            // One token is nearly all of it.
            None => size = size.saturating_mul(2),
        }
    }
}

/// Symbols in the making.
struct Symbols {
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
    /// Those of these values. Fails with `OutOfMemory`.
    ///
    /// There are fewer than [`NONE`], and at most `n`.
    fn new(n: usize, values: impl Iterator<Item = u32>) -> Result<Symbols> {
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

    /// Merges what there is to merge. `end`: the value of the symbol behind the last.
    fn merge(&mut self, rules: &mut impl Rules, end: Option<u32>) -> Result<()> {
        let mut first = std::mem::take(&mut self.queue).into_vec();
        for i in 0..self.values.len() as u32 {
            if let Some(entry) = self.renew(i, rules, end) {
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
            self.values[i as usize] = rules.merged(pair, left_value, right_value, self.value(behind).or(end))?;
            self.next[i as usize] = behind;
            self.pairs[right as usize] = NONE;
            if behind != NONE {
                self.prev[behind as usize] = i;
            }
            let before = self.prev[i as usize];
            for i in [before, i] {
                if let Some(entry) = (i != NONE).then(|| self.renew(i, rules, end)).flatten() {
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
    fn renew(&mut self, i: u32, rules: &mut impl Rules, end: Option<u32>) -> Option<u64> {
        let right = self.next[i as usize];
        let pair = match self.value(right) {
            Some(value) => {
                let behind = self.value(self.next[right as usize]).or(end);
                rules.pair(self.values[i as usize], value, behind)
            }
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

    /// Those that are left, in order: the first of its symbols, the one behind them, its value and that of what is behind.
    fn each(&self, end: Option<u32>, give: &mut dyn FnMut(usize, usize, u32, Option<u32>) -> Result<()>) -> Result<()> {
        let mut i = 0;
        while i < self.values.len() {
            let next = self.next[i];
            let to = if next == NONE { self.values.len() } else { next as usize };
            give(i, to, self.values[i], self.value(next).or(end))?;
            i = to;
        }
        Ok(())
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
    struct Sums {
        list: Vec<u32>,
        n_restarts: usize,
    }

    impl Rules for Sums {
        fn pair(&mut self, left: u32, right: u32, _: Option<u32>) -> u32 {
            self.list.iter().position(|s| *s == left + right).map_or(NONE, |i| i as u32)
        }
        fn key(&self, pair: u32) -> u32 {
            pair / 2
        }
        fn merged(&mut self, pair: u32, left: u32, right: u32, _: Option<u32>) -> Result<u32> {
            assert_eq!(self.list[pair as usize], left + right);
            Ok(left + right)
        }
        fn write(&mut self, value: u32, _: Option<u32>, out: &mut Vec<u32>) -> Result<()> {
            out.push(value);
            Ok(())
        }
        fn restart(&mut self) {
            self.n_restarts += 1;
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

    fn random() -> impl FnMut(u64) -> u32 {
        let mut seed = 1_u64;
        move |below| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((seed >> 33) % below) as u32
        }
    }

    #[test]
    fn merges_as_looking_through_all_pairs_does() {
        let mut random = random();
        for n in (0..40).chain([200, 500]) {
            for _ in 0..20 {
                let mut rules = Sums { list: (0..12).map(|_| 2 + random(14)).collect(), n_restarts: 0 };
                let word: Vec<u32> = (0..n).map(|_| 1 + random(4)).collect();
                let mut symbols = Symbols::new(word.len(), word.iter().copied()).unwrap();
                let room = symbols.queue.capacity();
                symbols.merge(&mut rules, None).unwrap();
                assert_eq!(symbols.queue.capacity(), room, "the queue never grows");
                let mut values = Vec::new();
                encode(word.len(), word.iter().copied(), &mut rules, &mut values).unwrap();
                assert_eq!(values, slowly(&mut rules, word));
            }
        }
    }

    /// Lists whose order has nothing of a vocabulary's: what windows give is what the word gives at once.
    #[test]
    fn windows_give_what_the_whole_gives() {
        let mut random = random();
        let (mut n_by_windows, mut n_at_once) = (0, 0);
        for round in 0..60 {
            let most = [6, 20, 200, 3000][round % 4];
            let mut rules = Sums { list: (0..40).map(|_| 2 + random(most)).collect(), n_restarts: 0 };
            if round % 3 == 0 {
                rules.list = (1..13).map(|i| 1 << i).collect(); // runs of one symbol
            }
            let kinds = [1, 1, 3][round % 3];
            let word: Vec<u32> = (0..WINDOW + random(5 * WINDOW as u64) as usize).map(|_| 1 + random(kinds)).collect();
            let mut whole = Symbols::new(word.len(), word.iter().copied()).unwrap();
            whole.merge(&mut rules, None).unwrap();
            let (mut expected, mut found) = (vec![], vec![7]);
            whole.each(None, &mut |_, _, value, _| rules.write(value, None, &mut expected)).unwrap();
            encode(word.len(), word.iter().copied(), &mut rules, &mut found).unwrap();
            assert_eq!(found[1..], expected, "{:?}", rules.list);
            n_by_windows += 1 - rules.n_restarts;
            n_at_once += rules.n_restarts;
        }
        assert!(n_by_windows > 20, "{n_by_windows} by windows, {n_at_once} at once");
    }

    /// What follows decides at the very beginning: no window can know it, and the joint says so.
    #[test]
    fn a_word_that_no_window_can_know_is_merged_at_once() {
        /// 1, 2, 3, ... of which neighbours merge, the later pair first.
        struct FromTheEnd(usize);
        impl Rules for FromTheEnd {
            fn pair(&mut self, left: u32, right: u32, _: Option<u32>) -> u32 {
                if left < 1 << 20 && right == left + 1 { left } else { NONE }
            }
            fn key(&self, pair: u32) -> u32 {
                (1 << 20) - pair
            }
            fn merged(&mut self, _: u32, left: u32, _: u32, _: Option<u32>) -> Result<u32> {
                Ok(left | 1 << 20)
            }
            fn write(&mut self, value: u32, _: Option<u32>, out: &mut Vec<u32>) -> Result<()> {
                out.push(value);
                Ok(())
            }
            fn restart(&mut self) {
                self.0 += 1;
            }
        }
        for n in [WINDOW as u32 + 1, 5000, 5001] {
            let (mut rules, mut out) = (FromTheEnd(0), vec![]);
            encode(n as usize, 1..=n, &mut rules, &mut out).unwrap();
            let odd = n % 2 == 1;
            let expected: Vec<u32> =
                odd.then_some(1).into_iter().chain((1 + u32::from(odd)..n).step_by(2).map(|i| i | 1 << 20)).collect();
            assert_eq!(out, expected);
            assert!(n % 2 == 0 || rules.0 == 1 || WINDOW % 2 == 1, "{n}: {} restarts", rules.0);
        }
    }
}
