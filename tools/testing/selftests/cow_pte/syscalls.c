// SPDX-License-Identifier: GPL-2.0
/* System calls that change an address space, or look at it; see cow_pte_op.h */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_op.h"

#ifndef SYS_mseal
#define SYS_mseal		462
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif

#define MPOL_BIND		2
#define MPOL_MF_STRICT		0x1
#define MPOL_MF_MOVE		0x2
#define MPOL_MF_MOVE_ALL	0x4

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
	cow_log_pages("read-only", T(0), TABLE, 8);
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

static void op_pkey_mprotect(void)
{
	int key = pkey_alloc(0, 0);

	if (key < 0) {
		cow_skip("no protection keys: %s", strerror(errno));
		return;
	}
	DO(pkey_mprotect(T(0), TABLE, RW, key));
	DO(pkey_set(key, PKEY_DISABLE_WRITE));
	DO(cow_try_write(T(0), 0));
	cow_log_pages("read-only", T(0), TABLE, 8);
	DO(pkey_set(key, PKEY_DISABLE_ACCESS));
	cow_log_pages("no access", T(0), TABLE, 8);
	/* The other threads have no right to this key */
	DO(pkey_mprotect(T(0), TABLE, RW, 0));
	DO(pkey_free(key));
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
	cow_log_pages("file", T(0) + TABLE / 2, TABLE / 4, 8);
}

static void op_map_fixed_shared(void)
{
	char *shm = T(0) + TABLE / 2;

	DO(mmap(shm, QUARTER, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
		0));
	memset(shm, 1, QUARTER);
	cow_log_pages("shared", shm, QUARTER, 8);
	/* The model knows of private memory only */
	DO(mmap(shm, QUARTER, RW, ANON | MAP_FIXED, -1, 0));
}

static void op_map_into_free_quarter(void)
{
	DO(mmap(Q(3), QUARTER, RW, ANON | MAP_FIXED, -1, 0));
	cow_stamp(Q(3), cow_next_stamp(cow_self, 0));
	cow_log_pages("new", Q(3), QUARTER, 8);
}

static void op_map_populate(void)
{
	DO(mmap(Q(3), QUARTER, RW, ANON | MAP_FIXED | MAP_POPULATE, -1, 0));
	DO(mmap(T(0), QUARTER, RW, ANON | MAP_FIXED | MAP_POPULATE, -1, 0));
}

static void op_remap_file_pages(void)
{
	DO(syscall(SYS_remap_file_pages, Q(3), 4 * PAGE, 0, 8, 0));
	cow_log_pages("remapped", Q(3), 16 * PAGE, 1);
	DO(syscall(SYS_remap_file_pages, T(0), 4 * PAGE, 0, 8, 0));
}

static void op_remap_file_pages_new(void)
{
	DO(cow_map_neighbour());
	op_remap_file_pages();
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
	cow_log_pages("grown", T(1), TABLE, 4);
}

static void op_mremap_grow_move(void)
{
	DO(mremap(T(0), TABLE, 2 * TABLE, MOVE, T(3)));
	cow_log_pages("moved", T(3), 2 * TABLE, 2);
}

static void op_mremap_table(void)
{
	DO(mremap(T(0), TABLE, TABLE, MOVE, T(3)));
	cow_log_pages("moved", T(3), TABLE, 1);
}

static void op_mremap_there_and_back(void)
{
	DO(mremap(T(0), TABLE, TABLE, MOVE, T(3)));
	DO(mremap(T(3), TABLE, TABLE, MOVE, T(0)));
}

static void op_mremap_page(void)
{
	DO(mremap(T(0) + 4 * PAGE, PAGE, PAGE, MOVE, T(3) + 9 * PAGE));
	cow_log_pages("moved", T(3) + 9 * PAGE, PAGE, 1);
}

static void op_mremap_unaligned(void)
{
	DO(mremap(T(0) + PAGE, TABLE, TABLE, MOVE, T(3) + 2 * PAGE));
	cow_log_pages("moved", T(3) + 2 * PAGE, TABLE, 1);
}

static void op_mremap_into_neighbour(void)
{
	DO(mremap(T(0) + 16 * PAGE, 32 * PAGE, 32 * PAGE, MOVE,
		  Q(3) + 8 * PAGE));
	cow_log_pages("moved", Q(3) + 8 * PAGE, 32 * PAGE, 1);
}

static void op_mremap_over_neighbour(void)
{
	DO(mremap(T(0) + 16 * PAGE, 32 * PAGE, 32 * PAGE, MOVE,
		  T(1) + 32 * PAGE));
}

static void op_mremap_dontunmap(void)
{
	DO(mremap(T(0), TABLE, TABLE, MOVE | MREMAP_DONTUNMAP, T(3)));
	cow_log_pages("moved", T(3), TABLE, 1);
}

