"""Whether the files that a configuration names can be used: `validate`, and every reload."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from logreceiver.config import ReceiverConfig
from streams.errors import ConfigError, Problem

if TYPE_CHECKING:
    from streams.security.modes import Mode


def modes_of(config: ReceiverConfig) -> list[Mode]:
    """The modes of its links, from forwarders and to the sink, each once."""
    from streams.security import stacks
    from streams.security.modes import MODES

    served = stacks.named(sorted(config.served_modes), config.tls)
    return list(dict.fromkeys(served + [MODES[name] for name in sorted(config.sink.modes)]))


def problems_of_files(config: ReceiverConfig) -> Iterator[Problem]:
    """Problems in the files that the configuration names, as a start would find them."""
    from logreceiver.links.grants import Grants
    from streams.security import stacks
    from streams.security.modes import MODES
    from streams.security.revocation import Revoked

    checks: list[Callable[[], object]] = [lambda: Grants.load(config.grant_key_file)]
    used = stacks.named(sorted(config.served_modes), config.tls)
    checks.append(functools.partial(stacks.check, config.tls, used, accepting=True))
    checks.append(lambda: Revoked.load(config.crl, config.tls.sections()))
    if (tls := config.sink.tls) is not None:
        towards_sink = [MODES[name] for name in config.sink.modes]
        if tls.own is not None:
            checks.append(functools.partial(stacks.check_foreign, tls.own, towards_sink))
        checks += [functools.partial(stacks.anonymous_context, mode, tls.section, tls.ca) for mode in towards_sink]
    for check in checks:
        try:
            check()
        except ConfigError as error:
            yield from error.problems
