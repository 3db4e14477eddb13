// SPDX-License-Identifier: GPL-2.0
/*
 * Access by others than a plain load or store of the process: debuggers, the
 * kernel itself, devices.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <linux/futex.h>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_op.h"

#define TRACEFS		"/sys/kernel/tracing/"
#define UPROBE_PMU	"/sys/bus/event_source/devices/uprobe/type"

#ifndef SYS_memfd_secret
#define SYS_memfd_secret	447
#endif

/* See mm/gup_test.h of the kernel */
struct gup_arg {
	__u64 get_usec, put_usec, addr, size;
	__u32 pages_per_call, gup_flags, test_flags, which_pages[8];
};

#define GUP_FAST	_IOWR('g', 1, struct gup_arg)
#define PIN_FAST	_IOWR('g', 2, struct gup_arg)
#define PIN_LONGTERM	_IOWR('g', 3, struct gup_arg)
#define GUP_BASIC	_IOWR('g', 4, struct gup_arg)
#define PIN_BASIC	_IOWR('g', 5, struct gup_arg)
#define GUP_DUMP	_IOWR('g', 6, struct gup_arg)
#define GUP_WRITE	1

/* See lib/test_hmm_uapi.h of the kernel */
struct hmm_arg {
	__u64 addr, ptr, npages, cpages, faults;
};

#define HMM_DEVICE	"/dev/hmm_dmirror0"
#define HMM_READ	_IOWR('H', 0x00, struct hmm_arg)
#define HMM_WRITE	_IOWR('H', 0x01, struct hmm_arg)
#define HMM_TO_DEVICE	_IOWR('H', 0x02, struct hmm_arg)
#define HMM_EXCLUSIVE	_IOWR('H', 0x05, struct hmm_arg)

/*
 * Pages of each kind: populated, a hole, read-only, of a file and written, of
 * a file and not written, in a mapping that is not there.
 */
static char *kind_of_page(unsigned int kind)
{
	char * const page[] = {
		T(0), T(0) + 40 * PAGE, T(1) + PAGE, Q(1), Q(1) + PAGE, Q(2),
		Q(2) + PAGE, Q(3),
	};

	return kind < ARRAY_LEN(page) ? page[kind] : NULL;
}

static void log_kinds(const char *label)
{
	unsigned int i;

	for (i = 0; kind_of_page(i); i++)
		cow_log(label, i, cow_peek(kind_of_page(i)));
}

/* ptrace() */

static bool trace(pid_t pid)
{
	bool ok = !ptrace(PTRACE_SEIZE, pid, NULL, NULL) &&
		  !ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) &&
		  waitpid(pid, NULL, __WALL) == pid;

	cow_log("traced", 0, ok);
	return ok;
}

static void remote_ptrace_peek(void)
{
	char *page;
	int i;

	if (!trace(cow_target))
		return;
	for (i = 0; (page = kind_of_page(i)); i++)
		DO(ptrace(PTRACE_PEEKDATA, cow_target, page, NULL));
	DO(ptrace(PTRACE_DETACH, cow_target, NULL, NULL));
}

static void remote_ptrace_poke(void)
{
	char *page;
	int i;

	if (!trace(cow_target))
		return;
	for (i = 0; (page = kind_of_page(i)); i++) {
		DO(ptrace(PTRACE_POKEDATA, cow_target, page, 0x1234 + i));
		DO(ptrace(PTRACE_PEEKDATA, cow_target, page, NULL));
	}
	DO(ptrace(PTRACE_DETACH, cow_target, NULL, NULL));
}

/* /proc/PID/mem: writes even where the process itself must not */

static int open_mem(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mem", cow_target);
	return open(path, O_RDWR | O_CLOEXEC);
}

static void remote_mem_read(void)
{
	alignas(PAGE) char buf[PAGE];
	int i, fd = open_mem();

	for (i = 0; kind_of_page(i); i++) {
		memset(buf, 0, PAGE);
		DO(pread(fd, buf, PAGE, (off_t)kind_of_page(i)));
		cow_log("read", i, cow_peek(buf));
	}
	close(fd);
}

