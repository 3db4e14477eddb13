// SPDX-License-Identifier: GPL-2.0
/*
 * The ways in which a process leaves memory that it shares: what the others
 * have is as after the same end of a process that shared no tables, and in the
 * end nothing is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <linux/elf.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_ring.h"

#ifndef SYS_process_mrelease
#define SYS_process_mrelease	448
#endif

#define RW		(PROT_READ | PROT_WRITE)
#define CORE		"/tmp/cow_pte.core"
#define CORE_PATTERN	"/proc/sys/kernel/core_pattern"
#define OOM_MIB		8
#define NR_PROCS	3
#define NR_THREADS	3
#define TRIES		4

/* What the other threads of the process that ends do */
enum threads { NO_THREADS, READERS, WRITERS };

struct way {
	const char *what;
	enum cow_mem_kind mem;
	cow_fn prepare;		/* in the first process, before it forks */
	cow_fn before;		/* in the process that ends; 0, or -1 */
	cow_fn end;		/* there, too; by a thread of it in that role */
	/* The rest is for the test process; false if another one has ended */
	void (*act)(unsigned int proc);
	void (*after)(unsigned int proc);
	enum threads threads;	/* in the role of a thread */
	bool survives;
};

typedef const char *(*life_fn)(enum cow_mode mode, const void *arg);

enum role { ROLE_PARENT, ROLE_CHILD, ROLE_THIRD, ROLE_THREAD };

struct test_case {
	const struct way *way;
	enum role role;
};

static unsigned int role_proc(enum role role)
{
	switch (role) {
	case ROLE_PARENT:
		return 0;
	case ROLE_THIRD:
		return 2;
	default:
		return 1;
	}
}

/* Threads keep the process busy with its memory until it ends */

static void *busy_thread(void *arg)
{
	bool writes = (long)arg == WRITERS;
	unsigned int i;

	for (i = 0;; i++) {
		unsigned int page = i % world->nr_pages;
		char *addr = world->page[page];

		if (!writes)
			cow_peek(addr);
		else if (i % 7 == 3)
			madvise(addr, PAGE, MADV_DONTNEED);
		else if (!world->readonly[page])
			cow_stamp(addr, world->model[cow_self][page]);
	}
	return NULL;
}

static long call_start_threads(const long *arg)
{
	pthread_t thread;
	int i;

	for (i = 0; i < NR_THREADS; i++)
		if (pthread_create(&thread, NULL, busy_thread, (void *)arg[0]))
			return -1;
	/* Let them have done something */
	usleep(20000);
	return 0;
}

struct thread_call {
	cow_fn fn;
	const long *arg;
	long ret;
};

static void *call_thread(void *arg)
{
	struct thread_call *call = arg;

	call->ret = call->fn(call->arg);
	return NULL;
}

static long call_by_thread(const long *arg)
{
	struct thread_call call = { .fn = (cow_fn)arg[0], .arg = &arg[1] };
	pthread_t thread;

	if (pthread_create(&thread, NULL, call_thread, &call) ||
	    pthread_join(thread, NULL))
		return -1;
	return call.ret;
}

/* How a process does it */

static long end_exit(const long *arg)
{
	_exit(0);
}

static long end_kill(const long *arg)
{
	kill(getpid(), SIGKILL);
	return pause();
}

static long end_exec(const long *arg)
{
	close(STDOUT_FILENO);
	close(STDERR_FILENO);
	execl("/proc/self/exe", "ends", "-h", NULL);
	return -1;
}

static long end_failed_exec(const long *arg)
{
	char name[] = "ends", *argv[] = { name, NULL }, *envp[] = { NULL };
	int fd = memfd_create("no program", MFD_CLOEXEC);

	execve("/there/is/no/such/file", argv, envp);
	cow_log("no such file", 0, errno);
	if (fd < 0 || fchmod(fd, 0755) || write(fd, "?", 1) != 1)
		return -1;
	fexecve(fd, argv, envp);
	cow_log("no program", 0, errno);
	close(fd);
	return 0;
}

