/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared page tables: what the tables that fork() shares and those of files
 * have in common.  See mm/cow_pte.c and mm/cow_pte_file.c.
 */
#ifndef _MM_COW_PTE_H
#define _MM_COW_PTE_H

#include <linux/cow_pte.h>

/*
 * What a table knows of its share, in ptdesc->pt_cow_word from below: flags, of
 * which bit 0 must stay clear; whose accessed bits are in it, see
 * cow_pte_mixed(); its base, see cow_pte_base().
 */
#define COW_PTE_COUNTED		BIT(1)	/* the base is there */
#define COW_PTE_UNFLUSHED	BIT(2)	/* reclaim may have to flush */
#define COW_PTE_FAR		BIT(3)	/* few sharers, but not near each other */
#define COW_PTE_LENDS		BIT(4)	/* pt_cow_loan is the first that borrows */
#define COW_PTE_BORROWS		BIT(5)	/* pt_cow_loan is the lender */
#define COW_PTE_WALKED		BIT(6)	/* lends no more: a walk may be under way */
#define COW_PTE_FILE		BIT(7)	/* of a file, in pt_cow_pool */
#define COW_PTE_POISONED	BIT(8)	/* with it: there are entries for failed memory */
#define COW_PTE_MIXED_SHIFT	8
#define COW_PTE_MIXED		(0xffUL << COW_PTE_MIXED_SHIFT)
#define COW_PTE_BASE_SHIFT(i)	(16 + 12 * (i))

/* Who shares; see cow_pte_wanted() */
enum cow_pte_mode {
	COW_PTE_NEVER,
	COW_PTE_PRCTL,
	COW_PTE_ALWAYS,
};

/* More sharers than this are not flushed one by one, nor looked for. */
#define COW_PTE_FLUSH_MAX	min(nr_cpu_ids, 16U)

/* How to flush a sharer: at once if @batch is not set, see cow_pte_flush_mm() */
struct cow_pte_range {
	unsigned long start, end;
	bool batch;
	pte_t pteval;
	enum ttu_flags flags;
};

static inline unsigned long cow_pte_slot(unsigned long addr)
{
	return addr & PMD_MASK;
}

/*
 * Entry of the PTE table at @addr, or NULL if there is no PMD table.  Stable
 * for who keeps the upper levels in place, see cow_pte_is_sharer() for others.
 */
static inline pmd_t *cow_pte_find_pmd(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgdp = pgd_offset(mm, addr), pgd = pgdp_get(pgdp);
	p4d_t *p4dp, p4d;
	pud_t *pudp, pud;

	if (pgd_none(pgd) || unlikely(pgd_bad(pgd)))
		return NULL;
	p4dp = p4d_offset_lockless(pgdp, pgd, addr);
	p4d = p4dp_get(p4dp);
	if (p4d_none(p4d) || unlikely(p4d_bad(p4d)))
		return NULL;
	pudp = pud_offset_lockless(p4dp, p4d, addr);
	pud = pudp_get(pudp);
	if (!pud_present(pud) || pud_leaf(pud) || unlikely(pud_bad(pud)))
		return NULL;
	return pmd_offset_lockless(pudp, pud, addr);
}

/* Is it the table of a file, that others may find and join? */
static inline bool ptdesc_cow_pte_file(struct ptdesc *ptdesc)
{
	return ptdesc_cow_pte(ptdesc) && ptdesc->pt_cow_word & COW_PTE_FILE;
}

/* One of the events of tables, for the system and for the mm it happened to. */
static __always_inline void cow_pte_count(struct mm_struct *mm,
					  enum vm_event_item event, long nr)
{
	count_vm_events(event, nr);
	atomic_long_add(nr, &mm->cow_pte.nr_events[event - COW_PTE_SHARE]);
}

bool cow_pte_is_ready(void);
bool cow_pte_wanted(struct mm_struct *mm);
void cow_pte_enable(void);
bool cow_pte_supported(void);
int cow_pte_parse_mode(const char *name);
ssize_t cow_pte_show_mode(char *buf, enum cow_pte_mode mode);
pmd_t *cow_pte_next_pmd(struct mm_struct *mm, unsigned long *addr,
			unsigned long end);
void cow_pte_flush(struct mm_struct *mm, unsigned long start,
		   unsigned long end);
void cow_pte_flush_mm(struct mm_struct *mm, const struct cow_pte_range *range);
bool cow_pte_is_sharer(struct mm_struct *mm, struct ptdesc *ptdesc,
		       unsigned long addr);
void cow_pte_leave(struct ptdesc *ptdesc);
void cow_pte_take_delta(struct mm_struct *mm, struct ptdesc *ptdesc,
			unsigned long slot);
void cow_pte_unload(struct mm_struct *mm);

#ifdef CONFIG_COW_PTE_FILE
extern struct kobj_attribute cow_pte_file_attr;

bool cow_pte_file_flush_few(struct mm_struct *mm, struct ptdesc *ptdesc,
			    const struct cow_pte_range *range);
void cow_pte_file_leave_slot(struct mm_struct *mm, pmd_t *pmd,
			     unsigned long addr);
void cow_pte_file_leave_range(struct mm_struct *mm, unsigned long start,
			      unsigned long end);
#else
static inline bool cow_pte_file_flush_few(struct mm_struct *mm,
					  struct ptdesc *ptdesc,
					  const struct cow_pte_range *range)
{
	return false;
}

static inline void cow_pte_file_leave_slot(struct mm_struct *mm, pmd_t *pmd,
					   unsigned long addr)
{
}

static inline void cow_pte_file_leave_range(struct mm_struct *mm,
					    unsigned long start,
					    unsigned long end)
{
}
#endif

#endif /* _MM_COW_PTE_H */