static void remote_mem_write(void)
{
	char buf[PAGE];
	int i, fd = open_mem();

	for (i = 0; kind_of_page(i); i++) {
		cow_fill_page(buf, cow_next_stamp(cow_self, i));
		DO(pwrite(fd, buf, PAGE, (off_t)kind_of_page(i)));
	}
	/* Over a boundary of tables */
	DO(pwrite(fd, buf, PAGE, (off_t)T(1) - 100));
	close(fd);
}

static void op_mem_write_self(void)
{
	cow_target = getpid();
	remote_mem_write();
	log_kinds("written");
}

/* process_vm_readv() and process_vm_writev() */

static void remote_vm_readv(void)
{
	static char buf[TABLE];
	struct iovec local = { buf, sizeof(buf) };
	struct iovec remote = { T(0) + TABLE / 2, TABLE };

	DO(process_vm_readv(cow_target, &local, 1, &remote, 1, 0));
	cow_log_pages("read", buf, TABLE, 2);
}

static void remote_vm_writev(void)
{
	char buf[PAGE];
	struct iovec local = { buf, PAGE }, remote = { NULL, PAGE };
	int i;

	for (i = 0; kind_of_page(i); i++) {
		cow_fill_page(buf, cow_next_stamp(cow_self, i));
		remote.iov_base = kind_of_page(i);
		DO(process_vm_writev(cow_target, &local, 1, &remote, 1, 0));
	}
	remote.iov_base = T(1) - PAGE / 2;
	DO(process_vm_writev(cow_target, &local, 1, &remote, 1, 0));
}

/* The kernel's own copies on behalf of the process */

static void op_read_into(void)
{
	char buf[PAGE];
	int i, fds[2];

	if (pipe(fds))
		return;
	for (i = 0; kind_of_page(i); i++) {
		cow_fill_page(buf, cow_next_stamp(cow_self, i));
		DO(write(fds[1], buf, PAGE));
		DO(read(fds[0], kind_of_page(i), PAGE));
		/* What could not be delivered */
		close(fds[0]);
		close(fds[1]);
		if (pipe(fds))
			return;
	}
	close(fds[0]);
	close(fds[1]);
	log_kinds("read");
}

static void op_vmsplice(void)
{
	struct iovec iov = { T(0), PAGE };
	char buf[PAGE];
	int fds[2];

	if (pipe(fds))
		return;
	DO(vmsplice(fds[1], &iov, 1, 0));
	DO(cow_try_write(T(0), 0));
	DO(read(fds[0], buf, PAGE));
	cow_log("spliced", 0, cow_peek(buf));
	iov.iov_base = T(1) + PAGE;
	DO(vmsplice(fds[1], &iov, 1, 0));
	iov.iov_base = Q(1);
	DO(vmsplice(fds[1], &iov, 1, SPLICE_F_GIFT));
	DO(read(fds[0], buf, PAGE));
	DO(read(fds[0], buf, PAGE));
	cow_log("spliced", 1, cow_peek(buf));
	/* Pages out of the pipe, into memory */
	DO(write(fds[1], buf, PAGE));
	iov.iov_base = T(0) + 2 * PAGE;
	DO(vmsplice(fds[0], &iov, 1, 0));
	close(fds[0]);
	close(fds[1]);
	log_kinds("after vmsplice");
}

/* Breakpoints in a function that lies beside the private memory, in Q3 */

static char text_path[32];

#define TEXT_PAGES	4
#define TEXT_RESULT	0x5ca1ab1e

static int prepare_text(void)
{
	/* nop; mov $TEXT_RESULT, %eax; ret */
	static const unsigned char text[] = {
		0x90, 0xb8, 0x1e, 0xab, 0xa1, 0x5c, 0xc3,
	};
	int fd;

	snprintf(text_path, sizeof(text_path), "/tmp/cow_pte.text.XXXXXX");
	fd = mkostemp(text_path, O_CLOEXEC);
	if (fd < 0 || ftruncate(fd, TEXT_PAGES * PAGE) ||
	    pwrite(fd, text, sizeof(text), 0) != sizeof(text) ||
	    mmap(Q(3), TEXT_PAGES * PAGE, RW, MAP_PRIVATE | MAP_FIXED, fd,
		 0) != Q(3))
		return -1;
	close(fd);
	/* Else fork would leave the mapping to be faulted in */
	Q(3)[PAGE] = 1;
	return mprotect(Q(3), TEXT_PAGES * PAGE, PROT_READ | PROT_EXEC);
}

