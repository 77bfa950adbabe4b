/* Files: reading, atomic writing, and external data that tries to leave its folder. */
#define _GNU_SOURCE 1

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/dir.h"
#include "base/file.h"

/* Every test works in a folder of its own, which is the current one meanwhile. */
static int enter_folder(void **state) {
    char *path = strdup("/tmp/kiln-test-XXXXXX");
    *state = path;
    return mkdtemp(path) && chdir(path) == 0 ? 0 : -1;
}

static int leave_folder(void **state) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", (char *)*state);
    free(*state);
    return chdir("/") == 0 && system(command) == 0 ? 0 : -1;
}

static void put_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void expect_content(const char *path, const char *text) {
    kiln_file file;
    assert_int_equal(kiln_file_open(&file, NULL, path, 1000, 0, NULL), KILN_OK);
    assert_int_equal(file.bytes, strlen(text));
    assert_memory_equal(file.data, text, file.bytes);
    kiln_file_close(&file);
}

static int count_entries(void) {
    FILE *ls = popen("ls -A | wc -l", "r");
    int n = -1;
    assert_int_equal(fscanf(ls, "%d", &n), 1);
    pclose(ls);
    return n;
}

static const char *newest_code(kiln_diag *diag) {
    size_t n = kiln_diag_count(diag);
    return n ? kiln_diag_get(diag, n - 1)->code : "";
}

static void test_open(void **state) {
    (void)state;
    put_file("a.bin", "hello");
    put_file("empty", "");
    for (unsigned flags = 0; flags <= KILN_FILE_COPY; flags++) {
        kiln_file file;
        assert_int_equal(kiln_file_open(&file, NULL, "a.bin", 5, flags, NULL), KILN_OK);
        assert_int_equal(file.mapped, !flags);
        assert_int_equal(file.bytes, 5);
        assert_memory_equal(file.data, "hello", 5);
        assert_int_equal((uintptr_t)file.data % 64, 0);
        kiln_file_close(&file);
        kiln_file_close(&file);
        assert_int_equal(kiln_file_open(&file, NULL, "empty", 0, flags, NULL), KILN_OK);
        assert_true(file.data && file.bytes == 0);
        kiln_file_close(&file);
        assert_int_equal(kiln_file_open(&file, NULL, "a.bin", 4, flags, NULL), KILN_E_LIMIT);
    }
}

static void test_open_refuses(void **state) {
    (void)state;
    kiln_diag *diag;
    kiln_file file;
    assert_int_equal(kiln_diag_create(&diag, NULL), KILN_OK);
    assert_int_equal(mkfifo("fifo", 0600), 0);
    assert_int_equal(mkdir("folder", 0700), 0);
    static const char *const paths[] = {"fifo", "folder", "/dev/zero", "missing", ""};
    for (size_t i = 0; i < KILN_COUNT_OF(paths); i++) {
        alarm(5);
        assert_int_equal(kiln_file_open(&file, NULL, paths[i], UINT64_MAX, 0, diag), KILN_E_IO);
        alarm(0);
        assert_string_equal(newest_code(diag), "E0201");
    }
    assert_non_null(strstr(kiln_diag_get(diag, 0)->message, "pipe"));
    assert_non_null(strstr(kiln_diag_get(diag, 3)->message, "No such file"));
    kiln_diag_destroy(diag);
}

