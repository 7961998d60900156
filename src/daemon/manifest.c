/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/manifest.h"

#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <vmibus/names.h>
#include <vmibus/syscalls.h>

VMIBUS_SYSCALLS("openat")

struct reading {
    struct manifest *manifest;
    struct config_error *error;
};

static int complain(struct reading *reading, const char *what, const char *word) {
    if (!reading->error->text[0])
        snprintf(reading->error->text, sizeof(reading->error->text), "%s '%s'", what, word);
    return 0;
}

static int set_text(struct reading *reading, char *setting, size_t size, const char *value) {
    if (strlen(value) >= size)
        return complain(reading, "too long a value", value);
    strcpy(setting, value);
    return 1;
}

static int set_groups(struct reading *reading, uint32_t *groups, const char *value) {
    char copy[256];
    char *rest = copy, *word;

    if (strlen(value) >= sizeof(copy))
        return complain(reading, "too long a value", value);
    strcpy(copy, value);
    while ((word = strsep(&rest, " ,\t"))) {
        int group = *word ? vmibus_group_from_name(word) : 0;

        if (group < 0)
            return complain(reading, "there is no provider group", word);
        *groups |= (uint32_t)group;
    }
    return 1;
}

static int take(void *context, const char *section, const char *name, const char *value) {
    struct reading *reading = context;
    struct manifest *manifest = reading->manifest;

    if (strcmp(section, "sensor") != 0)
        return complain(reading, "unknown section", section);
    if (strcmp(name, "name") == 0)
        return set_text(reading, manifest->name, sizeof(manifest->name), value);
    if (strcmp(name, "kind") == 0)
        return strcmp(value, "host") == 0 || strcmp(value, "knowledge") == 0 || strcmp(value, "watch") == 0
                   ? set_text(reading, manifest->kind, sizeof(manifest->kind), value)
                   : complain(reading, "kind: host, knowledge or watch is wanted, not", value);
    if (strcmp(name, "module") == 0)
        return strchr(value, '/') ? complain(reading, "the module is a file name, not a path:", value)
                                  : set_text(reading, manifest->module, sizeof(manifest->module), value);
    if (strcmp(name, "needs") == 0)
        return set_text(reading, manifest->needs, sizeof(manifest->needs), value);
    if (strcmp(name, "keeps-state") == 0) {
        manifest->keeps_state = strcmp(value, "yes") == 0;
        return manifest->keeps_state ? 1 : complain(reading, "keeps-state: only 'yes' can be said, not", value);
    }
    if (strcmp(name, "provides") == 0)
        return set_groups(reading, &manifest->provides, value);
    if (strcmp(name, "fallback-only") == 0)
        return set_groups(reading, &manifest->fallback, value);
    return complain(reading, "unknown key", name);
}

int manifest_read(struct manifest *manifest, const char *directory, const char *sensor, struct config_error *error) {
    struct reading reading = {.manifest = manifest, .error = error};
    char path[PATH_MAX];
    FILE *file;
    int line;

    *manifest = (struct manifest){};
    *error = (struct config_error){};
    if (strchr(sensor, '/') || snprintf(path, sizeof(path), "%s/%s.sensor", directory, sensor) >= (int)sizeof(path))
        return -ENOENT;
    file = fopen(path, "re");
    if (!file)
        return -errno;
    line = ini_parse_file(file, take, &reading);
    fclose(file);
    if (line) {
        error->line = line > 0 ? line : 0;
        if (!error->text[0])
            snprintf(error->text, sizeof(error->text), "neither [section] nor key = value");
        return -EINVAL;
    }
    if (strcmp(manifest->name, sensor) != 0 || !manifest->module[0]) {
        snprintf(error->text, sizeof(error->text), "name = and module = are needed, and the name is that of the file");
        return -EINVAL;
    }
    return 0;
}
