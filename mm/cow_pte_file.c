// SPDX-License-Identifier: GPL-2.0
/*
 * Shared page tables of files
 *
 * Processes that map the same range of a file alike, shared and at the same
 * address, have one PTE table for it.  Nobody owns it: who makes a table publishes
 * it in a pool, who finds the place empty joins the one that is there, and who
 * changes his mapping leaves.  Its entries say what the file says, so a fault of
 * one fills it for all, and what reclaim, truncation and writeback do to it they
 * do for all; nothing is ever copied.
 *
 * This file follows the life of a table: which may be published, pools, publish
 * and join, leave, flush, and the user interface.  mm/cow_pte.c has the tables that
 * fork() shares, and what both have in common: counters, what rmap does in place,
 * observers.  Documentation/mm/cow_pte.rst has the invariants.
 *
 * Locks: mmap_lock or VMA lock -> i_mmap_rwsem -> pmd_lock(mm) -> PTE lock of the
 * table -> xa_lock of the pool.  A PMD entry that points to a published table, and
 * the number of its sharers, change under the table's lock.
 *
 * Who walks the VMAs that map a file, to remove a page or to write-protect it,
 * must meet every table once.  He holds i_mmap_rwsem, for reading; so a table that
 * others go on using is left with it held for writing (F4).  Joining needs no such
 * care: who is met before he joins has joined a table that somebody has who is
 * still to be met, or was met, and that one cannot leave.
 */
#define pr_fmt(fmt) "cow_pte: " fmt

#include <linux/mm.h>
#include <linux/cred.h>
#include <linux/dax.h>
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/hugetlb.h>
#include <linux/kobject.h>
#include <linux/mmu_notifier.h>
#include <linux/pgalloc.h>
#include <linux/rhashtable.h>
#include <linux/sched/coredump.h>
#include <linux/shmem_fs.h>
#include <linux/user_namespace.h>
#include <linux/userfaultfd_k.h>
#include <linux/vmstat.h>
#include <linux/xarray.h>

#include <asm/tlb.h>

#include <trace/events/cow_pte.h>

#include "cow_pte.h"
#include "internal.h"

/* Until it has been soaked for long enough. */
static enum cow_pte_mode cow_pte_file_mode __read_mostly = COW_PTE_NEVER;

/*
 * What has to be alike: an entry of the table depends on nothing else (F1).  There
 * is no padding, for it is compared as a whole.
 */
struct cow_pte_key {
	struct address_space *mapping;
	const struct vm_operations_struct *vm_ops;
	unsigned long prot;
	unsigned long flags;
	unsigned long base;		/* where the file's first page would be */
	struct cow_pte_family *family;	/* or who it is, see cow_pte_file_key() */
	unsigned long uid;
	unsigned long user_ns;
	u64 caps;
};

/*
 * The tables of one file that have the same key, by their place in the file.  Each
 * holds a reference.  The mapping is there for as long as there is a table: who
 * has it has a VMA of the file.
 */
struct cow_pte_pool {
	struct rhash_head node;
	struct cow_pte_key key;
	refcount_t refs;
	struct xarray tables;
	struct rcu_head rcu;
};

static struct rhashtable cow_pte_pools;

/* What differs between files, and between those who map one. */
static u32 cow_pte_key_hash(const void *data, u32 len, u32 seed)
{
	const struct cow_pte_key *key = data;

	return hash_long((unsigned long)key->mapping ^ key->base ^
			 (unsigned long)key->family ^ key->uid, 32) ^ seed;
}

static const struct rhashtable_params cow_pte_pool_params = {
	.key_len = sizeof(struct cow_pte_key),
	.key_offset = offsetof(struct cow_pte_pool, key),
	.head_offset = offsetof(struct cow_pte_pool, node),
	.hashfn = cow_pte_key_hash,
	.automatic_shrinking = true,
};

/*
 * Which tables
 */

