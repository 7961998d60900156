/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl explain: which rules of the policy allow something on a VM, or what rule would. */
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmibus/names.h>

#include "frame_json.h"
#include "report.h"
#include "roster.h"
#include "table.h"
#include "units.h"

/** Groups that a question can name. */
#define GROUPS_MAX 64

/** What can be asked about beside capabilities: verbs, and what they take. Of `one_of` one is enough. */
struct action {
    const char *name;
    uint32_t all;
    uint32_t one_of;
};

#define READING (VMIBUS_CAP_RAM_FD | VMIBUS_CAP_MEM_READ)

static const struct action actions[] = {
    {"dmesg", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX, READING},
    {"dump", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX, READING},
    {"files", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX, READING},
    {"hold", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_QUIESCE, 0},
    {"info", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX, 0},
    {"key", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_INPUT, 0},
    {"list", VMIBUS_CAP_OBSERVE, 0},
    {"maps", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX, READING},
    {"modules", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX, READING},
    {"mouse", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_INPUT, 0},
    {"ps", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX, READING},
    {"read", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX, READING},
    {"regs", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_REGISTERS, 0},
    {"screenshot", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_SCREEN, 0},
    {"search", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX, READING},
    {"sockets", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX, READING},
    {"symbols", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX, READING},
    {"translate", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX, READING},
    {"type", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_INPUT, 0},
    {"write", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEMCTX | VMIBUS_CAP_MEM_WRITE, 0},
};

/* What is asked, and what came of it. */
struct question {
    const char *vm;             /* its name, whether it is there or not */
    const char *user;           /* --user, or NULL */
    uint32_t uid;
    uint8_t uuid[16];
    uint32_t groups[GROUPS_MAX];
    size_t n_groups;
    struct action wanted;       /* name NULL: everything */
    uint32_t granted;
    uint64_t rank;
    const struct vmibus_rule_info *rules;
    size_t n_rules;
};

/* --- names ------------------------------------------------------------------------------------- */

/* A capability as vmibusd.conf(5) writes it: MEM_READ as mem-read. */
static const char *key_of(const char *name) {
    static char text[64];
    size_t i = 0;

    for (; i < sizeof(text) - 1 && name[i]; i++)
        text[i] = name[i] == '_' ? '-' : (char)(name[i] | 0x20);
    text[i] = '\0';
    return text;
}

static const struct vmibus_value_description *capability_at(size_t i) {
    const struct vmibus_table_description *table = vmibus_table_describe("capability");

    return i < table->n_values ? &table->values[i] : NULL;
}

/* The capabilities of a set, as a line of the configuration lists them. */
static void print_capabilities(uint32_t capabilities, const char *separator) {
    const struct vmibus_value_description *capability;
    const char *before = "";

    for (size_t i = 0; (capability = capability_at(i)); i++)
        if (capabilities & capability->value) {
            printf("%s%s", before, key_of(capability->name));
            before = separator;
        }
}

static const char *asked_user(const struct question *question) {
    const struct passwd *user;

    if (question->user)
        return question->user;
    user = getpwuid(geteuid());
    return user ? user->pw_name : "you";
}

/* --- the question ------------------------------------------------------------------------------ */

static int take_user(struct question *question, const char *name) {
    const struct passwd *user = getpwnam(name);
    gid_t groups[GROUPS_MAX];
    int n = GROUPS_MAX;
    uint64_t uid;

    question->user = name;
    if (!user) {
        if (!units_parse_number(name, UINT32_MAX - 1, &uid))
            return vmibusctl_usage("--user", name, "there is no such user on this system");
        question->uid = (uint32_t)uid;
        return STATUS_OK;
    }
    question->uid = user->pw_uid;
    if (getgrouplist(name, user->pw_gid, groups, &n) < 0)
        n = GROUPS_MAX;
    for (int i = 0; i < n; i++)
        question->groups[question->n_groups++] = groups[i];
    return STATUS_OK;
}

static int take_action(struct question *question, const char *word) {
    const struct vmibus_value_description *capability;

    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
        if (strcmp(actions[i].name, word) == 0) {
            question->wanted = actions[i];
            return STATUS_OK;
        }
    capability = vmibus_table_find_name(vmibus_table_describe("capability"), word);
    if (!capability)
        return vmibusctl_usage("what", word, "a capability of vmibusd.conf(5) is wanted, or a verb that takes some on a VM");
    question->wanted = (struct action){.name = word, .all = (uint32_t)capability->value};
    return STATUS_OK;
}

