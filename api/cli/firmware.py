"""`rulemill firmware`: firmware and software images of products, who has them, and how far devices are."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from api.cli.arguments import confirm
from api.cli.client import Server, with_server
from api.cli.output import local_time, print_fields, print_json, print_table, size

_UNFIT: Final = re.compile(r"[^ -~]|[\"\\;]")
"""What a file's name cannot have on its way to devices."""

PRODUCT = click.argument("product")
SOFTWARE = click.option("--software", is_flag=True, help="Software, not firmware.")
DEVICE = click.option("--device", metavar="DEVICE", help="One device only, whatever its product has.")


@click.group()
def firmware() -> None:
    """Firmware and software: upload images, assign them, see what becomes of it.

    \b
    PRODUCT is the id of a product. An image has an id in it, and for
    ThingsBoard's devices a title and a version.
    """


@firmware.command("list")
@PRODUCT
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def list_images(server: Server, product: str, as_json: bool) -> None:
    """List a product's images.

    \b
    Example:
      rulemill firmware list thermostat
    """
    found = server.get(_of(server, product, "firmware"))["firmware"]
    if as_json:
        print_json(found)
    elif not found:
        click.echo(f"{product} has no images yet. Upload one: rulemill firmware upload {product} FILE")
    else:
        print_table(
            ("ID", "KIND", "TITLE", "VERSION", "SIZE", "CHECKSUM", "UPLOADED"),
            [
                (one["id"], one["kind"], one["title"], one["version"], one["url"] or size(one["size"]),
                 f"{one['algorithm']} {one['checksum'][:16]}" if one["checksum"] else "", local_time(one["created_ms"]))
                for one in found
            ],
        )  # fmt: skip


@firmware.command()
@PRODUCT
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--id", "id_", metavar="ID", help="Its id; the version by default.")
@click.option("--title", default="", metavar="TEXT", help="What devices know it by; the product's id by default.")
@click.option("--version", "version", default="", metavar="TEXT", help="The id by default.")
@SOFTWARE
@click.option("--tag", default="", metavar="TEXT", help="Told to devices besides.")
@click.option("--from-url", default="", metavar="URL", help="Where devices fetch it, in place of a FILE.")
@click.option(
    "--algorithm",
    type=click.Choice(["MD5", "SHA256", "SHA384", "SHA512", "CRC32", "MURMUR3_32", "MURMUR3_128"]),
    help="Of the checksum that devices get; SHA256 by default.",
)
@click.option("--checksum", default="", metavar="HEX", help="What it must be; with --from-url, what devices are told.")
@with_server()
def upload(
    server: Server, product: str, file: BinaryIO | None, id_: str | None, title: str, version: str, software: bool,
    tag: str, from_url: str, algorithm: str | None, checksum: str,
) -> None:  # fmt: skip
    """Upload FILE as an image of a product, at most 16 MiB; or say by --from-url where it is.

    \b
    Examples:
      rulemill firmware upload thermostat image.bin --version 1.2
      rulemill firmware upload thermostat --from-url https://example.com/2.0.img --version 2.0
    """
    if (file is None) == (not from_url):
        raise click.UsageError("give a FILE or a --from-url")
    if not id_ and not version:
        raise click.UsageError("give a --version, or an --id")
    query = {
        "title": title, "version": version, "kind": _kind(software).upper(), "tag": tag, "url": from_url,
        "algorithm": algorithm, "checksum": checksum,
        "file_name": "" if file is None else _UNFIT.sub("_", Path(file.name).name),
    }  # fmt: skip
    where = _of(server, product, "firmware", id_ or version)
    made = server.call("PUT", where, b"" if file is None else file.read(), query=query, answer_s=600)
    told = f"{made['algorithm']} {made['checksum']}" if made["checksum"] else "without a checksum"
    click.echo(f"{made['title']} {made['version']} is there, id {made['id']}, {told}.")
    flag = " --software" if software else ""
    click.echo(f"Let devices have it: rulemill firmware assign {product} {made['id']}{flag}")


