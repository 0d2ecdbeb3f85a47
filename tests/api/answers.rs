//! Answers taken apart: what each published template renders of an answer is read back, however it is cut.
//!
//! The templates are those of [`templates`](crate::templates).

use std::path::Path;

use kigo::chat::{AnswerFormat, ChatParser, EventKind};
use kigo::tokenizer::{ChatJson, ChatTemplate, Tokenizer};
use serde_json::{Value, json};

use crate::fixtures::{fixture, strings};
use crate::templates::tokenizer;

/// What an answer came to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    thinking: String,
    text: String,
    calls: Vec<Call>,
    ended: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Call {
    id: String,
    name: String,
    arguments: String,
    /// None: not ended.
    malformed: Option<bool>,
}

impl Answer {
    fn take(&mut self, parser: &ChatParser) {
        for event in parser.events().iter() {
            let call = event.call as usize;
            match event.kind {
                EventKind::Thinking => self.thinking.push_str(event.text),
                EventKind::Answer => self.text.push_str(event.text),
                EventKind::CallBegun => {
                    assert_eq!(call, self.calls.len());
                    self.calls.push(Call::default());
                }
                EventKind::CallId => self.calls[call].id.push_str(event.text),
                EventKind::CallName => self.calls[call].name.push_str(event.text),
                EventKind::CallArguments => self.calls[call].arguments.push_str(event.text),
                EventKind::CallEnded => self.calls[call].malformed = Some(event.malformed),
                EventKind::BudgetUsed => {}
                EventKind::Ended => self.ended = true,
            }
        }
    }
}

fn whole(format: &AnswerFormat, text: &str) -> Answer {
    let (mut parser, mut answer) = (ChatParser::new(format).unwrap(), Answer::default());
    parser.push_text(text).unwrap();
    answer.take(&parser);
    parser.finish().unwrap();
    answer.take(&parser);
    answer
}

fn by_characters(format: &AnswerFormat, text: &str) -> Answer {
    let (mut parser, mut answer) = (ChatParser::new(format).unwrap(), Answer::default());
    for c in text.chars() {
        parser.push_text(c.encode_utf8(&mut [0; 4])).unwrap();
        answer.take(&parser);
        assert!(parser.n_held() < 2048, "{}", parser.n_held());
    }
    parser.finish().unwrap();
    answer.take(&parser);
    answer
}

fn by_tokens(format: &AnswerFormat, tokenizer: &Tokenizer, text: &str) -> Answer {
    let (mut parser, mut answer) = (ChatParser::new(format).unwrap(), Answer::default());
    for (n, piece) in text.split('\u{e000}').enumerate() {
        for id in tokenizer.encode(piece, false, n % 2 == 0).unwrap() {
            parser.push_token(tokenizer, id).unwrap();
            answer.take(&parser);
        }
    }
    parser.finish().unwrap();
    answer.take(&parser);
    answer
}

const QUESTION: &str = "Which is it?";
const THOUGHT: &str = "First, {\"look\"}: <b>é</b>.\n\n<tool_call> is no call here";
const CONTENT: &str = "Both: {\"a\": [1, \"}\"]}, ünd <b>this</b>.";

fn tools() -> Value {
    json!([
        {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": {"type": "object",
            "properties": {"city": {"type": "string", "description": "x"}, "days": {"type": "integer", "description": "x"},
                "exact": {"type": "boolean", "description": "x"}, "at": {"type": "array", "items": {"type": "string"}, "description": "x"},
                "note": {"type": "string", "description": "x"}, "o": {"type": "object", "description": "x"}}, "required": ["city"]}}},
        {"type": "function", "function": {"name": "book-it", "description": "Books.", "parameters": {"type": "object",
            "properties": {"q": {"type": "string", "description": "x"}}, "required": ["q"]}}},
    ])
}

/// Where the turn ends behind the last call, where no control token that ends a generation says so.
const TURN_ENDS: [&str; 22] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|message_sep|>",
    "\n</assistant>",
    "</assistant>",
    "\n\n<sep>",
    "<|close|>message<|sep|>",
    "<|role_end|>",
    "<｜hy_eos",
    "<SPECIAL_12>",
    "<end_of_sentence>",
    "\n<|end|>",
    "<|end|>",
    "[e~[",
    "<seed:eos>",
    "<｜end▁of▁sentence｜>",
    "<|end_of_text|>",
    "<turn|>",
    "<|tool_response>",
    "<|return|>",
];

