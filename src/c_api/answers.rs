//! Answers taken apart: thinking, answer and calls of tools told from each other while they come, in the way that the
//! model's template writes them. The template is rendered with conversations of our own, and known by what it makes
//! of them: Hermes' and Qwen's JSON, Qwen3-Coder's tags, Llama 3, Mistral, DeepSeek, GLM, Kimi, gpt-oss's channels,
//! Gemma 4, Granite and others have names; of a template that none of these fits, answers are told from thinking by
//! its marks, and calls are part of the answer.
//!
//! A mark, such as <tool_call>, that is a control token of the model counts where the token stands, and the same text
//! in other tokens is text. In text that comes without tokens (kigo_chat_parser_push_text()) a mark is what reads
//! like it. Control tokens are never part of a text; a token that ends a generation ends the message. Marks of calls
//! do not count in thinking. White space between the parts, 64 bytes at most, belongs to none of them.
//!
//! Where arguments are not JSON in the model's notation they come out as JSON: what the tool's schema calls a string
//! as one, other values as what they read like, and without a schema a value of up to 4096 bytes that reads like a
//! JSON number, boolean, null, array or object as that, any other as a string.
//!
//! What begins like a call and has no name that can be one is part of the answer, as it is written. From the name on
//! it is a call; one that breaks off, or whose arguments are no JSON object, ends with KIGO_CHAT_EVENT_MALFORMED, and
//! what follows is the answer again. Nothing that was written is lost but marks and control tokens.
//!
//! Whatever comes, a parser holds a few KiB (what may still become a mark, a head of 1024 bytes, a value of 4096),
//! and its time grows with the text.

use std::sync::{Mutex, MutexGuard};

use super::chat::{chat_json, kigo_chat_options};
use super::constraint::{KIGO_CONSTRAINT_COMPACT, kigo_constraint, kigo_constraint_callback};
use super::model::kigo_model;
use super::prelude::*;
use crate::chat::{EventKind, MAX_PUSH, ToolChoice};
use crate::engine::{AnswerParser, Constraint};

/// A parser of answers. It keeps its model alive. One thread at a time: a parser that another thread uses answers
/// KIGO_STATUS_BUSY.
pub struct kigo_chat_parser(Mutex<State>);

struct State {
    parser: AnswerParser,
    /// What the last call gave out: its events, and their texts with a NUL behind each.
    events: Vec<kigo_chat_event>,
    text: Vec<u8>,
    /// The family's name, with a NUL.
    family: Vec<u8>,
}

// SAFETY: the pointers of `events` are into `text`, which stands beside them and is moved with them.
unsafe impl Send for State {}

/// For kigo_chat_event.kind: a piece of thinking.
pub const KIGO_CHAT_THINKING: i32 = 1;
/// For kigo_chat_event.kind: a piece of the answer.
pub const KIGO_CHAT_ANSWER: i32 = 2;
/// For kigo_chat_event.kind: a call begins. Its id, name and arguments follow, in the order in which the model writes
/// them.
pub const KIGO_CHAT_CALL_BEGUN: i32 = 3;
/// For kigo_chat_event.kind: the id that the model gave the call, whole. Many give none.
pub const KIGO_CHAT_CALL_ID: i32 = 4;
/// For kigo_chat_event.kind: the call's name, whole.
pub const KIGO_CHAT_CALL_NAME: i32 = 5;
/// For kigo_chat_event.kind: a piece of the call's arguments. All of a call in a row are one JSON object, if it ends
/// well.
pub const KIGO_CHAT_CALL_ARGUMENTS: i32 = 6;
/// For kigo_chat_event.kind: the call has ended; see KIGO_CHAT_EVENT_MALFORMED.
pub const KIGO_CHAT_CALL_ENDED: i32 = 7;
/// For kigo_chat_event.kind: the budget of thinking is used up; see kigo_chat_parser_set_thinking_budget().
pub const KIGO_CHAT_BUDGET_USED: i32 = 8;
/// For kigo_chat_event.kind: the message has ended. Nothing comes any more until kigo_chat_parser_finish().
pub const KIGO_CHAT_ENDED: i32 = 9;

/// For kigo_chat_event.flags, of KIGO_CHAT_CALL_ENDED: the call broke off, or its arguments are no JSON object.
pub const KIGO_CHAT_EVENT_MALFORMED: u64 = 1;

