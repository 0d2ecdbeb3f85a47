//! The device against the CPU and against the plain reference, stage by stage.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Finding, Patient, Row, Subject, nmse, place, take};
use crate::backend::reference::ReferenceDevice;
use crate::backend::{TAP_NAMES, tap_order};
use crate::engine::{Engine, LogSink};
use crate::error::{Error, Result};

/// Tokens of the prompt, and steps behind it.
const PROMPT: usize = 8;
const STEPS: usize = 2;

/// The reference holds everything in f32: not for models of which that takes more.
const MOST_BYTES: u64 = 6 << 30;

pub(super) fn devices(p: &Patient<'_>) -> Result<Finding> {
    let tokens = p.tokens(PROMPT + STEPS)?;
    let own = run(p, &tokens)?;
    let device = p.engine.device_name();
    // A single row may be what is left when larger terms cancel: a quarter of them, and so sixteen times the error.
    // Against the plain reference itself there is the f16 cache besides, which large keys make large.
    let bound = if device == "reference" { 256.0 } else { 16.0 } * p.rounding();
    let (mut worst, mut texts, mut n_compared) = (0.0_f64, Vec::new(), 0);
    for other in ["cpu", "reference"] {
        if other == device {
            continue;
        }
        // Keys and values rounded to f16 as all others keep them: what is left is arithmetic.
        let engine = match other {
            "reference" => {
                let cap = p.engine.memory_cap();
                Engine::with_device(Arc::new(ReferenceDevice::F16_CACHE), 1, cap, LogSink::silent())
            }
            _ => p.other_device(other)?,
        };
        let plan = engine.plan_file(p.path)?;
        if other == "reference" && plan.weights_bytes > MOST_BYTES {
            texts.push(format!(
                "no reference, which would take {:.1} GiB",
                plan.weights_bytes as f64 / f64::from(1 << 30)
            ));
            continue;
        }
        let model = match engine.load_file(p.path, &mut |_, _| Ok(())) {
            Err(error @ Error::OutOfMemory { .. }) => {
                texts.push(format!("no {other}: {error}"));
                continue;
            }
            loaded => loaded?,
        };
        let exact = run(&Patient { engine: &engine, model, config: p.config.clone(), ..*p }, &tokens)?;
        let (error, place) = compare(&own, &exact, bound);
        n_compared += 1;
        if !(error <= bound) {
            let text = format!("{device} and {other} part first at {place}");
            return Ok(Finding::of(error, bound, text).blame(Subject::Devices));
        }
        worst = worst.max(error);
        texts.push(format!("{device} against {other} worst at {place}"));
    }
    if n_compared == 0 {
        return Ok(Finding::skipped(texts.join("; ")));
    }
    Ok(Finding::of(worst, bound, format!("error of a stage; {}", texts.join("; "))))
}

fn run(p: &Patient<'_>, tokens: &[u32]) -> Result<Vec<Row>> {
    let session = p.session(tokens.len())?;
    let seen = p.watch(&session, &TAP_NAMES)?;
    session.prefill(&tokens[..PROMPT])?;
    for token in &tokens[PROMPT..] {
        session.prefill(&[*token])?;
    }
    let mut rows = take(&seen);
    // By position, and in it in the order of the computation, which is that of the events.
    rows.sort_by_key(|r| {
        let outer = if r.layer >= 0 { r.layer } else { i32::from(r.name != "embed") * i32::MAX };
        (outer, tap_order(r.name), r.position)
    });
    Ok(rows)
}

/// The largest error and its place; of errors above the bound the first. Each stage that the first device shows must be
/// shown by the other: a comparison that finds nothing to compare does not hold.
fn compare(own: &[Row], exact: &[Row], bound: f64) -> (f64, String) {
    let exact: HashMap<_, _> = exact.iter().map(|r| ((r.name, r.layer, r.position), r)).collect();
    let mut worst = (0.0, "nowhere".to_owned());
    let (mut shown, mut compared) = (HashSet::new(), HashSet::new());
    for row in own {
        shown.insert((row.name, row.layer));
        // A device may show more positions of the last stages than another.
        let Some(other) = exact.get(&(row.name, row.layer, row.position)) else { continue };
        compared.insert((row.name, row.layer));
        let error = nmse(&row.data, &other.data);
        if error > worst.0 {
            worst = (error, format!("{}, position {}", row.place(), row.position));
        }
        if !(error <= bound) {
            return worst;
        }
    }
    match shown.difference(&compared).next() {
        _ if shown.is_empty() => (f64::INFINITY, "the first stage: none is shown".to_owned()),
        Some((name, layer)) => (f64::INFINITY, format!("{}, which only one of them shows", place(name, *layer))),
        None => worst,
    }
}
