/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The tempers of a soak's clients. */
#ifndef TESTS_SOAK_TEMPERS_H
#define TESTS_SOAK_TEMPERS_H

#include "soak/client.h"

/** The temper of a client: the first one only watches, the others take turns. */
const struct temper *temper_of(unsigned client);

#endif
