// SPDX-License-Identifier: GPL-2.0
/*
 * Operations on all CPUs at once, in a tree of processes with two threads each.
 *
 * Nobody knows what the others do, but each process knows what it has written:
 * every page holds a stamp that was never used before.  A process that finds
 * something else in a page of its own, or a child that finds what was written
 * after it was born, has been given somebody else's memory.
 *
 * Beside that there are files that all of them map whole: each thread has pages
 * in them that only it changes, and everybody knows what these hold.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cow_pte_util.h"

#define MAX_SLOTS	14
#define NR_PAGES	(ARENA_TABLES * TABLE_PAGES)
#define STRIDE		8
#define NR_TRACKED	(NR_PAGES / STRIDE)
/* The threads share the table in the middle; in units of STRIDE pages */
#define MIDDLE		(NR_TRACKED / 2 + 21)
#define RW		(PROT_READ | PROT_WRITE)
#define ANON		(MAP_PRIVATE | MAP_ANONYMOUS)
/* Seconds until all have ended who were told to */
#define HANG		300

/* In every file: the pages of each thread, and a rest that is cut off and on */
#define FILE_TABLES	2
#define FILE_PAGES	(FILE_TABLES * TABLE_PAGES)
#define FILE_SIZE	(FILE_TABLES * TABLE)
#define OWN_PAGES	36
#define NR_OWNED	(MAX_SLOTS * 2 * OWN_PAGES)

enum { MEMFD, DISK, SYSV, NR_FILES };

/* What a page of a file holds; odd while its owner changes that */
struct file_page {
	unsigned int seq;
	__u64 val;
};

/* Shared by all */
struct board {
	int stop;
	int failed;
	unsigned int version;
	unsigned long nr_ops;
	unsigned long nr_forks;
	pid_t pid[MAX_SLOTS];
	/* Of each thread: odd while it has pages that may turn to zeroes */
	unsigned int frees[MAX_SLOTS][2];
	struct file_page file[NR_FILES][NR_OWNED];
	char why[256];
};

/* One thread: the part of the arena that only it changes */
struct worker {
	unsigned int from, nr;
	__u64 random;
	int pipe[2];
	char *away;
	char *file[NR_FILES];
};

static struct board *board;
static int file_fd[NR_FILES];	/* of SYSV the identifier */
static unsigned int slot;
static __u64 val[NR_TRACKED];
static struct worker workers[2];
static enum cow_mode cow_mode;

static struct {
	unsigned long long seed;
	unsigned int seconds;
	bool off;
} opt = { .seed = 1, .seconds = 20 };

static char *addr_of(unsigned int i)
{
	return arena + i * STRIDE * PAGE;
}

static __u64 new_stamp(unsigned int page)
{
	__u64 version = __atomic_add_fetch(&board->version, 1, __ATOMIC_RELAXED);

	return (__u64)(slot + 1) << 56 | (__u64)page << 40 | version << 8;
}

/* Say why, the first one only; everybody stops */
static void __noreturn __printf(1, 2) fail(const char *fmt, ...)
{
	va_list ap;

	if (!__atomic_exchange_n(&board->failed, 1, __ATOMIC_SEQ_CST)) {
		va_start(ap, fmt);
		vsnprintf(board->why, sizeof(board->why), fmt, ap);
		va_end(ap);
	}
	_exit(1);
}

/* Memory may be short, or made to look so: for what has to work in the end */
static void insist(long ret, const char *what, unsigned int *tries)
{
	if (ret != -1)
		*tries = 0;
	else if ((errno != ENOMEM && errno != EAGAIN) || ++*tries > 1000)
		fail("process %u: %s: %s", slot, what, strerror(errno));
	else
		usleep(1000);
}

#define INSIST(call) do {						\
	unsigned int __tries = 0;					\
									\
	do {								\
		insist((long)(call), #call, &__tries);			\
	} while (__tries);						\
} while (0)

static void verify(unsigned int i, const char *when)
{
	char buf[64], buf2[64];
	__u64 seen = cow_peek(addr_of(i));

	if (seen == val[i])
		return;
	fail("process %u, page %u at %p, %s: %s, expected %s", slot, i,
	     addr_of(i), when, cow_describe(seen, buf, sizeof(buf)),
	     cow_describe(val[i], buf2, sizeof(buf2)));
}

