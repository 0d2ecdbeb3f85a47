//! A model is the weights and the tokenizer of a GGUF file, on the engine's device. It is immutable and shared by its
//! sessions. Loading copies what it needs: the file may be deleted, the caller's memory be freed, once the call has
//! returned.
//!
//! Read are GGUF versions 2 and 3 with tensors of the types F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K
//! Q6_K, whole or split into files named "...-00001-of-0000N.gguf" (give the first). Architectures: llama, qwen2,
//! qwen3, gemma3.

use super::engine::kigo_engine;
use super::prelude::*;
use crate::engine::{LoadOptions, Model, ModelFacts};

/// Weights and tokenizer, or the tokenizer alone. Its functions take it as const: any number of threads may call them at once.
pub struct kigo_model(pub(super) Model);

/// In kigo_model_facts.flags: the file has a chat template; kigo_chat_render() works.
pub const KIGO_MODEL_HAS_CHAT_TEMPLATE: u64 = 1;
/// In kigo_model_facts.flags: KIGO_TOKENIZE_ADD_SPECIAL puts the begin token in front.
pub const KIGO_MODEL_ADDS_BEGIN: u64 = 2;
/// In kigo_model_facts.flags: KIGO_TOKENIZE_ADD_SPECIAL puts the end token behind.
pub const KIGO_MODEL_ADDS_END: u64 = 4;
/// In kigo_model_facts.flags: the model computes. Without it (KIGO_LOAD_VOCABULARY) it has a vocabulary, a chat template
/// and metadata; sessions and embeddings are INVALID_STATE.
pub const KIGO_MODEL_HAS_WEIGHTS: u64 = 8;
/// In kigo_model_facts.flags: its sessions have logits, so that it can generate.
pub const KIGO_MODEL_HAS_LOGITS: u64 = 16;

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
}
sized_struct!(kigo_load_options, bytes: 40, fields: [usize, kigo_progress_callback, *mut c_void, u64, u64]);

/// For kigo_load_options.flags: calls that run sessions of this model on different threads at the same time,
/// kigo_session_prefill(), _step(), _generate() and the batch calls, share passes over the weights. Every result is
/// the one that the call alone gives. A pass waits up to 2 ms, and up to a quarter of the last pass's time, for calls
/// that were part of the last; it runs on the thread of one of the calls, and a cancel is seen between passes, as in a
/// batch call. A program with one thread has no use for it.
pub const KIGO_LOAD_MERGE_CALLS: u64 = 1;

/// For kigo_load_options.flags: the same bits however a prompt is cut into calls and whatever prefix it shares, on every
/// device: see "Sameness" in the section of sessions. It costs nothing on the CPU, and a GPU the speed of its prefill. UNSUPPORTED
/// where a device has no such mode.
pub const KIGO_LOAD_STRICT: u64 = 2;

/// For kigo_load_options.flags: nothing is read but the vocabulary, the chat template and the metadata, of a file that has
/// nothing else or of any other, whatever its architecture and tensor types. The model tokenizes, detokenizes and renders
/// chats; kigo_model_facts.flags has no KIGO_MODEL_HAS_WEIGHTS, what only weights tell is 0 there, and the calls that need
/// them (kigo_session_create(), kigo_session_restore(), kigo_model_embed()) give KIGO_STATUS_INVALID_STATE. `progress` is
/// not called, and the other flags and `cache_bytes` have no effect.
pub const KIGO_LOAD_VOCABULARY: u64 = 4;

/// What a plan is for. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_plan_options {
    /// sizeof(kigo_plan_options).
    pub struct_size: usize,
    /// The tokens of the session that kigo_plan.cache_bytes is for; 0: as many as the model was trained for.
    pub n_tokens: usize,
    /// As kigo_load_options.flags.
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
    /// What each session takes besides, however short it is: the state of layers that have one in place of a cache. 0 where
    /// there are none.
    pub state_bytes: u64,
    /// One copy of that state, of which a session keeps some so that it can be truncated. 0 where there is none.
    pub checkpoint_bytes: u64,
}
sized_struct!(kigo_plan, bytes: 56, fields: [usize, u64, u64, u64, u64, u64, u64]);

