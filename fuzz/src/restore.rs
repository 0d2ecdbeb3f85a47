//! A saved session that somebody has forged: the checksum, the model and the layout are right, the rest is anything.

use std::sync::OnceLock;
use std::time::Duration;

use kigo::engine::{Session, SessionOptions};
use kigo::error::Status;

use crate::support::{self, Input};

/// Bytes of a blob's head, and where its checksum's range begins: `src/engine/save.rs`.
const HEAD: usize = 192;
const CHECKED: usize = 32;

/// A real blob, whose head names this model and this layout.
fn real() -> &'static [u8] {
    static BLOB: OnceLock<Vec<u8>> = OnceLock::new();
    BLOB.get_or_init(|| {
        let session = Session::new(support::model(), SessionOptions::default()).expect("a session");
        session.prefill(&[1, 2, 3, 4, 5]).expect("runs");
        let mut blob = vec![0; session.saved_bytes().expect("a size")];
        session.save(&mut blob).expect("is saved");
        blob
    })
}

/// The checksum of a blob: `src/engine/hash.rs`, whose tests hold this to it.
pub fn checksum(blob: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |lane: u64, word: u64| (lane ^ word).wrapping_mul(K).rotate_left(29);
    let mut lanes: [u64; 8] = std::array::from_fn(|i| step(0, i as u64 + 1));
    // The head's 160 bytes are fed by themselves: three blocks, the last half filled.
    let (head, rest) = blob[CHECKED..].split_at((HEAD - CHECKED).min(blob.len() - CHECKED));
    let mut padded = head.to_vec();
    padded.resize(HEAD, 0);
    padded.extend_from_slice(rest);
    padded.resize(padded.len().next_multiple_of(64), 0);
    for block in padded.as_chunks::<64>().0 {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = step(*lane, u64::from_le_bytes(*word));
        }
    }
    let mut hash = lanes.iter().fold(step(K, blob.len() as u64 - CHECKED as u64), |hash, lane| step(hash, *lane));
    for _ in 0..2 {
        hash = (hash ^ hash >> 32).wrapping_mul(K);
    }
    hash ^ hash >> 32
}

/// Makes the parts of the head true that a forger would.
fn sign(blob: &mut [u8]) {
    let real = real();
    blob[..16].copy_from_slice(&real[..16]);
    let n = blob.len() as u64;
    blob[16..24].copy_from_slice(&n.to_le_bytes());
    blob[32..56].copy_from_slice(&real[32..56]);
    let sum = checksum(blob);
    blob[24..32].copy_from_slice(&sum.to_le_bytes());
}

