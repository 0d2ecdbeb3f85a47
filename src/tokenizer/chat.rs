//! Renders a model's chat template, a Jinja program that stands in its file, into text and ids.
//!
//! The language is Jinja in the environment of Hugging Face's `apply_chat_template` ([`jinja`](super::jinja)); `tools` and
//! `documents` are none where nothing is given, and dates are in UTC. A hostile template ends in an error: what it takes is
//! bounded and counted there, and all of it runs on a stack of its own. What may become a control token is decided in
//! [`marks`](super::marks).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::conversation::{ChatJson, Conversation};
use super::jinja::{Context, Fault, Limits, Meter, Program, Renderer, Value, free_names, parse};
use super::marks::{self, Marks, Part};
use super::sources::Source;
use super::vocab::CHAT_TEMPLATE;
use super::{ControlTexts, Tokenizer};
use crate::alloc;
use crate::error::{Error, Result};
use crate::process::on_own_stack;

/// Bytes of a source.
const MAX_BYTES: usize = 256 << 10;
/// Bytes of the stack that a template is read and run on. The deepest nesting that either lets pass takes less than a quarter
/// of it where the code is optimized: `tests/api/chat_cost.rs` passes with 1 MiB.
const STACK: usize = 4 << 20;
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
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// The file, under this key.
    Model(Arc<str>),
    Caller,
}

/// A template that has been compiled.
pub(super) struct Compiled {
    origin: Origin,
    source: String,
    marks: Marks,
    program: Program,
    /// The names that it reads and does not make: `messages`, and what else it knows.
    reads: Vec<Arc<str>>,
    /// `bos_token` and the like: name, id and text.
    variables: Vec<(&'static str, u32, String)>,
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
        ChatTemplate::named(tokenizer, None)
    }

    /// Takes the model's template with this name; none, or "default" where none has that name: the one without.
    ///
    /// Fails like [`ChatTemplate::new`]; the error has the names that there are.
    pub fn named(tokenizer: &'t Tokenizer, name: Option<&str>) -> Result<ChatTemplate<'t>> {
        let source = Source::find(&tokenizer.chat_templates, name).ok_or_else(|| match name {
            None => Error::NotFound { what: "metadata key", name: CHAT_TEMPLATE.to_owned() },
            Some(name) => {
                let known: Vec<&str> = tokenizer.chat_template_names().collect();
                let known = if known.is_empty() { "none with a name".to_owned() } else { known.join(", ") };
                Error::NotFound { what: "chat template", name: format!("{name}, the model has {known}") }
            }
        })?;
        let compile = || prepare(tokenizer, &source.text, Origin::Model(source.key.clone()));
        // What failed is tried again the next time.
        let compiled = source.compiled.get_or_try_init(compile)?;
        Ok(ChatTemplate { tokenizer, compiled: Arc::clone(compiled) })
    }

    /// Takes a template of the caller's own, or else the model's that the conversation names; with tools and without a name the
    /// one that is for tools, if there is one.
    ///
    /// Fails like [`ChatTemplate::with_source`] and [`ChatTemplate::named`], with `Argument` where there are both.
    pub fn of(tokenizer: &'t Tokenizer, chat: &ChatJson<'_>, source: Option<&str>) -> Result<ChatTemplate<'t>> {
        match (source, chat.template_name) {
            (Some(source), None) => ChatTemplate::with_source(tokenizer, source),
            (None, None) if chat.tools.is_some() => {
                ChatTemplate::named(tokenizer, Source::with_tools(&tokenizer.chat_templates))
            }
            (None, name) => ChatTemplate::named(tokenizer, name),
            (Some(_), Some(name)) => {
                let (found, expected) = (format!("{name:?} beside a template_source"), "one of both".to_owned());
                Err(Error::Argument { name: "template_name", found, expected })
            }
        }
    }

