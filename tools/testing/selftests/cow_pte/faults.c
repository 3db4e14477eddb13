// SPDX-License-Identifier: GPL-2.0
/*
 * Memory runs out in the middle of an operation.  Each operation is done again
 * and again by one of three processes that share their tables, first with its
 * first allocation failing, then with the second and so on, until none is left
 * to fail.  Either it succeeds all the same, or it reports an error and has
 * changed nothing: not for the process itself, beyond what an operation cut
 * short leaves behind after an ordinary fork, and nothing for the two others.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_ring.h"

#define RW	(PROT_READ | PROT_WRITE)
#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)
#define MOVE	(MREMAP_MAYMOVE | MREMAP_FIXED)

/* Newer than the oldest headers these tests build with */
#define FEATURE_WP_ASYNC	0x8000
#define FEATURE_MOVE		0x10000

struct move_arg {
	__u64 dst, src, len, mode;
	__s64 move;
};

#define IOC_MOVE	_IOWR(UFFDIO, 0x05, struct move_arg)

#define MPOL_BIND	2
#define MPOL_MF_MOVE	0x2

/*
 * The field, sparsely filled: T0 and T1 anonymous, T2 in four quarters:
 * anonymous, anonymous and read-only, private mapping of a file, unmapped.
 */
#define T(n)		(arena + (n) * TABLE)
#define QUARTER		(TABLE / 4)
#define Q(n)		(T(2) + (n) * QUARTER)
#define STEP		32
#define PAGE_OF(n)	(T(0) + (n) * STEP * PAGE)

#define MAX_NTH		400
#define NO_FAILURE	1000000	/* no operation has so many allocations */
#define MAX_KNOWN	128
#define MAX_ODD		16
#define REFERENCE_RUNS	3
#define TEXT_SIZE	16384

enum {
	/* Done to the actor by another, the last one */
	REMOTE		= 0x01,
	/* The kernel tries again until it succeeds */
	RETRIED		= 0x02,
	/* Only the contents can be foretold */
	CONTENTS_ONLY	= 0x04,
	/* What comes back from swap may do so for all sharers of a table */
	SWAPS_IN	= 0x08,
};

struct op {
	int (*prepare)(void);	/* in the first process, before it forks */
	int (*setup)(void);	/* who acts, before allocations fail */
	long (*run)(void);	/* -1 and errno on failure, else at least 0 */
	void (*finish)(void);
	unsigned int flags;
	unsigned int breaks;	/* at least so many tables */
	int err;		/* is another name for ENOMEM */
	/* Where pages may turn up that are not tracked */
	size_t look;
};

struct test_case {
	const struct op *op;
	unsigned int actor;
};

enum { PARENT, CHILD, SIBLING, MAX_PROCS };

enum what { BEGINS, FAILED, FAILED_WITH, FAILED_AGAIN, SUCCEEDED };

/* An outcome: a hash of the state as text, or an errno value */
struct outcome {
	enum what what;
	__u64 val;
};

/* One that the reference has not shown so far */
struct odd {
	struct outcome outcome;
	unsigned int nth;
	int err;
	char text[TEXT_SIZE];
};

/* Shared with the processes of the world, so that forking does not copy it */
struct board {
	struct cow_outcome outcome;
	pid_t target;
	unsigned int nr_seen;
	__u64 before[COW_MAX_PAGES];
	__u64 seen[COW_MAX_PAGES];
	/* Of the test process only */
	bool verify;
	unsigned int nr_known, nr_odd;
	struct outcome known[MAX_KNOWN];
	struct odd odd[MAX_ODD];
	char text_before[TEXT_SIZE];
	char text_after[TEXT_SIZE];
	char text[TEXT_SIZE];
	size_t len;
};

static struct board *board;
static int field_fd;

static int prepare_field(void)
{
	unsigned int first;
	char *file = Q(2);

	if (mmap(T(0), 2 * TABLE + 2 * QUARTER, RW, ANON | MAP_FIXED, -1,
		 0) != T(0))
		return -1;
	madvise(T(0), 2 * TABLE + 2 * QUARTER, MADV_NOHUGEPAGE);
	cow_track_range(T(0), 2 * TABLE + QUARTER, STEP);
	first = world->nr_pages;
	cow_track_range(Q(1), QUARTER, STEP);
	memset(&world->readonly[first], true, world->nr_pages - first);
	field_fd = cow_stamped_file(memfd_create("field", MFD_CLOEXEC), QUARTER);
	if (field_fd < 0 || mprotect(Q(1), QUARTER, PROT_READ) ||
	    mmap(file, QUARTER, RW, MAP_PRIVATE | MAP_FIXED, field_fd,
		 0) != file || munmap(Q(3), QUARTER))
		return -1;
	cow_track_range(file, QUARTER, STEP);
	cow_track(file + PAGE);
	return 0;
}

static long call_prepare(const long *arg)
{
	const struct op *op = (void *)arg[0];

	if (prepare_field() || (op->prepare && op->prepare()))
		return -1;
	cow_adopt();
	return 0;
}

static long call_setup(const long *arg)
{
	const struct op *op = (void *)arg[0];

	return op->setup();
}

static long just_run(const long *arg)
{
	const struct op *op = (void *)arg[0];

	return op->run();
}

/* Run the operation, with an allocation failing unless arg[1] is 0 */
static long call_run(const long *arg)
{
	if (arg[1]) {
		cow_with_failure(arg[1], just_run, arg, &board->outcome);
	} else {
		errno = 0;
		board->outcome.injected = false;
		board->outcome.ret = just_run(arg);
		board->outcome.err = errno;
	}
	return 0;
}

static long call_finish(const long *arg)
{
	const struct op *op = (void *)arg[0];

	op->finish();
	return 0;
}

static long call_look(const long *arg)
{
	unsigned int i, nr = world->nr_pages;
	const struct op *op = (void *)arg[0];

	for (i = 0; i < nr; i++)
		board->seen[i] = cow_peek(world->page[i]);
	for (i = 0; op->look && i < TABLE_PAGES / STEP; i++)
		board->seen[nr++] = cow_peek(arena + op->look +
					     i * STEP * PAGE);
	board->nr_seen = nr;
	return 0;
}

/*
 * The state of a process as text: what its mappings look like, and every page
 * that does not hold what it did, by the page whose content it has now.
 */

static void __printf(1, 2) say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	board->len += vsnprintf(board->text + board->len,
				TEXT_SIZE - board->len, fmt, ap);
	va_end(ap);
	if (board->len >= TEXT_SIZE)
		cow_fail("the text of a state gets too long");
}

