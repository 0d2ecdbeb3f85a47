//! Loading: plans one arena, packs every matrix into it on all threads, and sets up what the passes need.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arena::Arena;
use super::cache::Pages;
use super::forward::{CpuModel, MAX_ROWS, Rope, Scratch};
use super::host::HostMemory;
use super::layout::PageLayout;
use super::linear::Matrix;
use super::mixing::Mixing;
use super::pack::{pack_panel, panel_bytes};
use super::plan::{DensePlan, ExpertsPlan, FfnPlan, LayerPlan, NormWeights, Task};
use super::routed::Routed;
use super::simd::{Isa, LANES, XBlock};
use super::softmax_weights::softmax_weights_by;
use super::threads::{Pool, Shares};
use crate::alloc::reserve;
use crate::backend::{LoadControl, Plan};
use crate::error::Result;
use crate::gguf::TensorType::F32;
use crate::model::{
    Attention, Config, DenseWeights, FfnWeights, Layer, LayerWeights, RecurrentWeights, Tensor, Weights,
};

/// Bytes of the file packed between two looks at the caller's progress callback.
const STEP_BYTES: usize = 8 << 20;
/// Bytes that a thread reads at once and packs while they are in its processor's cache.
const PIECE_BYTES: usize = 256 << 10;

/// The matrices of a dense part, or of all experts.
fn dense_matrices<'a, 'w>(w: &'a DenseWeights<'w>) -> impl Iterator<Item = &'a Tensor<'w>> {
    w.gate.iter().chain([&w.up, &w.down])
}

/// Every matrix, and how many it is: as many as there are experts, or heads of latents, or one.
fn matrices<'a, 'w>(config: &Config, weights: &'a Weights<'w>) -> Vec<(&'a Tensor<'w>, usize)> {
    let mut all = vec![(&weights.token_embd, 1)];
    all.extend(weights.per_layer.iter().flat_map(|w| [&w.embd, &w.proj]).map(|t| (t, 1)));
    for (layer, l) in config.layers.iter().zip(&weights.layers) {
        all.extend([&l.q, &l.o].into_iter().chain(&l.k).chain(&l.v).chain(&l.q_gate).map(|t| (t, 1)));
        all.extend(l.recurrent.iter().flat_map(RecurrentWeights::matrices).map(|t| (t, 1)));
        if let Some(w) = &l.latent {
            all.extend(w.q_a.iter().chain([&w.kv_a]).map(|t| (t, 1)));
            let n_heads = layer.attention().n_heads;
            all.extend(w.transposed.is_none().then_some((&w.k_b, n_heads)).into_iter().chain([(&w.v_b, n_heads)]));
        }
        all.extend(l.per_layer.iter().flat_map(|w| [&w.gate, &w.proj]).map(|t| (t, 1)));
        if let (Some(w), Some(experts)) = (l.ffn.experts(), layer.experts()) {
            all.push((&w.router, 1));
            all.extend(dense_matrices(&w.each).map(|t| (t, experts.n)));
        }
        all.extend(l.ffn.common().into_iter().flat_map(dense_matrices).map(|t| (t, 1)));
    }
    all.extend(weights.output.iter().map(|t| (t, 1)));
    all
}

