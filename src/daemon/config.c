/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/config.h"

#include <errno.h>
#include <grp.h>
#include <ini.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/client.h>
#include <vmibus/names.h>

/* A file being read: what it fills, and the first mistake. */
struct reading {
    struct config *config;
    struct config_error *error;
    struct policy_rule *rule;
    FILE *file;
    int line;                   /* last one read */
    bool failed;
};

static int __attribute__((format(printf, 2, 3))) complain(struct reading *reading, const char *format, ...) {
    va_list arguments;

    if (!reading->failed) {
        va_start(arguments, format);
        vsnprintf(reading->error->text, sizeof(reading->error->text), format, arguments);
        va_end(arguments);
    }
    reading->failed = true;
    return 0; /* the parser counts the line */
}

int config_set_string(char **setting, const char *value) {
    char *copy = strdup(value);

    if (!copy)
        return -ENOMEM;
    free(*setting);
    *setting = copy;
    return 0;
}

/* --- values ------------------------------------------------------------------------------------ */

static bool parse_number(const char *text, uint64_t maximum, uint64_t *value) {
    char *end;

    errno = 0;
    *value = strtoull(text, &end, 0);
    return !errno && end != text && *end == '\0' && *text != '-' && *value <= maximum;
}

static int set_string(struct reading *reading, char **setting, const char *value) {
    if (!*value)
        return complain(reading, "the value is empty");
    return config_set_string(setting, value) == 0 ? 1 : complain(reading, "out of memory");
}

static int set_number(struct reading *reading, const char *name, uint32_t *setting, const char *value, uint32_t minimum,
                      uint32_t maximum) {
    uint64_t number;

    if (!parse_number(value, maximum, &number) || number < minimum)
        return complain(reading, "%s = %s: a number from %u to %u is wanted", name, value, minimum, maximum);
    *setting = (uint32_t)number;
    return 1;
}

static int set_mode(struct reading *reading, mode_t *setting, const char *value) {
    char *end;
    unsigned long mode = strtoul(value, &end, 8);

    if (*end || end == value || mode > 0777)
        return complain(reading, "socket-mode = %s: an octal mode such as 0660 is wanted", value);
    *setting = (mode_t)mode;
    return 1;
}

static int set_small_writes(struct reading *reading, bool *on_worker, const char *value) {
    if (strcmp(value, "here") != 0 && strcmp(value, "worker") != 0)
        return complain(reading, "small-writes = %s: 'here' or 'worker' is wanted", value);
    *on_worker = strcmp(value, "worker") == 0;
    return 1;
}

/* --- [daemon] ---------------------------------------------------------------------------------- */

static int set_daemon(struct reading *reading, const char *name, const char *value) {
    struct config *config = reading->config;
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
        {"frame-timeout-ms", &config->half_frame_ms, 100, 600000},
        {"revoke-timeout-ms", &config->drain_ms, 100, 600000},
        {"retire-timeout-ms", &config->retire_ms, 100, 600000},
        {"hold-ms", &config->hold_ms, 100, 600000},
    };
    uint64_t records;

    if (strcmp(name, "socket") == 0)
        return set_string(reading, &config->socket, value);
    if (strcmp(name, "socket-mode") == 0)
        return set_mode(reading, &config->socket_mode, value);
    if (strcmp(name, "small-writes") == 0)
        return set_small_writes(reading, &config->small_writes_on_worker, value);
    if (strcmp(name, "state-directory") == 0)
        return set_string(reading, &config->state_directory, value);
    if (strcmp(name, "sensor-directory") == 0)
        return set_string(reading, &config->sensor_directory, value);
    if (strcmp(name, "audit-records") == 0) {
        if (!parse_number(value, 1u << 26, &records) || records < 16)
            return complain(reading, "audit-records = %s: a number from 16 to %u is wanted", value, 1u << 26);
        config->audit_records = records;
        return 1;
    }
    if (strcmp(name, "memory-cap") == 0) {
        if (!parse_number(value, UINT64_C(1) << 44, &config->memory_cap) || config->memory_cap == 0)
            return complain(reading, "memory-cap = %s: a number of octets is wanted", value);
        return 1;
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (strcmp(name, numbers[i].name) == 0)
            return set_number(reading, name, numbers[i].setting, value, numbers[i].minimum, numbers[i].maximum);
    return complain(reading, "unknown key '%s' in [daemon]; vmibusd.conf(5) lists the keys", name);
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
        if (!parse_number(value, UINT32_MAX, &number))
            return complain(reading, "%s = %s: a number up to %u is wanted", name, value, UINT32_MAX);
        limits[i] = number;
        return 1;
    }
    return complain(reading, "unknown key '%s' in [%s]; vmibusd.conf(5) lists the keys", name, section);
}

