//! GLM-4.5 to 4.7 (but for Flash): experts chosen by sigmoids and a bias, leading layers without, an expert that all positions
//! share, and half of each head turned.
//!
//! The last of a file's layers may be for drafts (`nextn_predict_layers`): it is no layer of the model, and left out.

use super::experts::Usual;
use super::{Architecture, Config, Extras, Keys, Need, Norm, QkNorm, Score};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "glm4moe",
    models: "GLM-4.5, 4.5-Air, 4.6 and 4.7",
    norm: Norm::Rms,
    reads: &["expert_count", "nextn_predict_layers"],
    fill,
};

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.ffn_norm_name = "post_attention_norm.weight";
    extras.qkv_bias = Need::Maybe;
    keys.refuse_sections()?;
    if keys.gguf.tensor("blk.0.attn_q_norm.weight").is_some() {
        config.layers.iter_mut().for_each(|layer| layer.attention_mut().qk_norm = Some(QkNorm::Head));
    }
    keys.experts(config, Usual { score: Score::Sigmoid, ..Usual::SOFTMAX })?;
    keys.leave_out_drafts(config, extras)
}
