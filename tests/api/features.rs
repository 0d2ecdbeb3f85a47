//! What a description can say, feature by feature: the CPU against the reference, the CPU against itself bit for bit, and
//! features against others that come to the same.

use std::sync::atomic::AtomicBool;

use crate::common::described::Described;
use crate::common::features::{EXPERTS, FEATURES, Feature, ON_HOSTS, dense, qk_norm};
use crate::common::run::{chunk, logits_after, reserve, same_bits, tapped};
use kigo::backend::cpu::{CpuDevice, CpuOptions, Isa};
use kigo::backend::reference::ReferenceDevice;
use kigo::backend::{Chunk, LoadedModel, PAGE_TOKENS, RunControl, TapEvent, tap_order};
use kigo::gguf::TensorType::{Bf16, F16, F32, Q8_0};
use kigo::model::{Activation, Block, Norm, QkNorm, Temperature};

fn all() -> impl Iterator<Item = Feature> {
    FEATURES.into_iter().chain(EXPERTS).chain(ON_HOSTS)
}

fn cpu(n_threads: usize, isa: Option<Isa>) -> CpuDevice {
    CpuDevice::new(CpuOptions { n_threads, isa }).expect("starts")
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i * 31 + i * 7 + 3) % 251).collect()
}

/// Normalized mean squared error.
fn nmse(x: &[f32], exact: &[f32]) -> f64 {
    let error: f64 = x.iter().zip(exact).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    error / exact.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()
}

/// Name, layer and position.
type Place = (&'static str, i32, usize);
/// All that a pass of 70 tokens and a step show, and the logits of both.
type Shown = (Vec<(Place, Vec<f32>)>, Vec<Vec<f32>>);

fn shown(model: &dyn LoadedModel) -> Shown {
    let mut rows = Vec::new();
    let mut tap = |e: &TapEvent<'_>| {
        for (i, row) in e.data.chunks_exact(e.cols).enumerate() {
            rows.push(((e.name, e.layer, e.position + i), row.to_vec()));
        }
    };
    let logits = tapped(model, &tokens(71), &[70, 1], Some(&mut tap));
    rows.sort_by_key(|(place, _)| *place);
    (rows, logits)
}

/// Layers and positions where other experts are chosen.
fn parted(own: &[(Place, Vec<f32>)], exact: &[(Place, Vec<f32>)]) -> Vec<(i32, usize)> {
    let pairs = own.iter().zip(exact).filter(|((place, x), (_, e))| place.0 == "moe_ids" && x != e);
    let mut places: Vec<_> = pairs.map(|(((_, layer, position), _), _)| (*layer, *position)).collect();
    places.sort_unstable();
    // What others are a consequence of.
    let all = places.clone();
    places.retain(|at| !all.iter().any(|of| of.0 < at.0 && of.1 <= at.1));
    places
}

/// Whether a row depends on a choice of experts.
fn is_behind((name, layer, position): Place, at: (i32, usize)) -> bool {
    let layer = if layer >= 0 || name == "embed" { layer } else { i32::MAX };
    match layer == at.0 {
        true => position == at.1 && tap_order(name) >= tap_order("moe_ids"),
        false => layer > at.0 && position >= at.1,
    }
}

#[test]
fn every_feature_agrees_with_the_reference_at_every_stage() {
    let device = cpu(2, None);
    for ty in [F32, F16, Q8_0] {
        let plain = logits_after(&*Described::plain(ty).load(&ReferenceDevice::PLAIN), &tokens(70), &[70]);
        for (name, change) in all() {
            let mut model = Described::plain(ty);
            change(&mut model);
            let (exact, exact_logits) = shown(&*model.load(&ReferenceDevice::PLAIN));
            let (own, own_logits) = shown(&*model.load(&device));
            assert_eq!(own.len(), exact.len(), "{name}");
            let parted = parted(&own, &exact);
            // Few of a model's 142 choices can be as close as what the cache rounds.
            assert!(parted.len() <= 2, "{name} {}: {parted:?}", ty.name());
            for ((place, x), (exact_place, e)) in own.iter().zip(&exact) {
                assert_eq!(place, exact_place, "{name}");
                if parted.iter().any(|at| is_behind(*place, *at)) || x == e {
                    continue;
                }
                // The cache is f16: a relative rounding of 2^-11 of keys and values, amplified by a few layers.
                assert!(nmse(x, e) < 2.0_f64.powi(-16), "{name} {}: {place:?} {:e}", ty.name(), nmse(x, e));
            }
            for (x, e) in own_logits.iter().zip(&exact_logits).filter(|_| parted.is_empty()) {
                assert!(nmse(x, e) < 2.0_f64.powi(-18), "{name} {}: {:e}", ty.name(), nmse(x, e));
            }
            let change = nmse(&exact_logits[0], &plain[0]);
            assert!(change > 1e-5, "{name} {} changes next to nothing: {change:e}", ty.name());
        }
    }
}

