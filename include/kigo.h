// kigo.h: an engine for large language models inside your own process.
//
// Generated from src/c_api by tests/repo/abi.rs; `make header` writes it anew. SPDX-License-Identifier: MIT OR Apache-2.0
//
// In short (every call's status checked in the real programs of examples-c/):
//
//     kigo_engine_create(NULL, &engine);
//     kigo_model_load_file(engine, "model.gguf", KIGO_STRLEN, NULL, &model);
//     kigo_session_create(model, NULL, &session);
//     kigo_tokenize(model, "Once upon a time", KIGO_STRLEN, KIGO_TOKENIZE_ADD_SPECIAL, ids, 512, &n_ids);
//     kigo_session_prefill(session, ids, n_ids);
//     kigo_generate_options options = {.struct_size = sizeof options, .max_tokens = 64, .on_token = print};
//     kigo_generated generated = {.struct_size = sizeof generated};
//     kigo_session_generate(session, &options, &generated);
//
// Conventions, the same for every function:
//
// Handles. kigo_engine, kigo_model, kigo_session, kigo_batch and kigo_stream are opaque. A handle that is NULL is
//     KIGO_STATUS_INVALID_ARGUMENT, except for the _destroy functions, to which it is nothing. Handles may be
//     destroyed in any order, each once, by any thread, and not while another thread is inside a call with the same
//     handle. There is no global state: no init, no shutdown, no environment variable, nothing printed.
// Threads. A function that takes a handle as pointer to const may be called with it from many threads at once. Where
//     the pointer is not to const, the handle is for one thread at a time (not always the same one), and a second
//     thread that comes meanwhile gets KIGO_STATUS_BUSY.
// Outputs. They come last and are required: NULL is KIGO_STATUS_INVALID_ARGUMENT. They are nulled (zeroed) on entry
//     and filled on success only.
// Options. A struct that begins with `size_t struct_size` grows at its end from version to version. The caller sets
//     struct_size to sizeof and the rest to zero, which is the default of every field:
//         kigo_engine_options options = {.struct_size = sizeof options};               // C
//         kigo_engine_options options{}; options.struct_size = sizeof options;         // C++
//     A pointer to options may be NULL: all defaults. A shorter struct, from a program compiled against an older
//     header, is read up to its size. A longer one is accepted if all that this library does not know is zero. All
//     else is KIGO_STATUS_INVALID_ARGUMENT: below 8, above 4,096, not a multiple of 8. The text has both sizes.
//     Structs that are filled work the same way: a shorter one gets what fits, a longer one zeros behind it.
// Enums and flags. They are integers and are checked: a value that is none of those named here is
//     KIGO_STATUS_INVALID_ARGUMENT, never undefined.
// Texts in. A pointer and its length in bytes, UTF-8, NULs allowed; or KIGO_STRLEN as the length of one that ends at
//     its NUL. NULL with length 0 is the empty text; NULL with another length is KIGO_STATUS_INVALID_ARGUMENT. What
//     a call is given it does not refer to after it has returned, callbacks and their user_data apart.
// Buffers out. (buffer, capacity, needed): on success *needed elements are at `buffer`. NULL with capacity 0 asks for
//     *needed alone, and succeeds. Otherwise, where *needed exceeds the capacity, the call gives
//     KIGO_STATUS_BUFFER_TOO_SMALL with *needed set and the buffer untouched.
// Text out. A buffer out, counted in bytes, without a NUL; where the capacity exceeds *needed, a NUL follows.
// Callbacks. They take their user_data last and return 0 to go on, anything else to stop. NULL is no callback.
// Floating point. Calls compute in the processor's default state whatever the calling thread has set (rounding, flushing
//     of subnormal numbers, traps), callbacks run in the caller's, and it is back when the call returns.
// CUDA. A context of the caller's that is current on the calling thread, or that there is none, is so again when the call
//     returns, and in callbacks. The library works in the device's primary context, on streams of its own.
// Signals. The library's own threads block all but SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGTRAP, so the host's signals go
//     to the host's threads. A signal handler may call kigo_session_cancel() and nothing else. Interrupted system calls
//     are taken up again.
// fork(). A child has copies of the handles but not the threads behind them: every call with a handle that its parent
//     made gives KIGO_STATUS_INVALID_STATE with "after fork()", and _destroy does nothing. Where no other thread of the
//     parent was inside a call, the child may make engines of its own; else it should exec. Of a GPU that its parent has
//     opened CUDA gives a child nothing: "auto" is the CPU there. A child that was forked inside a callback must not
//     return from it.
// dlclose(). The library stays in memory once it is loaded, since threads that have called it keep pointers into it;
//     loaded again, it is the same copy. All that it allocated, and all its threads, are gone with the last handle; on a GPU
//     the device's primary context and the kernels' code stay, as CUDA keeps them. A shared
//     object that libkigo.a is linked into must stay too: link it with -Wl,-z,nodelete, as kigo.pc and the CMake package do.
// Stack. 128 KiB of stack suffice for every call; what takes more runs on a thread of its own.
// Memory. Where the system has none left a call gives KIGO_STATUS_OUT_OF_MEMORY, and the handles are as if it had not been
//     made. 4 MiB of address space are kept for what cannot fail by itself; while it is in use a call may be refused
//     early. _destroy, kigo_session_cancel() and a kigo_session_truncate() that computes nothing need none.
//     Where not even a thread's own data can be made, its first call gives OUT_OF_MEMORY and touches nothing.
// Pointers that are neither NULL nor misaligned must point at what this header says; that cannot be checked.

#ifndef KIGO_H
#define KIGO_H

#include <stddef.h>
#include <stdint.h>

// The length of a text that comes in and ends at its NUL.
#define KIGO_STRLEN SIZE_MAX