static void put(unsigned int i)
{
	__u64 stamp = new_stamp(i);

	cow_stamp(addr_of(i), stamp);
	val[i] = stamp;
	verify(i, "just written");
}

/*
 * Births and deaths
 */

static unsigned int slot_of(pid_t pid)
{
	unsigned int i;

	for (i = 0; i < MAX_SLOTS; i++)
		if (board->pid[i] == pid)
			break;
	return i;
}

/* Reap who has ended; the main process has also those without a parent */
static bool reap(int flags)
{
	int status;
	pid_t pid = waitpid(-1, &status, flags);
	unsigned int i;

	if (pid <= 0)
		return false;
	i = slot_of(pid);
	if (i < MAX_SLOTS)
		__atomic_store_n(&board->pid[i], 0, __ATOMIC_RELEASE);
	if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
		fail("process %u died of signal %d", i, WTERMSIG(status));
	return true;
}

static void __noreturn live(void);

/*
 * What the other thread of the parent was about is anybody's guess, so the
 * child takes what it finds there, if that was there when it was born.
 */
static void adopt(const struct worker *w, unsigned int born, bool lazy)
{
	unsigned int i;

	for (i = w->from; i < w->from + w->nr; i++) {
		__u64 seen = cow_peek(addr_of(i));

		if (seen == COW_SEGV) {
			INSIST(mmap(addr_of(i), STRIDE * PAGE, RW,
				    ANON | MAP_FIXED, -1, 0));
			seen = 0;
		}
		/* Half written it can be, too */
		if (seen && !(seen >> 63) &&
		    ((seen >> 40 & 0xffff) != i ||
			     (unsigned int)(seen >> 8) > born))
			fail("process %u, page %u: version %u from page %u, it was born at %u",
			     slot, i, (unsigned int)(seen >> 8),
			     (unsigned int)(seen >> 40) & 0xffff, born);
		val[i] = seen;
	}
	INSIST(mprotect(addr_of(w->from), w->nr * STRIDE * PAGE, RW));
	munlock(addr_of(w->from), w->nr * STRIDE * PAGE);
	for (i = w->from; i < w->from + w->nr; i++)
		if (lazy || val[i] >> 63)
			put(i);
}

static void do_move(struct worker *w, char *addr, size_t len)
{
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	/* More than one mapping cannot be moved, and memory may be short */
	if (mremap(addr, len, len, flags, w->away) == MAP_FAILED)
		return;
	INSIST(mremap(w->away, len, len, flags, addr));
	INSIST(mmap(w->away, len, PROT_NONE, ANON | MAP_FIXED | MAP_NORESERVE,
		    -1, 0));
}

/*
 * Files.  Each thread has a mapping of its own of each.
 */

static void map_file(struct worker *w, unsigned int f, int flags)
{
	if (f == SYSV)
		INSIST(shmat(file_fd[f], w->file[f], SHM_REMAP));
	else
		INSIST(mmap(w->file[f], FILE_SIZE, RW,
			    MAP_SHARED | MAP_FIXED | flags, file_fd[f], 0));
}

static __u64 file_stamp(unsigned int page)
{
	return new_stamp(page + NR_TRACKED);
}

/* Every page changes between these two only */
static struct file_page *begin_change(unsigned int f, unsigned int page)
{
	struct file_page *p = &board->file[f][page];

	__atomic_store_n(&p->seq, p->seq | 1, __ATOMIC_SEQ_CST);
	return p;
}

static void end_change(struct file_page *p, __u64 val)
{
	__atomic_store_n(&p->val, val, __ATOMIC_SEQ_CST);
	__atomic_store_n(&p->seq, p->seq + 1, __ATOMIC_SEQ_CST);
}

static void put_file(const struct worker *w, unsigned int f, unsigned int page)
{
	struct file_page *p = begin_change(f, page);
	__u64 stamp = file_stamp(page);

	cow_stamp(w->file[f] + page * PAGE, stamp);
	end_change(p, stamp);
}

/* By a system call, which changes the page where nobody has mapped it */
static void write_file(const struct worker *w, unsigned int f, unsigned int page)
{
	struct file_page *p = begin_change(f, page);
	__u64 stamp = file_stamp(page);
	char buf[PAGE];

	cow_fill_page(buf, stamp);
	if (pwrite(file_fd[f], buf, PAGE, page * PAGE) != PAGE)
		cow_stamp(w->file[f] + page * PAGE, stamp);
	end_change(p, stamp);
}