#define COW_PTE_NO_FILE_VMA	(VM_SPECIAL | VM_HUGETLB | VM_LOCKED |	      \
				 VM_LOCKONFAULT | VM_SHADOW_STACK | VM_DROPPABLE)

/*
 * The VMA's pages are the page cache's, in the file's order, and it has no fault
 * handler or entries of its own.  An mm with notifiers never shares: rmap notifies
 * the mm in which it finds the table.
 */
static bool cow_pte_file_vma(struct vm_area_struct *vma)
{
	if (!vma->vm_file || !vma->vm_ops || vma->anon_vma ||
	    !(vma->vm_flags & VM_MAYSHARE) || is_cow_mapping(vma->vm_flags) ||
	    (vma->vm_flags & COW_PTE_NO_FILE_VMA))
		return false;
	/* The server of a network file system wants to know who it is that writes. */
	if ((vma->vm_flags & VM_MAYWRITE) && vma->vm_ops->page_mkwrite &&
	    !file_inode(vma->vm_file)->i_sb->s_bdev)
		return false;
	/* SysV shared memory has no ->map_pages() of its own. */
	if (vma->vm_ops->map_pages != filemap_map_pages &&
	    !shmem_mapping(vma->vm_file->f_mapping))
		return false;
	return !userfaultfd_armed(vma) && !vma_is_dax(vma) &&
	       !vma_soft_dirty_enabled(vma) && !mm_has_notifiers(vma->vm_mm);
}

/* The table lies as a whole inside the VMA (F3). */
static bool cow_pte_file_slot(struct vm_area_struct *vma, unsigned long slot)
{
	return vma->vm_start <= slot && vma->vm_end >= slot + PMD_SIZE &&
	       cow_pte_file_vma(vma);
}

/*
 * Not before the mm has once been locked for writing since the feature is ready: an
 * operation that found it off may still be under way, see cow_pte_track().
 */
static bool cow_pte_file_wanted(struct mm_struct *mm)
{
	if (mm->cow_pte.untracked)
		return false;
	switch (READ_ONCE(cow_pte_file_mode)) {
	case COW_PTE_ALWAYS:
		return cow_pte_is_ready();
	case COW_PTE_PRCTL:
		return cow_pte_wanted(mm);
	default:
		return false;
	}
}

static unsigned long cow_pte_file_base(struct vm_area_struct *vma)
{
	return vma->vm_start - (vma->vm_pgoff << PAGE_SHIFT);
}

/*
 * Pages that are present, or accessed, tell what others read.  Who could write the
 * file may know that of all who could, as with mincore().  But that there is a table
 * also tells where others have mapped the file: that may know who could ask /proc.
 * All others share with their relatives, who have both from the same parent.
 *
 * Return: false if there is nobody to share with.
 */
static bool cow_pte_file_key(struct vm_area_struct *vma, struct cow_pte_key *key)
{
	const struct cred *cred = current_cred();
	struct mm_struct *mm = vma->vm_mm;

	memset(key, 0, sizeof(*key));
	key->mapping = vma->vm_file->f_mapping;
	key->vm_ops = vma->vm_ops;
	key->prot = pgprot_val(vma->vm_page_prot);
	key->flags = vma->vm_flags;
	key->base = cow_pte_file_base(vma);
	if ((vma->vm_flags & VM_MAYWRITE) && mm == current->mm &&
	    get_dumpable(mm) == SUID_DUMP_USER) {
		key->uid = __kuid_val(cred->uid);
		key->user_ns = cred->user_ns->ns.inum;
		key->caps = cred->cap_permitted.val;
		return true;
	}
	key->family = READ_ONCE(mm->cow_pte.family);
	return key->family;
}

/*
 * Pools
 */

/* In an RCU read-side section. */
static struct cow_pte_pool *cow_pte_pool_find(const struct cow_pte_key *key)
{
	return rhashtable_lookup(&cow_pte_pools, key, cow_pte_pool_params);
}