    /// Takes a template for the tokenizer's model.
    ///
    /// Fails like [`ChatTemplate::new`], with `Argument` in place of `Model`.
    pub fn with_source(tokenizer: &'t Tokenizer, source: &str) -> Result<ChatTemplate<'t>> {
        Ok(ChatTemplate { tokenizer, compiled: prepare(tokenizer, source, Origin::Caller)? })
    }

    /// The names that it reads without making them itself: `messages` and the like, and its own, such as `enable_thinking`.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.compiled.reads.iter().map(|name| &**name)
    }

    /// The template, as it stands in the file.
    pub fn source(&self) -> &str {
        &self.compiled.source
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

    fn finish(&self, mut conversation: Conversation) -> Result<Rendered> {
        let continued = conversation.continued.take();
        let compiled = self.compiled.clone();
        let panicked = self.compiled.origin.panicked();
        // Rare enough to compile it anew.
        let meets = compiled.marks.meet(&conversation.taken);
        let control = if meets { Some(self.tokenizer.control_texts()?.clone()) } else { None };
        let (compiled, marked) = on_own_stack("kigo-chat", STACK, panicked, move || {
            let compiled = match control {
                Some(control) => {
                    let (origin, variables) = (compiled.origin.clone(), compiled.variables.clone());
                    Arc::new(Compiled::new(origin, compiled.source.clone(), variables, &control, &conversation.taken)?)
                }
                None => compiled,
            };
            compiled.render(&conversation)?.map(|marked| (compiled.clone(), marked))
        })?;
        let marked = match continued {
            Some(continued) => continued.cut(&compiled.marks, marked)?,
            None => marked,
        };
        let mut text = String::new();
        alloc::reserve_text(&mut text, marked.len())?;
        let mut ids = Vec::new();
        let mut after_special = true;
        for part in compiled.marks.split(&marked)? {
            let plain = match &part {
                Part::Token(id) => {
                    ids.push(*id);
                    after_special = true;
                    self.tokenizer.token_text(*id)?
                }
                Part::Text(plain) => {
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
    if source.len() > MAX_BYTES {
        return Err(origin.error(format!("{} bytes large", source.len()), format!("at most {MAX_BYTES}")));
    }
    let mut variables = Vec::new();
    for (name, id) in special {
        if let Some(id) = id {
            variables.push((name, id, tokenizer.token_text(id)?.to_owned()));
        }
    }
    // A source that is not too long is compiled in less than its rendering may take (tests/api/chat_cost.rs).
    alloc::require(Limits::of(0, 0).memory())?;
    let control = tokenizer.control_texts()?.clone();
    let source = source.to_owned();
    on_own_stack("kigo-chat", STACK, origin.panicked(), move || {
        let compiled = Compiled::new(origin, source, variables, &control, &BTreeSet::new())?;
        for (messages, tools) in PROBES {
            let tools = Some(tools);
            let chat = ChatJson { messages, tools, add_generation_prompt: true, ..ChatJson::default() };
            // It may want other messages than these, and not get to what is not done here.
            if let Ok(text) = compiled.render(&Conversation::of_json(&chat, 0)?)? {
                check_assembled(&control, &compiled.marks, &text)?;
            }
        }
        Ok(Arc::new(compiled))
    })
}

impl Origin {
    fn error(&self, found: String, expected: String) -> Error {
        match self {
            Origin::Model(key) => Error::Model { name: key.to_string(), found, expected },
            Origin::Caller => Error::Argument { name: "template_source", found, expected },
        }
    }

    /// The engine's own fault, which this template meets.
    fn panicked(&self) -> Error {
        self.error("one that the template engine fails on".to_owned(), "a Jinja template".to_owned())
    }

    /// What ends the reading of a source.
    fn refuse(&self, (fault, line): (Fault, u32)) -> Error {
        match fault {
            Fault::Raised(words) => {
                self.error(format!("malformed ({words} in line {line})"), "a Jinja template".to_owned())
            }
            Fault::Costly(words) => {
                self.error(format!("too large in line {line}: {words}"), "a template with less".to_owned())
            }
            Fault::Unsupported(name) => unsupported(name),
        }
    }

    /// What ends a rendering: too much is the template's fault, all else the messages'.
    fn stop(&self, fault: Fault, line: u32) -> Error {
        match fault {
            Fault::Raised(words) => Error::Template { message: format!("{words} (in line {line})") },
            Fault::Costly(excess) => {
                let expected = "a template that takes at most a second and 64 MiB";
                self.error(format!("too costly in line {line}: {excess}"), expected.to_owned())
            }
            Fault::Unsupported(name) => unsupported(name),
        }
    }
}

/// The refusal of what a template has and Kigo has not.
fn unsupported(name: String) -> Error {
    Error::Unsupported { what: "chat template with", name }
}

/// Fails if what a probe rendered has a control token's text outside of the marks.
fn check_assembled(control: &ControlTexts, marks: &Marks, marked: &str) -> Result<()> {
    for part in marks.split(marked)? {
        let Part::Text(plain) = part else { continue };
        if let Some((_, text)) = control.pieces(&plain).find(|(id, _)| id.is_some()) {
            let what = "chat template that puts a control token together from parts";
            return Err(Error::Unsupported { what, name: text.into() });
        }
    }
    Ok(())
}

impl Compiled {
    /// Compiles a template with marks that neither it nor the taken characters have.
    fn new(
        origin: Origin,
        source: String,
        variables: Vec<(&'static str, u32, String)>,
        control: &ControlTexts,
        taken: &BTreeSet<char>,
    ) -> Result<Compiled> {
        let tokens: BTreeMap<u32, String> = variables.iter().map(|(_, id, text)| (*id, text.clone())).collect();
        // Its texts and constants are known once it is read, and get their marks the next time.
        let found = RefCell::new((tokens, taken.clone()));
        let look = |text: &str| {
            let (tokens, taken) = &mut *found.borrow_mut();
            marks::note(text, taken);
            for (id, text) in control.pieces(text) {
                if let Some(id) = id {
                    tokens.entry(id).or_insert_with(|| text.to_owned());
                }
            }
            Value::str(text)
        };
        parse(&source, &look).map_err(|refusal| origin.refuse(refusal))?;
        let (tokens, taken) = found.into_inner();
        let marks = Marks::new(tokens.iter().map(|(id, text)| (*id, text.as_str())), &taken)?;
        let program = parse(&source, &|text| Value::str(marks.mark(text, control)));
        let program = program.map_err(|refusal| origin.refuse(refusal))?;
        let reads = free_names(&program);
        Ok(Compiled { origin, source, marks, program, reads, variables })
    }

    /// The rendered text with marks for the template's control tokens; within, what the messages cannot be rendered for.
    fn render(&self, conversation: &Conversation) -> Result<Result<String>> {
        let limits = Limits::of(conversation.bytes, conversation.n_messages);
        let context = Context::new(Meter::new(limits), &self.marks, conversation.now);
        let mut variables = vec![
            ("messages", conversation.messages.clone()),
            ("tools", conversation.tools.clone()),
            ("add_generation_prompt", Value::Bool(conversation.add_generation_prompt)),
        ];
        variables.extend(conversation.variables.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let tokens = self.variables.iter();
        variables.extend(tokens.filter_map(|(name, id, _)| Some((*name, Value::str(self.marks.of(*id)?)))));
        variables.push(("documents", Value::None));
        let text = match Renderer::render(&self.program, &context, &variables) {
            Ok(text) => text,
            Err((fault @ Fault::Costly(_), line)) => return Err(self.origin.stop(fault, line)),
            Err((fault, line)) => return Ok(Err(self.origin.stop(fault, line))),
        };
        let most = conversation.bytes.saturating_mul(OUTPUT_PER_BYTE).saturating_add(OUTPUT);
        if text.len() > most {
            let found = format!("too long-winded: it writes {} bytes for these messages", text.len());
            return Err(self.origin.error(found, format!("at most {most}")));
        }
        Ok(Ok(text))
    }
}
