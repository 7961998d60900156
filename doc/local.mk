# SPDX-License-Identifier: LGPL-2.1-or-later
#
# doc: the reference of the public API. It takes doxygen, and nothing else needs it.

EXTRA_DIST += doc/Doxyfile.in doc/libraries.md

.PHONY: api-reference
api-reference: doc/api/html/index.html

doc/api/html/index.html: doc/Doxyfile doc/libraries.md $(pkginclude_HEADERS) $(nodist_pkginclude_HEADERS)
	$(AM_V_GEN)$(MKDIR_P) doc/api && doxygen doc/Doxyfile

clean_local += clean-api-reference
.PHONY: clean-api-reference
clean-api-reference:
	rm -rf doc/api

test_scripts += tests/test_api_reference.py
