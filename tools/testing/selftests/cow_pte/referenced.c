// SPDX-License-Identifier: GPL-2.0
/*
 * Who reads which page is nobody else's business: the accessed bits of a shared
 * table are those of all, and a process must neither learn from them what
 * another one reads nor take away what another one is told.
 *
 * Each page that is looked at is a mapping of its own, so that smaps tells them
 * apart.  The processes look at themselves, without any privileges.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_op.h"

#define NR_PAGES	32
#define LAST_PAGE	(NR_PAGES - 1)
#define FLUSH_PAGES	128
#define NOBODY		65534

/* What a process found in its smaps, by page; shared by all */
static long *found;

/* One VMA per page, by a flag that leaves entries and sharing alone */
static int prepare_marked(void)
{
	unsigned int i;

	if (mmap(T(0), 2 * TABLE, RW, ANON | MAP_FIXED, -1, 0) != T(0))
		return -1;
	madvise(T(0), 2 * TABLE, MADV_NOHUGEPAGE);
	cow_track_range(T(0), NR_PAGES * PAGE, 1);
	for (i = 0; i < NR_PAGES; i += 2)
		if (madvise(world->page[i], PAGE, MADV_DONTDUMP))
			return -1;
	cow_stamp(T(1), cow_next_stamp(cow_self, 0));
	/* Its own files in /proc must stay its own */
	return setgid(NOBODY) || setuid(NOBODY) ||
	       prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static const struct cow_mem marked = {
	.name = "marked", .prepare = prepare_marked, .tables = 2,
};

static long call_look(const long *arg)
{
	unsigned long start, end;
	long kb, page = -1;
	char line[256];
	FILE *f;

	memset(found, 0xff, NR_PAGES * sizeof(*found));
	f = fopen("/proc/self/smaps", "re");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			page = -1;
			if ((char *)start >= T(0) && end - start == PAGE)
				page = ((char *)start - T(0)) / PAGE;
		} else if (page >= 0 && page < NR_PAGES &&
			   sscanf(line, "Referenced: %ld", &kb) == 1) {
			found[page] = kb;
		}
	}
	fclose(f);
	return 0;
}

/* A CPU that remembers a page does not note that it is read once more */
static int forget_translations(void)
{
	char *mem = mmap(NULL, FLUSH_PAGES * PAGE, RW, ANON, -1, 0);

	if (mem == MAP_FAILED)
		return -1;
	memset(mem, 1, FLUSH_PAGES * PAGE);
	return munmap(mem, FLUSH_PAGES * PAGE);
}

/* Every so many pages from the first on, but not the last page */
static long call_read(const long *arg)
{
	long i;

	if (forget_translations())
		return -1;
	for (i = arg[0]; i < LAST_PAGE; i += arg[1])
		cow_peek(world->page[i]);
	return 0;
}

static long call_clear(const long *arg)
{
	char val[2] = { '0' + arg[0] };

	if (cow_write_file("/proc/self/clear_refs", val))
		return -1;
	/* Or it reads a page without anybody noting it */
	return forget_translations();
}

static long call_munmap(const long *arg)
{
	return munmap(T(0), TABLE);
}

static void must(unsigned int proc, cow_fn fn, long arg0, long arg1,
		 const char *what)
{
	if (cow_call(proc, fn, arg0, arg1))
		cow_fail("process %u: %s: %s", proc, what, strerror(errno));
}

static void look(unsigned int proc)
{
	must(proc, call_look, 0, 0, "smaps");
	/* The last one's VMA goes on beyond it */
	if (found[0] < 0 || found[LAST_PAGE - 1] < 0)
		cow_fail("process %u: no mapping for each page", proc);
}

static void log_look(unsigned int proc, const char *when)
{
	unsigned int i;

	look(proc);
	for (i = 0; i < LAST_PAGE; i++)
		cow_log(when, i, found[i]);
}

static void clear(unsigned int proc, unsigned int what)
{
	if (what)
		must(proc, call_clear, what, 0, "clear_refs");
}

/* Who had the memory before the fork, and who got it then */
struct pair {
	unsigned int parent, child;
};

enum generation { FIRST, SECOND };

struct test_case {
	enum generation generation;
	unsigned int clear;		/* what is written to clear_refs */
};

