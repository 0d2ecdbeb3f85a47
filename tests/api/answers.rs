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
pub struct Answer {
    pub thinking: String,
    pub text: String,
    pub calls: Vec<Call>,
    pub ended: bool,
}

/// A call of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    pub id: String,
    pub name: String,
    pub arguments: String,
    /// None: not ended.
    pub malformed: Option<bool>,
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

pub fn whole(format: &AnswerFormat, text: &str) -> Answer {
    let (mut parser, mut answer) = (ChatParser::new(format).unwrap(), Answer::default());
    parser.push_text(text).unwrap();
    answer.take(&parser);
    parser.finish().unwrap();
    answer.take(&parser);
    answer
}

pub fn by_characters(format: &AnswerFormat, text: &str) -> Answer {
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

pub fn tools() -> Value {
    json!([
        {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": {"type": "object",
            "properties": {"city": {"type": "string", "description": "x"}, "days": {"type": "integer", "description": "x"},
                "exact": {"type": "boolean", "description": "x"}, "at": {"type": "array", "items": {"type": "string"}, "description": "x"},
                "note": {"type": "string", "description": "x"}, "o": {"type": "object", "description": "x"}}, "required": ["city"]}}},
        {"type": "function", "function": {"name": "book-it", "description": "Books.", "parameters": {"type": "object",
            "properties": {"q": {"type": "string", "description": "x"}}, "required": ["q"]}}},
    ])
}

/// Variables with which templates have answers think.
pub const THINKING: Option<&str> = Some(r#"{"enable_thinking": true}"#);

/// A published template; `None`, and why, where it is not there.
pub fn source(name: &str) -> Option<String> {
    let source =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/templates").join(name)).ok();
    if source.is_none() {
        println!("skipped: models/templates lacks {name} (scripts/fetch_vocabularies.py fetches it)");
    }
    source
}

/// Where the turn ends behind the last call, where no control token that ends a generation says so.
const TURN_ENDS: [&str; 25] = [
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
    "<|call|>",
    "<|eom|>",
    "<|eot|>",
];

/// An answer up to where its turn ends behind the last call, which has "} last" in it, and what comes then.
pub fn turn(answer: &str) -> (&str, &str) {
    let last = answer.rfind("} last").unwrap_or(0);
    let ends = TURN_ENDS.iter().filter_map(|end| answer[last..].find(end)).min();
    answer.split_at(ends.map_or(answer.len(), |n| last + n))
}

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
    let chat = ChatJson {
        messages: &messages,
        tools: Some(&tools),
        variables: THINKING,
        add_generation_prompt,
        ..ChatJson::default()
    };
    let text = template.render_json(&chat).ok()?.text;
    Some(text.rsplit_once(QUESTION)?.1.to_owned())
}

