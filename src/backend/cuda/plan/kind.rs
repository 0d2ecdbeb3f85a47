//! What a launch is counted as.

/// Declares the kinds, and the list of all.
macro_rules! kinds {
    ($($kind:ident),*) => {
        /// What is seen of a launch; measurements go by it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Kind {
            $($kind,)*
        }

        impl Kind {
            /// All of them, in the order of a step.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];
            /// How many there are.
            pub const N: usize = Kind::ALL.len();
        }
    };
}
kinds!(Embed, Qkv, Attend, Output, GateUp, Up, Glu, Down, Route, Experts, Logits);