/* Far beyond the limit of its memory cgroup */
static long end_allocate(const long *arg)
{
	size_t i, len = (16 * OOM_MIB) << 20;
	char *mem = mmap(NULL, len, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		return -1;
	madvise(mem, len, MADV_NOHUGEPAGE);
	for (i = 0; i < len; i += PAGE)
		mem[i] = 1;
	return -1;
}

static long end_abort(const long *arg)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };

	if (setrlimit(RLIMIT_CORE, &all))
		return -1;
	abort();
}

/* Memory cgroups */

static long enter_limited(const long *arg)
{
	return cow_cgroup_enter(0) || cow_cgroup_limit(OOM_MIB, false);
}

static long enter_limited_group(const long *arg)
{
	return enter_limited(arg) || cow_cgroup_oom_group();
}

static long enter_swapping(const long *arg)
{
	return cow_cgroup_enter(32);
}

static long set_oom_score(const long *arg)
{
	char val[16];

	snprintf(val, sizeof(val), "%ld", arg[0]);
	return cow_write_file("/proc/self/oom_score_adj", val);
}

/* All are in the same one: the one that ends has to be the one that is killed */
static long prepare_together(const long *arg)
{
	return cow_cgroup_enter(0) || cow_cgroup_limit(2 * OOM_MIB, false) ||
	       set_oom_score((long[]) { -1000 });
}

static long be_victim(const long *arg)
{
	return set_oom_score((long[]) { 1000 });
}

/* Less than what is there: most is swapped out when exec wants something */
static long squeeze(const long *arg)
{
	cow_cgroup_limit(2, true);
	cow_cgroup_reclaim(1);
	return 0;
}

/* Pages that somebody holds on to */

static int pipe_fd[2];

static long prepare_pipe(const long *arg)
{
	return pipe(pipe_fd);
}

static long splice_page(const long *arg)
{
	struct iovec iov = { world->page[0], PAGE };

	return vmsplice(pipe_fd[1], &iov, 1, 0) == PAGE ? 0 : -1;
}

static long read_spliced(const long *arg)
{
	static char buf[PAGE];

	if (read(pipe_fd[0], buf, PAGE) != PAGE)
		return -1;
	cow_log("spliced", 0, cow_peek(buf) == (__u64)arg[0]);
	return cow_peek(buf) == (__u64)arg[0] ? 0 : -1;
}

/* What was spliced is what that process had, whatever others write since */
static void check_spliced(unsigned int proc)
{
	unsigned int other = proc ? 0 : 1;

	cow_poke(other, 0);
	if (cow_call(other, read_spliced, world->model[proc][0]))
		cow_fail("the pipe does not hold what was spliced");
	cow_check_all("after the pipe was read");
}

static long register_pages(const long *arg)
{
	return cow_ring_open() || cow_ring_pin(world->page[0]) ? -1 : 0;
}

/* What the test process does */

static void await_end(unsigned int proc)
{
	cow_exit_wait(proc);
}

static void act_kill(unsigned int proc)
{
	kill(world->pid[proc], SIGKILL);
	await_end(proc);
}

static long resident(unsigned int proc)
{
	char path[64], line[128];
	long size, pages;

	snprintf(path, sizeof(path), "/proc/%d/statm", world->pid[proc]);
	if (cow_read_file(path, line, sizeof(line)) <= 0 ||
	    sscanf(line, "%ld %ld", &size, &pages) != 2)
		cow_fail("%s: %s", path, strerror(errno));
	return pages;
}

/* From now on the process stops when it is about to exit, with its memory */
static void trace_exit(unsigned int proc)
{
	if (ptrace(PTRACE_SEIZE, world->pid[proc], NULL, PTRACE_O_TRACEEXIT))
		cow_fail("ptrace: %s", strerror(errno));
}

