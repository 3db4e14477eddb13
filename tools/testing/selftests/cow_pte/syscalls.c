// SPDX-License-Identifier: GPL-2.0
/*
 * Every operation on memory, done by one of three processes that share their
 * tables: it must give the same results as with the feature off, and the other
 * two must not notice.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_util.h"

#define RW	(PROT_READ | PROT_WRITE)
#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED	24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
#ifndef MADV_HWPOISON
#define MADV_HWPOISON		100
#endif
#ifndef SYS_mseal
#define SYS_mseal		462
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif

/* Newer than the oldest headers these tests build with */
#define FEATURE_WP_UNPOPULATED	0x2000
#define FEATURE_WP_ASYNC	0x8000
#define FEATURE_MOVE		0x10000

struct move_arg {
	__u64 dst, src, len, mode;
	__s64 move;
};

#define IOC_MOVE	_IOWR(UFFDIO, 0x05, struct move_arg)

struct scan_arg {
	__u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
	__u64 category_inverted, category_mask, category_anyof_mask, return_mask;
};

struct scan_region {
	__u64 start, end, categories;
};

#define IOC_SCAN		_IOWR('f', 16, struct scan_arg)
#define SCAN_WP_MATCHING	0x1
#define SCAN_IS_WRITTEN		0x2

#define MPOL_DEFAULT		0
#define MPOL_BIND		2
#define MPOL_MF_STRICT		0x1
#define MPOL_MF_MOVE		0x2
#define MPOL_MF_MOVE_ALL	0x4

enum {
	/* The operation is on a file: everybody sees it */
	SEEN_BY_ALL	= 0x01,
	/* What the process sees may depend on reclaim */
	UNPREDICTABLE	= 0x02,
	/* The preparation rules out sharing */
	NOT_SHARED	= 0x04,
};

struct op {
	int (*prepare)(void);	/* in the first process, before it forks */
	void (*run)(void);	/* in the process that acts */
	unsigned int flags;
	/* Without a function to run: madvise(), from the arena's start on */
	size_t offset;
	size_t len;
	int advice;
};

struct test_case {
	const struct op *op;
	unsigned int actor;
};

/*
 * The field: T0 and T1 anonymous, T2 in four quarters: anonymous, anonymous
 * and read-only, private mapping of a file, nothing.  T3 to T5 are free.
 */
#define T(n)		(arena + (n) * TABLE)
#define QUARTER		(TABLE / 4)
#define Q(n)		(T(2) + (n) * QUARTER)

static int field_fd;

/* Do it and note how it ended */
#define DO(call) do {							\
	long __ret;							\
									\
	errno = 0;							\
	__ret = (long)(call);						\
	cow_log(#call, 0, __ret == -1 ? -errno : __ret);		\
} while (0)

static void log_pages(const char *label, char *addr, size_t len,
		      unsigned int step)
{
	size_t off;

	for (off = 0; off < len; off += step * PAGE)
		cow_log(label, off / PAGE, cow_peek(addr + off));
}

/* Which node memory comes from must not depend on the CPU it is needed on */
static int allocate_on_first_node(bool on)
{
	unsigned long mask = 1;

	if (access("/sys/devices/system/node/node1", F_OK))
		return 0;
	return on ? syscall(SYS_set_mempolicy, MPOL_BIND, &mask, 64) :
		    syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0);
}

static int prepare_field(void)
{
	unsigned int first;
	char *file = Q(2);

	if (allocate_on_first_node(true))
		return -1;
	if (mmap(T(0), 2 * TABLE + 2 * QUARTER, RW, ANON | MAP_FIXED, -1,
		 0) != T(0))
		return -1;
	madvise(T(0), 2 * TABLE + 2 * QUARTER, MADV_NOHUGEPAGE);
	cow_track_range(T(0), 32 * PAGE, 2);
	cow_track_range(T(0) + 32 * PAGE, TABLE - 32 * PAGE, 8);
	cow_track_range(T(1), TABLE, 32);
	cow_track_range(Q(0), QUARTER, 16);
	first = world->nr_pages;
	cow_track_range(Q(1), QUARTER, 16);
	memset(&world->readonly[first], true, world->nr_pages - first);
	if (mprotect(Q(1), QUARTER, PROT_READ))
		return -1;

	field_fd = cow_stamped_file(memfd_create("field", 0), QUARTER);
	if (field_fd < 0 ||
	    mmap(file, QUARTER, RW, MAP_PRIVATE | MAP_FIXED, field_fd,
		 0) != file)
		return -1;
	cow_track_range(file, QUARTER, 16);
	for (; file < Q(3); file += 16 * PAGE)
		cow_track(file + PAGE);
	cow_adopt();
	return allocate_on_first_node(false);
}

static long call_prepare(const long *arg)
{
	const struct op *op = (void *)arg[0];

	if (prepare_field() || (op->prepare && op->prepare()))
		return -1;
	cow_adopt();
	return 0;
}

/* For the operations that are one call of madvise(), see their variants */
static void do_madvise(const struct op *op)
{
	DO(madvise(arena + op->offset, op->len, op->advice));
}

static long call_run(const long *arg)
{
	const struct op *op = (void *)arg[0];

	if (op->run)
		op->run();
	else
		do_madvise(op);
	return 0;
}

/* What the process sees, also noted unless reclaim may have changed it */
static long call_look(const long *arg)
{
	unsigned int i;

	cow_adopt();
	for (i = 0; arg[0] && i < world->nr_pages; i++)
		cow_log("page", i, world->model[cow_self][i]);
	return 0;
}

