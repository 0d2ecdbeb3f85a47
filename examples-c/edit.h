// A line that is edited in the terminal: cursor keys, Home and End, deleting, what was entered before. Behind common.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef KIGO_EXAMPLES_EDIT_H
#define KIGO_EXAMPLES_EDIT_H

#include <sys/ioctl.h>
#include <termios.h>

typedef struct editor {
    text line;
    size_t at, first; // bytes: of the cursor, and of what the terminal's line begins with
    text *entered;    // earlier lines, the last one last
    size_t n_entered, shown;
    const char *prompt;
} editor;

static inline int is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

static inline size_t before(const text *t, size_t at)
{
    while (at > 0 && is_continuation(t->data[--at]))
        ;
    return at;
}

static inline size_t behind(const text *t, size_t at)
{
    if (at < t->len)
        at++;
    while (at < t->len && is_continuation(t->data[at]))
        at++;
    return at;
}

// Columns that the character at these bytes takes: those of East Asia and emoji take two.
static inline size_t columns_of(const char *data, size_t len)
{
    const unsigned char *b = (const unsigned char *)data;
    unsigned long c = len > 3 ? (b[0] & 7ul) << 18 | (b[1] & 63ul) << 12 | (b[2] & 63ul) << 6 | (b[3] & 63ul)
                    : len > 2 ? (b[0] & 15ul) << 12 | (b[1] & 63ul) << 6 | (b[2] & 63ul)
                    : len > 1 ? (b[0] & 31ul) << 6 | (b[1] & 63ul)
                    : len > 0 ? b[0]
                              : 0;
    int combining = (c >= 0x300 && c < 0x370) || (c >= 0x200b && c < 0x2010) || (c >= 0xfe00 && c < 0xfe10);
    int wide = (c >= 0x1100 && c < 0x1160) || (c >= 0x2e80 && c < 0xa4d0) || (c >= 0xac00 && c < 0xd7a4) ||
               (c >= 0xf900 && c < 0xfb00) || (c >= 0xfe30 && c < 0xfe70) || (c >= 0xff00 && c < 0xff61) ||
               (c >= 0x1f300 && c < 0x1f650) || (c >= 0x1f680 && c < 0x1fb00) || (c >= 0x20000 && c < 0x40000);
    return combining ? 0 : wide ? 2 : 1;
}

static inline size_t width_of(const text *t, size_t from, size_t to)
{
    size_t width = 0;
    for (size_t next; from < to; from = next) {
        next = behind(t, from);
        width += columns_of(t->data + from, next - from);
    }
    return width;
}

static inline size_t terminal_width(void)
{
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 8 ? size.ws_col : 80;
}

// Shows the part of the line that the cursor is in.
static inline void redraw(editor *e)
{
    size_t room = terminal_width() - strlen(e->prompt) - 1;
    if (e->at < e->first)
        e->first = e->at;
    while (width_of(&e->line, e->first, e->at) >= room)
        e->first = behind(&e->line, e->first);
    size_t end = e->first;
    while (end < e->line.len && width_of(&e->line, e->first, behind(&e->line, end)) <= room)
        end = behind(&e->line, end);
    printf("\r%s", e->prompt);
    for (size_t i = e->first; i < end; i++)
        putchar((unsigned char)e->line.data[i] < ' ' ? ' ' : e->line.data[i]);
    size_t back = width_of(&e->line, e->at, end);
    printf("\x1b[K");
    if (back != 0)
        printf("\x1b[%zuD", back);
    flush_output();
}

static inline void insert(editor *e, const char *data, size_t len)
{
    size_t tail = e->line.len - e->at;
    text_append(&e->line, data, len);
    memmove(e->line.data + e->at + len, e->line.data + e->at, tail);
    memcpy(e->line.data + e->at, data, len);
    e->at += len;
}

static inline void erase(editor *e, size_t from, size_t to)
{
    if (from == to)
        return;
    memmove(e->line.data + from, e->line.data + to, e->line.len - to + 1);
    e->line.len -= to - from;
    e->at = from;
}

// The earlier line number `shown`, or an empty one behind the last.
static inline void recall(editor *e, size_t shown)
{
    e->shown = shown;
    e->line.len = e->at = e->first = 0;
    if (shown < e->n_entered)
        insert(e, e->entered[shown].data, e->entered[shown].len);
}

static inline int next_byte(void)
{
    unsigned char byte;
    return read(STDIN_FILENO, &byte, 1) == 1 ? byte : -1; // a signal ends it, too
}

