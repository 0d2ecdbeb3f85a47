//! What has happened, in numbers: of a session and of a model, from their beginning on. Reading them waits for nobody, whatever
//! runs; a program that reads them twice has what happened between. A generation's own figures are in kigo_generated.
//!
//! Times are nanoseconds of a clock that never goes back. Tokens count when a session holds them, so that those of a call that
//! fails do not, but its time does, once it has got its memory. Of figures that are read while others run, some may be older than others by one call.

use super::model::kigo_model;
use super::prelude::*;
use super::session::kigo_session;

/// What a session has come to. A fork and a restored session begin with zeros.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_session_figures {
    /// sizeof(kigo_session_figures), set by the caller.
    pub struct_size: usize,
    /// Tokens computed by calls of more than one: kigo_session_prefill(), kigo_session_advance(), entries of batches.
    pub n_tokens_prefilled: u64,
    /// Tokens taken from other sessions (KIGO_SESSION_REUSE_PREFIX).
    pub n_tokens_reused: u64,
    /// Tokens appended one by one: by calls of one token, and by generations.
    pub n_tokens_decoded: u64,
    /// The time of the calls of more than one token, from their beginning to their end, with their waiting; of an entry
    /// in a kigo_batch, from kigo_batch_add() on, so that what the host does meanwhile is in it. And of what
    /// kigo_session_truncate() computes again.
    pub prefill_ns: u64,
    /// The time of calls of one token, from their beginning to their end, and of kigo_session_generate() as a whole, but for its
    /// callbacks. Choosing a token by itself (kigo_session_sample()) counts nowhere.
    pub decode_ns: u64,
    /// The part of both in which tokens waited for a pass of theirs to begin: for passes of others, for calls that a pass
    /// gathers (KIGO_LOAD_MERGE_CALLS), for what another session computes (KIGO_SESSION_REUSE_PREFIX), in a
    /// batch for passes that had none of theirs, and in a kigo_batch for the host. What a device lets
    /// calls wait for inside of a pass, such as other models' passes, and on a GPU without KIGO_LOAD_MERGE_CALLS all
    /// others, is part of the pass and not of this.
    pub waiting_ns: u64,
}
sized_struct!(kigo_session_figures, bytes: 56, fields: [usize, u64, u64, u64, u64, u64, u64]);

/// Fills `figures`, whose `struct_size` the caller has set. Any thread, also while another is inside a call with the session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_stats(
    session: *const kigo_session,
    figures: *mut kigo_session_figures,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(figures, "figures")?;
        let found = borrow(session, "session")?.0.figures();
        let value = kigo_session_figures {
            struct_size: size,
            n_tokens_prefilled: found.n_prefilled,
            n_tokens_reused: found.n_reused,
            n_tokens_decoded: found.n_decoded,
            prefill_ns: found.prefill_ns,
            decode_ns: found.decode_ns,
            waiting_ns: found.waiting_ns,
        };
        fill(figures, size, &value);
        Ok(())
    })
}

/// What a model's sessions have come to together, those that are gone included, and what is under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_model_figures {
    /// sizeof(kigo_model_figures), set by the caller.
    pub struct_size: usize,
    /// Sessions that there are now, with those that kigo_model_embed() makes for itself.
    pub n_sessions: u64,
    /// Those of them with tokens in a pass that runs now.
    pub n_sessions_running: u64,
    /// Those of them whose tokens wait for a pass, or for what another session computes. The others are nowhere in a call, or
    /// choose a token.
    pub n_sessions_waiting: u64,
    /// The sums of the sessions' kigo_session_figures: tokens computed by calls of more than one,
    pub n_tokens_prefilled: u64,
    /// those appended one by one,
    pub n_tokens_decoded: u64,
    /// and those taken from other sessions.
    pub n_tokens_reused: u64,
    /// Tokens that were computed again, because layers with a window had given back what was behind it.
    pub n_tokens_recomputed: u64,
    /// Passes over the weights that have ended, also those that failed. Where a device chooses tokens ahead of the host,
    /// one for each token.
    pub n_passes: u64,
    /// Those of them with tokens of calls of more than one.
    pub n_prefill_passes: u64,
    /// The tokens of all passes, added up.
    pub n_pass_tokens: u64,
    /// The sessions of all passes, added up: how many shared one, times n_passes.
    pub n_pass_sessions: u64,
    /// The most tokens that a pass had.
    pub most_pass_tokens: u64,
    /// The time of all passes, added up.
    pub pass_ns: u64,
    /// That of those with tokens of calls of more than one.
    pub prefill_pass_ns: u64,
    /// That of the longest pass, those ahead of the host apart.
    pub longest_pass_ns: u64,
    /// Pages of KV cache in use now, as kigo_cache_facts has them.
    pub n_pages_used: u64,
    /// Those of them that no session holds: see kigo_load_options.prefix_cache_bytes.
    pub n_pages_retained: u64,
    /// Pages that were retained and have been given up so far, for others or for memory.
    pub n_pages_evicted: u64,
    /// Calls with sessions, and entries of batches, that a cancel or a callback in its place has stopped; generations that a cancel
    /// has ended are among them, though they succeed.
    pub n_cancelled: u64,
    /// Those refused because the session was in use: KIGO_STATUS_BUSY.
    pub n_busy: u64,
    /// Those that failed with KIGO_STATUS_CONTEXT_FULL,
    pub n_context_full: u64,
    /// with KIGO_STATUS_CACHE_FULL,
    pub n_cache_full: u64,
    /// with KIGO_STATUS_OUT_OF_MEMORY,
    pub n_out_of_memory: u64,
    /// and with any other status, as far as they came to a session: a pointer that is NULL does not.
    pub n_other_failures: u64,
}
sized_struct!(kigo_model_figures, bytes: 200, fields: [
    usize, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64,
]);

/// Fills `figures`, whose `struct_size` the caller has set. Any thread, also while others are inside calls with the model and
/// its sessions: no pass is waited for. All is 0 for a model without weights (KIGO_LOAD_VOCABULARY).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_stats(model: *const kigo_model, figures: *mut kigo_model_figures) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(figures, "figures")?;
        let model = borrow(model, "model")?;
        let (found, cache) = (model.0.figures(), model.0.cache_counts());
        let failures = found.failures;
        let value = kigo_model_figures {
            struct_size: size,
            n_sessions: found.n_sessions,
            n_sessions_running: found.n_running,
            n_sessions_waiting: found.n_waiting,
            n_tokens_prefilled: found.n_prefilled,
            n_tokens_decoded: found.n_decoded,
            n_tokens_reused: cache.n_tokens_saved,
            n_tokens_recomputed: found.n_recomputed,
            n_passes: found.n_passes,
            n_prefill_passes: found.n_prefill_passes,
            n_pass_tokens: found.n_pass_tokens,
            n_pass_sessions: found.n_pass_sessions,
            most_pass_tokens: found.most_pass_tokens,
            pass_ns: found.pass_ns,
            prefill_pass_ns: found.prefill_pass_ns,
            longest_pass_ns: found.longest_pass_ns,
            n_pages_used: cache.n_pages_used,
            n_pages_retained: cache.n_pages_retained,
            n_pages_evicted: cache.n_pages_evicted,
            n_cancelled: failures.n_cancelled,
            n_busy: failures.n_busy,
            n_context_full: failures.n_context_full,
            n_cache_full: failures.n_cache_full,
            n_out_of_memory: failures.n_out_of_memory,
            n_other_failures: failures.n_other,
        };
        fill(figures, size, &value);
        Ok(())
    })
}
