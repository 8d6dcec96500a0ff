"""What the kinds that run a script share: where its text comes from, its check, and its calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from engine.sandbox.script import Lang, Script, check_script, compile_script
from nodes import BadInput, Build, Context, Finding, Message, Outcomes, Retry, ScriptError

CALLING = (
    "The script sees `msg` (the data; bytes as `{hex, raw_b64, bytes}`), `metadata` and `msgType`, and may call "
    "`now()` for milliseconds and `retry(after_s, reason)` to be tried again later. It reaches nothing outside; a "
    "message has 500 ms and 16 MiB, and one that breaks a limit fails alone."
)


class ScriptConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Which script: its language, and its text in the chain or in a file beside it."""

    lang: Annotated[Lang, Meta(description="Language of the script.")] = "lua"
    source: Annotated[
        str | list[str], Meta(description="The script: one text, or a list of its lines. Either this or `file`.")
    ] = ""
    file: Annotated[str, Meta(description="Name of a file that travels with the chain and holds the script.")] = ""


def source_of(config: ScriptConfig, build: Build) -> str:
    """The script's text; raises BadInput, with a pointer, unless exactly one of `source` and `file` gives it."""
    inline = config.source if isinstance(config.source, str) else "\n".join(config.source)
    if config.file:
        if inline:
            raise BadInput("give either source or file, not both", "/file")
        try:
            return build.file(config.file)
        except BadInput as error:
            raise BadInput(error.reason, "/file") from error
    if not inline.strip():
        raise BadInput("a script is needed: give source or file", "/source")
    return inline


def script_of(config: ScriptConfig, build: Build) -> Script:
    """The compiled script of a node; its runtime starts with the first message."""
    return compile_script(config.lang, source_of(config, build), name=f"{build.chain}/{build.node}")


def check_config(config: ScriptConfig, build: Build) -> list[Finding]:
    """Findings about the script: missing, or not compiling (`line N: …`)."""
    try:
        check_script(config.lang, source_of(config, build))
    except BadInput as error:
        return [Finding(error.pointer, error.reason)]
    except ScriptError as error:
        return [Finding("/file" if config.file else "/source", str(error))]
    return []


def run_batch(script: Script, batch: Sequence[Message], ctx: Context) -> list[Any]:
    """Run the script for a batch: one result for each message, its value or what `settled` takes."""
    return script.run_columns(
        [message.data for message in batch],
        [message.metadata for message in batch],
        [message.type for message in batch],
        ctx.now_ms,
        ctx.progress,
    )


def settled(i: int, result: Any, out: Outcomes) -> bool:
    """Give message `i` its outcome if its script failed or asked to be tried again; False if it returned a value."""
    if isinstance(result, ScriptError):
        out.fail(i, str(result))
    elif isinstance(result, Retry):
        out.retry(i, result.reason, result.after_s)
    else:
        return False
    return True


def kind_of(value: Any) -> str:
    """What a value is, in the words of JSON, for error texts."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "an object"
