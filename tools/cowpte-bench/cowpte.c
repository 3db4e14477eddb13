// SPDX-License-Identifier: GPL-2.0
/*
 * cowpte - run a program with copy-on-write page tables, switch running ones,
 * show who uses them.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

#define EXIT_CANNOT_EXEC	126
#define EXIT_NOT_FOUND		127

static void __noreturn usage_help(void)
{
	printf("\n"
	       "Usage:\n"
	       " %1$s run [options] [--] <command> [<argument>...]\n"
	       " %1$s status [-a | -p <pid>...]\n"
	       " %1$s on -p <pid>...\n"
	       " %1$s off -p <pid>...\n"
	       "\n"
	       "Let processes share their page tables at fork() instead of copying them.\n"
	       "\n"
	       "Commands:\n"
	       " run       run a command that shares page tables, as all it starts does\n"
	       " status    show the system's setting and counters, or those of processes\n"
	       " on, off   switch running processes for their coming forks\n"
	       "\n"
	       "Options:\n"
	       " -p, --pid <pid>   a process; may be repeated\n"
	       " -a, --all         status: all processes that are switched on\n"
	       " -0, --off         run: without sharing, where it would be inherited\n"
	       "\n"
	       " -h, --help        display this help\n"
	       " -V, --version     display version\n"
	       "\n"
	       "Exit status: 0 success, 1 failure; of run: that of the command,\n"
	       "126 it cannot be executed, 127 it is not found.\n"
	       "\n"
	       "For more details see cowpte(1).\n",
	       program_invocation_short_name);
	exit(fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS);
}

static void __noreturn usage_error(void)
{
	fprintf(stderr, "Try '%s --help' for more information.\n",
		program_invocation_short_name);
	exit(EXIT_FAILURE);
}

/* End with the reason why the prctl or the file refused. */
static void __noreturn feature_error(int error)
{
	switch (error) {
	case EINVAL:
		errx(EXIT_FAILURE, "%s", COWPTE_MISSING);
	case EOPNOTSUPP:
		errx(EXIT_FAILURE, "%s", COWPTE_UNSUPPORTED);
	default:
		errno = error;
		err(EXIT_FAILURE, "cannot switch copy-on-write page tables");
	}
}

static pid_t pid_arg(const char *arg)
{
	char *end;
	long val;

	errno = 0;
	val = strtol(arg, &end, 10);
	if (!isdigit((unsigned char)arg[0]) || *end || errno || val < 1 ||
	    val > INT_MAX) {
		warnx("invalid PID argument: '%s'", arg);
		usage_error();
	}
	return val;
}

/*
 * Say why /proc/PID/cow_pte could not be used: the same errno stands for a
 * process that is not there and for a kernel that has no such file.
 */
static void pid_error(pid_t pid, int error)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	switch (error) {
	case ENOENT:
		if (!access(path, F_OK))
			warnx("%s", COWPTE_MISSING);
		else
			warnx("%d: no such process", (int)pid);
		break;
	case ESRCH:
		if (!access(path, F_OK))
			warnx("%d: has no memory of its own (a kernel thread, or ended)",
			      (int)pid);
		else
			warnx("%d: no such process", (int)pid);
		break;
	case EACCES:
	case EPERM:
		warnx("%d: permission denied: needs ptrace access (same user, or CAP_SYS_PTRACE)",
		      (int)pid);
		break;
	case EOPNOTSUPP:
		warnx("%s", COWPTE_UNSUPPORTED);
		break;
	default:
		errno = error;
		warn("%d: %s/cow_pte", (int)pid, path);
	}
}

/* 0, 1, or -errno. */
static int pid_get(pid_t pid)
{
	char path[64], buf[16];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/cow_pte", (int)pid);
	n = read_file(path, buf, sizeof(buf));
	if (n < 0)
		return n;
	/* An empty file: the process ended between open and read. */
	if (!n)
		return -ESRCH;
	if ((buf[0] != '0' && buf[0] != '1') || (buf[1] && buf[1] != '\n'))
		return -EINVAL;
	return buf[0] - '0';
}

/* 0 or -errno. */
static int pid_set(pid_t pid, bool on)
{
	char path[64];
	ssize_t n;
	int error = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/cow_pte", (int)pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = write(fd, on ? "1" : "0", 1);
	if (n != 1)
		error = n < 0 ? errno : EIO;
	close(fd);
	return -error;
}

