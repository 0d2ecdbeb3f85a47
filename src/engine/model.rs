//! A model: weights on a device, the tokenizer, and the file's metadata.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::cache::{CacheFacts, Charge, PagePool};
use super::device::Engine;
use super::grammar::Grammars;
use super::hash::model_hash;
use super::log::LogLevel;
use super::meta::Metadata;
use super::schedule::{self, Coalescer, Part};
use super::vocabulary;
use crate::backend::{self, LoadControl, LoadedModel, PAGE_TOKENS, Plan};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, ValueType};
use crate::model::{Config, ModelInfo, Tensor, Weights, bind};
use crate::tokenizer::{ChatJson, ChatTemplate, Rendered, Tokenizer};

/// What a model is; sizes in bytes and elements.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ModelFacts {
    pub architecture: String,
    /// Such as "Q4_K_M".
    pub quantization: String,
    pub n_parameters: u64,
    pub file_bytes: u64,
    /// As the device holds them.
    pub weights_bytes: u64,
    /// Stored bytes of the weights that one decode step reads.
    pub decode_bytes: u64,
    pub kv_bytes_per_token: u64,
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
    /// Calls of different threads share passes.
    pub merge: bool,
    /// The same bits however a prompt is cut into calls and whatever prefix it shares.
    pub strict: bool,
    /// The tokenizer and the metadata alone.
    pub vocabulary: bool,
}

/// Weights and tokenizer; clones are the same model.
#[derive(Clone)]
pub struct Model {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) loaded: Arc<dyn LoadedModel>,
    pub(super) pool: Arc<PagePool>,
    pub(super) coalescer: Option<Coalescer>,
    /// What tells it from other models.
    pub(super) hash: [u64; 2],
    pub(super) facts: ModelFacts,
    /// Weights of the last norm, [n_embd].
    pub(super) output_norm: Arc<[f32]>,
    pub(super) grammars: Grammars,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) metadata: Metadata,
    /// Weights and scratch.
    pub(super) _charge: Charge,
    /// Last, so that the device outlives what is on it.
    pub(super) _engine: Engine,
}

impl Inner {
    /// Runs the parts, whose tokens make one pass; their results in order.
    pub(super) fn run(&self, parts: Vec<Part>) -> Vec<Result<()>> {
        match &self.coalescer {
            Some(coalescer) => coalescer.run(&*self.loaded, parts),
            None => schedule::run(&*self.loaded, &parts),
        }
    }
}

/// A backend's view of the caller while it loads.
struct Control<'a> {
    progress: &'a mut dyn FnMut(u64, u64) -> Result<()>,
}

impl LoadControl for Control<'_> {
    fn progress(&mut self, done: u64, total: u64) -> Result<()> {
        (self.progress)(done, total)
    }
}

impl Model {
    /// What a load would take, and the context that the model was trained for.
    pub(super) fn plan(engine: &Engine, gguf: &Gguf<'_>) -> Result<(Plan, usize)> {
        vocabulary::refuse_without_weights(gguf)?;
        let (config, weights) = bind(gguf)?;
        Ok((engine.inner.device.plan(&config, &weights), config.n_ctx_train))
    }

