//! The parser of a model's answers: tokens or text in, events out.

use std::sync::Arc;

use super::detect::{Detected, detect};
use super::event::{EventKind, Events};
use super::machine::Machine;
use super::mark::{Byte, Mark, Origin};
use super::program::Program;
use super::syntax::{Calls, Item, Part, Syntax};
use super::tools::{self, Tools};
use crate::error::{Error, Result};
use crate::tokenizer::{ChatJson, ChatTemplate, Tokenizer, Utf8Stream};

/// Bytes that one push takes.
pub const MAX_PUSH: usize = 1 << 20;
/// How a model writes its answers, as its template shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatFormat {
    /// The family's name; "plain" where none is known.
    pub family: &'static str,
    /// Whether calls are told from text.
    pub calls: bool,
    /// Whether the template has marks of thinking.
    pub thinking: bool,
    /// Whether an answer begins with thinking, which the prompt has opened.
    pub opens_thinking: bool,
}

/// The format of a model's answers to one conversation; parsers of it are made of it.
#[derive(Clone)]
pub struct AnswerFormat {
    pub(super) syntax: Arc<Syntax>,
    program: Arc<Program>,
    tools: Arc<Tools>,
    facts: ChatFormat,
    /// The pair of marks between which an answer begins.
    pub(super) opened: Option<usize>,
    /// Whether an answer begins in the middle, in a message that is gone on with.
    pub(super) is_continued: bool,
    thinking_end: Arc<[u32]>,
}

impl AnswerFormat {
    /// Looks at the template, of the model or another's; of the chat, the tools and variables count.
    ///
    /// Fails like [`ChatTemplate::new`] (or [`ChatTemplate::with_source`]), and with `Argument` where the tools or
    /// variables are no JSON.
    pub fn new(tokenizer: &Tokenizer, chat: &ChatJson<'_>, source: Option<&str>) -> Result<AnswerFormat> {
        let template = ChatTemplate::of(tokenizer, chat, source)?;
        chat.check_tools()?;
        let Detected { syntax, has_thinking, opened, thinking_end } = detect(&template, chat)?;
        let control = tokenizer.control_texts()?;
        let mark = |text: &str| Mark::new(control.pieces(text).map(|(id, text)| (id.is_some(), text)));
        let thinking_end = match &thinking_end {
            Some(text) => tokenizer.encode_behind(text)?,
            None => Vec::new(),
        };
        Ok(AnswerFormat {
            program: Arc::new(Program::new(&syntax, &mark)),
            tools: Arc::new(tools(chat.tools, &syntax)?),
            facts: ChatFormat {
                family: syntax.family,
                calls: syntax.calls.is_some()
                    || syntax.channels.as_ref().is_some_and(|channels| channels.call.is_some()),
                thinking: has_thinking,
                opens_thinking: opened.is_some(),
            },
            syntax: Arc::new(syntax),
            opened,
            is_continued: chat.continue_final,
            thinking_end: thinking_end.into(),
        })
    }

    /// What is known of it.
    pub fn facts(&self) -> ChatFormat {
        self.facts
    }

    /// The tokens that end thinking and begin the answer, as the template writes them; none if it has no thinking.
    pub fn thinking_end(&self) -> &[u32] {
        &self.thinking_end
    }

    fn machine(&self) -> Machine {
        Machine::new(self.program.clone(), self.tools.clone(), self.opened, self.is_continued)
    }
}

fn tools(json: Option<&str>, syntax: &Syntax) -> Result<Tools> {
    let nested = |calls: &Calls| matches!(&calls.item, Item::Parts(parts) if parts.iter().any(Part::is_nested));
    Ok(Tools::new(tools::read(json)?, syntax.calls.as_ref().is_some_and(nested)))
}

/// Takes an answer apart.
pub struct ChatParser {
    format: AnswerFormat,
    machine: Machine,
    stream: Utf8Stream,
    events: Events,
    /// The most tokens of thinking; none: any number.
    budget: Option<u64>,
    n_thinking: u64,
    told_budget: bool,
}

impl ChatParser {
    /// A parser at the beginning of an answer.
    pub fn new(format: &AnswerFormat) -> Result<ChatParser> {
        Ok(ChatParser {
            machine: format.machine(),
            format: format.clone(),
            stream: Utf8Stream::new(&[])?,
            events: Events::default(),
            budget: None,
            n_thinking: 0,
            told_budget: false,
        })
    }

