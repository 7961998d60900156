/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit_chain.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/names.h>

#include "audit/verify.h"
#include "audit_record.h"
#include "frame_json.h"
#include "report.h"
#include "units.h"

#define TAIL_COUNT 10

static const char *writer_of(const struct audit_chain_options *options) {
    return options->writer ? options->writer : "bus";
}

static int open_directory(const struct audit_chain_options *options, int *fdp) {
    *fdp = open(options->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fdp < 0)
        return report_failure("cannot open %s: %s", printable(options->path), strerror(errno));
    return STATUS_OK;
}

/* --- one record ---------------------------------------------------------------------------------- */

static const char *kind_name(uint16_t kind) {
    static const char *const names[] = {
        [VMIBUS_CHAIN_START] = "START",         [VMIBUS_CHAIN_INTENT] = "INTENT", [VMIBUS_CHAIN_COMMAND] = "COMMAND",
        [VMIBUS_CHAIN_RECOVERED] = "RECOVERED", [VMIBUS_CHAIN_LOST] = "LOST",     [VMIBUS_CHAIN_END] = "END",
        [VMIBUS_CHAIN_STOP] = "STOP",           [VMIBUS_CHAIN_RULE] = "RULE",
    };

    return kind < sizeof(names) / sizeof(*names) && names[kind] ? names[kind] : "?";
}

static void print_command(const struct vmibus_audit_record *command, const struct vmibus_audit_rule *rule) {
    char what[AUDIT_TEXT_SIZE], reason[AUDIT_TEXT_SIZE], by[AUDIT_RULE_SIZE], name[sizeof(command->name) + 1] = "";

    memcpy(name, command->name, sizeof(command->name));
    printf(" uid %" PRIu32 " pid %" PRIu32 " %s", command->uid, command->pid, *name ? printable(name) : "-");
    printf(" %s", vmibus_kind_name(command->kind) ? vmibus_kind_name(command->kind) : "?");
    if (*audit_describe(command, what))
        printf(" %s", what);
    printf(": %s%s%s", audit_outcome(command), audit_reason(command, reason), audit_rule(command, rule, by));
}

static void print_rule(const struct vmibus_audit_rule *rule) {
    printf(" %u: [rule %s] at %s:%" PRIu32, rule->number, printable(rule->name), printable(rule->source), rule->line);
}

static void print_item(const struct chain_item *item, const struct vmibus_audit_rule *rule) {
    char time[AUDIT_TIME_SIZE];

    printf("#%" PRIu64 " %s %s", item->record.sequence, audit_time(item->record.realtime, time), kind_name(item->record.kind));
    if (chain_has_command(item->record.kind))
        print_command(&item->command, rule);
    else if (item->record.kind == VMIBUS_CHAIN_START)
        printf(" incarnation %" PRIu32 " pid %" PRIu32, item->start.incarnation, item->start.pid);
    else if (item->record.kind == VMIBUS_CHAIN_LOST)
        printf(" %" PRIu64 " commands are not recorded, of which %" PRIu32 " changed nothing", item->lost.count, item->lost.idle);
    else if (item->record.kind == VMIBUS_CHAIN_RULE)
        print_rule(&item->rule);
    printf("\n");
}

