//! How likely tokens are to come next: by the model alone, and by the sampler, whose draws follow the second. All
//! vocabulary's log probabilities at once, by the model alone, are kigo_session_logprobs().

use super::prelude::*;
use super::session::{kigo_session, session};
use crate::engine::{By, Logprob, Top};

/// A token with the natural logarithms of its probabilities. Frozen: it will never have more fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_logprob {
    /// The token.
    pub token: u32,
    /// What the model says: the softmax of the current logits, before bias, penalties, constraint and temperature.
    pub before: f32,
    /// What the sampler says: the next token is drawn with it, over all seeds; -INFINITY: it is not drawn, being cut off by
    /// the constraint, a limit or a bias. At temperature 0 the one that is chosen has 0, which is certainty.
    pub after: f32,
}

impl kigo_logprob {
    pub(super) fn of(p: &Logprob) -> kigo_logprob {
        kigo_logprob { token: p.token, before: p.before, after: p.after }
    }
}

/// For kigo_logprobs_options.flags: the largest are those by the sampler (kigo_logprob.after). Without it, by the model.
pub const KIGO_LOGPROBS_BY_AFTER: u64 = 1;

/// Which tokens. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_logprobs_options {
    /// sizeof(kigo_logprobs_options).
    pub struct_size: usize,
    /// `n_tokens` of them, such as the one that was chosen; any, in any order, also twice.
    pub tokens: *const u32,
    /// How many; 0: none.
    pub n_tokens: usize,
    /// And so many of the likeliest, n_vocab at most; 0: none.
    pub n_top: usize,
    /// 0 or KIGO_LOGPROBS_BY_AFTER.
    pub flags: u64,
}
sized_struct!(kigo_logprobs_options, bytes: 40, fields: [usize, *const u32, usize, usize, u64]);

/// The log probabilities of the tokens of `options`, in their order, and behind them those of the `n_top` likeliest, the
/// likeliest first; of equal ones that with the larger other probability, then the lower id. Buffer out, counted in
/// kigo_logprob: n_tokens + n_top, so that asking for the size is not needed. `options` may be NULL: none.
///
/// For the token that kigo_session_sample() would choose now, or has chosen, as long as it is not appended: afterwards the
/// logits are others. It takes a copy of the logits and one pass over the vocabulary, on the host, whatever the device.
///
/// INVALID_STATE: there are no logits. INVALID_ARGUMENT: a token that is not below n_vocab (the text has its index), n_top
/// above n_vocab, unknown flags. CONSTRAINT: as from kigo_session_sample(). BUSY. OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_token_logprobs(
    session: *mut kigo_session,
    options: *const kigo_logprobs_options,
    buffer: *mut kigo_logprob,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let mut out = Buffer::new(buffer, capacity, needed, "buffer")?;
        let session = self::session(session)?;
        let options = super::args::options(options)?;
        let flags = flags(options.flags, KIGO_LOGPROBS_BY_AFTER, "flags")?;
        let tokens = slice(options.tokens, options.n_tokens, "tokens")?;
        session.0.has_logits()?;
        let by = if flags & KIGO_LOGPROBS_BY_AFTER != 0 { By::After } else { By::Before };
        session.0.check_top(Top { n: options.n_top, by })?;
        out.make(tokens.len() + options.n_top, |out| {
            for (out, p) in out.iter_mut().zip(&session.0.token_logprobs(tokens, options.n_top, by)?) {
                *out = kigo_logprob::of(p);
            }
            Ok(())
        })
    })
}