static void call_text(void)
{
	int i;

	for (i = 0; i < 3; i++)
		cow_log("result", i, ((unsigned int (*)(void))Q(3))());
	cow_log("first byte", 0, *(unsigned char *)Q(3));
}

/* For the actor alone */

static int perf_fd = -1;

static void op_uprobe(void)
{
	struct perf_event_attr attr = { .size = sizeof(attr) };
	char type[16];

	if (cow_read_file(UPROBE_PMU, type, sizeof(type)) < 0) {
		cow_skip("no uprobes for perf");
		unlink(text_path);
		return;
	}
	attr.type = atoi(type);
	attr.config1 = (uintptr_t)text_path;
	perf_fd = syscall(SYS_perf_event_open, &attr, getpid(), -1, -1,
			  PERF_FLAG_FD_CLOEXEC);
	cow_log("perf_event_open", 0, perf_fd < 0 ? errno : 0);
	unlink(text_path);
	call_text();
}

static void finish_uprobe(void)
{
	__u64 hits = 0;

	call_text();
	DO(read(perf_fd, &hits, sizeof(hits)));
	cow_log("hits", 0, hits);
	close(perf_fd);
	call_text();
}

/* For everybody */

static void op_uprobe_event(void)
{
	char cmd[128];

	if (access(TRACEFS "uprobe_events", W_OK)) {
		cow_skip("no " TRACEFS "uprobe_events");
		unlink(text_path);
		return;
	}
	snprintf(cmd, sizeof(cmd), "p:cow_pte/text %s:0x0", text_path);
	DO(cow_write_file(TRACEFS "uprobe_events", cmd));
	DO(cow_write_file(TRACEFS "events/cow_pte/text/enable", "1"));
	call_text();
}

static long uprobe_hits(void)
{
	FILE *f = fopen(TRACEFS "uprobe_profile", "re");
	char line[256];
	long hits = -1;

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, text_path))
			sscanf(line, "%*s %*s %ld", &hits);
	if (f)
		fclose(f);
	return hits;
}

static void finish_uprobe_event(void)
{
	call_text();
	cow_log("hits", 0, uprobe_hits());
	DO(cow_write_file(TRACEFS "events/cow_pte/text/enable", "0"));
	DO(cow_write_file(TRACEFS "uprobe_events", ""));
	unlink(text_path);
	call_text();
}

/* Futexes: private ones are each process's own */

static int *futex_word(void)
{
	return (int *)(T(0) + 8);
}

static long futex(int *word, int op, int val, const void *timeout)
{
	return syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, val, timeout,
		       NULL, 0);
}

static pthread_t futex_thread;
static long futex_result;
static pid_t futex_tid;

static void *futex_wait(void *arg)
{
	futex_tid = gettid();
	futex_result = futex(arg, FUTEX_WAIT, *(int *)arg, NULL);
	return NULL;
}

/* Until the thread sleeps in the system call */
static void await_sleep(void)
{
	char path[64], stat[256] = "";
	int i;

	for (i = 0; i < 6000; i++) {
		if (__atomic_load_n(&futex_tid, __ATOMIC_ACQUIRE)) {
			snprintf(path, sizeof(path), "/proc/self/task/%d/syscall",
				 futex_tid);
			if (cow_read_file(path, stat, sizeof(stat)) > 0 &&
			    atoi(stat) == SYS_futex)
				return;
		}
		usleep(10000);
	}
	cow_log("no sleep", 0, 1);
}

static void op_futex(void)
{
	futex_tid = 0;
	DO(pthread_create(&futex_thread, NULL, futex_wait, futex_word()));
	await_sleep();
}

/* The same address, but not the same futex */
static void others_futex(void)
{
	struct timespec soon = { .tv_nsec = 1000000 };

	DO(futex(futex_word(), FUTEX_WAKE, 1, NULL));
	DO(futex(futex_word(), FUTEX_WAIT, *futex_word() + 1, NULL));
	DO(futex(futex_word(), FUTEX_WAIT, *futex_word(), &soon));
}

