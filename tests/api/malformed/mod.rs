//! Files that are wrong in one place each: every one is refused with its status and its text, quickly and in little
//! memory, and leaves nothing behind that a correct file would notice.

use std::time::{Duration, Instant};

use kigo::alloc::watch;
use kigo::error::{Error, Status};
use kigo::gguf::Gguf;
use kigo::model::{ModelInfo, bind};
use proptest::prelude::*;

mod arch_cases;
mod expert_cases;
mod file;
mod model_cases;
mod reader_cases;

use file::{Case, File};

/// Bounds that issue 2 sets for a refusal.
const MAX_TIME: Duration = Duration::from_millis(100);
const MAX_BYTES: usize = 64 << 20;

/// Opens and binds, and holds the attempt to the bounds.
fn attempt(name: &str, bytes: &[u8]) -> Result<(), Error> {
    let start = Instant::now();
    let (result, peak) = watch::thread_peak(|| {
        Gguf::from_bytes(bytes).and_then(|gguf| {
            ModelInfo::of(&gguf);
            bind(&gguf).map(|_| ())
        })
    });
    let time = start.elapsed();
    assert!(time < MAX_TIME, "{name}: {time:?}");
    assert!(peak < MAX_BYTES, "{name}: {peak} bytes");
    result
}

#[test]
fn each_is_refused_with_its_text() {
    let cases = reader_cases::all().chain(model_cases::all()).chain(arch_cases::all());
    let cases: Vec<Case> = cases.chain(expert_cases::all()).collect();
    assert!(cases.len() >= 70, "{} cases", cases.len());
    let good = File::new().bytes;
    let mut wrong = Vec::new();
    for (name, file, status, text) in cases {
        match attempt(name, &file.bytes) {
            Ok(()) => wrong.push(format!("{name}: accepted")),
            Err(e) if e.status() != status || e.to_string() != text => {
                wrong.push(format!("{name}:\n   found {:?} {e}\nexpected {status:?} {text}", e.status()));
            }
            Err(_) => {}
        }
        attempt("the correct file", &good).expect("is still accepted");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A file that ends anywhere in its head, or at or just before the end of any tensor, is refused.
#[test]
fn truncated_files_are_refused() {
    let mut tiny = file::tiny();
    tiny.shape.n_vocab = 300;
    let file = File::of(&tiny);
    let gguf = Gguf::from_bytes(&file.bytes).expect("opens");
    let mut ends: Vec<usize> = (0..file.data_at() as usize).collect();
    for tensor in gguf.tensors() {
        ends.extend([tensor.offset as usize, tensor.offset as usize + tensor.data.len() - 1]);
    }
    for end in ends {
        let error = attempt("truncated", &file.bytes[..end]).expect_err("must not be accepted");
        assert_eq!(error.status(), Status::InvalidModel, "{end} bytes: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the head says, opening it ends quickly, in little memory and without a panic; what is accepted
    /// can be read.
    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((0.0f64..1.0, any::<u8>()), 1..8)) {
        let mut bytes = flip_base().to_vec();
        let head = bytes.len().min(30_000);
        for (place, byte) in flips {
            // Squared: half of the flips hit the first quarter, where the counts are.
            bytes[(place * place * head as f64) as usize] = byte;
        }
        if attempt("flipped", &bytes).is_ok() {
            let gguf = Gguf::from_bytes(&bytes).expect("just opened");
            for (_, value) in gguf.meta_iter() {
                let _ = value.to_string();
            }
            for tensor in gguf.tensors() {
                let mut row = vec![0.0; tensor.cols()];
                let row_bytes = tensor.ty.row_bytes(tensor.cols());
                let mut stored = vec![0; row_bytes];
                tensor.data.read(0, &mut stored).expect("in memory");
                kigo::gguf::dequantize_row(tensor.ty, &stored, &mut row).expect("sizes agree");
            }
        }
    }
}

fn flip_base() -> &'static [u8] {
    static BASE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BASE.get_or_init(|| File::new().bytes)
}
