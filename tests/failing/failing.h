/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls that fail: each call of the C library that can fail is counted, and the Nth is made to, with an errno that it has in the
 * field.  A walk does that to an operation with N rising from 1 until the operation makes no more calls, so that each of its
 * error paths is taken once, however the code around it changes.
 *
 * What a test program links with libfailing.la calls the definitions in failing.c, and so do the shared libraries it uses.
 *
 * Only calls of the thread that armed it count.  Nothing fails while nothing is armed.  With VMIBUS_FAILING_TRACE=1 in the
 * environment, where each failing call was made is told on standard error.
 */
#ifndef TESTS_FAILING_FAILING_H
#define TESTS_FAILING_FAILING_H

#include <stdbool.h>

/** How a call fails. */
enum failing_way {
    FAILING_ERROR,  /**< it does nothing and answers an errno */
    FAILING_SHORT,  /**< it does less than was asked: one octet is read or written. Only calls that can do that count */
};

/** From here on calls of this thread count; the Nth fails, none if @a n is 0. */
void failing_arm(enum failing_way way, unsigned int n);

/** Ends it. Returns how many calls were counted. */
unsigned int failing_disarm(void);

/** The errno with which one failed since it was armed, 0: none did. */
int failing_error(void);

/** Its name, as a C programmer knows it, and the number of the call; "" if none failed. */
const char *failing_name(void);

/** What is walked. */
struct failing_walk {
    /** Does all of it and undoes it. 0, or a negative errno and nothing is left behind. */
    int (*operation)(void *context);
    void *context;
    enum failing_way way;
    /** Names of calls, between blanks, after whose failure the operation may succeed: it did without. "*": all. */
    const char *spared;
    /** Whether the errno may be another than the call's: the operation has words of its own. */
    bool translates;
};

/**
 * Walks an operation; for the body of a test.  It must first succeed with nothing failing.  Then each time it must fail with the
 * errno of the call (see struct failing_walk), open no descriptor that it does not close, and leak nothing (seen in a build with
 * AddressSanitizer); what fails the test names the call.
 * @return how many calls it made fail
 */
unsigned int failing_walk(const struct failing_walk *walk);

#endif
