"""Cost classes and pairs of them, as records name them: with their machine. [TVM]"""

from __future__ import annotations

from ...platform import Device
from ...platform.gpus import find_gpu
from ...platform.machine import machine_id
from ...platform.targets import runtime_device
from .store import DeviceClass


def class_of(device: Device) -> DeviceClass:
    """Return the cost class of a device (`tvm_sphinx.platform.device.CostClass`) and its machine.

    A remote device is of the machines that its RPC key stands for, without asking one of them.
    """
    known = device.cost_class
    return DeviceClass(known.target, known.place, known.cores, _machine(device))


def class_of_pair(src: Device, dst: Device) -> DeviceClass:
    """Return what pairs of devices have in common whose copies and hand-overs take equally long."""
    first, second = class_of(src), class_of(dst)
    shared = bool(set(src.cores) & set(dst.cores))
    joint = "one machine" if first.machine == second.machine else f"{first.machine} -> {second.machine}"
    return DeviceClass(
        f"{src.target} -> {dst.target}",
        f"{first.device} -> {second.device}{' that share cores' if shared else ''}",
        len(set(src.cores) | set(dst.cores)),
        first.machine if joint == "one machine" else joint,
    )


def card_of(device: Device) -> str | None:
    """Return the name of a device's GPU: that at hand, else the one that the platform names."""
    if device.rpc_key is not None or not device.runtime.startswith("cuda:"):
        return None
    gpu = find_gpu(device.runtime)
    return gpu.name if gpu else device.card


def _machine(device: Device) -> str:
    if device.rpc_key is not None:
        return f"RPC key {device.rpc_key}"
    if device.is_cpu:
        return machine_id()
    if device.runtime.startswith("cuda:"):
        # What a kernel takes does not depend on the machine around the card.
        return card_of(device) or "absent"
    runtime = runtime_device(device.runtime)
    return f"{runtime.device_name if runtime.exist else 'absent'} in {machine_id()}"
