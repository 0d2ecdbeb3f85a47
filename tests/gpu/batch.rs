//! Several sequences in one step on the GPU: the bits of each are those it gets alone.
//!
//! Without a device the tests print `skipped: no CUDA device` and pass, unless KIGO_REQUIRE_CUDA=1. KIGO_FEW leaves some
//! out.

use crate::common;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::common::gpu::{device, few, load, random_file, tokens};
use crate::common::recipes::Recipe;
use crate::common::run::{chunk, reserve};
use crate::common::shapes::Shape;
use crate::common::tiny::{Tiny, on_gpus};
use kigo::backend::cuda::{self, CudaDevice, CudaModel, Tuning};
use kigo::backend::{Chunk, LoadedModel, PAGE_TOKENS, RunControl, Slot, StateUse};
use kigo::gguf::TensorType;
use kigo::sampler::{SampleRequest, SamplingParams};

/// A sequence with pages of its own, and two states: behind all of its tokens, and in front of the last.
struct Mine {
    slot: Box<dyn Slot>,
    pages: Vec<u32>,
    tokens: Vec<u32>,
    whole: u32,
    begun: u32,
}

/// Appends to the sequences named, in one call, `n` tokens each of what they have; the logits of those.
fn append(model: &dyn LoadedModel, all: &mut [Mine], which: &[usize], start: &[usize], n: &[usize]) -> Vec<Vec<u32>> {
    let mut chunks = Vec::new();
    for (i, mine) in all.iter_mut().enumerate() {
        if let Some(at) = which.iter().position(|w| *w == i) {
            let tokens = &mine.tokens[start[i]..start[i] + n[i]];
            let to = if start[i] + n[i] == mine.tokens.len() { mine.whole } else { mine.begun };
            let state = Some(StateUse { from: (start[i] > 0).then_some(mine.begun), to });
            chunks.push((at, Chunk { state, ..chunk(model, &mut *mine.slot, tokens, start[i], &mine.pages) }));
        }
    }
    chunks.sort_by_key(|(at, _)| *at);
    // What is not written is seen.
    let nothing = vec![f32::NAN; model.config().n_vocab];
    chunks.iter_mut().for_each(|(_, c)| model.set_logits(&mut *c.slot, &nothing).unwrap());
    let mut chunks: Vec<Chunk<'_>> = chunks.into_iter().map(|(_, c)| c).collect();
    model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None }).unwrap();
    drop(chunks);
    which.iter().map(|i| bits(model, &mut *all[*i].slot)).collect()
}

/// A company of this size of `n` sequences: a different one, and in another order, for each size.
fn members(size: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..size).map(move |i| (i * 7 + size) % n)
}

fn bits(model: &dyn LoadedModel, slot: &mut dyn Slot) -> Vec<u32> {
    let mut logits = vec![f32::NAN; model.config().n_vocab];
    model.logits(slot, &mut logits).unwrap();
    logits.iter().map(|l| l.to_bits()).collect()
}

/// Sequences, and the bits that each has alone.
struct Company {
    name: String,
    model: Arc<CudaModel>,
    all: Vec<Mine>,
    lens: Vec<usize>,
    truth: Vec<Vec<u32>>,
}

impl Company {
    /// `lens`: of each sequence, in tokens; the last of them is the step that is looked at, the ones before it go alone.
    fn new(name: &str, device: &CudaDevice, bytes: &[u8], lens: &[usize]) -> Company {
        let mut company = Company::without_truth(name, device, bytes, lens);
        company.go_alone(0..lens.len());
        company
    }

    /// [`Self::new`] for [`Self::check`] of these sizes alone: who is in none of those companies has no bits.
    fn of_sizes(name: &str, device: &CudaDevice, bytes: &[u8], lens: &[usize], sizes: &[usize]) -> Company {
        let mut company = Company::without_truth(name, device, bytes, lens);
        company.go_alone(sizes.iter().flat_map(|size| members(*size, lens.len())));
        company
    }

