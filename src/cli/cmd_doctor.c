/* cmd_doctor.c - this machine as Kiln sees it. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

typedef struct own {
    bool probe;
    int64_t threads;
} own;

static void json_rate(json *j, const char *name, const kiln_probe_rate *r) {
    json_key(j, name);
    json_open(j, '{');
    json_key_number(j, "one_thread", r->one);
    json_key_number(j, "all_threads", r->all);
    json_close(j);
}

static void json_probe(json *j, const kiln_probe *p) {
    json_key(j, "probe");
    json_open(j, '{');
    json_key_int(j, "threads", p->threads);
    json_key_number(j, "clock_ghz", p->clock_ghz);
    json_key_number(j, "fork_join_us", p->fork_join_us);
    json_key_number(j, "barrier_us", p->barrier_us);
    json_key(j, "gmac_per_s");
    json_open(j, '{');
    for (size_t i = 0; i < p->n_products; i++) {
        json_rate(j, p->products[i].name, &p->products[i]);
    }
    json_close(j);
    json_key(j, "gb_per_s");
    json_open(j, '{');
    for (size_t i = 0; i < p->n_levels; i++) {
        json_rate(j, keepf("%s read", p->levels[i].name), &p->levels[i].read);
        json_rate(j, keepf("%s write", p->levels[i].name), &p->levels[i].write);
    }
    json_close(j);
    json_close(j);
}

static void show_json(const cli *c, const kiln_probe *probe) {
    json j = json_begin(c, "kiln.doctor/1");
    const char *name, *version;
    bool available;
    json_machine(&j);
    json_key(&j, "instruction_sets");
    json_open(&j, '{');
    for (size_t i = 0; (name = kiln_isa_get(i, &available)) != NULL; i++) {
        json_key_bool(&j, name, available);
    }
    json_close(&j);
    json_key_text(&j, "max_isa", getenv("KILN_MAX_ISA"));
    json_key(&j, "libraries");
    json_open(&j, '{');
    for (size_t i = 0; (name = kiln_library_get(i, &version)) != NULL; i++) {
        json_key_text(&j, name, version);
    }
    json_close(&j);
    if (probe) {
        json_probe(&j, probe);
    }
    json_end(&j);
}

static void fact(table *t, const char *name, const char *value) {
    table_cell(t, "%s", name);
    table_cell(t, "%s", value);
}

static const char *isa_text(void) {
    const char *name, *text = "";
    bool available;
    for (size_t i = 0; (name = kiln_isa_get(i, &available)) != NULL; i++) {
        text = keepf("%s%s%s %s", text, *text ? ", " : "", name, available ? "yes" : "no");
    }
    return text;
}

static void show_probe(const cli *c, const kiln_probe *p) {
    table *t = table_new(keepf("at most|>1 thread|>%d threads|unit", p->threads));
    for (size_t i = 0; i < p->n_products; i++) {
        table_cell(t, "%s", p->products[i].name);
        table_cell(t, "%.1f", p->products[i].one);
        table_cell(t, "%.1f", p->products[i].all);
        table_cell(t, "GMAC/s");
    }
    for (size_t i = 0; i < 2 * p->n_levels; i++) {
        const kiln_probe_level *l = &p->levels[i / 2];
        const kiln_probe_rate *r = i % 2 ? &l->write : &l->read;
        table_cell(t, "%s %s (%s)", l->name, i % 2 ? "written" : "read",
                   bytes_text((double)l->bytes));
        table_cell(t, "%.1f", r->one);
        table_cell(t, "%.1f", r->all);
        table_cell(t, "GB/s");
    }
    table_print(t, c->format);
}

static void show_table(const cli *c, const kiln_probe *p) {
    const char *name, *version, *limit = getenv("KILN_MAX_ISA");
    kiln_machine m;
    kiln_machine_describe(&m);
    table *t = table_new("what|");
    fact(t, "kiln", kiln_version());
    fact(t, "processor", m.cpu[0] ? m.cpu : "?");
    fact(t, "instruction set",
         limit && *limit ? keepf("%s (KILN_MAX_ISA=%s)", m.isa, limit) : m.isa);
    fact(t, "may use", isa_text());
    fact(t, "cores",
         keepf("%d online, %d allowed by affinity, %d usable under the CPU quota", m.cores_online,
               m.cores_allowed, m.cores_usable));
    fact(t, "caches",
         keepf("L1d %s, L2 %s, L3 %s", bytes_text((double)m.l1d_bytes),
               bytes_text((double)m.l2_bytes), bytes_text((double)m.l3_bytes)));
    fact(t, "memory", bytes_text((double)m.memory_bytes));
    fact(t, "load", m.load < 0 ? "?" : keepf("%.2f", m.load));
    fact(t, "frequency governor", m.governor[0] ? m.governor : "not known");
    if (p) {
        fact(t, "clock", keepf("%.2f GHz under load", p->clock_ghz));
        fact(t, "threads",
             keepf("fork and join %.2f us, barrier %.2f us", p->fork_join_us, p->barrier_us));
    }
    for (size_t i = 0; (name = kiln_library_get(i, &version)) != NULL; i++) {
        fact(t, name, version);
    }
    table_print(t, c->format);
    if (p) {
        putchar('\n');
        show_probe(c, p);
    }
}

static int run(cli *c, void *given) {
    const own *o = given;
    kiln_probe probe;
    if (o->probe && !c->dry_run) {
        say(c, KILN_LOG_INFO, "%-8s about two seconds of full load", "probe");
        kiln_status status = kiln_probe_run(&probe, (int32_t)o->threads, c->env, c->diag);
        if (status != KILN_OK) {
            return finish(c, status);
        }
    }
    const kiln_probe *found = o->probe && !c->dry_run ? &probe : NULL;
    if (c->format == FORMAT_JSON) {
        show_json(c, found);
    } else {
        show_table(c, found);
    }
    verdict(c, true, "%s", "");
    return 0;
}

static const opt options[] = {
    {.name = "probe",
     .kind = OPT_FLAG,
     .at = offsetof(own, probe),
     .help = "measure the machine's limits too: clock, multiply-adds, bandwidth, threads"},
    {.name = "threads",
     .kind = OPT_INT,
     .value = "N",
     .min = 1,
     .at = offsetof(own, threads),
     .help = "that are probed together [all usable cores]"},
};

static const example examples[] = {
    {"kiln doctor", "processor, instruction sets, cores, libraries"},
    {"kiln doctor --probe", "and what it can do at most"},
    {"KILN_MAX_ISA=avx2 kiln doctor", "what a lower instruction set leaves"},
};

static const opt_group *const groups[] = {&group_common, NULL};

const verb verb_doctor = {
    .name = "doctor",
    .summary = "show this machine as Kiln sees it",
    .operands = "",
    .about = "Shows versions, the processor and which instruction sets may be used, cores under "
             "affinity and CPU quota, memory, load, and the libraries Kiln runs with. "
             "KILN_MAX_ISA with a name that is no instruction set is an error, here and in every "
             "verb.",
    EXAMPLES(examples),
    OPTIONS(options, own),
    .groups = groups,
    .run = run};
