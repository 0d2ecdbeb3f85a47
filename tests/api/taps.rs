//! Who wants an activation gets it, and nothing else is brought: counted behind the trait, on every device that is there.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crate::common::hooked::{Hook, Hooked};
use crate::common::run::{NoControl, chunk, reserve};
use crate::common::tiny::{ARCHS, Tiny, on_gpus};
use kigo::backend::{
    self, Chunk, Device, LoadOptions, LoadedModel, PAGE_TOKENS, RunControl, TAP_NAMES, TapEvent, TapObserver,
};
use kigo::engine::{EmbedOptions, Engine, LogSink, Session, SessionOptions, Tap};
use kigo::gguf::{Gguf, TensorType};
use kigo::model::bind;

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

/// Counts what a device shows.
#[derive(Default)]
struct Counts(Mutex<Shown>);

impl Hook for Counts {
    fn shown(&self, event: &TapEvent<'_>) {
        let mut shown = self.0.lock().unwrap();
        let (n, rows) = shown.entry((event.name.to_owned(), event.layer)).or_default();
        *n += 1;
        *rows += event.rows;
    }
}

fn tokens(n: usize, n_vocab: usize) -> Vec<u32> {
    (0..n as u64).map(|i| (crate::common::random::mix(i + 11) % n_vocab as u64) as u32).collect()
}

#[test]
fn an_embedding_brings_the_last_layer_s_states_alone() {
    for name in DEVICES {
        let Some(device) = open(name) else { continue };
        for arch in if name.starts_with("cuda") { on_gpus() } else { &ARCHS[..] } {
            let counts = Arc::new(Counts::default());
            let counting = Arc::new(Hooked::new(Arc::clone(&device), Arc::<Counts>::clone(&counts)));
            let engine = Engine::with_device(counting, 2, None, LogSink::silent());
            let bytes = Tiny::new(arch, TensorType::Q8_0).bytes();
            let model = engine.load_memory(&bytes, &mut |_, _| Ok(())).unwrap();
            // A prompt's pass, several of them, and single steps.
            for n in [1, 3, 130] {
                counts.0.lock().unwrap().clear();
                let ids = tokens(n, model.facts().n_vocab);
                let mut out = vec![f32::NAN; model.facts().n_embd];
                model.embed(&ids, EmbedOptions::default(), &mut out).unwrap();
                assert!(out.iter().all(|x| x.is_finite()));
                let last = model.facts().n_layers as i32 - 1;
                let shown = counts.0.lock().unwrap();
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
        let counts = Arc::new(Counts::default());
        let counting = Arc::new(Hooked::new(device, Arc::<Counts>::clone(&counts)));
        let engine = Engine::with_device(counting, 2, None, LogSink::silent());
        let bytes = Tiny::new("qwen2", TensorType::Q8_0).bytes();
        let model = engine.load_memory(&bytes, &mut |_, _| Ok(())).unwrap();
        for wanted in [&["k_rope"][..], &["embed", "ffn_act", "logits"], &[]] {
            counts.0.lock().unwrap().clear();
            let mask = TAP_NAMES.iter().enumerate().filter(|(_, n)| wanted.contains(n)).map(|(i, _)| 1 << i).sum();
            let session = Session::new(&model, SessionOptions::default()).unwrap();
            session.set_tap(Some(Tap::new(mask, Box::new(|_| true)))).unwrap();
            session.prefill(&tokens(40, model.facts().n_vocab)).unwrap();
            session.prefill(&[1]).unwrap();
            let shown = counts.0.lock().unwrap();
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
