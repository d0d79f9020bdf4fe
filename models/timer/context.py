"""Reading as Timer's `generate` does with its cache: the policy `deployed`.

The context is normalised once. Every patch after it is, when its turn comes, the whole input of a
pass, so that it is normalised by its own mean and deviation, and what follows it is de-normalised
by the same two numbers. What was encoded never changes: one causal pass over K patches equals K
steps.

Shapes: B batch, C variates, N patches, P patch length.
"""

from __future__ import annotations

from torch import Tensor

from speculation.caching import CachedContext, CachingReader
from speculation.distribution import Outlook
from speculation.history import History, Place
from speculation.normalisation import Normalisation, Prediction
from speculation.reading import patch_units
from speculation.rereading import outlook_of


class DeployedContext(CachedContext):
    """Keeps keys and values; each patch after the context is read in units of its own.

    Distances are told in units of the context's deviation, wherever in the forecast they are: in a
    flat patch's own units no draft would ever be near enough.
    """

    def __init__(self, model: CachingReader, history: History, *, room: int) -> None:
        super().__init__(model, history, renorm_every=0, room=room)

    def units_of(self, first: Place, patches_BNCP: Tensor) -> Normalisation:
        """The context's units for the patches of the context, and its own for each after it."""
        if isinstance(first, int) and first + patches_BNCP.shape[1] <= self.history.context_patches:
            return self.normalisation
        return patch_units(patches_BNCP, self.model.config, first=first, context=self.normalisation)

    def outlook(self, prediction: Prediction, *, end: Place) -> Outlook:
        """What follows each position, in that position's units."""
        last = prediction.mean.shape[1]
        own = self.units_of(end - last, self.history.patches(end - last, last))
        told = outlook_of(prediction, own, config=self.model.config, batch=len(prediction.mean))
        return told._replace(unit=self.normalisation.deviation, read_unit=told.unit)
