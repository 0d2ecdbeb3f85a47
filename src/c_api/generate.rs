//! The loop of sampling and stepping in one call, with its text streamed out.

use super::logprobs::kigo_logprob;
use super::prelude::*;
use super::session::{kigo_session, session};
use super::tokenizer::{KIGO_TEXT_SPECIAL, KIGO_TOKEN_NONE};
use crate::engine::{By, GenerateOptions, Generated, Session, Step, StopReason, Top};

/// A text in an array. Frozen: it will never have more fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_string {
    /// UTF-8.
    pub data: *const c_char,
    /// Length of `data`, or KIGO_STRLEN.
    pub len: usize,
}

/// For kigo_generate_options.flags: a token that ends the generation is appended, counted and handed to the callback
/// like any other, and then ends it. Without it, it is only named in kigo_generated.stop_token.
pub const KIGO_GENERATE_KEEP_END: u64 = 2;
/// For kigo_generate_options.flags: tokens that end a generation are tokens like any other, as a benchmark wants it.
pub const KIGO_GENERATE_IGNORE_END: u64 = 4;
/// For kigo_generate_options.flags: the likeliest of a kigo_step_event are those by the sampler (kigo_logprob.after). Without
/// it, by the model.
pub const KIGO_GENERATE_TOP_BY_AFTER: u64 = 8;

/// Why a generation ended: max_tokens tokens were generated.
pub const KIGO_STOP_MAX_TOKENS: i32 = 1;
/// Why a generation ended: the model chose a token that ends a generation (kigo_generated.stop_token).
pub const KIGO_STOP_END_TOKEN: i32 = 2;
/// Why a generation ended: the text reached a stop string (kigo_generated.stop_index).
pub const KIGO_STOP_STRING: i32 = 3;
/// Why a generation ended: the session's context is full.
pub const KIGO_STOP_CONTEXT_FULL: i32 = 4;
/// Why a generation ended: the callback returned something other than 0.
pub const KIGO_STOP_CALLBACK: i32 = 5;
/// Why a generation ended: kigo_session_cancel().
pub const KIGO_STOP_CANCELLED: i32 = 6;

/// Receives each token after it has been appended, with the text that has become complete by it: `text_len` bytes of
/// whole UTF-8 characters at `text` with a NUL behind them, valid during the call, often empty, since what could be
/// the beginning of a stop string or of a character is held back. What is still held back at the end comes with a last
/// call whose token is KIGO_TOKEN_NONE (not after a stop by the callback or a cancel, which ends the calls). All texts
/// together are the answer, without the stop string.
///
/// Returns 0 to go on; anything else stops with KIGO_STOP_CALLBACK. The session is busy meanwhile; other sessions are
/// not. It must return (not throw, not longjmp).
pub type kigo_token_callback =
    Option<unsafe extern "C" fn(token: u32, text: *const c_char, text_len: usize, user_data: *mut c_void) -> i32>;

/// A token that has been generated and appended, with what it was chosen from.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_step_event {
    /// sizeof(kigo_step_event) of the library: a field behind it is not there.
    pub struct_size: usize,
    /// The text that has become complete by it, as kigo_token_callback gets it: UTF-8, a NUL behind it.
    pub text: *const c_char,
    /// Bytes of `text`.
    pub text_len: usize,
    /// The token's own bytes, as kigo_token_text() has them, a NUL behind them; not always UTF-8.
    pub bytes: *const c_char,
    /// How many, without that NUL.
    pub n_bytes: usize,
    /// The likeliest tokens in its place, `n_top` of them, in the order of kigo_session_token_logprobs().
    pub top: *const kigo_logprob,
    /// kigo_generate_options.n_top; 0 where `token` is KIGO_TOKEN_NONE.
    pub n_top: usize,
    /// Where the token stands in the session, from 0; with KIGO_TOKEN_NONE, how many tokens the session holds.
    pub position: u64,
    /// The token. KIGO_TOKEN_NONE: there is none more, but text that was held back.
    pub token: u32,
    /// What the model gave it: see kigo_logprob.before. 0 where `token` is KIGO_TOKEN_NONE.
    pub before: f32,
    /// What the sampler drew it with, its parameters and the session's constraint applied: see kigo_logprob.after.
    pub after: f32,
    /// 0.
    pub reserved: u32,
}
sized_struct!(kigo_step_event, bytes: 80, fields: [
    usize, *const c_char, usize, *const c_char, usize, *const kigo_logprob, usize, u64, u32, f32, f32, u32,
]);

