//! Renders a model's chat template, a Jinja program that stands in its file, into text and ids.
//!
//! The environment is that of Hugging Face's `apply_chat_template`: `trim_blocks`, `lstrip_blocks`, loop controls,
//! Python's string methods, `raise_exception`, `strftime_now` (in UTC), `tojson` without HTML escapes; `tools` and
//! `documents` are none. A hostile template ends in an error: instructions and nested calls are counted here, what
//! one instruction may take is held in [`bounds`](super::bounds). What may become a control token is decided in
//! [`marks`](super::marks).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, Value};

use super::bounds::{self, Meter};
use super::marks::{self, Marks, Part};
use super::special::{Matcher, Piece};
use super::{Tokenizer, date, is_special, json};
use crate::error::{Error, Result};

/// Instructions a rendering may take, and how many more for each message.
const FUEL: u64 = 500_000;
const FUEL_PER_MESSAGE: u64 = 10_000;
/// Depth of calls, in the template engine's units (a macro counts four): small enough for a host's thread.
const DEPTH: usize = 100;
/// Bytes and elements a rendering may handle, and how many more for each byte of its messages.
const UNITS: usize = 16 << 20;
const UNITS_PER_BYTE: usize = 100;

/// Conversations that show whether a template puts control tokens together from parts.
const PROBES: [&[(&str, &str)]; 2] =
    [&[("user", "x")], &[("system", "x"), ("user", "x"), ("assistant", "x"), ("user", "x")]];

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Its text. Where a message holds the text of a control token, this does not tell it from the token itself.
    pub text: String,
    /// Its ids, without the begin and end tokens of [`Tokenizer::encode`]: the template has its own.
    pub ids: Vec<u32>,
}

/// A model's chat template, ready to render.
pub struct ChatTemplate<'t> {
    tokenizer: &'t Tokenizer,
    parts: Vec<Part>,
    /// `bos_token` and the like, by name.
    variables: Vec<(&'static str, u32)>,
}

