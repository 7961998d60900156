/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Buffers that a connection has. They may outlive it; nothing is given back to a bus that is gone. */
#ifndef CLIENT_BUFFER_H
#define CLIENT_BUFFER_H

struct vmibus;

/** The connection is being freed: its buffers stay mapped, on their own. */
void buffers_orphan(struct vmibus *bus);

#endif
