//! Experts' tensors that cannot be, or stand twice.

use kigo::gguf::TensorType;

use super::file::{Case, File, bad, unsupported};
use crate::common::rewritten::{Rewritten, Stored};
use crate::common::tiny::Tiny;

/// All of them.
pub fn all() -> impl Iterator<Item = Case> {
    gates_and_ups_in_one().into_iter().chain(scales())
}

/// The tiny model of seven experts with other tensors.
fn changed(ty: TensorType, change: impl FnOnce(&mut Rewritten)) -> File {
    let mut file = Rewritten::of(&Tiny::new("qwen3moe", ty));
    change(&mut file);
    File { bytes: file.bytes() }
}

fn scales() -> Vec<Case> {
    let of = |name: &str, floats: &[f32], text: &str| {
        let name = format!("blk.1.ffn_{name}");
        let file = changed(TensorType::Nvfp4, |file| file.add_floats(&name, floats));
        bad("scales", file, format!("tensor \"{name}\" {text}"))
    };
    let (infinite, none) =
        ([1.0, 2.0, f32::NEG_INFINITY, 1.0, 1.0, 1.0, 1.0], [1.0, f32::NAN, 1.0, 1.0, 1.0, 1.0, 1.0]);
    // Thirty-two experts, so that their scales can be of a type with blocks of as many.
    let mut many = Tiny::new("qwen3moe", TensorType::Q8_0);
    many.shape.n_experts = Some((32, 4));
    let mut many = Rewritten::of(&many);
    let name = "blk.0.ffn_down_exps.scale".to_owned();
    many.tensors.push(Stored { name, ty: TensorType::Q8_0, dims: vec![32], data: vec![0; 34] });
    let quantized = File { bytes: many.bytes() };
    let text = "tensor \"blk.0.ffn_down_exps.scale\" type is Q8_0; expected F32, F16 or BF16";
    vec![
        of("gate_exps.scale", &[1.0; 6], "shape is [6]; expected [7]"),
        of("up_exps.scale", &[1.0; 8], "shape is [8]; expected [7]"),
        of("down_exps.scale", &[1.0], "shape is [1]; expected [7]"),
        of("down_exps.input_scale", &[1.0], "shape is [1]; expected [7]"),
        of("gate_exps.scale", &infinite, "element 2 is -inf; expected a finite number"),
        of("up_exps.scale", &none, "element 1 is NaN; expected a finite number"),
        of("gate_inp.scale", &[1.0; 7], "shape is [7]; expected [1]"),
        bad("scales", quantized, text),
    ]
}

fn gates_and_ups_in_one() -> Vec<Case> {
    const BOTH: &str = "blk.0.ffn_gate_up_exps.weight";
    let of = |change: &dyn Fn(&mut Rewritten)| {
        changed(TensorType::Q4_0, |file| {
            assert_eq!(file.gate_up_in_one(), 2);
            change(file);
        })
    };
    let shaped = |dims: &[u64], found: &str| {
        let file = of(&|file| {
            let both = file.tensor(BOTH);
            both.dims = dims.to_vec();
            both.data.resize(dims.iter().product::<u64>() as usize / 32 * 18, 0);
        });
        bad("gate and up", file, format!("tensor \"{BOTH}\" shape is {found}; expected [64, 128, 7]"))
    };
    let beside = |name: &str, expected: &str| {
        let file = of(&|file| {
            let both = file.tensor(BOTH).clone();
            file.tensors.push(Stored { name: name.into(), ..both });
        });
        unsupported("gate and up", file, &format!("tensor \"{name}\" is there; expected {expected}"))
    };
    let none = format!("none beside \"{BOTH}\", which has its rows");
    let no_role = "only tensors that this architecture has a role for";
    vec![
        shaped(&[64, 127, 7], "[64, 127, 7]"),
        shaped(&[64, 64, 7], "[64, 64, 7]"),
        shaped(&[64, 128, 6], "[64, 128, 6]"),
        shaped(&[64, 128 * 7], "[64, 896]"),
        beside("blk.0.ffn_gate_exps.weight", &none),
        beside("blk.0.ffn_up_exps.weight", &none),
        beside("blk.0.ffn_gate_up_exps.bias", no_role),
        beside("blk.0.ffn_gate_up_exps.scale", no_role),
    ]
}
