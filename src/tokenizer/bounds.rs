//! Bounds on what a chat template may take, whatever stands in it.
//!
//! The template engine counts instructions and nested calls, but a single instruction may double a string, nest a
//! list once more, or compare two structures that share their parts. So a compiled program gets checks in front of
//! and behind such instructions. They charge a [`Meter`] in bytes and elements, and hold every structure to
//! [`MAX_DEPTH`] levels (more could not be dropped on a small stack) and [`MAX_NODES`] elements.
//!
//! A check in front of an instruction is a filter that gives the operands back as a list, which is unpacked again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, Vm, WhitespaceConfig, make_string_output, parse};
use minijinja::value::{Rest, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value, filters};
use minijinja_contrib::pycompat;

/// Levels of lists and maps in one another.
const MAX_DEPTH: usize = 32;
/// Elements of one structure, at all levels together.
const MAX_NODES: usize = 1 << 18;

/// Names of the checks; no template can write them.
const GROWTH: &str = "\u{1}growth";
const OPERANDS: &str = "\u{1}operands";
const SLICED: &str = "\u{1}sliced";
const KEY: &str = "\u{1}key";
const RESULT: &str = "\u{1}result";
const ATTRIBUTE: &str = "\u{1}attribute";

/// Filters that look at no more than one element.
const CONSTANT_TIME: [&str; 6] = ["length", "count", "default", "d", "first", "last"];
/// What a rendering may still take, in bytes and elements handled.
pub(super) struct Meter(AtomicUsize);

impl Meter {
    /// A meter of so many units.
    pub fn new(units: usize) -> Arc<Meter> {
        Arc::new(Meter(AtomicUsize::new(units)))
    }

    fn charge(&self, units: usize) -> Result<(), Error> {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(units));
        left.map(|_| ()).map_err(|_| refused("the template takes too much memory or time"))
    }

    /// Charges a value and all that is in it: bytes of strings as well, if `bytes`.
    fn charge_all(&self, value: &Value, bytes: bool) -> Result<(), Error> {
        self.walk(value, bytes, 0, &mut 0)
    }

    fn walk(&self, value: &Value, bytes: bool, depth: usize, nodes: &mut usize) -> Result<(), Error> {
        *nodes += 1;
        if depth > MAX_DEPTH || *nodes > MAX_NODES {
            return Err(refused("the template builds too deep or too large a structure"));
        }
        if depth > 0 && is_namespace(value) {
            // What is set in it later could make a chain of any length, or a ring.
            return Err(refused("a namespace is put into a structure"));
        }
        self.charge(1 + if bytes { value.as_str().map_or(0, str::len) } else { 0 })?;
        let is_map = value.kind() == ValueKind::Map;
        if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
            return Ok(());
        }
        for item in value.try_iter()? {
            self.walk(&item, bytes, depth + 1, nodes)?;
            if is_map {
                self.walk(&value.get_item(&item)?, bytes, depth + 1, nodes)?;
            }
        }
        Ok(())
    }

    /// Charges a new value; one that would be computed element by element is computed now.
    fn result(&self, value: Value) -> Result<Value, Error> {
        if let Some(text) = value.as_str() {
            self.charge(text.len())?;
            return Ok(value);
        }
        if value.kind() != ValueKind::Iterable {
            self.charge_all(&value, false)?;
            return Ok(value);
        }
        let mut items = Vec::new();
        for item in value.try_iter()? {
            self.charge(1)?;
            items.push(item);
        }
        let list = Value::from(items);
        self.charge_all(&list, false)?;
        Ok(list)
    }

    /// Charges what adding or multiplying two values makes.
    fn growth(&self, left: &Value, right: &Value) -> Result<(), Error> {
        let len = |v: &Value| v.as_str().map(str::len).or_else(|| v.len());
        match (len(left), len(right)) {
            (Some(a), Some(b)) => self.charge(a.saturating_add(b)),
            (Some(n), None) => self.charge(n.saturating_mul(right.as_usize().unwrap_or(1))),
            (None, Some(n)) => self.charge(n.saturating_mul(left.as_usize().unwrap_or(1))),
            (None, None) => Ok(()),
        }
    }

    /// Charges what a replacement makes.
    fn replacement(&self, text: &str, from: &str, to: &str) -> Result<(), Error> {
        let n = if from.is_empty() { text.len() + 1 } else { text.len() / from.len() };
        self.charge(text.len().saturating_add(n.saturating_mul(to.len())))
    }

    /// Charges what joining a value's items makes.
    fn joining(&self, items: &Value, separator: &str) -> Result<(), Error> {
        self.charge_all(items, true)?;
        self.charge(items.len().unwrap_or(0).saturating_mul(separator.len()))
    }
}

