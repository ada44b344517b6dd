"""A certificate authority of one sandbox alone, for TLS that the proxy ends to add a secret."""

import datetime
import functools
import ssl
import tempfile
from pathlib import Path
from typing import Any

from ringfence.errors import UnsupportedError

_DAYS = 2
_CONTEXTS_KEPT = 32
"""A secret for a suffix makes one for every name below it that a sandbox connects to."""


class Authority:
    """Signs certificates for the hosts of a sandbox's secrets. Its key never leaves this process.

    pem: the authority's own certificate, for the sandbox to trust. context: a server's TLS context
    for a host. UnsupportedError where the `cryptography` package is missing.
    """

    def __init__(self, sandbox_id: str) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric import ec
        except ImportError:
            raise UnsupportedError(
                "network.secrets: headers inside TLS need the cryptography package: pip install"
                " 'ringfence[tls]', or set tls to false",
                op="open",
            ) from None
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = f"Ringfence sandbox {sandbox_id}"
        self._certificate = _sign(
            self._key.public_key(), self._name, self._name, self._key, ca=True
        )
        self.context = functools.lru_cache(maxsize=_CONTEXTS_KEPT)(self._context)

    @property
    def pem(self) -> bytes:
        """The certificate to trust, in PEM."""
        return _pem(self._certificate)

    def _context(self, host: str) -> ssl.SSLContext:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(key.public_key(), host, self._name, self._key, ca=False)
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        with tempfile.TemporaryDirectory(prefix="ringfence-") as directory:
            chain = Path(directory, "chain.pem")
            chain.touch(mode=0o600)
            chain.write_bytes(secret + _pem(certificate))
            context.load_cert_chain(chain)
        return context


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    found: bytes = certificate.public_bytes(serialization.Encoding.PEM)
    return found


def _sign(public: Any, subject: str, issuer: str, key: Any, *, ca: bool) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer[:64])]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(_usage(ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    if not ca:
        name = x509.SubjectAlternativeName([x509.DNSName(subject)])
        builder = builder.add_extension(name, critical=False)
    return builder.sign(key, hashes.SHA256())


def _usage(ca: bool) -> Any:
    """What a key may be used for; strict clients refuse an authority that does not say it."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
