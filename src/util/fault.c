/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/fault.h"

/* Empty without --enable-fault-injection; a translation unit needs something in it. */
typedef int fault_injection_is_optional;

#ifdef HAVE_FAULT_INJECTION

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "util/clock.h"

#define DELAY_MS_MAX 60000u

enum fault_action {
    ACTION_OFF,
    ACTION_FAIL,
    ACTION_DROP_EVERY,
    ACTION_FAIL_AFTER,
    ACTION_RATE,
    ACTION_DELAY_MS,
    N_ACTIONS,
};

static const char *const action_names[N_ACTIONS] = {
    [ACTION_OFF] = "off",
    [ACTION_FAIL] = "fail",
    [ACTION_DROP_EVERY] = "drop-every",
    [ACTION_FAIL_AFTER] = "fail-after",
    [ACTION_RATE] = "rate",
    [ACTION_DELAY_MS] = "delay-ms",
};

/* What the outside says where it fails, and where it only does a part. */
static const struct {
    const char *name;
    int failed;
    int dropped;
} locations[N_FAULT_LOCATIONS] = {
    [FAULT_ALLOCATION] = {"allocation", -ENOMEM, -ENOMEM},
    [FAULT_SOCKET_SEND] = {"socket-send", -ECONNRESET, -EAGAIN},
    [FAULT_SOCKET_RECEIVE] = {"socket-receive", -ECONNRESET, -EAGAIN},
    [FAULT_FD_PASSING] = {"fd-passing", -EMFILE, -EMFILE},
    [FAULT_MONITOR] = {"monitor", -EIO, -EIO},
    [FAULT_TRANSLATE] = {"translate", -EIO, -EIO},
    [FAULT_WRITE] = {"write", -EIO, -EIO},
    [FAULT_AUDIT] = {"audit", -EIO, -EIO},
    [FAULT_TIMER] = {"timer", -ENOMEM, -ENOMEM},
};

/* A rule is one word, so that it is never seen half: the action above its argument. */
static struct {
    _Atomic uint64_t rule;
    _Atomic uint64_t asked;
    _Atomic uint64_t failed;
} state[N_FAULT_LOCATIONS];

static _Atomic uint64_t seed;   /* 0: none yet */
static _Atomic uint64_t draws;

static uint64_t rule_word(uint32_t action, uint32_t argument) {
    return (uint64_t)action << 32 | argument;
}

/* --- random numbers ---------------------------------------------------------------------------- */

static void seed_set(uint64_t value) {
    atomic_store(&seed, value);
    atomic_store(&draws, 0);
}

uint64_t fault_seed(void) {
    uint64_t none = 0, value = atomic_load(&seed);

    if (value)
        return value;
    if (getrandom(&value, sizeof(value), 0) != sizeof(value) || value == 0)
        value = clock_now() | 1;
    value &= UINT32_MAX; /* short enough to be typed */
    value |= 1;
    return atomic_compare_exchange_strong(&seed, &none, value) ? value : none;
}