static struct json_object *item_json(const struct chain_item *item, const struct vmibus_audit_rule *rule, uint64_t segment,
                                     const uint8_t *hash) {
    struct json_object *object = json_object_new_object();

    json_object_object_add(object, "sequence", json_object_new_uint64(item->record.sequence));
    json_object_object_add(object, "segment", json_object_new_uint64(segment));
    json_object_object_add(object, "realtime", json_object_new_int64(item->record.realtime));
    json_object_object_add(object, "record", json_object_new_string(kind_name(item->record.kind)));
    json_object_object_add(object, "hash", frame_json_hex(hash, VMIBUS_AUDIT_HASH));
    if (chain_has_command(item->record.kind))
        json_object_object_add(object, "command", audit_json(&item->command, rule));
    if (item->record.kind == VMIBUS_CHAIN_START)
        json_object_object_add(object, "incarnation", json_object_new_uint64(item->start.incarnation));
    if (item->record.kind == VMIBUS_CHAIN_LOST)
        json_object_object_add(object, "count", json_object_new_uint64(item->lost.count));
    if (item->record.kind == VMIBUS_CHAIN_LOST)
        json_object_object_add(object, "idle", json_object_new_uint64(item->lost.idle));
    if (item->record.kind == VMIBUS_CHAIN_RULE) {
        json_object_object_add(object, "number", json_object_new_uint64(item->rule.number));
        json_object_object_add(object, "rule", frame_json_text(item->rule.name, strlen(item->rule.name)));
        json_object_object_add(object, "rule_source", frame_json_text(item->rule.source, strlen(item->rule.source)));
        json_object_object_add(object, "rule_line", json_object_new_uint64(item->rule.line));
    }
    return object;
}

static bool is_wanted(const struct audit_chain_options *options, const struct chain_item *item) {
    return !options->only_commands || (chain_has_command(item->record.kind) && audit_is_command(item->command.kind));
}

/* --- rules --------------------------------------------------------------------------------------- */

/* What numbers mean, as the chain told last. */
struct rules {
    struct vmibus_audit_rule rules[VMIBUS_AUDIT_RULES];
};

static struct rules *rules_new(void) {
    struct rules *rules = calloc(1, sizeof(*rules));

    if (!rules)
        abort();
    return rules;
}

static struct vmibus_audit_rule *rule_place(struct rules *rules, uint16_t number) {
    return &rules->rules[number % VMIBUS_AUDIT_RULES];
}

/* A chain can be good and its text no text. */
static void learn_rule(struct rules *rules, struct chain_item *item) {
    struct vmibus_audit_rule *rule = &item->rule;

    rule->name[sizeof(rule->name) - 1] = rule->source[sizeof(rule->source) - 1] = '\0';
    *rule_place(rules, rule->number) = *rule;
}

/* --- the last ones ------------------------------------------------------------------------------- */

struct kept {
    struct chain_item item;
    struct vmibus_audit_rule rule; /* of a command; number 0: not known */
    uint64_t segment;
    uint8_t hash[VMIBUS_AUDIT_HASH];
};

/* The last `room` records of those that were seen; room 0: all. */
struct keeper {
    const struct audit_chain_options *options;
    struct rules *rules;    /* borrowed */
    struct kept *kept;
    uint64_t n, room, allocated;
};

static void keep(void *context, uint64_t segment, const struct chain_item *item, const uint8_t *hash) {
    struct keeper *keeper = context;
    struct chain_item copy = *item;
    struct kept *kept;

    if (item->record.kind == VMIBUS_CHAIN_RULE)
        learn_rule(keeper->rules, &copy);
    if (!is_wanted(keeper->options, item))
        return;
    if (keeper->n >= keeper->allocated && (!keeper->room || keeper->allocated < keeper->room)) {
        keeper->allocated = keeper->allocated ? keeper->allocated * 2 : 64;
        if (keeper->room && keeper->allocated > keeper->room)
            keeper->allocated = keeper->room;
        kept = reallocarray(keeper->kept, keeper->allocated, sizeof(*kept));
        if (!kept)
            abort();
        keeper->kept = kept;
    }
    kept = &keeper->kept[keeper->n++ % keeper->allocated];
    kept->item = copy;
    kept->rule = (struct vmibus_audit_rule){};
    if (chain_has_command(item->record.kind) && rule_place(keeper->rules, item->command.rule)->number == item->command.rule)
        kept->rule = *rule_place(keeper->rules, item->command.rule);
    kept->segment = segment;
    memcpy(kept->hash, hash, sizeof(kept->hash));
}

