//! What the measurements of tests/gpu/measure.rs use.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::exec::Exec;
use super::model::CudaModel;
use super::single::queue;
use super::slot::slot_of;
use super::step::Pass;
use super::together;
use crate::backend::cuda::driver::{Event, Gpu, Stream};
use crate::backend::cuda::kernels::abi::State;
use crate::backend::cuda::plan::geometry::Tuning;
use crate::backend::cuda::plan::op::Kind;
use crate::backend::cuda::plan::split::AttentionSplit;
use crate::backend::{Chunk, RunControl, Slot};
use crate::error::Result;

impl CudaModel {
    /// [`Self::measure_kinds`] of a step of all the `chunks`, one token each; norms count as what they stand before. `only`: of
    /// that kind, and of all.
    #[doc(hidden)]
    pub fn measure_together(
        &self,
        chunks: &mut [Chunk<'_>],
        only: Option<Kind>,
        reps: usize,
    ) -> Result<Vec<(String, usize, f32)>> {
        let (net, exec) = (&self.net, &mut *self.lock());
        net.gpu.bind()?;
        let n = chunks.len();
        let split = AttentionSplit::among(n, &exec.tuning, chunks.iter().map(|c| net.split_at(c.start, &exec.tuning)));
        let mut all: Vec<&mut Chunk<'_>> = chunks.iter_mut().collect();
        together::run(net, exec, &mut all, &RunControl { cancel: &AtomicBool::new(false), tap: None })?;
        let (batch, making) = exec.batch_for(net, n)?;
        let launches = batch.launches(making, &net.ops, n);
        let mut rows = Vec::new();
        for kind in
            Kind::ALL.iter().copied().map(Some).chain([None]).filter(|k| only.is_none_or(|o| k.is_none_or(|k| k == o)))
        {
            let wanted: Vec<_> = launches.iter().filter(|l| kind.is_none_or(|k| k == l.kind)).cloned().collect();
            if wanted.is_empty() {
                continue;
            }
            let graph = batch.capture(making, &wanted, n, split)?;
            let ms = timed(&net.gpu, making.stream, reps, || graph.launch(making.stream))?;
            rows.push((kind.map_or("all".to_string(), |k| format!("{k:?}")), wanted.len(), ms));
        }
        Ok(rows)
    }

    /// Changes the geometry of the stages; for measurements.
    #[doc(hidden)]
    pub fn tune(&self, tuning: Tuning) {
        let exec = &mut *self.lock();
        exec.batch = None;
        exec.prefill = None;
        exec.epoch += 1;
        exec.tuning = tuning;
        exec.make_steps(&self.net);
    }

    /// Makes ready for steps of a slot at `position`.
    fn prepare(&self, exec: &mut Exec, slot: &mut dyn Slot, pages: &[u32], position: usize) -> Result<()> {
        let net = &self.net;
        net.gpu.bind()?;
        exec.grow(net, position + 1)?;
        let slot = slot_of(slot)?;
        net.pages.bind(&exec.stream, slot, pages, position..position + 1)?;
        exec.set_state(net, slot, 0, position, &State::default())
    }

    /// Milliseconds of one step at `position`, the mean of `reps` as a graph; for measurements.
    #[doc(hidden)]
    pub fn measure_step(&self, slot: &mut dyn Slot, pages: &[u32], position: usize, reps: usize) -> Result<f32> {
        let exec = &mut *self.lock();
        self.prepare(exec, slot, pages, position)?;
        let (start, end) = (Event::new(&self.net.gpu, true)?, Event::new(&self.net.gpu, true)?);
        queue(&self.net, exec, Pass::Logits, position)?;
        start.record(&exec.stream)?;
        for _ in 0..reps {
            queue(&self.net, exec, Pass::Logits, position)?;
        }
        end.record(&exec.stream)?;
        end.wait()?;
        Ok(end.milliseconds_since(&start)? / reps as f32)
    }

    /// Milliseconds of the launches of each kind in one step at `position`, each kind alone, `reps` times; for measurements.
    #[doc(hidden)]
    pub fn measure_kinds(
        &self,
        slot: &mut dyn Slot,
        pages: &[u32],
        position: usize,
        reps: usize,
    ) -> Result<Vec<(String, usize, f32)>> {
        let exec = &mut *self.lock();
        self.prepare(exec, slot, pages, position)?;
        let launcher = exec.launcher(&self.net, self.net.split_at(position, &exec.tuning), exec.tuning.pdl);
        let mut rows = Vec::new();
        for kind in Kind::ALL.iter().copied().map(Some).chain([None]) {
            let wanted = || exec.steps.launches.iter().filter(|l| kind.is_none_or(|k| k == l.kind));
            if wanted().next().is_none() {
                continue;
            }
            let graph = exec.stream.capture(|| wanted().try_for_each(|l| launcher.launch(l)))?;
            let ms = timed(&self.net.gpu, &exec.stream, reps, || graph.launch(&exec.stream))?;
            rows.push((kind.map_or("all".to_string(), |k| format!("{k:?}")), wanted().count(), ms));
        }
        Ok(rows)
    }
}

/// Milliseconds of one run of what `work` queues, the mean of `reps` behind a first.
fn timed(gpu: &Arc<Gpu>, stream: &Stream, reps: usize, work: impl Fn() -> Result<()>) -> Result<f32> {
    let (start, end) = (Event::new(gpu, true)?, Event::new(gpu, true)?);
    work()?;
    start.record(stream)?;
    for _ in 0..reps {
        work()?;
    }
    end.record(stream)?;
    end.wait()?;
    Ok(end.milliseconds_since(&start)? / reps as f32)
}
