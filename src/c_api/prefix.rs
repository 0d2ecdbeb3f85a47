//! Tokens that are not computed again: of a session that goes back and on, and of others whose prompts begin alike.
//!
//! A session with KIGO_SESSION_REUSE_PREFIX takes over, page by page of 64 tokens, what any session of the model with the same
//! kigo_session_options.prefix_salt holds, or is computing right now, or held once (kigo_load_options.prefix_cache_bytes). For what
//! another call is computing, of another thread or another entry of the same batch, it waits; kigo_session_cancel() ends the
//! waiting within 10 milliseconds, or in a batch behind the pass that runs. It goes on by itself where that call fails or is cancelled. What it waited for is no part of its
//! memory: that is taken, and may be found missing, when it goes on.
//!
//! A call waits for nobody that may wait for it, whatever the threads, batches and merged calls; one that is made from inside
//! another's callback, or by a thread that such a callback waits for, goes on by itself after 5 to 10 milliseconds.
//!
//! A polled batch waits inside of kigo_batch_run() alone, and no longer than that may take; between two runs what it computes is waited
//! for 5 to 10 milliseconds.
//!
//! When a context is full, the newest part of a conversation goes on in a shorter one: kigo_session_advance() with the ids of the
//! system prompt and the newest turns. examples-c/window.c does that, docs/CONTEXT.md tells why.

use super::prelude::*;
use super::session::{kigo_session, session};
use crate::engine::Advanced;

/// Drops all tokens but the first `n_tokens`. There are no logits then until the next prefill or step, unless nothing
/// was dropped: to have them, keep one token less and step() the last again.
///
/// Layers with a window (kigo_layer_facts.window) keep what is behind it until another session or the memory cap needs it.
/// Where the window in front of `n_tokens` has gone, the call computes it again from the nearest tokens that have theirs, with
/// the same bits, having made sure of the memory first: below kigo_session_facts.truncate_free_from it may take as long as a
/// prefill of `n_tokens`, and kigo_session_cancel() stops it. A tap does not see that.
///
/// Layers that keep a state (kigo_layer_facts.state_bytes) have it behind the last token alone, and copies of it, checkpoints, behind some
/// multiples of 64 tokens, closer together towards the end: as many as kigo_load_options.checkpoint_bytes allows, and fewer where
/// memory is short. The call goes on from the newest of them in front of `n_tokens`, from none at worst, likewise with the same bits.
///
/// INVALID_ARGUMENT: the session holds fewer. BUSY. OUT_OF_MEMORY, while forks hold the same tokens or there is something to
/// compute; CACHE_FULL and CANCELLED, in the latter case. The session is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_truncate(session: *mut kigo_session, n_tokens: usize) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard_free(|| unsafe { self::session(session)?.0.truncate(n_tokens) })
}

/// Called before each pass of a call, on the calling thread: `n_done` of `n_total` tokens are in the session's cache. Returns 0 to go
/// on; anything else stops the call with KIGO_STATUS_CANCELLED. The session is busy meanwhile, other sessions are not;
/// kigo_session_cancel() and destroying the session stop the call, too. It is not called while the call waits for what another
/// computes. It must return (not throw, not longjmp).
pub type kigo_prefill_callback =
    Option<unsafe extern "C" fn(n_done: usize, n_total: usize, user_data: *mut c_void) -> i32>;

/// How a session advances. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_advance_options {
    /// sizeof(kigo_advance_options).
    pub struct_size: usize,
    /// Told of the progress, and may cancel; NULL: nobody.
    pub progress: kigo_prefill_callback,
    /// Handed to `progress`.
    pub user_data: *mut c_void,
}
sized_struct!(kigo_advance_options, bytes: 24, fields: [usize, kigo_prefill_callback, *mut c_void]);

/// What became of the tokens that a session has been advanced to; the three add up to `n_ids`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_advanced {
    /// sizeof(kigo_advanced), set by the caller.
    pub struct_size: usize,
    /// The session held so many of them, from the first on.
    pub n_kept: u64,
    /// So many were taken from other sessions (KIGO_SESSION_REUSE_PREFIX).
    pub n_reused: u64,
    /// So many were computed.
    pub n_computed: u64,
}
sized_struct!(kigo_advanced, bytes: 32, fields: [usize, u64, u64, u64]);

/// Makes the session hold exactly `ids`, with the logits of the last: what it holds of them from the first on is kept, all else is
/// dropped, and what follows is prefilled. `options` may be NULL. The caller sets `advanced->struct_size`.
///
/// At least one token is computed for its logits, unless the session holds exactly `ids` and has them. The result is that of
/// kigo_session_truncate() and kigo_session_prefill(), bit for bit, but for this: a failure, or a cancel at any time, leaves tokens
/// and logits as they were. So where tokens are dropped, their pages stay until the call has succeeded, beside those that it
/// takes: with the cache nearly full it may be CACHE_FULL where those two calls are not.
///
/// INVALID_ARGUMENT: an id that is not below n_vocab (the text has its index), no ids. CONTEXT_FULL: more than the session's n_ctx.
/// CACHE_FULL, OUT_OF_MEMORY: as from kigo_session_prefill(). CANCELLED. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_advance(
    session: *mut kigo_session,
    ids: *const u32,
    n_ids: usize,
    options: *const kigo_advance_options,
    advanced: *mut kigo_advanced,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(advanced, "advanced")?;
        let session = self::session(session)?;
        let options = super::args::options(options)?;
        let ids = slice(ids, n_ids, "ids")?;
        let mut told = options.progress.map(|progress| {
            move |n_done: usize, n_total: usize| outside(|| progress(n_done, n_total, options.user_data)) == 0
        });
        let told = told.as_mut().map(|told| told as &mut dyn FnMut(usize, usize) -> bool);
        let Advanced { n_kept, n_reused, n_computed } = session.0.advance(ids, told)?;
        let value = kigo_advanced {
            struct_size: size,
            n_kept: n_kept as u64,
            n_reused: n_reused as u64,
            n_computed: n_computed as u64,
        };
        fill(advanced, size, &value);
        Ok(())
    })
}
