/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/config.h"

#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/client.h>
#include <vmibus/syscalls.h>

#include "audit/journal.h"
#include "daemon/config_reading.h"
#include "daemon/log.h"
#include "daemon/opener_config.h"

VMIBUS_SYSCALLS("getdents64 openat")

/* What the folder beside a file adds to its name, and files in it must end with. */
#define FOLDER_SUFFIX ".d"
#define PART_SUFFIX ".conf"

int config_set_string(char **setting, const char *value) {
    char *copy = strdup(value);

    if (!copy)
        return -ENOMEM;
    free(*setting);
    *setting = copy;
    return 0;
}

static int set_mode(struct reading *reading, mode_t *setting, const char *value) {
    char *end;
    unsigned long mode = strtoul(value, &end, 8);

    if (*end || end == value || mode > 0777)
        return reading_complain(reading, "socket-mode = %s: an octal mode such as 0660 is wanted", value);
    *setting = (mode_t)mode;
    return 1;
}

static int set_yes_or_no(struct reading *reading, const char *name, bool *setting, const char *value) {
    if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
        return reading_complain(reading, "%s = %s: 'yes' or 'no' is wanted", name, value);
    *setting = strcmp(value, "yes") == 0;
    return 1;
}

static int set_small_writes(struct reading *reading, bool *on_worker, const char *value) {
    if (strcmp(value, "here") != 0 && strcmp(value, "worker") != 0)
        return reading_complain(reading, "small-writes = %s: 'here' or 'worker' is wanted", value);
    *on_worker = strcmp(value, "worker") == 0;
    return 1;
}

/* --- [daemon] ---------------------------------------------------------------------------------- */

static int set_audit_records(struct reading *reading, uint64_t *setting, const char *value) {
    uint64_t records;

    if (!reading_parse_number(value, 1u << 26, &records) || records < 16)
        return reading_complain(reading, "audit-records = %s: a number from 16 to %u is wanted", value, 1u << 26);
    *setting = records;
    return 1;
}

static int set_memory_cap(struct reading *reading, uint64_t *setting, const char *value) {
    if (!reading_parse_number(value, UINT64_C(1) << 44, setting) || *setting == 0)
        return reading_complain(reading, "memory-cap = %s: a number of octets is wanted", value);
    return 1;
}

static int set_sandbox(struct reading *reading, enum sandbox_wish *setting, const char *value) {
    return sandbox_parse(value, setting) ? 1 : reading_complain(reading, "sandbox = %s: 'yes', 'no' or 'require' is wanted", value);
}

/* Numbers and paths. -1: it is another key. */
static int set_daemon_plain(struct reading *reading, const char *name, const char *value) {
    struct config *config = reading->config;
    const struct {
        const char *name;
        char **setting;
    } paths[] = {
        {"socket", &config->socket},
        {"memory-socket", &config->memory_socket},
        {"memory-state-directory", &config->memory_state_directory},
        {"opener-socket", &config->opener_socket},
        {"sensor-directory", &config->sensor_directory},
        {"state-directory", &config->state_directory},
    };
    const struct {
        const char *name;
        uint32_t *setting;
        uint32_t minimum, maximum;
    } numbers[] = {
        {"max-endpoints", &config->n_endpoints, 1, 65536},
        {"max-connections", &config->n_connections, 1, 65536},
        {"queue-depth", &config->queue_depth, 16, 1u << 20},
        {"commands", &config->commands, 1, 65536},
        {"tail-bound", &config->tail_bound, 4096, 1u << 30},
        {"large-tails", &config->n_large_tails, 1, 1024},
        {"hello-timeout-ms", &config->hello_ms, 100, 600000},
        {"handover-timeout-ms", &config->handover_ms, 0, 60000},
        {"frame-timeout-ms", &config->half_frame_ms, 100, 600000},
        {"revoke-timeout-ms", &config->drain_ms, 100, 600000},
        {"retire-timeout-ms", &config->retire_ms, 100, 600000},
        {"hold-ms", &config->hold_ms, 100, 600000},
        {"sensor-endpoints", &config->sensor_endpoints, 1, 65536},
        {"sensor-answer-timeout-ms", &config->sensor_answer_ms, 100, 3600000},
    };

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        if (strcmp(name, paths[i].name) == 0)
            return reading_set_string(reading, paths[i].setting, value);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (strcmp(name, numbers[i].name) == 0)
            return reading_set_number(reading, name, numbers[i].setting, value, numbers[i].minimum, numbers[i].maximum);
    return -1;
}

