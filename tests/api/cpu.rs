//! The CPU backend: equal to the reference within its formats' precision, and to itself bit for bit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::common::run::{NoControl, reserve, state_of, tapped};
use crate::common::tiny::{ARCHS, Tiny};
use kigo::backend::cpu::{CpuDevice, CpuOptions, Isa};
use kigo::backend::reference::ReferenceDevice;
use kigo::backend::{
    Chunk, Device, LoadControl, LoadOptions, LoadedModel, PAGE_TOKENS, RunControl, Slot, TapEvent, Want,
};
use kigo::error::{Error, Result};
use kigo::gguf::{Gguf, TensorType};
use kigo::model::{Layer, Recurrent, bind};

fn load(device: &dyn Device, file: &[u8]) -> Arc<dyn LoadedModel> {
    let gguf = Gguf::from_bytes(file).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    device.load(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap()
}

fn cpu(n_threads: usize, isa: Option<Isa>) -> CpuDevice {
    CpuDevice::new(CpuOptions { n_threads, isa }).unwrap()
}

/// One sequence with pages of its own.
struct Sequence {
    pages: Vec<u32>,
    slot: Box<dyn Slot>,
    tokens: Vec<u32>,
    done: usize,
}

impl Sequence {
    fn new(model: &dyn LoadedModel, tokens: &[u32], first_page: u32) -> Sequence {
        let n = tokens.len().div_ceil(PAGE_TOKENS) as u32;
        reserve(model, (first_page + n) as usize);
        let slot = model.create_slot().unwrap();
        Sequence { pages: (first_page..first_page + n).collect(), slot, tokens: tokens.to_vec(), done: 0 }
    }

    fn chunk(&mut self, n: usize) -> Chunk<'_> {
        let start = self.done;
        self.done += n;
        let tokens = &self.tokens[start..start + n];
        let (pages, slot, state) = (&*self.pages, &mut *self.slot, state_of(start, &self.pages));
        Chunk { tokens, start, pages, slot, want: Want::Last, by_steps: false, state, keeps_cache: false }
    }

    fn logits(&mut self, model: &dyn LoadedModel) -> Vec<f32> {
        let mut out = vec![f32::NAN; model.config().n_vocab];
        model.logits(&mut *self.slot, &mut out).unwrap();
        assert!(out.iter().all(|l| l.is_finite()));
        out
    }
}

fn forward(model: &dyn LoadedModel, chunks: &mut [Chunk<'_>]) {
    let cancel = AtomicBool::new(false);
    model.forward(chunks, &mut RunControl { cancel: &cancel, tap: None }).unwrap();
}

/// Logits after each of the pieces.
fn run(model: &dyn LoadedModel, tokens: &[u32], pieces: &[usize]) -> Vec<Vec<f32>> {
    let mut s = Sequence::new(model, tokens, 0);
    let mut out = Vec::new();
    for &n in pieces {
        forward(model, &mut [s.chunk(n)]);
        out.push(s.logits(model));
    }
    out
}

fn some_tokens(n: usize, n_vocab: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i * 31 + i * 7 + 3) % n_vocab) as u32).collect()
}

fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|x| x.to_bits()).collect()
}

/// Normalized mean squared error.
fn nmse(x: &[f32], exact: &[f32]) -> f64 {
    let error: f64 = x.iter().zip(exact).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    error / exact.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()
}

/// The experts of each layer and position.
type Chosen = Vec<((i32, usize), Vec<f32>)>;

/// The logits after 80 tokens and after 10 more, and the experts of all.
fn logits_and_experts(device: &dyn Device, file: &[u8]) -> (Vec<Vec<f32>>, Chosen) {
    let mut ids = Chosen::new();
    let mut tap = |e: &TapEvent<'_>| {
        let rows = e.data.chunks_exact(e.cols).enumerate().filter(|_| e.name == "moe_ids");
        ids.extend(rows.map(|(i, row)| ((e.layer, e.position + i), row.to_vec())));
    };
    let logits = tapped(&*load(device, file), &some_tokens(90, 500), &[80, 10], Some(&mut tap));
    ids.sort_by_key(|(place, _)| *place);
    (logits, ids)
}