/// What a model is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_model_facts {
    /// sizeof(kigo_model_facts), set by the caller.
    pub struct_size: usize,
    /// Elements of all tensors.
    pub n_parameters: u64,
    /// Bytes of the file, or of all files of a split one.
    pub file_bytes: u64,
    /// The weights as the device holds them.
    pub weights_bytes: u64,
    /// The weights that one decode step reads, as the file stores them: all but the embedding, of which one row.
    pub decode_bytes: u64,
    /// What each session takes besides its KV cache (kigo_model_cache_bytes()), however short it is: see
    /// kigo_plan.state_bytes.
    pub state_bytes: u64,
    /// Number of metadata entries.
    pub n_meta: u64,
    /// KIGO_MODEL_*.
    pub flags: u64,
    /// Token ids are below this; also the number of logits, where there are any.
    pub n_vocab: u32,
    /// The context length that the model was trained for: the largest of a session.
    pub n_ctx_train: u32,
    /// Layers; kigo_model_layer_info() has what each is.
    pub n_layers: u32,
    /// Width of the residual stream.
    pub n_embd: u32,
    /// The begin token, or KIGO_TOKEN_NONE.
    pub begin_token: u32,
    /// The end token, or KIGO_TOKEN_NONE. There may be others that end a generation: see kigo_token_flags().
    pub end_token: u32,
}
sized_struct!(kigo_model_facts, bytes: 88, fields: [usize, u64, u64, u64, u64, u64, u64, u64, u32, u32, u32, u32, u32, u32]);

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
        let vocabulary = load_flags(options.flags)? & KIGO_LOAD_VOCABULARY != 0;
        let n_tokens = (options.n_tokens != 0).then_some(options.n_tokens);
        let found = engine.0.plan_file_for(&path, n_tokens, vocabulary)?;
        let value = kigo_plan {
            struct_size: size,
            weights_bytes: found.weights_bytes,
            scratch_bytes: found.scratch_bytes,
            n_tokens: found.n_tokens as u64,
            cache_bytes: found.cache_bytes,
            // No architecture has one yet.
            state_bytes: 0,
            checkpoint_bytes: 0,
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
/// OUT_OF_MEMORY: the text has the bytes asked for and free. INVALID_ARGUMENT: `cache_bytes` is less than a page, unknown
/// flags. CANCELLED: `progress` returned something other than 0. After each of them the engine is as it was. Who writes to
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
    let flags = load_flags(o.flags)?;
    let is = |flag: u64| flags & flag != 0;
    let (merge, strict) = (is(KIGO_LOAD_MERGE_CALLS), is(KIGO_LOAD_STRICT));
    let cache_bytes = (o.cache_bytes != 0).then_some(o.cache_bytes);
    let vocabulary = is(KIGO_LOAD_VOCABULARY);
    Ok((progress(o), LoadOptions { cache_bytes, merge, strict, vocabulary }))
}

fn load_flags(found: u64) -> Result<u64> {
    flags(found, KIGO_LOAD_MERGE_CALLS | KIGO_LOAD_STRICT | KIGO_LOAD_VOCABULARY, "flags")
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

/// Fills `facts`, whose `struct_size` the caller has set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_info(model: *const kigo_model, facts: *mut kigo_model_facts) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(facts, "facts")?;
        let value = to_c(size, borrow(model, "model")?.0.facts());
        fill(facts, size, &value);
        Ok(())
    })
}

fn to_c(struct_size: usize, facts: &ModelFacts) -> kigo_model_facts {
    let bit = |on: bool, flag: u64| if on { flag } else { 0 };
    let token = |token: Option<u32>| token.unwrap_or(super::tokenizer::KIGO_TOKEN_NONE);
    kigo_model_facts {
        struct_size,
        n_parameters: facts.n_parameters,
        file_bytes: facts.file_bytes,
        weights_bytes: facts.weights_bytes,
        decode_bytes: facts.decode_bytes,
        state_bytes: 0,
        n_meta: facts.n_meta as u64,
        flags: bit(facts.has_chat_template, KIGO_MODEL_HAS_CHAT_TEMPLATE)
            | bit(facts.adds_begin, KIGO_MODEL_ADDS_BEGIN)
            | bit(facts.adds_end, KIGO_MODEL_ADDS_END)
            | bit(facts.has_weights, KIGO_MODEL_HAS_WEIGHTS | KIGO_MODEL_HAS_LOGITS),
        n_vocab: facts.n_vocab as u32,
        n_ctx_train: facts.n_ctx_train as u32,
        n_layers: facts.n_layers as u32,
        n_embd: facts.n_embd as u32,
        begin_token: token(facts.begin_token),
        end_token: token(facts.end_token),
    }
}