static int set_daemon(struct reading *reading, const char *name, const char *value) {
    struct config *config = reading->config;
    int r = set_daemon_plain(reading, name, value);

    if (r >= 0)
        return r;
    if (strcmp(name, "socket-mode") == 0)
        return set_mode(reading, &config->socket_mode, value);
    if (strcmp(name, "small-writes") == 0)
        return set_small_writes(reading, &config->small_writes_on_worker, value);
    if (strcmp(name, "sensor-users") == 0)
        return reading_set_users(reading, name, &config->policy->sensor_users, value);
    if (strcmp(name, "bus-user") == 0)
        return reading_set_users(reading, name, &config->policy->bus_users, value);
    if (strcmp(name, "sandbox") == 0)
        return set_sandbox(reading, &config->sandbox, value);
    if (strcmp(name, "memory-cap") == 0)
        return set_memory_cap(reading, &config->memory_cap, value);
    if (strcmp(name, "audit-records") == 0)
        return set_audit_records(reading, &config->audit_records, value);
    if (strncmp(name, "audit", strlen("audit")) == 0)
        return reading_set_audit(reading, name, value);
    return reading_complain(reading, "unknown key '%s' in [daemon]; vmibusd.conf(5) lists the keys", name);
}

/* --- [limits], [limits-total] ------------------------------------------------------------------ */

static const char *const resource_keys[N_RESOURCES] = {
    [RESOURCE_CONNECTIONS] = "connections",
    [RESOURCE_COMMANDS] = "commands",
    [RESOURCE_EVENTS] = "events",
    [RESOURCE_BYTES] = "bytes",
    [RESOURCE_FDS] = "descriptors",
    [RESOURCE_LEASES] = "leases",
    [RESOURCE_WAITERS] = "waiters",
    [RESOURCE_SUBSCRIPTIONS] = "subscriptions",
    [RESOURCE_TAILS] = "tails",
    [RESOURCE_ATTACHMENTS] = "attachments",
    [RESOURCE_BUFFERS] = "buffers",
    [RESOURCE_ENDPOINTS] = "endpoints",
    [RESOURCE_HOLDS] = "holds",
    [RESOURCE_ANSWERS] = "answers",
    [RESOURCE_WATCHES] = "watches",
};

static int set_limit(struct reading *reading, const char *section, uint64_t *limits, const char *name, const char *value) {
    for (size_t i = 0; i < N_RESOURCES; i++) {
        uint64_t number;

        if (strcmp(name, resource_keys[i]) != 0)
            continue;
        if (!reading_parse_number(value, UINT32_MAX, &number))
            return reading_complain(reading, "%s = %s: a number up to %u is wanted", name, value, UINT32_MAX);
        limits[i] = number;
        return 1;
    }
    return reading_complain(reading, "unknown key '%s' in [%s]; vmibusd.conf(5) lists the keys", name, section);
}

/* --- [sensor NAME] ----------------------------------------------------------------------------- */

struct config_sensor *config_sensor(struct config *config, const char *name) {
    struct config_sensor *sensor;

    list_for_each(sensor, &config->sensors, link)
        if (strcmp(sensor->name, name) == 0)
            return sensor;
    sensor = calloc(1, sizeof(*sensor));
    if (!sensor)
        return NULL;
    sensor->name = strdup(name);
    if (!sensor->name) {
        free(sensor);
        return NULL;
    }
    list_append(&config->sensors, &sensor->link);
    return sensor;
}

static void option_free(struct vmibus_sensor_option *option) {
    free((char *)option->key);
    free((char *)option->value);
}

