# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/kvm: a bus embedded in a virtual machine monitor on /dev/kvm, linked as an embedder links it.

test_programs += tests/kvm/test_embedding
tests_kvm_test_embedding_SOURCES = \
	tests/kvm/test_embedding.c \
	tests/kvm/tiny_vmm.c tests/kvm/tiny_vmm.h tests/kvm/tiny_vmm_sensor.c
tests_kvm_test_embedding_LDADD = libharness.la libvmibus-core.la libvmibus.la

test_programs += tests/kvm/test_torn
tests_kvm_test_torn_SOURCES = \
	tests/kvm/test_torn.c \
	tests/kvm/tiny_vmm.c tests/kvm/tiny_vmm.h tests/kvm/tiny_vmm_sensor.c \
	tests/torn/hunt.c tests/torn/hunt.h
tests_kvm_test_torn_LDADD = libharness.la libvmibus-core.la libvmibus.la
