/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The program: its verbs, their common options, help. */
#include "vmibusctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

/* In the order of vmibusctl(1). */
static const struct verb *const verbs[] = {
    &verb_list, &verb_info, &verb_monitor, &verb_screenshot, &verb_regs, &verb_stats, &verb_top, &verb_explain, &verb_audit,
    &verb_read, &verb_search, &verb_translate, &verb_dump, &verb_write, &verb_watch,
    &verb_ps, &verb_maps, &verb_files, &verb_sockets, &verb_symbols, &verb_modules, &verb_dmesg,
    &verb_key, &verb_type, &verb_mouse, &verb_power, &verb_hold, &verb_lease,
    &verb_add, &verb_remove,
};

static const struct option_description common_options[] = {
    {"json", NULL, "print JSON: an object, or an array of objects"},
    {"socket", "PATH", "connect to the bus that listens there"},
    {"help", NULL, "show this and do nothing"},
    {},
};

static void print_options(const struct option_description *options) {
    for (; options && options->name; options++) {
        char name[64];

        snprintf(name, sizeof(name), "--%s%s%s", options->name, options->argument ? " " : "",
                 options->argument ? options->argument : "");
        printf("  %-22s %s\n", name, options->doc);
    }
}

static void help_program(void) {
    puts("vmibusctl VERB [WORDS] [OPTIONS]\n\n"
         "Looks at virtual machines on a vmibus and commands them.\n\nVerbs:");
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        printf("  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
    puts("\nOptions of every verb:");
    print_options(common_options);
    puts("\nOptions of the program:\n  --version              show the version and do nothing\n\n"
         "VM is a name, a UUID or a slot. `vmibusctl VERB --help` tells more, vmibusctl(1) everything.");
}

/* What follows `--` is another command's, so our options come before. */
static void print_synopsis(FILE *stream, const struct verb *verb) {
    const char *command = strstr(verb->synopsis, "-- ");
    int words = command ? (int)(command - verb->synopsis) : (int)strlen(verb->synopsis);

    fprintf(stream, "vmibusctl %s %.*s%s[OPTIONS]%s%s\n", verb->name, words, verb->synopsis, words && !command ? " " : "",
            command ? " " : "", command ? command : "");
}

static void help_verb(const struct verb *verb) {
    print_synopsis(stdout, verb);
    printf("\n%c%s.\n\nOptions:\n", verb->summary[0] - 'a' + 'A', verb->summary + 1);
    print_options(verb->options);
    print_options(common_options);
}

int vmibusctl_usage(const char *what, const char *value, const char *expected) {
    if (value)
        fprintf(stderr, "vmibusctl: %s '%s' is not understood: %s\n", what, printable(value), expected);
    else
        fprintf(stderr, "vmibusctl: %s: %s\n", what, expected);
    return STATUS_USAGE;
}

static int usage_verb(const struct verb *verb, const struct arguments *arguments, int result) {
    static const char *const texts[] = {
        [ARGUMENTS_UNKNOWN] = "there is no such option",
        [ARGUMENTS_MISSING] = "its argument is missing",
        [ARGUMENTS_SUPERFLUOUS] = "it has no argument",
        [ARGUMENTS_REPEATED] = "it was given before",
    };

    if (result)
        fprintf(stderr, "vmibusctl: option %s: %s\n", printable(arguments->offender), texts[result]);
    else {
        fputs("vmibusctl: usage: ", stderr);
        print_synopsis(stderr, verb);
    }
    fprintf(stderr, "`vmibusctl %s --help` tells more.\n", verb->name);
    return STATUS_USAGE;
}

int vmibusctl_connect(struct vmibusctl *ctl) {
    const char *path = ctl->socket ? ctl->socket : getenv("VMIBUS_SOCKET");
    struct vmibus_error_body refusal;
    int r = vmibus_connect_explained(&ctl->bus, ctl->socket, "vmibusctl", &refusal);

    if (r == 0)
        return STATUS_OK;
    return report_no_connection(r, &refusal, path && *path ? path : VMIBUS_SOCKET_DEFAULT,
                                !ctl->socket && getenv("VMIBUS_LENT_FD"));
}

static int run_verb(const struct verb *verb, struct vmibusctl *ctl, char **argv) {
    struct option_description options[ARGUMENTS_OPTIONS + 1] = {};
    struct arguments arguments;
    size_t n = 0;
    int r;

    for (size_t i = 0; verb->options && verb->options[i].name; i++)
        options[n++] = verb->options[i];
    for (size_t i = 0; common_options[i].name; i++)
        options[n++] = common_options[i];
    r = arguments_parse(&arguments, options, argv);
    if (r)
        return usage_verb(verb, &arguments, r);
    if (arguments_get(&arguments, "help")) {
        help_verb(verb);
        return STATUS_OK;
    }
    if (arguments.n_words < verb->min_words || arguments.n_words > verb->max_words)
        return usage_verb(verb, &arguments, 0);
    ctl->json = ctl->json || arguments_get(&arguments, "json");
    if (arguments_get(&arguments, "socket"))
        ctl->socket = arguments_get(&arguments, "socket");
    return verb->run(ctl, &arguments);
}

static const struct verb *find_verb(const char *name) {
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    return NULL;
}

/* What is said on stdout must arrive, or a script would take silence for an answer. */
static int finish(struct vmibusctl *ctl, int status) {
    ctl->bus = vmibus_free(ctl->bus);
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "vmibusctl: standard output: %s\n", strerror(errno));
        return status ? status : STATUS_FAILED;
    }
    return status;
}

int main(int argc, char **argv) {
    struct vmibusctl ctl = {};
    const struct verb *verb;
    int at;

    /* The common options may come before the verb as well. */
    for (at = 1; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
        if (strcmp(argv[at], "--help") == 0) {
            help_program();
            return finish(&ctl, STATUS_OK);
        }
        if (strcmp(argv[at], "--version") == 0) {
            puts("vmibusctl " PACKAGE_VERSION);
            return finish(&ctl, STATUS_OK);
        }
        if (strcmp(argv[at], "--json") == 0)
            ctl.json = true;
        else if (strncmp(argv[at], "--socket=", 9) == 0)
            ctl.socket = argv[at] + 9;
        else if (strcmp(argv[at], "--socket") == 0 && at + 1 < argc)
            ctl.socket = argv[++at];
        else
            return vmibusctl_usage("option", argv[at], "`vmibusctl --help` lists them");
    }
    if (at == argc)
        return vmibusctl_usage("verb", NULL, "none is given, `vmibusctl --help` lists them");
    verb = find_verb(argv[at]);
    if (!verb)
        return vmibusctl_usage("verb", argv[at], "`vmibusctl --help` lists them");
    return finish(&ctl, run_verb(verb, &ctl, argv + at + 1));
}
