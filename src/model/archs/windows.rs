//! Windows of attention from a file's keys: how long, and on which layers.

use super::Config;
use super::keys::{Keys, wrong};
use crate::alloc::reserve_exact;
use crate::error::Result;
use crate::gguf::Value;

impl Keys<'_> {
    /// The window, of which 0 means none.
    pub fn window(&self) -> Result<Option<u32>> {
        let key = self.key("attention.sliding_window");
        let Some(n) = self.gguf.opt_uint(&key)?.filter(|&n| n != 0) else { return Ok(None) };
        u32::try_from(n).map(Some).map_err(|_| wrong(&key, n, format!("at most {}", u32::MAX)))
    }

    /// Gives every layer the window, if there is one.
    pub fn window_on_all(&self, config: &mut Config) -> Result<()> {
        let window = self.window()?;
        config.layers.iter_mut().for_each(|layer| layer.attention_mut().window = window);
        Ok(())
    }

    /// Gives some layers a window and the rope `windowed`, and the others the rope `full`: the key of the pattern is a
    /// period, of which the last layer is without a window, or one bool a layer; without the key it is `period`.
    pub fn window_on_some(
        &self,
        config: &mut Config,
        (window, period): (u32, u64),
        (windowed, full): (Option<usize>, Option<usize>),
    ) -> Result<()> {
        let has_window = self.windowed_layers(config.n_layers(), period)?;
        for (layer, has_window) in config.layers.iter_mut().zip(has_window) {
            let attention = layer.attention_mut();
            (attention.window, attention.rope) = if has_window { (Some(window), windowed) } else { (None, full) };
        }
        Ok(())
    }

    fn windowed_layers(&self, n_layers: usize, period: u64) -> Result<Vec<bool>> {
        let key = self.key("attention.sliding_window_pattern");
        let mut flags = Vec::new();
        reserve_exact(&mut flags, n_layers)?;
        if let Some(array) = self.gguf.meta(&key).and_then(|v| v.as_array()) {
            let values = array.values().map_while(|v| match v {
                Value::Bool(flag) => Some(flag),
                v => v.as_int().map(|n| n != 0),
            });
            flags.extend(values.take(n_layers));
            if flags.len() != n_layers || array.len() != n_layers {
                let found = format!("an array of {}", array.len());
                return Err(wrong(&key, found, format!("{n_layers} bools, one a layer")));
            }
            return Ok(flags);
        }
        let period = self.gguf.opt_uint(&key)?.unwrap_or(period);
        // A period of 0 means that every layer has the window.
        flags.extend((0..n_layers as u64).map(|i| period == 0 || i % period < period - 1));
        Ok(flags)
    }
}
