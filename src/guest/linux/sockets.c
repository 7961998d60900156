/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sockets, by the tables that the kernel finds them by: what is there is also found if no process has it open.
 *
 * A table is an array of chains. Each entry of a chain points back to the pointer that leads to it, so an entry that
 * comes twice is noticed: a chain in which one does not ends there, and the picture says so.
 */
#include <string.h>

#include "socket_owners.h"

/** Most entries of all tables together. */
#define SOCKETS_MAX (1u << 20)

/** Most chains of a table: the kernel makes at most half a million by itself (net/ipv4/tcp.c). */
#define CHAINS_MAX (1u << 22)

/** Most chains of all tables together: each network namespace may have tables of its own. */
#define ALL_CHAINS_MAX (1u << 23)

/** Most network namespaces. */
#define NAMESPACES_MAX 4096u

/** Chains of the table of Unix sockets (Linux include/net/af_unix.h: twice UNIX_HASH_MOD + 1). */
#define UNIX_CHAINS 512u

/** Octets of all tables together: a chain's beginning has 8 to 32 of them, unless the kernel says otherwise. */
#define ALL_OCTETS_MAX (UINT64_C(1) << 28)

/** Octets of a table that are read at once. */
#define CHUNK 4096u

/** Octets of a struct sock that are copied, at most. */
#define COPY_MAX 4096u

/* A state that is told as SYN_RECV (Linux include/net/tcp_states.h). */
#define TCP_NEW_SYN_RECV 12

#define GUEST_AF_UNIX 1

/* Where members lie (Linux include/net/sock.h, inet_hashtables.h, udp.h, af_unix.h, net_namespace.h). */
struct socket_layout {
    struct {
        struct linux_field family, state, num, dport, daddr, saddr, daddr6, saddr6, net, node, nulls_node;
    } common;
    struct {
        struct linux_field uid, type, socket;
    } sock;
    struct linux_field alloc_socket, alloc_inode_number, waiting_state;
    struct {
        struct linux_field ehash, ehash_mask, lhash2, lhash2_mask;
    } tcp;
    struct linux_field listening_hash, ehash_chain, listen_head;
    struct {
        struct linux_field hash, mask;
    } udp;
    struct linux_field udp_head;
    struct linux_field unix_addr, unix_peer, address_len, address_name;
    struct linux_field net_list, net_inum, net_tcp, net_udp, net_unix;
    uint32_t ehash_size, listen_size, udp_size;     /* of a chain's beginning in its table */
    uint32_t common_size, sock_size;                /* octets that are copied */
    uint64_t tcp_hashinfo, udp_table, unix_table, net_list_head; /* addresses; 0: the kernel has none */
};

#define TARGET(member) offsetof(struct socket_layout, member)

