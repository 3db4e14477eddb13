// SPDX-License-Identifier: GPL-2.0
/* The measurements; see worker.h. */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "micro.h"
#include "worker.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23
#endif

static size_t page_size;
static size_t span;

/* Address space under one last-level page table: 2 MiB with 4 KiB pages. */
size_t table_span(void)
{
	if (!span) {
		page_size = sysconf(_SC_PAGESIZE);
		span = page_size / sizeof(__u64) * page_size;
	}
	return span;
}

/* A result that worker and caller share. */
struct result *result_alloc(unsigned int records)
{
	size_t size = sizeof(struct result) +
		      (size_t)records * sizeof(union record);
	struct result *res;

	res = mmap(NULL, size, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (res == MAP_FAILED)
		err(1, "cannot map the results");
	return res;
}

/*
 * CLOCK_MONOTONIC_RAW: not slewed by NTP, so that two measurements an hour
 * apart compare.
 */
__u64 now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* Tell the caller of worker_run() what failed, and end the worker. */
void job_fail(struct result *res, int error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(res->what, sizeof(res->what), fmt, ap);
	va_end(ap);
	res->error = error;
	_exit(1);
}

/*
 * Map @size bytes that begin on a page-table boundary and whose last table
 * maps nothing else. A neighbour in it, shared with the harness perhaps, would
 * decide whether the table can be shared.
 */
static unsigned char *map_memory(const struct job *job, struct result *res)
{
	int kind = job->kind == JOB_SHM ? MAP_SHARED | MAP_NORESERVE : MAP_PRIVATE;
	size_t whole = (job->size + span - 1) / span * span;
	uintptr_t base;
	unsigned char *reserve, *p;

	if (!job->size)
		return NULL;
	reserve = mmap(NULL, whole + span, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (reserve == MAP_FAILED)
		job_fail(res, errno, "cannot reserve %zu bytes", whole + span);
	base = ((uintptr_t)reserve + span - 1) / span * span;
	munmap(reserve, whole + span);

	p = mmap((void *)base, job->size, PROT_READ | PROT_WRITE,
		 kind | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (p == MAP_FAILED)
		job_fail(res, errno, "cannot map %zu bytes", job->size);
	if (job->kind == JOB_SHM)
		return p;

	/* A kernel without THP gives small pages whether asked or not. */
	if (madvise(p, job->size, job->thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) &&
	    job->thp)
		job_fail(res, errno, "no transparent huge pages");

	if (madvise(p, job->size, MADV_POPULATE_WRITE)) {
		size_t off;

		if (errno != EINVAL)
			job_fail(res, errno, "cannot fill %zu bytes", job->size);
		for (off = 0; off < job->size; off += page_size)
			touch(p + off, 1);
	}
	return p;
}

/* How much of the memory huge pages map: what was asked need not be given. */
static __u64 huge_kb(void)
{
	static char buf[4096];
	unsigned long long kb = 0;

	if (read_file("/proc/self/smaps_rollup", buf, sizeof(buf)) > 0)
		parse_field(buf, "AnonHugePages", &kb);
	return kb;
}

/* Zeroes from a kernel without the counters. */
static void counters(struct cowpte_vmstat *vs)
{
	if (cowpte_vmstat(vs))
		memset(vs, 0, sizeof(*vs));
}

/* The child that stays: until killed, or until its parent is gone. */
static void __noreturn idle_child(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	for (;;)
		pause();
}

/*
 * Wait until an idle child is in pause(): before that it still runs, and
 * writes, on another CPU.
 */
static void wait_idle(pid_t pid, struct result *res)
{
	struct timespec ms = { .tv_nsec = 1000000 };
	char path[64], buf[512];
	int tries;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	for (tries = 0; tries < 30000; tries++) {
		char *state;

		if (read_file(path, buf, sizeof(buf)) < 0)
			job_fail(res, errno, "a child died");
		state = strrchr(buf, ')');
		if (state && state[1] == ' ' && state[2] == 'S')
			return;
		nanosleep(&ms, NULL);
	}
	job_fail(res, ETIMEDOUT, "a child does not become idle");
}

void reap(pid_t pid, bool kill_it, struct result *res)
{
	int status;

	if (kill_it)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			job_fail(res, errno, "wait for a child");
	}
	if (!kill_it && status)
		job_fail(res, ECHILD, "a child ended with status %#x", status);
}

/*
 * While the parent is in fork(), the child must not take its CPU: with one CPU
 * the scheduler may well run the child, to its end, before fork() returns.
 * Returns whether the kernel allowed it.
 */
static bool set_fifo(bool on)
{
	struct sched_param param = { .sched_priority = on };
	int policy = on ? SCHED_FIFO | SCHED_RESET_ON_FORK : SCHED_OTHER;

	return !sched_setscheduler(0, policy, &param);
}

/* Whether workers may run as JOB_FORK with @fifo; leaves no trace. */
bool fifo_allowed(void)
{
	if (!set_fifo(true))
		return false;
	set_fifo(false);
	return true;
}

/* fork() a child that idles; with @ns, what the call took. */
pid_t fork_idle(const struct job *job, struct result *res, __u64 *ns)
{
	bool fifo = ns && job->fifo;
	pid_t parent = getpid();
	pid_t pid;
	__u64 t0;

	if (fifo && !set_fifo(true))
		job_fail(res, errno, "SCHED_FIFO");
	t0 = now();
	pid = fork();
	if (!pid)
		idle_child(parent);
	if (ns)
		*ns = now() - t0;
	if (pid < 0)
		job_fail(res, errno, "fork");
	if (fifo)
		set_fifo(false);
	wait_idle(pid, res);
	return pid;
}

/*
 * Execute this program again, under the name that makes it end at once: what
 * is measured must not depend on what another program does when it starts.
 */
void exec_nothing(void)
{
	execl("/proc/self/exe", NOTHING_ARGV0, NULL);
	_exit(127);
}

/* One fork with all of its child's life. */
void one_fork(const struct job *job, struct result *res, struct fork_rec *rec)
{
	struct cowpte_vmstat before, after;
	pid_t pid, parent = getpid();
	__u64 t0, t1, t2;

	counters(&before);
	if (job->fifo && !set_fifo(true))
		job_fail(res, errno, "SCHED_FIFO");
	t0 = now();
	pid = fork();
	if (!pid) {
		switch (job->child) {
		case CHILD_WAIT:
			idle_child(parent);
		case CHILD_EXEC:
			exec_nothing();
		default:
			_exit(0);
		}
	}
	t1 = now();
	if (pid < 0)
		job_fail(res, errno, "fork");
	t2 = t1;
	if (job->child == CHILD_WAIT) {
		wait_idle(pid, res);
		t2 = now();
	}
	reap(pid, job->child == CHILD_WAIT, res);
	rec->total_ns = now() - t2 + t1 - t0;
	rec->fork_ns = t1 - t0;
	if (job->fifo)
		set_fifo(false);
	counters(&after);
	rec->shared = after.share - before.share;
	rec->fallback = after.fallback - before.fallback;
}

static inline size_t offset(const struct job *job, size_t i)
{
	switch (job->pattern) {
	case PATTERN_TABLE:
		/*
		 * Not the same page under each table: addresses 2 MiB apart
		 * fall into the same cache sets.
		 */
		return i * span + i % (span / page_size) * page_size;
	case PATTERN_RAND:
		return job->order[i] * page_size;
	default:
		return i * page_size;
	}
}

/* Write once to each page of the pattern; the time of all together. */
static __u64 pass(const struct job *job, unsigned char *p, size_t ops)
{
	__u64 t0 = now();
	size_t i;

	for (i = 0; i < ops; i++)
		touch(p + offset(job, i), i);
	return now() - t0;
}

/* The same with a look at the clock after each write; the longest. */
static __u64 pass_worst(const struct job *job, unsigned char *p, size_t ops)
{
	__u64 t, last = now(), worst = 0;
	size_t i;

	for (i = 0; i < ops; i++) {
		touch(p + offset(job, i), i);
		t = now();
		if (t - last > worst)
			worst = t - last;
		last = t;
	}
	return worst;
}

static void fork_job(const struct job *job, unsigned char *p, struct result *res)
{
	size_t off;

	for (res->nr = 0; res->nr <= job->later; res->nr++) {
		for (off = 0; job->rewrite && off < job->size; off += page_size)
			touch(p + off, 2);
		one_fork(job, res, &res->rec[res->nr].fork);
	}
}

/*
 * Two forks, each followed by the same writes: the total must not contain the
 * clock, the worst single write needs it. Between them all is as it was before
 * the first, the pages being the parent's again.
 */
static void fault_job(const struct job *job, unsigned char *p, struct result *res)
{
	struct fault_rec *rec = &res->rec[0].fault;
	struct cowpte_vmstat before, after;
	size_t ops = job->size / page_size;
	pid_t pid;

	if (job->pattern == PATTERN_TABLE) {
		ops = (job->size + span - 1) / span;
		/* The last table may be filled less far than its turn. */
		while (ops && offset(job, ops - 1) >= job->size)
			ops--;
	}
	rec->ops = ops;
	rec->base_worst_ns = pass_worst(job, p, ops);
	rec->base_ns = pass(job, p, ops);

	counters(&before);
	pid = fork_idle(job, res, &rec->fork_ns);
	if (!job->child_alive)
		reap(pid, true, res);
	rec->pass_ns = pass(job, p, ops);
	counters(&after);
	if (job->child_alive)
		reap(pid, true, res);
	rec->shared = after.share - before.share;
	rec->brk = after.brk - before.brk;
	rec->reuse = after.reuse - before.reuse;

	pid = fork_idle(job, res, NULL);
	if (!job->child_alive)
		reap(pid, true, res);
	rec->worst_ns = pass_worst(job, p, ops);
	if (job->child_alive)
		reap(pid, true, res);
	res->nr = 1;
}

/* Displace from the caches whatever the kernel keeps about the memory. */
static void make_cold(unsigned char *junk, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += 64)
		touch(junk + i, i);
}

/*
 * Write page @page of each table that is to be written, with a look at the clock
 * after each one if @worst is set: the total should not contain it.
 */
static __u64 write_tables(const struct job *job, unsigned char *p, size_t page,
			  __u64 *worst)
{
	__u64 t0 = now(), last = t0, t;
	size_t off;

	for (off = 0; off + span <= job->size; off += job->every * span) {
		touch(p + off + page * page_size, page);
		if (!worst)
			continue;
		t = now();
		if (t - last > *worst)
			*worst = t - last;
		last = t;
	}
	return now() - t0;
}

/*
 * The life of a snapshot as its parent feels it: fork, writes while the child is
 * there, the child's end, writes after it. Then a child that writes itself. Each
 * time all is the parent's again before the next fork.
 */
static void window_job(const struct job *job, unsigned char *p, struct result *res)
{
	struct window_rec *rec = &res->rec[0].window;
	size_t pages = span / page_size, off, i, len = 0;
	struct cowpte_vmstat before, after;
	unsigned char *junk = NULL;
	pid_t pid;
	__u64 t0;

	if (job->cold) {
		/* Larger than the last cache of any machine, as memory allows */
		len = 256UL << 20;
		junk = mmap(NULL, len, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (junk == MAP_FAILED)
			job_fail(res, errno, "cannot map %zu MiB to fill caches with",
				 len >> 20);
	}
	memset(rec, 0, sizeof(*rec));
	for (off = 0; off + span <= job->size; off += job->every * span)
		rec->tables++;

	counters(&before);
	pid = fork_idle(job, res, &rec->fork_ns);
	make_cold(junk, len);
	rec->first_ns = write_tables(job, p, 1, NULL);
	rec->second_ns = write_tables(job, p, 2, NULL);
	make_cold(junk, len);
	t0 = now();
	reap(pid, true, res);
	rec->exit_ns = now() - t0;
	t0 = now();
	for (off = 0; off + span <= job->size; off += job->every * span)
		for (i = 0; i < pages; i++)
			touch(p + off + i * page_size, i);
	rec->rewrite_ns = now() - t0;
	for (off = 0; off < job->size; off += page_size)
		touch(p + off, 3);

	pid = fork_idle(job, res, NULL);
	make_cold(junk, len);
	write_tables(job, p, 1, &rec->worst_ns);
	reap(pid, true, res);
	for (off = 0; off < job->size; off += page_size)
		touch(p + off, 4);

	make_cold(junk, len);
	t0 = now();
	pid = fork();
	if (!pid) {
		write_tables(job, p, 1, NULL);
		_exit(0);
	}
	if (pid < 0)
		job_fail(res, errno, "fork");
	reap(pid, false, res);
	rec->child_ns = now() - t0;
	counters(&after);
	rec->shared = after.share - before.share;
	res->nr = 1;
}

/*
 * PageTables of the whole system. The kernel keeps part of the figure per CPU;
 * reading stat_refresh, which takes root, adds that in.
 */
static __s64 pagetables_kb(struct result *res)
{
	unsigned long long kb;
	char c[2];
	int error;

	if (read_file("/proc/sys/vm/stat_refresh", c, sizeof(c)) < 0)
		res->inexact = true;
	error = meminfo_kb("PageTables", &kb);
	if (error)
		job_fail(res, -error, "PageTables in /proc/meminfo");
	return kb;
}

static void memory_job(const struct job *job, struct result *res)
{
	unsigned int n = job->children[job->nr_children - 1];
	struct cowpte_vmstat before, after;
	unsigned int i, forked = 0;
	__s64 base;
	pid_t *pids;

	pids = mmap(NULL, n * sizeof(*pids), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (pids == MAP_FAILED)
		job_fail(res, errno, "cannot map the list of children");

	counters(&before);
	base = pagetables_kb(res);
	for (i = 0; i < job->nr_children; i++) {
		struct memory_rec *rec = &res->rec[i].memory;
		unsigned long long kb;
		pid_t last;

		while (forked < job->children[i])
			pids[forked++] = fork_idle(job, res, NULL);
		last = pids[forked - 1];

		rec->pagetables_kb = pagetables_kb(res) - base;
		if (!status_kb(last, "VmPTE", &kb))
			rec->vmpte_kb = kb;
		if (!status_kb(last, "VmCowPTE", &kb))
			rec->vmcowpte_kb = kb;
		counters(&after);
		rec->shared = after.share - before.share;
		res->nr++;
	}
	for (i = 0; i < forked; i++)
		kill(pids[i], SIGKILL);
	for (i = 0; i < forked; i++)
		reap(pids[i], true, res);
}

/* The first pages of each table; the time of all together. */
static __u64 touch_tables(const struct job *job, unsigned char *p, bool write)
{
	__u64 t0 = now();
	size_t off, i;

	for (off = 0; off + span <= job->size; off += span) {
		for (i = 0; i < job->pages; i++) {
			if (write)
				touch(p + off + i * page_size, i);
			else
				__atomic_load_n(p + off + i * page_size,
						__ATOMIC_RELAXED);
		}
	}
	return now() - t0;
}

/* A child touches the memory, says how long that took, and stays. */
static pid_t fork_user(const struct job *job, unsigned char *p,
		       struct result *res, struct shm_rec *rec)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		job_fail(res, errno, "fork");
	if (!pid) {
		/* Or the parent, which waits, takes the CPU now and then. */
		if (job->fifo && !set_fifo(true))
			job_fail(res, errno, "SCHED_FIFO");
		now();
		rec->first_ns = touch_tables(job, p, job->write);
		rec->again_ns = touch_tables(job, p, job->write);
		set_fifo(false);
		idle_child(parent);
	}
	wait_idle(pid, res);
	return pid;
}

/*
 * Many processes use memory that the first one has made. What the last of them
 * pays for it, and what it costs to give a page of it back.
 */
static void shm_job(const struct job *job, unsigned char *p, struct result *res)
{
	unsigned int n = job->children[job->nr_children - 1];
	struct cowpte_vmstat before, after;
	unsigned int i, forked = 0;
	__s64 base;
	pid_t *pids;
	__u64 t0;

	pids = mmap(NULL, n * sizeof(*pids), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (pids == MAP_FAILED)
		job_fail(res, errno, "cannot map the list of children");

	touch_tables(job, p, true);
	counters(&before);
	base = pagetables_kb(res);
	for (i = 0; i < job->nr_children; i++) {
		struct shm_rec *rec = &res->rec[i].shm;
		unsigned char *page = p + i % (job->size / span) * span;
		unsigned long long kb;

		while (forked < job->children[i])
			pids[forked++] = fork_user(job, p, res, rec);
		rec->pagetables_kb = pagetables_kb(res) - base;
		if (!status_kb(pids[forked - 1], "VmPTE", &kb))
			rec->vmpte_kb = kb;
		counters(&after);
		rec->joined = after.join - before.join;

		t0 = now();
		if (madvise(page, page_size, MADV_REMOVE))
			job_fail(res, errno, "MADV_REMOVE");
		rec->punch_ns = now() - t0;
		touch(page, 1);

		t0 = now();
		reap(pids[--forked], true, res);
		rec->exit_ns = now() - t0;
		res->nr++;
	}
	for (i = 0; i < forked; i++)
		kill(pids[i], SIGKILL);
	for (i = 0; i < forked; i++)
		reap(pids[i], true, res);
}

static void __noreturn
worker(const struct job *job, struct result *res, pid_t harness)
{
	unsigned char *p;
	pid_t pid;
	int error;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != harness)
		_exit(1);
	/* If memory runs out, this is the process to kill. */
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		dprintf(fd, "1000");
		close(fd);
	}

	/*
	 * A fork before the mode is set and the memory mapped brings in the
	 * pages that fork() itself needs. They would count as part of the
	 * first fork otherwise.
	 */
	pid = fork();
	if (pid < 0)
		job_fail(res, errno, "fork");
	if (!pid)
		_exit(0);
	reap(pid, false, res);
	now();

	if (job->can_switch) {
		error = cowpte_set(job->on);
		if (error)
			job_fail(res, -error, "prctl(PR_SET_COW_PTE, %d)", job->on);
		if (cowpte_get() != job->on)
			job_fail(res, EINVAL, "PR_SET_COW_PTE has no effect");
	}
	p = map_memory(job, res);
	if (job->thp)
		res->huge_kb = huge_kb();

	switch (job->kind) {
	case JOB_FORK:
		fork_job(job, p, res);
		break;
	case JOB_FAULT:
		fault_job(job, p, res);
		break;
	case JOB_WINDOW:
		window_job(job, p, res);
		break;
	case JOB_MEMORY:
		memory_job(job, res);
		break;
	case JOB_SHM:
		shm_job(job, p, res);
		break;
	case JOB_MICRO:
		micro_job(job, res);
		break;
	}
	_exit(0);
}

/*
 * Run one job in a process of its own and return when that has gone. Errors
 * are in @res: an errno with the step that failed.
 */
void worker_run(const struct job *job, struct result *res)
{
	pid_t pid, harness = getpid();
	int status;

	table_span();
	memset(res, 0, sizeof(*res));
	fflush(NULL);
	pid = fork();
	if (!pid)
		worker(job, res, harness);
	if (pid < 0) {
		res->error = errno;
		snprintf(res->what, sizeof(res->what), "fork");
		return;
	}
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			err(1, "wait for the worker");
	}
	if (res->error)
		return;
	if (WIFSIGNALED(status)) {
		res->error = ECHILD;
		snprintf(res->what, sizeof(res->what),
			 "worker killed by signal %d (%s)%s", WTERMSIG(status),
			 strsignal(WTERMSIG(status)),
			 WTERMSIG(status) == SIGKILL ?
			 ", out of memory perhaps" : "");
	} else if (WEXITSTATUS(status)) {
		res->error = ECHILD;
		snprintf(res->what, sizeof(res->what),
			 "worker ended with status %d", WEXITSTATUS(status));
	}
}
