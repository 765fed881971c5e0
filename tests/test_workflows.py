"""CI is as safe as SECURITY.md says, and the files under .github are ones that GitHub and pre-commit can read."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in WORKFLOWS}
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def load(name: str) -> dict:
    return yaml.safe_load(TEXTS[name])


def jobs() -> list:
    return [pytest.param(name, job, id=f"{name}-{job}") for name in TEXTS for job in load(name)["jobs"]]


def triggers(name: str) -> set[str]:
    found = load(name)[True]  # YAML reads the key `on` as true
    return {found} if isinstance(found, str) else set(found)


@pytest.mark.parametrize("name", TEXTS)
def test_no_foreign_code_with_rights(name: str) -> None:
    assert not triggers(name) & {"pull_request_target", "workflow_run", "issue_comment"}
    assert load(name)["permissions"] == {"contents": "read"}, "the whole workflow may only read"


@pytest.mark.parametrize(("name", "job"), jobs())
def test_a_job(name: str, job: str) -> None:
    found = load(name)["jobs"][job]
    assert found["timeout-minutes"] <= 60
    writes = {key for key, value in found.get("permissions", {}).items() if value == "write"}
    uses = [step["uses"].split("@")[0] for step in found["steps"] if "uses" in step]
    if writes:
        assert not triggers(name) & {"pull_request", "push"}, "a job that writes is not started by a change"
        assert "actions/checkout" not in uses, "a job that writes runs no file of the repository"
        assert writes == {"issues"}
    for step in found["steps"]:
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
        # An expression within a shell line would be read as code; values come through the environment.
        assert "${{" not in step.get("run", ""), f"{name}: {step['run']}"
    if not writes:
        assert "secrets." not in yaml.safe_dump(found)


@pytest.mark.parametrize("name", TEXTS)
def test_actions_are_pinned_to_commits(name: str) -> None:
    uses = re.findall(r"uses: *(\S+)(.*)", TEXTS[name])
    assert uses
    for action, comment in uses:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), f"{name}: {action} (pin it to a commit)"
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{name}: {action} (say the version behind it)"


def test_one_commit_for_an_action() -> None:
    """Two workflows do not use two versions of one action."""
    pins: dict[str, set[str]] = {}
    for action in re.findall(r"uses: *(\S+)", "\n".join(TEXTS.values())):
        pins.setdefault(action.split("@")[0], set()).add(action)
    assert all(len(found) == 1 for found in pins.values()), pins


@pytest.mark.parametrize("name", TEXTS)
def test_make_targets_exist(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    for line in re.findall(r"\bmake +(?:--\S+ +)*([a-z-]+)", TEXTS[name]):
        assert line in targets, f"{name}: make {line}"


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    ids = [item["id"] for item in form["body"] if item["type"] != "markdown"]
    assert len(ids) == len(set(ids))
    for item in form["body"]:
        assert item["type"] in {"markdown", "input", "textarea", "dropdown", "checkboxes"}
        assert item["attributes"].get("label") or item["type"] == "markdown"
        if item["type"] in ("dropdown", "checkboxes"):
            assert item["attributes"]["options"]
    assert any(item.get("validations", {}).get("required") for item in form["body"])


def test_pre_commit_runs_tools_of_the_environment() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}, "hooks download nothing"
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlint:")[1].split("\n\n")[0]
    for hook in hooks:
        command = shlex.split(hook["entry"])
        assert command[0].startswith(".venv/bin/"), hook
        for pattern in (hook.get("files"), hook.get("exclude")):
            re.compile(pattern or "")
        if "-m" in command:
            assert f"-m {command[command.index('-m') + 1]}" in lint, "what make lint does not run, a commit need not"
        if command[0] == ".venv/bin/ruff":
            assert f"-m ruff {command[1]} " in lint, "what make lint does not run, a commit need not"
    assert {hook["id"] for hook in hooks} >= {"ruff-format", "ruff-check", "codespell", "book-rules"}
