"""Runs the tests marked ``gpu`` on the fake GPU, or with ``--gpu real`` on a card.

They run in a pytest process of their own, one by one as their turn comes: the fake has to be there
before TVM is imported, the other tests must not see a GPU, and an error of a GPU ends its use, sometimes
the process. After a test that fails or dies, the others go on in a new process.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gpu import fake
from tests.processes import module_command

_PIPES = "TVM_SPHINX_GPU_TEST_PIPES"
_IS_CHILD = _PIPES in os.environ
# What the child is asked by, and what it answers by.
_asked: Any = None
_answers: Any = None
_driver: Any = None
_child: pytest.StashKey[_Child] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu",
        choices=("fake", "real"),
        default="fake",
        help="what the tests marked gpu run on: the fake GPU, or this machine's card",
    )


def pytest_configure(config: pytest.Config) -> None:
    global _driver, _asked, _answers
    config.addinivalue_line("markers", "gpu: needs a GPU; runs on the fake one, or with --gpu real")
    if not _IS_CHILD:
        return
    numbers = [int(number) for number in os.environ[_PIPES].split()]
    for number in numbers:  # a process that outlives this one must not keep them open
        os.set_inheritable(number, False)
    _asked, _answers = os.fdopen(numbers[0]), os.fdopen(numbers[1], "w", buffering=1)
    if config.getoption("--gpu") == "fake":
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
    for report in _reports_of(item, nextitem):
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    # What earlier tests have set up ends here as after any other test.
    item.session._setupstate.teardown_exact(nextitem)
    return True


def _reports_of(item: pytest.Item, nextitem: pytest.Item | None) -> list[Any]:
    """Return the reports of one item, run by a child that runs the next one too if it is marked."""
    config, stash = item.config, item.session.stash
    reason = _why_not(config)
    if reason is not None:
        return [_report(item, "skipped", (item.location[0], item.location[1], f"Skipped: {reason}"))]
    if _child not in stash:
        marked = [one.nodeid for one in item.session.items if one.get_closest_marker("gpu")]
        stash[_child] = _Child(config, marked)
    goes_on = nextitem is not None and nextitem.get_closest_marker("gpu") is not None
    reports = stash[_child].run(item, nextitem if goes_on else None)
    if not goes_on or stash[_child].has_ended:
        stash[_child].close()
        del stash[_child]
    return reports


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


class _Child:
    """A pytest process that knows some tests, and runs each that it is asked for."""

    def __init__(self, config: pytest.Config, names: list[str]) -> None:
        self._config, self.has_ended = config, False
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the process
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--gpu", config.getoption("--gpu")]
        options.append(f"--import-mode={config.getoption('importmode')}")
        asked, ask = os.pipe()
        answers, answer = os.pipe()
        pipes = {_PIPES: f"{asked} {answer}", "TVM_FFI_DISABLE_TORCH_C_DLPACK": "1"}
        self._process = subprocess.Popen(
            module_command("pytest", *options, *names),
            cwd=config.rootpath,
            env={**os.environ, **pipes},
            stdout=self._output,
            stderr=subprocess.STDOUT,
            pass_fds=(asked, answer),
        )
        os.close(asked)
        os.close(answer)
        self._ask, self._answers = os.fdopen(ask, "w", buffering=1), os.fdopen(answers)
        if not self._answers.readline():
            self.close()
            self._output.seek(0)
            said = self._output.read().decode(errors="replace")[-4000:]
            raise RuntimeError(f"The tests marked gpu did not start:\n{said}")

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> list[Any]:
        """Return the reports of a test; ``nextitem`` is what comes after it, or None."""
        print(json.dumps([item.nodeid, nextitem and nextitem.nodeid]), file=self._ask)
        reports = []
        for line in self._answers:
            told = json.loads(line)
            if told is None:
                return reports
            hook = self._config.hook
            reports.append(hook.pytest_report_from_serializable(config=self._config, data=told))
        self.has_ended = True
        if not any(report.failed for report in reports):
            status = self._process.wait()
            text = f"the process of the tests marked gpu ended with {status} in this test"
            reports.append(_report(item, "failed", text))
        return reports

    def close(self) -> None:
        """End the process."""
        self._ask.close()
        self._process.wait()
        self._answers.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if not _IS_CHILD or session.testsfailed:
        return None
    items = {item.nodeid: item for item in session.items}
    _answer("ready")
    for line in _asked:
        name, following = json.loads(line)
        item = items[name]
        item.ihook.pytest_runtest_protocol(item=item, nextitem=items.get(following))
        _answer(None)
    return True


def _answer(what: Any) -> None:
    _answers.write(json.dumps(what) + "\n")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if _IS_CHILD:
        _answer(_serialized(report))


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
