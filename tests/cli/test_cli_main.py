import subprocess
import sys

import pytest

from madgnet_bench import __version__
from madgnet_bench.cli import _COMMANDS, main


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in _COMMANDS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"madgnet-bench {__version__}\n"


def test_without_a_command_it_is_wrong_use(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(("word", "meant"), [("leaderbord", "leaderboard"), ("predct", "predict"), ("fti", "fit")])
def test_misspelt_command_names_the_nearest(word, meant, capsys):
    assert main([word]) == 2
    assert f"did you mean '{meant}'?" in capsys.readouterr().err


def test_unknown_command_lists_all(capsys):
    assert main(["zzz"]) == 2
    assert "commands: fit, " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["leaderboard", "--help"], ["data", "--help"]])
def test_light_commands_import_neither_torch_nor_lightning(arguments):
    code = (
        "import sys\nfrom madgnet_bench.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'lightning', 'timm', 'albumentations') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"
