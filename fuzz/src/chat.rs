//! A chat template from anywhere over messages from anywhere.
//!
//! An input is text: the template, then role and content of each message, with NULs between; or, where what follows begins
//! with a bracket, a conversation in JSON, tools and variables.

use std::time::Duration;

use kigo::error::Status;
use kigo::tokenizer::{ChatJson, ChatTemplate, TokenKind, Tokenizer, Vocab};

use crate::support;

/// Every byte is a token; these are the others.
const CONTROL: [&str; 5] = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<end_of_turn>"];

/// What a template may take: 1 s and 64 MiB a render, and as much again to be looked at beforehand.
const TIME: Duration = Duration::from_secs(2);
const BYTES: usize = 80 << 20;

/// Of the SentencePiece kind, since that takes no regular expressions to be made.
fn tokenizer(template: &str) -> Tokenizer {
    let bytes: Vec<String> = (0..=255_u8).map(|b| format!("<0x{b:02X}>")).collect();
    let vocab = Vocab {
        model: "llama",
        tokens: bytes.iter().map(String::as_str).chain(CONTROL).chain(["\u{2581}"]).collect(),
        scores: vec![0.0; 257 + CONTROL.len()],
        kinds: [vec![TokenKind::Byte; 256], vec![TokenKind::Control; CONTROL.len()], vec![TokenKind::Normal]].concat(),
        bos: Some(256),
        eos: Some(257),
        unk: Some(256),
        add_space_prefix: Some(false),
        chat_template: Some(template),
        ..Vocab::default()
    };
    Tokenizer::from_vocab(&vocab).expect("a vocabulary that agrees with itself")
}

/// One case.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\0');
    let template = parts.next().unwrap_or_default();
    let parts: Vec<&str> = parts.collect();
    let messages: Vec<(&str, &str)> =
        parts.chunks(2).take(8).map(|m| (m[0], m.get(1).copied().unwrap_or_default())).collect();
    let tokenizer = tokenizer(template);
    let (add_generation_prompt, now) = (text.len().is_multiple_of(2), 1_764_000_000);
    let json = parts.first().filter(|p| p.starts_with('[')).map(|messages| ChatJson {
        messages,
        tools: parts.get(1).copied(),
        variables: parts.get(2).copied(),
        add_generation_prompt,
        continue_final: text.len() % 4 == 1,
        ..ChatJson::default()
    });
    let outcome = support::bounded(TIME, BYTES + 64 * data.len(), || {
        let template = ChatTemplate::new(&tokenizer)?;
        match &json {
            Some(chat) => template.render_json_at(chat, now),
            None => template.render_at(&messages, add_generation_prompt, now),
        }
    });
    let outcome = outcome.map_err(|e| assert!(e.status() != Status::Internal, "{e}")).ok();
    let Some(rendered) = outcome else { return };
    for id in &rendered.ids {
        // A control token stands in the template, be it with escapes or in strings in a row, or is a variable of its; a
        // message cannot make one.
        let Some(name) = (*id as usize).checked_sub(256).and_then(|i| CONTROL.get(i)) else { continue };
        let joined: String = template.chars().filter(|c| !c.is_whitespace() && !matches!(c, '\'' | '"')).collect();
        let named = joined.contains(name) || template.contains(['\\']) || template.contains("_token");
        assert!(named, "{name} from {messages:?}");
    }
    // The ids say what the text says, but that SentencePiece's sign for a space is one.
    let bytes = tokenizer.decode(&rendered.ids, false).expect("its own ids");
    assert_eq!(String::from_utf8_lossy(&bytes), rendered.text.replace('\u{2581}', " "));
}
