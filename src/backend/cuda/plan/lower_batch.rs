//! One step of several sequences as a list of launches: the weights are read once for up to 64 of them.
//!
//! The norms, which every block of a lone token's stage recomputes, are launches of their own. Where some of a lone token's are that
//! too, the parts of products are summed before. Invariant: a sequence's bits are
//! those it gets alone, since every sum has the same order; that order comes from the stage of a token alone (`stage.rs`: its
//! threads for norms, its split for products).

use super::experts::Call;
use super::f16_batch::{self, Wide};
use super::geometry::{By, Shape, Tuning, share};
use super::limits::{ATTEND_CHUNK, LONG_CHUNK, LONG_FROM, MOST_SEQUENCES, stride};
use super::lower_step::{self, Target};
use super::op::{Kind, Op, What};
use super::q_batch::{self, Input};
use super::stage::{Placed, Stages};
use crate::backend::cuda::driver::{Address, Gpu};
use crate::backend::cuda::kernels::abi::{Attend, Mat, Stage};
use crate::backend::cuda::kernels::launch::{self, Between, Parts};
use crate::backend::cuda::kernels::packed::Packed;

/// One launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What it is; norms count as what they stand before.
    pub kind: Kind,
    /// How to run it.
    pub run: Run,
}

/// A launch's arguments.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, missing_docs)] // there is one list of a few hundred
pub enum Run {
    Embed {
        mat: Mat,
        scale: f32,
        x: Address,
        stride: u32,
    },
    /// The norms of all rows, to `out` and, where the stage says so, in the pieces that the next product reads.
    Norm {
        stage: Stage,
        out: Address,
        threads: u32,
    },
    /// An input that no norm stands before, in pieces.
    Pieces(Stage),
    /// Quantized rows on tensor cores, `groups` of 32 at once.
    Quantized {
        stage: Stage,
        ty: Packed,
        groups: u32,
    },
    /// Rows of vectors, `at_once` sequences a block.
    Rows {
        stage: Stage,
        ty: Packed,
        at_once: u32,
        threads: u32,
    },
    /// Tiles of F16, many sequences a block.
    Wide {
        stage: Stage,
        wide: Wide,
    },
    /// Tiles of F16, `nt` tiles of eight sequences a block.
    Tiles {
        stage: Stage,
        nt: u32,
    },
    /// The same, whose parts the next norm sums.
    Parts {
        stage: Stage,
        nt: u32,
        warps: u32,
    },
    Attend(Attend),
    Between(Between),
}

/// Whether two sequences of every stage of these launches of a token alone fit into shared memory.
pub fn can(alone: &[lower_step::Launch]) -> bool {
    alone.iter().all(|launch| match &launch.run {
        lower_step::Run::Stage { stage, by: By::Tiles, .. } if sums_later(launch.kind) => {
            launch::f16_mma_split_most(stage.n, stage.ks) > 0
        }
        lower_step::Run::Stage { stage, by: By::Tiles, .. } => most_tiles(stage) > 0,
        lower_step::Run::Stage { stage, .. } => {
            (0..stage.n_seg as usize).all(|i| at_once(stage.n, stage.m[i].ty, MOST_SEQUENCES as u32) > 1)
        }
        _ => true,
    })
}

