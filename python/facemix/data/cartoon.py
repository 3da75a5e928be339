"""How a face of given measures and attributes looks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .canvas import Canvas, arc, box, dots, ellipse, stroke

__all__ = ["MEASURES", "draw_faces"]

#: What differs from person to person and is no attribute, with its limits. The picture is 2 wide and 2 high.
MEASURES = {
    "face_width": (0.46, 0.6),
    "face_height": (0.6, 0.7),
    "skin": (0.5, 0.8),
    "hair_line": (-0.5, -0.4),
    "eye_gap": (0.19, 0.28),
    "eye_height": (-0.16, -0.06),
    "mouth_height": (0.3, 0.38),
    "mouth_width": (0.14, 0.24),
    "clothes": (0.1, 0.9),
}

MIDDLE = -0.05  # the height of a face's middle

SKIN, HAIR, CLOTHES = (1.0, 0.84, 0.72), (1.0, 0.86, 0.66), (0.6, 0.75, 1.0)
DARK, LIGHT, GOLD = (0.08, 0.06, 0.06), (0.97, 0.97, 0.95), (0.98, 0.88, 0.45)
RED, ROSE, VIOLET = (0.55, 0.0, 0.05), (1.0, 0.35, 0.35), (0.5, 0.25, 0.75)
BLUE, GREEN = (0.1, 0.25, 0.8), (0.1, 0.45, 0.25)


def draw_faces(canvas: Canvas, measures: Mapping[str, Tensor], attributes: Mapping[str, Tensor]) -> None:
    """Draw a face on each picture of `canvas`, from back to front.

    Args:
        measures: [n, 1, 1] for each of `MEASURES`.
        attributes: float [n, 1, 1], 0 or 1, for each of `facemix.data.synthetic.ATTRIBUTES`.
    """
    face = _Face(canvas, measures, attributes)
    face.body()
    face.head()
    face.skin_and_what_is_on_it()
    face.nose_and_mouth()
    face.beard_and_chin()
    face.eyes()
    face.hair_and_headgear()


class _Face:
    """`paint` takes where a shape is in the picture (top, bottom), the shape, its colour, and whether it is there."""

    def __init__(self, canvas: Canvas, measures: Mapping[str, Tensor], attributes: Mapping[str, Tensor]) -> None:
        self.paint, self.measures, self.has = canvas.paint, measures, attributes
        self.grey = canvas.pixels.shape[1] == 1
        self.width = measures["face_width"] * (1 - 0.14 * attributes["oval_face"])
        self.height = measures["face_height"] * (1 + 0.08 * attributes["oval_face"])
        self.skin = self.colour(SKIN, measures["skin"] + 0.2 * attributes["pale_skin"])
        black, blond, gray = (attributes[f"{name}_hair"] for name in ("black", "blond", "gray"))
        self.hair = self.colour(HAIR, (0.32 - 0.26 * black + 0.5 * blond + 0.2 * gray).clamp(0.02, 1))

    def colour(self, rgb: tuple[float, float, float], shade: Tensor | None = None) -> Tensor:
        """[n or 1, C, 1, 1]; a grey picture has the mean of red, green and blue."""
        colour = torch.tensor(rgb).view(1, 3, 1, 1)
        if self.grey:
            colour = colour.mean(1, keepdim=True)
        return colour if shade is None else colour * shade.unsqueeze(1)

    def outline(self, x: Tensor, y: Tensor) -> Tensor:
        """Of the face."""
        cheeks = 1 + 0.16 * self.has["chubby"] * (1.5 * y + 0.4).clamp(0, 1)
        return ellipse(x / cheeks, y - MIDDLE, self.width, self.height)

    def crown(self, x: Tensor, y: Tensor) -> Tensor:
        """Of the hair around the face."""
        wave = 0.04 * self.has["wavy_hair"] * torch.sin(20 * (x.abs() - y))
        return ellipse(x, y - MIDDLE, self.width + 0.09, self.height + 0.12) + wave

    def body(self) -> None:
        paint, has, chin = self.paint, self.has, MIDDLE + self.height
        clothes = self.colour(CLOTHES, self.measures["clothes"])
        paint(-0.6, 0.8, lambda x, y: x.abs() - self.width - 0.14, self.hair * 0.8, has["long_hair"])
        paint(0.4, 1.0, lambda x, y: x.abs() - 0.24, self.skin * 0.85)
        paint(0.5, 0.8, lambda x, y: arc(x, y - chin - 0.08, -1.5, 0.22, 0.025), self.skin * 0.4, has["double_chin"])
        paint(0.7, 1.3, lambda x, y: ellipse(x, y - 1.2, 0.9, 0.45), clothes)
        paint(0.7, 1.3, lambda x, y: stroke(x.abs() - 0.97 + 0.9 * y, 0.07), self.colour(LIGHT), has["collar"])
        paint(0.78, 1.3, lambda x, y: x.abs() + 0.1 - 0.2 * y, self.colour(RED), has["necktie"])
        paint(0.5, 0.8, lambda x, y: arc(x, y - 0.76, -3, 0.24, 0.03), self.colour(GOLD), has["necklace"])

    def head(self) -> None:
        paint, has, width, gold = self.paint, self.has, self.width, self.colour(GOLD)
        paint(-0.95, 0.1, self.crown, self.hair * 0.9, 1 - has["bald"])
        paint(-0.2, 0.2, lambda x, y: ellipse(x.abs() - width, y, 0.09, 0.13), self.skin * 0.9)
        paint(0.1, 0.4, lambda x, y: ellipse(x.abs() - width - 0.04, y - 0.22, 0.05, 0.08), gold, has["earrings"])

    def skin_and_what_is_on_it(self) -> None:
        paint, has, skin = self.paint, self.has, self.skin
        paint(-0.9, 0.9, self.outline, skin)
        paint(0.16, 0.9, lambda x, y: self.outline(x, y) + 0.03, skin * 0.6, 0.6 * has["five_o_clock_shadow"])
        cheek = self.skin * self.colour(ROSE)
        paint(0.0, 0.4, lambda x, y: ellipse(x.abs() - 0.3, y - 0.19, 0.11, 0.09), cheek, has["rosy_cheeks"])
        paint(0.02, 0.22, lambda x, y: stroke(x.abs() + 0.8 * y - 0.42, 0.025), skin * 0.6, has["high_cheekbones"])
        paint(0.0, 0.25, lambda x, y: dots(x, y, 0.4), skin * 0.6, has["freckles"])
        paint(0.1, 0.4, lambda x, y: ellipse(x - 0.28, y - 0.26, 0.045, 0.045), skin * 0.2, has["mole"])

    def nose_and_mouth(self) -> None:
        paint, has, skin = self.paint, self.has, self.skin
        big, pointy = has["big_nose"], has["pointy_nose"]
        paint(0.0, 0.25, lambda x, y: ellipse(x, y - 0.13, 0.06 + 0.08 * big, 0.04 + 0.035 * big), skin * 0.7)
        paint(-0.12, 0.2, lambda x, y: x.abs() - 0.3 * (y + 0.12), skin * 0.55, pointy)
        width, thick = self.measures["mouth_width"], 0.028 + 0.045 * has["big_lips"]
        gap, bend = 0.055 * has["mouth_open"], -3.6 * has["smiling"]

        def lips(x: Tensor, y: Tensor) -> Tensor:
            return arc(x, y - self.measures["mouth_height"] - 0.03 * has["smiling"], bend, width, thick + gap)

        def inside(x: Tensor, y: Tensor) -> Tensor:
            return arc(x, y - self.measures["mouth_height"] - 0.03 * has["smiling"], bend, width - 0.03, gap)

        paint(0.15, 0.6, lips, skin * 0.7)
        paint(0.15, 0.6, lips, self.colour(RED), has["lipstick"])
        paint(0.15, 0.6, inside, self.colour(DARK), has["mouth_open"])

    def beard_and_chin(self) -> None:
        paint, has, hair, mouth = self.paint, self.has, self.hair * 0.5, self.measures["mouth_height"]
        paint(0.1, 0.4, lambda x, y: arc(x, y - mouth + 0.11, 0.8, 0.2, 0.032), hair, has["mustache"])
        paint(0.4, 0.8, lambda x, y: ellipse(x, y - mouth - 0.19, 0.11, 0.09), hair, has["goatee"])
        cleft, chin = self.has["cleft_chin"], MIDDLE + self.height
        paint(0.3, 0.7, lambda x, y: box(x, y - chin + 0.1, 0.02, 0.06), self.skin * 0.3, cleft)
        paint(-0.25, 0.2, lambda x, y: x.abs().sub(self.width - 0.04).abs() - 0.045, hair, has["sideburns"])

    def eyes(self) -> None:
        paint, has, gap, height = self.paint, self.has, self.measures["eye_gap"], self.measures["eye_height"]
        open_ = 0.065 * (1 - 0.6 * has["narrow_eyes"])
        brow, thick, bend = height - 0.16, 0.02 + 0.03 * has["bushy_eyebrows"], 7 * has["arched_eyebrows"]
        aside = 0.06 * has["looking_aside"]

        def pupils(x: Tensor, y: Tensor) -> Tensor:
            return ellipse(x - x.sign() * gap - aside, y - height, 0.045, torch.minimum(open_, open_.new_tensor(0.045)))

        def glasses(x: Tensor, y: Tensor) -> Tensor:
            rims = stroke(ellipse(x.abs() - gap, y - height, 0.15, 0.13), 0.02)
            return torch.minimum(rims, box(x, y - height, gap - 0.14, 0.02))

        white, dark, shadow = self.colour(LIGHT), self.colour(DARK), self.skin * self.colour(VIOLET)
        makeup, bags = has["heavy_makeup"], has["bags_under_eyes"]
        paint(-0.4, 0.1, lambda x, y: ellipse(x.abs() - gap, y - height + 0.03, 0.13, 0.11), shadow, makeup)
        paint(-0.3, 0.1, lambda x, y: ellipse(x.abs() - gap, y - height, 0.1, open_), white)
        paint(-0.3, 0.1, pupils, dark)
        paint(-0.2, 0.2, lambda x, y: arc(x.abs() - gap, y - height - 0.12, -4, 0.1, 0.02), self.skin * 0.5, bags)
        paint(-0.5, 0.0, lambda x, y: arc(x.abs() - gap, y - brow, bend, 0.12, thick), self.hair * 0.6)
        paint(-0.4, 0.2, glasses, dark, has["eyeglasses"])

    def hair_and_headgear(self) -> None:
        paint, has, line = self.paint, self.has, self.measures["hair_line"]

        def front(x: Tensor, y: Tensor) -> Tensor:
            temples = 0.25 * has["receding_hairline"] * ((x.abs() - 0.12) * 8).clamp(0, 1)
            wave = 0.03 * has["wavy_hair"] * torch.sin(20 * x)
            return torch.maximum(self.crown(x, y), y - line + temples + wave)

        def bangs(x: Tensor, y: Tensor) -> Tensor:
            return torch.maximum(self.crown(x, y), y - line - 0.15 + 0.05 * torch.cos(25 * x))

        paint(-0.95, -0.2, front, self.hair, 1 - has["bald"])
        paint(-0.6, -0.2, bangs, self.hair, has["bangs"])
        blue, green = self.colour(BLUE), self.colour(GREEN)
        paint(-0.46, -0.36, lambda x, y: x.abs() - self.width, blue, has["headband"])
        paint(-1.0, -0.55, lambda x, y: x.abs() - self.width - 0.05, green, has["hat"])
        paint(-0.62, -0.52, lambda x, y: x.abs() - self.width - 0.3, green * 0.6, has["hat"])
