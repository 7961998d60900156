/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl screenshot: a picture of a VM's display. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frame_json.h"
#include "new_file.h"
#include "report.h"
#include "roster.h"
#include "units.h"

static bool ends_with(const char *text, const char *ending) {
    size_t n = strlen(text), m = strlen(ending);

    return n >= m && strcmp(text + n - m, ending) == 0;
}

/* Copies what the bus gave, which cannot change any more. */
static int copy(const struct vmibus_message *reply, int to, const char *path) {
    char octets[65536];
    uint64_t at = 0, end = reply->frame.ack.count;
    struct stat status;

    if (reply->frame.header.fd_count != 1 || fstat(reply->fds[0], &status) < 0 || (uint64_t)status.st_size != end)
        return report_failure("the answer holds no picture");
    while (at < end) {
        ssize_t n = pread(reply->fds[0], octets, sizeof(octets), (off_t)at), written = 0;

        if (n <= 0)
            return report_failure("the picture cannot be read: %s", n ? strerror(errno) : "it is cut");
        while (written < n) {
            ssize_t m = write(to, octets + written, (size_t)(n - written));

            if (m < 0 && errno != EINTR)
                return report_failure("%s: %s", printable(path), strerror(errno));
            written += m > 0 ? m : 0;
        }
        at += (uint64_t)n;
    }
    return STATUS_OK;
}

static int keep(const struct vmibus_message *reply, const char *path, bool replace) {
    struct new_file file;
    int r;

    if (strcmp(path, "-") == 0)
        return copy(reply, STDOUT_FILENO, "standard output");
    r = new_file_begin(&file, path, replace);
    if (r == STATUS_OK)
        r = copy(reply, file.fd, path);
    if (r == STATUS_OK)
        r = new_file_finish(&file);
    new_file_abandon(&file);
    return r;
}

static void tell(const struct vmibusctl *ctl, const struct vmibus_message *reply, const char *path) {
    struct json_object *object;

    if (!ctl->json)
        return;
    object = json_object_new_object();
    json_object_object_add(object, "file", frame_json_text(path, strlen(path)));
    json_object_object_add(object, "octets", json_object_new_uint64(reply->frame.ack.count));
    frame_json_print(object);
}

static int shoot(struct vmibusctl *ctl, const struct vm *vm, const char *path, uint32_t head, bool replace) {
    struct vmibus_message reply;
    struct vmibus_frame frame;
    int r;

    vmibus_command_init(&frame, VMIBUS_KIND_SCREENSHOT, &vm->endpoint);
    frame.screenshot.head = head;
    frame.screenshot.format = ends_with(path, ".ppm") ? VMIBUS_IMAGE_FORMAT_PPM : VMIBUS_IMAGE_FORMAT_PNG;
    r = vmibus_call(ctl->bus, &frame, NULL, 0, &reply);
    if (r)
        r = report_refusal(ctl, r, &reply, "cannot take a picture of %s, display %" PRIu32, printable(vm->name), head);
    else
        r = keep(&reply, path, replace);
    if (r == STATUS_OK)
        tell(ctl, &reply, path);
    vmibus_message_deinit(&reply);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    const char *path = arguments->words[1], *head_text = arguments_get(arguments, "head");
    struct roster roster = {};
    uint64_t head = 0;
    struct vm *vm;
    int r;

    if (head_text && !units_parse_number(head_text, 255, &head))
        return vmibusctl_usage("--head", head_text, "it is the number of a display, from 0");
    if (strcmp(path, "-") == 0 && ctl->json)
        return vmibusctl_usage("--json", NULL, "the picture itself goes to standard output: name a file");
    if (strcmp(path, "-") == 0 && isatty(STDOUT_FILENO))
        return vmibusctl_usage("file", path, "standard output is a terminal: name a file");
    r = roster_fetch(ctl, &roster);
    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK)
        r = shoot(ctl, vm, path, (uint32_t)head, arguments_get(arguments, "force"));
    roster_deinit(&roster);
    return r;
}

static const struct option_description options[] = {
    {"head", "N", "which display of the graphics device, from 0 (default 0)"},
    {"force", NULL, "replace FILE if it exists"},
    {},
};

const struct verb verb_screenshot = {
    .name = "screenshot",
    .synopsis = "VM FILE.png|FILE.ppm|-",
    .summary = "take a picture of the display",
    .min_words = 2,
    .max_words = 2,
    .options = options,
    .run = run,
};
