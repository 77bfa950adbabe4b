/* cmd_doctor.c - this machine as Kiln sees it. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static void show_json(const cli *c) {
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

static void show_table(const cli *c) {
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
    for (size_t i = 0; (name = kiln_library_get(i, &version)) != NULL; i++) {
        fact(t, name, version);
    }
    table_print(t, c->format);
}

static int run(cli *c, void *given) {
    (void)given;
    if (c->format == FORMAT_JSON) {
        show_json(c);
    } else {
        show_table(c);
    }
    verdict(c, true, "%s", "");
    return 0;
}

static const example examples[] = {
    {"kiln doctor", "processor, instruction sets, cores, libraries"},
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
    .groups = groups,
    .run = run};
