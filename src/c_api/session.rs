//! A session is one sequence: its tokens, their KV cache, its sampling parameters. Its life is
//! prefill, sample, step, sample, step, ...; kigo_session_generate() is that loop in one call.
//!
//! One thread at a time: a session that is in use, by another thread or by the callback that the call comes from, answers
//! KIGO_STATUS_BUSY and goes on with what it does. Only kigo_session_cancel(), _clear_cancel(), _last_error() and _stats(), whose
//! handle is const, may be called meanwhile. Different sessions, also of one model, run on different threads at once.
//!
//! At any time the session's tokens are exactly those in its cache, and its logits, where it has any, are those after the last of
//! them. A call that fails or is cancelled leaves tokens and logits as they were before it.
//!
//! Sameness. A session's logits and tokens depend on its tokens, its parameters and its seed, and on nothing else. On one device,
//! bit for bit: the same calls give the same on every run; a session gives the same alone, in any batch and beside any others; a
//! tap changes nothing, nor do fork, save and restore, or a truncation that is taken back. On the CPU, also: any number of
//! threads and any of its instruction sets give the same, and so do all ways to cut a prompt into calls and to share its
//! beginning with other sessions. A GPU computes the tokens of a call of 8 or more through other kernels than single steps: there
//! all ways to cut a prompt into calls of 8 or more give the same, and so does a beginning shared with a session that has got it
//! in such calls; what shorter calls append differs from that by rounding, unless KIGO_LOAD_STRICT. From one device to another
//! they always do (kigo_doctor() measures by how much).
//!
//! Passes. A prompt runs in passes. On the CPU a step (a call of one token) that has waited for one goes before the next; with
//! KIGO_LOAD_MERGE_CALLS it rides in it. kigo_load_options.pass_tokens says how long they are, and no bit depends on it.
//!
//! Cancelling. kigo_session_cancel() stops the session's running kigo_session_prefill(), _step() or _generate(), or a
//! kigo_session_truncate() that computes; if none is running, the next of them. So a cancel between two calls is not lost, and a
//! thread or a signal handler that cancels needs to know nothing of what the session does right now. Whoever runs the session
//! calls kigo_session_clear_cancel() where an earlier cancel is of no more interest, such as before a new question. A call that
//! has been stopped has used the cancel up; several before it count as one. On the CPU a call stops within the time of one layer
//! over a pass's tokens, at most 512, on a GPU of five layers over at most 2,048 or of sixteen single steps.

use super::model::kigo_model;
use super::prelude::*;
use super::sampling::{self, kigo_sampling};
use crate::engine::{Session, SessionOptions, check_salt};

/// One sequence.
pub struct kigo_session(pub(super) Session);

/// How a session is made. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_session_options {
    /// sizeof(kigo_session_options).
    pub struct_size: usize,
    /// The most tokens it can hold; 0, and at most: what the model was trained for. Memory is taken as tokens come, not
    /// here. A model with LongRoPE (Phi-3 of 128K) has two tables of factors: a session gets the long ones where n_ctx, 0
    /// included, is more than the model's original context, for all its tokens; whoever needs no more than that asks for it
    /// and gets the short ones, which are better there. kigo_session_facts.has_long_rope tells. No cache is shared between
    /// sessions of the one kind and the other; a fork and a restored session have their origin's.
    pub n_ctx: usize,
    /// Its sampling parameters, copied by the call; NULL: greedy.
    pub sampling: *const kigo_sampling,
    /// 0 or KIGO_SESSION_REUSE_PREFIX.
    pub flags: u64,
    /// `prefix_salt_len` bytes, copied by the call, that keep prefixes apart: pages are shared between sessions with the same bytes
    /// here and no others, whichever of them has the flag. A party's name or key, where parties must not learn of one another. A
    /// fork has its origin's.
    pub prefix_salt: *const c_void,
    /// How many, 1,024 at most; 0: the pages of those who have none.
    pub prefix_salt_len: usize,
}
sized_struct!(kigo_session_options, bytes: 48, fields: [usize, usize, *const kigo_sampling, u64, *const c_void, usize]);

