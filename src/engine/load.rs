//! Loading: from a file or from memory to a model on an engine's device, and what that would take.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::cache::{Charge, PagePool};
use super::device::{self, Engine};
use super::facts::{LoadPlan, cache_bytes, spare_bytes, within};
use super::figures::Totals;
use super::grammar::Grammars;
use super::hash::model_hash;
use super::log::{LogLevel, ModelLog};
use super::meta::Metadata;
use super::model::{Inner, LoadOptions, Model, ModelFacts, OutputNorm};
use super::schedule::{Line, Passes};
use super::tap;
use super::vocabulary::Nothing;
use crate::backend::{self, LoadControl, LoadedModel, PAGE_TOKENS, Plan};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::model::{Config, Layer, LayerWeights, ModelInfo, Tensor, Weights, bind};
use crate::tokenizer::Tokenizer;

impl Engine {
    /// What loading a file would take.
    pub fn plan_file(&self, path: &Path) -> Result<Plan> {
        Ok(plan(self, &Gguf::open(path)?)?.0)
    }

    /// What loading a file with these options and a session of so many tokens (`None`: as many as the model was trained for)
    /// would take.
    pub fn plan_file_for(&self, path: &Path, n_tokens: Option<usize>, options: &LoadOptions) -> Result<LoadPlan> {
        let gguf = Gguf::open(path)?;
        if options.vocabulary {
            return Ok(LoadPlan { n_tokens: within(n_tokens, 0)?, ..LoadPlan::default() });
        }
        let (plan, config) = plan(self, &gguf)?;
        let n_tokens = within(n_tokens, config.n_ctx_train)?;
        let classes = self.inner.device.cache_classes(&config)?;
        Ok(LoadPlan {
            weights_bytes: plan.weights_bytes,
            scratch_bytes: plan.scratch_bytes,
            n_tokens,
            cache_bytes: cache_bytes(n_tokens, plan.kv_bytes_per_token),
            spare_bytes: spare_bytes(n_tokens, plan.kv_bytes_per_token, &classes),
            state_bytes: plan.state_bytes,
            checkpoint_bytes: plan.state_bytes,
            checkpoint_limit_bytes: options.checkpoint_bytes() / plan.state_bytes.max(1) * plan.state_bytes,
        })
    }