/*
 * The pool for one more table, with a reference.  Must not sleep.
 * Return: NULL if there is no memory, or an old one is just going.
 */
static struct cow_pte_pool *cow_pte_pool_get(const struct cow_pte_key *key)
{
	struct cow_pte_pool *pool, *old;

	rcu_read_lock();
	pool = cow_pte_pool_find(key);
	if (pool) {
		if (!refcount_inc_not_zero(&pool->refs))
			pool = NULL;
		goto out;
	}
	pool = kmalloc(sizeof(*pool), GFP_NOWAIT | __GFP_NOWARN);
	if (!pool)
		goto out;
	pool->key = *key;
	refcount_set(&pool->refs, 1);
	xa_init(&pool->tables);
	old = rhashtable_lookup_get_insert_fast(&cow_pte_pools, &pool->node,
						cow_pte_pool_params);
	if (old) {
		kfree(pool);
		pool = NULL;
		if (!IS_ERR(old) && refcount_inc_not_zero(&old->refs))
			pool = old;
	}
out:
	rcu_read_unlock();
	return pool;
}

/* Not kfree_rcu(): it may allocate a page to remember what to free. */
static void cow_pte_pool_free(struct rcu_head *head)
{
	kfree(container_of(head, struct cow_pte_pool, rcu));
}

static void cow_pte_pool_put(struct cow_pte_pool *pool)
{
	if (!refcount_dec_and_test(&pool->refs))
		return;
	rhashtable_remove_fast(&cow_pte_pools, &pool->node, cow_pte_pool_params);
	/* It is empty, as each table has a reference. */
	VM_WARN_ON_ONCE(!xa_empty(&pool->tables));
	call_rcu(&pool->rcu, cow_pte_pool_free);
}

/* One for each place in the file: the tables of a pool do not overlap. */
static unsigned long cow_pte_pool_index(const struct cow_pte_key *key,
					unsigned long slot)
{
	return (slot - key->base) >> PMD_SHIFT;
}

/*
 * Publish and join
 */

/*
 * Join a table that is found in the pool, in an RCU read-side section.  It may be
 * unpublished meanwhile, but not freed.  With @filled, only if there is something in
 * it: otherwise a huge page may be better.
 * Return: false if there is still nothing behind the PMD entry.
 */
static bool cow_pte_file_join(struct mm_struct *mm, pmd_t *pmd,
			      struct cow_pte_pool *pool, unsigned long slot,
			      bool filled)
{
	unsigned long index = cow_pte_pool_index(&pool->key, slot);
	struct ptdesc *ptdesc = xa_load(&pool->tables, index);
	spinlock_t *pml, *ptl;
	bool present;

	if (!ptdesc || (filled && !READ_ONCE(ptdesc->pt_cow_delta[MM_FILEPAGES]) &&
			!READ_ONCE(ptdesc->pt_cow_delta[MM_SHMEMPAGES])))
		return false;
	pml = pmd_lock(mm, pmd);
	if (pmd_none(*pmd)) {
		ptl = ptlock_ptr(ptdesc);
		spin_lock_nested(ptl, SINGLE_DEPTH_NESTING);
		if (xa_load(&pool->tables, index) == ptdesc &&
		    !(ptdesc->pt_cow_word & COW_PTE_POISONED)) {
			ptdesc->pt_cow_sharers++;
			ptdesc->pt_cow_word &= ~COW_PTE_FAR;
			pmdp_table_publish(mm, pmd, ptdesc_address(ptdesc));
			mm_inc_nr_ptes(mm);
			atomic_long_inc(&mm->cow_pte.nr_published);
			cow_pte_count(mm, COW_PTE_JOIN, 1);
			trace_cow_pte_join(mm, slot, _RET_IP_);
		}
		spin_unlock(ptl);
	}
	present = !pmd_none(*pmd);
	spin_unlock(pml);
	return present;
}