/// Whether a value is one of Jinja's variables with attributes, the only values that can change.
fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace"))
}

fn refused(reason: &'static str) -> Error {
    Error::new(ErrorKind::OutOfFuel, reason)
}

/// Compiles a template into a program with checks.
pub(super) fn compile(source: &str) -> Result<Instructions<'_>, Error> {
    let spaces = WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };
    let parsed = parse(source, "chat_template", Default::default(), spaces)?;
    let mut generator = CodeGenerator::new("chat_template", source);
    generator.compile_stmt(&parsed);
    let (instructions, _) = generator.finish();
    guard(&instructions)
}

/// Renders a template in an environment that [`install`] has prepared.
pub(super) fn render<'e>(environment: &'e Environment<'e>, source: &'e str, context: Value) -> Result<String, Error> {
    let (program, blocks) = (compile(source)?, BTreeMap::new());
    let mut text = String::new();
    let mut out = make_string_output(&mut text);
    Vm::new(environment).eval(&program, context, &blocks, &mut out, AutoEscape::None)?;
    Ok(text)
}

/// The program with checks.
fn guard<'s>(program: &Instructions<'s>) -> Result<Instructions<'s>, Error> {
    use Instruction as I;
    /// No place among the engine's cached filters.
    const UNCACHED: u8 = !0;
    let unsupported = |what: &'static str| Err(Error::new(ErrorKind::InvalidOperation, what));
    let mut guarded = Instructions::new(program.name(), program.source());
    let mut places = Vec::with_capacity(program.len() + 1);
    for (at, instruction) in (0..).map_while(|at| Some((at, program.get(at)?))) {
        places.push(guarded.len() as u32);
        let line = program.get_line(at).unwrap_or(0).try_into().unwrap_or(u16::MAX);
        let mut add = |instruction: I<'s>| {
            guarded.add_with_line(instruction, line);
        };
        let check = |name: &'static str, n: u16| I::ApplyFilter(name, Some(n), UNCACHED);
        let mut checked = |name: &'static str, n: u16| {
            add(check(name, n));
            add(I::UnpackList(n.into()));
            add(instruction.clone());
        };
        match instruction {
            I::EmitRaw(text) => {
                add(I::LoadConst(Value::from(*text)));
                add(I::Emit);
            }
            I::Add | I::Mul => {
                checked(GROWTH, 2);
                add(check(RESULT, 1));
            }
            I::StringConcat | I::In | I::Eq | I::Ne | I::Lt | I::Lte | I::Gt | I::Gte => checked(OPERANDS, 2),
            I::Slice => {
                checked(SLICED, 4);
                add(check(RESULT, 1));
            }
            I::GetItem => {
                add(check(KEY, 1));
                add(I::GetItem);
            }
            I::SetAttr(_) => {
                add(I::Swap);
                add(check(ATTRIBUTE, 1));
                add(I::Swap);
                add(instruction.clone());
            }
            I::BuildList(_) | I::BuildMap(_) => {
                add(instruction.clone());
                add(check(RESULT, 1));
            }
            I::ApplyFilter(name, Some(n), _) => {
                if CONSTANT_TIME.contains(name) {
                    add(instruction.clone());
                } else {
                    checked(OPERANDS, *n);
                }
                add(check(RESULT, 1));
            }
            I::PerformTest(_, Some(n), _) => checked(OPERANDS, *n),
            I::CallFunction(_, Some(_)) | I::CallMethod(_, Some(_)) | I::CallObject(Some(_)) => {
                add(instruction.clone());
                add(check(RESULT, 1));
            }
            I::CompareAndPreserve(_) => return unsupported("chained comparisons are not supported"),
            I::CallBlock(_) | I::LoadBlocks | I::Include(_) | I::ExportLocals | I::FastSuper => {
                return unsupported("a chat template is a single template");
            }
            I::PushAutoEscape => return unsupported("autoescape is not supported"),
            I::UnpackLists(_)
            | I::MergeKwargs(_)
            | I::ApplyFilter(_, None, _)
            | I::PerformTest(_, None, _)
            | I::CallFunction(_, None)
            | I::CallMethod(_, None)
            | I::CallObject(None) => return unsupported("arguments from a list or map are not supported"),
            other => add(other.clone()),
        }
    }
    places.push(guarded.len() as u32);
    for at in 0..guarded.len() as u32 {
        if let Some(
            I::Iterate(to)
            | I::Jump(to)
            | I::JumpIfFalse(to)
            | I::JumpIfFalseOrPop(to)
            | I::JumpIfTrueOrPop(to)
            | I::BuildMacro(_, to, _),
        ) = guarded.get_mut(at)
        {
            let place = places.get(*to as usize);
            *to = *place.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "a jump leaves the program"))?;
        }
    }
    Ok(guarded)
}

