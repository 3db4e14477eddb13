// SPDX-License-Identifier: GPL-2.0
/*
 * Copy-on-write page tables
 *
 * fork() attaches the parent's PTE tables to the child instead of copying
 * them: both PMD entries lose their write permission and the table counts its
 * sharers.  Who changes a shared table first makes it private: by a copy
 * (break), or by taking the write permission back when nobody else is left
 * (reuse).  Who gives up the whole range just leaves (drop).  A copy borrows
 * the pages that it maps from the table that it was made of.
 *
 * This file follows the life of a table: counters and sharers, then share,
 * loans, break, reuse, fault, drop, free; then what rmap does to a shared table
 * on behalf of all sharers, what observers are told, and the user interface.
 * Documentation/mm/cow_pte.rst has the invariants.
 *
 * Locks: pmd_lock(mm) -> PTE lock of the table -> PTE lock of one that borrows
 * from it -> family->lock -> mmlist_lock, and mm->cow_pte.lock innermost.  Every
 * change of a PMD entry that points to a shared table, and of the number of
 * sharers, happens under the table's PTE lock; so with that lock held the set of
 * sharers stands still.
 */
#define pr_fmt(fmt) "cow_pte: " fmt

#include <linux/mm.h>
#include <linux/hugetlb.h>
#include <linux/kobject.h>
#include <linux/ksm.h>
#include <linux/mmu_notifier.h>
#include <linux/pgalloc.h>
#include <linux/prefetch.h>
#include <linux/ptrace.h>
#include <linux/rmap.h>
#include <linux/sched/task_stack.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/userfaultfd_k.h>
#include <linux/vmstat.h>
#include <asm/tlb.h>
#include <asm/tlbflush.h>

#define CREATE_TRACE_POINTS
#include <trace/events/cow_pte.h>

#include "cow_pte.h"
#include "internal.h"

DEFINE_STATIC_KEY_FALSE(cow_pte_key);

static enum cow_pte_mode cow_pte_mode __read_mostly = COW_PTE_PRCTL;

/* All hooks are in place, and who has missed one is through. */
static bool cow_pte_ready __read_mostly;

/*
 * Sharing a table that is written right after costs a break, which is dearer
 * than the copy it replaced.  A small process writes most of its tables: stack,
 * data, libc.  See "Small processes" in Documentation/mm/cow_pte.rst.
 */
static unsigned int cow_pte_min_tables __read_mostly = 24;

/*
 * All mms that may share tables with each other: those that descend from one
 * mm by fork() without exec.  A table sits at the same address in each of
 * them, so the sharers of a table are found by looking at one PMD entry per
 * member; nothing has to be kept per table.
 */
struct cow_pte_family {
	spinlock_t lock;		/* protects @mms */
	struct list_head mms;		/* a child stands next to its parent */
	refcount_t refs;		/* one per member */
	bool changed;			/* a table has a delta, or had one */
	struct list_head swap;		/* in cow_pte_swap, under mmlist_lock */
};

/* The families whose shared tables may hold swap entries */
static LIST_HEAD(cow_pte_swap);

/* 0 if one mm has set all accessed bits, else 1 + the first mm's generation */
static unsigned int cow_pte_mixed(struct ptdesc *ptdesc)
{
	return (ptdesc->pt_cow_word & COW_PTE_MIXED) >> COW_PTE_MIXED_SHIFT;
}

bool cow_pte_is_ready(void)
{
	/* Pairs with cow_pte_enable(): who sees it ready has all hooks. */
	return smp_load_acquire(&cow_pte_ready);
}

bool cow_pte_wanted(struct mm_struct *mm)
{
	enum cow_pte_mode mode = READ_ONCE(cow_pte_mode);

	return cow_pte_is_ready() &&
	       (mode == COW_PTE_ALWAYS ||
		(mode == COW_PTE_PRCTL && test_bit(MMF_COW_PTE, &mm->flags)));
}

void cow_pte_flush(struct mm_struct *mm, unsigned long start,
		   unsigned long end)
{
	struct vm_area_struct vma = TLB_FLUSH_VMA(mm, 0);

	/* Others may have to be waited for. */
	lockdep_assert_irqs_enabled();
	flush_tlb_range(&vma, start, end);
}

/* The table that an entry is in: tables are aligned to their size. */
static pte_t *cow_pte_table(pte_t *ptep)
{
	return (pte_t *)((unsigned long)ptep & ~(COW_PTE_TABLE_SIZE - 1));
}

/*
 * As cow_pte_find_pmd(), for the first address from *@addr on that has a PMD table,
 * below @end; *@addr moves there.  What is not mapped is stepped over at the level
 * where it is missing.
 */
pmd_t *cow_pte_next_pmd(struct mm_struct *mm, unsigned long *addr,
			unsigned long end)
{
	pmd_t *pmd;

	while (*addr < end) {
		pgd_t *pgdp = pgd_offset(mm, *addr), pgd = pgdp_get(pgdp);
		p4d_t p4d;

		pmd = cow_pte_find_pmd(mm, *addr);
		if (pmd)
			return pmd;
		if (pgd_none(pgd)) {
			*addr = pgd_addr_end(*addr, end);
			continue;
		}
		p4d = p4dp_get(p4d_offset_lockless(pgdp, pgd, *addr));
		/* Where that level is folded, it ends nowhere. */
		*addr = p4d_none(p4d) ? min(p4d_addr_end(*addr, end),
					    pgd_addr_end(*addr, end)) :
					pud_addr_end(*addr, end);
	}
	return NULL;
}

/*
 * Counters
 *
 * What a private table holds is in the counters of its mm.  While it is
 * protected, they stand still: they keep what was in the table when it was
 * first shared (its base), in each sharer the same, and the table counts what
 * changes in place (its delta).  An mm has what its counters say, and the
 * deltas of the tables that it shares.  So no change visits a sharer.
 */

/*
 * The pages that a PTE table's entries count as references and mapcounts.
 * Ordinary private VMAs hold no others, so no VMA is needed to tell.
 */
static __always_inline struct page *cow_pte_page(pte_t pte)
{
	unsigned long pfn = pte_pfn(pte);

	if (pte_special(pte) || is_zero_pfn(pfn))
		return NULL;
	return pfn_to_page(pfn);
}

/* What entries amount to in an mm's counters. */
static void cow_pte_census(pte_t *pte, int nr, int *rss)
{
	struct page *page;
	swp_entry_t entry;

	for (; nr; nr--, pte++) {
		pte_t ptent = ptep_get(pte);

		if (pte_none(ptent))
			continue;
		if (pte_present(ptent)) {
			page = cow_pte_page(ptent);
			if (page)
				rss[mm_counter(page_folio(page))]++;
			continue;
		}
		entry = pte_to_swp_entry(ptent);
		if (!non_swap_entry(entry))
			rss[MM_SWAPENTS]++;
		else if (is_migration_entry(entry) ||
			 is_device_private_entry(entry) ||
			 is_device_exclusive_entry(entry))
			rss[mm_counter(pfn_swap_entry_folio(entry))]++;
	}
}

/*
 * Counted when somebody asks, then kept for as long as the table is shared:
 * many children may leave it, or be given it.  Under the table's lock.
 */
static void cow_pte_base(struct ptdesc *ptdesc, pte_t *table, int *rss)
{
	int i;

	BUILD_BUG_ON(NR_MM_COUNTERS > 4);
	if (!(ptdesc->pt_cow_word & COW_PTE_COUNTED)) {
		int now[NR_MM_COUNTERS] = {};

		cow_pte_census(table, PTRS_PER_PTE, now);
		ptdesc->pt_cow_word |= COW_PTE_COUNTED;
		for (i = 0; i < NR_MM_COUNTERS; i++)
			ptdesc->pt_cow_word |=
				(unsigned long)(now[i] - ptdesc->pt_cow_delta[i]) <<
				COW_PTE_BASE_SHIFT(i);
	}
	for (i = 0; i < NR_MM_COUNTERS; i++)
		rss[i] = (ptdesc->pt_cow_word >> COW_PTE_BASE_SHIFT(i)) & 0xfff;
}

/* Tell cow_pte_inherit_all(), after the change; under mm->cow_pte.lock. */
static void cow_pte_changed(struct mm_struct *mm)
{
	/* Pairs with cow_pte_inherit_all(): who sees it sees the change. */
	smp_store_release(&mm->cow_pte.nr_changes, mm->cow_pte.nr_changes + 1);
}

/*
 * A change to a private table of @mm.  If a fork() that counts by the parent's
 * counters is under way and has not got to @addr yet, the child will get what
 * it finds there.
 */
static void cow_pte_add_private(struct mm_struct *mm, unsigned long addr,
				const int *rss)
{
	struct cow_pte_fork *fork;
	int i;

	if (!READ_ONCE(mm->cow_pte.armed)) {
		for (i = 0; i < NR_MM_COUNTERS; i++)
			if (rss[i])
				add_mm_counter(mm, i, rss[i]);
		return;
	}
	spin_lock(&mm->cow_pte.lock);
	fork = mm->cow_pte.fork;
	if (fork && (fork->counted || addr < READ_ONCE(fork->pos)))
		fork = NULL;
	for (i = 0; i < NR_MM_COUNTERS; i++) {
		if (!rss[i])
			continue;
		add_mm_counter(mm, i, rss[i]);
		if (fork && (i == MM_ANONPAGES || i == MM_SWAPENTS))
			atomic_long_add(rss[i], &fork->inherit[i]);
	}
	cow_pte_changed(mm);
	spin_unlock(&mm->cow_pte.lock);
}

/* Who copies a table or takes it back takes over what was changed in place. */
void cow_pte_take_delta(struct mm_struct *mm, struct ptdesc *ptdesc,
			unsigned long slot)
{
	int rss[NR_MM_COUNTERS], i;
	bool changed = false;

	for (i = 0; i < NR_MM_COUNTERS; i++) {
		rss[i] = ptdesc->pt_cow_delta[i];
		changed |= rss[i];
	}
	/* To a fork() in its middle the table is still ahead, as a whole. */
	if (changed)
		cow_pte_add_private(mm, slot + PMD_SIZE - 1, rss);
}

static void cow_pte_add_delta(pmd_t *pmd, long *rss)
{
	pmd_t pmdval = pmdp_get_lockless(pmd);
	s16 delta[NR_MM_COUNTERS];
	int i;

	if (!pmd_table_protected(pmdval) && !pmd_table_published(pmdval))
		return;
	/* Pairs with pmdp_table_protect() and pmdp_table_publish() */
	smp_rmb();
	for (i = 0; i < NR_MM_COUNTERS; i++)
		delta[i] = READ_ONCE(pmd_table_ptdesc(pmdval)->pt_cow_delta[i]);
	/* The delta of a table that is being freed is something else by now. */
	smp_rmb();
	if (pmd_val(pmdval) != pmd_val(pmdp_get_lockless(pmd)))
		return;
	for (i = 0; i < NR_MM_COUNTERS; i++)
		rss[i] += delta[i];
}

void __cow_pte_mm_rss(struct mm_struct *mm, long *rss)
{
	struct cow_pte_family *family = READ_ONCE(mm->cow_pte.family);
	unsigned long addr = 0, stop;
	pmd_t *pmd;

	if (!(family && READ_ONCE(family->changed)) && !cow_pte_file_any(mm))
		return;
	while (addr < TASK_SIZE_MAX) {
		/* See cow_pte_is_sharer(); the tables are freed by RCU, too. */
		local_irq_disable();
		pmd = cow_pte_next_pmd(mm, &addr, TASK_SIZE_MAX);
		stop = pmd ? min(pud_addr_end(addr, TASK_SIZE_MAX),
				 addr + 64 * PMD_SIZE) : addr;
		for (; addr < stop; addr += PMD_SIZE, pmd++)
			cow_pte_add_delta(pmd, rss);
		local_irq_enable();
		cond_resched();
	}
}

/*
 * Sharers
 */

/*
 * Swap entries in private tables: swapoff finds the mm in its list.  Those in
 * shared tables are found through the family, see __cow_pte_unuse().
 */
static void cow_pte_add_mmlist(struct mm_struct *mm)
{
	if (likely(!list_empty(&mm->mmlist)))
		return;
	spin_lock(&mmlist_lock);
	if (list_empty(&mm->mmlist))
		list_add(&mm->mmlist, &init_mm.mmlist);
	spin_unlock(&mmlist_lock);
}

static void cow_pte_family_swap(struct cow_pte_family *family)
{
	if (likely(!list_empty(&family->swap)))
		return;
	spin_lock(&mmlist_lock);
	if (list_empty(&family->swap))
		list_add(&family->swap, &cow_pte_swap);
	spin_unlock(&mmlist_lock);
}

static struct cow_pte_family *cow_pte_family_get(struct mm_struct *mm)
{
	struct cow_pte_family *family = mm->cow_pte.family;

	if (family)
		return family;

	family = kmalloc(sizeof(*family), GFP_KERNEL);
	if (!family)
		return NULL;
	spin_lock_init(&family->lock);
	INIT_LIST_HEAD(&family->mms);
	refcount_set(&family->refs, 1);
	family->changed = false;
	INIT_LIST_HEAD(&family->swap);
	list_add(&mm->cow_pte.siblings, &family->mms);
	/* Published by the PTE lock of each table that gets shared. */
	WRITE_ONCE(mm->cow_pte.family, family);
	return family;
}

static void cow_pte_family_join(struct cow_pte_family *family,
				struct mm_struct *mm, struct mm_struct *oldmm)
{
	refcount_inc(&family->refs);
	spin_lock(&family->lock);
	list_add(&mm->cow_pte.siblings, &oldmm->cow_pte.siblings);
	spin_unlock(&family->lock);
	mm->cow_pte.family = family;
}

static void cow_pte_family_put(struct cow_pte_family *family)
{
	if (!refcount_dec_and_test(&family->refs))
		return;
	if (!list_empty(&family->swap)) {
		spin_lock(&mmlist_lock);
		list_del(&family->swap);
		spin_unlock(&mmlist_lock);
	}
	kfree(family);
}

