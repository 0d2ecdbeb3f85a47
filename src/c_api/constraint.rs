//! Output held to a grammar: of the tokens that may come next only those are chosen that a JSON schema, a regular
//! expression, a Lark grammar or one of llama.cpp's allows. What ends a text is allowed where the grammar may end, and there only.
//!
//! A grammar is compiled once into a kigo_constraint, which any number of sessions of its model may be held to, at once and
//! from several threads: nothing changes it. Setting one for a session costs nothing; the session gets its own copy of
//! what it needs with its first choice.
//!
//! A grammar's text may come from anywhere. One that would take its parser too much is refused with the number and the
//! limit: no text takes more than 2 seconds of one core and 256 MiB to compile. The limits: 4 MiB of a schema, 256 KiB
//! of a Lark text, 64 KiB of a regular expression; 16384 rules and brackets; 1500 classes such as \w, and 100 ranges
//! that end beyond ASCII where case does not matter; 1000000 for the depths of brackets that each byte stands in, added
//! up; 256 terminals that name each other, and 1000000 bytes of one with all that it names; 20000 terminals, 65000
//! symbols and 1000000 expressions that the text comes to; 4000000 steps that its expressions may take at one byte,
//! where parts in a row that may each be left out count squared; 6000000000 for the places of its rules times the
//! alternatives that may be predicted there; 100000 for the product of the alternatives of patterns that must all
//! match; 1000 and, or and not of conditions; of a schema 200000 values, 1000 arrays and objects inside of each other,
//! 1000000 steps to take it apart, 50000 rules with 400000 symbols, 2000 rules inside of each other, 2097152 bytes of
//! expressions for its texts and numbers, 50000 steps to tell whether a pattern matches anything, 65536 bytes of a
//! pattern, 262144 of what it becomes, 250 brackets inside of each other in it and 64 alternatives of it that have
//! anchors of their own, 8000 properties of an object where one that may be left out counts twice, 20000 for the
//! properties that count towards minProperties or maxProperties times their number, 64 patterns for their names, 400
//! digits of a bound, counts up to 2000000000, a multipleOf of 20000 units where its last digits do not tell its
//! multiples, and 20000 in place of the 100000; of a vocabulary 16777215 tokens and 4194303 nodes of the tree of its
//! words.
//!
//! No token takes more than that either: a call that chooses answers CONSTRAINT with the limit, which is 1000000 steps of
//! expressions, 50000 items of rules, 2000 items that a token leads to, 4000000 of a whole text, or, where a token's rows
//! are large, 2 seconds. A text may be as long as the context: each token has these limits for itself.
//!
//! A schema allows exactly what it says, in one form: members in the order in which the schema lists them, then those that
//! are only required, then others; no escapes that JSON does not need; integers as digits of any length; numbers that have
//! a bound, a multiple or an exclusion without an exponent; a number of const or enum as the schema writes it, but as
//! digits where the type is "integer". Names that the schema does not list may come twice, and count for minProperties and
//! maxProperties each time: where that must not be, "additionalProperties" is false. Formats that are enforced are
//! date, time, date-time, duration, email, hostname, ipv4, ipv6, uuid, uri and json-pointer; others are annotations. What
//! cannot be had exactly is refused with its path, such as `#/properties/x: "contains" is not supported`. Between tokens a
//! space or the end of a line with an indentation of 80 may stand, and with KIGO_CONSTRAINT_COMPACT nothing.

use super::model::kigo_model;
use super::prelude::*;
use super::session::{kigo_session, session};
use crate::engine::{Constraint, Grammar};

/// A grammar, compiled for a model's vocabulary. It keeps what it needs of that alive, not the model.
pub struct kigo_constraint(pub(super) Constraint);

/// For kigo_constraint_options.kind: a JSON schema.
pub const KIGO_CONSTRAINT_JSON_SCHEMA: i32 = 1;
/// For kigo_constraint_options.kind: a regular expression, in the syntax of Rust's `regex` without look-around, for the
/// whole of the output.
pub const KIGO_CONSTRAINT_REGEX: i32 = 2;
/// For kigo_constraint_options.kind: a grammar in the Lark format of llguidance.
pub const KIGO_CONSTRAINT_LARK: i32 = 3;

/// For kigo_constraint_options.kind: a grammar of llama.cpp (GBNF), whose rule `root` is for the whole of the output. All
/// of its guide is there: literals and classes of characters with escapes, groups, repetitions with counts, comments, and
/// tokens by number or text, such as `<[1000]>`, `<think>` and `!<think>`. It allows what it says, character by character, and
/// becomes a Lark text that has to keep the limits of one. Refused, with line and column or the rule's name: a rule that begins
/// with itself, that is not there or is there twice; a class of no characters; a token that ends a text, which it may
/// where the grammar may end; a token of text (and !<...>, which may be one) where characters that it may be read as may
/// stand too, since it would be read as itself alone: control tokens, which are no text, may stand anywhere; more than
/// 100000 parts, 100 groups within each other, 8 repetitions of one part, 1000000 times of one, 20000000 steps to tell
/// which rules may be empty, or 1000000 steps to tell what may stand where tokens of text do.
pub const KIGO_CONSTRAINT_GBNF: i32 = 4;

