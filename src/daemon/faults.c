/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/faults.h"

#ifdef HAVE_FAULT_INJECTION

#include <errno.h>
#include <inttypes.h>

#include "daemon/log.h"

int faults_add_environment(struct config *config) {
    const char *wrong;

    if (fault_rules_add_environment(&config->faults, &wrong) == 0)
        return 0;
    log_error("VMIBUS_FAULTS: '%s' is no list of location=rule,location=rule; vmibusd.conf(5) has both", wrong);
    return -EINVAL;
}

static bool has_rules(const struct config *config) {
    for (int i = 0; i < N_FAULT_LOCATIONS; i++)
        if (config->faults.at[i].action)
            return true;
    return false;
}

void faults_warn(const struct config *config) {
    log_warning("THIS vmibusd WAS BUILT TO FAIL ON PURPOSE (--enable-fault-injection): it is for tests, not for virtual machines "
                "that anybody needs");
    if (!has_rules(config))
        log_info("no faults are configured");
}

void faults_tell(void) {
    char rule[32];

    for (int i = 0; i < N_FAULT_LOCATIONS; i++) {
        struct fault_counts counts = fault_count((enum fault_location)i);

        fault_describe((enum fault_location)i, rule, sizeof(rule));
        if (counts.asked)
            log_warning("fault injection: %s = %s was hit %" PRIu64 " times of %" PRIu64, fault_name((enum fault_location)i), rule,
                        counts.failed, counts.asked);
    }
}

void faults_apply(const struct config *config) {
    char rule[32];

    faults_tell();
    fault_apply(&config->faults);
    if (!has_rules(config))
        return;
    for (int i = 0; i < N_FAULT_LOCATIONS; i++) {
        if (!config->faults.at[i].action)
            continue;
        fault_describe((enum fault_location)i, rule, sizeof(rule));
        log_warning("fault injection: %s = %s", fault_name((enum fault_location)i), rule);
    }
    log_warning("fault injection: seed = %" PRIu64, fault_seed());
}

#else

int faults_add_environment(struct config *config) {
    (void)config;
    return 0;
}

void faults_warn(const struct config *config) {
    (void)config;
}

void faults_apply(const struct config *config) {
    (void)config;
}

void faults_tell(void) {
}

#endif
