//! Granite 4 (H): Granite's four factors, Mamba2 on the layers without heads of keys, and perhaps experts with one that all
//! positions share. A file without a rope says so, as Granite's does.

use super::experts::Usual;
use super::recurrent::instead_of_attention;
use super::{Architecture, Config, Extras, Keys, Norm, granite};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "granitehybrid",
    models: "Granite 4 (H)",
    norm: Norm::Rms,
    reads: &["expert_count", "logit_scale", "residual_scale"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    granite::fill(keys, config, extras)?;
    instead_of_attention(config, keys.mamba2(true)?);
    // Converters write 0 where there are none, and the width of what is shared all the same.
    match keys.gguf.opt_uint(&keys.key("expert_count"))? {
        None | Some(0) => Ok(()),
        Some(_) => keys.experts(config, Usual::SOFTMAX),
    }
}
