"""Runs the tests marked ``gpu`` on the fake GPU, or with ``--gpu real`` on a card.

They run together in a pytest process of their own: the fake has to be there before TVM is imported, the
other tests must not see a GPU, and an error of a GPU ends its use, sometimes the process. After a test
that fails or dies, the others go on in a new process.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import fake
from tests.processes import module_command

_REPORTS = "TVM_SPHINX_GPU_TEST_REPORTS"
_IS_CHILD = _REPORTS in os.environ
_driver: Any = None
_found: pytest.StashKey[dict[str, list[Any]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu",
        choices=("fake", "real"),
        default="fake",
        help="what the tests marked gpu run on: the fake GPU, or this machine's card",
    )


def pytest_configure(config: pytest.Config) -> None:
    global _driver
    config.addinivalue_line("markers", "gpu: needs a GPU; runs on the fake one, or with --gpu real")
    if _IS_CHILD and config.getoption("--gpu") == "fake":
        _driver = fake.load()


def pytest_collection_finish(session: pytest.Session) -> None:
    if _IS_CHILD and _driver is not None and "tvm" in sys.modules:
        fake.install()


@pytest.fixture(autouse=True)
def _no_report_of_the_fake(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that the fake GPU has something to say about."""
    yield
    if _driver is not None and request.node.get_closest_marker("gpu"):
        found = fake.reports(_driver)
        assert not found, "\n".join(found)


@pytest.fixture
def fake_gpu() -> Any:
    """The fake driver; a test that asks for it is skipped on a card."""
    if _driver is None:
        pytest.skip("asks the fake GPU what it has seen")
    return _driver


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if _IS_CHILD or item.get_closest_marker("gpu") is None:
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports_of(item):
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    # What earlier tests have set up ends here as after any other test.
    item.session._setupstate.teardown_exact(nextitem)
    return True


def _reports_of(item: pytest.Item) -> list[Any]:
    """Return the reports of one item; where there are none yet, run it and all that come after it.

    A worker of xdist may take items from another that come before those that it has run.
    """
    config, stash = item.config, item.session.stash
    reason = _why_not(config)
    if reason is not None:
        return [_report(item, "skipped", (item.location[0], item.location[1], f"Skipped: {reason}"))]
    found = stash.setdefault(_found, {})
    if item.nodeid not in found:
        marked = [one for one in item.session.items if one.get_closest_marker("gpu")]
        after = marked[marked.index(item) :]
        _run(config, [one for one in after if one.nodeid not in found], found)
    return found[item.nodeid]


def _why_not(config: pytest.Config) -> str | None:
    if config.getoption("--gpu") == "fake":
        return fake.why_unavailable()
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"--gpu real needs NVIDIA's driver: {error}"
    return None


def _report(item: pytest.Item, outcome: Any, text: Any) -> pytest.TestReport:
    return pytest.TestReport(item.nodeid, item.location, {}, outcome, text, "call")


def _run(config: pytest.Config, items: list[pytest.Item], found: dict[str, list[Any]]) -> None:
    """Run items in processes of their own, a new one after each that ended one."""
    while items:
        status, reports = _run_once(config, [item.nodeid for item in items])
        for report in reports:
            found.setdefault(report.nodeid, []).append(report)
        done = {report.nodeid for report in reports if report.when == "teardown"}
        first = next((item for item in items if item.nodeid not in done), None)
        failed = any(report.failed for report in reports)
        if first is not None and not (failed and first.nodeid not in found):
            # It has begun and not ended, or the process came to no test at all.
            text = f"the process of the tests marked gpu ended with {status} in this test"
            found.setdefault(first.nodeid, []).append(_report(first, "failed", text))
            done.add(first.nodeid)
        items = [item for item in items if item.nodeid not in done]


def _run_once(config: pytest.Config, names: list[str]) -> tuple[int, list[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "reports"
        place.touch()
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--gpu", config.getoption("--gpu")]
        options.append(f"--import-mode={config.getoption('importmode')}")
        done = subprocess.run(
            module_command("pytest", *options, *names),
            cwd=config.rootpath,
            env={**os.environ, _REPORTS: str(place), "TVM_FFI_DISABLE_TORCH_C_DLPACK": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = place.read_text().splitlines()
    hook = config.hook
    reports = [hook.pytest_report_from_serializable(config=config, data=json.loads(x)) for x in lines]
    if not reports:
        raise RuntimeError(f"The tests marked gpu did not start:\n{done.stdout[-4000:]}")
    return done.returncode, reports


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if not _IS_CHILD:
        return
    with open(os.environ[_REPORTS], "a") as file:
        file.write(json.dumps(_serialized(report)) + "\n")


def _serialized(report: pytest.TestReport) -> Any:
    from _pytest.reports import pytest_report_to_serializable

    return pytest_report_to_serializable(report)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish(nodeid: str) -> None:
    if _IS_CHILD and _failed:
        sys.stdout.flush()
        os._exit(70)


_failed: list[str] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        _failed.append(item.nodeid)
    return report
