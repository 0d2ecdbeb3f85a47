//! The tensor types of GGUF and the sizes of their blocks.
//!
//! Source: the GGUF specification and the block structs of ggml-common.h; each block holds
//! `block_len` consecutive elements of one row in `block_bytes` bytes, little endian.

/// Element type of a tensor as stored in the file.
#[allow(missing_docs, non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorType {
    F32,
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
}

/// The values that the numbers 0 to 15 stand for in IQ4_NL and IQ4_XS.
pub const IQ4_LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Those in MXFP4 and NVFP4: twice what the bits are as E2M1, a sign, two bits of exponent and one of mantissa.
pub const E2M1_LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

impl TensorType {
    /// All types, in the order of their file numbers.
    pub const ALL: [TensorType; 28] = [
        TensorType::F32,
        TensorType::F16,
        TensorType::Q4_0,
        TensorType::Q4_1,
        TensorType::Q5_0,
        TensorType::Q5_1,
        TensorType::Q8_0,
        TensorType::Q2_K,
        TensorType::Q3_K,
        TensorType::Q4_K,
        TensorType::Q5_K,
        TensorType::Q6_K,
        TensorType::IQ2_XXS,
        TensorType::IQ2_XS,
        TensorType::IQ3_XXS,
        TensorType::IQ1_S,
        TensorType::IQ4_NL,
        TensorType::IQ3_S,
        TensorType::IQ2_S,
        TensorType::IQ4_XS,
        TensorType::IQ1_M,
        TensorType::Bf16,
        TensorType::TQ1_0,
        TensorType::TQ2_0,
        TensorType::Mxfp4,
        TensorType::Nvfp4,
        TensorType::Q1_0,
        TensorType::Q2_0,
    ];

    /// `(number in the file, name, elements a block, bytes a block)`.
    const fn row(self) -> (u32, &'static str, usize, usize) {
        match self {
            TensorType::F32 => (0, "F32", 1, 4),
            TensorType::F16 => (1, "F16", 1, 2),
            TensorType::Q4_0 => (2, "Q4_0", 32, 18),
            TensorType::Q4_1 => (3, "Q4_1", 32, 20),
            TensorType::Q5_0 => (6, "Q5_0", 32, 22),
            TensorType::Q5_1 => (7, "Q5_1", 32, 24),
            TensorType::Q8_0 => (8, "Q8_0", 32, 34),
            TensorType::Q2_K => (10, "Q2_K", 256, 84),
            TensorType::Q3_K => (11, "Q3_K", 256, 110),
            TensorType::Q4_K => (12, "Q4_K", 256, 144),
            TensorType::Q5_K => (13, "Q5_K", 256, 176),
            TensorType::Q6_K => (14, "Q6_K", 256, 210),
            TensorType::IQ2_XXS => (16, "IQ2_XXS", 256, 66),
            TensorType::IQ2_XS => (17, "IQ2_XS", 256, 74),
            TensorType::IQ3_XXS => (18, "IQ3_XXS", 256, 98),
            TensorType::IQ1_S => (19, "IQ1_S", 256, 50),
            TensorType::IQ4_NL => (20, "IQ4_NL", 32, 18),
            TensorType::IQ3_S => (21, "IQ3_S", 256, 110),
            TensorType::IQ2_S => (22, "IQ2_S", 256, 82),
            TensorType::IQ4_XS => (23, "IQ4_XS", 256, 136),
            TensorType::IQ1_M => (29, "IQ1_M", 256, 56),
            TensorType::Bf16 => (30, "BF16", 1, 2),
            TensorType::TQ1_0 => (34, "TQ1_0", 256, 54),
            TensorType::TQ2_0 => (35, "TQ2_0", 256, 66),
            TensorType::Mxfp4 => (39, "MXFP4", 32, 17),
            TensorType::Nvfp4 => (40, "NVFP4", 64, 36),
            TensorType::Q1_0 => (41, "Q1_0", 128, 18),
            TensorType::Q2_0 => (42, "Q2_0", 64, 18),
        }
    }

    /// The type with this number in the file, if this library has it.
    pub fn from_number(number: u32) -> Option<TensorType> {
        TensorType::ALL.into_iter().find(|t| t.number() == number)
    }

    /// The number that stands for this type in the file.
    pub const fn number(self) -> u32 {
        self.row().0
    }

    /// The name that users know, such as "Q4_K".
    pub const fn name(self) -> &'static str {
        self.row().1
    }

    /// Elements in one block.
    pub const fn block_len(self) -> usize {
        self.row().2
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.row().3
    }

    /// Bytes of one row of `n` elements; `n` is a multiple of [`Self::block_len`].
    pub const fn row_bytes(self, n: usize) -> usize {
        n / self.block_len() * self.block_bytes()
    }
}

/// The first number that stands for no type, in the version of ggml this was written against.
pub(super) const NUMBERS_END: u32 = 44;

/// The name of a type that the format knows and this library does not have.
pub(super) fn unsupported_name(number: u32) -> Option<&'static str> {
    Some(match number {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        15 => "Q8_K",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        43 => "F8_E4M3",
        _ => return None,
    })
}
