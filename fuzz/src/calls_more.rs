//! The calls of [`calls`](crate::calls) that need no more than a handle and the input: models, texts, streams, engines.

use std::ffi::{c_char, c_void};
use std::ptr::{null, null_mut};

use kigo::c_api::{
    chat::*, constraint::*, embed::*, engine::*, facts::*, generate::*, logprobs::*, metadata::*, model::*, session::*,
    status::*, stream::*, tokenizer::*,
};

use crate::calls::{Sized, capacity, check, common};
use crate::support::Input;

/// Words of outputs, whose bytes before the call may be any.
const LAYER_FACTS: usize = size_of::<kigo_layer_facts>() / 8;
const MODEL_FACTS: usize = size_of::<kigo_model_facts>() / 8;

const TEXTS: [&str; 12] = [
    "",
    "hello",
    "a\nb  c",
    "\u{e9}\u{1f600}",
    "<|im_end|>",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[1,2]}}}",
    "[a-z]{2,5}x",
    "start: \"p\" | \"qr\" start",
    "{\"minimum\":",
    "(",
    "start: nothing",
    "{\"type\":[\"integer\",\"null\"]}",
];

const CONVERSATIONS: [&str; 5] = [
    "[{\"role\":\"user\",\"content\":\"hello <|im_end|>\"}]",
    "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},{\"role\":\"tool\",\"content\":null}]",
    "[]",
    "[{\"content\":1}]",
    "{",
];

/// A text of the list, or of the input's bytes.
fn text_of<'a>(input: &mut Input<'a>) -> &'a [u8] {
    let n = input.u8();
    if n < 200 { TEXTS[usize::from(n) % TEXTS.len()].as_bytes() } else { input.bytes(usize::from(n - 200)) }
}

fn pointer(text: &[u8]) -> *const c_char {
    text.as_ptr().cast()
}

pub fn cache(model: *const kigo_model) -> kigo_cache_facts {
    let mut facts = kigo_cache_facts {
        struct_size: size_of::<kigo_cache_facts>(),
        page_tokens: 0,
        n_pages_used: 0,
        used_bytes: 0,
        limit_bytes: 0,
        free_bytes: 0,
        spare_bytes: 0,
        n_pages_retained: 0,
        retained_bytes: 0,
        n_tokens_saved: 0,
        n_states: 0,
        n_checkpoints: 0,
        checkpoint_limit_bytes: 0,
    };
    // SAFETY: the caller's model; the output stands here.
    unsafe { assert!(check(kigo_model_cache_info(model, &raw mut facts))) };
    facts
}

/// Bytes of a page of a model's cache.
pub fn page_bytes(model: *const kigo_model) -> u64 {
    let mut bytes = 0;
    // SAFETY: the caller's model; the output stands here.
    unsafe { assert!(check(kigo_model_cache_bytes(model, 1, &raw mut bytes))) };
    bytes
}

unsafe extern "C" fn on_compiling(user_data: *mut c_void) -> i32 {
    // SAFETY: `constrain`'s own counter, or NULL where a short struct left it out.
    let Some(left) = (unsafe { user_data.cast::<i32>().as_mut() }) else { return 0 };
    *left -= 1;
    i32::from(*left == 0)
}

/// A constraint is made, set, or both; it is another model's now and then.
pub fn constrain(
    model: *const kigo_model,
    session: *mut kigo_session,
    constraint: &mut *mut kigo_constraint,
    input: &mut Input<'_>,
) {
    let (what, kind, text) = (input.u8(), u64::from(input.u8() % 5), text_of(input));
    let mut left = i32::from(input.u8() % 8);
    let options = kigo_constraint_options {
        struct_size: 0,
        kind: if kind == 0 { 1 } else { kind },
        text: pointer(text),
        text_len: text.len(),
        flags: u64::from(input.u8() % 3),
        go_on: if left == 0 { None } else { Some(on_compiling) },
        user_data: (&raw mut left).cast(),
    };
    let mut options = Sized::of(options, input);
    // SAFETY: the caller's handles, of which the constraint is the thread's own; the text is as long as it says.
    unsafe {
        if what % 4 != 0 {
            kigo_constraint_destroy(*constraint);
            *constraint = null_mut();
            if !check(kigo_constraint_create(model, options.get(), constraint)) {
                assert!(constraint.is_null(), "an output is nulled");
            }
        }
        if what % 8 == 4 {
            check(kigo_session_set_constraint(session, null()));
        } else {
            check(kigo_session_set_constraint(session, *constraint));
        }
    }
}

