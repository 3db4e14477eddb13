// SPDX-License-Identifier: GPL-2.0
/*
 * A copy of a table borrows its pages from the table that it was made of: what
 * becomes of them when either side writes, forks, looks, goes away, or the
 * kernel takes a page.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_op.h"

/* More than may borrow of one table */
#define CROWD		40

static long nr_lent, nr_settled, nr_merged;

static void count_start(void)
{
	nr_lent = cow_vmstat("cow_pte_lend");
	nr_settled = cow_vmstat("cow_pte_settle");
	nr_merged = cow_vmstat("cow_pte_merge");
}

/* Other processes of the system may add to it, but not before the first world */
static void must_count(const char *what, long before, long least)
{
	long n = cow_vmstat(what) - before;

	if (n < least)
		cow_fail("%s: %ld, expected at least %ld", what, n, least);
}

static int prepare_two(void)
{
	if (mmap(T(0), 2 * TABLE, RW, ANON | MAP_FIXED, -1, 0) != T(0))
		return -1;
	madvise(T(0), 2 * TABLE, MADV_NOHUGEPAGE);
	cow_track_range(T(0), TABLE, 2);
	cow_track_range(T(1), TABLE, 16);
	return 0;
}

static const struct cow_mem two_tables = {
	.name = "two_tables", .prepare = prepare_two, .tables = 2,
};

#define FIRST_OF_T1	(TABLE_PAGES / 2)

static const char *start(enum cow_mode mode, unsigned int procs)
{
	const char *why = cow_mem_start_big(mode, &two_tables, procs + 2);
	unsigned int i;

	for (i = 1; i < procs && !why; i++)
		cow_fork(0, COW_FORK);
	if (why)
		return why;
	cow_must_share(mode, &two_tables);
	cow_check_all("after fork");
	count_start();
	return NULL;
}

/* One page in each of the two tables */
static void borrow(enum cow_mode mode, unsigned int proc)
{
	long lent = cow_vmstat("cow_pte_lend");

	cow_poke(proc, 3);
	cow_poke(proc, FIRST_OF_T1 + 3);
	if (mode == COW_ON)
		must_count("cow_pte_lend", lent, 2);
	cow_check_all("after the first writes");
}

static void finish(void)
{
	unsigned int i;

	for (i = 0; i < world->nr_procs; i++) {
		if (!cow_proc[i].alive)
			continue;
		cow_poke_all(i);
		cow_check_all("after one has written everything");
		cow_check_all_counters("after one has written everything");
	}
	cow_world_stop();
}

static long call_count_faults(const long *arg)
{
	struct rusage before, after;
	unsigned int i;

	getrusage(RUSAGE_SELF, &before);
	for (i = 0; i < world->nr_pages; i++)
		cow_try_write(world->page[i], i);
	getrusage(RUSAGE_SELF, &after);
	return after.ru_minflt - before.ru_minflt;
}

/* The child has gone: what the parent has not written is his again, writable. */
static const char *run_merge(enum cow_mode mode, const void *arg)
{
	const char *why = start(mode, 2);
	long faults;

	if (why)
		return why;
	borrow(mode, 0);
	cow_exit(1);
	if (mode == COW_ON)
		must_count("cow_pte_merge", nr_merged, 2);
	cow_check_all("after the child's exit");
	cow_check_all_counters("after the child's exit");
	faults = cow_call(0, call_count_faults, 0);
	if (mode == COW_ON && faults > (long)world->nr_pages / 4)
		cow_fail("%ld faults to write %u pages that are nobody else's",
			 faults, world->nr_pages);
	cow_check_all("after the parent wrote");
	finish();
	return NULL;
}

/* The child wrote and goes: the parent never lost anything. */
static const char *run_give_back(enum cow_mode mode, const void *arg)
{
	const char *why = start(mode, 2);
	long faults;

	if (why)
		return why;
	borrow(mode, 1);
	cow_exit(1);
	cow_check_all("after the child's exit");
	cow_check_all_counters("after the child's exit");
	faults = cow_call(0, call_count_faults, 0);
	if (mode == COW_ON && faults > (long)world->nr_pages / 4)
		cow_fail("%ld faults to write %u pages that are nobody else's",
			 faults, world->nr_pages);
	finish();
	return NULL;
}

