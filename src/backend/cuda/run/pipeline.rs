//! Choosing tokens on the device, one after another, ahead of the host.

use std::ops::Range;

use crate::backend::cuda::driver::{Event, Gpu, Stream};
use crate::backend::cuda::kernels::abi::State;
use crate::backend::cuda::kernels::launch as ffi;
use crate::backend::cuda::plan::workspace::{RING, Workspace};
use crate::backend::cuda::run::loaded::{CudaModel, Exec, Pass, internal, slot_of};
use crate::backend::{Ahead, Verdict};
use crate::error::Result;
use crate::sampler::{self, SamplingParams};

/// Steps queued before the host looks whether it should stop.
pub(crate) const AHEAD: usize = 8;

/// What the device leaves where there is no token to choose.
pub(crate) const NO_TOKEN: u32 = u32::MAX;

/// Queues the choice of a token from the logits of the state's slot.
pub(crate) fn choose(gpu: &Gpu, work: &Workspace, stream: &Stream, drawn: bool) -> Result<()> {
    choose_each(gpu, work, stream, drawn, 0..1)
}

/// [`choose`] for these sequences of a batch.
pub(crate) fn choose_each(gpu: &Gpu, work: &Workspace, stream: &Stream, drawn: bool, of: Range<u32>) -> Result<()> {
    if of.is_empty() {
        return Ok(());
    }
    let (n, ring, n_seq, first) = (work.n_vocab, work.ring(), of.end - of.start, u64::from(of.start));
    let state = work.state + first * size_of::<State>() as u64;
    // SAFETY: the states and the counters are in the workspace, the slots' logits have n elements.
    gpu.check(unsafe {
        if drawn {
            ffi::kgc_draw(state, n_seq, n, ring, 0, stream.raw())
        } else {
            let (best, counter) = (work.best + 8 * first, work.counter + 4 * first);
            ffi::kgc_argmax(state, n_seq, n, best, counter, ring, 0, stream.raw())
        }
    })
}

/// The parameters of a draw as the device takes them.
pub(crate) fn drawn_by(p: &SamplingParams) -> State {
    if p.temperature == 0.0 {
        return State::default();
    }
    let one = 1_099_511_627_776.0_f32;
    State {
        seed: p.seed,
        // A share below 2^-32 keeps one token, as 2^-32 does.
        share: if p.top_p > 0.0 && p.top_p < 1.0 { ((f64::from(p.top_p) * 4_294_967_296.0) as u64).max(1) } else { 0 },
        least: if p.min_p > 0.0 { (p.min_p.min(1.0) * one) as u64 } else { 0 },
        temperature: p.temperature,
        inverse: 1.0 / p.temperature,
        top_k: p.top_k,
        ..State::default()
    }
}

impl CudaModel {
    /// Whether the device chooses tokens by these parameters itself.
    pub(crate) fn chooses(&self, p: &SamplingParams) -> bool {
        // SAFETY: no arguments.
        let most = unsafe { ffi::kgc_draw_most() } as usize;
        let draws = p.temperature == 0.0 || (self.gpu.major >= 9 && self.config.n_vocab <= most);
        draws && !p.penalizes() && p.logit_bias.is_empty()
    }

    /// Puts the device's state behind the last of the appended tokens, for the choice of the next.
    fn start_ahead(&self, exec: &mut Exec, ahead: &mut Ahead<'_>, last: u32, seen: usize) -> Result<()> {
        let slot = slot_of(ahead.slot)?;
        self.bind_pages(exec, slot, ahead.pages)?;
        let drawn = State { produced: exec.chosen as u32, ..drawn_by(ahead.params) };
        self.set_state_and(exec, slot, last, ahead.position + seen - 1, &drawn)
    }

    /// Computes the logits after the last appended token.
    fn step_ahead(&self, exec: &mut Exec, ahead: &mut Ahead<'_>, last: u32, seen: usize) -> Result<()> {
        self.start_ahead(exec, ahead, last, seen)?;
        self.queue(exec, Pass::Logits, ahead.position + seen - 1)
    }