    /// The format that it reads.
    pub fn format(&self) -> &AnswerFormat {
        &self.format
    }

    /// Has it tell when so many tokens of thinking have been taken, of this answer; none: never.
    pub fn set_thinking_budget(&mut self, budget: Option<u64>) {
        self.budget = budget;
    }

    /// Whether what comes next is thinking, as far as is known.
    pub fn is_thinking(&self) -> bool {
        self.machine.is_thinking()
    }

    /// Bytes that it holds back; bounded, whatever comes.
    pub fn n_held(&self) -> usize {
        self.machine.n_held()
    }

    /// The events of the last call.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Takes a token of the tokenizer that the format was made for.
    ///
    /// Fails with `TokenOutOfRange` or `OutOfMemory`, and is as it was, without events.
    pub fn push_token(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<&Events> {
        let bytes = tokenizer.token_bytes(token)?;
        let end = tokenizer.is_end_of_generation(token);
        let control = end || tokenizer.is_control(token);
        self.begin(bytes.len())?;
        let (thinking, n_thoughts) = (self.machine.is_thinking(), self.machine.n_thoughts);
        if control {
            self.flush()?;
            self.machine.push(of(&bytes, Origin::Control), &mut self.events);
        } else {
            let text = self.stream.push(&bytes)?.text;
            self.machine.push(of(text.as_bytes(), Origin::Token), &mut self.events);
        }
        // A token that ends thinking in one family ends answers in another.
        if end && n_thoughts == self.machine.n_thoughts {
            self.end();
        } else {
            self.count(thinking);
        }
        Ok(&self.events)
    }

    /// Takes text, in which marks are what reads like them.
    ///
    /// Fails with `Argument` for more than [`MAX_PUSH`] bytes, with `OutOfMemory`; it is as it was then, without
    /// events.
    pub fn push_text(&mut self, text: &str) -> Result<&Events> {
        if text.len() > MAX_PUSH {
            let (found, expected) = (format!("{} bytes long", text.len()), format!("at most {MAX_PUSH}"));
            return Err(Error::Argument { name: "text", found, expected });
        }
        self.begin(text.len())?;
        self.flush()?;
        self.machine.push(of(text.as_bytes(), Origin::Text), &mut self.events);
        Ok(&self.events)
    }

    /// The answer has ended: gives what was held. The parser is then at the beginning of another.
    ///
    /// Fails with `OutOfMemory`, and is as it was.
    pub fn finish(&mut self) -> Result<&Events> {
        self.begin(0)?;
        self.flush()?;
        self.end();
        self.machine = self.format.machine();
        (self.n_thinking, self.told_budget) = (0, false);
        Ok(&self.events)
    }

    /// The most events, and bytes of their texts, that a push of so many bytes gives.
    pub fn most(&self, n_bytes: usize) -> (usize, usize) {
        Events::most(self.decides(n_bytes))
    }

    /// Bytes that a push of so many may decide: those that are held, too.
    fn decides(&self, n_bytes: usize) -> usize {
        n_bytes.saturating_add(self.machine.n_held()).saturating_add(super::value::MAX_HELD)
    }

    fn begin(&mut self, n_bytes: usize) -> Result<()> {
        let decides = self.decides(n_bytes);
        self.machine.reserve(n_bytes)?;
        self.events.begin(decides)
    }

    /// Gives the machine what is left of a character that other text cuts off.
    fn flush(&mut self) -> Result<()> {
        let rest = self.stream.finish()?.text;
        self.machine.push(of(rest.as_bytes(), Origin::Token), &mut self.events);
        Ok(())
    }

    fn end(&mut self) {
        if !self.machine.has_ended() {
            self.machine.finish(&mut self.events);
            self.events.say(EventKind::Ended, 0, false, b"");
        }
    }

    /// Counts a token that came while the answer was thinking, or not.
    fn count(&mut self, thinking: bool) {
        self.n_thinking += u64::from(thinking);
        let used = self.budget.is_some_and(|budget| self.n_thinking >= budget);
        if used && !self.told_budget && self.machine.is_thinking() {
            self.told_budget = true;
            self.events.say(EventKind::BudgetUsed, 0, false, b"");
        }
    }
}

fn of(text: &[u8], origin: Origin) -> impl Iterator<Item = Byte> + '_ {
    text.iter().map(move |&byte| Byte { byte, origin })
}