/// Families whose templates write arguments that are given as a text in quotes, or in a way of its own: no model does.
const QUOTED: [&str; 8] =
    ["kimi-k3", "mistral", "deepseek", "deepseek-v3.1", "gemma4", "functionary", "kimi-k2", "harmony"];
/// Families whose templates write what is said beside calls into another turn, or as thinking.
const APART: [&str; 3] = ["nemotron", "deepseek", "harmony"];

/// Marks with which prompts open thinking.
const OPENED: [(&str, &str); 4] = [
    ("<think>", "</think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
];

fn render(template: &ChatTemplate, messages: &Value, add_generation_prompt: bool) -> Option<String> {
    let (messages, tools) = (messages.to_string(), tools().to_string());
    let variables = Some(r#"{"enable_thinking": true}"#);
    let chat = ChatJson { messages: &messages, tools: Some(&tools), variables, add_generation_prompt };
    let text = template.render_json(&chat).ok()?.text;
    Some(text.rsplit_once(QUESTION)?.1.to_owned())
}

/// What a model would write behind the prompt for a message, as the template writes the message; whether thinking was put in
/// front, which it leaves out.
fn answer_of(template: &ChatTemplate, message: &Value) -> Option<String> {
    let question = json!({"role": "user", "content": QUESTION});
    let prompt = render(template, &json!([question]), true)?;
    let all = render(template, &json!([question, message]), false)?;
    if let Some(answer) = all.strip_prefix(&prompt) {
        return Some(answer.to_owned());
    }
    // The turn that the question ends may not be the one that the prompt begins with.
    let blank = |text: &str| text.trim_start().to_owned();
    if let Some(answer) = blank(&all).strip_prefix(&blank(&prompt)) {
        return Some(answer.to_owned());
    }
    for (open, close) in OPENED {
        let before = prompt.rsplit_once(open).filter(|(_, behind)| behind.trim().is_empty());
        if let Some(answer) = before.and_then(|(before, _)| all.strip_prefix(before)) {
            return Some(match answer.contains(THOUGHT) {
                true => answer.to_owned(),
                false => format!("{THOUGHT}\n{close}\n\n{}", answer.trim_start()),
            });
        }
    }
    // A template that begins its turns anew in the prompt alone.
    (!prompt.is_empty() && !all.contains(prompt.trim())).then_some(all)
}

/// The answer with what its message has of marks' texts between two signs, so that these are no tokens.
fn spelled(answer: &str) -> String {
    ["<tool_call> is no", "</tool_call> é", "</tool_call> \\u00e9"]
        .iter()
        .fold(answer.to_owned(), |text, own| text.replace(own, &format!("\u{e000}{own}\u{e000}")))
}

/// The arguments of the two calls that the answers have; what is lost in a template's own notation is left out.
fn arguments(family: &str) -> [Value; 2] {
    let weather = match family {
        // Its texts stand between single quotes, as they are.
        "lfm2" => {
            json!({"city": "Wi\"e{n}", "days": 3, "exact": true, "at": ["x", "y"], "note": "12", "o": {"k": {"z": [1.5]}}})
        }
        _ => {
            json!({"city": "Wi\"e{n}'s \\ </tool_call> é😀\n[2]", "days": 3, "exact": true, "at": ["x", "y\"]}"], "note": "12",
            "o": {"k": {"z": [1.5, {}]}}})
        }
    };
    [weather, json!({"q": "zé, } last"})]
}

/// Reads an answer in all ways; what is wrong.
fn read_back(
    format: &AnswerFormat,
    tokenizer: &Tokenizer,
    answer: &str,
    calls: &[(&str, Value)],
) -> Result<(), String> {
    let last = answer.rfind("} last").unwrap_or(0);
    let end = TURN_ENDS.iter().filter_map(|end| answer[last..].find(end)).min().map_or(answer.len(), |n| last + n);
    let text = &answer[..end];
    let read = whole(format, text);
    let own = |text: &'static str, sign: &str| if answer.contains(sign) { text } else { "" };
    let found: Vec<(&str, Value)> =
        read.calls.iter().map(|c| (&*c.name, serde_json::from_str(&c.arguments).unwrap_or(Value::Null))).collect();
    let thinking = own(THOUGHT, "First, {");
    if found != calls || read.thinking != thinking || read.text.trim_end() != own(CONTENT, "Both: {") {
        return Err(format!("{read:?}"));
    }
    if !read.calls.iter().all(|c| c.malformed == Some(false)) || !read.ended {
        return Err(format!("not ended well: {read:?}"));
    }
    if by_characters(format, text) != read {
        return Err(format!("by characters: {:?}", by_characters(format, text)));
    }
    // The end of the turn is among the tokens, if it is one.
    let ends = |id: &u32| tokenizer.is_end_of_generation(*id);
    let with_end = tokenizer.encode(&answer[end..], false, true).unwrap().first().is_some_and(ends);
    let mut tokens = by_tokens(format, tokenizer, &spelled(if with_end { answer } else { text }));
    tokens.text.truncate(tokens.text.trim_end().len());
    if (Answer { text: read.text.trim_end().to_owned(), ..read.clone() }) != tokens {
        return Err(format!("by tokens: {tokens:?}"));
    }
    for (at, _) in text.char_indices() {
        let cut = whole(format, &text[..at]);
        let begins = |whole: &str, cut: &str| whole.starts_with(cut);
        let all = |a: &Call, b: &Call| begins(&a.arguments, &b.arguments) && (b.malformed != Some(false) || a == b);
        if !begins(&read.thinking, cut.thinking.trim_end_matches(['<', '/']))
            && cut.thinking.len() < read.thinking.len()
        {
            return Err(format!("cut at {at}: {cut:?}"));
        }
        if cut.calls.len() > read.calls.len() || !read.calls.iter().zip(&cut.calls).all(|(a, b)| all(a, b)) {
            return Err(format!("cut at {at}: {cut:?}"));
        }
    }
    Ok(())
}

#[test]
fn published_templates_answers_are_read_back() {
    let fixture = fixture("templates");
    let tokenizer = tokenizer(&strings(&fixture["control"]));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/templates");
    let (tools, mut n_read, mut wrong, mut found) = (tools().to_string(), 0, Vec::new(), Vec::new());
    for (name, _) in fixture["templates"].as_object().unwrap() {
        let Ok(source) = std::fs::read_to_string(folder.join(name)) else {
            println!("skipped: models/templates lacks {name} (scripts/fetch_vocabularies.py fetches it)");
            return;
        };
        let template = ChatTemplate::with_source(&tokenizer, &source).unwrap();
        let variables = Some(r#"{"enable_thinking": true}"#);
        let chat = ChatJson { messages: "[]", tools: Some(&tools), variables, add_generation_prompt: true };
        let format = AnswerFormat::new(&tokenizer, &chat, Some(&source)).unwrap();
        let [weather, book] = arguments(format.facts().family);
        let (both, one) = ([("get_weather", weather), ("book-it", book.clone())], [("book-it", book)]);
        let before = n_read;
        for (calls, content, thought, as_text) in [
            (&both[..], CONTENT, true, false),
            (&both[..], "", true, false),
            (&both[..], "", false, false),
            (&one[..], CONTENT, false, false),
            (&one[..], "", false, false),
            (&one[..], "", false, true),
        ] {
            let told = |arguments: &Value| if as_text { json!(arguments.to_string()) } else { arguments.clone() };
            let call = |(name, arguments): &(&str, Value)| {
                json!({"id": "call00001", "type": "function",
                "function": {"name": name, "arguments": told(arguments)}})
            };
            let mut message = json!({"role": "assistant", "content": content});
            message["tool_calls"] = calls.iter().map(call).collect();
            if thought {
                (message["reasoning_content"], message["thinking"]) = (json!(THOUGHT), json!(THOUGHT));
            }
            let Some(answer) = answer_of(&template, &message) else { continue };
            let family = format.facts().family;
            let left_out = as_text && QUOTED.contains(&family)
                || thought && family == "hunyuan"
                || !content.is_empty() && APART.contains(&family);
            if !answer.contains(", } last") || left_out || !format.facts().calls {
                continue;
            }
            n_read += 1;
            if let Err(what) = read_back(&format, &tokenizer, &answer, calls) {
                wrong.push(format!(
                    "{name}, {} calls, {content:?}, {thought}, {as_text}: {answer:?}\n  {what}",
                    calls.len()
                ));
            }
        }
        let facts = format.facts();
        found.push((name.clone(), facts.family, facts.calls, facts.thinking, facts.opens_thinking, n_read - before));
    }
    println!("{n_read} answers");
    for f in &found {
        println!("    {f:?},");
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}
