//! The loop of sampling and stepping in one call, with its text streamed out.

use super::prelude::*;
use super::session::{kigo_session, session};
use super::tokenizer::{KIGO_TEXT_SPECIAL, KIGO_TOKEN_NONE};
use crate::engine::{GenerateOptions, StopReason};

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
    /// Handed to `on_token`.
    pub user_data: *mut c_void,
    /// KIGO_TEXT_SPECIAL, KIGO_GENERATE_KEEP_END, KIGO_GENERATE_IGNORE_END.
    pub flags: u64,
}
sized_struct!(kigo_generate_options, bytes: 56, fields: [
    usize, usize, *const kigo_string, usize, kigo_token_callback, *mut c_void, u64,
]);

/// What a generation came to.
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
}
sized_struct!(kigo_generated, bytes: 32, fields: [usize, usize, usize, u32, i32]);

/// Generates from the current logits on: sample, append, stream, until something of KIGO_STOP_* happens.
/// `options` may be NULL: greedy or as the session's parameters say, until the end token. The caller sets
/// `generated->struct_size`.
///
/// Each of those ends is a success, a cancel and a stop by the callback too. Afterwards the session holds what was
/// generated, exactly the tokens that the callback has seen, and the logits after the last are current: more can be
/// generated, or prefilled. The tokens are those that kigo_session_sample() and kigo_session_step() would give.
///
/// INVALID_STATE: there are no logits. INVALID_ARGUMENT: a stop string that is empty or not UTF-8, unknown flags. BUSY.
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
        let mut text_z = Vec::new();
        let mut on_token = |token: Option<u32>, text: &str| match options.on_token {
            Some(callback) => {
                text_z.clear();
                text_z.extend_from_slice(text.as_bytes());
                text_z.push(0);
                let token = token.unwrap_or(KIGO_TOKEN_NONE);
                outside(|| callback(token, text_z.as_ptr().cast(), text.len(), options.user_data)) == 0
            }
            None => true,
        };
        let found = session.0.generate(&read, &mut on_token)?;
        let (stop_reason, stop_index, stop_token) = stop_numbers(found.reason);
        let n_tokens = found.n_tokens;
        fill(generated, size, &kigo_generated { struct_size: size, n_tokens, stop_index, stop_token, stop_reason });
        Ok(())
    })
}

/// How to generate, but for the callback.
///
/// # Safety
/// As the header says of the struct's pointers.
pub(super) unsafe fn read_options(options: &kigo_generate_options) -> Result<GenerateOptions> {
    let known = KIGO_TEXT_SPECIAL | KIGO_GENERATE_KEEP_END | KIGO_GENERATE_IGNORE_END;
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
