//! What a model is on its device ([`Network`]), and what of it one pass at a time has ([`Exec`]).
//!
//! Invariant: graphs refer to the weights, the workspace and the device's own state only, so a slot's addresses reach a step
//! through `State` and no graph belongs to a slot.

use std::sync::Arc;

use super::batch::{Batch, Making};
use super::internal;
use super::pages::Pages;
use super::slot::{CudaSlot, slot_of};
use super::states::{StateAt, States};
use super::step::{Launcher, Steps};
use crate::backend::cuda::driver::{Buffer, Gpu, Stream};
use crate::backend::cuda::kernels::abi::State;
use crate::backend::cuda::kernels::launch::{self, Queue};
use crate::backend::cuda::plan::geometry::Tuning;
use crate::backend::cuda::plan::layer;
use crate::backend::cuda::plan::limits::MOST_ROWS;
use crate::backend::cuda::plan::lower_step::Target;
use crate::backend::cuda::plan::op::Op;
use crate::backend::cuda::plan::prefill_workspace::{self, PrefillWorkspace, two_halves};
use crate::backend::cuda::plan::split::AttentionSplit;
use crate::backend::cuda::plan::tables::Tables;
use crate::backend::cuda::plan::workspace::Workspace;
use crate::backend::cuda::weights::layout::DeviceWeights;
use crate::backend::{Chunk, PAGE_TOKENS};
use crate::error::{Error, Result};
use crate::model::{CacheClasses, Config};

/// Positions the working memory is made for at first.
pub fn first_context(config: &Config) -> usize {
    config.n_ctx_train.clamp(1, 1 << 17)
}

/// A model on its device; nothing of it changes but the number of pages.
pub struct Network {
    /// The device.
    pub gpu: Arc<Gpu>,
    /// The description.
    pub config: Config,
    /// Elements of the widest heads of a layer.
    widest_head: usize,
    /// The cache.
    pub pages: Pages,
    /// The states of its sequences.
    pub states: States,
    /// The body and the head.
    pub ops: Vec<Op>,
    /// The body and what ends it without logits.
    pub headless: Vec<Op>,
    /// How many of `ops` are the head's.
    n_head: usize,
    /// Whether prompts can go through the tensor cores.
    can_prefill: bool,
    /// The most logits that the device draws from.
    pub most_drawn: usize,
}

impl Network {
    /// The network of weights that are on the device, whose cache's pages are divided so.
    pub fn new(gpu: &Arc<Gpu>, config: &Config, classes: CacheClasses, weights: &DeviceWeights) -> Result<Network> {
        // Launchers are asked of the current device.
        gpu.bind()?;
        let body = layer::body(config, &classes, weights);
        let head = layer::head(config, weights);
        let with = |last: &[Op]| body.iter().chain(last).cloned().collect::<Vec<_>>();
        Ok(Network {
            gpu: gpu.clone(),
            config: config.try_clone()?,
            widest_head: config.widths().head,
            pages: Pages::new(gpu, config, classes)?,
            states: States::new(gpu, config),
            can_prefill: prefill_workspace::can(config, &body),
            most_drawn: launch::sample_most() as usize,
            n_head: head.len(),
            ops: with(&head),
            headless: with(&[layer::finish(config)]),
        })
    }

    /// Whether prompts go through the tensor cores, whose bits are others than steps'.
    pub fn computes_rows(&self, tuning: &Tuning) -> bool {
        tuning.prefill && self.can_prefill
    }

    /// From the stream to the logits.
    pub fn head(&self) -> &[Op] {
        &self.ops[self.ops.len() - self.n_head..]
    }

    /// All but the head.
    pub fn body(&self) -> &[Op] {
        &self.ops[..self.ops.len() - self.n_head]
    }

    /// How the attention at a position is split.
    pub fn split_at(&self, position: usize, tuning: &Tuning) -> AttentionSplit {
        AttentionSplit::at(position, self.widest_head, tuning)
    }

    /// Tokens that a pass has room for at first.
    pub fn prompt_rows(&self) -> usize {
        MOST_ROWS.min(first_context(&self.config))
    }

    /// Makes a chunk's slot know its pages, and its state. Fails where the chunk's tokens, its pages or its positions are not.
    pub fn bind<'a>(&self, stream: &Stream, chunk: &'a mut Chunk<'_>) -> Result<&'a mut CudaSlot> {
        let (tokens, start, pages, state) = (chunk.tokens, chunk.start, chunk.pages, chunk.state);
        self.check_chunk(tokens, start, pages.len())?;
        let slot = slot_of(chunk.slot)?;
        slot.state = self.states.of(state)?;
        self.pages.bind(stream, slot, pages, start..start + tokens.len())?;
        Ok(slot)
    }

    /// Fails where a chunk's tokens, its pages or its positions are not.
    pub fn check_chunk(&self, tokens: &[u32], start: usize, n_pages: usize) -> Result<()> {
        let n_vocab = self.config.n_vocab;
        if let Some((index, token)) = tokens.iter().enumerate().find(|(_, t)| **t as usize >= n_vocab) {
            return Err(Error::TokenOutOfRange { index, token: *token, n_vocab });
        }
        if tokens.is_empty()
            || n_pages * PAGE_TOKENS < start + tokens.len()
            || start + tokens.len() > i32::MAX as usize / 2
        {
            return internal("a chunk without tokens or without its pages");
        }
        Ok(())
    }
}

