/* test_data_sets.h - opening and reading data sets in tests. */
#ifndef KILN_TEST_DATA_SETS_H
#define KILN_TEST_DATA_SETS_H

#include "unit/test_data_common.h"

#include "data/dataset.h"

KILN_UNUSED static kiln_dataset *open_set(fixture *f, kiln_dataset_spec spec) {
    kiln_dataset *ds = NULL;
    assert_ok(f, kiln_dataset_open(&ds, &spec, f->env, f->diag));
    return ds;
}

#define refuse_set(f, status, part, ...)                                                     \
    do {                                                                                     \
        const kiln_dataset_spec spec_ = {__VA_ARGS__};                                       \
        kiln_dataset *refused_ = NULL;                                                       \
        assert_refused(f, kiln_dataset_open(&refused_, &spec_, (f)->env, (f)->diag), status, \
                       part);                                                                \
    } while (0)

KILN_UNUSED static kiln_batch next(fixture *f, kiln_dataset *ds, int64_t n) {
    kiln_batch batch;
    assert_ok(f, kiln_dataset_next(ds, n, &batch, f->diag));
    return batch;
}

#endif
