//! Products of matrices with the vectors of a step.

use super::{Queue, check_mat, ensure, ffi, padded, strided};
use crate::backend::cuda::kernels::abi::Stage;
use crate::backend::cuda::kernels::kinds::Activation;
use crate::backend::cuda::kernels::packed::{Family, Packed};
use crate::error::Result;

/// Most sequences that a block of [`Queue::gemv_batch`] takes: 8, 4, 2, or 0 where two have no room.
pub fn gemv_batch_most(columns: u32, quantized: bool) -> u32 {
    // SAFETY: numbers in and out.
    unsafe { ffi::kgc_gemv_batch_most(columns, i32::from(quantized)) }
}

/// Bytes of shared memory of such a block of `at_once` sequences.
pub fn gemv_batch_shared(columns: u32, quantized: bool, at_once: u32) -> u64 {
    // SAFETY: as above.
    unsafe { ffi::kgc_gemv_batch_shared(columns, i32::from(quantized), at_once) }
}

/// Most tiles of 8 sequences that a block of [`Queue::f16_mma_batch`] takes: 4, 2, 1, or 0 where one has no room.
pub fn f16_mma_batch_most(columns: u32, pair: bool, parts: u32) -> u32 {
    // SAFETY: as above.
    unsafe { ffi::kgc_f16_mma_batch_most(columns, i32::from(pair), parts) }
}

/// The same of [`Queue::f16_mma_split`].
pub fn f16_mma_split_most(columns: u32, parts: u32) -> u32 {
    if parts == 0 {
        return 0;
    }
    // SAFETY: as above.
    unsafe { ffi::kgc_f16_mma_split_most(columns, parts) }
}

/// Slices of the input that a block of [`Queue::f16_batch`] has room for; 0: not two.
pub fn f16_batch_slots(columns: u32, parts: u32, nt: u32, ks: u32, groups: u32, two: bool) -> u32 {
    if parts == 0 {
        return 0;
    }
    // SAFETY: as above.
    unsafe { ffi::kgc_f16_batch_slots(columns, parts, nt, ks, groups, i32::from(two)) }
}

/// Whether a block of [`Queue::q_batch`] has room for `nt` tiles of sequences and `groups` of 32 rows.
pub fn q_batch_fits(ty: Packed, nt: u32, groups: u32) -> bool {
    // SAFETY: as above.
    unsafe { ffi::kgc_q_batch_fits(ty, nt, groups) != 0 }
}

/// The matrices of a stage.
fn mats(st: &Stage) -> usize {
    if st.activation == Activation::None as u32 { st.n_seg as usize } else { 2 }
}

/// What every stage has to be.
fn check(kernel: &str, st: &Stage) -> Result<()> {
    let Stage { n, n_seg, ks, activation, .. } = *st;
    ensure!(kernel, n > 0 && (1..=3).contains(&n_seg), "{n_seg} matrices of {n} columns");
    ensure!(kernel, activation <= Activation::Gelu as u32, "activation {activation}");
    ensure!(kernel, activation == 0 || n_seg == 1, "a pair among {n_seg} matrices");
    ensure!(kernel, (1..=16).contains(&ks), "{ks} warps a row");
    for (i, mat) in st.m[..mats(st)].iter().enumerate() {
        check_mat(kernel, mat)?;
        ensure!(kernel, mat.cols == n, "matrix {i} has {} columns, the input {n}", mat.cols);
        ensure!(
            kernel,
            activation == 0 || mat.rows == st.m[0].rows,
            "a pair of {} and {} rows",
            st.m[0].rows,
            mat.rows
        );
    }
    for i in 0..n_seg as usize {
        let (from, to) = (st.seg_block[i], st.seg_block[i + 1]);
        ensure!(kernel, from < to, "blocks {from} to {to} of matrix {i}");
        ensure!(kernel, st.state != 0 || st.out[i] != 0, "the result of matrix {i} goes nowhere");
    }
    Ok(())
}

/// What a stage of several sequences has to be besides.
fn check_batch(kernel: &str, st: &Stage) -> Result<()> {
    let Stage { n, n_seq, x_stride, out_stride, .. } = *st;
    ensure!(kernel, n_seq > 0, "no sequences");
    ensure!(kernel, u64::from(x_stride) >= padded(n), "{n} columns, rows {x_stride} apart");
    ensure!(kernel, st.norm_w == 0 && st.tap == 0, "a norm or a tap inside a stage of {n_seq} sequences");
    for mat in &st.m[..st.n_seg as usize] {
        let rows = u64::from(mat.rows);
        ensure!(kernel, st.state != 0 || strided(n_seq, out_stride, rows), "{rows} results, rows {out_stride} apart");
    }
    Ok(())
}