@firmware.command()
@PRODUCT
@click.argument("image")
@DEVICE
@SOFTWARE
@with_server()
def assign(server: Server, product: str, image: str, device: str | None, software: bool) -> None:
    """Let all devices of a product have IMAGE, or one of them; they are told in the background.

    \b
    Examples:
      rulemill firmware assign thermostat 1.2
      rulemill firmware assign thermostat 1.3-beta --device greenhouse-1
    """
    server.call("PUT", _rollout(server, product, device, software), {"firmware": image})
    click.echo(f"Assigned. How far it is: rulemill firmware status {product}")


@firmware.command()
@PRODUCT
@DEVICE
@SOFTWARE
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_server()
def unassign(server: Server, product: str, device: str | None, software: bool, yes: bool) -> None:
    """Take what is assigned from a product; or what a device has of its own.

    \b
    Example:
      rulemill firmware unassign thermostat --yes
    """
    whose = f"device {device}" if device else f"all devices of {product}"
    confirm(f"Take the {_kind(software)} that is assigned from {whose}?", yes)
    server.call("DELETE", _rollout(server, product, device, software))
    click.echo("Done; devices are told.")


@firmware.command()
@PRODUCT
@click.argument("image")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_server()
def delete(server: Server, product: str, image: str, yes: bool) -> None:
    """Delete an image that is assigned to nobody.

    \b
    Example:
      rulemill firmware delete thermostat 1.1 --yes
    """
    confirm(f"Delete {image} of {product}?", yes)
    server.call("DELETE", _of(server, product, "firmware", image))
    click.echo(f"Deleted {image}.")


@firmware.command()
@PRODUCT
@click.option("--devices", is_flag=True, help="Each device with what it says.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def status(server: Server, product: str, devices: bool, as_json: bool) -> None:
    """Show how far a product's devices have been told, and what they say.

    \b
    Examples:
      rulemill firmware status thermostat
      rulemill firmware status thermostat --devices
    """
    rollouts = server.get(_of(server, product, "rollouts"))["rollouts"]
    updates = list(server.pages(_of(server, product, "updates"), "updates", cursor="after"))
    if as_json:
        print_json({"rollouts": rollouts, "updates": updates})
        return
    if not rollouts and not updates:
        click.echo(f"Nothing is assigned. Assign something: rulemill firmware assign {product} IMAGE")
        return
    for one in rollouts:
        print_fields(_rollout_fields(one))
        click.echo()
    if devices:
        print_table(
            ("DEVICE", "KIND", "IMAGE", "STATE", "SINCE", "VERSION", "ERROR"),
            [
                (one["device_name"], one["kind"], one["firmware"] + (" (own)" if one["own"] else ""), one["state"],
                 local_time(one["state_ms"]), one["current_version"], one["error"])
                for one in updates
            ],
        )  # fmt: skip
    else:
        counts = Counter((one["kind"], one["state"] or "not heard of") for one in updates)
        print_table(("KIND", "STATE", "DEVICES"), [(*key, str(n)) for key, n in sorted(counts.items())])


def _rollout_fields(one: dict[str, Any]) -> list[tuple[str, str]]:
    far = f", {one['scanned']} of {one['of']} looked at"
    return [
        (one["kind"].lower(), one["image"] or "none"),
        ("assigned", local_time(one["started_ms"])),
        ("told", f"{one['told']} devices{'' if one['finished_ms'] else far}"),
        ("all told", local_time(one["finished_ms"])),
    ]


def _kind(software: bool) -> str:
    return "software" if software else "firmware"


def _of(server: Server, product: str, *steps: str) -> str:
    return server.of_tenant("products", product, *steps)


def _rollout(server: Server, product: str, device: str | None, software: bool) -> str:
    if device is not None:
        return server.of_tenant("devices", device, "rollouts", _kind(software))
    return _of(server, product, "rollouts", _kind(software))
