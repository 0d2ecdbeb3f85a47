//! What a device is, as it can be told without opening it; GPUs by their UUIDs, and the code that runs on them.

use crate::error::{Error, Result};

/// What kind a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// A GPU of NVIDIA's, or a part of one (MIG).
    Cuda,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// See [`DeviceKind`].
    pub kind: DeviceKind,
    /// What [`super::open()`] takes: "cpu", "cuda:0".
    pub device: String,
    /// The maker's name of it.
    pub name: String,
    /// A GPU's.
    pub uuid: Option<[u8; 16]>,
    /// "GPU-..." or "MIG-..."; empty without a UUID.
    pub uuid_text: String,
    /// Bytes of its memory; 0: unknown.
    pub total_bytes: u64,
    /// Those of them that are free; 0: unknown.
    pub free_bytes: u64,
    /// Compute capability of a GPU.
    pub compute: (u32, u32),
    /// Physical cores that this process may use, or multiprocessors.
    pub n_cores: usize,
    /// Why this build has no code for it; of the CPU, why there is no GPU; empty where neither is so.
    pub reason: String,
    /// Whether this build has code for it.
    pub usable: bool,
}

/// The text that CUDA_VISIBLE_DEVICES takes.
#[cfg(any(kigo_cuda, test))]
pub(super) fn uuid_text(uuid: &[u8; 16], is_mig: bool) -> String {
    let mut text = String::from(if is_mig { "MIG-" } else { "GPU-" });
    for (i, byte) in uuid.iter().enumerate() {
        if [4, 6, 8, 10].contains(&i) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Which of these devices, each by its [`uuid_text`], is meant: the only one that begins so.
pub(super) fn find_uuid(all: &[String], wanted: &str) -> Result<usize> {
    let digits = wanted.get(4..).unwrap_or_default();
    let is_place = |(i, c): (usize, char)| if [8, 13, 18, 23].contains(&i) { c == '-' } else { c.is_ascii_hexdigit() };
    let known = wanted.starts_with("GPU-") || wanted.starts_with("MIG-");
    if !known || digits.is_empty() || digits.len() > 36 || !digits.char_indices().all(is_place) {
        return Err(Error::Argument {
            name: "device",
            found: format!("\"cuda:{wanted}\""),
            expected: "a UUID as \"cuda:GPU-01234567-89ab-cdef-0123-456789abcdef\", or its beginning".to_owned(),
        });
    }
    let lower = format!("{}{}", wanted.get(..4).unwrap_or_default(), digits.to_ascii_lowercase());
    let mut found = all.iter().enumerate().filter(|(_, uuid)| uuid.starts_with(&lower)).map(|(ordinal, _)| ordinal);
    match (found.next(), found.count()) {
        (Some(ordinal), 0) => Ok(ordinal),
        (None, _) => Err(Error::DeviceUnavailable {
            device: format!("cuda:{wanted}"),
            reason: format!("none of the {} CUDA devices of this process has that UUID", all.len()),
        }),
        (Some(_), more) => Err(Error::Argument {
            name: "device",
            found: format!("\"cuda:{wanted}\", with which {} UUIDs begin", more + 1),
            expected: "the beginning of one".to_owned(),
        }),
    }
}

/// Why a build for these targets ("80,90a,ptx90") has no code for a GPU of this compute capability; `None`: it has.
#[cfg(any(kigo_cuda, test))]
pub(super) fn lacks_code(targets: &str, (major, minor): (u32, u32)) -> Option<String> {
    if major < 8 {
        return Some(format!("compute capability {major}.{minor} is below 8.0"));
    }
    let has = |target: &str| {
        let (text, is_ptx) = target.strip_prefix("ptx").map_or((target, false), |rest| (rest, true));
        let exact = text.ends_with(|c: char| c.is_ascii_alphabetic());
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse::<u32>().unwrap_or(u32::MAX);
        match (number / 10, number % 10) {
            of if exact => of == (major, minor),
            of if is_ptx => of <= (major, minor),
            (of, least) => of == major && least <= minor,
        }
    };
    let none = !targets.split([',', ' ', ';']).filter(|t| !t.is_empty()).any(has);
    none.then(|| format!("compute capability {major}.{minor}; this build has code for {targets}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_written_and_found_as_cuda_writes_them() {
        let mut uuid = [0; 16];
        uuid.iter_mut().zip(0x11_u8..).for_each(|(byte, i)| *byte = i);
        let text = uuid_text(&uuid, false);
        assert_eq!(text, "GPU-11121314-1516-1718-191a-1b1c1d1e1f20");
        let mut other = uuid;
        other[3] = 0xee;
        let all = [text.clone(), uuid_text(&other, false), uuid_text(&uuid, true)];
        for (wanted, ordinal) in [
            (text.as_str(), 0),
            ("GPU-11121314", 0),
            ("GPU-111213E", 1),
            ("MIG-1", 2),
            ("MIG-11121314-1516-1718-191A-1B1C1D1E1F20", 2),
        ] {
            assert_eq!(find_uuid(&all, wanted).unwrap(), ordinal, "{wanted}");
        }
        let refused = |wanted: &str| find_uuid(&all, wanted).unwrap_err().to_string();
        assert!(refused("GPU-1").contains("with which 2 UUIDs begin"));
        assert!(refused("GPU-2").contains("none of the 3 CUDA devices of this process"));
        let long = format!("{text}0");
        for wanted in ["GPU-", "gpu-11", "GPU-1112131415", "GPU-x", "MIG-GPU-11121314/1/0", "GPU", "GPU-é", &long] {
            assert!(refused(wanted).contains("expected a UUID as \"cuda:GPU-"), "{wanted}");
        }
    }

    #[test]
    fn code_runs_where_cuda_says_that_it_does() {
        let all = "80,89,90a,ptx90";
        for compute in [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 1)] {
            assert_eq!(lacks_code(all, compute), None, "{compute:?}");
        }
        assert_eq!(lacks_code(all, (7, 5)).as_deref(), Some("compute capability 7.5 is below 8.0"));
        for (targets, compute) in
            [("90a", (8, 9)), ("90a", (9, 1)), ("90a", (10, 0)), ("89", (8, 6)), ("80", (9, 0)), ("ptx90", (8, 9))]
        {
            let why = lacks_code(targets, compute).unwrap();
            assert!(why.ends_with(&format!("this build has code for {targets}")), "{why}");
        }
        assert!(lacks_code("90a", (9, 0)).is_none() && lacks_code("80 ptx80", (9, 0)).is_none());
    }
}
