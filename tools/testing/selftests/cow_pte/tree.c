// SPDX-License-Identifier: GPL-2.0
/*
 * Deep, broad and random trees of processes, and memory that runs out at any
 * point of a fork or of an operation on shared memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_util.h"

#define DEPTH		12
#define BREADTH		64
#define RANDOM_PROCS	16
#define RANDOM_STEPS	120
#define RW		(PROT_READ | PROT_WRITE)
#define ANON		(MAP_PRIVATE | MAP_ANONYMOUS)

static __u64 seed;

/* Little enough for many processes: some pages in each of three tables */
static int prepare_small(void)
{
	if (mmap(arena, 3 * TABLE, RW, ANON | MAP_FIXED, -1, 0) != arena)
		return -1;
	madvise(arena, 3 * TABLE, MADV_NOHUGEPAGE);
	cow_track_range(arena, 3 * TABLE, 96);
	return 0;
}

static const struct cow_mem small = {
	.name = "small", .prepare = prepare_small, .tables = 3,
};

static void start(enum cow_mode mode, unsigned int procs)
{
	cow_mem_start_big(mode, &small, procs);
}

static unsigned int some_page(void)
{
	return cow_random(&seed) % world->nr_pages;
}

static const char *run_chain(enum cow_mode mode, const void *arg)
{
	unsigned int i, left;

	seed = 1234567;
	start(mode, DEPTH);
	for (i = 1; i < DEPTH; i++) {
		cow_fork(i - 1, COW_FORK);
		cow_poke(i, some_page());
	}
	cow_must_share(mode, &small);
	cow_check_all("after the last fork");
	for (i = 0; i < 2 * DEPTH; i++) {
		cow_poke(cow_random(&seed) % DEPTH, some_page());
		cow_check_all("after a write");
	}
	for (left = DEPTH; left > 1; left--) {
		do {
			i = cow_random(&seed) % DEPTH;
		} while (!cow_proc[i].alive);
		cow_exit(i);
		cow_check_all("after an exit");
	}
	for (i = 0; i < DEPTH; i++)
		if (cow_proc[i].alive)
			cow_poke_all(i);
	cow_check_all("at the end");
	cow_world_stop();
	return NULL;
}

static const char *run_broad(enum cow_mode mode, const void *arg)
{
	unsigned int i, first;

	seed = 7654321;
	start(mode, BREADTH + 1);
	for (i = 1; i <= BREADTH; i++)
		cow_fork(0, COW_FORK);
	cow_must_share(mode, &small);
	for (i = 1; i <= BREADTH; i += 3)
		cow_poke(i, i % world->nr_pages);
	cow_check_all("after the children's writes");
	cow_poke_all(0);
	cow_check_all("after the parent's writes");
	/* Sixteen at a time, on all CPUs */
	for (first = 1; first <= BREADTH; first += 16) {
		for (i = first; i < first + 16; i++)
			cow_exit_start(i);
		for (i = first; i < first + 16; i++)
			cow_exit_wait(i);
		cow_check_all("after some exits");
	}
	cow_poke_all(0);
	cow_check_all("at the end");
	cow_world_stop();
	return NULL;
}

/* Every order in which a parent and two children can end */
static const char *run_exit_order(enum cow_mode mode, const void *arg)
{
	static const unsigned int order[][3] = {
		{ 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 },
		{ 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 },
	};
	bool write = arg;
	unsigned int i, k;

	for (i = 0; i < ARRAY_LEN(order); i++) {
		start(mode, 3);
		cow_fork(0, COW_FORK);
		cow_fork(i % 2, COW_FORK);
		for (k = 0; k < 3; k++) {
			if (write)
				cow_poke(order[i][k], k);
			cow_check_all("before an exit");
			cow_exit(order[i][k]);
			cow_check_all("after an exit");
		}
		cow_world_stop();
	}
	return NULL;
}

