//! llama.cpp's own grammars, which `scripts/fetch_vocabularies.py` puts into `models/grammars`: each compiles within the limits.
//! What they allow is tried where they are read (`src/engine/grammar/gbnf/tests.rs`).

use std::path::Path;

use kigo::engine::{
    Constraint, Engine, EngineOptions, GenerateOptions, Grammar, LogSink, Model, Session, SessionOptions,
};
use kigo::gguf::TensorType;

use crate::common::tiny::Tiny;

fn model() -> Model {
    let engine =
        Engine::new(EngineOptions { device: "cpu", n_threads: 2, memory_cap: None, log: LogSink::silent() }).unwrap();
    engine.load_memory(&Tiny::new("llama", TensorType::Q8_0).bytes(), &mut |_, _| Ok(())).unwrap()
}

#[test]
fn published_grammars_compile() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/grammars");
    let Ok(files) = std::fs::read_dir(&folder) else {
        println!("skipped: models/grammars is not there (scripts/fetch_vocabularies.py fetches it)");
        return;
    };
    let model = model();
    for path in files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some()) {
        let text = std::fs::read_to_string(&path).unwrap();
        let constraint = Constraint::compile(&model, Grammar::Gbnf(&text)).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let session = Session::new(&model, SessionOptions::default()).unwrap();
        let options = GenerateOptions { max_tokens: Some(8), ..GenerateOptions::default() };
        session.prefill(&[1]).unwrap();
        session.set_constraint(Some(&constraint)).unwrap();
        session.generate(&options, &mut |_, _| true).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    }
}

/// What a GBNF text comes to is bounded as a Lark text is, and a session that is held to one is saved with it.
#[test]
fn a_gbnf_text_is_a_grammar_like_others() {
    let model = model();
    let error = |text: &str| Constraint::compile(&model, Grammar::Gbnf(text)).err().expect("refused").to_string();
    assert!(
        error("root ::= x\n x ::= x").contains("the rule \"x\" begins with itself"),
        "{}",
        error("root ::= x\n x ::= x")
    );
    let wide = format!("root ::= {}", "\"a\" | ".repeat(60_000));
    assert!(error(&wide).contains("; at most "), "{}", error(&wide));

    let text = "root ::= \"p\" | [x] \"qr\" root";
    let constraint = Constraint::compile(&model, Grammar::Gbnf(text)).unwrap();
    let session = Session::new(&model, SessionOptions::default()).unwrap();
    session.prefill(&[1]).unwrap();
    session.set_constraint(Some(&constraint)).unwrap();
    for text in ["x", "q"] {
        let id =
            (0..model.tokenizer().n_vocab() as u32).find(|id| *model.token_bytes(*id).unwrap() == *text.as_bytes());
        session.prefill(&[id.unwrap()]).unwrap();
    }
    let mut saved = vec![0; session.saved_bytes().unwrap()];
    let n = session.save(&mut saved).unwrap();
    let again = Session::restore(&model, &saved[..n]).unwrap();
    for session in [session, again] {
        let token = session.sample().unwrap();
        assert!(model.token_bytes(token).unwrap().starts_with(b"r"));
    }
}