/* To swapoff: all members of a family, a few under each hold of the lock. */
static void cow_pte_family_add_mmlist(struct cow_pte_family *family)
{
	unsigned int n = refcount_read(&family->refs), batch;
	struct mm_struct *mm;

	while (n) {
		spin_lock(&family->lock);
		for (batch = min(n, 64U); batch; batch--, n--) {
			mm = list_first_entry_or_null(&family->mms,
						      struct mm_struct,
						      cow_pte.siblings);
			if (mm)
				cow_pte_add_mmlist(mm);
			/*
			 * The order is a circle.  Who is missed, as others join
			 * meanwhile, is found when swapoff comes back.
			 */
			list_rotate_left(&family->mms);
		}
		spin_unlock(&family->lock);
		cond_resched();
	}
}

void __cow_pte_unuse(void)
{
	struct cow_pte_family *family, *prev = NULL;

	spin_lock(&mmlist_lock);
	list_for_each_entry(family, &cow_pte_swap, swap) {
		/* The last member is about to take it off the list. */
		if (!refcount_inc_not_zero(&family->refs))
			continue;
		spin_unlock(&mmlist_lock);
		if (prev)
			cow_pte_family_put(prev);
		prev = family;
		cow_pte_family_add_mmlist(family);
		spin_lock(&mmlist_lock);
	}
	spin_unlock(&mmlist_lock);
	if (prev)
		cow_pte_family_put(prev);
}

bool cow_pte_is_sharer(struct mm_struct *mm, struct ptdesc *ptdesc,
		       unsigned long addr)
{
	unsigned long flags;
	pmd_t *pmd, pmdval;
	bool ret = false;

	/*
	 * The upper levels may be freed under us, unless interrupts are off:
	 * an opted-in kernel frees them by RCU.  An entry that does point to
	 * our table stays, for we hold the table's lock.
	 */
	local_irq_save(flags);
	pmd = cow_pte_find_pmd(mm, addr);
	if (pmd) {
		pmdval = pmdp_get_lockless(pmd);
		ret = pmd_present(pmdval) && !pmd_leaf(pmdval) &&
		      pmd_table_ptdesc(pmdval) == ptdesc;
	}
	local_irq_restore(flags);
	return ret;
}

void cow_pte_flush_mm(struct mm_struct *mm, const struct cow_pte_range *range)
{
	if (range->batch)
		try_to_unmap_flush_mm(mm, range->pteval, range->start,
				      range->flags);
	else
		cow_pte_flush(mm, range->start, range->end);
}

/*
 * Flush the sharers other than @mm, the nearest relatives first: a table that
 * few have, few branches of the tree have.
 * Return: false if they are too many, or not all where they should be.
 */
static bool cow_pte_flush_few(struct mm_struct *mm, struct ptdesc *ptdesc,
			      const struct cow_pte_range *range)
{
	struct cow_pte_family *family = mm->cow_pte.family;
	unsigned int left = ptdesc->pt_cow_sharers - 1, reach, i;
	struct list_head *pos[2];
	struct mm_struct *sharer;

	if (ptdesc_cow_pte_file(ptdesc))
		return cow_pte_file_flush_few(mm, ptdesc, range);
	if (left > COW_PTE_FLUSH_MAX || (ptdesc->pt_cow_word & COW_PTE_FAR))
		return false;
	reach = 4 * COW_PTE_FLUSH_MAX;
	spin_lock(&family->lock);
	pos[0] = &mm->cow_pte.siblings;
	pos[1] = pos[0];
	for (i = 0; left && i < reach; i++) {
		struct list_head **p = &pos[i & 1];

		*p = i & 1 ? (*p)->prev : (*p)->next;
		/* Once around: the other way has seen the rest. */
		if (pos[0] == pos[1])
			break;
		if (*p == &family->mms)
			continue;
		sharer = list_entry(*p, struct mm_struct, cow_pte.siblings);
		if (cow_pte_is_sharer(sharer, ptdesc, range->start)) {
			cow_pte_flush_mm(sharer, range);
			left--;
		}
	}
	spin_unlock(&family->lock);
	/* Until their number changes: the next page would not find them, either. */
	if (left)
		ptdesc->pt_cow_word |= COW_PTE_FAR;
	return !left;
}

/*
 * Share: fork()
 */

void __cow_pte_mm_init(struct mm_struct *mm)
{
	spin_lock_init(&mm->cow_pte.lock);
	mm->cow_pte.family = NULL;
	mm->cow_pte.fork = NULL;
	mm->cow_pte.nr_dropped = 0;
	mm->cow_pte.nr_changes = 0;
	atomic_long_set(&mm->cow_pte.nr_arg_pages, 0);
	mm->cow_pte.armed = cow_pte_wanted(mm);
	mm->cow_pte.generation = 0;
	mm->cow_pte.unloaded = false;
	mm->cow_pte.untracked = !READ_ONCE(cow_pte_ready);
	atomic_long_set(&mm->cow_pte.nr_protected, 0);
	atomic_long_set(&mm->cow_pte.nr_borrowing, 0);
	atomic_long_set(&mm->cow_pte.nr_published, 0);
	memset(mm->cow_pte.nr_events, 0, sizeof(mm->cow_pte.nr_events));
	mm->cow_pte.last_shared = 0;
	mm->cow_pte.last_skip = NULL;
}

void __cow_pte_mm_exit(struct mm_struct *mm)
{
	struct cow_pte_family *family = mm->cow_pte.family;

	spin_lock(&family->lock);
	list_del(&mm->cow_pte.siblings);
	spin_unlock(&family->lock);
	mm->cow_pte.family = NULL;
	atomic_long_sub(mm->cow_pte.nr_dropped * COW_PTE_TABLE_SIZE,
			&mm->pgtables_bytes);
	count_vm_events(COW_PTE_DROP, mm->cow_pte.nr_dropped);
	/* Nor did anybody look for KSM's zero pages in what was dropped. */
	ksm_forget_zero_pages(mm);
	cow_pte_family_put(family);
}

/*
 * From here on a page reference of GUP leaves a mark (PT_cow_tainted) on the
 * table that it went through.  Those taken before the feature was enabled did
 * not: to be safe, mark all tables that there are.  The mmap_lock is held for
 * writing, so that none of them is freed; no entry moves to another one under
 * the lock of a VMA.
 */
static void cow_pte_track(struct mm_struct *mm)
{
	struct vm_area_struct *vma;
	unsigned long addr = 0;
	spinlock_t *pml;	/* of the PMD page */
	pmd_t *pmd;

	VMA_ITERATOR(vmi, mm, 0);

	mmap_assert_write_locked(mm);
	if (!mm->cow_pte.untracked)
		return;
	for_each_vma(vmi, vma)
		vma_start_write(vma);
	for (; (pmd = cow_pte_next_pmd(mm, &addr, TASK_SIZE_MAX));
	     addr += PMD_SIZE) {
		if (pmd_none(*pmd))
			continue;
		pml = pmd_lock(mm, pmd);
		if (pmd_present(*pmd) && !pmd_leaf(*pmd))
			set_bit(PT_cow_tainted,
				&pmd_table_ptdesc(*pmd)->__page_flags);
		spin_unlock(pml);
		cond_resched();
	}
	mm->cow_pte.untracked = false;
}

/*
 * From here on who changes private tables of this mm looks whether it forks,
 * see cow_pte_add_private(): all do so in an RCU read-side section.
 */
static void cow_pte_arm(struct mm_struct *mm)
{
	if (READ_ONCE(mm->cow_pte.armed))
		return;
	WRITE_ONCE(mm->cow_pte.armed, true);
	synchronize_rcu_expedited();
}

/* Tables of a VMA whose pages the child does not get, at most @max. */
static unsigned long cow_pte_count_tables(struct vm_area_struct *vma,
					  unsigned long max)
{
	unsigned long addr = vma->vm_start, nr = 0;
	pmd_t *pmd;

	for (; nr < max && (pmd = cow_pte_next_pmd(vma->vm_mm, &addr,
						   vma->vm_end));
	     addr = pmd_addr_end(addr, vma->vm_end))
		nr += !pmd_none(*pmd);
	return nr;
}

/* Only where there are anonymous pages: nothing else is inherited wholesale. */
static bool cow_pte_vma_skipped(struct vm_area_struct *vma)
{
	return (vma->vm_flags & (VM_DONTCOPY | VM_WIPEONFORK)) &&
	       vma->anon_vma && !is_vm_hugetlb_page(vma);
}

static long cow_pte_sum(struct mm_struct *mm, int member)
{
	return percpu_counter_sum(&mm->rss_stat[member]);
}

/*
 * Anonymous pages and swap entries sit only in VMAs that fork copies, so the
 * child has as many as the parent, less what is taken out as fork gets there:
 * see cow_pte_take_out() and __cow_pte_copied().  And less the arguments of
 * programs that vfork()ed children are about to run.  The sum is of the moment
 * that it is published with: afterwards, changes are credited to both.
 */
static void cow_pte_inherit_all(struct cow_pte_fork *fork)
{
	struct mm_struct *oldmm = fork->oldmm;
	unsigned long changes;
	long anon, swap;
	int tries = 0;

	do {
		/* Reclaim is faster? */
		if (++tries > 3)
			spin_lock(&oldmm->cow_pte.lock);
		/* Pairs with cow_pte_changed(): the sums have what it counts. */
		changes = smp_load_acquire(&oldmm->cow_pte.nr_changes);
		anon = cow_pte_sum(oldmm, MM_ANONPAGES) -
		       atomic_long_read(&oldmm->cow_pte.nr_arg_pages);
		swap = list_empty(&oldmm->mmlist) &&
		       list_empty(&oldmm->cow_pte.family->swap) ?
			0 : cow_pte_sum(oldmm, MM_SWAPENTS);
		if (tries <= 3)
			spin_lock(&oldmm->cow_pte.lock);
		if (changes == oldmm->cow_pte.nr_changes) {
			atomic_long_set(&fork->inherit[MM_ANONPAGES], anon);
			atomic_long_set(&fork->inherit[MM_SWAPENTS], swap);
			fork->pos = 0;
		}
		spin_unlock(&oldmm->cow_pte.lock);
	} while (fork->pos);
}

/*
 * Why the fork of a process that asked for shared tables shares none, or NULL if it
 * may.
 */
static const char *cow_pte_fork_skips(struct mm_struct *oldmm,
				      unsigned long nr_tables)
{
	if (mm_has_notifiers(oldmm))
		return "notifier";
	if (!cow_pte_wanted(oldmm))
		return "never";
	if (READ_ONCE(cow_pte_mode) != COW_PTE_ALWAYS &&
	    !atomic_long_read(&oldmm->cow_pte.nr_protected) &&
	    nr_tables < READ_ONCE(cow_pte_min_tables))
		return "min_tables";
	if (!cow_pte_family_get(oldmm))
		return "memory";
	return NULL;
}

void __cow_pte_fork_begin(struct cow_pte_fork *fork, struct mm_struct *mm,
			  struct mm_struct *oldmm)
{
	unsigned long nr_tables = mm_pgtables_bytes(oldmm) / COW_PTE_TABLE_SIZE;
	unsigned long nr_skipped = 0;
	struct vm_area_struct *vma;
	int i;

	VMA_ITERATOR(vmi, oldmm, 0);

	if (!cow_pte_wanted(oldmm) && !test_bit(MMF_COW_PTE, &oldmm->flags))
		return;
	oldmm->cow_pte.last_shared = 0;
	oldmm->cow_pte.last_skip = cow_pte_fork_skips(oldmm, nr_tables);
	if (oldmm->cow_pte.last_skip) {
		cow_pte_count(oldmm, COW_PTE_SKIP, 1);
		trace_cow_pte_skip(oldmm, oldmm->cow_pte.last_skip);
		return;
	}

	cow_pte_family_join(oldmm->cow_pte.family, mm, oldmm);
	mm->cow_pte.generation = min(oldmm->cow_pte.generation + 1, 254);
	cow_pte_arm(oldmm);
	cow_pte_arm(mm);
	cow_pte_track(oldmm);

	/*
	 * A table is shared at the first VMA that it covers, so a fault in a
	 * later one must be over by then; and the counters must stand still.
	 */
	for_each_vma(vmi, vma) {
		vma_start_write(vma);
		if (unlikely(cow_pte_vma_skipped(vma)))
			nr_skipped += cow_pte_count_tables(vma, nr_tables);
	}

	fork->mm = mm;
	fork->oldmm = oldmm;
	fork->pos = ULONG_MAX;
	fork->pinned = ULONG_MAX;
	fork->nr_shared = 0;
	fork->nr_protected = 0;
	fork->nr_huge = 0;
	for (i = 0; i < NR_MM_COUNTERS; i++)
		atomic_long_set(&fork->inherit[i], 0);
	/*
	 * Much is left out: counting what the child gets is cheaper then, the
	 * more so as the tables remember it.
	 */
	fork->counted = nr_skipped * 4 > nr_tables;

	spin_lock(&oldmm->cow_pte.lock);
	oldmm->cow_pte.fork = fork;
	spin_unlock(&oldmm->cow_pte.lock);
	if (fork->counted)
		fork->pos = 0;
	else
		cow_pte_inherit_all(fork);
}

/*
 * The child gets nothing of [@addr, @end), or accounts what it gets by itself.
 * Under the lock of @pmd's table, so that a change made by rmap is either in
 * the census or behind fork->pos.
 */
