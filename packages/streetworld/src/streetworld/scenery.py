"""The street without its actors: sky, roadside, road, and the lamps that are lit at night."""

from functools import lru_cache

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFilter

Colour = tuple[int, int, int]

SKY: dict[tuple[str, str], tuple[Colour, Colour]] = {
    ("day", "clear"): ((86, 156, 224), (196, 224, 244)),
    ("day", "rain"): ((118, 128, 142), (164, 172, 180)),
    ("day", "fog"): ((196, 202, 206), (212, 216, 218)),
    ("day", "snow"): ((170, 184, 202), (220, 226, 234)),
    ("dusk", "clear"): ((92, 78, 140), (250, 158, 92)),
    ("dusk", "rain"): ((92, 82, 104), (182, 130, 110)),
    ("dusk", "fog"): ((176, 150, 150), (216, 178, 158)),
    ("dusk", "snow"): ((124, 110, 150), (232, 178, 152)),
    ("night", "clear"): ((8, 12, 34), (28, 38, 76)),
    ("night", "rain"): ((12, 14, 26), (32, 38, 54)),
    ("night", "fog"): ((44, 50, 64), (64, 70, 84)),
    ("night", "snow"): ((18, 24, 46), (50, 58, 84)),
}
# How the time of day colours everything under the sky.
TINT = {"day": (1.0, 1.0, 1.0), "dusk": (0.86, 0.66, 0.58), "night": (0.36, 0.40, 0.56)}
WALLS: tuple[Colour, ...] = (
    (196, 120, 92),
    (222, 196, 152),
    (170, 176, 184),
    (150, 168, 140),
    (206, 168, 150),
    (180, 150, 120),
)
HORIZON = 0.46
CURB, ROAD_END = 0.565, 0.865


@lru_cache(maxsize=300)
def scenery(
    time: str, weather: str, road: str, side: str, variant: int, size: tuple[int, int]
) -> tuple[PillowImage.Image, PillowImage.Image]:
    """Return the street (already tinted by the time of day) and its own light, both RGB of `size` (width, height)."""
    rng = np.random.default_rng([variant, 77])
    width, height = size
    sky = _sky(time, weather, size, rng)
    ground = PillowImage.new("RGB", size)
    draw = ImageDraw.Draw(ground)
    light = PillowImage.new("RGB", size)
    lamps = ImageDraw.Draw(light)
    mask = PillowImage.new("L", size, 0)
    cover = ImageDraw.Draw(mask)
    cover.rectangle((0, HORIZON * height, width, height), fill=255)
    dark = time != "day"
    _ROADSIDES[side](draw, cover, lamps if dark else None, size, weather == "snow", rng)
    _street(draw, size, road, weather)
    if dark:
        _street_lamps(draw, cover, lamps, size)
    tinted = np.asarray(ground, np.float32) * np.array(TINT[time], np.float32)
    sky.paste(PillowImage.fromarray(tinted.astype(np.uint8)), mask=mask)
    return sky, light.filter(ImageFilter.BoxBlur(height * 0.012))


