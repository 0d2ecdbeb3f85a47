// Answers taken apart, from tokens and from text, and calls held to their tools: what a host does with them, from a thread with
// a stack of 128 KiB.
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include <limits.h>

static const char *const SOURCE =
    "{% for m in messages %}{{ m.content }}{% if m.tool_calls %}<tool_call>\n{\"name\": \"{{ m.tool_calls[0].function.name }}\", "
    "\"arguments\": {{ m.tool_calls[0].function.arguments | tojson }}}\n</tool_call>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<think>\n{% elif false %}</think>{% endif %}";
static const char *const TOOLS =
    "[{\"type\": \"function\", \"function\": {\"name\": \"add\", \"parameters\": {\"type\": \"object\", \"properties\": {"
    "\"a\": {\"enum\": [1, 22]}, \"b\": {\"enum\": [\"x\", \"}\"]}}, \"required\": [\"a\", \"b\"], \"additionalProperties\": false}}}]";

struct answer {
    char thinking[64], text[256], id[64], name[64], arguments[256];
    int n_calls, n_ended, n_malformed, n_budget, ended;
};

static void append(char *to, size_t size, const kigo_chat_event *event)
{
    CHECK(strlen(event->text) == event->text_len && strlen(to) + event->text_len < size);
    strcat(to, event->text);
}

static void take(struct answer *answer, const kigo_chat_event *events, size_t n)
{
    CHECK(events != NULL || n == 0);
    for (const kigo_chat_event *e = events; e < events + n; e++) {
        CHECK(e->text != NULL && (e->flags == 0 || e->kind == KIGO_CHAT_CALL_ENDED));
        switch (e->kind) {
        case KIGO_CHAT_THINKING: append(answer->thinking, sizeof answer->thinking, e); break;
        case KIGO_CHAT_ANSWER: append(answer->text, sizeof answer->text, e); break;
        case KIGO_CHAT_CALL_BEGUN: CHECK(e->call == (uint32_t)answer->n_calls++); break;
        case KIGO_CHAT_CALL_ID: append(answer->id, sizeof answer->id, e); break;
        case KIGO_CHAT_CALL_NAME: append(answer->name, sizeof answer->name, e); break;
        case KIGO_CHAT_CALL_ARGUMENTS: append(answer->arguments, sizeof answer->arguments, e); break;
        case KIGO_CHAT_CALL_ENDED:
            answer->n_ended++;
            answer->n_malformed += (e->flags & KIGO_CHAT_EVENT_MALFORMED) != 0;
            break;
        case KIGO_CHAT_BUDGET_USED: answer->n_budget++; break;
        case KIGO_CHAT_ENDED: answer->ended++; break;
        default: CHECK(false);
        }
    }
}

static kigo_chat_options options_of(const char *source, const char *tools)
{
    kigo_chat_options options = {.struct_size = sizeof options, .template_source = source, .tools_json = tools};
    options.template_source_len = KIGO_STRLEN, options.tools_json_len = KIGO_STRLEN;
    return options;
}

static void texts_are_taken_apart(kigo_chat_parser *parser)
{
    static const char ANSWER[] =
        "no <tool_call>\n</think>\n\nyes\n<tool_call>\n{\"name\": \"add\", \"id\": 7, \"arguments\": {\"b\": \"}\\\"\"}}\n</tool_call>"
        "\n<tool_call>{\"name\": \"two\", \"arguments\": {]";
    const kigo_chat_event *events;
    size_t n;
    for (size_t step = 1; step < sizeof ANSWER; step = step * 3 + 1) {
        struct answer answer = {0};
        for (size_t at = 0; at < sizeof ANSWER - 1; at += step) {
            size_t len = sizeof ANSWER - 1 - at < step ? sizeof ANSWER - 1 - at : step;
            CHECK(kigo_chat_parser_push_text(parser, ANSWER + at, len, &events, &n) == KIGO_STATUS_OK);
            take(&answer, events, n);
        }
        CHECK(answer.ended == 0);
        CHECK(kigo_chat_parser_finish(parser, &events, &n) == KIGO_STATUS_OK);
        take(&answer, events, n);
        CHECK(strcmp(answer.thinking, "no <tool_call>") == 0 && strcmp(answer.text, "yes]") == 0);
        CHECK(strcmp(answer.name, "addtwo") == 0 && strcmp(answer.id, "7") == 0);
        CHECK(strcmp(answer.arguments, "{\"b\": \"}\\\"\"}{") == 0);
        CHECK(answer.n_calls == 2 && answer.n_ended == 2 && answer.n_malformed == 1 && answer.ended == 1);
    }
}

