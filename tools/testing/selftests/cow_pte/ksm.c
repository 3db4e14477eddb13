// SPDX-License-Identifier: GPL-2.0
/*
 * Merged pages in shared tables: they stay within reach of all who look for
 * them, they are counted as after an ordinary fork, and what is no longer shared
 * is merged again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_op.h"

#ifndef MADV_HWPOISON
#define MADV_HWPOISON		100
#endif
#define MPOL_MF_MOVE_ALL	0x4

#define KSM		"/sys/kernel/mm/ksm/"
#define SCAN_TRIES	10
#define SWAP_TRIES	40
#define STEP		4
#define NR_PAIRS	(TABLE_PAGES / STEP)
#define NR_ZEROES	(2 * TABLE_PAGES)
#define NR_MOVED	8
#define ZERO_FORKS	3
#define POISONED	3

static void must(unsigned int proc, cow_fn fn, long arg0, const char *what)
{
	if (cow_call(proc, fn, arg0))
		cow_fail("process %u: %s: %s", proc, what, strerror(errno));
}

static long read_number(const char *path)
{
	char buf[32];

	if (cow_read_file(path, buf, sizeof(buf)) < 0)
		return -1;
	return strtol(buf, NULL, 10);
}

static long own_stat(unsigned int proc, const char *field)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ksm_stat", world->pid[proc]);
	return cow_read_field(path, field);
}

/* Forget what was merged before; look at each page each time */
static void ksm_start(const char *use_zero_pages)
{
	cow_write_file(KSM "run", "2");
	cow_write_file(KSM "run", "0");
	cow_write_file(KSM "smart_scan", "0");
	cow_write_file(KSM "use_zero_pages", use_zero_pages);
}

/* For each page of T0 one in T1 that is the same */
static int prepare_pairs(void)
{
	unsigned int i;

	if (cow_cgroup_enter(32))
		return -1;
	if (mmap(T(0), 2 * TABLE, RW, ANON | MAP_FIXED, -1, 0) != T(0))
		return -1;
	madvise(T(0), 2 * TABLE, MADV_NOHUGEPAGE);
	cow_track_range(T(0), 2 * TABLE, STEP);
	for (i = 0; i < NR_PAIRS; i++)
		cow_stamp(world->page[NR_PAIRS + i],
			  cow_peek(world->page[i]));
	return madvise(T(0), 2 * TABLE, MADV_MERGEABLE) ?
		cow_skip("no KSM") : 0;
}

static const struct cow_mem pairs = {
	.name = "pairs", .prepare = prepare_pairs, .tables = 2,
};

static long nr_merged(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ksm_merging_pages",
		 world->pid[0]);
	return read_number(path);
}

static void log_merged(const char *when)
{
	cow_log(when, 0, read_number(KSM "pages_shared"));
	cow_log(when, 1, read_number(KSM "pages_sharing"));
	cow_log(when, 2, nr_merged());
}

static void scan(unsigned int times)
{
	while (times--)
		cow_ksm_scan();
}

enum family { ALONE, CHILD_LIVES, CHILD_GONE, CHILD_HAS_CHILD };

static void make_family(enum cow_mode mode, enum family family)
{
	unsigned int child;

	if (family == ALONE)
		return;
	child = cow_fork(0, COW_FORK);
	cow_must_share(mode, &pairs);
	if (family == CHILD_HAS_CHILD)
		cow_fork(child, COW_FORK);
	if (family != CHILD_LIVES)
		cow_exit(child);
}

/*
 * A new world in which pages are merged, and a family of it that KSM has looked
 * at since.  Returns why there is none, or NULL.
 */
static const char *start_merged(enum cow_mode mode, enum family family)
{
	const char *why;
	int i;

	ksm_start("0");
	why = cow_mem_start(mode, &pairs);
	if (why)
		return why;
	for (i = 0; i < SCAN_TRIES && nr_merged() < 2 * NR_PAIRS; i++)
		scan(1);
	if (nr_merged() < 2 * NR_PAIRS)
		cow_fail("KSM merged only %ld pages", nr_merged());
	log_merged("before fork");
	make_family(mode, family);
	scan(2);
	return NULL;
}