static long call_write_all(const long *arg)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++)
		cow_log("write", i, cow_try_write(world->page[i], i));
	return 0;
}

static void write_all(unsigned int proc, const char *when)
{
	cow_call(proc, call_write_all, 0);
	cow_check_all(when);
}

static const char *run_op(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	const struct op *op = tc->op;
	static const struct cow_mem field = { .tables = 3 };
	bool look = !(op->flags & UNPREDICTABLE);
	unsigned int i, late;

	cow_world_start(mode);
	if (cow_call(0, call_prepare, (long)op)) {
		if (!world->skip[0])
			cow_fail("preparation failed: %s", strerror(errno));
		cow_world_stop();
		return world->skip;
	}
	cow_fork(0, COW_FORK);
	cow_fork(0, COW_FORK);
	if (!(op->flags & NOT_SHARED))
		cow_must_share(mode, &field);
	cow_check_all("after fork");

	cow_call(tc->actor, call_run, (long)op);
	if (world->skip[0]) {
		cow_world_stop();
		return world->skip;
	}
	for (i = 0; i < 3; i++) {
		if (i != tc->actor && !(op->flags & SEEN_BY_ALL))
			cow_check(i, "after the operation");
		else
			cow_call(i, call_look, look);
	}

	/* Share what it left behind, then write everywhere */
	late = cow_fork(tc->actor, COW_FORK);
	cow_call(late, call_look, look);
	write_all(tc->actor, "after the actor wrote");
	write_all(late, "after its child wrote");
	write_all((tc->actor + 1) % 3, "after another process wrote");
	write_all((tc->actor + 2) % 3, "after all wrote");
	cow_exit(tc->actor);
	cow_check_all("after the actor's exit");
	write_all((tc->actor + 1) % 3, "when the actor is gone");
	cow_world_stop();
	return NULL;
}

/* mprotect */

static void op_mprotect_ro_table(void)
{
	DO(mprotect(T(0), TABLE, PROT_READ));
}

static void op_mprotect_ro_page(void)
{
	DO(mprotect(T(0) + 8 * PAGE, PAGE, PROT_READ));
}

static void op_mprotect_none_page(void)
{
	DO(mprotect(T(0), 1, PROT_NONE));
}

static void op_mprotect_there_and_back(void)
{
	DO(mprotect(T(0), TABLE, PROT_READ));
	log_pages("read-only", T(0), TABLE, 8);
	DO(mprotect(T(0), TABLE, RW));
}

static void op_mprotect_rw(void)
{
	DO(mprotect(Q(1), QUARTER / 2, RW));
}

static void op_mprotect_spanning(void)
{
	DO(mprotect(T(0) + TABLE / 2, 2 * TABLE, PROT_NONE));
}

static void op_mprotect_exec(void)
{
	DO(mprotect(T(1) + PAGE, 2 * PAGE, RW | PROT_EXEC));
}

static void op_mprotect_over_hole(void)
{
	DO(munmap(T(1), PAGE));
	DO(mprotect(T(0), 2 * TABLE, PROT_READ));
}

/* munmap and mmap */

static void op_munmap_table(void)
{
	DO(munmap(T(0), TABLE));
}

static void op_munmap_first_page(void)
{
	DO(munmap(T(0), PAGE));
}

static void op_munmap_last_page(void)
{
	DO(munmap(T(1) - PAGE, PAGE));
}

static void op_munmap_middle(void)
{
	DO(munmap(T(0) + 100 * PAGE, 100 * PAGE));
}

static void op_munmap_spanning(void)
{
	DO(munmap(T(0) + TABLE / 2, 2 * TABLE));
}

static void op_munmap_all(void)
{
	DO(munmap(T(0), 3 * TABLE));
}

static void op_munmap_file(void)
{
	DO(munmap(Q(2), QUARTER));
}

static void op_munmap_and_map_again(void)
{
	DO(munmap(T(0), 2 * TABLE));
	DO(mmap(T(0), 2 * TABLE, RW, ANON | MAP_FIXED, -1, 0));
}

static void op_map_fixed_page(void)
{
	DO(mmap(T(0) + 64 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0));
}

static void op_map_fixed_table(void)
{
	DO(mmap(T(0), TABLE, RW, ANON | MAP_FIXED, -1, 0));
}

static void op_map_fixed_file(void)
{
	DO(mmap(T(0) + TABLE / 2, TABLE / 4, RW, MAP_PRIVATE | MAP_FIXED,
		field_fd, 0));
	log_pages("file", T(0) + TABLE / 2, TABLE / 4, 8);
}

static void op_map_fixed_shared(void)
{
	char *shm = T(0) + TABLE / 2;

	DO(mmap(shm, QUARTER, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
		0));
	memset(shm, 1, QUARTER);
	log_pages("shared", shm, QUARTER, 8);
	/* The model knows of private memory only */
	DO(mmap(shm, QUARTER, RW, ANON | MAP_FIXED, -1, 0));
}

static void op_map_into_free_quarter(void)
{
	DO(mmap(Q(3), QUARTER, RW, ANON | MAP_FIXED, -1, 0));
	cow_stamp(Q(3), cow_next_stamp(cow_self, 0));
	log_pages("new", Q(3), QUARTER, 8);
}

static void op_map_populate(void)
{
	DO(mmap(Q(3), QUARTER, RW, ANON | MAP_FIXED | MAP_POPULATE, -1, 0));
	DO(mmap(T(0), QUARTER, RW, ANON | MAP_FIXED | MAP_POPULATE, -1, 0));
}

