//! Phi-3, 3.5 and 4: a llama with pairs of halves, the rows of q, k and v in one tensor and those of gate and up in another.
//!
//! Phi-3 of 4K was trained with a window of 2,047 positions on every layer, which the file names. transformers masks so and llama.cpp
//! does not (its pull request 13676): here it is as it was trained.
//!
//! LongRoPE (Phi-3 of 128K, 3.5, 4-mini) has short factors for a context within the original one and long ones for a longer one,
//! which change every key from the first: a session's context length chooses, as in llama.cpp. transformers chooses by the tokens there
//! are so far, which leaves keys of the other kind in a cache.

use super::{Architecture, Config, Extras, Keys, LongContext, Need, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "phi3",
    models: "Phi-3, 3.5, 4 and 4-mini",
    norm: Norm::Rms,
    reads: &["attention.sliding_window"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.fused_gate_up = true;
    extras.o_bias = Need::Maybe;
    keys.window_on_all(config)?;
    if keys.has_long_rope() {
        extras.long_rope = true;
        let above = keys.original_context(config.n_ctx_train)?;
        if config.n_ctx_train as u64 > u64::from(above) {
            let head_dim = config.layers.first().map_or(0, |l| l.attention().head_dim);
            let rope = keys.scaled_rope("rope.freq_base", head_dim, config.n_ctx_train)?;
            config.long = Some(LongContext { above, ropes: vec![rope] });
        }
    }
    Ok(())
}
