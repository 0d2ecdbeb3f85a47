//! Files that are not what they seem, or that change while they are read: a status, never a signal, and no waiting.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kigo::engine::{Engine, EngineOptions, LogSink, Model, Session, SessionOptions};
use kigo::error::{Error, Result, Status};
use kigo::gguf::{Gguf, TensorType};

use crate::common::tiny::Tiny;

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("files").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the temporary folder can be written");
    path
}

fn engine(device: &str) -> Engine {
    Engine::new(EngineOptions { device, n_threads: 2, memory_cap: None, log: LogSink::silent() }).expect("opens")
}

fn logits(model: &Model) -> Vec<f32> {
    let session = Session::new(model, SessionOptions::default()).expect("made");
    session.prefill(&[1, 2, 3, 300]).expect("runs");
    let mut logits = vec![0.0; session.n_vocab()];
    session.logits(&mut logits).expect("there");
    logits
}

/// Loads the file and does `change` in the `at`-th call of the progress callback.
fn load(engine: &Engine, path: &Path, at: usize, change: &dyn Fn()) -> (Result<Model>, usize) {
    let calls = Cell::new(0);
    let loaded = engine.load_file(path, &mut |_, _| {
        if calls.replace(calls.get() + 1) == at {
            change();
        }
        Ok(())
    });
    (loaded, calls.get())
}

#[test]
fn a_file_shortened_during_a_load_is_a_status() {
    let path = folder("shortened").join("m.gguf");
    for (device, ty) in [("cpu", TensorType::Q4_0), ("cpu", TensorType::F32), ("reference", TensorType::Q8_0)] {
        let bytes = Tiny::new("qwen2", ty).bytes();
        let engine = engine(device);
        let n = bytes.len() as u64;
        let head = Gguf::from_bytes(&bytes).expect("opens").tensors().map(|t| t.offset).min().expect("some");
        std::fs::write(&path, &bytes).expect("written");
        let (whole, calls) = load(&engine, &path, usize::MAX, &|| ());
        let expected = logits(&whole.expect("loads"));
        let mut statuses = [0; 2];
        for at in 0..calls {
            for len in [0, 1, head - 1, head, head + (n - head) / 3, n - 4097, n - 1] {
                std::fs::write(&path, &bytes).expect("written");
                let cut = || File::options().write(true).open(&path).and_then(|f| f.set_len(len)).expect("cut");
                match load(&engine, &path, at, &cut).0 {
                    // All that was cut off had been read.
                    Ok(model) => {
                        statuses[0] += 1;
                        assert_eq!(logits(&model), expected, "{device}, call {at}, {len} bytes");
                    }
                    Err(e) => {
                        statuses[1] += 1;
                        assert_eq!(e.status(), Status::Io, "{e}");
                        let text = e.to_string();
                        let ends = format!("the file ends at byte {len}; it had {n} when it was opened");
                        let place = text.contains("cannot read: ") && text.contains(" bytes wanted at byte ");
                        assert!(text.contains("m.gguf") && place, "{text}");
                        // A read that begins behind the end gets nothing, and tells where it began.
                        assert!(text.ends_with(&ends) || text.contains(", 0 read"), "{text}");
                    }
                }
            }
        }
        assert!(statuses[1] > calls, "{statuses:?}");
        assert_eq!(engine.memory_used(), 0, "a failed load gives its memory back");
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(logits(&load(&engine, &path, usize::MAX, &|| ()).0.expect("loads")), expected);
    }
}