/* mremap */

#define MOVE	(MREMAP_MAYMOVE | MREMAP_FIXED)

static void op_mremap_shrink(void)
{
	DO(mremap(T(1), TABLE, TABLE / 2, 0));
}

static void op_mremap_grow(void)
{
	DO(munmap(T(1) + TABLE / 2, TABLE / 2));
	DO(mremap(T(0), TABLE + TABLE / 2, TABLE + TABLE / 2 + 16 * PAGE, 0));
	log_pages("grown", T(1), TABLE, 4);
}

static void op_mremap_grow_move(void)
{
	DO(mremap(T(0), TABLE, 2 * TABLE, MOVE, T(3)));
	log_pages("moved", T(3), 2 * TABLE, 2);
}

static void op_mremap_table(void)
{
	DO(mremap(T(0), TABLE, TABLE, MOVE, T(3)));
	log_pages("moved", T(3), TABLE, 1);
}

static void op_mremap_there_and_back(void)
{
	DO(mremap(T(0), TABLE, TABLE, MOVE, T(3)));
	DO(mremap(T(3), TABLE, TABLE, MOVE, T(0)));
}

static void op_mremap_page(void)
{
	DO(mremap(T(0) + 4 * PAGE, PAGE, PAGE, MOVE, T(3) + 9 * PAGE));
	log_pages("moved", T(3) + 9 * PAGE, PAGE, 1);
}

static void op_mremap_unaligned(void)
{
	DO(mremap(T(0) + PAGE, TABLE, TABLE, MOVE, T(3) + 2 * PAGE));
	log_pages("moved", T(3) + 2 * PAGE, TABLE, 1);
}

static void op_mremap_into_neighbour(void)
{
	DO(mremap(T(0) + 16 * PAGE, 32 * PAGE, 32 * PAGE, MOVE,
		  Q(3) + 8 * PAGE));
	log_pages("moved", Q(3) + 8 * PAGE, 32 * PAGE, 1);
}

static void op_mremap_over_neighbour(void)
{
	DO(mremap(T(0) + 16 * PAGE, 32 * PAGE, 32 * PAGE, MOVE,
		  T(1) + 32 * PAGE));
}

static void op_mremap_dontunmap(void)
{
	DO(mremap(T(0), TABLE, TABLE, MOVE | MREMAP_DONTUNMAP, T(3)));
	log_pages("moved", T(3), TABLE, 1);
}

static void op_mremap_dontunmap_part(void)
{
	DO(mremap(T(0) + PAGE, 64 * PAGE, 64 * PAGE, MOVE | MREMAP_DONTUNMAP,
		  T(3)));
	log_pages("moved", T(3), 64 * PAGE, 1);
}

static void op_mremap_file(void)
{
	DO(mremap(Q(2), QUARTER, QUARTER, MOVE, T(3) + QUARTER));
	log_pages("moved", T(3) + QUARTER, QUARTER, 1);
}

static void op_mremap_bad(void)
{
	DO(mremap(T(0), TABLE, TABLE, MOVE, T(0) + PAGE));
	DO(mremap(T(2), TABLE, 2 * TABLE, MREMAP_MAYMOVE));
}

/* brk and stack */

static char *heap;

static int prepare_brk(void)
{
	heap = (char *)(((uintptr_t)sbrk(0) + TABLE - 1) & -TABLE);
	if (brk(heap + 2 * TABLE))
		return -1;
	madvise(heap, 2 * TABLE, MADV_NOHUGEPAGE);
	cow_track_range(heap, 2 * TABLE, 32);
	return 0;
}

static void op_brk_shrink(void)
{
	DO(brk(heap + TABLE + TABLE / 2));
}

static void op_brk_shrink_and_grow(void)
{
	DO(brk(heap + PAGE));
	DO(brk(heap + 3 * TABLE));
	log_pages("new", heap + 2 * TABLE, TABLE, 16);
}

static int prepare_stack(void)
{
	if (munmap(T(3), TABLE) ||
	    mmap(T(4), TABLE / 2, RW, ANON | MAP_GROWSDOWN | MAP_FIXED, -1,
		 0) != T(4))
		return -1;
	cow_track_range(T(4), TABLE / 2, 16);
	/* Into the table below, which will be shared then */
	cow_stamp(T(4) - PAGE, cow_next_stamp(cow_self, cow_track(T(4) - PAGE)));
	return 0;
}

static void op_stack_grow(void)
{
	cow_stamp(T(4) - 9 * PAGE, cow_next_stamp(cow_self, 0));
	log_pages("grown", T(4) - 9 * PAGE, 9 * PAGE, 1);
}

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

/* KSM */