static void await_exit_stop(unsigned int proc)
{
	int status;

	if (waitpid(world->pid[proc], &status, __WALL) != world->pid[proc] ||
	    !WIFSTOPPED(status) || status >> 16 != PTRACE_EVENT_EXIT)
		cow_fail("the process did not stop at its exit");
}

static void let_exit(unsigned int proc)
{
	cow_check_all("while the process is kept from exiting");
	if (ptrace(PTRACE_DETACH, world->pid[proc], NULL, NULL))
		cow_fail("PTRACE_DETACH: %s", strerror(errno));
	await_end(proc);
}

/* The others must be able to write while it is half dead */
static void act_mrelease(unsigned int proc)
{
	long before = resident(proc), after;

	trace_exit(proc);
	kill(world->pid[proc], SIGKILL);
	await_exit_stop(proc);
	if (syscall(SYS_process_mrelease, cow_proc[proc].pidfd, 0))
		cow_fail("process_mrelease: %s", strerror(errno));
	after = resident(proc);
	if (after + (long)world->nr_pages > before)
		cow_fail("%ld pages before process_mrelease, %ld after",
			 before, after);
	cow_proc[proc].alive = false;
	cow_check_all("after process_mrelease");
	cow_poke_all((proc + 1) % NR_PROCS);
	let_exit(proc);
}

/* The OOM reaper comes when the victim has not gone by itself for a while */
static void act_oom_reaped(unsigned int proc)
{
	long before = resident(proc);
	int i;

	trace_exit(proc);
	cow_send(proc, end_allocate, 0);
	await_exit_stop(proc);
	cow_proc[proc].alive = false;
	for (i = 0; i < 300 && resident(proc) + world->nr_pages > before; i++)
		usleep(100000);
	if (i == 300)
		cow_fail("the OOM reaper did not come: %ld pages of %ld",
			 resident(proc), before);
	cow_check_all("after the OOM reaper");
	cow_poke_all((proc + 1) % NR_PROCS);
	let_exit(proc);
}

/* One of two that are killed together */
static void act_oom_group(unsigned int proc)
{
	unsigned int other = (proc + 1) % NR_PROCS;

	if (cow_call(other, enter_limited_group, 0))
		cow_fail("cannot enter the cgroup: %s", strerror(errno));
	cow_send(proc, end_allocate, 0);
	/* Children first: a dead parent does not reap */
	cow_proc[proc].alive = false;
	cow_proc[other].alive = false;
	cow_exit_wait(proc);
	cow_exit_wait(other);
}

/*
 * The core dump of a process holds what it had: every tracked page is looked
 * up in the segments of the file.
 */
static void check_core(unsigned int proc)
{
	int fd = open(CORE, O_RDONLY | O_CLOEXEC);
	off_t len = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	struct elf64_phdr *phdr;
	struct elf64_hdr *core;
	unsigned int i, seg;

	if (len < (off_t)sizeof(*core))
		cow_fail("no core dump in " CORE);
	core = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	unlink(CORE);
	if (core == MAP_FAILED)
		cow_fail("mmap: %s", strerror(errno));
	phdr = (void *)core + core->e_phoff;
	for (i = 0; i < world->nr_pages; i++) {
		__u64 addr = (uintptr_t)world->page[i], seen = COW_SEGV;

		for (seg = 0; seg < core->e_phnum; seg++)
			if (phdr[seg].p_type == PT_LOAD &&
			    addr - phdr[seg].p_vaddr < phdr[seg].p_filesz)
				seen = cow_peek((void *)core +
						phdr[seg].p_offset +
						(addr - phdr[seg].p_vaddr));
		if (seen != world->model[proc][i])
			cow_fail("page %u in the core dump: %#llx, expected %#llx",
				 i, seen, world->model[proc][i]);
	}
	munmap(core, len);
}

