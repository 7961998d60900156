/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* EXPLAIN: which rules decide, and who may know of which. */
#include "harness.h"

#include <string.h>

#include "bus/stage.h"

#define ALICE 1001
#define BOB 1002
#define AUDITOR 1003
#define GROUP 77

static struct fake_control control;
static const struct entry *answer;

static void open_with_rules(void) {
    struct policy_rule *rule;

    stage_open_default();
    stage_new_policy();
    rule = stage_allow(ALICE, "web*", VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEM_WRITE, 5);
    rule->write.size = 4096;
    rule->write.place.protect = PROTECT_KERNEL_TEXT;
    rule->line = 12;
    stage_allow(ALICE, "db*", VMIBUS_CAP_POWER, 9);
    stage_allow(BOB, "web*", VMIBUS_CAP_OBSERVE, 0);
    stage_allow(AUDITOR, "*", VMIBUS_CAP_STATS, 0);
    rule = stage_allow(GROUP, "web*", VMIBUS_CAP_INPUT, 0);
    rule->subject = POLICY_GROUP;
    stage_apply_policy();
}

#define EXPLAIN_TEST(name) TEST(name, .setup = open_with_rules, .teardown = stage_close)

/* Asks; the entry is the ACK with its tail. */
static const struct vmibus_ack *ask(const char *vm, uint32_t uid, const uint32_t *groups, uint16_t n_groups) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_EXPLAIN}, .explain = {.uid = uid, .group_count = n_groups}};
    char tail[512];
    size_t length = n_groups * sizeof(*groups);

    if (n_groups)
        memcpy(tail, groups, length);
    memcpy(tail + length, vm, strlen(vm));
    fake_control_submit(&control, &frame, tail, length + strlen(vm));
    do {
        answer = fake_control_next(&control);
        ck_assert_ptr_nonnull(answer);
    } while (answer->frame.header.kind != VMIBUS_KIND_ACK);
    return &answer->frame.ack;
}

static size_t n_rules(void) {
    ck_assert_uint_eq(answer->frame.header.tail_length % sizeof(struct vmibus_rule_info), 0);
    return answer->frame.header.tail_length / sizeof(struct vmibus_rule_info);
}

static struct vmibus_rule_info rule_at(size_t i) {
    struct vmibus_rule_info rule;

    ck_assert_uint_lt(i, n_rules());
    memcpy(&rule, answer->tail + i * sizeof(rule), sizeof(rule));
    return rule;
}

EXPLAIN_TEST(test_p01_of_the_policy_one_sees_what_names_one) {
    const struct vmibus_ack *ack;
    struct vmibus_rule_info rule;

    fake_control_open(&control, ALICE);
    ack = ask("web1", UINT32_MAX, NULL, 0);
    ck_assert_uint_eq(ack->error, 0);
    ck_assert_uint_eq(ack->count, VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEM_WRITE);
    ck_assert_uint_eq(ack->value, 5);
    ck_assert_uint_eq(n_rules(), 2);
    rule = rule_at(0);
    ck_assert_uint_eq(rule.match, VMIBUS_RULE_NAMES_PRINCIPAL | VMIBUS_RULE_NAMES_VM | VMIBUS_RULE_BOUNDS_PLACE);
    ck_assert_uint_eq(rule.subject, VMIBUS_RULE_SUBJECT_USER);
    ck_assert_uint_eq(rule.id, ALICE);
    ck_assert_uint_eq(rule.write_size, 4096);
    ck_assert_uint_eq(rule.line, 12);
    ck_assert_str_eq((const char *)rule.endpoints, "web*");
    rule = rule_at(1);
    ck_assert_uint_eq(rule.match, VMIBUS_RULE_NAMES_PRINCIPAL);
    ck_assert_uint_eq(rule.capabilities, VMIBUS_CAP_POWER);
    fake_control_close(&control);
}

EXPLAIN_TEST(test_p01_others_are_asked_about_with_stats_only) {
    const uint32_t groups[] = {5, GROUP};
    const struct vmibus_ack *ack;

    fake_control_open(&control, BOB);
    ack = ask("web1", ALICE, NULL, 0);
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_DENIED);
    ck_assert_uint_eq(ack->value, VMIBUS_CAP_STATS);
    ck_assert_uint_eq(n_rules(), 0);
    fake_control_close(&control);

    fake_control_open(&control, AUDITOR);
    ack = ask("web1", ALICE, groups, 2);
    ck_assert_uint_eq(ack->error, 0);
    ck_assert_uint_eq(ack->count, VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEM_WRITE | VMIBUS_CAP_INPUT);
    ck_assert_uint_eq(n_rules(), 5);
    ck_assert_uint_eq(rule_at(4).match, VMIBUS_RULE_NAMES_PRINCIPAL | VMIBUS_RULE_NAMES_VM);
    ck_assert_uint_eq(rule_at(2).match, VMIBUS_RULE_NAMES_VM);
    ck_assert_uint_eq(ask("web1", ALICE, NULL, 0)->count, VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEM_WRITE);
    fake_control_close(&control);
}

/* The answer is the policy's alone: it is the same for a name that no VM has. */
EXPLAIN_TEST(test_p01_it_does_not_tell_whether_there_is_a_vm) {
    fake_control_open(&control, ALICE);
    ck_assert_uint_eq(ask("web-that-is-not", UINT32_MAX, NULL, 0)->count, VMIBUS_CAP_OBSERVE | VMIBUS_CAP_MEM_WRITE);
    ck_assert_uint_eq(ask("mail", UINT32_MAX, NULL, 0)->count, 0);
    ck_assert_uint_eq(answer->frame.ack.error, 0);
    fake_control_close(&control);
}

EXPLAIN_TEST(test_questions_that_make_no_sense) {
    const uint32_t groups[100] = {0};
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_EXPLAIN}, .explain = {.uid = ALICE, .group_count = 65}};

    fake_control_open(&control, AUDITOR);
    ck_assert_uint_eq(ask("web1", UINT32_MAX, groups, 1)->error, VMIBUS_ERROR_VALIDATION);
    ck_assert_uint_eq(ask("web1", ALICE, groups, 65)->error, VMIBUS_ERROR_VALIDATION);
    /* The name is missing, or too long, or holds a NUL. */
    ck_assert_uint_eq(ask("", ALICE, groups, 4)->error, VMIBUS_ERROR_VALIDATION);
    frame.explain.group_count = 1;
    ck_assert_uint_eq(
        fake_control_ack(&control, fake_control_submit(&control, &frame, "\1\0\0\0we\0b", 8))->error, VMIBUS_ERROR_VALIDATION);
    frame.explain.group_count = UINT16_MAX;
    ck_assert_uint_eq(fake_control_ack(&control, fake_control_submit(&control, &frame, "web1", 4))->error,
                      VMIBUS_ERROR_VALIDATION);
    fake_control_close(&control);
}

EXPLAIN_TEST(test_without_rules_the_owner_needs_none) {
    stage_new_policy();
    stage_apply_policy();
    fake_control_open(&control, 0);
    ck_assert_uint_eq(ask("web1", UINT32_MAX, NULL, 0)->count, CAPABILITIES_ALL);
    ck_assert_uint_eq(n_rules(), 1);
    ck_assert_uint_eq(rule_at(0).subject, VMIBUS_RULE_SUBJECT_OWNER);
    ck_assert_uint_eq(ask("web1", ALICE, NULL, 0)->count, 0);
    ck_assert_uint_eq(n_rules(), 0);
    fake_control_close(&control);
}

HARNESS_SUITE("explain", HARNESS_QUICK)
