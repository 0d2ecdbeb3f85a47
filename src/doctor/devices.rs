//! The device against the CPU and against the plain reference, stage by stage.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Finding, Patient, Row, Subject, nmse, place, take};
use crate::backend::reference::ReferenceDevice;
use crate::backend::{TAP_NAMES, tap_order};
use crate::engine::{Engine, LogSink};
use crate::error::{Error, Result};
use crate::model::{Layer, RouteRoom, Tensor, bind};

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
        let tie = |layer: usize, ids: &[f32], logits: &[f32]| is_tie(p, layer, ids, logits, bound);
        let Compared { error, place, n_parted } = compare(&own, &exact, bound, &tie)?;
        n_compared += 1;
        if !(error <= bound) {
            let text = format!("{device} and {other} part first at {place}");
            return Ok(Finding::of(error, bound, text).blame(Subject::Devices));
        }
        worst = worst.max(error);
        let parted = match n_parted {
            0 => String::new(),
            n => format!(", but for what is behind {n} choices between experts that tie"),
        };
        texts.push(format!("{device} against {other} worst at {place}{parted}"));
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
    rows.sort_by_key(|r| (outer(r), tap_order(r.name), r.position));
    Ok(rows)
}

/// Whether other experts may be chosen by these logits within what rounding can do to them: it is enough that those of `ids`
/// are a little larger, and all others a little smaller.
fn is_tie(p: &Patient<'_>, layer: usize, ids: &[f32], logits: &[f32], bound: f64) -> Result<bool> {
    let (_, weights) = bind(p.gguf)?;
    let of_layer = p.config.layers.get(layer).and_then(Layer::experts).zip(weights.layers.get(layer));
    let Some((experts, w)) = of_layer else { return Ok(false) };
    let select_bias = w.ffn.experts().and_then(|w| w.select_bias.as_ref()).map(Tensor::floats).transpose()?;
    let off = (bound * logits.iter().map(|l| f64::from(*l).powi(2)).sum::<f64>()).sqrt() as f32;
    let mut logits = logits.to_vec();
    for (id, logit) in logits.iter_mut().enumerate() {
        *logit += if ids.contains(&(id as f32)) { off } else { -off };
    }
    let (mut scores, mut keys) = (vec![0.0; experts.n], vec![0; experts.n]);
    let (mut chosen, mut weights) = (vec![0; experts.n_used], vec![0.0; experts.n_used]);
    let room = RouteRoom { scores: &mut scores, keys: &mut keys };
    experts.route(&logits, select_bias.as_deref(), room, &mut chosen, &mut weights);
    Ok(chosen.iter().map(|id| *id as f32).eq(ids.iter().copied()))
}

/// What a comparison has found.
struct Compared {
    /// The largest; of those above the bound the first.
    error: f64,
    place: String,
    /// Choices of experts that differ where two tie, behind which nothing can be compared.
    n_parted: usize,
}

/// Where a layer stands among all.
fn outer(row: &Row) -> i32 {
    if row.layer >= 0 { row.layer } else { i32::from(row.name != "embed") * i32::MAX }
}

/// Whether a row depends on what another has decided: on its layer's later stages of the same position, or through the cache.
fn is_behind(row: &Row, at: &Row) -> bool {
    match outer(row).cmp(&outer(at)) {
        Ordering::Less => false,
        Ordering::Equal => row.position == at.position && tap_order(row.name) >= tap_order(at.name),
        Ordering::Greater => row.position >= at.position,
    }
}

/// Whether two devices may choose other experts in a layer: by the ids that one has chosen and the other's logits.
type IsTie<'a> = &'a dyn Fn(usize, &[f32], &[f32]) -> Result<bool>;

