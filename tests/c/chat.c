// Conversations in JSON, and hostile templates, from a host's thread with a stack of 128 KiB.
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include <limits.h>

static const char *const MESSAGES = "[{\"role\": \"user\", \"content\": \"a\\u0041<|im_end|>\", \"n\": [1, 2.5, null]}]";

// before, n times link, after.
static char *chain(const char *before, const char *link, size_t n, const char *after)
{
    char *text = malloc(strlen(before) + n * strlen(link) + strlen(after) + 1);
    CHECK(text != NULL);
    char *at = stpcpy(text, before);
    for (size_t i = 0; i < n; i++)
        at = stpcpy(at, link);
    strcpy(at, after);
    return text;
}

static void hostile(const kigo_model *model)
{
    static const char *const CASES[][3] = {
        {"{{ ", "-", "1 }}"},
        {"{{ ", "not ", "1 }}"},
        {"{{ x", " + x", " }}"},
        {"{{ x", " and x", " }}"},
        {"{{ x", " ~ x", " }}"},
        {"{{ x", " ** x", " }}"},
        {"{{ x", ".a", " }}"},
        {"{{ x", "[0]", " }}"},
        {"{{ x", "|f", " }}"},
        {"{{ x", " if x else x", " }}"},
        {"{{ x", " is x", " }}"},
        {"{{ ", "(", ""},
        {"{{ ", "[", ""},
        {"{{ ", "{1:", ""},
        {"{{ ", "f(", ""},
        {"{% if x %}", "{% elif x %}", "{% endif %}"},
        {"", "{% if x %}", ""},
        {"", "{% set a %}", ""},
        {"", "{% macro a() %}", ""},
        {"{% set ", "(", "a = 1 %}"},
    };
    static const size_t SIZES[] = {100, 190, 380, 1300, 22000, 120000};
    uint32_t ids[8192];
    size_t needed;
    int n_refused = 0;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        for (size_t j = 0; j < sizeof SIZES / sizeof *SIZES; j++) {
            char *source = chain(CASES[i][0], CASES[i][1], SIZES[j], CASES[i][2]);
            kigo_chat_options options = {.struct_size = sizeof options};
            options.template_source = source;
            options.template_source_len = KIGO_STRLEN;
            const kigo_status status =
                kigo_chat_render_json(model, MESSAGES, KIGO_STRLEN, &options, ids, 8192, &needed);
            if (status != KIGO_STATUS_OK) {
                CHECK(status == KIGO_STATUS_INVALID_ARGUMENT);
                n_refused++;
            }
            CHECK(status == KIGO_STATUS_OK || needed == 0);
            // What is longest is refused for its size, whatever it would have come to.
            CHECK(SIZES[j] < 120000 || status != KIGO_STATUS_OK);
            CHECK(SIZES[j] < 120000 || strstr(kigo_last_error(), "large") != NULL);
            free(source);
        }
    }
    CHECK(n_refused > 60);
}

static void renders(const kigo_model *model)
{
    static const char *const SOURCE =
        "{% for m in messages %}{{ m.role }}: {{ m.content }} {{ m.n }}{% endfor %}{{ tools[0].a }}{{ mood }}"
        "{{ '>' if add_generation_prompt }}";
    kigo_chat_options options = {.struct_size = sizeof options, .flags = KIGO_CHAT_ADD_GENERATION_PROMPT};
    options.template_source = SOURCE, options.template_source_len = KIGO_STRLEN;
    options.tools_json = "[{\"a\": 7}]", options.tools_json_len = KIGO_STRLEN;
    options.variables_json = "{\"mood\": \"!\"}", options.variables_json_len = KIGO_STRLEN;
    char text[128];
    size_t n_text, n_ids, n_again;
    uint32_t ids[128];
    CHECK(kigo_chat_render_json_text(model, MESSAGES, KIGO_STRLEN, &options, text, sizeof text, &n_text) == KIGO_STATUS_OK);
    CHECK(strcmp(text, "user: aA<|im_end|> [1, 2.5, None]7!>") == 0 && n_text == strlen(text));
    CHECK(kigo_chat_render_json(model, MESSAGES, strlen(MESSAGES), &options, ids, 128, &n_ids) == KIGO_STATUS_OK);
    CHECK(kigo_chat_render_json(model, MESSAGES, KIGO_STRLEN, &options, NULL, 0, &n_again) == KIGO_STATUS_OK);
    CHECK(n_ids > 10 && n_again == n_ids);
    // What a message says is in it as text: the control token itself is not.
    for (size_t i = 0; i < n_ids; i++) {
        uint64_t flags;
        CHECK(kigo_token_flags(model, ids[i], &flags) == KIGO_STATUS_OK && (flags & KIGO_TOKEN_IS_CONTROL) == 0);
    }
    // What the template reads, in its order.
    static const char *const READS[] = {"messages", "tools", "mood", "add_generation_prompt"};
    for (size_t i = 0; i < 5; i++) {
        const kigo_status status = kigo_chat_variable(model, &options, i, text, sizeof text, &n_text);
        CHECK(status == (i < 4 ? KIGO_STATUS_OK : KIGO_STATUS_NOT_FOUND) && (i == 4 || strcmp(text, READS[i]) == 0));
    }
    CHECK(kigo_chat_variable(model, NULL, 0, text, sizeof text, &n_text) == KIGO_STATUS_OK && strcmp(text, "messages") == 0);
    // The model's own template, twice, and kigo_message for the same.
    const kigo_message message = {"user", KIGO_STRLEN, "hello", KIGO_STRLEN};
    for (int i = 0; i < 2; i++) {
        uint32_t same[128];
        CHECK(kigo_chat_render(model, &message, 1, 0, ids, 128, &n_ids) == KIGO_STATUS_OK);
        CHECK(kigo_chat_render_json(model, "[{\"role\": \"user\", \"content\": \"hello\"}]", KIGO_STRLEN, NULL, same, 128,
                                    &n_again) == KIGO_STATUS_OK);
        CHECK(n_ids == n_again && memcmp(ids, same, n_ids * sizeof *ids) == 0);
    }
}

static void *on_a_small_stack(void *model)
{
    renders(model);
    hostile(model);
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    kigo_engine *engine = open_engine();
    kigo_model *model = open_model(engine, argv[1]);
    on_stack(128, on_a_small_stack, model);
    kigo_model_destroy(model);
    kigo_engine_destroy(engine);
    return 0;
}
