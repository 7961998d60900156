/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/job.h"

#include "memory/state.h"

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