/// Bytes of a matrix that is `n` of them.
fn packed_bytes((t, n): (&Tensor<'_>, usize)) -> usize {
    n * Matrix::bytes(t.ty, t.rows / n, t.cols).next_multiple_of(64)
}

/// The tensors whose matrices are transposed, and how many each is.
fn transposed<'a, 'w>(weights: &'a Weights<'w>) -> impl Iterator<Item = (&'a Tensor<'w>, usize)> {
    weights.layers.iter().filter_map(|l| l.latent.as_ref()).filter_map(|w| Some((&w.k_b, w.transposed?)))
}

/// Bytes of all matrices.
fn arena_bytes(config: &Config, weights: &Weights<'_>) -> usize {
    let turned = |(t, n): (&Tensor<'_>, usize)| n * Matrix::bytes(F32, t.cols, t.rows / n).next_multiple_of(64);
    let straight: usize = matrices(config, weights).into_iter().map(packed_bytes).sum();
    straight + transposed(weights).map(turned).sum::<usize>()
}

/// What a load takes.
pub fn plan(config: &Config, weights: &Weights<'_>) -> Plan {
    Plan {
        weights_bytes: arena_bytes(config, weights) as u64,
        kv_bytes_per_token: config.layers.iter().map(|l| kv_bytes(l.attention())).sum(),
        scratch_bytes: scratch_bytes(config) as u64,
        state_bytes: (config.state_len() * size_of::<f32>()) as u64,
    }
}

/// Bytes of a position's keys and padded values in a layer, as [`PageLayout`] keeps them.
fn kv_bytes(a: &Attention) -> u64 {
    let values = if a.latent.is_some() { 0 } else { a.head_dim.next_multiple_of(LANES) };
    let kept = a.kv_from.is_none();
    (usize::from(kept) * 2 * a.n_kv_heads * (a.head_dim + values)) as u64
}

fn scratch_bytes(c: &Config) -> usize {
    let most = c.widths();
    let by_layer = c.per_layer.map_or(0, |per_layer| per_layer.width);
    let ffn = most.ffn.max(by_layer);
    let mix = most.q.max(most.latent).max(most.mix_out);
    let widest = c.n_embd.max(mix).max(ffn);
    let mixing = Mixing::row(&most, c.n_embd);
    let dense = 4
        * (3 * c.n_embd + most.q + mix + 2 * most.latent + 2 * most.kv + 2 * ffn + 2 * most.per_layer + mixing)
        + widest.div_ceil(32) * size_of::<XBlock>();
    MAX_ROWS * dense + Routed::bytes(&most, c.n_embd, MAX_ROWS)
}

/// Packs matrices on all threads.
struct Packer<'a> {
    pool: &'a Pool,
    /// What is read of a file: one buffer a thread, those that none uses.
    buffers: Mutex<Vec<Vec<u8>>>,
    /// What is packed into.
    is_zeroed: bool,
    done: u64,
    total: u64,
}

impl Packer<'_> {
    fn new(pool: &Pool, is_zeroed: bool, total: u64) -> Result<Packer<'_>> {
        let mut buffers = Vec::new();
        reserve(&mut buffers, pool.n_threads())?;
        Ok(Packer { pool, buffers: Mutex::new(buffers), is_zeroed, done: 0, total })
    }

    /// Packs a matrix into `out`.
    fn pack(&mut self, t: &Tensor<'_>, out: *mut u8, control: &mut dyn LoadControl) -> Result<Matrix> {
        let is_zeroed = self.is_zeroed;
        let (row, panel) = (t.ty.row_bytes(t.cols), panel_bytes(t.ty, t.cols));
        let n_panels = t.rows.div_ceil(LANES);
        let (step, piece) = ((STEP_BYTES / (row * LANES)).max(1), (PIECE_BYTES / (row * LANES)).max(1));
        let out = Shares(out);
        let bytes = |panels: Range<usize>| panels.start * LANES * row..t.data.len().min(panels.end * LANES * row);
        for first in (0..n_panels).step_by(step) {
            let last = (first + step).min(n_panels);
            let failed = Mutex::new(None);
            // A turn a step: others' passes come between, also those that the caller's callback runs.
            self.pool.turn().run((last - first).div_ceil(piece), &|i| {
                if lock(&failed).is_some() {
                    return;
                }
                let from = first + i * piece;
                let to = (from + piece).min(last);
                let mut buffer = lock(&self.buffers).pop().unwrap_or_default();
                match t.data.piece(bytes(from..to), &mut buffer) {
                    Ok(src) => {
                        for (p, src) in (from..to).zip(src.chunks(LANES * row)) {
                            // SAFETY: panel p of the matrix's own place in the arena; each chunk has its own.
                            let dst = unsafe {
                                if !is_zeroed {
                                    out.at(p * panel).write_bytes(0, panel);
                                }
                                std::slice::from_raw_parts_mut(out.at(p * panel), panel)
                            };
                            pack_panel(t.ty, t.cols, src, dst);
                        }
                    }
                    Err(e) => *lock(&failed) = Some(e),
                }
                // A host's threads may be more than it says.
                let mut buffers = lock(&self.buffers);
                if buffers.len() < buffers.capacity() {
                    buffers.push(buffer);
                }
            })?;
            if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
                return Err(error);
            }
            self.done += bytes(first..last).len() as u64;
            control.progress(self.done, self.total)?;
        }
        // SAFETY: the arena holds `Matrix::bytes` bytes here, packed above and never written again; the model owns both.
        Ok(unsafe { Matrix::new(t.ty, t.rows, t.cols, out.at(0)) }.scaled(t.scale))
    }
}

/// Packs matrices one behind the other into an arena that was sized for all of them.
pub(super) struct Filler<'a> {
    packer: Packer<'a>,
    arena: &'a Arena,
    at: usize,
    control: &'a mut dyn LoadControl,
}

