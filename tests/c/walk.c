// Every function once, as it is meant to be used.
#include "check.h"
#include <math.h>

struct progress {
    uint64_t done, total;
    int calls;
};

static int32_t on_progress(uint64_t done, uint64_t total, void *user_data)
{
    struct progress *progress = user_data;
    CHECK(done >= progress->done && done <= total);
    *progress = (struct progress){done, total, progress->calls + 1};
    return 0;
}

static int32_t on_log(const kigo_log_event *event, void *user_data)
{
    CHECK(event->struct_size == sizeof *event && event->reserved == 0);
    CHECK(event->level >= KIGO_LOG_LEVEL_ERROR && event->level <= KIGO_LOG_LEVEL_INFO);
    CHECK(strlen(event->text) == event->text_len && strchr(event->text, '\n') == NULL);
    CHECK(strstr(event->text, "loaded") == NULL || (strncmp(event->text, "model ", 6) == 0 && atoi(event->text + 6) > 0));
    ++*(int *)user_data;
    return 0;
}

struct answer {
    char text[4096];
    size_t n_bytes, n_tokens;
};

static int32_t on_token(uint32_t token, const char *text, size_t text_len, void *user_data)
{
    struct answer *answer = user_data;
    CHECK(answer->n_bytes + text_len < sizeof answer->text && text[text_len] == 0);
    memcpy(answer->text + answer->n_bytes, text, text_len + 1);
    answer->n_bytes += text_len;
    answer->n_tokens += token != KIGO_TOKEN_NONE;
    return 0;
}

static void versions(void)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", KIGO_VERSION_MAJOR, KIGO_VERSION_MINOR, KIGO_VERSION_PATCH);
    CHECK(strcmp(kigo_version(), text) == 0);
    CHECK(kigo_abi_version() == KIGO_ABI_VERSION);
    CHECK(strcmp(kigo_status_name(KIGO_STATUS_OK), "KIGO_STATUS_OK") == 0);
    CHECK(strcmp(kigo_status_name(KIGO_STATUS_NOT_FOUND), "KIGO_STATUS_NOT_FOUND") == 0);
    CHECK(strcmp(kigo_status_name(-1), "KIGO_STATUS_UNKNOWN") == 0);
    CHECK(strcmp(kigo_status_name(INT32_MAX), "KIGO_STATUS_UNKNOWN") == 0);
    CHECK(strcmp(kigo_last_error(), "") == 0);
}

static void metadata(const kigo_model *model)
{
    char text[256];
    size_t needed;
    CHECK(kigo_model_architecture(model, text, sizeof text, &needed) == KIGO_STATUS_OK);
    CHECK(strcmp(text, "qwen2") == 0 && needed == 5);
    CHECK(kigo_model_quantization(model, text, sizeof text, &needed) == KIGO_STATUS_OK);
    CHECK(strcmp(text, "Q8_0") == 0);
    CHECK(kigo_model_meta(model, "general.architecture", KIGO_STRLEN, text, sizeof text, &needed) == KIGO_STATUS_OK);
    CHECK(strcmp(text, "qwen2") == 0);
    int32_t type;
    CHECK(kigo_model_meta_type(model, "tokenizer.ggml.tokens", KIGO_STRLEN, &type) == KIGO_STATUS_OK);
    CHECK(type == KIGO_META_ARRAY);
    CHECK(kigo_model_meta(model, "tokenizer.ggml.tokens", KIGO_STRLEN, NULL, 0, &needed) == KIGO_STATUS_OK);
    char *array = malloc(needed + 1);
    CHECK(array != NULL);
    CHECK(kigo_model_meta(model, "tokenizer.ggml.tokens", KIGO_STRLEN, array, needed + 1, &needed) == KIGO_STATUS_OK);
    CHECK(strlen(array) == needed && array[0] == '[' && array[needed - 1] == ']');
    free(array);

    kigo_model_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_model_info(model, &facts) == KIGO_STATUS_OK);
    bool seen = false;
    for (size_t i = 0; i < facts.n_meta; i++) {
        CHECK(kigo_model_meta_key(model, i, text, sizeof text, &needed) == KIGO_STATUS_OK);
        CHECK(kigo_model_meta_type(model, text, needed, &type) == KIGO_STATUS_OK);
        seen |= strcmp(text, "tokenizer.chat_template") == 0 && type == KIGO_META_STRING;
    }
    CHECK(seen);
}

