"""The verb `progression`."""

from __future__ import annotations

from dataclasses import dataclass

from foredraft.cli.common import STDERR, Common, Result
from foredraft.cli.training import say_epoch
from foredraft.config import Machine
from foredraft.ladders import ladder_of


@dataclass(frozen=True, kw_only=True)
class Progression(Common):
    """The ladder of draft quality: what scale, pretraining, fine-tuning and distillation each add.

    For example:

        foredraft progression --recipe demo
        foredraft progression --recipe etth1 --windows 512
    """

    recipe: str
    """name of a ladder"""
    windows: int | None = None
    """windows that judge each rung, instead of the ladder's own number"""
    workers: int = 0
    """processes of each training under Ray Train; 0 trains in this one"""

    def run(self) -> Result:
        """Where the page is, what the ladder says, and its rows."""
        from foredraft import ladder_page, progression

        ladder = ladder_of(self.recipe)
        if self.seed is not None:
            ladder = ladder.model_copy(update={"seed": self.seed})
        if self.windows is not None:
            judged = ladder.evaluation.model_copy(update={"windows": self.windows})
            ladder = ladder.model_copy(update={"evaluation": judged})
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
        content = ladder_page.read_ladder(directory)
        return {
            "report": str(ladder_page.write_page(directory)),
            "says": " ".join(
                ladder_page.ladder_sentences(ladder_page.ladder_info(content["rows"]))
            ),
            "rows": content["rows"],
        }