/// The largest error and its place. Each stage that the first device shows must be shown by the other: a comparison that finds
/// nothing to compare does not hold. Where they choose other experts, `is_tie` says of the other's logits whether they may.
fn compare(own: &[Row], exact: &[Row], bound: f64, is_tie: IsTie<'_>) -> Result<Compared> {
    let exact: HashMap<_, _> = exact.iter().map(|r| ((r.name, r.layer, r.position), r)).collect();
    let mut worst = (0.0, "nowhere".to_owned());
    let (mut shown, mut compared, mut parted) = (HashSet::new(), HashSet::new(), Vec::<&Row>::new());
    for row in own {
        shown.insert((row.name, row.layer));
        // A device may show more positions of the last stages than another.
        let Some(other) = exact.get(&(row.name, row.layer, row.position)) else { continue };
        compared.insert((row.name, row.layer));
        if parted.iter().any(|at| is_behind(row, at)) {
            continue;
        }
        let at = || format!("{}, position {}", row.place(), row.position);
        if row.name == "moe_ids" {
            let logits = exact.get(&("moe_logits", row.layer, row.position));
            if row.data == other.data {
                continue;
            }
            if let Some(logits) = logits
                && is_tie(row.layer as usize, &row.data, &logits.data)?
            {
                parted.push(row);
                continue;
            }
            return Ok(Compared { error: f64::INFINITY, place: at(), n_parted: parted.len() });
        }
        let error = nmse(&row.data, &other.data);
        if error > worst.0 {
            worst = (error, at());
        }
        if !(error <= bound) {
            return Ok(Compared { error, place: at(), n_parted: parted.len() });
        }
    }
    let (error, place) = match shown.difference(&compared).next() {
        _ if shown.is_empty() => (f64::INFINITY, "the first stage: none is shown".to_owned()),
        Some((name, layer)) => (f64::INFINITY, format!("{}, which only one of them shows", place(name, *layer))),
        None => worst,
    };
    Ok(Compared { error, place, n_parted: parted.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, layer: i32, position: usize, data: &[f32]) -> Row {
        Row { name, layer, position, data: data.to_vec() }
    }

    /// Two layers of two positions, of which the first layer of the second chooses these and all behind has this number.
    fn rows(ids: &[f32], behind: f32) -> Vec<Row> {
        let logits = [1.0, 3.0, 2.0, 2.0];
        vec![
            row("moe_logits", 0, 0, &logits),
            row("moe_logits", 0, 1, &logits),
            row("moe_ids", 0, 0, &[1.0, 2.0]),
            row("moe_ids", 0, 1, ids),
            row("moe_weights", 0, 0, &[0.5, 0.5]),
            row("moe_weights", 0, 1, &[0.5, behind]),
            row("resid", 0, 0, &[1.0]),
            row("resid", 0, 1, &[behind]),
            row("v", 1, 0, &[1.0]),
            row("v", 1, 1, &[behind]),
            row("logits", -1, 1, &[behind]),
        ]
    }

    #[test]
    fn devices_may_part_where_two_experts_tie_and_nowhere_else() {
        let (own, exact) = (rows(&[1.0, 3.0], 7.0), rows(&[1.0, 2.0], 1.0));
        let tied = compare(&own, &exact, 1e-6, &|layer, ids, logits| {
            assert_eq!((layer, ids, logits[2] == logits[3]), (0, [1.0, 3.0].as_slice(), true));
            Ok(true)
        });
        let tied = tied.expect("compares");
        assert_eq!((tied.error, tied.n_parted), (0.0, 1));
        let other = compare(&own, &exact, 1e-6, &|_, _, _| Ok(false)).expect("compares");
        assert_eq!((other.error, other.n_parted), (f64::INFINITY, 0));
        assert!(other.place.contains("moe_ids") && other.place.contains("position 1"), "{}", other.place);
        // What is not behind the choice is compared all the same.
        let mut own = rows(&[1.0, 3.0], 7.0);
        own[8].data[0] = 2.0;
        let found = compare(&own, &exact, 1e-6, &|_, _, _| Ok(true)).expect("compares");
        assert!(found.error > 1e-6 && found.place.contains("position 0"), "{}", found.place);
    }
}