/// The launches of these operations, for `n_seq` sequences.
pub fn lower(target: Target<'_>, ops: &[Op], n_seq: u32) -> Vec<Launch> {
    let Target { gpu, config, tuning, work } = target;
    let row = |n: usize| stride(n) as u32;
    let mut stages = Stages::new(gpu, config, tuning, work, n_seq);
    let apart = ops.iter().any(|op| matches!(op.what, What::Norm(_) | What::QkNorm(_)));
    let mut lowering = Lowering { target, n_seq, apart, parts: None, launches: Vec::with_capacity(2 * ops.len()) };
    for op in ops {
        match &op.what {
            What::Embed { table, scale } => {
                let run = Run::Embed { mat: *table, scale: *scale, x: work.x[0], stride: row(config.n_embd) };
                lowering.push(Kind::Embed, run);
            }
            What::Norm(n) => {
                if let Some(norm) = stages.norm(n) {
                    lowering.push(n.kind, Run::Between(Between::Norm(norm)));
                }
            }
            What::ByLayer(by_layer) => {
                let (x, stride) = stages.embeddings(by_layer);
                lowering.push(Kind::Embed, Run::Embed { mat: by_layer.table, scale: by_layer.scale, x, stride });
                lowering.calls(stages.between(&op.what));
            }
            What::Project(p) => {
                let rows: u32 = p.mats.iter().map(|m| m.rows).sum();
                lowering.product(stages.project(p), row(rows as usize));
            }
            What::Attend(a) => {
                let attend = Attend {
                    chunk: ATTEND_CHUNK,
                    n_seq,
                    qkv_stride: row(a.attention.q_width() + a.attention.kept()),
                    out_stride: row(a.attention.q_width()),
                    long_from: LONG_FROM,
                    long_chunk: LONG_CHUNK,
                    ..stages.attend(a)
                };
                lowering.push(Kind::Attend, Run::Attend(attend));
            }
            What::Gate(g) => {
                let (placed, glu) = stages.gate(g);
                lowering.product(placed, row(g.up.rows as usize));
                if let Some(glu) = glu {
                    lowering.push(Kind::Glu, Run::Between(Between::Glu(glu)));
                }
            }
            What::Ffn(part) => lowering.calls(stages.ffn(part, None)),
            // Nobody watches a batch.
            What::Finish { .. } => {}
            what => lowering.calls(stages.between(what)),
        }
    }
    lowering.launches
}

struct Lowering<'a> {
    target: Target<'a>,
    n_seq: u32,
    /// Whether norms are launches of a lone token too, which sum no parts.
    apart: bool,
    /// What the product before left for the next norm: how many parts, and their bias.
    parts: Option<(u32, Address)>,
    launches: Vec<Launch>,
}

