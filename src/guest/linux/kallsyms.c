/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Decoding: tokens are checked once, then each name is put together from them, into one store of texts; names are found by
 * a hash, addresses by bisection.
 *
 * A name is a sequence of tokens, octets that stand for texts; the text's first letter is the symbol's type.  An offset that
 * is negative counts down from below the base, one that is not is an absolute address, of a per-CPU variable
 * (CONFIG_KALLSYMS_ABSOLUTE_PERCPU, until 6.14); in kernels without that, all count up from the base; in those that have no
 * base, each counts from its own place.  Which it is, the anchors tell.
 */
#include "kallsyms.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/guest.h>

/* Most tokens are shorter: they are copied so many octets at once. */
#define TOKEN_INLINE 16

struct token {
    char text[TOKEN_INLINE];    /* its beginning, padded */
    const char *whole;
    uint64_t hash;              /* of the text */
    size_t len;
};

struct alphabet {
    struct token tokens[KALLSYMS_TOKENS];
    uint64_t powers[KALLSYMS_NAME_MAX];     /* of HASH_BASE */
};

struct kallsyms {
    size_t n;
    uint64_t *addresses;        /* ascending */
    uint32_t *names;            /* where its type and name begin in texts */
    uint32_t *hashes;
    uint32_t *next;             /* the next symbol in its bucket, n: none */
    uint32_t *buckets;
    uint32_t bucket_mask;
    char *texts;                /* each ended by NUL; longer by TOKEN_INLINE than used */
    size_t texts_len;
};

/* A polynomial, so that a name's hash comes from its tokens' ones. */
#define HASH_BASE UINT64_C(0x9e3779b97f4a7c15)

static uint64_t hash_text(const char *text, size_t len) {
    uint64_t hash = 0;

    for (size_t i = 0; i < len; i++)
        hash = hash * HASH_BASE + (uint8_t)text[i];
    return hash;
}

static uint32_t finish_hash(uint64_t hash) {
    return (uint32_t)(hash * UINT64_C(0xff51afd7ed558ccd) >> 32);
}

/* --- tokens ---------------------------------------------------------------------------------------------------- */

static bool is_printable(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return false;
    return true;
}

/* The index must say where the texts begin, one behind the other. */
static const char *read_tokens(const struct kallsyms_tables *tables, struct alphabet *alphabet) {
    size_t at = 0;

    alphabet->powers[0] = 1;
    for (size_t i = 1; i < KALLSYMS_NAME_MAX; i++)
        alphabet->powers[i] = alphabet->powers[i - 1] * HASH_BASE;
    for (size_t i = 0; i < KALLSYMS_TOKENS; i++) {
        struct token *token = &alphabet->tokens[i];
        size_t len;

        if (tables->token_index[i] != at || at >= tables->tokens_len)
            return "the index of its tokens contradicts them";
        len = strnlen(tables->tokens + at, tables->tokens_len - at);
        if (len == tables->tokens_len - at || len >= KALLSYMS_NAME_MAX)
            return "a token has no end";
        token->whole = tables->tokens + at;
        token->len = len;
        if (!is_printable(token->whole, len))
            return "a token is no text";
        memset(token->text, 0, sizeof(token->text));
        memcpy(token->text, token->whole, len < TOKEN_INLINE ? len : TOKEN_INLINE);
        token->hash = hash_text(token->whole, len);
        at += len + 1;
    }
    return NULL;
}

/* --- names ----------------------------------------------------------------------------------------------------- */

/* The tokens of the name at *at, which moves on behind them; NULL: it goes past the end. */
static const uint8_t *next_name(const struct kallsyms_tables *tables, size_t *at, size_t *lenp) {
    size_t left = tables->names_len - *at, len;
    const uint8_t *name = tables->names + *at;

    if (left == 0)
        return NULL;
    len = *name++;
    left--;
    *at += 1;
    if (len & 0x80) {   /* since 6.1: seven bits, then the upper ones */
        if (left == 0)
            return NULL;
        len = (len & 0x7f) | (size_t)*name++ << 7;
        left--;
        *at += 1;
    }
    if (len > left)
        return NULL;
    *at += len;
    *lenp = len;
    return name;
}

/* Grows the store of texts so that one more name fits. */
static int reserve_text(struct kallsyms *symbols, size_t *size) {
    size_t bigger = *size ? *size * 2 : (size_t)1 << 22;
    char *texts;

    if (symbols->texts_len + KALLSYMS_NAME_MAX + TOKEN_INLINE <= *size)
        return 0;
    texts = realloc(symbols->texts, bigger);
    if (!texts)
        return -ENOMEM;
    symbols->texts = texts;
    *size = bigger;
    return 0;
}

