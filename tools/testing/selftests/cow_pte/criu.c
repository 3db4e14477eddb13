// SPDX-License-Identifier: GPL-2.0
/*
 * A tree of processes that share page tables is dumped and restored by criu(8): what
 * each of them had in its memory must come back. criu finds out what has changed since
 * an earlier dump by soft-dirty bits, compares the memory of relatives, and forks to
 * restore what they had in common.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_util.h"

#define PAGE_SIZE	4096UL
#define NR_PAGES	4096	/* of each process: 16 MiB, eight tables */
#define NR_PROCS	4
#define ROUNDS		4

/* The first has two children, of which one has a child */
static const int parent_of[NR_PROCS] = { -1, 0, 0, 1 };

static char dir[32];
static unsigned int *mem;

/* Each process writes to a page in seven of its own, in a round */
static bool writes(int proc, int page)
{
	return page % 7 == proc;
}

static unsigned int value(int proc, int round, int page)
{
	return (unsigned int)page * 2654435761u + proc * 97 + round * 13 + 1;
}

/*
 * What a process has in a page, when it has written in so many rounds. All but the
 * first round come after the last fork, which the children of the first inherit from
 * its fill, and the grandchild from its parent's first round.
 */
static unsigned int expected(int proc, int round, int page)
{
	if (proc < 0)
		return value(0, 0, page);
	if (round > 0 && writes(proc, page))
		return value(proc, round, page);
	return expected(parent_of[proc], parent_of[proc] == 1 ? 1 : 0, page);
}

static void write_round(int proc, int round)
{
	int page;

	for (page = 0; page < NR_PAGES; page++)
		if (writes(proc, page))
			mem[page * (PAGE_SIZE / sizeof(*mem))] =
				value(proc, round, page);
}

static int wrong_pages(int proc, int round)
{
	int page, wrong = 0;

	for (page = 0; page < NR_PAGES; page++)
		wrong += mem[page * (PAGE_SIZE / sizeof(*mem))] !=
			 expected(proc, round, page);
	return wrong;
}

/* A line in the process's file, where the test reads it */
static void answer(int proc, int round)
{
	char path[64], line[64];
	int fd, len;

	snprintf(path, sizeof(path), "%s/%d", dir, proc);
	len = snprintf(line, sizeof(line), "%d %d %d\n", round, getpid(),
		       wrong_pages(proc, round));
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, len) != len)
		_exit(1);
	close(fd);
}

/* Waits for signals: USR1 writes the next round, USR2 only looks */
static void __noreturn serve(int proc, int round)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	for (;;) {
		answer(proc, round);
		if (sigwait(&set, &sig))
			_exit(1);
		if (sig == SIGUSR1)
			write_round(proc, ++round);
	}
}

