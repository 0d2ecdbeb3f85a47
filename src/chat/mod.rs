//! Answers taken apart: thinking, answer and calls told from each other as they come, in the way that the model's template
//! writes them.
//!
//! What a family writes is data (`syntax`), a file for each kind of it in `families`; a template is recognised by what it
//! renders (`detect`). One machine reads answers by that data (`machine`, and `call` for what is in a call).
//!
//! Invariants:
//! - what comes out does not depend on how the answer was cut into pushes, nor is anything of it lost: it is text, or in a call;
//! - a control token is never text, and where a mark is a control token, the same text in other tokens is no mark;
//! - what is held is bounded, and so is the time for a byte, whatever comes in.

mod call;
mod detect;
mod event;
mod families;
mod json;
mod lark;
mod literal;
mod machine;
mod mark;
mod nested;
mod object;
mod parser;
mod program;
mod syntax;
mod tools;
mod value;

pub use event::{Event, EventKind, Events};
pub use lark::ToolChoice;
pub use parser::{AnswerFormat, ChatFormat, ChatParser, MAX_PUSH};