static void tokens(const kigo_model *model)
{
    static const char text[] = "Hello, world <|im_end|> \xF0\x9F\x8D\x83";
    uint32_t ids[128], parsed[128];
    size_t n_ids, n_parsed, n_bytes;
    CHECK(kigo_tokenize(model, text, KIGO_STRLEN, 0, ids, 128, &n_ids) == KIGO_STATUS_OK);
    CHECK(kigo_tokenize(model, text, sizeof text - 1, KIGO_TOKENIZE_PARSE_SPECIAL | KIGO_TOKENIZE_ADD_SPECIAL, parsed, 128,
                        &n_parsed) == KIGO_STATUS_OK);
    CHECK(n_parsed < n_ids);
    char back[128];
    CHECK(kigo_detokenize(model, ids, n_ids, 0, back, sizeof back, &n_bytes) == KIGO_STATUS_OK);
    CHECK(strcmp(back, text) == 0);
    CHECK(kigo_detokenize(model, parsed, n_parsed, KIGO_TEXT_SPECIAL, back, sizeof back, &n_bytes) == KIGO_STATUS_OK);
    CHECK(strcmp(back, text) == 0);

    kigo_model_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_model_info(model, &facts) == KIGO_STATUS_OK);
    uint64_t flags;
    CHECK(kigo_token_flags(model, facts.end_token, &flags) == KIGO_STATUS_OK);
    CHECK(flags == (KIGO_TOKEN_IS_CONTROL | KIGO_TOKEN_IS_END));
    CHECK(kigo_token_flags(model, ids[0], &flags) == KIGO_STATUS_OK && flags == 0);
    CHECK(kigo_token_text(model, facts.end_token, back, sizeof back, &n_bytes) == KIGO_STATUS_OK);
    CHECK(strcmp(back, "<|im_end|>") == 0);

    // Normalized (NFC), a text of 16 bytes is one of 48; the header says how many ids that can be.
    CHECK(kigo_tokenize(model, "\xF0\x9D\x85\xA0\xF0\x9D\x85\xA0\xF0\x9D\x85\xA0\xF0\x9D\x85\xA0", 16, 0, ids, 128, &n_ids)
          == KIGO_STATUS_OK);
    CHECK(n_ids > 16 + 2 && n_ids <= 3 * 16 + 8);

    // An empty text is none.
    CHECK(kigo_tokenize(model, NULL, 0, 0, ids, 128, &n_ids) == KIGO_STATUS_OK && n_ids == 0);
    CHECK(kigo_detokenize(model, NULL, 0, 0, back, sizeof back, &n_bytes) == KIGO_STATUS_OK && n_bytes == 0);
}

static void chat(const kigo_model *model)
{
    const kigo_message messages[2] = {
        {"system", KIGO_STRLEN, "Be brief.", KIGO_STRLEN},
        {"user", 4, "<|im_end|>", 10},
    };
    uint32_t ids[256];
    size_t n_ids, n_text;
    char text[256];
    uint64_t open = KIGO_CHAT_ADD_GENERATION_PROMPT;
    CHECK(kigo_chat_render(model, messages, 2, open, ids, 256, &n_ids) == KIGO_STATUS_OK);
    CHECK(kigo_chat_render_text(model, messages, 2, open, text, sizeof text, &n_text) == KIGO_STATUS_OK);
    CHECK(strcmp(text, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|im_end|><|im_end|>\n"
                       "<|im_start|>assistant\n") == 0);
    // The template's own control tokens are five; the one that the user wrote is none.
    size_t n_control = 0;
    for (size_t i = 0; i < n_ids; i++) {
        uint64_t flags;
        CHECK(kigo_token_flags(model, ids[i], &flags) == KIGO_STATUS_OK);
        n_control += (flags & KIGO_TOKEN_IS_CONTROL) != 0;
    }
    CHECK(n_control == 5);
}

