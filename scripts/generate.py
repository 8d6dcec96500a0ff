"""Writes the pages and schemas in docs/ that are made from the code; `--check` only tells which are stale.

python scripts/generate.py [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator

from api.bootstrap_schema import bootstrap_schema
from api.cli.serve import up
from api.dialect_settings import TABLES
from chains.schema import DIALECT, chain_schema
from engine.config import LISTENERS, OTHER_VARIABLES, Settings
from nodes.catalogue import Catalogue
from nodes.fields import fields
from nodes.pages import catalogue_page, table

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
SOURCE: Final = "<!-- Made by `make generate` from {}: change it there. -->\n\n"

SETTINGS_INTRODUCTION: Final = """\
# Settings

Each has a default. A TOML file goes over the defaults, the environment over the file, flags of the command over
both. The file is `rulemill.toml` in the current folder, or what `--config` or `RULEMILL_CONFIG` names. Names that do
not exist are refused with the nearest one that does, and so are values that do not hold, before anything starts.

```toml
data = "/var/lib/rulemill"
workers = 4

[listeners]
http = "0.0.0.0:8080"
```

In the environment a list is written with commas: `RULEMILL_PLUGINS=one,two`.
`docs/schemas/settings.schema.json` lets an editor check the file.
"""

LISTENERS_INTRODUCTION: Final = """\
## Listeners

The doors of the server. `rulemill up` opens `http` and `mqtt` on 127.0.0.1 at the ports below, with `--demo` also
`ct_http`; every other one stays closed unless it is named, by its variable or under `[listeners]`. Port 0 takes any
free one; `ready.json` in the data folder says which. A port that is taken is an error; with `--demo`, a door that
nobody named goes to a free one. What speaks TLS needs `tls.certificate` and `tls.key`.
"""


def node_pages() -> str:
    """docs/nodes.md."""
    return SOURCE.format("nodes/") + catalogue_page(Catalogue())


DIALECTS_INTRODUCTION = """\
## Dialects

How a dialect behaves where it can be chosen is a table of the TOML file, or a variable with the table as JSON:
`RULEMILL_THINGSBOARD='{"type_cast": false}'`.
"""
OTHERS_INTRODUCTION = """
## Other variables
"""


def settings_page() -> str:
    """docs/settings.md."""
    flags = {option.name: option.opts[0] for option in up.params}
    settings = [
        (*map(_code, (field.name, _variable(field.name), flags.get(field.name), field.default)), *field[1::2])
        for field in fields(settings_schema())
        if field.name not in ("listeners", "tls", *TABLES)  # listeners have a table, tls is shown by its parts
    ]
    doors = []
    for key, listener in LISTENERS.items():
        # Those with a flag have a short variable too.
        variables = [_variable(f"listen_{key}"), *([_variable(key)] if key in flags else [])]
        doors.append(
            (_code(key), str(listener.port), _speaks(key), ", ".join(map(_code, variables)), _code(flags.get(key)))
        )
    return SOURCE.format("engine/config.py") + "\n".join(
        (
            SETTINGS_INTRODUCTION,
            table(("setting", "variable", "flag", "default", "is", "means"), settings),
            LISTENERS_INTRODUCTION,
            table(("key", "port", "speaks", "variables", "flag"), doors),
            DIALECTS_INTRODUCTION,
            *(line for name, kind in TABLES.items() for line in (f"### `[{name}]`", "", _dialect_table(kind))),
            OTHERS_INTRODUCTION,
            table(("variable", "means"), [(_code(name), text) for name, text in OTHER_VARIABLES.items()]),
        )
    )


def _dialect_table(kind: type[Any]) -> str:
    _, components = msgspec.json.schema_components([kind])
    schema = components[kind.__name__]
    rows = [(_code(field.name), _code(field.default), *field[1::2]) for field in fields(schema)]
    return table(("setting", "default", "is", "means"), rows) + "\n"


def settings_schema() -> dict[str, Any]:
    """Schema of the TOML file: msgspec's, with the listeners by name."""
    _, components = msgspec.json.schema_components([Settings])
    schema = components.pop(Settings.__name__)
    listeners = schema["properties"]["listeners"]
    listeners["properties"] = {
        key: {"type": "string", "description": _speaks(key), "examples": [f"127.0.0.1:{listener.port}"]}
        for key, listener in LISTENERS.items()
    }
    listeners["additionalProperties"] = False
    for name, kind in TABLES.items():
        _, more = msgspec.json.schema_components([kind])
        schema["properties"][name] |= more.pop(kind.__name__) | {"additionalProperties": False}
    return {"$schema": DIALECT, **schema, "$defs": components, "title": "Rulemill settings"}


def _variable(name: str) -> str:
    return f"RULEMILL_{name.upper().replace('.', '_')}"


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def _speaks(key: str) -> str:
    listener = LISTENERS[key]
    if listener.family == "coap":
        return "CoAP over UDP, in the first API process; needs `pip install 'rulemill[coap]'`"
    asks = "; a device may log in by its own certificate" if listener.client_certificates else ""
    return listener.family.upper() + (" over TLS" if listener.tls else "") + asks


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "nodes.md": node_pages,
    "settings.md": settings_page,
}

SCHEMAS: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "bootstrap": bootstrap_schema,
    "chain": lambda: chain_schema(Catalogue()),
    "settings": settings_schema,
}
"""By name: docs/schemas/NAME.schema.json. Those of the kinds, node-KIND, come besides."""


def everything() -> Iterator[tuple[Path, str]]:
    """Each generated file with what it should hold."""
    for name, page in PAGES.items():
        yield DOCS / name, page()
    schemas = {name: make() for name, make in SCHEMAS.items()}
    catalogue = Catalogue()
    schemas |= {f"node-{kind}": catalogue.json_schema(kind) for kind in catalogue.kinds}
    for name, schema in schemas.items():
        Draft202012Validator.check_schema(schema)
        yield DOCS / "schemas" / f"{name}.schema.json", json.dumps(schema, ensure_ascii=False, indent=2) + "\n"


def stale() -> dict[Path, str | None]:
    """Generated files that differ from what they should hold; None: nothing makes the file any more."""
    wanted = dict(everything())
    found: dict[Path, str | None] = {
        path: text for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    return found | {path: None for path in (DOCS / "schemas").glob("*.json") if path not in wanted}


def main(arguments: list[str]) -> int:
    """Write what is stale, or with `--check` name it and return 1."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    changes = stale()
    for path, text in sorted(changes.items()):
        name = path.relative_to(DOCS.parent)
        if arguments:
            print(f"stale: {name}; make generate mends it", file=sys.stderr)
        elif text is None:
            path.unlink()
            print(f"removed {name}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    return 1 if arguments and changes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
