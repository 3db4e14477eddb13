// SPDX-License-Identifier: GPL-2.0
/*
 * The user interface: prctl, /proc/PID/cow_pte, sysfs, counters.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef HAVE_LIBCAP
#include <sys/capability.h>
#endif

#include "kselftest_harness.h"
#include "cow_pte_util.h"

#define UNPRIVILEGED	65534

/* Run as "interface --report": the state of the mm as the exit status */
#define REPORT_BASE	40

/* Why these tests cannot run here, or NULL */
static const char *no_feature(void)
{
	static char reason[128];

	if (!cow_available()) {
		cow_set_system_mode(COW_ON);
		return NULL;
	}
	snprintf(reason, sizeof(reason), "this kernel has no cow_pte (prctl: %s)",
		 strerror(cow_available()));
	return reason;
}

/* In force mode a process cannot be told apart by what it shares */
static const char *no_prctl_mode(void)
{
	const char *why = no_feature();

	if (!why && cow_write_file(COW_SYSFS "enabled", "prctl"))
		cow_fail("cannot choose prctl mode: %s", strerror(errno));
	return why;
}

static int set_opt(unsigned long on)
{
	return prctl(PR_SET_COW_PTE, on, 0, 0, 0);
}

static int get_opt(void)
{
	return prctl(PR_GET_COW_PTE, 0, 0, 0, 0);
}

