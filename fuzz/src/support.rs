//! What the targets share: models of a few kilobytes, an engine that is made once, and the limits that a case is held to.
//!
//! Invariants: nothing here depends on a file or on the time of day, so that a case does the same on every machine; what a
//! case finds out is a panic, which ends the fuzzer (`quiet_hook`) and fails the replay.

use std::sync::OnceLock;
use std::time::Duration;

use kigo::engine::{Engine, EngineOptions, LogSink, Model};
use kigo::gguf::{TensorType, Value, ValueType, Writer, quantize_row};

use crate::common::random::fill_row;
use crate::common::recipes::fit;
use crate::common::shapes::{Kind, Shape};
use crate::common::tiny::Tiny;

/// How much longer a case may take where it is instrumented: under AddressSanitizer with coverage and debug assertions.
const SLOWER: u32 = if cfg!(fuzzing) {
    6
} else if cfg!(debug_assertions) {
    4
} else {
    1
};

/// The processor's time that this process has taken.
pub fn processor_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct is writable; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Runs a case, which may take so much time of one core (of a library in use).
pub fn timed<T>(time: Duration, case: impl FnOnce() -> T) -> T {
    let start = processor_time();
    let outcome = case();
    let taken = processor_time() - start;
    assert!(taken <= time * SLOWER, "over the limit of time: {taken:?}, {:?} are allowed", time * SLOWER);
    outcome
}

/// [`timed`], and with so many bytes beyond what there is.
pub fn bounded<T>(time: Duration, bytes: usize, case: impl FnOnce() -> T) -> T {
    let (outcome, most) = timed(time, || kigo::alloc::watch::peak(case));
    assert!(most <= bytes, "over the limit of memory: {most} bytes at once, {bytes} are allowed");
    outcome
}

/// 2 s and 256 MiB on one core: what the library promises of a text from anywhere.
pub const TEXT_TIME: Duration = Duration::from_secs(2);
/// The promise's bytes.
pub const TEXT_BYTES: usize = 256 << 20;

/// Whether a panic at this place is one that the library catches and calls a refusal: it is not ours, and no harm.
fn is_a_dependency(file: &str) -> bool {
    ["llguidance", "derivre", "toktrie", "regex-syntax", "tokenizers"]
        .iter()
        .any(|name| file.contains(&format!("/{name}")))
}

/// In the place of libFuzzer's hook, which ends the process at every panic: a dependency's are caught by the library.
/// What reaches a target uncaught still ends it.
pub fn quiet_hook() {
    std::panic::set_hook(Box::new(|info| {
        if info.location().is_some_and(|at| is_a_dependency(at.file())) {
            return;
        }
        // One line, for those who look for it in a log.
        let text = info.to_string().replace('\n', " ");
        eprintln!("FOUND {}\n{}", text.get(..600).unwrap_or(&text), std::backtrace::Backtrace::force_capture());
        if cfg!(fuzzing) {
            std::process::abort();
        }
    }));
}

/// An input read from its beginning; zeros behind its end.
#[derive(Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next `n` bytes, or fewer.
    pub fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }
    pub fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }
    pub fn u16(&mut self) -> u16 {
        u16::from(self.u8()) | u16::from(self.u8()) << 8
    }
    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }
    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.u8()) % n
    }
    /// A number that is more often odd than not: small ones, ends of ranges, anything.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            n @ 0..=199 => u64::from(n),
            n @ 200..=227 => (1 << (n - 200 + 5)) - 1,
            228 => u32::MAX.into(),
            229 => u64::MAX,
            230 => i64::MAX as u64,
            231 => i64::MAX as u64 + 1,
            232 => isize::MAX as u64 / 4,
            _ => self.u64(),
        }
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Sizes for models of a few kilobytes.
pub fn mini_shape(arch: &str, n_vocab: usize) -> Shape {
    let mut shape = Shape::named(&format!("{arch}-tiny")).expect("an architecture");
    (shape.n_layers, shape.n_embd, shape.n_heads, shape.n_kv_heads) = (1, 32, 2, 1);
    (shape.head_dim, shape.n_ff, shape.n_vocab, shape.n_ctx) = (16, 32, n_vocab, 256);
    if arch == "gemma3" {
        (shape.n_layers, shape.window) = (2, 8);
    }
    shape
}