/* What an ordinary fork would have left to the others, too */
static void log_others(const char *when)
{
	static const char * const field[] = { "RssAnon", "RssShmem", "VmSwap" };
	unsigned int i, f;
	char path[64];

	for (i = 0; i < world->nr_procs; i++) {
		if (!cow_proc[i].alive)
			continue;
		for (f = 0; f < ARRAY_LEN(field); f++)
			cow_log(when, i * 10 + f,
				cow_status(world->pid[i], field[f]));
		snprintf(path, sizeof(path), "/proc/%d/smaps_rollup",
			 world->pid[i]);
		cow_log("counted less mapped", i,
			resident(i) * (PAGE / 1024) -
			cow_read_field(path, "Rss"));
	}
}

static void must(unsigned int proc, cow_fn fn, long arg)
{
	if (cow_call(proc, fn, arg) && !world->skip[0])
		cow_fail("process %u: %s", proc, strerror(errno));
}

static void end_it(const struct way *way, unsigned int proc, enum role role)
{
	long ret;

	if (role == ROLE_THREAD && way->threads)
		must(proc, call_start_threads, way->threads);
	if (way->act) {
		way->act(proc);
		return;
	}
	if (role == ROLE_THREAD)
		ret = cow_try_call(proc, call_by_thread, (long)way->end);
	else
		ret = cow_try_call(proc, way->end, 0);
	if (way->survives) {
		if (ret)
			cow_fail("it did not survive: %s", strerror(errno));
		return;
	}
	if (ret != -1 || errno != ESRCH)
		cow_fail("it did not end: %s", strerror(errno));
	cow_proc[proc].alive = false;
	cow_exit_wait(proc);
}

/* One life of some processes; returns why there cannot be one here, or NULL */
static const char *live(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	const struct cow_mem *mem = &cow_mem[tc->way->mem];
	unsigned int i, last, proc = role_proc(tc->role);
	const struct way *way = tc->way;
	const char *why;

	why = cow_mem_start(mode, mem);
	if (why)
		return why;
	if (way->prepare)
		must(0, way->prepare, 0);
	for (i = 1; i < NR_PROCS && !world->skip[0]; i++)
		cow_fork(0, COW_FORK);
	if (!world->skip[0]) {
		cow_must_share(mode, mem);
		/* Something of its own as well */
		last = world->nr_pages - 1;
		cow_poke(proc, last);
		cow_check_all("before");
	}
	if (way->before && !world->skip[0])
		must(proc, way->before, 0);
	if (world->skip[0]) {
		cow_world_stop();
		return world->skip;
	}

	end_it(way, proc, tc->role);
	if (way->survives && way->threads == WRITERS)
		cow_fail("its threads have written");
	cow_check_all("after the end");
	log_others("after the end");
	if (way->after)
		way->after(proc);
	for (i = 0; i < NR_PROCS; i++) {
		if (!cow_proc[i].alive)
			continue;
		cow_poke_all(i);
		cow_check_all("after another has written");
		cow_exit(cow_fork(i, COW_FORK));
		cow_check_all("after another fork");
	}
	log_others("after all have written");
	cow_world_stop();
	return NULL;
}

/*
 * Fails the test if something stays behind, each time that this is repeated:
 * other processes use memory, too.  Not the first time, when the test process
 * touches much of its own memory first.
 */
static const char *run_lives(enum cow_mode mode, life_fn life, const void *arg,
			     unsigned int lives)
{
	struct cow_usage usage = COW_USAGE;
	unsigned int i, j;
	static bool warm;
	const char *why = NULL;

	if (!warm) {
		warm = true;
		return life(mode, arg);
	}
	for (i = 0; i < TRIES; i++) {
		cow_usage_start(&usage);
		for (j = 0; j < lives && !why; j++)
			why = life(mode, arg);
		if (why || !cow_usage_grown(&usage))
			return why;
	}
	cow_fail("something stays behind");
}

static const char *run_way(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;

	/* As many as leak more swap slots than the CPUs keep at hand */
	return run_lives(mode, live, tc, tc->way->mem == MEM_swapped ? 4 : 1);
}

