//! Speeds of the GPU backend on random weights of the named shapes: `KIGO_MEASURE="qwen2.5-0.5b:F16 ..."`; with KIGO_SWEEP also
//! the geometries of the stages, with KIGO_BATCHES="8 64" steps of so many sequences. The test is ignored: it asserts nothing.

use std::sync::Arc;
use std::time::Instant;

use crate::common::gpu::{NoControl, Sequence, device, random_file, tokens};
use crate::common::recipes::Recipe;
use crate::common::run::chunk;
use crate::common::shapes::Shape;
use kigo::backend::cuda::{self, CudaModel, Tuning};
use kigo::backend::{Ahead, Chunk, LoadOptions, LoadedModel, Verdict};
use kigo::gguf::Gguf;
use kigo::model::bind;
use kigo::sampler::SamplingParams;

/// Tokens a second of `n` greedy steps from `position` on, the best of three.
fn decode_speed(model: &CudaModel, sequence: &mut Sequence, position: usize, n: usize) -> f64 {
    let mut best = 0f64;
    for round in 0..4 {
        let start = Instant::now();
        let ahead = Ahead {
            slot: &mut *sequence.slot,
            pages: &sequence.pages,
            params: &SamplingParams::default(),
            last_token: 1,
            position,
            n,
        };
        model.decode_ahead(ahead, &mut |_| Ok(Verdict::GoOn)).unwrap().unwrap();
        if round > 0 {
            best = best.max(n as f64 / start.elapsed().as_secs_f64());
        }
    }
    best
}

/// Finds the best geometry of each kind of stage in a whole step, one kind after another.
fn in_situ(model: &CudaModel, sequence: &mut Sequence, tiles: bool) {
    let mut best = Tuning::default();
    let mut step = |tuning: Tuning| {
        model.tune(tuning);
        let mut run = |n| model.measure_step(&mut *sequence.slot, &sequence.pages, 100, n).unwrap();
        let first = run(8);
        (if first < 1.0 { run(30) } else { first.min(run(8)) }) * 1e3
    };
    let mut least = step(best);
    println!("    as it is: {least:.1} us");
    if tiles {
        let all = |deep, split, per_sm| Some(cuda::Shape { threads: 256, per_sm, streams: 16, split, deep });
        for (deep, gate, down, split) in
            (0..16).map(|i| (i & 1 != 0, i & 2 != 0, i & 4 != 0, if i & 8 != 0 { 16 } else { 8 }))
        {
            let mut tuning = best;
            tuning.shapes = [all(deep, 8, 2); cuda::Kind::N];
            tuning.shapes[cuda::Kind::GateUp as usize] = all(gate, 8, 2);
            tuning.shapes[cuda::Kind::Down as usize] = all(down, split, 1);
            println!("    deep {deep}, gate {gate}, down {down} k{split}: {:.1} us", step(tuning));
        }
    }
    for kind in [cuda::Kind::GateUp, cuda::Kind::Down, cuda::Kind::Logits, cuda::Kind::Qkv, cuda::Kind::Output] {
        let mut seen = Vec::new();
        for (threads, per_sm) in [(256, 1), (256, 2), (512, 1), (256, 3), (256, 4)] {
            for (streams, deep) in [(1, false), (1, true), (2, false), (2, true), (4, false)] {
                for split in [1, 2] {
                    let split = if tiles { 8 * split } else { split };
                    if tiles && (threads > 256 || streams > 1 || (split > 8 && kind == cuda::Kind::GateUp)) {
                        continue; // tiles have blocks a multiprocessor and depth only
                    }
                    if (streams == 8 && split > 1) || split > 2 && threads < 256 {
                        continue;
                    }
                    let shape = cuda::Shape { threads, per_sm, streams, split, deep };
                    let mut tuning = best;
                    tuning.shapes[kind as usize] = Some(shape);
                    seen.push((step(tuning), shape));
                }
            }
        }
        seen.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (us, s) in &seen[..5] {
            let deep = if s.deep { " deep" } else { "" };
            println!("    {kind:?} {us:.1} us: t{} b{} s{} k{}{deep}", s.threads, s.per_sm, s.streams, s.split);
        }
        if seen[0].0 < least {
            least = seen[0].0;
            best.shapes[kind as usize] = Some(seen[0].1);
        }
    }
}

