//! Loading mixers with a state.

use super::load::{Filler, maybe, tasks};
use super::plan::RecurrentPlan;
use crate::alloc::reserve;
use crate::error::Result;
use crate::model::{Layer, LayerWeights, Tensor};

impl Filler<'_> {
    /// The matrices and vectors of a mixer with a state, if the layer has one.
    pub(super) fn recurrent(&mut self, layer: &Layer, l: &LayerWeights<'_>) -> Result<Option<RecurrentPlan>> {
        let (Some(mixer), Some(w)) = (&layer.recurrent, &l.recurrent) else { return Ok(None) };
        let (mut inputs, n_threads) = (Vec::new(), self.n_threads());
        reserve(&mut inputs, 4)?;
        for t in w.inputs() {
            inputs.push(self.next(&t)?);
        }
        let output = self.next(&w.output)?;
        // As the file has them, a channel's weights stand together.
        let (of_channel, (channels, len), mut conv) = (w.conv.floats()?, mixer.conv(), Vec::new());
        reserve(&mut conv, channels * len)?;
        conv.extend((0..channels * len).map(|i| of_channel[i % channels * len + i / channels]));
        let vector = |t: &Option<Tensor<'_>>| Ok(maybe(t)?.unwrap_or_default());
        Ok(Some(RecurrentPlan {
            input_tasks: tasks(&inputs.iter().collect::<Vec<_>>(), n_threads),
            output_tasks: tasks(&[&output], n_threads),
            inputs,
            output,
            conv,
            conv_bias: maybe(&w.conv_bias)?,
            a: vector(&w.a)?,
            dt: vector(&w.dt)?,
            d: vector(&w.d)?,
            norm: vector(&w.norm)?,
        }))
    }
}
