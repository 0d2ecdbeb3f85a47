//! A step of one token: its launches, and graphs of them.

use std::collections::HashMap;

use super::tap::TapReader;
use crate::backend::cuda::driver::{Address, Gpu, Graph, Stream};
use crate::backend::cuda::kernels::launch as ffi;
use crate::backend::cuda::plan::geometry::{By, Shape};
use crate::backend::cuda::plan::lower_batch;
use crate::backend::cuda::plan::lower_step::{Launch, Run, Target, lower};
use crate::backend::cuda::plan::op::{Kind, Op};
use crate::backend::cuda::plan::split::AttentionSplit;
use crate::backend::cuda::plan::workspace::Workspace;
use crate::error::Result;

/// Which launches a graph holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// The token goes into the cache.
    Cache,
    /// And leaves logits.
    Logits,
    /// The likeliest token is chosen from the slot's logits, then goes the same way.
    Choose,
    /// A token is drawn at a temperature, then goes the same way.
    Draw,
}

/// The launches of a step, for one workspace, and the graphs that were captured of them.
pub struct Steps {
    /// What is launched for a step that leaves logits.
    pub launches: Vec<Launch>,
    /// Whether a step of several sequences can do these.
    pub can_batch: bool,
    graphs: HashMap<(Pass, AttentionSplit), Graph>,
}

impl Steps {
    /// The steps of these operations.
    pub fn new(target: Target<'_>, ops: &[Op]) -> Steps {
        let launches = lower(target, ops, false);
        Steps { can_batch: lower_batch::can(&launches), launches, graphs: HashMap::new() }
    }

    /// Those that a pass has.
    fn of(&self, pass: Pass) -> impl Iterator<Item = &Launch> {
        self.launches.iter().filter(move |l| pass != Pass::Cache || l.kind != Kind::Logits)
    }

    /// Queues the graph of a pass; `choose` queues what stands before the launches, when the graph is captured.
    pub fn queue(&mut self, on: &Launcher<'_>, pass: Pass, choose: impl FnOnce() -> Result<()>) -> Result<()> {
        if let Some(graph) = self.graphs.get(&(pass, on.split)) {
            return graph.launch(on.stream);
        }
        let graph = on.stream.capture(|| {
            choose()?;
            self.of(pass).try_for_each(|launch| on.launch(launch))
        })?;
        graph.launch(on.stream)?;
        self.graphs.insert((pass, on.split), graph);
        Ok(())
    }
}

/// Where launches go.
pub struct Launcher<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// The buffers that the launches were made for.
    pub work: &'a Workspace,
    /// How the attention is split.
    pub split: AttentionSplit,
    /// Each as a dependent of the launch before.
    pub pdl: bool,
    /// The queue.
    pub stream: &'a Stream,
}

impl Launcher<'_> {
    /// Queues one launch.
    pub fn launch(&self, launch: &Launch) -> Result<()> {
        let (pdl, raw) = (i32::from(self.pdl && self.gpu.major >= 9), self.stream.raw());
        let (state, split) = (self.work.state, self.split);
        // SAFETY: the addresses are the model's weights and workspace, which outlive the stream's work; the shapes are
        // those the layout and the workspace were made for.
        let code = unsafe {
            match &launch.run {
                // Never a dependent launch: the attention reads the state and the cache before it waits, which is right only
                // because nothing of this step starts before the choice of its token is complete.
                Run::Embed { mat, scale, x } => ffi::kgc_embed(mat, state, 1, *scale, *x, 0, 0, raw),
                Run::Stage { stage, by, shape: Shape { threads, streams, deep, .. } } => {
                    let (n, t, deep) = (*streams, *threads, i32::from(*deep));
                    match by {
                        By::Tiles => ffi::kgc_tile(stage, deep, pdl, raw),
                        By::Rows(ty) if ty.is_float() => ffi::kgc_stage_float(stage, *ty, n, t, deep, pdl, raw),
                        By::Rows(ty) if ty.is_q32() => ffi::kgc_stage_q32(stage, *ty, n, t, deep, pdl, raw),
                        By::Rows(ty) => ffi::kgc_stage_k256(stage, *ty, n, t, deep, pdl, raw),
                        By::Mixed => ffi::kgc_stage_mixed(stage, n, t, pdl, raw),
                    }
                }
                Run::Attend(attend) => {
                    let attend = crate::backend::cuda::kernels::abi::Attend { chunk: split.chunk, ..*attend };
                    ffi::kgc_attend(&attend, split.chunks, split.rep, pdl, raw)
                }
                Run::Glu(g) => ffi::kgc_glu(g.gate, g.up, g.out, g.n, g.activation, raw),
                Run::Finish { norm, from } => {
                    self.stream.copy(norm.x, *from, norm.dim as usize * 4)?;
                    ffi::kgc_prefill_norm(norm, raw)
                }
            }
        };
        self.gpu.check(code)
    }

    /// Queues launches that were made to be watched, and shows what is wanted of each; `logits`: the sequence's.
    pub fn launch_watched(&self, launches: &[Launch], logits: Address, eye: &mut TapReader<'_, '_>) -> Result<()> {
        for launch in launches {
            self.launch(launch)?;
            for show in &launch.shows {
                let from = if show.from == 0 { logits } else { show.from };
                eye.floats(show.name, show.layer, from, show.cols, show.cols)?;
            }
        }
        Ok(())
    }
}