static void punch_file(const struct worker *w, unsigned int f,
		       unsigned int from, unsigned int nr)
{
	unsigned int i;
	int ret;

	for (i = from; i < from + nr; i++)
		begin_change(f, i);
	if (f == SYSV)
		ret = madvise(w->file[f] + from * PAGE, nr * PAGE, MADV_REMOVE);
	else
		ret = fallocate(file_fd[f],
				FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				from * PAGE, nr * PAGE);
	for (i = from; i < from + nr; i++) {
		if (ret)
			put_file(w, f, i);
		else
			end_change(&board->file[f][i], 0);
	}
}

static void verify_file(const struct worker *w, unsigned int f,
			unsigned int page, bool mapped, const char *when)
{
	char *addr = w->file[f] + page * PAGE;
	char page_buf[PAGE], buf[64], buf2[64];
	__u64 seen, want = 0;
	unsigned int seq = 0;

	if (page < NR_OWNED) {
		seq = __atomic_load_n(&board->file[f][page].seq,
				      __ATOMIC_SEQ_CST);
		want = __atomic_load_n(&board->file[f][page].val,
				       __ATOMIC_SEQ_CST);
	}
	if (!mapped && pread(file_fd[f], page_buf, PAGE, page * PAGE) != PAGE)
		return;
	seen = cow_peek(mapped ? addr : page_buf);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (page >= NR_OWNED) {
		if (!seen || (mapped && seen == COW_BUS) || seen >> 63 ||
		    (seen >> 40 & 0xffff) == page + NR_TRACKED)
			return;
		want = file_stamp(page);
	} else if (seq % 2 || seq != __atomic_load_n(&board->file[f][page].seq,
						     __ATOMIC_SEQ_CST)) {
		return;
	}
	if (seen != want)
		fail("process %u, file %u, page %u at %p, %s: %s, expected %s",
		     slot, f, page, addr, when,
		     cow_describe(seen, buf, sizeof(buf)),
		     cow_describe(want, buf2, sizeof(buf2)));
}

static void verify_file_part(const struct worker *w, unsigned int f,
			     unsigned int from, unsigned int nr,
			     const char *when)
{
	unsigned int i;

	for (i = from; i < from + nr; i += 1 + nr / 64)
		verify_file(w, f, i, true, when);
}

/* Who had the slot before may have been killed half-way */
static void repair_files(const struct worker *w)
{
	unsigned int i, f, from = (slot * 2 + (w - workers)) * OWN_PAGES;

	for (f = 0; f < NR_FILES; f++)
		for (i = from; i < from + OWN_PAGES; i++)
			if (board->file[f][i].seq % 2)
				put_file(w, f, i);
}

/* The end of it is no longer there, for a moment */
static void cut_file(unsigned int f)
{
	unsigned int tries = 0;

	if (f == SYSV)
		return;
	while (ftruncate(file_fd[f], (NR_OWNED + 1) * PAGE) && tries++ < 10)
		usleep(1000);
	INSIST(ftruncate(file_fd[f], FILE_SIZE));
}

