// The counter of examples-c/haiku.c on words whose syllables are known: numbers, and what haiku are made of.
#include "../../examples-c/syllables.h"
#include "check.h"

static const struct {
    const char *word;
    int n;
} WORDS[] = {
    {"zero", 2}, {"one", 1}, {"two", 1}, {"three", 1}, {"eight", 1}, {"nine", 1}, {"eleven", 3},
    {"twelve", 1}, {"thirteen", 2}, {"seventeen", 3}, {"eighteen", 2}, {"nineteen", 2}, {"twenty", 2},
    {"twenty-seven", 4}, {"fifty-five", 3}, {"forty-nine", 3}, {"the", 1}, {"time", 1}, {"clock", 1},
    {"whispers", 2}, {"whispered", 2}, {"little", 2}, {"gentle", 2}, {"dances", 2}, {"leaves", 1},
    {"faded", 2}, {"quiet", 2}, {"quietly", 3}, {"silence", 2}, {"silent", 2}, {"moment", 2},
    {"moments", 2}, {"morning", 2}, {"flowing", 2}, {"being", 2}, {"seeing", 2}, {"nation", 2}, {"lion", 2},
    {"people", 2}, {"ocean", 2}, {"evening", 2}, {"every", 2}, {"sky", 1}, {"beyond", 2}, {"yellow", 2},
    {"year", 1}, {"day", 1}, {"played", 1}, {"sleeping", 2}, {"hour", 1}, {"hours", 1}, {"minutes", 2},
    {"seconds", 2}, {"breathes", 1}, {"nature's", 2}, {"beautiful", 3}, {"beauty", 2}, {"eternal", 3},
    {"passes", 2}, {"ticking", 2}, {"tick", 1}, {"slowly", 2}, {"cruel", 2}, {"blue", 1}, {"true", 1},
    {"clues", 1}, {"heart", 1}, {"memories", 3}, {"memory", 3}, {"glorious", 3}, {"create", 2}, {"sees", 1},
    {"trees", 1}, {"breeze", 1}, {"gone", 1}, {"endless", 2}, {"shadows", 2}, {"sunrise", 2},
    {"butterfly", 3}, {"harmony", 3}, {"melody", 3}, {"radiant", 3}, {"winter", 2}, {"autumn", 2},
    {"don't", 1}, {"bridges", 2}, {"changes", 2}, {"washes", 2}, {"laughed", 1}, {"echoes", 2}, {"goes", 1},
    {"does", 1}, {"moonlit", 2}, {"I'm", 1}, {"it's", 1}, {"peaceful", 2}, {"flower", 2}, {"power", 2},
    {"table", 2}, {"apple", 2}, {"called", 1}, {"ago", 2}, {"area", 3}, {"mysterious", 4}, {"serene", 2},
    {"timeless", 2}, {"precious", 2}, {"patience", 2}, {"actual", 3}, {"usual", 3}, {"quiver", 2},
    {"language", 2}, {"guard", 1}, {"value", 2}, {"aglow", 2}, {"whole", 1}, {"eyes", 1}, {"rhyme", 1},
};

// Words drawn from a dictionary, which the rules were not made for one by one: nearly all are right.
static void sample(const char *path)
{
    char line[128];
    int n = 0, n_right = 0;
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        if (line[0] == '#')
            continue;
        char *end = strchr(line, ' ');
        CHECK(end != NULL);
        *end = '\0';
        int found = count_syllables(line), right = 0;
        for (char *number = end + 1; *number >= '0' && *number <= '9'; number += *number == ' ')
            right |= (int)strtol(number, &number, 10) == found;
        n_right += right;
        n++;
    }
    fclose(file);
    CHECK(n == 400 && n_right >= 395);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    sample(argv[1]);
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++) {
        int n = count_syllables(WORDS[i].word);
        if (n != WORDS[i].n) {
            fprintf(stderr, "%s: %d, not %d\n", WORDS[i].word, n, WORDS[i].n);
            return 1;
        }
    }
    CHECK(count_syllables("An old silent pond...") == 5);
    CHECK(count_syllables("A frog jumps into the pond,") == 7);
    CHECK(count_syllables("splash! Silence again.") == 5);
    CHECK(count_syllables("") == 0 && count_syllables(" -- 7!") == 0);
    return 0;
}