/* Puts a name together at the end of the store. False: it is too long. */
static bool expand(struct kallsyms *symbols, size_t index, const struct alphabet *alphabet, const uint8_t *name,
                   size_t n_tokens) {
    char *text = symbols->texts + symbols->texts_len;
    uint64_t hash = 0;
    size_t len = 0;

    for (size_t i = 0; i < n_tokens; i++) {
        const struct token *token = &alphabet->tokens[name[i]];

        if (len + token->len >= KALLSYMS_NAME_MAX)
            return false;
        memcpy(text + len, token->text, TOKEN_INLINE);
        if (token->len > TOKEN_INLINE)
            memcpy(text + len + TOKEN_INLINE, token->whole + TOKEN_INLINE, token->len - TOKEN_INLINE);
        hash = hash * alphabet->powers[token->len] + token->hash;
        len += token->len;
    }
    if (len < 2)
        return false;
    text[len] = '\0';
    hash -= (uint8_t)text[0] * alphabet->powers[len - 1];  /* the type is no part of the name */
    symbols->names[index] = (uint32_t)symbols->texts_len;
    symbols->hashes[index] = finish_hash(hash);
    symbols->texts_len += len + 1;
    return true;
}

static int expand_names(struct kallsyms *symbols, const struct kallsyms_tables *tables,
                        const struct alphabet *alphabet, const char **whyp) {
    size_t at = 0, size = 0;

    for (size_t i = 0; i < symbols->n; i++) {
        size_t n_tokens = 0;
        const uint8_t *name = next_name(tables, &at, &n_tokens);
        int r = reserve_text(symbols, &size);

        if (r)
            return r;
        *whyp = "its names end before its symbols do";
        if (!name)
            return VMIBUS_GUEST_UNPROVEN;
        *whyp = "a name is empty or too long";
        if (!expand(symbols, i, alphabet, name, n_tokens))
            return VMIBUS_GUEST_UNPROVEN;
        *whyp = "its names are longer than the bound";
        if (symbols->texts_len > KALLSYMS_NAMES_MAX)
            return VMIBUS_GUEST_UNPROVEN;
    }
    return 0;
}

/* From the last to the first, so that the first of a name is found first. */
static void fill_buckets(struct kallsyms *symbols) {
    for (size_t i = 0; i <= symbols->bucket_mask; i++)
        symbols->buckets[i] = (uint32_t)symbols->n;
    for (size_t i = symbols->n; i-- > 0;) {
        uint32_t *bucket = &symbols->buckets[symbols->hashes[i] & symbols->bucket_mask];

        symbols->next[i] = *bucket;
        *bucket = (uint32_t)i;
    }
}

/* --- addresses ------------------------------------------------------------------------------------------------- */

enum address_rule { OFFSETS_ABSOLUTE_PERCPU, OFFSETS_UP, OFFSETS_FROM_PLACE, ADDRESSES };

static uint64_t address_by(const struct kallsyms_tables *tables, enum address_rule rule, size_t index) {
    if (rule == ADDRESSES)
        return tables->addresses[index];
    if (rule == OFFSETS_FROM_PLACE)
        return tables->offsets_gva + sizeof(*tables->offsets) * index + (uint64_t)(int64_t)(int32_t)tables->offsets[index];
    if (rule == OFFSETS_UP)
        return tables->relative_base + tables->offsets[index];
    if ((int32_t)tables->offsets[index] >= 0)
        return tables->offsets[index];
    return tables->relative_base - 1 - (uint64_t)(int64_t)(int32_t)tables->offsets[index];
}

static bool agrees(const struct kallsyms *symbols, const struct kallsyms_tables *tables, enum address_rule rule,
                   const struct kallsyms_anchor *anchors) {
    size_t n_found = 0;

    for (; anchors->name; anchors++) {
        size_t index = kallsyms_find(symbols, anchors->name);

        if (index == symbols->n)
            continue;
        if (address_by(tables, rule, index) != anchors->gva)
            return false;
        n_found++;
    }
    return n_found > 0;
}

static const char *fill_addresses(struct kallsyms *symbols, const struct kallsyms_tables *tables,
                                  const struct kallsyms_anchor *anchors) {
    enum address_rule rule = tables->offsets ? OFFSETS_ABSOLUTE_PERCPU : ADDRESSES;

    while (rule < OFFSETS_FROM_PLACE && !agrees(symbols, tables, rule, anchors))
        rule++;
    if (!agrees(symbols, tables, rule, anchors))
        return "its addresses contradict the note";
    for (size_t i = 0; i < symbols->n; i++) {
        symbols->addresses[i] = address_by(tables, rule, i);
        if (i > 0 && symbols->addresses[i] < symbols->addresses[i - 1])
            return "its addresses do not ascend";
    }
    return NULL;
}

/* --- the object ------------------------------------------------------------------------------------------------ */

static struct kallsyms *allocate(size_t n) {
    struct kallsyms *symbols = calloc(1, sizeof(*symbols));
    size_t n_buckets = 1;

