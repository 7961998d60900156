/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sensors that cannot be had: the daemon says why, and serves with the others. */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

static char directory[] = "/tmp/vmibus-sensors.XXXXXX";

static void write_manifest(const char *name, const char *text) {
    char path[PATH_MAX];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s.sensor", directory, name);
    file = fopen(path, "we");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

static void link_stub(const char *file) {
    char from[PATH_MAX], to[PATH_MAX];

    snprintf(from, sizeof(from), "%s/%s", getenv("VMIBUS_SENSOR_DIR"), file);
    snprintf(to, sizeof(to), "%s/%s", directory, file);
    ck_assert_int_eq(symlink(from, to), 0);
}

static void remove_directory(void) {
    char command[64];

    snprintf(command, sizeof(command), "rm -rf %s", directory);
    ck_assert_int_eq(system(command), 0);
}

TEST(test_p10_sensors_that_cannot_be_had_are_left_out) {
    static struct daemon daemon;
    const struct {
        const char *name, *manifest, *complaint;
    } rows[] = {
        {"absent", NULL, "is the package of that sensor installed?"},
        {"unknown", "[sensor]\nname = unknown\ncolour = red\nmodule = stub.so\n", "unknown.sensor:3: unknown key 'colour'"},
        {"kind", "[sensor]\nname = kind\nkind = rubbish\nmodule = stub.so\n", "kind.sensor:3: kind: host, knowledge or watch"},
        {"path", "[sensor]\nname = path\nmodule = ../stub.so\n", "path.sensor:3: the module is a file name"},
        {"nameless", "[sensor]\nmodule = stub.so\n", "name = and module = are needed"},
        {"nowhere", "[sensor]\nname = nowhere\nmodule = nowhere.so\n", "nowhere.so cannot be loaded"},
        {"liar", "[sensor]\nname = liar\nprovides = power\nmodule = stub.so\n", "is not what its manifest says"},
    };
    struct daemon_options options = {.arguments = {"--sensor-directory", directory}};
    char config[1024] = "";

    if (!getenv("VMIBUS_SENSOR_DIR"))
        test_skip("VMIBUS_SENSOR_DIR does not tell where the built sensors are");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    link_stub("stub.so");
    link_stub("stub.sensor");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        /* A section that has no keys counts as well. */
        snprintf(config + strlen(config), sizeof(config) - strlen(config), "[sensor %s]\n%s", rows[i].name,
                 i % 2 ? "key = value\n" : "");
        if (rows[i].manifest)
            write_manifest(rows[i].name, rows[i].manifest);
    }
    options.config = config;
    daemon_spawn(&daemon, &options);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        daemon_await_log(&daemon, rows[i].complaint);
    daemon_await_log(&daemon, "sensor stub: READY");
    ck_assert_int_eq(kill(daemon.pid, SIGTERM), 0);
    ck_assert_int_eq(daemon_await_exit(&daemon), 0);
    daemon_remove(&daemon);
    remove_directory();
}

HARNESS_SUITE("sensors of a daemon", HARNESS_QUICK)
