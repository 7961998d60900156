/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/opener_config.h"

#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "daemon/trusted_file.h"
#include "memory/opener_protocol.h"

VMIBUS_SYSCALLS("connect getdents64 openat recvmsg sendto socket")

#define DEFAULT_USER "libvirt-qemu"
#define DEFAULT_MEMORY_USER "vmibus-memory"
#define DEFAULT_EXECUTABLES "/usr/bin/qemu-system-*"
#define DEFAULT_TIMEOUT_MS 3000u
#define TIMEOUT_MIN_MS 100u
#define TIMEOUT_MAX_MS 8000u /* before the asker gives up: OPENER_REMOTE_MS */

static int __attribute__((format(printf, 2, 3))) complain(struct opener_config_error *error, const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(error->text, sizeof(error->text), format, arguments);
    va_end(arguments);
    return -EINVAL;
}

/* --- lists of words ---------------------------------------------------------------------------- */

typedef int (*word_fn)(struct opener_config *config, void *list, const char *word, struct opener_config_error *error);

static int for_each_word(struct opener_config *config, void *list, const char *value, word_fn fn,
                         struct opener_config_error *error) {
    char *copy = strdup(value), *rest = copy, *word;
    int r = 0;

    if (!copy)
        return -ENOMEM;
    while (r == 0 && (word = strsep(&rest, " ,\t")))
        if (*word)
            r = fn(config, list, word, error);
    free(copy);
    return r;
}

bool opener_users_contain(const struct opener_users *users, uid_t uid) {
    for (size_t i = 0; i < users->n; i++)
        if (users->uids[i] == uid)
            return true;
    return false;
}

static int add_user(struct opener_users *users, uid_t uid) {
    if (users->n == OPENER_NAMES_MAX)
        return -ENOSPC;
    users->uids[users->n++] = uid;
    return 0;
}

static int take_user(struct opener_config *config, void *list, const char *word, struct opener_config_error *error) {
    const struct passwd *user = getpwnam(word);
    char *end;
    unsigned long number = strtoul(word, &end, 10);

    (void)config;
    if (!user && (*end != '\0' || *word < '0' || *word > '9' || number >= UINT32_MAX))
        return complain(error, "there is no user %s; name one that is there, or its number", word);
    if (add_user(list, user ? user->pw_uid : (uid_t)number) < 0)
        return complain(error, "more than %u users are named", OPENER_NAMES_MAX);
    return 0;
}

static int take_executable(struct opener_config *config, void *list, const char *word, struct opener_config_error *error) {
    (void)list;
    if (*word != '/')
        return complain(error, "executables: %s is no absolute path", word);
    if (config->n_executables == OPENER_NAMES_MAX)
        return complain(error, "executables: more than %u are named", OPENER_NAMES_MAX);
    config->executables[config->n_executables] = strdup(word);
    return config->executables[config->n_executables++] ? 0 : -ENOMEM;
}

static void forget_executables(struct opener_config *config) {
    for (size_t i = 0; i < config->n_executables; i++)
        free(config->executables[i]);
    config->n_executables = 0;
}

/* --- keys -------------------------------------------------------------------------------------- */

static int set_users(struct opener_config *config, struct opener_users *users, const char *key, const char *value,
                     struct opener_config_error *error) {
    int r;

    users->n = 0;
    r = for_each_word(config, users, value, take_user, error);
    return r == 0 && users->n == 0 ? complain(error, "%s names nobody", key) : r;
}

static int set_executables(struct opener_config *config, const char *value, struct opener_config_error *error) {
    int r;

    forget_executables(config);
    r = for_each_word(config, NULL, value, take_executable, error);
    return r == 0 && config->n_executables == 0 ? complain(error, "executables names none") : r;
}

static int set_timeout(struct opener_config *config, const char *value, struct opener_config_error *error) {
    char *end;
    unsigned long number = strtoul(value, &end, 10);

    if (end == value || *end || number < TIMEOUT_MIN_MS || number > TIMEOUT_MAX_MS)
        return complain(error, "timeout-ms = %s: a number from %u to %u is wanted", value, TIMEOUT_MIN_MS, TIMEOUT_MAX_MS);
    config->timeout_ms = (uint32_t)number;
    return 0;
}

static int set_process_memory(struct opener_config *config, const char *value, struct opener_config_error *error) {
    if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
        return complain(error, "process-memory = %s: 'yes' or 'no' is wanted", value);
    config->process_memory = strcmp(value, "yes") == 0;
    return 0;
}

static int set_socket(struct opener_config *config, const char *value, struct opener_config_error *error) {
    char *copy;

    if (*value != '/')
        return complain(error, "socket = %s: an absolute path is wanted", value);
    copy = strdup(value);
    if (!copy)
        return -ENOMEM;
    free(config->socket);
    config->socket = copy;
    return 0;
}

int opener_config_set(struct opener_config *config, const char *key, const char *value, struct opener_config_error *error) {
    if (strcmp(key, "users") == 0)
        return set_users(config, &config->users, key, value, error);
    if (strcmp(key, "memory-users") == 0)
        return set_users(config, &config->memory_users, key, value, error);
    if (strcmp(key, "executables") == 0)
        return set_executables(config, value, error);
    if (strcmp(key, "timeout-ms") == 0)
        return set_timeout(config, value, error);
    if (strcmp(key, "process-memory") == 0)
        return set_process_memory(config, value, error);
    if (strcmp(key, "sandbox") == 0)
        return sandbox_parse(value, &config->sandbox)
                   ? 0
                   : complain(error, "sandbox = %s: 'yes', 'no' or 'require' is wanted", value);
    if (strcmp(key, "socket") == 0)
        return set_socket(config, value, error);
    return complain(error, "unknown key '%s' in [opener]; vmibus-opend(8) lists the keys", key);
}

