"""Kernels timed on another machine, through TVM's own RPC tracker and server. [TVM]"""

from __future__ import annotations

import functools
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tvm.rpc
import tvm.rpc.base

from ..._tvm import tvm as _tvm
from ...errors import PlatformError, UnsupportedError, cause_of
from ...frontend.extract import Kernel
from ...platform import Device
from ...platform.targets import device_target
from ...runtime.kernels import find_linker, generate_code
from ...runtime.loading import build_folder, linking
from .hosts import Host, RemoteHost
from .kernel_timing import NO_SAMPLES, MeasureConfig, draws_of, evaluate, slowest
from .sampling import Goal, Samples

_SESSION_TIMEOUT_S = 600
_TRACKER_TIMEOUT_S = 5.0
# TVM's thread pool takes the fastest cores first. A list of cores cannot be sent through RPC.
_FASTEST_CORES = 1


def parse_tracker(text: str) -> tuple[str, int]:
    """Return host and port of ``"HOST:PORT"``.

    Raises
    ------
    PlatformError
        If it has another form.
    """
    match = re.fullmatch(r"(.+):(\d{1,5})", text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise PlatformError(
            f"Expected the RPC tracker as HOST:PORT, such as localhost:9190; got {text!r}."
        )
    return match[1], int(match[2])


def check_tracker(address: str) -> tuple[str, int]:
    """Return host and port of ``"HOST:PORT"`` if a tracker answers there; TVM tries for a minute.

    Raises
    ------
    PlatformError
        If the address has another form, or no tracker answers there within some seconds.
    """
    host, port = parse_tracker(address)
    magic = struct.pack("<i", tvm.rpc.base.RPC_TRACKER_MAGIC)
    try:
        with socket.create_connection((host, port), timeout=_TRACKER_TIMEOUT_S) as connection:
            connection.sendall(magic)
            if connection.recv(len(magic), socket.MSG_WAITALL) == magic:
                return host, port
            reason = "what answers there is none"
    except OSError as error:
        reason = cause_of(error)
    raise PlatformError(
        f"Expected an RPC tracker at {address!r}; a connection was tried for "
        f"{_TRACKER_TIMEOUT_S:g} s: {reason}."
    )


@contextmanager
def _reaching(device: Device, tracker: str, doing: str) -> Iterator[None]:
    """Raise what fails on the other machine, or on the way to it, as one error of the device."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise PlatformError(
            f"Device {device.name!r}: the machine of RPC key {device.rpc_key!r} at tracker {tracker!r} "
            f"failed while {doing}; what was measured before is on record: {cause_of(error)}"
        ) from error


class RemoteBench:
    """A device of a machine that TVM's tracker lists under the device's ``rpc_key``.

    Kernels are built here, sent as a shared library, and timed there by TVM's time evaluator on TVM's
    thread pool: a remote server knows nothing of our lanes, whose parallel loops start faster. It has as
    many threads as the device has cores; on which cores they are is up to the server. Where all servers
    of the key are lent, the tracker lets this one wait for its turn.

    Raises
    ------
    PlatformError
        If the tracker cannot be reached, or knows no server of the key; and, whatever is done with it
        later, if the server fails or is lost.
    UnsupportedError
        If the server lacks the runtime device.
    """

    def __init__(self, device: Device, config: MeasureConfig) -> None:
        if device.rpc_key is None or config.rpc_tracker is None:
            raise PlatformError(
                f"Device {device.name!r} is remote (rpc_key = {device.rpc_key!r}); give the "
                f"tracker that lists it with --rpc-tracker HOST:PORT."
            )
        self.device = device
        self.config = config
        # No method of this bench: the host keeps it, and a cycle would keep the machine borrowed.
        self._reaching = functools.partial(_reaching, device, config.rpc_tracker)
        address = check_tracker(config.rpc_tracker)
        with self._reaching("a machine was asked for"):
            tracker = tvm.rpc.connect_tracker(*address)
            self._check_listed(tracker, config.rpc_tracker)
            self.session = tracker.request(
                device.rpc_key, priority=1, session_timeout=_SESSION_TIMEOUT_S, max_retry=3
            )
            kind, _, index = device.runtime.partition(":")
            self.runtime = self.session.device(kind, int(index))
            is_there = self.runtime.exist
            if device.is_cpu:
                configure = self.session.get_function("runtime.config_threadpool")
                configure(_FASTEST_CORES, len(device.cores))
        if not is_there:
            raise UnsupportedError(
                f"Device {device.name!r}: the machine of RPC key {device.rpc_key!r} lacks "
                f"{device.runtime}."
            )
        self._uploads = 0
        target = device_target(device)
        processor = target if device.is_cpu else target.host
        self.host: Host = RemoteHost(
            lambda functions: self._send(functions, processor), self.session.cpu(0), self._reaching
        )

    def _check_listed(self, tracker: Any, address: str) -> None:
        """Check that some server has the key: a request for another one would wait for ever."""
        listed = sorted(
            {server["key"].removeprefix("server:") for server in tracker.summary()["server_info"]}
        )
        if self.device.rpc_key not in listed:
            raise PlatformError(
                f"Unknown RPC key {self.device.rpc_key!r} at tracker {address!r}; "
                f"known: {', '.join(listed) or 'none'}."
            )

    def build(self, functions: Mapping[str, Any]) -> Any:
        """Compile kernels for the device, send them, and return the module over there."""
        return self._send(functions, device_target(self.device))

    def _send(self, functions: Mapping[str, Any], target: Any) -> Any:
        built = generate_code(functions, target)
        linker = find_linker(target)
        self._uploads += 1
        name = f"kernels{os.getpid()}_{self._uploads}.so"
        failure = f"{linker!r} cannot link the kernels for device {self.device.name!r}"
        with linking(failure), build_folder() as folder:
            path = os.path.join(folder, name)
            built.export_library(path, fcompile=_linker(linker))
            with self._reaching("kernels were sent to it"):
                self.session.upload(path)
                return self.session.load_module(name)

    def time(self, module: Any, symbol: str, kernel: Kernel, goal: Goal) -> Samples:
        """Time a kernel; where it has weights, all operands but the first are out of the caches."""
        if kernel.is_external:
            return NO_SAMPLES
        options = {}
        if self.device.is_cpu and kernel.reuse_bytes:
            options["f_preproc"] = "cache_flush_cpu_non_first_arg"
        with self._reaching(f"kernel {kernel.id} was timed"):
            return slowest(
                evaluate(
                    module,
                    symbol,
                    operands,
                    self.runtime,
                    goal,
                    self.host.switches,
                    **options,
                )
                for operands in draws_of(kernel, self.runtime)
            )

    def turn(self, _module: Any, _symbol: str, _kernel: Kernel, _goal: Goal) -> None:
        """Return None: kernels are timed one after the other."""
        return


def _linker(compiler: str) -> Any:
    return _tvm.support.cc.cross_compiler(compiler, options=["-lm"])
