//! A loaded model: what lies on the device, and the lock in front of what one pass at a time has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::exec::{Exec, Network, first_context};
use super::internal;
use crate::backend::cuda::driver::{Buffer, Gpu, Stream};
use crate::backend::cuda::missing;
use crate::backend::cuda::plan::experts::MOST_SLOTS;
use crate::backend::cuda::plan::geometry::Tuning;
use crate::backend::cuda::plan::limits::{MOST_ROWS, MOST_SEQUENCES};
use crate::backend::cuda::plan::{layer, prefill_workspace, workspace};
use crate::backend::cuda::weights::layout::lay;
use crate::backend::cuda::weights::load;
use crate::backend::{LoadControl, Plan};
use crate::error::{Error, Result};
use crate::gguf::TensorType;
use crate::model::{CacheClasses, Config, Layer, Recurrent, Weights};

/// What the driver rounds large allocations up to.
const GRAIN: u64 = 2 << 20;

/// What a load and one session take, as the driver counts.
pub fn plan(config: &Config, weights: &Weights<'_>) -> Plan {
    let laid = lay(0, config, weights);
    let classes = CacheClasses::new(config).unwrap_or_default();
    let rows = MOST_ROWS.min(first_context(config));
    let [fixed, part] = workspace::planned_bytes(config, first_context(config));
    let prefill = prefill_workspace::planned_bytes(config, &layer::body(config, &classes, &laid.weights), rows);
    Plan {
        weights_bytes: laid.bytes.next_multiple_of(GRAIN),
        kv_bytes_per_token: config.kv_bytes_per_token() as u64,
        // And a slot's logits and table, the captured steps, and what rounding takes.
        scratch_bytes: fixed + part + prefill + 2 * GRAIN,
        state_bytes: 4 * config.state_len() as u64,
    }
}

/// A loaded model.
pub struct CudaModel {
    /// Held while waiting for `exec`, so that a thread that takes it again and again does not pass by the others.
    turn: Mutex<()>,
    exec: Mutex<Exec>,
    _memory: Buffer,
    weights_bytes: u64,
    /// What does not change.
    pub(crate) net: Network,
}

/// What the kernels need beyond the description's own invariants.
fn check(gpu: &Gpu, config: &Config, weights: &Weights<'_>) -> Result<()> {
    let most = config.widths();
    let widest = config.n_embd.max(most.ffn).max(most.q).max(most.mix_out).max(most.expert);
    if MOST_SEQUENCES * most.n_used > MOST_SLOTS {
        let (name, expected) = ("number of experts used (expert_used_count)", MOST_SLOTS / MOST_SEQUENCES);
        let expected = format!("at most {expected} on a GPU");
        return Err(Error::UnsupportedValue { name: name.into(), found: most.n_used.to_string(), expected });
    }
    // A stage holds its input in shared memory, as f32 and, behind a norm, in pieces as well.
    let eighths = gpu.shared_most.saturating_sub(4096) * 8 + 7;
    for (name, length, most) in [
        ("longest row of a matrix", widest, (eighths / 33).min(40_000)),
        ("embedding length (embedding_length)", config.n_embd, eighths / 65),
    ] {
        if length > most {
            let expected = format!("at most {most} on this device");
            return Err(Error::UnsupportedValue { name: name.into(), found: length.to_string(), expected });
        }
    }
    if weights.layers.len() != config.layers.len() {
        return internal("as many layers as descriptions of them are needed");
    }
    // What stands behind a vector up to whole blocks is zero, which a wider layer's, or another part's, would not leave it.
    let by_layer = config.per_layer.map_or(0, |per_layer| per_layer.width);
    let mixed = |l: &Layer| [l.attention().q_width(), l.recurrent.as_ref().map_or(0, Recurrent::out_width)];
    let gated = |l: &Layer| [l.common_ffn().map_or(0, |ffn| ffn.width), by_layer];
    for (name, of) in [
        ("elements that a layer's last matrix of a mixer reads", &mixed as &dyn Fn(&Layer) -> [usize; 2]),
        ("feed-forward length (feed_forward_length)", &gated),
    ] {
        let widths = || config.layers.iter().flat_map(of).filter(|n| *n > 0);
        let first = widths().next().unwrap_or(0);
        if let Some(other) = widths().find(|n| *n != first).filter(|_| widths().any(|n| n % 32 != 0)) {
            let expected = "the same in all layers, or multiples of 32".into();
            return Err(Error::UnsupportedValue { name: name.into(), found: format!("{first} and {other}"), expected });
        }
    }
    Ok(())
}

/// That only matrices whose kernels multiply by a scale have one.
fn check_scales(weights: &Weights<'_>) -> Result<()> {
    let scaled = weights.iter().filter(|t| t.scale != 1.0);
    let experts = weights.layers.iter().filter_map(|layer| layer.ffn.experts()).flat_map(|experts| {
        let each = &experts.each;
        // What comes last is multiplied with the weights of its experts.
        let matrices = [each.gate, Some(each.up)].into_iter().zip(experts.scales());
        matrices.filter_map(|(matrix, scale)| scale.and(matrix))
    });
    match scaled.chain(experts).find(|t| t.ty != TensorType::Nvfp4) {
        None => Ok(()),
        Some(t) => Err(Error::UnsupportedValue {
            name: format!("tensor \"{}\" type", t.name),
            found: format!("{}, with a scale beside it", t.ty.name()),
            expected: "NVFP4, or no scale, on a GPU".into(),
        }),
    }
}

impl CudaModel {
    /// Loads; nothing borrowed is kept. `strict`: prompts go token by token, the way that steps go: the tensor cores would
    /// round otherwise.
    pub fn load(
        gpu: &Arc<Gpu>,
        config: &Config,
        weights: &Weights<'_>,
        strict: bool,
        control: &mut dyn LoadControl,
    ) -> Result<CudaModel> {
        missing::check(config)?;
        check(gpu, config, weights)?;
        check_scales(weights)?;
        gpu.bind()?;
        let stream = Stream::new(gpu)?;
        let bytes = lay(0, config, weights).bytes;
        let memory = Buffer::zeroed(gpu, bytes as usize, &stream)?;
        stream.wait()?;
        let laid = lay(memory.at(), config, weights);
        load::load(gpu, &laid.jobs, control)?;
        let net = Network::new(gpu, config, CacheClasses::new(config)?, &laid.weights)?;
        let exec = Exec::new(&net, Tuning { prefill: !strict, ..Tuning::default() }, stream)?;
        Ok(CudaModel { turn: Mutex::default(), exec: Mutex::new(exec), _memory: memory, weights_bytes: bytes, net })
    }

    /// What one pass at a time has.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Exec> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.exec.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it takes now.
    pub(crate) fn taken(&self) -> Plan {
        let exec = self.lock();
        let batch = exec.batch.as_ref().map_or(0, |b| b.work.bytes);
        let masked = exec.masked.as_ref().map_or(0, |m| m.bytes() as u64);
        Plan {
            weights_bytes: self.weights_bytes.next_multiple_of(GRAIN),
            kv_bytes_per_token: self.net.config.kv_bytes_per_token() as u64,
            scratch_bytes: exec.work.bytes + batch + masked + exec.prefill.as_ref().map_or(0, |p| p.bytes()),
            state_bytes: self.net.states.bytes as u64,
        }
    }
}
