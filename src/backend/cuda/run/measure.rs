//! What the measurements of tests/gpu/forward.rs use.

use std::sync::atomic::AtomicBool;

use crate::backend::cuda::driver::Event;
use crate::backend::cuda::plan::program::{self, Cut, Kind, Op, Tuning};
use crate::backend::cuda::run::batch;
use crate::backend::cuda::run::loaded::{CudaModel, Exec, Pass, internal, slot_of};
use crate::backend::{Chunk, RunControl, Slot};
use crate::error::Result;

/// All of them, in the order of a step.
const KINDS: [Kind; Kind::N] =
    [Kind::Embed, Kind::Qkv, Kind::Attend, Kind::Output, Kind::GateUp, Kind::Up, Kind::Glu, Kind::Down, Kind::Logits];

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
        let exec = &mut *self.lock();
        self.gpu.bind()?;
        let n = chunks.len();
        let cut =
            Cut::among(n, &exec.tuning, chunks.iter().map(|c| Cut::at(c.start, self.heads.head_dim, &exec.tuning)));
        let mut all: Vec<&mut Chunk<'_>> = chunks.iter_mut().collect();
        self.run_together(exec, &mut all, &RunControl { cancel: &AtomicBool::new(false), tap: None })?;
        let (start, end) = (Event::new(&self.gpu, true)?, Event::new(&self.gpu, true)?);
        let Exec { batch: Some(batch), tuning, stream, .. } = exec else { return internal("no batch") };
        let mut rows = Vec::new();
        for kind in KINDS.map(Some).into_iter().chain([None]).filter(|k| only.is_none_or(|o| k.is_none_or(|k| k == o)))
        {
            let (graph, launches) = batch.part(&self.gpu, kind, n, tuning, cut, stream)?;
            if launches == 0 {
                continue;
            }
            graph.launch(stream)?;
            start.record(stream)?;
            for _ in 0..reps {
                graph.launch(stream)?;
            }
            end.record(stream)?;
            end.wait()?;
            let name = kind.map_or("all".to_string(), |k| format!("{k:?}"));
            rows.push((name, launches, end.milliseconds_since(&start)? / reps as f32));
        }
        Ok(rows)
    }

    /// Changes the geometry of the stages; for measurements.
    #[doc(hidden)]
    pub fn tune(&self, tuning: Tuning) {
        let exec = &mut *self.lock();
        exec.graphs.clear();
        exec.batch = None;
        exec.rows = None;
        exec.epoch += 1;
        exec.tuning = tuning;
        exec.ops = program::make(&self.gpu, &self.config, &tuning, &self.weights, &exec.work);
        exec.can_batch = batch::can(&exec.ops);
    }

    /// Milliseconds of one step at `position`, the mean of `reps` as a graph; for measurements.
    #[doc(hidden)]
    pub fn measure_step(&self, slot: &mut dyn Slot, pages: &[u32], position: usize, reps: usize) -> Result<f32> {
        let exec = &mut *self.lock();
        self.gpu.bind()?;
        self.grow(exec, position + 1)?;
        let slot = slot_of(slot)?;
        self.bind_pages(exec, slot, pages)?;
        self.set_state(exec, slot, 0, position)?;
        let (start, end) = (Event::new(&self.gpu, true)?, Event::new(&self.gpu, true)?);
        self.queue(exec, Pass::Logits, position)?;
        start.record(&exec.stream)?;
        for _ in 0..reps {
            self.queue(exec, Pass::Logits, position)?;
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
        self.gpu.bind()?;
        self.grow(exec, position + 1)?;
        let slot = slot_of(slot)?;
        self.bind_pages(exec, slot, pages)?;
        self.set_state(exec, slot, 0, position)?;
        let cut = Cut::at(position, self.heads.head_dim, &exec.tuning);
        let (start, end) = (Event::new(&self.gpu, true)?, Event::new(&self.gpu, true)?);
        let mut rows = Vec::new();
        let mut one = |name: String, keep: &dyn Fn(&Op) -> bool| -> Result<()> {
            let n = exec.ops.iter().filter(|o| keep(o)).count();
            if n == 0 {
                return Ok(());
            }
            let graph = exec.stream.capture(|| {
                exec.ops
                    .iter()
                    .filter(|o| keep(o))
                    .try_for_each(|o| o.launch(&self.gpu, &exec.work, cut, exec.tuning.pdl, &exec.stream))
            })?;
            graph.launch(&exec.stream)?;
            start.record(&exec.stream)?;
            for _ in 0..reps {
                graph.launch(&exec.stream)?;
            }
            end.record(&exec.stream)?;
            end.wait()?;
            rows.push((name, n, end.milliseconds_since(&start)? / reps as f32));
            Ok(())
        };
        for kind in KINDS {
            one(format!("{kind:?}"), &|o| o.kind == kind)?;
        }
        one("all".to_string(), &|_| true)?;
        Ok(rows)
    }
}
