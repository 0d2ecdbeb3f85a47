// A host with megabytes of thread-local variables, which the C library puts onto the stack of every thread, the library's own too.
// Every call gives what it gives on the host's own threads.
//
//     locals MODEL
#include "calls.h"

static __thread unsigned char locals[6 << 20];

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    memset(locals, 7, sizeof locals);
    struct world w;
    open_world(&w, argv[1]);
    for (size_t i = 0; i < N_CALLS; i++)
        if (!(CALLS[i].flags & SLOW)) {
            uint64_t outcome = outcome_of(&w, &CALLS[i]);
            CHECK((CALLS[i].flags & VARIES) || outcome == outcome_of(&w, &CALLS[i]));
        }
    close_world(&w);
    for (size_t i = 0; i < sizeof locals; i++)
        CHECK(locals[i] == 7);
    return 0;
}
