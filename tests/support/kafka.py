"""A Kafka broker that wants hybrid TLS with a client certificate, SASL and rights: what an operator's may be like.

Its chain is RSA: BouncyCastle has no curve for an ECDSA leaf where a client offers only X25519MLKEM768. Its provider is
configured to use BouncyCastle's own algorithms ("BC"), because it cannot use the ML-KEM of newer Java runtimes.
"""

from __future__ import annotations

import datetime
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from bench.lab.kafka import Kafka
from bench.lab.kafkatools import VERSION
from bench.lab.processes import wait_until
from tests.support.cluster import SECONDS, admin
from tests.support.patience import PATIENCE_SECONDS

CLASSES = Path(sys.prefix) / f"kafka-classes-{VERSION}.aot"
"""Kafka's classes as the Java runtime keeps them once they are loaded (JEP 483)."""
_QUICK_COMPILER = "-XX:TieredStopAtLevel=1"
UP_SOONER = (_QUICK_COMPILER, f"-XX:AOTCache={CLASSES}", "-Xlog:disable", "-Xlog:all=error:stderr")
"""For `jvm_options`: without the compiler that pays off after minutes, and with classes that are loaded already, a
broker starts with half of the work. Where there is no such file, or an outdated one, Java does without."""
BOUNCY_CASTLE = "org.bouncycastle:bctls-jdk18on:1.82"
LOGIN_MODULES = "org.apache.kafka.common.security"
_PROVIDERS = (
    "security.provider.13=org.bouncycastle.jce.provider.BouncyCastleProvider\n"
    "security.provider.14=org.bouncycastle.jsse.provider.BouncyCastleJsseProvider BC\n"
)
_GROUPS = "X25519MLKEM768,x25519,secp256r1"
_DAY = datetime.timedelta(days=1)


def secured_kafka(
    directory: Path,
    *,
    users: dict[str, str],
    client_ca: Path | None = None,
    brokers: int = 1,
    groups: str = _GROUPS,
    more: Mapping[str, str] | None = None,
) -> Kafka:
    """Not started yet. `directory/ca.pem` is what its clients must trust; `users` log in by SCRAM.

    The same authority has made client.pem and client.key, which it wants where there is no `client_ca`. With a hybrid
    group alone in `groups` it takes no ECDSA certificates.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _make_chain(directory)
    (directory / "java.security").write_text(_PROVIDERS)
    overrides = {
        "ssl.provider": "BCJSSE",
        "ssl.keymanager.algorithm": "X.509",
        "ssl.protocol": "TLSv1.3",
        "ssl.enabled.protocols": "TLSv1.3",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(directory / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(client_ca or directory / "ca.pem"),
        "listener.name.client.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.client.scram-sha-512.sasl.jaas.config": f"{LOGIN_MODULES}.scram.ScramLoginModule required;",
        "listener.name.client.plain.sasl.jaas.config": f"{LOGIN_MODULES}.plain.PlainLoginModule required "
        + " ".join(f'user_{name}="{word}"' for name, word in users.items())
        + ";",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",  # the plaintext listeners of brokers and tools
        **(more or {}),
    }
    return Kafka(
        directory / "kafka",
        brokers=brokers,
        protocol="SASL_SSL",
        host="localhost",
        overrides=overrides,
        scram=users,
        jvm_options=[
            *UP_SOONER,
            f"-Djava.security.properties={directory / 'java.security'}",
            f"-Djdk.tls.namedGroups={groups}",
        ],
        artifacts=[BOUNCY_CASTLE],
    )


def keep_classes(directory: Path) -> None:
    """Make CLASSES if nobody has: a broker that starts, and ends by itself, writes the file."""
    if CLASSES.exists():
        return
    made = directory / CLASSES.name
    with Kafka(directory / "training", jvm_options=[_QUICK_COMPILER, f"-XX:AOTCacheOutput={made}"]) as kafka:
        process = kafka.brokers[0].process
        assert process is not None
        process.terminate()
        try:
            process.wait(SECONDS + PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:  # a busy machine does without, too
            return
    if made.exists():  # else Java is too old for it
        shutil.move(made, CLASSES)


def allow(kafka: Kafka, user: str, topic: str, operations: Sequence[str]) -> None:
    """Give a user rights on a topic; returns when the broker knows of them."""
    client, rights = admin(kafka), [_right(user, topic, operation) for operation in operations]
    for done in client.create_acls(rights).values():
        done.result(SECONDS)
    assert wait_until(lambda: all(_is_known(client, right) for right in rights), SECONDS, every_seconds=0.01)


def disallow(kafka: Kafka, user: str, topic: str, operations: Sequence[str]) -> None:
    """Take them away again; returns when the broker knows of it."""
    client, rights = admin(kafka), [_right(user, topic, operation) for operation in operations]
    for done in client.delete_acls([_filter(right) for right in rights]).values():
        done.result(SECONDS)
    assert wait_until(lambda: not any(_is_known(client, right) for right in rights), SECONDS, every_seconds=0.01)


def _right(user: str, topic: str, operation: str) -> AclBinding:
    """What a user may do with a topic, from any host."""
    pattern, allowed = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
    return AclBinding(ResourceType.TOPIC, topic, pattern, f"User:{user}", "*", AclOperation[operation.upper()], allowed)


def _filter(right: AclBinding) -> AclBindingFilter:
    pattern, permission = right.resource_pattern_type, right.permission_type
    return AclBindingFilter(
        right.restype, right.name, pattern, right.principal, right.host, right.operation, permission
    )


def _is_known(client: AdminClient, right: AclBinding) -> bool:
    """Whether the broker knows of it, which it does a moment after its controller."""
    return bool(client.describe_acls(_filter(right)).result(SECONDS))


def _make_chain(directory: Path) -> None:
    ca_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ca = _certificate("test Kafka CA", ca_key, "test Kafka CA", ca_key, is_ca=True)
    ca_pem = ca.public_bytes(serialization.Encoding.PEM)
    (directory / "ca.pem").write_bytes(ca_pem)
    for name in ("broker", "client"):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        leaf = _certificate(name, key, "test Kafka CA", ca_key, is_ca=False).public_bytes(serialization.Encoding.PEM)
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        if name == "broker":
            (directory / "broker.pem").write_bytes(key_pem + leaf + ca_pem)
        else:
            (directory / "client.pem").write_bytes(leaf)
            (directory / "client.key").write_bytes(key_pem)


def _certificate(
    subject: str, key: rsa.RSAPrivateKey, issuer: str, issuer_key: rsa.RSAPrivateKey, *, is_ca: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if not is_ca:
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    # Java refuses PSS in a client's chain, for BouncyCastle names it otherwise among what may be used.
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    return builder.sign(issuer_key, hashes.SHA256(), rsa_padding=padding.PKCS1v15() if subject == "client" else pss)