pub fn floats(session: *mut kigo_session, input: &mut Input<'_>) {
    let what = input.u8() % 6;
    let mut buffer = vec![0_f32; capacity(input, 300)];
    let mut needed = 9;
    // SAFETY: the caller's session; the buffer has its capacity.
    unsafe {
        let (at, n, size) = (buffer.as_mut_ptr(), buffer.len(), &raw mut needed);
        match what {
            0 => check(kigo_session_logits(session, at, n, size)),
            1 => check(kigo_session_logprobs(session, at, n, size)),
            2 => check(kigo_session_tokens(session, at.cast(), n, size)),
            3 => check(kigo_session_n_tokens(session, size)),
            4 => check(kigo_session_last_error(session, at.cast(), n * 4, size)),
            _ => {
                let facts = kigo_session_facts {
                    struct_size: 0,
                    n_tokens: 1,
                    n_ctx: 1,
                    n_pages: 1,
                    n_pages_own: 1,
                    has_logits: 1,
                    n_tokens_reused: 1,
                    has_long_rope: 1,
                    truncate_free_from: 1,
                    state_bytes: 1,
                    n_checkpoints: 1,
                };
                let mut facts = Sized::of(facts, input);
                check(kigo_session_info(session, facts.get()))
            }
        };
    }
}

pub fn logprobs(session: *mut kigo_session, input: &mut Input<'_>) {
    let tokens: Vec<u32> = input.bytes(4).iter().map(|b| u32::from(*b) * 2 % 301).collect();
    let n_top = input.number() as usize;
    let options = kigo_logprobs_options {
        struct_size: 0,
        tokens: tokens.as_ptr(),
        n_tokens: tokens.len(),
        n_top,
        flags: u64::from(input.u8() % 3),
    };
    let mut options = Sized::of(options, input);
    let mut buffer =
        vec![kigo_logprob { token: 0, before: 0.0, after: 0.0 }; capacity(input, tokens.len() + n_top.min(300))];
    let mut needed = 9;
    // SAFETY: the caller's session; the buffer has its capacity.
    unsafe {
        check(kigo_session_token_logprobs(session, options.get(), buffer.as_mut_ptr(), buffer.len(), &raw mut needed));
    }
}