int config_sensor_set(struct config_sensor *sensor, const char *key, const char *value) {
    struct vmibus_sensor_option option = {.key = strdup(key), .value = strdup(value)};
    struct vmibus_sensor_option *options;

    if (!option.key || !option.value) {
        option_free(&option);
        return -ENOMEM;
    }
    for (size_t i = 0; i < sensor->n_options; i++)
        if (strcmp(sensor->options[i].key, key) == 0) {
            option_free(&sensor->options[i]);
            sensor->options[i] = option;
            return 0;
        }
    options = reallocarray(sensor->options, sensor->n_options + 1, sizeof(*options));
    if (!options) {
        option_free(&option);
        return -ENOMEM;
    }
    sensor->options = options;
    sensor->options[sensor->n_options++] = option;
    return 0;
}

static int set_sensor(struct reading *reading, const char *sensor_name, const char *name, const char *value) {
    struct config_sensor *sensor = config_sensor(reading->config, sensor_name);

    if (sensor && strcmp(name, "apart") == 0)
        return set_yes_or_no(reading, name, &sensor->apart, value);
    if (!sensor || config_sensor_set(sensor, name, value) < 0)
        return reading_complain(reading, "out of memory");
    return 1;
}

/* --- [faults] ---------------------------------------------------------------------------------- */

static int set_fault(struct reading *reading, const char *name, const char *value) {
#ifdef HAVE_FAULT_INJECTION
    int r = fault_rules_add(&reading->config->faults, name, value);

    if (r == -ENOENT)
        return reading_complain(reading, "unknown location '%s' in [faults]; vmibusd.conf(5) lists them", name);
    if (r < 0 && strcmp(name, "seed") == 0)
        return reading_complain(reading, "seed = %s: a number from 1 is wanted", value);
    if (r < 0)
        return reading_complain(reading,
                        "%s = %s: known are off, fail, drop-every:N, fail-after:N, rate:N and delay-ms:N, N from 1 and a delay "
                        "up to 60000",
                        name, value);
    return 1;
#else
    (void)value;
    return reading_complain(reading, "[faults] %s: this vmibusd cannot inject faults; configure it with --enable-fault-injection",
                            name);
#endif
}

/* --- [opener] ---------------------------------------------------------------------------------- */

/* It is vmibus-opend's to follow; a mistake in it is told here too. */
static int check_opener(struct reading *reading, const char *name, const char *value) {
    struct opener_config_error error = {};
    struct opener_config config;
    int r = opener_config_init(&config);

    if (r == 0)
        r = opener_config_set(&config, name, value, &error);
    opener_config_deinit(&config);
    return r == 0 ? 1 : reading_complain(reading, "%s", r == -EINVAL ? error.text : "out of memory");
}

/* --- the file ---------------------------------------------------------------------------------- */

static int take(void *context, const char *section, const char *name, const char *value) {
    struct reading *reading = context;

    if (strcmp(section, "daemon") == 0)
        return set_daemon(reading, name, value);
    if (strcmp(section, "limits") == 0)
        return set_limit(reading, section, reading->config->policy->limits, name, value);
    if (strcmp(section, "limits-total") == 0)
        return set_limit(reading, section, reading->config->policy->limits_total, name, value);
    if (strncmp(section, "rule ", 5) == 0 && section[5])
        return reading_set_rule(reading, section + 5, name, value);
    if (strncmp(section, "sensor ", 7) == 0 && section[7])
        return set_sensor(reading, section + 7, name, value);
    if (strcmp(section, "opener") == 0)
        return check_opener(reading, name, value);
    if (strcmp(section, "faults") == 0)
        return set_fault(reading, name, value);
    return reading_complain(reading,
                    "unknown section [%s]; known are [daemon], [limits], [limits-total], [rule NAME], [sensor NAME], [opener], "
                    "[faults]",
                    section);
}

/* The parser cuts a longer section, and two rules would become one. */
#define SECTION_BOUND 49

static bool is_long_section(const char *line) {
    return *line == '[' && strcspn(line + 1, "]\n") > SECTION_BOUND;
}

/* The parser does not tell of a section that has no keys: a sensor needs none to be loaded. */
static bool see_sensor(struct reading *reading, const char *line) {
    static const char begin[] = "[sensor ";
    char name[SECTION_BOUND + 1];
    size_t len;

    if (strncmp(line, begin, strlen(begin)) != 0)
        return true;
    line += strlen(begin);
    len = strcspn(line, "]\n");
    if (len == 0 || line[len] != ']')
        return true;
    memcpy(name, line, len);
    name[len] = '\0';
    return config_sensor(reading->config, name) != NULL;
}