/// In kigo_layer_facts.mixers: attention over the tokens before.
pub const KIGO_MIXER_ATTENTION: u32 = 1;

/// What a layer is. A number that does not apply is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_layer_facts {
    /// sizeof(kigo_layer_facts), set by the caller.
    pub struct_size: usize,
    /// What it adds to a session's KV cache for each token that it sees; 0: it has no cache of its own.
    pub kv_bytes_per_token: u64,
    /// What it keeps of a session however long that is; 0: nothing.
    pub state_bytes: u64,
    /// How it mixes tokens, KIGO_MIXER_* together; 0: not at all. Later versions know more kinds.
    pub mixers: u32,
    /// It sees the last so many tokens, the current one included; 0: all.
    pub window: u32,
    /// Query heads.
    pub n_heads: u32,
    /// Key and value heads.
    pub n_kv_heads: u32,
    /// Elements of a head of queries and keys.
    pub k_head_dim: u32,
    /// Elements of a head of values.
    pub v_head_dim: u32,
    /// Elements of a head of queries and keys that turn with the position.
    pub n_rot: u32,
    /// The layer, from 0, whose keys and values it sees: itself, or an earlier one.
    pub kv_layer: u32,
    /// Width of the feed-forward part; of one with experts, of what every token goes through.
    pub n_ff: u32,
    /// Experts of the feed-forward part.
    pub n_experts: u32,
    /// Of them, those that a token goes through.
    pub n_experts_used: u32,
    /// Width of an expert.
    pub n_ff_expert: u32,
}
sized_struct!(kigo_layer_facts, bytes: 72, fields: [usize, u64, u64, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32]);

/// Fills `facts`, whose `struct_size` the caller has set, with what layer number `layer` is, from 0.
///
/// INVALID_ARGUMENT: `layer` is not below kigo_model_facts.n_layers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_layer_info(
    model: *const kigo_model,
    layer: usize,
    facts: *mut kigo_layer_facts,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(facts, "facts")?;
        let found = borrow(model, "model")?.0.layer_facts(layer)?;
        let value = kigo_layer_facts {
            struct_size: size,
            kv_bytes_per_token: found.kv_bytes_per_token,
            state_bytes: 0,
            mixers: KIGO_MIXER_ATTENTION,
            window: found.window.unwrap_or(0),
            n_heads: found.n_heads as u32,
            n_kv_heads: found.n_kv_heads as u32,
            k_head_dim: found.k_head_dim as u32,
            v_head_dim: found.v_head_dim as u32,
            n_rot: found.n_rot as u32,
            kv_layer: layer as u32,
            n_ff: found.n_ff as u32,
            n_experts: 0,
            n_experts_used: 0,
            n_ff_expert: 0,
        };
        fill(facts, size, &value);
        Ok(())
    })
}

/// What a session of `n_tokens` tokens takes of the KV cache, all layers together, in whole pages.
///
/// INVALID_ARGUMENT: more than kigo_model_facts.n_ctx_train.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_cache_bytes(
    model: *const kigo_model,
    n_tokens: usize,
    cache_bytes: *mut u64,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(cache_bytes, "cache_bytes")?;
        cache_bytes.write(borrow(model, "model")?.0.cache_bytes(n_tokens)?);
        Ok(())
    })
}

/// How full the KV cache of a model's sessions is. It is taken in pages, each of which holds some consecutive tokens of one
/// session, or of several that share them; pages of layers that keep different things need not have the same size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_cache_facts {
    /// sizeof(kigo_cache_facts), set by the caller.
    pub struct_size: usize,
    /// Tokens of a page.
    pub page_tokens: u64,
    /// Pages in use.
    pub n_pages_used: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// The most bytes that may be in use (kigo_load_options.cache_bytes, in whole pages); UINT64_MAX: what the memory cap
    /// leaves.
    pub limit_bytes: u64,
    /// Bytes that could be taken now, in whole pages; UINT64_MAX: nothing limits them but the machine's memory.
    pub free_bytes: u64,
}
sized_struct!(kigo_cache_facts, bytes: 48, fields: [usize, u64, u64, u64, u64, u64]);

