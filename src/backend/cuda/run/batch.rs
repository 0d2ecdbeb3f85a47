//! One step of several sequences: the weights are read once for up to 32 of them.
//!
//! The launches are those of a token alone (program.rs), made for rows of vectors; the norms, which there every block
//! recomputes, are a launch of their own. Invariant: a sequence's bits are those it gets alone, since every sum has the
//! same order; that order comes from the shape of the single stage (its threads for norms, its split for products).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::backend::cuda::driver::Address;
use crate::backend::cuda::driver::{Event, Gpu, Graph, Stream};
use crate::backend::cuda::kernels::abi::{Attend, Mat, Stage, State};
use crate::backend::cuda::kernels::launch as ffi;
use crate::backend::cuda::kernels::packed::Packed;
use crate::backend::cuda::plan::f16_batch::{self as wide, Wide};
use crate::backend::cuda::plan::program::{
    self, ATTEND_CHUNK, By, Cut, Kind, LONG_CHUNK, LONG_FROM, Op, Run, Shape, Tuning, share,
};
use crate::backend::cuda::plan::q_batch::{self as ints, Input};
use crate::backend::cuda::plan::workspace::{Workspace, stride};
use crate::backend::cuda::run::loaded::{CudaModel, CudaSlot, Exec, Pass, internal, slot_of};
use crate::backend::cuda::run::pipeline::AHEAD;
use crate::backend::cuda::run::sample as choice;
use crate::backend::cuda::weights::layout::DeviceWeights;
use crate::backend::{Chunk, RunControl, Want};
use crate::error::{Error, Result};
use crate::model::Config;

/// Sequences of one step.
pub(crate) const MOST_SEQUENCES: usize = 64;

/// The stages of several sequences, and where they work.
pub struct Batch {
    pub(crate) work: Workspace,
    steps: Vec<Step>,
    graphs: HashMap<(usize, bool, Cut), Graph>,
}

/// A launch.
struct Step {
    kind: Kind,
    run: Launch,
}

#[allow(clippy::large_enum_variant)] // there is one list of a few hundred
enum Launch {
    Embed {
        mat: Mat,
        scale: f32,
        stride: u32,
    },
    Norm {
        stage: Stage,
        threads: u32,
        /// Of the stage of tiles that follows.
        rows: Vec<u32>,
        /// Of the quantized matrices that follow.
        ints: Option<Input>,
    },
    Stage {
        stage: Stage,
        mats: Vec<Mat>,
        pair: bool,
        shape: Shape,
        ints: Option<Input>,
    },
    /// The input of quantized matrices that no norm stands before.
    Ints {
        stage: Stage,
        input: Input,
    },
    Tiles {
        stage: Stage,
        rows: Vec<u32>,
        per_sm: u32,
    },
    /// Leaves its parts for the next norm to sum.
    Parts {
        stage: Stage,
    },
    Attend(Attend),
    Glu {
        gate: u64,
        up: u64,
        out: u64,
        stride: u32,
        activation: u32,
    },
}

/// Whether two sequences of every stage fit into shared memory.
pub(crate) fn can(ops: &[Op]) -> bool {
    ops.iter().all(|op| match &op.run {
        Run::Stage { stage, by: By::Tiles, .. } if sums_later(op.kind) => {
            // SAFETY: numbers in and out.
            unsafe { ffi::kgc_tile_split_most(stage.n, stage.ks) > 0 }
        }
        Run::Stage { stage, by: By::Tiles, .. } => most_tiles(stage) > 0,
        Run::Stage { stage, .. } => {
            (0..stage.n_seg as usize).all(|i| at_once(stage.n, stage.m[i].ty, MOST_SEQUENCES) > 1)
        }
        _ => true,
    })
}

/// Sequences a block takes, for `n` of them.
fn at_once(columns: u32, ty: Packed, n: usize) -> u32 {
    // SAFETY: numbers in and out.
    let most = unsafe { ffi::kgc_batch_most(columns, i32::from(!ty.is_float())) };
    most.min((n as u32).next_power_of_two())
}

