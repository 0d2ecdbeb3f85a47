//! Tokens in, complete UTF-8 characters out, for programs with a loop of their own: what kigo_session_generate() does
//! with the text. One thread at a time: a stream that another thread uses answers KIGO_STATUS_BUSY.

use std::sync::Mutex;

use super::generate::{kigo_string, strings};
use super::model::kigo_model;
use super::prelude::*;
use super::tokenizer::KIGO_TEXT_SPECIAL;
use crate::engine::TextStream;

/// A stream of text.
pub struct kigo_stream(Mutex<State>);

struct State {
    stream: TextStream,
    /// What the last call gave out, with a NUL.
    text: Vec<u8>,
}

/// How a stream is made. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_stream_options {
    /// sizeof(kigo_stream_options).
    pub struct_size: usize,
    /// Stop where the text reaches one of these `n_stop` texts, none of them empty; copied by the call.
    pub stop: *const kigo_string,
    /// How many.
    pub n_stop: usize,
    /// 0 or KIGO_TEXT_SPECIAL.
    pub flags: u64,
}
sized_struct!(kigo_stream_options, bytes: 32, fields: [usize, *const kigo_string, usize, u64]);

/// What a stream gives.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_stream_text {
    /// sizeof(kigo_stream_text), set by the caller.
    pub struct_size: usize,
    /// Whole UTF-8 characters, a NUL behind them; the stream's, valid until its next call. Never NULL on success.
    pub text: *const c_char,
    /// Bytes of it.
    pub text_len: usize,
    /// 1 once a stop string has been reached (its text and all that follows is left out), else 0.
    pub stopped: u64,
    /// Which of the stop strings, if `stopped`.
    pub stop_index: u64,
}
sized_struct!(kigo_stream_text, bytes: 40, fields: [usize, *const c_char, usize, u64, u64]);

/// Makes a stream. `options` may be NULL: all defaults. INVALID_ARGUMENT: a stop string that is empty or not UTF-8,
/// unknown flags.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_stream_create(
    model: *const kigo_model,
    options: *const kigo_stream_options,
    stream: *mut *mut kigo_stream,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(stream, "stream")?;
        let model = borrow(model, "model")?;
        let options = super::args::options(options)?;
        let special = super::args::flags(options.flags, KIGO_TEXT_SPECIAL, "kigo_stream_options.flags")? != 0;
        let inner = TextStream::new(&model.0, &strings(options.stop, options.n_stop, "stop")?, special)?;
        put(stream, kigo_stream(Mutex::new(State { stream: inner, text: Vec::new() })))
    })
}

/// Gives the handle up, and the text it gave. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_stream_destroy(stream: *mut kigo_stream) {
    guard_free(|| {
        // SAFETY: the header's contract for handles.
        unsafe { destroy(stream) };
        Ok(())
    });
}

/// Adds a token; `out` gets what has become complete by it, often nothing. The caller sets `out->struct_size`. After a
/// stop string nothing comes any more.
///
/// INVALID_ARGUMENT: an id that is not below n_vocab. OUT_OF_MEMORY: the stream is as it was. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_stream_push(
    stream: *mut kigo_stream,
    token: u32,
    out: *mut kigo_stream_text,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe { give(stream, out, |stream, text| stream.push(token, text)) })
}

/// Ends the text: `out` gets what was held back; half a character becomes U+FFFD. The stream is as new
/// afterwards, unless a stop string has ended it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_stream_finish(stream: *mut kigo_stream, out: *mut kigo_stream_text) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe { give(stream, out, TextStream::finish) })
}

/// # Safety
/// As the header says of the two pointers.
unsafe fn give(
    stream: *mut kigo_stream,
    out: *mut kigo_stream_text,
    call: impl FnOnce(&mut TextStream, &mut String) -> Result<()>,
) -> Result<()> {
    // SAFETY: passed on from this function's contract.
    let size = unsafe { zero_out(out, "out")? };
    // SAFETY: passed on from this function's contract.
    let stream = unsafe { borrow(stream.cast_const(), "stream")? };
    let mut state = try_lock(&stream.0, "stream")?;
    let mut text = String::new();
    call(&mut state.stream, &mut text)?;
    let mut text = text.into_bytes();
    crate::alloc::reserve(&mut text, 1)?;
    text.push(0);
    state.text = text;
    let stopped = state.stream.stopped();
    let value = kigo_stream_text {
        struct_size: size,
        text: state.text.as_ptr().cast(),
        text_len: state.text.len() - 1,
        stopped: u64::from(stopped.is_some()),
        stop_index: stopped.unwrap_or(0) as u64,
    };
    // SAFETY: `size` came from `zero_out` for this `out`.
    unsafe { fill(out, size, &value) };
    Ok(())
}