void __cow_pte_file_fault(struct vm_fault *vmf)
{
	unsigned long slot = cow_pte_slot(vmf->address);
	struct vm_area_struct *vma = vmf->vma;
	struct cow_pte_pool *pool;
	struct cow_pte_key key;

	if (!cow_pte_file_wanted(vma->vm_mm) || !cow_pte_file_slot(vma, slot) ||
	    !cow_pte_file_key(vma, &key))
		return;
	rcu_read_lock();
	pool = cow_pte_pool_find(&key);
	if (pool)
		cow_pte_file_join(vma->vm_mm, vmf->pmd, pool, slot, true);
	rcu_read_unlock();
}

/*
 * The table of this fault becomes the one that others find.  It gets into the pool
 * with its lock held, so that who finds it waits until it is complete.
 * Return: 0, or -EBUSY if somebody was faster, or -ENOMEM.
 */
static int cow_pte_file_publish(struct vm_fault *vmf, struct cow_pte_pool *pool,
				unsigned long slot)
{
	pte_t *table = pgtable_table(vmf->prealloc_pte);
	struct ptdesc *ptdesc = virt_to_ptdesc(table);
	struct mm_struct *mm = vmf->vma->vm_mm;
	spinlock_t *pml, *ptl;
	int err = 0;

	pml = pmd_lock(mm, vmf->pmd);
	/* Another thread of this mm was faster, as pmd_install() has it. */
	if (!pmd_none(*vmf->pmd)) {
		cow_pte_pool_put(pool);
		goto unlock_pmd;
	}
	ptl = ptlock_ptr(ptdesc);
	spin_lock_nested(ptl, SINGLE_DEPTH_NESTING);
	err = xa_insert(&pool->tables, cow_pte_pool_index(&pool->key, slot),
			ptdesc, GFP_NOWAIT | __GFP_NOWARN);
	if (!err) {
		set_bit(PT_cow, &ptdesc->__page_flags);
		memset(ptdesc->pt_cow_delta, 0, sizeof(ptdesc->pt_cow_delta));
		ptdesc->pt_cow_word = COW_PTE_FILE;
		ptdesc->pt_cow_pool = pool;
		ptdesc->pt_cow_sharers = 1;
		mm_inc_nr_ptes(mm);
		smp_wmb(); /* See comment in pmd_install() */
		pmdp_table_publish(mm, vmf->pmd, table);
		vmf->prealloc_pte = NULL;
		atomic_long_inc(&mm->cow_pte.nr_published);
		cow_pte_count(mm, COW_PTE_PUBLISH, 1);
		trace_cow_pte_publish(mm, slot, _RET_IP_);
	}
	spin_unlock(ptl);
unlock_pmd:
	spin_unlock(pml);
	return err;
}

bool __cow_pte_file_install(struct vm_fault *vmf)
{
	unsigned long slot = cow_pte_slot(vmf->address);
	struct vm_area_struct *vma = vmf->vma;
	struct cow_pte_pool *pool;
	struct cow_pte_key key;
	int err;

	if (!cow_pte_file_wanted(vma->vm_mm) || !cow_pte_file_slot(vma, slot) ||
	    !cow_pte_file_key(vma, &key))
		return false;
	pool = cow_pte_pool_get(&key);
	if (!pool)
		return false;
	err = cow_pte_file_publish(vmf, pool, slot);
	if (err == -EBUSY) {
		rcu_read_lock();
		if (cow_pte_file_join(vma->vm_mm, vmf->pmd, pool, slot, false))
			err = 0;
		rcu_read_unlock();
		cow_pte_pool_put(pool);
	} else if (err) {
		cow_pte_pool_put(pool);
	}
	return !err;
}

/*
 * Leave
 */

/*
 * The mm is alone with the table, whose lock is held, as is that of the PMD page:
 * it becomes an ordinary one, with all that is in it (F6).
 */
