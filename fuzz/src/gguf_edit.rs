//! Mutations of a GGUF file that know its structure: an entry's value, a tensor's shape, one number everywhere it stands.
//!
//! Bits turned at random nearly always end at a length that no longer fits. Here the file is taken apart, one or two things
//! in it are changed, and it is put together again, so that what lies behind the reader is reached.

use kigo::gguf::TensorType;

/// A file's parts; a type's number and its bytes as they stand there.
struct File {
    version: u32,
    entries: Vec<Entry>,
    tensors: Vec<Tensor>,
}

#[derive(Clone)]
struct Entry {
    key: Vec<u8>,
    ty: u32,
    /// Behind the type.
    value: Vec<u8>,
}

#[derive(Clone)]
struct Tensor {
    name: Vec<u8>,
    dims: Vec<u64>,
    ty: u32,
    data: Vec<u8>,
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Bytes of a scalar.
fn width(ty: u32) -> Option<usize> {
    match ty {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

struct Cut<'a>(&'a [u8]);

impl<'a> Cut<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().map(|b| u32::from_le_bytes(*b))
    }
    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().map(|b| u64::from_le_bytes(*b))
    }
    fn text(&mut self) -> Option<&'a [u8]> {
        let n = self.u64()?;
        self.take(usize::try_from(n).ok()?)
    }
    /// Steps over a value of that type.
    fn value(&mut self, ty: u32) -> Option<()> {
        match ty {
            STRING => {
                self.text()?;
            }
            ARRAY => {
                let (element, n) = (self.u32()?, self.u64()?);
                match width(element) {
                    Some(bytes) => {
                        self.take(usize::try_from(n).ok()?.checked_mul(bytes)?)?;
                    }
                    None if element == STRING => (0..n).try_for_each(|_| self.text().map(|_| ()))?,
                    None => return None,
                }
            }
            _ => {
                self.take(width(ty)?)?;
            }
        }
        Some(())
    }
}

fn size_of(ty: u32, dims: &[u64]) -> Option<usize> {
    let ty = TensorType::from_number(ty)?;
    let n = dims.iter().try_fold(1_u64, |n, d| n.checked_mul(*d))?;
    usize::try_from(n / ty.block_len() as u64).ok()?.checked_mul(ty.block_bytes())
}

impl File {
    fn read(bytes: &[u8]) -> Option<File> {
        let mut cut = Cut(bytes);
        cut.take(4)?;
        let (version, n_tensors, n_entries) = (cut.u32()?, cut.u64()?, cut.u64()?);
        if n_tensors > 1000 || n_entries > 1000 {
            return None;
        }
        let mut entries = Vec::new();
        for _ in 0..n_entries {
            let (key, ty) = (cut.text()?.to_vec(), cut.u32()?);
            let before = cut.0;
            cut.value(ty)?;
            entries.push(Entry { key, ty, value: before[..before.len() - cut.0.len()].to_vec() });
        }
        let mut table = Vec::new();
        for _ in 0..n_tensors {
            let name = cut.text()?.to_vec();
            let n_dims = cut.u32()?.min(8);
            let dims: Vec<u64> = (0..n_dims).map(|_| cut.u64()).collect::<Option<_>>()?;
            table.push((name, dims, cut.u32()?, cut.u64()?));
        }
        let data = (bytes.len() - cut.0.len()).next_multiple_of(32);
        let read = |(name, dims, ty, at): (Vec<u8>, Vec<u64>, u32, u64)| {
            let n = size_of(ty, &dims).unwrap_or(0);
            let start = data.saturating_add(usize::try_from(at).unwrap_or(usize::MAX)).min(bytes.len());
            let data = bytes[start..start.saturating_add(n).min(bytes.len())].to_vec();
            Tensor { name, dims, ty, data }
        };
        Some(File { version, entries, tensors: table.into_iter().map(read).collect() })
    }

