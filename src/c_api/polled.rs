//! Sessions that advance while the host does other things: for loops that may not block, such as those of games and windows.
//! A batch takes sessions of one model, each with tokens to append, something to generate, or both; kigo_batch_run() runs them
//! together for some milliseconds, on the calling thread and the engine's, and kigo_batch_next() tells what has happened:
//!
//!     kigo_batch_add(batch, session, &work);
//!     while (kigo_batch_run(batch, 5, &n_sessions) == KIGO_STATUS_OK && n_sessions > 0) {
//!         while (kigo_batch_next(batch, &event) == KIGO_STATUS_OK && event.kind != KIGO_BATCH_EVENT_NONE) { ... }
//!         draw_the_next_frame();
//!     }
//!
//! There is no queue and no thread behind it: nothing runs outside of kigo_batch_run(). Tokens, texts, ends and bits are those
//! of kigo_session_prefill() and kigo_session_generate() for each session alone, whoever else is in the batch.
//!
//! A prompt of a session with KIGO_SESSION_REUSE_PREFIX waits for what another session is computing of it, in this batch or in another
//! call, and other calls wait for what a prompt of the batch computes, for 5 milliseconds at most while no kigo_batch_run() runs.
//!
//! From kigo_batch_add() until it ends or is removed a session is in use: every call that needs it to itself gives
//! KIGO_STATUS_BUSY. A cancel ends it as it would end the call: a prompt with
//! KIGO_STATUS_CANCELLED and the session as it was before, a generation with KIGO_STOP_CANCELLED. A session that is destroyed
//! meanwhile ends so too, and event.session is then its former address, that of no other session before that event is taken.
//!
//! One thread at a time: a batch that another thread uses answers KIGO_STATUS_BUSY.

use std::sync::{Mutex, MutexGuard};

use super::generate::{kigo_generate_options, nanoseconds, read_options, stop_numbers};
use super::guard::status_of;
use super::model::kigo_model;
use super::prelude::*;
use super::session::{kigo_session, session};
use super::status::KIGO_STATUS_OK;
use super::tokenizer::KIGO_TOKEN_NONE;
use crate::engine::{Batch, Event, Session, What, Work};

/// For kigo_batch_event.kind: nothing has happened that was not taken.
pub const KIGO_BATCH_EVENT_NONE: u32 = 0;
/// For kigo_batch_event.kind: a token was generated and appended.
pub const KIGO_BATCH_EVENT_TOKEN: u32 = 1;
/// For kigo_batch_event.kind: the session is through, or has failed. It is out of the batch, and no more in use.
pub const KIGO_BATCH_EVENT_END: u32 = 2;

/// Sessions that run together, a while at a time.
pub struct kigo_batch(Mutex<State>);

struct State {
    batch: Batch<Member>,
    /// What the last event's text points at, with a NUL.
    text: Vec<u8>,
}

/// A session of a batch. Its memory stays while the batch or one of its events has it.
#[derive(Clone)]
struct Member(Held<kigo_session>, *mut c_void);

impl AsRef<Session> for Member {
    fn as_ref(&self) -> &Session {
        &self.0.0
    }
}

/// What a batch does with a session. 0 is the default of each field; there must be tokens, or something to generate.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_batch_work {
    /// sizeof(kigo_batch_work).
    pub struct_size: usize,
    /// Tokens to append, as by kigo_session_prefill(); copied by the call.
    pub ids: *const u32,
    /// How many.
    pub n_ids: usize,
    /// What to generate then, as by kigo_session_generate(), its texts copied by the call; NULL: nothing. Its `on_token` and
    /// `on_step` are NULL, events stand in their place.
    pub generate: *const kigo_generate_options,
    /// Handed out with the session's events.
    pub user_data: *mut c_void,
}
sized_struct!(kigo_batch_work, bytes: 40, fields: [
    usize, *const u32, usize, *const kigo_generate_options, *mut c_void,
]);

