// SPDX-License-Identifier: GPL-2.0
/*
 * Shared tables whose pages go to swap and come back: one page at a time, all
 * at once, and a large process with many children.
 *
 * COW_PTE_SWAP_MB and COW_PTE_SWAP_CHILDREN set the size of the latter.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_op.h"

#define THP	"/sys/kernel/mm/transparent_hugepage/"

#define DEVICE_MB	64
#define SETTLE_TRIES	40

/* What everybody has to agree upon about the field */

static unsigned int count_in(char *addr, size_t len, __u64 mask)
{
	static __u64 pm[2 * TABLE_PAGES];
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	unsigned int i, nr = 0;

	if (pread(fd, pm, len / PAGE * sizeof(*pm),
		  (uintptr_t)addr / PAGE * sizeof(*pm)) < 0)
		cow_skip("/proc/self/pagemap: %s", strerror(errno));
	close(fd);
	for (i = 0; i < len / PAGE; i++)
		nr += !!(pm[i] & mask);
	return nr;
}

/* One page is in memory or in swap, never both, never neither */
static void log_total(void)
{
	cow_log("present or swapped", 0,
		count_in(T(0), 2 * TABLE, PM_PRESENT | PM_SWAP));
}

/* Until half of the pages are in swap, or there is no end; how many are there */
static unsigned int reclaim_half(void)
{
	unsigned int i, nr;

	for (i = 0;; i++) {
		nr = count_in(T(0), 2 * TABLE, PM_SWAP);
		if (nr >= world->nr_pages / 2 || i == SETTLE_TRIES)
			return nr;
		cow_cgroup_reclaim(8);
	}
}

static bool swap_out(void)
{
	if (!reclaim_half()) {
		cow_skip("reclaim swapped out nothing");
		return false;
	}
	log_total();
	return true;
}

static void read_all(void)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++)
		cow_log("read", i, cow_peek(world->page[i]));
	log_total();
}

static void write_all(void)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++)
		DO(cow_try_write(world->page[i], i));
	log_total();
}

static void read_some(void)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i += 8)
		cow_log("read", i, cow_peek(world->page[i]));
}

/* Kinds of memory, in T0 and T1 */

static int map_again(int advice)
{
	if (cow_cgroup_enter(32))
		return -1;
	/* Pages touched before would be charged elsewhere: make them new */
	if (mmap(T(0), 2 * TABLE, RW, ANON | MAP_FIXED, -1, 0) != T(0))
		return -1;
	madvise(T(0), 2 * TABLE, advice);
	world->nr_pages = 0;
	return 0;
}

static int prepare_anon(void)
{
	if (map_again(MADV_NOHUGEPAGE))
		return -1;
	cow_track_range(T(0), 2 * TABLE, 4);
	return 0;
}

/* Already swapped out when fork shares it, still exclusive */
static int prepare_swapped(void)
{
	if (prepare_anon())
		return -1;
	return swap_out() ? 0 : -1;
}

/* And brought back by reading: from a device in memory they come back clean */
static int prepare_read_back(void)
{
	if (prepare_swapped())
		return -1;
	read_all();
	return 0;
}

static int prepare_large(void)
{
	char mode[64];

	if (cow_read_file(THP "enabled", mode, sizeof(mode)) < 0)
		return cow_skip("no transparent huge pages");
	if (strstr(mode, "[never]"))
		cow_write_file(THP "enabled", "madvise");
	if (map_again(MADV_HUGEPAGE))
		return -1;
	cow_track_range(T(0), 2 * TABLE, 4);
	if (cow_read_field("/proc/self/smaps_rollup", "AnonHugePages") < 2048)
		return cow_skip("got no huge page");
	/* A VMA boundary for a moment, and PTEs map it */
	return mprotect(T(0) + PAGE, PAGE, PROT_READ) ||
	       mprotect(T(0) + PAGE, PAGE, RW) ||
	       mprotect(T(1) + PAGE, PAGE, PROT_READ) ||
	       mprotect(T(1) + PAGE, PAGE, RW);
}

static int prepare_mthp(void)
{
	if (cow_write_file(THP "hugepages-64kB/enabled", "always"))
		return cow_skip("no 64 KiB huge pages");
	cow_write_file(THP "enabled", "never");
	if (map_again(MADV_HUGEPAGE))
		return -1;
	cow_track_range(T(0), 2 * TABLE, 4);
	return 0;
}

