//! From the file's bytes to the device: readers copy pieces into pinned memory, the device copies and repacks them.
//!
//! Each worker owns two pinned pieces, two staging pieces on the device and a stream, and works on one piece while the
//! other is on its way; reading, copying and repacking overlap across workers. The caller's thread reports progress and
//! carries a cancel. On any failure every worker has stopped before this returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::backend::LoadControl;
use crate::backend::cuda::driver::{Buffer, Event, Gpu, Pinned, Stream};
use crate::backend::cuda::kernels::launch::Queue;
use crate::backend::cuda::kernels::packed::Packed;
use crate::backend::cuda::weights::layout::Job;
use crate::error::Result;
use crate::process::{self, ThreadKind};

/// A worker's name.
const NAME: &str = "kigo-load";
/// Most bytes of a piece.
const PIECE_BYTES: usize = 8 << 20;
/// Most workers.
const WORKERS: usize = 8;
/// Bytes of a worker's stack.
const STACK: usize = 1 << 20;

/// Bytes `from .. to` of a job's data.
struct Piece {
    job: usize,
    from: usize,
    to: usize,
}

/// Smallest part of a job that can be repacked by itself: bytes, and blocks of 32 or rows in it.
fn grain(job: &Job<'_>) -> (usize, u64) {
    match job.mat {
        Some(m) if m.ty.is_float() && m.cols == m.stride => (16, 0),
        Some(m) if m.ty.is_float() || m.ty == Packed::F16Tiles => (m.cols as usize * job.ty.block_bytes(), 1),
        Some(_) => (job.ty.block_bytes(), (job.ty.block_len() / 32) as u64),
        None => (16, 0),
    }
}

fn cut(jobs: &[Job<'_>], piece_bytes: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (job, j) in jobs.iter().enumerate() {
        let step = (piece_bytes / grain(j).0).max(1) * grain(j).0;
        let mut from = 0;
        while from < j.data.len() {
            let to = (from + step).min(j.data.len());
            pieces.push(Piece { job, from, to });
            from = to;
        }
    }
    pieces
}

/// One half of a worker's ring.
struct Lane {
    pinned: Pinned,
    staging: Buffer,
    done: Event,
    busy: bool,
}

struct Worker {
    stream: Stream,
    lanes: [Lane; 2],
}

impl Worker {
    fn new(gpu: &Arc<Gpu>, bytes: usize) -> Result<Worker> {
        let stream = Stream::new(gpu)?;
        let lane = || -> Result<Lane> {
            Ok(Lane {
                pinned: Pinned::new(gpu, bytes)?,
                staging: Buffer::new(gpu, bytes)?,
                done: Event::new(gpu, false)?,
                busy: false,
            })
        };
        Ok(Worker { stream, lanes: [lane()?, lane()?] })
    }

    /// Queues one piece.
    fn send(&mut self, gpu: &Gpu, lane: usize, job: &Job<'_>, piece: &Piece) -> Result<()> {
        let lane = &mut self.lanes[lane];
        if lane.busy {
            lane.done.wait()?;
        }
        // SAFETY: the pinned piece holds `PIECE_BYTES` or the largest grain, checked by `load`; the device has
        // finished with it (`done`), and nothing else has it while the lane is borrowed.
        let data = unsafe { std::slice::from_raw_parts_mut(lane.pinned.as_ptr(), piece.to - piece.from) };
        job.data.read(piece.from, data)?;
        let (bytes, units) = grain(job);
        let direct = match job.mat {
            Some(m) if units == 0 => Some(m.a),
            Some(_) => None,
            None => Some(job.to),
        };
        let to = direct.map_or(lane.staging.at(), |a| a + piece.from as u64);
        // SAFETY: the destination is the job's place in the model's allocation, or the staging piece of the same size.
        unsafe { self.stream.upload(to, lane.pinned.as_ptr(), data.len())? };
        if let (None, Some(mat)) = (direct, job.mat) {
            let (first, n) = (piece.from / bytes * units as usize, data.len() / bytes * units as usize);
            Queue::new(gpu, &self.stream).repack(&mat, lane.staging.at(), first as u64, n as u64)?;
        }
        lane.done.record(&self.stream)?;
        lane.busy = true;
        Ok(())
    }
}

/// Copies every job to its place.
pub fn load(gpu: &Arc<Gpu>, jobs: &[Job<'_>], control: &mut dyn LoadControl) -> Result<()> {
    let total: u64 = jobs.iter().map(|j| j.data.len() as u64).sum();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let n_workers = cores.min(WORKERS).min(1 + total as usize / PIECE_BYTES);
    let piece_bytes = PIECE_BYTES.min((total as usize / (4 * n_workers)).max(64 << 10));
    let pieces = cut(jobs, piece_bytes);
    let largest = pieces.iter().map(|p| p.to - p.from).max().unwrap_or(0);
    let mut workers = (0..n_workers).map(|_| Worker::new(gpu, largest)).collect::<Result<Vec<_>>>()?;

    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let (tell, told) = mpsc::channel::<Result<usize>>();
    std::thread::scope(|scope| {
        for (index, worker) in workers.iter_mut().enumerate() {
            let (tell, next, stop, pieces, gpu) = (tell.clone(), &next, &stop, &pieces, gpu.clone());
            let hook = process::hook();
            let work = move || {
                process::begin_thread();
                let mut run = || -> Result<()> {
                    gpu.bind()?;
                    let mut lane = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(piece) = pieces.get(at) else { break };
                        worker.send(&gpu, lane, &jobs[piece.job], piece)?;
                        lane ^= 1;
                        // A closed channel means that the load has failed.
                        if tell.send(Ok(at)).is_err() {
                            break;
                        }
                    }
                    Ok(())
                };
                let ran = process::told(hook.as_deref(), (NAME, ThreadKind::Task, index), &mut run);
                let ran = ran.unwrap_or_else(|| Err(process::not_to_go_on()));
                // After a failure too, of reading the file for example: what is queued uses memory that goes away.
                if let Err(e) = ran.and(worker.stream.wait()) {
                    stop.store(true, Ordering::Relaxed);
                    let _ = tell.send(Err(e));
                }
            };
            let bytes = STACK + process::thread_local_bytes();
            let builder = std::thread::Builder::new().name(NAME.to_string()).stack_size(bytes);
            if process::masked(|| builder.spawn_scoped(scope, work)).is_err() {
                stop.store(true, Ordering::Relaxed);
                return Err(process::no_thread(STACK));
            }
        }
        drop(tell);
        let mut done = 0u64;
        let mut outcome = Ok(());
        for news in told {
            let step = news.and_then(|at| {
                let piece = &pieces[at];
                done += (piece.to - piece.from) as u64;
                control.progress(done, total)
            });
            if let Err(e) = step {
                stop.store(true, Ordering::Relaxed);
                if outcome.is_ok() {
                    outcome = Err(e);
                }
            }
        }
        outcome
    })
}
