#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks model/vmibus.pml by spin: every state of small sizes is without fault, and every seeded bug is found."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

SRC = os.path.abspath(os.environ.get("top_srcdir") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
MODEL = os.path.join(SRC, "model", "vmibus.pml")
MEMORY_MIB = 2000
# Of one test, and generous: the checks take seconds, and wait for a CPU longer.
LIMIT_SECONDS = 600


def sizes(ops0, ops1, **budgets):
    """The macros of a check: nothing happens that is not asked for."""
    chosen = {"OPS0": ops0, "OPS1": ops1, "RESTARTS": 0, "RETURNS": 0, "EXPIRIES": 0, "PATIENCE": 0, "BUSY": 0, "EPOCHS": 1}
    chosen.update(budgets)
    return [f"-D{name}={value}" for name, value in chosen.items()]


def run(directory, *command):
    return subprocess.run(command, cwd=directory, text=True, check=False, timeout=LIMIT_SECONDS,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def check(*macros, optimise="-O2"):
    """What spin says of the model with these macros: the number of errors, and its report."""
    for tool, package in (("spin", "spin"), ("gcc", "gcc")):
        if not shutil.which(tool):
            harness.skip(f"{tool} not found: install {package}")
    with tempfile.TemporaryDirectory() as directory:
        made = run(directory, "spin", "-a", *macros, MODEL)
        assert made.returncode == 0, made.stdout
        made = run(directory, "gcc", optimise, "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}", "-o", "pan", "pan.c")
        assert made.returncode == 0, made.stdout
        report = run(directory, "./pan", "-m100000", "-w22").stdout
    errors = re.search(r"errors: (\d+)", report)
    assert errors, report
    # A search that was cut short has proven nothing, whatever it counted.
    for cut in ("Search not completed", "max search depth too small", "reached -DMEMLIM"):
        assert cut not in report or int(errors.group(1)) > 0, report
    return int(errors.group(1)), report


def expect_no_fault(*macros):
    errors, report = check(*macros)
    assert errors == 0, report
    states = re.search(r"(\d+) states, stored", report)
    assert states and int(states.group(1)) > 10000, report


def expect_found(bug, text, *macros):
    """That a seeded bug is found, and by the property that speaks of it."""
    errors, report = check(f"-D{bug}", *macros, optimise="-O0")
    assert errors > 0, f"{bug} was not found:\n{report}"
    violated = re.search(r"assertion violated (.*)", report)
    assert violated and text in violated.group(1).replace(" ", ""), report


# --- the model has no fault ------------------------------------------------------------------------


@harness.test(timeout=LIMIT_SECONDS)
def test_p05_p08_preemption_expiry_and_late_revocation():
    expect_no_fault(*sizes(3, 2, EXPIRIES=1, PATIENCE=1))


@harness.test(timeout=LIMIT_SECONDS)
def test_p04_p06_epochs_and_migration():
    expect_no_fault(*sizes(3, 2, EPOCHS=2, BUSY=1))


@harness.test(timeout=LIMIT_SECONDS)
def test_p05_p06_restart():
    expect_no_fault(*sizes(3, 2, RESTARTS=1))


@harness.test(timeout=LIMIT_SECONDS)
def test_p05_p06_the_next_occupant():
    expect_no_fault(*sizes(2, 2, RETURNS=1))


@harness.test(timeout=LIMIT_SECONDS)
def test_p05_p08_two_processes_with_a_channel_each():
    expect_no_fault("-DAPART", *sizes(3, 2, EXPIRIES=1))


@harness.test(full=True, timeout=3 * LIMIT_SECONDS)
def test_p04_p05_p06_p08_larger_sizes():
    expect_no_fault(*sizes(2, 2, EXPIRIES=1, PATIENCE=1, BUSY=1, EPOCHS=2))
    expect_no_fault(*sizes(3, 3, EXPIRIES=1, PATIENCE=1))
    expect_no_fault("-DAPART", *sizes(3, 2, EXPIRIES=1, PATIENCE=1))


# --- and would show one ----------------------------------------------------------------------------

ALIVE = sizes(3, 2, EXPIRIES=1, BUSY=1, EPOCHS=2)


@harness.test(timeout=LIMIT_SECONDS)
def test_p05_next_token_before_the_last_is_drained():
    expect_found("BUG_GRANT_BEFORE_DRAINED", "latest[", *ALIVE)


@harness.test(timeout=LIMIT_SECONDS)
def test_p05_token_looked_at_only_at_receipt():
    expect_found("BUG_TOKEN_AT_RECEIPT", "revoked[", *ALIVE)


@harness.test(timeout=LIMIT_SECONDS)
def test_p05_lease_passed_on_because_one_channel_is_gone():
    expect_found("BUG_TWO_CHANNELS", "latest[", *ALIVE)


@harness.test(timeout=LIMIT_SECONDS)
def test_p05_notified_before_revoked():
    expect_found("BUG_NOTIFY_FIRST", "told[", *ALIVE)


@harness.test(timeout=LIMIT_SECONDS)
def test_p05_tokens_begin_anew_with_a_restart():
    expect_found("BUG_TOKEN_RESET", "cmd_grant", *sizes(3, 1, RESTARTS=1))


@harness.test(timeout=LIMIT_SECONDS)
def test_p06_epoch_looked_at_only_at_receipt():
    expect_found("BUG_EPOCH_AT_RECEIPT", ".era==era", *ALIVE)


@harness.test(timeout=LIMIT_SECONDS)
def test_p06_epochs_begin_anew_with_a_restart():
    expect_found("BUG_EPOCH_RESET", "cmd_era", *sizes(4, 0, RESTARTS=1))


@harness.test(timeout=LIMIT_SECONDS)
def test_p06_memory_given_back_before_its_last_write():
    expect_found("BUG_GIVE_BACK_EARLY", "given_back", *ALIVE)


@harness.test(timeout=LIMIT_SECONDS)
def test_p04_migration_looked_at_only_at_receipt():
    expect_found("BUG_BUSY_AT_RECEIPT", "busy", *ALIVE)


@harness.test(timeout=LIMIT_SECONDS)
def test_p08_charge_of_an_expired_lease_kept():
    expect_found("BUG_CHARGE_KEPT", "charged", *ALIVE)


@harness.test(timeout=LIMIT_SECONDS)
def test_waiter_that_nobody_wakes():
    expect_found("BUG_WAITER_FORGOTTEN", "finished", *ALIVE)


harness.main()