static struct pair start_pair(enum cow_mode mode, enum generation generation,
			      unsigned int clear_before)
{
	struct pair pair = { 0, 1 };

	if (!found)
		found = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (found == MAP_FAILED)
		cow_fail("mmap: %s", strerror(errno));
	cow_mem_start(mode, &marked);
	if (generation == SECOND) {
		/* It has made all of them its own */
		pair = (struct pair){ cow_fork(0, COW_FORK), 2 };
		cow_poke_all(pair.parent);
	}
	clear(pair.parent, clear_before);
	cow_fork(pair.parent, COW_FORK);
	if (generation == FIRST)
		cow_must_share(mode, &marked);
	return pair;
}

/* What one is told has nothing to do with what the other reads */
static void watch(unsigned int who, unsigned int other, unsigned int what)
{
	unsigned int i;

	log_look(who, "after fork");
	for (i = 0; i < 4; i++) {
		clear(who, what);
		must(other, call_read, i, 5 + i, "reading");
		log_look(who, "after the other has read");
	}
	cow_check_all("at the end");
	cow_world_stop();
}

static const char *run_child_looks(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	struct pair pair = start_pair(mode, tc->generation, 0);

	watch(pair.child, pair.parent, tc->clear);
	return NULL;
}

static const char *run_parent_looks(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	struct pair pair = start_pair(mode, tc->generation, 0);

	watch(pair.parent, pair.child, tc->clear);
	return NULL;
}

/* Who clears the bits clears its own */
static const char *run_clear_own(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	struct pair pair = start_pair(mode, tc->generation, 0);
	unsigned int third = cow_fork(pair.parent, COW_FORK);

	clear(pair.child, tc->clear);
	log_look(pair.parent, "parent, when the child has cleared");
	log_look(third, "sibling, when the child has cleared");
	log_look(pair.child, "child, when it has cleared");
	clear(third, tc->clear);
	log_look(pair.parent, "parent, when both children have cleared");
	clear(pair.parent, tc->clear);
	log_look(pair.parent, "parent, when it has cleared");
	log_look(pair.child, "child, when all have cleared");
	log_look(third, "sibling, when all have cleared");
	cow_check_all("at the end");
	cow_world_stop();
	return NULL;
}

FIXTURE(referenced) {
};

FIXTURE_VARIANT(referenced) {
	struct test_case tc;
};

FIXTURE_SETUP(referenced) {}
FIXTURE_TEARDOWN(referenced) {}

FIXTURE_VARIANT_ADD(referenced, as_it_is) { };
FIXTURE_VARIANT_ADD(referenced, clear_all) { .tc.clear = 1 };
FIXTURE_VARIANT_ADD(referenced, clear_anon) { .tc.clear = 2 };
FIXTURE_VARIANT_ADD(referenced, clear_files) { .tc.clear = 3 };
FIXTURE_VARIANT_ADD(referenced, grandchild) { .tc.generation = SECOND };

FIXTURE_VARIANT_ADD(referenced, grandchild_clear_all) {
	.tc = { .generation = SECOND, .clear = 1 }
};

TEST_F_TIMEOUT(referenced, child_looks, 120)
{
	COW_REPORT(cow_run(run_child_looks, &variant->tc));
}

TEST_F_TIMEOUT(referenced, parent_looks, 120)
{
	COW_REPORT(cow_run(run_parent_looks, &variant->tc));
}

TEST_F_TIMEOUT(referenced, clear_own, 120)
{
	COW_REPORT(cow_run(run_clear_own, &variant->tc));
}

/*
 * What was read through a shared table must not come out when the table becomes
 * a private one, either: what somebody is told of the pages that the other has
 * read is what it is told of all the others.
 */
enum event {
	EVENT_none,
	EVENT_clear,
	EVENT_write,
	EVENT_other_writes,
	EVENT_other_writes_first,
	EVENT_both_write,
	EVENT_other_unmaps,
	EVENT_other_unmaps_then_write,
	EVENT_other_exits,
	EVENT_other_exits_then_write,
	EVENT_other_exits_then_fork,
	EVENT_other_execs,
	EVENT_other_execs_then_write,
	EVENT_merge,		/* who has written before the other read */
};

struct event_case {
	enum event event;
	enum generation generation;
	bool child_looks;
};

