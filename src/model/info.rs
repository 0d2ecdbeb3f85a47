//! What a user wants to know of a model before running it.

use crate::gguf::{Gguf, TensorType, shorten};

/// Facts of a file, for people; nothing here changes the computation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// `general.architecture`, empty where the file has none.
    pub architecture: String,
    /// `general.name`, empty where the file has none.
    pub name: String,
    /// Elements of all tensors.
    pub n_params: u64,
    /// Such as "Q4_K_M": what `general.file_type` says, or the type of most of the bytes.
    pub quantization: String,
    /// Bytes of all files of the model.
    pub file_bytes: u64,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
}

impl ModelInfo {
    /// Reads the facts; what the file does not say is empty.
    pub fn of(gguf: &Gguf<'_>) -> ModelInfo {
        let text = |key: &str| shorten(gguf.opt_text(key).ok().flatten().unwrap_or_default()).to_owned();
        let file_type = gguf.opt_uint("general.file_type").ok().flatten();
        ModelInfo {
            architecture: text("general.architecture"),
            name: text("general.name"),
            n_params: gguf.tensors().map(|t| t.n_elements()).sum(),
            quantization: file_type.and_then(label).unwrap_or_else(|| main_type(gguf)).to_owned(),
            file_bytes: gguf.file_bytes(),
            tensor_bytes: gguf.tensors().map(|t| t.data.len() as u64).sum(),
        }
    }
}

/// The name of a `general.file_type`.
fn label(file_type: u64) -> Option<&'static str> {
    Some(match file_type {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4 MoE",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => return None,
    })
}

/// The type that most of the tensors' bytes are of.
fn main_type(gguf: &Gguf<'_>) -> &'static str {
    let bytes_of = |ty: TensorType| gguf.tensors().filter(|t| t.ty == ty).map(|t| t.data.len()).sum::<usize>();
    TensorType::ALL.into_iter().max_by_key(|&ty| bytes_of(ty)).map_or("", |ty| ty.name())
}