#[test]
fn every_architecture_and_type_agrees_with_the_reference() {
    let device = cpu(2, None);
    let (mut n_parted, mut n_of_experts) = (0, 0);
    for arch in ARCHS {
        for ty in TensorType::ALL {
            let file = Tiny::new(arch, ty).bytes();
            // Experts may tie within what an f16 cache rounds: there it is one that rounds alike.
            let has_experts = bind(&Gguf::from_bytes(&file).unwrap()).unwrap().0.widths().n_experts > 0;
            let reference = if has_experts { ReferenceDevice::F16_CACHE } else { ReferenceDevice::PLAIN };
            n_of_experts += usize::from(has_experts);
            let (exact, exact_ids) = logits_and_experts(&reference, &file);
            let (own, ids) = logits_and_experts(&device, &file);
            if ids != exact_ids {
                println!("{arch} {}: other experts", ty.name());
                n_parted += 1;
                continue;
            }
            for (x, e) in own.iter().zip(&exact) {
                // The cache is f16: a relative rounding of 2^-11 of keys and values, amplified by a few layers;
                // 16-bit activations are finer than that.
                let error = nmse(x, e);
                assert!(error < 2.0_f64.powi(-18), "{arch} {}: {error:e}", ty.name());
            }
        }
    }
    // Where a number of the cache lies between two of f16, rounding alike parts them all the same.
    assert!(n_parted * 50 <= n_of_experts, "{n_parted} of {n_of_experts} models of experts choose others");
}

/// A model of NVFP4 or Q8_0 whose matrices have scales beside them, or blocks whose scales are twice as large.
fn with_scales(ty: TensorType, scale: Option<f32>, twice: bool) -> Vec<u8> {
    let tiny = Tiny::new("llama", ty);
    let specs = tiny.shape.tensors();
    let mut writer = tiny.writer();
    for spec in specs.iter().filter(|spec| scale.is_some() && tiny.type_of(spec) == ty) {
        let stem = spec.name.strip_suffix(".weight").expect("a matrix");
        writer.tensor(&format!("{stem}.scale"), TensorType::F32, &[1]);
        writer.tensor(&format!("{stem}.input_scale"), TensorType::F32, &[1]);
    }
    writer.to_bytes(|i, out| match specs.get(i) {
        Some(spec) => {
            tiny.fill(spec, out);
            if !twice || tiny.type_of(spec) != ty {
                return;
            }
            // One more in the exponent.
            for block in out.chunks_exact_mut(ty.block_bytes()) {
                if ty == TensorType::Nvfp4 {
                    // Neither a subnormal nor so large that there is none twice as large.
                    assert!(block[..4].iter().all(|s| (8..0x70).contains(s)), "{block:?}");
                    block[..4].iter_mut().for_each(|s| *s += 8);
                } else {
                    assert!((4..0x78).contains(&block[1]), "{block:?}");
                    block[1] += 4;
                }
            }
        }
        None => out.copy_from_slice(&scale.unwrap_or(0.0).to_le_bytes()),
    })
}

#[test]
fn the_scale_of_a_tensor_counts_as_those_of_its_blocks() {
    use TensorType::{Nvfp4, Q8_0};
    let tokens = some_tokens(40, 500);
    for (device, ty) in
        [&ReferenceDevice::PLAIN as &dyn Device, &cpu(2, None)].into_iter().flat_map(|d| [(d, Nvfp4), (d, Q8_0)])
    {
        let files = [with_scales(ty, Some(2.0), false), with_scales(ty, None, true), with_scales(ty, None, false)];
        let [scaled, doubled, plain] = files.each_ref().map(|file| run(&*load(device, file), &tokens, &[30, 10]));
        for ((a, b), c) in scaled.iter().zip(&doubled).zip(&plain) {
            assert_eq!(bits(a), bits(b));
            assert!(nmse(a, c) > 1e-3, "the scale changes nothing");
        }
    }
    let refused = |file: &[u8]| bind(&Gguf::from_bytes(file).unwrap()).unwrap_err().to_string();
    let infinite = refused(&with_scales(Nvfp4, Some(f32::INFINITY), false));
    assert!(infinite.contains("token_embd.scale") && infinite.contains("inf"), "{infinite}");
}