static void run_ksm(void)
{
	static const char scans[] = "/sys/kernel/mm/ksm/full_scans";
	char buf[32];
	long start;
	int i;

	if (cow_read_file(scans, buf, sizeof(buf)) < 0) {
		cow_skip("no KSM");
		return;
	}
	start = strtol(buf, NULL, 10);
	cow_write_file("/sys/kernel/mm/ksm/pages_to_scan", "10000");
	cow_write_file("/sys/kernel/mm/ksm/sleep_millisecs", "1");
	cow_write_file("/sys/kernel/mm/ksm/run", "1");
	/* Two scans to see that a page does not change, one to merge it */
	for (i = 0; i < 1000; i++) {
		usleep(5000);
		if (cow_read_file(scans, buf, sizeof(buf)) < 0 ||
		    strtol(buf, NULL, 10) >= start + 3)
			break;
	}
	cow_write_file("/sys/kernel/mm/ksm/run", "0");
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

/* mlock */

static void op_mlock_part(void)
{
	DO(mlock(T(0) + 8 * PAGE, 64 * PAGE));
}

static void op_mlock_table(void)
{
	DO(mlock(T(0), TABLE));
}

static void op_mlock_munlock(void)
{
	DO(mlock(T(0), 2 * TABLE));
	DO(munlock(T(0), TABLE / 2));
}

static void op_mlock_onfault(void)
{
	DO(mlock2(T(0), 2 * TABLE, MLOCK_ONFAULT));
}

static void op_mlock_dontneed(void)
{
	DO(mlock(T(0), QUARTER));
	DO(madvise(T(0), QUARTER, MADV_DONTNEED));
	DO(madvise(T(0), QUARTER, MADV_DONTNEED_LOCKED));
}

static void op_mlockall_current(void)
{
	DO(mlockall(MCL_CURRENT));
	DO(munlockall());
}

static void op_mlockall_future(void)
{
	DO(mlockall(MCL_CURRENT | MCL_FUTURE));
	DO(mmap(Q(3), QUARTER, RW, ANON | MAP_FIXED, -1, 0));
}

static int prepare_locked(void)
{
	return mlock(T(0), 2 * TABLE + 2 * QUARTER);
}

static void op_munlock_locked(void)
{
	DO(munlock(T(0), TABLE));
	DO(madvise(T(0), QUARTER, MADV_DONTNEED));
}

/* NUMA: moves pages for real on a machine with several nodes */

static unsigned int last_node(void)
{
	char buf[64];
	char *sep;

	if (cow_read_file("/sys/devices/system/node/online", buf,
			  sizeof(buf)) <= 0)
		return 0;
	sep = strrchr(buf, '-');
	return strtoul(sep ? sep + 1 : buf, NULL, 10);
}

static void do_mbind(unsigned int flags)
{
	unsigned long mask = 1UL << last_node();

	DO(syscall(SYS_mbind, T(0), TABLE, MPOL_BIND, &mask, 64, flags));
	DO(syscall(SYS_mbind, T(1) + PAGE, PAGE, MPOL_BIND, &mask, 64, flags));
}

static void op_mbind(void)
{
	do_mbind(0);
}

static void op_mbind_strict(void)
{
	do_mbind(MPOL_MF_STRICT);
}

static void op_mbind_move(void)
{
	do_mbind(MPOL_MF_MOVE);
}

static void op_mbind_move_all(void)
{
	do_mbind(MPOL_MF_MOVE_ALL);
}

static void do_move_pages(unsigned int flags, const unsigned int *want)
{
	int nodes[TABLE_PAGES], status[TABLE_PAGES];
	void *pages[TABLE_PAGES];
	unsigned int i;

	for (i = 0; i < TABLE_PAGES; i++) {
		pages[i] = T(0) + i * PAGE;
		nodes[i] = want ? *want : 0;
		status[i] = 0;
	}
	DO(syscall(SYS_move_pages, 0, TABLE_PAGES, pages, want ? nodes : NULL,
		   status, flags));
	/* Which node a page came from is up to the allocator */
	for (i = 0; i < TABLE_PAGES; i++)
		if (status[i] < 0 || want)
			cow_log("move_pages status", i, status[i]);
}

static void op_move_pages_query(void)
{
	do_move_pages(0, NULL);
}

static void op_move_pages(void)
{
	unsigned int node = last_node();

	do_move_pages(MPOL_MF_MOVE, &node);
}

static void op_move_pages_all(void)
{
	unsigned int node = last_node();

	do_move_pages(MPOL_MF_MOVE_ALL, &node);
}

static void op_migrate_pages(void)
{
	unsigned long from = 1, to = 1UL << last_node();

	DO(syscall(SYS_migrate_pages, 0, 64, &from, &to));
}

/* userfaultfd: always unregistered in the end, nobody serves its faults */

static int open_uffd(__u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api)) {
		cow_skip("userfaultfd features %#llx: %s",
			 features, strerror(errno));
		return -1;
	}
	return fd;
}

static int uffd_register(int fd, void *addr, size_t len, __u64 mode)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)addr, len },
		.mode = mode,
	};

	return ioctl(fd, UFFDIO_REGISTER, &reg);
}

static int uffd_protect(int fd, void *addr, size_t len, __u64 mode)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)addr, len },
		.mode = mode,
	};

	return ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
}

static void log_pagemap(const char *label, __u64 mask)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++)
		cow_log(label, i,
			cow_pagemap(getpid(), world->page[i]) & mask);
}

static void op_uffd_register(void)
{
	int fd = open_uffd(0);

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(0), TABLE, UFFDIO_REGISTER_MODE_MISSING));
	/* Not the empty entries: nobody would serve the fault */
	log_pages("registered", T(0), TABLE, 8);
	close(fd);
}

static void op_uffd_copy(void)
{
	alignas(PAGE) char buf[PAGE];
	struct uffdio_copy copy = {
		.src = (uintptr_t)buf, .len = PAGE,
	};
	int fd = open_uffd(0);

	if (fd < 0)
		return;
	cow_fill_page(buf, cow_next_stamp(cow_self, 0));
	DO(uffd_register(fd, T(1), TABLE, UFFDIO_REGISTER_MODE_MISSING));
	/* Into an empty entry and over a page */
	copy.dst = (uintptr_t)(T(1) + PAGE);
	DO(ioctl(fd, UFFDIO_COPY, &copy));
	copy.dst = (uintptr_t)T(1);
	DO(ioctl(fd, UFFDIO_COPY, &copy));
	close(fd);
	log_pages("copied", T(1), 4 * PAGE, 1);
}