static int prepare_ksm(void)
{
	__u64 twin = cow_next_stamp(cow_self, 0);
	unsigned int i;

	if (prepare_anon())
		return -1;
	for (i = 0; i < world->nr_pages; i += 2)
		cow_stamp(world->page[i], twin);
	if (madvise(T(0), 2 * TABLE, MADV_MERGEABLE) || cow_ksm_scan())
		return cow_skip("no KSM");
	return 0;
}

/* Operations: the page comes back for ... */

static void op_read(void)
{
	if (swap_out())
		read_all();
}

static void op_write(void)
{
	if (swap_out())
		write_all();
}

/* Others find in the swap cache what one has brought back */
static void op_read_some(void)
{
	if (swap_out())
		read_some();
}

/* Some tables, of both halves, are the actor's own when all goes to swap */
static void op_own_table(void)
{
	DO(cow_try_write(T(0), 0));
	if (swap_out())
		read_all();
}

static void op_twice(void)
{
	if (!swap_out())
		return;
	read_all();
	swap_out();
	write_all();
}

static void op_fork(void)
{
	pid_t pid;
	int status = -1;

	if (!swap_out())
		return;
	pid = fork();
	if (!pid) {
		cow_try_write(T(1), 0);
		_exit(cow_peek(T(0)) != world->model[cow_self][0]);
	}
	DO(waitpid(pid, &status, 0) == pid);
	cow_log("status", 0, status);
	log_total();
}

static void op_mprotect(void)
{
	if (!swap_out())
		return;
	DO(mprotect(T(0), TABLE / 2, PROT_READ));
	log_total();
	DO(mprotect(T(0), TABLE / 2, RW));
}

/*
 * Nothing else of who does it goes to swap: that its entries have to be counted
 * and looked for, it owes to those who share the table.
 */
static void op_dontneed_others_locked(void)
{
	char line[256], perms[5];
	unsigned long start, end;
	FILE *f;

	f = fopen("/proc/self/maps", "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx %4s", &start, &end, perms) == 3 &&
		    perms[3] == 'p' &&
		    ((char *)end <= arena ||
		     (char *)start >= arena + ARENA_TABLES * TABLE))
			mlock((void *)start, end - start);
	if (f)
		fclose(f);
	if (!swap_out())
		return;
	/* First a copy of its own, and then what that holds */
	DO(mprotect(T(0), PAGE, PROT_READ));
	DO(madvise(T(0), TABLE, MADV_DONTNEED));
	log_total();
}

static void op_mremap(void)
{
	if (!swap_out())
		return;
	DO(mremap(T(0), TABLE / 2, TABLE / 2, MREMAP_MAYMOVE | MREMAP_FIXED,
		  T(3)));
	cow_log_pages("moved", T(3), TABLE / 2, 1);
}

static void op_munmap(void)
{
	if (!swap_out())
		return;
	DO(munmap(T(0) + TABLE / 2, TABLE));
	log_total();
}

static void op_dontneed(void)
{
	if (!swap_out())
		return;
	DO(madvise(T(0), TABLE, MADV_DONTNEED));
	log_total();
}

/* What one does not need any more is not to be taken from all */
static void op_free(void)
{
	unsigned int i;

	DO(madvise(T(0), 2 * TABLE, MADV_FREE));
	for (i = 0; i < 4; i++)
		cow_cgroup_reclaim(2);
	write_all();
}

static void op_read_then_free(void)
{
	if (!swap_out())
		return;
	read_all();
	op_free();
}

/* Who has brought it back is gone when it is to go to swap again */
static void op_read_then_leave(void)
{
	if (!swap_out())
		return;
	read_all();
	DO(madvise(T(0), 2 * TABLE, MADV_DONTNEED));
}

static void others_swap_out(void)
{
	cow_log("goes to swap again", 0, reclaim_half() >= world->nr_pages / 2);
}

static void op_willneed(void)
{
	if (!swap_out())
		return;
	DO(madvise(T(0), 2 * TABLE, MADV_WILLNEED));
	read_all();
}

static void op_mlock(void)
{
	if (!swap_out())
		return;
	DO(mlock(T(0), TABLE + TABLE / 2));
	log_total();
}

static void swap_off_and_on(bool own_table)
{
	char dev[128];

	if (cow_swap_device(dev, sizeof(dev), 4096) || !swap_out())
		return;
	if (own_table)
		DO(mprotect(T(0), PAGE, PROT_READ));
	DO(swapoff(dev));
	cow_log("still swapped", 0, count_in(T(0), 2 * TABLE, PM_SWAP));
	log_total();
	DO(swapon(dev, 0));
}

static void op_swapoff(void)
{
	swap_off_and_on(false);
}