static void cow_pte_file_unpublish(struct mm_struct *mm, pmd_t *pmd,
				   struct ptdesc *ptdesc, unsigned long slot)
{
	struct cow_pte_pool *pool = ptdesc->pt_cow_pool;

	WARN_ON_ONCE(xa_erase(&pool->tables,
			      cow_pte_pool_index(&pool->key, slot)) != ptdesc);
	cow_pte_take_delta(mm, ptdesc, slot);
	/* Reclaim may not have flushed yet, and does not know this mm. */
	if (ptdesc->pt_cow_word & COW_PTE_UNFLUSHED)
		cow_pte_flush(mm, slot, slot + PMD_SIZE);
	memset(ptdesc->pt_cow_delta, 0, sizeof(ptdesc->pt_cow_delta));
	ptdesc->pt_cow_word = 0;
	ptdesc->pt_cow_sharers = 0;
	WRITE_ONCE(ptdesc->pt_cow_pool, NULL);
	pmdp_table_unpublish(mm, pmd, slot);
	atomic_long_dec(&mm->cow_pte.nr_published);
	cow_pte_pool_put(pool);
}

/* So many tables are left with one flush, and so many looked at meanwhile. */
#define COW_PTE_LEAVE_BATCH	32
#define COW_PTE_LEAVE_LOOK	512

/* The tables of a batch: this mm does not have them any more, but counts as one. */
struct cow_pte_left {
	struct ptdesc *table[COW_PTE_LEAVE_BATCH];
	unsigned int nr;
	unsigned long caller;
};

static void cow_pte_file_leave_one(struct mm_struct *mm, pmd_t *pmd,
				   unsigned long slot, struct cow_pte_left *left)
{
	struct ptdesc *ptdesc;
	spinlock_t *pml, *ptl;

	pml = pmd_lock(mm, pmd);
	if (pmd_table_published(*pmd)) {
		ptdesc = pmd_table_ptdesc(*pmd);
		ptl = ptlock_ptr(ptdesc);
		spin_lock_nested(ptl, SINGLE_DEPTH_NESTING);
		if (ptdesc->pt_cow_sharers == 1) {
			cow_pte_file_unpublish(mm, pmd, ptdesc, slot);
		} else {
			pmd_clear(pmd);
			left->table[left->nr++] = ptdesc;
			trace_cow_pte_leave(mm, slot, left->caller);
		}
		spin_unlock(ptl);
	}
	spin_unlock(pml);
}

static void cow_pte_file_leave_end(struct mm_struct *mm,
				   struct cow_pte_left *left)
{
	spinlock_t *ptl;	/* the table's */
	unsigned int i;

	for (i = 0; i < left->nr; i++) {
		ptl = ptlock_ptr(left->table[i]);
		spin_lock(ptl);
		cow_pte_leave(left->table[i]);
		spin_unlock(ptl);
		mm_dec_nr_ptes(mm);
	}
	atomic_long_sub(left->nr, &mm->cow_pte.nr_published);
	cow_pte_count(mm, COW_PTE_LEAVE, left->nr);
}

/*
 * The PMD entries are cleared, then they are flushed, and only then the others may
 * be alone with the tables, or free them (F5).  All that with i_mmap_rwsem held for
 * writing (F4).
 */
