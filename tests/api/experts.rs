//! Experts: what files say of them, who is chosen where routers tie or fail, and that a row does not see its company.

use crate::common::described::Described;
use crate::common::features::EXPERTS;
use crate::common::habits::Habits;
use crate::common::rewritten::Rewritten;
use crate::common::run::{NoControl, logits_after, same_bits, tapped};
use crate::common::tiny::{ARCHS, Tiny};
use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::backend::reference::ReferenceDevice;
use kigo::backend::{Device, LoadOptions, TapEvent};
use kigo::engine::{Engine, LogSink};
use kigo::gguf::{Gguf, TensorType, Value};
use kigo::model::{Config, Experts, Groups, Score, bind};

fn devices() -> [Box<dyn Device>; 2] {
    let cpu = CpuDevice::new(CpuOptions { n_threads: 2, isa: None }).expect("starts");
    [Box::new(ReferenceDevice::PLAIN), Box::new(cpu)]
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i * 31 + i * 7 + 3) % 251).collect()
}

/// A model of the feature of this name.
fn described(name: &str) -> Described {
    let (_, change) = EXPERTS.into_iter().find(|(known, _)| *known == name).expect("is a feature");
    let mut described = Described::plain(TensorType::Q8_0);
    change(&mut described);
    described
}

/// The rows of an activation, in the order of layers and positions.
fn rows(model: &Described, device: &dyn Device, name: &str, chunk_lens: &[usize]) -> Vec<Vec<f32>> {
    let model = model.load(device);
    let mut seen = Vec::new();
    let mut tap = |e: &TapEvent<'_>| {
        for (i, row) in e.data.chunks_exact(e.cols).enumerate().filter(|_| e.name == name) {
            seen.push(((e.layer, e.position + i), row.to_vec()));
        }
    };
    tapped(&*model, &tokens(chunk_lens.iter().sum()), chunk_lens, Some(&mut tap));
    seen.sort_by_key(|(place, _)| *place);
    seen.into_iter().map(|(_, row)| row).collect()
}

#[test]
fn of_experts_that_tie_the_first_are_chosen() {
    for device in devices() {
        for (name, ids) in
            [("experts", vec![0.0, 1.0]), ("one expert", vec![0.0]), ("groups", vec![0.0, 1.0, 2.0, 3.0])]
        {
            let mut model = described(name);
            model.changed = vec![("ffn_gate_inp.weight", |_| 0.0)];
            let found = rows(&model, &*device, "moe_ids", &[40]);
            assert_eq!(found.len(), 2 * 40);
            assert!(found.iter().all(|row| *row == ids), "{} {name}", device.name());
            let weights = rows(&model, &*device, "moe_weights", &[40]);
            let equal = 1.0 / if name == "one expert" { 7.0 } else { ids.len() as f32 };
            assert!(
                weights.iter().flatten().all(|w| (w - equal).abs() < 1e-6),
                "{} {name}: {weights:?}",
                device.name()
            );
        }
    }
}

#[test]
fn ids_ascend_and_weights_go_with_them() {
    for device in devices() {
        let model = described("experts");
        let [logits, ids, weights] = ["moe_logits", "moe_ids", "moe_weights"].map(|n| rows(&model, &*device, n, &[60]));
        let mut seen = [false; 7];
        for ((logits, ids), weights) in logits.iter().zip(&ids).zip(&weights) {
            assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
            let chosen: Vec<f32> = ids.iter().map(|id| logits[*id as usize]).collect();
            let least = chosen.iter().copied().fold(f32::INFINITY, f32::min);
            assert_eq!(logits.iter().filter(|l| **l >= least).count(), 2);
            // The ratio of two of a softmax's numbers is e to their difference.
            let ratio = (chosen[0] - chosen[1]).exp();
            assert!(
                (weights[0] / weights[1] / ratio - 1.0).abs() < 1e-5 && (weights[0] + weights[1] - 1.0).abs() < 1e-6
            );
            ids.iter().for_each(|id| seen[*id as usize] = true);
        }
        assert_eq!(seen, [true; 7], "every expert has its tokens");
    }
}