static const char *run_all_at_once(enum cow_mode mode, const void *arg)
{
	unsigned int i, round;

	for (round = 0; round < 4; round++) {
		start(mode, RANDOM_PROCS + 1);
		for (i = 1; i <= RANDOM_PROCS; i++)
			cow_fork(round % 2 ? i - 1 : 0, COW_FORK);
		for (i = 0; i <= RANDOM_PROCS; i++) {
			if (i % 4 == 3)
				cow_exec_start(i);
			else
				cow_exit_start(i);
		}
		for (i = 0; i <= RANDOM_PROCS; i++)
			cow_exit_wait(i);
		cow_world_stop();
	}
	return NULL;
}

FIXTURE(shape) {
};

FIXTURE_SETUP(shape) {}
FIXTURE_TEARDOWN(shape) {}

TEST_F_TIMEOUT(shape, deep, 300)
{
	COW_REPORT(cow_run_once(run_chain, NULL));
}

TEST_F_TIMEOUT(shape, broad, 300)
{
	COW_REPORT(cow_run_once(run_broad, NULL));
}

TEST_F_TIMEOUT(shape, exit_orders, 300)
{
	COW_REPORT(cow_run_once(run_exit_order, NULL));
}

TEST_F_TIMEOUT(shape, exit_orders_with_writes, 300)
{
	COW_REPORT(cow_run_once(run_exit_order, &small));
}

TEST_F_TIMEOUT(shape, simultaneous_exits, 300)
{
	COW_REPORT(cow_run_once(run_all_at_once, NULL));
}

/* Operations of the random tree; they keep the model of their process */

static void now_zero(char *from, size_t len)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++)
		if (world->page[i] >= from && world->page[i] < from + len)
			world->model[cow_self][i] = 0;
}

static long do_dontneed(const long *arg)
{
	now_zero((char *)arg[0], arg[1]);
	return madvise((void *)arg[0], arg[1], MADV_DONTNEED);
}

static long do_map_again(const long *arg)
{
	char *addr = (char *)arg[0];

	now_zero(addr, arg[1]);
	if (munmap(addr, arg[1]) ||
	    mmap(addr, arg[1], RW, ANON | MAP_FIXED, -1, 0) != addr)
		return -1;
	madvise(addr, arg[1], MADV_NOHUGEPAGE);
	return 0;
}

static long do_protect(const long *arg)
{
	return mprotect((void *)arg[0], arg[1], PROT_READ) ||
	       mprotect((void *)arg[0], arg[1], RW);
}

static long do_move(const long *arg)
{
	char *addr = (char *)arg[0], *away = arena + 4 * TABLE + PAGE;
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	/* Only one mapping can be moved at a time */
	if (mremap(addr, arg[1], arg[1], flags, away) != away)
		return errno != EFAULT;
	if (mremap(away, arg[1], arg[1], flags, addr) != addr)
		return -1;
	return mmap(away, arg[1], PROT_NONE, ANON | MAP_FIXED, -1, 0) != away;
}

static long do_lock(const long *arg)
{
	return mlock((void *)arg[0], arg[1]) || munlock((void *)arg[0], arg[1]);
}

static long do_pageout(const long *arg)
{
	madvise((void *)arg[0], arg[1], MADV_PAGEOUT);
	return 0;
}

static long do_populate(const long *arg)
{
	return madvise((void *)arg[0], arg[1], MADV_POPULATE_WRITE);
}

static long do_clear_refs(const long *arg)
{
	return cow_write_file("/proc/self/clear_refs", "4");
}

static const cow_fn random_op[] = {
	do_dontneed, do_map_again, do_protect, do_move, do_lock, do_pageout,
	do_populate, do_clear_refs,
};

