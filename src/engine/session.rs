//! A session: one sequence of tokens with its cache and its logits.
//!
//! Invariants:
//! - `tokens` are exactly what the cache holds; `has_logits` says that the slot's logits are those after the last;
//! - a call that fails or is cancelled changes neither (a backend writes only cache rows behind `tokens`);
//! - `tokens`, `pages` and `slot` may be shared with forks and are then only read: whoever changes them has its own
//!   first ([`State::tokens_for`], [`Pages::prepare`], [`State::own_slot`]);
//! - one call at a time: `state` is only ever tried, and a panic inside poisons this lock and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::cache::Pages;
use super::grammar::{Held, MaskCancel};
use super::logprobs::floats;
use super::model::Model;
use super::passes::{self, Part};
use super::tap::{self, Tap};
use crate::alloc::reserve;
use crate::backend::{LoadedModel, PAGE_TOKENS, Slot, TapEvent, TapObserver, Want};
use crate::error::{Error, Result};
use crate::sampler::{SampleRequest, SamplingParams, log_softmax};

/// How a session is made.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// The most tokens; `None`: what the model was trained for.
    pub n_ctx: Option<usize>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Takes the cache of the tokens that another session of the model begins with, too, from there.
    pub reuse_prefix: bool,
}

/// What a session holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// Tokens.
    pub n_tokens: usize,
    /// The most tokens.
    pub n_ctx: usize,
    /// Cache pages.
    pub n_pages: usize,
    /// Of them, those that become free with the session.
    pub n_pages_own: usize,
    /// Whether there are current logits.
    pub has_logits: bool,
    /// Tokens whose cache came from another session.
    pub n_reused: usize,
}

/// One sequence.
pub struct Session {
    model: Model,
    n_ctx: usize,
    cancel: Arc<AtomicBool>,
    mask_cancel: MaskCancel,
    state: Mutex<State>,
}

/// A slot that forks may share, which then only read it.
pub(super) type SharedSlot = Arc<Mutex<Box<dyn Slot>>>;

/// A call's passes that are under way.
pub(super) struct Appending {
    /// Receives the logits, and becomes the session's.
    slot: SharedSlot,
    /// So many of the tokens are in the cache already.
    pub(super) n_known: usize,
}

/// A pass as a session's tap sees it.
struct Watch<'a> {
    session: &'a Session,
    tap: &'a mut Tap,
    /// Whether the tap has not stopped the pass.
    goes_on: bool,
}

impl TapObserver for Watch<'_> {
    fn wants(&self, name: &str, layer: i32) -> bool {
        self.tap.wants(name, layer)
    }

    fn show(&mut self, event: &TapEvent<'_>) {
        if self.goes_on && !self.tap.show(event) {
            self.goes_on = false;
            // The backend looks at nothing else.
            self.session.cancel();
        }
    }
}

/// What one call at a time works on.
pub(super) struct State {
    pub(super) tokens: Arc<Vec<u32>>,
    pub(super) pages: Pages,
    pub(super) slot: SharedSlot,
    pub(super) has_logits: bool,
    pub(super) sampling: SamplingParams,
    reuse_prefix: bool,
    n_reused: usize,
    pub(super) tap: Option<Tap>,
    pub(super) constraint: Option<Box<Held>>,
    /// A call found the library itself at fault: nothing more is done with this session.
    broken: bool,
}

impl Session {
    /// A session without tokens.
    pub fn new(model: &Model, options: SessionOptions) -> Result<Session> {
        tap::not_inside()?;
        model.computes()?;
        let inner = &model.inner;
        let n_ctx_train = inner.facts.n_ctx_train;
        let n_ctx = options.n_ctx.unwrap_or(n_ctx_train);
        if n_ctx == 0 || n_ctx > n_ctx_train {
            let expected = format!("1 to the model's {n_ctx_train}");
            return Err(Error::Argument { name: "n_ctx", found: n_ctx.to_string(), expected });
        }
        options.sampling.validate(inner.facts.n_vocab)?;
        let state = State {
            tokens: Arc::default(),
            pages: Pages::new(&inner.pool),
            slot: Arc::new(Mutex::new(inner.loaded.create_slot()?)),
            has_logits: false,
            sampling: options.sampling,
            reuse_prefix: options.reuse_prefix,
            n_reused: 0,
            tap: None,
            constraint: None,
            broken: false,
        };
        let (model, cancel, mask_cancel) = (model.clone(), Arc::default(), MaskCancel::default());
        Ok(Session { model, n_ctx, cancel, mask_cancel, state: Mutex::new(state) })
    }