/* --- [rule NAME] ------------------------------------------------------------------------------- */

static bool names_nobody(const struct policy_rule *rule) {
    return rule->subject == POLICY_USER && rule->id == UINT32_MAX;
}

/* Of two subjects one would be forgotten, and of two rules under one name the second would get what the first allows. */
static int set_subject(struct reading *reading, struct policy_rule *rule, enum policy_subject subject, uint32_t id) {
    if (!names_nobody(rule))
        return complain(reading,
                        "[rule %s] names somebody already: a rule names one user, one group or everybody; write another rule",
                        rule->name);
    rule->subject = subject;
    rule->id = id;
    return 1;
}

static int set_user(struct reading *reading, struct policy_rule *rule, const char *value) {
    const struct passwd *user = getpwnam(value);
    uint64_t number;

    if (!user && !parse_number(value, UINT32_MAX - 1, &number))
        return complain(reading, "user = %s: there is no such user", value);
    return set_subject(reading, rule, POLICY_USER, user ? user->pw_uid : (uint32_t)number);
}

static int set_group(struct reading *reading, struct policy_rule *rule, const char *value) {
    const struct group *group = getgrnam(value);
    uint64_t number;

    if (!group && !parse_number(value, UINT32_MAX - 1, &number))
        return complain(reading, "group = %s: there is no such group", value);
    return set_subject(reading, rule, POLICY_GROUP, group ? group->gr_gid : (uint32_t)number);
}

static int set_capabilities(struct reading *reading, struct policy_rule *rule, const char *value) {
    char copy[512];
    char *rest = copy, *word;

    if (strlen(value) >= sizeof(copy))
        return complain(reading, "capabilities: the list is longer than %zu octets", sizeof(copy) - 1);
    strcpy(copy, value);
    while ((word = strsep(&rest, " ,\t"))) {
        int capability;

        if (!*word)
            continue;
        if (strcmp(word, "all") == 0) {
            rule->capabilities |= CAPABILITIES_ALL;
            continue;
        }
        capability = vmibus_capability_from_name(word);
        if (capability < 0)
            return complain(reading, "capabilities: there is no capability '%s'; vmibusd.conf(5) lists them", word);
        rule->capabilities |= (uint32_t)capability;
    }
    return 1;
}

static int set_write_ranges(struct reading *reading, const char *name, struct write_ranges *ranges, const char *value) {
    if (write_ranges_parse(ranges, value) < 0)
        return complain(reading, "%s = %s: one to %u ranges FIRST-LAST of addresses are wanted", name, value, WRITE_RANGES);
    return 1;
}

static int set_write_bound(struct reading *reading, struct write_bounds *bounds, const char *name, const char *value) {
    uint32_t number = 0;

    if (strcmp(name, "write-gva") == 0)
        return set_write_ranges(reading, name, &bounds->place.gva, value);
    if (strcmp(name, "write-gpa") == 0)
        return set_write_ranges(reading, name, &bounds->place.gpa, value);
    if (strcmp(name, "write-protect") == 0)
        return write_protection_parse(&bounds->place.protect, value) == 0 ? 1 :
               complain(reading, "write-protect = %s: known are kernel-text and page-tables", value);
    if (!set_number(reading, name, &number, value, 1, UINT32_MAX))
        return 0;
    *(strcmp(name, "write-size") == 0 ? &bounds->size : &bounds->rate) = number;
    return 1;
}