static void op_mremap_dontunmap_part(void)
{
	DO(mremap(T(0) + PAGE, 64 * PAGE, 64 * PAGE, MOVE | MREMAP_DONTUNMAP,
		  T(3)));
	cow_log_pages("moved", T(3), 64 * PAGE, 1);
}

static void op_mremap_file(void)
{
	DO(mremap(Q(2), QUARTER, QUARTER, MOVE, T(3) + QUARTER));
	cow_log_pages("moved", T(3) + QUARTER, QUARTER, 1);
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
	cow_log_pages("new", heap + 2 * TABLE, TABLE, 16);
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
	cow_log_pages("grown", T(4) - 9 * PAGE, 9 * PAGE, 1);
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

static void op_mlock2(void)
{
	DO(syscall(SYS_mlock2, T(0), TABLE + PAGE, 0));
	DO(syscall(SYS_mlock2, T(0), TABLE, 8));
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
		cow_log_pages("read", buf, TABLE, 2);
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

FIXTURE(op) {
};

FIXTURE_VARIANT(op) {
	struct cow_op op;
};

FIXTURE_SETUP(op) {}
FIXTURE_TEARDOWN(op) {}

FIXTURE_VARIANT_ADD(op, mprotect_ro_table) { RUN(mprotect_ro_table) };
FIXTURE_VARIANT_ADD(op, mprotect_ro_page) { RUN(mprotect_ro_page) };
FIXTURE_VARIANT_ADD(op, mprotect_none_page) { RUN(mprotect_none_page) };
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
FIXTURE_VARIANT_ADD(op, anon_name) { RUN(anon_name) };
FIXTURE_VARIANT_ADD(op, mseal) { RUN(mseal) };
FIXTURE_VARIANT_ADD(op, mincore) { RUN(mincore) };
FIXTURE_VARIANT_ADD(op, msync) { RUN(msync) };
FIXTURE_VARIANT_ADD(op, process_vm_readv) { RUN(process_vm_readv) };
FIXTURE_VARIANT_ADD(op, fork_exit) { RUN(fork_exit) };
FIXTURE_VARIANT_ADD(op, vfork_exec) { RUN(vfork_exec) };
FIXTURE_VARIANT_ADD(op, pkey_mprotect) { RUN(pkey_mprotect) };
FIXTURE_VARIANT_ADD(op, remap_file_pages_new) { RUN(remap_file_pages_new) };
FIXTURE_VARIANT_ADD(op, mlock2) { RUN(mlock2) };

FIXTURE_VARIANT_ADD(op, mprotect_there_and_back) {
	RUN(mprotect_there_and_back)
};

FIXTURE_VARIANT_ADD(op, brk_shrink) {
	RUN(brk_shrink),
	.op.prepare = prepare_brk,
};

FIXTURE_VARIANT_ADD(op, brk_shrink_and_grow) {
	RUN(brk_shrink_and_grow),
	.op.prepare = prepare_brk,
};

FIXTURE_VARIANT_ADD(op, remap_file_pages) {
	RUN(remap_file_pages),
	.op.prepare = cow_map_neighbour,
	.op.flags = NOT_SHARED,
};

FIXTURE_VARIANT_ADD(op, stack_grow) {
	RUN(stack_grow),
	.op.prepare = prepare_stack,
};

FIXTURE_VARIANT_ADD(op, munlock_locked) {
	RUN(munlock_locked),
	.op.prepare = prepare_locked,
	.op.flags = NOT_SHARED,
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
 * How many tables an operation copies or gives up.  Each process has done
 * enough before to have data and stack of its own.
 */
struct tables_case {
	struct cow_op_case tc;
	long breaks, drops;
};

static long call_hook(const long *arg)
{
	((void (*)(void))arg[0])();
	return 0;
}

static const char *run_tables(enum cow_mode mode, const void *arg)
{
	const struct tables_case *c = arg;
	unsigned int i, actor = cow_op_proc(c->tc.actor);
	long shared[3], breaks, drops, lost;
	const char *why;

	why = cow_field_start(mode, &c->tc);
	if (why)
		return why;
	for (i = 0; i < 3; i++)
		shared[i] = cow_shared_tables(i);
	breaks = cow_vmstat("cow_pte_break");
	drops = cow_vmstat("cow_pte_drop");
	cow_call(actor, call_hook, (long)c->tc.op->run);
	breaks = cow_vmstat("cow_pte_break") - breaks;
	drops = cow_vmstat("cow_pte_drop") - drops;
	for (i = 0; i < 3 && mode == COW_ON; i++) {
		lost = shared[i] - cow_shared_tables(i);
		if (lost != (i == actor ? c->breaks + c->drops : 0))
			cow_fail("process %u lost %ld shared tables", i, lost);
	}
	if (mode == COW_ON && (breaks != c->breaks || drops != c->drops))
		cow_fail("%ld breaks and %ld drops, expected %ld and %ld",
			 breaks, drops, c->breaks, c->drops);
	for (i = 0; i < 3; i++)
		if (i != actor)
			cow_check(i, "after the operation");
	cow_world_stop();
	return NULL;
}

static void op_write_byte(void)
{
	cow_try_write(T(0) + PAGE, 0);
}

static void op_read_all(void)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++)
		cow_peek(world->page[i]);
}

static void op_mprotect_byte(void)
{
	DO(mprotect(T(0), 1, PROT_READ));
}

static void op_mprotect_two_pages(void)
{
	DO(mprotect(T(1) - PAGE, 2 * PAGE, PROT_READ));
}

static void op_munmap_tables(void)
{
	DO(munmap(T(0), 2 * TABLE));
}

static void op_dontneed_tables(void)
{
	DO(madvise(T(0), 2 * TABLE, MADV_DONTNEED));
}

static void op_dontneed_page(void)
{
	DO(madvise(T(0), PAGE, MADV_DONTNEED));
}

static void op_cold_and_pageout(void)
{
	DO(madvise(T(0), TABLE, MADV_COLD));
	DO(madvise(T(1), TABLE, MADV_PAGEOUT));
}

static void op_mlock_page(void)
{
	DO(mlock(T(0), 1));
}

FIXTURE(tables) {
};

FIXTURE_VARIANT(tables) {
	struct cow_op op;
	long breaks, drops;
};

FIXTURE_SETUP(tables) {}
FIXTURE_TEARDOWN(tables) {}

#define COPIES(nr)	.breaks = nr
#define LEAVES(nr)	.drops = nr

FIXTURE_VARIANT_ADD(tables, write_byte) { RUN(write_byte), COPIES(1) };
FIXTURE_VARIANT_ADD(tables, read_all) { RUN(read_all), COPIES(0) };
FIXTURE_VARIANT_ADD(tables, mincore) { RUN(mincore), COPIES(0) };
FIXTURE_VARIANT_ADD(tables, msync) { RUN(msync), COPIES(0) };
FIXTURE_VARIANT_ADD(tables, mprotect_byte) { RUN(mprotect_byte), COPIES(1) };

FIXTURE_VARIANT_ADD(tables, mprotect_two_pages) {
	RUN(mprotect_two_pages), COPIES(2)
};

FIXTURE_VARIANT_ADD(tables, mlock_page) { RUN(mlock_page), COPIES(1) };
FIXTURE_VARIANT_ADD(tables, mremap_table) { RUN(mremap_table), COPIES(1) };
FIXTURE_VARIANT_ADD(tables, dontneed_page) { RUN(dontneed_page), COPIES(1) };
FIXTURE_VARIANT_ADD(tables, cold_and_pageout) {
	RUN(cold_and_pageout), COPIES(0)
};

FIXTURE_VARIANT_ADD(tables, munmap_first_page) {
	RUN(munmap_first_page), COPIES(1)
};

FIXTURE_VARIANT_ADD(tables, munmap_tables) { RUN(munmap_tables), LEAVES(2) };

FIXTURE_VARIANT_ADD(tables, munmap_spanning) {
	RUN(munmap_spanning), COPIES(2), LEAVES(1)
};

FIXTURE_VARIANT_ADD(tables, dontneed_tables) {
	RUN(dontneed_tables), LEAVES(2)
};

FIXTURE_VARIANT_ADD(tables, map_fixed_table) {
	RUN(map_fixed_table), LEAVES(1)
};

static const char *count_tables(const struct cow_op *op, enum cow_actor actor,
				long breaks, long drops)
{
	struct tables_case c = {
		.tc = { .op = op, .actor = actor },
		.breaks = breaks,
		.drops = drops,
	};

	return cow_run_once(run_tables, &c);
}

TEST_F_TIMEOUT(tables, parent, 120)
{
	COW_REPORT(count_tables(&variant->op, ACTOR_PARENT, variant->breaks,
				variant->drops));
}

TEST_F_TIMEOUT(tables, child, 120)
{
	COW_REPORT(count_tables(&variant->op, ACTOR_CHILD, variant->breaks,
				variant->drops));
}

TEST_F_TIMEOUT(tables, third, 120)
{
	COW_REPORT(count_tables(&variant->op, ACTOR_THIRD, variant->breaks,
				variant->drops));
}

TEST_F_TIMEOUT(tables, threaded, 120)
{
	COW_REPORT(count_tables(&variant->op, ACTOR_THREADED, variant->breaks,
				variant->drops));
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