static bool wanted_field(const char *line, bool details)
{
	static const char * const field[] = {
		"Rss:", "Anonymous:", "Swap:",
	};
	size_t i;

	for (i = 0; details && i < ARRAY_LEN(field); i++)
		if (!strncmp(line, field[i], strlen(field[i])))
			return true;
	return !strncmp(line, "VmFlags:", 8);
}

/*
 * How much of the files outside of the arena is mapped is up to the cache.
 * Returns the pages that all mappings have.
 */
static long say_mappings(unsigned int proc)
{
	unsigned long start, end, offset;
	char line[256], perms[8];
	bool details = false;
	long kb, rss = 0;
	FILE *f;

	f = cow_open_proc(world->pid[proc], "smaps");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %7s %lx", &start, &end, perms,
			   &offset) == 4) {
			details = strstr(line, "[heap]") ||
				  ((char *)start >= arena &&
				   (char *)end <= arena + ARENA_TABLES * TABLE);
			/* Grows when it likes to */
			if (strstr(line, "[stack]"))
				say("stack %s\n", perms);
			else
				say("%lx-%lx %s %lx\n", start, end, perms,
				    offset);
		} else if (wanted_field(line, details)) {
			say("%s", line);
		}
		if (sscanf(line, "Rss: %ld kB", &kb) == 1)
			rss += kb * 1024 / PAGE;
	}
	fclose(f);
	return rss;
}

static void say_contents(const struct op *op)
{
	unsigned int i, j, nr = world->nr_pages;

	for (i = 0; i < board->nr_seen; i++) {
		__u64 val = board->seen[i];
		char *addr = i < nr ? world->page[i] :
			     arena + op->look + (i - nr) * STEP * PAGE;

		if (i < nr && val == board->before[i])
			continue;
		for (j = 0; j < nr && board->before[j] != val; j++)
			;
		if (j < nr && val && val < COW_BUS)
			say("%p holds page %u\n", addr, j);
		else
			say("%p holds %#llx\n", addr, val);
	}
}

struct rss {
	long resident, shared, swap;
};

static void read_rss(unsigned int proc, struct rss *rss)
{
	char path[64], line[128];

	snprintf(path, sizeof(path), "/proc/%d/statm", world->pid[proc]);
	if (cow_read_file(path, line, sizeof(line)) <= 0 ||
	    sscanf(line, "%*d %ld %ld", &rss->resident, &rss->shared) != 2)
		cow_fail("%s: %s", path, strerror(errno));
	rss->swap = cow_status(world->pid[proc], "VmSwap") * 1024 /
		    (long)PAGE;
}

static __u64 take_state(unsigned int proc, const struct op *op)
{
	__u64 hash = 0xcbf29ce484222325ULL;
	struct rss rss;
	long mapped;
	size_t i;

	board->len = 0;
	board->text[0] = '\0';
	mapped = say_mappings(proc);
	read_rss(proc, &rss);
	if (rss.resident != mapped)
		cow_fail("%ld pages are mapped, and %ld counted", mapped,
			 rss.resident);
	if (op->flags & CONTENTS_ONLY)
		board->len = 0;
	cow_call(proc, call_look, (long)op);
	say_contents(op);
	for (i = 0; i < board->len; i++)
		hash = (hash ^ (unsigned char)board->text[i]) *
		       0x100000001b3ULL;
	return hash;
}

/* Lines of the one text that are not in the other */
static void show_missing(const char *sign, const char *text, const char *in)
{
	char *copy = strdup(text), *save, *line;
	unsigned int shown = 0;

	line = strtok_r(copy, "\n", &save);
	for (; line; line = strtok_r(NULL, "\n", &save))
		if (!strstr(in, line) && shown++ < 12)
			ksft_print_msg("%s %s\n", sign, line);
	free(copy);
}

static void show_difference(const char *from, const char *to)
{
	show_missing("-", from, to);
	show_missing("+", to, from);
}

static bool same_outcome(const struct outcome *a, const struct outcome *b)
{
	return a->what == b->what && a->val == b->val;
}

static bool known(const struct outcome *outcome)
{
	unsigned int i;

	for (i = 0; i < board->nr_known; i++)
		if (same_outcome(&board->known[i], outcome))
			return true;
	return false;
}

static bool all_known(void)
{
	unsigned int i;

	for (i = 0; i < board->nr_odd; i++)
		if (!known(&board->odd[i].outcome))
			return false;
	return true;
}

/*
 * Learn an outcome in the reference.  One that it has not shown is put aside
 * otherwise: see check_odd().
 */
static void note(enum what what, __u64 val, unsigned int nth, int err)
{
	struct outcome outcome = { .what = what, .val = val };
	struct odd *odd;
	unsigned int i;

	if (known(&outcome))
		return;
	if (!board->verify) {
		if (board->nr_known == MAX_KNOWN)
			cow_fail("too many different outcomes");
		board->known[board->nr_known++] = outcome;
		return;
	}
	for (i = 0; i < board->nr_odd; i++)
		if (same_outcome(&board->odd[i].outcome, &outcome))
			return;
	if (board->nr_odd == MAX_ODD)
		cow_fail("too many different outcomes");
	odd = &board->odd[board->nr_odd++];
	odd->outcome = outcome;
	odd->nth = nth;
	odd->err = err;
	memcpy(odd->text, board->text, TEXT_SIZE);
}

/* Fail the test for an outcome that the reference never has */
static void check_odd(const struct odd *odd)
{
	if (known(&odd->outcome))
		return;
	switch (odd->outcome.what) {
	case BEGINS:
		show_difference(board->text_before, odd->text);
		cow_fail("it begins in another state");
	case FAILED_WITH:
		cow_fail("allocation %u: %s", odd->nth, strerror(odd->err));
	case FAILED_AGAIN:
		cow_fail("allocation %u failed, and without that: %s",
			 odd->nth, strerror(odd->err));
	case FAILED:
		show_difference(board->text_before, odd->text);
		cow_fail("allocation %u: %s, but something changed", odd->nth,
			 strerror(odd->err));
	case SUCCEEDED:
		show_difference(board->text_after, odd->text);
		cow_fail("allocation %u, %s: the result is another one",
			 odd->nth, odd->err ? "tried again" : "success");
	}
}

