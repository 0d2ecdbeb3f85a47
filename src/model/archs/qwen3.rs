//! Qwen 3 (dense): norms on the heads of q and k, no biases, a head size that is not `n_embd / n_heads`.

use super::{Extras, Keys, qwen2};
use crate::error::Result;
use crate::model::{Config, QkNorm};

pub(super) fn fill(keys: &Keys<'_>, config: &mut Config, _: &mut Extras) -> Result<()> {
    qwen2::refuse_window(keys)?;
    config.layers.iter_mut().for_each(|layer| layer.attention_mut().qk_norm = Some(QkNorm::Head));
    Ok(())
}
