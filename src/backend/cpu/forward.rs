//! The forward pass: a batch of tokens of any sequences, layer by layer.

use std::any::Any;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use super::arena::Arena;
use super::attention::{self, PageLayout};
use super::cache::{PageAddress, Pages};
use super::linear::{Input, Matrix};
use super::simd::{Isa, XBlock};
use super::threads::{Pool, Shares, Turn};
use super::vector;
use super::weigh::weigher;
use half::f16;

use crate::alloc::{reserve, reserve_exact};
use crate::backend::{CacheRow, Chunk, LoadedModel, PAGE_TOKENS, PageImage, Plan, RunControl, Slot, TapEvent, Want};
use crate::error::{Error, Result};
use crate::model::{Activation, Attention, Config, Dense, Ffn, Mixer, RopePairing, RopeTable};
use crate::sampler::{SampleRequest, Sampled, Scratch as Drawing, sample_with};

/// Tokens that go through the layers together; more are run in several rounds.
pub const MAX_ROWS: usize = 256;

/// So many elements are work for more than one thread: what one does in the microseconds that it takes to start a job.
const SHARED_ELEMENTS: usize = 1 << 15;

/// Panels `first .. last` of matrix `which` of a stage.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub which: usize,
    pub first: usize,
    pub last: usize,
}

/// Angles of the pairs of a head.
pub struct Rope {
    inverse: Vec<f32>, // [n_rot / 2], radians a position
    scale: f32,
    magnitude: f32,
    pairing: RopePairing,
}

impl Rope {
    /// Frequencies as the models were trained with: rounded to f32 before they meet the position.
    pub fn new(table: &RopeTable) -> Result<Rope> {
        let mut inverse = Vec::new();
        reserve(&mut inverse, table.inv_freq.len())?;
        inverse.extend(table.inv_freq.iter().enumerate().map(|(i, f)| *f as f32 / table.divisor(i)));
        Ok(Rope { inverse, scale: table.position_scale, magnitude: table.magnitude, pairing: table.pairing })
    }

    fn fill(&self, position: usize, out: &mut [(f32, f32)]) {
        let p = position as f32 * self.scale;
        for (o, &f) in out.iter_mut().zip(&self.inverse) {
            let (sin, cos) = f64::from(p * f).sin_cos();
            *o = (cos as f32 * self.magnitude, sin as f32 * self.magnitude);
        }
    }
}

/// One layer, packed.
#[allow(missing_docs)]
pub struct LayerPlan {
    pub attn_norm: Vec<f32>,
    pub qkv: [Matrix; 3],
    pub biases: [Option<Vec<f32>>; 3],
    pub q_norm: Option<Vec<f32>>,
    pub k_norm: Option<Vec<f32>>,
    pub o: Matrix,
    pub o_bias: Option<Vec<f32>>,
    pub post_attn_norm: Option<Vec<f32>>,
    pub ffn_norm: Vec<f32>,
    pub gate: Matrix,
    pub up: Matrix,
    pub down: Matrix,
    pub post_ffn_norm: Option<Vec<f32>>,
    pub qkv_tasks: Vec<Task>,
    pub o_tasks: Vec<Task>,
    pub gate_tasks: Vec<Task>,
    pub down_tasks: Vec<Task>,
}

/// A loaded model.
#[allow(missing_docs)]
pub struct CpuModel {
    pub config: Config,
    pub plan: Plan,
    pub isa: Isa,
    pub pool: Arc<Pool>,
    pub token_embd: Matrix,
    pub output: Option<Matrix>,
    pub output_tasks: Vec<Task>,
    pub output_norm: Vec<f32>,
    pub layers: Vec<LayerPlan>,
    pub ropes: Vec<Rope>,
    pub layout: PageLayout,
    pub pages: Pages,
    pub scratch: Mutex<Scratch>,
    pub drawing: Mutex<Drawing>,
    #[cfg(any(test, feature = "faults"))]
    pub fault: crate::backend::faults::Fault,
    pub _arena: Arena,
}