/// An event. Frozen: it will never have more fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_chat_event {
    /// KIGO_CHAT_*.
    pub kind: i32,
    /// The call that it is about, from 0 in the order in which they begin; 0 for what is about none.
    pub call: u32,
    /// Its text: whole UTF-8 characters, a NUL behind them. Empty for those without; never NULL.
    pub text: *const c_char,
    /// Bytes of it.
    pub text_len: usize,
    /// KIGO_CHAT_EVENT_*.
    pub flags: u64,
}

/// For kigo_chat_format.flags: calls are told from text.
pub const KIGO_CHAT_FORMAT_CALLS: u64 = 1;
/// For kigo_chat_format.flags: the template has marks of thinking.
pub const KIGO_CHAT_FORMAT_THINKING: u64 = 2;
/// For kigo_chat_format.flags: an answer begins with thinking, which the prompt has opened.
pub const KIGO_CHAT_FORMAT_OPENS_THINKING: u64 = 4;

/// How a model writes its answers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_chat_format {
    /// sizeof(kigo_chat_format), set by the caller.
    pub struct_size: usize,
    /// The family's name, such as "hermes"; "plain" where none is known; the parser's, as long as it lives.
    pub family: *const c_char,
    /// KIGO_CHAT_FORMAT_*.
    pub flags: u64,
}
sized_struct!(kigo_chat_format, bytes: 24, fields: [usize, *const c_char, u64]);

/// Makes a parser of the answers to a conversation. Of `options` the tools, the variables and the template count, as
/// they are given to kigo_chat_render_json(); with KIGO_CHAT_CONTINUE_FINAL the answer begins in the middle, behind its thinking.
/// NULL: none of these. The template is rendered up to six times with short conversations.
///
/// INVALID_ARGUMENT, INVALID_MODEL, UNSUPPORTED, NOT_FOUND, OUT_OF_MEMORY: as from kigo_chat_render_json(). A
/// template that refuses the conversations is no error: what it does not show is not known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_parser_create(
    model: *const kigo_model,
    options: *const kigo_chat_options,
    parser: *mut *mut kigo_chat_parser,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(parser, "parser")?;
        let model = borrow(model, "model")?;
        let (chat, template) = chat_json("[]", options)?;
        let inner = AnswerParser::new(&model.0, &chat, template)?;
        let family = [inner.parser().format().facts().family.as_bytes(), &[0]].concat();
        put(parser, kigo_chat_parser(Mutex::new(State { parser: inner, events: Vec::new(), text: Vec::new(), family })))
    })
}

/// Gives the handle up, and the events that it gave. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_parser_destroy(parser: *mut kigo_chat_parser) {
    guard_free(|| {
        // SAFETY: the header's contract for handles.
        unsafe { destroy(parser) };
        Ok(())
    });
}

/// What is known of the answers' format. The caller sets `out->struct_size`. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_parser_info(
    parser: *const kigo_chat_parser,
    out: *mut kigo_chat_format,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let size = zero_out(out, "out")?;
        let parser = borrow(parser, "parser")?;
        let state = lock(&parser.0)?;
        let facts = state.parser.parser().format().facts();
        let flags = [
            (facts.calls, KIGO_CHAT_FORMAT_CALLS),
            (facts.thinking, KIGO_CHAT_FORMAT_THINKING),
            (facts.opens_thinking, KIGO_CHAT_FORMAT_OPENS_THINKING),
        ];
        let flags = flags.iter().filter(|(has, _)| *has).fold(0, |all, (_, flag)| all | flag);
        let value = kigo_chat_format { struct_size: size, family: state.family.as_ptr().cast(), flags };
        fill(out, size, &value);
        Ok(())
    })
}

/// Adds a token. `events` gets the events that have become certain by it, `n_events` how many, often none; they and
/// their texts are the parser's, valid until its next call. After the message has ended nothing comes any more.
///
/// INVALID_ARGUMENT: an id that is not below n_vocab. OUT_OF_MEMORY: the parser is as it was. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_parser_push(
    parser: *mut kigo_chat_parser,
    token: u32,
    events: *mut *const kigo_chat_event,
    n_events: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        give(parser, events, n_events, |parser| {
            let bytes = parser.token_bytes(token)?;
            Ok((bytes, move |parser: &mut AnswerParser| parser.push_token(token).map(drop)))
        })
    })
}

