//! Seed-OSS: biases on q, k and v; the norm before the feed-forward part is named `post_attention_norm`.

use super::{Architecture, Config, Extras, Keys, Need, Norm};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "seed_oss", models: "Seed-OSS", norm: Norm::Rms, reads: &[], fill };

fn fill(_: &Keys<'_>, _: &mut Config, extras: &mut Extras) -> Result<()> {
    extras.qkv_bias = Need::Maybe;
    extras.o_bias = Need::Maybe;
    extras.ffn_norm_name = "post_attention_norm.weight";
    Ok(())
}
