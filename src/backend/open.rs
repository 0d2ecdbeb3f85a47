//! Devices by their names.

use std::sync::Arc;

use super::cpu::{CpuDevice, CpuOptions};
use super::reference::ReferenceDevice;
use super::{Device, MAX_THREADS, cuda};
use crate::error::{Error, Result};

/// Opens the device of that name: "auto" (the first GPU, or else the CPU), "cpu", "cuda:N" or "reference". `n_threads`
/// (0: one for each physical core) is for those that compute on the host's threads.
pub fn open(name: &str, n_threads: usize) -> Result<Arc<dyn Device>> {
    open_telling(name, n_threads, &mut |_, _| {})
}

/// [`open`], which tells `passed_over` of each device that "auto" would rather have had, and why it could not.
pub fn open_telling(
    name: &str,
    n_threads: usize,
    passed_over: &mut dyn FnMut(&str, &Error),
) -> Result<Arc<dyn Device>> {
    if n_threads > MAX_THREADS {
        let expected = format!("at most {MAX_THREADS}");
        return Err(Error::Argument { name: "n_threads", found: n_threads.to_string(), expected });
    }
    match name {
        "auto" => cuda::open(0).or_else(|error| {
            passed_over("cuda:0", &error);
            open("cpu", n_threads)
        }),
        "cpu" => Ok(Arc::new(CpuDevice::new(CpuOptions { n_threads, isa: None })?)),
        "reference" => Ok(Arc::new(ReferenceDevice::PLAIN)),
        _ => match name.strip_prefix("cuda:").map(str::parse::<u16>) {
            Some(Ok(ordinal)) => cuda::open(ordinal.into()),
            _ => Err(Error::Argument {
                name: "device",
                found: format!("\"{name}\""),
                expected: "\"auto\", \"cpu\", \"cuda:N\" or \"reference\"".to_owned(),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(name: &str, n_threads: usize) -> std::result::Result<(String, usize), String> {
        open(name, n_threads).map(|device| (device.name(), device.n_threads())).map_err(|error| error.to_string())
    }

    #[test]
    fn each_name_opens_its_device_and_others_are_refused() {
        assert_eq!(opened("cpu", 2), Ok(("cpu".to_owned(), 2)));
        assert_eq!(opened("reference", 2), Ok(("reference".to_owned(), 1)));
        for name in ["", "CPU", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:65536", "cpu:0"] {
            let refused = opened(name, 1).unwrap_err();
            assert!(refused.contains(&format!("\"{name}\"")) && refused.contains("cuda:N"), "{refused}");
        }
        for name in ["auto", "cpu", "reference", "cuda:0"] {
            let refused = opened(name, MAX_THREADS + 1).unwrap_err();
            assert!(refused.contains("1025") && refused.contains("1024"), "{refused}");
        }
        assert!(opened("cuda:65535", 1).unwrap_err().contains("cuda:65535"));
    }
}
