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
use super::plan::{DensePlan, ExpertsPlan, FfnPlan, LayerPlan, NormWeights, RecurrentPlan, Task};
use super::routed::Routed;
use super::simd::{Isa, LANES, XBlock};
use super::softmax_weights::softmax_weights_by;
use super::threads::{Pool, Shares};
use crate::alloc::reserve;
use crate::backend::{LoadControl, Plan};
use crate::error::Result;
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

/// The matrices of a mixer with a state, if the layer has one: those that read what it reads, and the last.
fn mixing<'a, 'w>(l: &'a LayerWeights<'w>) -> impl Iterator<Item = &'a Tensor<'w>> {
    let of = |w: &'a RecurrentWeights<'w>| {
        [Some(&w.input), w.gate.as_ref(), w.beta.as_ref(), w.alpha.as_ref(), Some(&w.output)].into_iter().flatten()
    };
    l.recurrent.iter().flat_map(of)
}

/// Every matrix, in the order it stands in the arena, and how many it is: as many as there are experts, or one.
fn matrices<'a, 'w>(config: &Config, weights: &'a Weights<'w>) -> Vec<(&'a Tensor<'w>, usize)> {
    let mut all = vec![(&weights.token_embd, 1)];
    for (layer, l) in config.layers.iter().zip(&weights.layers) {
        all.extend([&l.q, &l.k, &l.v, &l.o].into_iter().chain(&l.q_gate).chain(mixing(l)).map(|t| (t, 1)));
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

/// What a load takes.
pub fn plan(config: &Config, weights: &Weights<'_>) -> Plan {
    Plan {
        weights_bytes: matrices(config, weights).into_iter().map(|t| packed_bytes(t) as u64).sum(),
        kv_bytes_per_token: config.layers.iter().map(|l| kv_bytes(l.attention())).sum(),
        scratch_bytes: scratch_bytes(config) as u64,
        state_bytes: (config.state_len() * size_of::<f32>()) as u64,
    }
}

/// Bytes of a position's keys and padded values in a layer, as [`PageLayout`] keeps them.
fn kv_bytes(a: &Attention) -> u64 {
    (2 * a.n_kv_heads * (a.head_dim + a.head_dim.next_multiple_of(LANES))) as u64
}

fn scratch_bytes(c: &Config) -> usize {
    let most = c.widths();
    let mix = most.q.max(most.mix_out);
    let widest = c.n_embd.max(mix).max(most.ffn);
    let mixing = Mixing::row(&most, c.n_embd);
    let dense = 4 * (3 * c.n_embd + most.q + mix + 2 * most.kv + 2 * most.ffn + mixing)
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
struct Filler<'a> {
    packer: Packer<'a>,
    arena: &'a Arena,
    at: usize,
    control: &'a mut dyn LoadControl,
}

impl Filler<'_> {
    fn n_threads(&self) -> usize {
        self.packer.pool.n_threads()
    }

    fn next(&mut self, t: &Tensor<'_>) -> Result<Matrix> {
        // SAFETY: the arena was sized for all matrices in this order.
        let place = unsafe { self.arena.base().add(self.at) };
        self.at += packed_bytes((t, 1));
        self.packer.pack(t, place, self.control)
    }

    /// A matrix that is as many of them as there are experts, each with its own scale.
    fn stack(&mut self, t: &Tensor<'_>, n: usize, scale: &Option<Tensor<'_>>) -> Result<Vec<Matrix>> {
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

    /// The matrices of [`mixing`], in its order.
    fn recurrent(&mut self, layer: &Layer, l: &LayerWeights<'_>) -> Result<Option<RecurrentPlan>> {
        let (Some(mixer), Some(w)) = (&layer.recurrent, &l.recurrent) else { return Ok(None) };
        let (mut inputs, n_threads) = (Vec::new(), self.n_threads());
        reserve(&mut inputs, 4)?;
        for t in w.inputs() {
            inputs.push(self.next(&t)?);
        }
        let output = self.next(&w.output)?;
        // As the file has them, a channel's weights stand together.
        let (of_channel, (channels, len), mut conv) = (w.conv.floats()?, mixer.conv(), Vec::new());
        reserve(&mut conv, channels * len)?;
        conv.extend((0..channels * len).map(|i| of_channel[i % channels * len + i / channels]));
        let vector = |t: &Option<Tensor<'_>>| Ok(maybe(t)?.unwrap_or_default());
        Ok(Some(RecurrentPlan {
            input_tasks: tasks(&inputs.iter().collect::<Vec<_>>(), n_threads),
            output_tasks: tasks(&[&output], n_threads),
            inputs,
            output,
            conv,
            a: vector(&w.a)?,
            dt: vector(&w.dt)?,
            norm: vector(&w.norm)?,
        }))
    }

    fn ffn(&mut self, layer: &Layer, w: &FfnWeights<'_>) -> Result<FfnPlan> {
        let w = match w {
            FfnWeights::Dense(w) => return Ok(FfnPlan::Dense(self.dense(w)?)),
            FfnWeights::Experts(w) => w,
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
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn maybe(t: &Option<Tensor<'_>>) -> Result<Option<Vec<f32>>> {
    t.as_ref().map(Tensor::floats).transpose()
}

fn norm(weight: &Option<Tensor<'_>>, bias: &Option<Tensor<'_>>) -> Result<Option<NormWeights>> {
    let Some(weight) = weight else { return Ok(None) };
    Ok(Some(NormWeights { weight: weight.floats()?, bias: maybe(bias)? }))
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
    memory: Option<Arc<dyn HostMemory>>,
    control: &mut dyn LoadControl,
) -> Result<CpuModel> {
    let layout = PageLayout::new(config)?;
    let all = matrices(config, weights);
    let total: u64 = all.iter().map(|(t, _)| t.data.len() as u64).sum();
    let arena = Arena::for_weights(all.into_iter().map(packed_bytes).sum(), memory.as_ref())?;
    control.progress(0, total)?;
    let mut fill = Filler { packer: Packer::new(&pool, arena.is_zeroed(), total)?, arena: &arena, at: 0, control };
    let token_embd = fill.next(&weights.token_embd)?;
    let n_threads = pool.n_threads();
    let mut layers = Vec::new();
    reserve(&mut layers, weights.layers.len())?;
    let ropes = config.ropes.iter().map(Rope::new).collect::<Result<Vec<_>>>()?;
    let long_ropes = config.long.iter().flat_map(|long| &long.ropes).map(Rope::new).collect::<Result<Vec<_>>>()?;
    for (layer, l) in config.layers.iter().zip(&weights.layers) {
        let (q, k, v, o) = (fill.next(&l.q)?, fill.next(&l.k)?, fill.next(&l.v)?, fill.next(&l.o)?);
        let q_gate = l.q_gate.as_ref().map(|t| fill.next(t)).transpose()?;
        let q_gate = q_gate.map(|matrix| (tasks(&[&matrix], n_threads), matrix)).map(|(tasks, matrix)| (matrix, tasks));
        let recurrent = fill.recurrent(layer, l)?;
        layers.push(LayerPlan {
            attn_norm: norm(&l.attn_norm, &l.attn_norm_bias)?,
            biases: [maybe(&l.q_bias)?, maybe(&l.k_bias)?, maybe(&l.v_bias)?],
            q_norm: maybe(&l.q_norm)?,
            k_norm: maybe(&l.k_norm)?,
            sinks: maybe(&l.sinks)?,
            o_bias: maybe(&l.o_bias)?,
            q_gate,
            recurrent,
            post_attn_norm: maybe(&l.post_attn_norm)?,
            ffn_norm: norm(&l.ffn_norm, &l.ffn_norm_bias)?,
            post_ffn_norm: maybe(&l.post_ffn_norm)?,
            qkv_tasks: tasks(&[&q, &k, &v], n_threads),
            o_tasks: tasks(&[&o], n_threads),
            qkv: [q, k, v],
            o,
            ffn: fill.ffn(layer, &l.ffn)?,
        });
    }
    let output = weights.output.as_ref().map(|t| fill.next(t)).transpose()?;
    let output_tasks = tasks(&[output.as_ref().unwrap_or(&token_embd)], n_threads);
    Ok(CpuModel {
        config: config.try_clone()?,
        plan: plan(config, weights),
        isa,
        pool,
        token_embd,
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