#[test]
fn a_rope_with_a_magnitude_and_divisors_agrees_with_the_reference() {
    let device = cpu(2, None);
    for arch in ["llama", "qwen2", "gemma3"] {
        let file = Tiny::new(arch, TensorType::Q8_0).bytes();
        let gguf = Gguf::from_bytes(&file).unwrap();
        let (mut config, weights) = bind(&gguf).unwrap();
        for rope in &mut config.ropes {
            rope.magnitude = 1.25;
            rope.position_scale = 0.5;
            rope.divisors = Some((0..rope.inv_freq.len()).map(|i| 1.0 + i as f32).collect());
        }
        let tokens = some_tokens(90, 500);
        let logits = |device: &dyn Device| {
            run(&*device.load(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap(), &tokens, &[80, 10])
        };
        let plain = run(&*load(&device, &file), &tokens, &[80, 10]);
        for ((x, e), plain) in logits(&device).iter().zip(&logits(&ReferenceDevice::PLAIN)).zip(&plain) {
            assert!(nmse(x, e) < 2.0_f64.powi(-18), "{arch}: {:e}", nmse(x, e));
            assert!(nmse(plain, e) > 1e-4, "{arch}: the change changes something: {:e}", nmse(plain, e));
        }
    }
}

#[test]
fn stages_agree_with_the_reference_and_a_tap_changes_nothing() {
    for arch in ARCHS {
        let file = Tiny::new(arch, TensorType::Q8_0).bytes();
        let tokens = some_tokens(70, 500);
        let taps = |device: &dyn Device| {
            let model = load(device, &file);
            let mut s = Sequence::new(&*model, &tokens, 0);
            let mut seen: HashMap<(&str, i32, usize), Vec<f32>> = HashMap::new();
            let mut tap = |e: &TapEvent<'_>| {
                for (r, row) in e.data.chunks_exact(e.cols).enumerate() {
                    assert!(seen.insert((e.name, e.layer, e.position + r), row.to_vec()).is_none(), "{} twice", e.name);
                }
            };
            let cancel = AtomicBool::new(false);
            model.forward(&mut [s.chunk(70)], &mut RunControl { cancel: &cancel, tap: Some(&mut tap) }).unwrap();
            (seen, s.logits(&*model), run(&*model, &tokens, &[70]).remove(0))
        };
        // Keys and values rounded to f16 there too: a stage of a layer without norms may multiply that error several times.
        let (exact, _, _) = taps(&ReferenceDevice::F16_CACHE);
        let (own, tapped, untapped) = taps(&cpu(2, None));
        assert_eq!(bits(&tapped), bits(&untapped), "{arch}");
        let (config, _) = bind(&Gguf::from_bytes(&file).unwrap()).unwrap();
        // Ten stages a layer, twelve of one with experts, and the embedding for each token; norm and logits for the last. Keys and
        // values only of a layer that has some of its own, no values of one whose keys are latents. A gate is one more; in the place of
        // queries, keys, values and their mix a state has its own.
        let of_layer = |l: &Layer| {
            let a = l.attention();
            let of_ffn = if l.has_ffn() { 3 + 2 * usize::from(l.experts().is_some()) } else { 0 };
            let of_attention = match a.kv_from {
                _ if !a.is_there() => 0,
                Some(_) => 2,
                None => 4 - usize::from(a.latent.is_some()) + usize::from(a.gated),
            };
            let of_state = match l.recurrent {
                Some(Recurrent::ShortConv(_)) => 2,
                Some(Recurrent::DeltaNet(_) | Recurrent::Mamba2(_)) => 5,
                None => 0,
            };
            1 + of_ffn + if l.has_mixer() { 2 + of_attention + of_state } else { 0 }
        };
        let n_stages: usize = config.layers.iter().map(of_layer).sum();
        assert_eq!(own.len(), (n_stages + 1) * 70 + 2, "{arch}");
        for (key, x) in &own {
            let e = exact.get(key).unwrap_or_else(|| panic!("{arch}: the reference has no {key:?}"));
            // Ids may be zeros all, of which an error has no share.
            let error = if x == e { 0.0 } else { nmse(x, e) };
            // As above.
            assert!(error < 2.0_f64.powi(-18), "{arch} {key:?}: {error:e}");
        }
    }
}

#[test]
fn results_are_the_same_bits_for_any_threads_chunks_and_instructions() {
    for (arch, ty) in [
        ("llama", TensorType::Q4_K),
        ("gemma3", TensorType::F16),
        ("qwen2", TensorType::Q5_0),
        ("falcon-h1", TensorType::Q4_K),
        ("nemotron_h", TensorType::Q5_0),
    ] {
        let file = Tiny::new(arch, ty).bytes();
        // Beyond two spans of the attention and many pages; the prompt's last piece starts on no boundary.
        let n = 1100;
        let tokens = some_tokens(n + 3, 500);
        let expected = run(&*load(&cpu(1, None), &file), &tokens, &[n, 1, 1, 1]);
        let pieces: [&[usize]; 3] = [&[300, 477, 323, 1, 1, 1], &[64, 1, 63, 512, 460, 1, 1, 1], &[1099, 1, 1, 1, 1]];
        for n_threads in [1, 2, 3, 5] {
            let model = load(&cpu(n_threads, None), &file);
            for p in pieces {
                let got = run(&*model, &tokens, p);
                for (a, b) in got[got.len() - 4..].iter().zip(&expected) {
                    assert_eq!(bits(a), bits(b), "{arch} {}: {n_threads} threads, {p:?}", ty.name());
                }
            }
        }
        let short = &tokens[..150];
        let expected = run(&*load(&cpu(1, None), &file), short, &[149, 1]);
        let one_by_one = run(&*load(&cpu(2, None), &file), short, &[1; 150]);
        assert_eq!(bits(&one_by_one[149]), bits(&expected[1]), "{arch}: one by one");
        for isa in Isa::available() {
            let got = run(&*load(&cpu(2, Some(isa)), &file), short, &[149, 1]);
            assert_eq!(bits(&got[1]), bits(&expected[1]), "{arch} {isa:?}");
        }
    }
}

