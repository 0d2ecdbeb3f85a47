//! A model on a GPU: its weights, its pages, its captured steps.
//!
//! Invariants: one pass at a time (`exec`); graphs refer to the weights, the workspace and the device's own state only, so
//! a slot's addresses reach a step through `State` and no graph belongs to a slot.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use half::f16;

use crate::backend::cuda::driver::Address;
use crate::backend::cuda::driver::{Buffer, Event, Gpu, Graph, Stream};
use crate::backend::cuda::kernels::abi::State;
use crate::backend::cuda::kernels::launch as ffi;
use crate::backend::cuda::plan::program::{self, Cut, Kind, Op, Tuning};
use crate::backend::cuda::plan::workspace::{self, Workspace};
use crate::backend::cuda::run::batch::{self, Batch};
use crate::backend::cuda::run::pipeline::{AHEAD, choose};
use crate::backend::cuda::run::prefill_rows::{self as prefill, LEAST_ROWS, MOST_ROWS, Rows};
use crate::backend::cuda::run::sample::Choice;
use crate::backend::cuda::weights::layout::{DeviceWeights, lay};
use crate::backend::cuda::weights::load;
use crate::backend::{
    Ahead, CacheRow, Chunk, LoadControl, LoadedModel, PAGE_TOKENS, PageImage, Plan, RunControl, Slot, Verdict, Want,
};
use crate::error::{Error, Result};
use crate::model::{Attention, Config, Weights};
use crate::sampler::{self, SampleRequest, Sampled};

/// Positions the working memory is made for at first.
fn first_context(config: &Config) -> usize {
    config.n_ctx_train.clamp(1, 1 << 17)
}

/// Bytes of cache pages that nobody has asked for yet.
const MOST_SPARE: usize = 64 << 20;

/// What the driver rounds large allocations up to.
const GRAIN: u64 = 2 << 20;

/// What a load and one session take, as the driver counts.
pub fn plan(config: &Config, weights: &Weights<'_>) -> Plan {
    let laid = lay(0, config, weights);
    let rows = MOST_ROWS.min(first_context(config));
    let [fixed, part] = workspace::planned_bytes(config, first_context(config));
    let prefill = prefill::planned_bytes(config, &laid.weights, rows);
    Plan {
        weights_bytes: laid.bytes.next_multiple_of(GRAIN),
        kv_bytes_per_token: config.kv_bytes_per_token() as u64,
        // And a slot's logits and table, the captured steps, and what rounding takes.
        scratch_bytes: fixed + part + prefill + 2 * GRAIN,
    }
}

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

pub struct Exec {
    pub(crate) graphs: HashMap<(Pass, Cut), Graph>,
    pub(crate) ops: Vec<Op>,
    /// Whether a step of several sequences can do these.
    pub(crate) can_batch: bool,
    pub(crate) rows: Option<Rows>,
    pub(crate) batch: Option<Batch>,
    pub(crate) work: Workspace,
    /// Logits of which some are banned, and which.
    pub(crate) masked: Option<Buffer>,
    pub(crate) tuning: Tuning,
    /// Changes whenever the device's `State` stops being that of the call before.
    pub(crate) epoch: u64,
    /// Tokens chosen so far: where in the ring the next one goes.
    pub(crate) chosen: usize,
    pub(crate) stream: Stream,
}

impl Exec {
    /// The ring's place of the token that is chosen now.
    pub(crate) fn next_chosen(&mut self) -> usize {
        self.chosen += 1;
        self.chosen - 1
    }
}

/// The pool: slabs of whole pages.
#[derive(Default)]
struct Pages {
    addresses: Vec<Address>,
    _slabs: Vec<Buffer>,
}

/// A loaded model.
pub struct CudaModel {
    /// Held while waiting for `exec`, so that a thread that takes it again and again does not pass by the others.
    turn: Mutex<()>,
    exec: Mutex<Exec>,
    pages: Mutex<Pages>,
    pub(crate) weights: DeviceWeights,
    _memory: Buffer,
    weights_bytes: u64,
    pub(crate) config: Config,
    /// Of every layer.
    pub(crate) heads: Attention,
    pub(crate) gpu: Arc<Gpu>,
}

