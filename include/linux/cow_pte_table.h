/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Copy-on-write page tables: what the code needs that frees page tables.  All
 * else is in <linux/cow_pte.h>.
 */
#ifndef _LINUX_COW_PTE_TABLE_H
#define _LINUX_COW_PTE_TABLE_H

#include <linux/bitops.h>
#include <linux/jump_label.h>
#include <linux/mm_types.h>
#include <linux/page-flags.h>

#ifdef CONFIG_COW_PTE

DECLARE_STATIC_KEY_FALSE(cow_pte_key);

void __cow_pte_free(struct ptdesc *ptdesc);

static __always_inline bool cow_pte_enabled(void)
{
	return static_branch_unlikely(&cow_pte_key);
}

/* Is it, or was it once, shared?  Then it is freed by RCU. */
static inline bool ptdesc_cow_pte(struct ptdesc *ptdesc)
{
	return test_bit(PT_cow, &ptdesc->__page_flags);
}

/**
 * cow_pte_free - free a table if it has ever been shared
 * @ptdesc: page table of any level, which no CPU walks any more
 *
 * Any context.
 *
 * Return: true if the table is taken care of.
 */
static inline bool cow_pte_free(struct ptdesc *ptdesc)
{
	if (!cow_pte_enabled() || !ptdesc_cow_pte(ptdesc))
		return false;
	__cow_pte_free(ptdesc);
	return true;
}

#else /* !CONFIG_COW_PTE */

/* Folded early, so that the compiler makes of the callers what it always did. */

static __always_inline bool cow_pte_enabled(void)
{
	return false;
}

static __always_inline bool cow_pte_free(struct ptdesc *ptdesc)
{
	return false;
}

#endif /* CONFIG_COW_PTE */

#endif /* _LINUX_COW_PTE_TABLE_H */
