//! One vector for a text, for search and comparison: the model's states behind its last norm, averaged over the text or
//! taken from its last token.

use super::model::kigo_model;
use super::prelude::*;
use crate::engine::{EmbedOptions, Pooling};

/// For kigo_embed_options.pooling: the mean over the tokens, the default.
pub const KIGO_POOLING_MEAN: i32 = 0;
/// For kigo_embed_options.pooling: the last token's.
pub const KIGO_POOLING_LAST: i32 = 1;

/// For kigo_embed_options.normalization: to length 1 (L2), the default.
pub const KIGO_NORMALIZATION_L2: i32 = 0;
/// For kigo_embed_options.normalization: as it is.
pub const KIGO_NORMALIZATION_NONE: i32 = 1;

/// How an embedding is made. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_embed_options {
    /// sizeof(kigo_embed_options).
    pub struct_size: usize,
    /// KIGO_POOLING_*.
    pub pooling: i32,
    /// KIGO_NORMALIZATION_*.
    pub normalization: i32,
}
sized_struct!(kigo_embed_options, bytes: 16, fields: [usize, i32, i32]);

fn known<const N: usize>(found: i32, known: [i32; N], name: &'static str) -> Result<()> {
    if known.contains(&found) {
        return Ok(());
    }
    Err(Error::Argument { name, found: found.to_string(), expected: format!("one of {known:?}") })
}

/// The embedding of a text's tokens, n_embd floats. Buffer out, counted in floats; only asking for the size runs nothing.
///
/// The tokens are those of kigo_tokenize(), with the begin and end tokens that the model wants. They run in a session of
/// the call's own: its cache is taken from the model's and given back (CACHE_FULL, OUT_OF_MEMORY). Any number of threads may
/// call this at once. On a device whose results do not depend on how a prompt is cut into passes (the CPU), the same
/// tokens give the same bits.
///
/// INVALID_ARGUMENT: no tokens, or an unknown pooling or normalization. CONTEXT_FULL: more tokens than the model's context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_embed(
    model: *const kigo_model,
    tokens: *const u32,
    n_tokens: usize,
    options: *const kigo_embed_options,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let mut out = Buffer::new(buffer, capacity, needed, "buffer")?;
        let model = &borrow(model, "model")?.0;
        let tokens = slice(tokens, n_tokens, "tokens")?;
        let options = super::args::options(options)?;
        known(options.pooling, [KIGO_POOLING_MEAN, KIGO_POOLING_LAST], "pooling")?;
        known(options.normalization, [KIGO_NORMALIZATION_L2, KIGO_NORMALIZATION_NONE], "normalization")?;
        let pooling = if options.pooling == KIGO_POOLING_MEAN { Pooling::Mean } else { Pooling::Last };
        let normalize = options.normalization == KIGO_NORMALIZATION_L2;
        out.make(model.facts().n_embd, |out| model.embed(tokens, EmbedOptions { pooling, normalize }, out))
    })
}