/// Whether a norm follows that can sum the parts of a stage of tiles.
fn sums_later(kind: Kind) -> bool {
    matches!(kind, Kind::Output | Kind::Down)
}

/// Most tiles of 8 sequences a block of a stage of tiles can take.
fn most_tiles(stage: &Stage) -> u32 {
    // SAFETY: numbers in and out.
    unsafe { ffi::kgc_tile_batch_most(stage.n, i32::from(stage.activation != 0), stage.ks) }
}

/// Tiles of 8 sequences a block takes of `n`: 1, 2 or 4.
fn tiles_at_once(n: u32, most: u32) -> u32 {
    n.div_ceil(8).next_power_of_two().min(most)
}

/// The kernel of a stage of tiles behind a norm, and the tiles of 8 sequences that a block of it takes.
fn kernel_of(gpu: &Gpu, stage: &Stage, rows: &[u32], n_seq: u32, tuning: &Tuning, kind: Kind) -> (Option<Wide>, u32) {
    let other = tiles_of_block(gpu, stage, rows, n_seq);
    let tuned = tuning.wide[kind as usize];
    let wide = if tuning.use_wide { Wide::choose(gpu, stage, rows, n_seq, other, tuned) } else { None };
    (wide, wide.map_or(other, |w| w.nt))
}

fn tiles_of_block(gpu: &Gpu, stage: &Stage, rows: &[u32], n_seq: u32) -> u32 {
    // Few rows: rather all of them in one turn, with less input to a block.
    let most = tiles_at_once(n_seq, most_tiles(stage));
    let tiles: u32 = rows.iter().map(|r| r.div_ceil(16)).sum();
    let fits = most > 1 && tiles * n_seq.div_ceil(4 * most) <= 2 * gpu.n_sm;
    if fits { most / 2 } else { most }
}

fn rows_of(stage: &Stage) -> Vec<u32> {
    stage.m[..stage.n_seg as usize].iter().map(|m| m.rows).collect()
}

/// The launches for the rows of `work`, from those of a token alone.
fn make(gpu: &Gpu, config: &Config, ops: Vec<Op>, work: &Workspace) -> Vec<Step> {
    let most = config.widths();
    let (d, h, g) = (config.n_embd, most.q, most.kv);
    let stride = |n| stride(n) as u32;
    let mut steps = Vec::new();
    // Of the stage before, for the next norm: how many parts, and their bias.
    let mut parts = None;
    for op in ops {
        let kind = op.kind;
        let mut push = |run| steps.push(Step { kind, run });
        match op.run {
            Run::Embed { mat, scale, .. } => push(Launch::Embed { mat, scale, stride: stride(d) }),
            Run::Attend(attend) => push(Launch::Attend(Attend {
                chunk: ATTEND_CHUNK,
                qkv_stride: stride(h + 2 * g),
                out_stride: stride(h),
                long_from: LONG_FROM,
                long_chunk: LONG_CHUNK,
                ..attend
            })),
            Run::Glu { gate, up, out, activation, .. } => {
                push(Launch::Glu { gate, up, out, stride: stride(most.ffn), activation });
            }
            Run::Stage { stage, by, shape } => {
                let mut stage = Stage { x_stride: stride(stage.n as usize), ..stage };
                let rows = rows_of(&stage);
                let n_mats = if stage.activation != 0 { 2 } else { stage.n_seg as usize };
                let quantized = stage.m[..n_mats].iter().all(|m| m.ty.is_quantized());
                let ints = (gpu.wide && quantized).then(|| Input::of(&stage, &stage.m[..n_mats], &rows));
                if let (Some(input), 0) = (ints, stage.norm_w) {
                    push(Launch::Ints { stage, input });
                }
                if stage.norm_w != 0 {
                    if by == By::Tiles {
                        stage.split = work.split;
                    }
                    if let Some((n_part, part_bias)) = parts.take() {
                        stage = Stage { n_part, part: work.parts, part_bias, ..stage };
                    }
                    push(Launch::Norm { stage, threads: shape.threads, rows: rows.clone(), ints });
                    stage = Stage { n_part: 0, part: 0, part_bias: 0, ..stage };
                    stage = Stage { x: work.normed, delta: 0, post_w: 0, norm_w: 0, x_out: 0, ..stage };
                }
                stage.out_stride = match kind {
                    Kind::Qkv => stride(h + 2 * g),
                    Kind::GateUp | Kind::Up => stride(most.ffn),
                    _ => stride(d),
                };
                let (pair, shape) = (stage.activation != 0, Shape { streams: 4, deep: false, ..shape });
                let mats = |i: usize, n: usize| stage.m[i..i + n].to_vec();
                match by {
                    By::Tiles if sums_later(kind) => {
                        parts = Some((stage.ks, stage.bias[0]));
                        (stage.out[0], stage.bias[0]) = (work.parts, 0);
                        push(Launch::Parts { stage });
                    }
                    By::Tiles => {
                        push(Launch::Tiles { stage, rows, per_sm: shape.per_sm });
                    }
                    By::Rows(_) => {
                        push(Launch::Stage { stage, mats: mats(0, n_mats), pair, shape, ints });
                    }
                    // Matrices of several types, one after another.
                    By::Mixed => {
                        for i in 0..stage.n_seg as usize {
                            let mut one = stage;
                            (one.m[0], one.bias[0], one.out[0]) = (stage.m[i], stage.bias[i], stage.out[i]);
                            push(Launch::Stage { stage: one, mats: mats(i, 1), pair, shape, ints });
                        }
                    }
                }
            }
        }
    }
    steps
}