/* The lender's last sharer writes, and lives. */
static const char *run_lender_writes(enum cow_mode mode, const void *arg)
{
	const char *why = start(mode, 2);

	if (why)
		return why;
	borrow(mode, 1);
	cow_poke(0, 5);
	if (mode == COW_ON)
		must_count("cow_pte_settle", nr_settled, 1);
	cow_check_all("after the lender wrote");
	cow_poke_all(0);
	cow_check_all("after the lender wrote everything");
	cow_check_all_counters("after the lender wrote everything");
	finish();
	return NULL;
}

/* Two borrow when the last one who has the table goes. */
static const char *run_two_borrowers(enum cow_mode mode, const void *arg)
{
	const char *why = start(mode, 3);

	if (why)
		return why;
	borrow(mode, 1);
	borrow(mode, 2);
	cow_poke(1, 7);
	cow_poke(2, 9);
	cow_exit(0);
	if (mode == COW_ON) {
		must_count("cow_pte_settle", nr_settled, 2);
		must_count("cow_pte_merge", nr_merged, 2);
	}
	cow_check_all("after the exit of the parent");
	cow_check_all_counters("after the exit of the parent");
	cow_poke_all(2);
	cow_check_all("after one wrote everything");
	finish();
	return NULL;
}

/* More than may borrow; they go in the order that they came. */
static const char *run_crowd(enum cow_mode mode, const void *arg)
{
	const char *why = start(mode, CROWD);
	unsigned int i;

	if (why)
		return why;
	for (i = 1; i < CROWD; i++) {
		cow_poke(i, i);
		cow_poke(i, FIRST_OF_T1 + i % 32);
	}
	cow_check_all("after all have written");
	cow_check_all_counters("after all have written");
	for (i = *(const bool *)arg; i < CROWD - 2; i++) {
		cow_exit(i);
		if (i % 8 == 1 || i < 4)
			cow_check_all("after an exit");
	}
	cow_check_all_counters("after many exits");
	finish();
	return NULL;
}

static long call_adopt(const long *arg)
{
	cow_adopt();
	return 0;
}

static long call_write_some(const long *arg)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i += 3)
		cow_try_write(world->page[i], i);
	return 0;
}

/* Who borrows forks, and both sides of that write. */
static const char *run_fork(enum cow_mode mode, const void *arg)
{
	unsigned int proc = *(const unsigned int *)arg, child;
	const char *why = start(mode, 3);

	if (why)
		return why;
	borrow(mode, proc);
	child = cow_fork(proc, COW_FORK);
	cow_check_all("after fork of a borrower");
	cow_check_all_counters("after fork of a borrower");
	cow_poke(child, 11);
	cow_poke(proc, 13);
	cow_check_all("after both wrote");
	cow_exit((proc + 1) % 3);
	cow_exit((proc + 2) % 3);
	cow_check_all("when the lenders have gone");
	cow_exit(proc);
	cow_check_all("when only the child's child is left");
	finish();
	return NULL;
}

/*
 * Whoever breaks a table but for a fault is about to look at its entries: here a
 * fork that copies, of a parent who still shares his tables.
 */
enum copying_fork {
	BY_PRCTL,		/* he has opted out */
	HALF_DONTFORK,		/* part of a table is not for the child */
	WHOLE_DONTFORK,		/* nor is a whole one */
	SHARED_IN_HOLE,		/* a shared mapping has come to lie in one */
};

