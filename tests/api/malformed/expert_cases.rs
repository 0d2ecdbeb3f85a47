//! Experts' tensors that cannot be, or stand twice.

use kigo::gguf::TensorType;

use super::file::{Case, File, bad, unsupported};
use crate::common::rewritten::{Rewritten, Stored};
use crate::common::tiny::Tiny;

/// All of them.
pub fn all() -> impl Iterator<Item = Case> {
    gates_and_ups_in_one().into_iter()
}

/// The tiny model of seven experts with other tensors.
fn changed(ty: TensorType, change: impl FnOnce(&mut Rewritten)) -> File {
    let mut file = Rewritten::of(&Tiny::new("qwen3moe", ty));
    change(&mut file);
    File { bytes: file.bytes() }
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
