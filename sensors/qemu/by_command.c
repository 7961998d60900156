/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "by_command.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "vm.h"

#define MAGIC UINT64_C(0x646e616d6d6f6379)
#define PATH_BOUND (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

enum item_kind {
    ITEM_ADDED = 1,     /* NAME=PATH */
    ITEM_REMOVED = 2,   /* NAME=PATH */
    ITEM_DISMISSED = 3, /* struct item_file, the VM's name, the directory's path, which begins with the first slash */
};

struct item_header {
    uint32_t kind;
    uint32_t length;
};

struct item_file {
    uint64_t inode;
    int64_t seconds, nanoseconds;
};

/* --- what is removed --------------------------------------------------------------------------- */

static int remember(struct qemu *qemu, const char *name, const char *path) {
    size_t size = strlen(name) + 1 + strlen(path) + 1;
    struct removed *removed = malloc(sizeof(*removed) + size);

    if (!removed)
        return -ENOMEM;
    snprintf(removed->text, size, "%s=%s", name, path);
    SLIST_INSERT_HEAD(&qemu->removed, removed, link);
    return 0;
}

/* Whether it was removed: then it is what its option says again. */
static bool take_back(struct qemu *qemu, const char *text, size_t length) {
    struct removed *removed;

    SLIST_FOREACH(removed, &qemu->removed, link)
        if (strlen(removed->text) == length && memcmp(removed->text, text, length) == 0)
            break;
    if (!removed)
        return false;
    SLIST_REMOVE(&qemu->removed, removed, removed, link);
    free(removed);
    return true;
}

void by_command_deinit(struct qemu *qemu) {
    struct removed *removed;

    while ((removed = SLIST_FIRST(&qemu->removed))) {
        SLIST_REMOVE_HEAD(&qemu->removed, link);
        free(removed);
    }
}

/* --- commands ---------------------------------------------------------------------------------- */

static struct vmibus_ack verdict(enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    return (struct vmibus_ack){
        .command = VMIBUS_KIND_CMD_MONITOR, .error = (uint16_t)error, .reason = (uint16_t)reason, .value = value};
}

/* Whether a VM may be followed. The same again is no error. */
static struct vmibus_ack check(const struct qemu *qemu, const char *name, size_t name_len, const char *path) {
    size_t limit = qemu->directory_rules.limit ? qemu->directory_rules.limit : DIRECTORY_LIMIT_DEFAULT;
    const struct vm *vm;

    if (!directory_name_is_valid(name, name_len) || *path != '/')
        return verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    if (strlen(path) > PATH_BOUND)
        return verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, PATH_BOUND);
    vm = vm_find(qemu, name);
    if (vm && strcmp(vm->path, path) != 0)
        return verdict(VMIBUS_ERROR_BUSY, VMIBUS_REASON_NONE, 0);
    if (!vm && qemu->n_vms >= limit)
        return verdict(VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_ENDPOINTS, limit);
    return verdict(VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
}

/* NAME=PATH, from a command or from what was saved. */
static struct vmibus_ack add_vm(struct qemu *qemu, const char *text, size_t length) {
    char copy[VMIBUS_NAME_BOUND + 1 + PATH_BOUND + 2];
    struct vmibus_ack ack;
    char *path;
    int r;

    if (length == 0)
        return verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    if (length >= sizeof(copy))
        return verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, PATH_BOUND);
    memcpy(copy, text, length);
    copy[length] = '\0';
    path = strchr(copy, '=');
    if (!path || strlen(copy) != length)
        return verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    *path++ = '\0';
    ack = check(qemu, copy, strlen(copy), path);
    if (ack.error || vm_find(qemu, copy))
        return ack;
    r = vm_new(qemu, copy, strlen(copy), path, NULL);
    if (r < 0)
        return verdict(VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, (uint64_t)-(int64_t)r);
    vm_find(qemu, copy)->by_command = !take_back(qemu, text, length);

    return ack;
}

static struct vmibus_ack remove_vm(struct qemu *qemu, const char *text, size_t length) {
    char name[VMIBUS_NAME_BOUND + 1];
    struct vm *vm = NULL;
    int r = 0;

    if (length > 0 && length < sizeof(name)) {
        memcpy(name, text, length);
        name[length] = '\0';
        vm = strlen(name) == length ? vm_find(qemu, name) : NULL;
    }
    if (!vm)
        return verdict(VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE, 0);
    if (vm->file.directory && !vm->file.gone)
        r = directory_dismiss(vm->file.directory, vm->machine.name, vm->file.inode, vm->file.changed);
    else if (!vm->file.directory && !vm->by_command)
        r = remember(qemu, vm->machine.name, vm->path);
    if (r < 0)
        return verdict(VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, (uint64_t)-(int64_t)r);
    vm_remove(vm);

