// SPDX-License-Identifier: GPL-2.0
/*
 * Long random sequences of operations in a tree of processes, against a model.
 *
 * The model is a plain array per process: what each page of the arena is, and
 * what it holds.  It knows nothing of page tables.  After each step every
 * process has to see what the model says.  A sequence depends on its seed only,
 * and every step on its own numbers only, so steps can be left out: that is how
 * one that fails is made short before it is printed.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "cow_pte_ring.h"

#define MAX_PROCS	16
#define NR_PAGES	(ARENA_TABLES * TABLE_PAGES)
/* Of so many pages one is written and looked at */
#define STRIDE		8
#define NR_TRACKED	(NR_PAGES / STRIDE)
#define NR_FILES	2
/* Of pages that many processes have the same in */
#define SAME_OWNER	120
#define MAX_STEPS	100000
#define RW		(PROT_READ | PROT_WRITE)
#define ANON		(MAP_PRIVATE | MAP_ANONYMOUS)

#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC	0x8000
#endif

enum kind { NOTHING, PRIVATE, FILE_PRIVATE, FILE_SHARED };

enum {
	LOCKED		= 0x01,
	ONFAULT		= 0x02,
	NOT_FORKED	= 0x04,
	WIPED		= 0x08,
	/* Of a private mapping of a file: the process has its own copy */
	OWN		= 0x10,
	/* Given to MADV_FREE: zeroes, sooner or later */
	LAZY		= 0x20,
};

#define VMA_FLAGS	(LOCKED | ONFAULT | NOT_FORKED | WIPED)

struct page {
	__u64 val;
	__u16 off;		/* page of the file */
	__u8 kind;
	__u8 prot;
	__u8 flags;
	__u8 file;
	/* Was paged out: do not bring it back each time it is looked for */
	bool away;
};

struct proc {
	struct page page[NR_PAGES];
	bool all_locked;
	/* Registered with io_uring: its page, or -1 if that is gone; ring? */
	bool ring;
	int pin;
	/* In the pipe: page and what it held, if any */
	bool spliced;
	unsigned int splice_page;
	__u64 splice_val;
};

struct step {
	unsigned int op, proc, other, a, b, c;
};

/* Shared with the processes of the world and the one that made this one */
struct board {
	unsigned int at;
	unsigned int nr_done;
	unsigned int nr_forks;
	bool skip[NR_TRACKED];
	__u64 seen[NR_TRACKED];
};

static struct proc *model;
static struct board *board;
static __u64 file_val[NR_FILES][NR_PAGES];
static int file_fd[NR_FILES];
static enum cow_mode cow_mode;
static struct step now;
static const struct step *step = &now;
static __u64 random_state;

static struct {
	unsigned long long seed;
	unsigned int steps;
	unsigned int sequences;
	unsigned int seconds;
	bool off;
	bool verbose;
	const char *replay;
} opt = { .steps = 200, .sequences = 2 };

static const char *op_name(unsigned int op);

static void seed_random(__u64 seed)
{
	int i;

	random_state = seed * 0x9e3779b97f4a7c15ULL | 1;
	for (i = 0; i < 8; i++)
		cow_random(&random_state);
}

