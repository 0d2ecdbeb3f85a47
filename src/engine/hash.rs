//! A checksum at the speed of memory, and what identifies a model.
//!
//! Eight lanes take 8 bytes of every 64 in turn, so that a processor's multiplier is always busy. Every step is a
//! bijection of its lane, so that no single change goes unseen. It finds damage and mistakes; it is not made against
//! somebody who looks for two inputs of one hash.

use crate::error::Result;
use crate::model::{Config, Weights};

const K: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of what it is fed.
#[derive(Clone)]
pub(super) struct Hasher {
    lanes: [u64; 8],
    n_bytes: u64,
}

fn step(lane: u64, word: u64) -> u64 {
    (lane ^ word).wrapping_mul(K).rotate_left(29)
}

impl Hasher {
    pub(super) fn new(seed: u64) -> Hasher {
        Hasher { lanes: std::array::from_fn(|i| step(seed, i as u64 + 1)), n_bytes: 0 }
    }

    /// The last block of each call is filled up with zeros.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let mut lanes = self.lanes;
        let (blocks, rest) = bytes.as_chunks::<64>();
        let mut last = [0_u8; 64];
        last[..rest.len()].copy_from_slice(rest);
        for block in blocks.iter().chain((!rest.is_empty()).then_some(&last)) {
            let (words, _) = block.as_chunks::<8>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane = step(*lane, u64::from_le_bytes(*word));
            }
        }
        self.lanes = lanes;
        self.n_bytes = self.n_bytes.wrapping_add(bytes.len() as u64);
    }

    pub(super) fn finish(&self) -> u64 {
        let mut hash = self.lanes.iter().fold(step(K, self.n_bytes), |hash, lane| step(hash, *lane));
        for _ in 0..2 {
            hash = (hash ^ hash >> 32).wrapping_mul(K);
        }
        hash ^ hash >> 32
    }
}

/// Bytes looked at in each of three places of a tensor.
const SAMPLE: usize = 1024;

/// What tells a model from others: its description, its tensors' names, types and shapes, and some of the bytes of each.
pub(super) fn model_hash(config: &Config, weights: &Weights<'_>) -> Result<[u64; 2]> {
    let mut sample = [0; SAMPLE];
    let mut hashers = [Hasher::new(1), Hasher::new(2)];
    let mut feed = |bytes: &[u8]| hashers.iter_mut().for_each(|h| h.feed(bytes));
    feed(format!("{config:?}").as_bytes());
    for tensor in weights.iter() {
        feed(format!("{} {} {} {}", tensor.name, tensor.ty.name(), tensor.rows, tensor.cols).as_bytes());
        let n = tensor.data.len();
        for at in [0, n / 2, n.saturating_sub(SAMPLE)] {
            let sample = &mut sample[..SAMPLE.min(n - at)];
            tensor.data.read(at, sample)?;
            feed(sample);
        }
    }
    Ok(hashers.map(|h| h.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(bytes: &[u8]) -> u64 {
        let mut h = Hasher::new(7);
        h.feed(bytes);
        h.finish()
    }

    #[test]
    fn every_bit_and_the_length_count() {
        let bytes: Vec<u8> = (0..200).map(|i| (i * 7) as u8).collect();
        let whole = hash(&bytes);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(hash(&changed), whole, "bit {bit}");
        }
        for n in 0..bytes.len() {
            assert_ne!(hash(&bytes[..n]), whole);
        }
        assert_ne!(hash(&[0; 3]), hash(&[0; 4]));
    }
}