/// One sequence's logits and page table on the device.
pub struct CudaSlot {
    logits: Buffer, // [n_vocab] f32
    table: Buffer,  // [capacity] addresses
    pages: Vec<u32>,
    /// Of a token from these logits.
    pub(crate) choice: Option<Choice>,
    /// By which parameters a step chooses a token at its end.
    pub(crate) wish: Option<State>,
}

impl CudaSlot {
    /// Of the page table and of the logits.
    pub(crate) fn addresses(&self) -> (Address, Address) {
        (self.table.at(), self.logits.at())
    }
}

impl Slot for CudaSlot {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

pub(crate) fn slot_of(slot: &mut dyn Slot) -> Result<&mut CudaSlot> {
    slot.as_any().downcast_mut().ok_or_else(|| Error::Internal { message: "a slot of another backend".to_string() })
}

pub(crate) fn internal<T>(message: &str) -> Result<T> {
    Err(Error::Internal { message: message.to_string() })
}

/// What the kernels need beyond the description's own invariants.
fn check(gpu: &Gpu, config: &Config, weights: &Weights<'_>) -> Result<()> {
    let most = config.widths();
    let widest = config.n_embd.max(most.ffn).max(most.q);
    // A stage holds its input in shared memory, as f32 and, behind a norm, in pieces as well.
    if widest > 40_000 || widest * 33 / 8 + 4096 > gpu.shared_most || config.n_embd * 65 / 8 + 4096 > gpu.shared_most {
        return Err(Error::Unsupported { what: "row length", name: format!("{widest}") });
    }
    if weights.layers.len() != config.layers.len() {
        return internal("as many layers as descriptions of them are needed");
    }
    Ok(())
}

impl CudaModel {
    /// Loads; nothing borrowed is kept.
    pub fn load(
        gpu: &Arc<Gpu>,
        config: &Config,
        weights: &Weights<'_>,
        strict: bool,
        control: &mut dyn LoadControl,
    ) -> Result<CudaModel> {
        check(gpu, config, weights)?;
        let heads = config.same_heads()?;
        gpu.bind()?;
        let stream = Stream::new(gpu)?;
        let bytes = lay(0, config, weights).bytes;
        let memory = Buffer::zeroed(gpu, bytes as usize, &stream)?;
        stream.wait()?;
        let laid = lay(memory.at(), config, weights);
        load::load(gpu, &laid.jobs, control)?;
        let work = Workspace::new(gpu, config, first_context(config), 1, &stream)?;
        stream.wait()?;
        // Strict: prompts go token by token, the way that steps go; the tensor cores would round otherwise.
        let tuning = Tuning { prefill: !strict, ..Tuning::default() };
        let ops = program::make(gpu, config, &tuning, &laid.weights, &work);
        Ok(CudaModel {
            turn: Mutex::default(),
            exec: Mutex::new(Exec {
                graphs: HashMap::new(),
                can_batch: batch::can(&ops),
                ops,
                rows: None,
                batch: None,
                work,
                masked: None,
                tuning,
                epoch: 1,
                chosen: 0,
                stream,
            }),
            pages: Mutex::default(),
            weights: laid.weights,
            _memory: memory,
            weights_bytes: bytes,
            config: config.clone(),
            heads,
            gpu: gpu.clone(),
        })
    }

    fn page_bytes(&self) -> usize {
        self.config.kv_bytes_per_token() * PAGE_TOKENS
    }

    /// Addresses of the heads' rows of keys (`which` 0) or values (1), `n` elements in all.
    fn cache_rows(&self, at: CacheRow, which: usize, n: usize) -> Result<Vec<Address>> {
        let (heads, dim) = (self.heads.n_kv_heads, self.heads.head_dim);
        let page = self.page_at(at.page, self.page_bytes())?;
        if at.row >= PAGE_TOKENS || at.layer >= self.config.n_layers() || n != heads * dim {
            return internal("a row that the cache does not have");
        }
        let row = |head| (((at.layer * 2 + which) * heads + head) * PAGE_TOKENS + at.row) * dim;
        Ok((0..heads).map(|head| page + 2 * row(head) as u64).collect())
    }

