//! The devices of this machine, listed without opening one.

use std::fs::File;

use super::cpu::{head, physical_cores};
use super::cuda;
pub use super::info::{DeviceInfo, DeviceKind};
use crate::error::{Error, Result};

/// How many there are: the CPU, and what GPUs there are.
pub fn device_count() -> usize {
    1 + cuda::count().unwrap_or(0)
}

/// The CPU is 0, GPU n is n + 1. `NotFound` behind the last; `Io` where what the system says of the CPU cannot be opened any more.
pub fn device_info(index: usize) -> Result<DeviceInfo> {
    let n = cuda::count();
    match index.checked_sub(1) {
        None => cpu(n),
        Some(ordinal) if ordinal < n.as_ref().copied().unwrap_or(0) => cuda::info(ordinal),
        Some(_) => Err(Error::NotFound { what: "device", name: format!("{index} of {}", 1 + n.unwrap_or(0)) }),
    }
}

fn cpu(n_gpus: std::result::Result<usize, String>) -> Result<DeviceInfo> {
    // A system without these files has a CPU of no name; one that has no descriptor left is no other than it was.
    let path = "/proc/cpuinfo";
    if let Err(source) = File::open(path)
        && matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
    {
        return Err(Error::Io { path: path.into(), what: "open", source });
    }
    let (mut processor, mut memory) = ([0; 4096], [0; 4096]);
    let processor = head(path, &mut processor).unwrap_or_default();
    let memory = head("/proc/meminfo", &mut memory).unwrap_or_default();
    let kib =
        |key: &str| value(memory, key).and_then(|v| v.strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0);
    let reason = match n_gpus {
        Ok(0) => "no GPU: this machine has 0 CUDA devices".to_owned(),
        Ok(_) => String::new(),
        Err(why) => format!("no GPU: {why}"),
    };
    Ok(DeviceInfo {
        kind: DeviceKind::Cpu,
        device: "cpu".to_owned(),
        name: value(processor, "model name").unwrap_or(std::env::consts::ARCH).to_owned(),
        uuid: None,
        uuid_text: String::new(),
        total_bytes: kib("MemTotal") << 10,
        free_bytes: kib("MemAvailable") << 10,
        compute: (0, 0),
        n_cores: physical_cores(),
        reason,
        usable: true,
    })
}

/// The value of the first line `key : value`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let is_key = |line: &&str| line.split(':').next().is_some_and(|before| before.trim() == key);
    text.lines().find(is_key).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_the_first_and_says_why_it_is_alone() {
        let (n, cpu) = (device_count(), device_info(0).unwrap());
        assert_eq!((cpu.kind, cpu.device.as_str(), cpu.usable), (DeviceKind::Cpu, "cpu", true));
        assert!(!cpu.name.is_empty() && cpu.n_cores > 0, "{cpu:?}");
        assert!(!cfg!(target_os = "linux") || (0 < cpu.free_bytes && cpu.free_bytes <= cpu.total_bytes), "{cpu:?}");
        assert_eq!(cpu.reason.is_empty(), n > 1, "{}", cpu.reason);
        let text = device_info(n).unwrap_err().to_string();
        assert_eq!(text, format!("device \"{n} of {n}\" not found"));
        for index in 1..n {
            let gpu = device_info(index).unwrap();
            assert_eq!((gpu.kind, gpu.device), (DeviceKind::Cuda, format!("cuda:{}", index - 1)));
        }
    }
}
