// SPDX-License-Identifier: GPL-2.0
/*
 * Races: the threads of a process work on shared tables while it forks, again
 * and again.  Every page carries a stamp with owner and version, so a child
 * can tell a page that is older or younger than the fork, and everybody can
 * tell a page of another process.  And what a CPU remembers of a page must not
 * outlive it.
 *
 * COW_PTE_FORKS sets the number of forks, COW_PTE_SEED the random seed.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_op.h"

#define TABLES		2
#define NR_PAGES	(TABLES * TABLE_PAGES)
#define NR_THREADS	4
#define MAX_ALIVE	3
#define PARENT		1
#define MPOL_MF_MOVE_ALL	0x4

enum {
	WRITE		= 0x01,
	DONTNEED	= 0x02,
	PROTECT		= 0x04,
	REMAP		= 0x08,
	MOVE		= 0x10,
	POPULATE	= 0x20,
	PAGEOUT		= 0x40,
	NR_WORK		= 7,
};

struct params {
	unsigned int work;
	bool file;
};

/* What threads tell children, and failures tell the test */
struct board {
	__u32 intended[NR_PAGES];	/* set before a page is written */
	__u32 published[NR_PAGES];	/* set afterwards */
	__u32 upper[MAX_ALIVE][NR_PAGES];
	bool ready[MAX_ALIVE];
	char message[160];
};

/* Someone who works on some of the pages, which nobody else may change */
struct worker {
	unsigned int owner;
	unsigned int first, step;	/* its pages */
	unsigned int work;
	__u64 seed;
	__u64 *model;
	bool publish;
};

static struct board *board;
static __u64 model[NR_PAGES];
static __u32 lower[NR_PAGES];
static bool stop;

static char *page_addr(unsigned int page)
{
	return arena + page * PAGE;
}

static __u64 make_stamp(unsigned int owner, unsigned int page, __u32 version)
{
	return (__u64)owner << 56 | (__u64)page << 40 |
	       (__u64)version << 8;
}

static __u32 stamp_version(__u64 stamp)
{
	return stamp >> 8;
}

/* One word is one access: it is never seen half-written */
static __u64 load(unsigned int page)
{
	return __atomic_load_n((__u64 *)page_addr(page), __ATOMIC_SEQ_CST);
}

static void __noreturn broken(const char *what, unsigned int who,
			      unsigned int page, __u64 want, __u64 seen)
{
	snprintf(board->message, sizeof(board->message),
		 "%s: process %u, page %u: expected %#llx, got %#llx", what,
		 who, page, want,
		 seen);
	_exit(1);
}

static void failed(const char *what, unsigned int page)
{
	snprintf(board->message, sizeof(board->message), "%s of page %u: %s",
		 what, page, strerror(errno));
	_exit(1);
}

static void verify(const struct worker *w, unsigned int page, const char *what)
{
	__u64 seen = load(page);

	if (seen != w->model[page])
		broken(what, w->owner, page, w->model[page], seen);
}

/* A place of its own for each worker to move a page to */
static char *parking(const struct worker *w)
{
	return arena + (TABLES + 1) * TABLE + w->first * 16 * PAGE;
}