    fn write(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        let text = |out: &mut Vec<u8>, text: &[u8]| {
            out.extend((text.len() as u64).to_le_bytes());
            out.extend(text);
        };
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for entry in &self.entries {
            text(&mut out, &entry.key);
            out.extend(entry.ty.to_le_bytes());
            out.extend(&entry.value);
        }
        let mut at = 0_u64;
        for tensor in &self.tensors {
            text(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(tensor.ty.to_le_bytes());
            out.extend(at.to_le_bytes());
            at += tensor.data.len().next_multiple_of(32) as u64;
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(&tensor.data);
        }
        out
    }

    /// Makes each tensor's bytes as many as its shape says, within reason.
    fn fit(&mut self) {
        for tensor in &mut self.tensors {
            let n = size_of(tensor.ty, &tensor.dims).unwrap_or(0).min(1 << 14);
            let pattern = if tensor.data.is_empty() { vec![0x3c] } else { tensor.data.clone() };
            tensor.data = pattern.iter().copied().cycle().take(n).collect();
        }
    }
}

/// Random numbers from a seed (xorshift).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u32) -> Dice {
        Dice(crate::common::random::mix(seed.into()) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n.max(1)
    }
    pub fn number(&mut self) -> u64 {
        const ODD: [u64; 24] = [
            0,
            1,
            2,
            3,
            4,
            7,
            8,
            16,
            31,
            32,
            33,
            64,
            255,
            256,
            1024,
            4096,
            65_535,
            1 << 20,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            1 << 32,
            0x7fff_ffff_ffff_ffff,
            u64::MAX,
        ];
        if self.below(3) == 0 { self.next() >> self.below(64) } else { ODD[self.below(ODD.len())] }
    }
    fn float(&mut self) -> f64 {
        const ODD: [f64; 14] = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            1e-45,
            1e-6,
            1e38,
            -1e38,
            1e300,
            0.5,
            10_000.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ];
        ODD[self.below(ODD.len())]
    }
}

const WORDS: [&str; 24] = [
    "llama",
    "qwen2",
    "qwen3",
    "gemma3",
    "gpt2",
    "default",
    "gpt-2",
    "smollm",
    "llama-bpe",
    "linear",
    "yarn",
    "none",
    "",
    "\u{120}",
    "\u{2581}",
    "<0xFF>",
    "a b",
    "ab",
    "</s>",
    "<|im_end|>",
    "<|eot_id|>",
    "\u{10ffff}",
    "general.alignment",
    "tokenizer.ggml.merges",
];

