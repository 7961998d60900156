/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The attachments of a connection.  The epoch page tells when an epoch has ended as long as the memory
 * authority lives; that it may be gone is known by the connection's end alone.  So a connection knows its
 * attachments, and ends them all when it ends.
 */
#ifndef CLIENT_ATTACHMENT_H
#define CLIENT_ATTACHMENT_H

struct vmibus;

/** The connection has ended: from now on no attachment's epoch is current. Harmless if repeated. */
void attachments_end(struct vmibus *bus);

/** The connection is being freed: its attachments, ended, belong to their holders alone. */
void attachments_orphan(struct vmibus *bus);

#endif
