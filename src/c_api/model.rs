//! A model is the weights and the tokenizer of a GGUF file, on the engine's device. It is immutable and shared by its
//! sessions. Loading copies what it needs: the file may be deleted, the caller's memory be freed, once the call has
//! returned.
//!
//! Read are GGUF versions 2 and 3, of the tensor types and architectures that README.md lists for this version, whole or
//! split into files named "...-00001-of-0000N.gguf" (give the first); anything else is refused by its name.

use super::engine::kigo_engine;
use super::prelude::*;
use crate::engine::{LoadOptions, Model};

/// Weights and tokenizer, or the tokenizer alone. Its functions take it as const: any number of threads may call them at once.
pub struct kigo_model(pub(super) Model);

/// Called while a model loads, on the loading thread: `done_bytes` of `total_bytes` are loaded. Returns 0 to go on;
/// anything else stops the load with KIGO_STATUS_CANCELLED. Other sessions may run meanwhile, also from inside. It must
/// return (not throw, not longjmp).
pub type kigo_progress_callback =
    Option<unsafe extern "C" fn(done_bytes: u64, total_bytes: u64, user_data: *mut c_void) -> i32>;

/// How a model is loaded. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_load_options {
    /// sizeof(kigo_load_options).
    pub struct_size: usize,
    /// Told of the progress, and may cancel; NULL: nobody.
    pub progress: kigo_progress_callback,
    /// Handed to `progress`.
    pub progress_user_data: *mut c_void,
    /// The most bytes of KV cache that the model's sessions may take together, rounded down to whole pages
    /// (kigo_model_cache_info()); 0: what the engine's memory cap leaves. Nothing is taken before it is needed.
    pub cache_bytes: u64,
    /// KIGO_LOAD_MERGE_CALLS, KIGO_LOAD_STRICT, KIGO_LOAD_VOCABULARY.
    pub flags: u64,
    /// The most tokens of prompts in a pass on the CPU; 0: by what is measured, few while other threads step sessions of the
    /// engine's models, so that their gaps stay within about four times the usual, and more while nobody does. See "Passes"
    /// in the section of sessions. Under a tap and for embeddings passes are of 512 tokens unless this says fewer; a GPU's are of
    /// 2,048, whatever this says.
    pub pass_tokens: u64,
    /// The most bytes of the KV cache that stay when the sessions whose tokens they were are gone (destroyed, truncated,
    /// advanced), to be found by sessions with KIGO_SESSION_REUSE_PREFIX; UINT64_MAX: whatever there is; 0: none. They are
    /// given up, the least recently used first and the end of a text before its beginning, where more of them would come and
    /// before anything of this engine's is short of memory.
    pub prefix_cache_bytes: u64,
    /// The most bytes of checkpoints of all sessions together, of a model whose layers keep a state (kigo_plan.checkpoint_bytes has one's
    /// size): see kigo_session_truncate(). A prefix is shared up to one, too. Where more would come that goes which is worth least, for
    /// its distance to the end of its text. 0: 512 MiB; less than one: none.
    pub checkpoint_bytes: u64,
}
sized_struct!(kigo_load_options, bytes: 64, fields: [usize, kigo_progress_callback, *mut c_void, u64, u64, u64, u64, u64]);

/// For kigo_load_options.flags: calls that run sessions of this model on different threads at the same time,
/// kigo_session_prefill(), _step(), _generate() and the batch calls, share passes over the weights. Every result is
/// the one that the call alone gives. A pass waits up to 2 ms, and up to a quarter of the last pass's time, for calls
/// that were part of the last; it runs on the thread of one of the calls, and a cancel is seen between passes, as in a
/// batch call. Steps ride in the passes of a prompt: see "Passes" in the section of sessions. A program with one thread
/// has no use for it.
pub const KIGO_LOAD_MERGE_CALLS: u64 = 1;

/// For kigo_load_options.flags: the same bits however tokens are cut into calls and whatever prefix they share, on every
/// device: see "Sameness" in the section of sessions. It costs nothing on the CPU, and a GPU the speed of its prefill. UNSUPPORTED
/// where a device has no such mode.
pub const KIGO_LOAD_STRICT: u64 = 2;