static void finish_futex(void)
{
	DO(futex(futex_word(), FUTEX_WAKE, 1, NULL));
	pthread_join(futex_thread, NULL);
	cow_log("woken", 0, futex_result);
	DO(syscall(SYS_futex, futex_word(),
		   FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, 1, futex_word() + 2,
		   FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 0)));
	cow_log("word", 2, futex_word()[2]);
}

/* Moves the waiter to another word, in another table */
static void finish_futex_requeue(void)
{
	int *other = (int *)(T(1) + 8);

	DO(syscall(SYS_futex, futex_word(),
		   FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 0, 1, other,
		   *futex_word()));
	DO(futex(futex_word(), FUTEX_WAKE, 1, NULL));
	DO(futex(other, FUTEX_WAKE, 1, NULL));
	pthread_join(futex_thread, NULL);
	cow_log("woken", 0, futex_result);
}

static int pi_fds[2];

static void *lock_pi(void *arg)
{
	char byte;

	futex_tid = gettid();
	futex_result = futex(arg, FUTEX_LOCK_PI, 0, NULL);
	/* Keep it until the test has looked */
	if (read(pi_fds[0], &byte, 1) == 1)
		futex_result |= futex(arg, FUTEX_UNLOCK_PI, 0, NULL);
	return NULL;
}

static void op_futex_pi(void)
{
	futex_tid = 0;
	if (pipe(pi_fds))
		return;
	DO(pthread_create(&futex_thread, NULL, lock_pi, futex_word()));
	while (!(__atomic_load_n(futex_word(), __ATOMIC_ACQUIRE)))
		usleep(1000);
	cow_log("owner", 0, (*futex_word() & FUTEX_TID_MASK) == futex_tid);
	DO(futex(futex_word(), FUTEX_TRYLOCK_PI, 0, NULL));
}

static void others_futex_pi(void)
{
	int word = *futex_word();

	cow_log("word", 0, word);
	DO(futex(futex_word(), FUTEX_LOCK_PI, 0, NULL));
	cow_log("owner", 0, (*futex_word() & FUTEX_TID_MASK) == gettid());
	DO(futex(futex_word(), FUTEX_UNLOCK_PI, 0, NULL));
	cow_log("word", 0, *futex_word());
}

static void finish_futex_pi(void)
{
	DO(write(pi_fds[1], "", 1));
	/* Waits for the thread, which may have given it up already */
	DO(futex(futex_word(), FUTEX_LOCK_PI, 0, NULL));
	cow_log("owner", 0, (*futex_word() & FUTEX_TID_MASK) == gettid());
	DO(futex(futex_word(), FUTEX_UNLOCK_PI, 0, NULL));
	pthread_join(futex_thread, NULL);
	cow_log("locked", 0, futex_result);
	cow_log("word", 0, *futex_word());
	close(pi_fds[0]);
	close(pi_fds[1]);
}

/* The kernel writes the word of a lock whose owner ended */

static void *die_with_lock(void *arg)
{
	/* In shared memory too, and read by the kernel at exit */
	struct robust_list_head *head = (void *)(T(1) + 8);
	struct robust_list *entry = (void *)((int *)arg + 2);

	head->list.next = entry;
	head->futex_offset = (char *)arg - (char *)entry;
	head->list_op_pending = NULL;
	entry->next = &head->list;
	*(int *)arg = gettid();
	futex_result = syscall(SYS_set_robust_list, head, sizeof(*head));
	/* Shared again, so that the kernel has to make it private */
	if (!fork())
		_exit(*(int *)arg & FUTEX_OWNER_DIED ? 1 : 0);
	syscall(SYS_exit, 0);
	return NULL;
}

static void op_futex_robust(void)
{
	int status = -1;

	DO(pthread_create(&futex_thread, NULL, die_with_lock, futex_word()));
	pthread_join(futex_thread, NULL);
	cow_log("registered", 0, futex_result);
	cow_log("died", 0, !!(*futex_word() & FUTEX_OWNER_DIED));
	DO(wait(&status) > 0);
	cow_log("status", 0, status);
	memset(futex_word(), 0, 32);
	memset(T(1) + 8, 0, 32);
}

static void others_word(void)
{
	cow_log("word", 0, *futex_word());
}

/*
 * A sample of an access to memory may say where that is, for which the kernel
 * looks the page up without taking a fault.
 */

