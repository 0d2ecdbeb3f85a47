//! A session's constraint: made for its model, asked where the stack and the time are bounded, stopped by a cancel.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use llguidance::TokenParser;

use super::grammar::{Constraint, Grammar, Held, Stop, nothing_left, on_own_stack, refused};
use super::model::Model;
use super::session::{Session, State};
use super::slot::lock_slot;
use crate::error::{Error, Result};
use crate::sampler::{self, SampleRequest};

/// The longest that a token which is watched may take.
const MAX_TIME: Duration = Duration::from_secs(2);

impl Constraint {
    /// Compiles the grammar for the model's vocabulary on a thread of its own; `go_on` is asked meanwhile on the caller's, and
    /// stops it by saying no. `compact`: JSON without white space between its parts.
    pub fn new(
        model: &Model,
        grammar: Grammar<'_>,
        compact: bool,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Constraint> {
        Constraint::of(&model.inner.grammars, grammar, compact, go_on)
    }

    /// [`Self::new`] to its end, with white space as the grammar allows it.
    pub fn compile(model: &Model, grammar: Grammar<'_>) -> Result<Constraint> {
        Constraint::new(model, grammar, false, &mut || true)
    }
}

/// Asks the session's constraint on a stack that suffices for it; `None`: there is none. `stoppable`: a cancel of the
/// session stops it.
fn ask<T: Send + 'static>(
    session: &Session,
    state: &mut State,
    stoppable: bool,
    question: impl FnOnce(&mut Held, &mut TokenParser) -> Result<T> + Send + 'static,
) -> Result<Option<T>> {
    let Some(held) = &mut state.constraint else { return Ok(None) };
    let stop = Arc::new(if stoppable { Stop::new(session.mask_cancel()) } else { Stop::default() });
    let Some(stack) = held.own_stack() else { return held.ask(&state.tokens, &stop, question).map(Some) };
    let (mut begun, mut n_done, mut too_long) = (Instant::now(), 0, false);
    let mut go_on = || {
        let now = stop.n_done();
        if now != n_done {
            (begun, n_done) = (Instant::now(), now);
        }
        too_long = begun.elapsed() > MAX_TIME;
        !too_long
    };
    // Here it is found again even where no thread was.
    let place = Arc::new(Mutex::new(state.constraint.take()));
    let (there, tokens, asked) = (Arc::clone(&place), Arc::clone(&state.tokens), Arc::clone(&stop));
    let answer = on_own_stack(stack, &mut go_on, &|| stop.stop(), move || {
        let mut held = there.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = &mut *held else { return Ok(None) };
        held.ask(&tokens, &asked, question).map(Some)
    });
    let answer = if too_long {
        Err(refused(format_args!("more than {} ms at one token", MAX_TIME.as_millis())))
    } else {
        answer
    };
    state.constraint = place.lock().unwrap_or_else(PoisonError::into_inner).take();
    answer
}

impl Session {
    /// Holds what is chosen from now on to a constraint, or to none any more.
    pub fn set_constraint(&self, constraint: Option<&Constraint>) -> Result<()> {
        self.call(|state| {
            if constraint.is_some_and(|constraint| !constraint.is_for(&self.model().inner.grammars)) {
                let expected = "one made for the session's model".to_owned();
                return Err(Error::Argument { name: "constraint", found: "another model's".to_owned(), expected });
            }
            state.constraint = constraint.map(|c| Box::new(Held::new(c, state.tokens.len())));
            Ok(())
        })
    }

    /// The next token among those that the constraint allows; `None`: there is no constraint.
    pub(in crate::engine) fn choose_allowed(&self, state: &mut State, stoppable: bool) -> Result<Option<u32>> {
        if state.constraint.is_none() {
            return Ok(None);
        }
        let loaded = &self.model().inner.loaded;
        let position = state.tokens.len() as u64;
        if state.sampling.temperature == 0.0 {
            // The likeliest of all is the likeliest of the allowed if it is allowed: most often no mask is needed.
            let request = SampleRequest { params: &state.sampling, history: &state.tokens, position };
            let token = loaded.sample(&mut **lock_slot(&state.slot), &request)?.token;
            if ask(self, state, stoppable, move |held, parser| held.allows(parser, token))? == Some(true) {
                return Ok(Some(token));
            }
        }
        let n_vocab = self.n_vocab();
        let mask = move |held: &mut Held, parser: &mut TokenParser| held.mask(parser, n_vocab);
        let Some(allowed) = ask(self, state, stoppable, mask)? else { return Ok(None) };
        let request = SampleRequest { params: &state.sampling, history: &state.tokens, position };
        let chosen = loaded.sample_among(&mut **lock_slot(&state.slot), &request, &allowed);
        match chosen {
            Err(Error::State { .. }) => Err(nothing_left()),
            chosen => Ok(Some(chosen?.token)),
        }
    }

    /// Bans what the session's constraint, if there is one, does not allow next. `stoppable`: a cancel stops it.
    pub(in crate::engine) fn mask(&self, state: &mut State, logits: &mut [f32], stoppable: bool) -> Result<()> {
        let n_vocab = self.n_vocab();
        if let Some(allowed) = ask(self, state, stoppable, move |held, parser| held.mask(parser, n_vocab))? {
            sampler::ban(logits, &allowed);
        }
        Ok(())
    }
}
