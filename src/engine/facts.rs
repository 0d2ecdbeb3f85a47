//! What a model takes and is, in figures that hold where layers differ.

use super::model::Model;
use crate::backend::PAGE_TOKENS;
use crate::error::{Error, Result};
use crate::model::{CacheClasses, Layer, Recurrent, RopeTable};

/// What a load takes, and a session of so many tokens; in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LoadPlan {
    pub weights_bytes: u64,
    /// Working memory of one session at a time.
    pub scratch_bytes: u64,
    /// The tokens that `cache_bytes` is for.
    pub n_tokens: usize,
    /// Whole pages.
    pub cache_bytes: u64,
    /// Those of `cache_bytes` that are given back when memory is short: what layers with a window do not read any more.
    pub spare_bytes: u64,
    /// The state of a session, however short it is.
    pub state_bytes: u64,
    /// A checkpoint of it.
    pub checkpoint_bytes: u64,
    /// The most bytes of those of all sessions.
    pub checkpoint_limit_bytes: u64,
}

/// How a layer mixes tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Mixers {
    pub attention: bool,
    pub short_conv: bool,
    pub delta_net: bool,
    pub mamba2: bool,
}

impl Mixers {
    fn of(layer: &Layer) -> Mixers {
        Mixers {
            attention: layer.attention().is_there(),
            short_conv: matches!(layer.recurrent, Some(Recurrent::ShortConv(_))),
            delta_net: matches!(layer.recurrent, Some(Recurrent::DeltaNet(_))),
            mamba2: matches!(layer.recurrent, Some(Recurrent::Mamba2(_))),
        }
    }
}

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LayerFacts {
    pub kv_bytes_per_token: u64,
    pub state_bytes: u64,
    pub mixers: Mixers,
    pub window: Option<u32>,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub k_head_dim: usize,
    pub v_head_dim: usize,
    /// The layer whose keys and values it sees: itself, or an earlier one.
    pub kv_layer: usize,
    /// Elements of a head that are turned by their position.
    pub n_rot: usize,
    /// Width of what every token goes through of the feed-forward part; 0 where there is nothing but experts.
    pub n_ff: usize,
    pub n_experts: usize,
    pub n_experts_used: usize,
    pub n_ff_expert: usize,
}

/// The tokens asked for, or as many as there can be.
pub(super) fn within(n_tokens: Option<usize>, n_ctx_train: usize) -> Result<usize> {
    match n_tokens {
        Some(n) if n > n_ctx_train => {
            let expected = format!("at most the model's {n_ctx_train}");
            Err(Error::Argument { name: "n_tokens", found: n.to_string(), expected })
        }
        n => Ok(n.unwrap_or(n_ctx_train)),
    }
}

/// Bytes of whole pages.
pub(super) fn cache_bytes(n_tokens: usize, kv_bytes_per_token: u64) -> u64 {
    (n_tokens.div_ceil(PAGE_TOKENS) as u64).saturating_mul(kv_bytes_per_token.saturating_mul(PAGE_TOKENS as u64))
}

/// Those of [`cache_bytes`] that are behind the windows.
pub(super) fn spare_bytes(n_tokens: usize, kv_bytes_per_token: u64, classes: &CacheClasses) -> u64 {
    let page_bytes = kv_bytes_per_token.saturating_mul(PAGE_TOKENS as u64);
    let behind = |class: usize| (classes.first(class, n_tokens) / PAGE_TOKENS) as u64;
    (0..classes.n()).map(|class| behind(class).saturating_mul(classes.share(class, page_bytes))).sum()
}

/// A layer's part of what a backend keeps of all of them, which is in proportion to their keys and values.
fn share(all: u64, of_layer: u64, of_layers: u64) -> u64 {
    (u128::from(all) * u128::from(of_layer) / u128::from(of_layers.max(1))) as u64
}

impl Model {
    /// What a session of so many tokens takes of the cache. Fails with `Argument` above the trained context.
    pub fn cache_bytes(&self, n_tokens: usize) -> Result<u64> {
        let facts = self.facts();
        Ok(cache_bytes(within(Some(n_tokens), facts.n_ctx_train)?, facts.kv_bytes_per_token))
    }

    /// What a layer is. Fails with `Argument` where there are not so many.
    pub fn layer_facts(&self, layer: usize) -> Result<LayerFacts> {
        let facts = self.facts();
        let config = self.inner.loaded.config();
        let Some(of_layer) = config.layers.get(layer).filter(|_| facts.has_weights) else {
            let expected = format!("below the model's {}", facts.n_layers);
            return Err(Error::Argument { name: "layer", found: layer.to_string(), expected });
        };
        let attention = of_layer.attention();
        Ok(LayerFacts {
            kv_bytes_per_token: share(
                facts.kv_bytes_per_token,
                config.layer_kv_bytes(layer) as u64,
                config.kv_bytes_per_token() as u64,
            ),
            state_bytes: (of_layer.state_len() * size_of::<f32>()) as u64,
            mixers: Mixers::of(of_layer),
            window: attention.window,
            n_heads: attention.n_heads,
            n_kv_heads: attention.n_kv_heads,
            k_head_dim: attention.head_dim,
            v_head_dim: attention.value_dim(),
            kv_layer: attention.kv_from.unwrap_or(layer),
            n_rot: config.rope_of(attention).map_or(0, RopeTable::n_rot),
            n_ff: of_layer.common_ffn().map_or(0, |ffn| ffn.width),
            n_experts: of_layer.experts().map_or(0, |e| e.n),
            n_experts_used: of_layer.experts().map_or(0, |e| e.n_used),
            n_ff_expert: of_layer.experts().map_or(0, |e| e.each.width),
        })
    }
}