/* Ranges that split, cover and straddle tables */
static void random_range(long *addr, long *len)
{
	unsigned int from = cow_random(&seed) % (3 * TABLE_PAGES - 1);
	unsigned int left = 3 * TABLE_PAGES - from;

	switch (cow_random(&seed) % 4) {
	case 0:
		*addr = (long)(arena + cow_random(&seed) % 3 * TABLE);
		*len = TABLE;
		return;
	case 1:
		left = left < 8 ? left : 8;
		break;
	default:
		left = left < 100 ? left : 100;
	}
	*addr = (long)(arena + from * PAGE);
	*len = (1 + cow_random(&seed) % left) * PAGE;
}

static void random_step(unsigned int proc, unsigned int *forks)
{
	unsigned int op = cow_random(&seed) % 100;
	long addr, len;

	if (op < 30) {
		cow_poke(proc, some_page());
	} else if (op < 35) {
		cow_poke_all(proc);
	} else if (op < 60 && *forks) {
		--*forks;
		cow_fork(proc, cow_random(&seed) % 2 ? COW_FORK : COW_THREADED);
	} else if (op < 66 && proc) {
		cow_exit(proc);
	} else if (op < 68 && proc) {
		cow_exec_start(proc);
		cow_exit_wait(proc);
	} else {
		op = cow_random(&seed) % ARRAY_LEN(random_op);
		random_range(&addr, &len);
		if (cow_call(proc, random_op[op], addr, len))
			cow_fail("operation %u on %lu pages at %#lx: %s", op,
				 len / PAGE, addr, strerror(errno));
	}
}

static const char *run_random(enum cow_mode mode, const void *arg)
{
	unsigned int step, proc, forks = RANDOM_PROCS - 1;
	char when[64];

	seed = cow_env("COW_PTE_SEED", *(const long *)arg);
	ksft_print_msg("seed %llu\n", seed);
	start(mode, RANDOM_PROCS);
	for (step = 0; step < RANDOM_STEPS; step++) {
		do {
			proc = cow_random(&seed) % world->nr_procs;
		} while (!cow_proc[proc].alive);
		random_step(proc, &forks);
		snprintf(when, sizeof(when), "step %u", step);
		cow_check_all(when);
	}
	cow_world_stop();
	return NULL;
}

FIXTURE(random) {
};

FIXTURE_VARIANT(random) {
	long seed;
};

FIXTURE_SETUP(random) {}
FIXTURE_TEARDOWN(random) {}

FIXTURE_VARIANT_ADD(random, 1) { .seed = 0x5eed0001 };
FIXTURE_VARIANT_ADD(random, 2) { .seed = 0x5eed0002 };
FIXTURE_VARIANT_ADD(random, 3) { .seed = 0x5eed0003 };
FIXTURE_VARIANT_ADD(random, 4) { .seed = 0x5eed0004 };
FIXTURE_VARIANT_ADD(random, 5) { .seed = 0x5eed0005 };
FIXTURE_VARIANT_ADD(random, 6) { .seed = 0x5eed0006 };
FIXTURE_VARIANT_ADD(random, 7) { .seed = 0x5eed0007 };
FIXTURE_VARIANT_ADD(random, 8) { .seed = 0x5eed0008 };

TEST_F_TIMEOUT(random, tree, 300)
{
	COW_REPORT(cow_run_once(run_random, &variant->seed));
}

/*
 * Out of memory.  /proc/self/fail-nth makes the nth allocation of the task
 * fail: going through all of them, each time the operation has to succeed, or
 * to fail and leave everything as it was.
 */

#define OOM_ALLOCATIONS	60
/* Of the last call_failing(); shared, so that forking does not copy it */
static struct cow_outcome *outcome;

static long call_failing(const long *arg)
{
	cow_with_failure(arg[1], (cow_fn)arg[0], &arg[2], outcome);
	return 0;
}

static char *oom_range(void)
{
	return arena + 90 * PAGE;
}

static long oom_populate(const long *arg)
{
	return madvise(arena, PAGE, MADV_POPULATE_WRITE);
}

static long oom_populate_tables(const long *arg)
{
	return madvise(arena, 3 * TABLE, MADV_POPULATE_WRITE);
}

static long oom_mprotect(const long *arg)
{
	return mprotect(oom_range(), TABLE, PROT_READ);
}

