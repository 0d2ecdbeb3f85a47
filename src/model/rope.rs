//! Rotary positions as tables: what turns each pair of a head's elements, however a model scales it.

use super::range::{check, positive};
use crate::alloc::reserve_exact;
use crate::error::Result;

/// How pairs of a head's elements are turned by their position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairing {
    /// Elements `2i` and `2i + 1` (GGUF's `llama`).
    Adjacent,
    /// Elements `i` and `i + n_rot / 2` (GPT-NeoX; qwen2, qwen3, gemma3).
    Halves,
}

impl RopePairing {
    /// The two elements of a head that pair `i` of `n_pairs` is made of.
    #[inline]
    pub fn pair(self, i: usize, n_pairs: usize) -> (usize, usize) {
        match self {
            RopePairing::Adjacent => (2 * i, 2 * i + 1),
            RopePairing::Halves => (i, i + n_pairs),
        }
    }
}

/// Rotary positions: pair `i` of a head turns by `p * position_scale * inv_freq[i] / divisors[i]` at position `p`, and is
/// multiplied by `magnitude`. Elements of a head behind the pairs stay as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    /// Radians a position, `[n_rot / 2]`. Models were trained with these rounded to f32, where a backend computes so.
    pub inv_freq: Vec<f64>,
    /// The file's `rope_freqs`, as long as `inv_freq`; `None`: 1.
    pub divisors: Option<Vec<f32>>,
    /// 1 / the linear scaling factor.
    pub position_scale: f32,
    /// Multiplies sine and cosine (YaRN's); 1 without it.
    pub magnitude: f32,
    /// See [`RopePairing`].
    pub pairing: RopePairing,
}

/// YaRN: frequencies that turn often within the original context stay, those that turn less than once are divided by the
/// factor, and those between are mixed in proportion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// What the context grows by; at least 1.
    pub factor: f32,
    /// Positions that the model was trained for before.
    pub original_context: u32,
    /// Turns within the original context from which on a frequency stays.
    pub beta_fast: f32,
    /// Turns below which a frequency is divided.
    pub beta_slow: f32,
}

impl Yarn {
    /// `1 + 0.1 multiplier ln(factor)`, what sine and cosine are multiplied by, of a multiplier that is 1 but where a model
    /// says otherwise.
    pub fn magnitude(&self, multiplier: f32) -> f64 {
        1.0 + 0.1 * f64::from(multiplier) * f64::from(self.factor).ln().max(0.0)
    }

    /// The pair, as a number with a fraction, that turns so often in the original context.
    fn pair(&self, turns: f32, base: f32, n_rot: usize) -> f64 {
        let wavelength = f64::from(self.original_context) / (f64::from(turns) * 2.0 * std::f64::consts::PI);
        n_rot as f64 * wavelength.ln() / (2.0 * f64::from(base).ln())
    }

    /// What the frequency of pair `i` is multiplied by.
    fn scale(&self, i: usize, (first, last): (f64, f64)) -> f64 {
        // As llama.cpp and transformers have it, also where both pairs are the same.
        let mixed = ((i as f64 - first) / (last - first).max(0.001)).clamp(0.0, 1.0);
        mixed / f64::from(self.factor) + (1.0 - mixed)
    }
}

impl RopeTable {
    /// `base^(-2i / n_rot)`, unscaled.
    pub fn of_base(base: f32, n_rot: usize, pairing: RopePairing) -> Result<RopeTable> {
        let inv_freq = |i| f64::from(base).powf(-2.0 * i as f64 / n_rot as f64);
        let mut table = Vec::new();
        reserve_exact(&mut table, n_rot / 2)?;
        table.extend((0..n_rot / 2).map(inv_freq));
        Ok(RopeTable { inv_freq: table, divisors: None, position_scale: 1.0, magnitude: 1.0, pairing })
    }

    /// [`Self::of_base`] with a base above 1, its frequencies scaled by YaRN; the magnitude is the caller's to set.
    pub fn yarn(base: f32, n_rot: usize, pairing: RopePairing, yarn: &Yarn) -> Result<RopeTable> {
        let mut table = RopeTable::of_base(base, n_rot, pairing)?;
        // Whole pairs; gpt-oss alone was trained with fractions.
        let first = yarn.pair(yarn.beta_fast, base, n_rot).floor().max(0.0);
        let last = yarn.pair(yarn.beta_slow, base, n_rot).ceil().min(n_rot as f64 - 1.0);
        for (i, frequency) in table.inv_freq.iter_mut().enumerate() {
            *frequency *= yarn.scale(i, (first, last));
        }
        Ok(table)
    }

    /// Elements of a head that are turned, from its start.
    pub fn n_rot(&self) -> usize {
        2 * self.inv_freq.len()
    }

    /// What divides the frequency of pair `i`.
    pub fn divisor(&self, i: usize) -> f32 {
        self.divisors.as_ref().map_or(1.0, |d| d[i])
    }

    pub(super) fn validate(&self, name: &str) -> Result<()> {
        positive(&format!("{name} scale"), self.position_scale)?;
        positive(&format!("{name} magnitude"), self.magnitude)?;
        // A base that is not positive makes the frequencies so.
        for f in &self.inv_freq {
            check(f.is_finite() && *f > 0.0, &format!("{name} frequency"), f, &|| "positive and finite".into())?;
        }
        let n = self.divisors.as_ref().map_or(self.inv_freq.len(), Vec::len);
        check(n == self.inv_freq.len(), &format!("{name} divisors"), &n, &|| self.inv_freq.len().to_string())
    }
}
