"""What `models list` says of memory, beside `models fit`, which has the same arithmetic term by term."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from here import here
from processes import Processes

from inference.gpu import GIBIBYTE, Gpu
from inference.models import EMBEDDED_ID, embedded_model
from p2p import models_command

KNOWN = "meta-llama/Meta-Llama-3-8B"
HELD = ("--memory", "4GiB", "--slots", "4", "--context", "1024")


def listed(processes: Processes, *arguments: str | Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = here(processes, "models", "list", *arguments, "--json").result
    return found


@pytest.mark.parametrize(("name", "fits"), [(embedded_model().path, True), (KNOWN, False)])
def test_it_says_what_fit_says(name: str, fits: bool, processes: Processes) -> None:
    own = listed(processes, name, *HELD)[1]
    (place,) = own["places"]
    (fit,) = json.loads(here(processes, "models", "fit", name, *HELD, "--json").out.splitlines()[0])
    assert place == {key: fit[key] for key in ("place", "room", "taken", "fits")}
    assert place["fits"] is fits
    assert (own["slots"], own["context"]) == (4, 1024)


def test_the_model_that_would_be_served_comes_first(processes: Processes) -> None:
    embedded, *known = listed(processes)
    assert (embedded["id"], embedded["quantisation"]) == (EMBEDDED_ID, "as it is")
    assert {one["quantisation"] for one in known} == {"Q4_K"}
    file = processes.directory / "own.gguf"
    file.symlink_to(embedded_model().path)
    (processes.directory / "bombyx.toml").write_text(f'[provide]\nmodel = "{file}"\n')
    own, *_ = listed(processes, "--config", processes.directory / "bombyx.toml")
    assert own["id"] == "own.gguf"
    assert own["places"][0]["taken"] == pytest.approx(embedded["places"][0]["taken"])


def test_more_than_a_model_was_made_for_fits_nowhere(processes: Processes) -> None:
    (place,) = listed(processes, "--context", "9000", "--memory", "100GiB")[0]["places"]
    assert (place["taken"] < place["room"], place["fits"]) == (True, False)


def test_a_table_says_where_there_is_room_now(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Gpu("a card", 24 * GIBIBYTE, 8 * GIBIBYTE, None, 0, frozenset())
    monkeypatch.setattr(models_command, "gpus", lambda: (card,))
    monkeypatch.setattr(models_command, "available_memory", lambda _: None)
    rows = {line.split()[0]: line for line in here(processes, "models").out.splitlines()}
    assert re.search(r"\d  +GPU 0 ", rows[KNOWN])
    assert re.search(r"\d  +no  ", rows["deepseek-ai/DeepSeek-V3"])
    monkeypatch.setattr(models_command, "gpus", tuple)
    assert "unknown" in here(processes, "models").out
    assert "give it as --memory" in here(processes, "models", "fit").complaint


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--quantisation", "Q9"), "F16, Q8_0"),
        (("nothing",), "neither a file here nor in the catalogue"),
        (("--memory", "much"), "write it as 16GiB"),
    ],
)
def test_bad_input_is_one_line(flags: tuple[str, ...], says: str, processes: Processes) -> None:
    done = here(processes, "models", "list", *flags)
    assert (done.code, says in done.complaint) == (2, True)
