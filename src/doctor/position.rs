//! The fourth suspect: positions. Keys turn with them, order counts, and going back leaves no trace.

use super::{Finding, Patient, Subject, nmse, same_bits, take};
use crate::alloc::reserve;
use crate::error::Result;
use crate::gguf::dequantize_row;
use crate::model::{Attention, QkNorm, RopeTable, Tensor, bind};

/// Positions at which a key is compared with the one at 0; the last ones are reached step by step.
const TURNS: usize = 72;

pub(super) fn position(p: &Patient<'_>) -> Result<Finding> {
    let (error, at, layer) = turned(p)?;
    let bound = turn_bound(p, layer);
    if error > bound {
        let text = format!("the key of layer {layer} at position {at} is not the one at 0 turned by {at}: {error:.3e}");
        return Ok(Finding::of(error, bound, text).blame(Subject::Position));
    }

    // Two tokens that change places, far from the end. Without a rope it is what the layers before have seen that differs.
    let turns = p.config.layers.iter().any(|l| l.attention().rope.is_some());
    if turns || p.config.n_layers() > 1 {
        let tokens = p.tokens(24)?;
        let mut permuted = tokens.clone();
        permuted.swap(3, 4);
        let straight = p.logits_of(&tokens, &[24])?;
        if same_bits(&straight, &p.logits_of(&permuted, &[24])?) {
            let text = "the logits are the same after tokens 3 and 4 have changed places";
            return Ok(Finding::of(f64::INFINITY, bound, text).blame(Subject::Position));
        }
    }

    // Going another way, back, and on: as if it had never been.
    let n = p.config.n_ctx_train.min(100);
    let fork = n / 2;
    let tokens = p.tokens(n + n - fork)?;
    let (way, other) = tokens.split_at(n);
    let session = p.session(n)?;
    session.prefill(&way[..fork])?;
    session.prefill(other)?;
    session.truncate(fork)?;
    session.prefill(&way[fork..n - 1])?;
    session.prefill(&way[n - 1..])?;
    if !same_bits(&p.logits(&session)?, &p.logits_of(way, &[fork, n - 1 - fork, 1])?) {
        let text = format!("{n} tokens, after a truncation to {fork}, give other logits than without it");
        return Ok(Finding::of(f64::INFINITY, bound, text).blame(Subject::Cache));
    }
    let text = format!(
        "error of keys at 1 to {} in {}; order counts; truncating leaves no trace",
        TURNS.min(p.config.n_ctx_train) - 1,
        match n_comparable(p) {
            0 => format!("layer {layer} against the file's, turned"),
            n => format!("{n} layers against the first, turned"),
        }
    );
    Ok(Finding::of(error, bound, text))
}

/// What a key may be off by: of activations in f16, squared, and of angles in f32. In layer 0 nothing else has been
/// computed before; later, prompts and steps may have gone through other kernels, and a row may be what is left when
/// larger terms cancel, as in the comparison of devices.
fn turn_bound(p: &Patient<'_>, layer: usize) -> f64 {
    let first = 2.0_f64.powi(-16);
    if layer == 0 { first } else { first.max(16.0 * p.rounding()) }
}

