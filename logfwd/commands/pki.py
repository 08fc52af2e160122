"""`logfwd pki`: a private certificate authority for receivers and forwarders."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from cryptography import x509

from streams import program
from streams.security import renewal, revocation, stored_keys
from streams.security.authentication import signed_with, strength
from streams.security.pki import (
    DELEGATES,
    KEYS,
    LEAF_KEYS,
    ROLES,
    Authority,
    PkiError,
    create_authority,
    key_algorithm,
    signature_algorithm,
)

DIRECTORY = click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
OTHERS = "rsa (RSA 3072) and mldsa44 (ML-DSA-44), which no mode of a stream accepts, for other purposes."


def _key(kinds: Iterable[str], text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    kind = click.Choice(list(kinds))
    return click.option(
        "--key", "kind", type=kind, default="ec", show_default=True, help=f"Kind of key: {text}; {OTHERS}"
    )


def _clear_errors(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except PkiError as error:
            raise click.ClickException(str(error)) from error

    return run


@click.group(short_help="Make a private authority, and issue certificates.")
def pki() -> None:
    """Create a private certificate authority, and issue certificates."""


@pki.command()
@DIRECTORY
@_key(KEYS, "ec (ECDSA P-256); mldsa65 (ML-DSA-65, post-quantum), for modes pq-auth and kemtls")
@click.option("--name", default="logfwd private CA", show_default=True, help="Common name of the authority.")
@click.option(
    "--force", is_flag=True, help="Overwrite existing keys. Certificates issued by the old authority stop working."
)
@_clear_errors
def init(directory: Path, kind: str, name: str, force: bool) -> None:
    """Create a certificate authority and a grant key in DIRECTORY.

    Writes ca.pem, ca.key and grant.key. Copy grant.key to every receiver of a cluster, and ca.pem to every forwarder
    and receiver. Keep ca.key private.

    The authority's key signs every certificate that it issues, so modes pq-auth and kemtls demand an authority with
    --key mldsa65. Such an authority may also issue certificates with --key ec, for the other modes.
    """
    create_authority(directory, name=name, kind=kind, force=force)
    program.say(f"created ca.pem, ca.key and grant.key in {directory}")


@pki.command()
@DIRECTORY
@_key(
    LEAF_KEYS,
    "ec (ECDSA P-256), for most modes; mldsa65 (ML-DSA-65, post-quantum), for pq-auth; mlkem768 (ML-KEM-768, "
    "post-quantum, experimental), for kemtls",
)
@click.option(
    "--identity",
    "identities",
    multiple=True,
    help="Identity in the certificate: a URI (spiffe://site/host-1) or a DNS name. Receivers match it in [[allow]]. "
    "Repeatable.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="For a receiver: DNS name or IP address that forwarders connect to. Repeatable.",
)
@click.option("--days", default=90, show_default=True, type=click.IntRange(1, 825), help="Days until it expires.")
@click.option(
    "--out", required=True, help="Prefix of both files: --out forwarder makes forwarder.pem and forwarder.key."
)
@click.option(
    "--role",
    type=click.Choice(list(ROLES)),
    help="Who shows it: peers refuse it in the other role. both: a receiver that shows it to Kafka, too. Default: a "
    "receiver if there is a --host, else a forwarder.",
)
@click.option("--delegates", is_flag=True, help="Let its key sign delegated credentials (`logfwd pki delegate`).")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@_clear_errors
def issue(
    directory: Path,
    kind: str,
    identities: tuple[str, ...],
    hosts: tuple[str, ...],
    days: int,
    out: str,
    role: str | None,
    delegates: bool,
    force: bool,
) -> None:
    """Issue a certificate and its key from the authority in DIRECTORY.

    A relative --out is relative to DIRECTORY. A certificate serves one role, unless --role is both; one with --key
    mlkem768 cannot serve both.
    """
    authority = Authority.load(directory)
    files = authority.issue(
        identities=identities,
        hosts=hosts,
        out=directory / out,
        kind=kind,
        days=days,
        delegates=delegates,
        role=role or "",
        force=force,
    )
    program.say(f"created {files.certificate} and {files.key}, valid for {_days(days)}")
    signer = key_algorithm(authority.certificate)
    if strength(signed_with(signer)) < strength(signed_with(_describe(files.certificate)["key"])):
        mode = "kemtls" if kind == "mlkem768" else "pq-auth"
        program.say(
            f"note: the authority's key is {signer}, so the certificate proves no more than that; "
            f"mode {mode} refuses it. Issue it from an authority of `logfwd pki init --key mldsa65`",
            err=True,
        )


@pki.command(
    short_help="Renew certificates of the authority in DIRECTORY.",
    epilog="""\b
