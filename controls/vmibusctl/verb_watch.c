/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmibusctl watch: changes of guest memory, as they are seen.
 *
 * The watch is the connection's: it ends with this process however that ends.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "frame_json.h"
#include "process_space.h"
#include "report.h"
#include "roster.h"
#include "units.h"

#define RANGE_BOUND 65536
#define SHOWN_OCTETS 32

struct watching {
    struct vmibusctl *ctl;
    const struct vm *vm;
    uint32_t watch;
    uint64_t shown, bound; /* changes; 0: no bound */
    bool ended;
    int status;
};

static void print_octets(const uint8_t *octets, size_t n) {
    for (size_t i = 0; i < n && i < SHOWN_OCTETS; i++)
        printf("%02x", octets[i]);
    if (n > SHOWN_OCTETS)
        fputs("...", stdout);
}

static void print_change(const struct vmibus_message *message) {
    const struct vmibus_watch_changed *changed = &message->frame.watch_changed;
    size_t half = message->frame.header.tail_length / 2;

    printf("0x%016" PRIx64 " %" PRIu32, changed->address, changed->len);
    if (changed->flags & VMIBUS_WATCH_CHANGE_UNREADABLE) {
        fputs("  ", stdout);
        print_octets(message->tail, message->frame.header.tail_length);
    } else if (half) {
        fputs("  ", stdout);
        print_octets(message->tail, half);
        fputs(" -> ", stdout);
        print_octets((const uint8_t *)message->tail + half, half);
    }
    if (changed->looks > 1)
        printf("  (%" PRIu32 " looks)", changed->looks);
    if (changed->flags & VMIBUS_WATCH_CHANGE_UNREADABLE)
        fputs("  it cannot be read any more", stdout);
    if (changed->flags & VMIBUS_WATCH_CHANGE_READABLE)
        fputs("  it can be read again", stdout);
    putchar('\n');
}

static void end(struct watching *watching, int status) {
    watching->ended = true;
    watching->status = status;
}

static void show(struct watching *watching, const struct vmibus_message *message) {
    const struct vmibus_watch_changed *changed = &message->frame.watch_changed;
    bool over = changed->flags & VMIBUS_WATCH_CHANGE_ENDED;

    if (watching->ctl->json)
        frame_json_print(frame_json_message(message));
    else if (!over)
        print_change(message);
    if (over) {
        report_failure("the watch of %s is over: its epoch has ended, or nobody watches this VM any more; begin anew",
                       printable(watching->vm->name));
        end(watching, STATUS_REFUSED + VMIBUS_ERROR_STALE_EPOCH);
    } else if (++watching->shown == watching->bound)
        end(watching, STATUS_OK);
}

static void handle(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    const struct vmibus_frame *frame = &message->frame;
    struct watching *watching = userdata;

    (void)bus;
    if (watching->ended)
        return;
    if (frame->header.kind == VMIBUS_KIND_WATCH_CHANGED && frame->watch_changed.watch == watching->watch)
        show(watching, message);
    else if (frame->header.kind == VMIBUS_KIND_GAP && frame->gap.dropped == VMIBUS_KIND_WATCH_CHANGED)
        fprintf(stderr, "vmibusctl: %" PRIu32 " changes came too fast to be told.\n", frame->gap.count);
}

static int begin(struct watching *watching, const struct vmibus_watch *watch) {
    struct vmibus_message reply;
    struct vmibus_frame frame;
    int r;

    vmibus_command_init(&frame, VMIBUS_KIND_WATCH, &watching->vm->endpoint);
    frame.watch = *watch;
    r = vmibus_call(watching->ctl->bus, &frame, NULL, 0, &reply);
    watching->watch = (uint32_t)reply.frame.ack.value;
    if (r)
        r = report_refusal(watching->ctl, r, &reply, "cannot watch %s", printable(watching->vm->name));
    vmibus_message_deinit(&reply);
    return r;
}

static int go_on(struct watching *watching) {
    while (!watching->ended) {
        int r = vmibus_wait(watching->ctl->bus, -1);

        if (r < 0 && r != -ETIMEDOUT && r != -EINTR)
            return report_refusal(watching->ctl, r, NULL, "cannot go on watching %s", printable(watching->vm->name));
    }
    return watching->status;
}

static int watch_vm(struct vmibusctl *ctl, const struct vm *vm, const struct vmibus_watch *watch, uint64_t bound) {
    struct watching watching = {.ctl = ctl, .vm = vm, .bound = bound};
    int r;

    roster_unsubscribe(ctl);
    setvbuf(stdout, NULL, _IOLBF, 0);
    r = begin(&watching, watch);
    if (r)
        return r;
    vmibus_set_handler(ctl->bus, handle, &watching);
    r = go_on(&watching);
    vmibus_set_handler(ctl->bus, NULL, NULL);
    return r;
}

static int parse(const struct arguments *arguments, struct vmibus_watch *watch, uint64_t *bound) {
    const char *cr3 = arguments_get(arguments, "cr3"), *interval = arguments_get(arguments, "interval");
    const char *count = arguments_get(arguments, "count");
    uint64_t len, ms = 0;

    *watch = (struct vmibus_watch){.operation = VMIBUS_WATCH_OPERATION_ADD,
                                   .flags = arguments_get(arguments, "physical") ? VMIBUS_WATCH_PHYSICAL : 0};
    if (!units_parse_number(arguments->words[1], UINT64_MAX, &watch->address))
        return vmibusctl_usage("address", arguments->words[1], "it is decimal, or 0x and hexadecimal");
    if (!units_parse_length(arguments->words[2], &len) || len > RANGE_BOUND)
        return vmibusctl_usage("length", arguments->words[2], "it is a number of octets, 1 to 64K");
    if (cr3 && (watch->flags || !units_parse_number(cr3, UINT64_MAX, &watch->cr3)))
        return vmibusctl_usage("--cr3", cr3, "it is the address of a page-table root, and not for --physical");
    if (interval && !units_parse_number(interval, 86400000, &ms))
        return vmibusctl_usage("--interval", interval, "it is a number of milliseconds");
    if (count && (!units_parse_number(count, UINT64_MAX, bound) || !*bound))
        return vmibusctl_usage("--count", count, "it is a number from 1");
    watch->len = (uint32_t)len;
    watch->interval_ms = (uint32_t)ms;
    return STATUS_OK;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    const char *pid = arguments_get(arguments, "pid");
    struct roster roster = {};
    struct vmibus_watch watch;
    uint64_t bound = 0;
    struct vm *vm;
    int r = parse(arguments, &watch, &bound);

    if (r == STATUS_OK)
        r = process_space_check(arguments);
    if (r == STATUS_OK)
        r = roster_fetch(ctl, &roster);
    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK && pid)
        r = process_space_find(ctl, vm, pid, &watch.cr3);
    if (r == STATUS_OK)
        r = watch_vm(ctl, vm, &watch, bound);
    roster_deinit(&roster);
    return r;
}

static const struct option_description options[] = {
    {"physical", NULL, "ADDR is guest-physical"},
    {"cr3", "ADDR", "translate by this page-table root; without it by the kernel's"},
    PROCESS_SPACE_OPTION,
    {"interval", "MS", "milliseconds between two looks; without it as short as may be"},
    {"count", "N", "end after N changes"},
    {},
};

const struct verb verb_watch = {
    .name = "watch",
    .synopsis = "VM ADDR LEN",
    .summary = "show changes of guest memory as they happen",
    .min_words = 3,
    .max_words = 3,
    .options = options,
    .run = run,
};