/// For kigo_constraint_options.flags: JSON has no white space between its parts. Without it models may run into endless
/// newlines. For a JSON schema; others have none to leave out.
pub const KIGO_CONSTRAINT_COMPACT: u64 = 1;

/// Is asked every few milliseconds, on the thread of the call, while a grammar is compiled on another. Returns 0 to go on;
/// anything else ends the call with CANCELLED. It must return (not throw, not longjmp).
pub type kigo_constraint_callback = Option<unsafe extern "C" fn(user_data: *mut c_void) -> i32>;

/// How a constraint is made. 0 is the default of each field but `kind` and `text`, which have none.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_constraint_options {
    /// sizeof(kigo_constraint_options).
    pub struct_size: usize,
    /// KIGO_CONSTRAINT_JSON_SCHEMA, _REGEX, _LARK or _GBNF.
    pub kind: u64,
    /// The grammar, UTF-8; copied by the call.
    pub text: *const c_char,
    /// Length of `text` in bytes, or KIGO_STRLEN.
    pub text_len: usize,
    /// 0 or KIGO_CONSTRAINT_COMPACT.
    pub flags: u64,
    /// Is asked whether to go on; NULL: nobody is.
    pub go_on: kigo_constraint_callback,
    /// Handed to `go_on`.
    pub user_data: *mut c_void,
}
sized_struct!(kigo_constraint_options, bytes: 56, fields: [
    usize, u64, *const c_char, usize, u64, kigo_constraint_callback, *mut c_void
]);

/// Compiles a grammar for sessions of `model`. It takes up to 2 seconds and 256 MiB, most often milliseconds, on a thread of
/// its own with a stack that suffices: a few MiB, up to 600 of address space for a text near the limits. The thread has
/// ended when the call returns. The first constraint of a model's life indexes its vocabulary, which takes tenths of a
/// second; words of more than 1024 bytes are left out of the index: no constraint ever allows them.
///
/// CONSTRAINT: the grammar has a mistake (the text says which), or would take too much (the text has the number and the
/// limit). OUT_OF_MEMORY: there is no memory, or no thread with such a stack. CANCELLED: `go_on` has said so; what was
/// begun and cannot be interrupted is waited for, up to 2 seconds. INVALID_ARGUMENT: another kind, unknown flags, NULL, no
/// UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_constraint_create(
    model: *const kigo_model,
    options: *const kigo_constraint_options,
    constraint: *mut *mut kigo_constraint,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(constraint, "constraint")?;
        let model = borrow(model, "model")?;
        let options = super::args::options(options)?;
        let compact = flags(options.flags, KIGO_CONSTRAINT_COMPACT, "flags")? != 0;
        let text = text(options.text, options.text_len, "text")?;
        let grammar = match i32::try_from(options.kind) {
            Ok(KIGO_CONSTRAINT_JSON_SCHEMA) => Grammar::JsonSchema(text),
            Ok(KIGO_CONSTRAINT_REGEX) => Grammar::Regex(text),
            Ok(KIGO_CONSTRAINT_LARK) => Grammar::Lark(text),
            Ok(KIGO_CONSTRAINT_GBNF) => Grammar::Gbnf(text),
            _ => {
                let expected = "KIGO_CONSTRAINT_*, 1 to 4".to_owned();
                return Err(Error::Argument { name: "kind", found: options.kind.to_string(), expected });
            }
        };
        let mut go_on = || options.go_on.is_none_or(|go_on| outside(|| go_on(options.user_data)) == 0);
        put(constraint, kigo_constraint(Constraint::new(&model.0, grammar, compact, &mut go_on)?))
    })
}

/// Gives the handle up. NULL does nothing. Sessions that are held to it stay so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_constraint_destroy(constraint: *mut kigo_constraint) {
    guard_free(|| {
        // SAFETY: the header's contract for handles.
        unsafe { destroy(constraint) };
        Ok(())
    });
}

/// Holds every token that is chosen from now on to `constraint`; NULL: to none any more. It begins with the next token, so
/// it is set after the prompt; kigo_session_sample(), kigo_session_generate() and kigo_sample_batch() keep to it. Sampling
/// parameters apply to the tokens that are allowed. The handle may be given up at once.
///
/// What it allows depends on the grammar and on the session's tokens from that position on, however they came there: forks
/// have their own copy, dropping tokens goes back in it, and a saved session has it too and goes on with it from exactly
/// there. A session that is truncated to before that position chooses nothing until it has as many tokens again, which
/// the grammar then holds from the same position on, or until another constraint, or none, is set.
///
/// A choice costs no mask where the likeliest token is allowed (temperature 0). kigo_session_cancel() stops a mask that
/// kigo_session_generate() makes, within milliseconds; those of other calls are made to their end.
///
/// From a call that chooses, CONSTRAINT: the session was given tokens that the grammar does not allow, nothing that it
/// allows is left, or it takes too much at one token; the session stays as it is, and another constraint, or none, can be
/// set. From this one, INVALID_ARGUMENT: a constraint of another model. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_set_constraint(
    session: *mut kigo_session,
    constraint: *const kigo_constraint,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let session = self::session(session)?;
        if constraint.is_null() {
            return session.0.set_constraint(None);
        }
        let constraint = borrow(constraint, "constraint")?;
        session.0.set_constraint(Some(&constraint.0))
    })
}
