# SPDX-License-Identifier: Apache-2.0
"""Runs quern and its peers interleaved on the same data and threads: `run.py AREA --build DIR`.

Every repeat of a pair runs one side right after the other while the first idles, the order
alternating; the ratio is taken within the pair, so the machine's slow drift cancels. Shown are the
medians; the ratio is the median of the pairs' ratios, > 1 where quern is better, and its spread is
the lowest and highest of them. Usually called by `sh bench/run.sh peers AREA`.
"""

import argparse
import fnmatch
import importlib
import json
import math
import os
import signal
import statistics
import sys
import time

import sides
from sides import Side, SideError


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("area", help="a module of bench/peers/areas")
    parser.add_argument("--build", default="build", help="folder that holds the built drivers")
    parser.add_argument("--data", help="folder for generated data (default: BUILD/peers-data)")
    parser.add_argument("--threads", default="", help="thread counts, for example 1,2")
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON")
    parser.add_argument("--repeats", type=int, default=5, help="pairs a row (default 5)")
    parser.add_argument("--quick", action="store_true", help="smaller data and fewer cases")
    parser.add_argument("--case", default="*", help="only cases that match this pattern")
    parser.add_argument("--peer", default="*", help="only peers that match this pattern")
    parser.add_argument("--curve", type=int, metavar="ROWS",
                        help="boosting: time and memory of a round from 10k up to ROWS rows alone; "
                        "attention: of the linear kinds from 1k up to ROWS tokens; "
                        "ssm: of a step from 1k up to ROWS steps")
    parser.add_argument("--ggml", metavar="LIBRARY",
                        help="ssm: a built libggml.so, which comes as no package")
    parser.add_argument("--peers-only", action="store_true", help="time the peers without quern")
    parser.add_argument("--no-pin", action="store_true", help="do not bind sides to processors")
    options = parser.parse_args()
    available = len(os.sched_getaffinity(0))
    text = options.threads or ("1" if available == 1 else f"1,{available}")
    try:
        options.threads = [int(word) for word in text.split(",")]
    except ValueError:
        parser.error(f"--threads: expected numbers like 1,2, got {text}")
    if not all(1 <= count <= available for count in options.threads):
        parser.error(f"--threads: expected 1..{available}, got {text}")
    if options.repeats < 1:
        parser.error(f"--repeats: expected at least 1, got {options.repeats}")
    if options.curve is not None:
        os.environ["PEERS_CURVE"] = str(options.curve)
    if options.ggml is not None:
        os.environ["PEERS_GGML"] = os.path.abspath(options.ggml)
    # Absolute: the sides run in it, and some are told files by name.
    options.data = os.path.abspath(options.data or os.path.join(options.build, "peers-data"))
    os.makedirs(options.data, exist_ok=True)
    return options


class Load:
    """How many processors others (or the host, by stealing) keep busy while we measure."""

    def __init__(self, bench):
        self.bench = bench
        self.before = self.read()

    def read(self):
        """Clock, processor seconds of everybody, and of ourselves with all our sides."""
        with open("/proc/stat", encoding="ascii") as file:
            words = [int(word) for word in file.readline().split()[1:]]
        everybody = sum(words[:3] + words[5:8]) / os.sysconf("SC_CLK_TCK")
        sides_living = sum(side.cpu_seconds() for side in self.bench.sides.values())
        return time.monotonic(), everybody, sum(os.times()[:4]) + sides_living

    def foreign(self):
        clock, everybody, ours = (b - a for a, b in zip(self.before, self.read()))
        return max(0.0, everybody - ours) / max(clock, 1e-9)


class Bench:
    """Keeps the sides of one thread count alive while the data stays the same."""

    def __init__(self, area, options, threads):
        self.area, self.options, self.threads = area, options, threads
        self.sides, self.failed, self.data, self.limits = {}, set(), None, {}
        self.restless, self.foreign = set(), 0.0

    def start(self, name):
        if name == "quern":
            command = sides.driver_command(self.options.build, self.area.DRIVER)
        elif self.area.PEERS[name].driver:
            command = sides.driver_command(self.options.build, self.area.PEERS[name].driver)
        else:
            command = sides.worker_command(self.options.area, name)
        return Side(name, command, self.threads, self.options)

    def side(self, name, case):
        """The running side with the case's data loaded, or None where it cannot be had."""
        if name in self.failed:
            return None
        try:
            if name in self.sides and self.sides[name].process.poll() is not None:
                raise SideError(f"{name}: ended by itself")
            if name not in self.sides:
                self.sides[name] = self.start(name)
                self.load(self.sides[name], case)
            return self.sides[name]
        except (SideError, OSError) as error:
            self.drop(name, error)
            return None

    def load(self, side, case):
        for array, file in case.data.items():
            side.ask("load", array, file)

    def use(self, case):
        """Gives all running sides the case's data."""
        if case.data == self.data:
            return
        self.data = case.data
        for name, side in list(self.sides.items()):
            try:
                side.ask("forget")
                self.load(side, case)
            except SideError as error:
                self.drop(name, error)

    def drop(self, name, error):
        print(f"  left out: {error}", file=sys.stderr)
        self.failed.add(name)
        if name in self.sides:
            self.sides.pop(name).close()

    def close(self):
        for side in self.sides.values():
            side.close()
        self.sides.clear()


