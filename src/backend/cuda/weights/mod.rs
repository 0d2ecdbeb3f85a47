//! A model's weights on the device: where they lie, and how they get there.

pub mod layout;
pub mod load;
pub mod roles;