    return verdict(VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
}

int by_command_execute(struct qemu *qemu, const struct vmibus_sensor_command *command) {
    size_t length = command->frame->header.tail_length;
    struct vmibus_ack ack = command->frame->cmd_monitor.operation == VMIBUS_MONITOR_OPERATION_ADD
                                ? add_vm(qemu, command->tail, length)
                                : remove_vm(qemu, command->tail, length);

    qemu->api->complete(qemu->host, command->id, &ack);

    return 0;
}

/* --- saving ------------------------------------------------------------------------------------ */

/* Where items are written; what it has no memory for it tells when it is closed. */
struct items_out {
    FILE *stream;
    uint32_t n;
};

/* Two pieces, of which the first may be empty, then two texts. */
static void put(struct items_out *out, enum item_kind kind, const struct item_file *file, const char *one, const char *other) {
    size_t file_size = file ? sizeof(*file) : 0;
    struct item_header header = {.kind = kind, .length = (uint32_t)(file_size + strlen(one) + strlen(other))};

    if (out->n++ >= BY_COMMAND_ITEMS)
        return;
    fwrite(&header, sizeof(header), 1, out->stream);
    if (file)
        fwrite(file, sizeof(*file), 1, out->stream);
    fwrite(one, 1, strlen(one), out->stream);
    fwrite(other, 1, strlen(other), out->stream);
}

static void put_added(struct items_out *out, const struct vm *vm) {
    char name[VMIBUS_NAME_BOUND + 2];

    if (!vm->by_command)
        return;
    snprintf(name, sizeof(name), "%s=", vm->machine.name);
    put(out, ITEM_ADDED, NULL, name, vm->path);
}

static void put_dismissed(struct items_out *out, const struct directory *directory) {
    const struct dismissed *dismissed;

    SLIST_FOREACH(dismissed, &directory->dismissed, link) {
        struct item_file file = {.inode = dismissed->inode,
                                 .seconds = dismissed->changed.tv_sec,
                                 .nanoseconds = dismissed->changed.tv_nsec};

        put(out, ITEM_DISMISSED, &file, dismissed->name, directory->path);
    }
}

int by_command_save(const struct qemu *qemu, void **octetsp, size_t *np) {
    const struct directory *directory;
    const struct removed *removed;
    struct items_out out = {};
    uint64_t magic = MAGIC;
    char *octets = NULL;
    const struct vm *vm;
    bool has_failed;

    *octetsp = NULL;
    out.stream = open_memstream(&octets, np);
    if (!out.stream)
        return -ENOMEM;
    fwrite(&magic, sizeof(magic), 1, out.stream);
    TAILQ_FOREACH(vm, &qemu->vms, link)
        put_added(&out, vm);
    SLIST_FOREACH(removed, &qemu->removed, link)
        put(&out, ITEM_REMOVED, NULL, removed->text, "");
    TAILQ_FOREACH(directory, &qemu->directories, link)
        put_dismissed(&out, directory);
    has_failed = ferror(out.stream);
    if (fclose(out.stream) != 0 || has_failed) {
        free(octets);
        return -ENOMEM;
    }
    if (out.n == 0)
        *np = 0;
    *octetsp = octets;

    return 0;
}

/* --- what the instance before said ------------------------------------------------------------- */

struct items {
    const uint8_t *at;
    size_t left;
    uint32_t n;
};

struct item {
    uint32_t kind;
    const char *octets;
    size_t length;
};

static struct items all_items(const struct qemu *qemu) {
    struct items items = {};
    uint64_t magic = 0;

    items.at = saved_rest(&qemu->machines, &items.left);
    if (items.left >= sizeof(magic))
        memcpy(&magic, items.at, sizeof(magic));
    if (magic != MAGIC)
        return (struct items){};
    items.at += sizeof(magic);
    items.left -= sizeof(magic);

    return items;
}

static bool next_item(struct items *items, struct item *item) {
    struct item_header header;

    if (!items->at || items->left < sizeof(header) || items->n++ >= BY_COMMAND_ITEMS)
        return false;
    memcpy(&header, items->at, sizeof(header));
    if (header.length > items->left - sizeof(header))
        return false;
    *item = (struct item){
        .kind = header.kind, .octets = (const char *)items->at + sizeof(header), .length = header.length};
    items->at += sizeof(header) + header.length;
    items->left -= sizeof(header) + header.length;

    return true;
}

int by_command_is_removed(struct qemu *qemu, const char *name, const char *path) {
    struct items items = all_items(qemu);
    size_t name_len = strlen(name), path_len = strlen(path);
    struct item item;

    while (next_item(&items, &item)) {
        if (item.kind != ITEM_REMOVED || item.length != name_len + 1 + path_len)
            continue;
        if (memcmp(item.octets, name, name_len) != 0 || item.octets[name_len] != '=' ||
            memcmp(item.octets + name_len + 1, path, path_len) != 0)
            continue;
        return remember(qemu, name, path) < 0 ? -ENOMEM : 1;
    }

    return 0;
}

/* Only in a directory that an option names still. */
static void dismiss(struct qemu *qemu, const struct item *item) {
    size_t length = item->length - sizeof(struct item_file);
    const char *text = item->octets + sizeof(struct item_file), *path = memchr(text, '/', length);
    size_t name_len = path ? (size_t)(path - text) : 0, path_len = length - name_len;
    struct directory *directory;
    struct item_file file;
    char name[VMIBUS_NAME_BOUND + 1];

    if (!path || !directory_name_is_valid(text, name_len))
        return;
    memcpy(&file, item->octets, sizeof(file));
    memcpy(name, text, name_len);
    name[name_len] = '\0';
    TAILQ_FOREACH(directory, &qemu->directories, link)
        if (strlen(directory->path) == path_len && memcmp(directory->path, path, path_len) == 0)
            (void)directory_dismiss(directory, name, file.inode,
                                    (struct timespec){.tv_sec = file.seconds, .tv_nsec = file.nanoseconds});
}

void by_command_restore(struct qemu *qemu) {
    struct items items = all_items(qemu);
    struct item item;

    while (next_item(&items, &item))
        if (item.kind == ITEM_ADDED)
            (void)add_vm(qemu, item.octets, item.length);
        else if (item.kind == ITEM_DISMISSED && item.length >= sizeof(struct item_file))
            dismiss(qemu, &item);
}