/*
 * Like fgets(3), for the parser, which would take the rest of a line that is too long for another line, and a line that begins
 * with a blank for more of the value before.
 */
static char *read_line(char *line, int size, void *stream) {
    struct reading *reading = stream;
    size_t length, blanks;

    if (reading->failed || !fgets(line, size, reading->file))
        return NULL;
    reading->line++;
    length = strlen(line);
    if ((length == 0 || line[length - 1] != '\n') && !feof(reading->file)) {
        reading->error->line = reading->line;
        reading_complain(reading, "the line is longer than %d octets, or holds a NUL", size - 2);
        return NULL;
    }
    blanks = strspn(line, " \t");
    memmove(line, line + blanks, length - blanks + 1);
    if (is_long_section(line)) {
        reading->error->line = reading->line;
        reading_complain(reading, "the name of the section is longer than %d octets", SECTION_BOUND);
        return NULL;
    }
    if (!see_sensor(reading, line)) {
        reading->error->line = reading->line;
        reading_complain(reading, "out of memory");
        return NULL;
    }
    return line;
}

/* Who can change the policy can do everything that it can be made to allow. */
static int check_owner(struct reading *reading) {
    struct stat st;

    if (fstat(fileno(reading->file), &st) < 0)
        return -errno;
    if (S_ISREG(st.st_mode) && st.st_mode & S_IWOTH)
        reading_complain(reading, "everybody can write to it; chmod o-w it");
    else if (S_ISREG(st.st_mode) && st.st_uid != 0 && st.st_uid != geteuid())
        reading_complain(reading, "it belongs to uid %u, and not to root or the daemon's own user; chown it",
                         (unsigned int)st.st_uid);
    return reading->failed ? -EINVAL : 0;
}

static int read_file(struct config *config, const char *path, struct config_error *error) {
    struct reading reading = {.config = config, .error = error, .path = path, .file = fopen(path, "re")};
    int line, r;

    *error = (struct config_error){};
    snprintf(error->path, sizeof(error->path), "%s", path);
    if (!reading.file)
        return -errno;
    r = check_owner(&reading);
    if (r < 0) {
        fclose(reading.file);
        return r;
    }
    line = ini_parse_stream(read_line, &reading, take, &reading);
    r = ferror(reading.file) ? -EIO : 0;
    fclose(reading.file);
    if (line < 0)
        return -ENOMEM;
    if (r < 0)
        return r;
    if (line == 0 && reading.failed)
        return -EINVAL;
    if (line > 0) {
        error->line = line;
        if (!reading.failed)
            snprintf(error->text, sizeof(error->text), "neither [section] nor key = value");
        return -EINVAL;
    }
    return reading_check_rules(&reading);
}

/* --- the folder -------------------------------------------------------------------------------- */

static int is_part(const struct dirent *entry) {
    size_t length = strlen(entry->d_name);

    return entry->d_name[0] != '.' && length > strlen(PART_SUFFIX) &&
           strcmp(entry->d_name + length - strlen(PART_SUFFIX), PART_SUFFIX) == 0;
}

/* Whatever the locale is. */
static int compare_parts(const struct dirent **left, const struct dirent **right) {
    return strcmp((*left)->d_name, (*right)->d_name);
}

static int read_parts(struct config *config, const char *folder, struct dirent **parts, int n, struct config_error *error) {
    char path[sizeof(error->path)];
    int r = 0;

    for (int i = 0; r == 0 && i < n; i++) {
        if (snprintf(path, sizeof(path), "%s/%s", folder, parts[i]->d_name) >= (int)sizeof(path))
            r = -ENAMETOOLONG;
        else
            r = read_file(config, path, error);
    }
    return r;
}

static int read_folder(struct config *config, const char *folder, struct config_error *error) {
    struct dirent **parts;
    int n = scandir(folder, &parts, is_part, compare_parts), r;

    if (n < 0 && errno == ENOENT)
        return 0;
    if (n < 0) {
        r = -errno;
        *error = (struct config_error){};
        snprintf(error->path, sizeof(error->path), "%s", folder);
        return r;
    }
    r = read_parts(config, folder, parts, n, error);
    for (int i = 0; i < n; i++)
        free(parts[i]);
    free(parts);
    return r == -ENOENT ? -EIO : r;
}

