//! Writes a C program that calls every function of the header with arguments that are wrong in one place: a NULL, a
//! pointer that is misaligned, a struct of an impossible size, flags and kinds that are none; and from where a session
//! is in use.
//!
//! The functions, their parameters and the structs' fields come from the header. What a right argument is stands in
//! [`right`]: a function with a parameter that it does not know fails the test, and so needs a row there.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::prototypes::{Declared, Function, Struct, constants, functions, structs};

/// The program's frame: `tests/c/arguments.c`, where this marker is replaced by the cases.
const MARKER: &str = "// CASES\n";

/// What is right for a parameter, as an expression over the frame's variables.
fn right(function: &Function, parameter: &Declared, before: Option<&Declared>) -> String {
    let Declared { ty, name } = parameter;
    let text = match (function.name.as_str(), ty.as_str(), name.as_str()) {
        (_, "kigo_status", "status") => "KIGO_STATUS_BUSY",
        // Handles; the destroy functions get none of those that are still needed.
        (f, _, _) if f.ends_with("_destroy") => "NULL",
        (_, "const kigo_constraint*", _) => "constraint",
        (_, "const kigo_engine*", _) => "engine",
        (_, "const kigo_model*", _) => "model",
        (_, "kigo_session*" | "const kigo_session*", _) => "session",
        (_, "kigo_stream*", _) => "stream",
        (_, "kigo_batch*", _) => "batch",
        (_, "kigo_chat_parser*" | "const kigo_chat_parser*", _) => "parser",
        (_, "kigo_session*const*", _) => "sessions",
        (_, "kigo_engine**", _) => "&new_engine",
        (_, "kigo_model**", _) => "&new_model",
        (_, "kigo_session**", _) => "&new_session",
        (_, "kigo_stream**", _) => "&new_stream",
        (_, "kigo_batch**", _) => "&new_batch",
        (_, "kigo_chat_parser**", _) => "&new_parser",
        (_, "kigo_constraint**", _) => "&new_constraint",
        // Texts and data.
        (_, "const char*", "path") => "path",
        (_, "const char*", "key") => "\"general.architecture\"",
        (_, "const char*", "text") => "\"abc\"",
        (_, "const char*", "messages_json") => "messages_json",
        (_, "size_t", "path_len" | "key_len" | "text_len" | "messages_json_len") => "KIGO_STRLEN",
        (_, "const void*", "data") => "file",
        (_, "size_t", "data_bytes") => "n_file",
        (_, "const void*", "blob") => "blob",
        (_, "size_t", "blob_bytes") => "n_blob",
        (_, "const kigo_message*", _) => "&message",
        (_, "size_t", "n_messages" | "n") => "1",
        (_, "size_t", "n_ids") if before.is_some() => "2",
        (_, "const uint32_t*", "ids" | "tokens") => "some_ids",
        (_, "size_t", "n_tokens") => "2",
        (_, "const uint32_t*const*", "ids") => "&some_ids_at",
        (_, "const size_t*", "n_ids") => "&two",
        // Numbers.
        (_, "uint32_t", "token") => "7",
        (_, "uint32_t", "tap") => "7",
        (_, "size_t", "index" | "layer") => "0",
        (_, "uint64_t", "max_ms") => "0",
        (_, "uint64_t", "flags") => "0",
        // Outputs.
        (_, "char*", "buffer") => "text",
        (_, "void*", "buffer") => "bytes",
        (_, "uint32_t*", "ids") => "ids",
        (_, "float*", "buffer") => "floats",
        (_, "kigo_logprob*", "buffer") => "logprobs",
        (_, "size_t", "capacity") => match before.map(|b| b.ty.as_str()) {
            Some("char*") => "sizeof text",
            Some("void*") => "sizeof bytes",
            Some("uint32_t*") => "sizeof ids / sizeof *ids",
            Some("float*") => "sizeof floats / sizeof *floats",
            Some("kigo_logprob*") => "sizeof logprobs / sizeof *logprobs",
            other => panic!("{}: a capacity behind {other:?}", function.name),
        },
        ("kigo_sample_batch", "uint32_t*", "tokens") => "ids",
        (_, "kigo_status*", "statuses") => "statuses",
        (_, "uint32_t*", "token") => "&out_token",
        (_, "size_t*", "needed" | "n_tokens" | "n_sessions" | "n_events" | "n_devices") => "&out_size",
        (_, "const kigo_chat_event**", _) => "&out_events",
        (_, "uint64_t*", "flags") => "&out_flags",
        (_, "uint64_t*", "cache_bytes") => "&out_bytes",
        (_, "int32_t*", "meta_type") => "&out_type",
        (_, "double*", "bytes_per_second") => "&out_number",
        _ if name == "options" || sized(parameter).is_some() => {
            let strukt = sized(parameter).unwrap_or_else(|| panic!("{}: {ty} has no size", function.name));
            return format!("&s_{}", strukt.name);
        }
        _ => panic!("{}: no row for the parameter `{ty} {name}` in {}", function.name, file!()),
    };
    text.to_owned()
}

