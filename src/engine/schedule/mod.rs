//! Who runs the next pass over the weights, with whom, and how long it may be.

mod line;
mod order;
mod pace;
mod part;
mod watch;

pub(super) use line::{Line, Passes};
pub(super) use order::beside;
pub(super) use pace::Steppers;
pub(super) use part::Part;
