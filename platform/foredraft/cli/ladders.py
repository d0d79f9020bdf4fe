"""The verb `progression`."""

from __future__ import annotations

from dataclasses import dataclass

from foredraft.cli.common import STDERR, Common, Result
from foredraft.cli.training import say_epoch
from foredraft.config import Machine
from foredraft.ladders import Ladder, ladder_of


@dataclass(frozen=True, kw_only=True)
class Progression(Common):
    """The ladder of draft quality: what scale, pretraining, fine-tuning and distillation each add.

    For example:

        foredraft progression --recipe demo
        foredraft progression --recipe etth1 --target 0fb0 --windows 512
    """

    recipe: str
    """name of a ladder"""
    target: str | None = None
    """key, beginning of a key, or directory of a trained target, instead of the ladder's own"""
    windows: int | None = None
    """windows that judge each rung, instead of the ladder's own number"""
    workers: int = 0
    """processes of each training under Ray Train; 0 trains in this one"""

    def run(self) -> Result:
        """Where the page is, what the ladder says, and its rows."""
        from foredraft import progression
        from foredraft.report import ladder as page

        ladder = self._ladder()
        if self.workers:
            from foredraft import search

            search.connect()
        directory = progression.climb(
            ladder,
            storage=self.storage,
            machine=Machine(workers=self.workers),
            say=lambda text: STDERR.print(text, highlight=False),
            log=say_epoch,
        )
        content = page.read_ladder(directory)
        return {
            "report": str(page.write_page(directory)),
            "says": " ".join(page.ladder_sentences(page.ladder_info(content["rows"]))),
            "rows": content["rows"],
        }

    def _ladder(self) -> Ladder:
        """The named ladder with what was asked for instead."""
        ladder = ladder_of(self.recipe)
        asked = {"target": self.target, "seed": self.seed}
        ladder = ladder.model_copy(update={k: v for k, v in asked.items() if v is not None})
        if self.windows is None:
            return ladder
        judged = ladder.evaluation.model_copy(update={"windows": self.windows})
        return ladder.model_copy(update={"evaluation": judged})