#[test]
fn experts_of_any_type_are_those_of_the_reference() {
    let [reference, cpu] = devices();
    for ty in [TensorType::Mxfp4, TensorType::IQ4_NL, TensorType::Q4_0, TensorType::Q5_1] {
        let mut model = described("much at once with experts");
        model.ty = ty;
        // One token has no cache to round: what is left is arithmetic.
        let of = |device: &dyn Device, name: &str| rows(&model, device, name, &[1]).concat();
        assert_eq!(of(&*cpu, "moe_ids"), of(&*reference, "moe_ids"), "{}", ty.name());
        let (own, exact) = (of(&*cpu, "ffn_out"), of(&*reference, "ffn_out"));
        let square = |x: f32| f64::from(x) * f64::from(x);
        let error: f64 = own.iter().zip(&exact).map(|(a, b)| square(a - b)).sum();
        let nmse = error / exact.iter().map(|b| square(*b)).sum::<f64>();
        assert!(nmse < 2.0_f64.powi(-18), "{}: {nmse:e}", ty.name());
    }
}

/// Plan and logits of a file, read from memory or from a disk.
fn outcome(device: &dyn Device, gguf: &Gguf<'_>) -> (u64, Vec<Vec<u32>>) {
    let (config, weights) = bind(gguf).expect("binds");
    let model = device.load(&config, &weights, &LoadOptions::default(), &mut NoControl).expect("loads");
    let logits = logits_after(&*model, &tokens(40), &[30, 1, 9]);
    let bits = logits.into_iter().map(|row| row.into_iter().map(f32::to_bits).collect()).collect();
    (device.plan(&config, &weights).weights_bytes, bits)
}

#[test]
fn gates_and_ups_in_one_tensor_are_those_of_two() {
    let path = std::env::temp_dir().join(format!("kigo-gate-up-{}.gguf", std::process::id()));
    let types = [TensorType::F16, TensorType::Q8_0, TensorType::Nvfp4, TensorType::F32, TensorType::Q6_K];
    for (i, arch) in ARCHS.into_iter().enumerate() {
        let mut rewritten = Rewritten::of(&Tiny::new(arch, types[i % types.len()]));
        let two = rewritten.bytes();
        let found = rewritten.gate_up_in_one();
        let gated = Tiny::new(arch, TensorType::F16).shape.experts().is_some() && !Habits::of(arch).ungated;
        assert_eq!(found > 0, gated, "{arch}");
        if found == 0 {
            continue;
        }
        let one = rewritten.bytes();
        std::fs::write(&path, &one).expect("the temporary folder can be written");
        let [two, one] = [&two, &one].map(|bytes| Gguf::from_bytes(bytes).expect("opens"));
        let on_disk = Gguf::open(&path).expect("opens");
        assert_eq!(one.n_tensors() + found, two.n_tensors(), "{arch}");
        for device in devices() {
            let expected = outcome(&*device, &two);
            for file in [&one, &on_disk] {
                assert!(outcome(&*device, file) == expected, "{arch} on {}", device.name());
            }
        }
    }
    std::fs::remove_file(path).expect("is there");
}

/// 0, 1 or 2, others of neighbouring experts.
fn power(name: &str, expert: usize) -> u8 {
    ((expert + name.len()) % 3) as u8
}

#[test]
fn the_scale_of_an_expert_counts_as_those_of_its_blocks() {
    let plain = Rewritten::of(&Tiny::new("qwen3moe", TensorType::Nvfp4));
    let [mut scaled, mut in_blocks] = [plain.clone(), plain.clone()];
    scaled.scale_experts(|name, expert| f32::from(power(name, expert)).exp2());
    in_blocks.scale_blocks_of_experts(power);
    let files = [scaled, in_blocks, plain].map(|file| file.bytes());
    let files = files.each_ref().map(|bytes| Gguf::from_bytes(bytes).expect("opens"));
    for device in devices() {
        let [scaled, in_blocks, plain] = files.each_ref().map(|file| outcome(&*device, file).1);
        assert!(scaled == in_blocks, "{}", device.name());
        assert!(scaled != plain, "{}: the scales change nothing", device.name());
    }
}