struct perf_sample {
	struct perf_event_header header;
	__u64 addr, phys;
};

static void op_perf_phys(void)
{
	char *addr = world->page[3] + COW_SLOT_BYTES;
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT,
		.size = sizeof(attr),
		.bp_type = HW_BREAKPOINT_RW,
		.bp_addr = (uintptr_t)addr,
		.bp_len = HW_BREAKPOINT_LEN_8,
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_ADDR | PERF_SAMPLE_PHYS_ADDR,
		.exclude_kernel = 1,
	};
	struct perf_event_mmap_page *ring;
	struct perf_sample *sample;
	__u64 before, pfn;
	int fd;

	fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	if (fd < 0) {
		cow_skip("no breakpoint: %s", strerror(errno));
		return;
	}
	ring = mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0);
	if (ring == MAP_FAILED) {
		cow_skip("perf: %s", strerror(errno));
		return;
	}
	sample = (void *)ring + PAGE;
	before = cow_pagemap(getpid(), addr) & PM_PFN_MASK;
	cow_peek(world->page[3]);
	pfn = cow_pagemap(getpid(), addr) & PM_PFN_MASK;
	cow_log("page has moved", 0, pfn != before);
	if (!ring->data_head || sample->header.type != PERF_RECORD_SAMPLE) {
		cow_skip("the processor does not stop at breakpoints");
	} else {
		cow_log("sample of the page", 0, sample->addr == (uintptr_t)addr);
		cow_log("at its place", 0, sample->phys / PAGE == pfn);
		cow_log("or nowhere", 0, !sample->phys);
	}
	munmap(ring, 2 * PAGE);
	close(fd);
}

/* Memory that even the kernel does not see, in the same range */

static int prepare_secret(void)
{
	int fd = syscall(SYS_memfd_secret, 0);

	if (fd < 0)
		return cow_skip("no memfd_secret: %s", strerror(errno));
	if (ftruncate(fd, 4 * PAGE) ||
	    mmap(Q(3), 4 * PAGE, RW, MAP_SHARED | MAP_FIXED, fd, 0) != Q(3))
		return -1;
	close(fd);
	cow_stamp(Q(3), cow_next_stamp(cow_self, 0));
	return 0;
}

static void op_secret(void)
{
	char buf[PAGE];
	struct iovec local = { buf, PAGE }, remote = { Q(3), PAGE };

	cow_log_pages("secret", Q(3), 4 * PAGE, 1);
	cow_stamp(Q(3) + PAGE, cow_next_stamp(cow_self, 0));
	DO(process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
	DO(cow_try_write(Q(0), 0));
	DO(munmap(Q(3), 4 * PAGE));
}

static void others_secret(void)
{
	cow_log_pages("secret", Q(3), 4 * PAGE, 1);
}

/* The kernel's own test driver for getting at pages */

static int gup_fd;

static long gup_range(unsigned long cmd, unsigned int flags, char *addr,
		      size_t size)
{
	struct gup_arg arg = {
		.addr = (uintptr_t)addr,
		.size = size,
		.pages_per_call = 64,
		.gup_flags = flags,
		.which_pages = { cmd == GUP_DUMP },
	};
	long ret = ioctl(gup_fd, cmd, &arg);

	/* How much of it there was */
	cow_log("size", addr - arena, arg.size);
	return ret;
}

static void do_gup(unsigned long cmd, unsigned int flags)
{
	bool pin = cmd == PIN_FAST || cmd == PIN_BASIC || cmd == PIN_LONGTERM;
	unsigned int i;

	gup_fd = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);
	if (gup_fd < 0) {
		cow_skip("no gup_test: %s", strerror(errno));
		return;
	}
	/*
	 * With holes, and in the middle of a table; but the driver complains
	 * of zero pages, which cannot be pinned.
	 */
	for (i = 0; pin && i < world->nr_pages; i += 3)
		DO(gup_range(cmd, flags, world->page[i], PAGE));
	if (!pin) {
		DO(gup_range(cmd, flags, T(0) + TABLE / 2,
			     cmd == GUP_DUMP ? PAGE : TABLE));
		DO(gup_range(cmd, flags, Q(1), cmd == GUP_DUMP ? PAGE : QUARTER));
	}
	close(gup_fd);
	cow_log_pagemap("got", PM_PRESENT | PM_FILE | PM_SWAP | PM_EXCLUSIVE);
}

