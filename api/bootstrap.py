"""Bootstrap files: tenants, products, devices, people and chains that shall exist. Applied again, they do nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from jsonschema import Draft202012Validator
from msgspec import Meta
from msgspec.structs import replace
from referencing import Registry as References

from api.accounts import Accounts
from api.activity import FACET as SILENCE
from api.bootstrap_apps import AppEntry, CodeEntry, make_app, make_code
from api.bootstrap_firmware import FirmwareEntry, Packages, put_firmware
from api.flow.facets import check_facets
from api.networks import FACETS
from api.provision_facet import Provision
from chains.compiler import check_chain
from chains.model import pointer
from chains.repository import DEFAULT_ROOT, ChainRepository
from chains.wording import explain
from engine.errors import BadInput, Conflict, Finding, InvalidDocument, NotFound
from engine.node import Product
from engine.retention import MOST_DAYS
from engine.stores.apps.activations import Activations
from engine.stores.apps.apps import Apps
from engine.stores.links import all_normalized
from engine.stores.people import Role, folded
from engine.stores.registry import Credential, Device, Registry, Tenant, fingerprint


class TenantEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant."""

    name: str
    root_chain: Annotated[str, Meta(description="The chain that its messages start in.")] = DEFAULT_ROOT


class CredentialEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device proves itself with."""

    kind: Annotated[str, Meta(description="ACCESS_TOKEN, MQTT_BASIC, CT_TOKEN or X509_CERTIFICATE.")]
    value: Annotated[
        str, Meta(description="Its secret; of X509_CERTIFICATE the certificate as PEM, or its SHA-256 fingerprint.")
    ] = ""
    username: str = ""
    client_id: str = ""


class DeviceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device. Without an id it is known by its external id, or else by its name."""

    tenant: str
    name: str
    id: str = ""
    external_id: str = ""
    product: str = ""
    enabled: bool = True
    parent: str = ""
    is_gateway: bool = False
    links: Annotated[
        dict[str, str],
        Meta(description="Its ids in radio networks, unique in its product: `sigfox`, and `lorawan`, the DevEUI."),
    ] = {}
    credentials: Annotated[
        list[CredentialEntry] | None, Meta(description="All that it shall have; left out: they stay as they are.")
    ] = None


class PersonEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who logs in with a password."""

    tenant: str
    username: Annotated[str, Meta(description="Unique over the server, whatever its case.")]
    password: str
    role: Annotated[Role, Meta(description="`customer` sees the devices that they claimed.")] = "tenant_admin"
    enabled: bool = True


class Stores(NamedTuple):
    """What else a document may speak of; without one, it may not."""

    accounts: Accounts | None = None
    apps: Apps | None = None
    activations: Activations | None = None
    packages: Packages | None = None


class Summary(msgspec.Struct, kw_only=True):
    """What was made or changed, by name; all empty when everything was as it should be."""

    tenants: list[str] = []
    products: list[str] = []
    devices: list[str] = []
    people: list[str] = []
    apps: list[str] = []
    activation_codes: list[str] = []
    firmware: list[str] = []
    chains: list[str] = []
    deployments: dict[str, int] = {}
    """Tenant to the number of its new deployment."""


_NO_STORES: Final = Stores()
_PRODUCT_KEYS: Final = ("id", "tenant", "name")


def bootstrap_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of bootstrap files. What the chains in them must be is said by the schema of chains."""
    facets = {"provision": Provision, **FACETS}
    entries = [TenantEntry, DeviceEntry, PersonEntry, AppEntry, CodeEntry, FirmwareEntry]
    (tenant, device, person, app, code, image, *shapes), definitions = msgspec.json.schema_components(
        [*entries, *facets.values()], ref_template="#/$defs/{name}"
    )
    text = {"type": "string"}
    product = {
        "type": "object",
        "description": "A product; every other key is a facet, as `transform`, `events` and `protobuf` are.",
        "required": ["id", "tenant"],
        "properties": {
            "id": text,
            "tenant": text,
            "name": text,
            "transform": {"type": "object", "description": "The transform function: `{lang, source}`."},
            "events": {"type": "object", "description": "Functions that answer events: `{event id: {lang, source}}`."},
            "protobuf": {"type": "object", "description": "`{descriptor_set_b64, message}`."},
            SILENCE: {"type": "number", "minimum": 1, "description": "How long its devices may be silent, in seconds."},
            "payload": {"enum": ["json", "custom"], "description": "`custom`: telemetry is bytes for `transform`."},
            "retention_days": {
                "type": "integer", "minimum": 0, "maximum": MOST_DAYS,
                "description": "Days that points of its devices are kept; 0: for ever. By default as the setting says.",
            },
            **dict(zip(facets, shapes, strict=True)),
        },
    }  # fmt: skip
    chain = {
        "type": "object",
        "description": "A chain file, and the tenant whose chain it is.",
        "required": ["tenant", "chain", "start", "nodes"],
        "properties": {"tenant": text, "chain": text},
    }
    lists = {
        "tenants": tenant, "products": product, "devices": device, "firmware": image, "people": person, "apps": app,
        "activation_codes": code, "chains": chain,
    }  # fmt: skip
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Bootstrap file",
        "description": "What shall exist on a server. Applying it again changes nothing.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "$schema": text,
            **{name: {"type": "array", "items": item} for name, item in lists.items()},
        },
        "$defs": definitions,
    }


