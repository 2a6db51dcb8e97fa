"""Whether a machine has the instructions that kernels use, asked of Linux before LLVM is loaded."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tvm_sphinx.errors import PlatformError
from tvm_sphinx.platform import Device, targets
from tvm_sphinx.platform.targets import baseline_target, host_target
from tvm_sphinx.runtime import processor as processors
from tvm_sphinx.runtime.kernels import device_processor
from tvm_sphinx.runtime.processor import Processor, check_processor


def of_target(target: str) -> Processor:
    found = device_processor(Device("one", target, "cpu:0", (0,)))
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["host", "baseline"])
def test_linux_knows_what_this_machine_has(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each run would load the compiler to ask LLVM."""
    wanted = of_target(host_target() if kind == "host" else baseline_target())
    _, known = processors._host_of_llvm()
    has = tuple(name for name in wanted.instructions if known.get(name))
    assert has
    monkeypatch.setattr(processors, "_host_of_llvm", lambda: pytest.fail("LLVM was asked"))
    check_processor("one", dataclasses.replace(wanted, instructions=has))


def test_what_llvm_does_not_know_either_is_no_reason_to_refuse() -> None:
    wanted = of_target(host_target())
    check_processor("one", dataclasses.replace(wanted, instructions=("avx-of-tomorrow",)))


def test_another_architecture_is_named() -> None:
    with pytest.raises(PlatformError, match="Device 'one' is riscv64; this machine is"):
        check_processor("one", Processor("any", "riscv64", ()))


def test_what_a_virtual_machine_hides_is_not_in_the_host_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor's name stands for instructions that its virtual machines may lack."""
    features = dict.fromkeys(of_target(host_target()).instructions, True)
    hidden = sorted(name for name in features if name.startswith(("avx", "fma", "neon")))
    assert hidden
    monkeypatch.setattr(targets, "_host_features", lambda: {**features, **dict.fromkeys(hidden, False)})
    target = host_target()
    assert json.loads(target)["mattr"] == [f"-{name}" for name in hidden]
    assert not set(hidden) & set(of_target(target).instructions)


def test_a_name_with_all_it_stands_for_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    features = dict.fromkeys(of_target(host_target()).instructions, True)
    monkeypatch.setattr(targets, "_host_features", lambda: features)
    assert "mattr" not in json.loads(host_target())


def test_what_no_kernel_uses_is_not_asked_for() -> None:
    """Clouds hide amx from processors that have it, and LLVM does not emit it."""
    rapids = of_target('{"kind": "llvm", "mcpu": "sapphirerapids", "mtriple": "x86_64-linux-gnu"}')
    assert "avx512f" in rapids.instructions
    assert not any(name.startswith("amx") for name in rapids.instructions)
