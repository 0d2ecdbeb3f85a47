//! Output held to a grammar: of the tokens that may come next only those are chosen that a JSON schema, a regular
//! expression or a Lark grammar allows. What ends a text is allowed where the grammar may end, and there only.

use super::prelude::*;
use super::session::{kigo_session, session};
use crate::engine::Grammar;

/// For kigo_session_set_constraint(): a JSON schema.
pub const KIGO_CONSTRAINT_JSON_SCHEMA: i32 = 1;
/// For kigo_session_set_constraint(): a regular expression, in the syntax of Rust's `regex` without look-around, for the
/// whole of the output.
pub const KIGO_CONSTRAINT_REGEX: i32 = 2;
/// For kigo_session_set_constraint(): a grammar in the Lark format of llguidance.
pub const KIGO_CONSTRAINT_LARK: i32 = 3;

/// Holds every token that is chosen from now on to the grammar `text` of a kind, KIGO_CONSTRAINT_*; kind 0 and NULL: to
/// none any more. It begins with the next token; kigo_session_sample(), kigo_session_generate() and kigo_sample_batch() keep to
/// it. Sampling parameters apply to the tokens that are allowed. `text` is copied by the call.
///
/// What it allows depends on the grammar and on the session's tokens from that position on, however they came there: forks
/// have their own copy, dropping tokens goes back in it, and a saved session has it too and goes on with it from exactly
/// there. A session that is truncated to before that position chooses nothing until it has as many tokens again, which
/// the grammar then holds from the same position on, or until another constraint, or none, is set.
///
/// The first constraint of a model's life indexes its vocabulary, which takes tenths of a second. A choice costs no mask
/// where the likeliest token is allowed (temperature 0).
///
/// A text may come from anywhere. It is weighed first, and one that would take its parser too much is refused with the
/// number and the limit: a schema of more than 4 MiB, another text or regular expressions of more than 512 KiB, 16384 rules
/// and brackets, 256 tokens that name each other, 200000 parts of a schema with the copies that are made where something
/// narrows what `$ref` stands for, 5000 properties of an object (200 with minProperties or maxProperties), 64 patterns for
/// their names, and patterns that must all match where the product of their alternatives is more than 100000. It is compiled
/// on a thread of its own, with a stack that suffices: a few MiB, up to 600 of address space for a text near the limits.
///
/// CONSTRAINT: the grammar has a mistake (the text says which), or would take too much, and nothing has changed; later, from
/// a call that chooses: the session was given tokens that the grammar does not allow, or nothing that it allows is left; the
/// session stays as it is, and another constraint, or none, can be set. OUT_OF_MEMORY: there is no thread with such a
/// stack. INVALID_ARGUMENT: another kind, NULL, no UTF-8. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_session_set_constraint(
    session: *mut kigo_session,
    kind: i32,
    text: *const c_char,
    text_len: usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let session = self::session(session)?;
        if kind == 0 && text.is_null() {
            return session.0.set_constraint(None);
        }
        let text = super::args::text(text, text_len, "text")?;
        let grammar = match kind {
            KIGO_CONSTRAINT_JSON_SCHEMA => Grammar::JsonSchema(text),
            KIGO_CONSTRAINT_REGEX => Grammar::Regex(text),
            KIGO_CONSTRAINT_LARK => Grammar::Lark(text),
            _ => {
                let expected = "1, 2 or 3, or 0 with NULL".to_owned();
                return Err(Error::Argument { name: "kind", found: kind.to_string(), expected });
            }
        };
        session.0.set_constraint(Some(grammar))
    })
}
