"""Devices of another machine: measured through TVM's RPC tracker and server, here over loopback."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tvm import rpc
from tvm.rpc.server import Server

import tvm_sphinx
from tests.cost.measure.test_kernels import doubling_kernel, one_core
from tests.relax_modules import random_module
from tvm_sphinx.cli import main
from tvm_sphinx.cost.measure import remote
from tvm_sphinx.cost.measure.hosts import RemoteHost
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.cost.measure.kernels import measure_kernels
from tvm_sphinx.cost.measure.remote import RemoteBench, parse_tracker
from tvm_sphinx.cost.model import profile
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.errors import PlatformError
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import UNKNOWN_CACHE_BYTES
from tvm_sphinx.platform.targets import host_target

BOARD = replace(one_core(), name="board", rpc_key="board")


@pytest.fixture(scope="module")
def tracker() -> Iterator[str]:
    """Start a tracker and one server of the key "board"; return the tracker's address."""
    pytest.importorskip("tornado", reason="TVM's tracker needs tornado")
    from tvm.rpc.tracker import Tracker

    served = Tracker(host="127.0.0.1", port=9190, port_end=9290, silent=True)
    server = Server(
        host="127.0.0.1",
        port=9091,
        port_end=9190,
        tracker_addr=("127.0.0.1", served.port),
        key="board",
        silent=True,
    )
    _wait_until_listed("board", served.port)
    yield f"127.0.0.1:{served.port}"
    server.terminate()
    served.terminate()


def _wait_until_listed(key: str, port: int) -> None:
    """A server registers itself in its own time."""
    session = rpc.connect_tracker("127.0.0.1", port)
    for _ in range(600):
        if session.summary()["queue_info"].get(key, {}).get("free", 0) > 0:
            return
        time.sleep(0.1)
    raise TimeoutError(f"No server of key {key!r} has registered at port {port}.")


def test_remote_kernels_are_recorded_as_local_ones_are(tracker: str) -> None:
    store, config = RecordStore(None), MeasureConfig(sample_ms=0.2, rpc_tracker=tracker)
    weighted = replace(doubling_kernel(128), weights=(1,), reuse_bytes=1 << 20)
    kernels = [doubling_kernel(), weighted]
    found = measure_kernels(kernels, BOARD, store, config)
    assert [record.where.machine for record in found] == ["RPC key board"] * 2
    assert [record.shapes for record in found] == [("float32[64]",) * 2, ("float32[128]",) * 2]
    assert all(min(record.samples_ns) > 0 for record in found)
    added = store.num_added
    no_tracker = MeasureConfig(sample_ms=0.2)
    assert measure_kernels(kernels, BOARD, store, no_tracker) == found
    assert store.num_added == added


def test_the_load_of_a_remote_record_is_that_of_its_machine(
    tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (12345.0,) * 3)
    store, config = RecordStore(None), MeasureConfig(sample_ms=0.2, rpc_tracker=tracker)
    (record,) = measure_kernels([doubling_kernel()], BOARD, store, config)
    assert record.host_load != 12345.0
    host = RemoteBench(BOARD, config).host
    before = host.switches()
    assert 0 <= before <= host.switches()
    assert len(host.ticks()) == 8
    assert host.load() is not None
    del host  # or the machine stays borrowed
    monkeypatch.setattr(RemoteHost, "load", lambda _: None)
    (record,) = measure_kernels([doubling_kernel(7)], BOARD, store, config)
    assert record.host_load == 0.0


def test_a_server_that_is_lost_is_told_and_what_was_measured_is_kept(tracker: str) -> None:
    host, port = parse_tracker(tracker)
    server = Server(
        host=host, port=9091, port_end=9190, tracker_addr=(host, port), key="doomed", silent=True
    )
    _wait_until_listed("doomed", port)

    def kill(_stage: str, done: int, _total: int) -> None:
        """End the process that serves us, as soon as the first kernel is on record."""
        if done == 1:
            for child in psutil.Process(server.proc._proc.pid).children(recursive=True):
                child.kill()

    store, config = RecordStore(None), MeasureConfig(sample_ms=0.2, rpc_tracker=tracker)
    doomed = replace(BOARD, name="phone", rpc_key="doomed")
    with pytest.raises(PlatformError) as told:
        measure_kernels([doubling_kernel(), doubling_kernel(128)], doomed, store, config, progress=kill)
    server.terminate()
    for part in ("'phone'", "'doomed'", tracker, "kernel double128 was timed", "on record"):
        assert part in str(told.value)
    (kept,) = measure_kernels([doubling_kernel()], doomed, store, MeasureConfig())
    assert kept.samples_ns
    assert store.num_added == 1


