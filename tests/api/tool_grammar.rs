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
    allows_tokens(model, constraint, &model.tokenize(text, false, false).unwrap())
}

fn allows_tokens(model: &Model, constraint: &Constraint, tokens: &[u32]) -> bool {
    let session = Session::new(model, SessionOptions::default()).unwrap();
    session.set_constraint(Some(constraint)).unwrap();
    session.prefill(tokens).unwrap();
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
    let without: Vec<&str> = families.iter().filter(|(_, has)| !**has).map(|(family, _)| *family).collect();
    assert_eq!(without, ["plain"]);
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n\n"));
}

/// A template of the style of Qwen3-Coder's, in which an answer begins with thinking between `open` and its end.
fn with_tags(open: &str) -> String {
    let call = "<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments.items() %}\
                <parameter={{ k }}>\n{{ v }}\n</parameter>\n{% endfor %}</function>\n</tool_call>";
    format!(
        "{{# <think> </think> [THINK] [/THINK] #}}{{% for m in messages %}}{{{{ m.role }}}}: {{{{ m.content }}}}\
         {{% for c in m.tool_calls or [] %}}{call}{{% endfor %}}\n{{% endfor %}}\
         {{% if add_generation_prompt %}}assistant: {open}{{% endif %}}"
    )
}

#[test]
fn texts_of_an_enum_have_any_characters() {
    let model = model();
    let odd = "a\tb\u{1}\u{7f}\u{85}\u{2028}\"\\/\n</x>";
    let tools = json!([{"type": "function", "function": {"name": "pick", "parameters": {
        "type": "object", "properties": {"which": {"type": "string", "enum": [odd, "plain"]}}, "required": ["which"]}}}]);
    let (tools, template) = (tools.to_string(), with_tags(""));
    let chat = ChatJson { messages: "[]", tools: Some(&tools), ..ChatJson::default() };
    let made =
        Constraint::of_tools(&model, &chat, Some(&template), &ToolChoice::default(), false, &mut || true).unwrap();
    let call = |which: &str| {
        format!("<tool_call>\n<function=pick>\n<parameter=which>\n{which}\n</parameter>\n</function>\n</tool_call>")
    };
    for (which, is_allowed) in [(odd, true), ("plain", true), ("a b", false)] {
        assert_eq!(allows(&model, &made, &call(which)), is_allowed, "{which:?}");
    }
}

#[test]
fn thinking_ends_with_the_mark_of_the_pair_that_the_prompt_opens() {
    let model = model();
    let tools = tools().to_string();
    let chat = ChatJson { messages: "[]", tools: Some(&tools), add_generation_prompt: true, ..ChatJson::default() };
    let choice = ToolChoice { required: true, name: Some("book-it"), one: true };
    let call = "<tool_call>\n<function=book-it>\n<parameter=q>\nx\n</parameter>\n</function>\n</tool_call>";
    for (open, own, other) in [("<think>", "</think>", "[/THINK]"), ("[THINK]", "[/THINK]", "</think>")] {
        let made = Constraint::of_tools(&model, &chat, Some(&with_tags(open)), &choice, false, &mut || true).unwrap();
        assert!(allows(&model, &made, &format!("so {other} {own}\n{call}")), "{open}");
        assert!(allows(&model, &made, &format!("so {other}\nno call")), "{open}");
        assert!(!allows(&model, &made, &format!("so {other} {own}\nno call")), "{open}");
    }
    // Without a pair that is open, any may stand in front.
    let made = Constraint::of_tools(&model, &chat, Some(&with_tags("")), &choice, false, &mut || true).unwrap();
    for text in ["<think>so</think>", "[THINK]so[/THINK]", ""] {
        assert!(allows(&model, &made, &format!("{text}\n{call}")), "{text}");
    }
    assert!(allows(&model, &made, "<think>so[/THINK]\nno call"));
    assert!(!allows(&model, &made, "[THINK]so[/THINK]\nno call"));
}

