"""Names, and the annotation that gives members up."""

from __future__ import annotations

import pytest

from distkv_operator import names


@pytest.mark.parametrize("members", [{}, {0: 5}, {3: 2**61, 1: 7}])
def test_replacements_are_read_as_they_were_written(members: dict[int, int]) -> None:
    assert names.replacements(names.replacements_text(members)) == members


@pytest.mark.parametrize("text", ["2", "2=", "=5", "two=5", "-1=5", "1=2=3"])
def test_a_wrong_replacement_says_what_would_have_been_taken(text: str) -> None:
    with pytest.raises(ValueError, match="ORDINAL=INCARNATION"):
        names.replacements(text)


def test_names_of_children_stay_apart() -> None:
    own = names.Names("store")
    services = [own.service, own.peers_service, own.gateway]
    secrets = [own.cluster_key, own.admin_token, own.link_token, own.identity]
    assert len(set(services)) == 3
    assert len(set(secrets)) == 4
    assert own.peer_host(3) == "store-3.store-peers"
    assert own.claim(3) == "data-store-3"
