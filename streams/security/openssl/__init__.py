"""The only door to OpenSSL, and the TLS stack of every mode of today.

Python's own `ssl` can neither choose nor report a hybrid group; pyOpenSSL over cryptography's OpenSSL can. Two names
used here are private (`SSL._lib`, `SSL._ffi`), so versions are pinned, and every start makes a real handshake in each
mode that the configuration names (`stacks.self_test`); a mode that a reload adds is judged by its first link.

Kept on every link: mutual authentication, no resumption, no early data, no renegotiation, ALPN. A server sends no
tickets, in TLS 1.3 by a detour (context.py): the switch for their number is not exported. A client that never reads, as
most of syslog's, must have nothing unread when it closes its connection, or the system drops what is on its way.
"""
