"""Bootstrap files: tenants, products, devices, people and chains that shall exist. Applied again, they do nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from api.accounts import Accounts
from api.bootstrap_apps import AppEntry, CodeEntry, make_app, make_code
from api.bootstrap_chains import chain_of, check_entry, deploy
from api.bootstrap_devices import DeviceEntry, put_device
from api.bootstrap_firmware import FirmwareEntry, Packages, put_firmware
from api.bootstrap_people import PersonEntry, put_person
from api.bootstrap_products import product_of, put_product
from api.bootstrap_schema import check_shape
from api.bootstrap_tenants import TenantEntry, put_tenant
from api.flow.facets import check_facets
from chains.model import pointer
from chains.repository import ChainRepository
from engine.errors import BadInput, Conflict, Finding, InvalidDocument, NotFound
from engine.stores.apps.activations import Activations
from engine.stores.apps.apps import Apps
from engine.stores.people import folded
from engine.stores.registry_store import Registry

E = TypeVar("E")


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
    work = _Work(document, registry, repository, stores)
    await work.check()
    if work.findings:
        raise InvalidDocument(work.findings)
    await work.write()
    await work.deploy(keep_chains)
    if work.findings:
        raise InvalidDocument(work.findings)
    return work.summary


class _Work:
    """One application of a document that has the right shape."""

    def __init__(
        self, document: Mapping[str, Any], registry: Registry, repository: ChainRepository, stores: Stores
    ) -> None:
        self.registry, self.repository, self.stores = registry, repository, stores
        self.tenants = msgspec.convert(document.get("tenants", []), list[TenantEntry])
        self.products = [product_of(entry) for entry in document.get("products", [])]
        self.devices = msgspec.convert(document.get("devices", []), list[DeviceEntry])
        self.firmware = msgspec.convert(document.get("firmware", []), list[FirmwareEntry])
        self.people = msgspec.convert(document.get("people", []), list[PersonEntry])
        self.apps = msgspec.convert(document.get("apps", []), list[AppEntry])
        self.codes = msgspec.convert(document.get("activation_codes", []), list[CodeEntry])
        self.chains = [chain_of(entry) for entry in document.get("chains", [])]
        self.findings: list[Finding] = []
        self.summary = Summary()

    # What is wrong with the document

    async def check(self) -> None:
        """Find what the schema cannot say."""
        self._twice("tenants", (entry.name for entry in self.tenants), "tenant")
        self._twice("products", (entry.id for entry in self.products), "product")
        self._twice("devices", (entry.id for entry in self.devices), "device id")
        self._twice("devices", (entry.external_id for entry in self.devices), "external id")
        self._twice("devices", (f"{entry.tenant}/{entry.name}" for entry in self.devices), "device")
        self._twice("chains", (f"{entry.tenant}/{entry.name}" for entry in self.chains), "chain")
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
        await self._check_tenants()
        for i, product in enumerate(self.products):
            self._find_all(pointer("products", i), check_facets(product.facets))
        for i, chain in enumerate(self.chains):
            found = await check_entry(self.repository, self.registry, chain, self.chains)
            self._find_all(pointer("chains", i), found)

    def _twice(self, what: str, names: Iterable[str], word: str) -> None:
        seen: dict[str, int] = {}
        for i, name in enumerate(names):
            if name and seen.setdefault(name, i) != i:
                self._find(pointer(what, i), f"the {word} {name!r} stands at {pointer(what, seen[name])} already")

    async def _check_tenants(self) -> None:
        known = {entry.name for entry in self.tenants} | {entry.name for entry in await self.registry.tenants()}
        belonging: dict[str, list[str]] = {
            "products": [entry.tenant for entry in self.products],
            "devices": [entry.tenant for entry in self.devices],
            "people": [entry.tenant for entry in self.people],
            "apps": [entry.tenant for entry in self.apps],
            "activation_codes": [entry.tenant for entry in self.codes],
            "firmware": [entry.tenant for entry in self.firmware],
            "chains": [entry.tenant for entry in self.chains],
        }
        for what, tenants in belonging.items():
            for i, tenant in enumerate(tenants):
                if tenant not in known:
                    self._find(pointer(what, i, "tenant"), f"there is no tenant {tenant!r}, here or on the server")

    def _find(self, place: str, message: str) -> None:
        self.findings.append(Finding(place, message))

    def _find_all(self, place: str, found: Iterable[Finding]) -> None:
        for finding in found:
            self._find(place + finding.pointer, finding.message)

    # Making it so

    async def write(self) -> None:
        """Make or change what is not as it should be."""
        registry, made = self.registry, self.summary
        accounts, apps, activations, packages = self.stores
        await self._each("tenants", self.tenants, partial(put_tenant, registry), lambda e: e.name, made.tenants)
        await self._each("products", self.products, partial(put_product, registry, apps), lambda e: e.id, made.products)
        await self._each("devices", self.devices, partial(put_device, registry, apps), lambda e: e.name, made.devices)
        if packages is not None:
            put = partial(put_firmware, packages, registry)
            await self._each("firmware", self.firmware, put, lambda e: f"{e.product}/{e.id}", made.firmware)
        if accounts is not None:
            await self._each("people", self.people, partial(put_person, accounts), lambda e: e.username, made.people)
        if apps is not None:
            await self._each("apps", self.apps, partial(make_app, apps), lambda e: e.id, made.apps)
        if activations is not None:
            make = partial(make_code, activations, registry)
            # A code is a secret: its product has to do.
            await self._each(
                "activation_codes", self.codes, make, lambda e: f"for {e.product}", made.activation_codes
            )  # fmt: skip

    async def _each(
        self,
        what: str,
        entries: Sequence[E],
        put: Callable[[E], Awaitable[bool]],
        called: Callable[[E], str],
        made: list[str],
    ) -> None:
        """Put every entry; what it is called, where that changed anything, goes among those made."""
        for i, entry in enumerate(entries):
            with self._finding(pointer(what, i)):
                if await put(entry):
                    made.append(called(entry))

    async def deploy(self, keep: bool) -> None:
        """Deploy the chains of every tenant that the document speaks of."""
        for tenant in sorted({entry.name for entry in self.tenants} | {entry.tenant for entry in self.chains}):
            first = next((i for i, entry in enumerate(self.chains) if entry.tenant == tenant), None)
            documents = {entry.name: entry.document for entry in self.chains if entry.tenant == tenant}
            with self._finding("/tenants" if first is None else pointer("chains", first)):
                done = await deploy(self.repository, self.registry, tenant, documents, keep=keep)
                self.summary.chains += [f"{tenant}/{name}" for name in done.chains]
                if done.number is not None:
                    self.summary.deployments[tenant] = done.number

    @contextmanager
    def _finding(self, place: str) -> Iterator[None]:
        """Note what is raised in there as findings, and go on behind it."""
        try:
            yield
        except BadInput as error:
            self._find(place + error.pointer, error.reason)
        except (Conflict, NotFound) as error:
            self._find(place, str(error))
        except InvalidDocument as error:
            self._find_all(place, error.findings)
