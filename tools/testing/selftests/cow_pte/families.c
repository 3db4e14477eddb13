// SPDX-License-Identifier: GPL-2.0
/*
 * Families of a few and of many processes: what each of them is said to use is
 * what its tables hold, whatever the kernel has done to those that it shares,
 * and who has left them and how.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_op.h"
#include "cow_pte_ring.h"

/* More than are ever visited one by one, and few enough for each case */
#define MANY		70
#define SOME		10
#define SWAP_TRIES	40
#define FILE_TABLES	2
#define FILE_STEP	16

/* Beyond everything else, so that fork gets there last, or nearly */
#define ABOVE_ARENA	((1UL << 44) + (1UL << 40))

static void must(unsigned int proc, cow_fn fn, long arg0, long arg1,
		 const char *what)
{
	if (cow_call(proc, fn, arg0, arg1))
		cow_fail("process %u: %s: %s", proc, what, strerror(errno));
}

/* The memory of a family */

static int map_anon(char *addr, size_t len)
{
	if (mmap(addr, len, RW, ANON | MAP_FIXED, -1, 0) != addr)
		return -1;
	return madvise(addr, len, MADV_NOHUGEPAGE);
}

static int file_fd = -1;

/* Pages that were written, and pages that are those of the file */
static int map_file(char *addr, unsigned int tables)
{
	char *p;

	file_fd = cow_stamped_file(memfd_create("family", 0), tables * TABLE);
	if (file_fd < 0 || mmap(addr, tables * TABLE, RW,
				MAP_PRIVATE | MAP_FIXED, file_fd, 0) != addr)
		return -1;
	for (p = addr; p < addr + tables * TABLE; p += FILE_STEP * PAGE) {
		cow_track_range(p, PAGE, 1);
		cow_track(p + FILE_STEP / 2 * PAGE);
	}
	return 0;
}

/* T0 and T1 to go to swap, T2 with little in it, T3 of a file */
static int prepare_swappable(void)
{
	if (cow_cgroup_enter(64) || map_anon(T(0), 3 * TABLE))
		return -1;
	cow_track_range(T(0), 2 * TABLE, 8);
	cow_track_range(T(2), TABLE, 64);
	return map_file(T(3), 1);
}

static const struct cow_mem swappable = {
	.name = "swappable", .prepare = prepare_swappable, .tables = 4,
};

static int prepare_file(void)
{
	if (map_anon(T(2), TABLE))
		return -1;
	cow_track_range(T(2), TABLE, 64);
	return map_file(T(0), FILE_TABLES);
}

static const struct cow_mem of_file = {
	.name = "of_file", .prepare = prepare_file, .tables = FILE_TABLES + 1,
};

/* Children, their children and so on: each process but the last has three */
static const char *start_family(enum cow_mode mode, const struct cow_mem *mem,
				unsigned int procs, unsigned int more)
{
	const char *why = cow_mem_start_big(mode, mem, procs + more);
	unsigned int i;

	for (i = 1; i < procs && !why; i++)
		cow_fork((i - 1) / 3, COW_FORK);
	if (!why)
		cow_must_share(mode, mem);
	return why;
}

static unsigned int any_alive(void)
{
	unsigned int i;

	for (i = 0; i < world->nr_procs; i++)
		if (cow_proc[i].alive)
			return i;
	cow_fail("nobody is left");
}

static unsigned int nr_swapped(unsigned int proc)
{
	unsigned int i, nr = 0;

	for (i = 0; i < world->nr_pages; i++)
		nr += !!(cow_pagemap(world->pid[proc], world->page[i]) & PM_SWAP);
	return nr;
}

static long call_reclaim(const long *arg)
{
	cow_cgroup_reclaim(arg[0]);
	return 0;
}

/* Much of what a process has; fails the test if reclaim finds next to nothing */
static void swap_out(unsigned int proc)
{
	unsigned int i;

	for (i = 0; i < SWAP_TRIES; i++) {
		if (nr_swapped(proc) >= world->nr_pages / 3)
			return;
		cow_call(any_alive(), call_reclaim, 8);
	}
	cow_fail("reclaim swapped out %u of %u pages", nr_swapped(proc),
		 world->nr_pages);
}

static long call_read(const long *arg)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i += arg[0])
		cow_peek(world->page[i]);
	return 0;
}