/* One has got a copy of a table when all was in swap */
static void op_swapoff_copied(void)
{
	swap_off_and_on(true);
}

/*
 * A page that was brought back through a shared table belongs to all sharers:
 * who hands it to a pipe must not see what somebody writes later, whoever is
 * left by then.
 */
static int splice_pipe[2];

static int prepare_pipe(void)
{
	if (prepare_anon())
		return -1;
	return pipe(splice_pipe);
}

static void op_splice(void)
{
	struct iovec iov = { T(0), PAGE };

	if (!swap_out())
		return;
	DO(vmsplice(splice_pipe[1], &iov, 1, 0));
	/* Leave: with the page, or with all of the table */
	DO(madvise(T(0), TABLE, MADV_DONTNEED));
}

static void op_read_then_splice(void)
{
	if (!swap_out())
		return;
	read_some();
	op_splice();
}

static void others_write(void)
{
	DO(cow_try_write(world->page[1], 1));
	DO(cow_try_write(world->page[0], 0));
	DO(cow_try_write(world->page[0], 0));
}

static void finish_splice(void)
{
	char buf[PAGE];

	DO(read(splice_pipe[0], buf, PAGE));
	cow_log("in the pipe", 0, cow_peek(buf));
	close(splice_pipe[0]);
	close(splice_pipe[1]);
}

/* Swap areas */

/* What there is already, or one in memory: no I/O, and no swap cache */
enum device { DISK, ZRAM };

static int device_fd = -1;

static int open_zram(char *path, size_t len)
{
	char nr[16], size[64], val[32];

	if (cow_read_file("/sys/class/zram-control/hot_add", nr, sizeof(nr)) < 0)
		return -1;
	snprintf(path, len, "/dev/zram%s", nr);
	snprintf(size, sizeof(size), "/sys/block/zram%s/disksize", nr);
	snprintf(val, sizeof(val), "%uM", DEVICE_MB);
	if (cow_write_file(size, val))
		return -1;
	return open(path, O_RDWR | O_CLOEXEC);
}

/* The header that mkswap would write */
static int make_swap(int fd)
{
	static char header[PAGE];
	__u32 info[2] = { 1, (DEVICE_MB << 20) / PAGE - 1 };

	memcpy(header + 1024, info, sizeof(info));
	memcpy(header + PAGE - 10, "SWAPSPACE2", 10);
	if (pwrite(fd, header, PAGE, 0) != PAGE)
		return -1;
	return fsync(fd);
}

/* Have it used before all others; NULL or the reason why not */
static const char *device_start(enum device device, char *path, size_t len)
{
	if (device == DISK)
		return NULL;
	device_fd = open_zram(path, len);
	if (device_fd < 0)
		return "no zram";
	if (make_swap(device_fd) ||
	    swapon(path, SWAP_FLAG_PREFER | 1000))
		cow_fail("cannot swap on %s: %s", path, strerror(errno));
	return NULL;
}

static void device_stop(enum device device, const char *path)
{
	char reset[96];

	if (device == DISK)
		return;
	if (swapoff(path))
		cow_fail("swapoff %s: %s", path, strerror(errno));
	close(device_fd);
	snprintf(reset, sizeof(reset), "/sys/block/%s/reset", path + 5);
	cow_write_file(reset, "1");
	cow_write_file("/sys/class/zram-control/hot_remove",
		       path + strlen("/dev/zram"));
}

static const char *run_swap(const struct cow_op *op, enum device device,
			    enum cow_actor actor)
{
	char path[64];
	const char *why = device_start(device, path, sizeof(path));

	if (why)
		return why;
	why = cow_op_run(op, actor);
	device_stop(device, path);
	return why;
}

FIXTURE(swap) {
};

FIXTURE_VARIANT(swap) {
	struct cow_op op;
	enum device device;
};

FIXTURE_SETUP(swap) {}
FIXTURE_TEARDOWN(swap) {}

#define OF(kind)	.op.prepare = prepare_##kind
#define ON(where)	.device = where

FIXTURE_VARIANT_ADD(swap, read) { RUN(read), OF(anon) };
FIXTURE_VARIANT_ADD(swap, read_swapped) { RUN(read), OF(swapped) };
FIXTURE_VARIANT_ADD(swap, read_large) { RUN(read), OF(large) };
FIXTURE_VARIANT_ADD(swap, read_mthp) { RUN(read), OF(mthp) };
FIXTURE_VARIANT_ADD(swap, read_ksm) { RUN(read), OF(ksm) };
FIXTURE_VARIANT_ADD(swap, read_zram) { RUN(read), OF(anon), ON(ZRAM) };
FIXTURE_VARIANT_ADD(swap, read_zram_mthp) { RUN(read), OF(mthp), ON(ZRAM) };

