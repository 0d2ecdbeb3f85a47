//! What the description can say, feature by feature: against the reference stage by stage, and of several sequences to the bit.
//!
//! Without a device the test prints `skipped: no CUDA device` and passes, unless KIGO_REQUIRE_CUDA=1. KIGO_FEW leaves types out.

use std::sync::atomic::AtomicBool;

use crate::common::run::chunk;
use kigo::backend::cuda::{CudaDevice, Tuning};
use kigo::backend::{Chunk, LoadOptions, LoadedModel, RunControl, Slot};
use kigo::error::Status;
use kigo::gguf::Gguf;
use kigo::gguf::TensorType::{Bf16, F16, F32, Nvfp4, Q4_0, Q4_K, Q8_0};
use kigo::model::{Config, Weights, bind};

use super::forward::compare;
use crate::common::described::Described;
use crate::common::features::{EXPERTS, FEATURES, Feature};
use crate::common::gpu::{NoControl, Sequence, device, few, load, tokens};
use crate::common::rewritten::Rewritten;
use crate::common::tiny::Tiny;

#[test]
fn every_feature_matches_the_reference_and_itself_in_company() {
    check(&FEATURES);
}

#[test]
fn experts_match_the_reference_and_themselves_in_company() {
    check(&EXPERTS);
}

/// The bits of the logits behind a prompt and behind a token more, through the tensor cores and in steps.
fn bits(device: &CudaDevice, file: &Rewritten) -> Vec<Vec<u32>> {
    let model = load(device, &file.bytes());
    let tokens = tokens(21, model.config().n_vocab);
    let mut found = Vec::new();
    for prefill in [true, false] {
        model.tune(Tuning { prefill, ..Tuning::default() });
        let mut sequence = Sequence::new(&*model, tokens.len());
        for (start, tokens) in [(0, &tokens[..20]), (20, &tokens[20..])] {
            let logits = sequence.run(&*model, tokens, start, None);
            found.push(logits.into_iter().map(f32::to_bits).collect());
        }
    }
    found
}

#[test]
fn gates_and_ups_in_one_tensor_are_those_of_two() {
    let Some(device) = device() else { return };
    let cases = [("qwen3moe", Q8_0), ("gpt-oss", F16), ("glm4moe", Nvfp4), ("granitemoe", Q4_K), ("olmoe", F32)];
    for (arch, ty) in cases.into_iter().take(if few() { 3 } else { 5 }) {
        let mut file = Rewritten::of(&Tiny::new(arch, ty));
        let two = bits(&device, &file);
        assert!(file.gate_up_in_one() > 0, "{arch}");
        assert!(bits(&device, &file) == two, "{arch} {}", ty.name());
    }
}

#[test]
fn scales_of_experts_count_as_those_of_their_blocks() {
    let Some(device) = device() else { return };
    // A power of two for each part of each expert.
    let power = |name: &str, expert: usize| ((expert + name.len()) % 3) as u8;
    let plain = Rewritten::of(&Tiny::new("qwen3moe", Nvfp4));
    let [mut scaled, mut in_blocks] = [plain.clone(), plain.clone()];
    scaled.scale_experts(|name, expert| f32::from(power(name, expert)).exp2());
    in_blocks.scale_blocks_of_experts(power);
    let [scaled, in_blocks, plain] = [scaled, in_blocks, plain].map(|file| bits(&device, &file));
    assert!(scaled == in_blocks && scaled != plain);
    // Others, against the reference and in company.
    let mut file = Rewritten::of(&Tiny::new("glm4moe", Nvfp4));
    file.scale_experts(|name, expert| 0.4 + 0.17 * (expert + name.len() % 3) as f32);
    let bytes = file.bytes();
    let gguf = Gguf::from_bytes(&bytes).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    compare("scales of experts", &device, &config, &weights, 20);
    in_company("scales of experts", &device, &config, &weights);
}

