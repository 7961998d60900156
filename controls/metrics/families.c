/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "families.h"

static const struct family families[] = {
    {VMIBUS_COUNTER_EVENTS_PUBLISHED, FAMILY_COUNTER, "vmibus_events_published", NULL},
    {VMIBUS_COUNTER_FRAMES_DELIVERED, FAMILY_COUNTER, "vmibus_frames_delivered", NULL},
    {VMIBUS_COUNTER_EVENTS_DROPPED, FAMILY_COUNTER, "vmibus_events_dropped", NULL},
    {VMIBUS_COUNTER_EVENTS_COALESCED, FAMILY_COUNTER, "vmibus_events_coalesced", NULL},
    {VMIBUS_COUNTER_COMMANDS_RECEIVED, FAMILY_COUNTER, "vmibus_commands_received", NULL},
    {VMIBUS_COUNTER_COMMANDS_REFUSED, FAMILY_COUNTER, "vmibus_commands_refused", NULL},
    {VMIBUS_COUNTER_COMMANDS_IN_FLIGHT, FAMILY_GAUGE, "vmibus_commands_in_flight", NULL},
    {VMIBUS_COUNTER_MEMWRITES, FAMILY_COUNTER, "vmibus_memory_writes", NULL},
    {VMIBUS_COUNTER_MEMWRITE_BYTES, FAMILY_COUNTER, "vmibus_memory_written_bytes", "bytes"},
    {VMIBUS_COUNTER_CONNECTIONS, FAMILY_GAUGE, "vmibus_connections", NULL},
    {VMIBUS_COUNTER_CONNECTIONS_REFUSED, FAMILY_COUNTER, "vmibus_connections_refused", NULL},
    {VMIBUS_COUNTER_ENDPOINTS, FAMILY_GAUGE, "vmibus_endpoints", NULL},
    {VMIBUS_COUNTER_LEASES_HELD, FAMILY_GAUGE, "vmibus_leases_held", NULL},
    {VMIBUS_COUNTER_SUBSCRIPTIONS, FAMILY_GAUGE, "vmibus_subscriptions", NULL},
    {VMIBUS_COUNTER_EVENT_BLOCKS, FAMILY_GAUGE, "vmibus_event_blocks", NULL},
    {VMIBUS_COUNTER_AUDIT_RECORDS, FAMILY_COUNTER, "vmibus_audit_records", NULL},
    {VMIBUS_COUNTER_ATTACHMENTS, FAMILY_GAUGE, "vmibus_memory_attachments", NULL},
    {VMIBUS_COUNTER_EPOCHS_ENDED, FAMILY_COUNTER, "vmibus_epochs_ended", NULL},
    {VMIBUS_COUNTER_BYTES_CHARGED, FAMILY_GAUGE, "vmibus_charged_bytes", "bytes"},
    {VMIBUS_COUNTER_FDS_CHARGED, FAMILY_GAUGE, "vmibus_charged_descriptors", NULL},
    {VMIBUS_COUNTER_BUFFERS, FAMILY_GAUGE, "vmibus_buffers", NULL},
    {VMIBUS_COUNTER_BUFFER_BYTES, FAMILY_GAUGE, "vmibus_buffer_bytes", "bytes"},
    {VMIBUS_COUNTER_MEM_READS, FAMILY_COUNTER, "vmibus_memory_reads", NULL},
    {VMIBUS_COUNTER_MEM_READ_BYTES, FAMILY_COUNTER, "vmibus_memory_read_bytes", "bytes"},
    {VMIBUS_COUNTER_EPOCHS_RETIRING, FAMILY_GAUGE, "vmibus_epochs_retiring", NULL},
    {VMIBUS_COUNTER_HOLDS, FAMILY_GAUGE, "vmibus_guests_held", NULL},
    {VMIBUS_COUNTER_MEMORY_USED, FAMILY_GAUGE, "vmibus_peer_memory_used_bytes", "bytes"},
    {VMIBUS_COUNTER_MEMORY_CAPACITY, FAMILY_GAUGE, "vmibus_peer_memory_capacity_bytes", "bytes"},
    {VMIBUS_COUNTER_RESIDENT, FAMILY_GAUGE, "vmibus_resident_bytes", "bytes"},
    {VMIBUS_COUNTER_RESIDENT_UNACCOUNTED, FAMILY_GAUGE, "vmibus_resident_unaccounted_bytes", "bytes"},
    {VMIBUS_COUNTER_FDS_OPEN, FAMILY_GAUGE, "vmibus_descriptors_open", NULL},
    {VMIBUS_COUNTER_FDS_UNACCOUNTED, FAMILY_GAUGE, "vmibus_descriptors_unaccounted", NULL},
    {VMIBUS_COUNTER_AUDIT_CHAINED, FAMILY_COUNTER, "vmibus_audit_chained", NULL},
    {VMIBUS_COUNTER_AUDIT_UNRECORDED, FAMILY_COUNTER, "vmibus_audit_unrecorded", NULL},
    {VMIBUS_COUNTER_AUDIT_UNTOLD, FAMILY_COUNTER, "vmibus_audit_untold", NULL},
};

const struct family *family_at(size_t i) {
    return i < sizeof(families) / sizeof(families[0]) ? &families[i] : NULL;
}