/// What has happened in a batch.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_batch_event {
    /// sizeof(kigo_batch_event), set by the caller.
    pub struct_size: usize,
    /// Whom it concerns.
    pub session: *mut kigo_session,
    /// That session's kigo_batch_work.user_data.
    pub user_data: *mut c_void,
    /// The text that has become complete by a token, often empty; with an end what was still held back. Whole UTF-8
    /// characters, a NUL behind them; the batch's, valid until the next call with it. NULL where nothing has happened.
    pub text: *const c_char,
    /// Bytes of it.
    pub text_len: usize,
    /// Tokens that the session has generated in the batch until then.
    pub n_tokens: usize,
    /// Which of the stop strings was reached, for KIGO_STOP_STRING.
    pub stop_index: usize,
    /// KIGO_BATCH_EVENT_*.
    pub kind: u32,
    /// The token, for KIGO_BATCH_EVENT_TOKEN; else KIGO_TOKEN_NONE.
    pub token: u32,
    /// The token that ended it, for KIGO_STOP_END_TOKEN; else KIGO_TOKEN_NONE.
    pub stop_token: u32,
    /// KIGO_STOP_* of an end, or 0 where nothing was to be generated or `status` is a failure.
    pub stop_reason: i32,
    /// What, of an end, the calls for the session alone would have returned; kigo_session_last_error() has the text.
    pub status: kigo_status,
    /// 0.
    pub reserved: u32,
    /// Tokens that the session had got before its generation, which begins when the prompt is through, or with kigo_batch_add() if
    /// there is none: see kigo_generated. This and the times below are those of an end, and 0 of other events and where none began.
    pub n_prompt_tokens: u64,
    /// Those of them that were taken from other sessions.
    pub n_prompt_tokens_reused: u64,
    /// What these took: see kigo_generated. A prompt's time in a batch begins with kigo_batch_add(), and what is between the runs is
    /// part of it.
    pub prefill_ns: u64,
    /// From the generation's beginning to the first token, without what is between the runs. 0 without a token.
    pub first_token_ns: u64,
    /// The whole generation, but for what is between the runs: the time of kigo_batch_run() while it was in the batch.
    pub decode_ns: u64,
    /// The time between the runs, from the generation's beginning on.
    pub between_ns: u64,
    /// The part of the time in which a token that had been chosen waited for its pass to begin.
    pub waiting_ns: u64,
}
sized_struct!(kigo_batch_event, bytes: 136, fields: [
    usize, *mut kigo_session, *mut c_void, *const c_char, usize, usize, usize, u32, u32, u32, i32, i32, u32,
    u64, u64, u64, u64, u64, u64, u64,
]);

/// The batch, for the length of a call.
fn state(batch: &kigo_batch) -> Result<MutexGuard<'_, State>> {
    try_lock(&batch.0, "batch")
}

/// Makes a batch without sessions. INVALID_STATE: the model has no weights (KIGO_LOAD_VOCABULARY). OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_batch_create(model: *const kigo_model, batch: *mut *mut kigo_batch) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(batch, "batch")?;
        let inner = Batch::new(&borrow(model, "model")?.0)?;
        put(batch, kigo_batch(Mutex::new(State { batch: inner, text: Vec::new() })))
    })
}

/// Gives the handle up, with the text and the events that were not taken. NULL does nothing. Sessions that are still in it
/// are as after kigo_batch_remove().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_batch_destroy(batch: *mut kigo_batch) {
    guard_free(|| {
        // SAFETY: the header's contract for handles.
        unsafe { destroy(batch) };
        Ok(())
    });
}

/// Adds a session, which is in use from now on. It may be one that was in the batch before.
///
/// INVALID_ARGUMENT: a session of another model, an id that is not below n_vocab, neither tokens nor something to generate, a
/// stop string that is empty or not UTF-8, an `on_token` or `on_step`. INVALID_STATE: the session has a tap, or has no logits and gets no
/// tokens. CONTEXT_FULL, CACHE_FULL, OUT_OF_MEMORY: as of kigo_session_prefill(), whose memory is taken here; of a prompt that waits for
/// what another session computes later, and the last two are then its end's status. BUSY: the session is in use, or the batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_batch_add(
    batch: *mut kigo_batch,
    session: *mut kigo_session,
    work: *const kigo_batch_work,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let batch = borrow(batch.cast_const(), "batch")?;
        let member = self::session(session)?;
        let work = super::args::options(work)?;
        let tokens = slice(work.ids, work.n_ids, "ids")?;
        let generate = if work.generate.is_null() { None } else { Some(super::args::options(work.generate)?) };
        let callbacks = generate.map(|generate| (generate.on_token.is_some(), generate.on_step.is_some()));
        let called = match callbacks {
            Some((true, _)) => Some("kigo_generate_options.on_token"),
            Some((_, true)) => Some("kigo_generate_options.on_step"),
            _ => None,
        };
        if let Some(name) = called {
            let expected = "NULL: a batch has events".to_owned();
            return Err(Error::Argument { name, found: "a function".to_owned(), expected });
        }
        let options = generate.map(|generate| read_options(&generate)).transpose()?;
        state(&batch)?.batch.add(Member(member, work.user_data), Work { tokens, generate: options.as_ref() })
    })
}

