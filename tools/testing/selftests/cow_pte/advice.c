// SPDX-License-Identifier: GPL-2.0
/*
 * Advice on memory, files under it, and what the kernel does to its pages; see
 * cow_pte_op.h
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_op.h"

#ifndef MADV_HWPOISON
#define MADV_HWPOISON		100
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#define MADV_GUARD_REMOVE	103
#endif

/* Head or tail of a large folio, see include/uapi/linux/kernel-page-flags.h */
#define KPF_COMPOUND		(PM_BIT(15) | PM_BIT(16))

/* madvise */

static void op_madvise_free_pageout(void)
{
	DO(madvise(T(0), TABLE, MADV_FREE));
	madvise(T(0), TABLE, MADV_PAGEOUT);
}

static void op_madvise_wipeonfork_undone(void)
{
	DO(madvise(T(0), TABLE, MADV_WIPEONFORK));
	DO(madvise(T(0), TABLE, MADV_KEEPONFORK));
}

static void op_madvise_collapse(void)
{
	DO(madvise(T(0), TABLE, MADV_HUGEPAGE));
	/* May find no huge page, with the feature on or off */
	madvise(T(0), TABLE, MADV_COLLAPSE);
}

static void op_process_madvise(void)
{
	struct iovec iov = { T(0), 2 * TABLE };
	int fd = syscall(SYS_pidfd_open, getpid(), 0);

	DO(syscall(SYS_process_madvise, fd, &iov, 1, MADV_COLD, 0));
	DO(syscall(SYS_process_madvise, fd, &iov, 1, MADV_WILLNEED, 0));
	DO(syscall(SYS_process_madvise, fd, &iov, 1, MADV_PAGEOUT, 0));
	DO(syscall(SYS_process_madvise, fd, &iov, 1, MADV_FREE, 0));
	close(fd);
}

static void op_process_madvise_other(void)
{
	struct iovec iov = { T(0), 2 * TABLE };
	int fd = syscall(SYS_pidfd_open, world->pid[0], 0);

	DO(syscall(SYS_process_madvise, fd, &iov, 1, MADV_COLD, 0));
	DO(syscall(SYS_process_madvise, fd, &iov, 1, MADV_PAGEOUT, 0));
	close(fd);
}

static void op_process_madvise_collapse(void)
{
	struct iovec iov = { T(0), TABLE };
	int fd = syscall(SYS_pidfd_open, cow_target, 0);

	/* May find no huge page, with the feature on or off */
	syscall(SYS_process_madvise, fd, &iov, 1, MADV_COLLAPSE, 0);
	close(fd);
}

static int prepare_collapse(void)
{
	if (madvise(T(0), TABLE, MADV_HUGEPAGE))
		return cow_skip("no transparent huge pages");
	return 0;
}

/* A large folio in T1, mapped by PTEs since a VMA boundary once cut it */

static int prepare_large(void)
{
	static const char thp[] = "/sys/kernel/mm/transparent_hugepage/enabled";
	char mode[64];
	unsigned int i;

	if (cow_read_file(thp, mode, sizeof(mode)) < 0)
		return cow_skip("no transparent huge pages");
	if (strstr(mode, "[never]"))
		cow_write_file(thp, "madvise");
	if (mmap(T(1), TABLE, RW, ANON | MAP_FIXED, -1, 0) != T(1) ||
	    madvise(T(1), TABLE, MADV_HUGEPAGE))
		return -1;
	for (i = 0; i < world->nr_pages; i++)
		if (world->page[i] >= T(1) && world->page[i] < T(2))
			cow_try_write(world->page[i], i);
	if (cow_read_field("/proc/self/smaps_rollup", "AnonHugePages") < 2048)
		return cow_skip("got no huge page");
	return mprotect(T(1) + PAGE, PAGE, PROT_READ) ||
	       mprotect(T(1) + PAGE, PAGE, RW);
}

/* Number of pages of T1 that are part of a large folio */
static unsigned int count_compound(void)
{
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	unsigned int i, nr = 0;
	__u64 pm, flags;

	for (i = 0; i < TABLE_PAGES; i++) {
		pm = cow_pagemap(getpid(), T(1) + i * PAGE);
		if (!(pm & PM_PRESENT))
			continue;
		if (pread(fd, &flags, sizeof(flags),
			  (pm & PM_PFN_MASK) * sizeof(flags)) != sizeof(flags)) {
			cow_skip("/proc/kpageflags: %s", strerror(errno));
			break;
		}
		nr += !!(flags & KPF_COMPOUND);
	}
	close(fd);
	return nr;
}

