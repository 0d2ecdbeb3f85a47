//! Every device against Hugging Face transformers on tiny random models (scripts/make_parity_fixtures.py made them), and
//! against itself however a prompt is chunked.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kigo::backend::reference::ReferenceDevice;
use kigo::backend::{Chunk, Device, LoadControl, LoadedModel, PAGE_TOKENS, RunControl, TapEvent, Want};
use kigo::error::Result;
use kigo::gguf::Gguf;
use kigo::model::{Config, bind};
use serde_json::Value;

/// A device under test.
struct Tested {
    device: Box<dyn Device>,
    /// Unit roundoff of the least precise number it keeps an activation, a key or a value in.
    unit: f64,
}

fn devices() -> Vec<Tested> {
    vec![Tested { device: Box::new(ReferenceDevice), unit: f32::EPSILON as f64 / 2.0 }]
}

/// A fixture: token ids and transformers' logits at some positions.
struct Fixture {
    name: &'static str,
    files: Vec<String>,
    tokens: Vec<u32>,
    positions: Vec<usize>,
    logits: Vec<f32>, // [positions, n_vocab]
}

const FIXTURES: [&str; 4] = ["qwen2", "qwen3", "llama", "gemma3"];

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(file)
}

fn numbers(json: &Value) -> impl Iterator<Item = u64> {
    json.as_array().unwrap().iter().map(|n| n.as_u64().unwrap())
}

fn fixture(name: &'static str) -> Fixture {
    let json: Value = serde_json::from_slice(&std::fs::read(path(&format!("{name}.json"))).unwrap()).unwrap();
    let bytes = std::fs::read(path(&format!("{name}.logits"))).unwrap();
    Fixture {
        name,
        files: json["files"].as_array().unwrap().iter().map(|f| f.as_str().unwrap().to_string()).collect(),
        tokens: numbers(&json["tokens"]).map(|n| n as u32).collect(),
        positions: numbers(&json["positions"]).map(|n| n as usize).collect(),
        logits: bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
    }
}

struct NoControl;

impl LoadControl for NoControl {
    fn progress(&mut self, _done: u64, _total: u64) -> Result<()> {
        Ok(())
    }
    fn release(&mut self, _bytes: &[u8]) {}
}

fn load(device: &dyn Device, file: &str) -> Arc<dyn LoadedModel> {
    let gguf = Gguf::open(&path(file)).unwrap();
    let (config, weights) = bind(&gguf).unwrap();
    device.load(&config, &weights, &mut NoControl).unwrap()
}

/// Logits after each chunk: `[chunk_lens.len(), n_vocab]`.
fn run(model: &dyn LoadedModel, tokens: &[u32], chunk_lens: &[usize]) -> Vec<Vec<f32>> {
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_TOKENS) as u32).collect();
    model.reserve_pages(pages.len()).unwrap();
    let mut slot = model.create_slot().unwrap();
    let mut start = 0;
    let mut out = Vec::new();
    for &n in chunk_lens {
        let tokens = &tokens[start..start + n];
        let mut chunks = [Chunk { tokens, start, pages: &pages, slot: &mut *slot, want: Want::Last }];
        model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None }).unwrap();
        let mut logits = vec![f32::NAN; model.config().n_vocab];
        model.logits(&mut *slot, &mut logits).unwrap();
        out.push(logits);
        start += n;
    }
    out
}

/// The largest difference, as a share of the root mean square of `truth`; NaN if there is one anywhere.
fn worst_error(x: &[f32], truth: &[f32]) -> f64 {
    assert_eq!(x.len(), truth.len());
    let mean_square = truth.iter().map(|&t| (t as f64).powi(2)).sum::<f64>() / truth.len() as f64;
    let differences = x.iter().zip(truth).map(|(&x, &t)| (x as f64 - t as f64).abs());
    // `f64::max` would drop a NaN.
    differences.fold(0.0, |m: f64, d| if m.is_nan() || d.is_nan() { f64::NAN } else { m.max(d) }) / mean_square.sqrt()
}

/// How far f32 arithmetic may take two correct implementations apart, as a share of the logits' root mean square.
///
/// Each rounding is an independent error of at most `unit`; a reduction of n terms makes about n of them, errors add
/// as a random walk along the path of reductions from the token to its logits, and 8 standard deviations hold
/// for all of the compared numbers.
fn bound(c: &Config, n_tokens: usize, unit: f64) -> f64 {
    let a_layer = 4 * c.n_embd + 2 * c.head_dim + n_tokens + c.n_heads * c.head_dim + c.n_ff; // norms, qkv, gate; scores; mix; o; down
    8.0 * unit * ((c.n_layers * a_layer + 2 * c.n_embd) as f64).sqrt()
}

