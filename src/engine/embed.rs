//! Embeddings: one vector for a text, from the states behind the last layer.
//!
//! Each position's state is normalized as the model's last norm does it and summed in f64 in the order of the positions, so
//! that a device whose states do not depend on how a prompt is cut into passes gives the same bits always.

use std::sync::{Arc, Mutex, PoisonError};

use super::model::{Model, OutputNorm};
use super::session::{Session, SessionOptions};
use super::tap::Tap;
use crate::alloc::reserve;
use crate::backend::TapEvent;
use crate::error::{Error, Result};
use crate::model::Norm;

/// What becomes of the positions' states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The last position's.
    Last,
}

/// How an embedding is made.
#[derive(Clone, Copy, Debug)]
pub struct EmbedOptions {
    /// What becomes of the positions' states.
    pub pooling: Pooling,
    /// Divided by its length.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        EmbedOptions { pooling: Pooling::Mean, normalize: true }
    }
}

struct Pool {
    pooling: Pooling,
    norm: Norm,
    eps: f64,
    weights: Arc<OutputNorm>,
    sums: Vec<f64>,
    n: usize,
}

impl Pool {
    /// Takes one position's state.
    fn take(&mut self, state: &[f32]) {
        let n = state.len() as f64;
        let mean = match self.norm {
            Norm::Rms => 0.0,
            Norm::Layer => state.iter().map(|&x| f64::from(x)).sum::<f64>() / n,
        };
        let square = state.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (square + self.eps).sqrt();
        let keep = if self.pooling == Pooling::Mean { 1.0 } else { 0.0 };
        let OutputNorm { weight, bias } = &*self.weights;
        for (i, (sum, &x)) in self.sums.iter_mut().zip(state).enumerate() {
            let normalized = (f64::from(x) - mean) * scale * f64::from(weight[i]);
            *sum = *sum * keep + bias.as_ref().map_or(normalized, |bias| normalized + f64::from(bias[i]));
        }
        self.n += 1;
    }
}

impl Model {
    /// The embedding of a text's tokens; `out` has `n_embd` elements. Runs in a session of its own, which is gone afterwards.
    pub fn embed(&self, tokens: &[u32], options: EmbedOptions, out: &mut [f32]) -> Result<()> {
        self.computes()?;
        let config = self.inner.loaded.config();
        if tokens.is_empty() {
            return Err(Error::Argument { name: "n_tokens", found: "0".to_owned(), expected: "at least 1".to_owned() });
        }
        if out.len() != config.n_embd {
            return Err(Error::BufferTooSmall { needed: config.n_embd, capacity: out.len() });
        }
        let n_ctx = self.inner.facts.n_ctx_train;
        if tokens.len() > n_ctx {
            return Err(Error::ContextFull { n_tokens: 0, n_new: tokens.len(), n_ctx });
        }
        let mut sums = Vec::new();
        reserve(&mut sums, config.n_embd)?;
        sums.resize(config.n_embd, 0.0);
        let pool = Arc::new(Mutex::new(Pool {
            pooling: options.pooling,
            norm: config.norm,
            eps: f64::from(config.norm_eps),
            weights: Arc::clone(&self.inner.output_norm),
            sums,
            n: 0,
        }));
        let session =
            Session::private(self, SessionOptions { n_ctx: Some(tokens.len()), ..SessionOptions::default() })?;
        let (sink, last) = (Arc::clone(&pool), config.n_layers() as i32 - 1);
        let take = move |event: &TapEvent<'_>| {
            let mut pool = sink.lock().unwrap_or_else(PoisonError::into_inner);
            event.data.chunks_exact(event.cols).for_each(|state| pool.take(state));
            true
        };
        session.set_tap(Some(Tap::of("resid", last, Box::new(take))))?;
        session.prefill(tokens)?;
        let pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.n != tokens.len() {
            return Err(Error::Internal { message: format!("{} states of {} positions", pool.n, tokens.len()) });
        }
        let count = if options.pooling == Pooling::Mean { pool.n as f64 } else { 1.0 };
        let length = (pool.sums.iter().map(|x| (x / count).powi(2)).sum::<f64>()).sqrt();
        let divisor = if options.normalize && length > 0.0 { count * length } else { count };
        out.iter_mut().zip(&pool.sums).for_each(|(out, sum)| *out = (sum / divisor) as f32);
        Ok(())
    }
}