/// Receives each token after it has been appended, with what it was chosen from; the event and what it points at are valid
/// during the call. Otherwise as kigo_token_callback.
pub type kigo_step_callback =
    Option<unsafe extern "C" fn(event: *const kigo_step_event, user_data: *mut c_void) -> i32>;

/// How to generate. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_generate_options {
    /// sizeof(kigo_generate_options).
    pub struct_size: usize,
    /// Stop after this many tokens; 0: when the context is full.
    pub max_tokens: usize,
    /// Stop where the text reaches one of these `n_stop` texts, none of them empty; copied by the call.
    pub stop: *const kigo_string,
    /// How many.
    pub n_stop: usize,
    /// Receives the tokens; NULL: nobody.
    pub on_token: kigo_token_callback,
    /// Handed to `on_token` and to `on_step`.
    pub user_data: *mut c_void,
    /// KIGO_TEXT_SPECIAL, KIGO_GENERATE_KEEP_END, KIGO_GENERATE_IGNORE_END, KIGO_GENERATE_TOP_BY_AFTER.
    pub flags: u64,
    /// Receives the tokens with their log probabilities; NULL: nobody, and nothing of them is computed. With `on_token`, too,
    /// it is called first for each token, and what either returns stops. The tokens are the same with it and without. It
    /// takes a copy of the logits and a pass over the vocabulary for each token, on the host, and a GPU then
    /// does not choose tokens ahead of the host.
    pub on_step: kigo_step_callback,
    /// For `on_step`: so many of the likeliest tokens, n_vocab at most; 0: none.
    pub n_top: usize,
}
sized_struct!(kigo_generate_options, bytes: 72, fields: [
    usize, usize, *const kigo_string, usize, kigo_token_callback, *mut c_void, u64, kigo_step_callback, usize,
]);

/// What a generation came to. Times are nanoseconds of a clock that never goes back.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_generated {
    /// sizeof(kigo_generated), set by the caller.
    pub struct_size: usize,
    /// Tokens generated and appended.
    pub n_tokens: usize,
    /// Which of the stop strings was reached, for KIGO_STOP_STRING.
    pub stop_index: usize,
    /// The token that ended it, for KIGO_STOP_END_TOKEN; else KIGO_TOKEN_NONE.
    pub stop_token: u32,
    /// KIGO_STOP_*.
    pub stop_reason: i32,
    /// Tokens that the session had got before, by whatever calls, since its last generation or else since it was made;
    /// kept ones (kigo_session_advance()), a fork's of its origin and restored ones are none of them.
    pub n_prompt_tokens: u64,
    /// Those of them that were taken from other sessions (KIGO_SESSION_REUSE_PREFIX); the others were computed.
    pub n_prompt_tokens_reused: u64,
    /// What these calls took: the sum of kigo_session_figures.prefill_ns and decode_ns since then.
    pub prefill_ns: u64,
    /// From the call to the first token: chosen, appended, its text and log probabilities made, its callback not yet
    /// called. 0 without a token.
    pub first_token_ns: u64,
    /// The whole call, choices and texts included, but for the time in `on_token` and `on_step`. The time of the first token
    /// is in it. Where a device runs ahead of the host it computes during the callbacks, too.
    pub decode_ns: u64,
    /// The time in `on_token` and `on_step`.
    pub callback_ns: u64,
    /// The part of `decode_ns` in which a token that had been chosen waited for its pass to begin: see
    /// kigo_session_figures.waiting_ns.
    pub waiting_ns: u64,
}
sized_struct!(kigo_generated, bytes: 88, fields: [
    usize, usize, usize, u32, i32, u64, u64, u64, u64, u64, u64, u64,
]);

