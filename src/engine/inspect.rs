//! For checks: what stands in a session's cache and logits, read and replaced behind the session's back, and who waits.

use super::model::Model;
use super::session::{Session, State};
use super::slot::lock_slot;
use crate::backend::{CacheRow, PAGE_TOKENS};
use crate::error::{Error, Result};

fn cache_row(state: &State, layer: usize, position: usize) -> Result<CacheRow> {
    match state.pages.as_slice().get(position / PAGE_TOKENS) {
        Some(_) if !state.pages.has(position, layer) => Err(Error::State {
            needs: "keys and values that have not been given back: the position is behind the window",
        }),
        Some(&page) => Ok(CacheRow { page, row: position % PAGE_TOKENS, layer }),
        None => Err(Error::Internal { message: format!("no page for position {position}") }),
    }
}

impl Model {
    /// Whether a prompt gives the same bits however it is cut into calls.
    pub fn is_exact_in_chunks(&self) -> bool {
        self.inner.loaded.is_exact_in_chunks()
    }

    /// Calls that wait for their pass now, where the model's calls stand in line for passes.
    pub fn n_waiting(&self) -> usize {
        self.inner.line.n_waiting()
    }
}

impl Session {
    /// What the cache holds of a position in a layer: keys and values, as wide as that layer's; of latents keys alone.
    pub fn read_cache(&self, layer: usize, position: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let loaded = &self.model().inner.loaded;
        let attention = loaded.config().layers.get(layer).map(|layer| layer.attention());
        let [n_keys, n_values] = attention.map_or([0; 2], |a| [a.kv_width(), a.v_width()]);
        let (mut keys, mut values) = (vec![0.0; n_keys], vec![0.0; n_values]);
        self.call(|state| loaded.read_cache(cache_row(state, layer, position)?, &mut keys, &mut values))?;
        Ok((keys, values))
    }

    /// Replaces what the cache holds of a position in a layer.
    pub fn write_cache(&self, layer: usize, position: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let loaded = &self.model().inner.loaded;
        self.call(|state| loaded.write_cache(cache_row(state, layer, position)?, keys, values))
    }

    /// Fills the buffer that the next logits go to.
    pub fn fill_logits(&self, value: f32) -> Result<()> {
        let loaded = &self.model().inner.loaded;
        self.call(|state| {
            let slot = state.own_slot(&**loaded, self.n_ctx())?;
            let filled = loaded.set_logits(&mut **lock_slot(&slot), &vec![value; self.n_vocab()]);
            state.slot = slot;
            filled
        })
    }
}