static void cow_pte_take_out(struct cow_pte_fork *fork, pmd_t *pmd,
			     unsigned long addr, unsigned long end)
{
	int rss[NR_MM_COUNTERS] = {};
	struct folio *folio = NULL;
	spinlock_t *ptl;	/* the table's */
	pte_t *pte;

again:
	pte = pte_offset_map_lock(fork->oldmm, pmd, addr, &ptl);
	if (pte) {
		cow_pte_census(pte, (end - addr) >> PAGE_SHIFT, rss);
		WRITE_ONCE(fork->pos, end);
		pte_unmap_unlock(pte, ptl);
	} else {
		ptl = pmd_lock(fork->oldmm, pmd);
		if (pmd_trans_huge(*pmd)) {
			folio = pmd_folio(*pmd);
		} else if (is_pmd_migration_entry(*pmd)) {
			folio = pfn_swap_entry_folio(pmd_to_swp_entry(*pmd));
		} else if (pmd_present(*pmd) && !pmd_leaf(*pmd)) {
			/* Split by rmap in between. */
			spin_unlock(ptl);
			goto again;
		}
		if (folio && folio_test_anon(folio))
			rss[MM_ANONPAGES] += HPAGE_PMD_NR;
		WRITE_ONCE(fork->pos, end);
		spin_unlock(ptl);
	}
	atomic_long_sub(rss[MM_ANONPAGES], &fork->inherit[MM_ANONPAGES]);
	atomic_long_sub(rss[MM_SWAPENTS], &fork->inherit[MM_SWAPENTS]);
}

int __cow_pte_fork_skip(struct mm_struct *oldmm, struct vm_area_struct *vma)
{
	struct cow_pte_fork *fork = oldmm->cow_pte.fork;
	unsigned long addr = vma->vm_start, next;
	pmd_t *pmd;

	if (!fork || fork->counted || !cow_pte_vma_skipped(vma))
		return 0;
	for (; (pmd = cow_pte_next_pmd(oldmm, &addr, vma->vm_end));
	     addr = next) {
		next = pmd_addr_end(addr, vma->vm_end);
		if (pmd_none(*pmd))
			continue;
		/* What others change in a table must not count for the child. */
		if (cow_pte_break(oldmm, pmd, addr))
			return -ENOMEM;
		cow_pte_take_out(fork, pmd, addr, next);
		cond_resched();
	}
	return 0;
}

/* The child's copies are in its own counters. */
void __cow_pte_copied(struct mm_struct *oldmm, unsigned long addr,
		      const int *rss)
{
	struct cow_pte_fork *fork = oldmm->cow_pte.fork;

	if (!fork || fork->counted || addr <= fork->pos)
		return;
	atomic_long_sub(rss[MM_ANONPAGES], &fork->inherit[MM_ANONPAGES]);
	atomic_long_sub(rss[MM_SWAPENTS], &fork->inherit[MM_SWAPENTS]);
	WRITE_ONCE(fork->pos, addr);
}

bool __cow_pte_copied_pmd(struct mm_struct *oldmm, unsigned long addr)
{
	struct cow_pte_fork *fork = oldmm->cow_pte.fork;

	if (!fork || fork->counted)
		return false;
	WRITE_ONCE(fork->pos, addr + PMD_SIZE);
	fork->nr_huge += PTRS_PER_PTE;
	return true;
}

#define COW_PTE_NO_VMA	(VM_SHARED | VM_DONTCOPY | VM_WIPEONFORK |	      \
			 VM_DROPPABLE | VM_LOCKED | VM_LOCKONFAULT |	      \
			 VM_PFNMAP | VM_MIXEDMAP | VM_IO | VM_HUGETLB |	      \
			 VM_SHADOW_STACK)

/*
 * May a table with pages of this VMA be shared?  The child gets every page in
 * the table, so all must be pages that fork() would have given it.
 */
static bool cow_pte_vma_shareable(struct vm_area_struct *vma)
{
	if (vma->vm_flags & COW_PTE_NO_VMA)
		return false;
	if (!is_cow_mapping(vma->vm_flags) || userfaultfd_armed(vma) ||
	    vma_is_dax(vma))
		return false;
	return vma_is_anonymous(vma) || vma->anon_vma;
}

/* @file says whether file pages may be among those in the table. */
static bool cow_pte_slot_shareable(struct vm_area_struct *vma,
				   unsigned long slot, bool *file)
{
	MA_STATE(mas, &vma->vm_mm->mm_mt, slot, slot);

	*file = !vma_is_anonymous(vma);
	if (vma->vm_start <= slot && vma->vm_end >= slot + PMD_SIZE)
		return cow_pte_vma_shareable(vma);

	*file = false;
	mas_for_each(&mas, vma, slot + PMD_SIZE - 1) {
		if (!cow_pte_vma_shareable(vma))
			return false;
		*file |= !vma_is_anonymous(vma);
	}
	return true;
}

/*
 * Pinned pages must be copied at once (I2).  The caller has write-protected
 * the PMD entry inside write_protect_seq: GUP-fast either sees that, or its
 * pin, and MMF_HAS_PINNED before it, are visible here.
 */
static noinline bool cow_pte_maybe_pinned(pte_t *pte)
{
	struct page *page;
	pte_t ptent;
	int i;

	for (i = 0; i < PTRS_PER_PTE; i++, pte++) {
		ptent = ptep_get(pte);
		if (!pte_present(ptent))
			continue;
		page = cow_pte_page(ptent);
		if (page && PageAnon(page) && PageAnonExclusive(page) &&
		    folio_maybe_dma_pinned(page_folio(page)))
			return true;
	}
	return false;
}

/*
 * From here on nobody writes through this entry, nor pins a page behind it.
 * Who sees the entry protected must find the table's state.
 */
static __always_inline bool cow_pte_protect(struct cow_pte_fork *fork,
					    pmd_t *src_pmd, struct ptdesc *ptdesc,
					    unsigned long slot)
{
	unsigned long mixed = 0;

	memset(ptdesc->pt_cow_delta, 0, sizeof(ptdesc->pt_cow_delta));
	if (ptdesc_cow_pte(ptdesc))
		mixed = ptdesc->pt_cow_word & COW_PTE_MIXED;
	else
		set_bit(PT_cow, &ptdesc->__page_flags);
	ptdesc->pt_cow_word = mixed;
	ptdesc->pt_cow_sharers = 1;
	pmdp_table_protect(fork->oldmm, src_pmd, slot);
	if (unlikely(test_bit(MMF_HAS_PINNED, &fork->oldmm->flags)) &&
	    cow_pte_maybe_pinned(pmd_table(*src_pmd))) {
		pmdp_table_unprotect(fork->oldmm, src_pmd, slot);
		ptdesc->pt_cow_sharers = 0;
		return false;
	}
	/* The CPUs of all sharers set accessed bits in it from now on. */
	if (!mixed)
		ptdesc->pt_cow_word = (fork->oldmm->cow_pte.generation + 1UL) <<
				      COW_PTE_MIXED_SHIFT;
	fork->nr_protected++;
	return true;
}

/* What fork->inherit does not have of this table already. */
static noinline void cow_pte_inherit_table(struct cow_pte_fork *fork,
					   struct ptdesc *ptdesc, pte_t *table)
{
	int rss[NR_MM_COUNTERS], i;

	cow_pte_base(ptdesc, table, rss);
	for (i = 0; i < NR_MM_COUNTERS; i++)
		if (fork->counted || (i != MM_ANONPAGES && i != MM_SWAPENTS))
			atomic_long_add(rss[i], &fork->inherit[i]);
}

/*
 * The PTE lock alone will do, and no second look at the entry: all others who
 * change a PMD entry that points to a PTE table hold the mmap_lock or a VMA's,
 * of which the caller has all for writing.  The child's entry nobody knows.
 */
static __always_inline bool cow_pte_attach(struct cow_pte_fork *fork,
					   pmd_t *dst_pmd, pmd_t *src_pmd,
					   unsigned long slot, bool file)
{
	bool protected = pmd_table_protected(*src_pmd);
	struct ptdesc *ptdesc = pmd_table_ptdesc(*src_pmd);
	spinlock_t *ptl = ptlock_ptr(ptdesc);

	spin_lock(ptl);
	if (unlikely(!protected) && !cow_pte_protect(fork, src_pmd, ptdesc, slot)) {
		spin_unlock(ptl);
		fork->pinned = slot;
		return false;
	}
	ptdesc->pt_cow_sharers++;
	ptdesc->pt_cow_word &= ~COW_PTE_FAR;
	pmdp_table_attach(fork->mm, dst_pmd, *src_pmd);
	if (file)
		cow_pte_inherit_table(fork, ptdesc, pmd_table(*src_pmd));
	WRITE_ONCE(fork->pos, slot + PMD_SIZE);
	fork->nr_shared++;
	spin_unlock(ptl);
	return true;
}

#define COW_PTE_AHEAD	16

/*
 * The tables that lie as a whole inside one VMA, which is most of them in a
 * large process: one decision for all.  Not inline, for the loop's registers.
 * Return: where it stopped.
 */
static noinline unsigned long cow_pte_attach_run(struct cow_pte_fork *fork,
						 pmd_t *dst_pmd, pmd_t *src_pmd,
						 unsigned long slot,
						 unsigned long end)
{
	bool count = fork->counted;

	for (; slot < end; slot += PMD_SIZE, src_pmd++, dst_pmd++) {
		/*
		 * Nobody looks at the descriptors of tables but fork().  Whatever
		 * the entry is, if no memory is read to find the descriptor.
		 */
		if (!IS_ENABLED(CONFIG_SPARSEMEM) ||
		    IS_ENABLED(CONFIG_SPARSEMEM_VMEMMAP))
			if (slot + COW_PTE_AHEAD * PMD_SIZE < end)
				prefetchw(pmd_table_ptdesc(src_pmd[COW_PTE_AHEAD]));
		if (unlikely(!pmd_table_protected(*src_pmd))) {
			if (pmd_none(*src_pmd))
				continue;
			if (!pmd_present(*src_pmd) || pmd_leaf(*src_pmd) ||
			    pmd_table_borrows(*src_pmd))
				break;
		}
		if (!cow_pte_attach(fork, dst_pmd, src_pmd, slot, count))
			break;
	}
	return slot;
}

/* As in /proc/vmstat, without the prefix. */
static const char *cow_pte_event_name(enum vm_event_item event)
{
	static const char * const name[] = {
		"share", "skip", "break", "break_fault", "reuse", "drop",
		"fallback", "fallback_stack", "fallback_pinned", "fallback_vma",
		"lend", "settle", "merge", "publish", "join", "leave",
	};

	static_assert(ARRAY_SIZE(name) == COW_PTE_NR_EVENTS);
	static_assert(COW_PTE_LEAVE - COW_PTE_SHARE == COW_PTE_NR_EVENTS - 1);
	return name[event - COW_PTE_SHARE];
}

long __cow_pte_copy(struct vm_area_struct *dst_vma,
		    struct vm_area_struct *src_vma, pmd_t *dst_pmd,
		    pmd_t *src_pmd, unsigned long addr, unsigned long end)
{
	struct mm_struct *oldmm = src_vma->vm_mm;
	struct cow_pte_fork *fork = oldmm->cow_pte.fork;
	unsigned long slot = cow_pte_slot(addr);
	pmd_t pmd = *src_pmd;
	enum vm_event_item reason;
	unsigned long stack;
	bool file;

	if (!fork)
		return cow_pte_break(oldmm, src_pmd, addr);

	/* A table is shared or copied at the first VMA that gets here. */
	if (slot < fork->pos) {
		if (pmd_cow_pte(*dst_pmd))
			return 1;
		return cow_pte_break(oldmm, src_pmd, addr);
	}

	if (pmd_none(pmd))
		return 0;
	/* See cow_pte_copied_pmd() */
	if (!pmd_present(pmd) || pmd_leaf(pmd))
		return 0;
	/* A table does not lend what it borrows (B3). */
	if (pmd_table_borrows(pmd))
		cow_pte_break(oldmm, src_pmd, addr);

	/* Both sides will write to the stack before they do anything. */
	stack = cow_pte_slot(user_stack_pointer(current_pt_regs()));
	if (src_vma->vm_start <= slot && slot != stack &&
	    vma_is_anonymous(src_vma) && cow_pte_vma_shareable(src_vma)) {
		end &= PMD_MASK;
		if (slot < stack && stack < end)
			end = stack;
		addr = cow_pte_attach_run(fork, dst_pmd, src_pmd, slot, end);
		cond_resched();
		if (addr > slot)
			return (addr - slot) / PMD_SIZE;
	}
	if (slot == stack) {
		reason = COW_PTE_FALLBACK_STACK;
	} else if (slot == fork->pinned) {
		reason = COW_PTE_FALLBACK_PINNED;
	} else if (!cow_pte_slot_shareable(src_vma, slot, &file)) {
		reason = COW_PTE_FALLBACK_VMA;
	} else {
		if (cow_pte_attach(fork, dst_pmd, src_pmd, slot,
				   file || fork->counted))
			return 1;
		reason = COW_PTE_FALLBACK_PINNED;
	}
	cow_pte_count(oldmm, COW_PTE_FALLBACK, 1);
	cow_pte_count(oldmm, reason, 1);
	trace_cow_pte_fallback(oldmm, slot, cow_pte_event_name(reason));
	/* The copy write-protects the parent's entries. */
	return cow_pte_break(oldmm, src_pmd, slot);
}

/* Detach what fork() attached to a child that has never run. */
static void cow_pte_fork_cancel(struct cow_pte_fork *fork)
{
	struct ptdesc *ptdesc;
	unsigned long addr = 0;
	spinlock_t *ptl;	/* the table's */
	pmd_t *pmd;

	for (; fork->nr_shared; addr += PMD_SIZE) {
		pmd = cow_pte_next_pmd(fork->mm, &addr, fork->pos);
		if (WARN_ON_ONCE(!pmd))
			break;
		if (pmd_table_protected(*pmd)) {
			ptdesc = pmd_table_ptdesc(*pmd);
			ptl = ptlock_ptr(ptdesc);
			spin_lock(ptl);
			pmd_clear(pmd);
			/* The parent keeps its share: it is still locked. */
			ptdesc->pt_cow_sharers--;
			spin_unlock(ptl);
			fork->nr_shared--;
		}
		cond_resched();
	}
}

