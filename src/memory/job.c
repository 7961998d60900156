/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/job.h"

#include "memory/state.h"

void job_begin(struct job *job, struct authority_client *client, struct memory_endpoint *endpoint, struct memctx *memctx,
               uint32_t command_flags, uint64_t audit_sequence, const struct vmibus_frame *answer) {
    list_init(&job->link);
    job->endpoint = endpoint;
    job->client = client;
    job->memctx = memctx_ref(memctx);
    job->audit_sequence = audit_sequence;
    job->command_flags = command_flags;
    job->answer = *answer;
    list_append(&client->jobs, &job->client_link);
}

bool client_must_wait(const struct authority_client *client,
                      const struct memory_endpoint *endpoint) {
    const struct job *job;

    list_for_each(job, &client->jobs, client_link)
        if (job->endpoint == endpoint)
            return true;
    return false;
}

void client_leave_jobs(struct authority_client *client) {
    struct job *job, *following;

    list_for_each_safe(job, following, &client->jobs, client_link) {
        list_unlink(&job->client_link);
        job->client = NULL;
    }
}