FIXTURE(end) {
};

FIXTURE_VARIANT(end) {
	struct way way;
};

FIXTURE_SETUP(end)
{
	if (variant->way.after == check_core &&
	    cow_write_file(CORE_PATTERN, CORE))
		SKIP(return, "no core dumps");
}

FIXTURE_TEARDOWN(end) {}

FIXTURE_VARIANT_ADD(end, exit) {
	.way = { .end = end_exit, .threads = WRITERS }
};

FIXTURE_VARIANT_ADD(end, exit_swapped) {
	.way = { .end = end_exit, .threads = WRITERS, .mem = MEM_swapped }
};

FIXTURE_VARIANT_ADD(end, exit_file) {
	.way = { .end = end_exit, .threads = WRITERS, .mem = MEM_memfd }
};

FIXTURE_VARIANT_ADD(end, kill) {
	.way = { .end = end_kill, .threads = WRITERS }
};

FIXTURE_VARIANT_ADD(end, killed) {
	.way = { .act = act_kill, .threads = WRITERS }
};

FIXTURE_VARIANT_ADD(end, exec) {
	.way = { .end = end_exec, .threads = WRITERS }
};

FIXTURE_VARIANT_ADD(end, failed_exec) {
	.way = {
		.end = end_failed_exec,
		.threads = READERS,
		.survives = true,
	}
};

FIXTURE_VARIANT_ADD(end, exec_under_pressure) {
	.way = {
		.prepare = enter_swapping,
		.before = squeeze,
		.end = end_exec,
		.threads = WRITERS,
	}
};

FIXTURE_VARIANT_ADD(end, oom) {
	.way = {
		.before = enter_limited,
		.end = end_allocate,
		.threads = WRITERS,
	}
};

FIXTURE_VARIANT_ADD(end, oom_of_one_in_cgroup) {
	.way = {
		.prepare = prepare_together,
		.before = be_victim,
		.end = end_allocate,
		.threads = READERS,
	}
};

FIXTURE_VARIANT_ADD(end, oom_group) {
	.way = {
		.before = enter_limited_group,
		.act = act_oom_group,
		.threads = READERS,
	}
};

FIXTURE_VARIANT_ADD(end, oom_reaped) {
	.way = {
		.before = enter_limited,
		.act = act_oom_reaped,
		.threads = READERS,
	}
};

FIXTURE_VARIANT_ADD(end, mrelease) {
	.way = { .act = act_mrelease, .threads = READERS }
};

FIXTURE_VARIANT_ADD(end, mrelease_swapped) {
	.way = {
		.act = act_mrelease,
		.threads = READERS,
		.mem = MEM_swapped,
	}
};

FIXTURE_VARIANT_ADD(end, core_dump) {
	.way = { .end = end_abort, .after = check_core, .threads = READERS }
};

FIXTURE_VARIANT_ADD(end, with_page_in_pipe) {
	.way = {
		.prepare = prepare_pipe,
		.before = splice_page,
		.end = end_exit,
		.after = check_spliced,
	}
};

#ifdef HAVE_LIBURING
FIXTURE_VARIANT_ADD(end, with_registered_page) {
	.way = { .before = register_pages, .end = end_exit }
};

/* Before fork: the others inherit the ring, and its pages with it */
FIXTURE_VARIANT_ADD(end, with_registered_page_inherited) {
	.way = { .prepare = register_pages, .end = end_exit }
};
#endif

static void run_role(struct __test_metadata *_metadata, const struct way *way,
		     enum role role)
{
	struct test_case tc = { .way = way, .role = role };

	COW_REPORT(cow_run_warm(run_way, &tc));
}

TEST_F_TIMEOUT(end, parent, 300)
{
	run_role(_metadata, &variant->way, ROLE_PARENT);
}

TEST_F_TIMEOUT(end, child, 300)
{
	run_role(_metadata, &variant->way, ROLE_CHILD);
}

