//! What a host can do in an engine's place, by fields of kigo_engine_options: it is told of every thread that the engine starts, says
//! where those that compute run and how urgently, runs their work on threads of its own, and gives the large memory.
//!
//! No call may come from inside one of the functions of this section, on the same thread: whatever has a handle gives
//! KIGO_STATUS_BUSY there, but for kigo_session_cancel(), _clear_cancel() and the _last_error functions, and the _destroy functions
//! do nothing. Nor may they wait for a thread that is inside a call with the same engine's handles. They must return (not throw, not
//! longjmp).
//! They may be called until the engine and the last of its models, sessions and other handles are gone.
//!
//! Threads. An engine on the CPU starts n_threads - 1 workers when it is made, which live as long as it does. Anything else that a thread
//! is needed for is a task of a call, which waits for it: chat templates, grammars, and on a GPU the reading of a file. Threads that
//! CUDA starts are not the library's, and the host is not told of them.
//!
//! Stages. A pass on the CPU is made of stages, of which each is one call of parallel_for with up to 8 bodies a thread (n_threads says
//! how many there are); between two calls the calling thread computes alone. A token of a model with 24 layers takes about 120
//! calls. Bodies do not wait for each other: they may run at once or one after the other, in any order, on any threads, which need
//! 128 KiB of stack. The order has no influence on any bit. Loading a model takes stages too. Other devices use no threads of the host's
//! for what they compute, so there parallel_for, cpus and thread_policy have no effect; nor do they on the devices that kigo_doctor() makes
//! for its comparison.

use std::sync::Arc;

use super::log::UserData;
use super::prelude::*;
use crate::backend::cpu::{ParallelFor, Stage};
use crate::backend::{HostMemory, MemoryKind};
use crate::process::{MOST_CPUS, Placement, Policy, ThreadEvent, ThreadHook, ThreadKind};

/// Kind of a thread: it computes, for as long as its engine lives.
pub const KIGO_THREAD_WORKER: i32 = 1;
/// Kind of a thread: it does one thing for a call, which waits for it.
pub const KIGO_THREAD_TASK: i32 = 2;

/// A thread of the library's that begins or ends.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_thread_event {
    /// sizeof(kigo_thread_event) of the library: a field behind it is not there.
    pub struct_size: usize,
    /// Its name, such as "kigo-1", which is also the system's. UTF-8 with a NUL, valid during the callback.
    pub name: *const c_char,
    /// A worker's is 1 to n_threads - 1, since the calling thread is number 0; tasks that run together count from 0.
    pub index: u64,
    /// KIGO_THREAD_*.
    pub kind: i32,
    /// 1: it ends, having done its work; 0: it begins.
    pub ends: i32,
}
sized_struct!(kigo_thread_event, bytes: 32, fields: [usize, *const c_char, u64, i32, i32]);

/// Told by a thread of the library's itself that it begins or ends, once each. A worker has its CPUs and its class by then; what
/// the callback makes of them stays. Returns 0 to go on; anything else at a beginning ends the thread, without another event,
/// and the call that started it gives KIGO_STATUS_CANCELLED (kigo_engine_create() for a worker). At an end it says nothing.
pub type kigo_thread_callback =
    Option<unsafe extern "C" fn(event: *const kigo_thread_event, user_data: *mut c_void) -> i32>;

/// Affinity: each worker may run on any of the CPUs.
pub const KIGO_AFFINITY_ANY: u64 = 0;
/// Affinity: worker i runs on `cpus[i % n_cpus]` alone; `cpus[0]` is left to the calling thread where there are enough.
pub const KIGO_AFFINITY_EACH: u64 = 1;

/// Scheduling: as the thread that makes the engine, nice value included.
pub const KIGO_POLICY_INHERITED: i32 = 0;
/// Scheduling: the usual class (SCHED_OTHER); the priority is a nice value, -20 to 19.
pub const KIGO_POLICY_NORMAL: i32 = 1;
/// Scheduling: for what computes long (SCHED_BATCH); the priority is a nice value, -20 to 19.
pub const KIGO_POLICY_BATCH: i32 = 2;
/// Scheduling: only where nothing else wants to run (SCHED_IDLE); the priority is 0.
pub const KIGO_POLICY_IDLE: i32 = 3;
/// Scheduling: real time, first in, first out (SCHED_FIFO); the priority is 1 to 99. Workers look for work for 150 microseconds
/// before they sleep.
pub const KIGO_POLICY_FIFO: i32 = 4;
/// Scheduling: real time, in turn (SCHED_RR); the priority is 1 to 99.
pub const KIGO_POLICY_ROUND_ROBIN: i32 = 5;

