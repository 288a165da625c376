"""The same value is the same bytes: in every process, in every order, from every thread."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flows.codecs
from flows.codecs import Codec
from flows.codecs.walk import Domain, plain
from tests.codec_conformance import CODECS, JSON_CODECS, codec_id
from tests.codec_values import KEPT, Address, Colour, Point, builtin_values

_WRITE_SETS = """
    import enum, json
    import msgspec, pydantic
    from flows.codecs import JSONCodec, MsgspecCodec, OrjsonCodec

    class Colour(enum.Enum):
        RED = "red"
        BLUE = "blue"
        GREEN = "green"

    class Bag(msgspec.Struct):
        labels: set[str]
        groups: list[frozenset[frozenset[str]]]

    class Model(pydantic.BaseModel):
        labels: frozenset[str]
        groups: set[frozenset[str]]
        nested: list[dict[str, set[str]]]

    letters = frozenset("abcdefgh")
    groups = frozenset({frozenset("ab"), frozenset("cd"), frozenset("ef"), frozenset("gh")})
    many = frozenset(frozenset({str(n), str(-n)}) for n in range(40))
    values = [
        letters, groups, many, {"k": groups}, set(Colour), {(1, letters), (2, groups)},
        {1, "a", None, b"b", 2.5, (1,)}, Bag(set(letters), [groups]), [letters, [letters]],
        Model(labels=letters, groups=set(groups), nested=[{"x": set(letters)}]),
    ]
    codecs = (JSONCodec(), OrjsonCodec(), MsgspecCodec())
    print(json.dumps([[codec.encode(value).hex() for value in values] for codec in codecs]))
"""


def run(code: str, *, seed: str = "0") -> str:
    environment = os.environ | {"PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sets_are_the_same_bytes_whatever_the_hash_seed() -> None:
    written = {run(_WRITE_SETS, seed=seed) for seed in ("0", "1", "7", "4000000000")}
    assert len(written) == 1


def test_the_order_of_sets_does_change_with_the_hash_seed() -> None:
    """Without this the test above would show nothing."""
    code = "print(list(frozenset('abcdefgh')))"
    assert run(code, seed="0") != run(code, seed="1")


@pytest.mark.parametrize("codec", CODECS, ids=codec_id)
@settings(deadline=None, max_examples=40)
@given(
    items=st.dictionaries(st.text("ab\u00e9\U0001f600", max_size=3), builtin_values), data=st.data()
)
def test_the_order_of_a_dict_does_not_matter(
    codec: Codec, items: dict[str, Any], data: st.DataObject
) -> None:
    shuffled = dict(data.draw(st.permutations(list(items.items()))))
    assert codec.encode(shuffled) == codec.encode(items)


@pytest.mark.parametrize(("value", "kind"), KEPT)
def test_the_walk_writes_what_the_encoder_in_c_writes(value: Any, kind: Any) -> None:
    """Which way a value goes must not be seen: equal values may go different ways."""
    for codec in JSON_CODECS:
        domain = Domain(codec.name, is_text=True, keeps_nul=True, integers=None)
        assert codec.encode(plain(value, domain)) == codec.encode(value)


def test_many_threads_may_share_a_codec() -> None:
    class Wrapped(pydantic.BaseModel):
        number: int
        inner: list[Address]

    def work(number: int) -> bool:
        value = {
            "model": Wrapped(number=number, inner=[Address(street=str(number))] * 20),
            "points": {Point(n) for n in range(number % 30)},
            "colours": {Colour.RED: number},
        }
        wanted = msgspec.defstruct(
            f"Wanted{number}",
            [("model", Wrapped), ("points", set[Point]), ("colours", dict[Colour, int])],
        )
        return all(codec.decode(codec.encode(value), wanted) == wanted(**value) for codec in CODECS)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(work, range(160)))
    finally:
        sys.setswitchinterval(interval)


def test_pydantic_is_not_imported_for_values_that_do_not_need_it() -> None:
    out = run(
        """
        import sys
        import flows.codecs
        codec = flows.codecs.JSONCodec()
        class Odd: pass
        for action in (lambda: codec.encode(Odd()), lambda: codec.decode(b"1", Odd)):
            try:
                action()
            except flows.errors.PayloadError as error:
                print(type(error).__name__)
        print([name for name in sys.modules if name.split(".")[0] in ("pydantic", "attr", "attrs")])
        """
    )
    assert out.split("\n") == ["EncodeError", "DecodeError", "[]", ""]


def test_nothing_is_pickled() -> None:
    for path in Path(flows.codecs.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")]
            names.append(getattr(node, "module", None) or "")
            assert not {"pickle", "marshal", "shelve", "copyreg"} & set(names), path
