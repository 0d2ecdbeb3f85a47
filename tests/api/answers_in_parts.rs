//! Answers in parts: messages whose heads are names, and arguments in tags inside of each other.

use kigo::chat::AnswerFormat;
use kigo::tokenizer::ChatJson;
use serde_json::{Value, json};

use crate::answers::{Answer, by_characters, source, tools, whole};
use crate::fixtures::{fixture, strings};
use crate::templates::tokenizer;

#[test]
fn heads_that_are_names_are_those_of_the_tools() {
    let tokenizer = tokenizer(&strings(&fixture("templates")["control"]));
    let Some(source) = source("meetkai-functionary-medium-v3.2.jinja") else { return };
    let tools = tools().to_string();
    let read = |tools: Option<&str>, text: &str| {
        let chat = ChatJson { messages: "[]", tools, ..ChatJson::default() };
        let format = AnswerFormat::new(&tokenizer, &chat, Some(&source)).unwrap();
        assert_eq!(by_characters(&format, text), whole(&format, text), "{text:?}");
        for (at, _) in text.char_indices() {
            let cut = whole(&format, &text[..at]);
            assert!(cut.calls.len() <= whole(&format, text).calls.len() && cut.ended, "{text:?} cut at {at}: {cut:?}");
        }
        whole(&format, text)
    };
    let calls = |answer: &Answer| -> Vec<(String, String)> {
        assert!(answer.calls.iter().all(|call| call.malformed == Some(false)));
        answer.calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect()
    };
    let said = "Both: >>> no, >>>nobody\nx, 3 >>>> all";
    let text = format!("all\n{said}>>>get_weather\n{{\"city\": \">>>all\\n\"}}>>>book-it\n{{\"q\": 1}}");
    let answer = read(Some(&tools), &text);
    assert_eq!(answer.text, said);
    let expected = [("get_weather", "{\"city\": \">>>all\\n\"}"), ("book-it", "{\"q\": 1}")];
    assert_eq!(calls(&answer), expected.map(|(name, arguments)| (name.to_owned(), arguments.to_owned())));
    // A call first; no head at all; a name that is nobody's, and with no tools known anybody's.
    let answer = read(Some(&tools), "book-it\n{\"q\": {}}");
    assert_eq!((calls(&answer).len(), &*answer.text), (1, ""));
    for text in ["Hello\nthere", "allow\nthis", "nobody\n{}", ">>nobody\n{}", ""] {
        assert_eq!(read(Some(&tools), text), Answer { text: text.to_owned(), ended: true, ..Answer::default() });
    }
    assert_eq!(calls(&read(None, "nobody\n{}")), [("nobody".to_owned(), "{}".to_owned())]);
    let broken = read(Some(&tools), "book-it\n{\"q\": >>>all\nwell");
    assert_eq!((broken.calls.len(), broken.calls[0].malformed), (1, Some(true)));
}

#[test]
fn tags_inside_of_each_other_are_read_by_the_schema() {
    let tokenizer = tokenizer(&strings(&fixture("templates")["control"]));
    let text = json!({"type": "string"});
    let point = json!({"type": "object", "properties": {"x": {"type": "number"}, "label": text, "item": text}});
    let tools = json!([{"name": "f", "parameters": {"type": "object", "$defs": {"point": point}, "properties": {
        "points": {"type": "array", "items": {"$ref": "#/$defs/point"}}, "one": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/point"}]},
        "lists": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, "text": text,
        "map": {"type": "object", "additionalProperties": text}, "flag": {"type": "boolean"}}}}])
    .to_string();
    let chat = ChatJson { messages: "[]", tools: Some(&tools), ..ChatJson::default() };
    let source = "{# ]<]minimax[>[<tool_call> #}{% for m in messages %}{{ m.content }}{% endfor %}";
    let format = AnswerFormat::new(&tokenizer, &chat, Some(source)).unwrap();
    assert_eq!(format.facts().family, "minimax-m3");
    // `<` stands for the mark and a tag, `{` for a tag that is text.
    let written = |inner: &str| {
        let tags = format!("<tool_call>\n<invoke name=\"f\">{inner}</invoke>\n</tool_call>");
        tags.replace('<', "]<]minimax[>[<").replace('{', "<")
    };
    let read = |inner: &str| {
        let answer = whole(&format, &written(inner));
        assert_eq!(by_characters(&format, &written(inner)), answer, "{inner}");
        let call = &answer.calls[0];
        (call.arguments.clone(), call.malformed.unwrap(), answer.text.clone())
    };
    for (inner, expected) in [
        ("", "{}"),
        ("<text> a {b}\n12 </text>", r#"{"text":" a <b}\n12 "}"#),
        (
            "<points><item><x>1.5</x><label>12</label></item>\n <item></item></points>",
            r#"{"points":[{"x":1.5,"label":"12"},{}]}"#,
        ),
        ("<points></points><one><item>7</item></one>", r#"{"points":[],"one":{"item":"7"}}"#),
        ("<one>null</one><lists><item><item>1</item><item>2</item></item></lists>", r#"{"one":null,"lists":[[1,2]]}"#),
        ("<map><a>1</a><b\"\\>true</b\"\\></map><flag>true</flag>", r#"{"map":{"a":"1","b\"\\":"true"},"flag":true}"#),
        (
            "<other>12</other><more><item>so</item></more><x><y><z></z></y></x>",
            r#"{"other":12,"more":["so"],"x":{"y":{"z":""}}}"#,
        ),
    ] {
        assert_eq!(read(inner), (expected.to_owned(), false, String::new()), "{inner}");
        serde_json::from_str::<Value>(expected).unwrap();
    }
    // What cannot stand there ends a call, and the answer goes on.
    let deep = "<a>".repeat(70);
    for inner in
        ["<text>a<b>c</b></text>", "<flag>true</text>", "<lists><item>1</item><x>2</x></lists>", "so", "<>a</>", &deep]
    {
        assert!(read(inner).1, "{inner}");
    }
    let text = written("<points><item><x>1.5</x></item></points>");
    for (at, _) in text.char_indices() {
        let cut = whole(&format, &text[..at]);
        let arguments = cut.calls.first().map_or("", |call| &call.arguments);
        assert!(cut.ended && r#"{"points":[{"x":1.5}]}"#.starts_with(arguments), "cut at {at}: {cut:?}");
    }
}