    pub(super) fn load(
        engine: &Engine,
        gguf: &Gguf<'_>,
        options: LoadOptions,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Model> {
        super::tap::not_inside()?;
        if options.vocabulary {
            return Model::vocabulary(engine, gguf);
        }
        vocabulary::refuse_without_weights(gguf)?;
        let begin = Instant::now();
        let (config, weights) = bind(gguf)?;
        let tokenizer = Arc::new(Tokenizer::new(gguf)?);
        let core = &engine.inner;
        let plan = core.device.plan(&config, &weights);
        let page_bytes = plan.kv_bytes_per_token.saturating_mul(PAGE_TOKENS as u64);
        if let Some(bytes) = options.cache_bytes.filter(|bytes| *bytes < page_bytes) {
            let expected = format!("at least the {page_bytes} bytes of a page");
            return Err(Error::Argument { name: "cache_bytes", found: bytes.to_string(), expected });
        }
        // Before anything is allocated: a model over the cap is refused with the numbers.
        let mut charge = Charge::new(&core.budget, plan.weights_bytes.saturating_add(plan.scratch_bytes))?;
        let hash = model_hash(&config, &weights)?;
        let device_options = backend::LoadOptions { strict: options.strict, budget: Arc::clone(&core.budget) };
        let loaded = core.device.load(&config, &weights, &device_options, &mut Control { progress })?;
        if options.strict && !loaded.is_exact_in_chunks() {
            return Err(Error::Unsupported { what: "device operation", name: "strict mode".into() });
        }
        let taken = loaded.plan();
        charge.set(taken.weights_bytes.saturating_add(taken.scratch_bytes))?;

        let output_norm = weights.output_norm.floats()?;
        let metadata = Metadata::of(gguf)?;
        let facts = facts(&ModelInfo::of(gguf), &config, &weights, &taken, &tokenizer, metadata.len());
        core.log.log(
            LogLevel::Info,
            format_args!(
                "loaded {} {}, {:.1} M parameters, {:.1} MiB on {} in {:.0} ms",
                facts.architecture,
                facts.quantization,
                facts.n_parameters as f64 / 1e6,
                facts.weights_bytes as f64 / f64::from(1 << 20),
                core.device.name(),
                begin.elapsed().as_secs_f64() * 1e3,
            ),
        );
        let pool = Arc::new(PagePool::new(Arc::clone(&loaded), Charge::new(&core.budget, 0)?, options.cache_bytes));
        let coalescer = options.merge.then(Coalescer::default);
        let inner = Inner {
            loaded,
            pool,
            coalescer,
            hash,
            facts,
            output_norm: output_norm.into(),
            grammars: Grammars::new(&tokenizer),
            tokenizer,
            metadata,
            _charge: charge,
            _engine: engine.clone(),
        };
        Ok(Model { inner: Arc::new(inner) })
    }

    /// Whether the two are one.
    pub fn is(&self, other: &Model) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
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

    /// A conversation in JSON through the model's template or another: see [`ChatTemplate::render_json`]. Fails with
    /// `NotFound` where the model has none and no other is given.
    pub fn render_chat_json(&self, chat: &ChatJson<'_>, template: Option<&str>) -> Result<Rendered> {
        match template {
            Some(source) => ChatTemplate::with_source(&self.inner.tokenizer, source)?.render_json(chat),
            None => ChatTemplate::new(&self.inner.tokenizer)?.render_json(chat),
        }
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

/// Stored bytes of what one decode step reads: all weights, of an embedding that is not also the output one row.
fn decode_bytes(weights: &Weights<'_>) -> u64 {
    let bytes = |t: &Tensor<'_>| t.data.len() as u64;
    let embedding = &weights.token_embd;
    let row = embedding.ty.row_bytes(embedding.cols) as u64;
    let skipped = if weights.output.is_some() { bytes(embedding) } else { 0 };
    weights.iter().map(|t| bytes(&t)).sum::<u64>() - skipped + row
}

fn facts(
    info: &ModelInfo,
    config: &Config,
    weights: &Weights<'_>,
    taken: &Plan,
    tokenizer: &Tokenizer,
    n_meta: usize,
) -> ModelFacts {
    ModelFacts {
        architecture: config.architecture.clone(),
        quantization: info.quantization.clone(),
        n_parameters: info.n_params,
        file_bytes: info.file_bytes,
        weights_bytes: taken.weights_bytes,
        decode_bytes: decode_bytes(weights),
        kv_bytes_per_token: taken.kv_bytes_per_token,
        has_weights: true,
        n_meta,
        has_chat_template: tokenizer.chat_template().is_some(),
        adds_begin: tokenizer.adds_bos(),
        adds_end: tokenizer.adds_eos(),
        n_vocab: config.n_vocab,
        n_ctx_train: config.n_ctx_train,
        n_layers: config.n_layers(),
        n_embd: config.n_embd,
        begin_token: tokenizer.bos(),
        end_token: tokenizer.eos(),
    }
}
