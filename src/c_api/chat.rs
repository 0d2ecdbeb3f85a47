//! A conversation as the model was trained to read it: the file's own chat template over messages of a role and a
//! content, or over messages in JSON with all that a template may know. What stands in a message can never become a
//! control token: the ids are made from the template's text and the messages' text apart from each other. Begin
//! tokens are the template's business: prefill the ids as they are.
//!
//! A template is a program that comes with a file, so it is held: its source has at most 262,144 bytes and 50,000
//! tokens, 200 brackets and operators in one another and 300 blocks; a rendering takes at most one second, 64
//! MiB (16 bytes for each byte of the conversation beside that) and about 500,000 instructions (10,000 more for each
//! message). What has more is INVALID_MODEL, and the text has the number. The file's template is compiled at its first
//! use and kept, which takes up to 70 bytes for each of its source. It runs on a thread of its own with a stack of 4 MiB,
//! so that any thread of the host's will do; the memory is asked for beforehand.

use super::model::kigo_model;
use super::prelude::*;
use crate::tokenizer::ChatJson;

/// One message. Frozen: it will never have more fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_message {
    /// "system", "user", "assistant", or what else the template knows; not empty.
    pub role: *const c_char,
    /// Length of `role`, or KIGO_STRLEN.
    pub role_len: usize,
    /// What was said.
    pub content: *const c_char,
    /// Length of `content`, or KIGO_STRLEN.
    pub content_len: usize,
}

/// For kigo_chat_render(): ends with what opens the assistant's answer.
pub const KIGO_CHAT_ADD_GENERATION_PROMPT: u64 = 1;

/// # Safety
/// As the header says of `kigo_message` and arrays.
unsafe fn read<'a>(messages: *const kigo_message, n_messages: usize) -> Result<Vec<(&'a str, &'a str)>> {
    // SAFETY: passed on from this function's contract.
    let messages = unsafe { slice(messages, n_messages, "messages")? };
    let mut said = Vec::new();
    crate::alloc::reserve(&mut said, messages.len())?;
    for (index, m) in messages.iter().enumerate() {
        // SAFETY: passed on from this function's contract.
        let (role, content) =
            unsafe { (text(m.role, m.role_len, "role")?, text(m.content, m.content_len, "content")?) };
        if role.is_empty() {
            let (found, expected) = (format!("empty in message {index}"), "a name (role_len may be KIGO_STRLEN)");
            return Err(Error::Argument { name: "role", found, expected: expected.to_owned() });
        }
        said.push((role, content));
    }
    Ok(said)
}

/// The token ids of a conversation of `n_messages`; `flags` is 0 or KIGO_CHAT_ADD_GENERATION_PROMPT. Buffer out,
/// counted in ids. It cannot be cancelled: the template is held (see above), and its text takes what it takes
/// kigo_tokenize().
///
/// INVALID_ARGUMENT: text that is not UTF-8, an empty role (such as one whose length was left 0), unknown flags,
/// messages that the template refuses (the text has its words). INVALID_MODEL: the template is malformed, or takes too
/// much. UNSUPPORTED: it puts control tokens together from parts. NOT_FOUND: the model has no chat template.
/// OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_render(
    model: *const kigo_model,
    messages: *const kigo_message,
    n_messages: usize,
    flags: u64,
    ids: *mut u32,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(ids, capacity, needed, "ids")?;
        let model = borrow(model, "model")?;
        let messages = read(messages, n_messages)?;
        let open = super::args::flags(flags, KIGO_CHAT_ADD_GENERATION_PROMPT, "flags")? != 0;
        out.store(&model.0.render_chat(&messages, open)?.ids)
    })
}

/// The text that kigo_chat_render() makes the ids of, to look at. Tokenizing it again would let the messages' text
/// become control tokens. Text out; otherwise as kigo_chat_render().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_render_text(
    model: *const kigo_model,
    messages: *const kigo_message,
    n_messages: usize,
    flags: u64,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        let model = borrow(model, "model")?;
        let messages = read(messages, n_messages)?;
        let open = super::args::flags(flags, KIGO_CHAT_ADD_GENERATION_PROMPT, "flags")? != 0;
        out.store_text(model.0.render_chat(&messages, open)?.text.as_bytes())
    })
}

/// For kigo_chat_options.flags: ends within the last message, most often an assistant's, which is to be gone on with: what
/// the template writes behind its text (the last text of its parts) is left out, and so is the white space behind it where the
/// template takes that away. As `continue_final_message` in transformers; not with KIGO_CHAT_ADD_GENERATION_PROMPT.
pub const KIGO_CHAT_CONTINUE_FINAL: u64 = 2;

/// How kigo_chat_render_json() renders.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_chat_options {
    /// sizeof(kigo_chat_options).
    pub struct_size: usize,
    /// 0, KIGO_CHAT_ADD_GENERATION_PROMPT or KIGO_CHAT_CONTINUE_FINAL.
    pub flags: u64,
    /// What the template gets as `tools`: a JSON array, most often of {"type": "function", "function": {"name",
    /// "description", "parameters"}}. NULL: none.
    pub tools_json: *const c_char,
    /// Length of `tools_json`, or KIGO_STRLEN.
    pub tools_json_len: usize,
    /// Further variables of the template: a JSON object, such as {"enable_thinking": false}. NULL: none.
    pub variables_json: *const c_char,
    /// Length of `variables_json`, or KIGO_STRLEN.
    pub variables_json_len: usize,
    /// A template in place of the model's, within the same bounds. It is compiled at each call. NULL: the model's.
    pub template_source: *const c_char,
    /// Length of `template_source`, or KIGO_STRLEN.
    pub template_source_len: usize,
    /// Which of the model's templates, such as "rag"; see kigo_chat_template_name(). NULL: with tools the one named "tool_use",
    /// if there is one, and else the one without a name, which "default" names.
    pub template_name: *const c_char,
    /// Length of `template_name`, or KIGO_STRLEN.
    pub template_name_len: usize,
}
sized_struct!(kigo_chat_options, bytes: 80, fields: [
    usize, u64, *const c_char, usize, *const c_char, usize, *const c_char, usize, *const c_char, usize,
]);

