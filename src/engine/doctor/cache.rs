//! The third suspect: the KV cache. However a prompt is cut into calls, the logits are the same; what has been written
//! stays.

use super::{Finding, Patient, Row, Subject, nmse, same_bits, take};
use crate::backend::PAGE_TOKENS;
use crate::error::{Error, Result};

/// A context that is filled to its end.
pub(super) const FULL: usize = 2 * PAGE_TOKENS + 3;

pub(super) fn cache(p: &Patient<'_>) -> Result<Finding> {
    let exact = p.model.inner.loaded.is_exact_in_chunks();
    let bound = if exact { 0.0 } else { p.rounding() };
    let full = FULL.min(p.config.n_ctx_train);
    let tokens = p.tokens(full)?;
    let lengths = [1, 2, 3, 31, 32, 33, PAGE_TOKENS - 1, PAGE_TOKENS, PAGE_TOKENS + 1, full];
    let lengths: Vec<usize> = lengths.into_iter().filter(|n| *n <= full).collect();

    // One by one, once for all lengths.
    let single = p.session(full)?;
    let (mut after, mut early) = (Vec::new(), None);
    for (i, token) in tokens.iter().enumerate() {
        single.prefill(&[*token])?;
        if lengths.contains(&(i + 1)) {
            after.push(p.logits(&single)?);
        }
        if i == full / 2 {
            early = Some(rows(p, &single, i + 1));
        }
    }
    if !matches!(single.prefill(&tokens[..1]), Err(Error::ContextFull { .. })) {
        let text = format!("a context of {full} took another token");
        return Ok(Finding::of(f64::INFINITY, bound, text).blame(Subject::Cache));
    }
    let mut worst = (0.0_f64, 0, "");
    for (n, one_by_one) in lengths.iter().zip(&after) {
        let tokens = &tokens[..*n];
        let at_once = p.logits_of(tokens, &[*n])?;
        let in_chunks = p.logits_of(tokens, &pieces(*n))?;
        for (other, how) in [(&at_once, "one by one"), (&in_chunks, "in chunks")] {
            let against = if how == "one by one" { one_by_one } else { &at_once };
            let error = match same_bits(other, against) {
                true => 0.0,
                // The same numbers and other bits: zeros of two signs.
                false => nmse(other, against).max(f64::MIN_POSITIVE),
            };
            if error > worst.0 {
                worst = (error, *n, how);
            }
        }
    }
    let (error, n, how) = worst;
    if error > bound {
        let (subject, place) = first_difference(p, &tokens[..n], bound)?;
        let text = format!("{n} tokens at once and {how} part by {error:.3e}; {place}");
        return Ok(Finding::of(error, bound, text).blame(subject));
    }
    // Rows of older positions, at the middle of the run and at its end.
    let looked = match early.transpose() {
        Ok(Some(early)) => {
            let late = rows(p, &single, full / 2 + 1)?;
            let changed = early.iter().zip(&late).position(|(a, b)| !same_bits(a, b));
            if let Some(row) = changed {
                let text = format!("cache row {row} of {} changed after it was written", early.len());
                return Ok(Finding::of(f64::INFINITY, bound, text).blame(Subject::Cache));
            }
            format!("{} older rows unchanged", early.len())
        }
        Ok(None) | Err(Error::Unsupported { .. }) => "older rows could not be read on this device".to_owned(),
        Err(error) => return Err(error),
    };
    let kind = if exact { "any difference" } else { "error" };
    let text = format!(
        "{kind} of the logits, at once, in chunks, one by one, at {} lengths to {full}; {looked}",
        lengths.len()
    );
    Ok(Finding::of(error, bound, text))
}

/// Keys and values of the first `n` positions of some layers.
fn rows(p: &Patient<'_>, session: &crate::engine::Session, n: usize) -> Result<Vec<Vec<f32>>> {
    let mut rows = Vec::new();
    for layer in p.some_layers() {
        for position in 0..n {
            let (keys, values) = p.cache_row(session, layer, position)?;
            rows.extend([keys, values]);
        }
    }
    Ok(rows)
}

/// 1, 2, 3, 5, 8, ...
fn pieces(n: usize) -> Vec<usize> {
    let mut pieces = vec![1, 2];
    while pieces.iter().sum::<usize>() < n {
        pieces.push(pieces[pieces.len() - 1] + pieces[pieces.len() - 2]);
    }
    pieces
}

/// Where a prefill and single steps part first, and whose fault that is.
fn first_difference(p: &Patient<'_>, tokens: &[u32], bound: f64) -> Result<(Subject, String)> {
    let names = ["embed", "attn_norm", "q_rope", "k_rope", "v", "attn_mix"];
    let run = |pieces: &[usize]| -> Result<Vec<Row>> {
        let session = p.session(tokens.len())?;
        let seen = p.watch(&session, &names)?;
        let mut rest = tokens;
        for n in pieces {
            let (piece, behind) = rest.split_at(*n);
            session.prefill(piece)?;
            rest = behind;
        }
        let mut rows = take(&seen);
        rows.retain(|r| r.layer <= 0);
        Ok(rows)
    };
    let (at_once, single) = (run(&[tokens.len()])?, run(&vec![1; tokens.len()])?);
    for name in names {
        let of = |rows: &[Row], position: usize| {
            rows.iter().find(|r| r.name == name && r.position == position).map(|r| r.data.clone())
        };
        for position in 0..tokens.len() {
            let (Some(a), Some(b)) = (of(&at_once, position), of(&single, position)) else { continue };
            if nmse(&b, &a) > bound {
                let subject = match name {
                    "embed" | "attn_norm" => Subject::TokenFlow,
                    "q_rope" | "k_rope" => Subject::Position,
                    _ => Subject::Cache,
                };
                let why = match subject {
                    Subject::Cache => "what went into the cache was the same, what came out was not",
                    _ => "the cache has not been read before it",
                };
                return Ok((subject, format!("first at layer 0 {name}, position {position}: {why}")));
            }
        }
    }
    Ok((Subject::Cache, "not in layer 0".to_owned()))
}