#define wrong(fmt, ...) \
	cow_fail("step %u (%s): " fmt, board->at, op_name(step->op), ##__VA_ARGS__)

/*
 * The model
 */

static char *addr_of(unsigned int page)
{
	return arena + page * PAGE;
}

static bool has_own(const struct page *p)
{
	return p->kind == PRIVATE || (p->kind == FILE_PRIVATE && p->flags & OWN);
}

static __u64 expected(const struct page *p)
{
	if (p->kind == NOTHING || !(p->prot & PROT_READ))
		return COW_SEGV;
	return has_own(p) ? p->val : file_val[p->file][p->off];
}

static void page_gone(unsigned int proc, unsigned int page)
{
	if (model[proc].pin == (int)page)
		model[proc].pin = -1;
}

static void model_unmap(unsigned int proc, unsigned int from, unsigned int nr)
{
	unsigned int i;

	for (i = from; i < from + nr; i++) {
		page_gone(proc, i);
		memset(&model[proc].page[i], 0, sizeof(struct page));
	}
}

/* What a private mapping had of its own is discarded */
static void model_zap(unsigned int proc, unsigned int i)
{
	struct page *p = &model[proc].page[i];

	if (!has_own(p))
		return;
	page_gone(proc, i);
	p->val = 0;
	p->flags &= ~(OWN | LAZY);
}

/* The page gets its own copy, as if written to */
static void model_own(unsigned int proc, unsigned int i)
{
	struct page *p = &model[proc].page[i];

	if (p->kind != FILE_PRIVATE || p->flags & OWN)
		return;
	p->val = file_val[p->file][p->off];
	p->flags |= OWN;
}

static void model_write(unsigned int proc, unsigned int i, __u64 val)
{
	struct page *p = &model[proc].page[i];

	p->away = false;
	if (p->kind == FILE_SHARED) {
		file_val[p->file][p->off] = val;
		return;
	}
	if (p->kind == FILE_PRIVATE)
		p->flags |= OWN;
	p->flags &= ~LAZY;
	p->val = val;
}

/* What mlock() and MADV_POPULATE_WRITE do; up to the first that is not there */
static bool model_populate(unsigned int proc, unsigned int from, unsigned int nr,
			   bool write)
{
	unsigned int i;

	for (i = from; i < from + nr; i++) {
		struct page *p = &model[proc].page[i];

		if (p->kind == NOTHING || !(p->prot & PROT_READ) ||
		    (write && !(p->prot & PROT_WRITE)))
			return false;
		if (p->prot & PROT_WRITE)
			model_own(proc, i);
		p->away = false;
	}
	return true;
}

static void model_away(unsigned int proc, unsigned int from, unsigned int nr)
{
	unsigned int i;

	for (i = from; i < from + nr; i++)
		model[proc].page[i].away = true;
}

static void model_fork(unsigned int parent, unsigned int child)
{
	struct proc *c = &model[child];
	unsigned int i;

	memcpy(c, &model[parent], sizeof(*c));
	c->all_locked = false;
	c->ring = false;
	c->pin = -1;
	c->spliced = false;
	for (i = 0; i < NR_PAGES; i++) {
		struct page *p = &c->page[i];

		p->flags &= ~(LOCKED | ONFAULT);
		if (p->flags & NOT_FORKED)
			memset(p, 0, sizeof(*p));
		else if (p->flags & WIPED)
			model_zap(child, i);
	}
}

/*
 * What the processes of the world do
 */

static int pipe_fd[2] = { -1, -1 };
static int uffd = -1;

static long call_look(const long *arg)
{
	unsigned int i;

	for (i = 0; i < NR_TRACKED; i++)
		if (!board->skip[i])
			board->seen[i] = cow_peek(addr_of(i * STRIDE));
	return 0;
}

static long call_write(const long *arg)
{
	return cow_try_write(addr_of(arg[0]), arg[0] / STRIDE);
}

static long call_fill(const long *arg)
{
	cow_stamp(addr_of(arg[0]), arg[1]);
	return 0;
}

static long call_mmap(const long *arg)
{
	char *addr = addr_of(arg[0]);
	int fd = arg[4] < 0 ? -1 : file_fd[arg[4]];

	return mmap(addr, arg[1] * PAGE, arg[2], arg[3] | MAP_FIXED, fd,
		    arg[5] * PAGE) == addr ? 0 : -1;
}

static long call_munmap(const long *arg)
{
	return munmap(addr_of(arg[0]), arg[1] * PAGE);
}

static long call_mprotect(const long *arg)
{
	return mprotect(addr_of(arg[0]), arg[1] * PAGE, arg[2]);
}

static long call_madvise(const long *arg)
{
	return madvise(addr_of(arg[0]), arg[1] * PAGE, arg[2]);
}

static long call_mremap(const long *arg)
{
	char *dest = addr_of(arg[2]);

	if (munmap(dest, arg[1] * PAGE))
		return -1;
	return mremap(addr_of(arg[0]), arg[1] * PAGE, arg[1] * PAGE,
		      arg[3] | MREMAP_MAYMOVE | MREMAP_FIXED, dest) == dest ? 0 : -1;
}

static long call_mlock(const long *arg)
{
	return arg[2] == 2 ? munlock(addr_of(arg[0]), arg[1] * PAGE) :
	       syscall(SYS_mlock2, addr_of(arg[0]), arg[1] * PAGE, arg[2]);
}

static long call_mlockall(const long *arg)
{
	return arg[0] ? mlockall(MCL_CURRENT) : munlockall();
}

static long call_prctl(const long *arg)
{
	return prctl(PR_SET_COW_PTE, arg[0], 0, 0, 0);
}

static long call_clear_refs(const long *arg)
{
	char val[] = { '0' + arg[0], '\0' };

	return cow_write_file("/proc/self/clear_refs", val);
}

static long call_scan(const long *arg)
{
	struct scan_region region[16];
	struct scan_arg scan = {
		.size = sizeof(scan),
		.start = (uintptr_t)addr_of(arg[0]),
		.end = (uintptr_t)addr_of(arg[0] + arg[1]),
		.vec = (uintptr_t)region,
		.vec_len = ARRAY_LEN(region),
		.category_anyof_mask = SCAN_CATEGORIES,
		.return_mask = SCAN_CATEGORIES,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	ioctl(fd, IOC_SCAN, &scan);
	close(fd);
	return 0;
}

static long call_vmsplice(const long *arg)
{
	struct iovec iov = { addr_of(arg[0]), PAGE };

	close(pipe_fd[0]);
	close(pipe_fd[1]);
	if (pipe(pipe_fd))
		return -1;
	return vmsplice(pipe_fd[1], &iov, 1, 0) == PAGE ? 0 : -1;
}

static long call_drain(const long *arg)
{
	char buf[PAGE];

	if (read(pipe_fd[0], buf, PAGE) != PAGE)
		return -1;
	board->seen[0] = cow_peek(buf);
	return 0;
}

static long call_pin(const long *arg)
{
	return cow_ring_open() || cow_ring_pin(addr_of(arg[0])) ? -1 : 0;
}

static long call_pin_fill(const long *arg)
{
	return cow_ring_fill(arg[0]);
}

static long call_pin_look(const long *arg)
{
	board->seen[0] = cow_ring_look();
	return 0;
}

static long call_unpin(const long *arg)
{
	cow_ring_close();
	return 0;
}

/* The page is stamped by this process in the name of the other */
static long call_vm_writev(const long *arg)
{
	char buf[PAGE];
	struct iovec local = { buf, PAGE };
	struct iovec remote = { addr_of(arg[1]), PAGE };

	cow_fill_page(buf, arg[2]);
	return process_vm_writev(arg[0], &local, 1, &remote, 1, 0) == PAGE ? 0 : -1;
}

static long call_process_madvise(const long *arg)
{
	struct iovec iov = { addr_of(arg[1]), arg[2] * PAGE };
	int fd = syscall(SYS_pidfd_open, arg[0], 0);

	syscall(SYS_process_madvise, fd, &iov, 1, arg[3], 0);
	close(fd);
	return 0;
}

static long call_mbind(const long *arg)
{
	unsigned long nodes = 1UL << arg[2];

	return syscall(SYS_mbind, addr_of(arg[0]), arg[1] * PAGE,
		       2 /* MPOL_BIND */, &nodes, 64, 2 /* MPOL_MF_MOVE */);
}

static int open_uffd(__u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return -1;
	}
	return fd;
}

static int uffd_register(int fd, const long *arg, __u64 mode)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)addr_of(arg[0]), arg[1] * PAGE },
		.mode = mode,
	};

	return ioctl(fd, UFFDIO_REGISTER, &reg);
}

/* Writes are resolved by the kernel: nobody has to answer them */
static long call_uffd_wp(const long *arg)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)addr_of(arg[0]), arg[1] * PAGE },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	close(uffd);
	uffd = open_uffd(UFFD_FEATURE_WP_ASYNC);
	if (uffd < 0 || uffd_register(uffd, arg, UFFDIO_REGISTER_MODE_WP))
		return 0;
	ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
	return 0;
}

/* Give it up, and with it whatever is registered */
static long call_uffd_close(const long *arg)
{
	close(uffd);
	uffd = -1;
	return 0;
}

/* Discard a range and fill in its first page; or move another page there */
static long call_uffd_fill(const long *arg)
{
	char *dest = addr_of(arg[0]), buf[2 * PAGE];
	char *src = (char *)(((uintptr_t)buf + PAGE - 1) & -PAGE);
	struct uffdio_copy copy = {
		.dst = (uintptr_t)dest, .src = (uintptr_t)src, .len = PAGE,
	};
	struct uffdio_zeropage zero = { .range = { (uintptr_t)dest, PAGE } };
	int fd, ret;

	if (madvise(dest, arg[1] * PAGE, MADV_DONTNEED))
		return -1;
	fd = open_uffd(0);
	if (fd < 0 || uffd_register(fd, arg, UFFDIO_REGISTER_MODE_MISSING))
		return -1;
	cow_fill_page(src, arg[2]);
	ret = arg[2] ? ioctl(fd, UFFDIO_COPY, &copy) :
		       ioctl(fd, UFFDIO_ZEROPAGE, &zero);
	close(fd);
	return ret;
}

/*
 * Looking at it
 */

