//! The GPU backend against the reference, stage by stage, and against itself.
//!
//! Without a device every test prints `skipped: no CUDA device` and passes, unless KIGO_REQUIRE_CUDA=1. KIGO_MODELS names files of
//! real models, colons between; KIGO_FEW leaves much out, for a checker that takes its time and for the emulated
//! device (KIGO_CUDA=emulate).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::gpu::{NoControl, Sequence, device, few, load, random_file, step_by_step, tokens};
use crate::common::recipes::Recipe;
use crate::common::shapes::Shape;
use crate::common::tiny::{Tiny, on_gpus};
use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::backend::cuda::{self, CudaDevice, Tuning};
use kigo::backend::reference::ReferenceDevice;
use kigo::backend::{Device, LoadOptions, LoadedModel, PAGE_TOKENS, TapEvent};
use kigo::gguf::{Gguf, TensorType};
use kigo::model::{Activation, Config, Ffn, Layer, RopePairing, RopeTable, RouteRoom, Weights, bind};
use kigo::sampler::{self, SampleRequest, SamplingParams};

/// Sums of squares of the error and of the truth; NaN passes nothing.
#[derive(Clone, Copy, Default)]
struct Nmse(f64, f64);

impl Nmse {
    fn add(&mut self, x: &[f32], truth: &[f32]) {
        assert_eq!(x.len(), truth.len());
        for (&x, &t) in x.iter().zip(truth) {
            self.0 += (f64::from(x) - f64::from(t)).powi(2);
            self.1 += f64::from(t).powi(2);
        }
    }
    fn value(self) -> f64 {
        self.0 / self.1
    }
}

type Taps = BTreeMap<(i32, &'static str), Vec<f32>>;

fn tapped(model: &dyn LoadedModel, tokens: &[u32], n_ctx: usize) -> (Taps, Vec<f32>) {
    let mut taps = Taps::new();
    let mut sequence = Sequence::new(model, n_ctx);
    let mut see = |e: &TapEvent<'_>| {
        assert_eq!(e.data.len(), e.rows * e.cols);
        taps.entry((e.layer, e.name)).or_default().extend_from_slice(e.data);
    };
    let logits = sequence.run(model, tokens, 0, Some(&mut see));
    (taps, logits)
}

/// The experts of every row are those that its own logits choose, with their weights.
fn chosen_by_logits(name: &str, config: &Config, weights: &Weights<'_>, seen: &Taps) {
    for (i, layer) in config.layers.iter().enumerate() {
        let (Some(experts), Some(w)) = (layer.experts(), weights.layers[i].ffn.experts()) else { continue };
        let bias = w.select_bias.as_ref().map(|t| t.floats().unwrap());
        let (n, k) = (experts.n, experts.n_used);
        let [logits, ids, weights] = ["moe_logits", "moe_ids", "moe_weights"].map(|tap| &seen[&(i as i32, tap)]);
        for (row, logits) in logits.chunks(n).enumerate() {
            let (mut scores, mut keys) = (vec![0.0; n], vec![0; n]);
            let (mut expected, mut weight) = (vec![0; k], vec![0.0; k]);
            let room = RouteRoom { scores: &mut scores, keys: &mut keys };
            experts.route(logits, bias.as_deref(), room, &mut expected, &mut weight);
            let expected: Vec<f32> = expected.into_iter().map(|id| id as f32).collect();
            assert_eq!(ids[row * k..][..k], expected, "{name}: layer {i}, row {row}, of {logits:?}");
            for (seen, w) in weights[row * k..][..k].iter().zip(weight) {
                assert!((seen - w).abs() <= 1e-6 * w.abs(), "{name}: layer {i}, row {row}: {seen}, not {w}");
            }
        }
    }
}

/// The first row that goes through other experts than in the reference, and the layer where it does: rounding has the last word where two
/// experts are as good, and what follows is another computation.
#[derive(Clone, Copy)]
struct Alike {
    row: usize,
    layer: i32,
}