/// Adds text, whole UTF-8 characters, of which control tokens cannot be told; otherwise as kigo_chat_parser_push().
/// Texts and tokens may be added in turn.
///
/// INVALID_ARGUMENT: text that is not UTF-8, or longer than 1,048,576 bytes: longer ones are to be cut.
/// OUT_OF_MEMORY: the parser is as it was. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_parser_push_text(
    parser: *mut kigo_chat_parser,
    text: *const c_char,
    text_len: usize,
    events: *mut *const kigo_chat_event,
    n_events: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        give(parser, events, n_events, |_| {
            let text = self::text(text, text_len, "text")?;
            let bytes = text.len().min(MAX_PUSH);
            Ok((bytes, move |parser: &mut AnswerParser| parser.parser_mut().push_text(text).map(drop)))
        })
    })
}

/// Ends the message: `events` gets what was held back, and KIGO_CHAT_ENDED if the message had not ended. The parser
/// is then at the beginning of another answer. OUT_OF_MEMORY: the parser is as it was. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_parser_finish(
    parser: *mut kigo_chat_parser,
    events: *mut *const kigo_chat_event,
    n_events: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        give(parser, events, n_events, |_| Ok((0, |parser: &mut AnswerParser| parser.parser_mut().finish().map(drop))))
    })
}

/// Has the parser tell, with KIGO_CHAT_BUDGET_USED, when `n_tokens` tokens of an answer have been thinking and it is
/// still thinking; 0: never, which is how a parser begins. It tells once an answer. A caller that wants the answer
/// then prefills the tokens of kigo_chat_parser_thinking_end() and adds them here. Text has no tokens and does not
/// count. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_parser_set_thinking_budget(
    parser: *mut kigo_chat_parser,
    n_tokens: usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let parser = borrow(parser.cast_const(), "parser")?;
        lock(&parser.0)?.parser.parser_mut().set_thinking_budget((n_tokens > 0).then_some(n_tokens as u64));
        Ok(())
    })
}

/// The tokens that end thinking and begin the answer, as the template writes them; none if it has no thinking. Buffer
/// out, counted in ids. BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_chat_parser_thinking_end(
    parser: *const kigo_chat_parser,
    ids: *mut u32,
    capacity: usize,
    needed: *mut usize,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        let out = Buffer::new(ids, capacity, needed, "ids")?;
        let parser = borrow(parser, "parser")?;
        out.store(lock(&parser.0)?.parser.parser().format().thinking_end())
    })
}

/// For kigo_tools_options.choice: text, calls, or both.
pub const KIGO_TOOLS_AUTO: i32 = 0;
/// For kigo_tools_options.choice: calls, behind thinking if there is any, and no other text.
pub const KIGO_TOOLS_REQUIRED: i32 = 1;
/// For kigo_tools_options.choice: the same, of the tool that is named.
pub const KIGO_TOOLS_NAMED: i32 = 2;

/// For kigo_tools_options.flags: no more than one call.
pub const KIGO_TOOLS_ONE_CALL: u64 = 2;

/// How kigo_constraint_create_tools() holds calls. 0 is the default of each field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kigo_tools_options {
    /// sizeof(kigo_tools_options).
    pub struct_size: usize,
    /// KIGO_TOOLS_AUTO, _REQUIRED or _NAMED.
    pub choice: u64,
    /// The name, for KIGO_TOOLS_NAMED alone.
    pub name: *const c_char,
    /// Length of `name`, or KIGO_STRLEN.
    pub name_len: usize,
    /// KIGO_TOOLS_ONE_CALL, KIGO_CONSTRAINT_COMPACT.
    pub flags: u64,
    /// Is asked whether to go on; NULL: nobody is.
    pub go_on: kigo_constraint_callback,
    /// Handed to `go_on`.
    pub user_data: *mut c_void,
}
sized_struct!(kigo_tools_options, bytes: 56, fields: [
    usize, u64, *const c_char, usize, u64, kigo_constraint_callback, *mut c_void
]);

