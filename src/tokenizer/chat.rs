//! Renders a model's chat template, a Jinja program that stands in its file, into text and ids.
//!
//! The environment is that of Hugging Face's `apply_chat_template`: `trim_blocks`, `lstrip_blocks`, loop controls,
//! Python's string methods, `raise_exception`, `strftime_now` (in UTC), `tojson` without HTML escapes; `tools` and
//! `documents` are none where nothing is given. A hostile template ends in an error: its source is weighed before it
//! is compiled ([`weigh`](super::weigh)), instructions and nested calls are counted here, what one instruction may
//! take is held in [`bounds`](super::bounds), and all of it runs on a stack of its own. What may become a control
//! token is decided in [`marks`](super::marks).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::machinery::{Vm, make_string_output};
use minijinja::{AutoEscape, Environment, ErrorKind, Value};

use super::conversation::{ChatJson, Conversation};
use super::marks::{self, Marks, Part};
use super::meter::{Limits, Meter};
use super::program::{Program, Refusal, compile};
use super::special::{Matcher, Piece};
use super::{Tokenizer, bounds, date, is_special};
use crate::alloc;
use crate::error::{Error, Result};
use crate::process::on_own_stack;

/// Instructions a rendering may take, how many more for each message, and the most.
const FUEL: u64 = 500_000;
const FUEL_PER_MESSAGE: u64 = 10_000;
const MAX_FUEL: u64 = 10_000_000;
/// Bytes of the stack that the template engine runs on: it recurses. The deepest source that [`weigh`](super::weigh) lets
/// pass, and the deepest calls and structures that a rendering may have, take less than a quarter of it:
/// `tests/api/chat_cost.rs` passes with 512 KiB.
const STACK: usize = 2 << 20;
/// Depth of calls, in the template engine's units (a macro counts four).
const DEPTH: usize = 100;
/// Bytes that a rendering may come to, and how many more for each byte of its conversation: what it writes is
/// tokenized.
const OUTPUT: usize = 256 << 10;
const OUTPUT_PER_BYTE: usize = 8;

/// Conversations that show whether a template puts control tokens together from parts.
const PROBES: [(&str, &str); 3] = [
    (r#"[{"role": "user", "content": "x"}]"#, "null"),
    (
        r#"[{"role": "system", "content": "x"}, {"role": "user", "content": "x"}, {"role": "assistant", "content": "x"},
            {"role": "user", "content": "x"}]"#,
        "null",
    ),
    (
        r#"[{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [{"id": "xxxxxxxxx",
            "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]},
            {"role": "tool", "content": "x", "name": "f", "tool_call_id": "xxxxxxxxx"}]"#,
        r#"[{"type": "function", "function": {"name": "f", "description": "x",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}]"#,
    ),
];

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Its text. Where a message holds the text of a control token, this does not tell it from the token itself.
    pub text: String,
    /// Its ids, without the begin and end tokens of [`Tokenizer::encode`]: the template has its own.
    pub ids: Vec<u32>,
}

/// Where a template comes from, and whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Model,
    Caller,
}

/// A template that has been compiled.
pub(super) struct Compiled {
    origin: Origin,
    parts: Vec<Part>,
    marks: Marks,
    program: Program,
    /// `bos_token` and the like, by name.
    variables: Vec<(&'static str, u32)>,
}

/// A chat template, ready to render.
pub struct ChatTemplate<'t> {
    tokenizer: &'t Tokenizer,
    compiled: Arc<Compiled>,
}

