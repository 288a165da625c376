"""What the built-in codecs share: the encoder in C first, the careful walk when it refuses."""

from __future__ import annotations

from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from flows.codecs.base import Codec
from flows.codecs.decoding import Decoders
from flows.codecs.walk import plain
from flows.errors import EncodeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.codecs.base import Storage
    from flows.codecs.decoding import Plan
    from flows.codecs.walk import Domain

__all__ = ["CheckedCodec"]

_Result = TypeVar("_Result")

# No string or array in a jsonb may be longer; and a bytea is bounded by its row, of 1 GB.
_LARGEST = {"jsonb": 0x0FFF_FFFF, "bytea": 1_000_000_000}


class CheckedCodec(Codec):
    """A codec within one domain, whose errors say what cannot be kept and where."""

    def __init__(self, domain: Domain, storage: Storage, make_decoder: Callable[..., Any]) -> None:
        self.name = domain.codec
        self.storage = storage
        self._domain = domain
        self._largest = _LARGEST[storage]
        self._decoders = Decoders(domain.codec, make_decoder)

    def encode(self, value: Any) -> bytes:
        """Return `value` as bytes; see `Codec.encode`."""
        try:
            data = self._encode(value)
        except RecursionError:
            data = _on_a_fresh_stack(self._encode_or_refuse, value)
        if len(data) > self._largest:
            reason = f"it takes {len(data)} bytes, a {self.storage} holds {self._largest} at most"
            raise EncodeError(self.name, "$", reason)
        return data

    def decode(self, data: bytes, type: Any) -> Any:  # noqa: A002  the base class's name for it
        """Return `data` as `type`; see `Codec.decode`."""
        plan = self._decoders.plan(type)
        try:
            return self._read(plan, data)
        except RecursionError:
            return self._read_afresh(plan, data, type)
        except Exception as error:  # a type's own hooks may raise anything
            raise self._decoders.failure(type, error) from error

    @abstractmethod
    def _encode(self, value: Any) -> bytes:
        """Write `value`, unless it is nested deeper than this stack allows."""

    @abstractmethod
    def _write_plain(self, form: Any) -> bytes:
        """Write what the walk returned."""

    @abstractmethod
    def _read(self, plan: Plan, data: bytes) -> Any:
        """Read `data` by `plan`; may raise anything."""

    def _encode_plain(self, value: Any) -> bytes:
        form = plain(value, self._domain)
        try:
            return self._write_plain(form)
        except RecursionError:
            raise
        except Exception as error:
            raise EncodeError(self.name, "$", str(error)) from error

    def _encode_or_refuse(self, value: Any) -> bytes:
        try:
            return self._encode(value)
        except RecursionError:
            raise EncodeError(self.name, "$", "it is nested too deeply") from None

    def _read_afresh(self, plan: Plan, data: bytes, wanted: Any) -> Any:
        try:
            return _on_a_fresh_stack(self._read, plan, data)
        except Exception as error:
            raise self._decoders.failure(wanted, error) from error


def _on_a_fresh_stack(function: Callable[..., _Result], *args: Any) -> _Result:
    """Call `function` where the whole recursion limit is left.

    How deep a value may be nested would otherwise depend on how deep the caller is: a memo
    written near the top of the stack could not be read again further down.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *args).result()
