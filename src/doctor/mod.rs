//! Checks of a device with a model, on the user's own machine: the questions behind an answer that goes wrong.
//!
//! Each check is a function of `Patient` that gives a `Finding`. Invariants: a check leaves nothing behind (sessions
//! are its own, poisoned cache rows are cleared); what a check compares with it gets from the file or computes itself,
//! in f64, not from the code under test; where a check cannot tell its own subject from an earlier one it blames the
//! earlier one.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::backend::{TAP_NAMES, TapEvent};
use crate::engine::{Engine, EngineOptions, LogSink, Model, Session, SessionOptions, Tap};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, dequantize_row};
use crate::model::{Config, Tensor, bind};
use crate::sampler::SamplingParams;

mod attention;
mod cache;
mod devices;
mod flow;
mod position;
mod sampling;
mod text;

/// What a check is about, in the order in which they are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum Subject {
    LogitsBuffer = 1,
    TokenFlow = 2,
    Cache = 3,
    Position = 4,
    Attention = 5,
    Tokenizer = 6,
    Sampling = 7,
    Devices = 8,
    Repetition = 9,
}

impl Subject {
    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Subject::LogitsBuffer => "logits buffer",
            Subject::TokenFlow => "token flow",
            Subject::Cache => "cache",
            Subject::Position => "position",
            Subject::Attention => "attention",
            Subject::Tokenizer => "tokenizer",
            Subject::Sampling => "sampling",
            Subject::Devices => "backends",
            Subject::Repetition => "repetition",
        }
    }
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Outcome {
    Holds,
    Fails,
    /// It could not be run here.
    Skipped,
}

/// A check that has been run.
#[derive(Clone, Debug)]
pub struct Check {
    /// What it is about.
    pub subject: Subject,
    /// How it came out.
    pub outcome: Outcome,
    /// What was measured.
    pub figure: f64,
    /// The largest figure that is allowed.
    pub bound: f64,
    /// One line: what the figure is; after a failure where it is; after a skip why.
    pub text: String,
    /// How long it took.
    pub seconds: f64,
    /// After a failure: what is at fault, which may be something earlier than what the check is about.
    pub blames: Option<Subject>,
}

/// What all checks came to.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Diagnosis {
    pub n_holding: usize,
    pub n_failed: usize,
    pub n_skipped: usize,
    /// What the first check that failed blames.
    pub at_fault: Option<Subject>,
}

/// What a check found.
struct Finding {
    figure: f64,
    bound: f64,
    text: String,
    /// Holds where it is `None` and the figure is within its bound.
    blames: Option<Subject>,
    /// Nothing could be looked at.
    skipped: bool,
}

impl Finding {
    fn of(figure: f64, bound: f64, text: impl Into<String>) -> Finding {
        Finding { figure, bound, text: text.into(), blames: None, skipped: false }
    }

    fn skipped(why: impl Into<String>) -> Finding {
        Finding { skipped: true, ..Finding::of(0.0, 0.0, why) }
    }

    fn blame(mut self, subject: Subject) -> Finding {
        self.blames = Some(subject);
        self
    }
}

/// What a check works with.
struct Patient<'a> {
    engine: &'a Engine,
    path: &'a Path,
    gguf: &'a Gguf<'a>,
    config: Config,
    model: Model,
    seed: u64,
}

/// Rows of an activation.
struct Row {
    name: &'static str,
    layer: i32,
    position: usize,
    data: Vec<f32>,
}

impl Row {
    /// Such as `layer 3 attn_mix`.
    fn place(&self) -> String {
        place(self.name, self.layer)
    }
}

fn place(name: &str, layer: i32) -> String {
    if layer < 0 { name.to_owned() } else { format!("layer {layer} {name}") }
}

type Rows = Arc<Mutex<Vec<Row>>>;