static int child_status(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

/* The state after exec of a program file, as an unprivileged user if asked */
static int report_after_exec(const char *path, bool unprivileged)
{
	pid_t pid = fork();

	if (!pid) {
		if (unprivileged &&
		    (setgid(UNPRIVILEGED) || setuid(UNPRIVILEGED)))
			_exit(1);
		execl(path, "interface", "--report", NULL);
		_exit(2);
	}
	return child_status(pid);
}

FIXTURE(prctl) {
};

FIXTURE_SETUP(prctl)
{
	const char *why = no_prctl_mode();

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(prctl)
{
	cow_set_system_mode(COW_ON);
}

TEST_F(prctl, set_and_get)
{
	ASSERT_EQ(0, set_opt(1));
	EXPECT_EQ(1, get_opt());
	ASSERT_EQ(0, set_opt(1));
	EXPECT_EQ(1, get_opt());
	ASSERT_EQ(0, set_opt(0));
	EXPECT_EQ(0, get_opt());
}

FIXTURE(bad_prctl) {
};

FIXTURE_VARIANT(bad_prctl) {
	int option;
	unsigned long arg[4];
};

FIXTURE_SETUP(bad_prctl)
{
	const char *why = no_prctl_mode();

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(bad_prctl)
{
	cow_set_system_mode(COW_ON);
}

/* The members of a variant */
#define SET(...)	.option = PR_SET_COW_PTE, .arg = { __VA_ARGS__ }
#define GET(...)	.option = PR_GET_COW_PTE, .arg = { __VA_ARGS__ }

FIXTURE_VARIANT_ADD(bad_prctl, set_2) { SET(2, 0, 0, 0) };
FIXTURE_VARIANT_ADD(bad_prctl, set_minus_1) { SET(-1UL, 0, 0, 0) };
FIXTURE_VARIANT_ADD(bad_prctl, set_high_bit) { SET(1UL << 32, 0, 0, 0) };

FIXTURE_VARIANT_ADD(bad_prctl, set_1_and_high_bit) {
	SET(1UL << 32 | 1, 0, 0, 0)
};

FIXTURE_VARIANT_ADD(bad_prctl, set_arg3) { SET(1, 1, 0, 0) };
FIXTURE_VARIANT_ADD(bad_prctl, set_arg4) { SET(1, 0, 1, 0) };
FIXTURE_VARIANT_ADD(bad_prctl, set_arg5) { SET(1, 0, 0, 1) };
FIXTURE_VARIANT_ADD(bad_prctl, clear_arg3) { SET(0, 1, 0, 0) };
FIXTURE_VARIANT_ADD(bad_prctl, clear_arg4) { SET(0, 0, 1, 0) };
FIXTURE_VARIANT_ADD(bad_prctl, clear_arg5) { SET(0, 0, 0, 1) };
FIXTURE_VARIANT_ADD(bad_prctl, get_arg2) { GET(1, 0, 0, 0) };
FIXTURE_VARIANT_ADD(bad_prctl, get_arg3) { GET(0, 1, 0, 0) };
FIXTURE_VARIANT_ADD(bad_prctl, get_arg4) { GET(0, 0, 1, 0) };
FIXTURE_VARIANT_ADD(bad_prctl, get_arg5) { GET(0, 0, 0, 1) };

TEST_F(bad_prctl, einval)
{
	const unsigned long *arg = variant->arg;
	int state;

	for (state = 0; state <= 1; state++) {
		ASSERT_EQ(0, set_opt(state));
		EXPECT_EQ(-1, prctl(variant->option, arg[0], arg[1], arg[2],
				    arg[3]));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(state, get_opt());
	}
}

#ifdef __x86_64__
static void no_compat(int sig)
{
	_exit(KSFT_SKIP);
}

/* prctl() as a 32-bit program calls it; returns -errno like the kernel */
static int prctl_32(int option, int arg2, int arg3)
{
	int ret;

	asm volatile("int $0x80"
		     : "=a" (ret)
		     : "a" (172), "b" (option), "c" (arg2), "d" (arg3),
		       "S" (0), "D" (0)
		     : "memory", "r8", "r9", "r10", "r11");
	return ret;
}

static int compat_works(void)
{
	pid_t pid = fork();

	if (!pid) {
		signal(SIGSEGV, no_compat);
		_exit(prctl_32(PR_GET_DUMPABLE, 0, 0) < 0 ? KSFT_SKIP : 0);
	}
	return child_status(pid) == 0;
}

TEST_F(prctl, compat_syscall)
{
	if (!compat_works())
		SKIP(return, "this kernel runs no 32-bit system calls");
	EXPECT_EQ(0, prctl_32(PR_SET_COW_PTE, 1, 0));
	EXPECT_EQ(1, prctl_32(PR_GET_COW_PTE, 0, 0));
	EXPECT_EQ(1, get_opt());
	EXPECT_EQ(-EINVAL, prctl_32(PR_SET_COW_PTE, 2, 0));
	EXPECT_EQ(-EINVAL, prctl_32(PR_SET_COW_PTE, -1, 0));
	EXPECT_EQ(-EINVAL, prctl_32(PR_SET_COW_PTE, 0, 1));
	EXPECT_EQ(-EINVAL, prctl_32(PR_GET_COW_PTE, 1, 0));
	EXPECT_EQ(1, get_opt());
	EXPECT_EQ(0, prctl_32(PR_SET_COW_PTE, 0, 0));
	EXPECT_EQ(0, get_opt());
}
#endif

TEST_F(prctl, inherited_over_fork)
{
	int state;
	pid_t pid;

	for (state = 1; state >= 0; state--) {
		ASSERT_EQ(0, set_opt(state));
		pid = fork();
		if (!pid)
			_exit(get_opt());
		EXPECT_EQ(state, child_status(pid));
	}
}

TEST_F(prctl, child_does_not_change_parent)
{
	pid_t pid;

	ASSERT_EQ(0, set_opt(1));
	pid = fork();
	if (!pid)
		_exit(set_opt(0));
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(1, get_opt());
}

TEST_F(prctl, kept_over_exec)
{
	int state;

	for (state = 0; state <= 1; state++) {
		ASSERT_EQ(0, set_opt(state));
		EXPECT_EQ(REPORT_BASE + state,
			  report_after_exec("/proc/self/exe", false));
	}
}

TEST_F(prctl, kept_over_unprivileged_exec)
{
	ASSERT_EQ(0, set_opt(1));
	EXPECT_EQ(REPORT_BASE + 1, report_after_exec("/proc/self/exe", true));
}

TEST_F(prctl, unprivileged_may_set)
{
	pid_t pid = fork();

	if (!pid) {
		if (setuid(UNPRIVILEGED) || set_opt(1) || get_opt() != 1)
			_exit(1);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
}

/* A copy of this program on a file system that honours set-id and xattrs */
static int private_copy(char *path, size_t len)
{
	char dir[] = "/tmp/cow_pte.XXXXXX", buf[65536];
	int in, out;
	ssize_t n;

	if (unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    !mkdtemp(dir) || chmod(dir, 0755) ||
	    mount("tmpfs", dir, "tmpfs", 0, NULL))
		return -1;
	snprintf(path, len, "%s/interface", dir);
	in = open("/proc/self/exe", O_RDONLY);
	out = open(path, O_WRONLY | O_CREAT, 0755);
	if (in < 0 || out < 0)
		return -1;
	while ((n = read(in, buf, sizeof(buf))) > 0)
		if (write(out, buf, n) != n)
			return -1;
	close(in);
	close(out);
	return chmod(dir, 0755) ? -1 : n;
}

FIXTURE(secure_exec) {
	char path[64];
};

FIXTURE_SETUP(secure_exec)
{
	const char *why = no_prctl_mode();

	if (why)
		SKIP(return, "%s", why);
	ASSERT_EQ(0, private_copy(self->path, sizeof(self->path)));
	ASSERT_EQ(0, set_opt(1));
	/* The copy by itself changes nothing */
	ASSERT_EQ(REPORT_BASE + 1, report_after_exec(self->path, true));
}

FIXTURE_TEARDOWN(secure_exec)
{
	char *slash = strrchr(self->path, '/');

	if (slash) {
		*slash = '\0';
		umount(self->path);
		rmdir(self->path);
	}
	cow_set_system_mode(COW_ON);
}

TEST_F(secure_exec, set_uid_drops)
{
	ASSERT_EQ(0, chmod(self->path, 04755));
	EXPECT_EQ(REPORT_BASE + 0, report_after_exec(self->path, true));
	EXPECT_EQ(1, get_opt());
}

TEST_F(secure_exec, set_gid_drops)
{
	ASSERT_EQ(0, chmod(self->path, 02755));
	EXPECT_EQ(REPORT_BASE + 0, report_after_exec(self->path, true));
}

TEST_F(secure_exec, set_uid_to_same_user_keeps)
{
	ASSERT_EQ(0, chown(self->path, UNPRIVILEGED, UNPRIVILEGED));
	ASSERT_EQ(0, chmod(self->path, 04755));
	EXPECT_EQ(REPORT_BASE + 1, report_after_exec(self->path, true));
}

TEST_F(secure_exec, file_capability_drops)
{
#ifdef HAVE_LIBCAP
	cap_t cap = cap_from_text("cap_net_raw=ep");

	ASSERT_NE(NULL, cap);
	if (cap_set_file(self->path, cap))
		SKIP(return, "no file capabilities on tmpfs");
	EXPECT_EQ(REPORT_BASE + 0, report_after_exec(self->path, true));
	cap_free(cap);
#else
	SKIP(return, "built without libcap");
#endif
}

FIXTURE(proc) {
	pid_t pid;
	char path[64];
};

FIXTURE_SETUP(proc)
{
	const char *why = no_prctl_mode();

	if (why)
		SKIP(return, "%s", why);
	self->pid = fork();
	ASSERT_NE(-1, self->pid);
	if (!self->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	snprintf(self->path, sizeof(self->path), "/proc/%d/cow_pte", self->pid);
}

FIXTURE_TEARDOWN(proc)
{
	kill(self->pid, SIGKILL);
	waitpid(self->pid, NULL, 0);
	cow_set_system_mode(COW_ON);
}

static int read_state(const char *path)
{
	char buf[16] = "";
	int fd = open(path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, sizeof(buf));
	close(fd);
	if (n != 2 || buf[1] != '\n')
		return -EIO;
	return buf[0] - '0';
}

TEST_F(proc, mode_0600)
{
	struct stat st;

	ASSERT_EQ(0, stat(self->path, &st));
	EXPECT_EQ(S_IFREG | 0600, st.st_mode);
}

TEST_F(proc, write_and_read)
{
	static const char * const on[] = { "1", "1\n", "0", "0\n", "1" };
	size_t i;

	EXPECT_EQ(0, read_state(self->path));
	for (i = 0; i < ARRAY_LEN(on); i++) {
		EXPECT_EQ(0, cow_write_file(self->path, on[i]));
		EXPECT_EQ(on[i][0] - '0', read_state(self->path));
	}
}

TEST_F(proc, same_as_prctl)
{
	ASSERT_EQ(0, set_opt(1));
	EXPECT_EQ(1, read_state("/proc/self/cow_pte"));
	ASSERT_EQ(0, cow_write_file("/proc/self/cow_pte", "0"));
	EXPECT_EQ(0, get_opt());
	ASSERT_EQ(0, cow_write_file("/proc/self/cow_pte", "1\n"));
	EXPECT_EQ(1, get_opt());
}

FIXTURE(bad_proc) {
};

FIXTURE_VARIANT(bad_proc) {
	const char *text;
};

FIXTURE_SETUP(bad_proc)
{
	const char *why = no_prctl_mode();

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(bad_proc)
{
	cow_set_system_mode(COW_ON);
}

FIXTURE_VARIANT_ADD(bad_proc, two) { .text = "2" };
FIXTURE_VARIANT_ADD(bad_proc, minus_one) { .text = "-1" };
FIXTURE_VARIANT_ADD(bad_proc, eleven) { .text = "11" };
FIXTURE_VARIANT_ADD(bad_proc, word) { .text = "on" };
FIXTURE_VARIANT_ADD(bad_proc, newline) { .text = "\n" };
FIXTURE_VARIANT_ADD(bad_proc, space) { .text = " " };
FIXTURE_VARIANT_ADD(bad_proc, trailing_garbage) { .text = "1x" };
FIXTURE_VARIANT_ADD(bad_proc, leading_zero) { .text = "01" };
FIXTURE_VARIANT_ADD(bad_proc, plus) { .text = "+1" };
FIXTURE_VARIANT_ADD(bad_proc, hexadecimal) { .text = "0x1" };
FIXTURE_VARIANT_ADD(bad_proc, trailing_space) { .text = "1 " };

FIXTURE_VARIANT_ADD(bad_proc, long_text) {
	.text = "00000000000000000000000000000000001"
};

TEST_F(bad_proc, einval)
{
	int state;

	for (state = 0; state <= 1; state++) {
		ASSERT_EQ(0, set_opt(state));
		EXPECT_EQ(-1, cow_write_file("/proc/self/cow_pte",
					     variant->text));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(state, get_opt());
	}
}

TEST_F(proc, other_user_may_not)
{
	pid_t pid = fork();

	if (!pid) {
		if (setgid(UNPRIVILEGED) || setuid(UNPRIVILEGED))
			_exit(1);
		if (open(self->path, O_RDONLY) >= 0 || errno != EACCES)
			_exit(2);
		if (open(self->path, O_WRONLY) >= 0 || errno != EACCES)
			_exit(3);
		_exit(0);
	}
	EXPECT_EQ(0, child_status(pid));
}

/* The owner of the file, but not allowed to trace a process with more rights */
TEST_F(proc, undumpable_target)
{
	int fds[2];
	pid_t pid, target;

	ASSERT_EQ(0, pipe(fds));
	target = fork();
	if (!target) {
		if (setgid(UNPRIVILEGED) || setuid(UNPRIVILEGED) ||
		    prctl(PR_SET_DUMPABLE, 0))
			_exit(1);
		if (write(fds[1], "", 1) != 1)
			_exit(1);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	ASSERT_EQ(1, read(fds[0], self->path, 1));
	snprintf(self->path, sizeof(self->path), "/proc/%d/cow_pte", target);

	pid = fork();
	if (!pid) {
		int fd;

		if (setgid(UNPRIVILEGED) || setuid(UNPRIVILEGED))
			_exit(1);
		fd = open(self->path, O_RDWR);
		if (fd < 0)
			_exit(errno == EACCES ? 0 : 2);
		_exit(write(fd, "1", 1) < 0 && errno == EACCES ? 0 : 3);
	}
	EXPECT_EQ(0, child_status(pid));
	EXPECT_EQ(0, read_state(self->path));
	kill(target, SIGKILL);
	waitpid(target, NULL, 0);
}

/* A child waiting for its parent has a page table of its own to be told of */
TEST_F(proc, switch_a_running_process)
{
	long shared;

	cow_world_start(COW_OFF);
	snprintf(self->path, sizeof(self->path), "/proc/%d/cow_pte",
		 cow_proc[0].pid);
	ASSERT_EQ(0, cow_write_file(self->path, "1"));
	shared = cow_vmstat("cow_pte_share");
	cow_fork(0, COW_FORK);
	EXPECT_LT(shared, cow_vmstat("cow_pte_share"));

	/* Off again: what is shared stays so, the next fork shares nothing */
	ASSERT_EQ(0, cow_write_file(self->path, "0"));
	shared = cow_vmstat("cow_pte_share");
	cow_fork(0, COW_FORK);
	EXPECT_EQ(shared, cow_vmstat("cow_pte_share"));
	cow_world_stop();
}

FIXTURE(sysfs) {
	char min_tables[32];
};

FIXTURE_SETUP(sysfs)
{
	const char *why = no_feature();

	if (why)
		SKIP(return, "%s", why);
	ASSERT_LT(0, cow_read_file(COW_SYSFS "min_tables", self->min_tables,
				   sizeof(self->min_tables)));
}

FIXTURE_TEARDOWN(sysfs)
{
	cow_write_file(COW_SYSFS "min_tables", self->min_tables);
	cow_set_system_mode(COW_ON);
}

static const char * const mode_line[][2] = {
	{ "always", "[always] prctl never" },
	{ "never", "always prctl [never]" },
	{ "prctl", "always [prctl] never" },
};

TEST_F(sysfs, enabled_format)
{
	char buf[64];
	size_t i;

	for (i = 0; i < ARRAY_LEN(mode_line); i++) {
		EXPECT_EQ(0, cow_write_file(COW_SYSFS "enabled",
					    mode_line[i][0]));
		ASSERT_LT(0, cow_read_file(COW_SYSFS "enabled", buf,
					   sizeof(buf)));
		EXPECT_STREQ(mode_line[i][1], buf);

		snprintf(buf, sizeof(buf), "%s\n", mode_line[i][0]);
		EXPECT_EQ(0, cow_write_file(COW_SYSFS "enabled", buf));
		ASSERT_LT(0, cow_read_file(COW_SYSFS "enabled", buf,
					   sizeof(buf)));
		EXPECT_STREQ(mode_line[i][1], buf);
	}
}

TEST_F(sysfs, enabled_errors)
{
	static const char * const bad[] = {
		"1", "0", "y", "madvise", "alway", "always never", "prctlx",
		"[prctl]", "\n",
	};
	char before[64], after[64];
	size_t i;

	ASSERT_LT(0, cow_read_file(COW_SYSFS "enabled", before, sizeof(before)));
	for (i = 0; i < ARRAY_LEN(bad); i++) {
		EXPECT_EQ(-1, cow_write_file(COW_SYSFS "enabled", bad[i]));
		EXPECT_EQ(EINVAL, errno);
		ASSERT_LT(0, cow_read_file(COW_SYSFS "enabled", after,
					   sizeof(after)));
		EXPECT_STREQ(before, after);
	}
}

TEST_F(sysfs, file_modes)
{
	struct stat st;

	ASSERT_EQ(0, stat(COW_SYSFS "enabled", &st));
	EXPECT_EQ(S_IFREG | 0644, st.st_mode);
	ASSERT_EQ(0, stat(COW_SYSFS "min_tables", &st));
	EXPECT_EQ(S_IFREG | 0644, st.st_mode);
}

TEST_F(sysfs, min_tables_format)
{
	static const char * const bad[] = { "-1", "x", "1x", "", "\n" };
	char buf[32];
	size_t i;

	EXPECT_EQ(0, cow_write_file(COW_SYSFS "min_tables", "17\n"));
	ASSERT_LT(0, cow_read_file(COW_SYSFS "min_tables", buf, sizeof(buf)));
	EXPECT_STREQ("17", buf);
	for (i = 0; i < ARRAY_LEN(bad); i++) {
		/* Writing nothing is no write at all */
		if (bad[i][0]) {
			EXPECT_EQ(-1, cow_write_file(COW_SYSFS "min_tables",
						     bad[i]));
			EXPECT_EQ(EINVAL, errno);
		}
		ASSERT_LT(0, cow_read_file(COW_SYSFS "min_tables", buf,
					   sizeof(buf)));
		EXPECT_STREQ("17", buf);
	}
}

/* What fork of a process with two tables of anonymous memory shares */
static long shared_by_fork(enum cow_mode mode)
{
	long before;

	if (cow_mem_start(mode, &cow_mem[MEM_anon]))
		cow_fail("no anonymous memory");
	before = cow_vmstat("cow_pte_share");
	cow_fork(0, COW_FORK);
	return cow_vmstat("cow_pte_share") - before;
}

TEST_F(sysfs, min_tables_keeps_small_processes_out)
{
	ASSERT_EQ(0, cow_write_file(COW_SYSFS "enabled", "prctl"));
	ASSERT_EQ(0, cow_write_file(COW_SYSFS "min_tables", "1000000"));
	EXPECT_EQ(0, shared_by_fork(COW_ON));
	cow_world_stop();
	ASSERT_EQ(0, cow_write_file(COW_SYSFS "min_tables", "0"));
	EXPECT_LE(2, shared_by_fork(COW_ON));
	cow_world_stop();
}

TEST_F(sysfs, never_stops_sharing)
{
	ASSERT_EQ(0, cow_write_file(COW_SYSFS "enabled", "never"));
	EXPECT_EQ(0, shared_by_fork(COW_OFF));
	EXPECT_EQ(0, cow_status(cow_proc[0].pid, "VmCowPTE"));
	EXPECT_EQ(0, cow_status(cow_proc[1].pid, "VmCowPTE"));
	cow_world_stop();
}

TEST_F(sysfs, never_while_shared)
{
	unsigned int child;
	long before;

	ASSERT_EQ(0, cow_write_file(COW_SYSFS "enabled", "prctl"));
	EXPECT_LE(2, shared_by_fork(COW_ON));
	ASSERT_EQ(0, cow_write_file(COW_SYSFS "enabled", "never"));
	before = cow_vmstat("cow_pte_share");
	child = cow_fork(0, COW_FORK);
	EXPECT_EQ(before, cow_vmstat("cow_pte_share"));
	cow_check_all("after never");
	cow_poke_all(0);
	cow_check_all("after the parent wrote");
	cow_poke_all(child);
	cow_poke_all(1);
	cow_check_all("after all wrote");
	cow_world_stop();
}

TEST_F(sysfs, always_needs_no_opt_in)
{
	ASSERT_EQ(0, cow_write_file(COW_SYSFS "enabled", "always"));
	EXPECT_LE(2, shared_by_fork(COW_OFF));
	cow_poke_all(1);
	cow_check_all("after the child wrote");
	cow_world_stop();
}

TEST_F(sysfs, prctl_needs_opt_in)
{
	ASSERT_EQ(0, cow_write_file(COW_SYSFS "enabled", "prctl"));
	EXPECT_EQ(0, shared_by_fork(COW_OFF));
	cow_world_stop();
}

/* A file of one of the processes */
static const char *cow_proc_path(unsigned int proc, const char *name)
{
	static char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", cow_proc[proc].pid, name);
	return path;
}

FIXTURE(counters) {
};

FIXTURE_SETUP(counters)
{
	const char *why = no_prctl_mode();

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(counters)
{
	cow_set_system_mode(COW_ON);
}

TEST_F(counters, present)
{
	static const char * const name[] = {
		"cow_pte_share", "cow_pte_break", "cow_pte_reuse",
		"cow_pte_drop", "cow_pte_fallback",
	};
	size_t i;

	for (i = 0; i < ARRAY_LEN(name); i++) {
		EXPECT_LE(0, cow_vmstat(name[i])) {
			TH_LOG("%s", name[i] ?: "");
		}
	}
	EXPECT_EQ(0, cow_status(getpid(), "VmCowPTE"));
}

/* How far a counter moves while a process writes one page, or all of them */
static long moved_by_write(const char *counter, unsigned int proc, int page)
{
	long before = cow_vmstat(counter);

	if (page < 0)
		cow_poke_all(proc);
	else
		cow_poke(proc, page);
	return cow_vmstat(counter) - before;
}

static long moved_by_exit(const char *counter, unsigned int proc)
{
	long before = cow_vmstat(counter);

	cow_exit(proc);
	return cow_vmstat(counter) - before;
}

TEST_F(counters, life_of_a_table)
{
	long kb;

	EXPECT_LE(2, shared_by_fork(COW_ON));

	kb = cow_status(cow_proc[0].pid, "VmCowPTE");
	EXPECT_LE(8, kb);
	EXPECT_LE(8, cow_status(cow_proc[1].pid, "VmCowPTE"));

	/* The socket calls themselves break tables the first time */
	cow_check_all("after fork");
	cow_poke(0, world->nr_pages - 1);
	cow_poke(1, world->nr_pages - 1);

	/* The child's write copies the table, the parent's takes it over */
	kb = cow_status(cow_proc[1].pid, "VmCowPTE");
	EXPECT_LE(1, moved_by_write("cow_pte_break", 1, 0));
	EXPECT_EQ(kb - 4, cow_status(cow_proc[1].pid, "VmCowPTE"));
	kb = cow_status(cow_proc[0].pid, "VmCowPTE");
	EXPECT_LE(1, moved_by_write("cow_pte_reuse", 0, 0));
	EXPECT_EQ(kb - 4, cow_status(cow_proc[0].pid, "VmCowPTE"));
	/* Private now: more writes cost nothing */
	EXPECT_EQ(0, moved_by_write("cow_pte_break", 1, -1));
	EXPECT_EQ(0, moved_by_write("cow_pte_reuse", 0, -1));
	cow_check_all("after the writes");

	cow_fork(0, COW_FORK);
	EXPECT_LE(2, moved_by_exit("cow_pte_drop", 2));
	EXPECT_LE(2, moved_by_write("cow_pte_reuse", 0, -1));
	cow_check_all("at the end");
	cow_world_stop();
}

TEST_F(counters, fallback)
{
	const char *why = cow_mem_start(COW_ON, &cow_mem[MEM_dontfork_neighbour]);
	long before;

	ASSERT_EQ(NULL, why);
	before = cow_vmstat("cow_pte_fallback");
	cow_fork(0, COW_FORK);
	EXPECT_LT(before, cow_vmstat("cow_pte_fallback"));
	cow_world_stop();
}

/* Not opted in: nothing is counted, not even as a fallback */
TEST_F(counters, untouched_without_opt_in)
{
	static const char * const name[] = {
		"cow_pte_share", "cow_pte_break", "cow_pte_reuse",
		"cow_pte_drop", "cow_pte_fallback",
	};
	long before[ARRAY_LEN(name)];
	size_t i;

	for (i = 0; i < ARRAY_LEN(name); i++)
		before[i] = cow_vmstat(name[i]);
	EXPECT_EQ(0, shared_by_fork(COW_OFF));
	cow_poke_all(1);
	cow_exit(1);
	cow_poke_all(0);
	cow_world_stop();
	for (i = 0; i < ARRAY_LEN(name); i++) {
		EXPECT_EQ(before[i], cow_vmstat(name[i])) {
			TH_LOG("%s", name[i] ?: "");
		}
	}
}

FIXTURE(stat) {
	char min_tables[32];
};

FIXTURE_SETUP(stat)
{
	const char *why = no_prctl_mode();

	if (why)
		SKIP(return, "%s", why);
	ASSERT_LT(0, cow_read_file(COW_SYSFS "min_tables", self->min_tables,
				   sizeof(self->min_tables)));
}

FIXTURE_TEARDOWN(stat)
{
	cow_write_file(COW_SYSFS "min_tables", self->min_tables);
	cow_set_system_mode(COW_ON);
}

/* What each of two sharers has, and has done */
TEST_F(stat, life_of_a_table)
{
	long shared, alone, copied, faults, reused;
	pid_t parent, child;

	EXPECT_LE(2, shared_by_fork(COW_ON));
	parent = cow_proc[0].pid;
	child = cow_proc[1].pid;
	EXPECT_LE(2, cow_stat(parent, "share"));
	EXPECT_EQ(cow_stat(parent, "share"), cow_stat(parent, "last_fork_share"));
	EXPECT_EQ(0, cow_stat(parent, "skip"));
	EXPECT_EQ(0, cow_stat(child, "share"));
	EXPECT_EQ(0, cow_stat(child, "last_fork_share"));

	/* The socket calls themselves break tables the first time */
	cow_check_all("after fork");
	cow_poke(0, world->nr_pages - 1);
	cow_poke(1, world->nr_pages - 1);
	shared = cow_stat(parent, "shared_bytes");
	alone = cow_stat(parent, "alone_bytes");
	EXPECT_LE(4096, shared);
	EXPECT_EQ(shared, cow_stat(child, "shared_bytes"));
	/* Of what two share, each saves half */
	EXPECT_EQ(shared / 2, cow_stat(parent, "saved_bytes"));
	EXPECT_EQ(shared / 2, cow_stat(child, "saved_bytes"));

	copied = cow_stat(child, "break");
	faults = cow_stat(child, "break_fault");
	cow_poke(1, 0);
	EXPECT_EQ(copied + 1, cow_stat(child, "break"));
	EXPECT_EQ(faults + 1, cow_stat(child, "break_fault"));
	EXPECT_EQ(shared - 4096, cow_stat(child, "shared_bytes"));
	EXPECT_EQ(shared - 4096, cow_stat(parent, "shared_bytes"));
	EXPECT_EQ(alone + 4096, cow_stat(parent, "alone_bytes"));
	EXPECT_EQ(alone + shared, cow_status(parent, "VmCowPTE") * 1024);

	reused = cow_stat(parent, "reuse");
	cow_poke(0, 0);
	EXPECT_EQ(reused + 1, cow_stat(parent, "reuse"));
	EXPECT_EQ(alone, cow_stat(parent, "alone_bytes"));
	cow_check_all("after the writes");
	cow_world_stop();
}

/* A system call that breaks a table is told from a fault */
TEST_F(stat, break_by_call)
{
	long copied, faults;

	EXPECT_LE(2, shared_by_fork(COW_ON));
	cow_check_all("after fork");
	copied = cow_stat(cow_proc[1].pid, "break");
	faults = cow_stat(cow_proc[1].pid, "break_fault");
	ASSERT_EQ(0, cow_write_file(cow_proc_path(1, "clear_refs"), "1"));
	EXPECT_LT(copied, cow_stat(cow_proc[1].pid, "break"));
	EXPECT_EQ(faults, cow_stat(cow_proc[1].pid, "break_fault"));
	cow_world_stop();
}

TEST_F(stat, fallback_reasons)
{
	const char *why = cow_mem_start(COW_ON, &cow_mem[MEM_dontfork_neighbour]);
	pid_t pid;

	ASSERT_EQ(NULL, why);
	cow_fork(0, COW_FORK);
	pid = cow_proc[0].pid;
	EXPECT_LE(1, cow_stat(pid, "fallback_stack"));
	EXPECT_LE(1, cow_stat(pid, "fallback_vma"));
	EXPECT_EQ(cow_stat(pid, "fallback"),
		  cow_stat(pid, "fallback_stack") + cow_stat(pid, "fallback_vma") +
		  cow_stat(pid, "fallback_pinned"));
	cow_world_stop();
}

/* Why the last fork shared nothing, in the words of the file */
static const char *last_skip(void)
{
	static char buf[1024];
	char *word;

	if (cow_read_file(cow_proc_path(0, "cow_pte_stat"), buf, sizeof(buf)) <= 0)
		cow_fail("no cow_pte_stat");
	word = strstr(buf, "last_fork_skip ");
	if (!word)
		cow_fail("no reason");
	word += strlen("last_fork_skip ");
	word[strcspn(word, "\n")] = '\0';
	return word;
}

TEST_F(stat, skipped_forks)
{
	long before = cow_vmstat("cow_pte_skip");

	EXPECT_LE(2, shared_by_fork(COW_ON));
	EXPECT_STREQ("-", last_skip());
	ASSERT_EQ(0, cow_write_file(COW_SYSFS "enabled", "never"));
	cow_fork(0, COW_FORK);
	EXPECT_STREQ("never", last_skip());
	EXPECT_EQ(0, cow_stat(cow_proc[0].pid, "last_fork_share"));
	ASSERT_EQ(0, cow_write_file(COW_SYSFS "enabled", "prctl"));
	cow_world_stop();

	ASSERT_EQ(0, cow_write_file(COW_SYSFS "min_tables", "1000000"));
	EXPECT_EQ(0, shared_by_fork(COW_ON));
	EXPECT_STREQ("min_tables", last_skip());
	EXPECT_EQ(1, cow_stat(cow_proc[0].pid, "skip"));
	cow_world_stop();
	EXPECT_EQ(before + 2, cow_vmstat("cow_pte_skip"));

	/* Who has not asked skips nothing */
	EXPECT_EQ(0, shared_by_fork(COW_OFF));
	EXPECT_STREQ("-", last_skip());
	EXPECT_EQ(0, cow_stat(cow_proc[0].pid, "skip"));
	cow_world_stop();
}

/* What others share is theirs to know */
TEST_F(stat, not_for_others)
{
	int status, fd;
	pid_t pid;

	EXPECT_LE(2, shared_by_fork(COW_ON));
	pid = fork();
	if (!pid) {
		if (setresuid(65534, 65534, 65534))
			_exit(1);
		fd = open(cow_proc_path(0, "cow_pte_stat"), O_RDONLY | O_CLOEXEC);
		_exit(fd < 0 && errno == EACCES ? 0 : 2);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	cow_world_stop();
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--report"))
		return REPORT_BASE + get_opt();
	cow_main_start();
	return test_harness_run(argc, argv);
}