// What follows an escape: ESC [ or ESC O, numbers, a letter or a tilde.
static inline void escaped(editor *e)
{
    int c = next_byte(), number = 0;
    if (c != '[' && c != 'O')
        return;
    while ((c = next_byte()) >= '0' && c <= ';')
        number = c == ';' || number > 99 ? 0 : number * 10 + c - '0';
    if (c == 'A' && e->shown > 0)
        recall(e, e->shown - 1);
    else if (c == 'B' && e->shown < e->n_entered)
        recall(e, e->shown + 1);
    else if (c == 'C')
        e->at = behind(&e->line, e->at);
    else if (c == 'D')
        e->at = before(&e->line, e->at);
    else if (c == 'H' || (c == '~' && (number == 1 || number == 7)))
        e->at = 0;
    else if (c == 'F' || (c == '~' && (number == 4 || number == 8)))
        e->at = e->line.len;
    else if (c == '~' && number == 3)
        erase(e, e->at, behind(&e->line, e->at));
}

#define CONTROL(letter) ((letter) - '@')

// A key; 0: the line goes on, 1: it has ended, -1: so has the input.
static inline int key(editor *e, int c)
{
    size_t word = e->at;
    char byte = (char)c;
    switch (c) {
    case '\r':
    case '\n': return 1;
    case -1: return -1;
    case 0: // as a terminal hands on an end of input that came before it was asked
    case CONTROL('D'):
        if (e->line.len == 0)
            return -1;
        erase(e, e->at, behind(&e->line, e->at));
        break;
    case CONTROL('A'): e->at = 0; break;
    case CONTROL('E'): e->at = e->line.len; break;
    case CONTROL('B'): e->at = before(&e->line, e->at); break;
    case CONTROL('F'): e->at = behind(&e->line, e->at); break;
    case CONTROL('K'): erase(e, e->at, e->line.len); break;
    case CONTROL('U'): erase(e, 0, e->at); break;
    case CONTROL('L'): printf("\x1b[H\x1b[2J"); break;
    case CONTROL('P'): recall(e, e->shown > 0 ? e->shown - 1 : 0); break;
    case CONTROL('N'): recall(e, e->shown < e->n_entered ? e->shown + 1 : e->shown); break;
    case CONTROL('W'):
        while (word > 0 && e->line.data[word - 1] == ' ')
            word--;
        while (word > 0 && e->line.data[word - 1] != ' ')
            word--;
        erase(e, word, e->at);
        break;
    case CONTROL('H'):
    case 127: erase(e, before(&e->line, e->at), e->at); break;
    case CONTROL('['): escaped(e); break;
    case '\t': insert(e, " ", 1); break;
    default:
        if (c >= ' ')
            insert(e, &byte, 1);
    }
    return 0;
}

// Reads a line behind the prompt; NULL at the end of input, or when a signal came. Valid until the next call.
static inline const text *edit_line(editor *e, const char *prompt)
{
    struct termios before_it, raw;
    if (tcgetattr(STDIN_FILENO, &before_it) != 0)
        return NULL;
    raw = before_it;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | IEXTEN);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    raw.c_cc[VSUSP] = _POSIX_VDISABLE; // it would leave the terminal like this
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    e->prompt = prompt;
    recall(e, e->n_entered);
    int end = 0;
    while (end == 0) {
        redraw(e);
        end = key(e, next_byte());
        // The rest of a character, before anything is shown of it.
        while (end == 0 && e->at > 0 && (e->line.data[e->at - 1] & 0x80) != 0) {
            size_t start = before(&e->line, e->at);
            unsigned char lead = (unsigned char)e->line.data[start];
            if (e->at - start >= (lead >= 0xf0 ? 4u : lead >= 0xe0 ? 3u : lead >= 0xc0 ? 2u : 1u))
                break;
            end = key(e, next_byte());
        }
    }
    e->at = e->line.len;
    redraw(e);
    printf("\r\n");
    flush_output();
    tcsetattr(STDIN_FILENO, TCSADRAIN, &before_it);
    if (end < 0)
        return NULL;
    if (e->line.len != 0) {
        e->entered = resize(e->entered, (e->n_entered + 1) * sizeof *e->entered);
        e->entered[e->n_entered] = (text){NULL, 0};
        text_append(&e->entered[e->n_entered++], e->line.data, e->line.len);
    }
    return &e->line;
}

static inline void editor_free(editor *e)
{
    for (size_t i = 0; i < e->n_entered; i++)
        free(e->entered[i].data);
    free(e->entered);
    free(e->line.data);
}

#endif // KIGO_EXAMPLES_EDIT_H
