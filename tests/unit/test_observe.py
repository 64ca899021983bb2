"""What is looked at in alerts and on the dashboard is counted somewhere, and every alert is explained."""

import re
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parents[2]
ALERTS = (ROOT / "deploy/observe/alerts.yml").read_text()
DASHBOARD = ROOT / "deploy/observe/grafana/dashboards/zdm.json"
OPERATIONS = (ROOT / "docs/operations.md").read_text()

# What Python's Prometheus client and Prometheus itself add.
OTHERS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}
_NAME = re.compile(r"\b(?:zdm|process)_[a-z_]+\b|\bup\b(?=\{)")
_HISTOGRAM = re.compile(r"_(?:bucket|sum|count)$")


def counted() -> set[str]:
    """Every metric of the code."""
    python = "\n".join(path.read_text() for folder in ("services", "shared") for path in (ROOT / folder).rglob("*.py"))
    broker = (ROOT / "deploy/mosquitto/plugin/counters.h").read_text()
    found = set(re.findall(r'"(zdm_[a-z_]+[a-z])"', python))
    return found | {f"zdm_broker_{name}" for name in re.findall(r'X\([A-Z_]+, "([a-z_]+)', broker)}


def expressions() -> list[str]:
    """Of the dashboard's panels."""
    panels = orjson.loads(DASHBOARD.read_bytes())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def named(text: str) -> set[str]:
    """The metrics in it."""
    found = set(_NAME.findall(text))
    return {name for name in found if name not in OTHERS and _HISTOGRAM.sub("", name) not in counted()}


def test_every_metric_in_an_alert_is_counted() -> None:
    rules = re.sub(r"^ +annotations:.*$", "", ALERTS, flags=re.MULTILINE)
    assert "zdm_ready" in rules
    assert named(rules) == set()


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_on_the_dashboard_is_counted(expression: str) -> None:
    assert _NAME.search(expression)
    assert named(expression) == set()


def test_every_metric_is_explained_to_operators() -> None:
    explained = set(re.findall(r"`(zdm_[a-z_]+)[`{]", OPERATIONS))
    assert counted() - explained == set()
    assert explained - counted() == set()


def test_every_alert_is_explained_to_operators() -> None:
    names = re.findall(r"alert: (\w+)", ALERTS)
    assert len(names) > 10
    assert [name for name in names if f"| `{name}` |" not in OPERATIONS] == []


def test_every_warning_and_error_is_explained_to_operators() -> None:
    events = {
        event
        for folder in ("services", "shared")
        for path in (ROOT / folder).rglob("*.py")
        for event in re.findall(r'logger\.(?:warning|error|exception)\(\s*"(\w+)"', path.read_text())
    }
    assert len(events) > 20
    assert sorted(event for event in events if f"`{event}`" not in OPERATIONS) == []
