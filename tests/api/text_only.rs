//! Models that also see or hear, as text: what their files have besides is left out, and the log says so.

use std::sync::{Arc, Mutex};

use crate::common::rewritten::Rewritten;
use crate::common::tiny::Tiny;
use kigo::backend::reference::ReferenceDevice;
use kigo::engine::{Engine, LogLevel, LogSink, Model};
use kigo::error::Error;
use kigo::gguf::TensorType;

/// A tiny model with such tensors besides, and what the log has got.
fn load(arch: &str, others: &[&str]) -> (Result<Model, Error>, Vec<String>) {
    let mut file = Rewritten::of(&Tiny::new(arch, TensorType::Q8_0));
    others.iter().for_each(|name| file.add_floats(name, &[1.0; 8]));
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&lines);
    let sink = LogSink::new(LogLevel::Info, move |_, text| {
        kept.lock().unwrap().push(text.to_owned());
        true
    });
    let engine = Engine::with_device(Arc::new(ReferenceDevice::PLAIN), 1, None, sink);
    let model = engine.load_memory(&file.bytes(), &mut |_, _| Ok(()));
    let lines = lines.lock().unwrap().clone();
    (model, lines)
}

#[test]
fn parts_that_see_are_left_out_and_the_log_says_so() {
    let others = ["v.patch_embd.weight", "v.blk.0.attn_q.weight", "mm.0.weight", "a.conv1d.1.weight"];
    for arch in ["qwen2vl", "qwen3vl", "qwen3vlmoe", "gemma4"] {
        let said = |lines: &[String]| lines.iter().any(|line| line.contains("4 tensors of parts that see or hear"));
        let (model, lines) = load(arch, &others);
        assert!(model.is_ok() && said(&lines), "{arch}: {lines:?}");
        let (model, lines) = load(arch, &[]);
        assert!(model.is_ok() && !lines.iter().any(|line| line.contains("left out")), "{arch}: {lines:?}");
        // No part, and so a tensor whose meaning is not known.
        let unknown = load(arch, &["vision.weight"]).0.err().expect("is refused").to_string();
        assert!(unknown.contains("\"vision.weight\""), "{unknown}");
    }
    let plain = load("qwen2", &others).0.err().expect("is refused").to_string();
    assert!(plain.contains("\"v.patch_embd.weight\""), "{plain}");
}