fn rows_alike(config: &Config, truth: &Taps, seen: &Taps) -> Alike {
    let mut alike = Alike { row: usize::MAX, layer: i32::MAX };
    for (i, experts) in config.layers.iter().enumerate().filter_map(|(i, l)| Some((i as i32, l.experts()?))) {
        let rows = truth[&(i, "moe_ids")].chunks(experts.n_used).zip(seen[&(i, "moe_ids")].chunks(experts.n_used));
        let row = rows.enumerate().find(|(_, (a, b))| a != b).map_or(usize::MAX, |(row, _)| row);
        if row < alike.row {
            alike = Alike { row, layer: i };
        }
    }
    alike
}

impl Alike {
    /// How many of a tap's `len` elements are to be compared: of the rows before that one, and of what that one's choice was made from.
    fn of(self, config: &Config, (layer, name): (i32, &str), n_tokens: usize, len: usize) -> usize {
        if self.row == usize::MAX {
            return len;
        }
        let one = match name {
            "logits" => config.n_vocab,
            "final_norm" => config.n_embd,
            _ => len / n_tokens,
        };
        let logits_too = usize::from(name == "moe_logits" && layer <= self.layer);
        // What the last row alone has is behind all.
        if len == one { 0 } else { (self.row + logits_too).min(n_tokens) * one }
    }
}

/// Every stage against the reference, token by token and through the tensor cores.
///
/// An f16 (the cache; activations between products of prefill) adds an NMSE of 2^-22 / 3 at most, everything else has 16 bits
/// or more; a random network passes errors on undamped, so every layer may add as much again. A square doubles an error.
pub fn compare(name: &str, device: &CudaDevice, config: &Config, weights: &Weights<'_>, n_tokens: usize) {
    let cuda = device.load_model(config, weights, &LoadOptions::default(), &mut NoControl).unwrap();
    let reference = ReferenceDevice::PLAIN.load(config, weights, &LoadOptions::default(), &mut NoControl).unwrap();
    let tokens = tokens(n_tokens, config.n_vocab);
    let (truth, _) = tapped(&*reference, &tokens, n_tokens);
    let [a, b, c] = [(256, 4, 2, false), (512, 1, 2, true), (128, 8, 1, true)]
        .map(|(threads, streams, split, deep)| Some(cuda::Shape { threads, per_sm: 1, streams, split, deep }));
    // Through the tensor cores with activations of two halves and of one, then token by token.
    let ways = [(true, Some(true), None), (true, Some(false), None), (false, None, None)];
    let ways = ways.into_iter().chain([a, b, c].map(|shape| (false, None, shape)));
    let quantized = weights.layers.iter().flat_map(|l| l.iter()).any(|t| t.ty.block_len() > 1);
    for (prefill, halves, shape) in ways.take(if few() { 3 } else { 6 }) {
        cuda.tune(Tuning { prefill, halves, shapes: [shape; cuda::Kind::N], ..Tuning::default() });
        let (seen, logits) = tapped(&*cuda, &tokens, n_tokens);
        // Activations of one half, or for steps of integers of 12 bits.
        let each = match (prefill, halves, quantized) {
            (true, Some(false), _) => 8.0,
            (false, _, true) => 12.0,
            _ => 4.0,
        };
        let bound = 2f64.powi(-22) * each * config.n_layers() as f64;
        // What mixers with a state make is a product of two and three things that come from the same input.
        let squares = |l: &Layer| {
            matches!(&l.ffn, Ffn::Dense(ffn) if ffn.activation == Activation::Relu2) || l.recurrent.is_some()
        };
        let bound = if config.layers.iter().any(squares) { 4.0 * bound } else { bound };
        let mut worst = (0.0, (0, ""));
        assert_eq!(seen.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>(), "{name}: other taps");
        chosen_by_logits(name, config, weights, &seen);
        let alike = rows_alike(config, &truth, &seen);
        for (key, t) in &truth {
            assert_eq!(seen[key].len(), t.len(), "{name}: {key:?}");
            let n = alike.of(config, *key, n_tokens, t.len());
            let mut e = Nmse::default();
            e.add(&seen[key][..n], &t[..n]);
            if n == 0 {
                continue;
            }
            if !(e.value() <= worst.0) {
                worst = (e.value(), *key);
            }
        }
        println!(
            "{name}, prefill {prefill} {halves:?}: worst NMSE {:.2e} at {:?}, bound {bound:.2e}",
            worst.0, worst.1
        );
        if !(worst.0 <= bound) {
            for (key, t) in &truth {
                let mut e = Nmse::default();
                e.add(&seen[key], t);
                println!("    {key:?} {:.2e}", e.value());
            }
        }
        assert!(
            worst.0 <= bound,
            "{name}, prefill {prefill}: NMSE {:.2e} at {:?} is not within {bound:.2e}",
            worst.0,
            worst.1
        );
        // Untapped, from the captured step, in two chunks: the same bits.
        let mut other = Sequence::new(&*cuda, n_tokens);
        let split = n_tokens / 2;
        let same = if !prefill || split >= 8 {
            if split > 0 {
                other.run(&*cuda, &tokens[..split], 0, None);
            }
            other.run(&*cuda, &tokens[split..], split, None)
        } else {
            other.run(&*cuda, &tokens, 0, None)
        };
        assert!(
            same.iter().zip(&logits).all(|(a, b)| a.to_bits() == b.to_bits()),
            "{name}, prefill {prefill}: other bits"
        );
    }
}