FIXTURE_VARIANT_ADD(swap, write) { RUN(write), OF(anon) };
FIXTURE_VARIANT_ADD(swap, write_swapped) { RUN(write), OF(swapped) };
FIXTURE_VARIANT_ADD(swap, write_large) { RUN(write), OF(large) };
FIXTURE_VARIANT_ADD(swap, write_mthp) { RUN(write), OF(mthp) };
FIXTURE_VARIANT_ADD(swap, write_ksm) { RUN(write), OF(ksm) };
FIXTURE_VARIANT_ADD(swap, write_zram) { RUN(write), OF(anon), ON(ZRAM) };

FIXTURE_VARIANT_ADD(swap, free_zram) { RUN(free), OF(read_back), ON(ZRAM) };

FIXTURE_VARIANT_ADD(swap, read_then_free_zram) {
	RUN(read_then_free), OF(anon), ON(ZRAM)
};

FIXTURE_VARIANT_ADD(swap, read_then_leave_zram) {
	RUN(read_then_leave), OF(anon), ON(ZRAM),
	.op.others = others_swap_out,
};

FIXTURE_VARIANT_ADD(swap, dontneed_others_locked) {
	RUN(dontneed_others_locked), OF(anon)
};

FIXTURE_VARIANT_ADD(swap, cache_hit) {
	RUN(read_some), OF(anon),
	.op.others = read_all,
};

FIXTURE_VARIANT_ADD(swap, cache_hit_write) {
	RUN(read_some), OF(anon),
	.op.others = write_all,
};

FIXTURE_VARIANT_ADD(swap, cache_hit_zram) {
	RUN(read_some), OF(anon), ON(ZRAM),
	.op.others = read_all,
};

FIXTURE_VARIANT_ADD(swap, own_table) {
	RUN(own_table), OF(anon),
	.op.others = read_all,
};

FIXTURE_VARIANT_ADD(swap, own_table_write) {
	RUN(own_table), OF(anon),
	.op.others = write_all,
};

FIXTURE_VARIANT_ADD(swap, twice) { RUN(twice), OF(anon) };
FIXTURE_VARIANT_ADD(swap, fork) { RUN(fork), OF(anon) };
FIXTURE_VARIANT_ADD(swap, mprotect) { RUN(mprotect), OF(anon) };
FIXTURE_VARIANT_ADD(swap, mremap) { RUN(mremap), OF(anon) };
FIXTURE_VARIANT_ADD(swap, munmap) { RUN(munmap), OF(anon) };
FIXTURE_VARIANT_ADD(swap, dontneed) { RUN(dontneed), OF(anon) };
FIXTURE_VARIANT_ADD(swap, willneed) { RUN(willneed), OF(anon) };
FIXTURE_VARIANT_ADD(swap, mlock) { RUN(mlock), OF(anon) };

FIXTURE_VARIANT_ADD(swap, swapoff) { RUN(swapoff), OF(anon) };
FIXTURE_VARIANT_ADD(swap, swapoff_copied) { RUN(swapoff_copied), OF(anon) };
FIXTURE_VARIANT_ADD(swap, swapoff_swapped) { RUN(swapoff), OF(swapped) };
FIXTURE_VARIANT_ADD(swap, swapoff_large) { RUN(swapoff), OF(large) };
FIXTURE_VARIANT_ADD(swap, swapoff_mthp) { RUN(swapoff), OF(mthp) };
FIXTURE_VARIANT_ADD(swap, swapoff_ksm) { RUN(swapoff), OF(ksm) };

FIXTURE_VARIANT_ADD(swap, splice) {
	RUN(splice), OF(pipe),
	.op.others = others_write,
	.op.finish = finish_splice,
};

FIXTURE_VARIANT_ADD(swap, read_then_splice) {
	RUN(read_then_splice), OF(pipe),
	.op.others = others_write,
	.op.finish = finish_splice,
};

TEST_F_TIMEOUT(swap, parent, 120)
{
	COW_REPORT(run_swap(&variant->op, variant->device, ACTOR_PARENT));
}

TEST_F_TIMEOUT(swap, child, 120)
{
	COW_REPORT(run_swap(&variant->op, variant->device, ACTOR_CHILD));
}

TEST_F_TIMEOUT(swap, third, 120)
{
	COW_REPORT(run_swap(&variant->op, variant->device, ACTOR_THIRD));
}

