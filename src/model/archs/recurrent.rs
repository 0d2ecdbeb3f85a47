//! Mixers with a state from a file's keys.

use super::keys::{Keys, MAX_SIZE, wrong};
use super::{Attention, Config, DeltaNet, Extras, KeyHeads, Layer, Mamba2, Mixer, QkNorm, Recurrent, ShortConv};
use crate::alloc::reserve_exact;
use crate::error::Result;
use crate::gguf::Value;

/// Another mixer in the place of a layer's attention.
pub(super) fn replace(layer: &mut Layer, mixer: Recurrent) {
    (layer.mixer, layer.recurrent) = (Mixer::Attention(Attention::NONE), Some(mixer));
}

/// A mixer on the layers that have no heads of keys.
pub(super) fn instead_of_attention(config: &mut Config, mixer: Recurrent) {
    let without = config.layers.iter_mut().filter(|layer| layer.attention().n_kv_heads == 0);
    without.for_each(|layer| replace(layer, mixer));
}

impl Keys<'_> {
    /// Short convolutions on the layers that have no heads of keys.
    pub fn short_convs(&self, config: &mut Config) -> Result<()> {
        let (width, len) = (config.n_embd, self.size("shortconv.l_cache", MAX_SIZE)?);
        instead_of_attention(config, Recurrent::ShortConv(ShortConv { width, len }));
        Ok(())
    }

    /// The Mamba2 of the file's keys; `norm`: whether what its heads make is normalized.
    pub fn mamba2(&self, norm: bool) -> Result<Recurrent> {
        let (heads, head_dim) = self.inner_heads("heads")?;
        let groups = self.size("ssm.group_count", MAX_SIZE)?;
        let (d_state, len) = (self.size("ssm.state_size", MAX_SIZE)?, self.size("ssm.conv_kernel", MAX_SIZE)?);
        Ok(Recurrent::Mamba2(Mamba2 { heads, head_dim, groups, d_state, len, norm }))
    }

    /// Heads that `ssm.inner_size` is cut into, and the elements of one.
    fn inner_heads(&self, what: &str) -> Result<(usize, usize)> {
        let (heads, inner) = (self.size("ssm.time_step_rank", MAX_SIZE)?, self.size("ssm.inner_size", MAX_SIZE)?);
        if !inner.is_multiple_of(heads) {
            let expected = format!("a multiple of {heads}, the number of {what}");
            return Err(wrong(&self.key("ssm.inner_size"), inner, expected));
        }
        Ok((heads, inner / heads))
    }

    /// DeltaNets on all layers but some, whose attention is gated; what the feed-forward parts read has another name, and there may
    /// be layers for drafts.
    pub fn delta_nets(&self, config: &mut Config, extras: &mut Extras, key_heads: KeyHeads) -> Result<()> {
        extras.ffn_norm_name = "post_attention_norm.weight";
        let of_layer = self.recurrent_layers(config.n_layers())?;
        let k_heads = self.size("ssm.group_count", MAX_SIZE)?;
        let (v_heads, v_dim) = self.inner_heads("value heads")?;
        let (k_dim, len) = (self.size("ssm.state_size", MAX_SIZE)?, self.size("ssm.conv_kernel", MAX_SIZE)?);
        let net = DeltaNet { k_heads, v_heads, k_dim, v_dim, len, key_heads };
        for (layer, is_recurrent) in config.layers.iter_mut().zip(of_layer) {
            if is_recurrent {
                replace(layer, Recurrent::DeltaNet(net));
            } else {
                let attention = layer.attention_mut();
                (attention.gated, attention.qk_norm) = (true, Some(QkNorm::Head));
            }
        }
        self.leave_out_drafts(config, extras)
    }

    /// Which layers have a state in the place of attention: one bool a layer, or all but each so many.
    fn recurrent_layers(&self, n_layers: usize) -> Result<Vec<bool>> {
        let mut flags = Vec::new();
        reserve_exact(&mut flags, n_layers)?;
        let key = self.key("attention.recurrent_layers");
        if let Some(array) = self.gguf.meta(&key).and_then(|value| value.as_array()) {
            let values = array.values().map_while(|value| match value {
                Value::Bool(flag) => Some(flag),
                value => value.as_int().map(|n| n != 0),
            });
            flags.extend(values.take(n_layers));
            if flags.len() != n_layers || array.len() != n_layers {
                let found = format!("an array of {}", array.len());
                return Err(wrong(&key, found, format!("{n_layers} bools, one a layer")));
            }
            return Ok(flags);
        }
        let interval = self.opt_size("full_attention_interval", MAX_SIZE)?.unwrap_or(4);
        flags.extend((1..=n_layers).map(|n| !n.is_multiple_of(interval)));
        Ok(flags)
    }
}