#[test]
fn experts_of_any_type_with_scales_are_those_of_the_reference() {
    let [reference, cpu] = devices();
    for ty in [TensorType::Nvfp4, TensorType::Q8_0, TensorType::F16, TensorType::Q4_K] {
        let mut file = Rewritten::of(&Tiny::new("qwen2moe", ty));
        file.scale_experts(|name, expert| 0.3 + 0.37 * (expert + name.len() % 3) as f32);
        let bytes = file.bytes();
        let gguf = Gguf::from_bytes(&bytes).expect("opens");
        let (config, weights) = bind(&gguf).expect("binds");
        let load = |device: &dyn Device| device.load(&config, &weights, &LoadOptions::default(), &mut NoControl);
        let of = |device: &dyn Device, taps: [&str; 2], chunk_lens: &[usize]| {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            let mut tap = |e: &TapEvent<'_>| {
                if e.name == taps[0] {
                    first.extend_from_slice(e.data);
                } else if e.name == taps[1] {
                    second.extend_from_slice(e.data);
                }
            };
            let n = chunk_lens.iter().sum();
            let logits = tapped(&*load(device).expect("loads"), &tokens(n), chunk_lens, Some(&mut tap));
            (first, second, logits.into_iter().next_back().expect("some"))
        };
        // One token has no cache to round: what is left is arithmetic.
        let [own, exact] = [&cpu, &reference].map(|device| of(&**device, ["moe_ids", "ffn_out"], &[1]));
        assert_eq!(own.0, exact.0, "{}", ty.name());
        let square = |x: f32| f64::from(x) * f64::from(x);
        let error: f64 = own.1.iter().zip(&exact.1).map(|(a, b)| square(a - b)).sum();
        let nmse = error / exact.1.iter().map(|b| square(*b)).sum::<f64>();
        assert!(nmse < 2.0_f64.powi(-18), "{}: {nmse:e}", ty.name());
        for device in [&cpu, &reference] {
            let logits = |chunk_lens: &[usize]| of(&**device, ["", ""], chunk_lens).2;
            assert!(same_bits(&logits(&[40]), &logits(&[1; 40])), "{} on {}", ty.name(), device.name());
        }
    }
}

#[test]
fn a_router_without_numbers_chooses_all_the_same() {
    for device in devices() {
        for (name, _) in EXPERTS {
            let mut model = described(name);
            model.changed = vec![("ffn_gate_inp.weight", |_| f32::NAN)];
            // Q8_0 has no NaN of its own but in its scales.
            model.ty = TensorType::F16;
            let ids = rows(&model, &*device, "moe_ids", &[9, 1]);
            let k = ids.first().map_or(0, Vec::len);
            assert!(ids.iter().all(|row| row.iter().enumerate().all(|(i, id)| *id == i as f32)), "{name}: {ids:?}");
            assert_eq!(k == 0, name == "sinks");
        }
    }
}

#[test]
fn a_row_does_not_see_its_company() {
    for device in devices() {
        for (name, _) in EXPERTS {
            let model = described(name);
            let together = rows(&model, &*device, "ffn_out", &[70]);
            for chunk_lens in [vec![1; 70], vec![3, 64, 3], vec![33, 37]] {
                assert!(together == rows(&model, &*device, "ffn_out", &chunk_lens), "{} {name}", device.name());
            }
        }
    }
}

