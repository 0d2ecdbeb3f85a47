//! The plain f32 backend that the others are checked against; reads like the paper.
