//! The forward pass: a batch of tokens of any sequences, layer by layer.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::arena::Arena;
use super::attention::PageLayout;
use super::cache::{PageAddress, Pages};
use super::linear::{Input, Matrix};
use super::simd::{Isa, XBlock};
use super::slot::slot;
use super::threads::{Pool, Shares, Turn};
use super::vector;
use crate::alloc::{reserve, reserve_exact};
use crate::backend::{Chunk, Plan, RunControl, TapEvent, Want};
use crate::error::{Error, Result};
use crate::model::{Config, Ffn, Mixer, RopePairing, RopeTable};
use crate::sampler::Scratch as Drawing;

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
    pub(super) inverse: Vec<f32>, // [n_rot / 2], radians a position
    scale: f32,
    magnitude: f32,
    pub(super) pairing: RopePairing,
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
    pub(super) x: Vec<f32>,             // [n, D] residual stream
    pub(super) h: Vec<f32>,             // [n, D] normalized, or a projection's output
    pub(super) q: Vec<f32>,             // [n, H]
    pub(super) k: Vec<f32>,             // [n, G]
    pub(super) v: Vec<f32>,             // [n, G]
    pub(super) mix: Vec<f32>,           // [n, H]
    pub(super) gate: Vec<f32>,          // [n, F]
    pub(super) up: Vec<f32>,            // [n, F]
    pub(super) quant: Vec<XBlock>,      // [n, widest / 32]
    pub(super) angles: Vec<(f32, f32)>, // [ropes, n, n_rot / 2]
    pub(super) partials: Vec<f32>,      // see `attend`
    pub(super) logits: Vec<f32>,        // [rows wanted, n_vocab] where more than one is wanted
    pub(super) pages: Vec<PageAddress>, // of all pieces, one after the other
}

/// Consecutive tokens of one chunk within a round.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub(super) chunk: usize,
    /// Tokens `from .. to` of the chunk.
    pub(super) from: usize,
    pub(super) to: usize,
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
    pub(super) fn round(
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
    /// Blocks of rows of `cols` for work that is cheap an element: one chunk where it is not worth sharing.
    pub(super) fn by_rows(&self, turn: &Turn<'_>, n: usize, cols: usize, body: &(dyn Fn(usize) + Sync)) -> Result<()> {
        if n * cols < SHARED_ELEMENTS {
            (0..n).for_each(body);
            return Ok(());
        }
        let step = n.div_ceil(4 * turn.n_threads());
        turn.run(n.div_ceil(step), &|i| (i * step..((i + 1) * step).min(n)).for_each(body))
    }

    pub(super) fn norm(&self, turn: &Turn<'_>, x: &[f32], weight: &[f32], out: &mut [f32], n: usize) -> Result<()> {
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
    pub(super) fn residual(&self, turn: &Turn<'_>, s: &mut Scratch, post: Option<&[f32]>, n: usize) -> Result<()> {
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
    pub(super) fn input<'a>(
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
    pub(super) fn multiply(
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
}

/// Shows the rows of each piece to the caller's tap.
pub(super) fn tap(
    run: &mut RunControl<'_>,
    pieces: &[Piece],
    name: &'static str,
    layer: i32,
    cols: usize,
    data: &[f32],
) {
    if !run.wants(name, layer) {
        return;
    }
    for p in pieces {
        let rows = p.len();
        let data = &data[p.row * cols..][..rows * cols];
        run.show(&TapEvent { name, layer, sequence: p.chunk, position: p.start, rows, cols, data });
    }
}
