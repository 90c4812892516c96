"""``pykernels plan``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pykernels.cli import main
from pykernels.inference.plan import Model, pareto, plan

PALM = ["plan", "--model", "palm-540b", "--chips", "64", "--batch", "512", "--context", "2048"]


def test_ranked_table_says_why(capsys):
    assert main([*PALM, "--phase", "decode", "--top", "3"]) == 0
    output = capsys.readouterr().out
    best, after = plan("palm-540b", "tpu-v4", 64, batch=512, context=2048)[:2]
    lines = output.splitlines()
    assert lines[0] == "palm-540b, decode on 64 x tpu-v4, batch 512, context 2048, bf16 weights, bf16 cache"
    first = lines[4].split()
    assert first[:3] == ["ws2d", "batch", "4x4x4"] and float(first[3]) == pytest.approx(1e3 * best.seconds, rel=1e-3)
    assert lines[7] == ""  # three rows
    assert "compute limits it" in output and f"{after.seconds / best.seconds:.2f} times as long" in output
    assert "ws2d -> wgx from 18,432, wgx -> wgxy from 73,728, wgxy -> wgxyz from 1,179,648" in output
    assert "a lower bound: 275 TFLOP/s" in output and "at efficiency 1, 1, 1" in output


def test_every_option_reaches_the_plan(capsys):
    options = ["--torus", "4x4x4", "--weights", "int8", "--cache", "int8", "--compute", "int8", "--efficiency", "0.7"]
    more = ["--overlap", "0.5", "--links", "axes", "--phase", "prefill", "--cached", "1024", "--json", "-"]
    assert main([*PALM, *options, *more]) == 0
    (found, *_) = json.loads(capsys.readouterr().out)
    assert found["torus"] == [4, 4, 4] and found["overlap"] == 0.5 and found["cached"] == 1024
    assert found["weights"] == found["cache"] == found["compute"] == "int8" and found["phase"] == "prefill"
    assert found["efficiency"] == {"flops": 0.7, "bandwidth": 0.7, "interconnect": 0.7, "overhead": 0.0}
    for change in (["--links", "pooled"], ["--interconnect", "2700"]):
        assert main([*PALM, *options, *more, *change]) == 0
        assert json.loads(capsys.readouterr().out)[0]["communication_seconds"] < found["communication_seconds"]


def test_json_has_what_plan_returns(tmp_path, capsys):
    assert main([*PALM, "--new-tokens", "64", "--json", str(tmp_path / "plan.json")]) == 0
    assert "all 64 steps" in capsys.readouterr().out
    results = plan("palm-540b", "tpu-v4", 64, batch=512, context=2048, new_tokens=64)
    assert json.loads((tmp_path / "plan.json").read_text()) == [result.to_dict() for result in results]


def test_frontier(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    image = tmp_path / "frontier.png"
    assert main([*PALM, "--pareto", str(image), "--json", str(tmp_path / "p.json")]) == 0
    output = capsys.readouterr().out
    expected = pareto("palm-540b", "tpu-v4", [2**i for i in range(7)], context=2048)
    assert json.loads((tmp_path / "p.json").read_text()) == [result.to_dict() for result in expected]
    assert "chip-milliseconds a token" in output and image.read_bytes()[:4] == b"\x89PNG"


def test_model_from_a_config(tmp_path, capsys):
    config = dict(model_type="llama", vocab_size=100, hidden_size=64, intermediate_size=96)
    config |= dict(num_hidden_layers=2, num_attention_heads=4)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["plan", "--model", str(tmp_path / "config.json"), "--chip", "h100", "--chips", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path.name}, decode on 1 x h100, batch 1, context 2048")
    assert main(["plan", "--model", str(tmp_path / "none.json"), "--chips", "1"]) == 1
    assert "No such file" in capsys.readouterr().err


def test_this_machine(capsys):
    assert main(["plan", "--model", "gemma-2b", "--chip", "here", "--chips", "1", "--json", "-"]) in (0, 1)
    captured = capsys.readouterr()
    if captured.out:  # 5 GB of weights fit
        (found,) = json.loads(captured.out)
        parameters = Model.named("gemma-2b").parameters
        assert found["chip"] == "here" and found["bytes_per_chip"]["weights"] == pytest.approx(2 * parameters)
    else:
        assert "does not fit 1 x here" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "palm", "--chips", "64"], "model='palm': expected one of palm-8b"),
        (["--model", "palm-540b"], "expected --chips N or --torus XxYxZ"),
        (["--model", "palm-540b", "--chips", "0"], "--chips 0: expected at least 1"),
        (["--model", "palm-540b", "--chips", "8"], "palm-540b does not fit 8 x tpu-v4"),
        (["--model", "palm-540b", "--chips", "64", "--torus", "4x4x2"], "--torus 4x4x2 has 32 chips: expected 64"),
        (["--model", "palm-540b", "--torus", "4x16"], "--torus 4x16: expected three positive integers"),
        (["--model", "palm-540b", "--torus", "4x4xy"], "--torus 4x4xy: expected three positive integers"),
        (["--model", "palm-540b", "--chips", "64", "--chip", "v4"], "chip='v4': expected one of tpu-v4"),
        (["--model", "palm-540b", "--chips", "64", "--batch", "-1"], "batch=-1: expected"),
        (["--model", "palm-540b", "--chips", "64", "--efficiency", "2"], "efficiency=2.0: expected"),
        (["--model", "palm-540b", "--chips", "64", "--top", "0"], "--top 0: expected at least 1"),
    ],
)
def test_what_cannot_be(arguments, message, capsys):
    assert main(["plan", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("pykernels plan: ") and message in captured.err


def test_an_image_without_matplotlib_says_what_to_install(tmp_path):
    code = (
        "import sys\n"
        "for name in ('torch', 'matplotlib', 'transformers'): sys.modules[name] = None\n"
        "from pykernels.cli import main\n"
        f"sys.exit(main({[*PALM, '--pareto', str(tmp_path / 'f.png')]!r}))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1 and "pip install matplotlib" in ran.stderr and not ran.stdout
