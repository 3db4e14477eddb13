/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Copy-on-write page tables: PTE tables shared between parent and child.
 *
 * Every hook that other files call is declared here.  A hook costs a static
 * branch not taken until the first process opts in.  See
 * Documentation/mm/cow_pte.rst for the invariants (I1..I7) that the comments
 * refer to.
 */
#ifndef _LINUX_COW_PTE_H
#define _LINUX_COW_PTE_H

#include <linux/cow_pte_table.h>
#include <linux/mm.h>
#include <linux/rmap.h>
#include <linux/pgalloc.h>

struct mmu_gather;
struct mmu_notifier_range;
struct seq_file;

/**
 * struct cow_pte_fork - one fork() in progress that shares tables
 * @mm: the child
 * @oldmm: the parent, NULL if this fork copies conventionally
 * @pos: what is below this address has been shared or taken out of @inherit
 * @pinned: the last table that was not shared because a page may be pinned
 * @inherit: what the shared tables will add to the child's counters
 * @nr_shared: tables attached to the child
 * @nr_protected: tables of the parent that this fork write-protected
 * @nr_huge: anonymous pages that were copied by PMD entries, and are in @inherit
 * @counted: @inherit is counted table by table, not taken from the parent
 *
 * Lives on the stack of dup_mmap().  Other tasks reach it through
 * mm->cow_pte.fork under mm->cow_pte.lock; see cow_pte_add_mm_counter().
 */
struct cow_pte_fork {
#ifdef CONFIG_COW_PTE
	struct mm_struct *mm;
	struct mm_struct *oldmm;
	unsigned long pos;
	unsigned long pinned;
	atomic_long_t inherit[NR_MM_COUNTERS];
	unsigned long nr_shared;
	unsigned long nr_protected;
	unsigned long nr_huge;
	bool counted;
#endif
};

/**
 * struct cow_pte_view - what an observer of a table has to know of others
 * @own: processes that share the table, beside the observed one
 * @mixed: its accessed bits are those of several processes
 * @first: the observed process had it before the others
 * @searched: the tables of others have been looked for
 * @nr: how many were found
 * @loans: the first table that borrows from this one
 * @table: the shared tables that others have in the same place
 * @hidden: mappings of each that a mapcount does not show
 *
 * Filled in by cow_pte_view(), for as long as the caller has its table mapped and
 * locked: those of others are freed by RCU.
 */
struct cow_pte_view {
#ifdef CONFIG_COW_PTE
	int own;
	bool mixed;
	bool first;
	bool searched;
	unsigned int nr;
	struct ptdesc *loans;
	pte_t *table[16];
	int hidden[16];
#endif
};

/**
 * struct cow_pte_seen - the last table that a walk of a folio's mappings met
 * @ptdesc: the table
 * @vma: through which VMA it was met first
 *
 * Zeroed by who begins the walk.
 */
struct cow_pte_seen {
#ifdef CONFIG_COW_PTE
	struct ptdesc *ptdesc;
	struct vm_area_struct *vma;
#endif
};

/**
 * struct cow_pte_pass - a zap by file offset, which visits every VMA
 * @mark: what it leaves in the tables that it has been to
 * @table: the last of them
 *
 * Zeroed by who begins it.
 */
struct cow_pte_pass {
#ifdef CONFIG_COW_PTE_FILE
	unsigned long mark;
	pte_t *table;
#endif
};

#ifdef CONFIG_DEBUG_COW_PTE
/*
 * Changes to a shared table that are made for all of its sharers happen
 * between these two; anything else trips the guard, see __cow_pte_guard().
 */
static __always_inline void cow_pte_inplace_begin(void)
{
	current->cow_pte_inplace++;
}

/* Those to entries that are borrowed happen between these. */
#define COW_PTE_LOAN	0x10000

static __always_inline void cow_pte_loan_begin(void)
{
	current->cow_pte_inplace += COW_PTE_LOAN;
}

static __always_inline void cow_pte_loan_end(void)
{
	current->cow_pte_inplace -= COW_PTE_LOAN;
}

static __always_inline void cow_pte_inplace_end(void)
{
	current->cow_pte_inplace--;
}
#else
static __always_inline void cow_pte_inplace_begin(void)
{
}

static __always_inline void cow_pte_loan_begin(void)
{
}

static __always_inline void cow_pte_loan_end(void)
{
}

static __always_inline void cow_pte_inplace_end(void)
{
}
#endif

#ifdef CONFIG_COW_PTE

#include <linux/sched/coredump.h>

/* A PTE table in bytes; not always a page */
#define COW_PTE_TABLE_SIZE	(PTRS_PER_PTE * sizeof(pte_t))

/*
 * Does this entry point to a write-protected table?  Then the table may be
 * shared and nobody may change it on behalf of one mm (I3).  Or to one that may
 * borrow pages?  Then nobody may look at its entries before they are settled.
 */
static __always_inline bool pmd_cow_pte(pmd_t pmd)
{
	return cow_pte_enabled() &&
	       (pmd_table_protected(pmd) || pmd_table_borrows(pmd));
}

/* The same, or one of a file: is it not for this mm alone to change? */
static __always_inline bool pmd_shared_pte(pmd_t pmd)
{
	return cow_pte_enabled() &&
	       (pmd_table_protected(pmd) || pmd_table_borrows(pmd) ||
		pmd_table_published(pmd));
}

/* Has it entries that may be made writable again?  Where these are not, never. */
#ifndef pmd_table_restores
static __always_inline bool pmd_table_restores(pmd_t pmd)
{
	return false;
}

static __always_inline void ptep_table_restore(pte_t *table, bool later)
{
}
#endif

void __cow_pte_mm_init(struct mm_struct *mm);
void __cow_pte_mm_exit(struct mm_struct *mm);
void __cow_pte_fork_begin(struct cow_pte_fork *fork, struct mm_struct *mm,
			  struct mm_struct *oldmm);
int __cow_pte_fork_skip(struct mm_struct *oldmm, struct vm_area_struct *vma);
void __cow_pte_copied(struct mm_struct *oldmm, unsigned long addr,
		      const int *rss);
bool __cow_pte_copied_pmd(struct mm_struct *oldmm, unsigned long addr);
void __cow_pte_fork_end(struct cow_pte_fork *fork, int error);
long __cow_pte_copy(struct vm_area_struct *dst_vma,
		    struct vm_area_struct *src_vma, pmd_t *dst_pmd,
		    pmd_t *src_pmd, unsigned long addr, unsigned long end);
