/* Data sets of the shared material, against the facts its SOURCE.md files state. */
#include <math.h>

#include "unit/test_data_sets.h"

static void shared_mnist_family(void **state) {
    fixture *f = *state;
    static const int64_t mnist[] = {7, 2, 1, 0, 4, 1, 4, 9, 5, 9};
    const char *path = shared(f, "data/mnist_t10k/t10k-images-idx3-ubyte.gz");
    if (!path) {
        skip();
    }
    kiln_dataset *ds = open_set(f, (kiln_dataset_spec){.path = path});
    assert_int_equal(kiln_dataset_total(ds), 10000);
    kiln_batch b = next(f, ds, 10);
    for (int i = 0; i < 10; ++i) {
        assert_int_equal(b.labels[i].values[0], mnist[i]);
    }
    kiln_dataset_close(ds);

    /* Fashion-MNIST's training mean and deviation, as its SOURCE.md states them. */
    path = shared(f, "data/fashion_mnist/train-images-idx3-ubyte.gz");
    kiln_dataset_spec spec = {.path = path, .preprocess = {.scale = 1.0 / 255}};
    double sum = 0;
    double squares = 0;
    int64_t n = 0;
    ds = open_set(f, spec);
    while ((b = next(f, ds, 512)).count > 0) {
        const float *x = b.inputs[0].data;
        for (int64_t i = 0; i < b.count * 784; ++i, ++n) {
            sum += (double)x[i];
            squares += (double)x[i] * (double)x[i];
        }
    }
    assert_int_equal(n, 60000 * 784);
    double mean = sum / (double)n;
    assert_near(mean, 0.2860405969887955, 1e-7);
    assert_near(sqrt(squares / (double)n - mean * mean), 0.35302424451492237, 1e-7);
    kiln_dataset_close(ds);
    char folder[1024];
    snprintf(folder, sizeof folder, "%s", shared(f, "data/fashion_mnist/classes.txt"));
    *strrchr(folder, '/') = '\0';
    refuse_set(f, KILN_E_USAGE, "several IDX sets", .path = folder);
}

static void shared_cifar(void **state) {
    fixture *f = *state;
    static const int64_t labels[] = {6, 9, 9, 4, 1, 1, 2, 7, 8, 3};
    const char *path = shared(f, "data/cifar10/train_first4000.bin.gz");
    if (!path) {
        skip();
    }
    kiln_dataset *ds = open_set(
        f, (kiln_dataset_spec){.path = path, .classes = shared(f, "data/cifar10/classes.txt")});
    assert_int_equal(kiln_dataset_total(ds), 4000);
    assert_int_equal(kiln_dataset_classes(ds), 10);
    kiln_batch b = next(f, ds, 10);
    for (int i = 0; i < 10; ++i) {
        assert_int_equal(b.labels[i].values[0], labels[i]);
    }
    kiln_dataset_close(ds);
}

static void shared_photographs(void **state) {
    fixture *f = *state;
    const char *labels = shared(f, "data/images_imagenet_like/labels.csv");
    if (!labels) {
        skip();
    }
    char folder[1024];
    snprintf(folder, sizeof folder, "%s", labels);
    *strrchr(folder, '/') = '\0';
    kiln_dataset_spec spec = {.path = folder, .labels = labels};
    assert_ok(f,
              kiln_preprocess_parse(&spec.preprocess, "resize=256 crop=224 scale=1/255", f->diag));
    kiln_dataset *ds = open_set(f, spec);
    assert_int_equal(kiln_dataset_total(ds), 11);
    kiln_batch b = next(f, ds, 11);
    assert_int_equal(b.count, 11);
    assert_int_equal(b.labels[0].count, 3);
    assert_int_equal(b.labels[0].values[0], 281);
    assert_int_equal(b.inputs[0].dims[3], 224);
    kiln_dataset_close(ds);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(shared_mnist_family, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shared_cifar, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shared_photographs, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