/* The nth number of a sequence that the seed names (splitmix64): no state but the count, so threads need no lock. */
static uint64_t draw(void) {
    uint64_t z = fault_seed() + (atomic_fetch_add(&draws, 1) + 1) * UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* --- failing ----------------------------------------------------------------------------------- */

static int fail(enum fault_location location, bool dropped) {
    atomic_fetch_add_explicit(&state[location].failed, 1, memory_order_relaxed);
    return dropped ? locations[location].dropped : locations[location].failed;
}

/* Not a wakeup that anybody waits for: the thread is held up, as a slow disk or a full host holds it up. */
static int delay(enum fault_location location, uint32_t ms) {
    atomic_fetch_add_explicit(&state[location].failed, 1, memory_order_relaxed);
    (void)poll(NULL, 0, (int)ms);
    return 0;
}

int fault_hit(enum fault_location location) {
    uint64_t rule = atomic_load_explicit(&state[location].rule, memory_order_relaxed);
    uint32_t argument = (uint32_t)rule;
    uint64_t n;

    if (!rule)
        return 0;
    n = atomic_fetch_add_explicit(&state[location].asked, 1, memory_order_relaxed) + 1;
    switch ((enum fault_action)(rule >> 32)) {
    case ACTION_FAIL:
        return fail(location, false);
    case ACTION_DROP_EVERY:
        return n % argument == 0 ? fail(location, true) : 0;
    case ACTION_FAIL_AFTER:
        return n > argument ? fail(location, false) : 0;
    case ACTION_RATE:
        n = draw();
        return (n >> 1) % argument == 0 ? fail(location, n & 1) : 0;
    case ACTION_DELAY_MS:
        return delay(location, argument);
    case ACTION_OFF:
    case N_ACTIONS:
        break;
    }
    return 0;
}

/* --- rules ------------------------------------------------------------------------------------- */

static bool parse_number(const char *text, uint64_t maximum, uint64_t *number) {
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *number = strtoull(text, &end, 0);
    return !errno && *end == '\0' && *number <= maximum;
}

static int parse_rule(const char *text, uint32_t *action, uint32_t *argument) {
    size_t length = strcspn(text, ":");
    uint64_t number = 0;

    for (uint32_t i = 0; i < N_ACTIONS; i++) {
        bool counts = i >= ACTION_DROP_EVERY;

        if (strlen(action_names[i]) != length || memcmp(action_names[i], text, length) != 0)
            continue;
        if (counts != (text[length] == ':'))
            return -EINVAL;
        if (counts && !parse_number(text + length + 1, i == ACTION_DELAY_MS ? DELAY_MS_MAX : UINT32_MAX, &number))
            return -EINVAL;
        if (number == 0 && (i == ACTION_DROP_EVERY || i == ACTION_RATE))
            return -EINVAL;
        *action = i;
        *argument = (uint32_t)number;
        return 0;
    }
    return -EINVAL;
}

static int find_location(const char *name) {
    for (int i = 0; i < N_FAULT_LOCATIONS; i++)
        if (strcmp(locations[i].name, name) == 0)
            return i;
    return -ENOENT;
}

int fault_rules_add(struct fault_rules *rules, const char *location, const char *rule) {
    int i = find_location(location);

    if (strcmp(location, "seed") == 0)
        return parse_number(rule, UINT64_MAX, &rules->seed) && rules->seed ? 0 : -EINVAL;
    return i < 0 ? i : parse_rule(rule, &rules->at[i].action, &rules->at[i].argument);
}

/* Adds one "location=rule" of a given length. */
static int add_word(struct fault_rules *rules, const char *word, size_t length) {
    char copy[64], *rule;

    if (length >= sizeof(copy))
        return -EINVAL;
    memcpy(copy, word, length);
    copy[length] = '\0';
    rule = strchr(copy, '=');
    if (!rule)
        return -EINVAL;
    *rule++ = '\0';
    return fault_rules_add(rules, copy, rule) < 0 ? -EINVAL : 0;
}

int fault_rules_add_environment(struct fault_rules *rules, const char **wrong) {
    const char *word = secure_getenv("VMIBUS_FAULTS");

    while (word && *word) {
        size_t length = strcspn(word, ",");

        if (add_word(rules, word, length) < 0) {
            *wrong = word;
            return -EINVAL;
        }
        word += length + (word[length] == ',');
    }
    return 0;
}

static void set(enum fault_location location, uint32_t action, uint32_t argument) {
    atomic_store(&state[location].rule, 0);
    atomic_store(&state[location].asked, 0);
    atomic_store(&state[location].failed, 0);
    atomic_store(&state[location].rule, action == ACTION_OFF ? 0 : rule_word(action, argument));
}

void fault_apply(const struct fault_rules *rules) {
    if (rules->seed)
        seed_set(rules->seed);
    for (int i = 0; i < N_FAULT_LOCATIONS; i++)
        set((enum fault_location)i, rules->at[i].action, rules->at[i].argument);
}

int fault_set(const char *location, const char *rule) {
    struct fault_rules rules = {};
    int i = find_location(location);

    if (fault_rules_add(&rules, location, rule) < 0)
        return -EINVAL;
    if (rules.seed)
        seed_set(rules.seed);
    else
        set((enum fault_location)i, rules.at[i].action, rules.at[i].argument);
    return 0;
}

/* --- telling ----------------------------------------------------------------------------------- */

const char *fault_name(enum fault_location location) {
    return locations[location].name;
}

void fault_describe(enum fault_location location, char *text, size_t size) {
    uint64_t rule = atomic_load(&state[location].rule);
    uint32_t action = (uint32_t)(rule >> 32);

    if (action >= ACTION_DROP_EVERY)
        snprintf(text, size, "%s:%u", action_names[action], (uint32_t)rule);
    else
        snprintf(text, size, "%s", action_names[action]);
}

struct fault_counts fault_count(enum fault_location location) {
    return (struct fault_counts){.asked = atomic_load(&state[location].asked), .failed = atomic_load(&state[location].failed)};
}

#endif