TEST_F_TIMEOUT(swap, threaded, 120)
{
	COW_REPORT(run_swap(&variant->op, variant->device, ACTOR_THREADED));
}

TEST_F_TIMEOUT(swap, borrower, 120)
{
	COW_REPORT(run_swap(&variant->op, variant->device, ACTOR_BORROWER));
}

TEST_F_TIMEOUT(swap, lender, 120)
{
	COW_REPORT(run_swap(&variant->op, variant->device, ACTOR_LENDER));
}

/*
 * One writes what is in swap while the others read it, all at the same time:
 * the page comes back for all of them, or for the writer alone.
 */

#define RACE_ROUNDS	2

struct race {
	bool stop;
	unsigned int bad;
	unsigned int page;
	__u64 seen;
};

static struct race *race;
static pthread_t racer;

static void *read_own(void *arg)
{
	unsigned int i;

	while (!__atomic_load_n(&race->stop, __ATOMIC_RELAXED)) {
		for (i = 0; i < world->nr_pages; i++) {
			__u64 seen = cow_peek(world->page[i]);

			if (seen == world->model[cow_self][i])
				continue;
			race->page = i;
			race->seen = seen;
			__atomic_fetch_add(&race->bad, 1, __ATOMIC_SEQ_CST);
		}
	}
	return NULL;
}

static long call_start_racer(const long *arg)
{
	errno = pthread_create(&racer, NULL, read_own, NULL);
	return -!!errno;
}

static long call_stop_racer(const long *arg)
{
	return pthread_join(racer, NULL);
}

/* As much as the readers leave there */
static long call_reclaim(const long *arg)
{
	cow_cgroup_reclaim(2);
	return 0;
}

static long call_write_all(const long *arg)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++)
		if (cow_try_write(world->page[i], i))
			return -1;
	return 0;
}

static const char *run_race(enum cow_mode mode, const void *arg)
{
	static const struct cow_op op = { .prepare = prepare_anon };
	struct cow_op_case tc = { .op = &op, .actor = (long)arg };
	unsigned int i, late, actor = cow_op_proc(tc.actor);
	char dev[128];
	const char *why;

	if (!race)
		race = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (race == MAP_FAILED)
		cow_fail("mmap: %s", strerror(errno));
	memset(race, 0, sizeof(*race));
	why = cow_field_start(mode, &tc);
	if (why)
		return why;
	if (cow_swap_device(dev, sizeof(dev), 4096)) {
		cow_world_stop();
		return world->skip;
	}
	for (i = 0; i < 3; i++)
		if (i != actor && cow_call(i, call_start_racer, 0))
			cow_fail("pthread_create: %s", strerror(errno));
	for (i = 0; i < RACE_ROUNDS; i++) {
		cow_call(actor, call_reclaim, 0);
		/* Shared once more, so that the writer has to copy again */
		late = cow_fork(actor, COW_FORK);
		if (cow_call(actor, call_write_all, 0))
			cow_fail("process %u cannot write", actor);
		cow_exit(late);
		cow_call(actor, call_reclaim, 0);
		if (i & 1 && (swapoff(dev) || swapon(dev, 0)))
			cow_fail("swapoff and swapon: %s", strerror(errno));
		if (race->bad)
			break;
	}
	race->stop = true;
	for (i = 0; i < 3; i++)
		if (i != actor)
			cow_call(i, call_stop_racer, 0);
	if (race->bad)
		cow_fail("%u reads were wrong, one of page %u: %#llx",
			 race->bad, race->page, race->seen);
	cow_field_check(&tc, "at the end");
	cow_world_stop();
	return NULL;
}

FIXTURE(race) {
};

FIXTURE_SETUP(race) {}
FIXTURE_TEARDOWN(race) {}

TEST_F_TIMEOUT(race, parent, 300)
{
	COW_REPORT(cow_run_once(run_race, (void *)ACTOR_PARENT));
}

TEST_F_TIMEOUT(race, child, 300)
{
	COW_REPORT(cow_run_once(run_race, (void *)ACTOR_CHILD));
}

TEST_F_TIMEOUT(race, third, 300)
{
	COW_REPORT(cow_run_once(run_race, (void *)ACTOR_THIRD));
}

TEST_F_TIMEOUT(race, threaded, 300)
{
	COW_REPORT(cow_run_once(run_race, (void *)ACTOR_THREADED));
}

/*
 * A large process with many children.  While nobody writes its tables stay
 * shared, wherever the pages are.
 */

