"""Points as Parquet: a column for each type of value, of which one has something in each row. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from api.points.reading import NO_TENANT, Read, bad, checked, json_of
from engine.errors import BadInput, RulemillError
from engine.message import Point
from engine.stores.values import LETTERS, json_text

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS: Final = {"d": "double", "l": "long", "b": "boolean", "s": "string", "j": "json"}
"""Type letter to the column of such values."""
ROWS: Final = 100_000
"""Of one row group."""
READ_ROWS: Final = 5000


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise RulemillError(f"Parquet needs pyarrow: pip install 'rulemill[parquet]' ({error})") from error
    return pyarrow


def _schema(arrow: Any) -> pa.Schema:
    name = arrow.dictionary(arrow.int32(), arrow.string())
    return arrow.schema(
        [("tenant", name), ("device", name), ("key", name), ("ts", arrow.timestamp("ms", "UTC")),
         ("double", arrow.float64()), ("long", arrow.int64()), ("boolean", arrow.bool_()), ("string", arrow.string()),
         ("json", arrow.string()), ("lat", arrow.float64()), ("lon", arrow.float64())]
    )  # fmt: skip


class Writer:
    """Writes points as rows."""

    def __init__(self, file: BinaryIO) -> None:
        self._arrow = _arrow()
        self._schema = _schema(self._arrow)
        self._writer = self._arrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[Point] = []

    def write(self, points: Sequence[Point]) -> list[tuple[int, str]]:
        """Write the points; every one can be written."""
        self._rows += points
        if len(self._rows) >= ROWS:
            self._flush()
        return []

    def close(self) -> None:
        """Write what is held back, and the end."""
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        columns: dict[str, list[Any]] = {
            "tenant": [point.tenant for point in rows],
            "device": [point.device for point in rows],
            "key": [point.key for point in rows],
            "ts": [point.ts_ms for point in rows],
            "lat": [point.lat for point in rows],
            "lon": [point.lon for point in rows],
        }
        letters = [LETTERS[type(point.value)] for point in rows]
        for letter, name in COLUMNS.items():
            columns[name] = [
                None if kind != letter else json_text(point.value) if letter == "j" else point.value
                for kind, point in zip(letters, rows, strict=True)
            ]
        arrays = [self._arrow.array(columns[field.name], field.type) for field in self._schema]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))


def read(file: BinaryIO, tenant: str) -> Iterator[Read]:
    """Points of rows; `tenant` is for those that name none. BadInput for a file that is none, or has other columns.

    Instead of `ts` there may be `ts_ms`, instead of the columns by type one column `value`.
    """
    arrow = _arrow()
    try:
        found = arrow.parquet.ParquetFile(file)
    except (arrow.ArrowException, OSError) as error:
        raise BadInput(f"is no Parquet: {error}") from error
    names = set(found.schema_arrow.names)
    missing = [name for name in ("device", "key") if name not in names]
    missing += [] if names & {"ts", "ts_ms"} else ["ts"]
    missing += [] if names & {"value", *COLUMNS.values()} else ["value"]
    if missing:
        raise BadInput(f"has no column {' and no column '.join(missing)}; it has {', '.join(sorted(names))[:200]}")
    wanted = [name for name in ("tenant", "device", "key", "ts", "ts_ms", "value", *COLUMNS.values(), "lat", "lon")
              if name in names]  # fmt: skip
    number = 0
    for batch in found.iter_batches(READ_ROWS, columns=wanted):
        columns = {name: _plain(arrow, name, batch.column(name)) for name in wanted}
        for i in range(batch.num_rows):
            number += 1
            try:
                yield checked(number, _point({name: values[i] for name, values in columns.items()}, tenant))
            except BadInput as error:
                yield bad(number, error.reason)


def _plain(arrow: Any, name: str, column: Any) -> list[Any]:
    if name == "ts" and arrow.types.is_timestamp(column.type):
        column = column.cast(arrow.timestamp("ms", column.type.tz), safe=False).cast(arrow.int64())
    made: list[Any] = column.to_pylist()
    return made


def _point(row: dict[str, Any], tenant: str) -> Point:
    tenant = row.get("tenant") or tenant
    if not tenant:
        raise BadInput(NO_TENANT)
    value = row.get("value")
    for letter, name in COLUMNS.items():
        if row.get(name) is not None:
            value = json_of(row[name]) if letter == "j" else row[name]
    if value is None:
        raise BadInput("has no value")
    ts_ms: Any = row["ts"] if row.get("ts") is not None else row.get("ts_ms")
    return Point(tenant, row["device"], row["key"], ts_ms, value, row.get("lat"), row.get("lon"))