/* A setting that has no effect is worth a word, but it is not an error. */
static void warn_if_never(void)
{
	if (cowpte_sysmode() == COWPTE_SYS_NEVER)
		warnx("warning: %s is 'never': forks are conventional until it is 'prctl'",
		      COWPTE_SYSFS_ENABLED);
}

static int cmd_run(bool on, char **argv)
{
	int error;

	error = cowpte_set(on);
	/* Not sharing is what every other kernel does anyway. */
	if (error && (on || error != -EINVAL))
		feature_error(-error);
	if (on)
		warn_if_never();
	else if (cowpte_sysmode() == COWPTE_SYS_ALWAYS)
		warnx("warning: %s is 'always': forks share all the same",
		      COWPTE_SYSFS_ENABLED);
	fflush(NULL);
	execvp(argv[0], argv);
	error = errno;
	warn("failed to execute %s", argv[0]);
	return error == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_EXEC;
}

static int cmd_switch(bool on, const pid_t *pids, size_t nr)
{
	int ret = EXIT_SUCCESS;
	size_t i;

	for (i = 0; i < nr; i++) {
		int error = pid_set(pids[i], on);

		if (error) {
			pid_error(pids[i], -error);
			ret = EXIT_FAILURE;
		}
	}
	if (on && ret == EXIT_SUCCESS)
		warn_if_never();
	return ret;
}

static void comm_of(pid_t pid, char *buf, size_t size)
{
	char path[64];
	ssize_t n, i;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	n = read_file(path, buf, size);
	if (n <= 0) {
		snprintf(buf, size, "-");
		return;
	}
	buf[strcspn(buf, "\n")] = '\0';
	/* A process names itself, and this goes to a terminal. */
	for (i = 0; buf[i]; i++) {
		if (!isprint((unsigned char)buf[i]))
			buf[i] = '?';
	}
}

static void kb_of(pid_t pid, const char *name, char *buf, size_t size)
{
	unsigned long long kb;

	if (status_kb(pid, name, &kb))
		snprintf(buf, size, "-");
	else
		snprintf(buf, size, "%llu kB", kb);
}

static void status_heading(void)
{
	printf("%7s %-15s %-7s %13s %13s\n", "PID", "COMMAND", "COW-PTE",
	       "VmPTE", "VmCowPTE");
}

static void status_line(pid_t pid, int on)
{
	char comm[64], pte[32], cow[32];

	comm_of(pid, comm, sizeof(comm));
	kb_of(pid, "VmPTE", pte, sizeof(pte));
	kb_of(pid, "VmCowPTE", cow, sizeof(cow));
	printf("%7d %-15s %-7s %13s %13s\n", (int)pid, comm, on ? "on" : "off",
	       pte, cow);
}

static int status_pids(const pid_t *pids, size_t nr)
{
	int ret = EXIT_SUCCESS;
	bool heading = false;
	size_t i;

	for (i = 0; i < nr; i++) {
		int on = pid_get(pids[i]);

		if (on < 0) {
			pid_error(pids[i], -on);
			ret = EXIT_FAILURE;
			continue;
		}
		if (!heading)
			status_heading();
		heading = true;
		status_line(pids[i], on);
	}
	return ret;
}

/*
 * Every process that is on. Those of other users cannot be looked at, which
 * is no error but must not pass for "off" either.
 */
static int status_all(void)
{
	unsigned int hidden = 0;
	struct dirent *d;
	DIR *dir;
	int on;

	on = cowpte_get();
	if (on < 0)
		feature_error(-on);
	dir = opendir("/proc");
	if (!dir)
		err(EXIT_FAILURE, "/proc");
	status_heading();
	while ((d = readdir(dir))) {
		pid_t pid;

		if (!isdigit((unsigned char)d->d_name[0]))
			continue;
		pid = atoi(d->d_name);
		on = pid_get(pid);
		if (on > 0)
			status_line(pid, on);
		else if (on == -EACCES || on == -EPERM)
			hidden++;
	}
	closedir(dir);
	if (hidden)
		warnx("%u processes could not be looked at: permission denied",
		      hidden);
	return EXIT_SUCCESS;
}

