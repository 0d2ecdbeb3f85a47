//! Doctor on tiny models: a sound one passes, and each of the four faults is named.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::cache::FULL;
use super::{Check, Diagnosis, Outcome, Subject, diagnose};
use crate::backend::faults::{Fault, plant};
use crate::backend::reference::ReferenceDevice;
use crate::backend::{
    CacheRow, Chunk, Device, LoadControl, LoadOptions, LoadedModel, PAGE_TOKENS, Plan, RunControl, Slot, TapEvent,
};
use crate::common::rewritten::Rewritten;
use crate::common::tiny::{ARCHS, Tiny};
use crate::engine::{Engine, EngineOptions, LogSink};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorType};
use crate::model::{Config, Weights, bind};
use crate::sampler::{SampleRequest, Sampled, SamplingParams};

fn file(arch: &str) -> PathBuf {
    // Beside the test program, written once by whichever test comes first.
    static WRITTEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let path = std::env::current_exe().unwrap().with_file_name(format!("doctor-{arch}.gguf"));
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    if !written.contains(&path) {
        Tiny::new(arch, TensorType::Q8_0).write(&path);
        written.push(path.clone());
    }
    path
}

/// All checks of a device with a model that has a fault.
fn run(arch: &str, device: &str, fault: Fault) -> (Vec<Check>, Diagnosis) {
    examine(&file(arch), device, fault)
}

fn examine(path: &Path, device: &str, fault: Fault) -> (Vec<Check>, Diagnosis) {
    let options = EngineOptions { device, n_threads: 2, memory_cap: None, log: LogSink::silent() };
    let engine = Engine::new(options).unwrap();
    let mut checks = Vec::new();
    plant(fault);
    let diagnosis = diagnose(&engine, path, 1, &mut |check| {
        checks.push(check.clone());
        true
    });
    plant(Fault::None);
    (checks, diagnosis.unwrap())
}

#[test]
fn a_sound_device_passes_every_check() {
    for arch in ARCHS {
        for device in ["cpu", "reference"] {
            let (checks, diagnosis) = run(arch, device, Fault::None);
            // Random weights say what they like.
            for check in checks.iter().filter(|c| c.subject != Subject::Repetition) {
                assert_eq!(check.outcome, Outcome::Holds, "{arch} on {device}: {check:?}");
                assert!(check.figure <= check.bound && !check.text.is_empty(), "{check:?}");
            }
            assert_eq!(checks.len(), 9);
            assert_eq!(diagnosis.n_holding + diagnosis.n_failed, 9);
            assert!(diagnosis.at_fault.is_none_or(|s| s == Subject::Repetition));
        }
    }
}

#[test]
fn a_scale_beside_the_embedding_is_part_of_it() {
    let path = std::env::current_exe().unwrap().with_file_name("doctor-scale.gguf");
    let mut file = Rewritten::of(&Tiny::new("qwen2", TensorType::Nvfp4));
    file.add_floats("token_embd.scale", &[0.75]);
    std::fs::write(&path, file.bytes()).unwrap();
    for device in ["cpu", "reference"] {
        let (checks, _) = examine(&path, device, Fault::None);
        for check in checks.iter().filter(|c| c.subject != Subject::Repetition) {
            assert_eq!(check.outcome, Outcome::Holds, "{device}: {check:?}");
        }
    }
}

