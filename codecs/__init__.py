"""Codecs: how payloads become bytes and come back.

A payload is the input of a run, the result of a step, an event or an output. It is stored with the
name of the codec that wrote it, so it decodes by itself whatever its workflow is registered with
today. Pickle is never used.
"""

from flows.codecs.base import Codec
from flows.codecs.builtin import JSONCodec, MsgspecCodec, OrjsonCodec
from flows.codecs.registration import codec_named, register_codec

__all__ = [
    "Codec",
    "JSONCodec",
    "MsgspecCodec",
    "OrjsonCodec",
    "codec_named",
    "register_codec",
]
