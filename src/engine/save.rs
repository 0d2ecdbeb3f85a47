//! A session as bytes: a blob that only the same model on the same kind of device takes back.
//!
//! All numbers are little-endian:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 8 | `KIGOSESS` |
//! | 8 | 8 | version of this table: 2; others are refused |
//! | 16 | 8 | bytes of the whole blob |
//! | 24 | 8 | checksum of all that follows |
//! | 32 | 16 | hash of the model |
//! | 48 | 8 | hash of the cache's layout |
//! | 56 | 8 | tokens |
//! | 64 | 8 | context length |
//! | 72 | 8 | logits: n_vocab, or 0 where there are none |
//! | 80 | 8 | logit biases |
//! | 88 | 40 | seed (8), then temperature, top_k, top_p, min_p, three penalties, their window (4 each) |
//! | 128 | 24 | constraint: kind (1 JSON schema, 2 regular expression, 3 Lark; 0: none; 256 more: compact), the token that it holds from, bytes of its text |
//! | 152 | 8 | the number of the order of sums; 0, from before they had numbers, is 1 |
//! | 160 | 8 | pages of which it is written down which positions steps have computed: all, or 0 where the device asks for none |
//! | 168 | 8 | bytes of the state behind the tokens, where layers keep one; else 0 |
//! | 176 | 16 | 0 |
//! | 192 | | tokens (4 each), biases (token and bias, 4 each), logits (4 each), the constraint's text, a bit for each position of each page (8 a page), the state (f32, in the order of `model::Recurrent`); each of the six padded to 64 |
//! | | | the pages: of each the parts that the session still reads, as the backend gives them, padded to 64 |
//!
//! The random numbers are keyed by seed and position, so there are no counters beside the tokens. What a constraint has
//! consumed are the tokens from its first on: the next choice after a restore reads them again.
//! Invariant: no session comes of a blob whose checksum and hashes do not agree, and no number of it is used before it has
//! been checked against the blob's size and the model: a forged blob gives wrong numbers at worst. The checksum is made
//! while the pages are copied, so that they are read from memory once.

use super::grammar::{Constraint, Grammar, Held, MAX_GRAMMAR_BYTES};
use super::hash::Hasher;
use super::model::{Inner, Model};
use super::saved_layout::{CHECKED, Counts, HEAD, Hashed, Parts, number, refuse};
use super::saved_pages::SavedPages;
use super::session::{Session, SessionOptions, State};
use super::slot::lock_slot;
use crate::alloc::reserve;
use crate::backend::PageImage;
use crate::error::{Error, Result};
use crate::sampler::SamplingParams;

const MAGIC: &[u8; 8] = b"KIGOSESS";
const VERSION: u64 = 2;
/// A bit of a constraint's kind: its JSON has no white space between its parts.
const COMPACT: u64 = 256;

fn put_words(out: &mut [u8], words: impl Iterator<Item = u32>) {
    let (cells, _) = out.as_chunks_mut::<4>();
    cells.iter_mut().zip(words).for_each(|(cell, word)| *cell = word.to_le_bytes());
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|cell| u32::from_le_bytes(*cell))
}

impl Session {
    /// Bytes that [`Self::save`] writes now.
    pub fn saved_bytes(&self) -> Result<usize> {
        self.call(|state| {
            let parts = Parts::of(self.counts(state), &SavedPages::new(&self.model().inner, state.tokens.len())?);
            parts.map(|parts| parts.end).ok_or_else(too_large)
        })
    }

    fn counts(&self, state: &State) -> Counts {
        Counts {
            tokens: state.tokens.len(),
            biases: state.sampling.logit_bias.len(),
            logits: if state.has_logits { self.n_vocab() } else { 0 },
            text: state.constraint.as_ref().map_or(0, |c| c.facts().0.facts().1.len()),
        }
    }

