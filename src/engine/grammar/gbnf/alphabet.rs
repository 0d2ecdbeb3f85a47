//! The characters that a grammar tells apart, as classes, and sets of these.

use super::tree::Set;

/// A set of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn meets(&self, other: &Bits) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    /// Adds another's; whether that is more than before.
    pub(super) fn add(&mut self, other: &Bits) -> bool {
        let mut grows = false;
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            grows |= b & !*a != 0;
            *a |= b;
        }
        grows
    }
}

#[derive(Debug)]
pub(super) struct Alphabet {
    /// The classes of each set of the grammar.
    pub sets: Vec<Bits>,
    n_words: usize,
}

impl Alphabet {
    /// The classes of these sets; none if they would take too much.
    pub(super) fn new(sets: &[Set], most_words: usize) -> Option<Alphabet> {
        let mut begins: Vec<u32> = sets.iter().flat_map(Set::ranges).flat_map(|&(from, to)| [from, to + 1]).collect();
        begins.sort_unstable();
        begins.dedup();
        let n_words = begins.len() / 64 + 1;
        if n_words.saturating_mul(sets.len()) > most_words {
            return None;
        }
        let of = |set: &Set| {
            let mut bits = vec![0u64; n_words];
            for &(from, to) in set.ranges() {
                let at = |c: u32| begins.partition_point(|begin| *begin < c);
                (at(from)..at(to + 1)).for_each(|class| bits[class / 64] |= 1 << (class % 64));
            }
            Bits(bits)
        };
        Some(Alphabet { sets: sets.iter().map(of).collect(), n_words })
    }

    pub(super) fn none(&self) -> Bits {
        Bits(vec![0; self.n_words])
    }

    pub(super) fn n_words(&self) -> usize {
        self.n_words
    }
}
