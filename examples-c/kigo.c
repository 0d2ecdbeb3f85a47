// The programs under one name: `kigo chat ...` runs chat. They lie beside this one, or in the folder that they are installed in.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#define _POSIX_C_SOURCE 200809L

#include "kigo.h" // the version; nothing of the library is called

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef KIGO_LIBEXEC
#define KIGO_LIBEXEC "../libexec/kigo"
#endif

static const struct {
    const char *name, *does;
} PROGRAMS[] = {
    {"chat", "a conversation in the terminal"},
    {"generate", "goes on with a prompt, or answers it"},
    {"serve", "an OpenAI-compatible server"},
    {"batch", "answers the lines of a file, many at a time"},
    {"scheduler", "the same with a queue of its own"},
    {"bench", "tokens per second"},
    {"devices", "lists the devices of this machine"},
    {"doctor", "checks a device with a model"},
    {"compare", "compares two traces"},
    {"haiku", "writes a haiku"},
    {"window", "a conversation that outlasts its context"},
};
#define N_PROGRAMS (sizeof PROGRAMS / sizeof *PROGRAMS)

static void usage(FILE *out)
{
    fprintf(out, "usage: kigo PROGRAM ARGUMENTS...\n");
    for (size_t i = 0; i < N_PROGRAMS; i++)
        fprintf(out, "  %-9s %s\n", PROGRAMS[i].name, PROGRAMS[i].does);
    fprintf(out, "`kigo PROGRAM --help` has its options.\n");
}

// Runs the program in `folder`; returns where it cannot.
static void run_in(const char *folder, char **argv)
{
    char path[4200];
    int n = snprintf(path, sizeof path, "%s/%s", folder, argv[0]);
    if (n > 0 && (size_t)n < sizeof path)
        execv(path, argv);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    int asks = strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0;
    if (asks && argc == 2) {
        usage(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("kigo %d.%d.%d\n", KIGO_VERSION_MAJOR, KIGO_VERSION_MINOR, KIGO_VERSION_PATCH);
        return 0;
    }
    // `kigo help chat` is `kigo chat --help`.
    char help[] = "--help", *asked[] = {argv[asks ? 2 : 1], help, NULL};
    char **rest = asks ? asked : argv + 1;
    size_t known = 0;
    while (known < N_PROGRAMS && strcmp(PROGRAMS[known].name, rest[0]) != 0)
        known++;
    if (known == N_PROGRAMS) {
        fprintf(stderr, "%s: is no program of kigo's\n", rest[0]);
        usage(stderr);
        return 2;
    }
    char folder[4096], installed[4200];
    ssize_t len = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (len < 0) {
        fprintf(stderr, "/proc/self/exe: %s\n", strerror(errno));
        return 1;
    }
    folder[len] = '\0';
    *strrchr(folder, '/') = '\0';
    snprintf(installed, sizeof installed, "%s/%s", folder, KIGO_LIBEXEC);
    run_in(installed, rest);
    run_in(folder, rest);
    fprintf(stderr, "%s: is neither in %s nor in %s: %s\n", rest[0], installed, folder,
            strcmp(rest[0], "serve") == 0 ? "it was built without libcpp-httplib-dev and nlohmann-json3-dev" : strerror(errno));
    return 1;
}
