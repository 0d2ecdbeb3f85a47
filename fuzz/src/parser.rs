//! An answer in any family's way, cut in any way, as tokens or as text: what comes out does not depend on the cuts,
//! arguments that end well are JSON, and what is held is bounded.

use std::sync::OnceLock;
use std::time::Duration;

use kigo::chat::{AnswerFormat, ChatParser, EventKind};
use kigo::tokenizer::{ChatJson, TokenKind, Tokenizer, Vocab};

use crate::support::{self, Input};

/// What the templates have in them: the families' signs.
const SIGNS: [&str; 20] = [
    "<think></think><tool_call>",
    "<tool_call><function=<parameter=",
    "<tool_call><arg_key>",
    "[TOOL_CALLS][ARGS]",
    "[TOOL_CALLS][CALL_ID][ARGS]",
    "[TOOL_CALLS]",
    "<｜tool▁call▁begin｜>```json",
    "<|tool_call_begin|><|tool_call_argument_begin|>",
    "<|START_ACTION|><|START_THINKING|><|END_THINKING|><|START_RESPONSE|><|END_RESPONSE|>",
    "<|tools_prefix|>",
    "<|tool_call_start|>",
    "<|tool_call>call:",
    "<|start_header_id|>{\"name\": \"parameters\": ",
    "<|start|><|channel|><|message|>",
    "<｜DSML｜tool_calls>",
    "<|start|><atem:function_calls>",
    "<function name=\"<param name=\"",
    "<|open|>call tool=<|open|>think<|sep|><|close|>think<|sep|>",
    "<function=</function>",
    "Action:```json\"tool_name\"",
];

/// Control tokens behind the bytes.
const CONTROL: [&str; 12] = [
    "</s>",
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "</think>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|call|>",
    "<|\"|>",
];

const TOOLS: &str = r#"[{"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"},
    "c": {"type": ["string", "null"]}}}}]"#;

/// A vocabulary, and the formats of its answers.
fn formats() -> &'static (Tokenizer, Vec<AnswerFormat>) {
    static MADE: OnceLock<(Tokenizer, Vec<AnswerFormat>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let bytes: Vec<String> = (0..=255_u8).map(|b| format!("<0x{b:02X}>")).collect();
        let vocab = Vocab {
            model: "llama",
            tokens: bytes.iter().map(String::as_str).chain(CONTROL).chain(["\u{2581}"]).collect(),
            scores: vec![0.0; 257 + CONTROL.len()],
            kinds: [vec![TokenKind::Byte; 256], vec![TokenKind::Control; CONTROL.len()], vec![TokenKind::Normal]]
                .concat(),
            eos: Some(256),
            add_space_prefix: Some(false),
            ..Vocab::default()
        };
        let tokenizer = Tokenizer::from_vocab(&vocab).expect("a vocabulary that agrees with itself");
        let formats = (0..2 * SIGNS.len()).map(|n| {
            let opened = if n < SIGNS.len() { "" } else { "<think>" };
            let source =
                format!("{{{{ messages[0].content }}}}{{% if false %}}{}{{% endif %}}{opened}", SIGNS[n % SIGNS.len()]);
            let chat = ChatJson { messages: "[]", tools: Some(TOOLS), ..ChatJson::default() };
            AnswerFormat::new(&tokenizer, &chat, Some(&source)).expect("a template that renders")
        });
        let formats = formats.collect();
        (tokenizer, formats)
    })
}

/// All that was told: texts of a kind and a call that follow each other as one.
#[derive(Default, PartialEq, Debug)]
struct Told(Vec<(EventKind, u32, bool, String)>);

impl Told {
    fn take(&mut self, parser: &ChatParser) {
        for event in parser.events().iter() {
            let piece = matches!(event.kind, EventKind::Answer | EventKind::Thinking | EventKind::CallArguments);
            match self.0.last_mut() {
                Some(last) if piece && last.0 == event.kind && last.1 == event.call => last.3.push_str(event.text),
                _ => self.0.push((event.kind, event.call, event.malformed, event.text.to_owned())),
            }
        }
        assert!(parser.n_held() < 4096, "{} bytes are held", parser.n_held());
    }
}

/// One case: the family, the sizes of the pushes, whether tokens come in, the answer.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (tokenizer, formats) = formats();
    let format = &formats[input.below(formats.len())];
    let (step, tokens, rest) = (input.u8(), input.u8() & 1 == 1, input.0);
    support::timed(Duration::from_secs(1), || {
        let mut whole = Told::default();
        let mut cut = Told::default();
        let mut parser = ChatParser::new(format).expect("memory suffices");
        if tokens {
            let ids: Vec<u32> = rest
                .chunks(2)
                .map(|pair| {
                    let high = pair.get(1).copied().unwrap_or(0);
                    // Half of the pairs are control tokens.
                    if high & 1 == 1 { 256 + u32::from(pair[0]) % CONTROL.len() as u32 } else { u32::from(pair[0]) }
                })
                .collect();
            for told in [&mut whole, &mut cut] {
                for &id in &ids {
                    parser.push_token(tokenizer, id).expect("it is one of the vocabulary's");
                    told.take(&parser);
                }
                parser.finish().expect("memory suffices");
                told.take(&parser);
            }
        } else {
            let text = String::from_utf8_lossy(rest);
            parser.push_text(&text).expect("memory suffices");
            whole.take(&parser);
            parser.finish().expect("memory suffices");
            whole.take(&parser);
            let (mut text, mut size) = (&*text, usize::from(step));
            while !text.is_empty() {
                size = (size.wrapping_mul(5).wrapping_add(usize::from(step)) % 13).max(1);
                let mut at = size.min(text.len());
                while !text.is_char_boundary(at) {
                    at += 1;
                }
                parser.push_text(&text[..at]).expect("memory suffices");
                cut.take(&parser);
                text = &text[at..];
            }
            parser.finish().expect("memory suffices");
            cut.take(&parser);
        }
        assert_eq!(whole, cut, "{data:?}");
        check(&whole);
    });
}

/// Calls begin, have their parts and end, in this order and one after the other; arguments that end well are an
/// object.
fn check(told: &Told) {
    let (mut open, mut n_calls, mut arguments) = (false, 0, String::new());
    for (kind, call, malformed, text) in &told.0 {
        match kind {
            EventKind::CallBegun => {
                assert!(!open && *call == n_calls, "{told:?}");
                (open, n_calls) = (true, n_calls + 1);
                arguments.clear();
            }
            EventKind::CallId | EventKind::CallName | EventKind::CallArguments => {
                assert!(open && call + 1 == n_calls, "{told:?}");
                if *kind == EventKind::CallArguments {
                    arguments.push_str(text);
                }
            }
            EventKind::CallEnded => {
                assert!(open && call + 1 == n_calls, "{told:?}");
                open = false;
                if !malformed {
                    let read = serde_json::from_str::<serde_json::Value>(&arguments);
                    // Its own bounds are narrower.
                    let bound =
                        |error: String| ["surrogate", "out of range", "recursion"].iter().any(|b| error.contains(b));
                    assert!(
                        read.map_or_else(|error| bound(error.to_string()), |value| value.is_object()),
                        "{arguments:?}"
                    );
                }
            }
            _ => assert!(!open, "{told:?}"),
        }
    }
    assert!(!open && told.0.last().is_some_and(|last| last.0 == EventKind::Ended), "{told:?}");
}
