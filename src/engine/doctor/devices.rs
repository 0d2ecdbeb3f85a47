//! The device against the CPU and against the plain reference, stage by stage.

use std::sync::Arc;

use super::{Finding, Patient, Row, Subject, nmse, take};
use crate::backend::TAP_NAMES;
use crate::backend::reference::F16CacheReferenceDevice;
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
                Engine::with_device(Arc::new(F16CacheReferenceDevice), 1, cap, LogSink::silent())
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
        (outer, TAP_NAMES.iter().position(|n| *n == r.name), r.position)
    });
    Ok(rows)
}

/// The largest error and its place; of errors above the bound the first.
fn compare(own: &[Row], exact: &[Row], bound: f64) -> (f64, String) {
    let mut worst = (0.0, "nowhere".to_owned());
    let mut others = exact.iter().peekable();
    let mut n = 0;
    for row in own {
        let at = |r: &&Row| r.name == row.name && r.layer == row.layer && r.position == row.position;
        // A device may show more of the stages at the end than another.
        while others
            .peek()
            .is_some_and(|r| !at(r) && (r.layer, r.name) == (row.layer, row.name) && r.position < row.position)
        {
            others.next();
        }
        let Some(other) = others.next_if(|r| at(r)) else { continue };
        n += 1;
        let error = nmse(&row.data, &other.data);
        if error > worst.0 {
            worst = (error, format!("{}, position {}", row.place(), row.position));
        }
        if !(error <= bound) {
            break;
        }
    }
    if n == 0 { (f64::INFINITY, "no stage in common".to_owned()) } else { worst }
}
