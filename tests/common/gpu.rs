//! A GPU, sequences on its models, files of random weights.

use std::ops::Deref;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kigo::backend::cuda::{CudaDevice, CudaModel};
use kigo::backend::{Chunk, LoadControl, LoadOptions, LoadedModel, PAGE_TOKENS, RunControl, Slot, TapEvent};
use kigo::error::Result;
use kigo::gguf::{Gguf, TensorType, Writer, quantize_row};
use kigo::model::bind;
use kigo::sampler::{self, SampleRequest, SamplingParams};

use super::recipes::Recipe;
use super::run::{chunk, reserve};
use super::shapes::Shape;
use super::vocab;

/// Tests that measure the device's memory or time run while no other test has it.
static TURNS: RwLock<()> = RwLock::new(());

/// A GPU for as long as this lives.
pub struct Held<T> {
    device: CudaDevice,
    _turn: T,
}

impl<T> Deref for Held<T> {
    type Target = CudaDevice;
    fn deref(&self) -> &CudaDevice {
        &self.device
    }
}

/// The GPU, shared with other tests, or why there is none; with KIGO_REQUIRE_CUDA=1 that is a failure.
pub fn device() -> Option<Held<RwLockReadGuard<'static, ()>>> {
    Some(Held { device: first()?, _turn: TURNS.read().unwrap_or_else(PoisonError::into_inner) })
}

/// The GPU, for this test alone.
pub fn device_alone() -> Option<Held<RwLockWriteGuard<'static, ()>>> {
    Some(Held { device: first()?, _turn: TURNS.write().unwrap_or_else(PoisonError::into_inner) })
}

fn first() -> Option<CudaDevice> {
    match CudaDevice::new(0) {
        Ok(device) => Some(device),
        Err(e) if std::env::var("KIGO_REQUIRE_CUDA").is_ok_and(|v| v == "1") => panic!("{e}"),
        Err(e) => {
            println!("skipped: no CUDA device ({e})");
            None
        }
    }
}

/// KIGO_FEW: less of everything, for checkers that take their time and for the emulated device.
pub fn few() -> bool {
    std::env::var_os("KIGO_FEW").is_some()
}

/// Lets a load run.
pub struct NoControl;

impl LoadControl for NoControl {
    fn progress(&mut self, _done: u64, _total: u64) -> Result<()> {
        Ok(())
    }
}

/// The model of a file's bytes.
pub fn load(device: &CudaDevice, bytes: &[u8]) -> Arc<CudaModel> {
    let gguf = Gguf::from_bytes(bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    device.load_model(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap()
}

/// `n` tokens, any.
pub fn tokens(n: usize, n_vocab: usize) -> Vec<u32> {
    (0..n as u64).map(|i| (super::random::mix(i + 7) % n_vocab as u64) as u32).collect()
}

/// A sequence on a model: all pages it may need, in reverse order.
pub struct Sequence {
    pub slot: Box<dyn Slot>,
    pub pages: Vec<u32>,
}

impl Sequence {
    pub fn new(model: &dyn LoadedModel, n_ctx: usize) -> Sequence {
        let n = n_ctx.div_ceil(PAGE_TOKENS);
        reserve(model, n);
        Sequence { slot: model.create_slot_for(n_ctx).unwrap(), pages: (0..n as u32).rev().collect() }
    }

    pub fn run(
        &mut self,
        model: &dyn LoadedModel,
        tokens: &[u32],
        start: usize,
        tap: Option<&mut dyn FnMut(&TapEvent<'_>)>,
    ) -> Vec<f32> {
        self.run_as(model, tokens, start, tokens.len() < model.steps_below(), tap)
    }

    /// The same as steps, or as part of a prompt.
    pub fn run_as(
        &mut self,
        model: &dyn LoadedModel,
        tokens: &[u32],
        start: usize,
        by_steps: bool,
        tap: Option<&mut dyn FnMut(&TapEvent<'_>)>,
    ) -> Vec<f32> {
        let mut chunks = [Chunk { by_steps, ..chunk(model, &mut *self.slot, tokens, start, &self.pages) }];
        let cancel = AtomicBool::new(false);
        match tap {
            Some(tap) => {
                let mut see = |e: &TapEvent<'_>| tap(e);
                model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap: Some(&mut see) }).unwrap();
            }
            None => model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap: None }).unwrap(),
        }
        let mut logits = vec![f32::NAN; model.config().n_vocab];
        model.logits(&mut *self.slot, &mut logits).unwrap();
        logits
    }
}

/// A file of random weights; `all_rows`: every row its own numbers, else one piece of each type over and over.
pub fn random_file(shape: &Shape, recipe: Recipe, all_rows: bool) -> Vec<u8> {
    let mut writer = Writer::new(3);
    shape.write_meta(&mut writer, recipe.file_type);
    vocab::write(&mut writer, shape.pre, shape.n_vocab);
    let specs = shape.tensors();
    let types: Vec<TensorType> = specs.iter().map(|s| recipe.type_of(shape, s)).collect();
    for (spec, ty) in specs.iter().zip(&types) {
        writer.tensor(&spec.name, *ty, &spec.dims());
    }
    writer.to_bytes(|i, out| {
        let (spec, ty) = (&specs[i], types[i]);
        let row_bytes = ty.row_bytes(spec.cols);
        let n_rows = if all_rows { spec.rows } else { spec.rows.min(64) };
        let mut row = vec![0.0; spec.cols];
        for r in 0..n_rows {
            super::random::fill_row(spec, 1, r as u64, &mut row);
            quantize_row(ty, &row, &mut out[r * row_bytes..(r + 1) * row_bytes]).unwrap();
        }
        let (pattern, rest) = out.split_at_mut(n_rows * row_bytes);
        for piece in rest.chunks_mut(pattern.len()) {
            piece.copy_from_slice(&pattern[..piece.len()]);
        }
    })
}

/// Tokens that are sampled on the host, one by one.
pub fn step_by_step(
    model: &dyn LoadedModel,
    sequence: &mut Sequence,
    prompt: &[u32],
    n: usize,
    params: &SamplingParams,
) -> Vec<u32> {
    let mut history = prompt.to_vec();
    let mut logits = sequence.run(model, prompt, 0, None);
    for _ in 0..n {
        let request = SampleRequest { params, history: &history, position: history.len() as u64 };
        let token = sampler::sample(&logits, &request).unwrap().token;
        assert_eq!(model.sample(&mut *sequence.slot, &request).unwrap().token, token);
        logits = sequence.run(model, &[token], history.len(), None);
        history.push(token);
    }
    history.split_off(prompt.len())
}
