//! Finds out from a template how the model writes its answers: conversations with and without a call, and with thinking, are
//! rendered and looked at.

use super::families;
use super::syntax::Syntax;
use crate::error::{Error, Result};
use crate::tokenizer::{ChatJson, ChatTemplate};

/// Texts that stand in no template.
const QUESTION: &str = "kigo-question";
const THOUGHT: &str = "kigo-thought";
const ANSWER: &str = "kigo-answer";
const FUNCTION: &str = "kigo_function";

const TOOL: &str = r#"[{"type": "function", "function": {"name": "kigo_function", "description": "x", "parameters": {"type":
    "object", "properties": {"a": {"type": "string", "description": "x"}}, "required": ["a"]}}}]"#;

/// What a template says of its answers.
pub(super) struct Detected {
    pub syntax: Syntax,
    /// Whether the template itself shows what is around thinking.
    pub has_thinking: bool,
    /// The pair of marks between which an answer begins.
    pub opened: Option<usize>,
    /// What ends thinking and begins the answer, as the template writes it.
    pub thinking_end: Option<String>,
}

/// What a template makes of a conversation, from behind the question on; none where it refuses it.
fn rendered(template: &ChatTemplate<'_>, chat: &ChatJson<'_>) -> Result<Option<String>> {
    match template.render_json(chat) {
        Ok(rendered) => {
            let behind = rendered.text.rfind(QUESTION).map(|at| at + QUESTION.len());
            Ok(behind.and_then(|at| rendered.text.get(at..)).map(str::to_owned))
        }
        Err(error @ Error::OutOfMemory { .. }) => Err(error),
        // What it cannot be asked it says nothing of.
        Err(_) => Ok(None),
    }
}

/// An answer with a call, in the forms that templates want.
fn call(template: &ChatTemplate<'_>, variables: Option<&str>) -> Result<Option<String>> {
    for (content, arguments) in [
        (r#""""#, r#"{"a": "x"}"#),
        ("null", r#"{"a": "x"}"#),
        (r#""""#, r#""{\"a\": \"x\"}""#),
        ("null", r#""{\"a\": \"x\"}""#),
    ] {
        let messages = format!(
            r#"[{{"role": "user", "content": "{QUESTION}"}}, {{"role": "assistant", "content": {content}, "tool_calls": [{{"id":
            "kigo00001", "type": "function", "function": {{"name": "{FUNCTION}", "arguments": {arguments}}}}}]}}]"#
        );
        let chat = ChatJson { messages: &messages, tools: Some(TOOL), variables, ..ChatJson::default() };
        if let Some(text) = rendered(template, &chat)?.filter(|text| text.contains(FUNCTION)) {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// An answer with thinking.
fn thinking(template: &ChatTemplate<'_>, variables: Option<&str>) -> Result<Option<String>> {
    let messages = format!(
        r#"[{{"role": "user", "content": "{QUESTION}"}}, {{"role": "assistant", "content": "{ANSWER}", "reasoning_content":
        "{THOUGHT}", "thinking": "{THOUGHT}", "reasoning": "{THOUGHT}"}}]"#
    );
    rendered(template, &ChatJson { messages: &messages, variables, ..ChatJson::default() })
}

/// What an answer begins behind.
fn prompt(template: &ChatTemplate<'_>, chat: &ChatJson<'_>) -> Result<String> {
    let messages = format!(r#"[{{"role": "user", "content": "{QUESTION}"}}]"#);
    let chat = ChatJson { messages: &messages, add_generation_prompt: true, continue_final: false, ..*chat };
    Ok(rendered(template, &chat)?.unwrap_or_default())
}

/// Looks at a template; of the chat, its tools and variables count.
pub(super) fn detect(template: &ChatTemplate<'_>, chat: &ChatJson<'_>) -> Result<Detected> {
    let (call, thinking) = (call(template, chat.variables)?, thinking(template, chat.variables)?.unwrap_or_default());
    let prompt = prompt(template, chat)?;
    let shows = |signs: &[&str], text: &str| signs.iter().all(|sign| text.contains(sign));
    let evidence = call.as_deref().unwrap_or(template.source());
    let row = families::rows().into_iter().find(|row| shows(row.signs, evidence));
    let mut syntax = row.map_or(Syntax { family: "plain", ..Syntax::default() }, |row| row.syntax);

    if let (Some(text), Some(calls)) = (&call, &mut syntax.calls) {
        let behind = calls.open.iter().find_map(|open| text.split_once(open.as_str()));
        calls.brackets = calls.listed && behind.is_some_and(|(_, behind)| behind.trim_start().starts_with('['));
    }
    let texts = [template.source(), &thinking, &prompt, call.as_deref().unwrap_or_default()];
    let has = |text: &str| texts.iter().any(|all| all.contains(text));
    let in_messages = syntax.channels.as_ref().is_some_and(|channels| !channels.thinking.is_empty());
    let mut has_thinking = in_messages || !syntax.thinking.is_empty();
    if !has_thinking {
        let pairs = families::THINKING.iter().filter(|(open, close)| has(open) && has(close));
        syntax.thinking = pairs.map(|(open, close)| ((*open).to_owned(), (*close).to_owned())).collect();
        has_thinking = !syntax.thinking.is_empty();
        if !has_thinking {
            syntax.thinking = vec![("<think>".to_owned(), "</think>".to_owned())];
        }
    }
    syntax.around.extend(families::AROUND.iter().filter(|text| has(text)).map(|text| (*text).to_owned()));
    let is_open = |(open, close): &(String, String)| {
        prompt.rfind(open.as_str()).is_some_and(|at| prompt.rfind(close.as_str()).is_none_or(|end| end < at))
    };
    // Where a message is gone on with, its thinking is behind.
    let opened = syntax.thinking.iter().position(is_open).filter(|_| !chat.continue_final);
    let between = thinking.split_once(THOUGHT).and_then(|(_, behind)| behind.split_once(ANSWER)).map(|(text, _)| text);
    let close = syntax.thinking.get(opened.unwrap_or(0)).map(|(_, close)| close.clone());
    let thinking_end = match (between, &close) {
        (Some(between), Some(close)) if between.contains(close.as_str()) => Some(between.to_owned()),
        (Some(between), None) if in_messages && !between.is_empty() => Some(between.to_owned()),
        _ => close,
    };
    Ok(Detected { syntax, has_thinking, opened, thinking_end })
}