    /// Writes the session into `out`; how many bytes. Fails with `BufferTooSmall` and the number needed.
    pub fn save(&self, out: &mut [u8]) -> Result<usize> {
        let needed = self.saved_bytes()?;
        self.call(|state| {
            let model = &self.model().inner;
            let saved = SavedPages::new(model, state.tokens.len())?;
            let p = &state.sampling;
            let counts = self.counts(state);
            let n_logits = counts.logits;
            let (kind, grammar, from) = state.constraint.as_ref().map_or((0, "", 0), |held| {
                let (constraint, from) = held.facts();
                let (kind, text, compact) = constraint.facts();
                (if compact { kind | COMPACT } else { kind }, text, from)
            });
            let parts = Parts::of(counts, &saved).ok_or_else(too_large)?;
            if out.len() < parts.end {
                return Err(Error::BufferTooSmall { needed, capacity: out.len() });
            }
            let out = &mut out[..parts.end];
            let (head, rest) = out.split_at_mut(HEAD);
            head[..8].copy_from_slice(MAGIC);
            let [a, b] = model.hash;
            let n_biases = p.logit_bias.len() as u64;
            let numbers = [VERSION, parts.end as u64, 0, a, b, saved.layout_hash(), state.tokens.len() as u64]
                .into_iter()
                .chain([self.n_ctx() as u64, n_logits as u64, n_biases, p.seed]);
            let floats = [p.top_p, p.min_p, p.repetition_penalty, p.frequency_penalty, p.presence_penalty];
            head[8..].as_chunks_mut::<8>().0.iter_mut().zip(numbers).for_each(|(c, n)| *c = n.to_le_bytes());
            let singles = [p.temperature.to_bits(), p.top_k].into_iter().chain(floats.map(f32::to_bits));
            put_words(&mut head[96..128], singles.chain([p.penalty_window]));
            let sums = u64::from(saved.image.sums);
            let of_state = saved.state_bytes() as u64;
            let last = [kind, from as u64, grammar.len() as u64, sums, saved.n_marks() as u64, of_state, 0, 0];
            head[128..].as_chunks_mut::<8>().0.iter_mut().zip(last).for_each(|(c, n)| *c = n.to_le_bytes());
            let (ids, rest) = rest.split_at_mut(parts.biases - HEAD);
            let (biases, rest) = rest.split_at_mut(parts.logits - parts.biases);
            let (logits, rest) = rest.split_at_mut(parts.text - parts.logits);
            let (text, rest) = rest.split_at_mut(parts.marks - parts.text);
            let (marks, rest) = rest.split_at_mut(parts.state - parts.marks);
            let (behind, pages) = rest.split_at_mut(parts.pages - parts.state);
            for padded in [&mut *ids, &mut *biases, &mut *logits, &mut *text, &mut *marks, &mut *behind] {
                let n = padded.len();
                padded[n.saturating_sub(64)..].fill(0);
            }
            put_words(ids, state.tokens.iter().copied());
            put_words(biases, p.logit_bias.iter().flat_map(|(token, bias)| [*token, bias.to_bits()]));
            text[..grammar.len()].copy_from_slice(grammar.as_bytes());
            let cells = marks.as_chunks_mut::<8>().0.iter_mut();
            cells.zip(state.pages.marks(state.tokens.len())).for_each(|(cell, bits)| *cell = bits.to_le_bytes());
            if n_logits > 0 {
                let mut values = Vec::new();
                reserve(&mut values, n_logits)?;
                values.resize(n_logits, 0.0);
                model.loaded.logits(&mut **lock_slot(&state.slot), &mut values)?;
                put_words(logits, values.iter().map(|l: &f32| l.to_bits()));
            }
            saved.read_state(state.behind.as_ref(), behind)?;
            let mut hasher = Hasher::new(0);
            hasher.feed(&head[CHECKED..]);
            [&*ids, &*biases, &*logits, &*text, &*marks, &*behind].iter().for_each(|part| hasher.feed(part));
            let mut rest = pages;
            for (index, page) in state.pages.as_slice().iter().enumerate().take(saved.n()) {
                let (out, behind) = rest.split_at_mut(saved.bytes(index).ok_or_else(too_large)?);
                saved.read(index, *page, out)?;
                // While it is in the processor's cache.
                hasher.feed(out);
                rest = behind;
            }
            head[24..CHECKED].copy_from_slice(&hasher.finish().to_le_bytes());
            Ok(parts.end)
        })
    }

    /// A session as it was when [`Self::save`] wrote the blob.
    pub fn restore(model: &Model, blob: &[u8]) -> Result<Session> {
        model.computes()?;
        let (parts, counts, ..) = Head::sizes(&model.inner, blob)?;
        let saved = SavedPages::new(&model.inner, counts.tokens)?;
        let mut hashed = Hashed::new(blob, parts, saved);
        let restored = Session::restore_hashing(model, blob, &saved, &mut hashed);
        // Whatever else may be wrong with it, damage is the reason.
        hashed.check()?;
        restored
    }