/// The error of a key of one token at many positions against the one at 0, turned; its position and layer: the largest
/// one, or the first that is above its bound.
///
/// Where all tokens are the same so are all values, and with them the mix that attention makes of them, whatever its
/// weights: but for their turn, the keys of each layer are the same at all positions. Not behind attention with sinks, whose
/// share depends on the position's number of keys.
fn turned(p: &Patient<'_>) -> Result<(f64, usize, usize)> {
    if n_comparable(p) == 0 {
        return computed(p);
    }
    let n = TURNS.min(p.config.n_ctx_train);
    let token = p.tokens(1)?[0];
    let session = p.session(n)?;
    let seen = p.watch(&session, &["k_rope"])?;
    let at_once = n - n / 4;
    session.prefill(&vec![token; at_once])?;
    for _ in at_once..n {
        session.prefill(&[token])?;
    }
    let keys = take(&seen);
    let (_, weights) = bind(p.gguf)?;
    let mut worst = (0.0, 0, 0);
    for layer in 0..n_comparable(p) {
        let attention = p.config.layers[layer].attention();
        let rope = attention.rope.map(|rope| &p.config.ropes_of(p.config.is_long(n))[rope]);
        let behind = match (attention.qk_norm, &weights.layers[layer].k_norm) {
            (Some(QkNorm::HeadAfterRope), Some(weight)) => Some(weight.floats()?),
            _ => None,
        };
        // Another layer's keys are compared there.
        if attention.kv_from.is_some() {
            continue;
        }
        // What a weight of 0 has hidden cannot be turned.
        if behind.as_ref().is_some_and(|weight| weight.contains(&0.0)) {
            continue;
        }
        let mut keys: Vec<_> = keys.iter().filter(|r| r.layer == layer as i32).collect();
        keys.sort_by_key(|r| r.position);
        if keys.len() != n {
            return Ok((f64::INFINITY, keys.len(), layer));
        }
        for key in keys.iter().skip(1) {
            let expected = turn(attention, rope, behind.as_deref(), &keys[0].data, key.position);
            let error = nmse(&key.data, &expected);
            if error > turn_bound(p, layer) {
                return Ok((error, key.position, layer));
            }
            if error > worst.0 {
                worst = (error, key.position, layer);
            }
        }
    }
    Ok(worst)
}

/// The keys of the first head of the first layer with attention, in whose place others have a state, against what the file makes of
/// what the layer reads: the largest error, its position and the layer.
fn computed(p: &Patient<'_>) -> Result<(f64, usize, usize)> {
    let (n, tokens) = (TURNS.min(p.config.n_ctx_train), p.tokens(TURNS.min(p.config.n_ctx_train))?);
    let Some(layer) = p.some_layers().first().copied() else { return Ok((0.0, 0, 0)) };
    let (attention, (_, weights)) = (p.config.layers[layer].attention(), bind(p.gguf)?);
    let weights = &weights.layers[layer];
    let behind = match (attention.qk_norm, &weights.k_norm) {
        (None, _) => None,
        (Some(kind), Some(weight)) if kind != QkNorm::Row => Some((kind, weight.floats()?)),
        // A norm of all heads needs them all.
        _ => return Ok((0.0, 0, layer)),
    };
    let Some(keys) = &weights.k else { return Ok((0.0, 0, layer)) };
    let (rows, bias) = (first_rows(keys, attention.head_dim)?, weights.k_bias.map(|b| b.floats()).transpose()?);
    let session = p.session(n)?;
    let seen = p.watch(&session, &["attn_norm", "k_rope"])?;
    let at_once = n - n / 4;
    session.prefill(&tokens[..at_once])?;
    tokens[at_once..].iter().try_for_each(|token| session.prefill(&[*token]))?;
    let seen = take(&seen);
    let of = |name: &str, position: usize| {
        seen.iter().find(|r| r.layer == layer as i32 && r.name == name && r.position == position).map(|r| &r.data)
    };
    let one = Attention { n_heads: 1, n_kv_heads: 1, ..*attention };
    let rope = attention.rope.map(|rope| &p.config.ropes_of(p.config.is_long(n))[rope]);
    let mut worst = (0.0, 0, layer);
    for position in 0..n {
        let (Some(read), Some(key)) = (of("attn_norm", position), of("k_rope", position)) else {
            return Ok((f64::INFINITY, position, layer));
        };
        let dot = |row: &[f32]| row.iter().zip(read).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
        let product = rows.chunks_exact(read.len()).map(dot).enumerate();
        let mut head: Vec<f32> =
            product.map(|(i, x)| (x + bias.as_ref().map_or(0.0, |b| f64::from(b[i]))) as f32).collect();
        let mut weight = None;
        if let Some((kind, norm)) = &behind {
            let squares = head.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / head.len() as f64;
            let scale = 1.0 / (squares + f64::from(p.config.norm_eps)).sqrt();
            head.iter_mut().zip(norm).for_each(|(x, w)| *x = (f64::from(*x) * scale * f64::from(*w)) as f32);
            // Its weights stand behind the turn.
            weight = (*kind == QkNorm::HeadAfterRope).then_some(&**norm);
        }
        let expected = turn(&one, rope, weight, &head, position);
        let error = nmse(&key[..attention.head_dim], &expected);
        if error > worst.0 {
            worst = (error, position, layer);
        }
    }
    Ok(worst)
}

