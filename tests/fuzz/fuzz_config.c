/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: vmibusd.conf(5).  What is refused is refused with a reason; what is accepted makes a policy that can be asked, and
 * in which what policy_explain() tells of a rule agrees with what policy_evaluate() makes of it.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/config.h"
#include "fuzz/target.h"
#include "fuzz/world.h"

static const uint8_t uuid[16] = {0x12, 0x34};

static void put_file(int fd, const uint8_t *data, size_t size) {
    if (ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        fuzz_fail("config", "there is no file");
}

struct told {
    uint32_t capabilities;
    bool owner;
};

static void tell(void *context, const struct policy_rule *rule, bool names_principal, bool names_endpoint) {
    struct told *told = context;

    if (!names_principal || !names_endpoint)
        return;
    told->owner = told->owner || !rule;
    told->capabilities |= rule ? policy_rule_capabilities(rule) : CAPABILITIES_ALL;
}

static void ask(const struct policy *policy, uid_t uid, const char *name) {
    const struct principal principal = {.uid = uid, .gid = uid, .pid = 1, .n_groups = 1, .groups = {uid}};
    const struct grant grant = policy_evaluate(policy, &principal, name, uuid);
    struct write_allowance *allowance = NULL;
    struct told told = {};

    policy_explain(policy, &principal, name, uuid, tell, &told);
    if (grant.capabilities != told.capabilities)
        fuzz_fail("config", "the rules that were told are not those that count");
    if (grant.capabilities & ~CAPABILITIES_ALL || grant.capabilities & ~policy_evaluate_any(policy, &principal).capabilities)
        fuzz_fail("config", "more is allowed on a VM than on any");
    if (policy_write_allowance(policy, &principal, name, uuid, &allowance) == 0)
        write_allowance_unref(allowance);
    (void)user_list_has(&policy->sensor_users, &principal);
}

FUZZ_TARGET(config) {
    static struct config_error error;
    static char path[64];
    static int fd = -1;
    struct config config;
    int r;

    if (fd < 0) {
        fd = memfd_create("vmibusd.conf", MFD_CLOEXEC);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    put_file(fd, data, size);
    if (config_init(&config) < 0)
        return 0;
    r = config_read(&config, path, &error);
    if (r > 0 || (r == -EINVAL && (!error.text[0] || error.line < 0)))
        fuzz_fail("config", "a mistake without a reason");
    if (r == 0) {
        ask(config.policy, 0, "vm");
        ask(config.policy, 1000, "db-1");
        ask(config.policy, 65534, "uuid:12340000000000000000000000000000");
    }
    config_deinit(&config);
    return 0;
}
