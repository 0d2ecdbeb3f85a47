//! Doctor on tiny models: a sound one passes, and each of the four faults is named.

use std::path::PathBuf;

use super::{Check, Diagnosis, Outcome, Subject, diagnose};
use crate::backend::faults::{Fault, plant};
use crate::common::tiny::{ARCHS, Tiny};
use crate::engine::{Engine, EngineOptions, LogSink};
use crate::gguf::TensorType;

fn file(arch: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("kigo-doctor-{}-{arch}.gguf", std::process::id()));
    if !path.is_file() {
        Tiny::new(arch, TensorType::Q8_0).write(&path);
    }
    path
}

/// All checks of a device with a model that has a fault.
fn run(arch: &str, device: &str, fault: Fault) -> (Vec<Check>, Diagnosis) {
    let options = EngineOptions { device, n_threads: 2, memory_cap: None, log: LogSink::silent() };
    let engine = Engine::new(options).unwrap();
    let mut checks = Vec::new();
    plant(fault);
    let diagnosis = diagnose(&engine, &file(arch), 1, &mut |check| {
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
fn each_of_the_four_faults_is_named() {
    let faults = [
        (Fault::StaleLogits, Subject::LogitsBuffer, "stale"),
        (Fault::CounterAsToken, Subject::TokenFlow, "was sampled, and the row of"),
        (Fault::CacheOffByOne, Subject::Cache, "what went into the cache was the same"),
        (Fault::PositionStops, Subject::Position, "turned"),
    ];
    for arch in ARCHS {
        for (fault, subject, words) in faults {
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
