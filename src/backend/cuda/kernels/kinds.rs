//! The numbers of `cuda/abi.h` that choose among formulas, and what of the description they stand for.

use crate::model::{self, RopePairing};

/// What stands between gate and up.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// There is no gate.
    None = 0,
    Silu,
    Gelu,
    /// The one by the error function.
    GeluErf,
    Relu2,
    /// gpt-oss's, which changes both factors.
    ClampedSwiglu,
}

impl Activation {
    /// Whether a product of gate and up has it at its end.
    pub fn ends_products(self) -> bool {
        matches!(self, Activation::Silu | Activation::Gelu)
    }

    /// How a prompt's product ends with it, if it can.
    pub fn epilogue(self) -> Option<Epilogue> {
        match self {
            Activation::Silu => Some(Epilogue::Silu),
            Activation::Gelu => Some(Epilogue::Gelu),
            _ => None,
        }
    }
}

impl From<model::Activation> for Activation {
    fn from(activation: model::Activation) -> Activation {
        match activation {
            model::Activation::Silu => Activation::Silu,
            model::Activation::GeluTanh => Activation::Gelu,
            model::Activation::Gelu => Activation::GeluErf,
            model::Activation::Relu2 => Activation::Relu2,
            model::Activation::ClampedSwiglu => Activation::ClampedSwiglu,
        }
    }
}

/// How a row is normalized.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// It is passed on as it is.
    None = 0,
    Rms,
    Layer,
}

impl NormKind {
    /// The one with the largest number.
    pub const LAST: NormKind = NormKind::Layer;
}

impl From<model::Norm> for NormKind {
    fn from(norm: model::Norm) -> NormKind {
        match norm {
            model::Norm::Rms => NormKind::Rms,
            model::Norm::Layer => NormKind::Layer,
        }
    }
}

/// What a router's logits become.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    Softmax = 0,
    Sigmoid,
    SoftmaxOfChosen,
}

impl From<model::Score> for Score {
    fn from(score: model::Score) -> Score {
        match score {
            model::Score::Softmax => Score::Softmax,
            model::Score::Sigmoid => Score::Sigmoid,
            model::Score::SoftmaxOfChosen => Score::SoftmaxOfChosen,
        }
    }
}

/// Which elements of a head a rope turns together.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    Adjacent = 0,
    Halves,
}

impl Pairing {
    /// The one with the largest number.
    pub const LAST: Pairing = Pairing::Halves;
}

impl From<RopePairing> for Pairing {
    fn from(pairing: RopePairing) -> Pairing {
        match pairing {
            RopePairing::Adjacent => Pairing::Adjacent,
            RopePairing::Halves => Pairing::Halves,
        }
    }
}

/// What becomes of a product's sum in a prompt's pass.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// It is stored as f32.
    F32 = 0,
    /// It is added to what is there.
    Add,
    /// It is stored as f16.
    F16,
    /// silu(gate) * up is stored as f16.
    Silu,
    /// gelu(gate) * up is stored as f16.
    Gelu,
}

impl Epilogue {
    /// Whether it takes the sums of a gate and of what that lets through.
    pub fn is_gated(self) -> bool {
        matches!(self, Epilogue::Silu | Epilogue::Gelu)
    }
}

/// The numbers by their names there.
#[rustfmt::skip]
pub const NUMBERS: &[(&str, u64)] = &[
    ("KG_NO_ACTIVATION", Activation::None as u64),
    ("KG_ACTIVATION_SILU", Activation::Silu as u64),
    ("KG_ACTIVATION_GELU", Activation::Gelu as u64),
    ("KG_ACTIVATION_GELU_ERF", Activation::GeluErf as u64),
    ("KG_ACTIVATION_RELU2", Activation::Relu2 as u64),
    ("KG_ACTIVATION_CLAMPED_SWIGLU", Activation::ClampedSwiglu as u64),
    ("KG_SCORE_SOFTMAX", Score::Softmax as u64),
    ("KG_SCORE_SIGMOID", Score::Sigmoid as u64),
    ("KG_SCORE_SOFTMAX_OF_CHOSEN", Score::SoftmaxOfChosen as u64),
    ("KG_NORM_NONE", NormKind::None as u64),
    ("KG_NORM_RMS", NormKind::Rms as u64),
    ("KG_NORM_LAYER", NormKind::Layer as u64),
    ("KG_PAIRS_ADJACENT", Pairing::Adjacent as u64),
    ("KG_PAIRS_HALVES", Pairing::Halves as u64),
    ("KG_GEMM_F32", Epilogue::F32 as u64),
    ("KG_GEMM_ADD", Epilogue::Add as u64),
    ("KG_GEMM_F16", Epilogue::F16 as u64),
    ("KG_GEMM_SILU", Epilogue::Silu as u64),
    ("KG_GEMM_GELU", Epilogue::Gelu as u64),
];