#define USUAL_MB	32
#define USUAL_CHILDREN	12
#define READERS		3
/* Counters of a process are exact to within this many pages */
#define RSS_SLACK	512

struct bulk {
	unsigned long pages;		/* of each process */
	unsigned int children;
	unsigned int bad;		/* wrong pages, shared by all processes */
	unsigned int bad_page;
	__u64 bad_seen;
	bool stop;
};

static struct bulk *bulk;
static char *big;
static pthread_t reader;

static __u64 bulk_stamp(unsigned long page)
{
	return 1ULL << 56 | (__u64)(page + 1) << 8;
}

static void bulk_check_page(unsigned long page)
{
	__u64 seen = cow_peek(big + page * PAGE);

	if (seen == bulk_stamp(page))
		return;
	bulk->bad_page = page;
	bulk->bad_seen = seen;
	__atomic_fetch_add(&bulk->bad, 1, __ATOMIC_SEQ_CST);
}

static long call_bulk_fill(const long *arg)
{
	unsigned long i;

	if (cow_cgroup_enter(bulk->pages / 256 * 9 / 8))
		return -1;
	big = mmap(NULL, bulk->pages * PAGE + TABLE, RW,
		   ANON | MAP_NORESERVE, -1, 0);
	if (big == MAP_FAILED)
		return -1;
	big = (char *)(((uintptr_t)big + TABLE - 1) & -TABLE);
	madvise(big, bulk->pages * PAGE, MADV_NOHUGEPAGE);
	for (i = 0; i < bulk->pages; i++)
		cow_stamp(big + i * PAGE, bulk_stamp(i));
	return 0;
}

/* Now here, now there: what is brought back must not be everything */
static void *read_about(void *arg)
{
	unsigned long page = (unsigned long)arg * 7919;

	while (!__atomic_load_n(&bulk->stop, __ATOMIC_RELAXED)) {
		page = (page * 5 + 12345) % bulk->pages;
		bulk_check_page(page);
		usleep(5000);
	}
	return NULL;
}

static long call_start_reader(const long *arg)
{
	errno = pthread_create(&reader, NULL, read_about, (void *)arg[0]);
	return -!!errno;
}

static long call_stop_reader(const long *arg)
{
	return pthread_join(reader, NULL);
}

static long call_bulk_read(const long *arg)
{
	unsigned long i;

	for (i = 0; i < bulk->pages; i++)
		bulk_check_page(i);
	return 0;
}

static long call_bulk_reclaim(const long *arg)
{
	return cow_cgroup_reclaim(arg[0]);
}

static long call_bulk_write(const long *arg)
{
	big[PAGE / 2 + 1] = 1;
	return 0;
}

static long page_tables(void)
{
	cow_fold_vmstat();
	return cow_vmstat("nr_page_table_pages");
}

static void bulk_check_readers(const char *when)
{
	if (bulk->bad)
		cow_fail("%s: %u reads were wrong, one of page %u: %#llx", when,
			 bulk->bad, bulk->bad_page, bulk->bad_seen);
}

/* Every process has every page once, and shares the tables of all */
static void bulk_check(enum cow_mode mode, const char *when, long tables)
{
	long limit = bulk->pages / TABLE_PAGES / 2, total, shared;
	unsigned int i;

	bulk_check_readers(when);
	for (i = 0; i < world->nr_procs; i++) {
		total = (cow_status(world->pid[i], "RssAnon") +
			 cow_status(world->pid[i], "VmSwap")) / 4;
		if (total < (long)bulk->pages - RSS_SLACK ||
		    total > (long)bulk->pages + 2 * RSS_SLACK)
			cow_fail("%s: process %u has %ld pages in memory and in swap, not %lu",
				 when, i, total, bulk->pages);
		shared = cow_shared_tables(i);
		if (mode == COW_ON && shared < (long)(bulk->pages / TABLE_PAGES))
			cow_fail("%s: process %u shares only %ld tables", when,
				 i, shared);
	}
	if (limit > 256)
		limit = 256;
	total = page_tables() - tables;
	if (mode == COW_ON && total >= limit)
		cow_fail("%s: %ld more page tables than before", when, total);
}

static void bulk_swap_out(void)
{
	long want = bulk->pages * 4 / 20 * 19;
	int i;

	for (i = 0; i < 1000; i++) {
		if (cow_status(world->pid[0], "VmSwap") >= want)
			return;
		cow_call(0, call_bulk_reclaim, 16);
	}
	cow_fail("only %ld kB were swapped out",
		 cow_status(world->pid[0], "VmSwap"));
}

