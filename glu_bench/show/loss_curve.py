"""The loss of a run in a few lines below its bar."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from glu_bench.show.plot import can_draw_unicode, draw_curve

HEIGHT = 5
WIDEST = 72
LEAST_SCREEN = 12  # lines; on a smaller screen the bar alone is shown


class LossCurve:
    """Logged losses over all steps of a run; what is still to come stays blank."""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps
        self.steps: list[float] = []
        self.losses: list[float] = []

    def add(self, step: int, loss_nats: float) -> None:
        """One logged loss, in nats."""
        self.steps.append(step)
        self.losses.append(loss_nats)

    def render(self, console: Console) -> list[Text]:
        """Lines that fit the console as wide as it is now; none before the second loss."""
        width = min(WIDEST, console.width - 1)  # a full line would wrap on some terminals
        n_skip = len(self.losses) // 20  # the steep start would flatten all that follows
        if len(self.losses) - n_skip < 2 or console.height < LEAST_SCREEN:
            return []
        steps, losses = _thin(self.steps[n_skip:], self.losses[n_skip:], 2 * WIDEST)
        lines = draw_curve(
            steps,
            losses,
            width=width,
            height=HEIGHT,
            unicode=can_draw_unicode(console.encoding),
            axes=False,
            x_limits=(0, self.n_steps),
        )
        return [Text(line, no_wrap=True, overflow="crop") for line in lines]


def _thin(steps: list[float], losses: list[float], n_most: int) -> tuple[list[float], list[float]]:
    """Means of neighbours, so that at most `n_most` points are left."""
    size = -(-len(losses) // n_most)
    groups = range(0, len(losses), size)
    return (
        [sum(part) / len(part) for part in (steps[at : at + size] for at in groups)],
        [sum(part) / len(part) for part in (losses[at : at + size] for at in groups)],
    )
