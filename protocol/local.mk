# SPDX-License-Identifier: LGPL-2.1-or-later
#
# protocol: what follows from the one definition of the wire.
#
# Nothing generated is kept in the source tree but the test vectors; after a change of the wire that is
# meant, `make update-vectors` writes them anew.

protocol_generator = \
	protocol/generate \
	protocol/generator/__init__.py \
	protocol/generator/c_header.py \
	protocol/generator/c_names.py \
	protocol/generator/c_vectors.py \
	protocol/generator/definition.py \
	protocol/generator/manual.py \
	protocol/generator/output.py \
	protocol/generator/vectors.py
protocol_sources = $(protocol_generator) protocol/vmibus.toml
protocol_generate = $(AM_V_GEN)$(MKDIR_P) $(@D) && $(PYTHON) $(srcdir)/protocol/generate

protocol_headers = include/vmibus/protocol.h include/vmibus/names.h
protocol_products = \
	$(protocol_headers) \
	protocol/names.c \
	protocol/vmibus-errors.7 \
	protocol/vmibus-protocol.7

EXTRA_DIST += $(protocol_sources) protocol/vmibus-errors.7.in protocol/vmibus-protocol.7.in protocol/vectors.txt
BUILT_SOURCES += $(protocol_headers) protocol/names.c
CLEANFILES += $(protocol_products)
nodist_pkginclude_HEADERS += $(protocol_headers)
nodist_man_MANS += protocol/vmibus-errors.7 protocol/vmibus-protocol.7

include/vmibus/protocol.h: $(protocol_sources)
	$(protocol_generate) header -o $@

include/vmibus/names.h: $(protocol_sources)
	$(protocol_generate) names-header -o $@

protocol/names.c: $(protocol_sources)
	$(protocol_generate) names -o $@

protocol/vmibus-protocol.7: $(protocol_sources) protocol/vmibus-protocol.7.in
	$(protocol_generate) man -o $@

protocol/vmibus-errors.7: $(protocol_sources) protocol/vmibus-errors.7.in
	$(protocol_generate) errors-man -o $@

noinst_LTLIBRARIES += libvmibus_protocol.la
libvmibus_protocol_la_SOURCES =
nodist_libvmibus_protocol_la_SOURCES = protocol/names.c
$(libvmibus_protocol_la_OBJECTS): $(protocol_headers)

.PHONY: update-vectors
update-vectors:
	$(PYTHON) $(srcdir)/protocol/generate vectors -o $(srcdir)/protocol/vectors.txt

# --- tests ---------------------------------------------------------------------------------------

test_programs += tests/protocol/test_protocol
tests_protocol_test_protocol_SOURCES = \
	tests/protocol/test_protocol.c \
	tests/protocol/vector_file.c \
	tests/protocol/vector_file.h
nodist_tests_protocol_test_protocol_SOURCES = tests/protocol/vector_fills.h
tests_protocol_test_protocol_CPPFLAGS = \
	$(AM_CPPFLAGS) -I$(top_srcdir)/tests -I$(top_builddir)/tests/protocol
tests_protocol_test_protocol_LDADD = libharness.la libvmibus_protocol.la
tests/protocol/test_protocol-test_protocol.$(OBJEXT): tests/protocol/vector_fills.h $(protocol_headers)

test_scripts += tests/protocol/test_decoder.py tests/protocol/test_generate.py
EXTRA_DIST += tests/protocol/decoder.py tests/protocol/vector_file.py

BUILT_SOURCES += tests/protocol/vector_fills.h
CLEANFILES += tests/protocol/vector_fills.h

tests/protocol/vector_fills.h: $(protocol_sources)
	$(protocol_generate) vectors-source -o $@
