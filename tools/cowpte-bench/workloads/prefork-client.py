#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The load of prefork.sh: requests to its server, checked and timed.

Prints "name value" lines.
"""
import argparse
import random
import select
import socket
import sys
import time


def wanted(at, objects, lookups):
    """What the server must answer."""
    total = 0
    for _ in range(lookups):
        total += at % objects
        at = at * 1103515245 + 12345 & 0x7fffffff
    return total


def run(arg, count, rng):
    """Keep arg.clients requests going until count are done; times in ns."""
    poll = select.poll()
    going = {}                  # by descriptor: socket, where, start, answer
    times = []
    started = 0
    while len(times) < count:
        while started < count and len(going) < arg.clients:
            at = rng.randrange(0x7fffffff)
            sock = socket.socket()
            start = time.perf_counter_ns()
            sock.connect(("127.0.0.1", arg.port))
            sock.sendall(b"GET /%d HTTP/1.0\r\n\r\n" % at)
            going[sock.fileno()] = [sock, at, start, b""]
            poll.register(sock, select.POLLIN)
            started += 1
        for fd, _ in poll.poll():
            entry = going[fd]
            data = entry[0].recv(4096)
            if data:
                entry[3] += data
                continue
            times.append(time.perf_counter_ns() - entry[2])
            poll.unregister(fd)
            del going[fd]
            entry[0].close()
            body = entry[3].split(b"\r\n\r\n", 1)[-1].strip()
            if body != b"%d" % wanted(entry[1], arg.objects, arg.lookups):
                sys.exit(f"prefork-client: wrong answer to /{entry[1]}: {entry[3]!r}")
    return times


def nearest_rank(values, percent):
    return values[max(0, -(-len(values) * percent // 100) - 1)]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    for name in "port", "objects", "lookups", "clients", "first", "requests":
        p.add_argument("--" + name, type=int, required=True)
    arg = p.parse_args()
    rng = random.Random(1)

    begin = time.perf_counter_ns()
    first = sorted(run(arg, arg.first, rng))
    start = time.perf_counter_ns()
    times = sorted(run(arg, arg.requests, rng))
    end = time.perf_counter_ns()

    print("first_p50_us", nearest_rank(first, 50) / 1000)
    print("first_max_us", first[-1] / 1000)
    print("p50_us", nearest_rank(times, 50) / 1000)
    print("p99_us", nearest_rank(times, 99) / 1000)
    print("max_us", times[-1] / 1000)
    print("requests_per_s", round(len(times) * 1e9 / (end - start), 1))
    print("all_requests_ms", (end - begin) / 1e6)


if __name__ == "__main__":
    main()