/// Heads of 64, 128 and 256 elements, one query head a group and many, windows shorter than a prompt and no multiple of
/// anything, tied and untied outputs, all stored types: what is sound is not called ill.
#[test]
fn odd_shapes_raise_no_false_alarm() {
    use TensorType::*;
    // (type, that of the embedding, head, heads, kv heads, tied, window)
    let odd = [
        (F32, F16, 64, 2, 1, true, 5),
        (F16, Q8_0, 128, 1, 1, false, 7),
        (Bf16, F32, 64, 4, 4, true, 33),
        (Q4_0, Q6_K, 256, 1, 1, false, 65),
        (Q4_1, Q4_1, 64, 3, 1, true, 1),
        (Q5_0, Bf16, 128, 2, 2, false, 16),
        (Q5_1, Q5_1, 64, 7, 1, true, 63),
        (Q8_0, Q4_0, 256, 2, 1, true, 64),
        (Q2_K, Q6_K, 64, 4, 2, false, 100),
        (Q3_K, Q3_K, 128, 4, 1, true, 511),
        (Q4_K, Q6_K, 256, 4, 1, true, 512),
        (Q5_K, Q5_K, 64, 6, 3, false, 13),
        (Q6_K, Q2_K, 128, 2, 1, true, 3),
        (IQ4_NL, Q6_K, 64, 4, 1, true, 9),
        (IQ4_XS, Mxfp4, 128, 2, 1, false, 31),
        (Mxfp4, IQ4_XS, 64, 6, 2, true, 65),
        (Nvfp4, Q2_0, 64, 4, 2, true, 17),
        (IQ3_S, IQ3_XXS, 128, 2, 1, true, 5),
        (IQ2_S, IQ2_XS, 256, 2, 1, true, 64),
        (IQ2_XXS, TQ2_0, 64, 4, 2, false, 33),
    ];
    let path = std::env::current_exe().unwrap().with_file_name("doctor-odd.gguf");
    for (i, (ty, embd_ty, head_dim, n_heads, n_kv_heads, tied, window)) in odd.into_iter().enumerate() {
        // gemma3 has the windows; the others take turns.
        for arch in [ARCHS[i % 3], ARCHS[3]] {
            let mut tiny = Tiny::new(arch, ty);
            tiny.embd_ty = embd_ty;
            let shape = &mut tiny.shape;
            if embd_ty.block_len() == 256 {
                (shape.n_embd, shape.n_ff) = (256, 512);
            }
            (shape.head_dim, shape.n_heads, shape.n_kv_heads, shape.tied) = (head_dim, n_heads, n_kv_heads, tied);
            shape.window = if arch == "gemma3" { window } else { 0 };
            shape.n_ctx = 130 + i;
            tiny.write(&path);
            let (checks, _) = examine(&path, "cpu", Fault::None);
            for check in checks.iter().filter(|c| c.subject != Subject::Repetition) {
                assert_eq!(check.outcome, Outcome::Holds, "{arch} {:?}: {check:?}", odd[i]);
            }
        }
    }
}

/// A model whose context is too short for a check: it is skipped, and says so; no context makes one fail.
#[test]
fn a_short_context_is_no_fault() {
    let path = std::env::current_exe().unwrap().with_file_name("doctor-short.gguf");
    for n_ctx in [1, 2, 5, 6, 7, 15, 16, 21, 24, 25, 63, 64, 65, 129] {
        let mut tiny = Tiny::new("gemma3", TensorType::Q8_0);
        tiny.shape.n_ctx = n_ctx;
        tiny.write(&path);
        let (mut checks, _) = examine(&path, "cpu", Fault::None);
        checks.retain(|c| c.subject != Subject::Repetition);
        for check in &checks {
            assert_ne!(check.outcome, Outcome::Fails, "{n_ctx}: {check:?}");
            assert!(check.outcome == Outcome::Holds || check.text.contains("context"), "{n_ctx}: {check:?}");
        }
        assert_eq!(checks.iter().all(|c| c.outcome == Outcome::Holds), n_ctx >= 24, "{n_ctx}: {checks:#?}");
    }
}

#[test]
fn each_of_the_four_faults_is_named() {
    let faults = [
        (Fault::StaleLogits, Subject::LogitsBuffer, "stale"),
        (Fault::CounterAsToken, Subject::TokenFlow, "was sampled, and the row of"),
        (Fault::CacheOffByOne, Subject::Cache, "what went into the cache was the same"),
        (Fault::PositionStops, Subject::Position, "turned"),
    ];
    for arch in ARCHS {
        let (config, _) = bind(&Gguf::open(&file(arch)).unwrap()).unwrap();
        let turned = config.layers.iter().any(|layer| layer.attention().rope.is_some());
        // Where positions turn nothing they may stop.
        for (fault, subject, words) in faults.into_iter().filter(|(fault, ..)| turned || *fault != Fault::PositionStops)
        {
            let (checks, diagnosis) = run(arch, "cpu", fault);
            assert_eq!(diagnosis.at_fault, Some(subject), "{arch} {fault:?}: {checks:#?}");
            let own = checks.iter().find(|c| c.subject == subject).unwrap();
            assert_eq!(own.outcome, Outcome::Fails, "{arch} {fault:?}: {own:?}");
            assert!(own.text.contains(words), "{arch} {fault:?}: {own:?}");
            // The comparison with another device sees it too.
            let devices = checks.iter().find(|c| c.subject == Subject::Devices).unwrap();
            assert!(fault == Fault::StaleLogits || devices.outcome == Outcome::Fails, "{arch} {fault:?}: {devices:?}");
        }
    }
}

