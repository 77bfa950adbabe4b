/* boxes_simd.c - the test of boxes.h, a vector of boxes at a time. */
#include "backend/cpu/prims/boxes.h"
#include "backend/cpu/prims/simd.h"

/* The query, each number in every lane. */
typedef struct query {
    kiln_vf y0, x0, y1, x1, area, common, both;
} query;

KILN_INLINE query spread(const kiln_box_query *q) {
    return (query){vf_set1(q->box.y0),   vf_set1(q->box.x0), vf_set1(q->box.y1), vf_set1(q->box.x1),
                   vf_set1(q->box.area), vf_set1(q->common), vf_set1(q->both)};
}

/* Written so that what is no number is in doubt. */
KILN_INLINE kiln_vm may_overlap(const query *q, kiln_vf y0, kiln_vf x0, kiln_vf y1, kiln_vf x1,
                                kiln_vf area) {
    kiln_vf top = vf_min(y1, q->y1), bottom = vf_max(y0, q->y0);
    kiln_vf right = vf_min(x1, q->x1), left = vf_max(x0, q->x0);
    kiln_vf common = vf_mul(vf_sub(top, bottom), vf_sub(right, left));
    kiln_vf want = vf_mul(vf_add(area, q->area), q->both);
    kiln_vf have = vf_add(vf_mul(common, q->common), vf_set1(KILN_BOX_TINY));
    kiln_vm touch = vm_and(vf_lt(bottom, top), vf_lt(left, right));
    return vm_and(touch, vm_not(vf_lt(have, want)));
}

static int64_t next(const kiln_box_list *l, int64_t begin, int64_t end,
                    const kiln_box_query *from) {
    query q = spread(from);
    for (int64_t i = begin; i < end; i += KILN_VLEN) {
        kiln_vm in = vm_tail(i64_min(end - i, KILN_VLEN));
        bool whole = i + KILN_VLEN <= end;
        kiln_vm may = may_overlap(&q, whole ? vf_load(l->y0 + i) : vf_load_mask(l->y0 + i, in),
                                  whole ? vf_load(l->x0 + i) : vf_load_mask(l->x0 + i, in),
                                  whole ? vf_load(l->y1 + i) : vf_load_mask(l->y1 + i, in),
                                  whole ? vf_load(l->x1 + i) : vf_load_mask(l->x1 + i, in),
                                  whole ? vf_load(l->area + i) : vf_load_mask(l->area + i, in));
        may = vm_and(may, in);
        if (vm_any(may)) {
            float lanes[KILN_VLEN];
            vf_store(lanes, vf_select(may, vf_set1(1), vf_zero()));
            int64_t k = 0;
            while (lanes[k] == 0) {
                k++;
            }
            return i + k;
        }
    }
    return end;
}

const kiln_boxes_prims KILN_ISA_SYMBOL(kiln_boxes_prims) = {
    .next = next,
};