impl<'t> ChatTemplate<'t> {
    /// Takes the template of the tokenizer's model.
    ///
    /// Fails with `NotFound` if the model has none, and like [`ChatTemplate::with_source`].
    pub fn new(tokenizer: &'t Tokenizer) -> Result<ChatTemplate<'t>> {
        let none = || Error::NotFound { what: "metadata key", name: "tokenizer.chat_template".into() };
        ChatTemplate::with_source(tokenizer, tokenizer.chat_template().ok_or_else(none)?)
    }

    /// Takes a template for the tokenizer's model.
    ///
    /// Fails with `Template` if it is not valid, with `Unsupported` if it puts a control token together from parts
    /// (such as `'<|' + role + '|>'`), where what a message says could not be told from what the template says.
    pub fn with_source(tokenizer: &'t Tokenizer, source: &str) -> Result<ChatTemplate<'t>> {
        let special = [
            ("bos_token", tokenizer.bos),
            ("eos_token", tokenizer.eos),
            ("unk_token", tokenizer.unk),
            ("pad_token", tokenizer.pad),
        ];
        let variables = special.into_iter().filter_map(|(name, id)| Some((name, id?))).collect();
        let control = Matcher::new(&tokenizer.tokens, is_special, str::to_owned)?;
        let parts = marks::cut(source, &control);
        let template = ChatTemplate { tokenizer, parts, variables };
        let marks = template.marks(&[])?;
        unwinding(|| bounds::compile(&marks.join(&template.parts)).map(|_| ()))?;
        for probe in PROBES {
            // It may refuse: it may want other messages than these.
            if let Ok(text) = template.render_marked(&marks, probe, true, 0) {
                check_assembled(&control, &marks, &text)?;
            }
        }
        Ok(template)
    }

    /// Renders messages, given as (role, content); with `add_generation_prompt` up to where the answer begins.
    ///
    /// Nothing that stands in a role or content becomes a control token. Fails with `Template` where the template
    /// refuses the messages, or takes too many instructions or too much space.
    pub fn render(&self, messages: &[(&str, &str)], add_generation_prompt: bool) -> Result<Rendered> {
        let now = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            Err(_) => 0,
        };
        self.render_at(messages, add_generation_prompt, now)
    }

    /// [`ChatTemplate::render`] at a time given in seconds since 1970.
    pub fn render_at(&self, messages: &[(&str, &str)], add_generation_prompt: bool, now: i64) -> Result<Rendered> {
        let marks = self.marks(messages)?;
        let marked = self.render_marked(&marks, messages, add_generation_prompt, now)?;
        let (mut text, mut ids) = (String::with_capacity(marked.len()), Vec::new());
        let mut after_special = true;
        for piece in marks.split(&marked) {
            match piece {
                Piece::Token(id, _) => {
                    text.push_str(self.tokenizer.token_text(id)?);
                    ids.push(id);
                    after_special = true;
                }
                Piece::Text(plain) => {
                    text.push_str(plain);
                    self.tokenizer.encode_plain(plain, &mut after_special, &mut ids)?;
                }
            }
        }
        Ok(Rendered { text, ids })
    }

    /// Marks that occur neither in the template nor in the messages.
    fn marks(&self, messages: &[(&str, &str)]) -> Result<Marks> {
        let in_parts = self.parts.iter().filter_map(|p| if let Part::Token(id) = p { Some(*id) } else { None });
        let in_variables = self.variables.iter().map(|&(_, id)| id);
        let source =
            self.parts.iter().filter_map(|p| if let Part::Text(text) = p { Some(text.as_str()) } else { None });
        let said = messages.iter().flat_map(|&(role, content)| [role, content]);
        Marks::new(in_parts.chain(in_variables), source.chain(said))
    }

    /// The rendered text with marks for the template's control tokens.
    fn render_marked(&self, marks: &Marks, messages: &[(&str, &str)], prompt: bool, now: i64) -> Result<String> {
        let source = marks.join(&self.parts);
        let said = messages.iter().map(|&(role, content)| {
            [("role", Value::from(role)), ("content", Value::from(content))].into_iter().collect::<Value>()
        });
        let mut context = vec![
            ("messages", said.collect::<Value>()),
            ("add_generation_prompt", prompt.into()),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ];
        for &(name, id) in &self.variables {
            context.extend(marks.of(id).map(|mark| (name, Value::from(mark.to_string()))));
        }
        let said_bytes: usize = messages.iter().map(|(role, content)| role.len() + content.len()).sum();
        let units = said_bytes.saturating_mul(UNITS_PER_BYTE).saturating_add(UNITS);
        let environment = environment(messages.len() as u64, units, now);
        unwinding(|| bounds::render(&environment, &source, context.into_iter().collect()))
    }
}

/// Runs the template engine, which panics on some inputs (2.24: an empty string reversed). What it was working on is
/// not used again.
fn unwinding<T>(run: impl FnOnce() -> std::result::Result<T, minijinja::Error>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => done.map_err(refuse),
        Err(_) => Err(Error::Template { message: "the template engine failed".into() }),
    }
}

/// Fails if what a probe rendered has a control token's text outside of the marks.
fn check_assembled(control: &Matcher, marks: &Marks, marked: &str) -> Result<()> {
    for piece in marks.split(marked) {
        let Piece::Text(plain) = piece else { continue };
        if let Some(Piece::Token(_, text)) = control.pieces(plain).find(|p| matches!(p, Piece::Token(..))) {
            let what = "chat template that puts a control token together from parts";
            return Err(Error::Unsupported { what, name: text.into() });
        }
    }
    Ok(())
}

/// What templates expect around them.
fn environment<'e>(n_messages: u64, units: usize, now: i64) -> Environment<'e> {
    let mut environment = super::builtins::environment();
    environment.set_fuel(Some(FUEL + n_messages.saturating_mul(FUEL_PER_MESSAGE)));
    environment.set_recursion_limit(DEPTH);
    environment.add_global(marks::ONE, 1);
    environment.add_function("raise_exception", |message: String| -> std::result::Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", move |format: &str| {
        let unknown = || minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {format:?}"));
        date::strftime(format, now).ok_or_else(unknown)
    });
    environment.add_filter("tojson", |value: Value, indent: Option<usize>, kwargs: Kwargs| {
        let named: Option<usize> = kwargs.get("indent")?;
        json::write(&value, named.or(indent))
    });
    bounds::install(&mut environment, &Meter::new(units));
    environment
}

/// The template engine's refusal, with the line it came from.
fn refuse(e: minijinja::Error) -> Error {
    let mut message = e.to_string();
    if let Some(source) = std::error::Error::source(&e) {
        message.push_str(": ");
        message.push_str(&source.to_string());
    }
    Error::Template { message }
}
