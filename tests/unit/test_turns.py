"""Turns: which shards are looked at, and in which order."""

from __future__ import annotations

from flows.turns import ShardTurns

SHARDS = ["a", "b", "c"]


def exhausted(turns: ShardTurns, *, at_s: float = 0.0, **due_s: float) -> ShardTurns:
    """Let a claim find nothing more in any of the shards that are looked at."""
    found = {shard: due_s.get(shard) for shard in turns.in_turn()}
    turns.looked(found, at_s, full=False)
    return turns


def test_every_shard_is_looked_at_first() -> None:
    assert ShardTurns(SHARDS).in_turn() == SHARDS


def test_nothing_is_looked_at_without_a_reason() -> None:
    turns = exhausted(ShardTurns(SHARDS))
    assert not turns.may_have_due
    assert turns.in_turn() == []


def test_only_the_shard_told_of_is_looked_at() -> None:
    turns = exhausted(ShardTurns(SHARDS))
    turns.tell("b")
    assert turns.may_have_due
    assert turns.in_turn() == ["b"]


def test_the_shard_told_of_comes_before_the_others() -> None:
    turns = ShardTurns(SHARDS)
    turns.tell("c")
    assert turns.in_turn() == ["c", "a", "b"]


def test_it_has_no_precedence_while_claims_come_back_full() -> None:
    turns = ShardTurns(SHARDS)
    turns.in_turn()
    turns.looked({}, 0.0, full=True)
    turns.tell("a")
    assert turns.in_turn() == ["b", "c", "a"]


def test_one_that_is_not_exhausted_goes_behind_the_others() -> None:
    turns = ShardTurns(SHARDS)
    firsts = []
    for _ in range(4):
        firsts.append(turns.in_turn()[0])
        turns.looked({}, 0.0, full=True)
    assert firsts == ["a", "b", "c", "a"]


def test_a_claim_that_exhausts_one_and_ends_in_the_next_moves_that_one() -> None:
    turns = ShardTurns(SHARDS)
    turns.in_turn()
    turns.looked({"a": None}, 0.0, full=True)
    assert turns.in_turn() == ["c", "b"]


def test_all_are_suspected_in_their_turn() -> None:
    turns = ShardTurns(SHARDS)
    turns.in_turn()
    turns.looked({"a": None}, 0.0, full=True)
    turns.suspect_all()
    assert turns.in_turn() == ["c", "b", "a"]


def test_a_shard_is_looked_at_when_its_next_sleeping_run_is_due() -> None:
    turns = exhausted(ShardTurns(SHARDS), at_s=10.0, b=2.0, c=1.0)
    assert turns.due_at_s == 11.0
    turns.come_due(10.9)
    assert not turns.may_have_due
    turns.come_due(11.0)
    assert turns.in_turn() == ["c"]
    turns.looked({"c": None}, 11.0, full=False)
    assert turns.due_at_s == 12.0


def test_what_is_told_while_a_claim_is_under_way_is_not_lost() -> None:
    turns = ShardTurns(SHARDS)
    shards = turns.in_turn()
    turns.tell("b")
    turns.looked(dict.fromkeys(shards), 0.0, full=False)
    assert turns.in_turn() == ["b"]