/// Generates from the current logits on: sample, append, stream, until something of KIGO_STOP_* happens.
/// `options` may be NULL: greedy or as the session's parameters say, until the end token. The caller sets
/// `generated->struct_size`.
///
/// Each of those ends is a success, a cancel and a stop by the callback too. Afterwards the session holds what was
/// generated, exactly the tokens that the callback has seen, and the logits after the last are current: more can be
/// generated, or prefilled. The tokens are those that kigo_session_sample() and kigo_session_step() would give.
///
/// INVALID_STATE: there are no logits. INVALID_ARGUMENT: a stop string that is empty or not UTF-8, unknown flags, `n_top`
/// above n_vocab. BUSY. OUT_OF_MEMORY, CONSTRAINT: as from kigo_session_sample() and kigo_session_token_logprobs().
/// If a step fails (CACHE_FULL, OUT_OF_MEMORY, DEVICE_LOST), what was generated before it stays:
/// kigo_session_n_tokens().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_generate(
    session: *mut kigo_session,
    options: *const kigo_generate_options,
    generated: *mut kigo_generated,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(generated, "generated")?;
        let session = self::session(session)?;
        let options = super::args::options(options)?;
        let read = read_options(&options)?;
        let by = if options.flags & KIGO_GENERATE_TOP_BY_AFTER != 0 { By::After } else { By::Before };
        let wanted = Top { n: options.n_top, by };
        session.0.check_top(wanted)?;
        let top = options.on_step.map(|_| wanted);
        let mut callbacks = Callbacks::new(&session.0, options)?;
        let found = session.0.generate_seen(&read, top, &mut |step| callbacks.call(step))?;
        fill(generated, size, &to_c(size, &found));
        Ok(())
    })
}

pub(super) fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn to_c(struct_size: usize, found: &Generated) -> kigo_generated {
    let (stop_reason, stop_index, stop_token) = stop_numbers(found.reason);
    let times = &found.times;
    kigo_generated {
        struct_size,
        n_tokens: found.n_tokens,
        stop_index,
        stop_token,
        stop_reason,
        n_prompt_tokens: times.n_before,
        n_prompt_tokens_reused: times.n_reused_before,
        prefill_ns: nanoseconds(times.before),
        first_token_ns: nanoseconds(times.first_token),
        decode_ns: nanoseconds(times.decode),
        callback_ns: nanoseconds(times.callbacks),
        waiting_ns: nanoseconds(times.waiting),
    }
}

/// The caller's callbacks of a generation, and what they are shown.
struct Callbacks<'a> {
    session: &'a Session,
    options: kigo_generate_options,
    text: Vec<u8>,
    bytes: Vec<u8>,
    top: Vec<kigo_logprob>,
}

