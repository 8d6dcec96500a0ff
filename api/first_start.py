"""What a start is asked to make: the bootstrap file, the demo. Both may be applied at every start."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from api.bootstrap import Stores, Summary, apply
from api.demo import APPS, PRODUCT, TENANT, demo_document
from api.private_file import write_private
from chains.repository import ChainRepository
from engine.config import Settings
from engine.errors import Finding, InvalidDocument
from engine.stores.registry_store import Registry

log = logging.getLogger("rulemill.start")


async def make_what_is_asked(
    settings: Settings,
    registry: Registry,
    repository: ChainRepository,
    stores: Stores,
    bootstrap: str | None,
    demo: bool,
) -> None:
    """Apply the bootstrap file and the demo; InvalidDocument names every place that does not hold."""
    if bootstrap:
        try:
            document = _read(Path(bootstrap))
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise InvalidDocument([Finding(bootstrap, str(error))]) from error
        log.info("bootstrap %s: %s", bootstrap, _told(await apply(document, registry, repository, stores)))
    if demo:
        path = settings.folder() / "demo.json"
        known = _read(path) if path.exists() else {}
        document, secrets = demo_document(
            {**known.get("devices", {}), **{name: known.get(name, {}) for name in ("operator", APPS)}}
        )
        await apply(document, registry, repository, stores, keep_chains=True)
        if stores.activations is not None and not await stores.activations.find(secrets[APPS]["activation_code"]):
            # The one of the last start is used: there shall be one to try.
            [secrets[APPS]["activation_code"]] = await stores.activations.make(TENANT, PRODUCT, 1)
        apart = {name: secrets.pop(name) for name in ("operator", APPS)}
        write_private(path, json.dumps({"devices": secrets, **apart}))


def _told(made: Summary) -> str:
    """What was made or changed, in words."""
    parts = [f"{field} {', '.join(map(str, getattr(made, field)))}" for field in made.__struct_fields__]
    filled = [part for part, field in zip(parts, made.__struct_fields__, strict=True) if getattr(made, field)]
    return "made or changed " + "; ".join(filled) if filled else "everything is there already"


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())
