#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests tools/analyze: that a finding gets the function which its explanation stands for, and that none goes unnoticed."""

import importlib.machinery
import importlib.util
import os
import tempfile

import harness

LOADER = importlib.machinery.SourceFileLoader("analyze", os.path.join(harness.top_srcdir(), "tools", "analyze"))
analyze = importlib.util.module_from_spec(importlib.util.spec_from_loader("analyze", LOADER))
LOADER.exec_module(analyze)

HEADER = """\
static inline int first(const struct list *list) {
    return list->next->number;
}
"""
SOURCE = """\
static const int numbers[] = {1, 2};

static int one(struct list *list) {
    return first(list);
}

/* Between two. */
__attribute__((format(printf, 1, 2)))
static void two(const char *format,
                ...) {
    one(NULL);
}
"""

# What gcc says of them: the line of the warning, then the way to it.
OF_GCC = [
    "make: Entering directory",
    "../src/list.h:2:12: warning: dereference of NULL 'list' [CWE-476] [-Wanalyzer-null-dereference]",
    "../src/a.c:9:13: note: (1) entry to 'two'",
    "../src/a.c:4:12: note: (2) calling 'first' from 'one'",
    "../src/list.h:2:12: note: (3) dereference of NULL 'list'",
    "../src/a.c:11:5: warning: leak of 'x' [CWE-401] [-Wanalyzer-malloc-leak]",
    "../src/a.c:9:13: note: (1) entry to 'two'",
    "../src/a.c:11:5: warning: unused variable 'y' [-Wunused-variable]",
    "/usr/include/stdio.h:11:5: warning: leak of 'FILE' [CWE-775] [-Wanalyzer-file-leak]",
]
OWNERS_OF_GCC = [("src/a.c", "one", "analyzer-null-dereference"), ("src/a.c", "two", "analyzer-malloc-leak")]


def tree(test):
    """Calls a test with a tree of a header and a source."""
    with tempfile.TemporaryDirectory() as top:
        analyze.TOP = top
        os.mkdir(os.path.join(top, "src"))
        for name, text in (("list.h", HEADER), ("a.c", SOURCE)):
            with open(os.path.join(top, "src", name), "w", encoding="utf-8") as file:
                file.write(text)
        test(top)


@harness.test
def test_functions_are_found():
    lines = SOURCE.splitlines()
    names = [analyze.function_at(lines, number) for number in range(1, len(lines) + 1)]
    assert names == ["-", "-", "one", "one", "one", "-", "-", "-", "two", "two", "two", "two"], names


@harness.test
def test_a_finding_in_a_header_belongs_to_who_called_it():
    def look(top):
        findings = analyze.findings_of_gcc(OF_GCC, os.path.join(top, "build"))
        assert [analyze.owner_of(finding) for finding in findings[:2]] == OWNERS_OF_GCC, findings
    tree(look)


@harness.test
def test_what_is_known_is_not_told():
    def look(top):
        findings = analyze.findings_of_gcc(OF_GCC, os.path.join(top, "build"))
        told, met = analyze.judge(findings, set())
        assert len(told) == 2 and met == 0, told
        assert told[0].startswith("src/list.h:2: dereference of NULL"), told
        told, met = analyze.judge(findings, {OWNERS_OF_GCC[0]})
        assert len(told) == 1 and met == 1 and "leak of 'x'" in told[0], told
        assert analyze.judge(findings, set(OWNERS_OF_GCC)) == ([], 2)
    tree(look)


@harness.test
def test_what_is_known_is_known_of_one_function():
    def look(top):
        findings = analyze.findings_of_gcc(OF_GCC, os.path.join(top, "build"))
        told, met = analyze.judge(findings, {OWNERS_OF_GCC[1], ("src/a.c", "three", "analyzer-null-dereference")})
        assert met == 1 and len(told) == 2, told
        assert "(src/a.c one analyzer-null-dereference)" in told[0], told
        assert told[1].startswith("no longer found") and "three" in told[1], told
    tree(look)


@harness.test
def test_cppcheck_is_understood():
    def look(_):
        findings = analyze.findings_of_cppcheck(["src/a.c:4: nullPointer: Null pointer dereference", "Checking src/a.c ..."])
        assert [analyze.owner_of(finding) for finding in findings] == [("src/a.c", "one", "nullPointer")], findings
    tree(look)


@harness.test
def test_reports_of_clang_are_understood():
    def location(top, name, line):
        return {"physicalLocation": {"artifactLocation": {"uri": f"file://{top}/src/{name}"}, "region": {"startLine": line}}}

    def look(top):
        way = [("a.c", 11), ("a.c", 4), ("list.h", 2)]
        steps = [{"location": location(top, *step)} for step in way]
        report = {"runs": [{"results": [{
            "ruleId": "core.NullDereference", "message": {"text": "null"}, "locations": [location(top, "list.h", 2)],
            "codeFlows": [{"threadFlows": [{"locations": steps}]}]}]}]}
        findings = analyze.findings_of_clang(report)
        assert [analyze.owner_of(finding) for finding in findings] == [("src/a.c", "one", "core.NullDereference")], findings
    tree(look)


@harness.test
def test_known_lines_are_read():
    lines = ["# comment\n", "\n", "gcc src/a.c one analyzer-x  why it is none\n", "clang src/a.c one core.Y why\n"]
    assert analyze.read_known("gcc", lines) == {("src/a.c", "one", "analyzer-x")}
    try:
        analyze.read_known("gcc", ["gcc src/a.c one analyzer-x\n"])
    except SystemExit as error:
        assert "REASON" in str(error)
    else:
        raise AssertionError("a line without a reason was taken")


harness.main()