#[test]
fn a_file_overwritten_during_a_load_gives_a_model_or_a_status() {
    let path = folder("overwritten").join("m.gguf");
    for device in ["cpu", "reference"] {
        let bytes = Tiny::new("llama", TensorType::Q4_K).bytes();
        let engine = engine(device);
        std::fs::write(&path, &bytes).expect("written");
        let (whole, calls) = load(&engine, &path, usize::MAX, &|| ());
        let expected = logits(&whole.expect("loads"));
        let mut differ = 0;
        for at in 0..calls {
            for fill in [0, 0x5a, 0xff] {
                std::fs::write(&path, &bytes).expect("written");
                let file = File::options().write(true).open(&path).expect("opens");
                let change = || file.write_all_at(&vec![fill; bytes.len()], 0).expect("written");
                match load(&engine, &path, at, &change).0 {
                    Ok(model) => {
                        assert_eq!(model.facts().n_vocab, 512);
                        differ += usize::from(logits(&model) != expected);
                    }
                    Err(e) => assert!(matches!(e.status(), Status::Io | Status::InvalidModel), "{e}"),
                }
            }
        }
        assert!(differ > 0, "the change was never seen");
    }
}

/// Divisors of frequencies are read once, when they are checked, and a model is loaded with those.
#[test]
fn a_number_changed_after_its_check_is_not_read_again() {
    let path = folder("rechecked").join("m.gguf");
    let mut tiny = Tiny::new("llama", TensorType::F16);
    tiny.shape.rope_factor = 8.0;
    let bytes = tiny.bytes();
    let place = Gguf::from_bytes(&bytes).expect("opens").tensor("rope_freqs.weight").expect("there").offset;
    for device in ["cpu", "reference"] {
        std::fs::write(&path, &bytes).expect("written");
        let file = File::options().write(true).open(&path).expect("opens");
        let gguf = Gguf::open(&path).expect("opens");
        let (config, weights) = kigo::model::bind(&gguf).expect("binds");
        assert!(weights.divisors().expect("good").is_some_and(|d| d.len() == config.ropes[0].n_rot() / 2));
        file.write_all_at(&0f32.to_le_bytes(), place + 4).expect("written");
        let error = weights.divisors().expect_err("a divisor of 0");
        assert_eq!(error.to_string(), "tensor \"rope_freqs.weight\" element 1 is 0; expected positive and finite");
        let loaded = match device {
            "cpu" => {
                kigo::backend::cpu::CpuDevice::new(Default::default()).and_then(|d| load_on(&d, &config, &weights))
            }
            _ => load_on(&kigo::backend::reference::ReferenceDevice::PLAIN, &config, &weights),
        };
        loaded.unwrap_or_else(|e| panic!("{device}: {e}"));
        assert!(config.ropes[0].divisors.as_ref().is_some_and(|d| d.iter().all(|d| *d > 0.0)), "{device}");
    }
}

fn load_on(
    device: &dyn kigo::backend::Device,
    config: &kigo::model::Config,
    weights: &kigo::model::Weights<'_>,
) -> Result<()> {
    struct Silent;
    impl kigo::backend::LoadControl for Silent {
        fn progress(&mut self, _done: u64, _total: u64) -> Result<()> {
            Ok(())
        }
    }
    device.load(config, weights, &kigo::backend::LoadOptions::default(), &mut Silent).map(|_| ())
}

#[test]
fn a_file_replaced_during_a_load_is_read_as_it_was() {
    let folder = folder("replaced");
    let path = folder.join("m.gguf");
    let bytes = Tiny::new("qwen3", TensorType::Q5_0).bytes();
    let engine = engine("cpu");
    let expected = logits(&engine.load_memory(&bytes, &mut |_, _| Ok(())).expect("loads"));
    for at in [0, 1, 5] {
        std::fs::write(&path, &bytes).expect("written");
        let replace = || {
            std::fs::write(folder.join("other"), [0; 100]).expect("written");
            std::fs::rename(folder.join("other"), &path).expect("renamed");
        };
        assert_eq!(logits(&load(&engine, &path, at, &replace).0.expect("loads")), expected);
        let error = engine.load_file(&path, &mut |_, _| Ok(())).map(|_| ()).expect_err("replaced");
        assert_eq!(error.status(), Status::InvalidModel, "{error}");
    }
}

