//! Where keys and values stand in a page of the cache: a part for each class of layers, in it layer after layer, in a layer head
//! after head, of each its keys and then its values, where they are no parts of the keys, as [`attention`](super::attention) reads them.

use super::simd::LANES;
use crate::alloc::reserve;
use crate::backend::PAGE_TOKENS;
use crate::error::Result;
use crate::model::{Attention, CacheClasses, Config};

/// A layer's part of a page.
#[derive(Clone, Copy)]
pub struct LayerLayout {
    /// Its class.
    pub class: usize,
    /// f16 elements before it in the part of its class.
    start: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements of a head of values as it is stored: `head_dim` rounded up to 16; 0 where values are parts of keys.
    pub padded: usize,
    /// KV heads.
    pub n_kv_heads: usize,
}

/// A page.
pub struct PageLayout {
    /// Which layers are kept together.
    pub classes: CacheClasses,
    layers: Vec<LayerLayout>,
    /// f16 elements of a page's part of each class.
    lens: Vec<usize>,
}

impl PageLayout {
    /// The pages of a model.
    pub fn new(config: &Config) -> Result<PageLayout> {
        let classes = CacheClasses::new(config)?;
        let (mut layers, mut lens) = (Vec::new(), vec![0; classes.n()]);
        reserve(&mut layers, config.n_layers())?;
        for (i, layer) in config.layers.iter().enumerate() {
            let Attention { head_dim, n_kv_heads, kv_from, latent, .. } = *layer.attention();
            if let Some(source) = kv_from {
                layers.push(layers[source]);
                continue;
            }
            let padded = if latent.is_some() { 0 } else { head_dim.next_multiple_of(LANES) };
            let class = classes.of(i);
            let layer = LayerLayout { class, start: lens[class], head_dim, padded, n_kv_heads };
            lens[class] += layer.len();
            layers.push(layer);
        }
        Ok(PageLayout { classes, layers, lens })
    }

    /// f16 elements of a page's part of a class.
    pub fn part_len(&self, class: usize) -> usize {
        self.lens.get(class).copied().unwrap_or(0)
    }

    /// The part of this layer.
    pub fn layer(&self, layer: usize) -> LayerLayout {
        self.layers[layer]
    }

    /// Zeroes what belongs to positions from `rows` on, in a copy of a page's part as bytes.
    pub fn clear_from(&self, class: usize, rows: usize, part: &mut [u8]) {
        if rows >= PAGE_TOKENS {
            return;
        }
        for layer in self.layers.iter().filter(|layer| layer.class == class && layer.n_kv_heads > 0) {
            layer.clear_from(rows, &mut part[2 * layer.start..][..2 * layer.len()]);
        }
    }
}

impl LayerLayout {
    /// f16 elements of the keys of one head.
    fn keys_len(&self) -> usize {
        PAGE_TOKENS * self.head_dim
    }

    fn head_len(&self) -> usize {
        self.keys_len() + PAGE_TOKENS * self.padded
    }

    fn len(&self) -> usize {
        self.n_kv_heads * self.head_len()
    }

    /// Elements at which the keys and the values of one head stand in a page's part.
    pub fn head(&self, head: usize) -> (usize, usize) {
        let keys = self.start + head * self.head_len();
        (keys, keys + self.keys_len())
    }

    fn clear_from(&self, rows: usize, part: &mut [u8]) {
        for head in part.chunks_exact_mut(2 * self.head_len()) {
            let (keys, values) = head.split_at_mut(2 * self.keys_len());
            for (block, keys) in keys.chunks_exact_mut(2 * LANES * self.head_dim).enumerate() {
                let kept = rows.saturating_sub(block * LANES).min(LANES);
                keys.chunks_exact_mut(2 * LANES).for_each(|lanes| lanes[2 * kept..].fill(0));
            }
            values[2 * rows * self.padded..].fill(0);
        }
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Safety
    /// `page` points to the `part_len` elements of the layer's class, of which nobody writes this slot; `k` has `head_dim` elements, `v` as many or none.
    pub unsafe fn read(&self, page: *const u16, head: usize, slot: usize, k: &mut [u16], v: &mut [u16]) {
        let (keys_at, values_at) = self.head(head);
        // SAFETY: inside the page.
        unsafe {
            let keys = page.add(keys_at + (slot / LANES * self.head_dim) * LANES + slot % LANES);
            for (d, k) in k.iter_mut().enumerate() {
                *k = *keys.add(d * LANES);
            }
            std::ptr::copy_nonoverlapping(page.add(values_at + slot * self.padded), v.as_mut_ptr(), v.len());
        }
    }

    /// Writes a key and a value at index `slot` of a page.
    ///
    /// # Safety
    /// `page` points to the `part_len` elements of the layer's class, which nobody else uses at this slot; `k` has `head_dim` elements, `v` as many or none.
    pub unsafe fn write(&self, page: *mut u16, head: usize, slot: usize, k: &[u16], v: &[u16]) {
        let (keys_at, values_at) = self.head(head);
        // SAFETY: inside the page.
        unsafe {
            let keys = page.add(keys_at + (slot / LANES * self.head_dim) * LANES + slot % LANES);
            for (d, &k) in k.iter().enumerate() {
                *keys.add(d * LANES) = k;
            }
            std::ptr::copy_nonoverlapping(v.as_ptr(), page.add(values_at + slot * self.padded), v.len());
        }
    }
}