void __cow_pte_fork_end(struct cow_pte_fork *fork, int error)
{
	struct mm_struct *mm = fork->mm, *oldmm = fork->oldmm;
	int i;

	if (error)
		cow_pte_fork_cancel(fork);

	spin_lock(&oldmm->cow_pte.lock);
	oldmm->cow_pte.fork = NULL;
	spin_unlock(&oldmm->cow_pte.lock);

	atomic_long_add(fork->nr_protected, &oldmm->cow_pte.nr_protected);
	/* Swap entries came with the tables. */
	if (!list_empty(&oldmm->mmlist))
		cow_pte_family_swap(oldmm->cow_pte.family);
	if (error || !test_bit(MMF_VM_MERGEABLE, &oldmm->flags))
		ksm_no_zero_pages(mm);
	if (error) {
		/* These it still has, to be zapped. */
		add_mm_counter(mm, MM_ANONPAGES, fork->nr_huge);
		return;
	}

	for (i = 0; i < NR_MM_COUNTERS; i++)
		add_mm_counter(mm, i, atomic_long_read(&fork->inherit[i]));
	atomic_long_add(fork->nr_shared, &mm->cow_pte.nr_protected);
	atomic_long_add(fork->nr_shared * COW_PTE_TABLE_SIZE,
			&mm->pgtables_bytes);
	oldmm->cow_pte.last_shared = fork->nr_shared;
	cow_pte_count(oldmm, COW_PTE_SHARE, fork->nr_shared);
	trace_cow_pte_share(mm, oldmm, fork->nr_shared);
}

/*
 * Loans
 *
 * A break copies the entries of a table, but not what they count: the new table
 * borrows its pages from the old one, which others go on using.  A borrowed
 * entry is read-only and holds neither a reference nor a mapcount: the lender's
 * does.  It is marked as special, for that means to everybody that there is no
 * page to count.
 *
 * B1 A lender's entry of which another one is borrowed stays what it is, accessed
 *    bit and permissions aside.  Who changes it settles that one first, with the
 *    locks of both tables held.
 * B2 To settle an entry is to take a reference and a mapcount, and to take from
 *    the lender's entry its exclusivity and write permission, as fork() does.
 *    That needs no memory and cannot fail, and the borrower's lock is enough.
 * B3 A table lends or borrows, not both: fork() settles one that borrows before it
 *    is shared.  Who is alone with a lender settles what is borrowed of it before
 *    he takes it back.
 * B4 But if he is dying, entries that one table still borrows move there as they
 *    are: nobody else is left who knows the pages (merge).
 * B5 A borrower ends by settling; in a dying mm its borrowed entries just go.
 *
 * Who walks private tables must not meet a borrowed entry: a flag in the PMD entry
 * sends him through here first (see pmd_cow_pte()), until it is found that nothing
 * is borrowed any more.  And only a fault makes loans: whoever else breaks a table
 * is about to look at its entries.
 */

/*
 * A page is looked for in so many tables at most; so many are settled as a whole
 * under one hold of the lender's lock.
 */
#define COW_PTE_MAX_BORROWERS	32
#define COW_PTE_SETTLE_MAX	8
#define COW_PTE_BORROWER_NESTING	2

/* In a table with COW_PTE_BORROWS; the zero pages are special, too. */
static __always_inline bool cow_pte_entry_borrowed(pte_t pte)
{
	return pte_present(pte) && pte_special(pte) && !is_zero_pfn(pte_pfn(pte));
}

static pte_t *cow_pte_ptdesc_table(struct ptdesc *ptdesc)
{
	return ptdesc_address(ptdesc);
}

/* Of a table whose lock is held. */
static unsigned int cow_pte_nr_borrowers(struct ptdesc *lender)
{
	struct ptdesc *borrower;
	unsigned int nr = 0;

	if (lender->pt_cow_word & COW_PTE_LENDS)
		for (borrower = lender->pt_cow_loan; borrower;
		     borrower = borrower->pt_cow_next)
			nr++;
	return nr;
}

static bool cow_pte_may_lend(struct ptdesc *ptdesc)
{
	return !(ptdesc->pt_cow_word & COW_PTE_WALKED) &&
	       cow_pte_nr_borrowers(ptdesc) < COW_PTE_MAX_BORROWERS;
}

/* The borrower is known to nobody yet; under the lender's lock. */
static void cow_pte_lend(struct ptdesc *lender, struct ptdesc *borrower)
{
	set_bit(PT_cow, &borrower->__page_flags);
	borrower->pt_cow_word = COW_PTE_BORROWS;
	borrower->pt_cow_sharers = 0;
	borrower->pt_cow_next = lender->pt_cow_loan;
	borrower->pt_cow_loan = lender;
	lender->pt_cow_loan = borrower;
	lender->pt_cow_word |= COW_PTE_LENDS;
}

/* Under the locks of both. */
static void cow_pte_end_loan(struct ptdesc *lender, struct ptdesc *borrower)
{
	struct ptdesc **p = &lender->pt_cow_loan;

	/* The delta of a lender is not the link of a borrower. */
	for (; *p != borrower; p = &(*p)->pt_cow_next)
		;
	*p = borrower->pt_cow_next;
	if (!lender->pt_cow_loan)
		lender->pt_cow_word &= ~COW_PTE_LENDS;
	borrower->pt_cow_word &= ~COW_PTE_BORROWS;
	WRITE_ONCE(borrower->pt_cow_loan, NULL);
	borrower->pt_cow_next = NULL;
}

/*
 * Lock the lender of a table, of which the caller holds no lock, but keeps it in
 * place.  A lender is freed by RCU, and lives for as long as it lends.
 * Return: NULL if the table does not borrow.
 */
static struct ptdesc *cow_pte_lock_lender(struct ptdesc *borrower)
{
	struct ptdesc *lender;

	rcu_read_lock();
	while ((lender = READ_ONCE(borrower->pt_cow_loan))) {
		spin_lock_nested(ptlock_ptr(lender), SINGLE_DEPTH_NESTING);
		if (lender == borrower->pt_cow_loan)
			break;
		spin_unlock(ptlock_ptr(lender));
	}
	rcu_read_unlock();
	return lender;
}

static void cow_pte_settle_entry(struct mm_struct *mm, struct ptdesc *borrower,
				 unsigned long addr, pte_t *ptep)
{
	pte_t pte = ptep_get(ptep), *lent;
	struct folio *folio;
	struct page *page;

	if (!cow_pte_entry_borrowed(pte))
		return;
	lent = cow_pte_ptdesc_table(borrower->pt_cow_loan) + pte_index(addr);
	if (WARN_ON_ONCE(pte_pfn(ptep_get(lent)) != pte_pfn(pte)))
		return;
	page = pfn_to_page(pte_pfn(pte));
	folio = page_folio(page);

	cow_pte_loan_begin();
	if (pte_write(ptep_get(lent)))
		ptep_set_wrprotect(mm, addr, lent);
	if (folio_test_anon(folio) && PageAnonExclusive(page))
		ClearPageAnonExclusive(page);
	folio_get(folio);
	folio_dup_file_rmap_pte(folio, page);
	/* Pairs with __cow_pte_settle(), which looks without the lock. */
	smp_wmb();
	ptep_table_upgrade(mm, addr, ptep, pte, pte_unmkspecial(pte));
	cow_pte_loan_end();
}

/* Under the locks of both. */
static void cow_pte_settle_table(struct mm_struct *mm, struct ptdesc *lender,
				 struct ptdesc *borrower, unsigned long slot)
{
	pte_t *pte = cow_pte_ptdesc_table(borrower);
	int i;

	for (i = 0; i < PTRS_PER_PTE; i++)
		cow_pte_settle_entry(mm, borrower, slot + i * PAGE_SIZE, pte + i);
	cow_pte_end_loan(lender, borrower);
	cow_pte_count(mm, COW_PTE_SETTLE, 1);
}

/* All borrowers of a table, whose lock is held; all but one if @keep is set. */
static void cow_pte_settle_borrowers(struct mm_struct *mm, struct ptdesc *lender,
				     unsigned long slot, bool keep)
{
	struct ptdesc *borrower;
	spinlock_t *ptl;	/* the borrower's */

	while ((borrower = lender->pt_cow_loan)) {
		if (keep && !borrower->pt_cow_next)
			break;
		ptl = ptlock_ptr(borrower);
		spin_lock_nested(ptl, COW_PTE_BORROWER_NESTING);
		cow_pte_settle_table(mm, lender, borrower, slot);
		spin_unlock(ptl);
	}
}

/*
 * The lender of the table behind this entry, be it that one or another, locked.  The
 * lock of the PMD page is held.
 * Return: NULL if there is none.
 */
static struct ptdesc *cow_pte_lock_lender_of(pmd_t *pmd)
{
	struct ptdesc *ptdesc;

	if (pmd_table_protected(*pmd)) {
		ptdesc = pmd_table_ptdesc(*pmd);
		spin_lock_nested(ptlock_ptr(ptdesc), SINGLE_DEPTH_NESTING);
		return ptdesc;
	}
	if (pmd_table_borrows(*pmd))
		return cow_pte_lock_lender(pmd_table_ptdesc(*pmd));
	return NULL;
}

/* Under the table's lock: is its last sharer to call cow_pte_settle_crowd()? */
static __always_inline bool cow_pte_crowded(struct ptdesc *ptdesc)
{
	return ptdesc->pt_cow_word & COW_PTE_LENDS && ptdesc->pt_cow_sharers == 1 &&
	       cow_pte_nr_borrowers(ptdesc) > COW_PTE_SETTLE_MAX;
}

/*
 * All borrowers are about to be settled: because the mm is alone with its table, or
 * walks it.  One under each hold of the locks, until few are left, other borrowers
 * than the mm's own table first.  Meanwhile they do not become more: nobody is left
 * who could borrow, or no more loans are made.
 */
static void cow_pte_settle_crowd(struct mm_struct *mm, pmd_t *pmd,
				 unsigned long slot, bool walk)
{
	struct ptdesc *lender, *borrower;
	spinlock_t *pml, *ptl;	/* of the PMD page; the borrower's */
	bool more;

	do {
		pml = pmd_lock(mm, pmd);
		lender = cow_pte_lock_lender_of(pmd);
		if (lender && walk)
			lender->pt_cow_word |= COW_PTE_WALKED;
		more = lender && (walk || pmd_table_protected(*pmd)) &&
		       (walk ? cow_pte_nr_borrowers(lender) > COW_PTE_SETTLE_MAX :
			       cow_pte_crowded(lender));
		if (more) {
			borrower = lender->pt_cow_loan;
			if (borrower == pmd_table_ptdesc(*pmd))
				borrower = borrower->pt_cow_next;
			ptl = ptlock_ptr(borrower);
			spin_lock_nested(ptl, COW_PTE_BORROWER_NESTING);
			cow_pte_settle_table(mm, lender, borrower, slot);
			spin_unlock(ptl);
		}
		if (lender)
			spin_unlock(ptlock_ptr(lender));
		spin_unlock(pml);
	} while (more);
}

/* For check_mm(); else nobody looks at the counters of a dying mm any more. */
static void cow_pte_forget_page(struct mm_struct *mm, pte_t pte)
{
	if (IS_ENABLED(CONFIG_DEBUG_COW_PTE) && !is_zero_pfn(pte_pfn(pte)))
		dec_mm_counter(mm, mm_counter(pfn_folio(pte_pfn(pte))));
}

/*
 * The end of a borrower, with the lock of the PMD page held.  If @give_back is
 * set, the mm is dying and no CPU uses its tables any more.
 */
static void cow_pte_end_borrower(struct mm_struct *mm, pmd_t *pmd,
				 unsigned long slot, bool give_back)
{
	struct ptdesc *borrower = pmd_table_ptdesc(*pmd), *lender;
	spinlock_t *ptl = ptlock_ptr(borrower);
	pte_t *pte = pmd_table(*pmd);
	int i;

	lender = cow_pte_lock_lender(borrower);
	if (lender) {
		spin_lock_nested(ptl, COW_PTE_BORROWER_NESTING);
		if (give_back) {
			cow_pte_loan_begin();
			for (i = 0; i < PTRS_PER_PTE; i++, pte++) {
				/* A zero page may as well go here. */
				if (!pte_present(ptep_get(pte)) ||
				    !pte_special(ptep_get(pte)))
					continue;
				cow_pte_forget_page(mm, ptep_get(pte));
				pte_clear(mm, slot + i * PAGE_SIZE, pte);
			}
			cow_pte_loan_end();
			cow_pte_end_loan(lender, borrower);
		} else {
			cow_pte_settle_table(mm, lender, borrower, slot);
		}
		spin_unlock(ptl);
		spin_unlock(ptlock_ptr(lender));
	}
	pmdp_table_settled(mm, pmd, slot);
	atomic_long_dec(&mm->cow_pte.nr_borrowing);
}

/*
 * A lender's last sharer is dying, and no CPU uses its tables any more.  What one
 * table borrows moves there, with write permission and exclusivity: nobody else
 * has a reference to these pages, unless GUP has handed one out.
 */
static void cow_pte_merge(struct mm_struct *mm, struct ptdesc *lender,
			  unsigned long slot)
{
	bool keep = !test_bit(PT_cow_tainted, &lender->__page_flags);
	pte_t *lent = cow_pte_ptdesc_table(lender), *dst, pte, to;
	struct ptdesc *borrower;
	spinlock_t *ptl;	/* the borrower's */
	int i;

	cow_pte_settle_borrowers(mm, lender, slot, keep);
	borrower = lender->pt_cow_loan;
	if (!borrower)
		return;
	ptl = ptlock_ptr(borrower);
	spin_lock_nested(ptl, COW_PTE_BORROWER_NESTING);
	dst = cow_pte_ptdesc_table(borrower);
	cow_pte_loan_begin();
	for (i = 0; i < PTRS_PER_PTE; i++, dst++, lent++) {
		to = ptep_get(dst);
		pte = ptep_get(lent);
		/*
		 * A zero page is special, too, and may be here where a page was
		 * borrowed: reclaim may discard it in one of the tables only.
		 */
		if (!pte_present(to) || !pte_special(to) || !pte_lendable(pte) ||
		    pte_pfn(to) != pte_pfn(pte))
			continue;
		pte = ptep_get_and_clear_full(mm, slot + i * PAGE_SIZE, lent, true);
		cow_pte_forget_page(mm, pte);
		/* Whose accessed bits are in the lender's entry? */
		pte = pte_young(to) ? pte_mkyoung(pte) : pte_mkold(pte);
		ptep_table_upgrade(mm, slot + i * PAGE_SIZE, dst, to, pte);
	}
	ptep_table_restore(cow_pte_ptdesc_table(borrower), true);
	cow_pte_loan_end();
	cow_pte_end_loan(lender, borrower);
	spin_unlock(ptl);
	cow_pte_count(mm, COW_PTE_MERGE, 1);
}

