/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <vmibus/names.h>

#include "frame_json.h"
#include "limits.h"
#include "utf8.h"

const char *printable(const char *text) {
    static char buffers[4][PRINTABLE_MAX + 1];
    static unsigned next;
    char *out = buffers[next++ % 4];
    size_t length = strnlen(text, PRINTABLE_MAX + 1);

    /* Not within a character. */
    if (length > PRINTABLE_MAX)
        for (length = PRINTABLE_MAX; length > PRINTABLE_MAX - 3 && (text[length] & 0xc0) == 0x80;)
            length--;
    out[utf8_copy_printable(text, length, out)] = '\0';
    return out;
}

void print_printable(FILE *stream, const char *text, size_t length) {
    for (size_t at = 0, n; at < length; at += n ? n : 1) {
        char character[4];
        uint32_t codepoint;
        size_t printable;

        n = utf8_decode(text + at, length - at, &codepoint);
        printable = utf8_copy_printable(text + at, n ? n : 1, character);
        fwrite(character, 1, printable, stream);
    }
}

int report_failure(const char *format, ...) {
    va_list arguments;

    fputs("vmibusctl: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return STATUS_FAILED;
}

/* What to do: the reason knows better than the error. NULL: nothing can be said. */
static const char *remedy_of(unsigned error, unsigned reason) {
    const char *remedy = vmibus_reason_remedy(reason);

    return remedy ? remedy : vmibus_error_remedy(error);
}

static int report_refused_connection(int r, const struct vmibus_error_body *refusal) {
    const char *reason = refusal->reason ? vmibus_reason_doc(refusal->reason) : NULL, *remedy = remedy_of((unsigned)r, refusal->reason);

    fprintf(stderr, "%s: %s", vmibus_error_name((unsigned)r), vmibus_error_doc((unsigned)r));
    if (reason)
        fprintf(stderr, " %s: %s", vmibus_reason_name(refusal->reason), reason);
    limits_explain_connection(refusal);
    fprintf(stderr, "%s%s\n", remedy ? " " : "", remedy ? remedy : "");
    return STATUS_REFUSED + r;
}

int report_no_connection(int r, const struct vmibus_error_body *refusal, const char *path, bool lent) {
    const char *remedy = "Start vmibusd, or name its socket by --socket or VMIBUS_SOCKET.";

    if (lent)
        path = "the connection lent in VMIBUS_LENT_FD";
    fprintf(stderr, "vmibusctl: cannot connect to %s: ", printable(path));
    if (r > 0)
        return report_refused_connection(r, refusal);
    if (lent)
        remedy = "Run this under `vmibusctl lease`, or unset VMIBUS_LENT_FD.";
    else if (r == -EACCES)
        remedy = "The socket's owner and group decide who may.";
    else if (r == -EPROTO || r == -ECONNRESET || r == -ETIMEDOUT)
        remedy = "What listens there does not answer as a bus does.";
    else if (r == -EPROTONOSUPPORT)
        remedy = "Its protocol version is not ours: install matching versions.";
    fprintf(stderr, "%s. %s\n", strerror(-r), remedy);
    return STATUS_NO_CONNECTION;
}

/* What policy does not give, or what it bounds. */
static void explain_denial(const struct vmibus_ack *ack) {
    const struct vmibus_value_description *capability;

    switch (ack->reason) {
    case VMIBUS_REASON_WRITE_RANGE:
    case VMIBUS_REASON_PROTECTED:
        fprintf(stderr, " The address is 0x%" PRIx64 ".", ack->value);
        break;
    case VMIBUS_REASON_WRITE_SIZE:
        fprintf(stderr, " The bound is %" PRIu64 " octets.", ack->value);
        break;
    default:
        capability = vmibus_table_find(vmibus_table_describe("capability"), ack->value);
        if (capability)
            fprintf(stderr, " The capability is %s.", capability->name);
        break;
    }
}

/* What value means depends on who says it. */
static void explain_value(const struct vmibus_ack *ack) {
    switch (ack->error) {
    case VMIBUS_ERROR_DENIED:
        explain_denial(ack);
        break;
    case VMIBUS_ERROR_QUOTA:
    case VMIBUS_ERROR_PRESSURE:
        limits_explain(ack);
        break;
    case VMIBUS_ERROR_TRANSLATION:
        fprintf(stderr, " The address is 0x%" PRIx64, ack->value);
        if (ack->level)
            fprintf(stderr, ", the walk ended at level %u", ack->level);
        fputc('.', stderr);
        break;
    case VMIBUS_ERROR_READ_ONLY_PAGE:
        fprintf(stderr, " The address is 0x%" PRIx64 ".", ack->value);
        break;
    case VMIBUS_ERROR_IO:
        if (ack->value && ack->value < 4096)
            fprintf(stderr, " The host says: %s.", strerror((int)ack->value));
        break;
    default:
        if (ack->reason == VMIBUS_REASON_TARGET_CHANGED)
            fprintf(stderr, " The first difference is at offset %" PRIu64 ".", ack->value);
        else if (ack->reason == VMIBUS_REASON_TARGET_MOVED)
            fprintf(stderr, " It is at guest-physical 0x%" PRIx64 ".", ack->value);
        else if (ack->reason == VMIBUS_REASON_WRITE_RATE)
            fprintf(stderr, " It would pass in %" PRIu64 " ms.", (ack->value + 999) / 1000);
        break;
    }
}

static void explain_reason(const struct vmibus_ack *ack) {
    const char *doc = ack->reason ? vmibus_reason_doc(ack->reason) : NULL;

    if (doc)
        fprintf(stderr, " %s: %s", vmibus_reason_name(ack->reason), doc);
    explain_value(ack);
}

int report_refusal(const struct vmibusctl *ctl, int r, const struct vmibus_message *reply, const char *what, ...) {
    const char *remedy;
    unsigned reason = 0;
    va_list arguments;

    fputs("vmibusctl: ", stderr);
    va_start(arguments, what);
    vfprintf(stderr, what, arguments);
    va_end(arguments);
    if (r < 0) {
        bool ended = r == -ECONNRESET || r == -EPROTO;

        fprintf(stderr, ": %s%s\n", strerror(-r), ended ? ". The connection to the bus has ended." : "");
        return ended ? STATUS_NO_CONNECTION : STATUS_FAILED;
    }
    fprintf(stderr, ": %s: %s", vmibus_error_name((unsigned)r) ? vmibus_error_name((unsigned)r) : "unknown error",
            vmibus_error_doc((unsigned)r) ? vmibus_error_doc((unsigned)r) : "");
    if (reply && reply->frame.header.kind == VMIBUS_KIND_ACK) {
        reason = reply->frame.ack.reason;
        explain_reason(&reply->frame.ack);
    }
    remedy = remedy_of((unsigned)r, reason);
    fprintf(stderr, "%s%s\n", remedy ? " " : "", remedy ? remedy : "");
    if (ctl->json && reply && reply->frame.header.kind == VMIBUS_KIND_ACK)
        frame_json_print(frame_json_body(&reply->frame));
    return STATUS_REFUSED + r;
}
