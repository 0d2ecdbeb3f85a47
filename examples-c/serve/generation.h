// Sequences of one prompt: computed, drawn from, and stopped. What chat and completions have in common.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_SERVE_GENERATION_H
#define KIGO_SERVE_GENERATION_H

#include "service.h"

#include <deque>

namespace serve {

// What a request says of how to generate.
struct parameters {
    kigo_sampling sampling{};
    std::vector<kigo_logit_bias> bias;
    std::vector<std::string> stop;
    uint64_t max_tokens = 0; // 0: until the context is full
    uint64_t n = 1;
    bool stream = false, include_usage = false;
    bool special = false; // control tokens are part of the text
    bool logprobs = false;
    uint64_t n_top = 0;
    std::shared_ptr<const kigo::constraint> held;
    const char *prompt_name = "prompt"; // the field that a prompt too long is named by
};

// The fields that both endpoints know, logprobs apart. Faults name the field.
parameters read_parameters(service &s, const fields &body);

// A token with the text that it has made complete, and log probabilities if they were asked for: its own, then the likeliest.
struct piece {
    uint32_t token; // KIGO_TOKEN_NONE: the last, with text that was held back
    std::string text;
    std::vector<kigo_logprob> logprobs;
};

// Gets the pieces of choice number `choice`, from a thread of its own; false stops that choice.
using piece_function = std::function<bool(size_t choice, const piece &p)>;

class generation {
public:
    generation(service &s, std::shared_ptr<exchange> request, const parameters &p, kigo::tokens prompt);
    ~generation();

    // Waits for its turn and computes the prompt. A fault, or nothing.
    void prefill();
    // Generates all choices, side by side. What one throws comes out when all have ended.
    void run(const piece_function &on_piece);

    // "stop" or "length".
    const char *finish(size_t choice) const { return choices_[choice].finish; }
    uint64_t n_prompt() const { return prompt_.size(); }
    uint64_t n_cached() const { return n_cached_; }
    uint64_t n_generated() const;

private:
    struct choice {
        explicit choice(pages &p) { holder.emplace(p); }
        std::optional<pages::holder> holder; // is given up after the session, whose pages somebody may wait for
        std::optional<kigo::session> session;
        std::optional<kigo::stream> text;
        kigo::tokens ids; // all tokens that it has, or is to have
        uint64_t n_generated = 0;
        const char *finish = "length";
        bool done = false;
    };
    kigo_sampling sampling_of(size_t number) const;
    void bring_up(choice &c);
    void make_room(choice &c, const kigo::error &e);
    void give_up(choice &c);
    void run_one(size_t number, const piece_function &on_piece);
    void generate(choice &c, size_t number, const piece_function &on_piece);
    bool take(choice &c, size_t number, uint32_t token, std::vector<kigo_logprob> logprobs, const piece_function &on_piece);
    bool full(const choice &c) const;

    service &service_;
    std::shared_ptr<exchange> request_;
    parameters p_;
    kigo::tokens prompt_;
    uint64_t n_cached_ = 0;
    std::optional<gate::place> place_;
    std::deque<choice> choices_; // never moved
    std::atomic<bool> first_{true};
};

// The log probabilities of a chat's tokens, as OpenAI has them.
json logprob_entry(const service &s, const piece &p);
json usage(uint64_t n_prompt, uint64_t n_cached, uint64_t n_generated);

} // namespace serve

#endif // KIGO_SERVE_GENERATION_H