static const char *run_scans(enum cow_mode mode, const void *arg)
{
	const char *why = start_merged(mode, *(const enum family *)arg);

	if (why)
		return why;
	log_merged("after some scans");
	cow_check_all("after some scans");
	cow_poke_all(0);
	cow_check_all("after a write");
	scan(1);
	log_merged("after a write");
	cow_world_stop();
	return NULL;
}

/* Merged pages that are in swap, or those that are in memory still */
static unsigned int nr_swapped(void)
{
	unsigned int i, nr = 0;

	for (i = 0; i < world->nr_pages; i++)
		nr += !!(cow_pagemap(world->pid[0], world->page[i]) & PM_SWAP);
	return nr;
}

static long call_reclaim(const long *arg)
{
	cow_cgroup_reclaim(arg[0]);
	return 0;
}

static const char *run_reclaim(enum cow_mode mode, const void *arg)
{
	const char *why = start_merged(mode, *(const enum family *)arg);
	int i;

	if (why)
		return why;
	for (i = 0; i < SWAP_TRIES && nr_swapped() < NR_PAIRS; i++)
		cow_call(0, call_reclaim, 4);
	cow_log("half of the merged pages are in swap", 0,
		nr_swapped() >= NR_PAIRS);
	cow_check_all_counters("after reclaim");
	cow_check_all("after reclaim");
	cow_world_stop();
	return NULL;
}

/* All who have a page go along */
static long call_move(const long *arg)
{
	int status[NR_MOVED], node[NR_MOVED];
	void *page[NR_MOVED];
	unsigned int i;
	long ret;

	for (i = 0; i < NR_MOVED; i++)
		page[i] = world->page[i];
	if (syscall(SYS_move_pages, 0, (long)NR_MOVED, page, NULL, status, 0))
		return -1;
	for (i = 0; i < NR_MOVED; i++)
		node[i] = !status[i];
	ret = syscall(SYS_move_pages, 0, (long)NR_MOVED, page, node, status,
		      MPOL_MF_MOVE_ALL);
	cow_log("move_pages", 0, ret);
	if (syscall(SYS_move_pages, 0, (long)NR_MOVED, page, NULL, status, 0))
		return -1;
	for (i = 0; i < NR_MOVED; i++)
		cow_log("is there", i, status[i] == node[i]);
	return 0;
}

static const char *run_move(enum cow_mode mode, const void *arg)
{
	const char *why;

	if (access("/sys/devices/system/node/node1", F_OK))
		return "needs a second node";
	why = start_merged(mode, *(const enum family *)arg);
	if (why)
		return why;
	must(0, call_move, 0, "move_pages");
	cow_check_all("after migration");
	cow_world_stop();
	return NULL;
}

static long call_poison(const long *arg)
{
	errno = 0;
	cow_log("MADV_HWPOISON",
		madvise(world->page[POISONED], PAGE, MADV_HWPOISON), errno);
	return 0;
}

static long call_log_poisoned(const long *arg)
{
	cow_log("poisoned", cow_self, cow_peek(world->page[POISONED]));
	cow_log("its twin", cow_self,
		cow_peek(world->page[NR_PAIRS + POISONED]));
	cow_log("another", cow_self, cow_peek(world->page[POISONED + 1]));
	return 0;
}

static const char *run_poison(enum cow_mode mode, const void *arg)
{
	const char *why = start_merged(mode, *(const enum family *)arg);
	unsigned int i;

	if (why)
		return why;
	must(0, call_poison, 0, "poisoning");
	for (i = 0; i < world->nr_procs; i++)
		if (cow_proc[i].alive)
			cow_call(i, call_log_poisoned, 0);
	cow_world_stop();
	return NULL;
}

FIXTURE(merged) {
};

