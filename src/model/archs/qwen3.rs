//! Qwen 3 (dense): norms on the heads of q and k, no biases, a head size that is not `n_embd / n_heads`.

use super::{Extras, Keys, Need, qwen2};
use crate::error::Result;
use crate::model::Config;

pub(super) fn fill(keys: &Keys<'_>, _: &mut Config, extras: &mut Extras) -> Result<()> {
    qwen2::refuse_window(keys)?;
    extras.qk_norm = Need::Yes;
    Ok(())
}
