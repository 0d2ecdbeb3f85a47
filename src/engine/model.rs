//! A model: weights on a device, the tokenizer, and the file's metadata.

use std::borrow::Cow;
use std::sync::Arc;

use super::cache::{CacheCounts, CacheFacts, Charge, PagePool};
use super::device::Engine;
use super::figures::{ModelFigures, Totals};
use super::grammar::Grammars;
use super::log::{LogLevel, ModelLog};
use super::meta::Metadata;
use super::schedule::{Line, Part, Passes};
use crate::backend::LoadedModel;
use crate::error::{Error, Result};
use crate::gguf::ValueType;
use crate::tokenizer::{ChatJson, ChatTemplate, FimTokens, Rendered, Tokenizer};

/// What a model is; sizes in bytes and elements.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ModelFacts {
    pub architecture: String,
    /// Such as "Q4_K_M".
    pub quantization: String,
    pub n_parameters: u64,
    pub file_bytes: u64,
    /// The weights' size as the device holds them.
    pub weights_bytes: u64,
    /// Stored bytes of the weights that one decode step reads.
    pub decode_bytes: u64,
    pub kv_bytes_per_token: u64,
    /// What a sequence has of state, however long it is.
    pub state_bytes: u64,
    /// What is computed with; without it there is the vocabulary alone.
    pub has_weights: bool,
    pub n_meta: usize,
    pub has_chat_template: bool,
    pub adds_begin: bool,
    pub adds_end: bool,
    pub n_vocab: usize,
    pub n_ctx_train: usize,
    pub n_layers: usize,
    pub n_embd: usize,
    pub begin_token: Option<u32>,
    pub end_token: Option<u32>,
    /// The tokens of prompts for filling in the middle.
    pub fim: FimTokens,
}

/// What kind a token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenFlags {
    /// A control token.
    pub control: bool,
    /// Ends a generation.
    pub end: bool,
}

/// How a model is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// The most bytes of cache for all its sessions; `None`: what the engine's cap leaves.
    pub cache_bytes: Option<u64>,
    /// The most bytes of it that stay for other sessions' prefixes when the sessions whose they were are gone.
    pub prefix_cache_bytes: u64,
    /// The most bytes of checkpoints, of models whose layers keep a state; 0: [`CHECKPOINT_BYTES`].
    pub checkpoint_bytes: u64,
    /// Calls of different threads share passes.
    pub merge: bool,
    /// The same bits however a prompt is cut into calls and whatever prefix it shares.
    pub strict: bool,
    /// The tokenizer and the metadata alone.
    pub vocabulary: bool,
    /// The most tokens of prompts in a pass; `None`: by what is measured, few while other threads step and more while nobody
    /// does. No effect on a device that does not tell where a prompt may be cut ([`LoadedModel::pass_alignment`]).
    pub pass_tokens: Option<usize>,
}

/// The bytes of checkpoints where a caller does not say.
pub const CHECKPOINT_BYTES: u64 = 512 << 20;

impl LoadOptions {
    /// The bytes that checkpoints may take.
    pub(super) fn checkpoint_bytes(&self) -> u64 {
        if self.checkpoint_bytes == 0 { CHECKPOINT_BYTES } else { self.checkpoint_bytes }
    }

    /// How the model's passes are made.
    pub(super) fn passes(&self) -> Passes {
        Passes { merge: self.merge, tokens: self.pass_tokens }
    }
}

/// Weights and tokenizer; clones are the same model.
#[derive(Clone)]
pub struct Model {
    pub(super) inner: Arc<Inner>,
}

/// What the last norm multiplies and adds, [n_embd].
#[derive(Default)]
pub(super) struct OutputNorm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Option<Vec<f32>>,
}

pub(super) struct Inner {
    pub(super) loaded: Arc<dyn LoadedModel>,
    pub(super) pool: Arc<PagePool>,
    pub(super) line: Line,
    pub(super) totals: Arc<Totals>,
    pub(super) log: ModelLog,
    /// What tells it from other models.
    pub(super) hash: [u64; 2],
    pub(super) facts: ModelFacts,
    pub(super) output_norm: Arc<OutputNorm>,
    pub(super) grammars: Grammars,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) metadata: Metadata,
    /// Weights and scratch.
    pub(super) _charge: Charge,
    /// Last, so that the device outlives what is on it.
    pub(super) _engine: Engine,
}

/// The failure of whatever needs weights where there are none.
pub(super) fn no_weights<T>() -> Result<T> {
    Err(Error::State { needs: "weights; the model was loaded with KIGO_LOAD_VOCABULARY" })
}

impl Inner {
    /// Runs the parts, whose tokens make one pass; their results in order.
    pub(super) fn run(&self, parts: Vec<Part>) -> Vec<Result<()>> {
        self.line.run(&*self.loaded, parts)
    }

