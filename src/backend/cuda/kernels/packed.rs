//! How a matrix is stored on the device.
//!
//! Invariant: the numbers are those of `cuda/abi.h`, in the order of its enum.

use crate::gguf::TensorType;

/// The element type of a matrix and the layout of its planes. `F32` is what a matrix that does not exist has.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, non_camel_case_types)]
pub enum Packed {
    #[default]
    F32 = 0,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    Mxfp4,
    Nvfp4,
    IQ3_S,
    IQ3_XXS,
    IQ2_S,
    IQ2_XS,
    IQ2_XXS,
    IQ1_S,
    IQ1_M,
    TQ1_0,
    TQ2_0,
    Q2_0,
    Q1_0,
    /// F16 in tiles of 16 rows by 32 columns, as the tensor cores read it.
    F16Tiles,
}

/// Types whose products are one source, a file of its own for each kind of product: the lists of `cuda/abi.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Floating-point elements, of which tiles have kernels of their own.
    Float,
    /// Blocks of 32 elements with a scale each.
    Q32,
    /// Blocks of 256 elements with scales of scales.
    K256,
    /// Four bits that stand for one of sixteen values.
    Table,
    /// Places in code books.
    Grid,
    /// One or two bits that stand for -1 to 2.
    Ternary,
}

/// The numbers by their names in `cuda/abi.h`.
#[rustfmt::skip]
pub const NUMBERS: &[(&str, u64)] = &[
    ("KG_F32", Packed::F32 as u64),
    ("KG_F16", Packed::F16 as u64),
    ("KG_BF16", Packed::Bf16 as u64),
    ("KG_Q4_0", Packed::Q4_0 as u64),
    ("KG_Q4_1", Packed::Q4_1 as u64),
    ("KG_Q5_0", Packed::Q5_0 as u64),
    ("KG_Q5_1", Packed::Q5_1 as u64),
    ("KG_Q8_0", Packed::Q8_0 as u64),
    ("KG_Q2_K", Packed::Q2_K as u64),
    ("KG_Q3_K", Packed::Q3_K as u64),
    ("KG_Q4_K", Packed::Q4_K as u64),
    ("KG_Q5_K", Packed::Q5_K as u64),
    ("KG_Q6_K", Packed::Q6_K as u64),
    ("KG_IQ4_NL", Packed::IQ4_NL as u64),
    ("KG_IQ4_XS", Packed::IQ4_XS as u64),
    ("KG_MXFP4", Packed::Mxfp4 as u64),
    ("KG_NVFP4", Packed::Nvfp4 as u64),
    ("KG_IQ3_S", Packed::IQ3_S as u64),
    ("KG_IQ3_XXS", Packed::IQ3_XXS as u64),
    ("KG_IQ2_S", Packed::IQ2_S as u64),
    ("KG_IQ2_XS", Packed::IQ2_XS as u64),
    ("KG_IQ2_XXS", Packed::IQ2_XXS as u64),
    ("KG_IQ1_S", Packed::IQ1_S as u64),
    ("KG_IQ1_M", Packed::IQ1_M as u64),
    ("KG_TQ1_0", Packed::TQ1_0 as u64),
    ("KG_TQ2_0", Packed::TQ2_0 as u64),
    ("KG_Q2_0", Packed::Q2_0 as u64),
    ("KG_Q1_0", Packed::Q1_0 as u64),
    ("KG_F16_TILED", Packed::F16Tiles as u64),
];

impl From<TensorType> for Packed {
    fn from(ty: TensorType) -> Packed {
        match ty {
            TensorType::F32 => Packed::F32,
            TensorType::F16 => Packed::F16,
            TensorType::Bf16 => Packed::Bf16,
            TensorType::Q4_0 => Packed::Q4_0,
            TensorType::Q4_1 => Packed::Q4_1,
            TensorType::Q5_0 => Packed::Q5_0,
            TensorType::Q5_1 => Packed::Q5_1,
            TensorType::Q8_0 => Packed::Q8_0,
            TensorType::Q2_K => Packed::Q2_K,
            TensorType::Q3_K => Packed::Q3_K,
            TensorType::Q4_K => Packed::Q4_K,
            TensorType::Q5_K => Packed::Q5_K,
            TensorType::Q6_K => Packed::Q6_K,
            TensorType::IQ4_NL => Packed::IQ4_NL,
            TensorType::IQ4_XS => Packed::IQ4_XS,
            TensorType::Mxfp4 => Packed::Mxfp4,
            TensorType::Nvfp4 => Packed::Nvfp4,
            TensorType::IQ3_S => Packed::IQ3_S,
            TensorType::IQ3_XXS => Packed::IQ3_XXS,
            TensorType::IQ2_S => Packed::IQ2_S,
            TensorType::IQ2_XS => Packed::IQ2_XS,
            TensorType::IQ2_XXS => Packed::IQ2_XXS,
            TensorType::IQ1_S => Packed::IQ1_S,
            TensorType::IQ1_M => Packed::IQ1_M,
            TensorType::TQ1_0 => Packed::TQ1_0,
            TensorType::TQ2_0 => Packed::TQ2_0,
            TensorType::Q2_0 => Packed::Q2_0,
            TensorType::Q1_0 => Packed::Q1_0,
        }
    }
}