void __cow_pte_settle(struct mm_struct *mm, unsigned long addr, pte_t *ptep,
		      int nr)
{
	struct ptdesc *ptdesc = virt_to_ptdesc(ptep), *borrower;
	spinlock_t *ptl;	/* the borrower's */
	int i;

	if (ptdesc->pt_cow_word & COW_PTE_BORROWS) {
		for (i = 0; i < nr; i++)
			cow_pte_settle_entry(mm, ptdesc, addr + i * PAGE_SIZE,
					     ptep + i);
		return;
	}
	if (!(ptdesc->pt_cow_word & COW_PTE_LENDS))
		return;
	for (borrower = ptdesc->pt_cow_loan; borrower;
	     borrower = borrower->pt_cow_next) {
		ptep = cow_pte_ptdesc_table(borrower) + pte_index(addr);
		/* With the lender's lock held none comes to be borrowed. */
		for (i = 0; i < nr; i++)
			if (cow_pte_entry_borrowed(ptep_get(ptep + i)))
				break;
		if (i == nr)
			continue;
		ptl = ptlock_ptr(borrower);
		spin_lock_nested(ptl, COW_PTE_BORROWER_NESTING);
		for (; i < nr; i++)
			cow_pte_settle_entry(mm, borrower, addr + i * PAGE_SIZE,
					     ptep + i);
		spin_unlock(ptl);
	}
	/* Pairs with cow_pte_settle_entry(): the caller looks at the mapcount. */
	smp_rmb();
}

void __cow_pte_settle_walk(struct mm_struct *mm, pmd_t *pmd, unsigned long addr,
			   bool counts_loans)
{
	unsigned long slot = cow_pte_slot(addr);
	struct ptdesc *lender;
	spinlock_t *pml;	/* of the PMD page */

	/* The table may become one that borrows: see cow_pte_walk_again(). */
	if (counts_loans && pmd_table_protected(pmdp_get_lockless(pmd)))
		return;
	/*
	 * No more loans of this table, while it is shared: another thread's fault
	 * would put a borrower in the walker's way, and other borrowers map pages
	 * that it counts.
	 */
	cow_pte_settle_crowd(mm, pmd, slot, true);
	pml = pmd_lock(mm, pmd);
	lender = cow_pte_lock_lender_of(pmd);
	if (lender) {
		cow_pte_settle_borrowers(mm, lender, slot, false);
		/* If it is not the same table as above. */
		lender->pt_cow_word |= COW_PTE_WALKED;
		spin_unlock(ptlock_ptr(lender));
	}
	if (pmd_table_borrows(*pmd))
		cow_pte_end_borrower(mm, pmd, slot, false);
	spin_unlock(pml);
}

/*
 * Break and reuse
 */

/*
 * Take an entry's exclusivity and write permission: from here on it is an
 * entry as fork() leaves it behind (R7 in the documentation).  No flush: while
 * the table was shared nobody could hold a writable translation.
 */
static pte_t cow_pte_downgrade(struct mm_struct *mm, unsigned long addr,
			       pte_t *ptep)
{
	pte_t pte = ptep_get(ptep), old = pte;
	struct page *page;
	swp_entry_t entry;

	if (pte_present(pte)) {
		page = cow_pte_page(pte);
		if (page && PageAnon(page) && PageAnonExclusive(page)) {
			VM_WARN_ON_ONCE_PAGE(PageHuge(page), page);
			ClearPageAnonExclusive(page);
		}
		if (pte_write(pte)) {
			ptep_set_wrprotect(mm, addr, ptep);
			pte = ptep_get(ptep);
		}
		return pte;
	}

	entry = pte_to_swp_entry(pte);
	if (!non_swap_entry(entry)) {
		if (pte_swp_exclusive(pte))
			pte = pte_swp_clear_exclusive(pte);
	} else if (is_migration_entry(entry) &&
		   !is_readable_migration_entry(entry)) {
		/* Drops the type's exclusivity, keeps young and dirty. */
		entry = make_readable_migration_entry(swp_offset(entry));
		pte = swp_entry_to_pte(entry);
		if (pte_swp_soft_dirty(old))
			pte = pte_swp_mksoft_dirty(pte);
	} else if (is_writable_device_private_entry(entry)) {
		entry = make_readable_device_private_entry(swp_offset(entry));
		pte = swp_entry_to_pte(entry);
	}
	if (!pte_same(pte, old))
		set_pte_at(mm, addr, ptep, pte);
	return pte;
}

/*
 * The mm is alone with the table.  Its entries may stay writable, and its
 * pages exclusive: nobody else has a reference to them.  Unless GUP has handed
 * one out, before or after the table was shared: then the entries become what
 * fork() would have made of them, if there is a user left who could write.
 */
static void cow_pte_reuse(struct mm_struct *mm, pmd_t *pmd,
			  struct ptdesc *ptdesc, unsigned long slot)
{
	pte_t *pte = pmd_table(*pmd);
	int i;

	cow_pte_settle_borrowers(mm, ptdesc, slot, false);
	if (unlikely(test_bit(PT_cow_tainted, &ptdesc->__page_flags)) &&
	    atomic_read(&mm->mm_users)) {
		cow_pte_inplace_begin();
		for (i = 0; i < PTRS_PER_PTE; i++, pte++)
			if (!pte_none(ptep_get(pte)))
				cow_pte_downgrade(mm, slot + i * PAGE_SIZE, pte);
		cow_pte_inplace_end();
		clear_bit(PT_cow_tainted, &ptdesc->__page_flags);
	}
	cow_pte_take_delta(mm, ptdesc, slot);
	if (!list_empty(&mm->cow_pte.family->swap))
		cow_pte_add_mmlist(mm);
	/* Reclaim may not have flushed yet, and does not know this mm. */
	if (ptdesc->pt_cow_word & COW_PTE_UNFLUSHED)
		cow_pte_flush(mm, slot, slot + PMD_SIZE);
	/*
	 * More permissions need no flush: a CPU that still has the old ones
	 * takes a fault, which drops its cached translation, and finds the
	 * entry writable.
	 */
	pmdp_table_unprotect(mm, pmd, slot);
	ptdesc->pt_cow_sharers = 0;
	atomic_long_dec(&mm->cow_pte.nr_protected);
}

/*
 * Had the mm this table before it was shared?  All other sharers descend from
 * that one.
 */
static bool cow_pte_first(struct mm_struct *mm, struct ptdesc *ptdesc)
{
	return mm->cow_pte.generation < cow_pte_mixed(ptdesc);
}

/* One sharer less of at least two; no CPU of it uses the table any more (I4). */
void cow_pte_leave(struct ptdesc *ptdesc)
{
	ptdesc->pt_cow_sharers--;
	ptdesc->pt_cow_word &= ~COW_PTE_FAR;
}

/*
 * Duplicate the swap entries first: that is all that can fail.
 * Return: 0, or -EAGAIN with @entry in want of a swap count continuation.
 */
static int cow_pte_dup_swap(struct mm_struct *mm, pte_t *src,
			    swp_entry_t *entry)
{
	swp_entry_t undo;
	pte_t pte;
	int i;

	if (list_empty(&mm->cow_pte.family->swap))
		return 0;
	cow_pte_add_mmlist(mm);

	for (i = 0; i < PTRS_PER_PTE; i++) {
		pte = ptep_get(src + i);
		if (pte_none(pte) || pte_present(pte))
			continue;
		*entry = pte_to_swp_entry(pte);
		if (!non_swap_entry(*entry) && swap_duplicate(*entry) < 0)
			goto undo;
	}
	return 0;
undo:
	while (i--) {
		pte = ptep_get(src + i);
		if (pte_none(pte) || pte_present(pte))
			continue;
		undo = pte_to_swp_entry(pte);
		if (!non_swap_entry(undo))
			swap_free(undo);
	}
	return -EAGAIN;
}

/*
 * One more reference and mapping.  Not folio_try_dup_anon_rmap_pte(): it asks
 * the mm about pins, of which a shared table has none (I2).
 */
static __always_inline void cow_pte_dup_page(struct folio *folio,
					     struct page *page)
{
	folio_get(folio);
	folio_dup_file_rmap_pte(folio, page);
}

static noinline void cow_pte_copy_nonpresent(struct mm_struct *mm, pte_t *dst,
					     pte_t *src, unsigned long addr)
{
	pte_t pte = cow_pte_downgrade(mm, addr, src);
	swp_entry_t entry = pte_to_swp_entry(pte);
	struct page *page;

	if (is_device_private_entry(entry)) {
		page = pfn_swap_entry_to_page(entry);
		cow_pte_dup_page(page_folio(page), page);
	}
	set_pte_at(mm, addr, dst, pte);
}

/*
 * Downgrade and copy, in one pass: each page is looked at once, for that is what
 * costs.
 */
static __always_inline void cow_pte_copy_present(struct mm_struct *mm, pte_t *dst,
						 pte_t *src, unsigned long addr,
						 bool young)
{
	pte_t pte = ptep_get(src);
	struct folio *folio;
	struct page *page;

	/* Accessed bits aside, nobody changes it meanwhile. */
	if (pte_write(pte)) {
		ptep_set_wrprotect(mm, addr, src);
		pte = ptep_get(src);
	}
	page = cow_pte_page(pte);
	if (likely(page)) {
		folio = page_folio(page);
		if (folio_test_anon(folio) && PageAnonExclusive(page))
			ClearPageAnonExclusive(page);
		cow_pte_dup_page(folio, page);
	}
	/* What the others looked at is not for us to see. */
	pte = young ? pte_mkyoung(pte) : pte_mkold(pte);
	set_pte_at(mm, addr, dst, pte);
}

static noinline void cow_pte_copy_entry(struct mm_struct *mm, pte_t *dst,
					pte_t *src, unsigned long addr, bool young)
{
	pte_t pte = ptep_get(src);

	if (pte_present(pte))
		cow_pte_copy_present(mm, dst, src, addr, young);
	else if (!pte_none(pte))
		cow_pte_copy_nonpresent(mm, dst, src, addr);
}

static void cow_pte_copy_table(struct mm_struct *mm, pte_t *dst, pte_t *src,
			       unsigned long addr, bool young)
{
	pte_t *end = src + PTRS_PER_PTE;

	cow_pte_loan_begin();
	for (; src < end; dst++, src++, addr += PAGE_SIZE) {
		if (likely(pte_present(ptep_get(src))))
			cow_pte_copy_present(mm, dst, src, addr, young);
		else
			cow_pte_copy_entry(mm, dst, src, addr, young);
	}
	cow_pte_loan_end();
}

/*
 * Borrow what is an ordinary page, and touch none; copy the rest.  @young is a
 * constant, so that the loop does not ask.
 */
static __always_inline void cow_pte_borrow_table(struct mm_struct *mm, pte_t *dst,
						 pte_t *src, unsigned long addr,
						 const bool young)
{
	pte_t *end = src + PTRS_PER_PTE;
	pte_t pte;

	cow_pte_inplace_begin();
	for (; src < end; dst++, src++, addr += PAGE_SIZE) {
		pte = ptep_get(src);
		if (unlikely(!pte_lendable(pte))) {
			cow_pte_copy_entry(mm, dst, src, addr, young);
			continue;
		}
		pte = pte_mkspecial(pte_wrprotect(pte));
		pte = young ? pte_mkyoung(pte) : pte_mkold(pte);
		set_pte_at(mm, addr, dst, pte);
	}
	cow_pte_inplace_end();
}

