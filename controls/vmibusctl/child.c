/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "child.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report.h"

/* Signals that are the command's to act upon. */
static const int passed_on[] = {SIGTERM, SIGHUP};
static const int ignored[] = {SIGINT, SIGQUIT};

static volatile pid_t child;

static void pass_on(int number) {
    if (child > 0)
        kill(child, number);
}

static void set_signals(void (*terminate)(int), void (*interrupt)(int)) {
    struct sigaction action = {.sa_flags = SA_RESTART};

    action.sa_handler = terminate;
    for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
        sigaction(passed_on[i], &action, NULL);
    /* The terminal sends these to the command too. */
    action.sa_handler = interrupt;
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        sigaction(ignored[i], &action, NULL);
}

static void execute(char **command, void (*prepare)(void *context), void *context) __attribute__((noreturn));

static void execute(char **command, void (*prepare)(void *context), void *context) {
    set_signals(SIG_DFL, SIG_DFL);
    if (prepare)
        prepare(context);
    execvp(command[0], command);
    fprintf(stderr, "vmibusctl: cannot run %s: %s\n", printable(command[0]), strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

int child_run(char **command, void (*prepare)(void *context), void *context) {
    sigset_t set, old;
    int status;

    fflush(NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, &old);
    child = fork();
    if (child < 0) {
        sigprocmask(SIG_SETMASK, &old, NULL);
        return report_failure("cannot run %s: %s", printable(command[0]), strerror(errno));
    }
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &old, NULL);
        execute(command, prepare, context);
    }
    set_signals(pass_on, SIG_IGN);
    sigprocmask(SIG_SETMASK, &old, NULL);
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return report_failure("cannot wait for %s: %s", printable(command[0]), strerror(errno));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