static const struct linux_wish wishes[] = {
    {"sock_common", "skc_family", TARGET(common.family), false},
    {"sock_common", "skc_state", TARGET(common.state), false},
    {"sock_common", "skc_num", TARGET(common.num), false},
    {"sock_common", "skc_dport", TARGET(common.dport), false},
    {"sock_common", "skc_daddr", TARGET(common.daddr), false},
    {"sock_common", "skc_rcv_saddr", TARGET(common.saddr), false},
    {"sock_common", "skc_v6_daddr", TARGET(common.daddr6), true},
    {"sock_common", "skc_v6_rcv_saddr", TARGET(common.saddr6), true},
    {"sock_common", "skc_net.net", TARGET(common.net), true},
    {"sock_common", "skc_node", TARGET(common.node), false},
    {"sock_common", "skc_nulls_node", TARGET(common.nulls_node), false},
    {"sock", "sk_uid", TARGET(sock.uid), false},
    {"sock", "sk_type", TARGET(sock.type), false},
    {"sock", "sk_socket", TARGET(sock.socket), false},
    {"socket_alloc", "socket", TARGET(alloc_socket), false},
    {"socket_alloc", "vfs_inode.i_ino", TARGET(alloc_inode_number), false},
    {"inet_timewait_sock", "tw_substate", TARGET(waiting_state), true},
    {"inet_hashinfo", "ehash", TARGET(tcp.ehash), true},
    {"inet_hashinfo", "ehash_mask", TARGET(tcp.ehash_mask), true},
    {"inet_hashinfo", "lhash2", TARGET(tcp.lhash2), true},
    {"inet_hashinfo", "lhash2_mask", TARGET(tcp.lhash2_mask), true},
    {"inet_hashinfo", "listening_hash", TARGET(listening_hash), true},
    {"inet_ehash_bucket", "chain", TARGET(ehash_chain), true},
    {"inet_listen_hashbucket", "nulls_head", TARGET(listen_head), true},
    {"inet_listen_hashbucket", "head", TARGET(listen_head), true},
    {"udp_table", "hash", TARGET(udp.hash), true},
    {"udp_table", "mask", TARGET(udp.mask), true},
    {"udp_hslot", "head", TARGET(udp_head), true},
    {"unix_sock", "addr", TARGET(unix_addr), true},
    {"unix_sock", "peer", TARGET(unix_peer), true},
    {"unix_address", "len", TARGET(address_len), true},
    {"unix_address", "name", TARGET(address_name), true},
    {"net", "list", TARGET(net_list), true},
    {"net", "ns.inum", TARGET(net_inum), true},
    {"net", "ipv4.tcp_death_row.hashinfo", TARGET(net_tcp), true},
    {"net", "ipv4.udp_table", TARGET(net_udp), true},
    {"net", "unx.table.buckets", TARGET(net_unix), true},
    {},
};

/* What a kernel may have or not. */
static int find_optional(struct vmibus_linux *kernel, struct socket_layout *layout) {
    const struct {
        const char *name;
        uint64_t *address;
    } symbols[] = {
        {"tcp_hashinfo", &layout->tcp_hashinfo},
        {"udp_table", &layout->udp_table},
        {"unix_socket_table", &layout->unix_table},
        {"net_namespace_list", &layout->net_list_head},
    };
    const struct {
        const char *name;
        uint32_t *size;
    } structures[] = {
        {"inet_ehash_bucket", &layout->ehash_size},
        {"inet_listen_hashbucket", &layout->listen_size},
        {"udp_hslot", &layout->udp_size},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        r = linux_symbol(kernel, symbols[i].name, symbols[i].address);
        if (r) {
            *symbols[i].address = 0;
            r = r == VMIBUS_GUEST_NOT_FOUND ? 0 : r;
        }
    }
    for (size_t i = 0; r == 0 && i < sizeof(structures) / sizeof(structures[0]); i++) {
        r = linux_structure_size(kernel, structures[i].name, structures[i].size);
        if (r) {
            *structures[i].size = 0;
            r = r == VMIBUS_GUEST_NOT_FOUND ? 0 : r;
        }
    }
    return r;
}

/* Octets up to the end of the last of some members that lie in a row in the layout. */
static uint32_t measure(const void *members, size_t size) {
    const struct linux_field *fields = members;
    uint32_t end = 0;

    for (size_t i = 0; i < size / sizeof(*fields); i++)
        if (fields[i].offset < COPY_MAX && fields[i].size < COPY_MAX && fields[i].offset + fields[i].size > end)
            end = fields[i].offset + fields[i].size;
    return end;
}

static int look_up(struct vmibus_linux *kernel, void *into) {
    struct socket_layout *layout = into;
    int r = linux_fields_resolve(kernel, wishes, layout);

    if (r == 0)
        r = find_optional(kernel, layout);
    layout->common_size = measure(&layout->common, sizeof(layout->common));
    layout->sock_size = measure(&layout->sock, sizeof(layout->sock));
    if (r == 0 && (layout->common_size > COPY_MAX || layout->sock_size > COPY_MAX))
        r = linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the kernel's struct sock is longer than %u octets", COPY_MAX);
    return r;
}

/* --- a visit ------------------------------------------------------------------------------------------------------ */