static void split_large(void)
{
	static const char file[] = "/sys/kernel/debug/split_huge_pages";
	char range[96];

	if (access(file, W_OK)) {
		cow_skip("no %s", file);
		return;
	}
	snprintf(range, sizeof(range), "%d,0x%lx,0x%lx", getpid(),
		 (unsigned long)T(1), (unsigned long)T(2));
	DO(cow_write_file(file, range));
	DO(count_compound());
}

static void op_large_split(void)
{
	DO(count_compound());
	split_large();
}

static void op_large_dontneed_split(void)
{
	DO(madvise(T(1), TABLE / 2, MADV_DONTNEED));
	split_large();
}

static void op_large_mprotect_split(void)
{
	DO(mprotect(T(1) + TABLE / 4, TABLE / 2, PROT_READ));
	split_large();
}

static void op_large_pageout(void)
{
	DO(madvise(T(1) + 16 * PAGE, 64 * PAGE, MADV_PAGEOUT));
	DO(madvise(T(1) + 128 * PAGE, 64 * PAGE, MADV_COLD));
}

static void op_large_munmap(void)
{
	DO(munmap(T(1) + 100 * PAGE, 300 * PAGE));
}

static void op_large_mremap(void)
{
	DO(mremap(T(1) + 32 * PAGE, 64 * PAGE, 64 * PAGE,
		  MREMAP_MAYMOVE | MREMAP_FIXED, T(3)));
	cow_log_pages("moved", T(3), 64 * PAGE, 1);
}

/* KSM */

static void run_ksm(void)
{
	if (cow_ksm_scan())
		cow_skip("no KSM");
}

/* Every second page of T0 becomes the same */
static int prepare_twins(void)
{
	__u64 twin = cow_next_stamp(cow_self, 0);
	unsigned int i;

	for (i = 0; world->page[i] < T(1); i += 2)
		cow_stamp(world->page[i], twin);
	return 0;
}

static void op_ksm_merge(void)
{
	DO(madvise(T(0), TABLE, MADV_MERGEABLE));
	run_ksm();
}

static void op_ksm_unmerge(void)
{
	DO(madvise(T(0), TABLE, MADV_MERGEABLE));
	run_ksm();
	DO(madvise(T(0), TABLE, MADV_UNMERGEABLE));
}

static int prepare_mergeable(void)
{
	if (prepare_twins())
		return -1;
	if (madvise(T(0), TABLE, MADV_MERGEABLE))
		return cow_skip("no KSM");
	return 0;
}

/* All of them are registered now */
static void op_ksm_merge_all(void)
{
	run_ksm();
}

/* Files under a private mapping */

static void op_file_truncate(void)
{
	DO(ftruncate(field_fd, QUARTER / 2));
}

static void op_file_truncate_and_grow(void)
{
	DO(ftruncate(field_fd, 0));
	DO(ftruncate(field_fd, QUARTER));
}

static void op_file_punch_hole(void)
{
	DO(fallocate(field_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		     QUARTER / 2));
}

static void op_file_write(void)
{
	char buf[PAGE];
	unsigned int i;

	for (i = 0; i < QUARTER / PAGE; i++) {
		cow_fill_page(buf, cow_next_stamp(cow_self, i));
		if (pwrite(field_fd, buf, PAGE, i * PAGE) != PAGE)
			cow_log("pwrite", i, errno);
	}
}

/* The kernel moving pages about on its own account */

static void op_compact(void)
{
	if (cow_write_file("/proc/sys/vm/compact_memory", "1"))
		cow_skip("no memory compaction");
}

static void op_drop_caches(void)
{
	DO(cow_write_file("/proc/sys/vm/drop_caches", "3"));
}

/* Pages touched before would be charged elsewhere: make them new */
static int enter_cgroup(void)
{
	if (cow_cgroup_enter(32))
		return -1;
	if (mmap(T(0), 2 * TABLE, RW, ANON | MAP_FIXED, -1, 0) != T(0))
		return -1;
	madvise(T(0), 2 * TABLE, MADV_NOHUGEPAGE);
	world->nr_pages = 0;
	cow_track_range(T(0), 2 * TABLE, 4);
	return 0;
}

static unsigned int count_swapped(void)
{
	unsigned int i, nr = 0;

	for (i = 0; i < world->nr_pages; i++)
		if (cow_pagemap(getpid(), world->page[i]) & PM_SWAP)
			nr++;
	return nr;
}

