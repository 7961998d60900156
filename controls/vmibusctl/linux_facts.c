/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "linux_facts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "frame_json.h"
#include "linux_guest.h"
#include "report.h"
#include "units.h"

#define SECOND UINT64_C(1000000000)

static void print_time(uint64_t boot_time) {
    time_t seconds = (time_t)(boot_time / SECOND);
    char text[64] = "";
    struct tm tm;

    if (gmtime_r(&seconds, &tm))
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &tm);
    printf("  boot_time    %s\n", text);
}

/* What may be longer than printable() takes. */
static void print_long(const char *key, const char *text) {
    printf("  %-12s ", key);
    print_printable(stdout, text, strlen(text));
    putchar('\n');
}

static void print_text(const struct linux_guest *guest, const struct vmibus_linux_facts *facts) {
    char hex[2 * sizeof(facts->build_id) + 1];

    printf("%s: Linux %s\n", printable(guest->name), printable(facts->release));
    if (facts->flags & VMIBUS_LINUX_HAS_BANNER)
        print_long("banner", facts->banner);
    if (facts->flags & VMIBUS_LINUX_HAS_BUILD_ID)
        printf("  build_id     %s\n", units_hex(facts->build_id, facts->build_id_len, hex));
    if (facts->flags & VMIBUS_LINUX_HAS_NAMES)
        printf("  host_name    %s\n  domain_name  %s\n", printable(facts->host_name), printable(facts->domain_name));
    if (facts->flags & VMIBUS_LINUX_HAS_COMMAND_LINE)
        print_long("command_line", facts->command_line);
    if (facts->flags & VMIBUS_LINUX_HAS_CLOCKS) {
        print_time(facts->boot_time);
        printf("  uptime       %" PRIu64 ".%02" PRIu64 " s\n", facts->uptime / SECOND, facts->uptime / (SECOND / 100) % 100);
    }
}

static void add_text(struct json_object *object, const char *key, const char *text) {
    json_object_object_add(object, key, frame_json_text(text, strlen(text)));
}

static void print_json(const struct linux_guest *guest, const struct vmibus_linux_facts *facts) {
    struct json_object *object = json_object_new_object();

    json_object_object_add(object, "epoch", json_object_new_uint64(guest->memory.attachment->epoch));
    add_text(object, "release", facts->release);
    if (facts->flags & VMIBUS_LINUX_HAS_BANNER)
        add_text(object, "banner", facts->banner);
    if (facts->flags & VMIBUS_LINUX_HAS_BUILD_ID)
        json_object_object_add(object, "build_id", frame_json_hex(facts->build_id, facts->build_id_len));
    if (facts->flags & VMIBUS_LINUX_HAS_NAMES) {
        add_text(object, "host_name", facts->host_name);
        add_text(object, "domain_name", facts->domain_name);
    }
    if (facts->flags & VMIBUS_LINUX_HAS_COMMAND_LINE)
        add_text(object, "command_line", facts->command_line);
    if (facts->flags & VMIBUS_LINUX_HAS_CLOCKS) {
        json_object_object_add(object, "boot_time", json_object_new_uint64(facts->boot_time));
        json_object_object_add(object, "uptime", json_object_new_uint64(facts->uptime));
    }
    frame_json_print(object);
}

static int show(struct linux_guest *guest) {
    struct vmibus_linux_facts facts;
    int r = vmibus_linux_read_facts(guest->kernel, &facts);

    if (r)
        return linux_guest_report(guest, r, "what its kernel is cannot be read");
    r = linux_guest_let_go(guest);
    if (r == STATUS_OK && guest->ctl->json)
        print_json(guest, &facts);
    else if (r == STATUS_OK)
        print_text(guest, &facts);
    return r;
}

int linux_facts_show(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct linux_guest guest;
    int r = linux_guest_begin(ctl, arguments, arguments->words[0], &guest);

    return linux_guest_end(&guest, r == STATUS_OK ? show(&guest) : r);
}