/* On most occasions do not bring in what is not there */
static void choose_skips(unsigned int proc, bool all)
{
	unsigned int i;

	for (i = 0; i < NR_TRACKED; i++) {
		struct page *p = &model[proc].page[i * STRIDE];
		__u64 want = expected(p);
		bool cheap = want && want != COW_SEGV && !p->away;

		board->skip[i] = !all && !cheap && cow_random(&random_state) % 8;
		if (!board->skip[i])
			p->away = false;
	}
}

static void look(unsigned int proc, bool all)
{
	char buf[64], buf2[64];
	unsigned int i;

	choose_skips(proc, all);
	cow_call(proc, call_look, 0);
	for (i = 0; i < NR_TRACKED; i++) {
		struct page *p = &model[proc].page[i * STRIDE];
		__u64 want = expected(p), seen = board->seen[i];

		if (board->skip[i] || seen == want)
			continue;
		if (p->flags & LAZY && !seen) {
			p->val = 0;
			continue;
		}
		wrong("process %u, page %u at %p: %s, expected %s", proc,
		      i * STRIDE, addr_of(i * STRIDE),
		      cow_describe(seen, buf, sizeof(buf)),
		      cow_describe(want, buf2, sizeof(buf2)));
	}
}

/*
 * The counters hold what the page tables say.  Reclaim may come between two
 * looks, so what differs has to do so again and again.
 */
static void check_counters(unsigned int proc)
{
	pid_t pid = world->pid[proc];
	long rss, tables, swap, smaps_swap, locked = 0;
	char path[64];
	unsigned int i;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	for (i = 0; ; i++) {
		rss = cow_status(pid, "VmRSS");
		swap = cow_status(pid, "VmSwap");
		tables = cow_read_field(path, "Rss");
		smaps_swap = cow_read_field(path, "Swap");
		/* (There it counts what the file has in swap, too) */
		if (rss == tables && swap <= smaps_swap)
			break;
		if (i == 20)
			wrong("process %u: VmRSS %ld kB, its tables hold %ld; VmSwap %ld kB, %ld",
			      proc, rss, tables, swap, smaps_swap);
		usleep(1000 << i / 2);
	}
	if (model[proc].all_locked)
		return;
	for (i = 0; i < NR_PAGES; i++)
		locked += !!(model[proc].page[i].flags & LOCKED);
	if (cow_status(pid, "VmLck") != locked * (long)PAGE / 1024)
		wrong("process %u: VmLck is %ld kB, expected %ld", proc,
		      cow_status(pid, "VmLck"), locked * (long)PAGE / 1024);
}

/*
 * The steps.  Each returns whether it could be done at all.
 */

/* Ranges that split, cover and straddle tables */
static void range(unsigned int *from, unsigned int *nr)
{
	unsigned int left;

	*from = step->a % NR_PAGES;
	left = NR_PAGES - *from;
	switch (step->b % 4) {
	case 0:
		*from -= *from % TABLE_PAGES;
		*nr = TABLE_PAGES;
		return;
	case 1:
		*nr = 1 + step->b / 4 % 8;
		break;
	case 2:
		*nr = 1 + step->b / 4 % 100;
		break;
	default:
		*nr = 1 + step->b / 4 % (2 * TABLE_PAGES);
	}
	if (*nr > left)
		*nr = left;
}

/* The next tracked page, and how it is mapped */
static struct page *some_page(unsigned int *page)
{
	*page = step->a % NR_TRACKED * STRIDE;
	return &model[step->proc].page[*page];
}

static __u64 new_stamp(unsigned int page)
{
	return cow_next_stamp(step->proc, page / STRIDE);
}

/* A result must be one of two: it was, or was it the other? */
static bool succeeded(long ret, int other, const char *what)
{
	if (!ret)
		return true;
	if (errno != other)
		wrong("process %u: %s: %s", step->proc, what, strerror(errno));
	return false;
}

static void must(long ret, int want, const char *what)
{
	if (ret ? errno != want : want)
		wrong("process %u: %s: %s, expected %s", step->proc, what,
		      strerror(ret ? errno : 0), strerror(want));
}

static bool op_write(void)
{
	unsigned int i, first, nr = 1 + step->b % 6;

	some_page(&first);
	for (i = first; i < first + nr * STRIDE && i < NR_PAGES; i += STRIDE) {
		struct page *p = &model[step->proc].page[i];
		bool can = p->kind != NOTHING && p->prot & PROT_WRITE;
		long sig = cow_call(step->proc, call_write, i);

		if (!sig != can)
			wrong("process %u: write to page %u got signal %ld",
			      step->proc, i, sig);
		if (can)
			model_write(step->proc, i,
				    world->model[step->proc][i / STRIDE]);
	}
	return true;
}

/* The same everywhere, for KSM */
static bool op_write_same(void)
{
	__u64 same = (SAME_OWNER + 1ULL) << 56 | 1ULL << 8;
	unsigned int i, first;

	some_page(&first);
	for (i = first; i < first + 6 * STRIDE && i < NR_PAGES; i += STRIDE) {
		struct page *p = &model[step->proc].page[i];

		if (p->kind != PRIVATE || p->prot != RW)
			continue;
		cow_call(step->proc, call_fill, i, same);
		model_write(step->proc, i, same);
	}
	return true;
}

static unsigned int nr_alive(void)
{
	unsigned int i, alive = 0;

	for (i = 0; i < MAX_PROCS; i++)
		alive += cow_proc[i].alive;
	return alive;
}

/* That one, or if it is dead the next */
static unsigned int living(unsigned int proc)
{
	while (!cow_proc[proc].alive)
		proc = (proc + 1) % MAX_PROCS;
	return proc;
}

static bool op_fork(void)
{
	unsigned int child = step->other;
	static const enum cow_how how[] = {
		COW_FORK, COW_FORK, COW_CLONE, COW_CLONE3, COW_THREADED,
	};

	if (nr_alive() == MAX_PROCS)
		return false;
	while (cow_proc[child].alive)
		child = (child + 1) % MAX_PROCS;
	cow_fork_as(child, step->proc, how[step->a % ARRAY_LEN(how)]);
	model_fork(step->proc, child);
	board->nr_forks++;
	return true;
}

static bool op_exit(void)
{
	/* One has to stay, to fork the others */
	if (nr_alive() == 1)
		return false;
	cow_exit(step->proc);
	return true;
}

static bool op_exec(void)
{
	if (nr_alive() == 1)
		return false;
	cow_exec_start(step->proc);
	cow_exit_wait(step->proc);
	return true;
}

static bool op_kill(void)
{
	if (nr_alive() == 1)
		return false;
	kill(world->pid[step->proc], SIGKILL);
	cow_exit_wait(step->proc);
	return true;
}

