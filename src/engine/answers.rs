//! A model's answers taken apart, and held to its tools.

use super::grammar::{Constraint, Grammar};
use super::model::Model;
use crate::chat::{AnswerFormat, ChatParser, Events, ToolChoice};
use crate::error::Result;
use crate::tokenizer::ChatJson;

/// The parser of a model's answers.
pub struct AnswerParser {
    model: Model,
    parser: ChatParser,
}

impl AnswerParser {
    /// A parser at the beginning of an answer: see [`AnswerFormat::new`].
    pub fn new(model: &Model, chat: &ChatJson<'_>, template: Option<&str>) -> Result<AnswerParser> {
        let format = AnswerFormat::new(model.tokenizer(), chat, template)?;
        Ok(AnswerParser { model: model.clone(), parser: ChatParser::new(&format)? })
    }

    /// Takes a token: see [`ChatParser::push_token`].
    pub fn push_token(&mut self, token: u32) -> Result<&Events> {
        self.parser.push_token(self.model.tokenizer(), token)
    }

    /// Bytes that a token adds to a text. Fails with `TokenOutOfRange`.
    pub fn token_bytes(&self, token: u32) -> Result<usize> {
        self.model.token_bytes(token).map(|bytes| bytes.len())
    }

    /// The parser itself.
    pub fn parser(&self) -> &ChatParser {
        &self.parser
    }

    /// The parser, for what needs no model.
    pub fn parser_mut(&mut self) -> &mut ChatParser {
        &mut self.parser
    }
}

impl Constraint {
    /// A constraint made of the tools of a conversation, in the way that the model's template writes calls: free text until a
    /// call begins, arguments held to the tool's schema. `go_on` and `compact` are [`Constraint::new`]'s.
    ///
    /// Fails like [`AnswerFormat::new`], with `Unsupported` where no grammar says how the family writes calls.
    pub fn of_tools(
        model: &Model,
        chat: &ChatJson<'_>,
        template: Option<&str>,
        choice: &ToolChoice<'_>,
        compact: bool,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Constraint> {
        let format = AnswerFormat::new(model.tokenizer(), chat, template)?;
        let text = format.grammar(model.tokenizer(), chat.tools, choice)?;
        Constraint::new(model, Grammar::Lark(&text), compact, go_on)
    }
}
