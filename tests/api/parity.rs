//! Every device against Hugging Face transformers on tiny random models (scripts/make_parity_fixtures.py made them),
//! against the reference stage by stage, and against itself however tokens are chunked and batched.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kigo::backend::cpu::{CpuDevice, CpuOptions, Isa};
use kigo::backend::reference::ReferenceDevice;
use kigo::backend::{Chunk, Device, LoadedModel, RunControl, TapEvent, TapObserver, Want};
use kigo::engine::{EmbedOptions, Engine, LogSink, Pooling};
use kigo::error::Error;
use kigo::model::Config;
use serde_json::Value;

use super::parity_fixtures::FIXTURES;
use crate::common::run::{chunk, load, logits_after, reserve, same_bits, tapped};

/// Unit roundoff of f32 and f16: half the distance from 1 to the next number.
const F32_UNIT: f64 = f32::EPSILON as f64 / 2.0;
const F16_UNIT: f64 = 1.0 / 2048.0;

/// A device under test.
struct Tested {
    label: String,
    device: Box<dyn Device>,
    f16_cache: bool,
}

impl Tested {
    /// The reference with a cache of the same type.
    fn oracle(&self) -> &'static dyn Device {
        if self.f16_cache { &ReferenceDevice::F16_CACHE } else { &ReferenceDevice::PLAIN }
    }
}

fn devices() -> Vec<Tested> {
    let tested = |label: String, device: Box<dyn Device>, f16_cache| Tested { label, device, f16_cache };
    let mut all = vec![
        tested(ReferenceDevice::PLAIN.name(), Box::new(ReferenceDevice::PLAIN), false),
        tested(ReferenceDevice::F16_CACHE.name(), Box::new(ReferenceDevice::F16_CACHE), true),
    ];
    for isa in Isa::available() {
        let cpu = CpuDevice::new(CpuOptions { n_threads: 2, isa: Some(isa) }).expect("has threads");
        all.push(tested(format!("cpu {isa:?}"), Box::new(cpu), true));
    }
    all
}

/// A fixture: token ids and transformers' logits at some positions.
struct Fixture {
    name: &'static str,
    files: Vec<String>,
    tokens: Vec<u32>,
    positions: Vec<usize>,
    logits: Vec<f32>, // [positions, n_vocab]
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(file)
}

fn numbers(json: &Value) -> impl Iterator<Item = u64> {
    json.as_array().unwrap().iter().map(|n| n.as_u64().unwrap())
}

