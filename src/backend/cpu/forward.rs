//! The forward pass: a batch of tokens of any sequences, layer by layer.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::arena::Arena;
use super::cache::{PageAddress, Pages};
use super::host::{HostMemory, MemoryKind};
use super::layout::PageLayout;
use super::linear::Matrix;
use super::mixing::Mixing;
use super::plan::{LayerPlan, NormWeights, PerLayerPlan, Task};
use super::room::Room;
use super::routed::Routed;
use super::simd::{Isa, XBlock};
use super::threads::{Pool, Turn};
use crate::alloc::reserve;
use crate::backend::{Chunk, Plan, RunControl, TapEvent};
use crate::error::{Error, Result};
use crate::model::{Block, Config, Mixer, RopePairing, RopeTable};
use crate::sampler::Scratch as Drawing;

/// Tokens that go through the layers together; more are run in several rounds.
pub const MAX_ROWS: usize = 256;

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

/// A loaded model.
#[allow(missing_docs)]
pub struct CpuModel {
    pub config: Config,
    pub plan: Plan,
    pub isa: Isa,
    pub pool: Arc<Pool>,
    pub token_embd: Matrix,
    pub per_layer: Option<PerLayerPlan>,
    pub output: Option<Matrix>,
    pub output_tasks: Vec<Task>,
    pub output_bias: Option<Vec<f32>>,
    pub output_norm: NormWeights,
    pub layers: Vec<LayerPlan>,
    pub ropes: Vec<Rope>,
    /// Those of long sessions; empty where there are none.
    pub long_ropes: Vec<Rope>,
    pub layout: PageLayout,
    /// One for each class of layers.
    pub pages: Vec<Pages>,
    /// The states of sequences, and where each layer's part of one begins, in f32.
    pub states: Pages,
    pub state_starts: Vec<usize>,
    pub scratch: Mutex<Scratch>,
    /// Gives large memory in the system's place.
    pub memory: Option<Arc<dyn HostMemory>>,
    pub drawing: Mutex<Drawing>,
    #[cfg(any(test, feature = "faults"))]
    pub fault: crate::backend::faults::Fault,
    pub _arena: Arena,
}

/// Activations of a round, `n` rows; grown when needed, at most to `MAX_ROWS` rows.
pub struct Scratch {
    pub(super) x: Room<f32>,             // [n, D] residual stream
    pub(super) h: Room<f32>,             // [n, D] what a half layer reads, or its output
    pub(super) aside: Room<f32>,         // [n, D] see `set_aside`
    pub(super) q: Room<f32>,             // [n, H]
    pub(super) k: Room<f32>,             // [n, G]
    pub(super) v: Room<f32>,             // [n, G]
    pub(super) mix: Room<f32>,           // [n, H]
    pub(super) heads: Room<f32>,         // [n, widest of latents] see `latent`
    pub(super) ranks: Room<f32>,         // [n, widest of latents] the same
    pub(super) by_layer: Room<f32>,      // [n, n_layers P] see `per_layer`
    pub(super) embd_by_layer: Room<f32>, // [n, n_layers P] the same
    pub(super) gate: Room<f32>,          // [n, F]
    pub(super) up: Room<f32>,            // [n, F]
    pub(super) quant: Room<XBlock>,      // [n, widest / 32]
    pub(super) angles: Room<(f32, f32)>, // [ropes, n, n_rot / 2]
    pub(super) routed: Routed,           // see `experts`
    pub(super) mixing: Mixing,           // see `recurrent`
    pub(super) partials: Room<f32>,      // see `attend`
    pub(super) logits: Room<f32>,        // [rows wanted, n_vocab] where more than one is wanted
    pub(super) pages: Vec<PageAddress>,  // of all chunks, one after the other, of each class by class
}

impl Scratch {
    /// Nothing yet; what grows is a host's, if there is one.
    pub(super) fn new(memory: Option<&Arc<dyn HostMemory>>) -> Scratch {
        fn room<T: super::room::Plain>(memory: Option<&Arc<dyn HostMemory>>) -> Room<T> {
            Room::new(memory, MemoryKind::Work)
        }
        Scratch {
            x: room(memory),
            h: room(memory),
            aside: room(memory),
            q: room(memory),
            k: room(memory),
            v: room(memory),
            mix: room(memory),
            heads: room(memory),
            ranks: room(memory),
            by_layer: room(memory),
            embd_by_layer: room(memory),
            gate: room(memory),
            up: room(memory),
            quant: room(memory),
            angles: room(memory),
            routed: Routed::new(memory),
            mixing: Mixing::new(memory),
            partials: room(memory),
            logits: room(memory),
            pages: Vec::new(),
        }
    }
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
    /// Its pages in `Scratch::pages`: where those of the first class begin, and how many each class has.
    pub(super) pages: (usize, usize),
    /// Which of the ropes turn it.
    pub(super) is_long: bool,
    /// The state of its sequence before it, and behind it; none where the model has none.
    pub(super) state: (PageAddress, PageAddress),
    /// See [`Chunk::keeps_cache`].
    pub(super) keeps_cache: bool,
}