vm_fault_t __cow_pte_fault(struct vm_fault *vmf);
void cow_pte_restore(struct vm_fault *vmf);
int __cow_pte_break(struct mm_struct *mm, pmd_t *pmd, unsigned long addr);
int __cow_pte_break_range(struct mm_struct *mm, unsigned long start,
			  unsigned long end);
int __cow_pte_break_edges(struct mm_struct *mm, unsigned long start,
			  unsigned long end);
void __cow_pte_settle(struct mm_struct *mm, unsigned long addr, pte_t *ptep,
		      int nr);
void __cow_pte_settle_walk(struct mm_struct *mm, pmd_t *pmd, unsigned long addr,
			   bool counts_loans);
bool __cow_pte_others(struct mm_struct *mm, pmd_t *pmd, unsigned long addr);
void __cow_pte_take_back(struct mm_struct *mm, unsigned long addr);
long __cow_pte_zap(struct mmu_gather *tlb, struct vm_area_struct *vma,
		   pmd_t *pmd, unsigned long addr, unsigned long end,
		   struct zap_details *details);
unsigned long __cow_pte_zap_begin(struct mm_struct *mm, pte_t *ptep,
				  unsigned long addr, unsigned long end);
void __cow_pte_zap_end(struct mmu_gather *tlb, unsigned long addr, pte_t *ptep,
		       int *rss);
void __cow_pte_free_tlb(struct mmu_gather *tlb, pte_t *table,
			unsigned long addr);
unsigned int __cow_pte_sharers(pte_t *ptep);
void __cow_pte_mm_rss(struct mm_struct *mm, long *rss);
void __cow_pte_view(struct cow_pte_view *view, struct mm_struct *mm,
		    pte_t *ptep);
int __cow_pte_hidden_mappings(struct cow_pte_view *view, struct mm_struct *mm,
			      unsigned long addr, pte_t *ptep);
void __cow_pte_clear_young(struct vm_area_struct *vma, unsigned long addr,
			   pte_t *ptep);
void __cow_pte_unuse(void);
void __cow_pte_add_mm_counter(struct mm_struct *mm, unsigned long addr,
			      pte_t *ptep, int member, int value);
void __cow_pte_account_swap(struct mm_struct *mm, unsigned long addr,
			    pte_t *ptep, int nr);
void __cow_pte_acct_arg_size(struct mm_struct *mm, long nr);
void __cow_pte_flush_sharers(struct mm_struct *mm, unsigned long addr,
			     pte_t *ptep, pte_t pteval, enum ttu_flags flags);
int __cow_pte_gup(pmd_t pmd, pte_t *ptep, struct page *page,
		  unsigned int flags);
void __cow_pte_taint(struct ptdesc *ptdesc);
int cow_pte_prctl_set(struct mm_struct *mm, unsigned long on);

/**
 * cow_pte_mm_init - initialise the feature's part of a new mm
 * @mm: the new mm, not yet visible to anybody
 */
static inline void cow_pte_mm_init(struct mm_struct *mm)
{
	__cow_pte_mm_init(mm);
}

/**
 * cow_pte_mm_exit - forget an mm that has lost its page tables
 * @mm: mm whose exit_mmap() has run
 */
static inline void cow_pte_mm_exit(struct mm_struct *mm)
{
	if (unlikely(mm->cow_pte.family))
		__cow_pte_mm_exit(mm);
}

/*
 * A dying mm drops its shared tables without looking inside; its counters
 * then mean nothing.
 */
static inline bool cow_pte_rss_stale(struct mm_struct *mm)
{
	return !IS_ENABLED(CONFIG_DEBUG_COW_PTE) && mm->cow_pte.unloaded;
}

/**
 * cow_pte_fork_begin - decide whether a fork shares page tables
 * @fork: state of this fork, on the caller's stack
 * @mm: the child
 * @oldmm: the parent
 *
 * The caller holds both mmap_locks for writing.  May sleep.  Cannot fail: a
 * fork that cannot share is an ordinary one.
 */
static inline void cow_pte_fork_begin(struct cow_pte_fork *fork,
				      struct mm_struct *mm,
				      struct mm_struct *oldmm)
{
	fork->oldmm = NULL;
	if (cow_pte_enabled())
		__cow_pte_fork_begin(fork, mm, oldmm);
}

/**
 * cow_pte_fork_skip - a VMA whose pages the child does not get
 * @oldmm: the parent
 * @vma: VMA of the parent with VM_DONTCOPY or VM_WIPEONFORK
 *
 * The caller holds both mmap_locks for writing.  May sleep.
 *
 * Return: 0, or -ENOMEM if a table of the parent could not be made private.
 */
static inline int cow_pte_fork_skip(struct mm_struct *oldmm,
				    struct vm_area_struct *vma)
{
	if (!cow_pte_enabled())
		return 0;
	return __cow_pte_fork_skip(oldmm, vma);
}

/**
 * cow_pte_copied - fork() has copied entries of a table that is not shared
 * @oldmm: the parent
 * @addr: address behind the last one
 * @rss: what they added to the child's counters
 *
 * Under the lock of the parent's table.
 */
static inline void cow_pte_copied(struct mm_struct *oldmm, unsigned long addr,
				  const int *rss)
{
	if (cow_pte_enabled())
		__cow_pte_copied(oldmm, addr, rss);
}

/**
 * cow_pte_copied_pmd - fork() has copied an anonymous huge page
 * @oldmm: the parent
 * @addr: where it maps the page
 *
 * Under the lock of the parent's PMD page.
 *
 * Return: true if the child's counters will have it, see @inherit.
 */
static inline bool cow_pte_copied_pmd(struct mm_struct *oldmm,
				      unsigned long addr)
{
	return cow_pte_enabled() && __cow_pte_copied_pmd(oldmm, addr);
}

/**
 * cow_pte_fork_end - complete or undo the sharing of one fork
 * @fork: state of this fork
 * @error: 0, or why dup_mmap() gives up
 *
 * The caller holds both mmap_locks for writing.
 */
static inline void cow_pte_fork_end(struct cow_pte_fork *fork, int error)
{
	if (unlikely(fork->oldmm))
		__cow_pte_fork_end(fork, error);
}

