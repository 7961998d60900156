/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/handover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memory/handover_record.h"
#include "memory/job.h"
#include "memory/memctx.h"
#include "memory/state.h"
#include "util/clock.h"

/* Never reused. */
enum {
    AUTHORITY_INCARNATION = 1,
    AUTHORITY_EPOCHS = 2,
    AUTHORITY_ENDPOINT = 3,
    AUTHORITY_WRITES = 4, /* counters, from here */
    AUTHORITY_BYTES_WRITTEN = 5,
    AUTHORITY_EPOCHS_ENDED = 6,
    AUTHORITY_READS = 7,
    AUTHORITY_BYTES_READ = 8,
    AUTHORITY_SESSION = 9,
};

static const struct handover_member session_members[] = {
    HANDOVER_MEMBER(1, struct known_session, name), HANDOVER_MEMBER(2, struct known_session, uid),
    HANDOVER_MEMBER(3, struct known_session, pid),  HANDOVER_MEMBER(4, struct known_session, role),
    HANDOVER_MEMBER(5, struct known_session, told),
};

/* --- settling ------------------------------------------------------------------------------------ */

void authority_settle_begin(struct authority *authority) {
    retirement_pause(authority);
}

bool authority_is_settled(const struct authority *authority) {
    const struct authority_client *client;

    /* Also what waits for its record, which is nowhere else. */
    list_for_each(client, &authority->clients, link)
        if (!list_is_empty(&client->jobs))
            return false;
    for (uint32_t slot = 1; slot <= authority->options.n_endpoints; slot++) {
        const struct memory_endpoint *endpoint = &authority->endpoints[slot];

        if ((endpoint->worker && worker_jobs(endpoint->worker)) || !list_is_empty(&endpoint->quiesce.parked))
            return false;
    }
    return list_is_empty(&authority->completions.leaving);
}

void authority_settle(struct authority *authority) {
    struct authority_client *client, *following;

    list_for_each_safe(client, following, &authority->clients, link)
        while (!list_is_empty(&client->jobs)) {
            struct job *job = list_first(&client->jobs, struct job, client_link);
            struct vmibus_frame answer = {
                .header = job->answer.header,
                .ack = {.error = VMIBUS_ERROR_GONE, .reason = VMIBUS_REASON_RESTARTED, .finished = clock_now()},
            };

            /* What the worker writes meanwhile is not looked at. */
            answer.ack.command = job->answer.ack.command;
            answer.header.tail_length = 0;
            answer.header.fd_count = 0;
            list_unlink(&job->client_link);
            job->client = NULL;
            client_answer(client, &answer, job->command_flags, NULL, NULL);
        }
}

/* --- written ------------------------------------------------------------------------------------- */

static void put_sessions(struct handover_writer *writer, const struct known_sessions *sessions) {
    const struct known_session *session;

    for (uint32_t i = 0; i < sessions->n; i++)
        list_for_each(session, &sessions->chains[i], link) {
            handover_begin(writer, AUTHORITY_SESSION);
            PUT(writer, session_members, session);
            handover_end(writer);
        }
}

void authority_handover_save(struct authority_handover *handover, struct handover_writer *writer) {
    const struct authority *authority = handover->authority;
    const struct authority_counters *counters = &authority->counters;

    handover_put_number(writer, AUTHORITY_INCARNATION, authority->options.incarnation);
    handover_put_number(writer, AUTHORITY_EPOCHS, authority->epochs);
    handover_put_number(writer, AUTHORITY_WRITES, counters->writes);
    handover_put_number(writer, AUTHORITY_BYTES_WRITTEN, counters->bytes_written);
    handover_put_number(writer, AUTHORITY_EPOCHS_ENDED, counters->epochs_ended);
    handover_put_number(writer, AUTHORITY_READS, counters->reads);
    handover_put_number(writer, AUTHORITY_BYTES_READ, counters->bytes_read);
    put_sessions(writer, &authority->sessions);
    for (uint32_t slot = 1; slot <= authority->options.n_endpoints; slot++)
        if (authority->endpoints[slot].open || authority->endpoints[slot].fences.highest)
            memory_endpoint_put(handover, writer, AUTHORITY_ENDPOINT, &authority->endpoints[slot]);
}

/* --- either side --------------------------------------------------------------------------------- */

void authority_handover_init(struct authority_handover *handover, struct authority *authority) {
    *handover = (struct authority_handover){.authority = authority};
}

