/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a kernel is and when it began: its banner, build id, names, command line, clocks.
 *
 * Each is optional: what is not where it should be, or makes no sense, is left out.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "kernel.h"

#define SECOND UINT64_C(1000000000)

/* --- texts ----------------------------------------------------------------------------------------------------- */

static int read_banner(struct vmibus_linux *kernel, struct vmibus_linux_facts *facts) {
    uint64_t gva;
    int r = linux_symbol(kernel, "linux_banner", &gva);

    if (r == 0)
        r = linux_read_text(kernel, gva, facts->banner, sizeof(facts->banner));
    if (r == 0 && strncmp(facts->banner, "Linux version ", 14) != 0)
        r = VMIBUS_GUEST_UNPROVEN;
    facts->banner[strcspn(facts->banner, "\n")] = '\0';
    return r;
}

static int read_command_line(struct vmibus_linux *kernel, struct vmibus_linux_facts *facts) {
    uint64_t gva, text = 0;
    int r = linux_symbol(kernel, "saved_command_line", &gva);

    if (r == 0)
        r = linux_read_u64(kernel, gva, &text);
    return r ? r : linux_read_text(kernel, text, facts->command_line, sizeof(facts->command_line));
}

/* struct new_utsname (Linux include/uapi/linux/utsname.h): six texts of 65 octets, the second and last of which change. */
static int read_names(struct vmibus_linux *kernel, struct vmibus_linux_facts *facts) {
    enum { TEXT = 65, NODE = 1, DOMAIN = 5 };
    static const struct linux_wish wishes[] = {{"uts_namespace", "name", 0, false}, {}};
    struct linux_field name = {0};
    char texts[6][TEXT];
    uint64_t gva;
    int r = 0;

    if (!linux_note_symbol(kernel, "init_uts_ns", &gva))
        return VMIBUS_GUEST_NOT_FOUND;
    /* Until 5.10 the note does not have it. */
    if (!linux_note_number(kernel, "OFFSET(uts_namespace.name)", &name.offset))
        r = linux_fields_resolve(kernel, wishes, &name);
    if (r == 0)
        r = linux_read(kernel, gva + name.offset, texts, sizeof(texts));
    if (r)
        return r;
    if (memcmp(texts[0], "Linux", 6) != 0)
        return VMIBUS_GUEST_UNPROVEN;
    memcpy(facts->host_name, texts[NODE], TEXT - 1);
    memcpy(facts->domain_name, texts[DOMAIN], TEXT - 1);
    return 0;
}

/* --- build id -------------------------------------------------------------------------------------------------- */

static bool parse_build_id(const char *line, struct vmibus_linux_facts *facts) {
    for (size_t i = 0; i < sizeof(facts->build_id); i++) {
        unsigned int octet = 0;

        for (size_t k = 0; k < 2; k++) {
            char c = line[2 * i + k];

            if (c >= '0' && c <= '9')
                octet = octet << 4 | (unsigned int)(c - '0');
            else if (c >= 'a' && c <= 'f')
                octet = octet << 4 | (unsigned int)(c - 'a' + 10);
            else
                return false;   /* at the latest at the NUL that ends the note */
        }
        facts->build_id[i] = (uint8_t)octet;
    }
    facts->build_id_len = sizeof(facts->build_id);
    return line[2 * sizeof(facts->build_id)] == '\n';
}

/* The ELF notes of vmlinux, of which one has the build id: until 5.11 the VMCOREINFO note does not have it. */
static bool find_build_id(const uint8_t *notes, size_t len, struct vmibus_linux_facts *facts) {
    enum { NT_GNU_BUILD_ID = 3 };
    struct {
        uint32_t name_len, len, type;
    } head;

    for (size_t at = 0; len - at >= sizeof(head);) {
        size_t name_len, data_len;

        memcpy(&head, notes + at, sizeof(head));
        at += sizeof(head);
        name_len = ((size_t)head.name_len + 3) & ~(size_t)3;
        data_len = ((size_t)head.len + 3) & ~(size_t)3;
        if (name_len > len - at || data_len > len - at - name_len)
            return false;
        if (head.type == NT_GNU_BUILD_ID && head.name_len == 4 && memcmp(notes + at, "GNU", 4) == 0 && head.len > 0 &&
            head.len <= sizeof(facts->build_id)) {
            memcpy(facts->build_id, notes + at + name_len, head.len);
            facts->build_id_len = (uint8_t)head.len;
            return true;
        }
        at += name_len + data_len;
    }
    return false;
}

static int read_build_id(struct vmibus_linux *kernel, struct vmibus_linux_facts *facts) {
    const char *line = strstr(kernel->note_text, "\nBUILD-ID=");
    uint8_t notes[4096];
    uint64_t begin, end;
    int r;

    if (line && parse_build_id(line + strlen("\nBUILD-ID="), facts))
        return 0;
    r = linux_symbol(kernel, "__start_notes", &begin);
    if (r == 0)
        r = linux_symbol(kernel, "__stop_notes", &end);
    if (r)
        return r;
    if (end - begin > sizeof(notes))
        return VMIBUS_GUEST_UNPROVEN;
    r = linux_read(kernel, begin, notes, (size_t)(end - begin));
    if (r == 0 && !find_build_id(notes, (size_t)(end - begin), facts))
        r = VMIBUS_GUEST_NOT_FOUND;
    return r;
}

/* --- clocks ---------------------------------------------------------------------------------------------------- */