#[test]
fn cycles_are_found_and_prose_is_not_one() {
    let varied: Vec<u32> = (0..64).map(|i| i * i % 53).collect();
    assert_eq!(super::text::cycle(&varied), None);
    for period in [1, 2, 5, 16] {
        let mut answer = varied[..16].to_vec();
        answer.extend((0..48).map(|i| 100 + i % period));
        assert_eq!(super::text::cycle(&answer), Some(period as usize));
    }
    assert_eq!(super::text::cycle(&[1; 20]), None, "too short to say");
}

/// What a device does wrong.
#[derive(Clone, Copy, Debug)]
enum Sabotage {
    /// Draws ignore the temperature.
    AlwaysGreedy,
    /// Greedy takes the last token.
    GreedyIsWrong,
    /// A step touches the values of the first position.
    OldRowsChange,
    /// A step to the last position of the context gives other logits.
    LastPosition,
    /// The row behind the current position takes part in the logits.
    ReadsAhead,
    /// A stage is shown a little wrong.
    StageIsOff,
    /// Keys of the later layers are longer behind the first position.
    LateKeysGrow,
    /// Every draw at a temperature takes the same token.
    Stuck,
}

/// The reference, sabotaged.
struct Bad(Sabotage);

struct BadModel(Arc<dyn LoadedModel>, Sabotage);

impl Device for Bad {
    fn name(&self) -> String {
        "bad".into()
    }
    fn plan(&self, config: &Config, weights: &Weights<'_>) -> Plan {
        ReferenceDevice::PLAIN.plan(config, weights)
    }
    fn load(
        &self,
        c: &Config,
        w: &Weights<'_>,
        options: &LoadOptions,
        control: &mut dyn LoadControl,
    ) -> Result<Arc<dyn LoadedModel>> {
        Ok(Arc::new(BadModel(ReferenceDevice::PLAIN.load(c, w, options, control)?, self.0)))
    }
}