static long call_drop(const long *arg)
{
	return munmap(T(arg[0]), TABLE);
}

static long call_adopt(const long *arg)
{
	cow_adopt();
	return 0;
}

static void swap_off_and_on(const char *dev)
{
	unsigned int i, nr;

	if (swapoff(dev))
		cow_fail("swapoff: %s", strerror(errno));
	for (i = 0; i < world->nr_procs; i++) {
		if (!cow_proc[i].alive)
			continue;
		nr = nr_swapped(i);
		if (nr)
			cow_fail("process %u has %u pages in swap after swapoff",
				 i, nr);
	}
	cow_check_all_counters("after swapoff");
	if (swapon(dev, 0))
		cow_fail("swapon: %s", strerror(errno));
}

/* A fork that fails has to leave everything as it was */
static void fork_in_vain(unsigned int proc)
{
	const char *why = cow_commit_start();

	if (why) {
		ksft_print_msg("no fork that fails: %s\n", why);
		return;
	}
	if (cow_call(proc, cow_fork_in_vain, ABOVE_ARENA) != -1 ||
	    errno != ENOMEM)
		cow_fail("fork that should fail: %s", strerror(errno));
	cow_commit_stop();
	cow_check_all_counters("after a fork that failed");
}

/*
 * A life with all that changes counters, with the memory now here, now there.
 * Contents are looked at late: that brings everything back.
 */
static const char *run_life(enum cow_mode mode, const void *arg)
{
	unsigned int procs = *(const unsigned int *)arg, last = procs - 1, i;
	char dev[128];
	const char *why;

	why = start_family(mode, &swappable, procs, 2);
	if (why)
		return why;
	if (cow_swap_device(dev, sizeof(dev), 4096)) {
		cow_world_stop();
		return world->skip;
	}
	cow_check_all_counters("after fork");
	swap_out(last);
	cow_check_all_counters("after reclaim");
	cow_call(last, call_read, 3);
	cow_check_all_counters("after one has read some pages");

	cow_poke(0, 0);
	cow_check_all_counters("after one has copied a table");
	must(last, call_drop, 1, 0, "munmap");
	cow_check_all_counters("after one has left a table");
	swap_out(0);
	cow_check_all_counters("after another reclaim");
	fork_in_vain(0);
	fork_in_vain(last);
	cow_fork(0, COW_FORK);
	cow_fork(last, COW_FORK);
	cow_check_all_counters("after fork of what is in swap");
	cow_call(last + 1, call_read, 2);
	cow_check_all_counters("after the youngest has read");
	swap_off_and_on(dev);

	/* Who has left a table, and the child that it had then */
	cow_call(last, call_adopt, 0);
	memcpy(world->model[last + 2], world->model[last],
	       sizeof(world->model[last]));
	cow_check_all("after swapoff");
	swap_out(0);
	for (i = 1; i < procs; i += 2) {
		cow_exit(i);
		if (i < 4)
			cow_check_all_counters("after an exit");
	}
	cow_check_all_counters("after many exits");
	cow_poke_all(last + 1);
	cow_check_all_counters("after one has written everything");
	cow_check_all("at the end");
	cow_check_all_counters("at the end");
	cow_world_stop();
	return NULL;
}

FIXTURE(counters) {
};

FIXTURE_VARIANT(counters) {
	unsigned int procs;
};

FIXTURE_SETUP(counters) {}
FIXTURE_TEARDOWN(counters) {}

FIXTURE_VARIANT_ADD(counters, of_2) { .procs = 2 };
FIXTURE_VARIANT_ADD(counters, of_10) { .procs = SOME };
FIXTURE_VARIANT_ADD(counters, of_70) { .procs = MANY };

TEST_F_TIMEOUT(counters, right_all_along, 900)
{
	COW_REPORT(cow_run(run_life, &variant->procs));
}

/*
 * Fork beside memory that it does not copy, or copies at once: the child has
 * what it would have.  The memory ends in the middle of a table.
 */

#define BESIDE		(T(1) + TABLE / 2)
#define BESIDE_LEN	(TABLE + TABLE / 2)

