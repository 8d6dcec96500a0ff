"""Runs scripts the short way, and a batch whose middle message alone does harm."""

from __future__ import annotations

from typing import Any

from engine.sandbox.script import Call, compile_script

NOW_MS = 1_700_000_000_000
IDENTITY = "return {msg = msg, metadata = metadata, msgType = msgType}"


def run(lang: str, source: str, msg: Any = None, *, budget_s: float = 0.5) -> Any:
    """Result of one call."""
    return run_all(lang, source, [msg], budget_s=budget_s)[0]


def run_all(lang: str, source: str, msgs: list[Any], *, budget_s: float = 0.5) -> list[Any]:
    """Results of one batch."""
    script = compile_script(lang, source, name="chain/node", budget_s=budget_s)
    return script.run([Call(msg, {"k": "v"}, "T", NOW_MS) for msg in msgs], lambda: None)


def among_neighbours(lang: str, hostile: str) -> Any:
    """Result of the hostile script, run between good messages of the same batch; those must get theirs."""
    good = (
        f"if msg.n ~= 0 then return msg.n end\n{hostile}"
        if lang == "lua"
        else f"if (msg.n !== 0) return msg.n;\n{hostile}"
    )
    script = compile_script(lang, good, name="chain/node", budget_s=0.05)
    results = script.run([Call({"n": n}, {}, "T", NOW_MS) for n in (1, 2, 0, 3, 4)], lambda: None)
    assert results[:2] == [1, 2]
    assert results[3:] == [3, 4]
    assert script.run([Call({"n": 5}, {}, "T", NOW_MS)], lambda: None) == [5]
    return results[2]
