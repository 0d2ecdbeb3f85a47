//! The GPU backend against the reference, stage by stage, and against itself.
//!
//! Without a device every test prints `skipped: no CUDA device` and passes, unless KIGO_REQUIRE_CUDA=1. KIGO_MODELS names files of
//! real models, colons between; KIGO_FEW leaves much out, for a checker that takes its time and for the emulated
//! device (KIGO_CUDA=emulate).
#![cfg(kigo_cuda)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use common::gpu::{NoControl, Sequence, device, device_alone, few, random_file, tokens};
use common::recipes::Recipe;
use common::shapes::Shape;
use common::tiny::{ARCHS, Tiny};
use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::backend::cuda::{self, CudaDevice, CudaModel, Tuning};
use kigo::backend::reference::ReferenceDevice;
use kigo::backend::{Ahead, Chunk, Device, LoadedModel, PAGE_TOKENS, RunControl, Slot, TapEvent, Verdict, Want};
use kigo::error::{Error, Result};
use kigo::gguf::{Gguf, TensorType};
use kigo::model::{Config, bind};
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

/// Every stage against the reference, token by token and through the tensor cores.
///
/// An f16 (the cache; activations between products of prefill) adds an NMSE of 2^-22 / 3 at most, everything else has 16 bits
/// or more; a random network passes errors on undamped, so every layer may add as much again.
fn compare(name: &str, device: &CudaDevice, config: &Config, gguf: &Gguf<'_>, n_tokens: usize) {
    let (_, weights) = bind(gguf).unwrap();
    let cuda = device.load_model(config, &weights, &mut NoControl).unwrap();
    let reference = ReferenceDevice::PLAIN.load(config, &weights, &mut NoControl).unwrap();
    let tokens = tokens(n_tokens, config.n_vocab);
    let (truth, _) = tapped(&*reference, &tokens, n_tokens);
    let [a, b, c] = [(256, 4, 2, false), (512, 1, 2, true), (128, 8, 1, true)]
        .map(|(threads, streams, split, deep)| Some(cuda::Shape { threads, per_sm: 1, streams, split, deep }));
    // Through the tensor cores with activations of two halves and of one, then token by token.
    let ways = [(true, Some(true), None), (true, Some(false), None), (false, None, None)];
    let ways = ways.into_iter().chain([a, b, c].map(|shape| (false, None, shape)));
    for (prefill, halves, shape) in ways.take(if few() { 3 } else { 6 }) {
        cuda.tune(Tuning { prefill, halves, shapes: [shape; cuda::Kind::N], ..Tuning::default() });
        let (seen, logits) = tapped(&*cuda, &tokens, n_tokens);
        let bound = 2f64.powi(-22) * if halves == Some(false) { 8.0 } else { 4.0 } * config.n_layers as f64;
        let mut worst = (0.0, (0, ""));
        assert_eq!(seen.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>(), "{name}: other taps");
        for (key, t) in &truth {
            assert_eq!(seen[key].len(), t.len(), "{name}: {key:?}");
            let mut e = Nmse::default();
            e.add(&seen[key], t);
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
    let (mut config, _) = bind(&gguf).unwrap();
    change(&mut config);
    compare(name, device, &config, &gguf, n_tokens);
}

#[test]
fn every_type_and_architecture_matches_the_reference() {
    let Some(device) = device() else { return };
    for arch in ARCHS {
        for ty in TensorType::ALL {
            compare_tiny(&format!("{arch} {}", ty.name()), &device, &Tiny::new(arch, ty), 20, |_| {});
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

#[test]
fn odd_sizes_and_features_match_the_reference() {
    let Some(device) = device() else { return };
    for n in [1, 17, 64, 65] {
        compare_tiny(&format!("{n} tokens"), &device, &Tiny::new("qwen2", TensorType::Q5_0), n, |_| {});
    }
    compare_tiny("soft caps", &device, &Tiny::new("gemma3", TensorType::Q6_K), 20, |c| {
        (c.attn_softcap, c.logit_softcap) = (Some(20.0), Some(5.0));
    });
    compare_tiny("partial rope", &device, &Tiny::new("llama", TensorType::Q4_0), 20, |c| c.n_rot = 8);
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
    for (shape, recipe) in all.into_iter().take(if few() { 2 } else { 4 }) {
        let mut shape = Shape::named(shape).unwrap();
        (shape.n_layers, shape.n_vocab) = (3, 1024);
        let bytes = random_file(&shape, Recipe::named(recipe).unwrap(), true);
        let gguf = Gguf::from_bytes(&bytes).unwrap();
        let (config, _) = bind(&gguf).unwrap();
        compare(&format!("{} {recipe}", shape.name), &device, &config, &gguf, 9);
    }
}

/// Tokens that are sampled on the host, one by one.
fn step_by_step(
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

#[test]
fn running_ahead_gives_what_single_steps_give() {
    let Some(device) = device() else { return };
    let bytes = Tiny::new("qwen3", TensorType::Q4_1).bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let model = device.load_model(&config, &weights, &mut NoControl).unwrap();
    let prompt = tokens(5, config.n_vocab);
    let mut steps = Sequence::new(&*model, 512);
    let warm = SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 11, ..SamplingParams::default() };
    for params in [SamplingParams::default(), warm] {
        let n = if few() { 40 } else { 300 };
        let expected = step_by_step(&*model, &mut steps, &prompt, n, &params);
        let mut after = vec![0f32; config.n_vocab];
        for stop in [n, 1, 7, n - 10] {
            let mut ahead_of = Sequence::new(&*model, 512);
            ahead_of.run(&*model, &prompt, 0, None);
            let mut got = Vec::new();
            let ahead = Ahead {
                slot: &mut *ahead_of.slot,
                pages: &ahead_of.pages,
                params: &params,
                last_token: prompt[4],
                position: 5,
                n,
            };
            let mut emit = |t| {
                got.push(t);
                Ok(if got.len() < stop { Verdict::GoOn } else { Verdict::Refused })
            };
            model.decode_ahead(ahead, &mut emit).unwrap().unwrap();
            assert_eq!(got, expected[..stop]);
            // The logits are those after the last accepted token: the next choice is the one that was refused.
            model.logits(&mut *ahead_of.slot, &mut after).unwrap();
            let position = (prompt.len() + stop - 1) as u64;
            let request = SampleRequest { params: &params, history: &[], position };
            if stop < n {
                assert_eq!(model.sample(&mut *ahead_of.slot, &request).unwrap().token, expected[stop - 1]);
            }
        }
    }
}

/// `n` tokens that the device chooses behind the prompt, each of which is accepted.
fn run_ahead(
    model: &dyn LoadedModel,
    sequence: &mut Sequence,
    prompt: &[u32],
    n: usize,
    params: &SamplingParams,
) -> Vec<u32> {
    let mut got = Vec::new();
    let ahead = Ahead {
        slot: &mut *sequence.slot,
        pages: &sequence.pages,
        params,
        last_token: prompt[prompt.len() - 1],
        position: prompt.len(),
        n,
    };
    let mut emit = |t| {
        got.push(t);
        Ok(Verdict::GoOn)
    };
    model.decode_ahead(ahead, &mut emit).unwrap().unwrap();
    got
}

#[test]
fn a_refused_first_token_leaves_the_logits_to_the_bit() {
    let Some(device) = device() else { return };
    let bytes = Tiny::new("qwen2", TensorType::Q4_0).bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let model = device.load_model(&config, &weights, &mut NoControl).unwrap();
    // Through the tensor cores, whose rounding a step does not repeat; its last row is the last of a page.
    let prompt = tokens(PAGE_TOKENS, config.n_vocab);
    let mut sequence = Sequence::new(&*model, 2 * PAGE_TOKENS);
    let before = sequence.run(&*model, &prompt, 0, None);
    let page = |model: &dyn LoadedModel, page| {
        let mut bytes = vec![0u8; model.page_image().unwrap().bytes];
        model.read_page(page, PAGE_TOKENS, &mut bytes).unwrap();
        bytes
    };
    let first = page(&*model, sequence.pages[0]);
    let (params, last_token, position) = (SamplingParams::default(), prompt[PAGE_TOKENS - 1], PAGE_TOKENS);
    let mut refuse = |outcome: Result<Verdict>| {
        let Sequence { slot, pages } = &mut sequence;
        let ahead = Ahead { slot: &mut **slot, pages, params: &params, last_token, position, n: 20 };
        let mut outcome = Some(outcome);
        let result = model.decode_ahead(ahead, &mut |_| outcome.take().expect("one token"));
        let mut logits = vec![f32::NAN; config.n_vocab];
        model.logits(&mut **slot, &mut logits).unwrap();
        assert!(logits.iter().zip(&before).all(|(a, b)| a.to_bits() == b.to_bits()), "other logits");
        assert!(page(&*model, pages[0]) == first, "the prompt's page was written");
        result
    };
    assert!(refuse(Ok(Verdict::Refused)).is_ok());
    assert!(matches!(refuse(Err(Error::Cancelled)), Err(Error::Cancelled)));
    // A last token that is the first one is appended all the same.
    let mut chosen = None;
    let Sequence { slot, pages } = &mut sequence;
    let ahead = Ahead { slot: &mut **slot, pages, params: &params, last_token, position, n: 20 };
    let mut emit = |token| {
        assert!(chosen.replace(token).is_none());
        Ok(Verdict::Last)
    };
    model.decode_ahead(ahead, &mut emit).unwrap().unwrap();
    let mut after = vec![f32::NAN; config.n_vocab];
    model.logits(&mut **slot, &mut after).unwrap();
    let mut other = Sequence::new(&*model, 2 * PAGE_TOKENS);
    other.run(&*model, &prompt, 0, None);
    assert_eq!(after, other.run(&*model, &[chosen.unwrap()], position, None));
}

#[test]
fn runs_of_several_threads_get_on_beside_one_another() {
    let Some(device) = device() else { return };
    let bytes = Tiny::new("qwen3", TensorType::Q8_0).bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let model = device.load_model(&config, &weights, &mut NoControl).unwrap();
    let n: usize = if few() { 30 } else { 200 };
    // More than the ring has room for, so that what is queued is overwritten now and then.
    let threads = if few() { 4 } else { 40 };
    let n_ctx = n + 5 + 3 * threads;
    let each = n_ctx.div_ceil(PAGE_TOKENS);
    model.reserve_pages(each * (threads + 1)).unwrap();
    let sequence = |i: usize| Sequence {
        slot: model.create_slot().unwrap(),
        pages: ((each * i) as u32..(each * (i + 1)) as u32).collect(),
    };
    let params =
        |i: usize| SamplingParams { temperature: [0.0, 0.9][i % 2], seed: i as u64, ..SamplingParams::default() };
    let prompt = |i: usize| tokens(5 + 3 * i, config.n_vocab);
    let alone: Vec<Vec<u32>> = (0..threads)
        .map(|i| {
            let mut mine = sequence(i);
            mine.run(&*model, &prompt(i), 0, None);
            run_ahead(&*model, &mut mine, &prompt(i), n, &params(i))
        })
        .collect();
    // All at once, beside one that steps without end, and chooses.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stepper = scope.spawn(|| {
            let mut mine = sequence(threads);
            let (greedy, mut steps) = (SamplingParams::default(), 0);
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                mine.run(&*model, &[1], 0, None);
                let request = SampleRequest { params: &greedy, history: &[1], position: 1 };
                model.sample(&mut *mine.slot, &request).unwrap();
                steps += 1;
            }
            steps
        });
        let runs: Vec<_> = (0..threads)
            .map(|i| {
                let (model, sequence, params, prompt) = (&model, &sequence, &params, &prompt);
                scope.spawn(move || {
                    let mut mine = sequence(i);
                    mine.run(&**model, &prompt(i), 0, None);
                    run_ahead(&**model, &mut mine, &prompt(i), n, &params(i))
                })
            })
            .collect();
        let together: Vec<_> = runs.into_iter().map(|r| r.join()).collect();
        done.store(true, std::sync::atomic::Ordering::Release);
        let together: Vec<Vec<u32>> = together.into_iter().map(|r| r.unwrap()).collect();
        println!("{threads} runs of {n} tokens, {} steps beside them", stepper.join().unwrap());
        assert!(together == alone, "other tokens than alone");
    });
}