Examples:
  logfwd pki renew pki pki/host-1.pem
  logfwd pki renew pki pki/host-*.pem --within 30     every day, by cron""",
)
@DIRECTORY
@click.argument("certificates", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--days", type=click.IntRange(1, 825), help="Days until they expire.  [default: as long as before]")
@click.option("--within", type=click.IntRange(0), metavar="DAYS", help="Only those that expire within so many days.")
@_clear_errors
def renew(directory: Path, certificates: tuple[Path, ...], days: int | None, within: int | None) -> None:
    """Renew CERTIFICATES of the authority in DIRECTORY.

    Each NAME.pem and the NAME.key beside it are replaced: the same names, kind of key and role, a new key. Receivers
    take new files by themselves; forwarders at `logfwd reload`, with watch = true, or at their next link. For a new
    ML-KEM key of a receiver, write its file for forwarders again (`logfwd pki pdk`).
    """
    authority = Authority.load(directory)
    for path in certificates:
        left = renewal.days_left(path)
        if within is not None and left > within:
            program.say(f"kept {path}, which expires in {_days(int(left))}")
            continue
        files = renewal.renew(authority, path, days=days)
        lasts = _days(round(renewal.days_left(files.certificate)))
        program.say(f"renewed {files.certificate} and {files.key}, valid for {lasts}")


@pki.command(short_help="Revoke certificates, and renew the list of those that were.")
@DIRECTORY
@click.argument("certificates", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 825), help="Days until the next list.")
@_clear_errors
def revoke(directory: Path, certificates: tuple[Path, ...], days: int) -> None:
    """Revoke CERTIFICATES of the authority in DIRECTORY.

    Adds them to crl.pem in DIRECTORY and signs it again; without CERTIFICATES it only does the latter. Copy crl.pem to
    every receiver, which names it in crl. A receiver with crl_required refuses everybody once --days have passed.
    """
    leaves = [_chain(path)[0] for path in certificates]
    path, count = revocation.revoke(Authority.load(directory), leaves, days=days)
    program.say(f"wrote {path}: {count} revoked, the next list is due in {_days(days)}")


@pki.command(short_help="Write a receiver's key to a file for forwarders.")
@click.argument("certificate", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file to write: --out receiver.pdk.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@_clear_errors
def pdk(certificate: Path, out: Path, force: bool) -> None:
    """Write the key in a receiver's CERTIFICATE to a file for forwarders: mode kemtls-pdk (experimental).

    CERTIFICATE was issued with --key mlkem768 and --host. Copy the file to every forwarder, and name it there in
    tls.mlkem.stored_keys. It holds the key, the receiver's hosts, and when the certificate expires. It is not secret,
    but trusted: forwarders send to whoever has this key.
    """
    found = stored_keys.store(certificate, out, force=force)
    program.say(f"created {out}: for {', '.join(found.names)}, until {found.until:%Y-%m-%d %H:%M} UTC")


@pki.command()
@click.option("--certificate", required=True, type=click.Path(path_type=Path), help="Certificate that delegates.")
@click.option("--signer", "signer", required=True, type=click.Path(path_type=Path), help="Its private key.")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["receiver", "forwarder"]),
    help="Who shows the credential: peers refuse it in the other role.",
)
@click.option(
    "--key",
    "kind",
    type=click.Choice(list(DELEGATES)),
    default="mlkem768",
    show_default=True,
    help="Kind of the new key: mlkem768 for mode kemtls, mldsa65 for pq-auth, ec for the other modes with TLS 1.3.",
)
@click.option(
    "--hours", default=24.0, show_default=True, type=click.FloatRange(0, 24, min_open=True), help="Hours that it lasts."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File for the new key and its credential.")
@click.option("--force", is_flag=True, help="Replace an existing file, in one step.")
@_clear_errors
def delegate(certificate: Path, signer: Path, role: str, kind: str, hours: float, out: Path, force: bool) -> None:
    """Make a short-lived key that stands for a certificate's.

    A delegated credential (RFC 9345): the certificate's key signs the new one. Experimental. A host that shows it needs
    the certificate but not the certificate's key, which can stay elsewhere.

    The certificate must come from `logfwd pki issue --delegates`. Run this again with --force before the credential
    expires, best when half of its time has passed. A credential lasts no longer than its certificate.
    """
    from streams.security import stacks

    accepting = role == "receiver"
    until = stacks.delegate(certificate, signer, out, kind=kind, accepting=accepting, hours=hours, force=force)
    program.say(f"created {out}, for a {role}, valid until {until:%Y-%m-%d %H:%M:%S} UTC")


@pki.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_clear_errors
def show(path: Path, as_json: bool) -> None:
    """Show a certificate file, or every *.pem in a directory.

    Prints names, kind of key, expiry, issuer, and how the certificate is signed; then the same of each further
    certificate in the file (the intermediates of a chain).
    """
    rows = [_describe(file) for file in (sorted(path.glob("*.pem")) if path.is_dir() else [path])]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    now = datetime.datetime.now(datetime.UTC)
    for row in rows:
        days = (datetime.datetime.fromisoformat(row["expires"]) - now).days
        left = f"expires in {_days(days)}" if days >= 0 else f"EXPIRED {_days(-days)} ago"
        names = ", ".join(row["names"]) or row["subject"]
        program.say(
            f"{row['file']}: {names}; {row['key']}; {left}; issued by {row['issuer']}, signed with {row['signature']}"
        )
        for link in row["chain"]:
            program.say(f"  then {link['subject']}; {link['key']}; signed with {link['signature']}")


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _chain(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PkiError(f"{path}: not a certificate: {error}") from error


def _describe(path: Path) -> dict[str, Any]:
    """The fields of one certificate file, as `logfwd pki show` prints them; `chain` has those after the first."""
    leaf, *others = _chain(path)
    try:
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(name.value) for name in san]
    except x509.ExtensionNotFound:
        names = []
    return {
        "file": str(path),
        "subject": leaf.subject.rfc4514_string(),
        "names": names,
        "key": key_algorithm(leaf),
        "issuer": leaf.issuer.rfc4514_string(),
        "signature": signature_algorithm(leaf),
        "chain": [
            {
                "subject": other.subject.rfc4514_string(),
                "key": key_algorithm(other),
                "signature": signature_algorithm(other),
            }
            for other in others
        ],
        "starts": leaf.not_valid_before_utc.isoformat(),
        "expires": leaf.not_valid_after_utc.isoformat(),
    }