/// A part of a stage. On any thread, as often as the contract of kigo_parallel_for says.
pub type kigo_body = Option<unsafe extern "C" fn(context: *mut c_void, index: usize)>;

/// Calls body(context, 0) to body(context, n - 1), each once, and returns when all of them have returned. On a thread that is inside
/// a call of the library, one such thread at a time for an engine. Returns 0; anything else says that it could not: the call
/// gives KIGO_STATUS_CANCELLED, whatever has run, with the session as it was before.
///
/// A host that returns before each body has run, or calls one twice or one that is none, gets KIGO_STATUS_INVALID_STATE with the
/// numbers from the call, and the session is as before it. Bodies that are running when it returns are waited for. What is called
/// later, also when the engine is gone, does nothing: for that a few hundred bytes of an engine stay, which the next one uses. But
/// what is called while another call of kigo_parallel_for is on its way, of this engine or of one that was made after its end, counts
/// as called by that one, which gets KIGO_STATUS_INVALID_STATE.
pub type kigo_parallel_for =
    Option<unsafe extern "C" fn(n: usize, body: kigo_body, context: *mut c_void, user_data: *mut c_void) -> i32>;

/// Kind of memory: weights, as the CPU has them packed. One block a model.
pub const KIGO_MEMORY_WEIGHTS: i32 = 1;
/// Kind of memory: a page of the KV cache, or of its layers with one window. A block each.
pub const KIGO_MEMORY_PAGES: i32 = 2;
/// Kind of memory: what a session has beside its pages: its logits.
pub const KIGO_MEMORY_STATE: i32 = 3;
/// Kind of memory: what a model's passes work in, which grows with the longest pass.
pub const KIGO_MEMORY_WORK: i32 = 4;

/// Gives `bytes` bytes, at least one, at a multiple of `alignment`, a power of two, with anything in them; NULL: there are none, and
/// the call gives KIGO_STATUS_OUT_OF_MEMORY with the bytes, after what is spare in the caches of the engine's models has been
/// given back. What is no multiple of `alignment` is given back at once, and the call gives KIGO_STATUS_INVALID_STATE.
///
/// It is asked on the CPU alone; a GPU's memory is the driver's. Not asked for, but malloc()'s: the vocabulary and templates, grammars,
/// norms and biases, tables of pages and tokens (some bytes a token), parts of a pass (some hundred KiB), what choosing a
/// token takes (about 24 bytes an entry of the vocabulary), while a file is read 256 KiB a thread, and stacks of threads.
pub type kigo_alloc_callback =
    Option<unsafe extern "C" fn(bytes: usize, alignment: usize, kind: i32, user_data: *mut c_void) -> *mut c_void>;

/// Takes back what kigo_alloc_callback gave, with the same numbers. Each block once, on any thread; all of them before the _destroy
/// call returns that gives up the engine or, later, the last handle made from it.
pub type kigo_free_callback = Option<
    unsafe extern "C" fn(pointer: *mut c_void, bytes: usize, alignment: usize, kind: i32, user_data: *mut c_void),
>;

/// Who is told of an engine's threads.
pub(super) fn hook(callback: kigo_thread_callback, user_data: *mut c_void) -> Option<Arc<ThreadHook>> {
    let (callback, user_data) = (callback?, UserData(user_data));
    Some(ThreadHook::new(move |event: &ThreadEvent<'_>| {
        let user_data = &user_data;
        let mut name = [0_u8; 16];
        name.iter_mut().zip(event.name.bytes().take(15)).for_each(|(to, from)| *to = from);
        let event = kigo_thread_event {
            struct_size: size_of::<kigo_thread_event>(),
            name: name.as_ptr().cast(),
            index: event.index as u64,
            kind: match event.kind {
                ThreadKind::Worker => KIGO_THREAD_WORKER,
                ThreadKind::Task => KIGO_THREAD_TASK,
            },
            ends: i32::from(event.ends),
        };
        // SAFETY: the caller's function, called as the header says; event and name live through the call.
        unsafe { callback(&raw const event, user_data.0) == 0 }
    }))
}