impl LoadedModel for BadModel {
    fn config(&self) -> &Config {
        self.0.config()
    }
    fn plan(&self) -> Plan {
        self.0.plan()
    }
    fn reserve_pages(&self, n: usize) -> Result<()> {
        self.0.reserve_pages(n)
    }
    fn release_page(&self, page: u32) {
        self.0.release_page(page);
    }
    fn copy_page(&self, from: u32, to: u32) -> Result<()> {
        self.0.copy_page(from, to)
    }
    fn create_slot_for(&self, n_ctx: usize) -> Result<Box<dyn Slot>> {
        self.0.create_slot_for(n_ctx)
    }
    fn set_logits(&self, slot: &mut dyn Slot, logits: &[f32]) -> Result<()> {
        self.0.set_logits(slot, logits)
    }
    fn is_exact_in_chunks(&self) -> bool {
        true
    }
    fn read_cache(&self, at: CacheRow, keys: &mut [f32], values: &mut [f32]) -> Result<()> {
        self.0.read_cache(at, keys, values)
    }
    fn write_cache(&self, at: CacheRow, keys: &[f32], values: &[f32]) -> Result<()> {
        self.0.write_cache(at, keys, values)
    }
    fn logits(&self, slot: &mut dyn Slot, out: &mut [f32]) -> Result<()> {
        self.0.logits(slot, out)
    }
    fn forward(&self, chunks: &mut [Chunk<'_>], run: &mut RunControl<'_>) -> Result<()> {
        let g = self.0.config().layers[0].attention().kv_width();
        let (mut keys, mut values) = (vec![0.0; g], vec![0.0; g]);
        let end = chunks[0].start + chunks[0].tokens.len();
        let fills = chunks[0].tokens.len() == 1 && end == FULL.min(self.0.config().n_ctx_train);
        let page = chunks[0].pages[0];
        if matches!(self.1, Sabotage::StageIsOff | Sabotage::LateKeysGrow) {
            let mut outer = run.tap.take();
            let mut off = |event: &TapEvent<'_>| {
                let off = match self.1 {
                    Sabotage::StageIsOff => event.name == "ffn_act",
                    _ => event.name == "k_rope" && event.layer > 0 && event.position > 0,
                };
                let scale = if off { 1.05 } else { 1.0 };
                let data: Vec<f32> = event.data.iter().map(|x| x * scale).collect();
                if let Some(tap) = &mut outer {
                    tap.show(&TapEvent { data: &data, ..*event });
                }
            };
            return self.0.forward(chunks, &mut RunControl { cancel: run.cancel, tap: Some(&mut off) });
        }
        self.0.forward(chunks, run)?;
        match self.1 {
            // Behind the last logits that are compared: only the rows tell.
            Sabotage::OldRowsChange if fills => {
                let at = CacheRow { page, row: 0, layer: 0 };
                self.0.read_cache(at, &mut keys, &mut values)?;
                values[0] += 1.0;
                self.0.write_cache(at, &keys, &values)
            }
            Sabotage::LastPosition if fills => {
                let mut logits = vec![0.0; self.0.config().n_vocab];
                self.0.logits(chunks[0].slot, &mut logits)?;
                logits[0] += 1.0;
                self.0.set_logits(chunks[0].slot, &logits)
            }
            Sabotage::ReadsAhead if end < PAGE_TOKENS => {
                self.0.read_cache(CacheRow { page, row: end, layer: 0 }, &mut keys, &mut values)?;
                let mut logits = vec![0.0; self.0.config().n_vocab];
                self.0.logits(chunks[0].slot, &mut logits)?;
                logits[0] += 0.0 * values[0]; // a NaN stays one
                self.0.set_logits(chunks[0].slot, &logits)
            }
            _ => Ok(()),
        }
    }
    fn sample(&self, slot: &mut dyn Slot, request: &SampleRequest<'_>) -> Result<Sampled> {
        let greedy = SamplingParams::default();
        match self.1 {
            Sabotage::AlwaysGreedy => self.0.sample(slot, &SampleRequest { params: &greedy, ..*request }),
            Sabotage::GreedyIsWrong if request.params.temperature == 0.0 => {
                Ok(Sampled { token: self.0.config().n_vocab as u32 - 4 })
            }
            Sabotage::Stuck if request.params.temperature > 0.0 => Ok(Sampled { token: 7 }),
            _ => self.0.sample(slot, request),
        }
    }
}

#[test]
fn other_faults_fail_their_checks() {
    let cases = [
        (Sabotage::AlwaysGreedy, Subject::Sampling, "chi-squared"),
        (Sabotage::GreedyIsWrong, Subject::Sampling, "the largest logit"),
        (Sabotage::ReadsAhead, Subject::Attention, "reads rows behind it"),
        (Sabotage::StageIsOff, Subject::Devices, "ffn_act"),
        (Sabotage::LateKeysGrow, Subject::Position, "the key of layer 1 at position 1 is not"),
        (Sabotage::Stuck, Subject::Repetition, "cycle of 1"),
    ];
    for (sabotage, subject, words) in cases {
        let engine = Engine::with_device(Arc::new(Bad(sabotage)), 2, None, LogSink::silent());
        let mut checks = Vec::new();
        diagnose(&engine, &file("llama"), 1, &mut |check| {
            checks.push(check.clone());
            true
        })
        .unwrap();
        let own = checks.iter().find(|c| c.subject == subject).unwrap();
        assert_eq!(own.outcome, Outcome::Fails, "{sabotage:?}: {checks:#?}");
        assert!(own.text.contains(words), "{sabotage:?}: {own:?}");
    }
}

#[test]
fn the_cache_is_looked_at_to_the_last_position_and_back() {
    let cases = [
        (Sabotage::OldRowsChange, "changed after it was written"),
        (Sabotage::LastPosition, "512 tokens at once and one by one part"),
    ];
    for (sabotage, words) in cases {
        let engine = Engine::with_device(Arc::new(Bad(sabotage)), 2, None, LogSink::silent());
        let mut found = None;
        let stopped = diagnose(&engine, &file("llama"), 1, &mut |check| {
            found = Some(check.clone());
            check.subject != Subject::Cache
        });
        assert!(matches!(stopped, Err(Error::Cancelled)));
        let found = found.unwrap();
        assert_eq!((found.outcome, found.blames), (Outcome::Fails, Some(Subject::Cache)), "{found:?}");
        assert!(found.text.contains(words), "{found:?}");
    }
}