    /// [`Self::restore`], whose session is to be thrown away if the checksum is wrong.
    fn restore_hashing(model: &Model, blob: &[u8], saved: &SavedPages<'_>, hashed: &mut Hashed<'_>) -> Result<Session> {
        let inner = &model.inner;
        let Head { parts, n_tokens, n_ctx, n_logits, sampling, constraint } = Head::read(inner, &saved.image, blob)?;
        let constraint = match constraint {
            None => None,
            Some((grammar, compact, from)) => match Constraint::new(model, grammar, compact, &mut || true) {
                Ok(constraint) => Some(Box::new(Held::new(&constraint, from))),
                Err(Error::Constraint { message }) => {
                    return refuse(
                        format!("one with a constraint that is none: {message}"),
                        "one that compiles".to_owned(),
                    );
                }
                Err(error) => return Err(error),
            },
        };
        let session =
            Session::private(model, SessionOptions { n_ctx: Some(n_ctx), sampling, ..SessionOptions::default() })?;
        session.call(|state| {
            let tokens = state.tokens_for(n_tokens)?;
            tokens.extend(words(&blob[HEAD..]).take(n_tokens));
            let n_vocab = session.n_vocab();
            if let Some((index, token)) = tokens.iter().enumerate().find(|(_, t)| **t as usize >= n_vocab) {
                return Err(Error::TokenOutOfRange { index, token: *token, n_vocab });
            }
            state.constraint = constraint;
            state.pages.fill(n_tokens)?;
            let marks = blob[parts.marks..parts.state].as_chunks::<8>().0;
            state.pages.set_marks(marks.iter().take(saved.n_marks()).map(|bits| u64::from_le_bytes(*bits)));
            state.behind = saved.write_state(&blob[parts.state..parts.pages])?;
            for (index, page) in state.pages.as_slice().iter().enumerate() {
                saved.write(index, *page, hashed.page())?;
            }
            if n_logits > 0 {
                let mut logits = Vec::new();
                reserve(&mut logits, n_logits)?;
                logits.extend(words(&blob[parts.logits..parts.text]).take(n_logits).map(f32::from_bits));
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
struct Head<'a> {
    parts: Parts,
    n_tokens: usize,
    n_ctx: usize,
    n_logits: usize,
    sampling: SamplingParams,
    /// A grammar, whether it is compact, and the token that it holds from.
    constraint: Option<(Grammar<'a>, bool, usize)>,
}

impl<'a> Head<'a> {
    /// Where its parts are, how much there is of what, the context length and the constraint's first token.
    fn sizes(model: &Inner, blob: &[u8]) -> Result<(Parts, Counts, usize, usize)> {
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
        let layout = SavedPages::new(model, 0)?;
        if at(48) != layout.layout_hash() {
            let found = format!("of another device's cache layout, {:016x}", at(48));
            return refuse(found, format!("\"{}\", {:016x}", layout.image.layout, layout.layout_hash()));
        }
        let facts = &model.facts;
        let within = |at, most: usize| usize::try_from(number(blob, at)).ok().filter(|n| *n <= most);
        let (n_ctx_train, n_vocab) = (facts.n_ctx_train, facts.n_vocab);
        let sizes = (within(56, n_ctx_train), within(64, n_ctx_train), within(72, n_vocab), within(80, usize::MAX));
        let of_constraint = (within(136, n_ctx_train), within(144, MAX_GRAMMAR_BYTES));
        let ((Some(n_tokens), Some(n_ctx), Some(n_logits), Some(n_biases)), (Some(from), Some(n_text))) =
            (sizes, of_constraint)
        else {
            return refuse("one with sizes that this model does not have".to_owned(), "the model's at most".to_owned());
        };
        let counts = Counts { tokens: n_tokens, biases: n_biases, logits: n_logits, text: n_text };
        let saved = SavedPages::new(model, n_tokens)?;
        if at(160) != saved.n_marks() as u64 {
            let found = format!("one that knows of {} pages what steps have computed", at(160));
            return refuse(found, format!("of {}, as this device in its mode", saved.n_marks()));
        }
        if at(168) != saved.state_bytes() as u64 {
            let found = format!("one with a state of {} bytes", at(168));
            return refuse(found, format!("{}, as this model's", saved.state_bytes()));
        }
        let parts = Parts::of(counts, &saved).filter(|parts| parts.end == blob.len());
        let whole = n_tokens <= n_ctx && n_ctx > 0 && (n_logits == 0 || n_logits == facts.n_vocab && n_tokens > 0);
        let Some(parts) = parts.filter(|_| whole) else {
            return refuse(format!("{} bytes for {n_tokens} tokens", blob.len()), "sizes that agree".to_owned());
        };
        Ok((parts, counts, n_ctx, from))
    }

    fn read(model: &Inner, image: &PageImage, blob: &'a [u8]) -> Result<Head<'a>> {
        let (parts, counts, n_ctx, from) = Head::sizes(model, blob)?;
        let Counts { tokens: n_tokens, biases: n_biases, logits: n_logits, text: n_text } = counts;
        let at = |at| number(blob, at);
        if at(152).max(1) != u64::from(image.sums) {
            return Err(Error::UnsupportedValue {
                name: "blob".to_owned(),
                found: format!("of the order of sums {}", at(152).max(1)),
                expected: format!("this device's, {}", image.sums),
            });
        }
        let single: Vec<u32> = words(&blob[96..128]).collect();
        let f = |i: usize| f32::from_bits(single[i]);
        let mut logit_bias = Vec::new();
        reserve(&mut logit_bias, n_biases)?;
        let pairs = blob[parts.biases..parts.logits].as_chunks::<8>().0.iter().map(|pair| u64::from_le_bytes(*pair));
        logit_bias.extend(pairs.take(n_biases).map(|pair| (pair as u32, f32::from_bits((pair >> 32) as u32))));
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
        let text = std::str::from_utf8(&blob[parts.text..parts.text + n_text]).ok();
        let constraint = match (at(128), text) {
            (0, Some("")) => None,
            (kind, Some(text)) if Grammar::of(kind & !COMPACT, text).is_some() => {
                Grammar::of(kind & !COMPACT, text).map(|g| (g, kind & COMPACT != 0, from))
            }
            (kind, _) => {
                return refuse(
                    format!("one with a constraint of kind {kind}, {n_text} bytes"),
                    "0 to 3, or 1 to 3 and 256, UTF-8".to_owned(),
                );
            }
        };
        Ok(Head { parts, n_tokens, n_ctx, n_logits, sampling, constraint })
    }
}