/// Runs all checks on the engine's device; `on_check` sees each and returns whether to go on.
pub fn diagnose(
    engine: &Engine,
    path: &Path,
    seed: u64,
    on_check: &mut dyn FnMut(&Check) -> bool,
) -> Result<Diagnosis> {
    let gguf = Gguf::open(path)?;
    let (config, _) = bind(&gguf)?;
    let model = engine.load_file(path, &mut |_, _| Ok(()))?;
    let patient = Patient { engine, path, gguf: &gguf, config, model, seed };
    type Run = fn(&Patient<'_>) -> Result<Finding>;
    let checks: [(Subject, Run); 9] = [
        (Subject::LogitsBuffer, flow::logits_buffer),
        (Subject::TokenFlow, flow::token_flow),
        (Subject::Cache, cache::cache),
        (Subject::Position, position::position),
        (Subject::Attention, attention::attention),
        (Subject::Tokenizer, text::tokenizer),
        (Subject::Sampling, sampling::sampling),
        (Subject::Devices, devices::devices),
        (Subject::Repetition, text::repetition),
    ];
    let mut diagnosis = Diagnosis::default();
    for (subject, run) in checks {
        let begin = Instant::now();
        let finding = match run(&patient) {
            Ok(finding) => finding,
            Err(Error::Unsupported { what, name }) => {
                Finding::skipped(format!("{what} \"{name}\" is not there on {}", engine.device_name()))
            }
            // No fault of what is checked.
            Err(
                error @ (Error::ContextFull { .. }
                | Error::OutOfMemory { .. }
                | Error::CacheFull { .. }
                | Error::UnsupportedValue { .. }),
            ) => Finding::skipped(error.to_string()),
            Err(error @ Error::DeviceLost { .. }) => return Err(error),
            Err(error) => Finding::of(f64::INFINITY, 0.0, error.to_string()).blame(subject),
        };
        let Finding { figure, bound, text, blames, skipped } = finding;
        let holds = blames.is_none() && figure <= bound;
        let outcome = match (skipped, holds) {
            (true, _) => Outcome::Skipped,
            (_, true) => Outcome::Holds,
            _ => Outcome::Fails,
        };
        let blames = (outcome == Outcome::Fails).then_some(blames.unwrap_or(subject));
        match outcome {
            Outcome::Holds => diagnosis.n_holding += 1,
            Outcome::Fails => diagnosis.n_failed += 1,
            Outcome::Skipped => diagnosis.n_skipped += 1,
        }
        diagnosis.at_fault = diagnosis.at_fault.or(blames);
        let seconds = begin.elapsed().as_secs_f64();
        if !on_check(&Check { subject, outcome, figure, bound, text, seconds, blames }) {
            return Err(Error::Cancelled);
        }
    }
    Ok(diagnosis)
}

impl Patient<'_> {
    /// A session without tokens, of at most `n_ctx`.
    fn session(&self, n_ctx: usize) -> Result<Session> {
        let n_ctx = Some(n_ctx.min(self.config.n_ctx_train));
        Session::new(
            &self.model,
            SessionOptions { n_ctx, sampling: SamplingParams::default(), ..SessionOptions::default() },
        )
    }

    /// `n` tokens that are no control tokens, neighbours never equal; the same for the same seed.
    fn tokens(&self, n: usize) -> Result<Vec<u32>> {
        let n_vocab = self.config.n_vocab as u64;
        let mut tokens: Vec<u32> = Vec::with_capacity(n);
        let mut counter = 0;
        while tokens.len() < n {
            let token = (crate::sampler::random_u64(self.seed, counter) % n_vocab) as u32;
            counter += 1;
            let plain = self.model.token_flags(token).is_ok_and(|f| f == Default::default());
            // A vocabulary of control tokens alone must not stop this.
            if tokens.last() != Some(&token) && plain || counter > 100 * n as u64 + 1000 {
                tokens.push(token);
            }
        }
        Ok(tokens)
    }

    /// The current logits.
    fn logits(&self, session: &Session) -> Result<Vec<f32>> {
        let mut logits = vec![0.0; self.config.n_vocab];
        session.logits(&mut logits)?;
        Ok(logits)
    }

    /// The logits after `tokens`, given to a new session in these pieces.
    fn logits_of(&self, tokens: &[u32], pieces: &[usize]) -> Result<Vec<f32>> {
        let session = self.session(tokens.len())?;
        let mut rest = tokens;
        for n in pieces {
            let (piece, behind) = rest.split_at((*n).min(rest.len()));
            if !piece.is_empty() {
                session.prefill(piece)?;
            }
            rest = behind;
        }
        self.logits(&session)
    }

    /// Shows the session's activations of these names from now on.
    fn watch(&self, session: &Session, names: &[&str]) -> Result<Rows> {
        let mask = TAP_NAMES.iter().enumerate().filter(|(_, n)| names.contains(n)).map(|(i, _)| 1 << i).sum();
        let rows = Rows::default();
        let seen = Arc::clone(&rows);
        let sink = move |event: &TapEvent<'_>| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            for (i, row) in event.data.chunks_exact(event.cols).enumerate() {
                let position = event.position + i;
                seen.push(Row { name: event.name, layer: event.layer, position, data: row.to_vec() });
            }
            true
        };
        session.set_tap(Some(Tap::new(mask, Box::new(sink))))?;
        Ok(rows)
    }

    /// A row of a matrix of the file.
    fn file_row(&self, tensor: &Tensor<'_>, row: usize) -> Result<Vec<f32>> {
        let bytes = tensor.ty.row_bytes(tensor.cols);
        let mut out = vec![0.0; tensor.cols];
        let mut stored = Vec::new();
        dequantize_row(tensor.ty, tensor.data.piece(row * bytes..(row + 1) * bytes, &mut stored)?, &mut out)?;
        out.iter_mut().for_each(|x| *x *= tensor.scale);
        Ok(out)
    }

    /// The first, the middle and the last layer of those with attention.
    fn some_layers(&self) -> Vec<usize> {
        let layers = self.config.layers.iter().enumerate().filter(|(_, layer)| layer.attention().is_there());
        let all: Vec<usize> = layers.map(|(i, _)| i).collect();
        let places = [Some(0), Some(all.len() / 2), all.len().checked_sub(1)];
        let mut layers: Vec<usize> = places.into_iter().flatten().filter_map(|i| all.get(i).copied()).collect();
        layers.dedup();
        layers
    }

    /// Another device with the same file. Silent; under the engine's own cap.
    fn other_device(&self, device: &str) -> Result<Engine> {
        let (n_threads, memory_cap) = (self.engine.n_threads(), self.engine.memory_cap());
        let n_threads = if self.engine.device_name().starts_with("cuda") { 0 } else { n_threads };
        Engine::new(EngineOptions { device, n_threads, memory_cap, log: LogSink::silent() })
    }

    /// What rounding to f16 at eight places of each layer can add up to: the normalized mean squared error that is no
    /// fault. The unit roundoff of f16 is 2^-11.
    fn rounding(&self) -> f64 {
        8.0 * self.config.n_layers().max(4) as f64 * 2.0_f64.powi(-22)
    }
}

/// The rows that a watch has seen; the watch goes on.
fn take(rows: &Rows) -> Vec<Row> {
    std::mem::take(&mut *rows.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Normalized mean squared error; infinite where there is a NaN.
fn nmse(x: &[f32], exact: &[f32]) -> f64 {
    let error: f64 = x.iter().zip(exact).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let norm: f64 = exact.iter().map(|b| f64::from(*b).powi(2)).sum();
    match error {
        0.0 if x.len() == exact.len() => 0.0,
        error if error.is_finite() && norm > 0.0 => error / norm,
        _ => f64::INFINITY,
    }
}

/// Whether two rows are the same bits.
fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// The index of the largest, the first of equal ones.
fn argmax(x: &[f32]) -> u32 {
    let mut best = 0;
    for (i, x_i) in x.iter().enumerate() {
        if *x_i > x[best] {
            best = i;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests;
