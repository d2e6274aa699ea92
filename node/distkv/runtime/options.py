"""From the typed configuration to the options of every part."""

from __future__ import annotations

from pathlib import Path

from distkv.api.options import (
    AdminOptions,
    HttpOptions,
    LinkOptions,
    Listen,
    RespOptions,
)
from distkv.api.process import door_limits
from distkv.config import Config
from distkv.config.loading import ConfigError, Problem
from distkv.config.units import Address
from distkv.core.options import ReplicaOptions
from distkv.member.options import MemberOptions
from distkv.transport.keys import KeyRing
from distkv.transport.options import DEFAULT_OPTIONS
from distkv.transport.options import Options as TransportOptions


def listen(address: Address) -> Listen:
    """Where a door listens."""
    return Listen(address.host, address.port)


def resp_options(config: Config) -> RespOptions:
    """The RESP door."""
    return RespOptions(listen(config.listen.resp), door_limits(config))


def http_options(config: Config) -> HttpOptions:
    """The HTTP door."""
    return HttpOptions(listen(config.listen.http), door_limits(config))


def admin_options(config: Config) -> AdminOptions:
    """The owner's listener. Raises ConfigError."""
    token = read_secret(config.admin.token_file, "admin.token_file")
    return AdminOptions(listen(config.listen.admin), door_limits(config), token)


def link_options(config: Config) -> LinkOptions:
    """The end of gateway links. Raises ConfigError."""
    token = read_secret(config.gateway.token_file, "gateway.token_file")
    return LinkOptions(listen(config.listen.link), door_limits(config), token)


def read_secret(path: str | None, field: str) -> str | None:
    """The text of a secret file; None if none is named. Raises ConfigError."""
    if path is None:
        return None
    try:
        text = Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError([Problem(field, path, f"cannot be read: {error.strerror}")]) from error
    if not text:
        raise ConfigError([Problem(field, path, "is empty")])
    return text


def key_ring(config: Config) -> KeyRing:
    """The cluster keys of the configuration. Raises ConfigError."""
    if config.keys.insecure:
        return KeyRing(None, insecure=True)
    secrets = []
    for path in config.keys.files:
        text = read_secret(path, "keys.files") or ""
        try:
            secrets.append(bytes.fromhex(text))
        except ValueError as error:
            reason = "does not hold hexadecimal digits (64 make a key)"
            raise ConfigError([Problem("keys.files", path, reason)]) from error
    try:
        return KeyRing(secrets[0], secrets[1] if len(secrets) > 1 else None)
    except ValueError as error:
        raise ConfigError([Problem("keys.files", config.keys.files[0], str(error))]) from error


def transport_options(config: Config) -> TransportOptions:
    """The peers' transport."""
    t = config.transport
    sizes = tuple(s for s in DEFAULT_OPTIONS.datagram_sizes if s <= t.datagram_max)
    return TransportOptions(
        ping_interval=t.ping_interval,
        dead_after=t.dead_after,
        datagram_sizes=sizes,
        control_queue=t.control_queue,
        bulk_queue=t.bulk_queue,
    )


def replica_options(config: Config) -> ReplicaOptions:
    """The consensus core."""
    c = config.consensus
    return ReplicaOptions(
        tick=5,
        heartbeat=round(c.heartbeat * 1000),
        election_min=round(c.election_min * 1000),
        election_max=round(c.election_max * 1000),
        batch_commands=c.batch_commands,
        batch_bytes=c.batch_bytes,
        window_slots=c.window_slots,
        window_bytes=c.window_bytes,
        retain_slots=c.retain_slots,
        retain_bytes=c.retain_bytes,
    )


def member_options(config: Config) -> MemberOptions:
    """The member."""
    limits, dispersal, repair = config.limits, config.dispersal, config.repair
    return MemberOptions(
        replica=replica_options(config),
        pending_commands_max=limits.pending_max,
        pending_reads_max=limits.pending_max,
        stripe_bytes=dispersal.stripe,
        stream_above=dispersal.stream_above,
        value_max=limits.value_bytes_max,
        memory_in_flight=limits.values_in_flight_max,
        grace=repair.grace,
        grace_bytes=repair.grace_bytes,
        repair_bytes_per_second=repair.rate,
        scrub_period=repair.scrub,
    )