static void print_kept(struct keeper *keeper, bool as_array) {
    struct json_object *array = as_array ? json_object_new_array() : NULL;
    uint64_t first = keeper->n > keeper->allocated ? keeper->n - keeper->allocated : 0;

    for (uint64_t i = first; i < keeper->n; i++) {
        const struct kept *kept = &keeper->kept[i % keeper->allocated];
        const struct vmibus_audit_rule *rule = kept->rule.number ? &kept->rule : NULL;

        if (as_array)
            json_object_array_add(array, item_json(&kept->item, rule, kept->segment, kept->hash));
        else if (keeper->options->ctl->json)
            frame_json_print(item_json(&kept->item, rule, kept->segment, kept->hash));
        else
            print_item(&kept->item, rule);
    }
    if (as_array)
        frame_json_print(array);
    free(keeper->kept);
    keeper->kept = NULL;
}

/* --- verify -------------------------------------------------------------------------------------- */

static const char *verdict_name(enum verify_verdict verdict) {
    static const char *const names[] = {
        [VERIFY_GOOD] = "good",       [VERIFY_TORN] = "torn",         [VERIFY_DAMAGED] = "damaged",
        [VERIFY_MISSING] = "missing", [VERIFY_OTHER_HEAD] = "other-head",
    };

    return names[verdict];
}

static void print_result_json(const struct verify_result *result) {
    struct json_object *object = json_object_new_object();
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"files", result->files},         {"first_segment", result->first_segment}, {"last_segment", result->last_segment},
        {"records", result->records},     {"commands", result->commands},           {"recovered", result->recovered},
        {"pending", result->pending},     {"lost", result->lost},                   {"missing", result->missing},
        {"open", result->open},           {"cut", result->cut},                     {"damaged_files", result->damaged_files},
        {"idle", result->idle},
        {"bad_segment", result->bad_segment}, {"bad_offset", result->bad_offset},   {"bad_sequence", result->bad_sequence},
    };

    json_object_object_add(object, "verdict", json_object_new_string(verdict_name(result->verdict)));
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        json_object_object_add(object, numbers[i].name, json_object_new_uint64(numbers[i].value));
    json_object_object_add(object, "stopped", json_object_new_boolean(result->stopped));
    json_object_object_add(object, "head", frame_json_hex(result->head, sizeof(result->head)));
    if (result->wrong)
        json_object_object_add(object, "wrong", json_object_new_string(result->wrong));
    frame_json_print(object);
}

static void print_place(const struct audit_chain_options *options, const struct verify_result *result) {
    char name[CHAIN_NAME];

    chain_file_name(name, writer_of(options), result->bad_segment);
    printf("%s: octet %" PRIu64 ", where record %" PRIu64 " should be: %s\n", name, result->bad_offset, result->bad_sequence,
           result->wrong);
}

static void print_verdict(const struct audit_chain_options *options, const struct verify_result *result) {
    switch (result->verdict) {
    case VERIFY_GOOD:
        printf("The chain is good.\n");
        break;
    case VERIFY_TORN:
        printf("The chain is good up to an unfinished write at its end: its writer died, or is writing.\n");
        print_place(options, result);
        break;
    case VERIFY_DAMAGED:
        printf("THE CHAIN IS DAMAGED: this is not what its writer wrote, and no crash leaves it so.\n");
        print_place(options, result);
        break;
    case VERIFY_MISSING:
        printf("COMMANDS ARE MISSING, of which the chain does not say so itself: %" PRIu64 ".\n", result->missing - result->lost);
        break;
    case VERIFY_OTHER_HEAD:
        printf("THIS IS ANOTHER CHAIN: it is whole, but does not hold the hash that was given.\n");
        break;
    }
}

