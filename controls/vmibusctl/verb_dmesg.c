/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl dmesg: the log of a Linux guest's kernel. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame_json.h"
#include "linux_guest.h"
#include "report.h"

struct log {
    FILE *text;                 /* one of these two is collected */
    struct json_list *list;
};

/* A record may have several lines: each bears its time, as dmesg(1) has it. */
static void print_record(FILE *stream, const struct vmibus_linux_record *record) {
    const char *at = record->text, *end = record->text + record->len;

    do {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;

        fprintf(stream, "[%5" PRIu64 ".%06" PRIu64 "] ", record->time / 1000000000, record->time / 1000 % 1000000);
        print_printable(stream, at, (size_t)(stop - at));
        fputc('\n', stream);
        at = newline ? newline + 1 : end;
    } while (at < end);
}

static struct json_object *record_json(const struct vmibus_linux_record *record) {
    struct json_object *object = json_object_new_object();

    json_object_object_add(object, "sequence", json_object_new_uint64(record->sequence));
    json_object_object_add(object, "time", json_object_new_uint64(record->time));
    json_object_object_add(object, "facility", json_object_new_int(record->facility));
    json_object_object_add(object, "level", json_object_new_int(record->level));
    json_object_object_add(object, "text", frame_json_text(record->text, record->len));
    return object;
}

static bool keep(void *context, const struct vmibus_linux_record *record) {
    struct log *log = context;

    if (log->list)
        json_list_add(log->list, record_json(record));
    else
        print_record(log->text, record);
    return true;
}

static int collect(struct linux_guest *guest, struct log *log, struct vmibus_linux_picture *picture) {
    int r = vmibus_linux_visit_log(guest->kernel, keep, log, picture);

    return r ? linux_guest_report(guest, r, "its log cannot be read") : linux_guest_let_go(guest);
}

static int show_text(struct linux_guest *guest) {
    struct vmibus_linux_picture picture;
    struct log log = {0};
    char *text = NULL;
    size_t len = 0;
    int r;

    log.text = open_memstream(&text, &len);
    if (!log.text)
        return report_failure("out of memory");
    r = collect(guest, &log, &picture);
    if (fclose(log.text) != 0)
        r = report_failure("out of memory");
    if (r == STATUS_OK) {
        fwrite(text, 1, len, stdout);
        linux_guest_say_picture(guest, &picture);
    }
    free(text);
    return r;
}

static int show_json(struct linux_guest *guest) {
    struct log log = {.list = json_list_new()};
    struct vmibus_linux_picture picture;
    int r = collect(guest, &log, &picture);

    if (r == STATUS_OK)
        linux_guest_print_json(guest, log.list, &picture);
    else
        json_list_free(log.list);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct linux_guest guest;
    int r = linux_guest_begin(ctl, arguments, arguments->words[0], &guest);

    if (r == STATUS_OK)
        r = ctl->json ? show_json(&guest) : show_text(&guest);
    return linux_guest_end(&guest, r);
}

static const struct option_description options[] = {
    LINUX_GUEST_OPTIONS,
    {},
};

const struct verb verb_dmesg = {
    .name = "dmesg",
    .synopsis = "VM",
    .summary = "show the log of a Linux guest's kernel",
    .min_words = 1,
    .max_words = 1,
    .options = options,
    .run = run,
};