/// What one pass at a time works with.
pub struct Exec {
    /// Launches of a token alone.
    pub steps: Steps,
    /// The working memory of prompts, once there was one.
    pub prefill: Option<PrefillWorkspace>,
    /// Launches and working memory of several sequences, once there were some.
    pub batch: Option<Batch>,
    /// The working memory of a token alone.
    pub work: Workspace,
    /// Logits of which some are banned, and which.
    pub masked: Option<Buffer>,
    /// Choices for measurements.
    pub tuning: Tuning,
    /// Changes whenever the device's `State` stops being that of the call before.
    pub epoch: u64,
    /// Tokens chosen so far: where in the ring the next one goes.
    pub chosen: usize,
    /// The queue.
    pub stream: Stream,
}

impl Exec {
    /// For positions below [`first_context`].
    pub fn new(net: &Network, tuning: Tuning, stream: Stream) -> Result<Exec> {
        let work = Workspace::new(&net.gpu, &net.config, first_context(&net.config), 1, &stream)?;
        stream.wait()?;
        let target = Target { gpu: &net.gpu, config: &net.config, tuning: &tuning, work: &work };
        let steps = Steps::new(target, &net.ops);
        Ok(Exec { steps, prefill: None, batch: None, work, masked: None, tuning, epoch: 1, chosen: 0, stream })
    }

    /// What launches of a token alone are made for.
    pub fn target<'a>(&'a self, net: &'a Network) -> Target<'a> {
        Target { gpu: &net.gpu, config: &net.config, tuning: &self.tuning, work: &self.work }
    }

    /// Where launches of a token alone go.
    pub fn launcher<'a>(&'a self, net: &'a Network, split: AttentionSplit, pdl: bool) -> Launcher<'a> {
        Launcher { gpu: &net.gpu, work: &self.work, split, pdl, stream: &self.stream }
    }

    /// The ring's place of the token that is chosen now.
    pub fn next_chosen(&mut self) -> usize {
        self.chosen += 1;
        self.chosen - 1
    }

    /// Makes all launches anew.
    pub fn make_steps(&mut self, net: &Network) {
        self.steps = Steps::new(self.target(net), &net.ops);
    }

    /// Makes room for positions below `n_ctx`.
    pub fn grow(&mut self, net: &Network, n_ctx: usize) -> Result<()> {
        if self.work.holds(n_ctx) {
            return Ok(());
        }
        self.stream.wait()?;
        if self.work.grow(&net.gpu, n_ctx)? {
            self.make_steps(net);
        }
        Ok(())
    }

    /// The batch's working memory for `n` sequences, made if it is not there, and what its launches are made of.
    pub fn batch_for<'a>(&'a mut self, net: &'a Network, n: usize) -> Result<(&'a mut Batch, Making<'a>)> {
        if self.batch.as_ref().is_none_or(|b| (b.work.rows as usize) < n) {
            self.stream.wait()?;
            self.batch = None;
            self.batch = Some(Batch::new(&net.gpu, &net.config, n.next_power_of_two(), &self.stream)?);
        }
        let making = Making { gpu: &net.gpu, config: &net.config, tuning: &self.tuning, stream: &self.stream };
        match &mut self.batch {
            Some(batch) => Ok((batch, making)),
            None => internal("no batch"),
        }
    }

    /// Makes room for a pass of `n` tokens.
    pub fn prefill_for(&mut self, net: &Network, n: usize) -> Result<&PrefillWorkspace> {
        if self.prefill.as_ref().is_none_or(|r| r.rows < n) {
            self.stream.wait()?;
            self.prefill = None;
            let halves = self.tuning.halves.unwrap_or(two_halves(&net.config));
            let n = n.next_power_of_two().min(net.prompt_rows().max(n));
            self.prefill = Some(PrefillWorkspace::new(&net.gpu, &net.config, net.body(), n, halves)?);
        }
        match &self.prefill {
            Some(prefill) => Ok(prefill),
            None => internal("no rows"),
        }
    }

    /// What the step in flight goes by, from here on.
    pub fn put_state(&self, net: &Network, state: &State) -> Result<()> {
        Queue::new(&net.gpu, &self.stream).set_state(self.work.state, state)
    }

    /// The same for a token of a slot, with what draws go by.
    pub fn set_state(&self, net: &Network, slot: &CudaSlot, token: u32, position: usize, drawn: &State) -> Result<()> {
        self.put_state(net, &state_of(slot, token, position, drawn.produced as usize, *drawn))
    }
}

/// What a step of a token of a slot goes by; its choice is left at `produced` in the ring.
pub fn state_of(slot: &CudaSlot, token: u32, position: usize, produced: usize, drawn: State) -> State {
    let Tables { first: pages, stride: table_stride } = slot.tables();
    let (logits, is_long) = (slot.logits.at(), u32::from(slot.is_long));
    let (token, position) = (token as i32, position as i32);
    let StateAt { kept, keeps } = slot.state;
    let of_slot = State { pages, logits, token, position, is_long, table_stride, kept, keeps, ..drawn };
    State { produced: produced as u32, ..of_slot }
}