static void swap_out(void)
{
	int i;

	for (i = 0; i < 20 && count_swapped() < world->nr_pages / 2; i++)
		cow_cgroup_reclaim(8);
	if (!count_swapped())
		cow_skip("reclaim swapped out nothing");
}

static void op_reclaim(void)
{
	swap_out();
}

static void op_reclaim_then_dontneed(void)
{
	swap_out();
	DO(madvise(T(0) + TABLE / 2, TABLE, MADV_DONTNEED));
}

static void op_reclaim_then_unmap(void)
{
	swap_out();
	DO(munmap(T(0) + TABLE / 2, TABLE));
}

/* Bring everything back while the tables are shared */
static void op_reclaim_then_swapoff(void)
{
	char dev[128];

	if (cow_swap_device(dev, sizeof(dev), 4096))
		return;
	swap_out();
	if (world->skip[0])
		return;
	DO(swapoff(dev));
	cow_log("swapped", 0, count_swapped());
	DO(swapon(dev, 0));
}

/* Poisoned memory is gone for everybody who has it */
static void op_madvise_hwpoison(void)
{
	DO(madvise(T(0) + 10 * PAGE, PAGE, MADV_HWPOISON));
}

FIXTURE(op) {
};

FIXTURE_VARIANT(op) {
	struct cow_op op;
};

FIXTURE_SETUP(op) {}
FIXTURE_TEARDOWN(op) {}

FIXTURE_VARIANT_ADD(op, madvise_collapse) { RUN(madvise_collapse) };
FIXTURE_VARIANT_ADD(op, process_madvise) { RUN(process_madvise) };
FIXTURE_VARIANT_ADD(op, process_madvise_other) { RUN(process_madvise_other) };
FIXTURE_VARIANT_ADD(op, compact) { RUN(compact) };
FIXTURE_VARIANT_ADD(op, drop_caches) { RUN(drop_caches) };
FIXTURE_VARIANT_ADD(op, madvise_free_table) { ADVISE(0, TABLE, MADV_FREE) };
FIXTURE_VARIANT_ADD(op, madvise_cold) { ADVISE(0, 2 * TABLE, MADV_COLD) };
FIXTURE_VARIANT_ADD(op, madvise_pageout) { ADVISE(0, 2 * TABLE, MADV_PAGEOUT) };
FIXTURE_VARIANT_ADD(op, madvise_willneed) { ADVISE(0, TABLE, MADV_WILLNEED) };
FIXTURE_VARIANT_ADD(op, madvise_hugepage) { ADVISE(0, TABLE, MADV_HUGEPAGE) };
FIXTURE_VARIANT_ADD(op, madvise_dofork) { ADVISE(0, TABLE / 2, MADV_DOFORK) };
FIXTURE_VARIANT_ADD(op, madvise_remove) { ADVISE(0, TABLE, MADV_REMOVE) };
FIXTURE_VARIANT_ADD(op, madvise_random) { ADVISE(0, TABLE / 2, MADV_RANDOM) };
FIXTURE_VARIANT_ADD(op, madvise_unaligned) { ADVISE(1, TABLE, MADV_DONTNEED) };
FIXTURE_VARIANT_ADD(op, madvise_no_such_advice) { ADVISE(0, TABLE, 12345) };

FIXTURE_VARIANT_ADD(op, madvise_wipeonfork_undone) {
	RUN(madvise_wipeonfork_undone)
};

FIXTURE_VARIANT_ADD(op, madvise_dontneed_table) {
	ADVISE(0, TABLE, MADV_DONTNEED)
};

FIXTURE_VARIANT_ADD(op, madvise_dontneed_page) {
	ADVISE(6 * PAGE, PAGE, MADV_DONTNEED)
};

FIXTURE_VARIANT_ADD(op, madvise_dontneed_spanning) {
	ADVISE(TABLE / 2, 2 * TABLE, MADV_DONTNEED)
};

FIXTURE_VARIANT_ADD(op, madvise_dontneed_readonly) {
	ADVISE(2 * TABLE + QUARTER, QUARTER, MADV_DONTNEED)
};

FIXTURE_VARIANT_ADD(op, madvise_dontneed_file) {
	ADVISE(2 * TABLE + 2 * QUARTER, QUARTER, MADV_DONTNEED)
};

FIXTURE_VARIANT_ADD(op, madvise_dontneed_locked) {
	ADVISE(0, 3 * QUARTER, MADV_DONTNEED_LOCKED)
};

FIXTURE_VARIANT_ADD(op, madvise_free_page) {
	ADVISE(6 * PAGE, PAGE, MADV_FREE)
};