/// Fills `facts`, whose `struct_size` the caller has set. Other threads may take and free pages meanwhile.
///
/// Which sessions to destroy or to save when the cache is full is the program's to decide; kigo_session_info() has
/// what each of them holds, and destroying or truncating one makes its pages free at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_cache_info(model: *const kigo_model, facts: *mut kigo_cache_facts) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(facts, "facts")?;
        let found = borrow(model, "model")?.0.cache_facts();
        let value = kigo_cache_facts {
            struct_size: size,
            page_tokens: found.page_tokens,
            n_pages_used: found.n_pages_used,
            used_bytes: found.n_pages_used.saturating_mul(found.page_bytes),
            limit_bytes: found.n_pages_limit.map_or(u64::MAX, |n| n.saturating_mul(found.page_bytes)),
            free_bytes: found.n_pages_free.map_or(u64::MAX, |n| n.saturating_mul(found.page_bytes)),
        };
        fill(facts, size, &value);
        Ok(())
    })
}

/// The architecture's name in the file, such as "qwen2". Text out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_architecture(
    model: *const kigo_model,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        out.store_text(borrow(model, "model")?.0.facts().architecture.as_bytes())
    })
}

/// The mix of tensor types, such as "Q4_K_M": as the file says, or else the type of most of its bytes. Text out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_quantization(
    model: *const kigo_model,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        out.store_text(borrow(model, "model")?.0.facts().quantization.as_bytes())
    })
}

/// Type of a metadata value, as GGUF numbers them: unsigned, 8 bits.
pub const KIGO_META_UINT8: i32 = 0;
/// Type of a metadata value, as GGUF numbers them: signed, 8 bits.
pub const KIGO_META_INT8: i32 = 1;
/// Type of a metadata value, as GGUF numbers them: unsigned, 16 bits.
pub const KIGO_META_UINT16: i32 = 2;
/// Type of a metadata value, as GGUF numbers them: signed, 16 bits.
pub const KIGO_META_INT16: i32 = 3;
/// Type of a metadata value, as GGUF numbers them: unsigned, 32 bits.
pub const KIGO_META_UINT32: i32 = 4;
/// Type of a metadata value, as GGUF numbers them: signed, 32 bits.
pub const KIGO_META_INT32: i32 = 5;
/// Type of a metadata value, as GGUF numbers them: float, 32 bits.
pub const KIGO_META_FLOAT32: i32 = 6;
/// Type of a metadata value, as GGUF numbers them: true or false.
pub const KIGO_META_BOOL: i32 = 7;
/// Type of a metadata value, as GGUF numbers them: UTF-8.
pub const KIGO_META_STRING: i32 = 8;
/// Type of a metadata value, as GGUF numbers them: an array of values of one type.
pub const KIGO_META_ARRAY: i32 = 9;
/// Type of a metadata value, as GGUF numbers them: unsigned, 64 bits.
pub const KIGO_META_UINT64: i32 = 10;
/// Type of a metadata value, as GGUF numbers them: signed, 64 bits.
pub const KIGO_META_INT64: i32 = 11;
/// Type of a metadata value, as GGUF numbers them: float, 64 bits.
pub const KIGO_META_FLOAT64: i32 = 12;

/// The value under a metadata key, as text: a string as it is, numbers in decimal, floats in the fewest digits that
/// read back as the same value, "true" and "false", arrays as JSON (a float that is not finite is null). `key_len` may
/// be KIGO_STRLEN. Text out.
///
/// NOT_FOUND: no such key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_meta(
    model: *const kigo_model,
    key: *const c_char,
    key_len: usize,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        let model = borrow(model, "model")?;
        out.store_text(model.0.meta_text(text(key, key_len, "key")?)?.as_bytes())
    })
}

/// The type of the value under a metadata key: KIGO_META_*. NOT_FOUND: no such key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_meta_type(
    model: *const kigo_model,
    key: *const c_char,
    key_len: usize,
    meta_type: *mut i32,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(meta_type, "meta_type")?;
        let model = borrow(model, "model")?;
        meta_type.write(model.0.meta_type(text(key, key_len, "key")?)?.number() as i32);
        Ok(())
    })
}

/// The metadata key number `index`, in the order of the file; below kigo_model_facts.n_meta. Text out.
///
/// NOT_FOUND: there are not so many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_model_meta_key(
    model: *const kigo_model,
    index: usize,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        let model = borrow(model, "model")?;
        out.store_text(model.0.meta_key(index)?.as_bytes())
    })
}

/// The text of the last call with this handle that failed, on whichever thread, as kigo_last_error() has it of a thread;
/// empty if none has. Text out; 1,024 bytes always suffice. A session that cannot be made is its model's. Calls that succeed leave it alone, and so does this one. Any
/// thread, also while another is inside a call with the handle.
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