#define GUP_OP(name, cmd, flags)					\
	static void op_##name(void)					\
	{								\
		do_gup(cmd, flags);					\
	}

GUP_OP(gup_fast, GUP_FAST, 0)
GUP_OP(gup_fast_write, GUP_FAST, GUP_WRITE)
GUP_OP(gup_basic, GUP_BASIC, 0)
GUP_OP(gup_basic_write, GUP_BASIC, GUP_WRITE)
GUP_OP(gup_dump, GUP_DUMP, 0)
GUP_OP(pin_fast, PIN_FAST, 0)
GUP_OP(pin_fast_write, PIN_FAST, GUP_WRITE)
GUP_OP(pin_basic, PIN_BASIC, 0)
GUP_OP(pin_basic_write, PIN_BASIC, GUP_WRITE)
GUP_OP(pin_longterm, PIN_LONGTERM, 0)
GUP_OP(pin_longterm_write, PIN_LONGTERM, GUP_WRITE)

/* A device that follows the page tables: no sharing with it */

static int open_hmm(void)
{
	int fd = open(HMM_DEVICE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? cow_skip("no " HMM_DEVICE) : fd;
}

static void op_hmm_read(void)
{
	static char buf[64 * PAGE];
	struct hmm_arg arg = {
		.addr = (uintptr_t)T(0), .ptr = (uintptr_t)buf, .npages = 64,
	};
	int fd = open_hmm();

	if (fd < 0)
		return;
	DO(ioctl(fd, HMM_READ, &arg));
	cow_log_pages("read", buf, sizeof(buf), 1);
	DO(cow_try_write(T(0), 0));
	DO(ioctl(fd, HMM_READ, &arg));
	cow_log_pages("read again", buf, sizeof(buf), 1);
	close(fd);
}

static void op_hmm_write(void)
{
	static char buf[4 * PAGE];
	struct hmm_arg arg = {
		.addr = (uintptr_t)T(0), .ptr = (uintptr_t)buf, .npages = 4,
	};
	int i, fd = open_hmm();

	if (fd < 0)
		return;
	for (i = 0; i < 4; i++)
		cow_fill_page(buf + i * PAGE, cow_next_stamp(cow_self, i));
	DO(ioctl(fd, HMM_WRITE, &arg));
	close(fd);
}

static void op_hmm_migrate(void)
{
	static char buf[32 * PAGE];
	struct hmm_arg arg = {
		.addr = (uintptr_t)T(0), .ptr = (uintptr_t)buf, .npages = 32,
	};
	int fd = open_hmm();

	if (fd < 0)
		return;
	/* What others map as well stays; then what is the process's own */
	DO(ioctl(fd, HMM_TO_DEVICE, &arg));
	DO(cow_try_write(T(0), 0));
	DO(ioctl(fd, HMM_TO_DEVICE, &arg));
	DO(ioctl(fd, HMM_EXCLUSIVE, &arg));
	/* Before the device goes all must come back */
	cow_log_pages("back", T(0), sizeof(buf), 1);
	close(fd);
}

FIXTURE(access) {
};

FIXTURE_VARIANT(access) {
	struct cow_op op;
};

FIXTURE_SETUP(access) {}
FIXTURE_TEARDOWN(access) {}

#define REMOTE(name)	.op.remote = remote_##name

FIXTURE_VARIANT_ADD(access, ptrace_peek) { REMOTE(ptrace_peek) };
FIXTURE_VARIANT_ADD(access, ptrace_poke) { REMOTE(ptrace_poke) };
FIXTURE_VARIANT_ADD(access, mem_read) { REMOTE(mem_read) };
FIXTURE_VARIANT_ADD(access, mem_write) { REMOTE(mem_write) };
FIXTURE_VARIANT_ADD(access, mem_write_self) { RUN(mem_write_self) };
FIXTURE_VARIANT_ADD(access, vm_readv) { REMOTE(vm_readv) };
FIXTURE_VARIANT_ADD(access, vm_writev) { REMOTE(vm_writev) };
FIXTURE_VARIANT_ADD(access, read_into) { RUN(read_into) };
FIXTURE_VARIANT_ADD(access, vmsplice) { RUN(vmsplice) };

FIXTURE_VARIANT_ADD(access, uprobe) {
	RUN(uprobe),
	.op.prepare = prepare_text,
	.op.others = call_text,
	.op.finish = finish_uprobe,
};

FIXTURE_VARIANT_ADD(access, uprobe_event) {
	RUN(uprobe_event),
	.op.prepare = prepare_text,
	.op.others = call_text,
	.op.finish = finish_uprobe_event,
};

FIXTURE_VARIANT_ADD(access, perf_phys) { RUN(perf_phys) };

FIXTURE_VARIANT_ADD(access, futex) {
	RUN(futex),
	.op.others = others_futex,
	.op.finish = finish_futex,
};

FIXTURE_VARIANT_ADD(access, futex_requeue) {
	RUN(futex),
	.op.others = others_futex,
	.op.finish = finish_futex_requeue,
};

FIXTURE_VARIANT_ADD(access, futex_pi) {
	RUN(futex_pi),
	.op.others = others_futex_pi,
	.op.finish = finish_futex_pi,
};

FIXTURE_VARIANT_ADD(access, futex_robust) {
	RUN(futex_robust),
	.op.others = others_word,
};

FIXTURE_VARIANT_ADD(access, secret_neighbour) {
	RUN(secret),
	.op.prepare = prepare_secret,
	.op.others = others_secret,
	.op.flags = NOT_SHARED,
};

FIXTURE_VARIANT_ADD(access, gup_fast) { RUN(gup_fast) };
FIXTURE_VARIANT_ADD(access, gup_fast_write) { RUN(gup_fast_write) };
FIXTURE_VARIANT_ADD(access, gup_basic) { RUN(gup_basic) };
FIXTURE_VARIANT_ADD(access, gup_basic_write) { RUN(gup_basic_write) };
FIXTURE_VARIANT_ADD(access, gup_dump) { RUN(gup_dump) };
FIXTURE_VARIANT_ADD(access, pin_fast) { RUN(pin_fast) };
FIXTURE_VARIANT_ADD(access, pin_fast_write) { RUN(pin_fast_write) };
FIXTURE_VARIANT_ADD(access, pin_basic) { RUN(pin_basic) };
FIXTURE_VARIANT_ADD(access, pin_basic_write) { RUN(pin_basic_write) };
FIXTURE_VARIANT_ADD(access, pin_longterm) { RUN(pin_longterm) };
FIXTURE_VARIANT_ADD(access, pin_longterm_write) { RUN(pin_longterm_write) };
FIXTURE_VARIANT_ADD(access, hmm_read) { RUN(hmm_read) };
FIXTURE_VARIANT_ADD(access, hmm_write) { RUN(hmm_write) };
FIXTURE_VARIANT_ADD(access, hmm_migrate) { RUN(hmm_migrate) };

TEST_F_TIMEOUT(access, parent, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_PARENT));
}