static void start_world(enum cow_mode mode, const struct test_case *tc)
{
	static const struct cow_mem field = { .tables = 3 };

	cow_world_start_big(mode, MAX_PROCS);
	if (cow_call(0, call_prepare, (long)tc->op)) {
		if (!world->skip[0])
			cow_fail("preparation failed: %s", strerror(errno));
		return;
	}
	cow_fork(PARENT, COW_FORK);
	/* A parent that acts cannot be replaced: fork less, for each time */
	if (tc->actor != PARENT)
		cow_fork(PARENT, COW_FORK);
	cow_must_share(mode, &field);
	cow_check_all("after fork");
}

static void check_others(const struct test_case *tc, const struct rss *before,
			 unsigned int nth)
{
	unsigned int i, flags = tc->op->flags;
	struct rss diff;

	for (i = 0; i < world->nr_procs; i++) {
		if (i == tc->actor)
			continue;
		read_rss(i, &diff);
		diff.resident -= before[i].resident;
		diff.shared -= before[i].shared;
		diff.swap -= before[i].swap;
		/* Who does it to another runs code of the C library for that */
		if (flags & REMOTE) {
			diff.resident -= diff.shared;
			diff.shared = 0;
		}
		if (flags & SWAPS_IN) {
			diff.resident += diff.swap;
			diff.swap = 0;
		}
		if (diff.resident || diff.shared || diff.swap)
			cow_fail("allocation %u: process %u: pages %+ld, shared %+ld, swap %+ld",
				 nth, i, diff.resident, diff.shared,
				 diff.swap);
		cow_check(i, "after a failed allocation");
	}
}

/* One of the actor's calls, by whomever */
static long act(const struct test_case *tc, cow_fn fn, unsigned int nth)
{
	bool remote = tc->op->flags & REMOTE;

	board->target = world->pid[tc->actor];
	return cow_call(remote ? world->nr_procs - 1 : tc->actor, fn,
			(long)tc->op, nth);
}

struct tally {
	unsigned int injected;
	unsigned int failed;
	unsigned int torn;
	__u64 before;		/* the state to begin with */
};

/* Returns whether there was an nth allocation */
static bool run_nth(const struct test_case *tc, unsigned int nth,
		    struct tally *tally)
{
	const struct op *op = tc->op;
	struct cow_outcome first;
	struct rss others[MAX_PROCS];
	__u64 after;
	long breaks;
	unsigned int i;

	if (op->setup && act(tc, call_setup, 0)) {
		if (!world->skip[0])
			cow_fail("set-up failed: %s", strerror(errno));
		return false;
	}
	cow_call(tc->actor, call_look, (long)op);
	memcpy(board->before, board->seen, sizeof(board->before));
	if (!tally->before) {
		tally->before = take_state(tc->actor, op);
		note(BEGINS, tally->before, nth, 0);
		if (!board->verify)
			memcpy(board->text_before, board->text, TEXT_SIZE);
	}
	for (i = 0; i < world->nr_procs; i++)
		read_rss(i, &others[i]);

	breaks = cow_vmstat("cow_pte_break");
	act(tc, call_run, nth);
	breaks = cow_vmstat("cow_pte_break") - breaks;
	first = board->outcome;
	check_others(tc, others, nth);
	tally->injected += first.injected;
	after = take_state(tc->actor, op);

	if (first.ret < 0) {
		tally->failed++;
		tally->torn += after != tally->before;
		if (!first.injected)
			cow_fail("it fails without a failed allocation: %s",
				 strerror(first.err));
		/* EFAULT: copies from and to user memory fail as well */
		if (first.err != ENOMEM && first.err != EAGAIN &&
		    first.err != EFAULT && first.err != op->err)
			note(FAILED_WITH, first.err, nth, first.err);
		if (after != tally->before)
			note(FAILED, after, nth, first.err);

		act(tc, call_run, 0);
		if (board->outcome.ret < 0)
			note(FAILED_AGAIN, board->outcome.err, nth,
			     board->outcome.err);
		check_others(tc, others, nth);
		after = take_state(tc->actor, op);
	} else if (!first.injected && board->verify && !cow_available() &&
		   breaks < (long)op->breaks) {
		cow_fail("%ld tables were copied, expected %u", breaks,
			 op->breaks);
	}
	if (!first.injected && !board->verify)
		memcpy(board->text_after, board->text, TEXT_SIZE);
	note(SUCCEEDED, after, nth, first.ret < 0 ? first.err : 0);
	if (op->finish)
		act(tc, call_finish, 0);
	return first.injected;
}

/*
 * Go through all allocations from the first-th on.  Returns why that cannot be
 * done here, or NULL.
 */
static const char *run_all(enum cow_mode mode, const struct test_case *tc,
			   enum cow_faults faults, unsigned int first)
{
	struct tally tally = { };
	bool more = true, again = false, started = false;
	unsigned int nth, i, failed;
	const char *why;

	why = cow_faults_start(faults);
	if (why)
		return why;
	for (nth = first; more; nth++) {
		if (nth >= first + MAX_NTH)
			cow_fail("there is no end to the allocations");
		if (!started || tc->actor == PARENT)
			start_world(mode, tc);
		else
			cow_fork_again(CHILD);
		started = true;
		failed = tally.failed;
		if (!world->skip[0])
			more = run_nth(tc, nth, &tally);
		/*
		 * Once more if the operation succeeded nevertheless.  What
		 * failed may have been a page for a slab, which others have
		 * filled since, or a copy of a table of who does it to another
		 * and is the same process each time: the next time it takes
		 * one allocation less, and the one after it would be left out.
		 */
		again = more && !again && failed == tally.failed &&
			(tc->op->flags & REMOTE || !board->verify);
		nth -= again;
		if (world->skip[0]) {
			cow_world_stop();
			return world->skip;
		}
		/* Nobody has a hold on what is another's */
		for (i = 0; i < world->nr_procs && !more; i++)
			if (i != tc->actor)
				cow_poke_all(i);
		for (i = 0; i < world->nr_procs && !more; i++)
			if (i != tc->actor)
				cow_check(i, "after writes");
		if (!more || tc->actor == PARENT)
			cow_world_stop();
		else
			cow_exit(CHILD);
	}
	ksft_print_msg("%s: %u failed, %u times the operation, %u times half done\n",
		       faults == COW_FAULTS_ALL ? "allocations" : "tables",
		       tally.injected, tally.failed, tally.torn);
	if (board->verify && !cow_available() && tc->op->breaks) {
		if (!tally.injected)
			cow_fail("no allocation failed");
		if (!tally.failed && !(tc->op->flags & RETRIED))
			cow_fail("the operation never failed");
	}
	return NULL;
}

