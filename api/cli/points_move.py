"""`rulemill points move`: all points from SQLite into InfluxDB, or back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from api.cli.output import Failed, note
from api.cli.points_store import influx_of, opened, run, running, settings_flags, settings_of, sqlite_of, stores_of
from api.cli.progress import Bar
from api.points.copying import Span, parts, put
from api.private_file import write_private
from engine.stores.timeseries import Timeseries
from engine.stores.values import MAX_TS_MS

TOLD = 20
"""Refused points that are told one by one."""
EVERYTHING = Span(None, -MAX_TS_MS, MAX_TS_MS + 1)


@click.command()
@click.option("--back", is_flag=True, help="From InfluxDB into SQLite.")
@click.option("--tenant", metavar="NAME", help="Only this one's points.")
@click.option("--again", is_flag=True, help="From the beginning, also after an interruption.")
@settings_flags
def move(back: bool, tenant: str | None, again: bool, config: str | None, data: str | None) -> None:
    """Copy all points from the SQLite file of the data folder into InfluxDB. The SQLite file stays as it is.

    \b
    To go from SQLite to InfluxDB without a gap:
      1. Set RULEMILL_INFLUX_URL and what goes with it, and start the server
         again: from then on new points go to InfluxDB.
      2. rulemill points move
         brings it those from before, while the server runs.
    It opens both stores itself, with the server's settings, and takes
    nothing of the server's time. Interrupted, it goes on with the device
    where it was. The same points twice are the same points; only a point
    that its device has sent again since, for the same millisecond, is then
    as it was before.
    Examples:
      rulemill points move
      RULEMILL_INFLUX_URL=http://127.0.0.1:8086 rulemill points move --data /var/lib/rulemill
    """
    settings = settings_of(config, data)
    sqlite, influx = sqlite_of(settings, make=back), influx_of(settings)
    source, target = (influx, sqlite) if back else (sqlite, influx)
    others = stores_of(running(settings))
    if others and others != {target.name}:
        note(
            f"The server that runs here writes to {', '.join(sorted(others))}: start it with {target.name}, and move "
            "again for what comes meanwhile."
        )
    state = _State(settings.folder() / "points-move.json", f"{source.name} to {target.name}", tenant)
    if again:
        state.forget()

    async def main() -> None:
        async with opened(source, source.name), opened(target, target.name):
            await _move(source, target, tenant, state)

    run(main())


async def _move(source: Timeseries, target: Timeseries, only: str | None, state: _State) -> None:
    tenants = [name for name in await source.tenants() if only in (None, name)]
    if only is not None and not tenants:
        raise Failed(f"there are no points of a tenant {only!r}")
    every = [(tenant, device) for tenant in tenants for device in await source.devices(tenant)]
    todo = [each for each in every if each > state.done]
    if len(todo) < len(every):
        note(f"Going on: {len(every) - len(todo)} of {len(every)} devices are done. --again begins anew.")
    count, refused = 0, 0
    with Bar(f"Moving {state.what}", "points") as bar:
        for i, (tenant, device) in enumerate(todo):
            async for part in parts(source, tenant, device, EVERYTHING):
                bad = await put(target, part.points)
                for at, reason in bad:
                    refused += 1
                    if refused <= TOLD:
                        point = part.points[at]
                        note(f"refused: {tenant}/{device}/{point.key} at {point.ts_ms}: {reason}")
                count += len(part.points) - len(bad)
                bar.show((len(every) - len(todo) + i + part.done) / len(every), count)
            state.reach(tenant, device)
    note(f"Moved {bar.summary()} of {len(todo)} devices, {state.what}.")
    state.forget()
    if refused:
        raise Failed(f"{refused} points were refused, and are in {source.name} only")


class _State:
    """How far a move has come, in a file beside the store."""

    def __init__(self, path: Path, what: str, only: str | None) -> None:
        self.what = what
        self._path, self._only = path, only
        self.done: tuple[str, str] = ("", "")
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            if (found["move"], found["only"]) == (what, only):
                self.done = str(found["tenant"]), str(found["device"])
        except (OSError, ValueError, KeyError, TypeError):
            pass

    def reach(self, tenant: str, device: str) -> None:
        self.done = tenant, device
        write_private(
            self._path, json.dumps({"move": self.what, "only": self._only, "tenant": tenant, "device": device})
        )

    def forget(self) -> None:
        self.done = ("", "")
        self._path.unlink(missing_ok=True)
