/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl symbols: the symbols of a Linux guest's kernel and modules, by name, by pattern, by address. */
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame_json.h"
#include "linux_guest.h"
#include "report.h"
#include "units.h"

struct listing {
    struct linux_guest guest;
    struct vmibus_linux_picture picture;
    const char *pattern;        /* NULL: every name */
    FILE *text;                 /* one of these two is collected */
    struct json_list *list;
    size_t n;
};

static struct json_object *symbol_json(const struct vmibus_linux_symbol *symbol) {
    struct json_object *object = json_object_new_object();

    json_object_object_add(object, "gva", json_object_new_uint64(symbol->gva));
    json_object_object_add(object, "size", json_object_new_uint64(symbol->size));
    json_object_object_add(object, "type", json_object_new_string_len(&symbol->type, 1));
    json_object_object_add(object, "name", frame_json_text(symbol->name, strlen(symbol->name)));
    if (symbol->module)
        json_object_object_add(object, "module", frame_json_text(symbol->module, strlen(symbol->module)));
    return object;
}

static bool list_symbol(void *context, const struct vmibus_linux_symbol *symbol) {
    struct listing *listing = context;

    if (listing->pattern && fnmatch(listing->pattern, symbol->name, 0) != 0)
        return true;
    listing->n++;
    if (listing->list) {
        json_list_add(listing->list, symbol_json(symbol));
        return true;
    }
    fprintf(listing->text, "0x%016" PRIx64 " %c ", symbol->gva, symbol->type);
    print_printable(listing->text, symbol->name, strlen(symbol->name));
    if (symbol->module)
        fprintf(listing->text, "\t[%s]", printable(symbol->module));
    fputc('\n', listing->text);
    return true;
}

static int collect(struct listing *listing, const char *name) {
    int r = vmibus_linux_visit_symbols(listing->guest.kernel, name, list_symbol, listing, &listing->picture);

    if (r)
        return linux_guest_report(&listing->guest, r, "its symbols cannot be read");
    r = linux_guest_let_go(&listing->guest);
    if (r != STATUS_OK || listing->n > 0)
        return r;
    report_failure("%s has no symbol %s.", printable(listing->guest.name),
                   printable(name ? name : listing->pattern ? listing->pattern : "at all"));
    return STATUS_NOT_FOUND;
}

static int list_text(struct listing *listing, const char *name) {
    char *text = NULL;
    size_t len = 0;
    int r;

    listing->text = open_memstream(&text, &len);
    if (!listing->text)
        return report_failure("out of memory");
    r = collect(listing, name);
    if (fclose(listing->text) != 0)
        r = report_failure("out of memory");
    if (r == STATUS_OK) {
        fwrite(text, 1, len, stdout);
        linux_guest_say_picture(&listing->guest, &listing->picture);
    }
    free(text);
    return r;
}

static int list(struct listing *listing, const char *name) {
    int r;

    if (!listing->guest.ctl->json)
        return list_text(listing, name);
    listing->list = json_list_new();
    r = collect(listing, name);
    if (r == STATUS_OK)
        linux_guest_print_json(&listing->guest, listing->list, &listing->picture);
    else
        json_list_free(listing->list);
    return r;
}

/* The symbol that an address belongs to, as the kernel prints one. */
static int name_address(struct linux_guest *guest, uint64_t gva) {
    struct vmibus_linux_symbol symbol;
    struct json_object *object;
    int r = vmibus_linux_symbol_at(guest->kernel, gva, &symbol), ended = linux_guest_let_go(guest);

    if (r)
        return linux_guest_report(guest, r, "the address has no name");
    if (guest->ctl->json) {
        object = symbol_json(&symbol);
        json_object_object_add(object, "offset", json_object_new_uint64(gva - symbol.gva));
        frame_json_print(object);
        return ended;
    }
    printf("0x%016" PRIx64 " %c %s+0x%" PRIx64, gva, symbol.type, printable(symbol.name), gva - symbol.gva);
    if (symbol.size)
        printf("/0x%" PRIx64, symbol.size);
    if (symbol.module)
        printf(" [%s]", printable(symbol.module));
    putchar('\n');
    return ended;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    const char *word = arguments->n_words > 1 ? arguments->words[1] : NULL;
    struct listing listing = {.pattern = arguments_get(arguments, "match")};
    uint64_t gva;
    int r;

    if (word && listing.pattern)
        return vmibusctl_usage("--match", NULL, "give a name, an address, or --match");
    r = linux_guest_begin(ctl, arguments, arguments->words[0], &listing.guest);
    if (r == STATUS_OK)
        r = word && units_parse_number(word, UINT64_MAX, &gva) ? name_address(&listing.guest, gva) : list(&listing, word);
    return linux_guest_end(&listing.guest, r);
}

static const struct option_description options[] = {
    {"match", "GLOB", "only the names that match, such as 'tcp_*'"},
    LINUX_GUEST_OPTIONS,
    {},
};

const struct verb verb_symbols = {
    .name = "symbols",
    .synopsis = "VM [NAME|ADDR]",
    .summary = "list the symbols of a Linux guest's kernel, or look one up",
    .min_words = 1,
    .max_words = 2,
    .options = options,
    .run = run,
};
