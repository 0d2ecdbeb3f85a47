//! Who wants an activation gets it, and nothing else is brought: counted behind the trait, on every device that is there.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crate::common::run::{NoControl, chunk, reserve};
use crate::common::tiny::{ARCHS, Tiny, gpu_archs};
use kigo::backend::{
    self, Chunk, Device, LoadControl, LoadOptions, LoadedModel, PAGE_TOKENS, Plan, RunControl, Slot, TAP_NAMES,
    TapEvent, TapObserver,
};
use kigo::engine::{EmbedOptions, Engine, LogSink, Session, SessionOptions, Tap};
use kigo::error::Result;
use kigo::gguf::{Gguf, TensorType};
use kigo::model::{Config, Weights, bind};
use kigo::sampler::{SampleRequest, Sampled};

const DEVICES: [&str; 3] = ["reference", "cpu", "cuda:0"];

/// The device, unless this machine has none of that name.
fn open(name: &str) -> Option<Arc<dyn Device>> {
    match backend::open(name, 2) {
        Ok(device) => Some(device),
        Err(error) => {
            assert!(name.starts_with("cuda"), "{error}");
            println!("skipped: {error}");
            None
        }
    }
}

/// What a device has shown: of each activation how often, and its rows.
type Shown = BTreeMap<(String, i32), (usize, usize)>;

/// A device that counts what it shows.
struct Counting(Arc<dyn Device>, Arc<Mutex<Shown>>);

struct CountingModel(Arc<dyn LoadedModel>, Arc<Mutex<Shown>>);

struct CountingObserver<'a>(&'a mut dyn TapObserver, &'a Mutex<Shown>);

impl TapObserver for CountingObserver<'_> {
    fn wants(&self, name: &str, layer: i32) -> bool {
        self.0.wants(name, layer)
    }
    fn show(&mut self, event: &TapEvent<'_>) {
        let mut shown = self.1.lock().unwrap();
        let (n, rows) = shown.entry((event.name.to_owned(), event.layer)).or_default();
        *n += 1;
        *rows += event.rows;
        self.0.show(event);
    }
}

impl Device for Counting {
    fn name(&self) -> String {
        self.0.name()
    }
    fn plan(&self, config: &Config, weights: &Weights<'_>) -> Plan {
        self.0.plan(config, weights)
    }
    fn load(
        &self,
        config: &Config,
        weights: &Weights<'_>,
        options: &LoadOptions,
        control: &mut dyn LoadControl,
    ) -> Result<Arc<dyn LoadedModel>> {
        Ok(Arc::new(CountingModel(self.0.load(config, weights, options, control)?, Arc::clone(&self.1))))
    }
}

