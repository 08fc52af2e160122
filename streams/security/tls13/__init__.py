"""TLS 1.3 (RFC 8446) of our own, without I/O, for what OpenSSL cannot do. Experimental and unaudited.

    codec names alerts messages extensions   bytes to structs and back; malformed input is an `Abort` with its alert
    suites groups schemes key_schedule       the cryptography: AEADs, key exchange, signatures, secrets
    records                                  records sealed and opened, in either direction
    settings handshake client server         who may send which message when; what is agreed on
    authentication signature kemtls pdk      the ways to authenticate, and what they share
    kem delegated delegated_files            long-term KEM keys; keys that a leaf delegates to, and their files
    certificates party endpoint              chains verified, own files loaded, and the methods that a link uses

Left out on purpose: resumption, PSK, early data (not even skipped: a client that sends some is refused), renegotiation,
compression, post-handshake authentication, and every version below 1.3. Python cannot wipe a bytes object: secrets are
dropped as soon as the schedule allows, not zeroed.
"""
