//! Stored blocks: what they mean, against the reference package, and how close plain rounding comes.

use crate::common;
use crate::common::blocks::Blocks;
use std::path::Path;

use kigo::gguf::{Gguf, TensorType, dequantize_row, quantize_row};

/// The fixture says in `fixture.made_by` what made it.
#[test]
fn rows_mean_what_the_reference_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dequant.gguf");
    let gguf = Gguf::open(&path).expect("the fixture is there");
    for ty in TensorType::ALL {
        let stored = gguf.tensor(ty.name()).expect("one tensor a type");
        let expected = gguf.tensor(&format!("{}.f32", ty.name())).expect("and its values");
        assert_eq!((stored.ty, expected.n_elements()), (ty, stored.n_elements()));
        assert!(stored.n_elements() >= 512);
        let mut row = vec![0.0; stored.n_elements() as usize];
        dequantize_row(ty, &stored.data.to_vec().expect("in memory"), &mut row).expect("sizes agree");
        let expected: Vec<f32> =
            expected.data.to_vec().expect("in memory").as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let largest = expected.iter().fold(0.0, |a: f32, e| a.max(e.abs()));
        for (i, (&y, &e)) in row.iter().zip(&expected).enumerate() {
            // Two products and a sum of f32 in either order: a few roundings of terms no larger than the largest value.
            let mut bound = 4.0 * f32::EPSILON * largest;
            // Products alone, of so few bits that none is rounded.
            if ty.number() >= TensorType::IQ2_XXS.number() {
                bound = 0.0;
            }
            assert!((y - e).abs() <= bound, "{} element {i}: {y}, reference {e}", ty.name());
        }
    }
}

/// Normal numbers through each type and back. The bounds are the root mean square errors of uniform rounding,
/// step / sqrt(12), with the step that spans a group's expected range (about +-2 for 16 or 32 numbers), and half as
/// much again for the rounding of the groups' own scales.
#[test]
fn rounding_stays_within_its_steps() {
    let mut x = vec![0.0; 256 * 64];
    common::random::normal(7, 0, &mut x);
    let power = x.iter().map(|v| v * v).sum::<f32>();
    for ty in TensorType::ALL {
        let bound = match ty {
            TensorType::F32 => 0.0,
            TensorType::F16 => 2f32.powi(-11),
            TensorType::Bf16 => 2f32.powi(-8),
            // Half a step of 2^-1 where a number is largest, and its scale may be 1.5 times what it wants.
            TensorType::Mxfp4 => 0.25,
            // Steps between a block's least and largest of four deviations to both sides; a type's name has its bits.
            quantized => {
                let bits = quantized.name().bytes().find(u8::is_ascii_digit).expect("bits") - b'0';
                4.0 / ((1 << bits) - 1) as f32 / 3.46 * 1.5
            }
        };
        let mut bytes = vec![0xff; ty.row_bytes(x.len())];
        quantize_row(ty, &x, &mut bytes).expect("sizes agree");
        let mut y = vec![f32::NAN; x.len()];
        dequantize_row(ty, &bytes, &mut y).expect("sizes agree");
        let error = x.iter().zip(&y).map(|(x, y)| (x - y) * (x - y)).sum::<f32>();
        let relative = (error / power).sqrt();
        println!("{:5} relative error {relative:.5}, bound {bound:.5}", ty.name());
        assert!(relative <= bound, "{}: {relative} is more than {bound}", ty.name());
        if ty != TensorType::F32 {
            // The test can fail: a bound ten times as tight does not hold.
            assert!(relative > bound / 10.0, "{}: {relative} is suspiciously small", ty.name());
        }
    }
}

#[test]
fn zeros_stay_zeros() {
    for ty in TensorType::ALL {
        let mut bytes = vec![0xff; ty.row_bytes(256)];
        quantize_row(ty, &[0.0; 256], &mut bytes).expect("sizes agree");
        let mut y = vec![f32::NAN; 256];
        dequantize_row(ty, &bytes, &mut y).expect("sizes agree");
        assert!(y.iter().all(|&v| v == 0.0), "{}", ty.name());
    }
}

#[test]
fn wrong_sizes_are_errors() {
    for ty in TensorType::ALL {
        let mut bytes = vec![0; ty.row_bytes(256)];
        assert!(quantize_row(ty, &[0.0; 255], &mut bytes).is_err());
        assert!(dequantize_row(ty, &bytes[1..], &mut [0.0; 256]).is_err());
        assert!(dequantize_row(ty, &bytes, &mut [0.0; 512]).is_err());
    }
}

/// Blocks that are drawn have the standard deviation asked for, which is that of rows from 64 to 18,944 elements, about the mean 0, and
/// are a function of the key and the row.
#[test]
fn drawn_blocks_have_the_deviation_asked_for() {
    const COLS: usize = 2048;
    for ty in TensorType::ALL {
        for std in [0.25, 0.0186, 0.00726] {
            // Of others rows are quantized.
            let Some(blocks) = Blocks::new(ty, std) else { continue };
            let row = |key: u64, row: u64| {
                let mut bytes = vec![0xff; ty.row_bytes(COLS)];
                blocks.fill_row(key, row, &mut bytes);
                bytes
            };
            let mut values = vec![0.0; 128 * COLS];
            for (r, values) in values.chunks_exact_mut(COLS).enumerate() {
                dequantize_row(ty, &row(1, r as u64), values).expect("sizes agree");
            }
            assert!(values.iter().all(|v| v.is_finite()), "{}", ty.name());
            let average =
                |of: fn(f64) -> f64| values.iter().map(|&v| of((v / std).into())).sum::<f64>() / values.len() as f64;
            let (mean, deviation) = (average(|v| v), average(|v| v * v).sqrt());
            assert!(mean.abs() < 0.05, "{}: mean {mean} of {std}", ty.name());
            assert!((0.9..1.1).contains(&deviation), "{}: deviation {deviation} of {std}", ty.name());
            assert_eq!(row(1, 5), row(1, 5));
            assert!(row(1, 5) != row(1, 6) && row(1, 5) != row(2, 5), "{}", ty.name());
        }
    }
}