fn compare_tiny(name: &str, device: &CudaDevice, tiny: &Tiny, n_tokens: usize, change: impl Fn(&mut Config)) {
    let bytes = tiny.bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (mut config, weights) = bind(&gguf).unwrap();
    change(&mut config);
    compare(name, device, &config, &weights, n_tokens);
}

#[test]
fn every_type_and_architecture_matches_the_reference() {
    let Some(device) = device() else { return };
    for (i, arch) in on_gpus().iter().enumerate() {
        for (j, ty) in TensorType::ALL.into_iter().enumerate() {
            // Of few, each architecture with one type, and every type.
            if few() && (i + j) % TensorType::ALL.len() != 0 {
                continue;
            }
            compare_tiny(&format!("{arch} {}", ty.name()), &device, &Tiny::new(arch, ty), 20, |_| {});
        }
    }
}

/// Into which passes a prompt is cut, of a single token too, makes no difference to its bits, nor to those of what follows it.
#[test]
fn a_prompt_has_the_same_bits_however_it_is_cut() {
    let Some(device) = device() else { return };
    let archs = if few() { &["gemma3", "qwen3moe"][..] } else { on_gpus() };
    for arch in archs {
        for ty in if few() { &[TensorType::Q8_0][..] } else { &[TensorType::F16, TensorType::Q8_0, TensorType::Q4_K] } {
            let mut tiny = Tiny::new(arch, *ty);
            tiny.shape.n_ctx = 512;
            let model = load(&device, &tiny.bytes());
            let tokens = tokens(202, model.config().n_vocab);
            let bits = |lens: &[usize]| {
                let (mut sequence, mut start, mut last) = (Sequence::new(&*model, 512), 0, Vec::new());
                for n in lens {
                    last = sequence.run_as(&*model, &tokens[start..start + n], start, false, None);
                    start += n;
                }
                assert_eq!(start, 200);
                let next = sequence.run(&*model, &tokens[200..201], 200, None);
                last.iter().chain(&next).map(|l| l.to_bits()).collect::<Vec<_>>()
            };
            let whole = bits(&[200]);
            for lens in [&[64, 64, 64, 8][..], &[128, 72], &[1, 63, 7, 122, 5, 2], &[199, 1], &[33, 64, 103]] {
                assert!(bits(lens) == whole, "{arch} {}: {lens:?}", ty.name());
            }
        }
    }
}

#[test]
fn head_sizes_and_groups_match_the_reference() {
    let Some(device) = device() else { return };
    for (head_dim, n_heads, n_kv_heads) in [
        (64, 2, 2),
        (64, 6, 2),
        (64, 14, 2),
        (64, 8, 1),
        (128, 7, 1),
        (128, 8, 8),
        (256, 3, 1),
        (256, 8, 1),
        (72, 3, 1),
        (512, 4, 1),
        (64, 20, 2),
    ] {
        let mut tiny = Tiny::new("qwen3", TensorType::Q8_0);
        (tiny.shape.head_dim, tiny.shape.n_heads, tiny.shape.n_kv_heads) = (head_dim, n_heads, n_kv_heads);
        if head_dim * n_heads % 32 != 0 {
            tiny.ty = TensorType::F16;
        }
        compare_tiny(&format!("head {head_dim} x {n_heads}/{n_kv_heads}"), &device, &tiny, 19, |_| {});
    }
}

