//! What the three kinds of grammars share: a text from anywhere holds a session, which then writes a little.

use std::time::Duration;

use kigo::engine::{Grammar, Session, SessionOptions};
use kigo::error::Error;
use kigo::sampler::SamplingParams;

use crate::common::hold::hold;
use crate::support::{self, TEXT_BYTES, TEXT_TIME};

/// Tokens that are written.
const TOKENS: usize = 16;

/// The grammar, for as many tokens as there are: what was written, and whether it is whole.
pub fn write(grammar: Grammar<'_>, seed: u64) -> Option<(String, bool)> {
    let model = support::model();
    let sampling = SamplingParams { temperature: 2.0, seed, ..Default::default() };
    let session = Session::new(model, SessionOptions { sampling, ..Default::default() }).expect("a session");
    // The vocabulary is made once a model: not the case's to pay for.
    static WARM: std::sync::Once = std::sync::Once::new();
    WARM.call_once(|| hold(&session, Grammar::Regex("a")).expect("compiles"));
    session.prefill(&[1]).expect("runs");
    let held = support::bounded(TEXT_TIME, TEXT_BYTES, || hold(&session, grammar));
    match held {
        Ok(()) => {}
        Err(Error::Constraint { message }) => {
            assert!(!message.is_empty(), "a refusal says why");
            return None;
        }
        Err(error) => panic!("another failure than a refusal: {error}"),
    }
    let mut written = Vec::new();
    for n in 0..TOKENS {
        let chosen = support::bounded(TEXT_TIME, TEXT_BYTES, || session.sample());
        let token = match chosen {
            Ok(token) => token,
            Err(Error::Constraint { .. }) => return None,
            Err(error) => panic!("another failure than the grammar's: {error}"),
        };
        if model.token_flags(token).expect("it was chosen").end {
            return Some((String::from_utf8_lossy(&written).into_owned(), true));
        }
        written.extend_from_slice(&model.token_bytes(token).expect("it was chosen"));
        let taken = support::bounded(Duration::from_secs(1), 1 << 20, || session.prefill(&[token]));
        taken.expect("the context has room");
        if n == 6 && seed.is_multiple_of(4) {
            // Back, and on from there: it has to remember.
            session.truncate(3).expect("there are as many");
            session.prefill(&[token]).expect("runs");
            let _ = support::bounded(TEXT_TIME, TEXT_BYTES, || session.sample());
            return None;
        }
    }
    Some((String::from_utf8_lossy(&written).into_owned(), false))
}

/// A number from a text, for the draws.
pub fn seed(text: &str) -> u64 {
    crate::common::random::key(17, text)
}
