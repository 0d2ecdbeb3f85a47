//! Devices by their names.

use std::sync::Arc;

use super::cpu::{CpuDevice, CpuOptions};
use super::reference::ReferenceDevice;
use super::{Device, Host, MAX_THREADS, cuda};
use crate::error::{Error, Result};

/// Opens the device of that name: "auto" (the first GPU, or else the CPU), "cpu", "cuda:N", "cuda:" and a UUID, or "reference". `n_threads`
/// (0: one for each physical core) is for those that compute on the host's threads.
pub fn open(name: &str, n_threads: usize) -> Result<Arc<dyn Device>> {
    open_for(name, n_threads, Host::default(), &mut |_, _| {})
}

/// [`open`] for a host that does some of what the CPU's device does; `passed_over` is told of each device that "auto" would rather have had, and
/// why it could not.
pub fn open_for(
    name: &str,
    n_threads: usize,
    host: Host,
    passed_over: &mut dyn FnMut(&str, &Error),
) -> Result<Arc<dyn Device>> {
    host.check()?;
    if n_threads > MAX_THREADS {
        let expected = format!("at most {MAX_THREADS}");
        return Err(Error::Argument { name: "n_threads", found: n_threads.to_string(), expected });
    }
    match name {
        "auto" => cuda::open(0).or_else(|error| {
            passed_over("cuda:0", &error);
            open_for("cpu", n_threads, host, passed_over)
        }),
        "cpu" => Ok(Arc::new(CpuDevice::of_host(CpuOptions { n_threads, isa: None }, host)?)),
        "reference" => Ok(Arc::new(ReferenceDevice::PLAIN)),
        _ => match name.strip_prefix("cuda:").map(|which| (which, which.parse::<u16>())) {
            Some((_, Ok(ordinal))) => cuda::open(ordinal.into()),
            Some((uuid, _)) if uuid.starts_with("GPU-") || uuid.starts_with("MIG-") => cuda::open_by_uuid(uuid),
            _ => Err(Error::Argument {
                name: "device",
                found: format!("\"{name}\""),
                expected: "\"auto\", \"cpu\", \"cuda:N\" or \"reference\", N being a number or a UUID".to_owned(),
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
        let nobody = "cuda:GPU-00000000-0000-0000-0000-000000000000";
        assert!(opened(nobody, 1).unwrap_err().starts_with(&format!("device \"{nobody}\" is unavailable: ")));
        assert!(opened("cuda:MIG-GPU-1/2/3", 1).unwrap_err().contains("expected a UUID"));
    }
}
