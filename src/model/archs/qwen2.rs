//! Qwen 2 and 2.5: biases on q, k and v; the output matrix is the embedding unless the file has one.

use super::{Extras, Keys, Need};
use crate::error::Result;
use crate::model::Config;

pub(super) fn fill(keys: &Keys<'_>, _: &mut Config, extras: &mut Extras) -> Result<()> {
    refuse_window(keys)?;
    extras.qkv_bias = Need::Yes;
    Ok(())
}

/// Qwen's configurations name a window that only some layers of some models use; no converter writes it, and a file
/// that has it does not say which layers are meant.
pub(super) fn refuse_window(keys: &Keys<'_>) -> Result<()> {
    let key = keys.key("attention.sliding_window");
    match keys.gguf.opt_uint(&key)? {
        None | Some(0) => Ok(()),
        Some(n) => Err(super::unsupported(&key, n, "0, or no such key")),
    }
}