FIXTURE_VARIANT_ADD(op, madvise_pageout_file) {
	ADVISE(2 * TABLE + 2 * QUARTER, QUARTER, MADV_PAGEOUT)
};

FIXTURE_VARIANT_ADD(op, madvise_unmergeable) {
	ADVISE(0, TABLE, MADV_UNMERGEABLE)
};

FIXTURE_VARIANT_ADD(op, madvise_nohugepage) {
	ADVISE(0, TABLE, MADV_NOHUGEPAGE)
};

FIXTURE_VARIANT_ADD(op, madvise_dontfork) {
	ADVISE(0, TABLE / 2, MADV_DONTFORK)
};

FIXTURE_VARIANT_ADD(op, madvise_wipeonfork) {
	ADVISE(0, TABLE / 2, MADV_WIPEONFORK)
};

/* Now what fork copies comes first in the table */
FIXTURE_VARIANT_ADD(op, madvise_wipeonfork_upper) {
	ADVISE(TABLE / 2, TABLE / 2, MADV_WIPEONFORK)
};

FIXTURE_VARIANT_ADD(op, madvise_dontfork_upper) {
	ADVISE(TABLE / 2, TABLE / 2, MADV_DONTFORK)
};

FIXTURE_VARIANT_ADD(op, madvise_keeponfork) {
	ADVISE(0, TABLE / 2, MADV_KEEPONFORK)
};

FIXTURE_VARIANT_ADD(op, madvise_populate_read) {
	ADVISE(0, 2 * TABLE, MADV_POPULATE_READ)
};

FIXTURE_VARIANT_ADD(op, madvise_populate_write) {
	ADVISE(0, 2 * TABLE, MADV_POPULATE_WRITE)
};

FIXTURE_VARIANT_ADD(op, madvise_populate_write_page) {
	ADVISE(TABLE + PAGE, PAGE, MADV_POPULATE_WRITE)
};

FIXTURE_VARIANT_ADD(op, madvise_populate_write_readonly) {
	ADVISE(2 * TABLE + QUARTER, QUARTER, MADV_POPULATE_WRITE)
};

FIXTURE_VARIANT_ADD(op, madvise_dontdump) {
	ADVISE(0, TABLE / 2, MADV_DONTDUMP)
};

FIXTURE_VARIANT_ADD(op, madvise_soft_offline) {
	ADVISE(10 * PAGE, PAGE, MADV_SOFT_OFFLINE)
};

FIXTURE_VARIANT_ADD(op, madvise_normal) {
	ADVISE(0, TABLE, MADV_NORMAL)
};

FIXTURE_VARIANT_ADD(op, madvise_sequential) {
	ADVISE(0, TABLE / 2, MADV_SEQUENTIAL)
};

FIXTURE_VARIANT_ADD(op, madvise_dodump) {
	ADVISE(0, TABLE / 2, MADV_DODUMP)
};

FIXTURE_VARIANT_ADD(op, madvise_mergeable) {
	ADVISE(0, TABLE, MADV_MERGEABLE)
};

FIXTURE_VARIANT_ADD(op, madvise_guard_install) {
	ADVISE(0, 4 * PAGE, MADV_GUARD_INSTALL)
};

FIXTURE_VARIANT_ADD(op, madvise_guard_remove) {
	ADVISE(0, 4 * PAGE, MADV_GUARD_REMOVE)
};

FIXTURE_VARIANT_ADD(op, madvise_over_hole) {
	ADVISE(2 * TABLE + 2 * QUARTER, TABLE, MADV_DONTNEED)
};

FIXTURE_VARIANT_ADD(op, process_madvise_collapse) {
	.op.remote = op_process_madvise_collapse,
	.op.prepare = prepare_collapse,
};

FIXTURE_VARIANT_ADD(op, large_split) {
	RUN(large_split),
	.op.prepare = prepare_large,
};

FIXTURE_VARIANT_ADD(op, large_dontneed_split) {
	RUN(large_dontneed_split),
	.op.prepare = prepare_large,
};

FIXTURE_VARIANT_ADD(op, large_mprotect_split) {
	RUN(large_mprotect_split),
	.op.prepare = prepare_large,
};

FIXTURE_VARIANT_ADD(op, large_pageout) {
	RUN(large_pageout),
	.op.prepare = prepare_large,
};

FIXTURE_VARIANT_ADD(op, large_munmap) {
	RUN(large_munmap),
	.op.prepare = prepare_large,
};

