// Output held to a grammar: the options, and what they come to. Behind common.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_CONSTRAINT_H
#define KIGO_EXAMPLES_CONSTRAINT_H

typedef struct constraint {
    uint64_t kind; // KIGO_CONSTRAINT_*; 0: none
    const char *value;
    int compact; // no white space between parts of JSON
} constraint;

#define CONSTRAINT_USAGE "[--json-schema S | --regex S | --grammar S | --gbnf S] [--compact]"
#define CONSTRAINT_HELP                                                                           \
    "  --json-schema, --regex, --grammar, --gbnf  hold the answer to a JSON schema, a regular\n"  \
    "             expression, a Lark grammar or one in llama.cpp's format: its text, or @ and\n"      \
    "             the file that it stands in\n"                                                      \
    "  --compact  JSON by a schema has no white space between its parts\n"

// 1 if argv[*i] is one of them; it and its value have been read then.
static inline int read_constraint(constraint *c, int argc, char **argv, int *i)
{
    static const char *const OPTIONS[] = {"--json-schema", "--regex", "--grammar", "--gbnf"};
    static const uint64_t KINDS[] = {KIGO_CONSTRAINT_JSON_SCHEMA, KIGO_CONSTRAINT_REGEX, KIGO_CONSTRAINT_LARK,
                                     KIGO_CONSTRAINT_GBNF};
    if (strcmp(argv[*i], "--compact") == 0) {
        c->compact = 1;
        return 1;
    }
    for (int k = 0; k < 4; k++)
        if (strcmp(argv[*i], OPTIONS[k]) == 0) {
            if (c->kind != 0)
                bad_usage(argv[*i], "cannot be there together with another grammar");
            c->value = value_of(argc, argv, i);
            c->kind = KINDS[k];
            return 1;
        }
    return 0;
}

// Compiled for the model; NULL: there is none. Give it to kigo_constraint_destroy().
static inline kigo_constraint *open_constraint(const kigo_model *model, const constraint *c)
{
    if (c->kind == 0)
        return NULL;
    text file = {NULL, 0};
    if (c->value[0] == '@')
        file = read_file(c->value + 1);
    const char *grammar = c->value[0] == '@' ? file.data : c->value;
    kigo_constraint_options options = {.struct_size = sizeof options, .kind = c->kind, .text_len = KIGO_STRLEN};
    options.text = grammar != NULL ? grammar : "";
    options.flags = c->compact ? KIGO_CONSTRAINT_COMPACT : 0;
    kigo_constraint *compiled;
    CHECK(kigo_constraint_create(model, &options, &compiled));
    free(file.data);
    return compiled;
}

#endif // KIGO_EXAMPLES_CONSTRAINT_H
