//! A template as a tree. What chains are written as stands in lists, so that depth comes of brackets and blocks alone.

use std::sync::Arc;

use super::value::Value;

/// Statements, by their place in the program: blocks in one another are not values in one another, which would have to be
/// dropped by a recursion.
pub(crate) type Body = usize;

/// A name, by its place among the program's.
pub(crate) type Symbol = u32;

/// An expression.
#[derive(Debug)]
pub(crate) enum Expr {
    Const(Value),
    Name(Symbol),
    Tuple(Vec<Expr>),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    /// What is done to a value, one after the other.
    Chain(Box<Expr>, Vec<Link>),
    /// Operators of one rank, from the left.
    Binary(Box<Expr>, Vec<(&'static str, Expr)>),
    Unary(&'static str, Box<Expr>),
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(&'static str, Expr)>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    /// `value if test else otherwise`, where more tests may follow: the last is asked first.
    If(Box<Expr>, Vec<Conditional>),
}

/// An inline `if` behind a value.
#[derive(Debug)]
pub(crate) struct Conditional {
    pub test: Expr,
    pub otherwise: Option<Expr>,
    pub line: u32,
}

/// Something done to a value.
#[derive(Debug)]
pub(crate) enum Link {
    Attribute(Arc<str>),
    Item(Expr),
    Slice(Box<[Option<Expr>; 3]>),
    Call(Given),
    Filter(Arc<str>, Given),
    /// A test, and whether it is to fail.
    Test(Arc<str>, Given, bool),
}

/// The arguments of a call.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub positional: Vec<Expr>,
    pub named: Vec<(Arc<str>, Expr)>,
    /// `*list` and `**map`.
    pub list: Option<Box<Expr>>,
    pub map: Option<Box<Expr>>,
}

/// What is assigned to.
#[derive(Debug)]
pub(crate) enum Target {
    Name(Symbol),
    Tuple(Vec<Target>),
    Attribute(Symbol, Arc<str>),
}

/// A statement in a line.
#[derive(Debug)]
pub(crate) struct Statement {
    pub line: u32,
    pub kind: Kind,
}

/// What a statement does.
#[derive(Debug)]
pub(crate) enum Kind {
    Text(Arc<str>),
    Print(Expr),
    If(Vec<(Expr, Body)>, Option<Body>),
    /// A loop, by its place in the program.
    For(usize),
    Set(Target, Expr),
    SetBlock(Target, Vec<(Arc<str>, Given)>, Body),
    With(Vec<(Target, Expr)>, Body),
    Macro(usize),
    /// A call, with a macro that it may call.
    Call(usize, Expr),
    Filter(Vec<(Arc<str>, Given)>, Body),
    Block(usize),
    /// What has names of its own.
    Scope(Body),
    Break,
    Continue,
    /// What loads another template, and there is none.
    Load,
}

/// A loop.
#[derive(Debug)]
pub(crate) struct For {
    pub target: Target,
    pub items: Expr,
    pub test: Option<Expr>,
    pub recursive: bool,
    pub body: Body,
    pub otherwise: Option<Body>,
}

/// A macro, or what a call block gives to its call.
#[derive(Debug)]
pub(crate) struct Macro {
    pub name: Arc<str>,
    pub symbol: Symbol,
    pub parameters: Vec<(Symbol, Option<Expr>)>,
    pub names: Arc<[Arc<str>]>,
    /// Whether it reads `caller`, `kwargs` and `varargs`.
    pub reads: [bool; 3],
    pub body: Body,
}

/// A block of the template.
#[derive(Debug)]
pub(crate) struct Block {
    pub name: Arc<str>,
    pub scoped: bool,
    pub body: Body,
}

/// A template.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub names: Vec<Arc<str>>,
    pub bodies: Vec<Vec<Statement>>,
    pub body: Body,
    pub loops: Vec<For>,
    pub macros: Vec<Macro>,
    pub blocks: Vec<Block>,
}