static bool op_mmap(void)
{
	static const int prot[] = { RW, RW, RW, PROT_READ, PROT_NONE };
	unsigned int i, from, nr, off;
	bool file, shared;
	int flags, which, p;

	range(&from, &nr);
	p = prot[step->c % ARRAY_LEN(prot)];
	file = step->c / 8 % 2;
	shared = file && step->c / 16 % 2;
	which = step->c / 32 % NR_FILES;
	off = from + step->c / 64 % 3 * TABLE_PAGES;
	if (off + nr > NR_PAGES)
		off = from;
	flags = shared ? MAP_SHARED : MAP_PRIVATE;
	flags |= file ? 0 : MAP_ANONYMOUS;
	flags |= step->c / 256 % 4 ? 0 : MAP_POPULATE;
	flags |= step->c / 1024 % 4 ? 0 : MAP_NORESERVE;
	must(cow_call(step->proc, call_mmap, from, nr, p, flags,
		      file ? which : -1, file ? off : 0), 0, "mmap");
	model_unmap(step->proc, from, nr);
	for (i = 0; i < nr; i++) {
		struct page *page = &model[step->proc].page[from + i];

		page->kind = !file ? PRIVATE : shared ? FILE_SHARED : FILE_PRIVATE;
		page->prot = p;
		page->file = which;
		page->off = off + i;
	}
	if (flags & MAP_POPULATE)
		model_populate(step->proc, from, nr, false);
	return true;
}

/* Whole tables of a file, mapped by many alike: those are shared for good */
static bool op_share(void)
{
	unsigned int from = step->a % ARENA_TABLES * TABLE_PAGES;
	unsigned int nr = (1 + step->b % 2) * TABLE_PAGES;
	unsigned int i, off, which = step->c % NR_FILES;
	int prot = step->c / 8 % 4 ? RW : PROT_READ;
	bool populate = step->c / 32 % 4 == 0;

	if (from + nr > NR_PAGES)
		nr = NR_PAGES - from;
	off = step->b / 8 % 4 ? from : 0;
	must(cow_call(step->proc, call_mmap, from, nr, prot,
		      MAP_SHARED | (populate ? MAP_POPULATE : 0), which, off),
	     0, "mmap");
	model_unmap(step->proc, from, nr);
	for (i = 0; i < nr; i++)
		model[step->proc].page[from + i] = (struct page) {
			.kind = FILE_SHARED,
			.prot = prot,
			.file = which,
			.off = off + i,
		};
	return true;
}

static bool op_munmap(void)
{
	unsigned int from, nr;

	range(&from, &nr);
	must(cow_call(step->proc, call_munmap, from, nr), 0, "munmap");
	model_unmap(step->proc, from, nr);
	return true;
}

/* The first page of a range that is not mapped, or its end */
static unsigned int first_hole(unsigned int from, unsigned int nr)
{
	unsigned int i;

	for (i = from; i < from + nr; i++)
		if (model[step->proc].page[i].kind == NOTHING)
			break;
	return i;
}

static bool op_mprotect(void)
{
	static const int prots[] = { RW, PROT_READ, PROT_NONE };
	int prot = prots[step->c % ARRAY_LEN(prots)];
	unsigned int i, from, nr, end;

	range(&from, &nr);
	end = first_hole(from, nr);
	must(cow_call(step->proc, call_mprotect, from, nr, prot),
	     end < from + nr ? ENOMEM : 0, "mprotect");
	for (i = from; i < end; i++) {
		struct page *p = &model[step->proc].page[i];
		bool more = prot & ~p->prot & PROT_WRITE;

		p->prot = prot;
		/* Locked memory is there, and can be written to at once */
		if (more && p->flags & LOCKED && !(p->flags & ONFAULT))
			model_own(step->proc, i);
	}
	return true;
}

/* May it be one mapping? (The kernel may still have several.) */
static bool alike(unsigned int from, unsigned int nr)
{
	struct page *first = &model[step->proc].page[from];
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct page *p = &first[i];

		if (p->kind != first->kind || p->prot != first->prot ||
		    (p->flags ^ first->flags) & VMA_FLAGS)
			return false;
		if (p->kind >= FILE_PRIVATE &&
		    (p->file != first->file || p->off != first->off + i))
			return false;
	}
	return first->kind != NOTHING;
}

/* As many of the pages from here on as may be one mapping, at most nr */
static unsigned int alike_from(unsigned int from, unsigned int nr)
{
	while (nr && !alike(from, nr))
		nr = nr / 2 / STRIDE * STRIDE;
	return nr;
}

static bool op_mremap(void)
{
	unsigned int i, from, to, nr;
	struct proc *m = &model[step->proc];
	bool stay = step->c % 4 == 0;
	int pin = m->pin;

	range(&from, &nr);
	from -= from % STRIDE;
	nr = alike_from(from, (nr + STRIDE - 1) / STRIDE * STRIDE);
	to = step->c / 4 % NR_TRACKED * STRIDE;
	/* Half of them by whole tables, as these can be moved as such */
	if (step->c & 0x10000)
		to = to / TABLE_PAGES * TABLE_PAGES + from % TABLE_PAGES;
	if (!nr || to + nr > NR_PAGES || (to < from + nr && from < to + nr))
		return false;
	i = !succeeded(cow_call(step->proc, call_mremap, from, nr, to,
				stay ? MREMAP_DONTUNMAP : 0),
		       EFAULT, "mremap");
	model_unmap(step->proc, to, nr);
	if (i)
		return true;
	memcpy(&m->page[to], &m->page[from], nr * sizeof(m->page[0]));
	if (stay) {
		for (i = from; i < from + nr; i++) {
			model_zap(step->proc, i);
			m->page[i].flags &= ~(LOCKED | ONFAULT);
		}
	} else {
		model_unmap(step->proc, from, nr);
	}
	if (pin >= (int)from && pin < (int)(from + nr))
		m->pin = to + pin - from;
	return true;
}

/*
 * madvise() goes on after a hole and stops where it does not apply; in both
 * cases what it could do is done.
 */
static void advise(int advice, unsigned int stop_flags, bool anon_only,
		   void (*apply)(unsigned int proc, unsigned int page))
{
	unsigned int i, from, nr;
	int want = 0;

	range(&from, &nr);
	for (i = from; i < from + nr; i++) {
		struct page *p = &model[step->proc].page[i];

		if (p->kind == NOTHING) {
			want = ENOMEM;
		} else if (p->flags & stop_flags ||
			   (anon_only && p->kind != PRIVATE)) {
			want = EINVAL;
			break;
		}
	}
	must(cow_call(step->proc, call_madvise, from, nr, advice), want,
	     "madvise");
	while (i-- > from)
		if (model[step->proc].page[i].kind != NOTHING)
			apply(step->proc, i);
}

static bool op_dontneed(void)
{
	if (step->c % 4)
		advise(MADV_DONTNEED, LOCKED, false, model_zap);
	else
		advise(MADV_DONTNEED_LOCKED, 0, false, model_zap);
	return true;
}