impl Filler<'_> {
    pub(super) fn n_threads(&self) -> usize {
        self.packer.pool.n_threads()
    }

    /// The place of a matrix of so many bytes.
    pub(super) fn place(&mut self, bytes: usize) -> *mut u8 {
        // SAFETY: the arena was sized for all matrices.
        let place = unsafe { self.arena.base().add(self.at) };
        self.at += bytes;
        place
    }

    /// Bytes of the file have been packed.
    pub(super) fn read(&mut self, bytes: u64) -> Result<()> {
        self.packer.done += bytes;
        self.control.progress(self.packer.done, self.packer.total)
    }

    pub(super) fn next(&mut self, t: &Tensor<'_>) -> Result<Matrix> {
        let place = self.place(packed_bytes((t, 1)));
        self.packer.pack(t, place, self.control)
    }

    /// A matrix that is as many of them as there are experts or heads, each with its own scale.
    pub(super) fn stack(&mut self, t: &Tensor<'_>, n: usize, scale: &Option<Tensor<'_>>) -> Result<Vec<Matrix>> {
        let scales = scale.as_ref().map(Tensor::finite_floats).transpose()?.unwrap_or_default();
        let rows = t.rows / n;
        let bytes = rows * t.ty.row_bytes(t.cols);
        let mut all = Vec::new();
        reserve(&mut all, n)?;
        for i in 0..n {
            let data = t.data.part(i * bytes..(i + 1) * bytes)?;
            let scale = scales.get(i).copied().unwrap_or(t.scale);
            all.push(self.next(&Tensor { rows, data, scale, ..*t })?);
        }
        Ok(all)
    }

    fn dense(&mut self, w: &DenseWeights<'_>) -> Result<DensePlan> {
        let gate = w.gate.as_ref().map(|t| self.next(t)).transpose()?;
        let (up, down) = (self.next(&w.up)?, self.next(&w.down)?);
        let n_threads = self.n_threads();
        Ok(DensePlan {
            gate_bias: maybe(&w.gate_bias)?,
            up_bias: maybe(&w.up_bias)?,
            down_bias: maybe(&w.down_bias)?,
            up_tasks: tasks(&[gate.as_ref().unwrap_or(&up)], n_threads),
            down_tasks: tasks(&[&down], n_threads),
            gate,
            up,
            down,
        })
    }

    fn ffn(&mut self, config: &Config, layer: &Layer, w: &FfnWeights<'_>) -> Result<FfnPlan> {
        let w = match w {
            FfnWeights::Dense(w) => return Ok(FfnPlan::Dense(self.dense(w)?)),
            FfnWeights::Experts(w) => w,
            FfnWeights::None => return Ok(FfnPlan::None),
        };
        let n = layer.experts().map_or(1, |experts| experts.n);
        let router = self.next(&w.router)?;
        let each = &w.each;
        let gate = each.gate.as_ref().map(|t| self.stack(t, n, &w.gate_scale)).transpose()?.unwrap_or_default();
        Ok(FfnPlan::Experts(ExpertsPlan {
            router_tasks: tasks(&[&router], self.n_threads()),
            router,
            router_bias: maybe(&w.router_bias)?,
            select_bias: maybe(&w.select_bias)?,
            gate,
            up: self.stack(&each.up, n, &w.up_scale)?,
            down: self.stack(&each.down, n, &w.down_scale)?,
            gate_bias: maybe(&each.gate_bias)?,
            up_bias: maybe(&each.up_bias)?,
            down_bias: maybe(&each.down_bias)?,
            shared: w.shared.as_ref().map(|w| self.dense(w)).transpose()?,
            shared_gate: maybe(&w.shared_gate)?,
            side_by_side: w.side_by_side.as_ref().map(|w| self.side_by_side(config, w)).transpose()?,
        }))
    }
}

