//! Behind the last layer: the logits.

use super::forward::{CpuModel, Piece, Scratch, tap};
use super::slot::slot;
use super::threads::{Shares, Turn};
use super::vector;
use crate::alloc::reserve;
use crate::backend::{Chunk, RunControl, Want};
use crate::error::Result;

impl CpuModel {
    /// The logits of the rows that are wanted.
    pub(super) fn output(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        chunks: &mut [Chunk<'_>],
        pieces: &[Piece],
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let (d, n_vocab) = (self.config.n_embd, self.config.n_vocab);
        let mut wanted: Vec<Piece> = Vec::new();
        reserve(&mut wanted, pieces.len())?;
        wanted.extend(pieces.iter().filter(|p| {
            let chunk = &chunks[p.chunk];
            chunk.want == Want::Last && p.to == chunk.tokens.len()
        }));
        if wanted.is_empty() {
            return Ok(());
        }
        // The rows wanted move to the front; they stand in order, so none is overwritten before it is read.
        for (i, p) in wanted.iter().enumerate() {
            let row = p.row + p.len() - 1;
            s.x.copy_within(row * d..(row + 1) * d, i * d);
        }
        let n = wanted.len();
        self.norm(turn, &s.x, Some(&self.output_norm), &mut s.h, n)?;
        let mut last: Vec<Piece> = Vec::new();
        reserve(&mut last, n)?;
        last.extend((0..n).map(|i| Piece {
            from: wanted[i].to - 1,
            row: i,
            start: wanted[i].start + wanted[i].len() - 1,
            ..wanted[i]
        }));
        tap(run, &last, "final_norm", -1, d, &s.h);
        let matrix = self.output.as_ref().unwrap_or(&self.token_embd);
        let Scratch { h, quant, logits, .. } = &mut *s;
        let input = self.input(turn, h, quant, n, d, matrix.is_quantized())?;
        let logits = logits.sized(n * n_vocab)?;
        let out = [(Shares(logits.as_mut_ptr()), n_vocab)];
        self.multiply(turn, std::slice::from_ref(matrix), &self.output_tasks, &input, &out)?;
        self.bias(turn, logits, self.output_bias.as_deref(), n)?;
        if self.config.logit_scale != 1.0 {
            logits.iter_mut().for_each(|l| *l *= self.config.logit_scale);
        }
        if let Some(cap) = self.config.logit_softcap {
            let isa = self.isa;
            // SAFETY: n rows of n_vocab.
            unsafe { vector::softcap(isa, logits.as_mut_ptr(), n * n_vocab, cap) };
        }
        tap(run, &last, "logits", -1, n_vocab, logits);
        for (p, row) in wanted.iter().zip(logits.chunks_exact(n_vocab)) {
            #[cfg(any(test, feature = "faults"))]
            if self.fault.keeps_logits(chunks[p.chunk].start) {
                continue;
            }
            slot(chunks[p.chunk].slot)?.logits.copy_from_slice(row);
        }
        Ok(())
    }
}