pub fn text(model: *mut kigo_model, input: &mut Input<'_>) {
    let (what, text) = (input.u8() % 7, text_of(input));
    let flags = u64::from(input.u8() % 6);
    let mut ids = vec![0_u32; capacity(input, 3 * text.len() + 8)];
    let mut needed = 9;
    let mut bytes = vec![0x55_u8; capacity(input, 600)];
    // SAFETY: the caller's model; buffers have their capacities.
    unsafe {
        let (out, n) = (bytes.as_mut_ptr().cast::<c_char>(), bytes.len());
        match what {
            0 | 1 => {
                let (at, n_ids) = (ids.as_mut_ptr(), ids.len());
                if check(kigo_tokenize(model, pointer(text), text.len(), flags, at, n_ids, &raw mut needed))
                    && n_ids > 0
                {
                    check(kigo_detokenize(model, at, needed, flags & 1, out, n, &raw mut needed));
                }
            }
            2 => drop(check(kigo_token_text(model, u32::from(input.u16()) % 310, out, n, &raw mut needed))),
            3 => {
                let mut found = 9;
                check(kigo_token_flags(model, u32::from(input.u16()) % 310, &raw mut found));
            }
            4 => {
                let messages: Vec<kigo_message> = (0..input.u8() % 4)
                    .map(|_| {
                        let (role, content) = (text_of(input), text_of(input));
                        let (role_len, content_len) = (role.len(), content.len());
                        kigo_message { role: pointer(role), role_len, content: pointer(content), content_len }
                    })
                    .collect();
                let (at, n_ids) = (ids.as_mut_ptr(), ids.len());
                check(kigo_chat_render(model, messages.as_ptr(), messages.len(), flags, at, n_ids, &raw mut needed));
            }
            5 => {
                let messages = CONVERSATIONS[input.below(CONVERSATIONS.len())].as_bytes();
                let (tools, variables) = (text_of(input), text_of(input));
                let options = kigo_chat_options {
                    struct_size: 0,
                    flags: u64::from(input.u8() % 5),
                    tools_json: if tools.is_empty() { null() } else { pointer(tools) },
                    tools_json_len: tools.len(),
                    variables_json: if variables.is_empty() { null() } else { pointer(variables) },
                    variables_json_len: variables.len(),
                    template_source: if text.is_empty() { null() } else { pointer(text) },
                    template_source_len: text.len(),
                    template_name: if text.is_empty() && input.u8() > 200 { pointer(tools) } else { null() },
                    template_name_len: 0,
                };
                let (mut options, at, n_ids) = (Sized::of(options, input), ids.as_mut_ptr(), ids.len());
                let (json, len) = (pointer(messages), messages.len());
                if input.u8().is_multiple_of(2) {
                    check(kigo_chat_render_json(model, json, len, options.get(), at, n_ids, &raw mut needed));
                } else {
                    check(kigo_chat_render_json_text(model, json, len, options.get(), out, n, &raw mut needed));
                }
            }
            _ => {
                let options = kigo_embed_options {
                    struct_size: 0,
                    pooling: i32::from(input.u8() % 3),
                    normalization: i32::from(input.u8() % 3),
                };
                let mut options = Sized::of(options, input);
                let ids: Vec<u32> = text.iter().map(|b| u32::from(*b) % 301).collect();
                let mut out = vec![0_f32; capacity(input, 32)];
                let (at, n) = (out.as_mut_ptr(), out.len());
                check(kigo_model_embed(model, ids.as_ptr(), ids.len(), options.get(), at, n, &raw mut needed));
            }
        }
    }
}

pub fn facts(model: *mut kigo_model, input: &mut Input<'_>) {
    let mut bytes = vec![0x55_u8; capacity(input, 4000)];
    let mut needed = 9;
    let key = [&b"general.architecture"[..], b"tokenizer.ggml.tokens", b"nothing", b"", b"\xff"][input.below(5)];
    // SAFETY: the caller's model; the buffer has its capacity.
    unsafe {
        let (out, n, size) = (bytes.as_mut_ptr().cast::<c_char>(), bytes.len(), &raw mut needed);
        match input.u8() % 8 {
            6 => {
                let mut facts = Sized::of([0_u64; LAYER_FACTS], input);
                check(kigo_model_layer_info(model, input.number() as usize, facts.get()));
            }
            7 => {
                let mut bytes = 9;
                check(kigo_model_cache_bytes(model, input.number() as usize, &raw mut bytes));
            }
            0 => {
                // Any bytes are its value: it is an output.
                let mut facts = Sized::of([0_u64; MODEL_FACTS], input);
                check(kigo_model_info(model, facts.get()));
            }
            1 => drop(check(kigo_model_architecture(model, out, n, size))),
            2 => drop(check(kigo_model_quantization(model, out, n, size))),
            3 => drop(check(kigo_model_meta(model, pointer(key), key.len(), out, n, size))),
            4 => {
                let mut ty = 99;
                check(kigo_model_meta_type(model, pointer(key), key.len(), &raw mut ty));
            }
            _ => drop(check(kigo_model_meta_key(model, input.number() as usize, out, n, size))),
        }
    }
}

pub fn stream(model: *mut kigo_model, stream: &mut *mut kigo_stream, input: &mut Input<'_>) {
    let text = kigo_stream_text { struct_size: 0, text: null(), text_len: 9, stopped: 9, stop_index: 9 };
    // SAFETY: the caller's model and stream.
    unsafe {
        match input.u8() % 4 {
            0 => {
                kigo_stream_destroy(*stream);
                let stop = text_of(input);
                let stop = kigo_string { data: pointer(stop), len: stop.len() };
                let n_stop = input.below(2);
                let options = kigo_stream_options {
                    struct_size: 0,
                    stop: &raw const stop,
                    n_stop,
                    flags: u64::from(input.u8() % 3),
                };
                let mut options = Sized::of(options, input);
                check(kigo_stream_create(model, options.get(), stream));
            }
            1 | 2 => {
                let mut text = Sized::of(text, input);
                check(kigo_stream_push(*stream, u32::from(input.u16()) % 301, text.get()));
            }
            _ => {
                let mut text = Sized::of(text, input);
                check(kigo_stream_finish(*stream, text.get()));
            }
        }
    }
}