static void __noreturn run_tree(void)
{
	int proc, page, child;
	sigset_t set;

	/* Nothing that belongs to the test, or to a terminal */
	setsid();
	for (child = 0; child < 3; child++)
		if (dup2(open("/dev/null", O_RDWR), child) < 0)
			_exit(1);
	close_range(3, UINT_MAX, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* What the harness had set for its own time limit */
	alarm(0);
	mem = mmap(NULL, NR_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED || madvise(mem, NR_PAGES * PAGE_SIZE, MADV_NOHUGEPAGE))
		_exit(1);
	for (page = 0; page < NR_PAGES; page++)
		mem[page * (PAGE_SIZE / sizeof(*mem))] = value(0, 0, page);

	for (proc = 0, child = 1; child < NR_PROCS; child++) {
		if (parent_of[child] != proc)
			continue;
		if (!fork()) {
			proc = child;
			/* The grandchild inherits that */
			write_round(proc, 1);
		}
	}
	if (!proc)
		write_round(proc, 1);
	serve(proc, 1);
}

/* The last line of a process's file; waits until there are so many. */
static bool answered(int proc, int lines, int *round, pid_t *pid, int *wrong)
{
	char path[64], line[64];
	int i, n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%d", dir, proc);
	for (i = 0; i < 600; i++, usleep(100000)) {
		f = fopen(path, "re");
		if (!f)
			continue;
		for (n = 0; fgets(line, sizeof(line), f);)
			n += !!strchr(line, '\n');
		fclose(f);
		if (n >= lines)
			return n == lines &&
			       sscanf(line, "%d %d %d", round, pid, wrong) == 3;
	}
	return false;
}

static int run(const char *fmt, ...)
{
	char command[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	return system(command);
}

static const char *no_criu(void)
{
	if (run("criu --version > /dev/null 2>&1"))
		return "needs criu";
	if (run("criu check > /dev/null 2>&1"))
		return "criu check: this kernel lacks something that it needs";
	return NULL;
}

FIXTURE(criu) {
	pid_t pid[NR_PROCS];
	int lines;
	int round;
};

FIXTURE_VARIANT(criu) {
	bool on;
};

FIXTURE_VARIANT_ADD(criu, shared) { .on = true };
FIXTURE_VARIANT_ADD(criu, ordinary) { .on = false };

FIXTURE_SETUP(criu)
{
	const char *why = cow_available() && variant->on ? "needs cow_pte" : no_criu();
	int proc, round, wrong;

	if (why)
		SKIP(return, "%s", why);
	if (variant->on) {
		cow_set_system_mode(COW_ON);
		/* criu inherits it, too, and forks to restore */
		ASSERT_EQ(0, prctl(PR_SET_COW_PTE, 1, 0, 0, 0));
	}
	snprintf(dir, sizeof(dir), "/tmp/cow_pte_criu.XXXXXX");
	ASSERT_NE(NULL, mkdtemp(dir));
	if (!fork())
		run_tree();
	self->lines = 1;
	self->round = 1;
	for (proc = 0; proc < NR_PROCS; proc++) {
		ASSERT_TRUE(answered(proc, 1, &round, &self->pid[proc], &wrong));
		ASSERT_EQ(0, wrong);
	}
}

FIXTURE_TEARDOWN(criu)
{
	int proc;

	for (proc = 0; proc < NR_PROCS; proc++)
		if (self->pid[proc])
			kill(self->pid[proc], SIGKILL);
	run("rm -r %s", dir);
	prctl(PR_SET_COW_PTE, 0, 0, 0, 0);
}

/* Tell all of them, and look at what they say */
static void tell(struct __test_metadata *_metadata,
		 struct _test_data_criu *self, int sig)
{
	int proc, round, wrong;
	pid_t pid;

	self->lines++;
	self->round += sig == SIGUSR1;
	for (proc = 0; proc < NR_PROCS; proc++)
		ASSERT_EQ(0, kill(self->pid[proc], sig));
	for (proc = 0; proc < NR_PROCS; proc++) {
		ASSERT_TRUE(answered(proc, self->lines, &round, &pid, &wrong));
		EXPECT_EQ(self->pid[proc], pid);
		EXPECT_EQ(self->round, round);
		EXPECT_EQ(0, wrong) {
			TH_LOG("process %d, round %d", proc, round);
		}
	}
}

/* A command of criu for the whole tree, or what was wrong in its log */
static int dump(const char *command, pid_t pid, const char *options)
{
	int error = run("cd %s && criu %s -t %d --track-mem -o log %s > /dev/null 2>&1",
			dir, command, pid, options);

	if (error)
		run("grep -h Error %s/*/log | sed 's/^/# /'", dir);
	return error;
}

static int bring_back(const char *options)
{
	int error = run("cd %s && criu restore -d -o log %s > /dev/null 2>&1",
			dir, options);

	if (error)
		run("grep -h Error %s/*/log | sed 's/^/# /'", dir);
	return error;
}

static long shared_tables(pid_t pid)
{
	return cow_stat(pid, "shared_bytes") / 4096;
}

TEST_F_TIMEOUT(criu, dump_and_restore, 240)
{
	int status;

	ASSERT_EQ(0, run("mkdir %s/i1 %s/i2 %s/i3", dir, dir, dir));
	if (variant->on)
		EXPECT_LE(1, shared_tables(self->pid[0]));
	/* An earlier state, and what has changed since */
	ASSERT_EQ(0, dump("pre-dump", self->pid[0], "-D i1"));
	tell(_metadata, self, SIGUSR2);
	tell(_metadata, self, SIGUSR1);
	ASSERT_EQ(0, dump("pre-dump", self->pid[0], "-D i2 --prev-images-dir ../i1"));
	tell(_metadata, self, SIGUSR1);
	ASSERT_EQ(0, dump("dump", self->pid[0], "-D i3 --prev-images-dir ../i2"));
	ASSERT_EQ(self->pid[0], waitpid(self->pid[0], &status, 0));

	ASSERT_EQ(0, bring_back("-D i3"));
	tell(_metadata, self, SIGUSR2);
	tell(_metadata, self, SIGUSR1);
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
