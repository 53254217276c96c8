"""Drawn signs on photographs, with personal data or with what only looks like them, and drawn watermarks."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import phonenumbers
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from strata.privacy.personal import REGIONS

SIZE = (640, 480)
COLOURS = (("#f4f1e4", "#20242c"), ("#145a32", "#f6f0c8"), ("#123a7a", "#ffffff"), ("#ffd23c", "#181818"))
HEADINGS = ("BAKERY", "FOR SALE", "TAXI", "FLAT TO LET", "GARAGE", "LOST DOG", "FLOWERS", "HAIRDRESSER")
PLAIN = (
    *("OPEN 08:00-18:00", "MON-FRI 9-17", "12.11.2026", "1998-2026", "PRICE 12,99", "ROOM 2.14", "NO PARKING"),
    *("MAX 2,10 m", "5 000 000 VISITORS", "BUS 100 200 X9", "SALE -50 %", "EST. 1887", "A4 297 x 210", "KM 128,5"),
)
AGENCIES = ("shutterstock", "gettyimages", "alamy", "dreamstime", "iStock", "depositphotos")
Random = np.random.Generator


@dataclass(frozen=True)
class Sign:
    """A picture with a sign. kind: of the personal datum on it, or ""; text: the line that has it, or looks like it."""

    image: Image.Image
    kind: str
    text: str


def signs(grounds: Sequence[Image.Image], count: int, seed: int) -> list[Sign]:
    """Signs on photographs: of each kind of personal data `count`, and as many without as there are kinds."""
    random = np.random.default_rng(seed)
    kinds = [*(kind for kind in MAKERS for _ in range(count)), *("" for _ in range(count * len(MAKERS)))]
    made = []
    for number, kind in enumerate(kinds):
        text = MAKERS[kind](random) if kind else str(random.choice(PLAIN))
        made.append(Sign(drawn_sign(grounds[number % len(grounds)], text, random), kind, text))
    return made


def watermarked(ground: Image.Image, name: str, alpha: float) -> Image.Image:
    """The photograph with a name in white across it three times, as agencies do. alpha: 0 to 1."""
    image = ground.convert("RGB").resize(SIZE)
    layer = Image.new("RGBA", SIZE, (255, 255, 255, 0))
    pen, font = ImageDraw.Draw(layer), ImageFont.load_default(size=54)
    for row in range(3):
        pen.text((60 + 120 * row, 60 + 140 * row), name, (255, 255, 255, round(255 * alpha)), font=font)
    image.paste(layer, (0, 0), layer)
    return image


def jpeg(image: Image.Image, quality: int = 85) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def drawn_sign(ground: Image.Image, text: str, random: Random) -> Image.Image:
    """A sign with a heading and a line of text, a little turned and blurred, on a photograph."""
    image = ground.convert("RGB").resize(SIZE)
    back, front = COLOURS[random.integers(len(COLOURS))]
    size = int(random.integers(22, 34))
    fonts = ImageFont.load_default(size=size + 6), ImageFont.load_default(size=size)
    lines = (str(random.choice(HEADINGS)), text)
    width = round(max(font.getlength(line) for font, line in zip(fonts, lines, strict=True))) + 48
    sign = Image.new("RGBA", (width, 4 * size + 24), back)
    pen = ImageDraw.Draw(sign)
    pen.rectangle((5, 5, sign.width - 6, sign.height - 6), outline=front, width=3)
    for number, (font, line) in enumerate(zip(fonts, lines, strict=True)):
        pen.text(((sign.width - font.getlength(line)) / 2, 16 + number * 1.8 * size), line, front, font=font)
    turned = sign.rotate(float(random.uniform(-4, 4)), Image.Resampling.BICUBIC, expand=True)
    left, top = (int(random.integers(0, max(1, room))) for room in np.subtract(SIZE, turned.size))
    image.paste(turned, (left, top), turned)
    blurred = image.filter(ImageFilter.GaussianBlur(float(random.uniform(0, 0.8))))
    with Image.open(io.BytesIO(jpeg(blurred, int(random.integers(60, 92))))) as opened:
        return opened.convert("RGB")


def _digits(random: Random, count: int) -> str:
    return "".join(map(str, random.integers(0, 10, count)))


def _phone(random: Random) -> str:
    """A valid number of one of the regions, in the country's form or with its code."""
    region, forms = str(random.choice(REGIONS)), phonenumbers.PhoneNumberFormat
    number = phonenumbers.example_number(region)
    assert number is not None  # every region has one
    # in the country's form: the number alone has lost its leading zero
    example = phonenumbers.format_number(number, forms.NATIONAL)
    for _ in range(20):
        changed = phonenumbers.parse(re.sub(r"\d{4}$", _digits(random, 4), example), region)
        if phonenumbers.is_valid_number(changed):
            number = changed
            break
    return phonenumbers.format_number(number, forms.NATIONAL if random.random() < 0.5 else forms.INTERNATIONAL)


def _email(random: Random) -> str:
    names, hosts = (
        ("anna.berg", "info", "jo_smith", "k.lee", "office"),
        ("bakery-miller.co.uk", "example.org", "mail.de"),
    )
    return f"{random.choice(names)}{random.integers(1, 99)}@{random.choice(hosts)}"


def _account(random: Random) -> str:
    """A German account with right check digits, in groups of four (ISO 13616)."""
    account = _digits(random, 18)
    check = 98 - int(account + "131400") % 97  # D and E are 13 and 14
    whole = f"DE{check:02d}{account}"
    return " ".join(whole[start : start + 4] for start in range(0, len(whole), 4))


def _card(random: Random) -> str:
    """A card number with its check digit (Luhn), in groups of four."""
    digits = "4" + _digits(random, 14)
    total = sum(sum(divmod(2 * int(one), 10)) for one in digits[::-1][::2]) + sum(map(int, digits[::-1][1::2]))
    whole = digits + str(-total % 10)
    return " ".join(whole[start : start + 4] for start in range(0, 16, 4))


MAKERS: dict[str, Callable[[Random], str]] = {"phone": _phone, "email": _email, "account": _account, "card": _card}
