//! The file of a tiny model, its tensors changed and written again.

use kigo::gguf::{Gguf, TensorType, Value, Writer};

use super::tiny::Tiny;

/// A tensor as a file has it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub name: String,
    pub ty: TensorType,
    pub dims: Vec<u64>,
    pub data: Vec<u8>,
}

/// A file's metadata, and its tensors to be changed.
#[derive(Clone, Debug)]
pub struct Rewritten {
    file: Vec<u8>,
    pub tensors: Vec<Stored>,
}

impl Rewritten {
    pub fn of(tiny: &Tiny) -> Rewritten {
        let file = tiny.bytes();
        let gguf = Gguf::from_bytes(&file).expect("opens");
        let stored = gguf.tensors().map(|t| Stored {
            name: t.name.to_owned(),
            ty: t.ty,
            dims: t.dims.to_vec(),
            data: t.data.to_vec().expect("in memory"),
        });
        let tensors = stored.collect();
        Rewritten { file, tensors }
    }

    /// The tensor of this name.
    pub fn tensor(&mut self, name: &str) -> &mut Stored {
        self.tensors.iter_mut().find(|t| t.name == name).expect("is a tensor")
    }

    /// Adds numbers of 32 bits, one dimension of them.
    pub fn add_floats(&mut self, name: &str, floats: &[f32]) {
        let data = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.push(Stored { name: name.to_owned(), ty: TensorType::F32, dims: vec![floats.len() as u64], data });
    }

    /// Gate and up of each layer's experts in one tensor, an expert's rows of the one and then those of the other; how many layers have some.
    pub fn gate_up_in_one(&mut self) -> usize {
        let (mut found, mut tensors) = (0, Vec::new());
        for mut gate in std::mem::take(&mut self.tensors) {
            if gate.name.ends_with(".ffn_gate_exps.weight") {
                found += 1;
                gate.name = gate.name.replace("gate", "gate_up");
            }
            let Some(layer) = gate.name.strip_suffix(".ffn_up_exps.weight") else {
                tensors.push(gate);
                continue;
            };
            // The gate stands before the up.
            let (both, up) = (format!("{layer}.ffn_gate_up_exps.weight"), gate);
            let Some(gate) = tensors.iter_mut().find(|t: &&mut Stored| t.name == both) else {
                tensors.push(up);
                continue;
            };
            assert_eq!((gate.ty, &gate.dims), (up.ty, &up.dims));
            let of_one = gate.data.len() / gate.dims[2] as usize;
            let pairs = gate.data.chunks(of_one).zip(up.data.chunks(of_one));
            gate.data = pairs.flat_map(|(gate, up)| [gate, up].concat()).collect();
            gate.dims[1] *= 2;
        }
        self.tensors = tensors;
        found
    }

    /// A scale beside each matrix of experts, by its layer and part and the expert's number, and one of activations.
    pub fn scale_experts(&mut self, scale: impl Fn(&str, usize) -> f32) {
        let experts = self.tensors.iter().filter(|t| t.name.ends_with("_exps.weight"));
        let experts: Vec<_> = experts.map(|t| (t.name.replace(".weight", ""), t.dims[2] as usize)).collect();
        for (name, n) in experts {
            let scales: Vec<f32> = (0..n).map(|expert| scale(&name, expert)).collect();
            self.add_floats(&format!("{name}.scale"), &scales);
            self.add_floats(&format!("{name}.input_scale"), &vec![0.01; n]);
        }
    }

    /// [`Self::scale_experts`] by powers of two, in the scales of NVFP4's blocks.
    pub fn scale_blocks_of_experts(&mut self, power: impl Fn(&str, usize) -> u8) {
        for t in self.tensors.iter_mut().filter(|t| t.name.ends_with("_exps.weight")) {
            assert_eq!(t.ty, TensorType::Nvfp4);
            let (name, of_one) = (t.name.replace(".weight", ""), t.data.len() / t.dims[2] as usize);
            for (expert, blocks) in t.data.chunks_mut(of_one).enumerate() {
                for s in blocks.chunks_mut(36).flat_map(|block| &mut block[..4]) {
                    // Neither a subnormal nor so large that there is none four times as large.
                    assert!((8..0x68).contains(s) && power(&name, expert) <= 2, "{s}");
                    *s += 8 * power(&name, expert);
                }
            }
        }
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let gguf = Gguf::from_bytes(&self.file).expect("opens");
        let mut writer = Writer::new(gguf.version());
        let entries: Vec<(&str, Value<'_>)> = gguf.meta_iter().collect();
        for (key, value) in entries {
            writer.meta(key, value);
        }
        for t in &self.tensors {
            writer.tensor(&t.name, t.ty, &t.dims);
        }
        writer.to_bytes(|i, out| out.copy_from_slice(&self.tensors[i].data))
    }
}