/// The first rows of a matrix.
fn first_rows(matrix: &Tensor<'_>, n: usize) -> Result<Vec<f32>> {
    let (bytes, mut rows, mut buffer) = (matrix.ty.row_bytes(matrix.cols), Vec::new(), Vec::new());
    reserve(&mut rows, n * matrix.cols)?;
    rows.resize(n * matrix.cols, 0.0);
    let data = matrix.data.piece(0..n * bytes, &mut buffer)?;
    for (from, row) in data.chunks_exact(bytes).zip(rows.chunks_exact_mut(matrix.cols)) {
        dequantize_row(matrix.ty, from, row)?;
    }
    rows.iter_mut().for_each(|x| *x *= matrix.scale);
    Ok(rows)
}

/// Layers up to the first with sinks, which has the last keys that are comparable, and up to the first with a state, which makes
/// something else of the same at each position.
fn n_comparable(p: &Patient<'_>) -> usize {
    let layers = &p.config.layers;
    let with_sinks = layers.iter().position(|l| l.attention().sinks).map_or(layers.len(), |first| first + 1);
    // What attention beside a state reads has not met one yet.
    let with_state = layers.iter().position(|l| l.recurrent.is_some());
    with_sinks.min(with_state.map_or(layers.len(), |first| first + usize::from(layers[first].attention().is_there())))
}

/// Keys of a layer at position 0, at `position`, from the formula of `model::RopeTable`, in f64; its magnitude is in them.
/// `weight` is that of a norm behind the rope: a turn leaves what the norm divides by as it is.
fn turn(a: &Attention, rope: Option<&RopeTable>, weight: Option<&[f32]>, keys: &[f32], position: usize) -> Vec<f32> {
    let mut out = keys.to_vec();
    let Some(rope) = rope else { return out };
    let n_pairs = rope.inv_freq.len();
    let weight = |i: usize| weight.map_or(1.0, |w| f64::from(w[i]));
    for head in out.chunks_exact_mut(a.head_dim).map(|head| &mut head[a.turned_at()..]) {
        for i in 0..n_pairs {
            let (a, b) = rope.pairing.pair(i, n_pairs);
            let frequency = rope.inv_freq[i] / f64::from(rope.divisor(i));
            let (sin, cos) = (position as f64 * f64::from(rope.position_scale) * frequency).sin_cos();
            let (x, y) = (f64::from(head[a]) / weight(a), f64::from(head[b]) / weight(b));
            head[a] = (weight(a) * (x * cos - y * sin)) as f32;
            head[b] = (weight(b) * (x * sin + y * cos)) as f32;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RopePairing;

    #[test]
    fn keys_are_turned_also_where_a_norm_stands_behind_the_rope() {
        let rope = RopeTable::of_base(10.0, 4, RopePairing::Adjacent).unwrap();
        let a = Attention {
            n_heads: 1,
            n_kv_heads: 1,
            head_dim: 8,
            rope: Some(0),
            qk_norm: Some(QkNorm::HeadAfterRope),
            ..Attention::NONE
        };
        let key = [0.5, -1.0, 2.0, 0.25, 3.0, 1.0, -2.0, 0.75_f32];
        let weight = [2.0, 0.5, -1.0, 3.0, 1.0, 0.0, 4.0, 1.0_f32];
        let times = |x: &[f32]| x.iter().zip(&weight).map(|(x, w)| x * w).collect::<Vec<f32>>();
        let turned = turn(&a, Some(&rope), None, &key, 3);
        assert!(turned[4..] == key[4..] && nmse(&turned, &key) > 1e-3);
        // Both elements of a pair turn by the same angle: its length stays.
        let length = |x: &[f32]| x[..2].iter().map(|x| x * x).sum::<f32>();
        assert!((length(&turned) - length(&key)).abs() < 1e-5, "{turned:?}");
        let (sin, cos) = 3.0_f32.sin_cos();
        assert!((turned[0] - (key[0] * cos - key[1] * sin)).abs() < 1e-6, "{turned:?}");
        let behind = turn(&a, Some(&rope), Some(&weight), &times(&key), 3);
        assert!(nmse(&behind, &times(&turned)) < 1e-12, "{behind:?}");
        assert_eq!(turn(&a, None, None, &key, 3), key);
    }
}
