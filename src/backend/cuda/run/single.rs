//! A chunk token by token: the steps of one sequence.

use std::sync::atomic::Ordering;

use super::exec::{Exec, Network};
use super::sample;
use super::slot::slot_of;
use super::step::Pass;
use super::tap::TapReader;
use crate::backend::cuda::driver::Event;
use crate::backend::cuda::kernels::abi::State;
use crate::backend::cuda::plan::limits::AHEAD;
use crate::backend::cuda::plan::lower_step::lower;
use crate::backend::{Chunk, RunControl, Want};
use crate::error::{Error, Result};

/// Queues one step of the graph for `pass`.
pub fn queue(net: &Network, exec: &mut Exec, pass: Pass, position: usize) -> Result<()> {
    let split = net.split_at(position, &exec.tuning);
    let Exec { steps, work, stream, tuning, .. } = exec;
    let launcher = super::step::Launcher { gpu: &net.gpu, work, split, pdl: tuning.pdl, stream };
    steps.queue(&launcher, pass, || match pass {
        Pass::Choose => sample::choose(&net.gpu, work, stream, false),
        Pass::Draw => sample::choose(&net.gpu, work, stream, true),
        Pass::Cache | Pass::Logits => Ok(()),
    })
}

/// Runs a chunk.
pub fn run(
    net: &Network,
    exec: &mut Exec,
    sequence: usize,
    chunk: &mut Chunk<'_>,
    run: &mut RunControl<'_>,
) -> Result<()> {
    net.bind(&exec.stream, chunk)?;
    exec.grow(net, chunk.start + chunk.tokens.len())?;
    let slot = slot_of(chunk.slot)?;
    let drawn = State { produced: exec.chosen as u32, ..slot.wish.unwrap_or_default() };
    let mark = Event::new(&net.gpu, false)?;
    for (i, token) in chunk.tokens.iter().enumerate() {
        if run.cancel.load(Ordering::Acquire) {
            return Err(Error::Cancelled);
        }
        let position = chunk.start + i;
        exec.set_state(net, slot, *token, position, &drawn)?;
        slot.state = slot.state.behind();
        let want = chunk.want == Want::Last && i + 1 == chunk.tokens.len();
        if run.tap.is_some() {
            // Launch by launch: the launches and so the bits are those of the graph.
            let launches = lower(exec.target(net), if want { &net.ops } else { &net.headless }, true);
            let tap = run.tap.as_deref_mut();
            let mut eye = TapReader { stream: &exec.stream, sequence, position, rows: 1, tap };
            let launcher = exec.launcher(net, net.split_at(position, &exec.tuning), false);
            launcher.launch_watched(&launches, slot.logits.at(), &mut eye)?;
            continue;
        }
        queue(net, exec, if want { Pass::Logits } else { Pass::Cache }, position)?;
        // Never far ahead, so that a cancel is seen soon.
        if i % AHEAD == AHEAD - 1 {
            if i >= AHEAD {
                mark.wait()?;
            }
            mark.record(&exec.stream)?;
        }
    }
    Ok(())
}
