#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Makes ./configure from configure.ac.  Needed in a checkout, not in a release tarball.
set -eu

cd "$(dirname "$0")"

for tool in autoreconf automake libtoolize pkg-config; do
    if ! command -v "$tool" >/dev/null; then
        echo "autogen.sh: $tool not found: install autoconf automake libtool pkg-config" >&2
        exit 1
    fi
done

mkdir -p build-aux
exec autoreconf --force --install
