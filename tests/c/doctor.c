// The call behind examples-c/doctor.c: every check is reported, can stop it, and misuse has a status.
#include "check.h"
#include <math.h>

struct seen {
    int32_t numbers[16];
    int n, stop_at;
};

static int32_t on_check(const kigo_check *check, void *user_data)
{
    struct seen *seen = user_data;
    CHECK(check->struct_size == sizeof *check && seen->n < 16);
    CHECK(strlen(check->text) == check->text_len && check->text_len > 0 && strlen(check->name) > 0);
    CHECK(check->outcome >= KIGO_OUTCOME_HOLDS && check->outcome <= KIGO_OUTCOME_SKIPPED);
    // Random weights say what they like; all else must hold.
    CHECK(check->outcome == KIGO_OUTCOME_HOLDS || check->number == KIGO_CHECK_REPETITION);
    CHECK(check->seconds >= 0 && !isnan(check->figure) && !isnan(check->bound));
    seen->numbers[seen->n++] = check->number;
    return seen->n == seen->stop_at;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    bool slow = argc > 2; // under valgrind: only the beginning
    kigo_engine *engine = open_engine();
    struct seen seen = {.stop_at = slow ? 1 : 0};
    kigo_doctor_options options = {.struct_size = sizeof options, .on_check = on_check, .user_data = &seen};
    kigo_diagnosis found = {.struct_size = sizeof found};
    kigo_status status = kigo_doctor(engine, argv[1], KIGO_STRLEN, &options, &found);
    if (!slow) {
        CHECK(status == KIGO_STATUS_OK && seen.n == 9);
        for (int i = 0; i < 9; i++)
            CHECK(seen.numbers[i] == i + 1);
        CHECK(found.n_holding + found.n_failed == 9 && found.n_skipped == 0);
        CHECK(found.at_fault == (found.n_failed == 0 ? 0u : (uint64_t)KIGO_CHECK_REPETITION));
        seen = (struct seen){.stop_at = 2};
        status = kigo_doctor(engine, argv[1], KIGO_STRLEN, &options, &found);
        CHECK(seen.n == 2);
    }
    CHECK(status == KIGO_STATUS_CANCELLED && strcmp(kigo_last_error(), "cancelled") == 0);
    CHECK(found.n_holding == 0 && found.struct_size == sizeof found);

    CHECK(kigo_doctor(NULL, argv[1], KIGO_STRLEN, NULL, &found) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_doctor(engine, NULL, KIGO_STRLEN, NULL, &found) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_doctor(engine, argv[1], KIGO_STRLEN, NULL, NULL) == KIGO_STATUS_INVALID_ARGUMENT);
    CHECK(kigo_doctor(engine, "/no/such.gguf", KIGO_STRLEN, NULL, &found) == KIGO_STATUS_IO);
    found.struct_size = 3;
    CHECK(kigo_doctor(engine, argv[1], KIGO_STRLEN, NULL, &found) == KIGO_STATUS_INVALID_ARGUMENT);
    kigo_engine_destroy(engine);
    return 0;
}