    if (!symbols)
        return NULL;
    while (n_buckets < n)
        n_buckets *= 2;
    symbols->n = n;
    symbols->bucket_mask = (uint32_t)n_buckets - 1;
    symbols->addresses = calloc(n, sizeof(*symbols->addresses));
    symbols->names = calloc(n, sizeof(*symbols->names));
    symbols->hashes = calloc(n, sizeof(*symbols->hashes));
    symbols->next = calloc(n, sizeof(*symbols->next));
    symbols->buckets = calloc(n_buckets, sizeof(*symbols->buckets));
    if (!symbols->addresses || !symbols->names || !symbols->hashes || !symbols->next || !symbols->buckets)
        return kallsyms_free(symbols);
    return symbols;
}

static int decode(struct kallsyms *symbols, const struct kallsyms_tables *tables, const struct kallsyms_anchor *anchors,
                  const char **whyp) {
    struct alphabet *alphabet = calloc(1, sizeof(*alphabet));
    int r;

    if (!alphabet)
        return -ENOMEM;
    *whyp = read_tokens(tables, alphabet);
    r = *whyp ? VMIBUS_GUEST_UNPROVEN : expand_names(symbols, tables, alphabet, whyp);
    free(alphabet);
    if (r)
        return r;
    fill_buckets(symbols);
    *whyp = fill_addresses(symbols, tables, anchors);
    return *whyp ? VMIBUS_GUEST_UNPROVEN : 0;
}

int kallsyms_decode(struct kallsyms **symbolsp, const struct kallsyms_tables *tables, const struct kallsyms_anchor *anchors,
                    const char **whyp) {
    struct kallsyms *symbols;
    int r;

    *symbolsp = NULL;
    *whyp = "its number of symbols is none";
    if (tables->n_symbols == 0 || tables->n_symbols > KALLSYMS_SYMBOLS_MAX)
        return VMIBUS_GUEST_UNPROVEN;
    symbols = allocate(tables->n_symbols);
    if (!symbols)
        return -ENOMEM;
    r = decode(symbols, tables, anchors, whyp);
    if (r)
        kallsyms_free(symbols);
    else
        *symbolsp = symbols;
    return r;
}

struct kallsyms *kallsyms_free(struct kallsyms *symbols) {
    if (!symbols)
        return NULL;
    free(symbols->addresses);
    free(symbols->names);
    free(symbols->hashes);
    free(symbols->next);
    free(symbols->buckets);
    free(symbols->texts);
    free(symbols);
    return NULL;
}

/* --- looking up ------------------------------------------------------------------------------------------------ */

size_t kallsyms_count(const struct kallsyms *symbols) {
    return symbols->n;
}

const char *kallsyms_name(const struct kallsyms *symbols, size_t index, char *type) {
    const char *text = symbols->texts + symbols->names[index];

    if (type)
        *type = text[0];
    return text + 1;
}

uint64_t kallsyms_address(const struct kallsyms *symbols, size_t index) {
    return symbols->addresses[index];
}

/* From a place in a bucket on. */
static size_t find_in_bucket(const struct kallsyms *symbols, size_t index, uint32_t hash, const char *name) {
    while (index != symbols->n) {
        if (symbols->hashes[index] == hash && strcmp(kallsyms_name(symbols, index, NULL), name) == 0)
            break;
        index = symbols->next[index];
    }
    return index;
}

size_t kallsyms_find(const struct kallsyms *symbols, const char *name) {
    uint32_t hash = finish_hash(hash_text(name, strlen(name)));

    return find_in_bucket(symbols, symbols->buckets[hash & symbols->bucket_mask], hash, name);
}

size_t kallsyms_find_next(const struct kallsyms *symbols, size_t index) {
    return find_in_bucket(symbols, symbols->next[index], symbols->hashes[index], kallsyms_name(symbols, index, NULL));
}

size_t kallsyms_at(const struct kallsyms *symbols, uint64_t gva) {
    size_t low = 0, high = symbols->n;

    if (gva < symbols->addresses[0])
        return symbols->n;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (symbols->addresses[middle] <= gva)
            low = middle;
        else
            high = middle;
    }
    gva = symbols->addresses[low];
    if (low == 0 || symbols->addresses[low - 1] < gva)
        return low;
    /* Of those at the same address, the first: bisected as well, for a guest may have put all at one. */
    for (high = low, low = 0; low < high;) {
        size_t middle = low + (high - low) / 2;

        if (symbols->addresses[middle] < gva)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t kallsyms_size(const struct kallsyms *symbols, size_t index) {
    uint64_t gva = symbols->addresses[index];
    size_t low = index, high = symbols->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (symbols->addresses[middle] > gva)
            high = middle;
        else
            low = middle + 1;
    }
    return low < symbols->n ? symbols->addresses[low] - gva : 0;
}