impl<'a> Callbacks<'a> {
    fn new(session: &'a Session, options: kigo_generate_options) -> Result<Callbacks<'a>> {
        let mut top = Vec::new();
        if options.on_step.is_some() {
            crate::alloc::reserve(&mut top, options.n_top)?;
        }
        Ok(Callbacks { session, options, text: Vec::new(), bytes: Vec::new(), top })
    }

    /// Shows a token; whether to go on.
    ///
    /// # Safety
    /// The callbacks are functions that may be called as the header says.
    unsafe fn call(&mut self, step: &Step<'_>) -> bool {
        if self.options.on_token.is_none() && self.options.on_step.is_none() {
            return true;
        }
        self.text.clear();
        self.text.extend_from_slice(step.text.as_bytes());
        self.text.push(0);
        // SAFETY: passed on from this function's contract.
        let goes_on = self.options.on_step.is_none_or(|on_step| unsafe { self.call_step(on_step, step) });
        let Some(on_token) = self.options.on_token else { return goes_on };
        let (token, text) = (step.token.unwrap_or(KIGO_TOKEN_NONE), self.text.as_ptr().cast());
        // SAFETY: passed on from this function's contract, with a NUL-terminated text that lives through the call.
        outside(|| unsafe { on_token(token, text, step.text.len(), self.options.user_data) }) == 0 && goes_on
    }

    unsafe fn call_step(
        &mut self,
        on_step: unsafe extern "C" fn(*const kigo_step_event, *mut c_void) -> i32,
        step: &Step<'_>,
    ) -> bool {
        self.bytes.clear();
        if let Some(Ok(bytes)) = step.token.map(|token| self.session.model().token_bytes(token)) {
            self.bytes.extend_from_slice(&bytes);
        }
        let n_bytes = self.bytes.len();
        self.bytes.push(0);
        self.top.clear();
        self.top.extend(step.top.iter().map(kigo_logprob::of));
        let event = kigo_step_event {
            struct_size: size_of::<kigo_step_event>(),
            text: self.text.as_ptr().cast(),
            text_len: step.text.len(),
            bytes: self.bytes.as_ptr().cast(),
            n_bytes,
            top: self.top.as_ptr(),
            n_top: self.top.len(),
            position: step.position as u64,
            token: step.token.unwrap_or(KIGO_TOKEN_NONE),
            before: step.logprob.map_or(0.0, |p| p.before),
            after: step.logprob.map_or(0.0, |p| p.after),
            reserved: 0,
        };
        // SAFETY: passed on from the caller's contract, with an event whose pointers live through the call.
        outside(|| unsafe { on_step(&raw const event, self.options.user_data) }) == 0
    }
}

/// How to generate, but for the callback.
///
/// # Safety
/// As the header says of the struct's pointers.
pub(super) unsafe fn read_options(options: &kigo_generate_options) -> Result<GenerateOptions> {
    let known = KIGO_TEXT_SPECIAL | KIGO_GENERATE_KEEP_END | KIGO_GENERATE_IGNORE_END | KIGO_GENERATE_TOP_BY_AFTER;
    let flags = super::args::flags(options.flags, known, "kigo_generate_options.flags")?;
    Ok(GenerateOptions {
        max_tokens: (options.max_tokens != 0).then_some(options.max_tokens),
        // SAFETY: passed on from this function's contract.
        stop: unsafe { strings(options.stop, options.n_stop, "stop")? },
        special: flags & KIGO_TEXT_SPECIAL != 0,
        keep_end: flags & KIGO_GENERATE_KEEP_END != 0,
        ignore_end: flags & KIGO_GENERATE_IGNORE_END != 0,
    })
}

/// KIGO_STOP_*, the stop string's index and the end token of a reason.
pub(super) fn stop_numbers(reason: StopReason) -> (i32, usize, u32) {
    match reason {
        StopReason::MaxTokens => (KIGO_STOP_MAX_TOKENS, 0, KIGO_TOKEN_NONE),
        StopReason::EndToken(token) => (KIGO_STOP_END_TOKEN, 0, token),
        StopReason::StopString(index) => (KIGO_STOP_STRING, index, KIGO_TOKEN_NONE),
        StopReason::ContextFull => (KIGO_STOP_CONTEXT_FULL, 0, KIGO_TOKEN_NONE),
        StopReason::Callback => (KIGO_STOP_CALLBACK, 0, KIGO_TOKEN_NONE),
        StopReason::Cancelled => (KIGO_STOP_CANCELLED, 0, KIGO_TOKEN_NONE),
    }
}

/// The strings of an array, none of them empty.
///
/// # Safety
/// As the header says of `kigo_string` and arrays.
pub(super) unsafe fn strings(array: *const kigo_string, n: usize, name: &'static str) -> Result<Vec<String>> {
    // SAFETY: passed on from this function's contract.
    let array = unsafe { slice(array, n, name)? };
    let read = |s: &kigo_string| {
        // SAFETY: passed on from this function's contract.
        let text = unsafe { text(s.data, s.len, name)? };
        if text.is_empty() {
            let expected = "at least one byte in each".to_owned();
            return Err(Error::Argument { name, found: "an empty string".to_owned(), expected });
        }
        let mut owned = String::new();
        let failed = |_| Error::OutOfMemory { place: "host".into(), requested: text.len() as u64, free: 0 };
        owned.try_reserve_exact(text.len()).map_err(failed)?;
        owned.push_str(text);
        Ok(owned)
    };
    let mut all = Vec::new();
    crate::alloc::reserve(&mut all, n)?;
    for s in array {
        all.push(read(s)?);
    }
    Ok(all)
}
