//! The door: a model on a GPU as the engine sees it.
//!
//! Invariant: one pass at a time; nothing that a call has queued runs on behind it.

use half::f16;

use super::exec::first_context;
use super::internal;
use super::model::CudaModel;
use super::slot::{CudaSlot, slot_of};
use super::{pipeline, prompts, sample, single, together};
use crate::alloc;
use crate::backend::cuda::driver::Buffer;
use crate::backend::cuda::plan::limits::{LEAST_ROWS, MOST_ROWS, SUMS};
use crate::backend::{Ahead, CacheRow, Chunk, LoadedModel, PAGE_TOKENS, PageImage, Plan, RunControl, Slot, Verdict};
use crate::error::{Error, Result};
use crate::model::{CacheClasses, Config, MAX_CLASSES};
use crate::sampler::{self, SampleRequest, Sampled};

impl CudaModel {
    /// A slot's logits on the host.
    fn logits_at_hand(&self, slot: &mut dyn Slot) -> Result<Vec<f32>> {
        let mut logits = alloc::zeros(self.net.config.n_vocab)?;
        self.logits(slot, &mut logits)?;
        Ok(logits)
    }
}

impl LoadedModel for CudaModel {
    fn config(&self) -> &Config {
        &self.net.config
    }

    fn plan(&self) -> Plan {
        self.taken()
    }

    fn reserve_pages(&self, n: usize) -> Result<()> {
        self.net.pages.reserve(n)
    }

    fn release_page(&self, page: u32) {
        self.net.pages.free(page, 0..self.net.pages.classes.n());
    }

    fn cache_classes(&self) -> Result<CacheClasses> {
        Ok(self.net.pages.classes.clone())
    }

    fn drop_part(&self, page: u32, class: usize) {
        self.net.pages.free(page, class..class + 1);
    }

    fn reserve_parts(&self, n: &[usize; MAX_CLASSES]) -> Result<()> {
        self.net.pages.reserve_parts(n)
    }

    fn has_parts_in(&self, place: &str) -> bool {
        place == self.net.gpu.name()
    }

    fn trim_parts(&self, n: &[usize; MAX_CLASSES]) -> bool {
        self.net.pages.trim(n)
    }

    fn reserve_states(&self, n: usize, in_use: usize) -> Result<()> {
        self.net.states.reserve(n, in_use)
    }

    fn release_state(&self, state: u32, in_use: usize) {
        self.net.states.release(state, in_use);
    }

    fn read_state(&self, state: u32, out: &mut [u8]) -> Result<()> {
        let exec = self.lock();
        self.net.states.check(out.len())?;
        self.net.gpu.bind()?;
        // SAFETY: a whole state.
        unsafe { exec.stream.download(self.net.states.find(state)?, out) }
    }

    fn write_state(&self, state: u32, from: &[u8]) -> Result<()> {
        let exec = self.lock();
        self.net.states.check(from.len())?;
        let to = self.net.states.place(state)?;
        // SAFETY: a whole state; pageable memory is staged before this returns.
        unsafe { exec.stream.upload(to, from.as_ptr(), from.len())? };
        exec.stream.wait()
    }

    fn copy_page(&self, from: u32, to: u32) -> Result<()> {
        let exec = self.lock();
        let pages = &self.net.pages;
        for class in 0..pages.classes.n() {
            if let Some(from) = pages.find(from, class)? {
                let to = pages.place(to, class)?;
                // SAFETY: both are whole parts of the pool.
                unsafe { exec.stream.copy(to, from, pages.part_bytes[class])? };
            }
        }
        exec.stream.wait()
    }

    fn page_image(&self) -> Option<PageImage> {
        let pages = &self.net.pages;
        let layout = "f16 [layer][k, v][head][64][head_dim]";
        Some(PageImage { bytes: pages.bytes, parts: pages.part_bytes, layout, sums: SUMS })
    }

    fn read_part(&self, page: u32, class: usize, rows: usize, out: &mut [u8]) -> Result<()> {
        let exec = self.lock();
        let pages = &self.net.pages;
        pages.check_part(class, out.len())?;
        match pages.find(page, class)? {
            // SAFETY: a whole part of the pool.
            Some(from) => unsafe { exec.stream.download(from, out)? },
            None => out.fill(0),
        }
        // What other positions hold is nobody's business: it may be another session's.
        pages.clear_from(class, rows, out);
        Ok(())
    }