/// For kigo_load_options.flags: nothing is read but the vocabulary, the chat template and the metadata, of a file that has
/// nothing else or of any other, whatever its architecture and tensor types. The model tokenizes, detokenizes and renders
/// chats; kigo_model_facts.flags has no KIGO_MODEL_HAS_WEIGHTS, what only weights tell is 0 there, and the calls that need
/// them (kigo_session_create(), kigo_session_restore(), kigo_model_embed()) give KIGO_STATUS_INVALID_STATE. `progress` is
/// not called, and the other flags, `cache_bytes` and `prefix_cache_bytes` have no effect.
pub const KIGO_LOAD_VOCABULARY: u64 = 4;

/// What a plan is for. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_plan_options {
    /// sizeof(kigo_plan_options).
    pub struct_size: usize,
    /// The tokens of the session that kigo_plan.cache_bytes is for; 0: as many as the model was trained for.
    pub n_tokens: usize,
    /// The flags that the load would have: see kigo_load_options.flags.
    pub flags: u64,
}
sized_struct!(kigo_plan_options, bytes: 24, fields: [usize, usize, u64]);

/// What a load would take on the engine's device, and a session of the model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_plan {
    /// sizeof(kigo_plan), set by the caller.
    pub struct_size: usize,
    /// The weights as the device holds them.
    pub weights_bytes: u64,
    /// Activations and other working memory of one session at a time, at most. Batches of sessions take more on a GPU, the
    /// larger the more.
    pub scratch_bytes: u64,
    /// The tokens that `cache_bytes` is for: kigo_plan_options.n_tokens, or as many as the model was trained for.
    pub n_tokens: u64,
    /// The KV cache of one session of so many tokens, all layers together, in whole pages; taken as the tokens come.
    pub cache_bytes: u64,
    /// What each session takes besides, however short it is: the state of layers that have one in place of a cache, twice while it
    /// goes on and three times in a prefill. 0 where there are none.
    pub state_bytes: u64,
    /// One copy of that state, of which sessions keep some so that they can be truncated, as many as
    /// kigo_load_options.checkpoint_bytes allows. 0 where there is none.
    pub checkpoint_bytes: u64,
    /// Those of `cache_bytes` that are not kept when another session or the memory cap needs them: keys and values that the
    /// layers with a window do not read any more. See kigo_session_facts.truncate_free_from.
    pub cache_spare_bytes: u64,
    /// The most bytes of checkpoints of all sessions together where kigo_load_options.checkpoint_bytes is 0; they are taken as there are
    /// some, and given back when memory is short. 0 where there is no state.
    pub checkpoint_limit_bytes: u64,
}
sized_struct!(kigo_plan, bytes: 72, fields: [usize, u64, u64, u64, u64, u64, u64, u64, u64]);

/// What loading the file at `path` would take, without loading it: reads the header only.
///
/// `path_len` may be KIGO_STRLEN, `options` may be NULL: all defaults. The caller sets `plan->struct_size`. Fails as
/// kigo_model_load_file() does, memory and progress apart. INVALID_ARGUMENT: n_tokens is more than the model was trained
/// for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_plan(
    engine: *const kigo_engine,
    path: *const c_char,
    path_len: usize,
    options: *const kigo_plan_options,
    plan: *mut kigo_plan,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(plan, "plan")?;
        let engine = borrow(engine, "engine")?;
        let path = super::args::path(path, path_len, "path")?;
        let options = super::args::options(options)?;
        let load = flagged(options.flags)?;
        let n_tokens = (options.n_tokens != 0).then_some(options.n_tokens);
        let found = engine.0.plan_file_for(&path, n_tokens, &load)?;
        let value = kigo_plan {
            struct_size: size,
            weights_bytes: found.weights_bytes,
            scratch_bytes: found.scratch_bytes,
            n_tokens: found.n_tokens as u64,
            cache_bytes: found.cache_bytes,
            state_bytes: found.state_bytes,
            checkpoint_bytes: found.checkpoint_bytes,
            cache_spare_bytes: found.spare_bytes,
            checkpoint_limit_bytes: found.checkpoint_limit_bytes,
        };
        fill(plan, size, &value);
        Ok(())
    })
}