FIXTURE_VARIANT_ADD(op, large_mremap) {
	RUN(large_mremap),
	.op.prepare = prepare_large,
};

FIXTURE_VARIANT_ADD(op, madvise_free_pageout) {
	RUN(madvise_free_pageout),
	.op.flags = UNPREDICTABLE,
};

FIXTURE_VARIANT_ADD(op, madvise_hwpoison) {
	RUN(madvise_hwpoison),
	.op.flags = SEEN_BY_ALL,
};

FIXTURE_VARIANT_ADD(op, ksm_merge) {
	RUN(ksm_merge),
	.op.prepare = prepare_twins,
};

FIXTURE_VARIANT_ADD(op, ksm_unmerge) {
	RUN(ksm_unmerge),
	.op.prepare = prepare_twins,
};

FIXTURE_VARIANT_ADD(op, ksm_merge_all) {
	RUN(ksm_merge_all),
	.op.prepare = prepare_mergeable,
	.op.flags = NOT_SHARED,
};

FIXTURE_VARIANT_ADD(op, file_truncate) {
	RUN(file_truncate),
	.op.flags = SEEN_BY_ALL,
};

FIXTURE_VARIANT_ADD(op, file_truncate_and_grow) {
	RUN(file_truncate_and_grow),
	.op.flags = SEEN_BY_ALL,
};

FIXTURE_VARIANT_ADD(op, file_punch_hole) {
	RUN(file_punch_hole),
	.op.flags = SEEN_BY_ALL,
};

FIXTURE_VARIANT_ADD(op, file_write) {
	RUN(file_write),
	.op.flags = SEEN_BY_ALL,
};

FIXTURE_VARIANT_ADD(op, reclaim) {
	RUN(reclaim),
	.op.prepare = enter_cgroup,
};

FIXTURE_VARIANT_ADD(op, reclaim_then_dontneed) {
	RUN(reclaim_then_dontneed),
	.op.prepare = enter_cgroup,
};

FIXTURE_VARIANT_ADD(op, reclaim_then_unmap) {
	RUN(reclaim_then_unmap),
	.op.prepare = enter_cgroup,
};

FIXTURE_VARIANT_ADD(op, reclaim_then_swapoff) {
	RUN(reclaim_then_swapoff),
	.op.prepare = enter_cgroup,
};

TEST_F_TIMEOUT(op, parent, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_PARENT));
}

TEST_F_TIMEOUT(op, child, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_CHILD));
}

TEST_F_TIMEOUT(op, third, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_THIRD));
}

TEST_F_TIMEOUT(op, threaded, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_THREADED));
}

TEST_F_TIMEOUT(op, borrower, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_BORROWER));
}

TEST_F_TIMEOUT(op, lender, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_LENDER));
}

/*
 * MADV_COLLAPSE wants a page that is writable, which none is after fork, or a
 * file: a huge page of a file, which PTEs map in T0.  A page written in T1 makes
 * fork share the table of T0.
 */
static int prepare_huge_file(void)
{
	int fd = memfd_create("huge", MFD_CLOEXEC);
	unsigned int i;

	if (fd < 0 || ftruncate(fd, 2 * TABLE) ||
	    mmap(T(0), TABLE, RW, MAP_SHARED | MAP_FIXED, fd, 0) != T(0))
		return -1;
	for (i = 0; i < TABLE_PAGES; i++)
		cow_stamp(T(0) + i * PAGE, cow_next_stamp(COW_FILE_OWNER, i));
	if (madvise(T(0), TABLE, MADV_COLLAPSE))
		return cow_skip("no huge pages of files: %s", strerror(errno));
	if (mmap(T(0), 2 * TABLE, RW, MAP_PRIVATE | MAP_FIXED, fd, 0) != T(0))
		return -1;
	close(fd);
	cow_stamp(T(1), cow_next_stamp(cow_self, 0));
	if (madvise(T(0), TABLE, MADV_NOHUGEPAGE))
		return -1;
	for (i = 0; i < TABLE_PAGES; i++)
		cow_peek(T(0) + i * PAGE);
	return madvise(T(0), TABLE, MADV_HUGEPAGE);
}

static void op_collapse_file(void)
{
	DO(madvise(T(0), TABLE, MADV_COLLAPSE));
	cow_log("mapped huge", 0, cow_read_field("/proc/self/smaps_rollup",
						 "ShmemPmdMapped"));
}

FIXTURE_VARIANT_ADD(op, collapse_file) {
	RUN(collapse_file),
	.op.prepare = prepare_huge_file,
};

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