impl Lowering<'_> {
    fn push(&mut self, kind: Kind, run: Run) {
        self.launches.push(Launch { kind, run });
    }

    /// Launches between products.
    fn calls(&mut self, calls: Vec<Call>) {
        calls.into_iter().for_each(|call| self.push(call.kind, Run::Between(call.run)));
    }

    /// The norm or the pieces of the input, and the product.
    fn product(&mut self, placed: Placed, out_stride: u32) {
        let Target { gpu, tuning, work, .. } = self.target;
        let (kind, n_seq) = (placed.kind, self.n_seq);
        let alone = placed.stage;
        let rows: Vec<u32> = alone.m[..alone.n_seg as usize].iter().map(|m| m.rows).collect();
        let all = Stage { n_seq, x_stride: stride(alone.n as usize) as u32, ..alone };
        let tuned_nt = tuning.wide[kind as usize].map(|w| w.nt);
        let in_parts = sums_later(kind);
        let pieces = Pieces::of(gpu, &placed, &rows, n_seq, tuning, tuned_nt);
        let in_pieces = |nt: u32| Stage { split: work.split, split_nt: nt, split_ints: 1, ..all };
        let mut stage = Stage { out_stride, ..all };
        if alone.norm_w != 0 {
            let mut norm = match pieces {
                Pieces::Here { nt } => in_pieces(nt),
                // Space for them is named, and not used.
                _ if placed.by == By::Tiles => Stage { split: work.split, ..all },
                _ => all,
            };
            if placed.by == By::Tiles && matches!(pieces, Pieces::Never) {
                norm.split_nt = self.tiles_of(&norm, &rows, kind).1;
            }
            if let Some((n_part, part_bias)) = self.parts.take() {
                norm = Stage { n_part, part: work.parts, part_bias, ..norm };
            }
            self.push(kind, Run::Norm { stage: norm, out: work.normed, threads: placed.shape.threads });
            stage = Stage { x: work.normed, delta: 0, post_w: 0, norm_w: 0, x_out: 0, ..stage };
            if placed.by == By::Tiles {
                stage.split = work.split;
            }
        } else if let Pieces::Here { nt } = pieces {
            self.push(kind, Run::Pieces(in_pieces(nt)));
        } else if placed.by == By::Tiles && !in_parts {
            stage.split = work.split;
            let split_nt = self.tiles_of(&stage, &rows, kind).1;
            self.push(kind, Run::Pieces(Stage { split: work.split, split_nt, ..all }));
        }
        match placed.by {
            By::Tiles if in_parts => self.tiles_in_parts(kind, stage),
            By::Tiles => self.tiles(kind, stage, &rows, placed.shape),
            By::Rows(_) => self.rows(kind, stage, &placed.mats, placed.pair, placed.shape, pieces),
            // Matrices of several types, one type after another.
            By::Mixed => {
                let mut left: Vec<usize> = (0..alone.n_seg as usize).collect();
                while let Some(ty) = left.first().map(|i| alone.m[*i].ty) {
                    let of_type: Vec<usize> = left.extract_if(.., |i| alone.m[*i].ty == ty).collect();
                    let mut one = stage;
                    for (to, &i) in of_type.iter().enumerate() {
                        (one.m[to], one.bias[to], one.out[to]) = (stage.m[i], stage.bias[i], stage.out[i]);
                    }
                    let mats: Vec<Mat> = of_type.iter().map(|i| placed.mats[*i]).collect();
                    self.rows(kind, one, &mats, placed.pair, placed.shape, pieces);
                }
            }
        }
    }

    /// The kernel of a stage of tiles behind a norm, and the tiles of 8 sequences that a block of it takes.
    fn tiles_of(&self, stage: &Stage, rows: &[u32], kind: Kind) -> (Option<Wide>, u32) {
        let Target { gpu, tuning, .. } = self.target;
        let other = tiles_of_block(gpu, stage, rows, self.n_seq);
        let tuned = tuning.wide[kind as usize];
        let wide = tuning.use_wide.then(|| Wide::choose(gpu, stage, rows, self.n_seq, other, tuned)).flatten();
        (wide, wide.map_or(other, |w| w.nt))
    }

    fn tiles(&mut self, kind: Kind, stage: Stage, rows: &[u32], shape: Shape) {
        let (gpu, n_seq) = (self.target.gpu, self.n_seq);
        let (wide, nt) = self.tiles_of(&stage, rows, kind);
        let mut stage = Stage { split_nt: nt, ..stage };
        if let Some(wide) = wide {
            f16_batch::blocks_of(&mut stage, rows, wide.blocks(gpu, n_seq));
            return self.push(kind, Run::Wide { stage, wide });
        }
        // Wide ones fill a multiprocessor with a block.
        let per_sm = if nt > 1 { 1 } else { shape.per_sm };
        f16_batch::blocks_of(&mut stage, rows, (gpu.n_sm * per_sm).div_ceil(n_seq.div_ceil(8 * nt)));
        self.push(kind, Run::Tiles { stage, nt });
    }

    /// Leaves its parts for the next norm to sum.
    fn tiles_in_parts(&mut self, kind: Kind, mut stage: Stage) {
        let (n_sm, n_seq) = (self.target.gpu.n_sm, self.n_seq);
        let (part, [bias, ..], [y, ..]) = (self.target.work.parts, stage.bias, stage.out);
        let sum =
            Parts { part, bias, y, n_part: stage.ks, n_rows: n_seq, n: stage.m[0].rows, stride: stage.out_stride };
        (stage.out[0], stage.bias[0]) = (part, 0);
        // What a block reads of its sequences' inputs takes longer than the weights: as few sequences as leave
        // the multiprocessors a block each, and many rows for what has been read.
        let most = tiles_at_once(n_seq, launch::f16_mma_split_most(stage.n, stage.ks));
        let blocks = |nt: u32, warps: u32| n_seq.div_ceil(8 * nt) * stage.m[0].rows.div_ceil(16 * warps) * stage.ks;
        let nt = if most > 1 && blocks(most / 2, 16) <= n_sm { most / 2 } else { most };
        let warps = if blocks(nt, 8) <= n_sm { 8 } else { 16 };
        // As many rows for each block.
        let tiles = stage.m[0].rows.div_ceil(16);
        let warps = tiles.div_ceil(tiles.div_ceil(warps));
        self.push(kind, Run::Parts { stage, nt, warps });
        if self.apart {
            self.push(kind, Run::Between(Between::Sum(sum)));
        } else {
            self.parts = Some((sum.n_part, bias));
        }
    }

    /// Matrices of one type.
    fn rows(&mut self, kind: Kind, stage: Stage, mats: &[Mat], pair: bool, shape: Shape, pieces: Pieces) {
        let (gpu, n_seq, ty) = (self.target.gpu, self.n_seq, mats[0].ty);
        if let Pieces::Here { nt } = pieces {
            let n_seg = if pair { 1 } else { mats.len() as u32 };
            let (split, ks) = (self.target.work.split, shape.split);
            let mut stage = Stage { split, split_nt: nt, split_ints: 1, ks, n_seg, ..stage };
            let rows: Vec<u32> = stage.m[..n_seg as usize].iter().map(|m| m.rows).collect();
            let (groups, blocks) = Input::of(&stage, &[ty], &rows).cut(gpu, n_seq, nt);
            f16_batch::blocks_of(&mut stage, &rows, blocks);
            return self.push(kind, Run::Quantized { stage, ty, groups });
        }
        let mut stage = stage;
        let at_once = at_once(stage.n, ty, n_seq);
        let shared = launch::gemv_batch_shared(stage.n, !ty.is_float(), at_once);
        let per_sm = (512 / shape.threads).min((gpu.shared_most as u64 / shared) as u32).max(1);
        let shape = Shape { streams: 4, deep: false, ..shape };
        share((gpu.n_sm * per_sm).div_ceil(n_seq.div_ceil(at_once)), shape, mats, pair, &mut stage);
        self.push(kind, Run::Rows { stage, ty, at_once, threads: shape.threads });
    }
}

