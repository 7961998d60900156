/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/memory_link.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <vmibus/names.h>
#include <vmibus/syscalls.h>

#include "bus/bus.h"
#include "bus/resync.h"
#include "transport/handover.h"
#include "util/clock.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("connect socket")

#define FIRST_PAUSE_NS (20 * NS_PER_MS)
#define LONGEST_PAUSE_NS (2000 * NS_PER_MS)

/* What a bus tells at once: of each endpoint that it is there, who provides it, and its fence; of each connection its session. */
#define OCTETS_PER_ENDPOINT (3u * VMIBUS_FRAME_SIZE + VMIBUS_NAME_BOUND)
#define OCTETS_PER_CONNECTION (2u * VMIBUS_FRAME_SIZE)
#define QUEUE_LEAST (256u << 10)

static void tell_news(const struct memory_link *link, enum memory_link_news news, const struct vmibus_error_body *refusal) {
    if (link->news)
        link->news(link->news_context, news, refusal);
}

static void try_later(struct memory_link *link) {
    /* Without a timer there is no next attempt, and nothing is in force: the safe side. */
    (void)loop_timer_set(&link->retry, clock_now() + link->pause_ns);
    link->pause_ns = link->pause_ns * 2 < LONGEST_PAUSE_NS ? link->pause_ns * 2 : LONGEST_PAUSE_NS;
}

/* --- hearing ----------------------------------------------------------------------------------- */

/*
 * Whoever has told nothing yet and finds its own incarnation taken is not the first to have it: numbers that were used come with
 * it, so another one is begun. True: it was.
 */
static bool rise(struct memory_link *link) {
    uint32_t own = link->options.bus->options.incarnation, incarnation;

    if (link->taken < own || (link->taken == own && link->incarnation != 0))
        return false;
    if (!link->rise || link->rise(link->news_context, own, link->taken, &incarnation) < 0)
        return false;
    bus_rise(link->options.bus, incarnation);
    return true;
}

static void hear_welcome(struct memory_link *link, const struct vmibus_welcome *welcome) {
    struct bus *bus = link->options.bus;
    bool rose;

    loop_timer_cancel(&link->retry);
    link->refused = false;
    link->pause_ns = FIRST_PAUSE_NS;
    bus_memory_returned(bus);
    rose = rise(link);
    if (rose || welcome->incarnation != link->incarnation)
        bus_memory_replaced(bus, rose || link->incarnation != 0);
    link->incarnation = welcome->incarnation;
    link->welcomed = true;
    if (rose)
        bus_disown_all(bus);
    bus_tell_all(bus);
    if (link_is_up(&link->link))
        tell_news(link, MEMORY_LINK_UP, NULL);
}

static void hear(void *context, const struct vmibus_frame *frame, const void *tail) {
    struct memory_link *link = context;

    if (link->welcomed) {
        bus_hear_link(link->options.bus, frame, tail);
    } else if (frame->header.kind == VMIBUS_KIND_NUMBERS_TAKEN) {
        link->taken = frame->numbers_taken.incarnation;
    } else if (frame->header.kind == VMIBUS_KIND_WELCOME && frame->welcome.magic == VMIBUS_MAGIC) {
        hear_welcome(link, &frame->welcome);
    } else if (frame->header.kind == VMIBUS_KIND_ERROR && !link->refused) {
        link->refused = true; /* said once, however often it is tried */
        tell_news(link, MEMORY_LINK_REFUSED, &frame->error);
    }
}

static void lost(void *context, enum link_loss loss) {
    struct memory_link *link = context;

    (void)loss;
    link_end(&link->link);
    if (link->welcomed)
        tell_news(link, MEMORY_LINK_DOWN, NULL);
    link->welcomed = false;
    try_later(link);
}

/* --- connecting -------------------------------------------------------------------------------- */

static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_fd_ int fd = -1;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* A unix socket is connected at once or not at all (EAGAIN: the listener's queue is full). */
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    return fd_steal(&fd);
}