/// For kigo_session_options.flags: where another session of the model holds the same tokens from the first on, such as
/// a system prompt, or computes them, or held them once (kigo_load_options.prefix_cache_bytes), their KV cache is shared in whole
/// pages of 64 tokens instead of being computed again: see "Kept prefixes". Looked for by a prefill while the session holds a
/// multiple of 64 tokens, best none. At least one is always computed; kigo_session_facts.n_tokens_reused counts the others. On a
/// GPU without KIGO_LOAD_STRICT logits differ by rounding where steps have computed some of what is shared: see "Sameness". How long
/// a prefill takes tells whether somebody else has that text: no flag, or salts, between parties that must not know.
pub const KIGO_SESSION_REUSE_PREFIX: u64 = 1;

/// Makes a session without tokens. `options` may be NULL: all defaults.
///
/// INVALID_ARGUMENT: n_ctx is larger than the model's, a sampling parameter is out of its range, unknown flags, a salt that is
/// too long.
/// INVALID_STATE: the model has no weights (KIGO_LOAD_VOCABULARY). OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_create(
    model: *const kigo_model,
    options: *const kigo_session_options,
    session: *mut *mut kigo_session,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(session, "session")?;
        let model = borrow(model, "model")?;
        let options = super::args::options(options)?;
        let n_ctx = (options.n_ctx != 0).then_some(options.n_ctx);
        let sampling = sampling::read(options.sampling)?;
        let reuse_prefix = flags(options.flags, KIGO_SESSION_REUSE_PREFIX, "flags")? != 0;
        let salt = slice(options.prefix_salt.cast::<u8>(), options.prefix_salt_len, "prefix_salt")?;
        check_salt(salt.len())?;
        let options = SessionOptions { n_ctx, sampling, reuse_prefix, prefix_salt: salt.to_vec() };
        put(session, kigo_session(Session::new(&model.0, options)?))
    })
}

/// Gives the handle up. NULL does nothing. From inside the session's own callback: the running call is cancelled and
/// frees the session when it returns. While another thread runs the session: forbidden.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_destroy(session: *mut kigo_session) {
    guard_free(|| {
        // SAFETY: the header's contract for handles.
        unsafe {
            if let Ok(held) = self::session(session) {
                held.0.cancel();
                destroy(session);
            }
        }
        Ok(())
    });
}

/// The session, for the length of a call.
///
/// # Safety
/// As for [`borrow`].
pub(super) unsafe fn session(handle: *const kigo_session) -> Result<Held<kigo_session>> {
    // SAFETY: passed on from this function's contract.
    unsafe { borrow(handle, "session") }
}

/// Replaces the sampling parameters, from the next sample on; NULL: greedy. INVALID_ARGUMENT: a parameter is out of
/// its range; the old ones stay. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_set_sampling(
    session: *mut kigo_session,
    sampling: *const kigo_sampling,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe { self::session(session)?.0.set_sampling(sampling::read(sampling)?) })
}

/// Appends `n_ids` tokens, at least one; afterwards the logits of the last are current.
///
/// INVALID_ARGUMENT: an id that is not below n_vocab (the text has its index), no ids. CONTEXT_FULL: they do not fit;
/// CACHE_FULL: kigo_load_options.cache_bytes has fewer pages left than they
/// need; OUT_OF_MEMORY: so has the engine's memory cap, or the machine. These are found out before anything runs, and
/// the text has the numbers. CANCELLED. BUSY. Tokens may come in one call or in several: see
/// "Sameness".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_prefill(
    session: *mut kigo_session,
    ids: *const u32,
    n_ids: usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe { self::session(session)?.0.prefill(slice(ids, n_ids, "ids")?) })
}

/// Appends one token: kigo_session_prefill() of one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_step(session: *mut kigo_session, token: u32) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe { self::session(session)?.0.prefill(&[token]) })
}