#[test]
fn compact_arguments_have_no_white_space() {
    let model = model();
    let tools = tools().to_string();
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}{# <tool_call> </tool_call> #}";
    let chat = ChatJson { messages: "[]", tools: Some(&tools), ..ChatJson::default() };
    for compact in [false, true] {
        let choice = ToolChoice { required: true, name: None, one: true };
        let made = Constraint::of_tools(&model, &chat, Some(template), &choice, compact, &mut || true).unwrap();
        for (arguments, is_compact) in
            [(r#"{"city":"a b","days":3}"#, true), (r#"{"city": "a b"}"#, false), (r#"{"city":"a", "days":3}"#, false)]
        {
            let call = format!("<tool_call>\n{{\"name\": \"get_weather\", \"arguments\": {arguments}}}\n</tool_call>");
            assert_eq!(allows(&model, &made, &call), is_compact || !compact, "{compact} {arguments}");
        }
    }
}

#[test]
fn notations_of_their_own_are_held_to_the_schema() {
    let model = model();
    let tools = json!([{"name": "f", "parameters": {"type": "object", "required": ["n", "o"], "$defs": {"yes": {"type": "boolean"}},
        "properties": {"n": {"type": "integer", "minimum": 3}, "m": {"enum": ["it's", 2, null]},
            "o": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "b": {"$ref": "#/$defs/yes"}}, "required": ["b"]}, "x": {}}}}]);
    let tools = tools.to_string();
    let chat = ChatJson { messages: "[]", tools: Some(&tools), ..ChatJson::default() };
    let held = |signs: &str| {
        let template = format!("{{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}{{# {signs} #}}");
        let choice = ToolChoice { required: true, name: None, one: true };
        Constraint::of_tools(&model, &chat, Some(&template), &choice, false, &mut || true).unwrap()
    };
    let lfm = held("<|tool_call_start|>");
    for (arguments, is_allowed) in [
        ("n=3, o={'b': True}", true),
        ("n=12,m='it\\'s',o={\"a\": ['x', \"y\"], \"b\": False}, x=[1, {'k': None}, -2.5]", true),
        ("n=3, m=None, o={'b': True}, x='\\n'", true),
        ("n=2, o={'b': True}", false),
        ("o={'b': True}, n=3", false),
        ("n=3", false),
        ("n=3, m='x', o={'b': True}", false),
        ("n=3, o={'a': [], 'b': True}", false),
        ("n=3, o={'b': true}", false),
        ("n=3, o={'b': True}, y=1", false),
    ] {
        let call = format!("<|tool_call_start|>[f({arguments})]");
        assert_eq!(allows(&model, &lfm, &call), is_allowed, "{call}");
    }
    let gemma = held("<|tool_call> call:");
    for (arguments, is_allowed) in [
        ("n:3,o:{b:true}", true),
        (r#"m:<|"|>it's<|"|>,n:4,o:{a:[<|"|>}"]<|"|>],b:false},x:[1,{k:null}]"#, true),
        ("m:2, n:3, o:{b:true}", true),
        ("n:3,m:2,o:{b:true}", false),
        ("n:2,o:{b:true}", false),
        ("n:3,o:{a:[],b:true}", false),
        (r#"m:<|"|>its<|"|>,n:3,o:{b:true}"#, false),
        ("n:3,o:{b:True}", false),
        ("n:3", false),
    ] {
        let call = format!("<|tool_call>call:f{{{arguments}}}<tool_call|>");
        assert_eq!(allows(&model, &gemma, &call), is_allowed, "{call}");
    }
}

/// Templates whose calls are in LFM2's notation, in Gemma's, and in the tags of Qwen3-Coder.
const OWN: [&str; 3] = [
    "<|tool_call_start|>",
    "<|tool_call> call:",
    "<tool_call> </tool_call> <function= </function> <parameter= </parameter>",
];

/// What calls of `f` with these parameters are held to, where there must be one.
fn of_parameters(model: &Model, signs: &str, parameters: &Value) -> kigo::error::Result<Constraint> {
    let tools = json!([{"name": "f", "parameters": parameters}]).to_string();
    let chat = ChatJson { messages: "[]", tools: Some(&tools), ..ChatJson::default() };
    let template = format!("{{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}{{# {signs} #}}");
    let choice = ToolChoice { required: true, name: None, one: true };
    Constraint::of_tools(model, &chat, Some(&template), &choice, false, &mut || true)
}

/// Whether LFM2's call with these arguments is allowed, and Gemma's, which are written in the same way but for `=`.
fn both(model: &Model, parameters: &Value, arguments: &str) -> [bool; 2] {
    let [lfm, gemma] = [OWN[0], OWN[1]].map(|signs| of_parameters(model, signs, parameters).unwrap());
    let python = format!("<|tool_call_start|>[f({})]", arguments.replace(':', "="));
    let own = format!("<|tool_call>call:f{{{arguments}}}<tool_call|>");
    [allows(model, &lfm, &python), allows(model, &gemma, &own)]
}

#[test]
fn arrays_have_as_many_items_as_the_schema_says() {
    let model = model();
    let of = |least: Value, most: Value| {
        let mut items = json!({"type": "array", "items": {"type": "integer"}});
        for (key, count) in [("minItems", least), ("maxItems", most)] {
            if !count.is_null() {
                items[key] = count;
            }
        }
        json!({"type": "object", "properties": {"a": items}, "required": ["a"]})
    };
    for (least, most, allowed) in [
        (json!(null), json!(0), 0..=0),
        (json!(null), json!(1), 0..=1),
        (json!(1), json!(1.0), 1..=1),
        (json!(0), json!(2), 0..=2),
        (json!(2), json!(2), 2..=2),
        (json!(2), json!(3), 2..=3),
        (json!(3), json!(null), 3..=4),
    ] {
        let parameters = of(least, most);
        for (n, list) in ["[]", "[1]", "[1, 2]", "[1, 2, 3]", "[1,2,3,4]"].into_iter().enumerate() {
            let found = both(&model, &parameters, &format!("a:{list}"));
            assert_eq!(found, [allowed.contains(&n); 2], "{parameters} {list}");
        }
    }
    let limit = 2_000_000_000_u64;
    assert_eq!(both(&model, &of(json!(null), json!(limit)), "a:[1, 2]"), [true; 2]);
    for (least, most, expected) in [
        (json!(3), json!(2), "\"minItems\" is 3; at most 2"),
        (json!(limit + 1), json!(null), "\"minItems\" is 2000000001; at most 2000000000"),
        (json!(1), json!(1e300), "\"maxItems\" is 18446744073709551615; at most 2000000000"),
        (json!(-1), json!(1), "\"minItems\" is -1 where a count is expected"),
        (json!(0), json!("1"), "\"maxItems\" is \"1\" where a count is expected"),
    ] {
        for signs in &OWN[..2] {
            let error = of_parameters(&model, signs, &of(least.clone(), most.clone())).err().unwrap();
            assert_eq!(error.to_string(), format!("constraint: #/properties/a: {expected}"), "{signs}");
        }
    }
}

#[test]
fn what_a_notation_cannot_hold_is_refused_with_the_path() {
    let model = model();
    let text = json!({"type": "string"});
    let tagged = |tag: &str, required: bool| {
        let required = if required { json!(["t"]) } else { json!([]) };
        json!({"type": "object", "properties": {"t": {"const": tag}}, "required": required})
    };
    let refused = |signs: &str, parameters: &Value, expected: &str| match of_parameters(&model, signs, parameters) {
        Ok(_) => panic!("{signs} {parameters} is not refused"),
        Err(error) => {
            assert_eq!(error.status(), Status::Constraint);
            assert!(error.to_string().starts_with(&format!("constraint: {expected}")), "{signs} {parameters}: {error}");
        }
    };
    // In all three, of an argument and of the parameters themselves.
    for (schema, expected) in [
        (json!({"enum": []}), "#/properties/a: \"enum\" is [] where"),
        (json!({"anyOf": []}), "#/properties/a: \"anyOf\" is [] where"),
        (json!({"type": []}), "#/properties/a: \"type\" is [] where"),
        (json!({"type": "string", "enum": [1]}), "#/properties/a: \"enum\" has no value"),
        (json!({"anyOf": [false]}), "#/properties/a: \"anyOf\" has no schema"),
        (json!(false), "#/properties/a: no value is valid"),
        (json!({"$ref": "#/$defs/no"}), "#/$defs/no: no value is valid"),
        (json!({"allOf": [text]}), "#/properties/a: \"allOf\" is not supported"),
        (json!({"not": {"const": "x"}}), "#/properties/a: \"not\" is not supported"),
        (json!({"$ref": "#/$defs/loop"}), "#/$defs/loop: more than 16 schemas"),
        (json!([1]), "#/properties/a: an array of 1 values where a schema"),
    ] {
        let defs = json!({"no": false, "loop": {"$ref": "#/$defs/loop"}});
        let parameters = json!({"properties": {"a": schema}, "required": ["a"], "$defs": defs});
        OWN.iter().for_each(|signs| refused(signs, &parameters, expected));
    }
    for (parameters, expected) in [
        (json!([1]), "#: an array of 1 values where a schema is expected"),
        (json!({"properties": [1]}), "#: \"properties\" is an array of 1 values where an object is expected"),
        (json!({"allOf": [{"properties": {"a": text}}]}), "#: \"allOf\" is not supported"),
        (json!({"anyOf": [{"properties": {"a": text}}]}), "#: \"anyOf\" beside \"properties\""),
        (json!({"type": "object", "additionalProperties": text}), "#: \"additionalProperties\" without"),
        (json!({"type": "string"}), "#: \"type\" is not that of arguments"),
        (json!({"properties": {}, "required": ["a"]}), "#: \"required\" is \"a\" where"),
        (json!({"$ref": "#/$defs/b"}), "#: \"$ref\" is \"#/$defs/b\" where"),
        (json!({"$ref": "#"}), "#: more than 16 schemas"),
    ] {
        OWN.iter().for_each(|signs| refused(signs, &parameters, expected));
    }
    // Tags have these as JSON.
    for (schema, expected) in [
        (json!({"type": "array", "prefixItems": [text]}), "#/properties/a: \"prefixItems\" is not"),
        (json!({"type": "array", "uniqueItems": true}), "#/properties/a: \"uniqueItems\" is not"),
        (json!({"type": "array", "items": false, "minItems": 1}), "#/properties/a: \"minItems\" is 1; at most 0"),
        (json!({"type": "object", "additionalProperties": text}), "#/properties/a: \"additionalProperties\""),
        (json!({"type": "object", "minProperties": 1, "properties": {}}), "#/properties/a: \"minProperties\" is not"),
        (json!({"type": "array", "items": {"enum": [[1]]}}), "#/properties/a/items: an array or an object"),
        (
            json!({"oneOf": [{"type": "integer"}, {"type": ["string", "number"]}]}),
            "#/properties/a: \"oneOf\" whose schemas may hold for the same value (#/properties/a/oneOf/0 and #/properties/a/oneOf/1)",
        ),
        (
            json!({"oneOf": [{"const": 1}, {"type": "null"}, {"enum": [2, 1.0]}]}),
            "#/properties/a: \"oneOf\" has the value 1",
        ),
        (json!({"oneOf": [{"enum": ["x", 7]}, {"type": "integer"}]}), "#/properties/a: \"oneOf\" whose"),
        (json!({"oneOf": [{"type": "null"}, {}]}), "#/properties/a: \"oneOf\" whose"),
        (json!({"oneOf": [{"anyOf": [{"type": "null"}, text]}, {"const": "x"}]}), "#/properties/a: \"oneOf\" whose"),
        (json!({"oneOf": [tagged("x", true), tagged("y", false)]}), "#/properties/a: \"oneOf\" whose"),
        (json!({"oneOf": [tagged("x", true), tagged("x", true)]}), "#/properties/a: \"oneOf\" whose"),
    ] {
        let parameters = json!({"properties": {"a": schema}});
        OWN[..2].iter().for_each(|signs| refused(signs, &parameters, expected));
    }
}

#[test]
fn one_of_several_schemas_is_any_of_them_where_no_two_hold_for_a_value() {
    let model = model();
    let tagged = |tag: Value, more: Value| json!({"type": "object", "properties": {"t": tag, "n": more}, "required": ["t"], "additionalProperties": false});
    let number = json!({"type": "number"});
    for (schemas, texts) in [
        (json!([{"type": "string"}, {"type": "integer"}, {"type": "null"}]), [("7", true), ("[]", false)]),
        (json!([{"const": 1}, {"const": 2}, {"type": "boolean"}]), [("2", true), ("3", false)]),
        (json!([{"enum": [1, 2]}, {"type": ["array", "boolean"]}]), [("1", true), ("3", false)]),
        (
            json!([
                tagged(json!({"const": 1}), number.clone()),
                tagged(json!({"enum": [2, 3]}), json!({"type": "boolean"}))
            ]),
            [("{n:true,t:2}", true), ("{n:1,t:2}", false)],
        ),
        (
            json!([{"anyOf": [{"type": "null"}, {"type": "boolean"}]}, {"type": "integer"}]),
            [("12", true), ("{}", false)],
        ),
        (
            json!([{"type": "object", "properties": {"x": number}, "required": ["x"]},
                {"type": "object", "properties": {"y": number}, "additionalProperties": false}]),
            [("{y:1}", true), ("{y:true}", false)],
        ),
    ] {
        let parameters = json!({"properties": {"a": {"oneOf": schemas}}, "required": ["a"]});
        let constraint = of_parameters(&model, OWN[1], &parameters).unwrap();
        for (text, is_allowed) in texts {
            let call = format!("<|tool_call>call:f{{a:{text}}}<tool_call|>");
            assert_eq!(allows(&model, &constraint, &call), is_allowed, "{schemas}: {text}");
        }
    }
}

#[test]
fn what_the_parameters_refer_to_is_held_and_what_nothing_is_valid_for_is_left_out() {
    let model = model();
    let inner = json!({"properties": {"a": {"type": "integer"}, "b": false, "c": {"anyOf": [false, {"const": 7}]},
        "d": {"minimum": 3}}, "required": ["a"]});
    let parameters = json!({"$ref": "#/$defs/all", "$defs": {"all": {"$ref": "#/$defs/inner"}, "inner": inner}});
    for (arguments, is_allowed) in [
        ("a:1", true),
        ("", false),
        ("a:1, b:1", false),
        ("a:1, c:7", true),
        ("a:1, c:8", false),
        ("a:1, d:2", false),
        ("a:1, d:3", true),
    ] {
        assert_eq!(both(&model, &parameters, arguments), [is_allowed; 2], "{arguments}");
    }
    let word = json!({"anyOf": [{"$ref": "#/$defs/word"}, {"type": "null"}]});
    let parameters =
        json!({"properties": {"a": word, "b": false, "c": {"const": "z"}}, "$defs": {"word": {"enum": ["x", "y"]}}});
    let tags = of_parameters(&model, OWN[2], &parameters).unwrap();
    for (name, value, is_allowed) in [
        ("a", "x", true),
        ("a", "null", true),
        ("a", "z", false),
        ("b", "x", false),
        ("c", "z", true),
        ("c", "x", false),
    ] {
        let call =
            format!("<tool_call>\n<function=f>\n<parameter={name}>\n{value}\n</parameter>\n</function>\n</tool_call>");
        assert_eq!(allows(&model, &tags, &call), is_allowed, "{call}");
    }
}

#[test]
fn messages_that_are_calls_are_held_to_the_tools() {
    let model = model();
    let tools = tools().to_string();
    let invoked = |name: &str, arguments: &str| {
        format!(
            " to={name}<|message|><atem:function_calls>\n<atem:invoke name=\"{name}\">\n{arguments}</atem:invoke>\n\
             </atem:function_calls>"
        )
    };
    let city = "<atem:parameter name=\"city\">Wien</atem:parameter>\n";
    let (book, next) = ("<atem:parameter name=\"q\">x</atem:parameter>\n", "<|eom|><|start|>assistant");
    let (call, other) = (invoked("get_weather", city), invoked("book-it", book));
    let self_said = format!(" to=self<|message|>well <|eom|>?{next}");
    let mixed = call.replace("to=get_weather", "to=book-it");
    let functionary = ("get_weather\n{\"city\": \"Wien\"}", "book-it\n{\"q\": \"x\"}");
    // A text; whether it is allowed, where a call is required, and where there may be one at most.
    let muse = vec![
        (" to=user<|message|>so".to_owned(), [true, false, true]),
        (format!("{self_said} to=user<|message|>so"), [true, false, true]),
        (call.clone(), [true, true, true]),
        (format!("{self_said}{call}"), [true, true, true]),
        (format!("{self_said} to=user<|message|>so{next}{call}{next}{other}"), [true, false, false]),
        (mixed, [false; 3]),
        (invoked("get_weather", book), [false; 3]),
        (invoked("nobody", ""), [false; 3]),
        ("so".to_owned(), [false; 3]),
    ];
    let named = vec![
        ("all\nso".to_owned(), [true, false, true]),
        (functionary.0.to_owned(), [true, true, true]),
        (format!("{}>>>{}", functionary.0, functionary.1), [true, true, false]),
        (format!("all\nso > so>>>{}", functionary.1), [true, false, true]),
        (format!("all\nso>>>{}>>>{}", functionary.1, functionary.0), [true, false, false]),
        ("nobody\n{}".to_owned(), [false; 3]),
        ("book-it\n{\"q\": 1}".to_owned(), [false; 3]),
        ("all\nso>>>so".to_owned(), [false; 3]),
    ];
    for (name, texts) in [("muse-glimmer.jinja", muse), ("meetkai-functionary-medium-v3.2.jinja", named)] {
        let Some(source) = source(name) else { return };
        let chat = ChatJson { messages: "[]", tools: Some(&tools), ..ChatJson::default() };
        let plain = ToolChoice::default();
        let choices = [plain, ToolChoice { required: true, ..plain }, ToolChoice { one: true, ..plain }];
        for (index, choice) in choices.iter().enumerate() {
            let made = Constraint::of_tools(&model, &chat, Some(&source), choice, false, &mut || true).unwrap();
            for (text, allowed) in &texts {
                assert_eq!(allows(&model, &made, text), allowed[index], "{name} {choice:?}: {text}");
            }
        }
    }
}

#[test]
fn tags_inside_of_each_other_are_held_to_the_schema() {
    // What each tag begins with is a control token, as in the model's vocabulary.
    let engine =
        Engine::new(EngineOptions { device: "cpu", n_threads: 2, memory_cap: None, log: LogSink::silent() }).unwrap();
    let mut tiny = Tiny::new("llama", TensorType::Q8_0);
    tiny.words = vec![(510, "]<]minimax[>[".to_owned())];
    let model = engine.load_memory(&tiny.bytes(), &mut |_, _| Ok(())).unwrap();
    let text = json!({"type": "string"});
    let parameters = json!({"type": "object", "required": ["city"], "properties": {
        "city": text, "n": {"type": "integer", "minimum": 3}, "list": {"type": "array", "items": text, "minItems": 1, "maxItems": 2},
        "o": {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}, "required": ["a"]},
        "e": {"enum": ["x y", 2]}, "one": {"oneOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]},
        "free": {"type": "object"}, "any": {}}});
    let constraint = of_parameters(&model, "]<]minimax[>[<tool_call>", &parameters).unwrap();
    for (arguments, is_allowed) in [
        ("<city>Wien</city>", true),
        ("<city></city><n>12</n>\n<list><item>a</item><item></item></list>", true),
        ("<city>a\n{b}</city><o><a>true</a></o><e>x y</e><one>7</one>", true),
        ("<city>x</city><o><a>false</a><b>null</b></o><e>2</e><one><item>1</item></one>", true),
        ("<city>x</city><free><k><z><item>1</item></z></k><l>so</l></free><any>so</any>", true),
        ("<city>x</city><free></free><any><k>so</k></any>", true),
        ("<n>12</n>", false),
        ("<city>x</city><n>2</n>", false),
        ("<city>x</city><list></list>", false),
        ("<city>x</city><list><item>a</item><item>b</item><item>c</item></list>", false),
        ("<city>x</city><o></o>", false),
        ("<city>x</city><o><a>True</a></o>", false),
        ("<city>x</city><e>x</e>", false),
        ("<city>x</city><one><item>so</item></one>", false),
        ("<city>x</city><free>so</free>", false),
        ("<city>x</city><other>1</other>", false),
    ] {
        let call = format!("<tool_call>\n<invoke name=\"f\">{arguments}</invoke>\n</tool_call>")
            .replace('<', "]<]minimax[>[<");
        let tokens = model.tokenize(&call, false, true).unwrap();
        assert!(tokens.contains(&510));
        assert_eq!(allows_tokens(&model, &constraint, &tokens), is_allowed, "{arguments}");
    }
}
