//! Choosing tokens on the device for callers that step and choose in turn.
//!
//! Who has asked for a token once will ask again after the next step: that step makes the choice at its end, by the same
//! parameters, and the call that asks for it finds it made. Invariant: a slot's choice is of the logits in the slot;
//! whatever writes these forgets it.

use crate::backend::cuda::driver::{Buffer, Gpu, Stream};
use crate::backend::cuda::kernels::abi::State;
use crate::backend::cuda::kernels::launch as ffi;
use crate::backend::cuda::plan::workspace::{Workspace, stride};
use crate::backend::cuda::run::batch::MOST_SEQUENCES;
use crate::backend::cuda::run::loaded::{CudaModel, CudaSlot, Exec, internal, slot_of};
use crate::backend::cuda::run::pipeline::{NO_TOKEN, choose, choose_each, drawn_by};
use crate::backend::{Chunk, Slot, Want};
use crate::error::{Error, Result};
use crate::sampler::{self, SampleRequest, Sampled};

/// A choice from a slot's logits.
pub struct Choice {
    drawn: State,
    /// Of the token that the logits follow.
    position: usize,
    /// Where in the ring the device leaves it.
    place: usize,
    /// Once it is made.
    token: Option<u32>,
    /// Whether somebody wanted it.
    asked: bool,
}

fn sampled(token: u32) -> Result<Sampled> {
    if token == NO_TOKEN { sampler::nothing_to_choose() } else { Ok(Sampled { token }) }
}

impl CudaSlot {
    /// The logits change: the choice is forgotten, and if it was asked for the next is made likewise.
    pub(crate) fn start_choice(&mut self) {
        self.wish = self.choice.take().filter(|c| c.asked).map(|c| c.drawn);
    }

    /// What was queued has run, if `ran`.
    pub(crate) fn end_choice(&mut self, work: &Workspace, ran: bool) {
        match &mut self.choice {
            Some(choice) if ran => choice.token = Some(work.ring_token(choice.place)),
            choice => *choice = None,
        }
    }

    /// The choice by these parameters, if it was made.
    fn chosen(&mut self, drawn: &State, position: usize) -> Option<u32> {
        let choice = self.choice.as_mut().filter(|c| c.position == position && c.drawn == *drawn)?;
        choice.asked = true;
        choice.token
    }

    fn chose(&mut self, drawn: State, position: usize, token: u32) {
        self.choice = Some(Choice { drawn, position, place: 0, token: Some(token), asked: true });
    }
}

/// Whether every slot of a step wants a token: then the states go in the order of [`queue`], and how many are greedy.
pub(crate) fn among(group: &mut [&mut &mut Chunk<'_>], states: &mut [State]) -> Result<Option<usize>> {
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
        let State { pages, logits, token, position, .. } = before[i];
        states[place] = State { pages, logits, token, position, produced: place as u32, ..wishes[i] };
        let choice = Choice { drawn: wishes[i], position: group[i].start, place, token: None, asked: false };
        slot_of(group[i].slot)?.choice = Some(choice);
    }
    Ok(Some(wishes.iter().filter(|w| w.temperature == 0.0).count()))
}

/// Queues the choices of the `n` states in the workspace, of which the first ones are greedy: each kind is one launch.
pub(crate) fn queue(gpu: &Gpu, work: &Workspace, stream: &Stream, greedy: usize, n: usize) -> Result<()> {
    choose_each(gpu, work, stream, false, 0..greedy as u32)?;
    choose_each(gpu, work, stream, true, greedy as u32..n as u32)
}

impl CudaModel {
    fn chooses_for(&self, request: &SampleRequest<'_>) -> bool {
        self.chooses(request.params) && (1..i32::MAX as u64).contains(&request.position)
    }

    /// After the step of a sequence alone, for which the state has what draws go by.
    pub(crate) fn choose_after(&self, exec: &mut Exec, chunk: &mut Chunk<'_>) -> Result<()> {
        let slot = slot_of(chunk.slot)?;
        let (Some(wish), [_], Want::Last) = (slot.wish, chunk.tokens, chunk.want) else { return Ok(()) };
        let place = exec.next_chosen();
        choose(&self.gpu, &exec.work, &exec.stream, wish.temperature != 0.0)?;
        slot.choice = Some(Choice { drawn: wish, position: chunk.start, place, token: None, asked: false });
        Ok(())
    }

