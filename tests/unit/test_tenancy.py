"""The one place where it is decided who may know of what, over a registry that follows a real log."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from shared.errors import NotFound, Unavailable
from shared.registry import Registry
from shared.security.principal import Kind, Principal
from shared.security.tenancy import Tenancy
from shared.service import Platform
from tests.support.http import device, know, running_platform, workspace
from tests.support.storage import KNOWN, fleet
from tests.support.workers import unregister

PERSON = Principal(Kind.SESSION, "acc-1")
KEY = Principal(Kind.API_KEY, "acc-1", "wks-1")
STRANGER = Principal(Kind.SESSION, "acc-9")


@pytest.fixture(scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    async with running_platform(tmp_path_factory.mktemp("tenancy"), *KNOWN) as one:
        await one.registry.settled()
        yield one


@pytest.fixture
def tenancy(platform: Platform) -> Tenancy:
    return Tenancy(platform.registry)


@pytest.mark.parametrize(
    ("principal", "path"),
    [
        (PERSON, {}),
        (PERSON, {"workspace_id": "wks-1"}),
        (PERSON, {"workspace_id": "wks-2", "device_id": "dev-3"}),
        (PERSON, {"workspace_id": "wks-1", "fleet_id": "flt-1", "device_id": "dev-1"}),
        (PERSON, {"device_id": "dev-3"}),
        (KEY, {"workspace_id": "wks-1", "device_id": "dev-2", "serial": "00"}),
        (KEY, {"fleet_id": "flt-2"}),
        (STRANGER, {"workspace_id": "wks-9", "fleet_id": "flt-9", "device_id": "dev-9"}),
    ],
)
async def test_what_is_ones_own_and_fits_together_is_admitted(
    tenancy: Tenancy, principal: Principal, path: Mapping[str, str]
) -> None:
    await tenancy.admit(principal, path)


@pytest.mark.parametrize(
    ("principal", "path", "code"),
    [
        (PERSON, {"workspace_id": "wks-9"}, "workspace_not_found"),
        (PERSON, {"workspace_id": ""}, "workspace_not_found"),
        (PERSON, {"workspace_id": "dev-1"}, "workspace_not_found"),
        (PERSON, {"workspace_id": "wks-1", "device_id": "dev-3"}, "device_not_found"),
        (PERSON, {"workspace_id": "wks-2", "device_id": "dev-1"}, "device_not_found"),
        (PERSON, {"workspace_id": "wks-2", "fleet_id": "flt-1"}, "fleet_not_found"),
        (PERSON, {"workspace_id": "wks-1", "fleet_id": "flt-9"}, "fleet_not_found"),
        (PERSON, {"workspace_id": "wks-1", "fleet_id": "flt-1", "device_id": "dev-9"}, "device_not_found"),
        (PERSON, {"device_id": "dev-9"}, "device_not_found"),
        (PERSON, {"device_id": "never was"}, "device_not_found"),
        (KEY, {"workspace_id": "wks-2"}, "workspace_not_found"),
        (KEY, {"device_id": "dev-3"}, "device_not_found"),
        (STRANGER, {"device_id": "dev-1"}, "device_not_found"),
        (STRANGER, {"fleet_id": "flt-1"}, "fleet_not_found"),
        (Principal.nobody(), {"workspace_id": "wks-1"}, "workspace_not_found"),
    ],
)
async def test_everything_else_is_not_found(
    tenancy: Tenancy, principal: Principal, path: Mapping[str, str], code: str
) -> None:
    with pytest.raises(NotFound) as refusal:
        await tenancy.admit(principal, path)
    assert refusal.value.code == code


async def test_anothers_id_and_one_that_never_was_get_the_same_answer(tenancy: Tenancy) -> None:
    told = []
    for identifier in ("dev-9", "dev-0"):
        with pytest.raises(NotFound) as refusal:
            await tenancy.device(PERSON, identifier, "wks-1")
        told.append((refusal.value.code, refusal.value.title, refusal.value.message.replace(identifier, "it")))
    assert told[0] == told[1]


async def test_what_was_made_a_moment_ago_is_found_before_the_registry_has_caught_up(platform: Platform) -> None:
    tenancy = Tenancy(platform.registry)
    for number in range(20):
        await know(platform, device(f"dev-new-{number}", "wks-1", "acc-1"))
        assert (await tenancy.device(KEY, f"dev-new-{number}", "wks-1")).name == f"dev-new-{number}"


async def test_what_is_deleted_is_not_found_from_then_on(platform: Platform) -> None:
    tenancy = Tenancy(platform.registry)
    await know(platform, workspace("wks-gone", "acc-1"), fleet("flt-gone", "wks-gone", "acc-1"))
    await tenancy.admit(PERSON, {"workspace_id": "wks-gone", "fleet_id": "flt-gone"})
    await unregister(platform, "flt-gone", "wks-gone")
    for path in ({"workspace_id": "wks-gone"}, {"fleet_id": "flt-gone"}):
        with pytest.raises(NotFound):
            await tenancy.admit(PERSON, path)


async def test_while_the_registry_cannot_be_read_nothing_is_said_to_be_missing(tmp_path: Path) -> None:
    """Nobody follows the log here, so that what is in it stays unknown."""
    async with running_platform(tmp_path, *KNOWN) as platform:
        tenancy = Tenancy(Registry(platform.log))
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable):
                await tenancy.workspace(PERSON, "wks-1")