    /// Loads a file; `progress` gets done and total bytes, and an error of its stops the load.
    pub fn load_file(&self, path: &Path, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Model> {
        self.load_file_with(path, LoadOptions::default(), progress)
    }

    /// [`Self::load_file`] with options.
    pub fn load_file_with(
        &self,
        path: &Path,
        options: LoadOptions,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Model> {
        load(self, &Gguf::open(path)?, options, progress)
    }

    /// Loads a file that lies in memory.
    pub fn load_memory(&self, bytes: &[u8], progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Model> {
        self.load_memory_with(bytes, LoadOptions::default(), progress)
    }

    /// [`Self::load_memory`] with options.
    pub fn load_memory_with(
        &self,
        bytes: &[u8],
        options: LoadOptions,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Model> {
        load(self, &Gguf::from_bytes(bytes)?, options, progress)
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

/// A file without a single tensor is no damaged model but a vocabulary.
fn refuse_without_weights(gguf: &Gguf<'_>) -> Result<()> {
    if gguf.tensors().next().is_some() {
        return Ok(());
    }
    let expected = "weights, or KIGO_LOAD_VOCABULARY".to_owned();
    Err(Error::Model { name: "number of tensors".to_owned(), found: "0".to_owned(), expected })
}

/// What a load would take, and of what model.
fn plan(engine: &Engine, gguf: &Gguf<'_>) -> Result<(Plan, Config)> {
    refuse_without_weights(gguf)?;
    let (config, weights) = bind(gguf)?;
    engine.inner.device.check(&config)?;
    Ok((engine.inner.device.plan(&config, &weights), config))
}

/// Loads a model; one over the engine's cap is refused with the numbers before anything of it is on the device.
fn load(
    engine: &Engine,
    gguf: &Gguf<'_>,
    options: LoadOptions,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Model> {
    tap::not_inside()?;
    let number = 1 + engine.inner.n_loads.fetch_add(1, Ordering::Relaxed);
    if options.vocabulary {
        return vocabulary(engine, gguf, number);
    }
    refuse_without_weights(gguf)?;
    let begin = Instant::now();
    let (config, weights) = bind(gguf)?;
    let tokenizer = tokenizer(engine, gguf, number)?;
    let core = &engine.inner;
    core.device.check(&config)?;
    let plan = core.device.plan(&config, &weights);
    let page_bytes = plan.kv_bytes_per_token.saturating_mul(PAGE_TOKENS as u64);
    let retained = (options.prefix_cache_bytes > 0).then_some(options.prefix_cache_bytes);
    // A prompt reads the state that it begins with, and each of its passes makes one of another.
    for (name, bytes, states) in [("cache_bytes", options.cache_bytes, 3), ("prefix_cache_bytes", retained, 1)] {
        let of_states = plan.state_bytes.saturating_mul(states);
        let least = page_bytes.saturating_add(of_states);
        if let Some(bytes) = bytes.filter(|bytes| *bytes < least) {
            let states = if of_states > 0 { format!(" and of {states} states") } else { String::new() };
            let expected = format!("at least the {least} bytes of a page{states}");
            return Err(Error::Argument { name, found: bytes.to_string(), expected });
        }
    }
    // Before anything is allocated: a model over the cap is refused with the numbers.
    let mut charge = core.pools.charge(&core.budget, plan.weights_bytes.saturating_add(plan.scratch_bytes))?;
    let hash = model_hash(&config, &weights)?;
    let device_options = backend::LoadOptions { strict: options.strict, budget: Arc::clone(&core.budget) };
    let loaded = core.device.load(&config, &weights, &device_options, &mut Control { progress })?;
    if options.strict && !loaded.is_exact_in_chunks() {
        return Err(Error::Unsupported { what: "device operation", name: "strict mode".into() });
    }
    let taken = loaded.plan();
    core.pools.with_room(|| charge.set(taken.weights_bytes.saturating_add(taken.scratch_bytes)))?;

    let bias = weights.output_norm_bias.as_ref().map(Tensor::floats).transpose()?;
    let output_norm = OutputNorm { weight: weights.output_norm.floats()?, bias };
    let metadata = Metadata::of(gguf)?;
    let facts = facts(&ModelInfo::of(gguf), &config, &weights, &taken, &tokenizer, metadata.len());
    let log = ModelLog::new(&core.log, number);
    log_load(&log, core, &facts, &taken, &options, begin.elapsed());
    if weights.n_other_parts > 0 {
        let text = "tensors of parts that see or hear are left out: the model reads text alone";
        log.log(LogLevel::Info, format_args!("{} {text}", weights.n_other_parts));
    }
    if let Some(long) = &config.long {
        let text = "have ropes of their own (LongRoPE)";
        log.log(LogLevel::Info, format_args!("sessions with n_ctx above {} {text}", long.above));
    }
    let no_pages = Charge::new(&core.budget, 0)?;
    let kept = (options.prefix_cache_bytes, options.checkpoint_bytes());
    let pool = PagePool::new(Arc::clone(&loaded), no_pages, options.cache_bytes, kept, &core.pools)?;
    let totals = Arc::<Totals>::default();
    let line = Line::new(&*loaded, options.passes(), &core.steppers, &totals, log.clone());
    let inner = Inner {
        loaded,
        pool,
        line,
        totals,
        log,
        hash,
        facts,
        output_norm: Arc::new(output_norm),
        grammars: Grammars::new(&tokenizer),
        tokenizer,
        metadata,
        _charge: charge,
        _engine: engine.clone(),
    };
    Ok(Model { inner: Arc::new(inner) })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What was loaded, and what was chosen for it: who computes, and what sessions may take.
fn log_load(
    log: &ModelLog,
    core: &device::Inner,
    facts: &ModelFacts,
    taken: &Plan,
    options: &LoadOptions,
    took: Duration,
) {
    let kept = match options.prefix_cache_bytes {
        0 => "nothing".to_owned(),
        u64::MAX => "what there is".to_owned(),
        n => format!("{:.1} MiB", mib(n)),
    };
    let limit = options.cache_bytes.or(core.budget.cap());
    let cache = limit.map_or("no limit".to_owned(), |n| format!("at most {:.1} MiB", mib(n)));
    let passes = options.pass_tokens.map_or("as measured".to_owned(), |n| format!("of {n} tokens"));
    log.log(
        LogLevel::Info,
        format_args!(
            "loaded {} {}, {:.1} M parameters, {:.1} MiB on {} in {:.0} ms; {} threads, {}; working memory {:.1} MiB; context {} \
             tokens of {:.1} KiB; cache {cache}, of which {kept} is kept for prefixes; passes {passes}{}{}",
            facts.architecture,
            facts.quantization,
            facts.n_parameters as f64 / 1e6,
            mib(facts.weights_bytes),
            core.device.name(),
            took.as_secs_f64() * 1e3,
            core.n_threads,
            core.device.kernels(),
            mib(taken.scratch_bytes),
            facts.n_ctx_train,
            facts.kv_bytes_per_token as f64 / 1024.0,
            if options.merge { ", shared by calls" } else { "" },
            if options.strict { ", strict" } else { "" },
        ),
    );
}

/// The file's tokenizer, with a warning where it may not be the model's own.
fn tokenizer(engine: &Engine, gguf: &Gguf<'_>, number: u64) -> Result<Arc<Tokenizer>> {
    let tokenizer = Tokenizer::new(gguf)?;
    if tokenizer.assumes_pre() {
        engine.inner.log.log(
            LogLevel::Warn,
            format_args!(
                "model {number}: tokenizer.ggml.pre is missing; the pre-tokenizer \"default\" stands in, which may cut \
                 words otherwise than the model's own"
            ),
        );
    }
    Ok(Arc::new(tokenizer))
}

/// A model of the file's vocabulary alone; the file may have weights, which are not looked at.
fn vocabulary(engine: &Engine, gguf: &Gguf<'_>, number: u64) -> Result<Model> {
    let tokenizer = tokenizer(engine, gguf, number)?;
    let metadata = Metadata::of(gguf)?;
    let core = &engine.inner;
    let info = ModelInfo::of(gguf);
    let n_vocab = tokenizer.n_vocab();
    let facts = ModelFacts {
        architecture: info.architecture,
        quantization: info.quantization,
        n_parameters: info.n_params,
        file_bytes: info.file_bytes,
        weights_bytes: 0,
        decode_bytes: 0,
        kv_bytes_per_token: 0,
        state_bytes: 0,
        has_weights: false,
        n_meta: metadata.len(),
        has_chat_template: tokenizer.chat_template().is_some(),
        adds_begin: tokenizer.adds_bos(),
        adds_end: tokenizer.adds_eos(),
        n_vocab,
        n_ctx_train: 0,
        n_layers: 0,
        n_embd: 0,
        begin_token: tokenizer.bos(),
        end_token: tokenizer.eos(),
        fim: tokenizer.fim(),
    };
    let (totals, log) = (Arc::<Totals>::default(), ModelLog::new(&core.log, number));
    log.log(LogLevel::Info, format_args!("loaded the vocabulary of {}, {n_vocab} tokens", facts.architecture));
    let loaded: Arc<dyn LoadedModel> = Arc::new(Nothing::new(&facts.architecture, n_vocab));
    let line = Line::new(&*loaded, Passes::default(), &core.steppers, &totals, log.clone());
    let inner = Inner {
        pool: PagePool::new(Arc::clone(&loaded), Charge::new(&core.budget, 0)?, None, (0, 0), &core.pools)?,
        loaded,
        line,
        totals,
        log,
        hash: [0; 2],
        facts,
        output_norm: Arc::default(),
        grammars: Grammars::new(&tokenizer),
        tokenizer,
        metadata,
        _charge: Charge::new(&core.budget, 0)?,
        _engine: engine.clone(),
    };
    Ok(Model { inner: Arc::new(inner) })
}

/// Stored bytes of what one decode step reads: all weights, of an embedding that is not also the output one row, and of the
/// experts of a layer as many as a position goes through.
fn decode_bytes(config: &Config, weights: &Weights<'_>) -> u64 {
    let bytes = |t: &Tensor<'_>| t.data.len() as u64;
    let idle = |(layer, w): (&Layer, &LayerWeights<'_>)| {
        let (Some(experts), Some(w)) = (layer.experts(), w.ffn.experts()) else { return 0 };
        let all = w.each.iter().map(|t| bytes(&t)).sum::<u64>();
        all / experts.n as u64 * (experts.n - experts.n_used) as u64
    };
    let idle: u64 = config.layers.iter().zip(&weights.layers).map(idle).sum();
    let embedding = &weights.token_embd;
    let row = embedding.ty.row_bytes(embedding.cols) as u64;
    let skipped = if weights.output.is_some() { bytes(embedding) } else { 0 };
    let by_layer =
        weights.per_layer.as_ref().map_or((0, 0), |w| (bytes(&w.embd), w.embd.ty.row_bytes(w.embd.cols) as u64));
    weights.iter().map(|t| bytes(&t)).sum::<u64>() - skipped - by_layer.0 - idle + row + by_layer.1
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
        decode_bytes: decode_bytes(config, weights),
        kv_bytes_per_token: taken.kv_bytes_per_token,
        state_bytes: taken.state_bytes,
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
        fim: tokenizer.fim(),
    }
}