FIXTURE_VARIANT(merged) {
	enum family family;
};

FIXTURE_SETUP(merged)
{
	if (access(KSM "run", W_OK))
		SKIP(return, "no KSM");
}

FIXTURE_TEARDOWN(merged) {}

FIXTURE_VARIANT_ADD(merged, not_forked) { .family = ALONE };
FIXTURE_VARIANT_ADD(merged, child_lives) { .family = CHILD_LIVES };
FIXTURE_VARIANT_ADD(merged, child_gone) { .family = CHILD_GONE };
FIXTURE_VARIANT_ADD(merged, child_of_child) { .family = CHILD_HAS_CHILD };

TEST_F_TIMEOUT(merged, stay_merged, 300)
{
	COW_REPORT(cow_run(run_scans, &variant->family));
}

TEST_F_TIMEOUT(merged, go_to_swap, 300)
{
	COW_REPORT(cow_run(run_reclaim, &variant->family));
}

TEST_F_TIMEOUT(merged, migrate, 300)
{
	COW_REPORT(cow_run(run_move, &variant->family));
}

TEST_F_TIMEOUT(merged, can_be_poisoned, 300)
{
	COW_REPORT(cow_run(run_poison, &variant->family));
}

/*
 * Pages of zeroes that KSM has replaced are counted, for the process and for
 * the system, until they are unmapped.
 */

static int prepare_zeroes(void)
{
	unsigned int i;

	if (mmap(T(0), 2 * TABLE, RW, ANON | MAP_FIXED, -1, 0) != T(0))
		return -1;
	madvise(T(0), 2 * TABLE, MADV_NOHUGEPAGE);
	memset(T(0), 0, 2 * TABLE);
	for (i = 0; i < NR_ZEROES; i += 64)
		cow_track(T(0) + i * PAGE);
	return madvise(T(0), 2 * TABLE, MADV_MERGEABLE) ?
		cow_skip("no KSM") : 0;
}

static const struct cow_mem zeroes = {
	.name = "zeroes", .prepare = prepare_zeroes, .tables = 2,
};

static long call_munmap(const long *arg)
{
	return munmap(T(0), 2 * TABLE);
}

/* One page of each table, and the zeroes of the rest are copied */
static long call_break(const long *arg)
{
	return cow_try_write(world->page[0], 0) ||
	       cow_try_write(world->page[world->nr_pages - 1],
			     world->nr_pages - 1);
}

/* What a child does before it ends */
struct life {
	cow_fn in_child, in_parent;
	bool child_of_child;
	bool exec;
};

static void zero_life(enum cow_mode mode, const struct life *life)
{
	unsigned int child = cow_fork(0, COW_FORK), second = 0;

	cow_must_share(mode, &zeroes);
	if (life->child_of_child)
		second = cow_fork(child, COW_FORK);
	if (life->in_child)
		must(child, life->in_child, 0, "what the child does");
	if (life->in_parent)
		must(0, life->in_parent, 0, "what the parent does");
	if (life->exec) {
		cow_exec_start(child);
		cow_exit_wait(child);
	} else {
		cow_exit(child);
	}
	if (second)
		cow_exit(second);
}

static long nr_zero_pages(void)
{
	return read_number(KSM "ksm_zero_pages");
}

static const char *run_zeroes(enum cow_mode mode, const void *arg)
{
	const struct life *life = arg;
	long start = nr_zero_pages(), full;
	const char *why;
	int i;

	if (start < 0)
		return "no " KSM "ksm_zero_pages";
	ksm_start("1");
	why = cow_mem_start_big(mode, &zeroes, 2 * COW_USUAL_PROCS);
	if (why)
		return why;
	for (i = 0; i < SCAN_TRIES && nr_zero_pages() < start + NR_ZEROES; i++)
		scan(1);
	full = nr_zero_pages();
	if (full < start + NR_ZEROES)
		cow_fail("KSM found only %ld pages of zeroes", full - start);
	for (i = 0; i < (life->in_parent ? 1 : ZERO_FORKS); i++)
		zero_life(mode, life);
	cow_log("of all", 0, nr_zero_pages() - full);
	cow_log("of the process", 0, own_stat(0, "ksm_zero_pages"));
	cow_check_all("afterwards");
	must(0, call_munmap, 0, "munmap");
	cow_log("of all, after munmap", 0, nr_zero_pages() - start);
	cow_log("of the process, after munmap", 0,
		own_stat(0, "ksm_zero_pages"));
	cow_world_stop();
	cow_log("of all, at the end", 0, nr_zero_pages() - start);
	return NULL;
}

