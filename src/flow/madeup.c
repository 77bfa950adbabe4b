#include "flow/madeup.h"

#include <string.h>

#include "ops/attrs.h"
#include "ops/ops.h"
#include "ops/util.h"

enum { BATCHES = 4, FIRST_DIM = 8, OTHER_DIM = 32, MAX_VALUES = 16 };

void kiln_made_up_init(kiln_made_up *m, const kiln_engine *engine, const kiln_graph *graph) {
    *m = (kiln_made_up){.engine = engine, .graph = graph, .batches = BATCHES};
}

/* What passes indices on as they are. */
static bool passes_on(const kiln_node *n) {
    const kiln_op *ops[] = {&kiln_op_cast,    &kiln_op_identity,  &kiln_op_reshape,
                            &kiln_op_squeeze, &kiln_op_unsqueeze, &kiln_op_flatten};
    for (size_t i = 0; i < KILN_COUNT_OF(ops); i++) {
        if (n->op == ops[i]) {
            return true;
        }
    }
    return false;
}

/* Rows of the constant table that v indexes at n; 0: it does not. */
static int64_t rows_of(const kiln_node *n, const kiln_value *v) {
    if (n->op != &kiln_op_gather || n->in[1] != v || !n->in[0]->constant) {
        return 0;
    }
    const kiln_type *t = &n->in[0]->type;
    int64_t axis = ((const kiln_axis_attrs *)n->attrs)->axis;
    axis += axis < 0 ? t->rank : 0;
    return axis >= 0 && axis < t->rank ? t->dims[axis] : 0;
}

/* Rows of the smallest constant table that v, or what passes it on, chooses from; 0: none. */
static int64_t table_rows(const kiln_value *v) {
    const kiln_value *list[MAX_VALUES] = {v};
    int64_t least = 0;
    for (int32_t n = 1, i = 0; i < n; i++) {
        for (int32_t k = 0; k < list[i]->n_users; k++) {
            const kiln_node *user = list[i]->users[k];
            int64_t rows = rows_of(user, list[i]);
            least = rows > 0 && (least == 0 || rows < least) ? rows : least;
            if (n < MAX_VALUES && passes_on(user) && user->in[0] == list[i]) {
                list[n++] = user->out[0];
            }
        }
    }
    return least;
}

static const kiln_value *input_of(const kiln_graph *g, const char *name) {
    for (size_t i = 0; i < g->n_inputs; i++) {
        if (strcmp(g->inputs[i]->name, name) == 0) {
            return g->inputs[i];
        }
    }
    return NULL;
}

static kiln_status add(const kiln_made_up *m, const kiln_io *io, kiln_tensors *out,
                       kiln_diag *diag) {
    kiln_shape shape = {.name = io->name, .rank = io->rank};
    const kiln_value *v = input_of(m->graph, io->name);
    int64_t rows = v && kiln_dtype_is_int(io->dtype) ? table_rows(v) : 0;
    for (int32_t d = 0; d < io->rank && d < KILN_MAX_RANK; d++) {
        bool free_dim = io->dims[d] < 0 && !io->has_range;
        shape.dims[d] = !free_dim ? -1 : d == 0 ? FIRST_DIM : OTHER_DIM;
    }
    const kiln_generate_options g = {.size = sizeof g,
                                     .seed = (uint64_t)m->done + 1,
                                     .has_range = rows > 0,
                                     .max = (double)(rows - 1),
                                     .shapes = &shape,
                                     .n_shapes = io->rank >= 0 ? 1 : 0};
    return kiln_tensors_generate(out, io, &g, diag);
}

kiln_status kiln_made_up_next(void *made_up, kiln_tensors *out, kiln_diag *diag) {
    kiln_made_up *m = made_up;
    kiln_io io;
    for (size_t i = 0; m->done < m->batches && kiln_engine_input(m->engine, i, &io); i++) {
        KILN_TRY(add(m, &io, out, diag));
    }
    m->done++;
    return KILN_OK;
}
