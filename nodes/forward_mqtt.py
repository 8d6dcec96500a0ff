"""Kind `forward_mqtt`: publishes messages to an outside broker."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from nodes import (
    FAILURE,
    SUCCESS,
    BadInput,
    Build,
    CallContext,
    CallNode,
    Example,
    Finding,
    Message,
    NodeSpec,
    Relation,
)
from nodes.outward.addresses import Guard
from nodes.outward.mqtt import Publisher
from nodes.templates import Template


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """Where to and what."""

    host: Annotated[str, Meta(description="Name or address of the broker.", min_length=1)]
    topic: Annotated[str, Meta(description="Topic, a template.", min_length=1)]
    port: Annotated[int, Meta(description="Port; 0: 1883, or 8883 with TLS.", ge=0, le=65535)] = 0
    payload: Annotated[str, Meta(description="Payload, a template; empty: the message's data.")] = ""
    qos: Annotated[Literal[0, 1], Meta(description="1: the broker acknowledges each message; 0: it does not.")] = 1
    retain: Annotated[bool, Meta(description="The broker keeps the last message of the topic.")] = False
    tls: Annotated[bool, Meta(description="Encrypt, and check the broker's certificate.")] = False
    username: Annotated[str, Meta(description="User name; may be `${secret:NAME}`.")] = ""
    password: Annotated[str, Meta(description="Password; give it as `${secret:NAME}`.")] = ""
    client_id: Annotated[
        str, Meta(description="Client id; empty: one is made. A broker lets only one connection have it.")
    ] = ""
    timeout_s: Annotated[float, Meta(description="Seconds for the whole publish.", gt=0, le=300)] = 10.0
    concurrency: Annotated[int, Meta(description="Publishes at the same time per partition.", ge=1, le=1000)] = 64
    order: Annotated[
        Literal["originator", "none"],
        Meta(description="`originator`: one publish at a time per device, in order; `none`: as fast as possible."),
    ] = "originator"
    allow_private: Annotated[
        bool, Meta(description="Private addresses too, those that the server's settings permit.")
    ] = False


class ForwardMqtt(CallNode):
    """Publishes one MQTT message per message."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="forward_mqtt",
        category="external",
        summary="Publishes each message to an outside MQTT broker.",
        description=(
            "All messages share one connection, which is kept open. With QoS 1 a message goes on when the broker has "
            "acknowledged it; a broken connection is tried again. After a crash a message may be published twice. "
            "Addresses that are not public are refused."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "The broker has taken the message."),
            Relation(FAILURE, "A template asks for a key that is missing, or the broker was unreachable throughout."),
        ),
        parks=True,
        examples=(
            Example("Pass the data on", {"host": "mqtt.example.com", "topic": "plant/${deviceName}", "tls": True}),
            Example(
                "With a login",
                {
                    "host": "mqtt.example.com",
                    "topic": "alerts",
                    "payload": "${deviceName}: $[temperature]",
                    "username": "rulemill",
                    "password": "${secret:MQTT_PASSWORD}",
                },
            ),
        ),
    )
    config: Config

    def __init__(self, config: Config, build: Build) -> None:
        super().__init__(config, build)
        self.timeout_s = config.timeout_s
        self.concurrency = config.concurrency
        self.ordered = config.order == "originator"
        self._guard = Guard.from_environment(config.allow_private)
        self._topic = Template(config.topic)
        self._payload = Template(config.payload) if config.payload else None
        self._login = Template(config.username, secrets=True), Template(config.password, secrets=True)
        self._publisher: Publisher | None = None

    @classmethod
    def check(cls, config: Config, build: Build) -> list[Finding]:
        """Templates that do not compile, secrets that are missing, a login that depends on the message."""
        findings = []
        for name in ("topic", "payload", "username", "password"):
            login = name in ("username", "password")
            try:
                template = Template(getattr(config, name), secrets=login)
                for secret in template.secret_names:
                    build.secret(secret)
                if login and template.needs_message:
                    raise BadInput("the connection is shared: only secrets may be put in here")
            except BadInput as error:
                findings.append(Finding(f"/{name}", error.reason))
        return findings

    async def call(self, message: Message, ctx: CallContext) -> list[tuple[str, Message]]:
        """Publish."""
        topic = self._topic.render(message)
        if not topic or any(sign in topic for sign in "+#\0") or len(topic.encode("utf-8", "replace")) > 65_535:
            raise BadInput(f"not a topic to publish to: {topic[:80]!r}")
        await self._connection(ctx).publish(topic, self._bytes(message), qos=self.config.qos, retain=self.config.retain)
        return [(SUCCESS, message)]

    async def close(self) -> None:
        """Disconnect."""
        if self._publisher is not None:
            await self._publisher.close()

    def _connection(self, ctx: CallContext) -> Publisher:
        config = self.config
        if self._publisher is None:
            self._publisher = Publisher(
                self._guard,
                config.host,
                config.port or (8883 if config.tls else 1883),
                tls=config.tls,
                client_id=config.client_id or None,
                timeout_s=config.timeout_s,
            )
        nobody = Message(id="", ts_ms=0, tenant="", type="", originator="")
        username, password = (template.render(nobody, ctx.secret) or None for template in self._login)
        self._publisher.login(username, password)
        return self._publisher

    def _bytes(self, message: Message) -> bytes:
        if self._payload is not None:
            return self._payload.render(message).encode()
        if isinstance(message.data, bytes):
            return message.data
        try:
            return msgspec.json.encode(message.data)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadInput(f"the data is not JSON: {error}") from error