impl Piece {
    /// Tokens.
    pub(super) fn len(&self) -> usize {
        self.to - self.from
    }

    /// Its pages of a class in `Scratch::pages`.
    pub(super) fn pages_of(&self, class: usize) -> Range<usize> {
        let from = self.pages.0 + class * self.pages.1;
        from..from + self.pages.1
    }
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
        let f = most.ffn.max(c.per_layer.map_or(0, |per_layer| per_layer.width));
        let (d, h, g) = (c.n_embd, most.q, most.kv);
        let mix = h.max(most.latent).max(most.mix_out);
        let widest = d.max(mix).max(f);
        for (v, len) in [
            (&mut s.x, n * d),
            (&mut s.h, n * d),
            (&mut s.aside, n * d),
            (&mut s.q, n * h),
            (&mut s.k, n * g),
            (&mut s.v, n * g),
            (&mut s.mix, n * mix),
            (&mut s.heads, n * most.latent),
            (&mut s.ranks, n * most.latent),
            (&mut s.by_layer, n * most.per_layer),
            (&mut s.embd_by_layer, n * most.per_layer),
            (&mut s.gate, n * f),
            (&mut s.up, n * f),
        ] {
            v.sized(len)?;
        }
        s.quant.sized(n * widest.div_ceil(32))?;
        s.angles.sized(self.ropes.len() * n * most.pairs)?;
        s.mixing.size(&most, d, n)?;

        self.embed(s, chunks, pieces, n);
        tap(run, pieces, "embed", -1, d, &s.x);
        self.begin_per_layer(turn, s, n)?;
        for (index, layer) in self.layers.iter().enumerate() {
            if run.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let (tag, block) = (index as i32, c.layers[index].block);
            if c.layers[index].has_mixer() {
                self.mix(turn, s, index, pieces, run)?;
                let post = layer.post_attn_norm.as_deref();
                match block {
                    Block::Sequential => self.residual(turn, s, post, block, n)?,
                    Block::Parallel => self.set_aside(turn, s, post, n)?,
                }
            }
            if c.layers[index].has_ffn() {
                let shared = layer.attn_norm.as_ref().filter(|_| block == Block::Parallel);
                self.norm(turn, &s.x, layer.ffn_norm.as_ref().or(shared), &mut s.h, n)?;
                tap(run, pieces, "ffn_norm", tag, d, &s.h);
                self.ffn(turn, s, index, pieces, run)?;
                tap(run, pieces, "ffn_out", tag, d, &s.h);
                self.residual(turn, s, layer.post_ffn_norm.as_deref(), block, n)?;
            }
            self.end_layer(turn, s, index, n)?;
            tap(run, pieces, "resid", tag, d, &s.x);
        }
        self.output(turn, s, chunks, pieces, run)
    }

    /// `h` is what a layer's mixers make of the stream.
    fn mix(
        &self,
        turn: &Turn<'_>,
        s: &mut Scratch,
        index: usize,
        pieces: &[Piece],
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        let (layer, n, d) = (&self.config.layers[index], pieces.iter().map(|p| p.len()).sum(), self.config.n_embd);
        self.norm(turn, &s.x, self.layers[index].attn_norm.as_ref(), &mut s.h, n)?;
        tap(run, pieces, "attn_norm", index as i32, d, &s.h);
        let Mixer::Attention(attention) = layer.mixer;
        if let Some(mixer) = &layer.recurrent {
            self.recurrent(turn, s, mixer, index, pieces, run)?;
        }
        if attention.is_there() {
            self.attention(turn, s, &attention, index, pieces, run)?;
        }
        self.add_mixers(turn, s, index, n)?;
        tap(run, pieces, "attn_out", index as i32, d, &s.h);
        Ok(())
    }

    /// The tokens' rows into the stream, and the angles of their positions.
    fn embed(&self, s: &mut Scratch, chunks: &[Chunk<'_>], pieces: &[Piece], n: usize) {
        let (c, d, half) = (&self.config, self.config.n_embd, self.config.widths().pairs);
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
                if let Some(per_layer) = &self.per_layer {
                    let width = per_layer.embd.cols;
                    per_layer.embd.row(token, &mut s.embd_by_layer[row * width..][..width]);
                }
                let position = p.start + i - p.from;
                #[cfg(any(test, feature = "faults"))]
                let position = self.fault.position(position, chunks[p.chunk].tokens.len());
                let ropes = if p.is_long { &self.long_ropes } else { &self.ropes };
                for (r, rope) in ropes.iter().enumerate() {
                    rope.fill(position, &mut s.angles[(r * n + row) * half..][..rope.inverse.len()]);
                }
            }
        }
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