static void session(const kigo_model *model)
{
    kigo_sampling sampling = {.struct_size = sizeof sampling, .temperature = 1.0f, .seed = 7, .top_k = 40};
    kigo_session_options options = {.struct_size = sizeof options, .n_ctx = 128, .sampling = &sampling};
    kigo_session *session, *other;
    CHECK(kigo_session_create(model, &options, &session) == KIGO_STATUS_OK);
    CHECK(kigo_session_create(model, &options, &other) == KIGO_STATUS_OK);

    uint32_t prompt[5] = {1, 2, 3, 4, 5}, token, again, ids[128];
    size_t n;
    CHECK(kigo_session_prefill(session, prompt, 5) == KIGO_STATUS_OK);
    for (int i = 0; i < 10; i++) {
        CHECK(kigo_session_sample(session, &token) == KIGO_STATUS_OK);
        CHECK(kigo_session_sample(session, &again) == KIGO_STATUS_OK && token == again);
        CHECK(kigo_session_step(session, token) == KIGO_STATUS_OK);
    }
    CHECK(kigo_session_n_tokens(session, &n) == KIGO_STATUS_OK && n == 15);
    CHECK(kigo_session_tokens(session, ids, 128, &n) == KIGO_STATUS_OK && n == 15);
    CHECK(memcmp(ids, prompt, sizeof prompt) == 0);

    // The same in one call, streamed.
    struct answer answer = {.n_bytes = 0};
    kigo_generate_options how = {
        .struct_size = sizeof how,
        .max_tokens = 10,
        .on_token = on_token,
        .user_data = &answer,
        .flags = KIGO_GENERATE_IGNORE_END | KIGO_TEXT_SPECIAL,
    };
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(kigo_session_prefill(other, prompt, 5) == KIGO_STATUS_OK);
    CHECK(kigo_session_generate(other, &how, &generated) == KIGO_STATUS_OK);
    CHECK(generated.n_tokens == 10 && answer.n_tokens == 10 && generated.stop_reason == KIGO_STOP_MAX_TOKENS);
    CHECK(generated.stop_token == KIGO_TOKEN_NONE);
    uint32_t generated_ids[128];
    CHECK(kigo_session_tokens(other, generated_ids, 128, &n) == KIGO_STATUS_OK && n == 15);
    CHECK(memcmp(ids, generated_ids, 15 * sizeof *ids) == 0);

    // A stream makes the same text of them.
    kigo_stream *stream;
    struct answer streamed = {.n_bytes = 0};
    kigo_stream_options stream_options = {.struct_size = sizeof stream_options, .flags = KIGO_TEXT_SPECIAL};
    kigo_stream_text piece = {.struct_size = sizeof piece};
    CHECK(kigo_stream_create(model, &stream_options, &stream) == KIGO_STATUS_OK);
    for (int i = 5; i < 15; i++) {
        CHECK(kigo_stream_push(stream, ids[i], &piece) == KIGO_STATUS_OK && !piece.stopped);
        on_token(ids[i], piece.text, piece.text_len, &streamed);
    }
    CHECK(kigo_stream_finish(stream, &piece) == KIGO_STATUS_OK);
    on_token(KIGO_TOKEN_NONE, piece.text, piece.text_len, &streamed);
    kigo_stream_destroy(stream);
    CHECK(strcmp(answer.text, streamed.text) == 0);

    // Logits are the same for the same tokens; log probabilities sum to one.
    size_t n_logits;
    CHECK(kigo_session_logits(session, NULL, 0, &n_logits) == KIGO_STATUS_OK && n_logits == 512);
    float *a = malloc(n_logits * sizeof *a), *b = malloc(n_logits * sizeof *b);
    CHECK(a != NULL && b != NULL);
    CHECK(kigo_session_logits(session, a, n_logits, &n) == KIGO_STATUS_OK && n == n_logits);
    CHECK(kigo_session_logits(other, b, n_logits, &n) == KIGO_STATUS_OK);
    CHECK(memcmp(a, b, n_logits * sizeof *a) == 0);
    CHECK(kigo_session_logprobs(session, b, n_logits, &n) == KIGO_STATUS_OK && n == n_logits);
    double sum = 0;
    for (size_t i = 0; i < n_logits; i++)
        sum += exp(b[i]);
    CHECK(fabs(sum - 1) < 1e-4);

    // The chosen token and the likeliest, by the model and by the sampler.
    uint32_t chosen;
    kigo_logprob shown[4] = {{0, 0, 0}};
    CHECK(kigo_session_sample(session, &chosen) == KIGO_STATUS_OK);
    kigo_logprobs_options which = {.struct_size = sizeof which, .tokens = &chosen, .n_tokens = 1, .n_top = 2};
    CHECK(kigo_session_token_logprobs(session, &which, shown, 4, &n) == KIGO_STATUS_OK && n == 3);
    CHECK(shown[0].token == chosen && shown[0].before == b[chosen] && shown[0].after > -INFINITY);
    CHECK(shown[1].before >= shown[2].before && shown[1].before >= shown[0].before && shown[3].before == 0);
    which.flags = KIGO_LOGPROBS_BY_AFTER;
    CHECK(kigo_session_token_logprobs(session, &which, shown, 3, &n) == KIGO_STATUS_OK && n == 3);
    CHECK(shown[1].after >= shown[2].after && shown[1].after >= shown[0].after && shown[1].after <= 0);

    // Back to the prompt and another way: greedy.
    CHECK(kigo_session_truncate(session, 4) == KIGO_STATUS_OK);
    CHECK(kigo_session_sample(session, &token) == KIGO_STATUS_INVALID_STATE && token == 0);
    CHECK(kigo_session_set_sampling(session, NULL) == KIGO_STATUS_OK);
    CHECK(kigo_session_step(session, 5) == KIGO_STATUS_OK);
    CHECK(kigo_session_sample(session, &token) == KIGO_STATUS_OK);
    CHECK(kigo_session_logits(session, a, n_logits, &n) == KIGO_STATUS_OK);
    for (size_t i = 0; i < n_logits; i++)
        CHECK(a[i] < a[token] || (a[i] == a[token] && i >= token));
    free(a);
    free(b);

    CHECK(kigo_session_cancel(session) == KIGO_STATUS_OK);
    CHECK(kigo_session_clear_cancel(session) == KIGO_STATUS_OK);
    CHECK(kigo_session_step(session, token) == KIGO_STATUS_OK);

    // Until the context is full.
    how = (kigo_generate_options){.struct_size = sizeof how, .flags = KIGO_GENERATE_IGNORE_END};
    CHECK(kigo_session_generate(session, &how, &generated) == KIGO_STATUS_OK);
    CHECK(generated.stop_reason == KIGO_STOP_CONTEXT_FULL && generated.n_tokens == 128 - 6);
    kigo_session_destroy(session);
    kigo_session_destroy(other);
}

