//! Layers whose cache is kept alike: those that see equally far back.
//!
//! A page of the cache holds 64 positions, and has a part of each class. What is behind the window of a class nobody reads
//! any more, so that the part can go while the page stays.

use super::config::Config;
use crate::alloc::reserve;
use crate::error::Result;

/// The most classes: tables of them have a fixed size. Of more windows the widest count as none.
pub const MAX_CLASSES: usize = 4;

/// The classes of a model's layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheClasses {
    /// Positions that a class sees back, the current one included; `None`: all.
    windows: Vec<Option<usize>>,
    of_layer: Vec<usize>,
    /// Elements of a position's keys and values in all layers of a class.
    widths: Vec<u64>,
}

impl CacheClasses {
    /// One class of all layers, whatever they see: nothing of a page goes before the page.
    pub fn one(config: &Config) -> Result<CacheClasses> {
        CacheClasses::of_windows(config, &|_| None)
    }

    /// A class for each window, that of the layers without one first.
    pub fn new(config: &Config) -> Result<CacheClasses> {
        let within = |window: Option<u32>| window.map(|w| w as usize).filter(|w| *w < config.n_ctx_train);
        let mut kept: Vec<usize> = Vec::new();
        reserve(&mut kept, config.n_layers())?;
        kept.extend(config.layers.iter().filter_map(|layer| within(layer.attention().window)));
        kept.sort_unstable();
        kept.dedup();
        kept.truncate(MAX_CLASSES - 1);
        CacheClasses::of_windows(config, &|window| within(window).filter(|w| kept.contains(w)))
    }

    fn of_windows(config: &Config, window: &dyn Fn(Option<u32>) -> Option<usize>) -> Result<CacheClasses> {
        let mut classes = CacheClasses::default();
        reserve(&mut classes.of_layer, config.n_layers())?;
        // `None` is less than any window.
        let mut all: Vec<Option<usize>> = Vec::new();
        reserve(&mut all, config.n_layers())?;
        all.extend(config.layers.iter().map(|layer| window(layer.attention().window)));
        for layer in &all {
            if !classes.windows.contains(layer) {
                classes.windows.push(*layer);
            }
        }
        classes.windows.sort_unstable();
        classes.widths = vec![0; classes.windows.len()];
        for (layer, of_layer) in config.layers.iter().zip(&all) {
            let class = classes.windows.iter().position(|w| w == of_layer).unwrap_or(0);
            classes.of_layer.push(class);
            classes.widths[class] += layer.attention().kept() as u64;
        }
        Ok(classes)
    }

    /// How many there are: at least one, at most [`MAX_CLASSES`].
    pub fn n(&self) -> usize {
        self.windows.len()
    }

    /// The class of a layer.
    pub fn of(&self, layer: usize) -> usize {
        self.of_layer.get(layer).copied().unwrap_or(0)
    }

    /// Positions that a class sees back; `None`: all.
    pub fn window(&self, class: usize) -> Option<usize> {
        self.windows.get(class).copied().flatten()
    }

    /// The first position that a class still reads behind `n` tokens: the last token's at the latest, whose page goes on.
    pub fn first(&self, class: usize, n: usize) -> usize {
        self.window(class).map_or(0, |window| (n + 1).saturating_sub(window.max(2)))
    }

    /// A class's part of what is kept of all layers, which is in proportion to their keys and values. The parts add up.
    pub fn share(&self, class: usize, all: u64) -> u64 {
        let total = self.widths.iter().sum::<u64>().max(1);
        let part = |width: u64| (u128::from(all) * u128::from(width) / u128::from(total)) as u64;
        match class {
            0 => all - self.widths.iter().skip(1).map(|w| part(*w)).sum::<u64>(),
            _ => self.widths.get(class).map_or(0, |w| part(*w)),
        }
    }
}