static void op_uffd_zeropage(void)
{
	struct uffdio_zeropage zero = { .range.len = PAGE };
	int fd = open_uffd(0);

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(1), TABLE, UFFDIO_REGISTER_MODE_MISSING));
	zero.range.start = (uintptr_t)(T(1) + PAGE);
	DO(ioctl(fd, UFFDIO_ZEROPAGE, &zero));
	zero.range.start = (uintptr_t)T(1);
	DO(ioctl(fd, UFFDIO_ZEROPAGE, &zero));
	close(fd);
	log_pages("zeroed", T(1), 4 * PAGE, 1);
}

static void op_uffd_wp(void)
{
	int fd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP);

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(0), TABLE, UFFDIO_REGISTER_MODE_WP));
	DO(uffd_protect(fd, T(0), TABLE / 2, UFFDIO_WRITEPROTECT_MODE_WP));
	log_pagemap("protected", PM_PRESENT | PM_WP);
	DO(uffd_protect(fd, T(0), TABLE / 4, 0));
	log_pagemap("unprotected", PM_PRESENT | PM_WP);
	close(fd);
}

static long do_uffd_move(int fd, char *dst, char *src)
{
	struct move_arg move = {
		.dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = PAGE,
	};

	return ioctl(fd, IOC_MOVE, &move);
}

static void op_uffd_move(void)
{
	int fd = open_uffd(FEATURE_MOVE);

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(1), TABLE, UFFDIO_REGISTER_MODE_MISSING));
	/* As after any fork the page is not exclusive, until it is written */
	DO(do_uffd_move(fd, T(1) + PAGE, T(0)));
	cow_try_write(T(0), 0);
	DO(do_uffd_move(fd, T(1) + PAGE, T(0)));
	log_pages("moved", T(1), 2 * PAGE, 1);
	close(fd);
}

static int uffd_before_fork;

static int prepare_uffd_wp(void)
{
	uffd_before_fork = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	if (uffd_before_fork < 0)
		return -1;
	return uffd_register(uffd_before_fork, T(0), TABLE,
			     UFFDIO_REGISTER_MODE_WP) ||
	       uffd_protect(uffd_before_fork, T(0), 16 * PAGE,
			    UFFDIO_WRITEPROTECT_MODE_WP);
}

/* Closed in every process, which ends it in the first one */
static void op_uffd_wp_before_fork(void)
{
	log_pagemap("protected", PM_PRESENT | PM_WP);
	DO(uffd_protect(uffd_before_fork, T(0), TABLE, 0));
}

static void op_pagemap_scan(void)
{
	struct scan_region region[64] = { };
	struct scan_arg scan = {
		.size = sizeof(scan),
		.flags = SCAN_WP_MATCHING,
		.start = (uintptr_t)T(0),
		.end = (uintptr_t)T(1),
		.vec = (uintptr_t)region,
		.vec_len = ARRAY_LEN(region),
		.category_mask = SCAN_IS_WRITTEN,
		.return_mask = SCAN_IS_WRITTEN,
	};
	int fd = open_uffd(FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	unsigned int i;

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(0), TABLE, UFFDIO_REGISTER_MODE_WP));
	DO(ioctl(pagemap, IOC_SCAN, &scan));
	for (i = 0; i < ARRAY_LEN(region); i++)
		cow_log("written", region[i].start, region[i].end);
	cow_try_write(T(0) + 2 * PAGE, 1);
	memset(region, 0, sizeof(region));
	DO(ioctl(pagemap, IOC_SCAN, &scan));
	for (i = 0; i < ARRAY_LEN(region); i++)
		cow_log("written again", region[i].start, region[i].end);
	log_pagemap("protected", PM_WP);
	close(pagemap);
	close(fd);
}

/* Referenced and soft-dirty bits */

static void do_clear_refs(const char *what)
{
	DO(cow_write_file("/proc/self/clear_refs", what));
	log_pagemap("before", PM_PRESENT | PM_SOFT_DIRTY);
	cow_try_write(T(0) + 4 * PAGE, 2);
	log_pagemap("after", PM_PRESENT | PM_SOFT_DIRTY);
}

static void op_clear_refs_all(void)
{
	do_clear_refs("1");
}

static void op_clear_refs_anon(void)
{
	do_clear_refs("2");
}

static void op_clear_refs_mapped(void)
{
	do_clear_refs("3");
}

static void op_clear_refs_soft_dirty(void)
{
	do_clear_refs("4");
}

static void op_clear_refs_hiwater(void)
{
	do_clear_refs("5");
}

static int prepare_soft_clean(void)
{
	if (cow_write_file("/proc/self/clear_refs", "4"))
		return -1;
	cow_try_write(T(0), 0);
	return 0;
}

static void op_soft_dirty_inherited(void)
{
	log_pagemap("inherited", PM_PRESENT | PM_SOFT_DIRTY);
	cow_try_write(T(0) + 4 * PAGE, 2);
	log_pagemap("after", PM_PRESENT | PM_SOFT_DIRTY);
}

/* Other system calls */

static void op_anon_name(void)
{
	DO(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, T(0) + QUARTER, QUARTER,
		 "cow_pte"));
	DO(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, Q(2), QUARTER, "cow_pte"));
}

