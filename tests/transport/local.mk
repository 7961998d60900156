# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/transport: frames from octets and octets from frames, without a daemon.

test_programs += \
	tests/transport/test_frame_check \
	tests/transport/test_handover \
	tests/transport/test_link \
	tests/transport/test_receiver \
	tests/transport/test_sender \
	tests/transport/test_turns

tests_transport_test_frame_check_SOURCES = tests/transport/test_frame_check.c
tests_transport_test_frame_check_LDADD = libharness.la libvmibus_transport.la libvmibus_protocol.la
tests_transport_test_handover_SOURCES = tests/transport/test_handover.c
tests_transport_test_handover_LDADD = \
	libharness.la libvmibus_transport.la libvmibus_memory.la libvmibus_bus.la libvmibus_policy.la libvmibus_guest_internal.la \
	libvmibus_util.la libvmibus_protocol.la
tests_transport_test_link_SOURCES = tests/transport/test_link.c
tests_transport_test_link_LDADD = \
	libharness.la libvmibus_transport.la libvmibus_memory.la libvmibus_bus.la libvmibus_policy.la libvmibus_guest_internal.la \
	libvmibus_util.la libvmibus_protocol.la
tests_transport_test_receiver_SOURCES = tests/transport/test_receiver.c
tests_transport_test_receiver_LDADD = libharness.la libvmibus_transport.la libvmibus_util.la libvmibus_protocol.la
tests_transport_test_sender_SOURCES = tests/transport/test_sender.c
tests_transport_test_sender_LDADD = \
	libharness.la libvmibus_transport.la libvmibus_bus.la libvmibus_util.la libvmibus_protocol.la

tests_transport_test_turns_SOURCES = tests/transport/test_turns.c
tests_transport_test_turns_LDADD = libharness.la libvmibus_transport.la libvmibus_util.la
