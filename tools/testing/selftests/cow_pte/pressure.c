// SPDX-License-Identifier: GPL-2.0
/*
 * Memory is reclaimed in the middle of fork().  The process is in a cgroup that
 * is full: what fork() allocates for the child has to come from its own pages,
 * those that fork() has been at already as well as those that it has not.
 * Whatever becomes of the fork, the counters of both processes must be what
 * their page tables hold; of a child that never ran, the kernel itself checks
 * that when it takes it apart.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_util.h"

/*
 * Tables that fork() copies, as each is in part of a mapping that it leaves
 * out: enough to use up what the limit leaves, as it is a round number.
 */
#define COPIED_TABLES	512
#define COPIED_STEP	(TABLE / 8)
/* Above them, what fork() comes to later */
#define LATER_TABLES	4

enum what { SWAP, LAZYFREE, LAZYFREE_HUGE };

struct test_case {
	enum what what;
	bool fails;
};

/* Shared with the processes of the world */
struct board {
	struct cow_outcome outcome;
	long reclaimed;
};

static struct board *board;
static char *copied, *later;

static int map_memory(enum what what)
{
	size_t len = (COPIED_TABLES + LATER_TABLES) * TABLE;
	char *area, *p;

	area = mmap(NULL, len + TABLE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED)
		return -1;
	copied = (char *)(((uintptr_t)area + TABLE - 1) & -TABLE);
	later = copied + COPIED_TABLES * TABLE;
	madvise(copied, later - copied, MADV_NOHUGEPAGE);
	madvise(later, LATER_TABLES * TABLE,
		what == LAZYFREE_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	for (p = copied; p < later; p += TABLE)
		if (madvise(p + PAGE, PAGE, MADV_DONTFORK))
			return -1;
	return 0;
}

static long call_prepare(const long *arg)
{
	/* Where there is swap, it is the pages in the copied tables that go */
	if (cow_cgroup_enter(arg[0] == SWAP ? 64 : 0))
		return -1;
	return map_memory(arg[0]);
}

/* All is there again, and no more of it fits into the cgroup */
static int fill(enum what what)
{
	size_t later_len = LATER_TABLES * TABLE;
	char *p;

	if (cow_cgroup_limit(LONG_MAX >> 20, what == SWAP))
		return -1;
	for (p = copied; p < later; p += COPIED_STEP)
		__atomic_store_n(p, 1, __ATOMIC_RELAXED);
	memset(later, 1, later_len);
	if (what != SWAP && madvise(later, later_len, MADV_FREE))
		return -1;
	return cow_cgroup_limit_to_use(what == SWAP);
}

static long reclaimed(void)
{
	return cow_vmstat("pswpout") + cow_vmstat("pglazyfreed");
}

/* arg[0]: what; arg[1]: the allocation of fork() that fails */
static long call_fork_failing(const long *arg)
{
	if (fill(arg[0]))
		return -1;
	board->reclaimed -= reclaimed();
	cow_with_failure(arg[1], cow_fork_and_reap, arg, &board->outcome);
	board->reclaimed += reclaimed();
	return 0;
}

static long call_fill(const long *arg)
{
	return fill(arg[0]);
}

/* From where a fork has copied half its tables, in steps that are no divisor */
#define FIRST_NTH	700
#define STEP_NTH	173
#define MAX_NTH		20000

static void run_failing(enum what what)
{
	unsigned int nth, failures = 0;

	for (nth = FIRST_NTH; nth < MAX_NTH; nth += STEP_NTH) {
		if (cow_call(0, call_fork_failing, what, nth))
			cow_fail("cannot fill the cgroup: %s", strerror(errno));
		if (board->outcome.ret && !board->outcome.injected)
			cow_fail("fork: %s", strerror(board->outcome.err));
		cow_check_rss(0);
		failures += !!board->outcome.ret;
		if (!board->outcome.injected)
			break;
	}
	ksft_print_msg("%u forks failed, %ld pages reclaimed\n", failures,
		       board->reclaimed);
	if (!failures)
		cow_fail("no fork failed");
}

static void run_fork(enum what what)
{
	unsigned int child;

	if (cow_call(0, call_fill, what))
		cow_fail("cannot fill the cgroup: %s", strerror(errno));
	board->reclaimed -= reclaimed();
	child = cow_fork(0, COW_FORK);
	board->reclaimed += reclaimed();
	ksft_print_msg("%ld pages reclaimed\n", board->reclaimed);
	cow_check_rss(0);
	cow_check_rss(child);
}

static const char *run_case(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	const char *why = tc->fails ? cow_faults_start(COW_FAULTS_ALL) : NULL;

	if (why)
		return why;
	cow_world_start(mode);
	if (cow_call(0, call_prepare, tc->what)) {
		if (!world->skip[0])
			cow_fail("preparation failed: %s", strerror(errno));
		cow_world_stop();
		return world->skip;
	}
	if (tc->fails)
		run_failing(tc->what);
	else
		run_fork(tc->what);
	if (!board->reclaimed)
		cow_fail("nothing was reclaimed");
	cow_world_stop();
	return NULL;
}

FIXTURE(reclaim_in_fork) {
};

FIXTURE_VARIANT(reclaim_in_fork) {
	enum what what;
};

FIXTURE_SETUP(reclaim_in_fork)
{
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, board);
}

FIXTURE_TEARDOWN(reclaim_in_fork) {}

FIXTURE_VARIANT_ADD(reclaim_in_fork, swap) { .what = SWAP };
FIXTURE_VARIANT_ADD(reclaim_in_fork, lazyfree) { .what = LAZYFREE };
FIXTURE_VARIANT_ADD(reclaim_in_fork, lazyfree_huge) { .what = LAZYFREE_HUGE };

TEST_F_TIMEOUT(reclaim_in_fork, that_succeeds, 300)
{
	struct test_case tc = { .what = variant->what };

	COW_REPORT(cow_run(run_case, &tc));
}

TEST_F_TIMEOUT(reclaim_in_fork, that_fails, 300)
{
	struct test_case tc = { .what = variant->what, .fails = true };

	COW_REPORT(cow_run_once(run_case, &tc));
}

int main(int argc, char **argv)
{
	cow_without_rseq(argv);
	cow_main_start();
	return test_harness_run(argc, argv);
}