static void op_mseal(void)
{
	DO(syscall(SYS_mseal, T(0) + QUARTER, QUARTER, 0));
	DO(munmap(T(0), TABLE));
	DO(mprotect(T(0), TABLE, PROT_READ));
	DO(mremap(T(0), TABLE, TABLE, MOVE, T(3)));
	DO(madvise(T(0), TABLE, MADV_DONTNEED));
	DO(mmap(T(0), TABLE, RW, ANON | MAP_FIXED, -1, 0));
}

static void op_mincore(void)
{
	unsigned char vec[3 * TABLE_PAGES];
	size_t i;

	DO(mincore(T(0), sizeof(vec) * PAGE, vec));
	for (i = 0; i < sizeof(vec); i++)
		cow_log("mincore", i, vec[i]);
}

static void op_msync(void)
{
	DO(msync(T(0), 2 * TABLE, MS_SYNC));
	DO(msync(Q(2), QUARTER, MS_SYNC | MS_INVALIDATE));
}

static void op_process_vm_readv(void)
{
	static char buf[TABLE];
	struct iovec local = { buf, sizeof(buf) };
	struct iovec remote = { T(0), TABLE };
	unsigned int i;

	for (i = 0; i < 3; i++) {
		DO(process_vm_readv(world->pid[i], &local, 1,
				    &remote, 1, 0));
		log_pages("read", buf, TABLE, 2);
	}
}

static void op_fork_exit(void)
{
	int i, status = 0;
	pid_t pid;

	for (i = 0; i < 8; i++) {
		pid = fork();
		if (!pid)
			_exit(0);
		DO(waitpid(pid, &status, 0) == pid && !status);
	}
}