    fn go_alone(&mut self, which: impl Iterator<Item = usize>) {
        let Company { model, all, lens, truth, .. } = self;
        truth.resize(lens.len(), Vec::new());
        for i in which {
            if truth[i].is_empty() {
                let one = vec![1; lens.len()];
                let begun: Vec<usize> = lens.iter().map(|n| n - 1).collect();
                if begun[i] > 0 {
                    append(&**model, all, &[i], &vec![0; lens.len()], &begun);
                }
                truth[i] = append(&**model, all, &[i], &begun, &one).remove(0);
            }
        }
    }

    fn without_truth(name: &str, device: &CudaDevice, bytes: &[u8], lens: &[usize]) -> Company {
        let model = load(device, bytes);
        model.tune(Tuning { prefill: false, ..Tuning::default() });
        let pages: Vec<usize> = lens.iter().map(|n| n.div_ceil(PAGE_TOKENS)).collect();
        reserve(&*model, pages.iter().sum::<usize>().max(2 * lens.len()));
        let mut next = 0;
        let all: Vec<Mine> = lens
            .iter()
            .zip(&pages)
            .enumerate()
            .map(|(i, (n, pages))| {
                next += *pages as u32;
                let mut tokens = tokens(n + i, model.config().n_vocab);
                tokens.drain(..i);
                let (slot, pages) = (model.create_slot().unwrap(), (next - *pages as u32..next).rev().collect());
                Mine { slot, pages, tokens, whole: 2 * i as u32, begun: 2 * i as u32 + 1 }
            })
            .collect();
        Company { name: name.to_string(), model, all, lens: lens.to_vec(), truth: Vec::new() }
    }

    /// The last token again in companies of these sizes: the row it writes is the one that is there.
    fn check(&mut self, sizes: &[usize]) {
        let Company { name, model, all, lens, truth } = self;
        let start: Vec<usize> = lens.iter().map(|n| n - 1).collect();
        let one = vec![1; lens.len()];
        for &size in sizes {
            let which: Vec<usize> = members(size, lens.len()).collect();
            assert!((1..size).all(|i| !which[..i].contains(&which[i])), "sizes and lengths that do not go together");
            let seen = append(&**model, all, &which, &start, &one);
            for (i, seen) in which.iter().zip(&seen) {
                assert!(*seen == truth[*i], "{name}: sequence {i} of {} tokens has other bits among {size}", lens[*i]);
            }
        }
    }

    /// All of every one, token by token side by side, shorter ones ending sooner.
    fn check_from_the_beginning(&mut self) {
        let Company { name, model, all, lens, truth } = self;
        let which: Vec<usize> = (0..lens.len()).rev().collect();
        let seen = append(&**model, all, &which, &vec![0; lens.len()], lens);
        for (i, seen) in which.iter().zip(&seen) {
            assert!(
                *seen == truth[*i],
                "{name}: sequence {i} of {} tokens has other bits from the beginning",
                lens[*i]
            );
        }
    }
}

fn batches_match(name: &str, device: &CudaDevice, bytes: &[u8], lens: &[usize], sizes: &[usize]) {
    check_company(Company::new(name, device, bytes, lens), sizes, true);
}

/// `from_the_beginning`: all of them besides, token by token.
fn check_company(mut company: Company, sizes: &[usize], from_the_beginning: bool) {
    let scratch = company.model.plan().scratch_bytes;
    company.check(sizes);
    if from_the_beginning {
        company.check_from_the_beginning();
    }
    assert!(company.model.plan().scratch_bytes > scratch, "{}: no step was shared", company.name);
    // By the kernels of older devices.
    company.model.tune(Tuning { prefill: false, use_wide: false, ..Tuning::default() });
    company.check(sizes);
    println!("{}: {} sequences, steps of {sizes:?}", company.name, company.lens.len());
}

