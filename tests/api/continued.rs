//! A last message that is gone on with, against transformers (`scripts/make_continued_fixtures.py`), and a file's further templates.

use std::path::Path;

use kigo::error::{Error, Status};
use kigo::gguf::{Gguf, TensorType, Value, ValueType};
use kigo::tokenizer::{ChatJson, ChatTemplate, TokenKind, Tokenizer, Vocab};

use crate::common::tiny::Tiny;
use crate::fixtures::{fixture, strings};
use crate::templates::{fnv, tokenizer};

#[test]
fn published_templates_end_within_a_message_as_in_transformers() {
    let fixture = fixture("continued");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/templates");
    let tokenizer = tokenizer(&strings(&crate::fixtures::fixture("templates")["control"]));
    let conversations = fixture["conversations"].as_array().unwrap();
    let (mut n_same, mut n_refused, mut wrong) = (0, 0, Vec::new());
    for (name, row) in fixture["templates"].as_object().unwrap() {
        let Ok(source) = std::fs::read_to_string(folder.join(name)) else {
            println!("skipped: models/templates lacks {name} (scripts/fetch_vocabularies.py fetches it)");
            return;
        };
        let template = ChatTemplate::with_source(&tokenizer, &source).unwrap();
        for (conversation, expected) in conversations.iter().zip(row.as_array().unwrap()) {
            let chat = ChatJson {
                messages: conversation["messages"].as_str().unwrap(),
                tools: conversation["tools"].as_str(),
                continue_final: true,
                ..ChatJson::default()
            };
            let rendered = template.render_json_at(&chat, fixture["now"].as_i64().unwrap());
            match (&rendered, expected.as_str()) {
                (Ok(rendered), Some(expected)) if fnv(&rendered.text) == expected => {
                    n_same += 1;
                    // The vocabulary takes the one for the other.
                    let plain = |text: &[u8]| String::from_utf8_lossy(text).replace('\u{2581}', " ");
                    let ids = tokenizer.decode(&rendered.ids, false).unwrap();
                    assert_eq!(plain(&ids), plain(rendered.text.as_bytes()), "{name}");
                }
                (Err(error), None) => {
                    n_refused += 1;
                    assert_eq!(error.status(), Status::InvalidArgument, "{name}: {error}");
                }
                _ => wrong.push(format!("{name}, {}: {rendered:?}", conversation["name"])),
            }
        }
    }
    println!("{n_same} texts are the same, {n_refused} are refused");
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
    assert!(n_same > 400, "{n_same}");
}

/// A vocabulary of bytes and two control tokens, with these templates.
fn with_templates<'a>(first: Option<&'a str>, named: &[(&'a str, &'a str)]) -> Tokenizer {
    let bytes: Vec<String> = (0..=255_u8).map(|b| format!("<0x{b:02X}>")).collect();
    let vocab = Vocab {
        model: "llama",
        tokens: bytes.iter().map(String::as_str).chain(["<|a|>", "<|end|>", "\u{2581}"]).collect(),
        scores: vec![0.0; 259],
        kinds: [vec![TokenKind::Byte; 256], vec![TokenKind::Control; 2], vec![TokenKind::Normal]].concat(),
        add_space_prefix: Some(false),
        chat_template: first,
        chat_templates: named.to_vec(),
        ..Vocab::default()
    };
    Tokenizer::from_vocab(&vocab).unwrap()
}

const CHATS: &str = "{% for m in messages %}<|a|>{{ m.content | trim }}<|end|>{% endfor %}";

