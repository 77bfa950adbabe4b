/* dataset_labels.c - label files, class names, folder listings: the text around data sets. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "data/dataset_impl.h"
#include "data/input.h"

enum { MAX_NAMES = 16 << 20, MAX_ACCEPTED = 256 };

bool kiln_ends_with(const char *text, const char *ending) {
    size_t len = strlen(text);
    size_t n = strlen(ending);
    return len >= n && memcmp(text + len - n, ending, n) == 0;
}

bool kiln_is_label_name(const char *name) {
    static const char *const names[] = {"y", "label", "labels", "target", "targets"};
    for (size_t i = 0; i < KILN_COUNT_OF(names); ++i) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

const char *kiln_join_path(kiln_arena *arena, const char *folder, const char *name) {
    const char *slash = folder[0] == '\0' || kiln_ends_with(folder, "/") ? "" : "/";
    return kiln_arena_printf(arena, "%s%s%s", folder, slash, name);
}

/* ---- Folders ---- */

bool kiln_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static kiln_status list_open_folder(kiln_name_list *out, DIR *dir, const char *path, bool folders,
                                    kiln_arena *arena, kiln_diag *diag) {
    size_t cap = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        struct stat st;
        if (entry->d_name[0] == '.' || fstatat(dirfd(dir), entry->d_name, &st, 0) != 0 ||
            !(folders ? S_ISDIR(st.st_mode) : S_ISREG(st.st_mode))) {
            continue;
        }
        if (out->count == MAX_NAMES) {
            return kiln_fail(diag, KILN_F_DATA_LIMIT, "folder \"%s\" has more than %d names", path,
                             MAX_NAMES);
        }
        const char *name = kiln_arena_text(arena, entry->d_name, strlen(entry->d_name));
        if (!name) {
            return KILN_E_MEMORY;
        }
        KILN_PUSH(arena, out->items, out->count, cap, name);
    }
    if (out->count > 0) {
        qsort(out->items, out->count, sizeof *out->items, compare_names);
    }
    return KILN_OK;
}

kiln_status kiln_list_folder(kiln_name_list *out, const char *path, bool folders, kiln_arena *arena,
                             kiln_diag *diag) {
    *out = (kiln_name_list){.count = 0};
    DIR *dir = opendir(path);
    if (!dir) {
        return kiln_fail(diag, KILN_F_FILE_OPEN, "folder \"%s\" cannot be opened (errno %d)", path,
                         errno);
    }
    kiln_status status = list_open_folder(out, dir, path, folders, arena, diag);
    closedir(dir);
    return status;
}

/* ---- Lines ---- */

typedef struct lines {
    const char *at;
    const char *end;
    int64_t number;
} lines;

/* The next line that is not blank, without surrounding white space; false at the end. */
static bool next_line(lines *l, const char **line, size_t *len) {
    while (l->at < l->end) {
        const char *first = l->at;
        const char *stop = memchr(first, '\n', (size_t)(l->end - first));
        stop = stop ? stop : l->end;
        l->at = stop < l->end ? stop + 1 : stop;
        l->number++;
        while (first < stop && (unsigned char)*first <= ' ') {
            ++first;
        }
        while (stop > first && (unsigned char)stop[-1] <= ' ') {
            --stop;
        }
        if (stop > first) {
            *line = first;
            *len = (size_t)(stop - first);
            return true;
        }
    }
    return false;
}

/* What separates the columns of a line: blanks only where nothing better does, since file names may
 * hold them. */
static const char *separators(const char *line, size_t len) {
    bool better = memchr(line, ',', len) || memchr(line, ';', len) || memchr(line, '\t', len);
    return better ? ",;\t" : " ";
}

/* "281" or "281|282|285"; the number of labels, 0 when the text is something else. */
static int32_t parse_labels(int64_t out[MAX_ACCEPTED], const char *text, size_t len) {
    int32_t count = 0;
    size_t i = 0;
    while (count < MAX_ACCEPTED) {
        size_t first = i;
        int64_t v = 0;
        for (; i < len && text[i] >= '0' && text[i] <= '9'; ++i) {
            if (!kiln_mul_i64(v, 10, &v) || !kiln_add_i64(v, text[i] - '0', &v)) {
                return 0;
            }
        }
        if (i == first) {
            return 0;
        }
        out[count++] = v;
        if (i == len) {
            return count;
        }
        if (text[i++] != '|') {
            return 0;
        }
    }
    return 0;
}