#[test]
fn every_feature_has_the_same_bits_in_any_chunks_threads_and_instructions() {
    let text = tokens(150);
    for (name, change) in all() {
        let mut model = Described::plain(Q8_0);
        change(&mut model);
        let on = |n_threads, isa| model.load(&cpu(n_threads, isa));
        let expected = logits_after(&*on(1, None), &text, &[149, 1]);
        let two = on(2, None);
        let single = logits_after(&*two, &text, &[1; 150]);
        let same = |x: &[f32], how: &str| assert!(same_bits(x, &expected[1]), "{name}, {how}");
        assert!(same_bits(&single[148], &expected[0]), "{name}, one by one");
        same(&single[149], "one by one");
        same(&logits_after(&*two, &text, &[63, 2, 64, 21])[3], "in chunks");
        same(&logits_after(&*on(3, None), &text, &[149, 1])[1], "on three threads");
        for isa in Isa::available() {
            same(&logits_after(&*on(2, Some(isa)), &text, &[149, 1])[1], "with other instructions");
        }
    }
}

#[test]
fn every_feature_has_the_same_bits_in_a_batch_and_from_saved_pages() {
    let (device, cancel) = (cpu(2, None), AtomicBool::new(false));
    let (text, other) = (tokens(100), tokens(140).split_off(100));
    for (name, change) in all() {
        let mut model = Described::plain(Q8_0);
        change(&mut model);
        let model = model.load(&device);
        let expected = logits_after(&*model, &text, &[90, 10]);
        let (first, second, third) = ([2, 3], [4], [5, 6]);
        reserve(&*model, 7);
        let run = |chunks: &mut [Chunk<'_>]| {
            model.forward(chunks, &mut RunControl { cancel: &cancel, tap: None }).expect("runs");
        };
        let logits = |slot: &mut dyn kigo::backend::Slot| {
            let mut logits = vec![f32::NAN; model.config().n_vocab];
            model.logits(slot, &mut logits).expect("has logits");
            logits
        };
        // The one beside them is of a session that is not long.
        let mut slots = [100, 0, 100].map(|n_ctx| model.create_slot_for(n_ctx).expect("makes a slot"));
        let [a, b, c] = &mut slots;
        run(&mut [chunk(&*model, &mut **b, &other, 0, &second), chunk(&*model, &mut **a, &text[..90], 0, &first)]);
        assert!(same_bits(&logits(&mut **a), &expected[0]), "{name}, in a batch");
        // The rows of the second page as far as they are filled, and none behind them.
        let image = model.page_image().expect("has pages");
        for ((from, to), rows) in first.into_iter().zip(third).zip([PAGE_TOKENS, 90 - PAGE_TOKENS]) {
            let mut page = vec![0xff; image.bytes];
            model.read_page(from, rows, &mut page).expect("reads");
            model.write_page(to, &page).expect("writes");
        }
        run(&mut [
            chunk(&*model, &mut **a, &text[90..], 90, &first),
            chunk(&*model, &mut **c, &text[90..], 90, &third),
        ]);
        assert!(same_bits(&logits(&mut **a), &expected[1]), "{name}, in a batch");
        assert!(same_bits(&logits(&mut **c), &expected[1]), "{name}, from saved pages");
    }
}

/// The last logits of 70 tokens on the reference.
fn exact(change: impl FnOnce(&mut Described)) -> Vec<f32> {
    let mut model = Described::plain(F32);
    change(&mut model);
    logits_after(&*model.load(&ReferenceDevice::PLAIN), &tokens(70), &[70]).remove(0)
}

