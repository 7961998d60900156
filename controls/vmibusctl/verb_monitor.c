/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmibusctl monitor: what is retained, then what happens.
 *
 * Everything that comes is shown, the subscription's ACK too, so that each delivery number is seen and a
 * hole would show.  Where the roster is not asked for, the names are fetched before.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <vmibus/names.h>

#include "frame_json.h"
#include "frame_text.h"
#include "report.h"
#include "roster.h"
#include "units.h"

#define MONITOR_KINDS (ROSTER_KINDS | VMIBUS_KIND_BIT(VMIBUS_KIND_SENSOR))

struct monitor {
    struct vmibusctl *ctl;
    struct roster roster;
    uint64_t correlation;   /* of SUBSCRIBE */
    uint64_t last;          /* delivery number, 0: none yet */
    uint64_t shown;
    uint64_t bound;         /* --count; 0: none */
    int status;
    bool ended;
};

static const char *vm_name(struct monitor *monitor, const struct vmibus_message *message) {
    const struct vmibus_header *header = &message->frame.header;
    const struct vm *vm = roster_find(&monitor->roster, header->slot, header->generation);
    static char name[VMIBUS_NAME_BOUND + 1];

    if (header->kind == VMIBUS_KIND_ROSTER) {
        snprintf(name, sizeof(name), "%.*s", (int)header->tail_length, (const char *)message->tail);
        return name;
    }
    return vm ? vm->name : "";
}

static void show_json(struct monitor *monitor, const struct vmibus_message *message) {
    struct json_object *object = frame_json_message(message);
    const char *name = vm_name(monitor, message);

    if (*name)
        json_object_object_add(object, "name", frame_json_text(name, strlen(name)));
    frame_json_print(object);
}

static void show_text(struct monitor *monitor, const struct vmibus_message *message) {
    const struct vmibus_frame *frame = &message->frame;
    const char *kind = vmibus_kind_name(frame->header.kind), *name = vm_name(monitor, message);

    printf("#%" PRIu64 " ", frame->header.delivery);
    if (*name)
        printf("%s ", printable(name));
    else if (frame->header.slot)
        printf("slot %" PRIu32 " ", frame->header.slot);
    if (kind)
        printf("%s", kind);
    else
        printf("0x%04x", frame->header.kind);
    frame_text_line(frame);
    printf("%s\n", frame->header.flags & VMIBUS_FRAME_RETAINED ? " (retained)" : "");
}

static void check_delivery(struct monitor *monitor, uint64_t delivery) {
    if (monitor->last && delivery != monitor->last + 1) {
        fprintf(stderr, "vmibusctl: HOLE: delivery %" PRIu64 " follows %" PRIu64 "; the bus should have told what was dropped.\n",
                delivery, monitor->last);
        monitor->status = STATUS_HOLE;
    }
    monitor->last = delivery;
}

static void end(struct monitor *monitor, int status) {
    monitor->ended = true;
    if (status)
        monitor->status = status;
}

static void handle(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct monitor *monitor = userdata;
    const struct vmibus_header *header = &message->frame.header;

    (void)bus;
    if (monitor->ended)
        return;
    check_delivery(monitor, header->delivery);
    roster_learn(&monitor->roster, message);
    if (monitor->ctl->json)
        show_json(monitor, message);
    else
        show_text(monitor, message);
    if (header->kind == VMIBUS_KIND_ACK && header->correlation == monitor->correlation) {
        if (message->frame.ack.error)
            end(monitor, report_refusal(monitor->ctl, message->frame.ack.error, NULL, "cannot subscribe"));
        return;
    }
    if (++monitor->shown == monitor->bound)
        end(monitor, STATUS_OK);
}