static void do_file(struct worker *w)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_DONTNEED, MADV_PAGEOUT, MADV_COLD,
		MADV_WILLNEED, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
		MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLLAPSE,
	};
	unsigned int f = cow_random(&w->random) % NR_FILES, i;
	unsigned int own = (slot * 2 + (w - workers)) * OWN_PAGES;
	unsigned int mine = own + cow_random(&w->random) % OWN_PAGES;
	unsigned int nr_mine = 1 + cow_random(&w->random) % 8;
	unsigned int from = cow_random(&w->random) % NR_OWNED;
	unsigned int nr = 1 + cow_random(&w->random) % (FILE_PAGES / 2);
	char *addr;

	if (nr_mine > own + OWN_PAGES - mine)
		nr_mine = own + OWN_PAGES - mine;
	if (nr > NR_OWNED - from)
		nr = NR_OWNED - from;
	addr = w->file[f] + from * PAGE;
	switch (cow_random(&w->random) % 24) {
	case 0:
		punch_file(w, f, mine, nr_mine);
		break;
	case 1:
		if (f != SYSV)
			write_file(w, f, mine);
		break;
	case 2:
		cut_file(f);
		break;
	case 3:
		msync(w->file[f], FILE_SIZE, MS_SYNC);
		break;
	case 4:
		if (f == SYSV || munmap(addr, nr * PAGE))
			break;
		INSIST(mmap(addr, nr * PAGE, RW, MAP_SHARED | MAP_FIXED,
			    file_fd[f], from * PAGE));
		break;
	case 5:
		if (!mprotect(addr, nr * PAGE, PROT_READ))
			verify_file_part(w, f, from, nr, "read-only");
		INSIST(mprotect(addr, nr * PAGE, RW));
		break;
	case 6:
		do_move(w, w->file[f], FILE_SIZE);
		break;
	case 7:
		mlock(addr, nr * PAGE);
		munlock(addr, nr * PAGE);
		break;
	case 8:
	case 9:
		madvise(addr, nr * PAGE, advice[cow_random(&w->random) %
						ARRAY_LEN(advice)]);
		break;
	case 10:
		map_file(w, f, cow_random(&w->random) % 2 ? MAP_POPULATE : 0);
		break;
	case 11:
		for (i = 0; i < 8 && f != SYSV; i++)
			verify_file(w, f, (from + i * 61) % NR_OWNED, false,
				    "by read()");
		break;
	case 12:
		verify_file_part(w, f, from, nr, "one after the other");
		break;
	case 13:
		/* Whoever comes first is as good as any other */
		if (f == SYSV)
			cow_stamp(w->file[f] + NR_OWNED * PAGE,
				  file_stamp(NR_OWNED));
		break;
	default:
		for (i = mine; i < mine + nr_mine; i++)
			put_file(w, f, i);
	}
	for (i = 0; i < 12; i++)
		verify_file(w, f, cow_random(&w->random) % FILE_PAGES, true,
			    "later");
}

static void do_fork(struct worker *w)
{
	unsigned int i, mine, born, other = w == &workers[0];
	unsigned int *frees = &board->frees[slot][other], before;
	pid_t none = 0, pid;
	__u64 seed;

	for (i = 0; i < MAX_SLOTS; i++, none = 0)
		if (__atomic_compare_exchange_n(&board->pid[i], &none, -1, false,
						__ATOMIC_SEQ_CST,
						__ATOMIC_SEQ_CST))
			break;
	if (i == MAX_SLOTS)
		return;
	mine = slot;
	seed = cow_random(&w->random);
	before = __atomic_load_n(frees, __ATOMIC_SEQ_CST);
	pid = fork();
	if (pid) {
		if (pid < 0 && errno != ENOMEM && errno != EAGAIN)
			fail("process %u: fork: %s", mine, strerror(errno));
		__atomic_store_n(&board->pid[i], pid < 0 ? 0 : pid,
				 __ATOMIC_RELEASE);
		return;
	}
	born = __atomic_load_n(&board->version, __ATOMIC_RELAXED);
	slot = i;
	board->frees[slot][0] = 0;
	board->frees[slot][1] = 0;
	__atomic_add_fetch(&board->nr_forks, 1, __ATOMIC_RELAXED);
	for (i = w->from; i < w->from + w->nr; i++)
		verify(i, "just born");
	adopt(&workers[other], born, before % 2 ||
	      before != __atomic_load_n(frees, __ATOMIC_SEQ_CST));
	/* Of the other thread's mappings there may be anything */
	for (i = 0; i < NR_FILES; i++)
		map_file(&workers[other], i, 0);
	repair_files(w);
	repair_files(&workers[other]);
	workers[0].random = seed;
	workers[1].random = seed ^ 0x5555555555555555ULL;
	live();
}

static void do_exec(void)
{
	pid_t pid = vfork();

	if (!pid) {
		execl("/bin/true", "true", NULL);
		_exit(0);
	}
}

/*
 * What a thread does with its part.  It leaves it mapped and writable.
 */

static void random_part(struct worker *w, unsigned int *from, unsigned int *nr)
{
	static const unsigned int most[] = { 2, 8, TABLE_PAGES / STRIDE, NR_TRACKED };
	unsigned int left;

	*from = w->from + cow_random(&w->random) % w->nr;
	left = w->from + w->nr - *from;
	*nr = 1 + cow_random(&w->random) % most[cow_random(&w->random) % 4];
	if (*nr > left)
		*nr = left;
}

static void now_zero(unsigned int from, unsigned int nr)
{
	memset(&val[from], 0, nr * sizeof(val[0]));
}

static void verify_part(unsigned int from, unsigned int nr, const char *when)
{
	unsigned int i;

	for (i = from; i < from + nr; i++)
		verify(i, when);
}