impl<'t> ChatTemplate<'t> {
    /// Takes the template of the tokenizer's model, which is compiled once.
    ///
    /// Fails with `NotFound` if the model has none, with `Model` if it is not valid or takes too much, with
    /// `Unsupported` if it puts a control token together from parts (such as `'<|' + role + '|>'`), where what a
    /// message says could not be told from what the template says.
    pub fn new(tokenizer: &'t Tokenizer) -> Result<ChatTemplate<'t>> {
        let none = || Error::NotFound { what: "metadata key", name: "tokenizer.chat_template".into() };
        let source = tokenizer.chat_template().ok_or_else(none)?;
        // What failed is tried again the next time.
        let compiled = tokenizer.compiled_chat.get_or_try_init(|| prepare(tokenizer, source, Origin::Model))?;
        Ok(ChatTemplate { tokenizer, compiled: Arc::clone(compiled) })
    }

    /// Takes a template for the tokenizer's model.
    ///
    /// Fails like [`ChatTemplate::new`], with `Argument` in place of `Model`.
    pub fn with_source(tokenizer: &'t Tokenizer, source: &str) -> Result<ChatTemplate<'t>> {
        Ok(ChatTemplate { tokenizer, compiled: prepare(tokenizer, source, Origin::Caller)? })
    }

    /// Renders messages, given as (role, content); with `add_generation_prompt` up to where the answer begins.
    ///
    /// Nothing that stands in a role or content becomes a control token. Fails with `Template` where the template
    /// refuses the messages, with `Model` (or `Argument`) where it takes too many instructions, too much space or
    /// too long.
    pub fn render(&self, messages: &[(&str, &str)], add_generation_prompt: bool) -> Result<Rendered> {
        self.render_at(messages, add_generation_prompt, now())
    }

    /// [`ChatTemplate::render`] at a time given in seconds since 1970.
    pub fn render_at(&self, messages: &[(&str, &str)], add_generation_prompt: bool, now: i64) -> Result<Rendered> {
        self.finish(Conversation::of_pairs(messages, add_generation_prompt, now)?)
    }

    /// Renders a conversation in JSON, as [`ChatTemplate::render`] does: no string in it, at any depth, names
    /// included, becomes a control token.
    ///
    /// Fails with `Argument` where the JSON is none, and names the place.
    pub fn render_json(&self, chat: &ChatJson<'_>) -> Result<Rendered> {
        self.render_json_at(chat, now())
    }

    /// [`ChatTemplate::render_json`] at a time given in seconds since 1970.
    pub fn render_json_at(&self, chat: &ChatJson<'_>, now: i64) -> Result<Rendered> {
        self.finish(Conversation::of_json(chat, now)?)
    }

    fn finish(&self, conversation: Conversation) -> Result<Rendered> {
        let compiled = self.compiled.clone();
        let panicked = self.compiled.origin.panicked();
        let (compiled, marked) = on_own_stack("kigo-chat", STACK, panicked, move || {
            let compiled = if compiled.marks.meet(&conversation.taken) {
                // Rare enough to compile it anew.
                Arc::new(compiled.with_other_marks(&conversation.taken)?)
            } else {
                compiled
            };
            compiled.render(&conversation).map(|marked| (compiled.clone(), marked))
        })?;
        let mut text = String::new();
        alloc::reserve_text(&mut text, marked.len())?;
        let mut ids = Vec::new();
        let mut after_special = true;
        for piece in compiled.marks.split(&marked)? {
            let plain = match piece {
                Piece::Token(id, _) => {
                    ids.push(id);
                    after_special = true;
                    self.tokenizer.token_text(id)?
                }
                Piece::Text(plain) => {
                    self.tokenizer.encode_plain(plain, &mut after_special, &mut ids)?;
                    plain
                }
            };
            alloc::reserve_text(&mut text, plain.len())?;
            text.push_str(plain);
        }
        Ok(Rendered { text, ids })
    }
}

fn now() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

/// Compiles a template and tries it on the probes.
fn prepare(tokenizer: &Tokenizer, source: &str, origin: Origin) -> Result<Arc<Compiled>> {
    let special = [
        ("bos_token", tokenizer.bos),
        ("eos_token", tokenizer.eos),
        ("unk_token", tokenizer.unk),
        ("pad_token", tokenizer.pad),
    ];
    let variables = special.into_iter().filter_map(|(name, id)| Some((name, id?))).collect();
    super::weigh::weigh_bytes(source).map_err(|excess| origin.refuse(Refusal::Weight(excess)))?;
    // A source that is not too long is compiled in less than its rendering may take (tests/api/chat_cost.rs).
    alloc::require(Limits::of(0, 0).memory())?;
    let control = Matcher::new(&tokenizer.tokens, is_special, str::to_owned)?;
    let parts = marks::cut(source, &control);
    on_own_stack("kigo-chat", STACK, origin.panicked(), move || {
        let compiled = Compiled::new(origin, parts, variables, &BTreeSet::new())?;
        for (messages, tools) in PROBES {
            let chat = ChatJson { messages, tools: Some(tools), variables: None, add_generation_prompt: true };
            match compiled.render(&Conversation::of_json(&chat, 0)?) {
                Ok(text) => check_assembled(&control, &compiled.marks, &text)?,
                // It may want other messages than these.
                Err(Error::Template { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Arc::new(compiled))
    })
}

impl Origin {
    fn refuse(self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Weight(excess) => {
                self.error(format!("{} {} large", excess.found, excess.what), format!("at most {}", excess.limit))
            }
            Refusal::Syntax(e) => self.error(format!("malformed ({})", told(&e)), "a Jinja template".to_owned()),
        }
    }

    fn error(self, found: String, expected: String) -> Error {
        match self {
            Origin::Model => Error::Model { name: "tokenizer.chat_template".to_owned(), found, expected },
            Origin::Caller => Error::Argument { name: "template_source", found, expected },
        }
    }

    /// The engine's own fault, which this template meets.
    fn panicked(self) -> Error {
        self.error("one that the template engine fails on".to_owned(), "a Jinja template".to_owned())
    }

    /// What ends a rendering: too much is the template's fault, all else the messages'.
    fn stop(self, e: &minijinja::Error, fuel: u64) -> Error {
        let at = e.line().map_or(String::new(), |line| format!(" in line {line}"));
        let excess = match (e.kind(), e.detail()) {
            (ErrorKind::OutOfFuel, Some(reason)) => reason.to_owned(),
            (ErrorKind::OutOfFuel, None) => format!("it takes more than {fuel} instructions"),
            (_, Some("recursion limit exceeded")) => format!("its scopes and calls nest more than {DEPTH} deep"),
            _ => return Error::Template { message: told(e) },
        };
        let expected = "a template that takes at most a second and 64 MiB";
        self.error(format!("too costly{at}: {excess}"), expected.to_owned())
    }
}

/// The template engine's words, with the line they came from.
fn told(e: &minijinja::Error) -> String {
    let mut message = e.to_string();
    if let Some(source) = std::error::Error::source(e) {
        message.push_str(": ");
        message.push_str(&source.to_string());
    }
    message
}

/// Fails if what a probe rendered has a control token's text outside of the marks.
fn check_assembled(control: &Matcher, marks: &Marks, marked: &str) -> Result<()> {
    for piece in marks.split(marked)? {
        let Piece::Text(plain) = piece else { continue };
        if let Some(Piece::Token(_, text)) = control.pieces(plain).find(|p| matches!(p, Piece::Token(..))) {
            let what = "chat template that puts a control token together from parts";
            return Err(Error::Unsupported { what, name: text.into() });
        }
    }
    Ok(())
}

impl Compiled {
    /// Compiles a template's parts with marks that neither they nor the taken characters have.
    fn new(
        origin: Origin,
        parts: Vec<Part>,
        variables: Vec<(&'static str, u32)>,
        taken: &BTreeSet<char>,
    ) -> Result<Compiled> {
        let mut taken = taken.clone();
        let mut tokens: Vec<u32> = variables.iter().map(|&(_, id)| id).collect();
        for part in &parts {
            match part {
                Part::Text(text) => marks::note(text, &mut taken),
                Part::Token(id) => tokens.push(*id),
            }
        }
        let marks = Marks::new(tokens.into_iter(), &taken)?;
        let program = compile(&marks.join(&parts)).map_err(|refusal| origin.refuse(refusal))?;
        Ok(Compiled { origin, parts, marks, program, variables })
    }

    fn with_other_marks(&self, taken: &BTreeSet<char>) -> Result<Compiled> {
        Compiled::new(self.origin, self.parts.clone(), self.variables.clone(), taken)
    }

    /// The rendered text with marks for the template's control tokens.
    fn render(&self, conversation: &Conversation) -> Result<String> {
        let n_messages = conversation.n_messages as u64;
        let fuel = FUEL.saturating_add(n_messages.saturating_mul(FUEL_PER_MESSAGE)).min(MAX_FUEL);
        let limits = Limits::of(conversation.bytes, conversation.n_messages);
        let environment = environment(fuel, &Meter::new(limits), conversation.now);
        let mut context: BTreeMap<&str, Value> = BTreeMap::new();
        for name in ["tools", "documents"] {
            context.insert(name, Value::from(()));
        }
        for &(name, id) in &self.variables {
            context.extend(self.marks.of(id).map(|mark| (name, Value::from(mark.to_string()))));
        }
        context.extend(conversation.variables.iter().map(|(name, value)| (name.as_str(), value.clone())));
        context.insert("messages", conversation.messages.clone());
        context.insert("tools", conversation.tools.clone());
        context.insert("add_generation_prompt", conversation.add_generation_prompt.into());
        let (program, blocks, mut text) = (self.program.instructions(), BTreeMap::new(), String::new());
        let context = context.into_iter().collect::<Value>();
        let mut out = make_string_output(&mut text);
        let done = Vm::new(&environment).eval(&program, context, &blocks, &mut out, AutoEscape::None).map(|_| ());
        done.map_err(|e| self.origin.stop(&e, fuel))?;
        let most = conversation.bytes.saturating_mul(OUTPUT_PER_BYTE).saturating_add(OUTPUT);
        if text.len() > most {
            let found = format!("too long-winded: it writes {} bytes for these messages", text.len());
            return Err(self.origin.error(found, format!("at most {most}")));
        }
        Ok(text)
    }
}

/// What templates expect around them.
fn environment<'e>(fuel: u64, meter: &Arc<Meter>, now: i64) -> Environment<'e> {
    let mut environment = super::builtins::environment();
    environment.set_fuel(Some(fuel));
    environment.set_recursion_limit(DEPTH);
    environment.add_global(marks::ONE, 1);
    environment.add_function("raise_exception", |message: String| -> std::result::Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    let m = meter.clone();
    environment.add_function("strftime_now", move |format: &str| {
        // The longest name that two bytes stand for is September.
        m.make(format.len().saturating_mul(5))?;
        let unknown = || minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {format:?}"));
        date::strftime(format, now).ok_or_else(unknown)
    });
    super::order::install(&mut environment);
    bounds::install(&mut environment, meter);
    environment
}