TEST_F_TIMEOUT(access, child, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_CHILD));
}

TEST_F_TIMEOUT(access, third, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_THIRD));
}

TEST_F_TIMEOUT(access, threaded, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_THREADED));
}

TEST_F_TIMEOUT(access, borrower, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_BORROWER));
}

TEST_F_TIMEOUT(access, lender, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_LENDER));
}

/* Who has such a device shares nothing any more; all others go on to */

static long call_open_hmm(const long *arg)
{
	return open_hmm();
}

static const char *run_notifier(enum cow_mode mode, const void *arg)
{
	static const struct cow_op op = {};
	const struct cow_op_case tc = { .op = &op, .actor = (long)arg };
	unsigned int i, actor = cow_op_proc(tc.actor);
	long shared[3], now;
	const char *why;

	why = cow_field_start(mode, &tc);
	if (why)
		return why;
	for (i = 0; i < 3; i++)
		shared[i] = cow_shared_tables(i);
	if (cow_call(actor, call_open_hmm, 0) < 0) {
		cow_world_stop();
		return world->skip;
	}
	for (i = 0; i < 3 && mode == COW_ON; i++) {
		now = cow_shared_tables(i);
		if (now != (i == actor ? 0 : shared[i]))
			cow_fail("process %u shares %ld tables, had %ld", i,
				 now, shared[i]);
	}
	cow_field_check(&tc, "after the registration");
	cow_fork(actor, COW_FORK);
	now = cow_shared_tables(actor);
	if (now > 0)
		cow_fail("fork shared %ld tables of a process with a notifier",
			 now);
	cow_poke_all(actor);
	cow_field_check(&tc, "after a write");
	cow_exit(actor);
	cow_field_check(&tc, "at the end");
	cow_world_stop();
	return NULL;
}

