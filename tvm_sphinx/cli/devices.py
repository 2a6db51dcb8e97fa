"""``tvm-sphinx devices``: the devices of a platform, and a file of them to begin one's own with."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from ..platform import NAMED_PLATFORMS
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
            "Print the devices that tasks can be placed on. Devices that share cores exclude each\n"
            "other in time, so that one kernel per core and all cores on one kernel compete."
        ),
        epilog=(
            "examples:\n"
            "  tvm-sphinx devices\n"
            "  tvm-sphinx devices --platform unlike-cpus --json\n"
            "  tvm-sphinx devices -o platform.toml        a file to change, for compile --platform"
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
    parser.add_argument("-o", "--output", metavar="OUT.toml", help="write them as a platform file")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    check_writable(args.output)
    from .compile import chosen_platform

    platform = chosen_platform(args)
    if args.output:
        write_text(args.output, platform_toml(platform))
    if args.json:
        print_json(platform.to_json())
        return 0
    print(format_devices(platform))
    if args.output:
        print(f"wrote                {args.output}")
    return 0


def format_devices(platform: Platform) -> str:
    """Return a table with a line for each device."""
    rows = [("device", "runs on", "target", "memory", "shares cores with")]
    for device in platform.devices:
        config = device.target_config
        processor = config.get("mcpu") or config.get("arch")
        host = " (host)" if device.name == platform.host else ""
        sharing = [other.name for other in platform.devices if _share(device, other)]
        cores = f"{'cores' if len(device.cores) > 1 else 'core'} {', '.join(map(str, device.cores))}"
        remote = f" of {device.rpc_key}" if device.rpc_key else ""
        rows.append(
            (
                device.name + host,
                (cores if device.is_cpu else device.runtime) + remote,
                " ".join(filter(None, (config["kind"], processor))),
                format_bytes(device.memory_bytes) if device.memory_bytes is not None else "no limit",
                ", ".join(sharing) or "none",
            )
        )
    return format_table(rows)


def _share(one: Device, other: Device) -> bool:
    same_machine = one.rpc_key == other.rpc_key
    return one is not other and same_machine and bool(set(one.cores) & set(other.cores))


def platform_toml(platform: Platform) -> str:
    """Return a platform as the text of a file that `tvm_sphinx.platform.read_platform` reads."""
    content = platform.to_json()
    lines = [f"host = {_toml(content['host'])}"]
    for table in ("device", "link"):
        for entry in content[table]:
            lines += ["", f"[[{table}]]", *(f"{key} = {_toml(value)}" for key, value in entry.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items())
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)  # strings, numbers, true and false are alike in both