static void work_once(struct worker *w, __u32 version)
{
	unsigned int nr = NR_PAGES / w->step;
	unsigned int page = w->first + cow_random(&w->seed) % nr * w->step;
	char *addr = page_addr(page);
	unsigned int kind;

	do {
		kind = 1 << cow_random(&w->seed) % NR_WORK;
	} while (!(kind & w->work));

	switch (kind) {
	case WRITE:
		verify(w, page, "before a write");
		w->model[page] = make_stamp(w->owner, page, version);
		if (w->publish)
			__atomic_store_n(&board->intended[page], version,
					 __ATOMIC_SEQ_CST);
		__atomic_store_n((__u64 *)addr, w->model[page],
				 __ATOMIC_SEQ_CST);
		if (w->publish)
			__atomic_store_n(&board->published[page], version,
					 __ATOMIC_SEQ_CST);
		break;
	case DONTNEED:
		if (madvise(addr, PAGE, MADV_DONTNEED))
			failed("MADV_DONTNEED", page);
		w->model[page] = 0;
		break;
	case PROTECT:
		if (mprotect(addr, PAGE, PROT_READ))
			failed("mprotect", page);
		verify(w, page, "read-only");
		if (mprotect(addr, PAGE, RW))
			failed("mprotect", page);
		break;
	case REMAP:
		if (mmap(addr, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS |
			 MAP_FIXED, -1, 0) != addr)
			failed("mmap", page);
		madvise(addr, PAGE, MADV_NOHUGEPAGE);
		w->model[page] = 0;
		break;
	case MOVE:
		if (mremap(addr, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED |
			   MREMAP_DONTUNMAP, parking(w)) != parking(w) ||
		    mremap(parking(w), PAGE, PAGE,
			   MREMAP_MAYMOVE | MREMAP_FIXED, addr) != addr)
			failed("mremap", page);
		/* Nothing else may settle there */
		mmap(parking(w), PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
		     MAP_FIXED, -1, 0);
		break;
	case POPULATE:
		if (madvise(addr, PAGE, MADV_POPULATE_WRITE))
			failed("MADV_POPULATE_WRITE", page);
		break;
	case PAGEOUT:
		madvise(addr, PAGE, MADV_PAGEOUT);
		break;
	}
	verify(w, page, "after work");
}

static void *thread_main(void *arg)
{
	struct worker *w = arg;
	__u32 version = 1;

	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST))
		work_once(w, ++version);
	return NULL;
}

/*
 * The memory as it was when the process forked.  Of a page that somebody was
 * just working on the child may see any state, but no stamp from before what
 * was known to be there at fork, and none that was written afterwards.
 */
static void take_stock(unsigned int slot, __u64 *snap)
{
	unsigned int page;
	__u64 seen;

	while (!__atomic_load_n(&board->ready[slot], __ATOMIC_SEQ_CST))
		usleep(100);
	for (page = 0; page < NR_PAGES; page++) {
		seen = load(page);
		snap[page] = seen;
		if (!seen)
			continue;
		if (seen != make_stamp(PARENT, page, stamp_version(seen)))
			broken("foreign page after fork", PARENT + 1, page,
			       make_stamp(PARENT, page, lower[page]), seen);
		if (stamp_version(seen) < lower[page])
			broken("older than the fork", PARENT + 1, page,
			       make_stamp(PARENT, page, lower[page]), seen);
		if (stamp_version(seen) > board->upper[slot][page])
			broken("younger than the fork", PARENT + 1, page,
			       make_stamp(PARENT, page,
					  board->upper[slot][page]), seen);
	}
}

/*
 * Forked in the middle of a thread's work, the child has pages that are not
 * writable or not there.  Its own work needs them to be.
 */
static void make_writable(void)
{
	unsigned int page;
	char *addr;

	for (page = 0; page < NR_PAGES; page++) {
		addr = page_addr(page);
		if (cow_peek(addr) == COW_SEGV &&
		    mmap(addr, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS |
			 MAP_FIXED, -1, 0) != addr)
			failed("mmap", page);
	}
	if (mprotect(arena, TABLES * TABLE, RW))
		failed("mprotect", 0);
}

static void __noreturn child_main(unsigned int slot, unsigned int owner,
				  unsigned int work, __u64 seed)
{
	struct worker w = {
		.owner = owner, .first = 0, .step = 1, .work = work,
		.seed = seed, .model = model,
	};
	unsigned int i, page;

	make_writable();
	take_stock(slot, model);
	for (i = 0; i < 100; i++)
		work_once(&w, i + 1);
	for (page = 0; page < NR_PAGES; page++)
		verify(&w, page, "at the end of a child");
	_exit(0);
}