static void test_write(void **state) {
    (void)state;
    assert_int_equal(kiln_file_write("out", "one", 3, NULL), KILN_OK);
    expect_content("out", "one");
    assert_int_equal(chmod("out", 0640), 0);
    assert_int_equal(kiln_file_write("./out", "second", 6, NULL), KILN_OK);
    expect_content("out", "second");
    struct stat st;
    assert_int_equal(stat("out", &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(count_entries(), 1);
}

static void test_write_keeps_the_old_file(void **state) {
    (void)state;
    put_file("out", "old");
    kiln_writer writer;
    assert_int_equal(kiln_writer_open(&writer, "out", NULL), KILN_OK);
    assert_int_equal(kiln_writer_put(&writer, "new", 3, NULL), KILN_OK);
    expect_content("out", "old");
    kiln_writer_abandon(&writer);
    kiln_writer_abandon(&writer);
    expect_content("out", "old");
    assert_int_equal(count_entries(), 1);

    /* A file size limit makes the second half of a write fail. */
    kiln_diag *diag;
    assert_int_equal(kiln_diag_create(&diag, NULL), KILN_OK);
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    static char big[10000];
    kiln_status status = kiln_file_write("out", big, sizeof big, diag);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, KILN_E_IO);
    assert_non_null(strstr(kiln_diag_get(diag, 0)->message, "after 4096 bytes, 5904 more"));
    expect_content("out", "old");
    assert_int_equal(count_entries(), 1);

    /* The target turned into a folder meanwhile: the rename fails. */
    assert_int_equal(kiln_writer_open(&writer, "other", NULL), KILN_OK);
    assert_int_equal(mkdir("other", 0700), 0);
    assert_int_equal(kiln_writer_commit(&writer, diag), KILN_E_IO);
    kiln_writer_abandon(&writer);
    assert_int_equal(count_entries(), 2);
    kiln_diag_destroy(diag);
}

static void test_write_refuses(void **state) {
    (void)state;
    put_file("victim", "precious");
    assert_int_equal(symlink("victim", "link"), 0);
    assert_int_equal(kiln_file_write("link", "x", 1, NULL), KILN_OK);
    expect_content("victim", "precious");
    expect_content("link", "x");
    assert_int_equal(mkdir("folder", 0700), 0);
    assert_int_equal(mkfifo("fifo", 0600), 0);
    static const char *const paths[] = {"folder", "fifo", "missing/out", "folder/", ""};
    for (size_t i = 0; i < KILN_COUNT_OF(paths); i++) {
        assert_int_equal(kiln_file_write(paths[i], "x", 1, NULL), KILN_E_IO);
    }
    assert_int_equal(count_entries(), 4);
}

/* Opens `location` beside net/model.onnx both ways; returns the status, which must agree, and
 * checks the content. */
static kiln_status open_both(const char *model, const char *location, size_t len,
                             const char *text) {
    kiln_status status[2];
    for (unsigned flags = 0; flags <= KILN_DIR_WALK; flags++) {
        kiln_dir dir;
        kiln_file file;
        assert_int_equal(kiln_dir_open_beside(&dir, model, flags, NULL), KILN_OK);
        status[flags] = kiln_dir_file(&dir, &file, NULL, location, len, 100, 0, NULL);
        if (status[flags] == KILN_OK) {
            assert_int_equal(file.bytes, strlen(text));
            assert_memory_equal(file.data, text, file.bytes);
            kiln_file_close(&file);
        }
        kiln_dir_close(&dir);
    }
    assert_int_equal(status[0], status[1]);
    return status[0];
}

static kiln_status open_beside(const char *location) {
    return open_both("net/model.onnx", location, strlen(location), "data");
}

static void test_external_names(void **state) {
    (void)state;
    assert_int_equal(mkdir("net", 0700), 0);
    assert_int_equal(mkdir("net/a", 0700), 0);
    put_file("net/model.onnx", "model");
    put_file("net/w", "data");
    put_file("net/a/w", "data");
    put_file("net/..w", "data");
    put_file("b", "data");
    static const char *const good[] = {"w", "a/w", "./w", "..w", "./a/./w"};
    for (size_t i = 0; i < KILN_COUNT_OF(good); i++) {
        assert_int_equal(open_beside(good[i]), KILN_OK);
    }
    static const char *const bad[] = {"",     "/etc/passwd", "../b",  "a/../../b", "a/..",
                                      "..",   "a//w",        "a/",    "a\\w",      "C:w",
                                      "c:/w", "/",           "./../b"};
    for (size_t i = 0; i < KILN_COUNT_OF(bad); i++) {
        assert_int_equal(open_beside(bad[i]), KILN_E_MALFORMED);
    }
    assert_int_equal(open_both("net/model.onnx", "w\0x", 3, ""), KILN_E_MALFORMED);
    char name[5001];
    memset(name, 'n', 5000);
    name[5000] = '\0';
    assert_int_equal(open_beside(name), KILN_E_MALFORMED);
    name[300] = '\0';
    assert_int_equal(open_beside(name), KILN_E_IO);
    assert_int_equal(open_beside("missing"), KILN_E_IO);
    assert_int_equal(open_beside("a"), KILN_E_IO);
    assert_int_equal(open_beside("w/x"), KILN_E_IO);
    put_file("net/large", "0123456789012345678901234567890123456789012345678901234567890123456789"
                          "0123456789012345678901234567890123456789");
    assert_int_equal(open_beside("large"), KILN_E_LIMIT);
    assert_int_equal(mkfifo("net/fifo", 0600), 0);
    alarm(5);
    assert_int_equal(open_beside("fifo"), KILN_E_IO);
    alarm(0);
}

static void test_external_links(void **state) {
    (void)state;
    assert_int_equal(mkdir("net", 0700), 0);
    assert_int_equal(mkdir("out", 0700), 0);
    put_file("net/model.onnx", "model");
    put_file("net/w", "data");
    put_file("out/w", "data");
    assert_int_equal(symlink("../out/w", "net/escape"), 0);
    assert_int_equal(symlink("/etc/passwd", "net/absolute"), 0);
    assert_int_equal(symlink("../out", "net/folder"), 0);
    assert_int_equal(symlink("/proc/self/root", "net/magic"), 0);
    assert_int_equal(symlink("loop", "net/loop"), 0);
    static const char *const bad[] = {"escape", "absolute", "loop"};
    for (size_t i = 0; i < KILN_COUNT_OF(bad); i++) {
        assert_int_equal(open_beside(bad[i]), KILN_E_MALFORMED);
    }
    /* Without openat2, a link in the middle is told apart from a missing folder by nothing. */
    assert_int_not_equal(open_both("net/model.onnx", "magic", 5, ""), KILN_OK);
    kiln_dir dir;
    kiln_file file;
    for (unsigned flags = 0; flags <= KILN_DIR_WALK; flags++) {
        assert_int_equal(kiln_dir_open_beside(&dir, "net/model.onnx", flags, NULL), KILN_OK);
        assert_int_not_equal(kiln_dir_file(&dir, &file, NULL, "folder/w", 8, 9, 0, NULL), KILN_OK);
        kiln_dir_close(&dir);
    }
    assert_int_equal(symlink("w", "net/inside"), 0);
    assert_int_equal(kiln_dir_open(&dir, "net", 0, NULL), KILN_OK);
    assert_int_equal(kiln_dir_file(&dir, &file, NULL, "inside", 6, 9, 0, NULL), KILN_OK);
    kiln_file_close(&file);
    kiln_dir_close(&dir);
    assert_int_equal(kiln_dir_open(&dir, "net/w", 0, NULL), KILN_E_IO);
}

/* A hub's cache: model and data are links into a folder of blobs. */
static void test_external_hub(void **state) {
    (void)state;
    assert_int_equal(system("mkdir -p snap/1/onnx blobs/deep elsewhere"), 0);
    put_file("blobs/a", "model");
    put_file("blobs/b", "data");
    put_file("blobs/deep/c", "data");
    put_file("elsewhere/d", "data");
    assert_int_equal(symlink("../../../blobs/a", "snap/1/onnx/model.onnx"), 0);
    assert_int_equal(symlink("../../../blobs/b", "snap/1/onnx/model.data"), 0);
    assert_int_equal(symlink("model.data", "snap/1/onnx/twice"), 0);
    assert_int_equal(symlink("../../../blobs/deep/c", "snap/1/onnx/deeper"), 0);
    assert_int_equal(symlink("../../../elsewhere/d", "snap/1/onnx/outside"), 0);
    assert_int_equal(symlink("../../../blobs/..", "snap/1/onnx/dots"), 0);
    assert_int_equal(symlink("../../../blobs/leak", "snap/1/onnx/leak"), 0);
    assert_int_equal(symlink("../elsewhere/d", "blobs/leak"), 0);
    const char *model = "snap/1/onnx/model.onnx";
    assert_int_equal(open_both(model, "model.data", 10, "data"), KILN_OK);
    assert_int_equal(open_both(model, "twice", 5, "data"), KILN_OK);
    assert_int_equal(open_both(model, "b", 1, "data"), KILN_OK);
    assert_int_equal(open_both(model, "deeper", 6, ""), KILN_E_MALFORMED);
    assert_int_equal(open_both(model, "outside", 7, ""), KILN_E_MALFORMED);
    assert_int_equal(open_both(model, "dots", 4, ""), KILN_E_MALFORMED);
    assert_int_equal(open_both(model, "leak", 4, ""), KILN_E_MALFORMED);
}

/* Points net/link, net/folder and snap/w, each renamed into place at once, by turns inside and
 * outside of what the model may read, until told to stop. */
typedef struct swapper {
    atomic_bool stop, failed;
    atomic_int turns;
} swapper;

static void *swap_links(void *arg) {
    static const char *const links[][3] = {{"net/link", "w", "../out/w"},
                                           {"net/folder", "a", "../out"},
                                           {"snap/w", "../blobs/w", "../out/w"}};
    swapper *s = arg;
    for (int turn = 0; !s->stop; turn = !turn) {
        for (size_t i = 0; i < KILN_COUNT_OF(links); i++) {
            if (symlink(links[i][1 + turn], "next") || rename("next", links[i][0])) {
                s->failed = true;
            }
            sched_yield();
        }
        s->turns++;
    }
    return NULL;
}

/* Where a link points may change between any check and any use: what is opened is always inside,
 * or nothing is. */
static void test_external_swapped(void **state) {
    (void)state;
    static const struct {
        const char *model, *location;
        unsigned flags;
    } ways[] = {{"net/model.onnx", "link", 0},
                {"net/model.onnx", "folder/w", 0},
                {"net/model.onnx", "link", KILN_DIR_WALK},
                {"net/model.onnx", "folder/w", KILN_DIR_WALK},
                {"snap/model.onnx", "w", 0},
                {"snap/model.onnx", "w", KILN_DIR_WALK}};
    enum { ROUNDS = 4000, MOST_ROUNDS = 1000000 };
    int opened[KILN_COUNT_OF(ways)] = {0}, refused[KILN_COUNT_OF(ways)] = {0};
    swapper s = {0};
    pthread_t thread;
    assert_int_equal(system("mkdir -p net/a out snap blobs"), 0);
    static const char *const inside[] = {"net/model.onnx", "net/w", "net/a/w", "blobs/model.onnx",
                                         "blobs/w"};
    for (size_t i = 0; i < KILN_COUNT_OF(inside); i++) {
        put_file(inside[i], "data");
    }
    put_file("out/w", "leak");
    assert_int_equal(symlink("../blobs/model.onnx", "snap/model.onnx"), 0);
    assert_int_equal(pthread_create(&thread, NULL, swap_links, &s), 0);
    for (int n = 0; n < ROUNDS || (s.turns < ROUNDS && n < MOST_ROUNDS); n++) {
        size_t i = (size_t)n % KILN_COUNT_OF(ways);
        kiln_dir dir;
        kiln_file file;
        assert_int_equal(kiln_dir_open_beside(&dir, ways[i].model, ways[i].flags, NULL), KILN_OK);
        kiln_status status = kiln_dir_file(&dir, &file, NULL, ways[i].location,
                                           strlen(ways[i].location), 100, 0, NULL);
        kiln_dir_close(&dir);
        refused[i] += status != KILN_OK;
        opened[i] += status == KILN_OK;
        if (status == KILN_OK) {
            assert_int_equal(file.bytes, 4);
            assert_memory_equal(file.data, "data", 4);
            kiln_file_close(&file);
        }
    }
    s.stop = true;
    pthread_join(thread, NULL);
    assert_false(s.failed);
    assert_true(s.turns > 1);
    for (size_t i = 0; i < KILN_COUNT_OF(ways); i++) {
        print_message("%s %s%s: %d opened, %d refused\n", ways[i].model, ways[i].location,
                      ways[i].flags ? " by walking" : "", opened[i], refused[i]);
        /* Walking follows no link, but for those of a hub's cache. */
        bool follows = !ways[i].flags || strcmp(ways[i].model, "snap/model.onnx") == 0;
        assert_true(refused[i] > 0 && (opened[i] > 0) == follows);
    }
}

static void *failing_alloc(void *user, size_t bytes) {
    int *left = user;
    return (*left)-- > 0 ? aligned_alloc(64, (bytes + 63) & ~(size_t)63) : NULL;
}

static void failing_release(void *user, void *ptr, size_t bytes) {
    (void)user;
    (void)bytes;
    free(ptr);
}

static void test_copy_out_of_memory(void **state) {
    (void)state;
    int left = 1;
    kiln_allocator allocator = {failing_alloc, failing_release, &left};
    kiln_env_options options = {.size = sizeof options, .allocator = &allocator};
    kiln_env *env;
    kiln_file file;
    put_file("a", "hello");
    assert_int_equal(kiln_env_create(&env, &options), KILN_OK);
    assert_int_equal(kiln_file_open(&file, env, "a", 9, KILN_FILE_COPY, NULL), KILN_E_MEMORY);
    assert_int_equal(kiln_file_open(&file, env, "a", 9, 0, NULL), KILN_OK);
    kiln_file_close(&file);
    kiln_env_destroy(env);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, enter_folder, leave_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_open),
        IN_FOLDER(test_open_refuses),
        IN_FOLDER(test_write),
        IN_FOLDER(test_write_keeps_the_old_file),
        IN_FOLDER(test_write_refuses),
        IN_FOLDER(test_external_names),
        IN_FOLDER(test_external_links),
        IN_FOLDER(test_external_hub),
        IN_FOLDER(test_external_swapped),
        IN_FOLDER(test_copy_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