/// Picks the next token from the current logits; does not append it, and picks the same when asked again.
///
/// INVALID_STATE: there are no logits. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_sample(session: *mut kigo_session, token: *mut u32) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(token, "token")?;
        token.write(self::session(session)?.0.sample()?);
        Ok(())
    })
}

/// Stops the running call, or the next: see above. Any thread; also from a signal handler.
/// INVALID_ARGUMENT: NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_cancel(session: *const kigo_session) -> kigo_status {
    // SAFETY: the header's contract for handles.
    signal_safe(|| unsafe {
        borrow_anywhere(session, "session")?.0.cancel();
        Ok(())
    })
}

/// Forgets a cancel that no call has used up. Any thread. INVALID_ARGUMENT: NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_clear_cancel(session: *const kigo_session) -> kigo_status {
    // SAFETY: the header's contract for handles.
    signal_safe(|| unsafe {
        borrow_anywhere(session, "session")?.0.clear_cancel();
        Ok(())
    })
}

/// The current logits, n_vocab floats. Buffer out, counted in floats. INVALID_STATE: there are none. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_logits(
    session: *mut kigo_session,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let mut out = Buffer::new(buffer, capacity, needed, "buffer")?;
        let session = self::session(session)?;
        session.0.has_logits()?;
        out.make(session.0.n_vocab(), |out| session.0.logits(out))
    })
}

/// The natural logarithms of the probabilities that the current logits give, before any sampling parameter. Otherwise
/// as kigo_session_logits().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_logprobs(
    session: *mut kigo_session,
    buffer: *mut f32,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let mut out = Buffer::new(buffer, capacity, needed, "buffer")?;
        let session = self::session(session)?;
        session.0.has_logits()?;
        out.make(session.0.n_vocab(), |out| session.0.logprobs(out))
    })
}

/// The session's tokens from the first on. Buffer out, counted in ids. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_tokens(
    session: *mut kigo_session,
    ids: *mut u32,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(ids, capacity, needed, "ids")?;
        self::session(session)?.0.with_tokens(|tokens| out.store(tokens))
    })
}

/// How many tokens the session holds. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_n_tokens(session: *mut kigo_session, n_tokens: *mut usize) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(n_tokens, "n_tokens")?;
        n_tokens.write(self::session(session)?.0.with_tokens(|tokens| Ok(tokens.len()))?);
        Ok(())
    })
}

/// What a session holds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_session_facts {
    /// sizeof(kigo_session_facts), set by the caller.
    pub struct_size: usize,
    /// Tokens.
    pub n_tokens: u64,
    /// The most tokens it can hold.
    pub n_ctx: u64,
    /// Pages of KV cache.
    pub n_pages: u64,
    /// Those of the pages that no other session holds: what destroying this one makes free, or retained, as far as it is there.
    pub n_pages_own: u64,
    /// 1 if there are current logits, else 0.
    pub has_logits: u64,
    /// Tokens whose cache came from another session so far (KIGO_SESSION_REUSE_PREFIX).
    pub n_tokens_reused: u64,
    /// 1 if the session has the long factors of a model with LongRoPE, else 0: kigo_session_options.n_ctx has chosen.
    pub has_long_rope: u64,
    /// kigo_session_truncate() to as many tokens or more, or to none, is free now: nothing is computed again. 0 where no layer
    /// has a window or a state. It rises as memory is given back. Where layers keep a state it is `n_tokens`.
    pub truncate_free_from: u64,
    /// Bytes of its state, where layers keep one; a fork shares it until either goes on.
    pub state_bytes: u64,
    /// Checkpoints behind its tokens: see kigo_session_truncate().
    pub n_checkpoints: u64,
}
sized_struct!(kigo_session_facts, bytes: 88, fields: [usize, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64]);

