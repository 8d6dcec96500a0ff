"""A device as chains see it when it was created, changed or deleted, and as apps read it."""

from __future__ import annotations

import uuid
from typing import Any, Final

from engine.stores.registry import Device

NOBODY: Final = "13814000-1dd2-11b2-8080-808080808080"
"""What stands for no customer."""
_TENANTS: Final = uuid.UUID("0198f5a0-6f3e-7c61-b1f5-6d1f0d5c2e11")


def tenant_uuid(tenant: str) -> str:
    """The id of a tenant where one has to look like a UUID: always the same for the same name."""
    return str(uuid.uuid5(_TENANTS, tenant))


def entity(kind: str, id: str) -> dict[str, str]:
    """A reference to an entity, `{"entityType", "id"}`."""
    return {"entityType": kind, "id": id}


def device_record(device: Device) -> dict[str, Any]:
    """A device in the names that ThingsBoard's chains and apps know; never with a credential."""
    return {
        "id": entity("DEVICE", device.id),
        "createdTime": device.created_ms,
        "tenantId": entity("TENANT", tenant_uuid(device.tenant)),
        "customerId": entity("CUSTOMER", device.owner or NOBODY),
        "name": device.name,
        "type": device.shown_type,
        "label": None,
        "externalId": device.external_id or None,
        "additionalInfo": {"gateway": device.is_gateway, "enabled": device.enabled},
    }
