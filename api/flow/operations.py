"""The table of all operations: routes and the OpenAPI document are made from it, and from nothing else."""

from __future__ import annotations

from typing import Final

from api.flow import (
    aggregates,
    alarms,
    apps,
    attributes,
    chains,
    dead_letters,
    devices,
    dry_run,
    firmware,
    messages,
    people,
    point_tail,
    points,
    products,
    rollouts,
    rpc,
    schemas,
    status,
    tail,
    tenants,
)
from api.flow.operation import Operation

OPERATIONS: Final[tuple[Operation, ...]] = (
    *tenants.OPERATIONS,
    *people.OPERATIONS,
    *products.OPERATIONS,
    *apps.OPERATIONS,
    *firmware.OPERATIONS,
    *devices.OPERATIONS,
    *rollouts.OPERATIONS,
    *attributes.OPERATIONS,
    *points.OPERATIONS,
    *aggregates.OPERATIONS,
    *point_tail.OPERATIONS,
    *alarms.OPERATIONS,
    *rpc.OPERATIONS,
    *messages.OPERATIONS,
    *chains.OPERATIONS,
    *dry_run.OPERATIONS,
    *dead_letters.OPERATIONS,
    *tail.OPERATIONS,
    *status.OPERATIONS,
    *schemas.OPERATIONS,
)
