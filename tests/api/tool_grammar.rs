//! Grammars made of tools: what a template renders of a call is allowed by its own grammar, and other calls are not.

use kigo::chat::{AnswerFormat, ToolChoice};
use kigo::engine::{Constraint, Engine, EngineOptions, LogSink, Model, Session, SessionOptions};
use kigo::error::{Error, Status};
use kigo::gguf::TensorType;
use kigo::tokenizer::{ChatJson, ChatTemplate};
use serde_json::{Value, json};

use crate::answers::{THINKING, answer_of, source, tools, turn};
use crate::common::tiny::Tiny;
use crate::fixtures::fixture;

fn model() -> Model {
    let engine =
        Engine::new(EngineOptions { device: "cpu", n_threads: 2, memory_cap: None, log: LogSink::silent() }).unwrap();
    engine.load_memory(&Tiny::new("llama", TensorType::Q8_0).bytes(), &mut |_, _| Ok(())).unwrap()
}

/// Whether a text is allowed to its end.
fn allows(model: &Model, constraint: &Constraint, text: &str) -> bool {
    let session = Session::new(model, SessionOptions::default()).unwrap();
    session.set_constraint(Some(constraint)).unwrap();
    session.prefill(&model.tokenize(text, false, false).unwrap()).unwrap();
    match session.sample() {
        Ok(_) => true,
        Err(Error::Constraint { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_templates_render_is_allowed() {
    let model = model();
    let (tools, mut families, mut wrong) = (tools().to_string(), std::collections::BTreeMap::new(), Vec::new());
    for (name, _) in fixture("templates")["templates"].as_object().unwrap() {
        let Some(source) = source(name) else { return };
        let chat = ChatJson { messages: "[]", tools: Some(&tools), variables: THINKING, ..ChatJson::default() };
        let template = ChatTemplate::with_source(model.tokenizer(), &source).unwrap();
        let format = AnswerFormat::new(model.tokenizer(), &chat, Some(&source)).unwrap();
        let choice = ToolChoice::default();
        let made = Constraint::of_tools(&model, &chat, Some(&source), &choice, false, &mut || true);
        let family = format.facts().family;
        let constraint = match made {
            Ok(constraint) => constraint,
            Err(error) if error.status() == Status::Unsupported => {
                families.insert(family, false);
                continue;
            }
            Err(error) => {
                wrong.push(format!(
                    "{name} ({family}): {error}\n{}",
                    format.grammar(model.tokenizer(), Some(&tools), &choice).unwrap()
                ));
                continue;
            }
        };
        families.insert(family, true);
        let call = |name: &str, arguments: Value| json!({"id": "call00001", "type": "function", "function": {"name": name, "arguments": arguments}});
        let both = [call("get_weather", json!({"city": "Wien", "days": 3})), call("book-it", json!({"q": "a } last"}))];
        for (calls, is_allowed) in
            [(&both[1..], true), (&both[..], true), (&[call("book-it", json!({"q": 1, "z": "} last"}))][..], false)]
        {
            let message = json!({"role": "assistant", "content": "", "tool_calls": calls});
            let Some(answer) = answer_of(&template, &message).filter(|answer| answer.contains("} last")) else {
                continue;
            };
            let text = turn(&answer).0;
            // Their marks have a character that this vocabulary takes for a space.
            let spaced = ["deepseek", "deepseek-v3.1"].contains(&family);
            if !spaced && allows(&model, &constraint, text) != is_allowed {
                wrong.push(format!(
                    "{name} ({family}): {text} should be {is_allowed}\n{}",
                    format.grammar(model.tokenizer(), Some(&tools), &choice).unwrap()
                ));
            }
        }
    }
    println!("{families:?}");
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n\n"));
}