impl Batch {
    /// For up to `rows` sequences.
    pub(crate) fn new(
        gpu: &Arc<Gpu>,
        config: &Config,
        tuning: &Tuning,
        weights: &DeviceWeights,
        rows: usize,
        stream: &Stream,
    ) -> Result<Batch> {
        let work = Workspace::new(gpu, config, 1, rows, stream)?;
        let steps = make(gpu, config, program::make(gpu, config, tuning, weights, &work), &work);
        Ok(Batch { work, steps, graphs: HashMap::new() })
    }

    /// Makes room for attention that is cut so.
    pub(crate) fn grow(
        &mut self,
        gpu: &Arc<Gpu>,
        config: &Config,
        tuning: &Tuning,
        weights: &DeviceWeights,
        chunks: u32,
        stream: &Stream,
    ) -> Result<()> {
        if chunks <= self.work.max_chunks() {
            return Ok(());
        }
        stream.wait()?;
        self.work.grow(gpu, (chunks * ATTEND_CHUNK) as usize)?;
        self.graphs.clear();
        self.steps = make(gpu, config, program::make(gpu, config, tuning, weights, &self.work), &self.work);
        Ok(())
    }

    pub(crate) fn put_states(&self, states: &[State], stream: &Stream) -> Result<()> {
        if states.len() > self.work.rows as usize {
            return internal("more states than rows");
        }
        // SAFETY: there are `rows` states in the workspace; pageable memory is staged before this returns.
        unsafe { stream.upload(self.work.state, states.as_ptr().cast(), size_of_val(states)) }
    }

    /// Queues one step of the sequences with these states; with `logits`, it leaves logits where the states say.
    pub(crate) fn queue(
        &mut self,
        gpu: &Gpu,
        states: &[State],
        logits: bool,
        tuning: &Tuning,
        cut: Cut,
        stream: &Stream,
    ) -> Result<()> {
        self.put_states(states, stream)?;
        let key = (states.len(), logits, cut);
        if let Some(graph) = self.graphs.get(&key) {
            return graph.launch(stream);
        }
        // Of batches that shrink and grow there may be many.
        if self.graphs.len() >= 2 * MOST_SEQUENCES {
            stream.wait()?;
            self.graphs.clear();
        }
        let graph = stream.capture(|| {
            let mut wanted = self.steps.iter().filter(|s| logits || s.kind != Kind::Logits);
            wanted.try_for_each(|s| s.launch(gpu, &self.work, states.len(), cut, tuning, stream))
        })?;
        graph.launch(stream)?;
        self.graphs.insert(key, graph);
        Ok(())
    }

