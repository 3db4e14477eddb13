#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What make bench-full measured, as a table against the targets, and as plots.

  bench-report.py report DIR
      read DIR/*.json as bench.sh left them; write DIR/report.json,
      DIR/report.md and DIR/*.svg (with gnuplot); print the table
  bench-report.py compare [--json FILE] [--names A B] -- A.json... B.json...
      the same number of results of "cowpte-bench micro" of two kernels: the
      shortest times, side by side
"""
import argparse
import json
import math
import os
import shutil
import subprocess
import sys

MIB = 1 << 20
GIB = 1 << 30
TABLE = 2 * MIB             # what a page table spans


def load(path):
    """None if it was not measured, or if what was to write the file failed."""
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read()
        return json.loads(text) if text else None
    except OSError:
        return None
    except ValueError as e:
        sys.exit(f"bench-report: {path}: {e}")


SCALES = {
    "": ((1, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")),
    "us": ((1, "us"), (1e3, "ms"), (1e6, "s")),
    "ms": ((1e-3, "us"), (1, "ms"), (1e3, "s")),
    "KiB": ((1, "KiB"), (1024, "MiB"), (MIB, "GiB")),
}


def amount(value, unit=""):
    """Four digits, with the largest unit of which there is one."""
    if value is None:
        return "-"
    div, name = 1, unit
    for scale in SCALES.get(unit, ()):
        if abs(value) * 1.00005 >= scale[0] or scale == SCALES[unit][0]:
            div, name = scale
    return f"{value / div:.{max(0, 4 - len(str(int(abs(value / div)))))}f} {name}".rstrip()


# --- the table

RATE = "1/s"                # of this, more is better


class Row:
    """One figure. met is None where there is no target."""

    def __init__(self, figure, target, off, on, ratio=None, met=None, unit="", source="",
                 times=True):
        self.figure, self.target, self.unit, self.source = figure, target, unit, source
        self.off, self.on, self.met = off, on, met
        self.ratio = ratio
        if ratio is None and off and on:
            self.ratio = off / on
        self.times = times
        self.measured = True

    def verdict(self):
        if not self.measured:
            return "not measured"
        return {True: "yes", False: "**no**", None: "-"}[self.met]

    def cells(self):
        if self.ratio is None:
            ratio = "-"
        elif self.unit == RATE:
            ratio = f"{1 / self.ratio:.4g}× as many"
        elif self.times:
            ratio = f"{self.ratio:.4g}×"
        else:
            ratio = f"{(self.ratio - 1) * 100:+.2f} %"
        return [self.figure, self.target or "-", amount(self.off, self.unit), amount(self.on, self.unit),
                ratio, self.verdict(), self.source]

    def as_json(self):
        return {"figure": self.figure, "target": self.target or None, "unit": self.unit,
                "off": self.off, "on": self.on,
                "ratio" if self.times else "change": self.ratio if self.times or
                self.ratio is None else self.ratio - 1,
                "met": self.met, "measured": self.measured, "source": self.source}


HEADING = ["figure", "target", "off", "on", "off/on, or what on changes", "met?", "measured by"]


def pick(data, **key):
    """The results of cowpte-bench with that key, by mode."""
    found = {}
    for r in (data or {}).get("results", []):
        if all(r.get(k) == v for k, v in key.items()):
            found[r["mode"]] = r["metrics"]
    return found if set(found) == {"off", "on"} else None


def missing(rows, figure, target, source):
    rows.append(Row(figure, target, None, None, source=source))
    rows[-1].measured = False


def at_least(rows, found, metric, figure, least, source):
    """Off divided by on must be so much."""
    target = f"≥ {least}×" if least else ""
    if not found:
        missing(rows, figure, target, source)
        return
    off, on = (found[m][metric]["median"] for m in ("off", "on"))
    ratio = off / on if off > 0 and on > 0 else None
    rows.append(Row(figure, target, off, on, ratio, ratio is not None and ratio >= least
                    if least else None, source=source))


def at_most(rows, figure, off, on, most, source, unit="", target=None):
    """On may be so much of off; both None if they are not measured."""
    target = target or f"≤ {(most - 1) * 100:+.3g} %"
    if not off or not on:
        missing(rows, figure, target, source)
        return
    rows.append(Row(figure, target, off, on, on / off, on / off <= most, unit, source,
                    times=False))


def rows_fork(rows, data, execs):
    source = "cowpte-bench fork"
    for size, name in (GIB, "1 GiB"), (4 * GIB, "4 GiB"):
        for which in "first", "later":
            found = pick(data, size=size, fork=which)
            least = {(GIB, "first"): 160, (GIB, "later"): 200, (4 * GIB, "later"): 400}
            at_least(rows, found, "fork", f"fork, {name}, {which}", least.get((size, which)),
                     source)
    found = pick(data, size=4 * GIB, fork="later")
    figure, target = "fork, 4 GiB, later, per table above an empty process", "≤ 60"
    if found:
        off, on = (found[m]["fork"]["median_per_table"] for m in ("off", "on"))
        rows.append(Row(figure, target, off, on, met=on <= 60, source=source))
    else:
        missing(rows, figure, target, source)
    small = pick(data, size=64 * MIB, fork="later")
    if found and small:
        per_table = [(found[m]["fork"]["median"] - small[m]["fork"]["median"]) /
                     ((4 * GIB - 64 * MIB) // TABLE) for m in ("off", "on")]
        rows.append(Row("... per further table, from 64 MiB to 4 GiB", "", *per_table,
                        source=source))
    for which in "first", "later":
        at_least(rows, pick(data, size=GIB, fork=which), "fork_exit_wait",
                 f"fork + exit + wait, 1 GiB, {which}", 200, source)
    at_least(rows, pick(data, size=4 * GIB, fork="later"), "fork_exit_wait",
             "fork + exit + wait, 4 GiB, later", None, source)
    at_least(rows, pick(data, size=0, fork="later"), "fork",
             "fork, empty process, later", None, source)
    for size, name in (GIB, "1 GiB"), (4 * GIB, "4 GiB"):
        at_least(rows, pick(execs, size=size, fork="later"), "fork_exec_wait",
                 f"fork + exec + wait, {name}, later", None, source + " --child exec")


def rows_fault(rows, data):
    source = "cowpte-bench fault"
    at_least(rows, pick(data, size=GIB, pattern="seq", child="gone"), "overhead",
             "child exits, parent rewrites 1 GiB: overhead", 100, source)
    found = pick(data, size=GIB, pattern="seq", child="alive")
    figure = "child alive, parent writes every page, per page"
    per_op = [found[m]["rewrite"]["median_per_op"] for m in ("off", "on")] if found else [None] * 2
    at_most(rows, figure, *per_op, 1.03, source)
    if found:
        rows.append(Row("... its worst single write", "", found["off"]["worst_write"]["max"],
                        found["on"]["worst_write"]["max"], source=source))
    found = pick(data, size=GIB, pattern="table", child="alive")
    figure = "child alive, parent writes 1 page in each table: fork + writes"
    total = [found[m]["fork_and_rewrite"]["median"] for m in ("off", "on")] if found else [None] * 2
    at_most(rows, figure, *total, 1.1, source, target="≤ 1.1 of off")
    if found:
        rows.append(Row("... its worst single write", "", found["off"]["worst_write"]["max"],
                        found["on"]["worst_write"]["max"], source=source))


def rows_window(rows, data, caches):
    source = "cowpte-bench window" + (" --cold" if caches == "cold" else "")
    found = next(((m["off"], m["on"]) for m in [pick(data, caches=caches)] if m), None)
    for name, figure, each in (
            ("first_write", "first write to a table while the child lives", True),
            ("worst_write", "... the worst one", False),
            ("child_exit", "exit of the child, per table written", True),
            ("rewrite", "all pages of a table after that", True),
            ("sum", "sum, with fork, per table written", True),
            ("child_that_writes", "a child writes to a table and exits, per table", True)):
        figure += f", {caches}"
        if not found:
            missing(rows, figure, "", source)
            continue
        off, on = (m[name]["median_per_op" if each else "median"] for m in found)
        rows.append(Row(figure, "", off, on, off / on if on > 0 else None, source=source))


def rows_memory(rows, data):
    source = "cowpte-bench memory"
    numbers = sorted({r["children"] for r in (data or {}).get("results", [])})
    if not numbers or max(numbers) < 256:
        missing(rows, "page tables per idle child, 1 GiB, N = 1…256", "≤ 24 KiB", source)
    for n in numbers:
        found = pick(data, size=GIB, children=n)
        empty = pick(data, size=0, children=n)
        if not found:
            continue
        off, on = (found[m]["pagetables_per_child"]["median"] for m in ("off", "on"))
        rows.append(Row(f"page tables per idle child, 1 GiB, N = {n}", "≤ 24 KiB", off, on,
                        met=on <= 24, unit="KiB", source=source))
        if empty and n == max(numbers):
            off, on = (found[m]["pagetables_per_child"]["median"] -
                       empty["off"]["pagetables_per_child"]["median"] for m in ("off", "on"))
            rows.append(Row("... above those of a child of an empty process", "", off, on,
                            unit="KiB", source=source))


def metric(data, name, mode, which="median"):
    try:
        return data["metrics"][name][mode][which]
    except (KeyError, TypeError):
        return None


def rows_small(rows, data, micro):
    source = "small.sh"
    for name, text in (("pipeline_cpu_ms", "shell pipelines"), ("storm_cpu_ms", "configure-like storm"),
                       ("messaging_cpu_ms", "perf bench sched messaging -p"),
                       ("fork_cpu_ms", "stress-ng --fork"), ("vfork_cpu_ms", "stress-ng --vfork"),
                       ("exec_cpu_ms", "stress-ng --exec")):
        at_most(rows, f"{text}, shortest CPU time", metric(data, name, "off", "min"),
                metric(data, name, "on", "min"), 1.01, source, "ms")
    at_most(rows, "build of a small tree, shortest CPU time", metric(data, "build_cpu_ms", "off", "min"),
            metric(data, "build_cpu_ms", "on", "min"), 1, source, "ms", "not slower")
    for op in "fork", "exit", "exec":
        found = pick(micro, op=op)
        if found:
            off, on = (found[m]["time"]["min"] for m in ("off", "on"))
            rows.append(Row(f"small process: {op}, shortest", "", off, on, on / off,
                            source="cowpte-bench micro", times=False))


def rows_untouched(rows, data, used):
    source = "bench-compare.sh"
    if not data:
        at_most(rows, "never opted in, against an untouched kernel", None, None, 1.005, source)
        return
    for op in data["ops"]:
        at_most(rows, f"never opted in: {op['op']} (untouched kernel | ours)", op["a"], op["b"],
                1.005, source)
    for op in (used or {"ops": []})["ops"]:
        if op["op"] in ("fork", "exit", "exec"):
            rows.append(Row(f"never opted in: {op['op']} (before | after another process does)", "",
                            op["a"], op["b"], op["b"] / op["a"], source=source, times=False))


PROGRAMS = (
    ("redis-load", "redis-load", "Redis, 1 GiB", ("fork_us", "us"), ("rest_fork_us", "us"), ("p50_us", "us"), ("p99_us", "us"),
     ("p999_us", "us"), ("max_us", "us"), ("commands_per_s", "1/s"), ("pagetables_kb", "KiB")),
    ("afl-256M", "afl", "AFL++, 256 MiB", ("execs_per_cpu_s", "1/s"),
     ("exec_cpu_us", "us")),
    ("afl-1G", "afl", "AFL++, 1 GiB", ("execs_per_cpu_s", "1/s"),
     ("exec_cpu_us", "us")),
    *((f"prefork-{heap}", "prefork", f"prefork server, 1 GiB {text}, 32 workers", ("forks_ms", "ms"),
       ("fork_us", "us"), ("pagetables_kb", "KiB"), ("requests_per_s", "1/s"), ("p50_us", "us"),
       ("p99_us", "us"), ("first_max_us", "us"), ("total_ms", "ms"), ("pagetables_after_kb", "KiB"),
       ("exit_ms", "ms")) for heap, text in (("flat", "only read"), ("objects", "of Python objects"))),
    ("forkexec", "forkexec", "shell command from 4 GiB", ("perl_cpu_us", "us"),
     ("python_cpu_us", "us"), ("python_vfork_cpu_us", "us")),
    ("postgres", "postgres", "PostgreSQL, 64 backends that read 256 MiB", ("pagetables_kb", "KiB"),
     ("first_faults", ""), ("first_ms", "ms"), ("later_ms", "ms"), ("exit_ms", "ms")),
)


def rows_programs(rows, where):
    for name, script, text, *figures in PROGRAMS:
        data = load(os.path.join(where, name + ".json"))
        if not data:
            missing(rows, text, "", script + ".sh")
            continue
        for figure, unit in figures:
            off, on = metric(data, figure, "off"), metric(data, figure, "on")
            if off is None or on is None:
                continue
            rows.append(Row(f"{text}: {data['metrics'][figure]['text']}", "", off, on,
                            unit=unit, source=script + ".sh"))
    data = load(os.path.join(where, "redis-load-digest.json"))
    if data:
        rows.append(Row(f"Redis: snapshots of both modes hold the same data "
                        f"({max(data['keys'].values())} keys)", "same digest", None, None,
                        met=data["equal"], source="redis-snapshot.sh --digest"))


# --- plots

STYLE = """set terminal svg size 760,{height} font "sans,13" background rgb "white"
set output "{out}"
set border 3
set tics nomirror
set grid xtics ytics lc rgb "#dddddd"
set rmargin 4
set linetype 1 lc rgb "#c0392b" lw 2 pt 7 ps 0.6
set linetype 2 lc rgb "#2471a3" lw 2 pt 7 ps 0.6
set linetype 3 lc rgb "#c0392b" lw 2 pt 6 ps 0.8 dt 2
set linetype 4 lc rgb "#2471a3" lw 2 pt 6 ps 0.8 dt 2
set linetype 5 lc rgb "#777777" lw 1 dt 3
"""
PANEL = """set xlabel "{x}"
set ylabel "{y}"
set key {key} samplen 3 spacing 1.2
"""


def gnuplot(where, name, panels, title):
    """panels: what to set, curves, and the texts. A curve is what gnuplot is to
    do with points, and the points."""
    script = STYLE.format(out=name + ".svg", height=460 if len(panels) == 1 else 340 * len(panels))
    if len(panels) == 1:
        script += f'set title "{title}" font "sans,14"\n'
    else:
        script += f'set multiplot layout {len(panels)},1 title "{title}" font "sans,14"\n'
    for k, (commands, curves, texts) in enumerate(panels):
        script += PANEL.format(**{"key": "top left", **texts}) + commands
        for i, (_, points) in enumerate(curves):
            script += f"$data{k}{i} << END\n"
            script += "".join(" ".join(map(str, p)) + "\n" for p in points) + "END\n"
        script += "plot " + ", ".join(f"$data{k}{i} {how}" for i, (how, _) in enumerate(curves))
        script += "\n"
    if len(panels) > 1:
        script += "unset multiplot\n"
    path = os.path.join(where, name + ".gp")
    with open(path, "w", encoding="utf-8") as f:
        f.write(script)
    if not shutil.which("gnuplot"):
        sys.exit("bench-report: gnuplot is missing: apt-get install gnuplot-nox")
    subprocess.run(["gnuplot", name + ".gp"], cwd=where, check=True)
    return name + ".svg"


def emulated(data):
    return data.get("unit") == "instructions"


def size_tics(sizes):
    names = [f"'{s // GIB} GiB' {s / MIB}" if s >= GIB else f"'{s // MIB} MiB' {s / MIB}"
             for s in sizes]
    return f"set xtics ({', '.join(names)})\n"


def log_range(values):
    """A whole number of decades."""
    low = math.floor(math.log10(min(values)))
    high = max(math.ceil(math.log10(max(values))), low + 1)
    return f"[1e{low}:1e{high}]"


def plot_fork(where, data):
    sizes = sorted({r["size"] for r in data["results"] if r["size"]})
    curves = []
    for lt, mode, which in ((1, "off", "later"), (3, "off", "first"), (4, "on", "first"),
                            (2, "on", "later")):
        points = []
        for size in sizes:
            found = pick(data, size=size, fork=which)
            if found:
                points.append((size / MIB, found[mode]["fork"]["median"]))
        if points:
            curves.append((f"with linespoints lt {lt} title '{mode}, {which} fork'", points))
    if not curves:
        return None
    empty = pick(data, size=0, fork="later")
    if empty:
        level = empty["off"]["fork"]["median"]
        curves.append(("with lines lt 5 title 'process without memory'",
                       [(sizes[0] / MIB, level), (sizes[-1] / MIB, level)]))
    unit = "instructions" if emulated(data) else "ns"
    values = [y for _, points in curves for _, y in points]
    text = "set logscale xy\n" + size_tics(sizes) + "set format y '10^{%T}'\n"
    text += f"set xrange [{sizes[0] / MIB / 1.15}:{sizes[-1] / MIB * 1.15}]\n"
    text += f"set yrange {log_range(values)}\n"
    least = data.get("cow_pte", {}).get("min_tables")
    if least and sizes[0] // TABLE < least:
        text += (f'set label "fewer than {least} tables:\\nan ordinary fork" at {sizes[0] / MIB}, '
                 "graph 0.58 textcolor rgb '#777777'\n")
    return gnuplot(where, "fork", [(text, curves, {
        "x": "memory of the process, in 4 KiB pages", "y": unit, "key": "right center"})],
        "fork(), as the parent waits for it" + (" (emulated processor)" if emulated(data) else ""))


def plot_memory(where, data):
    numbers = sorted({r["children"] for r in data["results"]})
    curves = []
    for lt, mode in (1, "off"), (2, "on"):
        points = []
        for n in numbers:
            found = pick(data, size=GIB, children=n)
            if found:
                points.append((n, found[mode]["pagetables"]["median"] / 1024))
        if points:
            curves.append((f"with linespoints lt {lt} title '{mode}'", points))
    if not curves:
        return None
    values = [y for _, points in curves for _, y in points]
    text = "set logscale xy\nset xtics (" + ", ".join(map(str, numbers)) + ")\n"
    text += f"set xrange [{numbers[0] / 1.2}:{numbers[-1] * 1.2}]\n"
    text += f"set yrange {log_range(values)}\nset format y '%g'\n"
    return gnuplot(where, "memory", [(text, curves, {"x": "idle children", "y": "MiB"})],
                   "page tables of the children of a process with 1 GiB")


def read_series(path):
    """By mode: the points of the first save, (ms, us)."""
    series = {}
    with open(path, encoding="ascii") as f:
        next(f)
        for line in f:
            mode, rep, ms, us = line.split()
            if rep == "1":
                series.setdefault(mode, []).append((float(ms), float(us)))
    return series


# so many values of a line can be told from each other
BINS = 250


def plot_snapshot(where, data):
    """Above, all requests about the fork; below, the longest ones of the whole save."""
    path = os.path.join(where, "redis-load.series")
    series = read_series(path) if os.path.exists(path) else {}
    if not series:
        return None
    low = min(points[0][0] for points in series.values())
    width = (max(points[-1][0] for points in series.values()) - low) / BINS
    near, whole = [], []
    for lt, mode in (1, "off"), (2, "on"):
        points = [(ms, us / 1000) for ms, us in series.get(mode, ())]
        about = [p for p in points if -50 <= p[0] <= 150]
        if not about:
            continue
        near.append((f"with points lt {lt} ps 0.35 title '{mode}'", about))
        longest = {}
        for ms, latency in points:
            at = int((ms - low) / width)
            longest[at] = max(longest.get(at, 0), latency)
        whole.append((f"with lines lt {lt} lw 1.2 title '{mode}'",
                      [(round((low + (at + 0.5) * width) / 1000, 4), y)
                       for at, y in sorted(longest.items())]))
    if not near:
        return None
    title = "Redis under load: latency of requests during a snapshot"
    if "instructions" in (data or {}).get("note", ""):
        title += " (emulated, 1 ms is 1 M instructions)"
    return gnuplot(where, "snapshot", [
        ("set logscale y\nset format y '%g'\nset xrange [-50:150]\n"
         "set arrow from 0, graph 0 to 0, graph 1 nohead lc rgb '#777777' dt 3\n"
         "set label ' BGSAVE' at 0, graph 0.95 textcolor rgb '#777777'\n", near,
         {"x": "each request: when it was due, ms since BGSAVE", "y": "ms", "key": "top right"}),
        ("set xrange [*:*]\n"
         f"set yrange {log_range([y for _, points in whole for _, y in points])}\n", whole,
         {"x": f"the longest of every {width:.0f} ms: s since BGSAVE", "y": "ms",
          "key": "top right"})], title)


def markdown(rows):
    out = ["| " + " | ".join(HEADING) + " |", "|" + "---|" * len(HEADING)]
    out += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(out) + "\n"


def report(where):
    data = {name: load(os.path.join(where, name + ".json")) for name in
            ("fork", "exec", "fault", "window", "window-cold", "memory", "micro", "small", "untouched",
             "untouched-used")}
    if not any(data.values()):
        sys.exit(f"bench-report: no results in {where}")
    rows = []
    rows_fork(rows, data["fork"], data["exec"])
    rows_fault(rows, data["fault"])
    rows_window(rows, data["window"], "warm")
    rows_window(rows, data["window-cold"], "cold")
    rows_memory(rows, data["memory"])
    rows_small(rows, data["small"], data["micro"])
    rows_untouched(rows, data["untouched"], data["untouched-used"])
    rows_programs(rows, where)

    plots = [plot_fork(where, data["fork"]) if data["fork"] else None,
             plot_snapshot(where, load(os.path.join(where, "redis-load.json"))),
             plot_memory(where, data["memory"]) if data["memory"] else None]
    kernels = sorted({d["kernel"] for d in data.values() if d and "kernel" in d})
    met = sum(row.met is True for row in rows)
    missed = sum(row.met is False for row in rows)
    said = f"{met} targets are met, {missed} are not"
    absent = sum(not row.measured and bool(row.target) for row in rows)
    if absent:
        said += f", {absent} are not measured"
    text = ["# Copy-on-write page tables: what was measured", "",
            f"Kernel {', '.join(kernels) or '?'}. Written by `make bench-full`. "
            "Figures without a unit are instructions", "of an emulated processor (QEMU TCG, "
            "`-icount shift=0`); times from there are instructions", "too: 1 us is 1000. "
            "Medians unless said otherwise.", "",
            said + ".", "", markdown(rows)]
    for plot in filter(None, plots):
        text += [f"![{plot}]({plot})", ""]
    with open(os.path.join(where, "report.md"), "w", encoding="utf-8") as f:
        f.write("\n".join(text))
    with open(os.path.join(where, "report.json"), "w", encoding="utf-8") as f:
        json.dump({"kernels": kernels, "met": met, "not_met": missed, "not_measured": absent,
                   "rows": [row.as_json() for row in rows],
                   "plots": [p for p in plots if p]}, f, indent=2, ensure_ascii=False)
        f.write("\n")

    cells = [HEADING[:6]] + [row.cells()[:6] for row in rows]
    width = [max(len(c[i]) for c in cells) for i in range(6)]
    for c in cells:
        print("  ".join(t.ljust(w) if i == 0 else t.rjust(w)
                        for i, (t, w) in enumerate(zip(c, width))).replace("**", ""))
    print(f"\n{said}; see {where}/report.md")


# --- two kernels

def shortest(paths):
    """The minimum of each operation over all boots, and what each boot had."""
    found = {}
    for path in paths:
        data = load(path)
        if not data or data.get("command") != "micro":
            sys.exit(f"bench-report: {path} is not a result of cowpte-bench micro")
        for r in data["results"]:
            if r["mode"] == "off":
                found.setdefault(r["op"], []).append(r["metrics"]["time"]["min"])
    return found


def compare(arg):
    if len(arg.files) % 2:
        sys.exit("bench-report: not the same number of results of both kernels")
    half = len(arg.files) // 2
    a, b = shortest(arg.files[:half]), shortest(arg.files[half:])
    if set(a) != set(b):
        sys.exit("bench-report: not the same operations")
    ops = []
    print(f"{'operation':<12}{arg.names[0]:>14}{arg.names[1]:>14}{'change':>10}"
          f"{'spread of ' + arg.names[0]:>26}{'of ' + arg.names[1]:>16}")
    for op in a:
        low_a, low_b = min(a[op]), min(b[op])
        spread = [max(x) / min(x) - 1 for x in (a[op], b[op])]
        ops.append({"op": op, "a": low_a, "b": low_b, "change": low_b / low_a - 1,
                    "boots_a": a[op], "boots_b": b[op]})
        print(f"{op:<12}{low_a:>14.1f}{low_b:>14.1f}{(low_b / low_a - 1) * 100:>+9.2f}%"
              f"{spread[0] * 100:>25.2f}%{spread[1] * 100:>15.2f}%")
    print("\nshortest of all boots; spread: how much the shortest differ from boot to boot")
    if arg.json:
        with open(arg.json, "w", encoding="utf-8") as f:
            json.dump({"a": arg.names[0], "b": arg.names[1], "boots": half, "ops": ops}, f,
                      indent=2)
            f.write("\n")


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    r = sub.add_parser("report")
    r.add_argument("dir")
    c = sub.add_parser("compare")
    c.add_argument("--json")
    c.add_argument("--names", nargs=2, default=["A", "B"])
    c.add_argument("files", nargs="+")
    arg = p.parse_args()
    if arg.command == "report":
        report(arg.dir)
    else:
        compare(arg)


if __name__ == "__main__":
    main()
