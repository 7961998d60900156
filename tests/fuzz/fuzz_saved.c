/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: what an instance of the sensor qemu kept for the next one.  Whatever the octets are, what is followed by them is what a
 * command might have named; and what comes of them is said again as it was understood.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "machine/saved.h"
#include "qemu/vm.h"

#define LONGEST_PATH 107 /* of a socket, unix(7) */
#define LIMIT 8
#define DIRECTORY "/vms"
#define OPTION_NAME "option"
#define OPTION_PATH "/option.sock"

/* --- instead of the sensor -------------------------------------------------------------------------- */

static struct vmibus_sensor_saved given;

static int fake_saved(struct vmibus_sensor_host *host, struct vmibus_sensor_saved *state) {
    (void)host;
    *state = given;
    return 0;
}

static const struct vmibus_sensor_api api = {.struct_size = sizeof(api), .saved = fake_saved};

struct vm *vm_find(const struct qemu *qemu, const char *name) {
    struct vm *vm;

    TAILQ_FOREACH(vm, &qemu->vms, link)
        if (strcmp(vm->machine.name, name) == 0)
            return vm;
    return NULL;
}

int vm_new(struct qemu *qemu, const char *name, size_t name_len, const char *path, struct directory *directory) {
    struct vm *vm = calloc(1, sizeof(*vm));

    if (directory || !directory_name_is_valid(name, name_len) || *path != '/' || strlen(path) > LONGEST_PATH ||
        vm_find(qemu, name) || qemu->n_vms >= LIMIT)
        abort();
    if (!vm)
        return -ENOMEM;
    vm->machine.name = strndup(name, name_len);
    vm->path = strdup(path);
    qemu->n_vms++;
    TAILQ_INSERT_TAIL(&qemu->vms, vm, link);
    return 0;
}

void vm_remove(struct vm *vm) {
    (void)vm;
    abort(); /* nothing that was kept ends what is followed */
}

int directory_dismiss(struct directory *directory, const char *name, ino_t inode, struct timespec changed) {
    struct dismissed *dismissed = malloc(sizeof(*dismissed) + strlen(name) + 1);

    if (!directory_name_is_valid(name, strlen(name)))
        abort();
    if (!dismissed)
        return -ENOMEM;
    dismissed->inode = inode;
    dismissed->changed = changed;
    strcpy(dismissed->name, name);
    SLIST_INSERT_HEAD(&directory->dismissed, dismissed, link);
    return 0;
}

/* --- an instance ------------------------------------------------------------------------------------ */

struct instance {
    struct qemu qemu;
    struct directory directory;
    bool option_is_removed;
};

static void instance_begin(struct instance *instance, const void *octets, size_t n_octets) {
    struct qemu *qemu = &instance->qemu;
    struct saved_machine machine;

    *instance = (struct instance){.qemu = {.api = &api, .machines = {.api = &api}, .directory_rules = {.limit = LIMIT}},
                                  .directory = {.path = (char *)DIRECTORY}};
    given = (struct vmibus_sensor_saved){.octets = octets, .n_octets = n_octets};
    TAILQ_INIT(&qemu->vms);
    TAILQ_INIT(&qemu->directories);
    TAILQ_INSERT_TAIL(&qemu->directories, &instance->directory, link);
    saved_take(&qemu->machines);
    instance->option_is_removed = by_command_is_removed(qemu, OPTION_NAME, OPTION_PATH) == 1;
    by_command_restore(qemu);
    if (saved_find(&qemu->machines, 1, 2, &machine) && (machine.pid != 1 || machine.start_time != 2))
        abort();
    if (saved_find(&qemu->machines, 0, 0, &machine))
        abort();
}

static void instance_end(struct instance *instance) {
    struct dismissed *dismissed;
    struct vm *vm;

    while ((vm = TAILQ_FIRST(&instance->qemu.vms))) {
        TAILQ_REMOVE(&instance->qemu.vms, vm, link);
        free((char *)vm->machine.name);
        free(vm->path);
        free(vm);
    }
    while ((dismissed = SLIST_FIRST(&instance->directory.dismissed))) {
        SLIST_REMOVE_HEAD(&instance->directory.dismissed, link);
        free(dismissed);
    }
    by_command_deinit(&instance->qemu);
    saved_deinit(&instance->qemu.machines.saved);
}

static void instance_save(struct instance *instance, struct vmibus_sensor_saved *state) {
    void *octets;
    size_t n;

    if (by_command_save(&instance->qemu, &octets, &n) < 0 || saved_begin(&instance->qemu.machines, 0, octets, n) < 0)
        abort();
    free(octets);
    saved_end(&instance->qemu.machines, state);
}

static size_t n_dismissed(const struct instance *instance) {
    const struct dismissed *dismissed;
    size_t n = 0;

    SLIST_FOREACH(dismissed, &instance->directory.dismissed, link)
        n++;
    return n;
}

/* --- the target ------------------------------------------------------------------------------------- */

FUZZ_TARGET(saved) {
    struct vmibus_sensor_saved state;
    struct instance first, second;
    const struct vm *vm;
    size_t n_added = 0;

    instance_begin(&first, data, size);
    instance_save(&first, &state);
    instance_begin(&second, state.octets, state.n_octets);
    /* A VM that takes the removal of its option back is the option's again, which follows it. */
    TAILQ_FOREACH(vm, &first.qemu.vms, link) {
        const struct vm *again = vm_find(&second.qemu, vm->machine.name);

        n_added += vm->by_command;
        if (vm->by_command && (!again || strcmp(again->path, vm->path) != 0))
            abort();
    }
    if (second.qemu.n_vms != n_added || n_dismissed(&first) != n_dismissed(&second) ||
        SLIST_EMPTY(&first.qemu.removed) != SLIST_EMPTY(&second.qemu.removed))
        abort();
    instance_end(&second);
    instance_end(&first);
    return 0;
}