static pid_t start_child(unsigned int slot, unsigned int owner,
			 unsigned int work, __u64 seed)
{
	unsigned int page;
	pid_t pid;

	board->ready[slot] = false;
	for (page = 0; page < NR_PAGES; page++)
		lower[page] = __atomic_load_n(&board->published[page],
					      __ATOMIC_SEQ_CST);
	pid = fork();
	if (!pid)
		child_main(slot, owner, work, seed);
	for (page = 0; page < NR_PAGES; page++)
		board->upper[slot][page] =
			__atomic_load_n(&board->intended[page],
					__ATOMIC_SEQ_CST);
	__atomic_store_n(&board->ready[slot], true, __ATOMIC_SEQ_CST);
	return pid;
}

static long reap_child(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	if (status && !board->message[0])
		snprintf(board->message, sizeof(board->message),
			 "a child ended with status %#x", status);
	return status;
}

static void fill_memory(bool file)
{
	int fd = file ? cow_stamped_file(cow_tmpfile(), PAGE) : -1;
	unsigned int page;

	if (file && ftruncate(fd, TABLES * TABLE))
		failed("ftruncate", 0);
	if (mmap(arena, TABLES * TABLE, RW,
		 MAP_PRIVATE | MAP_FIXED | (file ? 0 : MAP_ANONYMOUS), fd,
		 0) != arena)
		failed("mmap", 0);
	madvise(arena, TABLES * TABLE, MADV_NOHUGEPAGE);
	for (page = 0; page < NR_PAGES; page++) {
		model[page] = 0;
		board->published[page] = 0;
		board->intended[page] = 1;
		/* Some entries stay empty */
		if (page % 8 == 7 && (!file || page))
			continue;
		model[page] = make_stamp(PARENT, page, 1);
		board->published[page] = 1;
		*(__u64 *)page_addr(page) = model[page];
	}
}

static long call_race(const long *arg)
{
	const struct params *p = (void *)arg[0];
	unsigned int forks = arg[1], i, slot;
	__u64 seed = arg[2];
	struct worker w[NR_THREADS];
	pthread_t thread[NR_THREADS];
	pid_t pid[MAX_ALIVE] = { };
	long ret = 0;

	fill_memory(p->file);
	for (i = 0; i < NR_THREADS; i++) {
		w[i] = (struct worker){
			.owner = PARENT, .first = i, .step = NR_THREADS,
			.work = p->work, .seed = seed + i, .model = model,
			.publish = true,
		};
		if (pthread_create(&thread[i], NULL, thread_main, &w[i]))
			return -1;
	}
	for (i = 0; i < forks && !ret; i++) {
		slot = i % MAX_ALIVE;
		if (pid[slot])
			ret = reap_child(pid[slot]);
		pid[slot] = start_child(slot, PARENT + 1 + i % 100, p->work,
					cow_random(&seed));
	}
	for (slot = 0; slot < MAX_ALIVE; slot++)
		if (pid[slot] && reap_child(pid[slot]))
			ret = -1;
	__atomic_store_n(&stop, true, __ATOMIC_SEQ_CST);
	for (i = 0; i < NR_THREADS; i++)
		pthread_join(thread[i], NULL);
	for (i = 0; i < NR_PAGES; i++)
		verify(&w[0], i, "at the end of the parent");
	return ret;
}

static const char *run_race(enum cow_mode mode, const void *arg)
{
	long forks = cow_env("COW_PTE_FORKS", 32);
	long seed = cow_env("COW_PTE_SEED", 88172645463325252);
	long shared = cow_vmstat("cow_pte_share");

	if (!board)
		board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		cow_fail("mmap: %s", strerror(errno));
	memset(board, 0, sizeof(*board));
	ksft_print_msg("seed %ld, %ld forks\n", seed, forks);

	cow_world_start(mode);
	/* The process of the world dies where it finds something wrong */
	if (cow_try_call(0, call_race, (long)arg, forks, seed))
		cow_fail("%s", board->message[0] ? board->message : "failed");
	if (mode == COW_ON && cow_vmstat("cow_pte_share") <= shared)
		cow_fail("nothing was shared");
	cow_world_stop();
	return NULL;
}

