# SPDX-License-Identifier: Apache-2.0
"""A peer in a process of its own: `worker.py AREA PEER`, the protocol of README.md on its pipes."""

import gc
import importlib
import json
import sys

import numpy


def memory(words):
    """Resident and peak megabytes; `memory reset` makes the present size the peak."""
    if words == ["reset"]:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    sizes = {}
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(("VmRSS:", "VmHWM:")):
                sizes[line[:5]] = int(line.split()[1]) / 1024
    return {"rss_mb": sizes["VmRSS"], "peak_mb": sizes["VmHWM"]}


def arguments(words):
    """key=value words, values as int or float where they look like one."""
    result = {}
    for word in words:
        key, _, text = word.partition("=")
        for kind in (int, float, str):
            try:
                result[key] = kind(text)
                break
            except ValueError:
                pass
    return result


def answer(peer, words):
    verb, rest = words[0], words[1:]
    if verb == "info":
        return {"name": peer.describe()}
    if verb == "load":
        peer.arrays[rest[0]] = numpy.load(rest[1])
    elif verb == "prepare":
        return peer.prepare(rest[0], **arguments(rest[1:])) or {}
    elif verb == "run":
        gc.disable()
        try:
            return peer.run(rest[0], **arguments(rest[1:]))
        finally:
            gc.enable()
    elif verb == "save":
        numpy.save(rest[0], peer.output())
    elif verb == "memory":
        return memory(rest)
    elif verb == "forget":
        peer.forget()
        gc.collect()
    else:
        raise ValueError(f"unknown command {verb}")
    return {}


def main():
    module = importlib.import_module(f"areas.{sys.argv[1]}")
    peer = module.PEERS[sys.argv[2]].make()
    reply_to = sys.stdout
    sys.stdout = sys.stderr  # what a library prints must not look like a reply
    for line in sys.stdin:
        words = line.split()
        if not words or words[0] == "quit":
            break
        try:
            reply = answer(peer, words)
        except Exception as error:  # the harness reports it and goes on without this peer
            reply = {"error": f"{type(error).__name__}: {error}"}
        reply_to.write(json.dumps(reply) + "\n")
        reply_to.flush()


if __name__ == "__main__":
    main()
