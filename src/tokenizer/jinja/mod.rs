//! Jinja as chat templates mean it: what jinja2 does in transformers' environment (an immutable sandbox with `trim_blocks`,
//! `lstrip_blocks`, loop controls and `generation`), over Python's values.
//!
//! A template from anywhere ends in a text or an error: nesting is bounded where it is read and where it runs, and all else
//! is counted in a [`Meter`] ahead of what takes it. What is not done here is refused with its name, never done otherwise.
//! Text of control tokens is made of marks ([`marks`](super::marks)), which every operation takes for the text that they
//! stand for.

mod arguments;
mod arithmetic;
mod ast;
mod call;
mod case;
mod classes;
mod compare;
mod context;
mod evaluate;
mod expressions;
mod fault;
mod filters;
mod filters_list;
mod filters_text;
mod format;
mod free;
mod functions;
mod json;
mod lexer;
mod links;
mod literals;
mod lookup;
mod markup;
mod meter;
mod methods;
mod names;
mod namespace;
mod numbers;
mod parser;
mod percent;
mod print;
mod render;
mod scopes;
mod shape;
mod spec;
mod statements;
mod strings;
mod tests;
mod token;
mod value;

pub(super) use ast::Program;
pub(super) use context::{Context, is_space};
pub(super) use fault::Fault;
pub(super) use free::free_names;
pub(super) use meter::{Limits, Meter};
pub(super) use render::Renderer;
pub(super) use value::{Map, Value};

/// Reads a template, whose text and constants get their marks from `mark`; what is wrong has its line.
pub(super) fn parse(source: &str, mark: &dyn Fn(&str) -> Value) -> Result<Program, (Fault, u32)> {
    parser::Parser::read(&lexer::normalized(source), mark)
}
