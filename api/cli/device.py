"""`rulemill device`: devices, what they prove themselves with, and whether they are there."""

from __future__ import annotations

from typing import Any, Final, TextIO

import click

from api.cli.arguments import confirm
from api.cli.client import Server, with_server
from api.cli.device_talk import attributes, commands, rpc
from api.cli.output import Failed, local_time, more, note, print_fields, print_json, print_table, take

KINDS: Final = {
    "access-token": "ACCESS_TOKEN", "mqtt-basic": "MQTT_BASIC", "ct-token": "CT_TOKEN", "x509": "X509_CERTIFICATE",
}  # fmt: skip
"""A kind of credential as the flag says it, to the API's word."""
RENEWED: Final = {flag: word for flag, word in KINDS.items() if flag != "x509"}

DEVICE: Final = click.argument("device")


@click.group()
def device() -> None:
    """Devices: make them, see them, talk to them.

    \b
    DEVICE is always a name, an external id or an id.
    """


@device.command("list")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def list_devices(server: Server, limit: int, as_json: bool) -> None:
    """List the tenant's devices by name.

    \b
    Examples:
      rulemill device list
      rulemill device list --json | jq -r '.[].name'
    """
    page = min(limit, 1000)
    found, rest = take(server.pages(server.of_tenant("devices"), "devices", cursor="after", page=page), limit)
    if as_json:
        print_json(found)
    elif not found:
        click.echo(f"Tenant {server.tenant} has no device yet. Make one: rulemill device add NAME")
    else:
        print_table(
            ("NAME", "ID", "EXTERNAL ID", "PRODUCT", "CREDENTIALS", "CREATED"),
            [
                (one["name"] + ("" if one["enabled"] else " (disabled)"), one["id"], one["external_id"],
                 one["product"], ", ".join(one["credentials"]), local_time(one["created_ms"]))
                for one in found
            ],
        )  # fmt: skip
    more(rest, limit)


@device.command()
@DEVICE
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def show(server: Server, device: str, as_json: bool) -> None:
    """Show one device.

    \b
    Example:
      rulemill device show demo-thermometer
    """
    found = server.get(server.of_tenant("devices", device))
    if as_json:
        print_json(found)
    else:
        _show(found)


