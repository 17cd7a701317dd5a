"""Small pictures for the report."""

from __future__ import annotations

import io

from PIL import Image

from videogen_trainer.video_reading import Picture

THUMBNAIL = (320, 320)  # shown at half of it, so that it is sharp on dense screens


def thumbnail(picture: Picture) -> bytes:
    """A JPEG of at most 320 x 320 pixels."""
    image = Image.fromarray(picture)
    image.thumbnail(THUMBNAIL)
    image.save(buffer := io.BytesIO(), "JPEG", quality=80)
    return buffer.getvalue()
