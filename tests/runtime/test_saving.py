"""One file holds an executable; a file that is not as it was written is refused before it is used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.modules import (
    assert_same,
    build,
    flat,
    one_after_another,
    placed,
    platforms,
    random_inputs,
    random_module,
)
from tvm_sphinx.errors import ArtifactError, PlatformError, UnsupportedError
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import host_target
from tvm_sphinx.runtime import executable as executable_module
from tvm_sphinx.runtime.artifact import read_artifact, write_artifact
from tvm_sphinx.runtime.build import build_image
from tvm_sphinx.runtime.executable import ConcurrentExecutable


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray], list[np.ndarray]]:
    executable = build(random_module(7, 20), platforms()["sharing"], 3)
    inputs = random_inputs(executable)
    path = tmp_path_factory.mktemp("saved") / "model.sphinx"
    executable.save(path)
    return path, inputs, one_after_another(executable, inputs)


def test_loaded_executable_gives_the_same_bits(saved: tuple) -> None:
    path, inputs, expected = saved
    loaded = ConcurrentExecutable.load(path)
    assert_same(flat(loaded.run(inputs)), expected)
    assert loaded.schedule is not None
    assert loaded.schedule.makespan_ns > 0
    assert [device.name for device in loaded.platform.devices] == ["one", "two", "both"]


def test_fresh_process_loads_and_runs_it(saved: tuple, tmp_path: Path) -> None:
    path, inputs, expected = saved
    np.savez(tmp_path / "inputs.npz", *inputs)
    code = (
        "import sys, numpy as np\n"
        "from tvm_sphinx.runtime.executable import ConcurrentExecutable\n"
        "inputs = list(np.load(sys.argv[2]).values())\n"
        "def flat(r):\n"
        "    return [a for i in r for a in flat(i)] if isinstance(r, tuple) else [np.from_dlpack(r)]\n"
        "np.savez(sys.argv[3], *flat(ConcurrentExecutable.load(sys.argv[1]).run(inputs)))\n"
    )
    files = [str(path), str(tmp_path / "inputs.npz"), str(tmp_path / "results.npz")]
    subprocess.run([sys.executable, "-c", code, *files], check=True, timeout=120)
    assert_same(list(np.load(files[2]).values()), expected)


def test_saving_again_gives_an_equal_executable(saved: tuple, tmp_path: Path) -> None:
    path, inputs, expected = saved
    ConcurrentExecutable.load(path).save(tmp_path / "again.sphinx")
    assert_same(flat(ConcurrentExecutable.load(tmp_path / "again.sphinx").run(inputs)), expected)


def test_file_has_no_pickle_and_is_not_compressed(saved: tuple) -> None:
    with zipfile.ZipFile(saved[0]) as archive:
        assert sorted(archive.namelist()) == ["kernels.so", "manifest.json", "weights.bin"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_no_altered_or_truncated_file_gets_loaded(
    saved: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever byte is changed: the file is refused with its name, or the change touched nothing."""
    path = saved[0]
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    changed = [content[: int(cut)] for cut in rng.integers(0, len(content), 40)]
    for position in rng.integers(0, len(content), 200):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(rng.integers(0, 8))
        changed.append(bytes(flipped))
    original = read_artifact(path)
    messages = []
    for number, altered in enumerate(changed):
        target = tmp_path / f"altered{number}.sphinx"
        target.write_bytes(altered)
        try:
            read = read_artifact(target)
        except ArtifactError as error:
            messages.append((target.name, str(error)))
        else:
            assert read == original
        target.unlink()
    assert all(name in message for name, message in messages)
    assert len(messages) > 0.9 * len(changed)

    loaded = []
    monkeypatch.setattr(executable_module, "load_kernels", lambda library: loaded.append(library))
    target = tmp_path / "cut.sphinx"
    target.write_bytes(content[:-100])
    with pytest.raises(ArtifactError, match=r"cut\.sphinx"):
        ConcurrentExecutable.load(target)
    assert not loaded


