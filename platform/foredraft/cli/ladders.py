"""The verb `progression`."""

from __future__ import annotations

from dataclasses import dataclass

from foredraft.cli.common import STDERR, Draws, Result
from foredraft.cli.reading import ReadsData
from foredraft.cli.training import Workers, machine_of, say_epoch
from foredraft.settings.config import Count
from foredraft.settings.ladders import ladder_of


@dataclass(frozen=True, kw_only=True)
class Progression(ReadsData, Draws):
    """The ladder of draft quality: what scale, pretraining, fine-tuning and distillation each add.

    For example:

        foredraft progression --recipe demo
        foredraft progression --recipe etth1 --target 0fb0 --windows 512
    """

    recipe: str
    """name of a ladder"""
    target: str | None = None
    """key, beginning of a key, or directory of a trained target, instead of the ladder's own"""
    windows: Count | None = None
    """windows that judge each rung, instead of the ladder's own number"""
    workers: Workers = 0
    """processes of each training under Ray Train; 0 trains in this one"""

    def run(self) -> Result:
        """Where the page is, what the ladder says, and its rows."""
        from foredraft.judge import progression
        from foredraft.report import ladder as page

        ladder = ladder_of(
            self.recipe, target=self.target, windows=self.windows, seed=self.seed, read=self.given
        )
        directory = progression.climb(
            ladder,
            storage=self.storage,
            machine=machine_of(self.workers),
            say=lambda text: STDERR.print(text, highlight=False),
            log=say_epoch,
        )
        content = page.read_ladder(directory)
        return {
            "report": str(page.write_page(directory)),
            "says": " ".join(page.ladder_sentences(page.ladder_info(page.rows_of(content)))),
            "rows": content["rows"],
        }
