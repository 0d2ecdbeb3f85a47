//! What a model is and what its sessions take: sizes, layers, and how full its KV cache is.

use super::model::kigo_model;
use super::prelude::*;
use crate::engine::{Mixers, ModelFacts};

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
    /// For filling in the middle, each a token or KIGO_TOKEN_NONE: what stands before the text in front of the gap (a prompt is most
    /// often prefix, text, suffix, text, middle, and the answer fills the gap; the model's authors say which order it was trained on),
    pub fim_prefix_token: u32,
    /// before the text behind it,
    pub fim_suffix_token: u32,
    /// before what fills it;
    pub fim_middle_token: u32,
    /// what training filled examples up with,
    pub fim_pad_token: u32,
    /// what stands before a repository's name,
    pub fim_repository_token: u32,
    /// and before a file's name, or between files.
    pub fim_file_token: u32,
}
sized_struct!(kigo_model_facts, bytes: 112, fields: [usize, u64, u64, u64, u64, u64, u64, u64, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32]);

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
        state_bytes: facts.state_bytes,
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
        fim_prefix_token: token(facts.fim.prefix),
        fim_suffix_token: token(facts.fim.suffix),
        fim_middle_token: token(facts.fim.middle),
        fim_pad_token: token(facts.fim.pad),
        fim_repository_token: token(facts.fim.repository),
        fim_file_token: token(facts.fim.file),
    }
}

/// In kigo_layer_facts.mixers: attention over the tokens before.
pub const KIGO_MIXER_ATTENTION: u32 = 1;
/// In kigo_layer_facts.mixers: a short convolution between two gates (LFM2).
pub const KIGO_MIXER_SHORT_CONV: u32 = 2;
/// In kigo_layer_facts.mixers: a gated delta rule (Qwen3-Next, Qwen3.5).
pub const KIGO_MIXER_DELTA_NET: u32 = 4;
/// In kigo_layer_facts.mixers: a Mamba2 (Granite 4, Nemotron-H, Falcon-H1).
pub const KIGO_MIXER_MAMBA2: u32 = 8;

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
    /// Elements of a head of values. Of latents (n_kv_heads is 1): the first elements of a key, which are its value, too.
    pub v_head_dim: u32,
    /// Elements of a head of queries and keys that turn with the position.
    pub n_rot: u32,
    /// The layer, from 0, whose keys and values it sees: itself, or an earlier one.
    pub kv_layer: u32,
    /// Width of the feed-forward part; of one with experts, of what every token goes through; 0: nothing.
    pub n_ff: u32,
    /// Experts of the feed-forward part.
    pub n_experts: u32,
    /// Those of the experts that a token goes through.
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
            state_bytes: found.state_bytes,
            mixers: mixers(found.mixers),
            window: found.window.unwrap_or(0),
            n_heads: found.n_heads as u32,
            n_kv_heads: found.n_kv_heads as u32,
            k_head_dim: found.k_head_dim as u32,
            v_head_dim: found.v_head_dim as u32,
            n_rot: found.n_rot as u32,
            kv_layer: found.kv_layer as u32,
            n_ff: found.n_ff as u32,
            n_experts: found.n_experts as u32,
            n_experts_used: found.n_experts_used as u32,
            n_ff_expert: found.n_ff_expert as u32,
        };
        fill(facts, size, &value);
        Ok(())
    })
}

fn mixers(found: Mixers) -> u32 {
    let bit = |on: bool, flag: u32| if on { flag } else { 0 };
    bit(found.attention, KIGO_MIXER_ATTENTION)
        | bit(found.short_conv, KIGO_MIXER_SHORT_CONV)
        | bit(found.delta_net, KIGO_MIXER_DELTA_NET)
        | bit(found.mamba2, KIGO_MIXER_MAMBA2)
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
    /// Bytes in use, the spare ones among them.
    pub used_bytes: u64,
    /// The most bytes that may be in use (kigo_load_options.cache_bytes, in whole pages); UINT64_MAX: what the memory cap
    /// leaves.
    pub limit_bytes: u64,
    /// Bytes that could be taken now, in whole pages, beside what other models of the engine would give back; UINT64_MAX:
    /// nothing limits them but the machine's memory.
    pub free_bytes: u64,
    /// Those of `used_bytes` that are given back as soon as they are needed: retained ones, and keys and values that the layers
    /// with a window do not read any more. `free_bytes` has them, too.
    pub spare_bytes: u64,
    /// Pages in use that no session holds: see kigo_load_options.prefix_cache_bytes.
    pub n_pages_retained: u64,
    /// Bytes of them.
    pub retained_bytes: u64,
    /// Tokens that sessions of the model have taken from others so far in place of computing them.
    pub n_tokens_saved: u64,
    /// States that sessions and running calls hold, of models whose layers keep one: kigo_model_facts.state_bytes each, part of
    /// `used_bytes`.
    pub n_states: u64,
    /// Checkpoints, as large each, which are part of `used_bytes` too, and of `spare_bytes` where no session stands there.
    pub n_checkpoints: u64,
    /// The most bytes of checkpoints: kigo_load_options.checkpoint_bytes, in whole ones. 0 where there are no states.
    pub checkpoint_limit_bytes: u64,
}
sized_struct!(kigo_cache_facts, bytes: 104, fields: [usize, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64]);

/// Fills `facts`, whose `struct_size` the caller has set. Other threads may take and free pages meanwhile.
///
/// Which sessions to destroy or to save when the cache is full is the program's to decide; kigo_session_info() has
/// what each of them holds, and destroying or truncating one makes its pages free at once: retained ones count as free.
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
            used_bytes: found.used_bytes,
            limit_bytes: found.n_pages_limit.map_or(u64::MAX, |n| n.saturating_mul(found.page_bytes)),
            free_bytes: found.n_pages_free.map_or(u64::MAX, |n| n.saturating_mul(found.page_bytes)),
            spare_bytes: found.spare_bytes,
            n_pages_retained: found.n_pages_retained,
            retained_bytes: found.retained_bytes,
            n_tokens_saved: found.n_tokens_saved,
            n_states: found.n_states,
            n_checkpoints: found.n_checkpoints,
            checkpoint_limit_bytes: found.checkpoint_limit_bytes,
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
