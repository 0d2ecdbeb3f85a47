//! What is done row by row: weights into planes, embeddings, norms, the gated unit of vectors.

use super::{Queue, check_mat, ensure, ffi, internal, padded, strided};
use crate::backend::cuda::driver::Address;
use crate::backend::cuda::kernels::abi::{Activation, MOST_PARTS, Mat, Stage};
use crate::error::Result;

/// What stands between products: it is the same of one row and of many, so that who queues a step or a batch need not know it.
#[derive(Clone, Copy, Debug)]
pub enum Between {
    /// See [`Glu`].
    Glu(Glu),
}

impl Between {
    /// Launches it.
    pub fn launch(&self, queue: &Queue<'_>) -> Result<()> {
        match self {
            Between::Glu(glu) => queue.glu(*glu),
        }
    }
}

/// out = activation(gate) * up, over `n` elements.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Glu {
    pub gate: Address,
    pub up: Address,
    pub out: Address,
    pub n: u32,
    pub activation: u32,
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
        self.check(unsafe { ffi::kgc_embed(mat, state, n_seq, scale, x, x_stride, self.raw()) })
    }

    /// The embeddings of `n` tokens, times `scale`.
    pub fn embed_rows(&self, mat: &Mat, tokens: Address, n: u32, scale: f32, x: Address, x_stride: u32) -> Result<()> {
        check_mat("embed_rows", mat)?;
        ensure!("embed_rows", strided(n, x_stride, mat.cols.into()), "{n} of {}, {x_stride} apart", mat.cols);
        ensure!("embed_rows", tokens != 0 && x != 0 && n <= 65535, "{n} from {tokens:#x} to {x:#x}");
        // SAFETY: as above.
        self.check(unsafe { ffi::kgc_embed_rows(mat, tokens, n, scale, x, x_stride, self.raw()) })
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
        self.check(unsafe { ffi::kgc_batch_norm(st, out, threads, self.pdl(), self.raw()) })
    }

    /// See [`Glu`].
    pub fn glu(&self, glu: Glu) -> Result<()> {
        let Glu { gate, up, out, n, activation } = glu;
        let known = activation == Activation::Silu as u32 || activation == Activation::Gelu as u32;
        ensure!("glu", known && n > 0, "activation {activation} of {n} elements");
        if [gate, up, out].contains(&0) {
            return Err(internal(format!("glu: gate at {gate:#x}, up at {up:#x}, out at {out:#x}")));
        }
        // SAFETY: as above.
        self.check(unsafe { ffi::kgc_glu(gate, up, out, n, activation, self.raw()) })
    }
}