    fn write_part(&self, page: u32, class: usize, from: &[u8]) -> Result<()> {
        let exec = self.lock();
        self.net.pages.check_part(class, from.len())?;
        let to = self.net.pages.place(page, class)?;
        // SAFETY: a whole part of the pool; pageable memory is staged before this returns.
        unsafe { exec.stream.upload(to, from.as_ptr(), from.len())? };
        exec.stream.wait()
    }

    fn set_logits(&self, slot: &mut dyn Slot, logits: &[f32]) -> Result<()> {
        let exec = self.lock();
        self.net.gpu.bind()?;
        if logits.len() != self.net.config.n_vocab {
            return internal("a buffer of n_vocab logits is needed");
        }
        let slot = slot_of(slot)?;
        slot.choice = None;
        // SAFETY: the slot's logits have n_vocab elements.
        unsafe { exec.stream.upload(slot.logits.at(), logits.as_ptr().cast(), size_of_val(logits))? };
        exec.stream.wait()
    }

    fn steps_below(&self) -> usize {
        if self.net.computes_rows(&self.lock().tuning) { LEAST_ROWS } else { 0 }
    }

    // No `pass_alignment`, though bits depend on no cut: a short pass takes as long as 700 tokens of a long one, so that beside 32 answers
    // of 0.5B a prompt of 16,384 took ten times as long, and their longest gap was hardly shorter (6.7 times the usual one).

    fn is_exact_in_chunks(&self) -> bool {
        self.steps_below() == 0
    }

    fn read_cache(&self, at: CacheRow, keys: &mut [f32], values: &mut [f32]) -> Result<()> {
        let exec = self.lock();
        let dim = self.net.pages.head_dim(at.layer).max(1);
        let mut halves = vec![f16::ZERO; dim];
        for (to, which) in [(keys, 0), (values, 1)] {
            for (head, to) in self.net.pages.rows(at, which, to.len())?.into_iter().zip(to.chunks_mut(dim)) {
                // SAFETY: a row of a page of the pool.
                unsafe { exec.stream.download(head, &mut halves)? };
                to.iter_mut().zip(&halves).for_each(|(to, from)| *to = from.to_f32());
            }
        }
        Ok(())
    }

    fn write_cache(&self, at: CacheRow, keys: &[f32], values: &[f32]) -> Result<()> {
        let exec = self.lock();
        let dim = self.net.pages.head_dim(at.layer).max(1);
        for (from, which) in [(keys, 0), (values, 1)] {
            for (head, from) in self.net.pages.rows(at, which, from.len())?.into_iter().zip(from.chunks(dim)) {
                let halves: Vec<f16> = from.iter().map(|x| f16::from_f32(*x)).collect();
                // SAFETY: a row of a page of the pool; pageable memory is staged before this returns.
                unsafe { exec.stream.upload(head, halves.as_ptr().cast(), dim * 2)? };
            }
        }
        exec.stream.wait()
    }

    fn create_slot_for(&self, n_ctx: usize) -> Result<Box<dyn Slot>> {
        let logits = Buffer::new(&self.net.gpu, self.net.config.n_vocab * 4)?;
        let capacity = first_context(&self.net.config).div_ceil(PAGE_TOKENS).next_power_of_two();
        let table = Buffer::new(&self.net.gpu, capacity * 8 * self.net.pages.classes.n())?;
        let (is_long, pages, bound) = (self.net.config.is_long(n_ctx), Vec::new(), Default::default());
        let (state, choice, wish) = (Default::default(), None, None);
        Ok(Box::new(CudaSlot { logits, table, capacity, bound, epoch: 0, is_long, state, pages, choice, wish }))
    }