def figure(case, reply):
    """The case's figure from a reply."""
    if "value" in reply:
        return reply["value"]
    return case.work / reply["seconds"] if case.higher else case.work * reply["seconds"]


def calibrate(side, case):
    """Warms up and finds how many calls fill a slot."""
    reply = side.ask("run", case.run, "inner=1")
    if case.slot == 0:
        return 1
    inner = 1
    while reply["seconds"] * inner < case.slot / 4:
        inner = max(2 * inner, min(1000 * inner, math.ceil(case.slot / 3 / reply["seconds"])))
        reply = side.ask("run", case.run, f"inner={inner}")
    return max(1, math.ceil(case.slot / reply["seconds"]))


def judged(bench, side, case):
    """Quality of the side's answer, or None."""
    if case.quality is None:
        return None
    if case.quality_run:
        side.ask("run", case.quality_run, "inner=1")
    file = f"answer-{side.name}.npy"
    side.ask("save", file)
    import numpy

    path = os.path.join(bench.options.data, file)
    try:
        return float(case.quality(numpy.load(path), bench.options.data))
    finally:
        os.remove(path)


class Contestant:
    """One side ready for one case."""

    def __init__(self, bench, name, case):
        self.bench, self.name, self.case = bench, name, case
        self.side = None if case.fresh else bench.side(name, case)
        if not case.fresh:
            if self.side is None:
                raise SideError(name)
            if case.prepare:
                self.side.ask("prepare", case.prepare)
            self.inner = 1 if case.cold else calibrate(self.side, case)
            self.quality = None if case.cold else judged(bench, self.side, case)
        else:
            self.quality = None

    def once(self):
        if not self.case.fresh:
            reply = self.side.ask("run", self.case.run, f"inner={self.inner}")
            if self.case.cold:
                self.quality = judged(self.bench, self.side, self.case)
            return figure(self.case, reply)
        side = self.bench.start(self.name)
        try:
            self.bench.load(side, self.case)
            if self.case.prepare:
                side.ask("prepare", self.case.prepare)
            return figure(self.case, side.ask("run", self.case.run, "inner=1"))
        finally:
            side.close()


def judge_cold(bench, runners):
    """Qualities of what has run by now without having been warmed up."""
    for runner in runners:
        if runner.case.cold and runner.quality is None:
            runner.quality = judged(bench, runner.side, runner.case)


def contestant(bench, name, case):
    """A contestant, or None with a note where the side lacks the case."""
    if name in bench.failed:
        return None
    try:
        return Contestant(bench, name, case)
    except SideError as error:
        if name not in bench.failed:
            print(f"  {case.name}: {error}", file=sys.stderr)
        return None


def pairs(bench, quern, peer, repeats):
    """Runs the pair alternately; returns the two lists of figures."""
    found = {quern: [], peer: []}
    load = Load(bench)
    for repeat in range(repeats):
        order = (quern, peer) if repeat % 2 == 0 else (peer, quern)
        for runner, waiting in (order, order[::-1]):
            sides.settle()
            before = waiting.side.cpu_seconds() if waiting.side else 0.0
            found[runner].append(runner.once())
            if waiting.side and waiting.side.cpu_seconds() - before > 0.05:
                bench.restless.add(waiting.name)
    bench.foreign = max(bench.foreign, load.foreign())
    return found[quern], found[peer]


def row_of(bench, case, name, quern, peer, values):
    """The JSON row of one case and peer."""
    ours, theirs = values
    ratios = [a / b if case.higher else b / a for a, b in zip(ours, theirs)]
    limit = case.limit(bench.limits, bench.threads) if case.limit and bench.limits else None
    best = statistics.median(ours)
    return {
        "area": bench.options.area,
        "case": case.name,
        "metric": case.metric,
        "threads": bench.threads,
        "quern": best,
        "peer": statistics.median(theirs),
        "peer_name": name,
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "quality_quern": quern.quality,
        "quality_peer": peer.quality,
        "limit_fraction": None if limit is None else best / limit if case.higher else limit / best,
    }


