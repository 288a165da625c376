"""Shards: runs of the reference package and ours are routed to the same ones."""

from __future__ import annotations

import pytest

from flows import shard_values_for_workflow
from flows.errors import ConfigError
from flows.shard import fnv1a_32, shard_for_run, shard_index

# Written by the reference package.
VECTORS = [
    ("6513270e-269e-4d37-b2a7-4de452e6b438", 1, "my_workflow_0"),
    ("36f675cc-81e7-4ef5-a8e2-5d940ed90475", 1, "my_workflow_0"),
    ("90c192cf-d3ac-44af-8f21-ddb66cad4a26", 2, "my_workflow_0"),
    ("6b4cb242-4a23-4596-a217-beaddbc496cb", 2, "my_workflow_0"),
    ("92276658-1e27-41c0-8a6a-63ec24ede6a4", 4, "my_workflow_3"),
    ("ae97ba94-d0ed-482f-8f6d-05584ef8aa38", 4, "my_workflow_2"),
    ("907a70c3-1012-4037-b64c-e4228c38fb29", 4, "my_workflow_0"),
    ("7f150524-34b9-45df-9e77-69b10f4205b4", 4, "my_workflow_1"),
    ("ec66a787-95e7-41d1-b731-af10506bf2ef", 10, "my_workflow_7"),
    ("4cdd2055-930d-4eaf-94f4-733f3e7d1bfb", 10, "my_workflow_8"),
    ("9be4bcfc-49b6-4a08-b2e6-cc3ababced20", 32, "my_workflow_15"),
    ("830e07bc-1e39-4f10-92bd-4acefaecbd38", 32, "my_workflow_20"),
    ("ca02135e-92b1-43f2-8ede-0d7ac3baea9e", 32, "my_workflow_29"),
]


@pytest.mark.parametrize(("run_id", "shard_count", "shard"), VECTORS)
def test_a_run_is_in_the_shard_where_the_reference_looks(
    run_id: str, shard_count: int, shard: str
) -> None:
    assert shard_for_run("my_workflow", run_id, shard_count) == shard


# From the reference code of the hash's authors.
@pytest.mark.parametrize(
    ("text", "value"), [(b"", 0x811C9DC5), (b"a", 0xE40C292C), (b"foobar", 0xBF9CF968)]
)
def test_the_hash_is_32_bit_fnv_1a(text: bytes, value: int) -> None:
    assert fnv1a_32(text) == value


def test_the_shards_of_a_workflow_are_listed_from_0() -> None:
    assert shard_values_for_workflow("my_workflow", 4) == [
        "my_workflow_0",
        "my_workflow_1",
        "my_workflow_2",
        "my_workflow_3",
    ]


def test_every_run_is_in_one_of_the_listed_shards() -> None:
    for run_id, shard_count, _ in VECTORS:
        shard = shard_for_run("other", run_id, shard_count)
        assert shard in shard_values_for_workflow("other", shard_count)


@pytest.mark.parametrize(
    ("shard", "index"),
    [
        ("demo_0", 0),
        ("demo_12", 12),
        ("my_workflow_3", 3),
        ("demo_1_0", 0),
        ("demo", None),
        ("demo_", None),
        ("demo_01", None),
        ("demo_-1", None),
        ("demo_\N{SUPERSCRIPT ONE}", None),
        ("_1", None),
    ],
)
def test_a_shards_number_is_read_back(shard: str, index: int | None) -> None:
    assert shard_index(shard) == index


@pytest.mark.parametrize("shard_count", [0, -1])
def test_a_workflow_without_shards_is_refused(shard_count: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        shard_values_for_workflow("my_workflow", shard_count)
