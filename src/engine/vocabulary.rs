//! A model without weights: the tokenizer, the chat template and the metadata of a file, of any architecture.
//!
//! Invariant: what needs weights asks [`Model::computes`] first; behind it stands a backend that can do nothing.

use std::sync::Arc;

use super::cache::{Charge, PagePool};
use super::device::Engine;
use super::grammar::Grammars;
use super::log::LogLevel;
use super::meta::Metadata;
use super::model::{Inner, Model, ModelFacts};
use crate::backend::{Chunk, LoadedModel, Plan, RunControl, Slot};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::model::{Config, ModelInfo};
use crate::sampler::{SampleRequest, Sampled};
use crate::tokenizer::Tokenizer;

/// A file without a single tensor is no damaged model but a vocabulary.
pub(super) fn refuse_without_weights(gguf: &Gguf<'_>) -> Result<()> {
    if gguf.tensors().next().is_some() {
        return Ok(());
    }
    let expected = "weights, or KIGO_LOAD_VOCABULARY".to_owned();
    Err(Error::Model { name: "number of tensors".to_owned(), found: "0".to_owned(), expected })
}

fn none<T>() -> Result<T> {
    Err(Error::State { needs: "weights; the model was loaded with KIGO_LOAD_VOCABULARY" })
}

/// The backend of a model without weights.
struct Nothing(Config);

impl LoadedModel for Nothing {
    fn config(&self) -> &Config {
        &self.0
    }

    fn plan(&self) -> Plan {
        Plan::default()
    }

    fn reserve_pages(&self, _: usize) -> Result<()> {
        none()
    }

    fn release_page(&self, _: u32) {}

    fn create_slot(&self) -> Result<Box<dyn Slot>> {
        none()
    }

    fn forward(&self, _: &mut [Chunk<'_>], _: &mut RunControl<'_>) -> Result<()> {
        none()
    }

    fn logits(&self, _: &mut dyn Slot, _: &mut [f32]) -> Result<()> {
        none()
    }

    fn sample(&self, _: &mut dyn Slot, _: &SampleRequest<'_>) -> Result<Sampled> {
        none()
    }
}

/// A description of no layers.
fn config(architecture: &str, n_vocab: usize) -> Config {
    Config {
        architecture: architecture.to_owned(),
        n_embd: 0,
        n_vocab,
        n_ctx_train: 0,
        norm_eps: 0.0,
        embedding_scale: 0.0,
        logit_softcap: None,
        ropes: Vec::new(),
        layers: Vec::new(),
    }
}

impl Model {
    /// Fails with `State` where there are no weights to compute with.
    pub(super) fn computes(&self) -> Result<()> {
        if self.facts().has_weights { Ok(()) } else { none() }
    }

    /// A model of the file's vocabulary alone; the file may have weights, which are not looked at.
    pub(super) fn vocabulary(engine: &Engine, gguf: &Gguf<'_>) -> Result<Model> {
        let tokenizer = Arc::new(Tokenizer::new(gguf)?);
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
        };
        core.log.log(LogLevel::Info, format_args!("loaded the vocabulary of {}, {n_vocab} tokens", facts.architecture));
        let loaded: Arc<dyn LoadedModel> = Arc::new(Nothing(config(&facts.architecture, n_vocab)));
        let inner = Inner {
            pool: Arc::new(PagePool::new(Arc::clone(&loaded), Charge::new(&core.budget, 0)?, None)),
            loaded,
            coalescer: None,
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
}