static long oom_munmap(const long *arg)
{
	return munmap(oom_range(), TABLE);
}

static long oom_map_fixed(const long *arg)
{
	return mmap(oom_range(), TABLE, RW, ANON | MAP_FIXED, -1,
		    0) == MAP_FAILED ? -1 : 0;
}

static long oom_mremap(const long *arg)
{
	return mremap(oom_range(), TABLE, TABLE, MREMAP_MAYMOVE |
		      MREMAP_FIXED, arena + 4 * TABLE) == MAP_FAILED ? -1 : 0;
}

static long oom_dontneed(const long *arg)
{
	return madvise(oom_range(), TABLE, MADV_DONTNEED);
}

static long oom_free(const long *arg)
{
	return madvise(oom_range(), TABLE, MADV_FREE);
}

static long oom_mlock(const long *arg)
{
	return mlock(oom_range(), TABLE);
}

static long oom_read(const long *arg)
{
	static const char zero[8];
	int fds[2];
	long ret;

	if (pipe(fds) || write(fds[1], zero, 8) != 8)
		return -2;
	ret = read(fds[0], arena + PAGE / 2 + 8, 8);
	close(fds[0]);
	close(fds[1]);
	return ret == 8 ? 0 : -1;
}

static long oom_store(const long *arg)
{
	/* Faults of user mode are tried again until they succeed */
	return cow_try_write(arena, 0);
}

static long oom_clear_refs(const long *arg)
{
	static int fd = -1;

	if (fd < 0)
		fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -2;
	return pwrite(fd, "4", 1, 0) == 1 ? 0 : -1;
}

struct oom_op {
	cow_fn fn;
	bool harmless;		/* success does not change the contents */
	bool torn;		/* failure may, of the process itself */
	bool retried;		/* the kernel tries again until it succeeds */
};

static bool may_fail_with(int err)
{
	switch (err) {
	case ENOMEM:
	case EAGAIN:		/* mlock() */
	case EFAULT:		/* copies to and from user memory */
	case ENFILE:		/* pipe() */
	case ENOENT:		/* open() of a file in /proc */
		return true;
	}
	return false;
}

static const char *run_oom(enum cow_mode mode, const void *arg)
{
	const struct oom_op *op = arg;
	unsigned int nth, child, failures = 0;
	bool more = true;
	const char *why;

	why = cow_faults_start(COW_FAULTS_ALL);
	if (why)
		return why;
	/* An allocation per page makes many that are all alike */
	for (nth = 1; more && nth <= OOM_ALLOCATIONS; nth++) {
		start(mode, 3);
		child = cow_fork(0, COW_FORK);
		cow_fork(0, COW_FORK);
		cow_call(child, call_failing, (long)op->fn, nth);
		more = outcome->injected;
		if (outcome->ret) {
			failures++;
			if (!more || !may_fail_with(outcome->err))
				cow_fail("allocation %u: %s", nth,
					 strerror(outcome->err));
		}
		cow_check(0, "the parent, after a failed allocation");
		cow_check(2, "a sibling, after a failed allocation");
		if ((outcome->ret && !op->torn) || op->harmless) {
			cow_check(child, "after a failed allocation");
			cow_poke(child, 1);
			cow_check_all("after a write");
		}
		cow_exit(0);
		cow_check(2, "after the parent's exit");
		cow_world_stop();
	}
	ksft_print_msg("allocations up to %u, %u failures\n", nth - 1,
		       failures);
	if (mode == COW_ON && !failures && !op->retried)
		cow_fail("no allocation failed");
	return NULL;
}

FIXTURE(oom) {
};

FIXTURE_VARIANT(oom) {
	struct oom_op op;
};

FIXTURE_SETUP(oom)
{
	outcome = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, outcome);
}

FIXTURE_TEARDOWN(oom) {}

FIXTURE_VARIANT_ADD(oom, populate) { .op = { oom_populate, true } };

