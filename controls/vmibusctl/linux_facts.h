/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl info --linux: what a Linux guest's kernel is and when it began. */
#ifndef VMIBUSCTL_LINUX_FACTS_H
#define VMIBUSCTL_LINUX_FACTS_H

#include "vmibusctl.h"

/** Shows the facts of the VM that the first word names. Returns a status. */
int linux_facts_show(struct vmibusctl *ctl, const struct arguments *arguments);

#endif
