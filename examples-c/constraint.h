// Output held to a grammar: the options, and what they come to. Behind common.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_CONSTRAINT_H
#define KIGO_EXAMPLES_CONSTRAINT_H

typedef struct constraint {
    int32_t kind; // KIGO_CONSTRAINT_*; 0: none
    const char *value;
} constraint;

#define CONSTRAINT_USAGE "[--json-schema S | --regex S | --grammar S]"
#define CONSTRAINT_HELP                                                                           \
    "  --json-schema, --regex, --grammar  hold the answer to a JSON schema, a regular\n"          \
    "             expression or a Lark grammar: its text, or @ and the file that it stands in\n"

// 1 if argv[*i] is one of them; it and its value have been read then.
static inline int read_constraint(constraint *c, int argc, char **argv, int *i)
{
    static const char *const OPTIONS[] = {"--json-schema", "--regex", "--grammar"};
    static const int32_t KINDS[] = {KIGO_CONSTRAINT_JSON_SCHEMA, KIGO_CONSTRAINT_REGEX, KIGO_CONSTRAINT_LARK};
    for (int k = 0; k < 3; k++)
        if (strcmp(argv[*i], OPTIONS[k]) == 0) {
            if (c->kind != 0)
                bad_usage(argv[*i], "cannot be there together with another grammar");
            c->value = value_of(argc, argv, i);
            c->kind = KINDS[k];
            return 1;
        }
    return 0;
}

// From the session's next token on.
static inline void set_constraint(kigo_session *session, const constraint *c)
{
    if (c->kind == 0)
        return;
    text file = {NULL, 0};
    if (c->value[0] == '@')
        file = read_file(c->value + 1);
    const char *grammar = c->value[0] == '@' ? file.data : c->value;
    CHECK(kigo_session_set_constraint(session, c->kind, grammar != NULL ? grammar : "", KIGO_STRLEN));
    free(file.data);
}

#endif // KIGO_EXAMPLES_CONSTRAINT_H
