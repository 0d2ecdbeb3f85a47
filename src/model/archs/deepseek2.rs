//! DeepSeek 2 and 3, and GLM-4.7-Flash: attention over latents, experts behind leading layers without, and one or more experts that
//! all positions share.
//!
//! Files of today have the matrices of keys and values apart, and lengths of keys and values as latents have them; older ones have
//! both in one matrix, and the lengths of heads.

use super::experts::Usual;
use super::keys::MAX_SIZE;
use super::{Architecture, Config, Extras, Ffn, Keys, Latent, Norm, RopePairing, Score, unsupported, wrong};
use crate::error::Result;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "deepseek2",
    models: "DeepSeek V2-Lite, V3 and R1, GLM-4.7-Flash, Kimi K2",
    norm: Norm::Rms,
    reads: &["attention.value_length", "expert_count", "nextn_predict_layers"],
    fill,
};

/// GLM-4.7-Flash, of whose files the first did not say that it scores by sigmoids.
const GLM_FLASH: ([usize; 2], usize) = ([47, 48], 154_880);
/// What converters multiply the logarithm's multiplier by.
const MULTIPLIER: f32 = 0.1;

fn fill(keys: &Keys<'_>, config: &mut Config, extras: &mut Extras) -> Result<()> {
    config.ropes[0].pairing = RopePairing::Adjacent;
    attention(keys, config)?;
    if keys.gguf.meta(&keys.key("expert_count")).is_some() {
        let (layers, n_vocab) = GLM_FLASH;
        let is_flash = layers.contains(&config.n_layers()) && config.n_vocab == n_vocab;
        let score = if is_flash { Score::Sigmoid } else { Score::Softmax };
        keys.experts(config, Usual { score, renorm: false, ..Usual::SOFTMAX })?;
        let mut grouped = config.layers.iter().filter_map(|layer| match &layer.ffn {
            Ffn::Experts(experts) if experts.route.score == Score::Softmax => experts.route.groups,
            _ => None,
        });
        // DeepSeek V2 takes groups by their best expert alone.
        if let Some(groups) = grouped.next() {
            let key = keys.key("expert_group_count");
            return Err(unsupported(
                &key,
                groups.n,
                "1 where scores are a softmax, whose groups are taken by one expert",
            ));
        }
    }
    keys.leave_out_drafts(config, extras)
}

/// Every layer's attention over latents.
fn attention(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    let rank = keys.size("attention.kv_lora_rank", MAX_SIZE)?;
    let n_rot = config.ropes[0].n_rot();
    let [key, value] = ["attention.key_length", "attention.value_length"];
    let split = keys.opt_size("attention.key_length_mla", MAX_SIZE)?;
    let (q_dim, v_dim) = match split {
        Some(q_dim) => {
            for (suffix, expected) in [(key, rank + n_rot), (value, rank)] {
                if let Some(other) = keys.opt_size(suffix, MAX_SIZE)?.filter(|&length| length != expected) {
                    return Err(wrong(&keys.key(suffix), other, format!("{expected}, as latents of {rank} have it")));
                }
            }
            (q_dim, keys.size("attention.value_length_mla", MAX_SIZE)?)
        }
        None => (keys.size(key, MAX_SIZE)?, keys.size(value, MAX_SIZE)?),
    };
    let Some(nope) = q_dim.checked_sub(n_rot).filter(|&nope| nope > 0) else {
        let name = keys.key(if split.is_some() { "attention.key_length_mla" } else { key });
        return Err(wrong(&name, q_dim, format!("above {n_rot}, those that are turned")));
    };
    let two = keys.gguf.tensor("blk.0.attn_q_a.weight").is_some();
    let q_rank = if two { Some(keys.size("attention.q_lora_rank", MAX_SIZE)?) } else { None };
    let scale = magnitude(keys, config)?.powi(2) / (q_dim as f32).sqrt();
    for layer in &mut config.layers {
        let a = layer.attention_mut();
        (a.n_kv_heads, a.head_dim, a.scale) = (1, rank + n_rot, scale);
        a.latent = Some(Latent { q_rank, rank, nope, v_dim });
    }
    Ok(())
}

/// What queries and keys are multiplied by where YaRN scales their rope: as a whole, if the file has a multiplier, and then the
/// turned parts no more than the others.
fn magnitude(keys: &Keys<'_>, config: &mut Config) -> Result<f32> {
    let multiplier = keys.float("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0) / MULTIPLIER;
    let factor = keys.float("rope.scaling.factor")?.filter(|_| multiplier != 0.0 && keys.is_yarn());
    let Some(factor) = factor.filter(|&factor| factor != 0.0) else { return Ok(1.0) };
    config.ropes[0].magnitude = keys.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
    Ok(1.0 + 0.1 * multiplier * factor.ln().max(0.0))
}
