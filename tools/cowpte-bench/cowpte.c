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
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "output.h"

#define EXIT_CANNOT_EXEC	126
#define EXIT_NOT_FOUND		127

static void __noreturn usage_help(void)
{
	printf("\n"
	       "Usage:\n"
	       " %1$s run [options] [--] <command> [<argument>...]\n"
	       " %1$s status [options] [-a | <pid>...]\n"
	       " %1$s on <pid>...\n"
	       " %1$s off <pid>...\n"
	       "\n"
	       "Let processes share their page tables at fork() instead of copying them.\n"
	       "\n"
	       "Commands:\n"
	       " run       run a command that shares page tables, as all it starts does\n"
	       " status    show the system's setting and counters, or those of processes\n"
	       " on, off   switch running processes for their coming forks\n"
	       "\n"
	       "Options:\n"
	       " -p, --pid <pid>[,<pid>...]  processes, as the operands are\n"
	       " -a, --all                   status: all processes that are switched on\n"
	       " -j, --json                  status: as JSON\n"
	       " -v, --verbose               status: all that the kernel knows of a process\n"
	       " -w, --watch <seconds>       status: again and again, until interrupted\n"
	       " -0, --off                   run: without sharing, where it would be inherited\n"
	       "\n"
	       " -h, --help                  display this help\n"
	       " -V, --version               display version\n"
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

/* The processes that the arguments name */
struct pids {
	pid_t *pid;
	size_t nr;
};

/* One or several: "1", "1,2", or what pidof(1) prints, as one argument. */
static void add_pids(struct pids *pids, const char *arg)
{
	char *list = strdup(arg), *word, *save;

	if (!list)
		err(EXIT_FAILURE, "arguments");
	word = strtok_r(list, ", \t\n", &save);
	if (!word)
		pid_arg(arg);
	for (; word; word = strtok_r(NULL, ", \t\n", &save)) {
		pids->pid = reallocarray(pids->pid, pids->nr + 1,
					 sizeof(*pids->pid));
		if (!pids->pid)
			err(EXIT_FAILURE, "arguments");
		pids->pid[pids->nr++] = pid_arg(word);
	}
	free(list);
}

/* Has it ended, with nobody who has waited for it yet? */
static bool is_zombie(pid_t pid)
{
	char path[64], buf[4096];
	const char *state;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (read_file(path, buf, sizeof(buf)) < 0)
		return false;
	state = strstr(buf, "\nState:\t");
	return state && state[8] == 'Z';
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
		if (access(path, F_OK))
			warnx("%d: no such process", (int)pid);
		else if (is_zombie(pid))
			warnx("%d: has ended", (int)pid);
		else
			warnx("%d: has no memory of its own (a kernel thread)",
			      (int)pid);
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

static int cmd_switch(bool on, const struct pids *pids)
{
	int ret = EXIT_SUCCESS;
	size_t i;

	for (i = 0; i < pids->nr; i++) {
		int error = pid_set(pids->pid[i], on);

		if (error) {
			pid_error(pids->pid[i], -error);
			ret = EXIT_FAILURE;
		} else if (on && pids->pid[i] == 1) {
			warnx("warning: process 1 is on: all that it starts inherits it");
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

/* What status shows of a process, in kB, if the kernel tells it. */
static const char *const sizes[] = { "VmPTE", "VmCowPTE", "VmFilePTE" };

/* And what the lines of /proc/PID/cow_pte_stat mean, those in bytes first */
static const struct {
	const char *name;
	const char *text;
	const char *heading;	/* of a column, in kB */
} stats[] = {
	{ "shared_bytes", "shared with others now:", "SHARED" },
	{ "saved_bytes", "saved by that:", "SAVED" },
	{ "alone_bytes", "marked, but no others are left:", NULL },
	{ "borrowing_bytes", "copies that borrow their pages:", NULL },
	{ "file_bytes", "of files, for others to join:", NULL },
	{ "last_fork_share", "its last fork shared:", NULL },
	{ "last_fork_skip", "its last fork shared none, for:", NULL },
	{ "share", "attached to its children:", NULL },
	{ "skip", "forks that shared none:", NULL },
	{ "fallback", "copied by fork all the same:", NULL },
	{ "fallback_stack", "... for the stack", NULL },
	{ "fallback_pinned", "... for pages pinned for I/O", NULL },
	{ "fallback_vma", "... for memory that is not shared", NULL },
	{ "break", "copied at a change:", NULL },
	{ "break_fault", "... by a write", NULL },
	{ "lend", "... borrowing the pages", NULL },
	{ "settle", "copies that count their pages:", NULL },
	{ "reuse", "taken back as the last one:", NULL },
	{ "drop", "given up as a whole:", NULL },
	{ "publish", "made for a file:", NULL },
	{ "join", "of a file, joined:", NULL },
	{ "leave", "of a file, left to others:", NULL },
};

/*
 * The lines of /proc/PID/cow_pte_stat. Return: 0, or -1 where it cannot be read: on
 * an older kernel, or for want of permission.
 */
static int pid_stat(pid_t pid, char *buf, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/cow_pte_stat", (int)pid);
	return read_file(path, buf, size) > 0 ? 0 : -1;
}

/* The word behind @name, copied to @word, or NULL */
static const char *stat_word(const char *buf, const char *name, char *word, size_t size)
{
	size_t len = strlen(name);

	for (; buf; buf = strchr(buf, '\n')) {
		buf += *buf == '\n';
		if (!strncmp(buf, name, len) && buf[len] == ' ') {
			snprintf(word, size, "%.*s", (int)strcspn(buf + len + 1, "\n"),
				 buf + len + 1);
			return word;
		}
	}
	return NULL;
}

static void show_heading(void)
{
	size_t i;

	printf("%7s %-15s %-7s", "PID", "COMMAND", "COW-PTE");
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		printf(" %13s", sizes[i]);
	for (i = 0; i < ARRAY_SIZE(stats) && stats[i].heading; i++)
		printf(" %13s", stats[i].heading);
	putchar('\n');
}

/* All that the kernel knows, a line each */
static void show_stats(const char *buf)
{
	char word[64];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(stats); i++) {
		if (!stat_word(buf, stats[i].name, word, sizeof(word)) ||
		    !strcmp(word, "-"))
			continue;
		if (strstr(stats[i].name, "_bytes"))
			printf("        %-34s %llu kB\n", stats[i].text,
			       strtoull(word, NULL, 10) / 1024);
		else
			printf("        %-34s %s\n", stats[i].text, word);
	}
}

static void show(struct json *json, pid_t pid, bool on, bool verbose)
{
	unsigned long long kb;
	char buf[2048] = "";
	char comm[64];
	char word[64];
	size_t i;

	comm_of(pid, comm, sizeof(comm));
	if (json) {
		json_open(json, NULL, '{');
		json_int(json, "pid", pid);
		json_str(json, "command", comm);
		json_bool(json, "on", on);
	} else {
		printf("%7d %-15s %-7s", (int)pid, comm, on ? "on" : "off");
	}
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		bool told = !status_kb(pid, sizes[i], &kb);

		if (json && told)
			json_int(json, sizes[i], (long long)kb);
		else if (!json && told)
			printf(" %10llu kB", kb);
		else if (!json)
			printf(" %13s", "-");
	}
	if (pid_stat(pid, buf, sizeof(buf)))
		buf[0] = '\0';
	for (i = 0; i < ARRAY_SIZE(stats); i++) {
		bool told = stat_word(buf, stats[i].name, word, sizeof(word));

		if (json && told && isdigit((unsigned char)word[0]))
			json_int(json, stats[i].name, strtoll(word, NULL, 10));
		else if (json && told)
			json_str(json, stats[i].name, word);
		else if (!json && stats[i].heading && told)
			printf(" %10llu kB", strtoull(word, NULL, 10) / 1024);
		else if (!json && stats[i].heading)
			printf(" %13s", "-");
	}
	if (json)
		json_close(json, '}');
	else
		putchar('\n');
	if (!json && verbose)
		show_stats(buf);
}

static int status_pids(struct json *json, const struct pids *pids, bool verbose)
{
	int ret = EXIT_SUCCESS;
	bool heading = json;
	size_t i;

	if (json)
		json_open(json, NULL, '[');
	for (i = 0; i < pids->nr; i++) {
		int on = pid_get(pids->pid[i]);

		if (on < 0) {
			pid_error(pids->pid[i], -on);
			ret = EXIT_FAILURE;
			continue;
		}
		if (!heading)
			show_heading();
		heading = true;
		show(json, pids->pid[i], on, verbose);
	}
	if (json)
		json_close(json, ']');
	return ret;
}

/*
 * Every process that is on. Those of other users cannot be looked at, which
 * is no error but must not pass for "off" either.
 */
static int status_all(struct json *json, bool verbose)
{
	unsigned int hidden = 0;
	struct dirent *d;
	DIR *dir;
	int on;

	dir = opendir("/proc");
	if (!dir)
		err(EXIT_FAILURE, "/proc");
	if (json)
		json_open(json, NULL, '[');
	else
		show_heading();
	while ((d = readdir(dir))) {
		pid_t pid;

		if (!isdigit((unsigned char)d->d_name[0]))
			continue;
		pid = atoi(d->d_name);
		on = pid_get(pid);
		if (on > 0)
			show(json, pid, on, verbose);
		else if (on == -EACCES || on == -EPERM)
			hidden++;
	}
	closedir(dir);
	if (json)
		json_close(json, ']');
	if (hidden)
		warnx("%u processes could not be looked at: permission denied",
		      hidden);
	return EXIT_SUCCESS;
}

#define VMSTAT(member)	offsetof(struct cowpte_vmstat, member)

/* What status shows of the system, and how it is called in JSON. */
static const struct {
	bool files;
	const char *name;
	const char *text;
	size_t offset;
} counters[] = {
	{ false, "share", "attached to a child by fork:", VMSTAT(share) },
	{ false, "skip", "forks that shared none:", VMSTAT(skip) },
	{ false, "break", "copied at a change:", VMSTAT(brk) },
	{ false, "reuse", "taken back by the last one:", VMSTAT(reuse) },
	{ false, "drop", "given up as a whole:", VMSTAT(drop) },
	{ false, "fallback", "copied by fork all the same:", VMSTAT(fallback) },
	{ true, "publish", "made for a file:", VMSTAT(publish) },
	{ true, "join", "of a file, joined:", VMSTAT(join) },
	{ true, "leave", "of a file, left to others:", VMSTAT(leave) },
};

static unsigned long long counter(const struct cowpte_vmstat *vs, size_t i)
{
	return *(const unsigned long long *)((const char *)vs + counters[i].offset);
}

static int status_system(struct json *json)
{
	static const char *const meaning[] = {
		[COWPTE_SYS_UNKNOWN] = "setting cannot be read",
		[COWPTE_SYS_NEVER] = "no process shares page tables",
		[COWPTE_SYS_PRCTL] = "processes that ask for it share page tables",
		[COWPTE_SYS_ALWAYS] = "all processes share page tables",
	};
	enum cowpte_sysmode mode = cowpte_sysmode(), file = cowpte_filemode();
	long min_tables = cowpte_min_tables();
	struct cowpte_vmstat vs;
	unsigned long long kb;
	size_t i;

	if (cowpte_vmstat(&vs))
		errx(EXIT_FAILURE, "no cow_pte counters in /proc/vmstat");
	if (meminfo_kb("PageTables", &kb))
		errx(EXIT_FAILURE, "no PageTables in /proc/meminfo");
	if (json) {
		json_open(json, NULL, '{');
		json_str(json, "enabled", cowpte_sysmode_name(mode));
		if (file)
			json_str(json, "file", cowpte_sysmode_name(file));
		if (min_tables >= 0)
			json_int(json, "min_tables", min_tables);
		json_int(json, "PageTables", (long long)kb);
		for (i = 0; i < ARRAY_SIZE(counters); i++)
			if (!counters[i].files || file)
				json_int(json, counters[i].name,
					 (long long)counter(&vs, i));
		json_close(json, '}');
		return EXIT_SUCCESS;
	}
	printf("%-28s %s (%s)\n", "copy-on-write page tables:",
	       cowpte_sysmode_name(mode), meaning[mode]);
	if (file)
		printf("%-28s %s\n", "... of shared files:",
		       cowpte_sysmode_name(file));
	if (min_tables >= 0)
		printf("%-28s %ld (smaller processes fork conventionally)\n",
		       "min_tables:", min_tables);
	printf("%-28s %llu kB (shared ones counted once)\n", "PageTables:", kb);
	printf("page tables since the system started:\n");
	for (i = 0; i < ARRAY_SIZE(counters); i++)
		if (!counters[i].files || file)
			printf("  %-28s %llu\n", counters[i].text, counter(&vs, i));
	return EXIT_SUCCESS;
}

static int status(bool all, const struct pids *pids, bool as_json, bool verbose)
{
	struct json writer = { .f = stdout }, *json = as_json ? &writer : NULL;
	int on = cowpte_get();

	if (on < 0)
		feature_error(-on);
	if (all)
		return status_all(json, verbose);
	if (pids->nr)
		return status_pids(json, pids, verbose);
	return status_system(json);
}

/* A screen after the other, or a JSON text after the other. */
static void __noreturn watch(double seconds, bool all, const struct pids *pids,
			     bool as_json, bool verbose)
{
	struct timespec pause = {
		.tv_sec = (time_t)seconds,
		.tv_nsec = (long)((seconds - (time_t)seconds) * 1e9),
	};

	for (;;) {
		if (!as_json && isatty(STDOUT_FILENO))
			fputs("\033[H\033[J", stdout);
		status(all, pids, as_json, verbose);
		if (fflush(stdout) || ferror(stdout))
			err(EXIT_FAILURE, "standard output");
		nanosleep(&pause, NULL);
	}
}

static double seconds_arg(const char *arg)
{
	char *end;
	double val;

	errno = 0;
	val = strtod(arg, &end);
	if (end == arg || *end || errno || !(val >= 0.1 && val <= 86400)) {
		warnx("--watch: '%s' is not a number of seconds from 0.1 to 86400", arg);
		usage_error();
	}
	return val;
}

int main(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "all",	no_argument,		NULL, 'a' },
		{ "help",	no_argument,		NULL, 'h' },
		{ "json",	no_argument,		NULL, 'j' },
		{ "off",	no_argument,		NULL, '0' },
		{ "pid",	required_argument,	NULL, 'p' },
		{ "verbose",	no_argument,		NULL, 'v' },
		{ "version",	no_argument,		NULL, 'V' },
		{ "watch",	required_argument,	NULL, 'w' },
		{ NULL, 0, NULL, 0 }
	};
	enum { NONE, RUN, STATUS, ON, OFF } cmd = NONE;
	const char *name, *options;
	struct pids pids = { };
	bool verbose = false;
	bool json = false;
	bool off = false;
	bool all = false;
	double every = 0;
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
	/*
	 * '+': the options after the command to run are its own. Processes may
	 * stand before or behind options.
	 */
	options = cmd == RUN ? "+hV0" : "ahjp:vVw:";
	while ((c = getopt_long(argc, argv, options, longopts, NULL)) != -1) {
		switch (c) {
		case 'a':
			all = true;
			break;
		case 'j':
			json = true;
			break;
		case 'p':
			add_pids(&pids, optarg);
			break;
		case 'v':
			verbose = true;
			break;
		case 'w':
			every = seconds_arg(optarg);
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

	for (c = 0; cmd != RUN && c < argc; c++)
		add_pids(&pids, argv[c]);

	if ((cmd == RUN && (pids.nr || all)) || (cmd != RUN && off) ||
	    (cmd != STATUS && (all || json || verbose || every)) ||
	    (all && pids.nr) || (verbose && !all && !pids.nr)) {
		warnx("these options do not go with '%s' or with each other", name);
		usage_error();
	}
	if (cmd == RUN && !argc) {
		warnx("run: no command given");
		usage_error();
	}
	if ((cmd == ON || cmd == OFF) && !pids.nr) {
		warnx("%s: no process given", name);
		usage_error();
	}

	switch (cmd) {
	case RUN:
		return cmd_run(!off, argv);
	case ON:
	case OFF:
		ret = cmd_switch(cmd == ON, &pids);
		break;
	default:
		if (every)
			watch(every, all, &pids, json, verbose);
		ret = status(all, &pids, json, verbose);
		break;
	}
	free(pids.pid);
	if (fflush(stdout) || ferror(stdout))
		err(EXIT_FAILURE, "standard output");
	return ret;
}