#[test]
fn company_in_a_batch_changes_nothing() {
    let file = Tiny::new("qwen3", TensorType::Q4_0).bytes();
    let model = load(&cpu(2, None), &file);
    let all: Vec<Vec<u32>> = (0..5).map(|i| some_tokens(600 + 70 * i, 400 + 20 * i)).collect();
    let alone: Vec<Vec<Vec<f32>>> = all.iter().map(|t| run(&*model, t, &[t.len() - 2, 1, 1])).collect();
    let mut batch: Vec<Sequence> = Vec::new();
    let mut page = 0;
    for t in &all {
        batch.push(Sequence::new(&*model, t, page));
        page += batch.last().unwrap().pages.len() as u32;
    }
    for (step, &back) in [2, 1, 0].iter().enumerate() {
        let mut chunks: Vec<Chunk<'_>> =
            batch.iter_mut().rev().map(|s| s.chunk(s.tokens.len() - s.done - back)).collect();
        forward(&*model, &mut chunks);
        for (s, alone) in batch.iter_mut().zip(&alone) {
            assert_eq!(bits(&s.logits(&*model)), bits(&alone[step]));
        }
    }
}

#[test]
fn a_cancelled_pass_can_be_repeated() {
    let file = Tiny::new("llama", TensorType::Q4_1).bytes();
    let model = load(&cpu(2, None), &file);
    let tokens = some_tokens(300, 500);
    let expected = run(&*model, &tokens, &[200, 100]);
    let mut s = Sequence::new(&*model, &tokens, 0);
    forward(&*model, &mut [s.chunk(200)]);
    let cancel = AtomicBool::new(true);
    let result = model.forward(&mut [s.chunk(100)], &mut RunControl { cancel: &cancel, tap: None });
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(bits(&s.logits(&*model)), bits(&expected[0]), "the logits stay those of the last pass that ended");
    s.done = 200;
    forward(&*model, &mut [s.chunk(100)]);
    assert_eq!(bits(&s.logits(&*model)), bits(&expected[1]));
}

#[test]
fn wrong_tokens_and_pages_are_errors() {
    let file = Tiny::new("llama", TensorType::F32).bytes();
    let model = load(&cpu(1, None), &file);
    let n_vocab = model.config().n_vocab;
    let cancel = AtomicBool::new(false);
    let mut s = Sequence::new(&*model, &[1, 2, n_vocab as u32], 0);
    let result = model.forward(&mut [s.chunk(3)], &mut RunControl { cancel: &cancel, tap: None });
    assert!(matches!(result, Err(Error::TokenOutOfRange { index: 2, .. })));
    let mut s = Sequence::new(&*model, &[1; 65], 0);
    s.pages = vec![0, 10_000];
    let result = model.forward(&mut [s.chunk(65)], &mut RunControl { cancel: &cancel, tap: None });
    assert!(matches!(result, Err(Error::Internal { .. })));
    assert!(CpuDevice::new(CpuOptions { n_threads: 5000, isa: None }).is_err());
}

#[test]
fn loading_shows_progress_and_stops_when_told() {
    struct Stop(Vec<(u64, u64)>, usize);
    impl LoadControl for Stop {
        fn progress(&mut self, done: u64, total: u64) -> Result<()> {
            self.0.push((done, total));
            if self.0.len() > self.1 { Err(Error::Cancelled) } else { Ok(()) }
        }
    }
    let file = Tiny::new("llama", TensorType::Q8_0).bytes();
    let gguf = Gguf::from_bytes(&file).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let device = cpu(2, None);
    let mut all = Stop(Vec::new(), usize::MAX);
    device.load(&config, &weights, &LoadOptions::default(), &mut all).unwrap();
    let (done, total) = *all.0.last().unwrap();
    assert!(done == total && total > 0 && all.0.windows(2).all(|w| w[0].0 <= w[1].0));
    let mut stop = Stop(Vec::new(), 3);
    assert!(matches!(device.load(&config, &weights, &LoadOptions::default(), &mut stop), Err(Error::Cancelled)));
    assert_eq!(stop.0.len(), 4);
}
