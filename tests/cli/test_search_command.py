"""``tvm-sphinx search`` and ``tvm-sphinx check``."""

from __future__ import annotations

import argparse
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from tests.strategies import draw_problem
from tvm_sphinx.cli import check, search
from tvm_sphinx.errors import InvalidScheduleError, ProblemError, SphinxError
from tvm_sphinx.report.timeline import schedule_svg
from tvm_sphinx.scheduling.problem_file import read_problem, write_problem
from tvm_sphinx.scheduling.schedule import Schedule, validate
from tvm_sphinx.search import search_schedule
from tvm_sphinx.search.bounds import lower_bound_ns


def command(*argv: str) -> int:
    """Run a command line through the two modules as `tvm_sphinx.cli` registers them."""
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    for module in (search, check):
        module.add_parser(subparsers, "")
    args = parser.parse_args(argv)
    return int(args.run(args))


@pytest.fixture
def problem_path(tmp_path: Path) -> Path:
    path = tmp_path / "problem.json"
    write_problem(draw_problem(1, 20, special=True), path)
    return path


def test_search_writes_a_schedule_that_check_accepts(
    problem_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "schedule.json"
    assert (
        command("search", str(problem_path), "--seed", "3", "--max-evaluations", "2000", "-o", str(out))
        == 0
    )
    content = json.loads(out.read_text())
    assert set(content) == {
        "device", "start_ns", "finish_ns", "makespan_ns", "lower_bound_ns", "problem_fingerprint",
        "algorithm", "seed",
    }  # fmt: skip
    assert content["seed"] == 3
    validate(draw_problem(1, 20, special=True), Schedule.from_json(content))
    assert f"makespan_ns {content['makespan_ns']}" in capsys.readouterr().out
    assert command("check", str(problem_path), str(out)) == 0
    assert "valid  makespan_ns" in capsys.readouterr().out


def test_schedule_to_standard_output(problem_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("search", str(problem_path), "--algorithm", "heft", "-o", "-") == 0
    assert json.loads(capsys.readouterr().out)["algorithm"] == "heft"


def test_a_small_problem_without_a_budget_is_proven_optimal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem, out = draw_problem(7, 12, ccr=2.0), tmp_path / "schedule.json"
    write_problem(problem, tmp_path / "problem.json")
    assert command("search", str(tmp_path / "problem.json"), "-o", str(out)) == 0
    content = json.loads(out.read_text())
    assert content["lower_bound_ns"] == content["makespan_ns"]
    assert "gap 0.00%, proven optimal" in capsys.readouterr().out


def test_time_limit_is_kept(problem_path: Path) -> None:
    assert command("search", str(problem_path), "--time-limit", "0.1") == 0


def test_check_reports_every_broken_rule(
    problem_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "schedule.json"
    command("search", str(problem_path), "--max-evaluations", "100", "-o", str(out))
    content = json.loads(out.read_text())
    content["start_ns"][-1] -= 1
    content["makespan_ns"] += 5
    out.write_text(json.dumps(content))
    assert command("check", str(problem_path), str(out)) == 1
    printed = capsys.readouterr().err
    assert "takes" in printed
    assert "makespan_ns is" in printed


def test_check_reports_the_gap_to_a_bound_that_it_computed(
    problem_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "schedule.json"
    command("search", str(problem_path), "--algorithm", "heft", "-o", str(out))
    content = json.loads(out.read_text())
    makespan_ns, bound_ns = content["makespan_ns"], lower_bound_ns(read_problem(problem_path))
    assert content["lower_bound_ns"] < bound_ns < makespan_ns
    capsys.readouterr()
    for claimed_ns in (0, bound_ns, makespan_ns):
        out.write_text(json.dumps({**content, "lower_bound_ns": claimed_ns}))
        assert command("check", str(problem_path), str(out)) == 0
        printed = capsys.readouterr().out
        assert f"lower_bound_ns {bound_ns}  gap {makespan_ns / bound_ns - 1:.2%}" in printed
        assert ("check cannot verify" in printed) == (claimed_ns > bound_ns)
    out.write_text(json.dumps({**content, "lower_bound_ns": makespan_ns + 1}))
    assert command("check", str(problem_path), str(out)) == 1


def test_check_takes_the_schedule_of_another_tool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two files of the documents, which hold nothing but what is required."""
    text = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
    paths = [tmp_path / "problem.json", tmp_path / "schedule.json"]
    for path, content in zip(paths, re.findall(r"```json\n(.*?)```", text, re.DOTALL), strict=True):
        path.write_text(content)
    assert command("check", *map(str, paths)) == 0
    assert "valid  makespan_ns 29  lower_bound_ns" in capsys.readouterr().out
    schedule = json.loads(paths[1].read_text())
    paths[1].write_text(json.dumps({**schedule, "problem_fingerprint": "another"}))
    assert command("check", *map(str, paths)) == 1
    assert "got one of problem another" in capsys.readouterr().err
    for field in schedule:
        paths[1].write_text(json.dumps({key: schedule[key] for key in schedule if key != field}))
        with pytest.raises(InvalidScheduleError, match=f"'{field}' is missing"):
            command("check", *map(str, paths))


def test_check_refuses_a_makespan_below_its_own_bound(
    problem_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the checker and the bound disagree, one of them is wrong, and nothing is certified."""
    out = tmp_path / "schedule.json"
    command("search", str(problem_path), "--algorithm", "heft", "-o", str(out))
    makespan_ns = json.loads(out.read_text())["makespan_ns"]
    monkeypatch.setattr(check, "lower_bound_ns", lambda problem: makespan_ns + 1)
    assert command("check", str(problem_path), str(out)) == 1
    assert f"below the lower bound {makespan_ns + 1} ns" in capsys.readouterr().err


def test_errors_name_what_is_wrong(problem_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="No such file"):
        command("search", str(tmp_path / "missing.json"))
    with pytest.raises(SphinxError, match=r"Unknown algorithm 'magic'; known: .*cpga"):
        command("search", str(problem_path), "--algorithm", "magic")
    with pytest.raises(SphinxError, match="existing folder"):
        command(
            "search", str(problem_path), "--algorithm", "heft", "-o", str(tmp_path / "no" / "s.json")
        )
    with pytest.raises(InvalidScheduleError, match="No such file"):
        command("check", str(problem_path), str(tmp_path / "missing.json"))
    whole = '{"device": [0], "start_ns": [0], "finish_ns": [%s], "makespan_ns": 1, '
    whole += '"lower_bound_ns": 0, "problem_fingerprint": ""}'
    numbers = ("Infinity", "NaN", "0.5", str(2**70), "1" * 5000)
    for text in ("{", "[]", "{}", '{"device": "x"}', *(whole % number for number in numbers)):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InvalidScheduleError, match=r"bad\.json"):
            command("check", str(problem_path), str(tmp_path / "bad.json"))


def test_windows_are_polished_exactly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ortools")
    path, out = tmp_path / "wide.json", tmp_path / "schedule.json"
    problem = draw_problem(4, 90, ccr=3.0)
    write_problem(problem, path)
    options = ("--window", "20", "--time-limit", "2", "-o", str(out))
    assert command("search", str(path), *options) == 0
    assert "exact: " in capsys.readouterr().out
    validate(problem, Schedule.from_json(json.loads(out.read_text())))
    for wrong in (("--window", "1"), ("--window", "20", "--algorithm", "cpga")):
        with pytest.raises(SphinxError, match="Expected --window of 2 tasks or more"):
            command("search", str(path), *wrong)


def test_a_schedule_is_drawn(problem_path: Path, tmp_path: Path) -> None:
    """Each task is one bar on its device; a schedule that is not valid is not drawn."""
    drawn = tmp_path / "schedule.svg"
    words = ("--algorithm", "heft", "-o", "-", "--timeline", str(drawn))
    assert command("search", str(problem_path), *words) == 0
    problem = draw_problem(1, 20, special=True)
    root = ElementTree.parse(drawn).getroot()
    titles = [text for text in root.itertext() if text.startswith("task ")]
    assert sorted(int(title.split()[1]) for title in titles) == list(range(20))
    assert all(any(f" on {name}: " in title for name in problem.devices) for title in titles)
    best = search_schedule(problem, algorithm="heft").best
    with pytest.raises(InvalidScheduleError):
        schedule_svg(problem, replace(best, makespan_ns=best.makespan_ns - 1))
