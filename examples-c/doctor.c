// Checks a device with a model, on this machine: one line a check, and what is at fault where one fails.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "common.h"

static const char *const USAGE = "usage: doctor " SETUP_USAGE " [--seed N] [--json]\n"
                                 "  --seed  chooses tokens and draws (0)\n"
                                 "  --json  print one object: device, checks, at_fault, healthy\n"
                                 "The status is 0 only if all checks hold, 3 if none fails but some cannot be run here, else 1.\n";

static const char *const NAMES[] = {"",          "logits buffer", "token flow", "cache",    "position",
                                    "attention", "tokenizer",     "sampling",   "backends", "repetition"};
static const char *const OUTCOMES[] = {"", "ok", "FAILED", "skipped"};

typedef struct report {
    int json, n_checks;
    const char *path, *device;
} report;

static int32_t on_check(const kigo_check *check, void *user_data)
{
    report *r = user_data;
    const char *outcome = OUTCOMES[check->outcome];
    // Only now: what failed before the first check prints nothing here.
    if (r->n_checks == 0 && r->json)
        printf("{\"device\": \"%s\", \"checks\": [", r->device);
    else if (r->n_checks == 0)
        printf("%s on %s\n", r->path, r->device);
    if (r->json) {
        printf("%s\n  {\"number\": %d, \"name\": \"%s\", \"outcome\": \"%s\", \"figure\": ", r->n_checks == 0 ? "" : ",",
               (int)check->number, check->name, outcome);
        json_number(check->figure);
        printf(", \"bound\": ");
        json_number(check->bound);
        printf(", \"seconds\": ");
        json_number(check->seconds);
        printf(", \"text\": ");
        json_string(check->text, check->text_len);
        putchar('}');
    } else if (check->outcome == KIGO_OUTCOME_SKIPPED) {
        printf("%d %-14s%-8s%s (%.1f s)\n", (int)check->number, check->name, outcome, check->text, check->seconds);
    } else {
        printf("%d %-14s%-8s%.3g (at most %.3g): %s (%.1f s)\n", (int)check->number, check->name, outcome, check->figure,
               check->bound, check->text, check->seconds);
    }
    r->n_checks++;
    return flush_output();
}

int main(int argc, char **argv)
{
    setup s = {.path = NULL};
    report r = {.json = 0};
    kigo_doctor_options options = {.struct_size = sizeof options, .on_check = on_check, .user_data = &r};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            r.json = 1;
        else if (strcmp(argv[i], "--seed") == 0)
            options.seed = whole_of(argc, argv, &i, UINT64_MAX);
        else if (!read_setup(&s, argc, argv, &i))
            unknown_option(argv[i]);
    }
    if (s.path == NULL)
        bad_usage("-m", "is missing");
    kigo_engine_options how = {.struct_size = sizeof how, .n_threads = s.n_threads, .device = s.device};
    how.device_len = s.device != NULL ? KIGO_STRLEN : 0;
    kigo_engine *engine;
    CHECK(kigo_engine_create(&how, &engine));
    char device[64];
    size_t n;
    CHECK(kigo_engine_device(engine, device, sizeof device, &n));

    r.path = s.path;
    r.device = device;
    double begin = now_seconds();
    kigo_diagnosis found = {.struct_size = sizeof found};
    kigo_status status = kigo_doctor(engine, s.path, KIGO_STRLEN, &options, &found);
    if (status == KIGO_STATUS_CANCELLED)
        finish_output(); // why on_check has stopped it
    CHECK(status);
    double seconds = now_seconds() - begin;
    int all_hold = found.n_failed == 0 && found.n_skipped == 0;
    const char *at_fault = found.at_fault < sizeof NAMES / sizeof *NAMES ? NAMES[found.at_fault] : "something new";
    if (r.json) {
        printf("\n], \"at_fault\": \"%s\", \"healthy\": %s, \"seconds\": ", at_fault, all_hold ? "true" : "false");
        json_number(seconds);
        printf("}\n");
    } else {
        printf("%d hold, %d failed, %d skipped, %.1f s", (int)found.n_holding, (int)found.n_failed, (int)found.n_skipped,
               seconds);
        printf(found.n_failed == 0 ? "\n" : "; at fault: %s\n", at_fault);
    }
    kigo_engine_destroy(engine);
    finish_output();
    return all_hold ? 0 : found.n_failed == 0 ? 3 : 1;
}