static long call_prepare_copy(const long *arg)
{
	switch (arg[0]) {
	case BY_PRCTL:
		return prctl(PR_SET_COW_PTE, 0, 0, 0, 0);
	case HALF_DONTFORK:
		return madvise(T(1) + TABLE / 2, TABLE / 2, MADV_DONTFORK);
	case WHOLE_DONTFORK:
		return madvise(T(1), TABLE, MADV_DONTFORK);
	case SHARED_IN_HOLE:
		return mmap(T(2) + PAGE, PAGE, RW,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
		       T(2) + PAGE;
	}
	return -1;
}

static int prepare_three(void)
{
	unsigned int i;

	if (prepare_two() || mmap(T(2) + TABLE / 2, TABLE / 2 + 3 * TABLE, RW,
				  ANON | MAP_FIXED, -1, 0) != T(2) + TABLE / 2)
		return -1;
	madvise(T(2) + TABLE / 2, TABLE / 2 + 3 * TABLE, MADV_NOHUGEPAGE);
	cow_track_range(T(2) + TABLE / 2, TABLE / 2, 4);
	for (i = 3; i < ARENA_TABLES; i++)
		cow_track_range(T(i), TABLE, 64);
	return 0;
}

static const struct cow_mem with_hole = {
	.name = "with_hole", .prepare = prepare_three, .tables = 3,
};

static const char *run_copying_fork(enum cow_mode mode, const void *arg)
{
	enum copying_fork how = *(const enum copying_fork *)arg;
	const char *why = cow_mem_start_big(mode, &with_hole, 6);
	unsigned int copied, i;

	if (why)
		return why;
	cow_fork(0, COW_FORK);
	cow_must_share(mode, &with_hole);
	if (cow_call(0, call_prepare_copy, how))
		cow_fail("preparation: %s", strerror(errno));
	copied = cow_fork(0, COW_FORK);
	/* What fork() did not give it reads as unmapped, or as nothing */
	cow_call(copied, call_adopt, 0);
	cow_check_all("after the fork");
	cow_check_all_counters("after the fork");
	for (i = 0; i < world->nr_pages; i++)
		cow_log("page", i, world->model[copied][i]);
	cow_exit(1);
	cow_check_all("when the first child has gone");
	cow_call(0, call_write_some, 0);
	cow_check_all("when the parent wrote");
	cow_exit(0);
	cow_check_all("when the parent has gone");
	cow_check_counters(copied, "when the parent has gone");
	cow_world_stop();
	return NULL;
}

/* One thread writes while another gives up the whole table. */
static void *write_in_turn(void *arg)
{
	char *p = T(1) + (long)arg;
	int i;

	for (i = 0; i < 50; i++)
		__atomic_store_n(p, i, __ATOMIC_RELAXED);
	return NULL;
}

static long call_race_dontneed(const long *arg)
{
	pthread_t thread;
	long ret;

	errno = pthread_create(&thread, NULL, write_in_turn, (void *)(9 * PAGE));
	if (errno)
		return -1;
	ret = madvise(T(1), TABLE, MADV_DONTNEED);
	pthread_join(thread, NULL);
	/* What is left of it is of no interest */
	return ret || madvise(T(1), TABLE, MADV_DONTNEED);
}

#define RACES		40

static const char *run_race_dontneed(enum cow_mode mode, const void *arg)
{
	const char *why = cow_mem_start_big(mode, &two_tables, RACES + 1);
	unsigned int i;

	if (why)
		return why;
	for (i = 0; i < RACES; i++) {
		unsigned int child = cow_fork(0, COW_FORK);

		if (cow_call(child, call_race_dontneed, 0))
			cow_fail("round %u: %s", i, strerror(errno));
		cow_call(child, call_adopt, 0);
		cow_check_all("after the race");
		cow_check_counters(child, "after the race");
		cow_exit(child);
	}
	cow_world_stop();
	return NULL;
}

/* Statistics of either side count the page on both. */
static long pss_of(unsigned int proc)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", world->pid[proc]);
	return cow_read_field(path, "Pss_Anon");
}