struct visit {
    struct vmibus_linux *kernel;
    const struct socket_layout *layout;
    struct vmibus_linux_picture *picture;
    vmibus_linux_socket_fn visit;
    void *context;
    struct socket_owners owners;
    uint64_t net;           /* the last one that was looked at */
    uint32_t net_inum;
    unsigned n_entries;
    uint64_t n_chains;
    uint64_t n_octets;      /* of tables */
};

/* What ends a visit before its tables do. */
#define ENOUGH VMIBUS_GUEST_UNFINISHED

/* A table of chains. */
struct table {
    uint64_t gva;
    uint64_t n_chains;
    uint32_t stride;        /* octets from one chain's beginning to the next */
    uint32_t head;          /* where in it the pointer to the first entry lies */
    uint32_t node;          /* where in an entry its pointers lie */
    uint8_t kind;           /* enum vmibus_linux_socket_kind */
};

static uint64_t get(const void *copy, size_t size, const struct linux_field *field) {
    uint64_t value = 0;

    return linux_get_field(copy, size, field, &value) ? value : 0;
}

/* One that cannot be read is 0. */
static int find_net_inum(struct visit *visit, uint64_t net, uint32_t *net_inum) {
    uint64_t inum;
    int r = 0;

    *net_inum = 0;
    if (net == 0 || visit->layout->net_inum.size == 0)
        return 0;
    if (net != visit->net) {
        r = linux_read_field(visit->kernel, net, &visit->layout->net_inum, &inum);
        if (r < 0)
            return r;
        visit->net = net;
        visit->net_inum = r == 0 ? (uint32_t)inum : 0;
    }
    *net_inum = visit->net_inum;
    return 0;
}

static void get_address(const struct socket_layout *layout, const uint8_t *copy, bool six, const struct linux_field *v4,
                        const struct linux_field *v6, uint8_t *address) {
    const struct linux_field *field = six ? v6 : v4;
    size_t len = six ? 16 : 4;

    if (field->size == len && field->offset + len <= layout->common_size)
        memcpy(address, copy + field->offset, len);
}

static int decode_common(struct visit *visit, const uint8_t *copy, struct vmibus_linux_socket *socket) {
    const struct socket_layout *layout = visit->layout;
    size_t size = layout->common_size;
    bool six;
    int r = find_net_inum(visit, get(copy, size, &layout->common.net), &socket->net_namespace);

    socket->family = (uint16_t)get(copy, size, &layout->common.family);
    socket->state = (uint8_t)get(copy, size, &layout->common.state);
    if (socket->state == TCP_NEW_SYN_RECV)
        socket->state = VMIBUS_LINUX_SOCKET_SYN_RECV;
    if (socket->kind == VMIBUS_LINUX_SOCKET_UNIX)
        return r;
    six = socket->family == 10;
    socket->local_port = (uint16_t)get(copy, size, &layout->common.num);
    socket->remote_port = __builtin_bswap16((uint16_t)get(copy, size, &layout->common.dport));
    get_address(layout, copy, six, &layout->common.saddr, &layout->common.saddr6, socket->local);
    get_address(layout, copy, six, &layout->common.daddr, &layout->common.daddr6, socket->remote);
    return r;
}

/* What only a whole struct sock has: not what stands for a request, or for one in TIME_WAIT. */
static int decode_sock(struct visit *visit, struct vmibus_linux_socket *socket) {
    const struct socket_layout *layout = visit->layout;
    const struct socket_owner *owner;
    uint64_t values[3];
    int r = linux_read_fields(visit->kernel, socket->sock, &layout->sock.uid, 3, values);

    if (r)
        return r;
    socket->type = (uint16_t)values[1];
    if (values[2] == 0)
        return 0;
    socket->uid = (uint32_t)values[0];
    r = linux_read_field(visit->kernel, values[2] - layout->alloc_socket.offset, &layout->alloc_inode_number, &socket->inode);
    owner = socket_owners_find(&visit->owners, values[2], &socket->n_owners);
    if (owner) {
        socket->pid = owner->pid;
        socket->fd = owner->fd;
    }
    return r;
}

/*
 * What is left of a socket that nobody has any more waits in FIN_WAIT2 for the other side as well (Linux
 * net/ipv4/tcp_minisocks.c, tcp_time_wait).
 */