/// That each matrix is of a type, in tiles of 16 rows of which each block has one at least where `tiles`.
fn check_types(kernel: &str, st: &Stage, ok: impl Fn(Packed) -> bool, tiles: bool) -> Result<()> {
    for (i, mat) in st.m[..mats(st)].iter().enumerate() {
        ensure!(kernel, ok(mat.ty), "matrix {i} is {:?}", mat.ty);
    }
    for i in 0..st.n_seg as usize {
        let (blocks, rows) = (st.seg_block[i + 1] - st.seg_block[i], st.m[i].rows);
        ensure!(kernel, !tiles || blocks <= rows.div_ceil(16), "{blocks} blocks for {rows} rows");
    }
    Ok(())
}

fn check_threads(kernel: &str, st: &Stage, threads: u32) -> Result<()> {
    let ok = (32..=512).contains(&threads) && threads.is_multiple_of(32 * st.ks);
    ensure!(kernel, ok, "{threads} threads, {} warps a row", st.ks);
    Ok(())
}

/// That the input is staged, by tiles of 8 sequences as a block takes.
fn check_staged(kernel: &str, st: &Stage) -> Result<()> {
    ensure!(kernel, matches!(st.split_nt, 1 | 2 | 4), "{} tiles of sequences a block", st.split_nt);
    ensure!(kernel, st.split != 0 && st.split.is_multiple_of(16), "an input staged at {:#x}", st.split);
    Ok(())
}

