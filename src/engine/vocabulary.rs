//! A backend that can do nothing, for a model without weights: the tokenizer, the chat template and the metadata of a file.
//!
//! Invariant: what needs weights asks `Model::computes` first, and stands before this only by mistake.

use super::model::no_weights;
use crate::backend::{Chunk, LoadedModel, Plan, RunControl, Slot};
use crate::error::Result;
use crate::model::{Config, Norm};
use crate::sampler::{SampleRequest, Sampled};

/// The backend of a model without weights.
pub(super) struct Nothing(Config);

impl Nothing {
    /// A backend whose model has no layers.
    pub(super) fn new(architecture: &str, n_vocab: usize) -> Nothing {
        Nothing(Config {
            architecture: architecture.to_owned(),
            n_embd: 0,
            n_vocab,
            n_ctx_train: 0,
            norm: Norm::Rms,
            norm_eps: 0.0,
            embedding_scale: 0.0,
            residual_scale: 0.0,
            logit_scale: 0.0,
            logit_softcap: None,
            ropes: Vec::new(),
            long: None,
            per_layer: None,
            layers: Vec::new(),
        })
    }
}

impl LoadedModel for Nothing {
    fn config(&self) -> &Config {
        &self.0
    }

    fn plan(&self) -> Plan {
        Plan::default()
    }

    fn reserve_pages(&self, _: usize) -> Result<()> {
        no_weights()
    }

    fn release_page(&self, _: u32) {}

    fn create_slot_for(&self, _n_ctx: usize) -> Result<Box<dyn Slot>> {
        no_weights()
    }

    fn forward(&self, _: &mut [Chunk<'_>], _: &mut RunControl<'_>) -> Result<()> {
        no_weights()
    }

    fn logits(&self, _: &mut dyn Slot, _: &mut [f32]) -> Result<()> {
        no_weights()
    }

    fn sample(&self, _: &mut dyn Slot, _: &SampleRequest<'_>) -> Result<Sampled> {
        no_weights()
    }
}
