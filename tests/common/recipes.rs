//! Which type each tensor has in a file of a given quantization: the mixes of llama.cpp's quantizer.
//!
//! Source: `llama_tensor_get_type_impl` and `tensor_type_fallback` of llama.cpp's llama-quant.cpp (as of release
//! 0.3.36 of llama-cpp-python), for dense models without an importance matrix. Compared tensor by tensor with what
//! `llama-quantize --dry-run` of that release says for smollm2-135m, llama-3.2-1b and gemma-3-270m in every quantized
//! recipe: no difference.

use kigo::gguf::TensorType::{self, *};

use super::shapes::{Kind, Shape, TensorSpec};

/// A quantization by its user-facing name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub name: &'static str,
    /// `general.file_type`.
    pub file_type: u32,
    /// The type of most matrices.
    pub main: TensorType,
}

/// All recipes.
pub const RECIPES: [Recipe; 33] = [
    Recipe { name: "F32", file_type: 0, main: F32 },
    Recipe { name: "F16", file_type: 1, main: F16 },
    Recipe { name: "BF16", file_type: 32, main: Bf16 },
    Recipe { name: "Q4_0", file_type: 2, main: Q4_0 },
    Recipe { name: "Q4_1", file_type: 3, main: Q4_1 },
    Recipe { name: "Q5_0", file_type: 8, main: Q5_0 },
    Recipe { name: "Q5_1", file_type: 9, main: Q5_1 },
    Recipe { name: "Q8_0", file_type: 7, main: Q8_0 },
    Recipe { name: "Q2_K", file_type: 10, main: Q2_K },
    Recipe { name: "Q2_K_S", file_type: 21, main: Q2_K },
    Recipe { name: "Q3_K_S", file_type: 11, main: Q3_K },
    Recipe { name: "Q3_K_M", file_type: 12, main: Q3_K },
    Recipe { name: "Q3_K_L", file_type: 13, main: Q3_K },
    Recipe { name: "Q4_K_S", file_type: 14, main: Q4_K },
    Recipe { name: "Q4_K_M", file_type: 15, main: Q4_K },
    Recipe { name: "Q5_K_S", file_type: 16, main: Q5_K },
    Recipe { name: "Q5_K_M", file_type: 17, main: Q5_K },
    Recipe { name: "Q6_K", file_type: 18, main: Q6_K },
    Recipe { name: "IQ4_NL", file_type: 25, main: IQ4_NL },
    Recipe { name: "IQ4_XS", file_type: 30, main: IQ4_XS },
    // From here on no mixes of llama.cpp's: every matrix but the head's is of the type.
    Recipe { name: "MXFP4", file_type: 38, main: Mxfp4 },
    Recipe { name: "NVFP4", file_type: 39, main: Nvfp4 },
    Recipe { name: "IQ3_S", file_type: 26, main: IQ3_S },
    Recipe { name: "IQ3_XXS", file_type: 23, main: IQ3_XXS },
    Recipe { name: "IQ2_S", file_type: 28, main: IQ2_S },
    Recipe { name: "IQ2_XS", file_type: 20, main: IQ2_XS },
    Recipe { name: "IQ2_XXS", file_type: 19, main: IQ2_XXS },
    Recipe { name: "IQ1_S", file_type: 24, main: IQ1_S },
    Recipe { name: "IQ1_M", file_type: 31, main: IQ1_M },
    Recipe { name: "TQ1_0", file_type: 36, main: TQ1_0 },
    Recipe { name: "TQ2_0", file_type: 37, main: TQ2_0 },
    Recipe { name: "Q2_0", file_type: 41, main: Q2_0 },
    Recipe { name: "Q1_0", file_type: 40, main: Q1_0 },
];

impl Recipe {
    /// The recipe of this name, in any case.
    pub fn named(name: &str) -> Option<Recipe> {
        RECIPES.into_iter().find(|r| r.name.eq_ignore_ascii_case(name))
    }