/// A constraint made of the tools of a conversation: free text until a call begins, written as the model's template
/// writes calls, with the arguments held to the tool's schema. `chat` is as for kigo_chat_parser_create(), and has
/// tools. `options` may be NULL: all defaults. It is set behind the prompt, before the first token of the answer, and
/// otherwise as any other.
///
/// Arguments in tags, and in LFM2's and Gemma's notations, come in the order of the schema's properties (Gemma's: of their
/// names), and no others; texts among them are any that the notation can hold, or those of an enum.
///
/// UNSUPPORTED: there is no grammar for the family, whose name the text has. INVALID_ARGUMENT: there are no tools,
/// none is called so, another choice, unknown flags. CONSTRAINT: a tool's schema is refused, or all together takes
/// too much. Otherwise as kigo_chat_parser_create() and kigo_constraint_create().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kigo_constraint_create_tools(
    model: *const kigo_model,
    chat: *const kigo_chat_options,
    options: *const kigo_tools_options,
    constraint: *mut *mut kigo_constraint,
) -> kigo_status {
    // SAFETY: the header's contract for pointers; each is checked by the function that reads it.
    guard(|| unsafe {
        null_out(constraint, "constraint")?;
        let model = borrow(model, "model")?;
        let (chat, template) = chat_json("[]", chat)?;
        let options = super::args::options(options)?;
        let flags = flags(options.flags, KIGO_TOOLS_ONE_CALL | KIGO_CONSTRAINT_COMPACT, "flags")?;
        let name = match i32::try_from(options.choice) {
            Ok(KIGO_TOOLS_AUTO | KIGO_TOOLS_REQUIRED) => None,
            Ok(KIGO_TOOLS_NAMED) => Some(text(options.name, options.name_len, "name")?),
            _ => {
                let expected = "KIGO_TOOLS_*, 0 to 2".to_owned();
                return Err(Error::Argument { name: "choice", found: options.choice.to_string(), expected });
            }
        };
        let required = options.choice != KIGO_TOOLS_AUTO as u64;
        let choice = ToolChoice { required, name, one: flags & KIGO_TOOLS_ONE_CALL != 0 };
        let compact = flags & KIGO_CONSTRAINT_COMPACT != 0;
        let mut go_on = || options.go_on.is_none_or(|go_on| outside(|| go_on(options.user_data)) == 0);
        let made = Constraint::of_tools(&model.0, &chat, template, &choice, compact, &mut go_on)?;
        put(constraint, kigo_constraint(made))
    })
}

fn lock(parser: &Mutex<State>) -> Result<MutexGuard<'_, State>> {
    try_lock(parser, "parser")
}

/// Makes a call of the parser and gives its events out. `prepare` says how many bytes it takes, and what the call is.
///
/// # Safety
/// As the header says of the pointers.
unsafe fn give<C: FnOnce(&mut AnswerParser) -> Result<()>>(
    parser: *mut kigo_chat_parser,
    events: *mut *const kigo_chat_event,
    n_events: *mut usize,
    prepare: impl FnOnce(&AnswerParser) -> Result<(usize, C)>,
) -> Result<()> {
    // SAFETY: passed on from this function's contract.
    let parser = unsafe {
        let (first, second) = (null_out(events, "events"), null_out(n_events, "n_events"));
        first.and(second)?;
        borrow(parser.cast_const(), "parser")?
    };
    let mut state = lock(&parser.0)?;
    let state = &mut *state;
    let (n_bytes, call) = prepare(&state.parser)?;
    // Room first: what has been told is not told again.
    let (most_events, most_bytes) = state.parser.parser().most(n_bytes);
    state.events.clear();
    state.text.clear();
    crate::alloc::reserve(&mut state.events, most_events)?;
    crate::alloc::reserve(&mut state.text, most_bytes.saturating_add(most_events))?;
    call(&mut state.parser)?;
    let told = state.parser.parser().events();
    for event in told.iter() {
        state.text.extend_from_slice(event.text.as_bytes());
        state.text.push(0);
    }
    let mut rest = state.text.as_slice();
    for event in told.iter() {
        let (text, behind) = rest.split_at(event.text.len().min(rest.len()));
        rest = behind.get(1..).unwrap_or_default();
        state.events.push(kigo_chat_event {
            kind: kind(event.kind),
            call: event.call,
            text: text.as_ptr().cast(),
            text_len: text.len(),
            flags: if event.malformed { KIGO_CHAT_EVENT_MALFORMED } else { 0 },
        });
    }
    // SAFETY: `null_out` has checked both.
    unsafe {
        events.write(state.events.as_ptr());
        n_events.write(state.events.len());
    }
    Ok(())
}

fn kind(kind: EventKind) -> i32 {
    match kind {
        EventKind::Thinking => KIGO_CHAT_THINKING,
        EventKind::Answer => KIGO_CHAT_ANSWER,
        EventKind::CallBegun => KIGO_CHAT_CALL_BEGUN,
        EventKind::CallId => KIGO_CHAT_CALL_ID,
        EventKind::CallName => KIGO_CHAT_CALL_NAME,
        EventKind::CallArguments => KIGO_CHAT_CALL_ARGUMENTS,
        EventKind::CallEnded => KIGO_CHAT_CALL_ENDED,
        EventKind::BudgetUsed => KIGO_CHAT_BUDGET_USED,
        EventKind::Ended => KIGO_CHAT_ENDED,
    }
}