/// # Safety
/// As for `text`.
unsafe fn optional<'a>(pointer: *const c_char, len: usize, name: &'static str) -> Result<Option<&'a str>> {
    if pointer.is_null() && len == 0 {
        return Ok(None);
    }
    // SAFETY: passed on from this function's contract.
    unsafe { text(pointer, len, name) }.map(Some)
}

/// A conversation of these messages and what the options say, and the template of the caller's own.
///
/// # Safety
/// As the header says of texts and options.
pub(super) unsafe fn chat_json<'a>(
    messages: &'a str,
    options: *const kigo_chat_options,
) -> Result<(ChatJson<'a>, Option<&'a str>)> {
    // SAFETY: passed on from this function's contract.
    unsafe {
        let o = super::args::options(options)?;
        let known = KIGO_CHAT_ADD_GENERATION_PROMPT | KIGO_CHAT_CONTINUE_FINAL;
        let flags = super::args::flags(o.flags, known, "flags")?;
        let chat = ChatJson {
            messages,
            tools: optional(o.tools_json, o.tools_json_len, "tools_json")?,
            variables: optional(o.variables_json, o.variables_json_len, "variables_json")?,
            add_generation_prompt: flags & KIGO_CHAT_ADD_GENERATION_PROMPT != 0,
            continue_final: flags & KIGO_CHAT_CONTINUE_FINAL != 0,
            template_name: optional(o.template_name, o.template_name_len, "template_name")?,
        };
        Ok((chat, optional(o.template_source, o.template_source_len, "template_source")?))
    }
}

/// # Safety
/// As the header says of texts and options.
unsafe fn render_json(
    model: *const kigo_model,
    messages_json: *const c_char,
    messages_json_len: usize,
    options: *const kigo_chat_options,
) -> Result<crate::tokenizer::Rendered> {
    // SAFETY: passed on from this function's contract.
    unsafe {
        let model = borrow(model, "model")?;
        let messages = text(messages_json, messages_json_len, "messages_json")?;
        let (chat, template) = chat_json(messages, options)?;
        model.0.render_chat_json(&chat, template)
    }
}

/// The token ids of a conversation in JSON: an array of objects, each with a string `role`. Whatever else they hold goes
/// to the template as it is: `content` as text or parts, `tool_calls`, `tool_call_id`, `name`, `reasoning_content`, and
/// what a template may want beside these. Objects keep their order, integers are exact up to 128 bits. No string in it, at
/// any depth and names included, and none in the tools or variables can become a control token. `options` may be NULL.
/// Buffer out, counted in ids.
///
/// INVALID_ARGUMENT, and the text names the place: what is no JSON (UTF-8, at most 16 MiB, 200,000 values, 48 deep),
/// messages that are no array of objects with a role, a variable that is called messages, tools or
/// add_generation_prompt; unknown flags, or both; a `template_source` that is malformed or takes too much, or has a
/// `template_name` beside it; messages that the template refuses; a last message to go on with that has no text, that the
/// template writes otherwise, or beside whose text it or a variable has CONTINUE_FINAL_MESSAGE_TAG.
/// NOT_FOUND: no template has that name, and the text has those that have. Otherwise as kigo_chat_render().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_render_json(
    model: *const kigo_model,
    messages_json: *const c_char,
    messages_json_len: usize,
    options: *const kigo_chat_options,
    ids: *mut u32,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(ids, capacity, needed, "ids")?;
        out.store(&render_json(model, messages_json, messages_json_len, options)?.ids)
    })
}

/// The text that kigo_chat_render_json() makes the ids of, to look at, as kigo_chat_render_text() does. Text out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_render_json_text(
    model: *const kigo_model,
    messages_json: *const c_char,
    messages_json_len: usize,
    options: *const kigo_chat_options,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        out.store_text(render_json(model, messages_json, messages_json_len, options)?.text.as_bytes())
    })
}

/// The name of a variable that the template reads and does not make itself, from index 0 on: `messages`, `tools` where it
/// takes some, `add_generation_prompt`, `bos_token` and the like, and those that are for
/// kigo_chat_options.variables_json, such as `enable_thinking`. Of `options`, which may be NULL, only the template counts.
/// Text out.
///
/// NOT_FOUND: it reads no more, or the model has no chat template. INVALID_ARGUMENT: unknown flags; a `template_source`
/// that is malformed. Otherwise as kigo_chat_render().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_variable(
    model: *const kigo_model,
    options: *const kigo_chat_options,
    index: usize,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(buffer, capacity, needed, "buffer")?;
        let model = borrow(model, "model")?;
        let (chat, template) = chat_json("[]", options)?;
        model.0.chat_variable(index, &chat, template, |name| out.store_text(name.as_bytes()))
    })
}

/// The name of one of the chat templates that the model's file has beside the one without a name, from index 0 on, for
/// kigo_chat_options.template_name: "tool_use", "rag" and the like. Text out.
///
/// NOT_FOUND: no more have names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_template_name(
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
        out.store_text(model.0.chat_template_name(index)?.as_bytes())
    })
}