/// Whether a stage's input is cut into pieces for quantized matrices on tensor cores.
#[derive(Clone, Copy)]
enum Pieces {
    /// Its matrices are none of those.
    Never,
    /// They could be, and are faster otherwise for so few sequences.
    NotNow,
    /// For blocks of so many tiles of eight sequences.
    Here { nt: u32 },
}

impl Pieces {
    fn of(gpu: &Gpu, placed: &Placed, rows: &[u32], n_seq: u32, tuning: &Tuning, tuned_nt: Option<u32>) -> Pieces {
        if !gpu.wide || !placed.mats.iter().all(|m| m.ty.is_quantized()) {
            return Pieces::Never;
        }
        let weights = rows.iter().map(|r| u64::from(*r) * u64::from(placed.stage.n)).sum();
        if !q_batch::wanted(n_seq, weights, tuning, tuned_nt) {
            return Pieces::NotNow;
        }
        let types: Vec<Packed> = placed.mats.iter().map(|m| m.ty).collect();
        let input = Input::of(&placed.stage, &types, rows);
        if !input.fits() {
            return Pieces::Never;
        }
        Pieces::Here { nt: input.tiles_of_block(gpu, n_seq, tuned_nt) }
    }
}

/// Sequences a block takes, for `n` of them.
fn at_once(columns: u32, ty: Packed, n: u32) -> u32 {
    let most = launch::gemv_batch_most(columns, !ty.is_float());
    most.min(n.next_power_of_two())
}

/// Whether a norm follows that can sum the parts of a stage of tiles.
fn sums_later(kind: Kind) -> bool {
    matches!(kind, Kind::Output | Kind::Down)
}

/// Most tiles of 8 sequences a block of a stage of tiles can take.
fn most_tiles(stage: &Stage) -> u32 {
    launch::f16_mma_batch_most(stage.n, stage.activation != 0, stage.ks)
}

/// Tiles of 8 sequences a block takes of `n`: 1, 2 or 4.
fn tiles_at_once(n: u32, most: u32) -> u32 {
    n.div_ceil(8).next_power_of_two().min(most)
}

fn tiles_of_block(gpu: &Gpu, stage: &Stage, rows: &[u32], n_seq: u32) -> u32 {
    // Few rows: rather all of them in one turn, with less input to a block.
    let most = tiles_at_once(n_seq, most_tiles(stage));
    let tiles: u32 = rows.iter().map(|r| r.div_ceil(16)).sum();
    let fits = most > 1 && tiles * n_seq.div_ceil(4 * most) <= 2 * gpu.n_sm;
    if fits { most / 2 } else { most }
}
