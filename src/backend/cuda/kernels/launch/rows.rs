//! What is done row by row: weights into planes, embeddings, norms, inputs of stages, gated units. Its launchers, as C sees them, too.

use std::ffi::c_int;

use super::expert_gemm::FragmentRows;
use super::experts::{Router, Sum, Tasks};
use super::{Queue, check_mat, ensure, ffi, padded, strided};
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::driver::sys::Handle;
use crate::backend::cuda::kernels::abi::{
    Convolve, Delta, ExpertGemm, ExpertProducts, GateMix, Glu, MOST_PARTS, Mat, Norm, Route, Scan, Stage,
};
use crate::backend::cuda::kernels::kinds::Activation;
use crate::error::Result;

#[rustfmt::skip]
unsafe extern "C" {
    fn kgc_embed(mat: *const Mat, state: Address, n_seq: u32, scale: f32, x: Address, x_stride: u32, stream: Handle) -> c_int;
    fn kgc_embed_rows(mat: *const Mat, tokens: Address, n: u32, scale: f32, x: Address, stride: u32, stream: Handle) -> c_int;
    fn kgc_batch_norm(st: *const Stage, out: Address, threads: u32, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_stage_input(st: *const Stage, pdl: c_int, stream: Handle) -> c_int;
    fn kgc_glu(glu: *const Glu, stream: Handle) -> c_int;
    fn kgc_sum_parts(part: Address, bias: Address, y: Address, n_part: u32, n_rows: u32, n: u32, stride: u32, pdl: c_int, stream: Handle) -> c_int;
}

/// What stands between products: it is the same of one row and of many, so that who queues a step, a batch or a prompt need not know it.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant)] // there are lists of some hundreds
pub enum Between {
    /// The stream summed, its norm.
    Norm(Norm),
    /// A gated unit, or an activation.
    Glu(Glu),
    /// See [`Parts`].
    Sum(Parts),
    /// The experts of each row.
    Route(Route),
    /// See [`Router`].
    Router(Router),
    /// See [`Tasks`].
    Tasks(Tasks),
    /// Products with experts' matrices.
    Experts(ExpertProducts),
    /// The same of sorted slots on tensor cores, by so many blocks.
    ExpertTiles(ExpertProducts, u32),
    /// See [`FragmentRows`].
    ExpertRows(FragmentRows),
    /// Products with experts' matrices on tensor cores.
    ExpertGemm(ExpertGemm),
    /// See [`Sum`].
    ExpertSum(Sum),
    /// A convolution over the tokens of sequences.
    Convolve(Convolve),
    /// A gated delta rule over the tokens of sequences.
    Delta(Delta),
    /// A Mamba2 over the tokens of sequences.
    Scan(Scan),
    /// What attention has mixed, times a gate.
    GateMix(GateMix),
}

/// y = the sum of the parts, each of `n_rows` rows, + bias (or 0).
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Parts {
    pub part: Address,
    pub bias: Address,
    pub y: Address,
    pub n_part: u32,
    pub n_rows: u32,
    pub n: u32,
    pub stride: u32,
}

impl Between {
    /// Launches it.
    pub fn launch(&self, queue: &Queue<'_>) -> Result<()> {
        match self {
            Between::Norm(norm) => queue.norm(norm),
            Between::Glu(glu) => queue.glu(glu),
            Between::Sum(parts) => queue.sum_parts(*parts),
            Between::Route(route) => queue.route(route),
            Between::Router(router) => queue.router(router),
            Between::Tasks(tasks) => queue.expert_tasks(*tasks),
            Between::Experts(products) => queue.expert_products(products),
            Between::ExpertTiles(products, blocks) => queue.expert_tiles(products, *blocks),
            Between::ExpertRows(rows) => queue.expert_rows(*rows),
            Between::ExpertGemm(gemm) => queue.expert_gemm(gemm),
            Between::ExpertSum(sum) => queue.expert_sum(*sum),
            Between::Convolve(convolve) => queue.convolve(convolve),
            Between::Delta(delta) => queue.delta(delta),
            Between::Scan(scan) => queue.scan(scan),
            Between::GateMix(gate) => queue.gate_mix(gate),
        }
    }
}

fn check_glu(p: &Glu) -> Result<()> {
    let Glu { n_rows, n, in_stride, out_stride, activation, .. } = *p;
    let known = (Activation::Silu as u32..=Activation::ClampedSwiglu as u32).contains(&activation);
    let known = known && (p.up != 0 || activation != Activation::ClampedSwiglu as u32);
    ensure!("glu", known && n > 0, "activation {activation} of {n} elements");
    ensure!("glu", (1..=65535).contains(&n_rows), "{n_rows} rows");
    ensure!("glu", in_stride >= n && out_stride >= n, "{n} columns, rows {in_stride} and {out_stride} apart");
    ensure!("glu", p.up_stride == 0 || p.up_stride >= n, "{n} columns, rows of up {} apart", p.up_stride);
    let to = p.out != 0 || (p.row != 0 && p.out_lo == 0);
    ensure!("glu", p.gate != 0 && to, "from {:#x} to {:#x} and {:#x}", p.gate, p.row, p.out);
    Ok(())
}

impl Queue<'_> {
    /// `n` of the file's blocks of 32 (rows, of float types) from `first` on into their planes.
    pub fn repack(&self, mat: &Mat, from: Address, first: u64, n: u64) -> Result<()> {
        check_mat("repack", mat)?;
        let rows = u64::from(mat.rows);
        let all = if mat.ty.is_quantized() { rows * u64::from(mat.cols / 32) } else { rows };
        let inside = first.checked_add(n).is_some_and(|end| end <= all);
        ensure!("repack", inside && from != 0, "{n} from {first} on of {all} of {:?}", mat.ty);
        let whole = (mat.ty.row_block() / 32).max(1).into();
        ensure!("repack", n.is_multiple_of(whole), "{n} blocks of 32 of {:?}", mat.ty);
        // SAFETY: the shapes were checked; the struct is read during the call.
        self.check(unsafe { ffi::kgc_repack(mat, from, first, n, self.raw()) })
    }

    /// The embeddings of `n_seq` sequences' tokens, times `scale`.
    pub fn embed(&self, mat: &Mat, state: Address, n_seq: u32, scale: f32, x: Address, x_stride: u32) -> Result<()> {
        check_mat("embed", mat)?;
        ensure!("embed", strided(n_seq, x_stride, mat.cols.into()), "{n_seq} of {}, {x_stride} apart", mat.cols);
        ensure!("embed", state != 0 && x != 0 && n_seq <= 65535, "{n_seq} from {state:#x} to {x:#x}");
        // SAFETY: as above.
        self.check(unsafe { kgc_embed(mat, state, n_seq, scale, x, x_stride, self.raw()) })
    }

    /// The embeddings of `n` tokens, times `scale`.
    pub fn embed_rows(&self, mat: &Mat, tokens: Address, n: u32, scale: f32, x: Address, x_stride: u32) -> Result<()> {
        check_mat("embed_rows", mat)?;
        ensure!("embed_rows", strided(n, x_stride, mat.cols.into()), "{n} of {}, {x_stride} apart", mat.cols);
        ensure!("embed_rows", tokens != 0 && x != 0 && n <= 65535, "{n} from {tokens:#x} to {x:#x}");
        // SAFETY: as above.
        self.check(unsafe { kgc_embed_rows(mat, tokens, n, scale, x, x_stride, self.raw()) })
    }

    /// Residual and norm of several sequences, to `out` or staged, by `threads` of each.
    pub fn batch_norm(&self, st: &Stage, out: Address, threads: u32) -> Result<()> {
        let Stage { n, n_seq, x_stride, n_part, split_nt, .. } = *st;
        ensure!("batch_norm", n > 0 && n_seq > 0, "{n_seq} sequences of {n}");
        ensure!("batch_norm", u64::from(x_stride) >= padded(n), "{n} columns, rows {x_stride} apart");
        ensure!("batch_norm", (32..=512).contains(&threads) && threads.is_multiple_of(32), "{threads} threads");
        ensure!("batch_norm", n_part <= MOST_PARTS, "{n_part} parts of a sum");
        let to = if st.split == 0 { out != 0 } else { matches!(split_nt, 1 | 2 | 4) };
        ensure!("batch_norm", to && st.x != 0 && st.norm_w != 0, "{split_nt} tiles, to {out:#x} or {:#x}", st.split);
        // SAFETY: as above.
        self.check(unsafe { kgc_batch_norm(st, out, threads, self.pdl(), self.raw()) })
    }

    /// Stages an input that no norm stands before, as halves or integers: x, [sequences, `x_stride`], into `split`.
    pub fn stage_input(&self, st: &Stage) -> Result<()> {
        let Stage { n, n_seq, x_stride, .. } = *st;
        let whole = st.split_ints == 0 || n.is_multiple_of(32);
        ensure!("stage_input", n > 0 && whole && n_seq > 0, "{n_seq} sequences of {n} columns");
        ensure!("stage_input", u64::from(x_stride) >= padded(n) && st.x != 0, "{n} columns, rows {x_stride} apart");
        let to = st.split != 0 && st.split.is_multiple_of(16) && matches!(st.split_nt, 1 | 2 | 4);
        ensure!("stage_input", to, "{} tiles of sequences a block, to {:#x}", st.split_nt, st.split);
        // SAFETY: as above.
        self.check(unsafe { kgc_stage_input(st, self.pdl(), self.raw()) })
    }

    /// activation(gate) * up, or activation(gate), of rows. Never a dependent launch.
    pub fn glu(&self, glu: &Glu) -> Result<()> {
        check_glu(glu)?;
        // SAFETY: as above.
        self.check(unsafe { kgc_glu(glu, self.raw()) })
    }

    /// See [`Parts`].
    pub fn sum_parts(&self, parts: Parts) -> Result<()> {
        let Parts { part, bias, y, n_part, n_rows, n, stride } = parts;
        ensure!("sum_parts", (1..=MOST_PARTS).contains(&n_part), "{n_part} parts of a sum");
        ensure!("sum_parts", (1..=65535).contains(&n_rows) && n > 0, "{n_rows} rows of {n}");
        ensure!("sum_parts", stride >= n, "{n} columns, rows {stride} apart");
        ensure!("sum_parts", part != 0 && y != 0, "from {part:#x} to {y:#x}");
        // SAFETY: as above.
        self.check(unsafe { kgc_sum_parts(part, bias, y, n_part, n_rows, n, stride, self.pdl(), self.raw()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_cannot_be_are_refused_with_their_numbers() {
        let good = Glu { gate: 16, row: 16, n_rows: 1, n: 4, in_stride: 4, out_stride: 4, ..Glu::default() };
        let good = Glu { activation: Activation::Relu2 as u32, ..good };
        check_glu(&good).unwrap();
        for (glu, says) in [
            (Glu { activation: 0, ..good }, "activation 0 of 4 elements"),
            (Glu { activation: 5, ..good }, "activation 5 of 4 elements"),
            (Glu { activation: 6, up: 16, ..good }, "activation 6 of 4 elements"),
            (Glu { n_rows: 65536, ..good }, "65536 rows"),
            (Glu { in_stride: 3, ..good }, "4 columns, rows 3 and 4 apart"),
            (Glu { row: 0, ..good }, "from 0x10 to 0x0 and 0x0"),
        ] {
            let error = check_glu(&glu).unwrap_err().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
    }
}
