//! SmolLM2 Q4_1 against Hugging Face transformers in f32 on the dequantized weights, at 125 positions of five texts
//! (scripts/kl_truth.py and scripts/kl_fixture.py made the fixture), and no worse than llama.cpp on the same file.

use std::path::{Path, PathBuf};

use kigo::backend::Device;
use kigo::backend::cpu::{CpuDevice, CpuOptions};
use kigo::backend::reference::ReferenceDevice;
use serde_json::Value;

use crate::common::run::{load, logits_after};

/// What a device's logits are like beside the reference's.
#[derive(Debug)]
struct Outcome {
    positions: usize,
    /// Share of positions with the reference's most likely token.
    agree: f64,
    /// Positions where the most likely token differs although the reference's first two logits are more than 1.0 apart.
    wide_misses: usize,
    /// Mean of KL(reference || device) over 16 tokens and one class for the others, in nats.
    kl: f64,
}

/// The fixture and the model's file, or a line that says why not.
fn fixture() -> Option<(Value, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let json = std::fs::read(root.join("tests/fixtures/truth_SmolLM2-135M-Instruct-Q4_1.json")).unwrap();
    let fixture: Value = serde_json::from_slice(&json).unwrap();
    let name = fixture["model"].as_str().unwrap();
    let path = root.join("models").join(name);
    match std::fs::metadata(&path) {
        Ok(file) if Some(file.len()) == fixture["file_bytes"].as_u64() => Some((fixture, path)),
        Ok(file) => {
            println!("skipped: models/{name} has {} bytes, the fixture's file {}", file.len(), fixture["file_bytes"]);
            None
        }
        Err(_) => {
            println!("skipped: models/{name} not there");
            None
        }
    }
}

/// `ln(sum(exp(logits)))`.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().fold(f64::NEG_INFINITY, |m, &l| m.max(l as f64));
    max + logits.iter().map(|&l| (l as f64 - max).exp()).sum::<f64>().ln()
}

/// The first of the largest.
fn most_likely(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

fn compare(device: &dyn Device, fixture: &Value, path: &Path, n_prompts: usize) -> Outcome {
    let model = load(device, path);
    let step = fixture["step"].as_u64().unwrap() as usize;
    let (mut positions, mut agreed, mut wide_misses, mut kl) = (0, 0, 0, 0.0);
    for prompt in fixture["prompts"].as_array().unwrap().iter().take(n_prompts) {
        let tokens: Vec<u32> = serde_json::from_value(prompt["tokens"].clone()).unwrap();
        let after = logits_after(&*model, &tokens, &vec![step; tokens.len() / step]);
        for row in prompt["rows"].as_array().unwrap() {
            let position = row["position"].as_u64().unwrap() as usize;
            let top: Vec<(usize, f64)> = serde_json::from_value(row["top"].clone()).unwrap();
            let logits = &after[position / step];
            assert!(logits.iter().all(|l| l.is_finite()), "logits after position {position} are not finite");
            let norm = log_sum_exp(logits);
            let (mut p_rest, mut q_rest) = (1.0, 1.0);
            for &(id, log_p) in &top {
                let (p, log_q) = (log_p.exp(), logits[id] as f64 - norm);
                kl += p * (log_p - log_q);
                p_rest -= p;
                q_rest -= log_q.exp();
            }
            // What is left of 1 after the subtractions, if the sixteen hold all of it, is rounding.
            if p_rest > 1e-6 {
                kl += p_rest * (p_rest / q_rest).ln();
            }
            let same = most_likely(logits) == top[0].0;
            agreed += same as usize;
            wide_misses += (!same && row["gap"].as_f64().unwrap() > 1.0) as usize;
            positions += 1;
        }
    }
    Outcome { positions, agree: agreed as f64 / positions as f64, wide_misses, kl: kl / positions as f64 }
}

#[test]
fn the_reference_is_the_truth() {
    let Some((fixture, path)) = fixture() else { return };
    let outcome = compare(&ReferenceDevice::PLAIN, &fixture, &path, 2);
    println!("reference: {outcome:?}");
    assert_eq!((outcome.agree, outcome.wide_misses, outcome.positions), (1.0, 0, 50));
    // 30 layers of f32 roundings move logits of about 20 by less than 3e-4 (the bound of tests/api/parity.rs), and a change
    // of d in the logits moves the divergence by at most d^2 / 2; the fixture keeps 7 decimals.
    assert!(outcome.kl.abs() <= 1e-7, "{outcome:?}");
}

#[test]
fn the_cpu_is_no_further_from_the_truth_than_llama_cpp() {
    let Some((fixture, path)) = fixture() else { return };
    let cpu = CpuDevice::new(CpuOptions { n_threads: 2, ..Default::default() }).unwrap();
    let outcome = compare(&cpu, &fixture, &path, usize::MAX);
    println!("cpu: {outcome:?}, llama.cpp: {}", fixture["peer"]);
    assert_eq!((outcome.wide_misses, outcome.positions), (0, 125));
    assert!(outcome.agree >= fixture["peer"]["agree"].as_f64().unwrap(), "{outcome:?}");
    assert!(outcome.kl <= fixture["peer"]["kl"].as_f64().unwrap(), "{outcome:?}");
}
