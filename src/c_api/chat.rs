//! A conversation as the model was trained to read it: the file's own chat template over messages of a role and a
//! content. What stands in a message can never become a control token: the ids are made from the template's text and
//! the messages' text apart from each other. Begin tokens are the template's business: prefill the ids as they are.

use super::model::kigo_model;
use super::prelude::*;

/// One message. Frozen: it will never have more fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_message {
    /// "system", "user", "assistant", or what else the template knows.
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
    // SAFETY: passed on from this function's contract.
    let read = |m: &kigo_message| unsafe {
        Ok((text(m.role, m.role_len, "role")?, text(m.content, m.content_len, "content")?))
    };
    messages.iter().map(read).collect()
}

/// The token ids of a conversation of `n_messages`; `flags` is 0 or KIGO_CHAT_ADD_GENERATION_PROMPT. Buffer out,
/// counted in ids.
///
/// INVALID_ARGUMENT: text that is not UTF-8, unknown flags, messages that the template refuses (the text has its
/// words). NOT_FOUND: the model has no chat template.
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
