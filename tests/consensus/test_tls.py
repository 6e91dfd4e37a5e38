"""TLS contexts: which files they take, what they say of wrong ones, whom they let in."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from consensus.errors import ConfigError
from consensus.tls import TlsFiles, client_context, server_context
from tests.certificates import Authority


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, host: str = "127.0.0.1"
) -> ssl.SSLObject:
    """Let the two shake hands in memory; return the server's end. Raises ``ssl.SSLError``."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    dialling = client.wrap_bio(to_client, to_server, server_hostname=host)
    waiting = [dialling, serving]
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    return serving


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files_of(
    authority: Authority, name: str, *, expired: bool = False, trusts: Authority | None = None
) -> TlsFiles:
    cert, key = authority.sign(name, expired=expired)
    return TlsFiles(cert=cert, key=key, trusted_ca=(trusts or authority).file)


def test_both_sides_prove_who_they_are(authority: Authority) -> None:
    ann, bob = files_of(authority, "ann"), files_of(authority, "bob")
    end = handshake(server_context(ann, ["h2", "http/1.1"]), client_context(bob, ["h2"]))
    assert end.selected_alpn_protocol() == "h2"
    certificate = end.getpeercert()
    assert certificate is not None and (("commonName", "bob"),) in certificate["subject"]


def test_who_has_no_certificate_or_a_foreign_one_is_refused(
    tmp_path: Path, authority: Authority
) -> None:
    server = server_context(files_of(authority, "ann"))
    nameless = client_context(TlsFiles(trusted_ca=authority.file))
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(server, nameless)
    foreign = files_of(Authority(tmp_path / "foreign"), "eve", trusts=authority)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        handshake(server, client_context(foreign))
    expired = files_of(authority, "old", expired=True)
    with pytest.raises(ssl.SSLError, match="certificate has expired"):
        handshake(server, client_context(expired))


def test_a_server_must_be_of_the_authority_and_of_the_host(
    tmp_path: Path, authority: Authority
) -> None:
    client = client_context(TlsFiles(trusted_ca=authority.file))
    foreign = Authority(tmp_path / "foreign").sign("eve")
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        handshake(server_context(TlsFiles(cert=foreign[0], key=foreign[1])), client)
    cert, key = authority.sign("ann", hosts=("ann.example",))
    server = server_context(TlsFiles(cert=cert, key=key))
    assert handshake(server, client, "ann.example")
    with pytest.raises(ssl.SSLError, match="IP address mismatch"):
        handshake(server, client, "127.0.0.1")


def test_without_a_trusted_ca_a_server_asks_for_no_certificate(authority: Authority) -> None:
    cert, key = authority.sign("ann")
    server = server_context(TlsFiles(cert=cert, key=key))
    assert handshake(server, client_context(TlsFiles(trusted_ca=authority.file)))
    asks = TlsFiles(cert=cert, key=key, require_client_cert=True)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(server_context(asks), client_context(TlsFiles(trusted_ca=authority.file)))


def test_wrong_files_are_refused_by_the_flag_that_names_them(
    tmp_path: Path, authority: Authority
) -> None:
    cert, key = authority.sign("ann")
    other_cert, other_key = authority.sign("bob")
    _, locked = authority.sign("cas", password=b"secret")
    text = tmp_path / "text.pem"
    text.write_text("not a certificate")
    missing = tmp_path / "missing.pem"
    wrong = {
        "--cert-file and --key-file are needed for https://": TlsFiles(trusted_ca=authority.file),
        "--cert-file is given without --key-file": TlsFiles(cert=cert),
        "--cert-file: cannot read .*missing.pem: No such file": TlsFiles(cert=missing, key=key),
        "--key-file: cannot read .*missing.pem: No such file": TlsFiles(cert=cert, key=missing),
        "--cert-file: cannot read .*: Is a directory": TlsFiles(cert=tmp_path, key=key),
        "--key-file: .*bob.key is not the key of the certificate in .*ann.pem": TlsFiles(
            cert=cert, key=other_key
        ),
        "--key-file: .*cas.key is encrypted": TlsFiles(cert=other_cert, key=locked),
        "--cert-file, --key-file: .*text.pem and .* cannot be used: .*PEM": TlsFiles(
            cert=text, key=key
        ),
        "--trusted-ca-file: .*text.pem has no certificates": TlsFiles(
            cert=cert, key=key, trusted_ca=text
        ),
        "--trusted-ca-file: cannot read .*missing.pem: No such file": TlsFiles(
            cert=cert, key=key, trusted_ca=missing
        ),
    }
    for message, files in wrong.items():
        with pytest.raises(ConfigError, match=message):
            server_context(files)
