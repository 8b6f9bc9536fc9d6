"""docs/metrics.md says what the code does.

Where the code has changed on purpose: ``python docs/metrics_tables.py``, then look at the difference.
"""

import re
import shlex

import pytest

from docs.metrics_tables import PAGE, fill
from madgnet_bench.cli.evaluate import _parser
from madgnet_bench.protocol import MEASURES, PROTOCOLS, Protocol

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_generated_tables_are_those_of_the_code():
    assert fill(TEXT) == TEXT


def test_every_measure_is_defined_and_stands_in_the_tables_of_its_protocols():
    definitions = TEXT.partition("## What each measure is")[2].partition("###")[0]
    assert re.findall(r"^\| `(\w+)` \| \S", definitions, flags=re.MULTILINE) == list(MEASURES)
    blocks = re.findall(r"^\| `(\w+)`, distances in .*?(?=\n\n)", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert blocks == list(PROTOCOLS)
    for name, protocol in PROTOCOLS.items():
        (block,) = re.findall(rf"^(\| `{name}`, distances in .*?)\n\n", TEXT, flags=re.MULTILINE | re.DOTALL)
        shown = re.findall(r"^\| `(\w+)` \|", block, flags=re.MULTILINE)
        assert set(shown) >= {*protocol.measures, *protocol.pooled_measures}


def test_the_page_knows_the_rules_that_it_explains():
    rows = dict(
        re.findall(r"^\| `(\w+)`((?: \| -?[\d.]+){4}) \|$", TEXT.partition("`pranet`, distances")[2], flags=re.MULTILINE)[:1]
    )
    assert rows == {"dsc": " | 0.8750 | 0.0000 | 0.0000 | 0.0000"}
    rows = dict(
        re.findall(r"^\| `(\w+)`((?: \| -?[\d.]+){4}) \|$", TEXT.partition("`madgnet`, distances")[2], flags=re.MULTILINE)[:1]
    )
    assert rows == {"dsc": " | 0.8750 | 0.0000 | 0.0000 | 1.0000"}


def test_a_page_without_a_place_is_refused():
    with pytest.raises(ValueError, match="0 places for measures"):
        fill("")


@pytest.mark.parametrize("line", re.findall(r"^madgnet-bench evaluate (.*--.*)$", TEXT, flags=re.MULTILINE))
def test_the_commands_can_be_typed(line):
    options = _parser().parse_args(shlex.split(line))
    assert Protocol.parse(options.protocol)