static void print_result(const struct audit_chain_options *options, const struct verify_result *result) {
    char text[2 * VMIBUS_AUDIT_HASH + 1];

    print_verdict(options, result);
    printf("%" PRIu64 " files (%" PRIu64 " to %" PRIu64 "), %" PRIu64 " records, %" PRIu64 " commands\n", result->files,
           result->first_segment, result->last_segment, result->records, result->commands);
    if (result->first_segment > 1)
        printf("what was before file %" PRIu64 " is not there\n", result->first_segment);
    if (result->recovered)
        printf("%" PRIu64 " of them were recorded by the next start, after a crash; %" PRIu64 " had not ended\n", result->recovered,
               result->pending);
    if (result->lost)
        printf("%" PRIu64 " commands are not recorded, as the chain says itself; %" PRIu64 " of them changed nothing\n",
               result->lost, result->idle);
    if (result->open)
        printf("%" PRIu64 " commands of the last writer are not in it yet\n", result->open);
    if (result->damaged_files)
        printf("%" PRIu64 " files were found damaged by their writer\n", result->damaged_files);
    printf("the last writer %s\n", result->stopped ? "ended as it should" : "is running, or died");
    printf("head %s\n", units_hex(result->head, sizeof(result->head), text));
}

int audit_chain_verify(const struct audit_chain_options *options) {
    struct verify_options verify = {.writer = writer_of(options)};
    struct verify_result result;
    size_t length = 0;
    uint8_t *head = NULL;
    int directory, r;

    if (options->head_text && (units_parse_hex(options->head_text, &head, &length) || length != VMIBUS_AUDIT_HASH)) {
        free(head);
        return vmibusctl_usage("--head", options->head_text, "it is 64 hexadecimal digits");
    }
    verify.head = head;
    r = open_directory(options, &directory);
    if (r == STATUS_OK) {
        r = verify_chain(directory, &verify, &result);
        close(directory);
        if (r < 0) {
            r = report_failure("%s: %s", printable(options->path),
                               r == -ENOENT ? "there is no chain of this writer" : strerror(-r));
        } else {
            if (options->ctl->json)
                print_result_json(&result);
            else
                print_result(options, &result);
            r = result.verdict > VERIFY_TORN ? STATUS_NOT_INTACT : STATUS_OK;
        }
    }
    free(head);
    return r;
}

/* --- show ---------------------------------------------------------------------------------------- */

int audit_chain_show(const struct audit_chain_options *options) {
    struct keeper keeper = {.options = options, .rules = rules_new(), .room = options->count};
    const struct verify_options verify = {.writer = writer_of(options), .record = keep, .context = &keeper};
    struct verify_result result;
    int directory, r = open_directory(options, &directory);

    if (r) {
        free(keeper.rules);
        return r;
    }
    r = verify_chain(directory, &verify, &result);
    close(directory);
    if (r < 0) {
        free(keeper.kept);
        free(keeper.rules);
        return report_failure("%s: %s", printable(options->path), r == -ENOENT ? "there is no chain of this writer" : strerror(-r));
    }
    print_kept(&keeper, options->ctl->json);
    free(keeper.rules);
    if (result.verdict == VERIFY_DAMAGED)
        fprintf(stderr, "vmibusctl: the chain is damaged; 'vmibusctl audit verify' tells more.\n");
    return STATUS_OK;
}

/* --- tail ---------------------------------------------------------------------------------------- */

/* The file that is followed. */
struct follower {
    const struct audit_chain_options *options;
    struct rules *rules;
    int directory, fd;
    uint64_t segment;
    uint8_t *octets;
    size_t size;
    struct chain_reader reader;
    bool begun, ended;
};

static int find_newest(int directory, const char *writer, uint64_t *segment) {
    DIR *stream = fdopendir(dup(directory));
    struct dirent *entry;

    *segment = 0;
    if (!stream)
        return -errno;
    while ((entry = readdir(stream))) {
        uint64_t number = chain_file_number(entry->d_name, writer);

        *segment = number > *segment ? number : *segment;
    }
    closedir(stream);
    return 0;
}

static void follow_file(struct follower *follower, uint64_t segment) {
    if (follower->fd >= 0)
        close(follower->fd);
    free(follower->octets);
    *follower = (struct follower){
        .options = follower->options, .rules = follower->rules, .directory = follower->directory, .fd = -1, .segment = segment};
}