static int cow_pte_do_break(struct mm_struct *mm, pmd_t *pmd, unsigned long addr,
			    bool lend, unsigned long caller)
{
	unsigned long slot = cow_pte_slot(addr);
	struct ptdesc *ptdesc;
	swp_entry_t entry;
	spinlock_t *pml, *ptl;
	pgtable_t new = NULL;
	pte_t *table;

again:
	pml = pmd_lock(mm, pmd);
	if (!pmd_table_protected(*pmd)) {
		/* If not, another thread of this mm was here first. */
		if (pmd_table_borrows(*pmd))
			cow_pte_end_borrower(mm, pmd, slot, false);
		goto unlock_pmd;
	}

	ptdesc = pmd_table_ptdesc(*pmd);
	ptl = ptlock_ptr(ptdesc);
	spin_lock_nested(ptl, SINGLE_DEPTH_NESTING);
	if (unlikely(cow_pte_crowded(ptdesc))) {
		spin_unlock(ptl);
		spin_unlock(pml);
		cow_pte_settle_crowd(mm, pmd, slot, false);
		goto again;
	}
	if (ptdesc->pt_cow_sharers == 1) {
		cow_pte_reuse(mm, pmd, ptdesc, slot);
		cow_pte_count(mm, COW_PTE_REUSE, 1);
		trace_cow_pte_reuse(mm, slot, caller);
		goto unlock_pte;
	}
	if (!new) {
		spin_unlock(ptl);
		spin_unlock(pml);
		new = pte_alloc_one(mm);
		if (!new)
			return -ENOMEM;
		goto again;
	}
	if (cow_pte_dup_swap(mm, pmd_table(*pmd), &entry)) {
		spin_unlock(ptl);
		spin_unlock(pml);
		if (!add_swap_count_continuation(entry, GFP_KERNEL))
			goto again;
		pte_free(mm, new);
		return -ENOMEM;
	}

	/*
	 * All under one hold of the table's lock: nobody changes it between
	 * the copy and the switch, and nobody finds us neither here nor there.
	 */
	table = pgtable_table(new);
	if (lend && cow_pte_may_lend(ptdesc)) {
		if (cow_pte_first(mm, ptdesc))
			cow_pte_borrow_table(mm, table, pmd_table(*pmd), slot, true);
		else
			cow_pte_borrow_table(mm, table, pmd_table(*pmd), slot, false);
		cow_pte_lend(ptdesc, virt_to_ptdesc(table));
		atomic_long_inc(&mm->cow_pte.nr_borrowing);
		cow_pte_count(mm, COW_PTE_LEND, 1);
		smp_wmb(); /* See comment in pmd_install() */
		pmdp_table_borrow(mm, pmd, table);
	} else {
		cow_pte_copy_table(mm, table, pmd_table(*pmd), slot,
				   cow_pte_first(mm, ptdesc));
		clear_bit(PT_cow_tainted, &ptdesc->__page_flags);
		smp_wmb(); /* See comment in pmd_install() */
		pmd_populate(mm, pmd, new);
	}
	new = NULL;
	/*
	 * Before we leave: the last sharer may write the table, or the table
	 * may be freed, while a CPU of ours still walks it (I4).
	 */
	cow_pte_flush(mm, slot, slot + PMD_SIZE);
	cow_pte_take_delta(mm, ptdesc, slot);
	cow_pte_leave(ptdesc);
	atomic_long_dec(&mm->cow_pte.nr_protected);
	cow_pte_count(mm, COW_PTE_BREAK, 1);
	if (lend)
		cow_pte_count(mm, COW_PTE_BREAK_FAULT, 1);
	trace_cow_pte_break(mm, slot, caller);
unlock_pte:
	spin_unlock(ptl);
unlock_pmd:
	spin_unlock(pml);
	if (new)
		pte_free(mm, new);
	return 0;
}

int __cow_pte_break(struct mm_struct *mm, pmd_t *pmd, unsigned long addr)
{
	cow_pte_file_leave_slot(mm, pmd, addr);
	return cow_pte_do_break(mm, pmd, addr, false, _RET_IP_);
}

int __cow_pte_break_range(struct mm_struct *mm, unsigned long start,
			  unsigned long end)
{
	unsigned long addr = cow_pte_slot(start);
	pmd_t *pmd;
	int ret;

	mmap_assert_locked(mm);
	cow_pte_file_leave_range(mm, start, end);
	for (; (pmd = cow_pte_next_pmd(mm, &addr, end)); addr += PMD_SIZE) {
		ret = cow_pte_break(mm, pmd, addr);
		if (ret)
			return ret;
		cond_resched();
	}
	return 0;
}

int __cow_pte_break_edges(struct mm_struct *mm, unsigned long start,
			  unsigned long end)
{
	int ret = 0;

	if (start & ~PMD_MASK)
		ret = __cow_pte_break_range(mm, start, start + 1);
	if (!ret && (end & ~PMD_MASK))
		ret = __cow_pte_break_range(mm, end - 1, end);
	return ret;
}

bool __cow_pte_others(struct mm_struct *mm, pmd_t *pmd, unsigned long addr)
{
	struct ptdesc *ptdesc;
	spinlock_t *pml, *ptl;
	bool others = false;

again:
	pml = pmd_lock(mm, pmd);
	if (pmd_table_published(*pmd)) {
		/* Even if none has joined yet. */
		others = true;
	} else if (pmd_table_protected(*pmd)) {
		ptdesc = pmd_table_ptdesc(*pmd);
		ptl = ptlock_ptr(ptdesc);
		spin_lock_nested(ptl, SINGLE_DEPTH_NESTING);
		if (unlikely(cow_pte_crowded(ptdesc))) {
			spin_unlock(ptl);
			spin_unlock(pml);
			cow_pte_settle_crowd(mm, pmd, cow_pte_slot(addr), false);
			goto again;
		}
		others = ptdesc->pt_cow_sharers > 1;
		if (!others) {
			cow_pte_reuse(mm, pmd, ptdesc, cow_pte_slot(addr));
			cow_pte_count(mm, COW_PTE_REUSE, 1);
			trace_cow_pte_reuse(mm, cow_pte_slot(addr), _RET_IP_);
		}
		spin_unlock(ptl);
	} else if (pmd_table_borrows(*pmd)) {
		cow_pte_end_borrower(mm, pmd, cow_pte_slot(addr), false);
	}
	spin_unlock(pml);
	return others;
}

void __cow_pte_take_back(struct mm_struct *mm, unsigned long addr)
{
	pmd_t *pmd = cow_pte_find_pmd(mm, addr);

	if (pmd)
		cow_pte_others(mm, pmd, addr);
}

/*
 * Memory that was swapped out from under many sharers comes back for all of
 * them, as otherwise each would need a table of its own just to read.  Any of
 * them may do it: who has the entry in a shared table has the same VMA for it
 * as the others, or would have broken the table to change that.
 */
static vm_fault_t cow_pte_swapin(struct vm_fault *vmf, pte_t pte)
{
	vmf->pte = pte_offset_map_nolock(vmf->vma->vm_mm, vmf->pmd,
					 vmf->address, &vmf->ptl);
	if (!vmf->pte)
		return 0;
	vmf->orig_pte = pte;
	vmf->flags |= FAULT_FLAG_ORIG_PTE_VALID;
	return do_swap_page(vmf);
}

/*
 * A NUMA hint that was there at fork(): for the same reason it goes away for
 * all sharers.  Read-only; who is alone with the page finds out when he writes.
 */
static void cow_pte_unhint(struct vm_fault *vmf, pte_t *ptep, pte_t pte)
{
	struct vm_area_struct *vma = vmf->vma;

	pte = pte_mkyoung(pte_modify(pte, vma->vm_page_prot));
	cow_pte_inplace_begin();
	set_pte_at(vma->vm_mm, vmf->address, ptep, pte_wrprotect(pte));
	cow_pte_inplace_end();
}

/**
 * cow_pte_restore - give a table that is the mm's own again its writable entries
 * @vmf: a fault in it
 *
 * Where to protect a table was to write-protect its entries, what was writable is
 * still exclusive.  It gets back what mprotect() would give it; otherwise each page
 * would take a fault.  Only once, and only in the VMA of the fault.
 */
void cow_pte_restore(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	unsigned long addr = max(cow_pte_slot(vmf->address), vma->vm_start);
	unsigned long end = min(cow_pte_slot(vmf->address) + PMD_SIZE, vma->vm_end);
	pte_t *start, *pte, ptent;
	spinlock_t *ptl;	/* the table's */

	/* Not for a debugger, who may write where the process may not. */
	if (!arch_table_restores(vma->vm_mm) ||
	    !(vmf->flags & FAULT_FLAG_WRITE) || !(vma->vm_flags & VM_WRITE))
		return;
	start = pte_offset_map_lock(vma->vm_mm, vmf->pmd, addr, &ptl);
	if (!start)
		return;
	if (pmd_table_restores(*vmf->pmd) && !pmd_shared_pte(*vmf->pmd)) {
		ptep_table_restore(start, false);
		for (pte = start; addr < end; pte++, addr += PAGE_SIZE) {
			ptent = ptep_get(pte);
			if (pte_present(ptent) && !pte_write(ptent) &&
			    can_change_pte_writable(vma, addr, ptent))
				ptep_table_upgrade(vma->vm_mm, addr, pte, ptent,
						   pte_mkwrite(ptent, vma));
		}
	}
	pte_unmap_unlock(start, ptl);
}

/* A table of its own, of which the entry at hand may be borrowed. */
static vm_fault_t cow_pte_settle_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	spinlock_t *ptl;	/* the table's */
	bool borrows;
	pte_t *pte;

	pte = pte_offset_map_lock(vma->vm_mm, vmf->pmd, vmf->address, &ptl);
	if (!pte)
		return 0;
	borrows = ptdesc_cow_pte(virt_to_ptdesc(pte)) &&
		  virt_to_ptdesc(pte)->pt_cow_word & COW_PTE_BORROWS;
	if (borrows)
		cow_pte_settle_entry(vma->vm_mm, virt_to_ptdesc(pte),
				     vmf->address, pte);
	pte_unmap_unlock(pte, ptl);
	/* That is over, or something else is special in a VMA that is new there. */
	if (!borrows || (vma->vm_flags & COW_PTE_NO_VMA))
		__cow_pte_break(vma->vm_mm, vmf->pmd, vmf->address);
	return VM_FAULT_FALLBACK;
}

vm_fault_t __cow_pte_fault(struct vm_fault *vmf)
{
	struct mm_struct *mm = vmf->vma->vm_mm;
	spinlock_t *ptl;	/* the table's */
	pte_t *pte, ptent;

	if (!pmd_table_protected(pmdp_get_lockless(vmf->pmd)))
		return cow_pte_settle_fault(vmf);
	if (!(vmf->flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE))) {
		/*
		 * A read of what is there changes nothing.  It must not get
		 * into handle_pte_fault() either: the entry might be gone by
		 * the time that it looks.
		 */
		pte = pte_offset_map_lock(mm, vmf->pmd, vmf->address, &ptl);
		if (!pte)
			return 0;
		ptent = ptep_get(pte);
		if (pte_protnone(ptent) && vma_is_accessible(vmf->vma) &&
		    cow_pte_shared(pte)) {
			cow_pte_unhint(vmf, pte, ptent);
			ptent = ptep_get(pte);
		}
		/* Not every CPU does so by itself. */
		if (pte_present(ptent) && !pte_young(ptent)) {
			cow_pte_inplace_begin();
			ptep_set_access_flags(vmf->vma, vmf->address, pte,
					      pte_mkyoung(ptent), 0);
			cow_pte_inplace_end();
		}
		pte_unmap_unlock(pte, ptl);
		if (pte_present(ptent) && !(pte_protnone(ptent) &&
					    vma_is_accessible(vmf->vma)))
			return 0;
		if (is_swap_pte(ptent)) {
			swp_entry_t entry = pte_to_swp_entry(ptent);

			if (is_migration_entry(entry)) {
				migration_entry_wait(mm, vmf->pmd,
						     vmf->address);
				return 0;
			}
			if (!non_swap_entry(entry))
				return cow_pte_swapin(vmf, ptent);
		}
	}
	if (cow_pte_do_break(mm, vmf->pmd, vmf->address, true, _RET_IP_))
		return VM_FAULT_OOM;
	return pmd_table_borrows(pmdp_get_lockless(vmf->pmd)) ?
		cow_pte_settle_fault(vmf) : VM_FAULT_FALLBACK;
}

/*
 * Drop and free
 */

/*
 * The part of a shared table that is to be zapped must be empty: who changes
 * part of a range breaks the table first, and who maps something new into a
 * hole of it breaks it when it installs the first entry.
 */
static void cow_pte_check_empty(struct mm_struct *mm, pmd_t *pmd,
				unsigned long addr, unsigned long end)
{
	spinlock_t *ptl;	/* the table's */
	pte_t *start, *pte;

	if (!IS_ENABLED(CONFIG_DEBUG_COW_PTE) ||
	    test_bit(MMF_UNSTABLE, &mm->flags))
		return;
	start = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!start)
		return;
	if (pmd_cow_pte(*pmd))
		for (pte = start; addr < end; pte++, addr += PAGE_SIZE)
			WARN_ONCE(!pte_none(ptep_get(pte)),
				  "cow_pte: guard: zap of a shared table in part, at 0x%lx\n",
				  addr);
	pte_unmap_unlock(start, ptl);
}

/* The table keeps its delta: it is the others'. */
static noinline void cow_pte_drop_rss(struct mm_struct *mm,
				      struct ptdesc *ptdesc, pte_t *table)
{
	int rss[NR_MM_COUNTERS], i;

	cow_pte_base(ptdesc, table, rss);
	for (i = 0; i < NR_MM_COUNTERS; i++)
		if (rss[i])
			add_mm_counter(mm, i, -rss[i]);
}

/* Nor are KSM's zero pages among what it has, see ksm_might_unmap_zero_page(). */
static void cow_pte_drop_zero_pages(struct mm_struct *mm, pte_t *pte)
{
	int i;

	if (!mm_ksm_zero_pages(mm))
		return;
	for (i = 0; i < PTRS_PER_PTE; i++, pte++)
		if (pte_present(ptep_get(pte)))
			ksm_might_unmap_zero_page(mm, ptep_get(pte));
}

/*
 * The mm leaves the table, of which it has flushed nothing yet if it lives.
 * Return: 1; 0 if the table is its own again, to be zapped the ordinary way; -EAGAIN
 * if a crowd has to be settled before that.
 */
static __always_inline int cow_pte_drop(struct mm_struct *mm, pmd_t *pmd,
					unsigned long slot, bool dying)
{
	struct ptdesc *ptdesc = pmd_table_ptdesc(*pmd);
	spinlock_t *ptl = ptlock_ptr(ptdesc);
	pte_t *table = pmd_table(*pmd);

	spin_lock_nested(ptl, SINGLE_DEPTH_NESTING);
	if (ptdesc->pt_cow_sharers == 1) {
		if (cow_pte_crowded(ptdesc)) {
			spin_unlock(ptl);
			return -EAGAIN;
		}
		if (dying)
			cow_pte_merge(mm, ptdesc, slot);
		cow_pte_reuse(mm, pmd, ptdesc, slot);
		spin_unlock(ptl);
		return 0;
	}
	if (!dying || IS_ENABLED(CONFIG_DEBUG_COW_PTE))
		cow_pte_drop_rss(mm, ptdesc, table);
	pmd_clear(pmd);
	trace_cow_pte_drop(mm, slot, _RET_IP_);
	if (!dying) {
		cow_pte_flush(mm, slot, slot + PMD_SIZE);
		cow_pte_drop_zero_pages(mm, table);
	}
	cow_pte_leave(ptdesc);
	spin_unlock(ptl);
	return 1;
}