fn text_value(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// Another value of a scalar type.
fn scalar(dice: &mut Dice, ty: u32) -> Vec<u8> {
    match ty {
        6 => (dice.float() as f32).to_le_bytes().to_vec(),
        12 => dice.float().to_le_bytes().to_vec(),
        7 => vec![(dice.below(9) < 8) as u8 * dice.below(2) as u8 + (dice.below(20) == 0) as u8 * 2],
        STRING => text_value(WORDS[dice.below(WORDS.len())].as_bytes()),
        _ => dice.number().to_le_bytes()[..width(ty).unwrap_or(4)].to_vec(),
    }
}

/// The places of an array's elements in its value.
fn elements(value: &[u8]) -> Option<(u32, Vec<std::ops::Range<usize>>)> {
    let mut cut = Cut(value);
    let (ty, n) = (cut.u32()?, cut.u64()?);
    let mut places = Vec::new();
    for _ in 0..n.min(4096) {
        let start = value.len() - cut.0.len();
        cut.value(ty)?;
        places.push(start..value.len() - cut.0.len());
    }
    Some((ty, places))
}

fn edit_array(dice: &mut Dice, value: &mut Vec<u8>) {
    let Some((ty, places)) = elements(value) else { return };
    let mut list: Vec<Vec<u8>> = places.iter().map(|p| value[p.clone()].to_vec()).collect();
    let (i, j) = (dice.below(list.len()), dice.below(list.len()));
    match dice.below(8) {
        0 if !list.is_empty() => list.swap(i, j),
        1 if !list.is_empty() => drop(list.remove(i)),
        2 if !list.is_empty() => list.insert(j, list[i].clone()),
        3 if !list.is_empty() => list.truncate(i),
        4 if ty == STRING && !list.is_empty() => {
            // Two texts made one.
            let joined = [&list[i][8..], &list[j][8..]].concat();
            list[i] = text_value(&joined);
        }
        5 if ty == STRING && !list.is_empty() => {
            let mut text = list[i][8..].to_vec();
            let at = dice.below(text.len() + 1);
            if at < text.len() && dice.below(2) == 0 {
                text[at] = dice.next() as u8
            } else {
                text.insert(at, b" ab\xc4<"[dice.below(5)])
            }
            list[i] = text_value(&text);
        }
        _ => {
            let new = scalar(dice, ty);
            if list.is_empty() { list.push(new) } else { list[i] = new }
        }
    }
    let mut out = value[..4].to_vec();
    out.extend((list.len() as u64).to_le_bytes());
    list.iter().for_each(|e| out.extend(e));
    *value = out;
}

fn edit(dice: &mut Dice, file: &mut File) {
    let n = file.entries.len();
    let (e, t) = (dice.below(n), dice.below(file.tensors.len()));
    match dice.below(16) {
        0..=4 if n > 0 => {
            let entry = &mut file.entries[e];
            if entry.ty == ARRAY { edit_array(dice, &mut entry.value) } else { entry.value = scalar(dice, entry.ty) }
        }
        5 if n > 0 => {
            let ty = [0, 2, 4, 5, 6, 7, 8, 10, 12][dice.below(9)];
            file.entries[e] = Entry { ty, value: scalar(dice, ty), key: file.entries[e].key.clone() };
        }
        6 if n > 0 => drop(file.entries.remove(e)),
        7 if n > 0 => {
            let other = dice.below(n);
            file.entries.swap(e, other);
        }
        8 => {
            let keys = [
                "general.alignment",
                "llama.rope.scaling.type",
                "qwen3.expert_count",
                "tokenizer.ggml.add_eos_token",
                "tokenizer.ggml.add_bos_token",
                "tokenizer.ggml.eom_token_id",
                "split.count",
                "split.no",
            ];
            let ty = [4, 4, 8, 7, 6][dice.below(5)];
            let key = keys[dice.below(keys.len())].as_bytes().to_vec();
            file.entries.push(Entry { key, ty, value: scalar(dice, ty) });
        }
        9 if !file.tensors.is_empty() => {
            let tensor = &mut file.tensors[t];
            match dice.below(4) {
                0 => tensor.ty = [0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 30, 5][dice.below(14)],
                1 => tensor.dims.push(dice.number()),
                _ if tensor.dims.is_empty() => {}
                _ => {
                    let d = dice.below(tensor.dims.len());
                    tensor.dims[d] = dice.number();
                }
            }
        }
        10 if !file.tensors.is_empty() => match dice.below(3) {
            0 => drop(file.tensors.remove(t)),
            1 => file.tensors.push(file.tensors[t].clone()),
            _ => file.tensors[t].name = file.tensors[dice.below(t + 1)].name.clone(),
        },
        11 if !file.tensors.is_empty() => {
            let data = &mut file.tensors[t].data;
            for _ in 0..4 {
                let at = dice.below(data.len() + 1);
                let new = [[0x00, 0x7c], [0x00, 0xfe], [0xff, 0x7b], [0x01, 0x00], [0xff, 0xff]][dice.below(5)];
                data.iter_mut().skip(at).zip(new).for_each(|(b, n)| *b = n);
            }
        }
        12 if !file.tensors.is_empty() => {
            let data = &mut file.tensors[t].data;
            data.truncate(dice.below(data.len() + 1));
        }
        // One size of the model, wherever it stands.
        _ => {
            let sizes: Vec<u64> = file.tensors.iter().flat_map(|t| t.dims.clone()).collect();
            if sizes.is_empty() {
                return;
            }
            let old = sizes[dice.below(sizes.len())];
            let new = [1, 2, 8, 16, 24, 32, 48, 64, 96, 128, 256, 320][dice.below(12)];
            for dim in file.tensors.iter_mut().flat_map(|t| &mut t.dims).filter(|d| **d == old) {
                *dim = new;
            }
            for entry in file.entries.iter_mut().filter(|e| e.ty == 4 && e.value == (old as u32).to_le_bytes()) {
                entry.value = (new as u32).to_le_bytes().to_vec();
            }
            file.fit();
        }
    }
}

/// For libFuzzer: a changed file in the place of the old; how long it is. `plain` turns bytes without knowing anything.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    plain: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut dice = Dice::new(seed);
    let Some(mut file) = (dice.below(8) > 0).then(|| File::read(&data[..size])).flatten() else {
        return plain(data, size, max_size);
    };
    for _ in 0..1 + dice.below(3) {
        edit(&mut dice, &mut file);
    }
    let out = file.write();
    if out.len() > max_size.min(data.len()) {
        return plain(data, size, max_size);
    }
    data[..out.len()].copy_from_slice(&out);
    out.len()
}
