// Text in a terminal, its lines broken between words. Behind edit.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_WRAP_H
#define KIGO_EXAMPLES_WRAP_H

typedef struct wrapper {
    int on; // else all goes out as it comes
    size_t width, column;
    text word; // of the line so far
    int n_ticks, code;
} wrapper;

static inline void wrap_word(wrapper *w)
{
    size_t width = w->word.len != 0 ? width_of(&w->word, 0, w->word.len) : 0;
    if (!w->code && w->column != 0 && w->column + width > w->width) {
        putchar('\n');
        w->column = 0;
    }
    fwrite(w->word.data, 1, w->word.len, stdout);
    w->column += width;
    w->word.len = 0;
}

static inline void wrap(wrapper *w, const char *data, size_t len)
{
    if (!w->on) {
        fwrite(data, 1, len, stdout);
        return;
    }
    for (size_t i = 0; i < len; i++) {
        // Between ``` and ``` lines are code, and stay as they are.
        w->n_ticks = data[i] == '`' ? w->n_ticks + 1 : 0;
        if (w->n_ticks == 3)
            w->code = !w->code;
        if (data[i] != ' ' && data[i] != '\n') {
            text_append(&w->word, data + i, 1);
            if (w->word.len < 1024 && !w->code)
                continue;
        }
        wrap_word(w);
        if (data[i] == '\n' || (data[i] == ' ' && (w->code || w->column < w->width))) {
            putchar(data[i]);
            w->column = data[i] == '\n' ? 0 : w->column + 1;
        }
    }
}

// An answer begins, or has ended.
static inline void wrap_reset(wrapper *w)
{
    if (w->on)
        wrap_word(w);
    w->column = 0;
    w->code = w->n_ticks = 0;
    w->width = w->on ? terminal_width() - 1 : 0;
}

#endif // KIGO_EXAMPLES_WRAP_H
