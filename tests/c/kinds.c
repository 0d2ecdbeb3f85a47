// Vocabularies of every kind, each alone in a file, through the calls that need no weights. An argument that begins with '='
// is a file whose vocabulary gives every text back; "slow" is none.
#include "check.h"

static const char *const TEXTS[] = {
    "One, two\n\nthree.",
    "\xc3\x9cn\xc3\xaf" "code \xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x98\x80",
    "  spaces   within ",
    "e\xcc\x81t\xc3\xa9 [CLS] <s> </s> <bos> <unk>",
    "",
};

static bool is_control(const kigo_model *model, uint32_t token)
{
    uint64_t flags;
    CHECK(kigo_token_flags(model, token, &flags) == KIGO_STATUS_OK);
    return (flags & KIGO_TOKEN_IS_CONTROL) != 0;
}

static void text(const kigo_model *model, const kigo_model_facts *facts, const char *given, bool exact)
{
    uint32_t ids[512], plain[512];
    size_t n, n_plain, n_text;
    CHECK(kigo_tokenize(model, given, KIGO_STRLEN, 0, plain, 512, &n_plain) == KIGO_STATUS_OK);
    CHECK(kigo_tokenize(model, given, KIGO_STRLEN, KIGO_TOKENIZE_ADD_SPECIAL, ids, 512, &n) == KIGO_STATUS_OK);
    const size_t before = (facts->flags & KIGO_MODEL_ADDS_BEGIN) != 0, behind = (facts->flags & KIGO_MODEL_ADDS_END) != 0;
    CHECK(n == before + n_plain + behind && memcmp(ids + before, plain, n_plain * sizeof *plain) == 0);
    CHECK(!before || (ids[0] == facts->begin_token && is_control(model, ids[0])));
    CHECK(!behind || (ids[n - 1] == facts->end_token && is_control(model, ids[n - 1])));
    CHECK(kigo_tokenize(model, given, KIGO_STRLEN, 0, NULL, 0, &n) == KIGO_STATUS_OK && n == n_plain);

    char back[1024];
    CHECK(kigo_detokenize(model, plain, n_plain, KIGO_TEXT_SPECIAL, back, sizeof back, &n_text) == KIGO_STATUS_OK);
    CHECK(!exact || strcmp(back, given) == 0);
    CHECK(n_plain == 0 || n_text > 0);
    for (size_t i = 0; i < n_plain; i++) {
        CHECK(plain[i] < facts->n_vocab && !(exact && is_control(model, plain[i])));
    }
}

static void vocabulary(const kigo_engine *engine, const char *path, bool exact)
{
    kigo_load_options options = {.struct_size = sizeof options, .flags = KIGO_LOAD_VOCABULARY};
    kigo_model *model;
    CHECK(kigo_model_load_file(engine, path, KIGO_STRLEN, &options, &model) == KIGO_STATUS_OK);
    kigo_model_facts facts = {.struct_size = sizeof facts};
    CHECK(kigo_model_info(model, &facts) == KIGO_STATUS_OK && (facts.flags & KIGO_MODEL_HAS_WEIGHTS) == 0);
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        text(model, &facts, TEXTS[i], exact);
    }
    size_t n;
    char bytes[1024];
    for (uint32_t token = 0; token < facts.n_vocab; token++) {
        CHECK(kigo_token_text(model, token, bytes, sizeof bytes, &n) == KIGO_STATUS_OK);
    }
    CHECK(kigo_token_text(model, (uint32_t)facts.n_vocab, bytes, sizeof bytes, &n) == KIGO_STATUS_INVALID_ARGUMENT);
    kigo_model_destroy(model);
}

int main(int argc, char **argv)
{
    CHECK(argc > 1);
    kigo_engine *engine = open_engine();
    for (int i = 1; i < argc && strcmp(argv[i], "slow") != 0; i++) {
        const bool exact = argv[i][0] == '=';
        vocabulary(engine, argv[i] + exact, exact);
    }
    kigo_engine_destroy(engine);
    return 0;
}
