"""Codecs by name: a stored payload says which one wrote it."""

from __future__ import annotations

import threading

from flows.codecs.base import STORAGES, Codec
from flows.codecs.builtin import JSONCodec, MsgspecCodec, OrjsonCodec
from flows.errors import ConfigError

__all__ = ["codec_named", "register_codec"]

_codecs: dict[str, Codec] = {
    codec.name: codec
    for codec in (JSONCodec(), OrjsonCodec(), MsgspecCodec(), MsgspecCodec(format="json"))
}
_registering = threading.Lock()


def register_codec(codec: Codec) -> None:
    """Make `codec` the one that reads the payloads written under its name.

    Registering another instance of the same class replaces the first, so an import that runs
    twice does no harm.

    Raises:
        ConfigError: it is no codec, its name or storage cannot work, or the name belongs to a
            codec of another class.
    """
    if not isinstance(codec, Codec):
        raise ConfigError(f"not a codec: {codec!r} (derive its class from flows.codecs.Codec)")
    name = getattr(codec, "name", None)
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ConfigError(f"{type(codec).__name__}: a codec's name must be text, not {name!r}")
    storage = getattr(codec, "storage", None)
    if storage not in STORAGES:
        raise ConfigError(f"codec {name!r}: storage must be 'jsonb' or 'bytea', not {storage!r}")
    with _registering:
        known = _codecs.get(name)
        if known is not None and _class_name(known) != _class_name(codec):
            raise ConfigError(
                f"codec name {name!r} is taken by {_class_name(known)}:"
                f" give {_class_name(codec)} another"
            )
        _codecs[name] = codec


def codec_named(name: str) -> Codec:
    """Return the codec that reads payloads written under `name`.

    Raises:
        ConfigError: there is none.
    """
    codec = _codecs.get(name)
    if codec is None:
        known = ", ".join(sorted(_codecs))
        raise ConfigError(
            f"no codec named {name!r} is registered (known: {known});"
            " hand it to flows.codecs.register_codec where the app is imported"
        )
    return codec


def _class_name(codec: Codec) -> str:
    return f"{type(codec).__module__}.{type(codec).__qualname__}"