static const char *bulk_start(enum cow_mode mode)
{
	unsigned int i;

	if (!bulk)
		bulk = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (bulk == MAP_FAILED)
		cow_fail("mmap: %s", strerror(errno));
	memset(bulk, 0, sizeof(*bulk));
	bulk->pages = cow_env("COW_PTE_SWAP_MB", USUAL_MB) * 256 &
		      -TABLE_PAGES;
	bulk->children = cow_env("COW_PTE_SWAP_CHILDREN", USUAL_CHILDREN);
	cow_world_start_big(mode, 1 + bulk->children);
	if (cow_call(0, call_bulk_fill, 0)) {
		if (!world->skip[0])
			cow_fail("no memory: %s", strerror(errno));
		cow_world_stop();
		return world->skip;
	}
	for (i = 0; i < bulk->children; i++)
		cow_fork(0, COW_FORK);
	for (i = 2; i < 2 + READERS && i <= bulk->children; i++)
		if (cow_call(i, call_start_reader, i))
			cow_fail("pthread_create: %s", strerror(errno));
	return NULL;
}

/* The readers end, everybody looks at everything, and one writes */
static void bulk_finish(enum cow_mode mode, long tables)
{
	long shared[COW_MAX_PROCS], lost;
	unsigned int i;

	bulk->stop = true;
	for (i = 2; i < 2 + READERS && i <= bulk->children; i++)
		cow_call(i, call_stop_reader, 0);
	for (i = 0; i < world->nr_procs; i++)
		cow_call(i, call_bulk_read, 0);
	bulk_check(mode, "at the end", tables);

	for (i = 0; i < world->nr_procs; i++)
		shared[i] = cow_shared_tables(i);
	cow_call(1, call_bulk_write, 0);
	for (i = 0; i < world->nr_procs && mode == COW_ON; i++) {
		lost = shared[i] - cow_shared_tables(i);
		if (lost != (i == 1 ? 1 : 0))
			cow_fail("process %u lost %ld tables by a write", i,
				 lost);
	}
	cow_world_stop();
}

static const char *run_bulk_read(enum cow_mode mode, const void *arg)
{
	const char *why = bulk_start(mode);
	long tables;

	if (why)
		return why;
	tables = page_tables();
	bulk_swap_out();
	bulk_check(mode, "swapped out", tables);
	cow_call(1, call_bulk_read, 0);
	bulk_check(mode, "after a child has read all", tables);
	bulk_swap_out();
	cow_call(0, call_bulk_read, 0);
	bulk_check(mode, "after the parent has read all", tables);
	bulk_finish(mode, tables);
	return NULL;
}

static const char *run_bulk_swapoff(enum cow_mode mode, const void *arg)
{
	char dev[128];
	const char *why = bulk_start(mode);
	long tables;

	if (why)
		return why;
	if (cow_swap_device(dev, sizeof(dev), 4096)) {
		cow_world_stop();
		return world->skip;
	}
	tables = page_tables();
	bulk_swap_out();
	bulk_check(mode, "swapped out", tables);
	if (swapoff(dev))
		cow_fail("swapoff: %s", strerror(errno));
	bulk_check(mode, "after swapoff", tables);
	if (swapon(dev, 0))
		cow_fail("swapon: %s", strerror(errno));
	bulk_swap_out();
	bulk_check(mode, "swapped out again", tables);
	bulk_finish(mode, tables);
	return NULL;
}

FIXTURE(bulk) {
};

FIXTURE_SETUP(bulk) {}
FIXTURE_TEARDOWN(bulk) {}

TEST_F_TIMEOUT(bulk, read, 1800)
{
	COW_REPORT(cow_run_once(run_bulk_read, NULL));
}

TEST_F_TIMEOUT(bulk, swapoff, 1800)
{
	COW_REPORT(cow_run_once(run_bulk_swapoff, NULL));
}

/*
 * Whoever it was that swapoff found the pages in, they are not its own: two of
 * three leave, and those of the last one can go to swap again.
 */
static unsigned int *nr_gone;

static int prepare_to_leave(void)
{
	nr_gone = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return nr_gone == MAP_FAILED ? -1 : prepare_anon();
}

static void leave(void)
{
	(*nr_gone)++;
	DO(madvise(T(0), 2 * TABLE, MADV_DONTNEED));
	cow_adopt();
}

static void op_swapoff_then_leave(void)
{
	swap_off_and_on(false);
	if (!world->skip[0])
		leave();
}

static void others_leave(void)
{
	if (*nr_gone < 2)
		leave();
	else
		others_swap_out();
}