static void thinking_has_a_budget(const kigo_model *model, kigo_chat_parser *parser)
{
    struct answer answer = {0};
    const kigo_chat_event *events;
    uint32_t ids[64], end[16];
    size_t n, n_ids, n_end;
    CHECK(kigo_chat_parser_set_thinking_budget(parser, 3) == KIGO_STATUS_OK);
    CHECK(kigo_tokenize(model, "a b c d e f g h", KIGO_STRLEN, 0, ids, 64, &n_ids) == KIGO_STATUS_OK && n_ids > 3);
    CHECK(kigo_chat_parser_thinking_end(parser, end, 16, &n_end) == KIGO_STATUS_OK && n_end > 0);
    size_t used = 0;
    for (; answer.n_budget == 0; used++) {
        CHECK(used < n_ids && kigo_chat_parser_push(parser, ids[used], &events, &n) == KIGO_STATUS_OK);
        take(&answer, events, n);
    }
    CHECK(used == 3);
    for (size_t i = 0; i < n_end; i++) {
        CHECK(kigo_chat_parser_push(parser, end[i], &events, &n) == KIGO_STATUS_OK);
        take(&answer, events, n);
    }
    CHECK(kigo_chat_parser_push_text(parser, "answer", KIGO_STRLEN, &events, &n) == KIGO_STATUS_OK);
    take(&answer, events, n);
    CHECK(answer.thinking[0] != 0 && strcmp(answer.text, "answer") == 0 && answer.n_budget == 1);
    // What ends a generation ends the message, and nothing comes behind it.
    kigo_model_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_model_info(model, &facts) == KIGO_STATUS_OK);
    CHECK(kigo_chat_parser_push(parser, facts.end_token, &events, &n) == KIGO_STATUS_OK);
    take(&answer, events, n);
    CHECK(answer.ended == 1);
    CHECK(kigo_chat_parser_push_text(parser, "more", KIGO_STRLEN, &events, &n) == KIGO_STATUS_OK && n == 0);
    CHECK(kigo_chat_parser_finish(parser, &events, &n) == KIGO_STATUS_OK && n == 0);
    CHECK(kigo_chat_parser_push(parser, facts.n_vocab, &events, &n) == KIGO_STATUS_INVALID_ARGUMENT && events == NULL && n == 0);
    CHECK(kigo_chat_parser_push_text(parser, "\xff", 1, &events, &n) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_chat_parser_set_thinking_budget(parser, 0) == KIGO_STATUS_OK);
}

// A random model that is held to its tools writes calls that the parser gives back.
static void calls_are_held(const kigo_model *model, kigo_chat_parser *parser)
{
    const kigo_chat_options chat = options_of(SOURCE, TOOLS);
    kigo_tools_options tools = {.struct_size = sizeof tools, .choice = KIGO_TOOLS_NAMED, .name = "add", .name_len = 3};
    tools.flags = KIGO_TOOLS_ONE_CALL | KIGO_CONSTRAINT_COMPACT;
    kigo_constraint *constraint;
    CHECK(kigo_constraint_create_tools(model, &chat, &tools, &constraint) == KIGO_STATUS_OK);
    for (uint64_t seed = 0; seed < 3; seed++) {
        kigo_session *session = open_session(model);
        const kigo_sampling sampling = {.struct_size = sizeof sampling, .temperature = 1.0f, .seed = seed};
        CHECK(kigo_session_set_sampling(session, &sampling) == KIGO_STATUS_OK);
        // The thinking that the prompt has opened is ended at once.
        uint32_t end[16];
        size_t n_end, n;
        CHECK(kigo_session_set_constraint(session, constraint) == KIGO_STATUS_OK);
        CHECK(kigo_chat_parser_thinking_end(parser, end, 16, &n_end) == KIGO_STATUS_OK);
        CHECK(kigo_session_prefill(session, end, n_end) == KIGO_STATUS_OK);
        struct answer answer = {0};
        const kigo_chat_event *events;
        for (size_t i = 0; i < n_end; i++)
            CHECK(kigo_chat_parser_push(parser, end[i], &events, &n) == KIGO_STATUS_OK);
        for (int i = 0; i < 400 && answer.ended == 0; i++) {
            uint32_t token;
            CHECK(kigo_session_sample(session, &token) == KIGO_STATUS_OK);
            CHECK(kigo_chat_parser_push(parser, token, &events, &n) == KIGO_STATUS_OK);
            take(&answer, events, n);
            if (answer.ended == 0)
                CHECK(kigo_session_step(session, token) == KIGO_STATUS_OK);
        }
        CHECK(answer.ended == 1 && answer.n_calls == 1 && answer.n_malformed == 0 && strcmp(answer.name, "add") == 0);
        CHECK(strncmp(answer.arguments, "{\"a\":1,\"b\":\"", 12) == 0 || strncmp(answer.arguments, "{\"a\":22,\"b\":\"", 13) == 0);
        CHECK(kigo_chat_parser_finish(parser, &events, &n) == KIGO_STATUS_OK && n == 0);
        kigo_session_destroy(session);
    }
    kigo_constraint_destroy(constraint);
    tools.name = "subtract", tools.name_len = KIGO_STRLEN;
    CHECK(kigo_constraint_create_tools(model, &chat, &tools, &constraint) == KIGO_STATUS_INVALID_ARGUMENT && constraint == NULL);
    CHECK(strstr(kigo_last_error(), "without a tool called \"subtract\"") != NULL);
    const kigo_chat_options plain = options_of("{{ messages[0].content }}", TOOLS);
    CHECK(kigo_constraint_create_tools(model, &plain, NULL, &constraint) == KIGO_STATUS_UNSUPPORTED);
    CHECK(strstr(kigo_last_error(), "plain") != NULL);
}

static void *on_a_small_stack(void *user_data)
{
    const kigo_model *model = user_data;
    kigo_chat_options chat = options_of(SOURCE, TOOLS);
    kigo_chat_parser *parser;
    kigo_chat_format format = {.struct_size = sizeof format};
    CHECK(kigo_chat_parser_create(model, &chat, &parser) == KIGO_STATUS_OK);
    CHECK(kigo_chat_parser_info(parser, &format) == KIGO_STATUS_OK && strcmp(format.family, "hermes") == 0);
    CHECK(format.flags == (KIGO_CHAT_FORMAT_CALLS | KIGO_CHAT_FORMAT_THINKING | KIGO_CHAT_FORMAT_OPENS_THINKING));
    texts_are_taken_apart(parser);
    thinking_has_a_budget(model, parser);
    calls_are_held(model, parser);
    kigo_chat_parser_destroy(parser);
    chat.tools_json = "{}";
    CHECK(kigo_chat_parser_create(model, &chat, &parser) == KIGO_STATUS_INVALID_ARGUMENT && parser == NULL);
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