static void do_protect(char *addr, size_t len, unsigned int from, unsigned int nr)
{
	if (mprotect(addr, len, PROT_READ) == 0)
		verify_part(from, nr, "read-only");
	INSIST(mprotect(addr, len, RW));
}

/* Nothing may be lost of what is written afterwards */
static void do_free(struct worker *w, char *addr, size_t len, unsigned int from,
		    unsigned int nr)
{
	unsigned int *frees = &board->frees[slot][w - workers], i;

	__atomic_add_fetch(frees, 1, __ATOMIC_SEQ_CST);
	madvise(addr, len, MADV_FREE);
	for (i = from; i < from + nr; i++)
		put(i);
	__atomic_add_fetch(frees, 1, __ATOMIC_SEQ_CST);
}

static void do_splice(struct worker *w, unsigned int i)
{
	struct iovec iov = { addr_of(i), PAGE };
	char page[PAGE], buf[64], buf2[64];
	__u64 was = val[i], seen;

	if (vmsplice(w->pipe[1], &iov, 1, 0) != PAGE)
		return;
	put(i);
	if (read(w->pipe[0], page, PAGE) != PAGE)
		fail("process %u: the pipe is empty", slot);
	seen = cow_peek(page);
	if (seen != was && seen != val[i])
		fail("process %u, page %u: the pipe holds %s, expected %s", slot,
		     i, cow_describe(seen, buf, sizeof(buf)),
		     cow_describe(was, buf2, sizeof(buf2)));
}

static void do_something(struct worker *w)
{
	static const int advice[] = {
		MADV_PAGEOUT, MADV_PAGEOUT, MADV_COLD, MADV_HUGEPAGE,
		MADV_COLLAPSE, MADV_NOHUGEPAGE, MADV_MERGEABLE,
		MADV_UNMERGEABLE, MADV_WILLNEED, MADV_POPULATE_WRITE,
		MADV_POPULATE_READ,
	};
	unsigned int i, from, nr;
	char *addr, buf[4096];
	size_t len;

	random_part(w, &from, &nr);
	addr = addr_of(from);
	len = nr * STRIDE * PAGE;
	switch (cow_random(&w->random) % 30) {
	case 0:
		do_fork(w);
		break;
	case 1:
		if (!madvise(addr, len, MADV_DONTNEED))
			now_zero(from, nr);
		break;
	case 2:
		if (munmap(addr, len))
			break;
		now_zero(from, nr);
		INSIST(mmap(addr, len, RW, ANON | MAP_FIXED, -1, 0));
		break;
	case 3:
		do_protect(addr, len, from, nr);
		break;
	case 4:
		do_move(w, addr, len);
		break;
	case 5:
		mlock(addr, len);
		munlock(addr, len);
		break;
	case 6:
		do_free(w, addr, len, from, nr);
		break;
	case 7:
	case 8:
	case 9:
		madvise(addr, len, advice[cow_random(&w->random) %
					  ARRAY_LEN(advice)]);
		break;
	case 10:
		cow_write_file("/proc/self/clear_refs", "4");
		break;
	case 11:
		cow_read_file("/proc/self/smaps_rollup", buf, sizeof(buf));
		break;
	case 12:
		do_splice(w, from);
		break;
	case 13:
		if (cow_mode == COW_ON)
			prctl(PR_SET_COW_PTE, cow_random(&w->random) % 4 > 0,
			      0, 0, 0);
		break;
	case 14:
		if (cow_random(&w->random) % 4 == 0)
			do_exec();
		break;
	case 15:
	case 16:
	case 17:
	case 18:
	case 19:
	case 20:
		do_file(w);
		break;
	default:
		nr = nr < 6 ? nr : 6;
		for (i = from; i < from + nr; i++)
			put(i);
	}
	for (i = 0; i < 12; i++)
		verify(w->from + cow_random(&w->random) % w->nr, "later");
	__atomic_add_fetch(&board->nr_ops, 1, __ATOMIC_RELAXED);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	while (!__atomic_load_n(&board->stop, __ATOMIC_RELAXED) &&
	       !__atomic_load_n(&board->failed, __ATOMIC_RELAXED)) {
		do_something(w);
		while (reap(WNOHANG))
			;
		/* The first process lives as long as the test */
		if (slot && cow_random(&w->random) % 150 == 0)
			_exit(0);
	}
	return NULL;
}