impl LoadedModel for CountingModel {
    fn config(&self) -> &Config {
        self.0.config()
    }
    fn plan(&self) -> Plan {
        self.0.plan()
    }
    fn reserve_pages(&self, n: usize) -> Result<()> {
        self.0.reserve_pages(n)
    }
    fn release_page(&self, page: u32) {
        self.0.release_page(page);
    }
    fn reserve_states(&self, n: usize, in_use: usize) -> Result<()> {
        self.0.reserve_states(n, in_use)
    }
    fn release_state(&self, state: u32, in_use: usize) {
        self.0.release_state(state, in_use);
    }
    fn create_slot_for(&self, n_ctx: usize) -> Result<Box<dyn Slot>> {
        self.0.create_slot_for(n_ctx)
    }
    fn forward(&self, chunks: &mut [Chunk<'_>], run: &mut RunControl<'_>) -> Result<()> {
        let cancel = run.cancel;
        match run.tap.as_deref_mut() {
            None => self.0.forward(chunks, run),
            Some(tap) => {
                let mut counting = CountingObserver(tap, &self.1);
                self.0.forward(chunks, &mut RunControl { cancel, tap: Some(&mut counting) })
            }
        }
    }
    fn logits(&self, slot: &mut dyn Slot, out: &mut [f32]) -> Result<()> {
        self.0.logits(slot, out)
    }
    fn sample(&self, slot: &mut dyn Slot, request: &SampleRequest<'_>) -> Result<Sampled> {
        self.0.sample(slot, request)
    }
    fn prefill_chunk(&self) -> usize {
        self.0.prefill_chunk()
    }
}

fn tokens(n: usize, n_vocab: usize) -> Vec<u32> {
    (0..n as u64).map(|i| (crate::common::random::mix(i + 11) % n_vocab as u64) as u32).collect()
}

#[test]
fn an_embedding_brings_the_last_layer_s_states_alone() {
    for name in DEVICES {
        let Some(device) = open(name) else { continue };
        for arch in if name.starts_with("cuda") { gpu_archs() } else { ARCHS.to_vec() } {
            let shown = Arc::<Mutex<Shown>>::default();
            let counting = Arc::new(Counting(Arc::clone(&device), Arc::clone(&shown)));
            let engine = Engine::with_device(counting, 2, None, LogSink::silent());
            let bytes = Tiny::new(arch, TensorType::Q8_0).bytes();
            let model = engine.load_memory(&bytes, &mut |_, _| Ok(())).unwrap();
            // A prompt's pass, several of them, and single steps.
            for n in [1, 3, 130] {
                shown.lock().unwrap().clear();
                let ids = tokens(n, model.facts().n_vocab);
                let mut out = vec![f32::NAN; model.facts().n_embd];
                model.embed(&ids, EmbedOptions::default(), &mut out).unwrap();
                assert!(out.iter().all(|x| x.is_finite()));
                let last = model.facts().n_layers as i32 - 1;
                let shown = shown.lock().unwrap();
                assert!(last > 0 && shown.len() == 1, "{name} {arch}: {shown:?}");
                let (_, rows) = shown[&("resid".to_owned(), last)];
                assert_eq!(rows, n, "{name} {arch}: {shown:?}");
            }
        }
    }
}

#[test]
fn a_session_s_tap_brings_what_its_mask_names() {
    for name in DEVICES {
        let Some(device) = open(name) else { continue };
        let shown = Arc::<Mutex<Shown>>::default();
        let counting = Arc::new(Counting(device, Arc::clone(&shown)));
        let engine = Engine::with_device(counting, 2, None, LogSink::silent());
        let bytes = Tiny::new("qwen2", TensorType::Q8_0).bytes();
        let model = engine.load_memory(&bytes, &mut |_, _| Ok(())).unwrap();
        for wanted in [&["k_rope"][..], &["embed", "ffn_act", "logits"], &[]] {
            shown.lock().unwrap().clear();
            let mask = TAP_NAMES.iter().enumerate().filter(|(_, n)| wanted.contains(n)).map(|(i, _)| 1 << i).sum();
            let session = Session::new(&model, SessionOptions::default()).unwrap();
            session.set_tap(Some(Tap::new(mask, Box::new(|_| true)))).unwrap();
            session.prefill(&tokens(40, model.facts().n_vocab)).unwrap();
            session.prefill(&[1]).unwrap();
            let shown = shown.lock().unwrap();
            for name in TAP_NAMES {
                let n = shown.keys().filter(|(shown, _)| shown == name).count();
                let outside = ["embed", "final_norm", "logits"].contains(&name);
                let all = if outside { 1 } else { model.facts().n_layers };
                assert_eq!(n, if wanted.contains(&name) { all } else { 0 }, "{name} of {wanted:?}: {shown:?}");
            }
        }
    }
}

/// One activation of one layer, or all of them.
struct Only {
    of: Option<(&'static str, i32)>,
    seen: Vec<(&'static str, i32, usize, Vec<u32>)>,
}

impl TapObserver for Only {
    fn wants(&self, name: &str, layer: i32) -> bool {
        self.of.is_none_or(|of| of == (name, layer))
    }
    fn show(&mut self, e: &TapEvent<'_>) {
        self.seen.push((e.name, e.layer, e.position, e.data.iter().map(|x| x.to_bits()).collect()));
    }
}

/// What an observer sees of passes of 1, 70 and 2 tokens, and the bits of the last logits.
fn observe(model: &dyn LoadedModel, of: Option<(&'static str, i32)>) -> (Only, Vec<u32>) {
    let tokens = tokens(73, model.config().n_vocab);
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_TOKENS) as u32).collect();
    reserve(model, pages.len());
    let (mut slot, mut only) = (model.create_slot().unwrap(), Only { of, seen: Vec::new() });
    for range in [0..1, 1..71, 71..73] {
        let (tokens, start) = (&tokens[range.clone()], range.start);
        let mut chunks = [Chunk { by_steps: false, ..chunk(model, &mut *slot, tokens, start, &pages) }];
        let cancel = AtomicBool::new(false);
        model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap: Some(&mut only) }).unwrap();
    }
    let mut logits = vec![f32::NAN; model.config().n_vocab];
    model.logits(&mut *slot, &mut logits).unwrap();
    (only, logits.iter().map(|x| x.to_bits()).collect())
}

#[test]
fn one_activation_is_the_same_alone_as_among_all() {
    for name in DEVICES {
        let Some(device) = open(name) else { continue };
        for arch in ["llama", "gemma3"] {
            let bytes = Tiny::new(arch, TensorType::Q8_0).bytes();
            let gguf = Gguf::from_bytes(&bytes).unwrap();
            let (config, weights) = bind(&gguf).unwrap();
            let model = device.load(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap();
            let (all, logits) = observe(&*model, None);
            let last = config.n_layers() as i32 - 1;
            for of in [("embed", -1), ("attn_mix", 0), ("q_rope", last), ("resid", last), ("final_norm", -1)] {
                let (one, same) = observe(&*model, Some(of));
                let among: Vec<_> = all.seen.iter().filter(|(name, layer, ..)| (*name, *layer) == of).collect();
                assert!(!among.is_empty() && one.seen.iter().eq(among), "{name} {arch} {of:?}");
                assert_eq!(same, logits, "{name} {arch} {of:?}");
            }
        }
    }
}
