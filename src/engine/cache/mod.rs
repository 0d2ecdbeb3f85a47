//! Cache pages: counted against the engine's memory, shared copy-on-write, found by the tokens that they hold.

mod again;
mod budget;
mod checkpoints;
mod counts;
mod leads;
mod marks;
mod pages;
mod parts;
mod pool;
mod pools;
mod prefix;
mod retained;
mod share;
mod state_run;
mod states;

pub use budget::CacheFacts;
pub(super) use budget::Charge;
pub(super) use checkpoints::HeldState;
pub use counts::CacheCounts;
pub(super) use leads::Awaited;
pub(super) use pages::Pages;
pub(super) use parts::is_read;
pub(super) use pool::PagePool;
pub(super) use pools::Pools;
pub(super) use prefix::PrefixKey;
pub(super) use share::{Found, Lead};
pub(super) use state_run::StateRun;
