//! The first two suspects: the buffer that the logits come into, and the token on its way from the draw to the embedding.

use super::{Finding, Patient, Subject, argmax, nmse, same_bits, take};
use crate::engine::{GenerateOptions, Session, SessionOptions};
use crate::error::Result;
use crate::model::bind;
use crate::sampler::SamplingParams;

/// Steps that the token is followed for.
const STEPS: usize = 64;

/// The buffer is filled with NaN, and with a large number, before each step: every element must be written, and none
/// depend on what was there.
pub(super) fn logits_buffer(p: &Patient<'_>) -> Result<Finding> {
    let tokens = p.tokens(16)?;
    let (plain, poisoned, large) = (p.session(32)?, p.session(32)?, p.session(32)?);
    let mut kept = 0_usize;
    let mut text = String::new();
    for (step, piece) in std::iter::once(&tokens[..8]).chain(tokens[8..].chunks(1)).enumerate() {
        // No pass has been: the first buffer is as the device makes it.
        poisoned.fill_logits(f32::NAN)?;
        large.fill_logits(1e30)?;
        for session in [&plain, &poisoned, &large] {
            session.prefill(piece)?;
        }
        let (logits, poisoned) = (p.logits(&plain)?, p.logits(&poisoned)?);
        let nan = poisoned.iter().filter(|l| !l.is_finite()).count();
        let same = same_bits(&logits, &poisoned) && same_bits(&logits, &p.logits(&large)?);
        if (nan > 0 || !same) && text.is_empty() {
            let pass = if step == 0 { "the prefill".to_owned() } else { format!("step {step}") };
            let found = if nan > 0 {
                format!("{nan} of {} logits were not written", logits.len())
            } else {
                "the logits depend on what the buffer held".to_owned()
            };
            text = format!("after {pass} {found}: a stale row");
        }
        kept += nan.max(usize::from(!same));
    }
    if text.is_empty() {
        text = format!("elements left over or depending on it, of {} x {}", 9, p.config.n_vocab);
    }
    Ok(Finding::of(kept as f64, 0.0, text))
}

/// What is sampled must be what the next step embeds, as the file has it.
pub(super) fn token_flow(p: &Patient<'_>) -> Result<Finding> {
    let prompt = p.tokens(5)?;
    let n_ctx = (prompt.len() + STEPS).min(p.config.n_ctx_train);
    let n_steps = n_ctx.saturating_sub(prompt.len());
    if n_steps == 0 {
        return Ok(Finding::skipped(format!("a context of {n_ctx} leaves no room for a step")));
    }
    let (_, weights) = bind(p.gguf)?;
    let embedding = weights.token_embd;
    let scale = p.config.embedding_scale;
    // The row as the file has it; a device may keep it in f16.
    let bound = 2.0_f64.powi(-18);
    let mut worst = 0.0_f64;
    for temperature in [0.0, 0.8] {
        let sampling = SamplingParams { temperature, seed: p.seed, ..SamplingParams::default() };
        let new = || {
            Session::new(
                &p.model,
                SessionOptions { n_ctx: Some(n_ctx), sampling: sampling.clone(), ..SessionOptions::default() },
            )
        };
        let session = new()?;
        let seen = p.watch(&session, &["embed"])?;
        session.prefill(&prompt)?;
        take(&seen);
        let mut chosen = Vec::new();
        for step in 1..=n_steps {
            let token = session.sample()?;
            if temperature == 0.0 && token != argmax(&p.logits(&session)?) {
                let text = format!("step {step}: the greedy choice {token} is not the largest logit");
                return Ok(Finding::of(f64::INFINITY, bound, text).blame(Subject::Sampling));
            }
            chosen.push(token);
            session.prefill(&[token])?;
            let rows = take(&seen);
            let [row] = rows.as_slice() else {
                return Ok(Finding::of(f64::INFINITY, bound, format!("step {step} showed {} rows", rows.len())));
            };
            let error = nmse(&row.data, &scaled(p.file_row(&embedding, token as usize)?, scale));
            worst = worst.max(error);
            if error > bound {
                let mut nearest = (f64::INFINITY, 0);
                for id in 0..p.config.n_vocab {
                    let error = nmse(&row.data, &scaled(p.file_row(&embedding, id)?, scale));
                    if error < nearest.0 {
                        nearest = (error, id);
                    }
                }
                let text = format!(
                    "step {step} at temperature {temperature}: token {token} was sampled, and the row of {} was read",
                    nearest.1
                );
                return Ok(Finding::of(error, bound, text).blame(Subject::TokenFlow));
            }
        }
        // The same in one call, which may run ahead on the device.
        let whole = new()?;
        whole.prefill(&prompt)?;
        let options = GenerateOptions { max_tokens: Some(n_steps), ignore_end: true, ..GenerateOptions::default() };
        whole.generate(&options, &mut |_, _| true)?;
        let generated = whole.with_tokens(|tokens| Ok(tokens[prompt.len()..].to_vec()))?;
        if let Some(step) = (0..n_steps).find(|step| generated.get(*step) != chosen.get(*step)) {
            let text = format!(
                "generating chose {:?} at step {}, sampling and stepping {:?}",
                generated.get(step),
                step + 1,
                chosen.get(step)
            );
            return Ok(Finding::of(f64::INFINITY, bound, text).blame(Subject::TokenFlow));
        }
    }
    let text = format!("error of the embedded row against the sampled token's, {n_steps} steps at 0 and 0.8");
    Ok(Finding::of(worst, bound, text))
}

fn scaled(mut row: Vec<f32>, scale: f32) -> Vec<f32> {
    row.iter_mut().for_each(|x| *x *= scale);
    row
}
