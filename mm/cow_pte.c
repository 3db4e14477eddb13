// SPDX-License-Identifier: GPL-2.0
/*
 * Copy-on-write page tables
 *
 * fork() attaches the parent's PTE tables to the child instead of copying
 * them: both PMD entries lose their write permission and the table counts its
 * sharers.  Who changes a shared table first makes it private: by a copy
 * (break), or by taking the write permission back when nobody else is left
 * (reuse).  Who gives up the whole range just leaves (drop).
 *
 * This file follows the life of a table: share, fault, break, reuse, drop,
 * free; then what rmap does to a shared table on behalf of all sharers, and
 * the user interface.  Documentation/mm/cow_pte.rst has the invariants.
 *
 * Locks: pmd_lock(mm) -> PTE lock of the table -> family->lock ->
 * mm->cow_pte.lock.  Every change of a PMD entry that points to a shared
 * table, and of the number of sharers, happens under the table's PTE lock;
 * so with that lock held the set of sharers stands still.
 */
#define pr_fmt(fmt) "cow_pte: " fmt

#include <linux/mm.h>
#include <linux/cow_pte.h>
#include <linux/hugetlb.h>
#include <linux/kobject.h>
#include <linux/mmu_notifier.h>
#include <linux/pgalloc.h>
#include <linux/rmap.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/userfaultfd_k.h>
#include <linux/vmstat.h>
#include <asm/tlb.h>
#include <asm/tlbflush.h>

#define CREATE_TRACE_POINTS
#include <trace/events/cow_pte.h>

#include "internal.h"

DEFINE_STATIC_KEY_FALSE(cow_pte_key);

enum cow_pte_mode {
	COW_PTE_NEVER,
	COW_PTE_PRCTL,
	COW_PTE_ALWAYS,
};

static enum cow_pte_mode cow_pte_mode __read_mostly = COW_PTE_PRCTL;

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
	struct list_head mms;
	refcount_t refs;		/* one per member */
};

static unsigned long cow_pte_slot(unsigned long addr)
{
	return addr & PMD_MASK;
}

/* Of an entry that points to a table: pmd_pfn() allows for other kinds, too. */
static struct ptdesc *pmd_pte_ptdesc(pmd_t pmd)
{
	return page_ptdesc(pfn_to_page((pmd_val(pmd) & PTE_PFN_MASK) >> PAGE_SHIFT));
}

static bool cow_pte_wanted(struct mm_struct *mm)
{
	enum cow_pte_mode mode = READ_ONCE(cow_pte_mode);

	return mode == COW_PTE_ALWAYS ||
	       (mode == COW_PTE_PRCTL && test_bit(MMF_COW_PTE, &mm->flags));
}

static void cow_pte_flush(struct mm_struct *mm, unsigned long start,
			  unsigned long end)
{
	struct vm_area_struct vma = TLB_FLUSH_VMA(mm, 0);

	flush_tlb_range(&vma, start, end);
}

/* Who has swap entries must be where swapoff looks for them. */
static void cow_pte_add_mmlist(struct mm_struct *mm, struct list_head *head)
{
	if (likely(!list_empty(&mm->mmlist)))
		return;
	spin_lock(&mmlist_lock);
	if (list_empty(&mm->mmlist))
		list_add(&mm->mmlist, head);
	spin_unlock(&mmlist_lock);
}

/*
 * Entry of the PTE table at @addr, or NULL if there is no PMD table.  Stable
 * for who keeps the upper levels in place, see cow_pte_is_sharer() for others.
 */
static pmd_t *cow_pte_find_pmd(struct mm_struct *mm, unsigned long addr)
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

/*
 * The pages that a PTE table's entries count as references and mapcounts.
 * Ordinary private VMAs hold no others, so no VMA is needed to tell.
 */
static struct page *cow_pte_page(pte_t pte)
{
	unsigned long pfn = pte_pfn(pte);

	if (pte_special(pte) || is_zero_pfn(pfn))
		return NULL;
	return pfn_to_page(pfn);
}

/* What entries amount to in an mm's counters. */
static void cow_pte_census(pte_t *pte, int nr, long *rss)
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

/* The same for those of a whole table, or of its file mappings; @pte is the first. */
static void cow_pte_census_vmas(struct mm_struct *mm, pte_t *pte,
				unsigned long slot, bool file, long *rss)
{
	MA_STATE(mas, &mm->mm_mt, slot, slot);
	unsigned long start, end;
	struct vm_area_struct *vma;

	mas_for_each(&mas, vma, slot + PMD_SIZE - 1) {
		if (file && vma_is_anonymous(vma))
			continue;
		start = max(vma->vm_start, slot);
		end = min(vma->vm_end, slot + PMD_SIZE);
		cow_pte_census(pte + pte_index(start),
			       (end - start) >> PAGE_SHIFT, rss);
	}
}