/// Loads the GGUF file at `path`; `path_len` may be KIGO_STRLEN, `options` may be NULL.
///
/// IO: the file, or a part of a split one, cannot be opened or read, or was shortened while the call ran: the text has the
/// place, the bytes wanted and those read. INVALID_MODEL: the text names the field, its
/// byte offset and both numbers. UNSUPPORTED: the text names the architecture, tensor type or pre-tokenizer.
/// OUT_OF_MEMORY: the text has the bytes asked for and free. INVALID_ARGUMENT: `cache_bytes` or `prefix_cache_bytes` is less
/// than a page, unknown flags. CANCELLED: `progress` returned something other than 0. After each of them the engine is as it was. Who writes to
/// the file meanwhile gets one of these, or a model of the bytes that were there when they were read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_load_file(
    engine: *const kigo_engine,
    path: *const c_char,
    path_len: usize,
    options: *const kigo_load_options,
    model: *mut *mut kigo_model,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(model, "model")?;
        let engine = borrow(engine, "engine")?;
        let path = super::args::path(path, path_len, "path")?;
        let (mut progress, options) = load_options(&super::args::options(options)?)?;
        put(model, kigo_model(engine.0.load_file_with(&path, options, &mut progress)?))
    })
}

/// Loads a GGUF file that lies at `data`, `data_bytes` long; nothing of it is referred to afterwards.
/// Otherwise as kigo_model_load_file(); a split file cannot be loaded this way (UNSUPPORTED).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_load_memory(
    engine: *const kigo_engine,
    data: *const c_void,
    data_bytes: usize,
    options: *const kigo_load_options,
    model: *mut *mut kigo_model,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(model, "model")?;
        let engine = borrow(engine, "engine")?;
        let (mut progress, options) = load_options(&super::args::options(options)?)?;
        let bytes = slice(data.cast::<u8>(), data_bytes, "data")?;
        put(model, kigo_model(engine.0.load_memory_with(bytes, options, &mut progress)?))
    })
}

/// The options as the engine layer takes them.
fn load_options(o: &kigo_load_options) -> Result<(impl FnMut(u64, u64) -> Result<()> + use<>, LoadOptions)> {
    let cache_bytes = (o.cache_bytes != 0).then_some(o.cache_bytes);
    let tokens = usize::try_from(o.pass_tokens).unwrap_or(usize::MAX);
    let pass_tokens = (tokens != 0).then_some(tokens);
    let prefix_cache_bytes = o.prefix_cache_bytes;
    let checkpoint_bytes = o.checkpoint_bytes;
    let options = LoadOptions { cache_bytes, pass_tokens, prefix_cache_bytes, checkpoint_bytes, ..flagged(o.flags)? };
    Ok((progress(o), options))
}

/// What the flags of a load say of its options.
fn flagged(found: u64) -> Result<LoadOptions> {
    let flags = flags(found, KIGO_LOAD_MERGE_CALLS | KIGO_LOAD_STRICT | KIGO_LOAD_VOCABULARY, "flags")?;
    let is = |flag: u64| flags & flag != 0;
    let (merge, strict, vocabulary) = (is(KIGO_LOAD_MERGE_CALLS), is(KIGO_LOAD_STRICT), is(KIGO_LOAD_VOCABULARY));
    Ok(LoadOptions { merge, strict, vocabulary, ..LoadOptions::default() })
}

/// The caller's progress callback as the engine layer takes one.
fn progress(options: &kigo_load_options) -> impl FnMut(u64, u64) -> Result<()> + use<> {
    let (callback, user_data) = (options.progress, options.progress_user_data);
    move |done, total| match callback {
        // SAFETY: the caller's function, called on the caller's thread as the header says.
        Some(callback) if outside(|| unsafe { callback(done, total, user_data) }) != 0 => Err(Error::Cancelled),
        _ => Ok(()),
    }
}

/// Gives the handle up. NULL does nothing. Sessions made from it go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_destroy(model: *mut kigo_model) {
    guard_free(|| {
        // SAFETY: the header's contract for handles.
        unsafe { destroy(model) };
        Ok(())
    });
}

/// The text of the last call with this handle that failed, on whichever thread, as kigo_last_error() has it of a
/// thread; empty if none has. Text out; 1,024 bytes always suffice. A session that cannot be made is its model's. Calls
/// that succeed leave it alone, and so does this one. Any thread, also while another is inside a call with the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_last_error(
    model: *const kigo_model,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        last_error(model, "model", &out)
    })
}