/*
 * First without the feature and without failures, then with both.  What an
 * ordinary fork leads to when allocations fail is only asked if there is need:
 * many an operation never leaves anything half done.
 */
static const char *run_op(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	const char *why;
	unsigned int i;

	if (!board->verify) {
		why = run_all(mode, tc, COW_FAULTS_ALL, NO_FAILURE);
		board->verify = true;
		return why;
	}
	why = run_all(mode, tc, COW_FAULTS_ALL, 1);
	if (!why)
		why = run_all(mode, tc, COW_FAULTS_TABLES, 1);
	if (!why && board->nr_odd) {
		board->verify = false;
		cow_set_system_mode(COW_OFF);
		/* How many pages the slabs take is another number each time */
		for (i = 0; i < REFERENCE_RUNS && !all_known(); i++)
			why = run_all(COW_OFF, tc, COW_FAULTS_ALL, 1);
		for (i = 0; i < board->nr_odd; i++)
			check_odd(&board->odd[i]);
	}
	return why;
}

/* mprotect */

static long op_mprotect_page(void)
{
	return mprotect(PAGE_OF(2), PAGE, PROT_READ);
}

static long op_mprotect_none_table(void)
{
	return mprotect(T(0), TABLE, PROT_NONE);
}

static long op_mprotect_spanning(void)
{
	return mprotect(T(0) + TABLE / 2, 2 * TABLE, PROT_READ);
}

static int pkey;

static int setup_pkey(void)
{
	pkey = syscall(SYS_pkey_alloc, 0, 0);
	return pkey < 0 ? cow_skip("no protection keys: %s", strerror(errno)) :
			  0;
}

static long op_pkey_mprotect(void)
{
	return syscall(SYS_pkey_mprotect, T(0), TABLE, PROT_READ, pkey);
}

/* munmap, mmap, brk */

static long op_munmap_first_page(void)
{
	return munmap(T(0), PAGE);
}

static long op_munmap_middle(void)
{
	return munmap(PAGE_OF(2), 100 * PAGE);
}

static long op_munmap_spanning(void)
{
	return munmap(T(0) + TABLE / 2, 2 * TABLE);
}

static long op_munmap_table(void)
{
	return munmap(T(0), TABLE);
}

static long map_over(char *addr, size_t len, int flags, int fd)
{
	return mmap(addr, len, RW, flags | MAP_FIXED, fd, 0) == addr ? 0 : -1;
}

static long op_map_fixed_page(void)
{
	return map_over(PAGE_OF(2), PAGE, ANON, -1);
}

static long op_map_fixed_file(void)
{
	return map_over(T(1) + QUARTER, QUARTER, MAP_PRIVATE, field_fd);
}

static char *heap;

static int prepare_brk(void)
{
	heap = (char *)(((uintptr_t)sbrk(0) + TABLE - 1) & -TABLE);
	if (brk(heap + TABLE))
		return -1;
	madvise(heap, TABLE, MADV_NOHUGEPAGE);
	cow_track_range(heap, TABLE, STEP);
	return 0;
}

static long op_brk_shrink(void)
{
	/* Not brk(): that does not look whether memory could be given back */
	if (syscall(SYS_brk, heap + TABLE / 2) == (long)(heap + TABLE / 2))
		return 0;
	errno = ENOMEM;
	return -1;
}

/* mremap */

static long move(char *from, size_t len, size_t new_len, int flags, char *to)
{
	return mremap(from, len, new_len, flags, to) == MAP_FAILED ? -1 : 0;
}

static long op_mremap_move(void)
{
	return move(T(0), TABLE, TABLE, MOVE, T(3));
}

static long op_mremap_page_into_table(void)
{
	return move(PAGE_OF(2), PAGE, PAGE, MOVE, Q(3));
}

static long op_mremap_over_table(void)
{
	return move(PAGE_OF(2), 32 * PAGE, 32 * PAGE, MOVE, T(1) + 64 * PAGE);
}

static long op_mremap_grow(void)
{
	return move(Q(2), QUARTER, QUARTER + 16 * PAGE, 0, NULL);
}

static long op_mremap_grow_move(void)
{
	return move(T(1) + PAGE, TABLE / 2, TABLE, MOVE, T(3) + PAGE);
}

static long op_mremap_shrink(void)
{
	return move(T(1), TABLE, TABLE / 2, 0, NULL);
}

static long op_mremap_dontunmap(void)
{
	return move(T(0), TABLE, TABLE, MOVE | MREMAP_DONTUNMAP, T(3));
}

/* The old interface: a page of a shared mapping for another */
static int setup_remap_file_pages(void)
{
	return mmap(Q(3), QUARTER, RW, MAP_SHARED | MAP_FIXED, field_fd,
		    0) == Q(3) ? 0 : -1;
}

static long op_remap_file_pages(void)
{
	return syscall(SYS_remap_file_pages, Q(3) + PAGE, PAGE, 0, 5, 0);
}

/* mlock */

static long op_mlock_part(void)
{
	return mlock(PAGE_OF(1), 4 * PAGE);
}

static long op_mlock_onfault(void)
{
	return mlock2(T(0), TABLE + TABLE / 2, MLOCK_ONFAULT);
}

static long op_mlockall(void)
{
	return mlockall(MCL_CURRENT | MCL_ONFAULT);
}

static int setup_munlock(void)
{
	/* What is locked is not shared: it has to be locked after fork */
	return mlock2(T(0), TABLE, MLOCK_ONFAULT);
}

static long op_munlock(void)
{
	return munlock(PAGE_OF(2), 100 * PAGE);
}

/* NUMA */

static long op_mbind_move(void)
{
	unsigned long mask = 1;

	return syscall(SYS_mbind, PAGE_OF(1), 8 * PAGE, MPOL_BIND, &mask, 64,
		       MPOL_MF_MOVE);
}

static long op_migrate_pages(void)
{
	unsigned long from = 1, to = access("/sys/devices/system/node/node1",
					    F_OK) ? 1 : 2;

	return syscall(SYS_migrate_pages, 0, 64, &from, &to);
}

/* userfaultfd */

static int uffd;

static int open_uffd(__u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		return cow_skip("userfaultfd features %#llx: %s",
				features, strerror(errno));
	return 0;
}

static long uffd_register(void *addr, __u64 mode)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)addr, TABLE },
		.mode = mode,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg);
}

/* Nobody would serve its faults */
static void close_uffd(void)
{
	close(uffd);
}

static int setup_uffd(void)
{
	return open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
}