    /// Where a page is that somebody wants `bytes` of.
    fn page_at(&self, page: u32, bytes: usize) -> Result<Address> {
        self.gpu.bind()?;
        let pool = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        match pool.addresses.get(page as usize) {
            Some(at) if bytes == self.page_bytes() => Ok(*at),
            _ => internal("a page that was not reserved, or not the whole of one"),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Exec> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.exec.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the slot's table name these pages.
    pub(crate) fn bind_pages(&self, exec: &mut Exec, slot: &mut CudaSlot, pages: &[u32]) -> Result<()> {
        let common = slot.pages.iter().zip(pages).take_while(|(a, b)| a == b).count();
        if common == pages.len() {
            return Ok(());
        }
        if pages.len() * 8 > slot.table.bytes() {
            exec.stream.wait()?;
            slot.table = Buffer::new(&self.gpu, pages.len().next_power_of_two() * 8)?;
            slot.pages.clear();
        }
        let common = common.min(slot.pages.len());
        slot.pages.truncate(common);
        let pool = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = Vec::with_capacity(pages.len() - common);
        for page in &pages[common..] {
            match pool.addresses.get(*page as usize) {
                Some(address) => rows.push(*address),
                None => return internal("a page that was not reserved"),
            }
        }
        // SAFETY: the table holds pages.len() addresses; pageable memory is staged before this returns.
        unsafe { exec.stream.upload(slot.table.at() + 8 * common as u64, rows.as_ptr().cast(), rows.len() * 8)? };
        slot.pages.extend_from_slice(&pages[common..]);
        Ok(())
    }

    pub(crate) fn set_state(&self, exec: &Exec, slot: &CudaSlot, token: u32, position: usize) -> Result<()> {
        self.set_state_and(exec, slot, token, position, &State::default())
    }

    /// [`Self::set_state`] with what draws go by.
    pub(crate) fn set_state_and(
        &self,
        exec: &Exec,
        slot: &CudaSlot,
        token: u32,
        position: usize,
        drawn: &State,
    ) -> Result<()> {
        self.put_state(exec, &self.state_of(slot, token, position, drawn.produced as usize, *drawn))
    }

    /// A slot's logits on the host.
    fn logits_at_hand(&self, slot: &mut dyn Slot) -> Result<Vec<f32>> {
        let mut logits = vec![0f32; self.config.n_vocab];
        self.logits(slot, &mut logits)?;
        Ok(logits)
    }

    /// What the step in flight goes by, from here on.
    pub(crate) fn put_state(&self, exec: &Exec, state: &State) -> Result<()> {
        // SAFETY: the state's place is in the workspace; the value is copied by the launch.
        self.gpu.check(unsafe { ffi::kgc_set_state(exec.work.state, state, exec.stream.raw()) })
    }

    /// Queues one step of the graph for `pass`.
    pub(crate) fn queue(&self, exec: &mut Exec, pass: Pass, position: usize) -> Result<()> {
        let cut = Cut::at(position, self.heads.head_dim, &exec.tuning);
        let Exec { graphs, ops, work, stream, tuning, .. } = exec;
        if let Some(graph) = graphs.get(&(pass, cut)) {
            return graph.launch(stream);
        }
        let graph = stream.capture(|| {
            match pass {
                Pass::Choose => choose(&self.gpu, work, stream, false)?,
                Pass::Draw => choose(&self.gpu, work, stream, true)?,
                Pass::Cache | Pass::Logits => {}
            }
            for op in ops.iter().filter(|o| pass != Pass::Cache || o.kind != Kind::Logits) {
                op.launch(&self.gpu, work, cut, tuning.pdl, stream)?;
            }
            Ok(())
        })?;
        graph.launch(stream)?;
        graphs.insert((pass, cut), graph);
        Ok(())
    }

    pub(crate) fn grow(&self, exec: &mut Exec, n_ctx: usize) -> Result<()> {
        if exec.work.holds(n_ctx) {
            return Ok(());
        }
        exec.stream.wait()?;
        if exec.work.grow(&self.gpu, n_ctx)? {
            exec.graphs.clear();
            exec.ops = program::make(&self.gpu, &self.config, &exec.tuning, &self.weights, &exec.work);
        }
        Ok(())
    }

    pub(crate) fn check_chunk(&self, tokens: &[u32], start: usize, n_pages: usize) -> Result<()> {
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

    /// Tokens that a pass has room for at first.
    pub(crate) fn prompt_rows(&self) -> usize {
        MOST_ROWS.min(first_context(&self.config))
    }

    pub(crate) fn run_chunk(
        &self,
        exec: &mut Exec,
        sequence: usize,
        chunk: &mut Chunk<'_>,
        run: &mut RunControl<'_>,
    ) -> Result<()> {
        self.check_chunk(chunk.tokens, chunk.start, chunk.pages.len())?;
        self.grow(exec, chunk.start + chunk.tokens.len())?;
        let slot = slot_of(chunk.slot)?;
        self.bind_pages(exec, slot, chunk.pages)?;
        if exec.tuning.prefill && chunk.tokens.len() >= LEAST_ROWS && prefill::can(&self.config, &self.weights) {
            return self.run_prompt(exec, sequence, chunk, run);
        }
        let drawn = State { produced: exec.chosen as u32, ..slot.wish.unwrap_or_default() };
        let mark = Event::new(&self.gpu, false)?;
        for (i, token) in chunk.tokens.iter().enumerate() {
            if run.cancel.load(Ordering::Acquire) {
                return Err(Error::Cancelled);
            }
            let position = chunk.start + i;
            self.set_state_and(exec, slot, *token, position, &drawn)?;
            let want = chunk.want == Want::Last && i + 1 == chunk.tokens.len();
            if let Some(tap) = run.tap.as_mut() {
                let sees = crate::backend::cuda::run::tap::Place {
                    sequence,
                    position,
                    logits: want.then_some(slot.logits.at()),
                };
                crate::backend::cuda::run::tap::run(
                    &self.gpu,
                    &self.config,
                    &exec.ops,
                    &exec.work,
                    &exec.stream,
                    Cut::at(position, self.heads.head_dim, &exec.tuning),
                    sees,
                    &mut **tap,
                )?;
                continue;
            }
            self.queue(exec, if want { Pass::Logits } else { Pass::Cache }, position)?;
            // Never far ahead, so that a cancel is seen soon.
            if i % AHEAD == AHEAD - 1 {
                if i >= AHEAD {
                    mark.wait()?;
                }
                mark.record(&exec.stream)?;
            }
        }
        Ok(())
    }
}

impl LoadedModel for CudaModel {
    fn config(&self) -> &Config {
        &self.config
    }

    fn plan(&self) -> Plan {
        Plan {
            weights_bytes: self.weights_bytes.next_multiple_of(GRAIN),
            kv_bytes_per_token: self.config.kv_bytes_per_token() as u64,
            scratch_bytes: {
                let exec = self.lock();
                let batch = exec.batch.as_ref().map_or(0, |b| b.work.bytes);
                let masked = exec.masked.as_ref().map_or(0, |m| m.bytes() as u64);
                exec.work.bytes + batch + masked + exec.rows.as_ref().map_or(0, Rows::bytes)
            },
        }
    }

    fn reserve_pages(&self, n: usize) -> Result<()> {
        let mut pool = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let have = pool.addresses.len();
        if n <= have {
            return Ok(());
        }
        let page = self.page_bytes();
        // Some more, for the sessions that will ask next: each of these calls may wait for the device.
        let more = (have / 4).min(MOST_SPARE / page.max(1));
        let slab = |n: usize| Buffer::new(&self.gpu, page * n);
        let slab = match slab(n - have + more) {
            Err(Error::OutOfMemory { .. }) if more > 0 => slab(n - have)?,
            slab => slab?,
        };
        pool.addresses.extend((0..slab.bytes() / page).map(|i| slab.at() + (i * page) as u64));
        pool._slabs.push(slab);
        Ok(())
    }

    fn release_page(&self, _page: u32) {}

    fn copy_page(&self, from: u32, to: u32) -> Result<()> {
        let exec = self.lock();
        let (from, to) = (self.page_at(from, self.page_bytes())?, self.page_at(to, self.page_bytes())?);
        // SAFETY: both are whole pages of the pool.
        unsafe { exec.stream.copy(to, from, self.page_bytes())? };
        exec.stream.wait()
    }

    fn page_image(&self) -> Option<PageImage> {
        Some(PageImage { bytes: self.page_bytes(), layout: "f16 [layer][k, v][head][64][head_dim]" })
    }

    fn read_page(&self, page: u32, rows: usize, out: &mut [u8]) -> Result<()> {
        let exec = self.lock();
        let from = self.page_at(page, out.len())?;
        // SAFETY: a whole page of the pool.
        unsafe { exec.stream.download(from, out)? };
        // What other positions hold is nobody's business: it may be another session's.
        let row = self.heads.head_dim * 2;
        for tile in out.chunks_exact_mut(PAGE_TOKENS * row) {
            tile[rows.min(PAGE_TOKENS) * row..].fill(0);
        }
        Ok(())
    }

    fn write_page(&self, page: u32, from: &[u8]) -> Result<()> {
        let exec = self.lock();
        let to = self.page_at(page, from.len())?;
        // SAFETY: a whole page of the pool; pageable memory is staged before this returns.
        unsafe { exec.stream.upload(to, from.as_ptr(), from.len())? };
        exec.stream.wait()
    }

    fn set_logits(&self, slot: &mut dyn Slot, logits: &[f32]) -> Result<()> {
        let exec = self.lock();
        self.gpu.bind()?;
        if logits.len() != self.config.n_vocab {
            return internal("a buffer of n_vocab logits is needed");
        }
        let slot = slot_of(slot)?;
        slot.choice = None;
        // SAFETY: the slot's logits have n_vocab elements.
        unsafe { exec.stream.upload(slot.logits.at(), logits.as_ptr().cast(), size_of_val(logits))? };
        exec.stream.wait()
    }

    fn is_exact_in_chunks(&self) -> bool {
        !self.lock().tuning.prefill
    }

    fn read_cache(&self, at: CacheRow, keys: &mut [f32], values: &mut [f32]) -> Result<()> {
        let exec = self.lock();
        let dim = self.heads.head_dim;
        let mut halves = vec![f16::ZERO; dim];
        for (to, which) in [(keys, 0), (values, 1)] {
            for (head, to) in self.cache_rows(at, which, to.len())?.into_iter().zip(to.chunks_mut(dim)) {
                // SAFETY: a row of a page of the pool.
                unsafe { exec.stream.download(head, &mut halves)? };
                to.iter_mut().zip(&halves).for_each(|(to, from)| *to = from.to_f32());
            }
        }
        Ok(())
    }

    fn write_cache(&self, at: CacheRow, keys: &[f32], values: &[f32]) -> Result<()> {
        let exec = self.lock();
        let dim = self.heads.head_dim;
        for (from, which) in [(keys, 0), (values, 1)] {
            for (head, from) in self.cache_rows(at, which, from.len())?.into_iter().zip(from.chunks(dim)) {
                let halves: Vec<f16> = from.iter().map(|x| f16::from_f32(*x)).collect();
                // SAFETY: a row of a page of the pool; pageable memory is staged before this returns.
                unsafe { exec.stream.upload(head, halves.as_ptr().cast(), dim * 2)? };
            }
        }
        exec.stream.wait()
    }

    fn create_slot(&self) -> Result<Box<dyn Slot>> {
        let logits = Buffer::new(&self.gpu, self.config.n_vocab * 4)?;
        let table = Buffer::new(&self.gpu, first_context(&self.config).div_ceil(PAGE_TOKENS).next_power_of_two() * 8)?;
        Ok(Box::new(CudaSlot { logits, table, pages: Vec::new(), choice: None, wish: None }))
    }

    fn forward(&self, chunks: &mut [Chunk<'_>], run: &mut RunControl<'_>) -> Result<()> {
        let exec = &mut *self.lock();
        self.gpu.bind()?;
        exec.epoch += 1;
        // Those that go token by token go together; where somebody watches, each by itself.
        let by_rows = exec.tuning.prefill && prefill::can(&self.config, &self.weights);
        let short = |c: &Chunk<'_>| !by_rows || c.tokens.len() < LEAST_ROWS;
        let join = run.tap.is_none() && chunks.iter().filter(|c| short(c)).count() > 1 && exec.can_batch;
        let alone = chunks.len() == 1 && run.tap.is_none();
        for chunk in &mut *chunks {
            slot_of(chunk.slot)?.start_choice();
        }
        let (mut together, mut prompts, mut outcome) = (Vec::new(), Vec::new(), Ok(()));
        for (sequence, chunk) in chunks.iter_mut().enumerate() {
            if join && short(chunk) {
                together.push(chunk);
            } else if run.tap.is_none() && !short(chunk) && chunk.tokens.len() < MOST_ROWS {
                prompts.push((sequence, chunk));
            } else if outcome.is_ok() {
                outcome = self.run_chunk(exec, sequence, chunk, run);
            }
        }
        if outcome.is_ok() {
            outcome = self.run_prompts(exec, prompts, run);
        }
        if outcome.is_ok() && !together.is_empty() {
            outcome = self.run_together(exec, &mut together, run);
        }
        let (chosen_together, mut outcome) = (!together.is_empty(), outcome);
        if let ([chunk], true, Ok(())) = (&mut *chunks, alone, &outcome) {
            outcome = self.choose_after(exec, chunk);
        }
        // Also after a failure: nothing that was queued may run on while the caller goes on.
        let outcome = outcome.and(exec.stream.wait());
        let work = exec.batch.as_ref().filter(|_| chosen_together).map_or(&exec.work, |b| &b.work);
        for chunk in chunks {
            slot_of(chunk.slot)?.end_choice(work, outcome.is_ok());
        }
        outcome
    }

    fn logits(&self, slot: &mut dyn Slot, out: &mut [f32]) -> Result<()> {
        let exec = self.lock();
        self.gpu.bind()?;
        let slot = slot_of(slot)?;
        if out.len() != self.config.n_vocab {
            return internal("a buffer of n_vocab logits is needed");
        }
        // SAFETY: the slot's logits have n_vocab elements.
        unsafe { exec.stream.download(slot.logits.at(), out) }
    }

    fn prefill_chunk(&self) -> usize {
        MOST_ROWS
    }

    fn decode_ahead(&self, mut ahead: Ahead<'_>, emit: &mut dyn FnMut(u32) -> Result<Verdict>) -> Result<Option<()>> {
        if !self.chooses(ahead.params) {
            return Ok(None);
        }
        if ahead.position == 0 {
            return Err(Error::State { needs: "logits: prefill or step first" });
        }
        slot_of(ahead.slot)?.start_choice();
        self.check_chunk(&[ahead.last_token], ahead.position + ahead.n.max(1) - 1, ahead.pages.len())?;
        self.run_ahead(&mut ahead, emit).map(Some)
    }

    fn sample(&self, slot: &mut dyn Slot, request: &SampleRequest<'_>) -> Result<Sampled> {
        if let Some(result) = self.choose_alone(slot_of(slot)?, request) {
            return result;
        }
        sampler::sample(&self.logits_at_hand(slot)?, request)
    }

    fn sample_among(&self, slot: &mut dyn Slot, request: &SampleRequest<'_>, allowed: &[u32]) -> Result<Sampled> {
        if let Some(result) = self.choose_among(slot_of(slot)?, request, allowed) {
            return result;
        }
        let mut logits = self.logits_at_hand(slot)?;
        sampler::ban(&mut logits, allowed);
        sampler::sample(&logits, request)
    }

    fn sample_batch(&self, slots: &mut [&mut dyn Slot], requests: &[SampleRequest<'_>]) -> Vec<Result<Sampled>> {
        let results = self.choose_all(slots, requests);
        let alone = slots.iter_mut().zip(requests).zip(results);
        alone.map(|((slot, request), result)| result.unwrap_or_else(|| self.sample(&mut **slot, request))).collect()
    }
}