#[test]
fn a_scale_of_another_type_is_refused_by_name() {
    let Some(device) = device() else { return };
    let refused = |change: &dyn Fn(&mut Rewritten)| {
        let mut file = Rewritten::of(&Tiny::new("qwen3moe", Q8_0));
        change(&mut file);
        let bytes = file.bytes();
        let gguf = Gguf::from_bytes(&bytes).unwrap();
        let (config, weights) = bind(&gguf).unwrap();
        let error =
            device.load_model(&config, &weights, &LoadOptions::default(), &mut NoControl).err().expect("is refused");
        assert_eq!(error.status(), Status::Unsupported);
        error.to_string()
    };
    let says = |part: &str| {
        format!(
            "tensor \"blk.0.{part}.weight\" type is Q8_0, with a scale beside it; expected NVFP4, or no scale, on a GPU"
        )
    };
    assert_eq!(refused(&|file| file.add_floats("blk.0.ffn_up_exps.scale", &[0.5; 7])), says("ffn_up_exps"));
    assert_eq!(refused(&|file| file.add_floats("blk.0.attn_q.scale", &[0.5])), says("attn_q"));
}

/// Side by side, since the emulated device computes with the thread that waits for it.
fn check(features: &[Feature]) {
    let n = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
    let part = |first: usize| move || check_every(features, first, n);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..n).map(|first| scope.spawn(part(first))).collect();
        parts.into_iter().for_each(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    });
}

/// Every `step`th from one on.
fn check_every(features: &[Feature], first: usize, step: usize) {
    let Some(device) = device() else { return };
    for (i, (name, change)) in features.iter().enumerate().skip(first).step_by(step) {
        // Of few, tiles of F16 and another type.
        let types = if few() { vec![F16, [Q8_0, Q4_0][i % 2]] } else { vec![F32, F16, Bf16, Q4_0, Q8_0] };
        for ty in types {
            let mut model = Described::plain(ty);
            model.vector_ty = [F32, F16, Bf16][i % 3];
            change(&mut model);
            let name = format!("{name}, {}", ty.name());
            model.with(|config, weights| {
                compare(&name, &device, config, weights, 20);
                in_company(&name, &device, config, weights);
            });
        }
    }
}

/// Six sequences of three tokens, every other one of a long session, side by side and each alone, by the device's kernels and by those of older ones.
fn in_company(name: &str, device: &CudaDevice, config: &Config, weights: &Weights<'_>) {
    let model = device.load_model(config, weights, &LoadOptions::default(), &mut NoControl).unwrap();
    model.reserve_pages(6).unwrap();
    let tokens = tokens(18, config.n_vocab);
    for use_wide in [true, false] {
        model.tune(Tuning { prefill: false, use_wide, ..Tuning::default() });
        let mut slots: Vec<Box<dyn Slot>> =
            (0..6).map(|i| model.create_slot_for(if i % 2 == 0 { 0 } else { 64 }).unwrap()).collect();
        let pages: Vec<u32> = (0..6).collect();
        let mut run = |which: &[usize]| -> Vec<Vec<u32>> {
            let chunks = slots.iter_mut().enumerate().filter(|(i, _)| which.contains(i));
            let mut chunks: Vec<Chunk<'_>> = chunks
                .map(|(i, slot)| chunk(&*model, &mut **slot, &tokens[3 * i..3 * i + 3], 0, &pages[i..=i]))
                .collect();
            model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None }).unwrap();
            drop(chunks);
            let mut logits = vec![f32::NAN; config.n_vocab];
            let mut bits = |i: &usize| {
                model.logits(&mut *slots[*i], &mut logits).unwrap();
                logits.iter().map(|l| l.to_bits()).collect()
            };
            which.iter().map(&mut bits).collect()
        };
        let alone: Vec<Vec<u32>> = (0..6).map(|i| run(&[i]).remove(0)).collect();
        let scratch = model.plan().scratch_bytes;
        for which in [&[0, 1, 2, 3, 4, 5][..], &[1, 3]] {
            for (i, bits) in which.iter().zip(run(which)) {
                assert!(bits == alone[*i], "{name}: sequence {i} has other bits among {which:?}, wide {use_wide}");
            }
        }
        assert!(model.plan().scratch_bytes > scratch, "{name}: no step was shared");
    }
}
