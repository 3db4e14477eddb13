/* SPDX-License-Identifier: GPL-2.0 */
/* Which hypervisor or emulator this runs under, as far as the CPU tells. */
#ifndef COWPTE_HYPERVISOR_H
#define COWPTE_HYPERVISOR_H

#include <string.h>

#define HYPERVISOR_NAME		16	/* bytes */

#ifdef __x86_64__
#include <cpuid.h>

/* "TCGTCGTCGTCG" is QEMU's emulation; empty on bare hardware. */
static inline void hypervisor_name(char name[HYPERVISOR_NAME])
{
	unsigned int a, b, c, d;

	memset(name, 0, HYPERVISOR_NAME);
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1U << 31))
		return;
	__cpuid(0x40000000, a, b, c, d);
	memcpy(name, &b, 4);
	memcpy(name + 4, &c, 4);
	memcpy(name + 8, &d, 4);
}
#else
static inline void hypervisor_name(char name[HYPERVISOR_NAME])
{
	memset(name, 0, HYPERVISOR_NAME);
}
#endif

#endif /* COWPTE_HYPERVISOR_H */
