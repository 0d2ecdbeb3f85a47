//! Loading: plans one arena, packs every matrix into it on all threads, and sets up what the passes need.

use std::sync::{Arc, Mutex};

use super::arena::Arena;
use super::attention::PageLayout;
use super::cache::Pages;
use super::forward::{CpuModel, LayerPlan, MAX_ROWS, Rope, Scratch, Task};
use super::linear::Matrix;
use super::pack::{pack_panel, panel_bytes};
use super::simd::{Isa, LANES, XBlock};
use super::threads::{Pool, Shares};
use super::weigh::weigher;
use crate::backend::{LoadControl, PAGE_TOKENS, Plan};
use crate::error::{Error, Result};
use crate::gguf::TensorType;
use crate::model::{Config, Tensor, Weights};

/// Rows of the file packed between two looks at the caller's progress callback.
const STEP_BYTES: usize = 8 << 20;

/// Every matrix, in the order it stands in the arena.
fn matrices<'a, 'w>(weights: &'a Weights<'w>) -> Vec<&'a Tensor<'w>> {
    let mut all = vec![&weights.token_embd];
    for l in &weights.layers {
        all.extend([&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down]);
    }
    all.extend(weights.output.as_ref());
    all
}

fn packed_bytes(t: &Tensor<'_>) -> usize {
    Matrix::bytes(t.ty, t.rows, t.cols).next_multiple_of(64)
}

fn layout(config: &Config) -> PageLayout {
    PageLayout {
        head_dim: config.head_dim,
        padded: config.head_dim.next_multiple_of(LANES),
        n_kv_heads: config.n_kv_heads,
        n_layers: config.n_layers,
    }
}

/// What a load takes.
pub fn plan(config: &Config, weights: &Weights<'_>) -> Plan {
    Plan {
        weights_bytes: matrices(weights).iter().map(|t| packed_bytes(t) as u64).sum(),
        kv_bytes_per_token: (2 * layout(config).page_len() / PAGE_TOKENS) as u64,
        scratch_bytes: scratch_bytes(config) as u64,
    }
}

fn scratch_bytes(c: &Config) -> usize {
    let (h, g) = (c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim);
    let widest = c.n_embd.max(h).max(c.n_ff);
    MAX_ROWS * (4 * (3 * c.n_embd + 2 * h + 2 * g + 2 * c.n_ff) + widest.div_ceil(32) * size_of::<XBlock>())
}

/// Packs a matrix into `out`.
fn pack(
    t: &Tensor<'_>,
    out: *mut u8,
    pool: &Pool,
    done: &mut u64,
    total: u64,
    control: &mut dyn LoadControl,
) -> Result<Matrix> {
    let (row, panel) = (t.ty.row_bytes(t.cols), panel_bytes(t.ty, t.cols));
    let n_panels = t.rows.div_ceil(LANES);
    let step = (STEP_BYTES / (row * LANES)).max(1);
    let out = Shares(out);
    for first in (0..n_panels).step_by(step) {
        let last = (first + step).min(n_panels);
        // A turn a step: others' passes come between, also those that the caller's callback runs.
        pool.turn().run(last - first, &|i| {
            let p = first + i;
            let src = &t.data[p * LANES * row..t.data.len().min((p + 1) * LANES * row)];
            // SAFETY: panel p of the matrix's own place in the arena; each chunk has its own.
            let dst = unsafe { std::slice::from_raw_parts_mut(out.at(p * panel), panel) };
            pack_panel(t.ty, t.cols, src, dst);
        })?;
        let bytes = &t.data[first * LANES * row..t.data.len().min(last * LANES * row)];
        control.release(bytes);
        *done += bytes.len() as u64;
        control.progress(*done, total)?;
    }
    // SAFETY: the arena holds `Matrix::bytes` bytes here, packed above and never written again; the model owns both.
    Ok(unsafe { Matrix::new(t.ty, t.rows, t.cols, out.at(0)) })
}

