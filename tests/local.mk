# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests: the harness and its own tests.
#
# How tests are added: in the local.mk of the folder that they test.
#
#     test_programs += tests/test_loop
#     tests_test_loop_SOURCES = tests/test_loop.c
#     tests_test_loop_LDADD = libharness.la libvmibus_util.la
#
# A test that boots a guest, and so takes long, is added to guest_test_programs instead; it links
# libbed.la, the test bed.  A script is a test too, if it is executable and prints the harness's lines
# (tests/harness.py and tests/harness.sh do that):
#
#     test_scripts += tests/test_layers.py
#
# A program or module that tests need and that is none itself:
#
#     test_helpers += tests/hostile_peer
#     check_LTLIBRARIES += tests/modules/broken.la
#     tests_modules_broken_la_LDFLAGS = $(sensor_ldflags) -rpath /nowhere
#
# `make check` runs all tests in the build directory (several at a time: make -j2 check), `make
# check-unit` all but those that boot guests and the model.  Their environment has top_srcdir, top_builddir (both
# absolute), VMIBUS_SENSOR_DIR and CC.  Run by hand, a test may have none of these, and falls back to
# its own folder.

noinst_HEADERS += tests/harness.h
EXTRA_DIST += tests/booted/make-root tests/booted/booted.py tests/booted/service.py tests/booted/test_packages.py \
	tests/booted/test_service.py tests/booted/test_upgrade.py tests/booted/test_booted_guest.py tests/booted/test_booted_libvirt.py
EXTRA_DIST += tests/apart.py tests/service_manager.py tests/valgrind.supp tests/harness.py tests/harness.sh $(test_scripts) $(guest_test_scripts) $(model_tests)

unit_tests = $(test_programs) $(test_scripts)
guest_tests = $(guest_test_programs) $(guest_test_scripts)
# model_tests, from model/local.mk, looks at nothing that is built.

if HAVE_CHECK
check_PROGRAMS += $(test_programs) $(guest_test_programs) $(test_helpers)
TESTS = $(unit_tests) $(guest_tests) $(model_tests)

check_LTLIBRARIES += libharness.la
libharness_la_SOURCES = tests/harness.c
libharness_la_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)
libharness_la_LIBADD = $(CHECK_LIBS)
else
check-local: complain-of-missing-check
endif

complain-of-missing-check:
	@echo "There are no tests: install check (libcheck) and configure again." >&2; exit 1

check-unit:
	$(MAKE) $(AM_MAKEFLAGS) check TESTS='$(unit_tests)'

# For what runs them elsewhere: in a guest, under valgrind.
print-test-programs:
	@printf '%s\n' $(test_programs)

.PHONY: check-unit complain-of-missing-check print-test-programs

if SANITIZED
timeout_factor = 4
else
timeout_factor = 1
endif

TEST_EXTENSIONS = .py .sh
PY_LOG_COMPILER = $(PYTHON)
SH_LOG_COMPILER = $(SHELL)
AM_TESTS_ENVIRONMENT = \
	top_srcdir='$(abs_top_srcdir)'; export top_srcdir; \
	top_builddir='$(abs_top_builddir)'; export top_builddir; \
	VMIBUS_SOURCE_DIR='$(abs_top_srcdir)'; export VMIBUS_SOURCE_DIR; \
	VMIBUS_SENSOR_DIR='$(abs_top_builddir)/sensors/modules'; export VMIBUS_SENSOR_DIR; \
	VMIBUS_TEST_TIMEOUT_FACTOR="$${VMIBUS_TEST_TIMEOUT_FACTOR:-$(timeout_factor)}"; export VMIBUS_TEST_TIMEOUT_FACTOR; \
	CC='$(CC)'; export CC; \
	PYTHONDONTWRITEBYTECODE=1; export PYTHONDONTWRITEBYTECODE; \
	UBSAN_OPTIONS="$${UBSAN_OPTIONS:-print_stacktrace=1}"; export UBSAN_OPTIONS;

# --- the harness's own tests ---------------------------------------------------------------------

test_helpers += tests/harness_specimen
tests_harness_specimen_SOURCES = tests/harness_specimen.c
tests_harness_specimen_LDADD = libharness.la

test_scripts += tests/test_harness.py

# --- tests of the tree as a whole ------------------------------------------------------------------

test_scripts += \
	tests/test_analyze.py \
	tests/test_check.py \
	tests/test_hardening.py \
	tests/test_layers.py \
	tests/test_manuals.py \
	tests/test_scripts.py \
	tests/test_security.py \
	tests/test_syscalls.py

# --- what tests share, and tests of several folders together ---------------------------------------

include tests/audit/local.mk
include tests/bed/local.mk
include tests/bus/local.mk
include tests/compromised/local.mk
include tests/core/local.mk
include tests/demo/local.mk
include tests/kvm/local.mk
include tests/util/local.mk
include tests/transport/local.mk
include tests/daemon/local.mk
include tests/differential/local.mk
include tests/fuzz/local.mk
include tests/soak/local.mk
include tests/failing/local.mk
