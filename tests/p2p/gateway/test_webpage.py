"""The page as files: what is committed is what its sources make, and a browser is told what not to let it do."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
from javascript import NODE, needs_packages
from starlette.testclient import TestClient

from p2p.gateway.app import application
from p2p.gateway.doors import Rules
from p2p.gateway.keys import Keys
from p2p.gateway.webpage import ASSETS, KINDS, page_routes

PAGE = ASSETS.parent / "page"
LIMIT_BYTES = 160_000  # of all files together


def browser(*, in_telegram: bool = False) -> TestClient:
    keys = Keys(Path(), time.time)  # which the page itself asks nobody for
    app = application(page_routes(in_telegram=in_telegram), Rules(), keys)
    return TestClient(app, base_url="http://127.0.0.1")


@needs_packages(PAGE)
@pytest.mark.slow
def test_the_committed_files_are_what_the_sources_make(tmp_path: Path) -> None:
    subprocess.run([NODE, PAGE / "build.mjs", tmp_path], check=True, timeout=60)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in ASSETS.iterdir()}
    assert made == kept, "make page, and commit what it writes"


@needs_packages(PAGE)
@pytest.mark.slow
def test_the_sources_are_typed() -> None:
    done = subprocess.run(
        [NODE, PAGE / "node_modules" / "typescript" / "bin" / "tsc", "-p", PAGE],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not NODE.exists(), reason="no Node here: `make test` installs it")
def test_what_is_pure_in_the_page() -> None:
    command = [str(NODE), "--test", "--test-reporter=tap", *map(str, sorted((PAGE / "test").glob("*.test.ts")))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    (passed,) = re.findall(r"^# pass (\d+)$", done.stdout, flags=re.MULTILINE)
    assert int(passed) >= 12


def test_all_of_it_is_small_and_served() -> None:
    assert {path.name for path in ASSETS.iterdir()} == set(KINDS)
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < LIMIT_BYTES
    with browser() as client:
        assert client.get("/").text == (ASSETS / "index.html").read_text(encoding="utf-8")
        for name in set(KINDS) - {"index.html"}:
            answer = client.get(f"/{name}")
            assert answer.headers["content-type"] == KINDS[name]
            assert client.get(f"/{name}", headers={"if-none-match": answer.headers["etag"]}).status_code == 304


def test_nothing_but_our_own_files_may_run_or_be_asked() -> None:
    with browser() as client:
        headers = client.get("/").headers
    policy = dict(rule.partition(" ")[::2] for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_only_telegram_may_show_it_in_a_frame_and_only_if_wanted() -> None:
    with browser(in_telegram=True) as client:
        assert "frame-ancestors https://web.telegram.org;" in client.get("/").headers["content-security-policy"]


def test_no_file_names_another_host() -> None:
    """But Telegram's, to whose window it may speak, and the names that XML and documents go by."""
    named = {
        host
        for path in ASSETS.iterdir()
        for host in re.findall(rb"(?:https?:)?//([a-z0-9.-]+\.[a-z]{2,})", path.read_bytes())
    }
    assert named <= {b"web.telegram.org", b"core.telegram.org", b"www.w3.org", b"github.com"}
