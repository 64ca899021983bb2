"""Integrations in memory, for the hot path: which are there for a workspace."""

from collections.abc import Callable, Iterable, Sequence

from services.integrations.domain.integrations import Integration


class Directory:
    """Kept up by whoever changes integrations, and read anew now and then for changes made elsewhere."""

    def __init__(self) -> None:
        self._by_id: dict[str, Integration] = {}
        self._by_workspace: dict[str, list[Integration]] = {}
        self._gone: list[Callable[[str], None]] = []

    def on_gone(self, told: Callable[[str], None]) -> None:
        """`told` is called with the id of an integration that is no longer there."""
        self._gone.append(told)

    def of_workspace(self, workspace_id: str) -> Sequence[Integration]:
        """All of it, disabled ones included: their queues grow."""
        return self._by_workspace.get(workspace_id, ())

    def get(self, identifier: str) -> Integration | None:
        """By id."""
        return self._by_id.get(identifier)

    def all(self) -> Sequence[Integration]:
        """Every one."""
        return list(self._by_id.values())

    def put(self, integration: Integration) -> None:
        """New or changed."""
        self.replace([*(one for one in self._by_id.values() if one.id != integration.id), integration])

    def remove(self, identifier: str) -> None:
        """Gone."""
        self.replace([one for one in self._by_id.values() if one.id != identifier])

    def replace(self, integrations: Iterable[Integration]) -> None:
        """These are all there are."""
        before = set(self._by_id)
        self._by_id = {one.id: one for one in integrations}
        self._by_workspace = {}
        for one in self._by_id.values():
            self._by_workspace.setdefault(one.workspace_id, []).append(one)
        for identifier in before - set(self._by_id):
            for told in self._gone:
                told(identifier)
