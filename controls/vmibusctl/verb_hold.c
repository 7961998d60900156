/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmibusctl hold: holds a guest still while a command runs.
 *
 * The hold is the connection's, which nobody uses meanwhile: it ends with this process however that ends.
 */
#include "child.h"
#include "standstill.h"

static int hold(struct vmibusctl *ctl, const struct vm *vm, char **words) {
    struct standstill standstill;
    int status, r = standstill_begin(ctl, vm, &standstill);

    if (r)
        return r;
    roster_unsubscribe(ctl);
    status = child_run(words, NULL, NULL);
    r = standstill_end(&standstill);
    return status ? status : r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct roster roster = {};
    struct vm *vm;
    int r;

    r = roster_fetch(ctl, &roster);
    if (r == STATUS_OK)
        r = roster_lookup(&roster, arguments->words[0], &vm);
    if (r == STATUS_OK)
        r = hold(ctl, vm, arguments->words + 1);
    roster_deinit(&roster);
    return r;
}

static const struct option_description options[] = {
    {},
};

const struct verb verb_hold = {
    .name = "hold",
    .synopsis = "VM -- CMD [ARGUMENTS]",
    .summary = "hold a guest still while a command runs",
    .min_words = 2,
    .max_words = SIZE_MAX,
    .options = options,
    .run = run,
};
