//! The reference backend behind a probe, which counts and can fail, panic or be cancelled at a chosen place.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kigo::backend::reference::ReferenceDevice;
use kigo::backend::{
    Ahead, Chunk, Device, LoadControl, LoadOptions, LoadedModel, PAGE_TOKENS, Plan, RunControl, Slot, Verdict,
};
use kigo::engine::Session;
use kigo::error::{Error, Result};
use kigo::model::{Config, Weights};
use kigo::sampler::{SampleRequest, Sampled};

/// What the next `forward`s do, and what has been seen.
#[derive(Default)]
pub struct Plot {
    /// Token at which `forward` panics.
    pub panic_at: Mutex<Option<u32>>,
    /// The pass, counted from now, that is cancelled from outside while it runs.
    pub cancel_in_pass: Mutex<Option<usize>>,
    /// The session that is cancelled then.
    pub session: Mutex<Option<Arc<Session>>>,
    /// The pass, counted from now, that fails.
    pub fail_in_pass: Mutex<Option<usize>>,
    /// One more such.
    pub fail_again_in_pass: Mutex<Option<usize>>,
    /// Milliseconds that each pass takes longer.
    pub delay_ms: AtomicUsize,
    /// Tokens are chosen ahead of the host, the likeliest ones.
    pub runs_ahead: AtomicBool,
    /// Pages that the device has; 0: as many as anybody wants.
    pub most_pages: AtomicUsize,
    pub passes: AtomicUsize,
    pub reserved: AtomicUsize,
    pub released: AtomicUsize,
    pub copied: AtomicUsize,
}

/// The device.
pub struct Probe(pub Arc<Plot>);

struct ProbeModel(Arc<dyn LoadedModel>, Arc<Plot>);

impl Device for Probe {
    fn name(&self) -> String {
        "probe".into()
    }
    fn plan(&self, config: &Config, weights: &Weights<'_>) -> Plan {
        ReferenceDevice::PLAIN.plan(config, weights)
    }
    fn load(
        &self,
        config: &Config,
        weights: &Weights<'_>,
        options: &LoadOptions,
        control: &mut dyn LoadControl,
    ) -> Result<Arc<dyn LoadedModel>> {
        Ok(Arc::new(ProbeModel(ReferenceDevice::PLAIN.load(config, weights, options, control)?, Arc::clone(&self.0))))
    }
}

/// Counts down to the pass meant.
fn due(pass: &Mutex<Option<usize>>) -> bool {
    let mut pass = pass.lock().unwrap();
    match *pass {
        Some(0) => pass.take().is_some(),
        Some(n) => {
            *pass = Some(n - 1);
            false
        }
        None => false,
    }
}

impl LoadedModel for ProbeModel {
    fn config(&self) -> &Config {
        self.0.config()
    }
    fn plan(&self) -> Plan {
        self.0.plan()
    }
    fn reserve_pages(&self, n: usize) -> Result<()> {
        let most = self.1.most_pages.load(Ordering::SeqCst);
        if most > 0 && n > most {
            return Err(Error::OutOfMemory { place: "probe".into(), requested: n as u64, free: most as u64 });
        }
        self.1.reserved.fetch_max(n, Ordering::SeqCst);
        self.0.reserve_pages(n)
    }
    fn release_page(&self, page: u32) {
        self.1.released.fetch_add(1, Ordering::SeqCst);
        self.0.release_page(page);
    }
    fn copy_page(&self, from: u32, to: u32) -> Result<()> {
        self.1.copied.fetch_add(1, Ordering::SeqCst);
        self.0.copy_page(from, to)
    }
    fn create_slot_for(&self, n_ctx: usize) -> Result<Box<dyn Slot>> {
        self.0.create_slot_for(n_ctx)
    }
    fn forward(&self, chunks: &mut [Chunk<'_>], run: &mut RunControl<'_>) -> Result<()> {
        self.1.passes.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(self.1.delay_ms.load(Ordering::SeqCst) as u64));
        let panic_at = *self.1.panic_at.lock().unwrap();
        if chunks.iter().any(|c| c.tokens.iter().any(|t| Some(*t) == panic_at)) {
            panic!("a panic injected by a test");
        }
        if due(&self.1.fail_in_pass) | due(&self.1.fail_again_in_pass) {
            return Err(Error::DeviceLost { device: "probe".into(), code: 7, reason: "injected".into() });
        }
        if due(&self.1.cancel_in_pass) {
            self.1.session.lock().unwrap().as_ref().expect("a session to cancel").cancel();
        }
        self.0.forward(chunks, run)
    }
    fn logits(&self, slot: &mut dyn Slot, out: &mut [f32]) -> Result<()> {
        self.0.logits(slot, out)
    }
    fn sample(&self, slot: &mut dyn Slot, request: &SampleRequest<'_>) -> Result<Sampled> {
        self.0.sample(slot, request)
    }
    fn decode_ahead(&self, ahead: Ahead<'_>, emit: &mut dyn FnMut(u32) -> Result<Verdict>) -> Result<Option<()>> {
        if !self.1.runs_ahead.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let Ahead { slot, pages, params, position, n, .. } = ahead;
        assert!(n > 0 && position + n <= pages.len() * PAGE_TOKENS);
        for start in position..position + n {
            let token = self.0.sample(slot, &SampleRequest { params, history: &[], position: start as u64 })?.token;
            let verdict = emit(token)?;
            if verdict == Verdict::Refused {
                break;
            }
            let tokens = [token];
            let chunk = Chunk { by_steps: true, ..super::run::chunk(self, &mut *slot, &tokens, start, pages) };
            self.0.forward(&mut [chunk], &mut RunControl { cancel: &AtomicBool::new(false), tap: None })?;
            if verdict == Verdict::Last {
                break;
            }
        }
        Ok(Some(()))
    }
}
