/* gelu.c - the pieces of GELU, in whatever order they are multiplied.
 *
 *     erf form:   x * 1/2 * (1 + erf(x / sqrt 2))
 *     tanh form:  x * 1/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
 *
 * The product is taken apart into factors: x, numbers, and one a*f(u) + b with f = erf or tanh; u
 * is read as a polynomial in x of degree 3. So no association and no scaling of the constants
 * needs a pattern of its own.
 */
#include <math.h>

#include "pass/match.h"

enum { MAX_TOUCHED = 24, MAX_DEPTH = 8 };

typedef struct matcher {
    const kiln_node *touched[MAX_TOUCHED];
    int n_touched;
} matcher;

static bool touch(matcher *m, const kiln_node *n) {
    if (m->n_touched == MAX_TOUCHED) {
        return false;
    }
    m->touched[m->n_touched++] = n;
    return true;
}

static bool is_near(double a, double b) {
    return fabs(a - b) <= 2e-6 * fabs(b);
}

/* ---- Polynomials ---- */

typedef struct poly {
    double c[4];
} poly;

static bool multiply(const poly *a, const poly *b, poly *out) {
    *out = (poly){{0}};
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < 4; k++) {
            double t = a->c[i] * b->c[k];
            if (t != 0.0 && i + k > 3) {
                return false;
            }
            if (t != 0.0) {
                out->c[i + k] += t;
            }
        }
    }
    return true;
}

static bool read_poly(matcher *m, const kiln_value *v, const kiln_value *x, int depth, poly *out);

static bool read_pow(const kiln_node *n, const poly *base, poly *out) {
    double e;
    poly square;
    if (!kiln_scalar(n->in[1], &e) || (e != 2.0 && e != 3.0) || !multiply(base, base, &square)) {
        return false;
    }
    *out = square;
    return e == 2.0 || multiply(&square, base, out);
}

/* v as a polynomial in x: sums, differences, products, quotients by numbers, small powers. */
static bool read_poly(matcher *m, const kiln_value *v, const kiln_value *x, int depth, poly *out) {
    poly a, b;
    *out = (poly){{0}};
    if (v == x) {
        out->c[1] = 1.0;
        return true;
    }
    if (v->constant) {
        return kiln_scalar(v, &out->c[0]);
    }
    const kiln_node *n = v->producer;
    if (depth == MAX_DEPTH || !n || n->n_in != 2 || !touch(m, n) ||
        !read_poly(m, n->in[0], x, depth + 1, &a)) {
        return false;
    }
    if (kiln_is_op(n, "Pow")) {
        return read_pow(n, &a, out);
    }
    if (!read_poly(m, n->in[1], x, depth + 1, &b)) {
        return false;
    }
    if (kiln_is_op(n, "Mul")) {
        return multiply(&a, &b, out);
    }
    double by = 1.0, sign = kiln_is_op(n, "Sub") ? -1.0 : 1.0;
    if (kiln_is_op(n, "Div")) {
        by = b.c[0];
        if (b.c[1] != 0.0 || b.c[2] != 0.0 || b.c[3] != 0.0 || by == 0.0) {
            return false;
        }
        sign = 0.0;
    } else if (!kiln_is_op(n, "Add") && !kiln_is_op(n, "Sub")) {
        return false;
    }
    for (int i = 0; i < 4; i++) {
        out->c[i] = a.c[i] / by + sign * b.c[i];
    }
    return true;
}

/* ---- Factors ---- */

enum { MAX_FACTORS = 3 };

typedef struct product {
    double number;
    kiln_value *factors[MAX_FACTORS];
    int n;
} product;

/* Takes the product under v apart. Inner products must serve nothing else. */
static bool read_product(matcher *m, kiln_value *v, const kiln_value *root, int depth,
                         product *out) {
    double s;
    if (kiln_scalar(v, &s)) {
        out->number *= s;
        return true;
    }
    const kiln_node *n = v->constant ? NULL : v->producer;
    bool inner = v == root || (kiln_used_once(v) && depth < MAX_DEPTH);
    if (inner && kiln_is_op(n, "Mul") && n->in[0] != n->in[1]) {
        return touch(m, n) && read_product(m, n->in[0], root, depth + 1, out) &&
               read_product(m, n->in[1], root, depth + 1, out);
    }
    if (inner && kiln_is_op(n, "Div") && kiln_scalar(n->in[1], &s) && s != 0.0) {
        out->number /= s;
        return touch(m, n) && read_product(m, n->in[0], root, depth + 1, out);
    }
    if (out->n == MAX_FACTORS) {
        return false;
    }
    out->factors[out->n++] = v;
    return true;
}

/* v = b + a * f(u), f = Erf or Tanh. */
static const kiln_node *read_gate(matcher *m, const kiln_value *v, double *a, double *b) {
    const kiln_node *add = kiln_made_by_only(v, "Add");
    kiln_value *inner;
    *a = 1.0;
    if (!add || !kiln_split_any_scalar(add, b, &inner) || !touch(m, add)) {
        return NULL;
    }
    const kiln_node *mul = kiln_made_by_only(inner, "Mul");
    if (mul && kiln_split_any_scalar(mul, a, &inner) && !touch(m, mul)) {
        return NULL;
    }
    const kiln_node *f = kiln_made_by_only(inner, "Erf");
    f = f ? f : kiln_made_by_only(inner, "Tanh");
    return f && touch(m, f) ? f : NULL;
}

/* The argument of f makes it GELU's; *tanh_form tells which. */
static bool is_argument(const kiln_node *f, const poly *u, bool *tanh_form) {
    static const double half_pi = 1.57079632679489661923;
    double slope = sqrt(1.0 / half_pi);
    *tanh_form = kiln_is_op(f, "Tanh");
    if (u->c[0] != 0.0 || u->c[2] != 0.0) {
        return false;
    }
    if (*tanh_form) {
        return is_near(u->c[1], slope) && is_near(u->c[3], slope * 0.044715);
    }
    return is_near(u->c[1], sqrt(0.5)) && u->c[3] == 0.0;
}

static kiln_status visit(kiln_patch *p, const kiln_node *n) {
    matcher m = {.n_touched = 0};
    product f = {.number = 1.0};
    if ((!kiln_is_op(n, "Mul") && !kiln_is_op(n, "Div")) || !kiln_is_float(n->out[0]) ||
        !read_product(&m, n->out[0], n->out[0], 0, &f) || f.n != 2) {
        return KILN_OK;
    }
    int n_product = m.n_touched;
    for (int side = 0; side < 2; side++) {
        double a, b;
        poly u;
        bool tanh_form;
        kiln_value *x = f.factors[1 - side];
        m.n_touched = n_product;
        const kiln_node *gate = read_gate(&m, f.factors[side], &a, &b);
        if (!gate || !is_near(a * f.number, 0.5) || !is_near(b * f.number, 0.5) ||
            !read_poly(&m, gate->in[0], x, 0, &u) || !is_argument(gate, &u, &tanh_form) ||
            !kiln_same_type(x, n->out[0])) {
            continue;
        }
        for (int i = 0; i < m.n_touched; i++) {
            kiln_patch_touch(p, m.touched[i]);
        }
        kiln_value *y = kiln_patch_node(p, "Gelu", &x, 1);
        kiln_patch_int(p, y, "approximate", tanh_form);
        kiln_patch_replace(p, n->out[0], y);
        return kiln_patch_commit(p, tanh_form ? "tanh form" : "erf form");
    }
    return KILN_OK;
}

const kiln_pass kiln_pass_gelu = {.name = "gelu", .visit = visit};
