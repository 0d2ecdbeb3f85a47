//! Attention of a step.

use super::{Queue, ensure, ffi};
use crate::backend::cuda::kernels::abi::{Attend, TENSOR_HEAD};
use crate::backend::cuda::kernels::kinds::Pairing;
use crate::error::Result;

fn check(p: &Attend, chunks: u32) -> Result<()> {
    let Attend { n_heads, n_kv, head_dim, n_rot, chunk, max_chunks, n_seq, qkv_stride, out_stride, .. } = *p;
    const NAME: &str = "decode_attention";
    ensure!(NAME, n_kv > 0 && n_heads > 0 && n_heads.is_multiple_of(n_kv), "{n_heads} of {n_kv} heads");
    ensure!(NAME, (8..=512).contains(&head_dim) && head_dim.is_multiple_of(8), "heads of {head_dim}");
    ensure!(NAME, n_rot <= head_dim && n_rot.is_multiple_of(2), "{n_rot} of {head_dim} turned");
    ensure!(NAME, (1..=max_chunks).contains(&chunks), "{chunks} chunks of {max_chunks}");
    let whole = |chunk: u32| chunk > 0 && chunk.is_multiple_of(32);
    let long = p.long_chunk == 0 || whole(p.long_chunk);
    ensure!(NAME, head_dim <= TENSOR_HEAD || (whole(chunk) && long), "chunks of {chunk} and {}", p.long_chunk);
    let of_kv = if p.is_kept != 0 { 0 } else { 2 * n_kv };
    let (all, own) = (u64::from(n_heads + of_kv) * u64::from(head_dim), u64::from(n_heads) * u64::from(head_dim));
    let apart = n_seq < 2 || (u64::from(qkv_stride) >= all && u64::from(out_stride) >= own);
    ensure!(NAME, apart, "{all} and {own} columns, rows {qkv_stride} and {out_stride} apart");
    ensure!(NAME, p.pairing <= Pairing::LAST as u32, "pairs of kind {}", p.pairing);
    ensure!(NAME, p.layer_at.is_multiple_of(8), "a layer at {}", p.layer_at);
    let [turns, long] = if n_rot == 0 { [p.qkv; 2] } else { p.turns };
    let there = [p.qkv, turns, long, p.state, p.out, p.part, p.counters];
    ensure!(NAME, there.iter().all(|at| *at != 0), "addresses {there:x?}");
    Ok(())
}

impl Queue<'_> {
    /// Attention of one token of each sequence, `chunks` of the positions at a time; `rep`: most query heads a block.
    pub fn decode_attention(&self, attend: &Attend, chunks: u32, rep: u32) -> Result<()> {
        check(attend, chunks)?;
        // SAFETY: the shapes were checked; the struct is read during the call.
        self.check(unsafe { ffi::kgc_decode_attention(attend, chunks, rep, self.pdl(), self.raw()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_that_cannot_be_is_refused_with_its_numbers() {
        let good =
            Attend { qkv: 1, turns: [1; 2], state: 1, out: 1, part: 1, counters: 1, n_heads: 4, ..Attend::default() };
        let good = Attend { n_kv: 2, head_dim: 136, n_rot: 64, chunk: 128, max_chunks: 4, ..good };
        check(&good, 4).unwrap();
        for (attend, chunks, says) in [
            (Attend { n_kv: 3, ..good }, 1, "4 of 3 heads"),
            (Attend { head_dim: 132, ..good }, 1, "heads of 132"),
            (Attend { head_dim: 520, ..good }, 1, "heads of 520"),
            (Attend { n_rot: 63, ..good }, 1, "63 of 136 turned"),
            (Attend { chunk: 100, ..good }, 1, "chunks of 100 and 0"),
            (
                Attend { n_seq: 2, qkv_stride: 1088, out_stride: 543, ..good },
                1,
                "1088 and 544 columns, rows 1088 and 543",
            ),
            (good, 5, "5 chunks of 4"),
            (good, 0, "0 chunks of 4"),
        ] {
            let error = check(&attend, chunks).unwrap_err().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
    }
}
