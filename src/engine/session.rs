//! A session: one sequence of tokens with its cache and its logits.
//!
//! Invariants:
//! - `tokens` are exactly what the cache holds; `has_logits` says that the slot's logits are those after the last;
//! - a call that fails or is cancelled changes neither (a backend writes only cache rows behind `tokens`);
//! - `tokens`, `pages` and `slot` may be shared with forks and are then only read: whoever changes them has its own
//!   first ([`State::tokens_for`], [`Pages::prepare`], [`State::own_slot`]);
//! - one call at a time: `state` is only ever tried, and a panic inside poisons this lock and nothing else; between the
//!   calls of a batch that has the session no other call gets it (`taken_by`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use super::cache::{HeldState, Pages, PrefixKey};
use super::figures::{Clocks, SessionFigures};
use super::grammar::{Held, MaskCancel};
use super::model::Model;
use super::slot::{SharedSlot, lock_slot};
use super::tap::{self, Tap};
use crate::alloc::reserve;
use crate::backend::LoadedModel;
use crate::error::{Error, Result};
use crate::sampler::{SampleRequest, SamplingParams};

/// How a session is made.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// The most tokens; `None`: what the model was trained for.
    pub n_ctx: Option<usize>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Takes the cache of the tokens that another session of the model begins with, too, from there.
    pub reuse_prefix: bool,
    /// Prefixes are common only to sessions of the same salt.
    pub prefix_salt: Vec<u8>,
}

/// The most bytes of a salt.
const MAX_SALT_BYTES: usize = 1024;

/// Fails where a salt is too long.
pub fn check_salt(n_bytes: usize) -> Result<()> {
    if n_bytes <= MAX_SALT_BYTES {
        return Ok(());
    }
    let expected = format!("at most {MAX_SALT_BYTES}");
    Err(Error::Argument { name: "prefix_salt_len", found: n_bytes.to_string(), expected })
}

/// What a session holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// Tokens.
    pub n_tokens: usize,
    /// The most tokens.
    pub n_ctx: usize,
    /// Whether its context length has chosen the ropes of long sessions (LongRoPE).
    pub is_long: bool,
    /// Cache pages.
    pub n_pages: usize,
    /// Those of the pages that become free with the session.
    pub n_pages_own: usize,
    /// Whether there are current logits.
    pub has_logits: bool,
    /// Tokens whose cache came from another session.
    pub n_reused: usize,
    /// To as many tokens or more it can be truncated without that anything is computed again.
    pub n_free_from: usize,
    /// Bytes of its state.
    pub state_bytes: u64,
    /// Checkpoints on its pages.
    pub n_checkpoints: usize,
}

/// One sequence.
pub struct Session {
    model: Model,
    n_ctx: usize,
    pub(super) cancel: Arc<AtomicBool>,
    mask_cancel: MaskCancel,
    pub(super) clocks: Arc<Clocks>,
    state: Mutex<State>,
}

/// What one call at a time works on.
pub(super) struct State {
    pub(super) tokens: Arc<Vec<u32>>,
    pub(super) pages: Pages,
    pub(super) slot: SharedSlot,
    /// The state behind the tokens: where the model has states, and there are tokens.
    pub(super) behind: Option<HeldState>,
    pub(super) has_logits: bool,
    pub(super) sampling: SamplingParams,
    pub(super) reuse_prefix: bool,
    pub(super) n_reused: usize,
    /// What the session had come to when its last generation ended.
    pub(super) generated_at: SessionFigures,
    pub(super) tap: Option<Tap>,
    pub(super) constraint: Option<Box<Held>>,
    /// The batch that has the session between its calls.
    pub(super) taken_by: Option<Arc<()>>,
    /// A call found the library itself at fault: nothing more is done with this session.
    broken: bool,
}

impl Session {
    /// A session without tokens.
    pub fn new(model: &Model, mut options: SessionOptions) -> Result<Session> {
        let salt = std::mem::take(&mut options.prefix_salt);
        check_salt(salt.len())?;
        Session::with_salt(model, options, Some(salt))
    }

    /// A session without tokens that shares nothing with others, and that others find nothing of.
    pub(super) fn private(model: &Model, options: SessionOptions) -> Result<Session> {
        Session::with_salt(model, SessionOptions { reuse_prefix: false, ..options }, None)
    }

    fn with_salt(model: &Model, options: SessionOptions, salt: Option<Vec<u8>>) -> Result<Session> {
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
        let is_long = inner.loaded.config().is_long(n_ctx);
        let key = salt.map(|salt| PrefixKey { is_long, salt: Arc::new(salt) });
        let state = State {
            tokens: Arc::default(),
            pages: Pages::new(&inner.pool, key),
            slot: Arc::new(Mutex::new(inner.loaded.create_slot_for(n_ctx)?)),
            behind: None,
            has_logits: false,
            sampling: options.sampling,
            reuse_prefix: options.reuse_prefix,
            n_reused: 0,
            generated_at: SessionFigures::default(),
            tap: None,
            constraint: None,
            taken_by: None,
            broken: false,
        };
        Ok(Session::of(model, n_ctx, state))
    }

    fn of(model: &Model, n_ctx: usize, state: State) -> Session {
        let (cancel, mask_cancel, clocks) = (Arc::default(), MaskCancel::default(), Clocks::new(&model.inner.totals));
        Session { model: model.clone(), n_ctx, cancel, mask_cancel, clocks, state: Mutex::new(state) }
    }