async def apply(
    document: Any,
    registry: Registry,
    repository: ChainRepository,
    stores: Stores = _NO_STORES,
    *,
    keep_chains: bool = False,
) -> Summary:
    """Make everything in the document exist, and return what had to be made or changed.

    InvalidDocument with every finding. Those about the document itself come before anything is written; an id, a name
    or a credential that belongs to something else is only found on the way, and then the rest has been applied.
    What is not among the `stores` cannot be in it. With `keep_chains`, chains that exist stay as somebody may have
    edited them.
    """
    findings = check_shape(document)
    if findings:
        raise InvalidDocument(findings)
    work = _Work(document, registry, repository, stores, keep_chains)
    await work.check()
    if work.findings:
        raise InvalidDocument(work.findings)
    await work.write()
    if work.findings:
        raise InvalidDocument(work.findings)
    return work.summary


def check_shape(document: Any) -> list[Finding]:
    """Everything in which a document is not of the schema, sorted by place."""
    # An empty registry: a reference to anywhere outside the schema is an error, not a download.
    validator = Draft202012Validator(bootstrap_schema(), registry=References())
    errors = sorted(validator.iter_errors(document), key=lambda error: [str(step) for step in error.absolute_path])
    return [finding for error in errors for finding in explain(error)]


class _Work:
    """One application of a document that has the right shape."""

    def __init__(
        self,
        document: Mapping[str, Any],
        registry: Registry,
        repository: ChainRepository,
        stores: Stores,
        keep: bool,
    ) -> None:
        self.registry, self.repository, self.stores, self.keep = registry, repository, stores, keep
        self.tenants = msgspec.convert(document.get("tenants", []), list[TenantEntry])
        self.products: list[dict[str, Any]] = document.get("products", [])
        self.devices = msgspec.convert(document.get("devices", []), list[DeviceEntry])
        self.people = msgspec.convert(document.get("people", []), list[PersonEntry])
        self.apps = msgspec.convert(document.get("apps", []), list[AppEntry])
        self.codes = msgspec.convert(document.get("activation_codes", []), list[CodeEntry])
        self.firmware = msgspec.convert(document.get("firmware", []), list[FirmwareEntry])
        self.chains: list[dict[str, Any]] = document.get("chains", [])
        self.findings: list[Finding] = []
        self.summary = Summary()

    # What is wrong with the document

    async def check(self) -> None:
        """Find what the schema cannot say."""
        self._twice("tenants", (entry.name for entry in self.tenants), "tenant")
        self._twice("products", (entry["id"] for entry in self.products), "product")
        self._twice("devices", (entry.id for entry in self.devices), "device id")
        self._twice("devices", (entry.external_id for entry in self.devices), "external id")
        self._twice("devices", (f"{entry.tenant}/{entry.name}" for entry in self.devices), "device")
        self._twice("chains", (f"{entry['tenant']}/{entry['chain']}" for entry in self.chains), "chain")
        self._twice("people", (folded(entry.username) for entry in self.people), "user name")
        self._twice("apps", (entry.id for entry in self.apps), "app")
        self._twice("activation_codes", (entry.code for entry in self.codes), "code")
        self._twice("firmware", (f"{entry.product}/{entry.id}" for entry in self.firmware), "firmware")
        for what, asked, store in (
            ("people", self.people, self.stores.accounts), ("apps", self.apps, self.stores.apps),
            ("activation_codes", self.codes, self.stores.activations),
            ("firmware", self.firmware, self.stores.packages),
        ):  # fmt: skip
            if asked and store is None:
                self._find(f"/{what}", "cannot be made here")
        known = {entry.name for entry in self.tenants} | {entry.name for entry in await self.registry.tenants()}
        named = [("products", i, entry["tenant"]) for i, entry in enumerate(self.products)]
        named += [("devices", i, entry.tenant) for i, entry in enumerate(self.devices)]
        named += [("people", i, entry.tenant) for i, entry in enumerate(self.people)]
        named += [("apps", i, app.tenant) for i, app in enumerate(self.apps)]
        named += [("activation_codes", i, code.tenant) for i, code in enumerate(self.codes)]
        named += [("firmware", i, image.tenant) for i, image in enumerate(self.firmware)]
        named += [("chains", i, entry["tenant"]) for i, entry in enumerate(self.chains)]
        for what, i, tenant in named:
            if tenant not in known:
                self._find(pointer(what, i, "tenant"), f"there is no tenant {tenant!r}, here or on the server")
        for i, product in enumerate(self.products):
            for finding in check_facets(_facets(product)):
                self._find(pointer("products", i) + finding.pointer, finding.message)
        await self._check_chains()

    def _twice(self, what: str, names: Iterable[str], word: str) -> None:
        seen: dict[str, int] = {}
        for i, name in enumerate(names):
            if name and seen.setdefault(name, i) != i:
                self._find(pointer(what, i), f"the {word} {name!r} stands at {pointer(what, seen[name])} already")

    async def _check_chains(self) -> None:
        for i, entry in enumerate(self.chains):
            tenant, document = entry["tenant"], _document(entry)
            others = {
                info.name: (await self.repository.get(tenant, info.name))[1]
                for info in await self.repository.list(tenant)
            }
            others |= {other["chain"]: _document(other) for other in self.chains if other["tenant"] == tenant}
            others.pop(entry["chain"], None)
            secrets = await self.registry.secrets(tenant)
            found = check_chain(document, self.repository.catalogue, others, tenant=tenant, secrets=secrets.get)
            for finding in found:
                self._find(pointer("chains", i) + finding.pointer, finding.message)

    def _find(self, place: str, message: str) -> None:
        self.findings.append(Finding(place, message))

    # Making it so

    async def write(self) -> None:
        """Make or change what is not as it should be."""
        for i, tenant in enumerate(self.tenants):
            await self._try(pointer("tenants", i), self._tenant(tenant))
        for i, product in enumerate(self.products):
            await self._try(pointer("products", i), self._product(product))
        for i, device in enumerate(self.devices):
            await self._try(pointer("devices", i), self._device(device))
        for i, image in enumerate(self.firmware):
            await self._try(pointer("firmware", i), self._firmware(image))
        for i, person in enumerate(self.people):
            await self._try(pointer("people", i), self._person(person))
        for i, app in enumerate(self.apps):
            await self._try(pointer("apps", i), self._app(app))
        for i, code in enumerate(self.codes):
            await self._try(pointer("activation_codes", i), self._code(code))
        names = {entry.name for entry in self.tenants} | {entry["tenant"] for entry in self.chains}
        for name in sorted(names):
            first = next((i for i, entry in enumerate(self.chains) if entry["tenant"] == name), None)
            place = "/tenants" if first is None else pointer("chains", first)
            await self._try(place, self._deploy(name))

    async def _try(self, place: str, work: Any) -> None:
        try:
            await work
        except BadInput as error:
            self._find(place + error.pointer, error.reason)
        except (Conflict, NotFound) as error:
            self._find(place, str(error))
        except InvalidDocument as error:
            for finding in error.findings:
                self._find(place + finding.pointer, finding.message)

    async def _tenant(self, entry: TenantEntry) -> None:
        try:
            known = await self.registry.tenant(entry.name)
        except NotFound:
            known = None
        if known is None or known.root_chain != entry.root_chain:
            await self.registry.put_tenant(Tenant(name=entry.name, root_chain=entry.root_chain))
            self.summary.tenants.append(entry.name)

    async def _product(self, entry: dict[str, Any]) -> None:
        wanted = Product(
            id=entry["id"], tenant=entry["tenant"], name=entry.get("name", ""), facets=_facets(entry)
        )  # fmt: skip
        try:
            known = await self.registry.product(wanted.tenant, wanted.id)
        except NotFound:
            known = None
        if known is None or (known.name, known.facets) != (wanted.name, wanted.facets):
            kept = await self.registry.put_product(wanted)
            if self.stores.apps is not None:
                await self.stores.apps.product_changed(kept)
            self.summary.products.append(wanted.id)

    async def _device(self, entry: DeviceEntry) -> None:
        known = await self._known_device(entry)
        wanted = Device(
            id=entry.id or (known.id if known else ""), tenant=entry.tenant, name=entry.name,
            external_id=entry.external_id, product=entry.product, enabled=entry.enabled, parent=entry.parent,
            is_gateway=entry.is_gateway, links=all_normalized(entry.links),
        )  # fmt: skip
        credentials = None
        prints = known.credentials if known else []
        if entry.credentials is not None:
            credentials = [Credential(**msgspec.structs.asdict(each)) for each in entry.credentials]
            prints = []
            for i, each in enumerate(credentials):
                try:
                    prints.append(f"{each.kind}:{fingerprint(wanted, each)}")
                except BadInput as error:
                    raise BadInput(error.reason, pointer("credentials", i) + error.pointer) from error
        if known is not None:
            same = replace(
                wanted, credentials=prints, created_ms=known.created_ms, activated_ms=known.activated_ms,
                owner=known.owner, type=known.type,
            )  # fmt: skip
            if same == known:
                return
        await self.registry.put_device(wanted, credentials)
        if known is not None and known.product != wanted.product and self.stores.apps is not None:
            await self.stores.apps.forget_thing(known.tenant, known.id)
        self.summary.devices.append(entry.name)

    async def _known_device(self, entry: DeviceEntry) -> Device | None:
        if entry.id:
            return await self.registry.find_device(entry.id)
        try:
            return await self.registry.device(entry.tenant, entry.external_id or entry.name)
        except NotFound:
            return None

    async def _firmware(self, entry: FirmwareEntry) -> None:
        assert self.stores.packages is not None
        if await put_firmware(self.stores.packages, self.registry, entry):
            self.summary.firmware.append(f"{entry.product}/{entry.id}")

    async def _person(self, entry: PersonEntry) -> None:
        assert self.stores.accounts is not None
        accounts, wanted = self.stores.accounts, {"role": entry.role, "enabled": entry.enabled}
        known = await accounts.people.named(entry.username)
        if known is None:
            await accounts.add(entry.tenant, entry.username, entry.password, entry.role, enabled=entry.enabled)
        elif known.tenant != entry.tenant:
            raise Conflict(f"another tenant's person has the name {entry.username!r}")
        elif not await accounts.is_password(known, entry.password):
            kept = await accounts.hashed(entry.password)
            await accounts.people.change(known.tenant, known.id, lambda old: replace(old, password=kept, **wanted))
        elif (known.role, known.enabled) != (entry.role, entry.enabled):
            await accounts.people.change(known.tenant, known.id, lambda old: replace(old, **wanted))
        else:
            return
        self.summary.people.append(entry.username)

    async def _app(self, entry: AppEntry) -> None:
        assert self.stores.apps is not None
        if await make_app(self.stores.apps, entry):
            self.summary.apps.append(entry.id)

    async def _code(self, entry: CodeEntry) -> None:
        assert self.stores.activations is not None
        await self.registry.product(entry.tenant, entry.product)
        if await make_code(self.stores.activations, entry):
            # The code is a secret: its product has to do.
            self.summary.activation_codes.append(f"for {entry.product}")

    async def _deploy(self, tenant: str) -> None:
        existing = {info.name for info in await self.repository.list(tenant)}
        before = await self.repository.current(tenant)
        names: dict[str, int | None] = {}
        for entry in self.chains:
            name = entry["chain"]
            if entry["tenant"] != tenant or (self.keep and name in existing):
                continue
            names[name] = version = await self.repository.save(tenant, _document(entry))
            if before is None or before.chains.get(name) != version:
                self.summary.chains.append(f"{tenant}/{name}")
        root = (await self.registry.tenant(tenant)).root_chain
        if root == DEFAULT_ROOT and root not in names and before is None:
            await self.repository.ensure_default(tenant)
        if self.keep and before is not None:
            return
        if root not in names and not (before and root in before.chains) and root != DEFAULT_ROOT:
            names[root] = None
        number = await self.repository.deploy(tenant, names, root, "bootstrap")
        if before is None or number != before.number:
            self.summary.deployments[tenant] = number


def _facets(product: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in product.items() if key not in _PRODUCT_KEYS}


def _document(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "tenant"}
