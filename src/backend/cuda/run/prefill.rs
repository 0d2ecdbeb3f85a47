//! Prompts through the tensor cores (prefill.rs), one by one or several in a pass, and the logits after them.
//!
//! Invariant: a prompt's bits are those that it gets alone: its rows do (prefill.rs), and the last stage of a batch gives each
//! sequence what the stage of a token alone gives it.

use crate::backend::cuda::driver::Address;
use crate::backend::cuda::plan::program::{Cut, Kind, Run};
use crate::backend::cuda::run::batch;
use crate::backend::cuda::run::loaded::{CudaModel, Exec, internal, slot_of};
use crate::backend::cuda::run::prefill_rows::{MOST_ROWS, Part, Pass, Rows, two_halves};
use crate::backend::{Chunk, RunControl, TapEvent, Want};
use crate::error::Result;

impl CudaModel {
    /// Makes room for a pass of `n` tokens.
    fn rows_for(&self, exec: &mut Exec, n: usize) -> Result<()> {
        if exec.rows.as_ref().is_none_or(|r| r.rows() < n) {
            exec.stream.wait()?;
            exec.rows = None;
            let halves = exec.tuning.halves.unwrap_or(two_halves(&self.config));
            let n = n.next_power_of_two().min(self.prompt_rows().max(n));
            exec.rows = Some(Rows::new(&self.gpu, &self.config, &self.weights, n, halves)?);
        }
        Ok(())
    }

    /// A chunk whose pages are bound.
    pub(crate) fn run_prompt(
        &self,
        exec: &mut Exec,
        sequence: usize,
        chunk: &mut Chunk<'_>,
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let (tokens, start) = (chunk.tokens, chunk.start);
        self.rows_for(exec, tokens.len().min(MOST_ROWS))?;
        let (pages, _) = slot_of(chunk.slot)?.addresses();
        let Exec { rows: Some(rows), stream, .. } = exec else { return internal("no rows") };
        let pass = Pass { gpu: &self.gpu, config: &self.config, weights: &self.weights, stream };
        let mut last = 0;
        for (i, tokens) in tokens.chunks(MOST_ROWS).enumerate() {
            let first = rows.run(&pass, &[Part { pages, sequence, start: start + i * MOST_ROWS, tokens }], run)?;
            last = first + ((tokens.len() - 1) * self.config.n_embd * 4) as u64;
        }
        if chunk.want == Want::Nothing { Ok(()) } else { self.prompt_logits(exec, sequence, chunk, last, run) }
    }

    /// The last stage of a step, from the last token's stream.
    fn prompt_logits(
        &self,
        exec: &mut Exec,
        sequence: usize,
        chunk: &mut Chunk<'_>,
        last: Address,
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let Some(mut op) = exec.ops.iter().find(|o| o.kind == Kind::Logits).cloned() else {
            return internal("no last stage");
        };
        if let Run::Stage { stage, .. } = &mut op.run {
            (stage.delta, stage.post_w, stage.x_out) = (0, 0, 0);
            if run.tap.is_some() {
                stage.tap = exec.work.tap[0];
            }
            // SAFETY: both are rows of n_embd.
            unsafe { exec.stream.copy(stage.x, last, self.config.n_embd * 4)? };
        }
        let (position, slot) = (chunk.start + chunk.tokens.len() - 1, slot_of(chunk.slot)?);
        self.set_state(exec, slot, chunk.tokens[chunk.tokens.len() - 1], position)?;
        let cut = Cut::at(position, self.heads.head_dim, &exec.tuning);
        op.launch(&self.gpu, &exec.work, cut, false, &exec.stream)?;
        if run.tap.is_some() {
            let mut show = |name, from, cols: usize| -> Result<()> {
                if !run.wants(name, -1) {
                    return Ok(());
                }
                let mut data = vec![0f32; cols];
                // SAFETY: the tap's vector and the slot's logits have so many elements.
                unsafe { exec.stream.download(from, &mut data)? };
                run.show(&TapEvent { name, layer: -1, sequence, position, rows: 1, cols, data: &data });
                Ok(())
            };
            show("final_norm", exec.work.tap[0], self.config.n_embd)?;
            show("logits", slot.addresses().1, self.config.n_vocab)?;
        }
        Ok(())
    }

    /// Chunks of fewer than [`MOST_ROWS`] tokens, as many in a pass as fit into it.
    pub(crate) fn run_prompts(
        &self,
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
                [(sequence, chunk)] => self.run_chunk(exec, *sequence, chunk, run)?,
                several => self.run_prompts_together(exec, several, run)?,
            }
            prompts = waiting;
        }
        Ok(())
    }

    fn run_prompts_together(
        &self,
        exec: &mut Exec,
        prompts: &mut [(usize, &mut Chunk<'_>)],
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        for (_, chunk) in &*prompts {
            self.check_chunk(chunk.tokens, chunk.start, chunk.pages.len())?;
        }
        let n_tokens = prompts.iter().map(|(_, c)| c.tokens.len()).sum();
        let longest = prompts.iter().map(|(_, c)| c.start + c.tokens.len()).max().unwrap_or(0);
        self.grow(exec, longest)?;
        self.rows_for(exec, n_tokens)?;
        let mut parts = Vec::with_capacity(prompts.len());
        for (sequence, chunk) in &mut *prompts {
            let slot = slot_of(chunk.slot)?;
            self.bind_pages(exec, slot, chunk.pages)?;
            let (pages, _) = slot.addresses();
            parts.push(Part { pages, sequence: *sequence, start: chunk.start, tokens: chunk.tokens });
        }
        let Exec { rows: Some(rows), stream, .. } = exec else { return internal("no rows") };
        let pass = Pass { gpu: &self.gpu, config: &self.config, weights: &self.weights, stream };
        let mut at = rows.run(&pass, &parts, run)?;
        let mut lasts = Vec::with_capacity(prompts.len());
        for (sequence, chunk) in prompts {
            at += (chunk.tokens.len() * self.config.n_embd * 4) as u64;
            if chunk.want == Want::Last {
                lasts.push((*sequence, &mut **chunk, at - (self.config.n_embd * 4) as u64));
            }
        }
        if lasts.len() < 2 || !exec.can_batch {
            for (sequence, chunk, last) in lasts {
                self.prompt_logits(exec, sequence, chunk, last, run)?;
            }
            return Ok(());
        }
        for group in lasts.chunks_mut(batch::MOST_SEQUENCES) {
            let mut states = Vec::with_capacity(group.len());
            for (_, chunk, _) in &mut *group {
                let position = chunk.start + chunk.tokens.len() - 1;
                let token = chunk.tokens[chunk.tokens.len() - 1];
                states.push(self.state_of(slot_of(chunk.slot)?, token, position, 0, Default::default()));
            }
            let rows: Vec<Address> = group.iter().map(|(_, _, last)| *last).collect();
            self.batch(exec, group.len())?;
            let Exec { batch: Some(batch), tuning, stream, .. } = exec else { return internal("no batch") };
            batch.queue_logits(&self.gpu, &states, &rows, self.config.n_embd, tuning, stream)?;
        }
        Ok(())
    }
}