static bool is_write_bound(const char *name) {
    static const char *const names[] = {"write-gva", "write-gpa", "write-protect", "write-size", "write-rate"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static int set_rule(struct reading *reading, const char *rule_name, const char *name, const char *value) {
    struct policy_rule *rule = reading->rule;

    if (!rule || strcmp(rule->name, rule_name) != 0) {
        if (policy_add_rule(reading->config->policy, rule_name, &rule) < 0)
            return complain(reading, "out of memory");
        reading->rule = rule;
    }
    if (strcmp(name, "user") == 0)
        return set_user(reading, rule, value);
    if (strcmp(name, "group") == 0)
        return set_group(reading, rule, value);
    if (strcmp(name, "everybody") == 0) {
        if (strcmp(value, "yes") != 0)
            return complain(reading, "everybody = %s: only 'yes' can be said", value);
        return set_subject(reading, rule, POLICY_EVERYBODY, 0);
    }
    if (strcmp(name, "endpoints") == 0)
        return set_string(reading, &rule->endpoints, value);
    if (strcmp(name, "capabilities") == 0)
        return set_capabilities(reading, rule, value);
    if (strcmp(name, "rank") == 0)
        return set_number(reading, name, &rule->rank, value, 0, UINT32_MAX);
    if (strcmp(name, "lease-ttl-ms") == 0)
        return set_number(reading, name, &rule->lease_ttl_ms, value, 1, UINT32_MAX);
    if (is_write_bound(name))
        return set_write_bound(reading, &rule->write, name, value);
    return complain(reading, "unknown key '%s' in [rule %s]; vmibusd.conf(5) lists the keys", name, rule_name);
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

    if (!sensor || config_sensor_set(sensor, name, value) < 0)
        return complain(reading, "out of memory");
    return 1;
}

/* --- [faults] ---------------------------------------------------------------------------------- */

static int set_fault(struct reading *reading, const char *name, const char *value) {
#ifdef HAVE_FAULT_INJECTION
    int r = fault_rules_add(&reading->config->faults, name, value);

    if (r == -ENOENT)
        return complain(reading, "unknown location '%s' in [faults]; vmibusd.conf(5) lists them", name);
    if (r < 0 && strcmp(name, "seed") == 0)
        return complain(reading, "seed = %s: a number from 1 is wanted", value);
    if (r < 0)
        return complain(reading,
                        "%s = %s: known are off, fail, drop-every:N, fail-after:N, rate:N and delay-ms:N, N from 1 and a delay "
                        "up to 60000",
                        name, value);
    return 1;
#else
    (void)value;
    return complain(reading, "[faults] %s: this vmibusd cannot inject faults; configure it with --enable-fault-injection", name);
#endif
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
        return set_rule(reading, section + 5, name, value);
    if (strncmp(section, "sensor ", 7) == 0 && section[7])
        return set_sensor(reading, section + 7, name, value);
    if (strcmp(section, "faults") == 0)
        return set_fault(reading, name, value);
    return complain(reading,
                    "unknown section [%s]; known are [daemon], [limits], [limits-total], [rule NAME], [sensor NAME], [faults]",
                    section);
}

/* A rule that names nobody is a mistake that would be found only by its absence. */
static int check_rules(struct reading *reading) {
    const struct policy_rule *rule;

    list_for_each(rule, &reading->config->policy->rules, link) {
        if (names_nobody(rule))
            complain(reading, "[rule %s] names nobody: it needs user =, group = or everybody = yes", rule->name);
        else if (rule->capabilities == 0)
            complain(reading, "[rule %s] grants nothing: it needs capabilities =", rule->name);
    }
    return reading->failed ? -EINVAL : 0;
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
        complain(reading, "the line is longer than %d octets, or holds a NUL", size - 2);
        return NULL;
    }
    blanks = strspn(line, " \t");
    memmove(line, line + blanks, length - blanks + 1);
    if (is_long_section(line)) {
        reading->error->line = reading->line;
        complain(reading, "the name of the section is longer than %d octets", SECTION_BOUND);
        return NULL;
    }
    if (!see_sensor(reading, line)) {
        reading->error->line = reading->line;
        complain(reading, "out of memory");
        return NULL;
    }
    return line;
}

int config_read(struct config *config, const char *path, struct config_error *error) {
    struct reading reading = {.config = config, .error = error, .file = fopen(path, "re")};
    int line, r;

    *error = (struct config_error){};
    if (!reading.file)
        return -errno;
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
    return check_rules(&reading);
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
        .half_frame_ms = 10000,
        .drain_ms = 5000,
        .retire_ms = 5000,
        .hold_ms = 10000,
        .audit_records = 16384,
    };
    list_init(&config->sensors);
    if (config_set_string(&config->socket, VMIBUS_SOCKET_DEFAULT) < 0 ||
        config_set_string(&config->state_directory, VMIBUS_LOCALSTATEDIR "/lib/vmibus") < 0 ||
        config_set_string(&config->sensor_directory, VMIBUS_SENSOR_DIR_DEFAULT) < 0 || policy_new(&config->policy) < 0) {
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
    free(config->sensor_directory);
    config->socket = config->state_directory = config->sensor_directory = NULL;
    config->policy = policy_free(config->policy);
}

struct policy *config_take_policy(struct config *config) {
    struct policy *policy = config->policy;

    config->policy = NULL;
    return policy;
}
