"""The reference study: what the pages say is what the commands print of the published results."""

from __future__ import annotations

import shlex

import pytest

from tests.conftest import REPO, Command
from tests.shown import PAGES, Shown, list_shown, trim

SHOWN = [shown for page in PAGES for shown in list_shown(page)]


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: f"{shown.page.parent.name}: {shown.command}")
def test_a_page_shows_what_the_command_prints(
    shown: Shown, call_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    ended = call_command(*shlex.split(shown.command)[1:])
    assert ended.code == 0, ended.err
    assert trim(ended.out) == shown.printed