/// The best cuts of the stages of tiles of many sequences.
fn sweep_wide(model: &CudaModel, chunks: &mut [Chunk<'_>]) {
    let n = chunks.len();
    for kind in [cuda::Kind::Qkv, cuda::Kind::GateUp, cuda::Kind::Logits] {
        let mut seen = Vec::new();
        for nt in [1, 2, 4].into_iter().filter(|nt| *nt <= n.div_ceil(8).next_power_of_two() as u32) {
            for (ks, groups) in [1, 2, 4].into_iter().flat_map(|ks| (1..=12 / ks).map(move |g| (ks, g))) {
                for two in [false, true] {
                    if two && kind != cuda::Kind::Logits || ks * groups < 4 {
                        continue;
                    }
                    let mut tuning = Tuning::default();
                    tuning.wide[kind as usize] = Some(cuda::Wide { nt, ks, groups, two });
                    model.tune(tuning);
                    let rows = model.measure_together(chunks, Some(kind), 10).unwrap();
                    seen.push((rows[0].2 * 1e3, nt, ks, groups, two));
                }
            }
        }
        seen.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (us, nt, ks, groups, two) in &seen[..seen.len().min(6)] {
            println!(
                "    of {n}: {kind:?} {us:.1} us: {nt} tiles, {ks} warps a row, {groups} groups{}",
                if *two { ", two" } else { "" }
            );
        }
    }
}

/// The best cuts of the stages of quantized matrices of many sequences.
fn sweep_ints(model: &CudaModel, chunks: &mut [Chunk<'_>]) {
    let n = chunks.len();
    for kind in [cuda::Kind::Qkv, cuda::Kind::Output, cuda::Kind::GateUp, cuda::Kind::Down, cuda::Kind::Logits] {
        for nt in [None, Some(1), Some(2), Some(4)] {
            let mut tuning = Tuning::default();
            tuning.wide[kind as usize] = nt.map(|nt| cuda::Wide { nt, ks: 1, groups: 1, two: false });
            model.tune(tuning);
            let rows = model.measure_together(chunks, Some(kind), 20).unwrap();
            println!("    of {n}: {kind:?} {:.1} us: {nt:?} tiles", rows[0].2 * 1e3);
        }
    }
}

#[test]
#[ignore = "prints speeds; KIGO_MEASURE names shapes and types"]
fn measure() {
    let Some(device) = device() else { return };
    let what = std::env::var("KIGO_MEASURE").unwrap_or_else(|_| "qwen2.5-0.5b:F16".to_string());
    let sweep = std::env::var("KIGO_SWEEP").is_ok();
    let batches = std::env::var("KIGO_BATCHES").unwrap_or_default();
    for item in what.split_whitespace() {
        let (shape, recipe) = item.split_once(':').unwrap();
        let made = Instant::now();
        let bytes = random_file(&Shape::named(shape).unwrap(), Recipe::named(recipe).unwrap(), false);
        let gguf = Gguf::from_bytes(&bytes).unwrap();
        let (config, weights) = bind(&gguf).unwrap();
        let made = made.elapsed().as_secs_f64();
        let start = Instant::now();
        let model: Arc<CudaModel> =
            device.load_model(&config, &weights, &LoadOptions::default(), &mut NoControl).unwrap();
        let load = start.elapsed().as_secs_f64();
        let plan = LoadedModel::plan(&*model);
        println!(
            "{item}: file made in {made:.1} s, loaded in {load:.2} s ({:.1} GB/s), weights {} MB",
            bytes.len() as f64 / load / 1e9,
            plan.weights_bytes / 1_000_000
        );
        let mut sequence = Sequence::new(&*model, 17_000);
        sequence.run(&*model, &tokens(8, config.n_vocab), 0, None);
        let read = (plan.weights_bytes
            - if config.n_vocab > 0 && weights.output.is_some() { weights.token_embd.data.len() as u64 } else { 0 })
            as f64;
        let show = |label: &str, tps: f64| {
            println!("{item} {label}: {tps:.0} tok/s, {:.0} us, {:.0} GB/s", 1e6 / tps, tps * read / 1e9)
        };
        for n in [512, 2048] {
            let prompt = tokens(n, config.n_vocab);
            sequence.run(&*model, &prompt, 0, None);
            let start = Instant::now();
            sequence.run(&*model, &prompt, 0, None);
            println!("{item} pp{n}: {:.0} tok/s", n as f64 / start.elapsed().as_secs_f64());
        }
        show("tg128", decode_speed(&model, &mut sequence, 8, 128));
        for depth in [4096, 16_384] {
            show(&format!("tg128 at {depth}"), decode_speed(&model, &mut sequence, depth, 128));
        }
        for (kind, n, ms) in model.measure_kinds(&mut *sequence.slot, &sequence.pages, 100, 50).unwrap() {
            println!("    {kind:8} {n:3} launches {:8.1} us, {:6.2} us each", ms * 1e3, ms * 1e3 / n as f32);
        }
        // What a launch after another costs where none begins before the one before it has ended.
        let mut step = |pdl| {
            model.tune(Tuning { pdl, ..Tuning::default() });
            model.measure_step(&mut *sequence.slot, &sequence.pages, 100, 50).unwrap() * 1e3
        };
        let (apart, as_it_is) = (step(false), step(true));
        println!("    a step {as_it_is:.1} us; without dependent launches {apart:.1} us");
        for n in batches.split_whitespace().map(|n| n.parse::<usize>().unwrap()) {
            let all: Vec<Vec<u32>> = (0..n as u32).map(|i| (4 * i..4 * i + 4).collect()).collect();
            let mut slots: Vec<_> = (0..n).map(|_| model.create_slot().unwrap()).collect();
            // Each its own, so that experts are as many as of a real batch.
            let own = tokens(n, config.n_vocab);
            let mut chunks: Vec<Chunk<'_>> = slots
                .iter_mut()
                .zip(&all)
                .zip(&own)
                .map(|((slot, pages), token)| chunk(&*model, &mut **slot, std::slice::from_ref(token), 192, pages))
                .collect();
            for rep in [None, Some(1), Some(4)] {
                model.tune(Tuning { rep, ..Tuning::default() });
                for (kind, launches, ms) in model.measure_together(&mut chunks, None, 20).unwrap() {
                    if rep.is_none() || kind == "Attend" {
                        println!("    of {n}: {kind:8} {launches:3} launches {:8.1} us, rep {rep:?}", ms * 1e3);
                    }
                }
            }
            model.tune(Tuning { use_wide: false, ..Tuning::default() });
            for (kind, launches, ms) in model.measure_together(&mut chunks, None, 20).unwrap() {
                println!("    of {n}: {kind:8} {launches:3} launches {:8.1} us, without wide", ms * 1e3);
            }
            if sweep {
                if recipe == "F16" {
                    sweep_wide(&model, &mut chunks);
                } else {
                    sweep_ints(&model, &mut chunks);
                }
            }
            model.tune(Tuning::default());
        }
        if sweep && batches.is_empty() {
            for position in [100, 1000, 4096, 16_384] {
                for rep in [1, 2, 4, 8] {
                    model.tune(Tuning { rep: Some(rep), ..Tuning::default() });
                    let rows = model.measure_kinds(&mut *sequence.slot, &sequence.pages, position, 20).unwrap();
                    let (_, n, ms) = rows.iter().find(|r| r.0 == "Attend").unwrap();
                    println!("    attend at {position}, {rep} heads a block: {:.2} us", ms * 1e3 / *n as f32);
                }
            }
            in_situ(&model, &mut sequence, recipe == "F16");
            model.tune(Tuning::default());
        }
    }
}