/// Gives an environment the checks, and what needs a check of its own.
pub(super) fn install(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    /// The operands for `UnpackList`, which puts the first of a list on top.
    fn again(operands: Rest<Value>) -> Value {
        operands.iter().rev().cloned().collect::<Vec<_>>().into()
    }
    let m = meter.clone();
    environment.add_filter(GROWTH, move |operands: Rest<Value>| -> Result<Value, Error> {
        if let [left, right] = &operands[..] {
            m.growth(left, right)?;
        }
        Ok(again(operands))
    });
    let m = meter.clone();
    environment.add_filter(OPERANDS, move |operands: Rest<Value>| -> Result<Value, Error> {
        operands.iter().try_for_each(|operand| m.charge_all(operand, true))?;
        Ok(again(operands))
    });
    let m = meter.clone();
    environment.add_filter(SLICED, move |operands: Rest<Value>| -> Result<Value, Error> {
        let len = operands.first().and_then(|v| v.as_str().map(str::len).or_else(|| v.len())).unwrap_or(0);
        m.charge(len)?;
        if len == 0 {
            // Backwards the engine would panic.
            return Ok(again(Rest(operands.iter().take(3).cloned().chain([Value::from(())]).collect())));
        }
        Ok(again(operands))
    });
    environment.add_filter(KEY, |key: Value| match key.kind() {
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => Err(refused("a list or map is no key")),
        _ => Ok(key),
    });
    let m = meter.clone();
    environment.add_filter(RESULT, move |value: Value| m.result(value));
    let m = meter.clone();
    environment.add_filter(ATTRIBUTE, move |value: Value| {
        if is_namespace(&value) { Err(refused("a namespace is put into a structure")) } else { m.result(value) }
    });
    let m = meter.clone();
    environment.set_formatter(move |out, _, value| match value.as_str() {
        Some(text) => {
            m.charge(text.len())?;
            out.write_str(text).map_err(Error::from)
        }
        None if value.is_undefined() => Ok(()),
        None => {
            m.charge_all(value, true)?;
            let shown = value.to_string();
            m.charge(shown.len())?;
            out.write_str(&shown).map_err(Error::from)
        }
    });

    let m = meter.clone();
    environment.add_filter("replace", move |text: &str, from: &str, to: &str| {
        m.replacement(text, from, to).map(|()| text.replace(from, to))
    });
    let (m, join) = (meter.clone(), Value::from_function(filters::join));
    environment.add_filter("join", move |state: &State, args: Rest<Value>| -> Result<Value, Error> {
        if let Some(items) = args.first() {
            m.joining(items, args.get(1).and_then(|s| s.as_str()).unwrap_or_default())?;
        }
        join.call(state, &args)
    });
    let m = meter.clone();
    environment.set_unknown_method_callback(move |state, value, method, args| {
        m.charge_all(value, method != "get" && value.as_str().is_some())?;
        args.iter().try_for_each(|arg| m.charge_all(arg, true))?;
        let text = |value: Option<&Value>| value.and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        match (method, value.as_str()) {
            ("replace", Some(whole)) => m.replacement(whole, &text(args.first()), &text(args.get(1)))?,
            ("join", Some(separator)) => args.iter().try_for_each(|items| m.joining(items, separator))?,
            // Here the engine would not come back.
            ("count", Some(whole)) if text(args.first()).is_empty() => return Ok((whole.chars().count() + 1).into()),
            ("format", Some(_)) => return Err(ErrorKind::UnknownMethod.into()),
            _ => {}
        }
        pycompat::unknown_method_callback(state, value, method, args)
    });
}