static void live(void)
{
	pthread_t thread;
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(workers); i++) {
		close(workers[i].pipe[0]);
		close(workers[i].pipe[1]);
		INSIST(pipe(workers[i].pipe));
	}
	for (i = 0; i < 1000; i++) {
		if (!pthread_create(&thread, NULL, work, &workers[1]))
			break;
		usleep(1000);
	}
	work(&workers[0]);
	if (i < 1000)
		pthread_join(thread, NULL);
	_exit(0);
}

static void make_files(void)
{
	unsigned int f, i;
	char *at = arena + 6 * ARENA_TABLES * TABLE;

	file_fd[MEMFD] = memfd_create("storm", MFD_CLOEXEC);
	file_fd[DISK] = cow_tmpfile();
	file_fd[SYSV] = shmget(IPC_PRIVATE, FILE_SIZE, IPC_CREAT | 0600);
	for (f = 0; f < NR_FILES; f++)
		if (file_fd[f] < 0 ||
		    (f != SYSV && ftruncate(file_fd[f], FILE_SIZE)))
			fail("cannot make file %u: %s", f, strerror(errno));
	for (i = 0; i < ARRAY_LEN(workers); i++)
		for (f = 0; f < NR_FILES; f++, at += FILE_SIZE + TABLE) {
			workers[i].file[f] = at;
			map_file(&workers[i], f, 0);
		}
	/* It goes when the last of us does */
	shmctl(file_fd[SYSV], IPC_RMID, NULL);
}

static void __noreturn first_process(void)
{
	unsigned int i;

	if (cow_mode == COW_ON && prctl(PR_SET_COW_PTE, 1, 0, 0, 0))
		fail("prctl: %s", strerror(errno));
	INSIST(mmap(arena, NR_PAGES * PAGE, RW, ANON | MAP_FIXED, -1, 0));
	workers[0].from = 0;
	workers[0].nr = MIDDLE;
	workers[1].from = MIDDLE;
	workers[1].nr = NR_TRACKED - MIDDLE;
	for (i = 0; i < ARRAY_LEN(workers); i++) {
		workers[i].random = opt.seed * 0x9e3779b97f4a7c15ULL + i + 1;
		workers[i].pipe[0] = -1;
		workers[i].pipe[1] = -1;
		workers[i].away = mmap(arena + 2 * (i + 1) * ARENA_TABLES * TABLE,
				       ARENA_TABLES * TABLE, PROT_NONE,
				       ANON | MAP_NORESERVE, -1, 0);
		if (workers[i].away == MAP_FAILED)
			fail("mmap: %s", strerror(errno));
	}
	make_files();
	for (i = 0; i < NR_TRACKED; i += 2)
		put(i);
	live();
}

/*
 * The main process: what the system does, and other processes
 */

static void disturb(__u64 *random)
{
	unsigned int i = cow_random(random) % MAX_SLOTS;
	pid_t pid = __atomic_load_n(&board->pid[i], __ATOMIC_ACQUIRE);
	unsigned long nodes[2] = { 1, 2 };
	char path[64], buf[4096];
	char dev[64];

	switch (cow_random(random) % 16) {
	case 0:
	case 1:
		/* Not the first, which is the only one that always forks */
		if (i && pid > 0)
			kill(pid, SIGKILL);
		break;
	case 2:
	case 3:
	case 4:
		cow_cgroup_reclaim(1 + cow_random(random) % 32);
		break;
	case 5:
		cow_write_file("/proc/sys/vm/compact_memory", "1");
		break;
	case 6:
		cow_write_file("/sys/kernel/mm/ksm/run",
			       cow_random(random) % 4 ? "1" : "2");
		break;
	case 7:
	case 8:
		if (pid > 0)
			syscall(SYS_migrate_pages, pid, 64,
				&nodes[cow_random(random) % 2],
				&nodes[cow_random(random) % 2]);
		break;
	case 9:
	case 10:
		snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
		if (pid > 0)
			cow_read_file(path, buf, sizeof(buf));
		break;
	case 11:
		snprintf(path, sizeof(path), "%d,0x%lx,0x%lx", pid, (long)arena,
			 (long)arena + NR_PAGES * PAGE);
		if (pid > 0)
			cow_write_file("/sys/kernel/debug/split_huge_pages",
				       path);
		break;
	case 12:
		if (cow_random(random) % 16 == 0 &&
		    !cow_swap_device(dev, sizeof(dev), LONG_MAX) &&
		    !syscall(SYS_swapoff, dev))
			syscall(SYS_swapon, dev, 0);
		break;
	case 13:
		if (cow_mode == COW_ON && cow_random(random) % 4 == 0) {
			cow_write_file(COW_SYSFS "enabled", "never");
			cow_set_file_mode(COW_OFF);
			usleep(3000);
			cow_set_system_mode(COW_ON);
			cow_set_file_mode(COW_ON);
		}
		break;
	default:
		usleep(2000);
	}
}