#[test]
fn prompts_in_company_have_the_bits_that_they_have_alone() {
    let Some(device) = device() else { return };
    // Tokens that are there before, and those that the pass is about: also too few for the tensor cores, and single steps.
    let all: &[(usize, usize)] = &[
        (0, 8),
        (0, 65),
        (20, 17),
        (70, 1),
        (0, 200),
        (64, 64),
        (9, 130),
        (3, 7),
        (127, 40),
        (0, 9),
        (0, 1000),
        (30, 700),
        (1, 1),
        (0, 129),
    ];
    let all = if few() { &all[..8] } else { all };
    let most = ["qwen2", "qwen3", "llama", "gemma3", "qwen2moe", "glm4moe", "gpt-oss"];
    for arch in if few() { &["gemma3", "gpt-oss"][..] } else { &most } {
        for ty in [TensorType::F16, TensorType::Q8_0, TensorType::Q4_K].into_iter().take(if few() { 1 } else { 3 }) {
            let bytes = Tiny::new(arch, ty).bytes();
            let lens: Vec<usize> = all.iter().map(|(start, n)| start + n).collect();
            let mut company =
                Company::without_truth(&format!("prompts of {arch} {}", ty.name()), &device, &bytes, &lens);
            let (name, model) = (company.name.clone(), company.model.clone());
            model.tune(Tuning::default());
            let page_of = |all: &[Mine]| -> Vec<Vec<u8>> {
                let page = |page: &u32| {
                    let mut bytes = vec![0; model.page_image().unwrap().bytes];
                    model.read_page(*page, PAGE_TOKENS, &mut bytes).unwrap();
                    bytes
                };
                all.iter().flat_map(|mine| mine.pages.iter().map(page)).collect()
            };
            let (start, n): (Vec<usize>, Vec<usize>) = all.iter().copied().unzip();
            let zero = vec![0; all.len()];
            let truth: Vec<Vec<u32>> = (0..all.len())
                .map(|i| {
                    if start[i] > 0 {
                        append(&*model, &mut company.all, &[i], &zero, &start);
                    }
                    append(&*model, &mut company.all, &[i], &start, &n).remove(0)
                })
                .collect();
            let pages = page_of(&company.all);
            for size in [2, 3, 5, all.len()] {
                let which: Vec<usize> = (0..size).map(|i| (i * 3 + size) % all.len()).collect();
                let seen = append(&*model, &mut company.all, &which, &start, &n);
                for (i, seen) in which.iter().zip(&seen) {
                    assert!(*seen == truth[*i], "{name}: {:?} has other bits among {which:?}", all[*i]);
                }
                assert!(page_of(&company.all) == pages, "{name}: other keys or values among {which:?}");
            }
            println!("{name}: {} prompts", all.len());
        }
    }
}

#[test]
fn every_cut_of_a_stage_has_the_same_bits() {
    let Some(device) = device() else { return };
    let small = Shape { n_layers: 1, n_vocab: 1_203, n_ff: 1_216, ..Shape::named("qwen2.5-0.5b").unwrap() };
    // Rows so long that the input goes round in fewer slots than it has slices, in 8 and in 16 parts.
    let long = Shape { n_embd: 3_584, n_heads: 56, n_ff: 608, n_vocab: 611, ..small.clone() };
    let longer = Shape { n_embd: 4_096, n_heads: 64, ..long.clone() };
    // Four tiles of sequences of this go round.
    let wide = Shape { n_embd: 1_088, n_heads: 17, n_kv_heads: 1, n_ff: 96, n_vocab: 307, ..small.clone() };
    for shape in if few() { vec![small, wide] } else { vec![small, wide, long, longer] } {
        let bytes = random_file(&shape, Recipe::named("F16").unwrap(), true);
        let name = format!("cuts of {}", shape.n_embd);
        let lens: Vec<usize> = (0..37).map(|i| 1 + i % 3).collect();
        let sizes = match (few(), shape.n_embd == 1_088) {
            (true, true) => &[17][..],
            (true, false) => &[10],
            _ => &[3, 9, 36],
        };
        let mut company = Company::of_sizes(&name, &device, &bytes, &lens, sizes);
        let mut n = 0;
        for (nt, two) in [1, 2, 4].into_iter().flat_map(|nt| [(nt, false), (nt, true)]) {
            let cuts = [(1, 1), (4, 3), (2, 5), (1, 12), (2, 3), (4, 1), (4, 2)];
            for (ks, groups) in cuts.into_iter().take(if few() { 3 } else { 7 }) {
                let wide = Some(cuda::Wide { nt, ks, groups, two });
                company.model.tune(Tuning { prefill: false, wide: [wide; cuda::Kind::N], ..Tuning::default() });
                // Of the second shape of few, four tiles; else one or two.
                match (few(), shape.n_embd == 1_088) {
                    (true, true) if nt < 4 => continue,
                    (true, false) if nt == 4 => continue,
                    _ => company.check(sizes),
                }
                n += 1;
            }
        }
        println!("{name}: {n} cuts");
    }
}

