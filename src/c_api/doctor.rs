//! Does this device, with this model, compute what it should? kigo_doctor() runs nine checks on the user's own machine;
//! examples-c/doctor.c prints them. Each has a figure and the largest that is allowed, and says in words what it is.
//!
//! After a failure the first check that failed names what is at fault, which may be something earlier than its own
//! subject: kigo_diagnosis.at_fault. What a device has no means, a model no context or the machine no memory for is
//! skipped, and says so.

use super::engine::kigo_engine;
use super::prelude::*;
use crate::doctor::{Check, Outcome, Subject, diagnose};

/// Check: poisoned with NaN and with large numbers before each pass, the logits' buffer is written whole, and no logits
/// depend on what it held. Figure: elements of which that is not so.
pub const KIGO_CHECK_LOGITS_BUFFER: i32 = 1;
/// Check: the token that was sampled is the one whose embedding row the next step reads, over 64 steps at temperature 0
/// and 0.8, and generating in one call chooses the same. Figure: the largest error of a row.
pub const KIGO_CHECK_TOKEN_FLOW: i32 = 2;
/// Check: prompts of 1 to 65 tokens, around the boundary of a page, and one that fills a session of 513 positions (or of
/// the model's whole context, where that is shorter) to its last, give the same logits at once, in chunks and one by
/// one, and rows in the cache never change. The same are the same bits on the CPU and, where a GPU has the memory for a
/// second model in strict mode, in that. Figure: the largest error of logits.
pub const KIGO_CHECK_CACHE: i32 = 3;
/// Check: keys of every layer turn with their position as the model's formula says, the order of tokens counts, and after a truncation
/// all is as if it had never been otherwise. Figure: the largest error of a key.
pub const KIGO_CHECK_POSITION: i32 = 4;
/// Check: the weights of attention sum to 1, and cache rows behind the current position, poisoned with NaN, are not
/// read. Figure: the largest distance from 1.
pub const KIGO_CHECK_ATTENTION: i32 = 5;
/// Check: control tokens are atomic and do not come of plain text, texts come back, the chat template renders. Figure:
/// how many do not.
pub const KIGO_CHECK_TOKENIZER: i32 = 6;
/// Check: seeded draws follow their distribution, greedy is the argmax, a seed repeats itself. Figure: chi-squared.
pub const KIGO_CHECK_SAMPLING: i32 = 7;
/// Check: every stage agrees with the CPU's and with the plain reference's. Figure: the largest error of a stage.
pub const KIGO_CHECK_BACKENDS: i32 = 8;
/// Check: 64 sampled tokens of answers to a question are varied: no token makes up half, no answer ends in a cycle.
/// Figure: the share of the most frequent token.
pub const KIGO_CHECK_REPETITION: i32 = 9;

/// Outcome of a check: it holds.
pub const KIGO_OUTCOME_HOLDS: i32 = 1;
/// Outcome of a check: it does not hold.
pub const KIGO_OUTCOME_FAILS: i32 = 2;
/// Outcome of a check: it could not be run; the text says why.
pub const KIGO_OUTCOME_SKIPPED: i32 = 3;

/// A check that has been run. Errors are normalized: the squared difference's sum over that of what is compared with.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_check {
    /// sizeof(kigo_check) of the library: a field behind it is not there.
    pub struct_size: usize,
    /// Its name, such as "token flow". UTF-8 with a NUL, valid during the callback.
    pub name: *const c_char,
    /// One line: what the figure is; after a failure what is wrong and where. UTF-8 with a NUL, valid during the callback.
    pub text: *const c_char,
    /// Bytes of `text`.
    pub text_len: usize,
    /// What was measured; infinite where there was nothing to measure.
    pub figure: f64,
    /// The largest figure with which it holds.
    pub bound: f64,
    /// How long it took.
    pub seconds: f64,
    /// KIGO_CHECK_*: which it is.
    pub number: i32,
    /// KIGO_OUTCOME_*.
    pub outcome: i32,
}
sized_struct!(kigo_check, bytes: 64, fields: [usize, *const c_char, *const c_char, usize, f64, f64, f64, i32, i32]);