/**
 * cow_pte_copy - attach PTE tables to the child instead of copying them
 * @dst_vma: VMA of the child
 * @src_vma: VMA of the parent
 * @dst_pmd: entry of the child
 * @src_pmd: entry of the parent
 * @addr: where to begin
 * @end: where to stop, in the same PMD table
 *
 * The caller holds both mmap_locks for writing.  May sleep.
 *
 * Return: the number of entries, from @dst_pmd on, that are what they shall
 * be; 0 if the caller must copy the first one; -ENOMEM if the parent's table
 * could not be made private.
 */
static inline long cow_pte_copy(struct vm_area_struct *dst_vma,
				struct vm_area_struct *src_vma, pmd_t *dst_pmd,
				pmd_t *src_pmd, unsigned long addr,
				unsigned long end)
{
	if (!cow_pte_enabled())
		return 0;
	return __cow_pte_copy(dst_vma, src_vma, dst_pmd, src_pmd, addr, end);
}

/**
 * cow_pte_fault - let a fault proceed only on a table of its own
 * @vmf: the fault; @vmf->pmd is not a leaf
 *
 * Runs under the VMA lock or the mmap_lock.  May sleep.
 *
 * Return: VM_FAULT_FALLBACK if handle_pte_fault() shall go on, else the result
 * of the fault (0 or VM_FAULT_OOM).
 */
static inline vm_fault_t cow_pte_fault(struct vm_fault *vmf)
{
	vm_fault_t ret = VM_FAULT_FALLBACK;

	if (pmd_cow_pte(pmdp_get_lockless(vmf->pmd)))
		ret = __cow_pte_fault(vmf);
	if (ret == VM_FAULT_FALLBACK && cow_pte_enabled() &&
	    pmd_table_restores(pmdp_get_lockless(vmf->pmd)))
		cow_pte_restore(vmf);
	return ret;
}

/* Does the mm have tables of files? */
static __always_inline bool cow_pte_file_any(struct mm_struct *mm)
{
	return cow_pte_enabled() && atomic_long_read(&mm->cow_pte.nr_published);
}

/**
 * cow_pte_break - make the table behind a PMD entry private to its mm
 * @mm: the mm
 * @pmd: entry that may point to a shared table
 * @addr: an address in the table's range
 *
 * The caller keeps fork() away: it holds the mmap_lock or a VMA lock in the
 * table's range.  May sleep.
 *
 * Return: 0, or -ENOMEM with nothing changed.
 */
static inline int cow_pte_break(struct mm_struct *mm, pmd_t *pmd,
				unsigned long addr)
{
	if (!pmd_shared_pte(pmdp_get_lockless(pmd)))
		return 0;
	return __cow_pte_break(mm, pmd, addr);
}

/* Has the mm any table that pmd_shared_pte() is true of? */
static __always_inline bool cow_pte_any(struct mm_struct *mm)
{
	return cow_pte_enabled() &&
	       (atomic_long_read(&mm->cow_pte.nr_protected) ||
		atomic_long_read(&mm->cow_pte.nr_borrowing) ||
		atomic_long_read(&mm->cow_pte.nr_published));
}

/**
 * cow_pte_break_range - make every table private that overlaps a range
 * @mm: the mm; its mmap_lock is held
 * @start: first address
 * @end: address behind the last one
 *
 * To be called before the first irreversible step of an operation.  May sleep.
 *
 * Return: 0, or -ENOMEM; contents and mappings are as before in both cases.
 */
static inline int cow_pte_break_range(struct mm_struct *mm,
				      unsigned long start, unsigned long end)
{
	if (!cow_pte_any(mm))
		return 0;
	return __cow_pte_break_range(mm, start, end);
}

/**
 * cow_pte_break_edges - make tables private that a range covers in part
 * @mm: the mm; its mmap_lock is held
 * @start: first address
 * @end: address behind the last one
 *
 * For operations that remove a range: tables that lie inside it as a whole are
 * dropped later, without being copied.  May sleep.
 *
 * Return: 0, or -ENOMEM; contents and mappings are as before in both cases.
 */
static inline int cow_pte_break_edges(struct mm_struct *mm,
				      unsigned long start, unsigned long end)
{
	if (!cow_pte_any(mm))
		return 0;
	return __cow_pte_break_edges(mm, start, end);
}

/**
 * cow_pte_settle - let entries count what they borrow, or what is borrowed of them
 * @mm: an mm that has the table
 * @addr: its address
 * @ptep: the first entry, whose table's lock is held
 * @nr: number of entries, in the same table
 *
 * To be called before an entry is changed, or its page looked at, in a table that
 * the caller has not made private by cow_pte_break(): afterwards each entry that
 * maps the page is a mapping of it like any other, for as long as the lock is
 * held.
 */
static inline void cow_pte_settle(struct mm_struct *mm, unsigned long addr,
				  pte_t *ptep, int nr)
{
	if (cow_pte_enabled() && ptdesc_cow_pte(virt_to_ptdesc(ptep)))
		__cow_pte_settle(mm, addr, ptep, nr);
}

/**
 * cow_pte_borrowed - is it an entry that counts in another table?
 * @pte: entry that maps an ordinary page
 *
 * For who does not look at the page of such an entry.
 *
 * Return: true if it is.
 */
static inline bool cow_pte_borrowed(pte_t pte)
{
	return cow_pte_enabled() && pte_special(pte);
}

/**
 * cow_pte_settle_walk - the same for a table that is going to be walked
 * @mm: the mm; its mmap_lock is held
 * @pmd: entry that may point to the table
 * @addr: an address in the table's range
 * @counts_loans: the walker asks cow_pte_hidden_mappings() about what a table lends, and
 *	cow_pte_walk_again() about one that borrows
 */
static inline void cow_pte_settle_walk(struct mm_struct *mm, pmd_t *pmd,
				       unsigned long addr, bool counts_loans)
{
	if (pmd_cow_pte(pmdp_get_lockless(pmd)))
		__cow_pte_settle_walk(mm, pmd, addr, counts_loans);
}

/**
 * cow_pte_walk_again - has a walk met a table that borrows?
 * @pmd: entry that points to the table, whose lock is held
 *
 * Another thread of the mm may have broken a table that was not settled because it
 * only lends.
 *
 * Return: true if the walk has to come to this entry again.
 */
