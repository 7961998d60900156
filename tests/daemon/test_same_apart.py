#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tests of one daemon, once more with bus, memory authority and sensors in a process each."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import apart
import harness


@harness.test
def test_leases_apart():
    apart.run_again("daemon", "test_leases")


@harness.test
def test_queries_apart():
    apart.run_again("daemon", "test_queries")


@harness.test
def test_limits_apart():
    apart.run_again("daemon", "test_limits")


@harness.test
def test_commands_apart():
    apart.run_again("daemon", "test_commands")


@harness.test(timeout=300)
def test_p04_p05_p07_random_sequences_apart():
    apart.run_again("differential", "test_differential")


@harness.test(timeout=600, full=True)
def test_exhaustion_apart():
    apart.run_again("daemon", "test_exhaustion")


@harness.test(timeout=600, full=True)
def test_memory_apart():
    apart.run_again("daemon", "test_memory")


@harness.test(timeout=600, full=True)
def test_policy_apart():
    apart.run_again("daemon", "test_policy")


@harness.test(timeout=600, full=True)
def test_exploit_apart():
    apart.run_again("daemon", "test_exploit")


@harness.test(timeout=600, full=True)
def test_vmibusctl_apart():
    apart.run_again("vmibusctl", "test_vmibusctl.py")


@harness.test(timeout=600, full=True)
def test_show_apart():
    apart.run_again("vmibusctl", "test_show.py")


@harness.test(timeout=600, full=True)
def test_explain_apart():
    apart.run_again("vmibusctl", "test_explain.py")


harness.main()