/// What a model would write behind the prompt for a message, as the template writes the message. Where that leaves out
/// thinking that the prompt has opened, it is put in front.
pub fn answer_of(template: &ChatTemplate, message: &Value) -> Option<String> {
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
            // Thinking that is there, be it empty.
            if let Some(answer) = answer.strip_prefix(open) {
                return Some(answer.to_owned());
            }
            if answer.trim_start().starts_with(close) {
                return Some(answer.to_owned());
            }
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
        // In its tags an object without members is nothing, where the schema says no more.
        "minimax-m3" => {
            json!({"city": "Wi\"e{n}'s \\ </tool_call> é😀\n[2]", "days": 3, "exact": true, "at": ["x", "y\"]}"], "note": "12",
            "o": {"k": {"z": [1.5]}}})
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
    let (text, end) = turn(answer);
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
    let with_end = tokenizer.encode(end, false, true).unwrap().first().is_some_and(ends);
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

/// What each template is taken for: its family; whether calls (c) and thinking (t) are known, and whether a prompt opens
/// thinking (o); how many of the six answers it renders with calls that can be read back. With 0 it renders none: LFM 2's, Granite
/// 3.3's and firefunction's lack them, Command R+ and Kimi K2's fail here as in transformers, and so does the one for R1.
#[rustfmt::skip]
const FORMATS: [(&str, &str, &str, usize); 70] = [
    ("Apertus-8B-Instruct.jinja", "apertus", "ct-", 6),
    ("Apriel-1.6-15b-Thinker-fixed.jinja", "tool-calls", "cto", 6),
    ("Bielik-11B-v3.0-Instruct.jinja", "hermes", "cto", 6),
    ("ByteDance-Seed-OSS.jinja", "seed-oss", "ct-", 5),
    ("Cohere2MoE.jinja", "cohere", "cto", 6),
    ("CohereForAI-c4ai-command-r-plus-tool_use.jinja", "command-r", "c--", 0),
    ("CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja", "cohere", "ct-", 6),
    ("GLM-4.6.jinja", "glm", "ct-", 5),
    ("GLM-4.7-Flash.jinja", "glm", "cto", 5),
    ("GigaChat3-10B-A1.8B.jinja", "gigachat", "c--", 3),
    ("GigaChat3.1-10B-A1.8B.jinja", "gigachat", "c--", 3),
    ("HuggingFaceTB-SmolLM3-3B.jinja", "plain", "-t-", 0),
    ("Kimi-K2-Instruct.jinja", "kimi-k2", "c--", 0),
    ("Kimi-K2-Thinking.jinja", "kimi-k2", "ct-", 0),
    ("Kimi-K3.jinja", "kimi-k3", "cto", 5),
    ("LFM2-8B-A1B.jinja", "lfm2", "c--", 0),
    ("LFM2.5-8B-A1B.jinja", "lfm2", "ct-", 5),
    ("LFM2.5-Instruct.jinja", "plain", "---", 0),
    ("MiMo-VL.jinja", "hermes", "c--", 6),
    ("MiniMax-M1.jinja", "tool-calls", "c--", 6),
    ("MiniMax-M2.jinja", "minimax-m2", "cto", 5),
    ("MiniMax-M3.jinja", "minimax-m3", "ct-", 5),
    ("Mistral-Small-3.2-24B-Instruct-2506.jinja", "mistral", "c--", 5),
    ("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.jinja", "qwen3-coder", "cto", 5),
    ("NVIDIA-Nemotron-Nano-v2.jinja", "nemotron", "cto", 4),
    ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja", "hermes", "c--", 6),
    ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja", "hermes", "c--", 6),
    ("Qwen-QwQ-32B.jinja", "hermes", "cto", 6),
    ("Qwen-Qwen2.5-7B-Instruct.jinja", "hermes", "c--", 6),
    ("Qwen-Qwen3-0.6B.jinja", "hermes", "ct-", 6),
    ("Qwen3-Coder.jinja", "qwen3-coder", "c--", 5),
    ("Qwen3.5-4B.jinja", "qwen3-coder", "cto", 5),
    ("Reka-Edge.jinja", "hermes", "cto", 6),
    ("Spark2.5.jinja", "glm", "cto", 5),
    ("StepFun3.5-Flash.jinja", "qwen3-coder", "cto", 5),
    ("deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja", "deepseek", "cto", 0),
    ("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", "deepseek", "cto", 3),
    ("deepseek-ai-DeepSeek-V3.1.jinja", "deepseek-v3.1", "cto", 5),
    ("deepseek-ai-DeepSeek-V3.2.jinja", "deepseek-v3.2", "cto", 5),
    ("deepseek-ai-DeepSeek-V4-Flash-0731.jinja", "deepseek-v4", "cto", 5),
    ("deepseek-ai-DeepSeek-V4.jinja", "deepseek-v4", "cto", 5),
    ("fireworks-ai-llama-3-firefunction-v2.jinja", "firefunction", "c--", 0),
    ("google-gemma-2-2b-it.jinja", "plain", "---", 0),
    ("google-gemma-4-31B-it-interleaved.jinja", "gemma4", "ct-", 5),
    ("google-gemma-4-31B-it.jinja", "gemma4", "ct-", 5),
    ("ibm-granite-granite-3.3-2B-Instruct.jinja", "granite", "ct-", 0),
    ("ibm-granite-granite-4.0.jinja", "granite", "c--", 6),
    ("ibm-granite-granite-4.1.jinja", "granite", "c--", 6),
    ("inclusionai-ling-3.0-flash.jinja", "glm", "cto", 5),
    ("llama-cpp-deepseek-r1.jinja", "deepseek", "ct-", 0),
    ("llama-cpp-rwkv-world.jinja", "plain", "-to", 0),
    ("meetkai-functionary-medium-v3.1.jinja", "functionary", "c--", 5),
    ("meetkai-functionary-medium-v3.2.jinja", "functionary-v3.2", "c--", 1),
    ("meta-llama-Llama-3.1-8B-Instruct.jinja", "llama3", "c--", 3),
    ("meta-llama-Llama-3.2-3B-Instruct.jinja", "llama3", "c--", 3),
    ("meta-llama-Llama-3.3-70B-Instruct.jinja", "llama3", "c--", 3),
    ("microsoft-Phi-3.5-mini-instruct.jinja", "plain", "---", 0),
    ("mistralai-Ministral-3-14B-Reasoning-2512.jinja", "mistral", "ct-", 5),
    ("mistralai-Mistral-Nemo-Instruct-2407.jinja", "mistral", "c--", 5),
    ("moonshotai-Kimi-K2.jinja", "kimi-k2", "c--", 5),
    ("muse-glimmer.jinja", "muse", "ct-", 5),
    ("openai-gpt-oss-120b.jinja", "harmony", "ct-", 1),
    ("openbmb-MiniCPM5-1B.jinja", "minicpm", "cto", 5),
    ("poolside-Laguna-S-2.1.jinja", "glm", "cto", 5),
    ("poolside-Laguna-XS-2.1.jinja", "glm", "cto", 5),
    ("poolside-Laguna-XS.2.jinja", "glm", "cto", 5),
    ("tencent-Hy3.jinja", "hunyuan", "ct-", 3),
    ("unsloth-Apriel-1.5.jinja", "tool-calls", "c--", 6),
    ("unsloth-mistral-Devstral-Small-2507.jinja", "mistral", "c--", 5),
    ("upstage-Solar-Open-100B.jinja", "solar", "ct-", 6),
];

#[test]
fn published_templates_answers_are_read_back() {
    let fixture = fixture("templates");
    let tokenizer = tokenizer(&strings(&fixture["control"]));
    let (tools, mut n_read, mut wrong, mut found) = (tools().to_string(), 0, Vec::new(), Vec::new());
    for (name, _) in fixture["templates"].as_object().unwrap() {
        let Some(source) = source(name) else { return };
        let template = ChatTemplate::with_source(&tokenizer, &source).unwrap();
        let chat = ChatJson {
            messages: "[]",
            tools: Some(&tools),
            variables: THINKING,
            add_generation_prompt: true,
            ..ChatJson::default()
        };
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
        let flag = |has: bool, letter| if has { letter } else { '-' };
        let flags =
            [flag(facts.calls, 'c'), flag(facts.thinking, 't'), flag(facts.opens_thinking, 'o')].iter().collect();
        found.push((name.clone(), facts.family, flags, n_read - before));
    }
    let expected: Vec<_> =
        FORMATS.iter().map(|&(name, family, flags, n)| (name.to_owned(), family, flags.to_owned(), n)).collect();
    assert_eq!(found, expected);
    println!("{n_read} answers of {} templates are read back", found.len());
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

/// A format for a template of these marks alone: an answer in turns of ChatML.
fn format_of(tokenizer: &Tokenizer, source: &str, prompt: &str) -> AnswerFormat {
    let tools = tools().to_string();
    let source = format!(
        "{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{{{{ m.content }}}}<|im_end|>\n{{% endfor %}}{{# {source} #}}{{{{ '{prompt}' }}}}"
    );
    let source = source.replace("{#", "{% if false %}").replace("#}", "{% endif %}");
    let chat = ChatJson {
        messages: "[]",
        tools: Some(&tools),
        variables: None,
        add_generation_prompt: true,
        ..ChatJson::default()
    };
    AnswerFormat::new(tokenizer, &chat, Some(&source)).unwrap()
}

const HERMES: &str = "<tool_call>";
const CODER: &str = "<tool_call><function=<parameter=<think></think>";

/// The calls as name, arguments and whether they ended well.
fn calls(answer: &Answer) -> Vec<(&str, &str, bool)> {
    answer.calls.iter().map(|c| (&*c.name, &*c.arguments, c.malformed == Some(false))).collect()
}

#[test]
fn what_is_no_call_is_text_and_what_breaks_off_is_malformed() {
    let tokenizer = tokenizer(&["<|im_end|>"]);
    let format = format_of(&tokenizer, HERMES, "");
    assert_eq!(format.facts().family, "hermes");
    let call = r#"<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>"#;
    for (text, said, expected) in [
        ("plain <tool_cal", "plain <tool_cal", vec![]),
        ("a <tool_call> is a mark", "a <tool_call> is a mark", vec![]),
        ("<tool_call>{\"a\": 1}</tool_call>", "<tool_call>{\"a\": 1}</tool_call>", vec![]),
        ("<tool_call>\n{\"name\": \"\"}</tool_call>", "<tool_call>\n{\"name\": \"\"}</tool_call>", vec![]),
        ("<tool_call>{\"na", "<tool_call>{\"na", vec![]),
        ("<tool_call>{\"name\": \"f\"}</tool_call>x", "x", vec![("f", "{}", true)]),
        ("<tool_call>{\"name\": \"f\", \"arguments\": null}</tool_call>", "", vec![("f", "{}", true)]),
        // In another order, around a member that says nothing, and as a text.
        (
            r#"<tool_call>{"arguments": {"a": "{\"b\": [\"}\"]}"}, "x": [1, {"y": "}"}], "name": "f"}</tool_call>"#,
            "",
            vec![("f", r#"{"a": "{\"b\": [\"}\"]}"}"#, true)],
        ),
        (
            r#"<tool_call>{"type": "function", "function": {"name": "f", "arguments": "{\"a\": \"\\u00e9\\n\"}"}}</tool_call>"#,
            "",
            vec![("f", r#"{"a": "\u00e9\n"}"#, true)],
        ),
        (r#"<tool_call>{"name": "f", "arguments": {"a": 1,}}</tool_call>y"#, "}}y", vec![("f", "{\"a\": 1,", false)]),
        (r#"<tool_call>{"name": "f", "arguments": [1]}</tool_call>"#, "[1]}", vec![("f", "", false)]),
        (r#"<tool_call>{"name": "f", "arguments": {"a": "b"#, "", vec![("f", "{\"a\": \"b", false)]),
        // A name behind more than is kept is too late.
        (
            &format!(r#"<tool_call>{{"x": "{}", "name": "f"}}</tool_call>"#, "-".repeat(2000)),
            &format!(r#"<tool_call>{{"x": "{}", "name": "f"}}</tool_call>"#, "-".repeat(2000)),
            vec![],
        ),
        (&format!("one\n{call}\n{call} {call}two"), "onetwo", vec![("f", "{\"a\": 1}", true); 3]),
        (&format!("<think>\nno {call} here\n</think>\n\nyes"), "yes", vec![]),
        ("later <think> and </think> are text", "later <think> and </think> are text", vec![]),
        ("</think>\nempty thinking ended", "empty thinking ended", vec![]),
    ] {
        let read = whole(&format, text);
        assert_eq!((&*read.text, calls(&read)), (said, expected), "{text}");
        assert_eq!(by_characters(&format, text), read, "{text}");
        assert_eq!(by_tokens(&format, &tokenizer, text), read, "{text}");
    }
    let thought = whole(&format, &format!("<think>\nno {call} here\n</think>\n\nyes")).thinking;
    assert_eq!(thought, format!("no {call} here"));
}

#[test]
fn arguments_in_tags_are_json_by_the_schema() {
    let tokenizer = tokenizer(&["<|im_end|>"]);
    let format = format_of(&tokenizer, CODER, "<think>\\n");
    assert!(format.facts().opens_thinking && format.facts().family == "qwen3-coder", "{:?}", format.facts());
    let call = |name: &str, arguments: &[(&str, &str)]| {
        let each = arguments.iter().map(|(key, value)| format!("<parameter={key}>\n{value}\n</parameter>\n"));
        format!("</think><tool_call>\n<function={name}>\n{}</function>\n</tool_call>", each.collect::<String>())
    };
    for (name, arguments, expected) in [
        ("get_weather", vec![], "{}"),
        ("get_weather", vec![("city", "12"), ("days", "3")], r#"{"city":"12","days":3}"#),
        (
            "get_weather",
            vec![("city", "a\n\n\"b\"\t</param> \u{1}")],
            "{\"city\":\"a\\n\\n\\\"b\\\"\\t</param> \\u0001\"}",
        ),
        ("get_weather", vec![("days", "three"), ("exact", "True")], r#"{"days":"three","exact":true}"#),
        (
            "get_weather",
            vec![("at", "['it\\'s', \"x\"]"), ("o", "{'a': None}")],
            r#"{"at":["it's","x"],"o":{"a":null}}"#,
        ),
        // Nothing is known of these.
        (
            "other",
            vec![("a", "1.5"), ("b", "{\"c\": []}"), ("c", "\"q\""), ("d", "x")],
            r#"{"a":1.5,"b":{"c": []},"c":"\"q\"","d":"x"}"#,
        ),
    ] {
        let text = call(name, &arguments);
        let read = whole(&format, &text);
        assert_eq!(calls(&read), [(name, expected, true)], "{text}");
        serde_json::from_str::<Value>(expected).unwrap();
        assert_eq!(by_characters(&format, &text), read, "{text}");
    }
    // A value longer than what is held is what the schema calls it, or a text.
    let long = format!("[{}1]", "1, ".repeat(3000));
    let read = whole(&format, &call("get_weather", &[("at", &long), ("city", &long)]));
    assert_eq!(calls(&read), [("get_weather", &*format!("{{\"at\":{long},\"city\":\"{long}\"}}"), true)]);
    let read = whole(&format, &call("other", &[("a", &long)]));
    assert_eq!(calls(&read), [("other", &*format!("{{\"a\":\"{long}\"}}"), true)]);
}

#[test]
fn a_control_token_is_a_mark_and_its_text_is_text() {
    let tokenizer = tokenizer(&["<|im_end|>", "<tool_call>", "</tool_call>", "<think>", "</think>"]);
    let format = format_of(&tokenizer, HERMES, "");
    let call = r#"<tool_call>{"name": "f", "arguments": {}}</tool_call>"#;
    let read =
        by_tokens(&format, &tokenizer, &format!("\u{e000}{call}\u{e000}{call}<|im_end|>\u{e000}not read\u{e000}"));
    assert_eq!((&*read.text, calls(&read)), (call, vec![("f", "{}", true)]));
    assert!(read.ended);
    // In text one cannot be told from the other.
    assert_eq!(calls(&whole(&format, &format!("{call}{call}"))).len(), 2);
    // A token of thinking opens it wherever it stands, and one that is no mark is left out.
    let read = by_tokens(&format, &tokenizer, "a<think>b</think>c");
    assert_eq!((&*read.text, &*read.thinking), ("ac", "b"));
    assert_eq!(by_tokens(&format, &tokenizer, "a</tool_call>b").text, "ab");
}

#[test]
fn a_budget_of_thinking_is_told_once() {
    let tokenizer = tokenizer(&["<|im_end|>", "<think>", "</think>"]);
    let format = format_of(&tokenizer, CODER, "<think>\\n");
    let end = String::from_utf8(tokenizer.decode(format.thinking_end(), false).unwrap()).unwrap();
    assert_eq!(end, "</think>");
    let mut parser = ChatParser::new(&format).unwrap();
    parser.set_thinking_budget(Some(5));
    for _ in 0..2 {
        let mut told = Vec::new();
        for (n, id) in tokenizer.encode("abcdefgh", false, false).unwrap().into_iter().enumerate() {
            let events = parser.push_token(&tokenizer, id).unwrap();
            told.extend(events.iter().filter(|e| e.kind == EventKind::BudgetUsed).map(|_| n));
        }
        assert_eq!(told, [4]);
        assert!(parser.is_thinking());
        for &id in format.thinking_end() {
            parser.push_token(&tokenizer, id).unwrap();
        }
        assert!(!parser.is_thinking());
        parser.finish().unwrap();
    }
}

/// What a parser holds does not grow, and its time does not either.
#[test]
fn what_is_held_is_bounded() {
    let tokenizer = tokenizer(&["<|im_end|>"]);
    for source in [HERMES, CODER, "<|start|><|channel|><|message|>", "<tool_call><arg_key>", "[TOOL_CALLS][ARGS]"] {
        let format = format_of(&tokenizer, source, "");
        for unit in [
            "<tool_call>",
            "<tool_call>{\"name\": \"f\", ",
            " \n",
            "<tool_call>f<arg_key>",
            "<",
            "<tool_call>{\"a\":[",
            "[TOOL_CALLS]a",
            "<|channel|>",
            "<tool_call><function=f><parameter=a>",
            "<think>",
            "{\"name\":\"",
            "\u{e000}",
        ] {
            let mut parser = ChatParser::new(&format).unwrap();
            let text = unit.repeat(8_000 / unit.len());
            let mut n = 0;
            for _ in 0..4 {
                parser.push_text(&text).unwrap();
                assert!(parser.n_held() < 4096, "{source} {unit}: {}", parser.n_held());
                n += parser.events().text_bytes();
            }
            parser.finish().unwrap();
            n += parser.events().text_bytes();
            assert!(n <= 6 * 4 * text.len() + 64, "{n}");
        }
    }
    let error =
        ChatParser::new(&format_of(&tokenizer, HERMES, "")).unwrap().push_text(&"x".repeat((1 << 20) + 1)).map(drop);
    assert!(error.unwrap_err().to_string().contains("1048577 bytes long"));
}