FIXTURE(notifier) {
};

FIXTURE_SETUP(notifier) {}
FIXTURE_TEARDOWN(notifier) {}

TEST_F_TIMEOUT(notifier, parent, 120)
{
	COW_REPORT(cow_run_once(run_notifier, (void *)ACTOR_PARENT));
}

TEST_F_TIMEOUT(notifier, child, 120)
{
	COW_REPORT(cow_run_once(run_notifier, (void *)ACTOR_CHILD));
}

TEST_F_TIMEOUT(notifier, third, 120)
{
	COW_REPORT(cow_run_once(run_notifier, (void *)ACTOR_THIRD));
}

TEST_F_TIMEOUT(notifier, threaded, 120)
{
	COW_REPORT(cow_run_once(run_notifier, (void *)ACTOR_THREADED));
}

/*
 * Breakpoints where no fault makes the table private first: the page that gets
 * one was mapped before fork, from the file, or because it has one already.
 */

/* A second function in the same page, the same as the first */
#define TEXT_SECOND	16

static int first_fd = -1;

static int open_uprobe(unsigned int offset)
{
	struct perf_event_attr attr = { .size = sizeof(attr) };
	char type[16];

	if (cow_read_file(UPROBE_PMU, type, sizeof(type)) < 0)
		return cow_skip("no uprobes for perf");
	attr.type = atoi(type);
	attr.config1 = (uintptr_t)text_path;
	attr.config2 = offset;
	return syscall(SYS_perf_event_open, &attr, getpid(), -1, -1,
		       PERF_FLAG_FD_CLOEXEC);
}

static int prepare_text_mapped(void)
{
	char text[TEXT_SECOND];
	int fd;

	if (prepare_text())
		return -1;
	fd = open(text_path, O_RDWR | O_CLOEXEC);
	if (pread(fd, text, sizeof(text), 0) != sizeof(text) ||
	    pwrite(fd, text, sizeof(text), TEXT_SECOND) != sizeof(text))
		return -1;
	close(fd);
	cow_peek(Q(3));
	return 0;
}

static int prepare_breakpoint(void)
{
	if (prepare_text_mapped())
		return -1;
	first_fd = open_uprobe(0);
	return first_fd < 0 ? -1 : 0;
}

static void call_both(void)
{
	int i;

	/* As they are before a breakpoint that is hit may be taken away */
	for (i = 0; i <= TEXT_SECOND; i += TEXT_SECOND)
		cow_log("byte", i, *(unsigned char *)(Q(3) + i));
	for (i = 0; i <= TEXT_SECOND; i += TEXT_SECOND)
		cow_log("result", i, ((unsigned int (*)(void))(Q(3) + i))());
	for (i = 0; i <= TEXT_SECOND; i += TEXT_SECOND)
		cow_log("byte afterwards", i, *(unsigned char *)(Q(3) + i));
}

static void op_uprobe_second(void)
{
	perf_fd = open_uprobe(TEXT_SECOND);
	cow_log("perf_event_open", 0, perf_fd < 0 ? errno : 0);
	unlink(text_path);
	call_both();
}

static void finish_uprobe_second(void)
{
	call_both();
	close(perf_fd);
	if (first_fd >= 0)
		close(first_fd);
	call_both();
}

FIXTURE_VARIANT_ADD(access, uprobe_mapped) {
	RUN(uprobe_second),
	.op.prepare = prepare_text_mapped,
	.op.others = call_both,
	.op.finish = finish_uprobe_second,
};

FIXTURE_VARIANT_ADD(access, uprobe_second) {
	RUN(uprobe_second),
	.op.prepare = prepare_breakpoint,
	.op.others = call_both,
	.op.finish = finish_uprobe_second,
};

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
