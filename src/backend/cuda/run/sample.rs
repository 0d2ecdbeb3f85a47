//! Choosing tokens on the device for callers that step and choose in turn.
//!
//! Who has asked for a token once will ask again after the next step: that step makes the choice at its end, by the same
//! parameters, and the call that asks for it finds it made. Invariant: a slot's choice is of the logits in the slot;
//! whatever writes these forgets it.

use std::ops::Range;

use super::exec::{Exec, Network, state_of};
use super::internal;
use super::model::CudaModel;
use super::slot::{Choice, CudaSlot, slot_of};
use crate::backend::cuda::driver::{Address, Buffer, Gpu, Stream};
use crate::backend::cuda::kernels::abi::State;
use crate::backend::cuda::kernels::launch::Queue;
use crate::backend::cuda::plan::limits::MOST_SEQUENCES;
use crate::backend::cuda::plan::limits::stride;
use crate::backend::cuda::plan::workspace::Workspace;
use crate::backend::{Chunk, Slot, Want};
use crate::error::{Error, Result};
use crate::sampler::{self, Draw, Rule, SampleRequest, Sampled, SamplingParams};

fn sampled(token: u32) -> Result<Sampled> {
    if token == NO_TOKEN { sampler::nothing_to_choose() } else { Ok(Sampled { token }) }
}

