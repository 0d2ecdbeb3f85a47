//! A step of one token: its launches, and graphs of them.

use std::collections::HashMap;

use super::tap::TapReader;
use crate::backend::cuda::driver::{Address, Gpu, Graph, Stream};
use crate::backend::cuda::kernels::abi::Attend;
use crate::backend::cuda::kernels::launch::Queue;
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
        let (state, split, queue) = (self.work.state, self.split, Queue::new(self.gpu, self.stream));
        let dependent = queue.dependent(self.pdl);
        match &launch.run {
            // Never a dependent launch: the attention reads the state and the cache before it waits, which is right only
            // because nothing of this step starts before the choice of its token is complete.
            Run::Embed { mat, scale, x } => queue.embed(mat, state, 1, *scale, *x, 0),
            Run::Stage { stage, by, shape: Shape { threads, streams, deep, .. } } => match by {
                By::Tiles => dependent.f16_mma(stage, *deep),
                By::Rows(ty) => dependent.gemv(stage, *ty, *streams, *threads, *deep),
                By::Mixed => dependent.gemv_mixed(stage, *streams, *threads),
            },
            Run::Attend(attend) => {
                let attend = Attend { chunk: split.chunk, ..*attend };
                dependent.decode_attention(&attend, split.chunks, split.rep)
            }
            Run::Between(call) => call.launch(&dependent),
        }
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
