"""What a codec is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, TypeAlias

__all__ = ["STORAGES", "Codec", "Storage"]

Storage: TypeAlias = Literal["jsonb", "bytea"]
STORAGES: tuple[Storage, ...] = ("jsonb", "bytea")


class Codec(ABC):
    """Turns values into bytes that Postgres keeps, and back.

    Derive from it for a codec of your own, set `name` and `storage`, and hand an instance to
    `register_codec` in every process that reads or writes its payloads.

    What every codec promises, and the engine relies on:

    * Equal values of the same types give equal bytes, in every process.
    * `decode(encode(value), type)` equals `decode(stored, type)`, where `stored` is what Postgres
      gives back for those bytes: equal in value, in type and in the order of dicts. A step returns
      the first when it runs and the second when it is replayed.
    * What cannot be kept is refused by `encode`, never changed in silence.
    * Nothing is said of the order of a set: Python hashes text anew in every process. A workflow
      that loops over a set sorts it first.
    * Both methods may be called from several threads at once.

    Attributes:
        name: stored beside each payload; the codec is found by it, so never change it, and put
            into it whatever `decode` depends on.
        storage: `"jsonb"`, where `encode` returns JSON as UTF-8 and `decode` receives the text as
            jsonb spells it (other spaces, other order of keys), or `"bytea"`, which keeps bytes.
            A payload written while `storage` was another must still decode.
    """

    name: str
    storage: Storage

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """Return `value` as bytes.

        Raises:
            EncodeError: the value, or something in it, cannot be kept; names the path.
        """

    @abstractmethod
    def decode(self, data: bytes, type: Any) -> Any:  # noqa: A002  a type is what it is
        """Return what `encode` was given, as `type`.

        Args:
            data: what `encode` returned, or Postgres's spelling of it.
            type: an annotation; `Any` stands for plain builtins.

        Raises:
            DecodeError: `data` does not fit `type`.
        """

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Codec):
            return NotImplemented
        return (self.name, self.storage) == (other.name, other.storage)

    def __hash__(self) -> int:
        return hash((self.name, self.storage))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, storage={self.storage!r})"