static void model_free(unsigned int proc, unsigned int page)
{
	model[proc].page[page].flags |= LAZY;
}

static bool op_free(void)
{
	advise(MADV_FREE, LOCKED, true, model_free);
	return true;
}

static void model_dontfork(unsigned int proc, unsigned int page)
{
	model[proc].page[page].flags |= NOT_FORKED;
}

static void model_dofork(unsigned int proc, unsigned int page)
{
	model[proc].page[page].flags &= ~NOT_FORKED;
}

static void model_wipe(unsigned int proc, unsigned int page)
{
	model[proc].page[page].flags |= WIPED;
}

static void model_keep(unsigned int proc, unsigned int page)
{
	model[proc].page[page].flags &= ~WIPED;
}

static bool op_dontfork(void)
{
	if (step->c % 2)
		advise(MADV_DONTFORK, 0, false, model_dontfork);
	else
		advise(MADV_DOFORK, 0, false, model_dofork);
	return true;
}

static bool op_wipeonfork(void)
{
	if (step->c % 2)
		advise(MADV_WIPEONFORK, 0, true, model_wipe);
	else
		advise(MADV_KEEPONFORK, 0, false, model_keep);
	return true;
}

static bool op_populate(void)
{
	bool write = step->c % 2;
	unsigned int from, nr;

	range(&from, &nr);
	cow_call(step->proc, call_madvise, from, nr,
		 write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
	if (write)
		model_populate(step->proc, from, nr, true);
	return true;
}

/* Whether and how far these work is not for us to say: no content changes */
static bool op_advise(void)
{
	static const int advice[] = {
		MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLLAPSE, MADV_MERGEABLE,
		MADV_UNMERGEABLE, MADV_WILLNEED, MADV_RANDOM, MADV_NORMAL,
		MADV_DONTDUMP, MADV_COLD, MADV_COLLAPSE, MADV_HUGEPAGE,
		MADV_DODUMP, MADV_SEQUENTIAL,
	};
	unsigned int from, nr;

	range(&from, &nr);
	cow_call(step->proc, call_madvise, from, nr,
		 advice[step->c % ARRAY_LEN(advice)]);
	return true;
}

/* A hole in the file, by way of a mapping of it */
static bool op_remove(void)
{
	unsigned int i;
	struct page *p = some_page(&i);
	int want = 0;

	if (p->kind == NOTHING)
		want = ENOMEM;
	else if (p->flags & LOCKED || p->kind == PRIVATE)
		want = EINVAL;
	else if (p->kind == FILE_PRIVATE)
		want = EACCES;
	must(cow_call(step->proc, call_madvise, i, 1, MADV_REMOVE), want,
	     "MADV_REMOVE");
	if (!want)
		file_val[p->file][p->off] = 0;
	return true;
}

/*
 * The page is replaced under all who map it, or not if anybody else uses it; it
 * is lost to the system: one at a time.
 */
static bool op_offline(void)
{
	unsigned int i;

	some_page(&i);
	cow_call(step->proc, call_madvise, i, 1, MADV_SOFT_OFFLINE);
	return true;
}

static bool op_pageout(void)
{
	unsigned int i, from, nr;

	range(&from, &nr);
	cow_call(step->proc, call_madvise, from, nr, MADV_PAGEOUT);
	for (i = 0; i < MAX_PROCS; i++)
		if (cow_proc[i].alive)
			model_away(i, from, nr);
	return true;
}

static bool op_reclaim(void)
{
	unsigned int i;

	cow_cgroup_reclaim(1 + step->a % 16);
	for (i = 0; i < MAX_PROCS; i++)
		if (cow_proc[i].alive)
			model_away(i, 0, NR_PAGES);
	return true;
}

static bool op_mlock(void)
{
	/* mlock(), MLOCK_ONFAULT, munlock() */
	unsigned int i, from, nr, end, how = step->c % 3;
	bool bad = false;

	range(&from, &nr);
	end = first_hole(from, nr);
	for (i = from; i < end; i++) {
		struct page *p = &model[step->proc].page[i];

		p->flags &= ~(LOCKED | ONFAULT);
		if (how < 2)
			p->flags |= LOCKED | (how ? ONFAULT : 0);
	}
	if (!how && end == from + nr)
		bad = !model_populate(step->proc, from, nr, false);
	must(cow_call(step->proc, call_mlock, from, nr, how),
	     end < from + nr || bad ? ENOMEM : 0, "mlock");
	return true;
}

static bool op_mlockall(void)
{
	struct proc *m = &model[step->proc];
	bool lock = step->c % 2;
	unsigned int i;

	cow_call(step->proc, call_mlockall, lock);
	m->all_locked = lock;
	for (i = 0; i < NR_PAGES; i++) {
		if (m->page[i].kind == NOTHING)
			continue;
		m->page[i].flags &= ~(LOCKED | ONFAULT);
		if (!lock)
			continue;
		m->page[i].flags |= LOCKED;
		if (m->page[i].prot & PROT_WRITE)
			model_own(step->proc, i);
	}
	return true;
}

/* Write to the file, punch a hole in it, or cut it and make it long again */
static bool op_file(void)
{
	unsigned int i, k, from, nr, which = step->c / 4 % NR_FILES;
	int fd = file_fd[which];
	char buf[PAGE];

	range(&from, &nr);
	switch (step->c % 4) {
	case 0:
		for (i = from; i < from + nr; i++)
			file_val[which][i] = 0;
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      from * PAGE, nr * PAGE))
			wrong("hole: %s", strerror(errno));
		break;
	case 1:
		if (ftruncate(fd, from * PAGE) ||
		    ftruncate(fd, NR_PAGES * PAGE))
			wrong("ftruncate: %s", strerror(errno));
		for (i = from; i < NR_PAGES; i++)
			file_val[which][i] = 0;
		/* Private copies go, too */
		for (k = 0; k < MAX_PROCS; k++) {
			for (i = 0; i < NR_PAGES; i++) {
				struct page *p = &model[k].page[i];

				if (p->kind == FILE_PRIVATE &&
				    p->file == which && p->off >= from)
					model_zap(k, i);
			}
		}
		break;
	default:
		some_page(&from);
		file_val[which][from] = cow_next_stamp(COW_FILE_OWNER + which,
						       from / STRIDE);
		cow_fill_page(buf, file_val[which][from]);
		if (pwrite(fd, buf, PAGE, from * PAGE) != PAGE)
			wrong("pwrite: %s", strerror(errno));
	}
	return true;
}

static int write_mem(pid_t pid, char *addr, __u64 stamp)
{
	char path[64], buf[PAGE];
	int fd, err;
	ssize_t ret;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	cow_fill_page(buf, stamp);
	ret = pwrite(fd, buf, PAGE, (uintptr_t)addr);
	err = errno;
	close(fd);
	errno = err;
	return ret == PAGE ? 0 : -1;
}

