"""`rulemill points export` and `import`: points between the store and files, past the server."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, Final, TextIO, cast

import click

from api.cli.client import Server, path
from api.cli.output import Failed, note, plain
from api.cli.points_named import FROM, KEYS, TO, check_range, is_pattern, named
from api.cli.points_store import check_same, opened, run, running, settings_flags, settings_of, store_of
from api.cli.progress import Bar
from api.points.copying import Bad, Span, load, write_file
from api.points.files import FORMS, LINES, PARQUET, WRITERS, form_of_name, reader
from api.points.line_form import PRECISIONS
from api.points.reading import NO_TENANT, Read
from engine.errors import BadInput, StoreUnavailable
from engine.message import Point
from engine.stores.chosen import where_of
from engine.stores.timeseries import Timeseries
from engine.stores.values import MAX_TS_MS

TOLD: Final = 20
"""Bad lines that are told one by one; the rest is counted."""

_FORM = click.option(
    "--form", type=click.Choice(FORMS), help="lines: InfluxDB's line protocol. By the file's name or content otherwise."
)


@click.command()
@click.argument("devices", nargs=-1, metavar="[DEVICE]...")
@KEYS
@FROM
@TO
@click.option(
    "--tenant", metavar="NAME", envvar="RULEMILL_TENANT", help="Whose (or RULEMILL_TENANT); all tenants' by default."
)
@click.option(
    "-o", "--output", default="-", metavar="FILE", help="Where to; standard output by default. FILE.gz is zipped."
)
@_FORM
@settings_flags
def export(
    devices: tuple[str, ...], keys: tuple[str, ...], start_ms: int | None, end_ms: int | None, tenant: str | None,
    output: str, form: str | None, config: str | None, data: str | None,
) -> None:  # fmt: skip
    """Write points into a file, those of all devices if none is named: lines (line protocol), csv, ndjson or parquet.

    \b
    This reads the store itself, with the server's settings (environment,
    rulemill.toml, --data), and takes nothing of the server's time: it may
    run or not, and 100 million points are no more than a matter of minutes
    or hours. What comes in meanwhile may or may not be in the file. From
    another machine, `rulemill points query ... --csv` asks the server.
    Devices stand in the file by their ids. Parquet needs pyarrow:
    pip install 'rulemill[parquet]'
    Examples:
      rulemill points export -o points.lp.gz
      rulemill points export 'boiler-*' -k temperature --from -30d -o boilers.csv
      rulemill points export --tenant acme -o acme.parquet
      rulemill points export | influx write --bucket b --precision ms
    """
    check_range(start_ms, end_ms)
    form = form or form_of_name(output) or LINES
    span = Span(
        list(dict.fromkeys(keys)) or None,
        -MAX_TS_MS if start_ms is None else start_ms, MAX_TS_MS + 1 if end_ms is None else end_ms,
    )  # fmt: skip
    if output == "-" and form == PARQUET and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for terminals: name a file with -o")
    settings = settings_of(config, data)
    server = running(settings, tenant)
    store = store_of(settings, make=False)

    async def main() -> None:
        async with opened(store, where_of(settings)):
            check_same(store, server)
            wanted = await _wanted(store, server, devices, tenant)
            with _written(output) as file, Bar("Exporting", "points") as bar:
                writer = WRITERS[form](file)
                refused = await write_file(
                    store, wanted, span, writer, lambda done, count: bar.show(done / max(1, len(wanted)), count)
                )
                writer.close()
            note(f"Exported {bar.summary()} of {len(wanted)} devices, as {form}.")
            if refused:
                raise Failed(*_told(refused, ""))

    run(main())


async def _wanted(
    store: Timeseries, server: Server | None, given: Sequence[str], tenant: str | None
) -> list[tuple[str, str]]:
    """(tenant, device)s that are meant; Failed for what the store has no points of."""
    tenants = await store.tenants()
    if not given:
        if tenant is not None and tenant not in tenants:
            raise Failed(f"there are no points of a tenant {tenant!r}")
        return [(each, id) for each in ([tenant] if tenant else tenants) for id in await store.devices(each)]
    if server is not None:
        ids = [server.get(server.of_tenant("devices", name))["id"] for name in named(server, given)]
        return [(server.tenant, id) for id in dict.fromkeys(ids)]
    if tenant is None and len(tenants) > 1:
        raise Failed(f"name the tenant with --tenant: there are {', '.join(tenants)}")
    tenant = tenant or (tenants[0] if tenants else "")
    known = await store.devices(tenant)
    found: dict[str, None] = {}
    for name in given:
        fitting = [id for id in known if id == name or (is_pattern(name) and fnmatchcase(id, name))]
        if not fitting:
            raise Failed(f"the store has no points of a device with the id {name}; names need a server that runs here")
        found |= dict.fromkeys(fitting)
    return [(tenant, id) for id in found]


@contextlib.contextmanager
def _written(output: str) -> Iterator[BinaryIO]:
    """The file to write to: it appears when it is whole."""
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = Path(f"{output}.part")
    try:
        with open(part, "wb") as file:
            if output.endswith(".gz"):
                with gzip.GzipFile(filename="", mode="wb", compresslevel=3, fileobj=file) as zipped:
                    yield cast(BinaryIO, zipped)
            else:
                yield file
        part.replace(output)
    except OSError as error:
        raise Failed(f"{output} cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


@click.command("import")
@click.argument("file", metavar="FILE")
@click.option(
    "--tenant",
    metavar="NAME",
    envvar="RULEMILL_TENANT",
    help="Whose points are those that name no tenant (or RULEMILL_TENANT).",
)
@_FORM
@click.option(
    "--precision",
    type=click.Choice(list(PRECISIONS)),
    default="ms",
    show_default=True,
    help="Unit of times in line protocol.",
)
@click.option("--from-line", type=click.IntRange(1), default=1, metavar="N", help="Leave out the lines before.")
@click.option(
    "--bad", "bad_file", type=click.File("w"), metavar="FILE", help="Every bad line's number and fault, in a file."
)
@click.option("--unchecked", is_flag=True, help="Take devices for ids as they stand, without asking the server.")
@settings_flags
def import_(
    file: str, tenant: str | None, form: str | None, precision: str, from_line: int, bad_file: TextIO | None,
    unchecked: bool, config: str | None, data: str | None,
) -> None:  # fmt: skip
    """Store the points of a file (- is standard input): line protocol, CSV, lines of JSON or Parquet, zipped or not.

    \b
    This writes to the store itself, with the server's settings
    (environment, rulemill.toml, --data), whether the server runs or not.
    No chain sees these points. The same points twice are the same points:
    after an interruption import the file again, or go on --from-line.
    While the server runs, devices may stand in the file by name, external
    id or id, and those that do not exist are bad lines; without it, they
    are taken for ids. Bad lines are told with their numbers and left out,
    and the exit code is 1.
    CSV needs the titles device, key, value, and ts_ms or time (ISO 8601).
    Examples:
      rulemill points import points.lp.gz
      rulemill points import history.csv --tenant acme --bad faults.txt
      rulemill points export | RULEMILL_DATA=/other/folder rulemill points import -
    """
    settings = settings_of(config, data)
    server = running(settings)
    store = store_of(settings, make=True)
    given = _opened(file)
    size = given.seek(0, os.SEEK_END) if given.seekable() else 0
    if size:
        given.seek(0)
    faults = _Faults(bad_file)

    async def main() -> None:
        async with opened(store, where_of(settings)):
            check_same(store, server)
            resolve = _as_they_stand if unchecked or server is None else _Known(server).resolve
            note(f"Importing into {where_of(settings)}" + (
                "" if resolve is not _as_they_stand else "; devices are taken for ids as they stand"
            ))  # fmt: skip
            reached = 0

            def told(line: int, count: int) -> None:
                nonlocal reached
                reached = line
                bar.show(_position(given) / size if size else 0.0, count)

            with Bar("Importing", "points") as bar:
                try:
                    reads = reader(given, tenant or "", form or form_of_name(file), precision)
                    await load(_from(reads, from_line), store, resolve, told, faults.add)
                except (BadInput, StoreUnavailable, asyncio.CancelledError) as error:
                    if reached:
                        note(f"\nEverything up to line {reached} is stored. Go on with --from-line {reached + 1}.")
                    if isinstance(error, BadInput):
                        raise Failed(f"{file}: {error.reason}") from error
                    raise
            note(f"Imported {bar.summary()}.")

    run(main())
    if faults.count:
        raise Failed(*faults.lines(), f"{faults.count} bad lines were left out")


class _Faults:
    """Bad lines: all of them into a file if there is one, the first ones for the person."""

    def __init__(self, file: TextIO | None) -> None:
        self._file, self._first, self.count = file, list[Bad](), 0

    def add(self, bad: Bad) -> None:
        if bad.problem == NO_TENANT and not self.count:
            raise Failed(f"line {bad.line} names no tenant: say whose points these are with --tenant")
        self.count += 1
        if len(self._first) < TOLD:
            self._first.append(bad)
        if self._file is not None:
            self._file.write(f"{bad.line}\t{plain(bad.problem)}\n")

    def lines(self) -> list[str]:
        more = self.count - len(self._first)
        where = "" if self._file is not None else "; --bad FILE has them all"
        return _told(self._first, "line ") + ([f"… and {more} more{where}"] if more else [])


class _Known:
    """Devices of a server, by whatever they are called."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._tenants = {one["name"] for one in server.get("/tenants")["tenants"]}
        self._ids: dict[str, dict[str, str]] = {}

    def resolve(self, point: Point) -> Point | str:
        ids = self._ids.get(point.tenant)
        if ids is None:
            ids = self._ids[point.tenant] = self._read(point.tenant)
        id = ids.get(point.device)
        if id is None:
            there = "" if point.tenant in self._tenants else f": there is no tenant {point.tenant!r}"
            return f"no device {point.device!r}{there}"
        if id == point.device:
            return point
        return Point(point.tenant, id, point.key, point.ts_ms, point.value, point.lat, point.lon)

    def _read(self, tenant: str) -> dict[str, str]:
        if tenant not in self._tenants:
            return {}
        known = list(self._server.pages(path("tenants", tenant, "devices"), "devices", cursor="after"))
        found = {one["external_id"]: one["id"] for one in known if one["external_id"]}
        found |= {one["name"]: one["id"] for one in known}
        return found | {one["id"]: one["id"] for one in known}


def _as_they_stand(point: Point) -> Point | str:
    return point


def _from(reads: Iterator[Read], first: int) -> Iterator[Read]:
    return reads if first == 1 else (one for one in reads if one.line >= first)


def _opened(file: str) -> BinaryIO:
    if file == "-":
        return sys.stdin.buffer
    try:
        return open(file, "rb")
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}") from None


def _position(file: BinaryIO) -> int:
    try:
        return file.tell()
    except (OSError, ValueError):
        return 0


def _told(bad: Sequence[Bad], before: str) -> list[str]:
    return [f"{before}{one.line}: {one.problem}" if before else one.problem for one in bad]
