//! What of a model keeps a state, and where; and what a layer has whose mixer is none of attention.

use super::config::{Attention, Config, Layer};
use super::recurrent::Recurrent;

impl Config {
    /// Elements of the state of a sequence; 0: no layer has one.
    pub fn state_len(&self) -> usize {
        self.layers.iter().map(Layer::state_len).sum()
    }

    /// Where a layer's part of the state begins.
    pub fn state_start(&self, layer: usize) -> usize {
        self.layers.iter().take(layer).map(Layer::state_len).sum()
    }
}

impl Attention {
    /// None: no heads, nothing kept of a position.
    pub const NONE: Attention = Attention {
        n_heads: 0,
        n_kv_heads: 0,
        head_dim: 0,
        window: None,
        rope: None,
        qk_norm: None,
        temperature: None,
        scale: 1.0,
        softcap: None,
        sinks: false,
        gated: false,
        k_as_v: false,
        v_norm: false,
        kv_from: None,
        latent: None,
    };

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.n_heads > 0
    }
}

impl Layer {
    /// Elements of its part of a sequence's state.
    pub fn state_len(&self) -> usize {
        self.recurrent.as_ref().map_or(0, Recurrent::state_len)
    }
}