static int setup_uffd_missing(void)
{
	return open_uffd(0) ? -1 :
	       uffd_register(T(1), UFFDIO_REGISTER_MODE_MISSING);
}

static int setup_uffd_wp(void)
{
	return setup_uffd() ? -1 :
	       uffd_register(T(0), UFFDIO_REGISTER_MODE_WP);
}

static int setup_uffd_move(void)
{
	if (open_uffd(FEATURE_MOVE) ||
	    uffd_register(T(1), UFFDIO_REGISTER_MODE_MISSING))
		return -1;
	/* Only what nobody else has can be moved */
	return cow_try_write(PAGE_OF(0), 0);
}

static long op_uffd_register(void)
{
	return uffd_register(T(0), UFFDIO_REGISTER_MODE_WP);
}

static long op_uffd_wp(void)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)T(0), TABLE },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
}

static long op_uffd_copy(void)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)T(1) + PAGE,
		.src = (uintptr_t)PAGE_OF(1),
		.len = PAGE,
	};

	return ioctl(uffd, UFFDIO_COPY, &copy);
}

static long op_uffd_zeropage(void)
{
	struct uffdio_zeropage zero = {
		.range = { (uintptr_t)T(1) + PAGE, PAGE },
	};

	return ioctl(uffd, UFFDIO_ZEROPAGE, &zero);
}

static long op_uffd_move(void)
{
	struct move_arg arg = {
		.dst = (uintptr_t)T(1) + PAGE,
		.src = (uintptr_t)PAGE_OF(0),
		.len = PAGE,
	};

	return ioctl(uffd, IOC_MOVE, &arg);
}

/* What is written is told from what was there before */

static int proc_fd;

static int open_proc(const char *path, int flags)
{
	proc_fd = open(path, flags | O_CLOEXEC);
	return proc_fd < 0 ? cow_skip("%s: %s", path, strerror(errno)) : 0;
}

static void close_proc(void)
{
	close(proc_fd);
}

static int setup_pagemap_scan(void)
{
	if (open_uffd(FEATURE_WP_ASYNC) ||
	    open_proc("/proc/self/pagemap", O_RDONLY))
		return -1;
	return uffd_register(T(0), UFFDIO_REGISTER_MODE_WP);
}

static long op_pagemap_scan(void)
{
	struct scan_arg scan = {
		.size = sizeof(scan),
		.flags = SCAN_WP_MATCHING,
		.start = (uintptr_t)T(0),
		.end = (uintptr_t)T(1),
		.category_mask = SCAN_IS_WRITTEN,
	};

	return ioctl(proc_fd, IOC_SCAN, &scan);
}

static void finish_pagemap_scan(void)
{
	close_proc();
	close_uffd();
}

static int setup_clear_refs(void)
{
	return open_proc("/proc/self/clear_refs", O_WRONLY);
}

static long op_clear_refs(void)
{
	return pwrite(proc_fd, "4", 1, 0) == 1 ? 0 : -1;
}

/* madvise */

static long op_madvise_dontneed_part(void)
{
	return madvise(PAGE_OF(2), TABLE, MADV_DONTNEED);
}

static long op_madvise_free(void)
{
	return madvise(PAGE_OF(2), TABLE, MADV_FREE);
}

static long op_madvise_populate_write(void)
{
	return madvise(T(1) - 2 * PAGE, 4 * PAGE, MADV_POPULATE_WRITE);
}

static long op_madvise_populate_read(void)
{
	return madvise(T(1) - 2 * PAGE, 4 * PAGE, MADV_POPULATE_READ);
}

static long op_madvise_mergeable(void)
{
	return madvise(PAGE_OF(2), 8 * PAGE, MADV_MERGEABLE);
}

static long op_madvise_unmergeable(void)
{
	return madvise(T(0), TABLE, MADV_UNMERGEABLE);
}

static long op_madvise_dontfork(void)
{
	return madvise(PAGE_OF(2), 8 * PAGE, MADV_DONTFORK);
}

static long op_madvise_hugepage(void)
{
	return madvise(T(0), TABLE, MADV_HUGEPAGE);
}

/* For MADV_COLLAPSE only: khugepaged must not do it in between */
static int want_huge(void)
{
	cow_write_file("/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none",
		       "0");
	return madvise(T(0), TABLE, MADV_HUGEPAGE) ?
	       cow_skip("no transparent huge pages") : 0;
}

static int want_huge_and_write(void)
{
	return want_huge() || cow_try_write(PAGE_OF(0), 0);
}

/* After any fork, what has not been written since is not worth it: EINVAL */
static long op_madvise_collapse(void)
{
	return madvise(T(0), TABLE, MADV_COLLAPSE) && errno != EINVAL ? -1 : 0;
}

static long op_process_madvise(void)
{
	struct iovec iov = { T(0), TABLE };

	return syscall(SYS_process_madvise, proc_fd, &iov, 1, MADV_COLLAPSE,
		       0) < 0 && errno != EINVAL ? -1 : 0;
}

static int setup_process_madvise(void)
{
	proc_fd = syscall(SYS_pidfd_open, board->target, 0);
	return proc_fd < 0 ? -1 : 0;
}

/* Written by others, or for us: a page whose content is that of another */

static alignas(PAGE) char buf[PAGE];

/* The memory must not be needed for the first time when allocations fail */
static void fill_buf(void)
{
	memcpy(buf, PAGE_OF(1), PAGE);
}

static int setup_mem_write(void)
{
	fill_buf();
	return open_proc("/proc/self/mem", O_RDWR);
}

static long op_mem_write(void)
{
	return pwrite(proc_fd, buf, PAGE, (uintptr_t)PAGE_OF(2)) == PAGE ? 0 :
	       -1;
}

static int setup_vm_writev(void)
{
	fill_buf();
	return 0;
}

static long op_vm_writev(void)
{
	struct iovec local = { buf, PAGE }, remote = { PAGE_OF(2), PAGE };

	return process_vm_writev(board->target, &local, 1, &remote, 1,
				 0) == PAGE ? 0 : -1;
}

/* All of it at once: a stopped process could not say what it sees */
static long op_ptrace_poke(void)
{
	pid_t pid = board->target;
	long ret;
	int err;

	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL))
		return -1;
	ret = ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
	if (!ret && waitpid(pid, NULL, __WALL) == pid)
		ret = ptrace(PTRACE_POKEDATA, pid, PAGE_OF(2) + COW_SLOT_BYTES,
			     1L);
	err = errno;
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
	errno = err;
	return ret;
}

static int pipe_fd[2];