/*
 * Nothing runs in a dying mm, but a CPU may still walk its tables,
 * speculatively.  Before the first table is left, or page given back, that must
 * be over: the others may free its pages.
 */
void cow_pte_unload(struct mm_struct *mm)
{
	if (mm->cow_pte.unloaded)
		return;
	arch_cow_pte_unload(mm);
	mm->cow_pte.unloaded = true;
}

/* So many are dropped under one hold of the PMD page's lock. */
#define COW_PTE_DROP_MAX	64

/*
 * A dying mm, of which no CPU walks the tables any more: what it had is settled
 * by __cow_pte_mm_exit(), for who looks at it now?  The lock keeps the OOM reaper
 * away.
 * Return: the number of entries that are none now, or -EAGAIN as cow_pte_drop().
 */
static noinline long cow_pte_drop_run(struct mm_struct *mm, pmd_t *pmd,
				      unsigned long slot, unsigned long end)
{
	unsigned long nr_dropped = 0;
	pmd_t *start = pmd;
	spinlock_t *pml;	/* of the PMD page */
	int ret = 0;

	end = min(end, slot + COW_PTE_DROP_MAX * PMD_SIZE);
	pml = pmd_lock(mm, pmd);
	for (; slot < end; slot += PMD_SIZE, pmd++) {
		if (unlikely(!pmd_table_protected(*pmd))) {
			if (pmd_none(*pmd))
				continue;
			break;
		}
		ret = cow_pte_drop(mm, pmd, slot, true);
		if (ret <= 0)
			break;
		nr_dropped++;
	}
	mm->cow_pte.nr_dropped += nr_dropped;
	spin_unlock(pml);
	return pmd == start ? ret : pmd - start;
}

long __cow_pte_zap(struct mmu_gather *tlb, struct vm_area_struct *vma,
		   pmd_t *pmd, unsigned long addr, unsigned long end,
		   struct zap_details *details)
{
	unsigned long slot = cow_pte_slot(addr);
	unsigned long next = pmd_addr_end(addr, end);
	struct mm_struct *mm = tlb->mm;
	spinlock_t *pml;	/* of the PMD page */
	long dropped;

	/* By file offset: in place, for all sharers. */
	if (cow_pte_zap_by_offset(details))
		return 0;

	/* Who could leave it, has; another thread was faster to come back. */
	if (pmd_table_published(pmdp_get_lockless(pmd)))
		return 1;

	if (!pmd_table_protected(pmdp_get_lockless(pmd))) {
		if (tlb->fullmm)
			cow_pte_unload(mm);
		pml = pmd_lock(mm, pmd);
		if (pmd_table_borrows(*pmd))
			cow_pte_end_borrower(mm, pmd, slot, tlb->fullmm);
		spin_unlock(pml);
		return 0;
	}

	/* Whatever VMAs it covers, does the whole of the table go away? */
	if (details ? slot < details->start || slot + PMD_SIZE > details->end :
		      next - addr != PMD_SIZE) {
		if (!__cow_pte_others(mm, pmd, addr))
			return 0;
		cow_pte_check_empty(mm, pmd, addr, next);
		return 1;
	}

	if (tlb->fullmm) {
		cow_pte_unload(mm);
		while ((dropped = cow_pte_drop_run(mm, pmd, slot, end)) < 0)
			cow_pte_settle_crowd(mm, pmd, slot, false);
		return dropped;
	}

again:
	dropped = 0;
	pml = pmd_lock(mm, pmd);
	if (pmd_table_protected(*pmd))
		dropped = cow_pte_drop(mm, pmd, slot, false);
	else if (pmd_table_borrows(*pmd))	/* Another thread was faster. */
		cow_pte_end_borrower(mm, pmd, slot, false);
	spin_unlock(pml);
	if (dropped < 0) {
		cow_pte_settle_crowd(mm, pmd, slot, false);
		goto again;
	}
	if (dropped) {
		atomic_long_dec(&mm->cow_pte.nr_protected);
		mm_dec_nr_ptes(mm);
		cow_pte_count(mm, COW_PTE_DROP, 1);
	}
	return dropped;
}

static void cow_pte_free_rcu(struct rcu_head *head)
{
	struct ptdesc *ptdesc = container_of(head, struct ptdesc, pt_rcu_head);
	pte_t *pte = ptdesc_address(ptdesc);
	int i;

	if (IS_ENABLED(CONFIG_DEBUG_COW_PTE))
		for (i = 0; i < PTRS_PER_PTE; i++, pte++)
			WARN_ONCE(!pte_none(ptep_get(pte)),
				  "cow_pte: guard: table freed with entries in it\n");
	VM_WARN_ON_ONCE(ptdesc->pt_cow_loan);
	clear_bit(PT_cow, &ptdesc->__page_flags);
	clear_bit(PT_cow_tainted, &ptdesc->__page_flags);
	pagetable_pte_dtor(ptdesc);
	pagetable_free(ptdesc);
}

/**
 * __cow_pte_free - free a table that has been shared
 * @ptdesc: the table; its last mm has been flushed
 *
 * After a grace period, always: a software walker may have found it through an
 * mm that left long ago, and no IPI of the last owner reaches that one.
 */
void __cow_pte_free(struct ptdesc *ptdesc)
{
	call_rcu(&ptdesc->pt_rcu_head, cow_pte_free_rcu);
}

/* The gather frees it after its flush, see __tlb_remove_table(). */
void __cow_pte_free_tlb(struct mmu_gather *tlb, pte_t *table,
			unsigned long addr)
{
	tlb_flush_pmd_range(tlb, addr, PAGE_SIZE);
	tlb->freed_tables = 1;
	arch_cow_pte_free_tlb(tlb, table, addr);
}

/*
 * In place: what rmap does to a shared table, for all sharers
 */

unsigned int __cow_pte_sharers(pte_t *ptep)
{
	struct ptdesc *ptdesc = virt_to_ptdesc(ptep);

	return ptdesc_cow_pte(ptdesc) ? READ_ONCE(ptdesc->pt_cow_sharers) : 0;
}

static void cow_pte_add_rss(struct mm_struct *mm, unsigned long addr,
			    pte_t *ptep, const int *rss)
{
	struct cow_pte_family *family = mm->cow_pte.family;
	struct ptdesc *ptdesc;
	int i;

	if (!ptep || !__cow_pte_sharers(ptep)) {
		cow_pte_add_private(mm, addr, rss);
		return;
	}
	ptdesc = virt_to_ptdesc(ptep);
	for (i = 0; i < NR_MM_COUNTERS; i++)
		ptdesc->pt_cow_delta[i] += rss[i];
	if (ptdesc->pt_cow_word & COW_PTE_FILE)
		return;
	if (!family->changed)
		WRITE_ONCE(family->changed, true);
	if (rss[MM_SWAPENTS] > 0)
		cow_pte_family_swap(family);
}

void __cow_pte_add_mm_counter(struct mm_struct *mm, unsigned long addr,
			      pte_t *ptep, int member, int value)
{
	int rss[NR_MM_COUNTERS] = {};

	rss[member] = value;
	cow_pte_add_rss(mm, addr, ptep, rss);
}

void __cow_pte_account_swap(struct mm_struct *mm, unsigned long addr,
			    pte_t *ptep, int nr)
{
	const int rss[NR_MM_COUNTERS] = {
		[MM_ANONPAGES] = -nr,
		[MM_SWAPENTS] = nr,
	};

	cow_pte_add_rss(mm, addr, ptep, rss);
}

void __cow_pte_acct_arg_size(struct mm_struct *mm, long nr)
{
	spin_lock(&mm->cow_pte.lock);
	atomic_long_add(nr, &mm->cow_pte.nr_arg_pages);
	add_mm_counter(mm, MM_ANONPAGES, nr);
	cow_pte_changed(mm);
	spin_unlock(&mm->cow_pte.lock);
}

void __cow_pte_flush_sharers(struct mm_struct *mm, unsigned long addr,
			     pte_t *ptep, pte_t pteval, enum ttu_flags flags)
{
	struct ptdesc *ptdesc = virt_to_ptdesc(ptep);
	const struct cow_pte_range range = {
		.start = addr,
		.end = addr + PAGE_SIZE,
		.batch = true,
		.pteval = pteval,
		.flags = flags,
	};

	if (cow_pte_flush_few(mm, ptdesc, &range))
		return;
	/*
	 * One broadcast for the whole of reclaim's batch.  The sharers are not
	 * told that it is pending: who leaves flushes anyway, see cow_pte_reuse()
	 * for who stays.
	 */
	if (try_to_unmap_flush_everybody(pteval, flags))
		ptdesc->pt_cow_word |= COW_PTE_UNFLUSHED;
	else
		arch_cow_pte_flush_all();
}

/*
 * To a fork() in the middle of a table an entry is ahead or behind: zap those
 * behind first.
 */
unsigned long __cow_pte_zap_begin(struct mm_struct *mm, pte_t *ptep,
				  unsigned long addr, unsigned long end)
{
	struct ptdesc *ptdesc = virt_to_ptdesc(ptep);
	struct cow_pte_fork *fork;

	/* Each entry is settled in all tables that borrow it. */
	if (ptdesc_cow_pte(ptdesc) &&
	    cow_pte_nr_borrowers(ptdesc) > COW_PTE_SETTLE_MAX)
		end = min(end, addr + PTRS_PER_PTE / 8 * PAGE_SIZE);
	spin_lock(&mm->cow_pte.lock);
	fork = mm->cow_pte.fork;
	if (fork && fork->pos > addr && fork->pos < end)
		end = fork->pos;
	spin_unlock(&mm->cow_pte.lock);
	cow_pte_settle(mm, addr, ptep, (end - addr) >> PAGE_SHIFT);
	return end;
}

/*
 * Pages were zapped by file offset.  The gather knows one mm: flush the others
 * here, before it frees the pages and before the table's lock is dropped.
 */
void __cow_pte_zap_end(struct mmu_gather *tlb, unsigned long addr, pte_t *ptep,
		       int *rss)
{
	struct ptdesc *ptdesc = virt_to_ptdesc(ptep);
	unsigned long slot = cow_pte_slot(addr);
	const struct cow_pte_range range = {
		.start = slot,
		.end = slot + PMD_SIZE,
	};

	cow_pte_add_rss(tlb->mm, addr, ptep, rss);
	/* Each VMA that maps the file comes here; the first found entries. */
	if (!cow_pte_shared(ptep) ||
	    (!tlb->cleared_ptes && !(ptdesc->pt_cow_word & COW_PTE_UNFLUSHED)))
		return;
	if ((ptdesc->pt_cow_word & COW_PTE_UNFLUSHED) ||
	    !cow_pte_flush_few(tlb->mm, ptdesc, &range)) {
		arch_cow_pte_flush_all();
		ptdesc->pt_cow_word &= ~COW_PTE_UNFLUSHED;
	}
}

void __cow_pte_taint(struct ptdesc *ptdesc)
{
	if (test_bit(PT_cow_tainted, &ptdesc->__page_flags))
		return;
	set_bit(PT_cow_tainted, &ptdesc->__page_flags);
	/* GUP-fast looks at the PMD entry again: fork() sees this, or it that. */
	smp_mb__after_atomic();
}

int __cow_pte_gup(pmd_t pmd, pte_t *ptep, struct page *page,
		  unsigned int flags)
{
	bool protected = pmd_table_protected(pmd);

	if (protected && (flags & FOLL_WRITE))
		return -EFAULT;
	if (!page || !PageAnon(page))
		return 0;
	if (protected && (flags & FOLL_PIN))
		return -EMLINK;
	if (flags & FOLL_GET)
		__cow_pte_taint(virt_to_ptdesc(ptep));
	return 0;
}

/*
 * Observers
 */

/*
 * Accessed bits of a shared table are set by whoever maps it, and remain when
 * it is shared no longer: to one process they would tell what another does.
 * It is shown what fork() leaves behind instead, a parent's pages as accessed
 * and a child's as not, until it makes a new beginning through clear_refs.
 */
void __cow_pte_view(struct cow_pte_view *view, struct mm_struct *mm, pte_t *ptep)
{
	struct ptdesc *ptdesc = virt_to_ptdesc(ptep);

	view->own = max(__cow_pte_sharers(ptep), 1U) - 1;
	if (ptdesc_cow_pte(ptdesc)) {
		view->mixed = cow_pte_mixed(ptdesc);
		view->first = cow_pte_first(mm, ptdesc);
	}
	/* Nobody is first with a file. */
	if (ptdesc_cow_pte_file(ptdesc)) {
		view->mixed = true;
		view->first = true;
	}
	view->searched = false;
	if (ptdesc_cow_pte(ptdesc) && ptdesc->pt_cow_word & COW_PTE_LENDS)
		view->loans = ptdesc->pt_cow_loan;
}

void __cow_pte_clear_young(struct vm_area_struct *vma, unsigned long addr,
			   pte_t *ptep)
{
	struct ptdesc *ptdesc = virt_to_ptdesc(ptep);
	pte_t *pte = cow_pte_table(ptep);
	int i;

	if (!ptdesc_cow_pte(ptdesc) || !cow_pte_mixed(ptdesc) ||
	    ptdesc->pt_cow_sharers)
		return;
	addr = cow_pte_slot(addr);
	for (i = 0; i < PTRS_PER_PTE; i++, pte++, addr += PAGE_SIZE)
		if (pte_present(ptep_get(pte)))
			ptep_test_and_clear_young(vma, addr, pte);
	ptdesc->pt_cow_word &= ~COW_PTE_MIXED;
}

/* Not more processes than this are searched for the sake of statistics. */
#define COW_PTE_SEARCH_MAX	64

/* The shared tables that other members of the family have in this slot. */
static noinline void cow_pte_search(struct cow_pte_view *view,
				    struct mm_struct *mm, unsigned long addr,
				    struct ptdesc *own)
{
	struct cow_pte_family *family = mm->cow_pte.family;
	int left = family ? refcount_read(&family->refs) - 1 - view->own : 0;
	struct mm_struct *pos;
	struct ptdesc *ptdesc;
	pmd_t *pmd, pmdval;
	unsigned int sharers, i;
	bool protected;
	pte_t *table;