/// A vector of the file as f32.
fn vector(t: &Tensor<'_>) -> Result<Vec<f32>> {
    if t.ty != TensorType::F32 {
        return Err(Error::Model { name: t.name.into(), found: t.ty.name().into(), expected: "F32".into() });
    }
    Ok(t.data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn maybe(t: &Option<Tensor<'_>>) -> Result<Option<Vec<f32>>> {
    t.as_ref().map(vector).transpose()
}

/// Cuts matrices that read the same input into pieces of similar work that never cross a matrix.
fn tasks(matrices: &[&Matrix], n_threads: usize) -> Vec<Task> {
    let total: usize = matrices.iter().map(|m| m.n_panels()).sum();
    let mut out = Vec::new();
    for (which, m) in matrices.iter().enumerate() {
        // Float kernels take 4 panels at once; about 8 pieces a thread even out what else the machine does.
        let least = if m.is_quantized() { 2 } else { 4 };
        let step = (total / (8 * n_threads)).next_multiple_of(least).max(least);
        for first in (0..m.n_panels()).step_by(step) {
            out.push(Task { which, first, last: (first + step).min(m.n_panels()) });
        }
    }
    out
}

/// Copies the weights.
pub fn load(
    config: &Config,
    weights: &Weights<'_>,
    pool: Arc<Pool>,
    isa: Isa,
    control: &mut dyn LoadControl,
) -> Result<CpuModel> {
    let all = matrices(weights);
    let total: u64 = all.iter().map(|t| t.data.len() as u64).sum();
    let arena = Arena::new(all.iter().map(|t| packed_bytes(t)).sum())?;
    let (mut at, mut done) = (0, 0);
    control.progress(0, total)?;
    let mut next = |t: &Tensor<'_>, control: &mut dyn LoadControl| -> Result<Matrix> {
        // SAFETY: the arena was sized for all matrices in this order.
        let place = unsafe { arena.base().add(at) };
        at += packed_bytes(t);
        pack(t, place, &pool, &mut done, total, control)
    };
    let token_embd = next(&weights.token_embd, control)?;
    let n_threads = pool.n_threads();
    let mut layers = Vec::new();
    let mut ropes: Vec<Rope> = Vec::new();
    let factors = maybe(&weights.rope_freqs)?;
    for (l, c) in weights.layers.iter().zip(&config.layers) {
        let (q, k, v) = (next(&l.q, control)?, next(&l.k, control)?, next(&l.v, control)?);
        let o = next(&l.o, control)?;
        let (gate, up, down) = (next(&l.gate, control)?, next(&l.up, control)?, next(&l.down, control)?);
        let rope = Rope::new(config, c, factors.as_deref());
        let rope = ropes.iter().position(|r| *r == rope).unwrap_or_else(|| {
            ropes.push(rope);
            ropes.len() - 1
        });
        layers.push(LayerPlan {
            attn_norm: vector(&l.attn_norm)?,
            biases: [maybe(&l.q_bias)?, maybe(&l.k_bias)?, maybe(&l.v_bias)?],
            q_norm: maybe(&l.q_norm)?,
            k_norm: maybe(&l.k_norm)?,
            o_bias: maybe(&l.o_bias)?,
            post_attn_norm: maybe(&l.post_attn_norm)?,
            ffn_norm: vector(&l.ffn_norm)?,
            post_ffn_norm: maybe(&l.post_ffn_norm)?,
            qkv_tasks: tasks(&[&q, &k, &v], n_threads),
            o_tasks: tasks(&[&o], n_threads),
            gate_tasks: tasks(&[&gate], n_threads),
            down_tasks: tasks(&[&down], n_threads),
            qkv: [q, k, v],
            o,
            gate,
            up,
            down,
            window: c.window.map_or(0, |w| w as usize),
            rope,
        });
    }
    let output = weights.output.as_ref().map(|t| next(t, control)).transpose()?;
    let output_tasks = tasks(&[output.as_ref().unwrap_or(&token_embd)], n_threads);
    let layout = layout(config);
    Ok(CpuModel {
        config: config.clone(),
        plan: plan(config, weights),
        isa,
        pool,
        token_embd,
        output,
        output_tasks,
        output_norm: vector(&weights.output_norm)?,
        layers,
        ropes,
        layout,
        pages: Pages::new(layout.page_len()),
        scratch: Mutex::new(Scratch::default()),
        drawing: Mutex::new(crate::sampler::Scratch::weighing_with(weigher(isa))),
        #[cfg(any(test, feature = "faults"))]
        fault: crate::backend::faults::planted(),
        _arena: arena,
    })
}