int config_read(struct config *config, const char *path, struct config_error *error) {
    struct config_error in_folder;
    char folder[sizeof(error->path)];
    int r = read_file(config, path, error), r_folder;

    if (r < 0 && r != -ENOENT)
        return r;
    if (snprintf(folder, sizeof(folder), "%s%s", path, FOLDER_SUFFIX) >= (int)sizeof(folder))
        return r;
    r_folder = read_folder(config, folder, &in_folder);
    if (r_folder == 0)
        return r;
    *error = in_folder;
    return r_folder;
}

int config_init(struct config *config) {
    *config = (struct config){
        .socket_mode = 0666, /* who may do what is the policy's to say, for each connection */
        .n_endpoints = 256,
        .n_connections = 256,
        .queue_depth = 4096,
        .commands = 256,
        .tail_bound = VMIBUS_TAIL_BOUND_DEFAULT,
        .n_large_tails = 16,
        .hello_ms = 5000,
        .handover_ms = 5000,
        .half_frame_ms = 10000,
        .drain_ms = 5000,
        .retire_ms = 5000,
        .sensor_answer_ms = 30000,
        .hold_ms = 10000,
        .sandbox = SANDBOX_DEFAULT,
        .audit_records = 16384,
        .audit = {.full = CHAIN_REFUSE, .digest_bytes = 4096, .segment_bytes = 16u << 20, .idle_rate = 10, .commit_ms = 100,
                  .wait_ms = 5000},
    };
    list_init(&config->sensors);
    if (config_set_string(&config->socket, VMIBUS_SOCKET_DEFAULT) < 0 ||
        config_set_string(&config->state_directory, VMIBUS_LOCALSTATEDIR "/lib/vmibus") < 0 ||
        config_set_string(&config->memory_state_directory, VMIBUS_LOCALSTATEDIR "/lib/vmibus-memory") < 0 ||
        config_set_string(&config->sensor_directory, VMIBUS_SENSOR_DIR_DEFAULT) < 0 ||
        config_set_string(&config->audit.journal, JOURNAL_SOCKET) < 0 || policy_new(&config->policy) < 0) {
        config_deinit(config);
        return -ENOMEM;
    }
    return 0;
}

void config_deinit(struct config *config) {
    struct config_sensor *sensor, *following;

    list_for_each_safe(sensor, following, &config->sensors, link) {
        for (size_t i = 0; i < sensor->n_options; i++)
            option_free(&sensor->options[i]);
        free(sensor->options);
        free(sensor->name);
        free(sensor);
    }
    list_init(&config->sensors);
    free(config->socket);
    free(config->state_directory);
    free(config->memory_socket);
    free(config->memory_state_directory);
    config->memory_socket = config->memory_state_directory = NULL;
    free(config->opener_socket);
    config->opener_socket = NULL;
    free(config->sensor_directory);
    free(config->audit.journal);
    config->audit.journal = NULL;
    config->socket = config->state_directory = config->sensor_directory = NULL;
    config->policy = policy_free(config->policy);
}

int config_read_or_tell(struct config *config, const char *path, bool given) {
    struct config_error error;
    int r = config_init(config);

    if (r < 0)
        return r;
    r = config_read(config, path, &error);
    if (r == -ENOENT && !given)
        r = 0;
    if (r == -EINVAL && error.line)
        log_error("%s:%d: %s", error.path, error.line, error.text);
    else if (r == -EINVAL)
        log_error("%s: %s", error.path, error.text);
    else if (r < 0)
        log_error("%s cannot be read: %s", error.path, strerror(-r));
    if (r < 0)
        config_deinit(config);
    return r;
}

void config_keep_total_limits(struct config *config, const struct policy *in_force) {
    struct policy *policy = config->policy;

    if (memcmp(policy->limits_total, in_force->limits_total, sizeof(policy->limits_total)) == 0)
        return;
    log_warning("[limits-total] changed: what is in force stays so until the daemon is started anew");
    memcpy(policy->limits_total, in_force->limits_total, sizeof(policy->limits_total));
}

struct policy *config_take_policy(struct config *config) {
    struct policy *policy = config->policy;

    config->policy = NULL;
    return policy;
}