impl Filler<'_> {
    fn layer(&mut self, config: &Config, layer: &Layer, l: &LayerWeights<'_>) -> Result<LayerPlan> {
        let (a, n_threads) = (layer.attention(), self.n_threads());
        let (qkv, latent) = match &l.latent {
            Some(w) => {
                let (qkv, latent) = self.latent(w, &l.q, a.n_heads)?;
                (qkv, Some(latent))
            }
            None => {
                let all = [Some(&l.q), l.k.as_ref(), l.v.as_ref()];
                (all.into_iter().flatten().map(|t| self.next(t)).collect::<Result<Vec<_>>>()?, None)
            }
        };
        let o = self.next(&l.o)?;
        let q_gate = l.q_gate.as_ref().map(|t| self.next(t)).transpose()?;
        Ok(LayerPlan {
            attn_norm: norm(&l.attn_norm, &l.attn_norm_bias)?,
            biases: [maybe(&l.q_bias)?, maybe(&l.k_bias)?, maybe(&l.v_bias)?],
            q_norm: maybe(&l.q_norm)?,
            k_norm: maybe(&l.k_norm)?,
            v_norm: a.v_norm.then(|| vec![1.0; a.head_dim]),
            sinks: maybe(&l.sinks)?,
            o_bias: maybe(&l.o_bias)?,
            q_gate: q_gate.map(|matrix| {
                let tasks = tasks(&[&matrix], n_threads);
                (matrix, tasks)
            }),
            recurrent: self.recurrent(layer, l)?,
            post_attn_norm: maybe(&l.post_attn_norm)?,
            ffn_norm: norm(&l.ffn_norm, &l.ffn_norm_bias)?,
            post_ffn_norm: maybe(&l.post_ffn_norm)?,
            qkv_tasks: tasks(&qkv.iter().collect::<Vec<_>>(), n_threads),
            o_tasks: tasks(&[&o], n_threads),
            qkv,
            latent,
            o,
            ffn: self.ffn(config, layer, &l.ffn)?,
            per_layer: l.per_layer.as_ref().map(|w| self.per_layer_gate(w)).transpose()?,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn maybe(t: &Option<Tensor<'_>>) -> Result<Option<Vec<f32>>> {
    t.as_ref().map(Tensor::floats).transpose()
}

fn norm(weight: &Option<Tensor<'_>>, bias: &Option<Tensor<'_>>) -> Result<Option<NormWeights>> {
    let Some(weight) = weight else { return Ok(None) };
    Ok(Some(NormWeights { weight: weight.floats()?, bias: maybe(bias)? }))
}

/// Cuts matrices that read the same input into pieces of similar work that never cross a matrix.
pub(super) fn tasks(matrices: &[&Matrix], n_threads: usize) -> Vec<Task> {
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
    memory: Option<Arc<dyn HostMemory>>,
    control: &mut dyn LoadControl,
) -> Result<CpuModel> {
    let layout = PageLayout::new(config)?;
    let all = matrices(config, weights);
    let total: u64 = all.into_iter().chain(transposed(weights)).map(|(t, _)| t.data.len() as u64).sum();
    let arena = Arena::for_weights(arena_bytes(config, weights), memory.as_ref())?;
    control.progress(0, total)?;
    let mut fill = Filler { packer: Packer::new(&pool, arena.is_zeroed(), total)?, arena: &arena, at: 0, control };
    let token_embd = fill.next(&weights.token_embd)?;
    let per_layer = weights.per_layer.as_ref().map(|w| fill.per_layer(w)).transpose()?;
    let n_threads = pool.n_threads();
    let mut layers = Vec::new();
    reserve(&mut layers, weights.layers.len())?;
    let ropes = config.ropes.iter().map(Rope::new).collect::<Result<Vec<_>>>()?;
    let long_ropes = config.long.iter().flat_map(|long| &long.ropes).map(Rope::new).collect::<Result<Vec<_>>>()?;
    for (layer, l) in config.layers.iter().zip(&weights.layers) {
        layers.push(fill.layer(config, layer, l)?);
    }
    let output = weights.output.as_ref().map(|t| fill.next(t)).transpose()?;
    let output_tasks = tasks(&[output.as_ref().unwrap_or(&token_embd)], n_threads);
    Ok(CpuModel {
        config: config.try_clone()?,
        plan: plan(config, weights),
        isa,
        pool,
        token_embd,
        per_layer,
        output,
        output_tasks,
        output_bias: maybe(&weights.output_bias)?,
        output_norm: NormWeights { weight: weights.output_norm.floats()?, bias: maybe(&weights.output_norm_bias)? },
        layers,
        ropes,
        long_ropes,
        state_starts: (0..config.n_layers()).map(|layer| config.state_start(layer)).collect(),
        states: Pages::new(2 * config.state_len(), memory.as_ref()),
        pages: (0..layout.classes.n()).map(|class| Pages::new(layout.part_len(class), memory.as_ref())).collect(),
        layout,
        scratch: Mutex::new(Scratch::new(memory.as_ref())),
        memory,
        drawing: Mutex::new(crate::sampler::Scratch::with_weights(softmax_weights_by(isa))),
        #[cfg(any(test, feature = "faults"))]
        fault: crate::backend::faults::planted(),
        _arena: arena,
    })
}
