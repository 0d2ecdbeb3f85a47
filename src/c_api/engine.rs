//! An engine is a device with its threads, its log and its memory cap. It makes models, which make sessions. Each
//! child keeps its parent alive: handles may be destroyed in any order, and what an engine holds is freed, and its
//! log callback called for the last time, when it and the last of its models and sessions are gone.

use super::host::{self, kigo_alloc_callback, kigo_free_callback, kigo_parallel_for, kigo_thread_callback};
use super::log::{kigo_log_callback, sink};
use super::prelude::*;
use crate::backend::Host;
use crate::engine::{Engine, EngineOptions};

/// A device. Its functions take it as const: any number of threads may call them at once.
pub struct kigo_engine(pub(super) Engine);

/// How an engine is made. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_engine_options {
    /// sizeof(kigo_engine_options).
    pub struct_size: usize,
    /// The device: "auto" (the default: "cuda:0" where that works, else "cpu"), "cpu", "cuda:N", "cuda:GPU-..." or "cuda:MIG-..."
    /// (the UUID of kigo_device_facts.uuid_text, or the beginning of one alone), or "reference" (plain and slow, to check the
    /// others against).
    pub device: *const c_char,
    /// Length of `device`, or KIGO_STRLEN.
    pub device_len: usize,
    /// Receives the engine's messages; NULL: silence.
    pub log: kigo_log_callback,
    /// Handed to `log`.
    pub log_user_data: *mut c_void,
    /// What weights, cache and working memory of all its models may take together; 0: no cap.
    pub memory_cap_bytes: u64,
    /// Threads that compute, the calling one included, or about as many as `parallel_for` has; 0: one for each physical core.
    /// At most 1,024.
    pub n_threads: u32,
    /// The least important messages wanted, KIGO_LOG_LEVEL_*; 0: KIGO_LOG_LEVEL_INFO.
    pub log_level: i32,
    /// Told of every thread that the engine starts; NULL: nobody.
    pub on_thread: kigo_thread_callback,
    /// Handed to `on_thread`.
    pub thread_user_data: *mut c_void,
    /// The `n_cpus` CPUs, by the system's numbers below 8,192, that workers run on; copied by the call. The calling thread is not
    /// touched, and where there are no workers (`n_threads` 1, or a GPU) nobody asks the system whether it has these CPUs.
    pub cpus: *const u32,
    /// How many; 0: wherever the thread that makes the engine may run. With `n_threads` 0, so many threads at most.
    pub n_cpus: usize,
    /// KIGO_AFFINITY_*.
    pub affinity: u64,
    /// KIGO_POLICY_*: the workers' scheduling class.
    pub thread_policy: i32,
    /// Their nice value or priority in it.
    pub thread_priority: i32,
    /// Runs the work of passes in the place of workers, of which there are none then; NULL: nobody.
    pub parallel_for: kigo_parallel_for,
    /// Handed to `parallel_for`.
    pub parallel_for_user_data: *mut c_void,
    /// Gives the large memory, together with `free`; NULL: the system does.
    pub alloc: kigo_alloc_callback,
    /// Takes it back.
    pub free: kigo_free_callback,
    /// Handed to `alloc` and `free`.
    pub memory_user_data: *mut c_void,
}
sized_struct!(kigo_engine_options, bytes: 144, fields: [
    usize, *const c_char, usize, kigo_log_callback, *mut c_void, u64, u32, i32, kigo_thread_callback, *mut c_void,
    *const u32, usize, u64, i32, i32, kigo_parallel_for, *mut c_void, kigo_alloc_callback, kigo_free_callback,
    *mut c_void,
]);

/// What an engine is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_engine_facts {
    /// sizeof(kigo_engine_facts), set by the caller.
    pub struct_size: usize,
    /// The cap it was made with; 0: none.
    pub memory_cap_bytes: u64,
    /// What counts against the cap now.
    pub memory_used_bytes: u64,
    /// Threads that compute; 1 for a device that has its own.
    pub n_threads: u64,
}
sized_struct!(kigo_engine_facts, bytes: 32, fields: [usize, u64, u64, u64]);

