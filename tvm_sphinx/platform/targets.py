"""TVM targets of devices: those of this machine, and the check that a given one is real. [TVM]"""

from __future__ import annotations

import functools
import json
from typing import Any

from .._tvm import tvm, tvm_ffi
from ..errors import PlatformError
from .device import Device
from .gpus import Gpu, find_gpu, find_gpus
from .instructions import emitted
from .platform import Platform

_BASELINE_CPU = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "generic", "arm64": "generic"}


def host_target() -> str:
    """Return the target of this machine's processor, with its name, as canonical JSON.

    What the name stands for and this machine hides, as virtual machines do, is taken out.
    """
    cpu = str(tvm_ffi.get_global_func("tvm.codegen.llvm.GetHostCPUName")())
    config = {"kind": "llvm", "mcpu": cpu, "mtriple": _host_triple()}
    present = {str(name): bool(has) for name, has in _host_features().items()}
    hidden = [name for name in target_instructions(_canonical(config)) if present.get(name) is False]
    return _canonical({**config, "mattr": [f"-{name}" for name in hidden]} if hidden else config)


def target_instructions(target: str) -> tuple[str, ...]:
    """Return what kernels of a CPU target may use of its processor, by LLVM's names, sorted."""
    made = tvm.target.Target(json.loads(target))
    if made.kind.name != "llvm":
        return ()
    with made:
        return emitted(map(str, tvm_ffi.get_global_func("target.llvm_get_cpu_features")(made)))


def baseline_target() -> str:
    """Return the target of the oldest processor of this machine's architecture."""
    triple = _host_triple()
    cpu = _BASELINE_CPU.get(triple.split("-")[0].lower(), "generic")
    return _canonical({"kind": "llvm", "mcpu": cpu, "mtriple": triple})


def gpu_target(gpu: Gpu) -> str:
    """Return the target of a GPU as canonical JSON."""
    return _canonical(
        {
            "kind": "cuda",
            "arch": gpu.arch,
            "max_num_threads": gpu.threads_per_block,
            "max_shared_memory_per_block": gpu.shared_bytes_per_block,
            "thread_warp_size": gpu.warp_size,
        }
    )


def cuda_devices() -> tuple[str, ...]:
    """Return the targets of this machine's NVIDIA GPUs, in order."""
    return tuple(map(gpu_target, find_gpus()))


def is_at_hand(device: Device) -> bool:
    """Return whether a device is one of this machine, and there."""
    if device.rpc_key is not None:
        return False
    if device.runtime.startswith("cuda:"):
        return find_gpu(device.runtime) is not None
    return bool(runtime_device(device.runtime).exist)


def is_absent(device: Device) -> bool:
    """Return whether a device is one that this machine would have to have and has not."""
    return device.rpc_key is None and not is_at_hand(device)


@functools.lru_cache(maxsize=64)
def make_target(target: str) -> Any:
    """Return the ``tvm.target.Target`` of a device target; a GPU target gets this host as its host."""
    config = json.loads(target)
    if config["kind"] != "llvm" and "host" not in config:
        config["host"] = json.loads(host_target())
    return tvm.target.Target(config)


def check_target(target: str, where: str = "target") -> None:
    """Check that TVM knows the target and that it can generate code for it.

    Raises
    ------
    PlatformError
        If TVM does not know the kind, an option, or the processor.
    """
    config = json.loads(target)
    kinds = tuple(tvm.target.Target.list_kinds())
    if config["kind"] not in kinds:
        raise PlatformError(
            f"Unknown kind {config['kind']!r} in {where}; known: {', '.join(sorted(kinds))}."
        )
    try:
        made = make_target(target)
    except (ValueError, TypeError, RuntimeError) as error:
        # TVM's message repeats itself on further lines; the first one names the option.
        raise PlatformError(f"TVM rejects {where}, {target}: {str(error).splitlines()[0]}") from error
    cpu = config.get("mcpu")
    if config["kind"] == "llvm" and cpu is not None:
        if cpu == "native":
            raise PlatformError(
                f"Expected a processor name in {where}; got mcpu = 'native', which TVM builds for a "
                f'generic processor. Use target = "host".'
            )
        with made:
            valid = bool(tvm_ffi.get_global_func("target.llvm_is_valid_cpu")(cpu, _triple(config)))
        if not valid:
            raise PlatformError(
                f"Unknown processor {cpu!r} in {where}; this machine's is "
                f"{json.loads(host_target())['mcpu']!r}, the baseline "
                f"{json.loads(baseline_target())['mcpu']!r}."
            )


def check_targets(platform: Platform) -> Platform:
    """Return the platform if TVM knows all of its targets, see `check_target`."""
    for device in platform.devices:
        check_target(device.target, f"target of device {device.name!r}")
    return platform


def runtime_device(runtime: str) -> Any:
    """Return the TVM device of a runtime name such as ``"cpu:0"``."""
    kind, _, index = runtime.partition(":")
    return tvm.device(kind, int(index))


def _host_features() -> Any:
    return tvm_ffi.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()


def _host_triple() -> str:
    return str(tvm_ffi.get_global_func("tvm.codegen.llvm.GetDefaultTargetTriple")())


def _triple(config: dict[str, Any]) -> str:
    return str(config.get("mtriple") or _host_triple())


def _canonical(config: dict[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)


def device_target(device: Device) -> Any:
    """Return the TVM target that a device's kernels are built for, with its number of cores."""
    if not device.is_cpu:
        return make_target(device.target)
    return make_target(_canonical({**device.target_config, "num-cores": len(device.cores)}))