def number(value):
    return "-" if value is None else f"{value:.4g}"


HEADER = ("case", "metric", "T", "quern", "peer", "", "ratio", "spread", "quality q / p", "limit")
WIDTHS = (34, 9, 2, 9, 9, 18, 6, 13, 19, 5)


def print_line(cells):
    padded = (str(cell).ljust(width) for cell, width in zip(cells, WIDTHS))
    print("  ".join(padded).rstrip(), flush=True)


def print_row(row):
    spread = "-" if row["spread"] is None else "{:.2f}..{:.2f}".format(*row["spread"])
    quality = f"{number(row['quality_quern'])} / {number(row['quality_peer'])}"
    if row["quality_peer"] is None:
        quality = "-"
    ratio, limit = ("-" if row[key] is None else f"{row[key]:.2f}"
                    for key in ("ratio", "limit_fraction"))
    print_line((row["case"], row["metric"], row["threads"], number(row["quern"]),
                number(row["peer"]), row["peer_name"] or "-", ratio, spread, quality, limit))


def repeats_of(case, options):
    return min(options.repeats, case.repeats or options.repeats)


def peer_alone(bench, case, name, peer):
    """A row without quern: the peer's median alone."""
    values = []
    load = Load(bench)
    for _ in range(repeats_of(case, bench.options)):
        sides.settle()
        values.append(peer.once())
    bench.foreign = max(bench.foreign, load.foreign())
    row = row_of(bench, case, name, peer, peer, (values, values))
    row.update(quern=None, quality_quern=None, ratio=None, spread=None, limit_fraction=None)
    return row


def quern_alone(bench, case, quern):
    """A row of a case that no peer has."""
    values = []
    load = Load(bench)
    for _ in range(repeats_of(case, bench.options)):
        sides.settle()
        values.append(quern.once())
    bench.foreign = max(bench.foreign, load.foreign())
    row = row_of(bench, case, "", quern, quern, (values, values))
    row.update(peer=None, peer_name=None, quality_peer=None, ratio=None, spread=None)
    return row


def measured_limits(side, threads):
    """The best of three measurements: a disturbed limit would flatter quern."""
    best = {}
    for _ in range(3):
        sides.settle(0.2)
        for name, value in side.ask("limits", f"threads={threads}").items():
            best[name] = max(value, best.get(name, 0.0))
    return best


def run_case(bench, case):
    """Yields the rows of one case."""
    bench.use(case)
    options = bench.options
    quern = None if options.peers_only else contestant(bench, "quern", case)
    if quern is None and not options.peers_only:
        return
    if quern and quern.side and not bench.limits:
        bench.limits = measured_limits(quern.side, bench.threads)
    if quern and not case.peers:
        yield quern_alone(bench, case, quern)
    for name in case.peers:
        if not fnmatch.fnmatch(name, options.peer):
            continue
        peer = contestant(bench, name, case)
        if peer is None:
            continue
        try:
            if quern is None:
                yield peer_alone(bench, case, name, peer)
            else:
                values = pairs(bench, quern, peer, repeats_of(case, options))
                judge_cold(bench, (quern, peer))
                yield row_of(bench, case, name, quern, peer, values)
        except SideError as error:
            print(f"  {case.name}: {error}", file=sys.stderr)


def print_notes(bench, names):
    """What the reader of the table should know about the run."""
    print(f"{bench.threads} threads: " + "; ".join(names.values()), file=sys.stderr)
    for name in sorted(bench.restless):
        print(f"  note: {name} used processor time while it should have been idle", file=sys.stderr)
    if bench.foreign > 0.1:
        print(f"  note: other programs kept up to {bench.foreign:.2f} processors busy: "
              "do not trust these figures", file=sys.stderr)


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the sides end with us
    area = importlib.import_module(f"areas.{options.area}")
    cases = [case for case in area.cases(options.data, options.quick)
             if fnmatch.fnmatch(case.name, options.case)]
    rows = []
    print_line(HEADER)
    for threads in options.threads:
        bench = Bench(area, options, threads)
        try:
            for case in cases:
                if case.threads and threads not in case.threads:
                    continue
                for row in run_case(bench, case):
                    rows.append(row)
                    print_row(row)
        finally:
            names = {name: side.info.get("name", name) for name, side in bench.sides.items()}
            bench.close()
        print_notes(bench, names)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
            file.write("\n")
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