FIXTURE_VARIANT_ADD(swap, swapoff_then_leave) {
	RUN(swapoff_then_leave),
	.op.prepare = prepare_to_leave,
	.op.others = others_leave,
};

/*
 * The parent, in whose tables reclaim looks first, leaves them while reclaim
 * takes pages from there: what is in such a table now is another one's.  Reclaim
 * that takes it for the parent's counts it for the wrong process.
 */

#define LEFT_TABLES	5
#define LEAVE_ROUNDS	16
#define LEFT_ENOUGH	30

static bool reclaim_stop;

static void map_left(void)
{
	unsigned int i;

	/* In the order in which reclaim will find them */
	for (i = 0; i < LEFT_TABLES * TABLE_PAGES; i++)
		*(T(0) + i * PAGE + PAGE / 2 + 8) = 1;
}

static long call_fill_left(const long *arg)
{
	if (cow_cgroup_enter(64) ||
	    mmap(T(0), LEFT_TABLES * TABLE, RW, ANON | MAP_FIXED, -1,
		 0) != T(0))
		return -1;
	madvise(T(0), LEFT_TABLES * TABLE, MADV_NOHUGEPAGE);
	map_left();
	cow_track_range(T(0), LEFT_TABLES * TABLE, 16);
	cow_adopt();
	return 0;
}

static long call_refill_left(const long *arg)
{
	map_left();
	cow_adopt();
	return 0;
}

static void *reclaim_main(void *arg)
{
	cow_use_cpu(1);
	while (!__atomic_load_n(&reclaim_stop, __ATOMIC_RELAXED))
		cow_cgroup_reclaim(1);
	return NULL;
}

/* Reclaim is in the middle of it */
static bool half_swapped(unsigned int table)
{
	unsigned int nr = count_in(T(table), TABLE, PM_SWAP);

	return nr > 0 && nr < TABLE_PAGES * 3 / 4;
}

/* arg[0]: drop them; returns how many were left at the right moment, or -1 */
static long call_leave(const long *arg)
{
	unsigned int t, last = TABLE_PAGES - 16, left = 0, spin;
	pthread_t thread;
	long nr = 0;
	char *page;

	cow_use_cpu(0);
	reclaim_stop = false;
	errno = pthread_create(&thread, NULL, reclaim_main, NULL);
	if (errno)
		return -1;
	for (spin = 0; spin < 2000 && nr < LEFT_TABLES; spin++) {
		for (t = 0; t < LEFT_TABLES; t++) {
			if (left & 1 << t || !half_swapped(t))
				continue;
			left |= 1 << t;
			page = T(t) + last * PAGE;
			if (arg[0] ? madvise(T(t), TABLE, MADV_DONTNEED) :
				     cow_try_write(page, (page - T(0)) / PAGE / 16))
				return -1;
			nr++;
		}
	}
	reclaim_stop = true;
	pthread_join(thread, NULL);
	if (arg[0])
		cow_adopt();
	return nr;
}

static const char *run_leave(enum cow_mode mode, const void *arg)
{
	unsigned int round, child = 0;
	long ret, nr = 0;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		return "needs two CPUs";
	cow_world_start(mode);
	if (cow_call(0, call_fill_left, 0)) {
		if (!world->skip[0])
			cow_fail("preparation failed: %s", strerror(errno));
		cow_world_stop();
		return world->skip;
	}
	for (round = 0; round < LEAVE_ROUNDS && nr < LEFT_ENOUGH; round++) {
		if (child)
			cow_fork_again(child);
		else
			child = cow_fork(0, COW_FORK);
		cow_must_share(mode, &(struct cow_mem){ .tables = LEFT_TABLES });
		ret = cow_call(0, call_leave, (long)arg);
		if (ret < 0)
			cow_fail("the parent cannot leave: %s", strerror(errno));
		nr += ret;
		cow_check_rss(0);
		cow_check_rss(child);
		cow_check_all("after the parent has left");
		cow_exit(child);
		cow_call(0, call_refill_left, 0);
	}
	ksft_print_msg("%ld tables left while reclaim was at it\n", nr);
	cow_world_stop();
	return nr ? NULL : "reclaim was never in the middle of a table";
}

FIXTURE(leave) {
};

FIXTURE_SETUP(leave) {}
FIXTURE_TEARDOWN(leave) {}

TEST_F_TIMEOUT(leave, by_copy, 300)
{
	COW_REPORT(cow_run_once(run_leave, (void *)0));
}

TEST_F_TIMEOUT(leave, by_drop, 300)
{
	COW_REPORT(cow_run_once(run_leave, (void *)1));
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
