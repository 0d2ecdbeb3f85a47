//! A session as bytes: a blob that only the same model on the same kind of device takes back.
//!
//! All numbers are little-endian:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 8 | `KIGOSESS` |
//! | 8 | 8 | version of this table: 1 |
//! | 16 | 8 | bytes of the whole blob |
//! | 24 | 8 | checksum of all that follows |
//! | 32 | 16 | hash of the model |
//! | 48 | 8 | hash of the cache's layout |
//! | 56 | 8 | tokens |
//! | 64 | 8 | context length |
//! | 72 | 8 | logits: n_vocab, or 0 where there are none |
//! | 80 | 8 | logit biases |
//! | 88 | 40 | seed (8), then temperature, top_k, top_p, min_p, three penalties, their window (4 each) |
//! | 128 | | tokens (4 each), biases (token and bias, 4 each), logits (4 each); each of the three padded to 64 |
//! | | | the pages as the backend gives them, each padded to 64 |
//!
//! The random numbers are keyed by seed and position, so there are no counters beside the tokens.
//! Invariant: nothing of a blob is believed before its checksum and hashes agree, and then no number is used before it
//! has been checked against the blob's size and the model: a forged blob gives wrong numbers at worst.

use super::hash::Hasher;
use super::model::{Inner, Model};
use super::session::{Session, SessionOptions, lock_slot, reserve};
use crate::backend::{PAGE_TOKENS, PageImage};
use crate::error::{Error, Result};
use crate::sampler::SamplingParams;

const MAGIC: &[u8; 8] = b"KIGOSESS";
const VERSION: u64 = 1;
const HEAD: usize = 128;
/// Where the checksum's range begins.
const CHECKED: usize = 32;

/// Where each part of a blob begins, and where the last ends.
#[derive(Clone, Copy)]
struct Parts {
    biases: usize,
    logits: usize,
    pages: usize,
    page_stride: usize,
    end: usize,
}

impl Parts {
    /// `None`: such numbers make no blob.
    fn of(n_tokens: usize, n_biases: usize, n_logits: usize, image: &PageImage) -> Option<Parts> {
        let after =
            |at: usize, n: usize, size: usize| n.checked_mul(size)?.checked_next_multiple_of(64)?.checked_add(at);
        let biases = after(HEAD, n_tokens, 4)?;
        let logits = after(biases, n_biases, 8)?;
        let pages = after(logits, n_logits, 4)?;
        let page_stride = image.bytes.checked_next_multiple_of(64)?;
        let end = n_tokens.div_ceil(PAGE_TOKENS).checked_mul(page_stride)?.checked_add(pages)?;
        Some(Parts { biases, logits, pages, page_stride, end })
    }
}

fn image_of(model: &Inner) -> Result<PageImage> {
    let name = "saving sessions on this device".to_owned();
    model.loaded.page_image().ok_or(Error::Unsupported { what: "device operation", name })
}

fn layout_hash(image: &PageImage) -> u64 {
    let mut hasher = Hasher::new(3);
    hasher.feed(format!("{} {} {PAGE_TOKENS}", image.layout, image.bytes).as_bytes());
    hasher.finish()
}

fn put_words(out: &mut [u8], words: impl Iterator<Item = u32>) {
    let (cells, _) = out.as_chunks_mut::<4>();
    cells.iter_mut().zip(words).for_each(|(cell, word)| *cell = word.to_le_bytes());
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|cell| u32::from_le_bytes(*cell))
}