    fn forward(&self, chunks: &mut [Chunk<'_>], run: &mut RunControl<'_>) -> Result<()> {
        let exec = &mut *self.lock();
        self.net.gpu.bind()?;
        exec.epoch += 1;
        // Those that go token by token go together; where somebody watches, each by itself.
        let by_rows = self.net.computes_rows(&exec.tuning);
        let short = |c: &Chunk<'_>| !by_rows || c.by_steps;
        let join = run.tap.is_none() && chunks.iter().filter(|c| short(c)).count() > 1 && exec.steps.can_batch;
        let alone = chunks.len() == 1 && run.tap.is_none();
        for chunk in &mut *chunks {
            slot_of(chunk.slot)?.start_choice();
        }
        let (mut together, mut prompts, mut outcome) = (Vec::new(), Vec::new(), Ok(()));
        for (sequence, chunk) in chunks.iter_mut().enumerate() {
            if join && short(chunk) {
                together.push(chunk);
            } else if run.tap.is_none() && !short(chunk) && chunk.tokens.len() < MOST_ROWS {
                prompts.push((sequence, chunk));
            } else if outcome.is_ok() {
                outcome = if short(chunk) {
                    single::run(&self.net, exec, sequence, chunk, run)
                } else {
                    prompts::run_alone(&self.net, exec, sequence, chunk, run)
                };
            }
        }
        if outcome.is_ok() {
            outcome = prompts::run(&self.net, exec, prompts, run);
        }
        if outcome.is_ok() && !together.is_empty() {
            outcome = together::run(&self.net, exec, &mut together, run);
        }
        let (chosen_together, mut outcome) = (!together.is_empty(), outcome);
        if let ([chunk], true, Ok(())) = (&mut *chunks, alone, &outcome) {
            outcome = sample::choose_after(&self.net, exec, chunk);
        }
        // Also after a failure: nothing that was queued may run on while the caller goes on.
        let outcome = outcome.and(exec.stream.wait());
        let work = exec.batch.as_ref().filter(|_| chosen_together).map_or(&exec.work, |b| &b.work);
        for chunk in chunks {
            slot_of(chunk.slot)?.end_choice(work, outcome.is_ok());
        }
        outcome
    }

    fn logits(&self, slot: &mut dyn Slot, out: &mut [f32]) -> Result<()> {
        let exec = self.lock();
        self.net.gpu.bind()?;
        let slot = slot_of(slot)?;
        if out.len() != self.net.config.n_vocab {
            return internal("a buffer of n_vocab logits is needed");
        }
        // SAFETY: the slot's logits have n_vocab elements.
        unsafe { exec.stream.download(slot.logits.at(), out) }
    }

    fn prefill_chunk(&self) -> usize {
        MOST_ROWS
    }

    fn decode_ahead(&self, mut ahead: Ahead<'_>, emit: &mut dyn FnMut(u32) -> Result<Verdict>) -> Result<Option<()>> {
        // A state goes from block to block as the engine says.
        if !sample::chooses(&self.net, ahead.params) || self.net.states.bytes > 0 {
            return Ok(None);
        }
        if ahead.position == 0 {
            return Err(Error::State { needs: "logits: prefill or step first" });
        }
        slot_of(ahead.slot)?.start_choice();
        self.net.check_chunk(&[ahead.last_token], ahead.position + ahead.n.max(1) - 1, ahead.pages.len())?;
        pipeline::run(self, &mut ahead, emit).map(Some)
    }

    fn sample(&self, slot: &mut dyn Slot, request: &SampleRequest<'_>) -> Result<Sampled> {
        if let Some(result) = sample::choose_alone(self, slot_of(slot)?, request) {
            return result;
        }
        sampler::sample(&self.logits_at_hand(slot)?, request)
    }

    fn sample_among(&self, slot: &mut dyn Slot, request: &SampleRequest<'_>, allowed: &[u32]) -> Result<Sampled> {
        if let Some(result) = sample::choose_among(self, slot_of(slot)?, request, allowed) {
            return result;
        }
        let mut logits = self.logits_at_hand(slot)?;
        sampler::ban(&mut logits, allowed);
        sampler::sample(&logits, request)
    }

    fn sample_batch(&self, slots: &mut [&mut dyn Slot], requests: &[SampleRequest<'_>]) -> Vec<Result<Sampled>> {
        let results = sample::choose_all(self, slots, requests);
        let alone = slots.iter_mut().zip(requests).zip(results);
        alone.map(|((slot, request), result)| result.unwrap_or_else(|| self.sample(&mut **slot, request))).collect()
    }
}
