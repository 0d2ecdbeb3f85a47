//! The third suspect: the KV cache. However a prompt is cut into calls, the logits are the same; what has been written
//! stays.

use super::{Finding, Patient, Row, Subject, nmse, same_bits, take};
use crate::backend::PAGE_TOKENS;
use crate::engine::LoadOptions;
use crate::error::{Error, Result};

/// The context of a session that is filled to its very last position: a page's first row, one position more than the
/// CPU's longest pass and than a window of 512. A model of a shorter context has all of it filled.
pub(super) const FULL: usize = 8 * PAGE_TOKENS + 1;

pub(super) fn cache(p: &Patient<'_>) -> Result<Finding> {
    if p.model.is_exact_in_chunks() {
        return ways(p, 0.0, "any difference");
    }
    let finding = ways(p, p.rounding(), "error")?;
    if finding.blames.is_some() {
        return Ok(finding);
    }
    // The same bits where they are promised: another model of the file, in strict mode.
    let strict = LoadOptions { strict: true, ..LoadOptions::default() };
    let found = match p.engine.load_file_with(p.path, strict, &mut |_, _| Ok(())) {
        Ok(model) => {
            let found = ways(&Patient { model, config: p.config.clone(), ..*p }, 0.0, "any difference")?;
            if found.blames.is_some() {
                return Ok(Finding { text: format!("in strict mode {}", found.text), ..found });
            }
            "in strict mode the same bits".to_owned()
        }
        Err(error @ (Error::Unsupported { .. } | Error::OutOfMemory { .. })) => format!("not in strict mode: {error}"),
        Err(error) => return Err(error),
    };
    Ok(Finding { text: format!("{}; {found}", finding.text), ..finding })
}

/// The ways to give a session its tokens, against one another.
fn ways(p: &Patient<'_>, bound: f64, kind: &str) -> Result<Finding> {
    let full = FULL.min(p.config.n_ctx_train);
    let tokens = p.tokens(full)?;
    let mut lengths = vec![1, 2, 3, 31, 32, 33, PAGE_TOKENS - 1, PAGE_TOKENS, PAGE_TOKENS + 1];
    lengths.retain(|n| *n < full);
    lengths.push(full);

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
        let text = format!("a context of {full} positions took another token");
        return Ok(Finding::of(f64::INFINITY, bound, text).blame(Subject::Cache));
    }
    let mut worst = (0.0_f64, 0, "");
    for (n, one_by_one) in lengths.iter().zip(&after) {
        let tokens = &tokens[..*n];
        let at_once = p.logits_of(tokens, &[*n])?;
        let in_chunks = p.logits_of(tokens, &pieces(*n))?;
        for (other, how) in [(one_by_one, "one by one"), (&in_chunks, "in chunks")] {
            let error = match same_bits(other, &at_once) {
                true => 0.0,
                // The same numbers and other bits: zeros of two signs.
                false => nmse(other, &at_once).max(f64::MIN_POSITIVE),
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
    let both = early
        .transpose()
        .and_then(|early| early.map(|early| rows(p, &single, full / 2 + 1).map(|late| (early, late))).transpose());
    let looked = match both {
        Ok(Some((early, late))) => {
            let changed = early.iter().zip(&late).position(|(a, b)| !same_bits(a, b));
            if let Some(row) = changed {
                let text = format!("cache row {row} of {} changed after it was written", early.len());
                return Ok(Finding::of(f64::INFINITY, bound, text).blame(Subject::Cache));
            }
            format!("{} older rows unchanged", early.len())
        }
        Ok(None) | Err(Error::Unsupported { .. }) => "older rows could not be read on this device".to_owned(),
        Err(Error::State { .. }) => "older rows have been given back under the memory cap".to_owned(),
        Err(error) => return Err(error),
    };
    let text = format!(
        "{kind} of the logits, at once, in chunks, one by one, at {} lengths to a full context of {full} positions; \
         {looked}",
        lengths.len()
    );
    Ok(Finding::of(error, bound, text))
}

/// Keys and values of the first `n` positions of some layers.
fn rows(p: &Patient<'_>, session: &crate::engine::Session, n: usize) -> Result<Vec<Vec<f32>>> {
    let mut rows = Vec::new();
    for layer in p.some_layers() {
        for position in 0..n {
            let (keys, values) = session.read_cache(layer, position)?;
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

/// Where a prefill and single steps part first, in front of the layers and in the first with attention, and whose fault that is.
fn first_difference(p: &Patient<'_>, tokens: &[u32], bound: f64) -> Result<(Subject, String)> {
    let layer = p.some_layers().first().copied().unwrap_or(0);
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
        rows.retain(|r| r.layer < 0 || r.layer == layer as i32);
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
                    // Else the layers in front have a state, which is a cache too.
                    "embed" => Subject::TokenFlow,
                    "attn_norm" if layer == 0 => Subject::TokenFlow,
                    "q_rope" | "k_rope" => Subject::Position,
                    _ => Subject::Cache,
                };
                let why = match subject {
                    Subject::Cache if name == "attn_norm" => "the states of the layers before are not the same",
                    Subject::Cache => "what went into the cache was the same, what came out was not",
                    _ => "the cache has not been read before it",
                };
                return Ok((subject, format!("first at layer {layer} {name}, position {position}: {why}")));
            }
        }
    }
    Ok((Subject::Cache, format!("not in layer {layer}")))
}