    /// Queues the last stage alone, whose input are these residual streams of `n_embd` elements, one for each state.
    pub(crate) fn queue_logits(
        &self,
        gpu: &Gpu,
        states: &[State],
        streams: &[Address],
        n_embd: usize,
        tuning: &Tuning,
        stream: &Stream,
    ) -> Result<()> {
        self.put_states(states, stream)?;
        for step in self.steps.iter().filter(|s| s.kind == Kind::Logits) {
            let run = match &step.run {
                Launch::Norm { stage, threads, rows, ints } => {
                    for (i, from) in streams.iter().enumerate() {
                        let to = stage.x + (i * stage.x_stride as usize * 4) as u64;
                        // SAFETY: a row of the workspace, which put_states has found to be there, and the caller's.
                        unsafe { stream.copy(to, *from, n_embd * 4)? };
                    }
                    let alone = Stage { delta: 0, post_w: 0, x_out: 0, n_part: 0, part: 0, part_bias: 0, ..*stage };
                    let (threads, rows, ints) = (*threads, rows.clone(), *ints);
                    &Step { kind: step.kind, run: Launch::Norm { stage: alone, threads, rows, ints } }
                }
                _ => step,
            };
            let tuning = Tuning { pdl: false, ..*tuning };
            run.launch(gpu, &self.work, states.len(), Cut { chunk: 0, chunks: 1, rep: 1 }, &tuning, stream)?;
        }
        Ok(())
    }

    /// The launches of one kind, or all of a step of `n` sequences, and how many they are; for measurements.
    pub(crate) fn part(
        &self,
        gpu: &Gpu,
        kind: Option<Kind>,
        n: usize,
        tuning: &Tuning,
        cut: Cut,
        stream: &Stream,
    ) -> Result<(Graph, usize)> {
        let wanted = || self.steps.iter().filter(|s| kind.is_none_or(|k| k == s.kind));
        let graph = stream.capture(|| wanted().try_for_each(|s| s.launch(gpu, &self.work, n, cut, tuning, stream)))?;
        Ok((graph, wanted().count()))
    }
}

