//! Calls whose arguments stand in tags, one by one.

use super::{Row, VALUE, each};
use crate::chat::syntax::{Field, Part, mark};

/// What begins MiniMax-M3's calls.
const M3: &str = "]<]minimax[>[<tool_call>";

/// An argument whose tag says the type of its value.
fn typed(before: &str, key_end: &str, type_end: &str, behind: &str) -> Part {
    Part::Each(vec![
        mark(before),
        Part::Field(Field::Key),
        mark(key_end),
        Part::Field(Field::Type),
        mark(type_end),
        VALUE,
        mark(behind),
    ])
}

pub(super) fn rows() -> Vec<Row> {
    let name = || Part::Field(Field::Name);
    let invoke = |begin: &str, each: Part, end: &str| vec![mark(begin), name(), mark("\">"), each, mark(end)];
    let function = |lines| {
        let arguments = each("<parameter=", &[">"], Part::Value { lines, cdata: false }, "</parameter>");
        vec![mark("<function="), name(), mark(">"), arguments, mark("</function>")]
    };
    let dsml = || {
        let before = "<｜DSML｜parameter name=\"";
        let arguments = typed(before, "\" string=\"", "\">", "</｜DSML｜parameter>");
        invoke("<｜DSML｜invoke name=\"", arguments, "</｜DSML｜invoke>")
    };
    let glm = |before: &str, between: &[&str], behind: &str| vec![name(), each(before, between, VALUE, behind)];
    let argument = typed("<|open|>argument key=\"", "\" type=\"", "\"<|sep|>", "<|close|>argument<|sep|>");
    let kimi = vec![
        mark("<|open|>call tool=\""),
        name(),
        mark("\" index=\""),
        Part::Field(Field::Other),
        mark("\"<|sep|>"),
        argument,
        mark("<|close|>call<|sep|>"),
    ];
    let mut hy =
        glm("<arg_key:opensource>", &["</arg_key:opensource>", "<arg_value:opensource>"], "</arg_value:opensource>");
    hy.insert(0, mark("<tool_call:opensource>"));
    hy.insert(2, mark("<tool_sep:opensource>"));
    hy.push(mark("</tool_call:opensource>"));
    let minimax = each("<parameter name=\"", &["\">"], VALUE, "</parameter>");
    let seed = Some("</seed:tool_call>");
    let param = each("<param name=\"", &["\">"], Part::Value { lines: false, cdata: true }, "</param>");
    let param = vec![name(), mark("\">"), param, mark("</function>")];
    // Its arguments are tags inside of each other.
    let nested =
        vec![mark("]<]minimax[>[<invoke name=\""), name(), mark("\">"), Part::Nested("]<]minimax[>[", "invoke")];
    let (dsml_v32, dsml_v4) = ("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>");
    let row = Row::of_parts;
    vec![
        row("minimax-m3", &[M3], M3, Some("]<]minimax[>[</tool_call>"), nested),
        row("kimi-k3", &["<|open|>call tool="], "<|open|>tools<|sep|>", Some("<|close|>tools<|sep|>"), kimi),
        row("deepseek-v3.2", &["<｜DSML｜function_calls>"], dsml_v32, Some("</｜DSML｜function_calls>"), dsml()),
        row("deepseek-v4", &["<｜DSML｜tool_calls>"], dsml_v4, Some("</｜DSML｜tool_calls>"), dsml()),
        row(
            "minimax-m2",
            &["<minimax:tool_call>", "<invoke name="],
            "<minimax:tool_call>",
            Some("</minimax:tool_call>"),
            invoke("<invoke name=\"", minimax, "</invoke>"),
        ),
        row("seed-oss", &["<seed:tool_call>", "<function="], "<seed:tool_call>", seed, function(false)),
        row(
            "qwen3-coder",
            &["<tool_call>", "<function=", "<parameter="],
            "<tool_call>",
            Some("</tool_call>"),
            function(true),
        ),
        row("hunyuan", &["<tool_call:opensource>"], "<tool_calls:opensource>", Some("</tool_calls:opensource>"), hy),
        row(
            "glm",
            &["<tool_call>", "<arg_key>"],
            "<tool_call>",
            Some("</tool_call>"),
            glm("<arg_key>", &["</arg_key>", "<arg_value>"], "</arg_value>"),
        ),
        row("minicpm", &["<function name=\"", "<param name=\""], "<function name=\"", None, param),
        row(
            "functionary",
            &["<function=", "</function>"],
            "<function=",
            None,
            vec![name(), mark(">"), Part::Json, mark("</function>")],
        ),
    ]
}
