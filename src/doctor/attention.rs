//! Attention by what it does: its weights sum to one, and nothing behind the current position is read.

use super::{Finding, Patient, Subject, same_bits, take};
use crate::backend::PAGE_TOKENS;
use crate::error::{Error, Result};
use crate::model::Attention;

/// Tokens in the cache before the one that is looked at.
const HELD: usize = 20;

pub(super) fn attention(p: &Patient<'_>) -> Result<Finding> {
    let held = HELD.min(p.config.n_ctx_train.saturating_sub(6));
    if held < 2 {
        return Ok(Finding::skipped(format!("a context of {} is too short", p.config.n_ctx_train)));
    }
    // Weights may be rounded to f16 before they meet the values, and the values are f16.
    let bound = 2.0_f64.powi(-9);
    let mut worst = (0.0_f64, 0);
    // A sink has a share that no value shows; values that are another layer's change its queries too, and latents are keys as well.
    let shows = |a: &Attention| !a.sinks && a.kv_from.is_none() && a.latent.is_none();
    for layer in p.some_layers().into_iter().filter(|&i| shows(p.config.layers[i].attention())) {
        let error = sum_of_weights(p, held, layer)?;
        if !(error <= worst.0) {
            worst = (error, layer);
        }
    }
    if !(worst.0 <= bound) {
        let text = format!("weights of layer {} sum to 1 only within {:.3e}", worst.1, worst.0);
        return Ok(Finding::of(worst.0, bound, text).blame(Subject::Attention));
    }
    for n_tokens in [1, 5] {
        if let Some(text) = reads_ahead(p, held, n_tokens)? {
            return Ok(Finding::of(f64::INFINITY, bound, text).blame(Subject::Attention));
        }
    }
    let hidden = p.config.layers.iter().any(|l| !shows(l.attention()));
    let hidden = if hidden { ", but where sinks, latents or another layer's values hide them" } else { "" };
    let layers = p.some_layers();
    let text = format!("distance of the weights' sums from 1 in layers {layers:?}{hidden}; poisoned rows are not read");
    Ok(Finding::of(worst.0, bound, text))
}

/// How far from 1 the weights of a step sum up to, the worst head: with all earlier values 0 the mix is the current
/// position's share, with all of them 1 it is the others' share more.
fn sum_of_weights(p: &Patient<'_>, held: usize, layer: usize) -> Result<f64> {
    let c = *p.config.layers[layer].attention();
    let tokens = p.tokens(held + 1)?;
    let (mut mixes, mut own) = (Vec::new(), Vec::new());
    for value in [0.0, 1.0] {
        // Each by itself: a session that goes back computes a state again, with what the cache holds then.
        let session = p.session(held + 1)?;
        session.prefill(&tokens[..held])?;
        let seen = p.watch(&session, &["attn_mix"])?;
        for position in 0..held {
            let (keys, _) = session.read_cache(layer, position)?;
            session.write_cache(layer, position, &keys, &vec![value; c.kv_width()])?;
        }
        session.prefill(&tokens[held..])?;
        let rows = take(&seen).into_iter().find(|r| r.layer == layer as i32);
        let row = rows.ok_or_else(|| Error::Internal { message: "attn_mix was not shown".into() })?;
        mixes.push(row.data);
        own = session.read_cache(layer, held)?.1;
    }
    let mut worst = 0.0_f64;
    for (head, (zeros, ones)) in mixes[0].chunks_exact(c.head_dim).zip(mixes[1].chunks_exact(c.head_dim)).enumerate() {
        let own = &own[head / (c.n_heads / c.n_kv_heads) * c.head_dim..][..c.head_dim];
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let share = dot(zeros, own) / dot(own, own).max(f64::MIN_POSITIVE);
        for (zero, one) in zeros.iter().zip(ones) {
            let error = (f64::from(*one) - f64::from(*zero) + share - 1.0).abs();
            // A NaN is the worst.
            worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
        }
    }
    Ok(worst)
}

/// Fills the rows behind the current position with NaN and goes on by `n_tokens`; what is wrong then.
fn reads_ahead(p: &Patient<'_>, held: usize, n_tokens: usize) -> Result<Option<String>> {
    let tokens = p.tokens(held + n_tokens)?;
    let session = p.session(held + n_tokens)?;
    session.prefill(&tokens[..held])?;
    let fill = |value: f32, from: usize| -> Result<()> {
        for layer in 0..p.config.n_layers() {
            let attention = p.config.layers[layer].attention();
            let row = vec![value; attention.kv_width()];
            for position in from..PAGE_TOKENS {
                session.write_cache(layer, position, &row, &row[..attention.v_width()])?;
            }
        }
        Ok(())
    };
    fill(f32::NAN, held)?;
    session.prefill(&tokens[held..])?;
    let logits = p.logits(&session)?;
    fill(0.0, held + n_tokens)?; // the page goes to others
    let clean = p.logits_of(&tokens, &[held, n_tokens])?;
    Ok((!same_bits(&logits, &clean)).then(|| {
        let nan = logits.iter().filter(|l| l.is_nan()).count();
        format!("a pass of {n_tokens} at position {held} reads rows behind it: {nan} logits are NaN")
    }))
}