    /// A session with the same tokens, logits, context length and parameters, in constant time: what they have in
    /// common is held once, and copied by whoever changes it first. The fork has no tap.
    pub fn fork(&self) -> Result<Session> {
        self.call(|state| {
            let state = State {
                tokens: Arc::clone(&state.tokens),
                pages: state.pages.fork(),
                slot: Arc::clone(&state.slot),
                has_logits: state.has_logits,
                sampling: state.sampling.clone(),
                reuse_prefix: state.reuse_prefix,
                n_reused: state.n_reused,
                tap: None,
                constraint: state.constraint.as_ref().map(|c| Box::new(c.fork())),
                broken: false,
            };
            let (model, cancel, mask_cancel) = (self.model.clone(), Arc::default(), MaskCancel::default());
            Ok(Session { model, n_ctx: self.n_ctx, cancel, mask_cancel, state: Mutex::new(state) })
        })
    }

    /// The session's state, unless another call has it.
    pub(super) fn lock(&self) -> Result<MutexGuard<'_, State>> {
        tap::not_inside()?;
        let poisoned = Error::Poisoned { what: "session" };
        match self.state.try_lock() {
            Ok(state) if state.broken => Err(poisoned),
            Ok(state) => Ok(state),
            Err(TryLockError::WouldBlock) => Err(Error::Busy),
            // A panic inside an earlier call.
            Err(TryLockError::Poisoned(_)) => Err(poisoned),
        }
    }

    /// Runs one call. A panic in it, or an internal error, is the session's end.
    pub(super) fn call<T>(&self, call: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        self.lock()?.mind(call)
    }

    /// The model it was made from.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The most tokens it can hold.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Number of logits.
    pub fn n_vocab(&self) -> usize {
        self.model.inner.facts.n_vocab
    }

    /// Stops the running prefill or generation, or else the next. Any thread, and a signal handler: it waits for nothing.
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Release);
        self.mask_cancel.cancel();
    }

    /// What stops a mask, and the flag that says that it is to be stopped.
    pub(super) fn mask_cancel(&self) -> (MaskCancel, Arc<AtomicBool>) {
        (self.mask_cancel.clone(), Arc::clone(&self.cancel))
    }

    /// Forgets a cancel that nothing has used up.
    pub fn clear_cancel(&self) {
        self.cancel.store(false, Ordering::Release);
    }

    /// Whether a cancel is pending; uses it up.
    pub(super) fn take_cancel(&self) -> bool {
        self.cancel.swap(false, Ordering::AcqRel)
    }

    /// Replaces the sampling parameters.
    pub fn set_sampling(&self, sampling: SamplingParams) -> Result<()> {
        self.call(|state| {
            sampling.validate(self.n_vocab())?;
            state.sampling = sampling;
            Ok(())
        })
    }

    /// Shows the session's passes from now on to `tap`, or to nobody.
    pub fn set_tap(&self, tap: Option<Tap>) -> Result<()> {
        self.call(|state| {
            state.tap = tap;
            Ok(())
        })
    }

    /// Appends tokens; the logits after the last become current.
    pub fn prefill(&self, tokens: &[u32]) -> Result<()> {
        self.call(|state| self.append(state, tokens))
    }

    /// [`Self::prefill`] for a caller that has the lock.
    pub(super) fn append(&self, state: &mut State, tokens: &[u32]) -> Result<()> {
        let mut appending = self.begin(state, tokens)?;
        let outcome = match state.tap.take() {
            None => self.forward(state, &appending, tokens),
            Some(mut tap) => {
                let outcome = self.forward_tapped(state, &mut appending, tokens, &mut tap);
                state.tap = Some(tap);
                outcome
            }
        };
        self.end(state, appending, tokens, outcome)
    }

    /// Checks the tokens and makes room for them; fails and changes nothing.
    pub(super) fn begin(&self, state: &mut State, tokens: &[u32]) -> Result<Appending> {
        let n_tokens = state.tokens.len();
        if tokens.is_empty() {
            return Err(Error::Argument { name: "n_ids", found: "0".to_owned(), expected: "at least 1".to_owned() });
        }
        let n_vocab = self.n_vocab();
        if let Some((index, token)) = tokens.iter().enumerate().find(|(_, t)| **t as usize >= n_vocab) {
            return Err(Error::TokenOutOfRange { index, token: *token, n_vocab });
        }
        if tokens.len() > self.n_ctx - n_tokens {
            return Err(Error::ContextFull { n_tokens, n_new: tokens.len(), n_ctx: self.n_ctx });
        }
        state.tokens_for(tokens.len())?;
        let slot = state.own_slot(&*self.model.inner.loaded)?;
        let whole = n_tokens.is_multiple_of(PAGE_TOKENS);
        // A tap wants to see every token.
        let reuse = state.reuse_prefix && whole && state.tap.is_none();
        let n_known = if reuse { state.pages.adopt(tokens)? } else { 0 };
        if let Err(error) = state.pages.prepare(n_tokens + n_known, n_tokens + tokens.len()) {
            state.pages.shrink(n_tokens)?;
            return Err(error);
        }
        Ok(Appending { slot, n_known })
    }

    /// What comes of the passes for the tokens of [`Self::begin`].
    pub(super) fn end(&self, state: &mut State, run: Appending, tokens: &[u32], outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => {
                state.slot = run.slot;
                let n_tokens = state.tokens.len();
                state.tokens_for(tokens.len())?.extend_from_slice(tokens);
                state.has_logits = true;
                state.n_reused += run.n_known;
                if n_tokens / PAGE_TOKENS != state.tokens.len() / PAGE_TOKENS {
                    state.pages.publish(&state.tokens);
                }
                Ok(())
            }
            Err(error) => {
                state.pages.shrink(state.tokens.len())?;
                if matches!(error, Error::Cancelled) {
                    self.take_cancel();
                }
                Err(error)
            }
        }
    }

    fn forward(&self, state: &State, run: &Appending, tokens: &[u32]) -> Result<()> {
        let most = self.model.inner.loaded.prefill_chunk();
        let mut done = run.n_known;
        while done < tokens.len() {
            if self.cancel.load(Ordering::Acquire) {
                return Err(Error::Cancelled);
            }
            let part = self.part(state, run, tokens, done, most)?;
            self.model.inner.run(vec![part]).pop().unwrap_or(Ok(()))?;
            done += most;
        }
        Ok(())
    }

    /// [`Self::forward`] with the activations shown. The logits come into a new slot: the tap may stop the pass when
    /// they are made already.
    fn forward_tapped(&self, state: &State, run: &mut Appending, tokens: &[u32], tap: &mut Tap) -> Result<()> {
        let loaded = &*self.model.inner.loaded;
        run.slot = Arc::new(Mutex::new(loaded.create_slot()?));
        let most = loaded.prefill_chunk();
        for done in (run.n_known..tokens.len()).step_by(most) {
            if self.cancel.load(Ordering::Acquire) {
                return Err(Error::Cancelled);
            }
            let part = self.part(state, run, tokens, done, most)?;
            let mut watch = Watch { session: self, tap, goes_on: true };
            passes::run_tapped(loaded, &part, &mut watch)?;
            // A cancel from inside the last event, or from another thread meanwhile: nothing of the pass is kept yet.
            if !watch.goes_on || self.cancel.load(Ordering::Acquire) {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// The next of `tokens`, at most `most`, where `done` need no pass any more.
    pub(super) fn part(
        &self,
        state: &State,
        run: &Appending,
        tokens: &[u32],
        done: usize,
        most: usize,
    ) -> Result<Part> {
        let to = tokens.len().min(done + most);
        let start = state.tokens.len() + done;
        let n_pages = (start + to - done).div_ceil(PAGE_TOKENS);
        Ok(Part {
            tokens: copied(&tokens[done..to], 0)?,
            start,
            pages: copied(&state.pages.as_slice()[..n_pages], 0)?,
            slot: Arc::clone(&run.slot),
            // Only the last pass writes logits, so that a cancelled one leaves the old ones.
            want: if to == tokens.len() { Want::Last } else { Want::Nothing },
            cancel: Arc::clone(&self.cancel),
        })
    }

    /// Picks the next token; appends nothing.
    pub fn sample(&self) -> Result<u32> {
        self.call(|state| self.choose(state, false))
    }

    /// [`Self::sample`] for a caller that has the lock. `stoppable`: a cancel stops the making of a mask.
    pub(super) fn choose(&self, state: &mut State, stoppable: bool) -> Result<u32> {
        state.logits_there()?;
        if let Some(token) = self.choose_allowed(state, stoppable)? {
            return Ok(token);
        }
        let position = state.tokens.len() as u64;
        let request = SampleRequest { params: &state.sampling, history: &state.tokens, position };
        Ok(self.model.inner.loaded.sample(&mut **lock_slot(&state.slot), &request)?.token)
    }

    /// Whether there are current logits.
    pub fn has_logits(&self) -> Result<()> {
        self.lock()?.logits_there()
    }

    /// Copies the current logits; `out` has `n_vocab` elements.
    pub fn logits(&self, out: &mut [f32]) -> Result<()> {
        self.call(|state| {
            state.logits_there()?;
            self.model.inner.loaded.logits(&mut **lock_slot(&state.slot), out)
        })
    }

    /// The log probabilities of the current logits.
    pub fn logprobs(&self, out: &mut [f32]) -> Result<()> {
        let logits = self.call(|state| self.logits_of(state))?;
        log_softmax(&logits, out)
    }

    /// A copy of the current logits.
    pub(super) fn logits_of(&self, state: &State) -> Result<Vec<f32>> {
        state.logits_there()?;
        let mut logits = floats(self.n_vocab())?;
        self.model.inner.loaded.logits(&mut **lock_slot(&state.slot), &mut logits)?;
        Ok(logits)
    }

    /// Lends the tokens.
    pub fn with_tokens<T>(&self, read: impl FnOnce(&[u32]) -> Result<T>) -> Result<T> {
        read(&self.lock()?.tokens)
    }

    /// What it holds.
    pub fn facts(&self) -> Result<SessionFacts> {
        let state = self.lock()?;
        Ok(SessionFacts {
            n_tokens: state.tokens.len(),
            n_ctx: self.n_ctx,
            n_pages: state.pages.as_slice().len(),
            n_pages_own: state.pages.n_own(),
            has_logits: state.has_logits,
            n_reused: state.n_reused,
        })
    }

    /// Drops all tokens but the first `n`; unless nothing was dropped, the logits go too.
    pub fn truncate(&self, n: usize) -> Result<()> {
        self.call(|state| {
            let n_tokens = state.tokens.len();
            if n > n_tokens {
                let expected = format!("at most the {n_tokens} held");
                return Err(Error::Argument { name: "n_tokens", found: n.to_string(), expected });
            }
            if n < n_tokens {
                let kept =
                    if Arc::get_mut(&mut state.tokens).is_some() { None } else { Some(copied(&state.tokens[..n], 0)?) };
                state.pages.shrink(n)?;
                match kept {
                    Some(kept) => state.tokens = Arc::new(kept),
                    None => Arc::make_mut(&mut state.tokens).truncate(n),
                }
                state.has_logits = false;
            }
            Ok(())
        })
    }
}

impl State {
    /// Runs one call; an internal error is the session's end.
    pub(super) fn mind<T>(&mut self, call: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let outcome = call(self);
        self.broken = matches!(outcome, Err(Error::Internal { .. }));
        outcome
    }

    pub(super) fn logits_there(&self) -> Result<()> {
        if self.has_logits { Ok(()) } else { Err(Error::State { needs: "logits: prefill or step first" }) }
    }

    /// The tokens, this session's own, with room for `n` more.
    pub(super) fn tokens_for(&mut self, n: usize) -> Result<&mut Vec<u32>> {
        if Arc::get_mut(&mut self.tokens).is_none() {
            self.tokens = Arc::new(copied(&self.tokens, n)?);
        }
        let tokens = Arc::make_mut(&mut self.tokens);
        reserve(tokens, n)?;
        Ok(tokens)
    }

    /// A slot that a pass may write to: this session's, or a new one in place of one that forks share. It becomes the
    /// session's when the pass has succeeded.
    pub(super) fn own_slot(&mut self, loaded: &dyn LoadedModel) -> Result<SharedSlot> {
        match Arc::get_mut(&mut self.slot) {
            Some(_) => Ok(Arc::clone(&self.slot)),
            None => Ok(Arc::new(Mutex::new(loaded.create_slot()?))),
        }
    }
}

/// The slot, once forks that read it are done. A panic in another session's read has not written it.
pub(super) fn lock_slot(slot: &SharedSlot) -> MutexGuard<'_, Box<dyn Slot>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A copy of `from` with room for `n` more, or the numbers.
fn copied(from: &[u32], n: usize) -> Result<Vec<u32>> {
    let mut copy = Vec::new();
    reserve(&mut copy, from.len() + n)?;
    copy.extend_from_slice(from);
    Ok(copy)
}
