/* fuzz_replay.c - main for a fuzz target without libFuzzer.
 *
 * Every file named on the command line, or below a folder named there, goes through the target
 * once.
 *
 *     fuzz_wire tests/fuzz/corpus/wire crash-0123
 *
 * Prints how many inputs ran; none at all is a failure, so that a lost corpus is noticed. */
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replayed;

static int replay(const char *path, const struct stat *info, int kind, struct FTW *where) {
    (void)where;
    if (kind != FTW_F) {
        return 0;
    }
    size_t size = (size_t)info->st_size;
    /* Exactly as many bytes as the input has, so that a sanitizer sees a read past its end. */
    uint8_t *data = malloc(size ? size : 1);
    FILE *file = fopen(path, "rb");
    if (!data || !file || fread(data, 1, size, file) != size) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    fclose(file);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    replayed++;
    return 0;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (nftw(argv[i], replay, 16, FTW_PHYS) != 0) {
            perror(argv[i]);
            return EXIT_FAILURE;
        }
    }
    printf("%d inputs replayed\n", replayed);
    return replayed > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