/* Absolute names and ".." would leave the data set's folder. */
static bool stays_inside(const char *name) {
    if (name[0] == '/') {
        return false;
    }
    for (const char *p = name; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (strncmp(p, "..", 2) == 0 && (p[2] == '/' || p[2] == '\0')) {
            return false;
        }
    }
    return true;
}

/* Splits a line into name and labels; *count is 0 when it holds no labels. */
static kiln_status parse_line(kiln_label_line *out, int64_t values[MAX_ACCEPTED], const char *line,
                              size_t len, kiln_arena *arena) {
    const char *between = separators(line, len);
    size_t name_len = 0;
    while (name_len < len && !strchr(between, line[name_len])) {
        ++name_len;
    }
    size_t at = name_len;
    while (at < len && (strchr(between, line[at]) || line[at] == ' ')) {
        ++at;
    }
    size_t label_end = at;
    while (label_end < len && !strchr(between, line[label_end]) && line[label_end] != ' ') {
        ++label_end;
    }
    *out = (kiln_label_line){.name = NULL};
    if (at == len) {
        out->labels.count = parse_labels(values, line, len);
    } else {
        out->labels.count = parse_labels(values, line + at, label_end - at);
        out->name = kiln_arena_text(arena, line, name_len);
        if (!out->name) {
            return KILN_E_MEMORY;
        }
    }
    out->labels.values = kiln_arena_copy(arena, values, (size_t)out->labels.count * sizeof *values);
    return out->labels.values ? KILN_OK : KILN_E_MEMORY;
}

static kiln_status read_lines(kiln_label_list *out, const kiln_file *file, kiln_arena *arena,
                              kiln_diag *diag) {
    lines l = {(const char *)file->data, (const char *)file->data + file->bytes, 0};
    const char *text;
    size_t len;
    size_t cap = 0;
    bool first = true;
    while (next_line(&l, &text, &len)) {
        int64_t values[MAX_ACCEPTED];
        kiln_label_line line;
        KILN_TRY(parse_line(&line, values, text, len, arena));
        bool heading = first && line.labels.count == 0;
        first = false;
        if (heading) {
            continue;
        }
        if (line.labels.count == 0) {
            return kiln_fail(diag, KILN_F_DATA_FORMAT, "line %" PRId64 " has no label number",
                             l.number);
        }
        if (line.name && !stays_inside(line.name)) {
            return kiln_fail(diag, KILN_F_DATA_FORMAT,
                             "line %" PRId64 ": \"%s\" leaves the data set's folder", l.number,
                             line.name);
        }
        if (out->count > 0 && out->named != (line.name != NULL)) {
            return kiln_fail(diag, KILN_F_DATA_FORMAT,
                             "line %" PRId64 ": some lines have a name and some have none",
                             l.number);
        }
        out->named = line.name != NULL;
        KILN_PUSH(arena, out->lines, out->count, cap, line);
    }
    return KILN_OK;
}

kiln_status kiln_read_labels(kiln_label_list *out, const char *path, kiln_arena *arena,
                             kiln_diag *diag) {
    kiln_file file;
    *out = (kiln_label_list){.count = 0};
    KILN_TRY(kiln_input_open(&file, path, arena->env, diag));
    return kiln_input_close(&file, read_lines(out, &file, arena, diag), diag);
}

static kiln_status read_class_lines(kiln_dataset *ds, const kiln_file *file) {
    lines l = {(const char *)file->data, (const char *)file->data + file->bytes, 0};
    const char *text;
    size_t len;
    size_t count = 0;
    size_t cap = 0;
    while (next_line(&l, &text, &len)) {
        const char *name = kiln_arena_text(&ds->arena, text, len);
        if (!name) {
            return KILN_E_MEMORY;
        }
        KILN_PUSH(&ds->arena, ds->classes, count, cap, name);
    }
    ds->class_count = (int64_t)count;
    return KILN_OK;
}

kiln_status kiln_read_classes(kiln_dataset *ds, const char *path, kiln_diag *diag) {
    kiln_file file;
    KILN_TRY(kiln_input_open(&file, path, ds->arena.env, diag));
    return kiln_input_close(&file, read_class_lines(ds, &file), diag);
}
