//! A dense feed-forward part, which an expert is too.

/// The function on the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `0.5 x (1 + erf(x / sqrt 2))`.
    Gelu,
    /// `max(x, 0)^2`.
    Relu2,
    /// `g sigmoid(1.702 g) (clamp(u, -7, 7) + 1)` with `g = min(x, 7)`, of the gate `x` and up `u` (gpt-oss); gated only.
    ClampedSwiglu,
}

/// `Wdown (activation(Wgate h) * (Wup h))`, or `Wdown activation(Wup h)` where it is not gated; biases where the tensors exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dense {
    /// Rows of up, and of gate.
    pub width: usize,
    /// See [`Activation`].
    pub activation: Activation,
    /// Whether there is a gate.
    pub gated: bool,
}