/*
 * Share: fork()
 */

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
	list_add(&mm->cow_pte.siblings, &family->mms);
	/* Published by the PTE lock of each table that gets shared. */
	mm->cow_pte.family = family;
	return family;
}

static void cow_pte_family_join(struct cow_pte_family *family,
				struct mm_struct *mm)
{
	refcount_inc(&family->refs);
	spin_lock(&family->lock);
	list_add_tail(&mm->cow_pte.siblings, &family->mms);
	spin_unlock(&family->lock);
	mm->cow_pte.family = family;
}

void __cow_pte_mm_init(struct mm_struct *mm)
{
	spin_lock_init(&mm->cow_pte.lock);
	mm->cow_pte.family = NULL;
	mm->cow_pte.fork = NULL;
	mm->cow_pte.nr_dropped = 0;
	mm->cow_pte.nr_arg_pages = 0;
	atomic_long_set(&mm->cow_pte.nr_protected, 0);
}

void __cow_pte_mm_exit(struct mm_struct *mm)
{
	struct cow_pte_family *family = mm->cow_pte.family;

	spin_lock(&family->lock);
	list_del(&mm->cow_pte.siblings);
	spin_unlock(&family->lock);
	mm->cow_pte.family = NULL;
	atomic_long_sub(mm->cow_pte.nr_dropped * PTRS_PER_PTE * sizeof(pte_t),
			&mm->pgtables_bytes);
	count_vm_events(COW_PTE_DROP, mm->cow_pte.nr_dropped);
	if (refcount_dec_and_test(&family->refs))
		kfree(family);
}

void __cow_pte_fork_begin(struct cow_pte_fork *fork, struct mm_struct *mm,
			  struct mm_struct *oldmm)
{
	struct cow_pte_family *family;
	struct vm_area_struct *vma;
	int i;

	VMA_ITERATOR(vmi, oldmm, 0);

	if (!cow_pte_wanted(oldmm) || mm_has_notifiers(oldmm))
		return;
	if (READ_ONCE(cow_pte_mode) != COW_PTE_ALWAYS &&
	    !atomic_long_read(&oldmm->cow_pte.nr_protected) &&
	    mm_pgtables_bytes(oldmm) / PAGE_SIZE <
	    READ_ONCE(cow_pte_min_tables))
		return;

	family = cow_pte_family_get(oldmm);
	if (!family)
		return;
	cow_pte_family_join(family, mm);

	/*
	 * A table is shared at the first VMA that it covers, so a fault in a
	 * later one must be over by then; and the counters must stand still.
	 */
	for_each_vma(vmi, vma)
		vma_start_write(vma);

	fork->mm = mm;
	fork->oldmm = oldmm;
	fork->pos = 0;
	fork->nr_shared = 0;
	fork->nr_protected = 0;
	mm->cow_pte.fork = fork;
	for (i = 0; i < NR_MM_COUNTERS; i++)
		atomic_long_set(&fork->inherit[i], 0);

	/*
	 * Anonymous pages and swap entries sit only in VMAs that fork copies,
	 * so the child has as many as the parent, less what is taken out as
	 * fork gets there: see cow_pte_take_out().  And less the arguments of
	 * programs that vfork()ed children are about to run.  File pages are
	 * counted table by table, fork leaves most of them behind.
	 */
	spin_lock(&oldmm->cow_pte.lock);
	oldmm->cow_pte.fork = fork;
	atomic_long_set(&fork->inherit[MM_ANONPAGES],
			percpu_counter_sum(&oldmm->rss_stat[MM_ANONPAGES]) -
			oldmm->cow_pte.nr_arg_pages);
	atomic_long_set(&fork->inherit[MM_SWAPENTS],
			percpu_counter_sum(&oldmm->rss_stat[MM_SWAPENTS]));
	spin_unlock(&oldmm->cow_pte.lock);
}

/*
 * The child will account what it gets of this table by itself, or gets
 * nothing of it.  Under the lock of @pmd's table, so that a change made by rmap
 * is either in the census or behind fork->pos.
 */
static void cow_pte_take_out(struct cow_pte_fork *fork, pmd_t *pmd,
			     unsigned long slot)
{
	long rss[NR_MM_COUNTERS] = {};
	struct folio *folio = NULL;
	spinlock_t *ptl;	/* the table's */
	pte_t *pte;

again:
	pte = pte_offset_map_lock(fork->oldmm, pmd, slot, &ptl);
	if (pte) {
		cow_pte_census_vmas(fork->oldmm, pte, slot, false, rss);
		WRITE_ONCE(fork->pos, slot + PMD_SIZE);
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
		WRITE_ONCE(fork->pos, slot + PMD_SIZE);
		spin_unlock(ptl);
	}
	atomic_long_sub(rss[MM_ANONPAGES], &fork->inherit[MM_ANONPAGES]);
	atomic_long_sub(rss[MM_SWAPENTS], &fork->inherit[MM_SWAPENTS]);
}

