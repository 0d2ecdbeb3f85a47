//! The devices of this machine, listed without opening one: the CPU is device 0, and GPUs follow as CUDA counts them, so that
//! CUDA_VISIBLE_DEVICES hides them here too. Where there is no driver the CPU is alone, and says why. In a child of fork() whose
//! parent has opened CUDA there is the CPU alone.

use super::prelude::*;
use crate::backend::{DeviceInfo, DeviceKind, device_count, device_info};

/// Kind of a device: the processor.
pub const KIGO_DEVICE_CPU: i32 = 1;
/// Kind of a device: a GPU of NVIDIA's, or a part of one that is a device of its own (MIG).
pub const KIGO_DEVICE_CUDA: i32 = 2;

/// A device.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_device_facts {
    /// sizeof(kigo_device_facts), set by the caller.
    pub struct_size: usize,
    /// Bytes of its memory; 0: unknown.
    pub total_bytes: u64,
    /// Those of them that are free now, for any process; 0: unknown. On a GPU the driver's management library says it, or where that is
    /// missing a context that is made for the question, which takes some hundred milliseconds.
    pub free_bytes: u64,
    /// Physical cores that this process may use, or multiprocessors.
    pub n_cores: u64,
    /// KIGO_DEVICE_*.
    pub kind: i32,
    /// 1: this build has code for it; 0: it has not, and `reason` says why.
    pub usable: i32,
    /// Compute capability of a GPU, such as 9 in 9.0; 0 on the CPU.
    pub compute_major: u32,
    /// And the 0 in 9.0.
    pub compute_minor: u32,
    /// The UUID of a GPU, or of a part of one; zeros on the CPU.
    pub uuid: [u8; 16],
    /// What kigo_engine_options.device takes: "cpu", "cuda:0". With a NUL, as all texts here.
    pub device: [c_char; 16],
    /// The UUID as CUDA_VISIBLE_DEVICES takes it, "GPU-01234567-89ab-cdef-0123-456789abcdef" or "MIG-...", and behind "cuda:" also
    /// kigo_engine_options.device; empty on the CPU.
    pub uuid_text: [c_char; 48],
    /// The maker's name of it; cut where it is longer.
    pub name: [c_char; 128],
    /// Why this build has no code for it; on the CPU, why there is no GPU. Empty where there is nothing to say; cut where it is longer.
    pub reason: [c_char; 256],
}
sized_struct!(kigo_device_facts, bytes: 512, fields: [
    usize, u64, u64, u64, i32, i32, u32, u32, [u8; 16], [c_char; 16], [c_char; 48], [c_char; 128], [c_char; 256],
]);

/// A text that is cut at a character where it is too long, with a NUL.
fn text_of<const N: usize>(text: &str) -> [c_char; N] {
    let mut out = [0; N];
    let end = (0..=text.len().min(N.saturating_sub(1))).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    out.iter_mut().zip(text.bytes().take(end)).for_each(|(to, from)| *to = from as c_char);
    out
}

/// How many devices there are, the CPU included. Any thread, without an engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_device_count(n_devices: *mut usize) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(n_devices, "n_devices")?;
        super::guard::room()?;
        n_devices.write(device_count());
        crate::alloc::enough()
    })
}

/// Fills `facts`, whose `struct_size` the caller has set, with what device `index` is. Any thread, without an engine.
///
/// NOT_FOUND: there are not so many. DEVICE_UNAVAILABLE: the driver says nothing of it; the text has its reason.
/// IO: of the CPU, where the process may open no file any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_device_info(index: usize, facts: *mut kigo_device_facts) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(facts, "facts")?;
        super::guard::room()?;
        let info: DeviceInfo = device_info(index)?;
        let value = kigo_device_facts {
            struct_size: size,
            total_bytes: info.total_bytes,
            free_bytes: info.free_bytes,
            n_cores: info.n_cores as u64,
            kind: match info.kind {
                DeviceKind::Cpu => KIGO_DEVICE_CPU,
                DeviceKind::Cuda => KIGO_DEVICE_CUDA,
            },
            usable: i32::from(info.usable),
            compute_major: info.compute.0,
            compute_minor: info.compute.1,
            uuid: info.uuid.unwrap_or_default(),
            device: text_of(&info.device),
            uuid_text: text_of(&info.uuid_text),
            name: text_of(&info.name),
            reason: text_of(&info.reason),
        };
        crate::alloc::enough()?;
        fill(facts, size, &value);
        Ok(())
    })
}