static void stop_strings(const kigo_model *model)
{
    uint32_t z;
    size_t n;
    CHECK(kigo_tokenize(model, "Z", 1, 0, &z, 1, &n) == KIGO_STATUS_OK);
    const kigo_logit_bias bias = {z, 1000.0f};
    kigo_sampling sampling = {.struct_size = sizeof sampling, .logit_bias = &bias, .n_logit_bias = 1};
    kigo_session *session = open_session(model);
    CHECK(kigo_session_set_sampling(session, &sampling) == KIGO_STATUS_OK);
    const kigo_string stop[2] = {{"no", KIGO_STRLEN}, {"ZZZ", 3}};
    struct answer answer = {.n_bytes = 0};
    kigo_generate_options how = {
        .struct_size = sizeof how, .stop = stop, .n_stop = 2, .on_token = on_token, .user_data = &answer};
    kigo_generated generated = {.struct_size = sizeof generated};
    CHECK(kigo_session_generate(session, &how, &generated) == KIGO_STATUS_OK);
    CHECK(generated.stop_reason == KIGO_STOP_STRING && generated.stop_index == 1 && generated.n_tokens == 3);
    CHECK(answer.n_bytes == 0 && answer.n_tokens == 3);

    kigo_stream_options stream_options = {.struct_size = sizeof stream_options, .stop = stop, .n_stop = 2};
    kigo_stream *stream;
    kigo_stream_text piece = {.struct_size = sizeof piece};
    CHECK(kigo_stream_create(model, &stream_options, &stream) == KIGO_STATUS_OK);
    for (int i = 0; i < 3; i++) {
        CHECK(kigo_stream_push(stream, z, &piece) == KIGO_STATUS_OK);
        CHECK(piece.text_len == 0 && piece.text[0] == 0 && piece.stopped == (i == 2));
    }
    CHECK(piece.stop_index == 1);
    kigo_stream_destroy(stream);
    kigo_session_destroy(session);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    versions();

    int n_lines = 0;
    kigo_engine_options options = {.struct_size = sizeof options,
                                   .device = "cpu",
                                   .device_len = KIGO_STRLEN,
                                   .n_threads = 2,
                                   .memory_cap_bytes = 64u << 20,
                                   .log = on_log,
                                   .log_user_data = &n_lines};
    kigo_engine *engine;
    CHECK(kigo_engine_create(&options, &engine) == KIGO_STATUS_OK);
    CHECK(n_lines == 1);
    char name[16];
    size_t needed;
    CHECK(kigo_engine_device(engine, name, sizeof name, &needed) == KIGO_STATUS_OK && strcmp(name, "cpu") == 0);

    kigo_plan plan = {.struct_size = sizeof plan};
    CHECK(kigo_model_plan(engine, argv[1], KIGO_STRLEN, NULL, &plan) == KIGO_STATUS_OK);
    CHECK(plan.weights_bytes > 0 && plan.scratch_bytes > 0 && plan.cache_bytes > 0);
    CHECK(plan.n_tokens == 512 && plan.state_bytes == 0 && plan.checkpoint_bytes == 0 && plan.cache_spare_bytes == 0);
    const uint64_t page = plan.cache_bytes / 8;
    kigo_plan_options plan_options = {.struct_size = sizeof plan_options, .n_tokens = 65};
    CHECK(kigo_model_plan(engine, argv[1], KIGO_STRLEN, &plan_options, &plan) == KIGO_STATUS_OK);
    CHECK(plan.n_tokens == 65 && plan.cache_bytes == 2 * page);
    kigo_plan refused = {.struct_size = sizeof refused, .weights_bytes = 1};
    plan_options.n_tokens = 513;
    CHECK(kigo_model_plan(engine, argv[1], KIGO_STRLEN, &plan_options, &refused) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(strcmp(kigo_last_error(), "n_tokens is 513; expected at most the model's 512") == 0 && refused.weights_bytes == 0);

    struct progress progress = {0, 0, 0};
    kigo_load_options load = {.struct_size = sizeof load, .progress = on_progress, .progress_user_data = &progress};
    kigo_model *model;
    CHECK(kigo_model_load_file(engine, argv[1], strlen(argv[1]), &load, &model) == KIGO_STATUS_OK);
    CHECK(progress.calls > 0 && progress.done == progress.total && progress.total > 0);
    CHECK(n_lines == 2);

    kigo_engine_facts engine_facts = {.struct_size = sizeof engine_facts};
    CHECK(kigo_engine_info(engine, &engine_facts) == KIGO_STATUS_OK);
    CHECK(engine_facts.n_threads == 2 && engine_facts.memory_cap_bytes == 64u << 20);
    CHECK(engine_facts.memory_used_bytes == plan.weights_bytes + plan.scratch_bytes);

    kigo_model_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_model_info(model, &facts) == KIGO_STATUS_OK);
    CHECK(facts.n_vocab == 512 && facts.n_ctx_train == 512 && facts.n_layers == 2 && facts.begin_token == 509);
    CHECK(facts.flags == (KIGO_MODEL_HAS_CHAT_TEMPLATE | KIGO_MODEL_HAS_WEIGHTS | KIGO_MODEL_HAS_LOGITS));
    CHECK(facts.state_bytes == 0 && facts.weights_bytes == plan.weights_bytes);
    CHECK(facts.decode_bytes > 0 && facts.decode_bytes < facts.file_bytes && facts.n_parameters > facts.n_vocab);

    uint64_t cache_bytes, kv_bytes = 0;
    for (size_t i = 0; i < facts.n_layers; i++) {
        kigo_layer_facts layer = {.struct_size = sizeof layer};
        CHECK(kigo_model_layer_info(model, i, &layer) == KIGO_STATUS_OK);
        CHECK(layer.mixers == KIGO_MIXER_ATTENTION && layer.window == 0 && layer.kv_layer == i && layer.state_bytes == 0);
        CHECK(layer.n_heads == 2 * layer.n_kv_heads && layer.k_head_dim == layer.v_head_dim && layer.n_rot == layer.k_head_dim);
        CHECK(layer.n_ff > 0 && layer.n_experts == 0 && layer.n_experts_used == 0 && layer.n_ff_expert == 0);
        kv_bytes += layer.kv_bytes_per_token;
    }
    kigo_layer_facts no_layer = {.struct_size = sizeof no_layer, .n_ff = 1};
    CHECK(kigo_model_layer_info(model, 2, &no_layer) == KIGO_STATUS_INVALID_ARGUMENT && no_layer.n_ff == 0);
    CHECK(strcmp(kigo_last_error(), "layer is 2; expected below the model's 2") == 0);
    CHECK(kigo_model_cache_bytes(model, 65, &cache_bytes) == KIGO_STATUS_OK && cache_bytes == 128 * kv_bytes);
    CHECK(cache_bytes == plan.cache_bytes);
    CHECK(kigo_model_cache_bytes(model, 0, &cache_bytes) == KIGO_STATUS_OK && cache_bytes == 0);

    metadata(model);
    tokens(model);
    chat(model);
    session(model);
    stop_strings(model);

    // The same model from memory gives the same logits; the memory may go at once.
    size_t n_bytes;
    unsigned char *bytes = read_file(argv[1], &n_bytes);
    kigo_model *copy;
    CHECK(kigo_model_load_memory(engine, bytes, n_bytes, NULL, &copy) == KIGO_STATUS_OK);
    memset(bytes, 0, n_bytes);
    free(bytes);
    kigo_session *a = open_session(model), *b = open_session(copy);
    float logits_a[512], logits_b[512];
    CHECK(kigo_session_logits(a, logits_a, 512, &needed) == KIGO_STATUS_OK);
    CHECK(kigo_session_logits(b, logits_b, 512, &needed) == KIGO_STATUS_OK);
    CHECK(memcmp(logits_a, logits_b, sizeof logits_a) == 0);
    metadata(copy);

    kigo_session_destroy(a);
    kigo_session_destroy(b);
    kigo_model_destroy(copy);
    kigo_model_destroy(model);
    CHECK(kigo_engine_info(engine, &engine_facts) == KIGO_STATUS_OK && engine_facts.memory_used_bytes == 0);
    kigo_engine_destroy(engine);
    return 0;
}