static int decode_waiting(const struct visit *visit, struct vmibus_linux_socket *socket) {
    uint64_t state;
    int r;

    if (visit->layout->waiting_state.size == 0)
        return 0;
    r = linux_read_field(visit->kernel, socket->sock, &visit->layout->waiting_state, &state);
    if (r == 0)
        socket->state = (uint8_t)state;
    return r;
}

/* The name begins behind the two octets of its family (Linux include/uapi/linux/un.h). */
static int decode_unix(struct visit *visit, struct vmibus_linux_socket *socket) {
    const struct socket_layout *layout = visit->layout;
    uint64_t addr, len;
    int r = linux_read_field(visit->kernel, socket->sock, &layout->unix_addr, &addr);

    if (r == 0)
        r = linux_read_field(visit->kernel, socket->sock, &layout->unix_peer, &socket->peer);
    if (r || addr == 0)
        return r;
    r = linux_read_field(visit->kernel, addr, &layout->address_len, &len);
    if (r || len <= 2)
        return r;
    len = len - 2 <= VMIBUS_LINUX_UNIX_NAME_MAX ? len - 2 : VMIBUS_LINUX_UNIX_NAME_MAX;
    r = linux_read(visit->kernel, addr + layout->address_name.offset + 2, socket->name, len);
    if (r)
        return r;
    /* A path ends with its NUL; an abstract name has the octets that were given for it. */
    socket->name_len = (uint8_t)(socket->name[0] ? strnlen(socket->name, len) : len);
    return 0;
}

static int show(struct visit *visit, const struct table *table, uint64_t sock, const uint8_t *copy) {
    struct vmibus_linux_socket socket = {.sock = sock, .kind = table->kind};
    uint8_t raw = (uint8_t)get(copy, visit->layout->common_size, &visit->layout->common.state);
    int r = decode_common(visit, copy, &socket);

    if (r < 0)
        return r;
    if (raw == VMIBUS_LINUX_SOCKET_TIME_WAIT && table->kind == VMIBUS_LINUX_SOCKET_TCP)
        r = decode_waiting(visit, &socket);
    else if (raw != TCP_NEW_SYN_RECV)
        r = decode_sock(visit, &socket);
    if (r == 0 && table->kind == VMIBUS_LINUX_SOCKET_UNIX)
        r = socket.family == GUEST_AF_UNIX ? decode_unix(visit, &socket) : VMIBUS_GUEST_CHANGED;
    if (r < 0)
        return r;
    if (r) {
        visit->picture->n_broken++;
        return 0;
    }
    visit->picture->n_seen++;
    return visit->visit(visit->context, &socket) ? 0 : ENOUGH;
}

static void chain_is_broken(struct visit *visit) {
    visit->picture->n_broken++;
    visit->picture->flags &= ~(uint32_t)(VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY);
}

/* A chain ends with NULL, or with an odd number (Linux include/linux/list_nulls.h). */
static bool is_end(uint64_t node) {
    return node == 0 || node & 1;
}

static int visit_chain(struct visit *visit, const struct table *table, uint64_t from, uint64_t node) {
    const uint64_t beginning = from;
    uint8_t copy[COPY_MAX];
    uint64_t links[2];

    while (!is_end(node)) {
        uint64_t sock = node - table->node;
        int r;

        if (++visit->n_entries > SOCKETS_MAX) {
            visit->picture->flags |= VMIBUS_LINUX_BOUNDED;
            return ENOUGH;
        }
        r = linux_read(visit->kernel, sock, copy, visit->layout->common_size);
        if (r < 0)
            return r;
        memcpy(links, copy + table->node, sizeof(links));
        /* Where each entry points back to the one before, a ring can only close at the beginning. */
        if (r || links[1] != from || node == beginning) {
            chain_is_broken(visit);
            return 0;
        }
        r = show(visit, table, sock, copy);
        if (r)
            return r;
        from = node;
        node = links[0];
    }
    return 0;
}