/// Receives each check when it has been run, on the calling thread. Returns 0 to go on; anything else ends
/// kigo_doctor() with KIGO_STATUS_CANCELLED. It must return (not throw, not longjmp).
pub type kigo_check_callback = Option<unsafe extern "C" fn(check: *const kigo_check, user_data: *mut c_void) -> i32>;

/// How to examine. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_doctor_options {
    /// sizeof(kigo_doctor_options).
    pub struct_size: usize,
    /// Receives the checks; NULL: nobody.
    pub on_check: kigo_check_callback,
    /// Handed to `on_check`.
    pub user_data: *mut c_void,
    /// Chooses tokens and draws. The same seed gives the same figures.
    pub seed: u64,
}
sized_struct!(kigo_doctor_options, bytes: 32, fields: [usize, kigo_check_callback, *mut c_void, u64]);

/// What the checks came to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_diagnosis {
    /// sizeof(kigo_diagnosis), set by the caller.
    pub struct_size: usize,
    /// Checks that hold.
    pub n_holding: u64,
    /// Checks that do not.
    pub n_failed: u64,
    /// Checks that could not be run.
    pub n_skipped: u64,
    /// KIGO_CHECK_*: what the first check that failed finds at fault; 0: none failed.
    pub at_fault: u64,
}
sized_struct!(kigo_diagnosis, bytes: 40, fields: [usize, u64, u64, u64, u64]);

/// Loads the GGUF file at `path` on the engine's device, runs the checks, and fills `diagnosis`, whose `struct_size` the
/// caller has set. For the comparison it loads the file on the CPU and on the plain reference too, one after the other,
/// each under the engine's memory cap. Under a minute for a model of 0.5 billion parameters on two cores. `options` may
/// be NULL: all defaults.
///
/// A check that fails is no failure of the call. As kigo_model_load_file(); CANCELLED by the callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_doctor(
    engine: *const kigo_engine,
    path: *const c_char,
    path_len: usize,
    options: *const kigo_doctor_options,
    diagnosis: *mut kigo_diagnosis,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(diagnosis, "diagnosis")?;
        let engine = borrow(engine, "engine")?;
        let path = super::args::path(path, path_len, "path")?;
        let options = super::args::options(options)?;
        let mut on_check = |check: &Check| {
            let Some(callback) = options.on_check else { return true };
            // One line, without a NUL inside.
            let line =
                |text: &str| text.bytes().map(|b| if b < b' ' { b' ' } else { b }).chain([0]).collect::<Vec<u8>>();
            let (name, text) = (line(check.subject.name()), line(&check.text));
            let check = kigo_check {
                struct_size: size_of::<kigo_check>(),
                name: name.as_ptr().cast(),
                text: text.as_ptr().cast(),
                text_len: text.len() - 1,
                figure: check.figure,
                bound: check.bound,
                seconds: check.seconds,
                number: number(check.subject),
                outcome: match check.outcome {
                    Outcome::Holds => KIGO_OUTCOME_HOLDS,
                    Outcome::Fails => KIGO_OUTCOME_FAILS,
                    Outcome::Skipped => KIGO_OUTCOME_SKIPPED,
                },
            };
            outside(|| callback(&raw const check, options.user_data)) == 0
        };
        let found = diagnose(&engine.0, &path, options.seed, &mut on_check)?;
        let value = kigo_diagnosis {
            struct_size: size,
            n_holding: found.n_holding as u64,
            n_failed: found.n_failed as u64,
            n_skipped: found.n_skipped as u64,
            at_fault: found.at_fault.map_or(0, |subject| number(subject) as u64),
        };
        fill(diagnosis, size, &value);
        Ok(())
    })
}

/// KIGO_CHECK_* of a subject.
fn number(subject: Subject) -> i32 {
    match subject {
        Subject::LogitsBuffer => KIGO_CHECK_LOGITS_BUFFER,
        Subject::TokenFlow => KIGO_CHECK_TOKEN_FLOW,
        Subject::Cache => KIGO_CHECK_CACHE,
        Subject::Position => KIGO_CHECK_POSITION,
        Subject::Attention => KIGO_CHECK_ATTENTION,
        Subject::Tokenizer => KIGO_CHECK_TOKENIZER,
        Subject::Sampling => KIGO_CHECK_SAMPLING,
        Subject::Devices => KIGO_CHECK_BACKENDS,
        Subject::Repetition => KIGO_CHECK_REPETITION,
    }
}