static int prepare_beside(void)
{
	unsigned int i;

	if (cow_read_field("/proc/meminfo", "SwapFree") < 32 * 1024)
		return cow_skip("needs 32 MiB of swap");
	if (map_anon(T(0), 3 * TABLE))
		return -1;
	cow_track_range(T(0), TABLE + TABLE / 2, 4);
	for (i = 0; i < BESIDE_LEN / PAGE; i += 2)
		cow_stamp(BESIDE + i * PAGE, cow_next_stamp(cow_self, i));
	return 0;
}

static int prepare_plain(void)
{
	return prepare_beside();
}

/* Some of what fork passes by, and some of what it does not */
static int page_out(void)
{
	return madvise(T(0) + TABLE / 2, TABLE / 2, MADV_PAGEOUT) ||
	       madvise(BESIDE + TABLE / 4, BESIDE_LEN / 2, MADV_PAGEOUT);
}

static int prepare_swapped(void)
{
	return prepare_beside() || page_out();
}

static int prepare_dontfork(void)
{
	return prepare_beside() || madvise(BESIDE, BESIDE_LEN, MADV_DONTFORK);
}

static int prepare_dontfork_swapped(void)
{
	return prepare_swapped() || madvise(BESIDE, BESIDE_LEN, MADV_DONTFORK);
}

static int prepare_wipeonfork(void)
{
	return prepare_beside() || madvise(BESIDE, BESIDE_LEN, MADV_WIPEONFORK);
}

static int prepare_wipeonfork_swapped(void)
{
	return prepare_swapped() ||
	       madvise(BESIDE, BESIDE_LEN, MADV_WIPEONFORK);
}

static int prepare_locked(void)
{
	return prepare_beside() || mlock(BESIDE, BESIDE_LEN);
}

static int prepare_pinned(void)
{
	return prepare_swapped() || cow_ring_open() || cow_ring_pin(BESIDE);
}

static int prepare_huge(void)
{
	static const char enabled[] =
		"/sys/kernel/mm/transparent_hugepage/enabled";
	char mode[64];

	if (cow_read_file(enabled, mode, sizeof(mode)) < 0)
		return cow_skip("no transparent huge pages");
	if (strstr(mode, "[never]"))
		cow_write_file(enabled, "madvise");
	if (prepare_swapped() ||
	    mmap(T(2), TABLE, RW, ANON | MAP_FIXED, -1, 0) != T(2) ||
	    madvise(T(2), TABLE, MADV_HUGEPAGE))
		return -1;
	cow_stamp(T(2), cow_next_stamp(cow_self, 0));
	return 0;
}

static int prepare_huge_dontfork(void)
{
	return prepare_huge() || madvise(T(2), TABLE, MADV_DONTFORK);
}

