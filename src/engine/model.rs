//! A model: weights on a device, the tokenizer, and the file's metadata.

use std::path::Path;
use std::sync::Arc;

use super::device::Engine;
use super::pages::PagePool;
use crate::backend::{LoadedModel, Plan};
use crate::error::{Error, Result};

/// What a model is; sizes in bytes and elements.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct ModelFacts {
    pub architecture: String,
    /// The tensor type that holds most of the bytes.
    pub quantization: String,
    pub n_parameters: u64,
    pub file_bytes: u64,
    pub weights_bytes: u64,
    /// Stored bytes of the weights that one decode step reads.
    pub decode_bytes: u64,
    pub kv_bytes_per_token: u64,
    pub n_meta: usize,
    pub has_chat_template: bool,
    pub adds_begin: bool,
    pub adds_end: bool,
    pub n_vocab: usize,
    pub n_ctx_train: usize,
    pub n_layers: usize,
    pub n_embd: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub n_ff: usize,
    pub begin_token: Option<u32>,
    pub end_token: Option<u32>,
}

/// One message of a conversation.
#[derive(Clone, Copy, Debug)]
pub struct ChatMessage<'a> {
    /// "system", "user", "assistant".
    pub role: &'a str,
    /// What was said.
    pub content: &'a str,
}

/// What kind a token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenKind {
    /// A control token.
    pub control: bool,
    /// Ends a generation.
    pub end: bool,
    /// Stands for one byte.
    pub byte: bool,
}

/// Weights and tokenizer; clones are the same model.
#[derive(Clone)]
pub struct Model {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) engine: Engine,
    pub(super) loaded: Arc<dyn LoadedModel>,
    pub(super) pool: Arc<PagePool>,
    pub(super) facts: ModelFacts,
}

fn later<T>(what: &'static str) -> Result<T> {
    Err(Error::Unsupported { what, name: "not in this build".to_owned() })
}

#[allow(missing_docs, unused_variables)]
impl Model {
    pub(super) fn plan_file(engine: &Engine, path: &Path) -> Result<Plan> {
        later("loading")
    }

    pub(super) fn load_file(
        engine: &Engine,
        path: &Path,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Model> {
        later("loading")
    }

    pub(super) fn load_memory(
        engine: &Engine,
        bytes: &[u8],
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Model> {
        later("loading")
    }

    pub fn facts(&self) -> &ModelFacts {
        &self.inner.facts
    }

    pub fn meta_text(&self, key: &str) -> Result<String> {
        later("metadata")
    }

    pub fn meta_type(&self, key: &str) -> Result<i32> {
        later("metadata")
    }

    pub fn meta_key(&self, index: usize) -> Result<&str> {
        later("metadata")
    }

    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        later("tokenizer")
    }

    pub fn detokenize(&self, tokens: &[u32], special: bool) -> Result<String> {
        later("tokenizer")
    }

    pub fn token_bytes(&self, token: u32) -> Result<Vec<u8>> {
        later("tokenizer")
    }

    pub fn token_kind(&self, token: u32) -> Result<TokenKind> {
        later("tokenizer")
    }

    pub fn chat_tokens(&self, messages: &[ChatMessage<'_>], open: bool) -> Result<Vec<u32>> {
        later("tokenizer")
    }

    pub fn chat_text(&self, messages: &[ChatMessage<'_>], open: bool) -> Result<String> {
        later("tokenizer")
    }
}
