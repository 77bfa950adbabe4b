#include "ops/fourier.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

static void swap_bits(double *x, int64_t n) {
    for (int64_t i = 1, j = 0; i < n; i++) {
        int64_t bit = n >> 1;
        for (; j & bit; bit >>= 1) {
            j ^= bit;
        }
        j ^= bit;
        for (int p = 0; i < j && p < 2; p++) {
            double t = x[2 * i + p];
            x[2 * i + p] = x[2 * j + p];
            x[2 * j + p] = t;
        }
    }
}

/* n a power of two; roots[k] = e^(-2 pi i k / n) for k < n / 2. */
static void radix2(double *x, int64_t n, const double *roots, bool inverse) {
    swap_bits(x, n);
    for (int64_t len = 2; len <= n; len *= 2) {
        int64_t half = len / 2, step = n / len;
        for (int64_t base = 0; base < n; base += len) {
            for (int64_t k = 0; k < half; k++) {
                double wr = roots[2 * k * step], wi = roots[2 * k * step + 1];
                wi = inverse ? -wi : wi;
                double *a = x + 2 * (base + k), *b = x + 2 * (base + k + half);
                double re = b[0] * wr - b[1] * wi, im = b[0] * wi + b[1] * wr;
                b[0] = a[0] - re;
                b[1] = a[1] - im;
                a[0] += re;
                a[1] += im;
            }
        }
    }
}

static kiln_status make_roots(double **roots, int64_t n, kiln_arena *arena) {
    KILN_ALLOC(*roots, arena, n + 2);
    for (int64_t k = 0; k < n / 2; k++) {
        (*roots)[2 * k] = cos(2 * PI * (double)k / (double)n);
        (*roots)[2 * k + 1] = -sin(2 * PI * (double)k / (double)n);
    }
    return KILN_OK;
}

static void multiply(double *a, const double *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double re = a[2 * i] * b[2 * i] - a[2 * i + 1] * b[2 * i + 1];
        a[2 * i + 1] = a[2 * i] * b[2 * i + 1] + a[2 * i + 1] * b[2 * i];
        a[2 * i] = re;
    }
}

/* With jk = (j^2 + k^2 - (j - k)^2) / 2 the transform is a convolution with the chirp e^(pi i k^2
 * / n). */
static kiln_status bluestein(double *x, int64_t n, bool inverse, kiln_arena *arena) {
    int64_t m = 1;
    while (m < 2 * n - 1) {
        m *= 2;
    }
    double *a, *b, *chirp, *roots, sign = inverse ? 1 : -1;
    KILN_ALLOC(a, arena, 2 * m);
    KILN_ALLOC(b, arena, 2 * m);
    KILN_ALLOC(chirp, arena, 2 * n);
    KILN_TRY(make_roots(&roots, m, arena));
    int64_t square = 0; /* k^2 mod 2n, kept exact */
    for (int64_t k = 0; k < n; k++) {
        double angle = PI * (double)square / (double)n;
        chirp[2 * k] = cos(angle);
        chirp[2 * k + 1] = sign * sin(angle);
        square = (square + 2 * k + 1) % (2 * n);
    }
    memcpy(a, x, (size_t)n * 2 * sizeof *x);
    multiply(a, chirp, n);
    for (int64_t k = 0; k < n; k++) {
        int64_t mirror = k ? m - k : 0;
        b[2 * k] = b[2 * mirror] = chirp[2 * k];
        b[2 * k + 1] = b[2 * mirror + 1] = -chirp[2 * k + 1];
    }
    radix2(a, m, roots, false);
    radix2(b, m, roots, false);
    multiply(a, b, m);
    radix2(a, m, roots, true);
    for (int64_t k = 0; k < 2 * n; k++) {
        x[k] = a[k] / (double)m;
    }
    multiply(x, chirp, n);
    return KILN_OK;
}

kiln_status kiln_fourier(double *x, int64_t n, bool inverse, kiln_arena *arena) {
    if (n < 2) {
        return KILN_OK;
    }
    kiln_arena_mark mark = kiln_arena_here(arena);
    kiln_status status;
    if ((n & (n - 1)) == 0) {
        double *roots;
        status = make_roots(&roots, n, arena);
        if (status == KILN_OK) {
            radix2(x, n, roots, inverse);
        }
    } else {
        status = bluestein(x, n, inverse, arena);
    }
    kiln_arena_rewind(arena, mark);
    return status;
}
