"""``tvm-sphinx devices``: what this machine can run a model on, and how fast that is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..platform import NAMED_PLATFORMS
from ..platform.core_kinds import CoreKind, find_kinds
from ..platform.limits import read_limits
from ..platform.machine import allowed_cores, list_text, machine_id
from ..platform.platform_text import platform_text
from ..platform.slow_cores import slow_cores
from ..platform.topology import Core, read_cores
from ..report.files import check_writable, write_text
from ..report.text import format_bytes, format_table
from .output import add_json_argument, print_json
from .targets import add_target_options

if TYPE_CHECKING:
    from ..platform import Device, Platform


def add_parser(subparsers: Any, help_line: str) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "devices",
        help=help_line,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Print the kinds of core of this machine, what each reaches, and the groups of cores and\n"
            "the GPUs that a model is scheduled over. What cores reach is measured once, in some\n"
            "tenths of a second, and kept. Of another --platform, or of targets, print its devices."
        ),
        epilog=(
            "examples:\n"
            "  tvm-sphinx devices\n"
            "  tvm-sphinx devices -o platform.toml     edit it, then: compile --platform platform.toml\n"
            "  tvm-sphinx devices --probe --json > devices.json\n"
            "  tvm-sphinx devices --platform unlike-cpus"
        ),
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--platform",
        default="detect",
        help=f"a platform file (TOML), or one of {', '.join(NAMED_PLATFORMS)}; default: detect",
    )
    place.add_argument("--target", action="append", help="a TVM target, as for compile; repeat it")
    add_target_options(parser)
    parser.add_argument("-o", "--output", metavar="FILE.toml", help="write the platform file")
    parser.add_argument(
        "--probe", action="store_true", help="measure the cores anew, although they are on record"
    )
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    check_writable(args.output)
    from .compile import chosen_platform

    of_machine = args.platform == "detect" and not args.target
    cores = read_cores() if of_machine else ()
    kinds = find_kinds(cores, again=args.probe)
    platform = chosen_platform(args)
    if args.output:
        write_text(args.output, platform_text(platform))
    if args.json:
        print_json(collect(cores, kinds, platform) if of_machine else platform.to_json())
        return 0
    lines = _lines(collect(cores, kinds, platform)) if of_machine else [format_devices(platform)]
    print("\n".join(lines))
    if args.output:
        print(f"\nwrote {args.output}")
    return 0


def collect(cores: Sequence[Core], kinds: Sequence[CoreKind], platform: Platform) -> dict[str, Any]:
    """Return what is told of a machine, JSON-serialisable."""
    limits = read_limits()
    by_number = {core.number: core for core in cores}
    return {
        "machine": machine_id(),
        "allowed": list(allowed_cores()),
        "quota": limits.quota,
        "cpuset": limits.cpuset,
        "slowed": {str(core): factor for core, factor in slow_cores().items()},
        "kinds": [_kind(kind, by_number[kind.cores[0]]) for kind in kinds],
        "sockets": len({core.socket for core in cores}),
        "nodes": len({core.node for core in cores}),
        "cache_domains": len({core.domain for core in cores}),
        "devices": [
            {
                "name": device.name,
                "runtime": device.runtime,
                "class": device.cost_class.place,
                "cores": list(device.cores),
                "speeds": list(device.core_speeds),
                "memory_speeds": list(device.core_memory_speeds),
            }
            for device in platform.devices
        ],
    }


def _kind(kind: CoreKind, core: Core) -> dict[str, Any]:
    return {
        "name": kind.name,
        "cores": list(kind.cores),
        "speed": kind.speed,
        "memory_speed": kind.memory_speed,
        "cache_bytes": list(core.cache_bytes),
        "max_mhz": core.max_mhz,
        "capacity": core.capacity,
        "make": core.make,
        "threads": len(core.siblings),
    }


def _lines(told: dict[str, Any]) -> Iterator[str]:
    yield f"machine   {told['machine']}"
    allowed = list_text(told["allowed"])
    yield f"allowed   processors {allowed}"
    if told["cpuset"] is not None:
        yield f"cpuset    processors {list_text(told['cpuset'])}"
    if told["quota"] is not None:
        yield f"quota     the time of {told['quota']:g} processors: no more cores than that are used"
    yield (
        f"layout    {told['sockets']} socket(s), {told['nodes']} NUMA node(s), "
        f"{told['cache_domains']} last-level cache(s)\n"
    )
    rows = [("kind", "cores", "computes", "reads memory", "caches", "rated", "told as")]
    for kind in told["kinds"]:
        rated = f"{kind['max_mhz'] / 1000:.2f} GHz" if kind["max_mhz"] else "-"
        rows.append(
            (
                kind["name"] or "all equal",
                list_text(kind["cores"]),
                f"{kind['speed']:.2f}",
                f"{kind['memory_speed']:.2f}",
                " / ".join(map(format_bytes, kind["cache_bytes"])),
                rated,
                kind["make"] or (f"capacity {kind['capacity']}" if kind["capacity"] else "-"),
            )
        )
    yield format_table(rows)
    yield ""
    by_class: dict[str, list[str]] = {}
    for device in told["devices"]:
        by_class.setdefault(device["class"], []).append(device["name"])
    yield format_table(
        [
            ("devices of", "number", "names"),
            *((place, str(len(names)), _shortened(names)) for place, names in by_class.items()),
        ]
    )


def _shortened(names: Sequence[str]) -> str:
    shown = list(names) if len(names) <= 6 else [*names[:4], "...", names[-1]]
    return ", ".join(shown)


def format_target(device: Device) -> str:
    """Return the kind of a device's target and its processor: ``"llvm znver4"``."""
    config = device.target_config
    return " ".join(filter(None, (config["kind"], config.get("mcpu") or config.get("arch"))))


def format_devices(platform: Platform) -> str:
    """Return a table with a line for each device."""
    rows = [("device", "runs on", "target", "memory", "shares cores with")]
    for device in platform.devices:
        host = " (host)" if device.name == platform.host else ""
        sharing = [other.name for other in platform.devices if _share(device, other)]
        cores = f"{'cores' if len(device.cores) > 1 else 'core'} {', '.join(map(str, device.cores))}"
        remote = f" of {device.rpc_key}" if device.rpc_key else ""
        rows.append(
            (
                device.name + host,
                (cores if device.is_cpu else device.runtime) + remote,
                format_target(device),
                format_bytes(device.memory_bytes) if device.memory_bytes is not None else "no limit",
                ", ".join(sharing) or "none",
            )
        )
    return format_table(rows)


def _share(one: Device, other: Device) -> bool:
    same_machine = one.rpc_key == other.rpc_key
    return one is not other and same_machine and bool(set(one.cores) & set(other.cores))
