"""The command line: exit codes, and what a user reads."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from pykernels import families
from pykernels.cli import main
from pykernels.cli.progress import Progress
from pykernels.cli.table import table
from pykernels.families import BACKENDS, FAMILIES, Check, Family, backends_here


def test_list_shows_families_functions_papers_and_backends(capsys):
    assert main(["list"]) == 0
    output = capsys.readouterr().out
    for family in FAMILIES.values():
        assert family.module in output
        assert all(function in output for function in family.functions)
        assert all(paper.identifier in output for paper in family.papers)
    assert all(backend in output for backend in BACKENDS)


def test_info_shows_machine_and_limits(capsys):
    assert main(["info"]) == 0
    output = capsys.readouterr().out
    for word in ("numpy", "cpu", "vector bits", "threading layer", "kernel cache", "copy", "read", "GEMM", "GB/s"):
        assert word in output


def test_reference_and_cpu_are_always_usable():
    here = backends_here()
    assert set(here) == set(BACKENDS)
    assert here["reference"] == here["cpu"] == "usable"


def _family(monkeypatch, *checks):
    class Fake(Family):
        def checks(self, exhaustive, backends):
            return checks

    fake = Fake("fake", "", "fake", (), (), "fake")
    monkeypatch.setattr(families, "FAMILIES", {"fake": fake})


def test_check_passes(monkeypatch, capsys):
    _family(monkeypatch, Check("double", "fp32", "cpu", lambda: (1234, 0)))
    assert main(["check"]) == 0
    assert "1,234" in capsys.readouterr().out


def test_check_fails_on_a_mismatch(monkeypatch, capsys):
    _family(
        monkeypatch, Check("double", "fp32", "cpu", lambda: (10, 0)), Check("double", "bf16", "cpu", lambda: (10, 3))
    )
    assert main(["check"]) == 1
    assert "double bf16 [cpu]: 3 of 10 values differ" in capsys.readouterr().err


def test_check_names_an_exception_and_goes_on(monkeypatch, capsys):
    def broken():
        raise RuntimeError("no such luck")

    after = []
    _family(
        monkeypatch,
        Check("double", "fp32", "cpu", broken),
        Check("half", "fp32", "cpu", lambda: (after.append(1) or 5, 0)),
    )
    assert main(["check"]) == 1
    assert "double fp32 [cpu]: RuntimeError: no such luck" in capsys.readouterr().err
    assert after


def test_unknown_family_is_refused(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["check", "fp7"])
    assert exit.value.code == 2
    assert "fp8" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"fp7.*fp8"):
        families.select("fp7")


def test_bench_without_its_extra_says_what_to_install(monkeypatch, tmp_path, capsys):
    from pykernels.cli import bench

    monkeypatch.setattr(bench, "_NEEDED", ("json", "no_such_package"))
    assert main(["bench", "--report", str(tmp_path / "report")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no_such_package" in error and "pykernels[bench]" in error
    assert not (tmp_path / "report").exists()


def test_list_and_roofs_need_only_the_core_dependencies():
    code = (
        "import sys\n"
        "for name in ('torch', 'triton', 'rich', 'tqdm', 'pytest', 'matplotlib'): sys.modules[name] = None\n"
        "from pykernels import machine\n"
        "import pykernels.cli.check, pykernels.cli.info\n"
        "from pykernels.cli import main\n"
        "sys.exit(main(['list']) or machine.gpu_name() is not None)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "torch is not installed" in ran.stdout


def test_python_m_prints_usage():
    ran = subprocess.run([sys.executable, "-m", "pykernels", "--help"], capture_output=True, text=True)
    assert ran.returncode == 0
    assert all(command in ran.stdout for command in ("info", "list", "check", "bench"))


def test_progress_is_quiet_at_first_then_counts(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pykernels.cli.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    with Progress("work", 3, stream) as progress:
        progress.step("first")
        assert stream.getvalue() == ""
        now[0] = 11.0
        progress.step("second")
        now[0] = 12.0
        progress.step("third")
    assert stream.getvalue() == "work 2/3 11 s second\n"


def test_progress_redraws_on_a_terminal_and_wipes_its_line(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pykernels.cli.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    stream.isatty = lambda: True
    with Progress("work", 2, stream) as progress:
        now[0] = 1.5
        progress.step("one")
    assert "\rwork"[1:] in stream.getvalue() and "1/2 one" in stream.getvalue()
    assert stream.getvalue().endswith("\r\033[K")


def test_table_aligns_numbers_to_the_right():
    assert table(("name", "n"), [("a", 1), ("long", 100)]).splitlines() == [
        "name    n",
        "----  ---",
        "a       1",
        "long  100",
    ]