    /// The type of one tensor of a model.
    pub fn type_of(&self, shape: &Shape, spec: &TensorSpec) -> TensorType {
        if !matches!(spec.kind, Kind::Matrix { .. }) {
            return F32;
        }
        if self.main.block_len() == 1 {
            return self.main;
        }
        fit(self.mixed(shape, spec), spec.cols)
    }

    fn mixed(&self, shape: &Shape, spec: &TensorSpec) -> TensorType {
        let n = shape.n_layers;
        let (layer, role) = match spec.name.strip_prefix("blk.").and_then(|s| s.split_once('.')) {
            Some((layer, role)) => (layer.parse().unwrap_or(0), role),
            None => (0, spec.name.as_str()),
        };
        let more_bits = layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
        let wide_groups = shape.n_heads / shape.n_kv_heads >= 4;
        match (role, self.name) {
            // The matrix of the logits.
            ("output.weight", name) if name != "Q8_0" => head_type(self.main, spec.cols),
            ("token_embd.weight", name) if shape.tied && name != "Q8_0" => head_type(self.main, spec.cols),

            // As published files have it: routers are not quantized, and of gpt-oss only experts are MXFP4.
            ("ffn_gate_inp.weight", _) => F32,
            (role, "MXFP4") if shape.arch == "gpt-oss" && !role.contains("_exps") => Q8_0,

            ("attn_v.weight", "Q2_K") => {
                if wide_groups {
                    Q4_K
                } else {
                    Q3_K
                }
            }
            ("attn_v.weight", "Q2_K_S") if wide_groups => Q4_K,
            ("attn_v.weight", "Q3_K_M") => {
                if layer < 2 {
                    Q5_K
                } else {
                    Q4_K
                }
            }
            ("attn_v.weight", "Q3_K_L") => Q5_K,
            ("attn_v.weight", "Q4_K_M" | "Q5_K_M") if more_bits => Q6_K,
            ("attn_v.weight", "Q4_K_S") if layer < 4 => Q5_K,
            ("attn_v.weight", "IQ4_NL" | "IQ4_XS") if wide_groups => Q5_K,

            ("ffn_down.weight", "Q2_K") => Q3_K,
            ("ffn_down.weight", "Q2_K_S") if layer < n / 8 => Q4_K,
            ("ffn_down.weight", "Q3_K_M") => {
                if layer < n / 16 {
                    Q5_K
                } else {
                    Q4_K
                }
            }
            ("ffn_down.weight", "Q3_K_L") => Q5_K,
            ("ffn_down.weight" | "ffn_down_exps.weight", "Q4_K_M" | "Q5_K_M") if more_bits => Q6_K,
            ("ffn_down.weight", "Q4_K_S" | "IQ4_NL" | "IQ4_XS") if layer < n / 8 => Q5_K,

            ("attn_output.weight", "Q2_K") => Q3_K,
            ("attn_output.weight", "Q3_K_M") => Q4_K,
            ("attn_output.weight", "Q3_K_L") => Q5_K,
            _ => self.main,
        }
    }
}

fn head_type(main: TensorType, cols: usize) -> TensorType {
    if cols.is_multiple_of(main.block_len()) { Q6_K } else { Q8_0 }
}

/// The type itself, or the one with blocks of 32 that stands in for it where rows are not a multiple of 256.
pub fn fit(ty: TensorType, cols: usize) -> TensorType {
    let smaller = match ty {
        _ if cols.is_multiple_of(ty.block_len()) => return ty,
        Q2_K | Q3_K | TQ1_0 | TQ2_0 | Q2_0 => Q4_0,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        IQ4_XS | IQ3_S | IQ3_XXS | IQ2_S | IQ2_XS | IQ2_XXS | IQ1_S | IQ1_M => IQ4_NL,
        _ => F16,
    };
    if cols.is_multiple_of(smaller.block_len()) { smaller } else { F16 }
}
