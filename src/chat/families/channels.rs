//! Answers made of messages with heads.

use super::{Row, VALUE, each};
use crate::chat::syntax::{Calls, Channels, Field, Part, Syntax, mark};

pub(super) fn rows() -> Vec<Row> {
    let harmony = Channels {
        open: vec!["<|start|>", "<|channel|>"],
        message: "<|message|>",
        ends: vec!["<|end|>", "<|call|>", "<|return|>"],
        thinking: "<|channel|>analysis",
        call: Some("to="),
        head: &["assistant", "to=", "<|channel|>", "<|start|>"],
        answer: "",
    };
    let muse = Channels {
        open: vec!["<|start|>"],
        message: "<|message|>",
        ends: vec!["<|eom|>", "<|eot|>"],
        thinking: "to=self",
        call: None,
        head: &["assistant", "to=", "<|start|>"],
        answer: "user",
    };
    let functionary = Channels {
        open: vec![">>>"],
        message: "\n",
        ends: Vec::new(),
        thinking: "",
        call: Some(""),
        head: &[],
        answer: "all",
    };
    let argument = each("<atem:parameter name=\"", &["\">"], VALUE, "</atem:parameter>");
    let invoke =
        vec![mark("<atem:invoke name=\""), Part::Field(Field::Name), mark("\">"), argument, mark("</atem:invoke>")];
    let calls = Calls::parts("<atem:function_calls>", Some("</atem:function_calls>"), invoke);
    vec![
        Row {
            signs: &["<|start|>", "<atem:function_calls>"],
            syntax: Syntax { channels: Some(muse), ..Syntax::with_calls("muse", calls) },
        },
        Row {
            signs: &["<|start|>", "<|channel|>", "<|message|>"],
            syntax: Syntax { family: "harmony", channels: Some(harmony), ..Syntax::default() },
        },
        Row {
            signs: &[">>>kigo_function\n"],
            syntax: Syntax { family: "functionary-v3.2", channels: Some(functionary), ..Syntax::default() },
        },
    ]
}