static int write_ptrace(pid_t pid, char *addr, __u64 stamp)
{
	int i, ret = 0, status, err = 0;

	if (ptrace(PTRACE_SEIZE, pid, 0, 0) ||
	    ptrace(PTRACE_INTERRUPT, pid, 0, 0) ||
	    waitpid(pid, &status, __WALL) != pid)
		wrong("ptrace of process %u: %s", step->proc, strerror(errno));
	for (i = 0; i < COW_STAMP_SLOTS && !ret; i++) {
		ret = ptrace(PTRACE_POKEDATA, pid, addr + i * COW_SLOT_BYTES,
			     cow_stamp_word(stamp, i));
		err = errno;
	}
	ptrace(PTRACE_DETACH, pid, 0, 0);
	errno = err;
	return ret;
}

/* A debugger may write to what the process itself may only read */
static bool op_poke(void)
{
	pid_t pid = world->pid[step->proc];
	unsigned int page;
	struct page *p = some_page(&page);
	bool can = p->kind == PRIVATE || p->kind == FILE_PRIVATE ||
		   (p->kind == FILE_SHARED && p->prot & PROT_WRITE);
	__u64 stamp = new_stamp(page);
	long ret;

	if (step->c % 2)
		ret = write_mem(pid, addr_of(page), stamp);
	else
		ret = write_ptrace(pid, addr_of(page), stamp);
	must(ret, can ? 0 : EIO, "write by a debugger");
	if (can)
		model_write(step->proc, page, stamp);
	return true;
}

static bool op_vm_writev(void)
{
	pid_t pid = world->pid[step->proc];
	unsigned int page;
	struct page *p = some_page(&page);
	bool can = p->kind != NOTHING && p->prot & PROT_WRITE;
	__u64 stamp = new_stamp(page);

	must(cow_call(living(step->other), call_vm_writev, pid, page, stamp),
	     can ? 0 : EFAULT, "process_vm_writev");
	if (can)
		model_write(step->proc, page, stamp);
	return true;
}

static bool op_process_madvise(void)
{
	static const int advice[] = { MADV_PAGEOUT, MADV_COLD, MADV_COLLAPSE };
	unsigned int from, nr;

	range(&from, &nr);
	cow_call(living(step->other), call_process_madvise, world->pid[step->proc],
		 from, nr, advice[step->c % ARRAY_LEN(advice)]);
	model_away(step->proc, from, nr);
	return true;
}

/* What is in the pipe is what this process had there then, or has put since */
static void drain(unsigned int proc)
{
	struct proc *m = &model[proc];
	char buf[64], buf2[64];
	__u64 seen;

	if (cow_call(proc, call_drain, 0))
		wrong("process %u: pipe: %s", proc, strerror(errno));
	m->spliced = false;
	seen = board->seen[0];
	if (seen == m->splice_val || seen >> 56 == SAME_OWNER + 1 ||
	    (seen >> 56 == proc + 1 &&
	     (seen >> 40 & 0xffff) == m->splice_page / STRIDE))
		return;
	wrong("process %u: the pipe holds %s, spliced was %s", proc,
	      cow_describe(seen, buf, sizeof(buf)),
	      cow_describe(m->splice_val, buf2, sizeof(buf2)));
}

static bool op_splice(void)
{
	struct proc *m = &model[step->proc];
	unsigned int page;
	struct page *p = some_page(&page);

	if (m->spliced) {
		drain(step->proc);
		return true;
	}
	if (!has_own(p) || p->prot != RW || p->flags & LAZY)
		return false;
	must(cow_call(step->proc, call_vmsplice, page), 0, "vmsplice");
	m->spliced = true;
	m->splice_page = page;
	m->splice_val = p->val;
	return true;
}

/* Pin a page; write through the pin, and look; unpin */
static bool op_pin(void)
{
	struct proc *m = &model[step->proc];
	unsigned int page;
	struct page *p;
	__u64 stamp;

	if (!m->ring) {
		p = some_page(&page);
		if ((p->kind != PRIVATE && p->kind != FILE_PRIVATE) ||
		    p->prot != RW)
			return false;
		if (cow_call(step->proc, call_pin, page)) {
			if (world->skip[0])
				return false;
			wrong("process %u: pin: %s", step->proc, strerror(errno));
		}
		model_own(step->proc, page);
		p->flags &= ~LAZY;
		m->ring = true;
		m->pin = page;
		return true;
	}
	if (step->c % 4 == 0) {
		cow_call(step->proc, call_unpin, 0);
		m->ring = false;
		m->pin = -1;
		return true;
	}
	stamp = new_stamp(m->pin < 0 ? 0 : m->pin);
	must(cow_call(step->proc, call_pin_fill, stamp), 0, "write through the pin");
	cow_call(step->proc, call_pin_look, 0);
	if (board->seen[0] != stamp)
		wrong("process %u: the pinned page does not hold what was written",
		      step->proc);
	if (m->pin >= 0)
		model_write(step->proc, m->pin, stamp);
	return true;
}

static bool op_uffd_wp(void)
{
	unsigned int from, nr;

	range(&from, &nr);
	cow_call(step->proc, step->c % 4 ? call_uffd_wp : call_uffd_close, from,
		 nr);
	return true;
}

static bool op_uffd_fill(void)
{
	unsigned int i, page, nr;
	struct page *p = some_page(&page);
	__u64 stamp = step->c % 4 ? new_stamp(page) : 0;

	nr = alike_from(page, STRIDE);
	if (!nr || p->kind != PRIVATE || p->prot != RW || p->flags & LOCKED)
		return false;
	/* Where the other one is registered, it is busy */
	cow_call(step->proc, call_uffd_close, 0);
	must(cow_call(step->proc, call_uffd_fill, page, nr, stamp), 0,
	     "userfaultfd");
	for (i = page; i < page + nr; i++)
		model_zap(step->proc, i);
	model_write(step->proc, page, stamp);
	return true;
}

static bool op_clear_refs(void)
{
	cow_call(step->proc, call_clear_refs, step->c % 4 ? 4 : 1);
	return true;
}

static bool op_scan(void)
{
	unsigned int from, nr;

	range(&from, &nr);
	cow_call(step->proc, call_scan, from, nr);
	return true;
}

static bool op_migrate(void)
{
	unsigned long from = 1, to = 2;
	unsigned int first, nr;

	range(&first, &nr);
	if (step->c % 2)
		cow_call(step->proc, call_mbind, first, nr, step->c / 4 % 2);
	else if (step->c / 2 % 2)
		syscall(SYS_migrate_pages, world->pid[step->proc], 64, &from, &to);
	else
		syscall(SYS_migrate_pages, world->pid[step->proc], 64, &to, &from);
	return true;
}