/// Llama's, of so many elements a head.
fn rope(n_rot: usize) -> RopeTable {
    RopeTable::of_base(10_000.0, n_rot, RopePairing::Adjacent).unwrap()
}

#[test]
fn odd_sizes_and_features_match_the_reference() {
    let Some(device) = device() else { return };
    for n in [1, 17, 64, 65] {
        compare_tiny(&format!("{n} tokens"), &device, &Tiny::new("qwen2", TensorType::Q5_0), n, |_| {});
    }
    compare_tiny("soft caps", &device, &Tiny::new("gemma3", TensorType::Q6_K), 20, |c| {
        c.logit_softcap = Some(5.0);
        c.layers.iter_mut().for_each(|l| l.attention_mut().softcap = Some(20.0));
    });
    compare_tiny("partial rope", &device, &Tiny::new("llama", TensorType::Q4_0), 20, |c| c.ropes[0] = rope(8));
    compare_tiny("rope with a magnitude", &device, &Tiny::new("qwen2", TensorType::Q4_0), 20, |c| {
        c.ropes[0].magnitude = 1.25
    });
    compare_tiny("partial rope with a magnitude", &device, &Tiny::new("llama", TensorType::Q4_0), 20, |c| {
        c.ropes[0] = RopeTable { magnitude: 0.75, ..rope(8) };
    });
    compare_tiny("adjacent, head 64", &device, &Tiny::new("llama", TensorType::Q4_K), 20, |_| {});
    // To the last position of the context, over several chunks of attention; gemma's windows end inside chunks.
    let n = if few() { 150 } else { 512 };
    compare_tiny(&format!("{n} tokens"), &device, &Tiny::new("qwen2", TensorType::Q8_0), n, |_| {});
    compare_tiny(&format!("{n} tokens, windows"), &device, &Tiny::new("gemma3", TensorType::Q8_0), n, |_| {});
    let mut tiny = Tiny::new("llama", TensorType::F16);
    (tiny.shape.n_embd, tiny.shape.n_ff, tiny.shape.head_dim) = (60, 134, 8);
    compare_tiny("rows that are no multiple of 8", &device, &tiny, 17, |_| {});
}

#[test]
fn mixed_types_match_the_reference() {
    let Some(device) = device() else { return };
    let all =
        [("qwen2.5-0.5b", "Q4_K_M"), ("smollm2-135m", "Q2_K"), ("llama-3.2-1b", "Q4_K_M"), ("gemma-3-1b", "Q3_K_L")];
    for (shape, recipe) in all.into_iter().take(if few() { 1 } else { 4 }) {
        let mut shape = Shape::named(shape).unwrap();
        (shape.n_layers, shape.n_vocab) = (3, if few() { 320 } else { 1024 });
        let bytes = random_file(&shape, Recipe::named(recipe).unwrap(), true);
        let gguf = Gguf::from_bytes(&bytes).unwrap();
        let (config, weights) = bind(&gguf).unwrap();
        compare(&format!("{} {recipe}", shape.name), &device, &config, &weights, 9);
    }
}

#[test]
fn pages_are_copied_and_written_down() {
    let Some(device) = device() else { return };
    let model = load(&device, &Tiny::new("qwen3", TensorType::F16).bytes());
    let config = model.config();
    let mut first = Sequence::new(&*model, 4 * PAGE_TOKENS);
    let prompt = tokens(PAGE_TOKENS + 9, config.n_vocab);
    first.run(&*model, &prompt, 0, None);
    let expected = first.run(&*model, &[3], prompt.len(), None);
    let image = model.page_image().unwrap();
    let [a, b, c, d] = [first.pages[0], first.pages[1], first.pages[2], first.pages[3]];
    model.copy_page(a, c).unwrap();
    let mut written = vec![1; image.bytes];
    model.read_page(b, 9, &mut written).unwrap();
    model.write_page(d, &written).unwrap();
    let mut second = Sequence { slot: model.create_slot().unwrap(), pages: vec![c, d] };
    let logits = second.run(&*model, &[3], prompt.len(), None);
    assert!(expected.iter().zip(&logits).all(|(a, b)| a.to_bits() == b.to_bits()));
    // Positions beyond the rows asked for are not shown.
    let mut again = vec![1; image.bytes];
    model.read_page(b, 0, &mut again).unwrap();
    assert!(again.iter().all(|&b| b == 0) && written.iter().any(|&b| b != 0));
    assert!(model.read_page(99, 1, &mut again).is_err() && model.write_page(a, &again[1..]).is_err());
}

