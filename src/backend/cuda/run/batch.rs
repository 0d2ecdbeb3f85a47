//! One step of several sequences: where it works, and graphs of its launches.

use std::collections::HashMap;
use std::sync::Arc;

use super::internal;
use crate::backend::cuda::driver::{Address, Gpu, Graph, Stream};
use crate::backend::cuda::kernels::abi::State;
use crate::backend::cuda::kernels::launch::Queue;
use crate::backend::cuda::plan::geometry::Tuning;
use crate::backend::cuda::plan::limits::stride;
use crate::backend::cuda::plan::limits::{ATTEND_CHUNK, MOST_SEQUENCES};
use crate::backend::cuda::plan::lower_batch::{Launch, Run, lower};
use crate::backend::cuda::plan::lower_step::Target;
use crate::backend::cuda::plan::op::Op;
use crate::backend::cuda::plan::split::AttentionSplit;
use crate::backend::cuda::plan::workspace::Workspace;
use crate::error::Result;
use crate::model::Config;

/// The working memory of steps of several sequences, and their graphs: by how many there are, whether they leave logits, and how
/// the attention is split.
pub struct Batch {
    /// Vectors of as many rows as there are sequences.
    pub work: Workspace,
    graphs: HashMap<(usize, bool, AttentionSplit), Graph>,
}

/// What launches are made of and for.
#[derive(Clone, Copy)]
pub struct Making<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// The model.
    pub config: &'a Config,
    /// Choices for measurements.
    pub tuning: &'a Tuning,
    /// The queue.
    pub stream: &'a Stream,
}

impl Batch {
    /// For up to `rows` sequences.
    pub fn new(gpu: &Arc<Gpu>, config: &Config, rows: usize, stream: &Stream) -> Result<Batch> {
        Ok(Batch { work: Workspace::new(gpu, config, 1, rows, stream)?, graphs: HashMap::new() })
    }

    /// Makes room for attention that is cut so.
    pub fn grow(&mut self, gpu: &Arc<Gpu>, chunks: u32, stream: &Stream) -> Result<()> {
        if chunks <= self.work.max_chunks() {
            return Ok(());
        }
        stream.wait()?;
        self.work.grow(gpu, (chunks * ATTEND_CHUNK) as usize)?;
        self.graphs.clear();
        Ok(())
    }

    /// Puts the states where the launches read them.
    pub fn put_states(&self, states: &[State], stream: &Stream) -> Result<()> {
        if states.len() > self.work.rows as usize {
            return internal("more states than rows");
        }
        // SAFETY: there are `rows` states in the workspace; pageable memory is staged before this returns.
        unsafe { stream.upload(self.work.state, states.as_ptr().cast(), size_of_val(states)) }
    }

    /// The launches of these operations for `n` sequences.
    pub fn launches(&self, making: Making<'_>, ops: &[Op], n: usize) -> Vec<Launch> {
        let Making { gpu, config, tuning, .. } = making;
        lower(Target { gpu, config, tuning, work: &self.work }, ops, n as u32)
    }

    /// Queues these operations, with logits or without, for the sequences with these states.
    pub fn queue(
        &mut self,
        making: Making<'_>,
        ops: &[Op],
        states: &[State],
        logits: bool,
        split: AttentionSplit,
    ) -> Result<()> {
        let stream = making.stream;
        self.put_states(states, stream)?;
        let key = (states.len(), logits, split);
        if let Some(graph) = self.graphs.get(&key) {
            return graph.launch(stream);
        }
        // Of batches that shrink and grow there may be many.
        if self.graphs.len() >= 2 * MOST_SEQUENCES {
            stream.wait()?;
            self.graphs.clear();
        }
        let launches = self.launches(making, ops, states.len());
        let graph = self.capture(making, &launches, states.len(), split)?;
        graph.launch(stream)?;
        self.graphs.insert(key, graph);
        Ok(())
    }

    /// A graph of these launches.
    pub fn capture(&self, making: Making<'_>, launches: &[Launch], n: usize, split: AttentionSplit) -> Result<Graph> {
        making
            .stream
            .capture(|| launches.iter().try_for_each(|l| self.launch(making, l, n as u32, split, making.tuning.pdl)))
    }

    /// Queues what follows the body alone, whose input are these residual streams of `n_embd` elements, one for each state.
    pub fn queue_head(&self, making: Making<'_>, head: &[Op], states: &[State], streams: &[Address]) -> Result<()> {
        let Making { config, stream, .. } = making;
        self.put_states(states, stream)?;
        let bytes = config.n_embd * 4;
        for (i, from) in streams.iter().enumerate() {
            let to = self.work.x[0] + (i * stride(config.n_embd) * 4) as u64;
            // SAFETY: a row of the workspace, which put_states has found to be there, and the caller's.
            unsafe { stream.copy(to, *from, bytes)? };
        }
        let launches = self.launches(making, head, states.len());
        let n = states.len() as u32;
        launches.iter().try_for_each(|l| self.launch(making, l, n, AttentionSplit::NONE, false))
    }

    fn launch(&self, making: Making<'_>, launch: &Launch, n_seq: u32, split: AttentionSplit, pdl: bool) -> Result<()> {
        let Making { gpu, stream, .. } = making;
        let (state, queue) = (self.work.state, Queue::new(gpu, stream));
        let dependent = queue.dependent(pdl);
        match &launch.run {
            // Never a dependent launch: see step.rs.
            Run::Embed { mat, scale, x, stride } => queue.embed(mat, state, n_seq, *scale, *x, *stride),
            Run::Norm { stage, out, threads } => dependent.batch_norm(stage, *out, *threads),
            Run::Pieces(stage) => dependent.stage_input(stage),
            Run::Quantized { stage, ty, groups } => dependent.q_batch(stage, *ty, *groups),
            Run::Rows { stage, ty, at_once, threads } => dependent.gemv_batch(stage, *ty, *at_once, *threads),
            Run::Wide { stage, wide: w } => dependent.f16_batch(stage, w.nt, w.ks, w.groups, w.two),
            Run::Tiles { stage, nt } => dependent.f16_mma_batch(stage, *nt),
            Run::Parts { stage, nt, warps } => dependent.f16_mma_split(stage, *nt, *warps),
            Run::Attend(attend) => dependent.decode_attention(attend, split.chunks, split.rep),
            Run::Between(call) => call.launch(&dependent),
        }
    }
}