/* Empty, and far from everything else */
static int prepare_dontfork_empty(void)
{
	char *mem;

	if (prepare_beside())
		return -1;
	mem = mmap((void *)ABOVE_ARENA, 1UL << 40, PROT_NONE,
		   ANON | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	return mem == MAP_FAILED || madvise(mem, 1UL << 40, MADV_DONTFORK);
}

static void log_use(unsigned int proc, const char *when)
{
	pid_t pid = world->pid[proc];

	cow_check_counters(proc, when);
	/* Which of its pages are in swap is up to reclaim */
	cow_log(when, proc, cow_status(pid, "RssAnon") +
			    cow_status(pid, "VmSwap"));
	cow_log("RssShmem", proc, cow_status(pid, "RssShmem"));
}

static const char *run_beside(enum cow_mode mode, const void *arg)
{
	const struct cow_mem mem = {
		.name = "beside", .prepare = *(int (* const *)(void))arg,
		.tables = 1,
	};
	const char *why = cow_mem_start(mode, &mem);
	unsigned int i;

	if (why)
		return why;
	log_use(0, "before fork");
	cow_fork(0, COW_FORK);
	cow_must_share(mode, &mem);
	cow_fork(1, COW_FORK);
	cow_fork(0, COW_FORK);
	for (i = 0; i < 4; i++)
		log_use(i, "after fork");
	cow_check_all("after fork");
	for (i = 0; i < 4; i++)
		log_use(i, "after all have read");
	cow_poke_all(1);
	cow_exit(0);
	for (i = 1; i < 4; i++)
		log_use(i, "after one has written and one has gone");
	cow_check_all("at the end");
	cow_world_stop();
	return NULL;
}

FIXTURE(beside) {
};

FIXTURE_VARIANT(beside) {
	int (*prepare)(void);
};

FIXTURE_SETUP(beside) {}
FIXTURE_TEARDOWN(beside) {}

FIXTURE_VARIANT_ADD(beside, plain) { .prepare = prepare_plain };
FIXTURE_VARIANT_ADD(beside, swapped) { .prepare = prepare_swapped };
FIXTURE_VARIANT_ADD(beside, dontfork) { .prepare = prepare_dontfork };

FIXTURE_VARIANT_ADD(beside, dontfork_swapped) {
	.prepare = prepare_dontfork_swapped
};

FIXTURE_VARIANT_ADD(beside, dontfork_empty) {
	.prepare = prepare_dontfork_empty
};

FIXTURE_VARIANT_ADD(beside, wipeonfork) { .prepare = prepare_wipeonfork };

FIXTURE_VARIANT_ADD(beside, wipeonfork_swapped) {
	.prepare = prepare_wipeonfork_swapped
};

FIXTURE_VARIANT_ADD(beside, locked) { .prepare = prepare_locked };
FIXTURE_VARIANT_ADD(beside, pinned) { .prepare = prepare_pinned };
FIXTURE_VARIANT_ADD(beside, huge) { .prepare = prepare_huge };

FIXTURE_VARIANT_ADD(beside, huge_dontfork) {
	.prepare = prepare_huge_dontfork
};

TEST_F_TIMEOUT(beside, fork_counts, 120)
{
	COW_REPORT(cow_run_warm(run_beside, &variant->prepare));
}

/*
 * Swapoff looks for entries in the processes that are known to have some: the
 * one that reclaim has met may not be there any more.
 */
enum left { FIRST_EXITS, FIRST_BREAKS, FIRST_DROPS, SECOND_EXITS,
	    ALL_BUT_LAST_EXIT, ALL_BUT_LAST_BREAK };

static void leave(enum left left, unsigned int procs)
{
	unsigned int i;

	switch (left) {
	case FIRST_EXITS:
		cow_exit(0);
		break;
	case FIRST_BREAKS:
		cow_poke_all(0);
		break;
	case FIRST_DROPS:
		must(0, call_drop, 0, 0, "munmap");
		must(0, call_drop, 1, 0, "munmap");
		cow_call(0, call_adopt, 0);
		break;
	case SECOND_EXITS:
		cow_exit(1);
		break;
	case ALL_BUT_LAST_EXIT:
		for (i = 0; i < procs - 1; i++)
			cow_exit(i);
		break;
	case ALL_BUT_LAST_BREAK:
		for (i = 0; i < procs - 1; i++)
			cow_poke_all(i);
		break;
	}
}

struct swapoff_case {
	unsigned int procs;
	enum left left;
	bool idle;		/* nobody does anything afterwards */
};

static const char *run_swapoff(enum cow_mode mode, const void *arg)
{
	const struct swapoff_case *sc = arg;
	char dev[128];
	const char *why;

	why = start_family(mode, &swappable, sc->procs, 1);
	if (why)
		return why;
	if (cow_swap_device(dev, sizeof(dev), 4096)) {
		cow_world_stop();
		return world->skip;
	}
	swap_out(0);
	leave(sc->left, sc->procs);
	/* Who does anything takes tables back, and is known from then on */
	if (!sc->idle)
		cow_check_all_counters("after some have left");
	/* What comes later has to be found as well */
	if (!sc->idle)
		cow_fork(cow_proc[1].alive ? 1 : any_alive(), COW_FORK);
	swap_off_and_on(dev);
	cow_check_all("after swapoff");
	if (!sc->idle)
		cow_poke_all(sc->procs);
	cow_check_all("at the end");
	cow_world_stop();
	return NULL;
}

FIXTURE(swapoff) {
};

FIXTURE_VARIANT(swapoff) {
	struct swapoff_case sc;
};

FIXTURE_SETUP(swapoff) {}
FIXTURE_TEARDOWN(swapoff) {}

FIXTURE_VARIANT_ADD(swapoff, first_of_70_exits) {
	.sc = { MANY, FIRST_EXITS }
};

FIXTURE_VARIANT_ADD(swapoff, first_of_70_breaks) {
	.sc = { MANY, FIRST_BREAKS }
};

FIXTURE_VARIANT_ADD(swapoff, first_of_10_exits) {
	.sc = { SOME, FIRST_EXITS }
};

FIXTURE_VARIANT_ADD(swapoff, first_of_10_breaks) {
	.sc = { SOME, FIRST_BREAKS }
};

FIXTURE_VARIANT_ADD(swapoff, first_of_10_drops) {
	.sc = { SOME, FIRST_DROPS }
};

FIXTURE_VARIANT_ADD(swapoff, second_of_10_exits) {
	.sc = { SOME, SECOND_EXITS }
};

FIXTURE_VARIANT_ADD(swapoff, all_but_last_of_10_exit) {
	.sc = { SOME, ALL_BUT_LAST_EXIT }
};

FIXTURE_VARIANT_ADD(swapoff, all_but_last_of_10_exit_idle) {
	.sc = { SOME, ALL_BUT_LAST_EXIT, true }
};

FIXTURE_VARIANT_ADD(swapoff, all_but_last_of_10_break) {
	.sc = { SOME, ALL_BUT_LAST_BREAK }
};

TEST_F_TIMEOUT(swapoff, brings_all_back, 600)
{
	COW_REPORT(cow_run_once(run_swapoff, &variant->sc));
}

/* Pages of a file that go away under everybody who has them */

#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

struct cut {
	unsigned int procs;
	unsigned long offset, len;	/* a hole; or else */
	unsigned long size;		/* the new size */
};

static long call_cut(const long *arg)
{
	const struct cut *cut = (void *)arg[0];

	if (cut->len)
		return fallocate(file_fd, PUNCH, cut->offset, cut->len);
	return ftruncate(file_fd, cut->size);
}

/* Whole again, with something new in it */
static long call_mend(const long *arg)
{
	return cow_stamped_file(file_fd, FILE_TABLES * TABLE) < 0 ? -1 : 0;
}

static long call_log_pages(const long *arg)
{
	unsigned int i;

	cow_adopt();
	for (i = 0; i < world->nr_pages; i++)
		cow_log((const char *)arg[0], i, world->model[cow_self][i]);
	return 0;
}

static void log_counters(const char *when)
{
	unsigned int i;

	cow_check_all_counters(when);
	for (i = 0; i < world->nr_procs; i++) {
		cow_log("RssAnon", i, cow_status(world->pid[i], "RssAnon"));
		cow_log("RssShmem", i, cow_status(world->pid[i], "RssShmem"));
	}
}

static const char *run_cut(enum cow_mode mode, const void *arg)
{
	static const char after[] = "after the cut", later[] = "mended";
	unsigned int i, last = ((const struct cut *)arg)->procs - 1;
	unsigned int proc[] = { 0, 1, last / 2, last };
	const char *why;

	why = start_family(mode, &of_file, last + 1, 0);
	if (why)
		return why;
	log_counters("after fork");
	must(2, call_cut, (long)arg, 0, "cutting the file");
	log_counters(after);
	for (i = 0; i < ARRAY_LEN(proc); i++)
		cow_call(proc[i], call_log_pages, (long)after);
	must(3, call_mend, 0, 0, "mending the file");
	for (i = 0; i < ARRAY_LEN(proc); i++)
		cow_call(proc[i], call_log_pages, (long)later);
	cow_check_all_counters(later);
	for (i = 0; i < ARRAY_LEN(proc); i++) {
		cow_poke_all(proc[i]);
		cow_check(proc[i], "after a write");
		cow_check(proc[(i + 1) % ARRAY_LEN(proc)], "after a write");
	}
	cow_check_all_counters("at the end");
	cow_world_stop();
	return NULL;
}

FIXTURE(cut) {
};

FIXTURE_VARIANT(cut) {
	struct cut cut;
};

FIXTURE_SETUP(cut) {}
FIXTURE_TEARDOWN(cut) {}

FIXTURE_VARIANT_ADD(cut, hole_of_a_page_of_70) {
	.cut = { MANY, .offset = FILE_STEP / 2 * PAGE, .len = PAGE }
};

FIXTURE_VARIANT_ADD(cut, hole_of_a_page_of_10) {
	.cut = { SOME, .offset = FILE_STEP / 2 * PAGE, .len = PAGE }
};

FIXTURE_VARIANT_ADD(cut, hole_under_a_written_page_of_10) {
	.cut = { SOME, .offset = 0, .len = PAGE }
};

FIXTURE_VARIANT_ADD(cut, hole_across_tables_of_10) {
	.cut = { SOME, .offset = TABLE / 2, .len = TABLE }
};

FIXTURE_VARIANT_ADD(cut, end_of_10) {
	.cut = { SOME, .size = TABLE + TABLE / 2 }
};

FIXTURE_VARIANT_ADD(cut, everything_of_70) { .cut = { MANY } };
FIXTURE_VARIANT_ADD(cut, everything_of_10) { .cut = { SOME } };

TEST_F_TIMEOUT(cut, leaves_nothing, 600)
{
	COW_REPORT(cow_run_warm(run_cut, &variant->cut));
}

/*
 * A fork that fails has shared tables by then and has to give them back,
 * wherever they are.
 */
struct late {
	unsigned long base;
	bool had_child;
};

static unsigned long late_base;

static int prepare_late(void)
{
	char *mem = (void *)late_base;

	if (map_anon(T(0), TABLE))
		return -1;
	cow_track_range(T(0), TABLE, 16);
	if (mmap(mem, 2 * TABLE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) != mem)
		return cow_skip("no memory at %#lx", late_base);
	madvise(mem, 2 * TABLE, MADV_NOHUGEPAGE);
	cow_track_range(mem, 2 * TABLE, 16);
	return 0;
}

static void log_late(const char *when)
{
	cow_check_all_counters(when);
	cow_log("RssAnon", 0, cow_status(world->pid[0], "RssAnon"));
	cow_log("VmPTE", 0, cow_status(world->pid[0], "VmPTE"));
}

static const char *run_late(enum cow_mode mode, const void *arg)
{
	static const struct cow_mem mem = {
		.name = "late", .prepare = prepare_late, .tables = 3,
	};
	const struct late *late = arg;
	unsigned int i, child = 0;
	const char *why;
	long tables;

	late_base = late->base;
	why = cow_mem_start(mode, &mem);
	if (why)
		return why;
	if (late->had_child)
		child = cow_fork(0, COW_FORK);
	why = cow_commit_start();
	if (why) {
		cow_world_stop();
		return why;
	}
	log_late("before");
	cow_call(0, cow_fork_in_vain, late_base + (1UL << 30));
	log_late("after the first time");
	cow_fold_vmstat();
	tables = cow_page_tables();
	for (i = 0; i < 20; i++)
		if (cow_call(0, cow_fork_in_vain, late_base + (1UL << 30)) != -1 ||
		    errno != ENOMEM)
			cow_fail("fork that should fail: %s", strerror(errno));
	if (cow_settle(cow_page_tables, tables + 10) > tables + 10)
		cow_fail("%ld page tables before, %ld after", tables,
			 cow_page_tables());
	cow_commit_stop();
	log_late("after many times");
	cow_check_all("after forks that failed");
	cow_poke_all(0);
	cow_check_all("after a write");
	if (child)
		cow_exit(child);
	child = cow_fork(0, COW_FORK);
	cow_must_share(mode, &mem);
	log_late("after a fork");
	cow_poke_all(child);
	cow_check_all("at the end");
	log_late("at the end");
	cow_world_stop();
	return NULL;
}

FIXTURE(late_failure) {
};

FIXTURE_VARIANT(late_failure) {
	struct late late;
};

FIXTURE_SETUP(late_failure) {}
FIXTURE_TEARDOWN(late_failure) {}

FIXTURE_VARIANT_ADD(late_failure, near) {
	.late = { .base = ABOVE_ARENA }
};

FIXTURE_VARIANT_ADD(late_failure, near_with_child) {
	.late = { .base = ABOVE_ARENA, .had_child = true }
};

FIXTURE_VARIANT_ADD(late_failure, high) { .late = { .base = 3UL << 45 } };

FIXTURE_VARIANT_ADD(late_failure, high_with_child) {
	.late = { .base = 3UL << 45, .had_child = true }
};

/* Only processors with five levels of tables have these */
FIXTURE_VARIANT_ADD(late_failure, highest) { .late = { .base = 1UL << 55 } };

FIXTURE_VARIANT_ADD(late_failure, highest_with_child) {
	.late = { .base = 1UL << 55, .had_child = true }
};

TEST_F_TIMEOUT(late_failure, leaves_nothing, 120)
{
	COW_REPORT(cow_run_warm(run_late, &variant->late));
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