static void cow_pte_file_do_leave(struct vm_area_struct *vma,
				  unsigned long start, unsigned long end,
				  bool dying, unsigned long caller)
{
	unsigned long addr = cow_pte_slot(start), from;
	struct mm_struct *mm = vma->vm_mm;
	struct address_space *mapping;
	struct cow_pte_left left;
	unsigned int look;
	pmd_t *pmd;

	if (!vma->vm_file || !(vma->vm_flags & VM_MAYSHARE) ||
	    is_vm_hugetlb_page(vma))
		return;
	mapping = vma->vm_file->f_mapping;
	left.caller = caller;
	/* Nothing runs in a dying mm: one flush for all that it leaves. */
	if (dying)
		cow_pte_unload(mm);
	while (addr < end) {
		left.nr = 0;
		from = addr;
		i_mmap_lock_write(mapping);
		look = COW_PTE_LEAVE_LOOK;
		while (left.nr < COW_PTE_LEAVE_BATCH && look-- &&
		       (pmd = cow_pte_next_pmd(mm, &addr, end))) {
			if (pmd_table_published(pmdp_get_lockless(pmd)))
				cow_pte_file_leave_one(mm, pmd, addr, &left);
			addr += PMD_SIZE;
		}
		if (left.nr && !dying)
			cow_pte_flush(mm, from, addr);
		cow_pte_file_leave_end(mm, &left);
		i_mmap_unlock_write(mapping);
		cond_resched();
	}
}

void __cow_pte_file_leave(struct vm_area_struct *vma, unsigned long start,
			  unsigned long end)
{
	cow_pte_file_do_leave(vma, start, end, false, _RET_IP_);
}

void __cow_pte_file_unmap(struct mmu_gather *tlb, struct vm_area_struct *vma,
			  unsigned long start, unsigned long end)
{
	cow_pte_file_do_leave(vma, start, end, tlb->fullmm, _RET_IP_);
}

/* Who breaks tables, whatever is in them; the mmap_lock is held. */
void cow_pte_file_leave_range(struct mm_struct *mm, unsigned long start,
			      unsigned long end)
{
	struct vm_area_struct *vma;

	VMA_ITERATOR(vmi, mm, start);

	if (!cow_pte_file_any(mm))
		return;
	for_each_vma_range(vmi, vma, end)
		cow_pte_file_leave(vma, max(start, vma->vm_start),
				   min(end, vma->vm_end));
}

/*
 * The same for one table, whose VMA the caller keeps in place, by its lock or the
 * mmap_lock: that is why the mapping is there.
 */
void cow_pte_file_leave_slot(struct mm_struct *mm, pmd_t *pmd,
			     unsigned long addr)
{
	struct address_space *mapping = NULL;
	unsigned long slot = cow_pte_slot(addr);
	struct cow_pte_left left = { .caller = _RET_IP_ };
	struct ptdesc *ptdesc;
	spinlock_t *pml, *ptl;

	pml = pmd_lock(mm, pmd);
	if (pmd_table_published(*pmd)) {
		ptdesc = pmd_table_ptdesc(*pmd);
		ptl = ptlock_ptr(ptdesc);
		spin_lock_nested(ptl, SINGLE_DEPTH_NESTING);
		mapping = ptdesc->pt_cow_pool->key.mapping;
		spin_unlock(ptl);
	}
	spin_unlock(pml);
	if (!mapping)
		return;
	i_mmap_lock_write(mapping);
	cow_pte_file_leave_one(mm, pmd, slot, &left);
	if (left.nr)
		cow_pte_flush(mm, slot, slot + PMD_SIZE);
	cow_pte_file_leave_end(mm, &left);
	i_mmap_unlock_write(mapping);
}

void __cow_pte_file_absorb(struct vm_area_struct *vma,
			   struct vm_area_struct *next)
{
	if (vma_soft_dirty_enabled(vma))
		cow_pte_file_leave(next, next->vm_start, next->vm_end);
}

/*
 * A VMA without VM_SOFTDIRTY that merges with one that has it takes the flag from it,
 * and others may have writable entries in its tables.
 */
static void cow_pte_file_modify_neighbour(struct vm_area_struct *vma)
{
	if (!vma || !(vma->vm_flags & VM_MAYSHARE) || vma_soft_dirty_enabled(vma))
		return;
	vma_start_write(vma);
	cow_pte_file_leave(vma, vma->vm_start, vma->vm_end);
}