static int setup_pipe(void)
{
	char c = 0;

	fill_buf();
	/* As its pages are allocated when they are first used */
	return pipe(pipe_fd) || write(pipe_fd[1], &c, 1) != 1 ||
	       read(pipe_fd[0], &c, 1) != 1;
}

static void close_pipe(void)
{
	close(pipe_fd[0]);
	close(pipe_fd[1]);
}

static long op_vmsplice(void)
{
	struct iovec iov = { PAGE_OF(2), PAGE };

	return vmsplice(pipe_fd[1], &iov, 1, SPLICE_F_NONBLOCK) == PAGE ? 0 :
	       -1;
}

/* The other way round it is a copy, from the page of a pipe */
static int setup_vmsplice_in(void)
{
	return setup_pipe() || write(pipe_fd[1], buf, PAGE) != PAGE;
}

static long op_vmsplice_in(void)
{
	struct iovec iov = { PAGE_OF(2), PAGE };

	return vmsplice(pipe_fd[0], &iov, 1, SPLICE_F_NONBLOCK) == PAGE ? 0 :
	       -1;
}

static long op_write_from(void)
{
	return write(pipe_fd[1], PAGE_OF(2), PAGE) == PAGE ? 0 : -1;
}

static long op_read_into(void)
{
	return pread(field_fd, PAGE_OF(2), PAGE, PAGE) == PAGE ? 0 : -1;
}

/* A device, so that the memory itself is what is read into */
static int setup_direct(void)
{
	proc_fd = cow_direct_device(TABLE);
	if (proc_fd < 0)
		return cow_skip("no loop device: %s", strerror(errno));
	fill_buf();
	return pwrite(proc_fd, buf, PAGE, 0) != PAGE;
}

static long op_direct_read(void)
{
	return pread(proc_fd, PAGE_OF(2), PAGE, 0) == PAGE ? 0 : -1;
}

static long op_uring_register(void)
{
	return cow_ring_pin(PAGE_OF(2));
}

/* Faults of user mode: tried again, for ever */

static long store(char *addr)
{
	__atomic_store_n((__u64 *)addr, 1, __ATOMIC_RELAXED);
	return 0;
}

static long load(char *addr)
{
	return __atomic_load_n((unsigned char *)addr, __ATOMIC_RELAXED);
}

static long op_store(void)
{
	return store(PAGE_OF(2) + COW_SLOT_BYTES);
}

static long op_store_to_hole(void)
{
	return store(PAGE_OF(2) + PAGE);
}

static long op_load_from_hole(void)
{
	return load(PAGE_OF(2) + PAGE);
}

/* A page beside a tracked one: looking at those must not bring it back */
static int prepare_swapped(void)
{
	char *page = PAGE_OF(2) + PAGE;

	if (cow_read_field("/proc/meminfo", "SwapFree") < 16 * 1024)
		return cow_skip("needs 16 MiB of swap");
	cow_stamp(page, cow_next_stamp(cow_self, 0));
	if (madvise(page, PAGE, MADV_PAGEOUT))
		return -1;
	return cow_pagemap(getpid(), page) & PM_SWAP ? 0 :
	       cow_skip("the page was not swapped out");
}

static long op_load_swapped(void)
{
	return load(PAGE_OF(2) + PAGE);
}

static long op_store_to_swapped(void)
{
	return store(PAGE_OF(2) + PAGE);
}

FIXTURE(op) {
};

FIXTURE_VARIANT(op) {
	struct op op;
};