/// Fills `facts`, whose `struct_size` the caller has set. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_info(session: *mut kigo_session, facts: *mut kigo_session_facts) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(facts, "facts")?;
        let found = self::session(session)?.0.facts()?;
        let value = kigo_session_facts {
            struct_size: size,
            n_tokens: found.n_tokens as u64,
            n_ctx: found.n_ctx as u64,
            n_pages: found.n_pages as u64,
            n_pages_own: found.n_pages_own as u64,
            has_logits: found.has_logits.into(),
            n_tokens_reused: found.n_reused as u64,
            has_long_rope: found.is_long.into(),
            truncate_free_from: found.n_free_from as u64,
            state_bytes: found.state_bytes,
            n_checkpoints: found.n_checkpoints as u64,
        };
        fill(facts, size, &value);
        Ok(())
    })
}

/// Makes a session with the same tokens, logits, context length and sampling parameters, in constant time. What they
/// have in common is held once: a fork takes no cache memory until it or the session goes on, and then a page of 64
/// tokens at most for what they had in common. Either may be changed, truncated or destroyed as if there were no other.
///
/// The seed is the same too, and with it the next tokens: kigo_session_set_sampling() gives the fork another.
/// BUSY. OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_fork(session: *mut kigo_session, fork: *mut *mut kigo_session) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(fork, "fork")?;
        put(fork, kigo_session(self::session(session)?.0.fork()?))
    })
}

/// Writes the session down: tokens, KV cache, logits, context length, sampling parameters, constraint; its random numbers
/// follow from these. Buffer out, counted in bytes; they depend on that state and nothing else. The session goes on.
///
/// A blob is large: about kigo_model_cache_bytes() of its tokens, less kigo_plan.cache_spare_bytes. It is as private as the text in it. Only
/// kigo_session_restore() with the same model file on the same kind of device, in this or another process, takes it; on a GPU,
/// where layers have a window, with the same KIGO_LOAD_STRICT.
/// BUSY. UNSUPPORTED: the device cannot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_save(
    session: *mut kigo_session,
    buffer: *mut c_void,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let mut out = Buffer::new(buffer.cast::<u8>(), capacity, needed, "buffer")?;
        let session = self::session(session)?;
        let n = session.0.saved_bytes()?;
        // Another size than a moment ago: another thread has had the session between.
        out.make(n, |out| if session.0.save(out)? == n { Ok(()) } else { Err(Error::Busy) })
    })
}

/// Makes a session of what kigo_session_save() wrote, `blob_bytes` at `blob`, copied by the call. It goes on as the
/// saved one would have, bit for bit.
///
/// A constraint is compiled again, as by kigo_session_set_constraint(). KIGO_SESSION_REUSE_PREFIX and a salt are not part of a
/// blob: where it comes from others, they must not learn by it what sessions of this model hold. A restored session has neither
/// and shares nothing, now or later, nor does any session share what is its own; n_tokens_reused is 0.
///
/// INVALID_ARGUMENT, with what was found and expected: another library's version of the blob, another model, a device
/// with another cache layout, a blob that is cut off or damaged, a constraint that does not compile. Bytes from anywhere do
/// no harm, but the checksum is no signature: a blob that somebody has forged makes a session with a false cache.
/// CACHE_FULL, OUT_OF_MEMORY. UNSUPPORTED: the device cannot, or adds in another order than the one that the blob names, so
/// that the session would not go on bit for bit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_restore(
    model: *const kigo_model,
    blob: *const c_void,
    blob_bytes: usize,
    session: *mut *mut kigo_session,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(session, "session")?;
        let model = borrow(model, "model")?;
        put(session, kigo_session(Session::restore(&model.0, slice(blob.cast::<u8>(), blob_bytes, "blob")?)?))
    })
}

/// The text of the last call with this handle that failed, on whichever thread, as kigo_last_error() has it of a
/// thread; empty if none has. Text out; 1,024 bytes always suffice. In a batch each session has its own. Calls that
/// succeed leave it alone, and so does this one. Any thread, also while another is inside a call with the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_last_error(
    session: *const kigo_session,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        last_error(session, "session", &out)
    })
}