static const char *run_look(enum cow_mode mode, const void *arg)
{
	unsigned int proc = *(const unsigned int *)arg, i;
	const char *why = start(mode, 2);
	long pss, settled;

	if (why)
		return why;
	borrow(mode, 1);
	settled = cow_vmstat("cow_pte_settle");
	/* Before anybody is looked at, then again */
	for (i = 0; i < 2; i++) {
		pss = pss_of(proc);
		cow_log("Pss_Anon", i, pss);
		if (mode == COW_ON && i == 0 && proc)
			must_count("cow_pte_settle", settled, 2);
		/* To look at who lends ends no loan */
		if (!proc && cow_vmstat("cow_pte_settle") != settled)
			cow_fail("to look at who lends has settled the loans");
	}
	cow_log("pagemap", 0, !(cow_pagemap(world->pid[proc], world->page[20]) &
				PM_EXCLUSIVE));
	cow_check_all_counters("after somebody looked");
	cow_check_all("after somebody looked");
	cow_exit(0);
	finish();
	return NULL;
}

/*
 * While one thread has its statistics read, another writes, so that a table which was
 * lending becomes one that borrows: what is resident stays so.
 */
static struct {
	pthread_t thread;
	bool stop;
	long least;
	long reads;
} watch;

static void *watch_rss(void *arg)
{
	while (!__atomic_load_n(&watch.stop, __ATOMIC_ACQUIRE)) {
		long kb = cow_smaps_field(T(0), "Rss");

		if (kb < watch.least)
			watch.least = kb;
		__atomic_fetch_add(&watch.reads, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static long call_write_and_watch(const long *arg)
{
	long before = cow_smaps_field(T(0), "Rss");
	int round, pipefd[2];
	pid_t pid;
	char c;

	watch.least = before;
	watch.stop = false;
	watch.reads = 0;
	if (pthread_create(&watch.thread, NULL, watch_rss, NULL))
		return -1;
	for (round = 0; round < 200 ||
	     __atomic_load_n(&watch.reads, __ATOMIC_RELAXED) < 50; round++) {
		if (pipe(pipefd))
			break;
		pid = fork();
		if (!pid) {
			/* until the parent has written */
			close(pipefd[1]);
			while (read(pipefd[0], &c, 1) > 0)
				;
			_exit(0);
		}
		close(pipefd[0]);
		if (pid > 0) {
			cow_try_write(world->page[3], round);
			cow_try_write(world->page[FIRST_OF_T1 + 3], round);
		}
		close(pipefd[1]);
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			break;
	}
	__atomic_store_n(&watch.stop, true, __ATOMIC_RELEASE);
	pthread_join(watch.thread, NULL);
	return watch.least < before ? before - watch.least : 0;
}

static const char *run_watched(enum cow_mode mode, const void *arg)
{
	const char *why = start(mode, 2);
	long lent = cow_vmstat("cow_pte_lend"), lost;

	if (why)
		return why;
	/* It forks by itself */
	cow_exit(1);
	lost = cow_call(0, call_write_and_watch, 0);
	if (lost)
		cow_fail("%ld kB were not seen for a while", lost);
	if (mode == COW_ON)
		must_count("cow_pte_lend", lent, 100);
	cow_world_stop();
	return NULL;
}

/* A reference that is taken through the lender, or the borrower */
static int splice_pipe[2];

static long call_vmsplice(const long *arg)
{
	struct iovec iov = { world->page[arg[0]], PAGE };

	return vmsplice(splice_pipe[1], &iov, 1, 0) == PAGE ? 0 : -1;
}

struct reference {
	unsigned int taker;	/* 0 borrows, 1 lends */
	bool before;		/* it borrows */
};

static const char *run_reference(enum cow_mode mode, const void *arg)
{
	const struct reference *ref = arg;
	const unsigned int page = 40;
	char buf[PAGE];
	const char *why;
	__u64 old;

	if (pipe(splice_pipe))
		return "no pipe";
	why = start(mode, 2);
	if (why)
		return why;
	old = world->model[0][page];
	if (ref->before && cow_call(ref->taker, call_vmsplice, page))
		cow_fail("vmsplice: %s", strerror(errno));
	borrow(mode, 0);
	if (!ref->before && cow_call(ref->taker, call_vmsplice, page))
		cow_fail("vmsplice: %s", strerror(errno));
	cow_exit(1);
	cow_check_all("after the child's exit");
	cow_poke(0, page);
	if (read(splice_pipe[0], buf, PAGE) != PAGE)
		cow_fail("read of the pipe: %s", strerror(errno));
	if (cow_peek(buf) != old)
		cow_fail("the pipe shows what was written after fork");
	close(splice_pipe[0]);
	close(splice_pipe[1]);
	finish();
	return NULL;
}

FIXTURE(loan) {
};

FIXTURE_SETUP(loan) {}
FIXTURE_TEARDOWN(loan) {}

TEST_F_TIMEOUT(loan, merge, 120)
{
	COW_REPORT(cow_run(run_merge, NULL));
}

TEST_F_TIMEOUT(loan, give_back, 120)
{
	COW_REPORT(cow_run(run_give_back, NULL));
}

TEST_F_TIMEOUT(loan, lender_writes, 120)
{
	COW_REPORT(cow_run(run_lender_writes, NULL));
}

TEST_F_TIMEOUT(loan, two_borrowers, 120)
{
	COW_REPORT(cow_run(run_two_borrowers, NULL));
}

TEST_F_TIMEOUT(loan, crowd_children_first, 240)
{
	bool from = true;

	COW_REPORT(cow_run(run_crowd, &from));
}

TEST_F_TIMEOUT(loan, crowd_parent_first, 240)
{
	bool from = false;

	COW_REPORT(cow_run(run_crowd, &from));
}

TEST_F_TIMEOUT(loan, fork_of_parent, 120)
{
	unsigned int proc = 0;

	COW_REPORT(cow_run(run_fork, &proc));
}

TEST_F_TIMEOUT(loan, fork_of_child, 120)
{
	unsigned int proc = 1;

	COW_REPORT(cow_run(run_fork, &proc));
}

TEST_F_TIMEOUT(loan, look_at_lender, 120)
{
	unsigned int proc = 0;

	COW_REPORT(cow_run_warm(run_look, &proc));
}

TEST_F_TIMEOUT(loan, look_at_borrower, 120)
{
	unsigned int proc = 1;

	COW_REPORT(cow_run_warm(run_look, &proc));
}

TEST_F_TIMEOUT(loan, watched_by_another_thread, 240)
{
	COW_REPORT(cow_run(run_watched, NULL));
}

TEST_F_TIMEOUT(loan, reference_of_borrower_before, 120)
{
	struct reference ref = { .taker = 0, .before = true };

	COW_REPORT(cow_run(run_reference, &ref));
}

TEST_F_TIMEOUT(loan, reference_of_borrower, 120)
{
	struct reference ref = { .taker = 0 };

	COW_REPORT(cow_run(run_reference, &ref));
}

TEST_F_TIMEOUT(loan, reference_of_lender_before, 120)
{
	struct reference ref = { .taker = 1, .before = true };

	COW_REPORT(cow_run(run_reference, &ref));
}

TEST_F_TIMEOUT(loan, reference_of_lender, 120)
{
	struct reference ref = { .taker = 1 };

	COW_REPORT(cow_run(run_reference, &ref));
}

FIXTURE(copying_fork) {
};

FIXTURE_VARIANT(copying_fork) {
	enum copying_fork how;
};

FIXTURE_SETUP(copying_fork) {}
FIXTURE_TEARDOWN(copying_fork) {}

FIXTURE_VARIANT_ADD(copying_fork, opted_out) { .how = BY_PRCTL };
FIXTURE_VARIANT_ADD(copying_fork, half_dontfork) { .how = HALF_DONTFORK };
FIXTURE_VARIANT_ADD(copying_fork, whole_dontfork) { .how = WHOLE_DONTFORK };
FIXTURE_VARIANT_ADD(copying_fork, shared_in_hole) { .how = SHARED_IN_HOLE };

TEST_F_TIMEOUT(copying_fork, copies, 120)
{
	COW_REPORT(cow_run(run_copying_fork, &variant->how));
}

TEST_F_TIMEOUT(loan, dontneed_races_with_fault, 240)
{
	COW_REPORT(cow_run(run_race_dontneed, NULL));
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