def _sky(time: str, weather: str, size: tuple[int, int], rng: np.random.Generator) -> PillowImage.Image:
    width, height = size
    top, bottom = (np.array(c, np.float32) for c in SKY[time, weather])
    fall = np.clip(np.linspace(0, 1 / HORIZON, height), 0, 1)[:, None, None]
    image = PillowImage.fromarray(np.broadcast_to(top + (bottom - top) * fall, (height, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    if weather in ("fog", "snow"):
        return image
    if time == "night" and weather == "clear":
        for _ in range(40):
            x, y = rng.uniform(0, width), rng.uniform(0, 0.4 * height)
            r = rng.uniform(0.001, 0.003) * height
            draw.ellipse((x - r, y - r, x + r, y + r), fill=(220, 224, 240))
    x, y, r = rng.uniform(0.15, 0.85) * width, (0.1 if time != "dusk" else 0.2) * height, 0.05 * height
    if weather == "clear":
        disc = {"day": (255, 240, 170), "dusk": (255, 190, 110), "night": (230, 232, 220)}[time]
        draw.ellipse((x - r, y - r, x + r, y + r), fill=disc)
    if time != "night":
        grey = (246, 248, 250) if weather == "clear" else (104, 110, 122)
        cloud = tuple(int(a * 0.6 + b * 0.4) for a, b in zip(grey, bottom, strict=True))
        for _ in range(3 if weather == "clear" else 6):
            x, y = rng.uniform(0, width), rng.uniform(0.03, 0.22) * height
            for step in range(4):
                r = rng.uniform(0.025, 0.05) * height
                dx = step * 0.05 * height
                draw.ellipse((x + dx - r * 1.5, y - r, x + dx + r * 1.5, y + r * 0.8), fill=cloud)
    return image


def _houses(
    draw: ImageDraw.ImageDraw,
    cover: ImageDraw.ImageDraw,
    lamps: ImageDraw.ImageDraw | None,
    size: tuple[int, int],
    snow: bool,
    rng: np.random.Generator,
) -> None:
    width, height = size
    draw.rectangle((0, HORIZON * height, width, 0.53 * height), fill=(222, 228, 234) if snow else (122, 146, 96))
    x = -rng.uniform(0, 0.2) * height
    while x < width:
        w, top = rng.uniform(0.2, 0.3) * height, rng.uniform(0.24, 0.31) * height
        wall = WALLS[int(rng.integers(len(WALLS)))]
        base = 0.53 * height
        roof = [(x - 0.01 * height, top), (x + w / 2, top - 0.1 * height), (x + w + 0.01 * height, top)]
        roof_colour = (236, 240, 246) if snow else ((130, 62, 50), (92, 84, 88))[int(rng.integers(2))]
        for target, wall_fill, roof_fill in ((draw, wall, roof_colour), (cover, 255, 255)):
            target.rectangle((x, top, x + w, base), fill=wall_fill)
            target.polygon(roof, fill=roof_fill)
        d = 0.042 * height
        for column in (0.18, 0.62):
            for row in (0.04, 0.14):
                wx, wy = x + column * w, top + row * height
                box = (wx, wy, wx + d, wy + d * 1.2)
                draw.rectangle(box, fill=(92, 112, 132), outline=(240, 236, 226), width=max(1, height // 180))
                if lamps is not None and rng.random() < 0.55:
                    lamps.rectangle(box, fill=(220, 170, 80))
        x += w + rng.uniform(0.0, 0.05) * height


def _trees(
    draw: ImageDraw.ImageDraw,
    cover: ImageDraw.ImageDraw,
    lamps: ImageDraw.ImageDraw | None,
    size: tuple[int, int],
    snow: bool,
    rng: np.random.Generator,
) -> None:
    width, height = size
    field = (222, 228, 234) if snow else (112, 146, 84)
    draw.rectangle((0, HORIZON * height, width, 0.56 * height), fill=field)
    x = -rng.uniform(0, 0.1) * height
    while x < width + 0.1 * height:
        top, r = rng.uniform(0.2, 0.27) * height, rng.uniform(0.075, 0.1) * height
        green = int(rng.integers(96, 132))
        leaf = (226, 232, 238) if snow else (44, green, 52)
        shade = (170, 190, 186) if snow else (34, green - 26, 44)
        t = 0.014 * height
        for target, trunk, low, high in ((draw, (92, 66, 46), shade, leaf), (cover, 255, 255, 255)):
            target.rectangle((x - t, top, x + t, 0.525 * height), fill=trunk)
            crown = ((-0.6, 0.5, 0.8, low), (0.6, 0.5, 0.8, low), (0, 0.9, 0.9, low), (-0.1, 0, 1, high))
            for dx, dy, k, fill in crown:
                cx, cy = x + dx * r, top + dy * r
                target.ellipse((cx - k * r, cy - k * r, cx + k * r, cy + k * r), fill=fill)
        x += rng.uniform(0.2, 0.3) * height


def _towers(
    draw: ImageDraw.ImageDraw,
    cover: ImageDraw.ImageDraw,
    lamps: ImageDraw.ImageDraw | None,
    size: tuple[int, int],
    snow: bool,
    rng: np.random.Generator,
) -> None:
    width, height = size
    draw.rectangle((0, HORIZON * height, width, 0.53 * height), fill=(132, 138, 142))
    x = -rng.uniform(0, 0.1) * height
    while x < width:
        w, top = rng.uniform(0.14, 0.24) * height, rng.uniform(0.05, 0.2) * height
        grey = int(rng.integers(96, 150))
        draw.rectangle((x, top, x + w, 0.53 * height), fill=(grey, grey + 8, grey + 20))
        cover.rectangle((x, top, x + w, 0.53 * height), fill=255)
        if snow:
            draw.rectangle((x, top, x + w, top + 0.012 * height), fill=(238, 242, 246))
        step = 0.044 * height
        y = top + 0.025 * height
        while y < 0.46 * height:
            wx = x + 0.02 * height
            while wx + 0.5 * step < x + w - 0.01 * height:
                box = (wx, y, wx + 0.55 * step, y + 0.55 * step)
                draw.rectangle(box, fill=(150, 184, 210))
                if lamps is not None and rng.random() < 0.4:
                    lamps.rectangle(box, fill=(200, 180, 110))
                wx += step
            y += step
        x += w + rng.uniform(0, 0.02) * height


_ROADSIDES = {"houses": _houses, "trees": _trees, "towers": _towers}


def _street(draw: ImageDraw.ImageDraw, size: tuple[int, int], road: str, weather: str) -> None:
    width, height = size
    snow, wet = weather == "snow", weather == "rain"
    walk = (214, 220, 228) if snow else (150, 146, 144) if wet else (186, 180, 172)
    tar = (150, 154, 162) if snow else (62, 66, 76) if wet else (92, 92, 96)
    line = (226, 226, 222)
    draw.rectangle((0, 0.515 * height, width, CURB * height), fill=walk)
    draw.rectangle((0, CURB * height, width, ROAD_END * height), fill=tar)
    draw.rectangle((0, ROAD_END * height, width, height), fill=walk)
    for y in (CURB, ROAD_END):
        draw.rectangle((0, (y - 0.006) * height, width, (y + 0.004) * height), fill=tuple(c - 40 for c in walk))
    middle = (width - height) / 2 + 0.5 * height
    for x in np.arange(-1.0, 2.0, 0.14):
        left = middle + x * height
        draw.rectangle((left, 0.698 * height, left + 0.07 * height, 0.708 * height), fill=line)
    if road == "crossing":
        draw.rectangle((middle - 0.17 * height, 0.69 * height, middle + 0.17 * height, 0.715 * height), fill=tar)
        for step in range(7):
            top, bottom = CURB + 0.01, ROAD_END - 0.01
            left_top = middle + (step - 3.4) * 0.042 * height
            left_low = middle + (step - 3.4) * 0.056 * height
            draw.polygon(
                [
                    (left_top, top * height),
                    (left_top + 0.024 * height, top * height),
                    (left_low + 0.033 * height, bottom * height),
                    (left_low, bottom * height),
                ],
                fill=line,
            )
    for x in np.arange(-1.0, 2.0, 0.2):
        left = middle + x * height
        draw.line((left, ROAD_END * height, left - 0.03 * height, height), fill=tuple(c - 18 for c in walk))


def _street_lamps(
    draw: ImageDraw.ImageDraw, cover: ImageDraw.ImageDraw, lamps: ImageDraw.ImageDraw, size: tuple[int, int]
) -> None:
    width, height = size
    middle, t = width / 2, 0.005 * height
    for x in (-0.95, -0.32, 0.32, 0.95):
        left = middle + x * height
        for target, fill in ((draw, (70, 70, 76)), (cover, 255)):
            target.rectangle((left - t, 0.27 * height, left + t, 0.53 * height), fill=fill)
        lamps.polygon(
            [(left, 0.27 * height), (left - 0.1 * height, 0.56 * height), (left + 0.1 * height, 0.56 * height)],
            fill=(46, 40, 24),
        )
        lamps.ellipse((left - 4 * t, 0.255 * height, left + 4 * t, 0.29 * height), fill=(255, 226, 150))