static int visit_table(struct visit *visit, const struct table *table) {
    uint32_t per_chunk = CHUNK / table->stride;
    uint8_t chunk[CHUNK], again[CHUNK];

    for (uint64_t first = 0; first < table->n_chains; first += per_chunk) {
        uint64_t n = table->n_chains - first < per_chunk ? table->n_chains - first : per_chunk;
        uint64_t gva = table->gva + first * table->stride;
        int r = linux_read(visit->kernel, gva, chunk, n * table->stride);

        for (uint64_t i = 0; r == 0 && i < n; i++) {
            uint64_t node;

            memcpy(&node, chunk + i * table->stride + table->head, sizeof(node));
            r = visit_chain(visit, table, gva + i * table->stride + table->head, node);
        }
        if (r == 0)
            r = linux_read(visit->kernel, gva, again, n * table->stride);
        if (r < 0 || r == ENOUGH)
            return r;
        if (r)
            chain_is_broken(visit);
        else if (memcmp(chunk, again, n * table->stride) != 0)
            visit->picture->flags &= ~(uint32_t)VMIBUS_LINUX_STEADY;
    }
    return 0;
}

/* Makes a table of what was read of it; one that makes no sense is counted, and left out. */
static int visit_checked(struct visit *visit, struct table table) {
    if (table.n_chains > CHAINS_MAX || table.stride == 0 || table.stride > CHUNK || (uint64_t)table.head + 8 > table.stride ||
        (uint64_t)table.node + 16 > visit->layout->common_size) {
        chain_is_broken(visit);
        return 0;
    }
    visit->n_chains += table.n_chains;
    visit->n_octets += table.n_chains * table.stride;
    if (visit->n_chains > ALL_CHAINS_MAX || visit->n_octets > ALL_OCTETS_MAX) {
        visit->picture->flags |= VMIBUS_LINUX_BOUNDED;
        return ENOUGH;
    }
    return visit_table(visit, &table);
}

/* --- the tables that there are ------------------------------------------------------------------------------------ */

/* Whether the kernel describes what is needed to read a table of a kind. */
static bool has_tcp(const struct socket_layout *layout) {
    return layout->tcp.ehash.size && layout->tcp.ehash_mask.size && layout->ehash_chain.size && layout->listen_head.size &&
           ((layout->tcp.lhash2.size && layout->tcp.lhash2_mask.size) || layout->listening_hash.size);
}

static bool has_udp(const struct socket_layout *layout) {
    return layout->udp.hash.size && layout->udp.mask.size && layout->udp_head.size;
}

static bool has_unix(const struct socket_layout *layout) {
    return layout->unix_addr.size && layout->unix_peer.size && layout->address_len.size && layout->address_name.size;
}

/* Listening sockets are in a table of their own: an array in the structure itself, or else one by address and port. */
static int visit_tcp(struct visit *visit, uint64_t hashinfo) {
    const struct socket_layout *layout = visit->layout;
    struct table connected = {.stride = layout->ehash_size, .head = layout->ehash_chain.offset,
                              .node = layout->common.nulls_node.offset, .kind = VMIBUS_LINUX_SOCKET_TCP};
    struct table listening = {.stride = layout->listen_size, .head = layout->listen_head.offset,
                              .node = layout->common.nulls_node.offset, .kind = VMIBUS_LINUX_SOCKET_TCP};
    uint64_t values[4];
    int r = linux_read_fields(visit->kernel, hashinfo, &layout->tcp.ehash, 4, values);

    if (r)
        return r;
    connected.gva = values[0];
    connected.n_chains = values[1] + 1;
    listening.gva = values[2];
    listening.n_chains = values[3] + 1;
    if (layout->listening_hash.size && layout->listen_size) {
        listening.gva = hashinfo + layout->listening_hash.offset;
        listening.n_chains = layout->listening_hash.size / layout->listen_size;
    }
    r = visit_checked(visit, listening);
    return r ? r : visit_checked(visit, connected);
}

static int visit_udp(struct visit *visit, uint64_t udp_table) {
    const struct socket_layout *layout = visit->layout;
    struct table table = {.stride = layout->udp_size, .head = layout->udp_head.offset, .node = layout->common.node.offset,
                          .kind = VMIBUS_LINUX_SOCKET_UDP};
    uint64_t values[2];
    int r = linux_read_fields(visit->kernel, udp_table, &layout->udp.hash, 2, values);

    table.gva = values[0];
    table.n_chains = values[1] + 1;
    return r ? r : visit_checked(visit, table);
}