    /// Chooses a token, if the device can.
    pub(crate) fn choose_alone(&self, slot: &mut CudaSlot, request: &SampleRequest<'_>) -> Option<Result<Sampled>> {
        if !self.chooses_for(request) {
            return None;
        }
        if let Err(error) = self.gpu.bind() {
            return Some(Err(error));
        }
        let (drawn, position) = (drawn_by(request.params), request.position as usize - 1);
        if let Some(token) = slot.chosen(&drawn, position) {
            return Some(sampled(token));
        }
        let choose = || {
            let exec = &mut *self.lock();
            exec.epoch += 1;
            let at = exec.next_chosen();
            self.set_state_and(exec, slot, 0, position, &State { produced: at as u32, ..drawn })?;
            choose(&self.gpu, &exec.work, &exec.stream, drawn.temperature != 0.0)?;
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
    pub(crate) fn choose_among(
        &self,
        slot: &CudaSlot,
        request: &SampleRequest<'_>,
        allowed: &[u32],
    ) -> Option<Result<Sampled>> {
        let n = self.config.n_vocab;
        if !self.chooses_for(request) || allowed.len() < n.div_ceil(32) {
            return None;
        }
        let choose = || {
            let exec = &mut *self.lock();
            self.gpu.bind()?;
            if exec.masked.is_none() {
                // The logits that are left, and the bits.
                exec.masked = Some(Buffer::new(&self.gpu, stride(n) * 4 + n.div_ceil(32) * 4)?);
            }
            let Some(masked) = &exec.masked else { return internal("no room for a mask") };
            let (left, bits) = (masked.at(), masked.at() + (stride(n) * 4) as u64);
            // SAFETY: the buffer has room for n floats and as many bits, the slot's logits have n elements; pageable memory is
            // staged before the call returns.
            unsafe {
                exec.stream.upload(bits, allowed.as_ptr().cast(), n.div_ceil(32) * 4)?;
                self.gpu.check(ffi::kgc_mask(slot.addresses().1, bits, left, n as u32, exec.stream.raw()))?;
            }
            exec.epoch += 1;
            let (at, drawn) = (exec.next_chosen(), drawn_by(request.params));
            let position = request.position as i32 - 1;
            self.put_state(exec, &State { logits: left, position, produced: at as u32, ..drawn })?;
            choose(&self.gpu, &exec.work, &exec.stream, drawn.temperature != 0.0)?;
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
    pub(crate) fn choose_all(
        &self,
        slots: &mut [&mut dyn Slot],
        requests: &[SampleRequest<'_>],
    ) -> Vec<Option<Result<Sampled>>> {
        let mut results: Vec<Option<Result<Sampled>>> = requests.iter().map(|_| None).collect();
        if self.gpu.bind().is_err() {
            return results;
        }
        let mut open = Vec::new();
        for (i, (slot, request)) in slots.iter_mut().zip(requests).enumerate() {
            let Ok(slot) = slot_of(*slot) else { continue };
            if self.chooses_for(request) {
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
            if let Ok(chosen) = self.choose_together(group) {
                for ((i, slot, drawn, position), token) in group.iter_mut().zip(chosen) {
                    slot.chose(*drawn, *position, token);
                    results[*i] = Some(sampled(token));
                }
            }
        }
        results
    }

    fn choose_together(&self, group: &[(usize, &mut CudaSlot, State, usize)]) -> Result<Vec<u32>> {
        let exec = &mut *self.lock();
        let state = |(place, (_, slot, drawn, position)): (usize, &(usize, &mut CudaSlot, State, usize))| {
            self.state_of(slot, 0, *position, place, *drawn)
        };
        let states: Vec<State> = group.iter().enumerate().map(state).collect();
        let greedy = group.iter().filter(|(_, _, drawn, _)| drawn.temperature == 0.0).count();
        self.batch(exec, states.len())?;
        let Exec { batch: Some(batch), stream, .. } = exec else { return internal("no batch") };
        batch.put_states(&states, stream)?;
        queue(&self.gpu, &batch.work, stream, greedy, states.len())?;
        stream.wait()?;
        Ok((0..states.len()).map(|place| batch.work.ring_token(place)).collect())
    }
}