int opener_config_init(struct opener_config *config) {
    *config = (struct opener_config){
        .socket = strdup(OPENER_SOCKET_DEFAULT),
        .timeout_ms = DEFAULT_TIMEOUT_MS,
        .sandbox = SANDBOX_DEFAULT,
        .process_memory = true,
    };
    return config->socket ? 0 : -ENOMEM;
}

void opener_config_deinit(struct opener_config *config) {
    forget_executables(config);
    free(config->socket);
    config->socket = NULL;
}

int opener_config_complete(struct opener_config *config, struct opener_config_error *error) {
    const struct passwd *user;

    *error = (struct opener_config_error){};
    if (config->n_executables == 0 && set_executables(config, DEFAULT_EXECUTABLES, error) < 0)
        return -ENOMEM;
    if (config->users.n == 0) {
        user = getpwnam(DEFAULT_USER);
        if (user)
            add_user(&config->users, user->pw_uid);
    }
    if (config->memory_users.n == 0) {
        add_user(&config->memory_users, geteuid());
        user = getpwnam(DEFAULT_MEMORY_USER);
        if (user)
            add_user(&config->memory_users, user->pw_uid);
    }
    return 0;
}

/* --- the file ---------------------------------------------------------------------------------- */

struct reading {
    struct opener_config *config;
    struct opener_config_error *error;
    FILE *file;
    int line;
    int result;
};

static int take(void *context, const char *section, const char *key, const char *value) {
    struct reading *reading = context;

    if (reading->result < 0 || strcmp(section, "opener") != 0)
        return 1;
    reading->result = opener_config_set(reading->config, key, value, reading->error);
    if (reading->result < 0)
        reading->error->line = reading->line;
    return reading->result == 0;
}

/* As vmibusd reads the same file: a line that is too long is a mistake, and none goes on in the next. */
static char *read_line(char *line, int size, void *stream) {
    struct reading *reading = stream;
    size_t length, blanks;

    if (reading->result < 0 || !fgets(line, size, reading->file))
        return NULL;
    reading->line++;
    length = strlen(line);
    if ((length == 0 || line[length - 1] != '\n') && !feof(reading->file)) {
        reading->error->line = reading->line;
        reading->result = complain(reading->error, "the line is longer than %d octets, or holds a NUL", size - 2);
        return NULL;
    }
    blanks = strspn(line, " \t");
    memmove(line, line + blanks, length - blanks + 1);
    return line;
}

static int read_file(struct opener_config *config, const char *path, struct opener_config_error *error) {
    struct reading reading = {.config = config, .error = error};
    int fd, line;

    snprintf(error->path, sizeof(error->path), "%s", path);
    fd = trusted_open(path, error->text, sizeof(error->text));
    if (fd < 0)
        return fd;
    reading.file = fdopen(fd, "r");
    if (!reading.file) {
        close(fd);
        return -ENOMEM;
    }
    line = ini_parse_stream(read_line, &reading, take, &reading);
    if (reading.result == 0 && ferror(reading.file))
        reading.result = -EIO;
    fclose(reading.file);
    if (reading.result == 0 && line != 0) {
        error->line = line;
        return line < 0 ? -ENOMEM : complain(error, "neither [section] nor key = value");
    }
    return reading.result;
}

static int is_part(const struct dirent *entry) {
    size_t len = strlen(entry->d_name), ending = strlen(".conf");

    return entry->d_name[0] != '.' && len > ending && strcmp(entry->d_name + len - ending, ".conf") == 0;
}

static int by_octets(const struct dirent **one, const struct dirent **other) {
    return strcmp((*one)->d_name, (*other)->d_name);
}

static int read_folder(struct opener_config *config, const char *folder, struct opener_config_error *error) {
    struct dirent **parts = NULL;
    char path[sizeof(error->path)];
    int n, r = 0;

    snprintf(error->path, sizeof(error->path), "%s", folder);
    n = scandir(folder, &parts, is_part, by_octets);
    if (n < 0)
        return errno == ENOENT ? 0 : -errno;
    for (int i = 0; i < n; i++) {
        if (r == 0 && (size_t)snprintf(path, sizeof(path), "%s/%s", folder, parts[i]->d_name) >= sizeof(path))
            r = -ENAMETOOLONG;
        if (r == 0)
            r = read_file(config, path, error);
        free(parts[i]);
    }
    free(parts);
    return r;
}

int opener_config_read(struct opener_config *config, const char *path, struct opener_config_error *error) {
    char folder[sizeof(error->path)];
    int first, r;

    *error = (struct opener_config_error){};
    first = read_file(config, path, error);
    if (first < 0 && first != -ENOENT)
        return first;
    if ((size_t)snprintf(folder, sizeof(folder), "%s.d", path) >= sizeof(folder))
        return -ENAMETOOLONG;
    r = read_folder(config, folder, error);
    if (r == 0 && first < 0)
        snprintf(error->path, sizeof(error->path), "%s", path);
    return r < 0 ? r : first;
}
