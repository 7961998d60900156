/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/recording.h"

#include <string.h>

#include "daemon/log.h"
#include "daemon/state.h"
#include "util/fds.h"

static void say(void *context, bool bad, const char *text) {
    (void)context;
    if (bad)
        log_warning("%s", text);
    else
        log_info("%s", text);
}

void recording_begin(struct recorder *recorder, struct loop *loop, struct audit *intents, const char *writer,
                     const struct config *config, int state_directory) {
    const struct config_audit *audit = &config->audit;
    _cleanup_fd_ int directory = -1;
    int r;

    if (audit->off)
        return;
    directory = state_open_audit_directory(state_directory);
    r = recorder_init(recorder, &(struct recorder_options){
                                    .loop = loop,
                                    .audit = intents,
                                    .directory = directory,
                                    .writer = writer,
                                    .strict = audit->strict,
                                    .digest_bound = audit->digest_bytes,
                                    .segment_bytes = audit->segment_bytes,
                                    .keep = audit->segments,
                                    .idle_rate = audit->idle_rate,
                                    .commit_ms = audit->commit_ms,
                                    .patience_ms = audit->wait_ms,
                                    .full = audit->full,
                                    .way = audit->thread ? DISK_THREAD : DISK_ANY,
                                    .journal = *audit->journal == '/' ? audit->journal : NULL,
                                    .log = say,
                                });
    if (r < 0)
        log_warning("the audit chain in %s/audit cannot be written: %s; %s", config->state_directory, strerror(-r),
                    audit->strict && audit->full != CHAIN_CONTINUE ? "destructive commands are refused" :
                                                                     "commands are not recorded for good");
}