#[test]
fn what_cannot_be_gone_on_with_is_refused() {
    let tokenizer = with_templates(None, &[]);
    let render = |source: &str, messages: &str, prompt: bool| {
        let chat = ChatJson { messages, continue_final: true, add_generation_prompt: prompt, ..ChatJson::default() };
        ChatTemplate::with_source(&tokenizer, source).unwrap().render_json(&chat)
    };
    let said = r#"[{"role": "user", "content": "u"}, {"role": "assistant", "content": " <|end|> so "}]"#;
    // The message's own token is text, and the template's behind it is left out.
    let rendered = render(CHATS, said, false).unwrap();
    assert_eq!(rendered.text, "<|a|>u<|end|><|a|><|end|> so");
    assert_eq!(rendered.ids.iter().filter(|id| **id >= 256 && **id < 258).count(), 3);
    // White space that a template keeps is the message's.
    assert_eq!(render("{{ messages[1].content }}<|end|>", said, false).unwrap().text, " <|end|> so ");
    for (source, messages, prompt, expected) in [
        (CHATS, said, true, "flags is for both; expected one of a new answer and the last message to go on with"),
        (
            CHATS,
            "[]",
            false,
            "messages_json is without a message to go on with; expected a last message with a content",
        ),
        (CHATS, r#"[{"role": "a"}]"#, false, "messages_json is without a message to go on with"),
        (CHATS, r#"[{"role": "a", "content": 1}]"#, false, "messages_json is without a message to go on with"),
        (CHATS, r#"[{"role": "a", "content": [{"type": "image"}]}]"#, false, "messages_json is without a message"),
        ("x", said, false, "the last message, to go on with, is not as it was"),
        ("{{ messages[1].content | upper }}", said, false, "the last message, to go on with, is not as it was"),
    ] {
        let error = render(source, messages, prompt).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument);
        assert!(error.to_string().contains(expected), "{source}: {error}");
    }
}

#[test]
fn the_tag_is_refused_where_a_template_may_write_it_behind_the_text() {
    let tokenizer = with_templates(None, &[]);
    let source = "{% for m in messages %}<|a|>{{ m.content if m.content is string else m.content[0].text }}\
                  {% for c in m.tool_calls or [] %}{{ c.function.arguments }}{% endfor %}<|end|>{% endfor %}{{ tail }}";
    let render = |messages: &str, variables: Option<&str>| {
        let chat = ChatJson { messages, variables, continue_final: true, ..ChatJson::default() };
        ChatTemplate::with_source(&tokenizer, source).unwrap().render_json(&chat).map(|rendered| rendered.text)
    };
    let tag = "CONTINUE_FINAL_MESSAGE_TAG";
    let said = |content: &str, more: &str| {
        format!(r#"[{{"role": "u", "content": "q {tag}"}}, {{"role": "a", "content": {content}{more}}}]"#)
    };
    // In front of the text's end it is text.
    let front = format!("<|a|>q {tag}<|end|><|a|>");
    assert_eq!(render(&said(r#""so""#, ""), Some(r#"{"tail": "x"}"#)).unwrap(), format!("{front}so"));
    let own = said(&format!(r#""{tag} so""#), r#", "tool_calls": [{"function": {"arguments": {"k": "v"}}}]"#);
    assert_eq!(render(&own, None).unwrap(), format!("{front}{tag} so"));
    let refused = |messages: &str, variables: Option<&str>, expected: &str| {
        let error = render(messages, variables).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument, "{error}");
        assert_eq!(error.to_string(), expected);
    };
    let beside = format!(
        "messages_json is with {tag} in the last message, beside the text that is gone on with; expected another text there"
    );
    for arguments in [format!(r#"{{"k": ["{tag} "]}}"#), format!(r#"{{"{tag}": 1}}"#), format!(r#""a{tag}b""#)] {
        let calls = format!(r#", "tool_calls": [{{"function": {{"arguments": {arguments}}}}}]"#);
        refused(&said(r#""so""#, &calls), None, &beside);
        refused(&said(r#"[{"type": "text", "text": "so"}]"#, &calls), None, &beside);
    }
    let image = format!(r#"[{{"type": "text", "text": "so"}}, {{"type": "image", "url": "{tag}"}}]"#);
    refused(&said(&image, ""), None, &beside);
    let variables = format!(r#"{{"head": 1, "tail": ["{tag}"]}}"#);
    let expected =
        format!("variables_json is with {tag} in tail, where a message is gone on with; expected another text there");
    refused(&said(r#""so""#, ""), Some(&variables), &expected);
}

#[test]
fn a_file_has_templates_by_their_names() {
    let tokenizer = with_templates(Some("first"), &[("tool_use", "{{ tools }}"), ("rag", "{% broken"), ("", "empty")]);
    assert_eq!(tokenizer.chat_template(), Some("first"));
    assert_eq!(tokenizer.chat_template_names().collect::<Vec<_>>(), ["tool_use", "rag", ""]);
    let render = |template_name: Option<&str>, source: Option<&str>| {
        let chat = ChatJson { messages: "[]", tools: Some("[1]"), template_name, ..ChatJson::default() };
        ChatTemplate::of(&tokenizer, &chat, source)?.render_json(&chat).map(|rendered| rendered.text)
    };
    // With tools the one for tools is taken, as transformers do it.
    for (name, source, text) in [
        (None, None, "[1]"),
        (Some("tool_use"), None, "[1]"),
        (Some("default"), None, "first"),
        (Some(""), None, "empty"),
        (None, Some("own"), "own"),
    ] {
        assert_eq!(render(name, source).unwrap(), text);
        assert_eq!(render(name, source).unwrap(), text);
    }
    let error = |name, source| render(name, source).unwrap_err();
    assert!(matches!(error(Some("tools"), None), Error::NotFound { .. }));
    assert_eq!(
        error(Some("tools"), None).to_string(),
        "chat template \"tools, the model has tool_use, rag, \" not found"
    );
    assert!(error(Some("rag"), None).to_string().contains("tokenizer.chat_template.rag"));
    assert_eq!(error(Some("rag"), Some("own")).status(), Status::InvalidArgument);
    let plain = ChatJson { messages: "[]", ..ChatJson::default() };
    assert_eq!(ChatTemplate::of(&tokenizer, &plain, None).unwrap().render_json(&plain).unwrap().text, "first");
}

#[test]
fn named_templates_are_read_from_a_file_as_gguf_s_writer_writes_them() {
    let mut tiny = Tiny::new("qwen2", TensorType::Q8_0);
    tiny.with = [("tool_use", "{{ tools[0] }}"), ("rag", "about {{ messages[0].content }}")]
        .map(|(name, text)| (format!("tokenizer.chat_template.{name}"), Value::String(text)))
        .into();
    let mut writer = tiny.writer();
    writer.array("tokenizer.chat_templates", ValueType::String, ["rag", "tool_use"].map(Value::String));
    let file = writer.to_bytes(|_, _| {});
    let gguf = Gguf::from_bytes(&file).unwrap();
    let tokenizer = Tokenizer::from_vocab(&Vocab::from_gguf(&gguf).unwrap()).unwrap();
    assert_eq!(tokenizer.chat_template_names().collect::<Vec<_>>(), ["tool_use", "rag"]);
    let render = |template_name: Option<&str>, tools: Option<&str>| {
        let messages = r#"[{"role": "user", "content": "x"}]"#;
        let chat = ChatJson { messages, tools, template_name, ..ChatJson::default() };
        ChatTemplate::of(&tokenizer, &chat, None).and_then(|template| template.render_json(&chat)).unwrap().text
    };
    assert_eq!(render(Some("rag"), None), "about x");
    assert_eq!(render(None, Some("[7]")), "7");
    assert_eq!(render(None, None), render(Some("default"), Some("[7]")));
    assert!(render(None, None).contains("<|im_start|>user"));
}