/// Takes a session out, which is free then: without the prompt if that was not through, and with the tokens that were
/// generated, each of which has its event. No other event tells of it.
///
/// NOT_FOUND: it is not in the batch, or has ended. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_batch_remove(batch: *mut kigo_batch, session: *mut kigo_session) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let batch = borrow(batch.cast_const(), "batch")?;
        let session = self::session(session)?;
        state(&batch)?.batch.remove(&session.0)
    })
}

/// Runs passes until `max_ms` milliseconds are over or no session is left, at least one pass if there is one: 0 is one pass. Where
/// all sessions wait for what other calls compute it waits with them, no longer than `max_ms`.
/// `n_sessions` gets how many are still in the batch.
///
/// It returns about `max_ms` after it was called, and one pass: on the CPU passes have so few tokens of prompts that each takes
/// about as long as `max_ms`, or as long as a step and a dozen of them where that is longer; on a GPU 2,048 at most. A choice
/// under a constraint may take longer (see "Constraints").
///
/// What goes wrong with one session is its event's status. From this call, OUT_OF_MEMORY: there is no room for events; the
/// sessions stay, and the call may be repeated. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_batch_run(batch: *mut kigo_batch, max_ms: u64, n_sessions: *mut usize) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(n_sessions, "n_sessions")?;
        let batch = borrow(batch.cast_const(), "batch")?;
        let n = state(&batch)?.batch.run(std::time::Duration::from_millis(max_ms))?;
        n_sessions.write(n);
        Ok(())
    })
}

/// Takes the oldest event that was not taken; `event->kind` is KIGO_BATCH_EVENT_NONE where there is none. The caller sets
/// `event->struct_size`. Events are in the order of what happened; each session's last is its KIGO_BATCH_EVENT_END. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_batch_next(batch: *mut kigo_batch, event: *mut kigo_batch_event) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(event, "event")?;
        let batch = borrow(batch.cast_const(), "batch")?;
        let mut state = state(&batch)?;
        let mut value = kigo_batch_event {
            struct_size: size,
            session: std::ptr::null_mut(),
            user_data: std::ptr::null_mut(),
            text: std::ptr::null(),
            text_len: 0,
            n_tokens: 0,
            stop_index: 0,
            kind: KIGO_BATCH_EVENT_NONE,
            token: KIGO_TOKEN_NONE,
            stop_token: KIGO_TOKEN_NONE,
            stop_reason: 0,
            status: KIGO_STATUS_OK,
            reserved: 0,
            n_prompt_tokens: 0,
            n_prompt_tokens_reused: 0,
            prefill_ns: 0,
            first_token_ns: 0,
            decode_ns: 0,
            between_ns: 0,
            waiting_ns: 0,
        };
        if let Some(found) = state.batch.take_event() {
            told(&mut state.text, found, &mut value);
        }
        fill(event, size, &value);
        Ok(())
    })
}

/// The event as C has it, with its text in `text`.
fn told(text: &mut Vec<u8>, event: Event<Member>, value: &mut kigo_batch_event) {
    let Event { session: Member(held, user_data), n_tokens, text: found, times, what } = event;
    (value.session, value.user_data, value.n_tokens) = (name_of(&held), user_data, n_tokens);
    (value.n_prompt_tokens, value.n_prompt_tokens_reused) = (times.n_before, times.n_reused_before);
    (value.prefill_ns, value.first_token_ns) = (nanoseconds(times.before), nanoseconds(times.first_token));
    (value.decode_ns, value.between_ns) = (nanoseconds(times.decode), nanoseconds(times.callbacks));
    value.waiting_ns = nanoseconds(times.waiting);
    // A stream's text has room for a NUL.
    *text = found.into_bytes();
    value.text_len = text.len();
    text.push(0);
    value.text = text.as_ptr().cast();
    match what {
        What::Token(token) => (value.kind, value.token) = (KIGO_BATCH_EVENT_TOKEN, token),
        What::End(outcome) => {
            value.kind = KIGO_BATCH_EVENT_END;
            match outcome {
                Ok(Some(reason)) => (value.stop_reason, value.stop_index, value.stop_token) = stop_numbers(reason),
                Ok(None) => {}
                Err(error) => {
                    held.failed(&error);
                    value.status = status_of(&error);
                }
            }
        }
    }
}