fn policy(number: i32) -> Result<Policy> {
    match number {
        KIGO_POLICY_INHERITED => Ok(Policy::Inherited),
        KIGO_POLICY_NORMAL => Ok(Policy::Normal),
        KIGO_POLICY_BATCH => Ok(Policy::Batch),
        KIGO_POLICY_IDLE => Ok(Policy::Idle),
        KIGO_POLICY_FIFO => Ok(Policy::Fifo),
        KIGO_POLICY_ROUND_ROBIN => Ok(Policy::RoundRobin),
        other => {
            let expected = "one of KIGO_POLICY_* (0 to 5)".to_owned();
            Err(Error::Argument { name: "thread_policy", found: other.to_string(), expected })
        }
    }
}

unsafe extern "C" fn body(context: *mut c_void, index: usize) {
    // SAFETY: the context is a stage, and none is ever freed.
    unsafe { &*context.cast_const().cast::<Stage>() }.part(index);
}

/// A host's function as the CPU calls it.
pub(super) fn parallel_for(callback: kigo_parallel_for, user_data: *mut c_void) -> Option<Arc<ParallelFor>> {
    let (callback, user_data) = (callback?, UserData(user_data));
    Some(Arc::new(move |n: usize, stage: &'static Stage| {
        let user_data = &user_data;
        let context = std::ptr::from_ref(stage).cast_mut().cast();
        // SAFETY: the caller's function, called as the header says.
        unsafe { callback(n, Some(body), context, user_data.0) == 0 }
    }))
}

/// A host's two functions.
struct Memory {
    alloc: unsafe extern "C" fn(usize, usize, i32, *mut c_void) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, usize, usize, i32, *mut c_void),
    user_data: UserData,
}

fn number(kind: MemoryKind) -> i32 {
    match kind {
        MemoryKind::Weights => KIGO_MEMORY_WEIGHTS,
        MemoryKind::Pages => KIGO_MEMORY_PAGES,
        MemoryKind::State => KIGO_MEMORY_STATE,
        MemoryKind::Work => KIGO_MEMORY_WORK,
    }
}

impl HostMemory for Memory {
    fn alloc(&self, bytes: usize, alignment: usize, kind: MemoryKind) -> *mut u8 {
        // SAFETY: the caller's function, called as the header says.
        unsafe { (self.alloc)(bytes, alignment, number(kind), self.user_data.0) }.cast()
    }

    fn free(&self, at: *mut u8, bytes: usize, alignment: usize, kind: MemoryKind) {
        // SAFETY: as above, with what the other has given.
        unsafe { (self.free)(at.cast(), bytes, alignment, number(kind), self.user_data.0) };
    }
}

/// The host's memory, if it has both functions; one of two is an error.
pub(super) fn memory(
    alloc: kigo_alloc_callback,
    free: kigo_free_callback,
    user_data: *mut c_void,
) -> Result<Option<Arc<dyn HostMemory>>> {
    match (alloc, free) {
        (None, None) => Ok(None),
        (Some(alloc), Some(free)) => Ok(Some(Arc::new(Memory { alloc, free, user_data: UserData(user_data) }))),
        (Some(_), None) => Err(Error::Null { name: "free" }),
        (None, Some(_)) => Err(Error::Null { name: "alloc" }),
    }
}

/// Where workers run and how urgently.
pub(super) fn placement(cpus: &[u32], affinity: u64, policy: i32, priority: i32) -> Result<Placement> {
    if cpus.len() > MOST_CPUS {
        let expected = format!("at most {MOST_CPUS}");
        return Err(Error::Argument { name: "n_cpus", found: cpus.len().to_string(), expected });
    }
    let mut own = Vec::new();
    crate::alloc::reserve(&mut own, cpus.len())?;
    own.extend_from_slice(cpus);
    let each = flags(affinity, KIGO_AFFINITY_EACH, "affinity")? == KIGO_AFFINITY_EACH;
    Ok(Placement { cpus: own, each, policy: self::policy(policy)?, priority })
}