#[test]
fn every_device_matches_transformers() {
    for tested in devices() {
        for fixture in FIXTURES.map(fixture) {
            for file in &fixture.files {
                let model = load(&*tested.device, file);
                let n_vocab = model.config().n_vocab;
                let one_by_one = run(&*model, &fixture.tokens, &vec![1; fixture.tokens.len()]);
                let bound = bound(model.config(), fixture.tokens.len(), tested.unit);
                for (&p, truth) in fixture.positions.iter().zip(fixture.logits.chunks_exact(n_vocab)) {
                    let error = worst_error(&one_by_one[p], truth);
                    println!("{} {file} position {p}: {error:.2e} of {bound:.2e}", tested.device.name());
                    assert!(error <= bound, "{file} position {p}: {error:.2e} is not within {bound:.2e}");
                }
            }
        }
    }
}

#[test]
fn chunking_changes_no_bit() {
    for tested in devices() {
        for fixture in FIXTURES.map(fixture) {
            let model = load(&*tested.device, &fixture.files[0]);
            let n = fixture.tokens.len();
            let alone = run(&*model, &fixture.tokens, &vec![1; n]);
            for chunk_lens in [vec![n], vec![1, n - 1], vec![n - 1, 1], vec![7, 33, 24, n - 64], vec![63, 2, n - 65]] {
                let mut end = 0;
                for (len, logits) in chunk_lens.iter().zip(run(&*model, &fixture.tokens, &chunk_lens)) {
                    end += len;
                    let same = logits.iter().zip(&alone[end - 1]).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{} {} {chunk_lens:?} differs at {end}", tested.device.name(), fixture.name);
                }
            }
        }
    }
}

#[test]
fn a_batch_changes_no_bit() {
    for tested in devices() {
        let fixture = fixture("gemma3");
        let model = load(&*tested.device, &fixture.files[0]);
        let alone = run(&*model, &fixture.tokens, &vec![1; fixture.tokens.len()]);
        model.reserve_pages(5).unwrap();
        // Two sequences with pages out of order: one of all tokens, one of the first twenty.
        let (mut a, mut b) = (model.create_slot().unwrap(), model.create_slot().unwrap());
        let mut chunks = [
            Chunk { tokens: &fixture.tokens, start: 0, pages: &[4, 1], slot: &mut *a, want: Want::Last },
            Chunk { tokens: &fixture.tokens[..20], start: 0, pages: &[3], slot: &mut *b, want: Want::Last },
        ];
        model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: None }).unwrap();
        for (slot, n) in [(&mut a, fixture.tokens.len()), (&mut b, 20)] {
            let mut logits = vec![f32::NAN; model.config().n_vocab];
            model.logits(&mut **slot, &mut logits).unwrap();
            assert!(logits.iter().zip(&alone[n - 1]).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}

#[test]
fn taps_show_every_stage_and_change_no_bit() {
    for tested in devices() {
        let fixture = fixture("qwen3");
        let model = load(&*tested.device, &fixture.files[0]);
        let plain = run(&*model, &fixture.tokens[..9], &[9]);
        let c = model.config().clone();
        let (h, g) = (c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim);
        let mut expected = vec![("embed", -1, c.n_embd)];
        for layer in 0..c.n_layers as i32 {
            let stages = [("attn_norm", c.n_embd), ("q_rope", h), ("k_rope", g), ("v", g), ("attn_mix", h)];
            let rest = [("attn_out", c.n_embd), ("ffn_norm", c.n_embd), ("ffn_act", c.n_ff), ("ffn_out", c.n_embd)];
            expected.extend(stages.into_iter().chain(rest).map(|(name, cols)| (name, layer, cols)));
            expected.push(("resid", layer, c.n_embd));
        }
        expected.extend([("final_norm", -1, c.n_embd), ("logits", -1, c.n_vocab)]);

        let mut slot = model.create_slot().unwrap();
        let mut seen = Vec::new(); // of the last token
        let mut rows_of_first_stage = 0;
        let mut tapped_logits = Vec::new();
        let mut tap = |e: &TapEvent<'_>| {
            assert_eq!(e.data.len(), e.rows * e.cols);
            assert!(e.data.iter().all(|x| x.is_finite()), "{} of layer {}", e.name, e.layer);
            rows_of_first_stage += if e.name == "embed" { e.rows } else { 0 };
            if e.position + e.rows == 9 {
                seen.push((e.name, e.layer, e.cols));
            }
            if e.name == "logits" {
                tapped_logits = e.data.to_vec();
            }
        };
        let tokens = &fixture.tokens[..9];
        let mut chunks = [Chunk { tokens, start: 0, pages: &[0], slot: &mut *slot, want: Want::Last }];
        model.forward(&mut chunks, &mut RunControl { cancel: &AtomicBool::new(false), tap: Some(&mut tap) }).unwrap();
        assert_eq!(seen, expected);
        assert_eq!(rows_of_first_stage, 9);
        assert!(tapped_logits.iter().zip(&plain[0]).all(|(a, b)| a.to_bits() == b.to_bits()));
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
        assert!(!matches!(error.partial_cmp(&1e-4), Some(std::cmp::Ordering::Less)), "{wrong} passes with {error}");
    }
}