/// The struct with a size that a parameter points at.
fn sized(parameter: &Declared) -> Option<Struct> {
    let pointee = parameter.pointee()?.trim_start_matches("const ");
    structs().into_iter().find(|s| s.name == pointee && s.is_sized())
}

/// What a right call gives.
fn outcome(function: &Function) -> &'static str {
    match function.name.as_str() {
        "kigo_engine_read_bandwidth" => "KIGO_STATUS_UNSUPPORTED", // on the CPU
        "kigo_batch_remove" => "KIGO_STATUS_NOT_FOUND",            // it is in none
        "kigo_chat_template_name" => "KIGO_STATUS_NOT_FOUND",      // none has a name
        _ => "KIGO_STATUS_OK",
    }
}

/// Allowed from inside a tap: whatever needs no session and loads nothing.
fn inside_a_tap(function: &Function) -> &'static str {
    const NO_PASSES: [&str; 8] = [
        "kigo_batch_run",
        "kigo_batch_remove",
        "kigo_session_create",
        "kigo_session_restore",
        "kigo_model_load_file",
        "kigo_model_load_memory",
        "kigo_model_embed",
        "kigo_doctor",
    ];
    let needs = uses_session(function) || NO_PASSES.contains(&function.name.as_str());
    if needs { "KIGO_STATUS_BUSY" } else { outcome(function) }
}

/// Needs a session to itself.
fn uses_session(function: &Function) -> bool {
    let mut types = function.parameters.iter().map(|p| p.ty.as_str());
    // What is not in a batch is told so, whoever has it.
    let needs_none = function.name.ends_with("_destroy") || function.name == "kigo_batch_remove";
    !needs_none && types.any(|ty| ["kigo_session*", "kigo_session*const*"].contains(&ty))
}

fn call(function: &Function, arguments: &[String]) -> String {
    format!("{}({})", function.name, arguments.join(", "))
}

/// The cases of one function: `(what is wrong, the call, what the text must hold, whether outputs are nulled)`.
struct Cases {
    code: String,
    n: usize,
}

impl Cases {
    /// A call that must be refused. `before` prepares it; outputs other than the one at fault are zero afterwards.
    fn refuse(&mut self, f: &Function, before: &str, arguments: &[String], at_fault: usize, text: &str) {
        writeln!(self.code, "    prepare();").expect("a String takes it");
        if !before.is_empty() {
            writeln!(self.code, "    {before}").expect("a String takes it");
        }
        let call = call(f, arguments);
        writeln!(self.code, "    refused({call}, \"{}\", {text:?});", call.replace('"', "'"))
            .expect("a String takes it");
        for (i, argument) in arguments.iter().enumerate().filter(|(i, _)| *i != at_fault) {
            let parameter = &f.parameters[i];
            if parameter.ty.starts_with("const") || !argument.starts_with('&') {
                continue;
            }
            match sized(parameter) {
                Some(s) => writeln!(self.code, "    CHECK(is_zero(&s_{0}, sizeof s_{0}));", s.name),
                None => writeln!(self.code, "    CHECK({} == 0);", argument.trim_start_matches('&')),
            }
            .expect("a String takes it");
        }
        self.n += 1;
    }
}