static void op_vfork_exec(void)
{
	pid_t pid = vfork();
	int status = 0;

	if (!pid) {
		close(STDOUT_FILENO);
		close(STDERR_FILENO);
		execl("/proc/self/exe", "syscalls", "-h", NULL);
		_exit(1);
	}
	DO(waitpid(pid, &status, 0) == pid);
	cow_log("status", 0, status);
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

static char cgroup[64];

/* A memory cgroup to reclaim from; the processes born later are in it, too */
static int enter_cgroup(void)
{
	char dir[] = "/tmp/cow_pte.XXXXXX", path[96], pid[16];
	const char *root = dir;

	if (cow_read_field("/proc/meminfo", "SwapFree") < 32 * 1024)
		return cow_skip("needs 32 MiB of swap");
	if (!access("/sys/fs/cgroup/cgroup.controllers", F_OK))
		root = "/sys/fs/cgroup";
	else if (!mkdtemp(dir) || mount("none", dir, "cgroup2", 0, NULL))
		return cow_skip("no cgroup2");
	snprintf(path, sizeof(path), "%s/cgroup.subtree_control", root);
	cow_write_file(path, "+memory");
	snprintf(cgroup, sizeof(cgroup), "%s/cow_pte", root);
	if (mkdir(cgroup, 0755) && errno != EEXIST)
		return cow_skip("mkdir %s: %s", cgroup, strerror(errno));
	snprintf(path, sizeof(path), "%s/memory.reclaim", cgroup);
	if (access(path, W_OK))
		return cow_skip("no memory.reclaim in %s", cgroup);
	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	snprintf(pid, sizeof(pid), "%d", getpid());
	if (cow_write_file(path, pid))
		return cow_skip("cannot enter %s: %s", cgroup, strerror(errno));

	/* What was touched before is charged elsewhere: make it new */
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
	char path[96];
	int i;

	snprintf(path, sizeof(path), "%s/memory.reclaim", cgroup);
	for (i = 0; i < 20 && count_swapped() < world->nr_pages / 2; i++)
		cow_write_file(path, "8M");
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
	char line[256], dev[128];
	long size, used;
	FILE *f;

	f = fopen("/proc/swaps", "re");
	if (!f || !fgets(line, sizeof(line), f) ||
	    !fgets(line, sizeof(line), f) ||
	    sscanf(line, "%127s %*s %ld %ld", dev, &size, &used) != 3 ||
	    used > 4096 || fgets(line, sizeof(line), f)) {
		if (f)
			fclose(f);
		cow_skip("needs exactly one swap area, not in use");
		return;
	}
	fclose(f);
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
	struct op op;
};

FIXTURE_SETUP(op) {}
FIXTURE_TEARDOWN(op) {}

/* The members of a variant */
#define RUN(name)	.op.run = op_##name
#define ADVISE(o, l, a)	.op = { .offset = o, .len = l, .advice = a }

FIXTURE_VARIANT_ADD(op, mprotect_ro_table) { RUN(mprotect_ro_table) };
FIXTURE_VARIANT_ADD(op, mprotect_ro_page) { RUN(mprotect_ro_page) };
FIXTURE_VARIANT_ADD(op, mprotect_none_page) { RUN(mprotect_none_page) };

FIXTURE_VARIANT_ADD(op, mprotect_there_and_back) {
	RUN(mprotect_there_and_back)
};

FIXTURE_VARIANT_ADD(op, mprotect_rw) { RUN(mprotect_rw) };
FIXTURE_VARIANT_ADD(op, mprotect_spanning) { RUN(mprotect_spanning) };
FIXTURE_VARIANT_ADD(op, mprotect_exec) { RUN(mprotect_exec) };
FIXTURE_VARIANT_ADD(op, mprotect_over_hole) { RUN(mprotect_over_hole) };
FIXTURE_VARIANT_ADD(op, munmap_table) { RUN(munmap_table) };
FIXTURE_VARIANT_ADD(op, munmap_first_page) { RUN(munmap_first_page) };
FIXTURE_VARIANT_ADD(op, munmap_last_page) { RUN(munmap_last_page) };
FIXTURE_VARIANT_ADD(op, munmap_middle) { RUN(munmap_middle) };
FIXTURE_VARIANT_ADD(op, munmap_spanning) { RUN(munmap_spanning) };
FIXTURE_VARIANT_ADD(op, munmap_all) { RUN(munmap_all) };
FIXTURE_VARIANT_ADD(op, munmap_file) { RUN(munmap_file) };
FIXTURE_VARIANT_ADD(op, munmap_and_map_again) { RUN(munmap_and_map_again) };
FIXTURE_VARIANT_ADD(op, map_fixed_page) { RUN(map_fixed_page) };
FIXTURE_VARIANT_ADD(op, map_fixed_table) { RUN(map_fixed_table) };
FIXTURE_VARIANT_ADD(op, map_fixed_file) { RUN(map_fixed_file) };
FIXTURE_VARIANT_ADD(op, map_fixed_shared) { RUN(map_fixed_shared) };
FIXTURE_VARIANT_ADD(op, map_into_free_quarter) { RUN(map_into_free_quarter) };
FIXTURE_VARIANT_ADD(op, map_populate) { RUN(map_populate) };
FIXTURE_VARIANT_ADD(op, mremap_shrink) { RUN(mremap_shrink) };
FIXTURE_VARIANT_ADD(op, mremap_grow) { RUN(mremap_grow) };
FIXTURE_VARIANT_ADD(op, mremap_grow_move) { RUN(mremap_grow_move) };
FIXTURE_VARIANT_ADD(op, mremap_table) { RUN(mremap_table) };
FIXTURE_VARIANT_ADD(op, mremap_there_and_back) { RUN(mremap_there_and_back) };
FIXTURE_VARIANT_ADD(op, mremap_page) { RUN(mremap_page) };
FIXTURE_VARIANT_ADD(op, mremap_unaligned) { RUN(mremap_unaligned) };
FIXTURE_VARIANT_ADD(op, mremap_into_neighbour) { RUN(mremap_into_neighbour) };
FIXTURE_VARIANT_ADD(op, mremap_over_neighbour) { RUN(mremap_over_neighbour) };
FIXTURE_VARIANT_ADD(op, mremap_dontunmap) { RUN(mremap_dontunmap) };
FIXTURE_VARIANT_ADD(op, mremap_dontunmap_part) { RUN(mremap_dontunmap_part) };
FIXTURE_VARIANT_ADD(op, mremap_file) { RUN(mremap_file) };
FIXTURE_VARIANT_ADD(op, mremap_bad) { RUN(mremap_bad) };

FIXTURE_VARIANT_ADD(op, madvise_wipeonfork_undone) {
	RUN(madvise_wipeonfork_undone)
};

FIXTURE_VARIANT_ADD(op, madvise_collapse) { RUN(madvise_collapse) };
FIXTURE_VARIANT_ADD(op, process_madvise) { RUN(process_madvise) };
FIXTURE_VARIANT_ADD(op, process_madvise_other) { RUN(process_madvise_other) };
FIXTURE_VARIANT_ADD(op, mlock_part) { RUN(mlock_part) };
FIXTURE_VARIANT_ADD(op, mlock_table) { RUN(mlock_table) };
FIXTURE_VARIANT_ADD(op, mlock_munlock) { RUN(mlock_munlock) };
FIXTURE_VARIANT_ADD(op, mlock_onfault) { RUN(mlock_onfault) };
FIXTURE_VARIANT_ADD(op, mlock_dontneed) { RUN(mlock_dontneed) };
FIXTURE_VARIANT_ADD(op, mlockall_current) { RUN(mlockall_current) };
FIXTURE_VARIANT_ADD(op, mlockall_future) { RUN(mlockall_future) };
FIXTURE_VARIANT_ADD(op, mbind) { RUN(mbind) };
FIXTURE_VARIANT_ADD(op, mbind_strict) { RUN(mbind_strict) };
FIXTURE_VARIANT_ADD(op, mbind_move) { RUN(mbind_move) };
FIXTURE_VARIANT_ADD(op, mbind_move_all) { RUN(mbind_move_all) };
FIXTURE_VARIANT_ADD(op, move_pages_query) { RUN(move_pages_query) };
FIXTURE_VARIANT_ADD(op, move_pages) { RUN(move_pages) };
FIXTURE_VARIANT_ADD(op, move_pages_all) { RUN(move_pages_all) };
FIXTURE_VARIANT_ADD(op, migrate_pages) { RUN(migrate_pages) };
FIXTURE_VARIANT_ADD(op, uffd_register) { RUN(uffd_register) };
FIXTURE_VARIANT_ADD(op, uffd_copy) { RUN(uffd_copy) };
FIXTURE_VARIANT_ADD(op, uffd_zeropage) { RUN(uffd_zeropage) };
FIXTURE_VARIANT_ADD(op, uffd_wp) { RUN(uffd_wp) };
FIXTURE_VARIANT_ADD(op, uffd_move) { RUN(uffd_move) };
FIXTURE_VARIANT_ADD(op, pagemap_scan) { RUN(pagemap_scan) };
FIXTURE_VARIANT_ADD(op, clear_refs_all) { RUN(clear_refs_all) };
FIXTURE_VARIANT_ADD(op, clear_refs_anon) { RUN(clear_refs_anon) };
FIXTURE_VARIANT_ADD(op, clear_refs_mapped) { RUN(clear_refs_mapped) };
FIXTURE_VARIANT_ADD(op, clear_refs_soft_dirty) { RUN(clear_refs_soft_dirty) };
FIXTURE_VARIANT_ADD(op, clear_refs_hiwater) { RUN(clear_refs_hiwater) };
FIXTURE_VARIANT_ADD(op, anon_name) { RUN(anon_name) };
FIXTURE_VARIANT_ADD(op, mseal) { RUN(mseal) };
FIXTURE_VARIANT_ADD(op, mincore) { RUN(mincore) };
FIXTURE_VARIANT_ADD(op, msync) { RUN(msync) };
FIXTURE_VARIANT_ADD(op, process_vm_readv) { RUN(process_vm_readv) };
FIXTURE_VARIANT_ADD(op, fork_exit) { RUN(fork_exit) };
FIXTURE_VARIANT_ADD(op, vfork_exec) { RUN(vfork_exec) };
FIXTURE_VARIANT_ADD(op, compact) { RUN(compact) };
FIXTURE_VARIANT_ADD(op, drop_caches) { RUN(drop_caches) };

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

FIXTURE_VARIANT_ADD(op, madvise_free_table) { ADVISE(0, TABLE, MADV_FREE) };

FIXTURE_VARIANT_ADD(op, madvise_free_page) {
	ADVISE(6 * PAGE, PAGE, MADV_FREE)
};

FIXTURE_VARIANT_ADD(op, madvise_cold) { ADVISE(0, 2 * TABLE, MADV_COLD) };
FIXTURE_VARIANT_ADD(op, madvise_pageout) { ADVISE(0, 2 * TABLE, MADV_PAGEOUT) };

FIXTURE_VARIANT_ADD(op, madvise_pageout_file) {
	ADVISE(2 * TABLE + 2 * QUARTER, QUARTER, MADV_PAGEOUT)
};

FIXTURE_VARIANT_ADD(op, madvise_willneed) { ADVISE(0, TABLE, MADV_WILLNEED) };

FIXTURE_VARIANT_ADD(op, madvise_unmergeable) {
	ADVISE(0, TABLE, MADV_UNMERGEABLE)
};

FIXTURE_VARIANT_ADD(op, madvise_nohugepage) {
	ADVISE(0, TABLE, MADV_NOHUGEPAGE)
};

FIXTURE_VARIANT_ADD(op, madvise_hugepage) { ADVISE(0, TABLE, MADV_HUGEPAGE) };

FIXTURE_VARIANT_ADD(op, madvise_dontfork) {
	ADVISE(0, TABLE / 2, MADV_DONTFORK)
};

FIXTURE_VARIANT_ADD(op, madvise_dofork) { ADVISE(0, TABLE / 2, MADV_DOFORK) };

FIXTURE_VARIANT_ADD(op, madvise_wipeonfork) {
	ADVISE(0, TABLE / 2, MADV_WIPEONFORK)
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

FIXTURE_VARIANT_ADD(op, madvise_remove) { ADVISE(0, TABLE, MADV_REMOVE) };
FIXTURE_VARIANT_ADD(op, madvise_random) { ADVISE(0, TABLE / 2, MADV_RANDOM) };

FIXTURE_VARIANT_ADD(op, madvise_dontdump) {
	ADVISE(0, TABLE / 2, MADV_DONTDUMP)
};

FIXTURE_VARIANT_ADD(op, madvise_soft_offline) {
	ADVISE(10 * PAGE, PAGE, MADV_SOFT_OFFLINE)
};

FIXTURE_VARIANT_ADD(op, madvise_unaligned) { ADVISE(1, TABLE, MADV_DONTNEED) };

FIXTURE_VARIANT_ADD(op, madvise_over_hole) {
	ADVISE(2 * TABLE + 2 * QUARTER, TABLE, MADV_DONTNEED)
};

FIXTURE_VARIANT_ADD(op, madvise_no_such_advice) { ADVISE(0, TABLE, 12345) };

/* Those that need a preparation or have effects of their own */
FIXTURE_VARIANT_ADD(op, brk_shrink) {
	RUN(brk_shrink),
	.op.prepare = prepare_brk,
};

FIXTURE_VARIANT_ADD(op, brk_shrink_and_grow) {
	RUN(brk_shrink_and_grow),
	.op.prepare = prepare_brk,
};

FIXTURE_VARIANT_ADD(op, stack_grow) {
	RUN(stack_grow),
	.op.prepare = prepare_stack,
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

FIXTURE_VARIANT_ADD(op, munlock_locked) {
	RUN(munlock_locked),
	.op.prepare = prepare_locked,
	.op.flags = NOT_SHARED,
};

FIXTURE_VARIANT_ADD(op, uffd_wp_before_fork) {
	RUN(uffd_wp_before_fork),
	.op.prepare = prepare_uffd_wp,
	.op.flags = NOT_SHARED,
};

FIXTURE_VARIANT_ADD(op, soft_dirty_inherited) {
	RUN(soft_dirty_inherited),
	.op.prepare = prepare_soft_clean,
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

static void run_actor(struct __test_metadata *_metadata, const struct op *op,
		      unsigned int actor)
{
	struct test_case tc = { .op = op, .actor = actor };

	COW_REPORT(cow_run(run_op, &tc));
}

TEST_F_TIMEOUT(op, parent, 120)
{
	run_actor(_metadata, &variant->op, 0);
}

TEST_F_TIMEOUT(op, child, 120)
{
	run_actor(_metadata, &variant->op, 1);
}

TEST_F_TIMEOUT(op, third, 120)
{
	run_actor(_metadata, &variant->op, 2);
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