TEST_F_TIMEOUT(end, third, 300)
{
	run_role(_metadata, &variant->way, ROLE_THIRD);
}

TEST_F_TIMEOUT(end, thread, 300)
{
	run_role(_metadata, &variant->way, ROLE_THREAD);
}

/* The last sharers leave at the same time */

#define NR_CHILDREN	32
#define ROUNDS		6

static unsigned int *gate;

static long exit_at_gate(const long *arg)
{
	__atomic_fetch_add(&gate[1], 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(gate, __ATOMIC_SEQ_CST))
		sched_yield();
	_exit(0);
}

static const char *crowd(enum cow_mode mode, const void *arg)
{
	bool with_parent = *(const bool *)arg;
	unsigned int i, nr;
	const char *why;

	why = cow_mem_start_big(mode, &cow_mem[MEM_sparse], NR_CHILDREN + 1);
	if (why)
		return why;
	gate[0] = 0;
	gate[1] = 0;
	for (i = 0; i < NR_CHILDREN; i++)
		cow_fork(i % 5 == 4 ? i / 2 : 0, COW_FORK);
	for (i = 0; i <= NR_CHILDREN; i += 6)
		cow_poke(i, i % world->nr_pages);
	cow_check_all("before they leave");
	for (i = with_parent ? 0 : 1; i <= NR_CHILDREN; i++)
		cow_send(i, exit_at_gate, 0);
	nr = NR_CHILDREN + with_parent;
	while (__atomic_load_n(&gate[1], __ATOMIC_SEQ_CST) < nr)
		usleep(1000);
	for (i = 0; i <= NR_CHILDREN; i++)
		cow_proc[i].alive = !i && !with_parent;
	__atomic_store_n(gate, 1, __ATOMIC_SEQ_CST);
	/* In between the parent has less and less company */
	for (i = 0; i < 8 && !with_parent; i++)
		cow_poke(0, i * world->nr_pages / 8);
	for (i = with_parent ? 0 : 1; i <= NR_CHILDREN; i++)
		cow_exit_wait(i);
	if (!with_parent) {
		cow_check(0, "alone again");
		cow_poke_all(0);
		cow_check(0, "after writes");
	}
	cow_world_stop();
	return NULL;
}

static const char *run_crowd(enum cow_mode mode, const void *arg)
{
	const char *why = NULL;
	int i;

	for (i = 0; i < ROUNDS && !why; i++)
		why = run_lives(mode, crowd, arg, 1);
	return why;
}

FIXTURE(crowd) {
};

FIXTURE_VARIANT(crowd) {
	bool with_parent;
};

FIXTURE_SETUP(crowd)
{
	gate = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, gate);
}

FIXTURE_TEARDOWN(crowd) {}

FIXTURE_VARIANT_ADD(crowd, children) { .with_parent = false };
FIXTURE_VARIANT_ADD(crowd, all) { .with_parent = true };

TEST_F_TIMEOUT(crowd, leaves_at_once, 300)
{
	COW_REPORT(cow_run_once(run_crowd, &variant->with_parent));
}

/* Each parent dies when it has a child */

#define GENERATIONS	50

static const char *chain(enum cow_mode mode, const void *arg)
{
	const struct cow_mem *mem = &cow_mem[*(const enum cow_mem_kind *)arg];
	unsigned int i, child, cur = 0;
	const char *why;

	why = cow_mem_start_big(mode, mem, GENERATIONS + 1);
	if (why)
		return why;
	for (i = 0; i < GENERATIONS; i++) {
		child = cow_fork(cur, COW_FORK);
		if (!i)
			cow_must_share(mode, mem);
		/* One side, the other, or none */
		if (i % 3)
			cow_poke(i % 3 == 1 ? cur : child,
				 i * 7 % world->nr_pages);
		cow_exit(cur);
		cow_check(child, "after its parent's exit");
		cur = child;
		if (i % 10 == 9) {
			log_others("RSS of a generation");
			cow_poke_all(cur);
		}
	}
	cow_check(cur, "at the end");
	cow_world_stop();
	return NULL;
}