static inline bool cow_pte_walk_again(pmd_t *pmd)
{
	return cow_pte_enabled() && pmd_table_borrows(*pmd);
}

/**
 * cow_pte_others - does an operation have to pass a table by?
 * @mm: the mm; its mmap_lock is held
 * @pmd: entry that may point to a shared table
 * @addr: an address in the table's range
 *
 * For scanners, who do not change a table that others share.  One that @mm is
 * alone with is taken back, without a copy.  Does not sleep.
 *
 * Return: true if others share the table.
 */
static inline bool cow_pte_others(struct mm_struct *mm, pmd_t *pmd,
				  unsigned long addr)
{
	if (!pmd_shared_pte(pmdp_get_lockless(pmd)))
		return false;
	return __cow_pte_others(mm, pmd, addr);
}

/**
 * cow_pte_take_back - take a table back that no other process shares any more
 * @mm: the mm; its mmap_lock is held
 * @addr: an address in the table's range
 *
 * Does not sleep.
 */
static inline void cow_pte_take_back(struct mm_struct *mm, unsigned long addr)
{
	if (cow_pte_any(mm))
		__cow_pte_take_back(mm, addr);
}

/**
 * cow_pte_zap - remove shared tables from an mm instead of their entries
 * @tlb: the gather of the caller
 * @vma: VMA being zapped
 * @pmd: entry for @addr
 * @addr: first address
 * @end: where to stop, in the same PMD table
 * @details: as for zap_pte_range()
 *
 * Does not sleep.
 *
 * Return: the number of entries, from @pmd on, behind which nothing is left to
 * zap for this mm; 0 if the caller must zap what is behind the first one.
 */
static inline long cow_pte_zap(struct mmu_gather *tlb,
			       struct vm_area_struct *vma, pmd_t *pmd,
			       unsigned long addr, unsigned long end,
			       struct zap_details *details)
{
	if (!pmd_shared_pte(pmdp_get_lockless(pmd)))
		return 0;
	return __cow_pte_zap(tlb, vma, pmd, addr, end, details);
}

/*
 * Zaps by file offset (truncation, hole punch, invalidation) hold no mmap_lock
 * and mean every mm that maps the page.
 */
static inline bool cow_pte_zap_by_offset(struct zap_details *details)
{
	return details && !(details->zap_flags & ZAP_FLAG_UNMAP);
}

/**
 * cow_pte_zap_begin - entries are about to be zapped for all sharers of a table
 * @mm: the mm being zapped
 * @ptep: entry of @addr
 * @addr: first address
 * @end: address behind the last one, in the same table, whose lock is held
 * @details: as for zap_pte_range()
 *
 * Return: where the caller has to stop and account, above @addr and @end at most.
 */
static inline unsigned long cow_pte_zap_begin(struct mm_struct *mm, pte_t *ptep,
					      unsigned long addr,
					      unsigned long end,
					      struct zap_details *details)
{
	if (cow_pte_zap_by_offset(details))
		cow_pte_inplace_begin();
	if (!cow_pte_enabled() || !cow_pte_zap_by_offset(details))
		return end;
	return __cow_pte_zap_begin(mm, ptep, addr, end);
}

/**
 * cow_pte_zap_end - account what zap_pte_range() removed
 * @tlb: the gather, which knows what it has to flush
 * @addr: where it began
 * @ptep: an entry of the table, whose lock is held
 * @details: as for zap_pte_range()
 * @rss: change by counter
 *
 * Flushes the other sharers of the table.
 *
 * Return: true if this was all; false if the caller adds @rss to the mm itself.
 */
static inline bool cow_pte_zap_end(struct mmu_gather *tlb, unsigned long addr,
				   pte_t *ptep, struct zap_details *details,
				   int *rss)
{
	if (cow_pte_zap_by_offset(details))
		cow_pte_inplace_end();
	if (!cow_pte_enabled() || !cow_pte_zap_by_offset(details))
		return false;
	__cow_pte_zap_end(tlb, addr, ptep, rss);
	return true;
}

/**
 * cow_pte_free_tlb - free a table that may have been shared before
 * @tlb: the gather of the caller
 * @table: the table; the PMD entry that pointed to it has been cleared
 * @addr: an address in the table's range
 *
 * Return: true if the table is taken care of.
 */
static inline bool cow_pte_free_tlb(struct mmu_gather *tlb, pgtable_t table,
				    unsigned long addr)
{
	if (!cow_pte_enabled() ||
	    !ptdesc_cow_pte(virt_to_ptdesc(pgtable_table(table))))
		return false;
	__cow_pte_free_tlb(tlb, pgtable_table(table), addr);
	return true;
}

/**
 * cow_pte_shared - do several processes map memory through one table?
 * @ptep: an entry of the table, whose lock is held
 *
 * Return: true if they do.
 */
static inline bool cow_pte_shared(pte_t *ptep)
{
	return cow_pte_enabled() && __cow_pte_sharers(ptep) > 1;
}

/**
 * cow_pte_again - has a walk met the entry in the table of another process before?
 * @seen: what the walk has met last
 * @vma: where it is
 * @ptep: the entry, whose table's lock is held; NULL: a PMD entry maps the page
 *
 * For who counts mappings: all who share a table have one.
 *
 * Return: true if the entry does not count again.
 */
static inline bool cow_pte_again(struct cow_pte_seen *seen,
				 struct vm_area_struct *vma, pte_t *ptep)
{
	if (!ptep || !cow_pte_shared(ptep))
		return false;
	if (seen->ptdesc == virt_to_ptdesc(ptep) && seen->vma != vma)
		return true;
	seen->ptdesc = virt_to_ptdesc(ptep);
	seen->vma = vma;
	return false;
}

/**
 * cow_pte_mm_rss - the counters of an mm, to be shown to users
 * @mm: the mm, which has users
 * @rss: the counters, in pages
 *
 * Looks at the tables that @mm shares, if any of the family has been changed
 * in place.  May sleep.
 */
static inline void cow_pte_mm_rss(struct mm_struct *mm, long *rss)
{
	int i;

	for (i = 0; i < NR_MM_COUNTERS; i++)
		rss[i] = percpu_counter_sum(&mm->rss_stat[i]);
	if (cow_pte_any(mm))
		__cow_pte_mm_rss(mm, rss);
	for (i = 0; i < NR_MM_COUNTERS; i++)
		rss[i] = max(rss[i], 0L);
}