/// Wrong in one place, in each of the ways there are.
fn wrong(f: &Function, cases: &mut Cases) {
    let right: Vec<String> = arguments(f);
    let with = |i: usize, argument: String| {
        let mut arguments = right.clone();
        arguments[i] = argument;
        arguments
    };
    for (i, parameter) in f.parameters.iter().enumerate() {
        let Declared { ty, name } = parameter;
        let strukt = sized(parameter);
        // No constraint is one too.
        let optional = strukt.is_some() && ty.starts_with("const") || ty == "const kigo_constraint*";
        match parameter.pointee() {
            _ if name == "user_data" || f.name.ends_with("_destroy") => {}
            Some(pointee) => {
                if !optional {
                    cases.refuse(f, "", &with(i, "NULL".to_owned()), i, &format!("{name} is NULL"));
                }
                if !["char", "const char", "void", "const void"].contains(&pointee) {
                    let odd = format!("({ty})(void *)((char *){} + 1)", right[i]);
                    cases.refuse(f, "", &with(i, odd), i, "; expected a multiple of ");
                }
            }
            None if ty.ends_with("_callback") => {
                cases.refuse(f, "", &with(i, "NULL".to_owned()), i, &format!("{name} is NULL"));
            }
            None if ty == "int32_t" => {
                cases.refuse(f, "", &with(i, "99".to_owned()), i, &format!("{name} is 99"));
                cases.refuse(f, "", &with(i, "-1".to_owned()), i, &format!("{name} is -1"));
            }
            None if name == "flags" => {
                let unknown = "UINT64_C(1) << 40".to_owned();
                cases.refuse(f, "", &with(i, unknown), i, &format!("{name} is 0x10000000000"));
            }
            None => assert!(
                ["size_t", "uint32_t", "uint64_t", "kigo_status"].contains(&ty.as_str()),
                "{}: {ty} {name}",
                f.name
            ),
        }
        let Some(strukt) = strukt else { continue };
        let variable = format!("s_{}", strukt.name);
        for size in ["0", "4", "12", "4104", "SIZE_MAX"] {
            let text = format!("{}.struct_size is ", strukt.name);
            cases.refuse(f, &format!("{variable}.struct_size = {size};"), &right, i, &text);
        }
        for field in strukt.fields.iter().filter(|_| optional) {
            let value = match (field.ty.as_str(), field.name.as_str()) {
                ("int32_t", _) => "99",
                (_, "flags") => "UINT64_C(1) << 40",
                _ => continue,
            };
            let text = format!("{} is ", field.name);
            cases.refuse(f, &format!("{variable}.{} = {value};", field.name), &right, usize::MAX, &text);
        }
    }
}

fn arguments(f: &Function) -> Vec<String> {
    let before = |i: usize| i.checked_sub(1).map(|i| &f.parameters[i]);
    f.parameters.iter().enumerate().map(|(i, p)| right(f, p, before(i))).collect()
}

/// The program, and how many calls in it are refused.
pub fn program(frame: &str) -> (String, usize) {
    let mut code = String::new();
    let mut variables = BTreeSet::new();
    for strukt in functions().iter().flat_map(|f| &f.parameters).filter_map(sized) {
        variables.insert(strukt.name);
    }
    for name in &variables {
        writeln!(code, "static {name} s_{name};").expect("a String takes it");
    }
    code +=
        "\n// Sets every variable to what is right, and outputs to what is not zero.\nstatic void prepare(void)\n{\n";
    for name in &variables {
        let read = functions().iter().flat_map(|f| &f.parameters).any(|p| p.ty == format!("const {name}*"));
        let filling = if read { 0 } else { 0xA5 };
        writeln!(
            code,
            "    memset(&s_{name}, {filling}, sizeof s_{name});\n    s_{name}.struct_size = sizeof s_{name};"
        )
        .expect("a String takes it");
    }
    code += "    prepare_rest();\n}\n";
    let mut n = 0;
    for f in functions() {
        let mut cases = Cases { code: String::new(), n: 0 };
        wrong(&f, &mut cases);
        n += cases.n;
        let right = call(&f, &arguments(&f));
        writeln!(code, "\nstatic void test_{}(void)\n{{\n    prepare();", f.name).expect("a String takes it");
        match f.returns.as_str() {
            "kigo_status" => {
                let slow = if f.name == "kigo_doctor" { "if (!slow) " } else { "" };
                writeln!(code, "    {slow}gives({right}, {}, \"{}\");", outcome(&f), right.replace('"', "'"))
                    .expect("a String takes it");
            }
            _ => writeln!(code, "    (void){right};").expect("a String takes it"),
        }
        code += &cases.code;
        code += "}\n";
    }
    let list = |code: &mut String, name: &str, each: &dyn Fn(&Function) -> Option<&'static str>| {
        writeln!(code, "\nstatic void {name}(void)\n{{").expect("a String takes it");
        for f in functions().iter().filter(|f| f.returns == "kigo_status") {
            if let Some(outcome) = each(f) {
                let right = call(f, &arguments(f));
                writeln!(code, "    prepare();\n    gives({right}, {outcome}, \"{}\");", right.replace('"', "'"))
                    .expect("a String takes it");
            }
        }
        *code += "}\n";
    };
    list(&mut code, "while_busy", &|f| uses_session(f).then_some("KIGO_STATUS_BUSY"));
    list(&mut code, "inside_a_tap", &|f| Some(inside_a_tap(f)));
    code += "\nstatic void every_function(void)\n{\n";
    for f in functions() {
        writeln!(code, "    fresh();\n    test_{}();", f.name).expect("a String takes it");
    }
    code += "}\n\nstatic void every_status_has_its_name(void)\n{\n";
    for (name, _) in constants("KIGO_STATUS_") {
        writeln!(code, "    CHECK(strcmp(kigo_status_name({name}), \"{name}\") == 0);").expect("a String takes it");
    }
    code += "}\n";
    assert_eq!(frame.matches(MARKER).count(), 1);
    (frame.replace(MARKER, &code), n)
}