static bool op_split(void)
{
	unsigned int from, nr;
	char buf[64];

	range(&from, &nr);
	snprintf(buf, sizeof(buf), "%d,0x%lx,0x%lx", world->pid[step->proc],
		 (long)addr_of(from), (long)addr_of(from + nr));
	cow_write_file("/sys/kernel/debug/split_huge_pages", buf);
	return true;
}

static bool op_compact(void)
{
	cow_write_file("/proc/sys/vm/compact_memory", "1");
	return true;
}

static bool op_ksm(void)
{
	if (step->c % 2)
		cow_ksm_scan();
	else
		cow_write_file("/sys/kernel/mm/ksm/run", "2");
	return true;
}

static bool op_swapoff(void)
{
	char dev[64];

	if (cow_swap_device(dev, sizeof(dev), LONG_MAX))
		return false;
	/* It may be too much for the memory there is */
	if (!syscall(SYS_swapoff, dev) && syscall(SYS_swapon, dev, 0))
		wrong("swapon %s: %s", dev, strerror(errno));
	return true;
}

static bool op_prctl(void)
{
	if (cow_mode == COW_OFF)
		return false;
	must(cow_call(step->proc, call_prctl, step->c % 3 > 0), 0, "prctl");
	return true;
}

static bool op_system_mode(void)
{
	static const char * const word[] = {
		"never", "prctl", "always", "prctl",
	};

	if (cow_mode == COW_OFF)
		return false;
	cow_write_file(step->c / 4 % 2 ? COW_SYSFS "enabled" : COW_SYSFS "file",
		       word[step->c % ARRAY_LEN(word)]);
	return true;
}

static const struct {
	const char *name;
	bool (*run)(void);
	unsigned int weight;
} ops[] = {
	{ "write", op_write, 160 },
	{ "write_same", op_write_same, 12 },
	{ "fork", op_fork, 110 },
	{ "exit", op_exit, 20 },
	{ "exec", op_exec, 8 },
	{ "kill", op_kill, 14 },
	{ "mmap", op_mmap, 40 },
	{ "share", op_share, 35 },
	{ "munmap", op_munmap, 18 },
	{ "mprotect", op_mprotect, 40 },
	{ "mremap", op_mremap, 40 },
	{ "dontneed", op_dontneed, 25 },
	{ "free", op_free, 15 },
	{ "dontfork", op_dontfork, 8 },
	{ "wipeonfork", op_wipeonfork, 8 },
	{ "populate", op_populate, 15 },
	{ "advise", op_advise, 30 },
	{ "remove", op_remove, 6 },
	{ "offline", op_offline, 4 },
	{ "pageout", op_pageout, 30 },
	{ "reclaim", op_reclaim, 10 },
	{ "mlock", op_mlock, 20 },
	{ "mlockall", op_mlockall, 3 },
	{ "file", op_file, 20 },
	{ "poke", op_poke, 25 },
	{ "vm_writev", op_vm_writev, 15 },
	{ "process_madvise", op_process_madvise, 10 },
	{ "splice", op_splice, 20 },
	{ "pin", op_pin, 30 },
	{ "uffd_wp", op_uffd_wp, 10 },
	{ "uffd_fill", op_uffd_fill, 15 },
	{ "clear_refs", op_clear_refs, 10 },
	{ "scan", op_scan, 5 },
	{ "migrate", op_migrate, 15 },
	{ "split", op_split, 5 },
	{ "compact", op_compact, 3 },
	{ "ksm", op_ksm, 4 },
	{ "swapoff", op_swapoff, 2 },
	{ "prctl", op_prctl, 8 },
	{ "system_mode", op_system_mode, 4 },
};

static const char *op_name(unsigned int op)
{
	return ops[op].name;
}

/*
 * A sequence
 */

struct sequence {
	struct step *step;
	unsigned int nr;
	__u64 seed;
};

static void generate(struct sequence *seq, __u64 seed)
{
	unsigned int i, op, at, total = 0;
	struct step *s;

	for (op = 0; op < ARRAY_LEN(ops); op++)
		total += ops[op].weight;
	seed_random(seed);
	seq->seed = seed;
	seq->nr = opt.steps;
	for (i = 0; i < seq->nr; i++) {
		s = &seq->step[i];
		at = cow_random(&random_state) % total;
		for (op = 0; at >= ops[op].weight; op++)
			at -= ops[op].weight;
		s->op = op;
		s->proc = cow_random(&random_state) % MAX_PROCS;
		s->other = cow_random(&random_state) % MAX_PROCS;
		s->a = cow_random(&random_state) % 1000000;
		s->b = cow_random(&random_state) % 1000000;
		s->c = cow_random(&random_state) % 1000000;
	}
}

static void check_all(bool all, unsigned int counters_of)
{
	unsigned int i;

	for (i = 0; i < MAX_PROCS; i++) {
		if (!cow_proc[i].alive)
			continue;
		look(i, all);
		if (all || i == counters_of)
			check_counters(i);
	}
}

static void make_files(void)
{
	unsigned int i;

	file_fd[0] = memfd_create("model", MFD_CLOEXEC);
	file_fd[1] = cow_tmpfile();
	for (i = 0; i < NR_FILES; i++)
		if (file_fd[i] < 0 || ftruncate(file_fd[i], NR_PAGES * PAGE))
			cow_fail("cannot make a file: %s", strerror(errno));
}

static void print_step(unsigned int i, const struct step *s)
{
	ksft_print_msg("%u step: %s %u %u %u %u %u\n", i, op_name(s->op),
		       s->proc, s->other, s->a, s->b, s->c);
	fflush(stdout);
}

static const char *run_steps(enum cow_mode mode, const void *arg)
{
	const struct sequence *seq = arg;
	static struct proc procs[MAX_PROCS];
	unsigned int i, proc;

	cow_mode = mode;
	cow_set_file_mode(mode);
	model = procs;
	model[0].pin = -1;
	for (i = 0; i < NR_PAGES; i++)
		model[0].page[i].kind = PRIVATE;
	make_files();
	/* Some steps are about reclaim; without a cgroup these do nothing */
	cow_cgroup_enter(0);
	cow_world_start_big(mode, MAX_PROCS);
	for (i = 0; i < NR_PAGES; i += STRIDE)
		cow_track(addr_of(i));
	for (i = 0; i < seq->nr; i++) {
		now = seq->step[i];
		now.proc = living(now.proc);
		board->at = i;
		if (opt.verbose)
			print_step(i, &seq->step[i]);
		if (!ops[step->op].run())
			continue;
		board->nr_done++;
		/* Neither may this depend on the steps before */
		seed_random(seq->seed + i);
		check_all(i % 32 == 31, cow_random(&random_state) % MAX_PROCS);
	}
	for (proc = 0; proc < MAX_PROCS; proc++)
		if (cow_proc[proc].alive && model[proc].spliced)
			drain(proc);
	check_all(true, 0);
	world->nr_procs = MAX_PROCS;
	cow_world_stop();
	return NULL;
}

