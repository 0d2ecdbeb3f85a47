// Lists the devices of this machine: names for --device, UUIDs, memory, and what this build cannot use, with the reason.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "common.h"

static const char *const USAGE = "usage: devices [--json]\n"
                                 "  --json  print one object: devices, each with its facts\n";

static const char *const KINDS[] = {"", "cpu", "cuda"};

static void print_text(const kigo_device_facts *d)
{
    const double gib = (double)(1 << 30);
    printf("%-8s %s, %llu %s, %.1f GiB, %.1f free", d->device, d->name, (unsigned long long)d->n_cores,
           d->kind == KIGO_DEVICE_CPU ? "cores" : "multiprocessors", (double)d->total_bytes / gib, (double)d->free_bytes / gib);
    if (d->kind != KIGO_DEVICE_CPU)
        printf(", compute capability %u.%u\n         %s", d->compute_major, d->compute_minor, d->uuid_text);
    putchar('\n');
    if (d->reason[0] != '\0')
        printf("         %s%s\n", d->usable ? "" : "not usable: ", d->reason);
}

static void print_json(const kigo_device_facts *d)
{
    printf("{\"device\": ");
    json_string(d->device, strlen(d->device));
    printf(", \"kind\": \"%s\", \"name\": ", KINDS[d->kind == KIGO_DEVICE_CPU || d->kind == KIGO_DEVICE_CUDA ? d->kind : 0]);
    json_string(d->name, strlen(d->name));
    printf(", \"uuid\": ");
    json_string(d->uuid_text, strlen(d->uuid_text));
    printf(", \"cores\": %llu, \"total_bytes\": %llu, \"free_bytes\": %llu", (unsigned long long)d->n_cores,
           (unsigned long long)d->total_bytes, (unsigned long long)d->free_bytes);
    printf(", \"compute\": [%u, %u], \"usable\": %s, \"reason\": ", d->compute_major, d->compute_minor,
           d->usable ? "true" : "false");
    json_string(d->reason, strlen(d->reason));
    putchar('}');
}

int main(int argc, char **argv)
{
    int json = 0;
    size_t n;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            json = 1;
        else
            unknown_option(argv[i]);
    }
    CHECK(kigo_device_count(&n));
    if (json)
        printf("{\"devices\": [");
    for (size_t i = 0; i < n; i++) {
        kigo_device_facts facts = {.struct_size = sizeof facts};
        CHECK(kigo_device_info(i, &facts));
        if (!json) {
            print_text(&facts);
            continue;
        }
        printf(i == 0 ? "\n  " : ",\n  ");
        print_json(&facts);
    }
    if (json)
        printf("\n]}\n");
    finish_output();
    return 0;
}