#[test]
fn every_quantized_type_has_the_same_bits_on_tensor_cores() {
    let Some(device) = device() else { return };
    let small = Shape { n_layers: 1, n_vocab: 307, n_kv_heads: 1, ..Shape::named("qwen2.5-0.5b").unwrap() };
    // Rows that begin in the middle of a word of scales, and chains of several chunks of lanes.
    let odd = Shape { n_embd: 320, n_heads: 5, n_ff: 1_056, ..small.clone() };
    let even = Shape { n_embd: 256, n_heads: 4, n_ff: 1_280, ..small.clone() };
    // The input goes round in fewer slots than it has slices.
    let long = Shape { n_ff: 11_008, ..even.clone() };
    let mut cases: Vec<(&Shape, &str)> = vec![(&long, "Q4_K_M"), (&long, "Q8_0")];
    cases.extend(["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "NVFP4", "Q2_0"].map(|ty| (&odd, ty)));
    cases.extend(
        ["Q2_K_S", "Q3_K_S", "Q4_K_S", "Q5_K_S", "Q6_K", "IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S"].map(|ty| (&even, ty)),
    );
    cases.extend(["IQ2_XS", "IQ2_XXS", "IQ1_S", "IQ1_M", "TQ1_0", "TQ2_0", "Q1_0"].map(|ty| (&even, ty)));
    for (i, (shape, ty)) in cases.into_iter().enumerate() {
        let bytes = random_file(shape, Recipe::named(ty).unwrap(), true);
        let name = format!("{ty} of {} in integers", shape.n_ff);
        let lens: Vec<usize> = (0..37).map(|i| 1 + i % 3).collect();
        let sizes: &[usize] = if few() { &[19] } else { &[3, 9, 19, 36] };
        let mut company = Company::of_sizes(&name, &device, &bytes, &lens, sizes);
        let cuts = [Some(1), Some(4), Some(2), None];
        let cuts = match (few(), i < 2 || i % 2 == 1) {
            (false, _) => &cuts[..],
            (true, false) => &cuts[..2],
            (true, true) => &cuts[2..],
        };
        for nt in cuts {
            let cut = nt.map(|nt| cuda::Wide { nt, ks: 1, groups: 1, two: false });
            company.model.tune(Tuning { prefill: false, wide: [cut; cuda::Kind::N], ..Tuning::default() });
            company.check(sizes);
        }
        println!("{name}");
    }
}

#[test]
fn every_type_and_architecture_has_the_same_bits_in_company() {
    let Some(device) = device() else { return };
    // Of few, every type with one of them.
    let archs = if few() { &["qwen2", "gemma3", "lfm2", "qwen35", "falcon-h1"] } else { on_gpus() };
    for (i, arch) in archs.iter().enumerate() {
        for (j, ty) in TensorType::ALL.into_iter().enumerate() {
            if few() && (i + j) % archs.len() != 0 {
                continue;
            }
            let lens = [3, 1, 9, 2, 5, 7, 4, 1, 6, 2, 3];
            let (name, bytes) = (format!("{arch} {}", ty.name()), Tiny::new(arch, ty).bytes());
            if few() {
                // More sequences are every_quantized_type's.
                check_company(Company::of_sizes(&name, &device, &bytes, &lens, &[3]), &[3], false);
            } else {
                batches_match(&name, &device, &bytes, &lens, &[2, 3, 5, 8, 10]);
            }
        }
    }
}

#[test]
fn many_sequences_have_the_same_bits_in_company() {
    let Some(device) = device() else { return };
    let lens: Vec<usize> = (0..67).map(|i| 1 + i * 5 % 11).collect();
    for ty in [TensorType::F16, TensorType::Q4_K] {
        batches_match(
            &format!("many {}", ty.name()),
            &device,
            &Tiny::new("qwen2", ty).bytes(),
            &lens,
            &[2, 17, 33, 64, 66],
        );
    }
}

#[test]
fn wide_and_mixed_models_have_the_same_bits_in_company() {
    let Some(device) = device() else { return };
    let shape = Shape { n_layers: 2, n_vocab: 300, n_ff: 3072, ..Shape::named("qwen2.5-0.5b").unwrap() };
    for recipe in ["F16", "Q4_K_M", "Q8_0"].into_iter().take(if few() { 2 } else { 3 }) {
        let bytes = random_file(&shape, Recipe::named(recipe).unwrap(), true);
        batches_match(&format!("wide {recipe}"), &device, &bytes, &[2, 1, 3, 1, 2], &[2, 4]);
    }
    // Logits of so many rows that a block takes two rows of tiles at a time, an odd number of them.
    let n_vocab = if few() { 2_503 } else { 43_207 };
    let shape = Shape { n_layers: 1, n_vocab, n_ff: 256, ..Shape::named("qwen2.5-0.5b").unwrap() };
    let bytes = random_file(&shape, Recipe::named("F16").unwrap(), true);
    let lens: Vec<usize> = (0..37).map(|i| 1 + i % 2).collect();
    batches_match("many logits", &device, &bytes, &lens, &[17, 36]);
}

#[test]
fn long_contexts_have_the_same_bits_in_company() {
    let Some(device) = device() else { return };
    // Over the edges of chunks of attention, and where chunks begin to be longer.
    let lens: &[usize] = if few() { &[130, 2, 257] } else { &[127, 130, 2, 257, 2047, 2060, 2300, 128] };
    for arch in if few() { &["gemma3"] } else { &["qwen2", "gemma3"][..] } {
        batches_match(
            &format!("long {arch}"),
            &device,
            &Tiny::new(arch, TensorType::F16).bytes(),
            lens,
            &[2, lens.len() - 1],
        );
    }
}

#[test]
fn tokens_chosen_in_company_are_those_chosen_alone() {
    let Some(device) = device() else { return };
    let model = load(&device, &Tiny::new("qwen2", TensorType::F16).bytes());
    let config = model.config();
    let mut slots: Vec<Box<dyn Slot>> = (0..70).map(|_| model.create_slot().unwrap()).collect();
    let mut params = Vec::new();
    for (i, slot) in slots.iter_mut().enumerate() {
        let logits: Vec<f32> =
            (0..config.n_vocab).map(|t| (common::random::mix((i * 1000 + t) as u64) % 1000) as f32 * 0.01).collect();
        model.set_logits(&mut **slot, &logits).unwrap();
        params.push(SamplingParams {
            temperature: [0.0, 0.8, 1.3][i % 3],
            top_k: [0, 5][i % 2],
            top_p: [1.0, 0.7, 0.9, 1.0][i % 4],
            // Some that the device leaves to the host.
            repetition_penalty: if i % 11 == 10 { 1.2 } else { 1.0 },
            seed: i as u64,
            ..SamplingParams::default()
        });
    }
    let history = tokens(9, config.n_vocab);
    let requests: Vec<SampleRequest<'_>> = params
        .iter()
        .enumerate()
        .map(|(i, params)| SampleRequest { params, history: &history, position: 1 + i as u64 % 8 })
        .collect();
    let alone: Vec<u32> =
        slots.iter_mut().zip(&requests).map(|(s, r)| model.sample(&mut **s, r).unwrap().token).collect();
    for n in [1, 2, 7, 70] {
        let mut some: Vec<&mut dyn Slot> = slots.iter_mut().take(n).map(|s| &mut **s as &mut dyn Slot).collect();
        let chosen = model.sample_batch(&mut some, &requests[..n]);
        let chosen: Vec<u32> = chosen.into_iter().map(|c| c.unwrap().token).collect();
        assert_eq!(chosen, alone[..n]);
    }
    assert!(alone.iter().collect::<std::collections::HashSet<_>>().len() > 10, "all the same tokens");
}

/// A token from the slot's logits, as it is chosen where nobody has asked before.
fn fresh(model: &dyn LoadedModel, logits: &[f32], request: &SampleRequest<'_>) -> u32 {
    let mut slot = model.create_slot().unwrap();
    model.set_logits(&mut *slot, logits).unwrap();
    model.sample(&mut *slot, request).unwrap().token
}

#[test]
fn tokens_that_a_step_chose_beforehand_are_those_of_its_logits() {
    let Some(device) = device() else { return };
    let model = load(&device, &Tiny::new("qwen2", TensorType::F16).bytes());
    let config = model.config();
    let n = 5;
    model.reserve_pages(n).unwrap();
    for alone in [false, true] {
        let mut slots: Vec<Box<dyn Slot>> = (0..n).map(|_| model.create_slot().unwrap()).collect();
        let mut params: Vec<SamplingParams> = (0..n)
            .map(|i| SamplingParams {
                temperature: [0.9, 0.0, 1.2][i % 3],
                top_k: [0, 7][i % 2],
                seed: 40 + i as u64,
                ..SamplingParams::default()
            })
            .collect();
        let mut last = vec![3; n];
        let mut logits = vec![vec![0f32; config.n_vocab]; n];
        let mut seen = std::collections::HashSet::new();
        for position in 0..9 {
            let pages: Vec<Vec<u32>> = (0..n as u32).map(|i| vec![i]).collect();
            let chunks = slots.iter_mut().zip(&last).zip(&pages);
            let mut chunks: Vec<Chunk<'_>> = chunks
                .map(|((slot, token), pages)| chunk(&*model, &mut **slot, std::slice::from_ref(token), position, pages))
                .collect();
            let each = if alone { 1 } else { n };
            for group in chunks.chunks_mut(each) {
                model.forward(group, &mut RunControl { cancel: &AtomicBool::new(false), tap: None }).unwrap();
            }
            drop(chunks);
            match position {
                // Other parameters than those of the step before.
                3 => params[1].temperature = 0.5,
                4 => params.swap(0, 2),
                // Logits that somebody else has put there.
                5 => model.set_logits(&mut *slots[2], &logits[3].clone()).unwrap(),
                _ => {}
            }
            for (slot, logits) in slots.iter_mut().zip(&mut logits) {
                model.logits(&mut **slot, logits).unwrap();
            }
            // Nobody asks; the next step chooses nothing.
            if position == 6 {
                continue;
            }
            let history = tokens(position + 1, config.n_vocab);
            let at = position as u64 + 1;
            let requests: Vec<SampleRequest<'_>> =
                params.iter().map(|params| SampleRequest { params, history: &history, position: at }).collect();
            for _twice in 0..2 {
                let chosen: Vec<u32> = if alone {
                    let each = slots.iter_mut().zip(&requests);
                    each.map(|(slot, request)| model.sample(&mut **slot, request).unwrap().token).collect()
                } else {
                    let mut all: Vec<&mut dyn Slot> = slots.iter_mut().map(|s| &mut **s as &mut dyn Slot).collect();
                    model.sample_batch(&mut all, &requests).into_iter().map(|c| c.unwrap().token).collect()
                };
                for (i, token) in chosen.iter().enumerate() {
                    assert_eq!(*token, fresh(&*model, &logits[i], &requests[i]), "{i} at {position}, alone {alone}");
                }
                last = chosen;
            }
            seen.extend(last.iter().copied());
        }
        assert!(seen.len() > 10, "all the same tokens");
    }
}
