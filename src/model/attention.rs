//! How wide an attention is, and what holds of it.

use super::config::{Attention, Config, Layer};
use super::latent::MAX_LATENT_KEY;
use super::range::{check, in_range, positive};
use super::rope::RopeTable;
use crate::error::Result;

impl Attention {
    /// Elements of a position's queries as they meet keys.
    pub fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Elements of a position's keys.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Elements of a head of what is added up by the scores.
    pub fn value_dim(&self) -> usize {
        self.latent.map_or(self.head_dim, |latent| latent.rank)
    }

    /// Elements of a position's values that are kept beside its keys.
    pub fn v_width(&self) -> usize {
        if self.latent.is_some() { 0 } else { self.kv_width() }
    }

    /// Elements of what the heads make, which the last matrix reads.
    pub fn mix_width(&self) -> usize {
        self.latent.map_or(self.q_width(), |latent| self.n_heads * latent.v_dim)
    }

    /// Where in a key the elements that are turned begin.
    pub fn turned_at(&self) -> usize {
        self.latent.map_or(0, |latent| latent.rank)
    }

    /// Elements of a position's keys and values that this layer keeps.
    pub fn kept(&self) -> usize {
        if self.kv_from.is_some() { 0 } else { self.kv_width() + self.v_width() }
    }
}

impl Config {
    /// That the layer whose keys and values another reads has some, as that one would have them.
    pub(super) fn validate_source(&self, a: &Attention, layer: &str, index: usize) -> Result<()> {
        let Some(from) = a.kv_from else { return Ok(()) };
        let source = self.layers[..index].get(from).map(Layer::attention);
        let shape = |a: &Attention| (a.n_kv_heads, a.head_dim, a.window, a.latent.is_some());
        let fits = source.is_some_and(|source| source.kv_from.is_none() && shape(source) == shape(a));
        check(fits && a.latent.is_none(), &format!("{layer} source of keys and values"), &from, &|| {
            format!("a layer below {index} with keys and values of its own, and the same heads and window")
        })
    }
}

impl Attention {
    pub(super) fn validate(&self, layer: &str, ropes: &[RopeTable]) -> Result<()> {
        in_range(&format!("{layer} number of heads (attention.head_count)"), self.n_heads, 1 << 20)?;
        in_range(&format!("{layer} number of key-value heads (attention.head_count_kv)"), self.n_kv_heads, 1 << 20)?;
        check(
            self.n_heads.is_multiple_of(self.n_kv_heads),
            &format!("{layer} number of heads (attention.head_count)"),
            &self.n_heads,
            &|| format!("a multiple of {}, the number of key-value heads", self.n_kv_heads),
        )?;
        if let Some(latent) = &self.latent {
            let n_rot = self.rope.and_then(|rope| ropes.get(rope)).map(RopeTable::n_rot);
            latent.validate(layer, self.head_dim, n_rot)?;
            let name = format!("{layer} number of heads of latents");
            check(self.n_kv_heads == 1, &name, &self.n_kv_heads, &|| "1".into())?;
        }
        let most = if self.latent.is_some() { MAX_LATENT_KEY } else { 512 };
        let head_dim_ok = self.head_dim.is_multiple_of(2) && (8..=most).contains(&self.head_dim);
        let head_dim_ok = head_dim_ok && (self.latent.is_some() || self.head_dim.is_multiple_of(8));
        check(head_dim_ok, &format!("{layer} head size (attention.key_length)"), &self.head_dim, &|| {
            format!("a multiple of 8, 8 to {most}")
        })?;
        if let Some(index) = self.rope {
            let Some(rope) = ropes.get(index) else {
                return check(false, &format!("{layer} rope"), &index, &|| format!("below {}", ropes.len()));
            };
            let n_rot_ok = (2..=self.head_dim).contains(&rope.n_rot());
            check(n_rot_ok, "rope dimension count (rope.dimension_count)", &rope.n_rot(), &|| {
                format!("even, 2 to {}", self.head_dim)
            })?;
        }
        if let Some(temperature) = self.temperature {
            let beta = temperature.beta;
            let name = format!("{layer} temperature (attention.temperature_scale)");
            check(beta.is_finite() && beta >= 0.0, &name, &beta, &|| "finite, at least 0".into())?;
            check(temperature.interval > 0, &format!("{layer} temperature interval"), &0, &|| "at least 1".into())?;
        }
        positive(&format!("{layer} attention scale (attention.scale)"), self.scale)?;
        positive(&format!("{layer} attention logit softcap (attn_logit_softcapping)"), self.softcap.unwrap_or(1.0))?;
        check(self.window != Some(0), &format!("{layer} window"), &0, &|| "at least 1".into())
    }
}
