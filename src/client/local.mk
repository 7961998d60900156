# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/client: a control's connection, and libvmibus made of it and the protocol's name tables.

pkginclude_HEADERS += include/vmibus/audit.h include/vmibus/client.h
pkgconfig_DATA += src/client/libvmibus.pc

noinst_LTLIBRARIES += libvmibus_client_internal.la
libvmibus_client_internal_la_SOURCES = \
	src/client/attachment.c src/client/attachment.h \
	src/client/buffer.c src/client/buffer.h \
	src/client/commands.c src/client/memwrite.c \
	src/client/connect.c \
	src/client/connection.c src/client/connection.h \
	src/client/hello.c src/client/hello.h \
	src/client/mediated.c \
	src/client/socket_link.c src/client/socket_link.h

# The installed library: what the internal one has, less what src/client/libvmibus.map does not list.
lib_LTLIBRARIES += libvmibus.la
libvmibus_la_SOURCES =
libvmibus_la_LIBADD = libvmibus_client_internal.la libvmibus_util.la libvmibus_protocol.la
libvmibus_la_LDFLAGS = $(AM_LDFLAGS) -version-info 0:0:0 \
	-Wl,--version-script=$(top_srcdir)/src/client/libvmibus.map
EXTRA_libvmibus_la_DEPENDENCIES = src/client/libvmibus.map
EXTRA_DIST += src/client/libvmibus.map

# --- tests ---------------------------------------------------------------------------------------

client_test_sources = \
	tests/client/fake_server.c tests/client/fake_server.h \
	tests/client/recorder.c tests/client/recorder.h
client_test_libraries = libharness.la libvmibus_client_internal.la libvmibus_util.la libvmibus_protocol.la

test_programs += tests/client/test_buffers
tests_client_test_buffers_SOURCES = tests/client/test_buffers.c $(client_test_sources)
tests_client_test_buffers_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_client_test_buffers_LDADD = $(client_test_libraries)

test_programs += tests/client/test_memwrite
tests_client_test_memwrite_SOURCES = tests/client/test_memwrite.c $(client_test_sources)
tests_client_test_memwrite_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_client_test_memwrite_LDADD = $(client_test_libraries)

test_programs += tests/client/test_connection
tests_client_test_connection_SOURCES = tests/client/test_connection.c $(client_test_sources)
tests_client_test_connection_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_client_test_connection_LDADD = $(client_test_libraries)

test_programs += tests/client/test_socket_link
tests_client_test_socket_link_SOURCES = tests/client/test_socket_link.c $(client_test_sources)
tests_client_test_socket_link_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_client_test_socket_link_LDADD = $(client_test_libraries)
# The test counts what the library asks of the kernel.
tests_client_test_socket_link_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=send,--wrap=sendmsg,--wrap=recvmsg,--wrap=poll

test_programs += tests/client/test_channels
tests_client_test_channels_SOURCES = tests/client/test_channels.c $(client_test_sources)
tests_client_test_channels_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_client_test_channels_LDADD = $(client_test_libraries)

test_programs += tests/client/test_attachment
tests_client_test_attachment_SOURCES = tests/client/test_attachment.c $(client_test_sources)
tests_client_test_attachment_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
tests_client_test_attachment_LDADD = $(client_test_libraries)