/* The kernel is to be as busy as it can with what it does by itself */
static void start_scanners(void)
{
	static const char * const file[][2] = {
		{ "/sys/kernel/mm/ksm/pages_to_scan", "2000" },
		{ "/sys/kernel/mm/ksm/sleep_millisecs", "5" },
		{ "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan", "4096" },
		{ "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "1" },
		{ "/proc/sys/kernel/numa_balancing", "1" },
	};
	size_t i;

	for (i = 0; i < ARRAY_LEN(file); i++)
		cow_write_file(file[i][0], file[i][1]);
}

static const char *run_storm(enum cow_mode mode, const void *arg)
{
	__u64 random = opt.seed * 0x9e3779b97f4a7c15ULL + 99;
	time_t end = time(NULL) + opt.seconds;
	pid_t pid;

	cow_mode = mode;
	cow_set_file_mode(mode);
	cow_prepare();
	cow_cgroup_enter(0);
	start_scanners();
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		cow_fail("fork: %s", strerror(errno));
	if (!pid)
		first_process();
	board->pid[0] = pid;
	while (time(NULL) < end && !__atomic_load_n(&board->failed, __ATOMIC_RELAXED)) {
		disturb(&random);
		while (reap(WNOHANG))
			;
	}
	board->stop = 1;
	alarm(HANG);
	while (reap(0) || errno == EINTR)
		;
	alarm(0);
	if (board->failed)
		cow_fail("%s", board->why);
	return NULL;
}

static const struct argp_option options[] = {
	{ "seed", 's', "N", 0, "Of the random numbers (default 1)", 0 },
	{ "time", 't', "SECONDS", 0, "How long (default 20)", 0 },
	{ "off", 'o', NULL, 0, "With the feature off", 0 },
	{ 0 }
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 's':
		opt.seed = cow_arg_number(state, arg, ~0ULL >> 1);
		break;
	case 't':
		opt.seconds = cow_arg_number(state, arg, 1000000);
		break;
	case 'o':
		opt.off = true;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.doc = "Operations on shared page tables on all CPUs at once.",
};

int main(int argc, char **argv)
{
	struct cow_usage usage = COW_USAGE;
	long shared, joined, left;
	const char *why;
	int status = 0;
	bool leaks;
	pid_t pid;

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	cow_without_rseq(argv);
	ksft_print_header();
	ksft_set_plan(1);
	cow_main_start();
	board = mmap(NULL, sizeof(*board), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		ksft_exit_fail_msg("no memory\n");
	ksft_print_msg("seed %llu, %u seconds\n", opt.seed, opt.seconds);
	cow_usage_start(&usage);
	shared = cow_vmstat("cow_pte_share");
	joined = cow_vmstat("cow_pte_join");
	left = cow_vmstat("cow_pte_leave");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		why = opt.off ? cow_run_off(run_storm, NULL) :
				cow_run_once(run_storm, NULL);
		if (why)
			ksft_print_msg("%s\n", why);
		fflush(stdout);
		_exit(why ? KSFT_SKIP : KSFT_PASS);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		ksft_exit_fail_msg("fork: %s\n", strerror(errno));
	leaks = cow_usage_grown(&usage);
	ksft_print_msg("ops %lu forks %lu, tables: %ld shared, %ld joined, %ld left\n",
		       board->nr_ops, board->nr_forks,
		       cow_vmstat("cow_pte_share") - shared,
		       cow_vmstat("cow_pte_join") - joined,
		       cow_vmstat("cow_pte_leave") - left);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
		ksft_print_msg("processes hang\n");
	if (leaks)
		ksft_print_msg("the processes leave something behind\n");
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		ksft_test_result_skip("storm\n");
	else
		ksft_test_result(WIFEXITED(status) && !WEXITSTATUS(status) && !leaks,
				 "storm\n");
	ksft_finished();
}
