#include "ops/cost.h"

#include "base/checked.h"
#include "ops/ops.h"

static int64_t saturated_sum(int64_t a, int64_t b) {
    int64_t sum;
    return kiln_add_i64(a, b, &sum) ? sum : INT64_MAX;
}

static int64_t macs_in(const kiln_node *n, kiln_arena *scratch) {
    kiln_fact *facts = kiln_arena_array(scratch, (size_t)(n->n_in + n->n_out), sizeof *facts);
    for (int32_t k = 0; facts && k < n->n_in + n->n_out; k++) {
        const kiln_value *v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
        if (!v) {
            continue;
        }
        facts[k] = kiln_value_fact(v);
        kiln_dim *dims =
            kiln_arena_array(scratch, (size_t)(v->type.rank > 0 ? v->type.rank : 0), sizeof *dims);
        for (int32_t d = 0; dims && d < v->type.rank; d++) {
            dims[d] = kiln_dim_known(v->type.dims[d]) ? v->type.dims[d] : 1;
        }
        facts[k].type.dims = dims;
        if (!dims || v->type.kind != KILN_KIND_TENSOR || v->type.rank < 0) {
            return 0;
        }
    }
    kiln_cost cost = {0};
    if (facts && n->op->cost) {
        n->op->cost(n, facts, facts + n->n_in, &cost);
    }
    return cost.macs;
}

int64_t kiln_node_macs(const kiln_node *node, const kiln_env *env) {
    kiln_arena scratch;
    kiln_arena_init(&scratch, env);
    int64_t macs = macs_in(node, &scratch);
    kiln_arena_free(&scratch);
    return macs;
}

int64_t kiln_graph_macs(const kiln_graph *g) {
    kiln_arena scratch;
    kiln_arena_init(&scratch, g->env);
    int64_t sum = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        sum = saturated_sum(sum, macs_in(g->nodes[i], &scratch));
        kiln_arena_recycle(&scratch);
        for (int32_t b = 0; b < g->nodes[i]->n_bodies; b++) {
            sum = saturated_sum(sum, kiln_graph_macs(g->nodes[i]->bodies[b]));
        }
    }
    kiln_arena_free(&scratch);
    return sum;
}
