//! A chat template's compiled program, with the checks of [`bounds`](super::bounds) in front of and behind what needs
//! them, and owned: the engine's own borrows the source, so a render makes one of it anew, at a clone an instruction.

use std::collections::BTreeMap;

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, parse};
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::bounds::check as checks;
use super::weigh::{Excess, spaces, weigh};

/// Where the engine keeps no place among its cached filters.
const UNCACHED: u8 = !0;
/// Levels of lists and maps in a constant.
const MAX_CONSTANT_DEPTH: usize = 32;

/// Filters whose work goes beyond a look at each of their operands' elements.
const REPEATING: [&str; 5] = ["map", "select", "reject", "selectattr", "rejectattr"];
const SORTING: [&str; 6] = ["sort", "dictsort", "groupby", "unique", "min", "max"];
/// Filters that take text, into which the engine turns what they get: those whose text may be longer, and the others.
const CHANGING: [&str; 4] = ["lower", "upper", "title", "capitalize"];
const PRINTING: [&str; 7] = ["safe", "trim", "replace", "split", "lines", "escape", "e"];
/// Filters that look at no more than one element.
const SIZING: [&str; 4] = ["length", "count", "first", "last"];

/// Why there is no program.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is too much of something.
    Weight(Excess),
    /// The engine's parser says what is wrong, or what is not supported.
    Syntax(Error),
}

