// Generation by hand, a line of JSON for each token with its log probabilities. Behind common.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_LOGPROBS_H
#define KIGO_EXAMPLES_LOGPROBS_H

static inline void json_logprob(const kigo_logprob *p)
{
    printf("\"id\": %lu, \"before\": ", (unsigned long)p->token);
    json_number(p->before);
    printf(", \"after\": ");
    json_number(p->after); // null: the sampler never draws it
}

// Up to `most` tokens: the one that is chosen, the text that it completes, and the `n_top` likeliest in its place.
static inline void generate_logprobs(const kigo_model *model, kigo_session *session, size_t most, size_t n_top)
{
    kigo_logprob *shown = resize(NULL, (n_top + 1) * sizeof *shown);
    kigo_stream *stream;
    kigo_stream_text piece = {.struct_size = sizeof piece};
    CHECK(kigo_stream_create(model, NULL, &stream));
    for (size_t i = 0; i < most; i++) {
        uint32_t token;
        uint64_t flags;
        size_t needed;
        CHECK(kigo_session_sample(session, &token));
        kigo_logprobs_options which = {.struct_size = sizeof which, .tokens = &token, .n_tokens = 1, .n_top = n_top};
        CHECK(kigo_session_token_logprobs(session, &which, shown, n_top + 1, &needed));
        CHECK(kigo_token_flags(model, token, &flags));
        putchar('{');
        json_logprob(&shown[0]);
        if ((flags & KIGO_TOKEN_IS_END) == 0)
            CHECK(kigo_stream_push(stream, token, &piece));
        else
            CHECK(kigo_stream_finish(stream, &piece));
        printf(", \"text\": ");
        json_string(piece.text, piece.text_len);
        printf(", \"top\": [");
        for (size_t t = 1; t <= n_top; t++) {
            printf(t == 1 ? "{" : ", {");
            json_logprob(&shown[t]);
            putchar('}');
        }
        printf("]}\n");
        flush_output();
        if ((flags & KIGO_TOKEN_IS_END) != 0)
            break;
        kigo_status status = kigo_session_step(session, token);
        if (status == KIGO_STATUS_CONTEXT_FULL)
            break;
        CHECK(status);
    }
    kigo_stream_destroy(stream);
    free(shown);
}

#endif // KIGO_EXAMPLES_LOGPROBS_H
