//! StableLM 2 and StableLM-3B-4E1T: LayerNorm, a part of each head turned, and a gate.
//!
//! The 12B model's halves of a layer read one norm side by side, which shows in that there is no other (its files' key
//! `use_parallel_residual` says so of all models). Its norms of the heads of q and k are LayerNorm of their own weights for each head,
//! which is not here: tensors of that name are refused.

use super::{Architecture, Block, Config, Extras, Keys, Need, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "stablelm",
    models: "StableLM 3B and 2 (but for 12B)",
    norm: Norm::Layer,
    reads: &["use_parallel_residual"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.norm_bias = Need::Yes;
    extras.qkv_bias = Need::Maybe;
    if keys.gguf.tensor("blk.0.ffn_norm.weight").is_none() {
        extras.ffn_norm = Need::No;
        config.layers.iter_mut().for_each(|layer| layer.block = Block::Parallel);
    }
    Ok(())
}