/* Of a VM that the caller sees the UUID is known too, by which rules may name it. */
static int take_vm(struct vmibusctl *ctl, struct question *question) {
    size_t length = strlen(question->vm);
    struct roster roster = {};
    int r;

    if (length == 0 || length > VMIBUS_NAME_BOUND)
        return vmibusctl_usage("VM", question->vm, "a name of 1 to 255 octets is wanted");
    r = roster_fetch(ctl, &roster);
    for (const struct vm *vm = roster.vms; r == STATUS_OK && vm; vm = vm->next)
        if (strcmp(vm->name, question->vm) == 0)
            memcpy(question->uuid, vm->roster.roster.uuid, sizeof(question->uuid));
    if (ctl->bus) {
        vmibus_set_handler(ctl->bus, NULL, NULL);
        roster_unsubscribe(ctl);
    }
    roster_deinit(&roster);
    return r;
}

static int ask(struct vmibusctl *ctl, const struct question *question, struct vmibus_message *reply) {
    size_t groups = question->n_groups * sizeof(question->groups[0]), length = strlen(question->vm);
    uint8_t tail[sizeof(question->groups) + VMIBUS_NAME_BOUND];
    struct vmibus_frame frame;
    int r;

    vmibus_command_init(&frame, VMIBUS_KIND_EXPLAIN, NULL);
    memcpy(frame.explain.uuid, question->uuid, sizeof(frame.explain.uuid));
    frame.explain.uid = question->user ? question->uid : UINT32_MAX;
    frame.explain.group_count = (uint16_t)question->n_groups;
    memcpy(tail, question->groups, groups);
    memcpy(tail + groups, question->vm, length);
    r = vmibus_call(ctl->bus, &frame, tail, groups + length, reply);
    return r ? report_refusal(ctl, r, reply, "cannot ask about the policy") : STATUS_OK;
}

/* --- the answer -------------------------------------------------------------------------------- */

static bool decides(const struct vmibus_rule_info *rule) {
    return (rule->match & (VMIBUS_RULE_NAMES_PRINCIPAL | VMIBUS_RULE_NAMES_VM)) ==
           (VMIBUS_RULE_NAMES_PRINCIPAL | VMIBUS_RULE_NAMES_VM);
}

/* What is missing for what was asked about; of what one is enough of, the first. */
static uint32_t missing(const struct question *question) {
    uint32_t lacking = question->wanted.all & ~question->granted;

    if (question->wanted.one_of && !(question->granted & question->wanted.one_of))
        lacking |= VMIBUS_CAP_MEM_READ;
    return lacking;
}

static void print_place(const struct vmibus_rule_info *rule) {
    if (rule->subject == VMIBUS_RULE_SUBJECT_OWNER)
        fputs("there are no rules: root and the daemon's own user may do everything", stdout);
    else
        printf("[rule %s] at %s:%" PRIu32, printable((const char *)rule->name), printable((const char *)rule->source),
               rule->line);
}

static void print_bounds(const struct vmibus_rule_info *rule) {
    if (rule->match & VMIBUS_RULE_BOUNDS_PLACE)
        fputs("; it bounds where", stdout);
    if (rule->write_size)
        printf("; at most %" PRIu64 " octets at once", rule->write_size);
    if (rule->write_rate)
        printf("; at most %" PRIu64 " octets a second", rule->write_rate);
}

/* Which rules give a capability here. */
static void print_givers(const struct question *question, uint32_t capability) {
    for (size_t i = 0; i < question->n_rules; i++) {
        const struct vmibus_rule_info *rule = &question->rules[i];

        if (!decides(rule) || !(rule->capabilities & capability))
            continue;
        fputs("    by ", stdout);
        print_place(rule);
        if (capability == VMIBUS_CAP_MEM_WRITE)
            print_bounds(rule);
        putchar('\n');
    }
}

/* Which rules give it, but not to this user, or not here. */
static void print_near_misses(const struct question *question, uint32_t capability) {
    for (size_t i = 0; i < question->n_rules; i++) {
        const struct vmibus_rule_info *rule = &question->rules[i];

        if (decides(rule) || !(rule->capabilities & capability))
            continue;
        fputs("    not by ", stdout);
        print_place(rule);
        if (!(rule->match & VMIBUS_RULE_NAMES_PRINCIPAL))
            printf(": it does not name %s\n", printable(asked_user(question)));
        else
            printf(": its endpoints = %s\n", printable((const char *)rule->endpoints));
    }
}