	if (left <= 0 || left >= COW_PTE_SEARCH_MAX)
		return;
	spin_lock(&family->lock);
	list_for_each_entry(pos, &family->mms, cow_pte.siblings) {
		if (left <= 0 || view->nr == ARRAY_SIZE(view->table))
			break;
		/* See cow_pte_is_sharer() */
		local_irq_disable();
		pmd = pos == mm ? NULL : cow_pte_find_pmd(pos, addr);
		pmdval = pmd ? pmdp_get_lockless(pmd) : __pmd(0);
		protected = pmd_table_protected(pmdval);
		local_irq_enable();
		if (!protected)
			continue;
		ptdesc = pmd_table_ptdesc(pmdval);
		sharers = READ_ONCE(ptdesc->pt_cow_sharers);
		if (ptdesc == own || sharers < 2)
			continue;
		table = pmd_table(pmdval);
		for (i = 0; i < view->nr && view->table[i] != table; i++)
			;
		if (i == view->nr) {
			view->table[i] = table;
			view->hidden[i] = sharers - 1;
			view->nr++;
			left -= sharers;
		}
	}
	spin_unlock(&family->lock);
}

int __cow_pte_hidden_mappings(struct cow_pte_view *view, struct mm_struct *mm,
			      unsigned long addr, pte_t *ptep)
{
	unsigned long index = pte_index(addr), pfn = 0;
	pte_t pte = ptep_get(ptep), other;
	swp_entry_t entry = {};
	int hidden = view->own;
	struct ptdesc *borrower;
	unsigned int i;

	/* Loans end under this table's lock. */
	for (borrower = view->loans; borrower; borrower = borrower->pt_cow_next)
		hidden += cow_pte_entry_borrowed(ptep_get(cow_pte_ptdesc_table(borrower) +
							  index));
	if (!view->searched) {
		cow_pte_search(view, mm, addr, virt_to_ptdesc(ptep));
		view->searched = true;
	}
	if (pte_present(pte))
		pfn = pte_pfn(pte);
	else
		entry = pte_to_swp_entry(pte);
	for (i = 0; i < view->nr; i++) {
		other = ptep_get(view->table[i] + index);
		if (pte_none(other) || pte_present(other) != pte_present(pte))
			continue;
		if (pte_present(pte) ? pte_pfn(other) == pfn :
				       pte_to_swp_entry(other).val == entry.val)
			hidden += view->hidden[i];
	}
	return hidden;
}

#ifdef CONFIG_DEBUG_COW_PTE
/* Neither side of a loan changes before it is settled (B1). */
static void cow_pte_guard_loan(struct ptdesc *ptdesc, pte_t *ptep)
{
	struct ptdesc *borrower;

	if (ptdesc->pt_cow_word & COW_PTE_BORROWS)
		WARN_ONCE(cow_pte_entry_borrowed(ptep_get(ptep)),
			  "cow_pte: guard: borrowed entry changed\n");
	if (!(ptdesc->pt_cow_word & COW_PTE_LENDS))
		return;
	for (borrower = ptdesc->pt_cow_loan; borrower;
	     borrower = borrower->pt_cow_next)
		WARN_ONCE(cow_pte_entry_borrowed(ptep_get(cow_pte_ptdesc_table(borrower) +
							  (ptep - cow_pte_table(ptep)))),
			  "cow_pte: guard: entry changed of which one is borrowed\n");
}

/* In the table of a file anybody may add an entry, or permissions to one. */
static bool cow_pte_guard_adds(pte_t old, pte_t new)
{
	return pte_none(old) ||
	       (pte_present(old) && pte_present(new) &&
		pte_pfn(old) == pte_pfn(new) && pte_write(old) <= pte_write(new) &&
		pte_dirty(old) <= pte_dirty(new));
}

static bool cow_pte_guard_writable(pte_t pte)
{
	return pte_present(pte) ? pte_write(pte) :
	       is_swap_pte(pte) &&
	       is_writable_migration_entry(pte_to_swp_entry(pte));
}

/*
 * Every software write to a PTE comes through here.  A table with more than
 * one sharer may be changed only for all of them (I3).
 */
void __cow_pte_guard(void *ptep, unsigned long val)
{
	struct ptdesc *ptdesc;

	if (!cow_pte_enabled() || !virt_addr_valid(ptep))
		return;
	ptdesc = virt_to_ptdesc(ptep);
	if (!folio_test_pgtable(ptdesc_folio(ptdesc)) || !ptdesc_cow_pte(ptdesc))
		return;
	if (current->cow_pte_inplace < COW_PTE_LOAN)
		cow_pte_guard_loan(ptdesc, ptep);
	if (READ_ONCE(ptdesc->pt_cow_sharers) < 2)
		return;
	/* Where the entries are all that protects the table. */
	if (arch_table_entries_protect() && !(ptdesc->pt_cow_word & COW_PTE_FILE))
		WARN_ONCE(cow_pte_guard_writable(__pte(val)),
			  "cow_pte: guard: writable entry in a shared table\n");
	if (current->cow_pte_inplace)
		return;
	if (ptdesc->pt_cow_word & COW_PTE_FILE &&
	    cow_pte_guard_adds(ptep_get(ptep), __pte(val)))
		return;
	WARN_ONCE(1, "cow_pte: guard: PTE table with %u sharers changed for one\n",
		  ptdesc->pt_cow_sharers);
}
EXPORT_SYMBOL_GPL(__cow_pte_guard);
#endif

/*
 * User interface
 */

bool cow_pte_supported(void)
{
	return arch_supports_cow_pte();
}

/* Somebody wants to share, now or once the mode is other than never. */
static bool cow_pte_asked;

static DEFINE_MUTEX(cow_pte_enable_mutex);

/*
 * The hooks are patched in one after the other: nobody may share before the last
 * one is there, and before GUP is over that missed one, see cow_pte_track().
 * The key stays on: tables may be shared even if nobody wants more of them.
 */
void cow_pte_enable(void)
{
	mutex_lock(&cow_pte_enable_mutex);
	if (!cow_pte_ready) {
		static_branch_enable(&cow_pte_key);
		synchronize_rcu();
		/* Pairs with cow_pte_wanted() */
		smp_store_release(&cow_pte_ready, true);
	}
	mutex_unlock(&cow_pte_enable_mutex);
}

/**
 * cow_pte_prctl_set - opt an mm in or out
 * @mm: the mm
 * @on: 0 or 1
 *
 * Tables that are shared already stay so until somebody changes them.  May
 * sleep; takes the mmap_lock.
 *
 * Return: 0, -EINVAL if @on is neither 0 nor 1, -EOPNOTSUPP if this machine
 * cannot write-protect a table, -EINTR if the caller was killed meanwhile.
 */
int cow_pte_prctl_set(struct mm_struct *mm, unsigned long on)
{
	if (on > 1)
		return -EINVAL;
	if (!cow_pte_supported())
		return -EOPNOTSUPP;
	if (!on) {
		clear_bit(MMF_COW_PTE, &mm->flags);
		return 0;
	}
	/* Pairs with cow_pte_set_mode(): one of both sees the other. */
	smp_store_mb(cow_pte_asked, true);
	/* Not at the cost of all, while nobody may. */
	if (READ_ONCE(cow_pte_mode) != COW_PTE_NEVER)
		cow_pte_enable();
	/* Pairs with cow_pte_enable() */
	if (smp_load_acquire(&cow_pte_ready)) {
		if (mmap_write_lock_killable(mm))
			return -EINTR;
		cow_pte_arm(mm);
		cow_pte_track(mm);
		mmap_write_unlock(mm);
	}
	set_bit(MMF_COW_PTE, &mm->flags);
	return 0;
}

#ifdef CONFIG_PROC_FS
/* How many have the table behind an entry, 0 if it is private or of a file. */
static unsigned int cow_pte_nr_sharers(struct mm_struct *mm, pmd_t *pmd)
{
	spinlock_t *pml = pmd_lock(mm, pmd);
	unsigned int nr = 0;

	if (pmd_table_protected(*pmd))
		nr = READ_ONCE(pmd_table_ptdesc(*pmd)->pt_cow_sharers);
	spin_unlock(pml);
	return nr;
}

/**
 * cow_pte_stat_show - print what /proc/PID/cow_pte_stat says
 * @m: where to
 * @mm: the mm
 *
 * May sleep; takes the mmap_lock for reading.
 *
 * Return: 0, or -EINTR if the caller was killed meanwhile.
 */
int cow_pte_stat_show(struct seq_file *m, struct mm_struct *mm)
{
	unsigned long nr_shared = 0, nr_alone = 0, saved = 0, addr = 0;
	struct vm_area_struct *vma;
	unsigned int sharers;
	const char *skip;
	pmd_t *pmd;
	int i;

	VMA_ITERATOR(vmi, mm, 0);

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for_each_vma(vmi, vma) {
		if (!atomic_long_read(&mm->cow_pte.nr_protected))
			break;
		/* Several may lie above one table. */
		addr = cow_pte_slot(max(addr, vma->vm_start));
		for (; (pmd = cow_pte_next_pmd(mm, &addr, vma->vm_end));
		     addr += PMD_SIZE) {
			sharers = cow_pte_nr_sharers(mm, pmd);
			if (sharers > 1) {
				nr_shared++;
				saved += COW_PTE_TABLE_SIZE -
					 COW_PTE_TABLE_SIZE / sharers;
			} else if (sharers) {
				nr_alone++;
			}
			cond_resched();
		}
	}
	mmap_read_unlock(mm);

	seq_printf(m, "shared_bytes %lu\n", nr_shared * COW_PTE_TABLE_SIZE);
	seq_printf(m, "alone_bytes %lu\n", nr_alone * COW_PTE_TABLE_SIZE);
	seq_printf(m, "borrowing_bytes %lu\n",
		   atomic_long_read(&mm->cow_pte.nr_borrowing) * COW_PTE_TABLE_SIZE);
	seq_printf(m, "file_bytes %lu\n", cow_pte_published_bytes(mm));
	seq_printf(m, "saved_bytes %lu\n", saved);
	skip = READ_ONCE(mm->cow_pte.last_skip);
	seq_printf(m, "last_fork_share %lu\n", READ_ONCE(mm->cow_pte.last_shared));
	seq_printf(m, "last_fork_skip %s\n", skip ?: "-");
	for (i = 0; i < COW_PTE_NR_EVENTS; i++)
		seq_printf(m, "%s %lu\n", cow_pte_event_name(COW_PTE_SHARE + i),
			   atomic_long_read(&mm->cow_pte.nr_events[i]));
	return 0;
}
#endif

static const char * const cow_pte_mode_name[] = {
	[COW_PTE_NEVER] = "never",
	[COW_PTE_PRCTL] = "prctl",
	[COW_PTE_ALWAYS] = "always",
};

/* Return: a mode, or -EINVAL. */
int cow_pte_parse_mode(const char *name)
{
	return sysfs_match_string(cow_pte_mode_name, name);
}

#ifdef CONFIG_SYSFS
ssize_t cow_pte_show_mode(char *buf, enum cow_pte_mode mode)
{
	return sysfs_emit(buf, "%s\n",
			  mode == COW_PTE_ALWAYS ? "[always] prctl never" :
			  mode == COW_PTE_PRCTL ? "always [prctl] never" :
						  "always prctl [never]");
}
#endif

static int cow_pte_set_mode(const char *name)
{
	int mode = cow_pte_parse_mode(name);

	if (mode < 0)
		return mode;
	if (mode == COW_PTE_ALWAYS && !cow_pte_supported())
		return -EOPNOTSUPP;
	/* Pairs with cow_pte_prctl_set() */
	smp_store_mb(cow_pte_mode, mode);
	if (mode == COW_PTE_ALWAYS ||
	    (mode == COW_PTE_PRCTL && READ_ONCE(cow_pte_asked)))
		cow_pte_enable();
	return 0;
}

static char cow_pte_param[8] __initdata;

static int __init cow_pte_setup(char *str)
{
	strscpy(cow_pte_param, str ?: "");
	return 0;
}
early_param("cow_pte", cow_pte_setup);

#ifdef CONFIG_SYSFS
static ssize_t enabled_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	return cow_pte_show_mode(buf, READ_ONCE(cow_pte_mode));
}

static ssize_t enabled_store(struct kobject *kobj, struct kobj_attribute *attr,
			     const char *buf, size_t count)
{
	int err = cow_pte_set_mode(buf);

	return err ?: count;
}

static struct kobj_attribute enabled_attr = __ATTR_RW(enabled);

static ssize_t min_tables_show(struct kobject *kobj,
			       struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", READ_ONCE(cow_pte_min_tables));
}

static ssize_t min_tables_store(struct kobject *kobj,
				struct kobj_attribute *attr, const char *buf,
				size_t count)
{
	unsigned int value;
	int err;

	err = kstrtouint(buf, 10, &value);
	if (err)
		return err;
	WRITE_ONCE(cow_pte_min_tables, value);
	return count;
}

static struct kobj_attribute min_tables_attr = __ATTR_RW(min_tables);

static struct attribute *cow_pte_attrs[] = {
	&enabled_attr.attr,
	&min_tables_attr.attr,
#ifdef CONFIG_COW_PTE_FILE
	&cow_pte_file_attr.attr,
#endif
	NULL,
};

static const struct attribute_group cow_pte_attr_group = {
	.attrs = cow_pte_attrs,
	.name = "cow_pte",
};
#endif

static int __init cow_pte_init(void)
{
	if (cow_pte_param[0] && cow_pte_set_mode(cow_pte_param))
		pr_warn("cow_pte=%s ignored\n", cow_pte_param);
#ifdef CONFIG_SYSFS
	if (sysfs_create_group(mm_kobj, &cow_pte_attr_group))
		pr_err("no sysfs group\n");
#endif
	return 0;
}
subsys_initcall(cow_pte_init);
