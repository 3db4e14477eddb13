#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The measuring client of redis-load.sh.

Asks a Redis server at a fixed rate, starts BGSAVE on another connection, and
goes on until the save is over. Prints "name value" lines.
"""
import argparse
import random
import socket
import sys
import time


class Redis:
    """A connection; requests may be sent before the answers are read."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)
        self.buf = b""

    def send(self, *words):
        self.sock.sendall(b"*%d\r\n" % len(words) +
                          b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            sys.exit("redis-probe: the server closed the connection")
        self.buf += data

    def _line(self):
        while b"\r\n" not in self.buf:
            self._more()
        line, self.buf = self.buf.split(b"\r\n", 1)
        return line

    def answer(self):
        line = self._line()
        if line[:1] == b"-":
            sys.exit("redis-probe: the server says " + line[1:].decode())
        if line[:1] != b"$":
            return line[1:]
        size = int(line[1:])
        while len(self.buf) < size + 2:
            self._more()
        data, self.buf = self.buf[:size], self.buf[size + 2:]
        return data

    def ready(self):
        """Has an answer begun to come? Does not wait."""
        if self.buf:
            return True
        self.sock.setblocking(False)
        try:
            self._more()
            return True
        except BlockingIOError:
            return False
        finally:
            self.sock.setblocking(True)


def info(data):
    return dict(line.split(":", 1) for line in data.decode().split("\r\n") if ":" in line)


def nearest_rank(values, percent):
    """The percentile by nearest rank: always a value that was measured."""
    return values[max(0, -(-len(values) * percent // 100000) - 1)]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--socket", required=True)
    p.add_argument("--keys", type=int, required=True)
    p.add_argument("--interval", type=int, default=1000, help="microseconds")
    p.add_argument("--before", type=int, default=1000, help="milliseconds")
    p.add_argument("--series")
    arg = p.parse_args()

    probe, control = Redis(arg.socket), Redis(arg.socket)
    rng = random.Random(1)
    interval = arg.interval * 1000
    now = time.monotonic_ns
    samples = []                # (when it was due, latency), in ns
    save = end = None
    waiting = None              # for which answer on the control connection
    polled = 0
    before = after = None       # INFO at the start and at the end of the save

    start = now()
    due = start
    stop_at = None              # some time after the save, to see that it is over
    while stop_at is None or due < stop_at:
        t = now()
        if t < due:
            time.sleep((due - t) / 1e9)
        if save is None and due - start >= arg.before * 1000000:
            control.send(b"INFO", b"stats")
            before = info(control.answer())
            save = due = now()
            control.send(b"BGSAVE")
            waiting = "bgsave"
        probe.send(b"SETRANGE", b"key:%d" % rng.randrange(arg.keys), b"0", b"v")
        probe.answer()
        t = now()
        samples.append((due, t - due))
        due += interval

        if waiting and control.ready():
            data = control.answer()
            if waiting == "bgsave":
                waiting = None
            elif info(data)["rdb_bgsave_in_progress"] == "0":
                if info(data)["rdb_last_bgsave_status"] != "ok":
                    sys.exit("redis-probe: BGSAVE failed")
                waiting = None
                end = t
                stop_at = due + 50000000
            else:
                waiting = None
        if save and not waiting and not end and t - polled > 20000000:
            control.send(b"INFO", b"persistence")
            waiting = "info"
            polled = t

    control.send(b"INFO", b"stats")
    after = info(control.answer())

    quiet = sorted(lat for t, lat in samples if t < save)
    busy = sorted(lat for t, lat in samples if save <= t <= end)
    out = {"fork_us": int(after["latest_fork_usec"])}
    for name, percent in ("p50", 50000), ("p99", 99000), ("p999", 99900), ("max", 100000):
        out[name + "_us"] = nearest_rank(busy, percent) / 1000
        if quiet and name != "p999":
            out["before_" + name + "_us"] = nearest_rank(quiet, percent) / 1000
    out["requests"] = len(busy)
    out["save_ms"] = (end - save) / 1e6
    served = int(after["total_commands_processed"]) - int(before["total_commands_processed"])
    out["commands_per_s"] = round(served / ((now() - save) / 1e9))
    for name, value in out.items():
        print(name, value)
    if arg.series:
        with open(arg.series, "w", encoding="ascii") as f:
            for t, lat in samples:
                f.write(f"{(t - save) / 1e6:.3f} {lat / 1000:.1f}\n")


if __name__ == "__main__":
    main()
