/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Intrusive doubly linked list.  A node belongs to at most one list; an unlinked node points at
 * itself, so that unlinking twice is harmless.
 */
#ifndef UTIL_LIST_H
#define UTIL_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next;
    struct list *previous;
};

#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

#define LIST_INIT(head) {&(head), &(head)}

static inline void list_init(struct list *node) {
    node->next = node;
    node->previous = node;
}

static inline bool list_is_empty(const struct list *head) {
    return head->next == head;
}

/** Whether a node is in a list. */
static inline bool list_is_linked(const struct list *node) {
    return node->next != node;
}

static inline void list_insert_between(struct list *node, struct list *before, struct list *after) {
    node->previous = before;
    node->next = after;
    before->next = node;
    after->previous = node;
}

static inline void list_append(struct list *head, struct list *node) {
    list_insert_between(node, head->previous, head);
}

static inline void list_prepend(struct list *head, struct list *node) {
    list_insert_between(node, head, head->next);
}

static inline void list_unlink(struct list *node) {
    node->previous->next = node->next;
    node->next->previous = node->previous;
    list_init(node);
}

#define list_entry(node, type, member) container_of(node, type, member)
#define list_first(head, type, member) \
    (list_is_empty(head) ? NULL : list_entry((head)->next, type, member))

#define list_for_each(entry, head, member)                                        \
    for (entry = list_entry((head)->next, __typeof__(*entry), member);           \
         &entry->member != (head);                                               \
         entry = list_entry(entry->member.next, __typeof__(*entry), member))

/** Allows unlinking the current entry (and no other) in the body. */
#define list_for_each_safe(entry, following, head, member)                        \
    for (entry = list_entry((head)->next, __typeof__(*entry), member),           \
        following = list_entry(entry->member.next, __typeof__(*entry), member);  \
         &entry->member != (head);                                               \
         entry = following, following = list_entry(entry->member.next, __typeof__(*entry), member))

#endif
