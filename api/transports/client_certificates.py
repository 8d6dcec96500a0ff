"""TLS for listeners where a client's certificate is its credential: asked for, taken from whoever, proved by its key.

Python's own `ssl` either asks for no certificate or refuses those whose issuer it does not know, and has no hook in
between; devices bring certificates that they signed themselves. So these listeners run on pyOpenSSL behind what asyncio
and uvloop use of an `ssl.SSLContext`, which is its `wrap_bio`, and of the `SSLObject` that this gives.

The handshake proves that the client has the certificate's private key. Whose certificate it is, its fingerprint tells.
"""

from __future__ import annotations

import ssl
from typing import Any, Final, cast

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

_FORGIVEN: Final = frozenset(
    {
        2,  # its issuer is not there
        7,  # its issuer's signature does not hold
        18,  # it is signed by itself
        19,  # its issuer is signed by itself and unknown
        20,  # its issuer is unknown here
        21,  # nothing but itself was sent
        22,  # too many issuers
        24,  # its issuer may not issue
        25,  # its issuer may not issue through so many others
        26,  # it is for other purposes
        27,  # nobody here trusts it
    }
)
"""Results of OpenSSL's verification (X509_V_ERR_…) that a fingerprint makes up for. Not among them: a certificate that
has expired or is not valid yet, a key that is too weak.
"""
_CHUNK: Final = 65_536


class AskingContext(ssl.SSLContext):
    """A server's context that asks for a client certificate and needs none. Of `ssl.SSLContext` it is only the type.

    The files must hold, see `api.certificate.server_context`.
    """

    def __new__(cls, certificate: str, key: str) -> AskingContext:
        """What `ssl` wants to know of a server's context."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, certificate: str, key: str) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.use_certificate_chain_file(certificate)
        context.use_privatekey_file(key)
        context.set_verify(SSL.VERIFY_PEER, _verified)
        # Without a name of its own, OpenSSL refuses to resume sessions of clients that have a certificate.
        context.set_session_id(b"rulemill")
        self._context = context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """One connection, accepted, whose bytes are read from `incoming` and written to `outgoing`."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        # By cast: an `ssl.SSLObject` cannot be made by others, nor need it be one.
        return cast(ssl.SSLObject, AskedPeer(connection, incoming, outgoing))


class AskedPeer:
    """In the place of an `ssl.SSLObject`; raises `ssl.SSLWantReadError` and `ssl.SSLError` as one does."""

    def __init__(self, connection: SSL.Connection, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._connection = connection
        self._incoming = incoming
        self._outgoing = outgoing
        self._dry = True

    def do_handshake(self) -> None:
        """Go on with the handshake as far as the bytes go."""
        self._run(self._connection.do_handshake)

    def read(self, size: int = 1024, buffer: Any = None) -> Any:
        """Up to so many bytes, into the buffer if there is one; b"" or 0 at the end."""
        try:
            if buffer is None:
                return self._run(self._connection.recv, size)
            return self._run(self._connection.recv_into, buffer, size)
        except SSL.ZeroReturnError:
            return b"" if buffer is None else 0

    def write(self, data: Any) -> int:
        """Send bytes; how many of them."""
        try:
            return int(self._run(self._connection.send, data))
        except SSL.ZeroReturnError as error:
            raise ssl.SSLZeroReturnError("the peer has closed") from error

    def unwrap(self) -> None:
        """Say goodbye and hear it."""
        try:
            if not self._run(self._connection.shutdown) and not self._run(self._connection.shutdown):
                raise ssl.SSLWantReadError
        except SSL.ZeroReturnError:
            return

    def pending(self) -> int:
        """At least 1 as long as reading may give something: what was taken from `incoming` is not seen there."""
        return self._connection.pending() or int(not self._dry)

    def getpeercert(self, binary_form: bool = False) -> Any:
        """The client's certificate as DER, None without one. The other form, a dict, is not made here."""
        if not binary_form:
            return None
        found = self._connection.get_peer_certificate(as_cryptography=True)
        return None if found is None else found.public_bytes(Encoding.DER)

    def cipher(self) -> tuple[str, str, int] | None:
        """Name, protocol and bits of what encrypts."""
        name, version = self._connection.get_cipher_name(), self._connection.get_cipher_version()
        return None if name is None else (name, version or "", self._connection.get_cipher_bits() or 0)

    def compression(self) -> None:
        """There is none."""

    def _run(self, step: Any, *given: Any) -> Any:
        connection = self._connection
        if self._incoming.pending:
            connection.bio_write(self._incoming.read())
            self._dry = False
        try:
            return step(*given)
        except SSL.WantReadError:
            self._dry = True
            raise ssl.SSLWantReadError from None
        except SSL.ZeroReturnError:
            self._dry = True
            raise
        except SSL.Error as error:
            raise ssl.SSLError(1, _told(error)) from error
        finally:
            self._drain()

    def _drain(self) -> None:
        try:
            while True:
                self._outgoing.write(self._connection.bio_read(_CHUNK))
        except SSL.WantReadError:
            return


def _verified(connection: SSL.Connection, certificate: Any, error: int, depth: int, ok: int) -> bool:
    # Of a chain only the client's own certificate counts.
    return bool(ok) or depth > 0 or error in _FORGIVEN


def _told(error: SSL.Error) -> str:
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(each[-1]) for each in reasons) or type(error).__name__