/// What the file of a tiny model says with other keys.
fn config(arch: &str, keys: &[(&str, Value<'static>)], without: &[&str]) -> Config {
    let with = keys.iter().map(|&(key, value)| (format!("{arch}.{key}"), value)).collect();
    let without = without.iter().map(|key| format!("{arch}.{key}")).collect();
    let bytes = Tiny { with, without, ..Tiny::new(arch, TensorType::F16) }.bytes();
    bind(&Gguf::from_bytes(&bytes).expect("opens")).expect("binds").0
}

fn experts(config: &Config) -> Vec<Option<Experts>> {
    config.layers.iter().map(|l| l.experts().copied()).collect()
}

#[test]
fn files_say_who_is_chosen() {
    let of = |arch: &str| experts(&config(arch, &[], &[])).pop().flatten().expect("has experts");
    let route = |arch: &str| {
        let Experts { n, n_used, route, shared, .. } = of(arch);
        ((n, n_used), (route.score, route.renorm, route.scale), shared.map(|s| (s.ffn.width, s.gated)))
    };
    assert_eq!(route("qwen3moe"), ((7, 2), (Score::Softmax, true, 1.0), None));
    assert_eq!(route("qwen2moe"), ((5, 4), (Score::Softmax, false, 1.0), Some((128, true))));
    assert_eq!(route("olmoe"), ((9, 4), (Score::Softmax, false, 1.0), None));
    assert_eq!(route("granitemoe"), ((5, 1), (Score::Softmax, true, 1.0), None));
    assert_eq!(route("ernie4_5-moe"), ((7, 2), (Score::Softmax, true, 1.0), Some((128, false))));
    assert_eq!(route("glm4moe"), ((6, 3), (Score::Sigmoid, true, 1.5), Some((128, false))));
    assert_eq!(route("gpt-oss"), ((5, 2), (Score::SoftmaxOfChosen, false, 1.0), None));
    assert_eq!(of("glm4moe").route.groups, Some(Groups { n: 3, n_used: 2 }));
    assert!(
        of("glm4moe").route.select_bias && of("ernie4_5-moe").route.select_bias && !of("qwen3moe").route.select_bias
    );
}

#[test]
fn keys_say_more_where_they_are_there() {
    let keys = [("expert_gating_func", Value::U32(2)), ("expert_weights_norm", Value::Bool(false))];
    let route = experts(&config("qwen3moe", &keys, &[]))[0].expect("has experts").route;
    assert_eq!((route.score, route.renorm), (Score::Sigmoid, false));
    // Without its key an expert of qwen's is as wide as all used ones together say: 128 / 2 is what the file has.
    assert_eq!(experts(&config("qwen3moe", &[], &["expert_feed_forward_length"]))[0].expect("has some").each.width, 64);
    let dense = |config: &Config| experts(config).iter().map(Option::is_none).collect::<Vec<_>>();
    assert_eq!(dense(&config("glm4moe", &[], &[])), [true, false]);
    // The last layer is for drafts: its tensors are there, and left out.
    assert_eq!(dense(&config("glm4moe", &[("nextn_predict_layers", Value::U32(1))], &[])), [true]);
    assert_eq!(dense(&config("ernie4_5-moe", &[("interleave_moe_layer_step", Value::U32(2))], &[])), [true, false]);
    // A scale of 0 is none.
    let scale = [("expert_weights_scale", Value::F32(0.0))];
    assert_eq!(experts(&config("glm4moe", &scale, &[]))[1].expect("has some").route.scale, 1.0);
}

#[test]
fn facts_count_what_a_token_goes_through() {
    let engine =
        Engine::with_device(devices().into_iter().next_back().expect("two").into(), 2, None, LogSink::silent());
    for arch in ARCHS {
        let bytes = Tiny::new(arch, TensorType::Q8_0).bytes();
        let gguf = Gguf::from_bytes(&bytes).expect("opens");
        let (config, weights) = bind(&gguf).expect("binds");
        let model = engine.load_memory(&bytes, &mut |_, _| Ok(())).expect("loads");
        let mut idle = 0;
        for (i, (layer, w)) in config.layers.iter().zip(&weights.layers).enumerate() {
            let facts = model.layer_facts(i).expect("is a layer");
            let Some(experts) = layer.experts() else {
                let n_ff = if layer.has_ffn() { 128 } else { 0 };
                assert_eq!((facts.n_ff, facts.n_experts, facts.n_experts_used, facts.n_ff_expert), (n_ff, 0, 0, 0));
                continue;
            };
            let shared = experts.shared.map_or(0, |_| 128);
            let found = (facts.n_ff, facts.n_experts, facts.n_experts_used, facts.n_ff_expert);
            assert_eq!(found, (shared, experts.n, experts.n_used, 64), "{arch}");
            let all: usize = w.ffn.experts().expect("has some").each.iter().map(|t| t.data.len()).sum();
            idle += all / experts.n * (experts.n - experts.n_used);
        }
        let embedding = &weights.token_embd;
        let row = embedding.ty.row_bytes(embedding.cols);
        let skipped = if weights.output.is_some() { embedding.data.len() } else { 0 };
        let all: usize = weights.iter().map(|t| t.data.len()).sum();
        // Of embeddings by layer a row too.
        let by_layer = weights.per_layer.map_or(0, |w| w.embd.data.len() - w.embd.ty.row_bytes(w.embd.cols));
        assert_eq!(model.facts().decode_bytes as usize, all - skipped - by_layer - idle + row, "{arch}");
    }
}
