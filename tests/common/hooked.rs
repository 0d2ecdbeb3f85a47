//! A device with something of a test's in front of each pass.

use std::sync::Arc;

use kigo::backend::{
    Chunk, Device, LoadControl, LoadOptions, LoadedModel, Plan, RunControl, Slot, TapEvent, TapObserver,
};
use kigo::error::Result;
use kigo::model::{Config, Weights};
use kigo::sampler::{SampleRequest, Sampled};

/// What a test does in front of a pass, and while it shows activations.
pub trait Hook: Send + Sync {
    /// Before a pass of parts of so many tokens, which fails with what this gives.
    fn before(&self, _parts: &[usize]) -> Result<()> {
        Ok(())
    }

    /// Before an activation is shown.
    fn shown(&self, _event: &TapEvent<'_>) {}
}

impl<F: Fn(&[usize]) -> Result<()> + Send + Sync> Hook for F {
    fn before(&self, parts: &[usize]) -> Result<()> {
        self(parts)
    }
}

/// The device.
pub struct Hooked {
    pub device: Arc<dyn Device>,
    pub hook: Arc<dyn Hook>,
    /// Where prompts may be cut, in place of what the device says.
    pub alignment: Option<Option<usize>>,
}

impl Hooked {
    pub fn new(device: Arc<dyn Device>, hook: Arc<dyn Hook>) -> Hooked {
        Hooked { device, hook, alignment: None }
    }
}

struct HookedModel {
    model: Arc<dyn LoadedModel>,
    hook: Arc<dyn Hook>,
    alignment: Option<usize>,
}

struct HookedObserver<'a>(&'a mut dyn TapObserver, &'a dyn Hook);

impl TapObserver for HookedObserver<'_> {
    fn wants(&self, name: &str, layer: i32) -> bool {
        self.0.wants(name, layer)
    }
    fn show(&mut self, event: &TapEvent<'_>) {
        self.1.shown(event);
        self.0.show(event);
    }
}

impl Device for Hooked {
    fn name(&self) -> String {
        self.device.name()
    }
    fn plan(&self, config: &Config, weights: &Weights<'_>) -> Plan {
        self.device.plan(config, weights)
    }
    fn load(
        &self,
        config: &Config,
        weights: &Weights<'_>,
        options: &LoadOptions,
        control: &mut dyn LoadControl,
    ) -> Result<Arc<dyn LoadedModel>> {
        let model = self.device.load(config, weights, options, control)?;
        let alignment = self.alignment.unwrap_or_else(|| model.pass_alignment());
        Ok(Arc::new(HookedModel { model, hook: Arc::clone(&self.hook), alignment }))
    }
}

impl LoadedModel for HookedModel {
    fn config(&self) -> &Config {
        self.model.config()
    }
    fn plan(&self) -> Plan {
        self.model.plan()
    }
    fn pass_alignment(&self) -> Option<usize> {
        self.alignment
    }
    fn prefill_chunk(&self) -> usize {
        self.model.prefill_chunk()
    }
    fn reserve_pages(&self, n: usize) -> Result<()> {
        self.model.reserve_pages(n)
    }
    fn release_page(&self, page: u32) {
        self.model.release_page(page);
    }
    fn reserve_states(&self, n: usize, in_use: usize) -> Result<()> {
        self.model.reserve_states(n, in_use)
    }
    fn release_state(&self, state: u32, in_use: usize) {
        self.model.release_state(state, in_use);
    }
    fn create_slot_for(&self, n_ctx: usize) -> Result<Box<dyn Slot>> {
        self.model.create_slot_for(n_ctx)
    }
    fn forward(&self, chunks: &mut [Chunk<'_>], run: &mut RunControl<'_>) -> Result<()> {
        self.hook.before(&chunks.iter().map(|chunk| chunk.tokens.len()).collect::<Vec<_>>())?;
        let cancel = run.cancel;
        match run.tap.as_deref_mut() {
            None => self.model.forward(chunks, run),
            Some(tap) => {
                let mut observer = HookedObserver(tap, &*self.hook);
                self.model.forward(chunks, &mut RunControl { cancel, tap: Some(&mut observer) })
            }
        }
    }
    fn logits(&self, slot: &mut dyn Slot, out: &mut [f32]) -> Result<()> {
        self.model.logits(slot, out)
    }
    fn sample(&self, slot: &mut dyn Slot, request: &SampleRequest<'_>) -> Result<Sampled> {
        self.model.sample(slot, request)
    }
}
