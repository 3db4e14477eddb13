// SPDX-License-Identifier: GPL-2.0
/*
 * A page that is pinned for long: a registered buffer of io_uring.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

#include "cow_pte_ring.h"

#ifdef HAVE_LIBURING
static struct io_uring ring;
static char *ring_page;

/* Make the ring; returns 0, or -1 with the reason in skip[] */
int cow_ring_open(void)
{
	int ret = io_uring_queue_init(1, &ring, 0);

	return ret ? cow_skip("io_uring: %s", strerror(-ret)) : 0;
}

/* Pin a page of this process, the only one; 0, or -1 with errno set */
int cow_ring_pin(void *addr)
{
	struct iovec iov = { addr, PAGE };

	ring_page = addr;
	errno = -io_uring_register_buffers(&ring, &iov, 1);
	return errno ? -1 : 0;
}

/* Move the pinned page into or out of a pipe */
static int ring_pipe(int fd, bool in)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	struct io_uring_cqe *cqe;
	long ret;

	if (in)
		io_uring_prep_read_fixed(sqe, fd, ring_page, PAGE, 0, 0);
	else
		io_uring_prep_write_fixed(sqe, fd, ring_page, PAGE, 0, 0);
	if (io_uring_submit(&ring) != 1 || io_uring_wait_cqe(&ring, &cqe))
		return -1;
	ret = cqe->res;
	io_uring_cqe_seen(&ring, cqe);
	return ret == PAGE ? 0 : -1;
}

/* Returns what the pinned page holds, as cow_peek() does, or COW_BUS */
__u64 cow_ring_look(void)
{
	char buf[PAGE];
	int fds[2];
	long ret;

	if (pipe(fds))
		return COW_BUS;
	ret = ring_pipe(fds[1], false);
	if (!ret && read(fds[0], buf, PAGE) != PAGE)
		ret = -1;
	close(fds[0]);
	close(fds[1]);
	return ret ? COW_BUS : cow_peek(buf);
}

/* Write a stamp through the pin; 0 or -1 */
int cow_ring_fill(__u64 stamp)
{
	char buf[PAGE];
	int fds[2];
	int ret;

	cow_fill_page(buf, stamp);
	if (pipe(fds))
		return -1;
	ret = write(fds[1], buf, PAGE) == PAGE ? ring_pipe(fds[0], true) : -1;
	close(fds[0]);
	close(fds[1]);
	return ret;
}

/* Unpin it and do away with the ring */
void cow_ring_close(void)
{
	io_uring_unregister_buffers(&ring);
	io_uring_queue_exit(&ring);
}
#else
int cow_ring_open(void)
{
	return cow_skip("built without liburing");
}

int cow_ring_pin(void *addr)
{
	return -1;
}

__u64 cow_ring_look(void)
{
	return COW_BUS;
}

int cow_ring_fill(__u64 stamp)
{
	return -1;
}

void cow_ring_close(void)
{
}
#endif