static const char *run_chain(enum cow_mode mode, const void *arg)
{
	return run_lives(mode, chain, arg, 1);
}

FIXTURE(chain) {
};

FIXTURE_VARIANT(chain) {
	enum cow_mem_kind mem;
};

FIXTURE_SETUP(chain) {}
FIXTURE_TEARDOWN(chain) {}

FIXTURE_VARIANT_ADD(chain, anon) { .mem = MEM_anon };
FIXTURE_VARIANT_ADD(chain, swapped) { .mem = MEM_swapped };

TEST_F_TIMEOUT(chain, of_generations, 300)
{
	COW_REPORT(cow_run_warm(run_chain, &variant->mem));
}

/*
 * A process that is alone with its tables: its last child has gone, and it has
 * not written since.  Each table has two VMAs, so that none goes as a whole.
 * All of its memory can be had while it is half dead.
 */

#define LONELY_TABLES	4

static int prepare_lonely(void)
{
	unsigned int i;
	char *p;

	if (mmap(arena, LONELY_TABLES * TABLE, RW, MAP_PRIVATE | MAP_ANONYMOUS |
		 MAP_FIXED, -1, 0) != arena)
		return -1;
	madvise(arena, LONELY_TABLES * TABLE, MADV_NOHUGEPAGE);
	memset(arena, 1, LONELY_TABLES * TABLE);
	for (i = 0; i < LONELY_TABLES; i++) {
		p = arena + i * TABLE;
		cow_track_range(p, TABLE, 64);
		if (mprotect(p + TABLE / 2 + PAGE, PAGE, PROT_READ))
			return -1;
	}
	return 0;
}

static const struct cow_mem lonely = {
	.name = "lonely", .prepare = prepare_lonely, .tables = LONELY_TABLES,
};

static void release(unsigned int proc)
{
	kill(world->pid[proc], SIGKILL);
	await_exit_stop(proc);
	if (syscall(SYS_process_mrelease, cow_proc[proc].pidfd, 0))
		cow_fail("process_mrelease: %s", strerror(errno));
}

/* Its memory, beyond that of which it dies, is there before the limit is */
static void run_out(unsigned int proc)
{
	must(proc, enter_limited, 0);
	if (world->skip[0])
		return;
	cow_send(proc, end_allocate, 0);
	await_exit_stop(proc);
}

static const char *run_lonely(enum cow_mode mode, const void *arg)
{
	const long pages = LONELY_TABLES * TABLE / PAGE;
	void (*end)(unsigned int proc) = arg;
	long before, after, i;

	cow_mem_start(mode, &lonely);
	cow_fork(0, COW_FORK);
	cow_must_share(mode, &lonely);
	cow_exit(1);
	before = resident(0);
	trace_exit(0);
	end(0);
	if (world->skip[0]) {
		ptrace(PTRACE_DETACH, world->pid[0], NULL, NULL);
		cow_world_stop();
		return world->skip;
	}
	cow_proc[0].alive = false;
	/* The OOM reaper comes after a while */
	for (i = 0; i < 150; i++) {
		after = resident(0);
		if (after + pages <= before || end == release)
			break;
		usleep(100000);
	}
	if (after + pages > before)
		cow_fail("%ld pages before, %ld after", before, after);
	let_exit(0);
	cow_world_stop();
	return NULL;
}

FIXTURE(lonely) {
};

FIXTURE_SETUP(lonely) {}
FIXTURE_TEARDOWN(lonely) {}

TEST_F_TIMEOUT(lonely, mrelease, 300)
{
	COW_REPORT(cow_run(run_lonely, release));
}

TEST_F_TIMEOUT(lonely, oom_reaped, 300)
{
	COW_REPORT(cow_run(run_lonely, run_out));
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