#[test]
fn a_file_shortened_between_plan_and_load_is_refused() {
    let path = folder("planned").join("m.gguf");
    let bytes = Tiny::new("gemma3", TensorType::Q6_K).bytes();
    let engine = engine("cpu");
    for len in [0, 10, 1000, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes).expect("written");
        engine.plan_file(&path).expect("plans");
        File::options().write(true).open(&path).and_then(|f| f.set_len(len as u64)).expect("cut");
        let error = engine.load_file(&path, &mut |_, _| Ok(())).map(|_| ()).expect_err("cut");
        assert_eq!(error.status(), Status::InvalidModel, "{len}: {error}");
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = folder("kinds");
    let refused = |path: &Path, status: Status, text: &str| {
        let begin = Instant::now();
        for error in [
            engine("cpu").load_file(path, &mut |_, _| Ok(())).map(|_| ()).expect_err("refused"),
            engine("cpu").plan_file(path).map(|_| ()).expect_err("refused"),
        ] {
            assert_eq!(error.status(), status, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{path:?}: {:?}", begin.elapsed());
    };
    refused(&folder, Status::Io, "not a regular file");
    refused(&folder.join("absent"), Status::Io, "cannot open");
    refused(Path::new("/dev/zero"), Status::Io, "not a regular file");
    refused(Path::new("/proc/self/status"), Status::InvalidModel, "header at byte 0: 0 is less than 24");
    let fifo = folder.join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
    assert!(made.success());
    refused(&fifo, Status::Io, "not a regular file");
    std::os::unix::fs::symlink(&fifo, folder.join("link")).expect("linked");
    refused(&folder.join("link"), Status::Io, "not a regular file");
    std::os::unix::fs::symlink("loop", folder.join("loop")).expect("linked");
    refused(&folder.join("loop"), Status::Io, "cannot open");

    // Holes read as zeros, and take no time to make.
    let holes = folder.join("holes");
    File::create(&holes).and_then(|f| f.set_len(1 << 40)).expect("made");
    refused(&holes, Status::InvalidModel, r#"magic at byte 0 is "\x00\x00\x00\x00" (00 00 00 00); expected "GGUF""#);
    // A value that goes on for 2^39 bytes.
    let mut head = b"GGUF\x03\0\0\0".to_vec();
    for number in [0_u64, 1, 1] {
        head.extend(number.to_le_bytes());
    }
    head.push(b'k');
    head.extend(8_u32.to_le_bytes());
    head.extend((1_u64 << 39).to_le_bytes());
    File::options().write(true).open(&holes).and_then(|f| f.write_all_at(&head, 0)).expect("written");
    refused(&holes, Status::InvalidModel, "key \"k\" length at byte 37: 549755813888 is more than 268435411");
}

#[test]
fn a_file_that_is_no_model_is_told_by_what_it_begins_with() {
    let folder = folder("beginnings");
    let text = |bytes: &[u8]| {
        let path = folder.join("m");
        std::fs::write(&path, bytes).expect("written");
        let [file, memory] = [Gguf::open(&path).map(|_| ()), Gguf::from_bytes(bytes).map(|_| ())].map(|r| match r {
            Err(e @ (Error::Model { .. } | Error::Gguf { .. })) => e.to_string(),
            other => panic!("{other:?}"),
        });
        assert_eq!(file, memory);
        file
    };
    let begins = |found: &str| format!("magic at byte 0 is {found}; expected \"GGUF\", which a model file begins with");
    assert_eq!(text(b"<!doctype html>"), begins("\"<!do\" (3c 21 64 6f)"));
    assert_eq!(text(b"version https://git-lfs"), begins("\"vers\" (76 65 72 73)"));
    assert_eq!(text(b"PK\x03\x04 and so on, more than a header"), begins("\"PK\\x03\\x04\" (50 4b 03 04)"));
    assert_eq!(text(b"GGU"), "header at byte 0: 3 is less than 24");
    assert_eq!(text(b"GGUF\x03"), "header at byte 0: 5 is less than 24");
}