    /// The next token alone, from the logits after the last appended one: those that are there, unless they are `stale`.
    fn next_ahead(&self, ahead: &mut Ahead<'_>, last: u32, seen: usize, stale: bool, mark: &Event) -> Result<u32> {
        // The second time nobody else gets the device until the token is read.
        for kept in [false, true] {
            let mut exec = self.lock();
            self.gpu.bind()?;
            self.grow(&mut exec, ahead.position + ahead.n)?;
            exec.epoch += 1;
            if stale && !kept {
                self.step_ahead(&mut exec, ahead, last, seen)?;
            }
            self.start_ahead(&mut exec, ahead, last, seen)?;
            let at = exec.next_chosen();
            choose(&self.gpu, &exec.work, &exec.stream, ahead.params.temperature != 0.0)?;
            mark.record(&exec.stream)?;
            if !kept {
                drop(exec);
                mark.wait()?;
                exec = self.lock();
            } else {
                mark.wait()?;
            }
            if exec.chosen - at <= RING {
                return Ok(exec.work.ring_token(at));
            }
        }
        internal("a token was overwritten while nobody else had the device")
    }

    /// The loop of `decode_ahead`: the lock is not held while the host waits or `emit` runs. Whoever has used the device's
    /// state in between has changed the epoch: what was queued before that is still good, and taken before more is queued, so
    /// that each of several runs gets on.
    pub(crate) fn run_ahead(&self, ahead: &mut Ahead<'_>, emit: &mut dyn FnMut(u32) -> Result<Verdict>) -> Result<()> {
        let outcome = if ahead.n == 0 { Ok(()) } else { self.run_ahead_of(ahead, emit) };
        if outcome.is_err() {
            // Nothing that was queued may write pages that the caller is about to give back.
            let _ = self.lock().stream.wait();
        }
        outcome
    }

    fn run_ahead_of(&self, ahead: &mut Ahead<'_>, emit: &mut dyn FnMut(u32) -> Result<Verdict>) -> Result<()> {
        let mut emit = |token| if token == NO_TOKEN { sampler::nothing_to_choose() } else { emit(token) };
        let marks = (0..AHEAD).map(|_| Event::new(&self.gpu, false)).collect::<Result<Vec<_>>>()?;
        // `at`: of the token after the seen ones in the ring; `stale`: the logits are not those after the last token.
        let (mut last, mut seen, mut queued, mut at, mut epoch, mut stale) = (ahead.last_token, 0, 0, 0, 0, false);
        let mut outcome = Ok(Verdict::GoOn);
        while matches!(outcome, Ok(Verdict::GoOn)) && seen < ahead.n {
            // The first one alone, so that the logits stay the prompt's, to the bit, until it is accepted.
            let mut alone = seen == 0;
            if !alone {
                let exec = &mut *self.lock();
                self.gpu.bind()?;
                if exec.epoch != epoch && queued == seen {
                    exec.epoch += 1;
                    epoch = exec.epoch;
                    if stale {
                        self.step_ahead(exec, ahead, last, seen)?;
                    }
                    self.start_ahead(exec, ahead, last, seen)?;
                    (at, stale) = (exec.chosen, false);
                }
                while exec.epoch == epoch && queued < ahead.n && queued < seen + AHEAD {
                    let pass = if ahead.params.temperature == 0.0 { Pass::Choose } else { Pass::Draw };
                    self.queue(exec, pass, ahead.position + queued)?;
                    exec.next_chosen();
                    marks[queued % AHEAD].record(&exec.stream)?;
                    queued += 1;
                }
            }
            let mut token = NO_TOKEN;
            if !alone {
                marks[seen % AHEAD].wait()?;
                let exec = self.lock();
                // So many others have been about that it is overwritten: the next one alone, so that this run gets on.
                alone = exec.chosen - at > RING;
                stale |= alone;
                token = exec.work.ring_token(at);
            }
            if alone {
                token = self.next_ahead(ahead, last, seen, stale, &marks[0])?;
            }
            outcome = emit(token);
            let accepted = matches!(outcome, Ok(Verdict::GoOn | Verdict::Last));
            if accepted {
                (last, seen, at) = (token, seen + 1, at + 1);
            }
            if alone {
                // Nothing is queued behind it, and its own step is still to come.
                (queued, epoch, stale) = (seen, 0, accepted);
            }
        }
        {
            let exec = &mut *self.lock();
            self.gpu.bind()?;
            if stale || queued > seen {
                exec.epoch += 1;
                self.step_ahead(exec, ahead, last, seen)?;
            }
            marks[0].record(&exec.stream)?;
        }
        marks[0].wait()?;
        outcome.map(|_| ())
    }
}