#ifdef __cplusplus
extern "C" {
#endif

// ==== Status and errors ========================================================================================
//
// Every call that can fail returns a `kigo_status`; 0 is success and the numbers are never reused. A caller
// must be ready for a number that this header does not list. The call that fails also leaves one line of text
// with the numbers behind, for its own thread: kigo_last_error().
//
// The condition of the handles after a failure is the one before the call, unless a function says otherwise.
// Two statuses speak about the future: after KIGO_STATUS_POISONED and after KIGO_STATUS_INTERNAL on a session
// only its destruction is useful; the model, the engine and all other sessions go on. KIGO_STATUS_INTERNAL is
// a defect of this library; it is the one case in which the language's run time may write a line to stderr.

// The result of a call: one of KIGO_STATUS_*.
typedef int32_t kigo_status;

// Success.
#define KIGO_STATUS_OK 0

// An argument is NULL, out of range, of the wrong size, or not one of the allowed values.
#define KIGO_STATUS_INVALID_ARGUMENT 1

// Memory of the host or the device is exhausted, or the engine's memory cap is reached.
#define KIGO_STATUS_OUT_OF_MEMORY 2

// A file cannot be opened or read.
#define KIGO_STATUS_IO 3

// The model file is malformed: it contradicts itself or its own size.
#define KIGO_STATUS_INVALID_MODEL 4

// The model file is well formed but needs something this library does not have.
#define KIGO_STATUS_UNSUPPORTED 5

// The named device does not exist on this machine, or this build has no code for it.
#define KIGO_STATUS_DEVICE_UNAVAILABLE 6

// The device failed while running; its engine is of no further use.
#define KIGO_STATUS_DEVICE_LOST 7

// A callback or kigo_session_cancel() stopped the call.
#define KIGO_STATUS_CANCELLED 8

// The session or stream is in use by another thread, or by the callback this call comes from.
#define KIGO_STATUS_BUSY 9

// The tokens do not fit into what is left of the session's context.
#define KIGO_STATUS_CONTEXT_FULL 10

// The model's pool of cache pages has too few free ones.
#define KIGO_STATUS_CACHE_FULL 11

// The call needs something that has not happened yet, such as logits before the first prefill.
#define KIGO_STATUS_INVALID_STATE 12

// The caller's buffer is too small; the needed size has been stored and nothing else.
#define KIGO_STATUS_BUFFER_TOO_SMALL 13

// An earlier internal failure left this handle unusable; destroy it.
#define KIGO_STATUS_POISONED 14

// A defect of the library, caught at its border. Please report the text.
#define KIGO_STATUS_INTERNAL 15

// There is nothing under that name, key or index.
#define KIGO_STATUS_NOT_FOUND 16

// A constraint cannot be compiled, or allows nothing of what there is.
#define KIGO_STATUS_CONSTRAINT 17

// The name of a status, such as "KIGO_STATUS_BUSY"; "KIGO_STATUS_UNKNOWN" for a number that this library does not
// give. A constant: never NULL, never freed. Any thread.
const char *kigo_status_name(kigo_status status);

// The text of the last call that failed on this thread: one line with the fact and the numbers, UTF-8 with a
// terminating NUL, at most 1,023 bytes, empty if none has failed. Never NULL and never freed; valid until the
// thread ends, and rewritten by the thread's next failing call. Calls that succeed leave it alone.
const char *kigo_last_error(void);

// ==== Versions =================================================================================================
//
// A program compiled against this header asks the library that it found at run time:
//
//     if (kigo_abi_version() != KIGO_ABI_VERSION) { ... }
//
// Within one ABI version functions, constants and fields at the end of structs are added and nothing else changes, so
// a program runs with any later library of it. Any other change raises the ABI version, also while the major version is
// 0, and with it the library's soname, libkigo.so.KIGO_VERSION_MAJOR.KIGO_ABI_VERSION: a program that was linked with
// another ABI's library does not find this one, and one that calls dlopen() finds out by the comparison above. Each
// function also has the release that it came in as its symbol's version (KIGO_0.2): a program that was linked with a
// later release and uses a function of that is refused by the loader, not in the middle of its work. docs/ABI.md has
// the whole promise.

// Major version of this header.
#define KIGO_VERSION_MAJOR 0

// Minor version of this header.
#define KIGO_VERSION_MINOR 2

// Patch version of this header.
#define KIGO_VERSION_PATCH 0

// The ABI of this header; 0.1.0 had 0.
#define KIGO_ABI_VERSION 1

// The library's version, such as "0.2.0". A constant: never NULL, never freed. Any thread.
const char *kigo_version(void);

// The library's ABI version, to be compared with KIGO_ABI_VERSION. Any thread.
uint32_t kigo_abi_version(void);

// ==== Logs =====================================================================================================
//
// The library prints nothing. What it has to say goes to the callback of the engine concerned, and is lost without
// one. A message is one line of UTF-8 without a line break. One that concerns a model begins with "model N: ", where N
// counts the engine's loads from 1, those whose file could not be read apart; other wording is no part of the interface.
// What happens in a pass or to the cache is told at the end of the call, or of the token of a generation, in which it happens,
// or of the model's next call.

// Level of a message: something failed that no status reports, such as a pass of several sessions, each of which then gets one
// of its own.
#define KIGO_LOG_LEVEL_ERROR 1

// Level of a message: something works, but not as well as it could, such as a pass that takes eight times as long as others of
// its size do, of which one is told of in ten seconds.
#define KIGO_LOG_LEVEL_WARN 2

// Level of a message: what was chosen and loaded, and why "auto" took no GPU; a few lines an engine and a model.
#define KIGO_LOG_LEVEL_INFO 3

// Level of a message: details for the search of a fault, such as kept prefixes that were given up, and what each generation
// took.
#define KIGO_LOG_LEVEL_DEBUG 4

// A message.
typedef struct kigo_log_event {
    // sizeof(kigo_log_event) of the library: a field behind it is not there.
    size_t struct_size;
    // The message. UTF-8 with a NUL, valid during the callback.
    const char *text;
    // Bytes of `text`.
    size_t text_len;
    // KIGO_LOG_LEVEL_*.
    int32_t level;
    // 0. Later versions may say more of where a message comes from.
    uint32_t reserved;
} kigo_log_event;

// Receives a message, valid during the call. Returns 0 to go on; anything else ends the engine's logging. Called only on
// threads that are inside a call of this library, from several at once if there are several. It must return (not throw,
// not longjmp).
typedef int32_t (*kigo_log_callback)(const kigo_log_event *event, void *user_data);

// ==== Devices ==================================================================================================
//
// The devices of this machine, listed without opening one: the CPU is device 0, and GPUs follow as CUDA counts them, so that
// CUDA_VISIBLE_DEVICES hides them here too. Where there is no driver the CPU is alone, and says why. In a child of fork() whose
// parent has opened CUDA there is the CPU alone.

// Kind of a device: the processor.
#define KIGO_DEVICE_CPU 1

// Kind of a device: a GPU of NVIDIA's, or a part of one that is a device of its own (MIG).
#define KIGO_DEVICE_CUDA 2

// A device.
typedef struct kigo_device_facts {
    // sizeof(kigo_device_facts), set by the caller.
    size_t struct_size;
    // Bytes of its memory; 0: unknown.
    uint64_t total_bytes;
    // Those of them that are free now, for any process; 0: unknown. On a GPU the driver's management library says it, or where that is
    // missing a context that is made for the question, which takes some hundred milliseconds.
    uint64_t free_bytes;
    // Physical cores that this process may use, or multiprocessors.
    uint64_t n_cores;
    // KIGO_DEVICE_*.
    int32_t kind;
    // 1: this build has code for it; 0: it has not, and `reason` says why.
    int32_t usable;
    // Compute capability of a GPU, such as 9 in 9.0; 0 on the CPU.
    uint32_t compute_major;
    // And the 0 in 9.0.
    uint32_t compute_minor;
    // The UUID of a GPU, or of a part of one; zeros on the CPU.
    uint8_t uuid[16];
    // What kigo_engine_options.device takes: "cpu", "cuda:0". With a NUL, as all texts here.
    char device[16];
    // The UUID as CUDA_VISIBLE_DEVICES takes it, "GPU-01234567-89ab-cdef-0123-456789abcdef" or "MIG-...", and behind "cuda:" also
    // kigo_engine_options.device; empty on the CPU.
    char uuid_text[48];
    // The maker's name of it; cut where it is longer.
    char name[128];
    // Why this build has no code for it; on the CPU, why there is no GPU. Empty where there is nothing to say; cut where it is longer.
    char reason[256];
} kigo_device_facts;

// How many devices there are, the CPU included. Any thread, without an engine.
kigo_status kigo_device_count(size_t *n_devices);

// Fills `facts`, whose `struct_size` the caller has set, with what device `index` is. Any thread, without an engine.
//
// NOT_FOUND: there are not so many. DEVICE_UNAVAILABLE: the driver says nothing of it; the text has its reason.
// IO: of the CPU, where the process may open no file any more.
kigo_status kigo_device_info(size_t index,
                             kigo_device_facts *facts);

// ==== The host's part ==========================================================================================
//
// What a host can do in an engine's place, by fields of kigo_engine_options: it is told of every thread that the engine starts, says
// where those that compute run and how urgently, runs their work on threads of its own, and gives the large memory.
//
// No call may come from inside one of the functions of this section, on the same thread: whatever has a handle gives
// KIGO_STATUS_BUSY there, but for kigo_session_cancel(), _clear_cancel() and the _last_error functions, and the _destroy functions
// do nothing. Nor may they wait for a thread that is inside a call with the same engine's handles. They must return (not throw, not
// longjmp).
// They may be called until the engine and the last of its models, sessions and other handles are gone.
//
// Threads. An engine on the CPU starts n_threads - 1 workers when it is made, which live as long as it does. Anything else that a thread
// is needed for is a task of a call, which waits for it: chat templates, grammars, and on a GPU the reading of a file. Threads that
// CUDA starts are not the library's, and the host is not told of them.
//
// Stages. A pass on the CPU is made of stages, of which each is one call of parallel_for with up to 8 bodies a thread (n_threads says
// how many there are); between two calls the calling thread computes alone. A token of a model with 24 layers takes about 120
// calls. Bodies do not wait for each other: they may run at once or one after the other, in any order, on any threads, which need
// 128 KiB of stack. The order has no influence on any bit. Loading a model takes stages too. Other devices use no threads of the host's
// for what they compute, so there parallel_for, cpus and thread_policy have no effect; nor do they on the devices that kigo_doctor() makes
// for its comparison.

// Kind of a thread: it computes, for as long as its engine lives.
#define KIGO_THREAD_WORKER 1

// Kind of a thread: it does one thing for a call, which waits for it.
#define KIGO_THREAD_TASK 2

// Affinity: each worker may run on any of the CPUs.
#define KIGO_AFFINITY_ANY 0

// Affinity: worker i runs on `cpus[i % n_cpus]` alone; `cpus[0]` is left to the calling thread where there are enough.
#define KIGO_AFFINITY_EACH 1

// Scheduling: as the thread that makes the engine, nice value included.
#define KIGO_POLICY_INHERITED 0

// Scheduling: the usual class (SCHED_OTHER); the priority is a nice value, -20 to 19.
#define KIGO_POLICY_NORMAL 1

// Scheduling: for what computes long (SCHED_BATCH); the priority is a nice value, -20 to 19.
#define KIGO_POLICY_BATCH 2

// Scheduling: only where nothing else wants to run (SCHED_IDLE); the priority is 0.
#define KIGO_POLICY_IDLE 3

// Scheduling: real time, first in, first out (SCHED_FIFO); the priority is 1 to 99. Workers look for work for 150 microseconds
// before they sleep.
#define KIGO_POLICY_FIFO 4

// Scheduling: real time, in turn (SCHED_RR); the priority is 1 to 99.
#define KIGO_POLICY_ROUND_ROBIN 5

// Kind of memory: weights, as the CPU has them packed. One block a model.
#define KIGO_MEMORY_WEIGHTS 1

// Kind of memory: a page of the KV cache, or of its layers with one window. A block each.
#define KIGO_MEMORY_PAGES 2

// Kind of memory: what a session has beside its pages: its logits.
#define KIGO_MEMORY_STATE 3

// Kind of memory: what a model's passes work in, which grows with the longest pass.
#define KIGO_MEMORY_WORK 4

// Gives `bytes` bytes, at least one, at a multiple of `alignment`, a power of two, with anything in them; NULL: there are none, and
// the call gives KIGO_STATUS_OUT_OF_MEMORY with the bytes, after what is spare in the caches of the engine's models has been
// given back. What is no multiple of `alignment` is given back at once, and the call gives KIGO_STATUS_INVALID_STATE.
//
// It is asked on the CPU alone; a GPU's memory is the driver's. Not asked for, but malloc()'s: the vocabulary and templates, grammars,
// norms and biases, tables of pages and tokens (some bytes a token), parts of a pass (some hundred KiB), what choosing a
// token takes (about 24 bytes an entry of the vocabulary), while a file is read 256 KiB a thread, and stacks of threads.
typedef void *(*kigo_alloc_callback)(size_t bytes, size_t alignment, int32_t kind, void *user_data);

// Takes back what kigo_alloc_callback gave, with the same numbers. Each block once, on any thread; all of them before the _destroy
// call returns that gives up the engine or, later, the last handle made from it.
typedef void (*kigo_free_callback)(void *pointer,
                                   size_t bytes,
                                   size_t alignment,
                                   int32_t kind,
                                   void *user_data);

// A part of a stage. On any thread, as often as the contract of kigo_parallel_for says.
typedef void (*kigo_body)(void *context, size_t index);

// Calls body(context, 0) to body(context, n - 1), each once, and returns when all of them have returned. On a thread that is inside
// a call of the library, one such thread at a time for an engine. Returns 0; anything else says that it could not: the call
// gives KIGO_STATUS_CANCELLED, whatever has run, with the session as it was before.
//
// A host that returns before each body has run, or calls one twice or one that is none, gets KIGO_STATUS_INVALID_STATE with the
// numbers from the call, and the session is as before it. Bodies that are running when it returns are waited for. What is called
// later, also when the engine is gone, does nothing: for that a few hundred bytes of an engine stay, which the next one uses. But
// what is called while another call of kigo_parallel_for is on its way, of this engine or of one that was made after its end, counts
// as called by that one, which gets KIGO_STATUS_INVALID_STATE.
typedef int32_t (*kigo_parallel_for)(size_t n, kigo_body body, void *context, void *user_data);

// A thread of the library's that begins or ends.
typedef struct kigo_thread_event {
    // sizeof(kigo_thread_event) of the library: a field behind it is not there.
    size_t struct_size;
    // Its name, such as "kigo-1", which is also the system's. UTF-8 with a NUL, valid during the callback.
    const char *name;
    // A worker's is 1 to n_threads - 1, since the calling thread is number 0; tasks that run together count from 0.
    uint64_t index;
    // KIGO_THREAD_*.
    int32_t kind;
    // 1: it ends, having done its work; 0: it begins.
    int32_t ends;
} kigo_thread_event;

// Told by a thread of the library's itself that it begins or ends, once each. A worker has its CPUs and its class by then; what
// the callback makes of them stays. Returns 0 to go on; anything else at a beginning ends the thread, without another event,
// and the call that started it gives KIGO_STATUS_CANCELLED (kigo_engine_create() for a worker). At an end it says nothing.
typedef int32_t (*kigo_thread_callback)(const kigo_thread_event *event, void *user_data);

// ==== Engine ===================================================================================================
//
// An engine is a device with its threads, its log and its memory cap. It makes models, which make sessions. Each
// child keeps its parent alive: handles may be destroyed in any order, and what an engine holds is freed, and its
// log callback called for the last time, when it and the last of its models and sessions are gone.

// A device. Its functions take it as const: any number of threads may call them at once.
typedef struct kigo_engine kigo_engine;

// How an engine is made. 0 is the default of each field.
typedef struct kigo_engine_options {
    // sizeof(kigo_engine_options).
    size_t struct_size;
    // The device: "auto" (the default: "cuda:0" where that works, else "cpu"), "cpu", "cuda:N", "cuda:GPU-..." or "cuda:MIG-..."
    // (the UUID of kigo_device_facts.uuid_text, or the beginning of one alone), or "reference" (plain and slow, to check the
    // others against).
    const char *device;
    // Length of `device`, or KIGO_STRLEN.
    size_t device_len;
    // Receives the engine's messages; NULL: silence.
    kigo_log_callback log;
    // Handed to `log`.
    void *log_user_data;
    // What weights, cache and working memory of all its models may take together; 0: no cap.
    uint64_t memory_cap_bytes;
    // Threads that compute, the calling one included, or about as many as `parallel_for` has; 0: one for each physical core.
    // At most 1,024.
    uint32_t n_threads;
    // The least important messages wanted, KIGO_LOG_LEVEL_*; 0: KIGO_LOG_LEVEL_INFO.
    int32_t log_level;
    // Told of every thread that the engine starts; NULL: nobody.
    kigo_thread_callback on_thread;
    // Handed to `on_thread`.
    void *thread_user_data;
    // The `n_cpus` CPUs, by the system's numbers below 8,192, that workers run on; copied by the call. The calling thread is not
    // touched, and where there are no workers (`n_threads` 1, or a GPU) nobody asks the system whether it has these CPUs.
    const uint32_t *cpus;
    // How many; 0: wherever the thread that makes the engine may run. With `n_threads` 0, so many threads at most.
    size_t n_cpus;
    // KIGO_AFFINITY_*.
    uint64_t affinity;
    // KIGO_POLICY_*: the workers' scheduling class.
    int32_t thread_policy;
    // Their nice value or priority in it.
    int32_t thread_priority;
    // Runs the work of passes in the place of workers, of which there are none then; NULL: nobody.
    kigo_parallel_for parallel_for;
    // Handed to `parallel_for`.
    void *parallel_for_user_data;
    // Gives the large memory, together with `free`; NULL: the system does.
    kigo_alloc_callback alloc;
    // Takes it back.
    kigo_free_callback free;
    // Handed to `alloc` and `free`.
    void *memory_user_data;
} kigo_engine_options;

// What an engine is.
typedef struct kigo_engine_facts {
    // sizeof(kigo_engine_facts), set by the caller.
    size_t struct_size;
    // The cap it was made with; 0: none.
    uint64_t memory_cap_bytes;
    // What counts against the cap now.
    uint64_t memory_used_bytes;
    // Threads that compute; 1 for a device that has its own.
    uint64_t n_threads;
} kigo_engine_facts;

// Makes an engine. `options` may be NULL: all defaults.
//
// INVALID_ARGUMENT: a device string that is none of those above, an unknown log level, too many threads, a
// `struct_size` that cannot be one; a CPU, a policy or a priority that the system refuses (the text has the numbers and its
// reason), or any of these together with `parallel_for`; `alloc` without `free` or the other way round. UNSUPPORTED: placing
// threads on a system other than Linux. DEVICE_UNAVAILABLE: the device is not on this machine or not in this build; the
// text says which. OUT_OF_MEMORY, also when the system gives no threads. CANCELLED by `on_thread`.
kigo_status kigo_engine_create(const kigo_engine_options *options,
                               kigo_engine **engine);

// Gives the handle up. NULL does nothing. Models and sessions made from it go on.
void kigo_engine_destroy(kigo_engine *engine);

// The name of the device in use: "cpu", "cuda:0", "reference". Text out (see "Conventions").
kigo_status kigo_engine_device(const kigo_engine *engine,
                               char *buffer,
                               size_t capacity,
                               size_t *needed);

// Measures how many bytes a second the device's memory can be read with, which takes a few milliseconds and up to 1 GiB
// of that memory meanwhile: what the speed of a decode step may be held against. KIGO_STATUS_UNSUPPORTED on the CPU, whose
// memory any program can measure itself.
kigo_status kigo_engine_read_bandwidth(const kigo_engine *engine,
                                       double *bytes_per_second);

// Fills `facts`, whose `struct_size` the caller has set.
kigo_status kigo_engine_info(const kigo_engine *engine, kigo_engine_facts *facts);

// The text of the last call with this handle that failed, on whichever thread, as kigo_last_error() has it of a
// thread; empty if none has. Text out; 1,024 bytes always suffice. A load that fails is its engine's. Calls that
// succeed leave it alone, and so does this one. Any thread, also while another is inside a call with the handle.
kigo_status kigo_engine_last_error(const kigo_engine *engine,
                                   char *buffer,
                                   size_t capacity,
                                   size_t *needed);

// ==== Model ====================================================================================================
//
// A model is the weights and the tokenizer of a GGUF file, on the engine's device. It is immutable and shared by its
// sessions. Loading copies what it needs: the file may be deleted, the caller's memory be freed, once the call has
// returned.
//
// Read are GGUF versions 2 and 3, of the tensor types and architectures that README.md lists for this version, whole or
// split into files named "...-00001-of-0000N.gguf" (give the first); anything else is refused by its name.

// For kigo_load_options.flags: calls that run sessions of this model on different threads at the same time,
// kigo_session_prefill(), _step(), _generate() and the batch calls, share passes over the weights. Every result is
// the one that the call alone gives. A pass waits up to 2 ms, and up to a quarter of the last pass's time, for calls
// that were part of the last; it runs on the thread of one of the calls, and a cancel is seen between passes, as in a
// batch call. Steps ride in the passes of a prompt: see "Passes" in the section of sessions. A program with one thread
// has no use for it.
#define KIGO_LOAD_MERGE_CALLS 1

// For kigo_load_options.flags: the same bits however tokens are cut into calls and whatever prefix they share, on every
// device: see "Sameness" in the section of sessions. It costs nothing on the CPU, and a GPU the speed of its prefill. UNSUPPORTED
// where a device has no such mode.
#define KIGO_LOAD_STRICT 2

// For kigo_load_options.flags: nothing is read but the vocabulary, the chat template and the metadata, of a file that has
// nothing else or of any other, whatever its architecture and tensor types. The model tokenizes, detokenizes and renders
// chats; kigo_model_facts.flags has no KIGO_MODEL_HAS_WEIGHTS, what only weights tell is 0 there, and the calls that need
// them (kigo_session_create(), kigo_session_restore(), kigo_model_embed()) give KIGO_STATUS_INVALID_STATE. `progress` is
// not called, and the other flags, `cache_bytes` and `prefix_cache_bytes` have no effect.
#define KIGO_LOAD_VOCABULARY 4

// Weights and tokenizer, or the tokenizer alone. Its functions take it as const: any number of threads may call them at once.
typedef struct kigo_model kigo_model;

// What a plan is for. 0 is the default of each field.
typedef struct kigo_plan_options {
    // sizeof(kigo_plan_options).
    size_t struct_size;
    // The tokens of the session that kigo_plan.cache_bytes is for; 0: as many as the model was trained for.
    size_t n_tokens;
    // The flags that the load would have: see kigo_load_options.flags.
    uint64_t flags;
} kigo_plan_options;

// What a load would take on the engine's device, and a session of the model.
typedef struct kigo_plan {
    // sizeof(kigo_plan), set by the caller.
    size_t struct_size;
    // The weights as the device holds them.
    uint64_t weights_bytes;
    // Activations and other working memory of one session at a time, at most. Batches of sessions take more on a GPU, the
    // larger the more.
    uint64_t scratch_bytes;
    // The tokens that `cache_bytes` is for: kigo_plan_options.n_tokens, or as many as the model was trained for.
    uint64_t n_tokens;
    // The KV cache of one session of so many tokens, all layers together, in whole pages; taken as the tokens come.
    uint64_t cache_bytes;
    // What each session takes besides, however short it is: the state of layers that have one in place of a cache, twice while it
    // goes on and three times in a prefill. 0 where there are none.
    uint64_t state_bytes;
    // One copy of that state, of which sessions keep some so that they can be truncated, as many as
    // kigo_load_options.checkpoint_bytes allows. 0 where there is none.
    uint64_t checkpoint_bytes;
    // Those of `cache_bytes` that are not kept when another session or the memory cap needs them: keys and values that the
    // layers with a window do not read any more. See kigo_session_facts.truncate_free_from.
    uint64_t cache_spare_bytes;
    // The most bytes of checkpoints of all sessions together where kigo_load_options.checkpoint_bytes is 0; they are taken as there are
    // some, and given back when memory is short. 0 where there is no state.
    uint64_t checkpoint_limit_bytes;
} kigo_plan;

// Called while a model loads, on the loading thread: `done_bytes` of `total_bytes` are loaded. Returns 0 to go on;
// anything else stops the load with KIGO_STATUS_CANCELLED. Other sessions may run meanwhile, also from inside. It must
// return (not throw, not longjmp).
typedef int32_t (*kigo_progress_callback)(uint64_t done_bytes, uint64_t total_bytes, void *user_data);

// How a model is loaded. 0 is the default of each field.
typedef struct kigo_load_options {
    // sizeof(kigo_load_options).
    size_t struct_size;
    // Told of the progress, and may cancel; NULL: nobody.
    kigo_progress_callback progress;
    // Handed to `progress`.
    void *progress_user_data;
    // The most bytes of KV cache that the model's sessions may take together, rounded down to whole pages
    // (kigo_model_cache_info()); 0: what the engine's memory cap leaves. Nothing is taken before it is needed.
    uint64_t cache_bytes;
    // KIGO_LOAD_MERGE_CALLS, KIGO_LOAD_STRICT, KIGO_LOAD_VOCABULARY.
    uint64_t flags;
    // The most tokens of prompts in a pass on the CPU; 0: by what is measured, few while other threads step sessions of the
    // engine's models, so that their gaps stay within about four times the usual, and more while nobody does. See "Passes"
    // in the section of sessions. Under a tap and for embeddings passes are of 512 tokens unless this says fewer; a GPU's are of
    // 2,048, whatever this says.
    uint64_t pass_tokens;
    // The most bytes of the KV cache that stay when the sessions whose tokens they were are gone (destroyed, truncated,
    // advanced), to be found by sessions with KIGO_SESSION_REUSE_PREFIX; UINT64_MAX: whatever there is; 0: none. They are
    // given up, the least recently used first and the end of a text before its beginning, where more of them would come and
    // before anything of this engine's is short of memory.
    uint64_t prefix_cache_bytes;
    // The most bytes of checkpoints of all sessions together, of a model whose layers keep a state (kigo_plan.checkpoint_bytes has one's
    // size): see kigo_session_truncate(). A prefix is shared up to one, too. Where more would come that goes which is worth least, for
    // its distance to the end of its text. 0: 512 MiB; less than one: none.
    uint64_t checkpoint_bytes;
} kigo_load_options;

// What loading the file at `path` would take, without loading it: reads the header only.
//
// `path_len` may be KIGO_STRLEN, `options` may be NULL: all defaults. The caller sets `plan->struct_size`. Fails as
// kigo_model_load_file() does, memory and progress apart. INVALID_ARGUMENT: n_tokens is more than the model was trained
// for.
kigo_status kigo_model_plan(const kigo_engine *engine,
                            const char *path,
                            size_t path_len,
                            const kigo_plan_options *options,
                            kigo_plan *plan);

// Loads the GGUF file at `path`; `path_len` may be KIGO_STRLEN, `options` may be NULL.
//
// IO: the file, or a part of a split one, cannot be opened or read, or was shortened while the call ran: the text has the
// place, the bytes wanted and those read. INVALID_MODEL: the text names the field, its
// byte offset and both numbers. UNSUPPORTED: the text names the architecture, tensor type or pre-tokenizer.
// OUT_OF_MEMORY: the text has the bytes asked for and free. INVALID_ARGUMENT: `cache_bytes` or `prefix_cache_bytes` is less
// than a page, unknown flags. CANCELLED: `progress` returned something other than 0. After each of them the engine is as it was. Who writes to
// the file meanwhile gets one of these, or a model of the bytes that were there when they were read.
kigo_status kigo_model_load_file(const kigo_engine *engine,
                                 const char *path,
                                 size_t path_len,
                                 const kigo_load_options *options,
                                 kigo_model **model);

// Loads a GGUF file that lies at `data`, `data_bytes` long; nothing of it is referred to afterwards.
// Otherwise as kigo_model_load_file(); a split file cannot be loaded this way (UNSUPPORTED).
kigo_status kigo_model_load_memory(const kigo_engine *engine,
                                   const void *data,
                                   size_t data_bytes,
                                   const kigo_load_options *options,
                                   kigo_model **model);

// Gives the handle up. NULL does nothing. Sessions made from it go on.
void kigo_model_destroy(kigo_model *model);

// The text of the last call with this handle that failed, on whichever thread, as kigo_last_error() has it of a
// thread; empty if none has. Text out; 1,024 bytes always suffice. A session that cannot be made is its model's. Calls
// that succeed leave it alone, and so does this one. Any thread, also while another is inside a call with the handle.
kigo_status kigo_model_last_error(const kigo_model *model,
                                  char *buffer,
                                  size_t capacity,
                                  size_t *needed);

// ==== Model facts ==============================================================================================
//
// What a model is and what its sessions take: sizes, layers, and how full its KV cache is.

// In kigo_model_facts.flags: the file has a chat template; kigo_chat_render() works.
#define KIGO_MODEL_HAS_CHAT_TEMPLATE 1

// In kigo_model_facts.flags: KIGO_TOKENIZE_ADD_SPECIAL puts the begin token in front.
#define KIGO_MODEL_ADDS_BEGIN 2

// In kigo_model_facts.flags: KIGO_TOKENIZE_ADD_SPECIAL puts the end token behind.
#define KIGO_MODEL_ADDS_END 4

// In kigo_model_facts.flags: the model computes. Without it (KIGO_LOAD_VOCABULARY) it has a vocabulary, a chat template
// and metadata; sessions and embeddings are INVALID_STATE.
#define KIGO_MODEL_HAS_WEIGHTS 8

// In kigo_model_facts.flags: its sessions have logits, so that it can generate.
#define KIGO_MODEL_HAS_LOGITS 16

// In kigo_layer_facts.mixers: attention over the tokens before.
#define KIGO_MIXER_ATTENTION 1

// In kigo_layer_facts.mixers: a short convolution between two gates (LFM2).
#define KIGO_MIXER_SHORT_CONV 2

// In kigo_layer_facts.mixers: a gated delta rule (Qwen3-Next, Qwen3.5).
#define KIGO_MIXER_DELTA_NET 4

// In kigo_layer_facts.mixers: a Mamba2 (Granite 4, Nemotron-H, Falcon-H1).
#define KIGO_MIXER_MAMBA2 8

// What a model is.
typedef struct kigo_model_facts {
    // sizeof(kigo_model_facts), set by the caller.
    size_t struct_size;
    // Elements of all tensors.
    uint64_t n_parameters;
    // Bytes of the file, or of all files of a split one.
    uint64_t file_bytes;
    // The weights as the device holds them.
    uint64_t weights_bytes;
    // The weights that one decode step reads, as the file stores them: all but the embedding, of which one row.
    uint64_t decode_bytes;
    // What each session takes besides its KV cache (kigo_model_cache_bytes()), however short it is: see
    // kigo_plan.state_bytes.
    uint64_t state_bytes;
    // Number of metadata entries.
    uint64_t n_meta;
    // KIGO_MODEL_*.
    uint64_t flags;
    // Token ids are below this; also the number of logits, where there are any.
    uint32_t n_vocab;
    // The context length that the model was trained for: the largest of a session.
    uint32_t n_ctx_train;
    // Layers; kigo_model_layer_info() has what each is.
    uint32_t n_layers;
    // Width of the residual stream.
    uint32_t n_embd;
    // The begin token, or KIGO_TOKEN_NONE.
    uint32_t begin_token;
    // The end token, or KIGO_TOKEN_NONE. There may be others that end a generation: see kigo_token_flags().
    uint32_t end_token;
    // For filling in the middle, each a token or KIGO_TOKEN_NONE: what stands before the text in front of the gap (a prompt is most
    // often prefix, text, suffix, text, middle, and the answer fills the gap; the model's authors say which order it was trained on),
    uint32_t fim_prefix_token;
    // before the text behind it,
    uint32_t fim_suffix_token;
    // before what fills it;
    uint32_t fim_middle_token;
    // what training filled examples up with,
    uint32_t fim_pad_token;
    // what stands before a repository's name,
    uint32_t fim_repository_token;
    // and before a file's name, or between files.
    uint32_t fim_file_token;
} kigo_model_facts;

// What a layer is. A number that does not apply is 0.
typedef struct kigo_layer_facts {
    // sizeof(kigo_layer_facts), set by the caller.
    size_t struct_size;
    // What it adds to a session's KV cache for each token that it sees; 0: it has no cache of its own.
    uint64_t kv_bytes_per_token;
    // What it keeps of a session however long that is; 0: nothing.
    uint64_t state_bytes;
    // How it mixes tokens, KIGO_MIXER_* together; 0: not at all. Later versions know more kinds.
    uint32_t mixers;
    // It sees the last so many tokens, the current one included; 0: all.
    uint32_t window;
    // Query heads.
    uint32_t n_heads;
    // Key and value heads.
    uint32_t n_kv_heads;
    // Elements of a head of queries and keys.
    uint32_t k_head_dim;
    // Elements of a head of values. Of latents (n_kv_heads is 1): the first elements of a key, which are its value, too.
    uint32_t v_head_dim;
    // Elements of a head of queries and keys that turn with the position.
    uint32_t n_rot;
    // The layer, from 0, whose keys and values it sees: itself, or an earlier one.
    uint32_t kv_layer;
    // Width of the feed-forward part; of one with experts, of what every token goes through; 0: nothing.
    uint32_t n_ff;
    // Experts of the feed-forward part.
    uint32_t n_experts;
    // Those of the experts that a token goes through.
    uint32_t n_experts_used;
    // Width of an expert.
    uint32_t n_ff_expert;
} kigo_layer_facts;

// How full the KV cache of a model's sessions is. It is taken in pages, each of which holds some consecutive tokens of one
// session, or of several that share them; pages of layers that keep different things need not have the same size.
typedef struct kigo_cache_facts {
    // sizeof(kigo_cache_facts), set by the caller.
    size_t struct_size;
    // Tokens of a page.
    uint64_t page_tokens;
    // Pages in use.
    uint64_t n_pages_used;
    // Bytes in use, the spare ones among them.
    uint64_t used_bytes;
    // The most bytes that may be in use (kigo_load_options.cache_bytes, in whole pages); UINT64_MAX: what the memory cap
    // leaves.
    uint64_t limit_bytes;
    // Bytes that could be taken now, in whole pages, beside what other models of the engine would give back; UINT64_MAX:
    // nothing limits them but the machine's memory.
    uint64_t free_bytes;
    // Those of `used_bytes` that are given back as soon as they are needed: retained ones, and keys and values that the layers
    // with a window do not read any more. `free_bytes` has them, too.
    uint64_t spare_bytes;
    // Pages in use that no session holds: see kigo_load_options.prefix_cache_bytes.
    uint64_t n_pages_retained;
    // Bytes of them.
    uint64_t retained_bytes;
    // Tokens that sessions of the model have taken from others so far in place of computing them.
    uint64_t n_tokens_saved;
    // States that sessions and running calls hold, of models whose layers keep one: kigo_model_facts.state_bytes each, part of
    // `used_bytes`.
    uint64_t n_states;
    // Checkpoints, as large each, which are part of `used_bytes` too, and of `spare_bytes` where no session stands there.
    uint64_t n_checkpoints;
    // The most bytes of checkpoints: kigo_load_options.checkpoint_bytes, in whole ones. 0 where there are no states.
    uint64_t checkpoint_limit_bytes;
} kigo_cache_facts;

// Fills `facts`, whose `struct_size` the caller has set.
kigo_status kigo_model_info(const kigo_model *model, kigo_model_facts *facts);

// Fills `facts`, whose `struct_size` the caller has set, with what layer number `layer` is, from 0.
//
// INVALID_ARGUMENT: `layer` is not below kigo_model_facts.n_layers.
kigo_status kigo_model_layer_info(const kigo_model *model, size_t layer, kigo_layer_facts *facts);

// What a session of `n_tokens` tokens takes of the KV cache, all layers together, in whole pages.
//
// INVALID_ARGUMENT: more than kigo_model_facts.n_ctx_train.
kigo_status kigo_model_cache_bytes(const kigo_model *model, size_t n_tokens, uint64_t *cache_bytes);

// Fills `facts`, whose `struct_size` the caller has set. Other threads may take and free pages meanwhile.
//
// Which sessions to destroy or to save when the cache is full is the program's to decide; kigo_session_info() has
// what each of them holds, and destroying or truncating one makes its pages free at once: retained ones count as free.
kigo_status kigo_model_cache_info(const kigo_model *model,
                                  kigo_cache_facts *facts);

// The architecture's name in the file, such as "qwen2". Text out.
kigo_status kigo_model_architecture(const kigo_model *model, char *buffer, size_t capacity, size_t *needed);

// The mix of tensor types, such as "Q4_K_M": as the file says, or else the type of most of its bytes. Text out.
kigo_status kigo_model_quantization(const kigo_model *model,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *needed);

// ==== Metadata =================================================================================================
//
// The metadata of a model's file: keys with typed values, read as text.

// Type of a metadata value, as GGUF numbers them: unsigned, 8 bits.
#define KIGO_META_UINT8 0

// Type of a metadata value, as GGUF numbers them: signed, 8 bits.
#define KIGO_META_INT8 1

// Type of a metadata value, as GGUF numbers them: unsigned, 16 bits.
#define KIGO_META_UINT16 2

// Type of a metadata value, as GGUF numbers them: signed, 16 bits.
#define KIGO_META_INT16 3

// Type of a metadata value, as GGUF numbers them: unsigned, 32 bits.
#define KIGO_META_UINT32 4

// Type of a metadata value, as GGUF numbers them: signed, 32 bits.
#define KIGO_META_INT32 5

// Type of a metadata value, as GGUF numbers them: float, 32 bits.
#define KIGO_META_FLOAT32 6

// Type of a metadata value, as GGUF numbers them: true or false.
#define KIGO_META_BOOL 7

// Type of a metadata value, as GGUF numbers them: UTF-8.
#define KIGO_META_STRING 8

// Type of a metadata value, as GGUF numbers them: an array of values of one type.
#define KIGO_META_ARRAY 9

// Type of a metadata value, as GGUF numbers them: unsigned, 64 bits.
#define KIGO_META_UINT64 10

// Type of a metadata value, as GGUF numbers them: signed, 64 bits.
#define KIGO_META_INT64 11

// Type of a metadata value, as GGUF numbers them: float, 64 bits.
#define KIGO_META_FLOAT64 12

// The value under a metadata key, as text: a string as it is, numbers in decimal, floats in the fewest digits that
// read back as the same value, "true" and "false", arrays as JSON (a float that is not finite is null). `key_len` may
// be KIGO_STRLEN. Text out.
//
// NOT_FOUND: no such key.
kigo_status kigo_model_meta(const kigo_model *model,
                            const char *key,
                            size_t key_len,
                            char *buffer,
                            size_t capacity,
                            size_t *needed);

// The type of the value under a metadata key: KIGO_META_*. NOT_FOUND: no such key.
kigo_status kigo_model_meta_type(const kigo_model *model,
                                 const char *key,
                                 size_t key_len,
                                 int32_t *meta_type);

// The metadata key number `index`, in the order of the file; below kigo_model_facts.n_meta. Text out.
//
// NOT_FOUND: there are not so many.
kigo_status kigo_model_meta_key(const kigo_model *model,
                                size_t index,
                                char *buffer,
                                size_t capacity,
                                size_t *needed);

// ==== Tokenizer ================================================================================================
//
// Text to token ids and back, by the model's own vocabulary. Ids equal those of the model's reference tokenizer.
//
// Control tokens (such as "<|im_end|>") are atomic, and come from text only where KIGO_TOKENIZE_PARSE_SPECIAL asks for
// them: text of a user's, tokenized without it, can never become one.

// No token.
#define KIGO_TOKEN_NONE 4294967295

// For kigo_tokenize(): puts the begin and end tokens around the text where the model wants them.
#define KIGO_TOKENIZE_ADD_SPECIAL 1

// For kigo_tokenize(): the text's control tokens become control tokens.
#define KIGO_TOKENIZE_PARSE_SPECIAL 2

// For kigo_detokenize(), generation and streams: control tokens are written out, not left out.
#define KIGO_TEXT_SPECIAL 1

// A token's flag: it is a control token.
#define KIGO_TOKEN_IS_CONTROL 1

// A token's flag: it ends a generation.
#define KIGO_TOKEN_IS_END 2

// The token ids of a text; `text_len` may be KIGO_STRLEN, `flags` are KIGO_TOKENIZE_*. Buffer out, counted in ids.
//
// INVALID_ARGUMENT: not UTF-8 (the text has the byte), unknown flags. BUFFER_TOO_SMALL: 3 * text_len + 8 ids are always
// enough (a model's own normalization can make a text three times as long), but for a "t5" vocabulary whose map of characters
// makes single ones longer than that; text_len + 2 nearly always.
//
// It cannot be cancelled. Its time grows with the text's length, times at most the logarithm of a word's: 16 MiB that are
// one word are merged in 0.4 to 1.4 seconds of one core, by half a million merges in up to 3.2, finding words takes 0.1 to 1
// second for most texts and up to 10 for characters picked at random from all of Unicode. It takes 14 bytes of memory for each
// byte of the text at most, its ids included, but 26 of a word whose beginning depends on its end over thousands of bytes,
// which a vocabulary must be made for, and more where a map of characters makes the text longer.
kigo_status kigo_tokenize(const kigo_model *model,
                          const char *text,
                          size_t text_len,
                          uint64_t flags,
                          uint32_t *ids,
                          size_t capacity,
                          size_t *needed);

// The text of token ids; `flags` are 0 or KIGO_TEXT_SPECIAL. Text out. Bytes that are not UTF-8, such as half a
// character at the end, become U+FFFD. A text comes back from its tokens as it was where the vocabulary keeps it: most do, but
// "bert" (WordPiece) drops capitals, accents and white space, and "t5" what its map of characters replaces.
//
// INVALID_ARGUMENT: an id that is not below n_vocab (the text has its index), unknown flags.
kigo_status kigo_detokenize(const kigo_model *model,
                            const uint32_t *ids,
                            size_t n_ids,
                            uint64_t flags,
                            char *buffer,
                            size_t capacity,
                            size_t *needed);

// The bytes that one token adds to a text; of a control token, its name. Text out, except that it need not be UTF-8
// and may hold NULs: a character can be spread over several tokens (see "Stream").
//
// INVALID_ARGUMENT: an id that is not below n_vocab.
kigo_status kigo_token_text(const kigo_model *model,
                            uint32_t token,
                            char *buffer,
                            size_t capacity,
                            size_t *needed);

// What kind a token is: KIGO_TOKEN_IS_CONTROL, KIGO_TOKEN_IS_END, both or 0.
//
// INVALID_ARGUMENT: an id that is not below n_vocab.
kigo_status kigo_token_flags(const kigo_model *model, uint32_t token, uint64_t *flags);

// ==== Chat =====================================================================================================
//
// A conversation as the model was trained to read it: the file's own chat template over messages of a role and a
// content, or over messages in JSON with all that a template may know. What stands in a message can never become a
// control token: the ids are made from the template's text and the messages' text apart from each other. Begin
// tokens are the template's business: prefill the ids as they are.
//
// A template is a program that comes with a file, so it is held: its source has at most 262,144 bytes and 50,000
// tokens, 200 brackets and operators in one another and 300 blocks; a rendering takes at most one second, 64
// MiB (16 bytes for each byte of the conversation beside that) and about 500,000 instructions (10,000 more for each
// message). What has more is INVALID_MODEL, and the text has the number. The file's template is compiled at its first
// use and kept, which takes up to 70 bytes for each of its source. It runs on a thread of its own with a stack of 4 MiB,
// so that any thread of the host's will do; the memory is asked for beforehand.

// For kigo_chat_render(): ends with what opens the assistant's answer.
#define KIGO_CHAT_ADD_GENERATION_PROMPT 1

// For kigo_chat_options.flags: ends within the last message, most often an assistant's, which is to be gone on with: what
// the template writes behind its text (the last text of its parts) is left out, and so is the white space behind it where the
// template takes that away. As `continue_final_message` in transformers; not with KIGO_CHAT_ADD_GENERATION_PROMPT.
#define KIGO_CHAT_CONTINUE_FINAL 2

// One message. Frozen: it will never have more fields.
typedef struct kigo_message {
    // "system", "user", "assistant", or what else the template knows; not empty.
    const char *role;
    // Length of `role`, or KIGO_STRLEN.
    size_t role_len;
    // What was said.
    const char *content;
    // Length of `content`, or KIGO_STRLEN.
    size_t content_len;
} kigo_message;

// How kigo_chat_render_json() renders.
typedef struct kigo_chat_options {
    // sizeof(kigo_chat_options).
    size_t struct_size;
    // 0, KIGO_CHAT_ADD_GENERATION_PROMPT or KIGO_CHAT_CONTINUE_FINAL.
    uint64_t flags;
    // What the template gets as `tools`: a JSON array, most often of {"type": "function", "function": {"name",
    // "description", "parameters"}}. NULL: none.
    const char *tools_json;
    // Length of `tools_json`, or KIGO_STRLEN.
    size_t tools_json_len;
    // Further variables of the template: a JSON object, such as {"enable_thinking": false}. NULL: none.
    const char *variables_json;
    // Length of `variables_json`, or KIGO_STRLEN.
    size_t variables_json_len;
    // A template in place of the model's, within the same bounds. It is compiled at each call. NULL: the model's.
    const char *template_source;
    // Length of `template_source`, or KIGO_STRLEN.
    size_t template_source_len;
    // Which of the model's templates, such as "rag"; see kigo_chat_template_name(). NULL: with tools the one named "tool_use",
    // if there is one, and else the one without a name, which "default" names.
    const char *template_name;
    // Length of `template_name`, or KIGO_STRLEN.
    size_t template_name_len;
} kigo_chat_options;

// The token ids of a conversation of `n_messages`; `flags` is 0 or KIGO_CHAT_ADD_GENERATION_PROMPT. Buffer out,
// counted in ids. It cannot be cancelled: the template is held (see above), and its text takes what it takes
// kigo_tokenize().
//
// INVALID_ARGUMENT: text that is not UTF-8, an empty role (such as one whose length was left 0), unknown flags,
// messages that the template refuses (the text has its words). INVALID_MODEL: the template is malformed, or takes too
// much. UNSUPPORTED: it puts control tokens together from parts. NOT_FOUND: the model has no chat template.
// OUT_OF_MEMORY.
kigo_status kigo_chat_render(const kigo_model *model,
                             const kigo_message *messages,
                             size_t n_messages,
                             uint64_t flags,
                             uint32_t *ids,
                             size_t capacity,
                             size_t *needed);

// The text that kigo_chat_render() makes the ids of, to look at. Tokenizing it again would let the messages' text
// become control tokens. Text out; otherwise as kigo_chat_render().
kigo_status kigo_chat_render_text(const kigo_model *model,
                                  const kigo_message *messages,
                                  size_t n_messages,
                                  uint64_t flags,
                                  char *buffer,
                                  size_t capacity,
                                  size_t *needed);

// The token ids of a conversation in JSON: an array of objects, each with a string `role`. Whatever else they hold goes
// to the template as it is: `content` as text or parts, `tool_calls`, `tool_call_id`, `name`, `reasoning_content`, and
// what a template may want beside these. Objects keep their order, integers are exact up to 128 bits. No string in it, at
// any depth and names included, and none in the tools or variables can become a control token. `options` may be NULL.
// Buffer out, counted in ids.
//
// INVALID_ARGUMENT, and the text names the place: what is no JSON (UTF-8, at most 16 MiB, 200,000 values, 48 deep),
// messages that are no array of objects with a role, a variable that is called messages, tools or
// add_generation_prompt; unknown flags, or both; a `template_source` that is malformed or takes too much, or has a
// `template_name` beside it; messages that the template refuses; a last message to go on with that has no text, that the
// template writes otherwise, or beside whose text it or a variable has CONTINUE_FINAL_MESSAGE_TAG.
// NOT_FOUND: no template has that name, and the text has those that have. Otherwise as kigo_chat_render().
kigo_status kigo_chat_render_json(const kigo_model *model,
                                  const char *messages_json,
                                  size_t messages_json_len,
                                  const kigo_chat_options *options,
                                  uint32_t *ids,
                                  size_t capacity,
                                  size_t *needed);

// The text that kigo_chat_render_json() makes the ids of, to look at, as kigo_chat_render_text() does. Text out.
kigo_status kigo_chat_render_json_text(const kigo_model *model,
                                       const char *messages_json,
                                       size_t messages_json_len,
                                       const kigo_chat_options *options,
                                       char *buffer,
                                       size_t capacity,
                                       size_t *needed);

// The name of a variable that the template reads and does not make itself, from index 0 on: `messages`, `tools` where it
// takes some, `add_generation_prompt`, `bos_token` and the like, and those that are for
// kigo_chat_options.variables_json, such as `enable_thinking`. Of `options`, which may be NULL, only the template counts.
// Text out.
//
// NOT_FOUND: it reads no more, or the model has no chat template. INVALID_ARGUMENT: unknown flags; a `template_source`
// that is malformed. Otherwise as kigo_chat_render().
kigo_status kigo_chat_variable(const kigo_model *model,
                               const kigo_chat_options *options,
                               size_t index,
                               char *buffer,
                               size_t capacity,
                               size_t *needed);

// The name of one of the chat templates that the model's file has beside the one without a name, from index 0 on, for
// kigo_chat_options.template_name: "tool_use", "rag" and the like. Text out.
//
// NOT_FOUND: no more have names.
kigo_status kigo_chat_template_name(const kigo_model *model,
                                    size_t index,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *needed);

// ==== Sampling parameters ======================================================================================
//
// How the next token is chosen from the logits. The choice depends on the logits, these parameters, the position and
// the session's tokens, and on nothing else: the same calls give the same tokens on every run and every device that
// gives the same logits. Ties go to the lowest id.
//
// Applied in this order: logit bias, penalties, temperature, top-k, top-p, min-p, the draw.

// A kigo_sampling.penalty_window of all tokens of the session.
#define KIGO_PENALTY_WINDOW_ALL 4294967295

// Added to one token's logit. Frozen: it will never have more fields.
typedef struct kigo_logit_bias {
    // The token.
    uint32_t token;
    // What is added to its logit; -INFINITY bans it.
    float bias;
} kigo_logit_bias;

// How the next token is chosen. 0 is the default of each field; all defaults are greedy.
typedef struct kigo_sampling {
    // sizeof(kigo_sampling).
    size_t struct_size;
    // Key of the random numbers; another seed is another text. 0 is a seed like any other.
    uint64_t seed;
    // Divides the logits, 0.0001 to 10000; 0: greedy, the most likely token always.
    float temperature;
    // Keep the k most likely; 0: all.
    uint32_t top_k;
    // Keep the fewest most likely tokens that have this share (0 to 1) of the probability together; 0 or 1: all.
    float top_p;
    // Drop what is less likely than this share (0 to 1) of the most likely; 0: none.
    float min_p;
    // Divides positive and multiplies negative logits of tokens in the window, 0.01 to 100; 0 or 1: off.
    float repetition_penalty;
    // Subtracted from a token's logit once for each time it stands in the window, -10000 to 10000; 0: off.
    float frequency_penalty;
    // Subtracted from a token's logit once if it stands in the window, -10000 to 10000; 0: off.
    float presence_penalty;
    // The penalties look at this many of the session's last tokens; 0: 64. See KIGO_PENALTY_WINDOW_ALL.
    uint32_t penalty_window;
    // `n_logit_bias` of them, copied by the call.
    const kigo_logit_bias *logit_bias;
    // How many.
    size_t n_logit_bias;
} kigo_sampling;

// ==== Session ==================================================================================================
//
// A session is one sequence: its tokens, their KV cache, its sampling parameters. Its life is
// prefill, sample, step, sample, step, ...; kigo_session_generate() is that loop in one call.
//
// One thread at a time: a session that is in use, by another thread or by the callback that the call comes from, answers
// KIGO_STATUS_BUSY and goes on with what it does. Only kigo_session_cancel(), _clear_cancel(), _last_error() and _stats(), whose
// handle is const, may be called meanwhile. Different sessions, also of one model, run on different threads at once.
//
// At any time the session's tokens are exactly those in its cache, and its logits, where it has any, are those after the last of
// them. A call that fails or is cancelled leaves tokens and logits as they were before it.
//
// Sameness. A session's logits and tokens depend on its tokens, its parameters and its seed, and on nothing else. On one device,
// bit for bit: the same calls give the same on every run; a session gives the same alone, in any batch and beside any others; a
// tap changes nothing, nor do fork, save and restore, or a truncation that is taken back. On the CPU, also: any number of
// threads and any of its instruction sets give the same, and so do all ways to cut a prompt into calls and to share its
// beginning with other sessions. A GPU computes the tokens of a call of 8 or more through other kernels than single steps: there
// all ways to cut a prompt into calls of 8 or more give the same, and so does a beginning shared with a session that has got it
// in such calls; what shorter calls append differs from that by rounding, unless KIGO_LOAD_STRICT. From one device to another
// they always do (kigo_doctor() measures by how much).
//
// Passes. A prompt runs in passes. On the CPU a step (a call of one token) that has waited for one goes before the next; with
// KIGO_LOAD_MERGE_CALLS it rides in it. kigo_load_options.pass_tokens says how long they are, and no bit depends on it.
//
// Cancelling. kigo_session_cancel() stops the session's running kigo_session_prefill(), _step() or _generate(), or a
// kigo_session_truncate() that computes; if none is running, the next of them. So a cancel between two calls is not lost, and a
// thread or a signal handler that cancels needs to know nothing of what the session does right now. Whoever runs the session
// calls kigo_session_clear_cancel() where an earlier cancel is of no more interest, such as before a new question. A call that
// has been stopped has used the cancel up; several before it count as one. On the CPU a call stops within the time of one layer
// over a pass's tokens, at most 512, on a GPU of five layers over at most 2,048 or of sixteen single steps.

// For kigo_session_options.flags: where another session of the model holds the same tokens from the first on, such as
// a system prompt, or computes them, or held them once (kigo_load_options.prefix_cache_bytes), their KV cache is shared in whole
// pages of 64 tokens instead of being computed again: see "Kept prefixes". Looked for by a prefill while the session holds a
// multiple of 64 tokens, best none. At least one is always computed; kigo_session_facts.n_tokens_reused counts the others. On a
// GPU without KIGO_LOAD_STRICT logits differ by rounding where steps have computed some of what is shared: see "Sameness". How long
// a prefill takes tells whether somebody else has that text: no flag, or salts, between parties that must not know.
#define KIGO_SESSION_REUSE_PREFIX 1

// One sequence.
typedef struct kigo_session kigo_session;

// How a session is made. 0 is the default of each field.
typedef struct kigo_session_options {
    // sizeof(kigo_session_options).
    size_t struct_size;
    // The most tokens it can hold; 0, and at most: what the model was trained for. Memory is taken as tokens come, not
    // here. A model with LongRoPE (Phi-3 of 128K) has two tables of factors: a session gets the long ones where n_ctx, 0
    // included, is more than the model's original context, for all its tokens; whoever needs no more than that asks for it
    // and gets the short ones, which are better there. kigo_session_facts.has_long_rope tells. No cache is shared between
    // sessions of the one kind and the other; a fork and a restored session have their origin's.
    size_t n_ctx;
    // Its sampling parameters, copied by the call; NULL: greedy.
    const kigo_sampling *sampling;
    // 0 or KIGO_SESSION_REUSE_PREFIX.
    uint64_t flags;
    // `prefix_salt_len` bytes, copied by the call, that keep prefixes apart: pages are shared between sessions with the same bytes
    // here and no others, whichever of them has the flag. A party's name or key, where parties must not learn of one another. A
    // fork has its origin's.
    const void *prefix_salt;
    // How many, 1,024 at most; 0: the pages of those who have none.
    size_t prefix_salt_len;
} kigo_session_options;

// What a session holds.
typedef struct kigo_session_facts {
    // sizeof(kigo_session_facts), set by the caller.
    size_t struct_size;
    // Tokens.
    uint64_t n_tokens;
    // The most tokens it can hold.
    uint64_t n_ctx;
    // Pages of KV cache.
    uint64_t n_pages;
    // Those of the pages that no other session holds: what destroying this one makes free, or retained, as far as it is there.
    uint64_t n_pages_own;
    // 1 if there are current logits, else 0.
    uint64_t has_logits;
    // Tokens whose cache came from another session so far (KIGO_SESSION_REUSE_PREFIX).
    uint64_t n_tokens_reused;
    // 1 if the session has the long factors of a model with LongRoPE, else 0: kigo_session_options.n_ctx has chosen.
    uint64_t has_long_rope;
    // kigo_session_truncate() to as many tokens or more, or to none, is free now: nothing is computed again. 0 where no layer
    // has a window or a state. It rises as memory is given back. Where layers keep a state it is `n_tokens`.
    uint64_t truncate_free_from;
    // Bytes of its state, where layers keep one; a fork shares it until either goes on.
    uint64_t state_bytes;
    // Checkpoints behind its tokens: see kigo_session_truncate().
    uint64_t n_checkpoints;
} kigo_session_facts;

// Makes a session without tokens. `options` may be NULL: all defaults.
//
// INVALID_ARGUMENT: n_ctx is larger than the model's, a sampling parameter is out of its range, unknown flags, a salt that is
// too long.
// INVALID_STATE: the model has no weights (KIGO_LOAD_VOCABULARY). OUT_OF_MEMORY.
kigo_status kigo_session_create(const kigo_model *model,
                                const kigo_session_options *options,
                                kigo_session **session);

// Gives the handle up. NULL does nothing. From inside the session's own callback: the running call is cancelled and
// frees the session when it returns. While another thread runs the session: forbidden.
void kigo_session_destroy(kigo_session *session);

// Replaces the sampling parameters, from the next sample on; NULL: greedy. INVALID_ARGUMENT: a parameter is out of
// its range; the old ones stay. BUSY.
kigo_status kigo_session_set_sampling(kigo_session *session,
                                      const kigo_sampling *sampling);

// Appends `n_ids` tokens, at least one; afterwards the logits of the last are current.
//
// INVALID_ARGUMENT: an id that is not below n_vocab (the text has its index), no ids. CONTEXT_FULL: they do not fit;
// CACHE_FULL: kigo_load_options.cache_bytes has fewer pages left than they
// need; OUT_OF_MEMORY: so has the engine's memory cap, or the machine. These are found out before anything runs, and
// the text has the numbers. CANCELLED. BUSY. Tokens may come in one call or in several: see
// "Sameness".
kigo_status kigo_session_prefill(kigo_session *session,
                                 const uint32_t *ids,
                                 size_t n_ids);

// Appends one token: kigo_session_prefill() of one.
kigo_status kigo_session_step(kigo_session *session, uint32_t token);

// Picks the next token from the current logits; does not append it, and picks the same when asked again.
//
// INVALID_STATE: there are no logits. BUSY.
kigo_status kigo_session_sample(kigo_session *session, uint32_t *token);

// Stops the running call, or the next: see above. Any thread; also from a signal handler.
// INVALID_ARGUMENT: NULL.
kigo_status kigo_session_cancel(const kigo_session *session);

// Forgets a cancel that no call has used up. Any thread. INVALID_ARGUMENT: NULL.
kigo_status kigo_session_clear_cancel(const kigo_session *session);

// The current logits, n_vocab floats. Buffer out, counted in floats. INVALID_STATE: there are none. BUSY.
kigo_status kigo_session_logits(kigo_session *session, float *buffer, size_t capacity, size_t *needed);

// The natural logarithms of the probabilities that the current logits give, before any sampling parameter. Otherwise
// as kigo_session_logits().
kigo_status kigo_session_logprobs(kigo_session *session,
                                  float *buffer,
                                  size_t capacity,
                                  size_t *needed);

// The session's tokens from the first on. Buffer out, counted in ids. BUSY.
kigo_status kigo_session_tokens(kigo_session *session, uint32_t *ids, size_t capacity, size_t *needed);

// How many tokens the session holds. BUSY.
kigo_status kigo_session_n_tokens(kigo_session *session, size_t *n_tokens);

// Fills `facts`, whose `struct_size` the caller has set. BUSY.
kigo_status kigo_session_info(kigo_session *session, kigo_session_facts *facts);

// Makes a session with the same tokens, logits, context length and sampling parameters, in constant time. What they
// have in common is held once: a fork takes no cache memory until it or the session goes on, and then a page of 64
// tokens at most for what they had in common. Either may be changed, truncated or destroyed as if there were no other.
//
// The seed is the same too, and with it the next tokens: kigo_session_set_sampling() gives the fork another.
// BUSY. OUT_OF_MEMORY.
kigo_status kigo_session_fork(kigo_session *session,
                              kigo_session **fork);

// Writes the session down: tokens, KV cache, logits, context length, sampling parameters, constraint; its random numbers
// follow from these. Buffer out, counted in bytes; they depend on that state and nothing else. The session goes on.
//
// A blob is large: about kigo_model_cache_bytes() of its tokens, less kigo_plan.cache_spare_bytes. It is as private as the text in it. Only
// kigo_session_restore() with the same model file on the same kind of device, in this or another process, takes it; on a GPU,
// where layers have a window, with the same KIGO_LOAD_STRICT.
// BUSY. UNSUPPORTED: the device cannot.
kigo_status kigo_session_save(kigo_session *session,
                              void *buffer,
                              size_t capacity,
                              size_t *needed);

// Makes a session of what kigo_session_save() wrote, `blob_bytes` at `blob`, copied by the call. It goes on as the
// saved one would have, bit for bit.
//
// A constraint is compiled again, as by kigo_session_set_constraint(). KIGO_SESSION_REUSE_PREFIX and a salt are not part of a
// blob: where it comes from others, they must not learn by it what sessions of this model hold. A restored session has neither
// and shares nothing, now or later, nor does any session share what is its own; n_tokens_reused is 0.
//
// INVALID_ARGUMENT, with what was found and expected: another library's version of the blob, another model, a device
// with another cache layout, a blob that is cut off or damaged, a constraint that does not compile. Bytes from anywhere do
// no harm, but the checksum is no signature: a blob that somebody has forged makes a session with a false cache.
// CACHE_FULL, OUT_OF_MEMORY. UNSUPPORTED: the device cannot, or adds in another order than the one that the blob names, so
// that the session would not go on bit for bit.
kigo_status kigo_session_restore(const kigo_model *model,
                                 const void *blob,
                                 size_t blob_bytes,
                                 kigo_session **session);

// The text of the last call with this handle that failed, on whichever thread, as kigo_last_error() has it of a
// thread; empty if none has. Text out; 1,024 bytes always suffice. In a batch each session has its own. Calls that
// succeed leave it alone, and so does this one. Any thread, also while another is inside a call with the handle.
kigo_status kigo_session_last_error(const kigo_session *session,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *needed);

// ==== Kept prefixes ============================================================================================
//
// Tokens that are not computed again: of a session that goes back and on, and of others whose prompts begin alike.
//
// A session with KIGO_SESSION_REUSE_PREFIX takes over, page by page of 64 tokens, what any session of the model with the same
// kigo_session_options.prefix_salt holds, or is computing right now, or held once (kigo_load_options.prefix_cache_bytes). For what
// another call is computing, of another thread or another entry of the same batch, it waits; kigo_session_cancel() ends the
// waiting within 10 milliseconds, or in a batch behind the pass that runs. It goes on by itself where that call fails or is cancelled. What it waited for is no part of its
// memory: that is taken, and may be found missing, when it goes on.
//
// A call waits for nobody that may wait for it, whatever the threads, batches and merged calls; one that is made from inside
// another's callback, or by a thread that such a callback waits for, goes on by itself after 5 to 10 milliseconds.
//
// A polled batch waits inside of kigo_batch_run() alone, and no longer than that may take; between two runs what it computes is waited
// for 5 to 10 milliseconds.
//
// When a context is full, the newest part of a conversation goes on in a shorter one: kigo_session_advance() with the ids of the
// system prompt and the newest turns. examples-c/window.c does that, docs/CONTEXT.md tells why.

// Called before each pass of a call, on the calling thread: `n_done` of `n_total` tokens are in the session's cache. Returns 0 to go
// on; anything else stops the call with KIGO_STATUS_CANCELLED. The session is busy meanwhile, other sessions are not;
// kigo_session_cancel() and destroying the session stop the call, too. It is not called while the call waits for what another
// computes. It must return (not throw, not longjmp).
typedef int32_t (*kigo_prefill_callback)(size_t n_done, size_t n_total, void *user_data);

// How a session advances. 0 is the default of each field.
typedef struct kigo_advance_options {
    // sizeof(kigo_advance_options).
    size_t struct_size;
    // Told of the progress, and may cancel; NULL: nobody.
    kigo_prefill_callback progress;
    // Handed to `progress`.
    void *user_data;
} kigo_advance_options;

// What became of the tokens that a session has been advanced to; the three add up to `n_ids`.
typedef struct kigo_advanced {
    // sizeof(kigo_advanced), set by the caller.
    size_t struct_size;
    // The session held so many of them, from the first on.
    uint64_t n_kept;
    // So many were taken from other sessions (KIGO_SESSION_REUSE_PREFIX).
    uint64_t n_reused;
    // So many were computed.
    uint64_t n_computed;
} kigo_advanced;

// Drops all tokens but the first `n_tokens`. There are no logits then until the next prefill or step, unless nothing
// was dropped: to have them, keep one token less and step() the last again.
//
// Layers with a window (kigo_layer_facts.window) keep what is behind it until another session or the memory cap needs it.
// Where the window in front of `n_tokens` has gone, the call computes it again from the nearest tokens that have theirs, with
// the same bits, having made sure of the memory first: below kigo_session_facts.truncate_free_from it may take as long as a
// prefill of `n_tokens`, and kigo_session_cancel() stops it. A tap does not see that.
//
// Layers that keep a state (kigo_layer_facts.state_bytes) have it behind the last token alone, and copies of it, checkpoints, behind some
// multiples of 64 tokens, closer together towards the end: as many as kigo_load_options.checkpoint_bytes allows, and fewer where
// memory is short. The call goes on from the newest of them in front of `n_tokens`, from none at worst, likewise with the same bits.
//
// INVALID_ARGUMENT: the session holds fewer. BUSY. OUT_OF_MEMORY, while forks hold the same tokens or there is something to
// compute; CACHE_FULL and CANCELLED, in the latter case. The session is then as it was.
kigo_status kigo_session_truncate(kigo_session *session,
                                  size_t n_tokens);

// Makes the session hold exactly `ids`, with the logits of the last: what it holds of them from the first on is kept, all else is
// dropped, and what follows is prefilled. `options` may be NULL. The caller sets `advanced->struct_size`.
//
// At least one token is computed for its logits, unless the session holds exactly `ids` and has them. The result is that of
// kigo_session_truncate() and kigo_session_prefill(), bit for bit, but for this: a failure, or a cancel at any time, leaves tokens
// and logits as they were. So where tokens are dropped, their pages stay until the call has succeeded, beside those that it
// takes: with the cache nearly full it may be CACHE_FULL where those two calls are not.
//
// INVALID_ARGUMENT: an id that is not below n_vocab (the text has its index), no ids. CONTEXT_FULL: more than the session's n_ctx.
// CACHE_FULL, OUT_OF_MEMORY: as from kigo_session_prefill(). CANCELLED. BUSY.
kigo_status kigo_session_advance(kigo_session *session,
                                 const uint32_t *ids,
                                 size_t n_ids,
                                 const kigo_advance_options *options,
                                 kigo_advanced *advanced);

// ==== Log probabilities ========================================================================================
//
// How likely tokens are to come next: by the model alone, and by the sampler, whose draws follow the second. All
// vocabulary's log probabilities at once, by the model alone, are kigo_session_logprobs().

// For kigo_logprobs_options.flags: the largest are those by the sampler (kigo_logprob.after). Without it, by the model.
#define KIGO_LOGPROBS_BY_AFTER 1

// Which tokens. 0 is the default of each field.
typedef struct kigo_logprobs_options {
    // sizeof(kigo_logprobs_options).
    size_t struct_size;
    // `n_tokens` of them, such as the one that was chosen; any, in any order, also twice.
    const uint32_t *tokens;
    // How many; 0: none.
    size_t n_tokens;
    // And so many of the likeliest, n_vocab at most; 0: none.
    size_t n_top;
    // 0 or KIGO_LOGPROBS_BY_AFTER.
    uint64_t flags;
} kigo_logprobs_options;

// A token with the natural logarithms of its probabilities. Frozen: it will never have more fields.
typedef struct kigo_logprob {
    // The token.
    uint32_t token;
    // What the model says: the softmax of the current logits, before bias, penalties, constraint and temperature.
    float before;
    // What the sampler says: the next token is drawn with it, over all seeds; -INFINITY: it is not drawn, being cut off by
    // the constraint, a limit or a bias. At temperature 0 the one that is chosen has 0, which is certainty.
    float after;
} kigo_logprob;

// The log probabilities of the tokens of `options`, in their order, and behind them those of the `n_top` likeliest, the
// likeliest first; of equal ones that with the larger other probability, then the lower id. Buffer out, counted in
// kigo_logprob: n_tokens + n_top, so that asking for the size is not needed. `options` may be NULL: none.
//
// For the token that kigo_session_sample() would choose now, or has chosen, as long as it is not appended: afterwards the
// logits are others. It takes a copy of the logits and one pass over the vocabulary, on the host, whatever the device.
//
// INVALID_STATE: there are no logits. INVALID_ARGUMENT: a token that is not below n_vocab (the text has its index), n_top
// above n_vocab, unknown flags. CONSTRAINT: as from kigo_session_sample(). BUSY. OUT_OF_MEMORY.
kigo_status kigo_session_token_logprobs(kigo_session *session,
                                        const kigo_logprobs_options *options,
                                        kigo_logprob *buffer,
                                        size_t capacity,
                                        size_t *needed);

// ==== Generation ===============================================================================================
//
// The loop of sampling and stepping in one call, with its text streamed out.

// For kigo_generate_options.flags: a token that ends the generation is appended, counted and handed to the callback
// like any other, and then ends it. Without it, it is only named in kigo_generated.stop_token.
#define KIGO_GENERATE_KEEP_END 2

// For kigo_generate_options.flags: tokens that end a generation are tokens like any other, as a benchmark wants it.
#define KIGO_GENERATE_IGNORE_END 4

// For kigo_generate_options.flags: the likeliest of a kigo_step_event are those by the sampler (kigo_logprob.after). Without
// it, by the model.
#define KIGO_GENERATE_TOP_BY_AFTER 8

// Why a generation ended: max_tokens tokens were generated.
#define KIGO_STOP_MAX_TOKENS 1

// Why a generation ended: the model chose a token that ends a generation (kigo_generated.stop_token).
#define KIGO_STOP_END_TOKEN 2

// Why a generation ended: the text reached a stop string (kigo_generated.stop_index).
#define KIGO_STOP_STRING 3

// Why a generation ended: the session's context is full.
#define KIGO_STOP_CONTEXT_FULL 4

// Why a generation ended: the callback returned something other than 0.
#define KIGO_STOP_CALLBACK 5

// Why a generation ended: kigo_session_cancel().
#define KIGO_STOP_CANCELLED 6

// A text in an array. Frozen: it will never have more fields.
typedef struct kigo_string {
    // UTF-8.
    const char *data;
    // Length of `data`, or KIGO_STRLEN.
    size_t len;
} kigo_string;

// Receives each token after it has been appended, with the text that has become complete by it: `text_len` bytes of
// whole UTF-8 characters at `text` with a NUL behind them, valid during the call, often empty, since what could be
// the beginning of a stop string or of a character is held back. What is still held back at the end comes with a last
// call whose token is KIGO_TOKEN_NONE (not after a stop by the callback or a cancel, which ends the calls). All texts
// together are the answer, without the stop string.
//
// Returns 0 to go on; anything else stops with KIGO_STOP_CALLBACK. The session is busy meanwhile; other sessions are
// not. It must return (not throw, not longjmp).
typedef int32_t (*kigo_token_callback)(uint32_t token, const char *text, size_t text_len, void *user_data);

// A token that has been generated and appended, with what it was chosen from.
typedef struct kigo_step_event {
    // sizeof(kigo_step_event) of the library: a field behind it is not there.
    size_t struct_size;
    // The text that has become complete by it, as kigo_token_callback gets it: UTF-8, a NUL behind it.
    const char *text;
    // Bytes of `text`.
    size_t text_len;
    // The token's own bytes, as kigo_token_text() has them, a NUL behind them; not always UTF-8.
    const char *bytes;
    // How many, without that NUL.
    size_t n_bytes;
    // The likeliest tokens in its place, `n_top` of them, in the order of kigo_session_token_logprobs().
    const kigo_logprob *top;
    // kigo_generate_options.n_top; 0 where `token` is KIGO_TOKEN_NONE.
    size_t n_top;
    // Where the token stands in the session, from 0; with KIGO_TOKEN_NONE, how many tokens the session holds.
    uint64_t position;
    // The token. KIGO_TOKEN_NONE: there is none more, but text that was held back.
    uint32_t token;
    // What the model gave it: see kigo_logprob.before. 0 where `token` is KIGO_TOKEN_NONE.
    float before;
    // What the sampler drew it with, its parameters and the session's constraint applied: see kigo_logprob.after.
    float after;
    // 0.
    uint32_t reserved;
} kigo_step_event;

// Receives each token after it has been appended, with what it was chosen from; the event and what it points at are valid
// during the call. Otherwise as kigo_token_callback.
typedef int32_t (*kigo_step_callback)(const kigo_step_event *event, void *user_data);

// How to generate. 0 is the default of each field.
typedef struct kigo_generate_options {
    // sizeof(kigo_generate_options).
    size_t struct_size;
    // Stop after this many tokens; 0: when the context is full.
    size_t max_tokens;
    // Stop where the text reaches one of these `n_stop` texts, none of them empty; copied by the call.
    const kigo_string *stop;
    // How many.
    size_t n_stop;
    // Receives the tokens; NULL: nobody.
    kigo_token_callback on_token;
    // Handed to `on_token` and to `on_step`.
    void *user_data;
    // KIGO_TEXT_SPECIAL, KIGO_GENERATE_KEEP_END, KIGO_GENERATE_IGNORE_END, KIGO_GENERATE_TOP_BY_AFTER.
    uint64_t flags;
    // Receives the tokens with their log probabilities; NULL: nobody, and nothing of them is computed. With `on_token`, too,
    // it is called first for each token, and what either returns stops. The tokens are the same with it and without. It
    // takes a copy of the logits and a pass over the vocabulary for each token, on the host, and a GPU then
    // does not choose tokens ahead of the host.
    kigo_step_callback on_step;
    // For `on_step`: so many of the likeliest tokens, n_vocab at most; 0: none.
    size_t n_top;
} kigo_generate_options;

// What a generation came to. Times are nanoseconds of a clock that never goes back.
typedef struct kigo_generated {
    // sizeof(kigo_generated), set by the caller.
    size_t struct_size;
    // Tokens generated and appended.
    size_t n_tokens;
    // Which of the stop strings was reached, for KIGO_STOP_STRING.
    size_t stop_index;
    // The token that ended it, for KIGO_STOP_END_TOKEN; else KIGO_TOKEN_NONE.
    uint32_t stop_token;
    // KIGO_STOP_*.
    int32_t stop_reason;
    // Tokens that the session had got before, by whatever calls, since its last generation or else since it was made;
    // kept ones (kigo_session_advance()), a fork's of its origin and restored ones are none of them.
    uint64_t n_prompt_tokens;
    // Those of them that were taken from other sessions (KIGO_SESSION_REUSE_PREFIX); the others were computed.
    uint64_t n_prompt_tokens_reused;
    // What these calls took: the sum of kigo_session_figures.prefill_ns and decode_ns since then.
    uint64_t prefill_ns;
    // From the call to the first token: chosen, appended, its text and log probabilities made, its callback not yet
    // called. 0 without a token.
    uint64_t first_token_ns;
    // The whole call, choices and texts included, but for the time in `on_token` and `on_step`. The time of the first token
    // is in it. Where a device runs ahead of the host it computes during the callbacks, too.
    uint64_t decode_ns;
    // The time in `on_token` and `on_step`.
    uint64_t callback_ns;
    // The part of `decode_ns` in which a token that had been chosen waited for its pass to begin: see
    // kigo_session_figures.waiting_ns.
    uint64_t waiting_ns;
} kigo_generated;

// Generates from the current logits on: sample, append, stream, until something of KIGO_STOP_* happens.
// `options` may be NULL: greedy or as the session's parameters say, until the end token. The caller sets
// `generated->struct_size`.
//
// Each of those ends is a success, a cancel and a stop by the callback too. Afterwards the session holds what was
// generated, exactly the tokens that the callback has seen, and the logits after the last are current: more can be
// generated, or prefilled. The tokens are those that kigo_session_sample() and kigo_session_step() would give.
//
// INVALID_STATE: there are no logits. INVALID_ARGUMENT: a stop string that is empty or not UTF-8, unknown flags, `n_top`
// above n_vocab. BUSY. OUT_OF_MEMORY, CONSTRAINT: as from kigo_session_sample() and kigo_session_token_logprobs().
// If a step fails (CACHE_FULL, OUT_OF_MEMORY, DEVICE_LOST), what was generated before it stays:
// kigo_session_n_tokens().
kigo_status kigo_session_generate(kigo_session *session,
                                  const kigo_generate_options *options,
                                  kigo_generated *generated);

// ==== Constraints ==============================================================================================
//
// Output held to a grammar: of the tokens that may come next only those are chosen that a JSON schema, a regular
// expression, a Lark grammar or one of llama.cpp's allows. What ends a text is allowed where the grammar may end, and there only.
//
// A grammar is compiled once into a kigo_constraint, which any number of sessions of its model may be held to, at once and
// from several threads: nothing changes it. Setting one for a session costs nothing; the session gets its own copy of
// what it needs with its first choice.
//
// A grammar's text may come from anywhere. One that would take its parser too much is refused with the number and the
// limit: no text takes more than 2 seconds of one core and 256 MiB to compile. The limits: 4 MiB of a schema, 256 KiB
// of a Lark text, 64 KiB of a regular expression; 16384 rules and brackets; 1500 classes such as \w, and 100 ranges
// that end beyond ASCII where case does not matter; 1000000 for the depths of brackets that each byte stands in, added
// up; 256 terminals that name each other, and 1000000 bytes of one with all that it names; 20000 terminals, 65000
// symbols and 1000000 expressions that the text comes to; 4000000 steps that its expressions may take at one byte,
// where parts in a row that may each be left out count squared; 6000000000 for the places of its rules times the
// alternatives that may be predicted there; 100000 for the product of the alternatives of patterns that must all
// match; 1000 and, or and not of conditions; of a schema 200000 values, 1000 arrays and objects inside of each other,
// 1000000 steps to take it apart, 50000 rules with 400000 symbols, 2000 rules inside of each other, 2097152 bytes of
// expressions for its texts and numbers, 50000 steps to tell whether a pattern matches anything, 65536 bytes of a
// pattern, 262144 of what it becomes, 250 brackets inside of each other in it and 64 alternatives of it that have
// anchors of their own, 8000 properties of an object where one that may be left out counts twice, 20000 for the
// properties that count towards minProperties or maxProperties times their number, 64 patterns for their names, 400
// digits of a bound, counts up to 2000000000, a multipleOf of 20000 units where its last digits do not tell its
// multiples, and 20000 in place of the 100000; of a vocabulary 16777215 tokens and 4194303 nodes of the tree of its
// words.
//
// No token takes more than that either: a call that chooses answers CONSTRAINT with the limit, which is 1000000 steps of
// expressions, 50000 items of rules, 2000 items that a token leads to, 4000000 of a whole text, or, where a token's rows
// are large, 2 seconds. A text may be as long as the context: each token has these limits for itself.
//
// A schema allows exactly what it says, in one form: members in the order in which the schema lists them, then those that
// are only required, then others; no escapes that JSON does not need; integers as digits of any length; numbers that have
// a bound, a multiple or an exclusion without an exponent; a number of const or enum as the schema writes it, but as
// digits where the type is "integer". Names that the schema does not list may come twice, and count for minProperties and
// maxProperties each time: where that must not be, "additionalProperties" is false. Formats that are enforced are
// date, time, date-time, duration, email, hostname, ipv4, ipv6, uuid, uri and json-pointer; others are annotations. What
// cannot be had exactly is refused with its path, such as `#/properties/x: "contains" is not supported`. Between tokens a
// space or the end of a line with an indentation of 80 may stand, and with KIGO_CONSTRAINT_COMPACT nothing.

// For kigo_constraint_options.kind: a JSON schema.
#define KIGO_CONSTRAINT_JSON_SCHEMA 1

// For kigo_constraint_options.kind: a regular expression, in the syntax of Rust's `regex` without look-around, for the
// whole of the output.
#define KIGO_CONSTRAINT_REGEX 2

// For kigo_constraint_options.kind: a grammar in the Lark format of llguidance.
#define KIGO_CONSTRAINT_LARK 3

// For kigo_constraint_options.kind: a grammar of llama.cpp (GBNF), whose rule `root` is for the whole of the output. All
// of its guide is there: literals and classes of characters with escapes, groups, repetitions with counts, comments, and
// tokens by number or text, such as `<[1000]>`, `<think>` and `!<think>`. It allows what it says, character by character, and
// becomes a Lark text that has to keep the limits of one. Refused, with line and column or the rule's name: a rule that begins
// with itself, that is not there or is there twice; a class of no characters; a token that ends a text, which it may
// where the grammar may end; a token of text (and !<...>, which may be one) where characters that it may be read as may
// stand too, since it would be read as itself alone: control tokens, which are no text, may stand anywhere; more than
// 100000 parts, 100 groups within each other, 8 repetitions of one part, 1000000 times of one, 20000000 steps to tell
// which rules may be empty, or 1000000 steps to tell what may stand where tokens of text do.
#define KIGO_CONSTRAINT_GBNF 4

// For kigo_constraint_options.flags: JSON has no white space between its parts. Without it models may run into endless
// newlines. For a JSON schema; others have none to leave out.
#define KIGO_CONSTRAINT_COMPACT 1

// A grammar, compiled for a model's vocabulary. It keeps what it needs of that alive, not the model.
typedef struct kigo_constraint kigo_constraint;

// Is asked every few milliseconds, on the thread of the call, while a grammar is compiled on another. Returns 0 to go on;
// anything else ends the call with CANCELLED. It must return (not throw, not longjmp).
typedef int32_t (*kigo_constraint_callback)(void *user_data);

// How a constraint is made. 0 is the default of each field but `kind` and `text`, which have none.
typedef struct kigo_constraint_options {
    // sizeof(kigo_constraint_options).
    size_t struct_size;
    // KIGO_CONSTRAINT_JSON_SCHEMA, _REGEX, _LARK or _GBNF.
    uint64_t kind;
    // The grammar, UTF-8; copied by the call.
    const char *text;
    // Length of `text` in bytes, or KIGO_STRLEN.
    size_t text_len;
    // 0 or KIGO_CONSTRAINT_COMPACT.
    uint64_t flags;
    // Is asked whether to go on; NULL: nobody is.
    kigo_constraint_callback go_on;
    // Handed to `go_on`.
    void *user_data;
} kigo_constraint_options;

// Compiles a grammar for sessions of `model`. It takes up to 2 seconds and 256 MiB, most often milliseconds, on a thread of
// its own with a stack that suffices: a few MiB, up to 600 of address space for a text near the limits. The thread has
// ended when the call returns. The first constraint of a model's life indexes its vocabulary, which takes tenths of a
// second; words of more than 1024 bytes are left out of the index: no constraint ever allows them.
//
// CONSTRAINT: the grammar has a mistake (the text says which), or would take too much (the text has the number and the
// limit). OUT_OF_MEMORY: there is no memory, or no thread with such a stack. CANCELLED: `go_on` has said so; what was
// begun and cannot be interrupted is waited for, up to 2 seconds. INVALID_ARGUMENT: another kind, unknown flags, NULL, no
// UTF-8.
kigo_status kigo_constraint_create(const kigo_model *model,
                                   const kigo_constraint_options *options,
                                   kigo_constraint **constraint);

// Gives the handle up. NULL does nothing. Sessions that are held to it stay so.
void kigo_constraint_destroy(kigo_constraint *constraint);

// Holds every token that is chosen from now on to `constraint`; NULL: to none any more. It begins with the next token, so
// it is set after the prompt; kigo_session_sample(), kigo_session_generate() and kigo_sample_batch() keep to it. Sampling
// parameters apply to the tokens that are allowed. The handle may be given up at once.
//
// What it allows depends on the grammar and on the session's tokens from that position on, however they came there: forks
// have their own copy, dropping tokens goes back in it, and a saved session has it too and goes on with it from exactly
// there. A session that is truncated to before that position chooses nothing until it has as many tokens again, which
// the grammar then holds from the same position on, or until another constraint, or none, is set.
//
// A choice costs no mask where the likeliest token is allowed (temperature 0). kigo_session_cancel() stops a mask that
// kigo_session_generate() makes, within milliseconds; those of other calls are made to their end.
//
// From a call that chooses, CONSTRAINT: the session was given tokens that the grammar does not allow, nothing that it
// allows is left, or it takes too much at one token; the session stays as it is, and another constraint, or none, can be
// set. From this one, INVALID_ARGUMENT: a constraint of another model. BUSY.
kigo_status kigo_session_set_constraint(kigo_session *session,
                                        const kigo_constraint *constraint);

// ==== Answers ==================================================================================================
//
// Answers taken apart: thinking, answer and calls of tools told from each other while they come, in the way that the
// model's template writes them. The template is rendered with conversations of our own, and known by what it makes
// of them: Hermes' and Qwen's JSON, Qwen3-Coder's tags, Llama 3, Mistral, DeepSeek, GLM, Kimi, gpt-oss's channels,
// Gemma 4, Granite and others have names; of a template that none of these fits, answers are told from thinking by
// its marks, and calls are part of the answer.
//
// A mark, such as <tool_call>, that is a control token of the model counts where the token stands, and the same text
// in other tokens is text. In text that comes without tokens (kigo_chat_parser_push_text()) a mark is what reads
// like it. Control tokens are never part of a text; a token that ends a generation ends the message. Marks of calls
// do not count in thinking. White space between the parts, 64 bytes at most, belongs to none of them.
//
// Where arguments are not JSON in the model's notation they come out as JSON: what the tool's schema calls a string
// as one, other values as what they read like, and without a schema a value of up to 4096 bytes that reads like a
// JSON number, boolean, null, array or object as that, any other as a string.
//
// What begins like a call and has no name that can be one is part of the answer, as it is written. From the name on
// it is a call; one that breaks off, or whose arguments are no JSON object, ends with KIGO_CHAT_EVENT_MALFORMED, and
// what follows is the answer again. Nothing that was written is lost but marks and control tokens.
//
// Whatever comes, a parser holds a few KiB (what may still become a mark, a head of 1024 bytes, a value of 4096),
// and its time grows with the text.

// For kigo_chat_event.kind: a piece of thinking.
#define KIGO_CHAT_THINKING 1

// For kigo_chat_event.kind: a piece of the answer.
#define KIGO_CHAT_ANSWER 2

// For kigo_chat_event.kind: a call begins. Its id, name and arguments follow, in the order in which the model writes
// them.
#define KIGO_CHAT_CALL_BEGUN 3

// For kigo_chat_event.kind: the id that the model gave the call, whole. Many give none.
#define KIGO_CHAT_CALL_ID 4

// For kigo_chat_event.kind: the call's name, whole.
#define KIGO_CHAT_CALL_NAME 5

// For kigo_chat_event.kind: a piece of the call's arguments. All of a call in a row are one JSON object, if it ends
// well.
#define KIGO_CHAT_CALL_ARGUMENTS 6

// For kigo_chat_event.kind: the call has ended; see KIGO_CHAT_EVENT_MALFORMED.
#define KIGO_CHAT_CALL_ENDED 7

// For kigo_chat_event.kind: the budget of thinking is used up; see kigo_chat_parser_set_thinking_budget().
#define KIGO_CHAT_BUDGET_USED 8

// For kigo_chat_event.kind: the message has ended. Nothing comes any more until kigo_chat_parser_finish().
#define KIGO_CHAT_ENDED 9

// For kigo_chat_event.flags, of KIGO_CHAT_CALL_ENDED: the call broke off, or its arguments are no JSON object.
#define KIGO_CHAT_EVENT_MALFORMED 1

// For kigo_chat_format.flags: calls are told from text.
#define KIGO_CHAT_FORMAT_CALLS 1

// For kigo_chat_format.flags: the template has marks of thinking.
#define KIGO_CHAT_FORMAT_THINKING 2

// For kigo_chat_format.flags: an answer begins with thinking, which the prompt has opened.
#define KIGO_CHAT_FORMAT_OPENS_THINKING 4

// For kigo_tools_options.choice: text, calls, or both.
#define KIGO_TOOLS_AUTO 0

// For kigo_tools_options.choice: calls, behind thinking if there is any, and no other text.
#define KIGO_TOOLS_REQUIRED 1

// For kigo_tools_options.choice: the same, of the tool that is named.
#define KIGO_TOOLS_NAMED 2

// For kigo_tools_options.flags: no more than one call.
#define KIGO_TOOLS_ONE_CALL 2

// A parser of answers. It keeps its model alive. One thread at a time: a parser that another thread uses answers
// KIGO_STATUS_BUSY.
typedef struct kigo_chat_parser kigo_chat_parser;

// How a model writes its answers.
typedef struct kigo_chat_format {
    // sizeof(kigo_chat_format), set by the caller.
    size_t struct_size;
    // The family's name, such as "hermes"; "plain" where none is known; the parser's, as long as it lives.
    const char *family;
    // KIGO_CHAT_FORMAT_*.
    uint64_t flags;
} kigo_chat_format;

// An event. Frozen: it will never have more fields.
typedef struct kigo_chat_event {
    // KIGO_CHAT_*.
    int32_t kind;
    // The call that it is about, from 0 in the order in which they begin; 0 for what is about none.
    uint32_t call;
    // Its text: whole UTF-8 characters, a NUL behind them. Empty for those without; never NULL.
    const char *text;
    // Bytes of it.
    size_t text_len;
    // KIGO_CHAT_EVENT_*.
    uint64_t flags;
} kigo_chat_event;

// How kigo_constraint_create_tools() holds calls. 0 is the default of each field.
typedef struct kigo_tools_options {
    // sizeof(kigo_tools_options).
    size_t struct_size;
    // KIGO_TOOLS_AUTO, _REQUIRED or _NAMED.
    uint64_t choice;
    // The name, for KIGO_TOOLS_NAMED alone.
    const char *name;
    // Length of `name`, or KIGO_STRLEN.
    size_t name_len;
    // KIGO_TOOLS_ONE_CALL, KIGO_CONSTRAINT_COMPACT.
    uint64_t flags;
    // Is asked whether to go on; NULL: nobody is.
    kigo_constraint_callback go_on;
    // Handed to `go_on`.
    void *user_data;
} kigo_tools_options;

// Makes a parser of the answers to a conversation. Of `options` the tools, the variables and the template count, as
// they are given to kigo_chat_render_json(); with KIGO_CHAT_CONTINUE_FINAL the answer begins in the middle, behind its thinking.
// NULL: none of these. The template is rendered up to six times with short conversations.
//
// INVALID_ARGUMENT, INVALID_MODEL, UNSUPPORTED, NOT_FOUND, OUT_OF_MEMORY: as from kigo_chat_render_json(). A
// template that refuses the conversations is no error: what it does not show is not known.
kigo_status kigo_chat_parser_create(const kigo_model *model,
                                    const kigo_chat_options *options,
                                    kigo_chat_parser **parser);

// Gives the handle up, and the events that it gave. NULL does nothing.
void kigo_chat_parser_destroy(kigo_chat_parser *parser);

// What is known of the answers' format. The caller sets `out->struct_size`. BUSY.
kigo_status kigo_chat_parser_info(const kigo_chat_parser *parser, kigo_chat_format *out);

// Adds a token. `events` gets the events that have become certain by it, `n_events` how many, often none; they and
// their texts are the parser's, valid until its next call. After the message has ended nothing comes any more.
//
// INVALID_ARGUMENT: an id that is not below n_vocab. OUT_OF_MEMORY: the parser is as it was. BUSY.
kigo_status kigo_chat_parser_push(kigo_chat_parser *parser,
                                  uint32_t token,
                                  const kigo_chat_event **events,
                                  size_t *n_events);

// Adds text, whole UTF-8 characters, of which control tokens cannot be told; otherwise as kigo_chat_parser_push().
// Texts and tokens may be added in turn.
//
// INVALID_ARGUMENT: text that is not UTF-8, or longer than 1,048,576 bytes: longer ones are to be cut.
// OUT_OF_MEMORY: the parser is as it was. BUSY.
kigo_status kigo_chat_parser_push_text(kigo_chat_parser *parser,
                                       const char *text,
                                       size_t text_len,
                                       const kigo_chat_event **events,
                                       size_t *n_events);

// Ends the message: `events` gets what was held back, and KIGO_CHAT_ENDED if the message had not ended. The parser
// is then at the beginning of another answer. OUT_OF_MEMORY: the parser is as it was. BUSY.
kigo_status kigo_chat_parser_finish(kigo_chat_parser *parser,
                                    const kigo_chat_event **events,
                                    size_t *n_events);

// Has the parser tell, with KIGO_CHAT_BUDGET_USED, when `n_tokens` tokens of an answer have been thinking and it is
// still thinking; 0: never, which is how a parser begins. It tells once an answer. A caller that wants the answer
// then prefills the tokens of kigo_chat_parser_thinking_end() and adds them here. Text has no tokens and does not
// count. BUSY.
kigo_status kigo_chat_parser_set_thinking_budget(kigo_chat_parser *parser,
                                                 size_t n_tokens);

// The tokens that end thinking and begin the answer, as the template writes them; none if it has no thinking. Buffer
// out, counted in ids. BUSY.
kigo_status kigo_chat_parser_thinking_end(const kigo_chat_parser *parser,
                                          uint32_t *ids,
                                          size_t capacity,
                                          size_t *needed);

// A constraint made of the tools of a conversation: free text until a call begins, written as the model's template
// writes calls, with the arguments held to the tool's schema. `chat` is as for kigo_chat_parser_create(), and has
// tools. `options` may be NULL: all defaults. It is set behind the prompt, before the first token of the answer, and
// otherwise as any other.
//
// Arguments in tags, and in LFM2's and Gemma's notations, come in the order of the schema's properties (Gemma's: of their
// names), and no others; texts among them are any that the notation can hold, or those of an enum.
//
// UNSUPPORTED: there is no grammar for the family, whose name the text has. INVALID_ARGUMENT: there are no tools,
// none is called so, another choice, unknown flags. CONSTRAINT: a tool's schema is refused, or all together takes
// too much. Otherwise as kigo_chat_parser_create() and kigo_constraint_create().
kigo_status kigo_constraint_create_tools(const kigo_model *model,
                                         const kigo_chat_options *chat,
                                         const kigo_tools_options *options,
                                         kigo_constraint **constraint);

// ==== Batches ==================================================================================================
//
// Many sessions of one model in one call, in any order, of different lengths and with different parameters: their
// passes read the weights once for all of them. Each entry is independent: its tokens, logits and status are those of
// the same call for its session alone, bit for bit, whatever becomes of the others.
//
// Each function takes arrays of `n` entries and fills `statuses` with one kigo_status each. It returns
// KIGO_STATUS_OK if all of these are; otherwise the first of them that is not, and kigo_last_error() has that
// entry's index and text. Whoever drops some sessions and goes on with the rest looks at `statuses` alone. Where an
// array itself is at fault (NULL) nothing has happened and all of `statuses`, if it is not NULL, are
// KIGO_STATUS_INVALID_ARGUMENT. `n` may be 0.
//
// The entry's own status is KIGO_STATUS_INVALID_ARGUMENT for a session that is NULL, of another model than entry 0's,
// or named by an earlier entry; KIGO_STATUS_BUSY for one in use; and whatever the single call gives. All sessions are
// in use until the call returns.
//
// Cancelling. A pass that several entries share, of this call or of calls that are merged (KIGO_LOAD_MERGE_CALLS), is not
// stopped: a cancel is seen before the next, on the CPU after kigo_load_options.pass_tokens tokens of prompts and a token of
// each entry that steps, 512 at most in all, on a GPU after 2,048 at most of all entries together. It stops its own entry and
// no other. One that comes while the entry's last pass runs stops the session's next call instead. An entry that is alone in
// a pass stops as a call for it alone does.

// Appends to each session its tokens, `n_ids[i]` at `ids[i]`: kigo_session_prefill() for many. Entries of one token
// are steps, so that new prompts and running answers may share a call; on the CPU they are part of its first passes. The
// memory of each entry is taken before anything runs, in the order of the entries. The call returns when the longest is done:
// whoever steps answers beside a prompt in a call gives it the prompt piece by piece (examples-c/scheduler.c), or
// leaves that to a kigo_batch.
kigo_status kigo_prefill_batch(kigo_session *const *sessions,
                               const uint32_t *const *ids,
                               const size_t *n_ids,
                               size_t n,
                               kigo_status *statuses);

// Appends to each session one token: kigo_session_step() for many.
kigo_status kigo_step_batch(kigo_session *const *sessions,
                            const uint32_t *tokens,
                            size_t n,
                            kigo_status *statuses);

// Picks the next token of each session from its current logits, with its own parameters: kigo_session_sample() for
// many. `tokens` gets one each; KIGO_TOKEN_NONE where the entry's status is not KIGO_STATUS_OK.
kigo_status kigo_sample_batch(kigo_session *const *sessions,
                              size_t n,
                              uint32_t *tokens,
                              kigo_status *statuses);

// ==== Polled batches ===========================================================================================
//
// Sessions that advance while the host does other things: for loops that may not block, such as those of games and windows.
// A batch takes sessions of one model, each with tokens to append, something to generate, or both; kigo_batch_run() runs them
// together for some milliseconds, on the calling thread and the engine's, and kigo_batch_next() tells what has happened:
//
//     kigo_batch_add(batch, session, &work);
//     while (kigo_batch_run(batch, 5, &n_sessions) == KIGO_STATUS_OK && n_sessions > 0) {
//         while (kigo_batch_next(batch, &event) == KIGO_STATUS_OK && event.kind != KIGO_BATCH_EVENT_NONE) { ... }
//         draw_the_next_frame();
//     }
//
// There is no queue and no thread behind it: nothing runs outside of kigo_batch_run(). Tokens, texts, ends and bits are those
// of kigo_session_prefill() and kigo_session_generate() for each session alone, whoever else is in the batch.
//
// A prompt of a session with KIGO_SESSION_REUSE_PREFIX waits for what another session is computing of it, in this batch or in another
// call, and other calls wait for what a prompt of the batch computes, for 5 milliseconds at most while no kigo_batch_run() runs.
//
// From kigo_batch_add() until it ends or is removed a session is in use: every call that needs it to itself gives
// KIGO_STATUS_BUSY. A cancel ends it as it would end the call: a prompt with
// KIGO_STATUS_CANCELLED and the session as it was before, a generation with KIGO_STOP_CANCELLED. A session that is destroyed
// meanwhile ends so too, and event.session is then its former address, that of no other session before that event is taken.
//
// One thread at a time: a batch that another thread uses answers KIGO_STATUS_BUSY.

// For kigo_batch_event.kind: nothing has happened that was not taken.
#define KIGO_BATCH_EVENT_NONE 0

// For kigo_batch_event.kind: a token was generated and appended.
#define KIGO_BATCH_EVENT_TOKEN 1

// For kigo_batch_event.kind: the session is through, or has failed. It is out of the batch, and no more in use.
#define KIGO_BATCH_EVENT_END 2

// Sessions that run together, a while at a time.
typedef struct kigo_batch kigo_batch;

// What a batch does with a session. 0 is the default of each field; there must be tokens, or something to generate.
typedef struct kigo_batch_work {
    // sizeof(kigo_batch_work).
    size_t struct_size;
    // Tokens to append, as by kigo_session_prefill(); copied by the call.
    const uint32_t *ids;
    // How many.
    size_t n_ids;
    // What to generate then, as by kigo_session_generate(), its texts copied by the call; NULL: nothing. Its `on_token` and
    // `on_step` are NULL, events stand in their place.
    const kigo_generate_options *generate;
    // Handed out with the session's events.
    void *user_data;
} kigo_batch_work;

// What has happened in a batch.
typedef struct kigo_batch_event {
    // sizeof(kigo_batch_event), set by the caller.
    size_t struct_size;
    // Whom it concerns.
    kigo_session *session;
    // That session's kigo_batch_work.user_data.
    void *user_data;
    // The text that has become complete by a token, often empty; with an end what was still held back. Whole UTF-8
    // characters, a NUL behind them; the batch's, valid until the next call with it. NULL where nothing has happened.
    const char *text;
    // Bytes of it.
    size_t text_len;
    // Tokens that the session has generated in the batch until then.
    size_t n_tokens;
    // Which of the stop strings was reached, for KIGO_STOP_STRING.
    size_t stop_index;
    // KIGO_BATCH_EVENT_*.
    uint32_t kind;
    // The token, for KIGO_BATCH_EVENT_TOKEN; else KIGO_TOKEN_NONE.
    uint32_t token;
    // The token that ended it, for KIGO_STOP_END_TOKEN; else KIGO_TOKEN_NONE.
    uint32_t stop_token;
    // KIGO_STOP_* of an end, or 0 where nothing was to be generated or `status` is a failure.
    int32_t stop_reason;
    // What, of an end, the calls for the session alone would have returned; kigo_session_last_error() has the text.
    kigo_status status;
    // 0.
    uint32_t reserved;
    // Tokens that the session had got before its generation, which begins when the prompt is through, or with kigo_batch_add() if
    // there is none: see kigo_generated. This and the times below are those of an end, and 0 of other events and where none began.
    uint64_t n_prompt_tokens;
    // Those of them that were taken from other sessions.
    uint64_t n_prompt_tokens_reused;
    // What these took: see kigo_generated. A prompt's time in a batch begins with kigo_batch_add(), and what is between the runs is
    // part of it.
    uint64_t prefill_ns;
    // From the generation's beginning to the first token, without what is between the runs. 0 without a token.
    uint64_t first_token_ns;
    // The whole generation, but for what is between the runs: the time of kigo_batch_run() while it was in the batch.
    uint64_t decode_ns;
    // The time between the runs, from the generation's beginning on.
    uint64_t between_ns;
    // The part of the time in which a token that had been chosen waited for its pass to begin.
    uint64_t waiting_ns;
} kigo_batch_event;

// Makes a batch without sessions. INVALID_STATE: the model has no weights (KIGO_LOAD_VOCABULARY). OUT_OF_MEMORY.
kigo_status kigo_batch_create(const kigo_model *model,
                              kigo_batch **batch);

// Gives the handle up, with the text and the events that were not taken. NULL does nothing. Sessions that are still in it
// are as after kigo_batch_remove().
void kigo_batch_destroy(kigo_batch *batch);

// Adds a session, which is in use from now on. It may be one that was in the batch before.
//
// INVALID_ARGUMENT: a session of another model, an id that is not below n_vocab, neither tokens nor something to generate, a
// stop string that is empty or not UTF-8, an `on_token` or `on_step`. INVALID_STATE: the session has a tap, or has no logits and gets no
// tokens. CONTEXT_FULL, CACHE_FULL, OUT_OF_MEMORY: as of kigo_session_prefill(), whose memory is taken here; of a prompt that waits for
// what another session computes later, and the last two are then its end's status. BUSY: the session is in use, or the batch.
kigo_status kigo_batch_add(kigo_batch *batch,
                           kigo_session *session,
                           const kigo_batch_work *work);

// Takes a session out, which is free then: without the prompt if that was not through, and with the tokens that were
// generated, each of which has its event. No other event tells of it.
//
// NOT_FOUND: it is not in the batch, or has ended. BUSY.
kigo_status kigo_batch_remove(kigo_batch *batch,
                              kigo_session *session);

// Runs passes until `max_ms` milliseconds are over or no session is left, at least one pass if there is one: 0 is one pass. Where
// all sessions wait for what other calls compute it waits with them, no longer than `max_ms`.
// `n_sessions` gets how many are still in the batch.
//
// It returns about `max_ms` after it was called, and one pass: on the CPU passes have so few tokens of prompts that each takes
// about as long as `max_ms`, or as long as a step and a dozen of them where that is longer; on a GPU 2,048 at most. A choice
// under a constraint may take longer (see "Constraints").
//
// What goes wrong with one session is its event's status. From this call, OUT_OF_MEMORY: there is no room for events; the
// sessions stay, and the call may be repeated. BUSY.
kigo_status kigo_batch_run(kigo_batch *batch,
                           uint64_t max_ms,
                           size_t *n_sessions);

// Takes the oldest event that was not taken; `event->kind` is KIGO_BATCH_EVENT_NONE where there is none. The caller sets
// `event->struct_size`. Events are in the order of what happened; each session's last is its KIGO_BATCH_EVENT_END. BUSY.
kigo_status kigo_batch_next(kigo_batch *batch,
                            kigo_batch_event *event);

// ==== Figures ==================================================================================================
//
// What has happened, in numbers: of a session and of a model, from their beginning on. Reading them waits for nobody, whatever
// runs; a program that reads them twice has what happened between. A generation's own figures are in kigo_generated.
//
// Times are nanoseconds of a clock that never goes back. Tokens count when a session holds them, so that those of a call that
// fails do not, but its time does, once it has got its memory. Of figures that are read while others run, some may be older than others by one call.

// What a session has come to. A fork and a restored session begin with zeros.
typedef struct kigo_session_figures {
    // sizeof(kigo_session_figures), set by the caller.
    size_t struct_size;
    // Tokens computed by calls of more than one: kigo_session_prefill(), kigo_session_advance(), entries of batches.
    uint64_t n_tokens_prefilled;
    // Tokens taken from other sessions (KIGO_SESSION_REUSE_PREFIX).
    uint64_t n_tokens_reused;
    // Tokens appended one by one: by calls of one token, and by generations.
    uint64_t n_tokens_decoded;
    // The time of the calls of more than one token, from their beginning to their end, with their waiting; of an entry
    // in a kigo_batch, from kigo_batch_add() on, so that what the host does meanwhile is in it. And of what
    // kigo_session_truncate() computes again.
    uint64_t prefill_ns;
    // The time of calls of one token, from their beginning to their end, and of kigo_session_generate() as a whole, but for its
    // callbacks. Choosing a token by itself (kigo_session_sample()) counts nowhere.
    uint64_t decode_ns;
    // The part of both in which tokens waited for a pass of theirs to begin: for passes of others, for calls that a pass
    // gathers (KIGO_LOAD_MERGE_CALLS), for what another session computes (KIGO_SESSION_REUSE_PREFIX), in a
    // batch for passes that had none of theirs, and in a kigo_batch for the host. What a device lets
    // calls wait for inside of a pass, such as other models' passes, and on a GPU without KIGO_LOAD_MERGE_CALLS all
    // others, is part of the pass and not of this.
    uint64_t waiting_ns;
} kigo_session_figures;

// What a model's sessions have come to together, those that are gone included, and what is under way.
typedef struct kigo_model_figures {
    // sizeof(kigo_model_figures), set by the caller.
    size_t struct_size;
    // Sessions that there are now, with those that kigo_model_embed() makes for itself.
    uint64_t n_sessions;
    // Those of them with tokens in a pass that runs now.
    uint64_t n_sessions_running;
    // Those of them whose tokens wait for a pass, or for what another session computes. The others are nowhere in a call, or
    // choose a token.
    uint64_t n_sessions_waiting;
    // The sums of the sessions' kigo_session_figures: tokens computed by calls of more than one,
    uint64_t n_tokens_prefilled;
    // those appended one by one,
    uint64_t n_tokens_decoded;
    // and those taken from other sessions.
    uint64_t n_tokens_reused;
    // Tokens that were computed again, because layers with a window had given back what was behind it.
    uint64_t n_tokens_recomputed;
    // Passes over the weights that have ended, also those that failed. Where a device chooses tokens ahead of the host,
    // one for each token.
    uint64_t n_passes;
    // Those of them with tokens of calls of more than one.
    uint64_t n_prefill_passes;
    // The tokens of all passes, added up.
    uint64_t n_pass_tokens;
    // The sessions of all passes, added up: how many shared one, times n_passes.
    uint64_t n_pass_sessions;
    // The most tokens that a pass had.
    uint64_t most_pass_tokens;
    // The time of all passes, added up.
    uint64_t pass_ns;
    // That of those with tokens of calls of more than one.
    uint64_t prefill_pass_ns;
    // That of the longest pass, those ahead of the host apart.
    uint64_t longest_pass_ns;
    // Pages of KV cache in use now, as kigo_cache_facts has them.
    uint64_t n_pages_used;
    // Those of them that no session holds: see kigo_load_options.prefix_cache_bytes.
    uint64_t n_pages_retained;
    // Pages that were retained and have been given up so far, for others or for memory.
    uint64_t n_pages_evicted;
    // Calls with sessions, and entries of batches, that a cancel or a callback in its place has stopped; generations that a cancel
    // has ended are among them, though they succeed.
    uint64_t n_cancelled;
    // Those refused because the session was in use: KIGO_STATUS_BUSY.
    uint64_t n_busy;
    // Those that failed with KIGO_STATUS_CONTEXT_FULL,
    uint64_t n_context_full;
    // with KIGO_STATUS_CACHE_FULL,
    uint64_t n_cache_full;
    // with KIGO_STATUS_OUT_OF_MEMORY,
    uint64_t n_out_of_memory;
    // and with any other status, as far as they came to a session: a pointer that is NULL does not.
    uint64_t n_other_failures;
} kigo_model_figures;

// Fills `figures`, whose `struct_size` the caller has set. Any thread, also while another is inside a call with the session.
kigo_status kigo_session_stats(const kigo_session *session,
                               kigo_session_figures *figures);

// Fills `figures`, whose `struct_size` the caller has set. Any thread, also while others are inside calls with the model and
// its sessions: no pass is waited for. All is 0 for a model without weights (KIGO_LOAD_VOCABULARY).
kigo_status kigo_model_stats(const kigo_model *model,
                             kigo_model_figures *figures);

// ==== Embeddings ===============================================================================================
//
// One vector for a text, for search and comparison: the model's states behind its last norm, averaged over the text or
// taken from its last token.

// For kigo_embed_options.pooling: the mean over the tokens, the default.
#define KIGO_POOLING_MEAN 0

// For kigo_embed_options.pooling: the last token's.
#define KIGO_POOLING_LAST 1

// For kigo_embed_options.normalization: to length 1 (L2), the default.
#define KIGO_NORMALIZATION_L2 0

// For kigo_embed_options.normalization: as it is.
#define KIGO_NORMALIZATION_NONE 1

// How an embedding is made. 0 is the default of each field.
typedef struct kigo_embed_options {
    // sizeof(kigo_embed_options).
    size_t struct_size;
    // KIGO_POOLING_*.
    int32_t pooling;
    // KIGO_NORMALIZATION_*.
    int32_t normalization;
} kigo_embed_options;

// The embedding of a text's tokens, n_embd floats. Buffer out, counted in floats; only asking for the size runs nothing.
//
// The tokens are those of kigo_tokenize(), with the begin and end tokens that the model wants. They run in a session of
// the call's own: its cache is taken from the model's and given back (CACHE_FULL, OUT_OF_MEMORY). Any number of threads may
// call this at once. On a device whose results do not depend on how a prompt is cut into passes (the CPU), the same
// tokens give the same bits.
//
// INVALID_ARGUMENT: no tokens, or an unknown pooling or normalization. CONTEXT_FULL: more tokens than the model's context.
kigo_status kigo_model_embed(const kigo_model *model,
                             const uint32_t *tokens,
                             size_t n_tokens,
                             const kigo_embed_options *options,
                             float *buffer,
                             size_t capacity,
                             size_t *needed);

// ==== Taps =====================================================================================================
//
// What a session computes, stage by stage: each named activation of each token, as a callback sees it. With it a wrong
// answer can be followed to the stage where it begins; examples-c/compare.c does that.
//
// A pass over a model of n layers makes, for each token: `embed`; then per layer, from 0, `attn_norm` (what attention
// reads: the input normalized, or as it is where the layer has no norm there), `q_rope` and `k_rope` (queries and keys with
// biases, norms, rotation, and the queries' temperature, as far as the layer has them), `v`, `attn_mix` (the weighted
// values, before the output matrix), `attn_out` (behind it), `ffn_norm` (what the feed-forward part reads: the sum so far
// normalized, or as it is; where both parts of a layer read its input, that), `ffn_act` (the activation of the gate, times
// up; without a gate the activation of up) or, where the feed-forward part is made of experts, `moe_logits`, `moe_ids` and
// `moe_weights`, `ffn_out`, and `resid` (the sum that goes to the next layer); then, where logits are wanted (the last token
// of a call), `final_norm` and `logits`. attn_out and ffn_out are those before a norm of their own, where a model has one,
// and before a scale. A layer that is a mixer or a feed-forward part alone has no stages of the other.
//
// A tapped session's logits are those of an untapped one, bit for bit; it only takes longer. Without a tap nothing does.

// Tap: the embedding row, scaled where the model does. [n_rows, n_embd].
#define KIGO_TAP_EMBED 1

// Tap: what a layer's attention reads, the normalized input. [n_rows, n_embd].
#define KIGO_TAP_ATTN_NORM 2

// Tap: queries, rotated, times their temperature. [n_rows, n_heads * head_dim].
#define KIGO_TAP_Q_ROPE 3

// Tap: keys, rotated, as the cache keeps them; of latents these and what is rotated. A layer that sees another's has none.
// [n_rows, n_kv_heads * head_dim].
#define KIGO_TAP_K_ROPE 4

// Tap: values; none of a layer that sees another's, or whose keys are latents. [n_rows, n_kv_heads * head_dim].
#define KIGO_TAP_V 5

// Tap: values weighted by attention. [n_rows, n_heads * head_dim].
#define KIGO_TAP_ATTN_MIX 6

// Tap: what attention adds to the layer's input. [n_rows, n_embd].
#define KIGO_TAP_ATTN_OUT 7

// Tap: what the feed-forward part reads, normalized. [n_rows, n_embd].
#define KIGO_TAP_FFN_NORM 8

// Tap: the activated gate times up, or up activated. Of layers without experts. [n_rows, n_ff].
#define KIGO_TAP_FFN_ACT 9

// Tap: what the feed-forward part adds. [n_rows, n_embd].
#define KIGO_TAP_FFN_OUT 10

// Tap: a layer's output. [n_rows, n_embd].
#define KIGO_TAP_RESID 11

// Tap: the normalized output of the last layer. [n_rows, n_embd].
#define KIGO_TAP_FINAL_NORM 12

// Tap: the logits. [n_rows, n_vocab].
#define KIGO_TAP_LOGITS 13

// Tap: a router's logits, biased where it is. Of layers with experts. [n_rows, n_experts].
#define KIGO_TAP_MOE_LOGITS 14

// Tap: the experts that a token goes through, in ascending order, as numbers. [n_rows, n_experts_used].
#define KIGO_TAP_MOE_IDS 15

// Tap: what each of these is multiplied by, in the same order. [n_rows, n_experts_used].
#define KIGO_TAP_MOE_WEIGHTS 16

// Tap: what a layer's convolution makes, activated where it is. Of layers that keep a state, as those that follow but for the last.
// [n_rows, channels].
#define KIGO_TAP_CONV 17

// Tap: how much of what is new a head's state takes: of a Mamba2 its time step. [n_rows, heads].
#define KIGO_TAP_BETA 18

// Tap: what a head's state is multiplied by before it takes it. [n_rows, heads].
#define KIGO_TAP_DECAY 19

// Tap: what the heads read of their states; of a Mamba2 with what passes them by. [n_rows, width].
#define KIGO_TAP_MIX_STATE 20

// Tap: what gates what the heads or the convolution have made, before its sigmoid or SiLU if it has one. Of attention that is gated,
// too. [n_rows, width].
#define KIGO_TAP_GATE 21

// Type of an activation's elements: float.
#define KIGO_TAP_TYPE_F32 1

// An activation of consecutive tokens, one a row.
typedef struct kigo_tap_event {
    // sizeof(kigo_tap_event) of the library: a field behind it is not there.
    size_t struct_size;
    // Its name, such as "attn_norm". A constant: never freed.
    const char *name;
    // `n_rows * n_cols` elements of `element_type`, row by row, in the host's memory. The library's, valid and unchanged
    // during the callback: who wants them longer copies them. On the CPU they are the engine's own buffer, on a GPU a copy.
    const void *data;
    // Tokens.
    size_t n_rows;
    // Elements of a row.
    size_t n_cols;
    // Position of the first token in the session.
    size_t position;
    // The layer, from 0; -1 outside of one.
    int64_t layer;
    // KIGO_TAP_*: which it is. A later version may have more of them.
    uint32_t tap;
    // KIGO_TAP_TYPE_*: what `data` is made of.
    uint32_t element_type;
} kigo_tap_event;

// Receives an activation, on the thread whose call computes it. Returns 0 to go on; anything else stops the call as
// kigo_session_cancel() does: KIGO_STATUS_CANCELLED, or KIGO_STOP_CANCELLED of a generation. The event is valid during
// the callback. The device is in the middle of its work: from inside, all calls with a session, and loading a model,
// give KIGO_STATUS_BUSY; kigo_session_cancel() and destroying this session are allowed, and stop the call as a return value
// does, also from inside the last event. Other threads' passes on the device wait until it returns, so it must not wait
// for them. It must return (not throw, not longjmp).
typedef int32_t (*kigo_tap_callback)(const kigo_tap_event *event, void *user_data);

// What a tap sees. 0 is the default of each field.
typedef struct kigo_tap_options {
    // sizeof(kigo_tap_options).
    size_t struct_size;
    // `n_taps` of KIGO_TAP_*, in any order, also twice; copied by the call.
    const uint32_t *taps;
    // How many; 0: all that this library has, also such as the caller's header does not know.
    size_t n_taps;
    // Receives the activations; NULL: nobody.
    kigo_tap_callback callback;
    // Handed to `callback`.
    void *user_data;
} kigo_tap_options;

// From the next call on that appends tokens, `options->callback` sees the activations that `options` name. It replaces an
// earlier one; `options` NULL, or all defaults, ends it. A long prompt is shown piece by piece: rows of all names and
// layers for its first tokens, then for the next ones. Cached tokens are not computed and so not shown. A fork begins
// without a tap. A tapped session in a batch runs by itself.
//
// INVALID_ARGUMENT: a number that is no tap's (the text has its index); taps without a callback. BUSY.
kigo_status kigo_session_set_tap(kigo_session *session,
                                 const kigo_tap_options *options);

// The name of a tap, such as "attn_norm"; NULL for a number that is none. From 1 on, until NULL: all that this library
// has. A constant: never freed. Any thread.
const char *kigo_tap_name(uint32_t tap);

// ==== Doctor ===================================================================================================
//
// Does this device, with this model, compute what it should? kigo_doctor() runs nine checks on the user's own machine;
// examples-c/doctor.c prints them. Each has a figure and the largest that is allowed, and says in words what it is.
//
// After a failure the first check that failed names what is at fault, which may be something earlier than its own
// subject: kigo_diagnosis.at_fault. What a device has no means, a model no context or the machine no memory for is
// skipped, and says so.

// Check: poisoned with NaN and with large numbers before each pass, the logits' buffer is written whole, and no logits
// depend on what it held. Figure: elements of which that is not so.
#define KIGO_CHECK_LOGITS_BUFFER 1

// Check: the token that was sampled is the one whose embedding row the next step reads, over 64 steps at temperature 0
// and 0.8, and generating in one call chooses the same. Figure: the largest error of a row.
#define KIGO_CHECK_TOKEN_FLOW 2

// Check: prompts of 1 to 65 tokens, around the boundary of a page, and one that fills a session of 513 positions (or of
// the model's whole context, where that is shorter) to its last, give the same logits at once, in chunks and one by
// one, and rows in the cache never change. The same are the same bits on the CPU and, where a GPU has the memory for a
// second model in strict mode, in that. Figure: the largest error of logits.
#define KIGO_CHECK_CACHE 3

// Check: keys of every layer turn with their position as the model's formula says, the order of tokens counts, and after a truncation
// all is as if it had never been otherwise. Figure: the largest error of a key.
#define KIGO_CHECK_POSITION 4

// Check: the weights of attention sum to 1, and cache rows behind the current position, poisoned with NaN, are not
// read. Figure: the largest distance from 1.
#define KIGO_CHECK_ATTENTION 5

// Check: control tokens are atomic and do not come of plain text, texts come back, the chat template renders. Figure:
// how many do not.
#define KIGO_CHECK_TOKENIZER 6

// Check: seeded draws follow their distribution, greedy is the argmax, a seed repeats itself. Figure: chi-squared.
#define KIGO_CHECK_SAMPLING 7

// Check: every stage agrees with the CPU's and with the plain reference's. Figure: the largest error of a stage.
#define KIGO_CHECK_BACKENDS 8

// Check: 64 sampled tokens of answers to a question are varied: no token makes up half, no answer ends in a cycle.
// Figure: the share of the most frequent token.
#define KIGO_CHECK_REPETITION 9

// Outcome of a check: it holds.
#define KIGO_OUTCOME_HOLDS 1

// Outcome of a check: it does not hold.
#define KIGO_OUTCOME_FAILS 2

// Outcome of a check: it could not be run; the text says why.
#define KIGO_OUTCOME_SKIPPED 3

// A check that has been run. Errors are normalized: the squared difference's sum over that of what is compared with.
typedef struct kigo_check {
    // sizeof(kigo_check) of the library: a field behind it is not there.
    size_t struct_size;
    // Its name, such as "token flow". UTF-8 with a NUL, valid during the callback.
    const char *name;
    // One line: what the figure is; after a failure what is wrong and where. UTF-8 with a NUL, valid during the callback.
    const char *text;
    // Bytes of `text`.
    size_t text_len;
    // What was measured; infinite where there was nothing to measure.
    double figure;
    // The largest figure with which it holds.
    double bound;
    // How long it took.
    double seconds;
    // KIGO_CHECK_*: which it is.
    int32_t number;
    // KIGO_OUTCOME_*.
    int32_t outcome;
} kigo_check;

// Receives each check when it has been run, on the calling thread. Returns 0 to go on; anything else ends
// kigo_doctor() with KIGO_STATUS_CANCELLED. It must return (not throw, not longjmp).
typedef int32_t (*kigo_check_callback)(const kigo_check *check, void *user_data);

// How to examine. 0 is the default of each field.
typedef struct kigo_doctor_options {
    // sizeof(kigo_doctor_options).
    size_t struct_size;
    // Receives the checks; NULL: nobody.
    kigo_check_callback on_check;
    // Handed to `on_check`.
    void *user_data;
    // Chooses tokens and draws. The same seed gives the same figures.
    uint64_t seed;
} kigo_doctor_options;

// What the checks came to.
typedef struct kigo_diagnosis {
    // sizeof(kigo_diagnosis), set by the caller.
    size_t struct_size;
    // Checks that hold.
    uint64_t n_holding;
    // Checks that do not.
    uint64_t n_failed;
    // Checks that could not be run.
    uint64_t n_skipped;
    // KIGO_CHECK_*: what the first check that failed finds at fault; 0: none failed.
    uint64_t at_fault;
} kigo_diagnosis;

// Loads the GGUF file at `path` on the engine's device, runs the checks, and fills `diagnosis`, whose `struct_size` the
// caller has set. For the comparison it loads the file on the CPU and on the plain reference too, one after the other,
// each under the engine's memory cap. Under a minute for a model of 0.5 billion parameters on two cores. `options` may
// be NULL: all defaults.
//
// A check that fails is no failure of the call. As kigo_model_load_file(); CANCELLED by the callback.
kigo_status kigo_doctor(const kigo_engine *engine,
                        const char *path,
                        size_t path_len,
                        const kigo_doctor_options *options,
                        kigo_diagnosis *diagnosis);

// ==== Stream ===================================================================================================
//
// Tokens in, complete UTF-8 characters out, for programs with a loop of their own: what kigo_session_generate() does
// with the text. One thread at a time: a stream that another thread uses answers KIGO_STATUS_BUSY.

// A stream of text.
typedef struct kigo_stream kigo_stream;

// How a stream is made. 0 is the default of each field.
typedef struct kigo_stream_options {
    // sizeof(kigo_stream_options).
    size_t struct_size;
    // Stop where the text reaches one of these `n_stop` texts, none of them empty; copied by the call.
    const kigo_string *stop;
    // How many.
    size_t n_stop;
    // 0 or KIGO_TEXT_SPECIAL.
    uint64_t flags;
} kigo_stream_options;

// What a stream gives.
typedef struct kigo_stream_text {
    // sizeof(kigo_stream_text), set by the caller.
    size_t struct_size;
    // Whole UTF-8 characters, a NUL behind them; the stream's, valid until its next call. Never NULL on success.
    const char *text;
    // Bytes of it.
    size_t text_len;
    // 1 once a stop string has been reached (its text and all that follows is left out), else 0.
    uint64_t stopped;
    // Which of the stop strings, if `stopped`.
    uint64_t stop_index;
} kigo_stream_text;

// Makes a stream. `options` may be NULL: all defaults. INVALID_ARGUMENT: a stop string that is empty or not UTF-8,
// unknown flags.
kigo_status kigo_stream_create(const kigo_model *model,
                               const kigo_stream_options *options,
                               kigo_stream **stream);

// Gives the handle up, and the text it gave. NULL does nothing.
void kigo_stream_destroy(kigo_stream *stream);

// Adds a token; `out` gets what has become complete by it, often nothing. The caller sets `out->struct_size`. After a
// stop string nothing comes any more.
//
// INVALID_ARGUMENT: an id that is not below n_vocab. OUT_OF_MEMORY: the stream is as it was. BUSY.
kigo_status kigo_stream_push(kigo_stream *stream,
                             uint32_t token,
                             kigo_stream_text *out);

// Ends the text: `out` gets what was held back; half a character becomes U+FFFD. The stream is as new
// afterwards, unless a stop string has ended it.
kigo_status kigo_stream_finish(kigo_stream *stream, kigo_stream_text *out);

#ifdef __cplusplus
} // extern "C"
#endif

#endif // KIGO_H