void __cow_pte_fork_skip(struct mm_struct *oldmm, struct vm_area_struct *vma)
{
	struct cow_pte_fork *fork = oldmm->cow_pte.fork;
	unsigned long slot;
	pmd_t *pmd;

	if (!fork || is_vm_hugetlb_page(vma))
		return;
	for (slot = cow_pte_slot(vma->vm_start); slot < vma->vm_end;
	     slot += PMD_SIZE) {
		if (slot < fork->pos)
			continue;
		pmd = cow_pte_find_pmd(oldmm, slot);
		if (pmd)
			cow_pte_take_out(fork, pmd, slot);
	}
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
static bool cow_pte_maybe_pinned(struct mm_struct *mm, pte_t *pte)
{
	struct page *page;
	pte_t ptent;
	int i;

	if (likely(!test_bit(MMF_HAS_PINNED, &mm->flags)))
		return false;

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

/* From here on nobody writes through this entry, nor pins a page behind it. */
static bool cow_pte_protect(struct cow_pte_fork *fork, pmd_t *src_pmd,
			    struct ptdesc *ptdesc)
{
	pmdp_table_set_wrprotect(src_pmd);
	if (unlikely(cow_pte_maybe_pinned(fork->oldmm,
					  ptdesc_address(ptdesc)))) {
		pmdp_table_mkwrite(src_pmd);
		return false;
	}
	if (!ptdesc_cow_pte(ptdesc)) {
		atomic_set(&ptdesc->pt_cow_refs, 1);
		set_bit(PT_cow, &ptdesc->__page_flags);
	}
	ptdesc->pt_cow_sharers = 1;
	ptdesc->pt_cow_owner = fork->oldmm;
	fork->nr_protected++;
	return true;
}

static void cow_pte_inherit_file(struct cow_pte_fork *fork,
				 struct ptdesc *ptdesc, unsigned long slot)
{
	long rss[NR_MM_COUNTERS] = {};

	cow_pte_census_vmas(fork->oldmm, ptdesc_address(ptdesc), slot, true,
			    rss);
	atomic_long_add(rss[MM_FILEPAGES], &fork->inherit[MM_FILEPAGES]);
	atomic_long_add(rss[MM_SHMEMPAGES], &fork->inherit[MM_SHMEMPAGES]);
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
	struct ptdesc *ptdesc = pmd_pte_ptdesc(*src_pmd);
	spinlock_t *ptl = ptlock_ptr(ptdesc);

	spin_lock(ptl);
	if (unlikely(!protected) && !cow_pte_protect(fork, src_pmd, ptdesc)) {
		spin_unlock(ptl);
		return false;
	}
	ptdesc->pt_cow_sharers++;
	set_pmd(dst_pmd, *src_pmd);
	if (file)
		cow_pte_inherit_file(fork, ptdesc, slot);
	WRITE_ONCE(fork->pos, slot + PMD_SIZE);
	fork->nr_shared++;
	spin_unlock(ptl);
	return true;
}

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
	for (; slot < end; slot += PMD_SIZE, src_pmd++, dst_pmd++) {
		if (unlikely(!pmd_table_protected(*src_pmd))) {
			if (pmd_none(*src_pmd))
				continue;
			if (!pmd_present(*src_pmd) || pmd_leaf(*src_pmd))
				break;
		}
		if (!cow_pte_attach(fork, dst_pmd, src_pmd, slot, false))
			break;
	}
	return slot;
}

long __cow_pte_copy(struct vm_area_struct *dst_vma,
		    struct vm_area_struct *src_vma, pmd_t *dst_pmd,
		    pmd_t *src_pmd, unsigned long addr, unsigned long end)
{
	struct mm_struct *oldmm = src_vma->vm_mm;
	struct cow_pte_fork *fork = oldmm->cow_pte.fork;
	unsigned long slot = cow_pte_slot(addr);
	pmd_t pmd = *src_pmd;
	const char *reason;
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
	if (pmd_present(pmd) && !pmd_leaf(pmd)) {
		/* Both sides will write to the stack before they do anything. */
		stack = cow_pte_slot(user_stack_pointer(current_pt_regs()));
		if (src_vma->vm_start <= slot && slot != stack &&
		    vma_is_anonymous(src_vma) &&
		    cow_pte_vma_shareable(src_vma)) {
			end &= PMD_MASK;
			if (slot < stack && stack < end)
				end = stack;
			addr = cow_pte_attach_run(fork, dst_pmd, src_pmd, slot,
						  end);
			cond_resched();
			if (addr > slot)
				return (addr - slot) / PMD_SIZE;
		}
		reason = slot == stack ? "stack" : "vma";
		if (slot != stack &&
		    cow_pte_slot_shareable(src_vma, slot, &file)) {
			reason = "pinned";
			if (cow_pte_attach(fork, dst_pmd, src_pmd, slot, file))
				return 1;
		}
		count_vm_event(COW_PTE_FALLBACK);
		trace_cow_pte_fallback(oldmm, slot, reason);
		/* The copy write-protects the parent's entries. */
		if (cow_pte_break(oldmm, src_pmd, slot))
			return -ENOMEM;
	}
	cow_pte_take_out(fork, src_pmd, slot);
	return 0;
}

/* Detach what fork() attached to a child that has never run. */
static void cow_pte_fork_cancel(struct cow_pte_fork *fork)
{
	struct ptdesc *ptdesc;
	unsigned long addr;
	spinlock_t *ptl;	/* the table's */
	pmd_t *pmd;

	for (addr = 0; fork->nr_shared && addr < fork->pos;) {
		pmd = cow_pte_find_pmd(fork->mm, addr);
		if (!pmd) {
			addr = (addr & PUD_MASK) + PUD_SIZE;
			continue;
		}
		if (pmd_table_protected(*pmd)) {
			ptdesc = pmd_pte_ptdesc(*pmd);
			ptl = ptlock_ptr(ptdesc);
			spin_lock(ptl);
			pmd_clear(pmd);
			/* The parent keeps its share: it is still locked. */
			ptdesc->pt_cow_sharers--;
			spin_unlock(ptl);
			fork->nr_shared--;
		}
		addr += PMD_SIZE;
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
	spin_lock(&mm->cow_pte.lock);
	mm->cow_pte.fork = NULL;
	spin_unlock(&mm->cow_pte.lock);

	atomic_long_add(fork->nr_protected, &oldmm->cow_pte.nr_protected);
	if (error)
		return;

	for (i = 0; i < NR_MM_COUNTERS; i++)
		add_mm_counter(mm, i, atomic_long_read(&fork->inherit[i]));
	atomic_long_add(fork->nr_shared, &mm->cow_pte.nr_protected);
	atomic_long_add(fork->nr_shared * PTRS_PER_PTE * sizeof(pte_t),
			&mm->pgtables_bytes);

	/* Swap entries came with the tables. */
	if (!list_empty(&oldmm->mmlist))
		cow_pte_add_mmlist(mm, &oldmm->mmlist);
	count_vm_events(COW_PTE_SHARE, fork->nr_shared);
	trace_cow_pte_share(mm, oldmm, fork->nr_shared);
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
		entry = swp_entry(SWP_MIGRATION_READ, swp_offset(entry));
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
 * The mm is alone with the table.  If its pages are still those that this mm
 * had before the first fork, the entries may stay writable: nobody else had a
 * reference that fork() did not see.  A table left behind by another mm, or by
 * a sharer that took references through it, becomes what fork() would have
 * made of it; unless no user is left who could write it.
 */
static void cow_pte_reuse(struct mm_struct *mm, pmd_t *pmd,
			  struct ptdesc *ptdesc, unsigned long slot)
{
	pte_t *pte = ptdesc_address(ptdesc);
	int i;

	if ((ptdesc->pt_cow_owner != mm ||
	     test_bit(PT_cow_tainted, &ptdesc->__page_flags)) &&
	    atomic_read(&mm->mm_users)) {
		cow_pte_inplace_begin();
		for (i = 0; i < PTRS_PER_PTE; i++, pte++, slot += PAGE_SIZE)
			if (!pte_none(ptep_get(pte)))
				cow_pte_downgrade(mm, slot, pte);
		cow_pte_inplace_end();
		clear_bit(PT_cow_tainted, &ptdesc->__page_flags);
	}
	ptdesc->pt_cow_owner = NULL;
	/*
	 * More permissions need no flush: a CPU that still has the old ones
	 * takes a fault, which drops its cached translation, and finds the
	 * entry writable.
	 */
	pmdp_table_mkwrite(pmd);
	atomic_long_dec(&mm->cow_pte.nr_protected);
}

/*
 * One sharer less of at least two; it has been flushed (I4), or will never run
 * again.  The reference is that of all sharers together, it stays.
 */
static void cow_pte_leave(struct mm_struct *mm, struct ptdesc *ptdesc)
{
	ptdesc->pt_cow_sharers--;
	/* The mm's memory may become another mm. */
	if (ptdesc->pt_cow_owner == mm)
		ptdesc->pt_cow_owner = NULL;
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

	/* See cow_pte_add_mmlist(). */
	if (list_empty(&mm->mmlist))
		return 0;

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

static void cow_pte_copy_table(struct mm_struct *mm, pte_t *dst, pte_t *src,
			       unsigned long addr)
{
	struct folio *folio;
	struct page *page;
	swp_entry_t entry;
	pte_t pte;
	int i;

	cow_pte_inplace_begin();
	for (i = 0; i < PTRS_PER_PTE; i++, dst++, src++, addr += PAGE_SIZE) {
		if (pte_none(ptep_get(src)))
			continue;
		pte = cow_pte_downgrade(mm, addr, src);
		page = NULL;
		if (pte_present(pte)) {
			page = cow_pte_page(pte);
		} else {
			entry = pte_to_swp_entry(pte);
			if (is_device_private_entry(entry))
				page = pfn_swap_entry_to_page(entry);
		}
		if (page) {
			/*
			 * Not folio_try_dup_anon_rmap_pte(): it asks the mm
			 * about pins, of which a shared table has none (I2).
			 */
			folio = page_folio(page);
			folio_get(folio);
			folio_dup_file_rmap_pte(folio, page);
		}
		set_pte_at(mm, addr, dst, pte);
	}
	cow_pte_inplace_end();
}

int __cow_pte_break(struct mm_struct *mm, pmd_t *pmd, unsigned long addr)
{
	unsigned long slot = cow_pte_slot(addr);
	struct ptdesc *ptdesc;
	swp_entry_t entry;
	spinlock_t *pml, *ptl;
	pgtable_t new = NULL;

again:
	pml = pmd_lock(mm, pmd);
	/* Another thread of this mm may have been here first. */
	if (!pmd_table_protected(*pmd))
		goto unlock_pmd;

	ptdesc = pmd_pte_ptdesc(*pmd);
	ptl = ptlock_ptr(ptdesc);
	spin_lock_nested(ptl, SINGLE_DEPTH_NESTING);
	if (ptdesc->pt_cow_sharers == 1) {
		cow_pte_reuse(mm, pmd, ptdesc, slot);
		count_vm_event(COW_PTE_REUSE);
		trace_cow_pte_reuse(mm, slot, _RET_IP_);
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
	if (cow_pte_dup_swap(mm, ptdesc_address(ptdesc), &entry)) {
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
	cow_pte_copy_table(mm, ptdesc_address(page_ptdesc(new)),
			   ptdesc_address(ptdesc), slot);
	clear_bit(PT_cow_tainted, &ptdesc->__page_flags);
	smp_wmb(); /* See comment in pmd_install() */
	pmd_populate(mm, pmd, new);
	new = NULL;
	/*
	 * Before we leave: the last sharer may write the table, or the table
	 * may be freed, while a CPU of ours still walks it (I4).
	 */
	cow_pte_flush(mm, slot, slot + PMD_SIZE);
	cow_pte_leave(mm, ptdesc);
	atomic_long_dec(&mm->cow_pte.nr_protected);
	count_vm_event(COW_PTE_BREAK);
	trace_cow_pte_break(mm, slot, _RET_IP_);
unlock_pte:
	spin_unlock(ptl);
unlock_pmd:
	spin_unlock(pml);
	if (new)
		pte_free(mm, new);
	return 0;
}

int __cow_pte_break_range(struct mm_struct *mm, unsigned long start,
			  unsigned long end)
{
	unsigned long addr;
	pmd_t *pmd;
	int ret;

	mmap_assert_locked(mm);
	for (addr = cow_pte_slot(start); addr < end;) {
		pmd = cow_pte_find_pmd(mm, addr);
		if (!pmd) {
			addr = pgd_none(*pgd_offset(mm, addr)) ?
				(addr & PGDIR_MASK) + PGDIR_SIZE :
				(addr & PUD_MASK) + PUD_SIZE;
			continue;
		}
		ret = cow_pte_break(mm, pmd, addr);
		if (ret)
			return ret;
		cond_resched();
		addr += PMD_SIZE;
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

vm_fault_t __cow_pte_fault(struct vm_fault *vmf)
{
	struct mm_struct *mm = vmf->vma->vm_mm;
	spinlock_t *ptl;	/* the table's */
	pte_t *pte, ptent;

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
	if (__cow_pte_break(mm, vmf->pmd, vmf->address))
		return VM_FAULT_OOM;
	return VM_FAULT_FALLBACK;
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

static noinline void cow_pte_drop_rss(struct mm_struct *mm,
				      struct ptdesc *ptdesc)
{
	long rss[NR_MM_COUNTERS] = {};
	int i;

	cow_pte_census(ptdesc_address(ptdesc), PTRS_PER_PTE, rss);
	for (i = 0; i < NR_MM_COUNTERS; i++)
		if (rss[i])
			add_mm_counter(mm, i, -rss[i]);
}

bool __cow_pte_zap(struct mmu_gather *tlb, struct vm_area_struct *vma,
		   pmd_t *pmd, unsigned long addr, unsigned long end,
		   struct zap_details *details)
{
	unsigned long slot = cow_pte_slot(addr);
	struct mm_struct *mm = tlb->mm;
	struct ptdesc *ptdesc;
	spinlock_t *pml, *ptl;

	/* By file offset: in place, for all sharers. */
	if (cow_pte_zap_by_offset(details))
		return false;

	/* Whatever VMAs it covers, does the whole of the table go away? */
	if (details ? slot < details->start || slot + PMD_SIZE > details->end :
		      end - addr != PMD_SIZE) {
		cow_pte_check_empty(mm, pmd, addr, end);
		return true;
	}

	pml = pmd_lock(mm, pmd);
	if (!pmd_table_protected(*pmd)) {
		spin_unlock(pml);
		return false;
	}
	ptdesc = pmd_pte_ptdesc(*pmd);
	ptl = ptlock_ptr(ptdesc);
	spin_lock_nested(ptl, SINGLE_DEPTH_NESTING);
	if (ptdesc->pt_cow_sharers == 1) {
		/* Ours alone: zap it the ordinary way. */
		cow_pte_reuse(mm, pmd, ptdesc, slot);
		spin_unlock(ptl);
		spin_unlock(pml);
		return false;
	}
	if (!tlb->fullmm || IS_ENABLED(CONFIG_DEBUG_COW_PTE))
		cow_pte_drop_rss(mm, ptdesc);
	pmd_clear(pmd);
	trace_cow_pte_drop(mm, slot, _RET_IP_);
	if (!tlb->fullmm) {
		cow_pte_flush(mm, slot, slot + PMD_SIZE);
		cow_pte_leave(mm, ptdesc);
		spin_unlock(ptl);
		spin_unlock(pml);
		atomic_long_dec(&mm->cow_pte.nr_protected);
		mm_dec_nr_ptes(mm);
		count_vm_event(COW_PTE_DROP);
		return true;
	}
	/*
	 * exit_mmap() need not flush before it leaves: nothing runs in this mm
	 * any more, so a stale translation serves only speculation, for which
	 * it is enough that the table stays a table.  The gather holds a
	 * reference to it until after the flush.
	 */
	atomic_inc(&ptdesc->pt_cow_refs);
	cow_pte_leave(mm, ptdesc);
	spin_unlock(ptl);
	spin_unlock(pml);
	/* Settled by __cow_pte_mm_exit(): who looks at these now? */
	mm->cow_pte.nr_dropped++;
	__cow_pte_free_tlb(tlb, ptdesc, slot);
	return true;
}

static void cow_pte_free_rcu(struct rcu_head *head)
{
	struct ptdesc *ptdesc = container_of(head, struct ptdesc, pt_rcu_head);

	if (IS_ENABLED(CONFIG_DEBUG_COW_PTE))
		WARN_ONCE(memchr_inv(ptdesc_address(ptdesc), 0, PAGE_SIZE),
			  "cow_pte: guard: table freed with entries in it\n");
	clear_bit(PT_cow, &ptdesc->__page_flags);
	clear_bit(PT_cow_tainted, &ptdesc->__page_flags);
	pagetable_pte_dtor(ptdesc);
	pagetable_free(ptdesc);
}

/**
 * __cow_pte_put - give up a reference to a table that has been shared
 * @ptdesc: the table
 *
 * The caller, or its mm, has been flushed.  The last reference frees the table
 * after a grace period, always: a software walker may have found it through
 * an mm that left long ago, and no IPI of the last owner reaches that one.
 */
void __cow_pte_put(struct ptdesc *ptdesc)
{
	if (atomic_dec_and_test(&ptdesc->pt_cow_refs))
		call_rcu(&ptdesc->pt_rcu_head, cow_pte_free_rcu);
}

/* The gather puts the reference, see __tlb_remove_table(). */
void __cow_pte_free_tlb(struct mmu_gather *tlb, struct ptdesc *ptdesc,
			unsigned long addr)
{
	tlb_flush_pmd_range(tlb, addr, PAGE_SIZE);
	tlb->freed_tables = 1;
	tlb_remove_table(tlb, ptdesc_page(ptdesc));
}

/*
 * In place: what rmap does to a shared table, for all sharers
 */

static bool cow_pte_is_sharer(struct mm_struct *mm, struct ptdesc *ptdesc,
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
		      pmd_pte_ptdesc(pmdval) == ptdesc;
	}
	local_irq_restore(flags);
	return ret;
}

unsigned int __cow_pte_sharers(pte_t *ptep)
{
	struct ptdesc *ptdesc = virt_to_ptdesc(ptep);

	/* Is 1 again before a table that was shared becomes writable. */
	return ptdesc_cow_pte(ptdesc) ? READ_ONCE(ptdesc->pt_cow_sharers) : 1;
}

static void cow_pte_add_rss_one(struct mm_struct *mm, unsigned long addr,
				const int *rss, bool shared)
{
	struct cow_pte_fork *fork;
	int i;

	update_hiwater_rss(mm);
	if (rss[MM_SWAPENTS] > 0)
		cow_pte_add_mmlist(mm, &init_mm.mmlist);

	spin_lock(&mm->cow_pte.lock);
	fork = mm->cow_pte.fork;
	for (i = 0; i < NR_MM_COUNTERS; i++) {
		/*
		 * In the middle of a fork.  What the child shares is not yet in
		 * its counters, and never will be if fork fails; what it got a
		 * copy of is.  And what fork has not reached yet will come to
		 * the child as it is then, not as it was when fork began.
		 */
		bool inherited = i == MM_ANONPAGES || i == MM_SWAPENTS;
		bool child = fork && fork->mm == mm && shared;

		if (!rss[i])
			continue;
		if (child || (unlikely(fork) && fork->oldmm == mm &&
			      inherited && addr >= READ_ONCE(fork->pos)))
			atomic_long_add(rss[i], &fork->inherit[i]);
		if (!child)
			add_mm_counter(mm, i, rss[i]);
	}
	spin_unlock(&mm->cow_pte.lock);
}

static void cow_pte_add_rss(struct mm_struct *mm, unsigned long addr,
			    pte_t *ptep, const int *rss)
{
	struct cow_pte_family *family = mm->cow_pte.family;
	struct ptdesc *ptdesc;
	struct mm_struct *pos;

	if (!ptep || !cow_pte_shared(ptep)) {
		cow_pte_add_rss_one(mm, addr, rss, false);
		return;
	}
	ptdesc = virt_to_ptdesc(ptep);
	spin_lock(&family->lock);
	list_for_each_entry(pos, &family->mms, cow_pte.siblings) {
		if (cow_pte_is_sharer(pos, ptdesc, addr))
			cow_pte_add_rss_one(pos, addr, rss, true);
	}
	spin_unlock(&family->lock);
}

void __cow_pte_add_mm_counter(struct mm_struct *mm, unsigned long addr,
			      pte_t *ptep, int member, int value)
{
	int rss[NR_MM_COUNTERS] = {};

	rss[member] = value;
	cow_pte_add_rss(mm, addr, ptep, rss);
}

void __cow_pte_acct_arg_size(struct mm_struct *mm, long nr)
{
	spin_lock(&mm->cow_pte.lock);
	mm->cow_pte.nr_arg_pages += nr;
	add_mm_counter(mm, MM_ANONPAGES, nr);
	spin_unlock(&mm->cow_pte.lock);
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

void __cow_pte_flush_sharers(struct mm_struct *mm, unsigned long addr,
			     pte_t *ptep, pte_t pteval, enum ttu_flags flags)
{
	struct cow_pte_family *family = mm->cow_pte.family;
	struct ptdesc *ptdesc = virt_to_ptdesc(ptep);
	struct mm_struct *pos;

	spin_lock(&family->lock);
	list_for_each_entry(pos, &family->mms, cow_pte.siblings) {
		if (pos != mm && cow_pte_is_sharer(pos, ptdesc, addr))
			try_to_unmap_flush_mm(pos, pteval, addr, flags);
	}
	spin_unlock(&family->lock);
}

/*
 * Pages were zapped by file offset.  The gather knows one mm: flush the others
 * here, before it frees the pages and before the table's lock is dropped.
 */
void __cow_pte_zap_inplace(struct mm_struct *mm, unsigned long addr,
			   pte_t *ptep, int *rss)
{
	struct cow_pte_family *family = mm->cow_pte.family;
	struct ptdesc *ptdesc = virt_to_ptdesc(ptep);
	unsigned long slot = cow_pte_slot(addr);
	struct mm_struct *pos;

	if (!cow_pte_shared(ptep)) {
		cow_pte_add_rss_one(mm, slot, rss, false);
		return;
	}
	spin_lock(&family->lock);
	list_for_each_entry(pos, &family->mms, cow_pte.siblings) {
		if (!cow_pte_is_sharer(pos, ptdesc, slot))
			continue;
		if (pos != mm)
			cow_pte_flush(pos, slot, slot + PMD_SIZE);
		cow_pte_add_rss_one(pos, slot, rss, true);
	}
	spin_unlock(&family->lock);
}

/* Families larger than this are not searched for the sake of statistics. */
#define COW_PTE_SEARCH_MAX	64

int __cow_pte_hidden_mappings(struct mm_struct *mm, unsigned long addr,
			      pte_t *ptep, int mapcount)
{
	struct cow_pte_family *family = mm->cow_pte.family;
	struct ptdesc *own = virt_to_ptdesc(ptep), *ptdesc;
	int hidden = __cow_pte_sharers(ptep) - 1;
	unsigned long flags, parts = 0;
	struct mm_struct *pos;
	unsigned int sharers;
	pmd_t *pmd, pmdval;
	pte_t *pte;

	/* No table but ours maps it? */
	if (mapcount < 2 || refcount_read(&family->refs) > COW_PTE_SEARCH_MAX)
		return hidden;

	/*
	 * The n sharers of another table count as one; each of them that we
	 * meet adds its part of the n - 1 that are missing.
	 */
	spin_lock(&family->lock);
	list_for_each_entry(pos, &family->mms, cow_pte.siblings) {
		if (pos == mm)
			continue;
		/* See cow_pte_is_sharer(); the table is freed by RCU as well. */
		local_irq_save(flags);
		pmd = cow_pte_find_pmd(pos, addr);
		pmdval = pmd ? pmdp_get_lockless(pmd) : __pmd(0);
		if (pmd_table_protected(pmdval)) {
			ptdesc = pmd_pte_ptdesc(pmdval);
			pte = (pte_t *)ptdesc_address(ptdesc) + pte_index(addr);
			sharers = READ_ONCE(ptdesc->pt_cow_sharers);
			if (ptdesc != own && sharers > 1 &&
			    pte_pfn(ptep_get(pte)) == pte_pfn(ptep_get(ptep)))
				parts += ((sharers - 1) << 16) / sharers;
		}
		local_irq_restore(flags);
	}
	spin_unlock(&family->lock);
	return hidden + ((parts + (1 << 15)) >> 16);
}

int __cow_pte_gup(pte_t *ptep, struct page *page, unsigned int flags)
{
	if (flags & FOLL_WRITE)
		return -EFAULT;
	if (!page || !PageAnon(page))
		return 0;
	/* A pin needs a page exclusive to this mm, not just to the table. */
	if (flags & FOLL_PIN)
		return -EMLINK;
	/*
	 * The reference may outlive this mm's share in the table; who is left
	 * alone with the table then must not write the page in place.
	 */
	if (flags & FOLL_GET)
		set_bit(PT_cow_tainted, &virt_to_ptdesc(ptep)->__page_flags);
	return 0;
}

#ifdef CONFIG_DEBUG_COW_PTE
/*
 * Every software write to a PTE comes through here.  A table with more than
 * one sharer may be changed only for all of them (I3).
 */
void __cow_pte_guard(void *ptep)
{
	struct ptdesc *ptdesc;

	if (!cow_pte_enabled() || !virt_addr_valid(ptep))
		return;
	ptdesc = virt_to_ptdesc(ptep);
	if (!folio_test_pgtable(ptdesc_folio(ptdesc)) ||
	    !ptdesc_cow_pte(ptdesc) || READ_ONCE(ptdesc->pt_cow_sharers) < 2 ||
	    current->cow_pte_inplace)
		return;
	WARN_ONCE(1, "cow_pte: guard: PTE table with %u sharers changed for one\n",
		  ptdesc->pt_cow_sharers);
}
EXPORT_SYMBOL_GPL(__cow_pte_guard);
#endif

/*
 * User interface
 */

static bool cow_pte_supported(void)
{
	return arch_supports_cow_pte();
}

/* The key stays on: tables may be shared even if nobody wants more of them. */
static void cow_pte_enable(void)
{
	static_branch_enable(&cow_pte_key);
}

/**
 * cow_pte_prctl_set - opt an mm in or out
 * @mm: the mm
 * @on: 0 or 1
 *
 * Tables that are shared already stay so until somebody changes them.  May
 * sleep.
 *
 * Return: 0, -EINVAL if @on is neither 0 nor 1, -EOPNOTSUPP if this machine
 * cannot write-protect a table.
 */
int cow_pte_prctl_set(struct mm_struct *mm, unsigned long on)
{
	if (on > 1)
		return -EINVAL;
	if (!cow_pte_supported())
		return -EOPNOTSUPP;
	if (on) {
		cow_pte_enable();
		set_bit(MMF_COW_PTE, &mm->flags);
	} else {
		clear_bit(MMF_COW_PTE, &mm->flags);
	}
	return 0;
}

static const char * const cow_pte_mode_name[] = {
	[COW_PTE_NEVER] = "never",
	[COW_PTE_PRCTL] = "prctl",
	[COW_PTE_ALWAYS] = "always",
};

static int cow_pte_set_mode(const char *name)
{
	int mode = sysfs_match_string(cow_pte_mode_name, name);

	if (mode < 0)
		return -EINVAL;
	if (mode == COW_PTE_ALWAYS) {
		if (!cow_pte_supported())
			return -EOPNOTSUPP;
		cow_pte_enable();
	}
	WRITE_ONCE(cow_pte_mode, mode);
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
	enum cow_pte_mode mode = READ_ONCE(cow_pte_mode);

	return sysfs_emit(buf, "%s\n",
			  mode == COW_PTE_ALWAYS ? "[always] prctl never" :
			  mode == COW_PTE_PRCTL ? "always [prctl] never" :
						  "always prctl [never]");
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