#[test]
fn features_that_come_to_the_same_agree() {
    let plain = exact(|_| ());
    let agree = |name: &str, a: &[f32], b: &[f32]| assert!(nmse(a, b) < 1e-11, "{name}: {:e}", nmse(a, b));
    let half: fn(f32) -> f32 = |x| 0.5 * x;
    let zero: fn(f32) -> f32 = |_| 0.0;
    let one: fn(f32) -> f32 = |_| 1.0;
    let halved = exact(|d| d.changed = vec![("attn_output.weight", half), ("ffn_down.weight", half)]);
    agree("residual scale", &exact(|d| d.config.residual_scale = 0.5), &halved);
    // Names of the layers' output matrices end so too.
    let halved = exact(|d| (d.output_bias, d.changed) = (true, vec![("output.weight", half), ("output.bias", half)]));
    let scaled = exact(|d| {
        (d.output_bias, d.config.logit_scale) = (true, 0.5);
        d.changed = vec![("attn_output.weight", half)];
    });
    agree("logit scale", &scaled, &halved);
    let cold = Some(Temperature { beta: 0.0, interval: 1 });
    agree("a temperature that is none", &exact(|d| d.layers(|l| l.attention_mut().temperature = cold)), &plain);
    let silent = |d: &mut Described| d.changed = vec![("attn_output.weight", zero)];
    let parallel = exact(|d| {
        silent(d);
        d.layers(|l| l.block = Block::Parallel);
    });
    agree("parallel to nothing", &parallel, &exact(silent));
    let one_head = |kind| {
        move |d: &mut Described| {
            d.layers(|l| (l.attention_mut().n_heads, l.attention_mut().n_kv_heads) = (1, 1));
            qk_norm(d, kind);
        }
    };
    agree("a row of one head", &exact(one_head(QkNorm::Row)), &exact(one_head(QkNorm::Head)));
    let even = |kind| {
        move |d: &mut Described| {
            qk_norm(d, kind);
            d.changed = vec![("attn_q_norm.weight", one), ("attn_k_norm.weight", one)];
        }
    };
    agree("a norm of a turned head", &exact(even(QkNorm::HeadAfterRope)), &exact(even(QkNorm::Head)));
    let biased = |d: &mut Described| (d.config.norm, d.norm_bias) = (Norm::Layer, true);
    let unbiased = exact(|d| {
        biased(d);
        d.changed = vec![("norm.bias", zero)];
    });
    agree("biases of zero", &unbiased, &exact(|d| d.config.norm = Norm::Layer));
    let gated = exact(|d| {
        dense(d, Activation::Relu2, true);
        d.ffn_bias = true;
        d.changed = vec![("ffn_up.weight", zero), ("ffn_up.bias", one)];
    });
    // Up is one: the gate alone, whose tensors have other numbers under another name.
    let ungated = exact(|d| {
        dense(d, Activation::Relu2, false);
        d.ffn_bias = true;
        d.renamed = vec![("ffn_up", "ffn_gate")];
    });
    agree("a gate alone", &gated, &ungated);
    let gelu = |activation| move |d: &mut Described| dense(d, activation, false);
    let near = nmse(&exact(gelu(Activation::Gelu)), &exact(gelu(Activation::GeluTanh)));
    assert!(near > 0.0 && near < 1e-5, "the tanh form approximates the exact one: {near:e}");
}

#[test]
fn vectors_may_be_of_any_float_type() {
    let device = cpu(2, None);
    let wide = exact(|d| (d.norm_bias, d.qkv_bias, d.ffn_bias) = (true, true, true));
    for (ty, bound) in [(F16, 1e-5), (Bf16, 1e-3)] {
        let mut model = Described::plain(F32);
        (model.vector_ty, model.norm_bias, model.qkv_bias, model.ffn_bias) = (ty, true, true, true);
        let text = tokens(70);
        let exact = logits_after(&*model.load(&ReferenceDevice::PLAIN), &text, &[70]).remove(0);
        let own = logits_after(&*model.load(&device), &text, &[70]).remove(0);
        assert!(nmse(&own, &exact) < 2.0_f64.powi(-18), "{}: {:e}", ty.name(), nmse(&own, &exact));
        let error = nmse(&exact, &wide);
        assert!(error > 0.0 && error < bound, "{}: {error:e}", ty.name());
    }
}