FIXTURE(zero_pages) {
};

FIXTURE_VARIANT(zero_pages) {
	struct life life;
};

FIXTURE_SETUP(zero_pages)
{
	if (access(KSM "run", W_OK))
		SKIP(return, "no KSM");
}

FIXTURE_TEARDOWN(zero_pages) {}

FIXTURE_VARIANT_ADD(zero_pages, exit) { };
FIXTURE_VARIANT_ADD(zero_pages, exec) { .life.exec = true };
FIXTURE_VARIANT_ADD(zero_pages, munmap) { .life.in_child = call_munmap };
FIXTURE_VARIANT_ADD(zero_pages, break) { .life.in_child = call_break };

FIXTURE_VARIANT_ADD(zero_pages, parent_breaks) {
	.life.in_parent = call_break
};

FIXTURE_VARIANT_ADD(zero_pages, child_of_child) {
	.life.child_of_child = true
};

FIXTURE_VARIANT_ADD(zero_pages, child_of_child_break) {
	.life = { .child_of_child = true, .in_child = call_break }
};

TEST_F_TIMEOUT(zero_pages, are_counted, 300)
{
	COW_REPORT(cow_run(run_zeroes, &variant->life));
}

/*
 * When the last child has gone the memory is the parent's again, and it need not
 * write for KSM to see that.
 */
enum gone { GONE_BY_EXIT, GONE_BY_EXEC, GONE_BY_MUNMAP, GONE_BOTH };

static void last_child_goes(enum gone gone, unsigned int child)
{
	switch (gone) {
	case GONE_BY_EXEC:
		cow_exec_start(child);
		cow_exit_wait(child);
		break;
	case GONE_BY_MUNMAP:
		must(child, call_munmap, 0, "munmap");
		break;
	case GONE_BOTH:
		cow_exit(cow_fork(child, COW_FORK));
		cow_exit(child);
		break;
	default:
		cow_exit(child);
	}
}

static const char *run_late(enum cow_mode mode, const void *arg)
{
	const char *why;

	ksm_start("0");
	why = cow_mem_start(mode, &pairs);
	if (why)
		return why;
	cow_fork(0, COW_FORK);
	cow_must_share(mode, &pairs);
	last_child_goes(*(const enum gone *)arg, 1);
	scan(2);
	log_merged("after some scans");
	cow_check(0, "after some scans");
	cow_poke_all(0);
	cow_check(0, "after a write");
	cow_world_stop();
	return NULL;
}

FIXTURE(late) {
};

FIXTURE_VARIANT(late) {
	enum gone gone;
};

FIXTURE_SETUP(late)
{
	if (access(KSM "run", W_OK))
		SKIP(return, "no KSM");
}

FIXTURE_TEARDOWN(late) {}

FIXTURE_VARIANT_ADD(late, exit) { .gone = GONE_BY_EXIT };
FIXTURE_VARIANT_ADD(late, exec) { .gone = GONE_BY_EXEC };
FIXTURE_VARIANT_ADD(late, munmap) { .gone = GONE_BY_MUNMAP };
FIXTURE_VARIANT_ADD(late, two_exits) { .gone = GONE_BOTH };

TEST_F_TIMEOUT(late, is_merged, 300)
{
	COW_REPORT(cow_run(run_late, &variant->gone));
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