/* What has come since. */
static int read_more(struct follower *follower) {
    char name[CHAIN_NAME];
    uint8_t *octets;
    struct stat st;

    chain_file_name(name, writer_of(follower->options), follower->segment);
    if (follower->fd < 0)
        follower->fd = openat(follower->directory, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (follower->fd < 0)
        return errno == ENOENT ? 0 : -errno;
    if (fstat(follower->fd, &st) < 0)
        return -errno;
    if ((size_t)st.st_size <= follower->size)
        return 0;
    octets = realloc(follower->octets, (size_t)st.st_size);
    if (!octets)
        return -ENOMEM;
    follower->octets = octets;
    /* What was not a whole record before may be one now: it is read again. */
    if (follower->begun)
        follower->size = follower->reader.offset;
    while (follower->size < (size_t)st.st_size) {
        ssize_t n = pread(follower->fd, octets + follower->size, (size_t)st.st_size - follower->size, (off_t)follower->size);

        if (n <= 0)
            return n < 0 ? -errno : 0;
        follower->size += (size_t)n;
    }
    return 0;
}

/* The new records, each to take(). 0, or a status. */
static int take_records(struct follower *follower, struct keeper *keeper) {
    enum chain_found found = CHAIN_RECORD;
    struct chain_item item;

    if (!follower->begun) {
        found = chain_reader_init(&follower->reader, follower->octets, follower->size);
        follower->begun = found == CHAIN_RECORD;
    }
    follower->reader.octets = follower->octets;
    follower->reader.size = follower->size;
    while (found == CHAIN_RECORD && (found = chain_reader_next(&follower->reader, &item)) == CHAIN_RECORD) {
        keep(keeper, follower->segment, &item, follower->reader.hash);
        follower->ended = item.record.kind == VMIBUS_CHAIN_END;
    }
    if (found == CHAIN_DAMAGED)
        return report_failure("the chain is damaged: %s; 'vmibusctl audit verify' tells more", follower->reader.wrong);
    return 0;
}

static int follow(struct follower *follower, uint64_t count) {
    struct keeper keeper = {.options = follower->options, .rules = follower->rules, .room = count};
    uint64_t first = follower->segment;
    int r;

    do {
        r = read_more(follower);
        if (r < 0)
            return report_failure("the chain cannot be read: %s", strerror(-r));
        r = take_records(follower, &keeper);
        if (r == 0 && follower->ended)
            follow_file(follower, follower->segment + 1);
        /* The next file may be there already. */
    } while (r == 0 && !follower->begun && follower->segment > first++);
    print_kept(&keeper, false);
    fflush(stdout);
    return r;
}

static int wait_for_change(int notify) {
    char events[4096] __attribute__((aligned(8)));

    return read(notify, events, sizeof(events)) < 0 && errno != EINTR ? -errno : 0;
}

int audit_chain_tail(const struct audit_chain_options *options) {
    struct follower follower = {.options = options, .fd = -1};
    int notify = inotify_init1(IN_CLOEXEC), r;

    r = open_directory(options, &follower.directory);
    if (r)
        return r;
    if (notify < 0 || inotify_add_watch(notify, options->path, IN_CREATE | IN_MODIFY) < 0)
        return report_failure("%s cannot be followed: %s", printable(options->path), strerror(errno));
    r = find_newest(follower.directory, writer_of(options), &follower.segment);
    follower.rules = rules_new();
    follower.segment += !follower.segment; /* the first one is waited for */
    r = r < 0 ? report_failure("%s: %s", printable(options->path), strerror(-r)) :
                follow(&follower, options->count ? options->count : TAIL_COUNT);
    while (r == 0 && wait_for_change(notify) == 0)
        r = follow(&follower, 0);
    free(follower.octets);
    free(follower.rules);
    return r;
}