def bend(manifest: dict, path: tuple[object, ...], value: object) -> dict:
    bent = json.loads(json.dumps(manifest))
    inner = bent
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return bent


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), 99, "version 3"),
        (("form",), "other", "tvm-sphinx lanes"),
        (("packages", "apache-tvm"), "0.1.0", r"written with apache-tvm 0\.1\.0"),
        (("program",), None, "program"),
        (("program", "steps", 0, "device"), 77, "device that the platform lacks"),
        (("program", "steps", 0, "operands"), [10**6], "holds together"),
        (("program", "tensors", 0, "buffer"), -1, "holds together"),
        (("platform", "device"), [], "at least one device"),
        (("schedule", "device"), "x", "Expected device of shape"),
    ],
)
def test_manifest_that_does_not_hold_together_is_refused(
    saved: tuple, tmp_path: Path, path: tuple[object, ...], value: object, message: str
) -> None:
    manifest, members = read_artifact(saved[0])
    target = tmp_path / "bent.sphinx"
    write_artifact(target, bend(manifest, path, value), members)
    with pytest.raises(ArtifactError, match=message) as caught:
        ConcurrentExecutable.load(target)
    assert "bent.sphinx" in str(caught.value)


def test_weights_that_are_too_short_are_refused(saved: tuple, tmp_path: Path) -> None:
    manifest, members = read_artifact(saved[0])
    target = tmp_path / "short.sphinx"
    write_artifact(target, manifest, {**members, "weights.bin": b""})
    with pytest.raises(ArtifactError, match=r"weights\.bin is shorter"):
        ConcurrentExecutable.load(target)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere\.sphinx"):
        ConcurrentExecutable.load(tmp_path / "nowhere.sphinx")


def test_nothing_is_left_behind(saved: tuple, tmp_path: Path) -> None:
    path, _, _ = saved
    before = set(os.listdir(path.parent))
    ConcurrentExecutable.load(path).save(path.parent / "second.sphinx")
    assert set(os.listdir(path.parent)) == before | {"second.sphinx"}


def test_image_for_another_machine_is_saved_and_refused_here(tmp_path: Path) -> None:
    """A machine with other cores and another processor than this one can be compiled for."""
    has_sse4a = "sse4a" in Path("/proc/cpuinfo").read_text()  # AMD's own, in every Zen
    foreign = "sapphirerapids" if has_sse4a else "znver4"
    foreign = "neoverse-v2" if "aarch64" in host_target() else foreign
    target = json.dumps({**json.loads(host_target()), "mcpu": foreign})
    platform = Platform(
        (
            Device("far", target, "cpu:0", tuple(range(4000, 4001 + len(usable_cores())))),
            Device("farther", target, "cpu:0", (4001,)),
        )
    )
    _, schedule, annotated = placed(random_module(2), platform, 1)
    build_image(annotated, platform, schedule).save(tmp_path / "far.sphinx")
    with pytest.raises(PlatformError, match=r"core 40\d\d cannot be used, which this machine lacks"):
        ConcurrentExecutable.load(tmp_path / "far.sphinx")
    with pytest.raises(PlatformError, match=f"is built for {foreign}, which has"):
        ConcurrentExecutable.load(tmp_path / "far.sphinx", bind_cores=False)


def test_missing_linker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnsupportedError, match="none of gcc, cc, clang is found"):
        build(random_module(1), platforms()["unlike"])


def test_kernels_are_compiled_for_their_own_device(tmp_path: Path) -> None:
    """TVM builds the host functions of one module for one processor; ours are built by target."""
    executable = build(random_module(4, 16), platforms()["unlike"], 5)
    library = tmp_path / "kernels.so"
    library.write_bytes(executable.image.library)
    listing = subprocess.run(
        ["objdump", "-d", library], capture_output=True, text=True, check=True
    ).stdout
    by_function: dict[str, str] = {}
    for block in re.split(r"\n\n", listing):
        if found := re.match(r"[0-9a-f]+ <(\w+)>:", block):
            by_function[found[1]] = block
    # A kernel's name in the program stands for that of its code, which lies at the same address.
    names = subprocess.run(["nm", library], capture_output=True, text=True, check=True).stdout
    at = {
        name: address
        for address, _, name in (line.split() for line in names.splitlines() if line[0] != " ")
    }
    meant = {at[name] for name in at if name.startswith("__tvm_ffi_") and name.endswith("_two")}
    codes = [name.removeprefix("__tvm_ffi_") for name in at if at[name] in meant and "kernel_" in name]
    ours = [name for name in by_function if any(code in name for code in codes)]
    assert ours
    assert not [name for name in ours if re.search(r"%[yz]mm", by_function[name])]