static int status_system(void)
{
	static const char *const meaning[] = {
		[COWPTE_SYS_UNKNOWN] = "setting cannot be read",
		[COWPTE_SYS_NEVER] = "no process shares page tables",
		[COWPTE_SYS_PRCTL] = "processes that ask for it share page tables",
		[COWPTE_SYS_ALWAYS] = "all processes share page tables",
	};
	enum cowpte_sysmode mode;
	struct cowpte_vmstat vs;
	unsigned long long kb;
	long min_tables;
	int on;

	on = cowpte_get();
	if (on < 0)
		feature_error(-on);
	mode = cowpte_sysmode();
	printf("%-22s %s (%s)\n", "copy-on-write tables:",
	       cowpte_sysmode_name(mode), meaning[mode]);
	min_tables = cowpte_min_tables();
	if (min_tables >= 0)
		printf("%-22s %ld (smaller processes fork conventionally)\n",
		       "min_tables:", min_tables);
	if (!meminfo_kb("PageTables", &kb))
		printf("%-22s %llu kB (shared tables counted once)\n",
		       "PageTables:", kb);
	if (cowpte_vmstat(&vs)) {
		warnx("no cow_pte counters in /proc/vmstat");
		return EXIT_SUCCESS;
	}
	printf("%-22s %llu\n", "tables shared by fork:", vs.share);
	printf("%-22s %llu\n", "copied at a write:", vs.brk);
	printf("%-22s %llu\n", "reused by last owner:", vs.reuse);
	printf("%-22s %llu\n", "dropped unread:", vs.drop);
	printf("%-22s %llu\n", "copied by fork:", vs.fallback);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "all",	no_argument,		NULL, 'a' },
		{ "help",	no_argument,		NULL, 'h' },
		{ "off",	no_argument,		NULL, '0' },
		{ "pid",	required_argument,	NULL, 'p' },
		{ "version",	no_argument,		NULL, 'V' },
		{ NULL, 0, NULL, 0 }
	};
	enum { NONE, RUN, STATUS, ON, OFF } cmd = NONE;
	const char *name;
	pid_t *pids = NULL;
	bool off = false;
	bool all = false;
	size_t nr = 0;
	int ret, c;

	name = argc > 1 ? argv[1] : NULL;
	if (!name) {
		warnx("a command is missing");
		usage_error();
	} else if (!strcmp(name, "run")) {
		cmd = RUN;
	} else if (!strcmp(name, "status")) {
		cmd = STATUS;
	} else if (!strcmp(name, "on")) {
		cmd = ON;
	} else if (!strcmp(name, "off")) {
		cmd = OFF;
	} else if (!strcmp(name, "-h") || !strcmp(name, "--help")) {
		usage_help();
	} else if (!strcmp(name, "-V") || !strcmp(name, "--version")) {
		printf("cowpte %s\n", COWPTE_VERSION);
		return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
	}
	if (cmd == NONE) {
		warnx("unknown command '%s'", name);
		usage_error();
	}

	/* getopt() takes the name for its messages from argv[0] */
	argv[1] = argv[0];
	argv++;
	argc--;
	/* '+': the options after the command to run are its own */
	while ((c = getopt_long(argc, argv, "+ahp:V0", longopts, NULL)) != -1) {
		switch (c) {
		case 'a':
			all = true;
			break;
		case 'p':
			pids = reallocarray(pids, nr + 1, sizeof(*pids));
			if (!pids)
				err(EXIT_FAILURE, "arguments");
			pids[nr++] = pid_arg(optarg);
			break;
		case '0':
			off = true;
			break;
		case 'h':
			usage_help();
		case 'V':
			printf("cowpte %s\n", COWPTE_VERSION);
			return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
		default:
			usage_error();
		}
	}
	argc -= optind;
	argv += optind;

	if ((cmd == RUN && (nr || all)) || (cmd != RUN && off) ||
	    (cmd != STATUS && all) || (all && nr)) {
		warnx("these options do not go with '%s' or with each other", name);
		usage_error();
	}
	if (cmd != RUN && argc) {
		warnx("unexpected argument '%s' (a process is given with -p)",
		      argv[0]);
		usage_error();
	}
	if (cmd == RUN && !argc) {
		warnx("run: no command given");
		usage_error();
	}
	if ((cmd == ON || cmd == OFF) && !nr) {
		warnx("%s: no process given (-p)", name);
		usage_error();
	}

	switch (cmd) {
	case RUN:
		return cmd_run(!off, argv);
	case ON:
	case OFF:
		ret = cmd_switch(cmd == ON, pids, nr);
		break;
	default:
		if (all)
			ret = status_all();
		else if (nr)
			ret = status_pids(pids, nr);
		else
			ret = status_system();
		break;
	}
	free(pids);
	if (fflush(stdout) || ferror(stdout))
		err(EXIT_FAILURE, "standard output");
	return ret;
}