    /// Tells the log what has happened meanwhile. For where no other call waits for the caller's: the log is the host's code.
    pub(super) fn tell(&self) {
        self.line.tell();
        let n = self.pool.newly_evicted();
        if n > 0 && self.log.wants(LogLevel::Debug) {
            let left = self.pool.counts().n_pages_retained;
            self.log.log(LogLevel::Debug, format_args!("{n} pages of kept prefixes were given up, {left} are kept"));
        }
    }
}

impl Model {
    /// Fails with `State` where there are no weights to compute with.
    pub(super) fn computes(&self) -> Result<()> {
        if self.facts().has_weights { Ok(()) } else { no_weights() }
    }

    /// Whether the two are one.
    pub fn is(&self, other: &Model) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// What its sessions have come to so far, and what is under way; waits for nobody.
    pub fn figures(&self) -> ModelFigures {
        self.inner.totals.figures()
    }

    /// Its cache's counts; waits for nobody.
    pub fn cache_counts(&self) -> CacheCounts {
        self.inner.pool.counts()
    }

    /// How full its cache is now.
    pub fn cache_facts(&self) -> CacheFacts {
        self.inner.pool.facts()
    }

    /// What it is.
    pub fn facts(&self) -> &ModelFacts {
        &self.inner.facts
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }

    /// A metadata value as text: a string as it is, numbers in decimal, arrays as JSON. Fails with `NotFound`.
    pub fn meta_text(&self, key: &str) -> Result<String> {
        self.inner.metadata.text(key)
    }

    /// A metadata value's type. Fails with `NotFound`.
    pub fn meta_type(&self, key: &str) -> Result<ValueType> {
        self.inner.metadata.value_type(key)
    }

    /// The metadata key of this number, in the order of the file. Fails with `NotFound`.
    pub fn meta_key(&self, index: usize) -> Result<&str> {
        self.inner.metadata.key(index)
    }

    /// A text's tokens: see [`Tokenizer::encode`].
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        self.inner.tokenizer.encode(text, add_special, parse_special)
    }

    /// The text of tokens; what is not UTF-8 becomes U+FFFD. Fails with `TokenOutOfRange`.
    pub fn detokenize(&self, tokens: &[u32], special: bool) -> Result<String> {
        let bytes = self.inner.tokenizer.decode(tokens, !special)?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(e) => lossy(e.as_bytes()),
        }
    }

    /// What a token adds to a text. Fails with `TokenOutOfRange`.
    pub fn token_bytes(&self, token: u32) -> Result<Cow<'_, [u8]>> {
        self.inner.tokenizer.token_bytes(token)
    }

    /// What kind a token is. Fails with `TokenOutOfRange`.
    pub fn token_flags(&self, token: u32) -> Result<TokenFlags> {
        let tokenizer = &self.inner.tokenizer;
        tokenizer.token_text(token)?;
        Ok(TokenFlags { control: tokenizer.is_control(token), end: tokenizer.is_end_of_generation(token) })
    }

    /// A conversation of (role, content) through the model's template. Fails with `NotFound` without one.
    pub fn render_chat(&self, messages: &[(&str, &str)], add_generation_prompt: bool) -> Result<Rendered> {
        self.inner.tokenizer.render_chat(messages, add_generation_prompt)
    }

    /// Lends the names that the model's template, or another, reads without making them itself: see [`ChatTemplate::variables`].
    /// Fails as [`Self::render_chat_json`] does.
    pub fn chat_variable<T>(
        &self,
        index: usize,
        chat: &ChatJson<'_>,
        template: Option<&str>,
        lend: impl FnOnce(&str) -> Result<T>,
    ) -> Result<T> {
        let template = ChatTemplate::of(&self.inner.tokenizer, chat, template)?;
        let n = template.variables().count();
        let none = || Error::NotFound { what: "template variable", name: format!("{index}, the template reads {n}") };
        lend(template.variables().nth(index).ok_or_else(none)?)
    }

    /// A conversation in JSON through the model's template or another: see [`ChatTemplate::render_json`]. Fails with
    /// `NotFound` where the model has none and no other is given.
    pub fn render_chat_json(&self, chat: &ChatJson<'_>, template: Option<&str>) -> Result<Rendered> {
        ChatTemplate::of(&self.inner.tokenizer, chat, template)?.render_json(chat)
    }

    /// The name of one of the model's further chat templates. Fails with `NotFound` behind the last.
    pub fn chat_template_name(&self, index: usize) -> Result<&str> {
        let mut names = self.inner.tokenizer.chat_template_names();
        let n = names.by_ref().count();
        let name = self.inner.tokenizer.chat_template_names().nth(index);
        name.ok_or_else(|| Error::NotFound { what: "chat template", name: format!("{index}, {n} have names") })
    }
}

/// The bytes as text, with U+FFFD for what is not UTF-8. Fails with `OutOfMemory`.
fn lossy(bytes: &[u8]) -> Result<String> {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        let n = chunk.valid().len() + 3;
        text.try_reserve(n).map_err(|_| Error::OutOfMemory { place: "host".into(), requested: n as u64, free: 0 })?;
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push('\u{fffd}');
        }
    }
    Ok(text)
}