/// An instruction whose name, if it has one, is a place in a list.
enum Op {
    Plain(Instruction<'static>),
    Named(Named, u32),
}

#[derive(Clone, Copy)]
enum Named {
    StoreLocal,
    Lookup,
    GetAttr,
    SetAttr,
    Filter(u16, u8),
    Check(u16),
    Test(u16, u8),
    Function(u16),
    Method(u16),
    Macro(u32, u8),
    Enclose,
}

/// A compiled template.
pub(super) struct Program {
    ops: Vec<(Op, u16)>,
    names: Vec<Box<str>>,
}

fn unsupported(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// Compiles a source, on the stack of a rendering (`chat.rs`) at least.
pub(super) fn compile(source: &str) -> Result<Program, Refusal> {
    weigh(source).map_err(Refusal::Weight)?;
    let parsed = parse(source, "chat_template", Default::default(), spaces()).map_err(Refusal::Syntax)?;
    let mut generator = CodeGenerator::new("chat_template", source);
    generator.compile_stmt(&parsed);
    let (instructions, _) = generator.finish();
    check_frames(&instructions).map_err(Refusal::Syntax)?;
    Builder::default().program(&instructions).map_err(Refusal::Syntax)
}

/// Holds every jump to one depth of scopes, loops and captures: the engine does not close those that a `break` leaves.
fn check_frames(program: &Instructions<'_>) -> Result<(), Error> {
    use Instruction as I;
    let mut depths = Vec::with_capacity(program.len() + 1);
    let mut depth = 0_i64;
    for at in 0.. {
        depths.push(depth);
        match program.get(at) {
            Some(I::PushWith | I::PushLoop(_) | I::BeginCapture(_)) => depth += 1,
            Some(I::PopFrame | I::PopLoopFrame | I::EndCapture) => depth -= 1,
            Some(_) => {}
            None => break,
        }
    }
    for at in 0..program.len() {
        if let Some(
            I::Iterate(to)
            | I::Jump(to)
            | I::JumpIfFalse(to)
            | I::JumpIfFalseOrPop(to)
            | I::JumpIfTrueOrPop(to)
            | I::BuildMacro(_, to, _),
        ) = program.get(at as u32)
            && depths.get(*to as usize) != Some(&depths[at])
        {
            return Err(unsupported("break or continue out of a with, set or filter block is not supported"));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Builder<'s> {
    ops: Vec<(Op, u16)>,
    names: Vec<Box<str>>,
    places: BTreeMap<&'s str, u32>,
    line: u16,
}

impl<'s> Builder<'s> {
    fn plain(&mut self, instruction: Instruction<'static>) {
        self.ops.push((Op::Plain(instruction), self.line));
    }

    fn named(&mut self, named: Named, name: &'s str) {
        let place = *self.places.entry(name).or_insert_with(|| {
            self.names.push(name.into());
            self.names.len() as u32 - 1
        });
        self.ops.push((Op::Named(named, place), self.line));
    }

    /// A check of the topmost value, which it gives back.
    fn check(&mut self, name: &'static str) {
        self.named(Named::Check(1), name);
    }

    /// A check of the topmost n values, which it gives back as a list.
    fn operands(&mut self, name: &'static str, n: u16) {
        self.named(Named::Check(n), name);
        self.plain(Instruction::UnpackList(n.into()));
    }

    fn program(mut self, program: &Instructions<'s>) -> Result<Program, Error> {
        let mut places = Vec::with_capacity(program.len() + 1);
        for (at, instruction) in (0..).map_while(|at| Some((at, program.get(at)?))) {
            places.push(self.ops.len() as u32);
            self.line = program.get_line(at).unwrap_or(0).try_into().unwrap_or(u16::MAX);
            self.instruction(instruction)?;
        }
        places.push(self.ops.len() as u32);
        use Instruction as I;
        for (op, _) in &mut self.ops {
            if let Op::Plain(
                I::Iterate(to) | I::Jump(to) | I::JumpIfFalse(to) | I::JumpIfFalseOrPop(to) | I::JumpIfTrueOrPop(to),
            )
            | Op::Named(Named::Macro(to, _), _) = op
            {
                *to = *places.get(*to as usize).ok_or_else(|| unsupported("a jump leaves the program"))?;
            }
        }
        Ok(Program { ops: self.ops, names: self.names })
    }

    /// The instruction with its checks.
    fn instruction(&mut self, instruction: &Instruction<'s>) -> Result<(), Error> {
        use Instruction as I;
        match instruction {
            I::EmitRaw(text) => {
                self.plain(I::LoadConst(Value::from(*text)));
                self.plain(I::Emit);
            }
            I::StoreLocal(name) => self.named(Named::StoreLocal, name),
            I::Lookup(name) => self.named(Named::Lookup, name),
            I::GetAttr(name) => self.named(Named::GetAttr, name),
            I::Enclose(name) => self.named(Named::Enclose, name),
            I::SetAttr(name) => {
                self.plain(I::Swap);
                self.check(checks::ATTRIBUTE);
                self.plain(I::Swap);
                self.named(Named::SetAttr, name);
            }
            I::BuildMacro(name, to, flags) => {
                self.check(checks::MACRO);
                self.named(Named::Macro(*to, *flags), name);
            }
            I::LoadConst(value) => {
                if depth(value) > MAX_CONSTANT_DEPTH {
                    return Err(unsupported("a constant has too many levels"));
                }
                self.plain(I::LoadConst(value.clone()));
            }
            I::Add => {
                self.operands(checks::GROWTH, 2);
                self.plain(I::Add);
                self.check(checks::RESULT);
            }
            I::Mul => {
                self.operands(checks::PRODUCT, 2);
                self.plain(I::Mul);
                self.check(checks::RESULT);
            }
            I::StringConcat => {
                self.operands(checks::JOINED, 2);
                self.plain(I::StringConcat);
                self.check(checks::RESULT);
            }
            I::In => {
                self.operands(checks::CONTAINED, 2);
                self.plain(I::In);
            }
            I::Eq => self.comparison(I::Eq),
            I::Ne => self.comparison(I::Ne),
            I::Lt => self.comparison(I::Lt),
            I::Lte => self.comparison(I::Lte),
            I::Gt => self.comparison(I::Gt),
            I::Gte => self.comparison(I::Gte),
            // The engine's own panics on some bounds.
            I::Slice => {
                self.named(Named::Check(4), checks::SLICE);
                self.check(checks::RESULT);
            }
            I::GetItem => {
                self.operands(checks::ITEM, 2);
                self.plain(I::GetItem);
            }
            I::BuildList(n) => {
                self.plain(I::BuildList(*n));
                self.check(checks::RESULT);
            }
            I::BuildMap(n) => {
                self.plain(I::BuildMap(*n));
                self.check(checks::RESULT);
            }
            I::BuildKwargs(n) => self.plain(I::BuildKwargs(*n)),
            I::ApplyFilter(name, Some(n), id) => {
                match *name {
                    "default" | "d" => {}
                    name if SIZING.contains(&name) && *n == 1 => self.check(checks::SIZED),
                    name if REPEATING.contains(&name) => self.operands(checks::REPEATED, *n),
                    name if SORTING.contains(&name) => self.operands(checks::SORTED, *n),
                    name if CHANGING.contains(&name) => self.operands(checks::CHANGED, *n),
                    name if PRINTING.contains(&name) => self.operands(checks::PRINTED, *n),
                    _ => self.operands(checks::OPERANDS, *n),
                }
                self.named(Named::Filter(*n, *id), name);
                let shares = SIZING.contains(name) || matches!(*name, "default" | "d");
                self.check(if shares { checks::RESULT } else { checks::MADE });
            }
            I::PerformTest(name, Some(n), id) => {
                let contained = *name == "in" && *n == 2;
                self.operands(if contained { checks::CONTAINED } else { checks::OPERANDS }, *n);
                self.named(Named::Test(*n, *id), name);
            }
            I::CallFunction(name, Some(n)) => {
                self.named(Named::Function(*n), name);
                self.check(checks::MADE);
            }
            I::CallMethod(name, Some(n)) => {
                match (*name, n) {
                    // The engine divides by the number of arguments.
                    ("cycle", 1) => return Err(unsupported("cycle() needs an argument")),
                    ("changed" | "cycle", _) => self.operands(checks::OPERANDS, *n),
                    _ => {}
                }
                self.named(Named::Method(*n), name);
                self.check(checks::MADE);
            }
            I::CallObject(Some(n)) => {
                self.plain(I::CallObject(Some(*n)));
                self.check(checks::MADE);
            }
            I::CompareAndPreserve(_) => return Err(unsupported("chained comparisons are not supported")),
            I::CallBlock(_) | I::LoadBlocks | I::Include(_) | I::ExportLocals | I::FastSuper => {
                return Err(unsupported("a chat template is a single template"));
            }
            I::PushAutoEscape | I::PopAutoEscape => return Err(unsupported("autoescape is not supported")),
            I::UnpackLists(_)
            | I::MergeKwargs(_)
            | I::ApplyFilter(_, None, _)
            | I::PerformTest(_, None, _)
            | I::CallFunction(_, None)
            | I::CallMethod(_, None)
            | I::CallObject(None) => return Err(unsupported("arguments from a list or map are not supported")),
            I::UnpackList(n) => self.plain(I::UnpackList(*n)),
            I::Sub => self.plain(I::Sub),
            I::Div => self.plain(I::Div),
            I::IntDiv => self.plain(I::IntDiv),
            I::Rem => self.plain(I::Rem),
            I::Pow => self.plain(I::Pow),
            I::Neg => self.plain(I::Neg),
            I::Not => self.plain(I::Not),
            I::Emit => self.plain(I::Emit),
            I::PushLoop(flags) => {
                self.check(checks::SIZED);
                self.plain(I::PushLoop(*flags));
            }
            I::PushWith => self.plain(I::PushWith),
            I::Iterate(to) => self.plain(I::Iterate(*to)),
            I::PushDidNotIterate => self.plain(I::PushDidNotIterate),
            I::PopFrame => self.plain(I::PopFrame),
            I::PopLoopFrame => self.plain(I::PopLoopFrame),
            I::Jump(to) => self.plain(I::Jump(*to)),
            I::JumpIfFalse(to) => self.plain(I::JumpIfFalse(*to)),
            I::JumpIfFalseOrPop(to) => self.plain(I::JumpIfFalseOrPop(*to)),
            I::JumpIfTrueOrPop(to) => self.plain(I::JumpIfTrueOrPop(*to)),
            I::BeginCapture(mode) => self.plain(I::BeginCapture(*mode)),
            I::EndCapture => self.plain(I::EndCapture),
            I::DupTop => self.plain(I::DupTop),
            I::DiscardTop => self.plain(I::DiscardTop),
            I::FastRecurse => self.plain(I::FastRecurse),
            I::Swap => self.plain(I::Swap),
            I::Return => self.plain(I::Return),
            I::IsUndefined => self.plain(I::IsUndefined),
            I::GetClosure => self.plain(I::GetClosure),
        }
        Ok(())
    }

    fn comparison(&mut self, instruction: Instruction<'static>) {
        self.operands(checks::OPERANDS, 2);
        self.plain(instruction);
    }
}

/// Levels of lists and maps in a value that the compiler made.
fn depth(value: &Value) -> usize {
    if value.as_str().is_some() {
        return 0;
    }
    let Ok(items) = value.try_iter() else { return 0 };
    let is_map = value.kind() == ValueKind::Map;
    let below = |item: Value| if is_map { value.get_item(&item).map_or(0, |v| depth(&v)) } else { depth(&item) };
    1 + items.map(below).max().unwrap_or(0)
}

impl Program {
    /// The engine's form of it.
    pub fn instructions(&self) -> Instructions<'_> {
        let mut instructions = Instructions::new("chat_template", "");
        for (op, line) in &self.ops {
            let instruction = match op {
                Op::Plain(instruction) => instruction.clone(),
                Op::Named(named, name) => {
                    let name: &str = self.names.get(*name as usize).map_or("", |name| name);
                    match *named {
                        Named::StoreLocal => Instruction::StoreLocal(name),
                        Named::Lookup => Instruction::Lookup(name),
                        Named::GetAttr => Instruction::GetAttr(name),
                        Named::SetAttr => Instruction::SetAttr(name),
                        Named::Filter(n, id) => Instruction::ApplyFilter(name, Some(n), id),
                        Named::Check(n) => Instruction::ApplyFilter(name, Some(n), UNCACHED),
                        Named::Test(n, id) => Instruction::PerformTest(name, Some(n), id),
                        Named::Function(n) => Instruction::CallFunction(name, Some(n)),
                        Named::Method(n) => Instruction::CallMethod(name, Some(n)),
                        Named::Macro(to, flags) => Instruction::BuildMacro(name, to, flags),
                        Named::Enclose => Instruction::Enclose(name),
                    }
                }
            };
            instructions.add_with_line(instruction, *line);
        }
        instructions
    }
}