/// A blob whose sizes agree, of numbers from the input; each may be put out of joint.
fn forged(input: &mut Input<'_>) -> Vec<u8> {
    let model = support::model();
    let facts = model.facts();
    let mode = input.u8();
    let mut counts = [input.number(), input.number(), 0, input.number() % 20];
    counts[0] %= 140;
    counts[1] %= facts.n_ctx_train as u64 + 2;
    if mode & 1 == 0 {
        counts[1] = counts[1].max(counts[0]).max(1);
    }
    counts[2] = if mode & 2 != 0 { facts.n_vocab as u64 } else { 0 };
    // Most cases have no constraint: it is what takes the time.
    let text = if mode & 0xf0 == 0xf0 {
        let n = input.below(24);
        input.bytes(n).to_vec()
    } else {
        Vec::new()
    };
    let kind = if text.is_empty() { 0 } else { u64::from(input.u8() % 5) + 256 * u64::from(mode & 1) };
    let from = input.number();
    let mut blob = vec![0; HEAD];
    for (i, count) in counts.into_iter().enumerate() {
        blob[56 + 8 * i..64 + 8 * i].copy_from_slice(&count.to_le_bytes());
    }
    let sampling = input.bytes(40);
    // Ones that a caller could have given, or any bits.
    blob[88..128].copy_from_slice(&real()[88..128]);
    if mode & 4 != 0 {
        blob[88..88 + sampling.len()].copy_from_slice(sampling);
    }
    for (i, number) in [kind, from, text.len() as u64].into_iter().enumerate() {
        blob[128 + 8 * i..136 + 8 * i].copy_from_slice(&number.to_le_bytes());
    }
    let mut part = |bytes: &mut dyn FnMut(usize) -> u8, n: usize| {
        blob.extend((0..n).map(bytes));
        let end = blob.len().next_multiple_of(64);
        blob.resize(end, 0);
    };
    let tail = input.0;
    let cell = |i: usize| tail.get(i % tail.len().max(1)).copied().unwrap_or(7);
    // Tokens below the vocabulary's size but for the odd one.
    part(
        &mut |i| if i % 4 == 0 { cell(i / 4) } else { u8::from(mode & 8 != 0 && cell(i) == 0xff) },
        counts[0] as usize * 4,
    );
    part(&mut |i| if i % 8 == 0 || i % 8 > 3 { cell(i) } else { 0 }, counts[3] as usize * 8);
    part(&mut |i| cell(i + 1), counts[2] as usize * 4);
    part(&mut |i| text[i], text.len());
    let n_pages = (counts[0] as usize).div_ceil(64);
    let stride = page_bytes().next_multiple_of(64);
    let at = blob.len();
    blob.resize(at + n_pages * stride, 0);
    for (i, byte) in blob[at..].iter_mut().enumerate().step_by(3) {
        *byte = cell(i / 3);
    }
    if mode & 0x20 != 0 {
        blob.truncate(blob.len().saturating_sub(usize::from(input.u16())).max(HEAD));
    }
    // A few bytes of the head after all that.
    while mode & 0x10 != 0 && !input.is_empty() {
        let (at, byte) = (56 + input.below(HEAD - 56), input.u8());
        blob[at] = byte;
        if input.u8() & 3 != 0 {
            break;
        }
    }
    blob
}

fn page_bytes() -> usize {
    // One token and no logits: head, tokens, page.
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let session = Session::new(support::model(), SessionOptions::default()).expect("a session");
        let empty = session.saved_bytes().expect("a size");
        session.prefill(&[1, 2]).expect("runs");
        session.truncate(1).expect("keeps one");
        session.saved_bytes().expect("a size") - empty - 64
    })
}

/// One case: a blob as it is but for its signature, or one made of the input's numbers.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let blob = if input.u8() & 1 == 0 {
        let mut blob = input.0.to_vec();
        blob.resize(blob.len().max(HEAD), 0);
        blob
    } else {
        forged(&mut input)
    };
    let mut blob = blob;
    // A grammar takes a hundred times as long as all else, and has targets of its own: one in eight is compiled.
    if !crate::common::random::mix(checksum(&blob)).is_multiple_of(8) {
        blob[128..136].fill(0);
    }
    sign(&mut blob);
    // A grammar takes what a grammar may.
    let (time, bytes) =
        if blob[128] == 0 { (Duration::from_secs(1), 16 << 20) } else { (support::TEXT_TIME, support::TEXT_BYTES) };
    support::bounded(time, bytes + 8 * blob.len(), || restore(&blob));
    assert_eq!(support::model().cache_facts().n_pages_used, 0, "pages are left in use");
}

fn restore(blob: &[u8]) {
    let session = match Session::restore(support::model(), blob) {
        Ok(session) => session,
        Err(error) => {
            let status = error.status();
            // Unsupported: sums in another order.
            let expected = matches!(status, Status::InvalidArgument | Status::Unsupported | Status::OutOfMemory);
            assert!(expected, "{status:?}: {error}");
            return;
        }
    };
    // Numbers that are none may come out; the calls go on, and what is saved is taken back.
    let _ = session.sample();
    let mut again = vec![0; session.saved_bytes().expect("a size")];
    session.save(&mut again).expect("what was restored can be saved");
    assert!(Session::restore(support::model(), &again).is_ok(), "and be restored again");
    let _ = session.prefill(&[1, 2, 3]);
    let _ = session.sample();
    let _ = session.fork().map(|fork| fork.truncate(1));
}