@device.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), help="Kind of its credential; access-token by default.")
@click.option("--token", metavar="T", help="Its access token; made up by default.")
@click.option("--ct-token", metavar="T", help="Its CloudThing token; with --kind ct-token made up.")
@click.option("--username", default="", metavar="NAME", help="With --kind mqtt-basic.")
@click.option("--client-id", default="", metavar="ID", help="With --kind mqtt-basic.")
@click.option("--password", metavar="P", help="With --kind mqtt-basic; made up by default.")
@click.option(
    "--certificate",
    type=click.File(),
    metavar="FILE",
    help="Its X.509 certificate as PEM, or a file with the SHA-256 fingerprint; its key stays with it.",
)
@click.option(
    "--external-id",
    default="",
    metavar="ID",
    help="Its id at CloudThing's connectors; of a ct-token device, NAME by default.",
)
@click.option("--product", default="", metavar="ID", help="The product it is one of.")
@click.option("--gateway", is_flag=True, help="It speaks for other devices.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server(token="--operator-token")
def add(
    server: Server, name: str, kind: str | None, token: str | None, ct_token: str | None, username: str,
    client_id: str, password: str | None, certificate: TextIO | None, external_id: str, product: str, gateway: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Make a device and print its credential, this once.

    \b
    Here --token is the device's; the operator's is --operator-token.
    Examples:
      rulemill device add greenhouse-1
      rulemill device add greenhouse-2 --token SECRET-OF-MINE
      rulemill device add sensor-3 --kind ct-token --external-id 1A2B3C --product sensor
      rulemill device add plc --kind mqtt-basic --username plc
      rulemill device add meter --certificate meter.pem
    """
    pem = certificate.read() if certificate is not None else None
    secrets = {"access-token": token, "ct-token": ct_token, "mqtt-basic": password, "x509": pem}
    given = [key for key, value in secrets.items() if value is not None]
    chosen = kind or (given[0] if given else "access-token")
    if any(key != chosen for key in given):
        raise click.UsageError("a device is made with one credential: its kind and its secret must fit")
    if chosen == "mqtt-basic" and not (username or client_id):
        raise click.UsageError("--kind mqtt-basic needs --username or --client-id")
    if chosen != "mqtt-basic" and (username or client_id):
        raise click.UsageError("--username and --client-id go with --kind mqtt-basic")
    if chosen == "x509" and not pem:
        raise click.UsageError("--kind x509 needs --certificate")
    if secrets[chosen] == "":
        raise click.UsageError("the secret cannot be empty; leave the option out and one is made up")
    body = {
        "name": name, "external_id": external_id or (name if chosen == "ct-token" else ""), "product": product,
        "is_gateway": gateway,
        "credentials": [_credential(chosen, secrets[chosen] or "", username, client_id)],
    }  # fmt: skip
    made = server.call("POST", server.of_tenant("devices"), body)
    if as_json:
        print_json(made)
        return
    click.echo(f"Made device {made['name']}, id {made['id']}.")
    _tell_secrets(made)
    if chosen == "access-token":
        secret = made["secrets"][0]["value"]
        click.echo(f"Try it: curl -d '{{\"temperature\": 21}}' {server.url}/api/v1/{secret}/telemetry")


@device.command()
@DEVICE
@click.option("--kind", type=click.Choice(list(RENEWED)), help="Which kind, if it has several.")
@click.option("--username", default="", metavar="NAME", help="With --kind mqtt-basic.")
@click.option("--client-id", default="", metavar="ID", help="With --kind mqtt-basic.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def token(server: Server, device: str, kind: str | None, username: str, client_id: str, as_json: bool) -> None:
    """Give a device a fresh secret and print it, this once; the old one is void at once.

    \b
    Example:
      rulemill device token greenhouse-1
    """
    known = server.get(server.of_tenant("devices", device))
    # A certificate is made anew where its key is.
    kinds = sorted(set(known["credentials"]) & set(RENEWED.values()))
    if kind is None and len(kinds) != 1:
        has = f"has {', '.join(kinds)}: say which with --kind" if kinds else "has no credential that could be renewed"
        raise Failed(f"{known['name']} {has}")
    flag = kind or next(flag for flag, word in KINDS.items() if word == kinds[0])
    if flag == "mqtt-basic" and not (username or client_id):
        raise click.UsageError("--kind mqtt-basic needs --username or --client-id, as they shall be from now on")
    body = _credential(flag, "", username, client_id)
    made = server.call("POST", server.of_tenant("devices", known["id"], "credentials", "rotate"), body)
    if as_json:
        print_json(made)
    else:
        _tell_secrets(made)


@device.command()
@DEVICE
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_server()
def delete(server: Server, device: str, yes: bool) -> None:
    """Delete a device and everything it has stored.

    \b
    Example:
      rulemill device delete greenhouse-1 --yes
    """
    known = server.get(server.of_tenant("devices", device))
    confirm(f"Delete {known['name']} with all its points, attributes and alarms?", yes)
    answer = server.call("DELETE", server.of_tenant("devices", known["id"]), answer_s=600)
    click.echo(f"Deleted {known['name']}.")
    for each in (answer or {}).get("left", []):
        note(f"Not deleted: {each}")


for verb in (attributes, rpc, commands):
    device.add_command(verb)


def _credential(flag: str, value: str, username: str, client_id: str) -> dict[str, Any]:
    return {"kind": KINDS[flag], "value": value, "username": username, "client_id": client_id}


def _tell_secrets(made: dict[str, Any]) -> None:
    """Credentials that were just set, and that they will not be seen again."""
    rows = []
    for secret in made["secrets"]:
        user = (("user name", secret["username"]), ("client id", secret["client_id"]))
        if secret["kind"] == KINDS["x509"]:
            rows.append((secret["kind"], "the certificate that was given"))
            continue
        rows += [(secret["kind"], secret["value"]), *user]
        if secret["kind"] == "CT_TOKEN":
            rows.append(("device id", made["external_id"]))
    print_fields(rows)
    click.echo("This is not shown again.")


def _show(one: dict[str, Any]) -> None:
    print_fields(
        [
            ("name", one["name"]),
            ("id", one["id"]),
            ("external id", one["external_id"]),
            ("product", one["product"]),
            ("enabled", "yes" if one["enabled"] else "no"),
            ("gateway", "yes" if one["is_gateway"] else ""),
            ("parent", one["parent"]),
            ("credentials", ", ".join(one["credentials"]) or "none"),
            ("created", local_time(one["created_ms"])),
            ("first message", local_time(one["activated_ms"])),
        ]
    )