static int parse_kinds(const char *text, uint64_t *kinds) {
    char word[64];

    *kinds = 0;
    while (*text) {
        size_t n = strcspn(text, ",");
        int kind;

        snprintf(word, sizeof(word), "%.*s", (int)(n < sizeof(word) ? n : sizeof(word) - 1), text);
        kind = vmibus_kind_from_name(word);
        if (kind < 0x0100 || kind > 0x013f)
            return vmibusctl_usage("kind", word,
                                   "events are roster, lifecycle, memctx, memctx_invalidated, lease, sensor, process, module");
        *kinds |= VMIBUS_KIND_BIT(kind);
        text += text[n] ? n + 1 : n;
    }
    return *kinds ? STATUS_OK : vmibusctl_usage("--kinds", NULL, "names no kind");
}

static int subscribe(struct monitor *monitor, const char *pattern, uint64_t kinds) {
    struct vmibus_frame frame;
    int r;

    vmibus_command_init(&frame, VMIBUS_KIND_SUBSCRIBE, NULL);
    frame.subscribe.kinds = kinds;
    r = vmibus_send(monitor->ctl->bus, &frame, pattern, strlen(pattern), &monitor->correlation);
    return r ? report_refusal(monitor->ctl, r, NULL, "cannot subscribe") : STATUS_OK;
}

static int begin(struct vmibusctl *ctl, uint64_t kinds, struct roster *roster) {
    int r;

    if (kinds & VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER))
        r = vmibusctl_connect(ctl);
    else
        r = roster_fetch(ctl, roster);
    /* A subscription that is there already, fetched or left by the last borrower, would not be replayed. */
    if (r == STATUS_OK && (vmibus_is_lent(ctl->bus) || !(kinds & VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER))))
        roster_unsubscribe(ctl);
    return r;
}

static int64_t now_ms(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int watch(struct monitor *monitor, uint64_t seconds) {
    int64_t deadline = now_ms() + (int64_t)seconds * 1000;

    while (!monitor->ended) {
        int timeout_ms = -1, r;

        if (seconds) {
            timeout_ms = (int)(deadline - now_ms());
            if (timeout_ms <= 0)
                break;
        }
        r = vmibus_wait(monitor->ctl->bus, timeout_ms);
        if (r < 0 && r != -ETIMEDOUT && r != -EINTR)
            return report_refusal(monitor->ctl, r, NULL, "cannot go on watching");
    }
    return monitor->status;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    const char *pattern = arguments->n_words ? arguments->words[0] : "*";
    const char *kinds_text = arguments_get(arguments, "kinds"), *count = arguments_get(arguments, "count");
    const char *seconds_text = arguments_get(arguments, "for");
    struct monitor monitor = {.ctl = ctl};
    uint64_t kinds = MONITOR_KINDS, seconds = 0;
    int r;

    if (strlen(pattern) == 0 || strlen(pattern) > VMIBUS_NAME_BOUND)
        return vmibusctl_usage("pattern", pattern, "it has 1 to 255 octets");
    if (kinds_text && parse_kinds(kinds_text, &kinds))
        return STATUS_USAGE;
    if (count && (!units_parse_number(count, UINT64_MAX, &monitor.bound) || !monitor.bound))
        return vmibusctl_usage("--count", count, "it is a number from 1");
    if (seconds_text && (!units_parse_number(seconds_text, 1000000, &seconds) || !seconds))
        return vmibusctl_usage("--for", seconds_text, "it is a number of seconds, 1 to 1000000");
    setvbuf(stdout, NULL, _IOLBF, 0);
    r = begin(ctl, kinds, &monitor.roster);
    if (r)
        return r;
    vmibus_set_handler(ctl->bus, handle, &monitor);
    r = subscribe(&monitor, pattern, kinds);
    if (r == STATUS_OK)
        r = watch(&monitor, seconds);
    vmibus_set_handler(ctl->bus, NULL, NULL);
    roster_deinit(&monitor.roster);
    return r;
}

static const struct option_description options[] = {
    {"kinds", "A,B", "only these kinds of events"},
    {"count", "N", "end after N events"},
    {"for", "SECONDS", "end after that time"},
    {},
};

const struct verb verb_monitor = {
    .name = "monitor",
    .synopsis = "[PATTERN]",
    .summary = "show what is retained, then events as they happen",
    .max_words = 1,
    .options = options,
    .run = run,
};
