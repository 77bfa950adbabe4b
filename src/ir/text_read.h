/* text_read.h - what the parts of the text parser share: its state, words, numbers and types. */
#ifndef KILN_IR_TEXT_READ_H
#define KILN_IR_TEXT_READ_H

#include "ir/text.h"

/* A name and its value. */
typedef struct kiln_text_slot {
    const char *name;
    kiln_value *value;
    bool defined;
} kiln_text_slot;

typedef struct kiln_parser {
    const char *at, *end;
    int64_t line;
    kiln_op_finder *find;
    kiln_arena *arena;
    kiln_dims *dims;
    const kiln_env *env;
    kiln_diag *diag;
    kiln_arena scratch;
    kiln_text_slot *slots; /* open hash by name */
    size_t n_slots, n_names;
    int depth;
} kiln_parser;

/* Records an error at the parser's line. */
kiln_status kiln_text_bad(kiln_parser *p, const char *fmt, ...) KILN_PRINTF(2, 3);

/* ---- Characters: all of these but word_length and number_length skip blanks first ---- */

void kiln_text_skip_blanks(kiln_parser *p);
/* Blank lines and comments too. */
void kiln_text_skip_lines(kiln_parser *p);
/* Takes `word` if it stands here. */
bool kiln_text_accept(kiln_parser *p, const char *word);
/* The same, or an error. */
kiln_status kiln_text_expect(kiln_parser *p, const char *word);
/* Letters, digits and the characters of `more` from here on. */
size_t kiln_text_word_length(const kiln_parser *p, const char *more);
size_t kiln_text_number_length(const kiln_parser *p);

/* Text in quotes; in the graph's arena. */
kiln_status kiln_text_read_quoted(kiln_parser *p, const char **out);
/* A name, plain or in quotes; in the graph's arena. */
kiln_status kiln_text_read_name(kiln_parser *p, const char **out);
/* A word of an enum, an attribute or an operator; in scratch. */
kiln_status kiln_text_read_word(kiln_parser *p, const char **out);
kiln_status kiln_text_read_int(kiln_parser *p, int64_t *out);
kiln_status kiln_text_read_float(kiln_parser *p, float *out);

/* float32[N,2*N+1], seq(...), optional(...). */
kiln_status kiln_text_read_type(kiln_parser *p, kiln_type *out);

#endif