static void say_hello(struct memory_link *link) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_HELLO,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .priority = VMIBUS_PRIORITY_NORMAL,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .timestamp = clock_now()},
        .hello = {.magic = VMIBUS_MAGIC,
                  .version_min = VMIBUS_PROTOCOL_VERSION,
                  .version_max = VMIBUS_PROTOCOL_VERSION,
                  .role = VMIBUS_ROLE_BUS,
                  .channel = VMIBUS_CHANNEL_LINK,
                  .name = "vmibusd"},
    };

    link_say(&link->link, &frame, NULL);
}

static void attempt(struct memory_link *link) {
    int fd = connect_to(link->options.path);

    link->taken = 0;
    if (fd < 0 || link_begin_consume_fd(&link->link, fd) < 0) {
        try_later(link);
        return;
    }
    (void)loop_timer_set(&link->retry, clock_now() + link->options.hello_ms * NS_PER_MS);
    say_hello(link);
}

/* The time has come for the next attempt, or the one under way has taken too long. */
static void time_came(struct loop_timer *timer) {
    struct memory_link *link = container_of(timer, struct memory_link, retry);

    link_end(&link->link);
    attempt(link);
}

/* --- coming and going -------------------------------------------------------------------------- */

int memory_link_init(struct memory_link *link, const struct memory_link_options *options) {
    const struct bus_options *bus_options = &options->bus->options;
    const struct link_options link_options = {
        .loop = options->loop,
        .arena = options->arena,
        .tail_bound = bus_options->tail_bound,
        .sender = VMIBUS_SENDER_MEMORY,
        .queue_bound = QUEUE_LEAST + (size_t)bus_options->n_endpoints * OCTETS_PER_ENDPOINT +
                       (size_t)bus_options->n_connections * OCTETS_PER_CONNECTION,
        .half_frame_ms = options->hello_ms,
        .hear = hear,
        .lost = lost,
        .context = link,
    };
    int r;

    *link = (struct memory_link){.options = *options, .pause_ns = FIRST_PAUSE_NS};
    loop_timer_init(&link->retry, options->loop, time_came);
    r = link_init(&link->link, &link_options);
    if (r == 0)
        r = loop_timer_set(&link->retry, clock_now());
    if (r < 0)
        memory_link_deinit(link);
    return r;
}

void memory_link_deinit(struct memory_link *link) {
    if (!link->options.loop)
        return;
    loop_timer_cancel(&link->retry);
    link_deinit(&link->link);
    *link = (struct memory_link){};
}

/* --- over a restart ---------------------------------------------------------------------------- */

/* Never reused. */
enum {
    MEMORY_LINK_INCARNATION = 1,
    MEMORY_LINK_LINK = 2,
};

void memory_link_handover_save(struct memory_link *link, struct handover_writer *writer) {
    handover_put_number(writer, MEMORY_LINK_INCARNATION, link->incarnation);
    if (!link->welcomed || !link_is_up(&link->link))
        return;
    handover_begin(writer, MEMORY_LINK_LINK);
    link_handover_save(&link->link, writer);
    handover_end(writer);
}

bool memory_link_handover_restore(struct memory_link *link, struct handover_records records) {
    struct handover_record record;

    if (handover_find(records, MEMORY_LINK_INCARNATION, &record))
        link->incarnation = (uint32_t)handover_number_below(&record, UINT32_MAX);
    if (!handover_find(records, MEMORY_LINK_LINK, &record))
        return !records.handover->error;
    loop_timer_cancel(&link->retry);
    link->welcomed = link_handover_restore(&link->link, handover_in(&record));
    return link->welcomed;
}

void memory_link_tell(struct memory_link *link, const struct vmibus_frame *frame, const void *tail) {
    /* Before WELCOME there is nobody to tell; then all is told. */
    if (link->welcomed)
        link_say(&link->link, frame, tail);
}