/// Whether every slot of a step wants a token: then the states go in the order of [`queue`], and how many are greedy.
pub fn among(group: &mut [&mut &mut Chunk<'_>], states: &mut [State]) -> Result<Option<usize>> {
    let mut wishes = Vec::with_capacity(group.len());
    for chunk in &mut *group {
        match slot_of(chunk.slot)?.wish {
            Some(wish) if chunk.want == Want::Last => wishes.push(wish),
            _ => return Ok(None),
        }
    }
    let mut order: Vec<usize> = (0..group.len()).collect();
    order.sort_by_key(|i| wishes[*i].temperature != 0.0);
    let before = states.to_vec();
    for (place, &i) in order.iter().enumerate() {
        let State { pages, table_stride, logits, token, position, is_long, .. } = before[i];
        let produced = place as u32;
        states[place] = State { pages, table_stride, logits, token, position, is_long, produced, ..wishes[i] };
        let choice = Choice { drawn: wishes[i], position: group[i].start, place, token: None, asked: false };
        slot_of(group[i].slot)?.choice = Some(choice);
    }
    Ok(Some(wishes.iter().filter(|w| w.temperature == 0.0).count()))
}

/// Queues the choices of the `n` states in the workspace, of which the first ones are greedy: each kind is one launch.
pub fn queue(gpu: &Gpu, work: &Workspace, stream: &Stream, greedy: usize, n: usize) -> Result<()> {
    choose_each(gpu, work, stream, false, 0..greedy as u32)?;
    choose_each(gpu, work, stream, true, greedy as u32..n as u32)
}

/// What the device leaves where there is no token to choose.
pub const NO_TOKEN: u32 = u32::MAX;

/// Queues the choice of a token from the logits of the state's slot.
pub fn choose(gpu: &Gpu, work: &Workspace, stream: &Stream, drawn: bool) -> Result<()> {
    choose_each(gpu, work, stream, drawn, 0..1)
}

/// [`choose`] for these sequences of a batch.
pub fn choose_each(gpu: &Gpu, work: &Workspace, stream: &Stream, drawn: bool, of: Range<u32>) -> Result<()> {
    if of.is_empty() {
        return Ok(());
    }
    let (n, ring, n_seq, first) = (work.n_vocab, work.ring(), of.end - of.start, u64::from(of.start));
    let state = work.state + first * size_of::<State>() as u64;
    let (queue, ring) = (Queue::new(gpu, stream), ring as Address);
    if drawn {
        queue.sample(state, n_seq, n, ring)
    } else {
        queue.argmax(state, n_seq, n, work.best + 8 * first, work.counter + 4 * first, ring)
    }
}

/// The parameters of a draw as the device takes them: of no draw, a temperature of 0.
pub fn drawn_by(p: &SamplingParams) -> State {
    // What adjusts logits is refused by `chooses`.
    let Rule { adjustment: _, draw } = p.rule();
    let Some(Draw { seed, temperature, inverse, top_k, share, least }) = draw else { return State::default() };
    State { seed, share, least, temperature, inverse, top_k, ..State::default() }
}

/// Whether the device chooses tokens by these parameters itself.
pub fn chooses(net: &Network, p: &SamplingParams) -> bool {
    let Rule { adjustment, draw } = p.rule();
    let draws = draw.is_none() || (net.gpu.major >= 9 && net.config.n_vocab <= net.most_drawn);
    draws && adjustment.is_none()
}

fn chooses_for(net: &Network, request: &SampleRequest<'_>) -> bool {
    chooses(net, request.params) && (1..i32::MAX as u64).contains(&request.position)
}

/// After the step of a sequence alone, for which the state has what draws go by.
pub fn choose_after(net: &Network, exec: &mut Exec, chunk: &mut Chunk<'_>) -> Result<()> {
    let slot = slot_of(chunk.slot)?;
    let (Some(wish), [_], Want::Last) = (slot.wish, chunk.tokens, chunk.want) else { return Ok(()) };
    let place = exec.next_chosen();
    choose(&net.gpu, &exec.work, &exec.stream, wish.temperature != 0.0)?;
    slot.choice = Some(Choice { drawn: wish, position: chunk.start, place, token: None, asked: false });
    Ok(())
}

/// Chooses a token, if the device can.
pub fn choose_alone(model: &CudaModel, slot: &mut CudaSlot, request: &SampleRequest<'_>) -> Option<Result<Sampled>> {
    let net = &model.net;
    if !chooses_for(net, request) {
        return None;
    }
    if let Err(error) = net.gpu.bind() {
        return Some(Err(error));
    }
    let (drawn, position) = (drawn_by(request.params), request.position as usize - 1);
    if let Some(token) = slot.chosen(&drawn, position) {
        return Some(sampled(token));
    }
    let choose = || {
        let exec = &mut *model.lock();
        exec.epoch += 1;
        let at = exec.next_chosen();
        exec.set_state(net, slot, 0, position, &State { produced: at as u32, ..drawn })?;
        choose(&net.gpu, &exec.work, &exec.stream, drawn.temperature != 0.0)?;
        exec.stream.wait()?;
        Ok(exec.work.ring_token(at))
    };
    let token = choose();
    if let Ok(token) = &token {
        slot.chose(drawn, position, *token);
    }
    Some(token.and_then(sampled))
}

/// Chooses among the tokens whose bits are set, if the device can.
pub fn choose_among(
    model: &CudaModel,
    slot: &CudaSlot,
    request: &SampleRequest<'_>,
    allowed: &[u32],
) -> Option<Result<Sampled>> {
    let net = &model.net;
    let n = net.config.n_vocab;
    if !chooses_for(net, request) || allowed.len() < n.div_ceil(32) {
        return None;
    }
    let choose = || {
        let exec = &mut *model.lock();
        net.gpu.bind()?;
        if exec.masked.is_none() {
            // The logits that are left, and the bits.
            exec.masked = Some(Buffer::new(&net.gpu, stride(n) * 4 + n.div_ceil(32) * 4)?);
        }
        let Some(masked) = &exec.masked else { return internal("no room for a mask") };
        let (left, bits) = (masked.at(), masked.at() + (stride(n) * 4) as u64);
        // SAFETY: the buffer has room for as many bits behind n floats; pageable memory is staged before the call returns.
        unsafe {
            exec.stream.upload(bits, allowed.as_ptr().cast(), n.div_ceil(32) * 4)?;
        }
        Queue::new(&net.gpu, &exec.stream).mask(slot.logits.at(), bits, left, n as u32)?;
        exec.epoch += 1;
        let (at, drawn) = (exec.next_chosen(), drawn_by(request.params));
        let position = request.position as i32 - 1;
        exec.put_state(net, &State { logits: left, position, produced: at as u32, ..drawn })?;
        choose(&net.gpu, &exec.work, &exec.stream, drawn.temperature != 0.0)?;
        exec.stream.wait()?;
        Ok(exec.work.ring_token(at))
    };
    match choose() {
        // The host needs no room on the device.
        Err(Error::OutOfMemory { .. }) => None,
        token => Some(token.and_then(sampled)),
    }
}

/// Chooses a token for each that the device can choose for.
pub fn choose_all(
    model: &CudaModel,
    slots: &mut [&mut dyn Slot],
    requests: &[SampleRequest<'_>],
) -> Vec<Option<Result<Sampled>>> {
    let net = &model.net;
    let mut results: Vec<Option<Result<Sampled>>> = requests.iter().map(|_| None).collect();
    if net.gpu.bind().is_err() {
        return results;
    }
    let mut open = Vec::new();
    for (i, (slot, request)) in slots.iter_mut().zip(requests).enumerate() {
        let Ok(slot) = slot_of(*slot) else { continue };
        if chooses_for(net, request) {
            let (drawn, position) = (drawn_by(request.params), request.position as usize - 1);
            match slot.chosen(&drawn, position) {
                Some(token) => results[i] = Some(sampled(token)),
                None => open.push((i, slot, drawn, position)),
            }
        }
    }
    // The greedy ones first.
    open.sort_by_key(|(_, _, drawn, _)| drawn.temperature != 0.0);
    for group in open.chunks_mut(MOST_SEQUENCES) {
        // Where that fails each is asked by itself, which says what is wrong with which.
        if let Ok(chosen) = choose_together(model, group) {
            for ((i, slot, drawn, position), token) in group.iter_mut().zip(chosen) {
                slot.chose(*drawn, *position, token);
                results[*i] = Some(sampled(token));
            }
        }
    }
    results
}

fn choose_together(model: &CudaModel, group: &[(usize, &mut CudaSlot, State, usize)]) -> Result<Vec<u32>> {
    let net = &model.net;
    let exec = &mut *model.lock();
    let state = |(place, (_, slot, drawn, position)): (usize, &(usize, &mut CudaSlot, State, usize))| {
        state_of(slot, 0, *position, place, *drawn)
    };
    let states: Vec<State> = group.iter().enumerate().map(state).collect();
    let greedy = group.iter().filter(|(_, _, drawn, _)| drawn.temperature == 0.0).count();
    let (batch, making) = exec.batch_for(net, states.len())?;
    batch.put_states(&states, making.stream)?;
    queue(&net.gpu, &batch.work, making.stream, greedy, states.len())?;
    making.stream.wait()?;
    Ok((0..states.len()).map(|place| batch.work.ring_token(place)).collect())
}
