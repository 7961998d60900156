/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* RAM on loan: see stub_loan.h. */
#include "stub_loan.h"

#include <errno.h>
#include <stdlib.h>

struct stub_loan {
    struct stub_loan *next;
    struct stub_ram *ram; /* referenced */
    uint64_t epoch;       /* 0: no verdict yet */
};

static void loan_end(struct stub_loan **link) {
    struct stub_loan *loan = *link;

    *link = loan->next;
    stub_ram_unref(loan->ram);
    free(loan);
}

static struct stub_loan **find(struct stub_loans *loans, uint64_t epoch) {
    struct stub_loan **link = &loans->first;

    while (*link && (*link)->epoch != epoch)
        link = &(*link)->next;
    return link;
}

int stub_loans_add(struct stub_loans *loans, struct stub_ram *ram) {
    struct stub_loan *loan = calloc(1, sizeof(*loan)), **link = &loans->first;

    if (!loan)
        return -ENOMEM;
    loan->ram = stub_ram_ref(ram);
    while (*link)
        link = &(*link)->next;
    *link = loan;
    return 0;
}

void stub_loans_settle(struct stub_loans *loans, uint64_t epoch) {
    struct stub_loan **link = find(loans, 0);

    if (!*link)
        return;
    if (epoch)
        (*link)->epoch = epoch;
    else
        loan_end(link);
}

/* The same layout proposed twice is one epoch. */
void stub_loans_return(struct stub_loans *loans, uint64_t epoch) {
    struct stub_loan **link;

    while (*(link = find(loans, epoch)))
        loan_end(link);
}

bool stub_loans_have(const struct stub_loans *loans, const struct stub_ram *ram) {
    for (const struct stub_loan *loan = loans->first; loan; loan = loan->next)
        if (loan->ram == ram)
            return true;
    return false;
}

struct stub_ram *stub_loans_renew(struct stub_loans *loans, struct stub_ram *ram) {
    struct stub_ram *other;

    if (!stub_loans_have(loans, ram))
        return ram;
    other = stub_ram_new(ram->vm, ram->size);
    stub_ram_unref(ram);
    return other;
}

void stub_loans_drop(struct stub_loans *loans) {
    while (loans->first)
        loan_end(&loans->first);
}
