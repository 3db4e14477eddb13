#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run a command; print what it took, with all it started and waited for.

usage: timed.py FILE COMMAND [ARG...]

FILE gets two numbers: milliseconds that passed, and of CPU time. Processes that
wait for a file or for each other take time but no CPU time, so the latter tells
more of a machine with other things to do, or of an emulated one.
"""
import os
import resource
import sys
import time


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: timed.py FILE COMMAND [ARG...]")
    start = time.perf_counter_ns()
    pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    passed = time.perf_counter_ns() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(sys.argv[1], "w", encoding="ascii") as f:
        f.write(f"{passed / 1e6:.3f} {(used.ru_utime + used.ru_stime) * 1000:.3f}\n")
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
