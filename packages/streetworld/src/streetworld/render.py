"""Draws a scene: scenery, shadows, actors far to near, light, weather, camera noise."""

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFilter

from streetworld.figures import Pen, draw_actor, draw_light, draw_traces
from streetworld.scene import BACKGROUNDS, Actor, Scene
from streetworld.scenery import TINT, scenery
from vlmquant.errors import DataError

SUPERSAMPLING = 2
FOG = {"day": (206, 210, 212), "dusk": (202, 172, 158), "night": (60, 66, 80)}


def render(scene: Scene, size: int | tuple[int, int], *, gain: float | None = None) -> npt.NDArray[np.uint8]:
    """Draw the scene.

    Args:
        scene: what to draw; equal scenes give equal pictures.
        size: side of a square picture, or (width, height), in pixels, each at least 32.
        gain: exposure to multiply the light by; None draws 0.94 to 1.06 from the scene's seed.

    Returns:
        uint8 RGB of shape (height, width, 3).

    Raises:
        DataError: the size is below 32 pixels.
    """
    width, height = (size, size) if isinstance(size, int) else size
    if min(width, height) < 32:
        raise DataError(f"picture size {width}x{height} is too small for a street scene; use at least 32x32")
    large = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    rng = np.random.default_rng([scene.seed, 5])
    variant = scene.seed % BACKGROUNDS
    back, lamps = scenery(scene.time, scene.weather, scene.road, scene.side, variant, large)
    street = back.copy()
    _draw_actors(scene, street)
    image = np.asarray(street.reduce(SUPERSAMPLING), np.float32)
    light = _light(scene, lamps, large)
    if light is not None:
        image = image + light
    image = _weather(scene, image, rng)
    exposure = rng.uniform(0.94, 1.06)
    image *= exposure if gain is None else gain
    image += _noise(rng, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def _pen(actor: Actor, image: PillowImage.Image) -> Pen:
    width, height = image.size
    origin = ((width - height) / 2 + actor.x * height, actor.ground * height)
    return Pen(ImageDraw.Draw(image), origin, height * actor.scale, 1 if actor.direction == "right" else -1)


def _draw_actors(scene: Scene, street: PillowImage.Image) -> None:
    tint = np.array(TINT[scene.time], np.float32)
    for actor in sorted(scene.actors, key=lambda a: a.ground):
        left, top, right, bottom = _pixels(actor, street)
        if left >= right or top >= bottom:
            continue
        # Shadow first, then the body on its own patch, so that only the body takes the tint of the hour.
        patch = street.crop((left, top, right, bottom))
        pen = _pen(actor, street)
        half = (actor.box[2] - actor.box[0]) / 2 / actor.scale
        soft = PillowImage.new("L", patch.size, 0)
        shadow = _moved(pen, soft, left, top)
        shadow.draw.ellipse(_shadow_box(shadow, half), fill=110 if scene.weather == "clear" else 70)
        patch.paste((16, 16, 24), mask=soft)
        body = PillowImage.new("RGBA", patch.size)
        brush = _moved(pen, body, left, top)
        draw_traces(actor, brush, scene.time)
        draw_actor(actor, brush)
        tinted = (np.asarray(body)[..., :3] * (tint * 0.75 + 0.25)).astype(np.uint8)
        patch.paste(PillowImage.fromarray(tinted), mask=body.getchannel("A"))
        street.paste(patch, (left, top))


def _moved(pen: Pen, image: PillowImage.Image, left: int, top: int) -> Pen:
    return Pen(ImageDraw.Draw(image), (pen.origin[0] - left, pen.origin[1] - top), pen.unit, pen.mirror)


def _pixels(actor: Actor, street: PillowImage.Image) -> tuple[int, int, int, int]:
    width, height = street.size
    left, top, right, bottom = actor.box
    shift, margin = (width - height) / 2, 0.3 * actor.scale * height
    return (
        max(0, int(left * height + shift - margin)),
        max(0, int((top - 0.06) * height)),
        min(width, int(right * height + shift + margin)),
        min(height, int((bottom + 0.03) * height)),
    )


def _shadow_box(pen: Pen, half: float) -> tuple[float, float, float, float]:
    (left, low), (right, high) = pen.at(-half, -0.016), pen.at(half, 0.016)
    return (min(left, right), high, max(left, right), low)


def _light(scene: Scene, lamps: PillowImage.Image, large: tuple[int, int]) -> npt.NDArray[np.float32] | None:
    shining = [a for a in scene.actors if a.kind in ("car", "bus", "truck") and a.state != "parked"]
    if not shining and scene.time == "day":
        return None
    light = (
        lamps.reduce(SUPERSAMPLING)
        if scene.time != "day"
        else PillowImage.new("RGB", (large[0] // SUPERSAMPLING, large[1] // SUPERSAMPLING))
    )
    if shining:
        glow = PillowImage.new("RGB", light.size)
        for actor in shining:
            draw_light(actor, _pen(actor, glow), scene.time)
        glow = glow.filter(ImageFilter.BoxBlur(light.size[1] * 0.01))
        return np.asarray(light, np.float32) + np.asarray(glow, np.float32)
    return np.asarray(light, np.float32)


def _weather(scene: Scene, image: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    height, width = image.shape[:2]
    if scene.weather == "fog":
        # Thick far away, thin at the viewer's feet.
        share = np.interp(np.arange(height), (0, 0.45 * height, height), (0.55, 0.55, 0.16)).astype(np.float32)
        fog = np.array(FOG[scene.time], np.float32)
        return image + (fog - image) * share[:, None, None]
    if scene.weather in ("rain", "snow"):
        flakes = PillowImage.new("L", (width, height), 0)
        draw = ImageDraw.Draw(flakes)
        count = 70 if scene.weather == "rain" else 90
        xs, ys = rng.uniform(0, width, count), rng.uniform(0, height, count)
        sizes = rng.uniform(0.5, 1.0, count) * height
        for x, y, s in zip(xs, ys, sizes, strict=True):
            if scene.weather == "rain":
                draw.line((x, y, x - 0.018 * s, y + 0.075 * s), fill=105, width=max(1, height // 160))
            else:
                r = 0.009 * s
                draw.ellipse((x - r, y - r, x + r, y + r), fill=225)
        cover = np.asarray(flakes, np.float32)[..., None] / np.float32(255)
        bright = np.array((206, 214, 226) if scene.time == "day" else (168, 172, 190), np.float32)
        return image + (bright - image) * cover
    return image


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return rng.standard_normal(shape[:2], np.float32)[..., None] * np.float32(3.0)
