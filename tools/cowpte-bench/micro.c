// SPDX-License-Identifier: GPL-2.0
/* Single operations of a small process; see micro.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"
#include "micro.h"

/* Pages touched by one pass of an operation on many. */
#define PAGES		64

/*
 * What one run of an operation works with. Its memory lies in a table span of
 * its own, so that a pass meets the same tables each time.
 */
struct micro {
	const struct job *job;
	struct result *res;
	size_t page;
	size_t len;
	unsigned char *mem;	/* where the memory of an operation goes */
	unsigned char *other;	/* and where it is moved to */
	int fd;			/* a file of PAGES pages, all in memory */
};

static unsigned char *map(struct micro *m, int prot, int flags, int fd)
{
	unsigned char *p = mmap(m->mem, m->len, prot, flags | MAP_FIXED, fd, 0);

	if (p == MAP_FAILED)
		job_fail(m->res, errno, "mmap of %d pages", PAGES);
	if (madvise(p, m->len, MADV_NOHUGEPAGE) && errno != EINVAL)
		job_fail(m->res, errno, "madvise");
	return p;
}

static unsigned char *map_anon(struct micro *m)
{
	return map(m, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void unmap(struct micro *m, unsigned char *p)
{
	if (munmap(p, m->len))
		job_fail(m->res, errno, "munmap");
}

static void check(struct micro *m, int ret, const char *what)
{
	if (ret)
		job_fail(m->res, errno, "%s", what);
}

static void write_all(struct micro *m, unsigned char *p)
{
	size_t off;

	for (off = 0; off < m->len; off += m->page)
		touch(p + off, 1);
}

static void read_all(struct micro *m, unsigned char *p)
{
	size_t off;

	for (off = 0; off < m->len; off += m->page)
		__atomic_load_n(p + off, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* The time of @work on the memory at @p, and unmap it. */
static double timed(struct micro *m, unsigned char *p,
		    void (*work)(struct micro *m, unsigned char *p))
{
	__u64 t0 = now(), t1;

	work(m, p);
	t1 = now();
	unmap(m, p);
	return t1 - t0;
}

static double op_syscall(struct micro *m)
{
	__u64 t0 = now();
	int i;

	(void)m;
	for (i = 0; i < PAGES; i++)
		syscall(SYS_getppid);
	return now() - t0;
}

static double op_fork(struct micro *m)
{
	struct fork_rec rec;

	one_fork(m->job, m->res, &rec);
	return rec.fork_ns;
}

static double op_exit(struct micro *m)
{
	struct fork_rec rec;

	one_fork(m->job, m->res, &rec);
	return rec.total_ns - rec.fork_ns;
}

/* All of vfork, exec, the new program's short life, and wait. */
static double op_exec(struct micro *m)
{
	__u64 t0 = now();
	pid_t pid = vfork();

	if (!pid)
		exec_nothing();
	if (pid < 0)
		job_fail(m->res, errno, "vfork");
	reap(pid, false, m->res);
	return now() - t0;
}

static double op_anon_write(struct micro *m)
{
	unsigned char *p = map_anon(m);

	/* the table itself is not what is measured */
	touch(p, 1);
	return timed(m, p, write_all);
}

static double op_anon_read(struct micro *m)
{
	unsigned char *p = map_anon(m);

	touch(p, 1);
	return timed(m, p, read_all);
}

static double op_file_read(struct micro *m)
{
	unsigned char *p = map(m, PROT_READ, MAP_SHARED, m->fd);

	return timed(m, p, read_all);
}

static double op_file_write(struct micro *m)
{
	unsigned char *p = map(m, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd);

	return timed(m, p, write_all);
}

static double op_file_cow(struct micro *m)
{
	unsigned char *p = map(m, PROT_READ | PROT_WRITE, MAP_PRIVATE, m->fd);

	read_all(m, p);
	return timed(m, p, write_all);
}

/* Copy-on-write while a child has the pages too, and after it has gone. */
static double after_fork(struct micro *m, bool alive)
{
	unsigned char *p = map_anon(m);
	double t;
	pid_t pid;

	write_all(m, p);
	pid = fork_idle(m->job, m->res, NULL);
	if (!alive)
		reap(pid, true, m->res);
	t = timed(m, p, write_all);
	if (alive)
		reap(pid, true, m->res);
	return t;
}

static double op_cow(struct micro *m)
{
	return after_fork(m, true);
}

static double op_reuse(struct micro *m)
{
	return after_fork(m, false);
}

static double op_mmap(struct micro *m)
{
	__u64 t0 = now();
	unsigned char *p = mmap(NULL, m->len, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		job_fail(m->res, errno, "mmap");
	unmap(m, p);
	return now() - t0;
}

static double op_munmap(struct micro *m)
{
	unsigned char *p = map_anon(m);
	__u64 t0;

	write_all(m, p);
	t0 = now();
	unmap(m, p);
	return now() - t0;
}

static double op_mprotect(struct micro *m)
{
	unsigned char *p = map_anon(m);
	__u64 t0, t1;

	write_all(m, p);
	t0 = now();
	check(m, mprotect(p, m->len, PROT_READ), "mprotect");
	check(m, mprotect(p, m->len, PROT_READ | PROT_WRITE), "mprotect");
	t1 = now();
	unmap(m, p);
	return t1 - t0;
}

static double op_dontneed(struct micro *m)
{
	unsigned char *p = map_anon(m);
	__u64 t0, t1;

	write_all(m, p);
	t0 = now();
	check(m, madvise(p, m->len, MADV_DONTNEED), "madvise");
	t1 = now();
	unmap(m, p);
	return t1 - t0;
}

static double op_mremap(struct micro *m)
{
	unsigned char *p = map_anon(m);
	__u64 t0, t1;

	write_all(m, p);
	t0 = now();
	p = mremap(p, m->len, m->len, MREMAP_MAYMOVE | MREMAP_FIXED, m->other);
	t1 = now();
	if (p == MAP_FAILED)
		job_fail(m->res, errno, "mremap");
	unmap(m, p);
	return t1 - t0;
}

/* One table's worth of memory that could be shared, and nobody shares it. */
static double op_shm(struct micro *m)
{
	size_t span = table_span();
	unsigned char *p;
	__u64 t0 = now();

	p = mmap(m->mem, span, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (p == MAP_FAILED)
		job_fail(m->res, errno, "mmap");
	touch(p, 1);
	check(m, munmap(p, span), "munmap");
	return now() - t0;
}

static const struct micro_op {
	const char *name;
	const char *text;
	double (*run)(struct micro *m);
	unsigned int per;	/* things done by one run */
} ops[] = {
	{ "syscall", "getppid(), for comparison", op_syscall, PAGES },
	{ "fork", "fork()", op_fork, 1 },
	{ "exit", "exit of a child and wait", op_exit, 1 },
	{ "exec", "vfork, exec, exit, wait", op_exec, 1 },
	{ "anon_write", "anonymous page, first write", op_anon_write, PAGES },
	{ "anon_read", "anonymous page, first read", op_anon_read, PAGES },
	{ "file_read", "file page, read", op_file_read, PAGES },
	{ "file_write", "shared file page, write", op_file_write, PAGES },
	{ "file_cow", "private file page, write", op_file_cow, PAGES },
	{ "cow", "page after fork, child alive", op_cow, PAGES },
	{ "reuse", "page after fork, child gone", op_reuse, PAGES },
	{ "mmap", "mmap + munmap, untouched", op_mmap, 1 },
	{ "munmap", "munmap of 64 pages", op_munmap, 1 },
	{ "mprotect", "mprotect of 64 pages, twice", op_mprotect, 1 },
	{ "dontneed", "MADV_DONTNEED of 64 pages", op_dontneed, 1 },
	{ "mremap", "mremap of 64 pages", op_mremap, 1 },
	{ "shm", "2 MiB of shared memory: mmap, one write, munmap", op_shm, 1 },
};

const unsigned int nr_micro_ops = ARRAY_SIZE(ops);

const char *micro_name(unsigned int op)
{
	return ops[op].name;
}

const char *micro_text(unsigned int op)
{
	return ops[op].text;
}

/* Find two free table spans: one to map in, one to move to. */
static void find_room(struct micro *m)
{
	size_t span = table_span();
	unsigned char *p;

	p = mmap(NULL, 3 * span, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		job_fail(m->res, errno, "cannot map anything");
	munmap(p, 3 * span);
	p = (unsigned char *)(((unsigned long)p + span - 1) / span * span);
	m->mem = p;
	m->other = p + span;
}

/*
 * job->loops runs of each operation of job->ops, in turn: what the machine
 * does now and then hits all alike. The records of an operation follow each
 * other.
 */
void micro_job(const struct job *job, struct result *res)
{
	struct micro m = { .job = job, .res = res };
	unsigned int i, op, slot;

	m.page = sysconf(_SC_PAGESIZE);
	m.len = PAGES * m.page;
	m.fd = memfd_create("cowpte-bench", MFD_CLOEXEC);
	if (m.fd < 0 || ftruncate(m.fd, m.len))
		job_fail(res, errno, "memfd");
	find_room(&m);
	write_all(&m, map(&m, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd));
	unmap(&m, m.mem);

	for (i = 0; i < job->loops; i++) {
		slot = 0;
		for (op = 0; op < nr_micro_ops; op++) {
			if (!(job->ops & BIT(op)))
				continue;
			res->rec[slot++ * job->loops + i].micro.time =
				ops[op].run(&m) / ops[op].per;
		}
	}
}
