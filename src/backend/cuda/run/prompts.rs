//! Prompts through the tensor cores, one by one or several in a pass, and the logits after them.
//!
//! Invariant: a prompt's bits are those that it gets alone: its rows do (lower_prefill.rs), and the last stage of a batch gives
//! each sequence what the stage of a token alone gives it.

use super::exec::{Exec, Network, state_of};
use super::prefill::{self, On, Part};
use super::slot::slot_of;
use super::tap::TapReader;
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::State;
use crate::backend::cuda::plan::limits::{MOST_ROWS, MOST_SEQUENCES};
use crate::backend::cuda::plan::lower_step::lower;
use crate::backend::{Chunk, RunControl, Want};
use crate::error::Result;

/// A pass of parts; the address of the first token's residual stream.
fn pass(net: &Network, exec: &mut Exec, n: usize, parts: &[Part<'_>], run: &mut RunControl<'_>) -> Result<Address> {
    exec.prefill_for(net, n)?;
    let (work, stream) = match &exec.prefill {
        Some(work) => (work, &exec.stream),
        None => return super::internal("no rows"),
    };
    prefill::run(On { gpu: &net.gpu, config: &net.config, ops: &net.headless, work, stream }, parts, run)
}

/// One chunk by itself.
pub fn run_alone(
    net: &Network,
    exec: &mut Exec,
    sequence: usize,
    chunk: &mut Chunk<'_>,
    run: &mut RunControl<'_>,
) -> Result<()> {
    let (tokens, start) = (chunk.tokens, chunk.start);
    let slot = net.bind(&exec.stream, chunk)?;
    let (tables, is_long, mut state) = (slot.tables(), slot.is_long, slot.state);
    exec.grow(net, start + tokens.len())?;
    let most = tokens.len().min(MOST_ROWS);
    let mut last = 0;
    for (i, tokens) in tokens.chunks(MOST_ROWS).enumerate() {
        let part = Part { tables, sequence, is_long, state, start: start + i * MOST_ROWS, tokens };
        state = state.behind();
        let first = pass(net, exec, most, &[part], run)?;
        last = first + ((tokens.len() - 1) * net.config.n_embd * 4) as u64;
    }
    if chunk.want == Want::Nothing { Ok(()) } else { logits(net, exec, sequence, chunk, last, run) }
}

/// The last stage of a step, from the last token's stream.
fn logits(
    net: &Network,
    exec: &mut Exec,
    sequence: usize,
    chunk: &mut Chunk<'_>,
    last: Address,
    run: &mut RunControl<'_>,
) -> Result<()> {
    let (position, slot) = (chunk.start + chunk.tokens.len() - 1, slot_of(chunk.slot)?);
    let launches = lower(exec.target(net), net.head(), run.tap.is_some());
    // SAFETY: both are rows of n_embd.
    unsafe { exec.stream.copy(exec.work.x[0], last, net.config.n_embd * 4)? };
    exec.set_state(net, slot, chunk.tokens[chunk.tokens.len() - 1], position, &State::default())?;
    let tap = run.tap.as_deref_mut();
    let mut eye = TapReader { stream: &exec.stream, sequence, position, rows: 1, tap };
    let launcher = exec.launcher(net, net.split_at(position, &exec.tuning), false);
    launcher.launch_watched(&launches, slot.logits.at(), &mut eye)
}

/// Chunks of fewer than [`MOST_ROWS`] tokens, as many in a pass as fit into it.
pub fn run(
    net: &Network,
    exec: &mut Exec,
    mut prompts: Vec<(usize, &mut Chunk<'_>)>,
    run: &mut RunControl<'_>,
) -> Result<()> {
    while !prompts.is_empty() {
        let mut n_tokens = 0;
        let fit = prompts.iter().take_while(|(_, chunk)| {
            n_tokens += chunk.tokens.len();
            n_tokens <= MOST_ROWS
        });
        let waiting = prompts.split_off(fit.count());
        match &mut prompts[..] {
            [(sequence, chunk)] => run_alone(net, exec, *sequence, chunk, run)?,
            several => run_together(net, exec, several, run)?,
        }
        prompts = waiting;
    }
    Ok(())
}

fn run_together(
    net: &Network,
    exec: &mut Exec,
    prompts: &mut [(usize, &mut Chunk<'_>)],
    run: &mut RunControl<'_>,
) -> Result<()> {
    let n_tokens = prompts.iter().map(|(_, c)| c.tokens.len()).sum();
    let mut parts = Vec::with_capacity(prompts.len());
    for (sequence, chunk) in &mut *prompts {
        let (start, tokens) = (chunk.start, chunk.tokens);
        let slot = net.bind(&exec.stream, chunk)?;
        let (tables, is_long, state) = (slot.tables(), slot.is_long, slot.state);
        parts.push(Part { tables, sequence: *sequence, is_long, state, start, tokens });
    }
    let longest = parts.iter().map(|part| part.start + part.tokens.len()).max().unwrap_or(0);
    exec.grow(net, longest)?;
    let mut at = pass(net, exec, n_tokens, &parts, run)?;
    let row = (net.config.n_embd * 4) as u64;
    let mut lasts = Vec::with_capacity(prompts.len());
    for (sequence, chunk) in prompts {
        at += chunk.tokens.len() as u64 * row;
        if chunk.want == Want::Last {
            lasts.push((*sequence, &mut **chunk, at - row));
        }
    }
    if lasts.len() < 2 || !exec.steps.can_batch {
        for (sequence, chunk, last) in lasts {
            logits(net, exec, sequence, chunk, last, run)?;
        }
        return Ok(());
    }
    for group in lasts.chunks_mut(MOST_SEQUENCES) {
        let mut states = Vec::with_capacity(group.len());
        for (_, chunk, _) in &mut *group {
            let position = chunk.start + chunk.tokens.len() - 1;
            let token = chunk.tokens[chunk.tokens.len() - 1];
            states.push(state_of(slot_of(chunk.slot)?, token, position, 0, State::default()));
        }
        let rows: Vec<Address> = group.iter().map(|(_, _, last)| *last).collect();
        let (batch, making) = exec.batch_for(net, group.len())?;
        batch.queue_head(making, net.head(), &states, &rows)?;
    }
    Ok(())
}
