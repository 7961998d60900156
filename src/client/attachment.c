/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/attachment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "client/connection.h"
#include "util/fds.h"

struct attachment {
    struct vmibus_attachment shown;
    struct list link;
    struct vmibus *bus;                 /* NULL once it is freed */
    struct vmibus_endpoint endpoint;
    struct vmibus_message message;      /* owns ranges and descriptors */
    const struct vmibus_epoch_page *page; /* mapped; NULL: the bus gave none */
};

/* What an attachment whose connection has ended is compared with: no epoch is 0. */
static const uint64_t no_epoch;

static struct attachment *attachment_of(struct vmibus_attachment *shown) {
    return container_of(shown, struct attachment, shown);
}

static void end(struct attachment *attachment) {
    /* The page stays mapped: another thread may be looking at it. */
    __atomic_store_n(&attachment->shown.current, &no_epoch, __ATOMIC_RELEASE);
}

void attachments_end(struct vmibus *bus) {
    struct attachment *attachment;

    list_for_each(attachment, &bus->attachments, link)
        end(attachment);
}

void attachments_orphan(struct vmibus *bus) {
    attachments_end(bus);
    while (!list_is_empty(&bus->attachments)) {
        struct attachment *attachment = list_first(&bus->attachments, struct attachment, link);

        attachment->bus = NULL;
        list_unlink(&attachment->link);
    }
}

static void attachment_free(struct attachment *attachment) {
    if (attachment->page)
        munmap((void *)attachment->page, sizeof(*attachment->page));
    list_unlink(&attachment->link);
    vmibus_message_deinit(&attachment->message);
    free(attachment);
}

/* A page that could be cut short would raise SIGBUS in the reader: such a one is none. */
static int map_page(struct attachment *attachment, int fd) {
    struct stat st;
    void *page;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(*attachment->page))
        return -EPROTO;
    page = mmap(NULL, sizeof(*attachment->page), PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return -errno;
    attachment->page = page;
    attachment->shown.current = &attachment->page->epoch;
    return 0;
}

/* Takes the answer apart: ranges, descriptors of the objects, and last that of the page. */
static int take_answer(struct attachment *attachment, struct vmibus_message *reply) {
    struct vmibus_attachment *shown = &attachment->shown;
    size_t n_fds = reply->frame.header.fd_count;
    int r = 0;

    shown->epoch = reply->frame.ack.epoch;
    shown->reason = (enum vmibus_reason)reply->frame.ack.reason;
    shown->current = &shown->epoch;
    if (shown->epoch == no_epoch)
        return -EPROTO;
    if (attachment->bus->welcome.features & VMIBUS_FEATURE_EPOCH_PAGE) {
        if (n_fds == 0)
            return -EPROTO;
        r = map_page(attachment, reply->fds[--n_fds]);
        reply->fds[n_fds] = fd_close(reply->fds[n_fds]);
        reply->frame.header.fd_count = (uint8_t)n_fds;
    }
    attachment->message = *reply;
    reply->tail = NULL;
    reply->frame.header.fd_count = 0;
    reply->frame.header.tail_length = 0;
    memset(reply->fds, 0xff, sizeof(reply->fds));
    shown->ranges = attachment->message.tail;
    shown->n_ranges = (size_t)attachment->message.frame.ack.count;
    shown->fds = attachment->message.fds;
    shown->n_fds = n_fds;
    return r;
}

static int attach(struct attachment *attachment, uint64_t epoch, struct vmibus_message *reply) {
    struct vmibus_frame frame;
    int r;

    vmibus_command_init(&frame, VMIBUS_KIND_MEM_ATTACH, &attachment->endpoint);
    frame.mem_attach.epoch = epoch;
    r = vmibus_call(attachment->bus, &frame, NULL, 0, reply);
    if (r)
        return r;
    if (reply->frame.header.tail_length != reply->frame.ack.count * sizeof(struct vmibus_ram_range))
        return -EPROTO;
    return take_answer(attachment, reply);
}

int vmibus_attach(struct vmibus *bus, const struct vmibus_endpoint *endpoint, uint64_t epoch,
                  struct vmibus_attachment **attachmentp, struct vmibus_message *reply) {
    struct attachment *attachment = calloc(1, sizeof(*attachment));
    struct vmibus_message answer = {};
    int r;

    if (reply)
        *reply = answer;
    if (!attachment)
        return -ENOMEM;
    list_init(&attachment->link);
    attachment->bus = bus;
    attachment->endpoint = *endpoint;
    r = attach(attachment, epoch, &answer);
    if (r == 0) {
        list_append(&bus->attachments, &attachment->link);
        *attachmentp = &attachment->shown;
    } else {
        attachment_free(attachment);
    }
    if (reply)
        *reply = answer;
    else
        vmibus_message_deinit(&answer);
    return r;
}

int vmibus_release(struct vmibus_attachment *shown) {
    struct attachment *attachment;
    struct vmibus_frame frame;
    int r = -ECONNRESET;

    if (!shown)
        return 0;
    attachment = attachment_of(shown);
    if (attachment->bus) {
        vmibus_command_init(&frame, VMIBUS_KIND_MEM_RELEASE, &attachment->endpoint);
        frame.mem_release.epoch = shown->epoch;
        r = vmibus_call(attachment->bus, &frame, NULL, 0, NULL);
    }
    attachment_free(attachment);
    return r;
}
