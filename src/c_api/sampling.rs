//! How the next token is chosen from the logits. The choice depends on the logits, these parameters, the position and
//! the session's tokens, and on nothing else: the same calls give the same tokens on every run and every device that
//! gives the same logits. Ties go to the lowest id.
//!
//! Applied in this order: logit bias, penalties, temperature, top-k, top-p, min-p, the draw.

use super::prelude::*;
use crate::sampler::SamplingParams;

/// Added to one token's logit. Frozen: it will never have more fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_logit_bias {
    /// The token.
    pub token: u32,
    /// What is added to its logit; -INFINITY bans it.
    pub bias: f32,
}

/// A kigo_sampling.penalty_window of all tokens of the session.
pub const KIGO_PENALTY_WINDOW_ALL: u32 = 0xFFFF_FFFF;

/// How the next token is chosen. 0 is the default of each field; all defaults are greedy.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_sampling {
    /// sizeof(kigo_sampling).
    pub struct_size: usize,
    /// Key of the random numbers; another seed is another text. 0 is a seed like any other.
    pub seed: u64,
    /// Divides the logits, 0.0001 to 10000; 0: greedy, the most likely token always.
    pub temperature: f32,
    /// Keep the k most likely; 0: all.
    pub top_k: u32,
    /// Keep the fewest most likely tokens that have this share (0 to 1) of the probability together; 0 or 1: all.
    pub top_p: f32,
    /// Drop what is less likely than this share (0 to 1) of the most likely; 0: none.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in the window, 0.01 to 100; 0 or 1: off.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit once for each time it stands in the window, -10000 to 10000; 0: off.
    pub frequency_penalty: f32,
    /// Subtracted from a token's logit once if it stands in the window, -10000 to 10000; 0: off.
    pub presence_penalty: f32,
    /// The penalties look at this many of the session's last tokens; 0: 64. See KIGO_PENALTY_WINDOW_ALL.
    pub penalty_window: u32,
    /// `n_logit_bias` of them, copied by the call.
    pub logit_bias: *const kigo_logit_bias,
    /// How many.
    pub n_logit_bias: usize,
}
sized_struct!(kigo_sampling, bytes: 64, fields: [
    usize, u64, f32, u32, f32, f32, f32, f32, f32, u32, *const kigo_logit_bias, usize,
]);

/// The parameters as the engine layer takes them; their ranges are checked there.
///
/// # Safety
/// `sampling` is NULL or as the header says.
pub(super) unsafe fn read(sampling: *const kigo_sampling) -> Result<SamplingParams> {
    // SAFETY: passed on from this function's contract.
    let s = unsafe { options(sampling)? };
    // SAFETY: passed on from this function's contract.
    let logit_bias = unsafe { slice(s.logit_bias, s.n_logit_bias, "logit_bias")? };
    Ok(SamplingParams {
        temperature: s.temperature,
        top_k: s.top_k,
        top_p: s.top_p,
        min_p: s.min_p,
        repetition_penalty: if s.repetition_penalty == 0.0 { 1.0 } else { s.repetition_penalty },
        frequency_penalty: s.frequency_penalty,
        presence_penalty: s.presence_penalty,
        penalty_window: match s.penalty_window {
            0 => SamplingParams::default().penalty_window,
            KIGO_PENALTY_WINDOW_ALL => 0,
            n => n,
        },
        logit_bias: logit_bias.iter().map(|b| (b.token, b.bias)).collect(),
        seed: s.seed,
    })
}
