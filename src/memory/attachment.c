/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/attachment.h"

#include "memory/answer.h"
#include "memory/memctx.h"
#include "memory/state.h"
#include "util/refusal.h"

static int take_charges(struct attachment *attachment, struct account *account, size_t n_fds,
                        enum resource *limit) {
    int r;

    *limit = RESOURCE_ATTACHMENTS;
    r = charge_take(&attachment->attachment, account, RESOURCE_ATTACHMENTS, 1);
    if (r || n_fds == 0)
        return r;
    *limit = RESOURCE_FDS;
    r = charge_take(&attachment->descriptors, account, RESOURCE_FDS, n_fds);
    if (r)
        charge_release(&attachment->attachment);
    return r;
}

uint16_t attachment_new(struct authority_client *client, struct memctx *memctx, size_t n_given, size_t n_fds,
                        struct vmibus_ack *ack) {
    struct attachment *attachment;
    enum resource limit;
    void *memory;
    int r = region_take(client->region, sizeof(*attachment), &memory);

    if (r)
        return region_refusal(ack, r, client->region);
    attachment = memory;
    r = take_charges(attachment, client->account, n_fds, &limit);
    if (r) {
        region_give(client->region, attachment, sizeof(*attachment));
        return refusal_of_charge(ack, r, client->account, limit);
    }
    if (n_fds && !client->principal.is_self)
        charge_set_away(&attachment->descriptors);
    attachment->memctx = memctx_ref(memctx);
    attachment->n_objects_given = (uint32_t)n_given;
    memctx->attachments++;
    list_append(&client->attachments, &attachment->link);
    client->authority->counters.attachments++;
    authority_rely(client->authority);
    return 0;
}

void attachment_free(struct authority_client *client, struct attachment *attachment) {
    list_unlink(&attachment->link);
    attachment->memctx->attachments--;
    charge_release(&attachment->attachment);
    charge_release(&attachment->descriptors);
    client->authority->counters.attachments--;
    memctx_unref(attachment->memctx);
    region_give(client->region, attachment, sizeof(*attachment));
}

struct attachment *attachment_find(const struct authority_client *client, uint64_t epoch) {
    struct attachment *attachment;

    list_for_each(attachment, &client->attachments, link)
        if (attachment->memctx->epoch == epoch)
            return attachment;
    return NULL;
}

void client_detach(struct authority_client *client) {
    while (!list_is_empty(&client->attachments))
        attachment_free(client, list_first(&client->attachments, struct attachment, link));
}