/**
 * cow_pte_get_mm_rss - get_mm_rss(), as cow_pte_mm_rss() has it
 * @mm: the mm, which has users
 *
 * May sleep.
 *
 * Return: the number of resident pages.
 */
static inline unsigned long cow_pte_get_mm_rss(struct mm_struct *mm)
{
	long rss[NR_MM_COUNTERS];

	if (!cow_pte_any(mm))
		return get_mm_rss(mm);
	cow_pte_mm_rss(mm, rss);
	return rss[MM_FILEPAGES] + rss[MM_ANONPAGES] + rss[MM_SHMEMPAGES];
}

/**
 * cow_pte_view - look at a table on behalf of an observer
 * @view: to be filled in
 * @mm: the mm that is observed
 * @ptep: an entry of the table, whose lock is held
 */
static inline void cow_pte_view(struct cow_pte_view *view, struct mm_struct *mm,
				pte_t *ptep)
{
	view->own = 0;
	view->mixed = false;
	view->searched = true;
	view->nr = 0;
	view->loans = NULL;
	if (cow_pte_enabled() && (mm->cow_pte.family || cow_pte_file_any(mm)))
		__cow_pte_view(view, mm, ptep);
}

/**
 * cow_pte_hidden_mappings - mappings of a page that mapcounts do not show
 * @view: what is known of the table
 * @mm: the mm that is observed
 * @addr: where it maps the page
 * @ptep: the entry
 * @mapcount: how often the page is mapped, or the swap entry is counted
 *
 * For statistics.  In families of more than 64 processes, and where a page is
 * mapped at another address or by another family, other tables than @ptep's
 * count once however many processes share them.
 *
 * Return: what to add to @mapcount to get the number of processes.
 */
static inline int cow_pte_hidden_mappings(struct cow_pte_view *view,
					  struct mm_struct *mm,
					  unsigned long addr, pte_t *ptep,
					  int mapcount)
{
	/* No table but ours maps it? */
	if (!view->loans && (mapcount < 2 || (view->searched && !view->nr)))
		return view->own;
	return __cow_pte_hidden_mappings(view, mm, addr, ptep);
}

/**
 * cow_pte_young - has the observed mm accessed the page?
 * @view: what is known of the table
 * @young: the accessed bit
 *
 * Return: @young, unless others have or had a part in it.
 */
static inline bool cow_pte_young(const struct cow_pte_view *view, bool young)
{
	return unlikely(view->mixed) ? view->first : young;
}

/**
 * cow_pte_clear_young - clear_refs makes a new beginning for a table
 * @vma: a VMA of the table
 * @addr: an address in it
 * @ptep: the entry of @addr; its lock is held
 */
static inline void cow_pte_clear_young(struct vm_area_struct *vma,
				       unsigned long addr, pte_t *ptep)
{
	if (cow_pte_enabled())
		__cow_pte_clear_young(vma, addr, ptep);
}

/**
 * cow_pte_unuse - let swapoff find all mms that may have swap entries
 *
 * Puts those on the mmlist that it can reach only through shared tables.  May
 * sleep.
 */
static inline void cow_pte_unuse(void)
{
	if (cow_pte_enabled())
		__cow_pte_unuse();
}

/**
 * cow_pte_add_mm_counter - account a change that rmap made to an entry
 * @mm: the mm in which the rmap walk found the entry
 * @addr: address of the entry
 * @ptep: the entry, whose table's lock is held; NULL: a PMD entry maps the page
 * @member: which counter
 * @value: what to add
 *
 * The change counts for every mm that shares the table, and for a child that
 * is just being forked.  Does not visit them.
 */
static inline void cow_pte_add_mm_counter(struct mm_struct *mm,
					  unsigned long addr, pte_t *ptep,
					  int member, int value)
{
	if (cow_pte_enabled())
		__cow_pte_add_mm_counter(mm, addr, ptep, member, value);
	else
		add_mm_counter(mm, member, value);
}

/**
 * cow_pte_account_swap - account anonymous pages that go to swap, or come back
 * @mm: the mm in which they were found
 * @addr: address of the first entry
 * @ptep: an entry of the table, whose lock is held
 * @nr: how many go, below 0: come back
 *
 * The change counts for every mm that shares the table, as above, and swapoff
 * will find the others.
 */
static inline void cow_pte_account_swap(struct mm_struct *mm,
					unsigned long addr, pte_t *ptep, int nr)
{
	if (cow_pte_enabled()) {
		__cow_pte_account_swap(mm, addr, ptep, nr);
	} else {
		add_mm_counter(mm, MM_ANONPAGES, -nr);
		add_mm_counter(mm, MM_SWAPENTS, nr);
	}
}

/**
 * cow_pte_acct_arg_size - account pages that are not in the page tables
 * @mm: mm of a process that executes a program
 * @nr: how many more pages the arguments of the new program take
 *
 * They are not for a child to inherit that another process with this mm forks.
 */
static inline void cow_pte_acct_arg_size(struct mm_struct *mm, long nr)
{
	/* Always, for @mm may be armed in between; that waits for us. */
	rcu_read_lock();
	if (!READ_ONCE(mm->cow_pte.armed)) {
		atomic_long_add(nr, &mm->cow_pte.nr_arg_pages);
		add_mm_counter(mm, MM_ANONPAGES, nr);
	} else {
		__cow_pte_acct_arg_size(mm, nr);
	}
	rcu_read_unlock();
}

/**
 * cow_pte_flush_sharers - flush one page from the TLBs of the other sharers
 * @mm: the mm in which the rmap walk found the entry, flushed by the caller
 * @addr: address of the entry
 * @ptep: the entry, whose table's lock is held
 * @pteval: what it was
 * @flags: as for try_to_unmap(); the flush is deferred if TTU_BATCH_FLUSH is set
 */
static inline void cow_pte_flush_sharers(struct mm_struct *mm,
					 unsigned long addr, pte_t *ptep,
					 pte_t pteval, enum ttu_flags flags)
{
	if (cow_pte_shared(ptep))
		__cow_pte_flush_sharers(mm, addr, ptep, pteval, flags);
}