fn floats(file: &str) -> Vec<f32> {
    let bytes = std::fs::read(path(file)).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn fixture(name: &'static str) -> Fixture {
    let json: Value = serde_json::from_slice(&std::fs::read(path(&format!("{name}.json"))).unwrap()).unwrap();
    Fixture {
        name,
        files: json["files"].as_array().unwrap().iter().map(|f| f.as_str().unwrap().to_string()).collect(),
        tokens: numbers(&json["tokens"]).map(|n| n as u32).collect(),
        positions: numbers(&json["positions"]).map(|n| n as usize).collect(),
        logits: floats(&format!("{name}.logits")),
    }
}

/// The largest difference as a share of the root mean square of `truth`; NaN if there is one anywhere.
fn worst_error(x: &[f32], truth: &[f32]) -> f64 {
    assert_eq!(x.len(), truth.len());
    let mean_square = truth.iter().map(|&t| (t as f64).powi(2)).sum::<f64>() / truth.len() as f64;
    let differences = x.iter().zip(truth).map(|(&x, &t)| (x as f64 - t as f64).abs());
    // `f64::max` would drop a NaN.
    differences.fold(0.0, |m: f64, d| if m.is_nan() || d.is_nan() { f64::NAN } else { m.max(d) }) / mean_square.sqrt()
}

/// The root of the mean squared difference, as a share of the root mean square of `truth`.
fn rms_error(x: &[f32], truth: &[f32]) -> f64 {
    assert_eq!(x.len(), truth.len());
    let square = |x: f64| x * x;
    let difference: f64 = x.iter().zip(truth).map(|(&x, &t)| square(x as f64 - t as f64)).sum();
    (difference / truth.iter().map(|&t| square(t as f64)).sum::<f64>()).sqrt()
}

/// How far rounding may take two correct implementations apart, as a share of the root mean square.
///
/// Each f32 rounding is an independent relative error of at most `F32_UNIT`, and a reduction of n terms makes about n
/// of them; a layer's keys and values are rounded to the cache's type once each. Errors add as a random walk
/// along the path from the token to its logits, and 8 standard deviations hold for all compared numbers.
fn bound(c: &Config, n_tokens: usize, cache_unit: f64) -> f64 {
    // norms, qkv and gate; q k^T; the mix; o; down
    let most = c.widths();
    let a_layer = 4 * c.n_embd + 2 * most.head + n_tokens + most.q + most.ffn + most.expert;
    let n_f32 = (c.n_layers() * a_layer + 2 * c.n_embd) as f64;
    let n_cache = (2 * c.n_layers()) as f64;
    8.0 * (n_f32 * F32_UNIT.powi(2) + n_cache * cache_unit.powi(2)).sqrt()
}

#[test]
fn every_device_matches_transformers() {
    let mut wrong = Vec::new();
    for tested in devices() {
        for fixture in FIXTURES.map(fixture) {
            for file in &fixture.files {
                let model = load(&*tested.device, &path(file));
                let n_vocab = model.config().n_vocab;
                let one_by_one = logits_after(&*model, &fixture.tokens, &vec![1; fixture.tokens.len()]);
                let cache_unit = if tested.f16_cache { F16_UNIT } else { F32_UNIT };
                let bound = bound(model.config(), fixture.tokens.len(), cache_unit);
                let mut worst = 0.0f64;
                for (&p, truth) in fixture.positions.iter().zip(fixture.logits.chunks_exact(n_vocab)) {
                    let error = worst_error(&one_by_one[p], truth);
                    // NaN is not within any bound.
                    if !(error <= bound) {
                        wrong.push(format!("{} {file} position {p}: {error:.2e} of {bound:.2e}", tested.label));
                    }
                    worst = worst.max(error);
                }
                println!("{} {file}: worst {worst:.2e} of {bound:.2e}", tested.label);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Activations by layer and name, rows in order of position.
type Activations = BTreeMap<(i32, &'static str), Vec<f32>>;

/// All activations, and the logits.
fn stages(model: &dyn LoadedModel, tokens: &[u32]) -> (Activations, Vec<f32>) {
    let mut seen = Activations::new();
    let mut tap = |e: &TapEvent<'_>| seen.entry((e.layer, e.name)).or_default().extend_from_slice(e.data);
    let logits = tapped(model, tokens, &[tokens.len()], Some(&mut tap)).remove(0);
    (seen, logits)
}

#[test]
fn embeddings_are_those_of_transformers() {
    for tested in devices() {
        let engine = Engine::with_device(Arc::from(tested.device), 2, None, LogSink::silent());
        for fixture in FIXTURES.map(fixture) {
            let truth = floats(&format!("{}.embeddings", fixture.name));
            for file in &fixture.files {
                let model = engine.load_file(&path(file), &mut |_, _| Ok(())).expect("loads");
                let n_embd = model.facts().n_embd;
                assert_eq!(truth.len(), 4 * n_embd);
                let config = load(&ReferenceDevice::PLAIN, &path(file)).config().clone();
                // A state is a step before its logits, whose bound holds for it; a mean's errors are not larger than its
                // states', but it may be smaller than these by the root of their number.
                let unit = if tested.f16_cache { F16_UNIT } else { F32_UNIT };
                let of_state = bound(&config, fixture.tokens.len(), unit);
                let options = [Pooling::Mean, Pooling::Last].map(|p| [(p, false), (p, true)]).concat();
                for ((pooling, normalize), truth) in options.into_iter().zip(truth.chunks_exact(n_embd)) {
                    let mut found = vec![f32::NAN; n_embd];
                    model.embed(&fixture.tokens, EmbedOptions { pooling, normalize }, &mut found).expect("embeds");
                    let error = worst_error(&found, truth);
                    // NaN is not within any bound.
                    let what = format!("{} {file} {pooling:?} {normalize}", tested.label);
                    assert!(error <= of_state, "{what}: {error:.2e} of {of_state:.2e}");
                    let length = found.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                    // Each square is rounded twice at most.
                    assert!(!normalize || (length - 1.0).abs() < 4.0 * F32_UNIT, "{what}: length {length}");
                }
            }
        }
    }
}

#[test]
fn every_stage_matches_the_reference() {
    let mut wrong = Vec::new();
    for tested in devices() {
        for fixture in FIXTURES.map(fixture) {
            let file = path(&fixture.files[0]);
            let model = load(&*tested.device, &file);
            let (seen, tapped_logits) = stages(&*model, &fixture.tokens);
            let (truth, _) = stages(&*load(tested.oracle(), &file), &fixture.tokens);
            assert_eq!(seen.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>(), "{}", tested.label);
            // The caches are of one type, so f32 roundings are all that differs; but where they put two numbers on either
            // side of a rounding to f16, a difference of d becomes one of the grid's width w in a share d / w of the
            // numbers: a mean square of d w.
            let d = bound(model.config(), fixture.tokens.len(), F32_UNIT);
            let bound = if tested.f16_cache { (d * d + d * 2.0 * F16_UNIT).sqrt() } else { d };
            let mut worst = 0.0f64;
            for (stage, x) in &seen {
                let error = rms_error(x, &truth[stage]);
                // NaN is not within any bound.
                if !(error <= bound) {
                    wrong.push(format!("{} {} {stage:?}: {error:.2e} of {bound:.2e}", tested.label, fixture.name));
                }
                worst = worst.max(error);
            }
            println!("{} {}: worst stage {worst:.2e} of {bound:.2e}", tested.label, fixture.name);
            // To tap changes no bit.
            let plain = logits_after(&*model, &fixture.tokens, &[fixture.tokens.len()]).remove(0);
            assert!(same_bits(&tapped_logits, &plain) && same_bits(&seen[&(-1, "logits")], &plain), "{}", tested.label);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn taps_come_in_order_with_their_shapes() {
    for tested in devices() {
        let fixture = fixture("qwen3");
        let model = load(&*tested.device, &path(&fixture.files[0]));
        let c = model.config();
        let (h, g, f) = (c.widths().q, c.widths().kv, c.widths().ffn);
        let mut expected = vec![("embed", -1, c.n_embd)];
        for layer in 0..c.n_layers() as i32 {
            let attention = [("attn_norm", c.n_embd), ("q_rope", h), ("k_rope", g), ("v", g), ("attn_mix", h)];
            let rest = [("attn_out", c.n_embd), ("ffn_norm", c.n_embd), ("ffn_act", f), ("ffn_out", c.n_embd)];
            expected.extend(attention.into_iter().chain(rest).map(|(name, cols)| (name, layer, cols)));
            expected.push(("resid", layer, c.n_embd));
        }
        expected.extend([("final_norm", -1, c.n_embd), ("logits", -1, c.n_vocab)]);

        let mut seen = Vec::new(); // of the last token
        let mut tap = |e: &TapEvent<'_>| {
            assert_eq!((e.data.len(), e.sequence), (e.rows * e.cols, 0));
            if e.position + e.rows == 9 {
                seen.push((e.name, e.layer, e.cols));
            }
        };
        tapped(&*model, &fixture.tokens, &[9], Some(&mut tap));
        assert_eq!(seen, expected, "{}", tested.label);
    }
}

#[test]
fn chunking_changes_no_bit() {
    for tested in devices() {
        for fixture in FIXTURES.map(fixture) {
            let model = load(&*tested.device, &path(&fixture.files[0]));
            let n = fixture.tokens.len();
            let alone = logits_after(&*model, &fixture.tokens, &vec![1; n]);
            for chunk_lens in [vec![n], vec![1, n - 1], vec![n - 1, 1], vec![7, 33, 24, n - 64], vec![63, 2, n - 65]] {
                let mut end = 0;
                for (len, logits) in chunk_lens.iter().zip(logits_after(&*model, &fixture.tokens, &chunk_lens)) {
                    end += len;
                    let same = same_bits(&logits, &alone[end - 1]);
                    assert!(same, "{} {} {chunk_lens:?} differs at {end}", tested.label, fixture.name);
                }
            }
        }
    }
}

#[test]
fn company_in_a_batch_changes_no_bit() {
    for tested in devices() {
        for fixture in FIXTURES.map(fixture) {
            let model = load(&*tested.device, &path(&fixture.files[0]));
            let (tokens, n) = (&fixture.tokens, fixture.tokens.len());
            let alone = logits_after(&*model, tokens, &vec![1; n]);
            reserve(&*model, 5);
            let mut slots: Vec<_> = (0..3).map(|_| model.create_slot_for(n).unwrap()).collect();
            let [a, b, c] = &mut slots[..] else { unreachable!() };
            let mut run = RunControl { cancel: &AtomicBool::new(false), tap: None };
            model.forward(&mut [chunk(&*model, &mut **c, &tokens[..3], 0, &[0])], &mut run).unwrap();
            // Pages out of order: all tokens; the first twenty; and five more that want nothing, so their slot stays.
            let mut chunks = [
                chunk(&*model, &mut **a, tokens, 0, &[4, 1]),
                chunk(&*model, &mut **b, &tokens[..20], 0, &[3]),
                Chunk { want: Want::Nothing, ..chunk(&*model, &mut **c, &tokens[3..8], 3, &[0]) },
            ];
            model.forward(&mut chunks, &mut run).unwrap();
            let mut logits = vec![f32::NAN; model.config().n_vocab];
            for (slot, n) in [(&mut *a, n), (&mut *b, 20), (&mut *c, 3)] {
                model.logits(&mut **slot, &mut logits).unwrap();
                assert!(same_bits(&logits, &alone[n - 1]), "{} {} differs after {n}", tested.label, fixture.name);
            }
        }
    }
}

#[test]
fn a_cancelled_pass_changes_no_slot_and_can_be_repeated() {
    for tested in devices() {
        let fixture = fixture("llama");
        let model = load(&*tested.device, &path(&fixture.files[0]));
        let (tokens, n) = (&fixture.tokens, fixture.tokens.len());
        let truth = logits_after(&*model, tokens, &[10, n - 10]);
        reserve(&*model, 2);
        let mut slot = model.create_slot().unwrap();
        let mut logits = vec![f32::NAN; model.config().n_vocab];
        let cancel = AtomicBool::new(false);
        // From a tap, in the middle of the second pass.
        let mut tap = |e: &TapEvent<'_>| {
            cancel.fetch_or(e.position + e.rows > 10 && e.layer == 0, Ordering::Relaxed);
        };
        for (range, expected) in [(0..10, Some(&truth[0])), (10..n, None), (10..n, Some(&truth[1]))] {
            let mut chunks = [chunk(&*model, &mut *slot, &tokens[range.clone()], range.start, &[0, 1])];
            // The third pass is not tapped, hence not cancelled.
            let tapped = range.start == 0 || expected.is_none();
            cancel.store(false, Ordering::Relaxed);
            let tap = tapped.then_some(&mut tap as &mut dyn TapObserver);
            let outcome = model.forward(&mut chunks, &mut RunControl { cancel: &cancel, tap });
            match expected {
                Some(_) => outcome.unwrap(),
                None => assert!(matches!(outcome, Err(Error::Cancelled)), "{}: {outcome:?}", tested.label),
            }
            model.logits(&mut *slot, &mut logits).unwrap();
            assert!(same_bits(&logits, expected.unwrap_or(&truth[0])), "{} after {range:?}", tested.label);
        }
    }
}

#[test]
fn a_wrong_number_fails_the_comparison() {
    let fixture = fixture("qwen2");
    let truth = &fixture.logits;
    assert_eq!(worst_error(truth, truth), 0.0);
    for wrong in [f32::NAN, f32::INFINITY, truth[7] + 1e-3] {
        let mut x = truth.clone();
        x[7] = wrong;
        let error = worst_error(&x, truth);
        let passes = error <= 1e-4;
        assert!(!passes, "{wrong} passes with {error}");
    }
}