#[test]
fn draws_are_those_of_the_host() {
    let Some(device) = device() else { return };
    let few = few();
    for n_vocab in if few { vec![300] } else { vec![300, 1024, 50_000] } {
        let mut shape = Shape::named("smollm2-135m").unwrap();
        (shape.n_layers, shape.n_vocab) = (1, n_vocab);
        let bytes = random_file(&shape, Recipe::named("Q8_0").unwrap(), false);
        let gguf = Gguf::from_bytes(&bytes).unwrap();
        let (config, weights) = bind(&gguf).unwrap();
        let model = device.load_model(&config, &weights, &mut NoControl).unwrap();
        let mut sequence = Sequence::new(&*model, 64);
        let own = sequence.run(&*model, &tokens(3, n_vocab), 0, None);
        // Many equal ones, some that are no numbers; and those that there is nothing to choose from.
        let coarse = |i: usize| if i % 13 == 5 { f32::NAN } else { (own[i] * 2.0).round() / 2.0 };
        let tied: Vec<f32> = (0..n_vocab).map(coarse).collect();
        for bad in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY] {
            model.set_logits(&mut *sequence.slot, &vec![bad; n_vocab]).unwrap();
            for temperature in [0.0, 1.0] {
                let params = SamplingParams { temperature, ..Default::default() };
                let request = SampleRequest { params: &params, history: &[], position: 1 };
                assert!(model.sample(&mut *sequence.slot, &request).is_err(), "{bad} at {temperature}");
            }
        }
        for logits in [own, tied] {
            model.set_logits(&mut *sequence.slot, &logits).unwrap();
            let mut n = 0;
            for temperature in [0.0, 0.1, 0.7, 1.0, 3.0, 100.0] {
                for top_k in [0, 1, 2, 17, 200, 1_000_000] {
                    for top_p in [0.0, 1e-12, 0.3, 0.9, 0.999, 1.0] {
                        for min_p in [0.0, 0.01, 0.5, 1.0] {
                            n += 1;
                            if few && n % 97 != 1 {
                                continue;
                            }
                            let seed = common::random::mix(n);
                            let params =
                                SamplingParams { temperature, top_k, top_p, min_p, seed, ..Default::default() };
                            let request = SampleRequest { params: &params, history: &[], position: 1 + n % 1000 };
                            let host = sampler::sample(&logits, &request).unwrap();
                            assert_eq!(
                                model.sample(&mut *sequence.slot, &request).unwrap(),
                                host,
                                "{n_vocab}: {params:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn tokens_chosen_among_some_are_those_of_the_host() {
    let Some(device) = device() else { return };
    let n_vocab = if few() { 333 } else { 50_005 };
    let mut shape = Shape::named("smollm2-135m").unwrap();
    (shape.n_layers, shape.n_vocab) = (1, n_vocab);
    let bytes = random_file(&shape, Recipe::named("Q8_0").unwrap(), false);
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let model = device.load_model(&config, &weights, &mut NoControl).unwrap();
    let mut slot = model.create_slot().unwrap();
    let random = |i: usize| common::random::mix(i as u64);
    for round in 0..if few() { 8 } else { 60 } {
        let logits: Vec<f32> =
            (0..n_vocab).map(|t| (random(round * n_vocab + t) % 4001) as f32 * 0.005 - 10.0).collect();
        model.set_logits(&mut *slot, &logits).unwrap();
        // From nearly all to hardly any.
        let allowed: Vec<u32> = (0..n_vocab.div_ceil(32))
            .map(|i| match round % 4 {
                0 => random(i + round) as u32 | random(i + round + 7) as u32,
                1 => random(i + round) as u32,
                2 => 1 << (random(i + round) % 32),
                _ => u32::from(i == round % 9),
            })
            .collect();
        let params = SamplingParams {
            temperature: [0.0, 0.7, 1.4][round % 3],
            top_k: [0, 40][round / 3 % 2],
            top_p: [1.0, 0.9][round / 6 % 2],
            // One that is left to the host.
            repetition_penalty: if round % 7 == 6 { 1.3 } else { 1.0 },
            seed: round as u64,
            ..SamplingParams::default()
        };
        let request = SampleRequest { params: &params, history: &[1, 2, 3], position: 3 };
        let mut banned = logits.clone();
        sampler::ban(&mut banned, &allowed);
        let expected = sampler::sample(&banned, &request).unwrap().token;
        assert_eq!(model.sample_among(&mut *slot, &request, &allowed).unwrap().token, expected, "round {round}");
        assert!(allowed[expected as usize / 32] >> (expected % 32) & 1 == 1);
        // The logits stay as they are.
        assert_eq!(model.sample(&mut *slot, &request).unwrap(), sampler::sample(&logits, &request).unwrap());
    }
    let (params, none) = (SamplingParams::default(), vec![0; n_vocab.div_ceil(32)]);
    let request = SampleRequest { params: &params, history: &[1], position: 1 };
    assert!(matches!(model.sample_among(&mut *slot, &request, &none), Err(Error::State { .. })));
}

#[test]
fn pages_are_copied_and_written_down() {
    let Some(device) = device() else { return };
    let bytes = Tiny::new("qwen3", TensorType::F16).bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let model = device.load_model(&config, &weights, &mut NoControl).unwrap();
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

/// A mean over positions of the divergence of `q` from `p`, in nats, and the share of positions with the same favourite.
fn divergence(truth: &[Vec<f32>], other: &[Vec<f32>]) -> (f64, f64) {
    let (mut kl, mut same) = (0.0, 0);
    for (t, o) in truth.iter().zip(other) {
        let (mut p, mut q) = (vec![0f32; t.len()], vec![0f32; o.len()]);
        sampler::log_softmax(t, &mut p).unwrap();
        sampler::log_softmax(o, &mut q).unwrap();
        kl += p.iter().zip(&q).map(|(&p, &q)| f64::from(p).exp() * f64::from(p - q)).sum::<f64>();
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
        let gpu: Arc<dyn LoadedModel> = device.load_model(&config, &weights, &mut NoControl).unwrap();
        let cpu = CpuDevice::new(CpuOptions { n_threads: 0, isa: None }).unwrap();
        let cpu = cpu.load(&config, &weights, &mut NoControl).unwrap();
        let reference = ReferenceDevice::PLAIN.load(&config, &weights, &mut NoControl).unwrap();
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
        assert!(gpu_kl <= 2.0 * cpu_kl + 1e-7, "{file}: decode");
        // Wider models' activations are f16 between the tensor cores' products.
        assert!(config.n_embd > 2048 || fill_kl <= 2.0 * cpu_kl + 1e-7, "{file}: prefill");
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
    for arch in if few() { &["qwen2"][..] } else { &["qwen2", "qwen3", "llama", "gemma3"] } {
        let types = TensorType::ALL.into_iter().step_by(if few() { 5 } else { 1 });
        for ty in types {
            let bytes = Tiny::new(arch, ty).bytes();
            let gguf = Gguf::from_bytes(&bytes).unwrap();
            let (config, weights) = bind(&gguf).unwrap();
            let gpu = device.load_model(&config, &weights, &mut NoControl).unwrap();
            let cpu = CpuDevice::new(CpuOptions { n_threads: 2, isa: None }).unwrap();
            let cpu = cpu.load(&config, &weights, &mut NoControl).unwrap();
            let reference = ReferenceDevice::PLAIN.load(&config, &weights, &mut NoControl).unwrap();
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
            // An f32 sum of as many terms as logits have is that far off by itself.
            let least = 512.0 * f64::from(f32::EPSILON).powi(2) + 1e-9;
            assert!(gpu_kl <= 2.0 * cpu_kl + least && behind_kl <= 2.0 * cpu_kl + least, "{arch} {}", ty.name());
        }
    }
}

#[test]
fn failures_leave_the_device_as_it_was() {
    let Some(device) = device_alone() else { return };
    let bytes = Tiny::new("llama", TensorType::Q4_K).bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let prompt = tokens(9, config.n_vocab);
    let everything = || -> Result<Vec<f32>> {
        let model = device.load(&config, &weights, &mut NoControl)?;
        model.reserve_pages(1)?;
        let mut slot = model.create_slot()?;
        let mut chunks = [Chunk { tokens: &prompt, start: 0, pages: &[0], slot: &mut *slot, want: Want::Last }];
        model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
        let mut logits = vec![0f32; config.n_vocab];
        model.logits(&mut *slot, &mut logits)?;
        Ok(logits)
    };
    let expected = everything().unwrap();
    let mut n_failed = 0;
    for n in 0.. {
        device.fail_allocation_in(n);
        match everything() {
            Err(Error::OutOfMemory { requested, .. }) => assert!(requested > 0),
            Ok(logits) => {
                assert_eq!(logits, expected);
                break;
            }
            Err(e) => panic!("allocation {n}: {e}"),
        }
        n_failed += 1;
        assert_eq!(device.allocated(), 0, "allocation {n} leaks");
    }
    device.fail_allocation_in(-1);
    assert!(n_failed >= 8, "{n_failed} allocations");
    assert_eq!(everything().unwrap(), expected);
    let free = device.memory().0;
    for _ in 0..100 {
        assert_eq!(everything().unwrap(), expected, "other bits in another run");
    }
    assert_eq!(device.allocated(), 0);
    let after = device.memory().0;
    println!("{n_failed} allocations; free before {free}, after 100 rounds {after}");
    assert!(after + (2 << 20) >= free, "device memory: {free} free before, {after} after");
}

#[test]
fn a_model_goes_on_after_each_failed_allocation() {
    let Some(device) = device_alone() else { return };
    let mut tiny = Tiny::new("qwen2", TensorType::F16);
    tiny.shape.n_ctx = 256;
    let bytes = tiny.bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let prompt = tokens(11, config.n_vocab);
    let params = SamplingParams::default();
    // What a running model allocates for: slots, a prompt, a run ahead, a batch, choices of one, a tap, longer contexts than it was
    // made for.
    type Call<'a> = &'a dyn Fn(&CudaModel) -> Result<Vec<f32>>;
    let calls: [Call<'_>; 6] = [
        &|model| {
            let mut slot = model.create_slot()?;
            let mut chunks = [Chunk { tokens: &prompt, start: 0, pages: &[0], slot: &mut *slot, want: Want::Last }];
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
            logits_of(model, &mut *slot)
        },
        &|model| {
            let mut slot = model.create_slot()?;
            let mut chunks =
                [Chunk { tokens: &prompt[..3], start: 0, pages: &[0], slot: &mut *slot, want: Want::Last }];
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
            let ahead =
                Ahead { slot: &mut *slot, pages: &[0], params: &params, last_token: prompt[2], position: 3, n: 20 };
            model.decode_ahead(ahead, &mut |_| Ok(Verdict::GoOn))?.unwrap();
            logits_of(model, &mut *slot)
        },
        &|model| {
            let mut slots = (0..3).map(|_| model.create_slot()).collect::<Result<Vec<_>>>()?;
            let pages = [[0u32], [1], [2]];
            let mut chunks: Vec<Chunk<'_>> = slots
                .iter_mut()
                .zip(&pages)
                .map(|(slot, pages)| Chunk {
                    tokens: &prompt[..2],
                    start: 0,
                    pages,
                    slot: &mut **slot,
                    want: Want::Last,
                })
                .collect();
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
            let mut all: Vec<&mut dyn Slot> = slots.iter_mut().map(|s| &mut **s as &mut dyn Slot).collect();
            let request = SampleRequest { params: &params, history: &prompt[..2], position: 2 };
            for chosen in model.sample_batch(&mut all, &[request; 3]) {
                chosen?;
            }
            logits_of(model, &mut *slots[2])
        },
        &|model| {
            let mut slot = model.create_slot()?;
            let mut chunks = [Chunk { tokens: &prompt, start: 0, pages: &[0], slot: &mut *slot, want: Want::Last }];
            let (mut n, cancel) = (0, AtomicBool::new(false));
            let mut see = |_: &TapEvent<'_>| n += 1;
            model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap: Some(&mut see) })?;
            assert!(n > 10);
            logits_of(model, &mut *slot)
        },
        &|model| {
            let mut slot = model.create_slot()?;
            let pages: Vec<u32> = (0..12).collect();
            let start = 12 * PAGE_TOKENS - 1;
            let mut chunks = [Chunk { tokens: &[1], start, pages: &pages, slot: &mut *slot, want: Want::Last }];
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
            logits_of(model, &mut *slot)
        },
        &|model| {
            let mut slots = (0..2).map(|_| model.create_slot()).collect::<Result<Vec<_>>>()?;
            let pages: Vec<u32> = (0..12).collect();
            let start = 12 * PAGE_TOKENS - 1;
            let mut chunks: Vec<Chunk<'_>> = slots
                .iter_mut()
                .map(|slot| Chunk { tokens: &[1], start, pages: &pages, slot: &mut **slot, want: Want::Last })
                .collect();
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
            logits_of(model, &mut *slots[1])
        },
    ];
    let fresh = || -> Arc<CudaModel> {
        let model = device.load_model(&config, &weights, &mut NoControl).unwrap();
        model.reserve_pages(12).unwrap();
        let zero = vec![0u8; model.page_image().unwrap().bytes];
        (0..12).for_each(|page| model.write_page(page, &zero).unwrap());
        model
    };
    for (i, call) in calls.iter().enumerate() {
        let expected = call(&fresh()).unwrap();
        let mut n_failed = 0;
        loop {
            let model = fresh();
            device.fail_allocation_in(n_failed);
            let outcome = call(&model);
            device.fail_allocation_in(-1);
            match outcome {
                Err(Error::OutOfMemory { requested, .. }) => assert!(requested > 0, "call {i}, allocation {n_failed}"),
                Ok(logits) => {
                    assert_eq!(logits, expected, "call {i}");
                    break;
                }
                Err(e) => panic!("call {i}, allocation {n_failed}: {e}"),
            }
            assert_eq!(call(&model).unwrap(), expected, "call {i} after failed allocation {n_failed}");
            n_failed += 1;
        }
        println!("call {i}: {n_failed} allocations, each failed once");
        assert!(n_failed >= 2, "call {i}");
    }
}

fn logits_of(model: &CudaModel, slot: &mut dyn Slot) -> Result<Vec<f32>> {
    let mut logits = vec![f32::NAN; model.config().n_vocab];
    model.logits(slot, &mut logits)?;
    Ok(logits)
}

#[test]
fn a_lost_device_is_named_by_every_call_from_then_on() {
    let Some(healthy) = device_alone() else { return };
    let bytes = Tiny::new("qwen2", TensorType::Q8_0).bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let prompt = tokens(9, config.n_vocab);
    let greedy = SamplingParams::default();
    // With the device lost at call `n`: loading, a prompt, steps, a batch, choices, pages.
    let lost_at = |n: i64| -> Result<()> {
        let device = CudaDevice::new(0).unwrap();
        device.lose_in(n);
        let everything = || -> Result<()> {
            let model = device.load(&config, &weights, &mut NoControl)?;
            model.reserve_pages(3)?;
            let (mut a, mut b) = (model.create_slot()?, model.create_slot()?);
            let cancel = AtomicBool::new(false);
            let work = |a: &mut dyn Slot, b: &mut dyn Slot| -> Result<()> {
                for (start, n) in [(0, 8), (8, 1)] {
                    let tokens = &prompt[start..start + n];
                    let chunk = |page, slot| Chunk { tokens, start, pages: page, slot, want: Want::Last };
                    let mut chunks = [chunk(&[0], &mut *a), chunk(&[1], &mut *b)];
                    model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap: None })?;
                }
                let request = SampleRequest { params: &greedy, history: &prompt, position: 9 };
                model.sample(a, &request)?;
                model
                    .sample_batch(&mut [&mut *a, &mut *b], &[request, request])
                    .into_iter()
                    .try_for_each(|r| r.map(|_| ()))?;
                model.copy_page(0, 2)
            };
            let outcome = work(&mut *a, &mut *b);
            if let Err(lost) = &outcome {
                assert!(matches!(lost, Error::DeviceLost { .. }), "call {n}: {lost}");
                // Whatever is asked of it now, it says so.
                let mut logits = vec![0f32; config.n_vocab];
                let mut page = vec![0; model.page_image().unwrap().bytes];
                let request = SampleRequest { params: &greedy, history: &prompt, position: 9 };
                for again in [
                    work(&mut *a, &mut *b),
                    model.logits(&mut *a, &mut logits),
                    model.sample(&mut *a, &request).map(|_| ()),
                    model.create_slot().map(|_| ()),
                    model.reserve_pages(9),
                    model.copy_page(0, 1),
                    model.read_page(0, 1, &mut page),
                    model.write_page(0, &page),
                    device.load(&config, &weights, &mut NoControl).map(|_| ()),
                ] {
                    assert_eq!(again.unwrap_err().to_string(), lost.to_string(), "call {n}");
                }
            }
            outcome
        };
        let outcome = everything();
        assert_eq!(device.allocated(), 0, "call {n} leaks");
        outcome
    };
    lost_at(-1).unwrap(); // the driver's own share, once
    let free = healthy.memory().0;
    let mut n_lost = 0;
    // At each call in turn, until everything goes by before that.
    for n in 0.. {
        match lost_at(n) {
            Err(Error::DeviceLost { device, .. }) => assert_eq!(device, "cuda:0"),
            Ok(()) => break,
            Err(e) => panic!("call {n}: {e}"),
        }
        n_lost += 1;
    }
    assert!(n_lost > 50, "{n_lost} calls");
    println!("lost at each of {n_lost} calls");
    let after = healthy.memory().0;
    assert!(after + (2 << 20) >= free, "device memory: {free} free before, {after} after");
}

#[test]
fn a_plan_is_what_a_load_takes() {
    let Some(device) = device_alone() else { return };
    if few() {
        return println!("skipped: KIGO_FEW leaves out what measures the device");
    }
    for (shape, recipe) in [("qwen2.5-0.5b", "F16"), ("smollm2-135m", "Q4_1"), ("qwen2.5-0.5b", "Q4_K_M")] {
        let bytes = random_file(&Shape::named(shape).unwrap(), Recipe::named(recipe).unwrap(), false);
        let gguf = Gguf::from_bytes(&bytes).unwrap();
        let (config, weights) = bind(&gguf).unwrap();
        let prompt = tokens(3000, config.n_vocab);
        let run = || {
            let before = device.memory().0;
            let model = device.load_model(&config, &weights, &mut NoControl).unwrap();
            let mut sequence = Sequence::new(&*model, prompt.len());
            sequence.run(&*model, &prompt, 0, None);
            sequence.run(&*model, &prompt[..1], 0, None);
            (before - device.memory().0, LoadedModel::plan(&*model))
        };
        run(); // the driver's own share, once
        let (used, now) = run();
        let plan = Device::plan(&*device, &config, &weights);
        let pages = (prompt.len().div_ceil(PAGE_TOKENS) * PAGE_TOKENS) as u64 * plan.kv_bytes_per_token;
        let planned = plan.weights_bytes + plan.scratch_bytes + pages;
        println!("{shape} {recipe}: planned {planned}, used {used}; {plan:?}, {now:?}");
        assert!(used.abs_diff(planned) * 50 <= planned, "{shape} {recipe}: planned {planned}, used {used}");
        assert!(now.weights_bytes == plan.weights_bytes && now.scratch_bytes <= plan.scratch_bytes);
    }
}

#[test]
fn a_long_prefill_is_cancelled_soon() {
    let Some(device) = device_alone() else { return };
    if few() {
        return println!("skipped: KIGO_FEW leaves out what measures the device");
    }
    let bytes = random_file(&Shape::named("qwen2.5-0.5b").unwrap(), Recipe::named("F16").unwrap(), false);
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    let model = device.load_model(&config, &weights, &mut NoControl).unwrap();
    let prompt = tokens(16_384, config.n_vocab);
    let mut sequence = Sequence::new(&*model, prompt.len());
    sequence.run(&*model, &prompt[..2048], 0, None);
    for delay in [1, 10, 30] {
        let cancel = AtomicBool::new(false);
        let took = std::thread::scope(|scope| {
            let caller = scope.spawn(|| {
                let pages = &sequence.pages;
                let slot = &mut *sequence.slot;
                let mut chunks = [Chunk { tokens: &prompt, start: 0, pages, slot, want: Want::Last }];
                let outcome = model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap: None });
                (outcome, Instant::now())
            });
            std::thread::sleep(std::time::Duration::from_millis(delay));
            let start = Instant::now();
            cancel.store(true, std::sync::atomic::Ordering::Release);
            let (outcome, end) = caller.join().unwrap();
            assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
            end.duration_since(start)
        });
        println!("cancelled after {delay} ms, back {:.2} ms later", took.as_secs_f64() * 1e3);
        assert!(took.as_millis() < 20, "{took:?}");
    }
    // And the next call is right.
    let again = sequence.run(&*model, &prompt[..100], 0, None);
    let mut fresh = Sequence::new(&*model, prompt.len());
    assert_eq!(fresh.run(&*model, &prompt[..100], 0, None), again);
}

#[test]
fn a_device_that_is_not_there_is_refused_by_name() {
    match CudaDevice::new(99) {
        Err(Error::DeviceUnavailable { device, reason }) => {
            assert_eq!(device, "cuda:99");
            assert!(!reason.is_empty());
        }
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("there is no GPU 99"),
    }
}
