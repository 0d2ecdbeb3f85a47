//! Tokens that the GPU chooses: ahead of the host, on several threads, among those that are allowed; the host's each time.
//!
//! Without a device every test prints `skipped: no CUDA device` and passes, unless KIGO_REQUIRE_CUDA=1. KIGO_FEW leaves much out.

use crate::common;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::common::gpu::{Sequence, device, few, load, random_file, step_by_step, tokens};
use crate::common::recipes::Recipe;
use crate::common::shapes::Shape;
use crate::common::tiny::Tiny;
use kigo::backend::cuda::{CudaDevice, CudaModel};
use kigo::backend::{Ahead, LoadedModel, PAGE_TOKENS, Verdict};
use kigo::error::{Error, Result};
use kigo::gguf::TensorType;
use kigo::sampler::{self, SampleRequest, SamplingParams};

/// A model of one layer with so many tokens.
fn one_layer(device: &CudaDevice, n_vocab: usize) -> Arc<CudaModel> {
    let shape = Shape { n_layers: 1, n_vocab, ..Shape::named("smollm2-135m").unwrap() };
    load(device, &random_file(&shape, Recipe::named("Q8_0").unwrap(), false))
}

/// Up to `n` tokens that the device chooses behind the last one, which is before `position`, until `emit` ends it.
fn run_ahead(
    model: &dyn LoadedModel,
    sequence: &mut Sequence,
    (last_token, position): (u32, usize),
    n: usize,
    params: &SamplingParams,
    emit: &mut dyn FnMut(u32) -> Result<Verdict>,
) -> Result<()> {
    let Sequence { slot, pages } = sequence;
    let ahead = Ahead { slot: &mut **slot, pages, params, last_token, position, n };
    model.decode_ahead(ahead, emit).map(|ran| ran.expect("a device that runs ahead"))
}