def test_predictions_for_a_remote_device_do_not_take_this_machine_s_caches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profile, "cache_bytes", lambda core: (core + 1, 2, 3))
    first = one_core().cores[0] + 1
    assert profile.core_shape(one_core()).cache_bytes == (first, 2, 3)
    with pytest.warns(UserWarning, match="The caches of remote device 'board' are not known"):
        assert profile.core_shape(BOARD).cache_bytes == UNKNOWN_CACHE_BYTES
    given = replace(BOARD, cache_bytes=(7, 8, 9))
    assert profile.core_shape(given).cache_bytes == (7, 8, 9)
    assert Platform.from_json(Platform((given,)).to_json()).devices == (given,)
    for wrong in ((1, 2), (1, 2, 0)):
        with pytest.raises(PlatformError, match="Expected cache_bytes of device 'board' as three sizes"):
            replace(BOARD, cache_bytes=wrong)


def test_a_tracker_that_is_none_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port, and one that takes connections and says nothing."""
    monkeypatch.setattr(remote, "_TRACKER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(rpc, "connect_tracker", lambda *_: pytest.fail("TVM tries for a minute"))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        config = MeasureConfig(rpc_tracker=address)
        with pytest.raises(
            PlatformError, match=f"tracker at '{address}'.* tried for 0.2 s: .*timed out"
        ):
            measure_kernels([doubling_kernel()], BOARD, RecordStore(None), config)
    with pytest.raises(PlatformError, match=f"tracker at '{address}'.*Connection refused"):
        measure_kernels([doubling_kernel()], BOARD, RecordStore(None), config)


def test_a_platform_of_another_machine_is_compiled_for_it(tracker: str, tmp_path: Path) -> None:
    """It is not raced here, and the cores that it names need not be there."""
    devices = (
        Device("one", host_target(), "cpu:0", (100,), rpc_key="board"),
        Device("two", host_target(), "cpu:0", (100, 101), rpc_key="board"),
    )
    with pytest.warns(UserWarning, match="hand-over between remote devices"):
        compiled = tvm_sphinx.compile(
            random_module(3),
            Platform(devices),
            records=tmp_path / "records.jsonl",
            measure=MeasureConfig(sample_ms=0.2, rpc_tracker=tracker),
        )
    assert "race" not in compiled.stages_s
    compiled.save(tmp_path / "program.sphinx")
    loaded = tvm_sphinx.load(tmp_path / "program.sphinx")
    assert [device.rpc_key for device in loaded.platform.devices] == ["board", "board"]


def test_a_remote_device_needs_a_tracker_that_knows_its_key(tracker: str) -> None:
    with pytest.raises(PlatformError, match="give the tracker that lists it with --rpc-tracker"):
        measure_kernels([doubling_kernel()], BOARD, RecordStore(None), MeasureConfig())
    config = MeasureConfig(rpc_tracker=tracker)
    with pytest.raises(PlatformError, match=r"Unknown RPC key 'phone' at tracker .*; known: board"):
        measure_kernels([doubling_kernel()], replace(BOARD, rpc_key="phone"), RecordStore(None), config)


@pytest.mark.parametrize("text", ["localhost", "host:", "host:0", "host:99999", ":9190"])
def test_a_tracker_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match="Expected the RPC tracker as HOST:PORT"):
        parse_tracker(text)
    assert parse_tracker("::1:9190") == ("::1", 9190)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rpc-key", "board"], "Expected --rpc-tracker HOST:PORT with --rpc-key board"),
        (["--rpc-key", "board", "--rpc-tracker", "localhost:9"], "'detect' is this machine"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", *arguments]) == 4
    assert message in capsys.readouterr().err


def test_keys_of_a_platform_file_win_over_the_command_line() -> None:
    platform = Platform((BOARD, replace(BOARD, name="other", rpc_key=None))).with_rpc_key("phone")
    assert [device.rpc_key for device in platform.devices] == ["board", "phone"]
    assert Platform.from_json(platform.to_json()) == platform
    assert platform.devices[0].cost_class != platform.devices[1].cost_class
