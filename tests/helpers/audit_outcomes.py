"""Made-up outcomes and attacks, for reports."""

from __future__ import annotations

import numpy as np
from facemix.audit.attack import Attack, Progress
from facemix.audit.outcome import Outcome, Roc, Variant
from facemix.audit.scene import Scene
from facemix.pictures import Line

#: One of every kind that a verdict tells apart.
KINDS = {
    "recovered": Outcome(
        "done", measure="share of faces", floor=0.1, result=0.973, ceiling=1.0, interval=(0.96, 0.98),
        says="The cloud recovers 97 % of the faces.",
    ),
    "partly": Outcome(
        "done", measure="area", floor=0.5, result=0.6, ceiling=1.0, says="It tells 60 % of the pairs, 50 % by chance.",
    ),
    "withstood": Outcome("done", measure="m", floor=0.2, result=0.21, ceiling=0.9, says="It is right in 21 %."),
    "not converged": Outcome("not converged", "it ran out of steps"),
    "skipped": Outcome("skipped", "It takes minutes."),
    "does not apply": Outcome("does not apply", "Nothing is mixed."),
}  # fmt: skip

SAME = np.full((4, 3), 7, np.uint8)

FULL = Outcome(
    "done",
    measure="mean matched |correlation|",
    floor=0.67,
    result=np.float32(0.995),
    ceiling=1.0,
    interval=(0.99, np.float64(0.997)),
    says="Faces come out at a correlation of 0.995.",
    variants=(Variant("raw values", 0.72, floor=0.67), Variant("Laplacian", 0.995)),
    curves=(Roc("the same group from others", (0.0, 0.1, 1.0), (0.0, 0.9, 1.0), 0.9),),
    pictures=(
        Line("photographs", [SAME, SAME], titles=["a", "b"]),
        Line("recovered", [np.full((4, 3), n / 2, np.float32) for n in range(2)], 1.5, right=[np.True_, False]),
    ),
)


def attack(name: str, outcome: Outcome | Exception, unfit: Outcome | None = None) -> type[Attack]:
    """An attack with a known outcome, or one that raises; `runs` counts how often it ran."""

    class Made(Attack):
        title, knows, source = f"What of {name} <b>?", "nothing", "this test"
        runs = 0

        def needs(self, scene: Scene) -> Outcome | None:
            return unfit

        def run(self, scene: Scene, progress: Progress) -> Outcome:
            type(self).runs += 1
            progress(0.5)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    Made.name = name
    return Made