FIXTURE(race) {
};

FIXTURE_VARIANT(race) {
	struct params params;
};

FIXTURE_SETUP(race) {}
FIXTURE_TEARDOWN(race) {}

FIXTURE_VARIANT_ADD(race, write) { .params.work = WRITE };
FIXTURE_VARIANT_ADD(race, write_dontneed) { .params.work = WRITE | DONTNEED };
FIXTURE_VARIANT_ADD(race, write_protect) { .params.work = WRITE | PROTECT };
FIXTURE_VARIANT_ADD(race, write_remap) { .params.work = WRITE | REMAP };
FIXTURE_VARIANT_ADD(race, write_move) { .params.work = WRITE | MOVE };

FIXTURE_VARIANT_ADD(race, write_populate) {
	.params.work = WRITE | POPULATE | DONTNEED
};

FIXTURE_VARIANT_ADD(race, write_pageout) { .params.work = WRITE | PAGEOUT };

FIXTURE_VARIANT_ADD(race, mixed) {
	.params.work = WRITE | DONTNEED | PROTECT | REMAP | MOVE |
		       POPULATE | PAGEOUT,
};

FIXTURE_VARIANT_ADD(race, file_write) {
	.params.work = WRITE, .params.file = true
};

FIXTURE_VARIANT_ADD(race, file_mixed) {
	.params.work = WRITE | PROTECT | MOVE | POPULATE | PAGEOUT,
	.params.file = true,
};

TEST_F_TIMEOUT(race, contents, 600)
{
	COW_REPORT(cow_run_once(run_race, &variant->params));
}

/*
 * A CPU on which nothing but one thread runs keeps what it knows of a page until
 * it is told otherwise: whoever takes the page away has to tell it.  The thread
 * is one of the child's; all others stay on another CPU.
 */

/* Few enough for any TLB to keep them */
#define FEW_PAGES	16
#define NEW_PAGES	2048
#define STALE_ROUNDS	4
#define MANY_OTHERS	66

/* Shared by all processes */
struct watch {
	bool stop;
	unsigned int passes;
	__u64 seen[FEW_PAGES];
};

struct stale {
	bool file;
	unsigned int actor;
	unsigned int others;	/* more who share it, and do nothing */
	long (*act)(void);
	__u64 want;		/* afterwards, */
	bool same;		/* unless it is the same as before */
};

static struct watch *watched;
static int stale_fd;