unsafe extern "C" fn on_progress(done: u64, total: u64, user_data: *mut c_void) -> i32 {
    assert!(done <= total);
    // SAFETY: `load`'s own counter, or NULL where a short struct left it out.
    let Some(left) = (unsafe { user_data.cast::<i32>().as_mut() }) else { return 0 };
    *left -= 1;
    i32::from(*left == 0)
}

pub fn load(model: &mut *mut kigo_model, input: &mut Input<'_>) {
    let mut file = common().file.clone();
    let spoil = input.u8();
    if spoil < 60 {
        let at = usize::from(input.u16()) % file.len();
        file[at] = input.u8();
    }
    let n = if spoil > 250 { file.len() / 2 } else { file.len() };
    let mut left = i32::from(input.u8() % 16);
    let options = kigo_load_options {
        struct_size: 0,
        progress: Some(on_progress),
        progress_user_data: (&raw mut left).cast(),
        cache_bytes: input.number(),
        flags: u64::from(input.u8() % 10),
        pass_tokens: u64::from(spoil % 3) * 7,
        prefix_cache_bytes: 1 << 20,
        checkpoint_bytes: 1 << 16,
    };
    let mut options = Sized::of(options, input);
    // SAFETY: the thread's own model, in no call; sessions of it go on by themselves.
    unsafe {
        kigo_model_destroy(*model);
        check(kigo_model_load_memory(common().engine, file.as_ptr().cast(), n, options.get(), model));
    }
}

pub fn engine(input: &mut Input<'_>) {
    let device = [&b"cpu"[..], b"reference", b"cuda:7", b"cuda:", b"", b"\xff", b"auto", b"cpu\0"][input.below(8)];
    let options = kigo_engine_options {
        struct_size: 0,
        device: pointer(device),
        device_len: device.len(),
        log: None,
        log_user_data: null_mut(),
        memory_cap_bytes: input.number(),
        n_threads: u32::from(input.u8() % 4) + if input.u8() == 255 { 5000 } else { 0 },
        log_level: i32::from(input.u8() % 7) - 1,
        // SAFETY: all zero is a value, of which each field is its default.
        ..unsafe { std::mem::zeroed() }
    };
    let mut options = Sized::of(options, input);
    let (mut made, mut needed) = (null_mut(), 9);
    // SAFETY: all is this function's own.
    unsafe {
        if check(kigo_engine_create(options.get(), &raw mut made)) {
            let mut out = [0x55_u8; 16];
            let capacity = input.below(17);
            check(kigo_engine_device(made, out.as_mut_ptr().cast(), capacity, &raw mut needed));
            let facts = kigo_engine_facts { struct_size: 0, memory_cap_bytes: 1, memory_used_bytes: 1, n_threads: 1 };
            let mut facts = Sized::of(facts, input);
            check(kigo_engine_info(made, facts.get()));
            let mut model = null_mut();
            let file = &common().file;
            if check(kigo_model_load_memory(made, file.as_ptr().cast(), file.len(), null(), &raw mut model)) {
                let mut session = null_mut();
                if check(kigo_session_create(model, null(), &raw mut session)) {
                    kigo_engine_destroy(made);
                    made = null_mut();
                    kigo_model_destroy(model);
                    model = null_mut();
                    check(kigo_session_prefill(session, [1, 2, 3].as_ptr(), 3));
                    kigo_session_destroy(session);
                }
            }
            kigo_model_destroy(model);
        } else {
            assert!(made.is_null(), "an output is nulled");
        }
        kigo_engine_destroy(made);
        if input.u8() == 0 {
            let _ = (kigo_last_error(), kigo_status_name(i32::from(input.u8())));
        }
    }
}
