//! What a caller sets, and what one draw sees.

/// How the next token is chosen. `Default` is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0: greedy.
    pub temperature: f32,
    /// Keep the k largest; 0: all.
    pub top_k: u32,
    /// Keep the smallest set with this share of the probability; 0 or 1: all.
    pub top_p: f32,
    /// Drop what is less likely than this share of the most likely; 0: none.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in the window; 1: off.
    pub repetition_penalty: f32,
    /// Subtracted once per occurrence in the window; 0: off.
    pub frequency_penalty: f32,
    /// Subtracted once if the token occurs in the window; 0: off.
    pub presence_penalty: f32,
    /// How many of the last tokens the penalties look at; 0: all of them.
    pub penalty_window: u32,
    /// Added to the logits: `(token, bias)`; `-inf` bans a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Key of the random numbers.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            temperature: 0.0,
            top_k: 0,
            top_p: 0.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_window: 64,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// One draw.
#[derive(Clone, Copy, Debug)]
pub struct SampleRequest<'a> {
    /// The parameters.
    pub params: &'a SamplingParams,
    /// All tokens of the session, prompt included; the penalties look at the last `penalty_window` of them.
    pub history: &'a [u32],
    /// Position the chosen token will have: the counter of the random numbers.
    pub position: u64,
}

/// The outcome of a draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: u32,
}