static int visit_unix(struct visit *visit, uint64_t buckets) {
    return visit_checked(visit, (struct table){.gva = buckets, .n_chains = UNIX_CHAINS, .stride = 8,
                                               .node = visit->layout->common.node.offset, .kind = VMIBUS_LINUX_SOCKET_UNIX});
}

/* What a network namespace has for itself alone. */
static int visit_namespace(struct visit *visit, uint64_t net) {
    const struct socket_layout *layout = visit->layout;
    uint64_t table;
    int r = 0;

    if (layout->net_tcp.size && has_tcp(layout)) {
        r = linux_read_field(visit->kernel, net, &layout->net_tcp, &table);
        if (r == 0 && table && table != layout->tcp_hashinfo)
            r = visit_tcp(visit, table);
    }
    if (r == 0 && layout->net_udp.size && has_udp(layout)) {
        r = linux_read_field(visit->kernel, net, &layout->net_udp, &table);
        if (r == 0 && table && table != layout->udp_table)
            r = visit_udp(visit, table);
    }
    if (r == 0 && layout->net_unix.size && has_unix(layout)) {
        r = linux_read_field(visit->kernel, net, &layout->net_unix, &table);
        if (r == 0 && table)
            r = visit_unix(visit, table);
    }
    return r;
}

static int visit_namespaces(struct visit *visit) {
    const struct socket_layout *layout = visit->layout;
    uint64_t from = layout->net_list_head, node;
    unsigned n = 0;
    int r = linux_read_u64(visit->kernel, from, &node);

    while (r == 0 && node != layout->net_list_head) {
        uint64_t links[2];

        if (n++ == NAMESPACES_MAX) {
            visit->picture->flags |= VMIBUS_LINUX_BOUNDED;
            return ENOUGH;
        }
        r = linux_read(visit->kernel, node, links, sizeof(links));
        if (r == 0 && links[1] != from)
            r = VMIBUS_GUEST_CHANGED;
        if (r == 0)
            r = visit_namespace(visit, node - layout->net_list.offset);
        from = node;
        node = links[0];
    }
    if (r > 0 && r != ENOUGH) {
        chain_is_broken(visit);
        return 0;
    }
    return r;
}

static int visit_all(struct visit *visit) {
    const struct socket_layout *layout = visit->layout;
    int r = 0;

    if (layout->tcp_hashinfo && has_tcp(layout))
        r = visit_tcp(visit, layout->tcp_hashinfo);
    if (r == 0 && layout->udp_table && has_udp(layout))
        r = visit_udp(visit, layout->udp_table);
    if (r == 0 && layout->unix_table && has_unix(layout))
        r = visit_unix(visit, layout->unix_table);
    if (r == 0 && layout->net_list_head && layout->net_list.size)
        r = visit_namespaces(visit);
    return r;
}

int vmibus_linux_visit_sockets(struct vmibus_linux *kernel, vmibus_linux_socket_fn show_socket, void *context,
                               struct vmibus_linux_picture *picture) {
    struct visit visit = {.kernel = kernel, .picture = picture, .visit = show_socket, .context = context};
    int r;

    *picture = (struct vmibus_linux_picture){};
    r = linux_layout_get(kernel, &kernel->socket_layout, sizeof(struct socket_layout), look_up);
    visit.layout = kernel->socket_layout;
    if (r == 0)
        r = socket_owners_collect(kernel, &visit.owners, picture);
    picture->n_seen = picture->n_broken = 0;
    if (r == 0) {
        r = visit_all(&visit);
        if (r > 0 && r != ENOUGH)
            r = linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the tables of sockets cannot be read");
    }
    if (r)
        picture->flags &= (uint32_t)VMIBUS_LINUX_BOUNDED;
    socket_owners_deinit(&visit.owners);
    return r == ENOUGH ? 0 : r;
}
