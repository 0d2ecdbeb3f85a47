// The fields of a request that say how to generate: see generation.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "generation.h"

namespace serve {

namespace {

void read_bias(const service &s, const fields &body, parameters &p) {
    const auto bias = body.object("logit_bias");
    if (!bias) return;
    for (const auto &[key, value] : bias->value().items()) {
        size_t end = 0;
        unsigned long token = ULONG_MAX;
        try {
            if (!key.empty() && key[0] >= '0' && key[0] <= '9') token = std::stoul(key, &end);
        } catch (const std::exception &) { // too many digits
            end = 0;
        }
        if (end != key.size() || token >= s.facts.n_vocab)
            throw invalid("logit_bias", dump(key) + " is not a token below " + std::to_string(s.facts.n_vocab));
        const double x = fields(bias->value(), bias->prefix()).number(key.c_str(), -100, 100).value_or(0);
        p.bias.push_back({static_cast<uint32_t>(token), static_cast<float>(x)});
    }
}

void read_sampling(service &s, const fields &body, kigo_sampling &out) {
    out = s.how.sampling;
    if (const auto x = body.number("temperature", 0, 2)) out.temperature = *x < 0.0001 ? 0 : static_cast<float>(*x);
    // To the library 0 means all of them.
    if (const auto x = body.number("top_p", 0, 1)) out.top_p = *x < 1e-6 ? 1e-6f : static_cast<float>(*x);
    if (const auto x = body.number("min_p", 0, 1)) out.min_p = static_cast<float>(*x);
    if (const auto x = body.whole("top_k", 0, UINT32_MAX)) out.top_k = static_cast<uint32_t>(*x);
    if (const auto x = body.number("frequency_penalty", -2, 2)) out.frequency_penalty = static_cast<float>(*x);
    if (const auto x = body.number("presence_penalty", -2, 2)) out.presence_penalty = static_cast<float>(*x);
    if (const auto x = body.number("repetition_penalty", 0.01, 100)) out.repetition_penalty = static_cast<float>(*x);
    out.penalty_window = KIGO_PENALTY_WINDOW_ALL;
    // OpenAI's seeds are signed.
    const json *seed = body.find("seed");
    if (seed != nullptr && seed->is_number_integer())
        out.seed = static_cast<uint64_t>(seed->is_number_unsigned() ? seed->get<uint64_t>()
                                                                    : static_cast<uint64_t>(seed->get<int64_t>()));
    else if (seed != nullptr)
        throw invalid("seed", "is not a whole number");
    else
        out.seed = s.new_seed();
}

} // namespace

parameters read_parameters(service &s, const fields &body) {
    parameters p;
    read_sampling(s, body, p.sampling);
    read_bias(s, body, p);
    p.stop = body.texts("stop", 16);
    p.n = body.whole("n", 1, std::min<uint64_t>(16, s.how.allowed.n_parallel)).value_or(1);
    p.stream = body.flag("stream").value_or(false);
    if (const auto options = body.object("stream_options")) {
        if (!p.stream) throw invalid("stream_options", "is for a stream, which this is not");
        p.include_usage = options->flag("include_usage").value_or(false);
    }
    return p;
}

} // namespace serve
