"""Integrations in memory, for the hot path: which are there for a workspace."""

from collections.abc import Callable, Iterable, Sequence

from services.integrations.domain.integrations import Integration

Told = Callable[[str], None]


class Directory:
    """Kept up by whoever changes integrations, and read anew now and then for changes made elsewhere."""

    def __init__(self) -> None:
        self._by_id: dict[str, Integration] = {}
        self._by_workspace: dict[str, list[Integration]] = {}
        self._changed: list[Told] = []
        self._gone: list[Told] = []
        self._version = 0

    @property
    def version(self) -> int:
        """Another one after each `put` and `remove`."""
        return self._version

    def on_changed(self, told: Told) -> None:
        """`told` is called with the id of an integration that is another one than before."""
        self._changed.append(told)

    def on_gone(self, told: Told) -> None:
        """`told` is called with the id of an integration that is no longer there."""
        self._gone.append(told)

    def of_workspace(self, workspace_id: str) -> Sequence[Integration]:
        """All of it, disabled ones included: their queues grow."""
        return self._by_workspace.get(workspace_id, ())

    def get(self, identifier: str) -> Integration | None:
        """By id."""
        return self._by_id.get(identifier)

    def put(self, integration: Integration) -> None:
        """New or changed."""
        self._version += 1
        self._become({**self._by_id, integration.id: integration})

    def remove(self, identifier: str) -> None:
        """Gone."""
        self._version += 1
        self._become({other: one for other, one in self._by_id.items() if other != identifier})

    def replace(self, integrations: Iterable[Integration], version: int) -> bool:
        """These were all there are when the directory was at `version`. False: it has moved on, read them again."""
        if version != self._version:
            return False
        self._become({one.id: one for one in integrations})
        return True

    def _become(self, integrations: dict[str, Integration]) -> None:
        before, self._by_id = self._by_id, integrations
        self._by_workspace = {}
        for one in integrations.values():
            self._by_workspace.setdefault(one.workspace_id, []).append(one)
        for identifier, old in before.items():
            if identifier not in integrations:
                _tell(self._gone, identifier)
            elif integrations[identifier] != old:
                _tell(self._changed, identifier)


def _tell(those: Sequence[Told], identifier: str) -> None:
    for told in those:
        told(identifier)