/// In f64: in f32 the rounding of the normalizer alone is more than small models diverge by.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exact: Vec<f64> = logits.iter().map(|&x| f64::from(x) - f64::from(most)).collect();
    let normalizer = exact.iter().map(|x| x.exp()).sum::<f64>().ln();
    exact.iter().map(|x| x - normalizer).collect()
}

/// A mean over positions of the divergence of `q` from `p`, in nats, and the share of positions with the same favourite.
fn divergence(truth: &[Vec<f32>], other: &[Vec<f32>]) -> (f64, f64) {
    let (mut kl, mut same) = (0.0, 0);
    for (t, o) in truth.iter().zip(other) {
        let (p, q) = (log_softmax(t), log_softmax(o));
        kl += p.iter().zip(&q).map(|(&p, &q)| p.exp() * (p - q)).sum::<f64>();
        let best = |l: &[f32]| l.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
        same += usize::from(best(t) == best(o));
    }
    (kl / truth.len() as f64, same as f64 / truth.len() as f64)
}

#[test]
fn real_models_match_the_reference_and_the_cpu() {
    let Some(device) = device() else { return };
    let files = std::env::var("KIGO_MODELS").unwrap_or_default();
    if files.is_empty() {
        println!("skipped: KIGO_MODELS names no files");
    }
    for file in files.split(':').filter(|f| !f.is_empty()) {
        let bytes = std::fs::read(file).unwrap();
        let gguf = Gguf::from_bytes(&bytes).unwrap();
        let (config, weights) = bind(&gguf).unwrap();
        let gpu: Arc<dyn LoadedModel> =
            device.load_model(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap();
        let cpu = CpuDevice::new(CpuOptions { n_threads: 0, isa: None }).unwrap();
        let cpu = cpu.load(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap();
        let reference =
            ReferenceDevice::PLAIN.load(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap();
        // A text of the model's own, at a temperature, so that it is like one and does not go round in circles.
        let warm = SamplingParams { temperature: 1.0, top_p: 0.95, seed: 3, ..SamplingParams::default() };
        let start = [config.n_vocab as u32 / 7, 100, 200];
        let mut text = start.to_vec();
        text.extend(step_by_step(&*gpu, &mut Sequence::new(&*gpu, 512), &start, 157, &warm));
        let steps = |model: &dyn LoadedModel| -> Vec<Vec<f32>> {
            let mut sequence = Sequence::new(model, text.len());
            (0..text.len()).map(|i| sequence.run(model, &text[i..=i], i, None)).collect()
        };
        let (truth, on_cpu, on_gpu) = (steps(&*reference), steps(&*cpu), steps(&*gpu));
        // Through the tensor cores: the last logits of prefixes.
        let mut sequence = Sequence::new(&*gpu, text.len());
        let ends: Vec<usize> = (8..=text.len()).step_by(8).collect();
        let prefilled: Vec<Vec<f32>> = ends.iter().map(|&n| sequence.run(&*gpu, &text[..n], 0, None)).collect();
        let truth_there: Vec<Vec<f32>> = ends.iter().map(|&n| truth[n - 1].clone()).collect();
        let (cpu_kl, cpu_same) = divergence(&truth, &on_cpu);
        let (gpu_kl, gpu_same) = divergence(&truth, &on_gpu);
        let (fill_kl, fill_same) = divergence(&truth_there, &prefilled);
        println!(
            "{file}: {} positions, KL from the reference: cpu {cpu_kl:.2e} ({cpu_same:.4}), gpu {gpu_kl:.2e} ({gpu_same:.4}), prefilled {fill_kl:.2e} ({fill_same:.4})",
            text.len()
        );
        // Activations of 12 bits, where the CPU has 16.
        let bound = 2.0 * cpu_kl + 2f64.powi(-15);
        assert!(gpu_kl <= bound, "{file}: decode");
        // Wider models' activations are f16 between the tensor cores' products.
        assert!(config.n_embd > 2048 || fill_kl <= bound, "{file}: prefill");
        // 256 greedy tokens: the CPU's, until its two best are closer than the noise seen above.
        let noise = on_cpu.iter().zip(&on_gpu).flat_map(|(a, b)| a.iter().zip(b)).map(|(a, b)| (a - b).abs());
        let noise = noise.fold(0f32, f32::max);
        let params = SamplingParams::default();
        let got = step_by_step(&*gpu, &mut Sequence::new(&*gpu, 512), &start, 256, &params);
        let mut sequence = Sequence::new(&*cpu, 512);
        let mut logits = sequence.run(&*cpu, &start, 0, None);
        let mut equal = 0;
        for (i, &token) in got.iter().enumerate() {
            let mut best = logits.clone();
            best.sort_unstable_by(|a, b| b.total_cmp(a));
            let request = SampleRequest { params: &params, history: &[], position: 0 };
            let expected = sampler::sample(&logits, &request).unwrap().token;
            assert!(token == expected || best[0] - best[1] <= 2.0 * noise, "{file}: token {i}");
            equal += usize::from(token == expected);
            logits = sequence.run(&*cpu, &[token], start.len() + i, None);
        }
        println!("{file}: {equal} of {} greedy tokens are the CPU's; logits differ by at most {noise:.2e}", got.len());
    }
}

#[test]
fn random_models_diverge_no_more_than_the_cpu() {
    let Some(device) = device() else { return };
    let mut wrong = Vec::new();
    for arch in if few() { &["qwen2"][..] } else { &["qwen2", "qwen3", "llama", "gemma3"] } {
        let types = TensorType::ALL.into_iter().step_by(if few() { 5 } else { 1 });
        for ty in types {
            let bytes = Tiny::new(arch, ty).bytes();
            let gguf = Gguf::from_bytes(&bytes).unwrap();
            let (config, weights) = bind(&gguf).unwrap();
            let gpu = device.load_model(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap();
            let cpu = CpuDevice::new(CpuOptions { n_threads: 2, isa: None }).unwrap();
            let cpu = cpu.load(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap();
            let reference =
                ReferenceDevice::PLAIN.load(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap();
            let text = tokens(if few() { 24 } else { 48 }, config.n_vocab);
            // Token by token; or, from `filled` on, behind a prompt of so many.
            let steps = |model: &dyn LoadedModel, filled: usize| -> Vec<Vec<f32>> {
                let mut sequence = Sequence::new(model, text.len());
                if filled > 0 {
                    sequence.run(model, &text[..filled], 0, None);
                }
                (filled..text.len()).map(|i| sequence.run(model, &text[i..=i], i, None)).collect()
            };
            let (truth, on_cpu, on_gpu) = (steps(&*reference, 0), steps(&*cpu, 0), steps(&*gpu, 0));
            let half = text.len() / 2;
            let behind = steps(&*gpu, half);
            let (cpu_kl, _) = divergence(&truth, &on_cpu);
            let (gpu_kl, _) = divergence(&truth, &on_gpu);
            let (behind_kl, _) = divergence(&truth[half..], &behind);
            println!("{arch} {}: KL cpu {cpu_kl:.2e}, gpu {gpu_kl:.2e}, behind a prompt {behind_kl:.2e}", ty.name());
            // An f32 sum of as many terms as logits have is that far off by itself; activations of 12 bits, where the CPU has 16, are by 2^-17.
            let quantized = ty.block_len() > 1;
            let least = 512.0 * f64::from(f32::EPSILON).powi(2) + if quantized { 2f64.powi(-17) } else { 1e-9 };
            if !(gpu_kl <= 2.0 * cpu_kl + least && behind_kl <= 2.0 * cpu_kl + least) {
                wrong.push(format!("{arch} {}: cpu {cpu_kl:.2e}, gpu {gpu_kl:.2e}, behind {behind_kl:.2e}", ty.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