impl CudaModel {
    /// Makes the batch's working memory for `n` sequences, if it is not there.
    pub(crate) fn batch<'a>(&self, exec: &'a mut Exec, n: usize) -> Result<&'a mut Batch> {
        if exec.batch.as_ref().is_none_or(|b| (b.work.rows as usize) < n) {
            exec.stream.wait()?;
            exec.batch = None;
            let rows = n.next_power_of_two();
            exec.batch = Some(Batch::new(&self.gpu, &self.config, &exec.tuning, &self.weights, rows, &exec.stream)?);
        }
        match &mut exec.batch {
            Some(batch) => Ok(batch),
            None => internal("no batch"),
        }
    }

    pub(crate) fn state_of(
        &self,
        slot: &CudaSlot,
        token: u32,
        position: usize,
        produced: usize,
        drawn: State,
    ) -> State {
        let (pages, logits) = slot.addresses();
        let (token, position) = (token as i32, position as i32);
        State { pages, logits, token, position, produced: produced as u32, ..drawn }
    }

    /// Runs the chunks side by side, a token of each at a time, [`MOST_SEQUENCES`] of them in a step.
    pub(crate) fn run_together(
        &self,
        exec: &mut Exec,
        chunks: &mut [&mut Chunk<'_>],
        run: &RunControl<'_>,
    ) -> Result<()> {
        for chunk in &mut *chunks {
            self.check_chunk(chunk.tokens, chunk.start, chunk.pages.len())?;
            let slot = slot_of(chunk.slot)?;
            self.bind_pages(exec, slot, chunk.pages)?;
        }
        let last = chunks.iter().map(|c| c.start + c.tokens.len()).max().unwrap_or(0);
        self.grow(exec, last)?;
        // At the end of the only step, for those who will ask.
        let choose = chunks.len() <= MOST_SEQUENCES && chunks.iter().all(|c| c.tokens.len() == 1);
        let mut mark = None;
        let rounds = chunks.iter().map(|c| c.tokens.len()).max().unwrap_or(0);
        for round in 0..rounds {
            let mut going: Vec<&mut &mut Chunk<'_>> = chunks.iter_mut().filter(|c| round < c.tokens.len()).collect();
            for group in going.chunks_mut(MOST_SEQUENCES) {
                if run.cancel.load(Ordering::Acquire) {
                    return Err(Error::Cancelled);
                }
                self.step_together(exec, group, round, choose)?;
            }
            // Never far ahead, so that a cancel is seen soon.
            if round % AHEAD == AHEAD - 1 {
                let made = mark.is_some();
                let mark = match &mut mark {
                    Some(mark) => mark,
                    none => none.insert(Event::new(&self.gpu, false)?),
                };
                if made {
                    mark.wait()?;
                }
                mark.record(&exec.stream)?;
            }
        }
        Ok(())
    }

    /// One step: token `round` of each.
    fn step_together(
        &self,
        exec: &mut Exec,
        group: &mut [&mut &mut Chunk<'_>],
        round: usize,
        choose: bool,
    ) -> Result<()> {
        let wanted = |c: &Chunk<'_>| c.want == Want::Last && round + 1 == c.tokens.len();
        let logits = group.iter().any(|c| wanted(c));
        if let [chunk] = group {
            let position = chunk.start + round;
            self.set_state(exec, slot_of(chunk.slot)?, chunk.tokens[round], position)?;
            return self.queue(exec, if logits { Pass::Logits } else { Pass::Cache }, position);
        }
        let each = group.iter().map(|c| Cut::at(c.start + round, self.heads.head_dim, &exec.tuning));
        let cut = Cut::among(group.len(), &exec.tuning, each);
        let mut states = Vec::with_capacity(group.len());
        for chunk in group.iter_mut() {
            let position = chunk.start + round;
            let token = chunk.tokens[round];
            states.push(self.state_of(slot_of(chunk.slot)?, token, position, 0, State::default()));
        }
        let chosen = if choose { choice::among(group, &mut states)? } else { None };
        self.batch(exec, group.len())?;
        let Exec { batch: Some(batch), tuning, stream, .. } = exec else { return internal("no batch") };
        batch.grow(&self.gpu, &self.config, tuning, &self.weights, cut.chunks, stream)?;
        batch.queue(&self.gpu, &states, logits, tuning, cut, stream)?;
        chosen.map_or(Ok(()), |greedy| choice::queue(&self.gpu, &batch.work, stream, greedy, states.len()))
    }
}

impl Step {
    fn launch(&self, gpu: &Gpu, work: &Workspace, n: usize, cut: Cut, tuning: &Tuning, stream: &Stream) -> Result<()> {
        let (pdl, raw, n_seq) = (i32::from(tuning.pdl && gpu.major >= 9), stream.raw(), n as u32);
        let kernel_of = |stage, rows| kernel_of(gpu, stage, rows, n_seq, tuning, self.kind);
        let tuned_nt = tuning.wide[self.kind as usize].map(|w| w.nt);
        let ints_there = ints::wanted(n_seq, tuning, tuned_nt);
        let ints_tiles = |input: &Input| input.tiles_of_block(gpu, n_seq, tuned_nt);
        // SAFETY: the addresses are the model's weights and a workspace of at least n rows, which outlive the stream's work;
        // the shapes are those the layout and the workspace were made for.
        let code = unsafe {
            match &self.run {
                // Never a dependent launch: see program.rs.
                Launch::Embed { mat, scale, stride } => {
                    ffi::kgc_embed(mat, work.state, n_seq, *scale, work.x[0], *stride, 0, raw)
                }
                Launch::Norm { stage, threads, rows, ints } => {
                    let mut stage = Stage { n_seq, ..*stage };
                    match ints {
                        Some(input) if ints_there => {
                            let split_nt = ints_tiles(input);
                            stage = Stage { split: work.split, split_nt, split_ints: 1, ..stage };
                        }
                        None if stage.split != 0 => stage.split_nt = kernel_of(&stage, rows).1,
                        _ => {}
                    }
                    ffi::kgc_batch_norm(&stage, work.normed, *threads, pdl, raw)
                }
                Launch::Ints { stage, input } if ints_there => {
                    let split_nt = ints_tiles(input);
                    let stage = Stage { n_seq, split: work.split, split_nt, split_ints: 1, ..*stage };
                    ffi::kgc_ints_split(&stage, pdl, raw)
                }
                Launch::Ints { .. } => 0,
                Launch::Stage { stage, mats, pair, shape, ints: Some(input) } if ints_there => {
                    let (ty, split_nt) = (mats[0].ty, ints_tiles(input));
                    let n_seg = if *pair { 1 } else { mats.len() as u32 };
                    let (split, split_ints, ks) = (work.split, 1, shape.split);
                    let mut stage = Stage { n_seq, split, split_nt, split_ints, ks, n_seg, ..*stage };
                    let (rows, blocks) = (rows_of(&stage), ints::side_by_side(gpu, stage.n, ty, n_seq, split_nt));
                    wide::blocks_of(&mut stage, &rows, blocks);
                    ffi::kgc_ints(&stage, ty, pdl, raw)
                }
                Launch::Stage { stage, mats, pair, shape, .. } => {
                    let (ty, mut stage) = (mats[0].ty, Stage { n_seq, ..*stage });
                    let nb = at_once(stage.n, ty, n);
                    let tiles = n_seq.div_ceil(nb);
                    let shared = ffi::kgc_batch_shared(stage.n, i32::from(!ty.is_float()), nb);
                    let per_sm = (512 / shape.threads).min((gpu.shared_most as u64 / shared) as u32).max(1);
                    share((gpu.n_sm * per_sm).div_ceil(tiles), *shape, mats, *pair, &mut stage);
                    match ty {
                        _ if ty.is_float() => ffi::kgc_batch_float(&stage, ty, nb, shape.threads, pdl, raw),
                        _ if ty.is_q32() => ffi::kgc_batch_q32(&stage, ty, nb, shape.threads, pdl, raw),
                        _ => ffi::kgc_batch_k256(&stage, ty, nb, shape.threads, pdl, raw),
                    }
                }
                Launch::Tiles { stage, rows, per_sm } => {
                    let (wide, nt) = kernel_of(stage, rows);
                    let mut stage = Stage { n_seq, split_nt: nt, ..*stage };
                    if let Some(w) = wide {
                        wide::blocks_of(&mut stage, rows, w.blocks(gpu, n_seq));
                        ffi::kgc_wide(&stage, nt, w.ks, w.groups, i32::from(w.two), pdl, raw)
                    } else {
                        // Wide ones fill a multiprocessor with a block.
                        let per_sm = if nt > 1 { 1 } else { *per_sm };
                        wide::blocks_of(&mut stage, rows, (gpu.n_sm * per_sm).div_ceil(n_seq.div_ceil(8 * nt)));
                        ffi::kgc_tile_batch(&stage, nt, pdl, raw)
                    }
                }
                Launch::Parts { stage } => {
                    // What a block reads of its sequences' inputs takes longer than the weights: as few sequences as leave
                    // the multiprocessors a block each, and many rows for what has been read.
                    let most = tiles_at_once(n_seq, ffi::kgc_tile_split_most(stage.n, stage.ks));
                    let blocks =
                        |nt: u32, warps: u32| n_seq.div_ceil(8 * nt) * stage.m[0].rows.div_ceil(16 * warps) * stage.ks;
                    let nt = if most > 1 && blocks(most / 2, 16) <= gpu.n_sm { most / 2 } else { most };
                    let warps = if blocks(nt, 8) <= gpu.n_sm { 8 } else { 16 };
                    // As many rows for each block.
                    let tiles = stage.m[0].rows.div_ceil(16);
                    let warps = tiles.div_ceil(tiles.div_ceil(warps));
                    ffi::kgc_tile_split(&Stage { n_seq, ..*stage }, nt, warps, pdl, raw)
                }
                Launch::Attend(attend) => ffi::kgc_attend(&Attend { n_seq, ..*attend }, cut.chunks, cut.rep, pdl, raw),
                Launch::Glu { gate, up, out, stride, activation } => {
                    ffi::kgc_glu(*gate, *up, *out, stride * n_seq, *activation, raw)
                }
            }
        };
        gpu.check(code)
    }
}
