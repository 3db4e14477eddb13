#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A prefork HTTP server with data loaded before it forks.

Started by prefork.sh. It is what application servers with "preload" do: load
everything once, freeze the garbage collector, open the socket, fork workers
that serve from what they inherited. It prints "ready" when all workers accept,
and on "stop" (or the end of its input) ends them and goes.
"""
import argparse
import gc
import os
import signal
import socket
import sys
import time


class Objects:
    """A table of byte strings. Looking at one writes the count of its references."""

    def __init__(self, size, object_size):
        filler = b"x" * object_size
        self.number = size // sys.getsizeof(filler)
        self.table = [b"%08d" % i + filler[8:] for i in range(self.number)]

    def read(self, i):
        return int(self.table[i][:8])


class Flat:
    """The same in one piece of memory, which reading does not write."""

    def __init__(self, size, object_size):
        self.number, self.step = size // object_size, object_size
        self.memory = bytearray(b"x") * size
        for i in range(self.number):
            self.memory[i * self.step:i * self.step + 8] = b"%08d" % i

    def read(self, i):
        return int(self.memory[i * self.step:i * self.step + 8])


def serve(sock, data, lookups):
    """One worker: a lookup request names where to begin; the answer is a sum."""
    pid = b"%d" % os.getpid()
    while True:
        conn, _ = sock.accept()
        with conn:
            request = conn.recv(4096)
            try:
                at = int(request.split(b" ", 2)[1][1:])
            except (IndexError, ValueError):
                conn.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                continue
            total = 0
            for _ in range(lookups):
                total += data.read(at % data.number)
                at = at * 1103515245 + 12345 & 0x7fffffff
            conn.sendall(b"HTTP/1.0 200 OK\r\nX-Worker: %s\r\n\r\n%d\n" % (pid, total))


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--size", type=int, required=True, help="bytes to load")
    p.add_argument("--object-size", type=int, default=1000)
    p.add_argument("--workers", type=int, required=True)
    p.add_argument("--heap", choices=("flat", "objects"), default="flat")
    p.add_argument("--lookups", type=int, default=20, help="per request")
    arg = p.parse_args()

    data = (Flat if arg.heap == "flat" else Objects)(arg.size, arg.object_size)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    # as the documentation of gc.freeze() recommends it
    gc.disable()
    gc.freeze()

    # The children wait until all are forked: the time of a fork is not to
    # contain another worker's first faults.
    gate, opener = os.pipe()
    times = []
    pids = []
    for _ in range(arg.workers):
        # (CPU time: with one CPU, the child may well run before fork() returns)
        start = time.thread_time_ns()
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.close(opener)
            os.read(gate, 1)
            gc.enable()
            serve(sock, data, arg.lookups)
        times.append(time.thread_time_ns() - start)
        pids.append(pid)
    print("port", sock.getsockname()[1])
    print("objects", data.number)
    print("pids", *pids)
    print("forks", *times)
    print("forked", flush=True)
    sys.stdin.readline()
    os.close(opener)
    print("ready", flush=True)
    sys.stdin.readline()
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    for pid in pids:
        if os.waitpid(pid, 0)[1] != signal.SIGTERM:
            sys.exit(f"prefork: worker {pid} had ended by itself")


if __name__ == "__main__":
    main()
