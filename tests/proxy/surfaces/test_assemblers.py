"""What every assembler of a stream does, on every golden transcript, cut at every byte."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.surfaces.chat.read import CompletionAssembler
from proxy.surfaces.messages.read import MessageAssembler
from proxy.surfaces.responses.read import ResponseAssembler
from tests.helpers.paths import GOLDEN
from tests.helpers.transcripts import Transcripts

APIS = {
    "chat": Transcripts(CompletionAssembler),
    "messages": Transcripts(MessageAssembler, GOLDEN / "messages"),
    "responses": Transcripts(ResponseAssembler, GOLDEN / "responses"),
}
EACH = [(api, name) for api, transcripts in APIS.items() for name in transcripts.names]


@pytest.mark.parametrize(("api", "name"), EACH)
def test_a_whole_stream_is_assembled(api: str, name: str) -> None:
    raw, expected = APIS[api].read(name)
    assert APIS[api].assembled(raw) == expected


@pytest.mark.parametrize(("api", "name"), EACH)
@pytest.mark.slow
def test_a_stream_cut_in_two_anywhere_is_the_same(api: str, name: str) -> None:
    raw, expected = APIS[api].read(name)
    for cut in range(0, len(raw) + 1, 3 if api == "responses" else 1):  # those are long
        assert APIS[api].assembled(raw[:cut], raw[cut:]) == expected, cut


@pytest.mark.parametrize(("api", "name"), EACH)
def test_a_stream_that_comes_byte_by_byte_is_the_same(api: str, name: str) -> None:
    raw, expected = APIS[api].read(name)
    assert APIS[api].assembled(*[raw[i : i + 1] for i in range(len(raw))]) == expected


@given(st.sampled_from(EACH), st.lists(st.integers(0, 9_000), max_size=8))
def test_a_stream_in_pieces_is_the_same(one: tuple[str, str], cuts: list[int]) -> None:
    api, name = one
    raw, expected = APIS[api].read(name)
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    assert APIS[api].assembled(*[raw[a:b] for a, b in pairwise(edges)]) == expected


@given(st.sampled_from(list(APIS)), st.lists(st.binary(max_size=40), max_size=10))
def test_an_assembler_raises_on_no_bytes(api: str, pieces: list[bytes]) -> None:
    APIS[api].assembled(*pieces)