void __cow_pte_file_modify(struct vm_area_struct *vma, unsigned long start,
			   unsigned long end)
{
	struct vm_area_struct *prev = vma_lookup(vma->vm_mm, vma->vm_start - 1);
	struct vm_area_struct *next = vma_lookup(vma->vm_mm, vma->vm_end);

	/* Nobody joins from here on. */
	vma_start_write(vma);
	cow_pte_file_leave(vma, start, end);
	if (vma_soft_dirty_enabled(vma) ||
	    (prev && vma_soft_dirty_enabled(prev)) ||
	    (next && vma_soft_dirty_enabled(next))) {
		cow_pte_file_modify_neighbour(prev);
		cow_pte_file_modify_neighbour(next);
	}
}

void __cow_pte_file_leave_all(struct mm_struct *mm)
{
	struct vm_area_struct *vma;

	VMA_ITERATOR(vmi, mm, 0);

	for_each_vma(vmi, vma) {
		if (!(vma->vm_flags & VM_MAYSHARE))
			continue;
		/* Nobody joins from here on. */
		vma_start_write(vma);
		cow_pte_file_leave(vma, vma->vm_start, vma->vm_end);
		cond_resched();
	}
}

/*
 * Zap and flush
 */

void __cow_pte_file_poison(struct ptdesc *ptdesc)
{
	if (ptdesc->pt_cow_word & COW_PTE_FILE)
		ptdesc->pt_cow_word |= COW_PTE_POISONED;
}

/*
 * Thousands of VMAs may have one table, and truncation visits each of them.  The
 * first visit empties it for all: it leaves in the table which zap that was, and the
 * others pass by.  Nobody leaves or gives up a table meanwhile (F4), and who fills it
 * again does so under the rules for a fault after the visit.
 */
#define COW_PTE_PASS_SHIFT	16

/* Return: true if the table has the mark already. */
static bool cow_pte_file_mark(struct ptdesc *ptdesc, unsigned long pass)
{
	spinlock_t *ptl = ptlock_ptr(ptdesc);

	if (!((READ_ONCE(ptdesc->pt_cow_word) ^ pass) >> COW_PTE_PASS_SHIFT))
		return true;
	spin_lock(ptl);
	/* A table can be joined or published meanwhile, but not left. */
	ptdesc->pt_cow_word &= BIT(COW_PTE_PASS_SHIFT) - 1;
	ptdesc->pt_cow_word |= pass;
	spin_unlock(ptl);
	return false;
}

/*
 * Only what is seen to have the mark is passed by: what has no PMD table may be mapped
 * by a PUD entry, and an empty PMD entry may be that of a huge page which is just going
 * away, see zap_pmd_range().
 */
static noinline bool cow_pte_file_pass(struct mm_struct *mm, unsigned long addr,
				       unsigned long end,
				       struct cow_pte_pass *pass)
{
	static atomic_long_t passes;
	bool zapped = true;
	pmd_t *pmd, pmdval;

	if (!pass->mark)
		pass->mark = atomic_long_inc_return(&passes) << COW_PTE_PASS_SHIFT;
	do {
		pmd = cow_pte_find_pmd(mm, addr);
		if (!pmd) {
			zapped = false;
			pmd = cow_pte_next_pmd(mm, &addr, end);
			if (!pmd)
				break;
		}
		/* khugepaged may take it away, and frees it by RCU. */
		rcu_read_lock();
		pmdval = pmdp_get_lockless(pmd);
		if (pmd_table_published(pmdval)) {
			if (!cow_pte_file_mark(pmd_table_ptdesc(pmdval), pass->mark))
				zapped = false;
			pass->table = pmd_table(pmdval);
		} else {
			zapped = false;
		}
		rcu_read_unlock();
		cond_resched();
		addr = pmd_addr_end(addr, end);
	} while (addr < end);
	return zapped;
}