#[test]
fn running_ahead_gives_what_single_steps_give() {
    let Some(device) = device() else { return };
    let model = load(&device, &Tiny::new("qwen3", TensorType::Q4_1).bytes());
    let prompt = tokens(5, model.config().n_vocab);
    let mut steps = Sequence::new(&*model, 512);
    let warm = SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 11, ..SamplingParams::default() };
    for params in [SamplingParams::default(), warm] {
        let n = if few() { 12 } else { 300 };
        let expected = step_by_step(&*model, &mut steps, &prompt, n, &params);
        let mut after = vec![0f32; model.config().n_vocab];
        for stop in [n, 1, 7, n - 10] {
            let mut ahead_of = Sequence::new(&*model, 512);
            ahead_of.run(&*model, &prompt, 0, None);
            let mut got = Vec::new();
            let mut emit = |t| {
                got.push(t);
                Ok(if got.len() < stop { Verdict::GoOn } else { Verdict::Refused })
            };
            run_ahead(&*model, &mut ahead_of, (prompt[4], 5), n, &params, &mut emit).unwrap();
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

#[test]
fn a_refused_first_token_leaves_the_logits_to_the_bit() {
    let Some(device) = device() else { return };
    let model = load(&device, &Tiny::new("qwen2", TensorType::Q4_0).bytes());
    // Through the tensor cores, whose rounding a step does not repeat; its last row is the last of a page.
    let prompt = tokens(PAGE_TOKENS, model.config().n_vocab);
    let mut sequence = Sequence::new(&*model, 2 * PAGE_TOKENS);
    let before = sequence.run(&*model, &prompt, 0, None);
    let page = |model: &dyn LoadedModel, page| {
        let mut bytes = vec![0u8; model.page_image().unwrap().bytes];
        model.read_page(page, PAGE_TOKENS, &mut bytes).unwrap();
        bytes
    };
    let first = page(&*model, sequence.pages[0]);
    let (params, last) = (SamplingParams::default(), (prompt[PAGE_TOKENS - 1], PAGE_TOKENS));
    let mut refuse = |outcome: Result<Verdict>| {
        let mut outcome = Some(outcome);
        let mut emit = |_| outcome.take().expect("one token");
        let result = run_ahead(&*model, &mut sequence, last, 20, &params, &mut emit);
        let mut logits = vec![f32::NAN; model.config().n_vocab];
        model.logits(&mut *sequence.slot, &mut logits).unwrap();
        assert!(logits.iter().zip(&before).all(|(a, b)| a.to_bits() == b.to_bits()), "other logits");
        assert!(page(&*model, sequence.pages[0]) == first, "the prompt's page was written");
        result
    };
    assert!(refuse(Ok(Verdict::Refused)).is_ok());
    assert!(matches!(refuse(Err(Error::Cancelled)), Err(Error::Cancelled)));
    // A last token that is the first one is appended all the same.
    let mut chosen = None;
    let mut emit = |token| {
        assert!(chosen.replace(token).is_none());
        Ok(Verdict::Last)
    };
    run_ahead(&*model, &mut sequence, last, 20, &params, &mut emit).unwrap();
    let mut after = vec![f32::NAN; model.config().n_vocab];
    model.logits(&mut *sequence.slot, &mut after).unwrap();
    let mut other = Sequence::new(&*model, 2 * PAGE_TOKENS);
    other.run(&*model, &prompt, 0, None);
    assert_eq!(after, other.run(&*model, &[chosen.unwrap()], PAGE_TOKENS, None));
}

#[test]
fn runs_of_several_threads_get_on_beside_one_another() {
    let Some(device) = device() else { return };
    let model = load(&device, &Tiny::new("qwen3", TensorType::Q8_0).bytes());
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
    let prompt = |i: usize| tokens(5 + 3 * i, model.config().n_vocab);
    let run = &|i: usize| {
        let (mut mine, prompt, mut got) = (sequence(i), prompt(i), Vec::new());
        mine.run(&*model, &prompt, 0, None);
        let mut emit = |t| {
            got.push(t);
            Ok(Verdict::GoOn)
        };
        run_ahead(&*model, &mut mine, (prompt[prompt.len() - 1], prompt.len()), n, &params(i), &mut emit).unwrap();
        got
    };
    let alone: Vec<Vec<u32>> = (0..threads).map(run).collect();
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
        let runs: Vec<_> = (0..threads).map(|i| scope.spawn(move || run(i))).collect();
        let together: Vec<_> = runs.into_iter().map(|r| r.join()).collect();
        done.store(true, std::sync::atomic::Ordering::Release);
        let together: Vec<Vec<u32>> = together.into_iter().map(|r| r.unwrap()).collect();
        println!("{threads} runs of {n} tokens, {} steps beside them", stepper.join().unwrap());
        assert!(together == alone, "other tokens than alone");
    });
}

#[test]
fn a_draw_with_all_limits_and_one_with_none_are_the_host_s() {
    let Some(device) = device() else { return };
    // Little enough for racecheck, which takes half a minute for a draw with limits; enough that warps read what others wrote.
    let model = one_layer(&device, 9_003);
    let mut slot = model.create_slot().unwrap();
    let logits: Vec<f32> =
        (0..model.config().n_vocab).map(|t| (common::random::mix(t as u64) % 9) as f32 * 0.5).collect();
    model.set_logits(&mut *slot, &logits).unwrap();
    for (top_k, top_p, min_p) in [(0, 1.0, 0.0), (23, 0.8, 0.05)] {
        let params = SamplingParams { temperature: 0.7, top_k, top_p, min_p, seed: 5, ..SamplingParams::default() };
        let request = SampleRequest { params: &params, history: &[], position: 9 };
        let host = sampler::sample(&logits, &request).unwrap();
        assert_eq!(model.sample(&mut *slot, &request).unwrap(), host, "{params:?}");
    }
}

#[test]
fn draws_are_those_of_the_host() {
    let Some(device) = device() else { return };
    let few = few();
    for n_vocab in if few { vec![300] } else { vec![300, 1024, 50_000] } {
        let model = one_layer(&device, n_vocab);
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
    let model = one_layer(&device, n_vocab);
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