/// Makes an engine. `options` may be NULL: all defaults.
///
/// INVALID_ARGUMENT: a device string that is none of those above, an unknown log level, too many threads, a
/// `struct_size` that cannot be one; a CPU, a policy or a priority that the system refuses (the text has the numbers and its
/// reason), or any of these together with `parallel_for`; `alloc` without `free` or the other way round. UNSUPPORTED: placing
/// threads on a system other than Linux. DEVICE_UNAVAILABLE: the device is not on this machine or not in this build; the
/// text says which. OUT_OF_MEMORY, also when the system gives no threads. CANCELLED by `on_thread`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_engine_create(
    options: *const kigo_engine_options,
    engine: *mut *mut kigo_engine,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(engine, "engine")?;
        super::guard::room()?;
        let options = super::args::options(options)?;
        let device = if options.device.is_null() && options.device_len == 0 {
            "auto"
        } else {
            text(options.device, options.device_len, "device")?
        };
        let log = sink(options.log, options.log_user_data, options.log_level)?;
        let memory_cap = (options.memory_cap_bytes != 0).then_some(options.memory_cap_bytes);
        let n_threads = options.n_threads as usize;
        let cpus = slice(options.cpus, options.n_cpus, "cpus")?;
        let placement = host::placement(cpus, options.affinity, options.thread_policy, options.thread_priority)?;
        let host = Host {
            parallel_for: host::parallel_for(options.parallel_for, options.parallel_for_user_data),
            placement,
            memory: host::memory(options.alloc, options.free, options.memory_user_data)?,
        };
        // The call's own threads are told of, and those of calls with the handle.
        crate::process::exchange_hook(host::hook(options.on_thread, options.thread_user_data));
        let options = EngineOptions { device, n_threads, memory_cap, log };
        put(engine, kigo_engine(Engine::of_host(options, host)?))
    })
}

/// Gives the handle up. NULL does nothing. Models and sessions made from it go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_engine_destroy(engine: *mut kigo_engine) {
    guard_free(|| {
        // SAFETY: the header's contract for handles.
        unsafe { destroy(engine) };
        Ok(())
    });
}

/// The name of the device in use: "cpu", "cuda:0", "reference". Text out (see "Conventions").
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_engine_device(
    engine: *const kigo_engine,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        out.store_text(borrow(engine, "engine")?.0.device_name().as_bytes())
    })
}

/// Measures how many bytes a second the device's memory can be read with, which takes a few milliseconds and up to 1 GiB
/// of that memory meanwhile: what the speed of a decode step may be held against. KIGO_STATUS_UNSUPPORTED on the CPU, whose
/// memory any program can measure itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_engine_read_bandwidth(
    engine: *const kigo_engine,
    bytes_per_second: *mut f64,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(bytes_per_second, "bytes_per_second")?;
        *bytes_per_second = borrow(engine, "engine")?.0.read_bandwidth()?;
        Ok(())
    })
}

/// Fills `facts`, whose `struct_size` the caller has set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_engine_info(engine: *const kigo_engine, facts: *mut kigo_engine_facts) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(facts, "facts")?;
        let engine = &borrow(engine, "engine")?.0;
        let value = kigo_engine_facts {
            struct_size: size,
            memory_cap_bytes: engine.memory_cap().unwrap_or(0),
            memory_used_bytes: engine.memory_used(),
            n_threads: engine.n_threads() as u64,
        };
        fill(facts, size, &value);
        Ok(())
    })
}

/// The text of the last call with this handle that failed, on whichever thread, as kigo_last_error() has it of a
/// thread; empty if none has. Text out; 1,024 bytes always suffice. A load that fails is its engine's. Calls that
/// succeed leave it alone, and so does this one. Any thread, also while another is inside a call with the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_engine_last_error(
    engine: *const kigo_engine,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        last_error(engine, "engine", &out)
    })
}
