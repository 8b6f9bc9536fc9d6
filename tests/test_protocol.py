from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madgnet_bench.errors import ConfigError
from madgnet_bench.protocol import PROTOCOLS, Protocol

PROTOCOL = st.builds(
    dataclasses.replace,
    st.sampled_from(list(PROTOCOLS.values())),
    size=st.integers(1, 4096) | st.just("native"),
    threshold=st.floats(0, 1),
    maps=st.sampled_from(["soft", "hard"]),
    empty=st.floats(0, 1),
    mask_resampling=st.sampled_from(["bilinear", "nearest"]),
    checkpoint=st.sampled_from(["best", "last"]),
    prompts=st.sampled_from(["none", "box", "clicks3"]),
)


@given(PROTOCOL)
def test_text_reads_back_as_the_same_protocol(protocol: Protocol) -> None:
    assert Protocol.parse(str(protocol)) == protocol


@given(PROTOCOL)
def test_a_changed_protocol_never_bears_the_plain_name(protocol: Protocol) -> None:
    assert (str(protocol) == protocol.name) == (protocol == PROTOCOLS[protocol.name])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_plain_names(name: str) -> None:
    assert str(Protocol.parse(name)) == name == PROTOCOLS[name].name


def test_the_rule_of_the_paper() -> None:
    madgnet = PROTOCOLS["madgnet"]
    assert (madgnet.size, madgnet.threshold, madgnet.maps, madgnet.empty) == (352, 0.5, "hard", 1.0)


def test_spaces_are_tolerated() -> None:
    assert Protocol.parse(" madgnet[size=64, checkpoint=last] ") == Protocol.parse("madgnet[checkpoint=last,size=64]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("madgnet[size=64", "cannot be read"),
        ("madgnett", "did you mean 'madgnet'"),
        ("zzz", "valid: madgnet, native"),
        ("madgnet[sise=64]", "did you mean 'size'"),
        ("madgnet[name=native]", "no field 'name'"),
        ("madgnet[size=big]", "not a number"),
        ("madgnet[size=0]", "out of range"),
        ("madgnet[threshold=1.5]", "out of range"),
        ("madgnet[threshold=nan]", "out of range"),
        ("madgnet[maps=medium]", "soft, hard"),
        ("madgnet[checkpoint=first]", "best, last"),
        ("madgnet[averaging=batch]", "not one of case"),
        ("madgnet[size]", "not a number"),
    ],
)
def test_errors_say_what_is_valid(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Protocol.parse(text)


def test_a_protocol_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROTOCOLS["madgnet"].size = 1  # type: ignore[misc]