/**
 * cow_pte_gup - may GUP take this page through this table?
 * @pmd: entry that points to the table, whose lock is held
 * @ptep: entry of the page
 * @page: the page, or NULL if it has no usable struct page
 * @flags: FOLL_*
 *
 * Through a protected table nobody writes, and pins an anonymous page: a pin
 * needs a page exclusive to this mm, not just to the table.  A reference may
 * outlive fork() and the share of this mm in the table, so the table must know.
 *
 * Return: 0 if it may, -EFAULT if a write fault has to come first, -EMLINK if
 * an unsharing fault has to.
 */
static inline int cow_pte_gup(pmd_t pmd, pte_t *ptep, struct page *page,
			      unsigned int flags)
{
	return cow_pte_enabled() ? __cow_pte_gup(pmd, ptep, page, flags) : 0;
}

/**
 * cow_pte_gup_fast - GUP-fast has taken a page through a table
 * @ptep: entry of the page
 * @folio: its folio
 * @flags: FOLL_*
 *
 * To be called before it looks at the PMD entry again.  Interrupts are off.
 */
static inline void cow_pte_gup_fast(pte_t *ptep, struct folio *folio,
				    unsigned int flags)
{
	if (cow_pte_enabled() && (flags & FOLL_GET) && folio_test_anon(folio))
		__cow_pte_taint(virt_to_ptdesc(ptep));
}

/**
 * cow_pte_gup_split - a huge page becomes entries of a table
 * @ptep: the first entry; nobody knows the table yet
 *
 * References that were taken before are not known.
 */
static inline void cow_pte_gup_split(pte_t *ptep)
{
	if (cow_pte_enabled()) {
		/* Meanwhile in a list of tables, see pgtable_trans_huge_deposit() */
		virt_to_ptdesc(ptep)->pt_cow_word = 0;
		__cow_pte_taint(virt_to_ptdesc(ptep));
	}
}

/**
 * cow_pte_gup_move - an entry moves to another table
 * @old: an entry of the old table
 * @new: an entry of the new one; both locks are held
 */
static inline void cow_pte_gup_move(pte_t *old, pte_t *new)
{
	if (cow_pte_enabled() &&
	    test_bit(PT_cow_tainted, &virt_to_ptdesc(old)->__page_flags))
		__cow_pte_taint(virt_to_ptdesc(new));
}

static inline bool cow_pte_get(struct mm_struct *mm)
{
	return test_bit(MMF_COW_PTE, &mm->flags);
}

static inline unsigned long cow_pte_protected_bytes(struct mm_struct *mm)
{
	return atomic_long_read(&mm->cow_pte.nr_protected) * COW_PTE_TABLE_SIZE;
}

static inline unsigned long cow_pte_published_bytes(struct mm_struct *mm)
{
	return atomic_long_read(&mm->cow_pte.nr_published) * COW_PTE_TABLE_SIZE;
}

int cow_pte_stat_show(struct seq_file *m, struct mm_struct *mm);

static inline void cow_pte_exec(struct mm_struct *mm)
{
	clear_bit(MMF_COW_PTE, &mm->flags);
}

#else /* !CONFIG_COW_PTE */

static __always_inline bool pmd_table_published(pmd_t pmd)
{
	return false;
}

/* Folded early, as above. */

static __always_inline bool pmd_cow_pte(pmd_t pmd)
{
	return false;
}

static __always_inline void cow_pte_mm_init(struct mm_struct *mm)
{
}

static __always_inline void cow_pte_mm_exit(struct mm_struct *mm)
{
}

static __always_inline bool cow_pte_rss_stale(struct mm_struct *mm)
{
	return false;
}

static __always_inline void cow_pte_fork_begin(struct cow_pte_fork *fork,
					       struct mm_struct *mm,
					       struct mm_struct *oldmm)
{
}

static __always_inline int cow_pte_fork_skip(struct mm_struct *oldmm,
					     struct vm_area_struct *vma)
{
	return 0;
}

static __always_inline void cow_pte_copied(struct mm_struct *oldmm,
					   unsigned long addr, const int *rss)
{
}

static __always_inline bool cow_pte_copied_pmd(struct mm_struct *oldmm,
					       unsigned long addr)
{
	return false;
}

static __always_inline void cow_pte_fork_end(struct cow_pte_fork *fork, int error)
{
}

static __always_inline long cow_pte_copy(struct vm_area_struct *dst_vma,
					 struct vm_area_struct *src_vma, pmd_t *dst_pmd,
					 pmd_t *src_pmd, unsigned long addr,
					 unsigned long end)
{
	return 0;
}

static __always_inline vm_fault_t cow_pte_fault(struct vm_fault *vmf)
{
	return VM_FAULT_FALLBACK;
}

static __always_inline int cow_pte_break(struct mm_struct *mm, pmd_t *pmd,
					 unsigned long addr)
{
	return 0;
}

static __always_inline int cow_pte_break_range(struct mm_struct *mm,
					       unsigned long start, unsigned long end)
{
	return 0;
}

static __always_inline int cow_pte_break_edges(struct mm_struct *mm,
					       unsigned long start, unsigned long end)
{
	return 0;
}

static __always_inline void cow_pte_settle(struct mm_struct *mm,
					   unsigned long addr, pte_t *ptep,
					   int nr)
{
}

static __always_inline bool cow_pte_borrowed(pte_t pte)
{
	return false;
}

static __always_inline void cow_pte_settle_walk(struct mm_struct *mm, pmd_t *pmd,
						unsigned long addr,
						bool counts_loans)
{
}

static __always_inline bool cow_pte_walk_again(pmd_t *pmd)
{
	return false;
}

static __always_inline bool cow_pte_others(struct mm_struct *mm, pmd_t *pmd,
					   unsigned long addr)
{
	return false;
}

static __always_inline void cow_pte_take_back(struct mm_struct *mm,
					      unsigned long addr)
{
}

static __always_inline long cow_pte_zap(struct mmu_gather *tlb,
					struct vm_area_struct *vma, pmd_t *pmd,
					unsigned long addr, unsigned long end,
					struct zap_details *details)
{
	return 0;
}

static __always_inline bool cow_pte_zap_by_offset(struct zap_details *details)
{
	return false;
}

static __always_inline unsigned long cow_pte_zap_begin(struct mm_struct *mm,
						       pte_t *ptep,
						       unsigned long addr,
						       unsigned long end,
						       struct zap_details *details)
{
	return end;
}