impl Queue<'_> {
    /// A token's products with matrices of one type, dot product by dot product. `ns`: rows a warp works on at once; `deep`:
    /// eight units of 32 in flight instead of four.
    pub fn gemv(&self, st: &Stage, ty: Packed, ns: u32, threads: u32, deep: bool) -> Result<()> {
        check("gemv", st)?;
        check_threads("gemv", st, threads)?;
        check_types("gemv", st, |t| t == ty && t != Packed::F16Tiles, false)?;
        ensure!("gemv", matches!(ns, 1 | 2 | 4 | 8) && (st.activation == 0 || ns > 1), "{ns} rows a warp");
        let launch: ffi::Gemv = match ty.family() {
            Family::Float => ffi::kgc_gemv_float,
            Family::Q32 => ffi::kgc_gemv_q32,
            Family::K256 => ffi::kgc_gemv_k256,
            Family::Table => ffi::kgc_gemv_table,
            Family::Grid => ffi::kgc_gemv_grid,
            Family::Ternary => ffi::kgc_gemv_ternary,
        };
        // SAFETY: the shapes were checked; the struct is read during the call.
        self.check(unsafe { launch(st, ty, ns, threads, i32::from(deep), self.pdl(), self.raw()) })
    }

    /// The same with matrices of several types; `ns`: 1 or 4.
    pub fn gemv_mixed(&self, st: &Stage, ns: u32, threads: u32) -> Result<()> {
        check("gemv_mixed", st)?;
        check_threads("gemv_mixed", st, threads)?;
        check_types("gemv_mixed", st, |t| t != Packed::F16Tiles, false)?;
        ensure!("gemv_mixed", matches!(ns, 1 | 4) && st.activation == 0, "{ns} rows a warp, a pair or not");
        // SAFETY: as above.
        self.check(unsafe { ffi::kgc_gemv_mixed(st, ns, threads, self.pdl(), self.raw()) })
    }

    /// The products of several sequences, `at_once` (2, 4 or 8) of them a block.
    pub fn gemv_batch(&self, st: &Stage, ty: Packed, at_once: u32, threads: u32) -> Result<()> {
        check("gemv_batch", st)?;
        check_batch("gemv_batch", st)?;
        check_threads("gemv_batch", st, threads)?;
        check_types("gemv_batch", st, |t| t == ty && t != Packed::F16Tiles, false)?;
        let most = gemv_batch_most(st.n, ty.is_quantized());
        ensure!("gemv_batch", matches!(at_once, 2 | 4 | 8) && at_once <= most, "{at_once} sequences a block of {most}");
        let launch: ffi::GemvBatch = match ty.family() {
            Family::Float => ffi::kgc_gemv_batch_float,
            Family::Q32 => ffi::kgc_gemv_batch_q32,
            Family::K256 => ffi::kgc_gemv_batch_k256,
            Family::Table => ffi::kgc_gemv_batch_table,
            Family::Grid => ffi::kgc_gemv_batch_grid,
            Family::Ternary => ffi::kgc_gemv_batch_ternary,
        };
        // SAFETY: as above.
        self.check(unsafe { launch(st, ty, at_once, threads, self.pdl(), self.raw()) })
    }

    /// A token's products with F16 matrices in tiles, on tensor cores.
    pub fn f16_mma(&self, st: &Stage, deep: bool) -> Result<()> {
        check("f16_mma", st)?;
        check_types("f16_mma", st, |t| t == Packed::F16Tiles, false)?;
        ensure!("f16_mma", matches!(st.ks, 8 | 16), "{} parts of a row", st.ks);
        // SAFETY: as above.
        self.check(unsafe { ffi::kgc_f16_mma(st, i32::from(deep), self.pdl(), self.raw()) })
    }

    /// The same of several sequences, `nt` tiles of 8 of them a block, whose input is staged.
    pub fn f16_mma_batch(&self, st: &Stage, nt: u32) -> Result<()> {
        check("f16_mma_batch", st)?;
        check_batch("f16_mma_batch", st)?;
        check_types("f16_mma_batch", st, |t| t == Packed::F16Tiles, false)?;
        check_staged("f16_mma_batch", st)?;
        let most = f16_mma_batch_most(st.n, st.activation != 0, st.ks);
        ensure!("f16_mma_batch", nt == st.split_nt && nt <= most, "{nt} tiles of {}, at most {most}", st.split_nt);
        ensure!("f16_mma_batch", matches!(st.ks, 8 | 16), "{} parts of a row", st.ks);
        // SAFETY: as above.
        self.check(unsafe { ffi::kgc_f16_mma_batch(st, nt, self.pdl(), self.raw()) })
    }

    /// The same of one matrix, with each part of a row for itself: [parts, sequences, `out_stride`].
    pub fn f16_mma_split(&self, st: &Stage, nt: u32, warps: u32) -> Result<()> {
        check("f16_mma_split", st)?;
        check_batch("f16_mma_split", st)?;
        check_types("f16_mma_split", st, |t| t == Packed::F16Tiles, false)?;
        let most = f16_mma_split_most(st.n, st.ks);
        ensure!("f16_mma_split", matches!(nt, 1 | 2 | 4) && nt <= most, "{nt} tiles, at most {most}");
        ensure!("f16_mma_split", (1..=16).contains(&warps), "{warps} warps a block");
        let one = st.n_seg == 1 && st.activation == 0 && st.split == 0 && matches!(st.ks, 8 | 16);
        ensure!("f16_mma_split", one, "{} matrices in {} parts", mats(st), st.ks);
        // SAFETY: as above.
        self.check(unsafe { ffi::kgc_f16_mma_split(st, nt, warps, self.pdl(), self.raw()) })
    }

    /// The same of many sequences: `ks` warps a row in `groups` of a block, two rows of tiles at a time where `two`.
    pub fn f16_batch(&self, st: &Stage, nt: u32, ks: u32, groups: u32, two: bool) -> Result<()> {
        ensure!("f16_batch", self.gpu.wide, "code of version {}.x", self.gpu.major);
        check("f16_batch", st)?;
        check_batch("f16_batch", st)?;
        check_types("f16_batch", st, |t| t == Packed::F16Tiles, true)?;
        check_staged("f16_batch", st)?;
        ensure!("f16_batch", nt == st.split_nt, "{nt} tiles of {}", st.split_nt);
        ensure!("f16_batch", !two || (st.activation == 0 && st.n_seg == 1), "two rows of {} matrices", mats(st));
        let slots = f16_batch_slots(st.n, st.ks, nt, ks, groups, two || st.activation != 0);
        ensure!("f16_batch", slots > 0, "no room for {groups} groups of {ks} warps and {nt} tiles");
        // SAFETY: as above.
        self.check(unsafe { ffi::kgc_f16_batch(st, nt, ks, groups, i32::from(two), self.pdl(), self.raw()) })
    }

    /// The products of several sequences with quantized matrices of one type, on tensor cores, `groups` (1 or 2) of 32 rows at once; the input
    /// is staged.
    pub fn q_batch(&self, st: &Stage, ty: Packed, groups: u32) -> Result<()> {
        ensure!("q_batch", self.gpu.wide, "code of version {}.x", self.gpu.major);
        check("q_batch", st)?;
        check_batch("q_batch", st)?;
        check_types("q_batch", st, |t| t == ty && t.is_quantized(), true)?;
        check_staged("q_batch", st)?;
        ensure!(
            "q_batch",
            q_batch_fits(ty, st.split_nt, groups),
            "no room for {} tiles of sequences and {groups} groups of rows of {ty:?}",
            st.split_nt
        );
        // SAFETY: as above.
        self.check(unsafe { ffi::kgc_q_batch(st, ty, groups, self.pdl(), self.raw()) })
    }
}