static void *watch_main(void *arg)
{
	unsigned int i;

	cow_use_cpu(1);
	while (!__atomic_load_n(&watched->stop, __ATOMIC_SEQ_CST)) {
		for (i = 0; i < FEW_PAGES; i++)
			watched->seen[i] = cow_peek(page_addr(i));
		__atomic_fetch_add(&watched->passes, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

/* Each page has been read since */
static void await_passes(void)
{
	unsigned int before;

	before = __atomic_load_n(&watched->passes, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&watched->passes, __ATOMIC_SEQ_CST) - before < 3)
		usleep(1000);
}

static long call_fill(const long *arg)
{
	const struct stale *s = (void *)arg[0];
	unsigned int page;

	stale_fd = -1;
	if (s->file) {
		stale_fd = cow_stamped_file(memfd_create("stale", 0), TABLE);
		if (stale_fd < 0)
			return -1;
	}
	if (mmap(arena, TABLE, RW, MAP_PRIVATE | MAP_FIXED |
		 (s->file ? 0 : MAP_ANONYMOUS), stale_fd, 0) != arena)
		return -1;
	madvise(arena, TABLE, MADV_NOHUGEPAGE);
	for (page = 0; page < TABLE_PAGES; page++)
		if (!s->file || page >= FEW_PAGES)
			cow_stamp(page_addr(page), make_stamp(PARENT, page, 1));
		else
			cow_peek(page_addr(page));
	return 0;
}

/* arg[0]: what the thread does */
static long call_thread(const long *arg)
{
	void *(*thread_main)(void *) = (void *)arg[0];
	pthread_t thread;

	errno = pthread_create(&thread, NULL, thread_main, NULL);
	return -!!errno;
}

static long call_act(const long *arg)
{
	return ((const struct stale *)arg[0])->act();
}

static long act_dontneed(void)
{
	return madvise(arena, TABLE, MADV_DONTNEED);
}

static long act_map_fixed(void)
{
	return mmap(arena, TABLE, RW, ANON | MAP_FIXED, -1, 0) == arena ? 0 : -1;
}

static long act_munmap(void)
{
	return munmap(arena, TABLE);
}

static long act_truncate(void)
{
	return ftruncate(stale_fd, 0);
}

static long act_punch(void)
{
	return fallocate(stale_fd, FALLOC_FL_PUNCH_HOLE |
			 FALLOC_FL_KEEP_SIZE, 0, FEW_PAGES * PAGE);
}

static long move_to(int node)
{
	int nodes[FEW_PAGES], status[FEW_PAGES];
	void *pages[FEW_PAGES];
	unsigned int i;

	for (i = 0; i < FEW_PAGES; i++) {
		pages[i] = page_addr(i);
		nodes[i] = node;
	}
	return syscall(SYS_move_pages, 0, (long)FEW_PAGES, pages, nodes, status,
		       MPOL_MF_MOVE_ALL);
}

/* The page that it was before becomes another one's */
static long act_migrate(void)
{
	unsigned int i, round;
	char *mem;

	if (access("/sys/devices/system/node/node1", F_OK))
		return cow_skip("needs a second node");
	for (round = 0; round < STALE_ROUNDS; round++) {
		if (move_to(0) < 0)
			return -1;
		await_passes();
		if (move_to(1) < 0)
			return -1;
		mem = mmap(NULL, NEW_PAGES * PAGE, RW, ANON, -1, 0);
		if (mem == MAP_FAILED)
			return -1;
		madvise(mem, NEW_PAGES * PAGE, MADV_NOHUGEPAGE);
		for (i = 0; i < NEW_PAGES; i++)
			cow_stamp(mem + i * PAGE, cow_next_stamp(cow_self, i));
	}
	return 0;
}

/* Returns why it cannot run here, or NULL */
static const char *start_watch(enum cow_mode mode, const struct stale *s)
{
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		return "needs two CPUs";
	if (!watched)
		watched = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (watched == MAP_FAILED)
		cow_fail("mmap: %s", strerror(errno));
	memset(watched, 0, sizeof(*watched));
	/* All that start from here, but for the thread */
	cow_use_cpu(0);
	cow_world_start_big(mode, COW_USUAL_PROCS + s->others);
	if (cow_call(0, call_fill, (long)s))
		cow_fail("no memory: %s", strerror(errno));
	return NULL;
}

static const char *run_stale(enum cow_mode mode, const void *arg)
{
	const struct stale *s = arg;
	__u64 before[FEW_PAGES], want;
	const char *why;
	unsigned int i;

	why = start_watch(mode, s);
	if (why)
		return why;
	cow_fork(0, COW_FORK);
	for (i = 0; i < s->others; i++)
		cow_fork(i % 4, COW_FORK);
	cow_must_share(mode, &(struct cow_mem){ .tables = 1 });
	if (cow_call(1, call_thread, (long)watch_main))
		cow_fail("pthread_create: %s", strerror(errno));
	await_passes();
	memcpy(before, watched->seen, sizeof(before));
	if (cow_call(s->actor, call_act, (long)s) && !world->skip[0])
		cow_fail("it failed: %s", strerror(errno));
	await_passes();
	for (i = 0; i < FEW_PAGES && !world->skip[0]; i++) {
		want = s->same ? before[i] : s->want;
		if (watched->seen[i] != want)
			cow_fail("the thread sees %#llx in page %u, not %#llx",
				 watched->seen[i], i, want);
	}
	watched->stop = true;
	cow_world_stop();
	return world->skip[0] ? world->skip : NULL;
}

FIXTURE(stale) {
};

FIXTURE_VARIANT(stale) {
	struct stale stale;
};

FIXTURE_SETUP(stale) {}
FIXTURE_TEARDOWN(stale) {}

FIXTURE_VARIANT_ADD(stale, dontneed) {
	.stale = { .actor = 1, .act = act_dontneed }
};

FIXTURE_VARIANT_ADD(stale, map_fixed) {
	.stale = { .actor = 1, .act = act_map_fixed }
};

FIXTURE_VARIANT_ADD(stale, munmap) {
	.stale = { .actor = 1, .act = act_munmap, .want = COW_SEGV }
};

FIXTURE_VARIANT_ADD(stale, truncate) {
	.stale = { .file = true, .act = act_truncate, .want = COW_BUS }
};

FIXTURE_VARIANT_ADD(stale, punch) {
	.stale = { .file = true, .act = act_punch }
};

/* More sharers than are told one by one */
FIXTURE_VARIANT_ADD(stale, truncate_among_many) {
	.stale = {
		.file = true, .act = act_truncate, .want = COW_BUS,
		.others = MANY_OTHERS,
	}
};

FIXTURE_VARIANT_ADD(stale, punch_among_many) {
	.stale = { .file = true, .act = act_punch, .others = MANY_OTHERS }
};

FIXTURE_VARIANT_ADD(stale, migrate_among_many) {
	.stale = { .act = act_migrate, .same = true, .others = MANY_OTHERS }
};

FIXTURE_VARIANT_ADD(stale, migrate) {
	.stale = { .act = act_migrate, .same = true }
};

TEST_F_TIMEOUT(stale, after, 120)
{
	COW_REPORT(cow_run_once(run_stale, &variant->stale));
}

/* The same for fork(), which takes away the right to write */

static __u64 *written_slot(void)
{
	return (__u64 *)(page_addr(0) + COW_SLOT_BYTES);
}

static void *write_main(void *arg)
{
	__u64 val = 0;

	cow_use_cpu(1);
	while (!__atomic_load_n(&watched->stop, __ATOMIC_SEQ_CST)) {
		__atomic_store_n(written_slot(), ++val, __ATOMIC_RELAXED);
		__atomic_fetch_add(&watched->passes, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static long call_read_slot(const long *arg)
{
	return __atomic_load_n(written_slot(), __ATOMIC_RELAXED);
}

static const char *run_stale_write(enum cow_mode mode, const void *arg)
{
	unsigned int round, child = 0;
	const char *why;
	long val, now;

	why = start_watch(mode, arg);
	if (why)
		return why;
	if (cow_call(0, call_thread, (long)write_main))
		cow_fail("pthread_create: %s", strerror(errno));
	for (round = 0; round < STALE_ROUNDS; round++) {
		await_passes();
		if (child)
			cow_fork_again(child);
		else
			child = cow_fork(0, COW_FORK);
		val = cow_call(child, call_read_slot, 0);
		await_passes();
		now = cow_call(child, call_read_slot, 0);
		if (now != val)
			cow_fail("the parent's thread writes to what is the child's: %ld, then %ld",
				 val, now);
		cow_exit(child);
	}
	watched->stop = true;
	cow_world_stop();
	return NULL;
}

FIXTURE(stale_write) {
};

FIXTURE_SETUP(stale_write) {}
FIXTURE_TEARDOWN(stale_write) {}

TEST_F_TIMEOUT(stale_write, after_fork, 120)
{
	static const struct stale anon;

	COW_REPORT(cow_run_once(run_stale_write, &anon));
}

/*
 * One copies a table while most of its pages are on their way to another node:
 * entries that wait for the end of that must not make both sides writers of the
 * same pages.
 */

/* The others stay, for a write that does not wait */
#define MOVING_PAGES	448
#define MOVING_ROUNDS	40
#define MOVING_HITS	8
#define MPOL_BIND	2

static long call_fill_moving(const long *arg)
{
	unsigned long first_node = 1;

	if (access("/sys/devices/system/node/node1", F_OK))
		return cow_skip("needs a second node");
	/* Where copies are made, too */
	if (syscall(SYS_set_mempolicy, MPOL_BIND, &first_node, 64) ||
	    mmap(arena, TABLE, RW, ANON | MAP_FIXED, -1, 0) != arena)
		return -1;
	madvise(arena, TABLE, MADV_NOHUGEPAGE);
	cow_track_range(arena, TABLE, 1);
	cow_adopt();
	return 0;
}

static void *move_main(void *arg)
{
	static int nodes[MOVING_PAGES], status[MOVING_PAGES];
	static void *pages[MOVING_PAGES];
	unsigned int i;

	cow_use_cpu(1);
	for (i = 0; i < MOVING_PAGES; i++) {
		pages[i] = page_addr(i);
		nodes[i] = 1;
	}
	syscall(SYS_move_pages, 0, (long)MOVING_PAGES, pages, nodes, status,
		MPOL_MF_MOVE_ALL);
	return NULL;
}

/* All of them are, if the last one is */
static bool pages_move(void)
{
	return (cow_pagemap(getpid(), page_addr(MOVING_PAGES - 1)) &
		(PM_SWAP | PM_PRESENT)) == PM_SWAP;
}

/* Returns whether the table was copied in the middle, -1 if it cannot be had */
static long call_copy_moving(const long *arg)
{
	pthread_t mover;
	bool before;
	int i;

	cow_use_cpu(0);
	errno = pthread_create(&mover, NULL, move_main, NULL);
	if (errno)
		return -1;
	for (i = 0; i < 5000 && !pages_move(); i++)
		;
	before = i < 5000;
	if (cow_try_write(page_addr(TABLE_PAGES - 1), TABLE_PAGES - 1))
		return -1;
	before &= pages_move();
	pthread_join(mover, NULL);
	return before;
}

static const char *run_moving(enum cow_mode mode, const void *arg)
{
	unsigned int round, hits = 0, actor = (long)arg, child = 0;
	long ret;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		return "needs two CPUs";
	cow_world_start(mode);
	if (cow_call(0, call_fill_moving, 0)) {
		if (!world->skip[0])
			cow_fail("no memory: %s", strerror(errno));
		cow_world_stop();
		return world->skip;
	}
	for (round = 0; round < MOVING_ROUNDS && hits < MOVING_HITS; round++) {
		if (child)
			cow_fork_again(child);
		else
			child = cow_fork(0, COW_FORK);
		cow_must_share(mode, &(struct cow_mem){ .tables = 1 });
		ret = cow_call(actor, call_copy_moving, 0);
		if (ret < 0)
			cow_fail("it failed: %s", strerror(errno));
		hits += ret;
		cow_check_all("after the pages have moved");
		/* The parent copies while it can, and is on its node again */
		cow_poke_all(0);
		cow_check_all("after the parent wrote");
		cow_poke_all(child);
		cow_check_all("after the child wrote");
		cow_exit(child);
	}
	ksft_print_msg("%u of %u times in the middle\n", hits, round);
	cow_world_stop();
	return hits ? NULL : "nothing was copied while pages moved";
}

FIXTURE(moving) {
};

FIXTURE_SETUP(moving) {}
FIXTURE_TEARDOWN(moving) {}

TEST_F_TIMEOUT(moving, parent, 300)
{
	COW_REPORT(cow_run_once(run_moving, (void *)0));
}

TEST_F_TIMEOUT(moving, child, 300)
{
	COW_REPORT(cow_run_once(run_moving, (void *)1));
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