/// Activations of a round, `n` rows; grown when needed, at most to `MAX_ROWS` rows.
#[derive(Default)]
pub struct Scratch {
    x: Vec<f32>,                        // [n, D] residual stream
    h: Vec<f32>,                        // [n, D] normalized, or a projection's output
    pub(super) q: Vec<f32>,             // [n, H]
    k: Vec<f32>,                        // [n, G]
    v: Vec<f32>,                        // [n, G]
    pub(super) mix: Vec<f32>,           // [n, H]
    gate: Vec<f32>,                     // [n, F]
    up: Vec<f32>,                       // [n, F]
    quant: Vec<XBlock>,                 // [n, widest / 32]
    angles: Vec<(f32, f32)>,            // [ropes, n, n_rot / 2]
    pub(super) partials: Vec<f32>,      // see `attend`
    logits: Vec<f32>,                   // [rows wanted, n_vocab] where more than one is wanted
    pub(super) pages: Vec<PageAddress>, // of all pieces, one after the other
}

/// Logits of one sequence.
struct CpuSlot {
    logits: Vec<f32>,
}

impl Slot for CpuSlot {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Consecutive tokens of one chunk within a round.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    chunk: usize,
    /// Tokens `from .. to` of the chunk.
    from: usize,
    to: usize,
    /// First row of the round.
    pub(super) row: usize,
    /// Position of the first token.
    pub(super) start: usize,
    /// Its pages in `Scratch::pages`.
    pub(super) pages: (usize, usize),
}

impl Piece {
    /// Tokens.
    pub(super) fn len(&self) -> usize {
        self.to - self.from
    }
}

/// The first `n` elements, grown where there are fewer.
pub(super) fn sized<T: Clone>(v: &mut Vec<T>, n: usize, zero: T) -> Result<&mut [T]> {
    if v.len() < n {
        reserve_exact(v, n - v.len())?;
        v.resize(n, zero);
    }
    Ok(&mut v[..n])
}

