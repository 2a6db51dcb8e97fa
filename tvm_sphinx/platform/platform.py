"""Platforms: the devices that a model can be spread over, and the links between them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import PlatformError, known_choices
from .device import Device as Device
from .device import Link as Link
from .gpus import find_gpus
from .machine import allowed_cores, core_groups, group_name, usable_cores
from .target_text import parse_target

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Platforms that `Platform.named` makes for the machine at hand.
NAMED_PLATFORMS = ("detect", "unlike-cpus")

# Target kinds that compute on the host's cores, and targets that a platform file names by a word.
_CPU_KINDS = ("llvm", "c")
_NAMED = ("host", "baseline")

# Streams that branches of a network run in side by side on one GPU.
_STREAMS_PER_GPU = 3
# Cores that are computed on before one is left to a GPU's feeder.
_LEAST_CORES = 3

_DEVICE_KEYS = (
    "name",
    "target",
    "runtime",
    "cores",
    "memory_bytes",
    "peak_gflop_per_s",
    "peak_gb_per_s",
    "rpc_key",
    "cache_bytes",
)
_LINK_KEYS = ("src", "dst", "latency_ns", "bandwidth_bytes_per_s")


@dataclass(frozen=True)
class Platform:
    """Devices, links, and the host: the CPU device that holds the model's inputs and outputs.

    Links that are not given are measured.

    Raises
    ------
    PlatformError
        If names are not unique, the host is not a CPU device of the platform, or a link names an
        unknown device.
    """

    devices: tuple[Device, ...]
    host: str = ""
    links: tuple[Link, ...] = ()

    def __post_init__(self) -> None:
        names = [device.name for device in self.devices]
        if not names:
            raise PlatformError("Expected at least one device; got none.")
        if len(set(names)) != len(names):
            raise PlatformError(f"Expected unique device names; got {names}.")
        cpus = [device.name for device in self.devices if device.is_cpu]
        if not cpus:
            raise PlatformError(f"Expected a CPU device for inputs and outputs; got only {names}.")
        if not self.host:
            object.__setattr__(self, "host", cpus[0])
        if self.host not in cpus:
            raise PlatformError(known_choices("host device", self.host, cpus))
        for link in self.links:
            for end in (link.src, link.dst):
                if end not in names:
                    raise PlatformError(known_choices("device of a link", end, names))

    @property
    def host_index(self) -> int:
        """Position of the host device."""
        return [device.name for device in self.devices].index(self.host)

    def device(self, name: str) -> Device:
        """Return the device of that name.

        Raises
        ------
        PlatformError
            If there is none; the message lists the known names.
        """
        for device in self.devices:
            if device.name == name:
                return device
        raise PlatformError(known_choices("device", name, [d.name for d in self.devices]))

    @property
    def is_remote(self) -> bool:
        """Whether a device is one of another machine."""
        return any(device.rpc_key is not None for device in self.devices)

    def with_rpc_key(self, rpc_key: str) -> Platform:
        """Return the platform with this RPC key for every device that has none of its own."""
        devices = [d if d.rpc_key is not None else replace(d, rpc_key=rpc_key) for d in self.devices]
        return replace(self, devices=tuple(devices))

    def check_machine(self) -> None:
        """Check that this machine has every core that the platform names, but for remote devices.

        Raises
        ------
        PlatformError
            With the first device that claims a core that is not there, and the cores that are.
        """
        present = allowed_cores()
        for device in self.devices:
            missing = sorted(set(device.cores) - set(present))
            if missing and device.rpc_key is None:
                raise PlatformError(
                    f"Device {device.name!r} claims core {missing[0]}, which this machine lacks; "
                    f"known: {', '.join(map(str, present))}."
                )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form; it is also the form of a platform file."""
        devices: list[dict[str, Any]] = []
        for device in self.devices:
            entry: dict[str, Any] = {"name": device.name, "target": device.target_config}
            entry["runtime"] = device.runtime
            if device.cores:
                entry["cores"] = list(device.cores)
            for key in ("memory_bytes", "peak_gflop_per_s", "peak_gb_per_s", "rpc_key", "cache_bytes"):
                if getattr(device, key) is not None:
                    entry[key] = getattr(device, key)
            devices.append(entry)
        links = [{key: getattr(link, key) for key in _LINK_KEYS} for link in self.links]
        return {"host": self.host, "device": devices, "link": links}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], source: str = "platform") -> Platform:
        """Make a platform from a parsed platform file; ``source`` names it in messages.

        Raises
        ------
        PlatformError
            If a key is unknown or missing, a value is of the wrong type, or a target does not parse.
        """
        _check_keys(content, ("host", "device", "link"), (), source)
        entries = content.get("device", [])
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise PlatformError(f"Expected [[device]] tables in {source}; got {entries!r}.")
        devices = [_device_from_json(entry, source) for entry in entries]
        links = []
        for entry in content.get("link", []):
            _check_keys(entry, _LINK_KEYS, _LINK_KEYS, f"a link of {source}")
            links.append(
                Link(
                    str(entry["src"]),
                    str(entry["dst"]),
                    _number(entry, "latency_ns", source, int),
                    _number(entry, "bandwidth_bytes_per_s", source, float),
                )
            )
        return cls(tuple(devices), str(content.get("host", "")), tuple(links))

    @classmethod
    def from_file(cls, path: str | Path) -> Platform:
        """Read a platform from a TOML file.

        Raises
        ------
        PlatformError
            If the file is missing, is not TOML, or does not describe a platform.
        """
        try:
            with open(path, "rb") as file:
                content = tomllib.load(file)
        except OSError as error:
            raise PlatformError(
                f"Cannot read platform file {str(path)!r}: {error.strerror}. Give a TOML file or one "
                f"of: {', '.join(NAMED_PLATFORMS)}."
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PlatformError(f"Platform file {str(path)!r} is not valid TOML: {error}.") from error
        return cls.from_json(content, repr(str(path)))

    @classmethod
    def named(cls, name: str) -> Platform:
        """Return the platform of that name (see `NAMED_PLATFORMS`), or read it from that file."""
        if name == "detect":
            return cls.detect()
        if name == "unlike-cpus":
            return cls.unlike_cpus()
        return cls.from_file(name)

    @classmethod
    def detect(cls) -> Platform:
        """Return the platform of this machine.

        It offers each core alone, all cores together, and between them the groups of cores that share
        a last-level cache or a NUMA node; and each NVIDIA GPU, as devices that are streams of it.
        Where there are cores enough, one for each GPU is left to the thread that feeds it.
        """
        from .targets import gpu_target, host_target

        target, gpus, cores = host_target(), find_gpus(), usable_cores()
        if len(cores) >= _LEAST_CORES + len(gpus):
            cores = cores[: len(cores) - len(gpus)]
        groups = core_groups(cores)
        devices = [
            Device(group_name(cores), target, f"cpu:{index}", cores)
            for index, cores in enumerate(groups)
        ]
        for number, gpu in enumerate(gpus):
            devices += [
                Device(f"gpu{number}.{stream}", gpu_target(gpu), f"cuda:{number}")
                for stream in range(_STREAMS_PER_GPU)
            ]
        return cls(tuple(devices))

    @classmethod
    def of_targets(cls, targets: Sequence[str]) -> Platform:
        """Return a platform of these targets; the n-th CPU target owns the n-th core of this machine.

        Raises
        ------
        PlatformError
            If a target does not parse, or there is none of a CPU.
        """
        cores = usable_cores()
        entries: list[dict[str, Any]] = []
        num_cpus = 0
        for number, target in enumerate(targets):
            parsed = parse_target(target, f"--target {target!r}") if target not in _NAMED else target
            entry: dict[str, Any] = {"name": f"device{number}", "target": parsed}
            if target in _NAMED or json.loads(parsed)["kind"] in _CPU_KINDS:
                entry["cores"] = [cores[num_cpus % len(cores)]]
                num_cpus += 1
            entries.append(entry)
        return cls.from_json({"device": entries}, "--target")

    @classmethod
    def unlike_cpus(cls) -> Platform:
        """Return two unlike CPU devices of this machine.

        One core has all its instruction sets, the other is held to the baseline of its architecture.
        On a machine of one core they take turns.
        """
        from .targets import baseline_target, host_target

        cores = usable_cores()
        return cls(
            (
                Device("native", host_target(), "cpu:0", (cores[0],)),
                Device("baseline", baseline_target(), "cpu:0", (cores[min(1, len(cores) - 1)],)),
            )
        )


def _device_from_json(entry: Mapping[str, Any], source: str) -> Device:
    _check_keys(entry, _DEVICE_KEYS, ("name", "target"), f"a device of {source}")
    from .targets import check_target, default_runtime, named_target

    where = f"target of device {entry['name']!r}"
    target = named_target(entry["target"]) or parse_target(entry["target"], where)
    check_target(target, where)
    runtime = entry.get("runtime") or default_runtime(target)
    cores = _ints(entry, "cores")
    limits = {
        key: _number(entry, key, source, int if key == "memory_bytes" else float)
        for key in ("memory_bytes", "peak_gflop_per_s", "peak_gb_per_s")
        if key in entry
    }
    return Device(
        str(entry["name"]),
        target,
        str(runtime),
        cores,
        **limits,
        rpc_key=entry.get("rpc_key"),
        cache_bytes=_ints(entry, "cache_bytes") if "cache_bytes" in entry else None,
    )


def _ints(entry: Mapping[str, Any], key: str) -> tuple[int, ...]:
    values = entry.get(key, ())
    if not isinstance(values, (list, tuple)) or not all(type(value) is int for value in values):
        raise PlatformError(
            f"Expected {key} of device {entry['name']!r} as a list of ints; got {values!r}."
        )
    return tuple(values)


def _check_keys(entry: object, known: tuple[str, ...], needed: tuple[str, ...], where: str) -> None:
    if not isinstance(entry, Mapping):
        raise PlatformError(f"Expected a table for {where}; got {entry!r}.")
    for key in entry:
        if key not in known:
            raise PlatformError(known_choices(f"key of {where}:", key, known))
    for key in needed:
        if key not in entry:
            raise PlatformError(f"Expected key {key!r} in {where}; got {', '.join(entry) or 'none'}.")


def _number(entry: Mapping[str, Any], key: str, source: str, kind: type) -> Any:
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PlatformError(f"Expected a number for {key!r} in {source}; got {value!r}.")
    return kind(value)