/// A tiny model with a vocabulary of 300 that takes any text: about 20 KB.
pub fn whole(arch: &str) -> Tiny {
    let mut tiny = Tiny::new(arch, TensorType::Q4_0);
    tiny.shape = mini_shape(arch, 300);
    if arch == "gemma3" {
        tiny.shape.n_layers = 1;
    }
    tiny
}

/// Words of the smallest vocabularies; the kinds as in a file.
const WORDS: [(&str, i32); 24] = [
    ("<unk>", 2),
    ("<s>", 3),
    ("</s>", 3),
    ("<|im_end|>", 3),
    ("<x>", 4),
    ("<0x0A>", 6),
    ("a", 1),
    ("b", 1),
    ("c", 1),
    ("\u{2581}", 1),
    ("\u{120}", 1),
    ("ab", 1),
    ("abc", 1),
    ("aa", 1),
    ("\u{2581}a", 1),
    ("\u{120}a", 1),
    ("h", 1),
    ("e", 1),
    ("l", 1),
    ("o", 1),
    ("ll", 1),
    ("he", 1),
    ("llo", 1),
    ("\u{c3}\u{a9}", 1),
];

/// A whole model with 24 words: 3 to 6 KB.
pub fn mini_file(arch: &str, ty: TensorType) -> Vec<u8> {
    let mut shape = mini_shape(arch, WORDS.len());
    if ty.block_len() == 256 {
        (shape.n_embd, shape.n_ff, shape.n_heads, shape.n_kv_heads) = (256, 256, 1, 1);
    }
    let spm = shape.pre == "spm";
    let mut writer = Writer::new(3);
    shape.write_meta(&mut writer, 0);
    writer.meta("tokenizer.ggml.model", Value::String(if spm { "llama" } else { "gpt2" }));
    writer.meta("tokenizer.ggml.pre", Value::String(if spm { "default" } else { shape.pre }));
    writer.array("tokenizer.ggml.tokens", ValueType::String, WORDS.iter().map(|w| Value::String(w.0)));
    writer.array("tokenizer.ggml.token_type", ValueType::I32, WORDS.iter().map(|w| Value::I32(w.1)));
    if spm {
        writer.array("tokenizer.ggml.scores", ValueType::F32, (0..WORDS.len()).map(|i| Value::F32(-(i as f32))));
        writer.meta("tokenizer.ggml.unknown_token_id", Value::U32(0));
        writer.meta("tokenizer.ggml.add_bos_token", Value::Bool(true));
        writer.meta("tokenizer.ggml.add_space_prefix", Value::Bool(true));
    } else {
        let merges = ["a b", "ab c", "a a", "\u{120} a", "l l", "h e", "ll o"];
        writer.array("tokenizer.ggml.merges", ValueType::String, merges.map(Value::String));
    }
    writer.meta("tokenizer.ggml.bos_token_id", Value::U32(1));
    writer.meta("tokenizer.ggml.eos_token_id", Value::U32(2));
    writer.meta("tokenizer.ggml.eot_token_id", Value::U32(3));
    let template = "{% for m in messages %}{{ m.role }}{{ m.content }}<|im_end|>{% endfor %}";
    writer.meta("tokenizer.chat_template", Value::String(template));
    let specs = shape.tensors();
    let type_of = |kind: &Kind, cols| if matches!(kind, Kind::Matrix { .. }) { fit(ty, cols) } else { TensorType::F32 };
    for spec in &specs {
        writer.tensor(&spec.name, type_of(&spec.kind, spec.cols), &spec.dims());
    }
    writer.to_bytes(|i, out| {
        let (spec, mut row) = (&specs[i], vec![0.0; specs[i].cols]);
        let ty = type_of(&spec.kind, spec.cols);
        for (r, out) in out.chunks_exact_mut(ty.row_bytes(spec.cols)).enumerate() {
            fill_row(spec, 1, r as u64, &mut row);
            quantize_row(ty, &row, out).expect("sizes agree");
        }
    })
}

/// The engine of all targets: the CPU with one thread.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let options = EngineOptions { device: "cpu", n_threads: 1, memory_cap: None, log: LogSink::silent() };
        Engine::new(options).expect("the CPU is there")
    })
}

/// A model that takes any text and gives any byte: 300 tokens, byte by byte.
pub fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| engine().load_memory(&whole("qwen3").bytes(), &mut |_, _| Ok(())).expect("loads"))
}
