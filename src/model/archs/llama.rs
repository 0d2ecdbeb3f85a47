//! Llama 1 to 3, SmolLM2, Mistral.
//!
//! The converter reorders the rows of Wq and Wk so that pairs of a head that turn together are adjacent. Llama 3's
//! rope scaling arrives as the tensor `rope_freqs.weight`, one divisor for each pair.

use super::{Extras, Keys, Need, wrong};
use crate::error::Result;
use crate::model::{Config, RopePairing};

pub(super) fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.ropes[0].pairing = RopePairing::Adjacent;
    extras.qkv_bias = Need::Maybe;
    extras.o_bias = Need::Maybe;
    extras.rope_freqs = Need::Maybe;
    // Mistral 7B v0.1: a window on every layer. Zero means none.
    let key = keys.key("attention.sliding_window");
    if let Some(n) = keys.gguf.opt_uint(&key)?.filter(|&n| n != 0) {
        let window = u32::try_from(n).map_err(|_| wrong(&key, n, format!("at most {}", u32::MAX)))?;
        config.layers.iter_mut().for_each(|layer| layer.attention_mut().window = Some(window));
    }
    Ok(())
}