/* Members of struct timekeeper (Linux include/linux/timekeeper_internal.h). */
struct clock_fields {
    struct linux_field base, nanoseconds, shift, seconds, to_wall, to_boot;
    struct linux_field within;  /* the timekeeper in struct tk_data, which tk_core is since 6.13 */
    uint32_t sequence_size;     /* before that, it follows a sequence counter */
};

#define WISH(path, member) {"timekeeper", path, offsetof(struct clock_fields, member), false}

static const struct linux_wish clock_wishes[] = {
    WISH("tkr_mono.base", base),
    WISH("tkr_mono.xtime_nsec", nanoseconds),
    WISH("tkr_mono.shift", shift),
    WISH("xtime_sec", seconds),
    WISH("offs_real", to_wall),
    WISH("offs_boot", to_boot),
    {"tk_data", "timekeeper", offsetof(struct clock_fields, within), true},
    {},
};

struct clocks {
    uint64_t base, nanoseconds, shift, seconds, to_wall, to_boot;
};

static int read_clocks_once(struct vmibus_linux *kernel, const struct clock_fields *fields, uint64_t gva, struct clocks *clocks) {
    int r = linux_read_field(kernel, gva, &fields->base, &clocks->base);

    if (r == 0)
        r = linux_read_field(kernel, gva, &fields->nanoseconds, &clocks->nanoseconds);
    if (r == 0)
        r = linux_read_field(kernel, gva, &fields->shift, &clocks->shift);
    if (r == 0)
        r = linux_read_field(kernel, gva, &fields->seconds, &clocks->seconds);
    if (r == 0)
        r = linux_read_field(kernel, gva, &fields->to_wall, &clocks->to_wall);
    if (r == 0)
        r = linux_read_field(kernel, gva, &fields->to_boot, &clocks->to_boot);
    return r;
}

/* The sequence is odd while the clocks are being changed, and another one afterwards. */
static int read_clocks(struct vmibus_linux *kernel, const struct clock_fields *fields, uint64_t core, struct clocks *clocks) {
    enum { TRIES = 100 };
    uint64_t timekeeper = core + (fields->within.size ? fields->within.offset : (fields->sequence_size + 7) & ~UINT32_C(7));

    for (int i = 0; i < TRIES; i++) {
        uint32_t before, after;
        int r = linux_read_u32(kernel, core, &before);

        if (r == 0)
            r = read_clocks_once(kernel, fields, timekeeper, clocks);
        if (r == 0)
            r = linux_read_u32(kernel, core, &after);
        if (r || (before == after && !(before & 1)))
            return r;
    }
    return VMIBUS_GUEST_CHANGED;
}

/* Where the timekeeper lies is partly guessed: its wall clock says the same twice. */
static bool is_plausible(const struct clocks *clocks, uint64_t part) {
    uint64_t wall = clocks->base + part + clocks->to_wall;

    return clocks->shift < 64 && part < 2 * SECOND && wall - clocks->seconds * SECOND < 2 * SECOND &&
           clocks->to_boot < UINT64_C(1) << 62 && clocks->to_wall > clocks->to_boot;
}

/* Of several clocks since 6.17, the system's is the first (Linux kernel/time/timekeeping.c, TIMEKEEPER_CORE). */
static int find_core(struct vmibus_linux *kernel, uint64_t *core) {
    int r = linux_symbol(kernel, "tk_core", core);

    return r == VMIBUS_GUEST_NOT_FOUND ? linux_symbol(kernel, "timekeeper_data", core) : r;
}

static int read_times(struct vmibus_linux *kernel, struct vmibus_linux_facts *facts) {
    struct clock_fields fields = {0};
    struct clocks clocks = {0};
    uint64_t core, part;
    int r = linux_fields_resolve(kernel, clock_wishes, &fields);

    if (r == 0 && !fields.within.size) {
        r = linux_structure_size(kernel, "seqcount_raw_spinlock", &fields.sequence_size);
        if (r == VMIBUS_GUEST_NOT_FOUND)    /* until 5.9 */
            r = linux_structure_size(kernel, "seqcount", &fields.sequence_size);
    }
    if (r == 0)
        r = find_core(kernel, &core);
    if (r == 0)
        r = read_clocks(kernel, &fields, core, &clocks);
    if (r)
        return r;
    part = clocks.shift < 64 ? clocks.nanoseconds >> clocks.shift : 0;
    if (!is_plausible(&clocks, part))
        return VMIBUS_GUEST_UNPROVEN;
    facts->boot_time = clocks.to_wall - clocks.to_boot;
    facts->uptime = clocks.base + part + clocks.to_boot;
    return 0;
}

int vmibus_linux_read_facts(struct vmibus_linux *kernel, struct vmibus_linux_facts *facts) {
    static const struct {
        int (*read)(struct vmibus_linux *kernel, struct vmibus_linux_facts *facts);
        uint32_t flag;
    } parts[] = {
        {read_banner, VMIBUS_LINUX_HAS_BANNER},
        {read_build_id, VMIBUS_LINUX_HAS_BUILD_ID},
        {read_names, VMIBUS_LINUX_HAS_NAMES},
        {read_command_line, VMIBUS_LINUX_HAS_COMMAND_LINE},
        {read_times, VMIBUS_LINUX_HAS_CLOCKS},
    };

    memset(facts, 0, sizeof(*facts));
    memcpy(facts->release, kernel->note.release, sizeof(facts->release));
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        int r = parts[i].read(kernel, facts);

        if (r < 0)
            return r;
        if (r == 0)
            facts->flags |= parts[i].flag;
    }
    return 0;
}