impl CpuModel {
    fn round(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        chunks: &mut [Chunk<'_>],
        pieces: &[Piece],
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let c = &self.config;
        let n = pieces.iter().map(|p| p.len()).sum::<usize>();
        let most = c.widths();
        let (d, h, g, f, half) = (c.n_embd, most.q, most.kv, most.ffn, most.pairs);
        let widest = d.max(h).max(f);
        for (v, len) in [
            (&mut s.x, n * d),
            (&mut s.h, n * d),
            (&mut s.q, n * h),
            (&mut s.k, n * g),
            (&mut s.v, n * g),
            (&mut s.mix, n * h),
            (&mut s.gate, n * f),
            (&mut s.up, n * f),
        ] {
            sized(v, len, 0.0)?;
        }
        sized(&mut s.quant, n * widest.div_ceil(32), XBlock::ZERO)?;
        sized(&mut s.angles, self.ropes.len() * n * half, (0.0, 0.0))?;

        for p in pieces {
            for i in p.from..p.to {
                let row = p.row + i - p.from;
                let x = &mut s.x[row * d..][..d];
                let token = chunks[p.chunk].tokens[i] as usize;
                #[cfg(any(test, feature = "faults"))]
                let token = self.fault.token(token, p.start + i - p.from, chunks[p.chunk].tokens.len(), c.n_vocab);
                self.token_embd.row(token, x);
                if c.embedding_scale != 1.0 {
                    x.iter_mut().for_each(|x| *x *= c.embedding_scale);
                }
                let position = p.start + i - p.from;
                #[cfg(any(test, feature = "faults"))]
                let position = self.fault.position(position, chunks[p.chunk].tokens.len());
                for (r, rope) in self.ropes.iter().enumerate() {
                    rope.fill(position, &mut s.angles[(r * n + row) * half..][..rope.inverse.len()]);
                }
            }
        }
        tap(run, pieces, "embed", -1, d, &s.x);
        for (index, layer) in self.layers.iter().enumerate() {
            if run.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let tag = index as i32;
            self.norm(turn, &s.x, &layer.attn_norm, &mut s.h, n)?;
            tap(run, pieces, "attn_norm", tag, d, &s.h);
            match c.layers[index].mixer {
                Mixer::Attention(attention) => self.attention(turn, s, &attention, index, pieces, run)?,
            }
            tap(run, pieces, "attn_out", tag, d, &s.h);
            self.residual(turn, s, layer.post_attn_norm.as_deref(), n)?;

            self.norm(turn, &s.x, &layer.ffn_norm, &mut s.h, n)?;
            tap(run, pieces, "ffn_norm", tag, d, &s.h);
            match c.layers[index].ffn {
                Ffn::Dense(dense) => self.dense(turn, s, &dense, index, pieces, run)?,
            }
            tap(run, pieces, "ffn_out", tag, d, &s.h);
            self.residual(turn, s, layer.post_ffn_norm.as_deref(), n)?;
            tap(run, pieces, "resid", tag, d, &s.x);
        }
        self.output(turn, s, chunks, pieces, run)
    }

    /// `h = Wo attention(h) + bo`, of all rows.
    fn attention(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        a: &Attention,
        index: usize,
        pieces: &[Piece],
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let (layer, tag) = (&self.layers[index], index as i32);
        let (d, h, g) = (self.config.n_embd, a.q_width(), a.kv_width());
        let n = pieces.iter().map(|p| p.len()).sum::<usize>();
        let Scratch { h: hidden, quant, q, k, v, .. } = &mut *s;
        let needs = layer.qkv.iter().any(Matrix::is_quantized);
        let input = self.input(turn, hidden, quant, n, d, needs)?;
        let outs = [(Shares(q.as_mut_ptr()), h), (Shares(k.as_mut_ptr()), g), (Shares(v.as_mut_ptr()), g)];
        self.multiply(turn, &layer.qkv, &layer.qkv_tasks, &input, &outs)?;
        self.position(turn, s, a, index, pieces, n)?;
        tap(run, pieces, "q_rope", tag, h, &s.q);
        tap(run, pieces, "k_rope", tag, g, &s.k);
        tap(run, pieces, "v", tag, g, &s.v);
        self.attend(turn, s, a, index, pieces)?;
        tap(run, pieces, "attn_mix", tag, h, &s.mix);
        let Scratch { h: hidden, quant, mix, .. } = &mut *s;
        let input = self.input(turn, mix, quant, n, h, layer.o.is_quantized())?;
        let out = [(Shares(hidden.as_mut_ptr()), d)];
        self.multiply(turn, std::slice::from_ref(&layer.o), &layer.o_tasks, &input, &out)?;
        if let Some(bias) = &layer.o_bias {
            s.h[..n * d].chunks_exact_mut(d).for_each(|h| h.iter_mut().zip(bias).for_each(|(h, b)| *h += b));
        }
        Ok(())
    }

    /// `h = Wdown (activation(Wgate h) * (Wup h))`, of all rows.
    fn dense(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        dense: &Dense,
        index: usize,
        pieces: &[Piece],
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let (layer, d, f) = (&self.layers[index], self.config.n_embd, dense.width);
        let n = pieces.iter().map(|p| p.len()).sum::<usize>();
        self.gate_up(turn, s, layer, dense, n)?;
        tap(run, pieces, "ffn_act", index as i32, f, &s.gate);
        let Scratch { h: hidden, quant, gate, .. } = &mut *s;
        let input = self.input(turn, gate, quant, n, f, layer.down.is_quantized())?;
        let out = [(Shares(hidden.as_mut_ptr()), d)];
        self.multiply(turn, std::slice::from_ref(&layer.down), &layer.down_tasks, &input, &out)
    }

    /// Blocks of rows of `cols` for work that is cheap an element: one chunk where it is not worth sharing.
    fn by_rows(&self, turn: &Turn<'_>, n: usize, cols: usize, body: &(dyn Fn(usize) + Sync)) -> Result<()> {
        if n * cols < SHARED_ELEMENTS {
            (0..n).for_each(body);
            return Ok(());
        }
        let step = n.div_ceil(4 * turn.n_threads());
        turn.run(n.div_ceil(step), &|i| (i * step..((i + 1) * step).min(n)).for_each(body))
    }

    fn norm(&self, turn: &Turn<'_>, x: &[f32], weight: &[f32], out: &mut [f32], n: usize) -> Result<()> {
        let d = weight.len();
        debug_assert!(x.len() >= n * d && out.len() >= n * d);
        let (isa, eps) = (self.isa, self.config.norm_eps);
        let out = Shares(out.as_mut_ptr());
        // SAFETY: row r of both, checked above; rows are disjoint.
        self.by_rows(turn, n, d, &|r| unsafe {
            vector::rms_norm(isa, x.as_ptr().add(r * d), weight.as_ptr(), out.at(r * d), d, eps);
        })
    }

    /// `x += h`, normalized first where the layer has a norm there.
    fn residual(&self, turn: &Turn<'_>, s: &mut Scratch, post: Option<&[f32]>, n: usize) -> Result<()> {
        let d = self.config.n_embd;
        let (isa, eps) = (self.isa, self.config.norm_eps);
        let (x, h) = (Shares(s.x[..n * d].as_mut_ptr()), Shares(s.h[..n * d].as_mut_ptr()));
        // SAFETY: row r of x and h; rows are disjoint.
        self.by_rows(turn, n, d, &|r| unsafe {
            if let Some(w) = post {
                vector::rms_norm(isa, h.at(r * d), w.as_ptr(), h.at(r * d), d, eps);
            }
            vector::add(isa, x.at(r * d), h.at(r * d), d);
        })
    }

    /// `n` rows as a matrix input, quantized if need be.
    fn input<'a>(
        &self,
        turn: &Turn<'_>,
        float: &'a [f32],
        quant: &'a mut [XBlock],
        n: usize,
        cols: usize,
        needs_quant: bool,
    ) -> Result<Input<'a>> {
        let (float, blocks) = (&float[..n * cols], cols / 32);
        if !needs_quant {
            return Ok(Input { n, float, quant: &[] });
        }
        let quant = &mut quant[..n * blocks];
        let isa = self.isa;
        let out = Shares(quant.as_mut_ptr());
        // SAFETY: row r of both; rows are disjoint.
        self.by_rows(turn, n, cols, &|r| unsafe {
            vector::quantize(isa, float.as_ptr().add(r * cols), out.at(r * blocks), cols);
        })?;
        Ok(Input { n, float, quant })
    }

    /// Runs the tasks of a stage; `outs` are the destinations and their strides.
    fn multiply(
        &self,
        turn: &Turn<'_>,
        matrices: &[Matrix],
        tasks: &[Task],
        input: &Input<'_>,
        outs: &[(Shares<f32>, usize)],
    ) -> Result<()> {
        let isa = self.isa;
        turn.run(tasks.len(), &|i| {
            let t = tasks[i];
            let (out, stride) = outs[t.which];
            // SAFETY: the destinations hold `input.n` rows of `stride`; tasks cover disjoint rows of the matrices.
            unsafe { matrices[t.which].mul(isa, t.first, t.last, input, out.at(0), stride) };
        })
    }

    /// Biases, per-head norms, rotation, and the cache's new rows.
    fn position(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        a: &Attention,
        index: usize,
        pieces: &[Piece],
        n: usize,
    ) -> Result<()> {
        let (layer, eps, rope) = (&self.layers[index], self.config.norm_eps, &self.ropes[a.rope]);
        let (dim, half) = (a.head_dim, self.config.widths().pairs);
        let (h, g) = (a.q_width(), a.kv_width());
        let (q, k, v) =
            (Shares(s.q[..n * h].as_mut_ptr()), Shares(s.k[..n * g].as_mut_ptr()), Shares(s.v[..n * g].as_mut_ptr()));
        let angles = &s.angles[a.rope * n * half..][..n * half];
        let pages = &s.pages;
        let adjacent = rope.pairing == RopePairing::Adjacent;
        self.by_rows(turn, n, h + 2 * g, &|row| {
            // SAFETY: row `row` of q, k and v, which no other call touches.
            let (q, k, v) = unsafe {
                (
                    std::slice::from_raw_parts_mut(q.at(row * h), h),
                    std::slice::from_raw_parts_mut(k.at(row * g), g),
                    std::slice::from_raw_parts_mut(v.at(row * g), g),
                )
            };
            for (x, bias) in [&mut *q, &mut *k, &mut *v].into_iter().zip(&layer.biases) {
                if let Some(bias) = bias {
                    x.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
                }
            }
            let angles = &angles[row * half..][..rope.inverse.len()];
            for (x, norm) in [(&mut *q, &layer.q_norm), (&mut *k, &layer.k_norm)] {
                for head in x.chunks_exact_mut(dim) {
                    if let Some(w) = norm {
                        let p = head.as_mut_ptr();
                        // SAFETY: the head and the weight hold `dim` elements.
                        unsafe { vector::rms_norm(self.isa, p, w.as_ptr(), p, dim, eps) };
                    }
                    vector::rope(head, angles, adjacent);
                }
            }
            let Some(p) = pieces.iter().rfind(|p| p.row <= row) else { return };
            let position = p.start + row - p.row;
            #[cfg(any(test, feature = "faults"))]
            let position = self.fault.cache_index(position);
            let page = pages[p.pages.0 + position / PAGE_TOKENS].0.cast_mut();
            let mut half_k = [0_u16; 512];
            let mut half_v = [0_u16; 512];
            for head in 0..a.n_kv_heads {
                // SAFETY: `head_dim` is at most 512 (checked at load); this position's rows of the page belong to
                // this sequence alone.
                unsafe {
                    attention::to_f16(self.isa, k.as_ptr().add(head * dim), half_k.as_mut_ptr(), dim);
                    attention::to_f16(self.isa, v.as_ptr().add(head * dim), half_v.as_mut_ptr(), dim);
                    let (k, v) = (&half_k[..dim], &half_v[..dim]);
                    self.layout.write(page, index, head, position % PAGE_TOKENS, k, v);
                }
            }
        })
    }

    /// `gate = activation(Wgate h) * (Wup h)`.
    fn gate_up(&self, turn: &Turn<'_>, s: &mut Scratch, layer: &LayerPlan, dense: &Dense, n: usize) -> Result<()> {
        let (d, f, isa) = (self.config.n_embd, dense.width, self.isa);
        let Scratch { h, quant, gate, up, .. } = &mut *s;
        let input = self.input(turn, h, quant, n, d, layer.gate.is_quantized() || layer.up.is_quantized())?;
        let (gate, up) = (Shares(gate.as_mut_ptr()), Shares(up.as_mut_ptr()));
        let tasks = &layer.gate_tasks;
        turn.run(tasks.len(), &|i| {
            let Task { first, last, .. } = tasks[i];
            let (a, b) = (first * super::simd::LANES, (last * super::simd::LANES).min(f));
            // SAFETY: columns a .. b of gate and up belong to this task.
            unsafe {
                layer.gate.mul(isa, first, last, &input, gate.at(0), f);
                layer.up.mul(isa, first, last, &input, up.at(0), f);
                for row in 0..n {
                    let (gate, up) = (gate.at(row * f + a), up.at(row * f + a));
                    match dense.activation {
                        Activation::Silu => vector::silu_mul(isa, gate, up, b - a),
                        Activation::GeluTanh => vector::gelu_mul(isa, gate, up, b - a),
                    }
                }
            }
        })
    }

    /// The logits of the rows that are wanted.
    fn output(
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
        self.norm(turn, &s.x, &self.output_norm, &mut s.h, n)?;
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
        let logits = sized(logits, n * n_vocab, 0.0)?;
        let out = [(Shares(logits.as_mut_ptr()), n_vocab)];
        self.multiply(turn, std::slice::from_ref(matrix), &self.output_tasks, &input, &out)?;
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

    /// The page of a row that is there.
    fn cache_page(&self, at: CacheRow, n_keys: usize, n_values: usize) -> Result<PageAddress> {
        let g = self.config.layers.get(at.layer).map_or(usize::MAX, |l| l.attention().kv_width());
        let mut page = Vec::new();
        let there = self.pages.addresses(&[at.page], &mut page).is_some();
        match page.first() {
            Some(page) if there && at.row < PAGE_TOKENS && n_keys == g && n_values == g => Ok(*page),
            _ => Err(Error::Internal { message: format!("{at:?} of {n_keys} and {n_values} elements") }),
        }
    }

    fn check(&self, chunks: &[Chunk<'_>]) -> Result<()> {
        for c in chunks {
            let bad = c.tokens.iter().position(|&t| t as usize >= self.config.n_vocab);
            if let Some(index) = bad {
                let n_vocab = self.config.n_vocab;
                return Err(Error::TokenOutOfRange { index, token: c.tokens[index], n_vocab });
            }
            if c.tokens.is_empty() || c.pages.len() * PAGE_TOKENS < c.start + c.tokens.len() {
                return Err(Error::Internal {
                    message: format!("{} pages for {} + {} tokens", c.pages.len(), c.start, c.tokens.len()),
                });
            }
        }
        Ok(())
    }
}

fn slot(slot: &mut dyn Slot) -> Result<&mut CpuSlot> {
    slot.as_any()
        .downcast_mut::<CpuSlot>()
        .ok_or_else(|| Error::Internal { message: "a slot of another backend".into() })
}

/// Shows the rows of each piece to the caller's tap.
fn tap(run: &mut RunControl<'_>, pieces: &[Piece], name: &'static str, layer: i32, cols: usize, data: &[f32]) {
    if !run.wants(name, layer) {
        return;
    }
    for p in pieces {
        let rows = p.len();
        let data = &data[p.row * cols..][..rows * cols];
        run.show(&TapEvent { name, layer, sequence: p.chunk, position: p.start, rows, cols, data });
    }
}

impl LoadedModel for CpuModel {
    fn config(&self) -> &Config {
        &self.config
    }

    fn plan(&self) -> Plan {
        self.plan
    }

    fn reserve_pages(&self, n: usize) -> Result<()> {
        self.pages.reserve(n)
    }

    fn release_page(&self, page: u32) {
        self.pages.release(page);
    }

    fn copy_page(&self, from: u32, to: u32) -> Result<()> {
        let copied = self.pages.copy(from, to);
        copied.ok_or_else(|| Error::Internal { message: "a page that was not reserved".into() })
    }

    fn page_image(&self) -> Option<PageImage> {
        Some(PageImage { bytes: 2 * self.layout.page_len(), layout: "cpu, f16, keys 16 a block, values a row" })
    }

    fn read_page(&self, page: u32, rows: usize, out: &mut [u8]) -> Result<()> {
        let read = self.pages.read(page, out);
        read.ok_or_else(|| Error::Internal { message: "a page that was not reserved".into() })?;
        self.layout.clear_from(rows, out);
        Ok(())
    }

    fn write_page(&self, page: u32, from: &[u8]) -> Result<()> {
        let written = self.pages.write(page, from);
        written.ok_or_else(|| Error::Internal { message: "a page that was not reserved".into() })
    }

    fn set_logits(&self, s: &mut dyn Slot, logits: &[f32]) -> Result<()> {
        let own = &mut slot(s)?.logits;
        if own.len() != logits.len() {
            return Err(Error::BufferTooSmall { needed: own.len(), capacity: logits.len() });
        }
        own.copy_from_slice(logits);
        Ok(())
    }

    fn is_exact_in_chunks(&self) -> bool {
        true
    }

    fn read_cache(&self, at: CacheRow, keys: &mut [f32], values: &mut [f32]) -> Result<()> {
        let page = self.cache_page(at, keys.len(), values.len())?;
        let (dim, heads) = (self.layout.head_dim, self.layout.n_kv_heads);
        let (mut k, mut v) = (vec![0; dim], vec![0; dim]);
        for head in 0..heads {
            // SAFETY: `cache_page` has checked page, layer and row; no pass of its sequence is under way.
            unsafe { self.layout.read(page.0, at.layer, head, at.row, &mut k, &mut v) };
            for (to, from) in [(&mut *keys, &k), (&mut *values, &v)] {
                let to = &mut to[head * dim..][..dim];
                to.iter_mut().zip(from).for_each(|(to, from)| *to = f16::from_bits(*from).to_f32());
            }
        }
        Ok(())
    }

    fn write_cache(&self, at: CacheRow, keys: &[f32], values: &[f32]) -> Result<()> {
        let page = self.cache_page(at, keys.len(), values.len())?;
        let (dim, heads) = (self.layout.head_dim, self.layout.n_kv_heads);
        let halves = |from: &[f32]| from.iter().map(|x| f16::from_f32(*x).to_bits()).collect::<Vec<u16>>();
        for head in 0..heads {
            let (k, v) = (halves(&keys[head * dim..][..dim]), halves(&values[head * dim..][..dim]));
            // SAFETY: `cache_page` has checked page, layer and row; the page is one sequence's, which runs no pass.
            unsafe { self.layout.write(page.0.cast_mut(), at.layer, head, at.row, &k, &v) };
        }
        Ok(())
    }

    fn create_slot(&self) -> Result<Box<dyn Slot>> {
        let mut logits = Vec::new();
        sized(&mut logits, self.config.n_vocab, 0.0)?;
        Ok(Box::new(CpuSlot { logits }))
    }

    fn forward(&self, chunks: &mut [Chunk<'_>], run: &mut RunControl<'_>) -> Result<()> {
        self.check(chunks)?;
        let turn = self.pool.turn();
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rows = 0;
        scratch.pages.clear();
        for chunk in 0..chunks.len() {
            let (n, start) = (chunks[chunk].tokens.len(), chunks[chunk].start);
            let first = scratch.pages.len();
            reserve(&mut scratch.pages, chunks[chunk].pages.len())?;
            self.pages
                .addresses(chunks[chunk].pages, &mut scratch.pages)
                .ok_or_else(|| Error::Internal { message: "a page that was not reserved".into() })?;
            let pages = (first, scratch.pages.len());
            let mut from = 0;
            while from < n {
                let to = n.min(from + MAX_ROWS - rows);
                reserve(&mut pieces, 1)?;
                pieces.push(Piece { chunk, from, to, row: rows, start: start + from, pages });
                rows += to - from;
                from = to;
                if rows == MAX_ROWS {
                    self.round(&turn, &mut scratch, chunks, &pieces, run)?;
                    pieces.clear();
                    rows = 0;
                }
            }
        }
        if rows > 0 { self.round(&turn, &mut scratch, chunks, &pieces, run) } else { Ok(()) }
    }

    fn logits(&self, s: &mut dyn Slot, out: &mut [f32]) -> Result<()> {
        let logits = &slot(s)?.logits;
        if out.len() != logits.len() {
            return Err(Error::BufferTooSmall { needed: logits.len(), capacity: out.len() });
        }
        out.copy_from_slice(logits);
        Ok(())
    }

    fn sample(&self, s: &mut dyn Slot, request: &SampleRequest<'_>) -> Result<Sampled> {
        self.draw(&slot(s)?.logits, request)
    }

    fn draw(&self, logits: &[f32], request: &SampleRequest<'_>) -> Result<Sampled> {
        let drawing = match self.drawing.try_lock() {
            // Nothing of it outlives a draw, so one that has panicked has left nothing.
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            other => other,
        };
        match drawing {
            Ok(mut drawing) => sample_with(&mut drawing, logits, request),
            // Another thread draws right now.
            Err(_) => sample_with(&mut Drawing::weighing_with(weigher(self.isa)), logits, request),
        }
    }
}