FIXTURE_VARIANT_ADD(oom, populate_tables) {
	.op = { oom_populate_tables, true }
};

FIXTURE_VARIANT_ADD(oom, mprotect) { .op = { oom_mprotect, false } };
FIXTURE_VARIANT_ADD(oom, munmap) { .op = { oom_munmap, false } };
FIXTURE_VARIANT_ADD(oom, map_fixed) { .op = { oom_map_fixed, .torn = true } };
FIXTURE_VARIANT_ADD(oom, mremap) { .op = { oom_mremap, false } };
FIXTURE_VARIANT_ADD(oom, dontneed) { .op = { oom_dontneed, false } };
FIXTURE_VARIANT_ADD(oom, free) { .op = { oom_free, true } };
FIXTURE_VARIANT_ADD(oom, mlock) { .op = { oom_mlock, true } };
FIXTURE_VARIANT_ADD(oom, read) { .op = { oom_read, true } };
FIXTURE_VARIANT_ADD(oom, store) { .op = { oom_store, true, .retried = true } };
FIXTURE_VARIANT_ADD(oom, clear_refs) { .op = { oom_clear_refs, true } };

TEST_F_TIMEOUT(oom, nth_allocation, 900)
{
	COW_REPORT(cow_run_once(run_oom, &variant->op));
}

/* A fork that fails half way has changed nothing */

static const char *run_oom_fork(enum cow_mode mode, const void *arg)
{
	const struct cow_mem *mem = arg;
	unsigned int nth = 1, failures = 0, child;
	bool more = true;
	const char *why;

	why = cow_faults_start(COW_FAULTS_ALL);
	if (!why)
		why = cow_mem_start(mode, mem);
	if (why)
		return why;
	/* One sharer before, so that tables are at two and go to three */
	child = cow_fork(0, COW_FORK);
	while (more) {
		cow_call(0, call_failing, (long)cow_fork_and_reap, nth);
		more = outcome->injected;
		if (outcome->ret) {
			failures++;
			if (!more || (outcome->err != ENOMEM &&
				      outcome->err != EAGAIN))
				cow_fail("allocation %u: %s", nth,
					 strerror(outcome->err));
		}
		if (nth % 8 == 0) {
			cow_poke(0, nth / 8 % 2);
			cow_check_all("after failed forks");
		}
		if (nth > 2000)
			cow_fail("there is no end to the allocations");
		/* Every one at first, then some of the many alike */
		nth += nth < 40 ? 1 : 5;
	}
	if (!failures)
		cow_fail("no fork failed");
	cow_check_all("after all failed forks");
	cow_poke_all(child);
	cow_check_all("after the child's writes");
	cow_exit(child);
	cow_poke_all(0);
	cow_check_all("at the end");
	cow_world_stop();
	ksft_print_msg("allocations up to %u, %u failures\n", nth, failures);
	return NULL;
}

FIXTURE(oom_fork) {
};

FIXTURE_VARIANT(oom_fork) {
	const struct cow_mem *mem;
};

FIXTURE_SETUP(oom_fork)
{
	outcome = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, outcome);
}

FIXTURE_TEARDOWN(oom_fork) {}

FIXTURE_VARIANT_ADD(oom_fork, sparse) { .mem = &cow_mem[MEM_sparse] };
FIXTURE_VARIANT_ADD(oom_fork, memfd) { .mem = &cow_mem[MEM_memfd] };
FIXTURE_VARIANT_ADD(oom_fork, protections) { .mem = &cow_mem[MEM_protections] };
FIXTURE_VARIANT_ADD(oom_fork, swapped) { .mem = &cow_mem[MEM_swapped] };

TEST_F_TIMEOUT(oom_fork, nth_allocation, 900)
{
	COW_REPORT(cow_run_once(run_oom_fork, variant->mem));
}

int main(int argc, char **argv)
{
	cow_without_rseq(argv);
	cow_main_start();
	return test_harness_run(argc, argv);
}