static void run_event(enum event event, unsigned int who, unsigned int other)
{
	switch (event) {
	case EVENT_clear:
		clear(who, 1);
		break;
	case EVENT_both_write:
		cow_poke(who, LAST_PAGE);
		cow_poke(other, LAST_PAGE);
		break;
	case EVENT_write:
		cow_poke(who, LAST_PAGE);
		break;
	case EVENT_other_writes:
		cow_poke(other, LAST_PAGE);
		break;
	case EVENT_other_unmaps:
	case EVENT_other_unmaps_then_write:
		must(other, call_munmap, 0, 0, "munmap");
		break;
	case EVENT_other_exits:
	case EVENT_other_exits_then_write:
	case EVENT_other_exits_then_fork:
	case EVENT_merge:
		cow_exit(other);
		break;
	case EVENT_other_execs:
	case EVENT_other_execs_then_write:
		cow_exec_start(other);
		cow_exit_wait(other);
		break;
	default:
		break;
	}
	switch (event) {
	case EVENT_other_unmaps_then_write:
	case EVENT_other_exits_then_write:
	case EVENT_other_execs_then_write:
		cow_poke(who, LAST_PAGE);
		break;
	case EVENT_other_exits_then_fork:
		cow_fork(who, COW_FORK);
		break;
	default:
		break;
	}
}

static void expect_even(unsigned int proc, const char *when)
{
	unsigned int i;

	look(proc);
	for (i = 1; i < LAST_PAGE; i++)
		if (found[i] != found[0])
			cow_fail("%s: process %u is told %ld kB of page 0 and %ld kB of page %u",
				 when, proc, found[0], found[i], i);
}

static const char *run_afterwards(enum cow_mode mode, const void *arg)
{
	const struct event_case *ec = arg;
	unsigned int who, other;
	struct pair pair;

	/* Otherwise all are known to have been written */
	pair = start_pair(mode, ec->generation, 1);
	who = ec->child_looks ? pair.child : pair.parent;
	other = ec->child_looks ? pair.parent : pair.child;
	if (ec->event == EVENT_other_writes_first)
		cow_poke(other, LAST_PAGE);
	if (ec->event == EVENT_merge)
		cow_poke(who, LAST_PAGE);
	must(other, call_read, 0, 2, "reading");
	run_event(ec->event, who, other);
	expect_even(who, "afterwards");
	cow_world_stop();
	return NULL;
}

FIXTURE(afterwards) {
};

FIXTURE_VARIANT(afterwards) {
	enum event event;
};

FIXTURE_SETUP(afterwards) {}
FIXTURE_TEARDOWN(afterwards) {}

FIXTURE_VARIANT_ADD(afterwards, none) { .event = EVENT_none };
FIXTURE_VARIANT_ADD(afterwards, clear) { .event = EVENT_clear };
FIXTURE_VARIANT_ADD(afterwards, write) { .event = EVENT_write };
FIXTURE_VARIANT_ADD(afterwards, other_writes) { .event = EVENT_other_writes };

FIXTURE_VARIANT_ADD(afterwards, other_writes_first) {
	.event = EVENT_other_writes_first
};

FIXTURE_VARIANT_ADD(afterwards, merge) { .event = EVENT_merge };
FIXTURE_VARIANT_ADD(afterwards, both_write) { .event = EVENT_both_write };
FIXTURE_VARIANT_ADD(afterwards, other_unmaps) { .event = EVENT_other_unmaps };

FIXTURE_VARIANT_ADD(afterwards, other_unmaps_then_write) {
	.event = EVENT_other_unmaps_then_write
};

FIXTURE_VARIANT_ADD(afterwards, other_exits) { .event = EVENT_other_exits };

FIXTURE_VARIANT_ADD(afterwards, other_exits_then_write) {
	.event = EVENT_other_exits_then_write
};

FIXTURE_VARIANT_ADD(afterwards, other_exits_then_fork) {
	.event = EVENT_other_exits_then_fork
};

FIXTURE_VARIANT_ADD(afterwards, other_execs) { .event = EVENT_other_execs };

FIXTURE_VARIANT_ADD(afterwards, other_execs_then_write) {
	.event = EVENT_other_execs_then_write
};

static void run_look(struct __test_metadata *_metadata, enum event event,
		     enum generation generation, bool child_looks)
{
	struct event_case ec = { event, generation, child_looks };

	COW_REPORT(cow_run(run_afterwards, &ec));
}

TEST_F_TIMEOUT(afterwards, parent_looks, 120)
{
	run_look(_metadata, variant->event, FIRST, false);
}

TEST_F_TIMEOUT(afterwards, child_looks, 120)
{
	run_look(_metadata, variant->event, FIRST, true);
}

TEST_F_TIMEOUT(afterwards, child_of_child_looks, 120)
{
	run_look(_metadata, variant->event, SECOND, true);
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