impl Packed {
    /// Rows of floating-point elements, one behind the other.
    pub fn is_float(self) -> bool {
        matches!(self, Packed::F32 | Packed::F16 | Packed::Bf16)
    }

    /// Whose kernels multiply it.
    pub fn family(self) -> Family {
        match self {
            Packed::F32 | Packed::F16 | Packed::Bf16 | Packed::F16Tiles => Family::Float,
            Packed::Q4_0 | Packed::Q4_1 | Packed::Q5_0 | Packed::Q5_1 | Packed::Q8_0 => Family::Q32,
            Packed::Q2_K | Packed::Q3_K | Packed::Q4_K | Packed::Q5_K | Packed::Q6_K => Family::K256,
            Packed::IQ4_NL | Packed::IQ4_XS | Packed::Mxfp4 | Packed::Nvfp4 => Family::Table,
            Packed::IQ3_S | Packed::IQ3_XXS | Packed::IQ2_S | Packed::IQ2_XS | Packed::IQ2_XXS => Family::Grid,
            Packed::IQ1_S | Packed::IQ1_M => Family::Grid,
            Packed::TQ1_0 | Packed::TQ2_0 | Packed::Q2_0 | Packed::Q1_0 => Family::Ternary,
        }
    }

    /// Elements of a stored block, of which rows are whole ones.
    pub fn row_block(self) -> u32 {
        match self {
            _ if self.family() == Family::Float => 1,
            _ if self.family() == Family::Q32 => 32,
            Packed::IQ4_NL | Packed::Mxfp4 => 32,
            Packed::Nvfp4 | Packed::Q2_0 => 64,
            Packed::Q1_0 => 128,
            _ => 256,
        }
    }

    /// Integers with scales, of either kind of block.
    pub fn is_quantized(self) -> bool {
        self.row_block() > 1
    }

    /// Bytes of the planes a, b, c, s, d of a matrix [rows, cols]; `cols` is a multiple of the block's length.
    pub fn plane_bytes(self, rows: u64, cols: u64) -> [u64; 5] {
        let blocks = rows * cols / 32;
        let supers = rows * cols / 256;
        let padded = rows * cols.next_multiple_of(8);
        match self {
            Packed::F32 => [padded * 4, 0, 0, 0, 0],
            Packed::F16 | Packed::Bf16 => [padded * 2, 0, 0, 0, 0],
            Packed::Q4_0 | Packed::IQ4_NL | Packed::Mxfp4 | Packed::Nvfp4 => [blocks * 16, 0, 0, blocks * 2, 0],
            Packed::IQ4_XS => [blocks * 16, 0, 0, blocks * 2, supers * 2],
            Packed::IQ3_S => [0, blocks * 8, blocks * 4, blocks * 2, supers * 2],
            Packed::IQ3_XXS => [0, blocks * 8, blocks * 4, 0, supers * 2],
            Packed::IQ2_S | Packed::IQ2_XS => [0, blocks * 8, 0, blocks * 2, supers * 2],
            Packed::IQ2_XXS | Packed::TQ1_0 | Packed::TQ2_0 => [0, blocks * 8, 0, 0, supers * 2],
            Packed::IQ1_S => [0, 0, blocks * 4, blocks * 2, supers * 2],
            Packed::IQ1_M => [0, 0, blocks * 4, blocks * 4, supers * 2],
            Packed::Q2_0 => [0, blocks * 8, 0, blocks * 2, 0],
            Packed::Q1_0 => [0, 0, blocks * 4, 0, rows * cols / 128 * 2],
            Packed::Q4_1 => [blocks * 16, 0, 0, blocks * 4, 0],
            Packed::Q5_0 => [blocks * 16, 0, blocks * 4, blocks * 2, 0],
            Packed::Q5_1 => [blocks * 16, 0, blocks * 4, blocks * 4, 0],
            Packed::Q8_0 => [blocks * 16, blocks * 16, 0, blocks * 2, 0],
            Packed::Q2_K => [0, blocks * 8, 0, blocks * 2, supers * 4],
            Packed::Q3_K => [0, blocks * 8, blocks * 4, blocks * 2, supers * 2],
            Packed::Q4_K => [blocks * 16, 0, 0, blocks * 2, supers * 4],
            Packed::Q5_K => [blocks * 16, 0, blocks * 4, blocks * 2, supers * 4],
            Packed::Q6_K => [blocks * 16, blocks * 8, 0, blocks * 2, supers * 2],
            Packed::F16Tiles => [rows.next_multiple_of(16) * cols.next_multiple_of(32) * 2, 0, 0, 0, 0],
        }
    }
}