static __always_inline bool cow_pte_zap_end(struct mmu_gather *tlb,
					    unsigned long addr, pte_t *ptep,
					    struct zap_details *details, int *rss)
{
	return false;
}

static __always_inline bool cow_pte_free_tlb(struct mmu_gather *tlb, pgtable_t table,
					     unsigned long addr)
{
	return false;
}

static __always_inline bool cow_pte_shared(pte_t *ptep)
{
	return false;
}

static __always_inline bool cow_pte_again(struct cow_pte_seen *seen,
					  struct vm_area_struct *vma, pte_t *ptep)
{
	return false;
}

static __always_inline void cow_pte_view(struct cow_pte_view *view,
					 struct mm_struct *mm, pte_t *ptep)
{
}

static __always_inline int cow_pte_hidden_mappings(struct cow_pte_view *view,
						   struct mm_struct *mm,
						   unsigned long addr, pte_t *ptep,
						   int mapcount)
{
	return 0;
}

static __always_inline void cow_pte_mm_rss(struct mm_struct *mm, long *rss)
{
	int i;

	for (i = 0; i < NR_MM_COUNTERS; i++)
		rss[i] = get_mm_counter_sum(mm, i);
}

static __always_inline unsigned long cow_pte_get_mm_rss(struct mm_struct *mm)
{
	return get_mm_rss(mm);
}

static __always_inline bool cow_pte_young(const struct cow_pte_view *view,
					  bool young)
{
	return young;
}

static __always_inline void cow_pte_clear_young(struct vm_area_struct *vma,
						unsigned long addr, pte_t *ptep)
{
}

static __always_inline void cow_pte_unuse(void)
{
}

static __always_inline void cow_pte_add_mm_counter(struct mm_struct *mm,
						   unsigned long addr, pte_t *ptep,
						   int member, int value)
{
	add_mm_counter(mm, member, value);
}

static __always_inline void cow_pte_account_swap(struct mm_struct *mm,
						 unsigned long addr, pte_t *ptep, int nr)
{
	add_mm_counter(mm, MM_ANONPAGES, -nr);
	add_mm_counter(mm, MM_SWAPENTS, nr);
}

static __always_inline void cow_pte_acct_arg_size(struct mm_struct *mm, long nr)
{
	add_mm_counter(mm, MM_ANONPAGES, nr);
}

static __always_inline void cow_pte_flush_sharers(struct mm_struct *mm,
						  unsigned long addr, pte_t *ptep,
						  pte_t pteval, enum ttu_flags flags)
{
}

static __always_inline int cow_pte_gup(pmd_t pmd, pte_t *ptep, struct page *page,
				       unsigned int flags)
{
	return 0;
}

static __always_inline void cow_pte_gup_fast(pte_t *ptep, struct folio *folio,
					     unsigned int flags)
{
}

static __always_inline void cow_pte_gup_split(pte_t *ptep)
{
}

static __always_inline void cow_pte_gup_move(pte_t *old, pte_t *new)
{
}

static __always_inline void cow_pte_exec(struct mm_struct *mm)
{
}

#endif /* CONFIG_COW_PTE */

#ifdef CONFIG_COW_PTE_FILE

void __cow_pte_file_fault(struct vm_fault *vmf);
bool __cow_pte_file_install(struct vm_fault *vmf);
void __cow_pte_file_leave(struct vm_area_struct *vma, unsigned long start,
			  unsigned long end);
void __cow_pte_file_unmap(struct mmu_gather *tlb, struct vm_area_struct *vma,
			  unsigned long start, unsigned long end);
void __cow_pte_file_leave_all(struct mm_struct *mm);
void __cow_pte_file_absorb(struct vm_area_struct *vma,
			   struct vm_area_struct *next);
void __cow_pte_file_modify(struct vm_area_struct *vma, unsigned long start,
			   unsigned long end);
void __cow_pte_file_poison(struct ptdesc *ptdesc);
bool __cow_pte_file_zapped(struct vm_area_struct *vma, unsigned long first,
			   unsigned long nr, struct cow_pte_pass *pass);

/**
 * cow_pte_file_fault - join the table of a file, if there is one
 * @vmf: the fault, in which nothing has been looked at yet
 *
 * The fault goes on with @vmf->pmd, which then points to the table.  Runs under
 * the VMA lock or the mmap_lock.  Does not sleep.
 */
static inline void cow_pte_file_fault(struct vm_fault *vmf)
{
	if (cow_pte_enabled() && (vmf->vma->vm_flags & VM_MAYSHARE) &&
	    pmd_none(pmdp_get_lockless(vmf->pmd)))
		__cow_pte_file_fault(vmf);
}

/**
 * cow_pte_file_install - pmd_install(), with a table that others may join
 * @vmf: the fault, with @vmf->prealloc_pte
 *
 * Does not sleep.
 *
 * Return: true if there is a table now, or something else; false if the caller
 * shall install an ordinary one.
 */
static inline bool cow_pte_file_install(struct vm_fault *vmf)
{
	return cow_pte_enabled() && (vmf->vma->vm_flags & VM_MAYSHARE) &&
	       __cow_pte_file_install(vmf);
}

/**
 * cow_pte_file_left - has the table been left since the fault looked at it?
 * @vmf: the fault, with @vmf->pte mapped and locked
 *
 * It may be somebody else's by now, who has other permissions.
 *
 * Return: true if the fault has to be tried again.
 */
static inline bool cow_pte_file_left(struct vm_fault *vmf)
{
	pmd_t pmd;

	if (!cow_pte_enabled() || !(vmf->vma->vm_flags & VM_MAYSHARE))
		return false;
	pmd = pmdp_get_lockless(vmf->pmd);
	return !pmd_present(pmd) || pmd_leaf(pmd) ||
	       pmd_table_ptdesc(pmd) != virt_to_ptdesc(vmf->pte);
}

/**
 * cow_pte_file_leave - the mapping of part of a file is going to change
 * @vma: the VMA, locked against faults unless it does not matter who comes back
 * @start: first address
 * @end: address behind the last one
 *
 * Tables of the file that overlap the range are left to the others that have
 * them, or become ordinary ones.  The caller holds the mmap_lock, but not
 * i_mmap_rwsem.  May sleep.
 */
