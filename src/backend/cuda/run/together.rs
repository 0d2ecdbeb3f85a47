//! Chunks side by side, a token of each at a time.

use std::sync::atomic::Ordering;

use super::exec::{Exec, Network, state_of};
use super::slot::slot_of;
use super::step::Pass;
use super::{sample, single};
use crate::backend::cuda::driver::Event;
use crate::backend::cuda::kernels::abi::State;
use crate::backend::cuda::plan::limits::{AHEAD, MOST_SEQUENCES};
use crate::backend::cuda::plan::split::AttentionSplit;
use crate::backend::{Chunk, RunControl, Want};
use crate::error::{Error, Result};

/// Runs the chunks, [`MOST_SEQUENCES`] of them in a step.
pub fn run(net: &Network, exec: &mut Exec, chunks: &mut [&mut Chunk<'_>], run: &RunControl<'_>) -> Result<()> {
    for chunk in &mut *chunks {
        net.bind(&exec.stream, chunk)?;
    }
    let last = chunks.iter().map(|c| c.start + c.tokens.len()).max().unwrap_or(0);
    exec.grow(net, last)?;
    // At the end of the only step, for those who will ask.
    let choose = chunks.len() <= MOST_SEQUENCES && chunks.iter().all(|c| c.tokens.len() == 1);
    let mut mark = None;
    let rounds = chunks.iter().map(|c| c.tokens.len()).max().unwrap_or(0);
    for round in 0..rounds {
        let mut going: Vec<&mut &mut Chunk<'_>> = chunks.iter_mut().filter(|c| round < c.tokens.len()).collect();
        for group in going.chunks_mut(MOST_SEQUENCES) {
            if run.cancel.load(Ordering::Acquire) {
                return Err(Error::Cancelled);
            }
            step(net, exec, group, round, choose)?;
        }
        // Never far ahead, so that a cancel is seen soon.
        if round % AHEAD == AHEAD - 1 {
            let made = mark.is_some();
            let mark = match &mut mark {
                Some(mark) => mark,
                none => none.insert(Event::new(&net.gpu, false)?),
            };
            if made {
                mark.wait()?;
            }
            mark.record(&exec.stream)?;
        }
    }
    Ok(())
}

/// One step: token `round` of each.
fn step(net: &Network, exec: &mut Exec, group: &mut [&mut &mut Chunk<'_>], round: usize, choose: bool) -> Result<()> {
    let wanted = |c: &Chunk<'_>| c.want == Want::Last && round + 1 == c.tokens.len();
    let logits = group.iter().any(|c| wanted(c));
    if let [chunk] = group {
        let position = chunk.start + round;
        let slot = slot_of(chunk.slot)?;
        exec.set_state(net, slot, chunk.tokens[round], position, &State::default())?;
        slot.state = slot.state.behind();
        return single::queue(net, exec, if logits { Pass::Logits } else { Pass::Cache }, position);
    }
    let each = group.iter().map(|c| net.split_at(c.start + round, &exec.tuning));
    let split = AttentionSplit::among(group.len(), &exec.tuning, each);
    let mut states = Vec::with_capacity(group.len());
    for chunk in group.iter_mut() {
        let position = chunk.start + round;
        let token = chunk.tokens[round];
        let slot = slot_of(chunk.slot)?;
        states.push(state_of(slot, token, position, 0, State::default()));
        slot.state = slot.state.behind();
    }
    let chosen = if choose { sample::among(group, &mut states)? } else { None };
    let (batch, making) = exec.batch_for(net, group.len())?;
    batch.grow(&net.gpu, split.chunks, making.stream)?;
    batch.queue(making, if logits { &net.ops } else { net.body() }, &states, logits, split)?;
    chosen.map_or(Ok(()), |greedy| sample::queue(&net.gpu, &batch.work, making.stream, greedy, states.len()))
}
