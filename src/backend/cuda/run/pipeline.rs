//! Choosing tokens on the device, one after another, ahead of the host.

use super::exec::{Exec, Network};
use super::model::CudaModel;
use super::sample::{NO_TOKEN, choose, drawn_by};
use super::slot::slot_of;
use super::step::Pass;
use super::{internal, single};
use crate::backend::cuda::driver::Event;
use crate::backend::cuda::kernels::abi::State;
use crate::backend::cuda::plan::limits::{AHEAD, RING};
use crate::backend::{Ahead, Verdict};
use crate::error::Result;
use crate::sampler;

/// Puts the device's state behind the last of the appended tokens, for the choice of the next.
fn start_ahead(net: &Network, exec: &mut Exec, ahead: &mut Ahead<'_>, last: u32, seen: usize) -> Result<()> {
    let slot = slot_of(ahead.slot)?;
    net.pages.bind(&exec.stream, slot, ahead.pages, ahead.position..ahead.position + ahead.n)?;
    let drawn = State { produced: exec.chosen as u32, ..drawn_by(ahead.params) };
    exec.set_state(net, slot, last, ahead.position + seen - 1, &drawn)
}

/// Computes the logits after the last appended token.
fn step_ahead(net: &Network, exec: &mut Exec, ahead: &mut Ahead<'_>, last: u32, seen: usize) -> Result<()> {
    start_ahead(net, exec, ahead, last, seen)?;
    single::queue(net, exec, Pass::Logits, ahead.position + seen - 1)
}

/// The next token alone, from the logits after the last appended one: those that are there, unless they are `stale`.
fn next_ahead(
    model: &CudaModel,
    ahead: &mut Ahead<'_>,
    last: u32,
    seen: usize,
    stale: bool,
    mark: &Event,
) -> Result<u32> {
    let net = &model.net;
    // The second time nobody else gets the device until the token is read.
    for kept in [false, true] {
        let mut exec = model.lock();
        net.gpu.bind()?;
        exec.grow(net, ahead.position + ahead.n)?;
        exec.epoch += 1;
        if stale && !kept {
            step_ahead(net, &mut exec, ahead, last, seen)?;
        }
        start_ahead(net, &mut exec, ahead, last, seen)?;
        let at = exec.next_chosen();
        choose(&net.gpu, &exec.work, &exec.stream, ahead.params.temperature != 0.0)?;
        mark.record(&exec.stream)?;
        if !kept {
            drop(exec);
            mark.wait()?;
            exec = model.lock();
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
pub fn run(model: &CudaModel, ahead: &mut Ahead<'_>, emit: &mut dyn FnMut(u32) -> Result<Verdict>) -> Result<()> {
    let outcome = if ahead.n == 0 { Ok(()) } else { run_ahead_of(model, ahead, emit) };
    if outcome.is_err() {
        // Nothing that was queued may write pages that the caller is about to give back.
        let _ = model.lock().stream.wait();
    }
    outcome
}

fn run_ahead_of(model: &CudaModel, ahead: &mut Ahead<'_>, emit: &mut dyn FnMut(u32) -> Result<Verdict>) -> Result<()> {
    let net = &model.net;
    let mut emit = |token| if token == NO_TOKEN { sampler::nothing_to_choose() } else { emit(token) };
    let marks = (0..AHEAD).map(|_| Event::new(&net.gpu, false)).collect::<Result<Vec<_>>>()?;
    // `at`: of the token after the seen ones in the ring; `stale`: the logits are not those after the last token.
    let (mut last, mut seen, mut queued, mut at, mut epoch, mut stale) = (ahead.last_token, 0, 0, 0, 0, false);
    let mut outcome = Ok(Verdict::GoOn);
    while matches!(outcome, Ok(Verdict::GoOn)) && seen < ahead.n {
        // The first one alone, so that the logits stay the prompt's, to the bit, until it is accepted.
        let mut alone = seen == 0;
        if !alone {
            let exec = &mut *model.lock();
            net.gpu.bind()?;
            if exec.epoch != epoch && queued == seen {
                exec.epoch += 1;
                epoch = exec.epoch;
                if stale {
                    step_ahead(net, exec, ahead, last, seen)?;
                }
                start_ahead(net, exec, ahead, last, seen)?;
                (at, stale) = (exec.chosen, false);
            }
            while exec.epoch == epoch && queued < ahead.n && queued < seen + AHEAD {
                let pass = if ahead.params.temperature == 0.0 { Pass::Choose } else { Pass::Draw };
                single::queue(net, exec, pass, ahead.position + queued)?;
                exec.next_chosen();
                marks[queued % AHEAD].record(&exec.stream)?;
                queued += 1;
            }
        }
        let mut token = NO_TOKEN;
        if !alone {
            marks[seen % AHEAD].wait()?;
            let exec = model.lock();
            // So many others have been about that it is overwritten: the next one alone, so that this run gets on.
            alone = exec.chosen - at > RING;
            stale |= alone;
            token = exec.work.ring_token(at);
        }
        if alone {
            token = next_ahead(model, ahead, last, seen, stale, &marks[0])?;
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
        let exec = &mut *model.lock();
        net.gpu.bind()?;
        if stale || queued > seen {
            exec.epoch += 1;
            step_ahead(net, exec, ahead, last, seen)?;
        }
        marks[0].record(&exec.stream)?;
    }
    marks[0].wait()?;
    outcome.map(|_| ())
}