fn number(blob: &[u8], at: usize) -> u64 {
    blob[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// A refusal with what was found and what would have been right.
fn refuse<T>(found: String, expected: String) -> Result<T> {
    Err(Error::Argument { name: "blob", found, expected })
}

impl Session {
    /// Bytes that [`Self::save`] writes now.
    pub fn saved_bytes(&self) -> Result<usize> {
        self.call(|state| {
            let n_logits = if state.has_logits { self.n_vocab() } else { 0 };
            let parts = Parts::of(
                state.tokens.len(),
                state.sampling.logit_bias.len(),
                n_logits,
                &image_of(&self.model().inner)?,
            );
            parts.map(|parts| parts.end).ok_or_else(too_large)
        })
    }

    /// Writes the session into `out`; how many bytes. Fails with `BufferTooSmall` and the number needed.
    pub fn save(&self, out: &mut [u8]) -> Result<usize> {
        let needed = self.saved_bytes()?;
        self.call(|state| {
            let model = &self.model().inner;
            let image = image_of(model)?;
            let p = &state.sampling;
            let n_logits = if state.has_logits { self.n_vocab() } else { 0 };
            let parts = Parts::of(state.tokens.len(), p.logit_bias.len(), n_logits, &image).ok_or_else(too_large)?;
            if out.len() < parts.end {
                return Err(Error::BufferTooSmall { needed, capacity: out.len() });
            }
            let out = &mut out[..parts.end];
            let (head, rest) = out.split_at_mut(HEAD);
            head[..8].copy_from_slice(MAGIC);
            let [a, b] = model.hash;
            let n_biases = p.logit_bias.len() as u64;
            let numbers = [VERSION, parts.end as u64, 0, a, b, layout_hash(&image), state.tokens.len() as u64]
                .into_iter()
                .chain([self.n_ctx() as u64, n_logits as u64, n_biases, p.seed]);
            let floats = [p.top_p, p.min_p, p.repetition_penalty, p.frequency_penalty, p.presence_penalty];
            head[8..].as_chunks_mut::<8>().0.iter_mut().zip(numbers).for_each(|(c, n)| *c = n.to_le_bytes());
            let singles = [p.temperature.to_bits(), p.top_k].into_iter().chain(floats.map(f32::to_bits));
            put_words(&mut head[96..], singles.chain([p.penalty_window]));
            let (ids, rest) = rest.split_at_mut(parts.biases - HEAD);
            let (biases, rest) = rest.split_at_mut(parts.logits - parts.biases);
            let (logits, pages) = rest.split_at_mut(parts.pages - parts.logits);
            for padded in [&mut *ids, &mut *biases, &mut *logits] {
                let n = padded.len();
                padded[n.saturating_sub(64)..].fill(0);
            }
            put_words(ids, state.tokens.iter().copied());
            put_words(biases, p.logit_bias.iter().flat_map(|(token, bias)| [*token, bias.to_bits()]));
            if n_logits > 0 {
                let mut values = Vec::new();
                reserve(&mut values, n_logits)?;
                values.resize(n_logits, 0.0);
                model.loaded.logits(&mut **lock_slot(&state.slot), &mut values)?;
                put_words(logits, values.iter().map(|l: &f32| l.to_bits()));
            }
            let mut hasher = Hasher::new(0);
            hasher.feed(&head[CHECKED..]);
            [&*ids, &*biases, &*logits].iter().for_each(|part| hasher.feed(part));
            for (i, (page, out)) in
                state.pages.as_slice().iter().zip(pages.chunks_exact_mut(parts.page_stride)).enumerate()
            {
                let rows = (state.tokens.len() - i * PAGE_TOKENS).min(PAGE_TOKENS);
                let (image, padding) = out.split_at_mut(image.bytes);
                model.loaded.read_page(*page, rows, image)?;
                padding.fill(0);
                // While it is in the processor's cache.
                hasher.feed(out);
            }
            head[24..CHECKED].copy_from_slice(&hasher.finish().to_le_bytes());
            Ok(parts.end)
        })
    }

    /// A session as it was when [`Self::save`] wrote the blob.
    pub fn restore(model: &Model, blob: &[u8]) -> Result<Session> {
        let inner = &model.inner;
        let image = image_of(inner)?;
        let head = Head::read(inner, &image, blob)?;
        let Head { parts, n_tokens, n_ctx, n_logits, sampling } = head;
        let session = Session::new(model, SessionOptions { n_ctx: Some(n_ctx), sampling, reuse_prefix: false })?;
        session.call(|state| {
            let tokens = state.tokens_for(n_tokens)?;
            tokens.extend(words(&blob[HEAD..]).take(n_tokens));
            let n_vocab = session.n_vocab();
            if let Some((index, token)) = tokens.iter().enumerate().find(|(_, t)| **t as usize >= n_vocab) {
                return Err(Error::TokenOutOfRange { index, token: *token, n_vocab });
            }
            state.pages.prepare(0, n_tokens)?;
            state.pages.mark_foreign()?;
            let pages = blob[parts.pages..].chunks_exact(parts.page_stride);
            for (page, from) in state.pages.as_slice().iter().zip(pages) {
                inner.loaded.write_page(*page, &from[..image.bytes])?;
            }
            if n_logits > 0 {
                let mut logits = Vec::new();
                reserve(&mut logits, n_logits)?;
                logits.extend(words(&blob[parts.logits..]).take(n_logits).map(f32::from_bits));
                inner.loaded.set_logits(&mut **lock_slot(&state.slot), &logits)?;
                state.has_logits = true;
            }
            Ok(())
        })?;
        Ok(session)
    }
}

fn too_large() -> Error {
    Error::Internal { message: "a session larger than the address space".to_owned() }
}

/// What a blob says of itself, checked.
struct Head {
    parts: Parts,
    n_tokens: usize,
    n_ctx: usize,
    n_logits: usize,
    sampling: SamplingParams,
}

impl Head {
    fn read(model: &Inner, image: &PageImage, blob: &[u8]) -> Result<Head> {
        if blob.len() < HEAD || !blob.starts_with(MAGIC) {
            let what = if blob.starts_with(MAGIC) { "cut off" } else { "no saved session" };
            return refuse(format!("{what}, {} bytes", blob.len()), "what kigo_session_save() wrote".to_owned());
        }
        let at = |at| number(blob, at);
        if at(8) != VERSION {
            return refuse(format!("of version {}", at(8)), format!("version {VERSION}"));
        }
        if at(16) != blob.len() as u64 {
            return refuse(format!("{} bytes", blob.len()), format!("{}, as it says itself", at(16)));
        }
        let found = [at(32), at(40)];
        if found != model.hash {
            let show = |[a, b]: [u64; 2]| format!("{a:016x}{b:016x}");
            return refuse(format!("of the model {}", show(found)), format!("this model, {}", show(model.hash)));
        }
        if at(48) != layout_hash(image) {
            let found = format!("of another device's cache layout, {:016x}", at(48));
            return refuse(found, format!("\"{}\", {:016x}", image.layout, layout_hash(image)));
        }
        let facts = &model.facts;
        let small = |at| usize::try_from(number(blob, at)).ok();
        let within = |at: usize, most: usize| small(at).filter(|n| *n <= most);
        let counts =
            (within(56, facts.n_ctx_train), within(64, facts.n_ctx_train), within(72, facts.n_vocab), small(80));
        let (Some(n_tokens), Some(n_ctx), Some(n_logits), Some(n_biases)) = counts else {
            return refuse(
                "one with sizes that this model does not have".to_owned(),
                "sizes within the model's".to_owned(),
            );
        };
        let parts = Parts::of(n_tokens, n_biases, n_logits, image).filter(|parts| parts.end == blob.len());
        let whole = n_tokens <= n_ctx && n_ctx > 0 && (n_logits == 0 || n_logits == facts.n_vocab && n_tokens > 0);
        let Some(parts) = parts.filter(|_| whole) else {
            return refuse(format!("{} bytes for {n_tokens} tokens", blob.len()), "sizes that agree".to_owned());
        };
        let mut hasher = Hasher::new(0);
        hasher.feed(&blob[CHECKED..HEAD]);
        [HEAD..parts.biases, parts.biases..parts.logits, parts.logits..parts.pages]
            .into_iter()
            .for_each(|range| hasher.feed(&blob[range]));
        blob[parts.pages..].chunks_exact(parts.page_stride).for_each(|page| hasher.feed(page));
        if hasher.finish() != at(24) {
            let expected = format!("that of its bytes, {:016x}", hasher.finish());
            return refuse(format!("damaged: its checksum is {:016x}", at(24)), expected);
        }
        let single: Vec<u32> = words(&blob[96..HEAD]).collect();
        let f = |i: usize| f32::from_bits(single[i]);
        let mut logit_bias = Vec::new();
        reserve(&mut logit_bias, n_biases)?;
        let biases: Vec<u32> = words(&blob[parts.biases..parts.logits]).collect();
        logit_bias.extend(biases.as_chunks::<2>().0.iter().take(n_biases).map(|[t, b]| (*t, f32::from_bits(*b))));
        let sampling = SamplingParams {
            seed: at(88),
            temperature: f(0),
            top_k: single[1],
            top_p: f(2),
            min_p: f(3),
            repetition_penalty: f(4),
            frequency_penalty: f(5),
            presence_penalty: f(6),
            penalty_window: single[7],
            logit_bias,
        };
        Ok(Head { parts, n_tokens, n_ctx, n_logits, sampling })
    }
}