/* How it ended: as a test program does */
static int run_once(const struct sequence *seq, bool quiet)
{
	const char *why;
	int status;
	pid_t pid;

	board->nr_done = 0;
	board->nr_forks = 0;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		if (quiet)
			dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
		why = opt.off ? cow_run_off(run_steps, seq) :
				cow_run_once(run_steps, seq);
		if (why)
			ksft_print_msg("%s\n", why);
		fflush(stdout);
		_exit(why ? KSFT_SKIP : KSFT_PASS);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		ksft_exit_fail_msg("fork: %s\n", strerror(errno));
	return WIFEXITED(status) ? WEXITSTATUS(status) : KSFT_FAIL;
}

/* Leave out what it does not need to fail; give up after a while */
static void shorten(struct sequence *seq)
{
	struct sequence less = {
		.step = calloc(seq->nr, sizeof(*less.step)),
		.seed = seq->seed,
	};
	unsigned int from, len, tries = 0, left;

	seq->nr = board->at + 1;
	for (len = seq->nr / 2; len && tries < 200; len /= 2) {
		for (from = 0; from < seq->nr && tries < 200; ) {
			left = seq->nr - from < len ? seq->nr - from : len;
			less.nr = seq->nr - left;
			memcpy(less.step, seq->step, from * sizeof(*less.step));
			memcpy(less.step + from, seq->step + from + left,
			       (less.nr - from) * sizeof(*less.step));
			tries++;
			if (run_once(&less, true) == KSFT_FAIL) {
				seq->nr = less.nr;
				memcpy(seq->step, less.step,
				       less.nr * sizeof(*less.step));
			} else {
				from += len;
			}
		}
	}
	free(less.step);
	ksft_print_msg("shortened to %u steps, in %u runs\n", seq->nr, tries);
}

static void report(struct sequence *seq, const char *name)
{
	long shared = cow_vmstat("cow_pte_share"), broken = cow_vmstat("cow_pte_break");
	long joined = cow_vmstat("cow_pte_join");
	struct cow_usage usage = COW_USAGE;
	int i, status = KSFT_FAIL;
	bool leaks = true;

	for (i = 0; i < 3 && leaks; i++) {
		cow_usage_start(&usage);
		status = run_once(seq, false);
		leaks = status == KSFT_PASS && cow_usage_grown(&usage);
	}
	ksft_print_msg("ops %u forks %u tables shared %ld broken %ld joined %ld\n",
		       board->nr_done, board->nr_forks,
		       cow_vmstat("cow_pte_share") - shared,
		       cow_vmstat("cow_pte_break") - broken,
		       cow_vmstat("cow_pte_join") - joined);
	if (leaks)
		ksft_print_msg("the processes leave something behind\n");
	if (status == KSFT_FAIL) {
		shorten(seq);
		ksft_print_msg("replay with: model -s %llu -r FILE, with these lines in it\n",
			       seq->seed);
		for (i = 0; i < (int)seq->nr; i++)
			print_step(i, &seq->step[i]);
	}
	if (status == KSFT_SKIP)
		ksft_test_result_skip("%s\n", name);
	else
		ksft_test_result(status == KSFT_PASS && !leaks, "%s\n", name);
}

/* As it was printed */
static void read_steps(struct sequence *seq)
{
	FILE *f = fopen(opt.replay, "re");
	char line[256], name[32], *from;
	struct step *s;

	if (!f)
		ksft_exit_fail_msg("%s: %s\n", opt.replay, strerror(errno));
	while (seq->nr < MAX_STEPS && fgets(line, sizeof(line), f)) {
		s = &seq->step[seq->nr];
		from = strstr(line, "step: ");
		if (!from || sscanf(from, "step: %31s %u %u %u %u %u", name,
				    &s->proc, &s->other, &s->a, &s->b,
				    &s->c) != 6)
			continue;
		for (s->op = 0; s->op < ARRAY_LEN(ops); s->op++)
			if (!strcmp(op_name(s->op), name))
				break;
		if (s->op == ARRAY_LEN(ops) || s->proc >= MAX_PROCS ||
		    s->other >= MAX_PROCS)
			ksft_exit_fail_msg("%s: no such step: %s", opt.replay,
					   line);
		seq->nr++;
	}
	fclose(f);
	if (!seq->nr)
		ksft_exit_fail_msg("%s: no line has a step\n", opt.replay);
	seq->seed = opt.seed;
}

/*
 * Options
 */

static const struct argp_option options[] = {
	{ "seed", 's', "N", 0, "Of the first sequence (default 1)", 0 },
	{ "steps", 'n', "N", 0, "Steps of each sequence (default 200)", 0 },
	{ "sequences", 'k', "N", 0, "How many, with seeds that follow (default 2)", 0 },
	{ "time", 't', "SECONDS", 0,
	  "As many sequences as begin within that time, instead", 0 },
	{ "replay", 'r', "FILE", 0, "Do the steps that were printed of a failure", 0 },
	{ "verbose", 'v', NULL, 0, "Print every step before it is done", 0 },
	{ "off", 'o', NULL, 0, "With the feature off, which shows that the model is right", 0 },
	{ 0 }
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 's':
		opt.seed = cow_arg_number(state, arg, ~0ULL >> 1);
		break;
	case 'n':
		opt.steps = cow_arg_number(state, arg, MAX_STEPS);
		break;
	case 'k':
		opt.sequences = cow_arg_number(state, arg, 1000000);
		break;
	case 't':
		opt.seconds = cow_arg_number(state, arg, 1000000);
		break;
	case 'r':
		opt.replay = arg;
		break;
	case 'v':
		opt.verbose = true;
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
	.doc = "Random sequences of operations on shared page tables, against a model.",
};

int main(int argc, char **argv)
{
	struct sequence seq = {
		.step = calloc(MAX_STEPS, sizeof(*seq.step)),
	};
	unsigned int i = 0;
	char name[64];
	time_t end;

	opt.seed = 1;
	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	end = time(NULL) + opt.seconds;
	ksft_print_header();
	cow_main_start();
	board = mmap(NULL, sizeof(*board), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!seq.step || board == MAP_FAILED)
		ksft_exit_fail_msg("no memory\n");
	if (opt.replay) {
		read_steps(&seq);
		report(&seq, "replay");
		i = 1;
	} else {
		do {
			ksft_print_msg("seed %llu\n", opt.seed + i);
			generate(&seq, opt.seed + i);
			snprintf(name, sizeof(name), "seed %llu, %u steps",
				 opt.seed + i, opt.steps);
			report(&seq, name);
			i++;
		} while (opt.seconds ? time(NULL) < end : i < opt.sequences);
	}
	ksft_set_plan(i);
	ksft_finished();
}
