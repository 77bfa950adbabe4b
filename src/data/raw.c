/* raw.c - headerless tensor files (raw.h). */
#include "data/raw.h"

#include <string.h>

#include "base/checked.h"
#include "data/input.h"

kiln_status kiln_raw_bytes(size_t *out, kiln_dtype dtype, const int64_t *dims, int32_t rank,
                           kiln_diag *diag) {
    int64_t count;
    if (rank < 0 || rank > KILN_MAX_RANK || !kiln_dims_count(dims, rank, &count) ||
        kiln_dtype_bits(dtype) == 0 || !kiln_dtype_bytes(dtype, count, out)) {
        return kiln_fail(diag, KILN_F_OPTION, "a raw file cannot hold %s elements of these %d dims",
                         kiln_dtype_name(dtype), rank);
    }
    return KILN_OK;
}

static kiln_status copy_elements(kiln_tensor *out, const kiln_file *file, size_t bytes,
                                 kiln_arena *arena, kiln_diag *diag) {
    if (file->bytes != bytes) {
        return kiln_fail(diag, KILN_F_DATA_FORMAT,
                         "the file has %zu bytes, %s elements of these dims need %zu", file->bytes,
                         kiln_dtype_name(out->dtype), bytes);
    }
    out->cap_bytes = bytes;
    out->data = kiln_arena_copy(arena, file->data, bytes);
    return out->data ? KILN_OK : KILN_E_MEMORY;
}

kiln_status kiln_raw_read(kiln_tensor *out, const char *path, kiln_dtype dtype, const int64_t *dims,
                          int32_t rank, kiln_arena *arena, kiln_diag *diag) {
    size_t bytes;
    kiln_file file;
    KILN_TRY(kiln_raw_bytes(&bytes, dtype, dims, rank, diag));
    KILN_TRY(kiln_input_open(&file, path, arena->env, diag));
    *out = (kiln_tensor){.dtype = dtype, .rank = rank};
    memcpy(out->dims, dims, (size_t)rank * sizeof *dims);
    return kiln_input_close(&file, copy_elements(out, &file, bytes, arena, diag), diag);
}

kiln_status kiln_raw_write(const kiln_tensor *t, const char *path, kiln_diag *diag) {
    size_t bytes;
    KILN_TRY(kiln_raw_bytes(&bytes, t->dtype, t->dims, t->rank, diag));
    return kiln_file_write(path, t->data, bytes, diag);
}