    /// A session with the same tokens, logits, context length and parameters, in constant time: what they have in
    /// common is held once, and copied by whoever changes it first. The fork has no tap.
    pub fn fork(&self) -> Result<Session> {
        self.call(|state| {
            let sampling = state.sampling.clone();
            let constraint = state.constraint.as_ref().map(|c| Box::new(c.fork()));
            let state = State { sampling, constraint, ..state.branch() };
            Ok(Session::of(&self.model, self.n_ctx, state))
        })
    }

    /// The session's state, unless another call or a batch has it.
    pub(super) fn lock(&self) -> Result<MutexGuard<'_, State>> {
        self.lock_for(None)
    }

    /// [`Self::lock`] for the batch that has the session.
    pub(super) fn lock_for(&self, batch: Option<&Arc<()>>) -> Result<MutexGuard<'_, State>> {
        let poisoned = || Error::Poisoned { what: "session" };
        let state = match batch {
            // Nobody else keeps the lock: whoever tries it sees that the session is taken, and lets go. No batch runs inside of a tap.
            Some(_) => self.state.lock().map_err(|_| poisoned())?,
            None => {
                tap::not_inside()?;
                self.state.try_lock().map_err(|error| match error {
                    TryLockError::WouldBlock => Error::Busy,
                    // A panic inside an earlier call.
                    TryLockError::Poisoned(_) => poisoned(),
                })?
            }
        };
        match state.taken_by.as_ref().map(Arc::as_ptr) == batch.map(Arc::as_ptr) {
            _ if state.broken => Err(poisoned()),
            true => Ok(state),
            false => Err(Error::Busy),
        }
    }

    /// Runs one call. A panic in it, or an internal error, is the session's end.
    pub(super) fn call<T>(&self, call: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let outcome = self.lock().and_then(|mut state| state.run(call));
        self.model.inner.tell();
        outcome.inspect_err(|error| self.model.inner.totals.failed(error))
    }

    /// What it has come to so far; waits for nobody.
    pub fn figures(&self) -> SessionFigures {
        self.clocks.figures()
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

    /// Whether a cancel is pending.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Acquire)
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
        self.call(|state| self.append(state, tokens, None).map(drop))
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

    /// Lends the tokens.
    pub fn with_tokens<T>(&self, read: impl FnOnce(&[u32]) -> Result<T>) -> Result<T> {
        self.call(|state| read(&state.tokens))
    }

    /// What it holds.
    pub fn facts(&self) -> Result<SessionFacts> {
        self.call(|state| {
            Ok(SessionFacts {
                n_tokens: state.tokens.len(),
                n_ctx: self.n_ctx,
                is_long: self.model.inner.loaded.config().is_long(self.n_ctx),
                n_pages: state.pages.as_slice().len(),
                n_pages_own: state.pages.n_own(),
                has_logits: state.has_logits,
                n_reused: state.n_reused,
                n_free_from: state.pages.free_from(state.tokens.len()),
                state_bytes: if state.behind.is_some() { self.model.facts().state_bytes } else { 0 },
                n_checkpoints: state.pages.n_checkpoints(),
            })
        })
    }

    /// Drops all tokens but the first `n`; unless nothing was dropped, the logits go too. Where the windows in front of them
    /// have gone, or there is no state behind them, that is computed again first: what fails or is cancelled changes nothing.
    pub fn truncate(&self, n: usize) -> Result<()> {
        self.call(|state| {
            let n_tokens = state.tokens.len();
            if n > n_tokens {
                let expected = format!("at most the {n_tokens} held");
                return Err(Error::Argument { name: "n_tokens", found: n.to_string(), expected });
            }
            if n < n_tokens { self.cut(state, n) } else { Ok(()) }
        })
    }

    /// [`Self::truncate`] for a caller that has the lock, to fewer tokens than there are.
    pub(super) fn cut(&self, state: &mut State, n: usize) -> Result<()> {
        let kept = if Arc::get_mut(&mut state.tokens).is_some() { None } else { Some(copied(&state.tokens[..n], 0)?) };
        self.cut_pages(state, n)?;
        match kept {
            Some(kept) => state.tokens = Arc::new(kept),
            None => Arc::make_mut(&mut state.tokens).truncate(n),
        }
        state.has_logits = false;
        state.pages.publish(&state.tokens);
        Ok(())
    }
}

impl State {
    /// The same tokens and logits, held once; without a tap, a constraint and parameters of their own.
    pub(super) fn branch(&self) -> State {
        State {
            tokens: Arc::clone(&self.tokens),
            pages: self.pages.fork(),
            slot: Arc::clone(&self.slot),
            behind: self.behind.clone(),
            has_logits: self.has_logits,
            sampling: SamplingParams::default(),
            reuse_prefix: self.reuse_prefix,
            n_reused: self.n_reused,
            generated_at: SessionFigures::default(),
            tap: None,
            constraint: None,
            taken_by: None,
            broken: false,
        }
    }

    /// Runs one call; an internal error is the session's end.
    pub(super) fn run<T>(&mut self, call: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
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
    pub(super) fn own_slot(&mut self, loaded: &dyn LoadedModel, n_ctx: usize) -> Result<SharedSlot> {
        match Arc::get_mut(&mut self.slot) {
            Some(_) => Ok(Arc::clone(&self.slot)),
            None => Ok(Arc::new(Mutex::new(loaded.create_slot_for(n_ctx)?))),
        }
    }
}

/// A copy of `from` with room for `n` more, or the numbers.
pub(super) fn copied(from: &[u32], n: usize) -> Result<Vec<u32>> {
    let mut copy = Vec::new();
    reserve(&mut copy, from.len() + n)?;
    copy.extend_from_slice(from);
    Ok(copy)
}
