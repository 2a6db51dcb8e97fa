"""Platforms: the devices that a model can be spread over, and the links between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import PlatformError, known_choices
from .device import CORE_KEYS
from .device import Device as Device
from .device import Link as Link
from .machine import allowed_cores, why_not_allowed
from .target_text import default_runtime, parse_target

#: Platforms that `tvm_sphinx.platform.load_platform` makes for the machine at hand.
NAMED_PLATFORMS = ("detect", "unlike-cpus")

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
    *CORE_KEYS,
    "card",
)
_OPTIONAL_KEYS = (
    "memory_bytes",
    "peak_gflop_per_s",
    "peak_gb_per_s",
    "rpc_key",
    "cache_bytes",
    "card",
)
_LINK_KEYS = ("src", "dst", "latency_ns", "bandwidth_bytes_per_s")


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return f"<Platform of {', '.join(map(repr, self.devices))}, host {self.host!r}>"

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

    def without(self, names: Sequence[str]) -> Platform:
        """Return the platform without these devices; if the host goes, the next CPU is it.

        Raises
        ------
        PlatformError
            If there is no device of such a name, or no CPU device is left.
        """
        gone = {self.device(name).name for name in names}
        kept = tuple(device for device in self.devices if device.name not in gone)
        if not any(device.is_cpu for device in kept):
            raise PlatformError(
                f"Expected to keep a CPU device, which holds inputs and outputs; without "
                f"{', '.join(sorted(gone))} there is none."
            )
        links = tuple(link for link in self.links if not {link.src, link.dst} & gone)
        return Platform(kept, "" if self.host in gone else self.host, links)

    def with_memory(self, limits: Mapping[str, int]) -> Platform:
        """Return the platform with these capacities in bytes, by the names of devices.

        Raises
        ------
        PlatformError
            If there is no device of such a name.
        """
        for name in limits:
            self.device(name)
        devices = (
            replace(d, memory_bytes=limits[d.name]) if d.name in limits else d for d in self.devices
        )
        return replace(self, devices=tuple(devices))

    def check_machine(self) -> None:
        """Check that this process may use every core that the platform names, but for remote devices.

        Raises
        ------
        PlatformError
            With the first device that claims another core, what leaves it out, and the cores that may be
            used.
        """
        present = allowed_cores()
        for device in self.devices:
            missing = sorted(set(device.cores) - set(present))
            if missing and device.rpc_key is None:
                raise PlatformError(
                    f"Device {device.name!r} claims core {missing[0]}, {why_not_allowed(missing[0])}; "
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
            for key in _OPTIONAL_KEYS:
                if getattr(device, key) is not None:
                    entry[key] = getattr(device, key)
            for key in CORE_KEYS:
                if getattr(device, key):
                    entry[key] = list(getattr(device, key))
            devices.append(entry)
        links = [{key: getattr(link, key) for key in _LINK_KEYS} for link in self.links]
        return {"host": self.host, "device": devices, "link": links}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], source: str = "platform") -> Platform:
        """Make a platform from what `to_json` returned; ``source`` names it in messages.

        Whether TVM knows the targets is not asked here, see `tvm_sphinx.platform.targets.check_targets`.

        Raises
        ------
        PlatformError
            If a key is unknown or missing, a value is of the wrong type, or a target has no such form.
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


def _device_from_json(entry: Mapping[str, Any], source: str) -> Device:
    _check_keys(entry, _DEVICE_KEYS, ("name", "target"), f"a device of {source}")
    target = parse_target(entry["target"], f"target of device {entry['name']!r}")
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
        core_kinds=_list(entry, "core_kinds", (str,), "names"),
        core_speeds=_list(entry, "core_speeds", (int, float), "numbers"),
        core_memory_speeds=_list(entry, "core_memory_speeds", (int, float), "numbers"),
        card=entry.get("card"),
    )


def _ints(entry: Mapping[str, Any], key: str) -> tuple[int, ...]:
    return _list(entry, key, (int,), "ints")


def _list(entry: Mapping[str, Any], key: str, types: tuple[type, ...], what: str) -> tuple[Any, ...]:
    values = entry.get(key, ())
    if not isinstance(values, (list, tuple)) or not all(type(value) in types for value in values):
        raise PlatformError(
            f"Expected {key} of device {entry['name']!r} as a list of {what}; got {values!r}."
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