FIXTURE_SETUP(op)
{
	board = mmap(NULL, sizeof(*board), RW, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	ASSERT_NE(MAP_FAILED, board);
}

FIXTURE_TEARDOWN(op) {}

#define OP(name, nr)	.op.run = op_##name, .op.breaks = (nr)

FIXTURE_VARIANT_ADD(op, mprotect_page) { OP(mprotect_page, 1) };
FIXTURE_VARIANT_ADD(op, mprotect_none_table) { OP(mprotect_none_table, 1) };
FIXTURE_VARIANT_ADD(op, mprotect_spanning) { OP(mprotect_spanning, 3) };
FIXTURE_VARIANT_ADD(op, munmap_first_page) { OP(munmap_first_page, 1) };
FIXTURE_VARIANT_ADD(op, munmap_middle) { OP(munmap_middle, 1) };
FIXTURE_VARIANT_ADD(op, munmap_spanning) { OP(munmap_spanning, 2) };
FIXTURE_VARIANT_ADD(op, munmap_table) { OP(munmap_table, 0) };
FIXTURE_VARIANT_ADD(op, map_fixed_page) { OP(map_fixed_page, 1) };
FIXTURE_VARIANT_ADD(op, map_fixed_file) { OP(map_fixed_file, 1) };

FIXTURE_VARIANT_ADD(op, mremap_page_into_table) {
	OP(mremap_page_into_table, 2)
};

FIXTURE_VARIANT_ADD(op, mremap_over_table) { OP(mremap_over_table, 2) };
FIXTURE_VARIANT_ADD(op, mremap_grow) { OP(mremap_grow, 0) };
FIXTURE_VARIANT_ADD(op, mremap_shrink) { OP(mremap_shrink, 1) };
FIXTURE_VARIANT_ADD(op, mlock_part) { OP(mlock_part, 1) };
FIXTURE_VARIANT_ADD(op, mlock_onfault) { OP(mlock_onfault, 2) };
FIXTURE_VARIANT_ADD(op, mlockall) { OP(mlockall, 3) };
FIXTURE_VARIANT_ADD(op, mbind_move) { OP(mbind_move, 0) };
FIXTURE_VARIANT_ADD(op, migrate_pages) { OP(migrate_pages, 0) };
FIXTURE_VARIANT_ADD(op, madvise_dontneed_part) { OP(madvise_dontneed_part, 2) };
FIXTURE_VARIANT_ADD(op, madvise_free) { OP(madvise_free, 2) };

FIXTURE_VARIANT_ADD(op, madvise_populate_write) {
	OP(madvise_populate_write, 2)
};

FIXTURE_VARIANT_ADD(op, madvise_populate_read) { OP(madvise_populate_read, 2) };
FIXTURE_VARIANT_ADD(op, madvise_mergeable) { OP(madvise_mergeable, 0) };
FIXTURE_VARIANT_ADD(op, madvise_unmergeable) { OP(madvise_unmergeable, 0) };
FIXTURE_VARIANT_ADD(op, madvise_dontfork) { OP(madvise_dontfork, 0) };
FIXTURE_VARIANT_ADD(op, madvise_hugepage) { OP(madvise_hugepage, 0) };
FIXTURE_VARIANT_ADD(op, read_into) { OP(read_into, 1) };

FIXTURE_VARIANT_ADD(op, mremap_move) {
	OP(mremap_move, 1),
	.op.look = 3 * TABLE,
};

FIXTURE_VARIANT_ADD(op, mremap_grow_move) {
	OP(mremap_grow_move, 1),
	.op.look = 3 * TABLE + PAGE,
};

FIXTURE_VARIANT_ADD(op, mremap_dontunmap) {
	OP(mremap_dontunmap, 1),
	.op.look = 3 * TABLE,
};

FIXTURE_VARIANT_ADD(op, pkey_mprotect) {
	OP(pkey_mprotect, 1),
	.op.setup = setup_pkey,
};

FIXTURE_VARIANT_ADD(op, brk_shrink) {
	OP(brk_shrink, 1),
	.op.prepare = prepare_brk,
};

FIXTURE_VARIANT_ADD(op, remap_file_pages) {
	OP(remap_file_pages, 1),
	.op.setup = setup_remap_file_pages,
};

FIXTURE_VARIANT_ADD(op, munlock) {
	OP(munlock, 0),
	.op.setup = setup_munlock,
};

FIXTURE_VARIANT_ADD(op, uffd_register) {
	OP(uffd_register, 1),
	.op.setup = setup_uffd,
	.op.finish = close_uffd,
};

FIXTURE_VARIANT_ADD(op, uffd_wp) {
	OP(uffd_wp, 0),
	.op.setup = setup_uffd_wp,
	.op.finish = close_uffd,
};

FIXTURE_VARIANT_ADD(op, uffd_copy) {
	OP(uffd_copy, 0),
	.op.setup = setup_uffd_missing,
	.op.finish = close_uffd,
};

FIXTURE_VARIANT_ADD(op, uffd_zeropage) {
	OP(uffd_zeropage, 0),
	.op.setup = setup_uffd_missing,
	.op.finish = close_uffd,
};

FIXTURE_VARIANT_ADD(op, uffd_move) {
	OP(uffd_move, 0),
	.op.setup = setup_uffd_move,
	.op.finish = close_uffd,
};

FIXTURE_VARIANT_ADD(op, pagemap_scan) {
	OP(pagemap_scan, 0),
	.op.setup = setup_pagemap_scan,
	.op.finish = finish_pagemap_scan,
};

FIXTURE_VARIANT_ADD(op, clear_refs) {
	OP(clear_refs, 3),
	.op.setup = setup_clear_refs,
	.op.finish = close_proc,
};

FIXTURE_VARIANT_ADD(op, madvise_collapse_written) {
	OP(madvise_collapse, 0),
	.op.setup = want_huge_and_write,
	.op.flags = CONTENTS_ONLY,
};

FIXTURE_VARIANT_ADD(op, madvise_collapse) {
	OP(madvise_collapse, 1),
	.op.setup = want_huge,
	.op.flags = CONTENTS_ONLY,
};

FIXTURE_VARIANT_ADD(op, process_madvise) {
	OP(process_madvise, 1),
	.op.prepare = want_huge,
	.op.setup = setup_process_madvise,
	.op.finish = close_proc,
	.op.flags = REMOTE | CONTENTS_ONLY,
};

FIXTURE_VARIANT_ADD(op, mem_write) {
	OP(mem_write, 1),
	.op.setup = setup_mem_write,
	.op.finish = close_proc,
};

FIXTURE_VARIANT_ADD(op, vm_writev) {
	OP(vm_writev, 1),
	.op.setup = setup_vm_writev,
	.op.flags = REMOTE,
};

FIXTURE_VARIANT_ADD(op, ptrace_poke) {
	OP(ptrace_poke, 1),
	.op.err = EIO,
	.op.flags = REMOTE,
};

FIXTURE_VARIANT_ADD(op, vmsplice) {
	OP(vmsplice, 0),
	.op.setup = setup_pipe,
	.op.finish = close_pipe,
};

FIXTURE_VARIANT_ADD(op, vmsplice_in) {
	OP(vmsplice_in, 1),
	.op.setup = setup_vmsplice_in,
	.op.finish = close_pipe,
};

FIXTURE_VARIANT_ADD(op, write_from) {
	OP(write_from, 0),
	.op.setup = setup_pipe,
	.op.finish = close_pipe,
};

FIXTURE_VARIANT_ADD(op, direct_read) {
	OP(direct_read, 1),
	.op.setup = setup_direct,
	.op.finish = close_proc,
};

#ifdef HAVE_LIBURING
FIXTURE_VARIANT_ADD(op, uring_register) {
	OP(uring_register, 1),
	.op.setup = cow_ring_open,
	.op.finish = cow_ring_close,
};
#endif

FIXTURE_VARIANT_ADD(op, store) {
	OP(store, 1),
	.op.flags = RETRIED,
};

FIXTURE_VARIANT_ADD(op, store_to_hole) {
	OP(store_to_hole, 1),
	.op.flags = RETRIED,
};

FIXTURE_VARIANT_ADD(op, load_from_hole) {
	OP(load_from_hole, 1),
	.op.flags = RETRIED,
};

FIXTURE_VARIANT_ADD(op, load_swapped) {
	OP(load_swapped, 0),
	.op.prepare = prepare_swapped,
	.op.flags = RETRIED | SWAPS_IN,
};

FIXTURE_VARIANT_ADD(op, store_to_swapped) {
	OP(store_to_swapped, 1),
	.op.prepare = prepare_swapped,
	.op.flags = RETRIED,
};

static void run_actor(struct __test_metadata *_metadata, const struct op *op,
		      unsigned int actor)
{
	struct test_case tc = { .op = op, .actor = actor };

	COW_REPORT(cow_run(run_op, &tc));
}

TEST_F_TIMEOUT(op, parent, 300)
{
	run_actor(_metadata, &variant->op, PARENT);
}

TEST_F_TIMEOUT(op, child, 300)
{
	run_actor(_metadata, &variant->op, CHILD);
}

/*
 * fork() itself, failing at every allocation.  Each time the process that
 * forks, and those that it shares tables with, are as before.
 */

enum {
	/* Nothing of it has been shared before; nor later, if it is written */
	FIRST_FORK	= 0x01,
	/* A child of the first process forks */
	BY_CHILD	= 0x02,
	/* A page is pinned */
	PINNED		= 0x04,
};

struct fork_case {
	enum cow_mem_kind mem;
	unsigned int flags;
};

/* Not to show in the counters later, when the outcome is noted there */
static long call_touch_board(const long *arg)
{
	memset(&board->outcome, 0, sizeof(board->outcome));
	return 0;
}

static long call_fork_failing(const long *arg)
{
	cow_with_failure(arg[0], cow_fork_and_reap, arg, &board->outcome);
	return 0;
}

static long call_pin(const long *arg)
{
	return cow_ring_open() || cow_ring_pin(world->page[0]) ? -1 : 0;
}

static const char * const field[] = {
	"RssAnon", "RssShmem", "VmSwap", "VmPTE", "VmSize", "VmLck", "VmPin",
};

#define NR_FIELDS	ARRAY_LEN(field)

static void measure(unsigned int proc, long *val)
{
	size_t i;

	for (i = 0; i < NR_FIELDS; i++)
		val[i] = cow_status(world->pid[proc], field[i]);
}

/* Returns whether all is as before; if @must, it fails where it is not */
static bool check_fields(unsigned int nth, unsigned int proc,
			 const long *before, bool must)
{
	long now[NR_FIELDS];
	size_t i;

	measure(proc, now);
	for (i = 0; i < NR_FIELDS; i++) {
		if (now[i] == before[i])
			continue;
		if (must)
			cow_fail("allocation %u: process %u: %s: %ld kB, before: %ld",
				 nth, proc, field[i], now[i], before[i]);
		return false;
	}
	return true;
}

/* Returns why it cannot run here; or NULL, and adds to @failures */
static const char *run_forks(enum cow_mode mode, const struct fork_case *fc,
			     unsigned int *failures)
{
	unsigned int nth, i, forker = fc->flags & BY_CHILD ? 1 : 0;
	long before[MAX_PROCS][NR_FIELDS];
	bool more = true, again = false, same, look;
	const char *why;

	why = cow_mem_start(mode, &cow_mem[fc->mem]);
	if (why)
		return why;
	if ((fc->flags & PINNED) && cow_call(0, call_pin, 0)) {
		if (!world->skip[0])
			cow_fail("cannot pin: %s", strerror(errno));
		cow_world_stop();
		return world->skip;
	}
	if (!(fc->flags & FIRST_FORK)) {
		cow_fork(0, COW_FORK);
		cow_fork(0, COW_FORK);
		if (!(fc->flags & PINNED))
			cow_must_share(mode, &cow_mem[fc->mem]);
	}
	cow_call(forker, call_touch_board, 0);
	if (cow_call(forker, cow_fork_and_reap, 0))
		cow_fail("fork: %s", strerror(errno));
	if (fc->flags & FIRST_FORK)
		cow_poke_all(forker);
	/* Looking at it would bring it back */
	look = fc->mem != MEM_swapped;
	if (look)
		cow_check_all("before");
	for (nth = 1; more || again; nth++) {
		if (nth > 4 * MAX_NTH)
			cow_fail("there is no end to the allocations");
		for (i = 0; i < world->nr_procs; i++)
			measure(i, before[i]);
		cow_call(forker, call_fork_failing, nth);
		more = board->outcome.injected;
		if (board->outcome.ret) {
			++*failures;
			if (!more || (board->outcome.err != ENOMEM &&
				      board->outcome.err != EAGAIN))
				cow_fail("allocation %u: %s", nth,
					 strerror(board->outcome.err));
		}
		/*
		 * A page of its own that the process touched for the first time
		 * is not touched for the first time again; a leak comes back.
		 */
		for (i = 0, same = true; i < world->nr_procs; i++)
			same &= check_fields(nth, i, before[i], again);
		again = !same;
		nth -= again;
		if (look)
			cow_check(forker, "after a failed fork");
		if (fc->flags & FIRST_FORK)
			cow_poke_all(forker);
		if (cow_status(world->pid[forker], "VmCowPTE") >
		    cow_status(world->pid[forker], "VmPTE"))
			cow_fail("allocation %u: more tables are shared than there are",
				 nth);
	}
	cow_check_all("after all failed forks");
	for (i = 0; i < world->nr_procs; i++) {
		cow_poke_all(i);
		cow_check_all("after writes");
	}
	cow_world_stop();
	return NULL;
}

static const char *run_fork(enum cow_mode mode, const void *arg)
{
	unsigned int i, failures = 0;
	struct cow_usage usage = COW_USAGE;
	bool leaks = true;
	const char *why;

	why = cow_faults_start(COW_FAULTS_ALL);
	for (i = 0; i < 4 && !why && leaks; i++) {
		cow_usage_start(&usage);
		why = run_forks(mode, arg, &failures);
		leaks = !why && cow_usage_grown(&usage);
	}
	if (why)
		return why;
	if (leaks)
		cow_fail("failed forks leave something behind");
	ksft_print_msg("%u forks failed\n", failures);
	if (!failures)
		cow_fail("no fork failed");
	return NULL;
}

FIXTURE(fork) {
};

FIXTURE_VARIANT(fork) {
	struct fork_case fc;
};

FIXTURE_SETUP(fork)
{
	board = mmap(NULL, sizeof(*board), RW, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	ASSERT_NE(MAP_FAILED, board);
}

FIXTURE_TEARDOWN(fork) {}

FIXTURE_VARIANT_ADD(fork, first) { .fc = { MEM_sparse, FIRST_FORK } };
FIXTURE_VARIANT_ADD(fork, later) { .fc = { MEM_sparse, 0 } };
FIXTURE_VARIANT_ADD(fork, by_child) { .fc = { MEM_sparse, BY_CHILD } };
FIXTURE_VARIANT_ADD(fork, pinned) { .fc = { MEM_sparse, PINNED } };
FIXTURE_VARIANT_ADD(fork, mlocked) { .fc = { MEM_mlocked_neighbour, 0 } };
FIXTURE_VARIANT_ADD(fork, file) { .fc = { MEM_memfd, 0 } };
FIXTURE_VARIANT_ADD(fork, file_not_copied) { .fc = { MEM_file_neighbour, 0 } };
FIXTURE_VARIANT_ADD(fork, many_vmas) { .fc = { MEM_confetti, 0 } };
FIXTURE_VARIANT_ADD(fork, swapped) { .fc = { MEM_swapped, BY_CHILD } };

TEST_F_TIMEOUT(fork, nth_allocation, 300)
{
	COW_REPORT(cow_run_once(run_fork, &variant->fc));
}

int main(int argc, char **argv)
{
	cow_without_rseq(argv);
	cow_main_start();
	return test_harness_run(argc, argv);
}
