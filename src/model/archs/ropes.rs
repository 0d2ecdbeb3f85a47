//! Ropes from a file's keys: a base, and how it is scaled.

use super::keys::{Keys, MAX_SIZE, unsupported, wrong};
use super::{RopePairing, RopeTable, Yarn};
use crate::error::Result;
use crate::gguf::shorten;

/// How far a magnitude that the file has may be from the one that follows from its factor; converters write decimals.
const SAME_MAGNITUDE: f32 = 1e-4;

/// The base where the file has none.
const DEFAULT_BASE: f32 = 10_000.0;

impl Keys<'_> {
    /// The base of `rope.freq_base`, or of another key in its place where the file has that.
    pub fn base(&self, key: &str) -> Result<f32> {
        let own = self.positive(key)?;
        Ok(own.or(self.positive("rope.freq_base")?).unwrap_or(DEFAULT_BASE))
    }

    /// Refuses a base of the windowed layers that is not that of all.
    pub fn refuse_other_base(&self) -> Result<()> {
        let suffix = "rope.freq_base_swa";
        let (base, windowed) = (self.base("rope.freq_base")?, self.base(suffix)?);
        match base == windowed {
            true => Ok(()),
            false => Err(unsupported(&self.key(suffix), windowed, format!("{base}, that of other layers"))),
        }
    }

    /// Refuses sections of a rope, which are for models that see.
    pub fn refuse_sections(&self) -> Result<()> {
        let sections = self.key("rope.dimension_sections");
        match self.gguf.meta(&sections) {
            None => Ok(()),
            Some(_) => Err(unsupported(&sections, "there", "no such key")),
        }
    }

    /// Elements of a head that are turned.
    fn n_rot(&self, head_dim: usize) -> Result<usize> {
        let n_rot = self.opt_size("rope.dimension_count", MAX_SIZE)?.unwrap_or(head_dim);
        if n_rot % 2 != 0 || n_rot > head_dim {
            return Err(wrong(&self.key("rope.dimension_count"), n_rot, format!("even, 2 to {head_dim}")));
        }
        let suffix = "rope.dimension_count_swa";
        match self.opt_size(suffix, MAX_SIZE)? {
            Some(other) if other != n_rot && !self.reads.contains(&suffix) => {
                Err(unsupported(&self.key(suffix), other, format!("{n_rot}, as on other layers")))
            }
            _ => Ok(n_rot),
        }
    }

    /// An unscaled rope of halves for heads of so many elements.
    pub fn rope(&self, base: f32, head_dim: usize) -> Result<RopeTable> {
        RopeTable::of_base(base, self.n_rot(head_dim)?, RopePairing::Halves)
    }

    /// The rope of halves of the base that `key` has, scaled as the file says.
    pub fn scaled_rope(&self, key: &str, head_dim: usize, n_ctx_train: usize) -> Result<RopeTable> {
        let base = self.base(key)?;
        // Multiplies what YaRN says, and stands alone where converters have worked it out (LongRoPE).
        let attn_factor = self.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
        // Converters write 0 for "not scaled".
        let factor = self.float("rope.scaling.factor")?.filter(|&f| f != 0.0);
        let mut rope = match self.gguf.opt_text(&self.key("rope.scaling.type"))?.unwrap_or("linear") {
            "none" => self.rope(base, head_dim)?,
            "linear" => {
                let factor = factor.or(self.float("rope.scale_linear")?.filter(|&f| f != 0.0));
                RopeTable { position_scale: factor.map_or(1.0, |f| 1.0 / f), ..self.rope(base, head_dim)? }
            }
            // Its factors are tensors, which the architecture has.
            "longrope" if self.has_long_rope() => self.rope(base, head_dim)?,
            "yarn" => match factor {
                Some(factor) => self.yarn(base, factor, head_dim, n_ctx_train)?,
                None => self.rope(base, head_dim)?,
            },
            kind => {
                let found = format!("{:?}", shorten(kind));
                return Err(unsupported(&self.key("rope.scaling.type"), found, "none, linear or yarn"));
            }
        };
        rope.magnitude *= attn_factor;
        Ok(rope)
    }

    fn yarn(&self, base: f32, factor: f32, head_dim: usize, n_ctx_train: usize) -> Result<RopeTable> {
        if base <= 1.0 {
            return Err(wrong(&self.key("rope.freq_base"), base, "above 1 where YaRN scales it"));
        }
        if !(factor.is_finite() && factor >= 1.0) {
            return Err(wrong(
                &self.key("rope.scaling.factor"),
                factor,
                "at least 1 and finite where YaRN scales by it",
            ));
        }
        // What no model but Grok has, and no other engine reads.
        let ext_factor = "rope.scaling.yarn_ext_factor";
        if let Some(x) = self.float(ext_factor)?.filter(|&x| x != 1.0) {
            return Err(unsupported(&self.key(ext_factor), x, "1, or no such key"));
        }
        let beta_fast = self.positive("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0);
        let beta_slow = self.positive("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0);
        if beta_fast < beta_slow {
            let expected = format!("at least {beta_slow}, that of the slow ones");
            return Err(wrong(&self.key("rope.scaling.yarn_beta_fast"), beta_fast, expected));
        }
        let original_context = self.original_context(n_ctx_train)?;
        let yarn = Yarn { factor, original_context, beta_fast, beta_slow };
        let mut rope = RopeTable::yarn(base, self.n_rot(head_dim)?, RopePairing::Halves, &yarn)?;
        let multiplier = self.float("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0);
        if !(multiplier.is_finite() && multiplier >= 0.0) {
            let key = self.key("rope.scaling.yarn_log_multiplier");
            return Err(wrong(&key, multiplier, "at least 0 and finite"));
        }
        // Of 0 as without the key: nothing divides.
        rope.magnitude = (yarn.magnitude(1.0) / yarn.magnitude(multiplier)) as f32;
        // The configuration may have said the same: llama.cpp computes it anew and does not look.
        let suffix = "rope.scaling.yarn_attn_factor";
        let differs = |x: &f32| !((x - rope.magnitude).abs() <= SAME_MAGNITUDE * rope.magnitude);
        match self.float(suffix)?.filter(differs) {
            Some(x) => {
                Err(unsupported(&self.key(suffix), x, format!("{}, which follows from the factor", rope.magnitude)))
            }
            None => Ok(rope),
        }
    }

    /// Whether YaRN scales the rope.
    pub fn is_yarn(&self) -> bool {
        self.gguf.opt_text(&self.key("rope.scaling.type")).ok().flatten() == Some("yarn")
    }

    /// Whether there are factors for contexts within the original one, and hence others for longer ones.
    pub fn has_long_rope(&self) -> bool {
        self.gguf.tensor("rope_factors_short.weight").is_some()
    }

    /// Positions that the model was trained for before its rope was scaled.
    pub fn original_context(&self, n_ctx_train: usize) -> Result<u32> {
        let limit = u64::from(u32::MAX);
        let original = self.opt_size("rope.scaling.original_context_length", limit)?.unwrap_or(n_ctx_train);
        Ok(original.min(limit as usize) as u32)
    }
}