bool __cow_pte_file_zapped(struct vm_area_struct *vma, unsigned long first,
			   unsigned long nr, struct cow_pte_pass *pass)
{
	unsigned long addr = vma->vm_start + (first << PAGE_SHIFT);
	unsigned long end = addr + (nr << PAGE_SHIFT);
	pmd_t *pmd = cow_pte_find_pmd(vma->vm_mm, addr), pmdval;

	/*
	 * Mostly it is one table, and the one that the VMA before has.  The table is
	 * not looked at: if it is another by now, it was published after the zap began.
	 */
	if (pmd && end - cow_pte_slot(addr) <= PMD_SIZE) {
		pmdval = pmdp_get_lockless(pmd);
		if (pmd_table_published(pmdval) && pmd_table(pmdval) == pass->table) {
			cond_resched();
			return true;
		}
	}
	return cow_pte_file_pass(vma->vm_mm, addr, end, pass);
}

/*
 * The other sharers are found as those who map this part of the file at the same
 * address.  They stand still: who removes or reduces an entry holds i_mmap_rwsem.
 * Return: false if they are too many, or too many others map the file.
 */
bool cow_pte_file_flush_few(struct mm_struct *mm, struct ptdesc *ptdesc,
			    const struct cow_pte_range *range)
{
	const struct cow_pte_key *key = &ptdesc->pt_cow_pool->key;
	unsigned int left = ptdesc->pt_cow_sharers - 1, reach;
	unsigned long slot = cow_pte_slot(range->start);
	pgoff_t pgoff = (slot - key->base) >> PAGE_SHIFT;
	struct vm_area_struct *vma;

	i_mmap_assert_locked(key->mapping);
	if (left > COW_PTE_FLUSH_MAX || (ptdesc->pt_cow_word & COW_PTE_FAR))
		return false;
	reach = 4 * COW_PTE_FLUSH_MAX;
	vma_interval_tree_foreach(vma, &key->mapping->i_mmap, pgoff,
				  pgoff + PTRS_PER_PTE - 1) {
		if (!left || !reach--)
			break;
		if (vma->vm_mm == mm || cow_pte_file_base(vma) != key->base ||
		    !cow_pte_is_sharer(vma->vm_mm, ptdesc, slot))
			continue;
		cow_pte_flush_mm(vma->vm_mm, range);
		left--;
	}
	if (left)
		ptdesc->pt_cow_word |= COW_PTE_FAR;
	return !left;
}

/*
 * User interface
 */

static int cow_pte_file_set_mode(const char *name)
{
	int mode = cow_pte_parse_mode(name);

	if (mode < 0)
		return mode;
	if (mode != COW_PTE_NEVER && !cow_pte_supported())
		return -EOPNOTSUPP;
	if (mode == COW_PTE_ALWAYS)
		cow_pte_enable();
	WRITE_ONCE(cow_pte_file_mode, mode);
	return 0;
}

static char cow_pte_file_param[8] __initdata;

static int __init cow_pte_file_setup(char *str)
{
	strscpy(cow_pte_file_param, str ?: "");
	return 0;
}
early_param("cow_pte_file", cow_pte_file_setup);

#ifdef CONFIG_SYSFS
static ssize_t file_show(struct kobject *kobj, struct kobj_attribute *attr,
			 char *buf)
{
	return cow_pte_show_mode(buf, READ_ONCE(cow_pte_file_mode));
}

static ssize_t file_store(struct kobject *kobj, struct kobj_attribute *attr,
			  const char *buf, size_t count)
{
	int err = cow_pte_file_set_mode(buf);

	return err ?: count;
}

struct kobj_attribute cow_pte_file_attr = __ATTR_RW(file);
#endif

static int __init cow_pte_file_init(void)
{
	int err = rhashtable_init(&cow_pte_pools, &cow_pte_pool_params);

	if (err)
		return err;
	if (cow_pte_file_param[0] && cow_pte_file_set_mode(cow_pte_file_param))
		pr_warn("cow_pte_file=%s ignored\n", cow_pte_file_param);
	return 0;
}
subsys_initcall(cow_pte_file_init);
