"""Heads: a claim begins where the one before it has ended, and now and then at the oldest run."""

from __future__ import annotations

import pytest

from flows.heads import MANY, MARGIN_S, WHOLE_S, Heads

DUE_S = 1_700_000_000.0


@pytest.fixture
def heads() -> Heads:
    """One full claim of the shard `a`, at 10 s."""
    heads = Heads()
    assert heads.begin("a", MANY, 10.0) is None
    heads.claimed("a", DUE_S, is_full=True)
    return heads


def test_the_next_claim_begins_a_little_before_the_last_run_of_the_one_before(heads: Heads) -> None:
    assert heads.begin("a", MANY, 10.1) == DUE_S - MARGIN_S


def test_other_shards_have_heads_of_their_own(heads: Heads) -> None:
    assert heads.begin("b", MANY, 10.1) is None


def test_a_claim_of_few_looks_at_all(heads: Heads) -> None:
    assert heads.begin("a", MANY - 1, 10.1) is None


def test_once_a_second_all_is_looked_at(heads: Heads) -> None:
    times = [10.0 + tick * WHOLE_S / 4 for tick in range(1, 9)]
    wholes = [now_s for now_s in times if heads.begin("a", MANY, now_s) is None]
    assert wholes == [10.0 + WHOLE_S, 10.0 + 2 * WHOLE_S]


def test_after_a_claim_that_did_not_get_all_the_next_one_looks_at_all(heads: Heads) -> None:
    heads.claimed("a", DUE_S + 1.0, is_full=False)
    assert heads.begin("a", MANY, 10.1) is None


def test_urgent_runs_move_no_head(heads: Heads) -> None:
    heads.claimed("a", None, is_full=True)
    assert heads.begin("a", MANY, 10.1) == DUE_S - MARGIN_S


def test_a_head_that_is_forgotten_is_none(heads: Heads) -> None:
    heads.forget("b")
    heads.forget("a")
    assert heads.begin("a", MANY, 10.1) is None
