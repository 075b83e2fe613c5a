"""What a run's folder says of the run, without its network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamjax import config as configuration
from siamjax.config import ConfigDict
from siamjax.evaluation.decision import DecisionCard
from siamjax.training.checkpoint import BEST, LATEST, CheckpointStore, described
from siamjax.training.writer import read_rows


@dataclass(frozen=True)
class Record:
    """A run as its folder has it.

    Attributes:
        workdir: the folder.
        config: of the run.
        about: "data" (name, summary, notes, fingerprint), "preprocess" and "versions", and
            "members" of an ensemble, as far as they are known.
        rows: of metrics.jsonl, oldest first.
        checkpoint: which of "best" and "latest" is used, and its step; None if there is none.
        card: of that checkpoint.
    """

    workdir: Path
    config: ConfigDict
    about: Mapping[str, Any]
    rows: list[dict[str, Any]]
    checkpoint: tuple[str, int] | None
    card: DecisionCard

    def split(self, name: str) -> list[dict[str, Any]]:
        """The rows of "train", "validation" or "doctor"."""
        return [row for row in self.rows if row["split"] == name]

    @property
    def data(self) -> Mapping[str, Any]:
        """Name, summary, notes and fingerprint of the data really used."""
        return self.about.get("data", {})

    @property
    def ailments(self) -> list[str]:
        """What the doctor found at its last look, which is what still ails the net."""
        looks = self.split("doctor")
        return list(looks[-1]["findings"]) if looks else []

    @property
    def title(self) -> str:
        """Tower, head and data."""
        model = self.config.model
        nets = f"{model.members} nets as one, " if model.members > 1 else ""
        data = self.data.get("name", "unknown data")
        return f"{nets}{model.tower} tower, {model.head} head, on {data}"

    @property
    def members(self) -> list[dict[str, Any]]:
        """The runs that an ensemble was made of; empty for any other run."""
        return self.about.get("members", [])

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation row that chose the best checkpoint."""
        key, sign = self.config.checkpoint.metric, 1
        if self.config.checkpoint.mode == "min":
            sign = -1
        rows = [row for row in self.split("validation") if row.get(key) is not None]
        return max(rows, key=lambda row: sign * row[key]) if rows else None


def read(workdir: str | Path) -> Record:
    """Reads config.json, about.json, metrics.jsonl and what the checkpoint says of itself.

    A checkpoint describes itself, so a folder that holds nothing else will do.

    Raises:
        ValueError: if the folder is no run's, or a line of the metrics is not one.
    """
    workdir = Path(workdir)
    with described(f"the checkpoint in {workdir}"):
        saved, checkpoint = _checkpoint(workdir)
        card = DecisionCard.from_dict(None if saved is None else saved["progress"]["card"])
    settings, about = workdir / "config.json", workdir / "about.json"
    if settings.is_file():
        config = configuration.from_json(settings.read_text())
    elif saved is not None:
        config = configuration.from_json(saved["config"])
    else:
        raise ValueError(
            f"{workdir} holds neither config.json nor a checkpoint: is this the folder of a run"
            " (--workdir)?"
        )
    known = json.loads(about.read_text()) if about.is_file() else saved or {}
    return Record(workdir, config, known, read_rows(workdir / "metrics.jsonl"), checkpoint, card)


def _checkpoint(workdir: Path) -> tuple[dict[str, Any] | None, tuple[str, int] | None]:
    with CheckpointStore(workdir, read_only=True) as store:
        for kind in (BEST, LATEST):
            step = store.step(kind)
            if step is not None:
                return store.about(kind), (kind, step)
    return None, None
