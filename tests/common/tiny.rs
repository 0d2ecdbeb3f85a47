//! Whole models of a few hundred kilobytes: random weights, a vocabulary that tokenizes, any architecture, any type.

use std::path::Path;

use kigo::gguf::{TensorType, Value, Writer, quantize_row};

use super::random::fill_row;
use super::recipes::{RECIPES, fit};
use super::shapes::{Kind, Shape, TensorSpec};
use super::vocab;

/// All architectures; the last are those that GPUs do not compute.
pub const ARCHS: [&str; 44] = [
    "qwen2",
    "qwen3",
    "llama",
    "gemma3",
    "arcee",
    "cohere2",
    "ernie4_5",
    "exaone4",
    "gemma",
    "gemma2",
    "glm4",
    "gptneox",
    "granite",
    "hunyuan-dense",
    "internlm2",
    "mistral3",
    "olmo2",
    "phi2",
    "phi3",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
    "ernie4_5-moe",
    "glm4moe",
    "gpt-oss",
    "granitemoe",
    "olmoe",
    "qwen2moe",
    "qwen3moe",
    "qwen2vl",
    "qwen3vl",
    "qwen3vlmoe",
    "lfm2",
    "lfm2moe",
    "qwen35",
    "qwen35moe",
    "qwen3next",
    "granitehybrid",
    "falcon-h1",
    "nemotron_h",
    "nemotron_h_moe",
    "gemma4",
    "deepseek2",
];

/// The architectures that GPUs compute.
pub fn on_gpus() -> &'static [&'static str] {
    &ARCHS[..ARCHS.len() - 1]
}

/// A tiny model in the making: take one with [`Tiny::new`], change what the test is about, and write it.
#[derive(Clone, Debug)]
pub struct Tiny {
    /// Sizes; the defaults fit every stored type.
    pub shape: Shape,
    /// Type of the matrices.
    pub ty: TensorType,
    /// Type of the embedding (and of `output.weight`, if any); `ty` by default.
    pub embd_ty: TensorType,
    pub seed: u64,
    /// GGUF version.
    pub version: u32,
    /// Metadata entries to leave out.
    pub without: Vec<String>,
    /// Metadata entries to add, or to put in the place of others.
    pub with: Vec<(String, Value<'static>)>,
    /// Words in the place of those of some tokens.
    pub words: Vec<(usize, String)>,
}

impl Tiny {
    /// `arch` is one of [`ARCHS`]. Two layers (more where not all are alike), width 64, or 256 for a type
    /// with longer blocks; 512 tokens, a context of 512, two query heads to each key-value head.
    pub fn new(arch: &str, ty: TensorType) -> Tiny {
        let mut shape = Shape::named(&format!("{arch}-tiny")).expect("one of ARCHS");
        if ty.block_len() > 64 {
            (shape.n_embd, shape.head_dim, shape.n_ff) = (256, 64, 512);
        }
        Tiny { shape, ty, embd_ty: ty, seed: 1, version: 3, without: Vec::new(), with: Vec::new(), words: Vec::new() }
    }

    /// The table of contents: metadata, vocabulary, and the tensors in the order of `shape.tensors()`.
    pub fn writer(&self) -> Writer {
        let mut writer = Writer::new(self.version);
        let file_type = RECIPES.iter().find(|r| r.main == self.ty).map_or(0, |r| r.file_type);
        let mut all = Writer::new(self.version);
        self.shape.write_meta(&mut all, file_type);
        vocab::write_with(&mut all, self.shape.pre, self.shape.n_vocab, &self.words);
        if self.without.is_empty() && self.with.is_empty() {
            writer = all;
        } else {
            // Through the reader: the entries that stay are copied as they are.
            let bytes = all.to_bytes(|_, _| {});
            let gguf = kigo::gguf::Gguf::from_bytes(&bytes).expect("metadata alone is a valid file");
            for (key, value) in gguf.meta_iter() {
                let replaced = self.with.iter().any(|(k, _)| k == key);
                if !replaced && !self.without.iter().any(|k| k == key) {
                    writer.meta(key, value);
                }
            }
            for (key, value) in &self.with {
                writer.meta(key, *value);
            }
        }
        for spec in self.shape.tensors() {
            writer.tensor(&spec.name, self.type_of(&spec), &spec.dims());
        }
        writer
    }

    /// The type of one tensor.
    pub fn type_of(&self, spec: &TensorSpec) -> TensorType {
        match (&spec.kind, spec.name.as_str()) {
            (Kind::Matrix { .. }, "token_embd.weight" | "output.weight") => fit(self.embd_ty, spec.cols),
            (Kind::Matrix { .. }, _) => fit(self.ty, spec.cols),
            _ => TensorType::F32,
        }
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let specs = self.shape.tensors();
        self.writer().to_bytes(|i, out| self.fill(&specs[i], out))
    }

    /// The bytes of one tensor.
    pub fn fill(&self, spec: &TensorSpec, out: &mut [u8]) {
        let ty = self.type_of(spec);
        let mut row = vec![0.0; spec.cols];
        for (r, out) in out.chunks_exact_mut(ty.row_bytes(spec.cols)).enumerate() {
            fill_row(spec, self.seed, r as u64, &mut row);
            quantize_row(ty, &row, out).expect("sizes agree");
        }
    }

    /// Writes the file to disk.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).expect("the temporary folder can be written");
    }
}