static void print_capability(const struct question *question, const struct vmibus_value_description *capability) {
    bool is_granted = question->granted & capability->value;

    printf("%s: %s\n", key_of(capability->name), is_granted ? "allowed" : "not allowed");
    if (is_granted)
        print_givers(question, (uint32_t)capability->value);
    else
        print_near_misses(question, (uint32_t)capability->value);
}

/* A rule of its own is always right: rules only add. */
static void print_remedy(const struct question *question, uint32_t lacking) {
    printf("\nThis rule would allow it, in a file of its own in " VMIBUS_SYSCONFDIR "/vmibus/vmibusd.conf.d:\n\n");
    printf("[rule %.20s-%.20s]\nuser = %s\nendpoints = %s\ncapabilities = ", printable(asked_user(question)),
           printable(question->vm), printable(asked_user(question)), printable(question->vm));
    print_capabilities(lacking, " ");
    putchar('\n');
}

static int print(const struct question *question) {
    uint32_t lacking = missing(question);
    uint32_t shown = question->wanted.name ? question->wanted.all | question->wanted.one_of : UINT32_MAX;
    const struct vmibus_value_description *capability;

    if (question->wanted.name)
        printf("%s may%s %s on %s.\n", printable(asked_user(question)), lacking ? " not" : "", question->wanted.name,
               printable(question->vm));
    for (size_t i = 0; (capability = capability_at(i)); i++)
        if (shown & capability->value)
            print_capability(question, capability);
    if (lacking)
        print_remedy(question, lacking);
    return lacking ? STATUS_REFUSED + VMIBUS_ERROR_DENIED : STATUS_OK;
}

static int print_json(const struct question *question) {
    struct json_object *object = json_object_new_object();
    uint32_t lacking = missing(question);

    json_object_object_add(object, "allowed", json_object_new_boolean(lacking == 0));
    json_object_object_add(object, "capabilities", frame_json_flags("capability", question->granted));
    json_object_object_add(object, "missing", frame_json_flags("capability", lacking));
    json_object_object_add(object, "rank", json_object_new_uint64(question->rank));
    json_object_object_add(object, "rules",
                           frame_json_records(vmibus_record_describe("rule_info"), question->rules,
                                              question->n_rules * sizeof(*question->rules)));
    frame_json_print(object);
    return lacking ? STATUS_REFUSED + VMIBUS_ERROR_DENIED : STATUS_OK;
}

/* The records are copied: octets of a message lie anywhere. */
static int answer(const struct vmibusctl *ctl, struct question *question, const struct vmibus_message *reply) {
    size_t length = reply->frame.header.tail_length;
    struct vmibus_rule_info *rules = calloc(length + 1, 1);
    int r;

    if (!rules)
        return report_failure("out of memory");
    if (length)
        memcpy(rules, reply->tail, length);
    question->rules = rules;
    question->n_rules = length / sizeof(*rules);
    for (size_t i = 0; i < question->n_rules; i++) {
        rules[i].name[sizeof(rules[i].name) - 1] = rules[i].endpoints[sizeof(rules[i].endpoints) - 1] = 0;
        rules[i].source[sizeof(rules[i].source) - 1] = 0;
    }
    question->granted = (uint32_t)reply->frame.ack.count;
    question->rank = reply->frame.ack.value;
    r = ctl->json ? print_json(question) : print(question);
    free(rules);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct question question = {.vm = arguments->words[0]};
    struct vmibus_message reply = {};
    int r = STATUS_OK;

    if (arguments->n_words > 1)
        r = take_action(&question, arguments->words[1]);
    if (r == STATUS_OK && arguments_get(arguments, "user"))
        r = take_user(&question, arguments_get(arguments, "user"));
    if (r == STATUS_OK)
        r = take_vm(ctl, &question);
    if (r == STATUS_OK)
        r = ask(ctl, &question, &reply);
    if (r == STATUS_OK)
        r = answer(ctl, &question, &reply);
    vmibus_message_deinit(&reply);
    return r;
}

static const struct option_description options[] = {
    {"user", "NAME", "what this user may do, with the groups that it has on this system"},
    {},
};

const struct verb verb_explain = {
    .name = "explain",
    .synopsis = "VM [CAPABILITY|VERB]",
    .summary = "say which rules of the policy allow something, or what rule would",
    .min_words = 1,
    .max_words = 2,
    .options = options,
    .run = run,
};