static inline void cow_pte_file_leave(struct vm_area_struct *vma,
				      unsigned long start, unsigned long end)
{
	if (cow_pte_file_any(vma->vm_mm))
		__cow_pte_file_leave(vma, start, end);
}

/**
 * cow_pte_file_absorb - the same before a VMA takes in the next one
 * @vma: the VMA, whose flags prevail
 * @next: the one that goes
 *
 * They may differ in VM_SOFTDIRTY.  The caller holds the mmap_lock for writing, and
 * has locked both.  May sleep.
 */
static inline void cow_pte_file_absorb(struct vm_area_struct *vma,
				       struct vm_area_struct *next)
{
	if (cow_pte_file_any(vma->vm_mm))
		__cow_pte_file_absorb(vma, next);
}

/**
 * cow_pte_file_modify - the same before flags of a VMA change
 * @vma: the VMA; the mmap_lock is held for writing
 * @start: first address
 * @end: address behind the last one
 *
 * Faults in it wait until the mmap_lock is released.
 */
static inline void cow_pte_file_modify(struct vm_area_struct *vma,
				       unsigned long start, unsigned long end)
{
	if (cow_pte_enabled() && (vma->vm_flags & VM_MAYSHARE))
		__cow_pte_file_modify(vma, start, end);
}

/**
 * cow_pte_file_joined - has a fault brought the table of a file meanwhile?
 * @pmd: the entry; the lock of the table behind it is held
 * @details: as for zap_pte_range(), NULL for who changes permissions
 *
 * For who has looked whether the table is for one mm to change before it took the
 * lock.
 *
 * Return: true if it must not be changed.
 */
static inline bool cow_pte_file_joined(pmd_t *pmd, struct zap_details *details)
{
	return cow_pte_enabled() && !cow_pte_zap_by_offset(details) &&
	       pmd_table_published(pmdp_get_lockless(pmd));
}

/**
 * cow_pte_file_poison - an entry says that memory has failed
 * @ptep: the entry, whose table's lock is held
 *
 * Those who have the table shall know; others have never had the page.
 */
static inline void cow_pte_file_poison(pte_t *ptep)
{
	if (cow_pte_enabled() && ptdesc_cow_pte(virt_to_ptdesc(ptep)))
		__cow_pte_file_poison(virt_to_ptdesc(ptep));
}

/**
 * cow_pte_file_unmap - the same before a range is zapped
 * @tlb: the gather of the caller
 * @vma: VMA being zapped
 * @start: first address
 * @end: address behind the last one
 * @details: as for zap_pte_range()
 *
 * What is zapped by file offset is zapped in place.
 */
static inline void cow_pte_file_unmap(struct mmu_gather *tlb,
				      struct vm_area_struct *vma,
				      unsigned long start, unsigned long end,
				      struct zap_details *details)
{
	if (cow_pte_file_any(vma->vm_mm) && !cow_pte_zap_by_offset(details))
		__cow_pte_file_unmap(tlb, vma, start, end);
}

/**
 * cow_pte_file_leave_all - leave the tables of all files
 * @mm: the mm; its mmap_lock is held for writing
 *
 * Faults wait until that is released.  May sleep.
 */
static inline void cow_pte_file_leave_all(struct mm_struct *mm)
{
	if (cow_pte_enabled())
		__cow_pte_file_leave_all(mm);
}

/**
 * cow_pte_file_zapped - has a zap by file offset been here before?
 * @vma: a VMA of the file, whose i_mmap_rwsem is held
 * @first: first page of it that is to be zapped
 * @nr: number of pages
 * @pass: the zap
 *
 * The tables of this VMA may be those of one that was zapped before.  If not, they
 * count as zapped from here on.
 *
 * Return: true if nothing is left to do for this VMA.
 */
static inline bool cow_pte_file_zapped(struct vm_area_struct *vma,
				       unsigned long first, unsigned long nr,
				       struct cow_pte_pass *pass)
{
	return cow_pte_file_any(vma->vm_mm) &&
	       __cow_pte_file_zapped(vma, first, nr, pass);
}

/**
 * cow_pte_add_file_counter - account pages that a fault has mapped
 * @vma: the VMA
 * @pmd: entry that points to the table, whose lock is held
 * @member: which counter
 * @value: how many
 *
 * A published table counts them for all who have it.
 */
static inline void cow_pte_add_file_counter(struct vm_area_struct *vma,
					    pmd_t *pmd, int member, int value)
{
	if (cow_pte_enabled() && pmd_table_published(pmdp_get_lockless(pmd)))
		pmd_table_ptdesc(*pmd)->pt_cow_delta[member] += value;
	else
		add_mm_counter(vma->vm_mm, member, value);
}

#else /* !CONFIG_COW_PTE_FILE */

static __always_inline void cow_pte_file_fault(struct vm_fault *vmf)
{
}

static __always_inline bool cow_pte_file_install(struct vm_fault *vmf)
{
	return false;
}

static __always_inline bool cow_pte_file_left(struct vm_fault *vmf)
{
	return false;
}

static __always_inline void cow_pte_file_leave(struct vm_area_struct *vma,
					       unsigned long start,
					       unsigned long end)
{
}

static __always_inline void cow_pte_file_absorb(struct vm_area_struct *vma,
						struct vm_area_struct *next)
{
}

static __always_inline void cow_pte_file_modify(struct vm_area_struct *vma,
						unsigned long start,
						unsigned long end)
{
}

static __always_inline bool cow_pte_file_joined(pmd_t *pmd,
						struct zap_details *details)
{
	return false;
}

static __always_inline void cow_pte_file_poison(pte_t *ptep)
{
}

static __always_inline void cow_pte_file_unmap(struct mmu_gather *tlb,
					       struct vm_area_struct *vma,
					       unsigned long start,
					       unsigned long end,
					       struct zap_details *details)
{
}

static __always_inline void cow_pte_file_leave_all(struct mm_struct *mm)
{
}

static __always_inline bool cow_pte_file_zapped(struct vm_area_struct *vma,
						unsigned long first,
						unsigned long nr,
						struct cow_pte_pass *pass)
{
	return false;
}

static __always_inline void cow_pte_add_file_counter(struct vm_area_struct *vma,
						     pmd_t *pmd, int member,
						     int value)
{
	add_mm_counter(vma->vm_mm, member, value);
}

#endif /* CONFIG_COW_PTE_FILE */

#endif /* _LINUX_COW_PTE_H */
