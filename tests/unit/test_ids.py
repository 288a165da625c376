"""Keys of runs: their ids, their text form, and texts that are no key."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import RunID, RunKey
from flows.clock import unix_ms
from flows.config import check_workflow_name
from flows.errors import ConfigError
from flows.ids import uuid7

ID = "0190f0b1-2c3d-7e4f-8a5b-6c7d8e9f0a1b"


def is_workflow_name(text: str) -> bool:
    try:
        check_workflow_name(text)
    except ConfigError:
        return False
    return True


def test_a_run_id_is_a_uuid_of_version_7_that_tells_its_time() -> None:
    before = unix_ms()
    made = uuid7()
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert before <= made.int >> 80 <= unix_ms()


def test_run_ids_made_in_the_same_millisecond_differ() -> None:
    assert len({uuid7() for _ in range(1000)}) == 1000


def test_the_text_of_a_key_names_shard_and_id() -> None:
    key = RunKey("render_3", RunID(uuid.UUID(ID)))
    assert str(key) == f"render_3:{ID}"
    assert key.workflow_name == "render"


@given(
    name=st.text(min_size=1, max_size=40).filter(is_workflow_name),
    shard=st.integers(min_value=0, max_value=4095),
    run_id=st.uuids(),
)
def test_the_text_of_a_key_reads_back_for_any_workflow_name(
    name: str, shard: int, run_id: uuid.UUID
) -> None:
    key = RunKey(f"{name}_{shard}", RunID(run_id))
    assert RunKey.parse(str(key)) == key
    assert key.workflow_name == name


@pytest.mark.parametrize("name", ["a:b", "a_1", "x_0:y_1", "_", ID])
def test_names_that_look_like_parts_of_a_key_read_back_too(name: str) -> None:
    key = RunKey.parse(f"{name}_12:{ID}")
    assert key == RunKey(f"{name}_12", RunID(uuid.UUID(ID)))
    assert key.workflow_name == name


def test_the_id_may_be_in_capitals() -> None:
    assert RunKey.parse(f"demo_0:{ID.upper()}").run_id == uuid.UUID(ID)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "demo",
        ID,
        f"demo:{ID}",
        f"_0:{ID}",
        f"demo_x:{ID}",
        f"demo_\u0663:{ID}",
        "demo_0:",
        "demo_0:17",
        f"demo_0:{{{ID}}}",
        f"demo_0:{ID}\n",
        "demo_0:" + "1_" * 16,
        f"de\0mo_0:{ID}",
        f"de\ud800mo_0:{ID}",
    ],
)
def test_another_text_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ConfigError, match="expected <workflow>_<shard>:<run id>"):
        RunKey.parse(text)