void authority_handover_deinit(struct authority_handover *handover) {
    for (size_t i = 0; i < handover->n_memctxs; i++)
        memctx_unref(handover->memctxs[i]);
    free(handover->memctxs);
    *handover = (struct authority_handover){};
}

/* --- read ---------------------------------------------------------------------------------------- */

static void take_session(struct authority *authority, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct known_session known = {}, *session;
    struct vmibus_session_opened opened = {};
    struct handover_record member;

    while (handover_next(&records, &member))
        (void)TAKE(&member, session_members, &known);
    if (record->handover->error)
        return;
    memcpy(opened.session, known.name, sizeof(opened.session));
    opened.uid = known.uid;
    opened.pid = known.pid;
    opened.role = (uint8_t)known.role;
    if (known_sessions_find(&authority->sessions, known.name)) {
        handover_wrong(record->handover, -EBADMSG);
        return;
    }
    known_sessions_add(&authority->sessions, &opened);
    session = known_sessions_find(&authority->sessions, known.name);
    if (session)
        session->told = known.told;
    else
        handover_wrong(record->handover, -ENOSPC);
}

uint32_t authority_handover_incarnation(struct handover_records records) {
    struct handover_record record;

    return handover_find(records, AUTHORITY_INCARNATION, &record) ? (uint32_t)handover_number_below(&record, UINT32_MAX) : 0;
}

bool authority_handover_restore(struct authority_handover *handover, struct handover_records records) {
    struct authority *authority = handover->authority;
    struct handover_records again = records;
    struct handover_record record;

    while (handover_next(&records, &record))
        switch (record.tag) {
        case AUTHORITY_INCARNATION:
            if (handover_number(&record) != authority->options.incarnation)
                handover_wrong(record.handover, -EBADMSG);
            break;
        case AUTHORITY_EPOCHS:
            authority->epochs = (uint32_t)handover_number_below(&record, UINT32_MAX);
            break;
        case AUTHORITY_WRITES:
            authority->counters.writes = handover_number(&record);
            break;
        case AUTHORITY_BYTES_WRITTEN:
            authority->counters.bytes_written = handover_number(&record);
            break;
        case AUTHORITY_EPOCHS_ENDED:
            authority->counters.epochs_ended = handover_number(&record);
            break;
        case AUTHORITY_READS:
            authority->counters.reads = handover_number(&record);
            break;
        case AUTHORITY_BYTES_READ:
            authority->counters.bytes_read = handover_number(&record);
            break;
        case AUTHORITY_SESSION:
            take_session(authority, &record);
            break;
        default:
            break;
        }
    while (handover_next(&again, &record))
        if (record.tag == AUTHORITY_ENDPOINT)
            memory_endpoint_take(handover, &record);
    return !again.handover->error;
}

/* --- going on ------------------------------------------------------------------------------------ */

/* What a page shows is what is, or it shows nothing. */
static void resume_page(struct authority *authority, const struct authority_page *page) {
    struct memory_endpoint *endpoint = authority_slot(authority, page->slot);
    const struct memctx *memctx = endpoint ? endpoint->current : NULL;

    if (!endpoint || !endpoint->open) {
        authority_end_page(authority, page);
        return;
    }
    if (epoch_page_is_there(&endpoint->page)) {
        (void)epoch_page_end_fd(page->fd);
        return;
    }
    /* A version that did not tell who pays had it paid like the memory. */
    if (!endpoint->page.account && memctx)
        endpoint->page.account = account_ref(memctx->account);
    (void)epoch_page_resume_dup_fd(&endpoint->page, page->fd, memctx ? memctx->epoch : 0, memctx ? memctx->generation : 0);
}

void authority_handover_go_on(struct authority *authority, const struct authority_page *pages, size_t n_pages, bool is_linked) {
    if (is_linked)
        authority->suspended = false;
    else
        authority_link_lost(authority);
    for (size_t i = 0; i < n_pages; i++)
        resume_page(authority, &pages[i]);
    for (uint32_t slot = 1; slot <= authority->options.n_endpoints; slot++) {
        if (!epoch_page_is_there(&authority->endpoints[slot].page))
            epoch_page_deinit(&authority->endpoints[slot].page); /* of one that did not come back nobody pays */
        memory_endpoint_go_on(&authority->endpoints[slot]);
    }
    retirement_go_on(authority);
    authority_rely(authority);
    authority_set_policy(authority, authority->policy);
}
