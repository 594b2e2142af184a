"""A CNI runtime that reads without a pause while everything changes as fast as it can."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import time

import pytest
import yaml

from tests.process.scratch import replace
from tests.waiting import until

pytestmark = pytest.mark.thorough


WHOLE = 7
"""The exit code of the binary, set in its last line: half of it would exit with another."""


def _binary(number):
    return f"#!/bin/sh\n{f'# {number}' + 'x' * 120:s}\n" * (300 + number % 300) + f"exit {WHOLE}\n"


def _read_files(conf_dir, stop, results):
    """Do as the runtime does: list, take the first, read and parse it; and read the kubeconfig as Multus does."""
    reads = failures = gone = 0
    seen, faults = set(), []
    kubeconfig = conf_dir / "multus.d/multus.kubeconfig"
    while not stop.is_set():
        try:
            names = sorted(name for name in os.listdir(conf_dir) if name.endswith((".conf", ".conflist", ".json")))
            assert names[0].startswith("00-multus.conf"), names
            try:
                content = (conf_dir / names[0]).read_bytes()
            except FileNotFoundError:
                gone += 1  # its successor is there: the runtime lists again
                assert any(name.startswith("00-multus") for name in os.listdir(conf_dir))
                continue
            document = json.loads(content)
            assert (document.get("plugins") or [document])[0]["delegates"][0]["plugins"][1]["type"] == "portmap"
            content = kubeconfig.read_bytes()
            if content not in seen:
                seen.add(content)
                assert yaml.safe_load(content)["users"][0]["user"]["token"].startswith("token-")
            reads += 2
        except Exception as error:
            failures += 1
            faults.append(repr(error))
    results.put(("files", reads, failures, len(seen), gone, faults[:5]))


def _execute(path, stop, results):
    runs = failures = 0
    faults = []
    while not stop.is_set():
        try:
            code = subprocess.run([path]).returncode
            assert code == WHOLE, code
            runs += 1
        except Exception as error:  # "text file busy" comes as an OSError
            failures += 1
            faults.append(repr(error))
    results.put(("binary", runs, failures, 0, 0, faults[:5]))


def test_a_reader_never_sees_half_a_file_nor_none(host, long, figure):
    seconds = 60 if long else 6
    host.multus.write_text(_binary(0))
    host.master(mtu=0)
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    with host.start() as program:
        host.until_ready(program)
        readers = [
            context.Process(target=_read_files, args=(host.conf_dir, stop, results)),
            context.Process(target=_execute, args=(str(host.installed), stop, results)),
        ]
        for reader in readers:
            reader.start()
        changes = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            changes += 1
            host.master(mtu=changes, cniVersion="1.0.0" if changes % 7 < 3 else "0.3.1")
            host.rotate(f"token-{changes}", f"CERTIFICATE {changes}\n")
            replace(host.multus, _binary(changes), 0o755)
            time.sleep(0.002)
        until(lambda: host.wraps(mtu=changes) and host.has_token(f"token-{changes}"))
        until(lambda: host.installed.read_text() == _binary(changes), what="the last binary")
        stop.set()
        found = {kind: rest for kind, *rest in (results.get(timeout=30) for _ in readers)}
        for reader in readers:
            reader.join()
    for kind, (reads, failures, versions, gone, faults) in found.items():
        figure(
            f"{seconds} s, {changes} changes of each: {kind} read {reads} times, {failures} failures"
            + (f"; {versions} kubeconfigs, listed again {gone} times" if versions else "")
        )
        assert failures == 0, faults
        assert reads > 20
    assert found["files"][2] > 5
